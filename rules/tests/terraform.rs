//! Terraform's plans and states: what they mean, and what is said of those that cannot be read.
//!
//! `terraform/*.json` are what Terraform 1.11.4 with version 5.100.0 of its AWS provider printed of
//! `terraform/main.tf`: `plan.json` before anything was there, `state.json` when that was applied to
//! an emulator of AWS, `change.json` a plan to change it.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Severity;
use sgwall_rules::load::{Input, Loaded, load};
use sgwall_rules::model::{Direction, Policy};

const PLAN: &str = include_str!("terraform/plan.json");
const STATE: &str = include_str!("terraform/state.json");
const CHANGE: &str = include_str!("terraform/change.json");
/// <https://github.com/bridgecrewio/checkov>, Apache-2.0; see `terraform/SOURCES.md`.
const MODULES: &str = include_str!("terraform/modules-with-for-each.json");

fn try_load(text: &str) -> Result<Loaded, Vec<String>> {
    let input = Input { name: "p".into(), bytes: text.as_bytes() };
    load(&[input]).map_err(|found| {
        let errors = found.iter().filter(|d| d.severity == Severity::Error);
        errors.map(ToString::to_string).collect()
    })
}

fn loaded(text: &str) -> Loaded {
    try_load(text).unwrap_or_else(|errors| panic!("{}", errors.join("\n")))
}

fn resources<'a>(module: &'a Value, all: &mut Vec<&'a Value>) {
    all.extend(module["resources"].as_array().into_iter().flatten());
    for child in module["child_modules"].as_array().into_iter().flatten() {
        resources(child, all);
    }
}

/// A policy as lines, in which `ids` are replaced.
fn lines(policy: &Policy, ids: &BTreeMap<String, String>) -> Vec<String> {
    let name = |id: &str| ids.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let mut lines = Vec::new();
    for vpc in &policy.vpcs {
        lines.push(format!("vpc {} {:?}", name(&vpc.id), vpc.cidrs));
    }
    for subnet in &policy.subnets {
        let acl = subnet.network_acl.as_deref().map(name);
        lines.push(format!(
            "subnet {} {} {:?} {acl:?}",
            name(&subnet.id),
            name(&subnet.vpc),
            subnet.cidrs
        ));
    }
    for list in &policy.prefix_lists {
        lines.push(format!(
            "list {} {:?} {:?} {:?}",
            name(&list.id),
            list.name,
            list.max_entries,
            list.entries
        ));
    }
    for group in &policy.security_groups {
        let vpc = group.vpc.as_deref().map(name);
        let id = name(&group.id);
        lines.push(format!(
            "group {id} {} {:?} {vpc:?} {}",
            group.name, group.description, group.is_default
        ));
        for direction in Direction::BOTH {
            for rule in group.rules(direction) {
                let peer = name(&rule.peer.to_string());
                lines.push(format!(
                    "{id} {direction} {} {peer} {:?}",
                    rule.matches, rule.description
                ));
            }
        }
    }
    for acl in &policy.network_acls {
        let id = name(&acl.id);
        lines.push(format!("acl {id} {:?} {}", acl.vpc.as_deref().map(name), acl.is_default));
        for direction in Direction::BOTH {
            for entry in acl.entries(direction) {
                let (n, action) = (entry.rule_number, entry.action);
                lines.push(format!(
                    "{id} {direction} {n} {action:?} {} {}",
                    entry.matches, entry.cidr
                ));
            }
        }
    }
    for i in &policy.interfaces {
        let mut groups: Vec<_> = i.security_groups.iter().map(|id| name(id)).collect();
        groups.sort();
        lines.push(format!(
            "eni {} {} {:?} {groups:?} {} {:?}",
            name(&i.id),
            name(&i.subnet),
            i.addresses,
            i.source_dest_check,
            i.instance_type
        ));
    }
    lines.sort();
    lines
}

