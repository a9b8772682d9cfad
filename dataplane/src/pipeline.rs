//! The whole way of a packet, top to bottom, in [`Pipeline::process`].
//!
//! A pipeline is owned by one worker and never shared: policy comes in as an [`Arc`], tracking
//! and virtual reassembly are its own. Time comes with each packet and may step back.

mod flows;
mod known;
mod unfiltered;

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use sgwall_conntrack::{
    Allowance, ConnTable, Full, FullTable, Hit, Lookup, Probe, RuleTag, Scope, TimeoutProfile,
    may_open,
};
use sgwall_packet::{
    Direction, FlowKey, FragmentInfo, Headers, Timestamp, Transport, quoted_of_receiver,
};
use sgwall_rules::compile::{
    AclMatch, CompiledInterface, CompiledPolicy, GroupMatch, RuleId, RuleInfo,
};
use sgwall_rules::model::{AclAction, RouteTarget};

use crate::counters::Counters;
use crate::fragment::{DatagramKey, FragmentTable, Held};
use crate::limits::{flow_limits, timeout_profile};
use crate::names::Names;
use crate::path_mtu::{Fit, RateLimit, fit};
use crate::verdict::{DropReason, FlowState, Outcome, PassReason, Verdict};

pub use flows::TrackedFlow;
use flows::lost_ends;
use unfiltered::{before_fragments, is_dhcp_to_all, note_exempt};
pub(crate) use unfiltered::{follows_dhcp, is_unsupported, passes_exempt};

/// Entries looked at for expiry each time that [`Pipeline::advance`] is called.
const EXPIRY_BUDGET: usize = 64;

/// What a pipeline is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Tracked flows at once (SEMANTICS 6.16).
    pub max_flows: usize,
    /// What becomes of a flow beyond.
    pub full_table: FullTable,
    /// Seed of every hash table: random for each process, so that no sender can aim at a bucket.
    pub hash_seed: [u64; 4],
}

/// One packet on one side of one interface.
#[derive(Clone, Copy, Debug)]
pub struct PacketContext<'a> {
    /// Index of the interface in the policy.
    pub interface: usize,
    /// Which way the packet goes.
    pub direction: Direction,
    /// When it came.
    pub now: Timestamp,
    /// Its headers.
    pub headers: &'a Headers,
    /// The frame that the headers were read from: ICMP errors quote in their payload.
    pub frame: &'a [u8],
    /// Whether the address on the interface's side is its own (source/destination check).
    pub own_address: bool,
    /// Into an interface: the interface (index) that sent the packet, if it is known. It need not
    /// own the source address (SEMANTICS 4.5).
    pub origin: Option<usize>,
    /// The caller's name for the packet, given back if the packet is held.
    pub token: u64,
    /// Bytes of the largest IP packet that it is on the wire: its own length or, of a frame that
    /// segmentation offload will cut, its largest segment's. What is not known is 0, which fits.
    pub size: u32,
}

/// The verdict on a packet that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The caller's name for the packet.
    pub token: u64,
    /// Index of the interface in the policy; `None` if the policy has changed and lacks it.
    pub interface: Option<usize>,
    /// Which way it was going.
    pub direction: Direction,
    /// What becomes of it; never [`crate::Outcome::Hold`].
    pub verdict: Verdict,
}

/// The state of one worker.
#[derive(Clone, Debug)]
pub struct Pipeline {
    policy: Arc<CompiledPolicy>,
    pub(crate) state: State,
    counters: Counters,
    names: Names,
    /// Room for the look-ups of a batch.
    probes: Vec<Probe>,
}

/// What packets change; apart from the policy, so that judging borrows both.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) connections: ConnTable,
    fragments: FragmentTable,
    /// By interface index: what tracking knows the interface as, and its timeouts.
    pub(crate) tracking: Vec<(Scope, TimeoutProfile)>,
    /// By rule index: what tracking knows the rule as.
    tags: Arc<[RuleTag]>,
    /// By interface index: the router's answers to packets that do not fit.
    answers: Vec<RateLimit>,
    /// Of the marks that hold, see [`known`].
    epoch: u16,
}

