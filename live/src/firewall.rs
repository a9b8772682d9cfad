//! What a worker does with a batch of frames.
//!
//! First every frame is looked at without state: what is it, where does it come from, who judges
//! it. Then, shard by shard, those that flows and rules decide about are judged, in the order in
//! which they came, and each goes on as its last verdict says. Whatever is not passed is dropped.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use sgwall_conntrack::Probe;
use sgwall_dataplane::neighbour::{check_arp, check_mac, check_neighbour};
use sgwall_dataplane::{
    DropReason, Emitted, Event, FrameInput, Judge, Judgement, PassReason, Route, Sides, Verdict,
};
use sgwall_netio::device::offload::{Segments, complete_checksum, segment_size};
use sgwall_netio::device::{Frames, VnetHeader};
use sgwall_netio::worker::{Handler, Output};
use sgwall_packet::{
    Arp, Direction, Headers, Kind, LinkInfo, LinkType, ParseError, Timestamp, Transport,
    fragment_ipv4, parse_into, protocol,
};
use sgwall_rules::compile::Generation;

use crate::filter::Filter;
use crate::flow_log::Recorder;
use crate::shared::{Part, Shared, Snapshot, WatchedSnapshot};
use crate::topology::{Behind, side};

/// The packet handler of one worker.
#[derive(Debug)]
pub struct Firewall {
    shared: Arc<Shared>,
    /// The policy in force.
    snapshot: WatchedSnapshot,
    worker: usize,
    /// Names frames, so that held ones can be told from the one in hand.
    token: u64,
    /// By frame of the batch: its headers, if it is an IP packet; of others the link layer.
    headers: Vec<Headers>,
    /// Frames of the batch that are to be judged.
    work: Vec<Work>,
    /// By frame of the batch: whether it was judged.
    done: Vec<bool>,
    /// Look-ups of the packets of a shard.
    probes: Vec<Probe>,
    /// By port: the link-layer header that a packet was last seen behind.
    hops: Vec<Option<Hop>>,
    /// What they were found out under: a policy, and how often an address was learned.
    hops_under: (Generation, u64),
    fragments: Vec<Vec<u8>>,
}

/// A frame that is to be judged.
#[derive(Clone, Copy, Debug)]
struct Work {
    frame: usize,
    shard: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// An IP packet.
    Ip { route: Route },
    /// A packet to many that may concern each instance: neighbour discovery, and what comes from
    /// the network. `from` is the interface that sent it.
    ToMany { from: Option<usize> },
    /// ARP.
    Arp { from: Option<usize> },
    /// A drop that needs no state.
    Decided { verdict: Verdict, side: Option<(usize, Direction)> },
}

impl Firewall {
    /// The handler of worker number `worker`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, worker: usize) -> Self {
        Firewall {
            snapshot: shared.watch_snapshot(),
            hops: vec![None; shared.ports.len()],
            hops_under: (Generation(0), 0),
            shared,
            worker,
            token: 0,
            headers: Vec::new(),
            work: Vec::new(),
            done: Vec::new(),
            probes: Vec::new(),
            fragments: Vec::new(),
        }
    }
}

impl Handler for Firewall {
    fn batch(&mut self, now: Timestamp, port: usize, frames: &mut Frames, out: &mut Output) {
        self.work.clear();
        self.done.clear();
        self.done.resize(frames.len(), false);
        self.headers.resize(frames.len(), Headers::NONE);
        // A policy that takes over meanwhile is met by a shard before us: then what we found of
        // the frames left is looked up again under that one.
        while !self.judge_under_one_policy(now, port, frames, out) {}
    }

    fn idle(&mut self, now: Timestamp, out: &mut Output) {
        let snapshot: &Snapshot = self.snapshot.load();
        for shard in (self.worker..self.shared.shards()).step_by(self.shared.workers()) {
            let Some(mut part) = self.shared.lock(shard, snapshot) else { continue };
            let Part { judge, recorder } = &mut *part;
            if let Some(recorder) = recorder {
                recorder.advance(now);
            }
            let watching = self.shared.tracer.watching();
            let mut courier = Courier {
                shared: &self.shared,
                snapshot,
                recorder: recorder.as_mut(),
                watching: watching.as_deref(),
                fragments: &mut self.fragments,
                cut_to: None,
                out,
            };
            judge.advance(now, &mut |event| courier.deliver(&event, None));
        }
    }
}

