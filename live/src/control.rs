//! The control socket: others ask and command over a Unix socket, mode 0600.
//!
//! A connection carries one request, a JSON object on one line, and its answers, one a line, of
//! which the last is `done` or `error`. The kernel says who is at the other end: whoever is neither
//! the firewall's own user nor root is refused, whatever the file's mode has become.
//!
//! One thread listens to all who have not yet said what they want; each has [`PATIENCE`] for that,
//! and if there are too many, the one that waits longest is hung up on. Whoever has asked is answered
//! by a thread of its own, a bounded number, and hung up on if it takes nothing of its answer for
//! [`PATIENCE`]. So one that hangs, or sends garbage, holds up nobody, nor do a thousand.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};
use sgwall_dataplane::Explanation;
use sgwall_packet::{PacketSpec, protocol};
use sgwall_rules::model::{Policy, protocol_name};

use crate::engine::{Engine, FlowInfo, ReloadReport, Stats};
use crate::filter::Filter;
use crate::shared::Snapshot;
use crate::top::{By, Top};
use crate::trace::Record;

/// Clients that are answered at once; others wait for their turn.
const MAX_CLIENTS: usize = 16;
/// Clients that wait at once, for their turn or because they have not asked.
const MAX_WAITING: usize = 64;
/// Bytes of a request.
const MAX_REQUEST: usize = 64 * 1024;
/// How long a client may take to ask, or to take some of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that has asked waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// How often the server and a trace look whether they are to end.
const LOOK: Duration = Duration::from_millis(100);
/// Verdicts shown a second, unless the client wants another number.
const TRACE_RATE: u32 = 200;
/// Who has most of the flows: rows, unless the client wants another number.
const TOP_ROWS: usize = 10;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Tracked flows: a `flow` each, then `done`.
    Flows {
        /// Which, in the words of [`Filter`].
        #[serde(default)]
        filter: String,
        /// At most so many.
        #[serde(default = "no_limit")]
        limit: usize,
    },
    /// Ends tracked flows: `killed`.
    Kill {
        /// Which.
        filter: String,
    },
    /// Who has most of the tracked flows: `top`.
    Top {
        /// What they are counted by.
        #[serde(default)]
        by: By,
        /// At most so many rows.
        #[serde(default = "top_rows")]
        limit: usize,
    },
    /// Counters: `stats`.
    Stats,
    /// Loads the policy again: `reloaded`.
    Reload,
    /// What would become of a packet now, and why: `explanation`.
    Explain {
        /// The packet, in the notation of `sgwall_packet::PacketSpec`.
        packet: String,
        /// The interface; left out: its addresses tell.
        #[serde(default)]
        interface: Option<String>,
        /// `ingress` or `egress`; left out: its addresses tell.
        #[serde(default)]
        direction: Option<String>,
    },
    /// Verdicts as they happen, until the client goes away: `trace` each, and `lost`.
    Trace {
        /// Which.
        #[serde(default)]
        filter: String,
        /// At most so many a second.
        #[serde(default = "trace_rate")]
        rate: u32,
    },
}

const fn no_limit() -> usize {
    usize::MAX
}

const fn top_rows() -> usize {
    TOP_ROWS
}

const fn trace_rate() -> u32 {
    TRACE_RATE
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Answer {
    /// A tracked flow.
    Flow(FlowInfo),
    /// Flows that ended.
    Killed {
        /// How many.
        ended: usize,
    },
    /// Who has most of the tracked flows.
    Top(Top),
    /// Counters.
    Stats(Stats),
    /// A new policy is in force.
    Reloaded(ReloadReport),
    /// A verdict.
    Trace(TraceLine),
    /// What becomes of a packet, and why.
    Explanation(Box<Explanation>),
    /// Verdicts that could not be shown.
    Lost {
        /// How many, since the last such answer.
        verdicts: u64,
    },
    /// The request cannot be fulfilled.
    Error {
        /// Why, and the mend.
        message: String,
    },
    /// That was all.
    Done {
        /// Whether there was more than the limit.
        more: bool,
    },
}

/// A verdict, with the names that people and programs know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLine {
    /// Seconds since the epoch, nine decimals.
    pub time: String,
    /// The interface that judged, if any.
    pub interface: Option<String>,
    /// `ingress` or `egress`.
    pub direction: Option<String>,
    /// `tcp`, `udp` …, if it is an IP packet.
    pub protocol: Option<String>,
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// Source port of TCP and UDP.
    pub src_port: Option<u16>,
    /// Destination port of TCP and UDP.
    pub dst_port: Option<u16>,
    /// ICMP type.
    pub icmp_type: Option<u8>,
    /// ICMP code.
    pub icmp_code: Option<u8>,
    /// Bytes of the frame.
    pub length: u32,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The stage that decided.
    pub stage: String,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// The packet's relation to a flow.
    pub state: Option<String>,
    /// Why.
    pub reason: String,
}

