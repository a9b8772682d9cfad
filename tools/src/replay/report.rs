//! `--report FILE`: a page to look at, in one file that needs no network: traffic over time, flows,
//! rules by hits, drops with their reasons.
//!
//! What is gathered is bounded: time in at most [`MOST_COLUMNS`] columns, which become wider as the
//! capture goes on, and [`MOST_FLOWS`] flows. The page is `report.html`, with the data in it as JSON.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sgwall_dataplane::{Event, Judgement, Outcome};
use sgwall_netio::seed::random_seed;
use sgwall_packet::{Direction, FiveTuple};
use sgwall_rules::compile::CompiledPolicy;
use sgwall_rules::model::protocol_name;

use super::record;
use crate::failure::Failure;

const PAGE: &str = include_str!("report.html");
/// What stands in the page for the data.
const PLACE: &str = "\"DATA\"";
const MOST_COLUMNS: usize = 240;
const MOST_FLOWS: usize = 2000;

/// A report on its way to a file.
pub(super) struct Report {
    path: PathBuf,
    policy: Arc<CompiledPolicy>,
    captures: Vec<String>,
    /// Nanoseconds of a column.
    width: i64,
    /// Packets that passed, were dropped and were skipped, by column.
    columns: BTreeMap<i64, [u64; 3]>,
    flows: HashMap<Flow, FlowSum, ahash::RandomState>,
    /// Packets of flows that are not remembered.
    unremembered: u64,
    reasons: BTreeMap<(&'static str, &'static str), ReasonSum>,
    rules: BTreeMap<(&'static str, String), u64>,
    /// Every rule's text, of all policies.
    texts: BTreeMap<(&'static str, String), String>,
}

/// A flow as it is listed.
#[derive(PartialEq, Eq, Hash)]
struct Flow {
    interface: String,
    direction: Direction,
    tuple: FiveTuple,
    verdict: &'static str,
    reason: &'static str,
}

struct FlowSum {
    packets: u64,
    bytes: u64,
    /// Nanoseconds since the epoch.
    first: i64,
    last: i64,
    rule: String,
}

#[derive(Clone, Copy, Default)]
struct ReasonSum {
    packets: u64,
    bytes: u64,
    text: &'static str,
    stage: &'static str,
}

/// The data of the page.
#[derive(Serialize)]
struct Data<'a> {
    version: &'static str,
    captures: &'a [String],
    /// Seconds since the epoch of the first column, and of a column's width.
    begin: f64,
    width: f64,
    columns: Vec<[u64; 3]>,
    reasons: Vec<ReasonRow<'a>>,
    rules: Vec<RuleRow<'a>>,
    flows: Vec<FlowRow<'a>>,
    unremembered: u64,
}

#[derive(Serialize)]
struct ReasonRow<'a> {
    verdict: &'a str,
    stage: &'a str,
    reason: &'a str,
    text: &'a str,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct RuleRow<'a> {
    rule: &'a str,
    direction: &'a str,
    text: &'a str,
    packets: u64,
}

#[derive(Serialize)]
struct FlowRow<'a> {
    interface: &'a str,
    direction: &'a str,
    flow: String,
    verdict: &'a str,
    reason: &'a str,
    rule: &'a str,
    packets: u64,
    bytes: u64,
    first: f64,
    last: f64,
}

impl Report {
    /// A report that will go to `path`, which must be writable now.
    pub(super) fn create(
        path: Option<&Path>,
        policy: &Arc<CompiledPolicy>,
    ) -> Result<Option<Self>, Failure> {
        let Some(path) = path else { return Ok(None) };
        fs::write(path, "").map_err(|error| unwritable(path, &error))?;
        let [a, b, c, d] = random_seed();
        let mut report = Report {
            path: path.to_owned(),
            policy: Arc::clone(policy),
            captures: Vec::new(),
            width: 1_000_000,
            columns: BTreeMap::new(),
            flows: HashMap::with_hasher(ahash::RandomState::with_seeds(a, b, c, d)),
            unremembered: 0,
            reasons: BTreeMap::new(),
            rules: BTreeMap::new(),
            texts: BTreeMap::new(),
        };
        report.set_policy(policy);
        Ok(Some(report))
    }

    /// Another policy takes over.
    pub(super) fn set_policy(&mut self, policy: &Arc<CompiledPolicy>) {
        self.policy = Arc::clone(policy);
        for rule in policy.rules() {
            let key = (rule.direction.as_str(), format!("{}/{}", rule.owner, rule.rule));
            self.texts.insert(key, rule.text.clone());
        }
    }

    /// Another capture is judged.
    pub(super) fn begin(&mut self, capture: &str) {
        self.captures.push(capture.to_owned());
    }

