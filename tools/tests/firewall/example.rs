//! `examples/two-namespaces.sh` does what its text says.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::{can_run, text};

#[test]
fn the_example_of_two_namespaces_runs() {
    let needs = ["bash", "curl", "python3", "timeout"];
    if !can_run("the_example_of_two_namespaces_runs", &needs) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-namespaces.sh");
    let mut command = Command::new("timeout");
    command.args(["60", "bash"]).arg(script).arg(env!("CARGO_BIN_EXE_sgwall"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = child.expect("timeout of coreutils").wait_with_output().expect("its output");
    let (shown, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{shown}\n{errors}");
    // The steps in order, each with what shows that it did its work.
    let mut rest = &shown[..];
    for part in [
        "$ ping: allowed from everywhere",
        "2 packets transmitted, 2 received, 0% packet loss",
        "$ HTTP from the office: allowed\n200\n",
        "$ port 22, where something listens: refused\n",
        "$ sgwall flows",
        "icmp     203.0.113.9 -> 10.0.1.10 type 8",
        "10.0.1.10:80",
        "sg-example/ingress-2",
        "$ sgwall stats",
        "tracked flows of at most",
        "no-rule",
        "sg-example/ingress-1",
    ] {
        let found = rest.find(part);
        let found = found.unwrap_or_else(|| panic!("{part:?} is not where it should be:\n{shown}"));
        rest = &rest[found + part.len()..];
    }
    assert!(errors.contains("the firewall has ended; nothing passes"), "{errors}");
    assert!(errors.contains("curl: (28)"), "{errors}");
}
