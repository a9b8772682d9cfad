//! How a command ends when it does not end well: a message and an exit status.

use std::fmt;
use std::io;

use anstyle::{AnsiColor, Style};
use sgwall_netio::capture::CaptureError;
use sgwall_rules::diagnostic::{Diagnostic, Severity};

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for something that cannot be: exit status 2.
    Usage(String),
    /// The policy cannot be used: exit status 2.
    Policy(Vec<Diagnostic>),
    /// A file could not be read or written: exit status 3.
    Io(String),
    /// The firewall failed while it ran: exit status 1.
    Live(String),
    /// A capture is damaged, or is none: exit status 3.
    Capture(CaptureError),
    /// Standard output could not be written: exit status 3, but 0 if its reader went away.
    Output(io::Error),
}

impl Failure {
    /// The documented exit status.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Failure::Live(_) => 1,
            Failure::Usage(_) | Failure::Policy(_) => 2,
            Failure::Io(_) | Failure::Capture(_) | Failure::Output(_) => 3,
        }
    }

    /// Whether the reader of standard output went away, as `head` does.
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Self {
        Failure::Capture(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = severity_style(Severity::Error);
        match self {
            Failure::Usage(text) | Failure::Io(text) | Failure::Live(text) => {
                write!(f, "{label}error{label:#}: {text}")
            }
            Failure::Capture(error) => write!(f, "{label}error{label:#}: {error}"),
            Failure::Output(error) => {
                write!(f, "{label}error{label:#}: cannot write to standard output: {error}")
            }
            Failure::Policy(diagnostics) => {
                for diagnostic in diagnostics {
                    writeln!(f, "{}", Coloured(diagnostic))?;
                }
                let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
                let s = if errors == 1 { "" } else { "s" };
                write!(
                    f,
                    "{label}error{label:#}: the policy has {errors} error{s}; nothing was judged"
                )
            }
        }
    }
}

/// A diagnostic with its severity in colour; plain where the stream strips colour.
pub(crate) struct Coloured<'a>(pub(crate) &'a Diagnostic);

impl fmt::Display for Coloured<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = severity_style(self.0.severity);
        let text = self.0.to_string();
        match text.split_once('[') {
            Some((severity, rest)) => write!(f, "{style}{severity}{style:#}[{rest}"),
            None => f.write_str(&text),
        }
    }
}

pub(crate) fn severity_style(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Note => AnsiColor::Cyan,
    };
    Style::new().bold().fg_color(Some(colour.into()))
}
