//! What an explanation foretells against what was judged: every step of a case is explained
//! beforehand, and the two must agree.

use sgwall_dataplane::explain::{
    AnswerFacts, Condition, Decision, SideFacts, StageFacts, StageOutcome,
};
use sgwall_dataplane::{Emitted, Event, Explanation, Judgement, Outcome};
use sgwall_rules::compile::CompiledPolicy;

/// What an event says, in words to compare: everything but times and texts.
#[must_use]
pub fn event_words(event: &Event<'_>, policy: &CompiledPolicy) -> String {
    if event.emitted == Some(Emitted::Fragment) {
        return format!("fragment {}", event.headers.map_or(0, |h| h.ip_len));
    }
    let side =
        event.side.map(|(i, direction)| format!("{} {direction}", policy.interfaces()[i].id));
    let side = side.unwrap_or_default();
    let answer = if event.emitted.is_some() { "answer " } else { "" };
    match event.judgement {
        Judgement::Skip(reason) => format!("{side} skip {}", reason.as_str()),
        Judgement::Verdict(v) => {
            let name = |owner: &str, rule: &str| format!("{owner}/{rule}");
            let by_final = |outcome| {
                let acl = policy.interfaces().get(event.side?.0)?.acl_id()?;
                (outcome == Outcome::Drop(sgwall_dataplane::DropReason::AclNoMatch))
                    .then(|| format!("{acl}/*"))
            };
            let rule = v.rule.and_then(|id| policy.rule(id)).map(|r| name(&r.owner, &r.rule));
            let word = if v.is_pass() { "pass" } else { "drop" };
            format!(
                "{answer}{side} {word} {} {} {:?} {:?} {:?} {:?}",
                v.stage(),
                v.reason(),
                rule.or_else(|| by_final(v.outcome)),
                v.state.map(|state| state.as_str()),
                event.admitted_by.map(|r| name(&r.owner, &r.rule)),
                v.mtu,
            )
        }
    }
}

/// The events that an explanation foretells, in the same words.
#[must_use]
pub fn foretold(explanation: &Explanation) -> Vec<String> {
    let mut events = Vec::new();
    if explanation.sides.is_empty() {
        events.push(decision_words("", "", &explanation.decision));
    }
    for side in &explanation.sides {
        foretell_side("", side, &mut events);
    }
    events
}

fn foretell_side(prefix: &str, side: &SideFacts, events: &mut Vec<String>) {
    let Some(decision) = side.decision.as_ref().filter(|d| d.verdict != "held") else { return };
    let name = format!("{} {}", side.interface, side.direction);
    events.push(decision_words(prefix, &name, decision));
    let Some(emitted) = &side.emitted else { return };
    events.extend(emitted.fragments.iter().map(|len| format!("fragment {len}")));
    if let Some(answer) = &emitted.answer {
        foretell_side("answer ", &answer.side, events);
    }
}

fn decision_words(prefix: &str, side: &str, d: &Decision) -> String {
    if d.verdict == "skip" {
        return format!("{side} skip {}", d.reason);
    }
    format!(
        "{prefix}{side} {} {} {} {:?} {:?} {:?} {:?}",
        d.verdict,
        d.stage,
        d.reason,
        d.rule,
        d.state,
        d.admitted_by,
        d.mtu.and_then(std::num::NonZeroU16::new),
    )
}

/// Where an explanation contradicts itself: its stages, its rules and its verdict.
#[must_use]
pub fn contradictions(explanation: &Explanation) -> Vec<String> {
    let mut found = Vec::new();
    match serde_json::to_string(explanation).map(|text| serde_json::from_str::<Explanation>(&text))
    {
        Ok(Ok(read)) if read == *explanation => {}
        other => found.push(format!("as JSON it is {other:?}")),
    }
    for side in &explanation.sides {
        check_side(side, &mut found);
        if let Some(AnswerFacts { side: answer, .. }) =
            side.emitted.as_ref().and_then(|emitted| emitted.answer.as_deref())
        {
            check_side(answer, &mut found);
            let is_refused = answer.decision.as_ref().is_some_and(|d| d.verdict == "drop");
            let is_hole = side.emitted.as_ref().is_some_and(|e| e.black_hole.is_some());
            if is_refused != is_hole {
                found.push(format!("answer refused: {is_refused}, black hole: {is_hole}"));
            }
        }
    }
    found
}

