//! `sgwall explain` as a user runs it: the real binary, its output and exit status.

// Tests of the command line read files.
#![allow(clippy::disallowed_methods)]

mod common;

use common::{Run, sgwall};
use serde_json::Value;

const POLICY: &str = "tools/tests/explain/policy.toml";

/// Explains what is asked in words, under the policy of these tests.
fn explain(words: &[&str]) -> Run {
    sgwall(&[&["explain", "--policy", POLICY], words].concat())
}

fn json(words: &[&str]) -> Value {
    let run = explain(&[words, &["--json"]].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 1);
    serde_json::from_str(&run.stdout).unwrap()
}

/// Telling packets; each line of the snapshots has been looked at.
#[test]
fn packets_are_explained_as_pinned() {
    let pinned: &[(&str, &[&str])] = &[
        ("ssh-from-elsewhere", &["tcp 203.0.113.70:50000 -> 192.0.2.200:22"]),
        ("ssh-denied-by-the-acl", &["tcp 198.51.100.7:50000 -> 10.0.1.10:22"]),
        ("no-acl-entry", &["tcp 192.0.2.9:50000 -> 10.0.1.20:8010"]),
        ("https", &["ingress tcp 198.51.100.7:50000 -> 10.0.1.10:443"]),
        ("web-to-database", &["tcp 10.0.1.10:40000 -> 10.0.2.20:5432"]),
        ("web-to-database-wrong-port", &["tcp 10.0.1.10:40000 -> 10.0.2.20:5433"]),
        ("stale-reference", &["udp 10.8.0.5:4500 -> 10.0.1.10:4500"]),
        ("many-rules", &["tcp 10.0.77.7:50000 -> 10.0.1.20:8050"]),
        ("many-rules-all", &["--all", "tcp 10.0.77.7:50000 -> 10.0.1.20:8050"]),
        (
            "answer-of-a-tracked-flow",
            &[
                "--after",
                "tcp 10.0.1.10:40000 -> 10.0.99.9:443 S @10",
                "--after",
                "@10.1 tcp 10.0.99.9:443 -> 10.0.1.10:40000 SA ack=1",
                "tcp 10.0.1.10:40000 -> 10.0.99.9:443 A seq=1 ack=1 @10.25",
            ],
        ),
        (
            "answer-too-late",
            &[
                "--after",
                "udp 10.0.1.20:40000 -> 10.0.99.9:53",
                "udp 10.0.99.9:53 -> 10.0.1.20:40000 @30",
            ],
        ),
        ("black-hole", &["tcp 10.0.1.10:443 -> 198.51.100.7:50000 A len=1600 df"]),
        ("too-large-ipv6", &["tcp [2001:db8:0:1::10]:40000 -> [2001:db8:ffff::1]:443 len=1600"]),
        ("cut-into-fragments", &["udp 10.0.1.10:40000 -> 198.51.100.7:53 len=4000"]),
        ("later-fragment-first", &["udp 203.0.113.9:50000 -> 10.0.1.10:53 frag=7:1480"]),
        (
            "later-fragment",
            &[
                "--after",
                "udp 10.0.1.20:40000 -> 10.0.99.9:53 len=1000 frag=7:0+",
                "udp 10.0.1.20:40000 -> 10.0.99.9:53 len=100 frag=7:1008",
            ],
        ),
        ("dns", &["udp 10.0.1.10:40000 -> 10.0.0.2:53"]),
        ("ping-refused", &["icmp 203.0.113.9 -> 10.0.1.20 echo-request"]),
        ("spoofed", &["--interface", "eni-db", "egress udp 10.0.9.9:53 -> 203.0.113.1:5000"]),
    ];
    for (name, words) in pinned {
        let run = explain(words);
        assert_eq!(run.status, 0, "{name}: {}", run.stderr);
        for line in run.stdout.lines() {
            assert!(line.chars().count() <= 100, "{name}: more than 100 columns: {line}");
            assert_eq!(line.trim_end(), line, "{name}: blanks at the end");
            assert!(!line.contains('\u{1b}'), "{name}: colour without a terminal");
        }
        insta::assert_snapshot!(*name, run.stdout);
    }
}

