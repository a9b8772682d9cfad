//! `sgwall bench soak`: whether the live firewall loses, lets through or keeps what it must not, while
//! everything goes on at once.
//!
//! Clients of many kinds compare every byte, probers try what must be refused, a witness looks at
//! every frame that comes out at the instance; meanwhile policies are replaced, flows are ended and
//! floods come. At the end the counters must add up: what was lost on the way was lost by a queue
//! that counted it.

mod book;
mod clients;
mod lab;
mod report;
mod trouble;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use sgwall_netio::netns::Scratch;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::bench::args::SoakArgs;
use crate::failure::Failure;
use crate::style::grouped;
use book::{Book, Client};
use clients::{
    Datagrams, ask_datagrams, ask_tcp, ping, ping_v6, raw_socket, serve_datagrams, serve_tcp,
    turned,
};
use lab::{
    BACK, ECHO, INSTANCE, INSTANCE_V6, Lab, SHORT, SHUT, STRANGER, STRANGER_V6, STREAM, WORLD,
    WORLD_V6,
};
use report::{Report, frames_read};
use trouble::{is_instance, is_known, is_nobody};

/// What happens happens at multiples of this.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between bursts of floods, reloads, kills, lines of progress.
const FLOOD: u64 = 8;
const RELOAD: u64 = 12;
const KILL: u64 = 20;
const PROGRESS: u64 = 20;
/// How long hosts may take to know their neighbours.
const WARM_UP: Duration = Duration::from_secs(60);
/// How long counters must stand still before they are compared.
const STILL: Duration = Duration::from_millis(500);

/// Flows that are ended in turn: of a flood, and of clients, whose packets the rules let through
/// without them.
const KILLED: [&str; 6] = [
    "src=203.0.113.128/25",
    "protocol=udp",
    "port=8000",
    "protocol=icmp",
    "protocol=tcp src=203.0.113.0/24",
    "protocol=icmpv6",
];

/// What was done to the firewall.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    reloads: u64,
    kills: u64,
    ended: u64,
}

/// Runs `sgwall bench soak`.
pub(super) fn run(args: &SoakArgs) -> Result<(), Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Failure::Io(format!("cannot watch for signals: {error}")))?;
    }
    let lab = Lab::new(args)?;
    let book = Book::default();
    let before = lab.kernel_drops()?;
    let begin = Instant::now();
    let directed = thread::scope(|scope| {
        let mut asking = Vec::new();
        let directed = serve(scope, &lab, &book)
            .and_then(|()| start(scope, &lab, &book, &mut asking))
            .and_then(|()| direct(args, &lab, &book, &interrupted));
        // Whatever happened, the others end; the servers when nobody waits for them.
        book.stop();
        for client in asking {
            let _ = client.join();
        }
        book.end();
        directed
    });
    let (done, early) = directed?;
    let seconds = begin.elapsed().as_secs_f64();
    let stats = settle(&lab)?;
    let drops = lab.kernel_drops()? - before;
    let usage = [early, lab.usage()?];
    let report = Report { args, book: &book, done, stats, drops, usage, seconds };
    let mut out = anstream::stdout();
    if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }
        .map_err(Failure::Output)?;
    if interrupted.load(Ordering::Relaxed) {
        return Err(Failure::Io("interrupted; nothing is left behind".to_owned()));
    }
    match report.faults() {
        faults if faults.is_empty() => Ok(()),
        faults => Err(Failure::Live(faults.join("; "))),
    }
}

/// Starts servers, listeners that nobody should reach, and the witness.
fn serve<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    lab: &'env Lab,
    book: &'env Book,
) -> Result<(), Failure> {
    let (instance, world) = (&lab.instance, &lab.world);
    let witness = inside(instance, trouble::witness_device)?.map_err(Failure::Io)?;
    scope.spawn(move || trouble::witness(book, witness));

    for (address, port) in
        [(INSTANCE, STREAM), (INSTANCE_V6, STREAM), (INSTANCE, SHORT), (INSTANCE_V6, SHORT)]
    {
        let listener = listen(instance, address, port)?;
        scope.spawn(move || serve_tcp(book, &listener, is_known));
    }
    let listener = listen(world, WORLD, BACK)?;
    scope.spawn(move || serve_tcp(book, &listener, is_instance));
    for (host, address, port) in
        [(instance, INSTANCE, SHUT), (instance, INSTANCE_V6, SHUT), (world, STRANGER, BACK)]
    {
        let listener = listen(host, address, port)?;
        scope.spawn(move || trouble::watch_tcp(book, &listener));
        let socket = bind(host, address, port)?;
        scope.spawn(move || serve_datagrams(book, &socket, 0, is_nobody));
    }
    for address in [INSTANCE, INSTANCE_V6] {
        let socket = bind(instance, address, ECHO)?;
        scope.spawn(move || serve_datagrams(book, &socket, 0, is_known));
    }
    // Raw sockets of IPv4 hand over the header as well.
    let socket = raw(instance, false, GRE)?;
    scope.spawn(move || serve_datagrams(book, &socket, IPV4_HEADER, is_known));
    Ok(())
}

