//! The commands that ask and change a running firewall: `flows`, `flows kill`, `trace`, `stats`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::clients::{ask, at, connect, reach, udp};
use crate::lab::{
    Firewall, INSTANCE, INSTANCE_V6, Lab, Rules, WORLD, can_run, eventually, sgwall, text,
};
use crate::stream::Stream;

const OPEN: Rules<'static> = Rules {
    ingress: r#"
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = 80, cidr = "203.0.113.0/24" },
  { protocol = "tcp", ports = 80, cidr = "2001:db8:9::/48" },"#,
    ..Rules::NEW
};

#[test]
fn flows_are_listed_filtered_and_ended() {
    if !can_run("flows_are_listed_filtered_and_ended", &[]) {
        return;
    }
    let lab = Lab::new("flows", &OPEN, &[]);
    let firewall = &lab.firewall;
    assert_eq!(firewall.ask(&["flows"]).trim(), "no flows");
    reach(&lab.world, INSTANCE, "");
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    let other = Stream::start(&lab.world, &lab.instance, INSTANCE_V6, 80);
    ask(&udp(&lab.instance, &at(INSTANCE, 4000).to_string()), at(WORLD, 53), b"?");

    let table = firewall.ask(&["flows"]);
    for part in ["icmp", "tcp", "udp", "established", "single", "sg-1/ingress-2", "sg-1/egress-1"] {
        assert!(table.contains(part), "{part:?} is not in:\n{table}");
    }
    assert!(table.contains(&format!("[{INSTANCE_V6}]:80")), "{table}");
    let count = |filter: &[&str]| firewall.flows(filter).len();
    assert_eq!(count(&["protocol=tcp"]), 2);
    assert_eq!(count(&["protocol=tcp", "src=203.0.113.0/24", "dst=10.0.1.10"]), 1);
    assert_eq!(count(&["addr=2001:db8::/32", "state=established"]), 1);
    assert_eq!(count(&["interface=eni-1", "sport=4000", "dport=53"]), 1);
    assert_eq!(count(&["interface=eni-2"]), 0);
    assert_eq!(count(&["port=81"]), 0);
    assert!(firewall.ask(&["flows", "--limit", "1"]).contains("and more; these are the first 1"));
    for wrong in ["colour=red", "tcp", "port=http", "src=10.0.0.0/33"] {
        let output = firewall.try_ask(&["flows", wrong]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(wrong.split('=').next().expect("a key")), "{errors}");
    }

    // A flow that is ended while its rule stays is judged by that; without its rule it is over.
    assert_eq!(
        firewall.ask(&["flows", "kill", "dst=10.0.1.10", "dport=80"]).trim(),
        "1 flows ended"
    );
    stream.goes_on();
    other.goes_on();
    assert_eq!(count(&["protocol=tcp"]), 1);
    let again = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    drop(stream);
    firewall.reload(&Rules::NEW.text());
    again.goes_on();
    assert_eq!(
        firewall.ask(&["flows", "kill", "dst=10.0.1.10", "dport=80"]).trim(),
        "1 flows ended"
    );
    again.is_cut();
    other.goes_on();
    assert_eq!(firewall.ask(&["flows", "kill", "protocol=tcp"]).trim(), "1 flows ended");
    other.is_cut();
    assert_eq!(firewall.try_ask(&["flows", "kill"]).status.code(), Some(2));
}

/// A running `sgwall trace`; killed when dropped.
struct Trace(Child);

