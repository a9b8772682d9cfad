//! Each finding: a policy that has it, and the nearest one that has not.

use std::collections::HashMap;

use sgwall_rules::lint::{Code, lint, unused};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{Direction, Policy};

/// Two interfaces in two subnets. `acl`: of the first subnet; `web` and `db`: rules of their groups.
struct World {
    head: &'static str,
    acl: &'static str,
    web: &'static str,
    db: &'static str,
}

/// One of which nothing is to be said.
const CLEAN: World = World {
    head: "",
    acl: "",
    web: r#"ingress = [{ protocol = "tcp", ports = 443, cidr = "198.51.100.0/24" }]
            egress = [{ protocol = "tcp", ports = 5432, group = "sg-db" }]"#,
    db: r#"ingress = [{ protocol = "tcp", ports = 5432, group = "sg-web" }]
           egress = [{ protocol = "udp", ports = 123, cidr = "10.0.9.0/24" }]"#,
};

fn policy(world: &World) -> Policy {
    let World { head, acl, web, db } = world;
    let (named, acl) = match acl {
        &"" => ("", String::new()),
        acl => ("network_acl = \"acl-1\"", format!("[[network_acl]]\nid = \"acl-1\"\n{acl}")),
    };
    let text = format!(
        r#"version = 1
{head}
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "subnet-web"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
{named}
[[subnet]]
id = "subnet-db"
vpc = "vpc-1"
cidrs = ["10.0.2.0/24"]
{acl}
[[security_group]]
id = "sg-web"
name = "web"
{web}
[[security_group]]
id = "sg-db"
name = "db"
{db}
[[interface]]
id = "eni-web"
subnet = "subnet-web"
addresses = ["10.0.1.10"]
security_groups = ["sg-web"]
[[interface]]
id = "eni-db"
subnet = "subnet-db"
addresses = ["10.0.2.10"]
security_groups = ["sg-db"]
"#
    );
    let input = Input { name: "policy.toml".into(), bytes: text.as_bytes() };
    load(&[input]).unwrap_or_else(|errors| panic!("{errors:?}\n{text}")).policy
}

/// The codes and subjects that are found.
fn found(world: &World) -> Vec<(Code, String)> {
    lint(&policy(world)).into_iter().map(|lint| (lint.code, lint.subject)).collect()
}

fn only(world: &World, code: Code, subject: &str) -> String {
    let lints = lint(&policy(world));
    match &lints[..] {
        [one] if one.code == code && one.subject == subject => {
            assert!(one.origin.as_ref().is_some_and(|origin| origin.line().is_some()));
            assert!(!one.mend.is_empty());
            one.message.clone()
        }
        other => panic!("{code:?} of {subject}: {other:?}"),
    }
}

#[test]
fn of_a_clean_policy_nothing_is_said() {
    assert_eq!(found(&CLEAN), []);
}