impl TraceLine {
    /// A record, in the words of the policy that judged it.
    fn of(record: &Record, snapshot: &Snapshot) -> Self {
        let policy = &snapshot.policy;
        let same = policy.generation() == record.generation;
        let tuple = record.tuple;
        let with_ports = tuple.filter(|t| matches!(t.protocol, protocol::TCP | protocol::UDP));
        let rule = record.verdict.rule.filter(|_| same).and_then(|id| policy.rule(id));
        let interface = record.side.filter(|_| same);
        TraceLine {
            time: record.time.to_string(),
            interface: interface.and_then(|(i, _)| Some(policy.interfaces().get(i)?.id.clone())),
            direction: record.side.map(|(_, direction)| direction.as_str().to_owned()),
            protocol: tuple.map(|t| protocol_name(t.protocol)),
            src: tuple.map(|t| t.src),
            dst: tuple.map(|t| t.dst),
            src_port: with_ports.map(|t| t.src_port),
            dst_port: with_ports.map(|t| t.dst_port),
            icmp_type: record.icmp.map(|icmp| icmp.kind),
            icmp_code: record.icmp.map(|icmp| icmp.code),
            length: record.length,
            verdict: if record.verdict.is_pass() { "pass" } else { "drop" }.to_owned(),
            stage: record.verdict.stage().as_str().to_owned(),
            rule: rule.map(|rule| format!("{}/{}", rule.owner, rule.rule)),
            state: record.verdict.state.map(|state| state.as_str().to_owned()),
            reason: record.verdict.reason().to_owned(),
        }
    }
}

/// Reads the policy again; the error says what is wrong with it.
pub type Loader = dyn Fn() -> Result<Arc<Policy>, String> + Send + Sync;

/// A control socket that is being served. Dropping it ends that, and removes the socket.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What every client's thread needs.
struct Context {
    engine: Arc<Engine>,
    loader: Arc<Loader>,
    stop: Arc<AtomicBool>,
    clients: AtomicUsize,
    is_traced: AtomicBool,
}

