//! The compiled matcher against the walk over every rule, on random policies and packets.

mod batch;
mod recompile;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sgwall_packet::protocol;
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::model::{
    AclAction, Direction, FlowLimits, GroupRef, IcmpMatch, Interface, L4Match, NetworkAcl,
    NetworkAclEntry, Peer, Policy, PortRange, PrefixList, SecurityGroup, SecurityGroupRule, Subnet,
    Timeouts, Vpc,
};
use sgwall_rules::oracle::{self, Packet};

/// Policies of a run, and packets for each: 128 x 1024 lookups in the groups alone.
const POLICIES: u32 = 128;
const PACKETS: usize = 1024;

/// Addresses that collide often: few bits vary, at both ends of each 64-bit half.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (any::<u32>(), select(vec![0xff00_0000u32, 0xff00_0003, 0xc000_000f, u32::MAX]))
        .prop_map(|(bits, mask)| IpAddr::V4(Ipv4Addr::from(bits & mask)));
    let v6 = (any::<u128>(), select(vec![7u128 | 3 << 64 | 1 << 127, 15, 7 << 125, u128::MAX]))
        .prop_map(|(bits, mask)| IpAddr::V6(Ipv6Addr::from(bits & mask)));
    prop_oneof![v4, v6]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), any::<Index>(), 0..8u8).prop_map(|(addr, len, kind)| {
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let len = match kind {
            0 => 0,
            1 | 2 => most,
            _ => len.index(usize::from(most) + 1) as u8,
        };
        IpNet::new(addr, len).unwrap().trunc()
    })
}

/// Ports at which ranges begin and end, and their neighbours, as often as any other.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![select(vec![0, 1, 15, 16, 80, 255, 256, 1023, 4095, 65534, 65535]), any::<u16>()]
}

fn matches() -> impl Strategy<Value = L4Match> {
    let range = || {
        (port(), port(), any::<bool>()).prop_map(|(a, b, all)| match all {
            true => PortRange::ALL,
            false => PortRange { from: a.min(b), to: a.max(b) },
        })
    };
    let icmp = || {
        (proptest::option::of(0..4u8), proptest::option::of(0..3u8))
            .prop_map(|(kind, code)| IcmpMatch { kind, code: kind.and(code) })
    };
    prop_oneof![
        Just(L4Match::All),
        range().prop_map(L4Match::Tcp),
        range().prop_map(L4Match::Udp),
        icmp().prop_map(L4Match::Icmp),
        icmp().prop_map(L4Match::Icmpv6),
        select(vec![0u8, 1, 6, 17, 47, 50, 58, 132, 255]).prop_map(|number| {
            // The loaders never make `Other` of a protocol that has a name of its own.
            match number {
                1 => L4Match::Icmp(IcmpMatch::default()),
                6 => L4Match::Tcp(PortRange::ALL),
                17 => L4Match::Udp(PortRange::ALL),
                58 => L4Match::Icmpv6(IcmpMatch::default()),
                other => L4Match::Other(other),
            }
        }),
    ]
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        6 => prefix().prop_map(Peer::Cidr),
        1 => (0..5u8).prop_map(|n| Peer::Group(GroupRef::local(format!("sg-{n}")))),
        1 => (0..3u8).prop_map(|n| Peer::PrefixList(format!("pl-{n}"))),
    ]
}

fn rules(most: usize) -> impl Strategy<Value = Vec<SecurityGroupRule>> {
    proptest::collection::vec((matches(), peer()), 0..most).prop_map(|rules| {
        let rule = |(n, (matches, peer)): (usize, _)| SecurityGroupRule {
            id: n.to_string(),
            matches,
            peer,
            description: None,
            origin: origin(),
        };
        rules.into_iter().enumerate().map(rule).collect()
    })
}

fn entries(most: usize) -> impl Strategy<Value = Vec<NetworkAclEntry>> {
    let numbers =
        proptest::collection::vec((1..=32766u16, matches(), prefix(), any::<bool>()), 0..most);
    numbers.prop_map(|entries| {
        let mut numbers = HashSet::new();
        let entry = |(rule_number, matches, cidr, allow)| NetworkAclEntry {
            rule_number,
            action: if allow { AclAction::Allow } else { AclAction::Deny },
            matches,
            cidr,
            origin: origin(),
        };
        entries.into_iter().filter(|e| numbers.insert(e.0)).map(entry).collect()
    })
}

fn origin() -> Origin {
    Origin::synthetic("test")
}

