//! Rules of security groups and entries of network ACLs, as blocks and as resources of their own.

use serde_json::Value;

use super::read::Reader;
use super::references::{GROUP, PREFIX_LIST, Wanted};
use super::tree::Resource;
use crate::diagnostic::{Diagnostic, Origin};
use crate::json::{Cursor, again, invalid};
use crate::model::{
    AclAction, Direction, GroupRef, L4Match, NetworkAclEntry, Peer, SecurityGroupRule,
};
use crate::text;

/// Protocols by the names that Terraform's provider takes beside AWS's (IANA "Protocol Numbers").
const PROTOCOLS: &[(&str, &str)] = &[
    ("ah", "51"),
    ("esp", "50"),
    ("gre", "47"),
    ("igmp", "2"),
    ("ipv6-icmp", "58"),
    ("ospf", "89"),
    ("sctp", "132"),
    ("vrrp", "112"),
];

/// The peers of a block that a plan knows only when it is applied: which of them, and what they are.
struct Unknown {
    key: &'static str,
    ids: Vec<String>,
}

impl<'a> Reader<'a, '_, '_> {
    /// The blocks of a group in one direction. Empty where nobody wrote any.
    pub(super) fn inline_rules(
        &mut self,
        group: &Resource<'a>,
        id: &str,
        direction: Direction,
    ) -> Vec<SecurityGroupRule> {
        let key = direction.as_str();
        let c = self.cursor(group);
        let unknown = self.unknown(group).and_then(|unknown| unknown.get(key));
        if unknown == Some(&Value::Bool(true)) {
            if self.document.expression(group, key).is_some() {
                self.unresolved(&c.at.field(key), "its rules are", &[]);
            }
            return Vec::new();
        }
        let blocks = c.list(key, self.out);
        let late = |n: usize, key: &str| {
            unknown.and_then(|u| u.get(n)?.get(key)) == Some(&Value::Bool(true))
        };
        let known = |key: &str| -> Vec<&str> {
            let lists = blocks.iter().filter_map(|block| block.value.get(key)?.as_array());
            lists.flatten().filter_map(Value::as_str).collect()
        };
        let mut peers = Vec::new();
        for (key_of_peers, wanted) in [("security_groups", GROUP), ("prefix_list_ids", PREFIX_LIST)]
        {
            let count = (0..blocks.len()).filter(|&n| late(n, key_of_peers)).count();
            if count > 0 {
                let known = known(key_of_peers);
                let ids = self.late_peers(group, (key, key_of_peers), wanted, count, &known);
                peers.push(Unknown { key: key_of_peers, ids });
            }
        }
        let mut rules = Vec::new();
        for (n, block) in blocks.iter().enumerate() {
            for key in ["cidr_blocks", "ipv6_cidr_blocks", "from_port", "to_port", "protocol"] {
                if late(n, key) {
                    self.unresolved(&block.at.field(key), "it is", &[]);
                }
            }
            let late: Vec<_> = peers.iter().filter(|unknown| late(n, unknown.key)).collect();
            let Some(matches) = self.matches(block, "protocol") else { continue };
            let described = description(block, self.out);
            let mut add = |peer: Peer, origin: Origin| {
                let id = format!("{direction}-{}", rules.len() + 1);
                let description = described.clone();
                rules.push(SecurityGroupRule { id, matches, peer, description, origin });
            };
            for (peer, origin) in ranges(block, self.out) {
                add(peer, origin);
            }
            for unknown in late {
                for id in &unknown.ids {
                    let peer = match unknown.key {
                        "security_groups" => Peer::Group(GroupRef::local(id)),
                        _ => Peer::PrefixList(id.clone()),
                    };
                    add(peer, block.at.field(unknown.key));
                }
            }
            for list in block.list("prefix_list_ids", self.out) {
                let Some(id) = string(&list, self.out) else { continue };
                add(Peer::PrefixList(id.to_owned()), list.at);
            }
            for other in block.list("security_groups", self.out) {
                let Some(text) = string(&other, self.out) else { continue };
                add(Peer::Group(group_ref(text)), other.at);
            }
            if block.flag("self", self.out) == Some(true) {
                add(Peer::Group(GroupRef::local(id)), block.at.field("self"));
            }
        }
        rules
    }

    /// What the peers of blocks are that are unknown until the plan is applied. Their references
    /// stand together, whichever block they are of: what no other block has is theirs, and if they
    /// are several, each must have the one that there is.
    fn late_peers(
        &mut self,
        group: &Resource<'a>,
        (direction, key): (&str, &str),
        wanted: Wanted,
        blocks: usize,
        known: &[&str],
    ) -> Vec<String> {
        let at = self.cursor(group).at.field(direction);
        let Some(found) = self.references.attribute(group, direction, wanted) else {
            self.unresolved(&at, &format!("some of its {key} are"), &[]);
            return Vec::new();
        };
        let mut ids: Vec<String> = found.ids(self.document).into_iter().map(|(id, _)| id).collect();
        ids.retain(|id| !known.contains(&id.as_str()));
        if ids.is_empty() || (ids.len() > 1 && (found.is_vague || blocks > 1)) {
            let what = format!("the {key} of {blocks} of its blocks are");
            self.unresolved(&at, &what, &ids);
            return Vec::new();
        }
        ids
    }

