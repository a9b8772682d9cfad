//! The command line of `sgwall bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sgwall_benches::workload::{IMIX, Traffic};

use super::forward::Measure;
use crate::cli::DirectionArg;

/// What the measurements in memory have in common, for their help.
macro_rules! how {
    () => {
        "\
A run is about 4,096 packets, look-ups or flows, and the percentiles are over all runs; what a run had to \
wait for is in the slow ones, so read the fastest and p50. Cycles are those of p50 at the frequency that \
/proc/cpuinfo names (`cpu MHz`): on virtual machines the nominal one, which is that of the counter, \
elsewhere that of the moment.

Exit status: 0 measured; 2 the command line or the policy is wrong; 3 a file could not be read."
    };
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// How fast frames cross from one TAP interface to another (needs root and iperf3)
    Forward(ForwardArgs),
    /// Whether the live firewall loses or lets through what it must not, when all goes on at once
    /// (needs root)
    Soak(SoakArgs),
    /// How long a packet takes from frame to verdict, in memory
    Pipeline(PipelineArgs),
    /// How long it takes to find the rule for a packet
    Classifier(ClassifierArgs),
    /// How long the flow table takes, and how much memory a flow
    Table(TableArgs),
}

/// What the measurements in memory have in common.
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Length of each measurement, seconds, from 0.01
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Threads that work at the same time, each with a table and packets of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `sgwall bench pipeline`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Judges frames that lie in memory, in batches of 64, under a policy of so many rules, a network ACL with \
100 entries before the one that matches, and rules for the packets that are measured. No devices, no \
system calls: `sgwall bench forward` has them. The first packets of flows come until all --flows are \
open; then all are ended, which is not measured.

", how!()))]
pub(crate) struct PipelineArgs {
    /// Flows of each worker
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) flows: u32,

    /// Rules of the interface's group
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) rules: u32,

    /// Packets of flows that are tracked, that become tracked, that need not be, and that no rule
    /// admits; several with commas
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        default_value = "established,new,untracked,refused"
    )]
    pub(crate) packets: Vec<PacketsArg>,

    /// Bytes of a frame with its checksum, 64 to 9018; or `imix`: 64, 594 and 1518, 7:4:1
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = length)]
    pub(crate) length: Length,

    #[command(flatten)]
    pub(crate) runs: RunsArgs,
}

/// Arguments of `sgwall bench classifier`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Looks packets up among the rules of an interface's security groups: packets within the prefix and the \
ports of some rule (hits), and from anywhere to any port, as far as no rule matches (misses). Few: 4,096 \
packets over and over; many: 65,536; cold: 256 after the cache was filled with something else. One by \
one, and in batches, whose waits for memory overlap.

", how!()))]
pub(crate) struct ClassifierArgs {
    /// Rules, made up: nested prefixes, single ports and ranges
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "policy", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rules: u32,

    /// Made-up rules with IPv6 prefixes; misses from IPv6 addresses
    #[arg(long)]
    pub(crate) ipv6: bool,

    /// A policy of your own instead (TOML, AWS JSON, or a directory of them); repeatable
    #[arg(long, value_name = "PATH")]
    pub(crate) policy: Vec<PathBuf>,

    /// The interface whose rules are measured; needed if the policy has several
    #[arg(long, value_name = "ENI", requires = "policy")]
    pub(crate) interface: Option<String>,

    /// Which of its rules
    #[arg(long, value_name = "WAY", default_value = "ingress", requires = "policy")]
    pub(crate) direction: DirectionArg,

    #[command(flatten)]
    pub(crate) runs: RunsArgs,
}

/// Arguments of `sgwall bench table`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Packets of established TCP flows, looked up and noted: all flows as likely, or by Zipf's law; flows \
inserted until the table is full; flows expired; and a mix as in use (of 64 packets 60 data, three \
that open a flow, one that ends one, and what has ended is freed). Memory is how much the process grew, \
all of the table included.

", how!()))]
pub(crate) struct TableArgs {
    /// Flows of each worker
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    pub(crate) flows: u32,

    /// IPv6 flows
    #[arg(long)]
    pub(crate) ipv6: bool,

    #[command(flatten)]
    pub(crate) runs: RunsArgs,
}

/// A kind of packets on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PacketsArg {
    Established,
    New,
    Untracked,
    Refused,
}

