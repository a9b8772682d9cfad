//! What systemd is told, where there is one: ready, reloading, stopping.
//!
//! The socket is opened at the start and kept: later none can be made.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// A way to tell the service manager.
pub(super) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// To the manager that `NOTIFY_SOCKET` names, if it does.
    pub(super) fn new() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET");
        Notifier(path.and_then(|path| connect(&path).ok()))
    }

    /// Tells it. It is no fault of ours if it does not listen.
    pub(super) fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.0 else { return };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        let _ = socket.send(text.as_bytes());
    }
}

fn connect(path: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A full queue must not hold up the firewall's end.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
