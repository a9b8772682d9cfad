//! A firewall that cannot start says what is wrong and what mends it, with exit status 3, or 2 where
//! it is the command line or the policy.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sgwall_netio::netns::Scratch;

use crate::clients::reach;
use crate::lab::{INSTANCE, Lab, Rules, WORLD, can_run, eventually, sgwall, text};

/// Runs `sgwall run` in a namespace, behind the words of `before`, with `devices`; it must fail:
/// its exit status and what it said.
fn fails(host: &Scratch, before: &[&str], devices: [&str; 2], control: &str) -> (i32, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, Rules::NEW.text()).expect("written");
    let mut command = host.command("timeout");
    command.arg("20").args(before).args([env!("CARGO_BIN_EXE_sgwall"), "run", "--policy"]);
    command.arg(&policy).args(["--interface", "eni-1", "--instance", devices[0]]);
    let own = dir.path().join("control");
    let control = if control.is_empty() { own.to_str().expect("a path") } else { control };
    let output = command.args(["--network", devices[1], "--control", control]).output();
    let output = output.expect("timeout of coreutils");
    // Nothing of it is left: neither device nor socket.
    assert!(!own.exists());
    (output.status.code().expect("an exit status"), text(&output.stderr))
}

#[test]
fn what_cannot_be_opened_is_named() {
    if !can_run("what_cannot_be_opened_is_named", &["setpriv", "timeout"]) {
        return;
    }
    let lab = Lab::new("start", &Rules::NEW, &[]);
    let free = ["tap-a", "tap-b"];
    // A TAP interface that another sgwall has open.
    let (status, errors) = fails(&lab.instance, &[], ["tap-i", "tap-b"], "");
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("interface tap-i is in use; stop the program"), "{errors}");
    // An interface that exists and is none, and one that does not exist and should.
    let (status, errors) = fails(&lab.middle, &[], ["lo", "tap-b"], "");
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("interface lo exists, but is not a TAP"), "{errors}");
    let (status, errors) = fails(&lab.middle, &[], ["tap-a", "packet:eth9"], "");
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("there is no interface eth9"), "{errors}");
    // Without privileges.
    let unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let (status, errors) = fails(&lab.middle, &unprivileged, free, "");
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("no permission to") && errors.contains("CAP_NET_ADMIN"), "{errors}");
    // A control socket that is served, and a file that is none.
    let (status, errors) =
        fails(&lab.middle, &[], free, lab.firewall.control().to_str().expect("a path"));
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("another sgwall serves it"), "{errors}");
    let policy = lab.firewall.policy();
    let (status, errors) = fails(&lab.middle, &[], free, policy.to_str().expect("a path"));
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("a file of that name that is no socket"), "{errors}");
    assert!(policy.exists());
    // The one that runs has noticed nothing.
    assert_eq!(lab.firewall.stats()["generation"], 1);
    reach(&lab.instance, WORLD, "");
}

#[test]
fn a_socket_that_nobody_serves_is_replaced() {
    if !can_run("a_socket_that_nobody_serves_is_replaced", &[]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let control = path.to_str().expect("a path");
    let middle = Scratch::new("socket").expect("a namespace");
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, Rules::NEW.text()).expect("written");
    let mut command = middle.command(env!("CARGO_BIN_EXE_sgwall"));
    command.arg("run").arg("--policy").arg(&policy).args(["--control", control]);
    command.args(["--interface", "eni-1", "--instance", "tap-i", "--network", "tap-n"]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("started");
    eventually("it is served", || {
        let mut stats = sgwall();
        stats.args(["stats", "--control", control]);
        stats.output().expect("sgwall runs").status.success()
    });
    let mode = fs::metadata(&path).expect("a socket").permissions().mode() & 0o777;
    child.kill().expect("it runs");
    child.wait().expect("its end");
    assert_eq!(mode, 0o600);
}

#[test]
fn a_command_line_that_cannot_be_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, Rules::NEW.text()).expect("written");
    let run = |args: &[&str]| {
        let mut command = sgwall();
        let output = command.arg("run").arg("--policy").arg(&policy).args(args).output();
        let output = output.expect("sgwall runs");
        (output.status.code(), text(&output.stderr))
    };
    let (status, errors) = run(&[]);
    assert_eq!(status, Some(2), "{errors}");
    assert!(errors.contains("no devices; say --interface ENI"), "{errors}");
    let (status, errors) =
        run(&["--interface", "eni-2", "--instance", "tap-i", "--network", "tap-n"]);
    assert_eq!(status, Some(2), "{errors}");
    assert!(errors.contains("--interface eni-2: no such interface; the policy has eni-1"));
    fs::write(&policy, Rules::NEW.text().replace(INSTANCE, "10.9.9.9")).expect("written");
    let (status, errors) = run(&[]);
    assert_eq!(status, Some(2), "{errors}");
    assert!(errors.contains("policy.toml:") && errors.contains("10.9.9.9"), "{errors}");
}
