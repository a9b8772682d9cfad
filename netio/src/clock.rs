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
        Clock::made(nanos(ClockId::Realtime), nanos(ClockId::Boottime))
    }

    /// One that is made when the wall clock says `wall` and `elapsed` has passed, nanoseconds.
    const fn made(wall: i64, elapsed: i64) -> Self {
        Clock { offset: wall.saturating_sub(elapsed) }
    }

    /// What it says once `elapsed` has passed.
    const fn at(self, elapsed: i64) -> Timestamp {
        Timestamp::from_nanos(elapsed.saturating_add(self.offset))
    }

    /// The time. Copies of a clock agree, on any thread.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at(nanos(ClockId::Boottime))
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

    /// The wall clock is read once. Set an hour forwards or back afterwards, it would give a clock
    /// made then another time, and leaves ours, whose seconds are those that pass.
    #[test]
    fn setting_the_wall_clock_does_not_move_it() {
        const HOUR: i64 = 3_600_000_000_000;
        let clock = Clock::made(500 * HOUR, 7 * HOUR);
        assert_eq!(clock.at(7 * HOUR), Timestamp::from_nanos(500 * HOUR));
        assert_eq!(clock.at(8 * HOUR), Timestamp::from_nanos(501 * HOUR));
        for step in [-HOUR, HOUR] {
            let later = Clock::made(501 * HOUR + step, 8 * HOUR);
            assert_eq!(later.at(8 * HOUR).as_nanos() - clock.at(8 * HOUR).as_nanos(), step);
        }
    }

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