/// As one word, as several, with `to` for the arrow, or with the arrow quoted: the same question.
#[test]
fn a_packet_may_be_typed_in_many_ways() {
    let one = explain(&["tcp 198.51.100.7:50000 -> 10.0.1.10:443 A len=10"]);
    for words in [
        &["tcp", "198.51.100.7:50000", "to", "10.0.1.10:443", "A", "len=10"][..],
        &["tcp", "198.51.100.7:50000", "->", "10.0.1.10:443", "A", "len=10"],
        &["ingress", "tcp", "198.51.100.7:50000", "to", "10.0.1.10:443", "A", "len=10"],
        &["in tcp 198.51.100.7:50000 to 10.0.1.10:443", "A len=10"],
    ] {
        assert_eq!(explain(words).stdout, one.stdout, "{words:?}");
    }
    let quoting = "icmp 203.0.113.9 -> 10.0.1.10 frag-needed mtu=1400 \
                   quote=\"tcp 10.0.1.10:22 -> 203.0.113.1:5000 A\"";
    let split = [
        "icmp",
        "203.0.113.9",
        "to",
        "10.0.1.10",
        "frag-needed",
        "mtu=1400",
        "quote=tcp 10.0.1.10:22 -> 203.0.113.1:5000 A",
    ];
    let (quoting, split) = (explain(&[quoting]), explain(&split));
    assert_eq!((quoting.status, &quoting.stdout), (0, &split.stdout), "{}", split.stderr);
}

/// A direction that is said holds against the addresses; without one they tell.
#[test]
fn a_direction_is_as_said() {
    let told = json(&["-i", "eni-web", "egress", "tcp 10.0.1.10:1 -> 10.0.1.20:2"]);
    assert_eq!(told["sides"].as_array().unwrap().len(), 1);
    assert_eq!(told["sides"][0]["direction"], "egress");
    let both = json(&["tcp 10.0.1.10:1 -> 10.0.1.20:2"]);
    assert_eq!(both["sides"].as_array().unwrap().len(), 2);
    let one = json(&["ingress tcp 10.0.1.10:1 -> 10.0.1.20:2"]);
    assert_eq!(one["sides"].as_array().unwrap().len(), 1);
    assert_eq!(one["sides"][0]["interface"], "eni-many");
    let against = json(&["-i", "eni-web", "ingress tcp 10.0.1.10:1 -> 198.51.100.7:2"]);
    assert_eq!(against["decision"]["reason"], "src-dst-check");
}

/// SEMANTICS case 20: whether a flow is known is a matter of what came before, and when.
#[test]
fn history_and_time_make_flows() {
    let reason = |words: &[&str]| json(words)["decision"]["reason"].clone();
    let query = "udp 10.0.1.20:40000 -> 10.0.99.9:53";
    let answer = "udp 10.0.99.9:53 -> 10.0.1.20:40000";
    assert_eq!(reason(&[answer]), "no-rule");
    assert_eq!(reason(&["--after", query, answer]), "reply");
    assert_eq!(reason(&["--after", query, answer, "@29.9"]), "reply");
    assert_eq!(reason(&["--after", query, "@30", answer]), "no-rule");
    let later = format!("@40 {query}");
    assert_eq!(reason(&["--after", query, "--after", &later, answer]), "reply");
}

#[test]
fn a_frame_of_a_capture_has_what_came_before_as_its_history() {
    let capture = "tools/example/capture.pcapng";
    let example =
        ["explain", "--policy", "tools/example/policy.toml", capture, "--json", "--frame"];
    let replay = sgwall(&["replay", capture, "-p", "tools/example/policy.toml", "--json"]);
    let mut compared = 0;
    for line in replay.stdout.lines() {
        let judged: Value = serde_json::from_str(line).unwrap();
        if judged["type"] != "packet" || !judged["emitted"].is_null() {
            continue;
        }
        let run = sgwall(&[&example[..], &[&judged["frame"].to_string()]].concat());
        let told: Value = serde_json::from_str(&run.stdout).unwrap();
        let decision = &told["decision"];
        // What had to wait was judged later than it was asked about.
        if decision["verdict"] == "held" {
            continue;
        }
        for field in ["verdict", "stage", "reason", "rule", "state"] {
            assert_eq!(decision[field], judged[field], "{field} of {judged}");
        }
        compared += 1;
    }
    assert_eq!(compared, 22);
}

