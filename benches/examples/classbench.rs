//! The compiled matcher on a ClassBench filter set and trace; prints one JSON object.
//!
//! Every packet's answer is first compared with the walk over all filters (a sample of them where
//! the set is large); if one differs, nothing is measured and the exit status is 1.
//!
//! `--export` writes what is measured in the form that DPDK's `dpdk-test-acl` reads, so that both
//! look up the same packets in the same filters, and the answers, so that they can be compared.

// A measurement reads files and the clock.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use sgwall_benches::classbench::{
    Filter, Packet, filter_to_ipv6, packet_to_ipv6, random_packets, read_filters, read_packets,
    scale,
};
use sgwall_rules::matcher::{Entry, Matcher};

/// Comparisons of a filter with a packet that the check may take.
const CHECK: usize = 200_000_000;
/// Packets of a cold batch: as many as a worker reads from a device at most.
const COLD_BATCH: usize = 64;
/// Packets that are looked up together.
const BATCH: usize = 64;
/// Fewer packets than this are not measured.
const FEW: usize = 1000;
/// Bytes read between cold batches: more than any cache of the machines that we know.
const EVICT: usize = 128 << 20;

/// Measures the matcher on a ClassBench filter set and trace.
#[derive(Debug, Parser)]
struct Args {
    /// The filter set
    filters: PathBuf,
    /// The trace, plain text
    trace: PathBuf,
    /// Make so many filters of the set's
    #[arg(long, value_name = "N")]
    scale: Option<usize>,
    /// The same filters and packets in IPv6
    #[arg(long)]
    ipv6: bool,
    /// How often to measure; the median is reported
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Length of a measurement, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 60)]
    milliseconds: u64,
    /// Write filters, packets and answers to this directory and measure nothing
    #[arg(long, value_name = "DIRECTORY")]
    export: Option<PathBuf>,
    /// Only check the answers
    #[arg(long)]
    check: bool,
    /// Measure the trace alone: neither hits and misses nor cold caches
    #[arg(long)]
    trace_only: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("classbench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Value, Box<dyn Error>> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let at = |path: &Path, error: String| format!("{}: {error}", path.display());
    let mut filters =
        read_filters(&read(&args.filters)?).map_err(|error| at(&args.filters, error))?;
    let mut trace = read_packets(&read(&args.trace)?).map_err(|error| at(&args.trace, error))?;
    if filters.is_empty() || trace.is_empty() {
        return Err("there are no filters, or no packets".into());
    }
    if let Some(n) = args.scale {
        (filters, trace) = scale(&filters, &trace, n);
    }
    if args.ipv6 {
        filters = filters.iter().map(filter_to_ipv6).collect();
        trace = trace.iter().map(packet_to_ipv6).collect();
    }
    let begin = Instant::now();
    let matcher = compile(&filters);
    let compiled = begin.elapsed();

    let mut checked = check(&matcher, &filters, &trace)?;
    let mut answer = json!({
        "bench": "classbench",
        "set": args.filters.file_name().map(|name| name.to_string_lossy()),
        "family": if args.ipv6 { 6 } else { 4 },
        "filters": filters.len(),
        "packets": trace.len(),
        "compile_ms": compiled.as_secs_f64() * 1e3,
        "heap_bytes": matcher.heap_bytes(),
    });
    if let Some(directory) = &args.export {
        export(directory, &filters, &trace, &matcher)?;
    }
    let split = Split::new(&filters, &trace, args.ipv6);
    checked += split.check()?;
    answer["checked"] = checked.into();
    if args.export.is_none() && !args.check {
        let mut lookups = json!({
            "trace": measure(&matcher, &trace, args),
            "batches": measure_batches(&matcher, &trace, args),
        });
        if !args.trace_only {
            lookups["hits"] = measure(&split.matcher, &split.hits, args);
            lookups["misses"] = measure(&split.matcher, &split.misses, args);
            lookups["cold"] = measure_cold(&matcher, &trace, args);
        }
        answer["lookups_per_second"] = lookups;
    }
    Ok(answer)
}

/// Packets that some filter matches and packets that none does. Of the set without those filters
/// that match everything: projected, each of ClassBench's sets has some, and nothing would miss.
struct Split {
    filters: Vec<Filter>,
    matcher: Matcher,
    hits: Vec<Packet>,
    misses: Vec<Packet>,
}

impl Split {
    fn new(filters: &[Filter], trace: &[Packet], ipv6: bool) -> Self {
        let is_specific =
            |f: &&Filter| f.protocol.is_some() || f.source.prefix_len() > if ipv6 { 32 } else { 0 };
        let filters: Vec<Filter> = filters.iter().filter(is_specific).copied().collect();
        let matcher = compile(&filters);
        let (mut hits, mut misses) = (trace.to_vec(), random_packets(4 * trace.len(), ipv6));
        hits.retain(|packet| lookup(&matcher, packet).is_some());
        misses.retain(|packet| lookup(&matcher, packet).is_none());
        misses.truncate(trace.len());
        Split { filters, matcher, hits, misses }
    }

