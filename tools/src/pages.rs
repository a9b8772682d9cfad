//! What is made of the command line itself: manual pages, and completions for shells.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::failure::Failure;

/// Prints the completions of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sgwall", &mut text);
    io::stdout().lock().write_all(&text).map_err(Failure::Output)
}

/// Writes a page for `sgwall` and one for each of its commands: `sgwall.1`, `sgwall-replay.1` …
pub(crate) fn man(dir: &Path) -> Result<(), Failure> {
    let unwritable =
        |error| Failure::Io(format!("cannot write manual pages to {}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(unwritable)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(unwritable)
}
