//! Whole frames in, events out: parsing, attribution and both sides of each packet.
//!
//! A packet between two interfaces of the policy is judged on the sender's side and, if it passes
//! there, on the receiver's (SEMANTICS 9.3, 9.5): each side is an [`Event`]. A frame that virtual
//! reassembly holds is kept here until its verdict is known, so events come in the order of the
//! decisions, which is the order of the frames but for those.

mod sight;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use sgwall_conntrack::Probe;
use sgwall_packet::{
    Direction, Frame, Headers, LinkInfo, LinkType, ParseError, Readdress, Timestamp, Transport,
    addresses, fragment_ipv4, parse, too_big,
};

use sgwall_rules::compile::{CompiledPolicy, RuleInfo};

use crate::attribution::{Attribution, Side, Sides};
use crate::clock::Clock;
use crate::counters::Tally;
use crate::names::Names;
use crate::pipeline::{PacketContext, Pipeline, TrackedFlow};
use crate::verdict::{DropReason, Outcome, SkipReason, Verdict};

pub use self::sight::Sight;

/// One frame of a capture or a device.
#[derive(Clone, Copy, Debug)]
pub struct FrameInput<'a> {
    /// The caller's name for it, given back in its events.
    pub token: u64,
    /// How to read it; `None` where the link type is not one sgwall reads.
    pub link: Option<LinkType>,
    /// The bytes that there are.
    pub data: &'a [u8],
    /// Bytes on the wire, at least `data.len()`.
    pub wire_len: u32,
    /// When it came.
    pub time: Timestamp,
    /// Decimals of a second that `time` was recorded with, 0-9.
    pub decimals: u8,
    /// The direction that the capture recorded, if it did.
    pub recorded: Option<Direction>,
}

impl FrameInput<'_> {
    /// An empty frame of no link type, for whoever makes room for others.
    pub const NOTHING: FrameInput<'static> = FrameInput {
        token: 0,
        link: None,
        data: &[],
        wire_len: 0,
        time: Timestamp::from_nanos(0),
        decimals: 0,
        recorded: None,
    };
}

/// What became of a frame on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It was judged.
    Verdict(Verdict),
    /// It was not, and why.
    Skip(SkipReason),
}

/// One judgement on one frame.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The frame.
    pub frame: FrameInput<'a>,
    /// Its headers, if it is an IP packet that could be read.
    pub headers: Option<&'a Headers>,
    /// Why it could not be read, if so.
    pub error: Option<ParseError>,
    /// The interface (index in the policy) and direction that judged it, if one did.
    pub side: Option<(usize, Direction)>,
    /// What became of it.
    pub judgement: Judgement,
    /// The rule that admitted the tracked flow it belongs to, perhaps of an earlier policy.
    pub admitted_by: Option<&'a RuleInfo>,
    /// Whether this is the last word on the frame: it goes on, or no further.
    pub is_final: bool,
    /// The frame was not captured but made on the way, because that of the same token did not fit
    /// its path.
    pub emitted: Option<Emitted>,
}

/// What becomes of a packet on the one side that judges it, where that is all there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The interface (index in the policy) and direction that judged it.
    pub side: (usize, Direction),
    /// The last word on the packet; never [`Outcome::Hold`].
    pub verdict: Verdict,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The interfaces that judge it.
    pub sides: Sides,
    /// Of a frame that segmentation offload will cut: bytes of the IP packet that its largest
    /// segment is.
    pub segment: Option<u32>,
}

/// What the router makes of a packet that does not fit its path (SEMANTICS section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Emitted {
    /// The answer to its sender, judged on its way in like any other packet (12.9).
    Answer,
    /// One of its fragments, which goes on; the packet itself was judged.
    Fragment,
}

impl Emitted {
    /// A stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Emitted::Answer => "answer",
            Emitted::Fragment => "fragment",
        }
    }
}

/// Who hears of events.
pub type Sink<'s> = &'s mut dyn FnMut(Event<'_>);

/// What was not judged by any interface, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unjudged {
    skipped: [Tally; SkipReason::ALL.len()],
}

impl Unjudged {
    /// Frames skipped for `reason`; the bytes are those on the wire.
    #[must_use]
    pub fn skipped(&self, reason: SkipReason) -> Tally {
        self.skipped[reason as usize]
    }
}

