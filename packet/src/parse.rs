//! Frames to [`Headers`]: the only parser, on the fast path.
//!
//! It trusts no length field further than the bytes that were there, and tells what the capture
//! cut off (*truncated*) from what the sender did not send (*too short*, *bad field*). It refuses
//! nothing that is merely odd: checksums, reserved bits, port 0 and strange flags are not looked
//! at. No allocation, no panic.
//!
//! RFC 791 (IPv4), RFC 8200 (IPv6), RFC 2675 (jumbograms), RFC 9293 (TCP), RFC 768 (UDP),
//! RFC 792 and RFC 4443 (ICMP), IEEE 802.1Q and 802.1ad (VLAN).

mod ip;
mod link;
mod plain;
mod transport;

use std::net::IpAddr;

pub use ip::is_extension_header;

use crate::error::{Layer, ParseError};
use crate::headers::{Frame, Headers, LinkInfo, LinkType};

/// Reads the headers of one frame.
///
/// `frame` is what was captured, `wire_len` what was on the wire, in bytes (less than
/// `frame.len()` counts as `frame.len()`).
///
/// # Errors
/// Why the headers cannot be read. A capture that cut off only payload is no error.
pub fn parse(link: LinkType, frame: &[u8], wire_len: usize) -> Result<Frame, ParseError> {
    let mut headers = Headers::NONE;
    Ok(match parse_into(link, frame, wire_len, &mut headers)? {
        Kind::Ip => Frame::Ip(headers),
        Kind::Arp => Frame::Arp(headers.link),
        Kind::Other => Frame::Other(headers.link),
    })
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IP packet.
    Ip,
    /// An ARP packet.
    Arp,
    /// Anything else.
    Other,
}

/// As [`parse`], into `headers`: of what is not IP only the link layer. For whoever reads many
/// frames: headers that are moved afterwards cost more than reading them.
///
/// # Errors
/// Why the headers cannot be read; `headers` then says nothing.
#[inline]
pub fn parse_into(
    link: LinkType,
    frame: &[u8],
    wire_len: usize,
    headers: &mut Headers,
) -> Result<Kind, ParseError> {
    if link == LinkType::Ethernet && plain::parse(frame, wire_len, headers) {
        return Ok(Kind::Ip);
    }
    parse_any(link, frame, wire_len, headers)
}

/// [`parse_into`] of whatever frame.
#[inline(never)]
fn parse_any(
    link: LinkType,
    frame: &[u8],
    wire_len: usize,
    headers: &mut Headers,
) -> Result<Kind, ParseError> {
    let bytes = Bytes::new(frame, wire_len);
    let (kind, offset, ethertype) = link::parse(link, bytes, &mut headers.link)?;
    if kind == Kind::Ip {
        ip::parse(bytes.with_link(offset), ethertype, headers, transport::parse)?;
    }
    Ok(kind)
}

/// Reads the headers of one bare IP packet; see [`parse`].
///
/// # Errors
/// Why the headers cannot be read.
pub fn parse_ip(packet: &[u8], wire_len: usize) -> Result<Headers, ParseError> {
    let mut headers = Headers::NONE;
    ip::parse(Bytes::new(packet, wire_len), 0, &mut headers, transport::parse)?;
    Ok(headers)
}

/// Reads the headers of a packet of which only the beginning is there, as ICMP errors quote it:
/// eight bytes of transport header are enough, and what they lack reads as zero.
pub(crate) fn parse_quoted(packet: &[u8]) -> Result<Headers, ParseError> {
    let mut headers = Headers::NONE;
    let bytes = Bytes::new(packet, usize::MAX >> 1);
    ip::parse(bytes, 0, &mut headers, transport::parse_start)?;
    Ok(headers)
}

/// The addresses of a frame that [`parse`] refuses, if at least those can be read: enough to say
/// whom a broken packet concerns.
#[must_use]
pub fn addresses(link: LinkType, frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (bytes, mut info) = (Bytes::new(frame, frame.len()), LinkInfo::NONE);
    match link::parse(link, bytes, &mut info).ok()? {
        (Kind::Ip, offset, _) => ip::addresses(bytes.with_link(offset)),
        _ => None,
    }
}

/// A frame with the knowledge of how long it was on the wire and where its packet begins.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    /// What there is of it: no more than was sent.
    captured: &'a [u8],
    /// Bytes that the sender sent: on the wire, or as an enclosing header says.
    sent: usize,
    /// Where the IP header begins.
    ip: usize,
}

impl<'a> Bytes<'a> {
    fn new(captured: &'a [u8], wire_len: usize) -> Self {
        Bytes { captured, sent: wire_len.max(captured.len()), ip: 0 }
    }

    fn with_link(self, ip: usize) -> Self {
        Bytes { ip, ..self }
    }

    /// The same, ending where an enclosing header says; never beyond what was sent.
    #[inline]
    fn ending_at(self, end: usize) -> Self {
        let captured = self.captured.get(..end).unwrap_or(self.captured);
        Bytes { captured, sent: self.sent.min(end), ..self }
    }

    /// Bytes sent from `offset` on.
    fn left(self, offset: usize) -> usize {
        self.sent.saturating_sub(offset)
    }

    /// `N` bytes at `offset`, or whose fault it is that they are missing.
    #[inline]
    fn array<const N: usize>(self, layer: Layer, offset: usize) -> Result<&'a [u8; N], ParseError> {
        match self.captured.get(offset..).and_then(|rest| rest.first_chunk()) {
            Some(array) => Ok(array),
            None => Err(self.missing(layer, offset, N)),
        }
    }

    /// `len` bytes at `offset`, or whose fault it is that they are missing.
    #[inline]
    fn slice(self, layer: Layer, offset: usize, len: usize) -> Result<&'a [u8], ParseError> {
        match self.captured.get(offset..).and_then(|rest| rest.get(..len)) {
            Some(slice) => Ok(slice),
            None => Err(self.missing(layer, offset, len)),
        }
    }

    #[cold]
    fn missing(self, layer: Layer, offset: usize, needed: usize) -> ParseError {
        let (had, captured) = (self.left(offset), self.captured.len().saturating_sub(offset));
        let (offset, needed) = (offset as u32, needed as u32);
        if had < needed as usize {
            ParseError::TooShort { layer, offset, needed, had: had as u32 }
        } else {
            ParseError::Truncated { layer, offset, needed, captured: captured as u32 }
        }
    }
}

#[cold]
fn bad_field(layer: Layer, offset: usize, field: &'static str, value: u32) -> ParseError {
    ParseError::BadField { layer, offset: offset as u32, field, value }
}
