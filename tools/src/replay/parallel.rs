//! Judging with several workers, so that what comes out is what one would have made of it, to the
//! byte.
//!
//! This thread reads batches, finds the worker of each frame ([`Steering`]) and hands every batch to
//! all workers; each judges its frames with a judge of its own, adds up and prints, and hands back
//! what it found. Here the findings are put into order and go to the outlet.
//!
//! A frame's verdict depends on what its worker knows, and on very little else. That is watched here,
//! batch by batch, before anything of the batch goes out:
//!
//! * how many flows there may be, and fragmented datagrams: as long as all workers together stay
//!   below, one worker would have refused none either;
//! * how often the router answers: the answers are counted here, in order;
//! * fragments that end unjudged because their time is over: a worker that holds some looks at the
//!   time of every frame, so it knows with which frame that is; only whose come first if several
//!   workers have some at once, it does not;
//! * time that runs backwards, and what else [`Steering::way`] gives to nobody.
//!
//! Where any of it matters, the workers' results from that batch on are not used: the whole replay
//! begins anew with one worker, and what has gone out already goes out no more. So captures must be
//! readable twice, and the price of such a capture is the time of both.
//!
//! A change of policy, and the end of a capture, wait until all workers have come to it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crossbeam::channel::{Receiver, Sender, bounded};
use sgwall_dataplane::fragment::MAX_DATAGRAMS;
use sgwall_dataplane::path_mtu::RateLimit;
use sgwall_dataplane::{Emitted, Event, FrameInput, Judge, Judgement, places_for_any};
use sgwall_netio::capture::{Batch, CaptureError, Packet};
use sgwall_netio::seed::random_seed;
use sgwall_packet::{Direction, Headers, ParseError, Timestamp};
use sgwall_rules::compile::CompiledPolicy;

use super::changes::Change;
use super::outlet::Outlet;
use super::record::Form;
use super::steering::{Steering, Way};
use super::sums::Place;
use super::{Judged, Output, Part, Replay, Run, TOGETHER, new_judge};
use crate::failure::Failure;
use crate::traffic::frame_input;

/// Bytes of a batch: enough that handing it over costs little, and few enough that the batches under
/// way fit into the processor's cache.
const BATCH: usize = 1 << 20;
const NO_WAY: &str = "time runs backwards, or an ICMP error comes in fragments";
const ORPHANS: &str = "fragments of several datagrams lack their first at once";
/// Tasks under way at once.
const AHEAD: usize = 4;

/// Frames of a batch that are judged under one policy.
struct Task {
    batch: Arc<Batch>,
    packets: Range<usize>,
    /// Of each packet.
    ways: Arc<[Way]>,
    /// Frames before the first, of all captures.
    first: u64,
    /// The first one's number in its capture.
    number: u64,
    capture: Arc<str>,
}

impl Task {
    /// The packet of a number, from 0, as it is judged.
    fn frame(&self, at: usize) -> Option<FrameInput<'_>> {
        let packet = self.batch.get(self.packets.start + at)?;
        Some(frame_input(self.number + at as u64, &packet))
    }
}

/// What a worker found in a task.
#[derive(Default)]
struct Findings {
    /// What is printed, one event after the other.
    text: Vec<u8>,
    /// The events, if they are wanted.
    kept: Vec<Kept>,
    marks: Vec<Mark>,
    /// Answers that the router gave: with which frame, to whose sender, when.
    answers: Vec<(u64, usize, Timestamp)>,
    /// Frames whose time ended the wait of fragments.
    orphans: Vec<u64>,
    /// The most flows, and datagrams, that there were at once.
    flows: usize,
    datagrams: usize,
    is_doubtful: bool,
}

/// Where the text and the events of one place end.
#[derive(Clone, Copy)]
struct Mark {
    place: Place,
    text: usize,
    kept: usize,
}

/// An event, kept.
struct Kept {
    /// But for the bytes.
    frame: FrameInput<'static>,
    data: Data,
    headers: Option<Headers>,
    error: Option<ParseError>,
    side: Option<(usize, Direction)>,
    judgement: Judgement,
    is_final: bool,
    emitted: Option<Emitted>,
}

