//! Time as the core sees it: a number that came with the packet, never a clock that was read.

use std::fmt;

/// A length of time; the standard library's.
pub type Duration = std::time::Duration;

/// A point in time: nanoseconds since the Unix epoch, from the capture record or the batch clock.
///
/// Signed, because a pcapng file may shift its times before 1970. The range is 1677 to 2262;
/// arithmetic saturates at its ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `nanos` nanoseconds after the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// The time `secs` seconds after the Unix epoch, saturating at the ends of the range.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after (captures may step back).
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time plus `d`, saturating.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        // Not by `as_nanos`: its 128 bits cost more than all else here.
        let nanos =
            d.as_secs().saturating_mul(1_000_000_000).saturating_add(d.subsec_nanos().into());
        Timestamp(self.0.saturating_add_unsigned(nanos))
    }
}

/// Seconds since the epoch with nine decimals, as in `1700000012.500000000`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let n = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:09}", n / 1_000_000_000, n % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_never_goes_negative() {
        let a = Timestamp::from_secs(10);
        let b = Timestamp::from_secs(12);
        assert_eq!(b.since(a), Duration::from_secs(2));
        assert_eq!(a.since(b), Duration::ZERO);
        assert_eq!(
            Timestamp::from_nanos(i64::MAX).since(Timestamp::from_nanos(i64::MIN)),
            Duration::from_nanos(i64::MAX as u64)
        );
    }

    #[test]
    fn display_has_nine_decimals_and_a_sign() {
        assert_eq!(Timestamp::from_nanos(1_500_000_000).to_string(), "1.500000000");
        assert_eq!(Timestamp::from_nanos(-1).to_string(), "-0.000000001");
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_nanos(i64::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(Timestamp::from_secs(i64::MAX), end);
    }
}
