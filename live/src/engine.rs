//! A running firewall, as those see it who ask and command: flows, counters, reload.
//!
//! Everything here may be called from any thread. What looks at flows locks one shard at a time.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sgwall_conntrack::FlowState;
use sgwall_dataplane::counters::Tally;
use sgwall_dataplane::flow_log;
use sgwall_dataplane::{Attribution, Config, Explanation, FrameInput, Judge, TrackedFlow};
use sgwall_netio::clock::Clock;
use sgwall_netio::worker::{Plan, PortCounters, PortStats, WorkerFailure, Workers};
use sgwall_packet::{Direction, FiveTuple, LinkType, PacketSpec, Timestamp, protocol};
use sgwall_rules::compile::{CompiledPolicy, Generation, RuleInfo};
use sgwall_rules::model::{Policy, protocol_name};

use crate::counting::Counting;
use crate::filter::Filter;
use crate::firewall::Firewall;
use crate::flow_log::{Merger, recorders};
use crate::open::OpenPort;
use crate::shared::{Replaced, Shared, Snapshot};

/// What becomes of tracked flows when the policy is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReload {
    /// All stay, as in AWS.
    #[default]
    Keep,
    /// Those that the new rules would not admit end.
    Rejudge,
}

/// A running firewall.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    clock: Clock,
    started: Timestamp,
    config: Config,
    counters: Vec<Arc<[PortCounters]>>,
    generation: AtomicU32,
    /// Held while a policy takes over: one at a time.
    reloading: Mutex<()>,
    on_reload: OnReload,
}

/// A tracked flow. Addresses and ports are those of its original direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The interface that tracks it.
    pub interface: String,
    /// Which way it began, as seen from the interface: `ingress` or `egress`.
    pub direction: String,
    /// `tcp`, `udp`, `icmp` …, or the number.
    pub protocol: String,
    /// Source address.
    pub src: std::net::IpAddr,
    /// Destination address.
    pub dst: std::net::IpAddr,
    /// Source port of TCP and UDP.
    pub src_port: Option<u16>,
    /// Destination port of TCP and UDP.
    pub dst_port: Option<u16>,
    /// Type of the request, for ICMP and ICMPv6 queries.
    pub icmp_type: Option<u8>,
    /// Identifier, for ICMP and ICMPv6 queries.
    pub icmp_id: Option<u16>,
    /// Its state.
    pub state: String,
    /// Seconds until it ends, unless another packet comes.
    pub expires_in: f64,
    /// The rule that admitted it, perhaps of an earlier policy.
    pub rule: String,
    /// The policy under which it was admitted.
    pub generation: u32,
}

/// What a change of policy did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The number of the policy now in force.
    pub generation: u32,
    /// Rules and ACL entries that are new.
    pub rules_added: usize,
    /// Those that are gone.
    pub rules_removed: usize,
    /// Interfaces that are new.
    pub interfaces_added: usize,
    /// Those that are gone.
    pub interfaces_removed: usize,
    /// Tracked flows alive.
    pub flows: usize,
    /// Those that the new rules would not admit if they began now.
    pub not_admitted: usize,
    /// Those that ended for it.
    pub ended: usize,
}

impl std::fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "policy {} is in force: rules +{} -{}, interfaces +{} -{}; of {} tracked flows it would \
             not admit {}, {} ended",
            self.generation,
            self.rules_added,
            self.rules_removed,
            self.interfaces_added,
            self.interfaces_removed,
            self.flows,
            self.not_admitted,
            self.ended
        )
    }
}

/// Packets and bytes by a reason, on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStats {
    /// The interface; `None`: what concerned none.
    pub interface: Option<String>,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The stage that decided.
    pub stage: String,
    /// The reason.
    pub reason: String,
    /// Judgements.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub bytes: u64,
}

/// The places of an interface in the flow table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// The interface.
    pub interface: String,
    /// Tracked flows in memory, of an interface with limits; ones that have just died may be among
    /// them.
    pub flows: Option<u64>,
    /// The most that it may have, if the policy says.
    pub max_flows: Option<u32>,
    /// Places that are kept for it, if the policy says.
    pub reserved_flows: Option<u32>,
    /// Its flows that gave their place to others.
    pub evicted: u64,
}

/// Packets that a rule decided, under the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStats {
    /// `sg-web/ingress-1`, `acl-1/100`.
    pub rule: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// What it says.
    pub text: String,
    /// Packets.
    pub packets: u64,
}

