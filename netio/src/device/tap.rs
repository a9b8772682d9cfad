//! TAP interfaces: Ethernet whose other end is the host's network stack.
//!
//! Offload is asked for in steps, from all that Linux knows to nothing, and what was granted is
//! said. A persistent interface of the name is attached to; any other is made and goes away with
//! its last queue. With several queues the kernel keeps a flow on the queue that last wrote a
//! frame of it, so a worker that owns queue *n* of every interface sees both directions.
//!
//! Linux, Documentation/networking/tuntap.rst; `linux/if_tun.h`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::frames::{Frames, MAX_FRAME};
use super::interface::{Interface, any_socket, check_name};
use super::vnet::{Features, HEADER_LEN};
use super::{Device, DeviceError, Sent, sys};

/// The most queues of one interface (`MAX_TAP_QUEUES`).
pub const MAX_QUEUES: usize = 256;

/// What TAP interface to make or to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapOptions {
    /// Its name, 1-15 bytes.
    pub name: String,
    /// How many queues, 1 to [`MAX_QUEUES`].
    pub queues: usize,
    /// Its MTU in bytes; `None` leaves what it has.
    pub mtu: Option<u32>,
    /// Whether to ask for checksum and segmentation offload.
    pub offload: bool,
    /// Whether it is to outlive its queues; `None` leaves it as it is.
    pub persistent: Option<bool>,
}

impl TapOptions {
    /// One queue, an MTU of 9001 bytes, offload, as persistent as it was.
    #[must_use]
    pub fn new(name: &str) -> Self {
        TapOptions {
            name: name.to_owned(),
            queues: 1,
            mtu: Some(9001),
            offload: true,
            persistent: None,
        }
    }
}

/// An open TAP interface, up.
#[derive(Debug)]
pub struct Tap {
    /// What it is.
    pub interface: Interface,
    /// What the kernel may leave to us in the frames that are read.
    pub granted: Features,
    /// Its queues, as many as were asked for.
    pub queues: Vec<TapQueue>,
}

/// One queue of a TAP interface.
#[derive(Debug)]
pub struct TapQueue {
    fd: OwnedFd,
    name: String,
    /// Bytes of the offload header; zero without offload.
    header_len: usize,
}

/// What to ask for, most first, and what that is called.
const STEPS: [(u32, Features); 4] = [
    (
        libc::TUN_F_CSUM
            | libc::TUN_F_TSO4
            | libc::TUN_F_TSO6
            | libc::TUN_F_TSO_ECN
            | libc::TUN_F_USO4
            | libc::TUN_F_USO6,
        Features::ALL,
    ),
    (
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN,
        Features { checksum: true, tcp: true, udp: false },
    ),
    (libc::TUN_F_CSUM, Features { checksum: true, tcp: false, udp: false }),
    (0, Features::NONE),
];

impl Tap {
    /// Makes the interface, or attaches to the persistent one of that name, in the network
    /// namespace of the calling thread, and brings it up.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN` or `/dev/net/tun`; if the name is no interface name, or one that is
    /// in use or of another kind; if an option is out of its range.
    pub fn open(options: &TapOptions) -> Result<Self, DeviceError> {
        let name = options.name.as_str();
        check_name(name)?;
        if !(1..=MAX_QUEUES).contains(&options.queues) {
            let what = format!("{} queues; use 1 to {MAX_QUEUES}", options.queues);
            return Err(DeviceError::BadOption { name: name.to_owned(), what });
        }
        let failed = |what| move |source| DeviceError::of(name, what, "CAP_NET_ADMIN", source);
        let mut queues = Vec::with_capacity(options.queues);
        for _ in 0..options.queues {
            queues.push(TapQueue::open(options)?);
        }
        let first: &TapQueue = match queues.first() {
            Some(queue) => queue,
            None => return Err(DeviceError::NotFound { name: name.to_owned() }),
        };
        let fd = first.fd.as_fd();
        if options.offload {
            let size = HEADER_LEN as i32;
            sys::tun_set_header_size(fd, size).map_err(failed("set the offload header's size"))?;
        }
        let granted = ask_for_offload(fd, options.offload).map_err(failed("set its offload"))?;
        if let Some(persistent) = options.persistent {
            sys::tun_set_persistent(fd, persistent).map_err(failed("set its persistence"))?;
        }
        let socket = any_socket(name)?;
        Interface::bring_up(socket.as_fd(), name, options.mtu)?;
        let interface = Interface::read(socket.as_fd(), name)?;
        Ok(Tap { interface, granted, queues })
    }
}

