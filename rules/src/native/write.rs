//! A policy as a native file: the whole model, in a stable order, so that reading it gives the same
//! policy again.

use std::fmt::Write;

use super::LIMITS;
use crate::diagnostic::{Origin, SourceKind};
use crate::limits::{Limits, TIMEOUTS};
use crate::model::{
    AclAction, Compat, Direction, Exempt, ExemptTraffic, FlowLimits, Interface, L4Match,
    NetworkAcl, Peer, Policy, PortKind, PortRange, SecurityGroup, SecurityGroupRule, Subnet,
    Timeouts, Vlans,
};

/// The text of a native file that says what `policy` says.
#[must_use]
pub fn write(policy: &Policy) -> String {
    let mut text = Text::default();
    text.key("version", "1");
    if accepted(policy) {
        text.key("accepted", "true");
    }
    settings(policy, &mut text);
    for vpc in &policy.vpcs {
        text.table("vpc");
        text.string("id", &vpc.id);
        text.key("cidrs", &list(&vpc.cidrs));
        text.flag("classic_link", vpc.classic_link, false);
    }
    for peering in &policy.peerings {
        text.table("peering");
        text.string("id", &peering.id);
        text.key("vpcs", &list(&peering.vpcs));
        text.flag("active", peering.active, true);
        text.flag("inter_region", peering.inter_region, false);
        let ranges: Vec<_> = peering
            .cidrs
            .iter()
            .map(|(vpc, cidr)| format!("{{ vpc = {}, cidr = \"{cidr}\" }}", quoted(vpc)))
            .collect();
        text.block("cidrs", &ranges);
    }
    for subnet in &policy.subnets {
        write_subnet(subnet, &mut text);
    }
    for prefix_list in &policy.prefix_lists {
        text.table("prefix_list");
        text.string("id", &prefix_list.id);
        text.optional("name", prefix_list.name.as_deref());
        if let Some(most) = prefix_list.max_entries {
            text.key("max_entries", &most.to_string());
        }
        if let Some(entries) = &prefix_list.entries {
            text.block("entries", &entries.iter().map(|e| format!("\"{e}\"")).collect::<Vec<_>>());
        }
    }
    for group in &policy.security_groups {
        write_group(group, policy, &mut text);
    }
    for acl in &policy.network_acls {
        write_acl(acl, &mut text);
    }
    for interface in &policy.interfaces {
        write_interface(interface, &mut text);
    }
    for instance in &policy.classic_instances {
        text.table("classic_instance");
        text.string("id", &instance.id);
        text.string("address", &instance.address.to_string());
        text.optional("public", instance.public.map(|a| a.to_string()).as_deref());
        text.key("security_groups", &list(&instance.security_groups));
        if let Some(link) = &instance.link {
            let groups = list(&link.security_groups);
            let link = format!("{{ vpc = {}, security_groups = {groups} }}", quoted(&link.vpc));
            text.key("classic_link", &link);
        }
        text.ends(instance.mtu, instance.mac, instance.timeouts);
    }
    for port in &policy.ports {
        text.table("port");
        text.string("device", &port.device);
        if port.kind == PortKind::Existing {
            text.string("kind", "existing");
        }
        text.optional("interface", port.interface.as_deref());
        if let Some(mtu) = port.mtu {
            text.key("mtu", &mtu.to_string());
        }
        match &port.vlans {
            Vlans::None => {}
            Vlans::All => text.string("vlans", "all"),
            Vlans::Only(ids) => text.key("vlans", &format!("{ids:?}")),
        }
    }
    text.0
}

/// Whether AWS has accepted some of it, so that its faults are none here either.
fn accepted(policy: &Policy) -> bool {
    let mut origins = (policy.vpcs.iter().map(|o| &o.origin))
        .chain(policy.subnets.iter().map(|o| &o.origin))
        .chain(policy.prefix_lists.iter().map(|o| &o.origin))
        .chain(policy.security_groups.iter().map(|o| &o.origin))
        .chain(policy.network_acls.iter().map(|o| &o.origin))
        .chain(policy.interfaces.iter().map(|o| &o.origin))
        .chain(policy.peerings.iter().map(|o| &o.origin));
    origins.any(|origin: &Origin| origin.source.kind != SourceKind::Native)
}

