//! The link layer: where the IP packet begins.

use super::{Bytes, bad_field};
use crate::error::{Layer, ParseError};
use crate::headers::{LinkInfo, LinkType};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what equipment used for double tags before there was a standard.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags on one frame. QinQ has two; more than four is nobody's network.
const MAX_TAGS: usize = 4;

/// What a frame carries, and for IP where it begins.
pub(super) enum Payload {
    Ip(LinkInfo, usize),
    Arp(LinkInfo),
    Other(LinkInfo),
}

pub(super) fn parse(link: LinkType, bytes: Bytes<'_>) -> Result<Payload, ParseError> {
    match link {
        LinkType::Ethernet => ethernet(bytes),
        LinkType::RawIp | LinkType::Ipv4 | LinkType::Ipv6 => raw(link, bytes),
        LinkType::LinuxSll => {
            // 2 packet type, 2 ARPHRD, 2 address length, 8 address, 2 protocol.
            let h: &[u8; 16] = bytes.array(Layer::Link, 0)?;
            tagged(bytes, u16::from_be_bytes([h[14], h[15]]), 16, None)
        }
        LinkType::LinuxSll2 => {
            // 2 protocol, 2 reserved, 4 interface, 2 ARPHRD, 1 packet type, 1 length, 8 address.
            let h: &[u8; 20] = bytes.array(Layer::Link, 0)?;
            tagged(bytes, u16::from_be_bytes([h[0], h[1]]), 20, None)
        }
        LinkType::Null | LinkType::Loop => loopback(link, bytes),
    }
}

fn ethernet(bytes: Bytes<'_>) -> Result<Payload, ParseError> {
    let h: &[u8; 14] = bytes.array(Layer::Link, 0)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *h;
    let mac = Some(([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]));
    tagged(bytes, u16::from_be_bytes([t0, t1]), 14, mac)
}

/// Skips VLAN tags and says what the ethertype behind them means.
#[inline]
fn tagged(
    bytes: Bytes<'_>,
    mut ethertype: u16,
    mut offset: usize,
    mac: Option<([u8; 6], [u8; 6])>,
) -> Result<Payload, ParseError> {
    let mut vlan = None;
    for _ in 0..MAX_TAGS {
        if !VLAN_TAGS.contains(&ethertype) {
            break;
        }
        let [c0, c1, t0, t1] = *bytes.array(Layer::Vlan, offset)?;
        vlan = vlan.or(Some(u16::from_be_bytes([c0, c1]) & 0x0fff));
        ethertype = u16::from_be_bytes([t0, t1]);
        offset += 4;
    }
    let info = LinkInfo { ethertype, vlan, mac };
    Ok(match ethertype {
        IPV4 | IPV6 => Payload::Ip(info, offset),
        ARP => Payload::Arp(info),
        _ => Payload::Other(info),
    })
}

/// Bare IP: the version must be one that the link type allows.
fn raw(link: LinkType, bytes: Bytes<'_>) -> Result<Payload, ParseError> {
    let [first] = *bytes.array(Layer::Link, 0)?;
    let ethertype = match (first >> 4, link) {
        (4, LinkType::RawIp | LinkType::Ipv4) => IPV4,
        (6, LinkType::RawIp | LinkType::Ipv6) => IPV6,
        (version, _) => return Err(bad_field(Layer::Link, 0, "IP version", version.into())),
    };
    Ok(Payload::Ip(LinkInfo { ethertype, vlan: None, mac: None }, 0))
}

/// BSD loopback: an address family, whose number for IPv6 differs from one BSD to the next. Of
/// `Null`, the byte order is the capturing host's, which nobody wrote down: both are tried.
fn loopback(link: LinkType, bytes: Bytes<'_>) -> Result<Payload, ParseError> {
    let family: [u8; 4] = *bytes.array(Layer::Link, 0)?;
    let ethertype_of = |family: u32| match family {
        2 => Some(IPV4),
        10 | 24 | 28 | 30 => Some(IPV6),
        _ => None,
    };
    let either = [u32::from_be_bytes(family), u32::from_le_bytes(family)];
    let orders = if link == LinkType::Loop { &either[..1] } else { &either[..] };
    let ethertype = orders.iter().find_map(|family| ethertype_of(*family));
    let info = LinkInfo { ethertype: ethertype.unwrap_or(0), vlan: None, mac: None };
    Ok(match ethertype {
        Some(_) => Payload::Ip(info, 4),
        None => Payload::Other(info),
    })
}
