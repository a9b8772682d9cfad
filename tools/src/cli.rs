//! The command line: flags as they are typed. What they mean is resolved by each command.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::BenchCommand;
use crate::convert::args::ConvertArgs;
use crate::diff::args::DiffArgs;
use crate::failure::Failure;
use crate::replay::{At, MAX_WORKERS};
use crate::run::{AskArgs, CONTROL, FlowsArgs, RunArgs, TraceArgs};
use crate::test::args::TestArgs;
use crate::top::args::TopArgs;
use ipnet::IpNet;
use sgwall_dataplane::flow_log::{Format, Interval, InvalidInterval, Traffic};
use sgwall_dataplane::{Config, FullTable, check_reserves};
use sgwall_netio::seed::random_seed;
use sgwall_packet::Direction;
use sgwall_rules::model::FlowLimits;

/// Cloud security groups and network ACLs for any Linux interface or packet capture.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
#[command(after_help = "\
Exit status: 0 done; 1 a running firewall failed, or warnings (check --strict); 2 the command line or \
the policy is wrong; 3 a file could not be read or \
written, or a capture is damaged.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) color: colorchoice_clap::Color,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Judge a packet capture by a policy: what would have passed, and why
    Replay(ReplayArgs),
    /// Explain what becomes of one packet: every stage, every rule considered, and what is missing
    Explain(ExplainArgs),
    /// Check a policy: errors, what is probably not meant, path-MTU black holes
    Check(CheckArgs),
    /// Write a policy in another form: native TOML, AWS's JSON, or nftables'
    Convert(ConvertArgs),
    /// Compare two policies: as sets of traffic, and by what real traffic would meet
    Diff(DiffArgs),
    /// Run policy tests: packets and captures, and what must become of them
    Test(TestArgs),
    /// Run the firewall between devices, until it is told to end
    Run(RunArgs),
    /// List the tracked flows of a running firewall, or end some
    Flows(FlowsArgs),
    /// Show the counters of a running firewall
    Stats(AskArgs),
    /// Have a running firewall read its policy again
    Reload(AskArgs),
    /// Look at a running firewall: rates, reasons, flows, senders, rules
    Top(TopArgs),
    /// Watch the verdicts of a running firewall
    Trace(TraceArgs),
    /// Print the completions of a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command
    Man {
        /// The directory that they go to
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Measure this machine
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Arguments of `sgwall replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sgwall replay                                   the embedded example
  sgwall replay web.pcap --policy policy.toml     a summary
  sgwall replay web.pcap --policy dump/ --interface eni-0a1b --packets
  tcpdump -w - | sgwall replay - --policy policy.toml --json
  sgwall replay web.pcap --policy policy.toml --flow-log - --flow-log-format v5

Exit status: 0 judged; 2 the command line or the policy is wrong; 3 a file could not be read or \
written, or a capture is damaged (what could be read was judged).")]
pub(crate) struct ReplayArgs {
    /// Captures (pcap or pcapng, plain, gzip or zstd), judged one after the other; `-` is
    /// standard input. Without any, and without a policy: the embedded example
    #[arg(value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,

    /// Policy: TOML files, AWS JSON (`aws ec2 describe-*`), Terraform's (`terraform show -json`), or
    /// directories of them, merged
    #[arg(short, long, value_name = "FILE|DIR", num_args = 1..)]
    pub(crate) policy: Vec<PathBuf>,

    /// Replace the policy in the middle of the replay (repeatable). TIME is in seconds after the
    /// first packet (12.5), or absolute: @1700000012.5, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME=FILE|DIR", value_parser = At::parse)]
    pub(crate) at: Vec<At>,

    /// What becomes of tracked flows when the policy is replaced: as in AWS they all stay, or those
    /// that the new rules would not admit end
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    pub(crate) on_reload: OnReload,

    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,

    /// Threads that judge, beside the one that reads. What comes out is the same to the byte,
    /// whatever their number. Standard input and pipes are judged by one
    #[arg(short = 'w', long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)))]
    pub(crate) workers: u16,

    /// Print a line for each packet
    #[arg(long, conflicts_with = "json")]
    pub(crate) packets: bool,

    /// Print a JSON object for each packet, one a line, and one for the summary
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the packets that pass to this pcapng file
    #[arg(long, value_name = "FILE")]
    pub(crate) pass: Option<PathBuf>,

    /// Write the packets that are dropped to this pcapng file, each with the reason as comment
    #[arg(long, value_name = "FILE")]
    pub(crate) drop: Option<PathBuf>,

    /// Write what the router makes of packets that do not fit their path to this pcapng file:
    /// fragments, and answers to their senders
    #[arg(long, value_name = "FILE")]
    pub(crate) emitted: Option<PathBuf>,

    /// Write a page to look at in a browser: traffic over time, reasons, rules, flows. It is one file
    /// and needs no network
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) flow_log: FlowLogArgs,
}

/// Whose traffic it is.
#[derive(Debug, Default, Args)]
pub(crate) struct TrafficArgs {
    /// Judge on this network interface only (repeatable). Default: all of the policy
    #[arg(short, long, value_name = "ENI")]
    pub(crate) interface: Vec<String>,

    /// Take every packet to go this way through the one interface
    #[arg(short, long, value_name = "DIRECTION")]
    pub(crate) direction: Option<DirectionArg>,

    /// Addresses of the capture that stand for the one interface (repeatable)
    #[arg(short, long, value_name = "ADDRESS|CIDR", value_parser = address_or_cidr)]
    pub(crate) local: Vec<IpNet>,

    /// The capture was taken on a host with segmentation offload: judge frames larger than the
    /// interface's MTU by their segments
    #[arg(long)]
    pub(crate) offload: bool,

    #[command(flatten)]
    pub(crate) table: TableArgs,
}

/// The flow table.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct TableArgs {
    /// Tracked flows at once
    #[arg(long, value_name = "N", default_value_t = MAX_FLOWS)]
    pub(crate) max_flows: usize,

    /// What becomes of a flow beyond
    #[arg(long, value_name = "WHAT", default_value = "drop-new")]
    pub(crate) full_table: FullTableArg,
}

/// Tracked flows at once, unless more or fewer are asked for.
const MAX_FLOWS: usize = 1 << 20;

impl Default for TableArgs {
    fn default() -> Self {
        TableArgs { max_flows: MAX_FLOWS, full_table: FullTableArg::DropNew }
    }
}

impl TableArgs {
    /// A table of this size, with a seed of its own.
    pub(crate) fn config(self) -> Config {
        Config {
            max_flows: self.max_flows,
            full_table: self.full_table.into(),
            hash_seed: random_seed(),
        }
    }

    /// Checks that the table has the places that interfaces, each by its name, reserve.
    pub(crate) fn check_reserves<'a>(
        self,
        interfaces: impl Iterator<Item = (&'a str, FlowLimits)>,
    ) -> Result<(), Failure> {
        check_reserves(interfaces, self.max_flows).map_err(Failure::Usage)
    }
}

/// What becomes of a new flow when the table is full, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FullTableArg {
    /// It is refused, as in AWS
    DropNew,
    /// The oldest flow that nobody has answered gives it its place, if there is one
    EvictEmbryonic,
}

impl From<FullTableArg> for FullTable {
    fn from(arg: FullTableArg) -> Self {
        match arg {
            FullTableArg::DropNew => FullTable::DropNew,
            FullTableArg::EvictEmbryonic => FullTable::EvictEmbryonic,
        }
    }
}

/// Arguments of the flow log.
#[derive(Debug, Args)]
pub(crate) struct FlowLogArgs {
    /// Write a flow log, as Amazon VPC has them, to this file; `-` is standard output (the summary
    /// of a replay then goes to standard error)
    #[arg(long = "flow-log", value_name = "FILE|-")]
    pub(crate) path: Option<PathBuf>,

    /// Its fields: all up to a version, `v2` to `v5`, or those named, '${srcaddr} ${dstaddr} ...'
    #[arg(long = "flow-log-format", value_name = "FORMAT", requires = "path")]
    #[arg(default_value = "v2")]
    pub(crate) format: Format,

    /// Its aggregation interval, seconds: 60 or 600
    #[arg(long = "flow-log-interval", value_name = "SECONDS", requires = "path")]
    #[arg(default_value = "600", value_parser = interval)]
    pub(crate) interval: Interval,

    /// Which traffic it records
    #[arg(long = "flow-log-traffic", value_name = "TRAFFIC", requires = "path")]
    #[arg(value_enum, default_value_t = TrafficArg::All)]
    pub(crate) traffic: TrafficArg,
}

/// The traffic of a flow log on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TrafficArg {
    /// What passed and what was refused
    All,
    /// What passed
    Accept,
    /// What was refused
    Reject,
}

impl From<TrafficArg> for Traffic {
    fn from(arg: TrafficArg) -> Self {
        match arg {
            TrafficArg::All => Traffic::All,
            TrafficArg::Accept => Traffic::Accept,
            TrafficArg::Reject => Traffic::Reject,
        }
    }
}

fn interval(text: &str) -> Result<Interval, String> {
    let seconds = text.parse().map_err(|_| "expected 60 or 600, in seconds".to_owned())?;
    Interval::from_secs(seconds).map_err(|error: InvalidInterval| error.to_string())
}

/// Arguments of `sgwall explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sgwall explain -p policy.toml tcp 198.51.100.7:50000 to 10.0.1.10:22
  sgwall explain -p policy.toml 'ingress udp 10.0.1.10:53 -> 198.51.100.7:4000 len=100' -i eni-1
  sgwall explain -p policy.toml --after 'tcp 198.51.100.7:50000 -> 10.0.1.10:22 S' \\
      tcp 10.0.1.10:22 to 198.51.100.7:50000 SA @0.1
  sgwall explain -p policy.toml web.pcap --frame 17
  sgwall explain --live ingress tcp 198.51.100.7:50000 to 10.0.1.10:22

A packet is PROTOCOL SOURCE -> DESTINATION, with ports for tcp and udp, then extras: TCP flags
(SAFRPU; none: S), an ICMP message (8/0, echo-request, frag-needed), len= df ttl= id= seq= ack= win=
mtu= frag=ID:OFFSET+ quote=\"PACKET\". A shell takes a bare -> for a redirection: quote the packet, or
write `to`. Before it may stand ingress or egress; @SECONDS anywhere says when it comes.

Exit status: 0 explained, whatever the verdict; 2 the command line or the policy is wrong; 3 a file \
could not be read, or the capture is damaged.")]
pub(crate) struct ExplainArgs {
    /// The packet, in one line of text (one word or several); with --frame, the capture it is in
    #[arg(value_name = "PACKET|CAPTURE", required = true)]
    pub(crate) packet: Vec<String>,

    /// Policy: a TOML file, AWS JSON (`aws ec2 describe-*`), Terraform's (`terraform show -json`), or
    /// a directory of them (repeatable)
    #[arg(short, long, value_name = "FILE|DIR", required_unless_present = "live")]
    pub(crate) policy: Vec<PathBuf>,

    /// Ask a running firewall: by its policy and with the flows that it tracks now
    #[arg(long, conflicts_with_all = ["policy", "frame", "after", "local", "offload"])]
    pub(crate) live: bool,

    /// The control socket of that firewall
    #[arg(long, value_name = "SOCKET", default_value = CONTROL)]
    pub(crate) control: PathBuf,

    /// Explain the frame of this number, from 1, after all that come before it
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) frame: Option<u64>,

    /// A packet that is judged before, so that its flow is known (repeatable, in order)
    #[arg(long, value_name = "PACKET", conflicts_with = "frame")]
    pub(crate) after: Vec<String>,

    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,

    /// Show every rule that was considered
    #[arg(long)]
    pub(crate) all: bool,

    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `sgwall check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sgwall check policy.toml
  sgwall check dump/ --strict --json
  sgwall replay web.pcap -p policy.toml --json >hits.json; sgwall check policy.toml --hits hits.json

Exit status: 0 no errors; 1 warnings, with --strict; 2 errors, or the command line is wrong; 3 a file \
could not be read.")]
pub(crate) struct CheckArgs {
    /// Policy: TOML files, AWS JSON (`aws ec2 describe-*`), Terraform's (`terraform show -json`), or
    /// directories of them, merged
    #[arg(value_name = "POLICY", required = true)]
    pub(crate) policy: Vec<PathBuf>,

    /// How often rules decided, as `sgwall replay --json` or `sgwall stats --json` printed it: rules
    /// that never did are told of
    #[arg(long, value_name = "FILE")]
    pub(crate) hits: Option<PathBuf>,

    /// Write every finding as SARIF to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) sarif: Option<PathBuf>,

    /// End with status 1 if there are warnings
    #[arg(long)]
    pub(crate) strict: bool,

    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What becomes of tracked flows when the policy is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnReload {
    /// They stay
    Keep,
    /// Those that the new rules would not admit end
    Rejudge,
}

/// A direction on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DirectionArg {
    /// Towards the instance
    Ingress,
    /// From the instance
    Egress,
}

impl From<DirectionArg> for Direction {
    fn from(arg: DirectionArg) -> Self {
        match arg {
            DirectionArg::Ingress => Direction::Ingress,
            DirectionArg::Egress => Direction::Egress,
        }
    }
}

/// `10.0.0.1` is `10.0.0.1/32`.
pub(crate) fn address_or_cidr(text: &str) -> Result<IpNet, String> {
    let parsed = match text.contains("/") {
        true => text.parse().ok(),
        false => text.parse().ok().map(|host: IpAddr| IpNet::from(host)),
    };
    parsed
        .ok_or_else(|| "expected an address such as 10.0.0.1 or a range such as 10.0.0.0/24".into())
}
