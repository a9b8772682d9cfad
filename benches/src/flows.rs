//! The flow table at work: TCP flows that are opened, looked up, closed and forgotten.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use sgwall_conntrack::{
    Config, ConnTable, FlowState, FullTable, Hit, Lookup, Mark, Probe, RuleTag, Scope,
    TimeoutProfile,
};
use sgwall_packet::{Headers, Tcp, TcpFlags, Timestamp, Transport, protocol};

use crate::{RUN, Random, Work};

/// When the first packets come.
pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Packets that are looked up together.
const BATCH: usize = 64;
const SCOPE: Scope = Scope(0);
/// What the dataplane puts on flows once it knows that their packets may pass.
const MARK: Mark = Mark::new(1, false);
/// A prime beyond any number of flows: multiples of it visit each number below that once.
const SCATTER: u64 = 2_654_435_761;

/// A packet of a flow's life, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Opens it.
    Syn,
    /// Is the answer to that.
    SynAck,
    /// Completes the handshake, and is data of the client's from then on.
    Data,
    /// Ends it.
    Reset,
}

/// A packet of a flow, by the flow's number.
#[must_use]
pub fn packet(is_ipv6: bool, flow: u32, segment: Segment) -> Headers {
    let (address, port) = (flow >> 12, 1024 + (flow & 0xfff) as u16);
    let (client, server): (IpAddr, IpAddr) = match is_ipv6 {
        false => (Ipv4Addr::from(0xcb00_0000 | address).into(), Ipv4Addr::new(10, 0, 1, 10).into()),
        true => (
            Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(address)).into(),
            Ipv6Addr::from(0x2001_0db8_0001 << 80 | 10).into(),
        ),
    };
    let (flags, seq, ack) = match segment {
        Segment::Syn => (TcpFlags::SYN, 1, 0),
        Segment::SynAck => (TcpFlags::SYN | TcpFlags::ACK, 1, 2),
        Segment::Data => (TcpFlags::ACK, 2, 2),
        Segment::Reset => (TcpFlags::RST | TcpFlags::ACK, 2, 2),
    };
    let is_reply = segment == Segment::SynAck;
    let (src_port, dst_port) = if is_reply { (443, port) } else { (port, 443) };
    let (src, dst) = if is_reply { (server, client) } else { (client, server) };
    let (window, window_scale, payload_len) = (65_535, None, 0);
    let tcp = Tcp { src_port, dst_port, seq, ack, window, flags, window_scale, payload_len };
    let transport = Transport::Tcp(tcp);
    Headers { src, dst, protocol: protocol::TCP, transport, ip_len: 40, ..Headers::NONE }
}

/// What is done with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Packets of established flows, of which each is as likely as the other: looked up, and noted
    /// in their entries.
    Uniform(Way),
    /// The same of flows of which the *k*-th most popular one has a share like 1/*k* (Zipf's law).
    Zipf(Way),
    /// Entries are made, until the table is full; then it is emptied, which does not count.
    Insert,
    /// Flows that ended in the course of a minute are freed, with the table then filled again,
    /// which does not count.
    Expire,
    /// A table as it is in use: of 64 packets 60 are data, three open a flow and one ends another,
    /// which is forgotten ten seconds later. All flows are as likely.
    Mixed,
}

/// How packets are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each for itself, with [`ConnTable::lookup`].
    One,
    /// Batches of 64, with [`ConnTable::locate`]: as the dataplane does.
    Batch,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 7] = [
        Operation::Uniform(Way::One),
        Operation::Uniform(Way::Batch),
        Operation::Zipf(Way::One),
        Operation::Zipf(Way::Batch),
        Operation::Insert,
        Operation::Expire,
        Operation::Mixed,
    ];

    /// Its words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Uniform(Way::One) => "established-uniform-one",
            Operation::Uniform(Way::Batch) => "established-uniform-batch",
            Operation::Zipf(Way::One) => "established-zipf-one",
            Operation::Zipf(Way::Batch) => "established-zipf-batch",
            Operation::Insert => "insert",
            Operation::Expire => "expire",
            Operation::Mixed => "mixed",
        }
    }
}

/// One operation on one table, over and over.
#[derive(Debug)]
pub struct Flows {
    table: ConnTable,
    operation: Operation,
    is_ipv6: bool,
    /// How many flows it is about.
    count: u32,
    timeouts: TimeoutProfile,
    now: Timestamp,
    /// Packets of the next run.
    packets: Vec<Headers>,
    random: Random,
    /// The oldest flow that is open, and the next to be opened.
    open: std::ops::Range<u32>,
}