/// A pipeline for whole frames.
#[derive(Debug)]
pub struct Judge {
    pub(crate) pipeline: Pipeline,
    pub(crate) attribution: Attribution,
    held: HashMap<(u64, Direction), HeldFrame>,
    unjudged: Unjudged,
    /// Whether frames larger than their interface's MTU are taken for super-frames.
    offload: bool,
    super_frames: u64,
    clock: Clock,
}

/// A frame that waits for its datagram's first fragment.
#[derive(Debug)]
struct HeldFrame {
    token: u64,
    link: Option<LinkType>,
    data: Box<[u8]>,
    wire_len: u32,
    time: Timestamp,
    decimals: u8,
    recorded: Option<Direction>,
    headers: Headers,
    sides: Sides,
}

impl Judge {
    /// A judge by `pipeline`, which finds interfaces by `attribution`.
    #[must_use]
    pub fn new(pipeline: Pipeline, attribution: Attribution) -> Self {
        Judge {
            pipeline,
            attribution,
            held: HashMap::new(),
            unjudged: Unjudged::default(),
            offload: false,
            super_frames: 0,
            clock: Clock::default(),
        }
    }

    /// This judge, for captures of hosts with segmentation offload: a TCP or UDP frame larger than
    /// the sending interface's MTU was never on the wire, and its segments are taken to fit.
    #[must_use]
    pub fn with_offload(mut self, offload: bool) -> Self {
        self.offload = offload;
        self
    }

    /// Whether frames larger than their interface's MTU are taken for super-frames.
    #[must_use]
    pub fn is_offload(&self) -> bool {
        self.offload
    }

    /// Frames larger than the MTU of the interface that sent them.
    #[must_use]
    pub fn super_frames(&self) -> u64 {
        self.super_frames
    }

    /// What time it is, by the frames and [`Self::advance`].
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Sets the clock to that of a whole of which this judge sees a part; what is due is done with
    /// the next frame.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Whether frames are held until their datagram's first fragment comes.
    #[inline]
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The pipeline.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Replaces the policy, and how packets find their interface in it: the next frame is judged by
    /// the new one. See [`Pipeline::set_policy`].
    pub fn set_policy(&mut self, policy: Arc<CompiledPolicy>, attribution: Attribution) {
        let names = self.pipeline.names().after(self.pipeline.policy(), &policy);
        self.take_over(policy, names, attribution);
    }

    /// [`Self::set_policy`] with names that were made before; see [`Pipeline::take_over`].
    pub fn take_over(
        &mut self,
        policy: Arc<CompiledPolicy>,
        names: Names,
        attribution: Attribution,
    ) {
        self.pipeline.take_over(policy, names);
        self.attribution = attribution;
        let (policy, attribution) = (self.pipeline.policy(), &self.attribution);
        for held in self.held.values_mut() {
            let ends = (held.headers.src, held.headers.dst);
            held.sides = attribution.sides(policy, &held.headers.link, ends, held.recorded);
        }
    }

    /// Ends the tracked flows that the policy would not admit; see [`Pipeline::rejudge`].
    pub fn rejudge(&mut self, now: Timestamp) -> usize {
        self.pipeline.rejudge(now)
    }