/// The address of each resource of a state, by its id.
fn addresses(state: &str) -> BTreeMap<String, String> {
    let state: Value = serde_json::from_str(state).unwrap();
    let mut all = Vec::new();
    resources(&state["values"]["root_module"], &mut all);
    let ids = |resource: &Value| {
        let address = resource["address"].as_str().unwrap().to_owned();
        ["id", "primary_network_interface_id"]
            .map(|key| Some((resource["values"][key].as_str()?.to_owned(), address.clone())))
    };
    all.into_iter().flat_map(ids).flatten().collect()
}

#[test]
fn a_plan_says_what_the_state_says_when_it_is_applied() {
    let (plan, state) = (loaded(PLAN), loaded(STATE));
    let planned = lines(&plan.policy, &BTreeMap::new());
    assert_eq!(planned, lines(&state.policy, &addresses(STATE)));
    insta::assert_snapshot!(planned.join("\n"));
    for found in plan.diagnostics.iter().chain(&state.diagnostics) {
        assert_eq!(found.severity, Severity::Note, "{found}");
    }
    let said: Vec<_> = plan.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "note[not-read]: p: not read, though it could bear on packets: 1 aws_route_table",
            "note[assumed-index]: p: aws_security_group_rule.db_from_app[0].security_group_id: 8 computed indices, this and others, are taken to be the instance's own each.key, each.value or count.index: a plan does not tell",
        ]
    );
}

/// The plan takes away a rule, an ACL entry and an entry of a prefix list that have resources of their
/// own, which the group, ACL and list still show; and changes a rule and a block.
#[test]
fn what_a_plan_takes_away_is_gone() {
    let ids = addresses(STATE);
    let before = lines(&loaded(STATE).policy, &ids);
    let after = lines(&loaded(CHANGE).policy, &ids);
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(
        gone,
        [
            "aws_network_acl.data egress 100 Allow all 0.0.0.0/0",
            "aws_security_group.app ingress tcp 22 10.0.1.10/32 None",
            "aws_security_group.cache ingress tcp 6380 aws_security_group.db[1] None",
            "list aws_ec2_managed_prefix_list.partners Some(\"partners\") Some(3) Some([198.51.100.0/24])",
            "module.web[\"green\"].aws_security_group.this ingress tcp 8000 0.0.0.0/0 None",
        ]
    );
    assert_eq!(
        new,
        [
            "aws_security_group.app ingress tcp 22 10.0.1.11/32 None",
            "list aws_ec2_managed_prefix_list.partners Some(\"partners\") Some(3) Some([])",
            "module.web[\"green\"].aws_security_group.this ingress tcp 8888 0.0.0.0/0 None",
        ]
    );
}

#[test]
fn modules_with_for_each_are_read() {
    let loaded = loaded(MODULES);
    let ids: Vec<_> = loaded.policy.security_groups.iter().map(|group| &*group.id).collect();
    let id = |key: &str| format!("module.sg[\"{key}_example\"].aws_security_group.bad");
    assert_eq!(ids, [id("awful"), id("bad"), id("terrible")]);
    for group in &loaded.policy.security_groups {
        assert_eq!(group.ingress.len(), 1);
        assert_eq!(
            group.ingress[0].origin.to_string(),
            format!("p: {}.ingress[0].cidr_blocks[0]", group.id)
        );
    }
}

/// A plan of these resources, `(type.name, index, values, expressions)`.
fn plan(resources: &[(&str, Option<Value>, Value, Value)]) -> Value {
    let split =
        |base: &str| base.split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let planned: Vec<Value> = resources.iter().map(|(base, index, values, _)| {
        let (kind, name) = split(base);
        let address = match index {
            Some(index) => format!("{base}[{index}]"),
            None => (*base).to_owned(),
        };
        json!({ "address": address, "mode": "managed", "type": kind, "name": name, "index": index, "values": values })
    }).collect();
    let (mut configured, mut known) = (Vec::new(), HashSet::new());
    for (base, _, _, expressions) in resources {
        let for_each = &expressions["for_each"];
        let block =
            json!({ "address": base, "expressions": expressions, "for_each_expression": for_each });
        if known.insert(*base) {
            configured.push(block);
        }
    }
    json!({
        "format_version": "1.2", "terraform_version": "1.11.4",
        "planned_values": { "root_module": { "resources": planned } },
        "configuration": { "root_module": { "resources": configured } },
    })
}

