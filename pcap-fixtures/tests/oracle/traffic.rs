//! Random packets: conversations that mostly go as protocols have it, so that flows reach all their
//! states, with everything in between that senders should not do.

use std::net::IpAddr;

use fastrand::Rng;
use sgwall_packet::build::{IpFields, TcpFields, icmp, ip, tcp, udp};
use sgwall_packet::{Direction, FragmentInfo, Headers, TcpFlags, parse_ip, protocol};
use sgwall_rules::model::Policy;

/// A packet on one side of an interface.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The interface's place in the policy.
    pub(crate) interface: usize,
    pub(crate) direction: Direction,
    pub(crate) origin: Option<usize>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: Headers,
    pub(crate) size: u32,
}

/// Those who talk with one another.
pub(crate) struct Traffic {
    talks: Vec<Talk>,
    /// Pieces of datagrams that are still to come.
    pieces: Vec<(usize, usize, Vec<u8>)>,
}

struct Talk {
    interface: String,
    /// The interface's end, and the other.
    ends: [End; 2],
    protocol: u8,
    /// Of ICMP.
    identifier: u16,
}

struct End {
    address: IpAddr,
    port: u16,
    /// TCP: the number of the next byte.
    next: u32,
    scale: Option<u8>,
    last: Vec<u8>,
}

const REMOTES: [&[&str]; 2] = [
    &[
        "203.0.113.1",
        "203.0.113.2",
        "198.51.100.7",
        "10.0.1.10",
        "10.0.1.20",
        "10.0.1.11",
        "10.0.2.10",
        "10.1.1.10",
        "10.0.1.99",
        "10.0.9.9",
        "10.0.1.1",
        "10.0.0.2",
        "169.254.169.254",
        "169.254.169.123",
        "10.0.1.255",
        "255.255.255.255",
        "224.0.0.5",
    ],
    &[
        "2001:db8:f::1",
        "2001:db8:f::2",
        "2001:db8:0:1::10",
        "2001:db8:0:1::20",
        "2001:db8:0:2::10",
        "2001:db8:0:1::1",
        "fd00:ec2::253",
        "fe80::1",
        "ff02::1:2",
    ],
];

const PORTS: [u16; 16] =
    [80, 80, 22, 53, 53, 123, 67, 68, 546, 547, 1000, 1500, 40_000, 40_001, 65_535, 0];

impl Traffic {
    pub(crate) fn new(rng: &mut Rng, policy: &Policy) -> Self {
        let talks = (0..rng.usize(4..40)).filter_map(|_| Talk::new(rng, policy)).collect();
        Traffic { talks, pieces: Vec::new() }
    }

    /// The next packet, if there is one for an interface that `policy` has.
    pub(crate) fn next(&mut self, rng: &mut Rng, policy: &Policy) -> Option<Sent> {
        if self.talks.is_empty() || rng.u8(0..60) == 0 {
            let talk = Talk::new(rng, policy)?;
            match self.talks.len() {
                0..40 => self.talks.push(talk),
                len => self.talks[rng.usize(..len)] = talk,
            }
        }
        let (at, from, bytes) = match self.pieces.len() {
            0 => self.packet(rng),
            len if rng.bool() => self.pieces.swap_remove(rng.usize(..len)),
            _ => self.packet(rng),
        };
        let headers = parse_ip(&bytes, bytes.len()).ok()?;
        let find = |id: &str| policy.interfaces.iter().position(|i| i.id == id);
        let mut interface = find(&self.talks.get(at)?.interface)?;
        let mut direction = if from == 0 { Direction::Egress } else { Direction::Ingress };
        // A packet that comes from the wrong side, as an instance that lies would send it, or one
        // that an interface has only to carry.
        if rng.u8(0..12) == 0 {
            direction = direction.reverse();
        }
        if rng.u8(0..30) == 0 {
            interface = rng.usize(..policy.interfaces.len());
        }
        let origin = (direction == Direction::Ingress && rng.u8(0..4) == 0)
            .then(|| rng.usize(..policy.interfaces.len()));
        let size = match rng.u8(0..20) {
            0 => 0,
            1 => headers.ip_len.min(1400),
            _ => headers.ip_len,
        };
        Some(Sent { interface, direction, origin, bytes, headers, size })
    }

