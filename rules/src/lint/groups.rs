//! Findings about security groups and their rules.

use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;
use sgwall_packet::protocol;

use super::{Code, Context, Lint, of_prefixes, opposite, preposition};
use crate::model::{Direction, L4Match, Peer, Policy, PortRange, SecurityGroup, SecurityGroupRule};
use crate::oracle::{all_ports_any, prefixes};
use crate::region::{Block, Region};
use crate::validate::group_weight;

/// Services that the world should not reach, by TCP port.
const ADMIN: [(u16, &str); 16] = [
    (22, "SSH"),
    (23, "Telnet"),
    (135, "Windows RPC"),
    (445, "SMB"),
    (1433, "SQL Server"),
    (1521, "Oracle"),
    (2375, "Docker"),
    (3306, "MySQL"),
    (3389, "RDP"),
    (5432, "PostgreSQL"),
    (5900, "VNC"),
    (5985, "WinRM"),
    (6379, "Redis"),
    (9200, "Elasticsearch"),
    (11211, "memcached"),
    (27017, "MongoDB"),
];

fn subject(group: &SecurityGroup, rule: &SecurityGroupRule) -> String {
    format!("{}/{}", group.id, rule.id)
}

fn text(rule: &SecurityGroupRule, direction: Direction) -> String {
    format!("{direction} {} {} {}", rule.matches, preposition(direction), rule.peer)
}

fn is_everywhere(context: &Context<'_>, group: &SecurityGroup, peer: &Peer) -> bool {
    prefixes(context.policy, group, peer).iter().any(|net| net.prefix_len() == 0)
}

/// Rules that let the world to what it should not reach.
pub(super) fn open(context: &Context<'_>, found: &mut Vec<Lint>) {
    for group in &context.policy.security_groups {
        for rule in &group.ingress {
            if !is_everywhere(context, group, &rule.peer) {
                continue;
            }
            let lint = |code, message| Lint {
                code,
                subject: subject(group, rule),
                origin: Some(rule.origin.clone()),
                message,
                mend: "name the addresses or the group that need it".to_owned(),
            };
            let text = text(rule, Direction::Ingress);
            match rule.matches {
                L4Match::All => {
                    found.push(lint(
                        Code::OpenToAll,
                        format!("{text} lets everybody to every port"),
                    ));
                }
                L4Match::Tcp(PortRange { from, to }) => {
                    let open = ADMIN.iter().filter(|(port, _)| from <= *port && *port <= to);
                    let names: Vec<_> =
                        open.map(|(port, name)| format!("{name} ({port})")).collect();
                    if !names.is_empty() {
                        let message = format!("{text} lets everybody to {}", names.join(", "));
                        found.push(lint(Code::OpenAdminPort, message));
                    }
                }
                _ => {}
            }
        }
    }
}

/// References to a group that has no rule for this traffic itself.
pub(super) fn one_way(context: &Context<'_>, found: &mut Vec<Lint>) {
    let policy = context.policy;
    for group in &policy.security_groups {
        let own = context.members(&group.id);
        if own.is_empty() {
            continue;
        }
        let own = of_prefixes(own.into_iter().map(IpNet::from));
        for direction in Direction::BOTH {
            for rule in group.rules(direction) {
                let Peer::Group(to) = &rule.peer else { continue };
                if prefixes(policy, group, &rule.peer).is_empty() {
                    continue;
                }
                // What the other side must allow: the same protocol and ports, with our members.
                let wanted: Region = own
                    .blocks()
                    .iter()
                    .flat_map(Block::prefixes)
                    .map(|net| Block::new(rule.matches, net))
                    .collect();
                let others =
                    policy.interfaces.iter().filter(|i| i.security_groups.contains(&to.id));
                let allows = others.flat_map(|other| context.groups_of(other)).any(|theirs| {
                    theirs.rules(opposite(direction)).iter().any(|rule| {
                        let region = context.region(theirs, rule.matches, &rule.peer);
                        !region.intersection(&wanted).is_empty()
                    })
                });
                if !allows {
                    let (verb, way) = match direction {
                        Direction::Ingress => ("send", "egress"),
                        Direction::Egress => ("take", "ingress"),
                    };
                    found.push(Lint {
                        code: Code::OneWayReference,
                        subject: subject(group, rule),
                        origin: Some(rule.origin.clone()),
                        message: format!(
                            "{}: no interface with {} may {verb} it",
                            text(rule, direction),
                            to.id
                        ),
                        mend: format!(
                            "add `{way} {} {} {}` to {}, or remove the rule",
                            rule.matches,
                            preposition(opposite(direction)),
                            group.id,
                            to.id
                        ),
                    });
                }
            }
        }
    }
}