/// What is to be written down once the packet is finally accepted (SEMANTICS 7.8).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    None,
    /// Note the packet in its flow's entry.
    Refresh(Hit),
    /// Make an entry, in place of an ended one.
    Open(RuleId, Option<Hit>),
    /// End an entry whose five-tuple now belongs to an untracked flow, or to a refused one.
    End(Hit),
    /// Nothing, because there is no place for the entry.
    Refused(Full),
}

impl Pipeline {
    /// A pipeline under `policy`, with nothing tracked.
    #[must_use]
    pub fn new(policy: Arc<CompiledPolicy>, config: Config) -> Self {
        let names = Names::new(&policy);
        Self::with_table(policy, names, config, ConnTable::new(table_config(config)))
    }

    /// The same, of several that share the number of flows that they may track together, and the
    /// policy's names. `config.max_flows` is then what there is room for from the beginning.
    #[must_use]
    pub fn sharing(
        policy: Arc<CompiledPolicy>,
        names: Names,
        config: Config,
        allowance: Arc<Allowance>,
    ) -> Self {
        let connections = ConnTable::sharing(table_config(config), allowance);
        Self::with_table(policy, names, config, connections)
    }

    fn with_table(
        policy: Arc<CompiledPolicy>,
        names: Names,
        config: Config,
        connections: ConnTable,
    ) -> Self {
        let fragments = FragmentTable::new(config.hash_seed);
        let state = State {
            connections,
            fragments,
            tracking: Vec::new(),
            tags: names.tags(),
            answers: Vec::new(),
            epoch: 0,
        };
        let mut pipeline = Pipeline {
            policy: Arc::clone(&policy),
            state,
            counters: Counters::default(),
            names: names.clone(),
            probes: Vec::new(),
        };
        pipeline.take_over(policy, names);
        pipeline
    }

    /// Replaces the policy: the next packet is judged by the new one, tracked flows stay
    /// (SEMANTICS 3.4, 6.12) but for those of addresses that an interface has lost, and all of an
    /// interface that is gone (7.12). Rule hits start again at zero, since rules are numbered anew.
    pub fn set_policy(&mut self, policy: Arc<CompiledPolicy>) {
        let names = self.names.after(&self.policy, &policy);
        self.take_over(policy, names);
    }

