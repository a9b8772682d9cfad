//! Workers, a reload and a trace in every order in which they can meet at what they share:
//! `RUSTFLAGS="--cfg loom" cargo test -p sgwall-live --release --test loom`.
//!
//! It is the real code, from a worker's batch to the sweep of a reload; only locks, atomics, the swap
//! of the policy and the trace's queue are loom's.

#![cfg(loom)]

use std::sync::{Arc, LazyLock};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use sgwall_dataplane::{Config, FullTable};
use sgwall_live::filter::Filter;
use sgwall_live::{Firewall, OnReload, Port, Shared, Snapshot};
use sgwall_netio::device::{Frames, VnetHeader};
use sgwall_netio::worker::{Handler, Output};
use sgwall_packet::{PacketSpec, Timestamp};
use sgwall_rules::compile::Generation;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{Policy, Vlans};

const NETWORK: usize = 2;
const NOW: Timestamp = Timestamp::from_secs(1000);

/// A policy of two interfaces, in this order, in groups that let in one port each.
fn policy(order: [&str; 2], ports: [u16; 2]) -> Arc<Policy> {
    let groups = ["a", "b"].iter().zip(ports).map(|(name, port)| {
        format!(
            "[[security_group]]\nid = \"sg-{name}\"\ningress = [{{ protocol = \"tcp\", ports = \
             {port}, cidr = \"203.0.113.0/24\" }}]\n"
        )
    });
    let interfaces = order.map(|name| {
        let last = if name == "a" { 10 } else { 20 };
        format!(
            "[[interface]]\nid = \"eni-{name}\"\nsubnet = \"s\"\naddresses = [\"10.0.1.{last}\"]\n\
             security_groups = [\"sg-{name}\"]\n"
        )
    });
    let text = format!(
        "version = 1\n[[vpc]]\nid = \"vpc-1\"\ncidrs = [\"10.0.0.0/16\"]\n[[subnet]]\nid = \"s\"\nvpc \
         = \"vpc-1\"\ncidrs = [\"10.0.1.0/24\"]\n{}{}",
        groups.collect::<String>(),
        interfaces.concat()
    );
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    Arc::new(load(&[input]).expect("a good policy").policy)
}

/// Port 80 of A and port 81 of B are open.
static OPEN: LazyLock<Arc<Policy>> = LazyLock::new(|| policy(["a", "b"], [80, 81]));
/// The same for every packet, but what was the first interface is the second.
static TURNED: LazyLock<Arc<Policy>> = LazyLock::new(|| policy(["b", "a"], [80, 81]));
/// Port 80 of A is not open.
static CLOSED: LazyLock<Arc<Policy>> = LazyLock::new(|| policy(["a", "b"], [8080, 81]));

fn ports() -> Vec<Port> {
    let port = |(n, interface): (usize, &Option<&str>)| Port {
        device: format!("tap{n}"),
        interface: interface.map(str::to_owned),
        vlans: Vlans::None,
    };
    [Some("eni-a"), Some("eni-b"), None].iter().enumerate().map(port).collect()
}

/// The policy that takes over.
fn next(shared: &Shared, policy: &Arc<Policy>) -> Snapshot {
    shared.snapshot().next(Arc::clone(policy), Generation(2), &ports())
}

fn shared(workers: usize) -> Arc<Shared> {
    let snapshot = Snapshot::new(Arc::clone(&OPEN), Generation(1), &ports());
    let config = Config { max_flows: 16, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    Arc::new(Shared::new(ports(), snapshot, workers, config))
}

/// A worker's batch from the network; where each frame went that passed.
fn batch(shared: &Arc<Shared>, worker: usize, packets: &[&str]) -> Vec<(usize, usize)> {
    batch_of(&mut Firewall::new(Arc::clone(shared), worker), packets)
}

fn batch_of(firewall: &mut Firewall, packets: &[&str]) -> Vec<(usize, usize)> {
    let frames: Vec<_> = packets
        .iter()
        .map(|packet| packet.parse::<PacketSpec>().expect("a packet").to_frame())
        .collect();
    let mut batch = Frames::new();
    for frame in &frames {
        batch.push(frame, VnetHeader::default());
    }
    let mut out = Output::new(ports().len());
    firewall.batch(NOW, NETWORK, &mut batch, &mut out);
    let sent = out.take_sent(&batch);
    let number = |sent: &[u8]| frames.iter().position(|frame| frame == sent).expect("one of them");
    sent.into_iter().map(|(port, frame, _)| (number(&frame), port)).collect()
}

fn flows(shared: &Shared) -> usize {
    let mut flows = 0;
    shared.with_shards(|judge, _| flows += judge.pipeline().connections().iter(NOW).count());
    flows
}

/// Of two workers one may have the old policy and the other the new one, whose interfaces have other
/// numbers: no packet is judged by the rules of the wrong interface, or goes to its port.
#[test]
fn a_packet_is_judged_by_one_policy_whole() {
    const PACKETS: [&str; 3] = [
        "tcp 203.0.113.1:5000 -> 10.0.1.10:80 S",
        "tcp 203.0.113.1:5001 -> 10.0.1.10:81 S",
        "tcp 203.0.113.1:5002 -> 10.0.1.20:81 S",
    ];
    loom::model(|| {
        let shared = shared(1);
        let workers = [0, 1].map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || batch(&shared, 0, &PACKETS))
        });
        shared.set_snapshot(next(&shared, &TURNED));
        for worker in workers {
            assert_eq!(worker.join().unwrap(), [(0, 0), (2, 1)]);
        }
    });
}

