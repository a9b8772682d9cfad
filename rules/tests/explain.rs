//! What is said of rules is what the oracle decides, and the rules suggested do what they promise.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::explain::{
    Considered, Field, acl_entries, all_ports_rules, any_peer_rules, differing_fields, group_rules,
    nearest, smallest_entry, smallest_rule,
};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{
    AclAction, Direction, IcmpMatch, L4Match, NetworkAcl, NetworkAclEntry, Peer, Policy, PortRange,
    SecurityGroup, SecurityGroupRule,
};
use sgwall_rules::oracle::{self, Packet};
use sgwall_rules::text::{EntryText, RuleText};

fn origin() -> Origin {
    Origin::synthetic("test")
}

fn l4() -> impl Strategy<Value = L4Match> {
    let port = || prop_oneof![Just(22u16), Just(80), Just(443), any::<u16>()];
    let ports = (port(), port()).prop_map(|(a, b)| PortRange { from: a.min(b), to: a.max(b) });
    let ports = prop_oneof![3 => ports, 1 => Just(PortRange::ALL)].boxed();
    let icmp = prop_oneof![
        Just(IcmpMatch::default()),
        Just(IcmpMatch { kind: Some(3), code: None }),
        Just(IcmpMatch { kind: Some(3), code: Some(4) }),
    ];
    prop_oneof![
        Just(L4Match::All),
        ports.clone().prop_map(L4Match::Tcp),
        ports.prop_map(L4Match::Udp),
        icmp.clone().prop_map(L4Match::Icmp),
        icmp.prop_map(L4Match::Icmpv6),
        Just(L4Match::Other(47)),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let near =
        prop_oneof![Just("10.0.0.1"), Just("10.0.0.2"), Just("203.0.113.9"), Just("2001:db8::1")];
    near.prop_map(|text| text.parse().unwrap())
}

fn range() -> impl Strategy<Value = IpNet> {
    (address(), prop_oneof![Just(0u8), Just(8), Just(24), Just(32)])
        .prop_map(|(address, len)| IpNet::new(address, len).unwrap().trunc())
}

fn packet() -> impl Strategy<Value = Packet> {
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(47)];
    let selector = prop_oneof![Just(22u16), Just(80), Just(3 << 8 | 4), any::<u16>()];
    (address(), protocol, selector).prop_map(|(remote, protocol, selector)| Packet {
        direction: Direction::Ingress,
        remote,
        protocol,
        selector: if protocol == 47 { 0 } else { selector },
    })
}

fn policy(rules: Vec<(L4Match, IpNet)>) -> Policy {
    let rule = |(n, (matches, net)): (usize, (L4Match, IpNet))| SecurityGroupRule {
        id: format!("ingress-{n}"),
        matches,
        peer: Peer::Cidr(net),
        description: None,
        origin: origin(),
    };
    let group = SecurityGroup {
        id: "sg-1".into(),
        name: "one".into(),
        description: String::new(),
        vpc: None,
        owner: None,
        is_default: false,
        ingress: (1..).zip(rules).map(rule).collect(),
        egress: vec![],
        origin: origin(),
    };
    Policy { security_groups: vec![group], ..Policy::default() }
}

fn acl(entries: Vec<(u16, bool, L4Match, IpNet)>) -> NetworkAcl {
    let mut used = std::collections::HashSet::new();
    let entry = |(rule_number, allow, matches, cidr)| NetworkAclEntry {
        rule_number,
        action: if allow { AclAction::Allow } else { AclAction::Deny },
        matches,
        cidr,
        origin: origin(),
    };
    NetworkAcl {
        id: "acl-1".into(),
        vpc: None,
        is_default: false,
        ingress: entries.into_iter().filter(|e| used.insert(e.0)).map(entry).collect(),
        egress: vec![],
        origin: origin(),
    }
}

