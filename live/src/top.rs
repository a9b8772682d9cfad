//! Who has most of the tracked flows: what to know when the table fills.
//!
//! A flood may come from as many addresses as it likes, so nothing here grows with their number.
//! Flows are walked twice, some places of a shard at a time. The first time a bounded number of
//! counters (Misra and Gries, 1982) finds the candidates: a value with more than one flow in
//! [`COUNTERS`] is certainly among them. The second time the candidates are counted.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sgwall_dataplane::TrackedFlow;
use sgwall_packet::{Direction, Timestamp, protocol};
use sgwall_rules::model::protocol_name;

use crate::engine::Engine;

/// Counters of a walk, for each thing that is counted by.
const COUNTERS: usize = 1024;
/// Candidates that are counted for each row that is asked for.
const CANDIDATES: usize = 4;
/// The most rows that may be asked for.
pub const MAX_ROWS: usize = COUNTERS / CANDIDATES;

/// What flows are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The address at the other end, as seen from the interface.
    #[default]
    Remote,
    /// The address that opened the flow.
    Src,
    /// The address that it was opened to.
    Dst,
    /// The port that it was opened to, of TCP and UDP.
    Port,
    /// The interface that tracks it.
    Interface,
    /// Its protocol.
    Protocol,
    /// Its state.
    State,
}

impl By {
    /// A stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            By::Remote => "remote",
            By::Src => "src",
            By::Dst => "dst",
            By::Port => "port",
            By::Interface => "interface",
            By::Protocol => "protocol",
            By::State => "state",
        }
    }

    fn key(self, flow: &TrackedFlow<'_>) -> Key {
        let tuple = flow.view.original_tuple();
        match self {
            By::Remote => Key::Address(match flow.direction {
                Direction::Ingress => tuple.src,
                Direction::Egress => tuple.dst,
            }),
            By::Src => Key::Address(tuple.src),
            By::Dst => Key::Address(tuple.dst),
            By::Port => match tuple.protocol {
                protocol::TCP | protocol::UDP => Key::Port(tuple.protocol, tuple.dst_port),
                other => Key::Protocol(other),
            },
            By::Interface => Key::Interface(flow.interface),
            By::Protocol => Key::Protocol(tuple.protocol),
            By::State => Key::State(flow.view.state.as_str()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Address(IpAddr),
    Port(u8, u16),
    Interface(Option<usize>),
    Protocol(u8),
    State(&'static str),
}

/// Who has most of the tracked flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// What they were counted by.
    pub by: By,
    /// Tracked flows in all.
    pub flows: u64,
    /// Those that have most, the first the most.
    pub rows: Vec<TopRow>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopRow {
    /// The address, the interface, the state …
    pub value: String,
    /// Its tracked flows.
    pub flows: u64,
}

impl std::fmt::Display for Top {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", row.value, row.flows)?;
        }
        Ok(())
    }
}

/// The summary of Misra and Gries: whatever came more often than once in `room + 1` times has a
/// counter.
#[derive(Debug)]
struct Summary {
    counters: HashMap<Key, u64>,
    room: usize,
}

impl Summary {
    fn new(room: usize) -> Self {
        Summary { counters: HashMap::with_capacity(room), room }
    }

    /// A step that takes a counter from all others is paid for by those that gave them.
    fn note(&mut self, key: Key) {
        if self.counters.len() < self.room || self.counters.contains_key(&key) {
            *self.counters.entry(key).or_default() += 1;
            return;
        }
        self.counters.retain(|_, count| {
            *count -= 1;
            *count > 0
        });
    }

    /// Those that came most often, or may have.
    fn candidates(&self, most: usize) -> HashMap<Key, u64> {
        let mut all: Vec<_> = self.counters.iter().map(|(key, count)| (*count, *key)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(most).map(|(_, key)| (key, 0)).collect()
    }
}

impl Engine {
    /// Who has most of the tracked flows, by each of some things: at most `rows` of each, up to
    /// [`MAX_ROWS`]. Flows that come or go meanwhile may be missed.
    #[must_use]
    pub fn top<const N: usize>(&self, by: [By; N], rows: usize) -> [Top; N] {
        let (now, rows) = (self.now(), rows.min(MAX_ROWS));
        let mut summaries = by.map(|_| Summary::new(COUNTERS));
        self.look_at_flows(now, |flow| {
            for (by, summary) in by.iter().zip(&mut summaries) {
                summary.note(by.key(flow));
            }
        });
        let mut counted = summaries.map(|summary| summary.candidates(rows * CANDIDATES));
        let mut flows = 0;
        self.look_at_flows(now, |flow| {
            flows += 1;
            for (by, counted) in by.iter().zip(&mut counted) {
                if let Some(count) = counted.get_mut(&by.key(flow)) {
                    *count += 1;
                }
            }
        });
        let policy = &self.shared().snapshot().policy;
        let interface = |index: Option<usize>| Some(policy.interfaces().get(index?)?.id.clone());
        let name = |key: &Key| match key {
            Key::Address(address) => address.to_string(),
            Key::Port(number, port) => format!("{}/{port}", protocol_name(*number)),
            Key::Interface(index) => interface(*index).unwrap_or_else(|| "-".to_owned()),
            Key::Protocol(number) => protocol_name(*number),
            Key::State(state) => (*state).to_owned(),
        };
        let mut counted = counted.into_iter();
        by.map(|by| {
            let counted = counted.next().unwrap_or_default();
            let mut all: Vec<_> = counted.into_iter().filter(|(_, count)| *count > 0).collect();
            all.sort_unstable_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
            let row = |(key, flows): &(Key, u64)| TopRow { value: name(key), flows: *flows };
            Top { by, flows, rows: all.iter().take(rows).map(row).collect() }
        })
    }

    fn look_at_flows(&self, now: Timestamp, mut work: impl FnMut(&TrackedFlow<'_>)) {
        self.shared().with_flows(|judge, places, _| {
            for flow in judge.pipeline().flows(places, now) {
                work(&flow);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A talker that has more than its share is found, however many others there are and whenever
    /// they come; and memory stays where it was.
    #[test]
    fn a_spread_does_not_hide_who_talks_most() {
        let address = |n: u32| Key::Address(IpAddr::V4(n.into()));
        for loud_first in [true, false] {
            let mut summary = Summary::new(16);
            let loud = |summary: &mut Summary| (0..900).for_each(|_| summary.note(address(7)));
            if loud_first {
                loud(&mut summary);
            }
            for n in 0..10_000 {
                summary.note(address(1000 + n));
                assert!(summary.counters.len() <= 16);
            }
            if !loud_first {
                loud(&mut summary);
            }
            assert!(summary.candidates(4).contains_key(&address(7)), "{loud_first}");
        }
    }
}
