//! `sgwall convert` as a user runs it: what it writes, what it says is lost, and its exit status.

// Tests of the command line write files.
#![allow(clippy::disallowed_methods)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::sgwall;
use serde_json::Value;

const POLICY: &str = "tools/tests/explain/policy.toml";
const PLAN: &str = "rules/tests/terraform/plan.json";

/// Every other form of the policy is judged as the policy itself.
#[test]
fn each_form_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for from in [POLICY, PLAN] {
        let report = |policy: &str| -> Value {
            let run = sgwall(&["check", policy, "--json"]);
            let report: Value = serde_json::from_str(&run.stdout).unwrap();
            report["path_mtu"].clone()
        };
        for (form, name) in [("toml", "p.toml"), ("aws", "p.json")] {
            let path = dir.path().join(name);
            let path = path.to_str().unwrap();
            let run = sgwall(&["convert", from, "--to", form, "-o", path]);
            assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{}", run.stderr);
            let is_whole = form == "toml" || from == PLAN;
            assert_eq!(
                is_whole,
                !run.stderr.contains("lost: "),
                "{from} to {form}: {}",
                run.stderr
            );
            assert_ne!(report(from), Value::Array(Vec::new()));
            assert!(!is_whole || report(path) == report(from), "{from} as {form}");
            // Standard output gets the same.
            let printed = sgwall(&["convert", from, "--to", form]).stdout;
            assert_eq!(printed, std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn a_ruleset_says_what_it_does_and_what_is_lost() {
    let run = sgwall(&[
        "convert",
        PLAN,
        "--to",
        "nftables",
        "-i",
        "aws_network_interface.db[\"a\"]",
        "--instance-device",
        "tap0",
        "--network-device",
        "eth1",
    ]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    insta::assert_snapshot!("plan-as-nftables", run.stdout);
    let lost: Vec<_> = run.stderr.lines().filter_map(|line| line.strip_prefix("lost: ")).collect();
    assert_eq!(lost.len(), 3, "{}", run.stderr);
    for what in lost {
        assert!(run.stdout.contains(&format!("#   {what}\n")), "{what}");
    }
    assert_accepted(&run.stdout);
}

#[test]
fn a_directory_gets_a_ruleset_of_each_interface() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let run = sgwall(&["convert", PLAN, "--to", "nftables", "-o", path]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "aws_instance.app.nft",
            "aws_network_interface.bastion.nft",
            "aws_network_interface.db__a__.nft",
            "aws_network_interface.db__b__.nft",
        ]
    );
    for name in names {
        assert_accepted(&std::fs::read_to_string(dir.path().join(name)).unwrap());
    }
    assert!(run.stderr.contains("lost: aws_instance.app: exempt: "), "{}", run.stderr);
}

/// `nft` takes it, where there is one that may be asked.
fn assert_accepted(ruleset: &str) {
    let nft = |commands: &str| -> Option<(bool, String)> {
        let mut nft = Command::new("nft");
        nft.args(["-c", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = nft.spawn().ok()?;
        child.stdin.take()?.write_all(commands.as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        Some((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    match nft("table inet sgwall_probe\n") {
        Some((true, _)) => {
            let (accepted, said) = nft(ruleset).unwrap();
            assert!(accepted, "{said}\n{ruleset}");
            let broken = ruleset.replace("policy drop;", "policy perhaps;");
            assert!(!nft(&broken).unwrap().0, "nft takes anything");
        }
        _ => eprintln!("NOT RUN: there is no nft, or it may not be asked"),
    }
}

#[test]
fn mistakes_end_with_their_status_and_the_mend() {
    let several = sgwall(&["convert", PLAN, "--to", "nftables"]);
    assert_eq!(several.status, 2);
    assert!(
        several.stderr.contains("choose one with --interface, or name a directory with -o for all of aws_network_interface.bastion, "),
        "{}",
        several.stderr
    );
    let unknown = sgwall(&["convert", POLICY, "--to", "nftables", "-i", "eni-0"]);
    assert_eq!(unknown.status, 2);
    assert!(
        unknown.stderr.contains("the policy has no interface \"eni-0\"; it has: "),
        "{}",
        unknown.stderr
    );
    assert_eq!(sgwall(&["convert", "no-such.toml", "--to", "toml"]).status, 3);
    assert_eq!(sgwall(&["convert", POLICY, "--to", "toml", "-o", "no/such/place"]).status, 3);
    assert_eq!(sgwall(&["convert", POLICY, "--to", "cobol"]).status, 2);
    for device in ["a\"; flush", "much-too-long-for-a-device", ""] {
        let run = sgwall(&["convert", POLICY, "--to", "nftables", "--network-device", device]);
        assert_eq!(run.status, 2, "{device}");
    }
    let refused = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(refused.path(), "version = 2\n").unwrap();
    assert_eq!(sgwall(&["convert", refused.path().to_str().unwrap(), "--to", "aws"]).status, 2);
}
