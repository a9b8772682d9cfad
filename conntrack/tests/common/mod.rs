//! A flow table driven by packets in one line of text.

// Each test file compiles this module, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use sgwall_conntrack::{
    Config, ConnTable, FlowView, Full, FullTable, Lookup, RuleTag, Scope, TimeoutProfile, may_open,
};
use sgwall_packet::{Headers, PacketSpec, Timestamp, parse_ip};

pub const SCOPE: Scope = Scope(1);

pub fn headers(packet: &str) -> Headers {
    let packet: PacketSpec = packet.parse().unwrap_or_else(|e| panic!("{packet}: {e}"));
    let bytes = packet.to_ip();
    parse_ip(&bytes, bytes.len()).unwrap()
}

/// Seconds, to the millisecond.
pub fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos((seconds * 1000.0).round() as i64 * 1_000_000)
}

/// A line of a table: time, sender (`>` the original end, `<` the other), flags and numbers, then
/// what is to come of it.
pub type Line = (f64, char, &'static str, &'static str);

/// The handshake: the opener begins at 1000, the other at 5000.
pub const SYN: Line = (0.0, '>', "S seq=1000", "syn-sent");
pub const SYN_ACK: Line = (0.1, '<', "SA seq=5000 ack=1001", "syn-recv");
pub const ACK: Line = (0.2, '>', "A seq=1001 ack=5001", "established");

/// The packet of a line.
pub fn segment(from: char, segment: &str) -> String {
    match from {
        '>' => format!("tcp 10.0.0.1:4000 -> 10.0.0.2:80 {segment}"),
        _ => format!("tcp 10.0.0.2:80 -> 10.0.0.1:4000 {segment}"),
    }
}

/// Every packet of the table passes, and leads to the state that its line ends with.
pub fn tcp(table: &[Line]) {
    let mut tracker = Tracker::new(8);
    for &(time, from, text, state) in table {
        tracker.accept(time, &segment(from, text));
        assert_eq!(tracker.state(time), state, "after {time} {from} {text}");
    }
}

/// Each line ends with what becomes of the segment where windows are checked: `taken`; `nothing`,
/// it passes without effect; `out`, it does not pass, and would have no effect if it did.
pub fn checked(table: &[Line]) {
    let mut tracker = Tracker::new(8);
    for &(time, from, text, expected) in table {
        let found = tracker.check(time, &segment(from, text));
        assert_eq!(found, expected, "{time} {from} {text} in {}", tracker.state(time));
    }
}

pub struct Tracker {
    pub table: ConnTable,
    pub timeouts: TimeoutProfile,
}

impl Tracker {
    pub fn new(max_entries: usize) -> Self {
        let table = ConnTable::new(Config {
            max_entries,
            full_table: FullTable::DropNew,
            hash_seed: [1, 2, 3, 4],
        });
        Tracker { table, timeouts: TimeoutProfile::default() }
    }

    /// A packet that every rule allows, as an accepting caller handles it: what the table said.
    pub fn accept(&mut self, time: f64, packet: &str) -> &'static str {
        let (headers, now) = (headers(packet), at(time));
        match self.table.lookup(SCOPE, &headers, now) {
            Lookup::Hit(hit) => {
                self.table.refresh(&hit, &headers, now, &self.timeouts);
                if hit.reply { "reply" } else { "established" }
            }
            Lookup::Reopen(hit) => {
                self.table.remove(&hit);
                self.open(&headers, now).unwrap();
                "reopen"
            }
            Lookup::Miss if may_open(&headers) => match self.open(&headers, now) {
                Ok(()) => "new",
                Err(_) => "full",
            },
            Lookup::Miss => "none",
        }
    }

    /// See [`checked`]. Times must differ, so that a refresh shows.
    pub fn check(&mut self, time: f64, packet: &str) -> &'static str {
        let (headers, now) = (headers(packet), at(time));
        let is_outside = match self.table.lookup(SCOPE, &headers, now) {
            Lookup::Hit(hit) => self.table.is_out_of_window(&hit, &headers),
            _ => false,
        };
        let before = self.flow(time);
        self.accept(time, packet);
        match (is_outside, self.flow(time) == before) {
            (true, true) => "out",
            (true, false) => panic!("{packet} is outside the window, and has an effect"),
            (false, true) => "nothing",
            (false, false) => "taken",
        }
    }

    /// What the table says of a packet that is not accepted.
    pub fn peek(&self, time: f64, packet: &str) -> &'static str {
        match self.table.lookup(SCOPE, &headers(packet), at(time)) {
            Lookup::Hit(hit) if hit.reply => "reply",
            Lookup::Hit(_) => "established",
            Lookup::Reopen(_) => "reopen",
            Lookup::Miss => "none",
        }
    }

    fn open(&mut self, headers: &Headers, now: Timestamp) -> Result<(), Full> {
        self.table.insert(SCOPE, headers, now, &self.timeouts, RuleTag(7), 3)
    }

    /// The one live flow.
    pub fn flow(&self, time: f64) -> Option<FlowView> {
        let mut flows = self.table.iter(at(time));
        let flow = flows.next();
        assert!(flows.next().is_none(), "more than one flow");
        flow
    }

    pub fn state(&self, time: f64) -> &'static str {
        self.flow(time).map_or("none", |flow| flow.state.as_str())
    }
}
