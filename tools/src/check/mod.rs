//! `sgwall check`: what is wrong with a policy before any packet meets it.
//!
//! Every finding of loading and validation; references that match nothing any more; whether
//! path-MTU discovery works, by the same judgement as `explain` and `replay` give; and what is right
//! and probably not meant (`docs/lint.md`).

mod hits;

use std::io::{self, Write};

use anstyle::Style;
use serde::Serialize;
use sgwall_dataplane::black_hole::{BlackHole, PathSizes, black_holes, path_sizes};
use sgwall_rules::compile::{CompiledInterface, CompiledPolicy, Generation};
use sgwall_rules::diagnostic::{Diagnostic, Origin, Severity};
use sgwall_rules::explain::unresolved;
use sgwall_rules::lint::{self, Lint};
use sgwall_rules::load::load;
use sgwall_rules::model::{Direction, Peer, Policy};

use crate::cli::CheckArgs;
use crate::failure::{Coloured, Failure, severity_style};
use crate::policy;
use crate::sarif;
use crate::wrap::{plural, wrap};

/// Version of the JSON schema, documented in `docs/check-json.md`.
const VERSION: u32 = 1;
/// Exit status where there are warnings and `--strict`.
const WARNINGS: u8 = 1;
/// Exit status where there are errors.
const ERRORS: u8 = 2;

/// Everything that was found.
#[derive(Serialize)]
struct Report {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<Finding>,
    stale_references: Vec<StaleReference>,
    path_mtu: Vec<Discovery>,
    lints: Vec<LintFound>,
}

/// What is right and probably not meant.
#[derive(Serialize)]
struct LintFound {
    severity: String,
    code: &'static str,
    subject: String,
    place: Option<String>,
    message: String,
    mend: String,
    why: &'static str,
    #[serde(skip)]
    lint: Lint,
}

/// A finding of loading or validation.
#[derive(Serialize)]
struct Finding {
    severity: String,
    code: &'static str,
    place: Option<String>,
    message: String,
    mend: String,
    #[serde(skip)]
    diagnostic: Diagnostic,
}

/// A rule that refers to a group and matches nothing, whoever its members are.
#[derive(Serialize)]
struct StaleReference {
    rule: String,
    direction: &'static str,
    text: String,
    why: String,
}

/// Path-MTU discovery on one interface.
#[derive(Serialize)]
struct Discovery {
    interface: String,
    /// Where its paths differ in size, by family; empty: discovery is not needed.
    paths: Vec<PathSizes>,
    /// What is missing; empty: it works.
    missing: Vec<Missing>,
}

#[derive(Serialize)]
struct Missing {
    #[serde(flatten)]
    hole: BlackHole,
    text: String,
}