proptest! {
    #[test]
    fn a_rule_without_mismatches_is_one_that_matches(
        rules in proptest::collection::vec((l4(), range()), 0..8), packet in packet()
    ) {
        let policy = policy(rules);
        let groups = ["sg-1".to_owned()];
        let considered = group_rules(&policy, &groups, packet, true);
        let admits = oracle::admitting_rule(&policy, &groups, packet);
        prop_assert_eq!(considered.iter().any(Considered::matches), admits.is_some());
        let any = any_peer_rules(&policy, &groups, packet);
        let is_any = admits.is_some_and(|(_, _, any)| any);
        prop_assert_eq!(any.iter().any(Considered::matches), is_any);
        for (ipv6, proto) in [(false, 6), (false, 17), (true, 6)] {
            let all = all_ports_rules(&policy, &groups, Direction::Ingress, ipv6, proto);
            let found = oracle::all_ports_any(&policy, &groups, Direction::Ingress, ipv6, proto);
            prop_assert_eq!(all.iter().any(Considered::matches), found);
        }
    }

    /// The rule suggested, written into the group, admits the packet; it does so alone.
    #[test]
    fn the_smallest_rule_admits_the_packet(packet in packet()) {
        let rule: RuleText = smallest_rule(packet).parse().unwrap();
        prop_assert_eq!(rule.direction, packet.direction);
        let Peer::Cidr(net) = rule.peer else { panic!("a range") };
        let policy = policy(vec![(rule.matches, net)]);
        prop_assert!(oracle::admitting_rule(&policy, &["sg-1".into()], packet).is_some());
        let next = IpNet::new(packet.remote, net.prefix_len()).unwrap();
        prop_assert_eq!(next.hosts().count(), 1);
    }

    #[test]
    fn the_first_entry_without_mismatches_decides(
        entries in proptest::collection::vec((1u16..12, any::<bool>(), l4(), range()), 0..8),
        packet in packet(),
    ) {
        let mut acl = acl(entries);
        let considered = acl_entries(&acl, packet);
        let matching: Vec<_> = considered.iter().filter(|entry| entry.matches()).collect();
        let decides = oracle::deciding_entry(&acl, packet);
        prop_assert!(matching.len() <= 1);
        prop_assert_eq!(
            matching.first().map(|entry| entry.rule.clone()),
            decides.map(|entry| format!("acl-1/{}", entry.rule_number))
        );
        if decides.is_some_and(|entry| entry.action == AclAction::Allow) {
            return Ok(());
        }
        // The entry suggested decides from then on, and allows.
        let Some(text) = smallest_entry(&acl, packet) else {
            let first = decides.map_or(0, |entry| entry.rule_number);
            prop_assert!((1..first).all(|n| acl.ingress.iter().any(|e| e.rule_number == n)));
            return Ok(());
        };
        let entry: EntryText = text.parse().unwrap();
        prop_assert!(acl.ingress.iter().all(|e| e.rule_number != entry.rule_number));
        acl.ingress.push(NetworkAclEntry {
            rule_number: entry.rule_number,
            action: entry.action,
            matches: entry.matches,
            cidr: entry.cidr,
            origin: origin(),
        });
        let decides = oracle::deciding_entry(&acl, packet).unwrap();
        prop_assert_eq!((decides.rule_number, decides.action), (entry.rule_number, AclAction::Allow));
    }
}

fn ssh_from(remote: &str) -> Packet {
    let remote = remote.parse().unwrap();
    Packet { direction: Direction::Ingress, remote, protocol: 6, selector: 22 }
}

fn rules(lines: &[&str]) -> Policy {
    policy(
        lines
            .iter()
            .map(|line| {
                let rule: RuleText = line.parse().unwrap();
                let Peer::Cidr(net) = rule.peer else { panic!("{line}: expected a range") };
                (rule.matches, net)
            })
            .collect(),
    )
}

/// Fewest differences first; then the right port of another source before another port, a near
/// address before a far one, and the other family last.
#[test]
fn the_nearest_comes_first() {
    let policy = rules(&[
        "in udp 23 from 198.51.100.0/24",
        "in tcp 22 from ::/0",
        "in tcp 443 from 0.0.0.0/0",
        "in tcp 22 from 10.0.0.0/8",
        "in udp 22 from 0.0.0.0/0",
        "in tcp 22 from 198.51.101.0/24",
        "in tcp 23 from 0.0.0.0/0",
    ]);
    let considered = group_rules(&policy, &["sg-1".into()], ssh_from("198.51.100.7"), true);
    let order: Vec<_> = nearest(&considered).iter().map(|c| c.text.as_str()).collect();
    assert_eq!(
        order,
        [
            "tcp 22 from 198.51.101.0/24",
            "tcp 22 from 10.0.0.0/8",
            "tcp 23 from 0.0.0.0/0",
            "tcp 443 from 0.0.0.0/0",
            "udp 22 from 0.0.0.0/0",
            "tcp 22 from ::/0",
            "udp 23 from 198.51.100.0/24",
        ]
    );
    let fields = differing_fields(&considered);
    assert_eq!(fields[0], (Field::Port, 3));
}

