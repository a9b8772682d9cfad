//! The native policy file: TOML, as `docs/policy.md` describes it.
//!
//! Reading is by hand over the parsed document, not by derive, so that every fault of a file is
//! found in one go, each with its line, field, value and mend. Several files make one policy:
//! [`Files`] collects them, and [`Files::finish`] fills in what only the whole can tell.

mod classic;
mod fields;
mod ports;
mod write;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::fields::nearest;
use self::fields::{Fields, parse};
pub use self::write::write;
use crate::diagnostic::{Diagnostic, Origin, SourceKind};
use crate::limits::{Limits, TIMEOUTS};
use crate::model::{
    AclAction, Compat, Direction, Exempt, ExemptTraffic, FlowLimits, GroupRef, Interface, L4Match,
    NetworkAcl, NetworkAclEntry, Peer, Peering, Policy, PrefixList, Route, RouteTarget,
    SecurityGroup, SecurityGroupRule, Subnet, Timeouts, Vpc,
};
use crate::text;

const TOP: &[&str] = &[
    "version",
    "accepted",
    "compat",
    "icmp_related",
    "exempt",
    "tcp_window_check",
    "limits",
    "vpc",
    "subnet",
    "prefix_list",
    "security_group",
    "network_acl",
    "interface",
    "classic_instance",
    "peering",
    "port",
];

/// Collects native files.
#[derive(Debug, Default)]
pub struct Files {
    policy: Policy,
    compat: Option<(Compat, Origin)>,
    icmp_related: Option<(bool, Origin)>,
    exempt: Option<(Exempt, Origin)>,
    tcp_window_check: Option<(bool, Origin)>,
    limits: Vec<(&'static str, u32, Origin)>,
    /// Groups whose egress (ingress, for a default group) was left out, by index.
    default_rules: Vec<(usize, Direction)>,
    /// Groups of EC2-Classic, by index.
    classic_groups: Vec<usize>,
    /// Interfaces whose groups were left out, by index.
    default_groups: Vec<usize>,
}

impl Files {
    /// Reads one file. What is wrong goes to `out`; what could be read is kept, so that later
    /// checks find more faults, but a policy with an error is never used.
    pub fn add(&mut self, name: &str, text: &str, out: &mut Vec<Diagnostic>) {
        let Some((table, mut source)) = parse(name, text, out) else { return };
        let accepted = table.get_ref().get("accepted").and_then(|value| value.get_ref().as_bool());
        if accepted == Some(true) {
            Arc::make_mut(&mut source).kind = SourceKind::Aws;
        }
        let top = Fields::new(table.get_ref(), Origin::new(&source, ""), TOP, out);
        if top.has("version") {
            top.integer::<u8>("version", (1, 1), out);
        } else {
            out.push(Diagnostic::error(
                "MissingParameter",
                &top.at,
                "\"version\" is missing",
                "begin the file with version = 1",
            ));
        }
        top.boolean("accepted", out);
        self.settings(&top, out);
        for fields in top.tables("vpc", &["id", "cidrs", "classic_link"], out) {
            let vpc = Vpc {
                id: fields.required("id", out),
                cidrs: cidrs(&fields, "cidrs", out),
                classic_link: fields.boolean("classic_link", out).unwrap_or(false),
                origin: fields.at,
            };
            self.policy.vpcs.push(vpc);
        }
        for fields in top.tables("subnet", &["id", "vpc", "cidrs", "network_acl", "routes"], out) {
            let subnet = subnet(fields, out);
            self.policy.subnets.push(subnet);
        }
        for fields in top.tables("prefix_list", &["id", "name", "max_entries", "entries"], out) {
            let list = PrefixList {
                id: fields.required("id", out),
                name: fields.string("name", out),
                max_entries: fields.integer("max_entries", (1, 1000), out),
                // AWS's answers may name a list and not tell its entries.
                entries: (!is_accepted(&fields.at) || fields.has("entries"))
                    .then(|| cidrs(&fields, "entries", out)),
                origin: fields.at,
            };
            self.policy.prefix_lists.push(list);
        }
        const GROUP: &[&str] = &[
            "id",
            "name",
            "description",
            "vpc",
            "owner",
            "classic",
            "default",
            "ingress",
            "egress",
        ];
        for fields in top.tables("security_group", GROUP, out) {
            self.group(fields, out);
        }
        for fields in top.tables("network_acl", &["id", "vpc", "default", "ingress", "egress"], out)
        {
            let acl = NetworkAcl {
                id: fields.required("id", out),
                vpc: fields.string("vpc", out),
                is_default: fields.boolean("default", out).unwrap_or(false),
                ingress: entries(&fields, "ingress", out),
                egress: entries(&fields, "egress", out),
                origin: fields.at,
            };
            self.policy.network_acls.push(acl);
        }
        const INTERFACE: &[&str] = &[
            "id",
            "subnet",
            "addresses",
            "public",
            "security_groups",
            "source_dest_check",
            "mtu",
            "mac",
            "timeouts",
            "max_flows",
            "reserved_flows",
            "instance",
            "instance_type",
        ];
        for fields in top.tables("interface", INTERFACE, out) {
            if !fields.has("security_groups") {
                self.default_groups.push(self.policy.interfaces.len());
            }
            let interface = interface(fields, out);
            self.policy.interfaces.push(interface);
        }
        for fields in top.tables("classic_instance", classic::INSTANCE, out) {
            let instance = classic::instance(fields, out);
            self.policy.classic_instances.extend(instance);
        }
        for fields in top.tables("port", ports::PORT, out) {
            let port = ports::port(fields, out);
            self.policy.ports.push(port);
        }
        for fields in top.tables("peering", &["id", "vpcs", "cidrs", "active", "inter_region"], out)
        {
            if let Some(peering) = peering(fields, out) {
                self.policy.peerings.push(peering);
            }
        }
    }

