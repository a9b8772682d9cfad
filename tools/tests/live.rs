//! `sgwall bench forward`, with real clients where that is possible.
//!
//! The live tests need root, iproute2 and iperf3. Where that is missing they say so and pass,
//! unless `SGWALL_LIVE=required`.

// Tests of the command line look at the clock.
#![allow(clippy::disallowed_methods)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sgwall_netio::netns::can_test;

/// Long enough for any machine; a test that works never waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn sgwall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sgwall"));
    command.args(["bench", "forward"]).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether live tests can run here. If not, says so, and fails where they are required.
fn can_run(test: &str) -> bool {
    can_test(test, &["iperf3"])
}

/// Network namespaces that process `pid` made and has not deleted.
fn left_by(pid: u32) -> Vec<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().expect("ip of iproute2");
    let part = format!("-{pid}-");
    text(&output.stdout).lines().filter(|line| line.contains(&part)).map(str::to_owned).collect()
}

#[test]
fn what_is_missing_is_named_with_the_mend() {
    let output = sgwall().env("PATH", "").output().expect("sgwall runs");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("install it (Debian package iperf3)"), "{errors}");
}

#[test]
fn values_out_of_range_are_refused() {
    for args in
        [["--mtu", "1000"], ["--queues", "0"], ["--seconds", "0"], ["--turn", "9"], ["--labs", "0"]]
    {
        let output = sgwall().args(args).output().expect("sgwall runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(args[0]), "{args:?}");
    }
}

#[test]
fn a_measurement_has_every_figure_and_leaves_nothing_behind() {
    if !can_run("a_measurement") {
        return;
    }
    for more in [&[][..], &["--no-offload", "--queues", "2", "--mtu", "1500"]] {
        let mut command = sgwall();
        command.args(["--seconds", "2", "--turn", "50", "--json"]).args(more);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let pid = child.id();
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let has_offload = more.is_empty();
        assert_eq!(report["offload"] != "none", has_offload, "{report}");
        let results = report["results"].as_array().expect("results");
        assert_eq!(results.len(), 4);
        for result in results {
            let handlers = result["handlers"].as_array().expect("handlers");
            let names: Vec<_> = handlers.iter().map(|handler| &handler["name"]).collect();
            assert_eq!(names, ["null", "firewall"]);
            for handler in handlers {
                assert!(handler["median"].as_f64().expect("a number") > 0.0, "{result}");
            }
            let ratio = |of: &str| result["ratio"][of].as_f64().expect("a number");
            assert!(ratio("low") <= ratio("median") && ratio("median") <= ratio("high"));
        }
        assert_eq!(left_by(pid), [""; 0]);
    }
}

#[test]
fn an_interrupt_ends_it_and_leaves_nothing_behind() {
    if !can_run("an_interrupt") {
        return;
    }
    let mut command = sgwall();
    command.args(["--seconds", "60", "--labs", "9"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let pid = child.id();
    let begin = Instant::now();
    while left_by(pid).len() < 2 {
        assert!(begin.elapsed() < PATIENCE, "it made no namespaces");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status();
    assert!(sent.expect("sh").success());
    let output = child.wait_with_output().expect("ended");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("interrupted"), "{errors}");
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(left_by(pid), [""; 0]);
}
