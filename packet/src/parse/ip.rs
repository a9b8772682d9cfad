//! IPv4 and IPv6 headers, extension headers and fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Bytes, bad_field};
use crate::error::{Layer, ParseError};
use crate::headers::{FragmentInfo, Headers, Transport};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// SEMANTICS 2.7.
const MAX_EXTENSIONS: u32 = 8;
const MAX_EXTENSION_BYTES: usize = 256;

/// Reads the transport header of a packet.
pub(super) trait TransportParser:
    Fn(Bytes<'_>, usize, u8, &Option<FragmentInfo>, &mut Transport) -> Result<(), ParseError>
{
}

impl<F> TransportParser for F where
    F: Fn(Bytes<'_>, usize, u8, &Option<FragmentInfo>, &mut Transport) -> Result<(), ParseError>
{
}

#[inline(always)]
pub(super) fn parse(
    bytes: Bytes<'_>,
    ethertype: u16,
    out: &mut Headers,
    transport: impl TransportParser,
) -> Result<(), ParseError> {
    let layer = if ethertype == 0x86dd { Layer::Ipv6 } else { Layer::Ipv4 };
    let [first] = *bytes.array(layer, bytes.ip)?;
    match (first >> 4, ethertype) {
        (4, 0x0800 | 0) => ipv4(bytes, out, transport),
        (6, 0x86dd | 0) => ipv6(bytes, out, transport),
        (version, _) => Err(bad_field(layer, bytes.ip, "version", version.into())),
    }
}

/// Source and destination, where at least the fixed header is there.
pub(super) fn addresses(bytes: Bytes<'_>) -> Option<(IpAddr, IpAddr)> {
    let packet = bytes.captured.get(bytes.ip..)?;
    match packet.first()? >> 4 {
        4 => packet.first_chunk().map(ipv4_addresses),
        6 => packet.first_chunk().map(ipv6_addresses),
        _ => None,
    }
}

pub(super) fn ipv4_addresses(h: &[u8; 20]) -> (IpAddr, IpAddr) {
    let src = Ipv4Addr::new(h[12], h[13], h[14], h[15]);
    let dst = Ipv4Addr::new(h[16], h[17], h[18], h[19]);
    (src.into(), dst.into())
}

pub(super) fn ipv6_addresses(h: &[u8; 40]) -> (IpAddr, IpAddr) {
    let (mut src, mut dst) = ([0; 16], [0; 16]);
    src.copy_from_slice(&h[8..24]);
    dst.copy_from_slice(&h[24..40]);
    (Ipv6Addr::from(src).into(), Ipv6Addr::from(dst).into())
}

#[inline(always)]
fn ipv4(
    bytes: Bytes<'_>,
    out: &mut Headers,
    transport: impl TransportParser,
) -> Result<(), ParseError> {
    let at = bytes.ip;
    let h: &[u8; 20] = bytes.array(Layer::Ipv4, at)?;
    let header_len = usize::from(h[0] & 0x0f) * 4;
    if header_len < 20 {
        return Err(bad_field(Layer::Ipv4, at, "header length", header_len as u32));
    }
    // Zero is what a sending host's segmentation offload leaves of a frame of 64 KiB or more.
    let total_len = match u16::from_be_bytes([h[2], h[3]]) {
        0 => bytes.left(at),
        len => len.into(),
    };
    if total_len < header_len || total_len > bytes.left(at) {
        return Err(bad_field(Layer::Ipv4, at, "total length", total_len as u32));
    }
    let bytes = bytes.ending_at(at + total_len);
    bytes.slice(Layer::Ipv4, at, header_len)?;

    let (src, dst) = ipv4_addresses(h);
    let flags_and_offset = u16::from_be_bytes([h[6], h[7]]);
    out.fragment = None;
    if flags_and_offset & 0x3fff != 0 {
        out.fragment = Some(ipv4_fragment(h, at, total_len - header_len)?);
    }
    let transport_offset = at + header_len;
    // Field by field, to where they stay: a whole of many small parts is slow to move.
    (out.src, out.dst) = (src, dst);
    out.protocol = h[9];
    transport(bytes, transport_offset, h[9], &out.fragment, &mut out.transport)?;
    out.dont_fragment = flags_and_offset & 0x4000 != 0;
    out.hop_limit = h[8];
    out.ip_len = total_len as u32;
    out.ip_offset = at as u16;
    out.transport_offset = transport_offset as u16;
    Ok(())
}

/// Where an IPv4 packet with `len` bytes of data stands in its datagram.
#[inline(never)]
fn ipv4_fragment(h: &[u8; 20], at: usize, len: usize) -> Result<FragmentInfo, ParseError> {
    let flags_and_offset = u16::from_be_bytes([h[6], h[7]]);
    let fragment = FragmentInfo {
        id: u16::from_be_bytes([h[4], h[5]]).into(),
        offset: u32::from(flags_and_offset & 0x1fff) * 8,
        len: len as u32,
        more: flags_and_offset & 0x2000 != 0,
    };
    check_fragment(Layer::Ipv4, at, fragment)?;
    Ok(fragment)
}

/// A datagram is at most 65,535 bytes (RFC 791, RFC 8200 section 4.5): a fragment that would
/// reach further is the "ping of death".
fn check_fragment(layer: Layer, at: usize, fragment: FragmentInfo) -> Result<(), ParseError> {
    let end = fragment.offset.saturating_add(fragment.len);
    if end > 65_535 {
        return Err(bad_field(layer, at, "fragment end", end));
    }
    if fragment.more && !fragment.len.is_multiple_of(8) {
        let len = fragment.len;
        return Err(bad_field(layer, at, "length of a fragment that is not the last", len));
    }
    Ok(())
}

#[inline(never)]
fn ipv6(
    bytes: Bytes<'_>,
    out: &mut Headers,
    transport: impl TransportParser,
) -> Result<(), ParseError> {
    let at = bytes.ip;
    let h: &[u8; 40] = bytes.array(Layer::Ipv6, at)?;
    let (src, dst) = ipv6_addresses(h);
    let payload_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    let (mut protocol, start) = (h[6], at + 40);
    if payload_len > bytes.left(start) {
        return Err(bad_field(Layer::Ipv6, at, "payload length", payload_len as u32));
    }
    // Zero: a jumbogram, or what segmentation offload leaves of a large frame. Either way the
    // packet reaches as far as the bytes do, unless a jumbo option says otherwise.
    let mut bytes = match payload_len {
        0 => bytes,
        len => bytes.ending_at(start + len),
    };
    let mut offset = start;
    let mut fragment = None;
    let mut extensions = 0;
    while matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
        let [next, len, b2, b3, b4, b5, b6, b7] = *bytes.array(Layer::Ipv6Extension, offset)?;
        extensions += 1;
        let header_len = if protocol == FRAGMENT { 8 } else { (usize::from(len) + 1) * 8 };
        let end = offset + header_len;
        if extensions > MAX_EXTENSIONS || end - start > MAX_EXTENSION_BYTES {
            let chain = (end - start) as u32;
            return Err(ParseError::ExtensionChain { headers: extensions, bytes: chain });
        }
        match protocol {
            HOP_BY_HOP if payload_len == 0 => {
                let options = bytes.slice(Layer::Ipv6Extension, offset, header_len)?;
                if let Some(jumbo) = jumbo_length(&options[2..]) {
                    // One that a payload length could say is an error (RFC 2675, section 3).
                    if jumbo <= 65_535 || jumbo as usize > bytes.left(start) {
                        return Err(bad_field(Layer::Ipv6Extension, offset, "jumbo length", jumbo));
                    }
                    bytes = bytes.ending_at(start + jumbo as usize);
                }
            }
            FRAGMENT => {
                let word = u16::from_be_bytes([b2, b3]);
                let info = FragmentInfo {
                    id: u32::from_be_bytes([b4, b5, b6, b7]),
                    offset: u32::from(word & 0xfff8),
                    len: bytes.left(end) as u32,
                    more: word & 1 != 0,
                };
                // An atomic fragment is no fragment (RFC 6946).
                if info.more || info.offset > 0 {
                    check_fragment(Layer::Ipv6Extension, offset, info)?;
                    fragment = Some(info);
                }
            }
            _ => {
                bytes.slice(Layer::Ipv6Extension, offset, header_len)?;
            }
        }
        (protocol, offset) = (next, end);
        // What follows a later fragment's header is data from the middle of the datagram.
        if fragment.is_some_and(|f| f.offset > 0) {
            break;
        }
    }
    (out.src, out.dst) = (src, dst);
    out.protocol = protocol;
    out.fragment = fragment;
    transport(bytes, offset, protocol, &out.fragment, &mut out.transport)?;
    out.dont_fragment = true;
    out.hop_limit = h[7];
    out.ip_len = bytes.left(at) as u32;
    out.ip_offset = at as u16;
    out.transport_offset = offset as u16;
    Ok(())
}

/// The jumbo payload option among Hop-by-Hop options (RFC 2675, section 2).
fn jumbo_length(mut options: &[u8]) -> Option<u32> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    loop {
        match *options {
            [PAD1, ref rest @ ..] => options = rest,
            [JUMBO, 4, a, b, c, d, ..] => return Some(u32::from_be_bytes([a, b, c, d])),
            [_, len, ref rest @ ..] => options = rest.get(usize::from(len)..)?,
            _ => return None,
        }
    }
}

/// Whether `protocol`, seen in a later IPv6 fragment, is an extension header, so that the upper
/// protocol is known to the first fragment alone.
#[must_use]
pub const fn is_extension_header(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}