    /// Settings of the whole policy, which several files may give if they agree.
    fn settings(&mut self, top: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) {
        if let Some(word) = top.string("compat", out) {
            match [Compat::Ec2_2017, Compat::Current].into_iter().find(|c| c.as_str() == word) {
                Some(compat) => agree(&mut self.compat, compat, top.at.field("compat"), out),
                None => out.push(Diagnostic::error(
                    "InvalidParameterValue",
                    &top.at.field("compat"),
                    format!("{word:?} is no edition of the semantics"),
                    "write \"ec2-2017\" or \"current\"",
                )),
            }
        }
        if let Some(related) = top.boolean("icmp_related", out) {
            agree(&mut self.icmp_related, related, top.at.field("icmp_related"), out);
        }
        if let Some(exempt) = exempt(top, out) {
            agree(&mut self.exempt, exempt, top.at.field("exempt"), out);
        }
        if let Some(check) = top.boolean("tcp_window_check", out) {
            agree(&mut self.tcp_window_check, check, top.at.field("tcp_window_check"), out);
        }
        let known: Vec<_> = LIMITS.iter().map(|(key, _)| *key).collect();
        let Some(limits) = top.table("limits", &known, out) else { return };
        for &(key, _) in LIMITS {
            let Some(value) = limits.integer(key, (0, i64::from(u32::MAX)), out) else { continue };
            let at = limits.at.field(key);
            let mut before = self
                .limits
                .iter()
                .find(|(known, ..)| *known == key)
                .map(|(_, value, at)| (*value, at.clone()));
            if before.is_none() {
                self.limits.push((key, value, at.clone()));
            }
            agree(&mut before, value, at, out);
        }
    }

    fn group(&mut self, fields: Fields<'_, '_>, out: &mut Vec<Diagnostic>) {
        let id = fields.required("id", out);
        let is_default = fields.boolean("default", out).unwrap_or(false);
        if fields.boolean("classic", out).unwrap_or(false) {
            self.classic_groups.push(self.policy.security_groups.len());
            classic::check_group(&fields, out);
        }
        let index = self.policy.security_groups.len();
        if !fields.has("egress") {
            self.default_rules.push((index, Direction::Egress));
        }
        if is_default && !fields.has("ingress") {
            self.default_rules.push((index, Direction::Ingress));
        }
        let name = fields.string("name", out).map(|name| name.trim_end().to_owned());
        let group = SecurityGroup {
            name: name.unwrap_or_else(|| if is_default { "default".into() } else { id.clone() }),
            description: fields.string("description", out).unwrap_or_default(),
            vpc: fields.string("vpc", out),
            owner: fields.string("owner", out),
            is_default,
            ingress: group_rules(&fields, "ingress", out),
            egress: group_rules(&fields, "egress", out),
            id,
            origin: fields.at,
        };
        self.policy.security_groups.push(group);
    }

