//! Offload as functions of bytes: checksums completed, super-frames cut, liars refused.
//!
//! The oracle of checksums is `sgwall_packet::build`, the oracle of cutting is a packet built whole
//! for each segment.

use std::net::IpAddr;

use proptest::prelude::*;
use sgwall_netio::device::offload::{Segments, complete_checksum, segment_size};
use sgwall_netio::device::vnet::{
    MAX_SEGMENTS, OffloadError, PartialChecksum, SegmentKind, Segmentation,
};
use sgwall_netio::device::{Features, VnetHeader};
use sgwall_packet::build::{self, IpFields, TcpFields};
use sgwall_packet::{Frame, LinkType, TcpFlags, parse, protocol};

const ETHERNET: usize = 14;
const CWR: u8 = 0x80;
const ECE: u8 = 0x40;

fn addresses(v6: bool) -> (IpAddr, IpAddr) {
    let text = if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "192.0.2.2"] };
    let [src, dst] = text.map(|a| a.parse().expect("an address"));
    (src, dst)
}

/// `tags` VLAN tags put behind the MAC addresses.
fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    let mut out = macs.to_vec();
    for n in 0..tags {
        out.extend([0x81, 0x00, 0x20, n as u8 + 5]);
    }
    out.extend(rest);
    out
}

/// A frame as a sender with checksum offload leaves it: the field holds the pseudo-header's sum.
fn with_partial_checksum(mut frame: Vec<u8>) -> (Vec<u8>, PartialChecksum) {
    let Ok(Frame::Ip(h)) = parse(LinkType::Ethernet, &frame, frame.len()) else {
        panic!("an IP packet");
    };
    let offset = if h.protocol == protocol::TCP { 16 } else { 6 };
    let start = usize::from(h.transport_offset);
    let len = frame.len() - start;
    let mut pseudo = Vec::new();
    for address in [h.src, h.dst] {
        match address {
            IpAddr::V4(a) => pseudo.extend(a.octets()),
            IpAddr::V6(a) => pseudo.extend(a.octets()),
        }
    }
    pseudo.extend((len as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, h.protocol]);
    let sum = !build::checksum(&[&pseudo]);
    frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    (frame, PartialChecksum { start: start as u16, offset: offset as u16 })
}

fn segments_of(frame: &[u8], header: &VnetHeader) -> Vec<Vec<u8>> {
    let cut = Segments::new(frame, header).expect("a right super-frame").expect("a super-frame");
    (0..cut.count())
        .map(|n| {
            let mut out = vec![0xee; cut.frame_len(n)];
            cut.write(n, &mut out);
            out
        })
        .collect()
}

