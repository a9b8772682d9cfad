//! The flags of `sgwall run`, and of the commands that ask a running firewall.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sgwall_live::top::{By, MAX_ROWS};
use sgwall_sandbox::Mode;

use crate::cli::{FlowLogArgs, OnReload, TableArgs};

/// Where a firewall is asked, unless it says otherwise.
pub(crate) const CONTROL: &str = "/run/sgwall.sock";

/// Arguments of `sgwall run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sgwall run --policy p.toml --interface eni-1 --instance tap-i --network tap-n
  sgwall run --policy p.toml                    the devices are those of [[port]] in the policy
  sgwall run --policy p.toml --interface eni-1 --instance tap-i --network packet:eth1

A DEVICE is a TAP interface, made if there is none of that name; packet:NAME is any Linux interface
that exists, a veth or a network card.

Signals: SIGHUP reads the policy again; SIGUSR1 opens the flow log anew; SIGTERM and SIGINT
end the firewall. While it does not run, nothing passes.

Exit status: 0 ended as told; 1 the firewall failed while running; 2 the command line or the policy \
is wrong; 3 a device, a socket or a file could not be opened.")]
pub(crate) struct RunArgs {
    /// Policy: a TOML file, AWS JSON (`aws ec2 describe-*`), Terraform's (`terraform show -json`), or
    /// a directory of them (repeatable)
    #[arg(short, long, value_name = "FILE|DIR", required = true)]
    pub(crate) policy: Vec<PathBuf>,

    /// The network interface whose instance is behind --instance
    #[arg(short, long, value_name = "ENI", requires_all = ["instance", "network"])]
    pub(crate) interface: Option<String>,

    /// The device that leads to the instance
    #[arg(long, value_name = "DEVICE", requires = "interface")]
    pub(crate) instance: Option<String>,

    /// The device that leads to the network
    #[arg(long, value_name = "DEVICE", requires = "interface")]
    pub(crate) network: Option<String>,

    /// Workers, and queues of each device
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,

    /// MTU to give TAP interfaces, bytes (576-9001). Default: 9001 for those that are made
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=9001))]
    pub(crate) mtu: Option<u16>,

    /// Without checksum and segmentation offload. A veth's other end must then have none as well:
    /// ethtool -K NAME tx off
    #[arg(long)]
    pub(crate) no_offload: bool,

    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// What becomes of tracked flows when the policy is replaced
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    pub(crate) on_reload: OnReload,

    /// Read the policy again whenever one of its files changes
    #[arg(long)]
    pub(crate) watch: bool,

    /// Where to be asked and commanded, by `sgwall flows`, `stats`, `reload` and `trace`
    #[arg(long, value_name = "SOCKET", default_value = CONTROL)]
    pub(crate) control: PathBuf,

    /// Serve counters to Prometheus at http://ADDRESS:PORT/metrics, on a loopback address
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// Go on as this user once the devices are open
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Whether to give up, once the devices are open, all files and system calls that are not needed
    /// any more
    #[arg(long, value_name = "MODE", default_value = "on")]
    pub(crate) sandbox: SandboxMode,

    /// Keep the privileges that are not needed any more once the devices are open, and enter no
    /// sandbox
    #[arg(long, conflicts_with_all = ["user", "sandbox"])]
    pub(crate) keep_privileges: bool,

    #[command(flatten)]
    pub(crate) flow_log: FlowLogArgs,

    #[command(flatten)]
    pub(crate) rotation: RotationArgs,
}

/// Whether a sandbox is entered.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SandboxMode {
    /// As far as the kernel can (Landlock, seccomp); what it lacks is said
    On,
    /// Whole, or the firewall does not start
    Required,
    /// Not at all
    Off,
}

impl From<SandboxMode> for Mode {
    fn from(mode: SandboxMode) -> Mode {
        match mode {
            SandboxMode::On => Mode::On,
            SandboxMode::Required => Mode::Required,
            SandboxMode::Off => Mode::Off,
        }
    }
}

/// When the flow log begins a new file.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RotationArgs {
    /// Begin a new flow log once it has this many bytes: FILE is renamed to FILE.1, FILE.1 to FILE.2
    /// and so on (without it, have logrotate rename it and send SIGUSR1)
    #[arg(long = "flow-log-rotate", value_name = "BYTES", requires = "path")]
    pub(crate) rotate: Option<NonZeroU64>,

    /// How many renamed files to keep
    #[arg(long = "flow-log-keep", value_name = "N", requires = "rotate")]
    #[arg(default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) keep: u32,
}

/// Where the firewall is, for the commands that ask it.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// The control socket of the firewall
    #[arg(long, value_name = "SOCKET", default_value = CONTROL, global = true)]
    pub(crate) control: PathBuf,

    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What a filter is made of, for help.
const FILTER_HELP: &str = "\
A filter is KEY=VALUE words, all of which must hold: interface, protocol, src, dst, addr (either end), \
sport, dport, port (either), state. Addresses may be ranges: src=10.0.0.0/8.";

/// Arguments of `sgwall flows`.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct FlowsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<FlowsCommand>,

    /// Which flows. Default: all
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) limit: usize,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// What to do with flows.
#[derive(Debug, Subcommand)]
pub(crate) enum FlowsCommand {
    /// End tracked flows: their packets are judged by the rules alone from then on
    Kill {
        /// Which flows
        #[arg(value_name = "FILTER", required = true)]
        filter: Vec<String>,
    },
    /// Who has most of the tracked flows
    Top {
        /// What to count them by
        #[arg(long, value_name = "WHAT", default_value = "remote")]
        by: ByArg,

        /// At most so many rows
        #[arg(long = "limit", value_name = "N", default_value_t = 10)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=MAX_ROWS as i64))]
        rows: u16,
    },
}

/// What flows are counted by, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ByArg {
    /// The address at the other end, as seen from the interface
    Remote,
    /// The address that opened the flow
    Src,
    /// The address that it was opened to
    Dst,
    /// The port that it was opened to
    Port,
    /// The interface that tracks it
    Interface,
    /// Its protocol
    Protocol,
    /// Its state
    State,
}

impl From<ByArg> for By {
    fn from(arg: ByArg) -> Self {
        match arg {
            ByArg::Remote => By::Remote,
            ByArg::Src => By::Src,
            ByArg::Dst => By::Dst,
            ByArg::Port => By::Port,
            ByArg::Interface => By::Interface,
            ByArg::Protocol => By::Protocol,
            ByArg::State => By::State,
        }
    }
}

/// Arguments of `sgwall stats` and `sgwall reload`.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Arguments of `sgwall trace`.
#[derive(Debug, Args)]
#[command(after_help = "\
A filter is KEY=VALUE words, all of which must hold: interface, protocol, src, dst, addr (either end), \
sport, dport, port (either), state, verdict (pass or drop), reason.

What comes faster than --rate, or than it is read, is counted and not shown; packets never wait.")]
pub(crate) struct TraceArgs {
    /// Which verdicts. Default: all
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,

    /// Verdicts shown a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,

    /// End after so many verdicts
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}
