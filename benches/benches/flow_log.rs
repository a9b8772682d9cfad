//! One packet's cost in a flow log: of a known flow, and of a new one.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sgwall_benches::{policy, rules};
use sgwall_dataplane::flow_log::{Config, FlowLog, Format, Interval, Traffic};
use sgwall_dataplane::{Event, FrameInput, Judgement, PassReason, Verdict};
use sgwall_packet::{Direction, Frame, Headers, LinkType, PacketSpec, Timestamp, parse};
use sgwall_rules::compile::{CompiledPolicy, Generation};

const FLOWS: usize = 10_000;

fn flow_log() -> FlowLog {
    let compiled = CompiledPolicy::compile(&policy(rules(10)), Generation(0));
    let config = Config {
        interval: Interval::Minute,
        traffic: Traffic::All,
        fields: Format::default(),
        max_records: 1 << 20,
        only: None,
        hash_seed: [1, 2, 3, 4],
    };
    FlowLog::new(Arc::new(compiled), config)
}

fn headers(line: &str) -> Headers {
    let frame = line.parse::<PacketSpec>().expect("a packet").to_frame();
    match parse(LinkType::Ethernet, &frame, frame.len()) {
        Ok(Frame::Ip(headers)) => headers,
        other => panic!("{line}: {other:?}"),
    }
}

fn event(headers: &Headers) -> Event<'_> {
    Event {
        frame: FrameInput {
            token: 0,
            link: Some(LinkType::Ethernet),
            data: &[],
            wire_len: 1054,
            time: Timestamp::from_secs(1_700_000_000),
            decimals: 6,
            recorded: None,
        },
        headers: Some(headers),
        error: None,
        side: Some((0, Direction::Ingress)),
        judgement: Judgement::Verdict(Verdict::pass(PassReason::Established)),
        admitted_by: None,
        is_final: true,
        emitted: None,
    }
}

fn bench(c: &mut Criterion) {
    let of = |line: &dyn Fn(usize) -> String| -> Vec<Headers> {
        (0..FLOWS).map(|n| headers(&line(n))).collect()
    };
    let port = |n: usize| 1024 + n / 250;
    let v4 = of(&|n| format!("tcp 203.0.113.{}:{} -> 10.0.1.10:443 A len=1000", n % 250, port(n)));
    let v6 = of(&|n| {
        format!("tcp [2001:db8::{:x}]:{} -> [2001:db8:0:1::10]:443 A len=1000", n % 250, port(n))
    });
    let record_all = |log: &mut FlowLog, packets: &[Headers]| {
        for headers in packets {
            log.record(&event(black_box(headers)), &mut |record| _ = black_box(record));
        }
    };
    let mut group = c.benchmark_group("flow-log");
    group.throughput(Throughput::Elements(FLOWS as u64));
    for (name, packets) in [("known-flow/v4", &v4), ("known-flow/v6", &v6)] {
        let mut log = flow_log();
        record_all(&mut log, packets);
        group.bench_function(name, |b| b.iter(|| record_all(&mut log, packets)));
    }
    group.bench_function("new-flow/v4", |b| {
        b.iter_batched_ref(flow_log, |log| record_all(log, &v4), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
