//! A few intervals of keys in one cache line, searched without branches.

/// What a run stores of a key.
pub(super) trait Key: Copy + Ord {
    const MAX: Self;
    /// Of keys that fit.
    fn of(key: u64) -> Self;
}

impl Key for u32 {
    const MAX: Self = u32::MAX;
    fn of(key: u64) -> Self {
        key as u32
    }
}

impl Key for u64 {
    const MAX: Self = u64::MAX;
    fn of(key: u64) -> Self {
        key
    }
}

/// Up to `S` intervals: the slot of a key is the one after all starts not above it. Unused starts
/// are the highest key, unused slots repeat the last. `N`: places for starts, of which the first
/// `S - 1` may be used; a power of two lets the compiler compare them all at once.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Run<K, const N: usize, const S: usize> {
    pub(super) starts: [K; N],
    pub(super) slots: [u32; S],
}

/// Seven boundaries of 32 bits.
pub(super) type Run32 = Run<u32, 8, 8>;
/// Five boundaries of 64 bits.
pub(super) type Run64 = Run<u64, 5, 6>;

const _: () = assert!(size_of::<Run32>() == 64 && size_of::<Run64>() == 64);

impl<K: Key, const N: usize, const S: usize> Run<K, N, S> {
    /// Intervals that it has room for.
    pub(super) const MOST: usize = S;

    /// At most [`Self::MOST`] intervals by first key; the first holds also for keys below it.
    pub(super) fn new(intervals: impl Iterator<Item = (u64, u32)>) -> Self {
        let mut run = Run { starts: [K::MAX; N], slots: [0; S] };
        for (at, (start, slot)) in intervals.take(S).enumerate() {
            run.slots[at..].fill(slot);
            if at > 0 {
                run.starts[at - 1] = K::of(start);
            }
        }
        run
    }

    #[inline]
    pub(super) fn get(&self, key: K) -> u32 {
        let above: u32 = self.starts.iter().map(|&start| u32::from(start <= key)).sum();
        self.slots[(above as usize).min(S - 1)]
    }
}
