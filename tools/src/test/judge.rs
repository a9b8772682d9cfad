//! Tests at work: what they expect against what the policy makes of their packets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sgwall_dataplane::{
    Attribution, Config, Event, Explanation, FrameInput, Judge, Judgement, Pipeline,
};
use sgwall_netio::capture;
use sgwall_netio::seed::random_seed;
use sgwall_packet::{LinkType, Timestamp};
use sgwall_rules::compile::Generation;

use super::claim::{Claim, Packets};
use super::expect::Expectation;
use super::file::{Body, Stated, Step, Test, What};
use crate::cli::OnReload;
use crate::explain::{Numbers, Question};
use crate::failure::Failure;
use crate::found::{Fate, Found, is_last_word};
use crate::policy::Loaded;
use crate::replay::At;
use crate::traffic::{attribution, attribution_after, frame_input};

/// How a test went.
pub(super) struct Outcome {
    /// Expectations that were looked at.
    pub(super) checks: usize,
    /// Packets that were judged.
    pub(super) packets: u64,
    pub(super) faults: Vec<Fault>,
    /// What does not fail a test, but may not be meant.
    pub(super) notes: Vec<String>,
    pub(super) took: Duration,
}

/// An expectation that was not met.
pub(super) struct Fault {
    /// Where it stands in the test file.
    pub(super) line: usize,
    /// As it is written there.
    pub(super) text: String,
    /// What was expected, and what came.
    pub(super) message: String,
    /// The packet of a capture that speaks against it: the capture and the frame's number.
    pub(super) frame: Option<(PathBuf, u64)>,
    pub(super) explanation: Option<Explanation>,
}

impl Outcome {
    pub(super) fn passed(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Runs one test of the file at `path`.
///
/// # Errors
/// If its policy or captures cannot be used; an expectation that is not met is none.
pub(super) fn run(path: &Path, test: &Test) -> Result<Outcome, Failure> {
    let begin = Instant::now();
    let mut world = World::new(test)?;
    let mut outcome = match &test.body {
        Body::Steps(steps) => world.steps(path, steps)?,
        Body::Captures { captures, at, claims } => claims_hold(test, captures, at, claims)?,
    };
    outcome.took = begin.elapsed();
    Ok(outcome)
}

/// A policy in force, and the flows under it.
struct World<'a> {
    test: &'a Test,
    judge: Judge,
    policy: Loaded,
    /// How packets find their interface that do not say.
    usual: Attribution,
    generation: u32,
    numbers: Numbers,
}

impl<'a> World<'a> {
    fn new(test: &'a Test) -> Result<Self, Failure> {
        let policy = Loaded::load(&test.policy, Generation(0))?;
        let usual = attribution(&test.traffic, &policy.compiled)?;
        let config = Config { max_flows: test.traffic.max_flows, hash_seed: random_seed() };
        let pipeline = Pipeline::new(Arc::clone(&policy.compiled), config);
        let judge = Judge::new(pipeline, usual.clone()).with_offload(test.traffic.offload);
        Ok(World { test, judge, policy, usual, generation: 0, numbers: Numbers::default() })
    }

    fn reload(&mut self, paths: &[PathBuf], now: Timestamp) -> Result<(), Failure> {
        self.generation += 1;
        self.policy = Loaded::load(paths, Generation(self.generation))?;
        self.usual = attribution_after(&self.test.traffic, &self.policy.compiled)?;
        self.judge.set_policy(Arc::clone(&self.policy.compiled), self.usual.clone());
        if self.test.on_reload == OnReload::Rejudge {
            self.judge.rejudge(self.judge.clock().at(now));
        }
        Ok(())
    }

