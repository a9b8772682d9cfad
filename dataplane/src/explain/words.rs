//! Packets, flows and interfaces in words.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use sgwall_packet::{
    Direction, FiveTuple, FlowKey, Headers, LinkInfo, Side as End, TcpFlags, Transport, protocol,
};
use sgwall_rules::compile::CompiledPolicy;
use sgwall_rules::model::protocol_name;

use crate::attribution::{Attribution, Sides};
use crate::judge::FrameInput;

const FLAGS: [(TcpFlags, char); 6] = [
    (TcpFlags::SYN, 'S'),
    (TcpFlags::ACK, 'A'),
    (TcpFlags::FIN, 'F'),
    (TcpFlags::RST, 'R'),
    (TcpFlags::PSH, 'P'),
    (TcpFlags::URG, 'U'),
];

/// `tcp 203.0.113.1:5000 -> 10.0.1.10:22 SA`, `icmp 10.0.1.10 -> 203.0.113.1 8/0 id=5`.
pub(super) fn packet(headers: &Headers) -> String {
    let mut text = protocol_name(headers.protocol);
    let is_later = headers.transport == Transport::LaterFragment;
    let _ = match is_later {
        true => write!(text, " {} -> {}", headers.src, headers.dst),
        false => write!(text, " {}", FiveTuple::from(headers)),
    };
    match headers.transport {
        Transport::Tcp(tcp) => {
            let flags = FLAGS.iter().filter(|(flag, _)| tcp.flags.contains(*flag));
            let flags: String = flags.map(|(_, letter)| letter).collect();
            if !flags.is_empty() {
                let _ = write!(text, " {flags}");
            }
        }
        Transport::Icmp(icmp) => {
            let _ = write!(text, " {}/{}", icmp.kind, icmp.code);
            if let Some(id) = icmp.identifier {
                let _ = write!(text, " id={id}");
            }
        }
        _ => {}
    }
    if let Some(fragment) = headers.fragment {
        let more = if fragment.more { "+" } else { "" };
        let _ = write!(text, " frag={}:{}{more}", fragment.id, fragment.offset);
    }
    text
}

/// What the headers say besides addresses: family, length, fragmentation.
pub(super) fn headers(headers: &Headers) -> String {
    let family = if headers.is_ipv6() { "IPv6" } else { "IPv4" };
    let df =
        if headers.dont_fragment && !headers.is_ipv6() { ", may not be fragmented" } else { "" };
    format!("{family}, {} bytes{df}", headers.ip_len)
}

/// What is known of a frame whose headers are not.
pub(super) fn unread(frame: &FrameInput<'_>, reason: &str) -> String {
    match (reason, ends(frame)) {
        ("arp", _) => "ARP".to_owned(),
        (_, Some((src, dst))) => format!("{src} -> {dst}, not readable further"),
        _ => format!("a frame of {} bytes", frame.wire_len),
    }
}

fn ends(frame: &FrameInput<'_>) -> Option<(IpAddr, IpAddr)> {
    sgwall_packet::addresses(frame.link?, frame.data)
}

/// A tracked flow, as its first packet went: `tcp 10.0.1.10:4000 -> 203.0.113.1:80`.
pub(super) fn flow(key: &FlowKey, original: End) -> String {
    let [low, high] = key.addresses();
    let (low_port, high_port, number) = match key {
        FlowKey::V4(key) => (key.low_port, key.high_port, key.protocol),
        FlowKey::V6(key) => (key.low_port, key.high_port, key.protocol),
    };
    let name = protocol_name(number);
    match number {
        protocol::TCP | protocol::UDP => {
            let ends = (SocketAddr::new(low, low_port), SocketAddr::new(high, high_port));
            let (from, to) = if original == End::Low { ends } else { (ends.1, ends.0) };
            format!("{name} {from} -> {to}")
        }
        // The end that asks is the lower one, the ports hold its type and identifier.
        protocol::ICMP | protocol::ICMPV6 => {
            format!("{name} {low} -> {high} {low_port}/0 id={high_port}")
        }
        _ if original == End::Low => format!("{name} {low} -> {high}"),
        _ => format!("{name} {high} -> {low}"),
    }
}

/// Which interfaces judge the packet, and how they were found.
pub(super) fn attribution(
    policy: &CompiledPolicy,
    attribution: &Attribution,
    frame: &FrameInput<'_>,
    headers: &Headers,
    sides: Sides,
) -> String {
    let id = |index: usize| policy.interfaces().get(index).map_or("?", |i| i.id.as_str());
    let is_forced = attribution.direction.is_some();
    // Found by the addresses alone, or only by what the capture recorded.
    let by_address = attribution.sides(policy, &headers.link, (headers.src, headers.dst), None);
    let mut found = Vec::new();
    for (side, direction) in sides.iter() {
        let (addr, what) = match direction {
            Direction::Ingress => (headers.dst, "destination"),
            Direction::Egress => (headers.src, "source"),
        };
        let name = id(side.interface);
        let how = if is_forced {
            "as said".to_owned()
        } else if by_address.is_empty() && frame.recorded.is_some() {
            "by the direction that was recorded".to_owned()
        } else if is_by_mac(policy, &headers.link, side.interface, direction) {
            format!("by the {what}'s MAC address")
        } else if policy.interface_by_public(&addr).is_some_and(|(i, _)| i == side.interface) {
            format!("{addr} is its public address")
        } else if attribution.is_own(policy, side.interface, &addr) {
            match policy.interfaces().get(side.interface).is_some_and(|i| i.owns(&addr)) {
                true => format!("{addr} is its address"),
                false => format!("{addr} stands for it"),
            }
        } else {
            "by its addresses".to_owned()
        };
        found.push(format!("{direction} of {name}: {how}"));
    }
    if found.is_empty() {
        return format!(
            "neither {} nor {} is an address of an interface of the policy",
            headers.src, headers.dst
        );
    }
    found.join("; ")
}

fn is_by_mac(
    policy: &CompiledPolicy,
    link: &LinkInfo,
    interface: usize,
    direction: Direction,
) -> bool {
    let mac = link.mac.map(|macs| match direction {
        Direction::Ingress => macs.dst(),
        Direction::Egress => macs.src(),
    });
    mac.and_then(|mac| policy.interface_by_mac(mac)) == Some(interface)
}
