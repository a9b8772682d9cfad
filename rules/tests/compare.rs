//! What differs between two policies, as sets of traffic.

use std::net::IpAddr;

use proptest::prelude::*;
use sgwall_rules::compare::{Comparison, Presence, RuleFate, admitted, compare};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{Direction, Policy};
use sgwall_rules::oracle::{Packet, admitting_rule, deciding_entry};

/// A web server with these rules, ACL entries, and other interfaces.
fn policy(rules: &str, entries: &str, others: &str) -> Policy {
    let text = format!(
        r#"version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "s"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
network_acl = "acl-1"
[[network_acl]]
id = "acl-1"
ingress = [{entries}]
egress = []
[[security_group]]
id = "sg-web"
name = "web"
ingress = [{rules}]
egress = []
[[security_group]]
id = "sg-app"
name = "app"
ingress = []
egress = []
[[interface]]
id = "eni-web"
subnet = "s"
addresses = ["10.0.1.10"]
security_groups = ["sg-web"]
{others}
"#
    );
    let input = Input { name: "policy.toml".into(), bytes: text.as_bytes() };
    load(&[input]).unwrap_or_else(|errors| panic!("{errors:?}\n{text}")).policy
}

const OPEN: &str = r#"{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }"#;

fn fates(comparison: &Comparison) -> Vec<(RuleFate, Vec<String>, Vec<String>)> {
    let rules = comparison.groups.iter().flat_map(|group| &group.rules);
    rules.map(|rule| (rule.fate, rule.gained.texts(), rule.lost.texts())).collect()
}

#[test]
fn rules_are_compared_as_what_they_allow() {
    let old = policy(
        r#"{ protocol = "tcp", ports = 443, cidr = "10.0.0.0/8" },
           { protocol = "tcp", ports = "8000-8099", cidr = "10.0.0.0/8" },
           { protocol = "udp", ports = 53, cidr = "10.0.0.0/8" },
           { protocol = "tcp", ports = 22, cidr = "10.0.0.0/8" }"#,
        OPEN,
        "",
    );
    let new = policy(
        r#"{ protocol = "tcp", ports = 22, cidr = "10.0.0.0/8", description = "other words" },
           { protocol = "tcp", ports = "443-444", cidr = "10.0.0.0/8" },
           { protocol = "tcp", ports = "8000-8099", cidr = "10.0.0.0/9" },
           { protocol = "udp", ports = 123, cidr = "10.0.0.0/8" }"#,
        OPEN,
        "",
    );
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        fates(&compare(&old, &new)),
        [
            (RuleFate::Widened, texts(&["tcp 444 of 10.0.0.0/8"]), vec![]),
            (RuleFate::Narrowed, vec![], texts(&["tcp 8000-8099 of 10.128.0.0/9"])),
            (RuleFate::Removed, vec![], texts(&["udp 53 of 10.0.0.0/8"])),
            (RuleFate::Added, texts(&["udp 123 of 10.0.0.0/8"]), vec![]),
        ]
    );
    assert!(compare(&old, &old).is_empty());
}

#[test]
fn a_rule_changes_with_the_members_of_the_group_it_names() {
    let rules = r#"{ protocol = "tcp", ports = 80, group = "sg-app" }"#;
    let member = |address: &str| {
        format!(
            "[[interface]]\nid = \"eni-app\"\nsubnet = \"s\"\naddresses = [\"{address}\"]\n\
             security_groups = [\"sg-app\"]"
        )
    };
    let (old, new) =
        (policy(rules, OPEN, &member("10.0.1.20")), policy(rules, OPEN, &member("10.0.1.21")));
    let comparison = compare(&old, &new);
    let (fate, gained, lost) = fates(&comparison).remove(0);
    assert_eq!(fate, RuleFate::Members);
    assert_eq!(
        (gained, lost),
        (vec!["tcp 80 of 10.0.1.21/32".into()], vec!["tcp 80 of 10.0.1.20/32".into()])
    );
    let gone = compare(&old, &policy(rules, OPEN, ""));
    let interface = gone.interfaces.iter().find(|i| i.interface == "eni-app").unwrap();
    assert_eq!(interface.presence, Presence::Removed);
}

#[test]
fn the_order_of_acl_entries_counts_and_only_what_it_changes() {
    let rules = r#"{ protocol = "tcp", ports = "0-1000", cidr = "0.0.0.0/0" }"#;
    let deny =
        r#"{ rule = 90, action = "deny", protocol = "tcp", ports = 22, cidr = "192.0.2.0/24" }"#;
    let late = deny.replace("90", "110");
    let old = policy(rules, &format!("{OPEN}, {late}"), "");
    let new = policy(rules, &format!("{OPEN}, {deny}"), "");
    let comparison = compare(&old, &new);
    assert!(comparison.groups.is_empty());
    assert_eq!(comparison.acls.len(), 1);
    assert_eq!(comparison.acls[0].lost.texts(), ["tcp 22 of 192.0.2.0/24"]);
    assert_eq!(comparison.interfaces.len(), 1);
    assert_eq!(comparison.interfaces[0].lost.texts(), ["tcp 22 of 192.0.2.0/24"]);
}

fn rule() -> impl Strategy<Value = String> {
    let protocol = prop_oneof![Just("tcp"), Just("udp")];
    (protocol, 0u16..5, 0u16..5, 0u8..8, 29u8..=32).prop_map(|(protocol, a, b, host, len)| {
        let host = host & !((1u16 << (32 - len)) - 1) as u8;
        let (from, to) = (a.min(b), a.max(b));
        format!(
            r#"{{ protocol = "{protocol}", ports = "{from}-{to}", cidr = "192.0.2.{host}/{len}" }}"#
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What an interface admits is what the slow walk over its rules and entries says.
    #[test]
    fn what_is_admitted_is_what_the_oracle_admits(
        rules in prop::collection::hash_set(rule(), 0..5),
        entries in prop::collection::vec((rule(), any::<bool>()), 0..6),
    ) {
        let rules: Vec<_> = rules.into_iter().collect();
        let entries: Vec<_> = entries.iter().enumerate().map(|(n, (rule, allows))| {
            let action = if *allows { "allow" } else { "deny" };
            rule.replacen('{', &format!(r#"{{ rule = {}, action = "{action}","#, n + 1), 1)
        }).collect();
        let policy = policy(&rules.join(", "), &entries.join(", "), "");
        let interface = &policy.interfaces[0];
        let region = admitted(&policy, interface, Direction::Ingress);
        for host in 0..8u8 {
            for protocol in [6, 17] {
                for selector in 0..6 {
                    let remote = IpAddr::from([192, 0, 2, host]);
                    let packet = Packet { direction: Direction::Ingress, remote, protocol, selector };
                    let groups = admitting_rule(&policy, &interface.security_groups, packet);
                    let entry = deciding_entry(&policy.network_acls[0], packet);
                    let passes = entry.is_some_and(|entry| entry.action == sgwall_rules::model::AclAction::Allow);
                    prop_assert_eq!(
                        region.contains(remote, protocol, selector),
                        groups.is_some() && passes,
                        "{} {} {}", remote, protocol, selector
                    );
                }
            }
        }
    }
}
