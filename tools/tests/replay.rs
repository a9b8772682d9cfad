//! `sgwall replay` as a user runs it: the real binary, its output, files and exit status.

// Tests of the command line read and write files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use sgwall_netio::capture::{self, Reader};

/// What a run left behind.
struct Run {
    stdout: String,
    stderr: String,
    status: i32,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sgwall(args: &[&str]) -> Run {
    sgwall_with(args, b"")
}

/// Runs at the top of the repository, with `input` on standard input.
fn sgwall_with(args: &[&str], input: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .args(args)
        .current_dir(root())
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A run that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Run {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap(),
    }
}

fn json_lines(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const EXAMPLE: [&str; 4] =
    ["replay", "tools/example/capture.pcapng", "--policy", "tools/example/policy.toml"];

#[test]
fn without_arguments_it_judges_the_example_and_says_so() {
    let run = sgwall(&["replay"]);
    assert_eq!(run.status, 0);
    assert!(run.stderr.contains("this is the embedded example"), "{}", run.stderr);
    insta::assert_snapshot!("example-summary", run.stdout);
    assert_eq!(sgwall(&EXAMPLE).stdout, run.stdout);
}

#[test]
fn a_line_for_each_packet() {
    let run = sgwall(&[&EXAMPLE[..], &["--packets"]].concat());
    insta::assert_snapshot!("example-packets", run.stdout);
}

#[test]
fn an_object_for_each_packet() {
    let run = sgwall(&[&EXAMPLE[..], &["--json"]].concat());
    insta::assert_snapshot!("example-json", run.stdout);
    let objects = json_lines(&run);
    let (packets, summary) = objects.split_at(objects.len() - 1);
    assert_eq!(packets.len(), 22);
    assert_eq!(summary[0]["type"], "summary");
    for verdict in ["pass", "drop", "skip"] {
        let count = packets.iter().filter(|p| p["verdict"] == verdict).count();
        assert_eq!(summary[0]["frames"][verdict]["packets"], count, "{verdict}");
    }
}

/// Real captures under one policy; each line of the snapshots has been looked at.
#[test]
fn real_captures_are_judged_as_pinned() {
    // The capture, who stands for the server, and whether each packet is worth a line.
    let captures: &[(&str, &str, bool)] = &[
        ("ping.pcap", "74.125.225.99", true),
        ("fragmented-udp.pcap", "164.1.123.61", true),
        ("fragmented-syn.pcap", "10.0.0.5", true),
        ("split-handshake.pcap", "2.2.2.2", true),
        ("rst-inject.pcap", "1.2.0.2", true),
        ("handshake-nano-sll.pcap", "137.116.81.94", true),
        ("sll2.pcap", "192.0.2.1", true),
        ("q-in-q.pcap", "172.19.51.37", true),
        ("invalid-total-length.pcap", "127.0.0.1", true),
        ("damaged.pcap", "0.0.16.64", true),
        ("sections-be.pcapng", "192.168.0.10", true),
        ("ipv6-atomic-fragments.pcap", "2001:db8:1::2", false),
        ("icmp6.pcap", "3ffe:507:0:1:200:86ff:fe05:80da", false),
        ("smtp.pcap", "10.10.1.4", false),
        ("ftp-ipv6.pcap", "2001:470:1f11:81f:c999:d94:aa7c:2e3e", false),
        ("sctp.pcap", "155.230.24.155", false),
    ];
    let dir = root().join("pcap-fixtures/captures");
    let kept = fs::read_dir(&dir).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|e| e == "pcap" || e == "pcapng")
    });
    assert_eq!(kept.count(), captures.len(), "every capture is pinned");
    for (name, local, each_packet) in captures {
        let path = format!("pcap-fixtures/captures/{name}");
        let policy = "pcap-fixtures/captures/policy.toml";
        let mut args = vec!["replay", &path, "--policy", policy, "--local", local];
        if *each_packet {
            args.push("--packets");
        }
        let run = sgwall(&args);
        let text = format!("{}{}exit status {}\n", run.stdout, run.stderr, run.status);
        insta::assert_snapshot!(format!("capture-{}", name.replace('.', "-")), text);
    }
}

