//! What the firewall adds to a batch of frames between devices: looking, judging, forwarding, without
//! the devices.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sgwall_benches::{policy, rules};
use sgwall_dataplane::{Config, FullTable};
use sgwall_live::{Firewall, Port, Shared, Snapshot};
use sgwall_netio::device::{Frames, VnetHeader};
use sgwall_netio::worker::{Handler, NullForwarder, Output};
use sgwall_packet::{PacketSpec, Timestamp};
use sgwall_rules::compile::Generation;
use sgwall_rules::model::{L4Match, Peer, PortRange, Vlans};

/// Frames of a batch: what a device hands over at the most, and what it has under the load of a few
/// clients.
const BATCHES: [usize; 2] = [64, 4];

fn firewall(workers: usize) -> (Arc<Shared>, Firewall) {
    let mut rules = rules(100);
    let mut https = rules[0].clone();
    https.matches = L4Match::Tcp(PortRange { from: 443, to: 443 });
    https.peer = Peer::Cidr("203.0.113.0/24".parse().expect("a range"));
    rules.push(https);
    let model = policy(rules);
    let port = |device: &str, interface: Option<&str>| Port {
        device: device.into(),
        interface: interface.map(Into::into),
        vlans: Vlans::None,
    };
    let ports = vec![port("network", None), port("instance", Some(&model.interfaces[0].id))];
    let snapshot = Snapshot::new(Arc::new(model), Generation(1), &ports);
    let config =
        Config { max_flows: 1 << 20, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let shared = Arc::new(Shared::new(ports, snapshot, workers, config));
    (Arc::clone(&shared), Firewall::new(shared, 0))
}

fn batch(size: usize, line: impl Fn(usize) -> String) -> Frames {
    let mut frames = Frames::new();
    for n in 0..size {
        let frame = line(n).parse::<PacketSpec>().expect("a packet").to_frame();
        frames.push(&frame, VnetHeader::default());
    }
    frames
}

fn bench(c: &mut Criterion) {
    for size in BATCHES {
        bench_batches_of(size, c);
    }
}

fn bench_batches_of(size: usize, c: &mut Criterion) {
    let mut now = Timestamp::from_secs(1_700_000_000);
    let client = |n: usize| format!("203.0.113.{}:{}", n % 250, 1024 + n);
    let mut group = c.benchmark_group(format!("live/{size}"));
    group.throughput(Throughput::Elements(size as u64));
    let mut data = batch(size, |n| format!("tcp {} -> 10.0.1.10:443 A seq=2 len=1000", client(n)));
    let mut out = Output::new(2);
    group.bench_function("null", |b| {
        b.iter(|| {
            NullForwarder.batch(now, 0, black_box(&mut data), &mut out);
            out.forget();
        });
    });
    for workers in [1, 2] {
        let (_shared, mut firewall) = firewall(workers);
        let mut open = batch(size, |n| format!("tcp {} -> 10.0.1.10:443 S seq=1", client(n)));
        firewall.batch(now, 0, &mut open, &mut out);
        assert_eq!(out.take_sent(&open).len(), size);
        group.bench_function(format!("established, {workers} workers"), |b| {
            b.iter(|| {
                now = now.after(Duration::from_micros(10));
                firewall.batch(now, 0, black_box(&mut data), &mut out);
                out.forget();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
