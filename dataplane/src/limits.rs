//! How many flows each interface may track, as the policy says.

use sgwall_conntrack::{Limits, Scope};
use sgwall_rules::compile::CompiledPolicy;
use sgwall_rules::model::FlowLimits;

use crate::names::Names;

/// The limits of the interfaces that have any.
pub(crate) fn flow_limits(policy: &CompiledPolicy, names: &Names) -> Vec<(Scope, Limits)> {
    let of = policy.interfaces().iter().filter(|i| i.flows != FlowLimits::default());
    let limits = |FlowLimits { max_flows, reserved_flows }: FlowLimits| Limits {
        max_flows,
        reserved_flows: reserved_flows.unwrap_or(0),
    };
    of.map(|interface| (names.scope(&interface.id), limits(interface.flows))).collect()
}

/// How many flows all find a place in a table of `max_flows`, whichever interfaces they are on.
#[must_use]
pub fn places_for_any(policy: &CompiledPolicy, max_flows: usize) -> usize {
    let limits = policy.interfaces().iter().map(|interface| interface.flows);
    let reserved = limits.clone().filter_map(|limits| limits.reserved_flows);
    let reserved = reserved.map(|reserve| reserve as usize).sum();
    let caps = limits.filter_map(|limits| limits.max_flows).map(|cap| cap as usize);
    caps.min().unwrap_or(usize::MAX).min(max_flows.saturating_sub(reserved))
}

/// Interfaces that a message names.
const NAMED: usize = 4;

/// Checks that a table of `max_flows` flows has the places that interfaces, each by its name, reserve.
///
/// # Errors
/// What is wrong, and the mend.
pub fn check_reserves<'a>(
    interfaces: impl Iterator<Item = (&'a str, FlowLimits)>,
    max_flows: usize,
) -> Result<(), String> {
    let reserve = |(id, limits): (&'a str, FlowLimits)| Some((limits.reserved_flows?, id));
    let mut reserves: Vec<_> = interfaces.filter_map(reserve).collect();
    let reserved: u64 = reserves.iter().map(|(reserve, _)| u64::from(*reserve)).sum();
    if reserved <= max_flows as u64 {
        return Ok(());
    }
    reserves.sort_unstable_by(|a, b| b.cmp(a));
    let named = reserves.iter().take(NAMED).map(|(reserve, id)| format!("{id} {reserve}"));
    let more = if reserves.len() > NAMED { ", ..." } else { "" };
    Err(format!(
        "interfaces reserve {reserved} flows ({}{more}), but the flow table has room for \
         {max_flows}; lower their reserved_flows, or raise --max-flows",
        named.collect::<Vec<_>>().join(", ")
    ))
}
