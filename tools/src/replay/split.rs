//! `--pass FILE`, `--drop FILE` and `--emitted FILE`: the packets of a replay, written back by
//! their fate, and those that were made on the way.

use std::path::Path;

use sgwall_dataplane::{Event, Judgement};
use sgwall_netio::capture::{OutPacket, Writer};
use sgwall_rules::compile::CompiledPolicy;

use super::record;
use crate::failure::Failure;

/// Files for what passed, what was dropped and what was emitted, each if asked for.
pub(super) struct Split {
    pass: Option<Writer<'static>>,
    drop: Option<Writer<'static>>,
    emitted: Option<Writer<'static>>,
}

impl Split {
    pub(super) fn create(
        pass: Option<&Path>,
        drop: Option<&Path>,
        emitted: Option<&Path>,
    ) -> Result<Self, Failure> {
        let named = [("--pass", pass), ("--drop", drop), ("--emitted", emitted)];
        for (n, (flag, path)) in named.iter().enumerate().filter(|(_, (_, path))| path.is_some()) {
            if let Some((other, _)) = named[..n].iter().find(|(_, other)| other == path) {
                return Err(Failure::Usage(format!("{other} and {flag} name the same file")));
            }
        }
        let create = |path: Option<&Path>| path.map(Writer::create).transpose();
        Ok(Split { pass: create(pass)?, drop: create(drop)?, emitted: create(emitted)? })
    }

    /// Whether any file is asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.pass.is_some() || self.drop.is_some() || self.emitted.is_some()
    }

    /// Writes a frame, once its last word is spoken. What was not judged goes nowhere.
    pub(super) fn write(
        &mut self,
        event: &Event<'_>,
        policy: &CompiledPolicy,
    ) -> Result<(), Failure> {
        let Judgement::Verdict(verdict) = event.judgement else { return Ok(()) };
        let is_drop = !verdict.is_pass();
        let writer = match (event.emitted, is_drop) {
            (Some(_), _) => &mut self.emitted,
            (None, true) => &mut self.drop,
            (None, false) => &mut self.pass,
        };
        let (Some(writer), Some(link), true) = (writer, event.frame.link, event.is_final) else {
            return Ok(());
        };
        let comment = is_drop.then(|| comment(event, policy));
        writer.write(&OutPacket {
            data: event.frame.data,
            wire_len: event.frame.wire_len,
            time: event.frame.time,
            decimals: event.frame.decimals,
            link: link.into(),
            direction: event.side.map(|(_, direction)| direction),
            comment: comment.as_deref(),
        })?;
        Ok(())
    }

    /// Writes out what is buffered.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let writers = [&mut self.pass, &mut self.drop, &mut self.emitted];
        for writer in writers.into_iter().flatten() {
            writer.flush()?;
        }
        Ok(())
    }
}

/// `no-rule (security-group): no rule of the interface's groups allows it`
fn comment(event: &Event<'_>, policy: &CompiledPolicy) -> String {
    let (_, stage, reason) = record::words(&event.judgement);
    let mut text = format!("{reason} ({stage})");
    if let Some(rule) = record::rule(event, policy) {
        text = format!("{text} by {rule}");
    }
    if let Some(error) = event.error {
        text = format!("{text}: {error}");
    }
    text
}
