//! Bytes to headers to flow key, and back: the wire side of sgwall.
//!
//! The way in is [`parse`], which turns one captured or received frame into [`Headers`], a small
//! plain value with everything a verdict needs. The way out is the [`build`] module. This crate
//! knows nothing of rules, flows, verdicts, files or clocks, and refuses nothing that is merely
//! odd (port 0, a bad checksum, a strange flag combination): that is for policy to judge.

pub mod build;
mod error;
mod flow;
mod headers;
mod mtu;
mod neighbour;
mod parse;
mod quote;
mod readdress;
mod text;
mod time;

pub use error::{Layer, ParseError};
pub use flow::{FiveTuple, FlowKey, FlowKeyV4, FlowKeyV6, Side, query_request_type};
pub use headers::{
    FragmentInfo, Frame, Headers, IcmpInfo, LinkInfo, LinkType, Macs, Tcp, TcpFlags, Transport,
    protocol,
};
pub use mtu::{fragment_ipv4, too_big};
pub use neighbour::{Arp, Mac, NeighbourMessage};
pub use parse::{Kind, addresses, is_extension_header, parse, parse_into, parse_ip};
pub use quote::{is_icmp_error, quoted, quoted_of_receiver};
pub use readdress::Readdress;
pub use text::{PacketSpec, SpecError};
pub use time::{Duration, Timestamp};

/// Which way a packet goes, as seen from the network interface (ENI) that judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the network to the instance: the interface's address is the destination.
    Ingress,
    /// From the instance to the network: the interface's address is the source.
    Egress,
}

impl Direction {
    /// Both directions, in the order of their discriminants.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// The opposite direction.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        }
    }

    /// `ingress` or `egress`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
