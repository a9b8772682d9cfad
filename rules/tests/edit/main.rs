//! The EC2 API's changes: what is refused, with which code, under both editions where they differ
//! (SEMANTICS 16); what a change leaves behind; and the numbered cases 58 to 61.

mod effects;
mod random;
mod refusals;

use std::net::{Ipv4Addr, Ipv6Addr};

use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Severity;
use sgwall_rules::edit::{self, *};
use sgwall_rules::load::{self, Input};
use sgwall_rules::model::{AclAction, Compat, Direction, Policy};

/// Three VPCs, two of them peered. `sg-web` is on eni-1, and `sg-app` refers to it and to `sg-far`,
/// which is of the peer; `sg-self` refers to itself, and nothing to `sg-lone`.
const WORLD: &str = r#"version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[vpc]]
id = "vpc-2"
cidrs = ["10.1.0.0/16"]
[[vpc]]
id = "vpc-3"
cidrs = ["10.2.0.0/16"]
[[peering]]
id = "pcx-1"
vpcs = ["vpc-1", "vpc-2"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
network_acl = "acl-1"
[[subnet]]
id = "subnet-2"
vpc = "vpc-2"
cidrs = ["10.1.1.0/24"]
[[prefix_list]]
id = "pl-20"
max_entries = 20
entries = ["198.51.100.0/24"]
[[security_group]]
id = "sg-default"
name = "default"
default = true
vpc = "vpc-1"
ingress = [{ protocol = "all", group = "sg-default" }]
[[security_group]]
id = "sg-web"
name = "web"
vpc = "vpc-1"
ingress = [{ protocol = "tcp", ports = 22, cidr = "203.0.113.1/32" }]
egress = [{ protocol = "all", cidr = "0.0.0.0/0" }]
[[security_group]]
id = "sg-app"
vpc = "vpc-1"
ingress = [
  { protocol = "tcp", ports = 6001, group = "sg-web" },
  { protocol = "udp", ports = 53, group = "sg-far", peering = "pcx-1" },
]
[[security_group]]
id = "sg-self"
vpc = "vpc-1"
ingress = [{ protocol = "all", group = "sg-self" }]
[[security_group]]
id = "sg-lone"
vpc = "vpc-1"
[[security_group]]
id = "sg-far"
vpc = "vpc-2"
[[security_group]]
id = "sg-third"
vpc = "vpc-3"
[[network_acl]]
id = "acl-default"
vpc = "vpc-1"
[[network_acl]]
id = "acl-1"
vpc = "vpc-1"
ingress = [{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]
[[network_acl]]
id = "acl-2"
vpc = "vpc-1"
[[network_acl]]
id = "acl-far"
vpc = "vpc-2"
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10", "10.0.1.11", "2001:db8:0:1::10"]
security_groups = ["sg-web"]
public = [{ private = "10.0.1.11", public = "198.51.100.11" }]
[[interface]]
id = "eni-2"
subnet = "subnet-1"
addresses = ["10.0.1.20"]
security_groups = ["sg-default"]
"#;

const BOTH: &[Compat] = &[Compat::Ec2_2017, Compat::Current];
const OLD: &[Compat] = &[Compat::Ec2_2017];
const NEW: &[Compat] = &[Compat::Current];

fn world(compat: Compat) -> Policy {
    let text = format!("compat = \"{}\"\n{WORLD}", compat.as_str());
    let input = Input { name: "world.toml".into(), bytes: text.as_bytes() };
    let mut policy = load::load(&[input]).unwrap_or_else(|found| panic!("{found:#?}")).policy;
    policy.network_acls[0].is_default = true;
    policy
}

/// A policy that a file could have said, and that compiles.
fn is_sound(policy: &Policy) {
    let found = load::check(policy);
    let errors: Vec<_> = found.iter().filter(|d| d.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let compiled = CompiledPolicy::compile(policy, Generation(1));
    let known = policy.interfaces.len() + policy.classic_instances.len();
    assert_eq!(compiled.interfaces().len(), known);
}

fn said(line: &str) -> (Direction, IpPermission) {
    let text: PermissionText = line.parse().unwrap();
    (text.direction, text.permission)
}

fn authorize(policy: &mut Policy, group: &str, line: &str) -> Result<(), ApiError> {
    let (direction, permission) = said(line);
    edit::authorize(policy, group, direction, &[permission]).map(drop)
}

fn revoke(policy: &mut Policy, group: &str, line: &str) -> Result<(), ApiError> {
    let (direction, permission) = said(line);
    edit::revoke(policy, group, direction, &[permission])
}

fn new_group(id: &str, name: &str) -> NewSecurityGroup {
    NewSecurityGroup {
        id: id.into(),
        name: name.into(),
        description: "made by a test".into(),
        vpc: Some("vpc-1".into()),
        owner: None,
    }
}

fn classic(name: &str) -> NewSecurityGroup {
    NewSecurityGroup { vpc: None, ..new_group(&format!("sg-{name}"), name) }
}

fn create(policy: &mut Policy, id: &str, name: &str) -> Result<(), ApiError> {
    create_security_group(policy, new_group(id, name))
}

fn entry(rule_number: i32, protocol: &str) -> EntryRequest {
    EntryRequest {
        rule_number,
        action: AclAction::Deny,
        protocol: protocol.into(),
        cidr_block: Some("203.0.113.0/24".into()),
        ipv6_cidr_block: None,
        port_range: None,
        icmp_type_code: None,
    }
}

fn rules(policy: &Policy, group: &str, direction: Direction) -> Vec<String> {
    let group = policy.security_groups.iter().find(|g| g.id == group).unwrap();
    group.rules(direction).iter().map(|r| format!("{} {}", r.matches, r.peer)).collect()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

type Call = fn(&mut Policy) -> Result<(), ApiError>;

fn nothing(_: &mut Policy) {}

/// The call gets the code, and the policy stays as it was.
fn is_refused(editions: &[Compat], prepare: fn(&mut Policy), call: Call, code: &str) -> String {
    let mut message = String::new();
    for &compat in editions {
        let mut policy = world(compat);
        prepare(&mut policy);
        is_sound(&policy);
        let before = policy.clone();
        let error = call(&mut policy).expect_err(code);
        assert_eq!(error.code.as_str(), code, "{}: {error}", compat.as_str());
        assert_eq!(policy, before, "{error}");
        assert!(!error.message.is_empty());
        message = error.message;
    }
    message
}

fn is_granted(editions: &[Compat], call: Call) {
    for &compat in editions {
        let mut policy = world(compat);
        call(&mut policy).unwrap_or_else(|e| panic!("{}: {e}", compat.as_str()));
        is_sound(&policy);
    }
}

#[test]
fn case_58_a_duplicate_rule_and_the_default_group() {
    let message = is_refused(
        BOTH,
        nothing,
        |p| authorize(p, "sg-web", "in tcp 22 from 203.0.113.1/32"),
        "InvalidPermission.Duplicate",
    );
    assert_eq!(
        message,
        "the specified rule \"peer: 203.0.113.1/32, TCP, from port: 22, to port: 22, ALLOW\" \
         already exists"
    );
    let message =
        is_refused(BOTH, nothing, |p| delete_security_group(p, "sg-default"), "CannotDelete");
    assert_eq!(
        message,
        "the specified group: \"sg-default\" name: \"default\" cannot be deleted by a user"
    );
}

#[test]
fn case_59_a_group_that_is_referred_to() {
    let off_the_interface: fn(&mut Policy) =
        |p| modify_interface_groups(p, "eni-1", &["sg-lone"]).unwrap();
    let delete: Call = |p| delete_security_group(p, "sg-web");
    let message = is_refused(BOTH, off_the_interface, delete, "DependencyViolation");
    assert!(message.contains("sg-app names it"), "{message}");
    is_granted(BOTH, |p| {
        modify_interface_groups(p, "eni-1", &["sg-lone"])?;
        revoke(p, "sg-app", "in tcp 6001 from sg-web")?;
        delete_security_group(p, "sg-web")
    });
    // By itself: the rule must be revoked first, under `current` it need not.
    is_refused(OLD, nothing, |p| delete_security_group(p, "sg-self"), "DependencyViolation");
    is_granted(BOTH, |p| {
        revoke(p, "sg-self", "in all from sg-self")?;
        delete_security_group(p, "sg-self")
    });
    is_granted(NEW, |p| delete_security_group(p, "sg-self"));
}

#[test]
fn case_60_a_code_without_a_type_and_a_reversed_range() {
    for call in [(|p| authorize(p, "sg-web", "in icmp -1/0 from 0.0.0.0/0")) as Call, |p| {
        authorize(p, "sg-web", "in tcp 100-50 from 0.0.0.0/0")
    }] {
        is_refused(BOTH, nothing, call, "InvalidParameterValue");
    }
}

#[test]
fn case_61_the_rules_that_a_group_may_have() {
    fn add(policy: &mut Policy, line: impl Fn(u32) -> String, n: u32) {
        for i in 0..n {
            authorize(policy, "sg-lone", &line(i)).unwrap();
        }
    }
    let refused = |policy: &mut Policy, line: &str| {
        let before = policy.clone();
        let error = authorize(policy, "sg-lone", line).unwrap_err();
        assert_eq!(error.code.as_str(), "RulesPerSecurityGroupLimitExceeded", "{error}");
        assert_eq!(*policy, before);
    };
    let v4 = |i| format!("in tcp {i} from 0.0.0.0/0");
    let v6 = |i| format!("in tcp {i} from ::/0");

    let mut policy = world(Compat::Ec2_2017);
    add(&mut policy, v4, 50);
    refused(&mut policy, "in udp 1 from ::/0");
    // The other direction has a count of its own.
    authorize(&mut policy, "sg-lone", "out udp 1 to ::/0").unwrap();
    is_sound(&policy);
    // A list that may hold 20 counts 20, though it holds one.
    let mut policy = world(Compat::Ec2_2017);
    authorize(&mut policy, "sg-lone", "in tcp 1 from pl-20").unwrap();
    add(&mut policy, v4, 30);
    refused(&mut policy, "in udp 1 from ::/0");
    is_sound(&policy);

    // Today the families count apart, and a group in each.
    let mut policy = world(Compat::Current);
    authorize(&mut policy, "sg-lone", "in tcp 1 from pl-20").unwrap();
    add(&mut policy, v4, 40);
    refused(&mut policy, "in udp 1 from 0.0.0.0/0");
    add(&mut policy, v6, 60);
    refused(&mut policy, "in udp 1 from ::/0");
    revoke(&mut policy, "sg-lone", &v4(0)).unwrap();
    refused(&mut policy, "in udp 1 from sg-web");
    revoke(&mut policy, "sg-lone", &v6(0)).unwrap();
    authorize(&mut policy, "sg-lone", "in udp 1 from sg-web").unwrap();
    is_sound(&policy);
}
