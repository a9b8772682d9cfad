//! Policies as AWS prints them: the JSON answers of `aws ec2 describe-*`.
//!
//! Answers are recognised by their keys, whatever the file is called: one to a file, several
//! merged into one object or list, or wrapped as recordings are (`{"status_code": …, "data": …}`).
//! [`Dump`] collects them and, once all are there, puts together what AWS spreads over several:
//! an ACL's and a route table's subnets, the entries of a prefix list, the ids of rules.
//!
//! A dump is rarely complete. What it refers to without describing it is for
//! [`crate::load`] to report; what AWS leaves out has AWS's default.

mod read;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use self::read::{Destination, RouteTable};
pub use self::write::write;
use crate::diagnostic::{Diagnostic, Origin, Source, SourceKind};
use crate::json::Cursor;
use crate::model::{
    Direction, Interface, NetworkAcl, Peer, Peering, Policy, PrefixList, RouteTarget,
    SecurityGroup, Subnet, Vpc,
};
use crate::native::default_rules;

/// Collects AWS answers of several files, then turns them into a policy.
#[derive(Default)]
pub struct Dump {
    vpcs: Vec<Vpc>,
    subnets: Vec<Subnet>,
    prefix_lists: Vec<PrefixList>,
    groups: Vec<SecurityGroup>,
    acls: Vec<(NetworkAcl, Vec<String>)>,
    interfaces: Vec<Interface>,
    /// What instances say of their interfaces, for where nobody else does.
    instance_interfaces: Vec<Interface>,
    peerings: Vec<Peering>,
    route_tables: Vec<RouteTable>,
    rule_ids: Vec<NamedRule>,
    entries: Vec<Entries>,
    /// Every object so far, to notice the same one in two files.
    seen: HashMap<(&'static str, String), (Value, Origin)>,
    /// Keys that were named as not read.
    skipped: Vec<String>,
}

/// Id, group, whether it is egress, and what a rule says.
type NamedRule = (String, String, bool, crate::model::L4Match, Peer);

/// The answer of `get-managed-prefix-list-entries`, which does not say whose they are.
struct Entries {
    origin: Origin,
    ranges: Vec<IpNet>,
}

/// Objects that another reader has made, to be put together with those of the answers.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) vpcs: Vec<Vpc>,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) prefix_lists: Vec<PrefixList>,
    pub(crate) groups: Vec<SecurityGroup>,
    /// ACLs, and the subnets that each is associated with.
    pub(crate) acls: Vec<(NetworkAcl, Vec<String>)>,
    pub(crate) interfaces: Vec<Interface>,
}

/// Keys of answers that say nothing about what passes.
const SILENT: [&str; 4] = ["ResponseMetadata", "NextToken", "status_code", "Owner"];

impl Dump {
    /// Adds one file. What is wrong goes to `out`; what could be read is kept.
    pub fn add(&mut self, name: &str, value: Value, out: &mut Vec<Diagnostic>) {
        let source =
            Arc::new(Source { name: name.to_owned(), kind: SourceKind::Aws, ..Source::default() });
        let top = Cursor { at: Origin::new(&source, ""), value: &value };
        self.answer(&top, out);
    }

    /// Adds what another reader has made.
    pub(crate) fn extend(&mut self, parts: Parts) {
        self.vpcs.extend(parts.vpcs);
        self.subnets.extend(parts.subnets);
        self.prefix_lists.extend(parts.prefix_lists);
        self.groups.extend(parts.groups);
        self.acls.extend(parts.acls);
        self.interfaces.extend(parts.interfaces);
    }

    fn answer(&mut self, c: &Cursor<'_>, out: &mut Vec<Diagnostic>) {
        if let Some(list) = c.value.as_array() {
            for (i, value) in list.iter().enumerate() {
                self.answer(&Cursor { at: c.at.field(&format!("[{i}]")), value }, out);
            }
            return;
        }
        let Some(object) = c.value.as_object() else {
            c.expected("an answer of `aws ec2 describe-*`", out);
            return;
        };
        if let Some(data) = c.get("data").filter(|_| object.contains_key("status_code")) {
            return self.answer(&data, out);
        }
        for key in object.keys() {
            self.part(c, key, out);
        }
    }