const GROUPS: [&str; 2] = ["aws_security_group.a", "aws_security_group.b"];

/// Two groups, and a rule of the first with these values and expressions.
fn with_rule(values: Value, expressions: Value) -> Value {
    let group =
        |base: &'static str| (base, None, json!({ "name": base, "vpc_id": "vpc-1" }), json!({}));
    let rule = ("aws_vpc_security_group_ingress_rule.r", None, values, expressions);
    plan(&[group(GROUPS[0]), group(GROUPS[1]), rule])
}

#[test]
fn references_lead_to_the_resource_or_are_refused() {
    let to = |references: Value| {
        let values = json!({ "ip_protocol": "-1", "cidr_ipv4": "10.0.0.0/8" });
        let document =
            with_rule(values, json!({ "security_group_id": { "references": references } }));
        try_load(&document.to_string()).map(|loaded| {
            let groups = loaded.policy.security_groups.into_iter();
            groups
                .filter(|group| !group.ingress.is_empty())
                .map(|group| group.id)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        to(json!(["aws_security_group.b.id", "aws_security_group.b"])).unwrap(),
        [GROUPS[1]]
    );
    const AT: &str = "error[unknown-until-apply]: p: aws_vpc_security_group_ingress_rule.r.security_group_id: it is unknown until the plan is applied";
    const MEND: &str =
        "; write it so that it names one thing, or apply the plan and give the state";
    let which = format!(
        "{AT}, and the plan does not say which of aws_security_group.a, aws_security_group.b{MEND}"
    );
    let both = json!([
        "aws_security_group.a.id",
        "aws_security_group.a",
        "aws_security_group.b.id",
        "aws_security_group.b"
    ]);
    assert_eq!(to(both).unwrap_err(), [&*which]);
    // A local is one of what its module can name.
    assert_eq!(to(json!(["local.group"])).unwrap_err(), [&*which]);
    let nothing = format!("{AT}{MEND}");
    for elsewhere in [
        json!([]),
        json!(["aws_eip.x.id"]),
        json!(["var.group"]),
        json!(["module.x.y", "module.x"]),
        json!(["module", "", "[", 3]),
    ] {
        assert_eq!(to(elsewhere.clone()).unwrap_err(), [&*nothing], "{elsewhere}");
    }
}

#[test]
fn variables_outputs_and_locals_are_followed() {
    let group = json!({ "address": "module.m.aws_security_group.g", "mode": "managed", "type": "aws_security_group", "name": "g",
        "values": { "name": "g", "vpc_id": "vpc-1" } });
    let rule = |module: &str, name: &str| {
        json!({ "address": format!("{module}aws_vpc_security_group_egress_rule.{name}"),
        "mode": "managed", "type": "aws_vpc_security_group_egress_rule", "name": name,
        "values": { "ip_protocol": "tcp", "from_port": 1, "to_port": 2, "cidr_ipv4": format!("10.{}.0.0/16", name.len()) } })
    };
    let configured = |name: &str, reference: &str| {
        json!({ "address": format!("aws_vpc_security_group_egress_rule.{name}"),
        "expressions": { "security_group_id": { "references": [reference] } } })
    };
    let document = json!({
        "format_version": "1.2",
        "variables": { "given": { "value": "sg-given" } },
        "planned_values": { "root_module": {
            "resources": [rule("", "o"), rule("", "vv")],
            "child_modules": [
                { "address": "module.m", "resources": [group, rule("module.m.", "lll")] },
                { "address": "module.n", "resources": [rule("module.n.", "vvvv")] },
            ] } },
        "configuration": { "root_module": {
            "resources": [configured("o", "module.m.group"), configured("vv", "var.given")],
            "module_calls": {
                "m": { "module": {
                    "resources": [configured("lll", "local.group")],
                    "outputs": { "group": { "expression": { "references": ["aws_security_group.g.id", "aws_security_group.g"] } } } } },
                "n": { "expressions": { "to": { "references": ["module.m.group", "module.m"] } },
                       "module": { "resources": [configured("vvvv", "var.to")] } },
            } } },
    });
    let loaded = loaded(&document.to_string());
    let [group] = &loaded.policy.security_groups[..] else { panic!("one group") };
    let rules: Vec<_> =
        group.egress.iter().map(|rule| (rule.id.as_str(), rule.peer.to_string())).collect();
    assert_eq!(
        rules,
        [
            ("aws_vpc_security_group_egress_rule.o", "10.1.0.0/16".to_owned()),
            ("module.m.aws_vpc_security_group_egress_rule.lll", "10.3.0.0/16".to_owned()),
            ("module.n.aws_vpc_security_group_egress_rule.vvvv", "10.4.0.0/16".to_owned()),
        ]
    );
    // The fourth is of a group that nobody here describes.
    let said: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        said[0],
        "warning[InvalidGroup.NotFound]: p: aws_vpc_security_group_egress_rule.vv: the security group \"sg-given\" is outside the configuration: its rule is left out; give the state or plan of the group as well"
    );
}

/// Blocks of one group whose peers are unknown: Terraform tells their references together.
#[test]
fn unknown_peers_of_blocks_are_resolved_where_they_can_be() {
    let peers = |blocks: usize, references: Value| {
        let block = json!({ "protocol": "tcp", "from_port": 80, "to_port": 80, "self": false });
        let group = |base: &'static str, ingress: Value| {
            (
                base,
                None,
                json!({ "name": base, "vpc_id": "vpc-1", "ingress": ingress }),
                json!({ "ingress": { "references": references.clone() } }),
            )
        };
        let mut document = plan(&[
            group("aws_security_group.a", Value::Array(vec![block; blocks])),
            group("aws_security_group.b", json!([])),
            group("aws_security_group.c", json!([])),
        ]);
        let unknown = vec![json!({ "security_groups": true }); blocks];
        document["resource_changes"] = json!([{ "address": "aws_security_group.a", "change": { "after_unknown": { "ingress": unknown } } }]);
        try_load(&document.to_string()).map(|loaded| {
            loaded.policy.security_groups[0]
                .ingress
                .iter()
                .map(|rule| rule.peer.to_string())
                .collect::<Vec<_>>()
        })
    };
    let (b, c) = ("aws_security_group.b", "aws_security_group.c");
    assert_eq!(peers(1, json!([b])).unwrap(), [b]);
    assert_eq!(peers(1, json!([b, c])).unwrap(), [b, c]);
    assert_eq!(peers(2, json!([b])).unwrap(), [b, b]);
    assert_eq!(
        peers(2, json!([b, c])).unwrap_err(),
        [
            "error[unknown-until-apply]: p: aws_security_group.a.ingress: the security_groups of 2 of its blocks are unknown until the plan is applied, and the plan does not say which of aws_security_group.b, aws_security_group.c; write it so that it names one thing, or apply the plan and give the state"
        ]
    );
}

