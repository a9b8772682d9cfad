//! `sgwall diff` as a user runs it.

// Tests of the command line write files.
#![allow(clippy::disallowed_methods)]

mod common;

use common::sgwall;
use serde_json::Value;

const OLD: &str = "examples/policy-tests/web.toml";
const NEW: &str = "examples/policy-tests/web-v2.toml";
const CAPTURE: &str = "tools/example/capture.pcapng";

fn json(args: &[&str]) -> Value {
    let run = sgwall(&[&["diff", "--json"], args].concat());
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stderr))
}

#[test]
fn a_capture_tells_which_flows_change_and_which_live_on() {
    let run = sgwall(&["diff", OLD, NEW, "--capture", CAPTURE]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    for expected in [
        "removed       ingress-2  ingress tcp 22 from 203.0.113.0/24",
        "- tcp 22 of 203.0.113.0/24",
        "21 packets, of which 2 become something else, in 1 flow",
        "REFUSED ANEW: WHAT IS TRACKED AT THE CHANGE GOES ON",
        "eni-web ingress tcp 203.0.113.9:50022 -> 10.0.1.10:22",
        "pass allowed-tracked by sg-web/ingress-2 state new, then drop no-rule",
    ] {
        assert!(run.stdout.contains(expected), "{expected}: {}", run.stdout);
    }
    let report = json(&[OLD, NEW, "--capture", CAPTURE]);
    let traffic = &report["traffic"][0];
    assert_eq!((&traffic["packets"], &traffic["unchanged"]), (&21.into(), &19.into()));
    let flow = &traffic["changed"][0];
    assert_eq!((&flow["is_tracked"], &flow["passes"]), (&true.into(), &false.into()));
    // The other way round it is allowed.
    let report = json(&[NEW, OLD, "--capture", CAPTURE]);
    assert_eq!(report["traffic"][0]["changed"][0]["passes"], true);
    assert_eq!(report["policy"]["interfaces"][0]["gained"][0], "tcp 22 of 203.0.113.0/24");
}

/// Every packet is counted as often as two replays count it.
#[test]
fn what_changes_is_what_two_replays_differ_in() {
    let passed = |policy: &str| {
        let run = sgwall(&["replay", CAPTURE, "--policy", policy, "--json"]);
        let last: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
        last["frames"]["pass"]["packets"].as_i64().unwrap()
    };
    let changed = |from: &str, to: &str| {
        let report = json(&[from, to, "--capture", CAPTURE]);
        let flows = report["traffic"][0]["changed"].as_array().unwrap().clone();
        let sign = |flow: &Value| if flow["passes"] == true { 1 } else { -1 };
        flows.iter().map(|flow| sign(flow) * flow["packets"].as_i64().unwrap()).sum::<i64>()
    };
    for (from, to) in [(OLD, NEW), (NEW, OLD), (OLD, OLD)] {
        assert_eq!(changed(from, to), passed(to) - passed(from), "{from} {to}");
    }
}

#[test]
fn a_flow_log_is_judged_as_flows_that_begin_anew() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let run = sgwall(&["replay", CAPTURE, "--policy", OLD, "--flow-log", "-"]);
    std::fs::write(log.path(), &run.stdout).unwrap();
    let report = json(&[OLD, NEW, "--flow-log", log.path().to_str().unwrap()]);
    let flows = report["traffic"][0]["changed"].as_array().unwrap();
    assert_eq!(flows.len(), 1, "{report}");
    // Both directions of the connection: two packets in, two out.
    assert_eq!(flows[0]["packets"], 4);
    assert_eq!(flows[0]["flow"], "tcp 203.0.113.9:50022 -> 10.0.1.10:22");

    std::fs::write(log.path(), "2 1 eni-web 10.0.1.300 1.2.3.4 1 2 6 1 1 0 0 ACCEPT OK").unwrap();
    let run = sgwall(&["diff", OLD, NEW, "--flow-log", log.path().to_str().unwrap()]);
    assert!(run.status == 2 && run.stderr.contains(":1: srcaddr \"10.0.1.300\""), "{}", run.stderr);
}

/// In CI the new policy is a plan, and the old one the state.
#[test]
fn a_plan_of_terraform_is_compared_and_tested() {
    let (state, plan) = ("rules/tests/terraform/state.json", "rules/tests/terraform/change.json");
    let report = json(&[state, plan]);
    let groups = report["policy"]["groups"].as_array().unwrap();
    assert!(!groups.is_empty(), "{report}");
    assert!(json(&[state, state])["policy"]["groups"].as_array().unwrap().is_empty());

    let dir = tempfile::tempdir().unwrap();
    let root = common::root();
    let test = |policy: &str| {
        let text = format!(
            "[[test]]\nname = \"a\"\npolicy = {:?}\ncapture = {:?}\nexpect = [\"nothing from \
             240.0.0.0/8 passes\"]\n",
            root.join(policy),
            root.join(CAPTURE)
        );
        let file = dir.path().join("plan.test.toml");
        std::fs::write(&file, text).unwrap();
        sgwall(&["test", file.to_str().unwrap()])
    };
    for policy in [state, plan] {
        let run = test(policy);
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    }
}

#[test]
fn the_exit_status_tells_whether_anything_differs_if_asked() {
    assert_eq!(sgwall(&["diff", OLD, NEW]).status, 0);
    assert_eq!(sgwall(&["diff", OLD, NEW, "--exit-code"]).status, 1);
    let same = sgwall(&["diff", OLD, OLD, "--exit-code", "--capture", CAPTURE]);
    assert_eq!(same.status, 0);
    assert!(same.stdout.contains("The policies allow the same."), "{}", same.stdout);
    assert_eq!(sgwall(&["diff", OLD, "gone.toml"]).status, 3);
    let run = sgwall(&["diff", OLD, NEW, "--live", "--control", "gone.sock"]);
    assert!(run.status == 3 && run.stderr.contains("is the firewall running?"), "{}", run.stderr);
}