    fn part(&mut self, c: &Cursor<'_>, key: &str, out: &mut Vec<Diagnostic>) {
        match key {
            "Vpcs" => {
                let read = self.objects(c, key, "VpcId", read::vpc, out);
                self.vpcs.extend(read);
            }
            "Subnets" => {
                let read = self.objects(c, key, "SubnetId", read::subnet, out);
                self.subnets.extend(read);
            }
            "PrefixLists" => {
                let read = self.objects(c, key, "PrefixListId", read::prefix_list, out);
                self.prefix_lists.extend(read);
            }
            "SecurityGroups" => {
                let read = self.objects(c, key, "GroupId", read::group, out);
                self.groups.extend(read);
            }
            "SecurityGroupRules" => {
                let read = self.objects(c, key, "SecurityGroupRuleId", read::named_rule, out);
                self.rule_ids.extend(read);
            }
            "NetworkAcls" => {
                let read = self.objects(c, key, "NetworkAclId", read::network_acl, out);
                self.acls.extend(read);
            }
            "NetworkInterfaces" => {
                let read = self.objects(c, key, "NetworkInterfaceId", read::interface, out);
                self.interfaces.extend(read);
            }
            "VpcPeeringConnections" => {
                let read = self.objects(c, key, "VpcPeeringConnectionId", read::peering, out);
                self.peerings.extend(read);
            }
            "RouteTables" => {
                let read = self.objects(c, key, "RouteTableId", read::route_table, out);
                self.route_tables.extend(read);
            }
            "Reservations" => {
                for reservation in c.list(key, out) {
                    for instance in reservation.list("Instances", out) {
                        for interface in instance.list("NetworkInterfaces", out) {
                            let Some(read) = read::interface(&interface, out) else { continue };
                            let text =
                                |key, out: &mut _| instance.text(key, out).map(str::to_owned);
                            self.instance_interfaces.push(Interface {
                                instance: text("InstanceId", out),
                                instance_type: text("InstanceType", out),
                                ..read
                            });
                        }
                    }
                }
            }
            "Entries" => {
                let ranges =
                    c.list(key, out).iter().filter_map(|e| e.cidr("Cidr", None, out)).collect();
                self.entries.push(Entries { origin: c.at.field(key), ranges });
            }
            "Error" => {
                let error = c.get(key);
                let text = |field| error.as_ref()?.value.get(field)?.as_str();
                out.push(Diagnostic::warning(
                    "aws-error",
                    &c.at.field(key),
                    format!(
                        "AWS answered with an error, {}: {}",
                        text("Code").unwrap_or("without a code"),
                        text("Message").unwrap_or("without a message"),
                    ),
                    "ask again, or leave the file out",
                ));
            }
            key if SILENT.contains(&key) || self.skipped.iter().any(|s| s == key) => {}
            key => {
                self.skipped.push(key.to_owned());
                out.push(Diagnostic::note(
                    "not-read",
                    &c.at.field(key),
                    format!("{key:?} says nothing that sgwall reads, and is skipped"),
                    "",
                ));
            }
        }
    }

