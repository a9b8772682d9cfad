//! Real captures that others made. They stand beside the repository and not in it.

// Tests of input read files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;

use sgwall_netio::capture::{self, CaptureError};

/// Captures that are damaged, as their makers meant them to be: packets before the damage.
const DAMAGED: &[(&str, u64)] = &[("OISF_suricata-verify__tests__bug-6875-01__fuzz.pcap", 1)];

#[test]
fn every_capture_has_the_packets_that_its_manifest_counts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    let Ok(manifest) = fs::read_to_string(dir.join("MANIFEST.tsv")) else {
        eprintln!("NOT RUN: there are no shared captures beside the repository");
        return;
    };
    let mut lines = manifest.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let header = lines.next().expect("a header line");
    let column = |name| header.iter().position(|h| *h == name).expect(name);
    let (file, packets) = (column("file"), column("packets"));
    let mut wrong = Vec::new();
    let mut read = 0;
    for line in lines {
        let expected: u64 = line[packets].parse().expect("a number of packets");
        let mut reader = match capture::open(&dir.join(line[file])) {
            Ok(reader) => reader,
            Err(error) => {
                wrong.push(format!("{error}"));
                continue;
            }
        };
        let mut count = 0;
        let end = loop {
            match reader.next_packet() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        read += 1;
        let damaged = DAMAGED.iter().find(|(name, _)| *name == line[file]);
        let is_right = match (&end, damaged) {
            (None, None) => count == expected,
            (Some(CaptureError::Truncated { .. } | CaptureError::Damaged { .. }), Some((_, n))) => {
                count == *n
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{}: {count} packets of {expected}, then {end:?}", line[file]));
        }
    }
    assert!(read > 0, "the manifest names no capture");
    assert!(wrong.is_empty(), "of {read} captures:\n{}", wrong.join("\n"));
}
