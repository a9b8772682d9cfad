//! Policies as Terraform prints them: the JSON of `terraform show -json`, of a plan or of a state.
//!
//! A plan is read as it will be once it is applied (`planned_values`). Ids that are unknown until
//! then are the resource's address, and what refers to them is resolved through the plan's
//! `configuration` ([`references`]). What cannot be resolved and would change what passes is an
//! error. Format: <https://developer.hashicorp.com/terraform/internals/json-format>.
//!
//! The result is made of the same parts as AWS's answers, and joins them ([`crate::aws`]).

mod read;
mod references;
mod rules;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use self::read::Reader;
use self::tree::Document;
use crate::aws::Parts;
use crate::diagnostic::{Diagnostic, Origin, Source, SourceKind};

/// Types that could bear on packets and are not read, by how they begin.
const NOT_READ: &[&str] = &[
    "aws_default_route_table",
    "aws_egress_only_internet_gateway",
    "aws_eip",
    "aws_main_route_table_association",
    "aws_nat_gateway",
    "aws_network_interface_attachment",
    "aws_networkfirewall_",
    "aws_route",
    "aws_vpc_dhcp_options",
    "aws_vpc_endpoint",
    "aws_vpc_peering_connection",
    "aws_vpc_security_group_vpc_association",
    "aws_vpn_gateway",
    "aws_ec2_transit_gateway",
];
/// Of those, what is of another service.
const ELSEWHERE: &[&str] = &["aws_route53"];

/// Whether this is Terraform's: a plan, a state, or the file that it keeps its state in.
pub(crate) fn is_terraform(value: &Value) -> bool {
    let has = |key: &str| value.get(key).is_some();
    has("terraform_version")
        || has("planned_values")
        || (has("format_version")
            && value.as_object().is_some_and(|o| has("values") || o.len() == 1))
}

/// Reads one file. What is wrong goes to `out`; what could be read is kept.
pub(crate) fn read(name: &str, value: &Value, out: &mut Vec<Diagnostic>) -> Parts {
    let source = Arc::new(Source {
        name: name.to_owned(),
        kind: SourceKind::Terraform,
        ..Source::default()
    });
    let top = Origin::new(&source, "");
    let Some(format) = value.get("format_version") else {
        out.push(Diagnostic::error(
            "not-read",
            &top,
            "this is the file in which Terraform keeps its state",
            "save the output of `terraform show -json` instead",
        ));
        return Parts::default();
    };
    if !format.as_str().is_some_and(|format| format.starts_with("0.") || format.starts_with("1.")) {
        out.push(Diagnostic::error(
            "not-read",
            &top.field("format_version"),
            format!("the format {format} is not known"),
            "versions 0 and 1 are read: look for a newer sgwall",
        ));
        return Parts::default();
    }
    let root = ["planned_values", "values"].into_iter().find(|key| value.get(key).is_some());
    if let Some(key) = root
        && value[key].get("root_module").is_none_or(|module| !module.is_object())
        && value[key].as_object().is_none_or(|values| !values.is_empty())
    {
        out.push(Diagnostic::error(
            "MissingParameter",
            &top.field(key),
            "\"root_module\" is missing",
            "save the output of `terraform show -json` again, whole",
        ));
    }
    if value.get("errored").and_then(Value::as_bool) == Some(true) {
        out.push(Diagnostic::error(
            "plan-failed",
            &top.field("errored"),
            "planning failed, so the plan is not whole",
            "mend what `terraform plan` says, and plan again",
        ));
    }
    if value.get("complete").and_then(Value::as_bool) == Some(false) {
        out.push(Diagnostic::note(
            "plan-incomplete",
            &top.field("complete"),
            "the plan leaves changes for a later one",
            "",
        ));
    }
    let document = Document::new(source, value);
    name_unread(&document, &top, out);
    Reader::new(&document, out).read()
}

/// One note for all that could bear on packets and is not read.
fn name_unread(document: &Document<'_>, top: &Origin, out: &mut Vec<Diagnostic>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for resource in document.resources.iter().filter(|resource| !resource.is_data) {
        let begins = |with: &&&str| resource.kind.starts_with(**with);
        if NOT_READ.iter().any(|with| begins(&with)) && !ELSEWHERE.iter().any(|with| begins(&with))
        {
            *counts.entry(resource.kind).or_default() += 1;
        }
    }
    if !counts.is_empty() {
        let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        out.push(Diagnostic::note(
            "not-read",
            top,
            format!("not read, though it could bear on packets: {}", counts.join(", ")),
            "",
        ));
    }
}
