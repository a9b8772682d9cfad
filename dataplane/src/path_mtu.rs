//! Path MTU (SEMANTICS section 12): how large a packet may be on its way out, and how often its
//! sender is told.

use std::net::IpAddr;
use std::num::NonZeroU16;

use sgwall_packet::{Direction, Duration, Timestamp};
use sgwall_rules::compile::{CompiledInterface, CompiledPolicy, CompiledRoute};
use sgwall_rules::model::{Compat, RouteTarget};

use crate::pipeline::PacketContext;

/// Whether a packet fits its path. The number is the path MTU in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does.
    Whole,
    /// It goes on in fragments.
    InFragments(NonZeroU16),
    /// It does not, and must not be fragmented.
    TooBig(NonZeroU16),
}

/// Judges the size of a packet: on its way out of the interface, where the route decides.
#[inline]
pub(crate) fn fit(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> Fit {
    let len = packet.size;
    if packet.direction == Direction::Ingress || len <= u32::from(policy.smallest_mtu()) {
        return Fit::Whole;
    }
    let mtu = path_mtu(policy, interface, &packet.headers.dst);
    match NonZeroU16::new(mtu).filter(|mtu| len > u32::from(mtu.get())) {
        None => Fit::Whole,
        Some(mtu) if packet.headers.dont_fragment => Fit::TooBig(mtu),
        Some(mtu) => Fit::InFragments(mtu),
    }
}

/// The MTU of the path from `interface` to `dst`, bytes: the smallest of the interface's own, that
/// of the route's class, and that of the interface at the other end if the policy has it
/// (SEMANTICS 12.2).
#[must_use]
pub fn path_mtu(policy: &CompiledPolicy, interface: &CompiledInterface, dst: &IpAddr) -> u16 {
    Path::to(policy, interface, dst).mtu()
}

/// What limits the size of packets on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    pub(crate) route: Option<&'a CompiledRoute>,
    /// The MTU of the interface itself, bytes.
    pub(crate) own: u16,
    /// That of the route or its class.
    pub(crate) class: u16,
    /// The smallest of the interfaces that have the destination's address.
    pub(crate) far: Option<u16>,
}

impl<'a> Path<'a> {
    pub(crate) fn to(
        policy: &CompiledPolicy,
        interface: &'a CompiledInterface,
        dst: &IpAddr,
    ) -> Self {
        let route = interface.route(dst);
        let class = route.map_or(INTERNET, |route| route_mtu(policy.compat(), route));
        let ends = policy.interfaces_of(dst).iter().filter_map(|&i| policy.interfaces().get(i));
        Path { route, own: interface.mtu, class, far: ends.map(|end| end.mtu).min() }
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.far.unwrap_or(u16::MAX).min(self.own).min(self.class)
    }
}

/// The MTU of a route, bytes: its own, or that of its class.
pub(crate) fn route_mtu(compat: Compat, route: &CompiledRoute) -> u16 {
    let own = route.mtu.and_then(|mtu| u16::try_from(mtu).ok());
    own.unwrap_or_else(|| class_mtu(compat, route.target))
}

/// Inside the VPC and to its peers.
const JUMBO: u16 = 9001;
/// To the internet.
const INTERNET: u16 = 1500;
/// Over transit gateways, and across Regions today.
const TRANSIT: u16 = 8500;

const fn class_mtu(compat: Compat, target: RouteTarget) -> u16 {
    match (target, compat) {
        (RouteTarget::Local | RouteTarget::Peering | RouteTarget::Appliance, _) => JUMBO,
        (RouteTarget::InterRegionPeering | RouteTarget::TransitGateway, Compat::Current) => TRANSIT,
        _ => INTERNET,
    }
}

/// Answers that a router gives, limited to 100 a second with bursts of 100 (SEMANTICS 12.8), as
/// the generic cell rate algorithm does it (ITU-T I.371): no timer, one number.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimit {
    /// When the next answer would come at an even rate.
    due: Option<Timestamp>,
}

const EVERY: Duration = Duration::from_millis(10);
const BURST: Duration = Duration::from_millis(990);

impl RateLimit {
    /// Whether one more answer may be given at `now`; counts it if so.
    pub fn allow(&mut self, now: Timestamp) -> bool {
        let due = self.due.filter(|due| *due > now).unwrap_or(now);
        let allowed = due.since(now) <= BURST;
        if allowed {
            self.due = Some(due.after(EVERY));
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_at_once_and_a_hundred_a_second() {
        let mut limit = RateLimit::default();
        let at = |millis: i64| Timestamp::from_nanos(millis * 1_000_000);
        let burst = (0..300).filter(|_| limit.allow(at(0))).count();
        assert_eq!(burst, 100);
        assert!(!limit.allow(at(9)));
        assert!(limit.allow(at(10)));
        let second = (11..1010).filter(|&t| limit.allow(at(t))).count();
        assert_eq!(second, 99);
        assert_eq!((0..300).filter(|_| limit.allow(at(60_000))).count(), 100);
    }
}