/// The IPv4 identification set, and its header checksum with it.
fn with_id(mut frame: Vec<u8>, tags: usize, id: u16) -> Vec<u8> {
    let ip = ETHERNET + 4 * tags;
    frame[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
    frame[ip + 10..ip + 12].fill(0);
    let sum = build::checksum(&[&frame[ip..ip + 20]]);
    frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    frame
}

proptest! {
    #[test]
    fn a_completed_checksum_is_the_one_the_builder_makes(
        payload in prop::collection::vec(any::<u8>(), 0..3000),
        (v6, udp, tags) in (any::<bool>(), any::<bool>(), 0usize..3),
    ) {
        let (src, dst) = addresses(v6);
        let packet = if udp {
            build::ip(src, dst, 17, IpFields::default(), &build::udp(src, dst, (1, 2), &payload))
        } else {
            let fields = TcpFields { flags: TcpFlags::ACK, ..TcpFields::default() };
            build::ip(src, dst, 6, IpFields::default(), &build::tcp(src, dst, &fields, &payload))
        };
        let whole = tagged(&build::ethernet(&packet), tags);
        let (mut frame, checksum) = with_partial_checksum(whole.clone());
        let mut header = VnetHeader { checksum: Some(checksum), segmentation: None };
        prop_assert_eq!(header.check(&frame), Ok(()));
        complete_checksum(&mut frame, &mut header).expect("it lies inside");
        prop_assert!(header.is_plain());
        prop_assert_eq!(frame, whole);
    }

    #[test]
    fn tcp_segments_are_what_the_sender_would_have_sent(
        payload in prop::collection::vec(any::<u8>(), 1..9000),
        size in 32u16..3000,
        seq in any::<u32>(),
        id in any::<u16>(),
        (v6, tags, scale) in (any::<bool>(), 0usize..3, any::<bool>()),
        flags in 0u8..=0xff,
    ) {
        let (src, dst) = addresses(v6);
        let build = |seq, flags, payload: &[u8], id| {
            let window_scale = scale.then_some(7);
            let fields = TcpFields {
                src_port: 40000, dst_port: 443, seq, ack: 77, flags: TcpFlags(flags), window: 500,
                window_scale,
            };
            let tcp = build::tcp(src, dst, &fields, payload);
            let frame = build::ethernet(&build::ip(src, dst, 6, IpFields::default(), &tcp));
            let frame = tagged(&frame, tags);
            if v6 { frame } else { with_id(frame, tags, id) }
        };
        let (frame, checksum) = with_partial_checksum(build(seq, flags, &payload, id));
        let kind = if v6 { SegmentKind::TcpV6 } else { SegmentKind::TcpV4 };
        let header = VnetHeader {
            checksum: Some(checksum),
            segmentation: Some(Segmentation { kind, size, ecn: true }),
        };
        prop_assert_eq!(header.check(&frame), Ok(()));
        let expected: Vec<_> = payload.chunks(size.into()).enumerate().map(|(n, chunk)| {
            let is_last = (n + 1) * usize::from(size) >= payload.len();
            let mut flags = flags;
            if !is_last { flags &= !(TcpFlags::FIN.0 | TcpFlags::PSH.0); }
            if n > 0 { flags &= !CWR; }
            let seq = seq.wrapping_add((n * usize::from(size)) as u32);
            build(seq, flags, chunk, id.wrapping_add(n as u16))
        }).collect();
        let largest = expected.iter().map(|f| f.len() - ETHERNET - 4 * tags).max();
        let ip_len = (frame.len() - ETHERNET - 4 * tags) as u32;
        prop_assert_eq!(segment_size(&frame, &header, ip_len), Ok(largest.unwrap_or(0) as u32));
        prop_assert_eq!(segments_of(&frame, &header), expected);
    }

    #[test]
    fn udp_segments_are_datagrams_of_one_size(
        payload in prop::collection::vec(any::<u8>(), 1..9000),
        size in 32u16..3000,
        id in any::<u16>(),
        (v6, tags) in (any::<bool>(), 0usize..3),
    ) {
        let (src, dst) = addresses(v6);
        let build = |payload: &[u8], id| {
            let udp = build::udp(src, dst, (5000, 53), payload);
            let frame = build::ethernet(&build::ip(src, dst, 17, IpFields::default(), &udp));
            let frame = tagged(&frame, tags);
            if v6 { frame } else { with_id(frame, tags, id) }
        };
        let (frame, checksum) = with_partial_checksum(build(&payload, id));
        let header = VnetHeader {
            checksum: Some(checksum),
            segmentation: Some(Segmentation { kind: SegmentKind::Udp, size, ecn: false }),
        };
        let expected: Vec<_> = payload
            .chunks(size.into())
            .enumerate()
            .map(|(n, chunk)| build(chunk, id.wrapping_add(n as u16)))
            .collect();
        prop_assert_eq!(segments_of(&frame, &header), expected);
    }

    #[test]
    fn a_header_survives_its_bytes(
        checksum in prop::option::of((any::<u16>(), any::<u16>())),
        segmentation in prop::option::of((0usize..3, 1u16.., any::<bool>())),
        frame_len in 0usize..70_000,
    ) {
        let kinds = [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp];
        let header = VnetHeader {
            checksum: checksum.map(|(start, offset)| PartialChecksum { start, offset }),
            segmentation: segmentation
                .map(|(kind, size, ecn)| Segmentation { kind: kinds[kind], size, ecn }),
        };
        let bytes = header.to_bytes(frame_len);
        prop_assert_eq!(VnetHeader::from_bytes(&bytes), Ok(header));
        prop_assert_eq!(VnetHeader::from_bytes(&bytes[..10]), Ok(header));
    }

    /// Whatever a guest says of whatever frame: an answer, and never a byte outside.
    #[test]
    fn nonsense_is_refused_or_cut_within_bounds(
        header in prop::collection::vec(any::<u8>(), 0..14),
        mut frame in prop::collection::vec(any::<u8>(), 0..400),
        looks_right in any::<bool>(),
        kind in prop::sample::select(vec![1u8, 4, 5]),
    ) {
        let mut header = header;
        if looks_right && frame.len() > 20 && header.len() >= 10 {
            frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
            header[0] = 0;
            header[1] = kind;
        }
        let Ok(parsed) = VnetHeader::from_bytes(&header) else { return Ok(()) };
        let is_right = parsed.check(&frame).is_ok();
        let mut copy = frame.clone();
        let _ = complete_checksum(&mut copy, &mut parsed.clone());
        prop_assert_eq!(copy.len(), frame.len());
        match Segments::new(&frame, &parsed) {
            Ok(Some(cut)) => {
                prop_assert!(cut.count() <= MAX_SEGMENTS);
                for segment in segments_of(&frame, &parsed) {
                    prop_assert!(!segment.is_empty() && segment.len() <= frame.len());
                }
            }
            Ok(None) => prop_assert!(parsed.segmentation.is_none()),
            Err(_) => prop_assert!(!is_right),
        }
    }
}

fn tcp_frame(len: usize) -> (Vec<u8>, VnetHeader) {
    let (src, dst) = addresses(false);
    let fields = TcpFields { flags: TcpFlags::ACK, ..TcpFields::default() };
    let tcp = build::tcp(src, dst, &fields, &vec![7; len]);
    let frame = build::ethernet(&build::ip(src, dst, 6, IpFields::default(), &tcp));
    let (frame, checksum) = with_partial_checksum(frame);
    let segmentation = Segmentation { kind: SegmentKind::TcpV4, size: 1000, ecn: false };
    (frame, VnetHeader { checksum: Some(checksum), segmentation: Some(segmentation) })
}

#[test]
fn liars_are_named() {
    let (frame, good) = tcp_frame(3000);
    assert_eq!(good.check(&frame), Ok(()));
    let segmentation = good.segmentation.expect("a super-frame");
    let checksum = good.checksum.expect("partial");
    let with = |kind, size| VnetHeader {
        segmentation: Some(Segmentation { kind, size, ..segmentation }),
        ..good
    };
    let starting =
        |start| VnetHeader { checksum: Some(PartialChecksum { start, ..checksum }), ..good };
    let mismatch = |kind| Err(OffloadError::Mismatch { kind });
    for (header, expected) in [
        (with(SegmentKind::TcpV6, 1000), mismatch(SegmentKind::TcpV6)),
        (with(SegmentKind::Udp, 1000), mismatch(SegmentKind::Udp)),
        (with(SegmentKind::TcpV4, 1), Err(OffloadError::TooManySegments(3000))),
        (starting(35), mismatch(SegmentKind::TcpV4)),
        (
            starting(60_000),
            Err(OffloadError::ChecksumOutside { start: 60_000, offset: 16, len: 3054 }),
        ),
    ] {
        assert_eq!(header.check(&frame), expected);
    }
    // A fragment has no segments.
    let (mut fragment, _) = tcp_frame(3004);
    fragment[ETHERNET + 6] = 0x20;
    assert_eq!(good.check(&fragment), mismatch(SegmentKind::TcpV4));
    // A TCP header longer than the packet, and one shorter than a header.
    for (words, len) in [(15, 20), (4, 3000)] {
        let (mut short, header) = tcp_frame(len);
        short[ETHERNET + 20 + 12] = words << 4;
        assert!(header.check(&short).is_err(), "{words} words");
    }
    let raw = |flags: u8, gso: u8, size: u8| [flags, gso, 0, 0, size, 0, 0, 0, 0, 0];
    assert_eq!(VnetHeader::from_bytes(&raw(1, 3, 9)), Err(OffloadError::UnknownKind(3)));
    assert_eq!(VnetHeader::from_bytes(&raw(1, 1, 0)), Err(OffloadError::ZeroSize));
    assert_eq!(VnetHeader::from_bytes(&[0; 9]), Err(OffloadError::Short { had: 9 }));
}

#[test]
fn padding_after_the_packet_is_no_payload() {
    let (mut frame, header) = tcp_frame(1500);
    frame.extend([0xaa; 11]);
    let segments = segments_of(&frame, &header);
    assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1054, 554]);
    assert!(!segments[1].ends_with(&[0xaa]));
}

