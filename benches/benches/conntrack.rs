//! The flow table by number of flows, against dashmap and a plain hash map with the same hash.

#![allow(missing_docs)]

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use sgwall_benches::Random;
use sgwall_conntrack::{Config, ConnTable, FlowState, Lookup, RuleTag, Scope, TimeoutProfile};
use sgwall_packet::{FlowKey, Headers, LinkInfo, Tcp, TcpFlags, Timestamp, Transport};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// What a map of the standard kind would hold of a flow.
type Value = (Timestamp, u32, u8, [u32; 4]);

fn syn(n: u64) -> Headers {
    let transport = Transport::Tcp(Tcp {
        src_port: n as u16,
        dst_port: 443,
        seq: 1,
        ack: 0,
        window: 65_535,
        flags: TcpFlags::SYN,
        window_scale: None,
        payload_len: 0,
    });
    Headers {
        link: LinkInfo::NONE,
        src: std::net::IpAddr::V4(((n >> 16) as u32).into()),
        dst: std::net::IpAddr::V4(0x0a00_010a.into()),
        protocol: 6,
        transport,
        fragment: None,
        dont_fragment: true,
        hop_limit: 64,
        ip_len: 40,
        ip_offset: 0,
        transport_offset: 20,
    }
}

fn flows(n: usize) -> Vec<Headers> {
    let mut random = Random::new(0x5eed_0003);
    (0..n).map(|_| syn(random.draw())).collect()
}

fn table(n: usize) -> ConnTable {
    ConnTable::new(Config { max_entries: n, hash_seed: [1, 2, 3, 4] })
}

/// A packet of a known flow: looked up, and noted in its entry.
fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntrack/established");
    let timeouts = TimeoutProfile::default();
    for n in [1_000, 100_000, 1_000_000] {
        let flows = flows(n);
        let sample: Vec<_> = flows.iter().step_by(n.div_ceil(10_000)).copied().collect();
        let mut table = table(n + 1);
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut map: HashMap<FlowKey, Value, _> = HashMap::with_hasher(state.clone());
        let dash: DashMap<FlowKey, Value, _> = DashMap::with_hasher(state);
        for flow in &flows {
            table.insert(Scope(0), flow, NOW, &timeouts, RuleTag(0), 0).expect("room");
            let key = FlowKey::of(flow).expect("a flow").0;
            map.insert(key, (NOW, 0, 0, [0; 4]));
            dash.insert(key, (NOW, 0, 0, [0; 4]));
        }
        group.throughput(Throughput::Elements(sample.len() as u64));
        group.bench_function(BenchmarkId::new("sgwall", n), |b| {
            b.iter(|| {
                for flow in &sample {
                    if let Lookup::Hit(hit) = table.lookup(Scope(0), flow, NOW) {
                        table.refresh(&hit, flow, NOW, &timeouts);
                    }
                }
            });
        });
        group.bench_function(BenchmarkId::new("hashmap", n), |b| {
            b.iter(|| {
                for flow in &sample {
                    let key = FlowKey::of(flow).expect("a flow").0;
                    if let Some(value) = map.get_mut(&key) {
                        value.0 = black_box(NOW);
                    }
                }
            });
        });
        group.bench_function(BenchmarkId::new("dashmap", n), |b| {
            b.iter(|| {
                for flow in &sample {
                    let key = FlowKey::of(flow).expect("a flow").0;
                    if let Some(mut value) = dash.get_mut(&key) {
                        value.0 = black_box(NOW);
                    }
                }
            });
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
        let flows = flows(n);
        let mut table = table(n + 1);
        let mut sample = Vec::new();
        for flow in &flows {
            table.insert(Scope(0), flow, NOW, &timeouts, RuleTag(0), 0).expect("room");
            let answer = segment(&turned(flow), 9, 2, TcpFlags::SYN | TcpFlags::ACK);
            let data = segment(flow, 2, 10, TcpFlags::ACK);
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

/// The same packet from the other end.
fn turned(headers: &Headers) -> Headers {
    let mut turned = Headers { src: headers.dst, dst: headers.src, ..*headers };
    if let Transport::Tcp(tcp) = &mut turned.transport {
        (tcp.src_port, tcp.dst_port) = (tcp.dst_port, tcp.src_port);
    }
    turned
}

fn segment(headers: &Headers, seq: u32, ack: u32, flags: TcpFlags) -> Headers {
    let mut segment = *headers;
    if let Transport::Tcp(tcp) = &mut segment.transport {
        (tcp.seq, tcp.ack, tcp.flags) = (seq, ack, flags);
    }
    segment
}

/// The first packet of a flow, into an empty table with room.
fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntrack/open");
    group.sample_size(20);
    let n = 100_000;
    let flows = flows(n);
    let timeouts = TimeoutProfile::default();
    group.throughput(Throughput::Elements(n as u64));
    group.bench_function("sgwall", |b| {
        b.iter_batched(
            || table(n),
            |mut table| {
                for flow in &flows {
                    let _ = table.insert(Scope(0), flow, NOW, &timeouts, RuleTag(0), 0);
                }
                table
            },
            criterion::BatchSize::LargeInput,
        );
    });
    group.bench_function("dashmap", |b| {
        b.iter_batched(
            || DashMap::with_capacity_and_hasher(n, ahash::RandomState::with_seeds(1, 2, 3, 4)),
            |dash: DashMap<FlowKey, Value, _>| {
                for flow in &flows {
                    dash.insert(FlowKey::of(flow).expect("a flow").0, (NOW, 0, 0, [0; 4]));
                }
                dash
            },
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, established, window, open);
criterion_main!(benches);
