//! Packets that do not fit: fragments that are whole together, and answers that are right.

use std::net::IpAddr;

use etherparse::{Ipv4Slice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use sgwall_packet::{
    FiveTuple, Headers, PacketSpec, build, fragment_ipv4, parse_ip, quoted, too_big,
};

fn packet(line: &str) -> Vec<u8> {
    line.parse::<PacketSpec>().unwrap_or_else(|e| panic!("{line}: {e}")).to_ip()
}

fn headers(packet: &[u8]) -> Headers {
    parse_ip(packet, packet.len()).unwrap()
}

/// A packet with options of both kinds: record route (not copied), a security option (copied), a
/// no-operation and the end.
fn with_options(len: u16, fragment: &str) -> Vec<u8> {
    let plain = packet(&format!("udp 10.0.0.1:1 -> 10.0.0.2:2 len={len} id=7 {fragment}"));
    let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x82, 4, 0xaa, 0xbb];
    let mut packet = [&plain[..20], &options, &plain[20..]].concat();
    packet[0] = 0x48;
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[10..12].fill(0);
    let sum = build::checksum(&[&packet[..32]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

proptest! {
    #[test]
    fn fragments_are_the_packet_in_pieces(
        len in 0..9000u16,
        mtu in 68..2000usize,
        options in any::<bool>(),
        fragment in proptest::option::of((0..400u16, any::<bool>())),
    ) {
        let fragment = match fragment {
            Some((eighths, more)) => format!("frag=9:{}{}", eighths * 8, if more { "+" } else { "" }),
            None => String::new(),
        };
        // Fragments that are not the last have a length that is a multiple of eight.
        let len = if fragment.is_empty() { len } else { len / 8 * 8 };
        let whole = match options {
            true => with_options(len, &fragment),
            false => packet(&format!("udp 10.0.0.1:1 -> 10.0.0.2:2 len={len} {fragment}")),
        };
        let before = headers(&whole);
        let pieces = fragment_ipv4(&whole, mtu);
        if whole.len() <= mtu {
            prop_assert_eq!(pieces, vec![whole]);
            return Ok(());
        }
        let mut data: Vec<u8> = Vec::new();
        let first = before.fragment.map_or(0, |f| f.offset);
        for (n, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= mtu);
            let h = headers(piece);
            let f = h.fragment.expect("a fragment");
            let header_len = usize::from(h.transport_offset);
            prop_assert_eq!(build::checksum(&[&piece[..header_len]]), 0);
            prop_assert_eq!(header_len, match (options, n) { (true, 0) => 32, (true, _) => 24, _ => 20 });
            prop_assert_eq!(f.offset, first + data.len() as u32);
            let is_last = n + 1 == pieces.len();
            prop_assert_eq!(f.more, !is_last || before.fragment.is_some_and(|f| f.more));
            prop_assert_eq!((h.src, h.dst, h.protocol), (before.src, before.dst, before.protocol));
            prop_assert_eq!(piece[4..6].to_vec(), whole[4..6].to_vec(), "the identification");
            // Another reader of IPv4 takes it for a packet too.
            prop_assert!(Ipv4Slice::from_slice(piece).is_ok());
            data.extend(&piece[header_len..]);
        }
        prop_assert_eq!(&data, &whole[usize::from(before.transport_offset)..]);
    }

    #[test]
    fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), mtu in 0..300usize) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = 0x40 | *first & 15;
        }
        let _ = fragment_ipv4(&bytes, mtu);
        if let Ok(h) = parse_ip(&bytes, bytes.len() + 10) {
            let _ = too_big(&h, &bytes, "10.0.0.1".parse().unwrap(), 1500);
        }
    }
}

/// SEMANTICS case 48: 1600 bytes over a path of 1500.
#[test]
fn sixteen_hundred_bytes_become_fifteen_hundred_and_the_rest() {
    let pieces = fragment_ipv4(&packet("udp 10.0.0.1:1 -> 10.0.0.2:2 len=1572"), 1500);
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1500, 120]);
}

#[test]
fn the_answer_names_the_mtu_and_quotes_the_packet() {
    let router: IpAddr = "10.0.1.1".parse().unwrap();
    let big = packet("tcp 10.0.1.10:4000 -> 203.0.113.1:443 A len=1560 df");
    let error = too_big(&headers(&big), &big, router, 1500).unwrap();
    assert_eq!(error.len(), 576);
    let h = headers(&error);
    assert_eq!(FiveTuple::from(&h).to_string(), "10.0.1.1 -> 10.0.1.10");
    assert_eq!(error[20..22], [3, 4]);
    assert_eq!(error[26..28], 1500u16.to_be_bytes());
    assert_eq!(build::checksum(&[&error[20..]]), 0);
    assert_eq!(build::checksum(&[&error[..20]]), 0);
    assert_eq!(error[28..], big[..548]);
    let inner = quoted(&h, &error).unwrap();
    assert_eq!(FiveTuple::from(&inner).to_string(), "10.0.1.10:4000 -> 203.0.113.1:443");
    let theirs = SlicedPacket::from_ip(&error).unwrap();
    assert!(matches!(theirs.transport, Some(TransportSlice::Icmpv4(i)) if i.type_u8() == 3));

    let router: IpAddr = "2001:db8:0:1::1".parse().unwrap();
    let big = packet("tcp [2001:db8:0:1::10]:4000 -> [2001:db8:ffff::1]:443 A len=1540");
    let error = too_big(&headers(&big), &big, router, 1500).unwrap();
    assert_eq!(error.len(), 1280);
    assert_eq!(error[40..42], [2, 0]);
    assert_eq!(error[44..48], 1500u32.to_be_bytes());
    let h = headers(&error);
    assert_eq!(build::transport_checksum(h.src, h.dst, 58, &error[40..]), 0);
    assert_eq!(
        FiveTuple::from(&quoted(&h, &error).unwrap()).to_string(),
        "[2001:db8:0:1::10]:4000 -> [2001:db8:ffff::1]:443"
    );
}

/// SEMANTICS 12.7.
#[test]
fn some_packets_are_never_answered() {
    let answer = |line: &str| {
        let big = packet(line);
        let router = if line.contains("2001") { "2001:db8::1" } else { "10.0.1.1" };
        too_big(&headers(&big), &big, router.parse().unwrap(), 1500).is_some()
    };
    assert!(answer("icmp 10.0.1.10 -> 203.0.113.1 8/0 id=1 len=1600 df"));
    assert!(answer("udp 10.0.1.10:1 -> 203.0.113.1:2 len=1600 df frag=1:0+"));
    for line in [
        "icmp 10.0.1.10 -> 203.0.113.1 3/1 len=1600 df",
        "icmp 10.0.1.10 -> 203.0.113.1 11/0 len=1600 df",
        "icmpv6 2001:db8::10 -> 2001:db8:1::1 1/0 len=1600",
        "udp 10.0.1.10:1 -> 203.0.113.1:2 len=1600 df frag=1:80+",
        "udp 0.0.0.0:1 -> 203.0.113.1:2 len=1600 df",
        "udp 127.0.0.1:1 -> 203.0.113.1:2 len=1600 df",
        "udp 224.0.0.1:1 -> 203.0.113.1:2 len=1600 df",
        "udp 255.255.255.255:1 -> 203.0.113.1:2 len=1600 df",
        "udp 10.0.1.10:1 -> 224.0.0.1:2 len=1600 df",
    ] {
        assert!(!answer(line), "{line}");
    }
}
