//! The flow table by number of flows, one thread and two: look-ups of established flows, insertion,
//! expiry, and all of it together; dashmap and a plain hash map with the same hash beside it.
//!
//! Ten million flows, 1.2 GB a table, only with `SGWALL_BENCH_LARGE=1` in the environment.

#![allow(missing_docs)]
// It measures time.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use sgwall_benches::flows::{Flows, NOW, Operation, Segment, Way, packet};
use sgwall_benches::{RUN, Random, Work};
use sgwall_conntrack::{
    Config, ConnTable, FlowState, FullTable, Lookup, RuleTag, Scope, TimeoutProfile,
};
use sgwall_packet::{FlowKey, Headers, Timestamp};

/// What a map of the standard kind would hold of a flow.
type Value = (Timestamp, u32, u8, [u32; 4]);
type Dash = DashMap<FlowKey, Value, ahash::RandomState>;
type Map = HashMap<FlowKey, Value, ahash::RandomState>;

const VALUE: Value = (NOW, 0, 0, [0; 4]);

fn sizes() -> Vec<u32> {
    let is_large = std::env::var_os("SGWALL_BENCH_LARGE").is_some();
    let sizes = [10_000, 1_000_000, 10_000_000];
    sizes.into_iter().filter(|&flows| is_large || flows <= 1_000_000).collect()
}

fn state() -> ahash::RandomState {
    ahash::RandomState::with_seeds(1, 2, 3, 4)
}

fn key(flow: u32) -> FlowKey {
    FlowKey::of(&packet(false, flow, Segment::Syn)).expect("a flow").0
}

/// As `conntrack/insert/1 thread/10000`.
fn operations(c: &mut Criterion) {
    for operation in Operation::ALL {
        for threads in [1, 2] {
            // Two threads are about what one takes from the other, not about ways of looking up.
            if threads == 2
                && matches!(operation, Operation::Uniform(Way::One) | Operation::Zipf(Way::One))
            {
                continue;
            }
            let mut group = c.benchmark_group(format!("conntrack/{}", operation.name()));
            group.throughput(Throughput::Elements((threads * RUN) as u64)).sample_size(20);
            let s = if threads == 1 { "" } else { "s" };
            for flows in sizes() {
                let new = |_| Flows::new(operation, flows, false);
                let mut works: Vec<_> = (0..threads).map(new).collect();
                group.bench_function(
                    BenchmarkId::new(format!("{threads} thread{s}"), flows),
                    |b| {
                        b.iter_custom(|iterations| together(&mut works, iterations));
                    },
                );
            }
            group.finish();
        }
    }
}

