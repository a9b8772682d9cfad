//! What a replay adds up to, as tables for people or one object for programs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::net::IpAddr;

use anstyle::Style;
use serde::Serialize;
use sgwall_dataplane::{
    BlackHole, DropReason, Judge, PassReason, SkipReason, Stage, Teller, black_hole::black_holes,
    counters::Tally,
};
use sgwall_packet::FiveTuple;
use sgwall_rules::compile::{CompiledInterface, CompiledPolicy, RuleId, RuleInfo};
use sgwall_rules::model::protocol_name;

use super::dropped::{Counted, First};
use super::record::VERSION;
use super::sums::{EmittedSums, Fates, MAX_REMEMBERED, Sum, Sums};
use crate::style::{grouped, verdict as verdict_style};
use crate::wrap::plural;

/// Rows of a table for people.
const TOP: usize = 10;

/// What is known over all captures of a run, the sums apart.
pub(super) struct Summary {
    pub(super) captures: u64,
    /// Rules of all policies so far, in their order, with the packets that they decided.
    rules: Vec<(RuleInfo, u64)>,
    /// Interfaces of all policies so far.
    interfaces: Vec<String>,
}

/// A run that has ended: what was seen, and the judges that saw it, each a part.
pub(super) struct Ended<'a> {
    pub(super) summary: &'a Summary,
    pub(super) sums: &'a Sums,
    pub(super) judges: &'a [&'a Judge],
}

#[derive(Serialize)]
struct ReasonRow {
    verdict: &'static str,
    stage: &'static str,
    reason: &'static str,
    #[serde(flatten)]
    sum: Sum,
    #[serde(skip)]
    text: &'static str,
}

#[derive(Serialize)]
struct RuleRow<'a> {
    rule: String,
    direction: &'static str,
    text: &'a str,
    packets: u64,
}

#[derive(Serialize)]
struct FlowRow<'a> {
    interface: &'a str,
    direction: &'static str,
    protocol: String,
    #[serde(serialize_with = "as_text")]
    flow: FiveTuple,
    #[serde(flatten)]
    sum: Sum,
    reason: &'static str,
}

#[derive(Serialize)]
struct Flows {
    tracked: u64,
    live: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    captures: u64,
    frames: Fates,
    flows: Flows,
    emitted: EmittedSums,
    reasons: Vec<ReasonRow>,
    rules: Vec<RuleRow<'a>>,
    unused_rules: usize,
    most_dropped: Vec<FlowRow<'a>>,
    hints: Vec<String>,
}

impl Summary {
    pub(super) fn new() -> Self {
        Summary { captures: 0, rules: Vec::new(), interfaces: Vec::new() }
    }

    /// Starts with a policy: the places of its interfaces among those of all policies.
    pub(super) fn begin_policy(&mut self, policy: &CompiledPolicy) -> Vec<usize> {
        let place = |id: &String| {
            self.interfaces.iter().position(|known| known == id).unwrap_or_else(|| {
                self.interfaces.push(id.clone());
                self.interfaces.len() - 1
            })
        };
        policy.interfaces().iter().map(|i| &i.id).map(place).collect()
    }

    /// Adds up what the rules of the present policy decided, before another takes over or the
    /// replay ends.
    pub(super) fn end_policy<'a>(&mut self, judges: impl Iterator<Item = &'a Judge>) {
        let known = self.rules.iter().enumerate().map(|(i, (rule, _))| (rule.clone(), i));
        let mut known: HashMap<RuleInfo, usize> = known.collect();
        for judge in judges {
            let counters = judge.pipeline().counters();
            for (rule, id) in judge.pipeline().policy().rules().iter().zip(0..) {
                let hits = counters.hits(RuleId(id));
                match known.entry(rule.clone()) {
                    Entry::Occupied(entry) => self.rules[*entry.get()].1 += hits,
                    Entry::Vacant(entry) => {
                        entry.insert(self.rules.len());
                        self.rules.push((rule.clone(), hits));
                    }
                }
            }
        }
    }
}

