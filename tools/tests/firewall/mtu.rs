//! Path MTU (SEMANTICS 12): 9001 inside the VPC, 1500 to the world, and how a sender learns of it.

use std::time::Duration;

use rustix::net::sockopt;
use rustix::net::sockopt::Ipv4PathMtuDiscovery;

use crate::clients::{at, is_silent, pattern, reach, receive, run, transfer, udp};
use crate::fragments::reassembled;
use crate::lab::{INSTANCE, Lab, PATIENCE, PEER, PEER_V6, Rules, WORLD, WORLD_V6, can_run, text};

/// The errors that path MTU discovery needs, and those that end a trace.
const WITH_ERRORS: Rules<'static> = Rules {
    ingress: r#"
  { protocol = "icmp", type = 3, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", type = 1, cidr = "::/0" },
  { protocol = "icmpv6", type = 2, cidr = "::/0" },"#,
    ..Rules::NEW
};

/// Bytes sent over TCP.
const LEN: usize = 2_000_000;
/// Long enough for a sender that gets no further to try a few times.
const STALL: Duration = Duration::from_millis(1500);

/// A lab whose world takes packets as large as the instance sends: but for the firewall, nothing
/// keeps them small.
fn jumbo(label: &str, rules: &Rules<'_>, args: &[&str]) -> Lab {
    let lab = Lab::new(label, rules, args);
    lab.world.ip("link set tap-n mtu 9001").expect("a TAP of ours");
    lab
}

/// What the instance's kernel knows of the way to an address.
fn route(lab: &Lab, to: &str) -> String {
    text(&run(&lab.instance, &format!("ip route get {to}")).stdout)
}

fn path_mtu_is_found(label: &str, args: &[&str]) {
    let lab = jumbo(label, &WITH_ERRORS, args);
    // Inside the VPC the largest packet passes, and no larger one exists.
    reach(&lab.instance, PEER, "-M do -s 8973");
    reach(&lab.instance, PEER_V6, "-M do -s 8953");
    for to in [WORLD, WORLD_V6] {
        assert!(!route(&lab, to).contains("mtu 1500"));
        let received = transfer(&lab.instance, &lab.world, &at(to, 0).to_string(), LEN, PATIENCE);
        assert_eq!(received, LEN, "to {to}");
        let route = route(&lab, to);
        assert!(route.contains("expires") && route.contains("mtu 1500"), "{route}");
    }
    for to in [PEER, PEER_V6] {
        let received = transfer(&lab.instance, &lab.world, &at(to, 0).to_string(), LEN, PATIENCE);
        assert_eq!(received, LEN, "to {to}");
        assert!(!route(&lab, to).contains("mtu 1500"));
    }
    assert!(lab.firewall.dropped("mtu-exceeded") >= 2);
}

#[test]
fn senders_find_the_path_mtu() {
    if can_run("senders_find_the_path_mtu", &[]) {
        path_mtu_is_found("pmtu", &[]);
    }
}

#[test]
fn senders_find_the_path_mtu_without_offload() {
    if can_run("senders_find_the_path_mtu_without_offload", &[]) {
        path_mtu_is_found("pmtuno", &["--no-offload"]);
    }
}

#[test]
fn tracepath_shows_the_path_mtu() {
    if !can_run("tracepath_shows_the_path_mtu", &["tracepath"]) {
        return;
    }
    let lab = jumbo("tracepath", &WITH_ERRORS, &[]);
    for (to, pmtu) in [(WORLD, 1500), (WORLD_V6, 1500), (PEER, 9001), (PEER_V6, 9001)] {
        let output = text(&run(&lab.instance, &format!("tracepath -n -m 4 {to}")).stdout);
        assert!(output.contains(&format!("Resume: pmtu {pmtu} hops 1")), "{output}");
        let router = if to.contains(':') { "2001:db8:0:1::1" } else { "10.0.1.1" };
        let told = output.lines().any(|line| line.contains(router) && line.contains("pmtu 1500"));
        assert_eq!(told, pmtu == 1500, "{output}");
    }
}

#[test]
fn without_a_rule_for_the_errors_the_path_is_a_black_hole() {
    if !can_run("without_a_rule_for_the_errors_the_path_is_a_black_hole", &[]) {
        return;
    }
    for args in [&[][..], &["--no-offload"]] {
        let lab = jumbo("hole", &Rules::NEW, args);
        for to in [WORLD, WORLD_V6] {
            let at = at(to, 0).to_string();
            // What fits arrives: it is not the port that is closed.
            assert_eq!(transfer(&lab.instance, &lab.world, &at, 1000, PATIENCE), 1000);
            let received = transfer(&lab.instance, &lab.world, &at, LEN, STALL);
            assert!(received < LEN / 2, "{received} bytes came through to {to}");
            assert!(!route(&lab, to).contains("mtu 1500"));
        }
        assert!(lab.firewall.dropped("mtu-exceeded") >= 2);
        assert!(lab.firewall.dropped("no-rule") >= 2, "the errors are refused");
        lab.firewall.reload(&WITH_ERRORS.text());
        for to in [WORLD, WORLD_V6] {
            let at = at(to, 0).to_string();
            assert_eq!(transfer(&lab.instance, &lab.world, &at, LEN, PATIENCE), LEN);
        }
    }
}

#[test]
fn today_the_router_needs_no_rule() {
    if !can_run("today_the_router_needs_no_rule", &[]) {
        return;
    }
    // SEMANTICS 12.9: in the current edition the router's errors are exempt.
    let lab = jumbo("current", &Rules { top: "compat = \"current\"", ..Rules::NEW }, &[]);
    for to in [WORLD, WORLD_V6] {
        let at = at(to, 0).to_string();
        assert_eq!(transfer(&lab.instance, &lab.world, &at, LEN, PATIENCE), LEN);
        assert!(route(&lab, to).contains("mtu 1500"));
    }
}

#[test]
fn what_may_be_fragmented_arrives_whole() {
    if !can_run("what_may_be_fragmented_arrives_whole", &[]) {
        return;
    }
    for args in [&[][..], &["--no-offload"]] {
        let lab = jumbo("cut", &Rules::NEW, args);
        let server = udp(&lab.world, &at(WORLD, 0).to_string());
        let client = udp(&lab.instance, &at(INSTANCE, 0).to_string());
        let to = server.local_addr().expect("its address");
        for len in [1472, 1473, 5000, 8973] {
            sockopt::set_ip_mtu_discover(&client, Ipv4PathMtuDiscovery::DONT).expect("no DF");
            let before = reassembled(&lab.world).0;
            let data = pattern(len);
            client.send_to(&data, to).expect("sent");
            let received = receive(&server).map(|(bytes, _)| bytes);
            assert!(received.as_ref() == Some(&data), "{len} bytes did not arrive whole");
            assert_eq!(reassembled(&lab.world).0 - before, u64::from(len > 1472), "{len} bytes");
        }
        // With DF it is dropped, and the error refused.
        sockopt::set_ip_mtu_discover(&client, Ipv4PathMtuDiscovery::PROBE).expect("DF");
        client.send_to(&pattern(5000), to).expect("sent");
        assert_eq!(receive(&server), None);
        assert!(is_silent(&lab.instance, WORLD_V6, "-M do -s 5000"));
        assert!(lab.firewall.dropped("mtu-exceeded") >= 2);
    }
}
