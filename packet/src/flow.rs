//! Names of a flow: the oriented five-tuple for people, the normalised key for tables.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::headers::{Headers, Transport, protocol};

/// An oriented five-tuple: what people and logs see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; 0 for protocols without.
    pub src_port: u16,
    /// Destination port; 0 for protocols without.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl From<&Headers> for FiveTuple {
    fn from(h: &Headers) -> Self {
        FiveTuple {
            src: h.src,
            dst: h.dst,
            src_port: h.src_port(),
            dst_port: h.dst_port(),
            protocol: h.protocol,
        }
    }
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |f: &mut fmt::Formatter<'_>, a: IpAddr, port: u16| match (a, self.protocol) {
            (IpAddr::V6(a), protocol::TCP | protocol::UDP) => write!(f, "[{a}]:{port}"),
            (IpAddr::V4(a), protocol::TCP | protocol::UDP) => write!(f, "{a}:{port}"),
            (a, _) => write!(f, "{a}"),
        };
        end(f, self.src, self.src_port)?;
        f.write_str(" -> ")?;
        end(f, self.dst, self.dst_port)
    }
}

/// Which end of a flow sent a packet, relative to the key's canonical order.
///
/// The key sorts its two endpoints; `Low` says that the packet's source is the first of them.
/// Which of the two *opened* the flow is state and belongs to the flow's entry, not to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The packet's source is the key's first endpoint.
    Low,
    /// The packet's source is the key's second endpoint.
    High,
}

/// A normalised flow key: the same for both directions of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// IPv4.
    V4(FlowKeyV4),
    /// IPv6.
    V6(FlowKeyV6),
}

/// Key of an IPv4 flow. Addresses in `low`/`high` order; see [`FlowKey::of`] for the ports.
#[derive(Clone, Copy, Debug)]
pub struct FlowKeyV4 {
    /// The smaller endpoint's address.
    pub low: Ipv4Addr,
    /// The larger endpoint's address.
    pub high: Ipv4Addr,
    /// The smaller endpoint's port (or see [`FlowKey::of`]).
    pub low_port: u16,
    /// The larger endpoint's port (or see [`FlowKey::of`]).
    pub high_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// Key of an IPv6 flow; as [`FlowKeyV4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKeyV6 {
    /// The smaller endpoint's address.
    pub low: Ipv6Addr,
    /// The larger endpoint's address.
    pub high: Ipv6Addr,
    /// The smaller endpoint's port (or see [`FlowKey::of`]).
    pub low_port: u16,
    /// The larger endpoint's port (or see [`FlowKey::of`]).
    pub high_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl FlowKeyV4 {
    /// Both addresses, `low` in the high half.
    #[inline]
    #[must_use]
    pub const fn address_bits(&self) -> u64 {
        (self.low.to_bits() as u64) << 32 | self.high.to_bits() as u64
    }

    /// Ports and protocol: 16, 16 and 8 bits, from bit 0 up.
    #[inline]
    #[must_use]
    pub const fn port_bits(&self) -> u64 {
        port_bits(self.low_port, self.high_port, self.protocol)
    }
}

impl FlowKeyV6 {
    /// Ports and protocol: 16, 16 and 8 bits, from bit 0 up.
    #[inline]
    #[must_use]
    pub const fn port_bits(&self) -> u64 {
        port_bits(self.low_port, self.high_port, self.protocol)
    }
}

const fn port_bits(low: u16, high: u16, protocol: u8) -> u64 {
    low as u64 | (high as u64) << 16 | (protocol as u64) << 32
}

/// Compared in whole words, on the way of every packet.
impl PartialEq for FlowKeyV4 {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.address_bits() == other.address_bits() && self.port_bits() == other.port_bits()
    }
}

impl Eq for FlowKeyV4 {}

/// Hashed in whole words: field by field it takes twice as long.
impl Hash for FlowKeyV4 {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.address_bits());
        state.write_u64(self.port_bits());
    }
}

impl Hash for FlowKeyV6 {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.low.to_bits());
        state.write_u128(self.high.to_bits());
        state.write_u64(self.port_bits());
    }
}

