//! What differs between two policies, as sets of traffic and not as text.
//!
//! Groups, ACLs and interfaces are told by their ids. A rule that is gone and one that is new are
//! taken for the same rule, widened or narrowed, where the traffic of one contains that of the other.
//! References and prefix lists are the addresses that they stand for, so a rule changes, too, when
//! the members of the group that it names do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::lint::acls::passes;
use crate::model::{Direction, Interface, L4Match, Policy, SecurityGroup, SecurityGroupRule};
use crate::oracle::prefixes;
use crate::region::{Block, Region};

/// Everything that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Security groups, by id.
    pub groups: Vec<GroupChange>,
    /// What network ACLs let through, by id and direction.
    pub acls: Vec<AclChange>,
    /// What interfaces let through, all groups and the ACL together.
    pub interfaces: Vec<InterfaceChange>,
}

/// Whether something is new, gone, or there before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// The new policy alone has it.
    Added,
    /// The old policy alone has it.
    Removed,
    /// Both have it.
    Changed,
}

/// A security group that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupChange {
    /// Its id.
    pub group: String,
    /// Whether it is new or gone.
    pub presence: Presence,
    /// Its rules that differ; all of them if it is new or gone.
    pub rules: Vec<RuleChange>,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleFate {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It allows what it allowed and more.
    Widened,
    /// It allows a part of what it allowed.
    Narrowed,
    /// It says the same, and stands for other addresses.
    Members,
}

/// A rule that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// What became of it.
    pub fate: RuleFate,
    /// Its direction.
    pub direction: &'static str,
    /// Its id in the old policy, and what it said.
    pub before: Option<(String, String)>,
    /// The same in the new one.
    pub after: Option<(String, String)>,
    /// What it allows now and did not.
    pub gained: Gains,
    /// What it allowed and does not now.
    pub lost: Gains,
}

/// An ACL that lets other things through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AclChange {
    /// Its id.
    pub acl: String,
    /// Whether it is new or gone.
    pub presence: Presence,
    /// The direction.
    pub direction: &'static str,
    /// What it lets through now and did not.
    pub gained: Gains,
    /// What it let through and does not now.
    pub lost: Gains,
}

/// An interface that lets other things through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceChange {
    /// Its id.
    pub interface: String,
    /// Whether it is new or gone.
    pub presence: Presence,
    /// The direction.
    pub direction: &'static str,
    /// What may open a flow now and might not.
    pub gained: Gains,
    /// What might open a flow and may not now.
    pub lost: Gains,
}

/// A region, which programs see as a list of texts such as `tcp 22 of 10.0.0.0/8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gains(pub Region);

impl Gains {
    /// Its blocks as text.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.clone().tidy().blocks().iter().map(ToString::to_string).collect()
    }
}

impl Serialize for Gains {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.texts().serialize(serializer)
    }
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.acls.is_empty() && self.interfaces.is_empty()
    }
}

/// What differs between two policies.
#[must_use]
pub fn compare(old: &Policy, new: &Policy) -> Comparison {
    Comparison { groups: groups(old, new), acls: acls(old, new), interfaces: interfaces(old, new) }
}

/// Both of an id, in the order of ids.
fn pairs<'a, T>(
    old: &'a [T],
    new: &'a [T],
    id: impl Fn(&'a T) -> &'a str,
) -> BTreeMap<&'a str, (Option<&'a T>, Option<&'a T>)> {
    let mut pairs: BTreeMap<&str, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for one in old {
        pairs.entry(id(one)).or_default().0 = Some(one);
    }
    for one in new {
        pairs.entry(id(one)).or_default().1 = Some(one);
    }
    pairs
}

fn presence<T>(pair: &(Option<T>, Option<T>)) -> Presence {
    match pair {
        (None, _) => Presence::Added,
        (_, None) => Presence::Removed,
        _ => Presence::Changed,
    }
}

fn groups(old: &Policy, new: &Policy) -> Vec<GroupChange> {
    let mut changes = Vec::new();
    for (id, pair) in pairs(&old.security_groups, &new.security_groups, |group| &group.id) {
        let presence = presence(&pair);
        let mut changed = Vec::new();
        for direction in Direction::BOTH {
            let before = stated(old, pair.0, direction);
            let after = stated(new, pair.1, direction);
            rules(direction, before, after, &mut changed);
        }
        if presence != Presence::Changed || !changed.is_empty() {
            changes.push(GroupChange { group: id.to_owned(), presence, rules: changed });
        }
    }
    changes
}

/// A rule with the traffic that it stands for.
struct Stated<'a> {
    rule: &'a SecurityGroupRule,
    region: Region,
}

impl Stated<'_> {
    fn words(&self, direction: Direction) -> (String, String) {
        let to = if direction == Direction::Ingress { "from" } else { "to" };
        let SecurityGroupRule { id, matches, peer, .. } = self.rule;
        (id.clone(), format!("{matches} {to} {peer}"))
    }
}

fn region(policy: &Policy, group: &SecurityGroup, rule: &SecurityGroupRule) -> Region {
    prefixes(policy, group, &rule.peer)
        .into_iter()
        .map(|net| Block::new(rule.matches, net))
        .collect()
}

