//! An explanation for people: aligned, wrapped, fit to be pasted into a ticket.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use sgwall_dataplane::explain::{
    Condition, Decision, EmittedFacts, FlowFacts, PathFacts, Remedy, SideFacts, StageFacts,
    StageOutcome,
};
use sgwall_dataplane::{Explanation, Teller};
use sgwall_rules::explain::{Considered, differing_fields, nearest};

use crate::wrap::{WIDTH, plural, wrap};

/// Rules of a stage that are listed one by one; of more, those that match and the nearest.
const FEW: usize = 12;
/// The nearest of many.
const NEAREST: usize = 5;
/// Columns of a stage's name and its outcome, two spaces before and between.
const STAGE: usize = 16;
const OUTCOME: usize = 13;
/// Where the text of a stage begins.
const TEXT: usize = 2 + STAGE + OUTCOME;
/// Where what belongs to a stage begins.
const DETAIL: usize = 6;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Writes the explanation; `all`: every rule that was considered.
pub(crate) fn write(out: &mut impl Write, explanation: &Explanation, all: bool) -> io::Result<()> {
    let Explanation { packet, stages, decision, sides, compat, .. } = explanation;
    writeln!(out, "{BOLD}{}{BOLD:#}", packet.text)?;
    let time = packet.time.trim_end_matches('0').trim_end_matches('.');
    writeln!(out, "at {time} s, {} bytes on the wire, under {compat}\n", packet.wire_length)?;
    verdict(out, decision, sides)?;
    writeln!(out)?;
    write_stages(out, stages, None, all)?;
    for side in sides.iter().filter(|side| !side.stages.is_empty()) {
        write_side(out, side, "", sides.len() > 1, all)?;
    }
    Ok(())
}

/// The verdict in a sentence.
fn verdict(out: &mut impl Write, decision: &Decision, sides: &[SideFacts]) -> io::Result<()> {
    let word = decision.verdict.to_uppercase();
    let style = style_of(&decision.verdict);
    let last = sides.iter().rfind(|side| side.decision.is_some());
    let place = match last {
        Some(side) => format!(", {} of {}", side.direction, side.interface),
        None => String::new(),
    };
    let by = match (&decision.rule, &decision.admitted_by) {
        (Some(rule), _) => format!(" by {rule}"),
        (None, Some(rule)) => format!(" by the flow that {rule} admitted"),
        (None, None) => String::new(),
    };
    let Decision { reason, stage, text, .. } = decision;
    let first = format!("{reason}{by} ({stage}{place})");
    let indent = word.len() + 1;
    writeln!(out, "{style}{word}{style:#} {}", wrap(&first, indent, indent))?;
    writeln!(out, "{:indent$}{}", "", wrap(text, indent, indent))
}

fn write_side(
    out: &mut impl Write,
    side: &SideFacts,
    whose: &str,
    of_several: bool,
    all: bool,
) -> io::Result<()> {
    write!(out, "\n{BOLD}{whose}{} of {}{BOLD:#}", side.direction, side.interface)?;
    if let Some(decision) = side.decision.as_ref().filter(|_| of_several) {
        let style = style_of(&decision.verdict);
        write!(out, ": {style}{}{style:#} {}", decision.verdict, decision.reason)?;
    }
    writeln!(out)?;
    if let Some(seen) = &side.seen_as {
        let text = format!("seen here as {seen}: an internet gateway translates the address");
        writeln!(out, "  {}", wrap(&text, 2, 4))?;
    }
    write_stages(out, &side.stages, side.decision.as_ref(), all)?;
    if let Some(remedy) = &side.remedy {
        write_remedy(out, remedy)?;
    }
    match &side.emitted {
        Some(emitted) => write_emitted(out, emitted, all),
        None => Ok(()),
    }
}