    /// [`Self::set_policy`] with names that were made before: [`Names::after`] those that all
    /// pipelines have that share flows, or after ones that came in between. It then takes a time
    /// that does not grow with the number of rules, but for clearing their counters. Where limits of
    /// interfaces change, it looks at all flows once.
    pub fn take_over(&mut self, policy: Arc<CompiledPolicy>, names: Names) {
        let (gone, lost) = lost_ends(&self.policy, &policy, &names);
        let limits = flow_limits(&policy, &names);
        if !gone.is_empty() || !lost.is_empty() {
            let all = 0..self.state.connections.places();
            self.state.connections.retain(all, |flow| {
                let addresses = flow.key.addresses().into_iter();
                let mut ends = addresses.map(|address| (flow.scope, address));
                !gone.contains(&flow.scope) && ends.all(|end| !lost.contains(&end))
            });
        }
        self.state.connections.set_limits(policy.generation().0, &limits);
        let tracked = |i: &CompiledInterface| (names.scope(&i.id), timeout_profile(i.timeouts));
        self.state.tracking = policy.interfaces().iter().map(tracked).collect();
        self.state.tags = names.tags();
        self.state.answers = vec![RateLimit::default(); policy.interfaces().len()];
        self.state.fragments.forget_rules();
        let before = self.policy.interfaces().iter();
        let places = before.map(|interface| policy.interface_by_id(&interface.id)).collect();
        self.counters.change_policy(places, policy.interfaces().len(), policy.rules().len());
        self.begin_epoch();
        self.policy = policy;
        self.names = names;
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Arc<CompiledPolicy> {
        &self.policy
    }

    /// What the numbers of flows stand for.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The tracked flows.
    #[must_use]
    pub fn connections(&self) -> &ConnTable {
        &self.state.connections
    }

    /// The rule that admitted a flow, of the policy under which it did.
    #[must_use]
    pub fn admitting_rule(&self, tag: RuleTag) -> Option<&RuleInfo> {
        self.names.rule(tag)
    }

    /// Lets time pass, a bounded amount of work at a time: call it once a batch. Expiry is exact
    /// whether or not it is called; it frees memory and ends the wait of held fragments.
    #[inline]
    pub fn advance(&mut self, now: Timestamp) {
        self.state.connections.expire(now, EXPIRY_BUDGET);
        self.state.fragments.expire(now);
    }

    /// Ends the wait of every held fragment.
    pub fn end_waiting(&mut self) {
        self.state.fragments.expire(Timestamp::from_nanos(i64::MAX));
    }

    /// Judges one packet on one side of one interface.
    pub fn process(&mut self, packet: &PacketContext<'_>) -> Verdict {
        self.process_probed(packet, None)
    }

    /// [`Self::process`]; `probe` is of the packet's flow, if one has been made.
    #[inline]
    fn process_probed(&mut self, packet: &PacketContext<'_>, probe: Option<&Probe>) -> Verdict {
        let verdict = match self.policy.interfaces().get(packet.interface) {
            Some(interface) => self.state.judge(&self.policy, interface, packet, probe),
            None => Verdict::drop(DropReason::SrcDstCheck),
        };
        self.counters.count(Some(packet.interface), &verdict, packet.headers.ip_len);
        verdict
    }

    /// Whether one of these interfaces may find no free place for a flow that a packet opens.
    pub(crate) fn is_tight(&self, interfaces: impl Iterator<Item = usize>) -> bool {
        let mut scopes = interfaces.filter_map(|index| self.state.tracking.get(index));
        scopes.any(|(scope, _)| self.state.connections.is_tight(*scope))
    }

    /// Flows of an interface (its index) that gave their place to others.
    #[must_use]
    pub fn evicted(&self, interface: usize) -> u64 {
        let tracked = self.state.tracking.get(interface);
        tracked.map_or(0, |(scope, _)| self.state.connections.evicted(*scope))
    }

    /// Flows of an interface (its index), in this pipeline and all that share its flows, if the
    /// interface has limits.
    #[must_use]
    pub fn flows_at_once(&self, interface: usize) -> Option<u64> {
        let (scope, _) = self.state.tracking.get(interface)?;
        self.state.connections.flows_of(*scope).map(u64::from)
    }

    /// The verdict that [`Self::process`] would give, and what would be written down: nothing is.
    pub(crate) fn foresee(&self, packet: &PacketContext<'_>) -> (Verdict, Effect) {
        match self.policy.interfaces().get(packet.interface) {
            Some(interface) => self.state.foresee(&self.policy, interface, packet),
            None => (Verdict::drop(DropReason::SrcDstCheck), Effect::None),
        }
    }

    /// Whether [`Self::may_answer`] would say so.
    pub(crate) fn would_answer(&self, interface: usize, now: Timestamp) -> bool {
        self.state.answers.get(interface).is_some_and(|limit| { *limit }.allow(now))
    }

    /// Whether the router may answer one more packet that did not fit (SEMANTICS 12.8).
    pub(crate) fn may_answer(&mut self, interface: usize, now: Timestamp) -> bool {
        self.state.answers.get_mut(interface).is_some_and(|limit| limit.allow(now))
    }

    /// Counts a verdict that was reached before a packet met the pipeline.
    pub(crate) fn count(&mut self, interface: Option<usize>, verdict: &Verdict, bytes: u32) {
        self.counters.count(interface, verdict, bytes);
    }

    /// Whether [`Self::released`] has anything to tell.
    #[inline]
    pub(crate) fn has_released(&self) -> bool {
        self.state.fragments.has_settled()
    }

    /// The verdicts on held packets that have become known since the last call.
    pub fn released(&mut self) -> Vec<Released> {
        let settled = self.state.fragments.take_settled().into_iter();
        settled
            .map(|s| {
                let of_scope = |(scope, _): &(Scope, TimeoutProfile)| scope.0 == s.scope;
                let interface = self.state.tracking.iter().position(of_scope);
                self.counters.count(interface, &s.verdict, s.bytes);
                Released { token: s.token, interface, direction: s.direction, verdict: s.verdict }
            })
            .collect()
    }
}

impl State {
    /// The whole way of a packet, in order (SEMANTICS 9.1, 9.2).
    fn judge(
        &mut self,
        policy: &CompiledPolicy,
        interface: &CompiledInterface,
        packet: &PacketContext<'_>,
        probe: Option<&Probe>,
    ) -> Verdict {
        if let Some(verdict) = before_fragments(policy, interface, packet) {
            return match self.exempt_datagram(policy, interface, packet, &verdict) {
                Some((key, info)) => note_exempt(&mut self.fragments, key, packet, info, verdict),
                None => verdict,
            };
        }
        let headers = packet.headers;
        let Some(fragment) = headers.fragment else {
            return self.judge_whole(policy, interface, packet, probe);
        };
        let key = self.datagram(packet, fragment);
        if headers.transport == Transport::LaterFragment {
            return later_fragment(&mut self.fragments, key, policy, interface, packet, fragment);
        }
        if let Err(reason) = self.fragments.first(key, headers, fragment, packet.now) {
            return Verdict::drop(reason);
        }
        let verdict = self.judge_whole(policy, interface, packet, None);
        self.fragments.decide(key, headers, verdict, packet.now);
        verdict
    }

