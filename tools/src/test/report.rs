//! What came of tests: for people, as JSON, as JUnit XML, as SARIF.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anstyle::Style;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use super::file::Test;
use super::judge::{Fault, Outcome};
use crate::explain::write_explanation;
use crate::sarif;
use crate::style;
use crate::wrap::{plural, wrap};

/// Version of the JSON object, documented in `docs/guides/policy-tests.md`.
const VERSION: u32 = 1;
const RULE: sarif::Rule = sarif::Rule {
    id: "policy-test",
    description: "A policy test expects another verdict than the policy gives",
};
/// Where what belongs to a test begins.
const INDENT: usize = 8;

/// Every test that was run, by file.
#[derive(Default)]
pub(super) struct Report {
    pub(super) files: Vec<(PathBuf, Vec<(Test, Outcome)>)>,
}

impl Report {
    fn tests(&self) -> impl Iterator<Item = &(Test, Outcome)> {
        self.files.iter().flat_map(|(_, tests)| tests)
    }

    pub(super) fn count(&self) -> usize {
        self.tests().count()
    }

    pub(super) fn failed(&self) -> usize {
        self.tests().filter(|(_, outcome)| !outcome.passed()).count()
    }

    /// For people.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let bold = Style::new().bold();
        for (path, tests) in &self.files {
            writeln!(out, "{bold}{}{bold:#}", path.display())?;
            for (test, outcome) in tests {
                write_test(out, test, outcome)?;
            }
            writeln!(out)?;
        }
        let packets: u64 = self.tests().map(|(_, outcome)| outcome.packets).sum();
        let took: Duration = self.tests().map(|(_, outcome)| outcome.took).sum();
        let (count, failed) = (self.count(), self.failed());
        let word = if failed == 0 { "pass" } else { "drop" };
        let style = style::verdict(word);
        writeln!(
            out,
            "{count} test{}: {} passed, {style}{failed} failed{style:#}; {} packet{}, {:.2} s",
            plural(count),
            count - failed,
            style::grouped(packets),
            plural(packets as usize),
            took.as_secs_f64()
        )
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let tests: Vec<_> = self
            .files
            .iter()
            .flat_map(|(path, tests)| tests.iter().map(move |test| (path, test)))
            .map(|(path, (test, outcome))| {
                let failures: Vec<_> = outcome
                    .faults
                    .iter()
                    .map(|fault| {
                        json!({
                            "line": fault.line,
                            "text": fault.text,
                            "message": fault.message,
                            "capture": fault.frame.as_ref().map(|(path, _)| path),
                            "frame": fault.frame.as_ref().map(|(_, number)| number),
                            "explanation": fault.explanation,
                        })
                    })
                    .collect();
                json!({
                    "file": path,
                    "line": test.line,
                    "name": test.name,
                    "passed": outcome.passed(),
                    "checks": outcome.checks,
                    "packets": outcome.packets,
                    "seconds": outcome.took.as_secs_f64(),
                    "notes": outcome.notes,
                    "failures": failures,
                })
            })
            .collect();
        json!({
            "type": "test",
            "version": VERSION,
            "passed": self.count() - self.failed(),
            "failed": self.failed(),
            "tests": tests,
        })
    }

    /// As test runners and CI servers read it.
    pub(super) fn junit(&self) -> Result<String, quick_junit::SerializeError> {
        let mut report = quick_junit::Report::new("sgwall test");
        for (path, tests) in &self.files {
            let mut suite = TestSuite::new(path.display().to_string());
            for (test, outcome) in tests {
                let status = match outcome.faults.first() {
                    None => TestCaseStatus::success(),
                    Some(first) => {
                        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                        status.set_message(first.message.clone());
                        let faults: Vec<_> = outcome.faults.iter().map(plain).collect();
                        status.set_description(faults.join("\n"));
                        status
                    }
                };
                let mut case = TestCase::new(test.name.clone(), status);
                case.set_classname(path.display().to_string());
                case.set_time(outcome.took);
                suite.add_test_case(case);
            }
            report.add_test_suite(suite);
        }
        report.to_string()
    }

    /// As code hosts show it beside the lines of the test file.
    pub(super) fn sarif(&self) -> Value {
        let mut findings = Vec::new();
        for (path, tests) in &self.files {
            for (test, outcome) in tests {
                findings.extend(outcome.faults.iter().map(|fault| sarif::Finding {
                    rule: RULE.id,
                    level: sarif::Level::Error,
                    message: format!("{}: {}\n\n{}", test.name, fault.message, explained(fault)),
                    place: Some((path.display().to_string(), Some(fault.line))),
                }));
            }
        }
        sarif::log(&[RULE], &findings)
    }
}

fn write_test(out: &mut impl Write, test: &Test, outcome: &Outcome) -> io::Result<()> {
    let (word, style) = match outcome.passed() {
        true => ("ok", style::verdict("pass")),
        false => ("FAIL", style::verdict("drop")),
    };
    let dim = Style::new().dimmed();
    let checks = outcome.checks;
    let packets = match outcome.packets == checks as u64 {
        true => String::new(),
        false => format!(", {} packets", style::grouped(outcome.packets)),
    };
    let name = &test.name;
    writeln!(
        out,
        "  {style}{word:<4}{style:#}  {name}  {dim}{checks} check{}{packets}{dim:#}",
        plural(checks)
    )?;
    for note in &outcome.notes {
        writeln!(out, "{:INDENT$}{dim}note: {}{dim:#}", "", wrap(note, INDENT + 6, INDENT + 6))?;
    }
    for fault in &outcome.faults {
        writeln!(out, "{:INDENT$}line {}: {}", "", fault.line, fault.text)?;
        let style = style::verdict("drop");
        writeln!(out, "{:INDENT$}{style}{}{style:#}", "", wrap(&fault.message, INDENT, INDENT))?;
        if let Some((capture, number)) = &fault.frame {
            writeln!(out, "{:INDENT$}first seen in frame {number} of {}", "", capture.display())?;
        }
        if let Some(explanation) = &fault.explanation {
            let mut text = Vec::new();
            write_explanation(&mut text, explanation, false)?;
            writeln!(out)?;
            for line in String::from_utf8_lossy(&text).lines() {
                match line.is_empty() {
                    true => writeln!(out)?,
                    false => writeln!(out, "{:1$}{line}", "", INDENT + 2)?,
                }
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

/// A fault without colours.
fn plain(fault: &Fault) -> String {
    let place = match &fault.frame {
        Some((capture, number)) => format!(" (frame {number} of {})", capture.display()),
        None => String::new(),
    };
    let Fault { line, text, message, .. } = fault;
    format!("line {line}: {text}\n{message}{place}\n\n{}", explained(fault))
}

fn explained(fault: &Fault) -> String {
    let mut text = Vec::new();
    if let Some(explanation) = &fault.explanation {
        // Memory takes all that is written.
        let _ = write_explanation(&mut text, explanation, false);
    }
    anstream::adapter::strip_str(&String::from_utf8_lossy(&text)).to_string()
}