fn stated<'a>(
    policy: &Policy,
    group: Option<&'a SecurityGroup>,
    direction: Direction,
) -> Vec<Stated<'a>> {
    let of = |group: &'a SecurityGroup| {
        let rules = group.rules(direction).iter();
        rules.map(|rule| Stated { rule, region: region(policy, group, rule) }).collect()
    };
    group.map_or_else(Vec::new, of)
}

/// Rules of a direction that differ.
fn rules(
    direction: Direction,
    mut before: Vec<Stated<'_>>,
    mut after: Vec<Stated<'_>>,
    changes: &mut Vec<RuleChange>,
) {
    let mut note = |fate, old: Option<&Stated<'_>>, new: Option<&Stated<'_>>| {
        let region = |stated: Option<&Stated<'_>>| {
            stated.map_or_else(Region::new, |stated| stated.region.clone())
        };
        changes.push(RuleChange {
            fate,
            direction: direction.as_str(),
            before: old.map(|old| old.words(direction)),
            after: new.map(|new| new.words(direction)),
            gained: Gains(region(new).minus(&region(old))),
            lost: Gains(region(old).minus(&region(new))),
        });
    };
    // Those that say the same.
    before.retain(|old| {
        let same = after.iter().position(|new| new.rule.identity() == old.rule.identity());
        let Some(same) = same else { return true };
        let new = after.swap_remove(same);
        let is_same = new.region.clone().minus(&old.region).is_empty()
            && old.region.clone().minus(&new.region).is_empty();
        if !is_same {
            note(RuleFate::Members, Some(old), Some(&new));
        }
        false
    });
    // Those of which one contains the other.
    before.retain(|old| {
        let is_idle = old.region.is_empty();
        let fate = |new: &Stated<'_>| {
            if is_idle || new.region.is_empty() {
                None
            } else if old.region.clone().minus(&new.region).is_empty() {
                Some(RuleFate::Widened)
            } else if new.region.clone().minus(&old.region).is_empty() {
                Some(RuleFate::Narrowed)
            } else {
                None
            }
        };
        let found = after.iter().enumerate().find_map(|(n, new)| Some((n, fate(new)?)));
        let Some((n, fate)) = found else { return true };
        let new = after.swap_remove(n);
        note(fate, Some(old), Some(&new));
        false
    });
    before.iter().for_each(|old| note(RuleFate::Removed, Some(old), None));
    after.iter().for_each(|new| note(RuleFate::Added, None, Some(new)));
}

fn acls(old: &Policy, new: &Policy) -> Vec<AclChange> {
    let mut changes = Vec::new();
    for (id, pair) in pairs(&old.network_acls, &new.network_acls, |acl| &acl.id) {
        for direction in Direction::BOTH {
            let passes =
                |acl: Option<_>| acl.map_or_else(Region::new, |acl| passes(acl, direction));
            let (before, after) = (passes(pair.0), passes(pair.1));
            let gained = after.clone().minus(&before);
            let lost = before.minus(&after);
            if !gained.is_empty() || !lost.is_empty() {
                changes.push(AclChange {
                    acl: id.to_owned(),
                    presence: presence(&pair),
                    direction: direction.as_str(),
                    gained: Gains(gained),
                    lost: Gains(lost),
                });
            }
        }
    }
    changes
}

fn interfaces(old: &Policy, new: &Policy) -> Vec<InterfaceChange> {
    let mut changes = Vec::new();
    for (id, pair) in pairs(&old.interfaces, &new.interfaces, |interface| &interface.id) {
        for direction in Direction::BOTH {
            let passes = |policy: &Policy, interface: Option<&Interface>| {
                interface.map_or_else(Region::new, |i| admitted(policy, i, direction))
            };
            let (before, after) = (passes(old, pair.0), passes(new, pair.1));
            let gained = after.clone().minus(&before);
            let lost = before.minus(&after);
            let presence = presence(&pair);
            if presence != Presence::Changed || !gained.is_empty() || !lost.is_empty() {
                changes.push(InterfaceChange {
                    interface: id.to_owned(),
                    presence,
                    direction: direction.as_str(),
                    gained: Gains(gained),
                    lost: Gains(lost),
                });
            }
        }
    }
    changes
}

/// What may open a flow on an interface: what its groups allow and the subnet's ACL lets through,
/// which is not asked within the subnet (SEMANTICS 8.1). Exempt services and routes with detours are
/// not looked at.
#[must_use]
pub fn admitted(policy: &Policy, interface: &Interface, direction: Direction) -> Region {
    let ids: BTreeSet<&str> = interface.security_groups.iter().map(String::as_str).collect();
    let groups = policy.security_groups.iter().filter(|group| ids.contains(&group.id[..]));
    let mut allowed = Region::new();
    for group in groups {
        for rule in group.rules(direction) {
            region(policy, group, rule).blocks().iter().for_each(|block| allowed.add(*block));
        }
    }
    let subnet = policy.subnets.iter().find(|subnet| subnet.id == interface.subnet);
    let acl = subnet.and_then(|subnet| {
        let id = subnet.network_acl.as_ref()?;
        policy.network_acls.iter().find(|acl| acl.id == *id)
    });
    let (Some(subnet), Some(acl)) = (subnet, acl) else { return allowed };
    let inside: Region = subnet.cidrs.iter().map(|cidr| Block::new(L4Match::All, *cidr)).collect();
    allowed.intersection(&passes(acl, direction).union(&inside))
}
