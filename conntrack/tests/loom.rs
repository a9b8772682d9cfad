//! Tables of two workers that share an allowance, in every order in which they can meet at it:
//! `RUSTFLAGS="--cfg loom" cargo test -p sgwall-conntrack --release --test loom`.

#![cfg(loom)]

mod common;

use std::sync::Arc;

use common::{SCOPE, at, headers};
use sgwall_conntrack::{Allowance, Config, ConnTable, FullTable, RuleTag, TimeoutProfile};
use sgwall_packet::Timestamp;

/// Every order with at most two preemptions; `LOOM_MAX_PREEMPTIONS` may ask for more. With three it
/// is minutes, without a bound hours: a flow that opens touches several words.
fn model(work: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(work);
}

/// A worker's table.
struct Table {
    table: ConnTable,
    timeouts: TimeoutProfile,
    worker: u8,
    opened: u16,
}

impl Table {
    fn new(allowance: &Arc<Allowance>, worker: u8) -> Self {
        let config =
            Config { max_entries: 4, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
        let table = ConnTable::sharing(config, Arc::clone(allowance));
        Table { table, timeouts: TimeoutProfile::default(), worker, opened: 0 }
    }

    /// Opens another flow; whether there was room.
    fn open(&mut self, now: Timestamp) -> bool {
        self.opened += 1;
        let packet = format!("udp 10.0.{}.1:{} -> 10.0.0.2:53", self.worker, self.opened);
        let (headers, tag) = (headers(&packet), RuleTag(1));
        self.table.insert(SCOPE, &headers, now, &self.timeouts, tag, 1).is_ok()
    }

    /// Lets all flows die, and gives back what is not needed.
    fn expire(&mut self) {
        // A step of the wheel at a time, as between batches.
        for hour in 1..5 {
            self.table.expire(at(f64::from(hour) * 3600.0), 1 << 20);
        }
        assert!(self.table.is_empty());
    }

    /// What it has taken and has no flows for.
    fn idle(&self, allowance: &Allowance) -> usize {
        self.table.room(at(0.0)) - allowance.left()
    }
}

fn both<T: 'static>(
    allowance: &Arc<Allowance>,
    work: impl Fn(&mut Table) -> T + Copy + 'static,
) -> [(Table, T); 2] {
    let worker = |worker| {
        let mut table = Table::new(allowance, worker);
        loom::thread::spawn(move || {
            let result = work(&mut table);
            (table, result)
        })
    };
    [worker(1), worker(2)].map(|thread| thread.join().unwrap())
}

/// Of three places two workers that want two each fill all, and no more.
#[test]
fn the_limit_holds_exactly_for_both_together() {
    model(|| {
        let allowance = Arc::new(Allowance::new(3, 2));
        let opened = both(&allowance, |table| (0..2).filter(|_| table.open(at(0.0))).count());
        assert_eq!(opened.iter().map(|(_, opened)| opened).sum::<usize>(), 3);
        assert_eq!(opened.iter().map(|(table, _)| table.table.len()).sum::<usize>(), 3);
        assert_eq!(allowance.left(), 0);
    });
}

/// Whoever has room is not refused because the other one takes or gives back at the same time.
#[test]
fn nobody_is_refused_while_there_is_room() {
    model(|| {
        let allowance = Arc::new(Allowance::new(4, 2));
        for (table, opened) in both(&allowance, |table| (0..2).all(|_| table.open(at(0.0)))) {
            assert!(opened, "worker {} was refused", table.worker);
        }
    });
}

/// Flows that come and go in both leave nothing behind: what is left and what the tables keep is
/// what there was.
#[test]
fn what_was_taken_comes_back() {
    model(|| {
        let allowance = Arc::new(Allowance::new(4, 2));
        let tables = both(&allowance, |table| {
            for _ in 0..3 {
                table.open(at(0.0));
            }
            table.expire();
        });
        let idle: usize = tables.iter().map(|(table, ())| table.idle(&allowance)).sum();
        assert_eq!(allowance.left() + idle, 4);
        // Less than two chunks each, and a chunk is one flow here.
        assert!(idle <= 2, "{idle} lie idle");
    });
}
