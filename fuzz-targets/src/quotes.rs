//! Packets inside packets: what ICMP errors quote, the router's own errors, and addresses that are
//! rewritten in both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sgwall_packet::{
    Frame, Headers, LinkType, Readdress, Transport, build, fragment_ipv4, is_icmp_error, parse,
    parse_ip, protocol, quoted, quoted_of_receiver, too_big,
};

use crate::source::Source;

const ROUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
const TYPES: [(u8, u8); 10] =
    [(3, 4), (3, 1), (4, 0), (5, 1), (11, 0), (12, 0), (1, 4), (2, 0), (8, 0), (0, 0)];

/// Wraps a packet into an ICMP error, cut anywhere. The input: family, type, where the quote ends
/// (two bytes), an MTU (two bytes), the new addresses (eight bytes), the quoted packet.
pub fn quotes(data: &[u8]) {
    let mut source = Source::new(data);
    let is_v6 = source.one_in(2);
    let kind = source.pick(&TYPES);
    let end = usize::from(source.word());
    let mtu = source.word();
    let readdress =
        Readdress { src: Some(source.array().into()), dst: Some(source.array().into()) };
    let inner = source.rest();
    let whole = parse_ip(inner, inner.len()).ok();

    let quote = &inner[..end.min(inner.len())];
    let router = ROUTER[usize::from(is_v6)];
    let receiver = whole.map(|h| h.src).filter(|src| src.is_ipv6() == is_v6).unwrap_or(router);
    let number = if is_v6 { protocol::ICMPV6 } else { protocol::ICMP };
    let message = build::icmp(router, receiver, number, kind, [0; 4], quote);
    let error = build::ip(router, receiver, number, build::IpFields::default(), &message);
    let headers = parse_ip(&error, error.len()).expect("what was built is read");
    let found = quoted(&headers, &error);
    if !is_icmp_error(number, kind.0) {
        assert_eq!(found, None, "no error quotes anything");
    }
    if let Some(found) = found {
        check_quote(&found, quote, whole.as_ref());
        if let Some(possible) = quoted_of_receiver(&headers, &error) {
            assert_eq!((possible, found.src), (found, headers.dst));
        }
    } else if let Some(whole) = whole
        && is_icmp_error(number, kind.0)
        && quote.len() == inner.len()
        && whole.transport != Transport::LaterFragment
        && inner.len() >= usize::from(whole.transport_offset) + 8
        && whole.ip_len as usize >= usize::from(whole.transport_offset) + 8
        && error.len() <= 65_535
        && !is_fragment_without_length(&whole, inner)
    {
        panic!("the whole of {whole:?} is quoted, and not found");
    }
    check_readdress(readdress, &headers, &error);
    if let Some(whole) = whole {
        check_answer(&whole, inner, mtu);
        check_readdress(readdress, &whole, inner);
        check_fragments(inner, mtu);
    }
}

/// Whether the packet is a fragment whose length field is zero, as nobody sends it. Its length is
/// then that of the bytes there are, which a quote does not tell.
fn is_fragment_without_length(whole: &Headers, packet: &[u8]) -> bool {
    let at = if whole.is_ipv6() { 4 } else { 2 };
    whole.fragment.is_some() && packet[at..at + 2] == [0, 0]
}

/// A quote says of a packet what the packet says of itself, as far as eight bytes tell.
fn check_quote(found: &Headers, quote: &[u8], whole: Option<&Headers>) {
    assert!(usize::from(found.transport_offset) + 4 <= quote.len(), "beyond the quote");
    assert_ne!(found.transport, Transport::LaterFragment);
    let Some(whole) = whole else { return };
    assert_eq!((found.src, found.dst, found.protocol), (whole.src, whole.dst, whole.protocol));
    assert_eq!((found.src_port(), found.dst_port()), (whole.src_port(), whole.dst_port()));
    assert_eq!(found.selector(), whole.selector());
}

/// The router's answer quotes the packet that it is about, and only what may be answered is.
fn check_answer(whole: &Headers, packet: &[u8], mtu: u16) {
    let router = ROUTER[usize::from(whole.is_ipv6())];
    let Some(answer) = too_big(whole, packet, router, mtu) else { return };
    let headers = parse_ip(&answer, answer.len()).expect("the router's answer is read");
    assert_eq!((headers.src, headers.dst), (router, whole.src));
    assert_eq!(headers.ip_len as usize, answer.len());
    assert!(answer.len() <= if whole.is_ipv6() { 1280 } else { 576 });
    let at = usize::from(headers.transport_offset);
    let (src, dst, number) = (headers.src, headers.dst, headers.protocol);
    assert_eq!(checksum_of(src, dst, number, &answer[at..]), 0, "of the answer");
    if let Some(found) = quoted_of_receiver(&headers, &answer) {
        check_quote(&found, &answer[at + 8..], Some(whole));
    }
}