/// The bytes of a frame.
enum Data {
    /// Those of a packet of the task.
    Packet(usize),
    /// Of a frame that was held or made.
    Own(Box<[u8]>),
}

/// What workers are told once.
#[derive(Clone, Copy)]
struct Orders {
    form: Form,
    workers: usize,
    /// Whether events are to be kept.
    keep: bool,
    /// Whether all packets of two addresses are one worker's.
    by_pairs: bool,
}

impl Orders {
    /// Whether all that is wanted of packets is that they are counted.
    fn only_counts(self) -> bool {
        self.form.output == Output::Summary && !self.keep
    }
}

/// Why the workers stop.
enum Stop {
    /// Something failed.
    Failed(Failure),
    /// From this frame on they may not come to what one would, and why.
    Apart(u64, &'static str),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// Judges everything with several workers; `None` if they could not do it to the end, and one is to
/// begin anew.
pub(super) fn judge<'a>(
    replay: &'a Replay<'a>,
    workers: usize,
    outlet: &mut Outlet<'_>,
) -> Result<Option<Judged<'a>>, Failure> {
    let (run, parts) = replay.begin(workers);
    let parts: Vec<_> = parts.into_iter().map(Mutex::new).collect();
    let changed = replay.changes.given().iter().map(|change| &*change.policy);
    let policies = std::iter::once(&*replay.policy).chain(changed);
    let max_flows = replay.args.traffic.table.max_flows;
    let places = policies.clone().map(|policy| places_for_any(policy, max_flows)).min();
    let steering = Steering::new(workers, policies, random_seed());
    let orders = Orders {
        form: outlet.form,
        workers,
        keep: outlet.wants_events(),
        by_pairs: steering.is_by_pairs(),
    };
    let judged = thread::scope(|scope| {
        let mut channels = Vec::with_capacity(workers);
        for (part, me) in parts.iter().zip(0..) {
            let (to_worker, tasks) = bounded(AHEAD + 1);
            let (to_here, findings) = bounded(AHEAD + 1);
            scope.spawn(move || work(part, me, orders, &tasks, &to_here));
            channels.push((to_worker, findings));
        }
        let names = new_judge(replay.args, &replay.policy, replay.attribution.clone());
        let limits = vec![RateLimit::default(); replay.policy.interfaces().len()];
        let (under_way, spare) = (VecDeque::new(), Vec::new());
        let parts = &parts[..];
        let places = places.unwrap_or(max_flows);
        let mut team =
            Team { run, parts, channels, steering, under_way, spare, places, limits, names };
        team.judge_all(outlet).map(|damage| (team.run, damage))
    });
    match judged {
        Ok((run, damage)) => {
            let parts = parts.into_iter().filter_map(|part| part.into_inner().ok()).collect();
            Ok(Some(Judged { run, parts, damage }))
        }
        Err(Stop::Failed(failure)) => Err(failure),
        Err(Stop::Apart(frame, why)) => {
            anstream::eprintln!("note: --workers: one worker judges everything, because {why}");
            outlet.begin_anew(frame, &replay.policy);
            Ok(None)
        }
    }
}

/// The workers, seen from the thread that reads.
struct Team<'a, 'p> {
    run: Run<'a>,
    parts: &'p [Mutex<Part>],
    channels: Vec<(Sender<Arc<Task>>, Receiver<Findings>)>,
    steering: Steering,
    under_way: VecDeque<Arc<Task>>,
    /// Batches for use again.
    spare: Vec<Batch>,
    /// Flows that may be tracked at once without any interface being short of places.
    places: usize,
    /// By interface index: the router's answers.
    limits: Vec<RateLimit>,
    /// Judges nothing: it knows the rules that admitted flows by the numbers that all judges use.
    names: Judge,
}

impl Team<'_, '_> {
    /// Judges all captures; what is damaged, if anything is.
    fn judge_all(&mut self, outlet: &mut Outlet<'_>) -> Result<Result<(), CaptureError>, Stop> {
        for capture in &self.run.replay.captures {
            let mut opened = match capture.open() {
                Ok(opened) => opened,
                Err(error) => return Ok(Err(error)),
            };
            self.run.begin(&opened, outlet);
            let mut number = 1;
            let end = loop {
                let mut batch = self.spare.pop().unwrap_or_default();
                match opened.reader.next_batch(&mut batch, BATCH) {
                    Ok(()) if batch.is_empty() => break Ok(()),
                    Ok(()) => {}
                    Err(error) => break Err(error),
                }
                let batch = Arc::new(batch);
                number = self.hand_out(&batch, number, outlet)?;
                opened.show_progress();
            };
            self.end_capture(outlet)?;
            if end.is_err() {
                return Ok(end);
            }
        }
        Ok(Ok(()))
    }

