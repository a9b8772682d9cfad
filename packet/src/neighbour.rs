//! What ARP and IPv6 neighbour discovery claim: which address is at which MAC address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Layer, ParseError};
use crate::headers::Headers;

/// A MAC address.
pub type Mac = [u8; 6];

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Whether it asks (operation 1); else it answers (2).
    pub is_request: bool,
    /// Its sender's MAC address, as the packet has it.
    pub sender_mac: Mac,
    /// Its sender's address; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The address that is asked for, or that the answer is for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads the ARP packet that an Ethernet frame carries behind any VLAN tags.
    ///
    /// # Errors
    /// If it is too short, or not of IPv4 over Ethernet, or neither asks nor answers.
    pub fn parse(frame: &[u8]) -> Result<Arp, ParseError> {
        let mut offset = 12;
        while matches!(frame.get(offset..offset + 2), Some([0x81, 0] | [0x88, 0xa8] | [0x91, 0])) {
            offset += 4;
        }
        offset += 2;
        let rest = frame.get(offset..).unwrap_or_default();
        let at = offset as u32;
        let Some(arp) = rest.first_chunk::<28>() else {
            let had = rest.len() as u32;
            return Err(ParseError::TooShort { layer: Layer::Arp, offset: at, needed: 28, had });
        };
        let bad =
            |field, value| ParseError::BadField { layer: Layer::Arp, offset: at, field, value };
        let [h0, h1, p0, p1, hlen, plen, o0, o1, ..] = *arp;
        let word = |a, b| u16::from_be_bytes([a, b]);
        if (word(h0, h1), hlen) != (1, 6) {
            return Err(bad("hardware type", word(h0, h1).into()));
        }
        if (word(p0, p1), plen) != (0x0800, 4) {
            return Err(bad("protocol type", word(p0, p1).into()));
        }
        let operation = word(o0, o1);
        if !matches!(operation, 1 | 2) {
            return Err(bad("operation", operation.into()));
        }
        let address = |i: usize| Ipv4Addr::new(arp[i], arp[i + 1], arp[i + 2], arp[i + 3]);
        Ok(Arp {
            is_request: operation == 1,
            sender_mac: [arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]],
            sender: address(14),
            target: address(24),
        })
    }
}

/// A neighbour discovery message (RFC 4861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourMessage {
    /// 133 router solicitation, 134 router advertisement, 135 neighbour solicitation, 136
    /// neighbour advertisement, 137 redirect.
    pub kind: u8,
    /// The address that a neighbour message asks for or advertises.
    pub target: Option<Ipv6Addr>,
    /// The sender's MAC address, where an option tells it: that of a solicitation or router
    /// advertisement for its source, that of an advertisement for its target.
    pub mac: Option<Mac>,
}

impl NeighbourMessage {
    /// Reads the message that `headers` were read from.
    ///
    /// # Errors
    /// If it is too short, or an option has no length.
    pub fn parse(headers: &Headers, frame: &[u8]) -> Result<NeighbourMessage, ParseError> {
        let start = usize::from(headers.transport_offset);
        let end = usize::from(headers.ip_offset) + headers.ip_len as usize;
        let message = frame.get(start..end.min(frame.len())).unwrap_or_default();
        let kind = message.first().copied().unwrap_or(0);
        let fixed = match kind {
            133 => 8,
            134 => 16,
            137 => 40,
            _ => 24,
        };
        let Some((fixed, mut options)) = message.split_at_checked(fixed) else {
            return Err(ParseError::TooShort {
                layer: Layer::Icmp,
                offset: start as u32,
                needed: fixed as u32,
                had: message.len() as u32,
            });
        };
        let target = matches!(kind, 135 | 136)
            .then(|| fixed.last_chunk::<16>().map(|octets| Ipv6Addr::from(*octets)))
            .flatten();
        let wanted = if kind == 136 { 2 } else { 1 };
        let mut mac = None;
        while let [kind, len, body @ ..] = options {
            if *len == 0 {
                return Err(ParseError::BadField {
                    layer: Layer::Icmp,
                    offset: start as u32,
                    field: "option length",
                    value: 0,
                });
            }
            if *kind == wanted {
                mac = body.first_chunk::<6>().copied();
            }
            options = options.get(usize::from(*len) * 8..).unwrap_or_default();
        }
        Ok(NeighbourMessage { kind, target, mac })
    }

    /// The address that the message says its sender has, if it says so: the source of a
    /// solicitation, the target of an advertisement.
    #[must_use]
    pub fn claimed(&self, src: IpAddr) -> Option<Ipv6Addr> {
        match (self.kind, src) {
            (136, _) => self.target,
            (_, IpAddr::V6(src)) if !src.is_unspecified() => Some(src),
            _ => None,
        }
    }
}