/// Starts clients and probers, once hosts know their neighbours.
fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    lab: &'env Lab,
    book: &'env Book,
    asking: &mut Vec<ScopedJoinHandle<'scope, ()>>,
) -> Result<(), Failure> {
    let (instance, world) = (&lab.instance, &lab.world);
    for (_, address, port) in TCP_CLIENTS {
        let host = if address == WORLD { instance } else { world };
        let connect = || TcpStream::connect_timeout(&at(address, port), WARM_UP);
        inside(host, connect)?
            .map_err(|error| Failure::Live(format!("cannot reach {address}: {error}")))?;
    }
    for (client, address, port) in TCP_CLIENTS {
        let to = at(address, port);
        let host = if client == Client::Back { instance } else { world };
        let len = if port == STREAM { long } else { short };
        asking.push(scope.spawn(move || work_in(host, book, || ask_tcp(book, client, to, len))));
    }
    for what in datagram_clients() {
        let is_v6 = what.to.is_ipv6();
        let socket = match what.client {
            Client::Ping => raw(world, false, 1)?,
            Client::PingV6 => raw(world, true, 58)?,
            Client::Gre => raw(world, false, GRE)?,
            _ => bind(world, if is_v6 { WORLD_V6 } else { WORLD }, 0)?,
        };
        asking.push(scope.spawn(move || ask_datagrams(book, &socket, &what)));
    }

    for (host, to) in
        [(world, [at(INSTANCE, SHUT), at(INSTANCE_V6, SHUT)]), (instance, [at(STRANGER, BACK); 2])]
    {
        asking.push(scope.spawn(move || work_in(host, book, || trouble::knock(book, &to))));
    }
    for (host, own, to) in [
        (world, WORLD, [at(INSTANCE, SHUT); 2]),
        (world, WORLD_V6, [at(INSTANCE_V6, SHUT); 2]),
        (world, STRANGER, [at(INSTANCE, ECHO), at(INSTANCE, SHUT)]),
        (world, STRANGER_V6, [at(INSTANCE_V6, ECHO), at(INSTANCE_V6, SHUT)]),
        (instance, INSTANCE, [at(STRANGER, BACK); 2]),
    ] {
        let socket = bind(host, own, 0)?;
        asking.push(scope.spawn(move || trouble::shout(book, &socket, &to)));
    }
    Ok(())
}

/// The protocol number of GRE (RFC 2784), and bytes of an IPv4 header without options.
const GRE: u8 = 47;
const IPV4_HEADER: usize = 20;

/// Where the clients connect to, all but the last from the world.
const TCP_CLIENTS: [(Client, &str, u16); 5] = [
    (Client::Stream, INSTANCE, STREAM),
    (Client::StreamV6, INSTANCE_V6, STREAM),
    (Client::Short, INSTANCE, SHORT),
    (Client::ShortV6, INSTANCE_V6, SHORT),
    (Client::Back, WORLD, BACK),
];

/// Bytes of the nth transfer.
const fn long(_: u64) -> u64 {
    24 << 20
}
const fn short(n: u64) -> u64 {
    200 + n * 731 % 12_000
}

fn datagram_clients() -> [Datagrams; 7] {
    let small = |n: u64| 16 + (n * 37 % 1200) as usize;
    let large = |n: u64| 4000 + (n * 37 % 5000) as usize;
    let datagrams = |client, address, port, len, header, question| Datagrams {
        client,
        to: at(address, port),
        len,
        header,
        question,
    };
    [
        datagrams(Client::Datagrams, INSTANCE, ECHO, small, 0, turned),
        datagrams(Client::DatagramsV6, INSTANCE_V6, ECHO, small, 0, turned),
        datagrams(Client::Fragments, INSTANCE, ECHO, large, 0, turned),
        datagrams(Client::FragmentsV6, INSTANCE_V6, ECHO, large, 0, turned),
        datagrams(Client::Ping, INSTANCE, 0, small, IPV4_HEADER, ping),
        datagrams(Client::PingV6, INSTANCE_V6, 0, small, 0, ping_v6),
        datagrams(Client::Gre, INSTANCE, 0, small, IPV4_HEADER, turned),
    ]
}

