//! The kernel as judge: a policy in the words of nftables forwards the same packets in a network
//! namespace, and what comes out must be what sgwall passes, packet by packet.
//!
//! Differences that are meant are counted by name ([`Difference`], told of in
//! `docs/reliability.md`); any other fails. `SGWALL_KERNEL_POLICIES` says how many policies, each
//! with a reload in the middle of 200 packets, and `SGWALL_KERNEL_SEED` from which seed on.

// The lab sets what the kernel does.
#![allow(clippy::disallowed_methods)]

mod captures;
mod lab;
#[path = "../../../tools/src/convert/nft.rs"]
mod nft;
#[path = "../oracle/policies.rs"]
mod policies;
mod traffic;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fastrand::Rng;
use lab::Lab;
use sgwall_dataplane::{
    Config, FlowState, FullTable, Outcome, PacketContext, PassReason, Pipeline, Verdict,
};
use sgwall_netio::netns::can_test;
use sgwall_packet::{Direction, FiveTuple, Headers, Timestamp, Transport, parse_ip, quoted};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::{Compat, Exempt, FlowLimits, Policy, Timeouts};

/// Packets of a sequence.
const PACKETS: usize = 200;
/// Policies after which the namespace is made anew, and the kernel's table with it.
const FRESH: u64 = 100;

/// What the kernel does otherwise, by the numbers of `docs/reliability.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// K1: a segment of a tracked connection that the kernel's TCP calls invalid.
    InvalidSegment,
    /// K4: a SYN, or an ICMP error about the connection, after a RST or FIN that ended it for one of the
    /// two.
    Ended,
    /// What follows on addresses and ports of which the two know different things since a K1, a SYN in
    /// the middle (K2), an untracked connection in an ended one's place (K3), or a K4.
    Afterwards,
}

/// What was tried.
#[derive(Default)]
struct Tally {
    sequences: u64,
    passed: u64,
    dropped: u64,
    reasons: BTreeMap<&'static str, u64>,
    differences: BTreeMap<Difference, u64>,
}

impl Tally {
    fn print(&self, what: &str) {
        let Tally { sequences, passed, dropped, .. } = self;
        println!(
            "{what}: {sequences} sequences, {passed} packets passed and {dropped} dropped by both"
        );
        for (reason, packets) in &self.reasons {
            println!("{packets:>10} {reason}");
        }
        for (difference, packets) in &self.differences {
            println!("{packets:>10} differ: {difference:?}");
        }
    }
}

#[test]
fn the_kernel_passes_what_sgwall_passes() {
    if !can_test("the kernel as judge", &["nft"]) {
        return;
    }
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")),
        Err(_) => default,
    };
    let policies = number("SGWALL_KERNEL_POLICIES", 60);
    let first = number("SGWALL_KERNEL_SEED", 0);
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    let mut lab = Lab::new();
    for seed in first..first + policies {
        if seed > first && (seed - first).is_multiple_of(FRESH) {
            lab = Lab::new();
        }
        let mut rng = Rng::with_seed(seed);
        let n = (seed % FRESH) as u16 + 1;
        let own = own_addresses(n);
        let before = policies::policy(&mut rng);
        let after = policies::changed(&mut rng, &before);
        let packets = traffic::sequence(&mut rng, own, PACKETS);
        let parts = [(fitted(before, own), PACKETS / 2), (fitted(after, own), PACKETS)];
        if let Err(difference) = compare(&mut lab, &parts, &packets, &mut tally) {
            println!(
                "seed {seed}: {difference}\nSGWALL_KERNEL_SEED={seed} SGWALL_KERNEL_POLICIES=1"
            );
            failed.push(seed);
        }
    }
    tally.print("random");
    assert!(failed.is_empty(), "the kernel differs at the seeds {failed:?}");
    assert!(tally.passed > 20 * policies && tally.dropped > 20 * policies);
}

