//! Security groups: names, descriptions, references, duplicates and limits.

use std::collections::HashMap;

use ipnet::IpNet;

use super::{Index, Report, field};
use crate::diagnostic::{Origin, SourceKind};
use crate::model::{
    Compat, Direction, GroupRef, L4Match, Peer, PeerIdentity, Peering, Policy, PrefixList,
    SecurityGroup, SecurityGroupRule,
};

/// What AWS counts a managed list of its own as, by the end of its name (SEMANTICS 1.6).
const MANAGED_WEIGHTS: &[(&str, u32)] = &[
    (".s3", 1),
    (".dynamodb", 1),
    (".cloudfront.origin-facing", 55),
    (".vpc-lattice", 10),
    (".ipv6.vpc-lattice", 10),
    (".groundstation", 5),
];

pub(super) fn check(policy: &Policy, index: &Index<'_>, report: &mut Report<'_>) {
    let mut names: HashMap<(Option<&str>, &str), &SecurityGroup> = HashMap::new();
    let mut counts: HashMap<Option<&str>, u32> = HashMap::new();
    for group in &policy.security_groups {
        check_names(group, report);
        if let Some(first) = names.insert((group.vpc.as_deref(), &group.name), group)
            && first.id != group.id
        {
            report.fault(
                "InvalidGroup.Duplicate",
                &field(&group.origin, "name"),
                format!("the name {:?} belongs to {} already", group.name, first.id),
                "give each group of a VPC its own name",
            );
        }
        // Today AWS counts the groups of all VPCs of a Region together, and a policy is one
        // account's view of one Region (SEMANTICS 1.5).
        let counted = match policy.compat {
            Compat::Ec2_2017 => group.vpc.as_deref(),
            Compat::Current => group.vpc.as_deref().map(|_| "all VPCs"),
        };
        let count = counts.entry(counted).or_default();
        *count += 1;
        let (limit, place, key) = match (&group.vpc, policy.compat) {
            (None, _) => (policy.limits.classic_groups, "EC2-Classic", "classic_groups"),
            (_, Compat::Ec2_2017) => (policy.limits.groups_per_vpc, "one VPC", "groups_per_vpc"),
            (_, Compat::Current) => (policy.limits.groups_per_vpc, "one Region", "groups_per_vpc"),
        };
        if report.is_above(*count, limit) {
            report.fault(
                "SecurityGroupLimitExceeded",
                &group.origin,
                format!("more than {limit} groups in {place}"),
                format!("merge groups, or raise {key} in [limits]"),
            );
        }
        if let Some(vpc) = group.vpc.as_deref().filter(|vpc| !index.vpcs.contains_key(vpc)) {
            let at = field(&group.origin, "vpc");
            report.missing("InvalidVpcID.NotFound", &at, ("VPC", vpc), "its ranges are unknown");
        }
        for direction in Direction::BOTH {
            check_rules(group, direction, policy, index, report);
        }
    }
}

fn check_names(group: &SecurityGroup, report: &mut Report<'_>) {
    let at = &group.origin;
    // What AWS named, AWS allowed; EC2-Classic had another character set (SEMANTICS 1.8).
    if at.source.kind != SourceKind::Native {
        return;
    }
    if !group.id.starts_with("sg-") {
        report.fault(
            "InvalidGroupId.Malformed",
            &field(at, "id"),
            format!("{:?} is no id of a security group", group.id),
            "begin it with \"sg-\"",
        );
    }
    if group.name == "default" && !group.is_default {
        report.fault(
            "InvalidGroup.Reserved",
            &field(at, "name"),
            "the name \"default\" belongs to the VPC's default group",
            "choose another name, or set default = true",
        );
    }
    if group.name.starts_with("sg-") && group.name != group.id {
        report.fault(
            "InvalidParameterValue",
            &field(at, "name"),
            format!("the name {:?} begins like an id", group.name),
            "a name may not begin with \"sg-\"",
        );
    }
    for (name, text) in [("name", &group.name), ("description", &group.description)] {
        check_text(&field(at, name), text, true, group.vpc.is_none(), report);
    }
}

