//! Terraform's resources, turned into the parts of a policy. Attribute names are those of the AWS
//! provider's documentation.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::references::{ACL, Found, GROUP, INTERFACE, PREFIX_LIST, Resolver, SUBNET, VPC, Wanted};
use super::tree::{Document, Resource};
use crate::aws::Parts;
use crate::diagnostic::{Diagnostic, Origin};
use crate::json::Cursor;
use crate::model::{
    Direction, FlowLimits, Interface, L4Match, NetworkAcl, Peer, PrefixList, SecurityGroup,
    SecurityGroupRule, Subnet, Timeouts, Vpc,
};
use crate::text;

/// The rules that have resources of their own.
const RULES: [&str; 3] = [
    "aws_security_group_rule",
    "aws_vpc_security_group_ingress_rule",
    "aws_vpc_security_group_egress_rule",
];

/// Reads a document.
pub(super) struct Reader<'a, 'd, 'o> {
    pub(super) document: &'d Document<'a>,
    pub(super) references: Resolver<'a, 'd>,
    pub(super) out: &'o mut Vec<Diagnostic>,
    /// What the plan does to each resource, by address.
    changes: HashMap<&'a str, &'a Value>,
    /// What it takes away or changes, by kind and by what it belonged to: attributes before.
    gone: HashMap<(&'a str, &'a str), Vec<&'a Value>>,
}

impl<'a, 'd, 'o> Reader<'a, 'd, 'o> {
    pub(super) fn new(document: &'d Document<'a>, out: &'o mut Vec<Diagnostic>) -> Self {
        let changes = document.top.get("resource_changes").and_then(Value::as_array);
        let changes = changes.into_iter().flatten().filter_map(|change| {
            let address = change.get("address")?.as_str()?;
            // What was replaced and not yet destroyed has the same address.
            change.get("deposed").is_none().then_some((address, change.get("change")?))
        });
        let references = Resolver::new(document);
        Reader { document, references, out, changes: changes.collect(), gone: gone(document.top) }
    }

    pub(super) fn read(mut self) -> Parts {
        let mut parts = Parts::default();
        self.networks(&mut parts);
        self.prefix_lists(&mut parts);
        self.groups(&mut parts);
        self.acls(&mut parts);
        self.interfaces(&mut parts);
        let assumed = self.references.assumed.take();
        if let Some(first) = assumed.first() {
            self.out.push(Diagnostic::note(
                "assumed-index",
                &Origin::new(&self.document.source, first.as_str()),
                format!(
                    "{} computed {} taken to be the instance's own each.key, each.value or \
                     count.index: a plan does not tell",
                    assumed.len(),
                    if assumed.len() == 1 { "index is" } else { "indices, this and others, are" },
                ),
                "",
            ));
        }
        parts
    }

    /// The resources of some types; managed ones, unless `with_data`.
    fn of(&self, kinds: &[&str], with_data: bool) -> Vec<&'d Resource<'a>> {
        let document = self.document;
        let is_one = |r: &&Resource<'a>| kinds.contains(&r.kind) && (with_data || !r.is_data);
        document.resources.iter().filter(is_one).collect()
    }

