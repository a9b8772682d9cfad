//! `--flow-log FILE|-`: what a replay would have left in a VPC's flow log.
//!
//! Time is the capture's: windows end when a later packet comes, and the last one ends with the
//! last frame. Lines, fields and what is not logged: `docs/flow-logs.md`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sgwall_dataplane::flow_log::{Config, FlowLog, FlowLogRecord, Format};
use sgwall_dataplane::{Attribution, Event};
use sgwall_netio::seed::random_seed;
use sgwall_packet::Timestamp;
use sgwall_rules::compile::CompiledPolicy;

use crate::cli::ReplayArgs;
use crate::failure::Failure;

/// Records of one window at once: about 150 MiB of them.
const MAX_RECORDS: usize = 1 << 20;

/// A flow log on its way to a file.
pub(super) struct FlowLogFile {
    log: FlowLog,
    format: Format,
    out: Box<dyn Write>,
    /// The file; `None`: standard output.
    path: Option<PathBuf>,
    /// The time of the last event.
    latest: Timestamp,
}

impl FlowLogFile {
    /// The log that the flags ask for, if they ask for one. It is of the interfaces that judge.
    pub(super) fn create(
        args: &ReplayArgs,
        policy: &Arc<CompiledPolicy>,
        attribution: &Attribution,
    ) -> Result<Option<Self>, Failure> {
        let Some(path) = args.flow_log.path.as_deref() else { return Ok(None) };
        let path = (path != Path::new("-")).then(|| path.to_owned());
        let out: Box<dyn Write> = match &path {
            None => {
                refuse_other_output(args)?;
                Box::new(BufWriter::new(io::stdout()))
            }
            Some(path) => {
                refuse_same_file(args, path)?;
                let file = File::create(path).map_err(|error| failure(Some(path), error))?;
                Box::new(BufWriter::new(file))
            }
        };
        let format = args.flow_log.format.clone();
        let id = |&index: &usize| policy.interfaces().get(index).map(|i| i.id.clone());
        let config = Config {
            interval: args.flow_log.interval,
            traffic: args.flow_log.traffic.into(),
            fields: format.clone(),
            max_records: MAX_RECORDS,
            only: attribution.only.as_ref().map(|only| only.iter().filter_map(id).collect()),
            hash_seed: random_seed(),
        };
        let log = FlowLog::new(Arc::clone(policy), config);
        Ok(Some(FlowLogFile { log, format, out, path, latest: Timestamp::default() }))
    }

    /// Whether it goes to standard output, which then holds nothing else.
    pub(super) fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    /// Another policy takes over.
    pub(super) fn set_policy(&mut self, policy: &Arc<CompiledPolicy>) {
        self.log.set_policy(Arc::clone(policy));
    }

    /// Counts an event, and writes the records of windows that it ended.
    pub(super) fn record(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let FlowLogFile { log, format, out, path, latest } = self;
        *latest = event.frame.time;
        let mut written = Ok(());
        log.record(event, &mut line_writer(out, format, &mut written));
        written.map_err(|error| failure(path.as_deref(), error))
    }

    /// Writes what is left. Traffic that is in no record is told on standard error.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let FlowLogFile { log, format, out, path, latest } = self;
        let mut written = Ok(());
        log.finish(*latest, &mut line_writer(out, format, &mut written));
        written.and_then(|()| out.flush()).map_err(|error| failure(path.as_deref(), error))?;
        let skipped = log.skipped();
        if skipped.packets > 0 {
            anstream::eprintln!(
                "warning: flow log: {} packets ({} bytes) are in no record, because their windows \
                 held {MAX_RECORDS} records already; their interfaces have SKIPDATA lines",
                skipped.packets,
                skipped.bytes
            );
        }
        Ok(())
    }
}

/// Writes each record as a line, until one cannot be written.
fn line_writer<'a>(
    out: &'a mut impl Write,
    format: &'a Format,
    written: &'a mut io::Result<()>,
) -> impl FnMut(&FlowLogRecord<'_>) + 'a {
    move |record| {
        if written.is_ok() {
            *written = writeln!(out, "{}", format.line(record));
        }
    }
}

/// Standard output holds the flow log or something else, not both.
fn refuse_other_output(args: &ReplayArgs) -> Result<(), Failure> {
    let other = match (args.json, args.packets) {
        (true, _) => "--json",
        (_, true) => "--packets",
        _ => return Ok(()),
    };
    Err(Failure::Usage(format!(
        "--flow-log - and {other} both print to standard output; name a file for the flow log"
    )))
}

fn refuse_same_file(args: &ReplayArgs, path: &Path) -> Result<(), Failure> {
    let others = [("--pass", &args.pass), ("--drop", &args.drop), ("--emitted", &args.emitted)];
    match others.iter().find(|(_, other)| other.as_deref() == Some(path)) {
        Some((flag, _)) => Err(Failure::Usage(format!("{flag} and --flow-log name the same file"))),
        None => Ok(()),
    }
}

fn failure(path: Option<&Path>, error: io::Error) -> Failure {
    match path {
        None => Failure::Output(error),
        Some(path) => Failure::Io(format!("cannot write {}: {error}", path.display())),
    }
}
