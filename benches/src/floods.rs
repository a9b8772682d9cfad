//! Floods against a flow table that fills, with honest traffic in between: what is lost of it, and
//! what holds all along. The tests run them small and look at every packet, `examples/floods.rs` runs
//! them large and measures.
//!
//! Two interfaces: `web`, which is attacked, and `db` beside it. Some connections of each are complete
//! before the flood begins, and go on through it; others are tried in the middle of it. Everything is
//! tracked, because nothing may go out but answers.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use sgwall_dataplane::fragment::MAX_DATAGRAMS;
use sgwall_dataplane::{
    Attribution, Config, DropReason, Event, FlowState, FrameInput, FullTable, Judge, Judgement,
    PassReason, Pipeline, Verdict,
};
use sgwall_packet::{Duration, LinkType, Timestamp, protocol};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};

use crate::Random;

/// What is sent to `web`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// SYNs of random addresses that do not exist.
    Syn,
    /// UDP to an open port, of random addresses.
    Udp,
    /// Fragments: later ones without a first, firsts without the rest, and such that overlap.
    Fragments,
    /// ICMP errors: half quote packets of connections that there are, half such as never were.
    IcmpErrors,
    /// SYNs of addresses and ports that differ in few bits: what somebody may try who wants them all
    /// in one bucket and does not know the seed.
    Collisions,
    /// Connections that real clients open and leave.
    Left,
}

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 6] = [
        Attack::Syn,
        Attack::Udp,
        Attack::Fragments,
        Attack::IcmpErrors,
        Attack::Collisions,
        Attack::Left,
    ];

    /// A few words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Attack::Syn => "SYN flood",
            Attack::Udp => "UDP spray",
            Attack::Fragments => "fragment flood",
            Attack::IcmpErrors => "ICMP error flood",
            Attack::Collisions => "hash collisions",
            Attack::Left => "opened and left",
        }
    }
}

/// What the policy says of the interfaces' flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Nothing.
    None,
    /// An eighth of the table is reserved for `db`.
    Reserve,
    /// `web` may have three quarters of the table.
    Cap,
}

impl Limits {
    /// A few words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Limits::None => "none",
            Limits::Reserve => "db: an eighth reserved",
            Limits::Cap => "web: at most three quarters",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What is sent.
    pub attack: Attack,
    /// What a full table does.
    pub full_table: FullTable,
    /// What interfaces may have.
    pub limits: Limits,
    /// Places of the table.
    pub max_flows: usize,
    /// Packets of the flood at least, one each microsecond; it goes on until all tries are over.
    pub packets: u64,
    /// Connections of each interface that are complete before it begins.
    pub established: usize,
    /// Connections that are tried on each interface during the second half of it.
    pub tries: u64,
    /// Packets of the flood from a SYN to the end of its handshake.
    pub round_trip: u64,
    /// Packets of the flood between two looks at everything that must hold.
    pub look_every: u64,
}

/// Connections that were tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// How many.
    pub tried: u64,
    /// Those whose handshake and data passed, as packets of a tracked flow.
    pub succeeded: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets in all.
    pub frames: u64,
    /// Packets of the flood, or connections that were opened and left.
    pub flood: u64,
    /// Packets of connections that were complete before it.
    pub established: u64,
    /// Those of them that did not pass.
    pub established_lost: u64,
    /// Connections that were completed during it and whose packets no longer pass at its end.
    pub completed_lost: u64,
    /// Connections that were tried on `web`.
    pub web: Tried,
    /// The same on `db`.
    pub db: Tried,
    /// Flows at once.
    pub peak_flows: usize,
    /// Fragmented datagrams at once.
    pub peak_datagrams: usize,
    /// Flows that were refused.
    pub refused: u64,
    /// Flows that gave their place.
    pub evicted: u64,
    /// Buckets that the longest look-up of a flow passes.
    pub longest_search: usize,
}

const WEB: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const DB: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 20);
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