    fn steps(&mut self, path: &Path, steps: &[Step]) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        let mut now = Timestamp::default();
        for Step { line, text, what } in steps {
            let located = |failure: Failure| match failure {
                Failure::Usage(text) => {
                    Failure::Usage(format!("{}:{line}: {text}", path.display()))
                }
                other => other,
            };
            match what {
                What::Wait(time) => now = now.after(*time),
                What::Reload(paths) => self.reload(paths, now)?,
                What::Packet(question, expected) => {
                    now = question.time.unwrap_or(now);
                    outcome.packets += 1;
                    outcome.checks += 1;
                    let (found, explanation) =
                        self.packet(question, outcome.packets, now).map_err(located)?;
                    if !expected.holds(&found) {
                        outcome.faults.push(Fault {
                            line: *line,
                            text: text.clone(),
                            message: unmet(expected, &found),
                            frame: None,
                            explanation: Some(explanation),
                        });
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// What becomes of a packet by hand, and why.
    fn packet(
        &mut self,
        question: &Question,
        token: u64,
        time: Timestamp,
    ) -> Result<(Found, Explanation), Failure> {
        let fitting = self.numbers.fit(&question.packet);
        let data = question.with(fitting.clone()).bytes()?;
        let frame = FrameInput {
            token,
            link: Some(LinkType::RawIp),
            data: &data,
            wire_len: data.len() as u32,
            time,
            decimals: 9,
            recorded: None,
        };
        let World { judge, policy, usual, .. } = self;
        judge.set_attribution(question.attribution(usual, &policy.compiled)?);
        let explanation = judge.explain(&policy.model, frame);
        let mut found = Found::HELD;
        judge.judge(frame, &mut |event| {
            if event.frame.token == token && is_last_word(&event) {
                found = Found::of(&event, &policy.compiled);
            }
        });
        if found.fate == Fate::Pass {
            self.numbers.note(&fitting);
        }
        Ok((found, explanation))
    }

    /// Judges captures, one after the other, and tells `watcher`.
    fn captures(
        &mut self,
        captures: &[PathBuf],
        at: &[At],
        watcher: &mut Watcher<'_>,
    ) -> Result<u64, Failure> {
        let mut changes: Option<VecDeque<(Timestamp, &At)>> = None;
        let mut packets = 0;
        for (index, path) in captures.iter().enumerate() {
            let mut reader = capture::open(path)?;
            let mut number = 0;
            while let Some(packet) = reader.next_packet()? {
                let changes = changes.get_or_insert_with(|| {
                    let due = |at| (At::due(at, packet.time), at);
                    let mut changes: Vec<_> = at.iter().map(due).collect();
                    changes.sort_by_key(|(due, _)| *due);
                    changes.into()
                });
                while let Some(&(_, change)) =
                    changes.front().filter(|(due, _)| *due <= packet.time)
                {
                    changes.pop_front();
                    self.reload(&[change.path().to_owned()], packet.time)?;
                }
                number += 1;
                let frame = frame_input(number, &packet);
                if watcher.wanted.contains(&(index, number)) {
                    let explanation = self.judge.explain(&self.policy.model, frame);
                    watcher.explained.insert((index, number), explanation);
                }
                let policy = &self.policy;
                self.judge.judge(frame, &mut |event| watcher.note(index, &event, policy));
            }
            let policy = &self.policy;
            self.judge.finish(&mut |event| watcher.note(index, &event, policy));
            packets += number;
        }
        Ok(packets)
    }
}

/// A capture's place among those of a test, and a frame's number in it, from 1.
type Frame = (usize, u64);

/// What is seen of captures.
#[derive(Default)]
struct Watcher<'a> {
    tallies: Vec<Tally<'a>>,
    /// Frames that are to be explained.
    wanted: BTreeSet<Frame>,
    explained: BTreeMap<Frame, Explanation>,
}

/// What is seen of one claim.
struct Tally<'a> {
    stated: &'a Stated,
    meant: u64,
    fulfilled: u64,
    /// The first packet that speaks against it.
    offender: Option<Frame>,
    /// What became of the frame that it is about.
    found: Option<Found>,
}

impl Watcher<'_> {
    fn note(&mut self, capture: usize, event: &Event<'_>, policy: &Loaded) {
        if !is_last_word(event) {
            return;
        }
        let frame = (capture, event.frame.token);
        for tally in &mut self.tallies {
            match &tally.stated.claim {
                Claim::Frame(number, _) if frame == (0, *number) => {
                    tally.found = Some(Found::of(event, &policy.compiled));
                }
                Claim::Frame(..) => {}
                Claim::Packets(packets) => tally.count(packets, frame, event, policy),
            }
        }
    }
}

impl Tally<'_> {
    fn count(&mut self, packets: &Packets, frame: Frame, event: &Event<'_>, policy: &Loaded) {
        let is_judged = matches!(event.judgement, Judgement::Verdict(_));
        if !is_judged || !packets.means(event, &policy.compiled) {
            return;
        }
        self.meant += 1;
        let is_fulfilled = packets.is_fulfilled(event);
        self.fulfilled += u64::from(is_fulfilled);
        if packets.offends(is_fulfilled) && self.offender.is_none() {
            self.offender = Some(frame);
        }
    }

