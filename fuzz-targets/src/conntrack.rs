//! The flow table against a map of what it said of each entry: nothing but what a step is about
//! changes, whatever is looked up together, expires, overflows or is asked out of order.

use std::collections::HashMap;
use std::net::IpAddr;

use sgwall_conntrack::{
    Config, ConnTable, FlowState, FlowView, FullTable, Hit, Lookup, Mark, Probe, RuleTag, Scope,
    TimeoutProfile, may_open,
};
use sgwall_packet::{
    Duration, FlowKey, Headers, IcmpInfo, Side, Tcp, TcpFlags, Timestamp, Transport, protocol,
};

use crate::source::Source;

/// Steps of an input, which bounds its time.
const STEPS: usize = 400;
/// Flags of TCP, the usual ones and those of scanners.
const FLAGS: [u8; 9] = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x3f];

type Name = (Scope, FlowKey);

struct Twin {
    table: ConnTable,
    /// The table's own word on each entry, taken when a step was about it.
    known: HashMap<Name, FlowView>,
    /// What it said of entries that were dead when it may have freed them. Where time steps back,
    /// those that it did not free are alive again.
    faded: HashMap<Name, FlowView>,
    /// Marks: by entry, epoch, kind and side. Those of other epochs than the latest do not count.
    marks: HashMap<Name, Vec<(u16, bool, Side)>>,
    timeouts: TimeoutProfile,
    max_entries: usize,
    epoch: u16,
}

/// Drives a table. The input: how many entries it may hold, then steps.
pub fn conntrack(data: &[u8]) {
    let mut source = Source::new(data);
    let source = &mut source;
    let max_entries = usize::from(source.byte());
    let hash_seed = [1, 2, 3, u64::from(source.byte())];
    let mut twin = Twin {
        table: ConnTable::new(Config { max_entries, full_table: FullTable::DropNew, hash_seed }),
        known: HashMap::new(),
        faded: HashMap::new(),
        marks: HashMap::new(),
        timeouts: TimeoutProfile::default(),
        max_entries,
        epoch: 1,
    };
    let mut now = Timestamp::from_secs(1_700_000_000);
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        match source.byte() {
            0..160 => twin.packets(source, now, 1),
            160..200 => {
                let number = source.below(24);
                twin.packets(source, now, number);
            }
            200..225 => now = passed(source, now),
            225..235 => {
                twin.table.expire(now, source.byte().into());
                twin.fade(now);
            }
            235..240 => twin.end_some(source),
            240..245 => twin.begin_epoch(),
            245..250 => twin.table = twin.table.clone(),
            _ => {
                let seconds = Duration::from_secs(source.byte().into());
                let state = source.pick(&[
                    FlowState::Udp,
                    FlowState::TcpSynSent,
                    FlowState::TcpEstablished,
                ]);
                twin.timeouts.set(state, seconds);
            }
        }
        twin.check(now);
    }
    // Whatever happened, time ends every flow and its memory.
    let end = Timestamp::from_nanos(i64::MAX);
    for _ in 0..100 {
        twin.table.expire(end, 10_000);
    }
    assert_eq!((twin.table.len(), twin.table.iter(end).count()), (0, 0));
}

/// Time passes, mostly a little; now and then it steps back or leaps.
fn passed(source: &mut Source<'_>, now: Timestamp) -> Timestamp {
    let step = i64::from(source.word());
    let nanos = match source.byte() {
        0..100 => step * 1_000_000,
        100..200 => step * 100_000_000,
        200..230 => -step * 1_000_000,
        230..245 => step * 1_000_000_000_000,
        _ => -step * 1_000_000_000_000,
    };
    Timestamp::from_nanos(now.as_nanos().saturating_add(nanos))
}

