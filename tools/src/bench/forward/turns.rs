//! Contenders that take turns on the same devices, and what crossed in each turn.
//!
//! Two runs one after the other differ by more than a firewall costs: other buffers, other
//! placement, another minute of the machine. So all contenders have the same interfaces, the same
//! clients and the same connections, and what handles frames changes every tenth of a second or so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sgwall_netio::device::Frames;
use sgwall_netio::worker::{Handler, Output};
use sgwall_packet::Timestamp;

use super::measure::Measure;
use super::stats::median;

/// The part of a turn that does not count: what the one before it left in queues.
const SETTLING: u32 = 10;
/// Where the flags of a TCP segment are, in an Ethernet frame with an IPv4 header without options.
const TCP_FLAGS: usize = 47;

/// Who has which turn, and what crossed in it. Workers count; whoever measures reads.
#[derive(Debug)]
pub(super) struct Turns {
    begin: Timestamp,
    length: Duration,
    contenders: usize,
    counted: Box<[Counted]>,
}

/// What crossed from the client to the server in one turn.
#[derive(Debug, Default)]
struct Counted {
    frames: AtomicU64,
    bytes: AtomicU64,
    connections: AtomicU64,
}

impl Turns {
    /// Turns that begin at `begin`, each of `length`, enough for `whole`.
    pub(super) fn new(
        begin: Timestamp,
        length: Duration,
        whole: Duration,
        contenders: usize,
    ) -> Self {
        let count = whole.as_nanos().div_ceil(length.as_nanos().max(1));
        let counted = (0..count).map(|_| Counted::default()).collect();
        Turns { begin, length, contenders, counted }
    }

    /// The turn of a moment.
    fn at(&self, now: Timestamp) -> u64 {
        nanos(now.since(self.begin)) / nanos(self.length)
    }

    /// Who has a turn: in each round all, and whoever is first in one is last in the next.
    fn contender(&self, turn: u64) -> usize {
        let (round, place) = (turn / self.contenders as u64, turn % self.contenders as u64);
        let place = place as usize;
        if round.is_multiple_of(2) { place } else { self.contenders - 1 - place }
    }

    fn count(&self, now: Timestamp, frames: &Frames) {
        let turn = self.at(now);
        let is_settling =
            nanos(now.since(self.begin)) % nanos(self.length) < nanos(self.length / SETTLING);
        let Some(counted) = self.counted.get(turn as usize).filter(|_| !is_settling) else {
            return;
        };
        let (mut bytes, mut connections) = (0, 0);
        for frame in (0..frames.len()).map(|k| frames.bytes(k)) {
            bytes += frame.len() as u64;
            // SYN without ACK.
            connections += u64::from(frame.get(TCP_FLAGS).is_some_and(|flags| flags & 0x12 == 2));
        }
        counted.frames.fetch_add(frames.len() as u64, Ordering::Relaxed);
        counted.bytes.fetch_add(bytes, Ordering::Relaxed);
        counted.connections.fetch_add(connections, Ordering::Relaxed);
    }

    /// What crossed in each round that lies between two moments, by contender, in the measure's
    /// unit. Rounds at the edges in which clients were starting or ending are left out.
    pub(super) fn rounds(&self, measure: Measure, from: Timestamp, to: Timestamp) -> Vec<Vec<f64>> {
        let seconds = (self.length - self.length / SETTLING).as_secs_f64();
        let rate = |turn: u64| {
            let read = |counter: fn(&Counted) -> &AtomicU64| {
                let counted = self.counted.get(turn as usize);
                counted.map_or(0, |counted| counter(counted).load(Ordering::Relaxed)) as f64
            };
            let sum = match measure {
                Measure::OneStream | Measure::FourStreams => read(|c| &c.bytes) * 8.0 / 1e9,
                Measure::Datagrams => read(|c| &c.frames) / 1e3,
                Measure::Connections => read(|c| &c.connections) / 1e3,
            };
            sum / seconds
        };
        let contenders = self.contenders as u64;
        let whole_rounds = self.at(from) / contenders + 1..self.at(to) / contenders;
        let mut rounds: Vec<Vec<f64>> = whole_rounds
            .map(|round| {
                let mut rates = vec![0.0; self.contenders];
                for turn in round * contenders..(round + 1) * contenders {
                    rates[self.contender(turn)] = rate(turn);
                }
                rates
            })
            .collect();
        let slowest = |rates: &[f64]| rates.iter().copied().fold(f64::INFINITY, f64::min);
        let half = median(&rounds.iter().map(|rates| slowest(rates)).collect::<Vec<_>>()) / 2.0;
        let is_busy = |rates: &Vec<f64>| slowest(rates) > half;
        let last = rounds.iter().rposition(is_busy).map_or(0, |last| last + 1);
        rounds.truncate(last);
        let first = rounds.iter().position(is_busy).unwrap_or(last);
        rounds.drain(..first);
        rounds
    }
}

