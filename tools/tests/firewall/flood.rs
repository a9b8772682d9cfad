//! A flood that fills a small flow table: who is in it goes on, and what happens is told.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{at, connect, listen, udp};
use crate::lab::{INSTANCE, Lab, PATIENCE, Rules, can_run, eventually};
use crate::stream::Stream;

/// Places of the flow table.
const PLACES: u64 = 2000;
/// Who sends most of the flood, and the others.
const LOUD: &str = "198.51.100.7";
const OTHERS: [&str; 4] = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"];

/// Kilobytes that a process has in memory.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Sends to one port after another, each a flow of its own that nobody answers.
fn flood(lab: &Lab) {
    let sockets = |addresses: &[&str]| -> Vec<UdpSocket> {
        addresses.iter().map(|address| udp(&lab.world, &format!("{address}:9"))).collect()
    };
    let (loud, others) = (sockets(&[LOUD]), sockets(&OTHERS));
    for port in 2000..12_000u16 {
        // Nobody listens there, and a socket is told so now and then: that is no matter.
        let _ = loud[0].send_to(b"flood", (INSTANCE, port));
        if port % 4 == 0 {
            for other in &others {
                let _ = other.send_to(b"flood", (INSTANCE, port));
            }
        }
        if port % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn sum(rows: &Value, is_meant: impl Fn(&Value) -> bool, field: &str) -> u64 {
    let rows = rows.as_array().expect("rows").iter().filter(|row| is_meant(row));
    rows.map(|row| row[field].as_u64().expect("a number")).sum()
}

#[test]
fn a_flood_fills_the_table_and_harms_nobody_who_is_in_it() {
    if !can_run("a_flood_fills_the_table_and_harms_nobody_who_is_in_it", &[]) {
        return;
    }
    let rules = Rules {
        ingress: r#"
  { protocol = "tcp", ports = "80-81", cidr = "203.0.113.0/24" },
  { protocol = "udp", ports = "2000-65535", cidr = "198.51.100.0/24" },"#,
        ..Rules::NEW
    };
    for full_table in ["drop-new", "evict-embryonic"] {
        let places = PLACES.to_string();
        let args = ["--max-flows", &places, "--full-table", full_table, "--workers", "2"];
        let lab = Lab::new("flood", &rules, &args);
        lab.world.ip("route add local 198.51.100.0/24 dev lo").expect("ip of iproute2");
        let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
        stream.goes_on();
        let before = resident(lab.firewall.pid());
        flood(&lab);
        stream.goes_on();

        // Who has most of them is told, once, and may be asked.
        let told = "new flows find no place";
        eventually("the full table is told of", || lab.firewall.log().contains(told));
        let log = lab.firewall.log();
        let warning = log.lines().find(|line| line.contains(told)).expect("the line");
        assert!(warning.contains(&format!("by remote address: {LOUD} ")), "{warning}");
        assert!(warning.contains("by interface: eni-1 "), "{warning}");
        let top = lab.firewall.ask(&["flows", "top", "--by", "src", "--limit", "3", "--json"]);
        let top: Value = serde_json::from_str(top.lines().next().expect("a line")).expect("JSON");
        assert_eq!(top["rows"][0]["value"], LOUD, "{top}");
        assert!(top["rows"].as_array().is_some_and(|rows| rows.len() == 3), "{top}");

        // A flow that is answered finds a place where there is one to be had.
        if full_table == "evict-embryonic" {
            let listener = listen(&lab.instance, &format!("{INSTANCE}:81"));
            connect(&lab.world, at(INSTANCE, 81), PATIENCE).expect("connected");
            drop(listener);
        }
        stream.goes_on();
        drop(stream);
        let growth = resident(lab.firewall.pid()).saturating_sub(before);
        assert!(growth < 16_000, "{growth} kB more");

        // What was counted adds up.
        eventually("the counters come to rest and add up", || {
            let stats = lab.firewall.stats();
            let of =
                |reason: &str| sum(&stats["reasons"], |row| row["reason"] == reason, "packets");
            let number = |name: &str| stats[name].as_u64().expect("a number");
            let frames = |port: &Value| port["counters"]["rx_frames"].as_u64().expect("frames");
            let received: u64 = stats["ports"].as_array().expect("ports").iter().map(frames).sum();
            of("allowed-tracked") == number("flows_created")
                && of("conntrack-full") == number("flows_refused")
                && sum(&stats["interfaces"], |_| true, "evicted") == number("flows_evicted")
                && sum(&stats["reasons"], |_| true, "packets") >= received
        });
        let stats = lab.firewall.stats();
        let number = |name: &str| stats[name].as_u64().expect("a number");
        assert!(number("flows") <= PLACES, "{stats}");
        let (refused, evicted) = (number("flows_refused"), number("flows_evicted"));
        match full_table {
            "drop-new" => assert!(refused > 1000 && evicted == 0, "{refused} {evicted}"),
            _ => assert!(evicted > 1000, "{refused} {evicted}"),
        }
    }
}
