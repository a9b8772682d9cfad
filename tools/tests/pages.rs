//! Manual pages and completions, and when there are colours.

// Tests of the command line read files.
#![allow(clippy::disallowed_methods)]

mod common;

use common::sgwall;

const ESCAPE: char = '\u{1b}';

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let run = sgwall(&["man", dir.path().to_str().unwrap()]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let help = sgwall(&["--help"]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let page = dir.path().join(format!("sgwall-{command}.1"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{page:?}: {e}"));
        assert!(text.contains(".SH NAME") && text.contains(".SH DESCRIPTION"), "{command}");
    }
    let run = sgwall(&["man", "/dev/null/pages"]);
    assert!(run.status == 3 && run.stderr.contains("/dev/null/pages"), "{}", run.stderr);
}

#[test]
fn shells_are_completed() {
    for (shell, expected) in [
        ("bash", "complete -F _sgwall"),
        ("zsh", "#compdef sgwall"),
        ("fish", "complete -c sgwall"),
    ] {
        let run = sgwall(&["completions", shell]);
        assert!(run.status == 0 && run.stdout.contains(expected), "{shell}: {}", run.stderr);
    }
}

#[test]
fn colours_are_for_terminals_and_for_whoever_asks() {
    let plain =
        sgwall(&["explain", "-p", "tools/example/policy.toml", "tcp 1.2.3.4:5 -> 10.0.1.10:22"]);
    assert!(!plain.stdout.contains(ESCAPE), "{}", plain.stdout);
    let args = ["explain", "-p", "tools/example/policy.toml", "tcp 1.2.3.4:5 -> 10.0.1.10:22"];
    let always = sgwall(&[&["--color", "always"][..], &args].concat());
    assert!(always.stdout.contains(ESCAPE), "{}", always.stdout);
    let never = sgwall(&[&["--color", "never"][..], &args].concat());
    assert_eq!(never.stdout, plain.stdout);
}

#[test]
fn a_capture_can_be_looked_at_as_it_happened() {
    let look = |list: &str, speed: &str| {
        let capture = ["top", "--capture", "tools/example/capture.pcapng"];
        let policy = ["--policy", "tools/example/policy.toml", "--once", "--interval", "0.2"];
        let rest = ["--list", list, "--speed", speed];
        let run = sgwall(&[&capture[..], &policy, &rest].concat());
        assert_eq!(run.status, 0, "{}", run.stderr);
        run.stdout
    };
    // All of it has come.
    let reasons = look("reasons", "1000");
    assert!(reasons.contains("drop no-rule") && reasons.contains("16 in all"), "{reasons}");
    let flows = look("flows", "1000");
    assert!(flows.contains("tcp 198.51.100.7:40001 -> 10.0.1.10:443"), "{flows}");
    // The first packets alone: the next come a second later.
    let early = look("reasons", "0.01");
    assert!(!early.contains("no-rule") && early.contains("allowed-untracked"), "{early}");

    let run = sgwall(&["top", "--capture", "tools/example/capture.pcapng"]);
    assert!(run.status == 2 && run.stderr.contains("--policy"), "{}", run.stderr);
    let run = sgwall(&["top", "--control", "gone.sock", "--once"]);
    assert!(run.status == 3 && run.stderr.contains("is the firewall running?"), "{}", run.stderr);
}
