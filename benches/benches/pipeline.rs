//! The whole way of a packet, frame to verdict, by what becomes of it.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sgwall_benches::{policy, rules};
use sgwall_dataplane::{Attribution, Config, FrameInput, Judge, Pipeline};
use sgwall_packet::{LinkType, PacketSpec, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::{L4Match, Peer, PortRange};

/// A judge under 1000 rules and one that allows TCP 443 from 203.0.113.0/24.
fn judge() -> Judge {
    let mut rules = rules(1000);
    let mut https = rules[0].clone();
    https.matches = L4Match::Tcp(PortRange { from: 443, to: 443 });
    https.peer = Peer::Cidr("203.0.113.0/24".parse().expect("a range"));
    rules.push(https);
    let compiled = CompiledPolicy::compile(&policy(rules), Generation(0));
    let config = Config { max_flows: 1 << 20, hash_seed: [1, 2, 3, 4] };
    Judge::new(Pipeline::new(Arc::new(compiled), config), Attribution::default())
}

fn frame(data: &[u8], token: u64) -> FrameInput<'_> {
    FrameInput {
        token,
        link: Some(LinkType::Ethernet),
        data,
        wire_len: data.len() as u32,
        time: Timestamp::from_secs(1_700_000_000),
        decimals: 6,
        recorded: None,
    }
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline");
    let packets = |line: &dyn Fn(usize) -> String| -> Vec<Vec<u8>> {
        (0..10_000).map(|n| line(n).parse::<PacketSpec>().expect("a packet").to_frame()).collect()
    };
    let client = |n: usize| format!("203.0.113.{}:{}", n % 250, 1024 + n / 250);
    let open = packets(&|n| format!("tcp {} -> 10.0.1.10:443 S seq=1", client(n)));
    let data = packets(&|n| format!("tcp {} -> 10.0.1.10:443 A seq=2 len=1000", client(n)));
    let refused = packets(&|n| format!("tcp 198.51.100.1:{} -> 10.0.1.10:1 S", 1024 + n));
    group.throughput(Throughput::Elements(10_000));
    for (name, frames) in [("established", &data), ("refused", &refused)] {
        let mut judge = judge();
        for data in &open {
            judge.judge(frame(data, 0), &mut |_| ());
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                for data in frames {
                    judge.judge(frame(black_box(data), 0), &mut |event| _ = black_box(event));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
