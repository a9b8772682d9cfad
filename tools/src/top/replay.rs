//! A capture to look at as if it happened now: judged packet by packet as its time passes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sgwall_dataplane::{Event, Judge, Judgement, Pipeline};
use sgwall_live::counting::Counting;
use sgwall_live::engine::Stats;
use sgwall_netio::capture::{self, Batch, Reader};
use sgwall_packet::{FiveTuple, Timestamp};
use sgwall_rules::compile::Generation;
use sgwall_rules::model::protocol_name;

use super::sample::{Sample, Tally};
use crate::cli::TrafficArgs;
use crate::failure::Failure;
use crate::found::is_last_word;
use crate::policy::Loaded;
use crate::traffic::{attribution, frame_input};

/// Bytes that are read at once.
const BATCH: usize = 256 << 10;

/// See the module.
pub(super) struct Replay {
    reader: Reader<'static>,
    batch: Batch,
    /// The next packet of the batch, and its frame's number.
    next: usize,
    number: u64,
    judge: Judge,
    policy: Loaded,
    max_flows: usize,
    /// When it began here, and the time of its first packet.
    began: Instant,
    first: Option<Timestamp>,
    /// How much faster than it happened.
    speed: f64,
    pub(super) tally: Tally,
}

impl Replay {
    pub(super) fn open(
        path: &Path,
        policy: &[PathBuf],
        traffic: &TrafficArgs,
        speed: f64,
    ) -> Result<Self, Failure> {
        let policy = Loaded::load(policy, Generation(0))?;
        let attribution = attribution(traffic, &policy.compiled)?;
        let pipeline = Pipeline::new(policy.compiled.clone(), traffic.table.config());
        Ok(Replay {
            reader: capture::open(path)?,
            batch: Batch::default(),
            next: 0,
            number: 0,
            judge: Judge::new(pipeline, attribution).with_offload(traffic.offload),
            policy,
            max_flows: traffic.table.max_flows,
            began: Instant::now(),
            first: None,
            speed,
            tally: Tally::default(),
        })
    }

    /// Judges what has come by now; the counters.
    pub(super) fn take(&mut self) -> Result<Sample, Failure> {
        let passed = self.began.elapsed().mul_f64(self.speed);
        self.judge_until(passed)?;
        let mut stats = Stats { uptime: passed.as_secs(), ..self.stats() };
        let mut counting = Counting::new(&self.policy.compiled);
        counting.add(self.judge.pipeline(), true, &mut stats);
        counting.finish(&mut stats);
        // Rates are of the capture's time.
        Ok(Sample { at: self.began + passed, stats })
    }

    fn stats(&self) -> Stats {
        Stats {
            generation: 0,
            uptime: 0,
            workers: 1,
            flows: 0,
            max_flows: self.max_flows as u64,
            flows_created: 0,
            flows_refused: 0,
            flows_evicted: 0,
            full_table: String::new(),
            interfaces: Vec::new(),
            flow_log_skipped: None,
            reasons: Vec::new(),
            rules: Vec::new(),
            ports: Vec::new(),
        }
    }

    fn judge_until(&mut self, passed: Duration) -> Result<(), Failure> {
        loop {
            let Some(packet) = self.batch.get(self.next) else {
                self.reader.next_batch(&mut self.batch, BATCH)?;
                self.next = 0;
                if self.batch.is_empty() {
                    return Ok(());
                }
                continue;
            };
            let first = *self.first.get_or_insert(packet.time);
            if packet.time.since(first) > passed {
                return Ok(());
            }
            self.number += 1;
            let frame = frame_input(self.number, &packet);
            let tally = &mut self.tally;
            self.judge.judge(frame, &mut |event| note(tally, &event));
            self.next += 1;
        }
    }
}

fn note(tally: &mut Tally, event: &Event<'_>) {
    let (Judgement::Verdict(verdict), Some(headers)) = (event.judgement, event.headers) else {
        return;
    };
    if is_last_word(event) {
        let tuple = FiveTuple::from(headers);
        let flow = format!("{} {tuple}", protocol_name(tuple.protocol));
        let bytes = event.frame.wire_len.into();
        tally.note(flow, tuple.src.to_string(), verdict.is_pass(), bytes);
    }
}
