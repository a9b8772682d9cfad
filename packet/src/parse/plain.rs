//! The short way, for nearly all frames: a whole IPv4 packet without options, TCP or UDP, behind
//! fourteen bytes of Ethernet. All is at one place in these, so their length is looked at once.

use crate::headers::{Headers, LinkInfo, Macs, Tcp, TcpFlags, Transport, protocol};

/// Where the IP header begins, and where the transport header does.
const IP: usize = 14;
const TRANSPORT: usize = IP + 20;

/// Reads a frame that is as plain as that, and says whether it was: as [`super::parse_into`] reads it
/// the long way. Of all others, and of those with an error, `headers` then says nothing.
#[inline(always)]
pub(super) fn parse(frame: &[u8], wire_len: usize, headers: &mut Headers) -> bool {
    let Some(h) = frame.first_chunk::<42>() else { return false };
    let flags_and_offset = u16::from_be_bytes([h[20], h[21]]);
    let total_len = u16::from_be_bytes([h[16], h[17]]);
    let sent = wire_len.max(frame.len()) - IP;
    let is_plain = [h[12], h[13], h[14]] == [0x08, 0x00, 0x45] && flags_and_offset & 0x3fff == 0;
    if !is_plain || usize::from(total_len) > sent || total_len < 20 {
        return false;
    }
    // Bytes that the IP header leaves.
    let len = u32::from(total_len) - 20;
    let (src_port, dst_port) =
        (u16::from_be_bytes([h[34], h[35]]), u16::from_be_bytes([h[36], h[37]]));
    match h[23] {
        protocol::TCP => {
            let Some(h) = frame.first_chunk::<54>() else { return false };
            let (header_len, flags) = (u32::from(h[46] >> 4) * 4, TcpFlags(h[47]));
            // Options say something in a SYN alone.
            let is_plain = header_len == 20 || !flags.contains(TcpFlags::SYN);
            if !is_plain || header_len < 20 || header_len > len {
                return false;
            }
            headers.transport = Transport::Tcp(Tcp {
                src_port,
                dst_port,
                seq: u32::from_be_bytes([h[38], h[39], h[40], h[41]]),
                ack: u32::from_be_bytes([h[42], h[43], h[44], h[45]]),
                window: u16::from_be_bytes([h[48], h[49]]),
                flags,
                window_scale: None,
                payload_len: len - header_len,
            });
        }
        protocol::UDP => {
            if !(8..=len).contains(&u16::from_be_bytes([h[38], h[39]]).into()) {
                return false;
            }
            headers.transport = Transport::Udp { src_port, dst_port };
        }
        _ => return false,
    }
    let [macs @ .., _, _] = h.first_chunk::<14>().expect("42 bytes are more");
    headers.link = LinkInfo { ethertype: 0x0800, vlan: None, mac: Some(Macs::from_frame(*macs)) };
    (headers.src, headers.dst) =
        super::ip::ipv4_addresses(h[IP..].first_chunk().expect("28 bytes"));
    headers.protocol = h[23];
    headers.fragment = None;
    headers.dont_fragment = flags_and_offset & 0x4000 != 0;
    headers.hop_limit = h[22];
    headers.ip_len = total_len.into();
    headers.ip_offset = IP as u16;
    headers.transport_offset = TRANSPORT as u16;
    true
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
    const PLAIN: [&str; 6] = [
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 A seq=7 ack=9 win=500",
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 S seq=7",
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 PA len=30",
        "tcp 203.0.113.7:40000 -> 10.0.1.10:443 FA df",
        "udp 203.0.113.7:53 -> 10.0.1.10:5353 len=22",
        "udp 203.0.113.7:53 -> 10.0.1.10:5353",
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
            bytes in proptest::collection::vec((12..54usize, any::<u8>()), 0..4),
            bits in proptest::collection::vec((12..54usize, 0..8u8), 0..3),
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