    /// Rules that are a resource: the group, the direction, and one rule for each peer.
    pub(super) fn rule(
        &mut self,
        resource: &Resource<'a>,
    ) -> Option<(String, Direction, Vec<SecurityGroupRule>)> {
        let c = self.cursor(resource);
        let is_old = resource.kind == "aws_security_group_rule";
        let direction = match resource.kind {
            "aws_vpc_security_group_ingress_rule" => Direction::Ingress,
            "aws_vpc_security_group_egress_rule" => Direction::Egress,
            _ => match c.required("type", self.out)? {
                "ingress" => Direction::Ingress,
                "egress" => Direction::Egress,
                other => {
                    let message = format!("{other:?} is no type of a rule");
                    self.out.push(invalid(&c.at.field("type"), message, again(&c.at)));
                    return None;
                }
            },
        };
        let group = self.needed(resource, "security_group_id", GROUP)?;
        let protocol = if is_old { "protocol" } else { "ip_protocol" };
        let late = ["cidr_blocks", "ipv6_cidr_blocks", "cidr_ipv4", "cidr_ipv6", "from_port"];
        for key in late.into_iter().chain(["to_port", protocol]) {
            if self.is_unknown(resource, key) && self.document.expression(resource, key).is_some() {
                self.unresolved(&c.at.field(key), "it is", &[]);
            }
        }
        let matches = self.matches(&c, protocol)?;
        let mut peers = Vec::new();
        if is_old {
            peers.extend(ranges(&c, self.out));
            for id in self.many(resource, "prefix_list_ids", PREFIX_LIST).unwrap_or_default() {
                peers.push((Peer::PrefixList(id), c.at.field("prefix_list_ids")));
            }
            if c.flag("self", self.out) == Some(true) {
                peers.push((Peer::Group(GroupRef::local(&group)), c.at.field("self")));
            }
        } else {
            for (key, is_v6) in [("cidr_ipv4", false), ("cidr_ipv6", true)] {
                if resource.text(key).is_some() {
                    let cidr = c.cidr(key, Some(is_v6), self.out);
                    peers.extend(cidr.map(|cidr| (Peer::Cidr(cidr), c.at.field(key))));
                }
            }
            if let Some(id) = self.one(resource, "prefix_list_id", PREFIX_LIST) {
                peers.push((Peer::PrefixList(id), c.at.field("prefix_list_id")));
            }
        }
        let key = if is_old { "source_security_group_id" } else { "referenced_security_group_id" };
        // A group of its own that a rule names is in the state as `self` as well.
        if let Some(text) = self.one(resource, key, GROUP)
            && !peers.iter().any(|(peer, _)| *peer == Peer::Group(group_ref(&text)))
        {
            peers.push((Peer::Group(group_ref(&text)), c.at.field(key)));
        }
        let id = ["security_group_rule_id", "id"].into_iter().find_map(|key| {
            resource.text(key).filter(|id| id.starts_with("sgr-") && peers.len() == 1)
        });
        let id = id.map_or_else(|| resource.address.clone(), str::to_owned);
        let name = |n: usize| if n == 0 { id.clone() } else { format!("{id}/{}", n + 1) };
        let described = description(&c, self.out);
        let rules = peers.into_iter().enumerate().map(|(n, (peer, origin))| SecurityGroupRule {
            id: name(n),
            matches,
            peer,
            description: described.clone(),
            origin,
        });
        Some((group, direction, rules.collect()))
    }

    /// The blocks of an ACL in one direction.
    pub(super) fn inline_entries(
        &mut self,
        acl: &Resource<'a>,
        direction: Direction,
    ) -> Vec<NetworkAclEntry> {
        let key = direction.as_str();
        let c = self.cursor(acl);
        if self.is_unknown(acl, key) {
            if self.document.expression(acl, key).is_some() {
                self.unresolved(&c.at.field(key), "its entries are", &[]);
            }
            return Vec::new();
        }
        let blocks = c.list(key, self.out);
        blocks.iter().filter_map(|block| self.entry(block, "rule_no", "action")).collect()
    }

