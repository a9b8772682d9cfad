//! The whole way of a frame under a random policy that changes: three judges that go it differently
//! must come to the same, the explanation must foretell it, and every verdict must be borne out by
//! what the policy says when it is read rule by rule.

pub(crate) mod traffic;
mod witness;
pub(crate) mod world;

use std::collections::HashMap;
use std::sync::Arc;

use sgwall_conntrack::{FlowView, Probe};
use sgwall_dataplane::{
    Attribution, Config, DropReason, Emitted, Event, FrameInput, FullTable, Judge, Judgement,
    PassReason, Pipeline, Plain, Route, Sight,
};
use sgwall_fixtures::explained::{contradictions, event_words, foretold};
use sgwall_packet::{Frame, Timestamp, parse};
use sgwall_rules::compile::CompiledPolicy;

use self::traffic::Traffic;
use self::witness::Witness;
use self::world::World;
use crate::source::Source;

/// Steps of an input, which bounds its time.
const STEPS: usize = 60;

/// Judges frames. The input: the policy, how many flows may be tracked, then steps: frames, changes
/// of the policy, and time that passes.
pub fn pipeline(data: &[u8]) {
    let mut source = Source::new(data);
    let source = &mut source;
    let mut world = World::new(source);
    let max_flows = source.pick(&[1000, 1000, 1000, 3, 2, 1, 0]);
    let offload = source.one_in(8);
    let compiled = world.compile();
    let mut judges = Judges::new(&compiled, max_flows, offload);
    let mut traffic = Traffic::default();
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        match source.byte() {
            0..20 => {
                world.change(source);
                let (one, others) = (world.compile(), [world.compile(), world.recompile()]);
                judges.set_policy(&one, others);
            }
            20..24 => judges.rejudge(traffic.now()),
            _ => {
                let number = 1 + source.below(12);
                let frames = (0..number).map(|_| traffic.frame(source)).collect::<Vec<_>>();
                let inputs: Vec<_> = frames.iter().map(traffic::Sent::input).collect();
                judges.judge(&world, &inputs);
                assert!(judges.one.pipeline().connections().len() <= max_flows);
            }
        }
    }
    judges.finish(&traffic);
}

/// What an event says, to compare: its frame, words, whether it is the last, and its bytes.
type Said = (u64, String, bool, Vec<u8>);

fn say(event: &Event<'_>, policy: &CompiledPolicy) -> Said {
    let words = event_words(event, policy);
    (event.frame.token, words, event.is_final, event.frame.data.to_vec())
}

struct Judges {
    /// Frame by frame.
    one: Judge,
    /// Frames are looked at, and their flows looked up, before the first of them is judged.
    batch: Judge,
    /// As on a device: what is known passes without an event.
    live: Judge,
    witness: Witness,
    last_words: HashMap<u64, u32>,
    verdicts: u64,
}

impl Judges {
    fn new(policy: &Arc<CompiledPolicy>, max_flows: usize, offload: bool) -> Self {
        // Seeds differ: what comes out may not hang on where a flow stands in a table.
        let judge = |seed| {
            let config =
                Config { max_flows, full_table: FullTable::DropNew, hash_seed: [seed, 2, 3, 4] };
            let pipeline = Pipeline::new(Arc::clone(policy), config);
            Judge::new(pipeline, Attribution::default()).with_offload(offload)
        };
        Judges {
            one: judge(1),
            batch: judge(11),
            live: judge(111),
            witness: Witness::default(),
            last_words: HashMap::new(),
            verdicts: 0,
        }
    }

    fn set_policy(&mut self, one: &Arc<CompiledPolicy>, [batch, live]: [Arc<CompiledPolicy>; 2]) {
        self.one.set_policy(Arc::clone(one), Attribution::default());
        self.batch.set_policy(batch, Attribution::default());
        self.live.set_policy(live, Attribution::default());
    }

    fn rejudge(&mut self, now: Timestamp) {
        let ended = self.one.rejudge(now);
        assert_eq!((self.batch.rejudge(now), self.live.rejudge(now)), (ended, ended));
    }

