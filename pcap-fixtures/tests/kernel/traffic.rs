//! Packets that go through the kernel: conversations of an instance with hosts outside, a few of
//! them honest from beginning to end, the others with segments lost, repeated or made up.

use std::net::IpAddr;

use fastrand::Rng;
use sgwall_packet::build::{IpFields, TcpFields, icmp, ip, tcp, udp};
use sgwall_packet::{Direction, TcpFlags, protocol};

const REMOTES: [&[&str]; 2] = [
    &[
        "203.0.113.1",
        "203.0.113.2",
        "198.51.100.7",
        "10.0.1.20",
        "10.0.2.10",
        "10.1.1.10",
        "10.0.9.9",
        "10.200.200.1",
    ],
    &["2001:db8:f::1", "2001:db8:f::2", "2001:db8:0:2::10", "2001:db8:0:1:1::5", "2001:db9::1"],
];
const PORTS: [u16; 10] = [80, 80, 22, 53, 53, 1000, 1500, 40_000, 40_001, 65_535];

/// A conversation.
struct Talk {
    /// The instance, and the other host.
    ends: [IpAddr; 2],
    ports: [u16; 2],
    protocol: u8,
    identifier: u16,
    /// TCP: the next sequence numbers, and what is still to come in order.
    next: [u32; 2],
    script: Vec<(usize, u8)>,
    /// The last packets of both.
    last: [Vec<u8>; 2],
}

const FIN: u8 = TcpFlags::FIN.0;
const SYN: u8 = TcpFlags::SYN.0;
const RST: u8 = TcpFlags::RST.0;
const ACK: u8 = TcpFlags::ACK.0;

/// `len` packets of an instance with these addresses, each with its direction.
pub(crate) fn sequence(rng: &mut Rng, own: [IpAddr; 2], len: usize) -> Vec<(Direction, Vec<u8>)> {
    let mut talks: Vec<Talk> = (0..rng.usize(5..25)).map(|_| Talk::new(rng, own)).collect();
    (0..len)
        .map(|_| {
            let talk = rng.usize(..talks.len());
            let (from, packet) = talks[talk].packet(rng);
            let direction = if from == 0 { Direction::Egress } else { Direction::Ingress };
            (direction, packet)
        })
        .collect()
}

impl Talk {
    fn new(rng: &mut Rng, own: [IpAddr; 2]) -> Self {
        let is_v6 = rng.u8(0..3) == 0;
        let remotes = REMOTES[usize::from(is_v6)];
        let remote = remotes[rng.usize(..remotes.len())].parse().expect("an address");
        let protocol = match rng.u8(0..10) {
            0..=4 => protocol::TCP,
            5..=7 => protocol::UDP,
            8 if is_v6 => protocol::ICMPV6,
            8 => protocol::ICMP,
            _ => 99,
        };
        let mut port = || PORTS[rng.usize(..PORTS.len())];
        Talk {
            ends: [own[usize::from(is_v6)], remote],
            ports: [port(), port()],
            protocol,
            identifier: rng.u16(1..4),
            next: [rng.u32(..), rng.u32(..)],
            script: Vec::new(),
            last: Default::default(),
        }
    }

    /// Who sends the next packet, and its bytes.
    fn packet(&mut self, rng: &mut Rng) -> (usize, Vec<u8>) {
        let from = rng.usize(..2);
        let quoted = &self.last[1 - from];
        if rng.u8(0..16) == 0 && !quoted.is_empty() {
            return (from, self.error(rng, from, &quoted[..quoted.len().min(200)]));
        }
        if rng.u8(0..20) == 0 && !self.last[from].is_empty() {
            return (from, self.last[from].clone());
        }
        let (from, payload) = match self.protocol {
            protocol::TCP => self.segment(rng),
            protocol::UDP => {
                let ports = (self.ports[from], self.ports[1 - from]);
                (from, udp(self.ends[from], self.ends[1 - from], ports, &[0; 9]))
            }
            99 => (from, vec![0; 20]),
            proto => (from, self.message(rng, from, proto)),
        };
        let packet = self.packed(from, self.protocol, &payload);
        self.last[from].clone_from(&packet);
        (from, packet)
    }

