//! The time of a recording: that of its latest frame, for frames may come late.
//!
//! Captures of several queues or hosts are in no strict order. A frame that comes a little late is
//! judged at the time of the latest before it, as it would be on a device, so that what has expired
//! does not come back to life. One that comes much earlier is of another recording, whose time
//! begins anew.

use sgwall_packet::{Duration, Timestamp};

/// What time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    now: Timestamp,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { now: Timestamp::from_nanos(i64::MIN) }
    }
}

impl Clock {
    /// How late a frame may come: the shortest of the timeouts that flows have by default.
    pub const LATE: Duration = Duration::from_secs(10);

    /// The time; the earliest there is before the first frame.
    #[inline]
    #[must_use]
    pub const fn now(self) -> Timestamp {
        self.now
    }

    /// What time it is for a frame of this time.
    #[inline]
    #[must_use]
    pub fn at(self, time: Timestamp) -> Timestamp {
        let is_late = time < self.now && self.now.since(time) <= Self::LATE;
        if is_late { self.now } else { time }
    }

    /// Moves on to a frame of this time; what time it is then.
    #[inline]
    pub fn advance(&mut self, time: Timestamp) -> Timestamp {
        self.now = self.at(time);
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_frames_do_not_turn_it_back_other_recordings_do() {
        let secs = Timestamp::from_secs;
        let mut clock = Clock::default();
        for (frame, now) in [(-5, -5), (100, 100), (99, 100), (90, 100), (101, 101), (90, 90)] {
            assert_eq!(clock.advance(secs(frame)), secs(now), "{frame}");
        }
    }
}
