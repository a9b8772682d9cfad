//! What ARP and neighbour discovery may claim, from either side of the firewall.

use sgwall_dataplane::DropReason;
use sgwall_dataplane::neighbour::{check_arp, check_mac, check_neighbour};
use sgwall_packet::{Direction, Frame, Headers, LinkInfo, LinkType, Mac, Macs, build, parse};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};

const OWN: Mac = [2, 0, 0, 0, 0, 0x0a];
const ROUTER: Mac = [2, 0, 0, 0, 0, 0x01];
const BROADCAST: Mac = [0xff; 6];

fn policy(source_dest_check: bool) -> CompiledPolicy {
    let text = format!(
        r#"
version = 1
vpc = [{{ id = "vpc-1", cidrs = ["10.0.0.0/16", "2001:db8::/56"] }}]
subnet = [{{ id = "s", vpc = "vpc-1", cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"] }}]
security_group = [{{ id = "sg-1" }}]
[[interface]]
id = "eni-1"
subnet = "s"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
mac = "02:00:00:00:00:0a"
source_dest_check = {source_dest_check}
"#
    );
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    CompiledPolicy::compile(&load(&[input]).expect("a good policy").policy, Generation(0))
}

fn ethernet((dst, src): (Mac, Mac), ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

fn arp(macs: (Mac, Mac), operation: u8, sender: (Mac, [u8; 4]), target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let body = [&head[..], &sender.0, &sender.1, &[0; 6], &target].concat();
    ethernet(macs, 0x0806, &body)
}

fn link(frame: &[u8]) -> LinkInfo {
    match parse(LinkType::Ethernet, frame, frame.len()) {
        Ok(Frame::Arp(link)) => link,
        other => panic!("{other:?}"),
    }
}

const ME: [u8; 4] = [10, 0, 1, 10];
const OTHER: [u8; 4] = [10, 0, 1, 1];

#[test]
fn arp_speaks_for_its_sender_alone() {
    use Direction::{Egress, Ingress};
    let cases = [
        ("asks for the router", Egress, arp((BROADCAST, OWN), 1, (OWN, ME), OTHER), true),
        ("probes for its own address", Egress, arp((BROADCAST, OWN), 1, (OWN, [0; 4]), ME), true),
        ("answers", Egress, arp((ROUTER, OWN), 2, (OWN, ME), OTHER), true),
        ("claims the router's address", Egress, arp((ROUTER, OWN), 2, (OWN, OTHER), ME), false),
        ("speaks of another MAC", Egress, arp((ROUTER, OWN), 2, (ROUTER, ME), OTHER), false),
        ("the network asks", Ingress, arp((BROADCAST, ROUTER), 1, (ROUTER, OTHER), ME), true),
        ("the network answers", Ingress, arp((OWN, ROUTER), 2, (ROUTER, OTHER), ME), true),
        ("it claims the instance's", Ingress, arp((BROADCAST, ROUTER), 2, (ROUTER, ME), ME), false),
        ("reverse ARP", Ingress, arp((OWN, ROUTER), 3, (ROUTER, OTHER), ME), false),
    ];
    let policy = policy(true);
    let interface = &policy.interfaces()[0];
    for (what, direction, frame, allowed) in cases {
        let found = check_arp(interface, direction, &link(&frame), &frame);
        assert_eq!(found.is_ok(), allowed, "{what}: {found:?}");
        if !allowed {
            assert_eq!(found, Err(DropReason::ArpInvalid), "{what}");
        }
    }
}

/// Cut anywhere, or of another kind of network, it is refused and nothing panics.
#[test]
fn arp_that_makes_no_sense_is_refused() {
    let policy = policy(true);
    let interface = &policy.interfaces()[0];
    let good = arp((BROADCAST, OWN), 1, (OWN, ME), OTHER);
    let info = link(&good);
    for len in 0..good.len() {
        let found = check_arp(interface, Direction::Egress, &info, &good[..len]);
        assert_eq!(found, Err(DropReason::ArpInvalid), "{len} bytes");
    }
    for (at, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16)] {
        let mut frame = good.clone();
        frame[at] = value;
        let found = check_arp(interface, Direction::Egress, &info, &frame);
        assert_eq!(found, Err(DropReason::ArpInvalid), "byte {at}");
    }
    // Behind a VLAN tag it is the same packet.
    let tagged = [&good[..12], &[0x81, 0, 0, 10], &good[12..]].concat();
    assert!(check_arp(interface, Direction::Egress, &link(&tagged), &tagged).is_ok());
}

/// Without source/destination check an instance may answer for others, as a router does.
#[test]
fn an_unchecked_interface_may_speak_for_others() {
    let policy = policy(false);
    let interface = &policy.interfaces()[0];
    let frame = arp((ROUTER, OWN), 2, (OWN, [10, 0, 9, 9]), OTHER);
    assert!(check_arp(interface, Direction::Egress, &link(&frame), &frame).is_ok());
}

#[test]
fn mac_addresses_are_the_interfaces_own() {
    let policy = policy(true);
    let interface = &policy.interfaces()[0];
    let check = |direction, dst, src| {
        let both: Vec<u8> = [dst, src].concat();
        let macs = Macs::from_frame(both.try_into().expect("two addresses"));
        let link = LinkInfo { mac: Some(macs), ..LinkInfo::NONE };
        check_mac(interface, direction, &link).is_ok()
    };
    assert!(check(Direction::Egress, ROUTER, OWN));
    assert!(!check(Direction::Egress, ROUTER, ROUTER));
    assert!(check(Direction::Ingress, OWN, ROUTER));
    assert!(check(Direction::Ingress, BROADCAST, ROUTER));
    assert!(check(Direction::Ingress, [0x33, 0x33, 0, 0, 0, 1], ROUTER));
    assert!(!check(Direction::Ingress, ROUTER, OWN));
}

/// A neighbour discovery message with one link-layer address option.
fn nd(src_mac: Mac, kind: u8, src: &str, target: &str, option: Option<Mac>) -> (Headers, Vec<u8>) {
    let (src, dst) = (src.parse().unwrap(), "ff02::1".parse().unwrap());
    let target: std::net::Ipv6Addr = target.parse().unwrap();
    let body = match kind {
        133 => Vec::new(),
        134 => vec![0; 8],
        137 => vec![0; 32],
        _ => target.octets().to_vec(),
    };
    let option = option.map(|mac| {
        let option_kind = if kind == 136 { 2 } else { 1 };
        [&[option_kind, 1][..], &mac].concat()
    });
    let body = [body, option.unwrap_or_default()].concat();
    let message = build::icmp(src, dst, 58, (kind, 0), [0; 4], &body);
    let fields = build::IpFields { hop_limit: 255, ..Default::default() };
    let frame = ethernet(
        ([0x33, 0x33, 0, 0, 0, 1], src_mac),
        0x86dd,
        &build::ip(src, dst, 58, fields, &message),
    );
    match parse(LinkType::Ethernet, &frame, frame.len()) {
        Ok(Frame::Ip(headers)) => (headers, frame),
        other => panic!("{other:?}"),
    }
}

#[test]
fn neighbour_discovery_speaks_for_its_sender_alone() {
    use Direction::{Egress, Ingress};
    const MINE: &str = "2001:db8:0:1::10";
    const THEIRS: &str = "2001:db8:0:1::1";
    let cases = [
        ("asks", Egress, nd(OWN, 135, MINE, THEIRS, Some(OWN)), true),
        ("asks from its link-local address", Egress, nd(OWN, 135, "fe80::10", THEIRS, None), true),
        ("detects duplicates", Egress, nd(OWN, 135, "::", MINE, None), true),
        ("asks for routers", Egress, nd(OWN, 133, "fe80::10", "::", Some(OWN)), true),
        ("advertises itself", Egress, nd(OWN, 136, MINE, MINE, Some(OWN)), true),
        ("advertises the router's", Egress, nd(OWN, 136, MINE, THEIRS, Some(OWN)), false),
        ("advertises another's MAC", Egress, nd(OWN, 136, MINE, MINE, Some(ROUTER)), false),
        ("asks as another", Egress, nd(OWN, 135, THEIRS, MINE, None), false),
        ("plays the router", Egress, nd(OWN, 134, "fe80::10", "::", Some(OWN)), false),
        ("redirects", Egress, nd(OWN, 137, "fe80::10", "::", None), false),
        ("the router advertises", Ingress, nd(ROUTER, 134, "fe80::1", "::", Some(ROUTER)), true),
        ("a neighbour asks", Ingress, nd(ROUTER, 135, THEIRS, MINE, Some(ROUTER)), true),
        ("a neighbour answers", Ingress, nd(ROUTER, 136, THEIRS, THEIRS, Some(ROUTER)), true),
        ("a neighbour wants the address", Ingress, nd(ROUTER, 135, "::", MINE, None), true),
        ("a neighbour claims it", Ingress, nd(ROUTER, 136, THEIRS, MINE, Some(ROUTER)), false),
        ("a neighbour asks as it", Ingress, nd(ROUTER, 135, MINE, THEIRS, None), false),
    ];
    let policy = policy(true);
    let interface = &policy.interfaces()[0];
    for (what, direction, (headers, frame), allowed) in cases {
        let found = check_neighbour(interface, direction, &headers, &frame);
        assert_eq!(found.is_ok(), allowed, "{what}: {found:?}");
    }
}

#[test]
fn neighbour_discovery_that_makes_no_sense_is_refused() {
    let policy = policy(true);
    let interface = &policy.interfaces()[0];
    let (headers, frame) = nd(OWN, 135, "2001:db8:0:1::10", "fe80::1", Some(OWN));
    for len in 0..frame.len() - 8 {
        let found = check_neighbour(interface, Direction::Egress, &headers, &frame[..len]);
        assert!(found.is_err(), "{len} bytes");
    }
    let mut endless = frame.clone();
    let at = endless.len() - 7;
    endless[at] = 0;
    assert_eq!(
        check_neighbour(interface, Direction::Egress, &headers, &endless),
        Err(DropReason::NeighbourInvalid)
    );
}
