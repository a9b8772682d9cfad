//! The flow log of a running firewall: what it names is what real hosts did.

use rustix::process::Signal;

use crate::clients::{is_silent, reach};
use crate::lab::{INSTANCE, Lab, Rules, WORLD, can_run, sgwall};

/// At the end the open window is written: what passed, and what was refused, with the rule.
#[test]
fn the_end_writes_what_passed_and_what_was_refused() {
    if !can_run("the_end_writes_what_passed_and_what_was_refused", &[]) {
        return;
    }
    let dir = tempfile::tempdir().expect("done");
    let path = dir.path().join("flow.log");
    let file = path.to_str().expect("done");
    let format = "${interface-id} ${srcaddr} ${dstaddr} ${protocol} ${action} ${log-status} \
                  ${flow-direction} ${rule} ${reason}";
    let args = ["--flow-log", file, "--flow-log-interval", "60", "--flow-log-format", format];
    let mut lab = Lab::new("flowlog", &Rules::NEW, &[&args[..], &["--workers", "2"]].concat());
    reach(&lab.instance, WORLD, "");
    assert!(is_silent(&lab.world, INSTANCE, ""));
    lab.firewall.signal(Signal::TERM);
    assert!(lab.firewall.wait().success());
    let text = std::fs::read_to_string(&path).expect("done");
    let has = |line: &str| text.lines().any(|l| l.contains(line));
    assert!(has(&format!("{WORLD} {INSTANCE} 1 ACCEPT OK ingress")), "{text}");
    assert!(has(&format!("{INSTANCE} {WORLD} 1 ACCEPT OK egress")), "{text}");
    assert!(has(&format!("{WORLD} {INSTANCE} 1 REJECT OK ingress - no-rule")), "{text}");
}

/// A log that cannot be written is an error, with what mends it.
#[test]
fn a_log_that_cannot_be_written_is_an_error_at_the_start() {
    let name = "a_log_that_cannot_be_written_is_an_error_at_the_start";
    if !can_run(name, &[]) {
        return;
    }
    let host = sgwall_netio::netns::Scratch::new("flowlogbad").expect("done");
    let dir = tempfile::tempdir().expect("done");
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, Rules::NEW.text()).expect("done");
    let output = host
        .command(env!("CARGO_BIN_EXE_sgwall"))
        .args(["run", "--instance", "tap-i", "--network", "tap-n", "--interface", "eni-1"])
        .args(["--flow-log", "/nonexistent/flow.log", "--policy"])
        .arg(&policy)
        .arg("--control")
        .arg(dir.path().join("control"))
        .output()
        .expect("done");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot write the flow log /nonexistent/flow.log"), "{said}");
    assert!(said.contains("name a file in a directory"), "{said}");
}

/// Only a file can be renamed.
#[test]
fn standard_output_is_not_rotated() {
    let mut command = sgwall();
    command.args(["run", "--policy", "none.toml", "--flow-log", "-", "--flow-log-rotate", "1"]);
    let output = command.output().expect("done");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("name a file after --flow-log"), "{said}");
}
