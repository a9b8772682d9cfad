//! What is wrong with a policy: where, what, and how to mend it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A policy file as far as messages need it: its name, and the line of each path in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The file's name as the user gave it.
    pub name: String,
    /// Who wrote it: a limit exceeded in AWS's own answer is a warning, in a native file an error.
    pub kind: SourceKind,
    /// Line (from 1) of a path such as `security_group[0].ingress[3].ports`. Empty for JSON,
    /// where the path itself is the location.
    pub lines: HashMap<String, u32>,
}

/// Who wrote a policy file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A person, in sgwall's own TOML.
    #[default]
    Native,
    /// AWS, in an answer of its API: what it says, AWS has accepted.
    Aws,
    /// Terraform, in `terraform show -json`. Judged as AWS's answers: most of what a plan holds is
    /// there already, and AWS judges the rest when it is applied.
    Terraform,
}

/// Where in a policy something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub source: Arc<Source>,
    /// The path in the file: `security_group[0].ingress[3]` (TOML), or
    /// `SecurityGroups[0].IpPermissions[1].IpRanges[0]` (AWS), or
    /// `module.web.aws_security_group.app.ingress[0].cidr_blocks[1]` (Terraform).
    pub path: Arc<str>,
}

impl Origin {
    /// A place in `source`.
    #[must_use]
    pub fn new(source: &Arc<Source>, path: impl Into<Arc<str>>) -> Self {
        Origin { source: Arc::clone(source), path: path.into() }
    }

    /// An origin for policies made in code, with `name` in place of a file.
    #[must_use]
    pub fn synthetic(name: &str) -> Self {
        Origin::new(&Arc::new(Source { name: name.into(), ..Source::default() }), "")
    }

    /// The place of `field` below this one; `field` may be an index such as `addresses[1]`.
    #[must_use]
    pub fn field(&self, field: &str) -> Self {
        let path =
            if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) };
        Origin { source: Arc::clone(&self.source), path: path.into() }
    }

    /// The line (from 1), or that of the nearest enclosing path which has one.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        let mut path: &str = &self.path;
        loop {
            if let Some(&line) = self.source.lines.get(path) {
                return Some(line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source.name)?;
        if let Some(line) = self.line() {
            write!(f, ":{line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        Ok(())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the policy means what it says.
    Note,
    /// Probably not what was meant; the policy is used.
    Warning,
    /// The policy cannot be used.
    Error,
}

/// One finding about a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word: AWS's error code where AWS has one (SEMANTICS section 16, for example
    /// `InvalidPermission.Duplicate`), else kebab-case (`unknown-key`).
    pub code: &'static str,
    /// Where; `None` for what concerns no one place.
    pub origin: Option<Origin>,
    /// What is wrong, with the value at fault quoted.
    pub message: String,
    /// How to mend it; empty only where nothing needs mending.
    pub mend: String,
}

impl Diagnostic {
    /// An error at `origin`.
    pub fn error(
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::at(Severity::Error, code, origin, message, mend)
    }

    /// A warning at `origin`.
    pub fn warning(
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::at(Severity::Warning, code, origin, message, mend)
    }

    /// A note at `origin`.
    pub fn note(
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::at(Severity::Note, code, origin, message, mend)
    }

    fn at(
        severity: Severity,
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Diagnostic {
            severity,
            code,
            origin: Some(origin.clone()),
            message: message.into(),
            mend: mend.into(),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// `error[InvalidParameterValue]: p.toml:12: security_group[0].ingress[3].ports: "100-50" is
/// reversed; write "50-100"`, on one line.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: ", self.severity, self.code)?;
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.message)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_at_the_nearest_enclosing_path() {
        let lines = HashMap::from([("interface[0]".into(), 7), ("interface[0].mtu".into(), 9)]);
        let origin = Origin::new(
            &Arc::new(Source { name: "p.toml".into(), lines, ..Source::default() }),
            "interface[0]",
        );
        assert_eq!(origin.field("mtu").line(), Some(9));
        assert_eq!(origin.field("addresses[1]").line(), Some(7));
        assert_eq!(
            Diagnostic::error("unknown-key", &origin.field("colour"), "no such key", "remove it")
                .to_string(),
            "error[unknown-key]: p.toml:7: interface[0].colour: no such key; remove it"
        );
    }
}
