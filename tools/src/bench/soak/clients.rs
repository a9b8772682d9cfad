//! Clients whose every byte is compared, and the servers that they talk to.
//!
//! Patience is counted in short waits, not by the clock: a machine that stands still for a minute has
//! lost no packet.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, SocketType};

use super::book::{Book, Client, End};

/// A wait for something that should come at once, and how many of them to wait.
const WAIT: Duration = Duration::from_millis(50);
const WAITS: usize = 100;
/// Likewise for connections, where what is lost is sent again, ever later.
const TCP_WAIT: Duration = Duration::from_secs(1);
const TCP_WAITS: usize = 90;
/// Bytes sent at once in a long transfer, and the pause after them: some megabytes a second.
const CHUNK: usize = 32 << 10;
const PAUSE: Duration = Duration::from_millis(8);
/// Between two small things that a client does.
const BREATH: Duration = Duration::from_millis(2);

/// The byte at a place of what is sent under a seed.
const fn byte(seed: u64, place: u64) -> u8 {
    (place.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn bytes(seed: u64, places: std::ops::Range<u64>) -> Vec<u8> {
    places.map(|place| byte(seed, place)).collect()
}

/// FNV-1a.
struct Sum(u64);

impl Sum {
    const NEW: Sum = Sum(0xcbf2_9ce4_8422_2325);

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Fills the buffer, unless nothing comes for as long as we wait.
fn read_all(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let (mut filled, mut waited) = (0, 0);
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => (filled, waited) = (filled + len, 0),
            Err(error) if is_wait(&error) && waited < TCP_WAITS => waited += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let mut waited = 0;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(len) => (bytes, waited) = (&bytes[len..], 0),
            Err(error) if is_wait(&error) && waited < TCP_WAITS => waited += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn set_waits(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TCP_WAIT))?;
    stream.set_write_timeout(Some(TCP_WAIT))
}

/// Answers each connection: eight bytes length, then as many bytes; back come their sum and as many
/// bytes again, turned. Whoever is not `allowed` has come through where nothing may.
pub(super) fn serve_tcp(book: &Book, listener: &TcpListener, allowed: fn(IpAddr) -> bool) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    thread::scope(|scope| {
        while !book.has_ended() {
            match listener.accept() {
                Ok((_, from)) if !allowed(from.ip()) => {
                    book.leaked(format!("a connection from {from}"));
                }
                Ok((stream, _)) => drop(scope.spawn(move || drop(answer(stream)))),
                Err(_) => thread::sleep(BREATH),
            }
        }
    });
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    set_waits(&stream)?;
    let mut head = [0; 8];
    read_all(&mut stream, &mut head)?;
    let (mut left, mut sum) = (u64::from_be_bytes(head), Sum::NEW);
    let mut last = Vec::new();
    while left > 0 {
        last.resize(left.min(CHUNK as u64) as usize, 0);
        read_all(&mut stream, &mut last)?;
        sum.add(&last);
        left -= last.len() as u64;
    }
    write_all(&mut stream, &sum.0.to_be_bytes())?;
    last.iter_mut().for_each(|byte| *byte = !*byte);
    write_all(&mut stream, &last)
}

/// Connects, sends, and compares what comes back, over and over. `len` says how much the nth time.
pub(super) fn ask_tcp(book: &Book, client: Client, to: SocketAddr, len: fn(u64) -> u64) {
    for n in (1..).take_while(|_| !book.is_over()) {
        let end = match exchange(book, to, n, len(n)) {
            Ok(None) => return,
            Ok(Some(true)) => End::Done,
            Ok(Some(false)) => End::Wrong(format!("transfer {n} to {to} differs")),
            Err(error) => End::Lost(format!("transfer {n} to {to}: {error}")),
        };
        book.note(client, end);
        thread::sleep(BREATH);
    }
}

/// Whether the answer was right; `None`: it is over, and the transfer was given up.
fn exchange(book: &Book, to: SocketAddr, seed: u64, len: u64) -> io::Result<Option<bool>> {
    let mut stream = TcpStream::connect_timeout(&to, TCP_WAIT * TCP_WAITS as u32)?;
    set_waits(&stream)?;
    write_all(&mut stream, &len.to_be_bytes())?;
    let (mut sum, mut place, mut last) = (Sum::NEW, 0, Vec::new());
    while place < len {
        if place > 0 {
            thread::sleep(PAUSE);
        }
        if book.is_over() {
            return Ok(None);
        }
        last = bytes(seed, place..len.min(place + CHUNK as u64));
        sum.add(&last);
        write_all(&mut stream, &last)?;
        place += last.len() as u64;
    }
    let mut answer = vec![0; 8 + last.len()];
    read_all(&mut stream, &mut answer)?;
    let (found, turned) = answer.split_at(8);
    let is_same = turned.iter().zip(&last).all(|(turned, sent)| *turned == !*sent);
    Ok(Some(found == sum.0.to_be_bytes() && is_same))
}

/// Sends every datagram back, turned; UDP, or a raw socket's, whose datagrams of IPv4 begin with
/// `header` bytes that are not ours.
pub(super) fn serve_datagrams(
    book: &Book,
    socket: &UdpSocket,
    header: usize,
    allowed: fn(IpAddr) -> bool,
) {
    if socket.set_read_timeout(Some(WAIT)).is_err() {
        return;
    }
    let mut buffer = vec![0; 65_536];
    while !book.has_ended() {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        if !allowed(from.ip()) {
            book.leaked(format!("a datagram from {from}"));
            continue;
        }
        let Some(bytes) = buffer.get_mut(header..len) else { continue };
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        // What the kernel cannot send is lost to the client, who says so.
        let _ = socket.send_to(bytes, from);
    }
}

/// How a datagram client's questions look, and the answers to them.
pub(super) struct Datagrams {
    pub(super) client: Client,
    pub(super) to: SocketAddr,
    /// Bytes of the nth question.
    pub(super) len: fn(u64) -> usize,
    /// Bytes before the answer that are not the peer's.
    pub(super) header: usize,
    /// Makes the question of a number and so many bytes, and the answer to it.
    pub(super) question: fn(u64, usize) -> (Vec<u8>, Vec<u8>),
}

/// A question of which the answer is the same, turned. Its first bytes name it.
pub(super) fn turned(n: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let question = [&n.to_be_bytes()[..], &bytes(n, 8..len as u64)].concat();
    let answer = question.iter().map(|byte| !byte).collect();
    (question, answer)
}

/// An ICMP echo request with its checksum, and its reply.
pub(super) fn ping(n: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    (echo(8, n, len), echo(0, n, len))
}

/// The same for ICMPv6, where the kernel makes the checksum, and the reply without it.
pub(super) fn ping_v6(n: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    (echo(128, n, len), echo(129, n, len))
}

fn echo(kind: u8, n: u64, len: usize) -> Vec<u8> {
    // Identifiers change, so that there is a flow for each 64 of them.
    let id = (n / 64) as u16;
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend((n as u16).to_be_bytes());
    message.extend(bytes(n, 0..len as u64));
    let words = message.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        _ => u64::from(pair[0]) << 8,
    });
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}