impl Firewall {
    /// Judges the frames that are not done; false if the policy changed before all were.
    fn judge_under_one_policy(
        &mut self,
        now: Timestamp,
        port: usize,
        frames: &mut Frames,
        out: &mut Output,
    ) -> bool {
        let snapshot: &Snapshot = self.snapshot.load();
        let sight = Sight { shared: &self.shared, snapshot, port, worker: self.worker };
        let under = (snapshot.policy.generation(), self.shared.learned.changes());
        if self.hops_under != under {
            self.hops.fill(None);
            self.hops_under = under;
        }
        let mut no_port = None;
        let hop = self.hops.get_mut(port).unwrap_or(&mut no_port);
        self.work.clear();
        for (frame, headers) in self.headers.iter_mut().enumerate() {
            if !self.done[frame] {
                self.work.push(sight.look(frames, frame, headers, hop));
            }
        }
        let watching = self.shared.tracer.watching();
        for shard in 0..self.shared.shards() {
            let mut of_shard = self.work.iter().filter(|work| work.shard == shard).peekable();
            if of_shard.peek().is_none() {
                continue;
            }
            let Some(mut part) = self.shared.lock(shard, snapshot) else { return false };
            let Part { judge, recorder } = &mut *part;
            if let Some(recorder) = recorder {
                recorder.advance(now);
            }
            let mut courier = Courier {
                shared: &self.shared,
                snapshot,
                recorder: recorder.as_mut(),
                watching: watching.as_deref(),
                fragments: &mut self.fragments,
                cut_to: None,
                out: &mut *out,
            };
            judge.advance(now, &mut |event| courier.deliver(&event, None));
            self.probes.clear();
            for work in of_shard.clone() {
                self.probes.push(Probe::NOTHING);
                if let (What::Ip { route }, Some(probe)) = (&work.what, self.probes.last_mut()) {
                    judge.probe_into(&self.headers[work.frame], route, probe);
                }
            }
            judge.locate(&mut self.probes);
            for (work, probe) in of_shard.zip(&self.probes) {
                self.token += 1;
                #[cfg(debug_assertions)]
                crate::fault::panic_on(frames.bytes(work.frame));
                let current = Current {
                    token: self.token << WORKER_BITS | self.worker as u64,
                    frame: work.frame,
                    headers: &self.headers[work.frame],
                    bytes: frames.bytes(work.frame),
                    header: frames.header(work.frame),
                };
                courier.judge(judge, &work.what, probe, &current, now);
                self.done[work.frame] = true;
            }
        }
        true
    }
}

/// Low bits of a token that name the worker: tokens of workers that share a shard differ.
const WORKER_BITS: u32 = 10;

/// How frames of one batch are looked at: without flows, so without a lock.
struct Sight<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    port: usize,
    worker: usize,
}

/// What is known of packets behind the same link-layer header, whatever they are: most packets of
/// a port.
#[derive(Clone, Copy, Debug)]
struct Hop {
    link: LinkInfo,
    sides: Sides,
}

