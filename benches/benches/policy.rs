//! Compiling a policy by its rules and by its interfaces, compiling again what a change touches, and
//! putting a compiled policy in force.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sgwall_benches::{fleet, policy, rules};
use sgwall_dataplane::{Config, FullTable, Pipeline};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::Policy;

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy/compile");
    group.sample_size(10);
    for n in [1_000, 10_000, 100_000] {
        let policy = policy(rules(n));
        group.bench_with_input(BenchmarkId::new("rules", n), &policy, |b, policy| {
            b.iter(|| black_box(CompiledPolicy::compile(policy, Generation(0))));
        });
    }
    for n in [100, 1_000] {
        let policy = fleet(n);
        group.bench_with_input(BenchmarkId::new("interfaces", n), &policy, |b, policy| {
            b.iter(|| black_box(CompiledPolicy::compile(policy, Generation(0))));
        });
    }
    group.finish();
}

/// What changes of 1,000 interfaces cost, up to the compiled policy. Interface 5 is in a group that
/// one other group refers to, interface 0 in one that all refer to.
fn recompile(c: &mut Criterion) {
    let before = fleet(1_000);
    let compiled = CompiledPolicy::compile(&before, Generation(0));
    let changed = |change: fn(&mut Policy)| {
        let mut policy = before.clone();
        change(&mut policy);
        policy
    };
    let address = "10.0.255.1".parse().expect("an address");
    let mut far_member = changed(|_| ());
    far_member.interfaces[5].addresses.push(address);
    let mut near_member = changed(|_| ());
    near_member.interfaces[0].addresses.push(address);
    let changes = [
        ("nothing", changed(|_| ())),
        ("member", far_member),
        ("member-of-what-all-refer-to", near_member),
        ("groups", changed(|policy| policy.interfaces[5].security_groups[0] = "sg-6".into())),
        ("rule", changed(|policy| drop(policy.security_groups[50].ingress.pop()))),
    ];
    let mut group = c.benchmark_group("policy/recompile");
    for (name, policy) in &changes {
        group.bench_function(*name, |b| {
            b.iter(|| black_box(compiled.recompile(policy, Generation(1))));
        });
    }
    group.finish();
}

/// What a packet may have to wait for: a pipeline that takes over another policy, by the number of
/// rules that are new to it.
fn swap(c: &mut Criterion) {
    let config =
        Config { max_flows: 1 << 16, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let mut group = c.benchmark_group("policy/swap");
    for n in [1_000, 100_000] {
        let mut model = policy(rules(n));
        let one = Arc::new(CompiledPolicy::compile(&model, Generation(0)));
        model.security_groups[0].ingress.pop();
        let other = Arc::new(one.recompile(&model, Generation(1)));
        let mut pipeline = Pipeline::new(Arc::clone(&one), config);
        let names_one = pipeline.names().clone();
        let names_other = names_one.after(&one, &other);
        group.bench_function(BenchmarkId::new("rules", n), |b| {
            b.iter(|| {
                pipeline.take_over(Arc::clone(&other), names_other.clone());
                pipeline.take_over(Arc::clone(&one), names_one.clone());
            });
        });
        group.bench_function(BenchmarkId::new("names", n), |b| {
            b.iter(|| black_box(names_one.after(&one, &other)));
        });
    }
    let mut model = fleet(1_000);
    let one = Arc::new(CompiledPolicy::compile(&model, Generation(0)));
    model.interfaces[5].addresses.push("10.0.255.1".parse().expect("an address"));
    let other = Arc::new(one.recompile(&model, Generation(1)));
    let mut pipeline = Pipeline::new(Arc::clone(&one), config);
    let names = pipeline.names().after(&one, &other);
    group.bench_function(BenchmarkId::new("interfaces", 1_000), |b| {
        b.iter(|| {
            pipeline.take_over(Arc::clone(&other), names.clone());
            pipeline.take_over(Arc::clone(&one), names.clone());
        });
    });
    group.finish();
}

criterion_group!(benches, compile, recompile, swap);
criterion_main!(benches);