fn settings(policy: &Policy, text: &mut Text) {
    if policy.compat != Compat::default() {
        text.string("compat", policy.compat.as_str());
    }
    text.flag("icmp_related", policy.icmp_related, false);
    text.flag("tcp_window_check", policy.tcp_window_check, false);
    match policy.exempt {
        Exempt::ALL => {}
        Exempt::NONE => text.key("exempt", "false"),
        exempt => {
            let all = ExemptTraffic::ALL.into_iter().filter(|traffic| exempt.contains(*traffic));
            text.key("exempt", &list(&all.map(ExemptTraffic::as_str).collect::<Vec<_>>()));
        }
    }
    let (mut limits, mut usual) = (policy.limits, Limits::of(policy.compat));
    if limits != usual {
        text.0 += "\n[limits]\n";
        for (key, field) in LIMITS {
            let (value, usual) = (*field(&mut limits), *field(&mut usual));
            if value != usual {
                text.key(key, &value.to_string());
            }
        }
    }
}

fn write_subnet(subnet: &Subnet, text: &mut Text) {
    text.table("subnet");
    text.string("id", &subnet.id);
    text.string("vpc", &subnet.vpc);
    text.key("cidrs", &list(&subnet.cidrs));
    text.optional("network_acl", subnet.network_acl.as_deref());
    let route = |route: &crate::model::Route| {
        let target = route.target.as_str();
        let mut line = format!("{{ destination = \"{}\", target = \"{target}\"", route.destination);
        if let Some(interface) = &route.interface {
            let _ = write!(line, ", interface = {}", quoted(interface));
        }
        if let Some(mtu) = route.mtu {
            let _ = write!(line, ", mtu = {mtu}");
        }
        line + " }"
    };
    if !subnet.routes.is_empty() {
        text.block("routes", &subnet.routes.iter().map(route).collect::<Vec<_>>());
    }
}

fn write_group(group: &SecurityGroup, policy: &Policy, text: &mut Text) {
    text.table("security_group");
    text.string("id", &group.id);
    if group.name != group.id && !(group.is_default && group.name == "default") {
        text.string("name", &group.name);
    }
    if !group.description.is_empty() {
        text.string("description", &group.description);
    }
    text.optional("vpc", group.vpc.as_deref());
    text.optional("owner", group.owner.as_deref());
    text.flag("default", group.is_default, false);
    // Outbound rules of EC2-Classic are always the same.
    let is_classic = group.vpc.is_none() && !policy.vpcs.is_empty();
    text.flag("classic", is_classic, false);
    for direction in Direction::BOTH {
        let rules = group.rules(direction).iter().enumerate();
        let rules: Vec<_> = rules.map(|(n, r)| rule(r, direction, n)).collect();
        let is_left_out = match direction {
            Direction::Ingress => rules.is_empty() && !group.is_default,
            Direction::Egress => is_classic,
        };
        if !is_left_out {
            text.block(direction.as_str(), &rules);
        }
    }
}

fn rule(rule: &SecurityGroupRule, direction: Direction, n: usize) -> String {
    let mut line = "{ ".to_owned();
    if rule.id != format!("{direction}-{}", n + 1) {
        let _ = write!(line, "id = {}, ", quoted(&rule.id));
    }
    line += &l4(rule.matches);
    let _ = match &rule.peer {
        Peer::Cidr(cidr) => write!(line, ", cidr = \"{cidr}\""),
        Peer::PrefixList(id) => write!(line, ", prefix_list = {}", quoted(id)),
        Peer::Group(to) => write!(line, ", group = {}", quoted(&to.id)),
    };
    if let Peer::Group(to) = &rule.peer {
        let vpc = to.vpc.as_ref();
        for (key, value) in [
            ("peering", to.peering.as_ref()),
            ("group_vpc", vpc),
            ("group_owner", to.owner.as_ref()),
        ] {
            if let Some(value) = value {
                let _ = write!(line, ", {key} = {}", quoted(value));
            }
        }
        if to.stale {
            line += ", stale = true";
        }
    }
    if let Some(description) = &rule.description {
        let _ = write!(line, ", description = {}", quoted(description));
    }
    line + " }"
}

