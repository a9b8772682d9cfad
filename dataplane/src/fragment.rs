//! Shallow virtual reassembly (SEMANTICS section 11): later fragments follow the first.
//!
//! Only a datagram's first fragment carries the transport header, so only it can be judged; its
//! verdict is kept for 30 seconds and later fragments take it. A later fragment that comes first
//! is held, by token: the bytes stay with the caller, who hears of them through [`crate::Released`].
//! Everything is bounded: datagrams, fragments held of each, bytes held of each, time. What would
//! go beyond a bound is dropped, and nothing known makes room for it.
//!
//! Life cycle of an entry: made by a datagram's first-seen fragment; *waiting* until its first
//! fragment is judged (at most 2 s), then *decided* (30 s); *refused* when its fragments
//! contradict each other, so that none of it passes any more (30 s). It ends early when the
//! datagram is complete, because busy senders use an identification again within seconds.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;

use sgwall_packet::{Direction, Duration, FragmentInfo, Headers, Timestamp, Transport, protocol};

use crate::verdict::{DropReason, FirstFragment, Outcome, PassReason, Verdict};

/// How long a first fragment's verdict is kept.
const DECIDED: Duration = Duration::from_secs(30);
/// How long later fragments wait for the first.
const WAITING: Duration = Duration::from_secs(2);
/// Datagrams known at once. At the cap a new one is dropped and those known go on (`drop-new`): to
/// make room by forgetting one would let a sender of beginnings break everyone's datagrams.
pub const MAX_DATAGRAMS: usize = 4096;
/// Fragments held of one datagram, and their bytes.
const MAX_HELD: usize = 16;
const MAX_HELD_BYTES: u64 = 64 * 1024;
/// Fragments of one datagram: 64 KiB in the smallest pieces an IPv4 path must carry (RFC 791).
const MAX_FRAGMENTS: usize = 128;

/// What names a datagram. IPv6 leaves the protocol out (RFC 8200, section 4.5): its fragments may
/// differ in the next header they show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DatagramKey {
    scope: u32,
    direction: Direction,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
}

impl DatagramKey {
    pub(crate) fn of(scope: u32, direction: Direction, headers: &Headers, id: u32) -> Self {
        let protocol = if headers.is_ipv6() { 0 } else { headers.protocol };
        DatagramKey { scope, direction, src: headers.src, dst: headers.dst, protocol, id }
    }
}

/// A held fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The caller's name for it.
    pub(crate) token: u64,
    /// Bytes of the IP packet, for the counters.
    pub(crate) bytes: u32,
    /// Bytes that the caller keeps meanwhile: the frame.
    pub(crate) kept: u64,
    /// The path MTU, if the fragment is to be cut further.
    pub(crate) mtu: Option<NonZeroU16>,
}

/// A held fragment whose verdict is now known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) token: u64,
    pub(crate) bytes: u32,
    pub(crate) direction: Direction,
    pub(crate) scope: u32,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Debug)]
enum State {
    Waiting(Vec<Held>),
    Decided { verdict: Verdict, protocol: u8, transport: Transport },
    Refused(DropReason),
}

#[derive(Clone, Debug)]
struct Datagram {
    state: State,
    /// (offset, length) of each fragment seen; they do not overlap.
    pieces: Vec<(u32, u32)>,
    /// The datagram's length, once its last fragment was seen.
    end: Option<u32>,
    deadline: Timestamp,
}

impl Datagram {
    fn is_complete(&self) -> bool {
        self.end == Some(self.pieces.iter().map(|&(_, len)| len).sum())
    }

    /// Notes where a fragment lies. An exact repeat is a retransmission and harmless; anything
    /// else that overlaps, or lies beyond the end, contradicts the datagram (RFC 5722, held for
    /// IPv4 as well).
    fn note(&mut self, info: FragmentInfo) -> Result<(), DropReason> {
        let piece = (info.offset, info.len);
        let (start, end) = (info.offset, info.offset + info.len);
        if !info.more && self.end.is_some_and(|known| known != end) {
            return Err(DropReason::FragmentOverlap);
        }
        if self.pieces.contains(&piece) {
            return Ok(());
        }
        let known_end = if info.more { self.end } else { Some(end) };
        let beyond = |end: u32| known_end.is_some_and(|known| end > known);
        let collides = |&(o, len): &(u32, u32)| (start < o + len && o < end) || beyond(o + len);
        if beyond(end) || self.pieces.iter().any(collides) {
            return Err(DropReason::FragmentOverlap);
        }
        if self.pieces.len() >= MAX_FRAGMENTS {
            return Err(DropReason::FragmentLimit);
        }
        self.pieces.push(piece);
        self.end = known_end;
        Ok(())
    }
}

