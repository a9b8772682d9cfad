//! The short way, for nearly all frames: a whole IPv4 packet without options or IPv6 packet without
//! extension headers, TCP or UDP, behind fourteen bytes of Ethernet. All is at one place in these, so
//! their length is looked at once.

use super::transport::tcp_of;
use crate::headers::{Headers, LinkInfo, Macs, TcpFlags, Transport, protocol};

/// Where the IP header begins.
const IP: usize = 14;
/// Where the transport header does.
const BEHIND_IPV4: usize = IP + 20;
const BEHIND_IPV6: usize = IP + 40;

/// Reads a frame that is as plain as that, and says whether it was: as [`super::parse_into`] reads it
/// the long way. Of all others, and of those with an error, `headers` then says nothing.
#[inline(always)]
pub(super) fn parse(frame: &[u8], wire_len: usize, headers: &mut Headers) -> bool {
    let Some(h) = frame.first_chunk::<{ BEHIND_IPV4 + 8 }>() else { return false };
    let [.., e0, e1] = *h.first_chunk::<IP>().expect("fourteen of them");
    match [e0, e1] {
        [0x08, 0x00] => ipv4(frame, h, wire_len, headers),
        [0x86, 0xdd] => ipv6(frame, wire_len, headers),
        _ => false,
    }
}

#[inline(always)]
fn ipv4(frame: &[u8], h: &[u8; 42], wire_len: usize, headers: &mut Headers) -> bool {
    let flags_and_offset = u16::from_be_bytes([h[20], h[21]]);
    let total_len = u16::from_be_bytes([h[16], h[17]]);
    let is_plain = h[IP] == 0x45 && flags_and_offset & 0x3fff == 0 && total_len >= 20;
    if !is_plain || usize::from(total_len) > wire_len.max(frame.len()) - IP {
        return false;
    }
    let len = u32::from(total_len) - 20;
    if !transport::<BEHIND_IPV4>(frame, h[23], len, &mut headers.transport) {
        return false;
    }
    headers.link = link(h);
    (headers.src, headers.dst) =
        super::ip::ipv4_addresses(h[IP..].first_chunk().expect("28 bytes"));
    headers.protocol = h[23];
    headers.fragment = None;
    headers.dont_fragment = flags_and_offset & 0x4000 != 0;
    headers.hop_limit = h[22];
    headers.ip_len = total_len.into();
    headers.ip_offset = IP as u16;
    headers.transport_offset = BEHIND_IPV4 as u16;
    true
}

#[inline(never)]
fn ipv6(frame: &[u8], wire_len: usize, headers: &mut Headers) -> bool {
    let Some(h) = frame.first_chunk::<{ BEHIND_IPV6 + 8 }>() else { return false };
    let len = u16::from_be_bytes([h[18], h[19]]);
    // Without a payload length it is not plain.
    if h[IP] >> 4 != 6 || len == 0 || usize::from(len) > wire_len.max(frame.len()) - BEHIND_IPV6 {
        return false;
    }
    if !transport::<BEHIND_IPV6>(frame, h[20], len.into(), &mut headers.transport) {
        return false;
    }
    headers.link = link(h);
    (headers.src, headers.dst) =
        super::ip::ipv6_addresses(h[IP..].first_chunk().expect("48 bytes"));
    headers.protocol = h[20];
    headers.fragment = None;
    headers.dont_fragment = true;
    headers.hop_limit = h[21];
    headers.ip_len = 40 + u32::from(len);
    headers.ip_offset = IP as u16;
    headers.transport_offset = BEHIND_IPV6 as u16;
    true
}

#[inline(always)]
fn link<const N: usize>(h: &[u8; N]) -> LinkInfo {
    let [macs @ .., e0, e1] = h.first_chunk::<IP>().expect("a frame begins so");
    let (ethertype, mac) = (u16::from_be_bytes([*e0, *e1]), Some(Macs::from_frame(*macs)));
    LinkInfo { ethertype, vlan: None, mac }
}

