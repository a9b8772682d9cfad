//! Hosts in network namespaces, and interfaces between them.

use std::os::fd::BorrowedFd;

use sgwall_netio::clock::Clock;
use sgwall_netio::device::Device;
use sgwall_netio::device::packet::{Packet, PacketOptions};
use sgwall_netio::device::tap::{Tap, TapOptions};
use sgwall_netio::netns::{Scratch, can_test};
use sgwall_netio::worker::{Handler, Plan, Workers};

/// The address of host a.
pub(crate) const A: &str = "10.99.0.1";
/// The address of host b.
pub(crate) const B: &str = "10.99.0.2";

/// Whether live tests can run here. If not, says so, and fails where they are required.
pub(crate) fn can_run(test: &str) -> bool {
    can_test(test, &["ping", "ethtool", "setpriv"])
}

/// Two hosts without a wire. Each will have one interface, `net0`.
pub(crate) struct Hosts {
    pub(crate) a: Scratch,
    pub(crate) b: Scratch,
}

impl Hosts {
    pub(crate) fn new(label: &str) -> Self {
        let [a, b] = [(); 2].map(|()| Scratch::new(label).expect("a namespace"));
        Hosts { a, b }
    }

    /// A TAP interface in each.
    pub(crate) fn taps(&self, queues: usize, offload: bool, mtu: u32) -> [Tap; 2] {
        [&self.a, &self.b].map(|host| self.tap(host, queues, offload, mtu))
    }

    /// A TAP interface in one, with its addresses.
    pub(crate) fn tap(&self, host: &Scratch, queues: usize, offload: bool, mtu: u32) -> Tap {
        let options = TapOptions { queues, offload, mtu: Some(mtu), ..TapOptions::new("net0") };
        let tap = host.inside(|| Tap::open(&options)).expect("namespace").expect("a TAP");
        self.address(host);
        tap
    }

    /// A veth between host b and a third namespace, opened there.
    pub(crate) fn veth(&self, queues: usize, offload: bool) -> (Packet, Scratch) {
        let middle = Scratch::new("middle").expect("a namespace");
        middle.ip("link add veth0 type veth peer name net0").expect("a veth");
        middle.ip(&format!("link set net0 netns {}", self.b.name())).expect("moved");
        self.b.ip("link set net0 up").expect("up");
        if !offload {
            for (host, name) in [(&self.b, "net0"), (&middle, "veth0")] {
                let mut command = host.command("ethtool");
                command.args(["-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
                let output = command.output().expect("ethtool is installed");
                assert!(output.status.success(), "{output:?}");
            }
        }
        self.address(&self.b);
        let options = PacketOptions { queues, offload, ..PacketOptions::new("veth0") };
        let packet = middle.inside(|| Packet::open(&options)).expect("namespace");
        (packet.expect("a packet socket"), middle)
    }

    /// A packet socket on the interface of a host, beside the host's own stack.
    pub(crate) fn socket(host: &Scratch) -> Box<dyn Device> {
        let packet = host.inside(|| Packet::open(&PacketOptions::new("net0")));
        one_packet_queue(packet.expect("namespace").expect("a packet socket"))
    }

    fn address(&self, host: &Scratch) {
        let n = if host.name() == self.a.name() { 1 } else { 2 };
        host.ip(&format!("address add 10.99.0.{n}/24 dev net0")).expect("an IPv4 address");
        host.ip(&format!("address add fd99::{n}/64 dev net0 nodad")).expect("an IPv6 address");
    }
}

/// Workers between two TAP interfaces, one for each queue.
pub(crate) fn forward<H: Handler + 'static>(
    [a, b]: [Tap; 2],
    mut handler: impl FnMut() -> H,
) -> Workers<H> {
    let plans = a.queues.into_iter().zip(b.queues).map(|(a, b)| {
        let devices: Vec<Box<dyn Device>> = vec![Box::new(a), Box::new(b)];
        Plan { devices, handler: handler() }
    });
    Workers::spawn(Clock::new(), plans.collect()).expect("workers")
}

/// The only queue of a TAP interface.
pub(crate) fn one_queue(mut tap: Tap) -> Box<dyn Device> {
    assert_eq!(tap.queues.len(), 1);
    Box::new(tap.queues.remove(0))
}

/// The only queue of a packet socket.
pub(crate) fn one_packet_queue(mut packet: Packet) -> Box<dyn Device> {
    assert_eq!(packet.queues.len(), 1);
    Box::new(packet.queues.remove(0))
}

/// Makes a UDP socket send what it is given in datagrams of `size` bytes.
#[allow(unsafe_code)]
pub(crate) fn set_udp_segment(fd: BorrowedFd<'_>, size: i32) {
    use std::os::fd::AsRawFd;
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer is to an `int`, and `len` is its size.
    let result = unsafe {
        let value = (&raw const size).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, len)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
