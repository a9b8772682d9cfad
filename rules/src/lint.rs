//! What a valid policy probably does not mean: rules that do nothing, that half of a path refuses,
//! that are open to the world.
//!
//! Rules are compared as sets of traffic ([`crate::region`]), with references and prefix lists as
//! the addresses that they stand for now. Nothing here changes what a policy does. Whoever knows how
//! often rules decided asks [`unused`] as well.

pub(crate) mod acls;
mod groups;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic::{Origin, Severity};
use crate::model::{Direction, Interface, L4Match, NetworkAcl, Policy, SecurityGroup};
use crate::oracle::prefixes;
use crate::region::{Block, Region};

/// Declares the codes: each with its word, how bad it is, and why it matters.
macro_rules! codes {
    ($($variant:ident: $word:literal, $severity:ident, $why:literal;)+) => {
        /// What kind of finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $why] $variant,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The stable kebab-case word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $word,)+ }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Code::$variant => Severity::$severity,)+ }
            }

            /// Why it matters, in a sentence without the final stop.
            #[must_use]
            pub const fn why(self) -> &'static str {
                match self { $(Code::$variant => $why,)+ }
            }
        }
    };
}

codes! {
    AclEntryShadowed: "acl-entry-shadowed", Warning,
        "an ACL is read from the lowest number up and the first entry that matches decides, so this \
         one never does";
    AclBlocksRule: "acl-blocks-rule", Warning,
        "the subnet's network ACL refuses all that this rule allows, so the rule does nothing there";
    AclBlocksReturn: "acl-blocks-return", Warning,
        "a network ACL is stateless: answers go to the ports that clients chose, 1024 to 65535, and \
         the ACL has to allow them by itself";
    OpenAdminPort: "open-admin-port", Warning,
        "the port of an administrative or database service is open to every address";
    OpenToAll: "open-to-all", Warning,
        "every protocol and every port are open to every address";
    OneWayReference: "one-way-reference", Warning,
        "the group at the other end has no rule for this traffic, so none of it comes or arrives";
    RuleRedundant: "rule-redundant", Note,
        "other rules of the group allow all that this one does";
    RuleUnused: "rule-unused", Note,
        "nothing of the traffic that was looked at was decided by it";
    GroupUnused: "group-unused", Note,
        "no interface has the group and no rule refers to it";
    UntrackedFlows: "untracked-flows", Note,
        "flows that are allowed from everywhere with all answers allowed are not tracked: when the \
         rule goes they end at once, where tracked ones would go on";
    LimitNear: "limit-near", Note,
        "four fifths of an AWS limit are used, and a change may be refused";
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    /// What kind.
    pub code: Code,
    /// What it is about: `sg-web/ingress-1`, `acl-1/100`, `sg-web`, `eni-1`.
    pub subject: String,
    /// Where that stands.
    pub origin: Option<Origin>,
    /// What is found.
    pub message: String,
    /// How to mend it.
    pub mend: String,
}

/// Every finding, in the order of codes and of the policy.
#[must_use]
pub fn lint(policy: &Policy) -> Vec<Lint> {
    let context = Context::new(policy);
    let mut found = Vec::new();
    acls::shadowed(policy, &mut found);
    acls::against_groups(&context, &mut found);
    groups::open(&context, &mut found);
    groups::one_way(&context, &mut found);
    groups::redundant(&context, &mut found);
    groups::unused_groups(policy, &mut found);
    groups::untracked(&context, &mut found);
    groups::limits(policy, &mut found);
    found.sort_by_key(|lint| lint.code);
    found
}

/// How many packets rules and entries have decided, by direction and name (`sg-web/ingress-1`,
/// `acl-1/100`): the entries of an ACL have the same numbers in both directions.
pub type Hits = HashMap<(Direction, String), u64>;

/// Rules of groups and entries of ACLs that decided nothing.
#[must_use]
pub fn unused(policy: &Policy, hits: &Hits) -> Vec<Lint> {
    let mut found = Vec::new();
    let mut look = |direction: Direction, subject: String, text: String, origin: &Origin| {
        if hits.get(&(direction, subject.clone())).is_none_or(|hits| *hits == 0) {
            found.push(Lint {
                code: Code::RuleUnused,
                message: format!("{text} decided no packet"),
                origin: Some(origin.clone()),
                mend: "remove it, if the traffic that was looked at is all there is".to_owned(),
                subject,
            });
        }
    };
    for group in &policy.security_groups {
        for direction in Direction::BOTH {
            for rule in group.rules(direction) {
                let text = format!("{} {} {}", rule.matches, preposition(direction), rule.peer);
                let text = format!("{direction} {text}");
                look(direction, format!("{}/{}", group.id, rule.id), text, &rule.origin);
            }
        }
    }
    for acl in &policy.network_acls {
        for direction in Direction::BOTH {
            for entry in acl.entries(direction) {
                let text = format!("{} {}", entry.matches, preposition(direction));
                let text = format!("{direction} {text} {}", entry.cidr);
                look(direction, format!("{}/{}", acl.id, entry.rule_number), text, &entry.origin);
            }
        }
    }
    found
}

const fn preposition(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// A policy, and what is looked up in it again and again.
struct Context<'a> {
    policy: &'a Policy,
    groups: HashMap<&'a str, &'a SecurityGroup>,
    /// What each ACL lets through, by direction; a subnet without one has the default ACL.
    acls: BTreeMap<&'a str, (&'a NetworkAcl, [Region; 2])>,
}

impl<'a> Context<'a> {
    fn new(policy: &'a Policy) -> Self {
        let used: HashSet<&str> =
            policy.subnets.iter().filter_map(|subnet| subnet.network_acl.as_deref()).collect();
        let acls = policy.network_acls.iter().filter(|acl| used.contains(&acl.id[..]));
        let passes = |acl: &'a NetworkAcl| {
            (&acl.id[..], (acl, Direction::BOTH.map(|direction| acls::passes(acl, direction))))
        };
        Context {
            policy,
            groups: policy.security_groups.iter().map(|group| (&group.id[..], group)).collect(),
            acls: acls.map(passes).collect(),
        }
    }

    /// The groups of an interface.
    fn groups_of(&self, interface: &'a Interface) -> impl Iterator<Item = &'a SecurityGroup> {
        interface.security_groups.iter().filter_map(|id| self.groups.get(&id[..]).copied())
    }

    /// What a rule of a group allows, with its peer as the addresses that it stands for.
    fn region(&self, group: &SecurityGroup, matches: L4Match, peer: &crate::model::Peer) -> Region {
        prefixes(self.policy, group, peer).into_iter().map(|net| Block::new(matches, net)).collect()
    }

    /// Addresses of the interfaces that have a group.
    fn members(&self, group: &str) -> Vec<IpAddr> {
        let members =
            self.policy.interfaces.iter().filter(|i| i.security_groups.iter().any(|g| g == group));
        members.flat_map(|interface| interface.addresses.iter().copied()).collect()
    }
}

/// All protocols of some prefixes.
fn of_prefixes(prefixes: impl IntoIterator<Item = IpNet>) -> Region {
    prefixes.into_iter().map(|net| Block::new(L4Match::All, net)).collect()
}

/// A few blocks of a region for a message.
fn some(region: &Region) -> String {
    const FEW: usize = 3;
    let blocks = region.clone().tidy();
    let texts: Vec<_> = blocks.blocks().iter().take(FEW).map(ToString::to_string).collect();
    let more = blocks.blocks().len().saturating_sub(FEW);
    match more {
        0 => texts.join(", "),
        _ => format!("{} and {more} more", texts.join(", ")),
    }
}