/// Runs the command; the exit status.
pub(crate) fn run(args: &CheckArgs) -> Result<u8, Failure> {
    let files = policy::read(&args.policy)?;
    let hits = args.hits.as_deref().map(hits::read).transpose()?;
    let report = match load(&policy::inputs(&files)) {
        Ok(loaded) => {
            let mut lints = lint::lint(&loaded.policy);
            if let Some(hits) = &hits {
                lints.extend(lint::unused(&loaded.policy, hits));
                lints.sort_by_key(|lint| lint.code);
            }
            Report::of(Some(&loaded.policy), loaded.diagnostics, lints)
        }
        Err(diagnostics) => Report::of(None, diagnostics, Vec::new()),
    };
    if let Some(path) = &args.sarif {
        let text = format!("{:#}\n", report.sarif());
        std::fs::write(path, text)
            .map_err(|error| Failure::Io(format!("cannot write {}: {error}", path.display())))?;
    }
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    let written = match args.json {
        true => serde_json::to_string(&report)
            .map_err(io::Error::from)
            .and_then(|object| writeln!(out, "{object}")),
        false => report.write(&mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::Output)?;
    Ok(match (report.errors, report.warnings) {
        (1.., _) => ERRORS,
        (0, 1..) if args.strict => WARNINGS,
        _ => 0,
    })
}

impl Report {
    /// `policy` is `None` where errors keep it from being used; then only those are told.
    fn of(policy: Option<&Policy>, diagnostics: Vec<Diagnostic>, lints: Vec<Lint>) -> Self {
        let count = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let path_mtu = policy.map(discoveries).unwrap_or_default();
        let holes: usize = path_mtu.iter().map(|discovery| discovery.missing.len()).sum();
        let is_warning = |lint: &&Lint| lint.code.severity() == Severity::Warning;
        let doubts = lints.iter().filter(is_warning).count();
        Report {
            kind: "check",
            version: VERSION,
            errors,
            warnings: warnings + holes + doubts,
            diagnostics: diagnostics.into_iter().map(Finding::from).collect(),
            stale_references: policy.map(stale_references).unwrap_or_default(),
            path_mtu,
            lints: lints.into_iter().map(LintFound::from).collect(),
        }
    }

    /// As code hosts take findings.
    fn sarif(&self) -> serde_json::Value {
        let mut findings = Vec::new();
        for Finding { code, message, mend, diagnostic, .. } in &self.diagnostics {
            findings.push(sarif::Finding {
                rule: code,
                level: level(diagnostic.severity),
                message: format!("{message}\n{mend}"),
                place: diagnostic.origin.as_ref().map(place),
            });
        }
        for LintFound { code, subject, message, mend, why, lint, .. } in &self.lints {
            findings.push(sarif::Finding {
                rule: code,
                level: level(lint.code.severity()),
                message: format!("{subject}: {message}\n{mend}\nWhy: {why}."),
                place: lint.origin.as_ref().map(place),
            });
        }
        for missing in self.path_mtu.iter().flat_map(|discovery| &discovery.missing) {
            findings.push(sarif::Finding {
                rule: PATH_MTU.id,
                level: sarif::Level::Warning,
                message: missing.text.clone(),
                place: None,
            });
        }
        let lints = lint::Code::ALL
            .iter()
            .map(|code| sarif::Rule { id: code.as_str(), description: code.why() });
        let rules: Vec<_> = lints.chain([PATH_MTU]).collect();
        sarif::log(&rules, &findings)
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let bold = Style::new().bold();
        for finding in &self.diagnostics {
            writeln!(out, "{}", Coloured(&finding.diagnostic))?;
        }
        if !self.stale_references.is_empty() {
            writeln!(out, "\n{bold}RULES THAT REFER TO NOTHING{bold:#}")?;
        }
        for StaleReference { rule, direction, text, why } in &self.stale_references {
            writeln!(out, "  {rule}  {direction} {text}")?;
            writeln!(out, "      {}", wrap(why, 6, 6))?;
        }
        if !self.path_mtu.is_empty() {
            writeln!(out, "\n{bold}PATH-MTU DISCOVERY{bold:#}")?;
            self.write_discoveries(out)?;
        }
        if !self.lints.is_empty() {
            writeln!(out, "\n{bold}WORTH A LOOK{bold:#}")?;
        }
        for LintFound { severity, code, subject, place, message, mend, lint, .. } in &self.lints {
            let style = severity_style(lint.code.severity());
            write!(out, "  {style}{severity}{style:#} {code}  {bold}{subject}{bold:#}")?;
            match place {
                Some(place) => writeln!(out, "  ({place})")?,
                None => writeln!(out)?,
            }
            writeln!(out, "      {}", wrap(message, 6, 6))?;
            writeln!(out, "      {}", wrap(mend, 6, 6))?;
        }
        let (errors, warnings) = (self.errors, self.warnings);
        writeln!(out, "\n{errors} error{}, {warnings} warning{}.", plural(errors), plural(warnings))
    }

    fn write_discoveries(&self, out: &mut impl Write) -> io::Result<()> {
        for discovery in &self.path_mtu {
            let Discovery { interface, paths, missing } = discovery;
            if paths.is_empty() {
                writeln!(out, "  {interface}  not needed: no path is smaller than its own MTU")?;
                continue;
            }
            let word = if missing.is_empty() { "works" } else { "does not work" };
            writeln!(out, "  {interface}  {word}")?;
            for PathSizes { ipv6, own, smallest, to } in paths {
                let family = if *ipv6 { "IPv6" } else { "IPv4" };
                let text = format!("{family}: {own} bytes, but {smallest} to {to}");
                writeln!(out, "      {}", wrap(&text, 6, 6))?;
            }
            for Missing { text, .. } in missing {
                writeln!(out, "    - {}", wrap(text, 6, 6))?;
            }
        }
        Ok(())
    }
}

impl From<Diagnostic> for Finding {
    fn from(diagnostic: Diagnostic) -> Self {
        Finding {
            severity: diagnostic.severity.to_string(),
            code: diagnostic.code,
            place: diagnostic.origin.as_ref().map(ToString::to_string),
            message: diagnostic.message.clone(),
            mend: diagnostic.mend.clone(),
            diagnostic,
        }
    }
}

/// What has no place of its own in the list of codes.
const PATH_MTU: sarif::Rule = sarif::Rule {
    id: "path-mtu",
    description: "Path-MTU discovery does not work, for want of a rule",
};

fn level(severity: Severity) -> sarif::Level {
    match severity {
        Severity::Error => sarif::Level::Error,
        Severity::Warning => sarif::Level::Warning,
        Severity::Note => sarif::Level::Note,
    }
}

/// The file and the line.
fn place(origin: &Origin) -> (String, Option<usize>) {
    (origin.source.name.clone(), origin.line().map(|line| line as usize))
}

impl From<Lint> for LintFound {
    fn from(lint: Lint) -> Self {
        LintFound {
            severity: lint.code.severity().to_string(),
            code: lint.code.as_str(),
            subject: lint.subject.clone(),
            place: lint.origin.as_ref().map(ToString::to_string),
            message: lint.message.clone(),
            mend: lint.mend.clone(),
            why: lint.code.why(),
            lint,
        }
    }
}

fn discoveries(policy: &Policy) -> Vec<Discovery> {
    let compiled = CompiledPolicy::compile(policy, Generation(0));
    let discovery = |interface: &CompiledInterface| {
        let holes = black_holes(&compiled, interface).into_iter();
        let missing = holes.map(|hole| Missing { text: hole.sentence(), hole }).collect();
        let paths = path_sizes(&compiled, interface);
        Discovery { interface: interface.id.clone(), paths, missing }
    };
    compiled.interfaces().iter().map(discovery).collect()
}

/// Every rule whose reference does not hold (SEMANTICS 4.6, 4.7).
fn stale_references(policy: &Policy) -> Vec<StaleReference> {
    let mut stale = Vec::new();
    for group in &policy.security_groups {
        for direction in Direction::BOTH {
            let to = if direction == Direction::Ingress { "from" } else { "to" };
            for rule in group.rules(direction) {
                let Peer::Group(reference) = &rule.peer else { continue };
                let Some(why) = unresolved(policy, group, reference) else { continue };
                stale.push(StaleReference {
                    rule: format!("{}/{}", group.id, rule.id),
                    direction: direction.as_str(),
                    text: format!("{} {to} {}", rule.matches, rule.peer),
                    why,
                });
            }
        }
    }
    stale
}
