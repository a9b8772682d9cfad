//! Flows whose verdict differs under two policies, from packets of captures, from flow logs, or
//! from the table of a running firewall.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sgwall_dataplane::{Attribution, Config, Event, FrameInput, Judge, Judgement, Pipeline};
use sgwall_netio::capture;
use sgwall_netio::seed::random_seed;
use sgwall_packet::{Direction, Duration, FiveTuple, LinkType, PacketSpec, Timestamp};

use crate::cli::TrafficArgs;
use crate::failure::Failure;
use crate::found::{Fate, Found, is_last_word};
use crate::policy::Loaded;
use crate::traffic::{attribution, attribution_after, frame_input};

/// Flows that are remembered apart; what comes later is only counted.
const MAX_FLOWS: usize = 1 << 16;

/// What becomes of traffic under the old policy and the new one.
#[derive(Debug, Default, Serialize)]
pub(super) struct Flows {
    /// Where the traffic is from.
    pub(super) source: String,
    /// Packets that both judged.
    pub(super) packets: u64,
    /// Of those, the packets whose verdict is the same.
    pub(super) unchanged: u64,
    /// What could not be judged, and why.
    pub(super) notes: Vec<String>,
    /// Flows whose verdict differs, most packets first.
    pub(super) changed: Vec<Changed>,
    /// Packets of changed flows that are not remembered.
    pub(super) unremembered: u64,
}

/// A flow whose verdict differs.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    pub(super) interface: String,
    pub(super) direction: String,
    /// `tcp 198.51.100.7:50000 -> 10.0.1.10:22`.
    pub(super) flow: String,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// What the old policy says of it, and what the new one does.
    pub(super) old: String,
    pub(super) new: String,
    /// Whether it passes under the new policy.
    pub(super) passes: bool,
    /// Whether the old policy tracks it: then it outlives a change of the policy, and only what begins
    /// anew meets the new rules.
    pub(super) is_tracked: bool,
}

/// What a flow is told by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    interface: String,
    direction: Direction,
    tuple: FiveTuple,
    passes: bool,
}

/// Adds up packets.
#[derive(Default)]
struct Sums {
    flows: Flows,
    changed: HashMap<Key, Changed>,
}

/// One packet as one policy judges it, and where.
#[derive(Clone)]
struct Judged {
    found: Found,
    side: Option<(String, Direction)>,
    tuple: Option<FiveTuple>,
    bytes: u64,
}

impl Sums {
    fn add(&mut self, old: &Judged, new: &Judged, packets: u64) {
        self.flows.packets += packets;
        if old.found.fate == new.found.fate {
            self.flows.unchanged += packets;
            return;
        }
        let side = old.side.clone().or_else(|| new.side.clone());
        let Some(((interface, direction), tuple)) = side.zip(old.tuple.or(new.tuple)) else {
            self.flows.unremembered += packets;
            return;
        };
        let passes = new.found.fate == Fate::Pass;
        let key = Key { interface, direction, tuple, passes };
        if !self.changed.contains_key(&key) && self.changed.len() >= MAX_FLOWS {
            self.flows.unremembered += packets;
            return;
        }
        let flow = self.changed.entry(key.clone()).or_insert_with(|| Changed {
            interface: key.interface,
            direction: direction.as_str().to_owned(),
            flow: words(&tuple),
            packets: 0,
            bytes: 0,
            old: old.found.to_string(),
            new: new.found.to_string(),
            passes,
            is_tracked: false,
        });
        flow.packets += packets;
        flow.bytes += old.bytes;
        flow.is_tracked |= old.found.fate == Fate::Pass
            && matches!(old.found.state, Some("new" | "established" | "reply" | "related"));
    }

    fn finish(self, source: String) -> Flows {
        let mut flows = self.flows;
        flows.source = source;
        flows.changed = self.changed.into_values().collect();
        flows.changed.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.flow.cmp(&b.flow)));
        flows
    }
}

fn words(tuple: &FiveTuple) -> String {
    format!("{} {tuple}", sgwall_rules::model::protocol_name(tuple.protocol))
}

/// A judge under a policy.
fn judge(policy: &Loaded, attribution: Attribution, args: &TrafficArgs) -> Judge {
    let config = Config { max_flows: args.max_flows, hash_seed: random_seed() };
    let pipeline = Pipeline::new(Arc::clone(&policy.compiled), config);
    Judge::new(pipeline, attribution).with_offload(args.offload)
}