    fn packed(&self, from: usize, proto: u8, payload: &[u8]) -> Vec<u8> {
        ip(self.ends[from], self.ends[1 - from], proto, IpFields::default(), payload)
    }

    fn error(&self, rng: &mut Rng, from: usize, quoted: &[u8]) -> Vec<u8> {
        let (proto, kind) = match self.ends[0].is_ipv6() {
            true => (protocol::ICMPV6, rng.u8(1..5)),
            false => (protocol::ICMP, [3, 4, 5, 11, 12][rng.usize(..5)]),
        };
        let code = rng.u8(0..5);
        let ends = (self.ends[from], self.ends[1 - from]);
        let message = icmp(ends.0, ends.1, proto, (kind, code), [0; 4], quoted);
        self.packed(from, proto, &message)
    }

    fn message(&self, rng: &mut Rng, from: usize, proto: u8) -> Vec<u8> {
        let kinds: &[u8] = match proto {
            protocol::ICMP => &[8, 8, 0, 0, 13, 14, 17, 18, 42],
            _ => &[128, 128, 129, 129, 200],
        };
        let kind = kinds[rng.usize(..kinds.len())];
        let [high, low] = self.identifier.to_be_bytes();
        let ends = (self.ends[from], self.ends[1 - from]);
        icmp(ends.0, ends.1, proto, (kind, 0), [high, low, 0, 1], &[0; 12])
    }

    fn segment(&mut self, rng: &mut Rng) -> (usize, Vec<u8>) {
        if self.script.is_empty() {
            self.script = script(rng);
        }
        let (mut from, mut flags) = self.script.remove(0);
        let odd = rng.u8(0..20);
        match odd {
            // Lost before it came here: the next one comes in its place.
            0 if !self.script.is_empty() => (from, flags) = self.script.remove(0),
            1 => {
                (from, flags) =
                    (rng.usize(..2), [SYN, SYN | ACK, ACK, FIN | ACK, RST][rng.usize(..5)])
            }
            2 => (from, flags) = (rng.usize(..2), rng.u8(..)),
            _ => {}
        }
        let data = if flags == ACK && rng.bool() { vec![0; rng.usize(1..60)] } else { Vec::new() };
        let opens = flags & (SYN | ACK) == SYN && odd != 1 && odd != 2;
        if opens {
            self.next[from] = rng.u32(..);
        }
        let fields = TcpFields {
            src_port: self.ports[from],
            dst_port: self.ports[1 - from],
            seq: self.next[from],
            ack: if flags & ACK != 0 { self.next[1 - from] } else { 0 },
            flags: TcpFlags(flags),
            window: 8192,
            window_scale: None,
        };
        if odd != 1 && odd != 2 {
            let taken = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            self.next[from] = self.next[from].wrapping_add(taken + data.len() as u32);
        }
        (from, tcp(self.ends[from], self.ends[1 - from], &fields, &data))
    }
}

/// A connection from its SYN to its end.
fn script(rng: &mut Rng) -> Vec<(usize, u8)> {
    let a = rng.usize(..2);
    let b = 1 - a;
    if rng.u8(0..8) == 0 {
        return vec![(a, SYN), (b, RST | ACK)];
    }
    let mut script = vec![(a, SYN), (b, SYN | ACK), (a, ACK)];
    script.extend((0..rng.usize(0..8)).map(|_| (rng.usize(..2), ACK)));
    let (first, second) = if rng.bool() { (a, b) } else { (b, a) };
    match rng.u8(0..4) {
        0 => script.push((first, RST | ACK)),
        1 => {}
        _ => script.extend([(first, FIN | ACK), (second, ACK), (second, FIN | ACK), (first, ACK)]),
    }
    script
}
