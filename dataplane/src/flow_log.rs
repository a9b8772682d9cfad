//! Flow logs as Amazon VPC writes them (SEMANTICS section 15): who talked to whom, how much, and
//! whether it passed, a record for each flow and window.
//!
//! A [`FlowLog`] is fed with the events of a [`crate::Judge`] and hands out a record when its
//! window has ended. A record stands for one five-tuple of one interface in one direction with
//! one action, so a flow that passed and was refused in one window has two. What is not logged is
//! decided in `record.rs`; but the router's address is asked for here, when a record would begin,
//! so that packets of known flows need not ask.
//!
//! Windows begin at multiples of the interval since the epoch. AWS does not say where its own
//! begin; aligned ones are the same for every interface, run and worker, so that their records
//! can be added up. Time comes with the packets and may step back: what comes late by no more
//! than an interval counts in the open window, as if it had come with its first second; an older
//! packet ends the open window and begins its own, for it is of another recording.
//!
//! Memory is bounded by the records of a window, or by a [`Room`] that several logs share. A flow
//! beyond is not recorded but counted, and its interface gets a `SKIPDATA` record.
//!
//! Whoever must not wait for lines to be written takes windows whole, as [`ClosedWindow`]s, and
//! writes those of several logs as one with [`write_windows`].

mod closed;
mod format;
mod record;
mod room;
mod window;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use sgwall_packet::{Direction, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, RuleInfo, Service};

use self::closed::WindowInterface;
pub use self::closed::{ClosedWindow, write_windows};
pub use self::format::{Field, Format, FormatError, Line};
pub use self::record::{Action, Content, FlowLogRecord, LoggedFlow, LoggedInterface};
use self::record::{LoggedPacket, traffic_path};
pub use self::room::Room;
use self::room::Taken;
use self::window::{Key, OpenRecord, OpenRecords};
use crate::counters::Tally;
use crate::judge::Event;
use crate::verdict::{DropReason, Outcome};

/// Windows without a packet that get records of their own, one after the other: a day of ten
/// minutes each. The rest of so long a silence is one record for each interface, because captures
/// may jump by years.
const MAX_IDLE_WINDOWS: i64 = 144;

/// What a flow log is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Length of a window.
    pub interval: Interval,
    /// Which traffic is recorded.
    pub traffic: Traffic,
    /// The fields that are wanted: what costs something is left out of records otherwise.
    pub fields: Format,
    /// Records of one window at once, at most 2^32 - 1; flows beyond are counted as skipped.
    pub max_records: usize,
    /// Ids of the interfaces that are logged; `None`: all of the policy.
    pub only: Option<Vec<String>>,
    /// Seed of the hash table: random for each process, so that no sender can aim at a bucket.
    pub hash_seed: [u64; 4],
}

/// The length of a window, one of the two that AWS has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interval {
    /// 60 seconds.
    Minute,
    /// 600 seconds, AWS's default.
    #[default]
    TenMinutes,
}

impl Interval {
    /// The interval of so many seconds.
    ///
    /// # Errors
    /// It is neither 60 nor 600 (SEMANTICS section 16).
    pub const fn from_secs(seconds: u32) -> Result<Self, InvalidInterval> {
        match seconds {
            60 => Ok(Interval::Minute),
            600 => Ok(Interval::TenMinutes),
            _ => Err(InvalidInterval(seconds)),
        }
    }

    /// Its length in seconds.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        match self {
            Interval::Minute => 60,
            Interval::TenMinutes => 600,
        }
    }
}

/// An interval that AWS does not have, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidInterval(pub u32);

impl fmt::Display for InvalidInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0;
        write!(f, "InvalidParameter: an aggregation interval of {seconds} s; it is 60 or 600")
    }
}

impl std::error::Error for InvalidInterval {}

/// Which traffic is recorded (SEMANTICS 15.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// What passed.
    Accept,
    /// What was refused.
    Reject,
    /// Both.
    #[default]
    All,
}

