//! Packets from values: what tests, examples and the ICMP errors of the router are made of.
//!
//! Checksums are right (RFC 1071), lengths are those of what is given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::headers::{FragmentInfo, TcpFlags, protocol};

/// What an IP header says besides addresses and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpFields {
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// IPv4 don't-fragment bit; no meaning for IPv6.
    pub dont_fragment: bool,
    /// Place in a fragmented datagram. `len` is not looked at: the payload has its own.
    pub fragment: Option<FragmentInfo>,
}

impl Default for IpFields {
    fn default() -> Self {
        IpFields { hop_limit: 64, dont_fragment: false, fragment: None }
    }
}

/// A TCP header without options, or with window scale alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFields {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window field.
    pub window: u16,
    /// Window-scale option, if any.
    pub window_scale: Option<u8>,
}

/// An IP packet from `src` to `dst` around `payload`.
///
/// # Panics
/// If the addresses are of different families: that is the caller's mistake, not input.
#[must_use]
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, fields: IpFields, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, proto, fields, payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, proto, fields, payload),
        _ => panic!("a packet from {src} to {dst} mixes IPv4 and IPv6"),
    }
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, fields: IpFields, payload: &[u8]) -> Vec<u8> {
    let total_len = (20 + payload.len()) as u16;
    let fragment = fields.fragment;
    let df = u16::from(fields.dont_fragment) << 14;
    let mf = u16::from(fragment.is_some_and(|f| f.more)) << 13;
    let offset = fragment.map_or(0, |f| (f.offset / 8) as u16 & 0x1fff);
    let mut packet = Vec::with_capacity(20 + payload.len());
    packet.extend([0x45, 0]);
    packet.extend(total_len.to_be_bytes());
    packet.extend((fragment.map_or(0, |f| f.id) as u16).to_be_bytes());
    packet.extend((df | mf | offset).to_be_bytes());
    packet.extend([fields.hop_limit, proto, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, proto: u8, fields: IpFields, payload: &[u8]) -> Vec<u8> {
    const FRAGMENT: u8 = 44;
    let extension = fields.fragment.map(|f| {
        let mut header = [0; 8];
        header[0] = proto;
        header[2..4].copy_from_slice(&(f.offset as u16 & 0xfff8 | u16::from(f.more)).to_be_bytes());
        header[4..8].copy_from_slice(&f.id.to_be_bytes());
        header
    });
    let extension_bytes = extension.as_ref().map_or(&[][..], |e| e);
    let next = if extension.is_some() { FRAGMENT } else { proto };
    let mut packet = Vec::with_capacity(48 + payload.len());
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(((extension_bytes.len() + payload.len()) as u16).to_be_bytes());
    packet.extend([next, fields.hop_limit]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(extension_bytes);
    packet.extend(payload);
    packet
}

/// A TCP segment between `src` and `dst`, checksum included.
#[must_use]
pub fn tcp(src: IpAddr, dst: IpAddr, fields: &TcpFields, payload: &[u8]) -> Vec<u8> {
    let options: &[u8] = match fields.window_scale {
        Some(shift) => &[1, 3, 3, shift],
        None => &[],
    };
    let mut segment = Vec::with_capacity(24 + payload.len());
    segment.extend(fields.src_port.to_be_bytes());
    segment.extend(fields.dst_port.to_be_bytes());
    segment.extend(fields.seq.to_be_bytes());
    segment.extend(fields.ack.to_be_bytes());
    segment.extend([((20 + options.len()) as u8 / 4) << 4, fields.flags.0]);
    segment.extend(fields.window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(payload);
    seal(src, dst, protocol::TCP, segment, 16)
}

/// A UDP datagram between `src` and `dst`, checksum included.
#[must_use]
pub fn udp(src: IpAddr, dst: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(ports.0.to_be_bytes());
    datagram.extend(ports.1.to_be_bytes());
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(payload);
    let mut sealed = seal(src, dst, protocol::UDP, datagram, 6);
    if sealed[6..8] == [0, 0] {
        sealed[6..8].copy_from_slice(&[0xff, 0xff]);
    }
    sealed
}

/// An ICMP (`proto` 1) or ICMPv6 (58) message between `src` and `dst`, checksum included; `rest`
/// is the header's second word.
#[must_use]
pub fn icmp(
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    (kind, code): (u8, u8),
    rest: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(8 + payload.len());
    message.extend([kind, code, 0, 0]);
    message.extend(rest);
    message.extend(payload);
    seal(src, dst, proto, message, 2)
}

/// A packet in an Ethernet II frame between two locally administered addresses.
#[must_use]
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let is_v6 = packet.first().is_some_and(|b| b >> 4 == 6);
    let ethertype: u16 = if is_v6 { 0x86dd } else { 0x0800 };
    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend([0x02, 0, 0, 0, 0, 2]);
    frame.extend([0x02, 0, 0, 0, 0, 1]);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// Puts the checksum of a transport segment at byte `at`. ICMP for IPv4 alone has no
/// pseudo-header.
fn seal(src: IpAddr, dst: IpAddr, proto: u8, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = match proto {
        protocol::ICMP => checksum(&[&segment]),
        _ => transport_checksum(src, dst, proto, &segment),
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The checksum of a transport segment under its pseudo-header (RFC 9293, RFC 8200 section 8.1).
/// Zero for a segment that holds its right checksum.
#[must_use]
pub fn transport_checksum(src: IpAddr, dst: IpAddr, proto: u8, segment: &[u8]) -> u16 {
    let mut pseudo = Vec::with_capacity(40);
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(a) => pseudo.extend(a.octets()),
            IpAddr::V6(a) => pseudo.extend(a.octets()),
        }
    }
    pseudo.extend((segment.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, proto]);
    checksum(&[&pseudo, segment])
}

/// The Internet checksum over `parts` (RFC 1071), each but the last of even length. Zero for
/// bytes that hold their right checksum.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        let (pairs, odd) = part.as_chunks::<2>();
        sum += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        sum += odd.first().map_or(0, |&byte| u64::from(byte) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