    /// [`Self::judge`] on a copy of what it changes.
    fn foresee(
        &self,
        policy: &CompiledPolicy,
        interface: &CompiledInterface,
        packet: &PacketContext<'_>,
    ) -> (Verdict, Effect) {
        if let Some(verdict) = before_fragments(policy, interface, packet) {
            let verdict = match self.exempt_datagram(policy, interface, packet, &verdict) {
                Some((key, info)) => {
                    note_exempt(&mut self.fragments.clone(), key, packet, info, verdict)
                }
                None => verdict,
            };
            return (verdict, Effect::None);
        }
        if let Some(info) = packet.headers.fragment {
            let (mut copy, key) = (self.fragments.clone(), self.datagram(packet, info));
            if packet.headers.transport == Transport::LaterFragment {
                let verdict = later_fragment(&mut copy, key, policy, interface, packet, info);
                return (verdict, Effect::None);
            }
            if let Err(reason) = copy.first(key, packet.headers, info, packet.now) {
                return (Verdict::drop(reason), Effect::None);
            }
        }
        let crosses = crosses_acl(policy, interface, packet);
        let (verdict, effect) = self.decide(policy, interface, packet, crosses, None);
        let is_tight = || self.connections.is_tight(self.tracking[packet.interface].0);
        if matches!(effect, Effect::Open(..)) && is_tight() {
            let (verdict, effect, _) = self.clone().commit(policy, packet, None, verdict, effect);
            return (verdict, effect);
        }
        (verdict, effect)
    }

    /// The datagram whose first fragment is exempt, unless its address alone made it so: later
    /// fragments do not show the port, so they must follow. Those that wait to see whether it is
    /// DHCP follow a first that is not, too.
    fn exempt_datagram(
        &self,
        policy: &CompiledPolicy,
        interface: &CompiledInterface,
        packet: &PacketContext<'_>,
        verdict: &Verdict,
    ) -> Option<(DatagramKey, FragmentInfo)> {
        let is_router = verdict.outcome == Outcome::Pass(PassReason::Router);
        let follows =
            !is_router && (verdict.is_pass() || is_dhcp_to_all(policy, interface, packet));
        let info = packet.headers.fragment.filter(|_| follows)?;
        Some((self.datagram(packet, info), info))
    }

    fn datagram(&self, packet: &PacketContext<'_>, fragment: FragmentInfo) -> DatagramKey {
        let scope = self.tracking[packet.interface].0;
        DatagramKey::of(scope.0, packet.direction, packet.headers, fragment.id)
    }

    /// A packet that has its transport header: decided, and written down.
    fn judge_whole(
        &mut self,
        policy: &CompiledPolicy,
        interface: &CompiledInterface,
        packet: &PacketContext<'_>,
        probe: Option<&Probe>,
    ) -> Verdict {
        let crosses = crosses_acl(policy, interface, packet);
        let (verdict, effect) = self.decide(policy, interface, packet, crosses, probe);
        let (verdict, _, entry) = self.commit(policy, packet, probe, verdict, effect);
        if let Some(entry) = &entry {
            self.mark(interface, packet, crosses, entry);
        }
        verdict
    }

