//! `sgwall`: what would these security groups and network ACLs do to this traffic, and why?

// The command line reads files; the core crates may not.
#![allow(clippy::disallowed_methods)]

mod ask;
mod bench;
mod check;
mod cli;
mod convert;
mod diff;
mod explain;
mod failure;
mod found;
mod pages;
mod policy;
mod replay;
mod run;
mod sarif;
mod style;
mod test;
mod top;
mod traffic;
mod wrap;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    // A quoted arrow in a packet that was typed word by word would read as a flag.
    let words = std::env::args_os().map(|word| if word == "->" { "to".into() } else { word });
    let cli = Cli::parse_from(words);
    cli.color.write_global();
    let result = match cli.command {
        Command::Bench(command) => bench::run(&command).map(|()| 0),
        Command::Check(args) => check::run(&args),
        Command::Completions { shell } => pages::completions(shell).map(|()| 0),
        Command::Convert(args) => convert::run(&args).map(|()| 0),
        Command::Diff(args) => diff::run(&args),
        Command::Explain(args) => explain::run(&args).map(|()| 0),
        Command::Flows(args) => ask::flows(&args).map(|()| 0),
        Command::Man { dir } => pages::man(&dir).map(|()| 0),
        Command::Reload(args) => ask::reload(&args).map(|()| 0),
        Command::Replay(args) => replay::run(&args).map(|()| 0),
        Command::Run(args) => run::run(&args).map(|()| 0),
        Command::Stats(args) => ask::stats(&args).map(|()| 0),
        Command::Test(args) => test::run(&args),
        Command::Top(args) => top::run(&args).map(|()| 0),
        Command::Trace(args) => ask::trace(&args).map(|()| 0),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        // Whoever read our output has had enough of it.
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("{failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}
