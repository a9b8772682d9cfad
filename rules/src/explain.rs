//! Why the rules of groups and the entries of ACLs match a packet or do not, field by field.
//!
//! Like [`crate::oracle`] it walks the policy as it was written, not its compiled form, and follows
//! SEMANTICS 2, 4 and 8. It also ranks what nearly matched, and words the smallest rule or entry
//! that would have. It is slow, and for people: no packet waits for it.
//!
//! What it yields is owned and serialisable, so that it may leave the process. It decides nothing:
//! which stage asks, and what follows from the answer, is the dataplane's.

mod peer;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sgwall_packet::protocol;

pub use self::peer::unresolved;
use crate::model::{
    AclAction, Direction, IcmpMatch, L4Match, NetworkAcl, Policy, PortRange, SecurityGroup,
    protocol_name,
};
use crate::oracle::Packet;

/// What a rule and a packet differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Field {
    /// The IP protocol number.
    Protocol,
    /// The destination port.
    Port,
    /// The ICMP type or code.
    Icmp,
    /// The address is of the other family.
    Family,
    /// The address at the other end.
    Address,
    /// The address belongs to no member of the group that the rule refers to.
    Members,
    /// The rule is stale, or what it refers to cannot be resolved (SEMANTICS 4.6, 4.7).
    Reference,
    /// The packet comes or goes through a middlebox or a gateway, where references do not hold
    /// (SEMANTICS 4.5).
    Middlebox,
    /// An earlier entry of the ACL decides.
    Order,
}

impl Field {
    /// A stable word, in the plural where that is how people speak of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Field::Protocol => "protocol",
            Field::Port => "port",
            Field::Icmp => "ICMP type",
            Field::Family => "address family",
            Field::Address => "address",
            Field::Members => "group members",
            Field::Reference => "reference",
            Field::Middlebox => "middlebox",
            Field::Order => "order",
        }
    }
}

/// One difference between a rule and a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mismatch {
    /// In what.
    pub field: Field,
    /// In words: `port 22 is not 443`.
    pub text: String,
    /// How far apart, in bits: those by which a prefix would have to be shortened (IPv6: a quarter
    /// of them); 16 and those of the distance for a port, which names a service; 40 and more for
    /// what cannot be mended by degrees.
    pub distance: u32,
}

impl Mismatch {
    fn new(field: Field, text: String, distance: u32) -> Self {
        Mismatch { field, text, distance }
    }
}

/// A rule or ACL entry that was held against a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Considered {
    /// `sg-web/ingress-1`, `acl-1/100`.
    pub rule: String,
    /// Which list it stands in: `ingress` or `egress`.
    pub direction: String,
    /// What it says: `tcp 443 from 0.0.0.0/0`, `deny all from 10.0.0.0/8`.
    pub text: String,
    /// Its description, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Whether it allows what it matches: false only for entries of an ACL that deny.
    pub allows: bool,
    /// Every difference; none: it matches.
    pub mismatches: Vec<Mismatch>,
}

impl Considered {
    /// Whether it matches the packet.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.mismatches.is_empty()
    }

    /// Fewer differences are nearer, then smaller ones.
    fn distance(&self) -> (usize, u32) {
        (self.mismatches.len(), self.mismatches.iter().map(|m| m.distance).sum())
    }
}

/// Every rule that governs `packet` on an interface with `groups`, in the order of the groups and
/// their rules. `is_direct`: the address's owner itself is at the other end of the last hop, so
/// that references hold (SEMANTICS 4.5).
#[must_use]
pub fn group_rules(
    policy: &Policy,
    groups: &[String],
    packet: Packet,
    is_direct: bool,
) -> Vec<Considered> {
    consider(policy, groups, packet.direction, |group, matches, peer| {
        let mut mismatches = l4_mismatches(matches, packet);
        mismatches.extend(peer::mismatch(policy, group, peer, packet.remote, is_direct));
        mismatches
    })
}

/// Every rule of one direction, held against what 6.2b asks of it (SEMANTICS): that it matches the
/// packet's protocol and port from a peer that is literally all addresses of the family.
#[must_use]
pub fn any_peer_rules(policy: &Policy, groups: &[String], packet: Packet) -> Vec<Considered> {
    consider(policy, groups, packet.direction, |_, matches, peer| {
        let mut mismatches = l4_mismatches(matches, packet);
        mismatches.extend(peer::mismatch_any(policy, peer, packet.remote.is_ipv6()));
        mismatches
    })
}

