//! `sgwall bench pipeline`: packets in memory, from frame to verdict.

use serde_json::json;
use sgwall_benches::workload::{Packets, Traffic};

use super::args::PipelineArgs;
use super::runs::Report;
use crate::failure::Failure;

/// The most that frames may take, bytes: their places have 32 bits.
const MOST_BYTES: usize = u32::MAX as usize;

pub(super) fn run(args: &PipelineArgs) -> Result<(), Failure> {
    let lengths = args.length.in_memory();
    let mean = lengths.iter().map(|len| len.next_multiple_of(64)).sum::<usize>() / lengths.len();
    if mean * args.flows as usize > MOST_BYTES {
        return Err(Failure::Usage(format!(
            "--flows {} --length {}: the frames take more than 4 GiB; ask for fewer or shorter ones",
            args.flows, args.length
        )));
    }
    let mut report = Report::new("pipeline", &args.runs, args.packets.len());
    for &kind in &args.packets {
        let traffic = Traffic::from(kind);
        let make = || Packets::new(traffic, args.flows, args.rules as usize, &lengths);
        report.measure(traffic.name(), make)?;
    }
    let length = args.length.to_string();
    let with =
        [("flows", json!(args.flows)), ("rules", json!(args.rules)), ("length", json!(length))];
    report.print(&with, &[])
}
