//! The table against a naive map with the same timeouts, and its bounds.

mod common;

use std::collections::HashMap;

use common::{SCOPE, Tracker, at, headers};
use proptest::prelude::*;
use sgwall_conntrack::{
    Config, ConnTable, FlowState, Footprint, FullTable, Lookup, RuleTag, Scope, TimeoutProfile,
};
use sgwall_packet::{Duration, FlowKey, Side, Timestamp};

/// A flow as the naive map has it: UDP and other protocols, whose states are simple enough to
/// write down twice.
#[derive(Clone, Copy)]
struct Naive {
    original: Side,
    transactions: u32,
    asked: bool,
    last: Timestamp,
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Step {
    /// A packet of flow `n`, turned round or not, after `gap` milliseconds.
    Packet {
        flow: u8,
        turned: bool,
        scope: u8,
        gap: u32,
    },
    Expire {
        budget: u8,
    },
    Shorten {
        seconds: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![0..2_000u32, 0..40_000u32, 0..700_000u32, Just(30_000), Just(3_000_000)];
    let packet = (0..24u8, any::<bool>(), 0..2u8, gap)
        .prop_map(|(flow, turned, scope, gap)| Step::Packet { flow, turned, scope, gap });
    proptest::collection::vec(
        prop_oneof![
            12 => packet,
            2 => any::<u8>().prop_map(|budget| Step::Expire { budget }),
            1 => (1..60u8).prop_map(|seconds| Step::Shorten { seconds }),
        ],
        1..400,
    )
}

fn packet(flow: u8, turned: bool) -> String {
    let (a, b) = if flow.is_multiple_of(2) {
        ("10.0.0.1", "10.0.0.2")
    } else {
        ("2001:db8::1", "2001:db8::2")
    };
    let (src, dst) = if turned { (b, a) } else { (a, b) };
    let port = 1000 + u16::from(flow);
    let end = |address: &str, port| match flow % 2 {
        0 => format!("{address}:{port}"),
        _ => format!("[{address}]:{port}"),
    };
    match (flow, turned) {
        (0..16, false) => format!("udp {} -> {}", end(src, port), end(dst, 53)),
        (0..16, true) => format!("udp {} -> {}", end(src, 53), end(dst, port)),
        _ => format!("proto {} {src} -> {dst}", 90 + flow),
    }
}

proptest! {
    #[test]
    fn the_table_is_a_map_with_timeouts(steps in steps()) {
        let mut table = ConnTable::new(Config { max_entries: 1000, full_table: FullTable::DropNew, hash_seed: [9, 8, 7, 6] });
        let mut timeouts = TimeoutProfile::default();
        let mut naive: HashMap<(u8, FlowKey), Naive> = HashMap::new();
        let mut now = Timestamp::from_secs(1_700_000_000);
        for step in steps {
            match step {
                Step::Expire { budget } => table.expire(now, budget.into()),
                Step::Shorten { seconds } => {
                    timeouts.set(FlowState::UdpStream, Duration::from_secs(seconds.into()));
                    let other = Duration::from_secs(10 * u64::from(seconds));
                    timeouts.set(FlowState::Other, other);
                }
                Step::Packet { flow, turned, scope, gap } => {
                    now = now.after(Duration::from_millis(gap.into()));
                    let headers = headers(&packet(flow, turned));
                    let (key, side) = FlowKey::of(&headers).unwrap();
                    let known = naive.get(&(scope, key)).copied();
                    let alive = known.filter(|known| {
                        known.last.after(known.timeout) > now
                    });
                    let scope_id = Scope(scope.into());
                    let found = table.lookup(scope_id, &headers, now);
                    match (found, alive) {
                        (Lookup::Miss, None) => {
                            table.insert(scope_id, &headers, now, &timeouts, RuleTag(flow.into()), 0)
                                .unwrap();
                            let timeout = if flow < 16 { timeouts.of(FlowState::Udp) } else { timeouts.of(FlowState::Other) };
                            naive.insert((scope, key), Naive {
                                original: side, transactions: 0, asked: true, last: now, timeout,
                            });
                        }
                        (Lookup::Hit(hit), Some(mut known)) => {
                            prop_assert_eq!(hit.reply, side != known.original);
                            prop_assert_eq!(hit.tag, RuleTag(flow.into()));
                            table.refresh(&hit, &headers, now, &timeouts);
                            if hit.reply && known.asked {
                                known.transactions += 1;
                            }
                            known.asked = !hit.reply;
                            known.last = now;
                            known.timeout = match (flow < 16, known.transactions) {
                                (true, 0 | 1) => timeouts.of(FlowState::Udp),
                                (true, _) => timeouts.of(FlowState::UdpStream),
                                (false, _) => timeouts.of(FlowState::Other),
                            };
                            naive.insert((scope, key), known);
                        }
                        (found, alive) => {
                            let known = alive.map(|a| (a.last, a.timeout));
                            prop_assert!(false, "{:?} at {}: {:?}", found, now, known);
                        }
                    }
                }
            }
            let alive = naive.values().filter(|n| n.last.after(n.timeout) > now).count();
            prop_assert_eq!(table.iter(now).count(), alive);
        }
        // Whatever happened, time ends every flow and its memory.
        table.expire(now.after(Duration::from_secs(3_600)), 100_000);
        prop_assert_eq!(table.len(), 0);
    }
}

proptest! {
    /// Captures step back in time, a little or by years: the table stays whole.
    #[test]
    fn time_may_jump(times in proptest::collection::vec((0..24u8, any::<i64>(), 0..64u32), 1..200)) {
        let mut table = ConnTable::new(Config { max_entries: 8, full_table: FullTable::DropNew, hash_seed: [9, 8, 7, 6] });
        let timeouts = TimeoutProfile::default();
        for (flow, time, shift) in times {
            let now = Timestamp::from_nanos(time >> shift);
            let headers = headers(&packet(flow, false));
            match table.lookup(SCOPE, &headers, now) {
                Lookup::Hit(hit) => table.refresh(&hit, &headers, now, &timeouts),
                _ => {
                    let room = table.room(now);
                    let made = table.insert(SCOPE, &headers, now, &timeouts, RuleTag(0), 0);
                    prop_assert_eq!(room > 0, made.is_ok());
                }
            }
            prop_assert!(table.len() <= 8);
            prop_assert!(table.iter(now).all(|flow| flow.deadline > now));
            table.expire(now, 10);
        }
        let end = Timestamp::from_nanos(i64::MAX);
        for _ in 0..100 {
            table.expire(end, 10_000);
        }
        prop_assert_eq!(table.iter(end).count(), 0);
    }
}

/// SEMANTICS 6.16 and case 28: a full table refuses new flows, and only those.
#[test]
fn a_full_table_refuses_new_flows_only() {
    let mut tracker = Tracker::new(3);
    for n in 1..=3 {
        let packet = format!("tcp 10.0.0.{n}:4000 -> 10.0.1.1:80 S");
        assert_eq!(tracker.accept(0.0, &packet), "new");
    }
    assert_eq!(tracker.accept(1.0, "tcp 10.0.0.9:4000 -> 10.0.1.1:80 S"), "full");
    assert_eq!(tracker.accept(1.0, "tcp [2001:db8::9]:4000 -> [2001:db8::1]:80 S"), "full");
    assert_eq!(tracker.accept(1.0, "tcp 10.0.1.1:80 -> 10.0.0.2:4000 SA ack=1"), "reply");
    let counters = tracker.table.counters();
    assert_eq!((counters.created, counters.refused), (3, 2));
    // The handshake's third is at 60 s; the two that were never answered end at 120 s.
    assert_eq!(tracker.accept(60.9, "tcp 10.0.0.9:4000 -> 10.0.1.1:80 S"), "full");
    assert_eq!(tracker.accept(61.3, "tcp 10.0.0.9:4000 -> 10.0.1.1:80 S"), "new");
    assert_eq!(tracker.accept(119.9, "udp 10.0.0.9:4000 -> 10.0.1.1:53"), "full");
    assert_eq!(tracker.accept(120.3, "udp 10.0.0.9:4000 -> 10.0.1.1:53"), "new");
    assert_eq!(tracker.table.len(), 3);
}

/// A table of one, through every size of gap: its place is always free again in time.
#[test]
fn places_are_free_again_after_any_gap() {
    let mut tracker = Tracker::new(1);
    let mut time = 0.0;
    for (n, gap) in [0.0, 30.3, 31.0, 1_099.0, 1_100.0, 5_000.0, 1e6, 1e9].into_iter().enumerate() {
        time += gap;
        let packet = format!("udp 10.0.0.1:{} -> 10.0.0.2:53", 1000 + n);
        assert_eq!(tracker.accept(time, &packet), "new", "after a gap of {gap} s");
        assert_eq!(tracker.table.len(), 1);
    }
}

#[test]
fn expiry_is_bounded_and_reaches_everything() {
    let mut tracker = Tracker::new(10_000);
    for n in 0..5_000 {
        let packet = format!("udp 10.0.{}.{}:7 -> 10.1.0.1:53", n / 250, n % 250);
        tracker.accept(f64::from(n) / 1000.0, &packet);
    }
    assert_eq!(tracker.table.iter(at(5.0)).count(), 5_000);
    assert_eq!(tracker.table.iter(at(34.999)).count(), 0);
    tracker.table.expire(at(100.0), 64);
    assert!(tracker.table.len() >= 4_936, "one call may do 64 steps");
    let calls = (0..200).take_while(|_| {
        tracker.table.expire(at(100.0), 64);
        !tracker.table.is_empty()
    });
    assert!(calls.count() < 100, "5000 entries and 370 lists are about 84 calls");
    assert!(tracker.table.is_empty());
}

/// A flow that is refreshed outlives the list it first stood in; one whose timeout shrinks does
/// not hold its place until the old deadline.
#[test]
fn a_deadline_may_move_either_way() {
    let mut tracker = Tracker::new(1);
    for second in 0..100 {
        let found = tracker.accept(f64::from(second * 20), "udp 10.0.0.1:7 -> 10.0.0.2:53");
        assert_eq!(found, if second == 0 { "new" } else { "established" });
        tracker.table.expire(at(f64::from(second * 20)), 10_000);
        assert_eq!(tracker.table.len(), 1);
    }
    let mut tracker = Tracker::new(1);
    tracker.accept(0.0, "tcp 10.0.0.1:7 -> 10.0.0.2:80 S seq=1");
    tracker.accept(0.0, "tcp 10.0.0.2:80 -> 10.0.0.1:7 SA seq=1 ack=2");
    tracker.accept(0.0, "tcp 10.0.0.1:7 -> 10.0.0.2:80 A seq=2 ack=2");
    tracker.accept(1.0, "tcp 10.0.0.1:7 -> 10.0.0.2:80 R seq=2");
    assert_eq!(tracker.accept(10.9, "udp 10.0.0.1:7 -> 10.0.0.2:53"), "full");
    assert_eq!(tracker.accept(11.3, "udp 10.0.0.1:7 -> 10.0.0.2:53"), "new");
}

#[test]
fn interfaces_have_their_own_flows_and_lose_them_on_request() {
    let mut tracker = Tracker::new(8);
    tracker.accept(0.0, "udp 10.0.0.1:7 -> 10.0.0.2:53");
    let packet = headers("udp 10.0.0.2:53 -> 10.0.0.1:7");
    assert_eq!(tracker.table.lookup(Scope(2), &packet, at(0.0)), Lookup::Miss);
    assert!(matches!(tracker.table.lookup(SCOPE, &packet, at(0.0)), Lookup::Hit(_)));
    assert_eq!(tracker.table.retain(0..9, |flow| flow.scope != Scope(2)), 0);
    assert_eq!(tracker.table.retain(0..9, |flow| flow.scope != SCOPE), 1);
    assert_eq!(tracker.table.lookup(SCOPE, &packet, at(0.0)), Lookup::Miss);
    assert!(tracker.table.is_empty());
}

#[test]
fn a_hit_shows_its_flow_as_long_as_that_lives() {
    let mut tracker = Tracker::new(8);
    let query = headers("udp 10.0.0.1:7 -> 10.0.0.2:53");
    tracker.accept(0.0, "udp 10.0.0.1:7 -> 10.0.0.2:53");
    let Lookup::Hit(hit) = tracker.table.lookup(SCOPE, &query, at(1.0)) else { panic!() };
    assert_eq!(tracker.table.view(&hit), tracker.flow(1.0));
    tracker.table.remove(&hit);
    assert_eq!(tracker.table.view(&hit), None);
}

#[test]
fn a_stale_hit_touches_nothing() {
    let mut tracker = Tracker::new(8);
    let old = headers("udp 10.0.0.1:7 -> 10.0.0.2:53");
    tracker.accept(0.0, "udp 10.0.0.1:7 -> 10.0.0.2:53");
    let Lookup::Hit(stale) = tracker.table.lookup(SCOPE, &old, at(0.0)) else { panic!() };
    tracker.table.remove(&stale);
    tracker.accept(1.0, "udp 10.0.0.3:7 -> 10.0.0.4:53");
    let deadline = tracker.flow(1.0).unwrap().deadline;
    tracker.table.refresh(&stale, &old, at(9.0), &TimeoutProfile::default());
    tracker.table.remove(&stale);
    assert_eq!(tracker.flow(1.0).unwrap().deadline, deadline);
}

/// Tables that share an allowance hold so many together, whichever has them, and give back what
/// they do not need.
#[test]
fn tables_share_what_they_may_hold_together() {
    use std::sync::Arc;

    use sgwall_conntrack::Allowance;

    let allowance = Arc::new(Allowance::new(1000, 2));
    let config =
        Config { max_entries: 10, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let mut tables = [0, 1].map(|_| ConnTable::sharing(config, Arc::clone(&allowance)));
    let timeouts = TimeoutProfile::default();
    let now = Timestamp::from_secs(1000);
    let open = |table: &mut ConnTable, port: u16, now| {
        let packet = headers(&format!("udp 203.0.113.1:{port} -> 10.0.1.10:53"));
        table.insert(SCOPE, &packet, now, &timeouts, RuleTag(0), 0).is_ok()
    };
    let opened = (0..2000).filter(|&n| open(&mut tables[usize::from(n % 3 == 0)], n, now)).count();
    assert_eq!(opened, 1000);
    assert_eq!((tables[0].len() + tables[1].len(), allowance.left()), (1000, 0));
    // One that is full alone may still have what the other has given back.
    let later = Timestamp::from_secs(2000);
    for _ in 0..100 {
        tables[0].expire(later, 64);
    }
    assert_eq!(tables[0].len(), 0);
    assert!(allowance.left() > 0);
    let more = (3000..5000).filter(|&n| open(&mut tables[1], n, later)).count();
    assert!(more > 500, "{more}");
    assert!(tables[0].len() + tables[1].len() <= 1000);
}

/// What a table takes is known before it is made: a full one of either family takes no more than
/// that, and not much less.
#[test]
fn a_footprint_grows_with_the_table() {
    let [one, many] = [1, 1_000_000].map(Footprint::of);
    assert_eq!(many.resident, one.resident * 1_000_000);
    assert_eq!(many.reserved, one.reserved * 1_000_000);
    // An entry of IPv6 has 88 bytes, IPv4's 64; and each has its place in an index.
    assert!((89..=96).contains(&one.resident), "{one:?}");
    assert!((154..=164).contains(&one.reserved), "{one:?}");
    assert_eq!(Footprint::of(usize::MAX).reserved, u64::MAX);
}
