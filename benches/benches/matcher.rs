//! Rule lookup by number of rules: against a walk over every rule; of packets that match and of
//! strays; of few flows, of many, and after the cache was emptied; one by one and in batches.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use sgwall_benches::lookups::{COLD, Evictor, FEW, MANY, Packet, aimed, look_up, rules_of, stray};
use sgwall_benches::{Random, policy, rules, rules6};
use sgwall_packet::Direction;
use sgwall_rules::compile::{CompiledPolicy, Generation, RuleSet};
use sgwall_rules::matcher::Matcher;
use sgwall_rules::model::{L4Match, Peer, SecurityGroupRule};

/// Half of packets that match and of strays, in no order.
fn mixed(rules: &RuleSet, n: usize) -> Vec<Packet> {
    let mut random = Random::new(0x5eed_0004);
    let both = aimed(rules, n).into_iter().zip(stray(false, n));
    both.map(|(aimed, stray)| if random.draw() >> 63 == 0 { aimed } else { stray }).collect()
}

/// The same rules as a plain list, as simple filters walk it.
fn walk(rules: &[(IpNet, u8, u16, u16)], packet: &Packet) -> Option<usize> {
    rules.iter().position(|(cidr, protocol, from, to)| {
        *protocol == packet.1 && *from <= packet.2 && packet.2 <= *to && cidr.contains(&packet.0)
    })
}

fn compiled(rules: Vec<SecurityGroupRule>) -> CompiledPolicy {
    CompiledPolicy::compile(&policy(rules), Generation(0))
}

fn ingress(policy: &CompiledPolicy) -> &RuleSet {
    rules_of(policy, 0, Direction::Ingress)
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("matcher/lookup");
    for n in [10, 100, 1_000, 10_000, 100_000] {
        let rules = rules(n);
        let flat: Vec<_> = rules
            .iter()
            .filter_map(|rule| match (&rule.peer, rule.matches) {
                (Peer::Cidr(cidr), L4Match::Tcp(p)) => Some((*cidr, 6, p.from, p.to)),
                (Peer::Cidr(cidr), L4Match::Udp(p)) => Some((*cidr, 17, p.from, p.to)),
                _ => None,
            })
            .collect();
        let compiled = compiled(rules);
        let set = ingress(&compiled);
        let packets = mixed(set, FEW);
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

/// Lookups as `matcher/v4/hit/many/batch/10000`.
fn kinds(c: &mut Criterion) {
    let families = [("v4", rules as fn(usize) -> Vec<SecurityGroupRule>), ("v6", rules6)];
    for (family, rules) in families {
        for n in [1_000, 10_000, 100_000] {
            let rules = rules(n);
            let compiled = compiled(rules);
            let set = ingress(&compiled);
            let traffic = [("hit", aimed(set, MANY)), ("miss", stray(family == "v6", MANY))];
            let matcher = set.matcher();
            for (kind, packets) in &traffic {
                for (flows, packets) in [("few", &packets[..FEW]), ("many", &packets[..])] {
                    let mut group = c.benchmark_group(format!("matcher/{family}/{kind}/{flows}"));
                    group.throughput(Throughput::Elements(packets.len() as u64));
                    group.bench_function(BenchmarkId::new("one", n), |b| {
                        b.iter(|| look_up(matcher, packets));
                    });
                    let mut out = vec![None; packets.len()];
                    group.bench_function(BenchmarkId::new("batch", n), |b| {
                        b.iter(|| matcher.lookup_batch(packets, black_box(&mut out)));
                    });
                    group.finish();
                }
                cold(c, &format!("matcher/{family}/{kind}/cold"), n, matcher, &packets[..COLD]);
            }
        }
    }
}

/// A batch that finds nothing of the matcher in the cache.
fn cold(c: &mut Criterion, name: &str, n: usize, matcher: &Matcher, packets: &[Packet]) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(packets.len() as u64)).sample_size(20);
    let evictor = Evictor::default();
    let mut evict = || {
        evictor.evict();
        packets.to_vec()
    };
    group.bench_function(BenchmarkId::new("one", n), |b| {
        let look = |packets: Vec<Packet>| look_up(matcher, &packets);
        b.iter_batched(&mut evict, look, BatchSize::PerIteration);
    });
    group.bench_function(BenchmarkId::new("batch", n), |b| {
        let mut out = [None; COLD];
        let look = |packets: Vec<Packet>| matcher.lookup_batch(&packets, black_box(&mut out));
        b.iter_batched(&mut evict, look, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, lookup, kinds);
criterion_main!(benches);
