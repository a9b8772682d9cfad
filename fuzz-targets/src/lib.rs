//! What is fuzzed: for each target a function that takes any bytes and panics where something that
//! must hold does not.
//!
//! `fuzz/` has the programs that call them, the corpora and the inputs that once failed; the test of
//! this crate feeds it all of those, so that plain `cargo test` runs them without a fuzzer. Inputs
//! of targets that need more structure than a file has are read from the front by `source`: a few
//! bytes choose, the rest is what was chosen, so a seed can be put together by hand and a fuzzer's
//! change of a byte is a small change of the whole.

mod capture;
mod conntrack;
mod fragments;
mod matcher;
mod oracle;
mod parse;
mod pipeline;
mod policy;
mod quotes;
mod source;

// The slow pipeline, which is a test's, is the oracle of a target as well.
#[path = "../../pcap-fixtures/tests/oracle/slow/mod.rs"]
mod slow;

pub use self::capture::capture;
pub use self::conntrack::conntrack;
pub use self::fragments::fragments;
pub use self::matcher::matcher;
pub use self::oracle::oracle;
pub use self::parse::{link_byte, parse};
pub use self::pipeline::pipeline;
pub use self::policy::policy;
pub use self::quotes::quotes;

/// A target: its name, which is that of its folders, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("parse", parse),
    ("fragments", fragments),
    ("quotes", quotes),
    ("capture", capture),
    ("policy_toml", policy),
    ("policy_aws", policy),
    ("matcher", matcher),
    ("conntrack", conntrack),
    ("pipeline", pipeline),
    ("oracle", oracle),
];
