//! Every flood, under both policies of a full table, looked at after every packet. What must be true
//! by construction is asserted; [`Flood::look`] has what must hold at any time.

use sgwall_benches::floods::{Attack, Flood, Limits, Plan, Report, Tried};
use sgwall_dataplane::FullTable::{self, DropNew, EvictEmbryonic};

const ESTABLISHED: usize = 100;
const TRIES: u64 = 100;
const PLACES: usize = 2000;

fn plan(attack: Attack, full_table: FullTable, limits: Limits) -> Plan {
    Plan {
        attack,
        full_table,
        limits,
        max_flows: PLACES,
        packets: 12_000,
        established: ESTABLISHED,
        tries: TRIES,
        round_trip: 500,
        look_every: 1,
    }
}

fn run(plan: Plan) -> Report {
    let report = Flood::new(plan, [1, 2, 3, 4]).and_then(Flood::run);
    let report = report.unwrap_or_else(|wrong| panic!("{plan:?}: {wrong}"));
    assert_eq!((report.established_lost, report.completed_lost), (0, 0), "{plan:?}");
    assert_eq!((report.web.tried, report.db.tried), (TRIES, TRIES), "{plan:?}");
    assert!(report.established >= plan.packets / 4 && report.flood >= plan.packets);
    if plan.full_table == DropNew {
        assert_eq!(report.evicted, 0);
    }
    println!("{:?} {:?} {:?}: {report:?}", plan.attack, plan.full_table, plan.limits);
    report
}

const ALL: Tried = Tried { tried: TRIES, succeeded: TRIES };
const NONE: Tried = Tried { tried: TRIES, succeeded: 0 };

/// A flood of beginnings: `drop-new` refuses everyone but those within a reserve or below another's
/// cap; `evict-embryonic` refuses nobody whose handshake is quicker than the flood goes round.
fn beginnings(attack: Attack) {
    for limits in [Limits::None, Limits::Reserve, Limits::Cap] {
        let dropped = run(plan(attack, DropNew, limits));
        assert_eq!(dropped.web, NONE);
        assert_eq!(dropped.db, if limits == Limits::None { NONE } else { ALL });
        assert!(dropped.refused > 9000);
        let evicted = run(plan(attack, EvictEmbryonic, limits));
        assert_eq!((evicted.web, evicted.db, evicted.refused), (ALL, ALL, 0));
        assert!(evicted.evicted > 9000);
        let full = if limits == Limits::None { PLACES } else { PLACES * 3 / 4 };
        assert!(dropped.peak_flows >= full && evicted.peak_flows >= full);
        // One who waits for longer than that has lost its place.
        if limits == Limits::None {
            let slow = Plan { round_trip: 5000, ..plan(attack, EvictEmbryonic, limits) };
            assert_eq!(run(slow).web, NONE);
        }
    }
}

#[test]
fn syn_flood() {
    beginnings(Attack::Syn);
}

#[test]
fn udp_spray() {
    beginnings(Attack::Udp);
}

/// Nobody who does not know the seed gets more into one place of the index than chance does.
#[test]
fn hash_collisions() {
    beginnings(Attack::Collisions);
    let longest = |attack| run(plan(attack, DropNew, Limits::None)).longest_search;
    let (aimed, random) = (longest(Attack::Collisions), longest(Attack::Syn));
    assert!(aimed <= 24 && random <= 24, "{aimed} {random}");
}

/// First fragments open flows like any packet; what is known of datagrams is bounded apart.
#[test]
fn fragment_flood() {
    for full_table in [DropNew, EvictEmbryonic] {
        let report = run(plan(Attack::Fragments, full_table, Limits::Reserve));
        assert_eq!(report.db, ALL);
        assert!(report.peak_datagrams >= 4000, "{}", report.peak_datagrams);
        if full_table == EvictEmbryonic {
            assert_eq!(report.web, ALL);
        }
    }
}

/// Errors open no flow and end none, whatever they quote.
#[test]
fn icmp_error_flood() {
    for full_table in [DropNew, EvictEmbryonic] {
        let report = run(plan(Attack::IcmpErrors, full_table, Limits::None));
        assert_eq!((report.web, report.db, report.refused, report.evicted), (ALL, ALL, 0, 0));
        // Those that were there, and those that were tried.
        assert_eq!(report.peak_flows, 2 * (ESTABLISHED + TRIES as usize));
    }
}

/// A flow whose handshake is complete gives its place to nobody: only a cap, or the others' reserve,
/// keeps places from who opens many.
#[test]
fn flows_opened_and_left() {
    for full_table in [DropNew, EvictEmbryonic] {
        let bare = run(plan(Attack::Left, full_table, Limits::None));
        assert_eq!((bare.web, bare.db, bare.evicted), (NONE, NONE, 0));
        for limits in [Limits::Reserve, Limits::Cap] {
            let report = run(plan(Attack::Left, full_table, limits));
            assert_eq!((report.web, report.db, report.evicted), (NONE, ALL, 0));
        }
    }
}
