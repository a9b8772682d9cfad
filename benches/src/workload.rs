//! Frames in memory and a pipeline to judge them: the whole way of a packet but its devices.

use std::sync::Arc;

use sgwall_conntrack::FlowState;
use sgwall_dataplane::{Config, PacketContext, Pipeline};
use sgwall_packet::{Direction, Headers, Kind, LinkType, PacketSpec, Timestamp, parse_into};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::{L4Match, Peer, PortRange};

use crate::{Random, policy, rules};

/// When all packets come.
pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Packets that are judged together.
const BATCH: usize = 64;

/// A pipeline under so many rules and one that allows TCP 443 from 203.0.0.0/8.
///
/// # Panics
/// Never.
#[must_use]
pub fn pipeline(n: usize, max_flows: usize) -> Pipeline {
    let mut rules = rules(n);
    let mut https = rules[0].clone();
    https.matches = L4Match::Tcp(PortRange { from: 443, to: 443 });
    https.peer = Peer::Cidr("203.0.0.0/8".parse().expect("a range"));
    rules.push(https);
    let compiled = CompiledPolicy::compile(&policy(rules), Generation(0));
    Pipeline::new(Arc::new(compiled), Config { max_flows, hash_seed: [1, 2, 3, 4] })
}

/// Frames in one piece of memory, each on cache lines of its own.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    stride: usize,
    len: usize,
    direction: Direction,
}

impl Frames {
    /// Each frame is what `line` says, with its flow's number in the client's address and port.
    ///
    /// # Panics
    /// If `line` is no packet.
    #[must_use]
    pub fn new(line: &str, direction: Direction, flows: impl Iterator<Item = u32>) -> Self {
        let one = line.parse::<PacketSpec>().expect("a packet").to_frame();
        let stride = one.len().next_multiple_of(64);
        let mut bytes = Vec::new();
        for flow in flows {
            let start = bytes.len();
            bytes.extend_from_slice(&one);
            bytes.resize(start + stride, 0);
            // The low 24 bits of the client's address, and its port.
            let (address, port) = match direction {
                Direction::Ingress => (start + 27, start + 34),
                Direction::Egress => (start + 31, start + 36),
            };
            let [_, a, b, c] = (flow >> 12).to_be_bytes();
            bytes[address..address + 3].copy_from_slice(&[a, b, c]);
            bytes[port..port + 2].copy_from_slice(&(1024 + (flow & 0xfff) as u16).to_be_bytes());
        }
        Frames { bytes, stride, len: one.len(), direction }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes.len() / self.stride
    }
}

/// Judges frames, and adds up how many passed.
///
/// # Panics
/// If a frame is no IP packet.
pub fn judge(pipeline: &mut Pipeline, frames: &Frames) -> usize {
    let (mut passed, direction, len) = (0, frames.direction, frames.len);
    let mut headers = [Headers::NONE; BATCH];
    for batch in frames.bytes.chunks(frames.stride * BATCH) {
        let frames = batch.chunks_exact(frames.stride);
        for (headers, frame) in headers.iter_mut().zip(frames.clone()) {
            let parsed = parse_into(LinkType::Ethernet, &frame[..len], len, headers);
            assert_eq!(parsed, Ok(Kind::Ip));
        }
        let packets = headers.iter().zip(frames).map(|(headers, frame)| PacketContext {
            interface: 0,
            direction,
            now: NOW,
            headers,
            frame,
            own_address: true,
            origin: None,
            token: 0,
            size: headers.ip_len,
        });
        pipeline.process_batch(packets, |_, verdict| passed += usize::from(verdict.is_pass()));
    }
    passed
}

/// The numbers below `n` in an order of no meaning, the same each time.
#[must_use]
pub fn shuffled(n: u32) -> Vec<u32> {
    let mut random = Random::new(0x5eed_0007);
    let mut order: Vec<u32> = (0..n).collect();
    for i in (1..n as usize).rev() {
        order.swap(i, random.draw() as usize % (i + 1));
    }
    order
}

/// Opens flows, with the whole handshake.
///
/// # Panics
/// If one of them does not pass.
pub fn open(pipeline: &mut Pipeline, flows: u32) {
    let (inward, outward) = (Direction::Ingress, Direction::Egress);
    let steps = [
        ("tcp 203.0.0.1:1 -> 10.0.1.10:443 S seq=1 win=65535", inward),
        ("tcp 10.0.1.10:443 -> 203.0.0.1:1 SA seq=1 ack=2 win=65535", outward),
        ("tcp 203.0.0.1:1 -> 10.0.1.10:443 A seq=2 ack=2 win=65535", inward),
    ];
    for (line, direction) in steps {
        let frames = Frames::new(line, direction, 0..flows);
        assert_eq!(judge(pipeline, &frames), flows as usize, "{line}");
    }
    let states = pipeline.connections().iter(NOW).map(|flow| flow.state);
    assert!(states.into_iter().all(|state| state == FlowState::TcpEstablished));
}