impl Sight<'_> {
    /// What a frame is and who judges it. It may complete the frame's checksum.
    #[inline]
    fn look(
        &self,
        frames: &mut Frames,
        frame: usize,
        headers: &mut Headers,
        hop: &mut Option<Hop>,
    ) -> Work {
        let bytes = frames.bytes(frame);
        let what = match parse_into(LinkType::Ethernet, bytes, bytes.len(), headers) {
            Ok(Kind::Ip) => self.look_at_packet(frames, frame, headers, hop),
            Ok(Kind::Arp) => self.look_at_link(&headers.link).unwrap_or_else(|| {
                let from = match self.snapshot.topology.behind(self.port) {
                    Behind::Instance(sender) => Some(sender),
                    _ => None,
                };
                What::Arp { from }
            }),
            Ok(Kind::Other) => {
                self.look_at_link(&headers.link).unwrap_or_else(|| self.dropped(DropReason::NotIp))
            }
            Err(ParseError::TinyFragment { .. }) => self.dropped(DropReason::FragmentTiny),
            Err(_) => self.dropped(DropReason::Malformed),
        };
        let shard = match &what {
            What::Ip { .. } => self.shared.shard_of(&headers.src, &headers.dst),
            _ => self.worker % self.shared.shards(),
        };
        Work { frame, shard, what }
    }

    /// What the link layer alone decides: tags, MAC addresses, ports without an interface.
    fn look_at_link(&self, link: &LinkInfo) -> Option<What> {
        let Snapshot { policy, topology, .. } = self.snapshot;
        let port = self.shared.ports.get(self.port)?;
        if !port.vlans.carry(link.vlan) {
            return Some(self.dropped(DropReason::VlanTag));
        }
        match topology.behind(self.port) {
            Behind::Nothing => return Some(self.dropped(DropReason::NotServed)),
            Behind::Instance(sender) => {
                let interface = policy.interfaces().get(sender)?;
                if let Err(reason) = check_mac(interface, Direction::Egress, link) {
                    return Some(self.dropped(reason));
                }
                if let (None, Some(macs)) = (interface.mac, link.mac) {
                    self.shared.learned.note(self.port, macs.src());
                }
            }
            Behind::Network => {
                // Nobody out there has the MAC address of an instance in here.
                let src = link.mac.and_then(|macs| policy.interface_by_mac(macs.src()));
                if src.is_some_and(|interface| topology.port_of(interface).is_some()) {
                    return Some(self.dropped(DropReason::MacCheck));
                }
            }
        }
        None
    }

    #[inline]
    fn look_at_packet(
        &self,
        frames: &mut Frames,
        frame: usize,
        headers: &Headers,
        hop: &mut Option<Hop>,
    ) -> What {
        let is_neighbours = is_neighbour_message(headers);
        let is_to_many = match headers.dst {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_multicast(),
        };
        if let Some(hop) = hop
            && hop.link == headers.link
            && !is_neighbours
            && !is_to_many
        {
            return self.route(frames, frame, headers, hop.sides);
        }
        if let Some(decided) = self.look_at_link(&headers.link) {
            return decided;
        }
        let Snapshot { policy, topology, .. } = self.snapshot;
        let from = match topology.behind(self.port) {
            Behind::Instance(sender) => Some(sender),
            _ => None,
        };
        if let Some(interface) = from.and_then(|sender| policy.interfaces().get(sender))
            && is_neighbours
        {
            let bytes = frames.bytes(frame);
            if let Err(reason) = check_neighbour(interface, Direction::Egress, headers, bytes) {
                return self.dropped(reason);
            }
        }
        if is_to_many && (is_neighbours || from.is_none()) {
            return What::ToMany { from };
        }
        let learned = &self.shared.learned;
        let sides = match from {
            Some(sender) => Some(topology.sides_from_instance(policy, learned, sender, headers)),
            None => topology.sides_from_network(policy, learned, headers),
        };
        let Some(sides) = sides else { return self.dropped(DropReason::NotServed) };
        if let (None, Some(receiver)) = (from, sides.ingress)
            && let Some(interface) = policy.interfaces().get(receiver.interface)
        {
            let side = Some((receiver.interface, Direction::Ingress));
            if let Err(reason) = check_mac(interface, Direction::Ingress, &headers.link) {
                return What::Decided { verdict: Verdict::drop(reason), side };
            }
        }
        *hop = (!topology.needs_address(policy, learned, &headers.link, from.is_some()))
            .then_some(Hop { link: headers.link, sides });
        self.route(frames, frame, headers, sides)
    }

    /// An IP packet that `sides` judge.
    #[inline]
    fn route(&self, frames: &mut Frames, frame: usize, headers: &Headers, sides: Sides) -> What {
        let mut header = frames.header(frame);
        let segment = match header.segmentation {
            None => None,
            Some(_) => match segment_size(frames.bytes(frame), &header, headers.ip_len) {
                Ok(size) => Some(size),
                Err(_) => return self.dropped(DropReason::Malformed),
            },
        };
        // What may be cut into fragments must have its checksum: no device completes it then.
        let may_be_cut =
            !headers.dont_fragment && headers.ip_len > self.snapshot.policy.smallest_mtu().into();
        if may_be_cut && segment.is_none() && header.checksum.is_some() {
            if complete_checksum(frames.bytes_mut(frame), &mut header).is_err() {
                return self.dropped(DropReason::Malformed);
            }
            frames.set_header(frame, header);
        }
        What::Ip { route: Route { sides, segment } }
    }

    /// A drop that no flow or rule is asked about.
    fn dropped(&self, reason: DropReason) -> What {
        let side = match self.snapshot.topology.behind(self.port) {
            Behind::Instance(sender) => Some((sender, Direction::Egress)),
            _ => None,
        };
        What::Decided { verdict: Verdict::drop(reason), side }
    }
}

/// Neighbour discovery, by whatever hop limit (RFC 4861).
fn is_neighbour_message(headers: &Headers) -> bool {
    headers.protocol == protocol::ICMPV6
        && matches!(headers.transport, Transport::Icmp(icmp) if (133..=137).contains(&icmp.kind))
}

