//! Compiled policies against the walk over every rule, one look-up against a batch of them, and a
//! policy that is compiled as it differs from another against one compiled from scratch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sgwall_packet::Direction;
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::model::{
    AclAction, FlowLimits, GroupRef, IcmpMatch, Interface, L4Match, NetworkAcl, NetworkAclEntry,
    Peer, Policy, PortRange, PrefixList, SecurityGroup, SecurityGroupRule, Subnet, Timeouts,
};
use sgwall_rules::oracle::{self, Packet};

use crate::source::Source;

const PORTS: [u16; 12] = [0, 1, 15, 16, 53, 80, 255, 256, 1023, 1024, 65_534, 65_535];
const NUMBERS: [u8; 11] = [1, 6, 6, 17, 17, 58, 0, 47, 50, 132, 255];
/// Groups that may be named; there are fewer.
const GROUPS: u8 = 4;

/// Makes a policy and changes it. The input: the policy, then changes, with questions after each.
pub fn matcher(data: &[u8]) {
    let mut source = Source::new(data);
    let source = &mut source;
    let mut policy = policy(source);
    let mut compiled = CompiledPolicy::compile(&policy, Generation(0));
    for generation in 1..=8 {
        ask(source, &policy, &compiled);
        if source.is_empty() {
            break;
        }
        for _ in 0..=source.below(3) {
            change(source, &mut policy);
        }
        compiled = compiled.recompile(&policy, Generation(generation));
        let fresh = CompiledPolicy::compile(&policy, Generation(generation));
        check_same(&compiled, &fresh);
    }
}

/// Interfaces print as everything that they are made of: matchers, ids of rules, addresses.
fn check_same(compiled: &CompiledPolicy, fresh: &CompiledPolicy) {
    assert_eq!(compiled.generation(), fresh.generation());
    assert_eq!(compiled.rules(), fresh.rules());
    assert_eq!(format!("{:?}", compiled.interfaces()), format!("{:?}", fresh.interfaces()));
    for interface in fresh.interfaces() {
        let by_id = fresh.interface_by_id(&interface.id);
        assert_eq!(compiled.interface_by_id(&interface.id), by_id);
        for addr in &interface.addresses {
            assert_eq!(compiled.interfaces_of(addr), fresh.interfaces_of(addr));
        }
    }
}

fn ask(source: &mut Source<'_>, policy: &Policy, compiled: &CompiledPolicy) {
    let mut asked = Vec::new();
    for _ in 0..source.byte() % 40 {
        let direction = source.pick(&Direction::BOTH);
        let remote = match source.below(3) {
            0 => address(source),
            _ => near(source, policy),
        };
        let (protocol, selector) = (source.pick(&NUMBERS), port(source));
        let packet = Packet { direction, remote, protocol, selector };
        asked.push((remote, protocol, selector));
        for (interface, model) in compiled.interfaces().iter().zip(&policy.interfaces) {
            let found = interface.groups(direction, &remote).lookup(&remote, protocol, selector);
            let found = found.map(|m| {
                let rule = compiled.rule(m.rule).expect("a rule of this policy");
                (rule.owner.as_str(), rule.direction, rule.rule.as_str(), m.any_peer)
            });
            let expected = oracle::admitting_rule(policy, &model.security_groups, packet)
                .map(|(g, r, any)| (g.id.as_str(), direction, r.id.as_str(), any));
            assert_eq!(found, expected, "{packet:?} on {}", model.id);
            let acl = interface.acl(direction).expect("its subnet has one");
            let found = acl.lookup(&remote, protocol, selector);
            let found =
                found.map(|m| (compiled.rule(m.rule).expect("an entry").rule.clone(), m.action));
            let expected = oracle::deciding_entry(&policy.network_acls[0], packet);
            let expected = expected.map(|e| (e.rule_number.to_string(), e.action));
            assert_eq!(found, expected, "{packet:?} in the ACL");
            let (is_v6, groups) = (remote.is_ipv6(), &model.security_groups);
            assert_eq!(
                interface.groups(direction, &remote).all_ports_any(is_v6, protocol),
                oracle::all_ports_any(policy, groups, direction, is_v6, protocol)
            );
        }
    }
    let nobody = IpAddr::from([0, 0, 0, 0]);
    for interface in compiled.interfaces() {
        for direction in Direction::BOTH {
            let matcher = interface.groups(direction, &nobody).matcher();
            let mut found = vec![Some(u32::MAX); asked.len()];
            matcher.lookup_batch(&asked, &mut found);
            let one_by_one: Vec<_> =
                asked.iter().map(|(a, p, s)| matcher.lookup(a, *p, *s)).collect();
            assert_eq!(found, one_by_one);
        }
    }
}

