//! The network that cases play in: a VPC of two subnets, three interfaces and some strangers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::limits::Limits;
use sgwall_rules::model::{
    Compat, Direction, Interface, NetworkAcl, NetworkAclEntry, Policy, PrefixList, Route,
    RouteTarget, SecurityGroup, SecurityGroupRule, Subnet, Timeouts, Vpc,
};
use sgwall_rules::text::{EntryText, RuleText};

use crate::Case;

/// Who is who in the packets of a case.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("a", "10.0.1.10"),
    ("b", "10.0.2.20"),
    ("c", "10.0.1.30"),
    ("b2", "10.0.2.21"),
    ("a6", "2001:db8:0:1::10"),
    ("b6", "2001:db8:0:2::20"),
    ("X", "203.0.113.1"),
    ("Y", "203.0.113.2"),
    ("X6", "2001:db8:ffff::1"),
    ("router", "10.0.1.1"),
    ("dns", "10.0.0.2"),
];

/// Interface, subnet, addresses.
const INTERFACES: &[(&str, &str, &[&str])] =
    &[("a", "s1", &["a", "a6"]), ("b", "s2", &["b", "b2", "b6"]), ("c", "s1", &["c"])];

const SUBNETS: &[(&str, [&str; 2])] =
    &[("s1", ["10.0.1.0/24", "2001:db8:0:1::/64"]), ("s2", ["10.0.2.0/24", "2001:db8:0:2::/64"])];

pub(crate) fn address(name: &str) -> Option<IpAddr> {
    NAMES.iter().find(|(known, _)| *known == name)?.1.parse().ok()
}

fn origin() -> Origin {
    Origin::synthetic("case")
}

/// The policy that a case begins with.
pub(crate) fn policy(case: &Case, compat: Compat) -> Result<Policy, String> {
    let cidrs = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    let mut policy = Policy {
        compat,
        icmp_related: case.icmp_related,
        tcp_window_check: case.tcp_window_check,
        limits: Limits::of(compat),
        vpcs: vec![Vpc {
            id: "vpc".into(),
            cidrs: cidrs(&["10.0.0.0/16", "2001:db8::/56"]),
            origin: origin(),
        }],
        ..Policy::default()
    };
    let routes = case.routes.iter().map(|line| route(line)).collect::<Result<Vec<_>, _>>()?;
    for (id, ranges) in SUBNETS {
        policy.subnets.push(Subnet {
            id: (*id).into(),
            vpc: "vpc".into(),
            cidrs: cidrs(ranges),
            network_acl: case.acls.contains_key(*id).then(|| acl_id(id)),
            routes: routes.clone(),
            origin: origin(),
        });
    }
    let is_known = |id: &&String| SUBNETS.iter().any(|(known, _)| known == id);
    if let Some(subnet) = case.acls.keys().find(|id| !is_known(id)) {
        return Err(format!("no subnet {subnet:?}"));
    }
    for (id, entries) in &case.prefix_lists {
        let entries = entries.iter().map(|text| text.parse::<IpNet>());
        policy.prefix_lists.push(PrefixList {
            id: id.clone(),
            name: None,
            max_entries: None,
            entries: Some(entries.collect::<Result<_, _>>().map_err(|e| format!("{id}: {e}"))?),
            origin: origin(),
        });
    }
    for (id, lines) in &case.groups {
        policy.security_groups.push(SecurityGroup {
            id: id.clone(),
            name: id.clone(),
            description: String::new(),
            vpc: Some("vpc".into()),
            owner: None,
            is_default: false,
            ingress: vec![],
            egress: vec![],
            origin: origin(),
        });
        for line in lines {
            add_rule(&mut policy, id, line)?;
        }
    }
    for (subnet, lines) in &case.acls {
        policy.network_acls.push(NetworkAcl {
            id: acl_id(subnet),
            vpc: None,
            is_default: false,
            ingress: vec![],
            egress: vec![],
            origin: origin(),
        });
        for line in lines {
            add_entry(&mut policy, subnet, line)?;
        }
    }
    let all = BTreeMap::from([("a".to_owned(), case.groups.keys().cloned().collect::<Vec<_>>())]);
    let attached = if case.interfaces.is_empty() { &all } else { &case.interfaces };
    for (id, groups) in attached {
        let Some((_, subnet, addresses)) = INTERFACES.iter().find(|(known, ..)| known == id) else {
            return Err(format!("no interface {id:?}"));
        };
        policy.interfaces.push(Interface {
            id: id.clone(),
            subnet: (*subnet).into(),
            addresses: addresses.iter().filter_map(|name| address(name)).collect(),
            public: vec![],
            security_groups: groups.clone(),
            source_dest_check: !case.unchecked.contains(id),
            mtu: case.mtu.get(id).copied(),
            timeouts: Timeouts { tcp_established: case.tcp_established, ..Timeouts::default() },
            mac: None,
            origin: origin(),
        });
    }
    Ok(policy)
}

