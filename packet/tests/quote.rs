//! Packets quoted by ICMP errors (RFC 792, RFC 4443, RFC 4884): whole, cut short, and false.

use std::net::IpAddr;

use sgwall_packet::build::{self, IpFields};
use sgwall_packet::{
    FiveTuple, FlowKey, Headers, PacketSpec, Side, Transport, parse_ip, quoted, quoted_of_receiver,
};

fn bytes(packet: &str) -> Vec<u8> {
    packet.parse::<PacketSpec>().unwrap_or_else(|e| panic!("{packet}: {e}")).to_ip()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An error of type and code from a router to the quoted packet's sender.
fn error(message: (u8, u8), quote: &[u8]) -> Vec<u8> {
    let (src, dst, proto) = match quote.first().map(|b| b >> 4) {
        Some(6) => (ip("2001:db8::9"), ip("2001:db8::1"), 58),
        _ => (ip("10.0.0.9"), ip("10.0.0.1"), 1),
    };
    let message = build::icmp(src, dst, proto, message, [0; 4], quote);
    build::ip(src, dst, proto, IpFields::default(), &message)
}

fn read(frame: &[u8]) -> Option<Headers> {
    quoted(&parse_ip(frame, frame.len()).unwrap(), frame)
}

/// What an error of type 3 (1 for IPv6) says it is about.
fn about(quote: &[u8]) -> Option<String> {
    let kind = if quote.first().is_some_and(|b| b >> 4 == 6) { 1 } else { 3 };
    read(&error((kind, 0), quote)).map(|h| FiveTuple::from(&h).to_string())
}

const TCP: &str = "tcp 10.0.0.1:4000 -> 10.0.0.2:80 A seq=7 len=40";
const TCP_TUPLE: &str = "10.0.0.1:4000 -> 10.0.0.2:80";
const UDP6: &str = "udp [2001:db8::1]:4000 -> [2001:db8::2]:53 len=40";
const UDP6_TUPLE: &str = "[2001:db8::1]:4000 -> [2001:db8::2]:53";

/// SEMANTICS 10.3: eight bytes of transport header, and no fewer.
#[test]
fn eight_bytes_of_the_transport_header_are_enough() {
    for (packet, header, tuple) in [(TCP, 20, TCP_TUPLE), (UDP6, 40, UDP6_TUPLE)] {
        let packet = bytes(packet);
        for len in 0..packet.len() {
            let expected = (len >= header + 8).then(|| tuple.to_owned());
            assert_eq!(about(&packet[..len]), expected, "{len} bytes of {tuple}");
        }
    }
    // Of protocols without ports too.
    let gre = bytes("gre 10.0.0.1 -> 10.0.0.2 len=20");
    assert_eq!(about(&gre[..27]), None);
    assert_eq!(about(&gre[..28]).as_deref(), Some("10.0.0.1 -> 10.0.0.2"));
    assert_eq!(about(&bytes("gre 10.0.0.1 -> 10.0.0.2 len=7")), None);
}

/// What the quote lacks reads as zero, and the sequence number is there.
#[test]
fn a_short_quote_knows_ports_and_sequence_number() {
    let packet = bytes(TCP);
    let headers = read(&error((3, 4), &packet[..28])).unwrap();
    let Transport::Tcp(tcp) = headers.transport else { panic!("{headers:?}") };
    assert_eq!((tcp.src_port, tcp.dst_port, tcp.seq), (4000, 80, 7));
    assert_eq!((tcp.flags.0, tcp.window), (0, 0));
}

#[test]
fn ipv4_options_in_the_quote() {
    let mut packet = bytes(TCP);
    for words in 1..=10 {
        // No-operation, before what was there.
        packet.splice(20..20, [1; 4]);
        packet[0] = 0x45 + words;
        let total = packet.len() as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        let header = 20 + usize::from(words) * 4;
        assert_eq!(about(&packet).as_deref(), Some(TCP_TUPLE), "{words} words");
        assert_eq!(about(&packet[..header + 8]).as_deref(), Some(TCP_TUPLE), "{words} words");
        assert_eq!(about(&packet[..header + 7]), None, "{words} words");
    }
}

/// Hop-by-Hop, Destination Options, Routing and an atomic Fragment header, one after the other.
#[test]
fn ipv6_extension_headers_in_the_quote() {
    let mut packet = bytes(UDP6);
    let mut next = 17;
    let mut extensions = Vec::new();
    for kind in [44, 43, 60, 0] {
        let header = match kind {
            44 => [next, 0, 0, 0, 0, 0, 0, 9],
            _ => [next, 0, 1, 4, 0, 0, 0, 0],
        };
        extensions.splice(0..0, header);
        next = kind;
    }
    packet.splice(40..40, extensions.iter().copied());
    packet[6] = next;
    let payload = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    assert_eq!(about(&packet).as_deref(), Some(UDP6_TUPLE));
    assert_eq!(about(&packet[..40 + 32 + 8]).as_deref(), Some(UDP6_TUPLE));
    for len in 0..40 + 32 + 8 {
        assert_eq!(about(&packet[..len]), None, "{len} bytes");
    }
}

#[test]
fn fragments_in_the_quote() {
    for (first, later, tuple) in [
        (
            "udp 10.0.0.1:4000 -> 10.0.0.2:53 len=64 frag=5:0+",
            "udp 10.0.0.1:4000 -> 10.0.0.2:53 len=64 frag=5:72+",
            "10.0.0.1:4000 -> 10.0.0.2:53",
        ),
        (
            "udp [2001:db8::1]:4000 -> [2001:db8::2]:53 len=64 frag=5:0+",
            "udp [2001:db8::1]:4000 -> [2001:db8::2]:53 len=64 frag=5:72+",
            UDP6_TUPLE,
        ),
    ] {
        assert_eq!(about(&bytes(first)).as_deref(), Some(tuple));
        assert_eq!(about(&bytes(later)), None);
    }
}

/// Once, a quoted fragment whose length field is zero was taken to reach to the end of all
/// memory, and adding its offset to that overflowed.
#[test]
fn a_quoted_fragment_without_a_length() {
    for offset in [0_u16, 1, 0x1fff] {
        for more in [0, 0x2000] {
            let mut packet = bytes("udp 10.0.0.1:4000 -> 10.0.0.2:53 len=64");
            packet[2..4].fill(0);
            packet[6..8].copy_from_slice(&(more | offset).to_be_bytes());
            let is_whole = offset == 0 && more == 0;
            assert_eq!(about(&packet).is_some(), is_whole, "offset {offset}, more {more}");
        }
    }
    let mut packet = bytes("udp [2001:db8::1]:4000 -> [2001:db8::2]:53 len=64 frag=5:65528+");
    packet[4..6].fill(0);
    assert_eq!(about(&packet), None);
    // The same of a packet that is there, of which a capture says that it was four gigabytes.
    assert!(parse_ip(&packet, u32::MAX as usize).is_err());
}

/// RFC 4884: the quote is padded with zeros to 128 bytes, and other things follow it.
#[test]
fn extensions_after_the_quote_are_not_part_of_it() {
    let mut quote = bytes("gre 10.0.0.1 -> 10.0.0.2 len=4");
    quote.resize(128, 0);
    quote.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 0]);
    assert_eq!(about(&quote), None, "four bytes after the header, whatever follows");
    let mut quote = bytes("udp 10.0.0.1:4000 -> 10.0.0.2:53");
    quote.resize(128, 0);
    assert_eq!(about(&quote).as_deref(), Some("10.0.0.1:4000 -> 10.0.0.2:53"));
}

