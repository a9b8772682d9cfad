//! The whole way of a packet, frame to verdict: parsing, network ACL, tracking, groups, path MTU.
//! No devices: frames lie in memory, packed, and are judged in batches of 64.

#![allow(missing_docs)]
// It measures time.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sgwall_benches::workload::{DATA, Frames, IMIX, NOW, judge, open, pipeline, shuffled};
use sgwall_packet::Direction;

/// Frames of 64 bytes, their checksum among them.
const SMALL: &[usize] = &[60];

fn data(flows: u32, lengths: &[usize]) -> Frames {
    Frames::new(DATA, Direction::Ingress, shuffled(flows).into_iter(), lengths)
}

/// Packets of established, tracked flows: by number of flows, by size, by number of rules.
fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/established");
    let mut run = |name: &str, flows: u32, rules: usize, lengths: &[usize]| {
        let mut pipeline = pipeline(rules, flows as usize + 64);
        open(&mut pipeline, flows);
        let data = data(flows, lengths);
        group.throughput(Throughput::Elements(flows.into()));
        group.sample_size(if flows > 100_000 { 20 } else { 100 });
        group.bench_function(name, |b| b.iter(|| judge(&mut pipeline, black_box(&data))));
    };
    for flows in [100, 10_000, 1_000_000] {
        run(&format!("{flows} flows"), flows, 1000, SMALL);
    }
    for (name, lengths) in [("256 bytes", &[252][..]), ("1500 bytes", &[1496]), ("IMIX", &IMIX)] {
        run(name, 10_000, 1000, lengths);
    }
    for rules in [10, 100, 10_000, 100_000] {
        run(&format!("{rules} rules"), 10_000, rules, SMALL);
    }
    group.finish();
}

/// Packets that the rules decide, each time: of untracked flows, and refused ones.
fn by_rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/rules");
    const PACKETS: u32 = 10_000;
    group.throughput(Throughput::Elements(PACKETS.into()));
    let kinds = [
        ("untracked", "udp 203.0.0.1:1 -> 10.0.1.10:53", true),
        ("refused", "tcp 203.0.0.1:1 -> 10.0.1.10:444 S", false),
    ];
    for rules in [10, 100, 1_000, 10_000, 100_000] {
        for (name, line, passes) in kinds {
            let mut pipeline = pipeline(rules, 64);
            let order = shuffled(PACKETS).into_iter();
            let frames = Frames::new(line, Direction::Ingress, order, SMALL);
            let passed = if passes { PACKETS as usize } else { 0 };
            group.bench_function(BenchmarkId::new(name, rules), |b| {
                b.iter(|| assert_eq!(judge(&mut pipeline, black_box(&frames)), passed));
            });
        }
    }
    group.finish();
}

/// The first packet of a flow: looked up, admitted by a rule, written down. The table has held other
/// flows before, as one that has run for a while.
fn new_flows(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/new");
    const FLOWS: u32 = 100_000;
    group.throughput(Throughput::Elements(FLOWS.into()));
    group.sample_size(20);
    let line = "tcp 203.0.0.1:1 -> 10.0.1.10:443 S seq=1";
    for rules in [10, 1_000, 100_000] {
        let mut pipeline = pipeline(rules, FLOWS as usize + 64);
        let frames = Frames::new(line, Direction::Ingress, shuffled(FLOWS).into_iter(), SMALL);
        group.bench_function(BenchmarkId::from_parameter(rules), |b| {
            b.iter_custom(|iterations| {
                let mut taken = Duration::ZERO;
                for _ in 0..iterations {
                    let places = 0..pipeline.connections().places();
                    pipeline.end_flows(places, NOW, |_| true);
                    let begin = Instant::now();
                    assert_eq!(judge(&mut pipeline, black_box(&frames)), FLOWS as usize);
                    taken += begin.elapsed();
                }
                taken
            });
        });
    }
    group.finish();
}

/// Two workers, each with flows of its own, as steering gives them: what one takes for its part
/// while the other works, too.
fn two_cores(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/cores");
    const FLOWS: u32 = 10_000;
    for workers in [1, 2] {
        group.throughput(Throughput::Elements(u64::from(FLOWS) * workers as u64));
        group.bench_function(BenchmarkId::from_parameter(workers), |b| {
            b.iter_custom(|iterations| {
                let barrier = Barrier::new(workers);
                let work = || {
                    let mut pipeline = pipeline(1000, FLOWS as usize + 64);
                    open(&mut pipeline, FLOWS);
                    let data = data(FLOWS, SMALL);
                    // Memory and marks are warm when the clock starts.
                    judge(&mut pipeline, &data);
                    judge(&mut pipeline, &data);
                    barrier.wait();
                    let begin = Instant::now();
                    for _ in 0..iterations {
                        judge(&mut pipeline, black_box(&data));
                    }
                    barrier.wait();
                    begin.elapsed()
                };
                std::thread::scope(|scope| {
                    let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
                    let taken = threads.into_iter().map(|t| t.join().expect("it ends"));
                    taken.max().unwrap_or_default()
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, established, by_rules, new_flows, two_cores);
criterion_main!(benches);
