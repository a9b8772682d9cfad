//! What a running firewall has no need of, given up for good: capabilities and another user's rights
//! ([`rights`]), files ([`files`], Landlock), system calls ([`calls`], seccomp).
//!
//! All of it holds for the calling thread and those that it starts, so it is done while there is no
//! other. What the kernel does not have is said, and is an error only where it is required.

pub mod calls;
pub mod files;
pub mod rights;

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use files::Files;

/// Whether files and system calls are taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As far as the kernel can.
    #[default]
    On,
    /// Or not at all: a kernel that cannot is an error.
    Required,
    /// No.
    Off,
}

/// Why rights could not be given up.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A thread that runs already would keep what it has.
    #[error("{0} threads run already, and would keep their rights; this is a fault of sgwall")]
    Threads(usize),
    /// There is no such user.
    #[error(
        "there is no user {0:?}; name one of /etc/passwd (adduser --system), or leave out --user"
    )]
    NoUser(String),
    /// A path that is to stay in reach cannot be opened.
    #[error("cannot open {path}: {why}; make the directory, and let this user into it")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The kernel has no such thing, and it was required.
    #[error("{0}; run a kernel that has it, or leave out --sandbox=required")]
    Missing(String),
    /// The system refused.
    #[error("cannot {what}: {why}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: String,
    },
}

impl SandboxError {
    fn refused(what: &'static str, why: impl fmt::Display) -> Self {
        SandboxError::Refused { what, why: why.to_string() }
    }
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Landlock's ABI, or why there is none.
    pub files: Result<i32, String>,
    /// Whether system calls are filtered, or why not.
    pub calls: Result<(), String>,
}

impl Sandbox {
    /// Whether all of it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.files.is_ok() && self.calls.is_ok()
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.files {
            Ok(abi) => write!(f, "files: Landlock ABI {abi}")?,
            Err(why) => write!(f, "files: NOT RESTRICTED, {why}")?,
        }
        match &self.calls {
            Ok(()) => write!(f, "; system calls: seccomp"),
            Err(why) => write!(f, "; system calls: NOT RESTRICTED, {why}"),
        }
    }
}

/// Takes all files away but those of `files`, and all system calls but those of [`calls`]. `None` if
/// `mode` says so.
///
/// # Errors
/// If other threads run, if a path is not there, if the kernel refuses, or has no such thing and
/// that is required.
pub fn enter(mode: Mode, files: &Files) -> Result<Option<Sandbox>, SandboxError> {
    if mode == Mode::Off {
        return Ok(None);
    }
    alone()?;
    let sandbox = Sandbox { files: files::restrict(files)?, calls: calls::restrict()? };
    match sandbox.is_whole() || mode != Mode::Required {
        true => Ok(Some(sandbox)),
        false => Err(SandboxError::Missing(sandbox.to_string())),
    }
}

/// Refuses if there are other threads.
fn alone() -> Result<(), SandboxError> {
    let tasks = std::fs::read_dir("/proc/self/task");
    // Without /proc nobody can tell; whoever calls this has started none.
    let threads = tasks.map_or(1, Iterator::count);
    if threads > 1 { Err(SandboxError::Threads(threads)) } else { Ok(()) }
}

/// What the system said, without a name.
fn last(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}
