//! The flow log of the live firewall: counted where packets are judged, written elsewhere.
//!
//! A shard has a [`Recorder`], under the lock that its worker holds anyway; a packet costs one
//! look-up in a table. When a window ends it goes whole through a bounded queue to the [`Merger`],
//! on the thread of whoever writes. No packet ever waits for that: what is not yet written takes
//! room that new records then do not find, and a window that the queue has no place for is taken
//! back. Either way the packets are counted as skipped, and lines `SKIPDATA` say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use sgwall_dataplane::Event;
use sgwall_dataplane::counters::Tally;
use sgwall_dataplane::flow_log::{ClosedWindow, Config, FlowLog, Room};
use sgwall_packet::Timestamp;
use sgwall_rules::compile::CompiledPolicy;

/// Windows of each shard that may wait to be written.
const WAITING_PER_SHARD: usize = 16;
/// How long after its end a window waits for shards that have not handed theirs over, seconds.
/// They do within a tenth of one, unless the queue was full.
const GRACE: i64 = 5;

/// The flow log of one shard.
#[derive(Debug)]
pub(crate) struct Recorder {
    log: FlowLog,
    windows: Sender<ClosedWindow>,
}

/// The recorders of all shards, and where their windows come out. `config.max_records` is of all
/// together.
pub(crate) fn recorders(
    policy: &Arc<CompiledPolicy>,
    config: &Config,
    shards: usize,
) -> (Vec<Recorder>, Merger) {
    let (windows, received) = bounded(shards * WAITING_PER_SHARD);
    let room = Arc::new(Room::new(config.max_records));
    let recorder = |_| Recorder {
        log: FlowLog::sharing(Arc::clone(policy), config.clone(), Arc::clone(&room)),
        windows: windows.clone(),
    };
    let recorders = (0..shards).map(recorder).collect();
    (recorders, Merger { shards, received, waiting: BTreeMap::new() })
}

impl Recorder {
    /// Lets time pass: windows that have ended go on their way.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let Recorder { log, windows } = self;
        log.advance_whole(now, &mut |log, window| hand_over(windows, log, window));
    }

    /// Counts an event's packet.
    pub(crate) fn count(&mut self, event: &Event<'_>) {
        self.log.count_event(event);
    }

    pub(crate) fn set_policy(&mut self, policy: Arc<CompiledPolicy>) {
        self.log.set_policy(policy);
    }

    /// Ends the open window early, and the log.
    pub(crate) fn finish(mut self, now: Timestamp) -> Tally {
        let Recorder { log, windows } = &mut self;
        log.finish_whole(now, &mut |log, window| hand_over(windows, log, window));
        log.skipped()
    }

    /// What is in no record.
    pub(crate) fn skipped(&self) -> Tally {
        self.log.skipped()
    }
}

fn hand_over(windows: &Sender<ClosedWindow>, log: &mut FlowLog, window: ClosedWindow) {
    if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) =
        windows.try_send(window)
    {
        log.take_back(&lost);
    }
}

/// Puts the windows of all shards together.
#[derive(Debug)]
pub struct Merger {
    shards: usize,
    received: Receiver<ClosedWindow>,
    /// By their beginning.
    waiting: BTreeMap<i64, Vec<ClosedWindow>>,
}

impl Merger {
    /// The windows of all shards that began together and have ended at `now`, for
    /// [`sgwall_dataplane::flow_log::write_windows`]; the earliest first. `None`: none now.
    #[must_use]
    pub fn take(&mut self, now: Timestamp) -> Option<Vec<ClosedWindow>> {
        self.receive();
        let earliest = self.waiting.first_entry()?;
        let parts = earliest.get();
        let until = parts.iter().map(ClosedWindow::until).max().unwrap_or_default();
        let is_due = now > Timestamp::from_secs(until.saturating_add(GRACE));
        (parts.len() >= self.shards || is_due).then(|| earliest.remove())
    }

    /// The earliest windows that are left, whole or not: for the end of the log.
    #[must_use]
    pub fn take_left(&mut self) -> Option<Vec<ClosedWindow>> {
        self.receive();
        self.waiting.pop_first().map(|(_, windows)| windows)
    }

    fn receive(&mut self) {
        for window in self.received.try_iter() {
            self.waiting.entry(window.start()).or_default().push(window);
        }
    }
}