/// Rules that others of their group cover.
pub(super) fn redundant(context: &Context<'_>, found: &mut Vec<Lint>) {
    for group in &context.policy.security_groups {
        for direction in Direction::BOTH {
            let rules = group.rules(direction);
            let regions: Vec<_> =
                rules.iter().map(|rule| context.region(group, rule.matches, &rule.peer)).collect();
            let mut is_redundant = vec![false; rules.len()];
            // From the last: of two that are the same the first stays.
            for index in (0..rules.len()).rev() {
                // A reference means whoever is a member tomorrow.
                if matches!(rules[index].peer, Peer::Group(_)) || regions[index].is_empty() {
                    continue;
                }
                let mut left = regions[index].clone();
                let mut by = Vec::new();
                for other in (0..rules.len()).filter(|other| *other != index) {
                    let counts =
                        !is_redundant[other] && !matches!(rules[other].peer, Peer::Group(_));
                    if !counts || left.intersection(&regions[other]).is_empty() {
                        continue;
                    }
                    left = left.minus(&regions[other]);
                    by.push(&rules[other].id[..]);
                    if left.is_empty() {
                        break;
                    }
                }
                if left.is_empty() {
                    is_redundant[index] = true;
                    found.push(Lint {
                        code: Code::RuleRedundant,
                        subject: subject(group, &rules[index]),
                        origin: Some(rules[index].origin.clone()),
                        message: format!(
                            "{} is allowed by {} already",
                            text(&rules[index], direction),
                            by.join(", ")
                        ),
                        mend: "remove it".to_owned(),
                    });
                }
            }
        }
    }
}

/// Groups that nobody has and nothing refers to.
pub(super) fn unused_groups(policy: &Policy, found: &mut Vec<Lint>) {
    if policy.interfaces.is_empty() && policy.classic_instances.is_empty() {
        return;
    }
    let mut used: HashSet<&str> = HashSet::new();
    for interface in &policy.interfaces {
        used.extend(interface.security_groups.iter().map(String::as_str));
    }
    for instance in &policy.classic_instances {
        used.extend(instance.security_groups.iter().map(String::as_str));
        let linked = instance.link.iter().flat_map(|link| &link.security_groups);
        used.extend(linked.map(String::as_str));
    }
    for group in &policy.security_groups {
        for rule in Direction::BOTH.iter().flat_map(|direction| group.rules(*direction)) {
            if let Peer::Group(to) = &rule.peer
                && to.id != group.id
            {
                used.insert(&to.id);
            }
        }
    }
    for group in &policy.security_groups {
        // The default group cannot be deleted.
        if !used.contains(&group.id[..]) && !group.is_default {
            found.push(Lint {
                code: Code::GroupUnused,
                subject: group.id.clone(),
                origin: Some(group.origin.clone()),
                message: format!(
                    "{} ({}) is on no interface, and no rule names it",
                    group.id, group.name
                ),
                mend: "attach it, or remove it".to_owned(),
            });
        }
    }
}

/// Rules whose flows are not tracked (SEMANTICS 6.2, 6.7).
pub(super) fn untracked(context: &Context<'_>, found: &mut Vec<Lint>) {
    let policy = context.policy;
    let mut told = BTreeSet::new();
    for interface in &policy.interfaces {
        for group in context.groups_of(interface) {
            for direction in Direction::BOTH {
                for rule in group.rules(direction) {
                    let proto = match rule.matches {
                        L4Match::Tcp(_) => protocol::TCP,
                        L4Match::Udp(_) => protocol::UDP,
                        _ => continue,
                    };
                    let families: Vec<bool> = prefixes(policy, group, &rule.peer)
                        .iter()
                        .filter(|net| net.prefix_len() == 0)
                        .map(|net| net.addr().is_ipv6())
                        .collect();
                    let answers = opposite(direction);
                    let is_untracked = families.iter().any(|&ipv6| {
                        all_ports_any(policy, &interface.security_groups, answers, ipv6, proto)
                    });
                    if is_untracked && told.insert(subject(group, rule)) {
                        found.push(Lint {
                            code: Code::UntrackedFlows,
                            subject: subject(group, rule),
                            origin: Some(rule.origin.clone()),
                            message: format!(
                                "{}: its flows are not tracked on {}, where {answers} is open to \
                                 everywhere",
                                text(rule, direction),
                                interface.id
                            ),
                            mend: format!(
                                "nothing, if that is meant; to have them tracked, narrow the rule \
                                 or the {answers} rule for all addresses"
                            ),
                        });
                    }
                }
            }
        }
    }
}

/// Limits of which four fifths are used.
pub(super) fn limits(policy: &Policy, found: &mut Vec<Lint>) {
    let limits = &policy.limits;
    let is_near = |have: u32, limit: u32| have * 5 >= limit * 4 && have <= limit && limit > 0;
    let mut near = |subject: &str, origin, have: u32, limit: u32, what: &str| {
        if is_near(have, limit) {
            found.push(Lint {
                code: Code::LimitNear,
                subject: subject.to_owned(),
                origin: Some(origin),
                message: format!("{subject} has {have} {what}, and {limit} is the limit"),
                mend: "merge what can be merged, or have AWS raise the limit".to_owned(),
            });
        }
    };
    for group in &policy.security_groups {
        for direction in Direction::BOTH {
            let limit = match group.vpc {
                Some(_) => limits.rules_per_group,
                None => limits.rules_per_classic_group,
            };
            let have = group_weight(policy, group, direction);
            let what = format!("{direction} rules (a prefix list counts as its max_entries)");
            near(&group.id, group.origin.clone(), have, limit, &what);
        }
    }
    for interface in &policy.interfaces {
        let have = interface.security_groups.len() as u32;
        // Of one or two groups nobody wants to hear.
        if have >= 3 {
            let (id, origin) = (&interface.id, interface.origin.clone());
            near(id, origin, have, limits.groups_per_interface, "security groups");
        }
    }
    for acl in &policy.network_acls {
        for direction in Direction::BOTH {
            let have = acl.entries(direction).len() as u32;
            let what = format!("{direction} entries");
            near(&acl.id, acl.origin.clone(), have, limits.entries_per_acl, &what);
        }
    }
}
