//! `--at TIME=POLICY`: the policies that take over in the middle of a replay.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sgwall_packet::{Duration, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};

use crate::failure::Failure;
use crate::policy;

/// One `--at`, as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    when: When,
    /// What stands before the `=`.
    time: String,
    path: PathBuf,
}

/// When a policy takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// This long after the first packet.
    After(Duration),
    /// At this time.
    At(Timestamp),
}

impl At {
    /// `12.5=p.toml`, `@1700000012.5=p.toml`, `2026-01-31T12:00:00Z=p.toml`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (time, path) = text.split_once('=').ok_or("expected TIME=FILE")?;
        if path.is_empty() {
            return Err("no policy is named after the =".into());
        }
        let when = When::parse(time).ok_or_else(|| {
            format!(
                "{time:?} is no time: write seconds after the first packet (12.5), or an absolute \
                 time (@1700000012.5, 2026-01-31T12:00:00Z)"
            )
        })?;
        Ok(At { when, time: time.to_owned(), path: path.into() })
    }
}

impl At {
    /// Its policy.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// With a path that is meant within a folder.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.path = folder.join(self.path);
        self
    }

    /// When it takes over, if the first packet came at this time.
    pub(crate) fn due(&self, first: Timestamp) -> Timestamp {
        self.when.since(first)
    }
}

impl When {
    fn parse(text: &str) -> Option<Self> {
        if let Some(seconds) = text.strip_prefix('@') {
            return Some(When::At(Timestamp::default().after(seconds_of(seconds)?)));
        }
        if let Some(seconds) = seconds_of(text) {
            return Some(When::After(seconds));
        }
        let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
        Some(When::At(Timestamp::from_nanos(i64::try_from(nanos).ok()?)))
    }

    fn since(self, first: Timestamp) -> Timestamp {
        match self {
            When::After(wait) => first.after(wait),
            When::At(time) => time,
        }
    }
}

/// `12.5`, to the nanosecond.
fn seconds_of(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

/// A policy that is to take over.
#[derive(Clone)]
pub(super) struct Change {
    when: When,
    /// What was typed as its time.
    pub(super) time: String,
    /// Its file or directory.
    pub(super) name: String,
    pub(super) policy: Arc<CompiledPolicy>,
}

/// The changes still to come.
#[derive(Clone, Default)]
pub(super) struct Changes {
    /// In the order in which they were given, until the first packet tells when they are due.
    given: Vec<Change>,
    pending: VecDeque<(Timestamp, Change)>,
    first: Option<Timestamp>,
}

impl Changes {
    /// Reads and compiles all policies, each as it differs from the one before, so that a broken one
    /// is found before anything is judged. `first` is in force at the beginning.
    pub(super) fn load(all: &[At], first: &Arc<CompiledPolicy>) -> Result<Self, Failure> {
        let mut given: Vec<Change> = Vec::new();
        for (at, generation) in all.iter().zip(1..) {
            let files = policy::read(std::slice::from_ref(&at.path))?;
            let before = given.last().map_or(first, |change| &change.policy);
            let policy = policy::recompile(before, &files, Generation(generation))?;
            given.push(Change {
                when: at.when,
                time: at.time.clone(),
                name: at.path.display().to_string(),
                policy,
            });
        }
        Ok(Changes { given, ..Changes::default() })
    }

    /// All of them.
    pub(super) fn given(&self) -> &[Change] {
        &self.given
    }

    /// The next change that is due before a packet of time `now`, in the order of their times.
    #[inline]
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Change> {
        match self.given.is_empty() && self.pending.is_empty() {
            true => None,
            false => self.due_of_some(now),
        }
    }

    fn due_of_some(&mut self, now: Timestamp) -> Option<Change> {
        let first = *self.first.get_or_insert(now);
        if !self.given.is_empty() {
            let mut timed: Vec<_> =
                self.given.drain(..).map(|change| (change.when.since(first), change)).collect();
            timed.sort_by_key(|(time, _)| *time);
            self.pending = timed.into();
        }
        self.pending.front().filter(|(time, _)| *time <= now)?;
        self.pending.pop_front().map(|(_, change)| change)
    }

    /// Whether a change is due before a packet of time `now` that is not the first.
    #[inline]
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.pending.front().is_some_and(|(time, _)| *time <= now)
    }

    /// Those whose time never came.
    pub(super) fn never_due(&self) -> impl Iterator<Item = &Change> {
        self.given.iter().chain(self.pending.iter().map(|(_, change)| change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_absolute() {
        let when = |text| When::parse(text);
        assert_eq!(when("12.5"), Some(When::After(Duration::from_millis(12_500))));
        assert_eq!(when("0"), Some(When::After(Duration::ZERO)));
        let at = Some(When::At(Timestamp::from_nanos(1_700_000_012_500_000_000)));
        assert_eq!(when("@1700000012.5"), at);
        assert_eq!(when("2023-11-14T22:13:32.5Z"), at);
        assert_eq!(when("2023-11-14T23:13:32.5+01:00"), at);
        for wrong in ["", "-1", "1e3", "@", "@x", "1.0000000001", "yesterday", "2023-11-14"] {
            assert_eq!(when(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_change_names_its_policy() {
        assert!(At::parse("5").is_err_and(|e| e.contains("TIME=FILE")));
        assert!(At::parse("5=").is_err_and(|e| e.contains("no policy")));
        assert!(At::parse("x=p.toml").is_err_and(|e| e.contains("no time")));
        assert_eq!(At::parse("5=a=b.toml").map(|at| at.path), Ok("a=b.toml".into()));
    }
}