    /// A packet of some talk: whose, from which end, and its bytes.
    fn packet(&mut self, rng: &mut Rng) -> (usize, usize, Vec<u8>) {
        let at = rng.usize(..self.talks.len());
        let talk = &mut self.talks[at];
        let from = rng.usize(..2);
        let (src, dst) = (talk.ends[from].address, talk.ends[1 - from].address);
        let quoted = &talk.ends[1 - from].last;
        if !quoted.is_empty() && rng.u8(0..16) == 0 {
            let quoted = quoted[..quoted.len().min(500)].to_vec();
            return (at, from, error(rng, src, dst, &quoted));
        }
        let (proto, payload) = talk.payload(rng, from);
        let fields = IpFields {
            hop_limit: if rng.u8(0..4) == 0 { 255 } else { 64 },
            dont_fragment: rng.bool(),
            fragment: None,
        };
        if rng.u8(0..40) == 0 {
            let mut pieces = fragments(rng, src, dst, proto, fields, &payload);
            let first = pieces.swap_remove(rng.usize(..pieces.len()));
            self.pieces.extend(pieces.into_iter().map(|bytes| (at, from, bytes)));
            return (at, from, first);
        }
        let bytes = ip(src, dst, proto, fields, &payload);
        talk.ends[from].last.clone_from(&bytes);
        (at, from, bytes)
    }
}

impl Talk {
    fn new(rng: &mut Rng, policy: &Policy) -> Option<Self> {
        let interface = rng.choice(&policy.interfaces)?;
        let mut ours = *rng.choice(&interface.addresses)?;
        let remotes = REMOTES[usize::from(ours.is_ipv6())];
        // The first ones are other hosts, the last ones services and what a VPC does not carry.
        let some = if rng.u8(0..4) > 0 { remotes.len() / 2 } else { remotes.len() };
        let mut pick = || remotes[rng.usize(..some)].parse().expect("an address");
        let theirs: IpAddr = pick();
        let other: IpAddr = pick();
        if rng.u8(0..5) == 0 {
            ours = other;
        }
        let of_family = if ours.is_ipv6() { protocol::ICMPV6 } else { protocol::ICMP };
        let protocol = match rng.u8(0..20) {
            0..=9 => protocol::TCP,
            10..=15 => protocol::UDP,
            16..=17 => of_family,
            18 => [protocol::ICMP, protocol::ICMPV6][rng.usize(..2)],
            _ => [47, 132, 51][rng.usize(..3)],
        };
        // The ports of services and of DHCP belong to certain addresses, which chance seldom finds.
        let is_dhcp = protocol == protocol::UDP && rng.u8(0..6) == 0;
        let dhcp_ports = if ours.is_ipv6() { [546, 547] } else { [68, 67] };
        let mut end = |address| End {
            address,
            port: PORTS[rng.usize(..PORTS.len())],
            next: if rng.bool() { rng.u32(..) } else { u32::MAX - rng.u32(..3000) },
            scale: (rng.bool()).then(|| rng.u8(0..15)),
            last: Vec::new(),
        };
        let mut ends = [end(ours), end(theirs)];
        if is_dhcp {
            [ends[0].port, ends[1].port] = dhcp_ports;
        }
        Some(Talk { interface: interface.id.clone(), ends, protocol, identifier: rng.u16(1..4) })
    }

