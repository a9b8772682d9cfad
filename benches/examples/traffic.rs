//! Traffic for comparisons of live paths: small UDP frames as fast as threads can, and short TCP
//! connections. Prints one JSON object.

// A measurement reads the clock.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::io::{IoSlice, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use serde_json::{Value, json};
use sgwall_netio::device::Device;
use sgwall_netio::device::packet::{Packet, PacketOptions};

/// Frames handed to the kernel at once.
const BATCH: usize = 64;
/// Bytes of a frame: the shortest there is, without the frame check sequence.
const FRAME: usize = 60;
/// The first source port of the flows.
const FIRST_PORT: u32 = 1024;

/// Makes traffic.
#[derive(Debug, Parser)]
enum Command {
    /// Sends UDP frames of 60 bytes through a packet socket
    Udp(Udp),
    /// Accepts TCP connections and closes them at once, until it is killed; datagrams to the same
    /// port find a socket that nobody reads
    Accept {
        /// Where
        listen: SocketAddrV4,
    },
    /// Opens TCP connections and closes them after the server did
    Connect {
        /// Where to
        to: SocketAddrV4,
        /// How long, seconds
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// How many at once
        #[arg(long, default_value_t = 4)]
        threads: usize,
    },
}

/// The sender of datagrams. Flow *n* comes from address *n* modulo 65536 of the range, and from the
/// next port with each time round.
#[derive(Debug, Args)]
struct Udp {
    /// The interface
    device: String,
    /// Where to
    to: SocketAddrV4,
    /// The MAC address of the next hop, as AA:BB:CC:DD:EE:FF
    #[arg(long, value_parser = mac)]
    next_hop: [u8; 6],
    /// The first of 65,536 source addresses
    #[arg(long)]
    from: Ipv4Addr,
    /// Flows to take turns with; without, each frame begins a new one
    #[arg(long)]
    flows: Option<u32>,
    /// One frame of each flow, and no more
    #[arg(long, requires = "flows")]
    once: bool,
    /// Send the answers: from where the others go to
    #[arg(long)]
    answers: bool,
    /// Sending threads, each with flows of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// How long, seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Udp(udp) => udp.run(),
        Command::Accept { listen } => accept(listen),
        Command::Connect { to, seconds, threads } => connect(to, seconds, threads),
    };
    match done {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("traffic: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "expected a MAC address such as 02:00:00:00:00:01".to_owned())
}

impl Udp {
    fn run(&self) -> Result<Value, Box<dyn Error>> {
        let options = PacketOptions { offload: false, ..PacketOptions::new(&self.device) };
        let devices: Vec<Packet> =
            (0..self.threads).map(|_| Packet::open(&options)).collect::<Result<_, _>>()?;
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(self.seconds);
        let sent: Result<Vec<u64>, Errno> = thread::scope(|scope| {
            let senders: Vec<_> = devices
                .iter()
                .zip(0..)
                .map(|(device, first)| scope.spawn(move || self.send_until(device, first, end)))
                .collect();
            senders.into_iter().map(|s| s.join().expect("a sender does not panic")).collect()
        });
        let sent: u64 = sent?.iter().sum();
        Ok(json!({ "sent": sent, "seconds": begin.elapsed().as_secs_f64() }))
    }

    /// What one thread sends: every `threads`th flow from `first` on.
    fn send_until(&self, device: &Packet, first: u32, end: Instant) -> Result<u64, Errno> {
        let mut frames = [self.template(device.interface.mac); BATCH];
        let (mut sent, mut next) = (0, first);
        while Instant::now() < end {
            let mut count = 0;
            for frame in &mut frames {
                if self.flows.is_some_and(|flows| next >= flows) {
                    if self.once {
                        break;
                    }
                    next = first;
                }
                self.set_flow(frame, next);
                next = next.wrapping_add(self.threads);
                count += 1;
            }
            if count == 0 {
                break;
            }
            for queue in &device.queues {
                sent += send(queue, &frames[..count])?;
            }
        }
        Ok(sent)
    }

    /// Ethernet, IPv4, UDP without a checksum.
    fn template(&self, mac: [u8; 6]) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        frame[0..6].copy_from_slice(&self.next_hop);
        frame[6..12].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let ip_len = (FRAME - 14) as u16;
        frame[14..24].copy_from_slice(&[0x45, 0, 0, ip_len as u8, 0, 0, 0x40, 0, 64, 17]);
        frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
        frame
    }

    fn set_flow(&self, frame: &mut [u8; FRAME], n: u32) {
        let address = u32::from(self.from).wrapping_add(n & 0xffff);
        let port = FIRST_PORT + (n >> 16) % (0x1_0000 - FIRST_PORT);
        let flow = (Ipv4Addr::from(address), port as u16);
        let fixed = (*self.to.ip(), self.to.port());
        let (from, to) = if self.answers { (fixed, flow) } else { (flow, fixed) };
        frame[26..30].copy_from_slice(&from.0.octets());
        frame[30..34].copy_from_slice(&to.0.octets());
        frame[34..36].copy_from_slice(&from.1.to_be_bytes());
        frame[36..38].copy_from_slice(&to.1.to_be_bytes());
        // RFC 791's header checksum.
        frame[24..26].fill(0);
        let mut sum: u32 = frame[14..34]
            .chunks_exact(2)
            .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
            .sum();
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!sum as u16).to_be_bytes());
    }
}

/// Hands frames to the kernel; how many it took. It takes fewer when the interface is busy.
fn send(queue: &impl Device, frames: &[[u8; FRAME]]) -> Result<u64, Errno> {
    let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        frames.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = slices
        .iter()
        .zip(&mut controls)
        .map(|(slice, control)| MMsgHdr::new(slice, control))
        .collect();
    match sendmmsg(queue.readiness(), &mut messages, SendFlags::empty()) {
        Ok(count) => Ok(count as u64),
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
            thread::yield_now();
            Ok(0)
        }
        Err(errno) => Err(errno),
    }
}

fn accept(listen: SocketAddrV4) -> Result<Value, Box<dyn Error>> {
    let _unread = UdpSocket::bind(listen)?;
    let listener = TcpListener::bind(listen)?;
    for accepted in listener.incoming() {
        drop(accepted);
    }
    Ok(Value::Null)
}

fn connect(to: SocketAddrV4, seconds: f64, threads: usize) -> Result<Value, Box<dyn Error>> {
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let made: std::io::Result<Vec<u64>> = thread::scope(|scope| {
        let connectors: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| connect_until(to, end))).collect();
        connectors.into_iter().map(|c| c.join().expect("a connector does not panic")).collect()
    });
    let made: u64 = made?.iter().sum();
    Ok(json!({ "connections": made, "seconds": begin.elapsed().as_secs_f64() }))
}

fn connect_until(to: SocketAddrV4, end: Instant) -> std::io::Result<u64> {
    let mut made = 0;
    while Instant::now() < end {
        let mut stream = TcpStream::connect(to)?;
        // Until the server has closed, so that no port of ours stays reserved.
        stream.read_to_end(&mut Vec::new())?;
        made += 1;
    }
    Ok(made)
}
