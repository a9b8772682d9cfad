//! The flow table on the command line: its policies, the limits of interfaces, and what is said of
//! them.

// Tests of the command line write files.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;

use common::{Run, sgwall};

const POLICY: &str = r#"version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
[[security_group]]
id = "sg-1"
ingress = [{ protocol = "udp", ports = 53, cidr = "203.0.113.0/24" }]
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10"]
security_groups = ["sg-1"]
"#;

/// Explains the second of two queries.
fn second_query(limits: &str, table: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    fs::write(&path, format!("{POLICY}{limits}\n")).unwrap();
    let path = path.display().to_string();
    let [first, second] =
        [4000, 4001].map(|port| format!("udp 203.0.113.1:{port} -> 10.0.1.10:53"));
    let question = ["explain", "--policy", &path, "--after", &first, &second];
    sgwall(&[&question[..], table].concat())
}

#[test]
fn an_explanation_tells_which_limit_it_was() {
    let says = |run: &Run, words: &[&str]| {
        assert_eq!(run.status, 0, "{}", run.stderr);
        let text = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in words {
            assert!(text.contains(words), "{words}: {}", run.stdout);
        }
    };
    let table = second_query("", &["--max-flows", "1"]);
    says(&table, &["conntrack-full", "the flow table is full", "let flows end, allow more"]);
    let cap = second_query("max_flows = 1", &[]);
    says(&cap, &["conntrack-full", "as many as max_flows allows", "raise its max_flows"]);
    for limits in ["", "max_flows = 1"] {
        let evicts = ["--max-flows", "1", "--full-table", "evict-embryonic"];
        says(&second_query(limits, &evicts), &["allowed-tracked"]);
    }
}

/// More reserved than there is: the message names who reserves it, and the mend.
#[test]
fn the_table_must_have_what_is_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let [good, bad] = [("good", 8), ("bad", 9)].map(|(name, reserve)| {
        let path = dir.path().join(format!("{name}.toml"));
        fs::write(&path, format!("{POLICY}reserved_flows = {reserve}\n")).unwrap();
        path.display().to_string()
    });
    let capture = "tools/example/capture.pcapng";
    let packet = "udp 203.0.113.1:1 -> 10.0.1.10:53";
    let later = format!("1={bad}");
    let table = ["--max-flows", "8"];
    let commands: [&[&str]; 3] = [
        &["replay", capture, "--policy", &bad],
        &["replay", capture, "--policy", &good, "--at", &later],
        &["explain", "--policy", &bad, packet],
    ];
    for command in commands {
        let run = sgwall(&[command, &table].concat());
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{command:?}: {}", run.stderr);
        let message = "interfaces reserve 9 flows (eni-1 9), but the flow table has room for 8; lower \
                       their reserved_flows, or raise --max-flows";
        assert!(run.stderr.contains(message), "{command:?}: {}", run.stderr);
    }
    let run = sgwall(&[&["replay", capture, "--policy", &good], &table[..]].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
}
