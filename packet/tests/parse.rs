//! The parser: against packets that were built, against etherparse, against nonsense.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sgwall_packet::{
    FiveTuple, FlowKey, Frame, Headers, LinkType, PacketSpec, ParseError, Side, Transport,
    addresses, build, parse, parse_ip, quoted,
};

const LINKS: [LinkType; 8] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::Ipv4,
    LinkType::Ipv6,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Null,
    LinkType::Loop,
];

fn spec(text: &str) -> PacketSpec {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The bytes of hexadecimal text; spaces do not count.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A line of the notation, with whatever may stand in it.
fn packets() -> impl Strategy<Value = PacketSpec> {
    let v4 = (any::<u32>(), any::<u32>())
        .prop_map(|(a, b)| (IpAddr::V4(a.into()), IpAddr::V4(b.into())));
    let v6 = (any::<u128>(), any::<u128>())
        .prop_map(|(a, b)| (IpAddr::V6(a.into()), IpAddr::V6(b.into())));
    let fragment = proptest::option::of((any::<u16>(), 0..500u16, any::<bool>()));
    let fields =
        (any::<(u16, u16, u32, u32, u16)>(), proptest::option::of(0..15u8), any::<[u8; 4]>());
    let addresses = prop_oneof![v4, v6];
    let number = select(vec![1u8, 6, 6, 6, 17, 17, 58, 47, 50, 51, 132, 253]);
    (addresses, number, fields, fragment, 0..200u16, any::<bool>()).prop_map(
        |((src, dst), number, (numbers, scale, bytes), fragment, len, df)| {
            let (sport, dport, seq, ack, window) = numbers;
            let is_tcp = number == 6;
            let is_icmp = matches!(number, 1 | 58);
            // Fragments that are not the last have a length that is a multiple of eight.
            let fragment = fragment.map(|(id, eighths, more)| (u32::from(id), eighths * 8, more));
            let header = match number {
                6 => 20 + if scale.is_some() { 4 } else { 0 },
                17 | 1 | 58 => 8,
                _ => 0,
            };
            let len = match fragment {
                Some((_, 0, true)) => len - (len + header) % 8 + 8,
                Some((_, _, true)) => len - len % 8 + 8,
                _ => len,
            };
            PacketSpec {
                protocol: number,
                src,
                dst,
                ports: if is_tcp || number == 17 { (sport, dport) } else { (0, 0) },
                flags: sgwall_packet::TcpFlags(if is_tcp { bytes[0] & 0x3f | 1 } else { 0 }),
                seq: if is_tcp { seq } else { 0 },
                ack: if is_tcp { ack } else { 0 },
                window: if is_tcp { window } else { 65_535 },
                window_scale: scale.filter(|_| is_tcp),
                icmp: if is_icmp { (bytes[1], bytes[2]) } else { (8, 0) },
                id: if is_icmp { dport } else { 0 },
                mtu: 0,
                quote: None,
                len,
                dont_fragment: df && src.is_ipv4(),
                hop_limit: bytes[3],
                fragment,
            }
        },
    )
}

fn headers(packet: &PacketSpec) -> Headers {
    let bytes = packet.to_ip();
    parse_ip(&bytes, bytes.len()).unwrap_or_else(|e| panic!("{packet}: {e}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_built_is_parsed(packet in packets()) {
        let bytes = packet.to_ip();
        let h = headers(&packet);
        prop_assert_eq!((h.src, h.dst, h.protocol), (packet.src, packet.dst, packet.protocol));
        prop_assert_eq!(h.ip_len as usize, bytes.len());
        prop_assert_eq!(h.hop_limit, packet.hop_limit);
        prop_assert_eq!(h.dont_fragment, packet.dont_fragment || h.is_ipv6());
        // Neither offset nor more: no fragment (RFC 6946).
        let fragment = packet.fragment.filter(|&(_, offset, more)| offset > 0 || more);
        prop_assert_eq!(
            h.fragment.map(|f| (f.id, f.offset, f.more)),
            fragment.map(|(id, offset, more)| (id, u32::from(offset), more))
        );
        match h.transport {
            Transport::LaterFragment => prop_assert!(fragment.is_some_and(|f| f.1 > 0)),
            Transport::Tcp(tcp) => {
                prop_assert_eq!((tcp.src_port, tcp.dst_port), packet.ports);
                prop_assert_eq!((tcp.seq, tcp.ack, tcp.window), (packet.seq, packet.ack, packet.window));
                prop_assert_eq!(tcp.flags, packet.flags);
                prop_assert_eq!(tcp.payload_len, u32::from(packet.len));
                let is_syn = packet.flags.contains(sgwall_packet::TcpFlags::SYN);
                prop_assert_eq!(tcp.window_scale, packet.window_scale.filter(|_| is_syn));
            }
            Transport::Udp { src_port, dst_port } => {
                prop_assert_eq!((src_port, dst_port), packet.ports);
            }
            Transport::Icmp(icmp) => prop_assert_eq!((icmp.kind, icmp.code), packet.icmp),
            Transport::Other => prop_assert!(!matches!(packet.protocol, 1 | 6 | 17 | 58)),
        }
    }

    /// The notation says everything about a packet: read again, it is the same one.
    #[test]
    fn the_notation_is_read_as_it_is_printed(packet in packets()) {
        prop_assert_eq!(&packet.to_string().parse::<PacketSpec>().unwrap(), &packet);
    }

    /// Both directions of a flow have one key and opposite sides.
    #[test]
    fn a_flow_has_one_key(packet in packets()) {
        let there = headers(&packet);
        let (src, dst) = (packet.dst, packet.src);
        let ports = (packet.ports.1, packet.ports.0);
        let back = headers(&PacketSpec { src, dst, ports, ..packet.clone() });
        let is_query = matches!(there.transport, Transport::Icmp(_));
        if let (false, Some((key, side))) = (is_query, FlowKey::of(&there)) {
            let (key_back, side_back) = FlowKey::of(&back).unwrap();
            prop_assert_eq!(key, key_back);
            let is_loop = (src, ports.0) == (dst, ports.1);
            prop_assert_eq!(side == side_back, is_loop);
            prop_assert_eq!(key.addresses(), if side == Side::Low { [dst, src] } else { [src, dst] });
        }
    }

    /// Whatever the bytes: an answer, which lies within them.
    #[test]
    fn nothing_makes_it_panic(
        packet in packets(),
        link in select(LINKS.to_vec()),
        flips in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        keep in any::<Index>(),
        more in 0..3000usize,
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut frame = match link {
            LinkType::Ethernet => packet.to_frame(),
            LinkType::LinuxSll => [&[0; 14], &[8, 0][..], &packet.to_ip()].concat(),
            LinkType::LinuxSll2 => [&[8, 0][..], &[0; 18], &packet.to_ip()].concat(),
            LinkType::Null | LinkType::Loop => [&[0, 0, 0, 2][..], &packet.to_ip()].concat(),
            _ => packet.to_ip(),
        };
        for (index, bits) in flips {
            let at = index.index(frame.len());
            frame[at] ^= bits;
        }
        frame.truncate(keep.index(frame.len() + 1));
        for frame in [&frame, &noise] {
            let _ = addresses(link, frame);
            match parse(link, frame, frame.len() + more) {
                Ok(Frame::Ip(h)) => {
                    prop_assert!(usize::from(h.ip_offset) <= frame.len());
                    prop_assert!(usize::from(h.transport_offset) <= frame.len() + more);
                    prop_assert!(h.ip_len as usize <= frame.len() + more);
                    let _ = (FlowKey::of(&h), FiveTuple::from(&h).to_string(), h.selector());
                    let _ = quoted(&h, frame);
                }
                Ok(_) => {}
                Err(error) => {
                    prop_assert!(more > 0 || !error.is_truncated(), "{}", error);
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }

    /// What etherparse reads, we read the same; what it refuses, we need not.
    #[test]
    fn etherparse_agrees(packet in packets(), flips in proptest::collection::vec((any::<Index>(), 0..8u8), 0..3)) {
        let mut frame = packet.to_frame();
        for (index, bit) in flips {
            let at = index.index(frame.len());
            frame[at] ^= 1 << bit;
        }
        agree_with_etherparse(&frame)?;
    }
}

fn agree_with_etherparse(frame: &[u8]) -> Result<(), TestCaseError> {
    let Ok(theirs) = SlicedPacket::from_ethernet(frame) else { return Ok(()) };
    let Some(net) = &theirs.net else { return Ok(()) };
    let ours = match parse(LinkType::Ethernet, frame, frame.len()) {
        Ok(Frame::Ip(ours)) => ours,
        Ok(_) => {
            prop_assert!(!net.is_ip(), "{:?} is IP", theirs);
            return Ok(());
        }
        // Lengths that etherparse takes as they come: of UDP, of fragments, of extension chains.
        Err(
            ParseError::BadField { .. }
            | ParseError::TinyFragment { .. }
            | ParseError::ExtensionChain { .. },
        ) => return Ok(()),
        Err(error) => {
            prop_assert!(false, "etherparse reads it, we say: {}", error);
            return Ok(());
        }
    };
    let (src, dst): (IpAddr, IpAddr) = match net {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => return Ok(()),
    };
    prop_assert_eq!((ours.src, ours.dst), (src, dst));
    let payload = net.ip_payload_ref().expect("an IP packet");
    // AH is a protocol to us, an extension to etherparse.
    if ours.protocol == 51 {
        return Ok(());
    }
    if ours.transport != Transport::LaterFragment {
        prop_assert_eq!(ours.protocol, payload.ip_number.0);
    }
    match (&theirs.transport, ours.transport) {
        (Some(TransportSlice::Tcp(t)), Transport::Tcp(o)) => {
            prop_assert_eq!((t.source_port(), t.destination_port()), (o.src_port, o.dst_port));
            prop_assert_eq!((t.sequence_number(), t.acknowledgment_number()), (o.seq, o.ack));
            prop_assert_eq!((t.syn(), t.window_size()), (o.flags.0 & 2 != 0, o.window));
        }
        (Some(TransportSlice::Udp(t)), Transport::Udp { src_port, dst_port }) => {
            prop_assert_eq!((t.source_port(), t.destination_port()), (src_port, dst_port));
        }
        (Some(TransportSlice::Icmpv4(t)), Transport::Icmp(o)) => {
            prop_assert_eq!((t.type_u8(), t.code_u8()), (o.kind, o.code));
        }
        (Some(TransportSlice::Icmpv6(t)), Transport::Icmp(o)) => {
            prop_assert_eq!((t.type_u8(), t.code_u8()), (o.kind, o.code));
        }
        // IGMP is a protocol without ports to us.
        (Some(TransportSlice::Igmp(_)), Transport::Other) => {}
        // Of fragments etherparse reads no transport header, of the first we do.
        (None, _) => {
            prop_assert!(payload.fragmented || !matches!(payload.ip_number.0, 1 | 6 | 17 | 58))
        }
        (theirs, ours) => prop_assert!(false, "{:?} against {:?}", theirs, ours),
    }
    Ok(())
}

/// Each case: what is wrong with an Ethernet frame, and what is said of it.
#[test]
fn what_is_wrong_is_said() {
    // An Ethernet header, an IPv4 header to UDP, a UDP header; all in order.
    const ETHERNET: &str = "020000000002 020000000001 0800";
    const IPV4: &str = "45 00 001c 0001 0000 40 11 0000 cb007101 0a00010a";
    const UDP: &str = "0fa0 0035 0008 0000";
    let cases: &[(&str, usize, &str)] = &[
        (
            "020000000002 0200000000",
            0,
            "link-layer header at byte 0 needs 14 bytes, the packet has 11",
        ),
        (
            "020000000002 020000000001 8100 00",
            0,
            "VLAN tag at byte 14 needs 4 bytes, the packet has 1",
        ),
        (
            "020000000002 020000000001 0800",
            0,
            "IPv4 header at byte 14 needs 1 bytes, the packet has 0",
        ),
        (
            "020000000002 020000000001 0800 4500",
            0,
            "IPv4 header at byte 14 needs 20 bytes, the packet has 2",
        ),
        ("020000000002 020000000001 0800 65", 0, "IPv4 header at byte 14: version is 6"),
        (
            "020000000002 020000000001 86dd 60",
            0,
            "IPv6 header at byte 14 needs 40 bytes, the packet has 1",
        ),
        (
            "E I:44 00 001c 0001 0000 40 11 0000 cb007101 0a00010a U",
            0,
            "IPv4 header at byte 14: header length is 16",
        ),
        (
            "E I:46 00 0014 0001 0000 40 11 0000 cb007101 0a00010a",
            0,
            "IPv4 header at byte 14: total length is 20",
        ),
        (
            "E I:45 00 001d 0001 0000 40 11 0000 cb007101 0a00010a U",
            0,
            "IPv4 header at byte 14: total length is 29",
        ),
        (
            "E I:45 00 001b 0001 0000 40 11 0000 cb007101 0a00010a U",
            0,
            "UDP header at byte 34 needs 8 bytes, the packet has 7",
        ),
        (
            "E I:45 00 001c 0001 0000 40 06 0000 cb007101 0a00010a U",
            0,
            "TCP header at byte 34 needs 20 bytes, the packet has 8",
        ),
        (
            "E I:45 00 0017 0001 0000 40 01 0000 cb007101 0a00010a 080000",
            0,
            "ICMP header at byte 34 needs 4 bytes, the packet has 3",
        ),
        (
            "E I:45 00 0018 0001 0000 40 01 0000 cb007101 0a00010a 08000000",
            0,
            "ICMP header at byte 34 needs 6 bytes, the packet has 4",
        ),
        (
            "E I:45 00 001c 0001 2000 40 06 0000 cb007101 0a00010a U",
            0,
            "TCP header at byte 34 needs 20 bytes, the first fragment has 8 of it",
        ),
        (
            "E I:45 00 001b 0001 2000 40 11 0000 cb007101 0a00010a 0fa0003500080000",
            0,
            "IPv4 header at byte 14: length of a fragment that is not the last is 7",
        ),
        (
            "E I:45 00 001c 0001 1fff 40 11 0000 cb007101 0a00010a U",
            0,
            "IPv4 header at byte 14: fragment end is 65536",
        ),
        (
            "E I:45 00 001c 0001 0000 40 11 0000 cb007101 0a00010a 0fa0003500070000",
            0,
            "UDP header at byte 34: length is 7",
        ),
        (
            "E I:45 00 001c 0001 0000 40 11 0000 cb007101 0a00010a 0fa0003500090000",
            0,
            "UDP header at byte 34: length is 9",
        ),
        // The capture is to blame where bytes were on the wire.
        (
            "020000000002 0200000000",
            49,
            "the capture cut the link-layer header at byte 0: needs 14 bytes, captured 11",
        ),
        (
            "E I:45 00 0030 0001 0000 40 06 0000 cb007101 0a00010a U",
            20,
            "the capture cut the TCP header at byte 34: needs 20 bytes, captured 8",
        ),
    ];
    for (text, beyond, expected) in cases {
        let text = text.replace("E ", ETHERNET).replace("I:", "").replace('U', UDP);
        let frame = hex(&text);
        let error = parse(LinkType::Ethernet, &frame, frame.len() + beyond).unwrap_err();
        assert_eq!(error.to_string(), *expected, "{text}");
        assert_eq!(error.is_truncated(), *beyond > 0);
    }
    let good = hex(&format!("{ETHERNET} {IPV4} {UDP}"));
    assert!(matches!(parse(LinkType::Ethernet, &good, good.len()), Ok(Frame::Ip(_))));
    // Cut off payload is no error.
    assert!(matches!(parse(LinkType::Ethernet, &good, good.len() + 100), Ok(Frame::Ip(_))));
}

/// TCP's data offset, and the chain of IPv6 extension headers (SEMANTICS 2.7).
#[test]
fn tcp_offsets_and_extension_chains() {
    let mut packet = spec("tcp 10.0.0.1:1 -> 10.0.0.2:2 S").to_ip();
    for (offset, expected) in [
        (0x40, "TCP header at byte 20: data offset is 16"),
        (0x60, "TCP header at byte 20: data offset is 24"),
    ] {
        packet[32] = offset;
        assert_eq!(parse_ip(&packet, packet.len()).unwrap_err().to_string(), expected);
    }
    // A first fragment may end among the options, but not before them (RFC 1858, RFC 3128).
    let mut first = spec("tcp 10.0.0.1:1 -> 10.0.0.2:2 S wscale=7 frag=1:0+").to_ip();
    first[32] = 0xa0;
    let Transport::Tcp(tcp) = parse_ip(&first, first.len()).unwrap().transport else { panic!() };
    assert_eq!((tcp.dst_port, tcp.payload_len, tcp.window_scale), (2, 0, Some(7)));

    let chain = |headers: usize, words: u8| {
        let udp = spec("udp [2001:db8::1]:1 -> [2001:db8::2]:2").to_ip();
        let mut packet = udp[..40].to_vec();
        for n in 0..headers {
            let next = if n + 1 == headers { 17 } else { 60 };
            packet.extend([next, words]);
            packet.resize(packet.len() + 6 + 8 * usize::from(words), 0);
        }
        packet.extend(&udp[40..]);
        packet[6] = 60;
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        parse_ip(&packet, packet.len())
    };
    assert_eq!(chain(8, 0).unwrap().protocol, 17);
    assert_eq!(chain(8, 3).unwrap().dst_port(), 2);
    assert_eq!(
        chain(9, 0).unwrap_err().to_string(),
        "IPv6 header chain of 9 extension headers in 72 bytes (limit 8 and 256)"
    );
    assert_eq!(
        chain(1, 32).unwrap_err().to_string(),
        "IPv6 header chain of 1 extension headers in 264 bytes (limit 8 and 256)"
    );
    // AH is a protocol, not skipped.
    let ah = spec("ah 2001:db8::1 -> 2001:db8::2 len=24");
    assert_eq!(headers(&ah).protocol, 51);
}

#[test]
fn every_link_type_leads_to_the_packet() {
    let v4 = spec("udp 10.0.0.1:1 -> 10.0.0.2:2").to_ip();
    let v6 = spec("udp [2001:db8::1]:1 -> [2001:db8::2]:2").to_ip();
    let cases: &[(LinkType, &str, &[u8], Option<u16>)] = &[
        (LinkType::Ethernet, "020000000002 020000000001 0800", &v4, None),
        (LinkType::Ethernet, "020000000002 020000000001 8100 6064 86dd", &v6, Some(0x64)),
        (LinkType::Ethernet, "020000000002 020000000001 88a8 0065 8100 0066 0800", &v4, Some(0x65)),
        (LinkType::RawIp, "", &v4, None),
        (LinkType::RawIp, "", &v6, None),
        (LinkType::Ipv4, "", &v4, None),
        (LinkType::Ipv6, "", &v6, None),
        (LinkType::LinuxSll, "0000 0001 0006 020000000001 0000 0800", &v4, None),
        (LinkType::LinuxSll2, "86dd 0000 00000002 0001 00 06 020000000001 0000", &v6, None),
        (LinkType::Null, "02000000", &v4, None),
        (LinkType::Null, "0000001e", &v6, None),
        (LinkType::Loop, "00000018", &v6, None),
    ];
    for (link, head, packet, vlan) in cases {
        let frame = [&hex(head)[..], packet].concat();
        match parse(*link, &frame, frame.len()) {
            Ok(Frame::Ip(h)) => {
                assert_eq!((h.src_port(), h.dst_port()), (1, 2));
                assert_eq!(usize::from(h.ip_offset), hex(head).len());
                assert_eq!(h.link.vlan, *vlan);
            }
            other => panic!("{link:?} {head}: {other:?}"),
        }
        assert!(addresses(*link, &frame).is_some());
    }
    let arp = hex("ffffffffffff 020000000001 0806 0001");
    assert!(matches!(parse(LinkType::Ethernet, &arp, arp.len()), Ok(Frame::Arp(_))));
    let lldp = hex("0180c200000e 020000000001 88cc 0001");
    assert!(matches!(parse(LinkType::Ethernet, &lldp, lldp.len()), Ok(Frame::Other(_))));
    assert!(parse(LinkType::Ipv4, &v6, v6.len()).is_err());
}

/// RFC 2675, and what segmentation offload leaves of large frames.
#[test]
fn lengths_of_zero_reach_as_far_as_the_bytes() {
    let mut v4 = spec("udp 10.0.0.1:1 -> 10.0.0.2:2 len=100").to_ip();
    v4[2..4].fill(0);
    assert_eq!(parse_ip(&v4, v4.len()).unwrap().ip_len as usize, v4.len());
    let mut v6 = spec("tcp [2001:db8::1]:1 -> [2001:db8::2]:2 A len=100").to_ip();
    v6[4..6].fill(0);
    assert_eq!(parse_ip(&v6, v6.len()).unwrap().ip_len as usize, v6.len());

    // A jumbogram says how long it is, and is longer than a payload length can say.
    let jumbogram = |claimed: u32, payload: usize| {
        let mut packet = v6[..40].to_vec();
        packet[6] = 0;
        packet.extend([17, 0, 0xc2, 4]);
        packet.extend(claimed.to_be_bytes());
        packet.extend([0, 1, 0, 2, 0, 0, 0, 0]);
        packet.resize(48 + payload, 0);
        parse_ip(&packet, packet.len()).map(|headers| headers.ip_len)
    };
    assert_eq!(jumbogram(65_536, 65_600), Ok(40 + 65_536));
    for (claimed, payload) in [(0, 100), (65_535, 65_600), (65_536, 65_527)] {
        let error = jumbogram(claimed, payload).unwrap_err().to_string();
        let expected = format!("IPv6 extension header at byte 40: jumbo length is {claimed}");
        assert_eq!(error, expected);
    }
}

#[test]
fn icmp_errors_quote_a_packet() {
    let error = |text: &str| {
        let frame = spec(text).to_frame();
        let Ok(Frame::Ip(h)) = parse(LinkType::Ethernet, &frame, frame.len()) else { panic!() };
        quoted(&h, &frame).map(|q| FiveTuple::from(&q).to_string())
    };
    assert_eq!(
        error("icmp 10.0.0.9 -> 10.0.0.1 3/4 quote=\"tcp 10.0.0.1:5 -> 10.0.0.2:80 A\""),
        Some("10.0.0.1:5 -> 10.0.0.2:80".into())
    );
    assert_eq!(
        error(
            "icmpv6 2001:db8::9 -> 2001:db8::1 2/0 quote=\"udp [2001:db8::1]:5 -> [2001:db8::2]:53\""
        ),
        Some("[2001:db8::1]:5 -> [2001:db8::2]:53".into())
    );
    assert_eq!(error("icmp 10.0.0.9 -> 10.0.0.1 8/0 id=1 len=40"), None);
    assert_eq!(error("icmp 10.0.0.9 -> 10.0.0.1 3/4 len=20"), None);
    assert_eq!(
        error(
            "icmp 10.0.0.9 -> 10.0.0.1 3/4 quote=\"udp 10.0.0.1:5 -> 10.0.0.2:80 frag=1:80 len=8\""
        ),
        None
    );
}

#[test]
fn checksums_are_right() {
    for text in [
        "tcp 10.0.0.1:1 -> 10.0.0.2:2 S len=3",
        "udp 10.0.0.1:1 -> 10.0.0.2:2 len=8",
        "icmp 10.0.0.1 -> 10.0.0.2 8/0 id=4 len=9",
        "tcp [2001:db8::1]:1 -> [2001:db8::2]:2 S",
        "udp [2001:db8::1]:1 -> [2001:db8::2]:2 len=1",
        "icmpv6 2001:db8::1 -> 2001:db8::2 128/0 id=4",
    ] {
        let packet = spec(text);
        let bytes = packet.to_ip();
        let start = if packet.src.is_ipv4() { 20 } else { 40 };
        if start == 20 {
            assert_eq!(build::checksum(&[&bytes[..20]]), 0, "{text}");
        }
        let sum = match packet.protocol {
            1 => build::checksum(&[&bytes[start..]]),
            number => build::transport_checksum(packet.src, packet.dst, number, &bytes[start..]),
        };
        assert_eq!(sum, 0, "{text}");
    }
}
