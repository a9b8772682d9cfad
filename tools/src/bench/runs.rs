//! Work measured in short runs, by several threads at once, and what came out.

use std::io::{self, IsTerminal, Write};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sgwall_benches::Work;

use super::args::RunsArgs;
use crate::failure::Failure;

/// Runs of a measurement at least, however long they take with what they need before.
const FEWEST: usize = 20;
/// How much longer a worker runs before it is measured: this part of the time.
const WARM_UP: f64 = 0.1;
/// How often the bar moves.
const BEAT: Duration = Duration::from_millis(100);

/// All measurements of one command, as they are taken.
pub(super) struct Report<'a> {
    bench: &'static str,
    args: &'a RunsArgs,
    mhz: Option<f64>,
    bar: Option<ProgressBar>,
    results: Vec<(String, Outcome)>,
}

/// What a measurement came to.
struct Outcome {
    /// Nanoseconds for each packet, look-up or flow: one value for each run, in ascending order.
    nanos: Vec<f64>,
    operations: usize,
    /// All workers together.
    per_second: f64,
}

impl<'a> Report<'a> {
    /// A report of so many measurements.
    pub(super) fn new(bench: &'static str, args: &'a RunsArgs, measurements: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| bar(measurements, args.seconds));
        Report { bench, args, mhz: megahertz(), bar, results: Vec::new() }
    }

    /// Measures what `make` makes, one for each worker.
    pub(super) fn measure<W: Work>(
        &mut self,
        name: &str,
        make: impl Fn() -> W + Sync,
    ) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
        let workers = usize::from(self.args.workers);
        let length = Duration::from_secs_f64(self.args.seconds);
        let barrier = Barrier::new(workers);
        let work = || {
            let work = make();
            barrier.wait();
            time(work, length)
        };
        let parts: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                if let Some(bar) = &self.bar {
                    bar.tick();
                }
                thread::sleep(BEAT.min(length / 10));
            }
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let mut sum = Outcome { nanos: Vec::new(), operations: 0, per_second: 0.0 };
        for part in parts {
            let part =
                part.map_err(|_| Failure::Io(format!("{name}: a worker came to a wrong result")))?;
            sum.nanos.extend(part.nanos);
            sum.operations += part.operations;
            sum.per_second += part.per_second;
        }
        sum.nanos.sort_by(f64::total_cmp);
        self.results.push((name.to_owned(), sum));
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        Ok(())
    }

    /// Prints it: what it was measured with, the measurements and, last, what else was found out.
    pub(super) fn print(
        self,
        with: &[(&str, Value)],
        also: &[(&str, Value)],
    ) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let mut out = anstream::stdout();
        match self.args.json {
            true => self.write_json(&mut out, with, also),
            false => self.write_table(&mut out, with, also),
        }
        .map_err(Failure::Output)
    }

    fn cycles(&self, nanos: f64) -> Option<f64> {
        self.mhz.map(|mhz| nanos * mhz / 1e3)
    }

    fn write_table(
        &self,
        out: &mut dyn Write,
        with: &[(&str, Value)],
        also: &[(&str, Value)],
    ) -> io::Result<()> {
        let words =
            with.iter().map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value)));
        let RunsArgs { seconds, workers, .. } = self.args;
        let s = if *workers == 1 { "" } else { "s" };
        writeln!(
            out,
            "{}: {}; {workers} worker{s}, {seconds} s each",
            self.bench,
            words.collect::<Vec<_>>().join(", ")
        )?;
        let cycles = match self.mhz {
            Some(mhz) => format!("cycles at {mhz:.0} MHz"),
            None => "cycles: /proc/cpuinfo names no frequency".to_owned(),
        };
        writeln!(out, "ns for each, a worker; millions a second, all workers; {cycles}\n")?;
        writeln!(
            out,
            "{:<28}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "", "fastest", "p50", "p90", "p99", "M/s", "cycles"
        )?;
        for (name, outcome) in &self.results {
            write!(out, "{name:<28}")?;
            for part in [0.0, 0.5, 0.9, 0.99] {
                write!(out, "{:>9.1}", outcome.percentile(part))?;
            }
            write!(out, "{:>9.2}", outcome.per_second / 1e6)?;
            match self.cycles(outcome.percentile(0.5)) {
                Some(cycles) => writeln!(out, "{cycles:>9.0}")?,
                None => writeln!(out, "{:>9}", "-")?,
            }
        }
        if !also.is_empty() {
            writeln!(out)?;
        }
        for (name, value) in also {
            writeln!(out, "{:<28}{:>9}", name.replace('_', " "), plain(value))?;
        }
        Ok(())
    }

    fn write_json(
        &self,
        out: &mut dyn Write,
        with: &[(&str, Value)],
        also: &[(&str, Value)],
    ) -> io::Result<()> {
        let results = self.results.iter().map(|(name, outcome)| {
            json!({
                "name": name,
                "runs": outcome.nanos.len(),
                "operations": outcome.operations,
                "fastest_ns": outcome.percentile(0.0),
                "p50_ns": outcome.percentile(0.5),
                "p90_ns": outcome.percentile(0.9),
                "p99_ns": outcome.percentile(0.99),
                "per_second": outcome.per_second,
                "p50_cycles": self.cycles(outcome.percentile(0.5)),
            })
        });
        let mut object = json!({
            "bench": self.bench,
            "seconds": self.args.seconds,
            "workers": self.args.workers,
            "cpu_mhz": self.mhz,
        });
        for (name, value) in with.iter().chain(also) {
            object[*name] = value.clone();
        }
        object["results"] = results.collect::<Vec<_>>().into();
        writeln!(out, "{object}")
    }
}