impl Traffic {
    const fn includes(self, action: Action) -> bool {
        match self {
            Traffic::Accept => matches!(action, Action::Accept),
            Traffic::Reject => matches!(action, Action::Reject),
            Traffic::All => true,
        }
    }
}

/// A flow log in the making.
#[derive(Debug)]
pub struct FlowLog {
    config: Config,
    policy: Arc<CompiledPolicy>,
    /// Interfaces by a number that outlives a policy; each ever logged has its slot.
    slots: Vec<Slot>,
    slot_of_id: HashMap<String, u32>,
    /// By interface index: its slot, if it is logged.
    by_index: Vec<Option<u32>>,
    records: OpenRecords,
    window: Option<Window>,
    skipped: Tally,
    /// What the open records have of the room that logs share.
    taken: Taken,
}

#[derive(Debug)]
struct Slot {
    interface: Arc<LoggedInterface>,
    /// Whether the policy in force has the interface.
    is_current: bool,
    /// Whether there was traffic in the window that could be logged, selected or not.
    has_traffic: bool,
    /// What was not recorded in the window, for want of room.
    skipped: Tally,
}

/// The open window. Times are whole seconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// A multiple of the interval.
    start: i64,
    /// Since when it was watched.
    since: i64,
    /// The last time seen.
    latest: i64,
}

impl FlowLog {
    /// An empty log of `policy`'s interfaces. Its first window opens at the first time it sees.
    #[must_use]
    pub fn new(policy: Arc<CompiledPolicy>, config: Config) -> Self {
        let mut log = FlowLog {
            records: OpenRecords::new(config.hash_seed),
            config: Config { max_records: config.max_records.min(u32::MAX as usize), ..config },
            policy: Arc::clone(&policy),
            slots: Vec::new(),
            slot_of_id: HashMap::new(),
            by_index: Vec::new(),
            window: None,
            skipped: Tally::default(),
            taken: Taken::default(),
        };
        log.set_policy(policy);
        log
    }

    /// An empty log whose records take their places in `room`, which other logs share.
    #[must_use]
    pub fn sharing(policy: Arc<CompiledPolicy>, config: Config, room: Arc<Room>) -> Self {
        FlowLog { taken: Taken::of(room), ..FlowLog::new(policy, config) }
    }

    /// Replaces the policy, together with the pipeline's: events name interfaces and rules by
    /// their place in it. Open records stay.
    pub fn set_policy(&mut self, policy: Arc<CompiledPolicy>) {
        self.slots.iter_mut().for_each(|slot| slot.is_current = false);
        self.by_index.clear();
        for compiled in policy.interfaces() {
            // EC2-Classic has no flow logs (SEMANTICS 14.3).
            let is_wanted = self.config.only.as_ref().is_none_or(|ids| ids.contains(&compiled.id));
            let is_logged = is_wanted && !compiled.is_classic();
            self.by_index.push(is_logged.then(|| {
                let next = self.slots.len() as u32;
                let number = *self.slot_of_id.entry(compiled.id.clone()).or_insert(next);
                let interface = Arc::new(LoggedInterface::from(compiled));
                match self.slots.get_mut(number as usize) {
                    Some(slot) => (slot.interface, slot.is_current) = (interface, true),
                    None => self.slots.push(Slot::new(interface)),
                }
                number
            }));
        }
        self.policy = policy;
    }

