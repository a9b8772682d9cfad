//! What threads share here: the standard library's atomics and locks, `arc-swap` and `crossbeam`'s
//! queue, or models of them where `tests/loom.rs` tries every order in which threads can meet at
//! them (`--cfg loom`). The models of the last two are a lock around what they hold: the models take
//! those crates at their word.

#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

#[cfg(loom)]
pub(crate) use self::model::{Queue, Slot, Watched};
/// A value that is replaced as a whole.
#[cfg(not(loom))]
pub(crate) use arc_swap::ArcSwapAny as Slot;
/// The value of a slot, for whoever asks again and again.
#[cfg(not(loom))]
pub(crate) type Watched<T> = arc_swap::Cache<std::sync::Arc<Slot<T>>, T>;
/// A bounded queue of many writers and readers.
#[cfg(not(loom))]
pub(crate) use crossbeam::queue::ArrayQueue as Queue;

#[cfg(loom)]
mod model {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::Mutex;

    #[derive(Debug)]
    pub(crate) struct Slot<T>(Mutex<T>);

    impl<T: Clone> Slot<T> {
        pub(crate) fn new(value: T) -> Self {
            Slot(Mutex::new(value))
        }

        pub(crate) fn load_full(&self) -> T {
            self.0.lock().expect("no panic").clone()
        }

        pub(crate) fn store(&self, value: T) {
            *self.0.lock().expect("no panic") = value;
        }
    }

    #[derive(Debug)]
    pub(crate) struct Watched<T> {
        slot: Arc<Slot<T>>,
        last: T,
    }

    impl<T: Clone> Watched<T> {
        pub(crate) fn new(slot: Arc<Slot<T>>) -> Self {
            let last = slot.load_full();
            Watched { slot, last }
        }

        pub(crate) fn load(&mut self) -> &T {
            self.last = self.slot.load_full();
            &self.last
        }
    }

    #[derive(Debug)]
    pub(crate) struct Queue<T> {
        places: usize,
        waiting: Mutex<VecDeque<T>>,
    }

    impl<T> Queue<T> {
        pub(crate) fn new(places: usize) -> Self {
            Queue { places, waiting: Mutex::default() }
        }

        pub(crate) fn push(&self, value: T) -> Result<(), T> {
            let mut waiting = self.waiting.lock().expect("no panic");
            if waiting.len() == self.places {
                return Err(value);
            }
            waiting.push_back(value);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.waiting.lock().expect("no panic").pop_front()
        }
    }
}
