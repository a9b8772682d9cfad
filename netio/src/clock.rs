//! The clock: the only one that sgwall reads, once for every batch.

use rustix::time::{ClockId, Timespec, clock_gettime};
use sgwall_packet::Timestamp;

/// A clock that never steps back.
///
/// It says nanoseconds since the Unix epoch as the wall clock had it when the clock was made, and
/// from then on counts elapsed time, suspension included (`CLOCK_BOOTTIME`). So setting the wall
/// clock ends no flow early and keeps none alive, and flow logs of a long run may differ from the
/// wall clock by as much as that was set.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What to add to elapsed time, nanoseconds.
    offset: i64,
}

impl Clock {
    /// A clock that agrees with the wall clock now.
    #[must_use]
    pub fn new() -> Self {
        Clock { offset: nanos(ClockId::Realtime).saturating_sub(nanos(ClockId::Boottime)) }
    }

    /// The time. Copies of a clock agree, on any thread.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(nanos(ClockId::Boottime).saturating_add(self.offset))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

fn nanos(id: ClockId) -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(id);
    tv_sec.saturating_mul(1_000_000_000).saturating_add(tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn it_begins_at_the_wall_clock_and_never_steps_back() {
        let clock = Clock::new();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let mut last = clock.now();
        let apart = (last.as_nanos() - wall.as_nanos() as i64).unsigned_abs();
        assert!(apart < 60_000_000_000, "{apart} ns from the wall clock");
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
