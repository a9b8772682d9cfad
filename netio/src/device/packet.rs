//! Any Ethernet interface of Linux, through `AF_PACKET` sockets.
//!
//! Frames come with their offload header, so super-frames and unfinished checksums survive, and
//! with the VLAN tag that the kernel took out put back. What we send does not come back to us. With
//! several queues the kernel spreads flows by a hash that is the same for both directions; it
//! looks at no ports in fragments, so the fragments of a flow may come on another queue than the
//! flow.
//!
//! The socket gets a copy: the host's own stack still sees the frame. Give the interface no
//! address, and put it into no bridge.
//!
//! packet(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::frames::{Frames, MAX_FRAME};
use super::interface::{Interface, any_socket, check_name};
use super::vnet::{Features, SHORT_HEADER_LEN};
use super::{Device, DeviceError, Sent, sys};

/// Bytes of the buffers to ask for: a burst of super-frames while the worker is elsewhere.
const BUFFERS: i32 = 8 << 20;
/// The most queues: sockets of one fanout group.
pub const MAX_QUEUES: usize = 256;

/// Which interface to open, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOptions {
    /// The interface's name.
    pub name: String,
    /// How many queues, 1 to [`MAX_QUEUES`].
    pub queues: usize,
    /// Whether frames carry offload headers. Without, the kernel finishes and cuts what it hands
    /// over only as far as the interface's own settings say: turn its offloads off as well.
    pub offload: bool,
}

impl PacketOptions {
    /// One queue, offload.
    #[must_use]
    pub fn new(name: &str) -> Self {
        PacketOptions { name: name.to_owned(), queues: 1, offload: true }
    }
}

/// An interface open for raw frames, up and promiscuous.
#[derive(Debug)]
pub struct Packet {
    /// What it is.
    pub interface: Interface,
    /// Its queues, as many as were asked for.
    pub queues: Vec<PacketQueue>,
}

/// One socket of an interface.
#[derive(Debug)]
pub struct PacketQueue {
    fd: OwnedFd,
    name: String,
    index: u32,
    /// Bytes of the offload header; zero without offload.
    header_len: usize,
}

impl Packet {
    /// Opens an interface of the network namespace of the calling thread, and brings it up.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW` (and `CAP_NET_ADMIN` to bring it up); if there is no such Ethernet
    /// interface; if an option is out of its range.
    pub fn open(options: &PacketOptions) -> Result<Self, DeviceError> {
        let name = options.name.as_str();
        check_name(name)?;
        if !(1..=MAX_QUEUES).contains(&options.queues) {
            let what = format!("{} queues; use 1 to {MAX_QUEUES}", options.queues);
            return Err(DeviceError::BadOption { name: name.to_owned(), what });
        }
        let socket = any_socket(name)?;
        let found = Interface::read(socket.as_fd(), name)?;
        let mut queues = Vec::with_capacity(options.queues);
        let mut group = None;
        for _ in 0..options.queues {
            let queue = PacketQueue::open(&found, options.offload)?;
            if options.queues > 1 {
                let joined = sys::packet_fanout(queue.fd.as_fd(), group).map_err(|source| {
                    DeviceError::of(name, "share it between queues", "CAP_NET_RAW", source)
                })?;
                group = Some(joined);
            }
            queues.push(queue);
        }
        if !found.is_up {
            Interface::bring_up(socket.as_fd(), name, None)?;
        }
        let interface = Interface::read(socket.as_fd(), name)?;
        Ok(Packet { interface, queues })
    }
}

impl PacketQueue {
    fn open(interface: &Interface, offload: bool) -> Result<Self, DeviceError> {
        let name = interface.name.as_str();
        let failed = |what| move |source| DeviceError::of(name, what, "CAP_NET_RAW", source);
        let fd = sys::packet_socket().map_err(failed("open a packet socket"))?;
        let socket = fd.as_fd();
        if offload {
            sys::packet_option(socket, libc::PACKET_VNET_HDR, 1)
                .map_err(failed("turn on offload headers"))?;
        }
        sys::packet_option(socket, libc::PACKET_AUXDATA, 1).map_err(failed("ask for VLAN tags"))?;
        sys::packet_option(socket, libc::PACKET_IGNORE_OUTGOING, 1)
            .map_err(failed("ignore outgoing frames"))?;
        sys::socket_buffers(socket, BUFFERS).map_err(failed("set buffer sizes"))?;
        sys::packet_bind(socket, interface.index).map_err(failed("bind to it"))?;
        sys::packet_promiscuous(socket, interface.index).map_err(failed("make it promiscuous"))?;
        Ok(PacketQueue {
            name: name.to_owned(),
            index: interface.index,
            header_len: if offload { SHORT_HEADER_LEN } else { 0 },
            fd,
        })
    }

    /// Whether the interface is still there, up or down, in the namespace of the socket.
    #[cold]
    fn exists(&self) -> bool {
        rustix::net::netdevice::index_to_name_inlined(&self.fd, self.index).is_ok()
    }

    #[cold]
    fn failure(&self, what: &'static str, errno: Errno) -> DeviceError {
        let name = self.name.clone();
        if self.exists() {
            DeviceError::Io { name, what, source: errno.into() }
        } else {
            DeviceError::Gone { name }
        }
    }
}

impl Device for PacketQueue {
    fn receive(&mut self, into: &mut Frames) -> Result<bool, DeviceError> {
        while !into.is_full() {
            let room = into.room_before(self.header_len, MAX_FRAME);
            let (header, frame) = room.split_at_mut(self.header_len);
            match sys::packet_receive(self.fd.as_fd(), header, frame) {
                Ok(got) if got.is_truncated => into.note_truncated(),
                Ok(got) => match got.tag {
                    None => into.take(self.header_len, got.len),
                    Some((tpid, tci)) => into.take_tagged(self.header_len, got.len, tpid, tci),
                },
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::AGAIN) => return Ok(false),
                    // It went down, which is said once, or it is gone.
                    Some(Errno::NETDOWN) if self.exists() => return Ok(false),
                    // A frame that the kernel cannot describe; it has thrown it away.
                    Some(Errno::INVAL) if self.exists() => {
                        into.note_bad_offload();
                        return Ok(true);
                    }
                    Some(errno) => return Err(self.failure("read from it", errno)),
                    None => return Err(self.failure("read from it", Errno::IO)),
                },
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
                    Err(errno) if !self.exists() => {
                        return Err(self.failure("write to it", errno));
                    }
                    Err(Errno::NETDOWN | Errno::NXIO) => sent.down += 1,
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

    fn features(&self) -> Features {
        if self.header_len > 0 { Features::ALL } else { Features::NONE }
    }

    fn name(&self) -> &str {
        &self.name
    }
}