    pub(super) fn cursor(&self, resource: &Resource<'a>) -> Cursor<'a> {
        Cursor { at: self.document.at(resource), value: resource.values }
    }

    /// Which attributes of a resource are unknown until the plan is applied.
    pub(super) fn unknown(&self, resource: &Resource<'a>) -> Option<&'a Value> {
        self.changes.get(resource.address.as_str())?.get("after_unknown")
    }

    pub(super) fn is_unknown(&self, resource: &Resource<'a>, attribute: &str) -> bool {
        self.unknown(resource).and_then(|u| u.get(attribute)) == Some(&Value::Bool(true))
    }

    pub(super) fn unresolved(&mut self, at: &Origin, what: &str, ids: &[String]) {
        self.out.push(unresolved(at, what, ids));
    }

    /// The id that an attribute names; `None` where nobody wrote it, and where it is reported.
    pub(super) fn one(
        &mut self,
        resource: &Resource<'a>,
        attribute: &str,
        wanted: Wanted,
    ) -> Option<String> {
        let c = self.cursor(resource);
        if c.get(attribute).is_some() {
            return c.text(attribute, self.out).filter(|id| !id.is_empty()).map(str::to_owned);
        }
        if !self.document.is_plan || resource.values.get(attribute).is_some() {
            return None;
        }
        let ids = self.references.attribute(resource, attribute, wanted)?.ids(self.document);
        // It would be known if what it names were.
        let unknown: Vec<_> = ids.iter().filter(|(_, is_unknown)| *is_unknown).collect();
        let choices = if unknown.is_empty() { ids.iter().collect() } else { unknown };
        match choices[..] {
            [(id, _)] => Some(id.clone()),
            _ => {
                let choices: Vec<_> = choices.iter().map(|(id, _)| id.clone()).collect();
                self.unresolved(&c.at.field(attribute), "it is", &choices);
                None
            }
        }
    }

    /// The same where it must be there.
    pub(super) fn needed(
        &mut self,
        resource: &Resource<'a>,
        attribute: &str,
        wanted: Wanted,
    ) -> Option<String> {
        let before = self.out.len();
        let id = self.one(resource, attribute, wanted);
        if id.is_none() && self.out.len() == before {
            let at = self.document.at(resource);
            self.out.push(Diagnostic::error(
                "MissingParameter",
                &at,
                format!("{attribute:?} is missing"),
                crate::json::again(&at),
            ));
        }
        id
    }

    /// The ids that an attribute names; `None` where nobody wrote it, and where it is reported.
    pub(super) fn many(
        &mut self,
        resource: &Resource<'a>,
        attribute: &str,
        wanted: Wanted,
    ) -> Option<Vec<String>> {
        let c = self.cursor(resource);
        let has_gap = |list: &Vec<Value>| list.iter().any(Value::is_null);
        let list = c.get(attribute).and_then(|list| list.value.as_array());
        if c.get(attribute).is_some() && !(self.document.is_plan && list.is_some_and(has_gap)) {
            let mut ids = Vec::new();
            for element in c.list(attribute, self.out) {
                match element.value.as_str() {
                    Some(id) => ids.push(id.to_owned()),
                    None => element.expected("a string", self.out),
                }
            }
            return Some(ids);
        }
        if !self.document.is_plan || resource.values.get(attribute).is_some_and(Value::is_null) {
            return None;
        }
        let found = self.references.attribute(resource, attribute, wanted)?;
        let Found { is_vague, .. } = found;
        let ids: Vec<String> = found.ids(self.document).into_iter().map(|(id, _)| id).collect();
        if ids.is_empty() || (is_vague && ids.len() > 1) {
            self.unresolved(&c.at.field(attribute), "it is", &ids);
            return None;
        }
        Some(ids)
    }

    fn networks(&mut self, parts: &mut Parts) {
        for resource in self.of(VPC.kinds, true) {
            let c = self.cursor(resource);
            let mut cidrs = Vec::new();
            let mut add = |key: &str, is_v6: bool, out: &mut _| {
                if resource.text(key).is_some() {
                    let cidr = c.cidr(key, Some(is_v6), out);
                    cidrs.extend(cidr.filter(|cidr| !cidrs.contains(cidr)));
                }
            };
            add("cidr_block", false, self.out);
            add("ipv6_cidr_block", true, self.out);
            for association in c.list("cidr_block_associations", self.out) {
                let cidr = association.cidr("cidr_block", Some(false), self.out);
                cidrs.extend(cidr.filter(|cidr| !cidrs.contains(cidr)));
            }
            let origin = c.at;
            parts.vpcs.push(Vpc { id: resource.id(), cidrs, classic_link: false, origin });
        }
        for (kind, key) in [
            ("aws_vpc_ipv4_cidr_block_association", "cidr_block"),
            ("aws_vpc_ipv6_cidr_block_association", "ipv6_cidr_block"),
        ] {
            for resource in self.of(&[kind], false) {
                let Some(id) = self.needed(resource, "vpc_id", VPC) else { continue };
                let c = self.cursor(resource);
                let Some(cidr) = c.cidr(key, Some(key != "cidr_block"), self.out) else { continue };
                if let Some(vpc) = parts.vpcs.iter_mut().find(|vpc| vpc.id == id)
                    && !vpc.cidrs.contains(&cidr)
                {
                    vpc.cidrs.push(cidr);
                }
            }
        }
        for resource in self.of(SUBNET.kinds, true) {
            let vpc = self.vpc(resource);
            let c = self.cursor(resource);
            let mut cidrs = Vec::new();
            for (key, is_v6) in [("cidr_block", false), ("ipv6_cidr_block", true)] {
                if resource.text(key).is_some() {
                    cidrs.extend(c.cidr(key, Some(is_v6), self.out));
                }
            }
            let (id, origin) = (resource.id(), c.at);
            let (network_acl, routes) = (None, Vec::new());
            parts.subnets.push(Subnet { id, vpc, cidrs, network_acl, routes, origin });
        }
    }

    /// The VPC of a resource; where nobody named one, AWS takes the Region's default VPC.
    fn vpc(&mut self, resource: &Resource<'a>) -> String {
        let named = self.one(resource, "vpc_id", VPC);
        named.unwrap_or_else(|| {
            let default = self.of(&["aws_default_vpc"], false);
            default.first().map_or_else(|| "default-vpc".to_owned(), |vpc| vpc.id())
        })
    }

    fn prefix_lists(&mut self, parts: &mut Parts) {
        for resource in self.of(&["aws_ec2_managed_prefix_list", "aws_prefix_list"], true) {
            let c = self.cursor(resource);
            let key = if resource.kind == "aws_prefix_list" { "cidr_blocks" } else { "entry" };
            let blocks = match resource.is_data && key == "entry" {
                true => c.list("entries", self.out),
                false => c.list(key, self.out),
            };
            if self.is_unknown(resource, key) && self.document.expression(resource, key).is_some() {
                self.unresolved(&c.at.field(key), "its entries are", &[]);
            }
            let mut entries = Vec::new();
            for block in blocks {
                let cidr = match block.value.is_string() {
                    true => block.cidr_itself(None, self.out),
                    false => self.range(&block),
                };
                entries.extend(cidr);
            }
            if self.document.expression(resource, key).is_none() {
                let gone = self.gone("aws_ec2_managed_prefix_list_entry", &resource.id());
                let gone: Vec<IpNet> = gone
                    .into_iter()
                    .filter_map(|entry| text::cidr(entry.get("cidr")?.as_str()?).ok())
                    .map(|(cidr, _)| cidr)
                    .collect();
                entries.retain(|cidr| !gone.contains(cidr));
            }
            parts.prefix_lists.push(PrefixList {
                id: resource.id(),
                name: resource.text("name").map(str::to_owned),
                max_entries: c.number("max_entries", self.out).and_then(|n| u32::try_from(n).ok()),
                entries: Some(entries),
                origin: c.at,
            });
        }
        for resource in self.of(&["aws_ec2_managed_prefix_list_entry"], false) {
            let Some(id) = self.needed(resource, "prefix_list_id", PREFIX_LIST) else { continue };
            let Some(cidr) = self.range(&self.cursor(resource)) else { continue };
            let list = parts.prefix_lists.iter_mut().find(|list| list.id == id);
            if let Some(entries) = list.and_then(|list| list.entries.as_mut())
                && !entries.contains(&cidr)
            {
                entries.push(cidr);
            }
        }
    }

    /// The range of an entry, which must be known.
    fn range(&mut self, c: &Cursor<'a>) -> Option<IpNet> {
        if c.get("cidr").is_none() {
            self.unresolved(&c.at.field("cidr"), "it is", &[]);
        }
        c.cidr("cidr", None, self.out)
    }

    fn groups(&mut self, parts: &mut Parts) {
        let first = parts.groups.len();
        for resource in self.of(GROUP.kinds, false) {
            let id = resource.id();
            let vpc = self.vpc(resource);
            let name =
                resource.text("name").map_or_else(|| resource.address.clone(), str::to_owned);
            let is_default = resource.kind == "aws_default_security_group" || name == "default";
            // AWS's own words.
            let of_default = if is_default { "default VPC security group" } else { "" };
            let mut group = SecurityGroup {
                description: resource.text("description").unwrap_or(of_default).to_owned(),
                name: if is_default { "default".to_owned() } else { name },
                vpc: Some(vpc),
                owner: resource.text("owner_id").map(str::to_owned),
                is_default,
                ingress: self.inline_rules(resource, &id, Direction::Ingress),
                egress: self.inline_rules(resource, &id, Direction::Egress),
                origin: self.document.at(resource),
                id,
            };
            let gone = self.gone_rules(&group.id);
            for (direction, rules) in
                [(Direction::Ingress, &mut group.ingress), (Direction::Egress, &mut group.egress)]
            {
                // What nobody wrote here is what AWS had before the plan.
                if self.document.expression(resource, direction.as_str()).is_none() {
                    let is_gone = |rule: &SecurityGroupRule| {
                        gone.contains(&(direction, rule.matches, rule.peer.clone()))
                    };
                    rules.retain(|rule| !is_gone(rule));
                }
            }
            parts.groups.push(group);
        }
        let groups = parts.groups.iter().enumerate().skip(first).rev();
        let by_id: HashMap<String, usize> =
            groups.map(|(n, group)| (group.id.clone(), n)).collect();
        for resource in self.of(&RULES, false) {
            let Some((id, direction, rules)) = self.rule(resource) else { continue };
            let Some(group) = by_id.get(&id).map(|&n| &mut parts.groups[n]) else {
                let at = self.document.at(resource);
                self.out.push(Diagnostic::warning(
                    "InvalidGroup.NotFound",
                    &at,
                    format!("the security group {id:?} is outside the configuration: its rule is left out"),
                    "give the state or plan of the group as well",
                ));
                continue;
            };
            let all = match direction {
                Direction::Ingress => &mut group.ingress,
                Direction::Egress => &mut group.egress,
            };
            for rule in rules {
                // Once it is applied, a rule stands with its group as well.
                match all.iter_mut().find(|known| known.identity() == rule.identity()) {
                    Some(known) => *known = rule,
                    None => all.push(rule),
                }
            }
        }
    }

    /// What the plan takes away or changes of a kind: the attributes before, of resources that
    /// belonged to `owner`.
    fn gone(&self, kind: &'static str, owner: &str) -> Vec<&'a Value> {
        self.gone.get(&(kind, owner)).cloned().unwrap_or_default()
    }

    fn gone_rules(&mut self, group: &str) -> Vec<(Direction, L4Match, Peer)> {
        let mut all = Vec::new();
        for kind in RULES {
            for before in self.gone(kind, group) {
                let resource = Resource {
                    address: String::new(),
                    module: Vec::new(),
                    base: String::new(),
                    kind,
                    key: None,
                    is_data: false,
                    values: before,
                };
                // What was in force is no matter of complaint.
                let said = self.out.len();
                let read = self.rule(&resource);
                self.out.truncate(said);
                let Some((_, direction, rules)) = read else { continue };
                all.extend(rules.into_iter().map(|rule| (direction, rule.matches, rule.peer)));
            }
        }
        all
    }

    fn acls(&mut self, parts: &mut Parts) {
        let first = parts.acls.len();
        for resource in self.of(ACL.kinds, false) {
            let is_default = resource.kind == "aws_default_network_acl";
            let id = match resource.text("id").or(resource.text("default_network_acl_id")) {
                Some(id) => id.to_owned(),
                None => resource.address.clone(),
            };
            // The default ACL names its VPC by the ACL that the VPC has.
            let key = if is_default && resource.text("vpc_id").is_none() {
                "default_network_acl_id"
            } else {
                "vpc_id"
            };
            let vpc = match (is_default, resource.text("vpc_id"), resource.text(key)) {
                (true, None, Some(acl)) => self
                    .of(VPC.kinds, true)
                    .into_iter()
                    .find(|vpc| vpc.text("default_network_acl_id") == Some(acl))
                    .map(Resource::id),
                (true, None, None) => self.one(resource, key, VPC_OF_DEFAULT).map(|id| {
                    id.strip_suffix(".default_network_acl_id").map_or(id.clone(), str::to_owned)
                }),
                _ => self.one(resource, "vpc_id", VPC),
            };
            let mut acl = NetworkAcl {
                ingress: self.inline_entries(resource, Direction::Ingress),
                egress: self.inline_entries(resource, Direction::Egress),
                origin: self.document.at(resource),
                id,
                vpc,
                is_default,
            };
            let gone = self.gone("aws_network_acl_rule", &acl.id);
            for (is_egress, entries) in [(false, &mut acl.ingress), (true, &mut acl.egress)] {
                let key = if is_egress { "egress" } else { "ingress" };
                if self.document.expression(resource, key).is_some() {
                    continue;
                }
                entries.retain(|entry| {
                    !gone.iter().any(|before| {
                        before.get("rule_number").and_then(Value::as_u64)
                            == Some(entry.rule_number.into())
                            && before.get("egress").and_then(Value::as_bool).unwrap_or(false)
                                == is_egress
                    })
                });
            }
            let subnets = self.many(resource, "subnet_ids", SUBNET).unwrap_or_default();
            // The subnets of the default ACL are those that no other has.
            parts.acls.push((acl, if is_default { Vec::new() } else { subnets }));
        }
        for resource in self.of(&["aws_network_acl_rule"], false) {
            let Some(id) = self.needed(resource, "network_acl_id", ACL) else { continue };
            let c = self.cursor(resource);
            let is_egress = c.flag("egress", self.out).unwrap_or(false);
            let Some(entry) = self.entry(&c, "rule_number", "rule_action") else { continue };
            let Some((acl, _)) = parts.acls[first..].iter_mut().find(|(acl, _)| acl.id == id)
            else {
                self.out.push(Diagnostic::warning(
                    "InvalidNetworkAclID.NotFound",
                    &c.at,
                    format!(
                        "the network ACL {id:?} is outside the configuration: its entry is left out"
                    ),
                    "give the state or plan of the ACL as well",
                ));
                continue;
            };
            let entries = if is_egress { &mut acl.egress } else { &mut acl.ingress };
            match entries.iter_mut().find(|known| known.rule_number == entry.rule_number) {
                Some(known) => *known = entry,
                None => entries.push(entry),
            }
        }
        for resource in self.of(&["aws_network_acl_association"], false) {
            let acl = self.needed(resource, "network_acl_id", ACL);
            let subnet = self.needed(resource, "subnet_id", SUBNET);
            let (Some(id), Some(subnet)) = (acl, subnet) else { continue };
            // An association takes the place of the one before.
            for (acl, subnets) in &mut parts.acls[first..] {
                subnets.retain(|known| *known != subnet);
                if acl.id == id {
                    subnets.push(subnet.clone());
                }
            }
        }
    }

    fn interfaces(&mut self, parts: &mut Parts) {
        let first = parts.interfaces.len();
        for resource in self.of(&["aws_network_interface"], false) {
            let lists: &[&str] = match resource.values.get("private_ip_list_enabled") {
                Some(Value::Bool(true)) => {
                    &["private_ip_list", "ipv6_address_list", "ipv6_addresses"]
                }
                _ => &["private_ips", "ipv6_addresses"],
            };
            let interface =
                self.interface(resource, resource.id(), "security_groups", lists, parts);
            parts.interfaces.extend(interface);
        }
        for resource in self.of(&["aws_instance"], false) {
            let attached = self.cursor(resource).list("network_interface", self.out);
            let primary = resource.text("primary_network_interface_id");
            let known = |interface: &&mut Interface| {
                let of_block = |block: &Cursor<'_>| {
                    block.value.get("network_interface_id").and_then(Value::as_str)
                        == Some(&*interface.id)
                };
                primary == Some(&*interface.id) || attached.iter().any(of_block)
            };
            if let Some(interface) = parts.interfaces[first..].iter_mut().find(known) {
                interface.instance = Some(resource.id());
                interface.instance_type = resource.text("instance_type").map(str::to_owned);
                continue;
            }
            if self.document.expression(resource, "network_interface").is_some() {
                continue;
            }
            let id = primary.map_or_else(|| resource.address.clone(), str::to_owned);
            let lists = ["secondary_private_ips", "ipv6_addresses"];
            let groups = "vpc_security_group_ids";
            let Some(mut interface) = self.interface(resource, id, groups, &lists, parts) else {
                continue;
            };
            interface.instance = Some(resource.id());
            interface.instance_type = resource.text("instance_type").map(str::to_owned);
            if let (Some(&private), Some(text)) =
                (interface.addresses.first(), resource.text("public_ip"))
            {
                interface
                    .public
                    .extend(text.parse::<IpAddr>().ok().map(|public| (private, public)));
            }
            parts.interfaces.push(interface);
        }
        for resource in self.of(&["aws_network_interface_sg_attachment"], false) {
            let group = self.needed(resource, "security_group_id", GROUP);
            let id = self.needed(resource, "network_interface_id", INTERFACE);
            let (Some(group), Some(id)) = (group, id) else { continue };
            let is_it = |interface: &&mut Interface| {
                interface.id == id || interface.instance.as_ref() == Some(&id)
            };
            match parts.interfaces[first..].iter_mut().find(is_it) {
                Some(interface) if interface.security_groups.contains(&group) => {}
                Some(interface) => interface.security_groups.push(group),
                None => {
                    let at = self.document.at(resource);
                    self.out.push(Diagnostic::warning(
                        "InvalidNetworkInterfaceID.NotFound",
                        &at,
                        format!(
                            "the interface {id:?} is not described, and does not get {group:?}"
                        ),
                        "give the state or plan of the interface as well",
                    ));
                }
            }
        }
    }

    /// An interface, or the primary one of an instance. Without a subnet or an address that is known
    /// it cannot be judged, and is left out with a warning.
    fn interface(
        &mut self,
        resource: &Resource<'a>,
        id: String,
        groups: &str,
        lists: &[&str],
        parts: &Parts,
    ) -> Option<Interface> {
        let c = self.cursor(resource);
        let mut addresses: Vec<IpAddr> = Vec::new();
        if resource.text("private_ip").is_some() {
            addresses.extend(c.address("private_ip", self.out));
        }
        for key in lists {
            for element in c.list(key, self.out) {
                let address = element.value.as_str().map(str::parse::<IpAddr>);
                match address {
                    Some(Ok(address)) if addresses.contains(&address) => {}
                    Some(Ok(address)) => addresses.push(address),
                    // Null: unknown until the plan is applied.
                    _ if element.value.is_null() => {}
                    _ => element.expected("an IP address", self.out),
                }
            }
        }
        let subnet = self.one(resource, "subnet_id", SUBNET);
        let groups =
            match self.many(resource, groups, GROUP) {
                Some(ids) => ids,
                None => {
                    let vpc = parts.subnets.iter().find(|known| Some(&known.id) == subnet.as_ref());
                    let vpc = vpc.map_or("default-vpc", |subnet| &subnet.vpc);
                    let mut groups = parts.groups.iter();
                    let default =
                        groups.find(|group| group.is_default && group.vpc.as_deref() == Some(vpc));
                    vec![default.map_or_else(
                        || format!("{vpc}.default_security_group_id"),
                        |g| g.id.clone(),
                    )]
                }
            };
        let missing = match (&subnet, addresses.is_empty()) {
            (None, _) => Some("subnet"),
            (_, true) => Some("address"),
            _ => None,
        };
        if let Some(what) = missing {
            self.out.push(Diagnostic::warning(
                "unknown-until-apply",
                &c.at,
                format!("its {what} is unknown until the plan is applied: it is left out, and is no member of its groups"),
                format!("write the {what}, or apply the plan and give the state"),
            ));
        }
        let subnet = subnet.filter(|_| missing.is_none())?;
        let attachment = c.list("attachment", self.out);
        let instance = attachment.first().and_then(|a| a.text("instance", self.out));
        Some(Interface {
            id,
            subnet,
            addresses,
            public: Vec::new(),
            security_groups: groups,
            source_dest_check: c.flag("source_dest_check", self.out).unwrap_or(true),
            mtu: None,
            timeouts: Timeouts::default(),
            flows: FlowLimits::default(),
            mac: resource.text("mac_address").and_then(text::mac),
            instance: instance.filter(|id| !id.is_empty()).map(str::to_owned),
            instance_type: None,
            origin: c.at,
        })
    }
}

/// The VPC in `aws_vpc.main.default_network_acl_id`.
const VPC_OF_DEFAULT: Wanted = Wanted { kinds: &[], prefix: "acl-" };

/// An error: something is unknown until the plan is applied, and could be any of `ids`.
pub(super) fn unresolved(at: &Origin, what: &str, ids: &[String]) -> Diagnostic {
    let message = match ids {
        [] => format!("{what} unknown until the plan is applied"),
        ids => format!(
            "{what} unknown until the plan is applied, and the plan does not say which of {}",
            ids.join(", ")
        ),
    };
    let mend = "write it so that it names one thing, or apply the plan and give the state";
    Diagnostic::error("unknown-until-apply", at, message, mend)
}

/// What a plan takes away or changes, by kind and by the id of the group, ACL or prefix list.
fn gone(top: &Value) -> HashMap<(&str, &str), Vec<&Value>> {
    let mut all: HashMap<_, Vec<&Value>> = HashMap::new();
    for change in top.get("resource_changes").and_then(Value::as_array).into_iter().flatten() {
        let kind = change.get("type").and_then(Value::as_str);
        let Some((kind, change)) = kind.zip(change.get("change")) else { continue };
        let mut actions = change.get("actions").and_then(Value::as_array).into_iter().flatten();
        let Some(before) = change.get("before") else { continue };
        if !actions.any(|a| matches!(a.as_str(), Some("delete" | "update"))) {
            continue;
        }
        let owners = ["security_group_id", "network_acl_id", "prefix_list_id"];
        for owner in owners.iter().filter_map(|key| before.get(key)?.as_str()) {
            all.entry((kind, owner)).or_default().push(before);
        }
    }
    all
}
