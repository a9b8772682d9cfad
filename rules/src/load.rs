//! Policies from bytes: tells native files from AWS's and Terraform's, merges them, validates the whole.

use std::sync::Arc;

use crate::aws;
use crate::diagnostic::{Diagnostic, Origin, Severity, Source};
use crate::model::Policy;
use crate::native;
use crate::terraform;
use crate::validate::validate;

/// One file of a policy.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Its name, for messages; AWS's prefix-list entries are matched to their list by it.
    pub name: String,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// A policy that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// Warnings and notes, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads, merges and validates the files of a policy. What begins as a JSON object or array is
/// AWS's, or Terraform's by its keys; all else is TOML.
///
/// # Errors
/// Every finding, warnings among them, if at least one is an error.
pub fn load(inputs: &[Input<'_>]) -> Result<Loaded, Vec<Diagnostic>> {
    let mut out = Vec::new();
    let mut policy = Policy::default();
    let mut dump = aws::Dump::default();
    let mut files = native::Files::default();
    for input in inputs {
        let Some(text) = utf8(input, &mut out) else { continue };
        if is_json(text) {
            add_json(&mut dump, input, text, &mut out);
        } else {
            files.add(&input.name, text, &mut out);
        }
    }
    dump.finish(&mut policy, &mut out);
    files.finish(&mut policy, &mut out);
    validate(&policy, &mut out);
    if out.iter().any(|d| d.severity == Severity::Error) {
        return Err(out);
    }
    Ok(Loaded { policy, diagnostics: out })
}

/// Validates a policy that was made or changed in code, as [`load`] does those of files.
#[must_use]
pub fn check(policy: &Policy) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    validate(policy, &mut out);
    out
}

fn utf8<'a>(input: &Input<'a>, out: &mut Vec<Diagnostic>) -> Option<&'a str> {
    // Windows tools put a byte-order mark before UTF-8.
    let bytes = input.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input.bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let message = format!("not UTF-8 text: byte {} is invalid", error.valid_up_to());
            let mend = "a policy is TOML, or JSON from `aws ec2 describe-*` or `terraform show -json`; save \
                        it as UTF-8";
            out.push(Diagnostic::error("syntax", &whole(&input.name), message, mend));
            None
        }
    }
}

/// Whether `text` begins as JSON. TOML never begins with a brace, and where it begins with a
/// bracket that is a table's header: a name follows, or another bracket and a name.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let inner = text.trim_start_matches(|c: char| c == '[' || c.is_whitespace());
    text.starts_with('{') || (text.starts_with('[') && !inner.starts_with(is_key_start))
}

fn is_key_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn add_json(dump: &mut aws::Dump, input: &Input<'_>, text: &str, out: &mut Vec<Diagnostic>) {
    match serde_json::from_str(text) {
        Ok(value) if terraform::is_terraform(&value) => {
            dump.extend(terraform::read(&input.name, &value, out));
        }
        Ok(value) => dump.add(&input.name, value, out),
        Err(error) => {
            let lines = std::iter::once((String::new(), error.line() as u32)).collect();
            let source = Source { name: input.name.clone(), lines, ..Source::default() };
            out.push(Diagnostic::error(
                "syntax",
                &Origin::new(&Arc::new(source), ""),
                format!("not valid JSON: {error}"),
                "save the answer of `aws ec2 describe-*` again, whole and with --output json, or the \
                 output of `terraform show -json`",
            ));
        }
    }
}

fn whole(name: &str) -> Origin {
    Origin::new(&Arc::new(Source { name: name.to_owned(), ..Source::default() }), "")
}