impl From<PacketsArg> for Traffic {
    fn from(packets: PacketsArg) -> Self {
        match packets {
            PacketsArg::Established => Traffic::Established,
            PacketsArg::New => Traffic::New,
            PacketsArg::Untracked => Traffic::Untracked,
            PacketsArg::Refused => Traffic::Refused,
        }
    }
}

/// Lengths of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// Bytes, with the checksum.
    Bytes(u16),
    Imix,
}

/// Bytes of the checksum, which no device hands over.
const CHECKSUM: usize = 4;

impl Length {
    /// Bytes in memory, in turn.
    pub(crate) fn in_memory(self) -> Vec<usize> {
        match self {
            Length::Bytes(bytes) => vec![usize::from(bytes) - CHECKSUM],
            Length::Imix => IMIX.to_vec(),
        }
    }
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Length::Bytes(bytes) => write!(f, "{bytes}"),
            Length::Imix => f.write_str("imix"),
        }
    }
}

fn length(text: &str) -> Result<Length, String> {
    match text.parse() {
        Ok(bytes @ 64..=9018) => Ok(Length::Bytes(bytes)),
        _ if text.eq_ignore_ascii_case("imix") => Ok(Length::Imix),
        _ => Err("a length is 64 to 9018, or imix".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a measurement is 0.01 to 86400 seconds long".to_owned()),
    }
}

/// Arguments of `sgwall bench forward`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes two network namespaces with a TAP interface each and measures TCP, small UDP datagrams and new \
connections between them with real clients. A forwarder that does nothing and the firewall (100 \
rules, a network ACL, every flow tracked) take turns on the same connections; the ratio is the median \
of that of two turns that follow each other, with the interval that holds it with a certainty of 95%. \
Touches nothing else on the machine, and deletes what it made.

Exit status: 0 measured; 2 the command line is wrong; 3 root, a program or a device is missing, or \
a measurement failed.")]
pub(crate) struct ForwardArgs {
    /// Queues of each interface, and workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) queues: u16,

    /// Length of each measurement, seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) seconds: u16,

    /// Length of a turn, milliseconds; its first tenth does not count
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(10..))]
    pub(crate) turn: u16,

    /// MTU of both interfaces, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 9001, value_parser = clap::value_parser!(u16).range(1280..=65521))]
    pub(crate) mtu: u16,

    /// Without checksum and segmentation offload
    #[arg(long)]
    pub(crate) no_offload: bool,

    /// Only the forwarder that does nothing
    #[arg(long)]
    pub(crate) null: bool,

    /// What to measure; several with commas
    #[arg(
        long,
        value_name = "WHAT",
        value_delimiter = ',',
        default_value = "tcp-1,tcp-4,udp-64,connections"
    )]
    pub(crate) only: Vec<Measure>,

    /// How often to begin anew, with new namespaces and interfaces
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) labs: u16,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `sgwall bench soak`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes network namespaces for an instance and its network, with `sgwall run` between them. Clients talk \
through it over IPv4 and IPv6: long and short TCP transfers, UDP, datagrams in fragments, ICMP echo, \
GRE; every byte is compared. Meanwhile others try what must be refused, policies are replaced every 3 s \
(flows that the new one would not admit end), flows are ended every 5 s, and every 2 s floods come: \
SYNs and datagrams of spoofed senders, half of which the policy lets in. A line every 5 s goes to \
standard error.

Found wanting is: anything that came through where nothing may; a TCP transfer that fails; bytes that \
differ; more datagrams lost than queues of the kernel, before and behind the firewall, have dropped \
frames; frames read that are not all passed or dropped, or passed and neither written nor counted; \
memory that grows beyond --growth from a tenth of the time on; descriptors or threads that stay.

Touches nothing else on the machine, and deletes what it made, also when it is interrupted.

Exit status: 0 all is well; 1 found wanting, or the firewall failed; 2 the command line is wrong; \
3 root or a device is missing, or it was interrupted.")]
pub(crate) struct SoakArgs {
    /// How long
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..))]
    pub(crate) seconds: u32,

    /// At most so many frames through the firewall, about
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) packets: u64,

    /// Queues of each device, and workers
    #[arg(short = 'w', long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,

    /// Packets of a burst of the flood
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) flood: u32,

    /// The most that the firewall's memory may grow, MiB
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) growth: u32,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
