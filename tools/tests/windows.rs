//! Real connections under `tcp_window_check`: what is in order loses nothing by it.

// Tests of the command line read and write files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Everything is allowed, in halves, so that every flow is tracked.
const POLICY: &str = r#"
version = 1
tcp_window_check = true
[[vpc]]
id = "vpc-1"
cidrs = ["10.20.0.0/16", "2001:db8:20::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.20.1.0/24", "2001:db8:20:1::/64"]
[[security_group]]
id = "sg-1"
ingress = [{ protocol = "all", cidr = "0.0.0.0/1" }, { protocol = "all", cidr = "128.0.0.0/1" },
           { protocol = "all", cidr = "::/1" }, { protocol = "all", cidr = "8000::/1" }]
egress = [{ protocol = "all", cidr = "0.0.0.0/1" }, { protocol = "all", cidr = "128.0.0.0/1" },
          { protocol = "all", cidr = "::/1" }, { protocol = "all", cidr = "8000::/1" }]
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.20.1.10", "2001:db8:20:1::10"]
security_groups = ["sg-1"]
"#;

/// TCP packets of tracked flows, and the frames that were dropped as outside the window.
fn replay(capture: &str, local: &str) -> (usize, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, POLICY).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .current_dir(root)
        .args(["replay", &format!("pcap-fixtures/captures/{capture}"), "--json", "--offload"])
        .args(["--local", local, "--policy"])
        .arg(policy)
        .output()
        .unwrap();
    assert!(run.status.success(), "{capture}: {}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8(run.stdout).unwrap();
    let packets: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_tracked = |p: &&Value| {
        p["protocol"] == "tcp" && matches!(p["reason"].as_str(), Some("established" | "reply"))
    };
    let tracked = packets.iter().filter(is_tracked).count();
    let outside = packets.iter().filter(|p| p["reason"] == "tcp-out-of-window");
    (tracked, outside.map(|p| p["frame"].as_u64().unwrap()).collect())
}

#[test]
fn connections_in_order_lose_nothing() {
    // The capture, each end of its connections, and their packets after the first.
    let captures = [
        ("smtp.pcap", ["10.10.1.4", "74.53.140.153"], 52),
        ("ftp-ipv6.pcap", ["2001:470:1f11:81f:c999:d94:aa7c:2e3e", "2001:470:4867:99::21"], 130),
        ("handshake-nano-sll.pcap", ["137.116.81.94", "131.155.215.69"], 2),
        ("ipv6-atomic-fragments.pcap", ["2001:db8:1::1", "2001:db8:1::2"], 31),
        ("split-handshake.pcap", ["1.1.1.1", "2.2.2.2"], 6),
    ];
    for (capture, ends, tracked) in captures {
        for end in ends {
            assert_eq!(replay(capture, end), (tracked, vec![]), "{capture} at {end}");
        }
    }
}

/// Frame 2 is a forged refusal that acknowledges one byte less than the SYN took. Its receiver
/// went on with the connection, and so do we.
#[test]
fn an_injected_reset_is_outside() {
    for end in ["1.2.0.2", "1.2.0.3"] {
        assert_eq!(replay("rst-inject.pcap", end), (7, vec![2]), "at {end}");
    }
}
