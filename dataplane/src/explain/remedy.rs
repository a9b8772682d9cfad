//! What would have let a dropped packet through the stage that dropped it.

use sgwall_conntrack::Full;
use sgwall_packet::Direction;
use sgwall_rules::explain::{
    Considered, acl_entries, group_rules, nearest, smallest_entry, smallest_rule,
};

use super::stages::question;
use super::{Explainer, Remedy};
use crate::pipeline::{Effect, PacketContext, is_direct, remote};
use crate::verdict::{DropReason, Outcome, Verdict};

/// Rules told of as near.
const NEAREST: usize = 3;

impl Explainer<'_> {
    /// For a packet that `verdict` drops.
    pub(super) fn remedy(
        &self,
        packet: &PacketContext<'_>,
        verdict: Verdict,
        effect: Effect,
    ) -> Option<Remedy> {
        let Outcome::Drop(reason) = verdict.outcome else { return None };
        let text = |text: &str| {
            let (owners, nearest) = (Vec::new(), Vec::new());
            Some(Remedy { text: text.to_owned(), rule: None, owners, nearest })
        };
        match reason {
            DropReason::NoRule => self.missing_rule(packet),
            DropReason::AclDeny | DropReason::AclNoMatch => self.missing_entry(packet),
            DropReason::SrcDstCheck => text(match packet.direction {
                Direction::Ingress => {
                    "send to an address of the interface, or, if it routes for others, set \
                     source_dest_check = false"
                }
                Direction::Egress => {
                    "send from an address of the interface, or, if it routes for others, set \
                     source_dest_check = false"
                }
            }),
            DropReason::MtuExceeded => {
                let mtu = verdict.mtu?;
                text(&match packet.headers.is_ipv6() {
                    true => format!("send at most {mtu} bytes"),
                    false => format!("send at most {mtu} bytes, or without df, to be fragmented"),
                })
            }
            DropReason::ConntrackFull => text(match effect {
                Effect::Refused(Full::Cap) => {
                    "let flows of the interface end, raise its max_flows, or open rules both ways \
                     to everywhere"
                }
                _ => "let flows end, allow more of them, or open rules both ways to everywhere",
            }),
            _ => None,
        }
    }

    fn missing_rule(&self, packet: &PacketContext<'_>) -> Option<Remedy> {
        let interface = self.compiled.interfaces().get(packet.interface)?;
        let groups = interface.group_ids_with(remote(packet));
        let is_direct = is_direct(self.compiled, interface, packet);
        let considered = group_rules(self.model, groups, question(packet), is_direct);
        let text = match groups {
            [] => format!("attach a group to {} that has this rule", interface.id),
            [one] => format!("add this rule to {one}"),
            many => format!("add this rule to one of {}", many.join(", ")),
        };
        Some(Remedy {
            text,
            rule: Some(smallest_rule(question(packet))),
            owners: groups.to_vec(),
            nearest: first_few(&considered),
        })
    }

    fn missing_entry(&self, packet: &PacketContext<'_>) -> Option<Remedy> {
        let interface = self.compiled.interfaces().get(packet.interface)?;
        let id = interface.acl_id();
        let acl = id.and_then(|id| self.model.network_acls.iter().find(|acl| acl.id == id));
        let Some(acl) = acl else {
            let text = "describe the subnet and its network ACL in the policy".to_owned();
            return Some(Remedy { text, rule: None, owners: Vec::new(), nearest: Vec::new() });
        };
        let rule = smallest_entry(acl, question(packet));
        let text = match rule {
            Some(_) => format!(
                "add this entry to {}; an ACL is stateless, so see to the answers too",
                acl.id
            ),
            None => format!("no number is free before the entry that decides: renumber {}", acl.id),
        };
        let considered = acl_entries(acl, question(packet));
        let owners = vec![acl.id.clone()];
        Some(Remedy { text, rule, owners, nearest: first_few(&considered) })
    }
}

fn first_few(considered: &[Considered]) -> Vec<Considered> {
    nearest(considered).into_iter().take(NEAREST).cloned().collect()
}
