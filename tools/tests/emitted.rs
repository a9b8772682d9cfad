//! What the router makes of packets that do not fit, as `replay --emitted` writes it: whole packets
//! with right checksums, to us and to tcpdump.

// Tests of the command line read and write files.
#![allow(clippy::disallowed_methods)]

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use sgwall_netio::capture::{LinkKind, OutPacket, Writer, open};
use sgwall_packet::build::{checksum, transport_checksum};
use sgwall_packet::{Frame, Headers, LinkType, PacketSpec, Timestamp, parse, protocol};

const POLICY: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "s"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
[[security_group]]
id = "sg-1"
ingress = [
  { protocol = "icmp", type = 3, code = 4, cidr = "10.0.1.1/32" },
  { protocol = "icmpv6", type = 2, cidr = "2001:db8:0:1::1/128" },
]
[[interface]]
id = "eni-1"
subnet = "s"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
"#;

/// Packets too large for the internet, and what is made of each: fragments, or one answer.
const PACKETS: &[(&str, usize)] = &[
    ("udp 10.0.1.10:4000 -> 203.0.113.1:9999 len=4000", 3),
    ("tcp 10.0.1.10:4001 -> 203.0.113.1:80 A len=3000", 3),
    ("icmp 10.0.1.10 -> 203.0.113.1 8/0 id=7 len=8000", 6),
    ("udp 10.0.1.10:4000 -> 203.0.113.1:9999 len=4000 df", 1),
    ("tcp [2001:db8:0:1::10]:4000 -> [2001:db8:ffff::1]:80 A len=3000", 1),
    ("udp 10.0.1.10:4000 -> 203.0.113.1:9999 len=100", 0),
];

/// Replays the packets; the frames that were emitted, and the file that they are in.
fn emitted(dir: &Path) -> (Vec<Vec<u8>>, String) {
    let file = |name: &str| dir.join(name).display().to_string();
    std::fs::write(file("policy.toml"), POLICY).unwrap();
    let mut writer = Writer::create(Path::new(&file("large.pcapng"))).unwrap();
    for (packet, _) in PACKETS {
        let data = packet.parse::<PacketSpec>().unwrap().to_frame();
        let packet = OutPacket {
            data: &data,
            wire_len: data.len() as u32,
            time: Timestamp::from_secs(1_700_000_000),
            decimals: 6,
            link: LinkKind::from(LinkType::Ethernet),
            direction: None,
            comment: None,
        };
        writer.write(&packet).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let out = Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .args(["replay", &file("large.pcapng"), "--policy", &file("policy.toml")])
        .args(["--emitted", &file("emitted.pcapng")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let summary = String::from_utf8_lossy(&out.stdout).into_owned();
    let told = "12 fragments were made, 2 answers to senders delivered, 0 refused";
    assert!(summary.contains(told), "{summary}");
    let mut reader = open(Path::new(&file("emitted.pcapng"))).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet().unwrap() {
        frames.push(packet.data.to_vec());
    }
    (frames, file("emitted.pcapng"))
}

fn headers(frame: &[u8]) -> Headers {
    match parse(LinkType::Ethernet, frame, frame.len()) {
        Ok(Frame::Ip(headers)) => headers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_emitted_packet_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (frames, _) = emitted(dir.path());
    assert_eq!(frames.len(), PACKETS.iter().map(|(_, made)| made).sum::<usize>());
    for frame in &frames {
        let of = headers(frame);
        assert!(of.ip_len <= 1500, "{} bytes", of.ip_len);
        let (ip, transport) = (usize::from(of.ip_offset), usize::from(of.transport_offset));
        let segment = &frame[transport..];
        match (of.src, of.protocol) {
            (IpAddr::V4(_), _) => {
                assert_eq!(checksum(&[&frame[ip..transport]]), 0, "IPv4 header");
                if of.fragment.is_none() {
                    assert_eq!(checksum(&[segment]), 0, "ICMP");
                }
            }
            (IpAddr::V6(_), protocol::ICMPV6) => {
                assert_eq!(transport_checksum(of.src, of.dst, of.protocol, segment), 0, "ICMPv6");
            }
            other => panic!("{other:?} was emitted"),
        }
    }
    // The fragments of each packet are that packet again.
    for (packet, _) in PACKETS.iter().take(3) {
        let original = packet.parse::<PacketSpec>().unwrap().to_frame();
        let of = headers(&original);
        let mut data: Vec<u8> = Vec::new();
        for frame in frames.iter().filter(|f| headers(f).protocol == of.protocol) {
            let piece = headers(frame);
            if let Some(fragment) = piece.fragment {
                assert_eq!(fragment.offset as usize, data.len());
                data.extend(&frame[usize::from(piece.transport_offset)..]);
            }
        }
        assert_eq!(data, original[usize::from(of.transport_offset)..], "{packet}");
    }
}

/// Somebody who knows nothing of us reads them without complaint.
#[test]
fn tcpdump_reads_them_without_complaint() {
    let dir = tempfile::tempdir().unwrap();
    let (frames, file) = emitted(dir.path());
    let read = Command::new("tcpdump").args(["-nvvr", &file]).output();
    let Ok(read) = read else {
        println!("NOT RUN: there is no tcpdump");
        let required = std::env::var_os("SGWALL_LIVE").is_some_and(|value| value == "required");
        assert!(!required, "SGWALL_LIVE=required, and there is no tcpdump");
        return;
    };
    let text = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(
        text.matches(" IP ").count() + text.matches(" IP6 ").count(),
        frames.len(),
        "{text}"
    );
    for complaint in ["bad", "incorrect", "invalid", "wrong", "truncated", "[|"] {
        assert!(!text.contains(complaint), "tcpdump says {complaint:?}:\n{text}");
    }
    assert!(text.contains("need to frag (mtu 1500)"), "{text}");
    assert!(text.contains("packet too big, mtu 1500"), "{text}");
}
