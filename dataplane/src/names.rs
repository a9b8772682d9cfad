//! What tracking's numbers stand for, whatever policy is in force.
//!
//! A flow keeps the number of its interface and of the rule that admitted it, and outlives policies:
//! so numbers are never given twice, and a rule that stays has the number that it had.
//!
//! [`Names`] are made by whoever brings a new policy, before it takes over; a pipeline then only
//! takes them in hand, however many rules there are. Copies share everything.

use std::collections::HashMap;
use std::sync::Arc;

use sgwall_conntrack::{RuleTag, Scope};
use sgwall_rules::compile::{CompiledPolicy, RuleInfo};

/// The numbers of a policy's interfaces and rules, and of all that were before.
#[derive(Clone, Debug, Default)]
pub struct Names {
    scopes: Arc<HashMap<String, Scope>>,
    rules: Arc<Rules>,
    /// By rule index in the policy.
    tags: Arc<[RuleTag]>,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    tags: HashMap<Arc<RuleInfo>, RuleTag>,
    by_tag: Vec<Arc<RuleInfo>>,
}

impl Names {
    /// The names of the first policy.
    #[must_use]
    pub fn new(policy: &CompiledPolicy) -> Self {
        Names::default().extended(policy, None)
    }

    /// The names of a policy that comes after `before`, whose names these are.
    #[must_use]
    pub fn after(&self, before: &CompiledPolicy, policy: &CompiledPolicy) -> Self {
        self.extended(policy, Some(before))
    }

    fn extended(&self, policy: &CompiledPolicy, before: Option<&CompiledPolicy>) -> Self {
        let mut names = self.clone();
        for interface in policy.interfaces() {
            if !names.scopes.contains_key(&interface.id) {
                let next = Scope(names.scopes.len() as u32);
                Arc::make_mut(&mut names.scopes).insert(interface.id.clone(), next);
            }
        }
        if before.is_none_or(|before| !policy.shares_rules(before)) {
            names.tags = policy.rules().iter().map(|rule| names.give_tag(rule)).collect();
        }
        names
    }

    fn give_tag(&mut self, rule: &RuleInfo) -> RuleTag {
        if let Some(&tag) = self.rules.tags.get(rule) {
            return tag;
        }
        let rules = Arc::make_mut(&mut self.rules);
        let (tag, rule) = (RuleTag(rules.by_tag.len() as u32), Arc::new(rule.clone()));
        rules.tags.insert(Arc::clone(&rule), tag);
        rules.by_tag.push(rule);
        tag
    }

    /// The number of an interface of this policy or of an earlier one; of another a number that
    /// no interface has.
    pub(crate) fn scope(&self, interface: &str) -> Scope {
        self.scopes.get(interface).copied().unwrap_or(Scope(u32::MAX))
    }

    /// The numbers of this policy's rules, by their index.
    pub(crate) fn tags(&self) -> Arc<[RuleTag]> {
        Arc::clone(&self.tags)
    }

    /// The rule that has a number.
    pub(crate) fn rule(&self, tag: RuleTag) -> Option<&RuleInfo> {
        self.rules.by_tag.get(tag.0 as usize).map(|rule| &**rule)
    }
}
