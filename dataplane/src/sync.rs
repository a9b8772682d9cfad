//! Atomics: those of the standard library, or loom's where `tests/loom.rs` tries every order in which
//! threads can meet at them (`--cfg loom`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;
