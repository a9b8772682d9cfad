//! `sgwall bench forward`: what this machine moves from one TAP interface to another.
//!
//! Handlers are measured in turns, so that whatever else the machine does meets all of them alike,
//! and compared by medians. The first is always the one that does nothing.

mod filter;
mod lab;
mod measure;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sgwall_netio::worker::{Handler, NullForwarder};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::bench::args::ForwardArgs;
use crate::failure::Failure;
use lab::Lab;
use measure::Measure;
use report::Report;

/// Makes the handlers of so many workers.
type Make = fn(usize) -> Result<Vec<Box<dyn Handler>>, Failure>;

/// A handler to be measured.
struct Contender {
    /// What it is called in the table.
    name: &'static str,
    /// Makes the handlers of so many workers.
    make: Make,
}

/// Runs `sgwall bench forward`.
pub(super) fn run(args: &ForwardArgs) -> Result<(), Failure> {
    let null = Contender {
        name: "null",
        make: |workers| Ok((0..workers).map(|_| Box::new(NullForwarder) as _).collect()),
    };
    let firewall = Contender { name: "firewall", make: filter::handlers };
    match args.null {
        true => compare(args, &[null]),
        false => compare(args, &[null, firewall]),
    }
}

/// Measures every contender as often as asked, in turns, and prints the medians.
fn compare(args: &ForwardArgs, contenders: &[Contender]) -> Result<(), Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Failure::Io(format!("cannot watch for signals: {error}")))?;
    }
    measure::require_iperf3()?;
    let mut report = Report::new(args, contenders);
    for round in 0..args.pairs {
        // Whoever goes first in one round goes last in the next.
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let lab = Lab::new(args, &contenders[index])?;
            report.granted = lab.granted();
            for measure in Measure::ALL {
                let value = measure.take(&lab, args.seconds, &interrupted)?;
                if interrupted.load(Ordering::Relaxed) {
                    return Err(Failure::Io("interrupted; nothing is left behind".to_owned()));
                }
                lab.check()?;
                report.add(index, measure, value);
            }
            report.add_counters(index, lab.stop()?);
        }
    }
    let mut out = anstream::stdout();
    if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }
        .map_err(Failure::Output)
}