    /// Hands a batch to all workers, in pieces where the policy changes. `number` is that of its
    /// first frame; the next one's comes back.
    fn hand_out(
        &mut self,
        batch: &Arc<Batch>,
        number: u64,
        outlet: &mut Outlet<'_>,
    ) -> Result<u64, Stop> {
        let mut ways = Vec::with_capacity(batch.len());
        let mut start = 0;
        for (here, packet) in batch.iter().enumerate() {
            while let Some(change) = self.run.changes.due(packet.time) {
                self.hand_out_piece(batch, start..here, &mut ways, number, outlet)?;
                start = here;
                self.wait(outlet)?;
                self.change_policy(change, &packet, outlet)?;
            }
            match self.steering.way(&frame_input(0, &packet)) {
                Some(way) => ways.push(way),
                None => {
                    self.hand_out_piece(batch, start..here, &mut ways, number, outlet)?;
                    self.wait(outlet)?;
                    return Err(Stop::Apart(self.run.frames, NO_WAY));
                }
            }
        }
        self.hand_out_piece(batch, start..batch.len(), &mut ways, number, outlet)?;
        Ok(number + batch.len() as u64)
    }

    fn hand_out_piece(
        &mut self,
        batch: &Arc<Batch>,
        packets: Range<usize>,
        ways: &mut Vec<Way>,
        number: u64,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Stop> {
        if packets.is_empty() {
            return Ok(());
        }
        if self.under_way.len() >= AHEAD {
            self.collect(outlet)?;
        }
        let first = self.run.frames;
        self.run.frames += packets.len() as u64;
        let task = Arc::new(Task {
            batch: Arc::clone(batch),
            number: number + packets.start as u64,
            packets,
            ways: ways.drain(..).collect(),
            first,
            capture: outlet.capture(),
        });
        for (worker, _) in &self.channels {
            // A worker that is gone is noticed when its findings are asked for.
            let _ = worker.send(Arc::clone(&task));
        }
        self.under_way.push_back(task);
        Ok(())
    }

    /// Takes what the workers found in the oldest task under way.
    fn collect(&mut self, outlet: &mut Outlet<'_>) -> Result<(), Stop> {
        let Some(task) = self.under_way.pop_front() else { return Ok(()) };
        let findings = self.channels.iter().map(|(_, findings)| findings.recv());
        let Ok(findings) = findings.collect::<Result<Vec<_>, _>>() else {
            return Err(Failure::Io("a worker of the replay failed".into()).into());
        };
        if let Some(why) = self.apart(&findings) {
            return Err(Stop::Apart(task.first, why));
        }
        self.put_out(&task, &findings, outlet)?;
        if let Some(task) = Arc::into_inner(task)
            && let Some(batch) = Arc::into_inner(task.batch)
        {
            self.spare.push(batch);
        }
        Ok(())
    }

    /// Waits until nothing is under way.
    fn wait(&mut self, outlet: &mut Outlet<'_>) -> Result<(), Stop> {
        while !self.under_way.is_empty() {
            self.collect(outlet)?;
        }
        Ok(())
    }

    /// Why one worker may have judged otherwise, if it may: see the module.
    fn apart(&mut self, findings: &[Findings]) -> Option<&'static str> {
        let most = |of: fn(&Findings) -> usize| -> usize {
            // A packet opens a flow on each of two sides at most.
            findings.iter().map(|found| of(found) + 2).sum()
        };
        if most(|found| found.flows) > self.places {
            return Some("the flow table may be full");
        }
        if most(|found| found.datagrams) > MAX_DATAGRAMS {
            return Some("there are many fragmented datagrams at once");
        }
        if findings.iter().any(|found| found.is_doubtful) {
            return Some("more dropped flows are to be remembered than may be");
        }
        let mut orphans: Vec<_> = findings.iter().flat_map(|found| &found.orphans).collect();
        orphans.sort_unstable();
        if orphans.windows(2).any(|pair| pair[0] == pair[1]) {
            return Some(ORPHANS);
        }
        let mut answers: Vec<_> = findings.iter().flat_map(|found| &found.answers).collect();
        answers.sort_by_key(|(frame, ..)| *frame);
        let mut is_allowed = |interface: usize, now| {
            self.limits.get_mut(interface).is_some_and(|limit| limit.allow(now))
        };
        let all = answers.into_iter().all(|&(_, interface, now)| is_allowed(interface, now));
        (!all).then_some("the router may not answer every packet that is too large")
    }