    /// Network ACL, tracking and security groups, path MTU: what they say, and what is to be
    /// written down of it. Changes nothing.
    #[inline(always)]
    fn decide(
        &self,
        policy: &CompiledPolicy,
        interface: &CompiledInterface,
        packet: &PacketContext<'_>,
        crosses_acl: bool,
        probe: Option<&Probe>,
    ) -> (Verdict, Effect) {
        // A packet comes in over the subnet's edge and goes out over it.
        let ingress = packet.direction == Direction::Ingress;
        if ingress {
            if crosses_acl && let Some(refused) = refused_by_acl(interface, packet) {
                return (refused, Effect::None);
            }
            if fails_address_check(interface, packet) {
                return (Verdict::drop(DropReason::SrcDstCheck), Effect::None);
            }
        }
        let (verdict, effect) = self.admit(policy, interface, packet, probe);
        if !verdict.is_pass() {
            return (verdict, effect);
        }
        if !ingress
            && crosses_acl
            && let Some(refused) = refused_by_acl(interface, packet)
        {
            return (refused.of_flow(verdict.state), Effect::None);
        }
        let mtu = match fit(policy, interface, packet) {
            Fit::Whole => None,
            Fit::InFragments(mtu) => Some(mtu),
            Fit::TooBig(mtu) => return (too_big(mtu).of_flow(verdict.state), Effect::None),
        };
        (Verdict { mtu, ..verdict }, effect)
    }

    /// What tracking and, failing that, the groups say.
    #[inline(always)]
    fn admit(
        &self,
        policy: &CompiledPolicy,
        interface: &CompiledInterface,
        packet: &PacketContext<'_>,
        probe: Option<&Probe>,
    ) -> (Verdict, Effect) {
        let scope = self.tracking[packet.interface].0;
        let found = match probe {
            Some(probe) => self.connections.lookup_probe(probe, packet.headers, packet.now),
            None => self.connections.lookup(scope, packet.headers, packet.now),
        };
        match found {
            Lookup::Hit(hit) => {
                let (reason, state) = match hit.reply {
                    true => (PassReason::Reply, FlowState::Reply),
                    false => (PassReason::Established, FlowState::Established),
                };
                let is_outside = policy.tcp_window_check()
                    && self.connections.is_out_of_window(&hit, packet.headers);
                let (verdict, effect) = match is_outside {
                    true => (Verdict::drop(DropReason::TcpOutOfWindow), Effect::None),
                    false => (Verdict::pass(reason), Effect::Refresh(hit)),
                };
                let verdict = Verdict { admitted_by: Some(hit.tag), ..verdict };
                (verdict.of_flow(Some(state)), effect)
            }
            // A new connection on the five-tuple of an ended one: judged afresh (SEMANTICS 7.6).
            Lookup::Reopen(old) => {
                let (verdict, effect) = by_rules(policy, interface, packet);
                let effect = match effect {
                    Effect::Open(rule, _) => Effect::Open(rule, Some(old)),
                    _ => Effect::End(old),
                };
                (verdict, effect)
            }
            Lookup::Miss => match self.related(policy, scope, packet) {
                Some(verdict) => (verdict, Effect::None),
                None => by_rules(policy, interface, packet),
            },
        }
    }

    /// An ICMP error about a packet of a tracked flow, where the policy admits those
    /// (SEMANTICS 10.2). It never touches the flow (10.3); a redirect is none.
    pub(crate) fn related(
        &self,
        policy: &CompiledPolicy,
        scope: Scope,
        packet: &PacketContext<'_>,
    ) -> Option<Verdict> {
        if !policy.icmp_related() {
            return None;
        }
        let (key, side) = FlowKey::of(&quoted_of_receiver(packet.headers, packet.frame)?)?;
        let hit = self.connections.lookup_related(scope, &key, side, packet.now)?;
        let verdict = Verdict { admitted_by: Some(hit.tag), ..Verdict::pass(PassReason::Related) };
        Some(verdict.of_flow(Some(FlowState::Related)))
    }

