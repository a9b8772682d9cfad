//! `sgwall`: what would these security groups and network ACLs do to this traffic, and why?

// The command line reads files; the core crates may not.
#![allow(clippy::disallowed_methods)]

mod ask;
mod bench;
mod cli;
mod failure;
mod policy;
mod replay;
mod run;
mod style;

use std::process::ExitCode;

use clap::Parser;

use cli::{BenchCommand, Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Flows(args) => ask::flows(&args),
        Command::Reload(args) => ask::reload(&args),
        Command::Bench(BenchCommand::Forward(args)) => bench::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Stats(args) => ask::stats(&args),
        Command::Trace(args) => ask::trace(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has had enough of it.
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("{failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}
