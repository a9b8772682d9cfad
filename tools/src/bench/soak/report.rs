//! What a soak found, as tables for people or one object for programs.

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use anstyle::Style;
use serde_json::{Map, Value, json};
use sgwall_live::engine::Stats;

use super::Done;
use super::book::{Book, Client};
use super::lab::Usage;
use crate::bench::args::SoakArgs;
use crate::style::grouped;

pub(super) struct Report<'a> {
    pub(super) args: &'a SoakArgs,
    pub(super) book: &'a Book,
    pub(super) done: Done,
    /// When all was still.
    pub(super) stats: Stats,
    /// Frames that the kernel's queues before the firewall dropped.
    pub(super) drops: u64,
    /// After a tenth of the time, and at the end.
    pub(super) usage: [Usage; 2],
    pub(super) seconds: f64,
}

/// Where every frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ledger {
    read: u64,
    passed: u64,
    dropped: u64,
    written: u64,
    /// Passed, and not taken by the device: its queue was full, or it was down.
    not_written: u64,
    /// Read, and lost or refused before it was judged.
    unread: u64,
}

/// Frames that the firewall has read from all devices.
pub(super) fn frames_read(stats: &Stats) -> u64 {
    count(stats, &["rx_frames"])
}

fn count(stats: &Stats, names: &[&str]) -> u64 {
    let of_port = |port: &sgwall_live::engine::PortReport| -> u64 {
        names.iter().filter_map(|name| port.counters.get(*name)).sum()
    };
    stats.ports.iter().map(of_port).sum()
}

impl Ledger {
    fn of(stats: &Stats) -> Self {
        let judged = |verdict: &str| {
            stats.reasons.iter().filter(|of| of.verdict == verdict).map(|of| of.packets).sum()
        };
        Ledger {
            read: frames_read(stats),
            passed: judged("pass"),
            dropped: judged("drop"),
            written: count(stats, &["tx_frames"]),
            not_written: count(stats, &["tx_full", "tx_down", "tx_refused", "tx_bad_offload"]),
            unread: count(stats, &["rx_truncated", "rx_bad_offload"]),
        }
    }

    /// Every frame that was read has one verdict, and every one that passed was written or counted.
    fn adds_up(&self) -> bool {
        self.read == self.passed + self.dropped && self.passed == self.written + self.not_written
    }
}