    fn check(&self) -> Result<usize, String> {
        let hits = check(&self.matcher, &self.filters, &self.hits)?;
        Ok(hits + check(&self.matcher, &self.filters, &self.misses)?)
    }
}

fn compile(filters: &[Filter]) -> Matcher {
    let entries: Vec<Entry> = filters.iter().zip(0..).map(|(f, rank)| f.entry(rank)).collect();
    Matcher::new(&entries)
}

#[inline]
fn lookup(matcher: &Matcher, packet: &Packet) -> Option<u32> {
    matcher.lookup(&packet.source, packet.protocol, packet.port)
}

/// Compares the matcher with the walk over all filters, on packets spread over the whole; how many.
fn check(matcher: &Matcher, filters: &[Filter], packets: &[Packet]) -> Result<usize, String> {
    let step = (packets.len() * filters.len()).div_ceil(CHECK).max(1);
    let mut checked = 0;
    for packet in packets.iter().step_by(step) {
        let walked = filters.iter().zip(0..).find(|(f, _)| f.matches(packet)).map(|(_, rank)| rank);
        let found = lookup(matcher, packet);
        if found != walked {
            return Err(format!("{packet:?}: the matcher says {found:?}, the walk {walked:?}"));
        }
        checked += 1;
    }
    let asked: Vec<_> = packets.iter().map(|p| (p.source, p.protocol, p.port)).collect();
    let mut found = vec![None; asked.len()];
    matcher.lookup_batch(&asked, &mut found);
    match packets.iter().zip(&found).find(|(packet, found)| lookup(matcher, packet) != **found) {
        Some((packet, found)) => Err(format!("{packet:?}: {found:?} in a batch, else not")),
        None => Ok(checked),
    }
}

/// Lookups a second, over the packets in their order, again and again; nothing of a few packets,
/// which would be measured in the first cache alone.
fn measure(matcher: &Matcher, packets: &[Packet], args: &Args) -> Value {
    repeat(packets.len(), args, || {
        for packet in packets {
            black_box(lookup(matcher, packet));
        }
    })
}

/// The same by [`Matcher::lookup_batch`], as DPDK's library is asked, for many packets at once.
fn measure_batches(matcher: &Matcher, packets: &[Packet], args: &Args) -> Value {
    let asked = packets.iter().map(|packet| (packet.source, packet.protocol, packet.port));
    let asked: Vec<_> = asked.collect();
    let mut found = [None; BATCH];
    repeat(packets.len(), args, || {
        for batch in asked.chunks(BATCH) {
            matcher.lookup_batch(batch, &mut found);
            black_box(&found);
        }
    })
}

/// Packets a second where `once` looks so many up.
fn repeat(packets: usize, args: &Args, mut once: impl FnMut()) -> Value {
    if packets < FEW {
        return Value::Null;
    }
    let length = Duration::from_millis(args.milliseconds);
    once();
    let rates = (0..args.rounds).map(|_| {
        let (begin, mut passes) = (Instant::now(), 0);
        loop {
            once();
            passes += 1;
            let took = begin.elapsed();
            if took >= length {
                return (passes * packets) as f64 / took.as_secs_f64();
            }
        }
    });
    summary(rates.collect())
}

/// Lookups a second, a batch at a time, after the caches were filled with something else. The
/// batch's own packets are in the cache: they have just been read from a device.
fn measure_cold(matcher: &Matcher, packets: &[Packet], args: &Args) -> Value {
    let other = vec![1_u8; EVICT];
    let batches = packets.chunks_exact(COLD_BATCH).step_by(7).cycle().take(8 * args.rounds);
    let rates = batches.map(|batch| {
        black_box(other.iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>());
        let batch = black_box(batch.to_vec());
        let begin = Instant::now();
        for packet in &batch {
            black_box(lookup(matcher, packet));
        }
        COLD_BATCH as f64 / begin.elapsed().as_secs_f64()
    });
    summary(rates.collect())
}

fn summary(mut rates: Vec<f64>) -> Value {
    let taken = rates.clone();
    rates.sort_by(f64::total_cmp);
    json!({ "median": rates.get(rates.len() / 2), "values": taken })
}

/// Writes `filters`, `trace`, and in `ranks` for each packet the filter that it matches, from 0, or
/// -1.
fn export(
    directory: &Path,
    filters: &[Filter],
    trace: &[Packet],
    matcher: &Matcher,
) -> std::io::Result<()> {
    let write = |name: &str, lines: &mut dyn Iterator<Item = String>| {
        let mut out = BufWriter::new(File::create(directory.join(name))?);
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    write("filters", &mut filters.iter().map(Filter::to_line))?;
    write("trace", &mut trace.iter().map(Packet::to_line))?;
    let rank = |packet| lookup(matcher, packet).map_or("-1".to_owned(), |rank| rank.to_string());
    write("ranks", &mut trace.iter().map(rank))
}
