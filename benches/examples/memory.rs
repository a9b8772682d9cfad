//! Bytes a flow, as the allocator counts them: `memory [FLOWS]`, ten million unless told.
//!
//! A table is filled with established TCP flows, of IPv4 and then of IPv6; everything that it
//! allocates counts: entries, index, timing wheel, and room that is not used. *Most* is the same
//! while it grew; an allocator that can move a block without a copy needs less.

use peak_alloc::PeakAlloc;
use sgwall_benches::flows::{Flows, Operation, Way};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() {
    let count: u32 =
        std::env::args().nth(1).map_or(10_000_000, |text| text.parse().expect("FLOWS is a number"));
    println!("{count} flows, bytes a flow");
    println!("{:<6}{:>10}{:>10}{:>10}", "", "empty", "full", "most");
    for (family, is_ipv6) in [("IPv4", false), ("IPv6", true)] {
        let before = ALLOCATOR.current_usage();
        let a_flow = |bytes: usize| (bytes - before) as f64 / f64::from(count);
        let flows = Flows::new(Operation::Insert, count, is_ipv6);
        let empty = a_flow(ALLOCATOR.current_usage());
        drop(flows);
        ALLOCATOR.reset_peak_usage();
        let flows = Flows::new(Operation::Uniform(Way::Batch), count, is_ipv6);
        assert_eq!(flows.table().len(), count as usize);
        let (full, most) = (ALLOCATOR.current_usage(), ALLOCATOR.peak_usage());
        println!("{family:<6}{empty:>10.1}{:>10.1}{:>10.1}", a_flow(full), a_flow(most));
    }
}