/// An address at the edge of something that the policy names, or next to it.
fn near(source: &mut Source<'_>, policy: &Policy) -> IpAddr {
    let rules = policy.security_groups.iter().flat_map(|g| g.ingress.iter().chain(&g.egress));
    let cidrs = rules.filter_map(|rule| match rule.peer {
        Peer::Cidr(cidr) => Some(cidr),
        _ => None,
    });
    let acls = policy.network_acls.iter().flat_map(|a| a.ingress.iter().chain(&a.egress));
    let own = policy.interfaces.iter().flat_map(|i| &i.addresses).map(|a| IpNet::from(*a));
    let lists = policy.prefix_lists.iter().flat_map(|l| l.entries.iter().flatten().copied());
    let mut all: Vec<IpNet> = cidrs.chain(acls.map(|e| e.cidr)).chain(own).chain(lists).collect();
    // Bytes choose among the first 256.
    all.truncate(256);
    if all.is_empty() {
        return address(source);
    }
    let prefix = source.pick(&all);
    let step = source.below(4);
    match (prefix.network(), prefix.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, last) = (first.to_bits(), last.to_bits());
            let bits = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            IpAddr::V4(bits[usize::from(step)].into())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let (first, last) = (first.to_bits(), last.to_bits());
            let bits = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            IpAddr::V6(bits[usize::from(step)].into())
        }
        (first, _) => first,
    }
}

/// Addresses that collide often: few bits vary, at both ends of each 64-bit half.
fn address(source: &mut Source<'_>) -> IpAddr {
    match source.below(4) {
        0 => IpAddr::V4(Ipv4Addr::from(source.array())),
        1 => IpAddr::V4(Ipv4Addr::new(source.byte(), 0, 0, source.below(4))),
        2 => IpAddr::V6(Ipv6Addr::from(source.array::<16>())),
        _ => {
            let [a, b, c] = source.array();
            let bits = u128::from(a) << 120 | u128::from(b & 3) << 63 | u128::from(c & 7);
            IpAddr::V6(bits.into())
        }
    }
}

fn prefix(source: &mut Source<'_>) -> IpNet {
    let address = address(source);
    let most = if address.is_ipv4() { 32 } else { 128 };
    let len = match source.byte() {
        0 => 0,
        1 | 2 => most,
        byte => byte % (most + 1),
    };
    IpNet::new(address, len).expect("a length of the family").trunc()
}

fn port(source: &mut Source<'_>) -> u16 {
    match source.below(4) {
        0 => source.word(),
        1 => source.word() & 0x0303,
        _ => source.pick(&PORTS),
    }
}

fn matches(source: &mut Source<'_>) -> L4Match {
    let range = |source: &mut Source<'_>| match source.below(4) {
        0 => PortRange::ALL,
        _ => {
            let (a, b) = (port(source), port(source));
            PortRange { from: a.min(b), to: a.max(b) }
        }
    };
    let icmp = |source: &mut Source<'_>| {
        let kind = Some(source.below(5)).filter(|kind| *kind < 4);
        let code = Some(source.below(5)).filter(|code| *code < 4);
        IcmpMatch { kind, code: kind.and(code) }
    };
    match source.below(8) {
        0 => L4Match::All,
        1 | 2 => L4Match::Tcp(range(source)),
        3 | 4 => L4Match::Udp(range(source)),
        5 => L4Match::Icmp(icmp(source)),
        6 => L4Match::Icmpv6(icmp(source)),
        _ => L4Match::Other(source.pick(&[0, 47, 50, 132, 255])),
    }
}

fn rule(source: &mut Source<'_>, id: usize) -> SecurityGroupRule {
    let matches = matches(source);
    let peer = match source.below(8) {
        0 => Peer::Group(GroupRef::local(format!("sg-{}", source.below(GROUPS)))),
        1 => Peer::PrefixList(format!("pl-{}", source.below(3))),
        _ => Peer::Cidr(prefix(source)),
    };
    SecurityGroupRule {
        id: format!("rule-{id}"),
        matches,
        peer,
        description: None,
        origin: origin(),
    }
}

fn rules(source: &mut Source<'_>) -> Vec<SecurityGroupRule> {
    (0..usize::from(source.byte() % 24)).map(|id| rule(source, id)).collect()
}