/// Reads a transport header at `AT`; `len`: bytes from there on, as the IP header says.
#[inline(always)]
fn transport<const AT: usize>(frame: &[u8], number: u8, len: u32, out: &mut Transport) -> bool {
    match number {
        protocol::TCP => {
            let Some(h) = frame.get(AT..AT + 20).and_then(<[u8]>::first_chunk::<20>) else {
                return false;
            };
            let (header_len, flags) = (u32::from(h[12] >> 4) * 4, TcpFlags(h[13]));
            // Options say something in a SYN alone.
            let is_plain = header_len == 20 || !flags.contains(TcpFlags::SYN);
            if !is_plain || header_len < 20 || header_len > len {
                return false;
            }
            *out = Transport::Tcp(tcp_of(h, None, len - header_len));
            true
        }
        protocol::UDP => {
            let Some(h) = frame.get(AT..AT + 8).and_then(<[u8]>::first_chunk::<8>) else {
                return false;
            };
            if !(8..=len).contains(&u16::from_be_bytes([h[4], h[5]]).into()) {
                return false;
            }
            *out = Transport::Udp {
                src_port: u16::from_be_bytes([h[0], h[1]]),
                dst_port: u16::from_be_bytes([h[2], h[3]]),
            };
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::headers::LinkType;
    use crate::parse::{Kind, parse_any};
    use crate::text::PacketSpec;

    /// What the short way is for.
    const PLAIN: [&str; 10] = [
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 A seq=7 ack=9 win=500",
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 S seq=7",
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 PA len=30",
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 FA df",
        "udp 203.0.113.7:53 -> 10.0.1.10:5353 len=22",
        "udp 203.0.113.7:53 -> 10.0.1.10:5353",
        "tcp [2001:db8::7]:40000 -> [2001:db8:1::10]:443 A seq=7 ack=9",
        "tcp [2001:db8::7]:40000 -> [2001:db8:1::10]:443 S",
        "tcp [2001:db8::7]:40000 -> [2001:db8:1::10]:443 PA len=30",
        "udp [2001:db8::7]:53 -> [2001:db8:1::10]:5353 len=22",
    ];

    fn frame(line: &str) -> Vec<u8> {
        line.parse::<PacketSpec>().expect("a packet").to_frame()
    }

    #[test]
    fn plain_frames_take_the_short_way() {
        for line in PLAIN {
            let frame = frame(line);
            assert!(parse(&frame, frame.len(), &mut Headers::NONE.clone()), "{line}");
            assert!(parse(&frame, frame.len() + 500, &mut Headers::NONE.clone()), "{line}");
        }
        for line in ["icmp 203.0.113.7 -> 10.0.1.10 echo-request", "gre 203.0.113.7 -> 10.0.1.10"] {
            let frame = frame(line);
            assert!(!parse(&frame, frame.len(), &mut Headers::NONE.clone()), "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Whatever the bytes: where the short way reads a frame, the long way reads the same.
        #[test]
        fn both_ways_read_the_same(
            which in 0..PLAIN.len(),
            bytes in proptest::collection::vec((12..74usize, any::<u8>()), 0..4),
            bits in proptest::collection::vec((12..74usize, 0..8u8), 0..3),
            cut in proptest::option::of(any::<Index>()),
            more in 0..40usize,
        ) {
            let mut frame = frame(PLAIN[which]);
            for (at, byte) in bytes {
                if let Some(there) = frame.get_mut(at) {
                    *there = byte;
                }
            }
            for (at, bit) in bits {
                if let Some(there) = frame.get_mut(at) {
                    *there ^= 1 << bit;
                }
            }
            frame.truncate(cut.map_or(frame.len(), |cut| cut.index(frame.len() + 1)));
            let wire_len = frame.len() + more.saturating_sub(20);
            let (mut short, mut long) = (Headers::NONE, Headers::NONE);
            if parse(&frame, wire_len, &mut short) {
                let read = parse_any(LinkType::Ethernet, &frame, wire_len, &mut long);
                prop_assert_eq!(read, Ok(Kind::Ip));
                prop_assert_eq!(short, long);
            }
        }
    }
}
