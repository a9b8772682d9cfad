//! Why a device cannot be used: what, where, and the mend.

use std::io;

use thiserror::Error;

/// A device could not be opened, or is of no more use.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The name cannot be that of a Linux interface.
    #[error("interface name {name:?}: {why}; use 1-15 letters, digits, '-', '_' or '.'")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The option has a value that no device takes.
    #[error("interface {name}: {what}")]
    BadOption {
        /// The interface.
        name: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The process may not do this.
    #[error(
        "interface {name}: no permission to {what}; run as root or grant {capability} \
         (setcap {capability}+ep, or AmbientCapabilities= of a systemd unit)"
    )]
    NoPermission {
        /// The interface.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The capability that allows it.
        capability: &'static str,
    },
    /// There is no `/dev/net/tun`.
    #[error(
        "interface {name}: there is no /dev/net/tun; load the module (modprobe tun), or give the \
         container the device (--device /dev/net/tun)"
    )]
    NoTun {
        /// The interface that was to be made.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another program has it open.
    #[error("interface {name} is in use; stop the program that has it open, or use another name")]
    Busy {
        /// The interface.
        name: String,
    },
    /// There is one of that name, but not such a one.
    #[error(
        "interface {name} exists, but is not a TAP interface {queues}; delete it (ip link del \
         {name}), or use another name"
    )]
    OtherKind {
        /// The interface.
        name: String,
        /// Of how many queues it should be.
        queues: &'static str,
    },
    /// There is none of that name.
    #[error(
        "there is no interface {name} in this network namespace; ip link shows those there are"
    )]
    NotFound {
        /// The name.
        name: String,
    },
    /// It is not Ethernet.
    #[error("interface {name} has hardware type {kind}; only Ethernet (1) can be used")]
    NotEthernet {
        /// The interface.
        name: String,
        /// Its `ARPHRD_` number.
        kind: u16,
    },
    /// It was deleted or taken away while in use.
    #[error("interface {name} is gone: it was deleted, or moved away, while in use")]
    Gone {
        /// The interface.
        name: String,
    },
    /// Anything else that the kernel said.
    #[error("interface {name}: cannot {what}: {source}")]
    Io {
        /// The interface.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DeviceError {
    /// What `source` means where `what` was tried on `name`; `capability` is what it takes.
    pub(super) fn of(
        name: &str,
        what: &'static str,
        capability: &'static str,
        source: io::Error,
    ) -> Self {
        let name = name.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NoPermission { name, what, capability },
            Some(libc::EBUSY) => Self::Busy { name },
            Some(libc::ENODEV | libc::ENXIO) => Self::NotFound { name },
            _ => Self::Io { name, what, source },
        }
    }
}