    /// Writes down what a packet does to its flow: an accepted one, or a refused one that would
    /// have begun a new connection where an ended one stands. The verdict that stands, what was done,
    /// and the entry of a packet that passes.
    #[inline(always)]
    fn commit(
        &mut self,
        policy: &CompiledPolicy,
        packet: &PacketContext<'_>,
        probe: Option<&Probe>,
        verdict: Verdict,
        effect: Effect,
    ) -> (Verdict, Effect, Option<Hit>) {
        let (scope, timeouts) = &self.tracking[packet.interface];
        let (headers, now) = (packet.headers, packet.now);
        let mut entry = None;
        match effect {
            Effect::None | Effect::Refused(_) => {}
            Effect::Refresh(hit) => {
                self.connections.refresh(&hit, headers, now, timeouts);
                entry = Some(hit);
            }
            Effect::End(hit) => self.connections.remove(&hit),
            Effect::Open(rule, ended) => {
                if let Some(ended) = ended {
                    self.connections.remove(&ended);
                }
                let (tag, generation) = (self.tags[rule.0 as usize], policy.generation().0);
                let table = &mut self.connections;
                let probe = probe.copied().unwrap_or_else(|| table.probe(*scope, headers));
                match table.insert_probed(&probe, headers, now, timeouts, tag, generation) {
                    Ok(opened) => entry = opened,
                    Err(full) => return (conntrack_full(verdict), Effect::Refused(full), None),
                }
            }
        }
        (verdict, effect, entry)
    }
}

const fn table_config(config: Config) -> sgwall_conntrack::Config {
    let Config { max_flows: max_entries, full_table, hash_seed } = config;
    sgwall_conntrack::Config { max_entries, full_table, hash_seed }
}

/// A fragment after the first: it must fit its path, and then takes the verdict of the first.
fn later_fragment(
    fragments: &mut FragmentTable,
    key: DatagramKey,
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
    fragment: FragmentInfo,
) -> Verdict {
    let mtu = match fit(policy, interface, packet) {
        Fit::Whole => None,
        Fit::InFragments(mtu) => Some(mtu),
        Fit::TooBig(mtu) => return too_big(mtu),
    };
    let kept = packet.frame.len() as u64;
    let held = Held { token: packet.token, bytes: packet.headers.ip_len, kept, mtu };
    fragments.later(key, packet.headers, fragment, held, packet.now)
}

/// The address at the other end.
#[inline]
pub(crate) fn remote<'a>(packet: &PacketContext<'a>) -> &'a IpAddr {
    match packet.direction {
        Direction::Ingress => &packet.headers.src,
        Direction::Egress => &packet.headers.dst,
    }
}

/// The other end of the hop that the packet takes: the interface that sent it, or what its route
/// leads to if that is a detour. `None` where nobody but the address's owner is known.
fn next_hop<'a>(
    policy: &'a CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> Option<NextHop<'a>> {
    if packet.direction == Direction::Ingress {
        return policy.interfaces().get(packet.origin?).map(NextHop::Known);
    }
    if !interface.has_detours() {
        return None;
    }
    let route = interface.route(&packet.headers.dst).filter(|route| route.target.is_detour())?;
    let id = route.interface.as_deref().filter(|_| route.target == RouteTarget::Appliance);
    let known = id.and_then(|id| policy.interfaces().get(policy.interface_by_id(id)?));
    Some(known.map_or(NextHop::Elsewhere, NextHop::Known))
}

/// See [`next_hop`].
enum NextHop<'a> {
    /// An interface of the policy.
    Known(&'a CompiledInterface),
    /// An appliance that the policy does not describe, or a gateway.
    Elsewhere,
}