    /// Gives the findings of a task out, in order.
    fn put_out(
        &self,
        task: &Task,
        findings: &[Findings],
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Failure> {
        let mut next = vec![0; findings.len()];
        loop {
            let places = findings.iter().zip(&next).enumerate();
            let places =
                places.filter_map(|(of, (found, next))| Some((found.marks.get(*next)?.place, of)));
            let Some((_, of)) = places.min() else { return Ok(()) };
            let (found, at) = (&findings[of], next[of]);
            next[of] += 1;
            let before = at.checked_sub(1).and_then(|before| found.marks.get(before));
            let (text, kept) = before.map_or((0, 0), |mark| (mark.text, mark.kept));
            let mark = found.marks[at];
            if text < mark.text {
                outlet.text(&found.text[text..mark.text])?;
            }
            for kept in &found.kept[kept..mark.kept] {
                outlet.keep(&self.event(task, kept))?;
            }
        }
    }

    fn event<'e>(&'e self, task: &'e Task, kept: &'e Kept) -> Event<'e> {
        let data = match &kept.data {
            Data::Packet(at) => task.frame(*at).map_or(&[][..], |frame| frame.data),
            Data::Own(data) => data,
        };
        let admitted_by = match kept.judgement {
            Judgement::Verdict(verdict) => verdict.admitted_by,
            Judgement::Skip(_) => None,
        };
        Event {
            frame: FrameInput { data, ..kept.frame },
            headers: kept.headers.as_ref(),
            error: kept.error,
            side: kept.side,
            judgement: kept.judgement,
            admitted_by: admitted_by.and_then(|tag| self.names.pipeline().admitting_rule(tag)),
            is_final: kept.is_final,
            emitted: kept.emitted,
        }
    }

    fn change_policy(
        &mut self,
        change: Change,
        packet: &Packet<'_>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Failure> {
        let policy = Arc::clone(&change.policy);
        self.limits = vec![RateLimit::default(); policy.interfaces().len()];
        self.names.set_policy(policy, self.run.replay.attribution.clone());
        let mut parts = lock(self.parts, &self.steering)?;
        let mut parts: Vec<_> = parts.iter_mut().map(|part| &mut **part).collect();
        self.run.change_policy(change, packet, &mut parts, outlet)
    }

    /// Ends a capture. What was held in it is told of.
    fn end_capture(&mut self, outlet: &mut Outlet<'_>) -> Result<(), Stop> {
        self.wait(outlet)?;
        let mut parts = lock(self.parts, &self.steering)?;
        // Whose come first, none of several knows.
        if parts.iter().filter(|part| part.judge.is_holding()).count() > 1 {
            return Err(Stop::Apart(self.run.frames, ORPHANS));
        }
        for part in &mut parts {
            part.finish(self.run.frames, outlet)?;
        }
        self.run.frames += 1;
        Ok(())
    }
}

/// All parts, while nothing is under way, at the time of the latest frame.
fn lock<'p>(
    parts: &'p [Mutex<Part>],
    steering: &Steering,
) -> Result<Vec<MutexGuard<'p, Part>>, Failure> {
    let lock = |part: &'p Mutex<Part>| {
        let mut part = part.lock().ok()?;
        part.judge.set_clock(steering.clock());
        Some(part)
    };
    let parts: Option<Vec<_>> = parts.iter().map(lock).collect();
    parts.ok_or_else(|| Failure::Io("a worker of the replay failed".into()))
}

