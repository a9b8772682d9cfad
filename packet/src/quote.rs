//! The packet that an ICMP error quotes (RFC 792, RFC 4443 section 3).

use crate::headers::{Headers, Transport, protocol};
use crate::parse::parse_quoted;

/// ICMP errors carry the quoted packet after eight bytes of their own.
const ICMP_HEADER: usize = 8;

/// Whether an ICMP (`proto` 1) or ICMPv6 (58) type is an error: it quotes the packet it is about.
///
/// ICMP: unreachable 3, source quench 4, redirect 5, time exceeded 11, parameter problem 12.
/// ICMPv6: unreachable 1, too big 2, time exceeded 3, parameter problem 4.
#[must_use]
pub const fn is_icmp_error(proto: u8, kind: u8) -> bool {
    matches!((proto, kind), (protocol::ICMP, 3 | 4 | 5 | 11 | 12) | (protocol::ICMPV6, 1..=4))
}

/// ICMP redirect: it asks a host to send elsewhere, and says nothing of the quoted packet's fate.
const REDIRECT: u8 = 5;

/// The headers of the packet that the ICMP error `headers` of `frame` quotes.
///
/// Quotes are cut short by nature: what lies beyond eight bytes of the quoted transport header
/// (TCP flags, say) reads as zero. `None` if the message is no error, or quotes less than that, a
/// later fragment, or nonsense (SEMANTICS 10.3).
#[must_use]
pub fn quoted(headers: &Headers, frame: &[u8]) -> Option<Headers> {
    match headers.transport {
        Transport::Icmp(icmp) if is_icmp_error(headers.protocol, icmp.kind) => {}
        _ => return None,
    }
    let start = usize::from(headers.transport_offset) + ICMP_HEADER;
    let end = usize::from(headers.ip_offset) + headers.ip_len as usize;
    let quote = frame.get(start..end.min(frame.len()))?;
    parse_quoted(quote).ok().filter(|h| h.transport != Transport::LaterFragment)
}

/// The same, if the error can be true: it is of the quoted packet's family, it goes to the host
/// that sent the quoted packet, and that packet came to harm (a redirect says no such thing).
///
/// Whoever answers a packet with an error sends it to that packet's source (RFC 1122, 3.2.2;
/// RFC 4443, 2.2), so an error that quotes someone else's packet is a lie.
#[must_use]
pub fn quoted_of_receiver(headers: &Headers, frame: &[u8]) -> Option<Headers> {
    let is_possible = match headers.transport {
        Transport::Icmp(icmp) if headers.protocol == protocol::ICMP => {
            !headers.is_ipv6() && icmp.kind != REDIRECT
        }
        _ => headers.is_ipv6(),
    };
    if !is_possible {
        return None;
    }
    quoted(headers, frame).filter(|inner| inner.src == headers.dst)
}
