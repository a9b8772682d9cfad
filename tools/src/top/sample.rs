//! What a running firewall tells of itself, at two moments, and what lies between them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sgwall_live::control::{Answer, Client, Request, TraceLine};
use sgwall_live::engine::Stats;

use super::replay::Replay;
use crate::ask;
use crate::failure::Failure;

/// Verdicts a second that are looked at for the flows and senders that have most.
const SAMPLED: u32 = 2000;
/// Flows that are counted at once; a newcomer takes the place of one that was seen least.
const MOST_FLOWS: usize = 4096;

/// Counters at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) stats: Stats,
}

/// Asks for the counters.
fn take(control: &Path) -> Result<Sample, Failure> {
    match ask::one(control, &Request::Stats)? {
        Answer::Stats(stats) => Ok(Sample { at: Instant::now(), stats }),
        _ => Err(Failure::Io("the firewall gave another answer than its counters".into())),
    }
}

/// Where samples come from.
pub(super) enum Source {
    /// A running firewall.
    Running {
        /// Its control socket.
        control: PathBuf,
        sampler: Sampler,
    },
    /// A capture that is judged as time passes.
    Replay(Box<Replay>),
}

impl Source {
    pub(super) fn running(control: &Path) -> Self {
        Source::Running { control: control.to_owned(), sampler: Sampler::new(control) }
    }

    /// The counters now.
    pub(super) fn take(&mut self) -> Result<Sample, Failure> {
        match self {
            Source::Running { control, .. } => take(control),
            Source::Replay(replay) => replay.take(),
        }
    }

    /// Begins to look at verdicts, if it has not begun.
    pub(super) fn start_sampling(&mut self) {
        if let Source::Running { sampler, .. } = self {
            sampler.start();
        }
    }

    /// Flows and senders by packets, most first, and how many verdicts that is of.
    pub(super) fn seen(&mut self) -> (Vec<Seen>, Vec<Seen>, u64) {
        match self {
            Source::Running { sampler, .. } => lock(&sampler.tally).take(),
            Source::Replay(replay) => replay.tally.take(),
        }
    }
}

/// Packets and bytes, in all and a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) packets: u64,
    pub(super) packets_rate: f64,
    pub(super) bytes_rate: f64,
}

/// A row of counters with its rate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) interface: String,
    pub(super) verdict: String,
    pub(super) reason: String,
    pub(super) rate: Rate,
}

/// What lies between two samples.
#[derive(Debug)]
pub(super) struct Interval<'a> {
    pub(super) now: &'a Stats,
    pub(super) rows: Vec<Row>,
    /// Rules that decided something, with their rate.
    pub(super) rules: Vec<(&'a sgwall_live::engine::RuleStats, f64)>,
    /// Flows opened a second.
    pub(super) opened: f64,
}

impl<'a> Interval<'a> {
    pub(super) fn between(before: Option<&Sample>, now: &'a Sample) -> Self {
        // A firewall that has begun anew counts from zero.
        let before = before.filter(|before| before.stats.uptime <= now.stats.uptime);
        let seconds = before.map_or(0.0, |before| now.at.duration_since(before.at).as_secs_f64());
        let rate = |now: u64, before: u64| match seconds > 0.0 {
            true => now.saturating_sub(before) as f64 / seconds,
            false => 0.0,
        };
        let mut earlier: HashMap<_, (u64, u64)> = HashMap::new();
        for row in before.iter().flat_map(|before| &before.stats.reasons) {
            earlier.insert((&row.interface, &row.verdict, &row.reason), (row.packets, row.bytes));
        }
        let rows = now.stats.reasons.iter().map(|row| {
            let key = (&row.interface, &row.verdict, &row.reason);
            let is_known = before.is_some();
            let (packets, bytes) = earlier.get(&key).copied().unwrap_or_default();
            Row {
                interface: row.interface.clone().unwrap_or_else(|| "-".to_owned()),
                verdict: row.verdict.clone(),
                reason: row.reason.clone(),
                rate: Rate {
                    packets: row.packets,
                    packets_rate: if is_known { rate(row.packets, packets) } else { 0.0 },
                    bytes_rate: if is_known { rate(row.bytes, bytes) } else { 0.0 },
                },
            }
        });
        let same_policy = before.filter(|before| before.stats.generation == now.stats.generation);
        let hits: HashMap<_, u64> = same_policy
            .iter()
            .flat_map(|before| &before.stats.rules)
            .map(|rule| ((&rule.direction, &rule.rule), rule.packets))
            .collect();
        let mut rules: Vec<_> = now
            .stats
            .rules
            .iter()
            .map(|rule| {
                let earlier = hits.get(&(&rule.direction, &rule.rule)).copied().unwrap_or(0);
                (rule, if same_policy.is_some() { rate(rule.packets, earlier) } else { 0.0 })
            })
            .collect();
        rules.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.packets.cmp(&a.0.packets)));
        let created = before.map_or(now.stats.flows_created, |before| before.stats.flows_created);
        Interval {
            now: &now.stats,
            rows: rows.collect(),
            rules,
            opened: rate(now.stats.flows_created, created),
        }
    }

    /// The sum of the rows that a verdict has, of one interface or of all.
    pub(super) fn sum(&self, verdict: &str, interface: Option<&str>) -> Rate {
        let rows = self.rows.iter().filter(|row| {
            row.verdict == verdict && interface.is_none_or(|interface| row.interface == interface)
        });
        rows.fold(Rate::default(), |sum, row| Rate {
            packets: sum.packets + row.rate.packets,
            packets_rate: sum.packets_rate + row.rate.packets_rate,
            bytes_rate: sum.bytes_rate + row.rate.bytes_rate,
        })
    }

    /// Every interface that has counted anything.
    pub(super) fn interfaces(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.rows.iter().map(|row| &row.interface[..]).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A flow or a sender as it was seen among sampled verdicts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) what: String,
    pub(super) passed: u64,
    pub(super) dropped: u64,
    pub(super) bytes: u64,
}