/// Whole nanoseconds, at least one; half a millennium at the most.
fn nanos(duration: Duration) -> u64 {
    (duration.as_nanos() as u64).max(1)
}

/// One worker's handlers of all contenders, of which one has its turn.
pub(super) struct TakingTurns {
    turns: Arc<Turns>,
    handlers: Vec<Box<dyn Handler>>,
}

impl TakingTurns {
    pub(super) fn new(turns: Arc<Turns>, handlers: Vec<Box<dyn Handler>>) -> Self {
        TakingTurns { turns, handlers }
    }

    fn in_turn(&mut self, now: Timestamp) -> Option<&mut Box<dyn Handler>> {
        let contender = self.turns.contender(self.turns.at(now));
        self.handlers.get_mut(contender)
    }
}

impl Handler for TakingTurns {
    fn batch(&mut self, now: Timestamp, port: usize, frames: &mut Frames, out: &mut Output) {
        if port == 0 {
            self.turns.count(now, frames);
        }
        if let Some(handler) = self.in_turn(now) {
            handler.batch(now, port, frames, out);
        }
    }

    fn idle(&mut self, now: Timestamp, out: &mut Output) {
        if let Some(handler) = self.in_turn(now) {
            handler.idle(now, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use sgwall_netio::device::VnetHeader;

    use super::*;

    const TURN: Duration = Duration::from_millis(10);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000).after(Duration::from_millis(millis))
    }

    fn turns(contenders: usize) -> Turns {
        Turns::new(at(0), TURN, Duration::from_millis(200), contenders)
    }

    fn frames(count: usize, flags: u8) -> Frames {
        let mut frames = Frames::new();
        let mut frame = [0; 60];
        frame[TCP_FLAGS] = flags;
        for _ in 0..count {
            frames.push(&frame, VnetHeader::default());
        }
        frames
    }

    #[test]
    fn all_have_as_many_turns_and_none_is_always_first() {
        let turns = turns(2);
        let order: Vec<_> = (0..8).map(|turn| turns.contender(turn)).collect();
        assert_eq!(order, [0, 1, 1, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn what_crosses_counts_for_whoever_has_the_turn() {
        let turns = turns(2);
        for turn in 4..12 {
            let begin = 10 * turn;
            // Left in queues by the turn before.
            turns.count(at(begin), &frames(1000, 2));
            let is_first = turns.contender(turn) == 0;
            turns.count(at(begin + 1), &frames(if is_first { 90 } else { 45 }, 2));
            turns.count(at(begin + 9), &frames(9, 0x12));
        }
        let rounded = |rounds: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            let round = |rates: &Vec<f64>| rates.iter().map(|rate| rate.round()).collect();
            rounds.iter().map(round).collect()
        };
        let connections = turns.rounds(Measure::Connections, at(0), at(200));
        assert_eq!(rounded(connections), vec![vec![10.0, 5.0]; 4]);
        let frames = turns.rounds(Measure::Datagrams, at(0), at(200));
        assert_eq!(rounded(frames), vec![vec![11.0, 6.0]; 4]);
        let bits = turns.rounds(Measure::OneStream, at(45), at(95));
        assert_eq!(bits.len(), 1, "rounds that lie between the two moments alone");
        assert!((bits[0][0] - 99.0 * 60.0 * 8.0 / 0.009 / 1e9).abs() < 1e-9, "{bits:?}");
    }

    #[test]
    fn after_the_last_turn_nothing_counts() {
        let turns = turns(1);
        turns.count(at(205), &frames(9, 2));
        assert_eq!(turns.rounds(Measure::Connections, at(0), at(300)), Vec::<Vec<f64>>::new());
    }
}
