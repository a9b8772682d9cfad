//! All rules of a policy, numbered, and what people are told of them.

use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{
    AclAction, Direction, L4Match, NetworkAcl, NetworkAclEntry, Peer, Policy, SecurityGroup,
    SecurityGroupRule,
};

/// Index of a rule or ACL entry in [`super::CompiledPolicy::rules`]. Good for one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// Whose rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// A security group's.
    SecurityGroup,
    /// A network ACL's.
    NetworkAcl,
}

/// What people are told of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleInfo {
    /// Whose rule it is.
    pub kind: RuleKind,
    /// The group (`sg-…`) or ACL (`acl-…`).
    pub owner: String,
    /// The rule in it: `sgr-…` or `ingress-3`, or an ACL's rule number.
    pub rule: String,
    /// Which list it stands in.
    pub direction: Direction,
    /// What it says: `tcp 443 from 0.0.0.0/0`, `deny all to 10.0.0.0/8`.
    pub text: String,
}

/// The rules of all groups and then the entries of all ACLs, each ingress first. A rule's id is its
/// place.
#[derive(Debug)]
pub(super) struct RuleTable {
    pub(super) rules: Vec<RuleInfo>,
    /// What each was made of, to tell whether another policy has the same.
    sources: Vec<Source>,
}

#[derive(Debug, PartialEq)]
enum Source {
    Group(L4Match, Peer),
    Acl(u16, AclAction, L4Match, IpNet),
}

/// A rule as the policy has it.
enum Rule<'a> {
    Group(&'a SecurityGroup, Direction, &'a SecurityGroupRule),
    Acl(&'a NetworkAcl, Direction, &'a NetworkAclEntry),
}

impl RuleTable {
    /// The table of a policy: that of an earlier one if it is the same.
    pub(super) fn new(policy: &Policy, before: Option<&Arc<RuleTable>>) -> Arc<Self> {
        if let Some(same) = before.filter(|before| before.is_of(policy)) {
            return Arc::clone(same);
        }
        let (rules, sources) = rules(policy).map(|rule| (rule.info(), rule.source())).unzip();
        Arc::new(RuleTable { rules, sources })
    }

    fn is_of(&self, policy: &Policy) -> bool {
        let mut own = self.rules.iter().zip(&self.sources);
        rules(policy).all(|rule| own.next().is_some_and(|(info, source)| rule.is(info, source)))
            && own.next().is_none()
    }
}

fn rules(policy: &Policy) -> impl Iterator<Item = Rule<'_>> {
    let groups = policy.security_groups.iter().flat_map(|group| {
        Direction::BOTH.into_iter().flat_map(move |direction| {
            let rules = group.rules(direction).iter();
            rules.map(move |rule| Rule::Group(group, direction, rule))
        })
    });
    let acls = policy.network_acls.iter().flat_map(|acl| {
        Direction::BOTH.into_iter().flat_map(move |direction| {
            acl.entries(direction).iter().map(move |entry| Rule::Acl(acl, direction, entry))
        })
    });
    groups.chain(acls)
}

impl Rule<'_> {
    fn info(&self) -> RuleInfo {
        match *self {
            Rule::Group(group, direction, rule) => RuleInfo {
                kind: RuleKind::SecurityGroup,
                owner: group.id.clone(),
                rule: rule.id.clone(),
                direction,
                text: format!("{} {} {}", rule.matches, preposition(direction), rule.peer),
            },
            Rule::Acl(acl, direction, entry) => {
                let action = match entry.action {
                    AclAction::Allow => "allow",
                    AclAction::Deny => "deny",
                };
                let to = preposition(direction);
                RuleInfo {
                    kind: RuleKind::NetworkAcl,
                    owner: acl.id.clone(),
                    rule: entry.rule_number.to_string(),
                    direction,
                    text: format!("{action} {} {to} {}", entry.matches, entry.cidr),
                }
            }
        }
    }

    fn source(&self) -> Source {
        match self {
            Rule::Group(_, _, rule) => Source::Group(rule.matches, rule.peer.clone()),
            Rule::Acl(_, _, entry) => {
                Source::Acl(entry.rule_number, entry.action, entry.matches, entry.cidr)
            }
        }
    }

    /// Whether [`Self::info`] and [`Self::source`] would say the same.
    fn is(&self, info: &RuleInfo, source: &Source) -> bool {
        match (self, source) {
            (Rule::Group(group, direction, rule), Source::Group(matches, peer)) => {
                (info.direction, *matches, peer) == (*direction, rule.matches, &rule.peer)
                    && info.owner == group.id
                    && info.rule == rule.id
            }
            (Rule::Acl(acl, direction, _), Source::Acl(..)) => {
                info.direction == *direction && info.owner == acl.id && *source == self.source()
            }
            _ => false,
        }
    }
}

const fn preposition(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}