impl Server {
    /// Makes the socket at `path`, readable and writable by its owner alone. A socket that nobody
    /// serves any more is replaced.
    ///
    /// # Errors
    /// If there is something else at `path`, or a firewall that serves it, or it cannot be made.
    pub fn bind(path: &Path) -> io::Result<UnixListener> {
        if let Ok(metadata) = path.symlink_metadata() {
            use std::os::unix::fs::FileTypeExt;
            if !metadata.file_type().is_socket() {
                let message = "there is a file of that name that is no socket";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
            }
            if UnixStream::connect(path).is_ok() {
                let message = "another sgwall serves it";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            std::fs::remove_file(path)?;
        }
        // With the mode from the very beginning: a socket cannot be opened before it has one.
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(before);
        listener
    }

    /// Serves a socket on a thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn serve(
        listener: UnixListener,
        path: &Path,
        engine: Arc<Engine>,
        loader: Arc<Loader>,
    ) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let context = Arc::new(Context {
            engine,
            loader,
            stop: Arc::clone(&stop),
            clients: AtomicUsize::new(0),
            is_traced: AtomicBool::new(false),
        });
        let thread = thread::Builder::new().name("sgwall-control".into());
        let thread = thread.spawn(move || accept(&listener, &context))?;
        Ok(Server { path: path.to_owned(), stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // It may be gone already, and then all is well.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, context: &Arc<Context>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    while !context.stop.load(Ordering::Acquire) {
        sleep_until_any(listener, &waiting);
        // Some at a time, so that what has come from others is read in between.
        for _ in 0..MAX_CLIENTS {
            match listener.accept() {
                Ok((client, _)) => waiting.extend(Waiting::new(client)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The process is out of descriptors: look again later.
                Err(_) => {
                    thread::sleep(LOOK);
                    break;
                }
            }
        }
        waiting = waiting.into_iter().filter_map(|client| client.go_on(context)).collect();
        while waiting.len() > MAX_WAITING {
            // Whoever waits longest without having asked, if there is one.
            let silent = waiting.iter().position(|client| !client.has_asked);
            drop(waiting.remove(silent.unwrap_or(0)));
        }
    }
}

/// Sleeps until somebody connects or says something, or for a while.
fn sleep_until_any(listener: &UnixListener, waiting: &[Waiting]) {
    let silent = waiting.iter().filter(|client| !client.has_asked);
    let mut fds: Vec<_> = std::iter::once(PollFd::new(listener, PollFlags::IN))
        .chain(silent.map(|client| PollFd::new(&client.stream, PollFlags::IN)))
        .collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    if poll(&mut fds, Some(&timeout)).is_err() {
        thread::sleep(LOOK);
    }
}

/// A client that is not being answered.
struct Waiting {
    stream: UnixStream,
    since: Instant,
    /// What it has said.
    line: Vec<u8>,
    /// Whether that is all.
    has_asked: bool,
}

impl Waiting {
    /// `None` if it is not to be listened to.
    fn new(stream: UnixStream) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        let peer = socket_peercred(&stream).ok()?.uid;
        if !peer.is_root() && peer != rustix::process::geteuid() {
            // If it does not take that, it needs no answer.
            let _ = refuse(&stream, "this firewall belongs to another user".into());
            return None;
        }
        #[allow(clippy::disallowed_methods)] // How long somebody waits; no packet's time.
        let since = Instant::now();
        Some(Waiting { stream, since, line: Vec::new(), has_asked: false })
    }

    /// Reads what it has said since, and has it answered once it has asked; `None` if it waits no
    /// more.
    fn go_on(mut self, context: &Arc<Context>) -> Option<Self> {
        if !self.has_asked {
            self.has_asked = self.listen().ok()?;
        }
        let waited = self.since.elapsed();
        if !self.has_asked {
            return (waited < PATIENCE).then_some(self);
        }
        let Some(turn) = Turn::take(context) else {
            if waited < TURN {
                return Some(self);
            }
            let message = format!("{MAX_CLIENTS} clients are served already; try again");
            let _ = refuse(&self.stream, message);
            return None;
        };
        let thread = thread::Builder::new().name("sgwall-client".into());
        // A client that went away is no fault of ours; without a thread it is hung up on.
        let _ = thread.spawn(move || drop(answer(&self.stream, &self.line, &turn.0)));
        None
    }

    /// Reads what there is; whether that is a request, or will be none.
    fn listen(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            match (&self.stream).read(&mut buffer) {
                Ok(0) if self.line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => return Ok(true),
                Ok(len) => self.line.extend(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.line.contains(&b'\n') || self.line.len() >= MAX_REQUEST {
                return Ok(true);
            }
        }
    }
}

/// A place among the clients that are answered; free again when dropped.
struct Turn(Arc<Context>);

impl Turn {
    fn take(context: &Arc<Context>) -> Option<Self> {
        // One thread alone takes places.
        let is_free = context.clients.load(Ordering::Acquire) < MAX_CLIENTS;
        is_free.then(|| {
            context.clients.fetch_add(1, Ordering::AcqRel);
            Turn(Arc::clone(context))
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(client: &UnixStream, line: &[u8], context: &Context) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(PATIENCE))?;
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return refuse(client, format!("not a request: {error}")),
    };
    match fulfil(&request, client, context) {
        Ok(result) => result,
        Err(message) => refuse(client, message),
    }
}

/// Answers a request; the outer error is for the client, the inner one means that it is gone.
fn fulfil(
    request: &Request,
    client: &UnixStream,
    context: &Context,
) -> Result<io::Result<()>, String> {
    let engine = &context.engine;
    let filter = |text: &str| text.parse::<Filter>().map_err(|error| error.to_string());
    Ok(match request {
        Request::Flows { filter: text, limit } => {
            let sent = engine.each_flow(&filter(text)?, *limit, |flows| {
                send_all(client, flows.into_iter().map(Answer::Flow))
            });
            sent.and_then(|more| send_all(client, [Answer::Done { more }]))
        }
        Request::Kill { filter: text } => {
            if text.trim().is_empty() {
                return Err("say which flows to end; addr=0.0.0.0/0 and addr=::/0 are all".into());
            }
            let ended = engine.kill(&filter(text)?);
            send_all(client, [Answer::Killed { ended }, Answer::Done { more: false }])
        }
        Request::Top { by, limit } => {
            let [top] = engine.top([*by], *limit);
            send_all(client, [Answer::Top(top), Answer::Done { more: false }])
        }
        Request::Stats => {
            send_all(client, [Answer::Stats(engine.stats()), Answer::Done { more: false }])
        }
        Request::Reload => {
            let report = engine.reload((context.loader)()?);
            send_all(client, [Answer::Reloaded(report), Answer::Done { more: false }])
        }
        Request::Explain { packet, interface, direction } => {
            let packet: PacketSpec = packet.parse().map_err(|e| format!("{packet:?}: {e}"))?;
            let explanation =
                engine.explain(&packet, interface.as_deref(), direction.as_deref())?;
            let answer = Answer::Explanation(Box::new(explanation));
            send_all(client, [answer, Answer::Done { more: false }])
        }
        Request::Trace { filter: text, rate } => {
            let filter = filter(text)?;
            if context.is_traced.swap(true, Ordering::AcqRel) {
                return Err("another trace is running; end that one first".into());
            }
            let result = trace(filter, (*rate).max(1), client, context);
            engine.shared().tracer.stop();
            context.is_traced.store(false, Ordering::Release);
            result
        }
    })
}

/// Shows verdicts until the client goes away or the firewall ends.
fn trace(filter: Filter, rate: u32, client: &UnixStream, context: &Context) -> io::Result<()> {
    let tracer = &context.engine.shared().tracer;
    let interface = filter.interface.clone();
    tracer.start(filter);
    let per_look = (rate / (1000 / LOOK.as_millis() as u32)).max(1);
    while !context.stop.load(Ordering::Acquire) {
        let snapshot = context.engine.shared().snapshot();
        let (mut shown, mut lost) = (0, tracer.take_lost());
        let mut lines = Vec::new();
        while let Some(record) = tracer.next() {
            let line = TraceLine::of(&record, &snapshot);
            if interface.is_some() && line.interface != interface {
                continue;
            }
            match shown < per_look {
                true => lines.push(Answer::Trace(line)),
                false => lost += 1,
            }
            shown += 1;
        }
        if lost > 0 {
            lines.push(Answer::Lost { verdicts: lost });
        }
        send_all(client, lines)?;
        if has_hung_up(client)? {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    send_all(client, [Answer::Done { more: false }])
}

/// Whether the client has closed its end.
fn has_hung_up(mut client: &UnixStream) -> io::Result<bool> {
    client.set_nonblocking(true)?;
    let read = client.read(&mut [0]);
    client.set_nonblocking(false)?;
    Ok(match read {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    })
}

fn refuse(client: &UnixStream, message: String) -> io::Result<()> {
    send_all(client, [Answer::Error { message }])
}

fn send_all(client: &UnixStream, answers: impl IntoIterator<Item = Answer>) -> io::Result<()> {
    let mut out = io::BufWriter::new(client);
    for answer in answers {
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Asks a firewall for something, over its control socket.
#[derive(Debug)]
pub struct Client {
    answers: BufReader<UnixStream>,
}

impl Client {
    /// Sends a request to the firewall that serves the socket at `path`.
    ///
    /// # Errors
    /// If nobody serves it, or it belongs to another user.
    pub fn ask(path: &Path, request: &Request) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        let line = format!("{}\n", serde_json::to_string(request)?);
        match stream.write_all(line.as_bytes()) {
            // Who is refused is told so before it has asked, and hung up on: the answer is there.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
        Ok(Client { answers: BufReader::new(stream) })
    }

    /// The next answer; `None` where the firewall has hung up.
    ///
    /// # Errors
    /// If it cannot be read, or is no answer.
    pub fn next_answer(&mut self) -> io::Result<Option<Answer>> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }
}