    /// Adds an event.
    pub(super) fn record(&mut self, event: &Event<'_>) {
        if !event.is_final || event.emitted.is_some() {
            return;
        }
        let (verdict, stage, reason) = record::words(&event.judgement);
        let text = match event.judgement {
            Judgement::Skip(reason) => reason.describe(),
            Judgement::Verdict(verdict) => match verdict.outcome {
                Outcome::Pass(reason) => reason.describe(),
                Outcome::Drop(reason) => reason.describe(),
                Outcome::Hold => "",
            },
        };
        let bytes = u64::from(event.frame.wire_len);
        let sum = self.reasons.entry((verdict, reason)).or_default();
        *sum = ReasonSum {
            packets: sum.packets + 1,
            bytes: sum.bytes + bytes,
            text,
            stage: stage.as_str(),
        };
        let column = match verdict {
            "pass" => 0,
            "drop" => 1,
            _ => 2,
        };
        self.count_time(event.frame.time.as_nanos(), column);
        let rule = record::rule(event, &self.policy);
        if let (Some(rule), Some((_, direction))) = (&rule, event.side) {
            *self.rules.entry((direction.as_str(), rule.clone())).or_default() += 1;
        }
        let rule = rule.or_else(|| record::admitting_rule(event)).unwrap_or_default();
        self.count_flow(event, verdict, reason, rule);
    }

    fn count_time(&mut self, nanos: i64, which: usize) {
        self.columns.entry(nanos.div_euclid(self.width)).or_default()[which] += 1;
        let span = |columns: &BTreeMap<i64, [u64; 3]>| {
            let (first, last) = (columns.first_key_value(), columns.last_key_value());
            first.zip(last).map_or(0, |((first, _), (last, _))| last - first)
        };
        while span(&self.columns) >= MOST_COLUMNS as i64 {
            self.width *= 2;
            for (at, counts) in std::mem::take(&mut self.columns) {
                let wider = self.columns.entry(at.div_euclid(2)).or_default();
                wider.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
    }

    fn count_flow(
        &mut self,
        event: &Event<'_>,
        verdict: &'static str,
        reason: &'static str,
        rule: String,
    ) {
        let (Some((index, direction)), Some(headers)) = (event.side, event.headers) else { return };
        let interface = self.policy.interfaces().get(index).map_or("", |i| &i.id);
        let flow = Flow {
            interface: interface.to_owned(),
            direction,
            tuple: FiveTuple::from(headers),
            verdict,
            reason,
        };
        if self.flows.len() >= MOST_FLOWS && !self.flows.contains_key(&flow) {
            self.unremembered += 1;
            return;
        }
        let now = event.frame.time.as_nanos();
        let sum = self.flows.entry(flow).or_insert(FlowSum {
            packets: 0,
            bytes: 0,
            first: now,
            last: now,
            rule,
        });
        sum.packets += 1;
        sum.bytes += u64::from(event.frame.wire_len);
        (sum.first, sum.last) = (sum.first.min(now), sum.last.max(now));
    }

    /// Writes the page.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let json = serde_json::to_string(&self.data());
        let json = json.map_err(|error| unwritable(&self.path, &error))?;
        // Within a script element nothing may look like its end.
        let page = PAGE.replacen(PLACE, &json.replace('<', "\\u003c"), 1);
        fs::write(&self.path, page).map_err(|error| unwritable(&self.path, &error))
    }

    fn data(&self) -> Data<'_> {
        let seconds = |nanos: i64| nanos as f64 / 1e9;
        let first = self.columns.first_key_value().map_or(0, |(first, _)| *first);
        let last = self.columns.last_key_value().map_or(-1, |(last, _)| *last);
        let columns = (first..=last).map(|at| self.columns.get(&at).copied().unwrap_or_default());
        let mut reasons: Vec<_> = self
            .reasons
            .iter()
            .map(|((verdict, reason), sum)| ReasonRow {
                verdict,
                stage: sum.stage,
                reason,
                text: sum.text,
                packets: sum.packets,
                bytes: sum.bytes,
            })
            .collect();
        reasons.sort_by_key(|row| std::cmp::Reverse(row.packets));
        let mut rules: Vec<_> = self
            .texts
            .iter()
            .map(|(key, text)| RuleRow {
                rule: &key.1,
                direction: key.0,
                text,
                packets: self.rules.get(key).copied().unwrap_or(0),
            })
            .collect();
        rules.sort_by_key(|row| std::cmp::Reverse(row.packets));
        let mut flows: Vec<_> = self
            .flows
            .iter()
            .map(|(flow, sum)| FlowRow {
                interface: &flow.interface,
                direction: flow.direction.as_str(),
                flow: format!("{} {}", protocol_name(flow.tuple.protocol), flow.tuple),
                verdict: flow.verdict,
                reason: flow.reason,
                rule: &sum.rule,
                packets: sum.packets,
                bytes: sum.bytes,
                first: seconds(sum.first),
                last: seconds(sum.last),
            })
            .collect();
        let key = |row: &FlowRow<'_>| {
            let place = (row.interface.to_owned(), row.direction.to_owned());
            (std::cmp::Reverse(row.packets), row.flow.clone(), place, row.reason.to_owned())
        };
        flows.sort_by_cached_key(key);
        Data {
            version: env!("CARGO_PKG_VERSION"),
            captures: &self.captures,
            begin: seconds(first.saturating_mul(self.width)),
            width: seconds(self.width),
            columns: columns.collect(),
            reasons,
            rules,
            flows,
            unremembered: self.unremembered,
        }
    }
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Io(format!("cannot write {}: {error}", path.display()))
}
