//! How many flows the tables of several workers may hold together.
//!
//! A table takes a few hundred at a time from what is left, when it needs more, and gives back what
//! it does not need. So the limit holds exactly for all of them together, whichever worker the
//! flows are on, and workers meet at one counter once in hundreds of new flows.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Flows that a table takes, or gives back, at a time.
pub(crate) const CHUNK: usize = 256;

/// What is left of a number of flows that several tables share.
#[derive(Debug)]
pub struct Allowance(AtomicUsize);

impl Allowance {
    /// So many flows, none of them taken.
    #[must_use]
    pub const fn new(flows: usize) -> Self {
        Allowance(AtomicUsize::new(flows))
    }

    /// Flows that no table has taken.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes up to [`CHUNK`]; how many it got.
    pub(crate) fn take(&self) -> usize {
        let mut left = self.left();
        loop {
            let wanted = left.min(CHUNK);
            let rest = left - wanted;
            match self.0.compare_exchange_weak(left, rest, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return wanted,
                Err(now) => left = now,
            }
        }
    }

    pub(crate) fn give_back(&self, flows: usize) {
        self.0.fetch_add(flows, Ordering::Relaxed);
    }
}
