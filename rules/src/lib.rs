//! What is allowed: the policy model, its loaders, its validation and its compiled form.
//!
//! * [`model`] is the policy as a person or AWS states it.
//! * [`native`] reads it from TOML, [`aws`] from the JSON that `aws ec2 describe-*` prints, a private
//!   module from that of `terraform show -json`; [`load`] tells them apart, merges several files and
//!   validates the whole.
//! * [`edit`] changes it as the EC2 API does, with AWS's checks and error codes.
//! * [`compile`] turns a valid policy into [`compile::CompiledPolicy`]: a matcher for each
//!   direction of each set of groups and for each network ACL, with lookups in constant time.
//! * [`oracle`] walks every rule: slow, obvious, and what the tests hold the matcher to.
//! * [`explain`] says of every rule why it does not match a packet, and which came nearest.
//! * [`text`] is the one-line notation of rules, for tests and the command line.
//!
//! This crate knows nothing of tracking, threads, time or verdicts: it answers with a match.
//! Nor does it open files: bytes and a name come in.

pub mod aws;
pub mod compare;
pub mod compile;
pub mod diagnostic;
pub mod edit;
pub mod explain;
pub mod instance_types;
mod json;
pub mod limits;
pub mod lint;
pub mod load;
pub mod matcher;
pub mod model;
pub mod native;
pub mod oracle;
pub mod region;
mod terraform;
pub mod text;
mod validate;
