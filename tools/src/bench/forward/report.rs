//! What was measured, as a table for people or one object for programs.

use std::io::{self, Write};

use serde::Serialize;
use sgwall_netio::device::Features;
use sgwall_netio::worker::PortStats;

use super::Contender;
use super::measure::Measure;
use crate::bench::args::ForwardArgs;

/// All measurements of a run.
pub(super) struct Report<'a> {
    args: &'a ForwardArgs,
    names: Vec<&'static str>,
    /// Values by contender and measure, in the order they were taken.
    values: Vec<[Vec<f64>; Measure::ALL.len()]>,
    counters: Vec<PortStats>,
    /// The offload that the kernel granted.
    pub(super) granted: Features,
}

#[derive(Serialize)]
struct Row {
    handler: &'static str,
    measure: &'static str,
    unit: &'static str,
    median: f64,
    values: Vec<f64>,
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a ForwardArgs, contenders: &[Contender]) -> Self {
        Report {
            args,
            names: contenders.iter().map(|contender| contender.name).collect(),
            values: contenders.iter().map(|_| Default::default()).collect(),
            counters: contenders.iter().map(|_| PortStats::default()).collect(),
            granted: Features::NONE,
        }
    }

    /// Adds a measurement of one contender.
    pub(super) fn add(&mut self, contender: usize, measure: Measure, value: f64) {
        self.values[contender][measure as usize].push(value);
    }

    /// Adds what the workers of one contender counted.
    pub(super) fn add_counters(&mut self, contender: usize, counters: PortStats) {
        self.counters[contender] = self.counters[contender].plus(counters);
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        Measure::ALL.into_iter().flat_map(|measure| {
            let (measure_name, _, unit) = measure.words();
            self.names.iter().zip(&self.values).map(move |(handler, values)| {
                let values = values[measure as usize].clone();
                Row { handler, measure: measure_name, unit, median: median(&values), values }
            })
        })
    }

    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let ForwardArgs { queues, seconds, mtu, pairs, .. } = self.args;
        let s = if *queues == 1 { "" } else { "s" };
        writeln!(
            out,
            "between two TAP interfaces, {queues} queue{s}, MTU {mtu}, offload {}; median of \
             {pairs} x {seconds} s",
            self.granted
        )?;
        write!(out, "\n{:<22}{:>8}", "", "")?;
        for name in &self.names {
            write!(out, "{name:>12}")?;
        }
        if self.names.len() > 1 {
            write!(out, "{:>10}", "ratio")?;
        }
        writeln!(out)?;
        for measure in Measure::ALL {
            let (_, words, unit) = measure.words();
            write!(out, "{words:<22}{unit:>8}")?;
            let medians: Vec<f64> =
                self.values.iter().map(|values| median(&values[measure as usize])).collect();
            for value in &medians {
                write!(out, "{value:>12.2}")?;
            }
            if let [first, .., last] = *medians {
                write!(out, "{:>9.1}%", 100.0 * last / first)?;
            }
            writeln!(out)?;
        }
        for (name, counters) in self.names.iter().zip(&self.counters) {
            let dropped: Vec<String> = counters
                .named()
                .iter()
                .filter(|(name, count)| *count > 0 && !is_traffic(name))
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            let batch = counters.rx_frames as f64 / counters.rx_batches.max(1) as f64;
            let dropped =
                if dropped.is_empty() { "no drops".to_owned() } else { dropped.join(", ") };
            writeln!(
                out,
                "\n{name}: {} frames read, {batch:.1} a batch; {dropped}",
                counters.rx_frames
            )?;
        }
        Ok(())
    }

    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let counters: serde_json::Map<String, serde_json::Value> = self
            .names
            .iter()
            .zip(&self.counters)
            .map(|(name, counters)| {
                let named = counters.named().map(|(name, count)| (name.to_owned(), count.into()));
                ((*name).to_owned(), serde_json::Value::Object(named.into_iter().collect()))
            })
            .collect();
        let rows: Vec<Row> = self.rows().collect();
        let object = serde_json::json!({
            "bench": "forward",
            "queues": self.args.queues,
            "mtu": self.args.mtu,
            "offload": self.granted.to_string(),
            "seconds": self.args.seconds,
            "pairs": self.args.pairs,
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

/// The middle value, or the mean of the two in the middle; zero of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => 0.0,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => (upper + sorted.get(middle.wrapping_sub(1)).unwrap_or(upper)) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }
}
