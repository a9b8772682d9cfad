//! What a caller remembers of a flow, in the flow's own entry.

use sgwall_packet::Side;

/// Something that the caller has found out about the packets that one end of a flow sends, and that
/// holds until everything changes: the number of the change is part of it (its *epoch*).
///
/// A table knows nothing of what a mark means, but keeps those of the two ends apart: what was found
/// out about packets from one says nothing of packets that claim to come from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    epoch: u16,
    bit: u16,
}

impl Mark {
    /// Epochs that can be told apart: 1 to this. Whoever begins again with 1 takes all marks off
    /// first ([`crate::ConnTable::forget_marks`]).
    pub const LAST_EPOCH: u16 = (1 << 12) - 1;

    /// A mark of an epoch, of the second of two kinds or the first.
    #[must_use]
    pub const fn new(epoch: u16, second: bool) -> Self {
        Mark { epoch: epoch << 4, bit: 1 << second as u16 }
    }

    /// Whether it is among the marks that an entry has for packets from `side`.
    #[inline]
    pub(crate) const fn is_on(self, has: u16, side: Side) -> bool {
        let bit = self.bit_of(side);
        has & (!15 | bit) == self.epoch | bit
    }

    /// The marks of an entry with this one added for packets from `side`; those of other epochs go.
    pub(crate) const fn put_on(self, has: u16, side: Side) -> u16 {
        let others = if has & !15 == self.epoch { has & 15 } else { 0 };
        self.epoch | others | self.bit_of(side)
    }

    const fn bit_of(self, side: Side) -> u16 {
        self.bit << (2 * side as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_its_epoch_kind_and_side() {
        let (low, high) = (Side::Low, Side::High);
        let (first, second) = (Mark::new(7, false), Mark::new(7, true));
        let has = first.put_on(0, low);
        assert!(first.is_on(has, low));
        assert!(!first.is_on(has, high) && !second.is_on(has, low) && !second.is_on(has, high));
        let has = second.put_on(has, high);
        assert!(first.is_on(has, low) && second.is_on(has, high));
        assert!(!first.is_on(has, high) && !second.is_on(has, low));
        let later = Mark::new(8, false);
        assert!(!later.is_on(has, low));
        let has = later.put_on(has, low);
        assert!(later.is_on(has, low) && !first.is_on(has, low) && !second.is_on(has, high));
        assert!(!Mark::new(1, false).is_on(0, low));
        assert!(!Mark::new(Mark::LAST_EPOCH, true).is_on(0, high));
    }
}
