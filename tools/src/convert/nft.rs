//! A policy in the words of nftables: what sgwall does on one interface, done by the kernel. The suite
//! that has the kernel as judge loads the same words.
//!
//! Tracking is the kernel's. What sgwall does not track (6.2) is taken out of it (`notrack`), a flow
//! that a rule has admitted bears a mark, and what bears it passes whatever the rules say by then
//! (6.12). Network ACLs are chains that look at every packet.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_packet::{Direction, protocol};
use sgwall_rules::model::{
    AclAction, IcmpMatch, Interface, L4Match, NetworkAclEntry, Policy, PortRange,
};
use sgwall_rules::oracle;

/// The devices between which the kernel forwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Devices<'a> {
    /// The one behind which the instance is.
    pub(crate) instance: &'a str,
    /// The one towards the network.
    pub(crate) network: &'a str,
}

/// The commands that put `policy` for `interface` in place of the one before, at once.
pub(crate) fn commands(policy: &Policy, interface: &Interface, devices: Devices<'_>) -> String {
    let mut text = "table inet sgwall\ndelete table inet sgwall\ntable inet sgwall {\n".to_owned();
    let mut chain = |name: &str, lines: &[String]| {
        let _ = writeln!(text, "  chain {name} {{");
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
        text += "  }\n";
    };
    for (direction, name) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        chain(&format!("untracked_{name}"), &untracked(policy, interface, direction));
        chain(&format!("acl_{name}"), &acl(policy, interface, direction));
    }
    chain(
        "ingress",
        &[vec!["jump acl_ingress".to_owned()], groups(policy, interface, Direction::Ingress)]
            .concat(),
    );
    chain("egress", &groups(policy, interface, Direction::Egress));
    let Devices { instance, network } = devices;
    let sides = |to: &str| {
        [
            format!("iifname \"{network}\" jump {to}ingress"),
            format!("iifname \"{instance}\" jump {to}egress"),
        ]
    };
    let hook = |line: &str, to: &str| [&[line.to_owned()][..], &sides(to)].concat();
    chain("raw", &hook("type filter hook prerouting priority raw;", "untracked_"));
    chain("forward", &hook("type filter hook forward priority 0; policy drop;", ""));
    text + "}\n"
}

/// Tracking, and failing that the groups' rules. What passes out of the interface goes on to the ACL.
fn groups(policy: &Policy, interface: &Interface, direction: Direction) -> Vec<String> {
    let passes = match direction {
        Direction::Ingress => "accept",
        Direction::Egress => "goto acl_egress",
    };
    let mut lines = vec![format!("ct state != related ct mark 1 {passes}")];
    if policy.icmp_related {
        for (proto, types) in
            [("ipv4 meta l4proto 1", "3, 4, 11, 12"), ("ipv6 meta l4proto 58", "1, 2, 3, 4")]
        {
            lines.push(format!(
                "ct state related ct mark 1 meta nfproto {proto} @th,0,8 {{ {types} }} {passes}"
            ));
        }
    }
    for (name, matches, peer) in rules(policy, interface, direction) {
        let (peer, l4, name) = (remote(direction, &peer), l4(matches), comment(&name));
        lines.push(format!("{peer} {l4}ct mark set 1 {passes} {name}"));
    }
    lines.push("drop".to_owned());
    lines
}

/// The rules of all groups, one for each prefix, with their names.
fn rules(
    policy: &Policy,
    interface: &Interface,
    direction: Direction,
) -> Vec<(String, L4Match, IpNet)> {
    let groups = interface.security_groups.iter();
    let groups = groups.filter_map(|id| policy.security_groups.iter().find(|g| g.id == *id));
    let mut all = Vec::new();
    for group in groups {
        for rule in group.rules(direction) {
            let prefixes = oracle::prefixes(policy, group, &rule.peer);
            let name = format!("{}/{}", group.id, rule.id);
            all.extend(prefixes.into_iter().map(|prefix| (name.clone(), rule.matches, prefix)));
        }
    }
    all
}

