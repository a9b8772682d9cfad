//! The live firewall: frames in from devices, judged, and out again.
//!
//! * [`topology`] says which port leads where;
//! * [`firewall`] is what a worker does with a batch of frames;
//! * [`shared`] holds what workers share: the policy in force, and flows in shards;
//! * [`open`] opens devices, [`engine`] runs workers between them and answers for them;
//! * [`control`] is the socket over which others ask and command;
//! * [`filter`] says which flows or verdicts somebody means;
//! * [`flow_log`] counts for the flow log, and hands its windows to whoever writes them;
//! * [`top`] finds who has most of the flows, [`full`] watches for a table without places;
//! * [`trace`] shows verdicts to whoever asks, without holding up packets.
//!
//! It knows no rules and no protocol: what becomes of a packet is the dataplane's to say. It opens
//! no files and prints nothing: that is for the command line.

pub mod control;
pub mod counting;
pub mod engine;
#[cfg(debug_assertions)]
mod fault;
pub mod filter;
pub mod firewall;
pub mod flow_log;
pub mod full;
pub mod open;
pub mod shared;
mod sync;
pub mod top;
pub mod topology;
pub mod trace;

pub use engine::{Engine, OnReload};
pub use firewall::Firewall;
pub use open::{OpenOptions, OpenPort, open};
pub use shared::{Shared, Snapshot};
pub use topology::{Behind, Port, Topology};
