//! Work in another network namespace, one that `ip netns` has named.
//!
//! A descriptor stays in the namespace it was opened in, so only opening a device happens there.
//! [`Scratch`] is a namespace for a test or a measurement, which goes away with its value.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

/// Where `ip netns` keeps its names.
const DIRECTORY: &str = "/run/netns";

/// A network namespace cannot be entered.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is none of that name.
    #[error("there is no network namespace {0:?}; ip netns list shows those there are")]
    NotFound(String),
    /// The process may not enter it.
    #[error("no permission to enter network namespace {0:?}; run as root or grant CAP_SYS_ADMIN")]
    NoPermission(String),
    /// `ip` of iproute2 could not be run, or did not do what it should.
    #[error("{command}: {message}")]
    Command {
        /// What was to be run.
        command: String,
        /// What it said, or why it could not be run.
        message: String,
    },
    /// Anything else that the system said.
    #[error("cannot enter network namespace {name:?}: {source}")]
    Io {
        /// The namespace.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs `work` on a thread of its own in the network namespace `name`, and waits for it.
///
/// # Errors
/// If the namespace cannot be entered; `work` was then not run.
///
/// # Panics
/// If `work` does, with its message.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let failed = |source: io::Error| {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => NetnsError::NotFound(name),
            io::ErrorKind::PermissionDenied => NetnsError::NoPermission(name),
            _ => NetnsError::Io { name, source },
        }
    };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(NetnsError::NotFound(name.to_owned()));
    }
    let path = Path::new(DIRECTORY).join(name);
    let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok::<T, rustix::io::Errno>(work())
        });
        match thread.map_err(failed)?.join() {
            Ok(result) => result.map_err(|errno| failed(errno.into())),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A network namespace of its own, with its loopback interface up; deleted when dropped.
#[derive(Debug)]
pub struct Scratch {
    name: String,
}

impl Scratch {
    /// Makes a namespace whose name begins with `sgwall-` and `label` and is like no other.
    ///
    /// # Errors
    /// Without root, or without iproute2.
    pub fn new(label: &str) -> Result<Self, NetnsError> {
        let [random, ..] = crate::seed::random_seed();
        let name = format!("sgwall-{label}-{}-{:08x}", std::process::id(), random as u32);
        run_ip(&["netns", "add", &name])?;
        let scratch = Scratch { name };
        scratch.ip("link set lo up")?;
        Ok(scratch)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on it, with arguments between blanks: `link set tap0 up`.
    ///
    /// # Errors
    /// What `ip` said, if it failed.
    pub fn ip(&self, arguments: &str) -> Result<(), NetnsError> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        run_ip(&all)
    }

    /// A command that will run in it, without standard input.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).stdin(Stdio::null());
        command
    }

    /// Runs `work` in it; see [`inside`].
    ///
    /// # Errors
    /// If it cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        inside(&self.name, work)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = run_ip(&["netns", "del", &self.name]) {
            eprintln!("network namespace {} stays: {error}", self.name);
        }
    }
}

fn run_ip(arguments: &[&str]) -> Result<(), NetnsError> {
    let failed =
        |message| NetnsError::Command { command: format!("ip {}", arguments.join(" ")), message };
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed("there is no ip command; install iproute2".to_owned()),
        _ => failed(error.to_string()),
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Whether a test can work in namespaces here: it needs root, `/dev/net/tun`, iproute2 and
/// `programs`. If not, says so on standard error.
///
/// # Panics
/// If not, and the environment has `SGWALL_LIVE=required`: a check that cannot run is then a
/// failure.
#[must_use]
pub fn can_test(test: &str, programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &str| std::env::split_paths(&paths).any(|path| path.join(program).is_file());
    let why = if !rustix::process::geteuid().is_root() {
        "not root".to_owned()
    } else if let Some(program) = ["ip"].iter().chain(programs).find(|program| !is_there(program)) {
        format!("there is no {program} command")
    } else if !Path::new("/dev/net/tun").exists() {
        "there is no /dev/net/tun".to_owned()
    } else if let Err(error) = Scratch::new("probe") {
        error.to_string()
    } else {
        return true;
    };
    // Past the capture of test output: it is to be seen.
    let _ = writeln!(io::stderr(), "NOT RUN: {test}: {why}");
    let is_required = std::env::var_os("SGWALL_LIVE").is_some_and(|value| value == "required");
    assert!(!is_required, "{test} is required, but cannot run: {why}");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        for name in ["no-such-namespace", "", "../net", "."] {
            let error = inside(name, || ()).expect_err("there is none");
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }
}