    /// Ends the tracked flows that `ends` chooses; see [`Pipeline::end_flows`].
    pub fn end_flows(
        &mut self,
        places: Range<usize>,
        now: Timestamp,
        ends: impl FnMut(&TrackedFlow<'_>) -> bool,
    ) -> usize {
        self.pipeline.end_flows(places, now, ends)
    }

    /// How interfaces are found.
    #[must_use]
    pub fn attribution(&self) -> &Attribution {
        &self.attribution
    }

    /// Finds interfaces by `attribution` from the next frame on.
    pub fn set_attribution(&mut self, attribution: Attribution) {
        self.pipeline.begin_epoch();
        self.attribution = attribution;
    }

    /// What was not judged.
    #[must_use]
    pub fn unjudged(&self) -> &Unjudged {
        &self.unjudged
    }

    /// Judges one frame. Held frames that its time or content settles come first.
    pub fn judge(&mut self, frame: FrameInput<'_>, sink: Sink<'_>) {
        let mut sight = Sight::NOTHING;
        self.look(&frame, &mut sight);
        self.judge_seen(frame, &sight, None, sink);
    }

    /// Judges a frame whose headers and way are known, as they are to whoever received it on a
    /// device. Time passes with [`Self::advance`] alone. `probe` is what [`Self::locate`] has found
    /// of its flow, if it was asked.
    pub fn judge_on(
        &mut self,
        frame: FrameInput<'_>,
        headers: &Headers,
        route: &Route,
        probe: Option<&Probe>,
        sink: Sink<'_>,
    ) {
        self.judge_sides(&frame, headers, route, probe, sink);
        self.release(sink);
    }

    /// The flow of a packet on the side that judges it first, to be looked up by [`Self::locate`], in
    /// place of [`Probe::NOTHING`].
    #[inline]
    pub fn probe_into(&self, headers: &Headers, route: &Route, out: &mut Probe) {
        if let Some((side, _)) = route.sides.first()
            && side.readdress.is_nothing()
        {
            self.pipeline.probe_into(side.interface, headers, out);
        }
    }

    /// Looks up the flows of a batch of packets, which is quicker than one after the other. What
    /// changes until they are judged is noticed.
    #[inline]
    pub fn locate(&self, probes: &mut [Probe]) {
        self.pipeline.locate(probes);
    }

    /// Judges a packet of which there is nothing to tell but one verdict, for whoever needs no event;
    /// `None`, and nothing is changed, if [`Self::judge_on`] must: where two interfaces judge or
    /// another address is seen, where the packet may be held or be too large for its path. Time passes
    /// with [`Self::advance`] alone; `data` is the frame.
    #[inline(always)]
    pub fn judge_plain(
        &mut self,
        time: Timestamp,
        data: &[u8],
        headers: &Headers,
        route: &Route,
        probe: &Probe,
    ) -> Option<Plain> {
        let (side, direction) = route.sides.first().filter(|_| !route.sides.is_both())?;
        let interface = side.interface;
        let is_larger = self.is_larger(headers, interface, direction);
        if !side.readdress.is_nothing() || (is_larger && self.offload) {
            return None;
        }
        let packet = PacketContext {
            interface,
            direction,
            now: self.clock.at(time),
            headers,
            frame: data,
            own_address: false,
            origin: None,
            token: 0,
            size: route.segment.unwrap_or(headers.ip_len),
        };
        let Some(verdict) = self.pipeline.process_known(&packet, probe) else {
            return self.judge_plain_unknown(packet, route.sides.origin, probe);
        };
        self.super_frames += u64::from(is_larger);
        Some(Plain { side: (interface, direction), verdict })
    }

    /// The long way of [`Self::judge_plain`].
    #[inline(never)]
    fn judge_plain_unknown(
        &mut self,
        mut packet: PacketContext<'_>,
        origin: Option<usize>,
        probe: &Probe,
    ) -> Option<Plain> {
        let PacketContext { interface, direction, headers, .. } = packet;
        let smallest = self.pipeline.policy().smallest_mtu();
        if headers.fragment.is_some() || headers.ip_len > smallest.into() {
            return None;
        }
        packet.own_address = self.is_own(headers, interface, direction);
        packet.origin = origin.filter(|_| direction == Direction::Ingress);
        let verdict = self.pipeline.process_unknown(&packet, probe);
        Some(Plain { side: (interface, direction), verdict })
    }

    /// Counts and tells of a frame that no stage but parsing sees: one that is not IP, or that
    /// could not be read. `side` is the interface that it concerns, if one is known.
    pub fn judge_unparsed(
        &mut self,
        frame: FrameInput<'_>,
        verdict: Verdict,
        side: Option<(usize, Direction)>,
        sink: Sink<'_>,
    ) {
        self.whole_frame(&frame, None, verdict, side, sink);
    }

    /// Ends the waiting of every held frame, because the capture is over: what still lacks its
    /// first fragment is an orphan.
    pub fn finish(&mut self, sink: Sink<'_>) {
        self.pipeline.end_waiting();
        self.release(sink);
    }

    /// Lets time pass, once a batch; held frames whose wait is over are told of. See
    /// [`Pipeline::advance`].
    pub fn advance(&mut self, now: Timestamp, sink: Sink<'_>) {
        let now = self.clock.advance(now);
        self.pipeline.advance(now);
        self.release(sink);
    }

    /// Judges a packet on each of `sides` in order, until one refuses or holds it. `probe`: what has
    /// been found of its flow on the first.
    fn judge_sides(
        &mut self,
        frame: &FrameInput<'_>,
        captured: &Headers,
        route: &Route,
        mut probe: Option<&Probe>,
        sink: Sink<'_>,
    ) {
        let Route { sides, segment } = route;
        for direction in [Direction::Egress, Direction::Ingress] {
            let Some(Side { interface, readdress }) = sides.side(direction) else { continue };
            let interface = *interface;
            let translated;
            let (headers, data) = match readdress.is_nothing() {
                true => (captured, frame.data),
                false => {
                    translated = as_seen(frame.data, captured, *readdress);
                    (&translated.0, &translated.1[..])
                }
            };
            self.super_frames += u64::from(self.is_larger(headers, interface, direction));
            let origin = sides.origin;
            let mut packet = self.context(frame, headers, data, (interface, direction), origin);
            if let Some(segment) = segment.filter(|_| packet.size > 0) {
                packet.size = segment;
            }
            let verdict = match probe.take() {
                Some(probe) => self.pipeline.process_located(&packet, probe),
                None => self.pipeline.process_alone(&packet),
            };
            if verdict.outcome == Outcome::Hold {
                self.hold(frame, captured, *sides, direction);
                return;
            }
            let is_final =
                !verdict.is_pass() || direction == Direction::Ingress || sides.ingress.is_none();
            sink(Event {
                frame: *frame,
                headers: Some(headers),
                error: None,
                side: Some((interface, direction)),
                judgement: Judgement::Verdict(verdict),
                admitted_by: self.admitting_rule(&verdict),
                is_final,
                emitted: None,
            });
            // The segments of a super-frame are fragmented by whoever cuts it.
            if segment.is_none() || !verdict.is_pass() {
                let seen = FrameInput { data, ..*frame };
                self.emit(&seen, headers, (interface, direction), &verdict, sink);
            }
            if is_final {
                return;
            }
        }
    }

    /// Whether the packet is larger than the MTU of the interface that sends it.
    fn is_larger(&self, headers: &Headers, interface: usize, direction: Direction) -> bool {
        let mtu = self.pipeline.policy().interfaces().get(interface).map_or(0, |i| i.mtu);
        direction == Direction::Egress && headers.ip_len > mtu.into()
    }

    /// Whether the address on the interface's side is its own.
    #[inline]
    fn is_own(&self, headers: &Headers, interface: usize, direction: Direction) -> bool {
        let ours = match direction {
            Direction::Ingress => &headers.dst,
            Direction::Egress => &headers.src,
        };
        self.attribution.is_own(self.pipeline.policy(), interface, ours)
    }

    /// A packet as the pipeline takes it on one side. `data` is the frame as that side sees it,
    /// `origin` the interface that sent it if it is known.
    pub(crate) fn context<'a>(
        &self,
        frame: &FrameInput<'_>,
        headers: &'a Headers,
        data: &'a [u8],
        (interface, direction): (usize, Direction),
        origin: Option<usize>,
    ) -> PacketContext<'a> {
        let is_super_frame = self.offload
            && self.is_larger(headers, interface, direction)
            && headers.fragment.is_none()
            && matches!(headers.transport, Transport::Tcp(_) | Transport::Udp { .. });
        PacketContext {
            interface,
            direction,
            now: self.clock.at(frame.time),
            headers,
            frame: data,
            own_address: self.is_own(headers, interface, direction),
            origin: origin.filter(|_| direction == Direction::Ingress),
            token: frame.token,
            size: if is_super_frame { 0 } else { headers.ip_len },
        }
    }

    /// The frame of the router's answer to a packet that does not fit a path of `mtu` bytes;
    /// `None` where it gives none (SEMANTICS 12.7). How often it may is another question.
    pub(crate) fn answer(
        &self,
        data: &[u8],
        headers: &Headers,
        interface: usize,
        mtu: u16,
    ) -> Option<Vec<u8>> {
        let interface = self.pipeline.policy().interfaces().get(interface)?;
        let (link_header, _) = data.split_at_checked(headers.ip_offset.into())?;
        let answer = too_big(headers, data, interface.router(headers.is_ipv6())?, mtu)?;
        Some([&turned_round(link_header, headers), &answer[..]].concat())
    }

    /// Makes what the router makes of a packet that did not fit its path: fragments, or an answer
    /// to its sender, which is judged on its way in.
    fn emit(
        &mut self,
        frame: &FrameInput<'_>,
        headers: &Headers,
        (interface, direction): (usize, Direction),
        verdict: &Verdict,
        sink: Sink<'_>,
    ) {
        let Some(mtu) = verdict.mtu else { return };
        let start = usize::from(headers.ip_offset);
        let Some((link_header, packet)) = frame.data.split_at_checked(start) else { return };
        if verdict.is_pass() {
            for fragment in fragment_ipv4(packet, mtu.get().into()) {
                let data = [link_header, &fragment].concat();
                self.emit_one(frame, &data, (interface, direction), Some(*verdict), sink);
            }
            return;
        }
        // Asked first: under a flood, answers that may not be given are not made either.
        let now = self.clock.at(frame.time);
        if !self.pipeline.would_answer(interface, now) {
            return;
        }
        let Some(answer) = self.answer(frame.data, headers, interface, mtu.get()) else { return };
        if self.pipeline.may_answer(interface, now) {
            self.emit_one(frame, &answer, (interface, Direction::Ingress), None, sink);
        }
    }

    /// Hands out one frame that was made: a fragment with its packet's verdict, or an answer, to be
    /// judged.
    fn emit_one(
        &mut self,
        cause: &FrameInput<'_>,
        data: &[u8],
        (interface, direction): (usize, Direction),
        verdict: Option<Verdict>,
        sink: Sink<'_>,
    ) {
        let frame = FrameInput { data, wire_len: data.len() as u32, ..*cause };
        let Some(Ok(Frame::Ip(headers))) = frame.link.map(|l| parse(l, data, data.len())) else {
            return;
        };
        let emitted = if verdict.is_some() { Emitted::Fragment } else { Emitted::Answer };
        let verdict = verdict.unwrap_or_else(|| {
            let packet = PacketContext {
                own_address: true,
                ..self.context(&frame, &headers, data, (interface, direction), None)
            };
            self.pipeline.process(&packet)
        });
        sink(Event {
            frame,
            headers: Some(&headers),
            error: None,
            side: Some((interface, direction)),
            judgement: Judgement::Verdict(verdict),
            admitted_by: self.admitting_rule(&verdict),
            is_final: true,
            emitted: Some(emitted),
        });
    }

    fn admitting_rule(&self, verdict: &Verdict) -> Option<&RuleInfo> {
        self.pipeline.admitting_rule(verdict.admitted_by?)
    }

    fn hold(
        &mut self,
        frame: &FrameInput<'_>,
        headers: &Headers,
        sides: Sides,
        direction: Direction,
    ) {
        let held = HeldFrame {
            token: frame.token,
            link: frame.link,
            data: frame.data.into(),
            wire_len: frame.wire_len,
            time: frame.time,
            decimals: frame.decimals,
            recorded: frame.recorded,
            headers: *headers,
            sides,
        };
        self.held.insert((frame.token, direction), held);
    }

    /// Hands out the frames whose waiting has ended, and judges them on the side still to come.
    fn release(&mut self, sink: Sink<'_>) {
        if !self.pipeline.has_released() {
            return;
        }
        for released in self.pipeline.released() {
            let Some(held) = self.held.remove(&(released.token, released.direction)) else {
                continue;
            };
            let frame = FrameInput {
                token: held.token,
                link: held.link,
                data: &held.data,
                wire_len: held.wire_len,
                time: held.time,
                decimals: held.decimals,
                recorded: held.recorded,
            };
            let (side, other_side) = match released.direction {
                Direction::Egress => (held.sides.egress, Sides { egress: None, ..held.sides }),
                Direction::Ingress => (held.sides.ingress, Sides::default()),
            };
            let readdress = side.map(|side| side.readdress).unwrap_or_default();
            let (seen, data) = as_seen(frame.data, &held.headers, readdress);
            let goes_on = released.verdict.is_pass() && !other_side.is_empty();
            sink(Event {
                frame,
                headers: Some(&seen),
                error: None,
                side: released.interface.map(|i| (i, released.direction)),
                judgement: Judgement::Verdict(released.verdict),
                admitted_by: self.admitting_rule(&released.verdict),
                is_final: !goes_on,
                emitted: None,
            });
            if let Some(interface) = released.interface {
                let side = (interface, released.direction);
                let frame = FrameInput { data: &data, ..frame };
                self.emit(&frame, &seen, side, &released.verdict, sink);
            }
            if goes_on {
                let route = Route { sides: other_side, segment: None };
                self.judge_sides(&frame, &held.headers, &route, None, sink);
            }
        }
    }

    /// A frame whose headers could not be read. If its addresses can, those that concern nobody
    /// here are skipped; what is cut by the capture is not judged, what is malformed is dropped.
    fn unreadable(
        &mut self,
        frame: &FrameInput<'_>,
        link: LinkType,
        error: ParseError,
        sink: Sink<'_>,
    ) {
        match self.unreadable_fate(frame, link, error) {
            (_, Judgement::Skip(reason)) => self.skip(frame, None, Some(error), reason, sink),
            (side, Judgement::Verdict(verdict)) => {
                self.whole_frame(frame, Some(error), verdict, side, sink);
            }
        }
    }

    /// What becomes of a frame whose headers could not be read, and on which side.
    pub(crate) fn unreadable_fate(
        &self,
        frame: &FrameInput<'_>,
        link: LinkType,
        error: ParseError,
    ) -> (Option<(usize, Direction)>, Judgement) {
        let sides = addresses(link, frame.data).map(|ends| {
            let policy = self.pipeline.policy();
            self.attribution.sides(policy, &LinkInfo::NONE, ends, frame.recorded)
        });
        if sides.is_some_and(Sides::is_empty) {
            return (None, Judgement::Skip(SkipReason::NotOurs));
        }
        if error.is_truncated() {
            return (None, Judgement::Skip(SkipReason::Truncated));
        }
        let side = sides.and_then(|sides| sides.iter().next());
        let side = side.map(|(side, direction)| (side.interface, direction));
        let reason = match error {
            ParseError::TinyFragment { .. } => DropReason::FragmentTiny,
            _ => DropReason::Malformed,
        };
        (side, Judgement::Verdict(Verdict::drop(reason)))
    }

    /// The last word on a frame that no stage but parsing sees.
    fn whole_frame(
        &mut self,
        frame: &FrameInput<'_>,
        error: Option<ParseError>,
        verdict: Verdict,
        side: Option<(usize, Direction)>,
        sink: Sink<'_>,
    ) {
        self.pipeline.count(side.map(|(interface, _)| interface), &verdict, 0);
        let judgement = Judgement::Verdict(verdict);
        let event = Event {
            frame: *frame,
            headers: None,
            error,
            side,
            judgement,
            admitted_by: None,
            is_final: true,
            emitted: None,
        };
        sink(event);
    }

    fn skip(
        &mut self,
        frame: &FrameInput<'_>,
        headers: Option<&Headers>,
        error: Option<ParseError>,
        reason: SkipReason,
        sink: Sink<'_>,
    ) {
        self.unjudged.skipped[reason as usize].add(frame.wire_len);
        let judgement = Judgement::Skip(reason);
        let event = Event {
            frame: *frame,
            headers,
            error,
            side: None,
            judgement,
            admitted_by: None,
            is_final: true,
            emitted: None,
        };
        sink(event);
    }
}

/// A packet as an interface sees it: with the private address that its public one stands for.
pub(crate) fn as_seen<'a>(
    data: &'a [u8],
    headers: &Headers,
    readdress: Readdress,
) -> (Headers, Cow<'a, [u8]>) {
    let mut seen = *headers;
    if readdress.is_nothing() {
        return (seen, Cow::Borrowed(data));
    }
    let mut data = data.to_vec();
    readdress.apply(headers, &mut data);
    seen.src = readdress.src.map_or(seen.src, IpAddr::V4);
    seen.dst = readdress.dst.map_or(seen.dst, IpAddr::V4);
    (seen, Cow::Owned(data))
}

/// The link header of an answer: the packet's own, from its receiver to its sender.
fn turned_round(link_header: &[u8], headers: &Headers) -> Vec<u8> {
    let mut header = link_header.to_vec();
    if let Some(macs) = headers.link.mac
        && let Some(addresses) = header.first_chunk_mut::<12>()
    {
        addresses[..6].copy_from_slice(&macs.src());
        addresses[6..].copy_from_slice(&macs.dst());
    }
    header
}