/// A packet of one of few flows: 32 of each family, TCP, UDP, an ICMP query or GRE.
fn packet(source: &mut Source<'_>) -> (Scope, Headers) {
    let [flow, way, flags] = source.array();
    let is_v6 = flow & 0x80 != 0;
    let ends: [IpAddr; 2] = match is_v6 {
        false => [[10, 0, 0, 1].into(), [10, 0, flow & 1, 2].into()],
        true => [[0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()],
    };
    let number = match flow >> 5 & 3 {
        0 | 1 => protocol::TCP,
        2 => protocol::UDP,
        _ if flow & 1 == 0 => 47,
        _ if is_v6 => protocol::ICMPV6,
        _ => protocol::ICMP,
    };
    let is_back = way & 1 != 0;
    let (src, dst) = if is_back { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
    let ports = (1000 + u16::from(flow & 31), 80);
    let (src_port, dst_port) = if is_back { (ports.1, ports.0) } else { ports };
    let transport = match number {
        protocol::TCP => Transport::Tcp(Tcp {
            src_port,
            dst_port,
            seq: u32::from(way & 0xf0) << 8,
            ack: u32::from(flags & 0xf0) << 8,
            window: 0x1000,
            flags: TcpFlags(FLAGS[usize::from(flags) % FLAGS.len()]),
            window_scale: None,
            payload_len: u32::from(way & 4),
        }),
        protocol::UDP => Transport::Udp { src_port, dst_port },
        47 => Transport::Other,
        _ => {
            let kinds = if is_v6 { (128, 129) } else { (8, 0) };
            let kind = if is_back { kinds.1 } else { kinds.0 };
            Transport::Icmp(IcmpInfo { kind, code: 0, identifier: Some(ports.0) })
        }
    };
    let headers = Headers { src, dst, protocol: number, transport, ..Headers::NONE };
    (Scope(u32::from(way >> 1 & 1)), headers)
}

impl Twin {
    /// Packets whose flows are looked up together, then judged one after the other.
    fn packets(&mut self, source: &mut Source<'_>, now: Timestamp, number: u8) {
        let packets: Vec<_> = (0..number).map(|_| (packet(source), source.byte())).collect();
        let mut probes: Vec<Probe> =
            packets.iter().map(|((scope, h), _)| self.table.probe(*scope, h)).collect();
        self.table.locate(&mut probes);
        for (((scope, headers), how), probe) in packets.iter().zip(&probes) {
            self.packet(*scope, headers, *how, probe, now);
            self.check(now);
        }
    }

    fn packet(&mut self, scope: Scope, headers: &Headers, how: u8, probe: &Probe, now: Timestamp) {
        let (key, side) = FlowKey::of(headers).expect("every packet here has one");
        let name = (scope, key);
        let found = self.table.lookup(scope, headers, now);
        assert_eq!(self.table.lookup_probe(probe, headers, now), found, "by a probe");
        self.wake(&name, now);
        let alive = self.known.get(&name).filter(|view| now < view.deadline).copied();
        let (is_second, in_window) = (how & 1 != 0, how & 2 != 0);
        let (table, timeouts) = (&mut self.table, &self.timeouts);
        match found {
            Lookup::Miss => assert_eq!(alive, None, "it is alive, and was not found"),
            Lookup::Hit(hit) | Lookup::Reopen(hit) => {
                assert_eq!(table.view(&hit), alive);
                let view = alive.expect("what is found is known");
                assert_eq!((hit.reply, hit.tag), (side != view.original, view.tag));
            }
        }
        // The short way is the long way, where it is taken at all.
        let marks = self.marks.get(&name).map_or(&[][..], Vec::as_slice);
        let is_marked = marks.contains(&(self.epoch, is_second, side));
        let mark = Mark::new(self.epoch, is_second);
        let mut long = table.clone();
        let noted = table.note_marked(probe, mark, headers, now, timeouts, in_window);
        match (noted, found) {
            (Some(noted), Lookup::Hit(hit)) => {
                assert!(is_marked, "no such mark was put on it");
                assert!(!in_window || !long.is_out_of_window(&hit, headers));
                assert_eq!((noted.reply, noted.tag), (hit.reply, hit.tag));
                long.refresh(&hit, headers, now, timeouts);
                assert_eq!(table.view(&hit), long.view(&hit), "noted otherwise");
                self.learn(name, hit);
                return;
            }
            (Some(noted), found) => panic!("{noted:?}, but {found:?}"),
            (None, _) => {}
        }
        match found {
            Lookup::Hit(hit) if how & 0x70 == 0x70 => {
                table.remove(&hit);
                self.forget(&name);
            }
            Lookup::Hit(hit) => {
                table.refresh(&hit, headers, now, timeouts);
                if how & 4 != 0 {
                    table.mark(&hit, mark);
                    let marks = self.marks.entry(name).or_default();
                    marks.push((self.epoch, is_second, side));
                }
                self.learn(name, hit);
            }
            Lookup::Reopen(hit) => {
                table.remove(&hit);
                self.forget(&name);
                self.open(name, headers, how, now);
            }
            Lookup::Miss if may_open(headers) => self.open(name, headers, how, now),
            Lookup::Miss => {}
        }
    }

    fn open(&mut self, name: Name, headers: &Headers, how: u8, now: Timestamp) {
        let room = self.table.room(now);
        let tag = RuleTag(how.into());
        let made = self.table.insert(name.0, headers, now, &self.timeouts, tag, 7);
        self.fade(now);
        assert_eq!(made.is_ok(), room > 0, "room for {room}");
        if made.is_err() {
            let alive = self.known.values().filter(|view| now < view.deadline).count();
            assert!(self.table.len() == self.max_entries, "{alive} of {}", self.max_entries);
            return;
        }
        self.forget(&name);
        // One whose timeout is zero is found only where time steps back.
        let mut all = self.table.iter(Timestamp::from_nanos(i64::MIN));
        let made = all.find(|view| (view.scope, view.key) == name).expect("it was just made");
        assert!(made.tag == tag && made.generation == 7);
        self.known.insert(name, made);
    }

    /// Takes the table's word on an entry.
    fn learn(&mut self, name: Name, hit: Hit) {
        let view = self.table.view(&hit).expect("it was just there");
        assert_eq!((view.scope, view.key), name);
        self.known.insert(name, view);
    }

    /// The table may have freed what is dead at `now`.
    fn fade(&mut self, now: Timestamp) {
        let dead = self.known.extract_if(|_, view| view.deadline <= now);
        self.faded.extend(dead);
    }

    /// Takes the table's word on whether an entry that may have been freed is alive again.
    fn wake(&mut self, name: &Name, now: Timestamp) {
        let alive = self.table.iter(now).find(|view| (view.scope, view.key) == *name);
        if let Some(view) = alive
            && self.faded.get(name) == Some(&view)
        {
            self.faded.remove(name);
            self.known.insert(*name, view);
        }
    }

    fn forget(&mut self, name: &Name) {
        self.known.remove(name);
        self.faded.remove(name);
        self.marks.remove(name);
    }

    fn end_some(&mut self, source: &mut Source<'_>) {
        let scope = Scope(source.below(2).into());
        let odd = source.below(2);
        let ends = |view: &FlowView| view.scope == scope && view.tag.0 as u8 & 1 == odd;
        self.table.retain(0..self.table.places(), |view| !ends(view));
        self.known.retain(|_, view| !ends(view));
        self.faded.retain(|_, view| !ends(view));
        let (known, faded) = (&self.known, &self.faded);
        self.marks.retain(|name, _| known.contains_key(name) || faded.contains_key(name));
    }

    fn begin_epoch(&mut self) {
        if self.epoch == Mark::LAST_EPOCH {
            self.table.forget_marks();
            self.marks.clear();
            self.epoch = 0;
        }
        self.epoch += 1;
    }

    /// The flows alive are those that are known, as they are known.
    fn check(&self, now: Timestamp) {
        assert!(self.table.len() <= self.max_entries);
        let alive = self.table.iter(now).collect::<Vec<_>>();
        let mut found = 0;
        for view in &alive {
            let name = (view.scope, view.key);
            match self.known.get(&name) {
                Some(known) => {
                    assert_eq!(known, view);
                    found += 1;
                }
                None => assert_eq!(self.faded.get(&name), Some(view)),
            }
        }
        let known = self.known.values().filter(|view| now < view.deadline);
        assert_eq!(found, known.count(), "alive at {now}");
    }
}
