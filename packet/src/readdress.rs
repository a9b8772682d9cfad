//! One-to-one address translation, as an internet gateway does it between a public IPv4 address
//! and the private one that it stands for (SEMANTICS 14.5).
//!
//! Addresses change, and the checksums that cover them; nothing else does. An ICMP error quotes a
//! packet that went the other way, so its destination is translated as the error's source is, and
//! the other way round (SEMANTICS 10.4, RFC 5508 section 4.2). IPv6 is never translated.

use std::net::{IpAddr, Ipv4Addr};

use crate::build::checksum;
use crate::headers::{Headers, Transport, protocol};
use crate::quote::is_icmp_error;

/// Which addresses of a packet to replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readdress {
    /// The new source address.
    pub src: Option<Ipv4Addr>,
    /// The new destination address.
    pub dst: Option<Ipv4Addr>,
}

/// Where an IPv4 header has its addresses and its checksum.
const SRC: usize = 12;
const DST: usize = 16;
const IP_CHECKSUM: usize = 10;

impl Readdress {
    /// Whether nothing is to be replaced.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.src.is_none() && self.dst.is_none()
    }

    /// Rewrites a frame that `headers` were read from, as far as it was captured.
    pub fn apply(&self, headers: &Headers, frame: &mut [u8]) {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (headers.src, headers.dst) else { return };
        let end = usize::from(headers.ip_offset) + headers.ip_len as usize;
        let end = end.min(frame.len());
        let Some(packet) = frame.get_mut(usize::from(headers.ip_offset)..end) else { return };
        let header_len = headers.transport_offset.saturating_sub(headers.ip_offset).into();
        let change =
            Change { src: (src, self.src.unwrap_or(src)), dst: (dst, self.dst.unwrap_or(dst)) };
        change.in_ip_header(packet);
        let Some(segment) = packet.get_mut(header_len..) else { return };
        match headers.transport {
            Transport::Tcp(_) => change.in_transport(segment, protocol::TCP),
            Transport::Udp { .. } => change.in_transport(segment, protocol::UDP),
            Transport::Icmp(icmp) if is_icmp_error(headers.protocol, icmp.kind) => {
                let whole = headers.fragment.is_none();
                change.reversed().in_icmp_error(segment, whole);
            }
            // Of a later fragment nothing covers the addresses; nor of other protocols, or their
            // checksums are not known here.
            _ => {}
        }
    }
}

/// Old and new address of each end.
#[derive(Clone, Copy)]
struct Change {
    src: (Ipv4Addr, Ipv4Addr),
    dst: (Ipv4Addr, Ipv4Addr),
}

impl Change {
    /// What happens to a packet of the opposite direction.
    const fn reversed(self) -> Self {
        Change { src: self.dst, dst: self.src }
    }

    fn in_ip_header(&self, packet: &mut [u8]) {
        for (at, (old, new)) in [(SRC, self.src), (DST, self.dst)] {
            if let Some(field) = packet.get_mut(at..at + 4)
                && *field == old.octets()
            {
                field.copy_from_slice(&new.octets());
                adjust(packet, IP_CHECKSUM, &old.octets(), &new.octets());
            }
        }
    }

    /// The pseudo-header has both addresses.
    fn in_transport(&self, segment: &mut [u8], proto: u8) {
        let at = if proto == protocol::TCP { 16 } else { 6 };
        let is_unused = segment.get(at..at + 2) == Some(&[0, 0]) && proto == protocol::UDP;
        if is_unused {
            return;
        }
        for (old, new) in [self.src, self.dst] {
            adjust(segment, at, &old.octets(), &new.octets());
        }
        // Zero would say that there is no checksum (RFC 768).
        if proto == protocol::UDP
            && let Some(field) = segment.get_mut(at..at + 2)
            && *field == [0, 0]
        {
            field.fill(0xff);
        }
    }

    /// The quoted packet, with the checksums of it that are there, and the error's own.
    fn in_icmp_error(&self, message: &mut [u8], whole: bool) {
        let Some((icmp, quote)) = message.split_at_mut_checked(8) else { return };
        let Some(&first) = quote.first() else { return };
        let header_len = usize::from(first & 15) * 4;
        if first >> 4 != 4 || header_len < 20 || quote.len() < header_len {
            return;
        }
        let before = quote.to_vec();
        self.in_ip_header(quote);
        let is_first = quote.get(6..8).is_some_and(|f| (f[0] & 0x1f, f[1]) == (0, 0));
        let proto = quote.get(9).copied().unwrap_or(0);
        if is_first && matches!(proto, protocol::TCP | protocol::UDP) {
            self.in_transport(&mut quote[header_len..], proto);
        }
        if whole {
            adjust(icmp, 2, &before, quote);
        }
    }
}

/// Updates the checksum at byte `at` for bytes that changed from `old` to `new`, both beginning at
/// an even distance from the start of what it covers (RFC 1624, equation 3). A checksum that was
/// wrong stays wrong.
fn adjust(bytes: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
        return;
    };
    // `checksum` is the complement of the sum: ~HC' = ~HC + ~m + m'.
    let terms = [(!u16::from_be_bytes(*field)), checksum(&[old]), !checksum(&[new])];
    let sum = terms.iter().map(|&term| u32::from(term)).sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    *field = (!(sum as u16)).to_be_bytes();
}