/// Sends one question after the other and waits for each answer.
pub(super) fn ask_datagrams(book: &Book, socket: &UdpSocket, what: &Datagrams) {
    let Datagrams { client, to, len, header, question } = what;
    if socket.set_read_timeout(Some(WAIT)).is_err() {
        return;
    }
    for n in (1..).take_while(|_| !book.is_over()) {
        let (question, expected) = question(n, len(n));
        let end = match socket.send_to(&question, to) {
            Ok(_) => await_answer(socket, to, *header, &expected, n),
            Err(error) => End::Lost(format!("datagram {n} to {to}: {error}")),
        };
        book.note(*client, end);
        thread::sleep(BREATH);
    }
}

fn await_answer(
    socket: &UdpSocket,
    to: &SocketAddr,
    header: usize,
    expected: &[u8],
    n: u64,
) -> End {
    let mut buffer = vec![0; 65_536];
    let mut waited = 0;
    while waited < WAITS {
        let (len, from) = match socket.recv_from(&mut buffer) {
            Ok(got) => got,
            // Also what an ICMP error makes of it.
            Err(_) => {
                waited += 1;
                continue;
            }
        };
        let Some(found) = buffer.get(header..len) else { continue };
        // Raw sockets hear of everything; and what comes late is of an earlier question.
        let is_icmp = matches!(expected.first(), Some(0 | 129)) && expected.get(1) == Some(&0);
        let names = if is_icmp { 4..8 } else { 0..8 };
        if from.ip() != to.ip() || found.get(names.clone()) != expected.get(names) {
            waited += usize::from(len == 0);
            continue;
        }
        // The kernel has seen to the checksum of ICMP.
        let (found, expected) = match is_icmp {
            true => ((&found[..1], &found[4..]), (&expected[..1], &expected[4..])),
            false => ((&found[..1], &found[1..]), (&expected[..1], &expected[1..])),
        };
        return match found == expected {
            true => End::Done,
            false => End::Wrong(format!("the answer to datagram {n} from {from} differs")),
        };
    }
    End::Lost(format!("no answer to datagram {n} to {to}"))
}

/// A raw socket of an IP protocol. It is a datagram socket in all that is used of it.
pub(super) fn raw_socket(is_ipv6: bool, protocol: u8) -> io::Result<UdpSocket> {
    let family = if is_ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let protocol = NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
    Ok(rustix::net::socket(family, SocketType::RAW, protocol)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 792: a message with its checksum sums to all ones.
    #[test]
    fn echo_requests_have_their_checksum() {
        for len in [0, 1, 56, 57] {
            let (request, reply) = ping(70_000, len);
            assert_eq!((request[0], reply[0], request.len()), (8, 0, 8 + len));
            let padded: Vec<u8> = request.iter().copied().chain([0]).collect();
            let sum: u32 =
                padded.chunks_exact(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }

    #[test]
    fn a_datagram_has_its_number_in_front() {
        let (question, answer) = turned(7, 100);
        assert_eq!((question.len(), &question[..8]), (100, &7_u64.to_be_bytes()[..]));
        assert!(question.iter().zip(&answer).all(|(asked, answered)| *answered == !*asked));
    }
}
