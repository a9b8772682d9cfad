//! A row of few intervals, while rules are laid over it.

use std::hash::{Hash, Hasher};

use super::run::Run32;

/// Keys cut into intervals that differ in rank from their neighbours, at most as many as a run has
/// room for. What is not used is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals {
    starts: [u32; Run32::MOST],
    ranks: [u32; Run32::MOST],
    len: u32,
}

impl Hash for Intervals {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (start, _, rank) in self.iter() {
            state.write_u64(u64::from(start) << 32 | u64::from(rank));
        }
    }
}

impl Intervals {
    /// All keys are of one rank.
    pub(super) fn all(rank: u32) -> Self {
        let mut all = Intervals::default();
        all.push(0, rank);
        all
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// First key, last key and rank of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        let starts = self.starts[..self.len()].iter();
        let ends = starts.clone().skip(1).map(|&next| next - 1).chain([u32::MAX]);
        starts.zip(ends).zip(&self.ranks).map(|((&start, end), &rank)| (start, end, rank))
    }

    /// The same, counted otherwise: each first key as `of` says, in the same order.
    pub(super) fn map(mut self, of: impl Fn(u32) -> u32) -> Self {
        let len = self.len();
        for start in &mut self.starts[..len] {
            *start = of(*start);
        }
        self
    }

    /// Adds an interval after the others, from `start`; false if it does not fit.
    #[inline]
    pub(super) fn push(&mut self, start: u32, rank: u32) -> bool {
        let len = self.len();
        if len > 0 && self.ranks[len - 1] == rank {
            return true;
        }
        if len == Run32::MOST {
            return false;
        }
        (self.starts[len], self.ranks[len]) = (start, rank);
        self.len += 1;
        true
    }

    /// Lays a rank over the keys `first..=last`: where it is better, it stands. `None` if that takes
    /// more intervals than there is room for.
    pub(super) fn lay(&self, first: u32, last: u32, rank: u32) -> Option<Self> {
        let mut out = Intervals::default();
        for (start, end, held) in self.iter() {
            let fits = if held <= rank || end < first || last < start {
                out.push(start, held)
            } else {
                (start >= first || out.push(start, held))
                    && out.push(start.max(first), rank)
                    && (end <= last || out.push(last + 1, held))
            };
            if !fits {
                return None;
            }
        }
        Some(out)
    }

    /// In the form for lookups.
    pub(super) fn run(&self) -> Run32 {
        Run32::new(self.iter().map(|(start, _, rank)| (start.into(), rank)))
    }
}