/// The error itself may be a first fragment, or be padded by its link: the quote ends where the
/// IP packet does.
#[test]
fn the_quote_ends_with_the_error() {
    let packet = bytes(TCP);
    let mut frame = error((3, 1), &packet[..27]);
    frame.extend([0; 20]);
    let headers = parse_ip(&frame, frame.len()).unwrap();
    assert_eq!(quoted(&headers, &frame), None);
    // A capture that was cut ends it as well.
    let frame = error((3, 1), &packet[..28]);
    let headers = parse_ip(&frame, frame.len()).unwrap();
    assert!(quoted(&headers, &frame).is_some());
    assert_eq!(quoted(&headers, &frame[..frame.len() - 1]), None);
    assert_eq!(quoted(&headers, &frame[..20]), None);
}

/// Which messages quote a packet: IPv4 3, 4, 5, 11 and 12, IPv6 1 to 4, and no others.
#[test]
fn only_errors_quote() {
    let (v4, v6) = (bytes(TCP), bytes(UDP6));
    for kind in 0..=255 {
        let is_v4 = matches!(kind, 3 | 4 | 5 | 11 | 12);
        assert_eq!(read(&error((kind, 0), &v4)).is_some(), is_v4, "ICMP {kind}");
        let is_v6 = matches!(kind, 1..=4);
        assert_eq!(read(&error((kind, 0), &v6)).is_some(), is_v6, "ICMPv6 {kind}");
        let of_receiver = |quote| {
            let frame = error((kind, 0), quote);
            quoted_of_receiver(&parse_ip(&frame, frame.len()).unwrap(), &frame).is_some()
        };
        assert_eq!(of_receiver(&v4), is_v4 && kind != 5, "ICMP {kind}");
        assert_eq!(of_receiver(&v6), is_v6, "ICMPv6 {kind}");
    }
}

