//! What `benches/guard` counts the instructions of: `guarded WORK`. Prints how many packets the work
//! has; everything is the same in every run.

use sgwall_benches::lookups::{aimed, look_up, rules_of};
use sgwall_benches::workload::{DATA, Frames, Packets, Traffic, parse_all};
use sgwall_benches::{Work, policy, rules, rules6};
use sgwall_packet::Direction;
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::SecurityGroupRule;

const PACKETS: u32 = 10_000;
const RULES: usize = 1000;

fn main() {
    let work = std::env::args().nth(1).unwrap_or_default();
    let traffic = Traffic::ALL.into_iter().find(|traffic| traffic.name() == work);
    let count = match (work.as_str(), traffic) {
        (_, Some(traffic)) => judged(traffic),
        ("matcher-ipv4", _) => looked_up(rules(RULES)),
        ("matcher-ipv6", _) => looked_up(rules6(RULES)),
        ("parser", _) => {
            let frames = Frames::new(DATA, Direction::Ingress, 0..PACKETS, &[60]);
            parse_all(&frames)
        }
        _ => panic!("{work:?} is no work; benches/guard/run has the list"),
    };
    println!("{count}");
}

/// Packets after a first round, which has put marks on flows and made room for them.
fn judged(traffic: Traffic) -> usize {
    let mut packets = Packets::new(traffic, PACKETS, RULES, &[60]);
    let mut before = 0;
    while before < PACKETS as usize {
        before += packets.run();
    }
    packets.prepare();
    packets.judge_all()
}

fn looked_up(rules: Vec<SecurityGroupRule>) -> usize {
    let policy = CompiledPolicy::compile(&policy(rules), Generation(0));
    let set = rules_of(&policy, 0, Direction::Ingress);
    let packets = aimed(set, PACKETS as usize);
    look_up(set.matcher(), &packets);
    packets.len()
}
