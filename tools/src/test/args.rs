//! The command line of `sgwall test`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `sgwall test`.
#[derive(Debug, Args)]
#[command(after_help = "\
A test file:
  policy = \"web.toml\"

  [[test]]
  name = \"the office may log in, and nobody else\"
  steps = [
    \"tcp 203.0.113.9:50000 -> 10.0.1.10:22 S => pass allowed-tracked\",
    \"tcp 198.51.100.7:50000 -> 10.0.1.10:22 S => drop no-rule\",
    \"after reload of web-v2.toml\",
    \"tcp 203.0.113.9:50000 -> 10.0.1.10:22 A => pass established by sg-web/ingress-2\",
  ]

  [[test]]
  name = \"last Monday's traffic\"
  capture = \"monday.pcap\"
  expect = [
    \"every packet to 10.0.1.10:443 passes\",
    \"nothing from 198.51.100.0/24 passes\",
    \"no more than 0.1% dropped\",
  ]

Exit status: 0 all passed; 1 a test failed; 2 a test file, a policy or the command line is wrong; 3 a \
file could not be read or written, or a capture is damaged.")]
pub(crate) struct TestArgs {
    /// Test files, or directories whose files that end in .test.toml are meant
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,

    /// Run only the tests that have this text in their name
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,

    /// Write the results as JUnit XML to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,

    /// Write the failures as SARIF to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) sarif: Option<PathBuf>,

    /// Run them again whenever a test, a policy or a capture changes
    #[arg(long)]
    pub(crate) watch: bool,

    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
