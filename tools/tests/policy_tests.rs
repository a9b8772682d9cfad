//! `sgwall test` as a user runs it: what it prints and writes, and its exit status.

// Tests of the command line write files and wait for them to be seen.
#![allow(clippy::disallowed_methods)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{root, sgwall};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with the example's policies and this test file.
fn folder(tests: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for policy in ["web.toml", "web-v2.toml"] {
        let from = root().join("examples/policy-tests").join(policy);
        std::fs::copy(from, folder.path().join(policy)).unwrap();
    }
    std::fs::copy(
        root().join("tools/example/capture.pcapng"),
        folder.path().join("capture.pcapng"),
    )
    .unwrap();
    std::fs::write(folder.path().join("a.test.toml"), tests).unwrap();
    folder
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Two expectations that do not hold, in lines 6 and 12, and one that does.
const FAILING: &str = r#"policy = "web.toml"
[[test]]
name = "one & <two>"
steps = [
  "tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => pass",
  "tcp 198.51.100.7:50000 -> 10.0.1.10:22 S => pass",
]
[[test]]
name = "a capture"
capture = "capture.pcapng"
expect = [
  "nothing from 198.51.100.66 is dropped",
]
[[test]]
name = "fine"
steps = ["tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => pass"]
"#;

#[test]
fn what_fails_is_explained_in_every_form() {
    let folder = folder(FAILING);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (junit, sarif) = (path("out.xml"), path("out.sarif"));
    let run = sgwall(&["test", &path(""), "--junit", &junit, "--sarif", &sarif]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    for expected in [
        "FAIL  one & <two>",
        "line 6: tcp 198.51.100.7:50000 -> 10.0.1.10:22 S => pass",
        "expected pass, found drop no-rule",
        "mend     ingress tcp 22 from 198.51.100.7/32",
        "of 3 packets 3 are dropped (100.000%)",
        "first seen in frame 10 of",
        "ok    fine",
        "3 tests: 1 passed, 2 failed",
    ] {
        assert!(run.stdout.contains(expected), "{expected}: {}", run.stdout);
    }
    let xml = text(Path::new(&junit));
    assert!(xml.contains(r#"tests="3" skipped="0" failures="2""#), "{xml}");
    assert!(xml.contains("one &amp; &lt;two&gt;"), "{xml}");
    assert!(xml.contains("mend     ingress tcp 22 from 198.51.100.7/32"), "{xml}");
    assert!(!xml.contains('\u{1b}'), "colours are for terminals");

    let sarif: Value = serde_json::from_str(&text(Path::new(&sarif))).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let lines: Vec<_> = results
        .iter()
        .map(|result| &result["locations"][0]["physicalLocation"]["region"]["startLine"])
        .collect();
    assert_eq!(lines, [6, 12]);

    let run = sgwall(&["test", &path("a.test.toml"), "--json"]);
    assert_eq!(run.status, 1);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&json["passed"], &json["failed"]), (&1.into(), &2.into()));
    let failure = &json["tests"][1]["failures"][0];
    assert_eq!((&failure["line"], &failure["frame"]), (&12.into(), &10.into()));
    assert_eq!(failure["explanation"]["decision"]["reason"], "no-rule");
}

#[test]
fn policies_take_over_and_time_passes() {
    let tests = r#"policy = "web.toml"
[[test]]
name = "kept"
steps = [
  "tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => pass state new",
  "after 119.999 s",
  "after reload of web-v2.toml",
  "tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => pass established by sg-web/ingress-2",
  "after 2 min",
  "tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => drop no-rule",
]
[[test]]
name = "judged again"
on_reload = "rejudge"
steps = [
  "tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => pass state new",
  "after reload of web-v2.toml",
  "tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => drop no-rule",
]
[[test]]
name = "in the middle of a capture"
capture = "capture.pcapng"
at = "0.5=web-v2.toml"
expect = ["every packet to port 22 is dropped for no-rule", "frame 8 => drop"]
[[test]]
name = "one interface, and what stands for it"
interface = "eni-web"
local = "192.168.7.0/24"
steps = ["tcp 203.0.113.9:50000 -> 192.168.7.9:22 S => pass"]
[[test]]
name = "a full table"
max_flows = 1
steps = [
  "tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => pass",
  "tcp 203.0.113.9:50001 -> 10.0.1.10:22 S => drop conntrack-full",
]
"#;
    let folder = folder(tests);
    let run = sgwall(&["test", folder.path().to_str().unwrap()]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("5 tests: 5 passed"), "{}", run.stdout);
}

#[test]
fn what_cannot_be_run_is_told_and_no_test_passes_for_it() {
    let good = "[[test]]\nname = \"a\"\npolicy = \"web.toml\"\n";
    for (tests, status, expected) in [
        ("policy = 1", 2, "a.test.toml:1: "),
        (&format!("{good}steps = [\"tcp 1.2.3.4:1 -> 10.0.1.10:22 S\"]"), 2, "a.test.toml:4: "),
        (&format!("{good}steps = [\"udp 1.2.3.4:1 -> 10.0.1.10:2 len=65535 => pass\"]"), 2, ":4: "),
        (&format!("{good}capture = \"gone.pcap\"\nexpect = [\"nothing passes\"]"), 3, "gone.pcap"),
        (
            &good.replace("web.toml", "gone.toml").replace(
                "[[test]]",
                "[[test]]\nsteps = [\"tcp 1.2.3.4:1 -> 10.0.1.10:22 S => pass\"]",
            ),
            3,
            "gone.toml",
        ),
        (&format!("{good}capture = \"web.toml\"\nexpect = [\"nothing passes\"]"), 3, "web.toml"),
    ] {
        let folder = folder(tests);
        let run = sgwall(&["test", folder.path().to_str().unwrap()]);
        assert_eq!(run.status, status, "{tests}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(expected), "{tests}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{tests}");
    }
    let empty = tempfile::tempdir().unwrap();
    let run = sgwall(&["test", empty.path().to_str().unwrap()]);
    assert!(run.status == 2 && run.stderr.contains("ends in .test.toml"), "{}", run.stderr);
    let run = sgwall(&["test", "examples/policy-tests", "--only", "no such name"]);
    assert!(run.status == 2 && run.stderr.contains("no test has that"), "{}", run.stderr);
}

#[test]
fn watching_runs_again_when_the_policy_changes() {
    let folder = folder(
        "[[test]]\nname = \"a\"\npolicy = \"web.toml\"\nsteps = [\"tcp 203.0.113.9:5 -> \
         10.0.1.10:22 S => pass\"]",
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .args(["test", "--watch"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let result = |line: &String| line.contains("passed, ");
    assert!(lines.find(result).unwrap().contains("1 passed, 0 failed"));
    std::fs::copy(folder.path().join("web-v2.toml"), folder.path().join("web.toml")).unwrap();
    let again = lines.find(result).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(again.contains("0 passed, 1 failed"), "{again}");
}