/// Judges captures by both policies, packet by packet.
pub(super) fn of_captures(
    paths: &[PathBuf],
    [old, new]: [&Loaded; 2],
    args: &TrafficArgs,
) -> Result<Flows, Failure> {
    let mut judges = [
        judge(old, attribution(args, &old.compiled)?, args),
        judge(new, attribution_after(args, &new.compiled)?, args),
    ];
    let policies = [old, new];
    let mut sums = Sums::default();
    // Fragments may wait for their first: under one policy longer than under the other.
    let mut waiting: HashMap<u64, [Option<Judged>; 2]> = HashMap::new();
    for path in paths {
        let mut reader = capture::open(path)?;
        let mut number = 0;
        loop {
            let packet = reader.next_packet()?;
            number += 1;
            for (n, judge) in judges.iter_mut().enumerate() {
                let policy = policies[n];
                let mut sink = |event: Event<'_>| {
                    if !is_last_word(&event) {
                        return;
                    }
                    let judged = judged(&event, policy);
                    let both = waiting.entry(event.frame.token).or_default();
                    both[n] = Some(judged);
                    if let [Some(old), Some(new)] = both {
                        if old.found.fate != Fate::Skip || new.found.fate != Fate::Skip {
                            sums.add(old, new, 1);
                        }
                        waiting.remove(&event.frame.token);
                    }
                };
                match &packet {
                    Some(packet) => judge.judge(frame_input(number, packet), &mut sink),
                    None => judge.finish(&mut sink),
                }
            }
            if packet.is_none() {
                waiting.clear();
                break;
            }
        }
    }
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Ok(sums.finish(names.join(", ")))
}

fn judged(event: &Event<'_>, policy: &Loaded) -> Judged {
    let side = event.side.and_then(|(index, direction)| {
        Some((policy.compiled.interfaces().get(index)?.id.clone(), direction))
    });
    Judged {
        found: Found::of(event, &policy.compiled),
        side,
        tuple: event.headers.map(FiveTuple::from),
        bytes: event.frame.wire_len.into(),
    }
}

/// A flow of which only the addresses and ports are known, and who began it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) interface: String,
    /// Which way its first packet went.
    pub(super) direction: Direction,
    /// Its first packet.
    pub(super) packet: PacketSpec,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// Judges the first packets of flows by both policies. With `is_alive` the flows are of a running
/// firewall's table: the old policy has let them in.
pub(super) fn of_begun(
    source: String,
    begun: &[Begun],
    [old, new]: [&Loaded; 2],
    is_alive: bool,
) -> Flows {
    let mut sums = Sums::default();
    let mut firsts = [First::new(old), First::new(new)];
    for flow in begun {
        let [old, new] = &mut firsts;
        let mut before = old.judge(flow);
        let after = new.judge(flow);
        if is_alive {
            before.found = Found { fate: Fate::Pass, state: Some("established"), ..before.found };
            before.found.reason = "established";
        }
        sums.add(&before, &after, flow.packets);
    }
    sums.finish(source)
}

/// Judges flows as if each were the only one.
struct First<'a> {
    policy: &'a Loaded,
    judge: Judge,
    now: Timestamp,
}

impl<'a> First<'a> {
    /// Longer than any flow lives idle.
    const APART: Duration = Duration::from_secs(1_000_000);

    fn new(policy: &'a Loaded) -> Self {
        let args = TrafficArgs { max_flows: 64, ..TrafficArgs::default() };
        let judge = judge(policy, Attribution::default(), &args);
        First { policy, judge, now: Timestamp::default() }
    }

    fn judge(&mut self, flow: &Begun) -> Judged {
        let tuple = FiveTuple {
            src: flow.packet.src,
            dst: flow.packet.dst,
            src_port: flow.packet.ports.0,
            dst_port: flow.packet.ports.1,
            protocol: flow.packet.protocol,
        };
        let mut judged = Judged {
            found: Found { fate: Fate::Skip, reason: "not-ours", ..Found::HELD },
            side: Some((flow.interface.clone(), flow.direction)),
            tuple: Some(tuple),
            bytes: flow.bytes,
        };
        let Some(interface) = self.policy.compiled.interface_by_id(&flow.interface) else {
            return judged;
        };
        self.now = self.now.after(Self::APART);
        self.judge.set_attribution(Attribution {
            only: Some(vec![interface]),
            direction: Some(flow.direction),
            ..Attribution::default()
        });
        let data = flow.packet.to_ip();
        let frame = FrameInput {
            token: 1,
            link: Some(LinkType::RawIp),
            data: &data,
            wire_len: data.len() as u32,
            time: self.now,
            decimals: 9,
            recorded: None,
        };
        let policy = self.policy;
        self.judge.judge(frame, &mut |event| {
            if is_last_word(&event) && matches!(event.judgement, Judgement::Verdict(_)) {
                judged.found = Found::of(&event, &policy.compiled);
            }
        });
        judged
    }
}
