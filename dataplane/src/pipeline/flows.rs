//! The tracked flows, as whoever lists, judges again or ends them sees them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use sgwall_conntrack::{FlowView, Scope};
use sgwall_packet::{Direction, Timestamp, protocol};
use sgwall_rules::compile::{CompiledPolicy, RuleInfo};

use super::Pipeline;
use crate::names::Names;

/// A tracked flow, with what its numbers stand for.
#[derive(Clone, Copy, Debug)]
pub struct TrackedFlow<'a> {
    /// The flow.
    pub view: FlowView,
    /// Index of its interface; `None` if the policy has it no more.
    pub interface: Option<usize>,
    /// Which way it began, as seen from the interface.
    pub direction: Direction,
    /// The rule that admitted it, perhaps of an earlier policy.
    pub rule: &'a RuleInfo,
}

impl TrackedFlow<'_> {
    /// Whether the groups of its interface would admit it, were it to begin now. An ICMP query is
    /// taken to have code 0, as all have that are known (RFC 792, RFC 4443).
    #[must_use]
    pub fn is_admitted(&self, policy: &CompiledPolicy) -> bool {
        let interface = self.interface.and_then(|index| policy.interfaces().get(index));
        let Some(interface) = interface else { return false };
        let tuple = self.view.original_tuple();
        let remote = match self.direction {
            Direction::Ingress => tuple.src,
            Direction::Egress => tuple.dst,
        };
        let selector = match tuple.protocol {
            protocol::TCP | protocol::UDP => tuple.dst_port,
            protocol::ICMP | protocol::ICMPV6 => tuple.src_port << 8,
            _ => 0,
        };
        let rules = interface.groups(self.direction, &remote);
        rules.lookup(&remote, tuple.protocol, selector).is_some()
    }
}

/// Makes [`TrackedFlow`]s of views.
struct Namer<'a> {
    interfaces: HashMap<Scope, usize>,
    names: &'a Names,
}

impl<'a> Namer<'a> {
    fn name(&self, view: FlowView) -> Option<TrackedFlow<'a>> {
        let rule = self.names.rule(view.tag)?;
        let interface = self.interfaces.get(&view.scope).copied();
        // The list that the admitting rule stands in says which way the flow began.
        Some(TrackedFlow { view, interface, direction: rule.direction, rule })
    }
}

impl Pipeline {
    /// The tracked flows at these places of the table (see [`sgwall_conntrack::ConnTable::places`])
    /// that are alive at `now`, in no particular order.
    pub fn flows(
        &self,
        places: Range<usize>,
        now: Timestamp,
    ) -> impl Iterator<Item = TrackedFlow<'_>> {
        let namer = Namer { interfaces: self.interfaces_by_scope(), names: &self.names };
        self.state.connections.iter_places(places, now).filter_map(move |view| namer.name(view))
    }

    /// Ends the tracked flows at these places that are alive at `now` and that `ends` chooses; how
    /// many ended.
    pub fn end_flows(
        &mut self,
        places: Range<usize>,
        now: Timestamp,
        mut ends: impl FnMut(&TrackedFlow<'_>) -> bool,
    ) -> usize {
        let namer = Namer { interfaces: self.interfaces_by_scope(), names: &self.names };
        self.state.connections.retain(places, |view| {
            let is_dead = view.deadline <= now;
            is_dead || namer.name(*view).is_some_and(|flow| !ends(&flow))
        })
    }

    /// The tracked flows alive at `now` that the policy in force would not admit, were they to
    /// begin now: what [`Self::rejudge`] would end.
    #[must_use]
    pub fn count_not_admitted(&self, now: Timestamp) -> usize {
        let all = 0..self.connections().places();
        self.flows(all, now).filter(|flow| !flow.is_admitted(&self.policy)).count()
    }

    /// Ends the tracked flows that the groups of their interface would not admit, were they to
    /// begin now, looking at all flows; how many ended. AWS never does that (SEMANTICS 6.12).
    pub fn rejudge(&mut self, now: Timestamp) -> usize {
        let (policy, all) = (Arc::clone(&self.policy), 0..self.connections().places());
        self.end_flows(all, now, |flow| !flow.is_admitted(&policy))
    }

    /// Fragmented datagrams in memory, of at most [`crate::fragment::MAX_DATAGRAMS`].
    #[inline]
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.state.fragments.len()
    }

    fn interfaces_by_scope(&self) -> HashMap<Scope, usize> {
        self.state.tracking.iter().zip(0..).map(|((scope, _), index)| (*scope, index)).collect()
    }
}

/// The interfaces of `old` that `new` has no longer, and the addresses that interfaces have lost,
/// those of the former among them.
pub(super) fn lost_ends(
    old: &CompiledPolicy,
    new: &CompiledPolicy,
    names: &Names,
) -> (HashSet<Scope>, HashSet<(Scope, IpAddr)>) {
    let (mut gone, mut lost) = (HashSet::new(), HashSet::new());
    for before in old.interfaces() {
        let scope = names.scope(&before.id);
        let after = new.interface_by_id(&before.id).and_then(|i| new.interfaces().get(i));
        if after.is_none() {
            gone.insert(scope);
        }
        let is_lost = |address: &&IpAddr| !after.is_some_and(|after| after.owns(address));
        lost.extend(before.addresses.iter().filter(is_lost).map(|&address| (scope, address)));
    }
    (gone, lost)
}