#[test]
fn flags_stand_where_the_kernel_puts_them() {
    let (mut frame, header) = tcp_frame(2500);
    frame[ETHERNET + 20 + 13] = CWR | ECE | TcpFlags::FIN.0 | TcpFlags::PSH.0 | TcpFlags::ACK.0;
    let ack = TcpFlags::ACK.0;
    let last = ECE | ack | TcpFlags::FIN.0 | TcpFlags::PSH.0;
    let flags: Vec<u8> =
        segments_of(&frame, &header).iter().map(|s| s[ETHERNET + 20 + 13]).collect();
    assert_eq!(flags, [CWR | ECE | ack, ECE | ack, last]);
}

#[test]
fn a_checksum_of_zero_is_written_as_ones() {
    let (src, dst) = addresses(false);
    // A payload that makes the sum come out as all ones: found by trying.
    let found = (0..=u16::MAX).find(|word| {
        let udp = build::udp(src, dst, (1, 2), &word.to_be_bytes());
        let frame = build::ethernet(&build::ip(src, dst, 17, IpFields::default(), &udp));
        let at = ETHERNET + 20 + 6;
        let (mut partial, checksum) = with_partial_checksum(frame);
        let mut header = VnetHeader { checksum: Some(checksum), segmentation: None };
        complete_checksum(&mut partial, &mut header).expect("inside");
        assert_ne!(partial[at..at + 2], [0, 0], "payload {word}");
        partial[at..at + 2] == [0xff, 0xff]
    });
    assert!(found.is_some(), "no payload sums to zero");
}