#[test]
fn packets_are_written_back_by_their_fate() {
    let dir = tempfile::tempdir().unwrap();
    let (pass, drop) = (dir.path().join("pass.pcapng"), dir.path().join("drop.pcapng"));
    let (pass_text, drop_text) = (pass.display().to_string(), drop.display().to_string());
    let run =
        sgwall(&[&EXAMPLE[..], &["--json", "--pass", &pass_text, "--drop", &drop_text]].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
    let times_of = |verdict: &str| -> Vec<String> {
        json_lines(&run)
            .iter()
            .filter(|p| p["type"] == "packet" && p["verdict"] == verdict)
            .map(|p| format!("{}000", p["time"].as_str().unwrap()))
            .collect()
    };
    let times_in = |path: &Path| {
        let mut reader = capture::open(path).unwrap();
        let mut times = Vec::new();
        while let Some(packet) = reader.next_packet().unwrap() {
            assert_eq!(packet.decimals, 6);
            times.push(packet.time.to_string());
        }
        times
    };
    assert_eq!(times_in(&pass), times_of("pass"));
    assert_eq!(times_in(&drop), times_of("drop"));
    let bytes = fs::read(&drop).unwrap();
    let comment = b"acl-deny (network-acl) by acl-public/90";
    assert!(bytes.windows(comment.len()).any(|window| window == comment));
}

/// Standard input, compressed, and cut short: what is there is judged, then the damage is named.
#[test]
fn standard_input_and_damage() {
    let whole = fs::read(root().join("tools/example/capture.pcapng")).unwrap();
    let args = ["replay", "-", "--policy", "tools/example/policy.toml"];
    let run = sgwall_with(&args, &whole);
    assert_eq!((run.status, run.stdout), (0, sgwall(&EXAMPLE).stdout));
    let run = sgwall_with(&[&args[..], &["--json"]].concat(), &whole[..whole.len() - 3]);
    assert_eq!(run.status, 3);
    assert_eq!(json_lines(&run).len(), 22, "21 packets and the summary");
    let at = whole.len() - 76;
    assert_eq!(
        run.stderr,
        format!(
            "error: standard input: the capture ends within a block that begins at byte {at}: 76 \
             bytes are needed and 73 are there; it was probably cut off while being written or \
             copied, so capture or copy it again; what came before was read\n"
        )
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_mend() {
    let policy = "tools/example/policy.toml";
    let capture = "tools/example/capture.pcapng";
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["replay", capture],
            2,
            "error: no policy given; name one with --policy FILE (TOML, or JSON of aws ec2 describe-*)\n",
        ),
        (
            &["replay", "-p", policy],
            2,
            "error: no capture given; name one, or - for standard input\n",
        ),
        (
            &["replay", "nowhere.pcap", "-p", policy],
            3,
            "error: nowhere.pcap: No such file or directory (os error 2)\n",
        ),
        (
            &["replay", capture, "-p", "nowhere.toml"],
            3,
            "error: cannot read nowhere.toml: No such file or directory (os error 2)\n",
        ),
        (
            &["replay", "README.md", "-p", policy],
            3,
            "error: README.md: not a packet capture: it begins with 23 20 73 67; pcap and pcapng are read, plain or compressed with gzip or zstd\n",
        ),
        (
            &["replay", capture, "-p", "docs"],
            2,
            "error: docs: the directory holds no .toml or .json file; name the policy files themselves\n",
        ),
        (
            &["replay", capture, "-p", policy, "-i", "eni-x"],
            2,
            "error: --interface eni-x: no such interface; the policy has eni-web\n",
        ),
        (
            &["replay", capture, "-p", policy, "--pass", "x", "--drop", "x"],
            2,
            "error: --pass and --drop name the same file\n",
        ),
        (
            &["replay", capture, "-p", policy, "--pass", "/nowhere/x"],
            3,
            "error: /nowhere/x: No such file or directory (os error 2)\n",
        ),
    ];
    for (args, status, expected) in cases {
        let run = sgwall(args);
        assert_eq!((run.status, run.stderr.as_str()), (*status, *expected), "{args:?}");
        assert!(run.stdout.is_empty() || *status == 3, "{args:?} printed {}", run.stdout);
    }
    for args in [&["replay", "--colour"][..], &["replay", "--local", "x"], &["judge"]] {
        let run = sgwall(args);
        assert_eq!(run.status, 2, "{args:?}");
        assert!(run.stderr.contains("error:"), "{}", run.stderr);
    }
    // A policy after --policy swallows the capture on the command line, not in what it means.
    assert_eq!(sgwall(&["replay", "-p", policy, capture]).status, 0);
}

#[test]
fn a_broken_policy_judges_nothing_and_names_every_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let text = fs::read_to_string(root().join("tools/example/policy.toml")).unwrap();
    fs::write(
        &path,
        text.replace("ports = \"443\"", "ports = \"443-1\"").replace("rule = 90", "rule = 0"),
    )
    .unwrap();
    let path = path.display().to_string();
    let run = sgwall(&["replay", "tools/example/capture.pcapng", "-p", &path]);
    assert_eq!((run.status, run.stdout.as_str()), (2, ""));
    let lines: Vec<_> = run.stderr.lines().collect();
    assert!(lines[0].contains("the range \"443-1\" is reversed"), "{}", run.stderr);
    assert!(lines[1].contains("rule = 0 is out of range"), "{}", run.stderr);
    assert_eq!(lines[2], "error: the policy has 2 errors; nothing was judged");
}

