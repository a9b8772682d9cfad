//! How many records several flow logs may have together, those included that are closed and not
//! yet written: so a writer that lags costs records, and never memory without bound.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering};

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

#[cfg(all(test, loom))]
mod tests {
    use super::*;

    /// Two logs want three places of two: they get two, whatever the order, and all are free once
    /// neither has records.
    #[test]
    fn no_place_is_taken_twice_or_lost() {
        loom::model(|| {
            let room = Arc::new(Room::new(2));
            let log = |records: usize| {
                let room = Arc::clone(&room);
                loom::thread::spawn(move || {
                    let mut open = Taken::of(room);
                    let got = (0..records).filter(|_| open.take()).count();
                    // A window that closes takes its places with it.
                    (got, open.split(), open)
                })
            };
            let (one, other) = (log(2), log(1));
            let (one, other) = (one.join().unwrap(), other.join().unwrap());
            assert_eq!(one.0 + other.0, 2);
            assert_eq!(room.left(), 0);
            let freeing = loom::thread::spawn(move || drop(one));
            drop(other);
            freeing.join().unwrap();
            assert_eq!(room.left(), 2);
        });
    }
}
