//! The command line of `sgwall top`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::TrafficArgs;
use crate::run::CONTROL;

/// Arguments of `sgwall top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: 1 to 5 or Tab choose a list; Up, Down, PgUp, PgDn scroll; Space pauses; q quits. Flows and senders \
are of sampled verdicts, at most 2,000 a second, and only while they are shown.

Exit status: 0 ended by a key; 2 the command line is wrong, or there is no terminal; 3 no firewall answers.")]
pub(crate) struct TopArgs {
    /// The control socket of the firewall
    #[arg(long, value_name = "SOCKET", default_value = CONTROL)]
    pub(crate) control: PathBuf,

    /// Look at a capture instead, judged by --policy as its time passes
    #[arg(long, value_name = "FILE", requires = "policy", conflicts_with = "control")]
    pub(crate) capture: Option<PathBuf>,

    /// Policy for the capture: TOML files, AWS JSON, or directories of them, merged
    #[arg(short, long, value_name = "FILE|DIR", requires = "capture")]
    pub(crate) policy: Vec<PathBuf>,

    /// How much faster than it happened the capture goes
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = speed)]
    pub(crate) speed: f64,

    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,

    /// Seconds between two looks, from 0.2
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = look_interval)]
    pub(crate) interval: f64,

    /// The list that is shown first
    #[arg(long, value_name = "LIST", value_enum, default_value_t = ListArg::Interfaces)]
    pub(crate) list: ListArg,

    /// Print one screen as text after one interval, and end
    #[arg(long)]
    pub(crate) once: bool,
}

/// A list of `sgwall top`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ListArg {
    /// Rates by interface
    Interfaces,
    /// Verdicts by reason
    Reasons,
    /// Flows with most packets
    Flows,
    /// Senders with most packets
    Senders,
    /// Rules by hits
    Rules,
}

fn speed(text: &str) -> Result<f64, String> {
    let times = text.parse().ok().filter(|times| (0.01..=1e6).contains(times));
    times.ok_or_else(|| "expected a number, 0.01 to 1000000".to_owned())
}

fn look_interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.2..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, 0.2 to 3600".to_owned())
}
