//! Random sequences of changes of groups: they keep the policy valid, and say of every call what a
//! naive model says, which keeps the rules of each group as lines of text.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sgwall_rules::edit::{self, *};
use sgwall_rules::model::{Compat, Direction, Policy};

use crate::{is_sound, new_group, rules, world};

/// Protocol and ports as a call states them, and as they are printed.
const L4: &[(&str, &str)] = &[
    ("tcp 22-22", "tcp 22"),
    ("6 22-22", "tcp 22"),
    ("17 0-65535", "udp"),
    ("udp 0-65535", "udp"),
    ("icmp 8/-1", "icmp 8"),
    ("-1 1-2", "all"),
    ("47 1-2", "proto 47"),
];

/// Peers likewise.
const PEERS: &[(&str, &str)] = &[
    ("10.1.2.3/8", "10.0.0.0/8"),
    ("10.0.0.0/8", "10.0.0.0/8"),
    ("203.0.113.1/32", "203.0.113.1/32"),
    ("::/0", "::/0"),
    ("pl-20", "pl-20"),
    ("sg-0", "sg-0"),
    ("sg-1", "sg-1"),
    ("sg-2", "sg-2"),
];

/// Weight of the rules of a direction.
const LIMIT: u32 = 24;

const GROUPS: [&str; 3] = ["sg-0", "sg-1", "sg-2"];

#[derive(Clone, Debug)]
enum Change {
    Create,
    Delete,
    Authorize(Direction, Vec<(usize, usize)>),
    Revoke(Direction, Vec<(usize, usize)>),
    Modify(Direction, usize, (usize, usize)),
}

fn change() -> impl Strategy<Value = (usize, Change)> {
    let rule = || (0..L4.len(), 0..PEERS.len());
    let some = || proptest::collection::vec(rule(), 1..4);
    let direction = || any::<bool>().prop_map(|is_in| Direction::BOTH[usize::from(is_in)]);
    let change = prop_oneof![
        2 => Just(Change::Create),
        1 => Just(Change::Delete),
        8 => (direction(), some()).prop_map(|(d, rules)| Change::Authorize(d, rules)),
        5 => (direction(), some()).prop_map(|(d, rules)| Change::Revoke(d, rules)),
        2 => (direction(), 0..4usize, rule()).prop_map(|(d, n, rule)| Change::Modify(d, n, rule)),
    ];
    (0..GROUPS.len(), change)
}

fn permission(direction: Direction, (l4, peer): (usize, usize)) -> IpPermission {
    let (way, to) = if direction == Direction::Ingress { ("in", "from") } else { ("out", "to") };
    let line = format!("{way} {} {to} {}", L4[l4].0, PEERS[peer].0);
    line.parse::<PermissionText>().unwrap().permission
}

fn printed((l4, peer): (usize, usize)) -> String {
    format!("{} {}", L4[l4].1, PEERS[peer].1)
}

/// The rules of each group, by direction, in the order in which they were added.
#[derive(Clone, Default)]
struct Naive {
    compat: Compat,
    groups: BTreeMap<&'static str, [Vec<String>; 2]>,
}