/// Every rule of one direction, held against what 6.2c asks of it (SEMANTICS): that it alone covers
/// every port of `proto` with all addresses of the family.
#[must_use]
pub fn all_ports_rules(
    policy: &Policy,
    groups: &[String],
    direction: Direction,
    ipv6: bool,
    proto: u8,
) -> Vec<Considered> {
    consider(policy, groups, direction, |_, matches, peer| {
        let mut mismatches = Vec::new();
        match matches {
            L4Match::Tcp(ports) | L4Match::Udp(ports) if matches.protocol() == Some(proto) => {
                if ports != PortRange::ALL {
                    let missing = u32::from(ports.from) + u32::from(u16::MAX - ports.to);
                    let (s, are) = if ports.from == ports.to { ("", "is") } else { ("s", "are") };
                    let text = format!("port{s}{ports} {are} not all ports");
                    mismatches.push(Mismatch::new(Field::Port, text, bits(missing)));
                }
            }
            L4Match::All => {}
            _ => mismatches.push(protocol_mismatch(matches, proto)),
        }
        mismatches.extend(peer::mismatch_any(policy, peer, ipv6));
        mismatches
    })
}

/// The entries of an ACL in the packet's direction, in the order of their numbers. Behind the one
/// that decides, those that match too differ in their place.
#[must_use]
pub fn acl_entries(acl: &NetworkAcl, packet: Packet) -> Vec<Considered> {
    let mut entries: Vec<_> = acl.entries(packet.direction).iter().collect();
    entries.sort_by_key(|entry| entry.rule_number);
    let mut decided = None;
    let consider = |entry: &&crate::model::NetworkAclEntry| {
        let matches = match (entry.matches, entry.cidr) {
            // SEMANTICS 8.4: with an IPv4 range, all types.
            (L4Match::Icmpv6(_), IpNet::V4(_)) => L4Match::Icmpv6(IcmpMatch::default()),
            (matches, _) => matches,
        };
        let mut mismatches = l4_mismatches(matches, packet);
        mismatches.extend(peer::prefix_mismatch(&entry.cidr, packet.remote));
        if mismatches.is_empty() {
            match decided {
                None => decided = Some(entry.rule_number),
                Some(first) => {
                    let text = format!("entry {first} comes first");
                    mismatches.push(Mismatch::new(Field::Order, text, 0));
                }
            }
        }
        let (allows, action) = match entry.action {
            AclAction::Allow => (true, "allow"),
            AclAction::Deny => (false, "deny"),
        };
        let to = preposition(packet.direction);
        Considered {
            rule: format!("{}/{}", acl.id, entry.rule_number),
            direction: packet.direction.as_str().to_owned(),
            text: format!("{action} {} {to} {}", entry.matches, entry.cidr),
            description: None,
            allows,
            mismatches,
        }
    };
    entries.iter().map(consider).collect()
}

/// What would have allowed the packet but for its mismatches, nearest first: fewest differences,
/// then the smallest; ties in the order given.
#[must_use]
pub fn nearest(considered: &[Considered]) -> Vec<&Considered> {
    let mut near: Vec<_> = considered.iter().filter(|c| c.allows && !c.matches()).collect();
    near.sort_by_key(|c| c.distance());
    near
}

/// The smallest rule of a security group that matches the packet, as [`crate::text`] reads it:
/// `ingress tcp 22 from 198.51.100.7/32`.
#[must_use]
pub fn smallest_rule(packet: Packet) -> String {
    let (matches, to) = (smallest_match(packet), preposition(packet.direction));
    format!("{} {matches} {to} {}", packet.direction, IpNet::from(packet.remote))
}

/// The smallest entry that makes an ACL allow the packet, as [`crate::text`] reads it:
/// `ingress 99 allow tcp 22 from 198.51.100.7/32`. Its number is the highest that is free before
/// the entry which decides now. `None` where no number is free there: entries must be renumbered.
#[must_use]
pub fn smallest_entry(acl: &NetworkAcl, packet: Packet) -> Option<String> {
    const LAST: u16 = 32766;
    let entries = acl.entries(packet.direction);
    let used: HashSet<u16> = entries.iter().map(|entry| entry.rule_number).collect();
    let decides = crate::oracle::deciding_entry(acl, packet).map(|entry| entry.rule_number);
    let number = match (decides, used.iter().max()) {
        (Some(first), _) => (1..first).rev().find(|n| !used.contains(n))?,
        (None, None) => 100,
        // Behind all others, at the next round number if there is one.
        (None, Some(&last)) => {
            let round = (last / 10).saturating_add(1).saturating_mul(10);
            if round <= LAST { round } else { (1..=LAST).rev().find(|n| !used.contains(n))? }
        }
    };
    let (matches, to) = (smallest_match(packet), preposition(packet.direction));
    let remote = IpNet::from(packet.remote);
    Some(format!("{} {number} allow {matches} {to} {remote}", packet.direction))
}

/// The protocol with the one port, or type and code, of the packet.
fn smallest_match(packet: Packet) -> L4Match {
    let ports = PortRange { from: packet.selector, to: packet.selector };
    let [kind, code] = packet.selector.to_be_bytes();
    let icmp = IcmpMatch { kind: Some(kind), code: Some(code) };
    match packet.protocol {
        protocol::TCP => L4Match::Tcp(ports),
        protocol::UDP => L4Match::Udp(ports),
        protocol::ICMP => L4Match::Icmp(icmp),
        protocol::ICMPV6 => L4Match::Icmpv6(icmp),
        other => L4Match::Other(other),
    }
}