/// Each stage, those that were not reached in one line.
fn write_stages(
    out: &mut impl Write,
    stages: &[StageFacts],
    decision: Option<&Decision>,
    all: bool,
) -> io::Result<()> {
    for stage in stages.iter().filter(|s| s.outcome != StageOutcome::NotReached) {
        let style = match stage.outcome {
            StageOutcome::Allowed => style_of("pass"),
            StageOutcome::Dropped => style_of("drop"),
            StageOutcome::NotApplicable => DIM,
            _ => Style::new(),
        };
        let (name, outcome) = (&stage.stage, stage.outcome.as_str());
        let text = wrap(&stage.text, TEXT, TEXT);
        writeln!(out, "  {name:<STAGE$}{style}{outcome:<OUTCOME$}{style:#}{text}")?;
        if let Some(flow) = &stage.flow {
            write_flow(out, flow)?;
        }
        if let Some(path) = &stage.path {
            write_path(out, path)?;
        }
        for Condition { letter, holds, text } in &stage.conditions {
            let (mark, style) = mark(*holds);
            let text = wrap(text, DETAIL + 6, DETAIL + 6);
            writeln!(out, "{:DETAIL$}{style}{mark}{style:#} ({letter}) {text}", "")?;
        }
        let decides = decision.and_then(|d| d.rule.as_deref());
        write_considered(out, &stage.considered, decides, all)?;
    }
    let not_reached: Vec<_> = stages
        .iter()
        .filter(|stage| stage.outcome == StageOutcome::NotReached)
        .map(|stage| stage.stage.as_str())
        .collect();
    if not_reached.is_empty() {
        return Ok(());
    }
    let text = wrap(&not_reached.join(", "), 15, 15);
    writeln!(out, "  {DIM}not reached: {text}{DIM:#}")
}

fn write_flow(out: &mut impl Write, flow: &FlowFacts) -> io::Result<()> {
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let idle = flow.timeout_ms.saturating_sub(flow.expires_in_ms);
    writeln!(out, "{:DETAIL$}flow   {}", "", flow.original)?;
    let text = format!(
        "{}, idle for {} s; dead in {} s unless another packet comes (timeout {} s)",
        flow.state,
        seconds(idle),
        seconds(flow.expires_in_ms),
        flow.timeout_ms / 1000
    );
    writeln!(out, "{:DETAIL$}state  {}", "", wrap(&text, DETAIL + 7, DETAIL + 7))?;
    let rule = flow.admitted_by.as_deref().unwrap_or("a rule that is not known any more");
    let text = format!("{rule}, of policy generation {}", flow.generation);
    writeln!(out, "{:DETAIL$}opened by {}", "", wrap(&text, DETAIL + 10, DETAIL + 10))
}

fn write_path(out: &mut impl Write, path: &PathFacts) -> io::Result<()> {
    let far = path.far_mtu.map(|mtu| format!(", {mtu} of the other end")).unwrap_or_default();
    writeln!(
        out,
        "{:DETAIL$}MTU: {} of the interface, {} of the route{far}; the smallest counts",
        "", path.interface_mtu, path.class_mtu
    )
}