impl Naive {
    /// The codes that fit a call; none: it is granted.
    fn apply(&mut self, group: &'static str, change: &Change) -> BTreeSet<&'static str> {
        match change {
            Change::Create => self.create(group),
            Change::Delete => self.delete(group),
            Change::Authorize(direction, rules) => {
                let Some(list) = self.groups.get(group).map(|lists| &lists[*direction as usize])
                else {
                    return BTreeSet::from(["InvalidGroup.NotFound"]);
                };
                let mut codes = BTreeSet::new();
                let mut new = list.clone();
                for line in rules.iter().map(|rule| printed(*rule)) {
                    if list.contains(&line) {
                        codes.insert("InvalidPermission.Duplicate");
                    }
                    if new[list.len()..].contains(&line) {
                        codes.insert("InvalidParameterValue");
                    }
                    codes.extend(self.unknown_peer(&line));
                    new.push(line);
                }
                self.settle(group, *direction, new, codes)
            }
            Change::Revoke(direction, rules) => {
                let Some(list) = self.groups.get(group).map(|lists| &lists[*direction as usize])
                else {
                    return BTreeSet::from(["InvalidGroup.NotFound"]);
                };
                let lines: BTreeSet<_> = rules.iter().map(|rule| printed(*rule)).collect();
                let mut codes = BTreeSet::new();
                if lines.len() < rules.len() {
                    codes.insert("InvalidParameterValue");
                }
                if lines.iter().any(|line| !list.contains(line)) {
                    codes.insert("InvalidPermission.NotFound");
                }
                let left = list.iter().filter(|line| !lines.contains(*line)).cloned().collect();
                self.settle(group, *direction, left, codes)
            }
            Change::Modify(direction, n, rule) => {
                if self.compat == Compat::Ec2_2017 {
                    return BTreeSet::from(["InvalidAction"]);
                }
                let Some(list) = self.groups.get(group).map(|lists| &lists[*direction as usize])
                else {
                    return BTreeSet::from(["InvalidGroup.NotFound"]);
                };
                let line = printed(*rule);
                let mut codes: BTreeSet<_> = self.unknown_peer(&line).into_iter().collect();
                if list.iter().enumerate().any(|(i, known)| i != *n && *known == line) {
                    codes.insert("InvalidPermission.Duplicate");
                }
                let mut new = list.clone();
                match new.get_mut(*n) {
                    Some(place) => *place = line,
                    None => return BTreeSet::from(["InvalidSecurityGroupRuleId.NotFound"]),
                }
                self.settle(group, *direction, new, codes)
            }
        }
    }

    fn create(&mut self, group: &'static str) -> BTreeSet<&'static str> {
        if self.groups.contains_key(group) {
            return BTreeSet::from(["InvalidParameterValue", "InvalidGroup.Duplicate"]);
        }
        let mut lists = [Vec::new(), Vec::new()];
        lists[Direction::Egress as usize] = vec!["all 0.0.0.0/0".into(), "all ::/0".into()];
        self.groups.insert(group, lists);
        BTreeSet::new()
    }

    fn delete(&mut self, group: &'static str) -> BTreeSet<&'static str> {
        if !self.groups.contains_key(group) {
            return BTreeSet::from(["InvalidGroup.NotFound"]);
        }
        let names_it = |line: &String| line.split(' ').next_back() == Some(group);
        let counts = |other: &str| other != group || self.compat == Compat::Ec2_2017;
        let mut others = self.groups.iter().filter(|(other, _)| counts(other));
        if others.any(|(_, lists)| lists.iter().flatten().any(names_it)) {
            return BTreeSet::from(["DependencyViolation"]);
        }
        self.groups.remove(group);
        BTreeSet::new()
    }

    fn unknown_peer(&self, line: &str) -> Option<&'static str> {
        let peer = line.split(' ').next_back().unwrap();
        let is_unknown = peer.starts_with("sg-") && !self.groups.contains_key(peer);
        is_unknown.then_some("InvalidGroup.NotFound")
    }

    fn settle(
        &mut self,
        group: &'static str,
        direction: Direction,
        rules: Vec<String>,
        mut codes: BTreeSet<&'static str>,
    ) -> BTreeSet<&'static str> {
        let weight = |is_v6: bool| -> u32 {
            let weigh = |line: &String| match line.split(' ').next_back().unwrap() {
                "pl-20" => 20 * u32::from(!is_v6),
                peer if peer.starts_with("sg-") => {
                    u32::from(!is_v6 || self.compat == Compat::Current)
                }
                peer => u32::from(peer.contains(':') == is_v6),
            };
            rules.iter().map(weigh).sum()
        };
        let weight = match self.compat {
            Compat::Ec2_2017 => weight(false) + weight(true),
            Compat::Current => weight(false).max(weight(true)),
        };
        if weight > LIMIT {
            codes.insert("RulesPerSecurityGroupLimitExceeded");
        }
        if codes.is_empty() {
            self.groups.get_mut(group).unwrap()[direction as usize] = rules;
        }
        codes
    }
}

/// What the call says of itself. `Modify` means the rule at a place, whose id it finds.
fn call(policy: &mut Policy, group: &str, change: &Change) -> Result<(), ApiError> {
    let permissions = |direction: Direction, rules: &[(usize, usize)]| -> Vec<_> {
        rules.iter().map(|rule| permission(direction, *rule)).collect()
    };
    match change {
        Change::Create => create_security_group(policy, new_group(group, &group[3..])),
        Change::Delete => delete_security_group(policy, group),
        Change::Authorize(direction, rules) => {
            edit::authorize(policy, group, *direction, &permissions(*direction, rules)).map(drop)
        }
        Change::Revoke(direction, rules) => {
            edit::revoke(policy, group, *direction, &permissions(*direction, rules))
        }
        Change::Modify(direction, n, rule) => {
            let found = policy.security_groups.iter().find(|known| known.id == group);
            let rule_id = found.and_then(|group| group.rules(*direction).get(*n));
            let rule_id = rule_id.map_or("none".to_owned(), |rule| rule.id.clone());
            modify_rule(policy, group, &rule_id, &permission(*direction, *rule))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn changes_are_those_of_a_naive_model(
        is_current in any::<bool>(),
        changes in proptest::collection::vec(change(), 1..60),
    ) {
        let compat = if is_current { Compat::Current } else { Compat::Ec2_2017 };
        let mut policy = world(compat);
        policy.limits.rules_per_group = LIMIT;
        let mut naive = Naive { compat, ..Naive::default() };
        for (group, change) in changes {
            let group = GROUPS[group];
            let before = policy.clone();
            let expected = naive.apply(group, &change);
            match call(&mut policy, group, &change) {
                Ok(()) => prop_assert!(expected.is_empty(), "{expected:?}"),
                Err(error) => {
                    prop_assert!(expected.contains(error.code.as_str()), "{error}: {expected:?}");
                    prop_assert_eq!(&policy, &before);
                }
            }
            for (id, lists) in &naive.groups {
                for direction in Direction::BOTH {
                    prop_assert_eq!(&rules(&policy, id, direction), &lists[direction as usize]);
                }
            }
            let ours = policy.security_groups.iter().filter(|g| GROUPS.contains(&&*g.id)).count();
            prop_assert_eq!(ours, naive.groups.len());
            is_sound(&policy);
        }
    }
}