/// Four groups (a fifth is referred to but missing), two interfaces, two prefix lists (a third is
/// missing), one ACL.
fn policy() -> impl Strategy<Value = Policy> {
    let group = |most| (rules(most), rules(most));
    let groups = (group(3), group(8), group(40), group(120));
    let lists = proptest::collection::vec(proptest::collection::vec(prefix(), 0..6), 2);
    let addresses = proptest::collection::vec(proptest::collection::vec(address(), 1..4), 2);
    let acl = (entries(60), entries(60));
    (groups, lists, addresses, acl, proptest::collection::vec(0..5u8, 1..5)).prop_map(
        |((a, b, c, d), lists, addresses, acl, attached)| Policy {
            vpcs: vec![Vpc {
                id: "vpc".into(),
                cidrs: vec![],
                classic_link: false,
                origin: origin(),
            }],
            subnets: vec![Subnet {
                id: "subnet".into(),
                vpc: "vpc".into(),
                cidrs: vec![],
                network_acl: Some("acl".into()),
                routes: vec![],
                origin: origin(),
            }],
            prefix_lists: (0..)
                .zip(lists)
                .map(|(n, entries)| PrefixList {
                    id: format!("pl-{n}"),
                    name: None,
                    max_entries: None,
                    entries: Some(entries),
                    origin: origin(),
                })
                .collect(),
            security_groups: [a, b, c, d]
                .into_iter()
                .enumerate()
                .map(|(n, (ingress, egress))| SecurityGroup {
                    id: format!("sg-{n}"),
                    name: n.to_string(),
                    description: String::new(),
                    vpc: Some("vpc".into()),
                    owner: None,
                    is_default: false,
                    ingress,
                    egress,
                    origin: origin(),
                })
                .collect(),
            network_acls: vec![NetworkAcl {
                id: "acl".into(),
                vpc: None,
                is_default: false,
                ingress: acl.0,
                egress: acl.1,
                origin: origin(),
            }],
            interfaces: (0..)
                .zip(addresses)
                .map(|(n, addresses): (u8, _)| Interface {
                    id: format!("eni-{n}"),
                    subnet: "subnet".into(),
                    addresses,
                    public: vec![],
                    security_groups: match n {
                        0 => attached.iter().map(|n| format!("sg-{n}")).collect(),
                        _ => vec!["sg-0".into(), "sg-3".into()],
                    },
                    source_dest_check: true,
                    flows: FlowLimits::default(),
                    mtu: None,
                    timeouts: Timeouts::default(),
                    mac: None,
                    instance: None,
                    instance_type: None,
                    origin: origin(),
                })
                .collect(),
            ..Policy::default()
        },
    )
}

/// A packet: half of them aimed at something that the policy names.
fn packets() -> impl Strategy<Value = Vec<(Packet, Index, u8)>> {
    let number = select(vec![1u8, 1, 6, 6, 6, 17, 17, 58, 58, 0, 47, 50, 132, 200, 255]);
    let selector =
        prop_oneof![port(), (0..5u16, 0..4u16).prop_map(|(kind, code)| kind << 8 | code),];
    let packet = (any::<bool>(), address(), number, selector).prop_map(
        |(ingress, remote, protocol, selector)| Packet {
            direction: if ingress { Direction::Ingress } else { Direction::Egress },
            remote,
            protocol,
            selector,
        },
    );
    proptest::collection::vec((packet, any::<Index>(), 0..8u8), PACKETS)
}

/// The edges of every prefix of the policy, and the addresses next to them.
fn edges(policy: &Policy) -> Vec<IpAddr> {
    let groups = policy.security_groups.iter().flat_map(|g| g.ingress.iter().chain(&g.egress));
    let rules = groups.filter_map(|rule| match rule.peer {
        Peer::Cidr(cidr) => Some(cidr),
        _ => None,
    });
    let lists = policy.prefix_lists.iter().flat_map(|l| l.entries.iter().flatten().copied());
    let acls = policy.network_acls.iter().flat_map(|a| a.ingress.iter().chain(&a.egress));
    let mut edges: Vec<IpAddr> =
        policy.interfaces.iter().flat_map(|i| i.addresses.iter().copied()).collect();
    for prefix in rules.chain(lists).chain(acls.map(|e| e.cidr)) {
        match (prefix.network(), prefix.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => edges.extend(
                [
                    u32::from(first).wrapping_sub(1),
                    first.into(),
                    last.into(),
                    u32::from(last).wrapping_add(1),
                ]
                .map(|bits| IpAddr::V4(bits.into())),
            ),
            (IpAddr::V6(first), IpAddr::V6(last)) => edges.extend(
                [
                    u128::from(first).wrapping_sub(1),
                    first.into(),
                    last.into(),
                    u128::from(last).wrapping_add(1),
                ]
                .map(|bits| IpAddr::V6(bits.into())),
            ),
            _ => unreachable!("a prefix has one family"),
        }
    }
    edges
}