/// Asks for as much offload as there is, or for none: a persistent interface remembers what its
/// last user wanted.
fn ask_for_offload(fd: BorrowedFd<'_>, offload: bool) -> std::io::Result<Features> {
    for (flags, features) in STEPS {
        if !offload && features != Features::NONE {
            continue;
        }
        match sys::tun_set_offload(fd, flags) {
            Ok(()) => return Ok(features),
            Err(error) if features == Features::NONE => return Err(error),
            Err(_) => {}
        }
    }
    Ok(Features::NONE)
}

impl TapQueue {
    fn open(options: &TapOptions) -> Result<Self, DeviceError> {
        let name = options.name.clone();
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::open("/dev/net/tun", flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(errno @ (Errno::NOENT | Errno::NXIO | Errno::NODEV)) => {
                return Err(DeviceError::NoTun { name, source: errno.into() });
            }
            Err(errno) => {
                let what = "open /dev/net/tun";
                return Err(DeviceError::of(&name, what, "CAP_NET_ADMIN", errno.into()));
            }
        };
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if options.offload {
            flags |= libc::IFF_VNET_HDR;
        }
        if options.queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let queues = if options.queues > 1 { "of several queues" } else { "of one queue" };
        sys::tun_attach(fd.as_fd(), &name, flags).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EINVAL) => DeviceError::OtherKind { name: name.clone(), queues },
                Some(libc::E2BIG) => DeviceError::Busy { name: name.clone() },
                _ => DeviceError::of(&name, "make or attach to it", "CAP_NET_ADMIN", source),
            }
        })?;
        let header_len = if options.offload { HEADER_LEN } else { 0 };
        Ok(TapQueue { fd, name, header_len })
    }

    /// What a failed call means: the interface is gone, or something else.
    #[cold]
    fn failure(&self, what: &'static str, errno: Errno) -> DeviceError {
        let name = self.name.clone();
        if sys::tun_is_attached(self.fd.as_fd()) {
            DeviceError::Io { name, what, source: errno.into() }
        } else {
            DeviceError::Gone { name }
        }
    }
}

impl Device for TapQueue {
    fn receive(&mut self, into: &mut Frames) -> Result<bool, DeviceError> {
        while !into.is_full() {
            // One byte more than the longest frame, to notice a longer one.
            let room = into.room_before(self.header_len, MAX_FRAME + 1);
            match rustix::io::read(&self.fd, room) {
                Ok(len) => into.take(self.header_len, len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                // A frame that the kernel cannot describe; it has thrown it away.
                Err(Errno::INVAL) if sys::tun_is_attached(self.fd.as_fd()) => {
                    into.note_bad_offload();
                    return Ok(true);
                }
                Err(errno) => return Err(self.failure("read from it", errno)),
            }
        }
        Ok(true)
    }

    fn send(&mut self, from: &mut Frames, order: &[u32]) -> Result<Sent, DeviceError> {
        let mut sent = Sent::default();
        for &k in order {
            let Some((wire, len)) = from.with_header(k as usize, self.header_len) else { continue };
            loop {
                match rustix::io::write(&self.fd, wire) {
                    Ok(_) => {
                        sent.frames += 1;
                        sent.bytes += len as u64;
                    }
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => sent.full += 1,
                    Err(errno) if !sys::tun_is_attached(self.fd.as_fd()) => {
                        return Err(self.failure("write to it", errno));
                    }
                    Err(Errno::IO | Errno::NETDOWN) => sent.down += 1,
                    // The fault of the frame, whose sender must not be able to end the worker.
                    Err(_) => sent.refused += 1,
                }
                break;
            }
        }
        Ok(sent)
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// With an offload header the kernel takes any frame, whatever it may leave to us.
    fn features(&self) -> Features {
        if self.header_len > 0 { Features::ALL } else { Features::NONE }
    }

    fn name(&self) -> &str {
        &self.name
    }
}
