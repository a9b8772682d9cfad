//! The flows of the slow pipeline: what names one, what its packets do to it, when it dies.

use sgwall_packet::{Duration, FiveTuple, Headers, Transport, protocol, query_request_type};
use sgwall_rules::model::Timeouts;

use super::tcp::Connection;

/// What is known of a tracked flow, by protocol.
#[derive(Clone, Debug)]
pub(crate) enum Tracked {
    Tcp(Connection),
    Udp { transactions: u32, asked: bool },
    Icmp,
    Other,
}

impl Tracked {
    pub(crate) fn state(&self) -> &'static str {
        match self {
            Tracked::Tcp(connection) => connection.state,
            Tracked::Udp { transactions: 0 | 1, .. } => "single",
            Tracked::Udp { .. } => "stream",
            Tracked::Icmp => "query",
            Tracked::Other => "other",
        }
    }
}

/// The tuple of a flow's first packet, as this packet tells it: of an ICMP query the request's,
/// with its type and identifier for ports (7.2).
pub(crate) fn opening_tuple(headers: &Headers) -> FiveTuple {
    let tuple = FiveTuple::from(headers);
    let Transport::Icmp(icmp) = headers.transport else { return tuple };
    let request = query_request_type(headers.protocol, icmp.kind).unwrap_or(icmp.kind);
    let (src, dst) = match request == icmp.kind {
        true => (tuple.src, tuple.dst),
        false => (tuple.dst, tuple.src),
    };
    let (src_port, dst_port) = (request.into(), icmp.identifier.unwrap_or(0));
    FiveTuple { src, dst, src_port, dst_port, ..tuple }
}

pub(crate) fn turned(tuple: FiveTuple) -> FiveTuple {
    if matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6) {
        return tuple;
    }
    FiveTuple {
        src: tuple.dst,
        dst: tuple.src,
        src_port: tuple.dst_port,
        dst_port: tuple.src_port,
        ..tuple
    }
}

/// 6.9, 7.3, 7.4.
pub(crate) fn may_open(headers: &Headers) -> bool {
    match headers.transport {
        Transport::Tcp(tcp) => tcp.flags.is_opening(),
        Transport::Udp { .. } | Transport::Other => true,
        Transport::Icmp(icmp) => {
            icmp.identifier.is_some()
                && query_request_type(headers.protocol, icmp.kind) == Some(icmp.kind)
        }
        Transport::LaterFragment => false,
    }
}

pub(crate) fn open(headers: &Headers) -> Tracked {
    match headers.transport {
        Transport::Tcp(tcp) => Tracked::Tcp(Connection::open(&tcp)),
        Transport::Udp { .. } => Tracked::Udp { transactions: 0, asked: true },
        Transport::Icmp(_) => Tracked::Icmp,
        _ => Tracked::Other,
    }
}

/// Notes an accepted packet (7.3-7.6); whether it refreshes the flow.
pub(crate) fn note(tracked: &mut Tracked, headers: &Headers, reply: bool) -> bool {
    match (tracked, &headers.transport) {
        (Tracked::Tcp(connection), Transport::Tcp(tcp)) => connection.note(tcp, reply),
        (Tracked::Udp { transactions, asked }, _) => {
            *transactions += u32::from(reply && *asked);
            *asked = !reply;
            true
        }
        _ => true,
    }
}

/// 7.10, with the interface's own.
pub(crate) fn timeout(own: &Timeouts, state: &str) -> Duration {
    let (own, default) = match state {
        "syn-sent" | "syn-sent-2" => (own.tcp_syn_sent, 120),
        "syn-recv" => (own.tcp_syn_recv, 60),
        "established" => (own.tcp_established, 432_000),
        "fin-wait" => (own.tcp_fin_wait, 120),
        "close-wait" => (own.tcp_close_wait, 60),
        "last-ack" => (own.tcp_last_ack, 30),
        "time-wait" => (own.tcp_time_wait, 120),
        "close" => (own.tcp_close, 10),
        "single" => (own.udp, 30),
        "stream" => (own.udp_stream, 180),
        "query" => (own.icmp, 30),
        "other" => (own.other, 600),
        _ => unreachable!("no state {state}"),
    };
    Duration::from_secs(own.unwrap_or(default).into())
}