/// Replaces policies, ends flows and floods until the time is over; what it did, and what the
/// firewall used when a tenth of the time was over.
fn direct(
    args: &SoakArgs,
    lab: &Lab,
    book: &Book,
    interrupted: &AtomicBool,
) -> Result<(Done, lab::Usage), Failure> {
    let begin = Instant::now();
    let (mut done, mut early) = (Done::default(), None);
    let length = Duration::from_secs(args.seconds.into());
    for tick in 1.. {
        thread::sleep(TICK);
        if interrupted.load(Ordering::Relaxed) || begin.elapsed() >= length {
            break;
        }
        if early.is_none() && begin.elapsed() >= length / 10 {
            early = Some(lab.usage()?);
        }
        if tick % FLOOD == 0 {
            let burst = || trouble::flood(book, tick, args.flood.into());
            inside(&lab.world, burst)?
                .map_err(|error| Failure::Io(format!("cannot send raw packets: {error}")))?;
        }
        if tick % RELOAD == 0 {
            done.reloads += 1;
            lab.reload(done.reloads)?;
        }
        if tick % KILL == 0 {
            done.ended += lab.kill(KILLED[done.kills as usize % KILLED.len()])?;
            done.kills += 1;
        }
        if tick % PROGRESS == 0 {
            let read = progress(lab, book, done, begin.elapsed())?;
            if read >= args.packets {
                break;
            }
        }
    }
    let early = early.map_or_else(|| lab.usage(), Ok)?;
    Ok((done, early))
}

/// A line on standard error; how many frames the firewall has read.
fn progress(lab: &Lab, book: &Book, done: Done, elapsed: Duration) -> Result<u64, Failure> {
    let stats = lab.stats()?;
    let (read, usage) = (frames_read(&stats), lab.usage()?);
    let (lost, wrong) = book.failures();
    anstream::eprintln!(
        "{:>5} s  {} frames, {} flows, {:.1} MiB; {} reloads, {} flows ended, {} packets of floods; \
         {lost} lost, {wrong} wrong, {} wrongly passed",
        elapsed.as_secs(),
        grouped(read),
        grouped(stats.flows),
        usage.resident as f64 / 1024.0,
        done.reloads,
        grouped(done.ended),
        grouped(book.flood.load(Ordering::Relaxed)),
        book.passed.load(Ordering::Relaxed)
    );
    Ok(read)
}

/// The counters, once they stand still: nothing is on its way any more.
fn settle(lab: &Lab) -> Result<sgwall_live::engine::Stats, Failure> {
    let mut last = lab.stats()?;
    // Hosts that are left alone still look after their neighbours now and then.
    for _ in 0..20 {
        thread::sleep(STILL);
        let now = lab.stats()?;
        let is_still = frames_read(&now) == frames_read(&last);
        last = now;
        if is_still {
            break;
        }
    }
    Ok(last)
}

fn at(address: &str, port: u16) -> SocketAddr {
    let address = address.parse();
    SocketAddr::new(address.unwrap_or_else(|_| unreachable!("addresses are constants")), port)
}

fn inside<T: Send>(host: &Scratch, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    host.inside(work).map_err(|error| Failure::Io(error.to_string()))
}

/// Works as a host for the whole time.
fn work_in(host: &Scratch, book: &Book, work: impl FnOnce() + Send) {
    if let Err(error) = host.inside(work) {
        book.broken(error.to_string());
    }
}

fn listen(host: &Scratch, address: &str, port: u16) -> Result<TcpListener, Failure> {
    open(host, address, || TcpListener::bind(at(address, port)))
}

fn bind(host: &Scratch, address: &str, port: u16) -> Result<UdpSocket, Failure> {
    open(host, address, || UdpSocket::bind(at(address, port)))
}

fn raw(host: &Scratch, is_ipv6: bool, protocol: u8) -> Result<UdpSocket, Failure> {
    open(host, "a raw socket", || raw_socket(is_ipv6, protocol))
}

fn open<T: Send>(
    host: &Scratch,
    what: &str,
    open: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, Failure> {
    inside(host, open)?.map_err(|error| Failure::Io(format!("cannot open {what}: {error}")))
}
