//! Work in another network namespace, one that `ip netns` has named.
//!
//! A descriptor stays in the namespace it was opened in, so only opening a device happens there.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;
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
