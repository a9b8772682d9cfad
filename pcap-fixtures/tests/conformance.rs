//! Every case of `cases/`, under every edition of the semantics in which it holds.

// Tests of input read files.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sgwall_fixtures::{Case, CaseFile};

fn cases() -> Vec<(String, Case)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let file: CaseFile = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        cases.extend(file.case.into_iter().map(|case| (name.clone(), case)));
    }
    cases
}

#[test]
fn every_case_holds() {
    let mut wrong = Vec::new();
    let cases = cases();
    for (file, case) in &cases {
        for compat in case.editions().unwrap() {
            if let Err(found) = case.run(compat) {
                let edition = compat.as_str();
                wrong.push(format!("{file} {} ({edition}): {}\n    {found}", case.id, case.title));
            }
        }
    }
    println!("{} cases", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The numbered cases of the specification and its decision table are all here.
#[test]
fn the_numbered_cases_are_all_here() {
    let ids: BTreeSet<String> = cases().into_iter().map(|(_, case)| case.id).collect();
    let numbered = (1..=64).map(|n: u32| n.to_string());
    let decisions = (1..=18).map(|n| format!("D{n}"));
    let missing: Vec<_> = numbered.chain(decisions).filter(|id| !ids.contains(id)).collect();
    assert!(missing.is_empty(), "missing: {}", missing.join(", "));
}

/// Where the README tells how many cases there are; the line is computed.
const README_MARK: &str = "<!-- conformance -->";

/// The README's line about the suite, by the cases that there are.
fn readme_line(cases: &[(String, Case)]) -> String {
    let ids: BTreeSet<&str> = cases.iter().map(|(_, case)| case.id.as_str()).collect();
    let numbered = ids.iter().filter(|id| id.parse::<u32>().is_ok()).count();
    let is_decision = |id: &&&str| id.strip_prefix('D').is_some_and(|n| n.parse::<u32>().is_ok());
    let decisions = ids.iter().filter(is_decision).count();
    format!(
        "{README_MARK} {} cases, of which all {numbered} numbered ones and the {decisions} of the \
         decision table.",
        cases.len()
    )
}

/// With `SGWALL_WRITE_README` set the line is written anew.
#[test]
fn the_readme_counts_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let expected = readme_line(&cases());
    let text = fs::read_to_string(&path).unwrap();
    let found: Vec<_> = text.lines().filter(|line| line.starts_with(README_MARK)).collect();
    assert_eq!(found.len(), 1, "the README has one line that begins with {README_MARK}");
    if std::env::var_os("SGWALL_WRITE_README").is_some() {
        fs::write(&path, text.replacen(found[0], &expected, 1)).unwrap();
    } else {
        assert_eq!(found[0], expected, "write it anew with SGWALL_WRITE_README=1");
    }
}

/// What `docs/conformance.md` names is there: a case (case `D4`), a test (`rules/x.rs::name`).
#[test]
fn what_the_list_of_statements_names_is_there() {
    what_is_named_is_there("docs/conformance.md");
}

/// The same of the tests that stand against attacks and faults.
#[test]
fn what_the_threat_model_names_is_there() {
    what_is_named_is_there("docs/threat-model.md");
    what_is_named_is_there("docs/reliability.md");
}

fn what_is_named_is_there(document: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join(document)).unwrap();
    let ids: BTreeSet<String> = cases().into_iter().map(|(_, case)| case.id).collect();
    let parts: Vec<&str> = text.split('`').collect();
    let (mut missing, mut named) = (Vec::new(), 0);
    for pair in parts.chunks_exact(2) {
        let (before, quoted) = (pair[0], pair[1]);
        let is_there = if before.ends_with("case ") {
            ids.contains(quoted)
        } else if let Some((file, test)) = quoted.split_once(".rs::") {
            let source = fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
            source.contains(&format!(" {test}("))
        } else {
            continue;
        };
        named += 1;
        if !is_there {
            missing.push(quoted);
        }
    }
    assert!(named > 0, "{document} names nothing");
    assert!(missing.is_empty(), "named in {document}, but nowhere: {missing:?}");
}

/// A case that expects the wrong thing fails, and says what was found.
#[test]
fn a_wrong_expectation_is_noticed() {
    let text = r#"
        [[case]]
        id = "0"
        title = "wrong"
        groups = { sg-1 = ["in tcp 22 from 0.0.0.0/0"] }
        steps = ["0 tcp X:5000 -> a:22 S => drop no-rule"]
        flows = 7
    "#;
    let file: CaseFile = toml::from_str(text).unwrap();
    let found = file.case[0].run(file.case[0].editions().unwrap()[0]).unwrap_err();
    assert_eq!(
        found,
        "0 tcp X:5000 -> a:22 S => drop no-rule\n      found: pass allowed-tracked \
         sg-1/ingress-1\n    1 tracked flows at the end, not 7"
    );
}

/// So does one that expects the wrong answer to a change.
#[test]
fn a_wrong_answer_is_noticed() {
    let text = r#"
        [[case]]
        id = "0"
        title = "wrong"
        groups = { sg-1 = ["in tcp 22 from 0.0.0.0/0"] }
        steps = [
          "0 revoke sg-1 in tcp 22 from 0.0.0.0/0 => error InvalidPermission.NotFound",
          "0 revoke sg-1 in tcp 22 from 0.0.0.0/0",
          "0 delete-group sg-1 => error CannotDelete",
        ]
    "#;
    let file: CaseFile = toml::from_str(text).unwrap();
    let found = file.case[0].run(file.case[0].editions().unwrap()[0]).unwrap_err();
    assert_eq!(
        found,
        "0 revoke sg-1 in tcp 22 from 0.0.0.0/0 => error InvalidPermission.NotFound\n      \
         found: granted\n    0 revoke sg-1 in tcp 22 from 0.0.0.0/0\n      \
         found: error InvalidPermission.NotFound: The specified rule does not exist in this \
         security group.\n    0 delete-group sg-1 => error CannotDelete\n      \
         found: error DependencyViolation: resource sg-1 has a dependent object: interface a has \
         it; change the interface's groups"
    );
}

#[test]
fn a_wrong_flow_log_is_noticed() {
    let text = r#"
        [[case]]
        id = "0"
        title = "wrong"
        groups = { sg-1 = [] }
        steps = ["0 tcp X:5000 -> a:22 S => drop no-rule"]
        flow_log = []
    "#;
    let file: CaseFile = toml::from_str(text).unwrap();
    let found = file.case[0].run(file.case[0].editions().unwrap()[0]).unwrap_err();
    assert_eq!(
        found,
        "the flow log is otherwise:\n      2 - a 203.0.113.1 10.0.1.10 5000 22 6 1 40 0 0 REJECT OK"
    );
}