/// At most 255 characters, of those that AWS allows; `&` not in the description of a rule. In
/// EC2-Classic all of ASCII is allowed.
fn check_text(at: &Origin, text: &str, ampersand: bool, is_classic: bool, report: &mut Report<'_>) {
    let allowed = |c: char| {
        c.is_ascii_alphanumeric()
            || " ._-:/()#,@[]+=;{}!$*".contains(c)
            || (ampersand && c == '&')
            || (is_classic && c.is_ascii() && !c.is_ascii_control())
    };
    let len = text.chars().count();
    if len > 255 {
        report.fault(
            "InvalidParameterValue",
            at,
            format!("{len} characters long, the limit is 255"),
            "shorten it",
        );
    }
    if let Some(c) = text.chars().find(|&c| !allowed(c)) {
        report.fault(
            "InvalidParameterValue",
            at,
            format!("the character {c:?} in {text:?} is not allowed"),
            format!(
                "use a-z, A-Z, 0-9, spaces and ._-:/()#,@[]+={};{{}}!$*",
                if ampersand { "&" } else { "" }
            ),
        );
    }
}

fn check_rules(
    group: &SecurityGroup,
    direction: Direction,
    policy: &Policy,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    let rules = group.rules(direction);
    let mut seen: HashMap<(L4Match, PeerIdentity<'_>), &SecurityGroupRule> = HashMap::new();
    for rule in rules {
        if let Some(first) = seen.get(&rule.identity()) {
            report.fault(
                "InvalidPermission.Duplicate",
                &rule.origin,
                format!("the same rule stands at {} already", first.origin),
                "remove one; a description does not tell rules apart",
            );
        } else {
            seen.insert(rule.identity(), rule);
        }
        if let Some(text) = &rule.description
            && rule.origin.source.kind == SourceKind::Native
        {
            let at = field(&rule.origin, "description");
            check_text(&at, text, false, group.vpc.is_none(), report);
        }
        check_peer(group, rule, index, report);
    }
    let list = |id: &str| index.prefix_lists.get(id).copied();
    let (have, family) = weight(rules, policy.compat, list);
    let (limit, key) = match group.vpc {
        Some(_) => (policy.limits.rules_per_group, "rules_per_group"),
        None => (policy.limits.rules_per_classic_group, "rules_per_classic_group"),
    };
    if have > limit {
        report.fault(
            "RulesPerSecurityGroupLimitExceeded",
            &field(&group.origin, direction.as_str()),
            format!("{} has {have} {direction} rules{family}, the limit is {limit}", group.id),
            format!(
                "split the group, or raise {key} in [limits] (a prefix list counts as its \
                 max_entries)"
            ),
        );
    }
}

fn check_peer(
    group: &SecurityGroup,
    rule: &SecurityGroupRule,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    let at = &rule.origin;
    match &rule.peer {
        Peer::Cidr(cidr) => {
            let (is, means) = match (rule.matches, cidr) {
                (L4Match::Icmp(_), IpNet::V6(_)) => ("icmp with an IPv6 range", "icmpv6"),
                (L4Match::Icmpv6(_), IpNet::V4(_)) => ("icmpv6 with an IPv4 range", "icmp"),
                _ => return,
            };
            report.warn(
                "wrong-family",
                at,
                format!("{is} matches nothing that is usual"),
                format!("write protocol = \"{means}\", or a range of the other family"),
            );
        }
        Peer::PrefixList(id) => {
            let what = match index.prefix_lists.get(id.as_str()) {
                Some(list) if list.entries.is_some() => return,
                Some(_) => "content of the prefix list",
                None => "prefix list",
            };
            report.missing(
                "InvalidPrefixListID.NotFound",
                &field(at, "prefix_list"),
                (what, id),
                "rules that name it match nothing",
            );
        }
        Peer::Group(to) => check_reference(group, to, &field(at, "group"), index, report),
    }
}

/// A reference leads to a group of the same VPC, or of a VPC that an active peering in the same
/// Region connects (SEMANTICS 4.6, 4.7).
fn check_reference(
    group: &SecurityGroup,
    to: &GroupRef,
    at: &Origin,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    if to.stale {
        report.warn(
            "stale-reference",
            at,
            format!("the peering to {} is gone: the rule is stale and matches nothing", to.id),
            "remove the rule",
        );
        return;
    }
    let Some(other) = index.groups.get(to.id.as_str()) else {
        report.missing(
            "InvalidGroup.NotFound",
            at,
            ("security group", &to.id),
            "rules that name it match nothing",
        );
        return;
    };
    if other.vpc == group.vpc {
        return;
    }
    let Some(id) = &to.peering else {
        report.fault(
            "InvalidGroup.NotFound",
            at,
            format!("{} belongs to another VPC", to.id),
            "name the peering that leads there: peering = \"pcx-…\"",
        );
        return;
    };
    let leads_there = |peering: &Peering| match (&group.vpc, &other.vpc) {
        (Some(ours), Some(theirs)) => peering.connects(ours, theirs),
        _ => false,
    };
    match index.peerings.get(id.as_str()) {
        None => report.missing(
            "InvalidVpcPeeringConnectionID.NotFound",
            at,
            ("peering", id),
            "references through it match nothing",
        ),
        Some(peering) if !leads_there(peering) => {
            report.fault(
                "InvalidGroup.NotFound",
                at,
                format!("{id} does not lead to the VPC of {}", to.id),
                "name the peering that leads there",
            );
        }
        Some(peering) if peering.inter_region => report.fault(
            "InvalidGroup.NotFound",
            at,
            format!("{id} crosses Regions, where groups cannot be referred to"),
            "name the other VPC's address range instead",
        ),
        Some(peering) if !peering.active => report.warn(
            "stale-reference",
            at,
            format!("{id} is not active: the rule is stale and matches nothing"),
            "remove the rule, or activate the peering",
        ),
        Some(_) => {}
    }
}

/// What a group's rules of one direction count against the limit.
pub(crate) fn group_weight(policy: &Policy, group: &SecurityGroup, direction: Direction) -> u32 {
    let list = |id: &str| policy.prefix_lists.iter().find(|list| list.id == id);
    weight(group.rules(direction), policy.compat, list).0
}

/// What rules count together, and of which family that is where families count apart.
fn weight<'a>(
    rules: &[SecurityGroupRule],
    compat: Compat,
    list: impl Fn(&str) -> Option<&'a PrefixList>,
) -> (u32, &'static str) {
    let mut weight = [0u32; 2];
    for rule in rules {
        let [v4, v6] = rule_weight(rule, compat, &list);
        weight = [weight[0].saturating_add(v4), weight[1].saturating_add(v6)];
    }
    match compat {
        Compat::Ec2_2017 => (weight[0].saturating_add(weight[1]), ""),
        Compat::Current if weight[0] >= weight[1] => (weight[0], " of IPv4"),
        Compat::Current => (weight[1], " of IPv6"),
    }
}

