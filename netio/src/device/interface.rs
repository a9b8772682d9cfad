//! What is known of a Linux interface: its name, index, MTU and MAC address.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{DeviceError, sys};

/// The longest name, bytes: `IFNAMSIZ` less its final zero.
const MAX_NAME: usize = 15;

/// A Linux interface of the network namespace in which it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, not zero.
    pub index: u32,
    /// The longest IP packet it takes, bytes.
    pub mtu: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Whether it is up.
    pub is_up: bool,
}

impl Interface {
    /// Looks up the Ethernet interface `name` in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If there is none, or it is not Ethernet.
    pub fn find(name: &str) -> Result<Self, DeviceError> {
        check_name(name)?;
        Self::read(any_socket(name)?.as_fd(), name)
    }

    /// The same, in the network namespace of socket `fd`.
    pub(super) fn read(fd: BorrowedFd<'_>, name: &str) -> Result<Self, DeviceError> {
        let failed = |what| move |source| DeviceError::of(name, what, "CAP_NET_ADMIN", source);
        let (kind, mac) = sys::hardware(fd, name).map_err(failed("read its MAC address"))?;
        if kind != libc::ARPHRD_ETHER {
            return Err(DeviceError::NotEthernet { name: name.to_owned(), kind });
        }
        let mtu = sys::mtu(fd, name).map_err(failed("read its MTU"))?;
        let flags = sys::flags(fd, name).map_err(failed("read its state"))?;
        let index = rustix::net::netdevice::name_to_index(fd, name)
            .map_err(|errno| failed("read its index")(errno.into()))?;
        Ok(Interface {
            name: name.to_owned(),
            index,
            mtu: mtu.unsigned_abs(),
            mac,
            is_up: flags & libc::IFF_UP != 0,
        })
    }

    /// Brings `name` up, first with `mtu` if one is given.
    pub(super) fn bring_up(
        fd: BorrowedFd<'_>,
        name: &str,
        mtu: Option<u32>,
    ) -> Result<(), DeviceError> {
        let failed = |what| move |source| DeviceError::of(name, what, "CAP_NET_ADMIN", source);
        if let Some(mtu) = mtu {
            let value = i32::try_from(mtu).unwrap_or(i32::MAX);
            sys::set_mtu(fd, name, value).map_err(|source| match source.raw_os_error() {
                Some(libc::EINVAL) => DeviceError::BadOption {
                    name: name.to_owned(),
                    what: format!("it takes no MTU of {mtu}; use 68 to 65521"),
                },
                _ => failed("set its MTU")(source),
            })?;
        }
        let flags = sys::flags(fd, name).map_err(failed("read its state"))?;
        if flags & libc::IFF_UP == 0 {
            sys::set_flags(fd, name, flags | libc::IFF_UP).map_err(failed("bring it up"))?;
        }
        Ok(())
    }
}

/// A socket to ask about interfaces; it stays in the network namespace it was made in.
pub(super) fn any_socket(name: &str) -> Result<OwnedFd, DeviceError> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    );
    socket.map_err(|errno| DeviceError::Io {
        name: name.to_owned(),
        what: "open a socket to ask about it",
        source: errno.into(),
    })
}

/// Refuses what Linux refuses, and what it would take for a pattern.
pub(super) fn check_name(name: &str) -> Result<(), DeviceError> {
    let is_fine = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '%' | ':');
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it is a directory",
        _ if name.len() > MAX_NAME => "it has more than 15 bytes",
        _ if !name.chars().all(is_fine) => "it has a character that names cannot have",
        _ => return Ok(()),
    };
    Err(DeviceError::BadName { name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_linux_refuses_are_refused_with_the_reason() {
        for (name, why) in [
            ("", "empty"),
            ("..", "directory"),
            ("a-name-of-16-byt", "15 bytes"),
            ("tap%d", "character"),
            ("a/b", "character"),
            ("a b", "character"),
        ] {
            let error = Interface::find(name).expect_err(name).to_string();
            assert!(error.contains(why), "{name:?}: {error}");
        }
        assert!(check_name("a-name-of-15-by").is_ok());
    }

    #[test]
    fn loopback_is_not_ethernet_and_nothing_is_not_found() {
        assert!(matches!(Interface::find("lo"), Err(DeviceError::NotEthernet { kind: 772, .. })));
        assert!(matches!(Interface::find("no-such-if"), Err(DeviceError::NotFound { .. })));
    }
}