/// Real captures, rewritten to the instance's addresses, under random policies.
#[test]
fn the_kernel_passes_what_sgwall_passes_of_real_captures() {
    if !can_test("the kernel as judge of captures", &["nft"]) {
        return;
    }
    let mut tally = Tally::default();
    let mut lab = Lab::new();
    let mut n = 0;
    for (name, packets) in captures::all() {
        for seed in 0..5 {
            n += 1;
            let own = own_addresses(n);
            let packets = captures::readdressed(&packets, own);
            let mut rng = Rng::with_seed(seed);
            let before = policies::policy(&mut rng);
            let after = policies::changed(&mut rng, &before);
            let len = packets.len();
            let parts = [(fitted(before, own), len / 2), (fitted(after, own), len)];
            if let Err(difference) = compare(&mut lab, &parts, &packets, &mut tally) {
                panic!("{name}, seed {seed}: {difference}");
            }
        }
    }
    tally.print("captures");
    assert!(tally.passed > 100 && tally.dropped > 100);
}

/// The n-th instance's: each sequence has its own, so that no flow of another one is there.
fn own_addresses(n: u16) -> [IpAddr; 2] {
    let [high, low] = n.to_be_bytes();
    [
        Ipv4Addr::new(10, 200, high, low).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n).into(),
    ]
}

/// The policy for the first interface, with these addresses, and without what the lab has not: other
/// routes, exempt services, interfaces that judge on the other side, limits of an interface.
fn fitted(mut policy: Policy, own: [IpAddr; 2]) -> Policy {
    policy.compat = Compat::Ec2_2017;
    policy.exempt = Exempt::NONE;
    policy.tcp_window_check = false;
    for peering in &mut policy.peerings {
        peering.inter_region = false;
    }
    for subnet in &mut policy.subnets {
        subnet.routes.clear();
    }
    policy.subnets[0].cidrs =
        ["10.200.0.0/16", "2001:db8:0:1::/64"].map(|cidr| cidr.parse().unwrap()).to_vec();
    let mut interface =
        policy.interfaces.iter().find(|i| i.id == "eni-0").unwrap_or(&policy.interfaces[0]).clone();
    policy.interfaces.retain(|other| other.id != interface.id && other.id != "eni-0");
    interface.id = "eni-0".to_owned();
    interface.subnet = policy.subnets[0].id.clone();
    interface.addresses = own.to_vec();
    interface.source_dest_check = true;
    interface.timeouts = Timeouts::default();
    policy.interfaces.insert(0, interface);
    for interface in &mut policy.interfaces {
        interface.flows = FlowLimits::default();
    }
    policy
}