    /// What is wrong, and the frame that shows it.
    fn fault(&self) -> Option<(String, Option<Frame>)> {
        match &self.stated.claim {
            Claim::Packets(packets) => {
                let message = packets.judge(self.meant, self.fulfilled).err()?;
                Some((message, self.offender))
            }
            Claim::Frame(number, expected) => match &self.found {
                None => Some((format!("the first capture has no frame {number}"), None)),
                Some(found) if expected.holds(found) => None,
                Some(found) => Some((unmet(expected, found), Some((0, *number)))),
            },
        }
    }
}

/// Judges captures and looks at what is claimed of them; again, if there is anything to explain.
fn claims_hold(
    test: &Test,
    captures: &[PathBuf],
    at: &[At],
    claims: &[Stated],
) -> Result<Outcome, Failure> {
    let tally = |stated| Tally { stated, meant: 0, fulfilled: 0, offender: None, found: None };
    let mut watcher = Watcher { tallies: claims.iter().map(tally).collect(), ..Watcher::default() };
    let packets = World::new(test)?.captures(captures, at, &mut watcher)?;
    let mut outcome = Outcome { packets, checks: claims.len(), ..Outcome::default() };
    let faults: Vec<_> =
        watcher.tallies.iter().filter_map(|tally| Some((tally, tally.fault()?))).collect();
    for tally in &watcher.tallies {
        if matches!(tally.stated.claim, Claim::Packets(_)) && tally.meant == 0 {
            let Stated { line, text, .. } = tally.stated;
            outcome.notes.push(format!("line {line}: {text}: the captures have no such packet"));
        }
    }
    let wanted: BTreeSet<_> = faults.iter().filter_map(|(_, (_, frame))| *frame).collect();
    let mut again = Watcher { wanted, ..Watcher::default() };
    if !again.wanted.is_empty() {
        World::new(test)?.captures(captures, at, &mut again)?;
    }
    for (tally, (message, frame)) in faults {
        outcome.faults.push(Fault {
            line: tally.stated.line,
            text: tally.stated.text.clone(),
            message,
            frame: frame
                .and_then(|(capture, number)| Some((captures.get(capture)?.clone(), number))),
            explanation: frame.and_then(|frame| again.explained.get(&frame).cloned()),
        });
    }
    outcome.notes.retain(|note| {
        // What fails for it says so itself.
        !outcome.faults.iter().any(|fault| note.starts_with(&format!("line {}:", fault.line)))
    });
    Ok(outcome)
}

impl Default for Outcome {
    fn default() -> Self {
        Outcome {
            checks: 0,
            packets: 0,
            faults: Vec::new(),
            notes: Vec::new(),
            took: Duration::ZERO,
        }
    }
}

fn unmet(expected: &Expectation, found: &Found) -> String {
    format!("expected {expected}, found {found}")
}
