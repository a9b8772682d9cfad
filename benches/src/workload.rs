//! Frames in memory and a pipeline to judge them: the whole way of a packet but its devices.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use sgwall_conntrack::FlowState;
use sgwall_dataplane::{Config, FullTable, PacketContext, Pipeline};
use sgwall_packet::{Direction, Headers, Kind, LinkType, PacketSpec, Timestamp, parse_into};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::model::{
    AclAction, L4Match, NetworkAcl, NetworkAclEntry, Peer, PortRange, SecurityGroupRule,
};

use crate::{RUN, Random, Work, policy, rules};

/// When all packets come.
pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Packets that are judged together.
const BATCH: usize = 64;

/// A pipeline under so many rules and three more: TCP 443 from 203.0.0.0/8, which is tracked, UDP
/// 53 from everywhere, whose answers may go everywhere and which is not (SEMANTICS 6.2), and its
/// answers. The subnet's network ACL has a hundred entries before the one that allows everything.
///
/// # Panics
/// Never.
#[must_use]
pub fn pipeline(n: usize, max_flows: usize) -> Pipeline {
    let mut rules = rules(n);
    let allow = |matches, peer: &str, id: &str| SecurityGroupRule {
        id: id.into(),
        matches,
        peer: Peer::Cidr(peer.parse().expect("a range")),
        description: None,
        origin: Origin::synthetic("bench"),
    };
    let port = |port| PortRange { from: port, to: port };
    rules.push(allow(L4Match::Tcp(port(443)), "203.0.0.0/8", "https"));
    rules.push(allow(L4Match::Udp(port(53)), "0.0.0.0/0", "dns"));
    let mut policy = policy(rules);
    let answers = L4Match::Udp(PortRange { from: 0, to: u16::MAX });
    policy.security_groups[0].egress.push(allow(answers, "0.0.0.0/0", "answers"));
    let entry = |rule_number: u16, action, matches, cidr: &str| NetworkAclEntry {
        rule_number,
        action,
        matches,
        cidr: cidr.parse().expect("a range"),
        origin: Origin::synthetic("bench"),
    };
    let entries = || -> Vec<NetworkAclEntry> {
        let deny = (1..=100).map(|number| {
            let cidr = format!("198.51.{number}.0/24");
            entry(number, AclAction::Deny, L4Match::All, &cidr)
        });
        deny.chain([entry(32_000, AclAction::Allow, L4Match::All, "0.0.0.0/0")]).collect()
    };
    policy.subnets[0].network_acl = Some("acl".into());
    policy.network_acls.push(NetworkAcl {
        id: "acl".into(),
        vpc: Some("vpc".into()),
        is_default: false,
        ingress: entries(),
        egress: entries(),
        origin: Origin::synthetic("bench"),
    });
    let compiled = CompiledPolicy::compile(&policy, Generation(0));
    Pipeline::new(
        Arc::new(compiled),
        Config { max_flows, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] },
    )
}

/// Frames in one piece of memory, each on cache lines of its own.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where each begins, and its length; of frames of one length only the first.
    places: Vec<(u32, u32)>,
    /// Frames of one length begin so far from one another.
    stride: Option<usize>,
    direction: Direction,
}

/// Lengths of frames without their checksums, as they are often mixed: seven small ones and four
/// medium ones to a large one.
pub const IMIX: [usize; 12] = [60, 60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590];

impl Frames {
    /// Each frame is what `line` says, with its flow's number in the client's address and port, and
    /// the next of `lengths` bytes long, in turn; no less than `line` says.
    ///
    /// # Panics
    /// If `line` is no packet.
    #[must_use]
    pub fn new(
        line: &str,
        direction: Direction,
        flows: impl Iterator<Item = u32>,
        lengths: &[usize],
    ) -> Self {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        let shortest = line.parse::<PacketSpec>().expect("a packet").to_frame().len();
        let kinds = lengths.iter().map(|len| {
            let data = len.saturating_sub(shortest);
            format!("{line} len={data}").parse::<PacketSpec>().expect("a packet").to_frame()
        });
        let kinds: Vec<_> = kinds.collect();
        for (flow, frame) in flows.zip(kinds.iter().cycle()) {
            let start = bytes.len();
            if places.is_empty() || kinds.len() > 1 {
                places.push((start as u32, frame.len() as u32));
            }
            bytes.extend_from_slice(frame);
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            // The low 24 bits of the client's address, and its port.
            let (address, port) = match direction {
                Direction::Ingress => (start + 27, start + 34),
                Direction::Egress => (start + 31, start + 36),
            };
            let [_, a, b, c] = (flow >> 12).to_be_bytes();
            bytes[address..address + 3].copy_from_slice(&[a, b, c]);
            bytes[port..port + 2].copy_from_slice(&(1024 + (flow & 0xfff) as u16).to_be_bytes());
        }
        let stride = kinds.first().filter(|_| kinds.len() == 1);
        let stride = stride.map(|frame| frame.len().next_multiple_of(64));
        Frames { bytes, places, stride, direction }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.stride.map_or(self.places.len(), |stride| self.bytes.len() / stride)
    }
}

/// Judges all frames, and adds up how many passed. Never part of its caller: `benches/guard` counts
/// the instructions between its beginning and its end.
///
/// # Panics
/// If a frame is no IP packet.
#[inline(never)]
pub fn judge(pipeline: &mut Pipeline, frames: &Frames) -> usize {
    judge_some(pipeline, frames, 0..frames.count())
}

