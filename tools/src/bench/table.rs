//! `sgwall bench table`: the flow table at work, and its memory.

use std::fs;

use serde_json::{Value, json};
use sgwall_benches::flows::{Flows, Operation, Way};

use super::args::TableArgs;
use super::runs::Report;
use crate::failure::Failure;

pub(super) fn run(args: &TableArgs) -> Result<(), Failure> {
    let mut report = Report::new("table", &args.runs, Operation::ALL.len());
    // First, while the process has freed nothing that the table could take.
    let bytes = bytes_a_flow(args)?;
    for operation in Operation::ALL {
        report.measure(operation.name(), || Flows::new(operation, args.flows, args.ipv6))?;
    }
    let family = if args.ipv6 { "IPv6" } else { "IPv4" };
    let with = [("flows", json!(args.flows)), ("family", json!(family))];
    report.print(&with, &[("resident_bytes_a_flow", rounded(bytes))])
}

/// How much the process grew by a table with all its flows.
fn bytes_a_flow(args: &TableArgs) -> Result<f64, Failure> {
    let before = resident()?;
    let flows = Flows::new(Operation::Uniform(Way::Batch), args.flows, args.ipv6);
    let grown = resident()?.saturating_sub(before);
    Ok(grown as f64 / flows.table().len() as f64)
}

fn rounded(bytes: f64) -> Value {
    json!((bytes * 10.0).round() / 10.0)
}

/// Bytes of the process that are in memory. The kernel counts pages, and batches some.
fn resident() -> Result<usize, Failure> {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<usize>().ok());
    let pages = pages.ok_or_else(|| Failure::Io("cannot read /proc/self/statm".to_owned()))?;
    Ok(pages * rustix::param::page_size())
}
