//! All input and output of sgwall, and its only clock.
//!
//! * [`capture`] reads packet captures and writes them.
//! * [`device`] reads and writes frames of live interfaces, with their offload metadata.
//! * [`worker`] moves frames from device to device through a handler, thread by thread.
//! * [`clock`] is the clock.
//! * [`netns`] opens devices in another network namespace.
//! * [`seed`] asks the operating system for randomness.
//!
//! This crate does not know why a packet was dropped: it carries bytes, times and directions.

// The core crates may not do this; here is where it is done.
#![allow(clippy::disallowed_methods)]

pub mod capture;
pub mod clock;
pub mod device;
pub mod netns;
pub mod seed;
pub mod worker;
