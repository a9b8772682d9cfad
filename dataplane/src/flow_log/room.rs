//! How many records several flow logs may have together, those included that are closed and not
//! yet written: so a writer that lags costs records, and never memory without bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places for records that several logs share.
#[derive(Debug)]
pub struct Room {
    left: AtomicUsize,
}

impl Room {
    /// Room for so many records.
    #[must_use]
    pub fn new(records: usize) -> Self {
        Room { left: AtomicUsize::new(records) }
    }

    /// Places that are free.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// Places that the records of a log or of a window have; free again when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// `None`: there is no limit but the log's own.
    room: Option<Arc<Room>>,
    places: usize,
}

impl Taken {
    pub(super) fn of(room: Arc<Room>) -> Self {
        Taken { room: Some(room), places: 0 }
    }

    /// Takes a place; false if none is free.
    pub(super) fn take(&mut self) -> bool {
        let Some(room) = &self.room else { return true };
        let one_less = |left: usize| left.checked_sub(1);
        let is_free =
            room.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        self.places += usize::from(is_free);
        is_free
    }

    /// Hands over all that was taken.
    pub(super) fn split(&mut self) -> Self {
        Taken { room: self.room.clone(), places: std::mem::take(&mut self.places) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.left.fetch_add(self.places, Ordering::Relaxed);
        }
    }
}
