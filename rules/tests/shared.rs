//! Real answers of AWS, loaded as they are. They stand beside the repository and not in it.

// Tests of input read files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

use sgwall_rules::diagnostic::Severity;
use sgwall_rules::load::{Input, load};

fn shared() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/aws");
    if !dir.is_dir() {
        eprintln!("NOT RUN: there are no shared answers of AWS beside the repository");
        return None;
    }
    Some(dir)
}

fn json_files(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            json_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
}

#[test]
fn every_answer_loads_alone() {
    let Some(dir) = shared() else { return };
    let mut files = Vec::new();
    json_files(&dir, &mut files);
    let mut wrong = Vec::new();
    for path in &files {
        let bytes = fs::read(path).unwrap();
        let name = path.strip_prefix(&dir).unwrap().display().to_string();
        match load(&[Input { name: name.clone(), bytes: &bytes }]) {
            Ok(_) => {}
            Err(found) => wrong.extend(
                found.iter().filter(|d| d.severity == Severity::Error).map(ToString::to_string),
            ),
        }
    }
    assert!(files.len() > 100, "only {} files", files.len());
    assert!(wrong.is_empty(), "of {} files:\n{}", files.len(), wrong.join("\n"));
}

/// VPCs, subnets, prefix lists, groups, rules, ACLs, entries, interfaces, peerings: as counted in
/// the files by other means.
type Counts = [usize; 9];

#[test]
fn whole_dumps_load_with_everything_in_them() {
    let Some(dir) = shared() else { return };
    let dumps: [(&str, Counts); 4] = [
        ("moto-vpc-a", [2, 9, 8, 7, 29, 4, 14, 4, 0]),
        ("cloudmapper-demo", [1, 4, 0, 8, 19, 0, 0, 2, 0]),
        ("batfish/hybrid-cloud-aws/aws_configs/us-west-2", [4, 10, 2, 11, 43, 4, 8, 9, 0]),
        ("batfish/test-vpc-peering/aws_configs", [3, 3, 0, 6, 12, 3, 6, 3, 2]),
    ];
    for (dump, counts) in dumps {
        let mut files = Vec::new();
        json_files(&dir.join(dump), &mut files);
        let files: Vec<_> = files
            .iter()
            .map(|path| (path.file_name().unwrap().display().to_string(), fs::read(path).unwrap()))
            .collect();
        let inputs: Vec<_> =
            files.iter().map(|(name, bytes)| Input { name: name.clone(), bytes }).collect();
        let policy = load(&inputs).unwrap_or_else(|e| panic!("{dump}: {e:?}")).policy;
        let rules = policy.security_groups.iter().map(|g| g.ingress.len() + g.egress.len());
        let entries = policy.network_acls.iter().map(|a| a.ingress.len() + a.egress.len());
        let found: Counts = [
            policy.vpcs.len(),
            policy.subnets.len(),
            policy.prefix_lists.len(),
            policy.security_groups.len(),
            rules.sum(),
            policy.network_acls.len(),
            entries.sum(),
            policy.interfaces.len(),
            policy.peerings.len(),
        ];
        assert_eq!(found, counts, "{dump}");
    }
}
