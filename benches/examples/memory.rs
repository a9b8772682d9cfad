//! Bytes a flow: `memory [FLOWS]`, ten million unless told.
//!
//! A table is made for so many flows and filled with established TCP flows, of IPv4 and then of IPv6.
//! *Reserved* is what the allocator gave for everything: entries, index, timing wheel. A table makes room
//! for as many flows of either family from the beginning, and what nobody has touched is no memory
//! yet; so *in memory*, by the process's resident pages, is what the flows of one family really take.

// It reads what the kernel counts.
#![allow(clippy::disallowed_methods)]

use std::alloc::System;

use sgwall_benches::flows::{Flows, Operation, Way};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let number = |text: String| text.parse().expect("FLOWS is a number");
    let count: u32 = std::env::args().nth(1).map_or(10_000_000, number);
    println!("{count} flows, bytes a flow\n{:<6}{:>10}{:>12}", "", "reserved", "in memory");
    for (family, is_ipv6) in [("IPv4", false), ("IPv6", true)] {
        let before = (reserved(), resident());
        let flows = Flows::new(Operation::Uniform(Way::Batch), count, is_ipv6);
        assert_eq!(flows.table().len(), count as usize);
        let a_flow = |now: usize, before: usize| (now - before) as f64 / f64::from(count);
        let (reserved, resident) = (a_flow(reserved(), before.0), a_flow(resident(), before.1));
        println!("{family:<6}{reserved:>10.1}{resident:>12.1}");
    }
}

fn reserved() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|text| text.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size()
}
