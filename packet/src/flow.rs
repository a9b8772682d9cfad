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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Hashed in whole words: field by field it takes twice as long, on the way of every packet.
impl Hash for FlowKeyV4 {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let addresses = u64::from(u32::from(self.low)) << 32 | u64::from(u32::from(self.high));
        state.write_u64(addresses);
        state.write_u64(ports_and_protocol(self.low_port, self.high_port, self.protocol));
    }
}

impl Hash for FlowKeyV6 {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from(self.low));
        state.write_u128(u128::from(self.high));
        state.write_u64(ports_and_protocol(self.low_port, self.high_port, self.protocol));
    }
}

#[inline]
fn ports_and_protocol(low: u16, high: u16, protocol: u8) -> u64 {
    u64::from(low) << 32 | u64::from(high) << 16 | u64::from(protocol)
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
    #[inline]
    #[must_use]
    pub fn of(h: &Headers) -> Option<(FlowKey, Side)> {
        // By reference and by family: addresses that are copied as whole enums cost more than all
        // else here.
        match (&h.src, &h.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (side, low_port, high_port) = place(h, u32::from(*src), u32::from(*dst))?;
                let (low, high) = match side {
                    Side::Low => (*src, *dst),
                    Side::High => (*dst, *src),
                };
                let protocol = h.protocol;
                let key = FlowKeyV4 { low, high, low_port, high_port, protocol };
                Some((FlowKey::V4(key), side))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (side, low_port, high_port) = place(h, u128::from(*src), u128::from(*dst))?;
                let (low, high) = match side {
                    Side::Low => (*src, *dst),
                    Side::High => (*dst, *src),
                };
                let protocol = h.protocol;
                let key = FlowKeyV6 { low, high, low_port, high_port, protocol };
                Some((FlowKey::V6(key), side))
            }
            _ => None,
        }
    }
}

/// Which endpoint of its flow's key a packet comes from, and the ports of the key. `src` and `dst`
/// are its addresses as numbers.
#[inline]
fn place<A: Ord>(h: &Headers, src: A, dst: A) -> Option<(Side, u16, u16)> {
    let by_order = |src_port: u16, dst_port: u16| match (&src, src_port) <= (&dst, dst_port) {
        true => (Side::Low, src_port, dst_port),
        false => (Side::High, dst_port, src_port),
    };
    Some(match &h.transport {
        Transport::Tcp(t) => by_order(t.src_port, t.dst_port),
        Transport::Udp { src_port, dst_port } => by_order(*src_port, *dst_port),
        Transport::Icmp(i) => {
            let request = query_request_type(h.protocol, i.kind)?;
            let side = if request == i.kind { Side::Low } else { Side::High };
            (side, u16::from(request), i.identifier?)
        }
        Transport::Other => by_order(0, 0),
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
