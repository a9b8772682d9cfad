//! Virtual reassembly against a slow twin: which fragments pass, wait, or are refused, by what
//! SEMANTICS section 11 says of them, eight bytes at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sgwall_dataplane::{
    Attribution, Clock, Config, FrameInput, FullTable, Judge, Judgement, Outcome, PassReason,
    Pipeline,
};
use sgwall_packet::{Duration, LinkType, PacketSpec, TcpFlags, Timestamp, protocol};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};

use crate::source::Source;

/// Frames of an input.
const FRAMES: u64 = 200;
const WAITING: Duration = Duration::from_secs(2);
const DECIDED: Duration = Duration::from_secs(30);
const MAX_HELD: usize = 16;
const MAX_HELD_BYTES: usize = 64 * 1024;
const MAX_FRAGMENTS: usize = 128;

/// UDP to port 53 and GRE pass; UDP to other ports and TCP do not.
const POLICY: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
[[security_group]]
id = "sg-1"
ingress = [{ protocol = "udp", ports = 53, cidr = "203.0.113.0/24" },
           { protocol = "udp", ports = 53, cidr = "2001:db8:ffff::/48" },
           { protocol = 47, cidr = "0.0.0.0/0" }]
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
"#;

/// Sends fragments. The input: seven bytes for each, see [`fragment`].
pub fn fragments(data: &[u8]) {
    static COMPILED: LazyLock<Arc<CompiledPolicy>> = LazyLock::new(|| {
        let loaded = load(&[Input { name: "policy".into(), bytes: POLICY.as_bytes() }]);
        let policy = loaded.expect("a good policy").policy;
        Arc::new(CompiledPolicy::compile(&policy, Generation(0)))
    });
    let config =
        Config { max_flows: 1000, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let mut judge =
        Judge::new(Pipeline::new(Arc::clone(&COMPILED), config), Attribution::default());
    let mut twin = Twin::default();
    let mut source = Source::new(data);
    let (mut time, mut clock) = (Timestamp::from_secs(1000), Clock::default());
    for token in 0..FRAMES {
        if source.is_empty() {
            break;
        }
        let packet = fragment(&mut source);
        let nanos = time.as_nanos() + passed(&mut source);
        time = Timestamp::from_nanos(nanos.max(0));
        let frame = packet.to_ip();
        let input = FrameInput {
            token,
            link: Some(LinkType::RawIp),
            data: &frame,
            wire_len: frame.len() as u32,
            time,
            decimals: 9,
            recorded: None,
        };
        let mut said = Vec::new();
        judge.judge(input, &mut |event| said.push((event.frame.token, word(&event.judgement))));
        let expected = twin.packet(token, &packet, frame.len(), clock.advance(time));
        assert_eq!(said, expected, "{packet} at {time}");
        assert_eq!(judge.is_holding(), twin.is_holding());
        assert_eq!(judge.pipeline().datagrams(), twin.datagrams.len());
    }
    let mut said = Vec::new();
    judge.finish(&mut |event| said.push((event.frame.token, word(&event.judgement))));
    assert_eq!(said, twin.passed_until(Timestamp::from_nanos(i64::MAX)));
}

/// Time between two packets: mostly none, sometimes about as long as something lasts.
fn passed(source: &mut Source<'_>) -> i64 {
    let byte = source.byte();
    let seconds = i64::from(byte & 0x3f);
    match byte >> 6 {
        0 => seconds * 1_000_000,
        1 => seconds * 100_000_000,
        2 => seconds * 1_000_000_000,
        _ => -seconds * 500_000_000,
    }
}

/// A fragment of one of few datagrams, at one of few places; now and then a whole packet.
fn fragment(source: &mut Source<'_>) -> PacketSpec {
    let [kind, id, at, len] = source.array();
    let is_v6 = kind & 1 != 0;
    let number = [protocol::UDP, protocol::UDP, 47, protocol::TCP][usize::from(kind >> 1 & 3)];
    // One in eight is refused by the rules.
    let port = if kind & 0x38 == 0x38 { 54 } else { 53 };
    let (src, dst) = match is_v6 {
        false => ("203.0.113.1", "10.0.1.10"),
        true => ("2001:db8:ffff::1", "2001:db8:0:1::10"),
    };
    let more = kind & 0x40 != 0;
    let offset = u16::from(at & 0x1f) * if at & 0xc0 == 0xc0 { 2000 } else { 8 };
    let has_header = offset == 0 && number != 47;
    // What is not the last is a multiple of eight, header included.
    let len = u16::from(len & 0x1f) * if len & 0xc0 == 0xc0 { 400 } else { 8 };
    let len = match (has_header, more, number) {
        (true, true, protocol::TCP) => len + 4,
        (_, true, _) => len,
        _ => len + u16::from(kind >> 7) * 3,
    };
    PacketSpec {
        protocol: number,
        src: src.parse().expect("an address"),
        dst: dst.parse().expect("an address"),
        ports: if number == 47 { (0, 0) } else { (4000, port) },
        flags: TcpFlags(if number == protocol::TCP { 0x02 } else { 0 }),
        seq: 0,
        ack: 0,
        window: 65_535,
        window_scale: None,
        icmp: (8, 0),
        id: 0,
        mtu: 0,
        quote: None,
        len,
        dont_fragment: false,
        hop_limit: 64,
        fragment: Some((u32::from(id & 3), offset, more)),
    }
}

/// Whether a frame passed, and the reason.
type Word = (bool, &'static str);

/// Said of a frame; whether a flow was there before is not what this is about.
fn word(judgement: &Judgement) -> Word {
    match judgement {
        Judgement::Verdict(verdict) => match verdict.outcome {
            Outcome::Pass(PassReason::AllowedTracked | PassReason::Established) => {
                (true, "allowed")
            }
            _ => (verdict.is_pass(), verdict.reason()),
        },
        Judgement::Skip(reason) => (false, reason.as_str()),
    }
}

/// Family, protocol (of IPv4 alone) and identification: all else is the same here.
type Key = (bool, u8, u32);

#[derive(Debug)]
enum State {
    Waiting(Vec<(u64, usize)>),
    /// What the first fragment was: its ports, protocol and whether it passed.
    Decided((u16, u16), u8, bool),
    Refused,
}

#[derive(Debug)]
struct Datagram {
    state: State,
    deadline: Timestamp,
    /// Every fragment: its place (first byte, length).
    pieces: Vec<(u32, u32)>,
    /// The last byte but one, once the last fragment is known.
    end: Option<u32>,
}

type Said = Vec<(u64, Word)>;

#[derive(Debug, Default)]
struct Twin {
    datagrams: BTreeMap<Key, Datagram>,
}

impl Twin {
    fn is_holding(&self) -> bool {
        self.datagrams
            .values()
            .any(|d| matches!(&d.state, State::Waiting(held) if !held.is_empty()))
    }

    /// What ends at `now`, in the order of its end: held fragments are orphans.
    fn passed_until(&mut self, now: Timestamp) -> Said {
        let mut due: Vec<_> = self
            .datagrams
            .iter()
            .filter(|(_, d)| d.deadline <= now)
            .map(|(k, d)| (d.deadline, *k))
            .collect();
        due.sort();
        let mut said = Vec::new();
        for (_, key) in due {
            if let Some(Datagram { state: State::Waiting(held), .. }) = self.datagrams.remove(&key)
            {
                said.extend(held.into_iter().map(|(token, _)| (token, (false, "frag-orphan"))));
            }
        }
        said
    }

    fn packet(&mut self, token: u64, packet: &PacketSpec, kept: usize, now: Timestamp) -> Said {
        let mut said = self.passed_until(now);
        let (word, released) = self.word(token, packet, kept, now);
        said.extend(word.map(|word| (token, word)));
        said.extend(released);
        said
    }

    /// What is said of a packet (nothing if it is held), and of those that waited for it.
    fn word(
        &mut self,
        token: u64,
        packet: &PacketSpec,
        kept: usize,
        now: Timestamp,
    ) -> (Option<Word>, Said) {
        let (id, offset, more) = packet.fragment.expect("all are fragments");
        let offset = u32::from(offset);
        let header = match packet.protocol {
            protocol::TCP if offset == 0 => 20,
            protocol::UDP if offset == 0 => 8,
            _ => 0,
        };
        let len = u32::from(packet.len) + header;
        let is_whole = offset == 0 && !more;
        let passes = packet.protocol == 47 && !packet.src.is_ipv6()
            || packet.protocol == protocol::UDP && packet.ports.1 == 53;
        if is_whole {
            return (Some(if passes { (true, "allowed") } else { (false, "no-rule") }), Vec::new());
        }
        if offset + len > 65_535 || (more && len % 8 != 0) {
            return (Some((false, "malformed")), Vec::new());
        }
        if packet.protocol == protocol::TCP && offset > 0 && offset < 20 {
            return (Some((false, "frag-tiny")), Vec::new());
        }
        let number = if packet.src.is_ipv6() { 0 } else { packet.protocol };
        let key = (packet.src.is_ipv6(), number, id);
        let datagram = self.datagrams.entry(key).or_insert_with(|| Datagram {
            state: State::Waiting(Vec::new()),
            deadline: now.after(WAITING),
            pieces: Vec::new(),
            end: None,
        });
        if matches!(datagram.state, State::Refused) {
            return (Some((false, "frag-overlap")), Vec::new());
        }
        let first = (packet.ports, packet.protocol);
        let is_other = offset == 0
            && matches!(datagram.state, State::Decided(ports, number, _) if (ports, number) != first);
        let piece = (offset, len);
        let is_repeated = datagram.pieces.contains(&piece)
            && (more || datagram.end.is_none_or(|end| end == offset + len));
        if is_other || (!is_repeated && datagram.contradicts(piece, more)) {
            let held = datagram.become_state(State::Refused, now);
            let held =
                held.into_iter().map(|(token, _)| (token, (false, "frag-overlap"))).collect();
            return (Some((false, "frag-overlap")), held);
        }
        if !is_repeated {
            if datagram.pieces.len() >= MAX_FRAGMENTS {
                return (Some((false, "frag-limit")), Vec::new());
            }
            datagram.pieces.push(piece);
            if !more {
                datagram.end = Some(offset + len);
            }
        }
        let mut released = Vec::new();
        let word = if offset == 0 {
            let state = State::Decided(first.0, first.1, passes);
            let held = datagram.become_state(state, now);
            let follow = |(token, _)| (token, (passes, "follows-first-fragment"));
            released.extend(held.into_iter().map(follow));
            Some(if passes { (true, "allowed") } else { (false, "no-rule") })
        } else {
            match &mut datagram.state {
                State::Waiting(held) => {
                    let bytes: usize = held.iter().map(|(_, bytes)| bytes).sum();
                    if held.len() >= MAX_HELD || bytes + kept > MAX_HELD_BYTES {
                        return (Some((false, "frag-limit")), Vec::new());
                    }
                    held.push((token, kept));
                    None
                }
                State::Decided(.., passed) => Some((*passed, "follows-first-fragment")),
                State::Refused => Some((false, "frag-overlap")),
            }
        };
        let is_decided = matches!(datagram.state, State::Decided(..));
        if is_decided && datagram.is_complete() {
            self.datagrams.remove(&key);
        }
        (word, released)
    }
}

impl Datagram {
    /// Whether a fragment shares a byte with another, or lies beyond the end.
    fn contradicts(&self, (offset, len): (u32, u32), more: bool) -> bool {
        let end = if more { self.end } else { Some(offset + len) };
        let is_end_moved = !more && self.end.is_some_and(|known| known != offset + len);
        let mut all = self.pieces.clone();
        all.push((offset, len));
        all.sort();
        let is_beyond = all.iter().any(|(at, len)| end.is_some_and(|end| at + len > end));
        let overlap = all.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0);
        is_end_moved || is_beyond || overlap
    }

    fn is_complete(&self) -> bool {
        self.end == Some(self.pieces.iter().map(|(_, len)| len).sum())
    }

    /// What waited, if it waits no longer.
    fn become_state(&mut self, state: State, now: Timestamp) -> Vec<(u64, usize)> {
        match std::mem::replace(&mut self.state, state) {
            State::Waiting(held) => {
                self.deadline = now.after(DECIDED);
                held
            }
            _ => Vec::new(),
        }
    }
}
