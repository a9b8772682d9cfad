//! Skeleton, to be replaced.

use crate::diagnostic::Diagnostic;
use crate::model::Policy;

/// Collects AWS answers of several files, then turns them into a policy.
#[derive(Debug, Default)]
pub struct Dump {}

impl Dump {
    /// Adds one file.
    pub fn add(&mut self, _name: &str, _value: serde_json::Value, _out: &mut Vec<Diagnostic>) {}
    /// Moves everything into `policy`.
    pub fn finish(self, _policy: &mut Policy, _out: &mut Vec<Diagnostic>) {}
}