    fn judge(&mut self, world: &World, frames: &[FrameInput<'_>]) {
        let policy = Arc::clone(self.one.pipeline().policy());
        let mut said: Vec<Said> = Vec::new();
        for &frame in frames {
            said.extend(self.judge_one(world, &policy, frame));
        }
        assert_eq!(self.judge_batch(&policy, frames), said, "in a batch");
        self.judge_live(&policy, frames, &said);
        let now = self.one.clock().now();
        let flows = flows(&self.one, now);
        for other in [&self.batch, &self.live] {
            assert_eq!(other.clock(), self.one.clock());
            assert_eq!(self::flows(other, now), flows);
            assert_eq!(other.pipeline().counters(), self.one.pipeline().counters());
            assert_eq!(other.unjudged(), self.one.unjudged());
            assert_eq!(other.super_frames(), self.one.super_frames());
        }
    }

    fn judge_one(
        &mut self,
        world: &World,
        policy: &Arc<CompiledPolicy>,
        frame: FrameInput<'_>,
    ) -> Vec<Said> {
        let explanation = self.one.explain(world.model(), frame);
        let (mut said, mut of_frame) = (Vec::new(), Vec::new());
        let Judges { one, witness, last_words, verdicts, .. } = self;
        one.judge(frame, &mut |event| {
            if event.frame.token == frame.token {
                of_frame.push(event_words(&event, policy));
            }
            witness.hear(&event, world.model(), policy);
            count(&event, last_words, verdicts);
            said.push(say(&event, policy));
        });
        assert_eq!(foretold(&explanation), of_frame, "explained, and judged");
        let contradictions = contradictions(&explanation);
        assert!(contradictions.is_empty(), "{contradictions:?}");
        said
    }

    fn judge_batch(&mut self, policy: &CompiledPolicy, frames: &[FrameInput<'_>]) -> Vec<Said> {
        let mut sights = vec![Sight::NOTHING; frames.len()];
        for (frame, sight) in frames.iter().zip(&mut sights) {
            self.batch.look(frame, sight);
        }
        let mut probes = vec![Probe::NOTHING; sights.len()];
        for (sight, probe) in sights.iter().zip(&mut probes) {
            self.batch.probe_seen(sight, probe);
        }
        self.batch.locate(&mut probes);
        let mut said = Vec::new();
        for ((frame, sight), probe) in frames.iter().zip(&sights).zip(&probes) {
            let mut sink = |event: Event<'_>| said.push(say(&event, policy));
            self.batch.judge_seen(*frame, sight, Some(probe), &mut sink);
        }
        said
    }

    fn judge_live(
        &mut self,
        policy: &CompiledPolicy,
        frames: &[FrameInput<'_>],
        expected: &[Said],
    ) {
        let live = &mut self.live;
        let parsed: Vec<_> = frames
            .iter()
            .map(|frame| {
                let len = frame.wire_len as usize;
                let Ok(Frame::Ip(headers)) = parse(frame.link?, frame.data, len) else {
                    return None;
                };
                let ends = (headers.src, headers.dst);
                let sides =
                    Attribution::default().sides(policy, &headers.link, ends, frame.recorded);
                (!sides.is_empty()).then_some((headers, Route { sides, segment: None }))
            })
            .collect();
        let mut probes = vec![Probe::NOTHING; parsed.len()];
        for (parsed, probe) in parsed.iter().zip(&mut probes) {
            if let Some((headers, route)) = parsed {
                live.probe_into(headers, route, probe);
            }
        }
        live.locate(&mut probes);
        let mut said: Vec<Said> = Vec::new();
        for ((frame, parsed), probe) in frames.iter().zip(&parsed).zip(&probes) {
            let mut sink = |event: Event<'_>| said.push(say(&event, policy));
            let Some((headers, route)) = parsed else {
                live.judge(*frame, &mut sink);
                continue;
            };
            live.advance(frame.time, &mut sink);
            let now = live.clock().now();
            match live.judge_plain(now, frame.data, headers, route, probe) {
                None => live.judge_on(*frame, headers, route, Some(probe), &mut sink),
                Some(Plain { side, verdict }) => {
                    sink(Event {
                        frame: *frame,
                        headers: Some(headers),
                        error: None,
                        side: Some(side),
                        judgement: Judgement::Verdict(verdict),
                        admitted_by: verdict
                            .admitted_by
                            .and_then(|tag| live.pipeline().admitting_rule(tag)),
                        is_final: true,
                        emitted: None,
                    });
                }
            }
        }
        assert_eq!(said, expected, "as on a device");
    }

    /// Every frame has had one last word, and what was counted is what was said.
    fn finish(mut self, traffic: &Traffic) {
        let policy = Arc::clone(self.one.pipeline().policy());
        let mut said = Vec::new();
        let Judges { one, last_words, verdicts, .. } = &mut self;
        one.finish(&mut |event| {
            count(&event, last_words, verdicts);
            said.push(say(&event, &policy));
        });
        for other in [&mut self.batch, &mut self.live] {
            let mut others = Vec::new();
            other.finish(&mut |event| others.push(say(&event, &policy)));
            assert_eq!(others, said);
        }
        assert!(!self.one.is_holding());
        for token in 0..traffic.sent() {
            assert_eq!(self.last_words.get(&token), Some(&1), "last words on frame {token}");
        }
        let counters = self.one.pipeline().counters();
        let passed = PassReason::ALL.iter().map(|&reason| counters.passed(reason).packets);
        let dropped = DropReason::ALL.iter().map(|&reason| counters.dropped(reason).packets);
        assert_eq!(passed.chain(dropped).sum::<u64>(), self.verdicts);
    }
}

fn count(event: &Event<'_>, last_words: &mut HashMap<u64, u32>, verdicts: &mut u64) {
    if event.emitted.is_none() {
        *last_words.entry(event.frame.token).or_default() += u32::from(event.is_final);
    }
    let is_judged = matches!(event.judgement, Judgement::Verdict(_));
    *verdicts += u64::from(is_judged && event.emitted != Some(Emitted::Fragment));
}

/// The flows alive, by interface and key.
fn flows(
    judge: &Judge,
    now: Timestamp,
) -> HashMap<(sgwall_conntrack::Scope, sgwall_packet::FlowKey), FlowView> {
    let flows = judge.pipeline().connections().iter(now);
    flows.map(|flow| ((flow.scope, flow.key), flow)).collect()
}