fn check_side(side: &SideFacts, found: &mut Vec<String>) {
    let reached = |s: &&StageFacts| s.outcome != StageOutcome::NotReached;
    let last = side.stages.iter().rfind(reached);
    let stopped = side.stages.iter().filter(|s| s.outcome == StageOutcome::Dropped).count();
    let Some(decision) = &side.decision else {
        if last.is_some() {
            found.push(format!("{} is not reached, and has stages", side.interface));
        }
        return;
    };
    let is_drop = decision.verdict == "drop";
    // A frame whose headers could not be read has met no stage of it.
    if side.stages.is_empty() && decision.stage != "interface" {
        return;
    }
    if stopped != usize::from(is_drop) {
        found.push(format!("{stopped} stages drop, verdict {}", decision.verdict));
    }
    if is_drop && last.map(|stage| stage_of(&stage.stage)) != Some(&decision.stage) {
        found.push(format!("{last:?} is last, but {} decides", decision.stage));
    }
    for stage in &side.stages {
        let matching = stage.considered.iter().find(|c| c.matches());
        match (stage.stage.as_str(), stage.outcome) {
            ("security-group", StageOutcome::Allowed) => {
                let decides = decision.rule.as_deref();
                let is_among = stage.considered.iter().any(|c| c.matches());
                let is_rule = decision.stage != "security-group"
                    || stage.considered.iter().any(|c| c.matches() && Some(&*c.rule) == decides);
                if !is_among || !is_rule {
                    found.push(format!("{decides:?} decides, considered {:?}", stage.considered));
                }
            }
            ("security-group", StageOutcome::Dropped) if matching.is_some() => {
                found.push(format!("no rule matches, but {matching:?} does"));
            }
            ("network-acl", StageOutcome::Dropped) => {
                let name = matching.map(|c| c.rule.clone());
                if name.is_some() && name != decision.rule {
                    found.push(format!("{name:?} decides, not {:?}", decision.rule));
                }
                if matching.is_some_and(|c| c.allows) {
                    found.push(format!("{matching:?} allows and drops"));
                }
            }
            ("network-acl", StageOutcome::Passed)
                if !stage.considered.is_empty() && !matching.is_some_and(|c| c.allows) =>
            {
                found.push(format!("the ACL passes it, by {matching:?}"));
            }
            ("tracking", _) if !stage.conditions.is_empty() => {
                let is_untracked = stage.text.starts_with("untracked");
                if by_conditions(&stage.conditions) != is_untracked {
                    found.push(format!("{}: {:?}", stage.text, stage.conditions));
                }
                let by_verdict = decision.reason == "allowed-untracked";
                if decision.verdict == "pass" && by_verdict != is_untracked {
                    found.push(format!("{}, but {}", stage.text, decision.reason));
                }
            }
            _ => {}
        }
    }
}

/// SEMANTICS 6.2: untracked if (a) to (d) hold, or (a) and (e).
fn by_conditions(conditions: &[Condition]) -> bool {
    let holds = |letter| conditions.iter().any(|c| c.letter == letter && c.holds == Some(true));
    ['a', 'b', 'c', 'd'].into_iter().all(holds) || (holds('a') && holds('e'))
}

/// The stage of a verdict that a step of the way belongs to.
fn stage_of(step: &str) -> &str {
    match step {
        "address-check" => "interface",
        "commit" => "conntrack",
        other => other,
    }
}
