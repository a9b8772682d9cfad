//! Virtual reassembly (section 11) with lists that are walked.

use std::net::IpAddr;

use sgwall_dataplane::{DropReason, Outcome, PacketContext, PassReason};
use sgwall_packet::{Direction, Duration, FragmentInfo, Timestamp, Transport, protocol};

use super::Answer;

/// Interface, direction, source, destination, protocol (IPv4 alone), identification.
type Name = (String, Direction, IpAddr, IpAddr, u8, u32);

/// The fragmented datagrams that are known.
#[derive(Default)]
pub(crate) struct Fragments {
    datagrams: Vec<Datagram>,
    /// What became of held fragments, by token.
    pub(crate) released: Vec<(u64, Answer)>,
}

struct Datagram {
    name: Name,
    fate: Fate,
    /// First byte of each piece, and the one after its last.
    pieces: Vec<(u32, u32)>,
    end: Option<u32>,
    until: Timestamp,
}

enum Fate {
    Waiting(Vec<Held>),
    Decided(Answer, u8, Transport),
    Refused(DropReason),
}

struct Held {
    token: u64,
    bytes: usize,
    mtu: Option<u16>,
}

impl Fragments {
    /// Ends what is over at `now`.
    pub(crate) fn pass_time(&mut self, now: Timestamp) {
        let (over, rest) =
            std::mem::take(&mut self.datagrams).into_iter().partition(|d| d.until <= now);
        self.datagrams = rest;
        let over: Vec<Datagram> = over;
        for datagram in over {
            self.release(datagram.fate, &Answer::drop(DropReason::FragmentOrphan));
        }
    }

    pub(crate) fn forget_rules(&mut self) {
        for datagram in &mut self.datagrams {
            if let Fate::Decided(answer, ..) = &mut datagram.fate {
                answer.rule = None;
            }
        }
    }

    /// A first fragment, before it is judged.
    pub(crate) fn first(
        &mut self,
        interface: &str,
        packet: &PacketContext<'_>,
    ) -> Result<(), DropReason> {
        let (name, info) = name(interface, packet);
        self.pass_time(packet.now);
        let place = self.place(name, packet.now)?;
        let datagram = &mut self.datagrams[place];
        let (protocol, transport) = (packet.headers.protocol, packet.headers.transport);
        match &datagram.fate {
            Fate::Refused(reason) => return Err(*reason),
            Fate::Decided(_, p, t) if (*p, *t) != (protocol, transport) => {
                self.refuse(place, packet.now);
                return Err(DropReason::FragmentOverlap);
            }
            _ => {}
        }
        self.add(place, info, packet.now)
    }

    /// The verdict on a first fragment, which those that waited for it follow.
    pub(crate) fn decide(&mut self, interface: &str, packet: &PacketContext<'_>, answer: &Answer) {
        let (name, _) = name(interface, packet);
        let Some(place) = self.datagrams.iter().position(|d| d.name == name) else { return };
        let (protocol, transport) = (packet.headers.protocol, packet.headers.transport);
        let follows = follow(answer);
        self.become_fate(
            place,
            Fate::Decided(answer.clone(), protocol, transport),
            packet.now,
            &follows,
        );
        self.end_if_complete(place);
    }

    /// A later fragment.
    pub(crate) fn later(
        &mut self,
        interface: &str,
        packet: &PacketContext<'_>,
        mtu: Option<u16>,
    ) -> Answer {
        let (name, info) = name(interface, packet);
        if packet.headers.protocol == protocol::TCP && info.offset < 20 {
            return Answer::drop(DropReason::FragmentTiny);
        }
        self.pass_time(packet.now);
        let place = match self.place(name, packet.now) {
            Ok(place) => place,
            Err(reason) => return Answer::drop(reason),
        };
        if let Fate::Refused(reason) = self.datagrams[place].fate {
            return Answer::drop(reason);
        }
        if let Err(reason) = self.add(place, info, packet.now) {
            return Answer::drop(reason);
        }
        match &mut self.datagrams[place].fate {
            Fate::Refused(reason) => Answer::drop(*reason),
            Fate::Decided(answer, ..) => {
                let follows = cut(follow(answer), mtu);
                self.end_if_complete(place);
                follows
            }
            Fate::Waiting(held) => {
                let bytes = packet.frame.len();
                let kept: usize = held.iter().map(|h| h.bytes).sum();
                if held.len() >= 16 || kept + bytes > 64 * 1024 {
                    return Answer::drop(DropReason::FragmentLimit);
                }
                held.push(Held { token: packet.token, bytes, mtu });
                Answer::of(Outcome::Hold)
            }
        }
    }

