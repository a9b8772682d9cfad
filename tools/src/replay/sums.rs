//! What events add up to, in parts: each worker adds up what it judges, and parts together are what
//! one worker would have added up, to the packet.
//!
//! Sums are bounded, and what is beyond a bound depends on what came first. So each part keeps as
//! much as the whole may, with the place of what it saw first, and [`Sums::of`] drops what came
//! later than the bound allows. Where a part cannot know that, it says so ([`Sums::is_doubtful`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use sgwall_dataplane::{
    DropReason, Emitted, Event, Judgement, Outcome, Plain, SkipReason, counters::Tally,
};
use sgwall_packet::{Direction, FiveTuple, Headers, Transport, protocol};

use super::dropped::{Counted, DroppedFlows, First, FlowOf};

/// Dropped flows, and frames of strangers, remembered apart; what comes later is only counted.
pub(super) const MAX_REMEMBERED: usize = 1 << 16;
/// Dropped packets that are looked up together.
const TOGETHER: usize = 32;

/// Where in a replay something happened, in the order in which one worker would come to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Frames before it, of all captures; the end of a capture counts as one.
    pub(super) frame: u64,
    /// Whether it comes after what only the frame's time brought about.
    pub(super) is_own: bool,
}

impl Place {
    /// Of an event that comes with a frame. Held fragments end by time alone as orphans.
    pub(super) fn of(event: &Event<'_>, frame: u64) -> Self {
        let is_orphan = matches!(
            event.judgement,
            Judgement::Verdict(v) if v.outcome == Outcome::Drop(DropReason::FragmentOrphan)
        );
        Place { frame, is_own: !is_orphan }
    }
}

/// Sums over the events that one worker has seen.
pub(super) struct Sums {
    pub(super) frames: Fates,
    pub(super) emitted: EmittedSums,
    pub(super) dropped: DroppedFlows,
    /// Dropped packets that are to be added to it, several at once: so they wait together for the
    /// memory of their flows.
    waiting: Vec<(Counted, First)>,
    /// Packets of dropped flows that are not remembered.
    pub(super) unremembered: u64,
    /// The addresses of the first frames that concern nobody.
    pub(super) strangers: Vec<(Place, [IpAddr; 2])>,
    /// Dropped messages of path-MTU discovery, by interface (its place among those of all policies)
    /// and sender.
    pub(super) too_big: BTreeMap<(usize, IpAddr), u64>,
    /// By index in the present policy: the interface's place among those of all policies.
    places: Vec<usize>,
    /// Dropped packets: they tell what came first at one place.
    count: u64,
}

/// Frames by their final fate; bytes are those on the wire.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Fates {
    pub(super) total: Sum,
    pub(super) pass: Sum,
    pub(super) drop: Sum,
    pub(super) skip: Sum,
}

/// Packets and bytes.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Sum {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// What was made on the way, because packets did not fit their path.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct EmittedSums {
    /// Answers to senders that reached them.
    pub(super) answers: Sum,
    /// Answers that the sender's own groups refused.
    pub(super) answers_dropped: Sum,
    pub(super) fragments: Sum,
}

impl Sum {
    pub(super) fn add(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }

    pub(super) fn add_all(&mut self, other: Sum) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl From<Tally> for Sum {
    fn from(tally: Tally) -> Self {
        Sum { packets: tally.packets, bytes: tally.bytes }
    }
}

impl Sums {
    /// Of nothing so far. `places`: see [`Self::set_places`].
    pub(super) fn new(places: Vec<usize>) -> Self {
        Sums {
            frames: Fates::default(),
            emitted: EmittedSums::default(),
            dropped: DroppedFlows::new(),
            waiting: Vec::with_capacity(TOGETHER),
            unremembered: 0,
            strangers: Vec::new(),
            too_big: BTreeMap::new(),
            places,
            count: 0,
        }
    }

    /// Says where the interfaces of the present policy stand among those of all policies.
    pub(super) fn set_places(&mut self, places: Vec<usize>) {
        self.places = places;
    }

    /// Adds a frame of which there is no event.
    #[inline]
    pub(super) fn add_plain(
        &mut self,
        plain: &Plain,
        headers: &Headers,
        wire_len: u32,
        frame: u64,
    ) {
        self.frames.total.add(wire_len);
        match plain.verdict.outcome {
            Outcome::Drop(reason) => {
                self.frames.drop.add(wire_len);
                self.add_dropped(plain.side, headers, reason, Place { frame, is_own: true });
            }
            Outcome::Pass(_) | Outcome::Hold => self.frames.pass.add(wire_len),
        }
    }

