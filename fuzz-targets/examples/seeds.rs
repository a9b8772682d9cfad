//! Writes the seeds of the corpora: the frames and files of `pcap-fixtures`, in each target's form.
//!
//! `cargo run -p sgwall-fuzz-targets --example seeds -- DIRECTORY`; minimise into `fuzz/corpus` then,
//! as CONTRIBUTING.md says.

// An example that reads and writes files.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use sgwall_netio::capture;
use sgwall_packet::PacketSpec;

/// Frames of one capture that are worth a seed each.
const FRAMES: usize = 12;

/// A packet of each kind, for quotes.
const PACKETS: &[&str] = &[
    "tcp 10.0.1.10:4000 -> 203.0.113.1:80 S seq=7",
    "udp 10.0.1.10:4000 -> 203.0.113.1:53 len=2000",
    "udp 10.0.1.10:4000 -> 203.0.113.1:53 len=64 frag=7:0+",
    "icmp 10.0.1.10 -> 203.0.113.1 8/0 id=4",
    "icmp 203.0.113.9 -> 10.0.1.10 3/4 quote=\"udp 10.0.1.10:80 -> 203.0.113.1:4000\"",
    "tcp [2001:db8::10]:4000 -> [2001:db8::9]:80 SA seq=7 ack=8",
    "icmpv6 2001:db8::10 -> 2001:db8::9 128/0 id=4",
    "gre 10.0.1.10 -> 10.0.1.20 len=20",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("expected a directory")?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let seed = |target: &str, name: &str, bytes: &[&[u8]]| {
        let dir = out.join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), bytes.concat())
    };
    for entry in fs::read_dir(root.join("pcap-fixtures/captures"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name")?.to_owned();
        if !path.extension().is_some_and(|e| e == "pcap" || e == "pcapng") {
            continue;
        }
        let file = fs::read(&path)?;
        seed("capture", &name, &[&[0], &file[..file.len().min(3000)]])?;
        let mut reader = capture::open(&path)?;
        for n in 0..FRAMES {
            // A damaged capture is a seed as well.
            let Ok(Some(packet)) = reader.next_packet() else { break };
            let link = sgwall_fuzz_targets::link_byte(packet.link.known());
            seed("parse", &format!("{name}-{n}"), &[&[link, 0xff, 0xff], packet.data])?;
        }
    }
    for (n, line) in (0..).zip(PACKETS) {
        let packet = line.parse::<PacketSpec>()?.to_ip();
        let head = [u8::from(line.contains('[') || line.contains("v6")), 0, 0x40, 0, 2, 0x80];
        seed("quotes", &format!("packet-{n}"), &[&head, &[198, 51, 100, 1, 10, 0, 9, 9], &packet])?;
    }
    for name in
        ["tools/example/policy.toml", "examples/policy.toml", "pcap-fixtures/captures/policy.toml"]
    {
        seed("policy_toml", &name.replace('/', "-"), &[&fs::read(root.join(name))?])?;
    }
    for text in policies_of_cases(&root)? {
        seed("policy_toml", &format!("case-{}", text.len()), &[text.as_bytes()])?;
    }
    seed("policy_aws", "everything.json", &[include_bytes!("aws.json")])?;
    Ok(())
}

/// The policies that cases of the conformance suite spell out.
fn policies_of_cases(root: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(root.join("pcap-fixtures/cases"))? {
        let text = fs::read_to_string(entry?.path())?;
        let mut parts = text.split("policy = \"\"\"").skip(1);
        texts.extend(
            parts.by_ref().filter_map(|part| Some(part.split_once("\"\"\"")?.0.to_owned())),
        );
    }
    Ok(texts)
}
