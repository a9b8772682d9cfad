//! Traffic that security groups and network ACLs never filter (SEMANTICS 2.9 and 8.8).
//!
//! AWS answers this traffic in the hypervisor; here it passes the same interface as everything
//! else. So each service is recognised by address *and* protocol and port: a packet that merely
//! carries a service's port, or reaches a service's address on another port, is filtered. A policy
//! may switch off any of it.

use std::net::IpAddr;

use sgwall_packet::{Direction, Headers, Transport, protocol};
use sgwall_rules::compile::{CompiledInterface, CompiledPolicy, Service};
use sgwall_rules::model::{Compat, ExemptTraffic};

use crate::verdict::PassReason;

/// Why `headers` is exempt from filtering on `interface`, if it is.
#[must_use]
pub fn exempt(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    direction: Direction,
    headers: &Headers,
) -> Option<PassReason> {
    let (traffic, reason) = exempt_by_default(policy.compat(), interface, direction, headers)?;
    policy.exempt().contains(traffic).then_some(reason)
}

fn exempt_by_default(
    compat: Compat,
    interface: &CompiledInterface,
    direction: Direction,
    headers: &Headers,
) -> Option<(ExemptTraffic, PassReason)> {
    if is_neighbour_discovery(headers) {
        return Some((ExemptTraffic::NeighbourDiscovery, PassReason::NeighbourDiscovery));
    }
    let (remote, service_port, own_port) = match direction {
        Direction::Ingress => (&headers.src, headers.src_port(), headers.dst_port()),
        Direction::Egress => (&headers.dst, headers.dst_port(), headers.src_port()),
    };
    let service = interface.service_address(remote);
    if headers.protocol == protocol::UDP && is_dhcp_peer(remote, service, direction) {
        let ports = (own_port, service_port);
        if ports == if headers.is_ipv6() { (546, 547) } else { (68, 67) } {
            return Some((ExemptTraffic::Dhcp, PassReason::Dhcp));
        }
    }
    let is = |proto, port| headers.protocol == proto && service_port == port;
    let (traffic, is_exempt) = match service? {
        Service::Dns => (ExemptTraffic::Dns, is(protocol::UDP, 53) || is(protocol::TCP, 53)),
        Service::Metadata => (ExemptTraffic::Metadata, is(protocol::TCP, 80)),
        Service::EcsMetadata => (ExemptTraffic::TaskMetadata, is(protocol::TCP, 80)),
        Service::TimeSync => (ExemptTraffic::Time, is(protocol::UDP, 123)),
        Service::Licence => (ExemptTraffic::Licences, is(protocol::TCP, 1688)),
        Service::Router => {
            let reason = (ExemptTraffic::Router, PassReason::Router);
            return (compat == Compat::Current).then_some(reason);
        }
    };
    is_exempt.then_some((traffic, PassReason::VpcService))
}

/// Whether a fragment may belong to a DHCP datagram: only the first shows the ports.
#[must_use]
pub(crate) fn may_be_dhcp(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    direction: Direction,
    headers: &Headers,
) -> bool {
    let remote = match direction {
        Direction::Ingress => headers.src,
        Direction::Egress => headers.dst,
    };
    headers.fragment.is_some()
        && headers.protocol == protocol::UDP
        && is_dhcp_peer(&remote, interface.service_address(&remote), direction)
        && policy.exempt().contains(ExemptTraffic::Dhcp)
}

/// Where DHCP clients ask who there is: by broadcast and at `ff02::1:2`.
fn asks_every_server(dst: &IpAddr) -> bool {
    match dst {
        IpAddr::V4(a) => a.is_broadcast(),
        IpAddr::V6(a) => a.segments() == [0xff02, 0, 0, 0, 0, 0, 1, 2],
    }
}

/// RFC 4861: types 133-137, code 0, hop limit 255 (so never forwarded by a router), whole.
fn is_neighbour_discovery(headers: &Headers) -> bool {
    headers.is_ipv6()
        && headers.protocol == protocol::ICMPV6
        && headers.hop_limit == 255
        && headers.fragment.is_none()
        && matches!(headers.transport, Transport::Icmp(i) if (133..=137).contains(&i.kind) && i.code == 0)
}

/// The DHCP server of a VPC is its router; clients also ask every server and, for IPv6, link-local
/// addresses.
fn is_dhcp_peer(remote: &IpAddr, service: Option<Service>, direction: Direction) -> bool {
    service == Some(Service::Router)
        || (direction == Direction::Egress && asks_every_server(remote))
        || matches!(remote, IpAddr::V6(a) if a.is_unicast_link_local())
}
