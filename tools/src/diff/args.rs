//! The command line of `sgwall diff`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::TrafficArgs;
use crate::run::CONTROL;

/// Arguments of `sgwall diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sgwall diff old.toml new.toml
  sgwall diff old/ new/ --capture monday.pcap
  sgwall diff dump/ plan.json --flow-log vpc-flow-log.txt --json
  sgwall diff /etc/sgwall/policy.toml new.toml --live

Exit status: 0 compared; 1 with --exit-code, something differs; 2 a policy, a flow log or the command \
line is wrong; 3 a file could not be read, a capture is damaged, or no firewall answers.")]
pub(crate) struct DiffArgs {
    /// The policy before: a file, or a directory of them
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,

    /// The policy after
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,

    /// Captures whose packets both policies judge (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Vec<PathBuf>,

    /// Flow logs in the format of Amazon VPC, whose flows both policies judge as if they began anew
    /// (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) flow_log: Vec<PathBuf>,

    /// Ask a running firewall for its tracked flows, and which of them the new policy would not admit
    #[arg(long)]
    pub(crate) live: bool,

    /// The control socket of that firewall
    #[arg(long, value_name = "SOCKET", default_value = CONTROL)]
    pub(crate) control: PathBuf,

    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,

    /// End with status 1 if anything differs
    #[arg(long)]
    pub(crate) exit_code: bool,

    /// List everything, not only the first rows
    #[arg(long)]
    pub(crate) all: bool,

    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
