//! Frames to headers: against etherparse, against itself where the capture is cut, and within the
//! bytes that there are.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use sgwall_packet::{
    FiveTuple, FlowKey, Frame, Headers, Kind, LinkType, ParseError, Side, Transport, addresses,
    parse_into, quoted,
};

use crate::source::Source;

/// Every way to read the first bytes of a frame.
pub(crate) const LINKS: [LinkType; 8] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::Ipv4,
    LinkType::Ipv6,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Null,
    LinkType::Loop,
];

/// The byte by which an input of [`parse`] says how it is to be read.
#[must_use]
pub fn link_byte(link: Option<LinkType>) -> u8 {
    LINKS.iter().position(|known| Some(*known) == link).unwrap_or(0) as u8
}

/// Reads a frame. The input: link type, how far it was cut (two bytes), the frame.
pub fn parse(data: &[u8]) {
    let mut source = Source::new(data);
    let link = source.pick(&LINKS);
    let cut = usize::from(source.word());
    let frame = source.rest();
    let whole = read(link, frame, frame.len());
    match &whole {
        Ok(Frame::Ip(headers)) => check_headers(link, headers, frame),
        Ok(_) => {}
        Err(error) => {
            assert!(!error.is_truncated(), "nothing was cut: {error}");
            assert!(!error.to_string().is_empty());
        }
    }
    check_reuse(link, frame, &whole);
    check_cut(link, frame, cut % (frame.len() + 1), &whole);
    if link == LinkType::Ethernet {
        agree_with_etherparse(frame, &whole);
    }
}

type Parsed = Result<Frame, ParseError>;

fn read(link: LinkType, frame: &[u8], wire_len: usize) -> Parsed {
    sgwall_packet::parse(link, frame, wire_len)
}

fn check_headers(link: LinkType, headers: &Headers, frame: &[u8]) {
    let start = usize::from(headers.ip_offset);
    assert!(start <= usize::from(headers.transport_offset));
    assert!(usize::from(headers.transport_offset) <= frame.len());
    assert!(start + headers.ip_len as usize <= frame.len());
    assert_eq!(addresses(link, frame), Some((headers.src, headers.dst)));
    assert_eq!(headers.src.is_ipv6(), headers.dst.is_ipv6());
    if let Some(fragment) = headers.fragment {
        assert!(fragment.offset % 8 == 0 && fragment.offset + fragment.len <= 65_535);
        assert!(fragment.more || fragment.offset > 0);
        let is_later = headers.transport == Transport::LaterFragment;
        assert_eq!(is_later, fragment.offset > 0);
    }
    let _ = (FiveTuple::from(headers).to_string(), quoted(headers, frame));
    if let Some((key, side)) = FlowKey::of(headers) {
        let [src, dst] = match side {
            Side::Low => key.addresses(),
            Side::High => {
                let [low, high] = key.addresses();
                [high, low]
            }
        };
        // An ICMP query's key need not sort its ends by address alone, but has both.
        assert!(
            [src, dst] == [headers.src, headers.dst] || [dst, src] == [headers.src, headers.dst]
        );
    }
}

/// Headers that were used for another frame before say the same.
fn check_reuse(link: LinkType, frame: &[u8], whole: &Parsed) {
    // A tagged IPv6 first fragment of TCP with options: every field is taken.
    const BEFORE: [u8; 90] = {
        let mut frame = [0xee; 90];
        let head = [0x81, 0, 0, 7, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 44, 9];
        let mut at = 0;
        while at < head.len() {
            frame[12 + at] = head[at];
            at += 1;
        }
        let fragment = [6, 0, 0, 1, 1, 2, 3, 4];
        at = 0;
        while at < fragment.len() {
            frame[58 + at] = fragment[at];
            at += 1;
        }
        frame[66 + 12] = 0x60;
        frame
    };
    let mut headers = Headers::NONE;
    let before = parse_into(LinkType::Ethernet, &BEFORE, BEFORE.len(), &mut headers);
    assert_eq!(before, Ok(Kind::Ip));
    assert!(headers.fragment.is_some() && headers.link.vlan.is_some());
    match (parse_into(link, frame, frame.len(), &mut headers), whole) {
        (Ok(Kind::Ip), Ok(Frame::Ip(fresh))) => assert_eq!(headers, *fresh),
        (Ok(Kind::Arp), Ok(Frame::Arp(fresh))) | (Ok(Kind::Other), Ok(Frame::Other(fresh))) => {
            assert_eq!(headers.link, *fresh);
        }
        (Err(again), Err(error)) => assert_eq!(again, *error),
        (again, fresh) => panic!("{again:?} in used headers, {fresh:?} in fresh ones"),
    }
}