impl Outcome {
    /// The value that such a part of the runs, from 0 to 1, lies below or at (nearest rank); zero of
    /// none.
    fn percentile(&self, part: f64) -> f64 {
        let rank = (part * self.nanos.len() as f64).ceil() as usize;
        self.nanos.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Runs after a while of the same that does not count.
fn time<W: Work>(mut work: W, length: Duration) -> Outcome {
    let begin = Instant::now();
    while begin.elapsed() < length.mul_f64(WARM_UP) {
        work.prepare();
        work.run();
    }
    let (mut nanos, mut operations, mut busy) = (Vec::new(), 0, Duration::ZERO);
    let begin = Instant::now();
    while nanos.len() < FEWEST || begin.elapsed() < length {
        work.prepare();
        let begin = Instant::now();
        let count = work.run();
        let taken = begin.elapsed();
        nanos.push(taken.as_nanos() as f64 / count as f64);
        operations += count;
        busy += taken;
    }
    let per_second = operations as f64 / busy.as_secs_f64();
    Outcome { nanos, operations, per_second }
}

/// The processor's frequency as the kernel names it, if it does.
fn megahertz() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("cpu MHz"))?;
    line.trim_start_matches(['\t', ' ', ':']).parse().ok()
}

fn bar(measurements: usize, seconds: f64) -> ProgressBar {
    let bar = ProgressBar::new(measurements as u64).with_prefix(format!("{seconds} s each"));
    match ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} {prefix}  {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A value without JSON's quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let nanos: Vec<f64> = (1..=100).map(f64::from).collect();
        let outcome = Outcome { nanos, operations: 0, per_second: 0.0 };
        let parts = [0.0, 0.5, 0.9, 0.99, 1.0].map(|part| outcome.percentile(part));
        assert_eq!(parts, [1.0, 50.0, 90.0, 99.0, 100.0]);
        let one = Outcome { nanos: vec![7.0], operations: 0, per_second: 0.0 };
        assert_eq!([0.0, 0.5, 0.99].map(|part| one.percentile(part)), [7.0; 3]);
    }
}
