//! The embedded example is what its text says: `packets.txt`, as a capture.

// Tests of the command line read files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;

use sgwall_netio::capture::{OutPacket, Writer};
use sgwall_packet::{LinkType, PacketSpec, Timestamp};

/// 2024-01-01 00:00:00 UTC.
const START: i64 = 1_704_067_200;

/// The capture that `text` describes: a line a packet, seconds after [`START`] and the packet.
fn capture(text: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "example").unwrap();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (time, packet) = line.split_once("  ").expect("time and packet");
        let (seconds, micros) = time.split_once('.').expect("seconds with six decimals");
        let seconds = START + seconds.parse::<i64>().unwrap();
        let nanos = seconds * 1_000_000_000 + micros.parse::<i64>().unwrap() * 1000;
        let packet: PacketSpec = packet.parse().unwrap_or_else(|e| panic!("{packet}: {e}"));
        let frame = packet.to_frame();
        writer
            .write(&OutPacket {
                data: &frame,
                wire_len: frame.len() as u32,
                time: Timestamp::from_nanos(nanos),
                decimals: 6,
                link: LinkType::Ethernet.into(),
                direction: None,
                comment: None,
            })
            .unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    file
}

/// With `SGWALL_WRITE_EXAMPLE` set the capture is written anew.
#[test]
fn the_capture_is_what_its_text_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("example");
    let built = capture(&fs::read_to_string(dir.join("packets.txt")).unwrap());
    if std::env::var_os("SGWALL_WRITE_EXAMPLE").is_some() {
        fs::write(dir.join("capture.pcapng"), &built).unwrap();
    }
    let kept = fs::read(dir.join("capture.pcapng")).unwrap();
    assert!(kept == built, "capture.pcapng is not what packets.txt says: write it anew");
}