    /// Adds an event that came with a frame.
    #[inline]
    pub(super) fn add(&mut self, event: &Event<'_>, frame: u64) {
        let len = event.frame.wire_len;
        let fate = match (&event.judgement, event.emitted) {
            (Judgement::Verdict(v), Some(Emitted::Answer)) if v.is_pass() => {
                Some(&mut self.emitted.answers)
            }
            (_, Some(Emitted::Answer)) => Some(&mut self.emitted.answers_dropped),
            (_, Some(Emitted::Fragment)) => Some(&mut self.emitted.fragments),
            _ if !event.is_final => None,
            (Judgement::Skip(_), None) => Some(&mut self.frames.skip),
            (Judgement::Verdict(v), None) if v.is_pass() => Some(&mut self.frames.pass),
            (Judgement::Verdict(_), None) => Some(&mut self.frames.drop),
        };
        if let Some(sum) = fate {
            sum.add(len);
        }
        if event.is_final && event.emitted.is_none() {
            self.frames.total.add(len);
        }
        let Some(headers) = event.headers else { return };
        match event.judgement {
            Judgement::Verdict(v) if !v.is_pass() => {
                if let (Outcome::Drop(reason), Some(side)) = (v.outcome, event.side) {
                    self.add_dropped(side, headers, reason, Place::of(event, frame));
                }
            }
            Judgement::Skip(SkipReason::NotOurs) if self.strangers.len() < MAX_REMEMBERED => {
                self.strangers.push((Place::of(event, frame), [headers.src, headers.dst]));
            }
            _ => {}
        }
    }

    fn add_dropped(
        &mut self,
        (interface, direction): (usize, Direction),
        headers: &Headers,
        reason: DropReason,
        place: Place,
    ) {
        let Some(&interface) = self.places.get(interface) else { return };
        if direction == Direction::Ingress && is_too_big(headers) {
            let key = (interface, headers.src);
            if self.too_big.len() < MAX_REMEMBERED || self.too_big.contains_key(&key) {
                *self.too_big.entry(key).or_default() += 1;
            }
        }
        self.count += 1;
        let flow = FiveTuple::from(headers);
        let of = FlowOf { interface: interface as u32, direction, flow };
        let sum = Sum { packets: 1, bytes: headers.ip_len.into() };
        let first = First { reason, when: (place, self.count) };
        self.waiting.push((Counted { of, sum }, first));
        if self.waiting.len() == TOGETHER {
            self.settle();
        }
    }

    /// Adds the dropped packets that wait.
    fn settle(&mut self) {
        for (packet, first) in self.waiting.drain(..) {
            if self.dropped.count(&packet) {
                continue;
            }
            if self.dropped.len() < MAX_REMEMBERED {
                self.dropped.add(packet, first);
            } else {
                self.unremembered += 1;
            }
        }
    }

    /// Whether parts may leave out what the whole would remember: some of what is remembered is of
    /// several parts, and there is much of it. `by_pairs`: the packets of a flow are all of one part.
    pub(super) fn is_doubtful(&mut self, by_pairs: bool) -> bool {
        self.settle();
        self.too_big.len() >= MAX_REMEMBERED / MAX_PARTS
            || (!by_pairs && self.dropped.len() >= MAX_REMEMBERED)
    }

    /// The sums of the whole.
    pub(super) fn of(parts: Vec<Sums>) -> Self {
        let mut parts = parts.into_iter().map(|mut part| {
            part.settle();
            part
        });
        let mut whole = parts.next().unwrap_or_else(|| Sums::new(Vec::new()));
        for part in parts {
            whole.add_part(part);
        }
        whole.unremembered += whole.dropped.keep_first(MAX_REMEMBERED);
        whole.strangers.sort_by_key(|&(place, _)| place);
        whole.strangers.truncate(MAX_REMEMBERED);
        whole
    }

    fn add_part(&mut self, part: Sums) {
        let Fates { total, pass, drop, skip } = part.frames;
        let EmittedSums { answers, answers_dropped, fragments } = part.emitted;
        for (mine, theirs) in [
            (&mut self.frames.total, total),
            (&mut self.frames.pass, pass),
            (&mut self.frames.drop, drop),
            (&mut self.frames.skip, skip),
            (&mut self.emitted.answers, answers),
            (&mut self.emitted.answers_dropped, answers_dropped),
            (&mut self.emitted.fragments, fragments),
        ] {
            mine.add_all(theirs);
        }
        for (flow, first) in part.dropped.iter() {
            self.dropped.add(*flow, *first);
        }
        self.unremembered += part.unremembered;
        self.strangers.extend(part.strangers);
        for (key, packets) in part.too_big {
            *self.too_big.entry(key).or_default() += packets;
        }
    }
}

/// Parts that there may be of a whole: workers.
pub(super) const MAX_PARTS: usize = 64;

/// What a sender must hear to send smaller packets (RFC 1191, RFC 8201).
fn is_too_big(headers: &Headers) -> bool {
    match headers.transport {
        Transport::Icmp(icmp) => {
            matches!(
                (headers.protocol, icmp.kind, icmp.code),
                (protocol::ICMP, 3, 4) | (protocol::ICMPV6, 2, _)
            )
        }
        _ => false,
    }
}
