//! The calls to the kernel that no package offers: ioctls of `tun` and of interfaces, options and
//! messages of packet sockets. Each is a safe function of plain values.
//!
//! `linux/if_tun.h`, `linux/if_packet.h`, netdevice(7), packet(7). The only file with `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_int, c_uint, c_ulong, ifreq};

/// Ends a call that returns -1 and sets `errno` when it fails.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An `ifreq` for interface `name`; a name of 16 or more bytes is no interface's.
fn request(name: &str) -> io::Result<ifreq> {
    // SAFETY: an `ifreq` is integers, arrays of them and a pointer; all zeros is one.
    let mut request: ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Calls an ioctl that reads or writes an `ifreq`.
fn interface_ioctl(fd: BorrowedFd<'_>, call: libc::Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: every call that this module passes here takes a pointer to an `ifreq`, which the
    // exclusive borrow keeps valid for reading and writing.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), call, ptr::from_mut(request)) }).map(drop)
}

/// Makes `fd`, of `/dev/net/tun`, a queue of interface `name`: `TUNSETIFF`.
pub(super) fn tun_attach(fd: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags as i16;
    interface_ioctl(fd, libc::TUNSETIFF, &mut request)
}

/// Whether the interface of this `tun` queue still exists: `TUNGETIFF`.
pub(super) fn tun_is_attached(fd: BorrowedFd<'_>) -> bool {
    request("").and_then(|mut r| interface_ioctl(fd, libc::TUNGETIFF, &mut r)).is_ok()
}

/// What the kernel may leave to the reader of this `tun` interface: `TUNSETOFFLOAD`.
pub(super) fn tun_set_offload(fd: BorrowedFd<'_>, flags: c_uint) -> io::Result<()> {
    // SAFETY: the call takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(flags)) })
        .map(drop)
}

/// How many bytes an offload header has on this `tun` interface: `TUNSETVNETHDRSZ`.
pub(super) fn tun_set_header_size(fd: BorrowedFd<'_>, size: c_int) -> io::Result<()> {
    // SAFETY: the call reads an `int` through the pointer, which is valid.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) }).map(drop)
}

/// Whether the `tun` interface outlives its queues: `TUNSETPERSIST`.
pub(super) fn tun_set_persistent(fd: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    // SAFETY: the call takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, c_ulong::from(persistent)) })
        .map(drop)
}

/// The MTU, bytes: `SIOCGIFMTU`.
pub(super) fn mtu(fd: BorrowedFd<'_>, name: &str) -> io::Result<c_int> {
    let mut request = request(name)?;
    interface_ioctl(fd, libc::SIOCGIFMTU as libc::Ioctl, &mut request)?;
    // SAFETY: the call has set this member; any bytes are an integer.
    Ok(unsafe { request.ifr_ifru.ifru_mtu })
}

/// Sets the MTU, bytes: `SIOCSIFMTU`.
pub(super) fn set_mtu(fd: BorrowedFd<'_>, name: &str, mtu: c_int) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = mtu;
    interface_ioctl(fd, libc::SIOCSIFMTU as libc::Ioctl, &mut request)
}

/// The `IFF_` flags: `SIOCGIFFLAGS`.
pub(super) fn flags(fd: BorrowedFd<'_>, name: &str) -> io::Result<c_int> {
    let mut request = request(name)?;
    interface_ioctl(fd, libc::SIOCGIFFLAGS as libc::Ioctl, &mut request)?;
    // SAFETY: the call has set this member; any bytes are an integer.
    Ok(c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// Sets the `IFF_` flags: `SIOCSIFFLAGS`.
pub(super) fn set_flags(fd: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags as i16;
    interface_ioctl(fd, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
}

/// The hardware type (`ARPHRD_`) and MAC address: `SIOCGIFHWADDR`.
pub(super) fn hardware(fd: BorrowedFd<'_>, name: &str) -> io::Result<(u16, [u8; 6])> {
    let mut request = request(name)?;
    interface_ioctl(fd, libc::SIOCGIFHWADDR as libc::Ioctl, &mut request)?;
    // SAFETY: the call has set this member; any bytes are integers.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok((address.sa_family, mac))
}

/// A packet socket that receives nothing before it is bound.
pub(super) fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes integers.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds a packet socket to all protocols of one interface.
pub(super) fn packet_bind(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    // SAFETY: a `sockaddr_ll` is integers and an array of them; all zeros is one.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer is to a `sockaddr_ll`, `len` its size.
    check(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), len) }).map(drop)
}

/// Sets an option whose value is a plain struct or an integer.
fn set_option<T: Copy>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is valid for reading `len` bytes, which is all the kernel does with it.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), len) };
    check(result).map(drop)
}

/// Sets an integer option of packet sockets.
pub(super) fn packet_option(fd: BorrowedFd<'_>, name: c_int, value: c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_PACKET, name, value)
}

/// Asks for buffers of `bytes`, more than the system's limit where that is allowed.
pub(super) fn socket_buffers(fd: BorrowedFd<'_>, bytes: c_int) -> io::Result<()> {
    for (force, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        set_option(fd, libc::SOL_SOCKET, force, bytes)
            .or_else(|_| set_option(fd, libc::SOL_SOCKET, plain, bytes))?;
    }
    Ok(())
}