    /// Adds what was read to `policy`, and fills in what was left out: a group's VPC where there
    /// is only one, default rules (SEMANTICS 5.1, 5.2), an interface's default group.
    pub fn finish(self, policy: &mut Policy, out: &mut Vec<Diagnostic>) {
        let Files { policy: mut mine, compat, icmp_related, tcp_window_check, limits, .. } = self;
        policy.compat = compat.map_or(policy.compat, |(compat, _)| compat);
        policy.icmp_related = icmp_related.map_or(policy.icmp_related, |(related, _)| related);
        policy.exempt = self.exempt.map_or(policy.exempt, |(exempt, _)| exempt);
        policy.tcp_window_check =
            tcp_window_check.map_or(policy.tcp_window_check, |(check, _)| check);
        policy.limits = Limits::of(policy.compat);
        for (key, value, _) in limits {
            if let Some((_, field)) = LIMITS.iter().find(|(known, _)| *known == key) {
                *field(&mut policy.limits) = value;
            }
        }
        policy.vpcs.append(&mut mine.vpcs);
        policy.subnets.append(&mut mine.subnets);
        policy.prefix_lists.append(&mut mine.prefix_lists);
        policy.network_acls.append(&mut mine.network_acls);
        let first_peering = policy.peerings.len();
        policy.peerings.append(&mut mine.peerings);
        for peering in &mut policy.peerings[first_peering..] {
            if !peering.cidrs.is_empty() {
                continue;
            }
            let ends = policy.vpcs.iter().filter(|vpc| peering.vpcs.contains(&vpc.id));
            peering.cidrs =
                ends.flat_map(|vpc| vpc.cidrs.iter().map(|&cidr| (vpc.id.clone(), cidr))).collect();
        }

        for (index, group) in mine.security_groups.iter_mut().enumerate() {
            if group.vpc.is_none() && !self.classic_groups.contains(&index) {
                match &policy.vpcs[..] {
                    [] => {}
                    [only] => group.vpc = Some(only.id.clone()),
                    several => out.push(Diagnostic::error(
                        "MissingParameter",
                        &group.origin,
                        format!("\"vpc\" is missing, and the policy has {} VPCs", several.len()),
                        format!("add vpc = {:?}, or another of them", several[0].id),
                    )),
                }
            }
        }
        for (index, direction) in self.default_rules {
            let Some(group) = mine.security_groups.get_mut(index) else { continue };
            let has_ipv6 = policy
                .vpcs
                .iter()
                .filter(|vpc| group.vpc.as_ref() == Some(&vpc.id))
                .any(|vpc| vpc.cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_))));
            let rules = default_rules(group, direction, has_ipv6);
            match direction {
                Direction::Ingress => group.ingress = rules,
                Direction::Egress => group.egress = rules,
            }
        }
        policy.security_groups.append(&mut mine.security_groups);

        for index in self.default_groups {
            let Some(interface) = mine.interfaces.get_mut(index) else { continue };
            let vpc = policy.subnets.iter().find(|s| s.id == interface.subnet).map(|s| &s.vpc);
            let default =
                policy.security_groups.iter().find(|g| g.is_default && g.vpc.as_ref() == vpc);
            match default {
                Some(group) => interface.security_groups.push(group.id.clone()),
                None => out.push(Diagnostic::error(
                    "MissingParameter",
                    &interface.origin,
                    "\"security_groups\" is missing, and its VPC has no default group here",
                    "name its groups, or add a [[security_group]] with default = true",
                )),
            }
        }
        policy.interfaces.append(&mut mine.interfaces);
        policy.classic_instances.append(&mut mine.classic_instances);
        policy.ports.append(&mut mine.ports);
    }
}

