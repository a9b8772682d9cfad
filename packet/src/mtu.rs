//! What a router does with a packet that does not fit the next link: fragments it, or tells its
//! sender (RFC 791 section 2.3, RFC 1191, RFC 8201).

use std::net::IpAddr;

use crate::build::{IpFields, checksum, icmp, ip};
use crate::headers::{Headers, Transport, protocol};
use crate::quote::is_icmp_error;

/// An ICMP error is at most as long as every host must take (RFC 1122 section 3.2.2), bytes.
const MAX_ERROR_V4: usize = 576;
/// As long as the smallest IPv6 link carries (RFC 4443 section 2.4), bytes.
const MAX_ERROR_V6: usize = 1280;

const MORE: u16 = 0x2000;

/// The IPv4 packet in pieces of at most `mtu` bytes, offsets in multiples of eight. Options go into
/// every piece if their copied bit is set, else into the first alone (RFC 791 section 3.1). What is
/// a fragment already is cut further. Beyond the packet's own length nothing is read.
///
/// `mtu` is at least 68 bytes (RFC 791 section 3.2). A packet that fits comes back as it is, one
/// that is no whole IPv4 packet not at all.
#[must_use]
pub fn fragment_ipv4(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let Some(&[version, _, l0, l1, _, _, f0, f1, ..]) = packet.first_chunk::<20>() else {
        return Vec::new();
    };
    let header_len = usize::from(version & 15) * 4;
    let total = match u16::from_be_bytes([l0, l1]) {
        0 => packet.len(),
        len => len.into(),
    };
    if version >> 4 != 4 || header_len < 20 || header_len > total || total > packet.len() {
        return Vec::new();
    }
    if total <= mtu {
        return vec![packet[..total].to_vec()];
    }
    let (header, mut data) = packet[..total].split_at(header_len);
    let later_header = [&header[..20], &copied_options(&header[20..])].concat();
    let word = u16::from_be_bytes([f0, f1]);
    let mut offset = usize::from(word & 0x1fff);
    let mut pieces = Vec::new();
    while !data.is_empty() {
        let header = if pieces.is_empty() { header } else { &later_header };
        let room = mtu.saturating_sub(header.len()).max(8);
        let len = if data.len() <= room { data.len() } else { room / 8 * 8 };
        let (piece, rest) = data.split_at(len);
        let more = if rest.is_empty() { word & MORE } else { MORE };
        pieces.push(fragment(header, piece, more | (offset as u16 & 0x1fff)));
        offset += len / 8;
        data = rest;
    }
    pieces
}

/// One fragment: header with its own lengths, offset and checksum, then data.
fn fragment(header: &[u8], data: &[u8], word: u16) -> Vec<u8> {
    let mut packet = [header, data].concat();
    packet[0] = 0x40 | (header.len() / 4) as u8;
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6..8].copy_from_slice(&word.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header.len()]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The options that every fragment carries, padded to whole words.
fn copied_options(mut options: &[u8]) -> Vec<u8> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut copied = Vec::new();
    while let [kind, rest @ ..] = options {
        if *kind == NOP {
            options = rest;
            continue;
        }
        // What makes no sense ends the options: there is nothing to copy beyond it.
        let len = rest.first().copied().filter(|len| *kind != END && *len >= 2).map(usize::from);
        let Some((option, rest)) = len.and_then(|len| options.split_at_checked(len)) else { break };
        if kind & COPIED != 0 {
            copied.extend(option);
        }
        options = rest;
    }
    copied.resize(copied.len().next_multiple_of(4), END);
    copied
}

/// The router's answer to a packet that does not fit and may not be fragmented: ICMP
/// "fragmentation needed" with the next-hop MTU (RFC 1191 section 4), or ICMPv6 "packet too big"
/// (RFC 4443 section 3.2). A bare IP packet from `router` to the packet's source, which quotes as
/// much of it as such an error may.
///
/// `None` where there must be no answer (RFC 1122 section 3.2.2, RFC 4443 section 2.4): to ICMP
/// errors, to fragments after the first, and to sources that are not one host.
#[must_use]
pub fn too_big(headers: &Headers, frame: &[u8], router: IpAddr, mtu: u16) -> Option<Vec<u8>> {
    let is_error = matches!(
        headers.transport,
        Transport::Icmp(icmp) if is_icmp_error(headers.protocol, icmp.kind)
    );
    if is_error
        || headers.transport == Transport::LaterFragment
        || !is_one_host(headers.src)
        || headers.dst.is_multicast()
        || headers.src.is_ipv6() != router.is_ipv6()
    {
        return None;
    }
    let start = usize::from(headers.ip_offset);
    let end = frame.len().min(start + headers.ip_len as usize);
    let packet = frame.get(start..end)?;
    let fields = IpFields::default();
    let [high, low] = mtu.to_be_bytes();
    Some(match router {
        IpAddr::V4(_) => {
            let quote = &packet[..packet.len().min(MAX_ERROR_V4 - 28)];
            let rest = [0, 0, high, low];
            let message = icmp(router, headers.src, protocol::ICMP, (3, 4), rest, quote);
            ip(router, headers.src, protocol::ICMP, fields, &message)
        }
        IpAddr::V6(_) => {
            let quote = &packet[..packet.len().min(MAX_ERROR_V6 - 48)];
            let rest = [0, 0, high, low];
            let message = icmp(router, headers.src, protocol::ICMPV6, (2, 0), rest, quote);
            ip(router, headers.src, protocol::ICMPV6, fields, &message)
        }
    })
}

/// Whether an answer to `source` can reach whoever sent the packet.
fn is_one_host(source: IpAddr) -> bool {
    let is_broadcast = match source {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    !(is_broadcast || source.is_multicast() || source.is_unspecified() || source.is_loopback())
}