#[test]
fn acl_entries_that_never_decide() {
    let acl = r#"
ingress = [
  { rule = 100, action = "allow", protocol = "tcp", ports = "0-1023", cidr = "0.0.0.0/0" },
  { rule = 110, action = "allow", protocol = "tcp", ports = "1024-65535", cidr = "0.0.0.0/0" },
  { rule = 120, action = "deny", protocol = "tcp", ports = "1000-2000", cidr = "192.0.2.0/24" },
  { rule = 130, action = "deny", protocol = "udp", cidr = "0.0.0.0/0" },
]
egress = [{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]"#;
    // Covered by two together, and by neither alone.
    let message = only(&World { acl, ..CLEAN }, Code::AclEntryShadowed, "acl-1/120");
    assert!(message.contains("entries 100, 110 before it cover all of it"), "{message}");
}

#[test]
fn what_an_acl_keeps_from_groups() {
    let blocks = r#"
ingress = [
  { rule = 90, action = "deny", protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" },
  { rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" },
]
egress = [{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]"#;
    only(&World { acl: blocks, ..CLEAN }, Code::AclBlocksRule, "sg-web/ingress-1");
    let ipv6 = World {
        acl: blocks,
        web: r#"ingress = [{ protocol = "tcp", ports = 443, cidr = "2001:db8::/32" }]
                egress = [{ protocol = "tcp", ports = 5432, group = "sg-db" }]"#,
        ..CLEAN
    };
    assert_eq!(found(&ipv6), [], "the subnet has no IPv6 addresses");

    let narrow = r#"
ingress = [{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]
egress = [
  { rule = 100, action = "allow", protocol = "tcp", ports = "32768-65535", cidr = "198.51.100.0/24" },
  { rule = 110, action = "allow", protocol = "tcp", ports = 5432, cidr = "10.0.2.0/24" },
]"#;
    let message = only(&World { acl: narrow, ..CLEAN }, Code::AclBlocksReturn, "sg-web/ingress-1");
    assert!(message.contains("egress tcp 1024-32767 of 198.51.100.0/24"), "{message}");

    let whole = r#"
ingress = [{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]
egress = [
  { rule = 100, action = "allow", protocol = "tcp", ports = "1024-65535", cidr = "198.51.100.0/24" },
  { rule = 110, action = "allow", protocol = "tcp", ports = 5432, cidr = "10.0.2.0/24" },
]"#;
    assert_eq!(found(&World { acl: whole, ..CLEAN }), []);

    // Whom the ACL refuses altogether is not meant to be reached.
    let block_list = r#"
ingress = [{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]
egress = [
  { rule = 90, action = "deny", protocol = "all", cidr = "198.51.100.128/25" },
  { rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" },
]"#;
    assert_eq!(found(&World { acl: block_list, ..CLEAN }), []);
}

#[test]
fn within_a_subnet_the_acl_is_not_asked() {
    let world = World {
        acl: r#"
ingress = [{ rule = 100, action = "deny", protocol = "all", cidr = "0.0.0.0/0" }]
egress = [{ rule = 100, action = "deny", protocol = "all", cidr = "0.0.0.0/0" }]"#,
        web: r#"ingress = [{ protocol = "tcp", ports = 443, cidr = "10.0.1.0/24" }]
                egress = [{ protocol = "tcp", ports = 443, cidr = "10.0.1.128/25" }]"#,
        db: r#"egress = [{ protocol = "udp", ports = 123, cidr = "10.0.9.0/24" }]"#,
        ..CLEAN
    };
    assert_eq!(found(&world), []);
}

#[test]
fn what_is_open_to_the_world() {
    let ssh = World {
        web: r#"ingress = [{ protocol = "tcp", ports = "20-23", cidr = "0.0.0.0/0" }]
                egress = [{ protocol = "tcp", ports = 5432, group = "sg-db" }]"#,
        ..CLEAN
    };
    let message = only(&ssh, Code::OpenAdminPort, "sg-web/ingress-1");
    assert!(message.ends_with("lets everybody to SSH (22), Telnet (23)"), "{message}");
    let all = World {
        web: r#"ingress = [{ protocol = "all", cidr = "::/0" }]
                egress = [{ protocol = "tcp", ports = 5432, group = "sg-db" }]"#,
        ..CLEAN
    };
    only(&all, Code::OpenToAll, "sg-web/ingress-1");
}

#[test]
fn references_that_the_other_side_has_no_rule_for() {
    let deaf = World {
        db: r#"ingress = [{ protocol = "tcp", ports = 3306, cidr = "10.0.1.0/24" }]
               egress = [{ protocol = "udp", ports = 123, cidr = "10.0.9.0/24" }]"#,
        ..CLEAN
    };
    let message = only(&deaf, Code::OneWayReference, "sg-web/egress-1");
    assert!(message.contains("no interface with sg-db may take it"), "{message}");
    let dumb = World {
        web: r#"ingress = [{ protocol = "tcp", ports = 443, cidr = "198.51.100.0/24" }]
                egress = [{ protocol = "udp", ports = 5432, cidr = "10.0.2.0/24" }]"#,
        ..CLEAN
    };
    let message = only(&dumb, Code::OneWayReference, "sg-db/ingress-1");
    assert!(message.contains("no interface with sg-web may send it"), "{message}");
    // By address is as good as by group.
    let by_address = World {
        db: r#"ingress = [{ protocol = "tcp", ports = "5000-6000", cidr = "10.0.1.0/24" }]
               egress = [{ protocol = "udp", ports = 123, cidr = "10.0.9.0/24" }]"#,
        ..CLEAN
    };
    assert_eq!(found(&by_address), []);
}

#[test]
fn rules_that_others_cover() {
    let world = World {
        web: r#"ingress = [
  { protocol = "tcp", ports = "0-443", cidr = "198.51.100.0/25" },
  { protocol = "tcp", ports = "400-500", cidr = "198.51.100.0/24" },
  { protocol = "tcp", ports = "444-500", cidr = "198.51.100.128/25" },
  { protocol = "tcp", ports = "443-445", cidr = "198.51.100.0/24" },
]
egress = [{ protocol = "tcp", ports = 5432, group = "sg-db" }]"#,
        ..CLEAN
    };
    let redundant = found(&world);
    let expected = ["sg-web/ingress-4", "sg-web/ingress-3"];
    assert_eq!(redundant, expected.map(|subject| (Code::RuleRedundant, subject.to_owned())));
}

#[test]
fn groups_of_nobody() {
    let world = World {
        head: "[[security_group]]\nid = \"sg-old\"\nname = \"old\"\ningress = []\negress = []",
        ..CLEAN
    };
    only(&world, Code::GroupUnused, "sg-old");
}

#[test]
fn flows_that_are_not_tracked() {
    let open = World {
        web: r#"ingress = [{ protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" }]
                egress = [{ protocol = "all", cidr = "0.0.0.0/0" }]"#,
        db: r#"ingress = [{ protocol = "tcp", ports = 5432, cidr = "10.0.1.0/24" }]
               egress = [{ protocol = "udp", ports = 123, cidr = "10.0.9.0/24" }]"#,
        ..CLEAN
    };
    only(&open, Code::UntrackedFlows, "sg-web/ingress-1");
    let narrow = World {
        web: r#"ingress = [{ protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" }]
                egress = [{ protocol = "all", cidr = "10.0.0.0/8" }]"#,
        ..open
    };
    assert_eq!(found(&narrow), []);
}

#[test]
fn limits_that_are_nearly_reached() {
    let world = |limit: &'static str| World {
        head: limit,
        web: r#"ingress = [
  { protocol = "tcp", ports = 1, cidr = "10.1.0.0/16" }, { protocol = "tcp", ports = 2, cidr = "10.1.0.0/16" },
  { protocol = "tcp", ports = 4, cidr = "10.1.0.0/16" }, { protocol = "tcp", ports = 6, cidr = "10.1.0.0/16" },
]
egress = [{ protocol = "tcp", ports = 5432, group = "sg-db" }]"#,
        ..CLEAN
    };
    let near = world("[limits]\nrules_per_group = 5\nrules_per_interface = 100");
    let message = only(&near, Code::LimitNear, "sg-web");
    assert!(message.contains("has 4 ingress rules"), "{message}");
    let far = world("[limits]\nrules_per_group = 6\nrules_per_interface = 100");
    assert_eq!(found(&far), []);
}

#[test]
fn rules_that_decided_nothing() {
    let policy = policy(&CLEAN);
    let hits = HashMap::from([
        ((Direction::Ingress, "sg-web/ingress-1".into()), 7),
        ((Direction::Egress, "sg-web/egress-1".into()), 0),
    ]);
    let subjects: Vec<_> = unused(&policy, &hits).into_iter().map(|lint| lint.subject).collect();
    assert_eq!(subjects, ["sg-web/egress-1", "sg-db/ingress-1", "sg-db/egress-1"]);
}

#[test]
fn every_code_is_documented() {
    let text = include_str!("../../docs/lint.md");
    for code in Code::ALL {
        let heading = format!("| `{}` |", code.as_str());
        assert!(text.contains(&heading), "docs/lint.md lacks {}", code.as_str());
    }
}
