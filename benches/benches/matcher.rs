//! Rule lookup by number of rules, against a walk over every rule; and compilation.

#![allow(missing_docs)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use sgwall_benches::{Random, policy, rules};
use sgwall_packet::Direction;
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::{L4Match, Peer, SecurityGroupRule};

/// Packets: half aimed at a rule, half at random.
fn packets(rules: &[SecurityGroupRule]) -> Vec<(IpAddr, u8, u16)> {
    let mut random = Random::new(0x5eed_0002);
    let packet = |_| {
        let bits = random.draw();
        let rule = &rules[bits as usize % rules.len()];
        match (bits >> 63, &rule.peer, rule.matches) {
            (0, Peer::Cidr(cidr), L4Match::Tcp(ports)) => (cidr.network(), 6, ports.from),
            (0, Peer::Cidr(cidr), L4Match::Udp(ports)) => (cidr.broadcast(), 17, ports.to),
            _ => (IpAddr::V4((bits as u32).into()), 6, (bits >> 40) as u16),
        }
    };
    (0..4096).map(packet).collect()
}

/// The same rules as a plain list, as simple filters walk it.
fn walk(rules: &[(IpNet, u8, u16, u16)], packet: &(IpAddr, u8, u16)) -> Option<usize> {
    rules.iter().position(|(cidr, protocol, from, to)| {
        *protocol == packet.1 && *from <= packet.2 && packet.2 <= *to && cidr.contains(&packet.0)
    })
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("matcher/lookup");
    for n in [10, 100, 1_000, 10_000, 100_000] {
        let rules = rules(n);
        let packets = packets(&rules);
        let flat: Vec<_> = rules
            .iter()
            .filter_map(|rule| match (&rule.peer, rule.matches) {
                (Peer::Cidr(cidr), L4Match::Tcp(p)) => Some((*cidr, 6, p.from, p.to)),
                (Peer::Cidr(cidr), L4Match::Udp(p)) => Some((*cidr, 17, p.from, p.to)),
                _ => None,
            })
            .collect();
        let compiled = CompiledPolicy::compile(&policy(rules), Generation(0));
        let nobody = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let set = compiled.interfaces()[0].groups(Direction::Ingress, &nobody);
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_with_input(BenchmarkId::new("sgwall", n), &packets, |b, packets| {
            b.iter(|| {
                for (remote, protocol, port) in packets {
                    black_box(set.lookup(remote, *protocol, *port));
                }
            });
        });
        if n <= 1_000 {
            group.bench_with_input(BenchmarkId::new("walk", n), &packets, |b, packets| {
                b.iter(|| {
                    for packet in packets {
                        black_box(walk(&flat, packet));
                    }
                });
            });
        }
    }
    group.finish();
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("matcher/compile");
    group.sample_size(10);
    for n in [1_000, 10_000, 100_000] {
        let policy = policy(rules(n));
        group.bench_with_input(BenchmarkId::new("sgwall", n), &policy, |b, policy| {
            b.iter(|| black_box(CompiledPolicy::compile(policy, Generation(0))));
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, compile);
criterion_main!(benches);
