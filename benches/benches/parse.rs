//! Reading headers: the parser of `packet` against etherparse, on the same frames.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::SlicedPacket;
use sgwall_packet::{Headers, LinkType, PacketSpec, parse_into};

fn frames(kind: &str) -> Vec<Vec<u8>> {
    let lines: &[&str] = match kind {
        "ipv4-tcp" => &["tcp 203.0.113.1:5000 -> 10.0.1.10:443 PA seq=1 ack=1 len=1400"],
        "ipv6-tcp" => &["tcp [2001:db8::1]:5000 -> [2001:db8::2]:443 PA seq=1 ack=1 len=1400"],
        _ => &[
            "tcp 203.0.113.1:5000 -> 10.0.1.10:443 S wscale=7",
            "udp 203.0.113.1:5000 -> 10.0.1.10:53 len=40",
            "icmp 203.0.113.1 -> 10.0.1.10 8/0 id=7 len=56",
            "tcp [2001:db8::1]:5000 -> [2001:db8::2]:443 A",
            "gre 203.0.113.1 -> 10.0.1.10 len=100",
        ],
    };
    let frames = lines.iter().map(|line| line.parse::<PacketSpec>().expect("a packet").to_frame());
    frames.cycle().take(1000).collect()
}

fn bench(c: &mut Criterion) {
    for kind in ["ipv4-tcp", "ipv6-tcp", "mixed"] {
        let frames = frames(kind);
        let mut group = c.benchmark_group(format!("parse/{kind}"));
        group.throughput(Throughput::Elements(frames.len() as u64));
        // As the dataplane does it: into headers that stay where they are.
        let mut headers = Headers::NONE;
        group.bench_function("sgwall", |b| {
            b.iter(|| {
                for frame in &frames {
                    let frame = black_box(&frame[..]);
                    let read = parse_into(LinkType::Ethernet, frame, frame.len(), &mut headers);
                    black_box((read.is_ok(), &headers));
                }
            });
        });
        group.bench_function("etherparse", |b| {
            b.iter(|| {
                for frame in &frames {
                    black_box(SlicedPacket::from_ethernet(black_box(frame)).is_ok());
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
