//! All input and output of sgwall, and its only clock.
//!
//! * [`capture`] reads packet captures and writes them.
//! * [`seed`] asks the operating system for randomness.
//!
//! This crate does not know why a packet was dropped: it carries bytes, times and directions.

// The core crates may not do this; here is where it is done.
#![allow(clippy::disallowed_methods)]

pub mod capture;
pub mod seed;
