//! Every input of the corpora, and every one that once failed, through its target.

// Tests of input read files.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sgwall_fuzz_targets::TARGETS;

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(kind)
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What panics here names the file: the last line before the panic.
fn feed(kind: &str) -> usize {
    let mut fed = 0;
    for (name, target) in TARGETS {
        let dir = folder(kind).join(name);
        if !dir.is_dir() {
            continue;
        }
        for file in names(&dir) {
            println!("{kind}/{name}/{file}");
            target(&fs::read(dir.join(file)).unwrap());
            fed += 1;
        }
    }
    fed
}

#[test]
fn every_input_of_the_corpora_holds() {
    assert!(feed("corpus") > 500);
}

#[test]
fn what_once_failed_holds() {
    feed("regressions");
}

/// No target is left out: each has a program and a corpus, and every folder has a target.
#[test]
fn every_target_has_its_program_and_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let programs = names(&folder("fuzz_targets"));
    assert_eq!(programs, targets.iter().map(|name| format!("{name}.rs")).collect());
    assert_eq!(names(&folder("corpus")), targets);
    let regressions = names(&folder("regressions"));
    assert!(regressions.iter().all(|name| name.ends_with(".md") || targets.contains(name)));
}