/// So many runs of each, at the same time; the time that the slowest took for them, were each run of
/// [`RUN`] flows.
fn together<W: Work>(works: &mut [W], iterations: u64) -> Duration {
    let barrier = Barrier::new(works.len());
    let repeat = |work: &mut W| {
        barrier.wait();
        let (mut taken, mut operations) = (Duration::ZERO, 0);
        for _ in 0..iterations {
            work.prepare();
            let begin = Instant::now();
            operations += work.run();
            taken += begin.elapsed();
        }
        taken.mul_f64(iterations as f64 * RUN as f64 / operations as f64)
    };
    if let [work] = works {
        return repeat(work);
    }
    std::thread::scope(|scope| {
        let threads = works.iter_mut().map(|work| scope.spawn(|| repeat(work)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).max().unwrap_or_default()
    })
}

/// What is written down of a packet in a map: when it came.
fn note(value: &mut Value) {
    value.0 = black_box(NOW);
}

/// Established flows, all as likely, in maps of other kinds: found, and a time written down.
fn peers(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntrack/established-uniform-one");
    group.throughput(Throughput::Elements(RUN as u64)).sample_size(20);
    for flows in sizes() {
        let mut map: Map = HashMap::with_hasher(state());
        let dash: Dash = DashMap::with_hasher(state());
        for flow in 0..flows {
            map.insert(key(flow), VALUE);
            dash.insert(key(flow), VALUE);
        }
        let mut random = Random::new(0x5eed_0008);
        let mut packets = || -> Vec<Headers> {
            let flow = |_| (random.draw() % u64::from(flows)) as u32;
            (0..RUN).map(flow).map(|flow| packet(false, flow, Segment::Data)).collect()
        };
        let size = criterion::BatchSize::PerIteration;
        group.bench_function(BenchmarkId::new("hashmap", flows), |b| {
            let look = |packets: Vec<Headers>| {
                for packet in &packets {
                    let (key, _) = FlowKey::of(packet).expect("a flow");
                    map.get_mut(&key).map(note).expect("it is there");
                }
                packets
            };
            b.iter_batched(&mut packets, look, size);
        });
        group.bench_function(BenchmarkId::new("dashmap", flows), |b| {
            let look = |packets: Vec<Headers>| {
                for packet in &packets {
                    let (key, _) = FlowKey::of(packet).expect("a flow");
                    dash.get_mut(&key).map(|mut value| note(&mut value)).expect("it is there");
                }
                packets
            };
            b.iter_batched(&mut packets, look, size);
        });
    }
    group.finish();
    insertion_into_dashmap(c);
}

/// New flows, until as many as there is room for are in it.
fn insertion_into_dashmap(c: &mut Criterion) {
    struct Insertion(Dash, u32, Vec<Headers>);
    impl Work for Insertion {
        fn prepare(&mut self) {
            if self.0.len() == self.1 as usize {
                self.0.clear();
            }
            let begin = self.0.len() as u32;
            let flows = begin..self.1.min(begin + RUN as u32);
            self.2 = flows.map(|flow| packet(false, flow, Segment::Syn)).collect();
        }

        fn run(&mut self) -> usize {
            for packet in &self.2 {
                self.0.insert(FlowKey::of(packet).expect("a flow").0, VALUE);
            }
            self.2.len()
        }
    }
    let mut group = c.benchmark_group("conntrack/insert");
    group.throughput(Throughput::Elements(RUN as u64)).sample_size(20);
    for flows in sizes() {
        let dash = DashMap::with_capacity_and_hasher(flows as usize, state());
        let mut works = [Insertion(dash, flows, Vec::new())];
        group.bench_function(BenchmarkId::new("dashmap", flows), |b| {
            b.iter_custom(|iterations| together(&mut works, iterations));
        });
    }
    group.finish();
}

/// A data packet of an established TCP flow, windows checked or not: the setting is read for each
/// packet, as the dataplane does.
fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntrack/window");
    let timeouts = TimeoutProfile::default();
    for n in [1_000, 100_000] {
        let mut table = ConnTable::new(Config {
            max_entries: n,
            full_table: FullTable::DropNew,
            hash_seed: [1, 2, 3, 4],
        });
        let mut sample = Vec::new();
        for flow in 0..n as u32 {
            let [syn, answer, data] = [Segment::Syn, Segment::SynAck, Segment::Data]
                .map(|segment| packet(false, flow, segment));
            table.insert(Scope(0), &syn, NOW, &timeouts, RuleTag(0), 0).expect("room");
            for packet in [&answer, &data] {
                if let Lookup::Hit(hit) = table.lookup(Scope(0), packet, NOW) {
                    table.refresh(&hit, packet, NOW, &timeouts);
                }
            }
            sample.push(data);
        }
        let established = table.iter(NOW).filter(|flow| flow.state == FlowState::TcpEstablished);
        assert_eq!(established.count(), n);
        let sample: Vec<_> = sample.into_iter().step_by(n.div_ceil(10_000)).collect();
        group.throughput(Throughput::Elements(sample.len() as u64));
        let mut pass = |is_checked: Option<bool>| {
            let mut passed = 0;
            for packet in &sample {
                if let Lookup::Hit(hit) = table.lookup(Scope(0), packet, NOW)
                    && !(is_checked.is_some_and(black_box) && table.is_out_of_window(&hit, packet))
                {
                    table.refresh(&hit, packet, NOW, &timeouts);
                    passed += 1;
                }
            }
            assert_eq!(passed, sample.len());
        };
        for (name, is_checked) in [("none", None), ("off", Some(false)), ("on", Some(true))] {
            group.bench_function(BenchmarkId::new(name, n), |b| b.iter(|| pass(is_checked)));
        }
    }
    group.finish();
}

criterion_group!(benches, operations, peers, window);
criterion_main!(benches);
