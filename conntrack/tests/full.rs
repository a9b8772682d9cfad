//! Full tables: who is refused, who gives its place, and what caps and reserves keep.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Tracker, headers};
use proptest::prelude::*;
use sgwall_conntrack::{
    Allowance, Config, ConnTable, Full, FullTable, Limits, Lookup, RuleTag, Scope, TimeoutProfile,
};
use sgwall_packet::Timestamp;

const fn config(max_entries: usize, full_table: FullTable) -> Config {
    Config { max_entries, full_table, hash_seed: [1, 2, 3, 4] }
}

fn tracker(max_entries: usize, full_table: FullTable) -> Tracker {
    let table = ConnTable::new(config(max_entries, full_table));
    Tracker { table, timeouts: TimeoutProfile::default() }
}

/// Answered or complete before the flood: all of them stay, whatever they are.
#[test]
fn the_oldest_flow_that_nobody_has_answered_gives_its_place() {
    let mut tracker = tracker(9, FullTable::EvictEmbryonic);
    let answered = [
        ("udp 10.0.0.1:4000 -> 10.0.0.2:53", "udp 10.0.0.2:53 -> 10.0.0.1:4000"),
        (
            "icmp 10.0.0.1 -> 10.0.0.2 echo-request id=7",
            "icmp 10.0.0.2 -> 10.0.0.1 echo-reply id=7",
        ),
        ("proto 47 10.0.0.1 -> 10.0.0.2", "proto 47 10.0.0.2 -> 10.0.0.1"),
        (
            "udp [2001:db8::1]:4000 -> [2001:db8::2]:53",
            "udp [2001:db8::2]:53 -> [2001:db8::1]:4000",
        ),
    ];
    for (there, back) in answered {
        assert_eq!((tracker.accept(0.0, there), tracker.accept(0.1, back)), ("new", "reply"));
    }
    // A SYN that is sent again makes its flow no younger.
    let mut send = |time, text: &str| tracker.accept(time, text);
    send(0.2, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 S seq=1000");
    send(0.3, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 S seq=1000");
    send(0.4, "tcp 10.0.0.2:80 -> 10.0.0.1:4000 SA seq=5000 ack=1001");
    send(0.5, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 A seq=1001 ack=5001");
    // Four places are left for what nobody answers; a reset does not make a flow an answered one.
    send(1.0, "tcp 10.0.0.3:1 -> 10.0.0.2:80 S seq=1");
    send(1.1, "tcp 10.0.0.3:1 -> 10.0.0.2:80 R seq=2");
    send(1.2, "tcp 10.0.0.3:2 -> 10.0.0.2:80 S seq=1");
    send(1.3, "tcp 10.0.0.2:80 -> 10.0.0.3:2 SA seq=5000 ack=2");
    send(1.4, "udp 10.0.0.3:3 -> 10.0.0.2:53");
    send(1.5, "udp [2001:db8::3]:4 -> [2001:db8::2]:53");
    let victims = [
        "tcp 10.0.0.3:1 -> 10.0.0.2:80 A seq=2 ack=1",
        "tcp 10.0.0.3:2 -> 10.0.0.2:80 A seq=2 ack=5001",
        "udp 10.0.0.3:3 -> 10.0.0.2:53",
        "udp [2001:db8::3]:4 -> [2001:db8::2]:53",
    ];
    for (gone, victim) in (1..).zip(victims) {
        assert_eq!(tracker.peek(2.0, victim), "established");
        assert_eq!(tracker.accept(2.0, &format!("udp 10.0.0.4:{gone} -> 10.0.0.2:53")), "new");
        assert_eq!(tracker.peek(2.0, victim), "none");
        assert_eq!((tracker.table.len(), tracker.table.counters().evicted), (9, gone));
        assert_eq!(tracker.table.evicted(common::SCOPE), gone);
    }
    for (there, back) in answered {
        assert_eq!((tracker.peek(2.0, there), tracker.peek(2.0, back)), ("established", "reply"));
    }
    assert_eq!(tracker.peek(2.0, "tcp 10.0.0.2:80 -> 10.0.0.1:4000 A seq=5001 ack=1001"), "reply");
    assert_eq!(tracker.table.counters().refused, 0);
}

#[test]
fn without_one_that_nobody_has_answered_the_new_flow_is_refused() {
    let mut tracker = tracker(1, FullTable::EvictEmbryonic);
    tracker.accept(0.0, "udp 10.0.0.1:4000 -> 10.0.0.2:53");
    tracker.accept(0.1, "udp 10.0.0.2:53 -> 10.0.0.1:4000");
    assert_eq!(tracker.accept(0.2, "udp 10.0.0.3:1 -> 10.0.0.2:53"), "full");
    let counters = tracker.table.counters();
    assert_eq!((counters.created, counters.refused, counters.evicted), (1, 1, 0));
}

/// A dead flow whose place is asked for has lost nothing.
#[test]
fn a_dead_flow_is_not_evicted() {
    let mut tracker = tracker(1, FullTable::EvictEmbryonic);
    tracker.accept(0.0, "udp 10.0.0.1:4000 -> 10.0.0.2:53");
    for (time, evicted) in [(30.0, 0), (30.1, 1), (61.0, 1)] {
        let packet = format!("udp 10.0.0.3:{} -> 10.0.0.2:53", time as u32 * 10 + evicted);
        assert_eq!(tracker.accept(time, &packet), "new");
        assert_eq!(tracker.table.counters().evicted, u64::from(evicted), "at {time}");
    }
}

/// What the specification says of a table that is full (SEMANTICS 6.16) is the default.
#[test]
fn by_default_new_flows_are_dropped() {
    assert_eq!(FullTable::default(), FullTable::DropNew);
    let mut tracker = tracker(1, FullTable::DropNew);
    tracker.accept(0.0, "udp 10.0.0.1:4000 -> 10.0.0.2:53");
    assert_eq!(tracker.accept(0.2, "udp 10.0.0.3:1 -> 10.0.0.2:53"), "full");
    assert_eq!(tracker.peek(0.3, "udp 10.0.0.1:4000 -> 10.0.0.2:53"), "established");
}

const NOW: Timestamp = Timestamp::from_secs(1000);

/// Of flow number `n`: its first packet, or the answer to it. Odd ones are IPv6.
fn packet(n: u32, is_answer: bool) -> String {
    let (client, server) = match n % 2 {
        0 => (format!("10.0.0.1:{}", 1000 + n), "10.0.0.2:53"),
        _ => (format!("[2001:db8::1]:{}", 1000 + n), "[2001:db8::2]:53"),
    };
    match is_answer {
        false => format!("udp {client} -> {server}"),
        true => format!("udp {server} -> {client}"),
    }
}

#[derive(Clone, Copy, Debug)]
struct Modelled {
    scope: u32,
    is_answered: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Open { scope: u32, table: usize },
    Answer { flow: usize },
    End { flow: usize },
    Limit { limits: Vec<(u32, Option<u32>, u32)> },
    Copy,
}

const SCOPES: u32 = 4;
const PLACES: usize = 12;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cap = prop_oneof![Just(None), (0..8u32).prop_map(Some)];
    let limit = (0..SCOPES, cap, 0..4u32);
    proptest::collection::vec(
        prop_oneof![
            12 => (0..SCOPES, 0..2usize).prop_map(|(scope, table)| Step::Open { scope, table }),
            4 => any::<usize>().prop_map(|flow| Step::Answer { flow }),
            4 => any::<usize>().prop_map(|flow| Step::End { flow }),
            1 => Just(Step::Copy),
            1 => proptest::collection::vec(limit, 0..4).prop_map(|mut limits| {
                limits.sort_by_key(|(scope, ..)| *scope);
                limits.dedup_by_key(|(scope, ..)| *scope);
                Step::Limit { limits }
            }),
        ],
        1..200,
    )
}

/// What there may be, counted anew each time: nothing is remembered but the flows.
struct Model {
    flows: BTreeMap<u32, Modelled>,
    limits: Vec<(u32, Option<u32>, u32)>,
    full_table: FullTable,
}

impl Model {
    fn count(&self, scope: u32) -> usize {
        self.flows.values().filter(|flow| flow.scope == scope).count()
    }

    fn limits(&self, scope: u32) -> (usize, usize) {
        let found = self.limits.iter().find(|(of, ..)| *of == scope);
        found.map_or((usize::MAX, 0), |&(_, cap, reserve)| {
            (cap.map_or(usize::MAX, |cap| cap as usize), reserve as usize)
        })
    }

    /// Why there is no free place.
    fn full(&self, scope: u32) -> Option<Full> {
        let (cap, reserve) = self.limits(scope);
        let kept = |of: u32| self.count(of).max(self.limits(of).1);
        let is_common_free = (0..SCOPES).map(kept).sum::<usize>() < PLACES;
        match self.count(scope) {
            flows if flows >= cap => Some(Full::Cap),
            _ if self.flows.len() >= PLACES => Some(Full::Table),
            flows if flows < reserve || is_common_free => None,
            _ => Some(Full::Table),
        }
    }

    /// Whether a flow that gives its place helps one that found none for `full`.
    fn would_help(&self, scope: u32, full: Full) -> bool {
        let kept = |of: u32| self.count(of).max(self.limits(of).1);
        let is_owed = (0..SCOPES).map(kept).sum::<usize>() > PLACES;
        let (flows, (cap, reserve)) = (self.count(scope), self.limits(scope));
        match full {
            Full::Table => !is_owed || flows < reserve,
            Full::Cap => flows <= cap && (!is_owed || flows <= reserve),
        }
    }

    fn open(&mut self, scope: u32, number: u32) -> Result<(), Full> {
        if let Some(full) = self.full(scope) {
            let may_ask = |of: u32| {
                of == scope || (full == Full::Table && self.count(of) > self.limits(of).1)
            };
            let mut asked = self.flows.iter().filter(|(_, f)| !f.is_answered && may_ask(f.scope));
            let oldest = asked.next().map(|(number, _)| *number);
            let evicts = self.full_table == FullTable::EvictEmbryonic;
            let Some(oldest) = oldest.filter(|_| evicts && self.would_help(scope, full)) else {
                return Err(full);
            };
            self.flows.remove(&oldest);
            assert_eq!(self.full(scope), None, "it gave its place for nothing");
        }
        self.flows.insert(number, Modelled { scope, is_answered: false });
        Ok(())
    }
}

fn limits_of(limits: &[(u32, Option<u32>, u32)]) -> Vec<(Scope, Limits)> {
    let limits = limits.iter().map(|&(scope, max_flows, reserved_flows)| {
        (Scope(scope), Limits { max_flows, reserved_flows })
    });
    limits.collect()
}

fn open(table: &mut ConnTable, scope: u32, number: u32) -> Result<(), Full> {
    let packet = headers(&packet(number, false));
    table.insert(Scope(scope), &packet, NOW, &TimeoutProfile::default(), RuleTag(0), 0)
}

fn touch(table: &mut ConnTable, number: u32, flow: Modelled, end: bool) -> bool {
    let packet = headers(&packet(number, !end));
    let Lookup::Hit(hit) = table.lookup(Scope(flow.scope), &packet, NOW) else { return false };
    match end {
        true => table.remove(&hit),
        false => table.refresh(&hit, &packet, NOW, &TimeoutProfile::default()),
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One table does exactly what the sums say: whom it refuses and for what, who gives its place,
    /// across changes of the limits.
    #[test]
    fn caps_reserves_and_evictions_are_those_of_the_model(
        evicts in any::<bool>(),
        steps in steps(),
    ) {
        let full_table = if evicts { FullTable::EvictEmbryonic } else { FullTable::DropNew };
        let mut table = ConnTable::new(config(PLACES, full_table));
        let mut model = Model { flows: BTreeMap::new(), limits: Vec::new(), full_table };
        let mut refused = 0;
        for (step, number) in steps.into_iter().zip(0..) {
            let pick = |flow: usize| model.flows.iter().nth(flow % model.flows.len().max(1));
            match step {
                Step::Open { scope, .. } => {
                    let made = open(&mut table, scope, number);
                    refused += u64::from(made.is_err());
                    prop_assert_eq!(made, model.open(scope, number), "{}", number);
                }
                Step::Answer { flow } => if let Some((&number, &flow)) = pick(flow) {
                    prop_assert!(touch(&mut table, number, flow, false));
                    model.flows.insert(number, Modelled { is_answered: true, ..flow });
                },
                Step::End { flow } => if let Some((&number, &flow)) = pick(flow) {
                    prop_assert!(touch(&mut table, number, flow, true));
                    model.flows.remove(&number);
                },
                Step::Limit { limits } => {
                    table.set_limits(number, &limits_of(&limits));
                    model.limits = limits;
                }
                // What it stands for must be the same, and nothing of it the other's.
                Step::Copy => {
                    let copy = table.clone();
                    for scope in 0..SCOPES {
                        let _ = open(&mut table, scope, 10_000 + number * SCOPES + scope);
                    }
                    table = copy;
                }
            }
            table.expire(NOW, 8);
            let mut found: Vec<_> = table.iter(NOW).map(|view| view.scope.0).collect();
            let mut wanted: Vec<_> = model.flows.values().map(|flow| flow.scope).collect();
            found.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted);
            for (&number, flow) in &model.flows {
                let there = headers(&packet(number, false));
                let hit = table.lookup(Scope(flow.scope), &there, NOW);
                prop_assert!(matches!(hit, Lookup::Hit(_)), "{} is gone", number);
            }
            for scope in (0..SCOPES).filter(|scope| model.limits.iter().any(|(of, ..)| of == scope)) {
                let flows = table.flows_of(Scope(scope)).map(|flows| flows as usize);
                prop_assert_eq!(flows, Some(model.count(scope)));
            }
        }
        let counters = table.counters();
        prop_assert_eq!(counters.refused, refused);
        let by_scope = (0..SCOPES).map(|scope| table.evicted(Scope(scope))).sum::<u64>();
        prop_assert_eq!(by_scope, counters.evicted);
    }

    /// Two tables that share: the limits hold for both together, and a reserve is there whichever
    /// table asks, unless a reload has reserved more than was free.
    #[test]
    fn tables_share_caps_and_reserves(evicts in any::<bool>(), steps in steps()) {
        let full_table = if evicts { FullTable::EvictEmbryonic } else { FullTable::DropNew };
        let allowance = Arc::new(Allowance::new(PLACES, 2));
        let mut tables =
            [0, 1].map(|_| ConnTable::sharing(config(PLACES, full_table), Arc::clone(&allowance)));
        let mut known: Vec<(u32, usize, Modelled)> = Vec::new();
        let (mut limits, mut is_owed) = (Vec::<(u32, Option<u32>, u32)>::new(), false);
        for (step, number) in steps.into_iter().zip(0..) {
            let of = |tables: &[ConnTable], scope: u32| -> usize {
                let all = tables.iter().flat_map(|table| table.iter(NOW));
                all.filter(|view| view.scope.0 == scope).count()
            };
            match step {
                Step::Open { scope, table } => {
                    let limit = limits.iter().find(|(of, ..)| *of == scope);
                    let &(_, cap, reserve) = limit.unwrap_or(&(scope, None, 0));
                    let before: Vec<_> = (0..SCOPES).map(|scope| of(&tables, scope)).collect();
                    let made = open(&mut tables[table], scope, number);
                    let flows = before[scope as usize];
                    let is_below_cap = cap.is_none_or(|cap| flows < cap as usize);
                    if !is_below_cap && !evicts {
                        prop_assert_eq!(made, Err(Full::Cap));
                    }
                    if flows < reserve as usize && is_below_cap && !is_owed {
                        prop_assert_eq!(made, Ok(()));
                    }
                    for &(other, _, reserve) in limits.iter().filter(|(of, ..)| *of != scope) {
                        let (was, is) = (before[other as usize], of(&tables, other));
                        prop_assert!(is == was || is >= reserve as usize, "{} lost its own", other);
                    }
                    if made.is_ok() {
                        known.push((number, table, Modelled { scope, is_answered: false }));
                    }
                }
                Step::Answer { flow } => if !known.is_empty() {
                    let at = flow % known.len();
                    let (number, table, flow) = &mut known[at];
                    flow.is_answered |= touch(&mut tables[*table], *number, *flow, false);
                },
                Step::End { flow } => if !known.is_empty() {
                    let (number, table, flow) = known.remove(flow % known.len());
                    touch(&mut tables[table], number, flow, true);
                },
                Step::Limit { limits: new } => {
                    for table in &mut tables {
                        table.set_limits(number, &limits_of(&new));
                    }
                    limits = new;
                    let kept = |scope: u32| {
                        let reserve = limits.iter().find(|(of, ..)| *of == scope);
                        of(&tables, scope).max(reserve.map_or(0, |(.., reserve)| *reserve as usize))
                    };
                    is_owed = (0..SCOPES).map(kept).sum::<usize>() > PLACES;
                }
                Step::Copy => {}
            }
            for table in &mut tables {
                table.expire(NOW, 8);
            }
            let all = tables.iter().map(ConnTable::len).sum::<usize>();
            prop_assert!(all <= PLACES, "{} flows", all);
            for (number, table, flow) in known.iter().filter(|(.., flow)| flow.is_answered) {
                let there = headers(&packet(*number, false));
                let hit = tables[*table].lookup(Scope(flow.scope), &there, NOW);
                prop_assert!(matches!(hit, Lookup::Hit(_)), "{} is gone", number);
            }
        }
        // Everything comes back.
        for table in &mut tables {
            table.retain(0..table.places(), |_| false);
            // What lies idle is given back when limits change.
            table.set_limits(u32::MAX - 1, &limits_of(&[(9, None, 0)]));
            table.set_limits(u32::MAX, &[]);
            table.expire(NOW, 8);
        }
        prop_assert_eq!(allowance.left(), PLACES);
    }
}

/// Threads that open and end flows at once: there are never more than there may be, and in the end
/// everything is free.
#[test]
fn limits_hold_across_threads() {
    const THREADS: u32 = 4;
    let allowance = Arc::new(Allowance::new(64, THREADS as usize));
    let limits = limits_of(&[(0, Some(20), 10), (1, None, 16)]);
    let barrier = std::sync::Barrier::new(THREADS as usize);
    let work = |thread: u32| {
        let mut table =
            ConnTable::sharing(config(64, FullTable::EvictEmbryonic), Arc::clone(&allowance));
        table.set_limits(1, &limits);
        let mut opened = 0;
        for number in 0..4000 {
            let scope = (number + thread) % 3;
            opened += u32::from(open(&mut table, scope, number).is_ok());
            let capped = table.flows_of(Scope(0));
            assert!(capped.is_some_and(|flows| flows <= 20), "{capped:?}");
            if number % 7 == 0 {
                let all = 0..table.places();
                table.retain(all, |view| view.scope.0 == number % 3);
            }
            table.expire(NOW, 8);
        }
        table.retain(0..table.places(), |_| false);
        barrier.wait();
        table.set_limits(2, &[]);
        table.expire(NOW, 8);
        opened
    };
    let opened: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert!(opened > 1000, "{opened}");
    assert_eq!(allowance.left(), 64);
}

/// A limit of an older policy does not come back with a table that is late.
#[test]
fn the_latest_limits_hold() {
    let allowance = Arc::new(Allowance::new(8, 2));
    let mut tables =
        [0, 1].map(|_| ConnTable::sharing(config(8, FullTable::DropNew), Arc::clone(&allowance)));
    tables[0].set_limits(2, &limits_of(&[(0, Some(1), 0)]));
    tables[1].set_limits(1, &limits_of(&[(0, Some(5), 0)]));
    assert_eq!(open(&mut tables[1], 0, 0), Ok(()));
    assert_eq!(open(&mut tables[1], 0, 2), Err(Full::Cap));
    assert_eq!(tables[0].flows_of(Scope(0)), Some(1));
}
