//! `sgwall check` as a user runs it: what it finds, and its exit status.

// Tests of the command line write files.
#![allow(clippy::disallowed_methods)]

mod common;

use common::sgwall;
use serde_json::Value;

const POLICY: &str = "tools/tests/explain/policy.toml";

fn json(policy: &str) -> Value {
    let run = sgwall(&["check", policy, "--json"]);
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stderr))
}

/// A policy of one interface: `head` before the subnet, `subnet` in it, and its ingress rules.
fn policy(head: &str, subnet: &str, ingress: &str) -> tempfile::NamedTempFile {
    let text = format!(
        r#"version = 1
{head}
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
{subnet}
[[security_group]]
id = "sg-1"
name = "one"
ingress = [{ingress}]
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10"]
security_groups = ["sg-1"]
"#
    );
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn what_is_probably_not_meant_is_told_in_every_form() {
    let policy = policy("", "", r#"{ protocol = "tcp", ports = 22, cidr = "0.0.0.0/0" }"#);
    let path = policy.path().to_str().unwrap();
    let sarif = tempfile::NamedTempFile::new().unwrap();
    let run = sgwall(&["check", path, "--sarif", sarif.path().to_str().unwrap()]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("warning open-admin-port  sg-1/ingress-1"), "{}", run.stdout);
    assert_eq!(sgwall(&["check", path, "--strict"]).status, 1);
    let report = json(path);
    let lint = &report["lints"][0];
    assert_eq!((&lint["code"], &lint["severity"]), (&"open-admin-port".into(), &"warning".into()));
    assert!(lint["why"].as_str().unwrap().contains("open to every address"), "{lint}");
    let log: Value = serde_json::from_str(&std::fs::read_to_string(sarif.path()).unwrap()).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    let admin = results.iter().find(|r| r["ruleId"] == "open-admin-port").unwrap();
    let place = &admin["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], path);
    assert!(place["region"]["startLine"].as_u64().unwrap() > 10, "{place}");
    // Every code that is used is declared.
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    for result in results {
        assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]), "{result}");
    }
}