    /// Reads a list of objects; one that another file has described already counts once.
    fn objects<T>(
        &mut self,
        c: &Cursor<'_>,
        key: &str,
        id: &'static str,
        read: impl Fn(&Cursor<'_>, &mut Vec<Diagnostic>) -> Option<T>,
        out: &mut Vec<Diagnostic>,
    ) -> Vec<T> {
        let mut objects = Vec::new();
        for object in c.list(key, out) {
            if let Some(name) = object.value.get(id).and_then(Value::as_str) {
                let first = self.seen.get(&(id, name.to_owned()));
                if let Some((value, at)) = first {
                    if value != object.value {
                        out.push(Diagnostic::warning(
                            "duplicate-id",
                            &object.at,
                            format!("{name:?} was described otherwise at {at}, and that counts"),
                            "leave out the older of the two files",
                        ));
                    }
                    continue;
                }
                let described = (object.value.clone(), object.at.clone());
                self.seen.insert((id, name.to_owned()), described);
            }
            objects.extend(read(&object, out));
        }
        objects
    }

    /// Adds everything to `policy`, put together.
    pub fn finish(mut self, policy: &mut Policy, out: &mut Vec<Diagnostic>) {
        self.place_entries(out);
        self.resolve_names();
        self.name_rules();
        self.associate(out);
        for interface in std::mem::take(&mut self.instance_interfaces) {
            match self.interfaces.iter_mut().find(|known| known.id == interface.id) {
                Some(known) => {
                    known.instance = interface.instance;
                    known.instance_type = interface.instance_type;
                }
                None => self.interfaces.push(interface),
            }
        }
        // Outbound rules of EC2-Classic are not told: they are always the same (SEMANTICS 14.1).
        for group in self.groups.iter_mut().filter(|g| g.vpc.is_none() && g.egress.is_empty()) {
            group.egress = default_rules(group, Direction::Egress, false);
        }
        policy.vpcs.append(&mut self.vpcs);
        policy.subnets.append(&mut self.subnets);
        policy.prefix_lists.append(&mut self.prefix_lists);
        policy.security_groups.append(&mut self.groups);
        policy.network_acls.extend(self.acls.into_iter().map(|(acl, _)| acl));
        policy.interfaces.append(&mut self.interfaces);
        policy.peerings.append(&mut self.peerings);
    }

    /// Gives entries to their list: the one that the file's name names, the only one without, or
    /// the only one.
    fn place_entries(&mut self, out: &mut Vec<Diagnostic>) {
        for Entries { origin, ranges } in std::mem::take(&mut self.entries) {
            let file = origin.source.name.rsplit(['/', '\\']).next().unwrap_or_default();
            let stem = file.strip_suffix(".json").unwrap_or(file);
            let named = |list: &PrefixList| {
                let by_name = list.name.as_deref().filter(|name| stem.ends_with(name));
                let by_id = Some(list.id.as_str()).filter(|id| stem.contains(id));
                by_id.or(by_name).map(str::len)
            };
            // Of names that fit, the longest: "office6" ends with "6" too.
            let best = (0..self.prefix_lists.len())
                .filter_map(|i| Some((named(&self.prefix_lists[i])?, i)))
                .max();
            let without: Vec<_> = (0..self.prefix_lists.len())
                .filter(|&i| self.prefix_lists[i].entries.is_none())
                .collect();
            let index = match (best, &without[..]) {
                (Some((_, index)), _) => index,
                (None, [only]) => *only,
                _ if self.prefix_lists.len() == 1 => 0,
                (None, _) => {
                    let message = "the answer does not say which prefix list these entries are of";
                    let mend = "put the list's id into the file's name, as in pl-0123abcd.json";
                    out.push(match self.prefix_lists.is_empty() {
                        true => Diagnostic::warning("unknown-entries", &origin, message, mend),
                        false => Diagnostic::error("unknown-entries", &origin, message, mend),
                    });
                    continue;
                }
            };
            let entries = self.prefix_lists[index].entries.get_or_insert_default();
            for range in ranges {
                if !entries.contains(&range) {
                    entries.push(range);
                }
            }
        }
    }

    /// Groups that are referred to by name alone are of the same VPC.
    fn resolve_names(&mut self) {
        let ids: HashMap<(Option<String>, String), String> =
            self.groups.iter().map(|g| ((g.vpc.clone(), g.name.clone()), g.id.clone())).collect();
        for group in &mut self.groups {
            for rule in group.ingress.iter_mut().chain(&mut group.egress) {
                if let Peer::Group(to) = &mut rule.peer
                    && !to.id.starts_with("sg-")
                    && let Some(id) = ids.get(&(group.vpc.clone(), to.id.clone()))
                {
                    to.id.clone_from(id);
                }
            }
        }
    }

    /// Gives rules the ids that `describe-security-group-rules` tells. What both answers say of a
    /// rule is its group, direction, protocol, ports and peer.
    fn name_rules(&mut self) {
        let mut ids: HashMap<_, String> = HashMap::new();
        for (id, group, is_egress, matches, peer) in std::mem::take(&mut self.rule_ids) {
            ids.insert((group, is_egress, matches, peer.to_string()), id);
        }
        for group in &mut self.groups {
            for direction in Direction::BOTH {
                let is_egress = direction == Direction::Egress;
                let rules = if is_egress { &mut group.egress } else { &mut group.ingress };
                for rule in rules {
                    let key = (group.id.clone(), is_egress, rule.matches, rule.peer.to_string());
                    if let Some(id) = ids.get(&key) {
                        rule.id.clone_from(id);
                    }
                }
            }
        }
    }

    /// Gives subnets their ACLs and routes.
    fn associate(&mut self, out: &mut Vec<Diagnostic>) {
        if self.acls.is_empty()
            && let Some(first) = self.subnets.first()
        {
            out.push(Diagnostic::note(
                "default-acl",
                &first.origin,
                "no network ACLs are described: every subnet is taken to have the default one, \
                 which allows all",
                "add the answer of `aws ec2 describe-network-acls`",
            ));
        }
        let mut unknown = Vec::new();
        for subnet in &mut self.subnets {
            let associated = self.acls.iter().find(|(_, subnets)| subnets.contains(&subnet.id));
            let default = self
                .acls
                .iter()
                .find(|(acl, _)| acl.is_default && acl.vpc.as_ref() == Some(&subnet.vpc));
            subnet.network_acl = associated.or(default).map(|(acl, _)| acl.id.clone());

            let associated = self.route_tables.iter().find(|t| t.subnets.contains(&subnet.id));
            let main = self.route_tables.iter().find(|t| t.is_main && t.vpc == subnet.vpc);
            for entry in associated.or(main).map_or(&[][..], |table| &table.routes) {
                let mut route = entry.route.clone();
                let peering = self.peerings.iter().find(|p| Some(&p.id) == entry.peering.as_ref());
                if route.target == RouteTarget::Peering && peering.is_some_and(|p| p.inter_region) {
                    route.target = RouteTarget::InterRegionPeering;
                }
                let Destination::PrefixList(id) = &entry.destination else {
                    subnet.routes.push(route);
                    continue;
                };
                let list = self.prefix_lists.iter().find(|list| list.id == *id);
                match list.and_then(|list| list.entries.as_ref()) {
                    Some(entries) => {
                        subnet.routes.extend(entries.iter().map(|&destination| {
                            crate::model::Route { destination, ..route.clone() }
                        }))
                    }
                    None if unknown.contains(id) => {}
                    None => {
                        unknown.push(id.clone());
                        out.push(Diagnostic::warning(
                            "InvalidPrefixListID.NotFound",
                            &route.origin,
                            format!(
                                "the entries of {id} are outside the dump: its routes are unknown"
                            ),
                            "add the answer of `aws ec2 get-managed-prefix-list-entries`",
                        ));
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").field("objects", &self.seen.len()).finish_non_exhaustive()
    }
}
