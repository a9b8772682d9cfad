//! `sgwall replay --flow-log` as a user runs it.

// Tests of the command line read and write files.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What a run left behind.
struct Run {
    stdout: String,
    stderr: String,
    status: i32,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs at the top of the repository.
fn sgwall(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .args(args)
        .current_dir(root())
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap();
    Run {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap(),
    }
}

const EXAMPLE: [&str; 4] =
    ["replay", "tools/example/capture.pcapng", "--policy", "tools/example/policy.toml"];

/// Each line of the snapshots was compared with the packets that `--packets` lists.
#[test]
fn the_example_leaves_the_log_that_is_pinned() {
    let ours = "${srcaddr} ${srcport} ${dstaddr} ${dstport} ${protocol} ${tcp-flags} ${packets} \
                ${action} ${rule} ${stage} ${reason} ${state}";
    for (name, format) in [("v2", "v2"), ("v5", "v5"), ("ours", ours)] {
        let args = ["--flow-log", "-", "--flow-log-format", format];
        let run = sgwall(&[&EXAMPLE[..], &args].concat());
        assert_eq!(run.status, 0, "{}", run.stderr);
        insta::assert_snapshot!(format!("example-{name}"), run.stdout);
    }
}

/// Standard output holds the log alone, the summary goes to standard error, and a file gets the
/// same log while the summary stays where it is.
#[test]
fn a_file_gets_what_standard_output_gets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flow.log");
    let plain = sgwall(&EXAMPLE);
    let to_file = sgwall(&[&EXAMPLE[..], &["--flow-log", &path.display().to_string()]].concat());
    assert_eq!((to_file.status, &to_file.stdout), (0, &plain.stdout));
    let to_stdout = sgwall(&[&EXAMPLE[..], &["--flow-log", "-"]].concat());
    assert_eq!((to_stdout.status, &to_stdout.stderr), (0, &plain.stdout));
    assert_eq!(fs::read_to_string(&path).unwrap(), to_stdout.stdout);
}

#[test]
fn traffic_is_selected_by_its_action() {
    let lines = |traffic: &str| {
        let args = ["--flow-log", "-", "--flow-log-traffic", traffic];
        let run = sgwall(&[&EXAMPLE[..], &args].concat());
        assert_eq!(run.status, 0, "{}", run.stderr);
        run.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (all, accept, reject) = (lines("all"), lines("accept"), lines("reject"));
    let of = |action: &str| -> Vec<String> {
        all.iter().filter(|line| line.contains(action)).cloned().collect()
    };
    assert_eq!((accept, reject), (of(" ACCEPT "), of(" REJECT ")));
    assert_eq!((of(" ACCEPT ").len(), of(" REJECT ").len()), (8, 4));
}

/// Over a real capture: packets by five-tuple, direction and action are those that `--json` tells
/// one by one. A year-long gap in it is told in a bounded number of lines.
#[test]
fn a_real_capture_adds_up() {
    let base = [
        "replay",
        "pcap-fixtures/captures/smtp.pcap",
        "--policy",
        "pcap-fixtures/captures/policy.toml",
        "--local",
        "10.10.1.4",
    ];
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for line in sgwall(&[&base[..], &["--json"]].concat()).stdout.lines() {
        let packet: Value = serde_json::from_str(line).unwrap();
        if packet["type"] != "packet" || packet["verdict"] == "skip" || packet["src"].is_null() {
            continue;
        }
        assert_ne!(packet["stage"], "exempt", "the capture has no exempt traffic");
        let port = |key: &str| packet[key].as_u64().unwrap_or(0);
        let action = if packet["verdict"] == "pass" { "ACCEPT" } else { "REJECT" };
        let text = |key: &str| packet[key].as_str().unwrap().to_owned();
        let (src_port, dst_port) = (port("src_port"), port("dst_port"));
        let (src, dst, way) = (text("src"), text("dst"), text("direction"));
        *expected
            .entry(format!("{src} {src_port} {dst} {dst_port} {way} {action}"))
            .or_default() += 1;
    }
    let format = "${pkt-srcaddr} ${srcport} ${pkt-dstaddr} ${dstport} ${flow-direction} ${action} \
                  ${packets} ${log-status}";
    let run = sgwall(&[&base[..], &["--flow-log", "-", "--flow-log-format", format]].concat());
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for line in run.stdout.lines().filter(|line| line.ends_with(" OK")) {
        let (key, packets) = line.trim_end_matches(" OK").rsplit_once(' ').unwrap();
        *found.entry(key.to_owned()).or_default() += packets.parse::<u64>().unwrap();
    }
    assert!(!found.is_empty());
    assert_eq!(found, expected);
    let idle = run.stdout.lines().filter(|line| line.ends_with(" NODATA")).count();
    assert!((1..200).contains(&idle), "{idle} lines without data");
}

/// A log is of the interfaces that judge: not of the others, which nobody watched.
#[test]
fn only_the_interfaces_that_judge_are_logged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let policy = fs::read_to_string(root().join("tools/example/policy.toml")).unwrap();
    let second = policy
        .split_once("[[interface]]")
        .map(|(_, rest)| rest.replace("eni-web", "eni-idle").replace("10.0.1.10", "10.0.1.11"))
        .unwrap();
    fs::write(&path, format!("{policy}\n[[interface]]{second}")).unwrap();
    let path = path.display().to_string();
    let base = ["replay", "tools/example/capture.pcapng", "--policy", &path, "--flow-log", "-"];
    let both = sgwall(&base);
    assert_eq!(both.status, 0, "{}", both.stderr);
    let idle = "2 - eni-idle - - - - - - - 1704067200 1704067207 - NODATA\n";
    assert!(both.stdout.ends_with(idle), "{}", both.stdout);
    let one = sgwall(&[&base[..], &["--interface", "eni-web"]].concat());
    assert_eq!(one.stdout, both.stdout.replace(idle, ""));
}

#[test]
fn what_cannot_be_is_refused_with_a_mend() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out").display().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["--flow-log", "-", "--json"],
            2,
            "error: --flow-log - and --json both print to standard output; name a file for the \
             flow log\n",
        ),
        (
            &["--flow-log", "-", "--packets"],
            2,
            "error: --flow-log - and --packets both print to standard output; name a file for the \
             flow log\n",
        ),
        (
            &["--pass", &out, "--flow-log", &out],
            2,
            "error: --pass and --flow-log name the same file\n",
        ),
        (
            &["--flow-log", "/nowhere/x"],
            3,
            "error: cannot write /nowhere/x: No such file or directory (os error 2)\n",
        ),
    ];
    for (args, status, expected) in cases {
        let run = sgwall(&[&EXAMPLE[..], args].concat());
        assert_eq!((run.status, run.stderr.as_str()), (*status, *expected), "{args:?}");
        assert_eq!(run.stdout, "", "{args:?}");
    }
    let by_flags: &[(&[&str], &str)] = &[
        (
            &["--flow-log", "-", "--flow-log-format", "${version} ${srcadr}"],
            "field 2, ${srcadr}: no such field; did you mean ${srcaddr}?",
        ),
        (
            &["--flow-log", "-", "--flow-log-interval", "300"],
            "InvalidParameter: an aggregation interval of 300 s; it is 60 or 600",
        ),
        (&["--flow-log-format", "v5"], "--flow-log <FILE|->"),
    ];
    for (args, expected) in by_flags {
        let run = sgwall(&[&EXAMPLE[..], args].concat());
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{args:?}");
        assert!(run.stderr.contains(expected), "{args:?}: {}", run.stderr);
    }
}
