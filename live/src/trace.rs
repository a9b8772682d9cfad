//! Verdicts shown while they happen, to whoever asks, without holding up packets.
//!
//! A worker that finds tracing off reads one flag a batch. With it on, it copies what passes the
//! filter into a bounded queue and, when that is full, counts what it could not show.

use std::net::IpAddr;
use std::sync::Arc;

use sgwall_dataplane::{Event, Judgement, Verdict};
use sgwall_packet::{Direction, FiveTuple, IcmpInfo, Timestamp, Transport};
use sgwall_rules::compile::Generation;

use crate::filter::Filter;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Queue, Slot};

/// Records that wait to be read; more are lost, and counted.
const QUEUE: usize = 4096;

/// One verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the packet came.
    pub time: Timestamp,
    /// Index of the interface that judged it, and the way it went; `None`: it concerns none.
    pub side: Option<(usize, Direction)>,
    /// Its five-tuple, if it is an IP packet that could be read.
    pub tuple: Option<FiveTuple>,
    /// Its ICMP message, if it is one.
    pub icmp: Option<IcmpInfo>,
    /// Bytes of the frame.
    pub length: u32,
    /// What became of it.
    pub verdict: Verdict,
    /// The policy whose rule and interface the numbers mean.
    pub generation: Generation,
}

/// Shows verdicts.
#[derive(Debug)]
pub struct Tracer {
    is_on: AtomicBool,
    filter: Slot<Option<Arc<Filter>>>,
    queue: Queue<Record>,
    lost: AtomicU64,
}

impl Default for Tracer {
    fn default() -> Self {
        Tracer {
            is_on: AtomicBool::new(false),
            filter: Slot::new(None),
            queue: Queue::new(QUEUE),
            lost: AtomicU64::new(0),
        }
    }
}

impl Tracer {
    /// Starts to show what passes `filter`; what an earlier reader left is gone.
    pub fn start(&self, filter: Filter) {
        self.stop();
        self.filter.store(Some(Arc::new(filter)));
        self.is_on.store(true, Ordering::Release);
    }

    /// Stops.
    pub fn stop(&self) {
        self.is_on.store(false, Ordering::Release);
        while self.queue.pop().is_some() {}
        self.lost.store(0, Ordering::Relaxed);
    }

    /// The next record, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<Record> {
        loop {
            let record = self.queue.pop()?;
            // A worker may have gone on for a batch by the filter of an earlier reader.
            if self.filter.load_full().is_some_and(|filter| filter.passes_record(&record)) {
                return Some(record);
            }
        }
    }

    /// Records lost since last asked, because nobody read them in time.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// The filter, if anybody watches.
    pub(crate) fn watching(&self) -> Option<Arc<Filter>> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        self.filter.load_full()
    }

    /// Shows an event, if it passes the filter.
    pub(crate) fn show(&self, filter: &Filter, event: &Event<'_>, generation: Generation) {
        let Judgement::Verdict(verdict) = event.judgement else { return };
        let tuple = event.headers.map(FiveTuple::from);
        let record = Record {
            time: event.frame.time,
            side: event.side,
            tuple,
            icmp: event.headers.and_then(|headers| match headers.transport {
                Transport::Icmp(icmp) => Some(icmp),
                _ => None,
            }),
            length: event.frame.wire_len,
            verdict,
            generation,
        };
        if filter.passes_record(&record) && self.queue.push(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Record {
    /// Its addresses, if it has any.
    #[must_use]
    pub fn ends(&self) -> Option<(IpAddr, IpAddr)> {
        self.tuple.map(|tuple| (tuple.src, tuple.dst))
    }
}
