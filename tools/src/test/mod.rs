//! `sgwall test`: what a policy must do to packets and captures, kept as tests beside it.
//!
//! [`file`] reads test files, [`expect`] what is expected of a packet and [`claim`] what is said of a
//! capture, [`judge`] runs them, [`report`] tells. `docs/guides/policy-tests.md` is the guide.

pub(crate) mod args;
mod claim;
mod expect;
mod file;
mod judge;
mod report;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use args::TestArgs;
use file::TestFile;
use report::Report;

use crate::failure::Failure;
use crate::run::{Changed, changed};

/// Exit status where a test failed.
const FAILED: u8 = 1;
/// How often `--watch` looks.
const LOOK: Duration = Duration::from_millis(300);

/// Runs the command; the exit status.
pub(crate) fn run(args: &TestArgs) -> Result<u8, Failure> {
    if !args.watch {
        return run_once(args, &mut Watched::default());
    }
    loop {
        let mut watched = Watched::default();
        if let Err(failure) = run_once(args, &mut watched) {
            if failure.is_closed_output() {
                return Err(failure);
            }
            anstream::eprintln!("{failure}");
        }
        anstream::eprintln!("waiting for a change; Ctrl-C ends");
        while !watched.have_changed() {
            std::thread::sleep(LOOK);
        }
    }
}

/// Files, and when they had last changed before they were read: what is written while tests run, or
/// while their results are, is not lost.
#[derive(Default)]
struct Watched(Vec<(Vec<PathBuf>, Changed)>);

impl Watched {
    /// Adds files that are yet to be read.
    fn add(&mut self, paths: Vec<PathBuf>) {
        let seen = changed(&paths);
        self.0.push((paths, seen));
    }

    fn have_changed(&self) -> bool {
        self.0.iter().any(|(paths, seen)| changed(paths) != *seen)
    }
}

/// Reads and runs all tests. What they depend on is added to `watched`.
fn run_once(args: &TestArgs, watched: &mut Watched) -> Result<u8, Failure> {
    watched.add(args.paths.clone());
    let paths = file::find(&args.paths)?;
    watched.add(paths.clone());
    // All files are read before the first test runs, so that a typing error is told of at once.
    let files = paths.iter().map(|path| TestFile::read(path)).collect::<Result<Vec<_>, _>>()?;
    watched.add(files.iter().flat_map(TestFile::depends_on).collect());
    let mut report = Report::default();
    for TestFile { path, tests } in files {
        let mut outcomes = Vec::new();
        for test in tests {
            let is_meant = args.only.as_ref().is_none_or(|text| test.name.contains(text.as_str()));
            if is_meant {
                let outcome = judge::run(&path, &test)?;
                outcomes.push((test, outcome));
            }
        }
        if !outcomes.is_empty() {
            report.files.push((path, outcomes));
        }
    }
    if report.count() == 0 {
        let only = args.only.as_deref().unwrap_or_default();
        return Err(Failure::Usage(format!("--only {only}: no test has that in its name")));
    }
    if let Some(path) = &args.junit {
        let xml = report.junit().map_err(|error| unwritable(path, &error))?;
        fs::write(path, xml).map_err(|error| unwritable(path, &error))?;
    }
    if let Some(path) = &args.sarif {
        let text = format!("{:#}\n", report.sarif());
        fs::write(path, text).map_err(|error| unwritable(path, &error))?;
    }
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    let written = match args.json {
        true => writeln!(out, "{}", report.json()),
        false => report.write(&mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::Output)?;
    Ok(if report.failed() == 0 { 0 } else { FAILED })
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Io(format!("cannot write {}: {error}", path.display()))
}
