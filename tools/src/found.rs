//! What became of a packet, in the words that tests and comparisons use.

use std::fmt;

use sgwall_dataplane::{DropReason, Event, Judgement, Outcome, PassReason, SkipReason};
use sgwall_rules::compile::CompiledPolicy;

use crate::replay::{admitting_rule, deciding_rule};

/// What became of a packet, or is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Drop,
    /// No interface of the policy judges it.
    Skip,
    /// A later fragment that waits for its first.
    Held,
}

impl Fate {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Fate::Pass => "pass",
            Fate::Drop => "drop",
            Fate::Skip => "skip",
            Fate::Held => "held",
        }
    }

    /// The reasons that there are for it.
    pub(crate) fn reasons(self) -> Vec<&'static str> {
        match self {
            Fate::Pass => PassReason::ALL.iter().map(|reason| reason.as_str()).collect(),
            Fate::Drop => DropReason::ALL.iter().map(|reason| reason.as_str()).collect(),
            Fate::Skip => SkipReason::ALL.iter().map(|reason| reason.as_str()).collect(),
            Fate::Held => Vec::new(),
        }
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) fate: Fate,
    pub(crate) reason: &'static str,
    /// The rule that decided.
    pub(crate) rule: Option<String>,
    /// The rule that admitted the tracked flow it belongs to.
    pub(crate) admitted_by: Option<String>,
    pub(crate) state: Option<&'static str>,
    pub(crate) mtu: Option<u16>,
}

impl Found {
    /// Of a packet of which nothing was told.
    pub(crate) const HELD: Found = Found {
        fate: Fate::Held,
        reason: "held",
        rule: None,
        admitted_by: None,
        state: None,
        mtu: None,
    };

    /// The last word on a packet.
    pub(crate) fn of(event: &Event<'_>, policy: &CompiledPolicy) -> Self {
        let verdict = match event.judgement {
            Judgement::Skip(reason) => {
                return Found { fate: Fate::Skip, reason: reason.as_str(), ..Found::HELD };
            }
            Judgement::Verdict(verdict) => verdict,
        };
        let fate = match verdict.outcome {
            Outcome::Pass(_) => Fate::Pass,
            Outcome::Drop(_) => Fate::Drop,
            Outcome::Hold => Fate::Held,
        };
        Found {
            fate,
            reason: verdict.reason(),
            rule: deciding_rule(event, policy),
            admitted_by: admitting_rule(event),
            state: verdict.state.map(|state| state.as_str()),
            mtu: verdict.mtu.map(Into::into),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fate.as_str())?;
        if self.fate != Fate::Held {
            write!(f, " {}", self.reason)?;
        }
        if let Some(rule) = self.rule.as_ref().or(self.admitted_by.as_ref()) {
            write!(f, " by {rule}")?;
        }
        if let Some(state) = self.state {
            write!(f, " state {state}")?;
        }
        match self.mtu {
            Some(mtu) => write!(f, " mtu {mtu}"),
            None => Ok(()),
        }
    }
}

/// Whether an event is the last word on a packet that came, not on one made on the way.
pub(crate) fn is_last_word(event: &Event<'_>) -> bool {
    event.is_final && event.emitted.is_none()
}