#[test]
fn rules_that_decided_nothing_are_told_of_with_hits() {
    let hits = tempfile::NamedTempFile::new().unwrap();
    let run = sgwall(&["replay", "--json"]);
    std::fs::write(hits.path(), run.stdout).unwrap();
    let hits_path = hits.path().to_str().unwrap();
    let run = sgwall(&["check", "tools/example/policy.toml", "--hits", hits_path, "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let unused = report["lints"].as_array().unwrap().iter().filter(|l| l["code"] == "rule-unused");
    let unused: Vec<_> = unused.map(|lint| lint["message"].as_str().unwrap()).collect();
    // The ACL's entries that let things through decide nothing: the groups do.
    let acl = ["ingress all from 0.0.0.0/0", "egress all to 0.0.0.0/0"];
    assert_eq!(unused, acl.map(|text| format!("{text} decided no packet")));

    for (text, status, expected) in
        [("{}", 2, "it tells nothing of rules"), ("{", 2, "it is not JSON")]
    {
        std::fs::write(hits.path(), text).unwrap();
        let run = sgwall(&["check", "tools/example/policy.toml", "--hits", hits_path]);
        assert_eq!(run.status, status);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    let run = sgwall(&["check", "tools/example/policy.toml", "--hits", "gone.json"]);
    assert!(run.status == 3 && run.stderr.contains("gone.json"), "{}", run.stderr);
}

/// The rules that are missing on the one interface; `None`: discovery is not needed.
fn missing(policy: &tempfile::NamedTempFile) -> Option<Vec<String>> {
    let report = json(policy.path().to_str().unwrap());
    assert_eq!(report["errors"], 0, "{report}");
    let interface = &report["path_mtu"][0];
    let missing = interface["missing"].as_array().unwrap();
    let rules = missing.iter().map(|m| m["rule"].as_str().unwrap().to_owned()).collect();
    (!interface["paths"].as_array().unwrap().is_empty()).then_some(rules)
}

#[test]
fn a_policy_is_checked_as_pinned() {
    let run = sgwall(&["check", POLICY]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("check", run.stdout);
}

#[test]
fn the_exit_status_tells_how_bad_it_is() {
    assert_eq!(sgwall(&["check", POLICY, "--strict"]).status, 1);
    let open = r#"{ protocol = "icmp", type = 3, code = 4, cidr = "0.0.0.0/0" }"#;
    let fine = policy("", "", open);
    let run = sgwall(&["check", fine.path().to_str().unwrap(), "--strict"]);
    assert_eq!(run.status, 0, "{}", run.stdout);
    let wrong = policy("", "", r#"{ protocol = "tcp", ports = "90-80", cidr = "0.0.0.0/0" }"#);
    let run = sgwall(&["check", wrong.path().to_str().unwrap()]);
    assert_eq!(run.status, 2);
    assert!(run.stdout.contains("the range \"90-80\" is reversed"), "{}", run.stdout);
    assert!(run.stdout.ends_with("\n1 error, 0 warnings.\n"), "{}", run.stdout);
    assert_eq!(sgwall(&["check"]).status, 2);
    assert_eq!(sgwall(&["check", "no-such.toml"]).status, 3);
}

/// SEMANTICS 12.9, rule by rule.
#[test]
fn path_mtu_discovery_needs_rules_for_the_router_and_for_everyone() {
    let (router, anyone) = ("ingress icmp 3/4 from 10.0.1.1/32", "ingress icmp 3/4 from 0.0.0.0/0");
    let icmp =
        |cidr: &str| format!(r#"{{ protocol = "icmp", type = 3, code = 4, cidr = "{cidr}" }}"#);
    let some = |rules: &[&str]| Some(rules.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>());
    assert_eq!(missing(&policy("", "", "")), some(&[router, anyone]));
    assert_eq!(missing(&policy("", "", &icmp("10.0.1.1/32"))), some(&[anyone]));
    assert_eq!(missing(&policy("", "", &icmp("203.0.113.0/24"))), some(&[router, anyone]));
    assert_eq!(missing(&policy("", "", &icmp("0.0.0.0/0"))), some(&[]));
    // Today the router is exempt, unless the policy says otherwise.
    let current = "compat = \"current\"";
    assert_eq!(missing(&policy(current, "", "")), some(&[anyone]));
    let judged = "compat = \"current\"\nexempt = []";
    assert_eq!(missing(&policy(judged, "", "")), some(&[router, anyone]));
}

#[test]
fn path_mtu_discovery_is_needed_where_paths_differ() {
    let local = r#"routes = [{ destination = "10.0.0.0/16", target = "local" }]"#;
    assert_eq!(missing(&policy("", local, "")), None);
    // A smaller path inside the VPC: the router tells of it, nobody further out does.
    let smaller = r#"routes = [{ destination = "10.0.9.0/24", target = "local", mtu = 1400 }]"#;
    let router = "ingress icmp 3/4 from 10.0.1.1/32".to_owned();
    assert_eq!(missing(&policy("", smaller, "")), Some(vec![router]));
}

/// A network ACL refuses the messages of those further out, not those of the subnet's router.
#[test]
fn the_network_acl_is_asked_too() {
    let open = r#"{ protocol = "icmp", cidr = "0.0.0.0/0" }"#;
    let acl = |entry: &str| {
        let head = format!(
            "[[network_acl]]\nid = \"acl-1\"\ningress = [{entry}]\negress = [{{ rule = 1, action = \
             \"allow\", protocol = \"all\", cidr = \"0.0.0.0/0\" }}]"
        );
        missing(&policy(&head, "network_acl = \"acl-1\"", open)).unwrap()
    };
    let tcp = r#"{ rule = 100, action = "allow", protocol = "tcp", cidr = "0.0.0.0/0" }"#;
    assert_eq!(acl(tcp), ["ingress N allow icmp 3/4 from 0.0.0.0/0"]);
    let icmp = r#"{ rule = 100, action = "allow", protocol = "icmp", cidr = "0.0.0.0/0" }"#;
    assert_eq!(acl(icmp), [""; 0]);
}

/// What `check` says beforehand, `replay` says of what happened, and `explain` of the one packet.
#[test]
fn replay_and_explain_say_the_same() {
    let file = policy("", "", "");
    let path = file.path().to_str().unwrap();
    let report = json(path);
    let missing = report["path_mtu"][0]["missing"].as_array().unwrap();
    let router = missing[0]["text"].as_str().unwrap();
    let explained = sgwall(&[
        "explain",
        "-p",
        path,
        "--json",
        "tcp 10.0.1.10:40000 -> 198.51.100.7:443 len=1600 df",
    ]);
    let told: Value = serde_json::from_str(&explained.stdout).unwrap();
    assert_eq!(told["sides"][0]["emitted"]["black_hole"]["rule"], missing[0]["rule"]);

    // A capture of that one packet.
    let packet: sgwall_packet::PacketSpec =
        "tcp 10.0.1.10:40000 -> 198.51.100.7:443 len=1600 df".parse().unwrap();
    let frame = packet.to_frame();
    let capture = tempfile::Builder::new().suffix(".pcapng").tempfile().unwrap();
    let mut writer = sgwall_netio::capture::Writer::new(&capture, "check").unwrap();
    let record = sgwall_netio::capture::OutPacket {
        data: &frame,
        wire_len: frame.len() as u32,
        time: sgwall_packet::Timestamp::from_secs(1),
        decimals: 6,
        link: sgwall_packet::LinkType::Ethernet.into(),
        direction: None,
        comment: None,
    };
    writer.write(&record).unwrap();
    writer.flush().unwrap();
    drop(writer);
    let replay = sgwall(&["replay", capture.path().to_str().unwrap(), "-p", path]);
    assert_eq!(replay.status, 0, "{}", replay.stderr);
    assert!(replay.stdout.contains("hint: path-MTU black hole: 1 message"), "{}", replay.stdout);
    assert!(replay.stdout.contains(router), "{}", replay.stdout);
}