fn judge_some(pipeline: &mut Pipeline, frames: &Frames, which: Range<usize>) -> usize {
    let &Frames { ref bytes, ref places, stride, direction } = frames;
    let (mut passed, mut headers) = (0, [Headers::NONE; BATCH]);
    let Some(stride) = stride else {
        for batch in places[which].chunks(BATCH) {
            let frame = |&(start, len): &(u32, u32)| &bytes[start as usize..][..len as usize];
            passed += judge_batch(pipeline, direction, &mut headers, batch.iter().map(frame));
        }
        return passed;
    };
    let len = places.first().map_or(0, |&(_, len)| len as usize);
    for batch in bytes[which.start * stride..which.end * stride].chunks(stride * BATCH) {
        let frames = batch.chunks_exact(stride).map(|frame| &frame[..len]);
        passed += judge_batch(pipeline, direction, &mut headers, frames);
    }
    passed
}

#[inline(always)]
fn judge_batch<'a>(
    pipeline: &mut Pipeline,
    direction: Direction,
    headers: &mut [Headers; BATCH],
    frames: impl Iterator<Item = &'a [u8]> + Clone,
) -> usize {
    let mut passed = 0;
    for (headers, frame) in headers.iter_mut().zip(frames.clone()) {
        let parsed = parse_into(LinkType::Ethernet, frame, frame.len(), headers);
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
    passed
}

/// Reads the headers of all frames, which are of one length, and adds up how many are of IP packets. Never part of its caller,
/// as [`judge`].
#[inline(never)]
#[must_use]
pub fn parse_all(frames: &Frames) -> usize {
    let mut headers = Headers::NONE;
    let len = frames.places.first().map_or(0, |&(_, len)| len as usize);
    let is_ip = |frame: &[u8]| {
        let frame = &frame[..len];
        let parsed = parse_into(LinkType::Ethernet, frame, frame.len(), &mut headers);
        black_box(&headers);
        usize::from(parsed == Ok(Kind::Ip))
    };
    frames.stride.map_or(0, |stride| frames.bytes.chunks_exact(stride).map(is_ip).sum())
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

/// A packet of a flow that [`open`] has opened.
pub const DATA: &str = "tcp 203.0.0.1:1 -> 10.0.1.10:443 A seq=2 ack=2 win=65535";

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
        let frames = Frames::new(line, direction, 0..flows, &[60]);
        assert_eq!(judge_some(pipeline, &frames, 0..frames.count()), flows as usize, "{line}");
    }
    let states = pipeline.connections().iter(NOW).map(|flow| flow.state);
    assert!(states.into_iter().all(|state| state == FlowState::TcpEstablished));
}

/// What kind of packets a [`Packets`] judges: what becomes of them, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Data of tracked TCP flows whose handshake is complete.
    Established,
    /// The first packets of flows that become tracked.
    New,
    /// Packets that a rule admits without their flow being tracked.
    Untracked,
    /// Packets that no rule admits.
    Refused,
}

impl Traffic {
    /// All of them.
    pub const ALL: [Traffic; 4] =
        [Traffic::Established, Traffic::New, Traffic::Untracked, Traffic::Refused];

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Traffic::Established => "established",
            Traffic::New => "new",
            Traffic::Untracked => "untracked",
            Traffic::Refused => "refused",
        }
    }

    /// Its packets under the policy of [`pipeline`].
    const fn line(self) -> &'static str {
        match self {
            Traffic::Established => DATA,
            Traffic::New => "tcp 203.0.0.1:1 -> 10.0.1.10:443 S seq=1",
            Traffic::Untracked => "udp 203.0.0.1:1 -> 10.0.1.10:53",
            Traffic::Refused => "tcp 203.0.0.1:1 -> 10.0.1.10:444 S",
        }
    }
}

/// Packets of one kind, judged over and over.
#[derive(Debug)]
pub struct Packets {
    traffic: Traffic,
    pipeline: Pipeline,
    frames: Frames,
    /// The next to be judged.
    at: usize,
}

impl Packets {
    /// Packets of `flows` flows in no order, of these lengths in turn, under `rules` rules and those
    /// of [`pipeline`].
    #[must_use]
    pub fn new(traffic: Traffic, flows: u32, rules: usize, lengths: &[usize]) -> Self {
        let mut pipeline = pipeline(rules, flows as usize + 64);
        if traffic == Traffic::Established {
            open(&mut pipeline, flows);
        }
        // A run over fewer is too short for the clock; the first packet of a flow comes but once.
        let count = if traffic == Traffic::New { flows as usize } else { RUN.max(flows as usize) };
        let order = shuffled(flows).into_iter().cycle().take(count);
        let frames = Frames::new(traffic.line(), Direction::Ingress, order, lengths);
        Packets { traffic, pipeline, frames, at: 0 }
    }

    /// All frames once, as [`judge`] does it.
    ///
    /// # Panics
    /// If one of them does not fare as its kind says.
    pub fn judge_all(&mut self) -> usize {
        let (count, passed) = (self.frames.count(), judge(&mut self.pipeline, &self.frames));
        self.at = count;
        self.check(count, passed);
        count
    }

    fn check(&self, count: usize, passed: usize) {
        let expected = if self.traffic == Traffic::Refused { 0 } else { count };
        assert_eq!(passed, expected, "{:?}", self.traffic);
    }
}

impl Work for Packets {
    fn prepare(&mut self) {
        if self.at == self.frames.count() {
            self.at = 0;
            if self.traffic == Traffic::New {
                let places = 0..self.pipeline.connections().places();
                self.pipeline.end_flows(places, NOW, |_| true);
            }
        }
    }

    fn run(&mut self) -> usize {
        let end = (self.at + RUN).min(self.frames.count());
        let which = self.at..end;
        let count = which.len();
        let passed = judge_some(&mut self.pipeline, &self.frames, which);
        self.check(count, passed);
        self.at = end;
        count
    }
}