impl Report<'_> {
    fn passed(&self) -> u64 {
        self.book.passed.load(Ordering::Relaxed)
    }

    /// How much memory it grew, KiB.
    fn growth(&self) -> u64 {
        self.usage[1].resident.saturating_sub(self.usage[0].resident)
    }

    /// What must not be.
    pub(super) fn faults(&self) -> Vec<String> {
        let ledger = Ledger::of(&self.stats);
        let mut faults = Vec::new();
        let mut fault = |is: bool, what: String| {
            if is {
                faults.push(what);
            }
        };
        fault(self.passed() > 0, format!("{} wrongly passed", self.passed()));
        let broken = self.book.broken.load(Ordering::Relaxed);
        fault(broken > 0, format!("{broken} could not begin"));
        let (_, wrong) = self.book.failures();
        fault(wrong > 0, format!("{wrong} answers differ from what was to come"));
        let mut datagrams = 0;
        for client in Client::ALL {
            let tally = self.book.tally(client);
            let (name, _) = client.words();
            fault(tally.done == 0, format!("{name} never succeeded"));
            match client.is_reliable() {
                true => fault(tally.lost > 0, format!("{name} lost {}", tally.lost)),
                false => datagrams += tally.lost,
            }
        }
        let queues = self.drops + ledger.not_written;
        fault(
            datagrams > queues,
            format!("{datagrams} datagrams lost, and queues dropped only {queues} frames"),
        );
        fault(!ledger.adds_up(), format!("the counters do not add up: {ledger:?}"));
        let (growth, bound) = (self.growth(), u64::from(self.args.growth) * 1024);
        fault(growth > bound, format!("memory grew by {growth} KiB, more than {bound}"));
        let [early, late] = self.usage;
        let is_more = late.descriptors > early.descriptors + 4 || late.threads > early.threads + 4;
        fault(is_more, format!("descriptors or threads stay open: {early:?}, then {late:?}"));
        faults
    }

    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let bold = Style::new().bold();
        writeln!(
            out,
            "{:.0} s, {} worker{}: {} reloads, {} kills that ended {} flows, {} packets of floods",
            self.seconds,
            self.args.workers,
            if self.args.workers == 1 { "" } else { "s" },
            self.done.reloads,
            self.done.kills,
            grouped(self.done.ended),
            grouped(self.book.flood.load(Ordering::Relaxed))
        )?;
        writeln!(
            out,
            "\n{bold}{:<28}{:>12}{:>12}{:>8}{:>8}{bold:#}",
            "CLIENT", "attempts", "done", "lost", "wrong"
        )?;
        for client in Client::ALL {
            let tally = self.book.tally(client);
            writeln!(
                out,
                "{:<28}{:>12}{:>12}{:>8}{:>8}",
                client.words().1,
                grouped(tally.attempts),
                grouped(tally.done),
                grouped(tally.lost),
                grouped(tally.wrong)
            )?;
        }
        let probes = self.book.probes.load(Ordering::Relaxed);
        writeln!(
            out,
            "\n{bold}wrongly passed {}{bold:#}, of {} probes, floods included {}; {} frames looked at",
            grouped(self.passed()),
            grouped(probes),
            grouped(probes + self.book.flood.load(Ordering::Relaxed)),
            grouped(self.book.witnessed.load(Ordering::Relaxed))
        )?;
        let ledger = Ledger::of(&self.stats);
        writeln!(
            out,
            "\nframes read {} = passed {} + dropped {}{}\nframes passed = written {} + not written {}\n\
             dropped by the kernel's queues before they were read: {}",
            grouped(ledger.read),
            grouped(ledger.passed),
            grouped(ledger.dropped),
            if ledger.adds_up() { "" } else { "  (DOES NOT ADD UP)" },
            grouped(ledger.written),
            grouped(ledger.not_written),
            grouped(self.drops + ledger.unread)
        )?;
        let [early, late] = self.usage;
        let mib = |kib: u64| kib as f64 / 1024.0;
        writeln!(
            out,
            "\nmemory {:.1} MiB after a tenth of the time, {:.1} at the end: grew by {:.1} (bound {})\n\
             descriptors {} and {}, threads {} and {}; {} flows tracked, {} were opened, {} refused",
            mib(early.resident),
            mib(late.resident),
            mib(self.growth()),
            self.args.growth,
            early.descriptors,
            late.descriptors,
            early.threads,
            late.threads,
            grouped(self.stats.flows),
            grouped(self.stats.flows_created),
            grouped(self.stats.flows_refused)
        )?;
        for words in self.book.words() {
            writeln!(out, "  {words}")?;
        }
        Ok(())
    }

    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let clients: Map<String, Value> = Client::ALL
            .iter()
            .map(|client| {
                let tally = self.book.tally(*client);
                let object = json!({
                    "attempts": tally.attempts,
                    "done": tally.done,
                    "lost": tally.lost,
                    "wrong": tally.wrong,
                });
                (client.words().0.to_owned(), object)
            })
            .collect();
        let ledger = Ledger::of(&self.stats);
        let usage = self.usage.map(|usage| {
            json!({
                "resident_kib": usage.resident,
                "descriptors": usage.descriptors,
                "threads": usage.threads,
            })
        });
        let object = json!({
            "bench": "soak",
            "seconds": self.seconds,
            "workers": self.args.workers,
            "clients": clients,
            "wrongly_passed": self.passed(),
            "probes": self.book.probes.load(Ordering::Relaxed),
            "flood_packets": self.book.flood.load(Ordering::Relaxed),
            "frames_witnessed": self.book.witnessed.load(Ordering::Relaxed),
            "reloads": self.done.reloads,
            "kills": self.done.kills,
            "flows_killed": self.done.ended,
            "flows": self.stats.flows,
            "flows_created": self.stats.flows_created,
            "flows_refused": self.stats.flows_refused,
            "frames": {
                "read": ledger.read,
                "passed": ledger.passed,
                "dropped": ledger.dropped,
                "written": ledger.written,
                "not_written": ledger.not_written,
                "adds_up": ledger.adds_up(),
                "kernel_drops": self.drops,
                "unread": ledger.unread,
            },
            "usage": usage,
            "growth_kib": self.growth(),
            "notes": self.book.words(),
            "faults": self.faults(),
        });
        writeln!(out, "{object}")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::book::End;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SoakArgs,
    }

    /// A firewall that has read 10 frames, passed 6, dropped 4 and written 5.
    fn stats() -> Stats {
        let reason = |verdict: &str, packets: u64| {
            json!({"interface": "eni-1", "verdict": verdict, "stage": "security-group",
                "reason": "any", "packets": packets, "bytes": 0})
        };
        let counters = json!({"rx_frames": 10, "tx_frames": 5, "tx_full": 1});
        let stats = json!({
            "generation": 1, "uptime": 1, "workers": 1, "flows": 0, "max_flows": 1,
            "flows_created": 0, "flows_refused": 0, "flows_evicted": 0,
            "full_table": "drop-new", "interfaces": [], "flow_log_skipped": null, "rules": [],
            "reasons": [reason("pass", 6), reason("drop", 4)],
            "ports": [{"device": "tap-i", "interface": "eni-1", "counters": counters}],
        });
        serde_json::from_value(stats).expect("counters")
    }

    /// The faults of a run that was well but for what `change` does.
    fn faults(change: impl FnOnce(&Book, &mut Stats, &mut [Usage; 2])) -> Vec<String> {
        let args = Line::parse_from(["soak", "--growth", "8"]).args;
        let (book, mut stats, mut usage) = (Book::default(), stats(), [Usage::default(); 2]);
        for client in Client::ALL {
            book.note(client, End::Done);
        }
        change(&book, &mut stats, &mut usage);
        let done = Done::default();
        Report { args: &args, book: &book, done, stats, drops: 2, usage, seconds: 1.0 }.faults()
    }

    #[test]
    fn what_must_not_be_is_found() {
        let lose = |client, times| {
            move |book: &Book, _: &mut Stats, _: &mut [Usage; 2]| {
                (0..times).for_each(|_| book.note(client, End::Lost(String::new())));
            }
        };
        assert_eq!(faults(|_, _, _| ()), [""; 0]);
        // Three frames were dropped by queues, two before the firewall and one behind it.
        assert_eq!(faults(lose(Client::Ping, 3)), [""; 0]);
        assert!(faults(lose(Client::Ping, 4))[0].contains("4 datagrams lost"));
        assert!(faults(lose(Client::ShortV6, 1))[0].contains("tcp_short_v6 lost 1"));
        let found = faults(|book, _, _| book.leaked("a SYN".to_owned()));
        assert_eq!(found, ["1 wrongly passed"]);
        let found = faults(|book, _, _| book.note(Client::Gre, End::Wrong(String::new())));
        assert!(found[0].contains("1 answers differ"), "{found:?}");
        let found = faults(|_, stats, _| stats.reasons[1].packets = 3);
        assert!(found[0].contains("do not add up"), "{found:?}");
        let found = faults(|_, stats, _| stats.ports[0].counters.clear());
        assert!(found[0].contains("do not add up"), "{found:?}");
        let found = faults(|_, _, usage| usage[1].resident = 8 * 1024 + 1);
        assert!(found[0].contains("memory grew by 8193 KiB"), "{found:?}");
        let found = faults(|_, _, usage| usage[1].descriptors = 5);
        assert!(found[0].contains("descriptors or threads"), "{found:?}");
    }
}