/// 6.2: what goes `direction` and is untracked, seen from its own end (a-d) and from the other (e).
fn untracked(policy: &Policy, interface: &Interface, direction: Direction) -> Vec<String> {
    let mut lines = Vec::new();
    for (of, back, port) in
        [(direction, direction.reverse(), "dport"), (direction.reverse(), direction, "sport")]
    {
        for (rule, matches, prefix) in rules(policy, interface, of) {
            if prefix.prefix_len() != 0 {
                continue;
            }
            for (proto, name) in [(protocol::TCP, "tcp"), (protocol::UDP, "udp")] {
                let ports = match matches {
                    L4Match::All => PortRange::ALL,
                    L4Match::Tcp(ports) if proto == protocol::TCP => ports,
                    L4Match::Udp(ports) if proto == protocol::UDP => ports,
                    _ => continue,
                };
                let is_v6 = prefix.addr().is_ipv6();
                let groups = &interface.security_groups;
                if !oracle::all_ports_any(policy, groups, back, is_v6, proto) {
                    continue;
                }
                let family = if is_v6 { "ipv6" } else { "ipv4" };
                // Only a SYN tells who began.
                let not_syn = match (port, name) {
                    ("sport", "tcp") => "tcp flags & (syn | ack | rst | fin) != syn ",
                    _ => "",
                };
                let (PortRange { from, to }, rule) = (ports, comment(&rule));
                lines.push(format!(
                    "meta nfproto {family} {name} {port} {from}-{to} {not_syn}notrack accept {rule}"
                ));
            }
        }
    }
    lines
}

/// The subnet's ACL: traffic inside the subnet is not judged by it.
fn acl(policy: &Policy, interface: &Interface, direction: Direction) -> Vec<String> {
    let allow = match direction {
        Direction::Ingress => "return",
        Direction::Egress => "accept",
    };
    // Without its subnet, its ACL is unknown and lets nothing pass.
    let subnet = policy.subnets.iter().find(|subnet| subnet.id == interface.subnet);
    let Some(subnet) = subnet else { return vec!["drop".to_owned()] };
    let Some(id) = &subnet.network_acl else { return vec![allow.to_owned()] };
    let inside = subnet.cidrs.iter().map(|cidr| format!("{} {allow}", remote(direction, cidr)));
    let mut lines: Vec<String> = inside.collect();
    let acl = policy.network_acls.iter().find(|acl| acl.id == *id);
    let mut entries: Vec<&NetworkAclEntry> =
        acl.map_or(Vec::new(), |acl| acl.entries(direction).iter().collect());
    entries.sort_by_key(|entry| entry.rule_number);
    for entry in entries {
        let verdict = if entry.action == AclAction::Allow { allow } else { "drop" };
        let matches = match (entry.matches, entry.cidr) {
            (L4Match::Icmpv6(_), IpNet::V4(_)) => L4Match::Icmpv6(IcmpMatch::default()),
            (matches, _) => matches,
        };
        let (remote, l4) = (remote(direction, &entry.cidr), l4(matches));
        let name = comment(&format!("{id}/{}", entry.rule_number));
        lines.push(format!("{remote} {l4}{verdict} {name}"));
    }
    lines.push("drop".to_owned());
    lines
}

/// The other end is in `prefix`.
fn remote(direction: Direction, prefix: &IpNet) -> String {
    let end = match direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    match (prefix.addr(), prefix.prefix_len()) {
        (IpAddr::V4(_), 0) => "meta nfproto ipv4".to_owned(),
        (IpAddr::V6(_), 0) => "meta nfproto ipv6".to_owned(),
        (IpAddr::V4(_), _) => format!("ip {end} {prefix}"),
        (IpAddr::V6(_), _) => format!("ip6 {end} {prefix}"),
    }
}

/// Protocol and ports, or type and code, and a space.
fn l4(matches: L4Match) -> String {
    let Some(number) = matches.protocol() else { return String::new() };
    let proto = format!("meta l4proto {number} ");
    match matches {
        L4Match::Tcp(PortRange { from, to }) | L4Match::Udp(PortRange { from, to }) => {
            match (from, to) {
                (0, u16::MAX) => proto,
                (from, to) if from == to => format!("{proto}th dport {from} "),
                (from, to) => format!("{proto}th dport {from}-{to} "),
            }
        }
        L4Match::Icmp(icmp) | L4Match::Icmpv6(icmp) => {
            let kind = icmp.kind.map_or(String::new(), |kind| format!("@th,0,8 {kind} "));
            let code = icmp.code.map_or(String::new(), |code| format!("@th,8,8 {code} "));
            proto + &kind + &code
        }
        _ => proto,
    }
}

/// A rule's name as nftables takes it: no quotes, 127 bytes at the most.
fn comment(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '\'' };
    let name: String = name.chars().map(plain).collect();
    // The end of a Terraform address tells more than its beginning.
    format!("comment \"{}\"", &name[name.len().saturating_sub(120)..])
}
