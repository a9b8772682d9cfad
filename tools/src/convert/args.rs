//! The command line of `sgwall convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `sgwall convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sgwall convert dump/ --to toml -o policy.toml
  terraform show -json plan.bin | sgwall convert /dev/stdin --to toml
  sgwall convert policy.toml --to aws
  sgwall convert policy.toml --to nftables --interface eni-0a1b -o eni-0a1b.nft

What the form cannot say is told on standard error, `lost: ...`.

Exit status: 0 written, whether or not something is lost; 2 the command line or the policy is wrong; \
3 a file could not be read or written.")]
pub(crate) struct ConvertArgs {
    /// Policy: TOML files, AWS JSON (`aws ec2 describe-*`), Terraform's (`terraform show -json`), or
    /// directories of them, merged
    #[arg(value_name = "POLICY", required = true)]
    pub(crate) policy: Vec<PathBuf>,

    /// The form to write
    #[arg(long, value_name = "FORM", value_enum)]
    pub(crate) to: Form,

    /// Write to this file; left out or `-`: standard output. nftables: of a directory, a file ENI.nft
    /// for each interface
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(crate) output: Option<PathBuf>,

    /// nftables: the network interface; not needed where the policy has one only
    #[arg(short, long, value_name = "ENI")]
    pub(crate) interface: Option<String>,

    /// nftables: the device behind which the instance is
    #[arg(long, value_name = "DEVICE", default_value = "inst", value_parser = device)]
    pub(crate) instance_device: String,

    /// nftables: the device towards the network
    #[arg(long, value_name = "DEVICE", default_value = "net", value_parser = device)]
    pub(crate) network_device: String,
}

/// A form of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A native policy file: all that a policy says
    Toml,
    /// The answers of `aws ec2 describe-*` in one object
    Aws,
    /// A ruleset for `nft -f`, for one network interface
    Nftables,
}

/// A name that Linux takes for a device, and nftables between quotes.
fn device(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '/' | '\\' | '*' | ':');
    match text.len() {
        1..=15 if text.chars().all(is_plain) => Ok(text.to_owned()),
        _ => Err("expected the name of a device, 1 to 15 characters such as eth0".to_owned()),
    }
}