impl Trace {
    fn start(firewall: &Firewall, args: &[&str]) -> Trace {
        let mut command = sgwall();
        command.arg("trace").args(args).arg("--control").arg(firewall.control());
        Trace(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sgwall runs"))
    }

    /// Its output, once it has ended of itself; `poke` makes something for it to see.
    fn finish(&mut self, mut poke: impl FnMut()) -> Vec<String> {
        eventually("the trace ends", || {
            poke();
            self.0.try_wait().expect("its status").is_some()
        });
        assert!(self.0.wait().expect("its status").success());
        let output = self.0.stdout.take().expect("piped");
        BufReader::new(output).lines().map(|line| line.expect("text")).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_trace_shows_a_drop_with_its_reason() {
    if !can_run("a_trace_shows_a_drop_with_its_reason", &[]) {
        return;
    }
    let lab = Lab::new("trace", &OPEN, &["--workers", "2"]);
    // Plenty that is not meant.
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    stream.goes_on();
    let knock = || {
        let refused = connect(&lab.world, at(INSTANCE, 8080), Duration::from_millis(100));
        assert!(refused.is_err());
    };
    let filter = ["verdict=drop", "protocol=tcp", "dport=8080", "--count", "2"];
    let mut trace = Trace::start(&lab.firewall, &[&filter[..], &["--json"]].concat());
    let lines = trace.finish(knock);
    let answers: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    for answer in answers {
        let word = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(word("type"), "trace");
        assert_eq!([word("interface"), word("direction")], ["eni-1", "ingress"]);
        assert_eq!([word("src"), word("dst")], [WORLD, INSTANCE]);
        assert_eq!(answer["dst_port"], 8080);
        let decided = [word("verdict"), word("stage"), word("reason")];
        assert_eq!(decided, ["drop", "security-group", "no-rule"]);
    }
    // For people, by reason. There is one trace at a time: the firewall takes a moment to see that
    // the last one is gone.
    let args = ["reason=no-rule", "interface=eni-1"];
    let mut line = String::new();
    eventually("a second trace", || {
        let mut trace = Trace::start(&lab.firewall, &args);
        let output = trace.0.stdout.take().expect("piped");
        let mut is_refused = || {
            knock();
            trace.0.try_wait().expect("its status").is_some()
        };
        if (0..5).any(|_| is_refused()) {
            return false;
        }
        let another = lab.firewall.try_ask(&["trace"]);
        assert_eq!(another.status.code(), Some(2));
        assert!(text(&another.stderr).contains("another trace is running"));
        BufReader::new(output).read_line(&mut line).expect("a line");
        true
    });
    assert!(line.contains("no-rule") && line.contains(&format!("{INSTANCE}:8080")), "{line}");
    stream.goes_on();
}

#[test]
fn counters_add_up() {
    if !can_run("counters_add_up", &[]) {
        return;
    }
    for workers in ["1", "2"] {
        let lab = Lab::new("stats", &OPEN, &["--workers", workers]);
        reach(&lab.world, INSTANCE, "");
        reach(&lab.instance, WORLD, "");
        for _ in 0..4 {
            Stream::start(&lab.world, &lab.instance, INSTANCE, 80).goes_on();
        }
        let sum = |stats: &Value, list: &str, key: &str, meant: &dyn Fn(&Value) -> bool| -> u64 {
            let items = stats[list].as_array().expect("a list").iter().filter(|item| meant(item));
            items.map(|item| item[key].as_u64().expect("a number")).sum()
        };
        let all = |_: &Value| true;
        let mut stats = Value::Null;
        // What comes is counted before it is judged: wait for a moment without traffic.
        eventually("every frame is judged once", || {
            stats = lab.firewall.stats();
            let frames: u64 = stats["ports"]
                .as_array()
                .expect("ports")
                .iter()
                .map(|port| port["counters"]["rx_frames"].as_u64().expect("a number"))
                .sum();
            frames == sum(&stats, "reasons", "packets", &all)
        });
        assert_eq!(stats["workers"].to_string(), workers);
        // Each packet that a group decided counts for one rule, each flow for one opening packet.
        let opened = sum(&stats, "reasons", "packets", &|of| of["reason"] == "allowed-tracked");
        let allowed = sum(&stats, "reasons", "packets", &|of| {
            of["stage"] == "security-group" && of["verdict"] == "pass"
        });
        assert_eq!(sum(&stats, "rules", "packets", &all), allowed);
        assert_eq!(stats["flows_created"], opened);
        assert_eq!(stats["flows_refused"], 0);
        let of_http = |rule: &Value| rule["rule"] == "sg-1/ingress-2";
        assert_eq!(sum(&stats, "rules", "packets", &of_http), 4);
        assert_eq!(stats["flows"], lab.firewall.flows(&[]).len());
        let table = lab.firewall.ask(&["stats"]);
        for part in ["tap-i", "tap-n", "allowed-tracked", "sg-1/ingress-2", "tracked flows of"] {
            assert!(table.contains(part), "{part:?} is not in:\n{table}");
        }
    }
}

/// A packet is explained with the flows that there are, and none is made by that.
#[test]
fn a_packet_is_explained_by_the_running_firewall() {
    if !can_run("a_packet_is_explained_by_the_running_firewall", &[]) {
        return;
    }
    let lab = Lab::new("explain", &OPEN, &[]);
    ask(&udp(&lab.instance, &at(INSTANCE, 4000).to_string()), at(WORLD, 53), b"?");
    let explain = |packet: [String; 4]| {
        let packet = packet.iter().map(String::as_str);
        let words: Vec<_> = ["explain", "--live", "--json"].into_iter().chain(packet).collect();
        let answer: Value = serde_json::from_str(&lab.firewall.ask(&words)).expect("JSON");
        answer["decision"]["reason"].as_str().map(str::to_owned).expect("a reason")
    };
    let answer =
        |port| ["udp".into(), format!("{WORLD}:{port}"), "to".into(), format!("{INSTANCE}:4000")];
    assert_eq!(explain(answer(53)), "reply");
    assert_eq!(explain(answer(54)), "no-rule");
    assert_eq!(lab.firewall.flows(&["protocol=udp"]).len(), 1);
}
