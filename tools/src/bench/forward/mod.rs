//! `sgwall bench forward`: what this machine moves from one TAP interface to another.
//!
//! Handlers take turns of a tenth of a second on the same devices with the same clients (`turns`),
//! and are compared turn by turn. The first is always the one that does nothing.

mod filter;
mod lab;
mod measure;
mod report;
mod stats;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sgwall_netio::clock::Clock;
use sgwall_netio::worker::{Handler, NullForwarder};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::bench::args::ForwardArgs;
use crate::failure::Failure;
use lab::Lab;
pub(super) use measure::Measure;
use report::Report;
use turns::{TakingTurns, Turns};

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

/// What a measurement may take besides what is measured: for starting and ending clients.
const STARTING: Duration = Duration::from_secs(30);

/// Lets all contenders take turns, begins anew as often as asked, and prints what came out.
fn compare(args: &ForwardArgs, contenders: &[Contender]) -> Result<(), Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Failure::Io(format!("cannot watch for signals: {error}")))?;
    }
    measure::require_iperf3()?;
    let mut report = Report::new(args, contenders.iter().map(|contender| contender.name).collect());
    for _ in 0..args.labs {
        let clock = Clock::new();
        let each = Duration::from_secs(args.seconds.into()) + STARTING;
        let turn = Duration::from_millis(args.turn.into());
        let whole = each * args.only.len() as u32;
        let turns = Arc::new(Turns::new(clock.now(), turn, whole, contenders.len()));
        let lab = Lab::new(args, clock, taking_turns(args, contenders, &turns)?)?;
        report.granted = lab.granted();
        for &measure in &args.only {
            let begin = clock.now();
            measure.take(&lab, args.seconds, &interrupted)?;
            if interrupted.load(Ordering::Relaxed) {
                return Err(Failure::Io("interrupted; nothing is left behind".to_owned()));
            }
            lab.check()?;
            report.add(measure, turns.rounds(measure, begin, clock.now()));
        }
        report.add_counters(lab.stop()?);
    }
    let mut out = anstream::stdout();
    if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }
        .map_err(Failure::Output)
}

/// A handler for each worker, which is all contenders in turn.
fn taking_turns(
    args: &ForwardArgs,
    contenders: &[Contender],
    turns: &Arc<Turns>,
) -> Result<Vec<Box<dyn Handler>>, Failure> {
    let workers = usize::from(args.queues);
    let mut of_workers: Vec<Vec<Box<dyn Handler>>> = (0..workers).map(|_| Vec::new()).collect();
    for contender in contenders {
        for (handlers, handler) in of_workers.iter_mut().zip((contender.make)(workers)?) {
            handlers.push(handler);
        }
    }
    let taking = |handlers| Box::new(TakingTurns::new(Arc::clone(turns), handlers)) as _;
    Ok(of_workers.into_iter().map(taking).collect())
}