impl<'a> Ended<'a> {
    /// What all judges together counted.
    fn total(&self, of: impl Fn(&Judge) -> Tally) -> Tally {
        self.judges.iter().map(|judge| of(judge)).fold(Tally::default(), Tally::plus)
    }

    fn skipped(&self, reason: SkipReason) -> Tally {
        self.total(|judge| judge.unjudged().skipped(reason))
    }

    /// The policy in force at the end.
    fn policy(&self) -> Option<&CompiledPolicy> {
        self.judges.first().map(|judge| &**judge.pipeline().policy())
    }

    fn flows(&self) -> Flows {
        let end = self.judges.iter().map(|judge| judge.clock().now()).max().unwrap_or_default();
        let tables = || self.judges.iter().map(|judge| judge.pipeline().connections());
        Flows {
            tracked: tables().map(|table| table.counters().created).sum(),
            live: tables().map(|table| table.iter(end).count() as u64).sum(),
        }
    }

    fn report(&self, top: usize) -> Report<'a> {
        let (rules, unused_rules) = rule_rows(&self.summary.rules);
        Report {
            kind: "summary",
            version: VERSION,
            captures: self.summary.captures,
            frames: self.sums.frames,
            flows: self.flows(),
            emitted: self.sums.emitted,
            reasons: self.reason_rows(),
            rules,
            unused_rules,
            most_dropped: self.flow_rows(top),
            hints: self.hints(),
        }
    }

    /// What a user probably wants to know next.
    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        let judged = self.sums.frames.total.packets - self.sums.frames.skip.packets;
        let not_ours = self.skipped(SkipReason::NotOurs).packets;
        if judged == 0 && not_ours > 0 {
            let mut frames: HashMap<IpAddr, u64> = HashMap::new();
            for addr in self.sums.strangers.iter().flat_map(|(_, ends)| ends) {
                *frames.entry(*addr).or_default() += 1;
            }
            let mut strangers: Vec<_> = frames.iter().collect();
            strangers.sort_by_key(|&(addr, count)| (std::cmp::Reverse(*count), *addr));
            let busiest: Vec<_> = strangers.iter().take(3).map(|(a, _)| a.to_string()).collect();
            let name = match &self.summary.interfaces[..] {
                [one] => one,
                _ => "ENI",
            };
            hints.push(format!(
                "no packet concerns an interface of the policy; the capture's busiest addresses \
                 are {}. If one of them stands for the interface, say --interface {name} --local ADDRESS",
                busiest.join(", ")
            ));
        }
        let dropped = |judge: &Judge| judge.pipeline().counters().dropped(DropReason::SrcDstCheck);
        if self.total(dropped).packets > 0 {
            hints.push(
                "src-dst-check: the address on the interface's side is not its own. If it stands \
                 for the interface, say --local ADDRESS; if the interface routes for others, set \
                 source_dest_check = false"
                    .into(),
            );
        }
        hints.extend(self.policy().map(|policy| self.too_big_hints(policy)).unwrap_or_default());
        let super_frames: u64 = self.judges.iter().map(|judge| judge.super_frames()).sum();
        if super_frames > 0 && !self.judges.iter().any(|judge| judge.is_offload()) {
            hints.push(format!(
                "{super_frames} frames are larger than the MTU of the interface that sent them: the capture was \
                 taken before segmentation offload cut them; say --offload to judge them by their \
                 segments"
            ));
        }
        if self.skipped(SkipReason::Truncated).packets > 0 {
            hints.push(
                "truncated: the capture was taken with too small a snap length (tcpdump -s)".into(),
            );
        }
        if self.sums.unremembered > 0 {
            hints.push(format!(
                "{} dropped packets are of flows beyond the first {MAX_REMEMBERED}, which are not \
                 listed one by one",
                self.sums.unremembered
            ));
        }
        hints
    }

    /// An interface by its place in `interfaces`, if the present policy has it.
    fn interface<'p>(
        &self,
        place: usize,
        policy: &'p CompiledPolicy,
    ) -> Option<&'p CompiledInterface> {
        policy.interfaces().get(policy.interface_by_id(self.summary.interfaces.get(place)?)?)
    }

    /// Where path-MTU discovery was seen to fail, and what is missing: as `sgwall check` says it.
    fn too_big_hints(&self, policy: &CompiledPolicy) -> Vec<String> {
        // By interface, then by whether it was its router that told, of either family.
        let mut tellers: BTreeMap<(usize, bool, bool), u64> = BTreeMap::new();
        for (&(index, sender), count) in &self.sums.too_big {
            let Some(interface) = self.interface(index, policy) else { continue };
            let is_router = interface.router(sender.is_ipv6()) == Some(sender);
            *tellers.entry((index, sender.is_ipv6(), is_router)).or_default() += count;
        }
        let mut hints = Vec::new();
        for ((index, ipv6, is_router), count) in tellers {
            let Some(interface) = self.interface(index, policy) else { continue };
            let holes: Vec<_> = black_holes(policy, interface)
                .iter()
                .filter(|hole| hole.ipv6 == ipv6)
                .filter(|hole| matches!(hole.teller, Teller::Router(_)) == is_router)
                .map(BlackHole::sentence)
                .collect();
            let missing = match holes.is_empty() {
                true => "see sgwall explain for the rule that refuses them".to_owned(),
                false => holes.join("; "),
            };
            hints.push(format!(
                "path-MTU black hole: {count} message{} that large packets must be smaller did not \
                 reach {}, so that they vanish without a word: {missing}",
                plural(count as usize),
                interface.id
            ));
        }
        hints
    }

    /// One JSON object on one line.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &self.report(100))?;
        writeln!(out)
    }

    /// Tables.
    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let report = self.report(TOP);
        let bold = Style::new().bold();
        let Fates { total, pass, drop, skip } = &report.frames;
        writeln!(out, "{bold}{:<9}{:>10}  {:>12}{bold:#}", "FRAMES", "packets", "bytes")?;
        for (word, sum) in [("", total), ("pass", pass), ("drop", drop), ("skip", skip)] {
            let (style, word) = (verdict_style(word), if word.is_empty() { "all" } else { word });
            let style = if word == "all" { Style::new() } else { style };
            let (packets, bytes) = (grouped(sum.packets), grouped(sum.bytes));
            writeln!(out, "{style}{word:<9}{packets:>10}  {bytes:>12}{style:#}")?;
        }
        let Flows { tracked, live } = report.flows;
        writeln!(out, "\n{tracked} tracked flows were opened; {live} are alive at the end.")?;
        let EmittedSums { answers, answers_dropped, fragments } = report.emitted;
        if answers.packets + answers_dropped.packets + fragments.packets > 0 {
            writeln!(
                out,
                "Packets that did not fit their path: {} fragments were made, {} answers to senders \
                 delivered, {} refused.",
                grouped(fragments.packets),
                grouped(answers.packets),
                grouped(answers_dropped.packets)
            )?;
        }

        writeln!(
            out,
            "\n{bold}{:<5}{:<15} {:<25}{:>10} {:>12}  WHY{bold:#}",
            "", "STAGE", "REASON", "packets", "bytes"
        )?;
        for ReasonRow { verdict, stage, reason, sum, text } in &report.reasons {
            let style = verdict_style(verdict);
            let (packets, bytes) = (grouped(sum.packets), grouped(sum.bytes));
            writeln!(
                out,
                "{style}{verdict:<5}{style:#}{stage:<15} {reason:<25}{packets:>10} {bytes:>12}  {text}"
            )?;
        }
        if !report.rules.is_empty() {
            writeln!(out, "\n{bold}{:>9}  {:<34} RULE THAT DECIDED{bold:#}", "packets", "")?;
            for RuleRow { rule, direction, text, packets } in report.rules.iter().take(2 * TOP) {
                writeln!(out, "{:>9}  {rule:<34} {direction} {text}", grouped(*packets))?;
            }
            if report.rules.len() > 2 * TOP {
                writeln!(out, "{:>9}  and {} more", "", report.rules.len() - 2 * TOP)?;
            }
        }
        if report.unused_rules > 0 {
            writeln!(out, "{:>9}  {} rules decided nothing", "", report.unused_rules)?;
        }
        if !report.most_dropped.is_empty() {
            writeln!(out, "\n{bold}{:>9}  MOST DROPPED FLOWS{bold:#}", "packets")?;
            for row in &report.most_dropped {
                let FlowRow { interface, direction, protocol, flow, sum, reason } = row;
                let packets = grouped(sum.packets);
                writeln!(
                    out,
                    "{packets:>9}  {interface} {direction:<7} {protocol:<6} {flow}  {reason}"
                )?;
            }
        }
        for hint in &report.hints {
            writeln!(out, "\n{bold}hint:{bold:#} {hint}")?;
        }
        Ok(())
    }

    /// The `top` dropped flows by packets, then bytes; ties in the order of their names.
    fn flow_rows(&self, top: usize) -> Vec<FlowRow<'a>> {
        let mut flows: Vec<_> = self.sums.dropped.iter().collect();
        flows.sort_by_key(|(Counted { of, sum }, _)| {
            (std::cmp::Reverse((sum.packets, sum.bytes)), *of)
        });
        let interfaces = &self.summary.interfaces;
        let row = |(&Counted { of, sum }, first): (&Counted, &First)| FlowRow {
            interface: interfaces.get(of.interface as usize).map_or("-", String::as_str),
            direction: of.direction.as_str(),
            protocol: protocol_name(of.flow.protocol),
            flow: of.flow,
            sum,
            reason: first.reason.as_str(),
        };
        flows.into_iter().take(top).map(row).collect()
    }

    /// Every reason that was given at least once, in the order of a packet's way.
    fn reason_rows(&self) -> Vec<ReasonRow> {
        let row = |verdict, stage: Stage, reason, text, tally: Tally| {
            let row = ReasonRow { verdict, stage: stage.as_str(), reason, sum: tally.into(), text };
            (stage, row)
        };
        let pass = PassReason::ALL.iter().map(|&r| {
            let tally = self.total(|judge| judge.pipeline().counters().passed(r));
            row("pass", r.stage(), r.as_str(), r.describe(), tally)
        });
        let drop = DropReason::ALL.iter().map(|&r| {
            let tally = self.total(|judge| judge.pipeline().counters().dropped(r));
            row("drop", r.stage(), r.as_str(), r.describe(), tally)
        });
        let skip = SkipReason::ALL
            .iter()
            .map(|&r| row("skip", r.stage(), r.as_str(), r.describe(), self.skipped(r)));
        let mut rows: Vec<_> =
            pass.chain(drop).chain(skip).filter(|(_, row)| row.sum.packets > 0).collect();
        rows.sort_by_key(|(stage, _)| *stage);
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

/// Rules that decided, most hits first, and how many decided nothing.
fn rule_rows(rules: &[(RuleInfo, u64)]) -> (Vec<RuleRow<'_>>, usize) {
    let mut rows = Vec::new();
    let mut unused = 0;
    for &(ref rule, packets) in rules {
        if packets == 0 {
            unused += 1;
            continue;
        }
        rows.push(RuleRow {
            rule: format!("{}/{}", rule.owner, rule.rule),
            direction: rule.direction.as_str(),
            text: &rule.text,
            packets,
        });
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.packets));
    (rows, unused)
}

fn as_text<S: serde::Serializer>(flow: &FiveTuple, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(flow)
}
