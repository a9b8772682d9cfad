//! How many flows the tables of several workers may hold together.
//!
//! A table takes some at a time from what is left, when it needs more, and gives back what it does
//! not need. So the limit holds exactly for all of them together, whichever worker the flows are on,
//! workers meet at one counter once in many new flows, and what lies idle is a small part of all.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Flows that a table takes at a time, at the most.
const MAX_CHUNK: usize = 256;
/// A table keeps less than two chunks that it does not need: of all together, an eighth at most.
const CHUNKS_PER_TABLE: usize = 16;

/// What is left of a number of flows that several tables share.
#[derive(Debug)]
pub struct Allowance {
    left: AtomicUsize,
    chunk: usize,
}

impl Allowance {
    /// So many flows for so many tables, none of them taken.
    #[must_use]
    pub fn new(flows: usize, tables: usize) -> Self {
        let chunk = flows / tables.max(1) / CHUNKS_PER_TABLE;
        Allowance { left: AtomicUsize::new(flows), chunk: chunk.clamp(1, MAX_CHUNK) }
    }

    /// Flows that no table has taken.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Flows that a table takes, or gives back, at a time.
    pub(crate) const fn chunk(&self) -> usize {
        self.chunk
    }

    /// Takes up to a chunk; how many it got.
    pub(crate) fn take(&self) -> usize {
        let mut left = self.left();
        loop {
            let wanted = left.min(self.chunk);
            let rest = left - wanted;
            match self.left.compare_exchange_weak(left, rest, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return wanted,
                Err(now) => left = now,
            }
        }
    }

    pub(crate) fn give_back(&self, flows: usize) {
        self.left.fetch_add(flows, Ordering::Relaxed);
    }
}