/// Zero where the checksum of a transport segment is right.
fn checksum_of(src: IpAddr, dst: IpAddr, number: u8, segment: &[u8]) -> u16 {
    match (src, number) {
        (IpAddr::V4(_), protocol::ICMP) => build::checksum(&[segment]),
        _ => build::transport_checksum(src, dst, number, segment),
    }
}

/// Rewriting there and back gives the packet again, and never touches what rules do not name.
fn check_readdress(readdress: Readdress, before: &Headers, packet: &[u8]) {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (before.src, before.dst) else { return };
    let mut rewritten = packet.to_vec();
    readdress.apply(before, &mut rewritten);
    let after = parse_ip(&rewritten, rewritten.len()).expect("what was rewritten is read");
    let expected = Headers {
        src: readdress.src.map_or(before.src, IpAddr::V4),
        dst: readdress.dst.map_or(before.dst, IpAddr::V4),
        ..*before
    };
    assert_eq!(after, expected);
    assert_eq!(rewritten.len(), packet.len());
    let is_whole = before.fragment.is_none();
    let is_error = matches!(before.transport, Transport::Icmp(_));
    let at = usize::from(before.transport_offset);
    let end = before.ip_len as usize;
    if is_whole && !is_error && matches!(before.protocol, protocol::TCP | protocol::UDP) {
        let sum = |packet: &[u8], h: &Headers| {
            checksum_of(h.src, h.dst, h.protocol, packet.get(at..end).unwrap_or_default())
        };
        // A UDP datagram may have none (RFC 768), and what is in its place adds up by chance.
        let has_none =
            before.protocol == protocol::UDP && packet.get(at + 6..at + 8) == Some(&[0, 0]);
        if has_none {
            assert_eq!(rewritten[at..], packet[at..], "none is made");
        } else if sum(packet, before) == 0 {
            assert_eq!(sum(&rewritten, &after), 0, "a right checksum stays right");
        }
    }
    let back = Readdress { src: Some(src), dst: Some(dst) };
    back.apply(&after, &mut rewritten);
    let again = parse_ip(&rewritten, rewritten.len()).expect("what was rewritten back is read");
    assert_eq!(again, *before);
}

/// The fragments of a packet put together are the packet.
fn check_fragments(packet: &[u8], mtu: u16) {
    let mtu = usize::from(mtu).max(68);
    let Ok(whole) = parse_ip(packet, packet.len()) else { return };
    if whole.is_ipv6() {
        assert!(fragment_ipv4(packet, mtu).is_empty());
        return;
    }
    let at = usize::from(packet[0] & 15) * 4;
    let data = &packet[at..whole.ip_len as usize];
    let began = whole.fragment.map_or(0, |f| f.offset as usize);
    let pieces = fragment_ipv4(packet, mtu);
    let mut together: Vec<u8> = Vec::new();
    for (n, piece) in pieces.iter().enumerate() {
        let is_last = n + 1 == pieces.len();
        assert!(pieces.len() == 1 || piece.len() <= mtu, "{} bytes", piece.len());
        let header_len = usize::from(piece[0] & 15) * 4;
        let word = u16::from_be_bytes([piece[6], piece[7]]);
        assert_eq!(usize::from(word & 0x1fff) * 8, (began + together.len()) & 0xffff);
        let more = whole.fragment.is_some_and(|f| f.more) || !is_last;
        assert_eq!(word & 0x2000 != 0, more);
        if pieces.len() > 1 {
            assert_eq!(build::checksum(&[&piece[..header_len]]), 0);
            // A header that was cut in the middle is named for that, every other piece is read.
            match parse(LinkType::RawIp, piece, piece.len()) {
                Ok(Frame::Ip(h)) => assert_eq!((h.src, h.dst), (whole.src, whole.dst)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert_eq!(n, 0, "{error}"),
            }
        }
        together.extend(&piece[header_len..]);
    }
    assert_eq!(together, data);
}
