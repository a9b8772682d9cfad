//! Whether ARP and IPv6 neighbour discovery may pass between an instance and its network.
//!
//! AWS answers both itself, so that nobody can claim an address that is not theirs. Here they
//! cross the firewall, and pass only where what they claim can be true: an instance speaks for the
//! addresses of its interface, from the MAC address of its interface, and the network does not
//! speak for them. An interface without source/destination check may speak for others (SEMANTICS
//! 13.2), but never for another interface's MAC address.

use std::net::IpAddr;

use sgwall_packet::{Arp, Direction, Headers, LinkInfo, Mac, NeighbourMessage};
use sgwall_rules::compile::CompiledInterface;

use crate::verdict::DropReason;

/// Whether a frame's MAC addresses are those of the interface, where the policy knows them: the
/// source of what leaves it, the destination of what reaches it alone.
///
/// # Errors
/// The reason to drop it.
pub fn check_mac(
    interface: &CompiledInterface,
    direction: Direction,
    link: &LinkInfo,
) -> Result<(), DropReason> {
    let (Some(own), Some(macs)) = (interface.mac, link.mac) else { return Ok(()) };
    let (dst, src) = (macs.dst(), macs.src());
    let is_own = match direction {
        Direction::Egress => src == own,
        Direction::Ingress => dst == own || is_group(dst),
    };
    is_own.then_some(()).ok_or(DropReason::MacCheck)
}

/// Whether a MAC address is broadcast or multicast (IEEE 802, the lowest bit of the first byte).
#[must_use]
pub const fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// Checks an ARP packet that an interface sends, or that reaches it.
///
/// # Errors
/// The reason to drop it.
pub fn check_arp(
    interface: &CompiledInterface,
    direction: Direction,
    link: &LinkInfo,
    frame: &[u8],
) -> Result<Arp, DropReason> {
    let arp = Arp::parse(frame).map_err(|_| DropReason::ArpInvalid)?;
    let is_senders = link.mac.is_none_or(|macs| macs.src() == arp.sender_mac);
    let sender = IpAddr::V4(arp.sender);
    let is_true = match direction {
        Direction::Egress => {
            let is_own = arp.sender.is_unspecified() || interface.owns(&sender);
            is_own || !interface.source_dest_check
        }
        Direction::Ingress => !interface.owns(&sender),
    };
    (is_senders && is_true).then_some(arp).ok_or(DropReason::ArpInvalid)
}

/// Checks a neighbour discovery message that an interface sends, or that reaches it.
///
/// # Errors
/// The reason to drop it.
pub fn check_neighbour(
    interface: &CompiledInterface,
    direction: Direction,
    headers: &Headers,
    frame: &[u8],
) -> Result<(), DropReason> {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const REDIRECT: u8 = 137;
    let message =
        NeighbourMessage::parse(headers, frame).map_err(|_| DropReason::NeighbourInvalid)?;
    let sender = headers.link.mac.map(|macs| macs.src());
    let is_senders = message.mac.is_none_or(|mac| sender.is_none_or(|sender| sender == mac));
    let claimed = message.claimed(headers.src);
    let owns = |addr| interface.owns(&IpAddr::V6(addr));
    let is_true = match direction {
        Direction::Egress => {
            let is_routers = matches!(message.kind, ROUTER_ADVERTISEMENT | REDIRECT);
            let is_own = claimed.is_none_or(|a| owns(a) || a.is_unicast_link_local());
            (is_own && !is_routers) || !interface.source_dest_check
        }
        Direction::Ingress => !claimed.is_some_and(owns),
    };
    (is_senders && is_true).then_some(()).ok_or(DropReason::NeighbourInvalid)
}
