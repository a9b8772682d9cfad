//! Whether a flow is tracked, condition by condition (SEMANTICS 6.2).

use sgwall_packet::Transport;
use sgwall_rules::explain::{Considered, all_ports_rules, any_peer_rules, nearest};
use sgwall_rules::model::Direction;
use sgwall_rules::oracle::Packet;

use super::stages::{Way, facts, name_if_untrackable};
use super::{Condition, StageFacts, StageOutcome};
use crate::pipeline::remote;
use crate::verdict::{Outcome, PassReason};

impl Way<'_> {
    pub(super) fn tracking(&self) -> StageFacts {
        let stage = "tracking";
        if !self.is_admitted_by_rules() {
            let text = match self.is_related() {
                true => "an ICMP error opens no flow",
                false => "its flow is tracked already",
            };
            return facts(stage, StageOutcome::NotApplicable, text);
        }
        let conditions = self.conditions();
        let reverse = conditions.iter().any(|c| c.letter == 'e' && c.holds == Some(true));
        let text = match self.by_rules().outcome {
            Outcome::Pass(PassReason::AllowedUntracked) if reverse => {
                "untracked: seen from its answer, the whole way back is open to everywhere".into()
            }
            Outcome::Pass(PassReason::AllowedUntracked) => {
                "untracked: allowed from everywhere, and the whole way back is open to everywhere"
                    .into()
            }
            outcome => {
                let is_tracked = outcome == Outcome::Pass(PassReason::AllowedTracked);
                let word = if is_tracked { "tracked" } else { "passed by itself, opening no flow" };
                let fails = conditions.iter().find(|c| c.letter != 'e' && c.holds == Some(false));
                match fails {
                    Some(failed) => format!("{word}: {}", failed.text),
                    None => word.to_owned(),
                }
            }
        };
        StageFacts { conditions, ..facts(stage, StageOutcome::Passed, text) }
    }

    /// 6.2 (a) to (e).
    fn conditions(&self) -> Vec<Condition> {
        let question = self.question();
        let Some(name) = name_if_untrackable(question.protocol) else {
            let name = sgwall_rules::model::protocol_name(question.protocol);
            let text = format!("{name} is always tracked, only TCP and UDP may go untracked");
            return vec![Condition { letter: 'a', holds: Some(false), text }];
        };
        let far = remote(self.packet);
        let route = self.interface.route(far).map(|route| route.target.as_str());
        let auto = self.interface.auto_tracked(far);
        let way = route.unwrap_or("no route");
        let forward_r1 = self.any_peer(question, "r1", "it");
        let forward_r2 = self.all_ports(question.direction.reverse(), &name, "r2");
        let forward = forward_r1.0 && forward_r2.0 && !auto;
        vec![
            Condition { letter: 'a', holds: Some(true), text: format!("it is {name}") },
            Condition { letter: 'b', holds: Some(forward_r1.0), text: forward_r1.1 },
            Condition { letter: 'c', holds: Some(forward_r2.0), text: forward_r2.1 },
            Condition {
                letter: 'd',
                holds: Some(!auto),
                text: match auto {
                    true => format!("the way leads over {way}, where flows are always tracked"),
                    false => format!("the way ({way}) does not make it tracked"),
                },
            },
            self.reverse_view(question, &name, forward, auto),
        ]
    }

    /// 6.2 (e): the same, seen from the packet turned round.
    fn reverse_view(&self, question: Packet, name: &str, forward: bool, auto: bool) -> Condition {
        let (src_port, is_opening) = match self.packet.headers.transport {
            Transport::Tcp(tcp) => (tcp.src_port, tcp.flags.is_opening()),
            Transport::Udp { src_port, .. } => (src_port, false),
            _ => (0, true),
        };
        let letter = 'e';
        if forward {
            return Condition { letter, holds: None, text: "not needed: (a) to (d) hold".into() };
        }
        if is_opening {
            let text = "not asked of a SYN, which tells who began";
            return Condition { letter, holds: None, text: text.into() };
        }
        let turned =
            Packet { direction: question.direction.reverse(), selector: src_port, ..question };
        let (has_r1, r1) = self.any_peer(turned, "reversed r1", "its answer");
        let (has_r2, r2) = self.all_ports(question.direction, name, "reversed r2");
        let holds = has_r1 && has_r2 && !auto;
        let text = match (has_r1, has_r2) {
            (true, true) => format!("{r1}; {r2}"),
            (false, _) => r1,
            (true, false) => r2,
        };
        Condition { letter, holds: Some(holds), text }
    }

    /// 6.2 (b): a rule that allows the packet from everywhere.
    fn any_peer(&self, packet: Packet, name: &str, what: &str) -> (bool, String) {
        let rules = any_peer_rules(self.explainer.model, self.groups(), packet);
        let any = any_of(packet.remote.is_ipv6());
        let missing = format!("no {} rule allows {what} with {any}", packet.direction);
        found_or_nearest(&rules, name, &missing)
    }

    /// 6.2 (c): one rule that covers all ports with everywhere.
    fn all_ports(&self, direction: Direction, protocol: &str, name: &str) -> (bool, String) {
        let question = self.question();
        let ipv6 = question.remote.is_ipv6();
        let groups = self.groups();
        let rules =
            all_ports_rules(self.explainer.model, groups, direction, ipv6, question.protocol);
        let any = any_of(ipv6);
        let missing = format!("no {direction} rule alone covers all {protocol} ports with {any}");
        found_or_nearest(&rules, name, &missing)
    }
}

const fn any_of(ipv6: bool) -> &'static str {
    if ipv6 { "::/0" } else { "0.0.0.0/0" }
}

/// Whether a rule matches, and which; else what is missing and which comes nearest.
fn found_or_nearest(rules: &[Considered], name: &str, missing: &str) -> (bool, String) {
    if let Some(found) = rules.iter().find(|rule| rule.matches()) {
        return (true, format!("{name} = {} ({})", found.rule, found.text));
    }
    let text = match nearest(rules).first() {
        Some(near) => {
            let why: Vec<_> = near.mismatches.iter().map(|m| m.text.as_str()).collect();
            format!("{missing}; nearest is {} ({}): {}", near.rule, near.text, why.join(", "))
        }
        None => format!("{missing}; there are none"),
    };
    (false, text)
}
