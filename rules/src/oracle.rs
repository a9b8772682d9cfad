//! What the policy says, by walking every rule of the model: slow and obvious.
//!
//! It reads the policy as it was written, not its compiled form, so that a fault of compilation
//! cannot hide in both. Tests hold [`crate::compile`] to it.

use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_packet::protocol;

use crate::model::{
    Direction, GroupRef, IcmpMatch, L4Match, NetworkAcl, NetworkAclEntry, Peer, Policy, PortRange,
    SecurityGroup, SecurityGroupRule,
};

/// What rules look at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Which way it goes.
    pub direction: Direction,
    /// The address at the other end.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port, or ICMP type and code: `sgwall_packet::Headers::selector`.
    pub selector: u16,
}

/// The rule that admits `packet` on an interface with `groups`, and whether it does so by a peer
/// that is literally all addresses: the first such rule, else the first that matches at all, in
/// the order of the groups and their rules.
#[must_use]
pub fn admitting_rule<'a>(
    policy: &'a Policy,
    groups: &[String],
    packet: Packet,
) -> Option<(&'a SecurityGroup, &'a SecurityGroupRule, bool)> {
    let rules = || {
        groups.iter().filter_map(|id| group(policy, id)).flat_map(move |group| {
            group.rules(packet.direction).iter().map(move |rule| (group, rule))
        })
    };
    let matching = |only_any: bool| {
        rules().find(|(group, rule)| {
            matches_l4(rule.matches, packet)
                && prefixes(policy, group, &rule.peer)
                    .iter()
                    .any(|p| p.contains(&packet.remote) && (!only_any || p.prefix_len() == 0))
        })
    };
    let any = matching(true).map(|(group, rule)| (group, rule, true));
    any.or_else(|| matching(false).map(|(group, rule)| (group, rule, false)))
}

/// Whether one rule covers every port of `proto` (TCP or UDP) from all addresses of a family
/// (SEMANTICS 6.2c).
#[must_use]
pub fn all_ports_any(
    policy: &Policy,
    groups: &[String],
    direction: Direction,
    ipv6: bool,
    proto: u8,
) -> bool {
    groups.iter().filter_map(|id| group(policy, id)).any(|group| {
        group.rules(direction).iter().any(|rule| {
            let all_ports = match rule.matches {
                L4Match::All => matches!(proto, protocol::TCP | protocol::UDP),
                L4Match::Tcp(ports) => proto == protocol::TCP && ports == PortRange::ALL,
                L4Match::Udp(ports) => proto == protocol::UDP && ports == PortRange::ALL,
                _ => false,
            };
            all_ports
                && prefixes(policy, group, &rule.peer)
                    .iter()
                    .any(|p| p.prefix_len() == 0 && p.addr().is_ipv6() == ipv6)
        })
    })
}

/// The entry of `acl` that decides on `packet`; `None`: the final deny.
#[must_use]
pub fn deciding_entry(acl: &NetworkAcl, packet: Packet) -> Option<&NetworkAclEntry> {
    let matching = acl.entries(packet.direction).iter().filter(|entry| {
        let matches = match (entry.matches, entry.cidr) {
            // SEMANTICS 8.4: with an IPv4 range, all types.
            (L4Match::Icmpv6(_), IpNet::V4(_)) => L4Match::Icmpv6(IcmpMatch::default()),
            (matches, _) => matches,
        };
        entry.cidr.contains(&packet.remote) && matches_l4(matches, packet)
    });
    matching.min_by_key(|entry| entry.rule_number)
}

fn group<'a>(policy: &'a Policy, id: &str) -> Option<&'a SecurityGroup> {
    policy.security_groups.iter().find(|group| group.id == id)
}

fn matches_l4(matches: L4Match, packet: Packet) -> bool {
    let Some(number) = matches.protocol() else { return true };
    let [kind, code] = packet.selector.to_be_bytes();
    number == packet.protocol
        && match matches {
            L4Match::All | L4Match::Other(_) => true,
            L4Match::Tcp(ports) | L4Match::Udp(ports) => {
                ports.from <= packet.selector && packet.selector <= ports.to
            }
            L4Match::Icmp(icmp) | L4Match::Icmpv6(icmp) => match (icmp.kind, icmp.code) {
                (None, None) => true,
                (Some(k), None) => k == kind,
                (Some(k), Some(c)) => k == kind && c == code,
                (None, Some(_)) => false,
            },
        }
}

/// The prefixes that the peer of a rule of `owner` stands for.
#[must_use]
pub fn prefixes(policy: &Policy, owner: &SecurityGroup, peer: &Peer) -> Vec<IpNet> {
    match peer {
        Peer::Cidr(cidr) => vec![*cidr],
        Peer::PrefixList(id) => policy
            .prefix_lists
            .iter()
            .find(|list| list.id == *id)
            .and_then(|list| list.entries.clone())
            .unwrap_or_default(),
        Peer::Group(to) if is_valid(policy, owner, to) => policy
            .interfaces
            .iter()
            .filter(|interface| interface.security_groups.contains(&to.id))
            .flat_map(|interface| interface.addresses.iter().map(|&a| IpNet::from(a)))
            .collect(),
        Peer::Group(_) => Vec::new(),
    }
}

/// SEMANTICS 4.6, 4.7.
fn is_valid(policy: &Policy, owner: &SecurityGroup, to: &GroupRef) -> bool {
    let Some(other) = group(policy, &to.id) else { return false };
    let peered = policy.peerings.iter().any(|p| {
        Some(&p.id) == to.peering.as_ref()
            && p.active
            && !p.inter_region
            && [&owner.vpc, &other.vpc]
                .iter()
                .all(|vpc| vpc.as_ref().is_some_and(|vpc| p.vpcs.contains(vpc)))
    });
    !to.stale && (to.vpc.is_none() || to.vpc == other.vpc) && (owner.vpc == other.vpc || peered)
}
