//! Running a case: the whole pipeline, frame by frame, each frame explained beforehand.

use std::sync::Arc;

use sgwall_dataplane::{
    Attribution, Config, DropReason, Emitted, Event, FrameInput, FullTable, Judge, Judgement,
    Outcome, Pipeline,
};
use sgwall_packet::{Direction, LinkType, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::{Compat, Policy};

use crate::flow_log::ExpectedLog;
use crate::step::{Step, What, change};
use crate::{Case, explained, world};

/// What a full table does.
fn full_table(case: &Case) -> Result<FullTable, String> {
    let word = case.full_table.as_deref().unwrap_or(FullTable::DropNew.as_str());
    let mut all = [FullTable::DropNew, FullTable::EvictEmbryonic].into_iter();
    all.find(|known| known.as_str() == word).ok_or_else(|| format!("no policy {word:?}"))
}

pub(crate) fn run(case: &Case, compat: Compat) -> Result<(), String> {
    let mut model = world::policy(case, compat)?;
    let mut generation = 0;
    let compile = |policy: &Policy, generation| {
        Arc::new(CompiledPolicy::compile(policy, Generation(generation)))
    };
    let mut flow_log = ExpectedLog::of(case, compile(&model, generation))?;
    let config = Config {
        max_flows: case.max_flows.unwrap_or(1000),
        full_table: full_table(case)?,
        hash_seed: [0x5eed, 1, 2, 3],
    };
    let pipeline = Pipeline::new(compile(&model, generation), config);
    let mut judge = Judge::new(pipeline, attribution(case, &model)?).with_offload(case.offload);
    let mut wrong = Vec::new();
    let mut judged = 0;
    let mut now = Timestamp::default();
    for (token, line) in (1..).zip(&case.steps) {
        let step = Step::parse(line, &case.names).map_err(|e| format!("{line:?}: {e}"))?;
        let Step { time, what } = step;
        now = time;
        match what {
            What::Change { line, refused: None } if line == "rejudge" => {
                judge.rejudge(time);
            }
            What::Change { line: text, refused } => {
                let before = model.clone();
                let answer = change(&mut model, &text).map_err(|e| format!("{line:?}: {e}"))?;
                let code = answer.as_ref().err().map(|error| error.code.as_str());
                if code != refused.as_deref() {
                    let found = answer.map_or_else(|e| format!("error {e}"), |()| "granted".into());
                    wrong.push(format!("{line}\n      found: {found}"));
                }
                if code.is_some() && model != before {
                    wrong.push(format!("{line}\n      found: refused, but the policy changed"));
                }
                generation += 1;
                let compiled = compile(&model, generation);
                flow_log.set_policy(Arc::clone(&compiled));
                judge.set_policy(compiled, attribution(case, &model)?);
            }
            What::Packet { packet, via, expected } => {
                let mut data = packet.to_frame();
                if let Some(via) = via {
                    let sender = model.interfaces.iter().find(|interface| interface.id == via);
                    let mac = sender.and_then(|interface| interface.mac);
                    data[6..12].copy_from_slice(&mac.ok_or_else(|| format!("via {via:?}"))?);
                }
                let frame = FrameInput {
                    token,
                    link: Some(LinkType::Ethernet),
                    data: &data,
                    wire_len: data.len() as u32,
                    time,
                    decimals: 3,
                    recorded: None,
                };
                let policy = Arc::clone(judge.pipeline().policy());
                let explanation = judge.explain(&model, frame);
                let (mut found, mut of_frame) = (Vec::new(), Vec::new());
                judge.judge(frame, &mut |event| {
                    flow_log.record(&event);
                    found.push(words(&event, &policy));
                    // Frames that were held before are no part of this one's explanation.
                    if event.frame.token == token {
                        of_frame.push(explained::event_words(&event, &policy));
                    }
                });
                let foretold = explained::foretold(&explanation);
                if foretold != of_frame {
                    let (foretold, judged) = (foretold.join(" | "), of_frame.join(" | "));
                    wrong.push(format!(
                        "{line}\n      explained: {foretold}\n      judged: {judged}"
                    ));
                }
                let contradictions = explained::contradictions(&explanation);
                wrong.extend(contradictions.iter().map(|what| format!("{line}\n      {what}")));
                let is_judged =
                    |word: &&String| !word.starts_with("skip") && !word.starts_with("fragment");
                judged += found.iter().filter(is_judged).count() as u64;
                if found != expected {
                    wrong.push(format!("{line}\n      found: {}", found.join(" | ")));
                }
            }
        }
    }
    let mut orphans = 0;
    judge.finish(&mut |event| {
        flow_log.record(&event);
        orphans += 1;
    });
    flow_log.finish(now, &mut wrong);
    check_ledger(&judge, judged + orphans, &mut wrong);
    let flows = judge.pipeline().connections().iter(now).count();
    if let Some(expected) = case.flows.filter(|expected| *expected != flows) {
        wrong.push(format!("{flows} tracked flows at the end, not {expected}"));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n    ")),
    }
}

fn attribution(case: &Case, policy: &Policy) -> Result<Attribution, String> {
    let Some(through) = &case.through else { return Ok(Attribution::default()) };
    let wrong = || format!("through {through:?}: expected an interface and a direction");
    let (interface, direction) = through.split_once(' ').ok_or_else(wrong)?;
    let index = policy.interfaces.iter().position(|i| i.id == interface).ok_or_else(wrong)?;
    let direction = Direction::BOTH.into_iter().find(|d| d.as_str() == direction);
    Ok(Attribution {
        only: Some(vec![index]),
        direction: Some(direction.ok_or_else(wrong)?),
        ..Attribution::default()
    })
}

/// Every judgement is counted once, and nothing else is.
fn check_ledger(judge: &Judge, judged: u64, wrong: &mut Vec<String>) {
    use sgwall_dataplane::PassReason;
    let counters = judge.pipeline().counters();
    let passed = PassReason::ALL.iter().map(|&r| counters.passed(r).packets);
    let dropped = DropReason::ALL.iter().map(|&r| counters.dropped(r).packets);
    let counted: u64 = passed.chain(dropped).sum();
    if counted != judged {
        wrong.push(format!("{counted} verdicts were counted, {judged} were given"));
    }
}

/// `pass allowed-tracked sg-1/ingress-1`, the rule only where one decided; of what was emitted,
/// `answer` and its verdict, or `fragment` and its length.
fn words(event: &Event<'_>, policy: &CompiledPolicy) -> String {
    let verdict = match event.judgement {
        Judgement::Skip(reason) => return format!("skip {}", reason.as_str()),
        Judgement::Verdict(verdict) => verdict,
    };
    let mut words = match event.emitted {
        None => String::new(),
        Some(Emitted::Fragment) => {
            return format!("fragment {}", event.headers.map_or(0, |h| h.ip_len));
        }
        Some(Emitted::Answer) => "answer ".to_owned(),
    };
    words += if verdict.is_pass() { "pass " } else { "drop " };
    words += verdict.reason();
    if let Some(rule) = verdict.rule.and_then(|id| policy.rule(id)) {
        words += &format!(" {}/{}", rule.owner, rule.rule);
    } else if verdict.outcome == Outcome::Drop(DropReason::AclNoMatch) {
        words += " *";
    }
    words
}