#[test]
fn the_object_has_what_is_documented() {
    let told = json(&["tcp 203.0.113.70:50000 -> 10.0.1.10:22"]);
    assert_eq!((&told["type"], &told["version"]), (&"explanation".into(), &1.into()));
    assert_eq!(told["packet"]["text"], "tcp 203.0.113.70:50000 -> 10.0.1.10:22 S");
    let side = &told["sides"][0];
    assert_eq!(side["remedy"]["rule"], "ingress tcp 22 from 203.0.113.70/32");
    let stages = side["stages"].as_array().unwrap();
    let groups = stages.iter().find(|s| s["stage"] == "security-group").unwrap();
    assert_eq!(groups["outcome"], "dropped");
    assert_eq!(groups["considered"][0]["mismatches"][0]["field"], "port");
    assert_eq!(stages.last().unwrap()["outcome"], "not-reached");
    // Every key is in the document.
    let document = std::fs::read_to_string(common::root().join("docs/explain-json.md")).unwrap();
    let big = json(&["tcp 10.0.1.10:443 -> 198.51.100.7:50000 A len=1600 df"]);
    let flow =
        json(&["--after", "udp 10.0.1.20:4 -> 10.0.99.9:5", "udp 10.0.99.9:5 -> 10.0.1.20:4"]);
    let mut keys = Vec::new();
    for object in [&told, &big, &flow] {
        collect_keys(object, &mut keys);
    }
    for key in keys {
        let is_told = [format!("`{key}`"), format!("\"{key}\":")];
        assert!(is_told.iter().any(|k| document.contains(k)), "{key} is not documented");
    }
}

fn collect_keys(value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                keys.push(key.clone());
                collect_keys(value, keys);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

/// What is wrong is named, with the mend, and ends with status 2.
#[test]
fn mistakes_are_named() {
    let packet = "tcp 198.51.100.7:1 -> 10.0.1.10:2";
    let capture = "tools/example/capture.pcapng";
    let mistakes: &[(&[&str], &str)] = &[
        (&["-i", "eni-9", packet], "--interface eni-9: no such interface; the policy has eni-web"),
        (
            &["tcp 198.51.100.7:1 -> 198.51.100.8:2"],
            "the packet concerns nobody: neither 198.51.100.7",
        ),
        (&["egress", packet], "egress of which interface? 198.51.100.7 is no interface's address"),
        (&["tcp 198.51.100.7:1 -> 10.0.1:2"], "\"10.0.1:2\" is not ADDRESS:PORT"),
        (&["tpc 198.51.100.7:1 -> 10.0.1.10:2"], "\"tpc\" is no protocol"),
        (&["tcp 198.51.100.7:1 -> 10.0.1.10:2 X"], "\"X\" is not made of the flags"),
        (&["tcp 198.51.100.7:1"], "the packet ends where '->' should be"),
        (&["tcp", "198.51.100.7:1", "-"], "quote the packet, or write `to` in place of `->`"),
        (&["udp 10.0.1.10:1 -> 198.51.100.7:2 len=65530"], "an IP packet has at most 65535"),
        (&[packet, "@soon"], "\"@soon\" is not a time"),
        (&["--after", "tcp nobody -> 10.0.1.10:2", packet], "--after cannot be read: \"nobody\""),
        (&[capture], "is a file: say which of its frames to explain, with --frame N"),
        (&[capture, "--frame", "23"], "--frame 23: tools/example/capture.pcapng has 22 frames"),
        (&[capture, "another.pcap", "--frame", "1"], "--frame is of one capture"),
        (&[capture, "--frame", "0"], "0 is not in 1.."),
    ];
    for (words, message) in mistakes {
        let run = explain(words);
        assert_eq!(run.status, 2, "{words:?}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{words:?}");
    }
    let run = explain(&["no-such.pcap", "--frame", "1"]);
    assert_eq!(run.status, 3, "{}", run.stderr);
    let run = sgwall(&["explain", "-p", "no-such.toml", packet]);
    assert_eq!(run.status, 3, "{}", run.stderr);
}

/// The word at fault is underlined.
#[test]
fn a_mistake_in_a_packet_is_pointed_at() {
    for (packet, word) in [
        ("tcp 198.51.100.7:1 -> 10.0.1:2", "10.0.1:2"),
        ("tcp 198.51.100.7:1 -> 10.0.1.10:2 X", "X"),
        ("udp 10.0.1.1:1 -> 10.0.1.10:2 len=many", "many"),
        ("icmp 10.0.1.1 = 10.0.1.10", "="),
        ("tcp 198.51.100.7:1 -> [2001:db8::1]:2", "2001:db8::1"),
    ] {
        let run = explain(&[packet]);
        assert_eq!(run.status, 2, "{packet}");
        let lines: Vec<_> = run.stderr.lines().collect();
        let at = lines[1].rfind(word).unwrap();
        assert_eq!(lines[2], format!("{}{}", " ".repeat(at), "^".repeat(word.len())), "{packet}");
    }
    let run = explain(&["tcp 198.51.100.7:1 ->"]);
    let lines: Vec<_> = run.stderr.lines().collect();
    assert_eq!(lines[2].len(), lines[1].len() + 2, "what is missing would stand there");
}
