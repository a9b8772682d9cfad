//! `sgwall bench`: what this machine can do. [`forward`] measures devices and all; the others, work
//! in memory, by many short runs. [`soak`] finds out what the live firewall stands.

mod args;
mod classifier;
mod forward;
mod pipeline;
mod runs;
mod soak;
mod table;

pub(crate) use args::BenchCommand;

use crate::failure::Failure;

/// Runs `sgwall bench`.
pub(crate) fn run(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Forward(args) => forward::run(args),
        BenchCommand::Pipeline(args) => pipeline::run(args),
        BenchCommand::Classifier(args) => classifier::run(args),
        BenchCommand::Soak(args) => soak::run(args),
        BenchCommand::Table(args) => table::run(args),
    }
}