/// The counters of a device, all workers together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// Its device.
    pub device: String,
    /// The interface behind it; `None`: the network.
    pub interface: Option<String>,
    /// Counters by name, see `sgwall_netio::worker::PortStats`.
    pub counters: BTreeMap<String, u64>,
}

/// What a firewall has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The number of the policy in force.
    pub generation: u32,
    /// Seconds since it was started.
    pub uptime: u64,
    /// Workers.
    pub workers: usize,
    /// Tracked flows in memory; ones that have just died may be among them.
    pub flows: u64,
    /// The most that there may be.
    pub max_flows: u64,
    /// Flows that were opened.
    pub flows_created: u64,
    /// Flows that were refused because the table was full, or their interface at its cap.
    pub flows_refused: u64,
    /// Flows that gave their place to others.
    pub flows_evicted: u64,
    /// What becomes of a new flow when the table is full: `drop-new` or `evict-embryonic`.
    pub full_table: String,
    /// By interface, those with limits and those of which flows gave their place to others.
    pub interfaces: Vec<InterfaceStats>,
    /// Packets that are in no record of the flow log, for want of room; `None`: there is no log.
    pub flow_log_skipped: Option<u64>,
    /// By interface and reason, those that occurred.
    pub reasons: Vec<ReasonStats>,
    /// By rule, all of them.
    pub rules: Vec<RuleStats>,
    /// By device.
    pub ports: Vec<PortReport>,
}