impl FlowKey {
    /// The two addresses, the smaller endpoint's first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        match self {
            FlowKey::V4(key) => [key.low.into(), key.high.into()],
            FlowKey::V6(key) => [key.low.into(), key.high.into()],
        }
    }

    /// The tuple of a packet of this flow that comes from `side`.
    #[must_use]
    pub const fn tuple(&self, side: Side) -> FiveTuple {
        let (low, high, low_port, high_port, protocol) = match *self {
            FlowKey::V4(FlowKeyV4 { low, high, low_port, high_port, protocol }) => {
                (IpAddr::V4(low), IpAddr::V4(high), low_port, high_port, protocol)
            }
            FlowKey::V6(FlowKeyV6 { low, high, low_port, high_port, protocol }) => {
                (IpAddr::V6(low), IpAddr::V6(high), low_port, high_port, protocol)
            }
        };
        let ((src, src_port), (dst, dst_port)) = match side {
            Side::Low => ((low, low_port), (high, high_port)),
            Side::High => ((high, high_port), (low, low_port)),
        };
        FiveTuple { src, dst, src_port, dst_port, protocol }
    }

    /// The key of the flow that a packet belongs to, and the side it came from (SEMANTICS 7.2).
    ///
    /// * TCP, UDP: endpoints are (address, port), sorted; ports in their endpoint's place.
    /// * ICMP and ICMPv6 queries: the asking end is `low` and the answering end `high`, whatever
    ///   their order (a request from the answering end is another flow, not a response);
    ///   `low_port` holds the *request* type, `high_port` the identifier.
    /// * other protocols: both ports 0.
    ///
    /// `None` where there is no flow to name: ICMP messages that are neither query nor reply
    /// (SEMANTICS 7.3), and fragments that are not the first.
    #[inline(always)]
    #[must_use]
    pub fn of(h: &Headers) -> Option<(FlowKey, Side)> {
        let (ports, asked) = ends(h)?;
        let protocol = h.protocol;
        // By reference and by family: addresses that are copied as whole enums cost more than all
        // else here.
        match (&h.src, &h.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let end = |a: &Ipv4Addr, port: u16| u64::from(a.to_bits()) << 16 | u64::from(port);
                let (src, dst) = (end(src, ports.0), end(dst, ports.1));
                let side = asked.unwrap_or_else(|| Side::of_order(src <= dst));
                let (low, high) = side.in_order(src, dst);
                let key = FlowKeyV4 {
                    low: Ipv4Addr::from_bits((low >> 16) as u32),
                    high: Ipv4Addr::from_bits((high >> 16) as u32),
                    low_port: low as u16,
                    high_port: high as u16,
                    protocol,
                };
                Some((FlowKey::V4(key), side))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (src, dst) = ((src.to_bits(), ports.0), (dst.to_bits(), ports.1));
                let side = asked.unwrap_or_else(|| Side::of_order(src <= dst));
                let (low, high) = side.in_order(src, dst);
                let key = FlowKeyV6 {
                    low: Ipv6Addr::from_bits(low.0),
                    high: Ipv6Addr::from_bits(high.0),
                    low_port: low.1,
                    high_port: high.1,
                    protocol,
                };
                Some((FlowKey::V6(key), side))
            }
            _ => None,
        }
    }
}

impl Side {
    const fn of_order(is_low: bool) -> Side {
        if is_low { Side::Low } else { Side::High }
    }

    /// Source and destination of a packet from this side, in the key's order.
    fn in_order<T>(self, src: T, dst: T) -> (T, T) {
        match self {
            Side::Low => (src, dst),
            Side::High => (dst, src),
        }
    }
}

/// What stands for the ports of a packet's source and destination in the key of its flow, and the
/// side it comes from where not the order of the endpoints tells.
#[inline(always)]
fn ends(h: &Headers) -> Option<((u16, u16), Option<Side>)> {
    Some(match &h.transport {
        Transport::Tcp(t) => ((t.src_port, t.dst_port), None),
        Transport::Udp { src_port, dst_port } => ((*src_port, *dst_port), None),
        Transport::Icmp(i) => {
            let (request, identifier) = (query_request_type(h.protocol, i.kind)?, i.identifier?);
            let side = Side::of_order(request == i.kind);
            (side.in_order(u16::from(request), identifier), Some(side))
        }
        Transport::Other => ((0, 0), None),
        Transport::LaterFragment => return None,
    })
}

/// The request type of a query: itself for a request, its request for a reply (SEMANTICS 7.3).
///
/// ICMPv4: echo 8/0, timestamp 13/14, information 15/16, address mask 17/18 (RFC 792, RFC 950).
/// ICMPv6: echo 128/129, node information 139/140 (RFC 4443, RFC 4620).
#[must_use]
pub const fn query_request_type(proto: u8, kind: u8) -> Option<u8> {
    match (proto, kind) {
        (protocol::ICMP, 8 | 13 | 15 | 17) | (protocol::ICMPV6, 128 | 139) => Some(kind),
        (protocol::ICMP, 0) => Some(8),
        (protocol::ICMP, 14 | 16 | 18) | (protocol::ICMPV6, 129 | 140) => Some(kind - 1),
        _ => None,
    }
}