/// What is left of a frame that the capture cut says the same, or that it was cut.
fn check_cut(link: LinkType, frame: &[u8], keep: usize, whole: &Parsed) {
    let kept = read(link, &frame[..keep], frame.len());
    match &kept {
        Err(error) if error.is_truncated() => {}
        kept => assert_eq!(kept, whole, "cut to {keep} bytes"),
    }
}

/// What etherparse reads, we read the same; what it refuses, we need not.
fn agree_with_etherparse(frame: &[u8], ours: &Parsed) {
    let Ok(theirs) = SlicedPacket::from_ethernet(frame) else { return };
    let Some(net) = &theirs.net else { return };
    let ours = match ours {
        Ok(Frame::Ip(ours)) => ours,
        Ok(_) => {
            assert!(!net.is_ip(), "{theirs:?} is IP");
            return;
        }
        // Lengths that etherparse takes as they come: of UDP, of fragments, of extension chains.
        Err(
            ParseError::BadField { .. }
            | ParseError::TinyFragment { .. }
            | ParseError::ExtensionChain { .. },
        ) => return,
        Err(error) => panic!("etherparse reads {theirs:?}, we say: {error}"),
    };
    let (src, dst): (IpAddr, IpAddr) = match net {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => panic!("{ours:?} is ARP"),
    };
    assert_eq!((ours.src, ours.dst), (src, dst));
    let Some(payload) = net.ip_payload_ref() else { return };
    // AH is a protocol to us, an extension to etherparse.
    if ours.protocol == 51 {
        return;
    }
    if ours.transport != Transport::LaterFragment {
        assert_eq!(ours.protocol, payload.ip_number.0);
    }
    match (&theirs.transport, ours.transport) {
        (Some(TransportSlice::Tcp(t)), Transport::Tcp(o)) => {
            assert_eq!((t.source_port(), t.destination_port()), (o.src_port, o.dst_port));
            assert_eq!((t.sequence_number(), t.acknowledgment_number()), (o.seq, o.ack));
            let flags = [t.fin(), t.syn(), t.rst(), t.psh(), t.ack(), t.urg()];
            let bits = (0..).zip(flags).map(|(bit, set)| u8::from(set) << bit).sum::<u8>();
            assert_eq!((bits, t.window_size()), (o.flags.0 & 0x3f, o.window));
            assert_eq!(t.payload().len(), o.payload_len as usize);
        }
        (Some(TransportSlice::Udp(t)), Transport::Udp { src_port, dst_port }) => {
            assert_eq!((t.source_port(), t.destination_port()), (src_port, dst_port));
        }
        (Some(TransportSlice::Icmpv4(t)), Transport::Icmp(o)) => {
            assert_eq!((t.type_u8(), t.code_u8()), (o.kind, o.code));
        }
        (Some(TransportSlice::Icmpv6(t)), Transport::Icmp(o)) => {
            assert_eq!((t.type_u8(), t.code_u8()), (o.kind, o.code));
        }
        // IGMP is a protocol without ports to us.
        (Some(TransportSlice::Igmp(_)), Transport::Other) => {}
        // Of fragments etherparse reads no transport header, of the first we do.
        (None, _) => {
            assert!(payload.fragmented || !matches!(payload.ip_number.0, 1 | 6 | 17 | 58));
        }
        (theirs, ours) => panic!("{theirs:?} against {ours:?}"),
    }
}
