//! What threads share: the standard library's atomics and lock, or loom's where `tests/loom.rs`
//! tries every order in which threads can meet at them (`--cfg loom`).

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, atomic};
