//! How many flows each interface may track, and how long they stay, as the policy says.

use sgwall_conntrack::{FlowState as S, Limits, Scope, TimeoutProfile};
use sgwall_packet::Duration;
use sgwall_rules::compile::CompiledPolicy;
use sgwall_rules::model::{FlowLimits, Timeouts};

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

/// The timeouts of an interface as tracking takes them: what the policy does not set is as in AWS.
pub(crate) fn timeout_profile(timeouts: Timeouts) -> TimeoutProfile {
    let mut profile = TimeoutProfile::default();
    let of_states: [(&[S], Option<u32>); 12] = [
        (&[S::TcpSynSent, S::TcpSynSent2], timeouts.tcp_syn_sent),
        (&[S::TcpSynRecv], timeouts.tcp_syn_recv),
        (&[S::TcpEstablished], timeouts.tcp_established),
        (&[S::TcpFinWait], timeouts.tcp_fin_wait),
        (&[S::TcpCloseWait], timeouts.tcp_close_wait),
        (&[S::TcpLastAck], timeouts.tcp_last_ack),
        (&[S::TcpTimeWait], timeouts.tcp_time_wait),
        (&[S::TcpClose], timeouts.tcp_close),
        (&[S::Udp], timeouts.udp),
        (&[S::UdpStream], timeouts.udp_stream),
        (&[S::Icmp], timeouts.icmp),
        (&[S::Other], timeouts.other),
    ];
    for (states, seconds) in of_states {
        for (&state, seconds) in states.iter().zip(seconds.into_iter().cycle()) {
            profile.set(state, Duration::from_secs(seconds.into()));
        }
    }
    profile
}