    /// The format it was made with.
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.config.fields
    }

    /// What was not recorded since the log was made: there was no room for it, or its window was
    /// [taken back](Self::take_back).
    #[must_use]
    pub fn skipped(&self) -> Tally {
        self.skipped
    }

    /// Counts an event's packet in its record, if it is one that is logged. Records of windows
    /// that its time has ended come first.
    #[inline]
    pub fn record(&mut self, event: &Event<'_>, sink: &mut impl FnMut(&FlowLogRecord<'_>)) {
        self.advance(event.frame.time, sink);
        self.count_event(event);
    }

    /// Counts an event's packet in its record, if it is one that is logged, in the open window,
    /// whatever the packet's time: for whoever [lets time pass](Self::advance_whole) first.
    #[inline]
    pub fn count_event(&mut self, event: &Event<'_>) {
        if let (Some(packet), Some(window)) = (LoggedPacket::of(event), self.window) {
            self.count(&packet, event, seconds(event.frame.time).max(window.start));
        }
    }

    /// Lets time pass: hands out the records of every window that has ended at `now`.
    #[inline]
    pub fn advance(&mut self, now: Timestamp, sink: &mut impl FnMut(&FlowLogRecord<'_>)) {
        if !self.is_in_window(now) {
            self.move_to(seconds(now), &mut |log, window| log.write(window, sink));
        }
    }

    /// Lets time pass: hands out every window that has ended at `now`, unwritten.
    #[inline]
    pub fn advance_whole(
        &mut self,
        now: Timestamp,
        sink: &mut impl FnMut(&mut Self, ClosedWindow),
    ) {
        if !self.is_in_window(now) {
            self.move_to(seconds(now), sink);
        }
    }

    /// Ends the log at `now`: hands out what is left. The open window ends early.
    pub fn finish(&mut self, now: Timestamp, sink: &mut impl FnMut(&FlowLogRecord<'_>)) {
        self.finish_whole(now, &mut |log, window| log.write(window, sink));
    }

    /// As [`Self::finish`], unwritten.
    pub fn finish_whole(&mut self, now: Timestamp, sink: &mut impl FnMut(&mut Self, ClosedWindow)) {
        if self.window.is_some_and(|window| seconds(now) > window.latest) {
            self.advance_whole(now, sink);
        }
        if let Some(window) = self.window.take() {
            self.close(window.start, window.since, window.latest, sink);
        }
    }

    /// Takes back a window of this log that nobody will write: its packets count as skipped, and
    /// the next window of their interfaces says so.
    pub fn take_back(&mut self, window: &ClosedWindow) {
        let lost = window.interfaces.iter().zip(window.packets());
        for (slot, (interface, lost)) in self.slots.iter_mut().zip(lost) {
            slot.skipped = slot.skipped.plus(lost).plus(interface.skipped);
            // What was skipped in it is in the sum of all already.
            self.skipped = self.skipped.plus(lost);
        }
    }

    /// Whether a time belongs to the open window; if so, it is noted.
    #[inline]
    fn is_in_window(&mut self, now: Timestamp) -> bool {
        let (now, interval) = (seconds(now), self.config.interval.as_secs());
        match &mut self.window {
            Some(window) if (window.start..window.start + interval).contains(&now) => {
                window.since = window.since.min(now);
                window.latest = window.latest.max(now);
                true
            }
            // Late, but of this recording.
            Some(window) => (window.start - interval..window.start).contains(&now),
            None => false,
        }
    }

    /// Hands out the records of a window, and keeps its memory for the next.
    fn write(&mut self, window: ClosedWindow, sink: &mut impl FnMut(&FlowLogRecord<'_>)) {
        write_windows(std::slice::from_ref(&window), sink);
        self.records.reuse(window.records);
    }

    /// Counts a packet at a second of the open window.
    #[inline]
    fn count(&mut self, packet: &LoggedPacket, event: &Event<'_>, second: i64) {
        let Some(&Some(number)) = self.by_index.get(packet.interface) else { return };
        match self.records.get_mut(&Key::of(number, packet)) {
            Some(record) => record.add(packet, second),
            None => self.begin_record(number, packet, event, second),
        }
    }

    /// Counts the first packet of a record, if it is to have one.
    fn begin_record(&mut self, number: u32, packet: &LoggedPacket, event: &Event<'_>, second: i64) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(interface) = self.policy.interfaces().get(packet.interface) else { return };
        let remote = match packet.direction {
            Direction::Ingress => packet.flow.src,
            Direction::Egress => packet.flow.dst,
        };
        // The router's address is never logged (SEMANTICS 15.7), though the groups may filter it.
        if interface.service_address(&remote) == Some(Service::Router) {
            return;
        }
        slot.has_traffic = true;
        if !self.config.traffic.includes(packet.action) {
            return;
        }
        if self.records.len() >= self.config.max_records || !self.taken.take() {
            slot.skipped.add(packet.bytes);
            self.skipped.add(packet.bytes);
            return;
        }
        let wants = |field| self.config.fields.fields().contains(&field);
        let is_egress = packet.direction == Direction::Egress;
        let logged = LoggedFlow {
            flow: packet.flow,
            direction: packet.direction,
            action: packet.action,
            sum: Tally::default(),
            tcp_flags: 0,
            traffic_path: match is_egress && wants(Field::TrafficPath) {
                true => interface.route(&remote).and_then(|route| traffic_path(route.target)),
                false => None,
            },
            verdict: packet.verdict,
            rule: match wants(Field::Rule) {
                true => rule(&self.policy, packet, event.admitted_by),
                false => None,
            },
        };
        let mut record = OpenRecord { slot: number, start: second, end: second, logged };
        record.add(packet, second);
        self.records.insert(record);
    }

    /// Ends the open window, if any, because time has moved to `now`, and opens the window there.
    #[cold]
    fn move_to(&mut self, now: i64, sink: &mut impl FnMut(&mut Self, ClosedWindow)) {
        let interval = self.config.interval.as_secs();
        let start = now - now.rem_euclid(interval);
        let since = match self.window.take() {
            Some(ended) if now > ended.start => {
                self.close(ended.start, ended.since, ended.start + interval - 1, sink);
                self.idle(ended.start + interval, start, sink);
                start
            }
            Some(of_another_time) => {
                let Window { start, since, latest } = of_another_time;
                self.close(start, since, latest, sink);
                now
            }
            None => now,
        };
        self.window = Some(Window { start, since, latest: now });
    }

    /// Hands out the window that began at `start` and was watched from `since` to `until`.
    fn close(
        &mut self,
        start: i64,
        since: i64,
        until: i64,
        sink: &mut impl FnMut(&mut Self, ClosedWindow),
    ) {
        let interfaces = self.slots.iter_mut().map(|slot| WindowInterface {
            interface: Arc::clone(&slot.interface),
            is_current: slot.is_current,
            has_traffic: std::mem::take(&mut slot.has_traffic),
            skipped: std::mem::take(&mut slot.skipped),
        });
        let interfaces = interfaces.collect();
        let (records, taken) = (self.records.take(), self.taken.split());
        sink(self, ClosedWindow { start, since, until, interfaces, records, _taken: taken });
    }

    /// The windows from `from` up to `to`, in which nothing at all was seen.
    fn idle(&mut self, from: i64, to: i64, sink: &mut impl FnMut(&mut Self, ClosedWindow)) {
        let interval = self.config.interval.as_secs();
        let windows = ((to - from) / interval).min(MAX_IDLE_WINDOWS);
        for n in 0..windows {
            let start = from + n * interval;
            self.close(start, start, start + interval - 1, sink);
        }
        let rest = from + windows * interval;
        if rest < to {
            self.close(rest, rest, to - 1, sink);
        }
    }
}

impl Slot {
    fn new(interface: Arc<LoggedInterface>) -> Self {
        let skipped = Tally::default();
        Slot { interface, is_current: true, has_traffic: false, skipped }
    }
}

/// The rule that decided a packet, or else admitted its tracked flow: `sg-web/ingress-1`,
/// `acl-1/100`, `acl-1/*`.
fn rule(
    policy: &CompiledPolicy,
    packet: &LoggedPacket,
    admitted_by: Option<&RuleInfo>,
) -> Option<Box<str>> {
    let name = |rule: &RuleInfo| format!("{}/{}", rule.owner, rule.rule).into();
    if let Some(id) = packet.verdict.rule {
        return policy.rule(id).map(name);
    }
    if packet.verdict.outcome == Outcome::Drop(DropReason::AclNoMatch) {
        let acl = policy.interfaces().get(packet.interface)?.acl_id()?;
        return Some(format!("{acl}/*").into());
    }
    admitted_by.map(name)
}

/// Whole seconds since the epoch, rounded down.
#[inline]
const fn seconds(time: Timestamp) -> i64 {
    time.as_nanos().div_euclid(1_000_000_000)
}