/// What is exempt: a list of names, or all or nothing.
fn exempt(top: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Option<Exempt> {
    if let Some(all) = top.boolean_or_other("exempt") {
        return Some(if all { Exempt::ALL } else { Exempt::NONE });
    }
    if !top.has("exempt") {
        return None;
    }
    let mut exempt = Exempt::NONE;
    for (at, word) in top.strings("exempt", out) {
        match ExemptTraffic::ALL.into_iter().find(|traffic| traffic.as_str() == word) {
            Some(traffic) => exempt = exempt.with(traffic),
            None => out.push(Diagnostic::error(
                "InvalidParameterValue",
                &at,
                format!("{word:?} is no traffic that can be exempt"),
                format!("write some of {}", ExemptTraffic::ALL.map(|t| t.as_str()).join(", ")),
            )),
        }
    }
    Some(exempt)
}

/// A limit's field.
type LimitField = fn(&mut Limits) -> &mut u32;

/// The keys of `[limits]`.
const LIMITS: &[(&str, LimitField)] = &[
    ("groups_per_vpc", |l| &mut l.groups_per_vpc),
    ("groups_per_interface", |l| &mut l.groups_per_interface),
    ("rules_per_group", |l| &mut l.rules_per_group),
    ("rules_per_interface", |l| &mut l.rules_per_interface),
    ("entries_per_acl", |l| &mut l.entries_per_acl),
    ("acls_per_vpc", |l| &mut l.acls_per_vpc),
    ("entries_per_prefix_list", |l| &mut l.entries_per_prefix_list),
    ("classic_groups", |l| &mut l.classic_groups),
    ("rules_per_classic_group", |l| &mut l.rules_per_classic_group),
    ("groups_per_classic_instance", |l| &mut l.groups_per_classic_instance),
];

/// Keeps the first value of a setting; another file may repeat it but not contradict it.
fn agree<T: PartialEq + std::fmt::Debug>(
    setting: &mut Option<(T, Origin)>,
    value: T,
    at: Origin,
    out: &mut Vec<Diagnostic>,
) {
    match setting {
        None => *setting = Some((value, at)),
        Some((first, _)) if *first == value => {}
        Some((_, first_at)) => out.push(Diagnostic::error(
            "conflict",
            &at,
            format!("contradicts {first_at}"),
            "give it in one of the files only",
        )),
    }
}

/// What AWS gives a group whose rules nobody has set.
pub(crate) fn default_rules(
    group: &SecurityGroup,
    direction: Direction,
    has_ipv6: bool,
) -> Vec<SecurityGroupRule> {
    let peers = match direction {
        Direction::Ingress => vec![Peer::Group(GroupRef::local(&group.id))],
        Direction::Egress => {
            let families = if has_ipv6 { &["0.0.0.0/0", "::/0"][..] } else { &["0.0.0.0/0"] };
            families.iter().filter_map(|f| f.parse().ok()).map(Peer::Cidr).collect()
        }
    };
    let rule = |(peer, n): (Peer, usize)| SecurityGroupRule {
        id: format!("{direction}-{n}"),
        matches: L4Match::All,
        peer,
        description: None,
        origin: group.origin.clone(),
    };
    peers.into_iter().zip(1..).map(rule).collect()
}

fn group_rules(
    fields: &Fields<'_, '_>,
    direction: &str,
    out: &mut Vec<Diagnostic>,
) -> Vec<SecurityGroupRule> {
    const RULE: &[&str] = &[
        "id",
        "protocol",
        "ports",
        "type",
        "code",
        "cidr",
        "group",
        "prefix_list",
        "peering",
        "group_vpc",
        "group_owner",
        "stale",
        "description",
    ];
    let mut rules = Vec::new();
    for (n, rule) in (1..).zip(fields.tables(direction, RULE, out)) {
        let matches = l4_match(&rule, out);
        let peer = peer(&rule, out);
        let description = rule.string("description", out);
        if let (Some(matches), Some(peer)) = (matches, peer) {
            let id = rule.string("id", out).unwrap_or_else(|| format!("{direction}-{n}"));
            rules.push(SecurityGroupRule { id, matches, peer, description, origin: rule.at });
        }
    }
    rules
}

/// Exactly one of `cidr`, `group` and `prefix_list`.
fn peer(rule: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Option<Peer> {
    const PEERS: [&str; 3] = ["cidr", "group", "prefix_list"];
    let given: Vec<_> = PEERS.into_iter().filter(|key| rule.has(key)).collect();
    let peering = rule.string("peering", out);
    let (vpc, owner) = (rule.string("group_vpc", out), rule.string("group_owner", out));
    let stale = rule.boolean("stale", out).unwrap_or(false);
    let [key] = given[..] else {
        let (code, message) = match given.is_empty() {
            true => ("MissingParameter", "the rule names no peer".to_owned()),
            false => (
                "InvalidParameterCombination",
                format!("{} exclude each other", given.join(" and ")),
            ),
        };
        let mend = "give exactly one of cidr, group and prefix_list; one rule has one peer";
        out.push(Diagnostic::error(code, &rule.at, message, mend));
        return None;
    };
    let of_groups = ["peering", "group_vpc", "group_owner", "stale"];
    for other in of_groups.into_iter().filter(|other| rule.has(other) && key != "group") {
        out.push(Diagnostic::error(
            "InvalidParameterCombination",
            &rule.at.field(other),
            format!("{other:?} belongs to a group of another VPC"),
            "remove it, or name the group",
        ));
    }
    match key {
        "cidr" => cidr(&rule.at.field(key), &rule.string(key, out)?, out).map(Peer::Cidr),
        "group" => {
            let id = rule.string(key, out)?;
            Some(Peer::Group(GroupRef { id, vpc, owner, peering, stale }))
        }
        _ => Some(Peer::PrefixList(rule.string(key, out)?)),
    }
}

/// `protocol`, with `ports` or `type` and `code` where the protocol has them.
fn l4_match(rule: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Option<L4Match> {
    if !rule.has("protocol") {
        out.push(Diagnostic::error(
            "MissingParameter",
            &rule.at,
            "\"protocol\" is missing",
            "add protocol = \"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"all\" or a number",
        ));
        return None;
    }
    let protocol = rule.word("protocol", out)?;
    let ports = rule.word("ports", out);
    let kind = rule.integer("type", (-1, 255), out);
    let code = rule.integer("code", (-1, 255), out);
    let invalid = |field: &str, message: String, mend: &str| {
        Diagnostic::error("InvalidParameterValue", &rule.at.field(field), message, mend)
    };
    let matches = match text::l4(&protocol, ports.as_deref(), kind, code) {
        Ok(matches) => matches,
        Err(message) => {
            let (field, mend) = match text::protocol_number(&protocol) {
                Err(_) => ("protocol", "name or number the protocol"),
                Ok(Some(1 | 58)) => ("code", "give a type, or leave the code out"),
                Ok(_) => ("ports", "write one port, a range such as \"7000-8000\", or \"all\""),
            };
            out.push(invalid(field, message, mend));
            return None;
        }
    };
    // AWS ignores these (SEMANTICS 2.4); whoever wrote them expected a filter.
    let ignored = match matches {
        L4Match::Tcp(_) | L4Match::Udp(_) => ["type", "code"].as_slice(),
        L4Match::Icmp(_) | L4Match::Icmpv6(_) => &["ports"],
        L4Match::All | L4Match::Other(_) => &["ports", "type", "code"],
    };
    for key in ignored.iter().filter(|key| rule.has(key)) {
        out.push(Diagnostic::warning(
            "ignored-field",
            &rule.at.field(key),
            format!("{key:?} has no meaning for protocol {protocol} and is ignored, as AWS does"),
            "remove it",
        ));
    }
    Some(matches)
}

fn entries(
    fields: &Fields<'_, '_>,
    direction: &str,
    out: &mut Vec<Diagnostic>,
) -> Vec<NetworkAclEntry> {
    const ENTRY: &[&str] = &["rule", "action", "protocol", "ports", "type", "code", "cidr"];
    let mut entries = Vec::new();
    for entry in fields.tables(direction, ENTRY, out) {
        for key in ["rule", "action", "cidr"].into_iter().filter(|key| !entry.has(key)) {
            out.push(Diagnostic::error(
                "MissingParameter",
                &entry.at,
                format!("{key:?} is missing"),
                format!("add {key} = …"),
            ));
        }
        let rule_number = entry.integer("rule", (1, 32766), out);
        let action = entry.string("action", out).and_then(|word| match &*word {
            "allow" => Some(AclAction::Allow),
            "deny" => Some(AclAction::Deny),
            _ => {
                out.push(Diagnostic::error(
                    "InvalidParameterValue",
                    &entry.at.field("action"),
                    format!("{word:?} is no action"),
                    "write \"allow\" or \"deny\"",
                ));
                None
            }
        });
        let matches = l4_match(&entry, out);
        let range =
            entry.string("cidr", out).and_then(|text| cidr(&entry.at.field("cidr"), &text, out));
        if let (Some(rule_number), Some(action), Some(matches), Some(cidr)) =
            (rule_number, action, matches, range)
        {
            entries.push(NetworkAclEntry { rule_number, action, matches, cidr, origin: entry.at });
        }
    }
    entries
}

fn subnet(fields: Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Subnet {
    let mut routes = Vec::new();
    for route in fields.tables("routes", &["destination", "target", "interface", "mtu"], out) {
        let destination = route.required("destination", out);
        let destination = cidr(&route.at.field("destination"), &destination, out);
        let word = route.required("target", out);
        let target = TARGETS.iter().find(|(name, _)| *name == word).map(|(_, target)| *target);
        if target.is_none() {
            let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            out.push(Diagnostic::error(
                "InvalidParameterValue",
                &route.at.field("target"),
                format!("{word:?} is no target of a route"),
                format!("write one of {}", names.join(", ")),
            ));
        }
        let interface = route.string("interface", out);
        if interface.is_some() && target.is_some_and(|target| target != RouteTarget::Appliance) {
            out.push(Diagnostic::error(
                "InvalidParameterCombination",
                &route.at.field("interface"),
                format!("a route to {word:?} goes through no interface"),
                "remove it, or write target = \"appliance\"",
            ));
        }
        let mtu = route.integer("mtu", (576, 9001), out);
        if let (Some(destination), Some(target)) = (destination, target) {
            routes.push(Route { destination, target, interface, mtu, origin: route.at });
        }
    }
    Subnet {
        id: fields.required("id", out),
        vpc: fields.required("vpc", out),
        cidrs: cidrs(&fields, "cidrs", out),
        network_acl: fields.string("network_acl", out),
        routes,
        origin: fields.at,
    }
}

/// The names of [`RouteTarget`] in policy files.
const TARGETS: &[(&str, RouteTarget)] = &[
    ("local", RouteTarget::Local),
    ("internet-gateway", RouteTarget::InternetGateway),
    ("egress-only-internet-gateway", RouteTarget::EgressOnlyInternetGateway),
    ("nat-gateway", RouteTarget::NatGateway),
    ("transit-gateway", RouteTarget::TransitGateway),
    ("vpn-gateway", RouteTarget::VpnGateway),
    ("peering", RouteTarget::Peering),
    ("inter-region-peering", RouteTarget::InterRegionPeering),
    ("gateway-endpoint", RouteTarget::GatewayEndpoint),
    ("inspection-endpoint", RouteTarget::InspectionEndpoint),
    ("appliance", RouteTarget::Appliance),
    ("other-gateway", RouteTarget::OtherGateway),
    ("blackhole", RouteTarget::Blackhole),
];

fn interface(fields: Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Interface {
    if !fields.has("addresses") {
        out.push(Diagnostic::error(
            "MissingParameter",
            &fields.at,
            "\"addresses\" is missing",
            "add addresses = [\"10.0.1.10\"], the primary one first",
        ));
    }
    let mut addresses = Vec::new();
    for (at, text) in fields.strings("addresses", out) {
        addresses.extend(address(&at, &text, out));
    }
    let groups = fields.strings("security_groups", out);
    if groups.is_empty() && fields.has("security_groups") && !is_accepted(&fields.at) {
        out.push(Diagnostic::error(
            "InvalidParameterValue",
            &fields.at.field("security_groups"),
            "the interface has no security group",
            "name one to five",
        ));
    }
    let mut public = Vec::new();
    for pair in fields.tables("public", &["private", "public"], out) {
        let mut end = |key| {
            let text = pair.required(key, out);
            address(&pair.at.field(key), &text, out)
        };
        if let (Some(private), Some(address)) = (end("private"), end("public")) {
            public.push((private, address));
        }
    }
    let mac = mac(&fields, out);
    Interface {
        id: fields.required("id", out),
        subnet: match is_accepted(&fields.at) {
            true => fields.string("subnet", out).unwrap_or_default(),
            false => fields.required("subnet", out),
        },
        addresses,
        public,
        security_groups: groups.into_iter().map(|(_, id)| id).collect(),
        source_dest_check: fields.boolean("source_dest_check", out).unwrap_or(true),
        mtu: fields.integer("mtu", (576, 9001), out),
        timeouts: timeouts(&fields, out),
        flows: flow_limits(&fields, out),
        mac,
        instance: fields.string("instance", out),
        instance_type: fields.string("instance_type", out),
        origin: fields.at,
    }
}

/// Whether AWS has accepted what the file says.
fn is_accepted(at: &Origin) -> bool {
    at.source.kind != SourceKind::Native
}

fn mac(fields: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Option<[u8; 6]> {
    let text = fields.string("mac", out)?;
    let mac = text::mac(&text);
    if mac.is_none() {
        out.push(Diagnostic::error(
            "InvalidParameterValue",
            &fields.at.field("mac"),
            format!("{text:?} is no MAC address"),
            "write six bytes in hexadecimal, as in \"02:00:00:00:00:01\"",
        ));
    }
    mac
}

fn timeouts(fields: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Timeouts {
    let known: Vec<_> = TIMEOUTS.iter().map(|(key, ..)| *key).collect();
    let mut timeouts = Timeouts::default();
    if let Some(table) = fields.table("timeouts", &known, out) {
        for &(key, (first, last), field) in TIMEOUTS {
            *field(&mut timeouts) = table.integer(key, (first.into(), last.into()), out);
        }
    }
    timeouts
}

/// Flows of one interface, at the most: what the flow table's numbers have room for.
const MAX_FLOWS: (i64, i64) = (0, u32::MAX as i64 - 1);

fn flow_limits(fields: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> FlowLimits {
    let limits = FlowLimits {
        max_flows: fields.integer("max_flows", MAX_FLOWS, out),
        reserved_flows: fields.integer("reserved_flows", MAX_FLOWS, out),
    };
    if let FlowLimits { max_flows: Some(max), reserved_flows: Some(reserved) } = limits
        && reserved > max
    {
        out.push(Diagnostic::error(
            "InvalidParameterCombination",
            &fields.at.field("reserved_flows"),
            format!("reserved_flows = {reserved}, but the interface may have max_flows = {max}"),
            "reserve at most max_flows",
        ));
    }
    limits
}

fn peering(fields: Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Option<Peering> {
    let id = fields.required("id", out);
    let vpcs: Vec<_> = fields.strings("vpcs", out).into_iter().map(|(_, id)| id).collect();
    let active = fields.boolean("active", out).unwrap_or(true);
    let inter_region = fields.boolean("inter_region", out).unwrap_or(false);
    let Ok(vpcs) = <[String; 2]>::try_from(vpcs) else {
        out.push(Diagnostic::error(
            "InvalidParameterValue",
            &fields.at.field("vpcs"),
            "a peering connects two VPCs",
            "write vpcs = [\"vpc-…\", \"vpc-…\"]",
        ));
        return None;
    };
    let mut ranges = Vec::new();
    for range in fields.tables("cidrs", &["vpc", "cidr"], out) {
        let (vpc, text) = (range.required("vpc", out), range.required("cidr", out));
        ranges.extend(cidr(&range.at.field("cidr"), &text, out).map(|cidr| (vpc, cidr)));
    }
    Some(Peering { id, vpcs, cidrs: ranges, active, inter_region, origin: fields.at })
}

/// An array of ranges; those with host bits are stored canonical, with a warning.
fn cidrs(fields: &Fields<'_, '_>, key: &str, out: &mut Vec<Diagnostic>) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for (at, text) in fields.strings(key, out) {
        ranges.extend(cidr(&at, &text, out));
    }
    ranges
}

/// A range; one with host bits is stored canonical, as AWS does, with a warning (SEMANTICS 2.8).
fn cidr(at: &Origin, text: &str, out: &mut Vec<Diagnostic>) -> Option<IpNet> {
    match text::cidr(text) {
        Ok((range, false)) => Some(range),
        Ok((range, true)) => {
            out.push(Diagnostic::warning(
                "host-bits",
                at,
                format!("{text:?} has host bits set and is stored as \"{range}\""),
                format!("write \"{range}\""),
            ));
            Some(range)
        }
        Err(message) => {
            let mend = "write a range such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
            out.push(Diagnostic::error("InvalidParameterValue", at, message, mend));
            None
        }
    }
}

fn address(at: &Origin, text: &str, out: &mut Vec<Diagnostic>) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        out.push(Diagnostic::error(
            "InvalidParameterValue",
            at,
            format!("{text:?} is no IP address"),
            "write an address such as \"10.0.1.10\" or \"2001:db8::10\"",
        ));
    }
    address
}