impl Flows {
    /// A table of `count` flows, up to 2^31, ready for its first run.
    #[must_use]
    pub fn new(operation: Operation, count: u32, is_ipv6: bool) -> Self {
        // Flows that have ended stay for ten seconds: a sixteenth of the others.
        let ended = if operation == Operation::Mixed { count as usize / 8 + RUN } else { 0 };
        let max_entries = count as usize + ended;
        let mut flows = Flows {
            table: ConnTable::new(Config {
                max_entries,
                full_table: FullTable::DropNew,
                hash_seed: [1, 2, 3, 4],
            }),
            operation,
            is_ipv6,
            count,
            timeouts: TimeoutProfile::default(),
            now: NOW,
            packets: Vec::with_capacity(RUN),
            random: Random::new(0x5eed_0008),
            open: 0..0,
        };
        if !matches!(operation, Operation::Insert | Operation::Expire) {
            flows.establish();
        }
        flows
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &ConnTable {
        &self.table
    }

    fn establish(&mut self) {
        for flow in 0..self.count {
            self.packets.extend(self.handshake(flow));
            if self.packets.len() + 3 > RUN {
                self.judge_batches();
                self.packets.clear();
            }
        }
        self.judge_batches();
        self.open = 0..self.count;
    }

    fn handshake(&self, flow: u32) -> [Headers; 3] {
        let segments = [Segment::Syn, Segment::SynAck, Segment::Data];
        segments.map(|segment| packet(self.is_ipv6, flow, segment))
    }

    fn uniform(&mut self) -> u32 {
        self.open.start.wrapping_add((self.random.draw() % u64::from(self.count)) as u32)
    }

    /// The inverse of Zipf's distribution with exponent 1, taken for a continuous one. What is
    /// popular does not lie side by side.
    fn zipf(&mut self) -> u32 {
        let part = (self.random.draw() >> 11) as f64 / (1u64 << 53) as f64;
        let rank = f64::from(self.count).powf(part) as u64;
        (rank * SCATTER % u64::from(self.count)) as u32
    }

    /// The packets one by one: how many were of known flows.
    fn note_each(&mut self) -> usize {
        let mut known = 0;
        for packet in &self.packets {
            if let Lookup::Hit(hit) = self.table.lookup(SCOPE, packet, self.now) {
                self.table.refresh(&hit, packet, self.now, &self.timeouts);
                known += 1;
            }
        }
        known
    }

    /// The packets in batches, as the dataplane does: the short way for marked flows, the long way
    /// for the few others, which are made if they are not known.
    fn judge_batches(&mut self) {
        let Flows { table, packets, timeouts, now, .. } = self;
        let mut probes = [Probe::NOTHING; BATCH];
        for batch in packets.chunks(BATCH) {
            let probes = &mut probes[..batch.len()];
            for (probe, packet) in probes.iter_mut().zip(batch) {
                *probe = Probe::NOTHING;
                table.probe_into(SCOPE, packet, probe);
            }
            table.locate(probes);
            for (probe, packet) in probes.iter().zip(batch) {
                if table.note_marked(probe, MARK, packet, *now, timeouts, false).is_none() {
                    long_way(table, probe, packet, *now, timeouts);
                }
            }
        }
    }

    fn insert_all(&mut self) -> usize {
        for packet in &self.packets {
            let made = self.table.insert(SCOPE, packet, self.now, &self.timeouts, RuleTag(0), 0);
            assert_eq!(made, Ok(()));
        }
        self.packets.len()
    }

    /// Flows that all are dead a while later, opened in the course of a minute.
    fn fill_dying(&mut self) {
        let idle = self.timeouts.of(FlowState::TcpSynSent);
        let begin = self.now;
        let step = Duration::from_secs(60) / self.count;
        for flow in 0..self.count {
            let at = begin.after(step * flow);
            let syn = packet(self.is_ipv6, flow, Segment::Syn);
            let made = self.table.insert(SCOPE, &syn, at, &self.timeouts, RuleTag(0), 0);
            assert_eq!(made, Ok(()));
        }
        self.now = begin.after(Duration::from_secs(61) + idle);
    }
}

/// A packet of a flow that is not marked, or of none.
fn long_way(
    table: &mut ConnTable,
    probe: &Probe,
    packet: &Headers,
    now: Timestamp,
    timeouts: &TimeoutProfile,
) {
    let known = |table: &ConnTable| -> Option<Hit> {
        match table.lookup_probe(probe, packet, now) {
            Lookup::Hit(hit) => Some(hit),
            Lookup::Miss | Lookup::Reopen(_) => None,
        }
    };
    match known(table) {
        Some(hit) => {
            table.refresh(&hit, packet, now, timeouts);
            table.mark(&hit, MARK);
        }
        None => {
            let made = table.insert(SCOPE, packet, now, timeouts, RuleTag(0), 0);
            assert_eq!(made, Ok(()), "there is room");
        }
    }
}

impl Work for Flows {
    fn prepare(&mut self) {
        self.packets.clear();
        match self.operation {
            Operation::Uniform(_) | Operation::Zipf(_) => {
                for _ in 0..RUN {
                    let is_uniform = matches!(self.operation, Operation::Uniform(_));
                    let flow = if is_uniform { self.uniform() } else { self.zipf() };
                    self.packets.push(packet(self.is_ipv6, flow, Segment::Data));
                }
            }
            Operation::Insert => {
                if self.open.end == self.count {
                    self.table.retain(0..self.table.places(), |_| false);
                    self.open.end = 0;
                }
                let flows = self.open.end..self.count.min(self.open.end + RUN as u32);
                self.open.end = flows.end;
                let syns = flows.map(|flow| packet(self.is_ipv6, flow, Segment::Syn));
                self.packets.extend(syns);
            }
            Operation::Expire => {
                if self.table.is_empty() {
                    self.fill_dying();
                }
            }
            Operation::Mixed => {
                while self.packets.len() < RUN {
                    for _ in 0..BATCH - 4 {
                        let flow = self.uniform();
                        self.packets.push(packet(self.is_ipv6, flow, Segment::Data));
                    }
                    self.packets.push(packet(self.is_ipv6, self.open.start, Segment::Reset));
                    self.packets.extend(self.handshake(self.open.end));
                    self.open.start = self.open.start.wrapping_add(1);
                    self.open.end = self.open.end.wrapping_add(1);
                }
            }
        }
    }