/// What a rule counts against the limits, for IPv4 and IPv6 (SEMANTICS 1.6). Under `ec2-2017`
/// there is one count, so a reference to a group counts once.
fn rule_weight<'a>(
    rule: &SecurityGroupRule,
    compat: Compat,
    list: &impl Fn(&str) -> Option<&'a PrefixList>,
) -> [u32; 2] {
    match &rule.peer {
        Peer::Cidr(IpNet::V4(_)) => [1, 0],
        Peer::Cidr(IpNet::V6(_)) => [0, 1],
        Peer::Group(_) => [1, u32::from(compat == Compat::Current)],
        Peer::PrefixList(id) => match list(id) {
            Some(list) if list_is_v6(list) => [0, list_weight(list)],
            Some(list) => [list_weight(list), 0],
            None => [1, 0],
        },
    }
}

fn list_is_v6(list: &PrefixList) -> bool {
    list.entries.as_ref().is_some_and(|e| matches!(e.first(), Some(IpNet::V6(_))))
}

fn list_weight(list: &PrefixList) -> u32 {
    let managed = list.name.as_deref().filter(|name| name.starts_with("com.amazonaws."));
    let known =
        managed.and_then(|name| MANAGED_WEIGHTS.iter().find(|(end, _)| name.ends_with(end)));
    match known {
        Some(&(_, weight)) => weight,
        None => {
            list.max_entries.unwrap_or_else(|| list.entries.as_ref().map_or(1, |e| e.len() as u32))
        }
    }
}