/// Whether the packet's hop stays inside the interface's subnet.
pub(crate) fn stays_inside(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> bool {
    match next_hop(policy, interface, packet) {
        Some(NextHop::Known(other)) => interface.shares_subnet(other),
        Some(NextHop::Elsewhere) => false,
        None => interface.in_subnet(remote(packet)),
    }
}

/// Whether the address's owner itself is at the other end of the hop: through a middlebox or a
/// gateway, a reference to its group does not hold (SEMANTICS 4.5).
pub(crate) fn is_direct(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> bool {
    match next_hop(policy, interface, packet) {
        Some(NextHop::Known(other)) => other.owns(remote(packet)),
        Some(NextHop::Elsewhere) => false,
        None => true,
    }
}

/// The refusal of the subnet's network ACL, if it is asked and refuses.
pub(crate) fn network_acl(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> Option<Verdict> {
    crosses_acl(policy, interface, packet).then(|| refused_by_acl(interface, packet))?
}

/// Whether the subnet's network ACL is asked. Traffic that stays inside the subnet is not judged by
/// it (SEMANTICS 8.7); where a middlebox is on the way, that is decided by the hop to it (9.4).
fn crosses_acl(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> bool {
    interface.acl(packet.direction).is_some() && !stays_inside(policy, interface, packet)
}

/// What the network ACL says where it is asked.
fn refused_by_acl(interface: &CompiledInterface, packet: &PacketContext<'_>) -> Option<Verdict> {
    let acl = interface.acl(packet.direction)?;
    match acl.lookup(remote(packet), packet.headers.protocol, packet.headers.selector()) {
        Some(AclMatch { action: AclAction::Allow, .. }) => None,
        Some(AclMatch { rule, .. }) => Some(Verdict::drop(DropReason::AclDeny).by(rule)),
        None => Some(Verdict::drop(DropReason::AclNoMatch)),
    }
}

/// The refusal of a packet that would have passed as `verdict` says, for want of an entry.
const fn conntrack_full(verdict: Verdict) -> Verdict {
    Verdict::drop(DropReason::ConntrackFull).of_flow(verdict.state)
}

/// The refusal of a packet that does not fit a path of `mtu` bytes.
const fn too_big(mtu: NonZeroU16) -> Verdict {
    let mut verdict = Verdict::drop(DropReason::MtuExceeded);
    verdict.mtu = Some(mtu);
    verdict
}

/// The source/destination check (SEMANTICS 13.2).
pub(crate) fn fails_address_check(
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> bool {
    interface.source_dest_check && !packet.own_address
}

/// What the interface's groups say of a packet that belongs to no tracked flow.
#[inline(always)]
pub(crate) fn by_rules(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> (Verdict, Effect) {
    let headers = packet.headers;
    let remote = remote(packet);
    let mut rules = interface.groups(packet.direction, remote);
    if rules.has_references() && !is_direct(policy, interface, packet) {
        rules = rules.without_references();
    }
    let Some(found) = rules.lookup(remote, headers.protocol, headers.selector()) else {
        return (Verdict::drop(DropReason::NoRule), Effect::None);
    };
    let opens = may_open(headers);
    let (reason, state, effect) = if is_untracked(interface, packet, &found) {
        (PassReason::AllowedUntracked, Some(FlowState::Untracked), Effect::None)
    } else if opens {
        (PassReason::AllowedTracked, Some(FlowState::New), Effect::Open(found.rule, None))
    } else {
        (PassReason::AllowedStateless, None, Effect::None)
    };
    (Verdict::pass(reason).by(found.rule).of_flow(state), effect)
}

/// Whether the packet's flow is untracked (SEMANTICS 6.2): TCP or UDP, allowed from everywhere,
/// with the whole way back open to everywhere.
///
/// Seen from the packet itself (a-d) and, for all but the SYN that opens a TCP flow, from the
/// packet turned round (e), because only a SYN tells who began.
fn is_untracked(
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
    found: &GroupMatch,
) -> bool {
    let headers = packet.headers;
    let (src_port, is_opening_syn) = match headers.transport {
        Transport::Tcp(tcp) => (tcp.src_port, tcp.flags.is_opening()),
        Transport::Udp { src_port, .. } => (src_port, false),
        _ => return false,
    };
    let remote = remote(packet);
    if interface.auto_tracked(remote) {
        return false;
    }
    let (is_v6, protocol) = (headers.is_ipv6(), headers.protocol);
    let there = interface.groups(packet.direction, remote);
    let back = interface.groups(packet.direction.reverse(), remote);
    let forward_view = found.any_peer && back.all_ports_any(is_v6, protocol);
    let reverse_view = || {
        there.all_ports_any(is_v6, protocol)
            && back.lookup(remote, protocol, src_port).is_some_and(|m| m.any_peer)
    };
    forward_view || (!is_opening_syn && reverse_view())
}
