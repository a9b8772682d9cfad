//! What was measured, as a table for people or one object for programs.

use std::io::{self, Write};

use serde::Serialize;
use sgwall_netio::device::Features;
use sgwall_netio::worker::PortStats;

use super::measure::Measure;
use super::stats::{interval, median};
use crate::bench::args::ForwardArgs;

/// All measurements of a run.
pub(super) struct Report<'a> {
    args: &'a ForwardArgs,
    names: Vec<&'static str>,
    /// By measure: the rounds in the order they were taken, each with a value of every contender.
    rounds: [Vec<Vec<f64>>; Measure::ALL.len()],
    counters: PortStats,
    /// The offload that the kernel granted.
    pub(super) granted: Features,
}

#[derive(Serialize)]
struct Row {
    measure: &'static str,
    unit: &'static str,
    handlers: Vec<Handler>,
    /// Of the last handler to the first, if there are several.
    ratio: Option<Ratio>,
}

#[derive(Serialize)]
struct Handler {
    name: &'static str,
    median: f64,
    values: Vec<f64>,
}

#[derive(Serialize)]
struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a ForwardArgs, names: Vec<&'static str>) -> Self {
        Report {
            args,
            names,
            rounds: Default::default(),
            counters: PortStats::default(),
            granted: Features::NONE,
        }
    }

    /// Adds rounds of a measurement.
    pub(super) fn add(&mut self, measure: Measure, rounds: Vec<Vec<f64>>) {
        self.rounds[measure as usize].extend(rounds);
    }

    /// Adds what workers counted.
    pub(super) fn add_counters(&mut self, counters: PortStats) {
        self.counters = self.counters.plus(counters);
    }

    fn row(&self, measure: Measure) -> Row {
        let rounds = &self.rounds[measure as usize];
        let handlers = self.names.iter().enumerate().map(|(n, name)| {
            let values: Vec<f64> =
                rounds.iter().filter_map(|round| round.get(n).copied()).collect();
            Handler { name, median: median(&values), values }
        });
        let ratios: Vec<f64> = rounds
            .iter()
            .filter_map(|round| match round[..] {
                [first, .., last] => Some(last / first),
                _ => None,
            })
            .collect();
        let (low, high) = interval(&ratios);
        let ratio = (self.names.len() > 1).then(|| Ratio { median: median(&ratios), low, high });
        let (name, _, unit) = measure.words();
        Row { measure: name, unit, handlers: handlers.collect(), ratio }
    }

    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let ForwardArgs { queues, turn, mtu, .. } = self.args;
        let s = if *queues == 1 { "" } else { "s" };
        writeln!(
            out,
            "between two TAP interfaces, {queues} queue{s}, MTU {mtu}, offload {}; medians of turns \
             of {turn} ms",
            self.granted
        )?;
        write!(out, "\n{:<22}{:>8}", "", "")?;
        for name in &self.names {
            write!(out, "{name:>12}")?;
        }
        match self.names.len() {
            1 => writeln!(out, "{:>8}", "turns")?,
            _ => writeln!(out, "{:>10}{:>18}{:>8}", "ratio", "95% interval", "turns")?,
        }
        for &measure in &self.args.only {
            let row = self.row(measure);
            write!(out, "{:<22}{:>8}", measure.words().1, row.unit)?;
            for handler in &row.handlers {
                write!(out, "{:>12.2}", handler.median)?;
            }
            if let Some(Ratio { median, low, high }) = row.ratio {
                let interval = format!("{:.1} to {:.1}%", 100.0 * low, 100.0 * high);
                write!(out, "{:>9.1}%{interval:>18}", 100.0 * median)?;
            }
            let turns = self.rounds[measure as usize].len() * self.names.len();
            writeln!(out, "{turns:>8}")?;
        }
        let named = self.counters.named();
        let dropped: Vec<String> = named
            .iter()
            .filter(|(name, count)| *count > 0 && !is_traffic(name))
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let batch = self.counters.rx_frames as f64 / self.counters.rx_batches.max(1) as f64;
        let dropped = if dropped.is_empty() { "no drops".to_owned() } else { dropped.join(", ") };
        writeln!(out, "\n{} frames read, {batch:.1} a batch; {dropped}", self.counters.rx_frames)
    }

    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let counters = self.counters.named().map(|(name, count)| (name.to_owned(), count.into()));
        let counters: serde_json::Map<String, serde_json::Value> = counters.into_iter().collect();
        let rows: Vec<Row> = self.args.only.iter().map(|measure| self.row(*measure)).collect();
        let object = serde_json::json!({
            "bench": "forward",
            "queues": self.args.queues,
            "mtu": self.args.mtu,
            "offload": self.granted.to_string(),
            "seconds": self.args.seconds,
            "turn_ms": self.args.turn,
            "labs": self.args.labs,
            "results": rows,
            "counters": counters,
        });
        writeln!(out, "{object}")
    }
}

/// Counters that say what was moved, not what was lost.
fn is_traffic(name: &str) -> bool {
    matches!(
        name,
        "rx_frames"
            | "rx_bytes"
            | "rx_batches"
            | "tx_frames"
            | "tx_bytes"
            | "tx_segmented"
            | "tx_checksums"
    )
}