#[test]
fn each_difference_is_named() {
    let policy = rules(&[
        "in tcp 80-90 from 198.51.100.0/24",
        "in proto 47 from 0.0.0.0/0",
        "in icmp 3/4 from 0.0.0.0/0",
        "in tcp 22 from 2001:db8::/32",
    ]);
    let considered = group_rules(&policy, &["sg-1".into()], ssh_from("198.51.100.7"), true);
    let texts: Vec<Vec<_>> =
        considered.iter().map(|c| c.mismatches.iter().map(|m| m.text.as_str()).collect()).collect();
    assert_eq!(
        texts,
        [
            vec!["port 22 is not in 80-90"],
            vec!["protocol tcp is not gre"],
            vec!["protocol tcp is not icmp"],
            vec!["2001:db8::/32 is IPv6, the packet IPv4"],
        ]
    );
}

/// A reference may fail for many reasons, and each has its words.
#[test]
fn references_say_why_they_do_not_hold() {
    let text = r#"
        version = 1
        [[vpc]]
        id = "vpc-1"
        cidrs = ["10.0.0.0/16"]
        [[vpc]]
        id = "vpc-2"
        cidrs = ["10.8.0.0/16"]
        [[peering]]
        id = "pcx-1"
        vpcs = ["vpc-1", "vpc-2"]
        active = false
        [[subnet]]
        id = "subnet-1"
        vpc = "vpc-1"
        cidrs = ["10.0.1.0/24"]
        [[security_group]]
        id = "sg-1"
        name = "one"
        vpc = "vpc-1"
        ingress = [
          { protocol = "all", group = "sg-1" },
          { protocol = "all", group = "sg-empty" },
          { protocol = "all", group = "sg-peer", peering = "pcx-1" },
          { protocol = "all", prefix_list = "pl-1" },
        ]
        [[security_group]]
        id = "sg-empty"
        name = "empty"
        vpc = "vpc-1"
        [[security_group]]
        id = "sg-peer"
        name = "peer"
        vpc = "vpc-2"
        [[prefix_list]]
        id = "pl-1"
        entries = ["203.0.113.0/24"]
        [[interface]]
        id = "eni-1"
        subnet = "subnet-1"
        addresses = ["10.0.1.10"]
        public = [{ private = "10.0.1.10", public = "198.51.100.1" }]
        security_groups = ["sg-1"]
    "#;
    let policy = load(&[Input { name: "p".into(), bytes: text.as_bytes() }]).unwrap().policy;
    let why = |remote: &str, is_direct| -> Vec<String> {
        group_rules(&policy, &["sg-1".into()], ssh_from(remote), is_direct)
            .iter()
            .map(|c| c.mismatches.first().map(|m| m.text.clone()).unwrap_or_default())
            .collect()
    };
    let stale = "stale: the peering pcx-1 is not active";
    assert_eq!(
        why("198.51.100.7", true),
        [
            "198.51.100.7 is no private address of sg-1's one member",
            "no interface has sg-empty",
            stale,
            "198.51.100.7 is not in the one entry of pl-1",
        ]
    );
    assert_eq!(
        why("198.51.100.1", true)[0],
        "198.51.100.1 is a member's public address; members of sg-1 are known by private ones"
    );
    assert_eq!(why("10.0.1.10", true)[0], "");
    assert_eq!(
        why("10.0.1.10", false)[0],
        "through a middlebox or gateway a reference to sg-1 does not hold; a range would"
    );
}

/// The words of route targets are those that policy files are written in.
#[test]
fn route_targets_are_named_as_policies_name_them() {
    let words = [
        "local",
        "internet-gateway",
        "egress-only-internet-gateway",
        "nat-gateway",
        "transit-gateway",
        "vpn-gateway",
        "peering",
        "inter-region-peering",
        "gateway-endpoint",
        "inspection-endpoint",
        "appliance",
        "other-gateway",
        "blackhole",
    ];
    for word in words {
        let text = format!(
            "version = 1\n[[vpc]]\nid = \"vpc-1\"\ncidrs = [\"10.0.0.0/16\"]\n[[subnet]]\nid = \
             \"subnet-1\"\nvpc = \"vpc-1\"\ncidrs = [\"10.0.1.0/24\"]\nroutes = [{{ destination = \
             \"0.0.0.0/0\", target = \"{word}\" }}]\n"
        );
        let loaded = load(&[Input { name: "p".into(), bytes: text.as_bytes() }]).unwrap();
        assert_eq!(loaded.policy.subnets[0].routes[0].target.as_str(), word);
    }
}