/// Has the packets judged by both, under each policy up to its place in the sequence.
fn compare(
    lab: &mut Lab,
    parts: &[(Policy, usize)],
    packets: &[(Direction, Vec<u8>)],
    tally: &mut Tally,
) -> Result<(), String> {
    let mut pipeline: Option<Pipeline> = None;
    let (mut passed, mut verdicts, mut from) = (HashSet::new(), Vec::new(), 0);
    let parsed: Vec<Headers> = packets
        .iter()
        .map(|(_, bytes)| parse_ip(bytes, bytes.len()).expect("packets that were built"))
        .collect();
    let mut history = String::new();
    for ((policy, until), generation) in parts.iter().zip(0..) {
        let commands = nft::commands(policy, &policy.interfaces[0], lab::DEVICES);
        lab.load(&commands);
        passed.extend(lab.send(&packets[from..*until], 1 + from as u32));
        let compiled = Arc::new(CompiledPolicy::compile(policy, Generation(generation)));
        match &mut pipeline {
            Some(pipeline) => pipeline.set_policy(compiled),
            None => {
                let config = Config {
                    max_flows: 10_000,
                    full_table: FullTable::DropNew,
                    hash_seed: [1, 2, 3, 4],
                };
                pipeline = Some(Pipeline::new(compiled, config));
            }
        }
        let contexts = (from..*until).map(|n| PacketContext {
            interface: 0,
            direction: packets[n].0,
            now: Timestamp::from_secs(1_700_000_000),
            headers: &parsed[n],
            frame: &packets[n].1,
            own_address: true,
            origin: None,
            token: n as u64,
            size: 0,
        });
        if let Some(pipeline) = &mut pipeline {
            pipeline.process_batch(contexts, |_, verdict| verdicts.push(*verdict));
        }
        from = *until;
        write!(history, "\n{commands}").unwrap();
    }
    let invalid = lab.invalid();
    let (mut tracked, mut differed, mut ended) = (HashSet::new(), HashSet::new(), HashSet::new());
    tally.sequences += 1;
    for (((headers, verdict), (direction, bytes)), tag) in
        parsed.iter().zip(&verdicts).zip(packets).zip(1..)
    {
        let kernel_passes = passed.contains(&tag);
        let connection = connection(headers, bytes);
        let is_tcp = matches!(headers.transport, Transport::Tcp(_));
        // A SYN is invalid only on a connection that is there.
        let is_syn = matches!(headers.transport, Transport::Tcp(t) if t.flags.is_opening());
        let is_invalid = is_tcp && invalid.contains(&tag) && (is_syn || is_of_flow(verdict));
        let knew_the_same = !differed.contains(&connection);
        // The kernel follows a SYN in the middle of a connection if it is answered (K2), and keeps
        // the entry of an ended one whose addresses and ports an untracked one has taken (K3).
        let is_untracked = verdict.outcome == Outcome::Pass(PassReason::AllowedUntracked);
        let is_second = is_syn && (is_of_flow(verdict) || is_untracked);
        if is_invalid || (is_second && tracked.contains(&connection)) {
            differed.insert(connection);
        }
        if verdict.state == Some(FlowState::New) {
            tracked.insert(connection);
        }
        if matches!(headers.transport, Transport::Tcp(t) if t.flags.0 & 5 != 0)
            && is_of_flow(verdict)
        {
            ended.insert(connection);
        }
        if kernel_passes == verdict.is_pass() {
            *(if kernel_passes { &mut tally.passed } else { &mut tally.dropped }) += 1;
            *tally.reasons.entry(verdict.reason()).or_default() += 1;
            continue;
        }
        let difference = if is_invalid {
            Difference::InvalidSegment
        } else if ended.contains(&connection) && (is_syn || !is_tcp) && knew_the_same {
            differed.insert(connection);
            Difference::Ended
        } else if !knew_the_same {
            Difference::Afterwards
        } else {
            let before = parsed.iter().zip(&verdicts).zip(packets).zip(1..=tag);
            for (((h, v), (d, bytes)), t) in before {
                if self::connection(h, bytes) != connection {
                    continue;
                }
                let kernel = if passed.contains(&t) { "passes" } else { "drops" };
                let is_invalid = if invalid.contains(&t) { ", invalid" } else { "" };
                let (tuple, outcome) = (FiveTuple::from(h), v.outcome);
                let line = format!("{t} {d} {tuple} {:?}: {outcome:?}", h.transport);
                writeln!(history, "{line}; the kernel {kernel}{is_invalid}").unwrap();
            }
            return Err(format!("packet {tag}, {direction}{history}"));
        };
        *tally.differences.entry(difference).or_default() += 1;
    }
    Ok(())
}

/// Whether a packet passes because its flow is tracked.
fn is_of_flow(verdict: &Verdict) -> bool {
    matches!(verdict.outcome, Outcome::Pass(PassReason::Established | PassReason::Reply))
}

/// What tells one flow from another, whichever way a packet goes; an ICMP error is about the one that
/// it quotes.
fn connection(headers: &Headers, bytes: &[u8]) -> (u8, IpAddr, IpAddr, u16, u16) {
    let headers = quoted(headers, bytes).unwrap_or(*headers);
    let (a, b) = ((headers.src, headers.src_port()), (headers.dst, headers.dst_port()));
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    (headers.protocol, low.0, high.0, low.1, high.1)
}
