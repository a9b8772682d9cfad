//! The pipeline against a slow one that shares no code with it ([`slow`]): random policies, random
//! traffic, reloads in the middle, packet by packet.
//!
//! `SGWALL_ORACLE_WORLDS` says how many policies, each with its reloads and 1,000 packets, and
//! `SGWALL_ORACLE_SEED` from which seed on; every policy has its own, which a failure names.

mod policies;
mod slow;
mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fastrand::Rng;
use sgwall_dataplane::{
    Config, DropReason, FullTable, Outcome, PacketContext, PassReason, Pipeline, Verdict,
};
use sgwall_packet::{Direction, Duration, FiveTuple, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::{FlowLimits, Policy};
use slow::{Answer, Slow};
use traffic::{Sent, Traffic};

const PACKETS: usize = 1000;

#[test]
fn the_pipeline_says_what_the_slow_one_says() {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")),
        Err(_) => default,
    };
    let worlds = number("SGWALL_ORACLE_WORLDS", 250);
    let first = number("SGWALL_ORACLE_SEED", 0);
    let mut tally = Tally::default();
    for seed in first..first + worlds {
        if let Err(difference) = World::new(seed).run(&mut tally) {
            panic!("seed {seed}: {difference}\nSGWALL_ORACLE_SEED={seed} SGWALL_ORACLE_WORLDS=1");
        }
    }
    println!(
        "{worlds} policies, {} reloads, {} packets, {} flows evicted",
        tally.reloads, tally.packets, tally.evicted
    );
    for (words, packets) in &tally.outcomes {
        println!("{packets:>10} {words}");
    }
    if worlds >= 200 {
        tally.assert_complete();
    }
}

/// What was tried.
#[derive(Default)]
struct Tally {
    packets: u64,
    reloads: u64,
    evicted: u64,
    outcomes: BTreeMap<String, u64>,
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        let words = match outcome {
            Outcome::Pass(reason) => format!("pass {}", reason.as_str()),
            Outcome::Drop(reason) => format!("drop {}", reason.as_str()),
            Outcome::Hold => "held".to_owned(),
        };
        *self.outcomes.entry(words).or_default() += 1;
    }

    /// Every reason that a pipeline gives was given; the others are given around it.
    fn assert_complete(&self) {
        use DropReason as D;
        let around = [
            D::Malformed,
            D::NotIp,
            D::VlanTag,
            D::MacCheck,
            D::ArpInvalid,
            D::NeighbourInvalid,
            D::NotServed,
        ];
        assert!(self.evicted > 0, "no flow gave its place to another");
        let passes = PassReason::ALL.iter().filter(|reason| **reason != PassReason::Arp);
        let drops = DropReason::ALL.iter().filter(|reason| !around.contains(reason));
        let words = passes.map(|r| format!("pass {}", r.as_str()));
        for words in words.chain(drops.map(|r| format!("drop {}", r.as_str()))) {
            assert!(self.outcomes.contains_key(&words), "no packet was tried that meets {words}");
        }
    }
}

/// Where time steps back, a flow that has died may live again: when its place is free, nobody says.
fn forget_limits(policy: &mut Policy) {
    for interface in &mut policy.interfaces {
        interface.flows = FlowLimits::default();
    }
}

