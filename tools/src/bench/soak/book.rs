//! What clients, probers and floods tell: numbers that any thread may add to, and a few words.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whoever does something that should succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Stream,
    StreamV6,
    Short,
    ShortV6,
    Back,
    Datagrams,
    DatagramsV6,
    Fragments,
    FragmentsV6,
    Ping,
    PingV6,
    Gre,
}

impl Client {
    pub(super) const ALL: [Client; 12] = [
        Client::Stream,
        Client::StreamV6,
        Client::Short,
        Client::ShortV6,
        Client::Back,
        Client::Datagrams,
        Client::DatagramsV6,
        Client::Fragments,
        Client::FragmentsV6,
        Client::Ping,
        Client::PingV6,
        Client::Gre,
    ];

    /// What it is called for programs, and for people.
    pub(super) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Client::Stream => ("tcp_long", "TCP, long transfers"),
            Client::StreamV6 => ("tcp_long_v6", "  over IPv6"),
            Client::Short => ("tcp_short", "TCP, short requests"),
            Client::ShortV6 => ("tcp_short_v6", "  over IPv6"),
            Client::Back => ("tcp_egress", "TCP, the instance asks"),
            Client::Datagrams => ("udp", "UDP, request and answer"),
            Client::DatagramsV6 => ("udp_v6", "  over IPv6"),
            Client::Fragments => ("fragments", "UDP, 4 to 9 KB in fragments"),
            Client::FragmentsV6 => ("fragments_v6", "  over IPv6"),
            Client::Ping => ("ping", "ICMP echo"),
            Client::PingV6 => ("ping_v6", "ICMPv6 echo"),
            Client::Gre => ("gre", "GRE, request and answer"),
        }
    }

    /// Whether the kernel sends again what was lost on its way.
    pub(super) const fn is_reliable(self) -> bool {
        matches!(
            self,
            Client::Stream | Client::StreamV6 | Client::Short | Client::ShortV6 | Client::Back
        )
    }
}

/// What became of what a client did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) attempts: u64,
    pub(super) done: u64,
    pub(super) lost: u64,
    /// What came differed from what was sent.
    pub(super) wrong: u64,
}

#[derive(Debug, Default)]
struct Counts {
    attempts: AtomicU64,
    done: AtomicU64,
    lost: AtomicU64,
    wrong: AtomicU64,
}

/// Messages that are kept; more are only counted.
const WORDS: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Book {
    clients: [Counts; Client::ALL.len()],
    /// Attempts to get through where nothing may.
    pub(super) probes: AtomicU64,
    /// Packets of floods.
    pub(super) flood: AtomicU64,
    /// What came through where nothing may.
    pub(super) passed: AtomicU64,
    /// Frames that were looked at as they came out at the instance.
    pub(super) witnessed: AtomicU64,
    /// Clients and probers that could not begin.
    pub(super) broken: AtomicU64,
    stop: AtomicBool,
    end: AtomicBool,
    words: Mutex<Vec<String>>,
}

/// How an attempt ended.
pub(super) enum End {
    Done,
    Lost(String),
    Wrong(String),
}

impl Book {
    /// Clients and probers begin nothing new.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Servers and the witness end as well: nobody asks any more.
    pub(super) fn end(&self) {
        self.stop();
        self.end.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }

    /// Counts an attempt.
    pub(super) fn note(&self, client: Client, end: End) {
        let counts = &self.clients[client as usize];
        counts.attempts.fetch_add(1, Ordering::Relaxed);
        let (name, _) = client.words();
        match end {
            End::Done => drop(counts.done.fetch_add(1, Ordering::Relaxed)),
            End::Lost(why) => {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                self.say(format!("{name}: lost: {why}"));
            }
            End::Wrong(what) => {
                counts.wrong.fetch_add(1, Ordering::Relaxed);
                self.say(format!("{name}: wrong: {what}"));
            }
        }
    }

    /// Something came through where nothing may.
    pub(super) fn leaked(&self, what: String) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        self.say(format!("wrongly passed: {what}"));
    }

    /// Somebody could not begin.
    pub(super) fn broken(&self, why: String) {
        self.broken.fetch_add(1, Ordering::Relaxed);
        self.say(why);
    }

    fn say(&self, message: String) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() < WORDS {
            words.push(message);
        }
    }

    pub(super) fn words(&self) -> Vec<String> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn tally(&self, client: Client) -> Tally {
        let counts = &self.clients[client as usize];
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            attempts: read(&counts.attempts),
            done: read(&counts.done),
            lost: read(&counts.lost),
            wrong: read(&counts.wrong),
        }
    }

    /// Lost and wrong, over all clients.
    pub(super) fn failures(&self) -> (u64, u64) {
        let tallies = Client::ALL.map(|client| self.tally(client));
        (tallies.iter().map(|t| t.lost).sum(), tallies.iter().map(|t| t.wrong).sum())
    }
}