proptest! {
    #![proptest_config(ProptestConfig { cases: POLICIES, max_shrink_iters: 4096, ..Default::default() })]

    #[test]
    fn the_matcher_says_what_the_walk_over_every_rule_says(
        policy in policy(),
        packets in packets(),
    ) {
        let compiled = CompiledPolicy::compile(&policy, Generation(1));
        let edges = edges(&policy);
        let mut remotes = Vec::new();
        for (mut packet, which, kind) in packets {
            if kind < 6 && !edges.is_empty() {
                packet.remote = edges[which.index(edges.len())];
            }
            remotes.push(packet);
            let Packet { direction, remote, protocol, selector } = packet;
            for (index, interface) in compiled.interfaces().iter().enumerate() {
                let groups = &policy.interfaces[index].security_groups;
                let found = interface.groups(direction, &remote).lookup(&remote, protocol, selector);
                let found = found.map(|m| {
                    let rule = compiled.rule(m.rule).unwrap();
                    (rule.owner.as_str(), rule.direction, rule.rule.as_str(), m.any_peer)
                });
                let expected = oracle::admitting_rule(&policy, groups, packet);
                let expected = expected.map(|(g, r, any)| (g.id.as_str(), direction, r.id.as_str(), any));
                prop_assert_eq!(found, expected, "{:?} on {}", packet, index);
            }
            let acl = compiled.interfaces()[0].acl(direction).unwrap();
            let found = acl.lookup(&remote, protocol, selector);
            let found = found.map(|m| (compiled.rule(m.rule).unwrap().rule.clone(), m.action));
            let expected = oracle::deciding_entry(&policy.network_acls[0], packet);
            let expected = expected.map(|e| (e.rule_number.to_string(), e.action));
            prop_assert_eq!(found, expected, "{:?} in the ACL", packet);
        }
        let asked: Vec<_> = remotes.iter().map(|p| (p.remote, p.protocol, p.selector)).collect();
        let nobody = IpAddr::from([0, 0, 0, 0]);
        for (index, interface) in compiled.interfaces().iter().enumerate() {
            let groups = &policy.interfaces[index].security_groups;
            for direction in Direction::BOTH {
                let matcher = interface.groups(direction, &nobody).matcher();
                let mut found = vec![None; asked.len()];
                matcher.lookup_batch(&asked, &mut found);
                let one_by_one = asked.iter().map(|(a, p, s)| matcher.lookup(a, *p, *s));
                prop_assert_eq!(found, one_by_one.collect::<Vec<_>>());
            }
            for direction in Direction::BOTH {
                for ipv6 in [false, true] {
                    for proto in [protocol::TCP, protocol::UDP, protocol::ICMP, 47] {
                        prop_assert_eq!(
                            interface.groups(direction, &nobody).all_ports_any(ipv6, proto),
                            oracle::all_ports_any(&policy, groups, direction, ipv6, proto)
                        );
                    }
                }
            }
            for address in &policy.interfaces[index].addresses {
                prop_assert!(compiled.interfaces_of(address).contains(&index));
            }
        }
    }
}

/// The best rule is a rule number however many entries there are: ten thousand nested and
/// overlapping ranges, looked up at every edge.
#[test]
fn large_lists_agree_with_the_walk() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let entries: Vec<_> = (1..=2000)
        .map(|rule_number| {
            let bits = random();
            let cidr = match rule_number % 3 {
                0 => IpNet::new(
                    IpAddr::V6(u128::from(bits).rotate_left(64).into()),
                    20 + (bits % 109) as u8,
                ),
                _ => IpNet::new(IpAddr::V4((bits as u32).into()), 8 + (bits >> 32) as u8 % 25),
            };
            let port = (bits >> 40) as u16;
            NetworkAclEntry {
                rule_number,
                action: AclAction::Allow,
                matches: L4Match::Tcp(PortRange { from: port, to: port.saturating_add(1000) }),
                cidr: cidr.unwrap().trunc(),
                origin: origin(),
            }
        })
        .collect();
    let acl = NetworkAcl {
        id: "acl".into(),
        vpc: None,
        is_default: false,
        ingress: entries,
        egress: vec![],
        origin: origin(),
    };
    let policy = Policy { network_acls: vec![acl], ..Policy::default() };
    let compiled = {
        let mut policy = policy.clone();
        policy.subnets.push(Subnet {
            id: "s".into(),
            vpc: "v".into(),
            cidrs: vec![],
            network_acl: Some("acl".into()),
            routes: vec![],
            origin: origin(),
        });
        policy.interfaces.push(Interface {
            id: "eni".into(),
            subnet: "s".into(),
            addresses: vec![],
            public: vec![],
            security_groups: vec![],
            source_dest_check: true,
            flows: FlowLimits::default(),
            mtu: None,
            timeouts: Timeouts::default(),
            mac: None,
            instance: None,
            instance_type: None,
            origin: origin(),
        });
        CompiledPolicy::compile(&policy, Generation(0))
    };
    let set = compiled.interfaces()[0].acl(Direction::Ingress).unwrap();
    let mut hits = 0;
    for (n, remote) in edges(&policy).into_iter().enumerate() {
        let entry = &policy.network_acls[0].ingress[n / 4];
        let L4Match::Tcp(ports) = entry.matches else { unreachable!() };
        for selector in [ports.from, ports.to, ports.from.wrapping_sub(1)] {
            let packet =
                Packet { direction: Direction::Ingress, remote, protocol: protocol::TCP, selector };
            let found = set.lookup(&remote, protocol::TCP, selector);
            let found = found.map(|m| compiled.rule(m.rule).unwrap().rule.clone());
            let expected = oracle::deciding_entry(&policy.network_acls[0], packet);
            assert_eq!(found, expected.map(|e| e.rule_number.to_string()), "{packet:?}");
            hits += usize::from(expected.is_some());
        }
    }
    assert!(hits > 8000, "only {hits} of the lookups hit a rule");
}
