//! How long a flow may be idle (SEMANTICS 7.10).

use sgwall_packet::{Duration, Timestamp};

use crate::entry::FlowState;

/// The idle timeout of each state. A change holds for an entry from its next packet on
/// (SEMANTICS 7.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutProfile {
    /// Nanoseconds, by state.
    nanos: [i64; FlowState::COUNT],
}

/// The defaults in seconds; that of an established TCP connection is five days.
const DEFAULTS: [(FlowState, u64); FlowState::COUNT] = [
    (FlowState::TcpSynSent, 120),
    (FlowState::TcpSynSent2, 120),
    (FlowState::TcpSynRecv, 60),
    (FlowState::TcpEstablished, 432_000),
    (FlowState::TcpFinWait, 120),
    (FlowState::TcpCloseWait, 60),
    (FlowState::TcpLastAck, 30),
    (FlowState::TcpTimeWait, 120),
    (FlowState::TcpClose, 10),
    (FlowState::Udp, 30),
    (FlowState::UdpStream, 180),
    (FlowState::Icmp, 30),
    (FlowState::Other, 600),
];

impl Default for TimeoutProfile {
    fn default() -> Self {
        let mut profile = TimeoutProfile { nanos: [0; FlowState::COUNT] };
        for (state, seconds) in DEFAULTS {
            profile.set(state, Duration::from_secs(seconds));
        }
        profile
    }
}

impl TimeoutProfile {
    /// How long a flow in `state` may be idle.
    #[must_use]
    pub const fn of(&self, state: FlowState) -> Duration {
        Duration::from_nanos(self.nanos[state as usize].unsigned_abs())
    }

    /// Sets how long a flow in `state` may be idle, up to 292 years.
    pub fn set(&mut self, state: FlowState, idle: Duration) {
        self.nanos[state as usize] = i64::try_from(idle.as_nanos()).unwrap_or(i64::MAX);
    }

    /// When a flow in `state` is dead whose last packet came at `now`.
    #[inline]
    pub(crate) const fn deadline(&self, now: Timestamp, state: FlowState) -> Timestamp {
        Timestamp::from_nanos(now.as_nanos().saturating_add(self.nanos[state as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_default() {
        let profile = TimeoutProfile::default();
        for (place, (state, seconds)) in DEFAULTS.into_iter().enumerate() {
            assert_eq!(state as usize, place);
            assert_eq!(profile.of(state), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn deadlines_saturate() {
        let mut profile = TimeoutProfile::default();
        profile.set(FlowState::Udp, Duration::MAX);
        let end = Timestamp::from_nanos(i64::MAX);
        assert_eq!(profile.deadline(Timestamp::from_secs(1), FlowState::Udp), end);
        assert_eq!(profile.deadline(end, FlowState::Icmp), end);
    }
}