    fn run(&mut self) -> usize {
        match self.operation {
            Operation::Uniform(Way::One) | Operation::Zipf(Way::One) => {
                let known = self.note_each();
                assert_eq!(known, self.packets.len());
                known
            }
            Operation::Uniform(Way::Batch) | Operation::Zipf(Way::Batch) => {
                self.judge_batches();
                assert_eq!(self.table.len(), self.count as usize, "all were known");
                self.packets.len()
            }
            Operation::Insert => self.insert_all(),
            Operation::Expire => {
                let before = self.table.len();
                // Steps also pass over times at which nothing ended.
                while self.table.len() == before {
                    self.table.expire(self.now, RUN);
                }
                before - self.table.len()
            }
            Operation::Mixed => {
                // A run has as many batches as ten seconds have for a sixteenth of the flows.
                let batches = (self.packets.len() / BATCH) as u32;
                self.now = self.now.after(Duration::from_secs(160) * batches / self.count);
                self.table.expire(self.now, self.packets.len());
                self.judge_batches();
                self.packets.len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(flows: &Flows, state: FlowState) -> usize {
        flows.table.iter(flows.now).filter(|flow| flow.state == state).count()
    }

    #[test]
    fn flows_are_established() {
        for is_ipv6 in [false, true] {
            let flows = Flows::new(Operation::Uniform(Way::One), 5000, is_ipv6);
            assert_eq!(states(&flows, FlowState::TcpEstablished), 5000);
        }
    }

    #[test]
    fn zipf_prefers_few_and_reaches_many() {
        let mut flows = Flows::new(Operation::Zipf(Way::One), 1000, false);
        let mut counts = vec![0; 1000];
        for _ in 0..100_000 {
            counts[flows.zipf() as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // Of ln 1000 = 6.9 parts the first takes ln 2, the second ln 3/2, all beyond 500 ln 2.
        assert!((9_500..10_500).contains(&counts[0]), "{}", counts[0]);
        assert!((5_500..6_300).contains(&counts[1]), "{}", counts[1]);
        let beyond: i32 = counts[500..].iter().sum();
        assert!((9_000..11_000).contains(&beyond), "{beyond}");
    }

    #[test]
    fn inserted_flows_are_as_many_as_asked_and_expired_ones_go() {
        let mut flows = Flows::new(Operation::Insert, 10_000, false);
        let counts = [(); 4].map(|()| {
            flows.prepare();
            (flows.run(), flows.table.len())
        });
        assert_eq!(counts, [(4096, 4096), (4096, 8192), (1808, 10_000), (4096, 4096)]);

        let mut flows = Flows::new(Operation::Expire, 10_000, false);
        for _ in 0..2 {
            let mut freed = 0;
            while freed < 10_000 {
                flows.prepare();
                freed += flows.run();
            }
            assert_eq!((freed, flows.table.len()), (10_000, 0));
        }
    }

    #[test]
    fn a_mixed_table_keeps_its_size() {
        let mut flows = Flows::new(Operation::Mixed, 10_000, false);
        for _ in 0..1000 {
            flows.prepare();
            assert_eq!(flows.run(), RUN);
        }
        assert_eq!(states(&flows, FlowState::TcpEstablished), 10_000);
        let closed = states(&flows, FlowState::TcpClose);
        assert!((500..700).contains(&closed), "{closed}");
        assert!((10_000..10_800).contains(&flows.table.len()), "{}", flows.table.len());
    }
}