pub(crate) fn acl_id(subnet: &str) -> String {
    format!("acl-{subnet}")
}

pub(crate) fn group<'p>(policy: &'p mut Policy, id: &str) -> Result<&'p mut SecurityGroup, String> {
    let mut groups = policy.security_groups.iter_mut();
    groups.find(|group| group.id == id).ok_or_else(|| format!("no group {id:?}"))
}

/// Adds a rule; its id has the next number of its direction.
pub(crate) fn add_rule(policy: &mut Policy, id: &str, line: &str) -> Result<(), String> {
    let rule: RuleText = line.parse().map_err(|e| format!("{id}: {line:?}: {e}"))?;
    let group = group(policy, id)?;
    let rules = rules_mut(group, rule.direction);
    let last = rules.last().and_then(|rule| rule.id.rsplit('-').next()?.parse().ok()).unwrap_or(0);
    rules.push(SecurityGroupRule {
        id: format!("{}-{}", rule.direction, last + 1),
        matches: rule.matches,
        peer: rule.peer,
        description: None,
        origin: origin(),
    });
    Ok(())
}

/// Takes a rule away.
pub(crate) fn remove_rule(policy: &mut Policy, id: &str, line: &str) -> Result<(), String> {
    let rule: RuleText = line.parse().map_err(|e| format!("{id}: {line:?}: {e}"))?;
    let rules = rules_mut(group(policy, id)?, rule.direction);
    let before = rules.len();
    rules.retain(|known| known.matches != rule.matches || known.peer != rule.peer);
    if rules.len() == before {
        return Err(format!("{id} has no rule {line:?}"));
    }
    Ok(())
}

fn rules_mut(group: &mut SecurityGroup, direction: Direction) -> &mut Vec<SecurityGroupRule> {
    match direction {
        Direction::Ingress => &mut group.ingress,
        Direction::Egress => &mut group.egress,
    }
}

fn acl<'p>(policy: &'p mut Policy, subnet: &str) -> Result<&'p mut NetworkAcl, String> {
    let id = acl_id(subnet);
    let mut acls = policy.network_acls.iter_mut();
    acls.find(|acl| acl.id == id).ok_or_else(|| format!("subnet {subnet} has no ACL of its own"))
}

/// Adds an entry.
pub(crate) fn add_entry(policy: &mut Policy, subnet: &str, line: &str) -> Result<(), String> {
    let entry: EntryText = line.parse().map_err(|e| format!("{subnet}: {line:?}: {e}"))?;
    let acl = acl(policy, subnet)?;
    let entries = match entry.direction {
        Direction::Ingress => &mut acl.ingress,
        Direction::Egress => &mut acl.egress,
    };
    entries.push(NetworkAclEntry {
        rule_number: entry.rule_number,
        action: entry.action,
        matches: entry.matches,
        cidr: entry.cidr,
        origin: origin(),
    });
    Ok(())
}

/// Takes an entry away: `in 100`.
pub(crate) fn remove_entry(policy: &mut Policy, subnet: &str, which: &str) -> Result<(), String> {
    let acl = acl(policy, subnet)?;
    let (entries, number) = match which.split_once(' ') {
        Some(("in", number)) => (&mut acl.ingress, number),
        Some(("out", number)) => (&mut acl.egress, number),
        _ => return Err(format!("{which:?}: expected in or out and a number")),
    };
    let before = entries.len();
    entries.retain(|entry| entry.rule_number.to_string() != number);
    if entries.len() == before {
        return Err(format!("the ACL of {subnet} has no entry {which:?}"));
    }
    Ok(())
}

fn route(line: &str) -> Result<Route, String> {
    let target = |word: &str| match word {
        "internet-gateway" => Some(RouteTarget::InternetGateway),
        "nat-gateway" => Some(RouteTarget::NatGateway),
        "transit-gateway" => Some(RouteTarget::TransitGateway),
        "egress-only-internet-gateway" => Some(RouteTarget::EgressOnlyInternetGateway),
        "inspection-endpoint" => Some(RouteTarget::InspectionEndpoint),
        "vpn-gateway" => Some(RouteTarget::VpnGateway),
        "peering" => Some(RouteTarget::Peering),
        "inter-region-peering" => Some(RouteTarget::InterRegionPeering),
        _ => None,
    };
    let (destination, rest) = line.split_once(' ').ok_or_else(|| format!("route {line:?}"))?;
    let (word, mtu) = match rest.split_once(' ') {
        Some((word, mtu)) => (word, Some(mtu.parse().map_err(|_| format!("route {line:?}"))?)),
        None => (rest, None),
    };
    Ok(Route {
        destination: destination.parse().map_err(|e| format!("route {line:?}: {e}"))?,
        target: target(word).ok_or_else(|| format!("route {line:?}: no target {word:?}"))?,
        mtu,
        origin: origin(),
    })
}
