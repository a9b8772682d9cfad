//! Watches for new flows that find no place, so that it is told of while it happens: once when it
//! begins, then once a minute at the most. Packets never wait for it.

use sgwall_packet::{Duration, Timestamp};

use crate::engine::Engine;
use crate::top::{By, Top};

/// How often it may be told of.
const PAUSE: Duration = Duration::from_secs(60);
/// Addresses that are named, and interfaces.
const NAMED: usize = 5;

/// New flows find no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Tracked flows in memory.
    pub flows: u64,
    /// The most that there may be.
    pub max_flows: u64,
    /// Flows that were refused since it was last told of.
    pub refused: u64,
    /// Flows that gave their place to others since then.
    pub evicted: u64,
    /// The remote addresses with most flows.
    pub remotes: Top,
    /// The interfaces with most flows.
    pub interfaces: Top,
}

impl std::fmt::Display for Filled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Filled { flows, max_flows, refused, evicted, remotes, interfaces } = self;
        write!(
            f,
            "new flows find no place: {flows} of at most {max_flows} are tracked, {refused} were \
             refused and {evicted} gave their place; most flows by remote address: {remotes}; by \
             interface: {interfaces}"
        )
    }
}

/// Looks now and then whether flows find a place.
#[derive(Debug, Default)]
pub struct Watch {
    /// What was counted when it was last told of.
    refused: u64,
    evicted: u64,
    /// What was counted at the last look.
    seen: u64,
    told: Option<Timestamp>,
}

impl Watch {
    /// What is to be told, if flows have found no place since the last look.
    pub fn look(&mut self, engine: &Engine) -> Option<Filled> {
        let (mut flows, mut refused, mut evicted) = (0, 0, 0);
        engine.shared().with_shards(|judge, _| {
            let connections = judge.pipeline().connections();
            flows += connections.len() as u64;
            refused += connections.counters().refused;
            evicted += connections.counters().evicted;
        });
        if !self.is_to_be_told(refused + evicted, engine.now()) {
            return None;
        }
        let [remotes, interfaces] = engine.top([By::Remote, By::Interface], NAMED);
        let filled = Filled {
            flows,
            max_flows: engine.max_flows(),
            refused: refused - self.refused,
            evicted: evicted - self.evicted,
            remotes,
            interfaces,
        };
        (self.refused, self.evicted) = (refused, evicted);
        Some(filled)
    }

    fn is_to_be_told(&mut self, counted: u64, now: Timestamp) -> bool {
        let is_new = counted > std::mem::replace(&mut self.seen, counted);
        let is_due = self.told.is_none_or(|told| now.since(told) >= PAUSE);
        if is_new && is_due {
            self.told = Some(now);
        }
        is_new && is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_when_it_begins_and_then_once_a_minute() {
        let mut watch = Watch::default();
        let looks =
            [(0, 0), (1, 0), (2, 5), (3, 5), (4, 9), (61, 20), (62, 21), (100, 30), (122, 30)];
        let told = looks.map(|(seconds, counted)| {
            watch.is_to_be_told(counted, Timestamp::from_secs(seconds)).then_some(seconds)
        });
        assert_eq!(told.into_iter().flatten().collect::<Vec<_>>(), [2, 62]);
        assert!(watch.is_to_be_told(31, Timestamp::from_secs(123)));
    }
}