/// Rules with why they match or do not, folded when there are many.
fn write_considered(
    out: &mut impl Write,
    considered: &[Considered],
    decides: Option<&str>,
    all: bool,
) -> io::Result<()> {
    let shown: Vec<&Considered> = if all || considered.len() <= FEW {
        considered.iter().collect()
    } else {
        let near: Vec<_> = nearest(considered).into_iter().take(NEAREST).collect();
        let is_shown = |c: &&Considered| {
            c.matches() || decides == Some(&*c.rule) || near.iter().any(|n| std::ptr::eq(*n, *c))
        };
        considered.iter().filter(is_shown).take(FEW).collect()
    };
    let width = |text: fn(&Considered) -> &str| {
        shown.iter().map(|c| text(c).chars().count()).max().unwrap_or(0)
    };
    let (rule_width, text_width) = (width(|c| &c.rule), width(|c| &c.text));
    for considered in &shown {
        let (mark, style) = mark(Some(considered.matches()));
        let Considered { rule, text, .. } = considered;
        let why = match (considered.matches(), decides == Some(rule)) {
            (true, true) => "matches, and decides".to_owned(),
            (true, false) => "matches".to_owned(),
            _ => reasons(considered),
        };
        let column = DETAIL + 2 + rule_width + 2 + text_width + 2;
        write!(out, "{:DETAIL$}{style}{mark}{style:#} {rule:<rule_width$}  ", "")?;
        if column + why.chars().count().min(40) <= WIDTH {
            writeln!(out, "{text:<text_width$}  {}", wrap(&why, column, column))?;
        } else {
            let indent = DETAIL + 4;
            writeln!(out, "{text}\n{:indent$}{}", "", wrap(&why, indent, indent))?;
        }
    }
    let folded: Vec<_> =
        considered.iter().filter(|c| !shown.iter().any(|s| std::ptr::eq(*s, *c))).collect();
    if folded.is_empty() {
        return Ok(());
    }
    let n = folded.len();
    let fields = differing_fields(folded);
    let fields: Vec<_> = fields.iter().map(|(f, n)| format!("{} ({n})", f.as_str())).collect();
    let text = format!("and {n} other{} that differ in {}", plural(n), fields.join(", "));
    writeln!(out, "{:DETAIL$}  {DIM}{}{DIM:#}", "", wrap(&text, DETAIL + 2, DETAIL + 2))
}

fn reasons(considered: &Considered) -> String {
    let reasons: Vec<_> = considered.mismatches.iter().map(|m| m.text.as_str()).collect();
    reasons.join("; ")
}

fn write_remedy(out: &mut impl Write, remedy: &Remedy) -> io::Result<()> {
    writeln!(out)?;
    for (n, near) in remedy.nearest.iter().enumerate() {
        let label = if n == 0 { "nearest" } else { "then" };
        let text = format!("{} ({}): {}", near.rule, near.text, reasons(near));
        writeln!(out, "  {label:<9}{}", wrap(&text, 11, 11))?;
    }
    match &remedy.rule {
        Some(rule) => {
            writeln!(out, "  {:<9}{BOLD}{rule}{BOLD:#}", "mend")?;
            writeln!(out, "  {:<9}{}", "", wrap(&remedy.text, 11, 11))
        }
        None => writeln!(out, "  {:<9}{}", "mend", wrap(&remedy.text, 11, 11)),
    }
}

/// Fragments, or the answer to the sender and what becomes of that.
fn write_emitted(out: &mut impl Write, emitted: &EmittedFacts, all: bool) -> io::Result<()> {
    writeln!(out)?;
    let lengths: Vec<_> = emitted.fragments.iter().map(u32::to_string).collect();
    let lengths = match lengths.is_empty() {
        true => String::new(),
        false => format!(": {} bytes", lengths.join(", ")),
    };
    writeln!(out, "  {}", wrap(&format!("{}{lengths}", emitted.text), 2, 4))?;
    if let Some(hole) = &emitted.black_hole {
        let style = style_of("drop");
        let whose = match hole.teller {
            Teller::Router(_) => "its sender never hears that it is too large",
            Teller::FurtherOut => "senders further out are never heard",
        };
        let text = format!("{whose}: {}", hole.sentence());
        let label = "path-MTU black hole:";
        writeln!(out, "  {style}{label}{style:#} {}", wrap(&text, label.len() + 3, 4))?;
    }
    match &emitted.answer {
        Some(answer) => write_side(out, &answer.side, "the answer, ", true, all),
        None => Ok(()),
    }
}

/// What holds, what does not, what was not asked.
const fn mark(holds: Option<bool>) -> (&'static str, Style) {
    match holds {
        Some(true) => ("+", Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)))),
        Some(false) => ("-", Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)))),
        None => (" ", DIM),
    }
}

fn style_of(verdict: &str) -> Style {
    let style = Style::new().bold();
    match verdict {
        "pass" => style.fg_color(Some(AnsiColor::Green.into())),
        "drop" => style.fg_color(Some(AnsiColor::Red.into())),
        _ => style.fg_color(Some(AnsiColor::Yellow.into())),
    }
}
