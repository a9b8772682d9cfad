//! The link layer: where the IP packet begins.

use super::{Bytes, Kind, bad_field};
use crate::error::{Layer, ParseError};
use crate::headers::{LinkInfo, LinkType, Macs};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what equipment used for double tags before there was a standard.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags on one frame. QinQ has two; more than four is nobody's network.
const MAX_TAGS: usize = 4;

/// What a frame carries, where that begins, and its ethertype.
type Payload = (Kind, usize, u16);

/// Reads the link layer into `info`.
#[inline(always)]
pub(super) fn parse(
    link: LinkType,
    bytes: Bytes<'_>,
    info: &mut LinkInfo,
) -> Result<Payload, ParseError> {
    *info = LinkInfo::NONE;
    match link {
        LinkType::Ethernet => ethernet(bytes, info),
        LinkType::RawIp | LinkType::Ipv4 | LinkType::Ipv6 => raw(link, bytes, info),
        LinkType::LinuxSll => {
            // 2 packet type, 2 ARPHRD, 2 address length, 8 address, 2 protocol.
            let h: &[u8; 16] = bytes.array(Layer::Link, 0)?;
            tagged(bytes, u16::from_be_bytes([h[14], h[15]]), 16, info)
        }
        LinkType::LinuxSll2 => {
            // 2 protocol, 2 reserved, 4 interface, 2 ARPHRD, 1 packet type, 1 length, 8 address.
            let h: &[u8; 20] = bytes.array(Layer::Link, 0)?;
            tagged(bytes, u16::from_be_bytes([h[0], h[1]]), 20, info)
        }
        LinkType::Null | LinkType::Loop => loopback(link, bytes, info),
    }
}

#[inline(always)]
fn ethernet(bytes: Bytes<'_>, info: &mut LinkInfo) -> Result<Payload, ParseError> {
    let h: &[u8; 14] = bytes.array(Layer::Link, 0)?;
    let [macs @ .., _, _] = h;
    info.mac = Some(Macs::from_frame(*macs));
    match u16::from_be_bytes([h[12], h[13]]) {
        // Nearly all frames: read without a call.
        ethertype @ (IPV4 | IPV6) => {
            info.ethertype = ethertype;
            Ok((Kind::Ip, 14, ethertype))
        }
        ethertype => tagged(bytes, ethertype, 14, info),
    }
}

/// Skips VLAN tags and says what the ethertype behind them means.
#[inline(never)]
fn tagged(
    bytes: Bytes<'_>,
    mut ethertype: u16,
    mut offset: usize,
    info: &mut LinkInfo,
) -> Result<Payload, ParseError> {
    for _ in 0..MAX_TAGS {
        if !VLAN_TAGS.contains(&ethertype) {
            break;
        }
        let [c0, c1, t0, t1] = *bytes.array(Layer::Vlan, offset)?;
        info.vlan = info.vlan.or(Some(u16::from_be_bytes([c0, c1]) & 0x0fff));
        ethertype = u16::from_be_bytes([t0, t1]);
        offset += 4;
    }
    info.ethertype = ethertype;
    let kind = match ethertype {
        IPV4 | IPV6 => Kind::Ip,
        ARP => Kind::Arp,
        _ => Kind::Other,
    };
    Ok((kind, offset, ethertype))
}

/// Bare IP: the version must be one that the link type allows.
#[inline(never)]
fn raw(link: LinkType, bytes: Bytes<'_>, info: &mut LinkInfo) -> Result<Payload, ParseError> {
    let [first] = *bytes.array(Layer::Link, 0)?;
    info.ethertype = match (first >> 4, link) {
        (4, LinkType::RawIp | LinkType::Ipv4) => IPV4,
        (6, LinkType::RawIp | LinkType::Ipv6) => IPV6,
        (version, _) => return Err(bad_field(Layer::Link, 0, "IP version", version.into())),
    };
    Ok((Kind::Ip, 0, info.ethertype))
}

/// BSD loopback: an address family, whose number for IPv6 differs from one BSD to the next. Of
/// `Null`, the byte order is the capturing host's, which nobody wrote down: both are tried.
#[inline(never)]
fn loopback(link: LinkType, bytes: Bytes<'_>, info: &mut LinkInfo) -> Result<Payload, ParseError> {
    let family: [u8; 4] = *bytes.array(Layer::Link, 0)?;
    let ethertype_of = |family: u32| match family {
        2 => Some(IPV4),
        10 | 24 | 28 | 30 => Some(IPV6),
        _ => None,
    };
    let either = [u32::from_be_bytes(family), u32::from_le_bytes(family)];
    let orders = if link == LinkType::Loop { &either[..1] } else { &either[..] };
    let Some(ethertype) = orders.iter().find_map(|family| ethertype_of(*family)) else {
        return Ok((Kind::Other, 4, 0));
    };
    info.ethertype = ethertype;
    Ok((Kind::Ip, 4, ethertype))
}