/// Makes the interface promiscuous as long as the socket lives.
pub(super) fn packet_promiscuous(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: index as c_int,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, request)
}

/// Joins the group `id` whose sockets share the frames of one interface by the hash of their flow;
/// `None` makes a group. The answer is its id.
pub(super) fn packet_fanout(fd: BorrowedFd<'_>, id: Option<u16>) -> io::Result<u16> {
    let mut kind = libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    if id.is_none() {
        kind |= libc::PACKET_FANOUT_FLAG_UNIQUEID;
    }
    let value = (kind << 16) | u32::from(id.unwrap_or(0));
    set_option(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, value)?;
    let mut joined: u32 = 0;
    let mut len = mem::size_of::<u32>() as libc::socklen_t;
    // SAFETY: both pointers are to values that live through the call; `len` is the first's size.
    let result = unsafe {
        let value = ptr::from_mut(&mut joined).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, value, &mut len)
    };
    check(result).map(|_| joined as u16)
}

/// A frame as [`packet_receive`] found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Bytes read, the offload header included.
    pub(super) len: usize,
    /// Whether the room was too small.
    pub(super) is_truncated: bool,
    /// The VLAN tag that the kernel took out of the frame: its TPID and its TCI.
    pub(super) tag: Option<(u16, u16)>,
}

/// Reads one frame: the offload header into `header`, the rest into `room`.
pub(super) fn packet_receive(
    fd: BorrowedFd<'_>,
    header: &mut [u8],
    room: &mut [u8],
) -> io::Result<Received> {
    #[repr(C, align(8))]
    struct Control([MaybeUninit<u8>; 64]);
    let mut control = Control([MaybeUninit::uninit(); 64]);
    let mut parts = [
        libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
        libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() },
    ];
    // SAFETY: a `msghdr` is pointers and integers; all zeros is one.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control.0);
    // SAFETY: `message` points to two buffers that are borrowed exclusively, and to room for
    // control messages aligned as `cmsghdr` needs it; all outlive the call and have the lengths
    // given.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let mut tag = None;
    // SAFETY: the kernel has filled `message`; `CMSG_FIRSTHDR` answers null or a header within the
    // control room, which is alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&message) };
    while !next.is_null() {
        // SAFETY: not null, so it is a header that the kernel wrote.
        let head = unsafe { *next };
        if head.cmsg_level == libc::SOL_PACKET && head.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: this type carries a `tpacket_auxdata`; it may be unaligned.
            let aux: libc::tpacket_auxdata =
                unsafe { ptr::read_unaligned(libc::CMSG_DATA(next).cast()) };
            if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                let has_tpid = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                tag = Some((if has_tpid { aux.tp_vlan_tpid } else { 0x8100 }, aux.tp_vlan_tci));
            }
        }
        // SAFETY: both are as the kernel left them.
        next = unsafe { libc::CMSG_NXTHDR(&message, next) };
    }
    Ok(Received { len, is_truncated: message.msg_flags & libc::MSG_TRUNC != 0, tag })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn any_socket() -> OwnedFd {
        std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket").into()
    }

    #[test]
    fn loopback_has_an_mtu_flags_and_no_ethernet_address() {
        let socket = any_socket();
        assert!(mtu(socket.as_fd(), "lo").expect("its MTU") >= 1280);
        let up = flags(socket.as_fd(), "lo").expect("its flags");
        assert_ne!(up & libc::IFF_LOOPBACK, 0);
        let (kind, mac) = hardware(socket.as_fd(), "lo").expect("its address");
        assert_eq!((kind, mac), (libc::ARPHRD_LOOPBACK, [0; 6]));
    }

    #[test]
    fn names_are_held_to_their_length() {
        let socket = any_socket();
        let error = mtu(socket.as_fd(), "sixteen-bytes-xx").expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = mtu(socket.as_fd(), "no-such-if").expect_err("no such interface");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn calls_on_what_is_no_device_fail_with_their_errno() {
        let socket = any_socket();
        let fd = socket.as_fd();
        assert!(!tun_is_attached(fd));
        for result in [
            tun_attach(fd, "x", libc::IFF_TAP),
            tun_set_offload(fd, 0),
            tun_set_header_size(fd, 12),
            tun_set_persistent(fd, false),
            packet_bind(fd, 1),
            packet_option(fd, libc::PACKET_AUXDATA, 1),
            packet_promiscuous(fd, 1),
            packet_fanout(fd, None).map(drop),
        ] {
            assert!(result.expect_err("no device").raw_os_error().is_some());
        }
        socket_buffers(fd, 1 << 16).expect("buffers of any socket");
    }

    #[test]
    fn a_message_fills_both_parts_and_says_if_it_was_cut() {
        let to = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let from = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        from.connect(to.local_addr().expect("its address")).expect("connected");
        let (mut header, mut room) = ([0; 4], [0; 8]);
        from.send(b"headROOM").expect("sent");
        let got = packet_receive(to.as_fd(), &mut header, &mut room).expect("received");
        assert_eq!(got, Received { len: 8, is_truncated: false, tag: None });
        assert_eq!((&header, &room[..4]), (b"head", &b"ROOM"[..]));
        from.send(&[1; 13]).expect("sent");
        let got = packet_receive(to.as_fd(), &mut header, &mut room).expect("received");
        assert_eq!(got, Received { len: 12, is_truncated: true, tag: None });
    }
}
