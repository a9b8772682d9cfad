//! What pipelines have counted, added up: those of a firewall's shards, or the one of a replay.

use std::collections::BTreeMap;

use sgwall_dataplane::counters::Tally;
use sgwall_dataplane::{DropReason, PassReason, Pipeline};
use sgwall_rules::compile::{CompiledPolicy, RuleId};

use crate::engine::{InterfaceStats, ReasonStats, RuleStats, Stats, rule_name};

/// Sums over pipelines that are under one policy.
#[derive(Debug)]
pub struct Counting<'a> {
    policy: &'a CompiledPolicy,
    /// By interface, whether passed, and reason.
    reasons: BTreeMap<(Option<usize>, bool, usize), Tally>,
    /// By rule.
    hits: Vec<u64>,
    /// By interface: flows that gave their place to others, and flows where it has limits.
    evicted: Vec<u64>,
    tracked: Vec<Option<u64>>,
}

impl<'a> Counting<'a> {
    /// Of no pipeline yet.
    #[must_use]
    pub fn new(policy: &'a CompiledPolicy) -> Self {
        let interfaces = policy.interfaces().len();
        Counting {
            policy,
            reasons: BTreeMap::new(),
            hits: vec![0; policy.rules().len()],
            evicted: vec![0; interfaces],
            tracked: vec![None; interfaces],
        }
    }

    /// Adds a pipeline: its flows to `stats`, and its counters here if it is under the policy.
    pub fn add(&mut self, pipeline: &Pipeline, is_under_policy: bool, stats: &mut Stats) {
        let (connections, counters) = (pipeline.connections(), pipeline.counters());
        stats.flows += connections.len() as u64;
        stats.flows_created += connections.counters().created;
        stats.flows_refused += connections.counters().refused;
        stats.flows_evicted += connections.counters().evicted;
        if !is_under_policy {
            return;
        }
        for (index, evicted) in self.evicted.iter_mut().enumerate() {
            *evicted += pipeline.evicted(index);
            // One number for all shards.
            self.tracked[index] = pipeline.flows_at_once(index);
        }
        let interfaces = (0..self.policy.interfaces().len()).map(Some);
        for interface in interfaces.chain([None]) {
            for &reason in PassReason::ALL {
                let tally = counters.passed_at(interface, reason);
                self.add_reason((interface, true, reason as usize), tally);
            }
            for &reason in DropReason::ALL {
                let tally = counters.dropped_at(interface, reason);
                self.add_reason((interface, false, reason as usize), tally);
            }
        }
        for (hits, rule) in self.hits.iter_mut().zip(0..) {
            *hits += counters.hits(RuleId(rule));
        }
    }

    fn add_reason(&mut self, key: (Option<usize>, bool, usize), tally: Tally) {
        if tally.packets > 0 {
            let sum = self.reasons.entry(key).or_default();
            *sum = sum.plus(tally);
        }
    }

    /// Writes the sums by reason, interface and rule.
    pub fn finish(self, stats: &mut Stats) {
        let policy = self.policy;
        stats.reasons = self
            .reasons
            .into_iter()
            .filter_map(|((interface, is_pass, reason), tally)| {
                let (verdict, stage, reason) = match is_pass {
                    true => PassReason::ALL.get(reason).map(|r| ("pass", r.stage(), r.as_str()))?,
                    false => {
                        DropReason::ALL.get(reason).map(|r| ("drop", r.stage(), r.as_str()))?
                    }
                };
                Some(ReasonStats {
                    interface: interface.and_then(|i| Some(policy.interfaces().get(i)?.id.clone())),
                    verdict: verdict.to_owned(),
                    stage: stage.as_str().to_owned(),
                    reason: reason.to_owned(),
                    packets: tally.packets,
                    bytes: tally.bytes,
                })
            })
            .collect();
        let interfaces = policy.interfaces().iter().zip(self.tracked).zip(self.evicted);
        stats.interfaces = interfaces
            .filter(|((_, flows), evicted)| flows.is_some() || *evicted > 0)
            .map(|((interface, flows), evicted)| InterfaceStats {
                interface: interface.id.clone(),
                flows,
                max_flows: interface.flows.max_flows,
                reserved_flows: interface.flows.reserved_flows,
                evicted,
            })
            .collect();
        stats.rules = policy
            .rules()
            .iter()
            .zip(self.hits)
            .map(|(rule, packets)| RuleStats {
                rule: rule_name(rule),
                direction: rule.direction.as_str().to_owned(),
                text: rule.text.clone(),
                packets,
            })
            .collect();
    }
}
