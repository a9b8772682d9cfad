//! `docs/guides/vm-or-container.md`, command by command.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::{can_run, text};

/// The blocks that are commands, in order.
fn commands(guide: &str) -> String {
    let mut script = String::new();
    let mut is_inside = false;
    for line in guide.lines() {
        match line {
            "```sh" => is_inside = true,
            "```" => is_inside = false,
            line if is_inside => script = script + line + "\n",
            _ => {}
        }
    }
    script
}

#[test]
fn the_guide_to_vms_and_containers_does_as_it_says() {
    let needs = ["bash", "curl", "python3", "ping", "unshare", "mount"];
    if !can_run("the_guide_to_vms_and_containers_does_as_it_says", &needs) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = include_str!("../../../docs/guides/vm-or-container.md");
    let commands = commands(guide);
    assert!(commands.lines().count() > 20, "{commands}");
    // In namespaces of its own: what it makes there goes with them, and names are nobody else's.
    let work = tempfile::tempdir().expect("a directory");
    let commands = commands.replace("/tmp/", &format!("{}/", work.path().display()));
    let script = format!(
        "set -eu\nip link set lo up\nmkdir -p /run/netns\nmount -t tmpfs none /run/netns\n\
         {commands}wait %1\n"
    );
    let program = Path::new(env!("CARGO_BIN_EXE_sgwall"));
    let path = format!(
        "{}:{}",
        program.parent().expect("a directory").display(),
        std::env::var("PATH").expect("a path")
    );
    let child = Command::new("timeout")
        .args(["60", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["bash", "-c", &script])
        .current_dir(root)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.expect("timeout of coreutils").wait_with_output().expect("its output");
    let (shown, errors) = (text(&output.stdout), text(&output.stderr));
    let mut rest = &shown[..];
    for part in [
        "0 errors",
        "2 packets transmitted, 2 received, 0% packet loss",
        "DROP no-rule",
        "tracked flows of at most",
        "sgwall top",
        "q quit",
        "ingress-2  ingress tcp 80 from 203.0.113.0/24",
        "TRAFFIC OF tracked flows of the firewall",
        "policy 2 is in force",
    ] {
        let found = rest.find(part);
        let found = found
            .unwrap_or_else(|| panic!("{part:?} is not where it should be:\n{shown}\n{errors}"));
        rest = &rest[found + part.len()..];
    }
    assert!(errors.contains("the firewall has ended; nothing passes"), "{shown}\n{errors}");
    assert!(output.status.success(), "{shown}\n{errors}");
}