/// Fragmented datagrams in flight.
#[derive(Clone, Debug)]
pub(crate) struct FragmentTable {
    datagrams: HashMap<DatagramKey, Datagram, ahash::RandomState>,
    /// The deadline of every datagram, in order.
    due: BTreeSet<(Timestamp, DatagramKey)>,
    settled: Vec<Settled>,
}

impl FragmentTable {
    pub(crate) fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        FragmentTable {
            datagrams: HashMap::with_hasher(ahash::RandomState::with_seeds(a, b, c, d)),
            due: BTreeSet::new(),
            settled: Vec::new(),
        }
    }

    /// Datagrams known; those that are due may be among them.
    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether any held fragment's verdict has become known since they were last taken.
    #[inline]
    pub(crate) fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    /// Held fragments whose verdict has become known since the last call.
    pub(crate) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// Forgets which rule decided: a new policy has other rules. Verdicts stay.
    pub(crate) fn forget_rules(&mut self) {
        for datagram in self.datagrams.values_mut() {
            if let State::Decided { verdict, .. } = &mut datagram.state {
                verdict.rule = None;
            }
        }
    }

    /// Ends what is due at `now`: held fragments become orphans, old verdicts are forgotten.
    #[inline]
    pub(crate) fn expire(&mut self, now: Timestamp) {
        if !self.due.is_empty() {
            self.expire_due(now);
        }
    }

    #[inline(never)]
    fn expire_due(&mut self, now: Timestamp) {
        while let Some(&(_, key)) = self.due.first().filter(|(deadline, _)| *deadline <= now) {
            self.end(&key);
        }
    }

    /// Takes note of a first fragment before it is judged.
    ///
    /// # Errors
    /// The reason to drop it, if its datagram is refused or there is no room to know it.
    pub(crate) fn first(
        &mut self,
        key: DatagramKey,
        headers: &Headers,
        info: FragmentInfo,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        self.expire(now);
        let datagram = self.open(key, now)?;
        let noted = match &datagram.state {
            State::Refused(reason) => return Err(*reason),
            // A second first fragment may not name another flow than the one that was judged.
            State::Decided { protocol, transport, .. }
                if *protocol != headers.protocol || *transport != headers.transport =>
            {
                Err(DropReason::FragmentOverlap)
            }
            _ => datagram.note(info),
        };
        if noted == Err(DropReason::FragmentOverlap) {
            self.become_state(&key, State::Refused(DropReason::FragmentOverlap), now);
        }
        noted
    }

    /// Keeps the verdict on a first fragment and settles the fragments that waited for it.
    pub(crate) fn decide(
        &mut self,
        key: DatagramKey,
        headers: &Headers,
        verdict: Verdict,
        now: Timestamp,
    ) {
        let (protocol, transport) = (headers.protocol, headers.transport);
        let first = FirstFragment {
            outcome: verdict.outcome,
            protocol,
            src_port: headers.src_port(),
            dst_port: headers.dst_port(),
        };
        let verdict = Verdict { first: Some(first), ..verdict };
        self.become_state(&key, State::Decided { verdict, protocol, transport }, now);
        self.end_if_complete(&key);
    }

    /// The verdict on a later fragment; [`Outcome::Hold`] keeps its token until the first comes.
    pub(crate) fn later(
        &mut self,
        key: DatagramKey,
        headers: &Headers,
        info: FragmentInfo,
        held: Held,
        now: Timestamp,
    ) -> Verdict {
        // RFC 1858, 2.2: no honest TCP sender splits the header itself.
        if headers.protocol == protocol::TCP && info.offset < 20 {
            return Verdict::drop(DropReason::FragmentTiny);
        }
        self.expire(now);
        let datagram = match self.open(key, now) {
            Ok(datagram) => datagram,
            Err(reason) => return Verdict::drop(reason),
        };
        if let State::Refused(reason) = datagram.state {
            return Verdict::drop(reason);
        }
        if let Err(reason) = datagram.note(info) {
            if reason == DropReason::FragmentOverlap {
                self.become_state(&key, State::Refused(reason), now);
            }
            return Verdict::drop(reason);
        }
        match &mut datagram.state {
            State::Decided { verdict, .. } => {
                let verdict = cut(follow(*verdict), held.mtu);
                self.end_if_complete(&key);
                verdict
            }
            State::Refused(reason) => Verdict::drop(*reason),
            State::Waiting(waiting) => {
                let bytes: u64 = waiting.iter().map(|h| h.kept).sum();
                if waiting.len() >= MAX_HELD || bytes + held.kept > MAX_HELD_BYTES {
                    return Verdict::drop(DropReason::FragmentLimit);
                }
                waiting.push(held);
                Verdict::of(Outcome::Hold)
            }
        }
    }

    /// The entry of `key`, made if there is room.
    fn open(&mut self, key: DatagramKey, now: Timestamp) -> Result<&mut Datagram, DropReason> {
        let full = self.datagrams.len() >= MAX_DATAGRAMS;
        match self.datagrams.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(_) if full => Err(DropReason::FragmentLimit),
            Entry::Vacant(entry) => {
                let deadline = now.after(WAITING);
                self.due.insert((deadline, key));
                let state = State::Waiting(Vec::new());
                Ok(entry.insert(Datagram { state, pieces: Vec::new(), end: None, deadline }))
            }
        }
    }

    /// Changes a datagram's state, settling what waited. Only the way out of waiting prolongs its
    /// life: a repeated first fragment does not.
    fn become_state(&mut self, key: &DatagramKey, state: State, now: Timestamp) {
        let Some(datagram) = self.datagrams.get_mut(key) else { return };
        let verdict = match &state {
            State::Decided { verdict, .. } => follow(*verdict),
            State::Refused(reason) => Verdict::drop(*reason),
            State::Waiting(_) => return,
        };
        if let State::Waiting(held) = std::mem::replace(&mut datagram.state, state) {
            self.due.remove(&(datagram.deadline, *key));
            datagram.deadline = now.after(DECIDED);
            self.due.insert((datagram.deadline, *key));
            settle(&mut self.settled, key, held, verdict);
        }
    }

    fn end_if_complete(&mut self, key: &DatagramKey) {
        if self.datagrams.get(key).is_some_and(Datagram::is_complete) {
            self.end(key);
        }
    }

    fn end(&mut self, key: &DatagramKey) {
        let Some(datagram) = self.datagrams.remove(key) else { return };
        self.due.remove(&(datagram.deadline, *key));
        if let State::Waiting(held) = datagram.state {
            settle(&mut self.settled, key, held, Verdict::drop(DropReason::FragmentOrphan));
        }
    }
}

/// The verdict on a later fragment whose first had `first`: the same, decided at this stage.
fn follow(first: Verdict) -> Verdict {
    let outcome = match first.outcome {
        Outcome::Pass(_) => Outcome::Pass(PassReason::FollowsFirst),
        _ => Outcome::Drop(DropReason::FragmentFollowsFirst),
    };
    Verdict { outcome, mtu: None, ..first }
}

/// What passes goes on in fragments of `mtu`, if it does not fit.
fn cut(verdict: Verdict, mtu: Option<NonZeroU16>) -> Verdict {
    Verdict { mtu: mtu.filter(|_| verdict.is_pass()), ..verdict }
}

fn settle(settled: &mut Vec<Settled>, key: &DatagramKey, held: Vec<Held>, verdict: Verdict) {
    settled.extend(held.into_iter().map(|Held { token, bytes, mtu, .. }| Settled {
        token,
        bytes,
        direction: key.direction,
        scope: key.scope,
        verdict: cut(verdict, mtu),
    }));
}