/// The frame in hand.
struct Current<'a> {
    token: u64,
    frame: usize,
    headers: &'a Headers,
    bytes: &'a [u8],
    header: VnetHeader,
}

/// Carries frames where their verdicts send them.
struct Courier<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    /// Of the shard in hand.
    recorder: Option<&'a mut Recorder>,
    watching: Option<&'a Filter>,
    /// Fragments of a frame that is still to be judged by the interface it is for.
    fragments: &'a mut Vec<Vec<u8>>,
    /// The path MTU of a super-frame that is still to be judged there.
    cut_to: Option<NonZeroU16>,
    out: &'a mut Output,
}

impl Courier<'_> {
    fn judge(
        &mut self,
        judge: &mut Judge,
        what: &What,
        probe: &Probe,
        current: &Current<'_>,
        now: Timestamp,
    ) {
        // Most packets: nobody listens, and one verdict is all there is to tell.
        if let What::Ip { route } = what
            && self.recorder.is_none()
            && self.watching.is_none()
            && let Some(plain) =
                judge.judge_plain(now, current.bytes, current.headers, route, probe)
        {
            let (interface, direction) = plain.side;
            if plain.verdict.is_pass()
                && let Some(target) = self.target(interface, direction)
            {
                self.out.forward(current.frame, target);
            }
            return;
        }
        // What was cut for a frame that is now held has nothing to do with this one.
        self.fragments.clear();
        self.cut_to = None;
        let frame = FrameInput {
            token: current.token,
            link: Some(LinkType::Ethernet),
            data: current.bytes,
            wire_len: current.bytes.len() as u32,
            time: now,
            decimals: 9,
            recorded: None,
        };
        match what {
            What::Ip { route } => {
                judge.judge_on(frame, current.headers, route, Some(probe), &mut |event| {
                    self.deliver(&event, Some(current));
                });
            }
            What::Decided { verdict, side } => {
                judge.judge_unparsed(frame, *verdict, *side, &mut |event| {
                    self.note(&event);
                });
            }
            What::ToMany { from } => self.share(judge, frame, *from, current),
            What::Arp { from } => self.arp(judge, frame, *from, current),
        }
    }

    /// Where a packet goes that an interface lets through.
    fn target(&self, interface: usize, direction: Direction) -> Option<usize> {
        match direction {
            Direction::Egress => Some(self.snapshot.topology.network()),
            Direction::Ingress => self.snapshot.topology.port_of(interface),
        }
    }

    /// What one side, or the way between two, says of a frame.
    fn deliver(&mut self, event: &Event<'_>, current: Option<&Current<'_>>) {
        self.note(event);
        let Judgement::Verdict(verdict) = event.judgement else { return };
        let Some((interface, direction)) = event.side else { return };
        let Some(target) = self.target(interface, direction) else { return };
        match event.emitted {
            Some(Emitted::Answer) => {
                if verdict.is_pass() {
                    self.out.send(target, event.frame.data);
                }
                return;
            }
            // Of a frame that goes on to another instance, once that one's verdict is known.
            Some(Emitted::Fragment) if self.cut_to.is_some() => {
                self.fragments.push(event.frame.data.to_vec());
                return;
            }
            Some(Emitted::Fragment) => {
                self.out.send(target, event.frame.data);
                return;
            }
            None => {}
        }
        if !event.is_final && verdict.is_pass() {
            self.cut_to = verdict.mtu;
            return;
        }
        let cut_to = self.cut_to.take();
        if !verdict.is_pass() {
            self.fragments.clear();
            return;
        }
        if !self.fragments.is_empty() {
            for fragment in self.fragments.drain(..) {
                self.out.send(target, &fragment);
            }
            return;
        }
        let current = current.filter(|current| current.token == event.frame.token);
        match (current, verdict.mtu.or(cut_to)) {
            (Some(current), None) => self.out.forward(current.frame, target),
            // A fragment that was held: those are never super-frames.
            (None, None) => self.out.send(target, event.frame.data),
            (Some(current), Some(mtu)) if current.header.segmentation.is_some() => {
                self.cut(current, event, mtu, target);
            }
            // Its fragments follow as events of their own.
            (_, Some(_)) => {}
        }
    }

    /// A super-frame whose segments do not fit their path and may be fragmented.
    fn cut(&mut self, current: &Current<'_>, event: &Event<'_>, mtu: NonZeroU16, target: usize) {
        let Some(headers) = event.headers else { return };
        let start = usize::from(headers.ip_offset);
        let Ok(Some(segments)) = Segments::new(current.bytes, &current.header) else { return };
        let mut segment = Vec::new();
        for n in 0..segments.count() {
            segment.resize(segments.frame_len(n), 0);
            segments.write(n, &mut segment);
            let Some((link, packet)) = segment.split_at_checked(start) else { return };
            for fragment in fragment_ipv4(packet, mtu.get().into()) {
                self.out.send(target, &[link, &fragment].concat());
            }
        }
    }

    /// A packet to a multicast address: judged where it comes from, then by everybody it may
    /// concern.
    fn share(
        &mut self,
        judge: &mut Judge,
        frame: FrameInput<'_>,
        from: Option<usize>,
        current: &Current<'_>,
    ) {
        let headers = current.headers;
        if let Some(sender) = from {
            let sides = Sides { egress: Some(side(sender)), ..Sides::default() };
            let mut passed = false;
            judge.judge_on(frame, headers, &Route { sides, segment: None }, None, &mut |event| {
                passed |= matches!(event.judgement, Judgement::Verdict(v) if v.is_pass());
                self.deliver(&event, Some(current));
            });
            if !passed {
                return;
            }
        }
        let snapshot = self.snapshot;
        for &(receiver, _) in snapshot.topology.served() {
            let interface = snapshot.policy.interfaces().get(receiver);
            let Some(interface) = interface.filter(|_| from != Some(receiver)) else { continue };
            let is_false = is_neighbour_message(headers)
                && check_neighbour(interface, Direction::Ingress, headers, frame.data).is_err();
            if is_false {
                let verdict = Verdict::drop(DropReason::NeighbourInvalid);
                let side = Some((receiver, Direction::Ingress));
                judge.judge_unparsed(frame, verdict, side, &mut |event| self.note(&event));
                continue;
            }
            let sides = Sides { ingress: Some(side(receiver)), ..Sides::default() };
            judge.judge_on(frame, headers, &Route { sides, segment: None }, None, &mut |event| {
                self.deliver(&event, Some(current));
            });
        }
    }

    /// An ARP packet: to those whom it concerns, if what it claims can be true.
    fn arp(
        &mut self,
        judge: &mut Judge,
        frame: FrameInput<'_>,
        from: Option<usize>,
        current: &Current<'_>,
    ) {
        let link = &current.headers.link;
        let Snapshot { policy, topology, .. } = self.snapshot;
        let mut tell = |courier: &mut Self, verdict, side| {
            judge.judge_unparsed(frame, verdict, Some(side), &mut |event| courier.note(&event));
        };
        let sender = from.and_then(|sender| policy.interfaces().get(sender).map(|i| (sender, i)));
        if let Some((index, interface)) = sender {
            let found = check_arp(interface, Direction::Egress, link, frame.data);
            let verdict = found.map_or_else(Verdict::drop, |_| Verdict::pass(PassReason::Arp));
            tell(self, verdict, (index, Direction::Egress));
            if !verdict.is_pass() {
                return;
            }
        }
        let Ok(arp) = Arp::parse(frame.data) else {
            // From the network: no interface is concerned.
            let verdict = Verdict::drop(DropReason::ArpInvalid);
            judge.judge_unparsed(frame, verdict, None, &mut |event| self.note(&event));
            return;
        };
        let target = IpAddr::V4(arp.target);
        let tells_all = arp.sender == arp.target || arp.sender.is_unspecified();
        let mut is_local = false;
        for (receiver, port) in
            topology.arp_receivers(policy, &self.shared.learned, link, target, tells_all)
        {
            let interface = policy.interfaces().get(receiver);
            let Some(interface) = interface.filter(|_| from != Some(receiver)) else { continue };
            let found = check_arp(interface, Direction::Ingress, link, frame.data);
            let verdict = found.map_or_else(Verdict::drop, |_| Verdict::pass(PassReason::Arp));
            tell(self, verdict, (receiver, Direction::Ingress));
            if verdict.is_pass() {
                self.out.forward(current.frame, port);
                is_local |= interface.owns(&target);
            }
        }
        // What was for an instance here is no news to the network, unless it tells everybody.
        if from.is_some() && (!is_local || tells_all) {
            self.out.forward(current.frame, topology.network());
        }
    }

    /// Tells whoever keeps account: the flow log, and whoever watches.
    fn note(&mut self, event: &Event<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.count(event);
        }
        if let Some(filter) = self.watching {
            self.shared.tracer.show(filter, event, self.snapshot.policy.generation());
        }
    }
}
