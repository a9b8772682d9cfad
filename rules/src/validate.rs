//! What a policy must satisfy beyond its form: references, limits, ranges (SEMANTICS 1, 16).
//!
//! All findings are reported, each at its own place. What a native file says wrong is an error;
//! what AWS's own answer says, AWS has accepted, so there it is a warning, and what a dump refers
//! to without describing it is named once.

mod classic;
mod groups;
mod network;
mod ports;

use std::collections::{HashMap, HashSet};

pub(crate) use groups::group_weight;

use crate::diagnostic::{Diagnostic, Origin, Severity, SourceKind};
use crate::model::{NetworkAcl, Peering, Policy, PrefixList, SecurityGroup, Subnet, Vpc};

/// Checks the whole of `policy`.
pub(crate) fn validate(policy: &Policy, out: &mut Vec<Diagnostic>) {
    check(policy, Report { out, missing: HashSet::new(), is_strict: false });
}

/// What is wrong with `policy`, whoever wrote it: a limit that a dump exceeds is an error here, as
/// it is to AWS when a call would exceed it further.
pub(crate) fn errors(policy: &Policy) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    check(policy, Report { out: &mut out, missing: HashSet::new(), is_strict: true });
    out.retain(|found| found.severity == Severity::Error);
    out
}

fn check(policy: &Policy, mut report: Report<'_>) {
    let index = Index::new(policy, &mut report);
    let limits = policy.limits;
    if limits.rules_per_group.saturating_mul(limits.groups_per_interface)
        > limits.rules_per_interface
    {
        report.out.push(Diagnostic {
            severity: Severity::Error,
            code: "InvalidParameterValue",
            origin: None,
            message: format!(
                "limits: {} rules a group x {} groups an interface exceed {}",
                limits.rules_per_group, limits.groups_per_interface, limits.rules_per_interface
            ),
            mend: "lower one of them, or raise rules_per_interface in [limits]".into(),
        });
    }
    network::check(policy, &index, &mut report);
    groups::check(policy, &index, &mut report);
    classic::check(policy, &index, &mut report);
    ports::check(policy, &mut report);
}

/// Where findings go.
struct Report<'a> {
    out: &'a mut Vec<Diagnostic>,
    /// What a dump lacks and was named already.
    missing: HashSet<(&'static str, String)>,
    /// Whether a fault in AWS's answer is an error too.
    is_strict: bool,
}

impl Report<'_> {
    /// An error in a native file, a warning in AWS's answer unless the check is strict.
    fn fault(
        &mut self,
        code: &'static str,
        at: &Origin,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.out.push(match at.source.kind {
            SourceKind::Aws | SourceKind::Terraform if !self.is_strict => {
                Diagnostic::warning(code, at, message, mend)
            }
            _ => Diagnostic::error(code, at, message, mend),
        });
    }

    /// Whether the `count`-th object is to be reported as above `limit`: the first above it, or,
    /// strictly, every one.
    fn is_above(&self, count: u32, limit: u32) -> bool {
        match self.is_strict {
            false => count == limit.saturating_add(1),
            true => count > limit,
        }
    }

    /// A warning wherever it is.
    fn warn(
        &mut self,
        code: &'static str,
        at: &Origin,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.out.push(Diagnostic::warning(code, at, message, mend));
    }

    /// A reference that leads nowhere. `what` is "security group" or the like, `effect` what
    /// follows from its absence.
    fn missing(
        &mut self,
        code: &'static str,
        at: &Origin,
        (what, id): (&'static str, &str),
        effect: &str,
    ) {
        match at.source.kind {
            SourceKind::Native => self.out.push(Diagnostic::error(
                code,
                at,
                format!("there is no {what} {id:?}"),
                "correct the id, or add the file that describes it",
            )),
            kind => {
                if self.missing.insert((what, id.to_owned())) {
                    let whole = if kind == SourceKind::Aws { "dump" } else { "configuration" };
                    self.out.push(Diagnostic::warning(
                        code,
                        at,
                        format!("the {what} {id:?} is outside the {whole}: {effect}"),
                        format!("add the answer of `aws ec2 {}`", command(what)),
                    ));
                }
            }
        }
    }
}

/// The command whose answer describes such an object.
fn command(what: &str) -> &'static str {
    match what {
        "VPC" => "describe-vpcs",
        "subnet" => "describe-subnets",
        "network ACL" => "describe-network-acls",
        "prefix list" => "describe-managed-prefix-lists",
        "content of the prefix list" => "get-managed-prefix-list-entries",
        "peering" => "describe-vpc-peering-connections",
        _ => "describe-security-groups",
    }
}

/// The place of a native file's field; AWS and Terraform name their fields otherwise, so there it
/// is the object itself.
fn field(origin: &Origin, name: &str) -> Origin {
    match origin.source.kind {
        SourceKind::Native => origin.field(name),
        SourceKind::Aws | SourceKind::Terraform => origin.clone(),
    }
}

/// The objects of a policy by id; of several with one id, the first.
struct Index<'a> {
    vpcs: HashMap<&'a str, &'a Vpc>,
    subnets: HashMap<&'a str, &'a Subnet>,
    groups: HashMap<&'a str, &'a SecurityGroup>,
    acls: HashMap<&'a str, &'a NetworkAcl>,
    prefix_lists: HashMap<&'a str, &'a PrefixList>,
    peerings: HashMap<&'a str, &'a Peering>,
}

impl<'a> Index<'a> {
    fn new(policy: &'a Policy, report: &mut Report<'_>) -> Self {
        by_id("interface", &policy.interfaces, |i| (&i.id, &i.origin), report);
        by_id("instance", &policy.classic_instances, |i| (&i.id, &i.origin), report);
        Index {
            vpcs: by_id("VPC", &policy.vpcs, |v| (&v.id, &v.origin), report),
            subnets: by_id("subnet", &policy.subnets, |s| (&s.id, &s.origin), report),
            groups: by_id(
                "security group",
                &policy.security_groups,
                |g| (&g.id, &g.origin),
                report,
            ),
            acls: by_id("network ACL", &policy.network_acls, |a| (&a.id, &a.origin), report),
            prefix_lists: by_id(
                "prefix list",
                &policy.prefix_lists,
                |l| (&l.id, &l.origin),
                report,
            ),
            peerings: by_id("peering", &policy.peerings, |p| (&p.id, &p.origin), report),
        }
    }
}

fn by_id<'a, T>(
    what: &str,
    items: &'a [T],
    name: impl Fn(&'a T) -> (&'a String, &'a Origin),
    report: &mut Report<'_>,
) -> HashMap<&'a str, &'a T> {
    let mut index: HashMap<&str, &T> = HashMap::new();
    for item in items {
        let (id, at) = name(item);
        match index.get(id.as_str()) {
            None => {
                index.insert(id, item);
            }
            Some(first) => {
                let first_at = name(first).1;
                report.fault(
                    "duplicate-id",
                    at,
                    format!("the {what} {id:?} was described before, at {first_at}"),
                    "give each its own id, or remove one",
                );
            }
        }
    }
    index
}
