//! Fragments that the hosts themselves make, each taking its first fragment's verdict.

use sgwall_netio::netns::Scratch;

use crate::clients::{is_silent, reach, run};
use crate::lab::{INSTANCE, INSTANCE_V6, Lab, Rules, WORLD, WORLD_V6, can_run, text};

/// Datagrams that a host's kernel has put together: IPv4 and IPv6.
pub(crate) fn reassembled(host: &Scratch) -> (u64, u64) {
    (ipv4_counter(host, "ReasmOKs"), ipv6_counter(host, "Ip6ReasmOKs"))
}

/// Fragments that have reached a host: IPv4 and IPv6.
fn fragments(host: &Scratch) -> (u64, u64) {
    (ipv4_counter(host, "ReasmReqds"), ipv6_counter(host, "Ip6ReasmReqds"))
}

fn ipv4_counter(host: &Scratch, name: &str) -> u64 {
    let table = text(&run(host, "cat /proc/net/snmp").stdout);
    let mut lines = table.lines().filter(|line| line.starts_with("Ip: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(found, _)| *found == name).expect("a counter");
    value.parse().expect("a number")
}

fn ipv6_counter(host: &Scratch, name: &str) -> u64 {
    let table = text(&run(host, "cat /proc/net/snmp6").stdout);
    let mut pairs = table.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = pairs.find(|(found, _)| *found == name).expect("a counter");
    value.trim().parse().expect("a number")
}

fn large_pings_cross(label: &str, args: &[&str]) {
    let rules = Rules {
        ingress: r#"
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", type = 128, cidr = "::/0" },"#,
        ..Rules::NEW
    };
    let lab = Lab::new(label, &rules, args);
    lab.instance.ip("link set tap-i mtu 1500").expect("a TAP of ours");
    for (from, to) in [
        (&lab.world, INSTANCE),
        (&lab.world, INSTANCE_V6),
        (&lab.instance, WORLD),
        (&lab.instance, WORLD_V6),
    ] {
        let before = [&lab.instance, &lab.world].map(reassembled);
        reach(from, to, "-s 8000");
        // The request was put together at one end, the answer at the other.
        for (host, before) in [&lab.instance, &lab.world].into_iter().zip(before) {
            let after = reassembled(host);
            let is_v6 = to.contains(':');
            assert_eq!((after.0 > before.0, after.1 > before.1), (!is_v6, is_v6), "{to}");
        }
    }
    assert!(lab.firewall.passed("follows-first-fragment") >= 8 * 5);

    // Refused: no fragment of it reaches the instance, the later ones no more than the first.
    lab.firewall.reload(&Rules::NEW.text());
    let before = fragments(&lab.instance);
    assert!(is_silent(&lab.world, INSTANCE, "-s 8000"));
    assert!(is_silent(&lab.world, INSTANCE_V6, "-s 8000"));
    assert_eq!(fragments(&lab.instance), before);
    assert_eq!(lab.firewall.dropped("no-rule"), 4);
    assert_eq!(lab.firewall.dropped("follows-first-fragment"), 4 * 5);
}

#[test]
fn large_pings_cross_in_fragments() {
    if can_run("large_pings_cross_in_fragments", &[]) {
        large_pings_cross("frag", &[]);
    }
}

#[test]
fn large_pings_cross_in_fragments_with_two_workers() {
    if can_run("large_pings_cross_in_fragments_with_two_workers", &[]) {
        large_pings_cross("frag2", &["--workers", "2"]);
    }
}
