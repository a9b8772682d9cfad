//! The pipeline against the slow one of the conformance suite, which shares no code with it: the
//! policies and frames of [`crate::pipeline()`], in batches, verdict by verdict and flow by flow.

use std::collections::HashMap;

use sgwall_dataplane::{Attribution, Config, FullTable, PacketContext, Pipeline, Side, Verdict};
use sgwall_packet::{Direction, Frame, Headers, Timestamp, parse};
use sgwall_rules::compile::RuleInfo;
use sgwall_rules::model::Policy;

use crate::pipeline::traffic::{Sent, Traffic};
use crate::pipeline::world::World;
use crate::slow::{Answer, Slow};
use crate::source::Source;

/// Steps of an input, which bounds its time.
const STEPS: usize = 60;

/// Judges packets. The input: the policy, how many flows may be tracked, then steps.
pub fn oracle(data: &[u8]) {
    let mut source = Source::new(data);
    let source = &mut source;
    let mut world = World::new(source);
    // The slow one knows no public addresses.
    world.forget_public();
    // A table that is full keeps those that died within the last 0.3 s: only with time that goes
    // on are both full at once.
    let max_flows = 100_000;
    let config = Config {
        max_flows,
        full_table: FullTable::DropNew,
        hash_seed: [1, 2, 3, source.byte().into()],
    };
    let mut fast = Pipeline::new(world.compile(), config);
    let mut slow = Slow::new(world.model().clone(), max_flows, FullTable::DropNew);
    let mut traffic = Traffic::default();
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        match source.byte() {
            0..20 => {
                world.change(source);
                fast.set_policy(world.recompile());
                slow.set_policy(world.model().clone());
            }
            _ => {
                let number = 1 + source.below(12);
                let frames: Vec<_> = (0..number).map(|_| traffic.frame(source)).collect();
                judge(world.model(), &mut fast, &mut slow, &frames);
            }
        }
        compare_released(&mut fast, &mut slow);
    }
    compare_flows(world.model(), &fast, &slow, traffic.now());
    fast.end_waiting();
    slow.fragments.pass_time(Timestamp::from_nanos(i64::MAX));
    compare_released(&mut fast, &mut slow);
}

/// A packet on one side.
struct OnSide<'a> {
    headers: Headers,
    sent: &'a Sent,
    interface: usize,
    direction: Direction,
    origin: Option<usize>,
}

/// Every frame on every side of it, whether the first has let it through or not.
fn judge(model: &Policy, fast: &mut Pipeline, slow: &mut Slow, frames: &[Sent]) {
    let mut on_sides = Vec::new();
    for sent in frames {
        let input = sent.input();
        let Some(link) = input.link else { continue };
        let Ok(Frame::Ip(headers)) = parse(link, input.data, input.wire_len as usize) else {
            continue;
        };
        let ends = (headers.src, headers.dst);
        let sides = Attribution::default().sides(fast.policy(), &headers.link, ends, None);
        let origin = sides.origin;
        for (Side { interface, .. }, direction) in sides.iter() {
            on_sides.push(OnSide { headers, sent, interface, direction, origin });
        }
    }
    let packets = on_sides.iter().map(|on| {
        let own = match on.direction {
            Direction::Ingress => on.headers.dst,
            Direction::Egress => on.headers.src,
        };
        let input = on.sent.input();
        PacketContext {
            interface: on.interface,
            direction: on.direction,
            now: input.time,
            headers: &on.headers,
            frame: input.data,
            own_address: model.interfaces[on.interface].addresses.contains(&own),
            origin: on.origin.filter(|_| on.direction == Direction::Ingress),
            token: input.token << 1 | u64::from(on.direction == Direction::Ingress),
            size: on.headers.ip_len,
        }
    });
    let mut verdicts = Vec::new();
    fast.process_batch(packets.clone(), |_, verdict| verdicts.push(*verdict));
    assert_eq!(verdicts.len(), on_sides.len());
    for (packet, verdict) in packets.zip(&verdicts) {
        let expected = slow.judge(&packet);
        assert_eq!(answer(fast, verdict), expected, "{packet:?}");
    }
}

fn compare_released(fast: &mut Pipeline, slow: &mut Slow) {
    let released = fast.released();
    let told: HashMap<u64, Answer> =
        released.iter().map(|r| (r.token, answer(fast, &r.verdict))).collect();
    let expected: HashMap<u64, Answer> = slow.fragments.released.drain(..).collect();
    assert_eq!(told, expected, "released");
}

/// The same flows, in the same states, until the same times.
fn compare_flows(model: &Policy, fast: &Pipeline, slow: &Slow, now: Timestamp) {
    let flows = fast.flows(0..fast.connections().places(), now);
    let mut found: Vec<_> = flows
        .map(|flow| {
            let interface = flow.interface.map(|i| model.interfaces[i].id.clone());
            let view = flow.view;
            (interface, view.original_tuple(), view.state.as_str(), view.deadline, name(flow.rule))
        })
        .collect();
    let living = slow.flows.iter().filter(|(_, flow)| now < flow.dies);
    let mut expected: Vec<_> = living
        .map(|((id, tuple), flow)| {
            (Some(id.clone()), *tuple, flow.tracked.state(), flow.dies, flow.rule.clone())
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "the flows at the end");
}

fn name(rule: &RuleInfo) -> String {
    format!("{}/{}", rule.owner, rule.rule)
}

/// A verdict of the pipeline in the slow one's words.
fn answer(pipeline: &Pipeline, verdict: &Verdict) -> Answer {
    let rule = verdict.rule.and_then(|id| pipeline.policy().rule(id));
    let admitted_by = verdict.admitted_by.and_then(|tag| pipeline.admitting_rule(tag));
    Answer {
        outcome: verdict.outcome,
        state: verdict.state,
        rule: rule.map(name),
        admitted_by: admitted_by.map(name),
        mtu: verdict.mtu.map(std::num::NonZeroU16::get),
    }
}