/// A policy with its traffic, judged twice.
struct World {
    rng: Rng,
    policy: Policy,
    fast: Pipeline,
    slow: Slow,
    traffic: Traffic,
    now: Timestamp,
    /// Whether time may step back; it then never passes for the table but with packets.
    steps_back: bool,
    generation: u32,
    token: u64,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut policy = policies::policy(&mut rng);
        let steps_back = rng.u8(0..3) == 0;
        let max_flows = if !steps_back && rng.u8(0..4) == 0 { rng.usize(1..8) } else { 100_000 };
        let full_table = if rng.bool() { FullTable::DropNew } else { FullTable::EvictEmbryonic };
        if steps_back {
            forget_limits(&mut policy);
        }
        let compiled = Arc::new(CompiledPolicy::compile(&policy, Generation(0)));
        let config = Config { max_flows, full_table, hash_seed: [seed, 2, 3, 4] };
        World {
            traffic: Traffic::new(&mut rng, &policy),
            fast: Pipeline::new(compiled, config),
            slow: Slow::new(policy.clone(), max_flows, full_table),
            policy,
            rng,
            now: Timestamp::from_secs(1_700_000_000),
            steps_back,
            generation: 0,
            token: 0,
            log: Vec::new(),
        }
    }

    fn run(&mut self, tally: &mut Tally) -> Result<(), String> {
        let mut left = PACKETS;
        while left > 0 {
            self.pass_time();
            if self.rng.u8(0..40) == 0 {
                self.reload();
                tally.reloads += 1;
            }
            let batch = self.batch();
            left = left.saturating_sub(batch.len().max(1));
            self.judge(&batch, tally)?;
            if !self.steps_back {
                self.fast.advance(self.now);
                self.slow.fragments.pass_time(self.now);
            }
            self.compare_released(tally)?;
        }
        self.compare_flows()?;
        let (fast, slow) = (self.fast.connections().counters().evicted, self.slow.evicted);
        if fast != slow {
            return Err(format!("fast has evicted {fast} flows, slow {slow}"));
        }
        tally.evicted += fast;
        self.fast.end_waiting();
        self.slow.fragments.pass_time(Timestamp::from_nanos(i64::MAX));
        self.compare_released(tally)
    }

    fn pass_time(&mut self) {
        let timeouts = [1, 2, 10, 30, 60, 120, 180, 600];
        let step = match self.rng.u8(0..60) {
            0..=39 => 0,
            40..=52 => self.rng.u64(..1_500_000_000),
            53..=56 => self.rng.u64(..40_000_000_000),
            57 => timeouts[self.rng.usize(..timeouts.len())] * 1_000_000_000,
            58 => timeouts[self.rng.usize(..timeouts.len())] * 1_000_000_000 - 1,
            _ => self.rng.u64(..700_000_000_000),
        };
        self.now = match self.steps_back && self.rng.u8(0..3) == 0 {
            true => Timestamp::from_nanos(self.now.as_nanos() - step as i64),
            false => self.now.after(Duration::from_nanos(step)),
        };
        // A flow that has died may hold its place until the tick in which it died is over, 2^28 ns: of
        // a table that may be full, nobody can say then who gives a place.
        let tick = |time: Timestamp| time.as_nanos() >> 28;
        let may_hold = |now: Timestamp| {
            let mut flows = self.slow.flows.values();
            flows.any(|flow| flow.dies <= now && tick(flow.dies) == tick(now))
        };
        while !self.steps_back && may_hold(self.now) {
            self.now = self.now.after(Duration::from_nanos(1 << 28));
        }
    }

    fn reload(&mut self) {
        self.policy = policies::changed(&mut self.rng, &self.policy);
        if self.steps_back {
            forget_limits(&mut self.policy);
        }
        self.generation += 1;
        let compiled = CompiledPolicy::compile(&self.policy, Generation(self.generation));
        self.fast.set_policy(Arc::new(compiled));
        self.slow.set_policy(self.policy.clone());
        self.log.push("a reload".to_owned());
    }

    fn batch(&mut self) -> Vec<Sent> {
        let len = [1, 2, 5, 32][self.rng.usize(..4)];
        (0..len).filter_map(|_| self.traffic.next(&mut self.rng, &self.policy)).collect()
    }

    /// Has a batch judged by both.
    fn judge(&mut self, batch: &[Sent], tally: &mut Tally) -> Result<(), String> {
        let (now, token) = (self.now, self.token);
        let owns = |sent: &Sent| {
            let ours = match sent.direction {
                Direction::Ingress => sent.headers.dst,
                Direction::Egress => sent.headers.src,
            };
            self.policy.interfaces[sent.interface].addresses.contains(&ours)
        };
        let packets = batch.iter().zip(token..).map(|(sent, token)| PacketContext {
            interface: sent.interface,
            direction: sent.direction,
            now,
            headers: &sent.headers,
            frame: &sent.bytes,
            own_address: owns(sent),
            origin: sent.origin,
            token,
            size: sent.size,
        });
        self.token += batch.len() as u64;
        let mut verdicts = Vec::new();
        if self.rng.u8(0..8) == 0 {
            verdicts.extend(packets.clone().map(|packet| self.fast.process(&packet)));
        } else {
            self.fast.process_batch(packets.clone(), |_, verdict| verdicts.push(*verdict));
        }
        for ((packet, verdict), sent) in packets.zip(&verdicts).zip(batch) {
            let slow = self.slow.judge(&packet);
            let fast = answer(&self.fast, verdict);
            tally.packets += 1;
            tally.count(verdict.outcome);
            let interface = &self.policy.interfaces[sent.interface].id;
            let tuple = FiveTuple::from(&sent.headers);
            self.log.push(format!(
                "{now} {interface} {} {} {tuple} {:?} {:?} size {} df {} origin {:?}: {:?}",
                sent.direction,
                tuple.protocol,
                sent.headers.transport,
                sent.headers.fragment,
                sent.size,
                sent.headers.dont_fragment,
                sent.origin,
                fast.outcome,
            ));
            if fast != slow {
                return Err(format!("{}\nfast {fast:?}\nslow {slow:?}", self.history(&tuple)));
            }
        }
        Ok(())
    }

    fn compare_released(&mut self, tally: &mut Tally) -> Result<(), String> {
        let released = self.fast.released();
        released.iter().for_each(|released| tally.count(released.verdict.outcome));
        let fast: HashMap<u64, Answer> =
            released.iter().map(|r| (r.token, answer(&self.fast, &r.verdict))).collect();
        let slow: HashMap<u64, Answer> = self.slow.fragments.released.drain(..).collect();
        match fast == slow {
            true => Ok(()),
            false => Err(format!("released\nfast {fast:?}\nslow {slow:?}")),
        }
    }

    /// The tracked flows at the end: the same ones, in the same states, until the same times.
    fn compare_flows(&self) -> Result<(), String> {
        let flows = self.fast.flows(0..self.fast.connections().places(), self.now);
        let mut fast: Vec<_> = flows
            .map(|flow| {
                let rule = format!("{}/{}", flow.rule.owner, flow.rule.rule);
                let interface = flow.interface.map(|i| self.policy.interfaces[i].id.clone());
                let view = flow.view;
                (interface, view.original_tuple(), view.state.as_str(), view.deadline, rule)
            })
            .collect();
        let living = self.slow.flows.iter().filter(|(_, flow)| self.now < flow.dies);
        let mut slow: Vec<_> = living
            .map(|((id, tuple), flow)| {
                let known = self.policy.interfaces.iter().any(|i| i.id == *id);
                let interface = known.then(|| id.clone());
                (interface, *tuple, flow.tracked.state(), flow.dies, flow.rule.clone())
            })
            .collect();
        fast.sort();
        slow.sort();
        match fast == slow {
            true => Ok(()),
            false => Err(format!("flows\nfast {fast:?}\nslow {slow:?}")),
        }
    }

    /// What went before between the same two addresses.
    fn history(&self, tuple: &FiveTuple) -> String {
        let (src, dst) = (tuple.src.to_string(), tuple.dst.to_string());
        let concerns =
            |line: &&String| *line == "a reload" || (line.contains(&src) && line.contains(&dst));
        let lines: Vec<&str> = self.log.iter().filter(concerns).map(String::as_str).collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// A verdict of the pipeline in the slow one's words.
fn answer(pipeline: &Pipeline, verdict: &Verdict) -> Answer {
    let name = |rule: &sgwall_rules::compile::RuleInfo| format!("{}/{}", rule.owner, rule.rule);
    Answer {
        outcome: verdict.outcome,
        state: verdict.state,
        rule: verdict.rule.and_then(|id| pipeline.policy().rule(id)).map(name),
        admitted_by: verdict.admitted_by.and_then(|tag| pipeline.admitting_rule(tag)).map(name),
        mtu: verdict.mtu.map(std::num::NonZeroU16::get),
    }
}
