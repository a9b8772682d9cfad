//! What a replay adds up to, as tables for people or one object for programs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::net::IpAddr;

use anstyle::Style;
use serde::Serialize;
use sgwall_dataplane::{
    BlackHole, DropReason, Emitted, Event, Judge, Judgement, Outcome, PassReason, SkipReason,
    Stage, Teller, black_hole::black_holes, counters::Tally,
};
use sgwall_packet::{Direction, FiveTuple, Headers, Timestamp, Transport, protocol};
use sgwall_rules::compile::{CompiledInterface, CompiledPolicy, RuleId, RuleInfo};
use sgwall_rules::model::protocol_name;

use super::record::VERSION;
use crate::style::{grouped, verdict as verdict_style};
use crate::wrap::plural;

/// Dropped flows and strangers remembered apart; what comes later is only counted.
const MAX_REMEMBERED: usize = 1 << 16;
/// Rows of a table for people.
const TOP: usize = 10;

/// Sums over all captures of a run.
pub(super) struct Summary {
    pub(super) captures: u64,
    frames: Fates,
    dropped: Dropped,
    strangers: HashMap<IpAddr, u64>,
    /// Dropped messages of path-MTU discovery, by interface (its place in `interfaces`) and sender.
    too_big: BTreeMap<(usize, IpAddr), u64>,
    emitted: EmittedSums,
    /// The time of the last frame.
    end: Timestamp,
    /// Rules of all policies so far, in their order, with the packets that they decided.
    rules: Vec<(RuleInfo, u64)>,
    /// Interfaces of all policies so far.
    interfaces: Vec<String>,
    /// By index in the present policy: the place in `interfaces`.
    places: Vec<usize>,
}

/// Frames by their final fate; bytes are those on the wire.
#[derive(Default, Serialize)]
struct Fates {
    total: Sum,
    pass: Sum,
    drop: Sum,
    skip: Sum,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Sum {
    packets: u64,
    bytes: u64,
}

/// What was made on the way, because packets did not fit their path.
#[derive(Clone, Copy, Default, Serialize)]
struct EmittedSums {
    /// Answers to senders that reached them.
    answers: Sum,
    /// Answers that the sender's own groups refused.
    answers_dropped: Sum,
    fragments: Sum,
}

/// Dropped flows, by interface (its place in [`Summary::interfaces`]), direction and five-tuple.
#[derive(Default)]
struct Dropped {
    flows: HashMap<(usize, Direction, FiveTuple), (Sum, DropReason)>,
    unremembered: u64,
}

impl Sum {
    fn add(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }
}

impl From<Tally> for Sum {
    fn from(tally: Tally) -> Self {
        Sum { packets: tally.packets, bytes: tally.bytes }
    }
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
    frames: &'a Fates,
    flows: Flows,
    emitted: EmittedSums,
    reasons: Vec<ReasonRow>,
    rules: Vec<RuleRow<'a>>,
    unused_rules: usize,
    most_dropped: Vec<FlowRow<'a>>,
    hints: Vec<String>,
}

impl Summary {
    pub(super) fn new(policy: &CompiledPolicy) -> Self {
        let mut summary = Summary {
            captures: 0,
            frames: Fates::default(),
            dropped: Dropped::default(),
            strangers: HashMap::new(),
            too_big: BTreeMap::new(),
            emitted: EmittedSums::default(),
            end: Timestamp::default(),
            rules: Vec::new(),
            interfaces: Vec::new(),
            places: Vec::new(),
        };
        summary.begin_policy(policy);
        summary
    }

    /// Starts with a policy.
    pub(super) fn begin_policy(&mut self, policy: &CompiledPolicy) {
        let place = |id: &String| {
            self.interfaces.iter().position(|known| known == id).unwrap_or_else(|| {
                self.interfaces.push(id.clone());
                self.interfaces.len() - 1
            })
        };
        self.places = policy.interfaces().iter().map(|i| &i.id).map(place).collect();
    }