#[test]
fn errors_name_the_address_the_attribute_and_the_mend() {
    let rule = |change: &dyn Fn(&mut Value)| {
        let mut values = json!({ "security_group_id": "aws_security_group.a", "ip_protocol": "tcp", "from_port": 80, "to_port": 80, "cidr_ipv4": "10.0.0.0/8" });
        change(&mut values);
        try_load(&with_rule(values, json!({})).to_string()).map(|_| ()).unwrap_err()
    };
    const AT: &str = "p: aws_vpc_security_group_ingress_rule.r";
    const AGAIN: &str = "save the output of `terraform show -json` again, whole";
    assert_eq!(
        rule(&|v| v["ip_protocol"] = Value::Null),
        [format!("error[MissingParameter]: {AT}: \"ip_protocol\" is missing; {AGAIN}")]
    );
    assert_eq!(
        rule(&|v| v["ip_protocol"] = json!("ipx")),
        [format!(
            "error[InvalidParameterValue]: {AT}.ip_protocol: \"ipx\" is not a protocol: tcp, udp, icmp, icmpv6, all or a number 0-255; AWS would not accept it: correct it"
        )]
    );
    assert_eq!(
        rule(&|v| v["from_port"] = json!(81)),
        [format!(
            "error[InvalidParameterValue]: {AT}: the port range 81-80 is reversed; AWS would not accept it: correct it"
        )]
    );
    assert_eq!(
        rule(&|v| v["to_port"] = json!(true)),
        [
            format!(
                "error[InvalidParameterValue]: {AT}.to_port: expected a whole number, found true or false; {AGAIN}"
            ),
            format!(
                "error[InvalidParameterValue]: {AT}: TCP and UDP need both ends of a port range; AWS would not accept it: correct it"
            )
        ]
    );
    assert_eq!(
        rule(&|v| v["cidr_ipv4"] = json!("10.0.0.0/33")),
        [format!(
            "error[InvalidParameterValue]: {AT}.cidr_ipv4: \"10.0.0.0/33\" is not a CIDR: the prefix length is 0-32; write a range such as 10.0.0.0/8"
        )]
    );
    assert_eq!(
        rule(&|v| v["security_group_id"] = Value::Null),
        [format!("error[MissingParameter]: {AT}: \"security_group_id\" is missing; {AGAIN}")]
    );

    let whole = |document: Value| try_load(&document.to_string()).map(|_| ()).unwrap_err();
    assert_eq!(
        whole(json!({ "version": 4, "terraform_version": "1.11.4", "resources": [] })),
        [
            "error[not-read]: p: this is the file in which Terraform keeps its state; save the output of `terraform show -json` instead"
        ]
    );
    assert_eq!(
        whole(json!({ "format_version": "2.0", "planned_values": {} })),
        [
            "error[not-read]: p: format_version: the format \"2.0\" is not known; versions 0 and 1 are read: look for a newer sgwall"
        ]
    );
    assert_eq!(
        whole(
            json!({ "format_version": "1.2", "planned_values": { "root_module": [] }, "errored": true })
        ),
        [
            "error[MissingParameter]: p: planned_values: \"root_module\" is missing; save the output of `terraform show -json` again, whole",
            "error[plan-failed]: p: errored: planning failed, so the plan is not whole; mend what `terraform plan` says, and plan again",
        ]
    );
    assert!(loaded(r#"{"format_version":"1.0"}"#).policy.security_groups.is_empty());
}

/// Addresses and ranges that nobody knows yet: an interface is left out, a range is an error.
#[test]
fn what_is_unknown_and_nobody_can_tell() {
    let mut document = plan(&[
        (
            "aws_instance.i",
            None,
            json!({ "subnet_id": "subnet-1", "vpc_security_group_ids": ["sg-1"] }),
            json!({}),
        ),
        (
            "aws_security_group.a",
            None,
            json!({ "vpc_id": "vpc-1" }),
            json!({ "ingress": { "references": ["aws_eip.x"] } }),
        ),
    ]);
    let Ok(loaded) = try_load(&document.to_string()) else { panic!("it loads") };
    assert!(loaded.policy.interfaces.is_empty());
    assert_eq!(
        loaded.diagnostics[0].to_string(),
        "warning[unknown-until-apply]: p: aws_instance.i: its address is unknown until the plan is applied: it is left out, and is no member of its groups; write the address, or apply the plan and give the state"
    );
    document["resource_changes"] = json!([{ "address": "aws_security_group.a", "change": { "after_unknown": { "ingress": true } } }]);
    let said = try_load(&document.to_string()).map(|_| ()).unwrap_err();
    assert_eq!(
        said,
        [
            "error[unknown-until-apply]: p: aws_security_group.a.ingress: its rules are unknown until the plan is applied; write it so that it names one thing, or apply the plan and give the state"
        ]
    );
}

/// A state of these resources, `(type.name, values)`; data sources begin with `data.`.
fn state(resources: &[(&str, Value)]) -> Value {
    let resources: Vec<Value> = resources
        .iter()
        .map(|(address, values)| {
            let base = address.strip_prefix("data.");
            let mode = if base.is_some() { "data" } else { "managed" };
            let (kind, name) = base.unwrap_or(address).split_once('.').unwrap();
            json!({ "address": address, "mode": mode, "type": kind, "name": name, "values": values })
        })
        .collect();
    json!({ "format_version": "1.0", "terraform_version": "1.11.4",
        "values": { "root_module": { "resources": resources } } })
}

/// What `main.tf` does not have.
#[test]
fn the_other_kinds_are_read() {
    let document = state(&[
        (
            "aws_default_vpc.v",
            json!({ "id": "vpc-1", "cidr_block": "10.0.0.0/16", "ipv6_cidr_block": "" }),
        ),
        (
            "aws_vpc_ipv6_cidr_block_association.a",
            json!({ "vpc_id": "vpc-1", "ipv6_cidr_block": "2001:db8::/56" }),
        ),
        (
            "data.aws_vpc.w",
            json!({ "id": "vpc-2", "cidr_block": "10.2.0.0/16",
            "cidr_block_associations": [{ "cidr_block": "10.2.0.0/16" }, { "cidr_block": "10.3.0.0/16" }] }),
        ),
        (
            "aws_default_subnet.s",
            json!({ "id": "subnet-1", "vpc_id": "vpc-1", "cidr_block": "10.0.1.0/24", "ipv6_cidr_block": "2001:db8::/64" }),
        ),
        (
            "data.aws_subnet.t",
            json!({ "id": "subnet-2", "vpc_id": "vpc-2", "cidr_block": "10.2.1.0/24" }),
        ),
        (
            "data.aws_ec2_managed_prefix_list.l",
            json!({ "id": "pl-1", "name": "l", "max_entries": 2, "entries": [{ "cidr": "192.0.2.0/24" }] }),
        ),
        (
            "data.aws_prefix_list.s3",
            json!({ "id": "pl-2", "name": "s3", "cidr_blocks": ["198.51.100.0/24"] }),
        ),
        (
            "aws_security_group.g",
            json!({ "id": "sg-1", "name": "g", "vpc_id": "vpc-1", "ingress": [
            { "protocol": "tcp", "from_port": 80, "to_port": 80, "security_groups": ["123456789012/sg-9"] }] }),
        ),
        (
            "aws_security_group_rule.r",
            json!({ "type": "egress", "security_group_id": "sg-1", "protocol": "udp",
            "from_port": 53, "to_port": 53, "ipv6_cidr_blocks": ["::/0"], "description": "dns", "security_group_rule_id": "sgr-1" }),
        ),
        (
            "aws_vpc_security_group_ingress_rule.six",
            json!({ "security_group_id": "sg-1", "ip_protocol": "icmpv6",
            "from_port": -1, "to_port": -1, "cidr_ipv6": "2001:db8::/32", "id": "sgr-2" }),
        ),
        (
            "aws_vpc_security_group_egress_rule.list",
            json!({ "security_group_id": "sg-1", "ip_protocol": "47", "prefix_list_id": "pl-2" }),
        ),
        (
            "aws_network_acl.old",
            json!({ "id": "acl-1", "vpc_id": "vpc-1", "subnet_ids": ["subnet-1"] }),
        ),
        (
            "aws_network_acl.new",
            json!({ "id": "acl-2", "vpc_id": "vpc-1", "subnet_ids": [],
            "egress": [{ "rule_no": 1, "action": "deny", "protocol": "esp", "cidr_block": "0.0.0.0/0", "from_port": 0, "to_port": 0 }] }),
        ),
        (
            "aws_network_acl_association.a",
            json!({ "network_acl_id": "acl-2", "subnet_id": "subnet-1" }),
        ),
        (
            "aws_network_interface.e",
            json!({ "id": "eni-1", "subnet_id": "subnet-1", "private_ip": "10.0.1.11", "private_ips": ["10.0.1.10", "10.0.1.11"],
            "ipv6_addresses": ["2001:db8::10"], "security_groups": ["sg-1"], "mac_address": "02:00:00:00:00:01",
            "attachment": [{ "instance": "i-1" }] }),
        ),
        (
            "aws_instance.i",
            json!({ "id": "i-1", "instance_type": "m4.large", "primary_network_interface_id": "eni-1" }),
        ),
        (
            "aws_instance.j",
            json!({ "id": "i-2", "subnet_id": "subnet-1", "private_ip": "10.0.1.20", "public_ip": "203.0.113.5",
            "vpc_security_group_ids": ["sg-1"], "primary_network_interface_id": "eni-2" }),
        ),
    ]);
    let loaded = loaded(&document.to_string());
    insta::assert_snapshot!(lines(&loaded.policy, &BTreeMap::new()).join("\n"));
    let [one, two] = &loaded.policy.interfaces[..] else { panic!("two interfaces") };
    assert_eq!((one.instance.as_deref(), one.mac), (Some("i-1"), Some([2, 0, 0, 0, 0, 1])));
    assert_eq!(two.public, [(two.addresses[0], "203.0.113.5".parse().unwrap())]);
    let group = &loaded.policy.security_groups[0];
    let ids: Vec<_> = group.ingress.iter().chain(&group.egress).map(|rule| &*rule.id).collect();
    assert_eq!(ids, ["ingress-1", "sgr-2", "sgr-1", "aws_vpc_security_group_egress_rule.list"]);
}

/// Data sources of a plan stand with what was there before; what is nobody's stays AWS's.
#[test]
fn a_plan_knows_what_was_read_before_it() {
    let mut document = plan(&[
        (
            "aws_network_interface.e",
            None,
            json!({ "private_ips": ["10.0.1.10"] }),
            json!({ "subnet_id": { "references": ["data.aws_subnet.s.id", "data.aws_subnet.s"] } }),
        ),
        ("aws_default_security_group.d", None, json!({ "vpc_id": "vpc-1" }), json!({})),
    ]);
    document["prior_state"] = state(&[
        ("data.aws_vpc.v", json!({ "id": "vpc-1", "cidr_block": "10.0.0.0/16" })),
        (
            "data.aws_subnet.s",
            json!({ "id": "subnet-1", "vpc_id": "vpc-1", "cidr_block": "10.0.1.0/24" }),
        ),
        ("aws_vpc.gone", json!({ "id": "vpc-9", "cidr_block": "10.9.0.0/16" })),
    ]);
    let policy = loaded(&document.to_string()).policy;
    assert_eq!(policy.vpcs.len(), 1);
    assert_eq!(policy.interfaces[0].subnet, "subnet-1");
    assert_eq!(policy.interfaces[0].security_groups, ["aws_default_security_group.d"]);
    assert!(policy.security_groups[0].egress.is_empty());
}

/// Thousands of resources, each of which refers to others.
#[test]
fn a_large_plan_is_read_whole() {
    let groups: Vec<String> = (0..1000).map(|n| format!("aws_security_group.g{n}")).collect();
    let rules: Vec<String> =
        (0..4000).map(|n| format!("aws_vpc_security_group_ingress_rule.r{n}")).collect();
    let mut resources: Vec<(&str, Option<Value>, Value, Value)> = Vec::new();
    for group in &groups {
        resources.push((group, None, json!({ "name": group, "vpc_id": "vpc-1" }), json!({})));
    }
    for (n, rule) in rules.iter().enumerate() {
        let values = json!({ "ip_protocol": "tcp", "from_port": n, "to_port": n });
        let to = |group: &str| json!({ "references": [format!("{group}.id"), group] });
        let expressions = json!({ "security_group_id": to(&groups[n % 1000]),
            "referenced_security_group_id": to(&groups[n / 4]) });
        resources.push((rule, None, values, expressions));
    }
    let policy = loaded(&plan(&resources).to_string()).policy;
    assert_eq!(policy.security_groups.len(), 1000);
    for (n, group) in policy.security_groups.iter().enumerate() {
        let peers: Vec<_> = group.ingress.iter().map(|rule| rule.peer.to_string()).collect();
        let expected: Vec<_> = (0..4).map(|lap| groups[(lap * 1000 + n) / 4].clone()).collect();
        assert_eq!(peers, expected, "{}", group.id);
    }
}

/// One range of a list is known, another not.
#[test]
fn a_range_that_is_unknown_is_an_error() {
    let values = json!({ "type": "ingress", "protocol": "-1", "security_group_id": "sg-1",
        "cidr_blocks": ["10.0.0.0/8", null] });
    let document = plan(&[("aws_security_group_rule.r", None, values, json!({}))]);
    assert_eq!(
        try_load(&document.to_string()).map(|_| ()).unwrap_err(),
        [
            "error[unknown-until-apply]: p: aws_security_group_rule.r.cidr_blocks[1]: it is unknown until the plan is applied; write it so that it names one thing, or apply the plan and give the state"
        ]
    );
}

/// Every node of a value, by pointer.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| pointers(v, &format!("{at}/{}", escaped(k)), all));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), all));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever stands in the place of anything: findings, but no panic.
    #[test]
    fn mutated_documents_never_panic(
        which in 0..3usize,
        changes in proptest::collection::vec((any::<Index>(), 0..11usize), 1..8)
    ) {
        let mut document: Value = serde_json::from_str([PLAN, STATE, CHANGE][which]).unwrap();
        for (place, what) in changes {
            let mut places = Vec::new();
            pointers(&document, "", &mut places);
            let place = places[place.index(places.len())].clone();
            let values = [
                Value::Null, json!(true), json!(-1), json!(99999999999i64), json!(""), json!("sg-1"),
                json!("10.0.0.0/8"), json!([]), json!({}), json!("module.a[\"b"), json!([null, "a..b[", 1]),
            ];
            *document.pointer_mut(&place).unwrap() = values[what].clone();
        }
        if let Ok(loaded) = try_load(&document.to_string()) {
            let _ = CompiledPolicy::compile(&loaded.policy, Generation(0));
        }
    }
}

/// References in a circle, and modules that refer to each other without end, come to an end.
#[test]
fn circles_end() {
    let values = json!({ "ip_protocol": "-1", "cidr_ipv4": "10.0.0.0/8" });
    let mut document =
        with_rule(values, json!({ "security_group_id": { "references": ["module.x.o"] } }));
    document["planned_values"]["root_module"]["child_modules"] = json!([{ "address": "module.x", "resources": [
        { "address": "module.x.aws_eip.e", "mode": "managed", "type": "aws_eip", "name": "e", "values": {} }] }]);
    document["configuration"]["root_module"]["module_calls"] = json!({ "x": {
        "expressions": { "v": { "references": ["module.x.o", "module.x.p"] } },
        "module": { "outputs": {
            "o": { "expression": { "references": ["var.v", "local.l"] } },
            "p": { "expression": { "references": ["var.v", "var.v"] } },
        } },
    } });
    let said = try_load(&document.to_string()).map(|_| ()).unwrap_err();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("error[unknown-until-apply]"), "{}", said[0]);
}
