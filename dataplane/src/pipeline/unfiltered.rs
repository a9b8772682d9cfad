//! What is settled before fragments are looked at: exempt traffic, what a VPC does not carry, and
//! on the way out the address check (SEMANTICS 2.9, 8.8, 9.1).
//!
//! Only the first fragment of a datagram shows its ports, so whether it is exempt is kept for the
//! later ones, and those that may be DHCP by broadcast wait for it like any other.

use std::net::IpAddr;

use sgwall_packet::{Direction, FragmentInfo, Headers, Transport};
use sgwall_rules::compile::{CompiledInterface, CompiledPolicy};

use super::{PacketContext, fails_address_check};
use crate::exempt::{exempt, may_be_dhcp};
use crate::fragment::{DatagramKey, FragmentTable};
use crate::verdict::{DropReason, PassReason, Verdict};

/// What is settled before fragments are looked at: exempt traffic, what a VPC does not carry, and
/// on the way out the address check.
#[inline]
pub(super) fn before_fragments(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> Option<Verdict> {
    if let Some(reason) = passes_exempt(policy, interface, packet) {
        return Some(Verdict::pass(reason));
    }
    if follows_dhcp(policy, interface, packet) {
        return None;
    }
    if is_unsupported(interface, packet.headers) {
        return Some(Verdict::drop(DropReason::Unsupported));
    }
    // Out of the interface the address is checked first, into it after the network ACL.
    let fails = packet.direction == Direction::Egress && fails_address_check(interface, packet);
    fails.then_some(Verdict::drop(DropReason::SrcDstCheck))
}

/// Why a packet is exempt, if it is. The VPC's services answer an interface at its own addresses
/// alone (SEMANTICS 9.1, 9.2); who asks for an address by DHCP, or whether one is taken, has none.
#[inline]
pub(crate) fn passes_exempt(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> Option<PassReason> {
    let reason = exempt(policy, interface, packet.direction, packet.headers)?;
    let is_checked = matches!(reason, PassReason::VpcService | PassReason::Router);
    (!is_checked || !fails_address_check(interface, packet)).then_some(reason)
}

/// Whether the packet is a later fragment of which only the first can tell that it is DHCP to or
/// from everyone, and no broadcast or multicast that a VPC does not carry.
pub(crate) fn follows_dhcp(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> bool {
    packet.headers.transport == Transport::LaterFragment
        && is_dhcp_to_all(policy, interface, packet)
}

/// Whether a fragment may be DHCP by broadcast or multicast.
pub(super) fn is_dhcp_to_all(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    packet: &PacketContext<'_>,
) -> bool {
    may_be_dhcp(policy, interface, packet.direction, packet.headers)
        && is_unsupported(interface, packet.headers)
}

/// Keeps the verdict on the first fragment of an exempt datagram. One that is none, and refused, is
/// refused for that, whatever waited for it.
pub(super) fn note_exempt(
    fragments: &mut FragmentTable,
    key: DatagramKey,
    packet: &PacketContext<'_>,
    info: FragmentInfo,
    verdict: Verdict,
) -> Verdict {
    if let Err(reason) = fragments.first(key, packet.headers, info, packet.now) {
        return if verdict.is_pass() { Verdict::drop(reason) } else { verdict };
    }
    fragments.decide(key, packet.headers, verdict, packet.now);
    verdict
}

/// Broadcast and multicast, which a VPC does not carry (SEMANTICS 2.9).
#[inline]
pub(crate) fn is_unsupported(interface: &CompiledInterface, headers: &Headers) -> bool {
    let is_broadcast = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => v4.is_broadcast() || interface.is_subnet_broadcast(v4),
        IpAddr::V6(_) => false,
    };
    headers.dst.is_multicast() || headers.src.is_multicast() || is_broadcast(&headers.dst)
}