    fn place(&mut self, name: Name, now: Timestamp) -> Result<usize, DropReason> {
        if let Some(place) = self.datagrams.iter().position(|d| d.name == name) {
            return Ok(place);
        }
        if self.datagrams.len() >= 4096 {
            return Err(DropReason::FragmentLimit);
        }
        let until = now.after(Duration::from_secs(2));
        let fate = Fate::Waiting(Vec::new());
        self.datagrams.push(Datagram { name, fate, pieces: Vec::new(), end: None, until });
        Ok(self.datagrams.len() - 1)
    }

    /// Notes where a piece lies: an exact repeat is harmless, any other overlap refuses all.
    fn add(&mut self, place: usize, info: FragmentInfo, now: Timestamp) -> Result<(), DropReason> {
        let datagram = &mut self.datagrams[place];
        let piece = (info.offset, info.offset + info.len);
        let end = if info.more { datagram.end } else { Some(piece.1) };
        let contradicts_end = datagram.end.is_some() && end != datagram.end;
        let is_repeat = datagram.pieces.contains(&piece);
        let overlaps = datagram.pieces.iter().any(|p| p.0 < piece.1 && piece.0 < p.1);
        let beyond = |p: &(u32, u32)| end.is_some_and(|end| p.1 > end);
        let lies_beyond = beyond(&piece) || datagram.pieces.iter().any(beyond);
        if contradicts_end || (!is_repeat && (overlaps || lies_beyond)) {
            self.refuse(place, now);
            return Err(DropReason::FragmentOverlap);
        }
        if is_repeat {
            return Ok(());
        }
        if datagram.pieces.len() >= 128 {
            return Err(DropReason::FragmentLimit);
        }
        datagram.pieces.push(piece);
        datagram.end = end;
        Ok(())
    }

    fn refuse(&mut self, place: usize, now: Timestamp) {
        let reason = DropReason::FragmentOverlap;
        self.become_fate(place, Fate::Refused(reason), now, &Answer::drop(reason));
    }

    /// Only what ends the waiting gives the datagram its 30 seconds.
    fn become_fate(&mut self, place: usize, fate: Fate, now: Timestamp, follows: &Answer) {
        let datagram = &mut self.datagrams[place];
        let old = std::mem::replace(&mut datagram.fate, fate);
        if matches!(old, Fate::Waiting(_)) {
            datagram.until = now.after(Duration::from_secs(30));
        }
        self.release(old, follows);
    }

    fn end_if_complete(&mut self, place: usize) {
        let datagram = &self.datagrams[place];
        let seen: u32 = datagram.pieces.iter().map(|p| p.1 - p.0).sum();
        if datagram.end == Some(seen) {
            self.datagrams.remove(place);
        }
    }

    fn release(&mut self, fate: Fate, answer: &Answer) {
        if let Fate::Waiting(held) = fate {
            self.released.extend(held.into_iter().map(|h| (h.token, cut(answer.clone(), h.mtu))));
        }
    }
}

fn name(interface: &str, packet: &PacketContext<'_>) -> (Name, FragmentInfo) {
    let headers = packet.headers;
    let info = headers.fragment.expect("a fragment");
    let protocol = if headers.is_ipv6() { 0 } else { headers.protocol };
    let name =
        (interface.to_owned(), packet.direction, headers.src, headers.dst, protocol, info.id);
    (name, info)
}

/// What a later fragment is told whose first was told `first`.
fn follow(first: &Answer) -> Answer {
    let outcome = match first.passes() {
        true => Outcome::Pass(PassReason::FollowsFirst),
        false => Outcome::Drop(DropReason::FragmentFollowsFirst),
    };
    Answer { outcome, mtu: None, ..first.clone() }
}

/// What passes may have to be cut further.
fn cut(answer: Answer, mtu: Option<u16>) -> Answer {
    Answer { mtu: mtu.filter(|_| answer.passes()), ..answer }
}
