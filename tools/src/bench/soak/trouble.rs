//! What must not get through, and floods; and whoever watches that it does not.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use sgwall_netio::device::packet::{Packet, PacketOptions};
use sgwall_netio::device::{Device, Frames};
use sgwall_packet::{Frame, Headers, LinkType, PacketSpec, Transport, parse, protocol};

use super::book::Book;
use super::clients::raw_socket;
use super::lab::{BACK, DEAD, DEAD_UDP, ECHO, INSTANCE, SHORT, SHUT, STREAM};

/// How long an attempt may take that must not succeed.
const TRY: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(50);

/// The part of the world that the policies know.
pub(super) fn is_known(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[..3] == [203, 0, 113],
        IpAddr::V6(v6) => v6.segments()[..3] == [0x2001, 0xdb8, 9],
    }
}

pub(super) fn is_nobody(_: IpAddr) -> bool {
    false
}

/// Whoever the instance may talk to has its addresses.
pub(super) fn is_instance(address: IpAddr) -> bool {
    address.to_canonical() == IpAddr::from([10, 0, 1, 10])
}

/// Tries to connect, over and over.
pub(super) fn knock(book: &Book, to: &[SocketAddr]) {
    for to in to.iter().cycle().take_while(|_| !book.is_over()) {
        book.probes.fetch_add(1, Ordering::Relaxed);
        match TcpStream::connect_timeout(to, TRY) {
            Ok(_) => book.leaked(format!("a connection to {to}")),
            // Somebody answered: the packet was there.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                book.leaked(format!("a SYN to {to}, which was refused there"));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Sends datagrams, small and in fragments, from an address of the socket.
pub(super) fn shout(book: &Book, socket: &UdpSocket, to: &[SocketAddr]) {
    let large = vec![0x55; 4000];
    for to in to.iter().cycle().take_while(|_| !book.is_over()) {
        for payload in [b"no".as_slice(), &large] {
            book.probes.fetch_add(1, Ordering::Relaxed);
            // A system that has no room to send makes this no lesser test.
            let _ = socket.send_to(payload, to);
        }
        thread::sleep(PAUSE);
    }
}

/// Counts whatever comes to a listener that nothing may reach.
pub(super) fn watch_tcp(book: &Book, listener: &TcpListener) {
    super::clients::serve_tcp(book, listener, is_nobody);
}

/// One burst of a flood of so many packets, with spoofed senders; half of it is let through.
pub(super) fn flood(book: &Book, burst: u64, packets: u64) -> std::io::Result<()> {
    // IPPROTO_RAW: the packets come with their headers.
    let socket = raw_socket(false, 255)?;
    let to = SocketAddr::new(INSTANCE.parse().unwrap_or(IpAddr::from([127, 0, 0, 1])), 0);
    for n in 0..packets {
        if book.is_over() {
            return Ok(());
        }
        let random = fastrand(burst << 32 | n);
        let [a, b, c, ..] = random.to_be_bytes();
        let port = 1024 + (random as u16) % 60_000;
        let packet = match n % 4 {
            // Anybody: refused.
            0 => format!("tcp 198.{}.{b}.{c}:{port} -> {INSTANCE}:{SHORT} S", 18 + a % 2),
            1 => format!("udp 198.{}.{b}.{c}:{port} -> {INSTANCE}:{ECHO} len=64", 18 + a % 2),
            // Of the known part: tracked; the instance answers with a RST, or an ICMP error.
            2 => format!("tcp 203.0.113.{}:{port} -> {INSTANCE}:{DEAD} S", 128 + a % 127),
            _ => {
                let dead = DEAD_UDP + u16::from(b);
                format!("udp 203.0.113.{}:{port} -> {INSTANCE}:{dead} len=64", 128 + a % 127)
            }
        };
        let packet: PacketSpec = packet.parse().map_err(std::io::Error::other)?;
        // The kernel may have no room; then the flood is a little smaller.
        if socket.send_to(&packet.to_ip(), to).is_ok() {
            book.flood.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// SplitMix64: numbers that look random, the same in every run.
const fn fastrand(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Looks at every frame that comes out at the instance: whether it is one of those that may.
pub(super) fn witness(book: &Book, mut packet: Packet) {
    let Some(queue) = packet.queues.first_mut() else { return };
    let mut frames = Frames::new();
    while !book.has_ended() {
        frames.clear();
        let Ok(more) = queue.receive(&mut frames) else { return };
        for frame in 0..frames.len() {
            let bytes = frames.bytes(frame);
            book.witnessed.fetch_add(1, Ordering::Relaxed);
            match parse(LinkType::Ethernet, bytes, bytes.len()) {
                Ok(Frame::Ip(headers)) if !may_come_in(&headers) => {
                    let Headers { src, dst, protocol, .. } = headers;
                    book.leaked(format!("protocol {protocol} from {src} to {dst}"));
                }
                Ok(Frame::Other(link)) => book.leaked(format!("no IP packet: {link:?}")),
                Ok(_) => {}
                Err(error) => book.leaked(format!("a malformed frame: {error}")),
            }
        }
        if !more {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The device of the instance, to be opened in its namespace.
pub(super) fn witness_device() -> Result<Packet, String> {
    Packet::open(&PacketOptions::new("tap-i")).map_err(|error| error.to_string())
}

/// What the policies let in, said a second time.
fn may_come_in(headers: &Headers) -> bool {
    match headers.transport {
        // The router's neighbour discovery; errors are about what was let out.
        Transport::Icmp(icmp) if headers.protocol == protocol::ICMPV6 => {
            (133..=137).contains(&icmp.kind)
                || (is_known(headers.src) && (1..=4).contains(&icmp.kind))
                || (is_known(headers.src) && (128..=129).contains(&icmp.kind))
        }
        Transport::Icmp(icmp) => is_known(headers.src) && matches!(icmp.kind, 0 | 3 | 8),
        Transport::Tcp(tcp) => {
            let is_open = (STREAM..=DEAD).contains(&tcp.dst_port);
            is_known(headers.src) && (is_open || tcp.src_port == BACK) && tcp.dst_port != SHUT
        }
        Transport::Udp { dst_port, .. } => {
            let is_open = dst_port == ECHO || (DEAD_UDP..DEAD_UDP + 256).contains(&dst_port);
            is_known(headers.src) && is_open
        }
        Transport::LaterFragment => is_known(headers.src) && headers.protocol == protocol::UDP,
        Transport::Other => is_known(headers.src) && headers.protocol == 47,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_witness_knows_what_may_come_in() {
        let may = |text: &str| {
            let packet = text.parse::<PacketSpec>().expect("a packet").to_ip();
            may_come_in(&sgwall_packet::parse_ip(&packet, packet.len()).expect("headers"))
        };
        assert!(may("tcp 203.0.113.9:4000 -> 10.0.1.10:8000 S"));
        assert!(may("tcp 203.0.113.9:8080 -> 10.0.1.10:40000 SA"));
        assert!(may("udp [2001:db8:9::9]:4000 -> [2001:db8:0:1::10]:9000 len=8"));
        assert!(may("icmp 203.0.113.9 -> 10.0.1.10 8/0"));
        for refused in [
            "tcp 198.18.0.1:4000 -> 10.0.1.10:8001 S",
            "tcp 203.0.113.9:4000 -> 10.0.1.10:8100 S",
            "udp 203.0.113.9:4000 -> 10.0.1.10:8100 len=8",
            "udp 198.51.100.7:4000 -> 10.0.1.10:9000 len=8",
            "icmp 198.51.100.7 -> 10.0.1.10 8/0",
        ] {
            assert!(!may(refused), "{refused}");
        }
    }
}