impl Engine {
    /// Starts a firewall between open ports, a worker for each queue.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(
        ports: Vec<OpenPort>,
        policy: Arc<Policy>,
        workers: usize,
        config: Config,
        on_reload: OnReload,
    ) -> Result<(Arc<Engine>, Workers<Firewall>), WorkerFailure> {
        let clock = Clock::new();
        let workers = workers.max(1);
        let named: Vec<_> = ports.iter().map(|open| open.port.clone()).collect();
        let snapshot = Snapshot::new(policy, Generation(1), &named);
        let shared = Arc::new(Shared::new(named, snapshot, workers, config));
        let mut queues: Vec<_> = ports.into_iter().map(|open| open.queues.into_iter()).collect();
        let plans = (0..workers).map(|worker| Plan {
            devices: queues.iter_mut().filter_map(Iterator::next).collect(),
            handler: Firewall::new(Arc::clone(&shared), worker),
        });
        let running = Workers::spawn(clock, plans.collect())?;
        let engine = Engine {
            shared,
            started: clock.now(),
            clock,
            config,
            counters: running.counters().to_vec(),
            generation: AtomicU32::new(1),
            reloading: Mutex::new(()),
            on_reload,
        };
        Ok((Arc::new(engine), running))
    }

    /// What workers share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Tracked flows that there may be.
    #[must_use]
    pub fn max_flows(&self) -> u64 {
        self.config.max_flows as u64
    }

    /// Puts a validated policy in force, and says what changed.
    pub fn reload(&self, policy: Arc<Policy>) -> ReloadReport {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        // Held to the end, so that it is not a worker that has the old policy to free.
        let before = self.shared.snapshot();
        let after = before.next(policy, Generation(generation), &self.shared.ports);
        let (rules_added, rules_removed) = match after.policy.shares_rules(&before.policy) {
            true => (0, 0),
            false => changes(rules(&before.policy), rules(&after.policy)),
        };
        let (interfaces_added, interfaces_removed) =
            changes(interfaces(&before.policy), interfaces(&after.policy));
        self.generation.store(generation, Ordering::Relaxed);
        let Replaced { flows, not_admitted, ended } =
            self.shared.replace(after, self.on_reload, self.now());
        ReloadReport {
            generation,
            rules_added,
            rules_removed,
            interfaces_added,
            interfaces_removed,
            flows,
            not_admitted,
            ended,
        }
    }

    /// The tracked flows that pass `filter`, at most `limit`; and whether there are more.
    #[must_use]
    pub fn flows(&self, filter: &Filter, limit: usize) -> (Vec<FlowInfo>, bool) {
        let mut flows = Vec::new();
        let Ok(more) = self.each_flow(filter, limit, |some| {
            flows.extend(some);
            Ok::<_, Infallible>(())
        });
        (flows, more)
    }

    /// The same, some at a time: a large table is never in memory twice, and whoever takes them may
    /// take long. Whether there are more.
    ///
    /// # Errors
    /// The first of `take`, which ends it.
    pub fn each_flow<E>(
        &self,
        filter: &Filter,
        limit: usize,
        take: impl FnMut(Vec<FlowInfo>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let now = self.now();
        let (mut left, mut more) = (limit, false);
        let page = |judge: &mut Judge, places, snapshot: &Snapshot| {
            let mut page = Vec::new();
            for flow in judge.pipeline().flows(places, now) {
                if more || !is_meant(filter, &snapshot.policy, &flow) {
                    continue;
                }
                match left {
                    0 => more = true,
                    _ => {
                        left -= 1;
                        page.push(FlowInfo::of(&flow, &snapshot.policy, now));
                    }
                }
            }
            page
        };
        self.shared.each_page(page, take)?;
        Ok(more)
    }

    /// What would become of a packet if it came now, and why; nothing changes. Without an interface
    /// or a direction its addresses tell.
    ///
    /// # Errors
    /// If the interface or the direction is none, or the packet concerns nobody here.
    pub fn explain(
        &self,
        packet: &PacketSpec,
        interface: Option<&str>,
        direction: Option<&str>,
    ) -> Result<Explanation, String> {
        let data = packet.to_ip();
        let frame = FrameInput {
            token: 0,
            link: Some(LinkType::RawIp),
            data: &data,
            wire_len: data.len() as u32,
            time: self.now(),
            decimals: 9,
            recorded: None,
        };
        self.shared.with_shard_of(packet.src, packet.dst, |judge, snapshot| {
            let attribution = asked(&snapshot.policy, packet, interface, direction)?;
            judge.set_attribution(attribution);
            let explanation = judge.explain(&snapshot.model, frame);
            judge.set_attribution(Attribution::default());
            match explanation.decision.reason == "not-ours" {
                true => Err(concerns_nobody(&snapshot.policy)),
                false => Ok(explanation),
            }
        })
    }

    /// Ends the tracked flows that pass `filter`; how many.
    pub fn kill(&self, filter: &Filter) -> usize {
        let (now, mut ended) = (self.now(), 0);
        self.shared.with_flows(|judge, places, snapshot| {
            ended += judge.end_flows(places, now, |flow| is_meant(filter, &snapshot.policy, flow));
        });
        ended
    }

    /// Begins a flow log of every interface. Whoever takes windows from the answer writes them.
    #[must_use]
    pub fn start_flow_log(&self, config: &flow_log::Config) -> Merger {
        let (policy, now) = (Arc::clone(&self.shared.snapshot().policy), self.now());
        let (recorders, merger) = recorders(&policy, config, self.shared.shards());
        let mut recorders = recorders.into_iter();
        self.shared.with_parts(|part, snapshot| {
            part.recorder = recorders.next();
            if let Some(recorder) = &mut part.recorder {
                recorder.set_policy(Arc::clone(&snapshot.policy));
                recorder.advance(now);
            }
        });
        merger
    }

    /// Ends the flow log, once the workers have ended: the open window goes to the writer. What
    /// the log skipped in all.
    pub fn finish_flow_log(&self) -> Tally {
        let (now, mut skipped) = (self.now(), Tally::default());
        self.shared.with_parts(|part, _| {
            let of_shard = part.recorder.take().map(|recorder| recorder.finish(now));
            skipped = skipped.plus(of_shard.unwrap_or_default());
        });
        skipped
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let snapshot = self.shared.snapshot();
        let mut stats = Stats {
            generation: snapshot.policy.generation().0,
            uptime: self.now().since(self.started).as_secs(),
            workers: self.shared.workers(),
            flows: 0,
            max_flows: self.max_flows(),
            flows_created: 0,
            flows_refused: 0,
            flows_evicted: 0,
            full_table: self.config.full_table.as_str().to_owned(),
            interfaces: Vec::new(),
            flow_log_skipped: None,
            reasons: Vec::new(),
            rules: Vec::new(),
            ports: self.ports(),
        };
        let mut counting = Counting::new(&snapshot.policy);
        self.shared.with_parts(|part, now_in_force| {
            if let Some(recorder) = &part.recorder {
                *stats.flow_log_skipped.get_or_insert(0) += recorder.skipped().packets;
            }
            // A policy that takes over just now has other numbers: its counters begin at zero.
            let is_same = now_in_force.policy.generation() == snapshot.policy.generation();
            counting.add(part.judge.pipeline(), is_same, &mut stats);
        });
        counting.finish(&mut stats);
        stats
    }

    fn ports(&self) -> Vec<PortReport> {
        let report = |(number, port): (usize, &crate::topology::Port)| {
            let of_workers = self.counters.iter().filter_map(|worker| worker.get(number));
            let sum =
                of_workers.map(PortCounters::read).fold(PortStats::default(), PortStats::plus);
            let named = sum.named().into_iter().map(|(name, n)| (name.to_owned(), n));
            PortReport {
                device: port.device.clone(),
                interface: port.interface.clone(),
                counters: named.collect(),
            }
        };
        self.shared.ports.iter().enumerate().map(report).collect()
    }
}

