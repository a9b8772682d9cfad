//! Frames between few ends, so that they meet each other's flows and fragments, and any others.

use std::net::IpAddr;

use sgwall_dataplane::FrameInput;
use sgwall_packet::{LinkType, PacketSpec, TcpFlags, Timestamp, protocol};

use super::world::MACS;
use crate::parse::LINKS;
use crate::source::Source;

const V4: [&str; 12] = [
    "10.0.1.10",
    "10.0.1.10",
    "10.0.2.20",
    "10.0.1.30",
    "203.0.113.1",
    "203.0.113.1",
    "203.0.113.2",
    "198.51.100.1",
    "10.0.1.11",
    "10.0.1.1",
    "169.254.169.254",
    "255.255.255.255",
];
const V6: [&str; 5] =
    ["2001:db8:0:1::10", "2001:db8:0:1::10", "2001:db8:9::1", "fe80::1", "ff02::1:2"];
const PORTS: [u16; 8] = [4000, 4000, 80, 80, 53, 81, 67, 68];
const FLAGS: [u8; 8] = [0x02, 0x12, 0x10, 0x10, 0x11, 0x04, 0x18, 0x3f];
const LENGTHS: [u16; 8] = [0, 0, 1, 8, 64, 600, 1600, 3000];

/// A frame with all that is known of it.
pub(crate) struct Sent {
    token: u64,
    link: Option<LinkType>,
    data: Vec<u8>,
    wire_len: u32,
    time: Timestamp,
}

impl Sent {
    pub(crate) fn input(&self) -> FrameInput<'_> {
        FrameInput {
            token: self.token,
            link: self.link,
            data: &self.data,
            wire_len: self.wire_len,
            time: self.time,
            decimals: 9,
            recorded: None,
        }
    }
}

/// What makes frames.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: u64,
    nanos: i64,
}

impl Traffic {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.nanos)
    }

    /// Frames made so far, whose tokens are the numbers below.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn frame(&mut self, source: &mut Source<'_>) -> Sent {
        self.nanos = self.nanos.saturating_add(passed(source));
        let how = source.byte();
        let (link, mut data) = match how {
            0..8 => {
                let link = source.pick(&LINKS);
                let len = source.byte().into();
                (Some(link), source.take(len).to_vec())
            }
            8..10 => (None, vec![1, 2, 3]),
            _ => {
                let packet = packet(source, true);
                match how & 3 {
                    0 => (Some(LinkType::RawIp), packet.to_ip()),
                    _ => {
                        let mut frame = packet.to_frame();
                        // From or to an interface's own MAC address, or another's.
                        frame[6..12].copy_from_slice(&MACS[usize::from(how >> 2) % 3]);
                        if how & 2 != 0 {
                            frame[..6].copy_from_slice(&MACS[usize::from(how >> 4) % 3]);
                        }
                        (Some(LinkType::Ethernet), frame)
                    }
                }
            }
        };
        let wire_len = data.len() as u32;
        if how >= 224 && !data.is_empty() {
            let at = usize::from(source.byte()) % data.len();
            data[at] ^= source.byte();
        }
        if how >= 248 {
            data.truncate(source.byte().into());
        }
        let (token, time) = (self.sent, self.now());
        self.sent += 1;
        Sent { token, link, data, wire_len, time }
    }
}

/// Time between two frames: mostly little, sometimes about as long as something lasts, or back.
fn passed(source: &mut Source<'_>) -> i64 {
    const MILLI: i64 = 1_000_000;
    let byte = source.byte();
    let step = i64::from(byte & 15);
    match byte >> 4 {
        0..10 => step * MILLI,
        10 | 11 => step * 300 * MILLI,
        12 => step * 10_000 * MILLI,
        13 => step * 100_000_000 * MILLI,
        14 => -step * 1_000 * MILLI,
        _ => -step * 1_000_000 * MILLI,
    }
}

fn packet(source: &mut Source<'_>, may_quote: bool) -> PacketSpec {
    let is_v6 = source.one_in(4);
    let end = |source: &mut Source<'_>| -> IpAddr {
        let text = if is_v6 { source.pick(&V6) } else { source.pick(&V4) };
        text.parse().expect("an address")
    };
    let (src, dst) = (end(source), end(source));
    let icmp = if is_v6 { protocol::ICMPV6 } else { protocol::ICMP };
    let number =
        source.pick(&[protocol::TCP, protocol::TCP, protocol::UDP, protocol::UDP, icmp, 47]);
    let is_tcp = number == protocol::TCP;
    let has_ports = is_tcp || number == protocol::UDP;
    let ports = if has_ports { (source.pick(&PORTS), source.pick(&PORTS)) } else { (0, 0) };
    let (errors, queries) = match is_v6 {
        false => ([(3, 4), (3, 1), (11, 0)], [(8, 0), (0, 0)]),
        true => ([(2, 0), (1, 0), (3, 0)], [(128, 0), (135, 0)]),
    };
    let quote = (number == icmp && may_quote && source.one_in(2))
        .then(|| Box::new(packet(source, false)))
        .filter(|quote| quote.src.is_ipv6() == is_v6);
    let kind = if quote.is_some() { source.pick(&errors) } else { source.pick(&queries) };
    let mut len = source.pick(&LENGTHS);
    let fragment = source.one_in(4).then(|| {
        let [id, at] = source.array();
        let more = at & 0x80 != 0;
        if more {
            // Whole words of eight bytes, with a TCP header's four more.
            len = len / 8 * 8 + if is_tcp && at & 0x1f == 0 { 4 } else { 0 };
        }
        (u32::from(id & 3), u16::from(at & 0x1f) * 8, more)
    });
    let [seq, ack, more] = source.array();
    PacketSpec {
        protocol: number,
        src,
        dst,
        ports,
        flags: TcpFlags(if is_tcp { source.pick(&FLAGS) } else { 0 }),
        seq: if is_tcp { u32::from(seq) << 10 } else { 0 },
        ack: if is_tcp { u32::from(ack) << 10 } else { 0 },
        window: 4096,
        window_scale: Some(more & 7).filter(|_| is_tcp && more & 8 != 0),
        icmp: if number == icmp { kind } else { (8, 0) },
        id: if number == icmp { 7 } else { 0 },
        mtu: 1500,
        quote,
        len,
        dont_fragment: more & 16 != 0 && !is_v6,
        hop_limit: if more & 32 != 0 { 255 } else { 64 },
        fragment,
    }
}
