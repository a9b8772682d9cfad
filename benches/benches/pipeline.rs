//! The whole way of a packet, frame to verdict: parsing, network ACL, tracking, groups, path MTU.
//! No devices: frames lie in memory, packed, and are judged in batches of 64.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sgwall_benches::workload::{Frames, judge, open, pipeline, shuffled};
use sgwall_packet::Direction;

fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/established");
    for flows in [100, 10_000, 1_000_000] {
        let mut pipeline = pipeline(1000, flows as usize + 64);
        open(&mut pipeline, flows);
        let line = "tcp 203.0.0.1:1 -> 10.0.1.10:443 A seq=2 ack=2 win=65535 len=6";
        let data = Frames::new(line, Direction::Ingress, shuffled(flows).into_iter());
        group.throughput(Throughput::Elements(flows.into()));
        group.bench_function(BenchmarkId::from_parameter(flows), |b| {
            b.iter(|| judge(&mut pipeline, black_box(&data)));
        });
    }
    group.finish();
}

criterion_group!(benches, established);
criterion_main!(benches);
