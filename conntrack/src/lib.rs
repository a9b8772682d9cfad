//! What has been seen: the table of tracked flows, their states, timeouts and expiry.
//!
//! * [`table`] is the table that a worker owns: lookup, insert, refresh, expiry.
//! * [`tcp`] is the TCP state machine (SEMANTICS 7.6, 7.7); [`entry`] has the others.
//! * [`timeouts`] says how long each state may be idle (SEMANTICS 7.10).
//! * `store` holds the entries of one address family: a slab, an index and a timing wheel;
//!   `index` is the hash table, a cache line for fifteen entries; `embryonic` knows the oldest
//!   flows that nobody has answered.
//! * [`Mark`] is what the caller remembers of a flow, so that it need not find it out again.
//!
//! **Life cycle.** An entry is made by the accepted packet that opens a flow, refreshed by every
//! accepted packet of it, and dead once it has been idle for its state's timeout. Death is exact
//! at lookup, by the deadline that the entry holds; the wheel only frees memory, a bounded amount
//! of work at a time.
//!
//! **Sharing.** A table belongs to one worker; nothing here locks. Tables of several workers may
//! share the number of flows that all may hold together, an [`Allowance`], and what of it each
//! interface may hold ([`Limits`]).
//!
//! This crate knows no rules (it keeps an opaque [`RuleTag`]), no interfaces (a [`Scope`]) and no
//! clock: the time comes with each call.

mod allowance;
mod embryonic;
mod entry;
mod index;
mod mark;
mod pages;
mod probe;
mod store;
mod sync;
mod table;
mod tcp;
mod timeouts;

pub use allowance::{Allowance, Limits};
pub use entry::{FlowState, FlowView, may_open};
pub use mark::Mark;
pub use probe::Probe;
pub use table::{Config, ConnTable, Counters, Footprint, Full, FullTable, Hit, Lookup, Noted};
pub use timeouts::TimeoutProfile;

/// The interface that owns a flow: each has its own (SEMANTICS 7.1), all in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(pub u32);

/// What the caller wants to know again about the rule that admitted a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleTag(pub u32);