fn policy(plan: &Plan) -> CompiledPolicy {
    let (web, db) = match plan.limits {
        Limits::None => (String::new(), String::new()),
        Limits::Reserve => (String::new(), format!("reserved_flows = {}", plan.max_flows / 8)),
        Limits::Cap => (format!("max_flows = {}", plan.max_flows * 3 / 4), String::new()),
    };
    let text = format!(
        r#"
version = 1
icmp_related = true
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
[[security_group]]
id = "sg-web"
ingress = [{{ protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" }},
           {{ protocol = "udp", ports = 53, cidr = "0.0.0.0/0" }}]
egress = []
[[security_group]]
id = "sg-db"
ingress = [{{ protocol = "tcp", ports = 5432, cidr = "0.0.0.0/0" }}]
egress = []
[[interface]]
id = "web"
subnet = "subnet-1"
addresses = ["{WEB}"]
security_groups = ["sg-web"]
{web}
[[interface]]
id = "db"
subnet = "subnet-1"
addresses = ["{DB}"]
security_groups = ["sg-db"]
{db}
"#
    );
    let input = Input { name: "floods".into(), bytes: text.as_bytes() };
    let loaded = load(&[input]).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    CompiledPolicy::compile(&loaded.policy, Generation(0))
}

/// An IPv4 packet without checksums, which nobody looks at.
struct Packet {
    bytes: [u8; 64],
    len: usize,
}

impl Packet {
    fn ip(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Self {
        let mut packet = Packet { bytes: [0; 64], len: 20 + payload.len() };
        let bytes = &mut packet.bytes;
        bytes[0] = 0x45;
        bytes[3] = packet.len as u8;
        bytes[8] = 64;
        bytes[9] = protocol;
        bytes[12..16].copy_from_slice(&src.octets());
        bytes[16..20].copy_from_slice(&dst.octets());
        bytes[20..20 + payload.len()].copy_from_slice(payload);
        packet
    }

    fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8, seq: u32, ack: u32) -> Self {
        let mut tcp = [0; 20];
        tcp[0..2].copy_from_slice(&from.1.to_be_bytes());
        tcp[2..4].copy_from_slice(&to.1.to_be_bytes());
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&ack.to_be_bytes());
        tcp[12] = 0x50;
        tcp[13] = flags;
        tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        Packet::ip(from.0, to.0, protocol::TCP, &tcp)
    }

    fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Self {
        let mut udp = [0; 24];
        udp[0..2].copy_from_slice(&from.1.to_be_bytes());
        udp[2..4].copy_from_slice(&to.1.to_be_bytes());
        udp[5] = 24;
        Packet::ip(from.0, to.0, protocol::UDP, &udp)
    }

    /// This one, as a fragment at an offset in units of eight bytes.
    fn fragment(mut self, id: u16, offset: u16, more: bool) -> Self {
        self.bytes[4..6].copy_from_slice(&id.to_be_bytes());
        let field = offset | u16::from(more) << 13;
        self.bytes[6..8].copy_from_slice(&field.to_be_bytes());
        self
    }

    /// "Host unreachable", with the beginning of the packet that it speaks of.
    fn icmp_error(from: Ipv4Addr, about: &Packet) -> Self {
        let mut icmp = [0; 36];
        (icmp[0], icmp[1]) = (3, 1);
        icmp[8..].copy_from_slice(&about.bytes[..28]);
        let to = Ipv4Addr::from(*about.bytes[12..].first_chunk().unwrap_or(&[0; 4]));
        Packet::ip(from, to, protocol::ICMP, &icmp)
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;

/// An honest client.
#[derive(Clone, Copy, Debug)]
struct Client {
    end: (Ipv4Addr, u16),
    server: (Ipv4Addr, u16),
}

impl Client {
    fn new(server: (Ipv4Addr, u16), number: u64) -> Self {
        let host = if server.0 == WEB { [203, 0, 113] } else { [203, 0, 114] };
        let [_, second, third, _] = Ipv4Addr::from(number as u32).octets();
        let [a, b, c] = host;
        // Port and last byte together are the number, the rest of it in the middle.
        let address = Ipv4Addr::new(a, b ^ second ^ third, c, number as u8);
        Client { end: (address, 10_000 + (number >> 8) as u16), server }
    }

    /// The packets of a handshake and of some data, in order, and whether each answers.
    fn packet(&self, step: usize) -> (Packet, Expected) {
        let (there, back) = ((self.end, self.server), (self.server, self.end));
        let packet = |(from, to), flags, seq, ack| Packet::tcp(from, to, flags, seq, ack);
        match step {
            0 => (packet(there, SYN, 1000, 0), Expected::New),
            1 => (packet(back, SYN | ACK, 5000, 1001), Expected::Reply),
            2 => (packet(there, ACK, 1001, 5001), Expected::Established),
            step if step % 2 == 1 => (packet(there, ACK, 1001, 5001), Expected::Established),
            _ => (packet(back, ACK, 5001, 1001), Expected::Reply),
        }
    }
}

/// Packets of a connection until it counts as one: the handshake, and data both ways.
const STEPS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    New,
    Established,
    Reply,
}

impl Expected {
    fn is_met(self, verdict: Option<Verdict>) -> bool {
        let wanted = match self {
            Expected::New => FlowState::New,
            Expected::Established => FlowState::Established,
            Expected::Reply => FlowState::Reply,
        };
        verdict.is_some_and(|verdict| verdict.is_pass() && verdict.state == Some(wanted))
    }
}

/// A connection that is being tried.
struct Try {
    client: Client,
    /// Its next packet, and when it is due.
    step: usize,
    due: u64,
}

/// A run.
pub struct Flood {
    plan: Plan,
    judge: Judge,
    random: Random,
    /// Packets of the flood so far, which is the time in microseconds.
    sent: u64,
    /// Frames that were judged, and those that were told of.
    frames: u64,
    told: u64,
    before: Vec<Client>,
    tries: VecDeque<Try>,
    completed: Vec<Client>,
    report: Report,
}

impl Flood {
    /// Everything that there is before the flood.
    ///
    /// # Errors
    /// What did not hold.
    pub fn new(plan: Plan, hash_seed: [u64; 4]) -> Result<Self, String> {
        let Plan { max_flows, full_table, .. } = plan;
        let config = Config { max_flows, full_table, hash_seed };
        let pipeline = Pipeline::new(Arc::new(policy(&plan)), config);
        let mut flood = Flood {
            plan,
            judge: Judge::new(pipeline, Attribution::default()),
            random: Random::new(0x9e37_79b9_7f4a_7c15),
            sent: 0,
            frames: 0,
            told: 0,
            before: Vec::new(),
            tries: VecDeque::new(),
            completed: Vec::new(),
            report: Report::default(),
        };
        for number in 0..plan.established as u64 {
            for server in [(WEB, 443), (DB, 5432)] {
                let client = Client::new(server, number);
                for step in 0..STEPS {
                    let (packet, expected) = client.packet(step);
                    if !expected.is_met(flood.judge(&packet)) {
                        return Err(format!("{client:?} is refused before the flood"));
                    }
                }
                flood.before.push(client);
            }
        }
        flood.look()?;
        Ok(flood)
    }

    /// The whole flood, and what came of it.
    ///
    /// # Errors
    /// What did not hold: see [`Self::look`].
    pub fn run(self) -> Result<Report, String> {
        self.run_and(|| ()).map(|(report, ())| report)
    }

    /// The same, and what `measure` says when it is over and everything is still there.
    ///
    /// # Errors
    /// What did not hold: see [`Self::look`].
    pub fn run_and<T>(mut self, measure: impl FnOnce() -> T) -> Result<(Report, T), String> {
        // In the second half the table has been full for long, if it is to be full at all.
        let (half, every) = (self.plan.packets / 2, self.plan.packets / 2 / self.plan.tries.max(1));
        for n in 0.. {
            if n >= self.plan.packets && self.tries.is_empty() {
                break;
            }
            self.attack(n);
            self.sent += 1;
            if n % 4 == 0 {
                self.go_on(n / 4);
            }
            if n >= half && (n - half).is_multiple_of(every) && (n - half) / every < self.plan.tries
            {
                let number = 1_000_000 + (n - half) / every;
                for server in [(WEB, 443), (DB, 5432)] {
                    let client = Client::new(server, number);
                    self.tries.push_back(Try { client, step: 0, due: n });
                }
            }
            self.try_on(n);
            if n % 64 == 0 {
                let now = self.now();
                let told = &mut self.told;
                self.judge.advance(now, &mut |event| *told += u64::from(event.is_final));
            }
            if n % self.plan.look_every == 0 {
                self.look()?;
            }
        }
        let measured = measure();
        Ok((self.end()?, measured))
    }

    fn now(&self) -> Timestamp {
        START.after(Duration::from_micros(self.sent))
    }

    /// Judges a packet; `None` if it is held.
    fn judge(&mut self, packet: &Packet) -> Option<Verdict> {
        self.frames += 1;
        let token = self.frames;
        let data = &packet.bytes[..packet.len];
        let frame = FrameInput {
            token,
            link: Some(LinkType::RawIp),
            data,
            wire_len: data.len() as u32,
            time: self.now(),
            decimals: 6,
            recorded: None,
        };
        let (mut found, told) = (None, &mut self.told);
        self.judge.judge(frame, &mut |event: Event<'_>| {
            *told += u64::from(event.is_final);
            if let (true, Judgement::Verdict(verdict)) =
                (event.frame.token == token, event.judgement)
            {
                found = Some(verdict);
            }
        });
        found
    }

    fn attack(&mut self, n: u64) {
        let drawn = self.random.draw();
        let address = |bits: u64| Ipv4Addr::from(0xc612_0000 | bits as u32 & 0x1_ffff);
        let from = (address(drawn), (drawn >> 32) as u16 | 1);
        let packet = match self.plan.attack {
            Attack::Syn => Packet::tcp(from, (WEB, 443), SYN, drawn as u32, 0),
            Attack::Udp => Packet::udp(from, (WEB, 53)),
            Attack::Fragments => {
                let (udp, id) = (Packet::udp(from, (WEB, 53)), (drawn >> 48) as u16);
                match n % 4 {
                    0 => udp.fragment(id, 0, true),
                    1 => {
                        // Of one sender with few datagrams: what overlaps is found out.
                        let from = (address(1), 7);
                        let offset = (drawn >> 40) as u16 % 4;
                        Packet::udp(from, (WEB, 53)).fragment(n as u16 / 64, offset, true)
                    }
                    _ => udp.fragment(id, 3, drawn & 1 == 0),
                }
            }
            Attack::IcmpErrors => {
                let to = match self.before.get(drawn as usize % (2 * self.before.len().max(1))) {
                    Some(client) if client.server.0 == WEB => client.end,
                    _ => from,
                };
                let about = Packet::tcp((WEB, 443), to, ACK, drawn as u32, 0);
                Packet::icmp_error(from.0, &about)
            }
            Attack::Collisions => {
                let from = (address(n << 8), (n >> 9 << 4) as u16 | 1);
                Packet::tcp(from, (WEB, 443), SYN, 1, 0)
            }
            Attack::Left => {
                let client = Client { end: from, server: (WEB, 443) };
                let mut packets = (0..3).map(|step| client.packet(step));
                let is_new = |found: Option<Verdict>| Expected::New.is_met(found);
                if let Some((syn, _)) = packets.next()
                    && is_new(self.judge(&syn))
                {
                    for (packet, _) in packets {
                        self.judge(&packet);
                    }
                }
                self.report.flood += 1;
                return;
            }
        };
        self.report.flood += 1;
        self.judge(&packet);
    }

    /// A packet of a connection that was there before.
    fn go_on(&mut self, n: u64) {
        let all = self.before.len();
        if all == 0 {
            return;
        }
        let client = self.before[n as usize % all];
        let (packet, expected) = client.packet(3 + (n as usize / all) % 2);
        self.report.established += 1;
        let lost = !expected.is_met(self.judge(&packet));
        self.report.established_lost += u64::from(lost);
    }

    /// Packets that are due of connections that are being tried.
    fn try_on(&mut self, now: u64) {
        for _ in 0..self.tries.len() {
            let Some(mut tried) = self.tries.pop_front() else { return };
            if tried.due > now {
                self.tries.push_back(tried);
                continue;
            }
            let (packet, expected) = tried.client.packet(tried.step);
            let is_met = expected.is_met(self.judge(&packet));
            tried.step += 1;
            tried.due = now + self.plan.round_trip / 2;
            if is_met && tried.step < STEPS {
                self.tries.push_back(tried);
                continue;
            }
            let of = if tried.client.server.0 == WEB {
                &mut self.report.web
            } else {
                &mut self.report.db
            };
            of.tried += 1;
            of.succeeded += u64::from(is_met);
            if is_met {
                self.completed.push(tried.client);
            }
        }
    }

    /// Looks at everything that must hold at any time: the table is not above its size, no interface
    /// above its cap, nobody in the places that are reserved for another, fragments within their
    /// bound, and every judgement counted once.
    ///
    /// # Errors
    /// What did not.
    pub fn look(&mut self) -> Result<(), String> {
        let pipeline = self.judge.pipeline();
        let (connections, counters) = (pipeline.connections(), pipeline.counters());
        let (flows, datagrams) = (connections.len(), pipeline.datagrams());
        self.report.peak_flows = self.report.peak_flows.max(flows);
        self.report.peak_datagrams = self.report.peak_datagrams.max(datagrams);
        let Plan { max_flows, limits, .. } = self.plan;
        let holds =
            |what: &str, is: bool| if is { Ok(()) } else { Err(format!("{what}: {flows}")) };
        holds("flows above the table's size", flows <= max_flows)?;
        holds("datagrams above their bound", datagrams <= MAX_DATAGRAMS)?;
        let at_once = |index| pipeline.flows_at_once(index).map(|flows| flows as usize);
        match (limits, at_once(0), at_once(1)) {
            (Limits::None, None, None) => {}
            (Limits::Reserve, None, Some(db)) => {
                let others = flows - db;
                holds("others in the reserve", others <= max_flows - max_flows / 8)?;
            }
            (Limits::Cap, Some(web), None) => holds("above the cap", web <= max_flows * 3 / 4)?,
            found => return Err(format!("counts of interfaces: {found:?}")),
        }
        let passed = PassReason::ALL.iter().map(|reason| counters.passed(*reason).packets);
        let dropped = DropReason::ALL.iter().map(|reason| counters.dropped(*reason).packets);
        let counted: u64 = passed.chain(dropped).sum();
        holds("judgements that are not counted once", counted == self.told)?;
        let full = counters.dropped(DropReason::ConntrackFull).packets;
        holds("refusals that are not counted once", full == connections.counters().refused)
    }

    fn end(mut self) -> Result<Report, String> {
        for client in std::mem::take(&mut self.completed) {
            let (packet, expected) = client.packet(3);
            let lost = !expected.is_met(self.judge(&packet));
            self.report.completed_lost += u64::from(lost);
        }
        let told = &mut self.told;
        self.judge.finish(&mut |event| *told += u64::from(event.is_final));
        self.look()?;
        if self.told != self.frames {
            return Err(format!("of {} frames {} were told of", self.frames, self.told));
        }
        let connections = self.judge.pipeline().connections();
        let counters = connections.counters();
        let by_interface: u64 = (0..2).map(|index| self.judge.pipeline().evicted(index)).sum();
        if by_interface != counters.evicted {
            return Err(format!("{by_interface} of {} evictions", counters.evicted));
        }
        self.report.frames = self.frames;
        (self.report.refused, self.report.evicted) = (counters.refused, counters.evicted);
        self.report.longest_search = connections.longest_search();
        Ok(self.report)
    }
}