fn write_acl(acl: &NetworkAcl, text: &mut Text) {
    text.table("network_acl");
    text.string("id", &acl.id);
    text.optional("vpc", acl.vpc.as_deref());
    text.flag("default", acl.is_default, false);
    for direction in Direction::BOTH {
        let entries: Vec<_> = acl
            .entries(direction)
            .iter()
            .map(|entry| {
                let action = if entry.action == AclAction::Allow { "allow" } else { "deny" };
                let (n, matches, cidr) = (entry.rule_number, l4(entry.matches), entry.cidr);
                format!("{{ rule = {n}, action = \"{action}\", {matches}, cidr = \"{cidr}\" }}")
            })
            .collect();
        if !entries.is_empty() {
            text.block(direction.as_str(), &entries);
        }
    }
}

fn write_interface(interface: &Interface, text: &mut Text) {
    text.table("interface");
    text.string("id", &interface.id);
    text.string("subnet", &interface.subnet);
    text.key("addresses", &list(&interface.addresses));
    if !interface.public.is_empty() {
        let pair = |(private, public): &(_, _)| {
            format!("{{ private = \"{private}\", public = \"{public}\" }}")
        };
        text.block("public", &interface.public.iter().map(pair).collect::<Vec<_>>());
    }
    text.key("security_groups", &list(&interface.security_groups));
    text.flag("source_dest_check", interface.source_dest_check, true);
    text.optional("instance", interface.instance.as_deref());
    text.optional("instance_type", interface.instance_type.as_deref());
    text.ends(interface.mtu, interface.mac, interface.timeouts);
    let FlowLimits { max_flows, reserved_flows } = interface.flows;
    for (key, limit) in [("max_flows", max_flows), ("reserved_flows", reserved_flows)] {
        if let Some(limit) = limit {
            text.key(key, &limit.to_string());
        }
    }
}

/// `protocol = "tcp", ports = 443`.
fn l4(matches: L4Match) -> String {
    let ports = |range: PortRange| match range {
        PortRange::ALL => String::new(),
        PortRange { from, to } if from == to => format!(", ports = {from}"),
        PortRange { from, to } => format!(", ports = \"{from}-{to}\""),
    };
    let icmp = |name: &str, icmp: crate::model::IcmpMatch| {
        let kind = icmp.kind.map_or(String::new(), |kind| format!(", type = {kind}"));
        let code = icmp.code.map_or(String::new(), |code| format!(", code = {code}"));
        format!("protocol = \"{name}\"{kind}{code}")
    };
    match matches {
        L4Match::All => "protocol = \"all\"".to_owned(),
        L4Match::Tcp(range) => format!("protocol = \"tcp\"{}", ports(range)),
        L4Match::Udp(range) => format!("protocol = \"udp\"{}", ports(range)),
        L4Match::Icmp(what) => icmp("icmp", what),
        L4Match::Icmpv6(what) => icmp("icmpv6", what),
        L4Match::Other(number) => format!("protocol = {number}"),
    }
}

/// A file on its way.
#[derive(Default)]
struct Text(String);

impl Text {
    fn table(&mut self, name: &str) {
        let _ = writeln!(self.0, "\n[[{name}]]");
    }

    /// A value that is TOML already.
    fn key(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key, &quoted(value));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    fn flag(&mut self, key: &str, value: bool, usual: bool) {
        if value != usual {
            self.key(key, if value { "true" } else { "false" });
        }
    }

    /// An array with an element a line.
    fn block(&mut self, key: &str, elements: &[String]) {
        if elements.is_empty() {
            return self.key(key, "[]");
        }
        let _ = writeln!(self.0, "{key} = [");
        for element in elements {
            let _ = writeln!(self.0, "  {element},");
        }
        self.0 += "]\n";
    }

    /// What interfaces and instances of EC2-Classic have in common.
    fn ends(&mut self, mtu: Option<u16>, mac: Option<[u8; 6]>, mut timeouts: Timeouts) {
        if let Some(mtu) = mtu {
            self.key("mtu", &mtu.to_string());
        }
        if let Some(mac) = mac {
            self.string("mac", &mac.map(|byte| format!("{byte:02x}")).join(":"));
        }
        let set: Vec<_> = TIMEOUTS
            .iter()
            .filter_map(|(key, _, field)| Some(format!("{key} = {}", (*field(&mut timeouts))?)))
            .collect();
        if !set.is_empty() {
            self.key("timeouts", &format!("{{ {} }}", set.join(", ")));
        }
    }
}

/// `["a", "b"]`.
fn list<T: ToString>(elements: &[T]) -> String {
    let elements: Vec<_> = elements.iter().map(|element| quoted(&element.to_string())).collect();
    format!("[{}]", elements.join(", "))
}

/// A basic string (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