/// One worker: judges its frames of each task.
fn work(
    part: &Mutex<Part>,
    me: u16,
    orders: Orders,
    tasks: &Receiver<Arc<Task>>,
    findings: &Sender<Findings>,
) {
    for task in tasks {
        let Ok(mut part) = part.lock() else { return };
        let found = part.judge_task(&task, me, orders);
        drop(part);
        // First, so that the batch can be used again.
        drop(task);
        if findings.send(found).is_err() {
            return;
        }
    }
}

impl Part {
    fn judge_task(&mut self, task: &Task, me: u16, orders: Orders) -> Findings {
        let Part { judge, sums, ahead } = self;
        let policy = Arc::clone(judge.pipeline().policy());
        let mut found = Findings::default();
        // As many as make about as many of this worker's as one alone looks at.
        let together = TOGETHER * orders.workers;
        for (ways, start) in task.ways.chunks(together).zip((0..).step_by(together)) {
            let mine = ways.iter().zip(start..).filter(|(way, _)| way.worker == me);
            ahead.look(judge, mine.filter_map(|(_, at)| task.frame(at)));
            let mut seen = 0;
            for (way, at) in ways.iter().zip(start..) {
                let is_mine = way.worker == me;
                if !is_mine && !judge.is_holding() {
                    continue;
                }
                let Some(input) = task.frame(at) else { continue };
                let frame = task.first + at as u64;
                judge.set_clock(way.clock);
                let mut sink = |event: Event<'_>| {
                    sums.add(&event, frame);
                    let now = way.clock.now();
                    let at =
                        (event.emitted.is_none() && event.frame.token == input.token).then_some(at);
                    found.note(&event, (frame, now), at, (&policy, &task.capture), orders);
                };
                match is_mine {
                    true => {
                        let looked = ahead.get(seen);
                        seen += 1;
                        let Some((sight, probe)) = looked else { continue };
                        let plain = match orders.only_counts() {
                            true => judge.judge_plain_seen(input.time, input.data, sight, probe),
                            false => None,
                        };
                        match plain {
                            Some(plain) => {
                                sums.add_plain(&plain, sight.headers(), input.wire_len, frame);
                            }
                            None => judge.judge_seen(input, sight, Some(probe), &mut sink),
                        }
                    }
                    false => judge.advance(way.clock.now(), &mut sink),
                }
                let pipeline = judge.pipeline();
                found.flows = found.flows.max(pipeline.connections().len());
                found.datagrams = found.datagrams.max(pipeline.datagrams());
            }
        }
        found.is_doubtful = sums.is_doubtful(orders.by_pairs);
        found
    }
}

impl Findings {
    /// Notes an event that came with a frame at a time. `at`: the packet of the task that has its
    /// bytes, if one does.
    #[inline]
    fn note(
        &mut self,
        event: &Event<'_>,
        (frame, now): (u64, Timestamp),
        at: Option<usize>,
        (policy, capture): (&CompiledPolicy, &str),
        orders: Orders,
    ) {
        let place = Place::of(event, frame);
        if !place.is_own && self.orphans.last() != Some(&frame) {
            self.orphans.push(frame);
        }
        if let (Some(Emitted::Answer), Some((interface, _))) = (event.emitted, event.side) {
            self.answers.push((frame, interface, now));
        }
        let prints = orders.form.output != Output::Summary;
        if prints {
            // Memory takes all that is written.
            let _ = orders.form.print(&mut self.text, policy, event, capture);
        }
        if orders.keep {
            self.kept.push(Kept::of(event, at));
        }
        if orders.keep || prints {
            self.marks.push(Mark { place, text: self.text.len(), kept: self.kept.len() });
        }
    }
}

impl Kept {
    /// `packet`: the one of the task that has the frame's bytes.
    fn of(event: &Event<'_>, packet: Option<usize>) -> Self {
        let FrameInput { token, link, data, wire_len, time, decimals, recorded } = event.frame;
        Kept {
            frame: FrameInput { token, link, data: &[], wire_len, time, decimals, recorded },
            data: packet.map_or_else(|| Data::Own(data.into()), Data::Packet),
            headers: event.headers.copied(),
            error: event.error,
            side: event.side,
            judgement: event.judgement,
            is_final: event.is_final,
            emitted: event.emitted,
        }
    }
}