/// Verdicts that were looked at lately.
#[derive(Debug, Default)]
pub(super) struct Tally {
    flows: HashMap<String, Seen>,
    senders: HashMap<String, Seen>,
    verdicts: u64,
}

/// A thread that samples verdicts while somebody wants to see them.
pub(super) struct Sampler {
    control: PathBuf,
    tally: Arc<Mutex<Tally>>,
    is_running: bool,
}

impl Sampler {
    pub(super) fn new(control: &Path) -> Self {
        Sampler { control: control.to_owned(), tally: Arc::default(), is_running: false }
    }

    /// Begins to sample, if it has not begun.
    pub(super) fn start(&mut self) {
        if self.is_running {
            return;
        }
        self.is_running = true;
        let (control, tally) = (self.control.clone(), Arc::clone(&self.tally));
        // It ends with the program, or when the firewall does.
        thread::spawn(move || {
            let request = Request::Trace { filter: String::new(), rate: SAMPLED };
            loop {
                if let Ok(mut client) = Client::ask(&control, &request) {
                    while let Ok(Some(answer)) = client.next_answer() {
                        if let Answer::Trace(line) = answer {
                            lock(&tally).note_line(&line);
                        }
                    }
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Flows and senders by packets, most first, and how many verdicts that is of. What was seen is
    /// halved, so that the past fades.
    fn take(&mut self) -> (Vec<Seen>, Vec<Seen>, u64) {
        let by_packets = |seen: &HashMap<String, Seen>| {
            let mut seen: Vec<_> = seen.values().cloned().collect();
            let packets = |seen: &Seen| seen.passed + seen.dropped;
            seen.sort_by(|a, b| packets(b).cmp(&packets(a)).then_with(|| a.what.cmp(&b.what)));
            seen
        };
        let answer = (by_packets(&self.flows), by_packets(&self.senders), self.verdicts);
        self.fade();
        answer
    }

    fn note_line(&mut self, line: &TraceLine) {
        let (Some(src), Some(dst)) = (line.src, line.dst) else { return };
        let end = |addr: std::net::IpAddr, port: Option<u16>| match (addr, port) {
            (std::net::IpAddr::V6(v6), Some(port)) => format!("[{v6}]:{port}"),
            (addr, Some(port)) => format!("{addr}:{port}"),
            (addr, None) => addr.to_string(),
        };
        let flow = format!(
            "{} {} -> {}",
            line.protocol.as_deref().unwrap_or("-"),
            end(src, line.src_port),
            end(dst, line.dst_port)
        );
        self.note(flow, src.to_string(), line.verdict == "pass", line.length.into());
    }

    pub(super) fn note(&mut self, flow: String, sender: String, passed: bool, bytes: u64) {
        self.verdicts += 1;
        for (seen, what) in [(&mut self.flows, flow), (&mut self.senders, sender)] {
            if seen.len() >= MOST_FLOWS && !seen.contains_key(&what) {
                seen.retain(|_, seen| seen.passed + seen.dropped > 1);
                if seen.len() >= MOST_FLOWS {
                    continue;
                }
            }
            let entry = seen
                .entry(what)
                .or_insert_with_key(|what| Seen { what: what.clone(), ..Seen::default() });
            match passed {
                true => entry.passed += 1,
                false => entry.dropped += 1,
            }
            entry.bytes += bytes;
        }
    }

    fn fade(&mut self) {
        for seen in [&mut self.flows, &mut self.senders] {
            for seen in seen.values_mut() {
                (seen.passed, seen.dropped) = (seen.passed / 2, seen.dropped / 2);
                seen.bytes /= 2;
            }
            seen.retain(|_, seen| seen.passed + seen.dropped > 0);
        }
        self.verdicts /= 2;
    }
}