#[test]
fn direction_and_interface_may_be_said() {
    let base =
        ["replay", "pcap-fixtures/captures/ping.pcap", "-p", "pcap-fixtures/captures/policy.toml"];
    let verdicts = |more: &[&str]| -> Vec<String> {
        let run = sgwall(&[&base[..], more, &["--json"]].concat());
        assert_eq!(run.status, 0, "{}", run.stderr);
        json_lines(&run)
            .iter()
            .filter(|p| p["type"] == "packet")
            .map(|p| {
                format!(
                    "{} {}",
                    p["direction"].as_str().unwrap_or("-"),
                    p["reason"].as_str().unwrap()
                )
            })
            .collect()
    };
    assert_eq!(verdicts(&[]), ["- not-ours"; 4]);
    assert_eq!(verdicts(&["-d", "ingress"]), ["ingress src-dst-check"; 4]);
    assert_eq!(
        verdicts(&["-i", "eni-1", "-l", "74.125.0.0/16"]),
        ["ingress allowed-tracked", "egress reply", "ingress established", "egress reply"]
    );
}

/// The policy changes in the middle: seconds after the first packet, or absolute.
#[test]
fn the_policy_may_change_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed.toml");
    let text = fs::read_to_string(root().join("tools/example/policy.toml")).unwrap();
    let mut shut = String::new();
    for line in text.lines() {
        let is_rule = line.trim_start().starts_with("{ protocol");
        shut += &format!("{}{line}\n", if is_rule { "# " } else { "" });
    }
    fs::write(&closed, shut).unwrap();
    let closed = closed.display();
    let base = ["replay", "tools/example/capture.pcapng", "-p", "tools/example/policy.toml"];
    let run = |more: &[&str]| {
        let run = sgwall(&[&base[..], more, &["--json"]].concat());
        assert_eq!(run.status, 0, "{}", run.stderr);
        run
    };
    let passed = |run: &Run| {
        let lines = json_lines(run);
        lines.last().unwrap()["frames"]["pass"]["packets"].as_u64().unwrap()
    };
    let first: f64 = json_lines(&run(&[]))[0]["time"].as_str().unwrap().parse().unwrap();
    let open = run(&[]);
    // The untracked connection of the first packets ends with its rule.
    let early = run(&["--at", &format!("0.01={closed}")]);
    assert!(passed(&early) < passed(&open));
    // The tracked one that begins a second later goes on.
    let relative = run(&["--at", &format!("1.01={closed}")]);
    let absolute = run(&["--at", &format!("@{:.6}={closed}", first + 1.01)]);
    assert_eq!(passed(&relative), passed(&open));
    assert_eq!(relative.stdout, absolute.stdout);
    let change = json_lines(&relative).into_iter().find(|line| line["type"] == "policy").unwrap();
    assert_eq!(change["file"], closed.to_string());
    let counts = |change: &Value| ["live", "not_admitted", "ended"].map(|key| change[key].clone());
    assert_eq!(counts(&change), [1, 1, 0]);

    let rejudged = run(&["--at", &format!("1.01={closed}"), "--on-reload", "rejudge"]);
    let change = json_lines(&rejudged).into_iter().find(|line| line["type"] == "policy").unwrap();
    assert_eq!(counts(&change), [1, 1, 1]);
    assert!(passed(&rejudged) < passed(&relative));

    let never = run(&["--at", &format!("86400={closed}")]);
    assert_eq!(never.stdout, open.stdout);
    assert!(never.stderr.contains("the captures end before that time"), "{}", never.stderr);

    let wrong = sgwall(&[&base[..], &["--at", "soon=p.toml"]].concat());
    assert_eq!(wrong.status, 2);
    assert!(wrong.stderr.contains("\"soon\" is no time"), "{}", wrong.stderr);
    let missing = sgwall(&[&base[..], &["--at", "1=/nonexistent.toml"]].concat());
    assert_eq!((missing.status, missing.stdout.as_str()), (3, ""));
}

/// The reader of the output may go away at any time: that is no error.
#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .args(EXAMPLE)
        .arg("--json")
        .current_dir(root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every shared capture, under the policy of the pins: an end, and no panic.
#[test]
fn every_shared_capture_is_judged() {
    let dir = root().join("../shared/pcaps");
    let Ok(entries) = fs::read_dir(&dir) else {
        eprintln!("NOT RUN: there are no shared captures beside the repository");
        return;
    };
    let mut judged = 0;
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|e| e == "tsv" || e == "md") {
            continue;
        }
        let name = path.display().to_string();
        let policy = "pcap-fixtures/captures/policy.toml";
        let run = sgwall(&["replay", &name, "-p", policy, "-l", "0.0.0.0/1", "-l", "2000::/4"]);
        let damaged = name.contains("bug-6875-01__fuzz");
        assert_eq!(run.status, if damaged { 3 } else { 0 }, "{name}: {}", run.stderr);
        let packets = {
            let bytes = fs::read(&path).unwrap();
            let mut reader = Reader::new(&bytes[..], &name).unwrap();
            std::iter::from_fn(|| reader.next_packet().ok().flatten().map(|_| ())).count()
        };
        let all = run.stdout.lines().find(|line| line.starts_with("all ")).unwrap();
        let counted = all.split_whitespace().nth(1).unwrap().replace(',', "");
        assert_eq!(counted, packets.to_string(), "{name}");
        judged += 1;
    }
    assert!(judged > 100, "only {judged} captures");
}
