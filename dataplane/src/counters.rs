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
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn add(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }
}

/// Packets by the reason of their verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reasons {
    pass: [Tally; PassReason::ALL.len()],
    drop: [Tally; DropReason::ALL.len()],
}

impl Default for Reasons {
    fn default() -> Self {
        let none = Tally::default();
        Reasons { pass: [none; PassReason::ALL.len()], drop: [none; DropReason::ALL.len()] }
    }
}

/// Counters of one pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What concerned no interface, or one that is gone.
    nobody: Reasons,
    /// By interface index.
    interfaces: Vec<Reasons>,
    hits: Vec<u64>,
}

impl Counters {
    /// Carries the counters over to a policy of `interfaces` interfaces and `rules` rules; `places`
    /// says, by old interface index, where each now is. Rule hits start again at zero.
    pub(crate) fn change_policy(
        &mut self,
        places: Vec<Option<usize>>,
        interfaces: usize,
        rules: usize,
    ) {
        self.hits = vec![0; rules];
        let before = std::mem::replace(&mut self.interfaces, vec![Reasons::default(); interfaces]);
        for (counted, place) in before.iter().zip(places.iter().chain(std::iter::repeat(&None))) {
            let now = place.and_then(|place| self.interfaces.get_mut(place));
            now.unwrap_or(&mut self.nobody).add_all(counted);
        }
    }

    /// Counts one verdict on a packet of `bytes` bytes. A held packet is counted when released.
    #[inline]
    pub(crate) fn count(&mut self, interface: Option<usize>, verdict: &Verdict, bytes: u32) {
        let counted = interface.and_then(|index| self.interfaces.get_mut(index));
        let counted = counted.unwrap_or(&mut self.nobody);
        match verdict.outcome {
            Outcome::Pass(reason) => counted.pass[reason as usize].add(bytes),
            Outcome::Drop(reason) => counted.drop[reason as usize].add(bytes),
            Outcome::Hold => return,
        }
        if let Some(hits) = verdict.rule.and_then(|RuleId(i)| self.hits.get_mut(i as usize)) {
            *hits += 1;
        }
    }

    /// Passed for `reason`, on all interfaces.
    #[must_use]
    pub fn passed(&self, reason: PassReason) -> Tally {
        self.all().map(|counted| counted.pass[reason as usize]).fold(Tally::default(), Tally::plus)
    }

    /// Dropped for `reason`, on all interfaces.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> Tally {
        self.all().map(|counted| counted.drop[reason as usize]).fold(Tally::default(), Tally::plus)
    }

    /// Passed for `reason` on an interface (its index); `None`: what concerned no interface, or one
    /// that is gone.
    #[must_use]
    pub fn passed_at(&self, interface: Option<usize>, reason: PassReason) -> Tally {
        self.at(interface).map_or(Tally::default(), |of| of.pass[reason as usize])
    }

    /// Dropped for `reason`, likewise.
    #[must_use]
    pub fn dropped_at(&self, interface: Option<usize>, reason: DropReason) -> Tally {
        self.at(interface).map_or(Tally::default(), |of| of.drop[reason as usize])
    }

    /// Packets that `rule` decided.
    #[must_use]
    pub fn hits(&self, rule: RuleId) -> u64 {
        self.hits.get(rule.0 as usize).copied().unwrap_or(0)
    }

    fn at(&self, interface: Option<usize>) -> Option<&Reasons> {
        match interface {
            Some(index) => self.interfaces.get(index),
            None => Some(&self.nobody),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Reasons> {
        std::iter::once(&self.nobody).chain(&self.interfaces)
    }
}

impl Reasons {
    fn add_all(&mut self, other: &Reasons) {
        let pairs = self.pass.iter_mut().zip(&other.pass);
        for (mine, theirs) in pairs.chain(self.drop.iter_mut().zip(&other.drop)) {
            *mine = mine.plus(*theirs);
        }
    }
}