/// A batch whose packets are in two shards, one of which the reload may have met before.
#[test]
fn every_packet_of_a_batch_is_judged_once() {
    const PACKETS: [&str; 2] =
        ["tcp 203.0.113.1:5000 -> 10.0.1.10:80 S", "tcp 203.0.113.1:5002 -> 10.0.1.20:81 S"];
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = shared(2);
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || batch(&shared, 1, &PACKETS))
        };
        let replaced = shared.replace(next(&shared, &TURNED), OnReload::Keep, NOW);
        assert_eq!(replaced.not_admitted, 0);
        let mut sent = worker.join().unwrap();
        sent.sort_unstable();
        assert_eq!(sent, [(0, 0), (1, 1)]);
        let mut judged = 0;
        shared.with_shards(|judge, _| {
            judged += judge
                .pipeline()
                .counters()
                .passed(sgwall_dataplane::PassReason::AllowedTracked)
                .packets;
        });
        assert_eq!((judged, flows(&shared)), (2, 2));
    });
}

/// Once a reload that judges flows anew is over, there is none that the new policy does not admit:
/// not even of a worker that had begun its batch under the old one.
#[test]
fn no_flow_of_the_old_policy_is_opened_behind_a_reload() {
    loom::model(|| {
        let shared = shared(1);
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || batch(&shared, 0, &["tcp 203.0.113.1:5000 -> 10.0.1.10:80 S"]))
        };
        let replaced = shared.replace(next(&shared, &CLOSED), OnReload::Rejudge, NOW);
        assert_eq!(flows(&shared), 0);
        let passed = worker.join().unwrap().len();
        assert_eq!(flows(&shared), 0);
        // What passed had a flow, which the reload met.
        assert_eq!((passed, passed), (replaced.flows, replaced.ended));
        assert!(batch(&shared, 0, &["tcp 203.0.113.1:5001 -> 10.0.1.10:80 S"]).is_empty());
    });
}

/// A batch that begins after a policy was put in force is judged by it, though its worker remembers
/// the one before.
#[test]
fn a_batch_is_judged_by_what_is_in_force_as_it_begins() {
    loom::model(|| {
        let shared = shared(1);
        let is_in_force = Arc::new(AtomicBool::new(false));
        let worker = {
            let mut firewall = Firewall::new(Arc::clone(&shared), 0);
            let is_in_force = Arc::clone(&is_in_force);
            thread::spawn(move || {
                for packet in [
                    "tcp 203.0.113.1:5000 -> 10.0.1.10:80 S",
                    "tcp 203.0.113.1:5001 -> 10.0.1.10:80 S",
                ] {
                    let is_refused = is_in_force.load(Ordering::Acquire);
                    let passed = batch_of(&mut firewall, &[packet]).len();
                    assert!(!is_refused || passed == 0, "the old policy let it through");
                }
            })
        };
        shared.set_snapshot(next(&shared, &CLOSED));
        is_in_force.store(true, Ordering::Release);
        worker.join().unwrap();
        assert!(batch(&shared, 0, &["tcp 203.0.113.1:5003 -> 10.0.1.10:80 S"]).is_empty());
    });
}

/// Whoever watches sees only what passes their filter, though a worker may still have that of
/// somebody before them.
#[test]
fn a_trace_shows_nothing_of_the_one_before() {
    let filter = |text: &str| text.parse::<Filter>().expect("a filter");
    loom::model(move || {
        let shared = shared(1);
        shared.tracer.start(filter("port=80"));
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || batch(&shared, 0, &["tcp 203.0.113.1:5000 -> 10.0.1.10:80 S"]))
        };
        shared.tracer.stop();
        shared.tracer.start(filter("port=81"));
        worker.join().unwrap();
        let shown = std::iter::from_fn(|| shared.tracer.next()).count();
        assert_eq!((shown, shared.tracer.take_lost()), (0, 0));
    });
}