/// TCP knows no "none": a sender writes the zero that it computes, and so do we for it.
#[test]
fn a_tcp_checksum_of_zero_stays_zero() {
    let (src, dst) = addresses(false);
    let build = |word: u16| {
        let fields = TcpFields { flags: TcpFlags::ACK, ..TcpFields::default() };
        let tcp = build::tcp(src, dst, &fields, &word.to_be_bytes());
        build::ethernet(&build::ip(src, dst, 6, IpFields::default(), &tcp))
    };
    let at = ETHERNET + 20 + 16;
    let frame = (0..=u16::MAX).map(build).find(|frame| frame[at..at + 2] == [0, 0]);
    let whole = frame.expect("a payload that sums to zero");
    let (mut partial, checksum) = with_partial_checksum(whole.clone());
    let segmentation = Segmentation { kind: SegmentKind::TcpV4, size: 9, ecn: false };
    let header = VnetHeader { checksum: Some(checksum), segmentation: Some(segmentation) };
    assert_eq!(segments_of(&partial, &header), std::slice::from_ref(&whole));
    let mut header = VnetHeader { checksum: Some(checksum), segmentation: None };
    complete_checksum(&mut partial, &mut header).expect("inside");
    assert_eq!(partial, whole);
}

#[test]
fn features_say_what_may_be_left() {
    let (_, tcp) = tcp_frame(10);
    let udp = VnetHeader {
        segmentation: Some(Segmentation { kind: SegmentKind::Udp, size: 9, ecn: false }),
        ..tcp
    };
    let sum = VnetHeader { segmentation: None, ..tcp };
    let plain = VnetHeader::default();
    let no_udp = Features { udp: false, ..Features::ALL };
    for (features, carried) in [
        (Features::ALL, [true, true, true, true]),
        (no_udp, [true, false, true, true]),
        (Features { tcp: false, ..no_udp }, [false, false, true, true]),
        (Features::NONE, [false, false, false, true]),
    ] {
        assert_eq!([tcp, udp, sum, plain].map(|header| features.carries(&header)), carried);
    }
    assert_eq!(no_udp.to_string(), "checksum+TCP");
    assert_eq!(Features::NONE.to_string(), "none");
}