    /// One entry, a block or a resource; `None` for the final deny, which every ACL has.
    pub(super) fn entry(
        &mut self,
        c: &Cursor<'a>,
        number: &str,
        action: &str,
    ) -> Option<NetworkAclEntry> {
        let at = c.at.clone();
        let rule_number = match self.whole(c, number) {
            Some(32767 | 32768) => return None,
            Some(n @ 1..=32766) => n as u16,
            Some(n) => {
                let message = format!("rule number {n} is not within 1-32766");
                self.out.push(invalid(&at.field(number), message, "choose another"));
                return None;
            }
            None => {
                c.required(number, self.out);
                return None;
            }
        };
        let action = match c.required(action, self.out)? {
            "allow" => AclAction::Allow,
            "deny" => AclAction::Deny,
            other => {
                let message = format!("{other:?} is no action");
                let mend = "write \"allow\" or \"deny\"";
                self.out.push(invalid(&at.field(action), message, mend));
                return None;
            }
        };
        let said =
            |key: &str| c.value.get(key).is_some_and(|v| !v.is_null() && v.as_str() != Some(""));
        let cidr = match (said("cidr_block"), said("ipv6_cidr_block")) {
            (true, false) => c.cidr("cidr_block", Some(false), self.out)?,
            (false, true) => c.cidr("ipv6_cidr_block", Some(true), self.out)?,
            (both, _) => {
                let message = match both {
                    true => "the entry has both an IPv4 and an IPv6 range",
                    false => {
                        "the entry has no range, or one that is unknown until the plan is applied"
                    }
                };
                let mend = "give exactly one of cidr_block and ipv6_cidr_block, written out";
                self.out.push(Diagnostic::error("MissingParameter", &at, message, mend));
                return None;
            }
        };
        let protocol = self.protocol(c, "protocol")?;
        let mut number = |key: &str| self.whole(c, key);
        let ports = (number("from_port"), number("to_port"));
        // What is left out is 0 to the provider.
        let icmp = (number("icmp_type").or(Some(0)), number("icmp_code").or(Some(0)));
        let icmp = if icmp.0 == Some(-1) { (None, None) } else { icmp };
        let matches = self.l4(c, "protocol", &protocol, ports, icmp)?;
        Some(NetworkAclEntry { rule_number, action, matches, cidr, origin: at })
    }

    fn matches(&mut self, c: &Cursor<'a>, key: &str) -> Option<L4Match> {
        let protocol = self.protocol(c, key)?;
        let ports = (self.whole(c, "from_port"), self.whole(c, "to_port"));
        let icmp = if ports.0 == Some(-1) { (None, None) } else { ports };
        self.l4(c, key, &protocol, ports, icmp)
    }

    fn l4(
        &mut self,
        c: &Cursor<'a>,
        key: &str,
        protocol: &str,
        ports: (Option<i64>, Option<i64>),
        icmp: (Option<i64>, Option<i64>),
    ) -> Option<L4Match> {
        match text::l4_of_numbers(protocol, ports, icmp) {
            Ok(matches) => Some(matches),
            Err(message) => {
                let at = match text::protocol_number(protocol) {
                    Err(_) => c.at.field(key),
                    Ok(_) => c.at.clone(),
                };
                self.out.push(invalid(&at, message, "AWS would not accept it: correct it"));
                None
            }
        }
    }

    /// A protocol by name or number, as AWS writes it.
    fn protocol(&mut self, c: &Cursor<'a>, key: &str) -> Option<String> {
        let name = match c.value.get(key) {
            Some(Value::Number(number)) => number.to_string(),
            _ => c.required(key, self.out)?.to_ascii_lowercase(),
        };
        let known = PROTOCOLS.iter().find(|(known, _)| *known == name);
        Some(known.map_or(name, |(_, number)| (*number).to_owned()))
    }

    /// A whole number, also one that is written as a string.
    fn whole(&mut self, c: &Cursor<'a>, key: &str) -> Option<i64> {
        match c.value.get(key) {
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => {
                let number = text.parse().ok();
                if number.is_none() {
                    let message = format!("{text:?} is no whole number");
                    self.out.push(invalid(&c.at.field(key), message, again(&c.at)));
                }
                number
            }
            _ => c.number(key, self.out),
        }
    }
}

/// `cidr_blocks` and `ipv6_cidr_blocks`.
fn ranges(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Vec<(Peer, Origin)> {
    let mut peers = Vec::new();
    for (key, is_v6) in [("cidr_blocks", false), ("ipv6_cidr_blocks", true)] {
        for element in c.list(key, out) {
            if element.value.is_null() {
                out.push(super::read::unresolved(&element.at, "it is", &[]));
                continue;
            }
            let cidr = element.cidr_itself(Some(is_v6), out);
            peers.extend(cidr.map(|cidr| (Peer::Cidr(cidr), element.at)));
        }
    }
    peers
}

fn string<'a>(c: &Cursor<'a>, out: &mut Vec<Diagnostic>) -> Option<&'a str> {
    let text = c.value.as_str();
    if text.is_none() {
        c.expected("a string", out);
    }
    text
}

fn description(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<String> {
    c.text("description", out).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// `sg-1`, or `123456789012/sg-1` for a group of another account.
fn group_ref(text: &str) -> GroupRef {
    match text.split_once('/') {
        Some((owner, id)) if owner.bytes().all(|b| b.is_ascii_digit()) => {
            GroupRef { owner: Some(owner.to_owned()), ..GroupRef::local(id) }
        }
        _ => GroupRef::local(text),
    }
}
