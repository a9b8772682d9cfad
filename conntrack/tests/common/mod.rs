//! A flow table driven by packets in one line of text.

// Each test file compiles this module, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use sgwall_conntrack::{
    Config, ConnTable, FlowView, Lookup, RuleTag, Scope, TableFull, TimeoutProfile, may_open,
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

pub struct Tracker {
    pub table: ConnTable,
    pub timeouts: TimeoutProfile,
}

impl Tracker {
    pub fn new(max_entries: usize) -> Self {
        let table = ConnTable::new(Config { max_entries, hash_seed: [1, 2, 3, 4] });
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
                Err(TableFull) => "full",
            },
            Lookup::Miss => "none",
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

    fn open(&mut self, headers: &Headers, now: Timestamp) -> Result<(), TableFull> {
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
