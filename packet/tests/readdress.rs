//! Address translation: the result is the packet that its sender would have built.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use sgwall_packet::{Frame, Headers, LinkType, PacketSpec, Readdress, parse};

fn headers(frame: &[u8]) -> Headers {
    match parse(LinkType::Ethernet, frame, frame.len()) {
        Ok(Frame::Ip(headers)) => headers,
        other => panic!("{other:?}"),
    }
}

/// `before`, its addresses replaced, is `after`.
fn becomes(before: &str, after: &str, readdress: Readdress) {
    let mut frame = before.parse::<PacketSpec>().unwrap().to_frame();
    let expected = after.parse::<PacketSpec>().unwrap().to_frame();
    let of = headers(&frame);
    readdress.apply(&of, &mut frame);
    assert_eq!(frame, expected, "{before}");
}

const PRIVATE: &str = "10.0.1.10";
const PUBLIC: &str = "198.51.100.7";

fn out() -> Readdress {
    Readdress { src: PUBLIC.parse().ok(), dst: None }
}

fn home() -> Readdress {
    Readdress { src: None, dst: PRIVATE.parse().ok() }
}

#[test]
fn each_protocol_has_its_checksums_right() {
    for rest in [
        "tcp {}:5000 -> 203.0.113.1:80 S len=7",
        "udp {}:5000 -> 203.0.113.1:53 len=1001",
        "icmp {} -> 203.0.113.1 8/0 id=3 len=40",
        "gre {} -> 203.0.113.1 len=9",
        "udp {}:5000 -> 203.0.113.1:53 len=1001 frag=7:0+",
        "udp {}:5000 -> 203.0.113.1:53 len=16 frag=7:1008",
    ] {
        becomes(&rest.replace("{}", PRIVATE), &rest.replace("{}", PUBLIC), out());
    }
    becomes(
        "tcp 203.0.113.1:80 -> 198.51.100.7:5000 SA",
        "tcp 203.0.113.1:80 -> 10.0.1.10:5000 SA",
        home(),
    );
    becomes(
        "tcp [2001:db8::1]:80 -> [2001:db8::2]:5000",
        "tcp [2001:db8::1]:80 -> [2001:db8::2]:5000",
        home(),
    );
}

/// What an error quotes went the other way: the public address stands in its source.
#[test]
fn the_quote_of_an_error_is_translated_the_other_way_round() {
    for quoted in [
        "tcp {}:5000 -> 203.0.113.1:80 A len=20",
        "udp {}:5000 -> 203.0.113.1:53 len=4",
        "gre {} -> 203.0.113.1",
        "udp {}:5000 -> 203.0.113.1:53 len=16 frag=7:1008",
    ] {
        let error = |to: &str| {
            let quote = quoted.replace("{}", to);
            format!("icmp 192.0.2.1 -> {to} 3/4 mtu=1400 quote=\"{quote}\"")
        };
        becomes(&error(PUBLIC), &error(PRIVATE), home());
    }
}

proptest! {
    /// There and back again is the same frame, whatever is in it, and nothing panics.
    #[test]
    fn it_can_be_undone(
        src: [u8; 4], dst: [u8; 4], new: [u8; 4],
        proto in prop::sample::select(vec![1u8, 6, 17, 47]),
        tail in prop::collection::vec(any::<u8>(), 0..120),
        cut in 0usize..160,
    ) {
        let mut frame = sgwall_packet::build::ethernet(&sgwall_packet::build::ip(
            Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into(), proto, Default::default(), &tail));
        frame.truncate(frame.len().saturating_sub(cut).max(34));
        let len = 34 + tail.len();
        let Ok(Frame::Ip(of)) = parse(LinkType::Ethernet, &frame, len) else { return Ok(()) };
        let original = frame.clone();
        Readdress { src: None, dst: Some(new.into()) }.apply(&of, &mut frame);
        let Ok(Frame::Ip(of)) = parse(LinkType::Ethernet, &frame, len) else {
            return Err(TestCaseError::fail("unreadable"));
        };
        prop_assert_eq!(of.dst, std::net::IpAddr::from(new));
        Readdress { src: None, dst: Some(dst.into()) }.apply(&of, &mut frame);
        // A checksum of 0 and one of 0xffff say the same.
        let same = |a: &u8, b: &u8| a == b || (matches!(a, 0 | 0xff) && matches!(b, 0 | 0xff));
        prop_assert!(frame.iter().zip(&original).all(|(a, b)| same(a, b)));
    }
}
