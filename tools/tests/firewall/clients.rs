//! Real clients and servers, and what is expected of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sgwall_netio::netns::Scratch;

use crate::lab::{INSTANCE, PATIENCE, SILENCE, eventually, text};

/// Runs a program in a namespace.
pub(crate) fn run(host: &Scratch, words: &str) -> Output {
    let mut words = words.split_whitespace();
    let program = words.next().expect("a program");
    host.command(program).args(words).output().expect("ip of iproute2")
}

/// Pings once; whether an answer came.
fn ping_once(from: &Scratch, to: &str, more: &str, wait: &str) -> bool {
    run(from, &format!("ping -n -q -c 1 -W {wait} {more} {to}")).status.success()
}

/// Pings until an answer comes: a link that has just come up loses frames for a while.
pub(crate) fn reach(from: &Scratch, to: &str, more: &str) {
    eventually(&format!("{to} answers"), || ping_once(from, to, more, "1"));
}

/// Whether two pings in a row stay without an answer.
pub(crate) fn is_silent(from: &Scratch, to: &str, more: &str) -> bool {
    !run(from, &format!("ping -n -q -c 2 -i 0.1 -W 0.5 {more} {to}")).status.success()
}

/// The status of `http://ADDRESS:PORT/`, or how curl failed.
pub(crate) fn curl(from: &Scratch, url: &str, seconds: &str) -> Result<String, Option<i32>> {
    let mut command = from.command("curl");
    command.args(["-gsS", "--noproxy", "*", "--max-time", seconds, "-w", "\n%{http_code}", url]);
    let output = command.output().expect("ip of iproute2");
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(output.status.code()),
    }
}

/// A TCP listener in a namespace.
pub(crate) fn listen(host: &Scratch, at: &str) -> TcpListener {
    host.inside(|| TcpListener::bind(at)).expect("a namespace").expect("a listener")
}

/// A port where something listens that no rule allows: whatever happens, nobody gets there.
pub(crate) struct ClosedPort(TcpListener);

impl ClosedPort {
    /// Listens in the instance.
    pub(crate) fn of(instance: &Scratch) -> ClosedPort {
        let listener = listen(instance, "[::]:8080");
        listener.set_nonblocking(true).expect("non-blocking");
        // It is there: the instance itself gets through.
        drop(connect(instance, at("127.0.0.1", 8080), PATIENCE).expect("connected"));
        while listener.accept().is_err() {}
        ClosedPort(listener)
    }

    /// Tries it from elsewhere.
    pub(crate) fn is_closed_to(&self, host: &Scratch) {
        let tried = connect(host, at(INSTANCE, 8080), Duration::from_millis(300));
        assert!(tried.is_err(), "a port is open that no rule allows");
        let reached = self.0.accept();
        assert!(reached.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    }
}

/// A UDP socket in a namespace.
pub(crate) fn udp(host: &Scratch, at: &str) -> UdpSocket {
    host.inside(|| UdpSocket::bind(at)).expect("a namespace").expect("a socket")
}

/// A connection from a namespace.
pub(crate) fn connect(
    host: &Scratch,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<TcpStream> {
    host.inside(|| TcpStream::connect_timeout(&to, patience)).expect("a namespace")
}

/// A server that answers every connection with a small page; gone when dropped.
pub(crate) struct Http {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What [`Http`] serves.
pub(crate) const PAGE: &str = "this is the page";

impl Http {
    /// Serves at an address of a namespace.
    pub(crate) fn serve(host: &Scratch, at: &str) -> Http {
        let listener = listen(host, at);
        listener.set_nonblocking(true).expect("non-blocking");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                match listener.accept() {
                    // A client that goes away is no fault of ours.
                    Ok((stream, _)) => drop(answer(stream)),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Http { stop, thread: Some(thread) }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => request.extend(&buffer[..len]),
        }
    }
    let len = PAGE.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{PAGE}")
}

/// `len` bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

/// Sends `len` bytes over TCP from one host to another at `at`; how many arrived within
/// `patience`, each of them compared.
pub(crate) fn transfer(
    from: &Scratch,
    to: &Scratch,
    at: &str,
    len: usize,
    patience: Duration,
) -> usize {
    let listener = listen(to, at);
    let address = listener.local_addr().expect("its address");
    let data = pattern(len);
    let received = std::thread::scope(|scope| {
        let mut stream = connect(from, address, PATIENCE).expect("connected");
        let (mut end, _) = listener.accept().expect("a connection");
        let sender = scope.spawn(|| {
            // It ends with an error where the receiver gives up.
            let _ = stream.set_write_timeout(Some(PATIENCE));
            let _ = stream.write_all(&data);
            drop(stream);
        });
        end.set_read_timeout(Some(patience)).expect("a timeout");
        let mut received = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            match end.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(len) => received.extend(&buffer[..len]),
            }
        }
        reset(end);
        sender.join().expect("the sender");
        received
    });
    assert!(data.starts_with(&received), "the bytes differ");
    received.len()
}

/// Closes a connection at once: whoever is still sending learns of it where a reset gets through,
/// and stops with it in any case when the namespace goes.
fn reset(stream: TcpStream) {
    let zero = Some(Duration::ZERO);
    let _ = rustix::net::sockopt::set_socket_linger(&stream, zero);
    drop(stream);
}

/// Sends a datagram and waits for one; what came, if anything did.
pub(crate) fn ask(client: &UdpSocket, to: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    client.send_to(question, to).expect("sent");
    receive(client).map(|(bytes, _)| bytes)
}

/// The next datagram, if one comes before [`SILENCE`] is over.
pub(crate) fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let mut buffer = vec![0; 65_536];
    match socket.recv_from(&mut buffer) {
        Ok((len, from)) => {
            buffer.truncate(len);
            Some((buffer, from))
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            None
        }
    }
}

/// `10.0.0.1`, `::1` and a port.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// Sends raw Ethernet frames, given in hexadecimal, from a device of a namespace.
pub(crate) fn send_frame(host: &Scratch, device: &str, frame: &str) {
    const SCRIPT: &str = "import socket,sys\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        s.bind((sys.argv[1], 0))\n\
        s.send(bytes.fromhex(sys.argv[2]))\n";
    let output = host.command("python3").args(["-c", SCRIPT, device, frame]).output();
    let output = output.expect("ip of iproute2");
    assert!(output.status.success(), "{}", text(&output.stderr));
}