    fn payload(&mut self, rng: &mut Rng, from: usize) -> (u8, Vec<u8>) {
        let len = match rng.u8(0..24) {
            0 => rng.usize(1200..1700),
            1 => rng.usize(8900..9100),
            2..=9 => rng.usize(1..100),
            _ => 0,
        };
        let data = vec![0; len];
        let (src, dst) = (self.ends[from].address, self.ends[1 - from].address);
        let ports = (self.ends[from].port, self.ends[1 - from].port);
        let payload = match self.protocol {
            protocol::TCP => self.segment(rng, from, &data),
            protocol::UDP => udp(src, dst, ports, &data),
            protocol::ICMP | protocol::ICMPV6 => {
                let kinds: &[u8] = match self.protocol {
                    protocol::ICMP => &[8, 8, 0, 0, 13, 14, 3, 5, 42],
                    _ => &[128, 128, 129, 129, 139, 140, 135, 1, 200],
                };
                let kind = kinds[rng.usize(..kinds.len())];
                let code = if rng.u8(0..4) == 0 { rng.u8(0..5) } else { 0 };
                let [high, low] = self.identifier.to_be_bytes();
                icmp(src, dst, self.protocol, (kind, code), [high, low, 0, 1], &data)
            }
            _ => data,
        };
        (self.protocol, payload)
    }

    fn segment(&mut self, rng: &mut Rng, from: usize, data: &[u8]) -> Vec<u8> {
        let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
        let flags = match rng.u8(0..40) {
            0..=5 => syn,
            6..=11 => syn | ack,
            12..=29 => ack,
            30..=34 => fin | ack,
            35 => rst,
            36 => rst | ack,
            37 => fin,
            _ => TcpFlags(rng.u8(..)),
        };
        // Most numbers are right, some a little off, some far.
        let mut off = || match rng.u8(0..16) {
            0 => rng.u32(..),
            1 => rng.u32(..70_000),
            2 => rng.u32(..70_000).wrapping_neg(),
            3 => 1,
            _ => 0,
        };
        let seq = self.ends[from].next.wrapping_add(off());
        let fields = TcpFields {
            src_port: self.ends[from].port,
            dst_port: self.ends[1 - from].port,
            seq,
            ack: self.ends[1 - from].next.wrapping_add(off()),
            flags,
            window: if rng.u8(0..4) == 0 { rng.u16(..) } else { 8192 },
            window_scale: self.ends[from].scale.filter(|_| flags.contains(syn)),
        };
        let taken = u32::from(flags.contains(syn)) + u32::from(flags.contains(fin));
        // Sometimes it is sent again, from where it was.
        if seq == self.ends[from].next && rng.u8(0..4) > 0 {
            self.ends[from].next = seq.wrapping_add(taken + data.len() as u32);
        }
        tcp(self.ends[from].address, self.ends[1 - from].address, &fields, data)
    }
}

fn error(rng: &mut Rng, src: IpAddr, dst: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let proto = if src.is_ipv6() { protocol::ICMPV6 } else { protocol::ICMP };
    let kind = if src.is_ipv6() { rng.u8(1..5) } else { [3, 4, 5, 11, 12][rng.usize(..5)] };
    let message = icmp(src, dst, proto, (kind, rng.u8(0..5)), [0; 4], quoted);
    ip(src, dst, proto, IpFields::default(), &message)
}

/// A datagram in pieces, in any order; sometimes one is missing, repeated, or not where it should
/// be.
fn fragments(
    rng: &mut Rng,
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    fields: IpFields,
    payload: &[u8],
) -> Vec<Vec<u8>> {
    let id = rng.u32(1..6);
    let mut payload = payload.to_vec();
    payload.resize(payload.len().max([64, 64, 400][rng.usize(..3)]), 0);
    let step = match payload.len() {
        ..500 => rng.usize(1..5) * 8,
        len => (len / rng.usize(2..6)).next_multiple_of(8),
    };
    let mut pieces = Vec::new();
    let mut offset = 0;
    for data in payload.chunks(step) {
        let more = offset + data.len() < payload.len();
        let shifted = if rng.u8(0..30) == 0 { 8 } else { 0 };
        let info = FragmentInfo { id, offset: (offset + shifted) as u32, len: 0, more };
        let piece = ip(src, dst, proto, IpFields { fragment: Some(info), ..fields }, data);
        match rng.u8(0..20) {
            0 => {}
            1 => pieces.extend([piece.clone(), piece]),
            _ => pieces.push(piece),
        }
        offset += data.len();
    }
    if pieces.is_empty() {
        pieces.push(ip(src, dst, proto, fields, &payload));
    }
    if rng.bool() {
        rng.shuffle(&mut pieces);
    }
    pieces
}