    /// Adds up what the rules of the present policy decided, before another takes over or the
    /// replay ends.
    pub(super) fn end_policy(&mut self, judge: &Judge) {
        let counters = judge.pipeline().counters();
        let known = self.rules.iter().enumerate().map(|(i, (rule, _))| (rule.clone(), i));
        let mut known: HashMap<RuleInfo, usize> = known.collect();
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

    pub(super) fn add(&mut self, event: &Event<'_>) {
        self.end = event.frame.time;
        if let Some(emitted) = event.emitted {
            let is_pass = matches!(event.judgement, Judgement::Verdict(v) if v.is_pass());
            let sum = match emitted {
                Emitted::Fragment => &mut self.emitted.fragments,
                Emitted::Answer if is_pass => &mut self.emitted.answers,
                Emitted::Answer => &mut self.emitted.answers_dropped,
            };
            sum.add(event.frame.wire_len);
        } else if event.is_final {
            let len = event.frame.wire_len;
            self.frames.total.add(len);
            match event.judgement {
                Judgement::Skip(_) => self.frames.skip.add(len),
                Judgement::Verdict(v) if v.is_pass() => self.frames.pass.add(len),
                Judgement::Verdict(_) => self.frames.drop.add(len),
            }
        }
        match (event.judgement, event.headers) {
            (Judgement::Verdict(v), Some(headers)) => {
                if let (Outcome::Drop(reason), Some((interface, direction))) =
                    (v.outcome, event.side)
                    && let Some(&place) = self.places.get(interface)
                {
                    let key = (place, direction, FiveTuple::from(headers));
                    self.dropped.add(key, headers.ip_len, reason);
                    if direction == Direction::Ingress && is_too_big(headers) {
                        self.add_too_big((place, headers.src));
                    }
                }
            }
            (Judgement::Skip(SkipReason::NotOurs), Some(headers)) => {
                for addr in [headers.src, headers.dst] {
                    if self.strangers.len() < MAX_REMEMBERED || self.strangers.contains_key(&addr) {
                        *self.strangers.entry(addr).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
    }

    fn report(&self, judge: &Judge, top: usize) -> Report<'_> {
        let connections = judge.pipeline().connections();
        let (rules, unused_rules) = rule_rows(&self.rules);
        Report {
            kind: "summary",
            version: VERSION,
            captures: self.captures,
            frames: &self.frames,
            flows: Flows {
                tracked: connections.counters().created,
                live: connections.iter(self.end).count() as u64,
            },
            emitted: self.emitted,
            reasons: reason_rows(judge),
            rules,
            unused_rules,
            most_dropped: self.dropped.rows(&self.interfaces, top),
            hints: self.hints(judge),
        }
    }

    /// What a user probably wants to know next.
    fn hints(&self, judge: &Judge) -> Vec<String> {
        let mut hints = Vec::new();
        let judged = self.frames.total.packets - self.frames.skip.packets;
        let not_ours = judge.unjudged().skipped(SkipReason::NotOurs).packets;
        if judged == 0 && not_ours > 0 {
            let mut strangers: Vec<_> = self.strangers.iter().collect();
            strangers.sort_by_key(|&(addr, count)| (std::cmp::Reverse(*count), *addr));
            let busiest: Vec<_> = strangers.iter().take(3).map(|(a, _)| a.to_string()).collect();
            let name = match &self.interfaces[..] {
                [one] => one,
                _ => "ENI",
            };
            hints.push(format!(
                "no packet concerns an interface of the policy; the capture's busiest addresses \
                 are {}. If one of them stands for the interface, say --interface {name} --local ADDRESS",
                busiest.join(", ")
            ));
        }
        if judge.pipeline().counters().dropped(DropReason::SrcDstCheck).packets > 0 {
            hints.push(
                "src-dst-check: the address on the interface's side is not its own. If it stands \
                 for the interface, say --local ADDRESS; if the interface routes for others, set \
                 source_dest_check = false"
                    .into(),
            );
        }
        hints.extend(self.too_big_hints(judge.pipeline().policy()));
        if judge.super_frames() > 0 && !judge.is_offload() {
            hints.push(format!(
                "{} frames are larger than the MTU of the interface that sent them: the capture was \
                 taken before segmentation offload cut them; say --offload to judge them by their \
                 segments",
                judge.super_frames()
            ));
        }
        if judge.unjudged().skipped(SkipReason::Truncated).packets > 0 {
            hints.push(
                "truncated: the capture was taken with too small a snap length (tcpdump -s)".into(),
            );
        }
        if self.dropped.unremembered > 0 {
            hints.push(format!(
                "{} dropped packets are of flows beyond the first {MAX_REMEMBERED}, which are not \
                 listed one by one",
                self.dropped.unremembered
            ));
        }
        hints
    }

    fn add_too_big(&mut self, key: (usize, IpAddr)) {
        if self.too_big.len() < MAX_REMEMBERED || self.too_big.contains_key(&key) {
            *self.too_big.entry(key).or_default() += 1;
        }
    }

    /// An interface by its place in `interfaces`, if the present policy has it.
    fn interface<'a>(
        &self,
        place: usize,
        policy: &'a CompiledPolicy,
    ) -> Option<&'a CompiledInterface> {
        policy.interfaces().get(policy.interface_by_id(self.interfaces.get(place)?)?)
    }

    /// Where path-MTU discovery was seen to fail, and what is missing: as `sgwall check` says it.
    fn too_big_hints(&self, policy: &CompiledPolicy) -> Vec<String> {
        // By interface, then by whether it was its router that told, of either family.
        let mut tellers: BTreeMap<(usize, bool, bool), u64> = BTreeMap::new();
        for (&(index, sender), count) in &self.too_big {
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
    pub(super) fn write_json(&self, out: &mut impl Write, judge: &Judge) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &self.report(judge, 100))?;
        writeln!(out)
    }

    /// Tables.
    pub(super) fn write_text(&self, out: &mut impl Write, judge: &Judge) -> io::Result<()> {
        let report = self.report(judge, TOP);
        let bold = Style::new().bold();
        let Fates { total, pass, drop, skip } = report.frames;
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
}

impl Dropped {
    fn add(&mut self, key: (usize, Direction, FiveTuple), bytes: u32, reason: DropReason) {
        if self.flows.len() >= MAX_REMEMBERED && !self.flows.contains_key(&key) {
            self.unremembered += 1;
            return;
        }
        self.flows.entry(key).or_insert((Sum::default(), reason)).0.add(bytes);
    }

    /// The `top` flows by packets, then bytes; ties in the order of their names.
    fn rows<'a>(&self, interfaces: &'a [String], top: usize) -> Vec<FlowRow<'a>> {
        let mut flows: Vec<_> = self.flows.iter().collect();
        flows.sort_by_key(|((interface, direction, flow), (sum, _))| {
            (std::cmp::Reverse((sum.packets, sum.bytes)), *interface, *direction, *flow)
        });
        let row = |(&(interface, direction, flow), &(sum, reason)): (&_, &(Sum, DropReason))| {
            let (interface, direction, flow): (usize, Direction, FiveTuple) =
                (interface, direction, flow);
            FlowRow {
                interface: interfaces.get(interface).map_or("-", String::as_str),
                direction: direction.as_str(),
                protocol: protocol_name(flow.protocol),
                flow,
                sum,
                reason: reason.as_str(),
            }
        };
        flows.into_iter().take(top).map(row).collect()
    }
}

/// Every reason that was given at least once, in the order of a packet's way.
fn reason_rows(judge: &Judge) -> Vec<ReasonRow> {
    let counters = judge.pipeline().counters();
    let row = |verdict, stage: Stage, reason, text, tally: Tally| {
        let row = ReasonRow { verdict, stage: stage.as_str(), reason, sum: tally.into(), text };
        (stage, row)
    };
    let pass = PassReason::ALL
        .iter()
        .map(|&r| row("pass", r.stage(), r.as_str(), r.describe(), counters.passed(r)));
    let drop = DropReason::ALL
        .iter()
        .map(|&r| row("drop", r.stage(), r.as_str(), r.describe(), counters.dropped(r)));
    let skip = SkipReason::ALL
        .iter()
        .map(|&r| row("skip", r.stage(), r.as_str(), r.describe(), judge.unjudged().skipped(r)));
    let mut rows: Vec<_> =
        pass.chain(drop).chain(skip).filter(|(_, row)| row.sum.packets > 0).collect();
    rows.sort_by_key(|(stage, _)| *stage);
    rows.into_iter().map(|(_, row)| row).collect()
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

/// What a sender must hear to send smaller packets (RFC 1191, RFC 8201).
fn is_too_big(headers: &Headers) -> bool {
    match headers.transport {
        Transport::Icmp(icmp) => {
            matches!(
                (headers.protocol, icmp.kind, icmp.code),
                (protocol::ICMP, 3, 4) | (protocol::ICMPV6, 2, _)
            )
        }
        _ => false,
    }
}

fn as_text<S: serde::Serializer>(flow: &FiveTuple, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(flow)
}
