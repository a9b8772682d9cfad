//! What a caller remembers of a flow, in the flow's own entry.

/// Something that the caller has found out about the packets of a flow in one direction, and that
/// holds until everything changes: the number of the change is part of it (its *epoch*).
///
/// A table knows nothing of what a mark means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    epoch: u16,
    bit: u16,
}

impl Mark {
    /// Epochs that can be told apart: 1 to this. Whoever begins again with 1 takes all marks off
    /// first ([`crate::ConnTable::forget_marks`]).
    pub const LAST_EPOCH: u16 = (1 << 14) - 1;

    /// A mark of an epoch, of the second of two kinds or the first.
    #[must_use]
    pub const fn new(epoch: u16, second: bool) -> Self {
        Mark { epoch: epoch << 2, bit: 1 << second as u16 }
    }

    /// Whether it is among the marks that an entry has.
    pub(crate) const fn is_on(self, has: u16) -> bool {
        has & (!3 | self.bit) == self.epoch | self.bit
    }

    /// The marks of an entry with this one added; those of other epochs go.
    pub(crate) const fn put_on(self, has: u16) -> u16 {
        let others = if has & !3 == self.epoch { has & 3 } else { 0 };
        self.epoch | others | self.bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_its_epoch_and_kind() {
        let (first, second) = (Mark::new(7, false), Mark::new(7, true));
        let has = first.put_on(0);
        assert!(first.is_on(has) && !second.is_on(has));
        let has = second.put_on(has);
        assert!(first.is_on(has) && second.is_on(has));
        let later = Mark::new(8, false);
        assert!(!later.is_on(has));
        let has = later.put_on(has);
        assert!(later.is_on(has) && !first.is_on(has) && !second.is_on(has));
        assert!(!Mark::new(1, false).is_on(0) && !Mark::new(Mark::LAST_EPOCH, true).is_on(0));
    }
}