/// A quoted query is known by its identifier; a quoted error is no flow.
#[test]
fn queries_and_errors_in_the_quote() {
    let key = |packet: &str| FlowKey::of(&read(&error((3, 1), &bytes(packet))).unwrap());
    let request = "icmp 10.0.0.1 -> 10.0.0.2 8/0 id=77";
    let known = FlowKey::of(&parse_ip(&bytes(request), 28).unwrap()).unwrap();
    assert_eq!(key(request), Some(known));
    assert_eq!(known.1, Side::Low);
    // The answer that the other end could not deliver.
    let reply = "icmp 10.0.0.2 -> 10.0.0.1 0/0 id=77";
    assert_eq!(key(reply), Some((known.0, Side::High)));
    let nested = error((3, 1), &bytes(TCP));
    let headers = read(&error((11, 0), &nested)).unwrap();
    assert_eq!(FlowKey::of(&headers), None);
}

/// An error goes to the sender of what it is about. Once, any quote of a packet of a tracked flow
/// made an error related, whoever it was sent to.
#[test]
fn an_error_about_anothers_packet_is_a_lie() {
    let of_receiver =
        |frame: &[u8]| quoted_of_receiver(&parse_ip(frame, frame.len()).unwrap(), frame).is_some();
    assert!(of_receiver(&error((3, 1), &bytes(TCP))));
    assert!(!of_receiver(&error((3, 1), &bytes("tcp 10.0.0.2:80 -> 10.0.0.1:4000 A"))));
    assert!(!of_receiver(&error((3, 1), &bytes("tcp 10.0.0.3:80 -> 10.0.0.2:4000 A"))));
    // ICMPv6 in an IPv4 packet, and the reverse: no host looks at it.
    let (src, dst) = (ip("10.0.0.9"), ip("10.0.0.1"));
    let message = build::icmp(src, dst, 58, (1, 0), [0; 4], &bytes(TCP));
    assert!(!of_receiver(&build::ip(src, dst, 58, IpFields::default(), &message)));
    let (src, dst) = (ip("2001:db8::9"), ip("2001:db8::1"));
    let message = build::icmp(src, dst, 1, (3, 0), [0; 4], &bytes(UDP6));
    assert!(!of_receiver(&build::ip(src, dst, 1, IpFields::default(), &message)));
}