/// The rules of `groups` in one direction with the mismatches that `find` finds. A group named
/// twice counts once, one that the policy lacks not at all.
fn consider(
    policy: &Policy,
    groups: &[String],
    direction: Direction,
    find: impl Fn(&SecurityGroup, L4Match, &crate::model::Peer) -> Vec<Mismatch>,
) -> Vec<Considered> {
    let mut seen = HashSet::new();
    let known = groups.iter().filter(|id| seen.insert(id.as_str()));
    let known = known.filter_map(|id| peer::group(policy, id));
    let to = preposition(direction);
    let rules =
        known.flat_map(|group| group.rules(direction).iter().map(move |rule| (group, rule)));
    rules
        .map(|(group, rule)| Considered {
            rule: format!("{}/{}", group.id, rule.id),
            direction: direction.as_str().to_owned(),
            text: format!("{} {to} {}", rule.matches, rule.peer),
            description: rule.description.clone(),
            allows: true,
            mismatches: find(group, rule.matches, &rule.peer),
        })
        .collect()
}

/// Protocol, and ports or type and code. Ports are compared between TCP and UDP too: a rule for
/// the right port of the wrong one is nearer.
fn l4_mismatches(matches: L4Match, packet: Packet) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    if matches.protocol().is_some_and(|number| number != packet.protocol) {
        mismatches.push(protocol_mismatch(matches, packet.protocol));
    }
    let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP);
    match matches {
        L4Match::Tcp(ports) | L4Match::Udp(ports) if has_ports => {
            mismatches.extend(port_mismatch(ports, packet.selector));
        }
        L4Match::Icmp(icmp) | L4Match::Icmpv6(icmp)
            if matches.protocol() == Some(packet.protocol) =>
        {
            mismatches.extend(icmp_mismatch(icmp, packet.selector));
        }
        _ => {}
    }
    mismatches
}

/// Between protocols that have ports, or ICMP's two versions, half as far as between others.
fn protocol_mismatch(matches: L4Match, found: u8) -> Mismatch {
    const AKIN: u32 = 40;
    const OTHER: u32 = 80;
    const fn kind(number: u8) -> u8 {
        match number {
            protocol::TCP | protocol::UDP => 1,
            protocol::ICMP | protocol::ICMPV6 => 2,
            _ => 3,
        }
    }
    let number = matches.protocol().unwrap_or(found);
    let text = format!("protocol {} is not {}", protocol_name(found), protocol_name(number));
    let distance = if kind(number) == kind(found) { AKIN } else { OTHER };
    Mismatch::new(Field::Protocol, text, distance)
}

fn port_mismatch(ports: PortRange, found: u16) -> Option<Mismatch> {
    let away = ports.from.saturating_sub(found).max(found.saturating_sub(ports.to));
    let is = if ports.from == ports.to { "not" } else { "not in" };
    (away > 0).then(|| {
        let text = format!("port {found} is {is}{ports}");
        Mismatch::new(Field::Port, text, 16 + bits(away.into()))
    })
}

fn icmp_mismatch(icmp: IcmpMatch, selector: u16) -> Option<Mismatch> {
    const OTHER_CODE: u32 = 16;
    const OTHER_TYPE: u32 = 24;
    let [kind, code] = selector.to_be_bytes();
    let distance = match (icmp.kind, icmp.code) {
        (Some(k), _) if k != kind => OTHER_TYPE,
        (_, Some(c)) if c != code => OTHER_CODE,
        _ => return None,
    };
    let text = format!("type {kind}/{code} is not{icmp}");
    Some(Mismatch::new(Field::Icmp, text, distance))
}

/// Bits that a number has.
const fn bits(n: u32) -> u32 {
    u32::BITS - n.leading_zeros()
}

const fn preposition(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// How many of `considered` differ in which fields, most first: for those not listed one by one.
#[must_use]
pub fn differing_fields<'a>(
    considered: impl IntoIterator<Item = &'a Considered>,
) -> Vec<(Field, usize)> {
    let mut counts: Vec<(Field, usize)> = Vec::new();
    for field in considered.into_iter().flat_map(|c| c.mismatches.iter().map(|m| m.field)) {
        match counts.iter_mut().find(|(known, _)| *known == field) {
            Some((_, count)) => *count += 1,
            None => counts.push((field, 1)),
        }
    }
    counts.sort_by_key(|&(field, count)| (Reverse(count), field));
    counts
}

/// Whether `addr` is of the family of `net`.
fn same_family(net: &IpNet, addr: IpAddr) -> bool {
    net.addr().is_ipv4() == addr.is_ipv4()
}
