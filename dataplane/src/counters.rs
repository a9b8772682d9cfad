//! What a pipeline counted: plain numbers, owned by one worker, added up by whoever asks.

use sgwall_rules::compile::RuleId;

use crate::verdict::{DropReason, Outcome, PassReason, Verdict};

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets (link layer excluded, SEMANTICS 15.1); 0 for what is not IP.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }
}

/// Counters of one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    pass: [Tally; PassReason::ALL.len()],
    drop: [Tally; DropReason::ALL.len()],
    hits: Vec<u64>,
}

impl Counters {
    /// Counters at zero, for a policy of `rules` rules.
    #[must_use]
    pub fn new(rules: usize) -> Self {
        Counters {
            pass: [Tally::default(); PassReason::ALL.len()],
            drop: [Tally::default(); DropReason::ALL.len()],
            hits: vec![0; rules],
        }
    }

    /// Sets rule hits to zero, for a policy of `rules` rules.
    pub fn restart_hits(&mut self, rules: usize) {
        self.hits = vec![0; rules];
    }

    /// Counts one verdict on a packet of `bytes` bytes. A held packet is counted when released.
    #[inline]
    pub fn count(&mut self, verdict: &Verdict, bytes: u32) {
        match verdict.outcome {
            Outcome::Pass(reason) => self.pass[reason as usize].add(bytes),
            Outcome::Drop(reason) => self.drop[reason as usize].add(bytes),
            Outcome::Hold => return,
        }
        if let Some(hits) = verdict.rule.and_then(|RuleId(i)| self.hits.get_mut(i as usize)) {
            *hits += 1;
        }
    }

    /// Passed for `reason`.
    #[must_use]
    pub fn passed(&self, reason: PassReason) -> Tally {
        self.pass[reason as usize]
    }

    /// Dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> Tally {
        self.drop[reason as usize]
    }

    /// Packets that `rule` decided.
    #[must_use]
    pub fn hits(&self, rule: RuleId) -> u64 {
        self.hits.get(rule.0 as usize).copied().unwrap_or(0)
    }
}