/// How a packet that is asked about finds its interface.
fn asked(
    policy: &CompiledPolicy,
    packet: &PacketSpec,
    interface: Option<&str>,
    direction: Option<&str>,
) -> Result<Attribution, String> {
    let known = |id: &str| {
        let index = policy.interface_by_id(id);
        index.ok_or_else(|| format!("there is no interface {id:?}; {}", has(policy)))
    };
    let index = interface.map(known).transpose()?;
    let Some(word) = direction else {
        return Ok(Attribution { only: index.map(|one| vec![one]), ..Attribution::default() });
    };
    let direction = Direction::BOTH.into_iter().find(|d| d.as_str() == word);
    let direction = direction.ok_or_else(|| format!("{word:?} is not ingress or egress"))?;
    let own = match direction {
        Direction::Ingress => packet.dst,
        Direction::Egress => packet.src,
    };
    let by_address = || policy.interfaces_of(&own).first().copied();
    let only = || (policy.interfaces().len() == 1).then_some(0);
    let one = index.or_else(by_address).or_else(only);
    let one = one.ok_or_else(|| {
        format!("{word} of which interface? {own} is no interface's address; {}", has(policy))
    })?;
    Ok(Attribution { only: Some(vec![one]), direction: Some(direction), ..Attribution::default() })
}

fn concerns_nobody(policy: &CompiledPolicy) -> String {
    format!(
        "the packet concerns nobody: neither end is an address of an interface; {}. Name one, and \
         ingress or egress",
        has(policy)
    )
}

fn has(policy: &CompiledPolicy) -> String {
    let ids: Vec<_> = policy.interfaces().iter().map(|i| i.id.as_str()).take(12).collect();
    format!("the policy has {}", if ids.is_empty() { "none".into() } else { ids.join(", ") })
}

/// `sg-web/ingress-1`.
pub(crate) fn rule_name(rule: &RuleInfo) -> String {
    format!("{}/{}", rule.owner, rule.rule)
}

fn rules(policy: &CompiledPolicy) -> HashSet<&RuleInfo> {
    policy.rules().iter().collect()
}

fn interfaces(policy: &CompiledPolicy) -> HashSet<&String> {
    policy.interfaces().iter().map(|interface| &interface.id).collect()
}

/// How many are new, and how many are gone.
fn changes<T: Eq + std::hash::Hash>(before: HashSet<T>, after: HashSet<T>) -> (usize, usize) {
    (after.difference(&before).count(), before.difference(&after).count())
}

fn interface_id<'a>(policy: &'a CompiledPolicy, flow: &TrackedFlow<'_>) -> Option<&'a str> {
    Some(policy.interfaces().get(flow.interface?)?.id.as_str())
}

fn is_meant(filter: &Filter, policy: &CompiledPolicy, flow: &TrackedFlow<'_>) -> bool {
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    // The ports of an ICMP query are its type and identifier: no port is meant by those.
    let mut tuple = flow.view.original_tuple();
    if !has_ports(&tuple) {
        (tuple.src_port, tuple.dst_port) = (0, 0);
    }
    filter.passes(&tuple)
        && is(&filter.interface, interface_id(policy, flow))
        && is(&filter.state, Some(flow.view.state.as_str()))
}

const fn has_ports(tuple: &FiveTuple) -> bool {
    matches!(tuple.protocol, protocol::TCP | protocol::UDP)
}

impl FlowInfo {
    fn of(flow: &TrackedFlow<'_>, policy: &CompiledPolicy, now: Timestamp) -> Self {
        let tuple = flow.view.original_tuple();
        let is_query = flow.view.state == FlowState::Icmp;
        let left = flow.view.deadline.since(now);
        FlowInfo {
            interface: interface_id(policy, flow).unwrap_or("-").to_owned(),
            direction: flow.direction.as_str().to_owned(),
            protocol: protocol_name(tuple.protocol),
            src: tuple.src,
            dst: tuple.dst,
            src_port: has_ports(&tuple).then_some(tuple.src_port),
            dst_port: has_ports(&tuple).then_some(tuple.dst_port),
            icmp_type: is_query.then_some(tuple.src_port as u8),
            icmp_id: is_query.then_some(tuple.dst_port),
            state: flow.view.state.as_str().to_owned(),
            expires_in: (left.as_secs_f64() * 10.0).round() / 10.0,
            rule: rule_name(flow.rule),
            generation: flow.view.generation,
        }
    }
}
