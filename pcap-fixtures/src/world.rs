//! The network that cases play in: a VPC of two subnets, three interfaces and some strangers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::limits::Limits;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{
    Compat, Exempt, ExemptTraffic, FlowLimits, Interface, NetworkAcl, Policy, PrefixList, Route,
    RouteTarget, SecurityGroup, Subnet, Timeouts, Vpc,
};

use crate::Case;
use crate::step::change;

/// Who is who in the packets of a case.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("a", "10.0.1.10"),
    ("b", "10.0.2.20"),
    ("c", "10.0.1.30"),
    ("b2", "10.0.2.21"),
    ("m", "10.0.2.40"),
    ("a6", "2001:db8:0:1::10"),
    ("b6", "2001:db8:0:2::20"),
    ("X", "203.0.113.1"),
    ("Y", "203.0.113.2"),
    ("X6", "2001:db8:ffff::1"),
    ("router", "10.0.1.1"),
    ("dns", "10.0.0.2"),
];

/// Interface, subnet, addresses, last byte of the MAC address.
const INTERFACES: &[(&str, &str, &[&str], u8)] = &[
    ("a", "s1", &["a", "a6"], 0xa),
    ("b", "s2", &["b", "b2", "b6"], 0xb),
    ("c", "s1", &["c"], 0xc),
    ("m", "s2", &["m"], 0xf),
];

const SUBNETS: &[(&str, [&str; 2])] =
    &[("s1", ["10.0.1.0/24", "2001:db8:0:1::/64"]), ("s2", ["10.0.2.0/24", "2001:db8:0:2::/64"])];

/// The address of a name that every case knows.
pub(crate) fn address(name: &str) -> Option<IpAddr> {
    NAMES.iter().find(|(known, _)| *known == name)?.1.parse().ok()
}

fn origin() -> Origin {
    Origin::synthetic("case")
}

/// The policy that a case begins with.
pub(crate) fn policy(case: &Case, compat: Compat) -> Result<Policy, String> {
    if let Some(text) = &case.policy {
        return native(text, compat);
    }
    let exempt = |words: &Vec<String>| {
        let traffic = ExemptTraffic::ALL.into_iter();
        traffic.filter(|t| words.iter().any(|w| w == t.as_str())).fold(Exempt::NONE, Exempt::with)
    };
    let cidrs = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    let mut policy = Policy {
        compat,
        icmp_related: case.icmp_related,
        exempt: case.exempt.as_ref().map_or(Exempt::ALL, exempt),
        tcp_window_check: case.tcp_window_check,
        limits: Limits::of(compat),
        vpcs: vec![Vpc {
            id: "vpc".into(),
            cidrs: cidrs(&["10.0.0.0/16", "2001:db8::/56"]),
            classic_link: false,
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
    for id in case.groups.keys() {
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
    }
    for (id, lines) in &case.groups {
        for line in lines {
            change(&mut policy, &format!("authorize {id} {line}"))?.map_err(|e| e.to_string())?;
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
            let line = format!("add-entry {subnet} {line}");
            change(&mut policy, &line)?.map_err(|e| e.to_string())?;
        }
    }
    let all = BTreeMap::from([("a".to_owned(), case.groups.keys().cloned().collect::<Vec<_>>())]);
    let attached = if case.interfaces.is_empty() { &all } else { &case.interfaces };
    for (id, groups) in attached {
        let known = INTERFACES.iter().find(|(known, ..)| known == id);
        let Some(&(_, subnet, addresses, mac)) = known else {
            return Err(format!("no interface {id:?}"));
        };
        let own = address(id).into_iter();
        policy.interfaces.push(Interface {
            id: id.clone(),
            subnet: subnet.into(),
            addresses: addresses.iter().filter_map(|name| address(name)).collect(),
            public: own.flat_map(|own| Some((own, *case.public.get(id)?))).collect(),
            security_groups: groups.clone(),
            source_dest_check: !case.unchecked.contains(id),
            flows: FlowLimits {
                max_flows: case.max_flows_of.get(id).copied(),
                reserved_flows: case.reserved_flows_of.get(id).copied(),
            },
            mtu: case.mtu.get(id).copied(),
            timeouts: Timeouts { tcp_established: case.tcp_established, ..Timeouts::default() },
            mac: Some([2, 0, 0, 0, 1, mac]),
            instance: None,
            instance_type: case.instance_type.get(id).cloned(),
            origin: origin(),
        });
    }
    Ok(policy)
}

/// A policy file's text, under an edition of the semantics.
fn native(text: &str, compat: Compat) -> Result<Policy, String> {
    let text = format!("version = 1\ncompat = \"{}\"\n{text}", compat.as_str());
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    let loaded = load(&[input]).map_err(|diagnostics| {
        diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    Ok(loaded.policy)
}

pub(crate) fn acl_id(subnet: &str) -> String {
    format!("acl-{subnet}")
}

/// Adds a route to a subnet.
pub(crate) fn add_route(policy: &mut Policy, subnet: &str, line: &str) -> Result<(), String> {
    let mut subnets = policy.subnets.iter_mut();
    let subnet = subnets.find(|s| s.id == subnet).ok_or_else(|| format!("no subnet {subnet:?}"))?;
    subnet.routes.push(route(line)?);
    Ok(())
}

fn route(line: &str) -> Result<Route, String> {
    let target = |word: &str| match word {
        "local" => Some(RouteTarget::Local),
        "internet-gateway" => Some(RouteTarget::InternetGateway),
        "nat-gateway" => Some(RouteTarget::NatGateway),
        "transit-gateway" => Some(RouteTarget::TransitGateway),
        "egress-only-internet-gateway" => Some(RouteTarget::EgressOnlyInternetGateway),
        "inspection-endpoint" => Some(RouteTarget::InspectionEndpoint),
        "vpn-gateway" => Some(RouteTarget::VpnGateway),
        "peering" => Some(RouteTarget::Peering),
        "appliance" => Some(RouteTarget::Appliance),
        "inter-region-peering" => Some(RouteTarget::InterRegionPeering),
        _ => None,
    };
    let (destination, rest) = line.split_once(' ').ok_or_else(|| format!("route {line:?}"))?;
    let (word, interface, mtu) = match rest.split_once(' ') {
        Some(("appliance", interface)) => ("appliance", Some(interface.to_owned()), None),
        Some((word, mtu)) => {
            (word, None, Some(mtu.parse().map_err(|_| format!("route {line:?}"))?))
        }
        None => (rest, None, None),
    };
    Ok(Route {
        destination: destination.parse().map_err(|e| format!("route {line:?}: {e}"))?,
        target: target(word).ok_or_else(|| format!("route {line:?}: no target {word:?}"))?,
        interface,
        mtu,
        origin: origin(),
    })
}
