//! Findings about network ACLs: entries that never decide, and what ACLs keep from the groups'
//! rules and their answers.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv6Net};

use super::{Code, Context, Lint, of_prefixes, opposite, preposition, some};
use crate::model::{
    AclAction, Direction, IcmpMatch, L4Match, NetworkAcl, NetworkAclEntry, Policy, PortRange,
};
use crate::region::{Block, Region};

/// Ports that clients choose (AWS, "Network ACLs", "Ephemeral ports").
const EPHEMERAL: PortRange = PortRange { from: 1024, to: u16::MAX };

/// What an entry matches (SEMANTICS 8.4: ICMPv6 with an IPv4 range has all types).
fn block(entry: &NetworkAclEntry) -> Block {
    let matches = match (entry.matches, entry.cidr) {
        (L4Match::Icmpv6(_), IpNet::V4(_)) => L4Match::Icmpv6(IcmpMatch::default()),
        (matches, _) => matches,
    };
    Block::new(matches, entry.cidr)
}

fn in_order(acl: &NetworkAcl, direction: Direction) -> Vec<&NetworkAclEntry> {
    let mut entries: Vec<_> = acl.entries(direction).iter().collect();
    entries.sort_by_key(|entry| entry.rule_number);
    entries
}

/// What an ACL lets through.
pub(crate) fn passes(acl: &NetworkAcl, direction: Direction) -> Region {
    // From the last to the first: an earlier entry has its way.
    let mut region = Region::new();
    for entry in in_order(acl, direction).into_iter().rev() {
        match entry.action {
            AclAction::Allow => region.add(block(entry)),
            AclAction::Deny => region.remove(&block(entry)),
        }
    }
    region
}

/// Entries all of whose traffic earlier ones decide.
pub(super) fn shadowed(policy: &Policy, found: &mut Vec<Lint>) {
    for acl in &policy.network_acls {
        for direction in Direction::BOTH {
            let mut earlier: Vec<&NetworkAclEntry> = Vec::new();
            for entry in in_order(acl, direction) {
                let mut left = Region::from(block(entry));
                let mut by = Vec::new();
                for other in &earlier {
                    let before = left.clone();
                    left.remove(&block(other));
                    if left != before {
                        by.push(*other);
                    }
                }
                if left.is_empty() {
                    let changes = by.iter().any(|other| other.action != entry.action);
                    let numbers: Vec<_> = by.iter().map(|e| e.rule_number.to_string()).collect();
                    let numbers = numbers.join(", ");
                    let word = if by.len() == 1 { "entry" } else { "entries" };
                    found.push(Lint {
                        code: Code::AclEntryShadowed,
                        subject: format!("{}/{}", acl.id, entry.rule_number),
                        origin: Some(entry.origin.clone()),
                        message: format!(
                            "{direction} {} {} {} never decides: {word} {numbers} before it \
                             cover{} all of it",
                            entry.matches,
                            preposition(direction),
                            entry.cidr,
                            if by.len() == 1 { "s" } else { "" },
                        ),
                        mend: match changes {
                            true => format!(
                                "give it a number below {}, or remove it",
                                by[0].rule_number
                            ),
                            false => "remove it".to_owned(),
                        },
                    });
                }
                earlier.push(entry);
            }
        }
    }
}

/// What the ACL of an interface's subnet keeps from the rules of its groups.
pub(super) fn against_groups(context: &Context<'_>, found: &mut Vec<Lint>) {
    let policy = context.policy;
    // By subnet and group, so that each is told of once.
    let mut pairs = BTreeSet::new();
    for interface in &policy.interfaces {
        for group in context.groups_of(interface) {
            pairs.insert((&interface.subnet[..], &group.id[..]));
        }
    }
    for (subnet, group) in pairs {
        let Some(subnet) = policy.subnets.iter().find(|known| known.id == subnet) else { continue };
        let acl = subnet.network_acl.as_deref().and_then(|acl| context.acls.get(acl));
        let Some((acl, passes)) = acl else { continue };
        // Within a subnet no ACL is asked (SEMANTICS 8.1).
        let inside = of_prefixes(subnet.cidrs.iter().copied());
        // Where a family has no addresses its rules are idle, and the ACL is not at fault.
        let has_ipv6 = subnet.cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_)));
        let absent = match has_ipv6 {
            true => Region::new(),
            false => Block::new(L4Match::All, IpNet::V6(Ipv6Net::default())).into(),
        };
        let group = context.groups[group];
        for (direction, (there, back)) in
            Direction::BOTH.into_iter().zip([(&passes[0], &passes[1]), (&passes[1], &passes[0])])
        {
            for rule in group.rules(direction) {
                let wanted =
                    context.region(group, rule.matches, &rule.peer).minus(&inside).minus(&absent);
                let arrives = wanted.intersection(there);
                let lint = |code, message, mend| Lint {
                    code,
                    subject: format!("{}/{}", group.id, rule.id),
                    origin: Some(rule.origin.clone()),
                    message,
                    mend,
                };
                let text = format!(
                    "{direction} {} {} {}",
                    rule.matches,
                    preposition(direction),
                    rule.peer
                );
                if !wanted.is_empty() && arrives.is_empty() {
                    found.push(lint(
                        Code::AclBlocksRule,
                        format!("{text}: {} of {} refuses all of it", acl.id, subnet.id),
                        format!("allow it in {}, or remove the rule", acl.id),
                    ));
                    continue;
                }
                let (L4Match::Tcp(_) | L4Match::Udp(_) | L4Match::All) = rule.matches else {
                    continue;
                };
                // Whom an entry refuses altogether is not meant to be reached.
                let refused = refused_altogether(acl, opposite(direction));
                let missing = answers(&arrives, rule.matches).minus(back).minus(&refused);
                if !missing.is_empty() {
                    let way = opposite(direction);
                    found.push(lint(
                        Code::AclBlocksReturn,
                        format!(
                            "{text}: {} of {} refuses answers, {way} {}",
                            acl.id,
                            subnet.id,
                            some(&missing)
                        ),
                        format!(
                            "add an {way} entry to {} that allows ports 1024-65535 {} these \
                             addresses",
                            acl.id,
                            preposition(way)
                        ),
                    ));
                }
            }
        }
    }
}

/// What entries deny whatever the protocol.
fn refused_altogether(acl: &NetworkAcl, direction: Direction) -> Region {
    let entries = acl.entries(direction).iter();
    let all = entries.filter(|e| e.action == AclAction::Deny && e.matches == L4Match::All);
    all.map(block).collect()
}

/// The answers to the TCP and UDP packets of a region: to its addresses, and the ports that clients
/// choose.
fn answers(region: &Region, matches: L4Match) -> Region {
    let protocols: &[fn(PortRange) -> L4Match] = match matches {
        L4Match::Tcp(_) => &[L4Match::Tcp],
        L4Match::Udp(_) => &[L4Match::Udp],
        _ => &[L4Match::Tcp, L4Match::Udp],
    };
    let prefixes: Vec<_> = region.blocks().iter().flat_map(Block::prefixes).collect();
    let blocks =
        protocols.iter().flat_map(|of| prefixes.iter().map(|net| Block::new(of(EPHEMERAL), *net)));
    blocks.collect()
}