fn entries(source: &mut Source<'_>) -> Vec<NetworkAclEntry> {
    let number = source.byte() % 24;
    let mut entries: Vec<NetworkAclEntry> = Vec::new();
    for _ in 0..number {
        let entry = NetworkAclEntry {
            rule_number: 1 + u16::from(source.byte()),
            action: source.pick(&[AclAction::Allow, AclAction::Deny]),
            matches: matches(source),
            cidr: prefix(source),
            origin: origin(),
        };
        if entries.iter().all(|other| other.rule_number != entry.rule_number) {
            entries.push(entry);
        }
    }
    entries
}

fn group(source: &mut Source<'_>, id: usize) -> SecurityGroup {
    SecurityGroup {
        id: format!("sg-{id}"),
        name: id.to_string(),
        description: String::new(),
        vpc: Some("vpc".into()),
        owner: None,
        is_default: false,
        ingress: rules(source),
        egress: rules(source),
        origin: origin(),
    }
}

fn interface(source: &mut Source<'_>, id: usize) -> Interface {
    Interface {
        id: format!("eni-{id}"),
        subnet: "subnet".into(),
        addresses: (0..=source.below(3)).map(|_| address(source)).collect(),
        public: vec![],
        security_groups: (0..source.below(4))
            .map(|_| format!("sg-{}", source.below(GROUPS)))
            .collect(),
        source_dest_check: true,
        flows: FlowLimits::default(),
        mtu: None,
        timeouts: Timeouts::default(),
        mac: None,
        instance: None,
        instance_type: None,
        origin: origin(),
    }
}

fn policy(source: &mut Source<'_>) -> Policy {
    let lists = (0..2).map(|id| PrefixList {
        id: format!("pl-{id}"),
        name: None,
        max_entries: None,
        entries: Some((0..source.below(6)).map(|_| prefix(source)).collect()),
        origin: origin(),
    });
    Policy {
        prefix_lists: lists.collect(),
        subnets: vec![Subnet {
            id: "subnet".into(),
            vpc: "vpc".into(),
            cidrs: vec![],
            network_acl: Some("acl".into()),
            routes: vec![],
            origin: origin(),
        }],
        security_groups: (0..3).map(|id| group(source, id)).collect(),
        network_acls: vec![NetworkAcl {
            id: "acl".into(),
            vpc: None,
            is_default: false,
            ingress: entries(source),
            egress: entries(source),
            origin: origin(),
        }],
        interfaces: (0..=usize::from(source.below(3))).map(|id| interface(source, id)).collect(),
        ..Policy::default()
    }
}

fn change(source: &mut Source<'_>, policy: &mut Policy) {
    let Policy { security_groups: groups, interfaces, prefix_lists: lists, .. } = policy;
    let what = source.below(12);
    let (which, at) = (usize::from(source.byte()), usize::from(source.byte()));
    let of_group = groups.len().checked_sub(1).map(|last| which % (last + 1));
    let of_interface = interfaces.len().checked_sub(1).map(|last| which % (last + 1));
    match (what, of_group, of_interface) {
        (0 | 1, Some(group), _) => {
            let rule = rule(source, 100 + at);
            let list = match source.pick(&Direction::BOTH) {
                Direction::Ingress => &mut groups[group].ingress,
                Direction::Egress => &mut groups[group].egress,
            };
            list.insert(at % (list.len() + 1), rule);
        }
        (2, Some(group), _) if !groups[group].ingress.is_empty() => {
            let list = &mut groups[group].ingress;
            list.remove(at % list.len());
        }
        (3, Some(group), _) => drop(groups.remove(group)),
        (4, Some(group), _) => {
            let other = at % groups.len();
            groups.swap(group, other);
        }
        (5, Some(group), _) => groups[group].vpc = Some(format!("vpc-{}", at % 2)),
        (6, Some(group), _) => {
            let group = &mut groups[group];
            for rule in group.ingress.iter_mut().chain(&mut group.egress) {
                if let Peer::Group(to) = &mut rule.peer {
                    to.stale = !to.stale;
                }
            }
        }
        (7, _, Some(interface)) => {
            let groups = &mut interfaces[interface].security_groups;
            groups.push(format!("sg-{}", at % usize::from(GROUPS)));
        }
        (8, _, Some(interface)) => drop(interfaces[interface].security_groups.pop()),
        (9, _, Some(interface)) => interfaces[interface].addresses.push(address(source)),
        (10, _, Some(interface)) => drop(interfaces[interface].addresses.pop()),
        (11, ..) => {
            let last = lists.len() - 1;
            lists[which % (last + 1)].entries = match source.one_in(4) {
                true => None,
                false => Some((0..source.below(6)).map(|_| prefix(source)).collect()),
            };
        }
        _ => policy.network_acls[0].ingress = entries(source),
    }
}

fn origin() -> Origin {
    Origin::synthetic("input")
}
