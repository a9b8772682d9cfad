//! A window that has ended, whole: to be written later, and elsewhere than where packets are judged.
//!
//! Handing one over costs the same whatever the number of its records.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::{Content, FlowLogRecord, LoggedInterface};
use super::room::Taken;
use super::window::OpenRecord;
use crate::counters::Tally;

/// A window of one log that has ended. Times are whole seconds since the epoch.
#[derive(Debug)]
pub struct ClosedWindow {
    pub(super) start: i64,
    pub(super) since: i64,
    pub(super) until: i64,
    pub(super) interfaces: Vec<WindowInterface>,
    pub(super) records: Vec<OpenRecord>,
    /// The records' places, free again once the window is dropped.
    pub(super) _taken: Taken,
}

/// What a window knows of an interface.
#[derive(Debug)]
pub(super) struct WindowInterface {
    pub(super) interface: Arc<LoggedInterface>,
    /// Whether the policy in force had it.
    pub(super) is_current: bool,
    /// Whether there was traffic that could be logged, selected or not.
    pub(super) has_traffic: bool,
    /// What was not recorded, for want of room.
    pub(super) skipped: Tally,
}

impl ClosedWindow {
    /// When it began: a multiple of the interval. Windows of several logs that began together are
    /// one.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The last second that it was watched.
    #[must_use]
    pub fn until(&self) -> i64 {
        self.until
    }

    /// How many records of flows it has.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// The packets of its records, by interface.
    pub(super) fn packets(&self) -> Vec<Tally> {
        let mut sums: Vec<_> = self.interfaces.iter().map(|_| Tally::default()).collect();
        for record in &self.records {
            if let Some(sum) = sums.get_mut(record.slot as usize) {
                *sum = sum.plus(record.logged.sum);
            }
        }
        sums
    }
}

/// Hands out the records of windows that began together, as of one: those of flows log by log, in
/// the order of their first packets, then one line at most for each interface that had no traffic
/// in any of them, or was skipped.
pub fn write_windows(windows: &[ClosedWindow], sink: &mut impl FnMut(&FlowLogRecord<'_>)) {
    let since = windows.iter().map(|window| window.since).min().unwrap_or_default();
    let until = windows.iter().map(|window| window.until).max().unwrap_or_default();
    let mut interfaces: Vec<(&LoggedInterface, bool, bool, Tally)> = Vec::new();
    let mut place_of: HashMap<&str, usize> = HashMap::new();
    for window in windows {
        for record in &window.records {
            let OpenRecord { slot, start, end, logged } = record;
            if let Some(WindowInterface { interface, .. }) = window.interfaces.get(*slot as usize) {
                let (start, end) = (*start, *end);
                sink(&FlowLogRecord { interface, start, end, content: Content::Flow(logged) });
            }
        }
        for WindowInterface { interface, is_current, has_traffic, skipped } in &window.interfaces {
            let place = *place_of.entry(&interface.id).or_insert(interfaces.len());
            match interfaces.get_mut(place) {
                None => interfaces.push((interface, *is_current, *has_traffic, *skipped)),
                Some((_, current, traffic, sum)) => {
                    *current |= is_current;
                    *traffic |= has_traffic;
                    *sum = sum.plus(*skipped);
                }
            }
        }
    }
    for (interface, is_current, has_traffic, skipped) in interfaces {
        let content = match skipped.packets {
            0 if has_traffic || !is_current => continue,
            0 => Content::NoData,
            _ => Content::SkipData(skipped),
        };
        sink(&FlowLogRecord { interface, start: since, end: until, content });
    }
}
