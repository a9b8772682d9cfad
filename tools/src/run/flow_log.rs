//! `sgwall run --flow-log FILE|-`: writes the flow log of the live firewall, on a thread of its own.
//!
//! The file is appended to. SIGUSR1 opens it anew, for whoever has renamed it. A file that cannot
//! be written holds up the log and never packets: that is logged once, tried again every second,
//! and a line that was written in part is completed. Meanwhile records wait in memory, as many as
//! there is room for; beyond, packets are counted as skipped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sgwall_dataplane::flow_log::{Config, Format, write_windows};
use sgwall_live::Engine;
use sgwall_live::flow_log::Merger;
use sgwall_netio::seed::random_seed;
use tracing::{error, info, warn};

use crate::cli::FlowLogArgs;
use crate::failure::Failure;

/// Records of all open windows and of those that wait to be written: about 150 MiB of them.
const MAX_RECORDS: usize = 1 << 20;
/// How often to look for windows that have ended.
const LOOK: Duration = Duration::from_millis(200);
/// How long to wait before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that are written at a time.
const CHUNK: usize = 64 * 1024;

/// A flow log that is being written.
pub(super) struct FlowLogWriter {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the writer is told.
#[derive(Default)]
struct Shared {
    reopen: AtomicBool,
    end: AtomicBool,
}

impl FlowLogWriter {
    /// Opens the file and begins the log; `None` if none is asked for.
    pub(super) fn start(args: &FlowLogArgs, engine: &Arc<Engine>) -> Result<Option<Self>, Failure> {
        let Some(path) = args.path.as_deref() else { return Ok(None) };
        let path = (path != Path::new("-")).then(|| path.to_owned());
        let mut out = Out { path, file: None, chunk: Vec::new(), is_failing: false };
        out.open().map_err(|error| {
            let mend = "name a file in a directory that this user may write to";
            Failure::Io(format!("cannot write the flow log {}: {error}; {mend}", out.name()))
        })?;
        let config = Config {
            interval: args.interval,
            traffic: args.traffic.into(),
            fields: args.format.clone(),
            max_records: MAX_RECORDS,
            only: None,
            hash_seed: random_seed(),
        };
        let shared = Arc::new(Shared::default());
        let format = args.format.clone();
        let mut merger = engine.start_flow_log(&config);
        let (told, clock) = (Arc::clone(&shared), Arc::clone(engine));
        let write = move || write_all(&told, &clock, &mut merger, &format, out);
        let thread = thread::Builder::new().name("sgwall-flow-log".into()).spawn(write);
        let thread = thread.map_err(|error| {
            Failure::Io(format!("the system gives no thread to write the flow log: {error}"))
        })?;
        Ok(Some(FlowLogWriter { shared, thread }))
    }

    /// Opens the file anew before the next line.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }

    /// Ends the log, once the workers have ended and no packet comes any more.
    pub(super) fn finish(self, engine: &Engine) {
        let skipped = engine.finish_flow_log();
        self.shared.end.store(true, Ordering::Release);
        let _ = self.thread.join();
        if skipped.packets > 0 {
            let (packets, bytes) = (skipped.packets, skipped.bytes);
            warn!(packets, bytes, "flow log: traffic is in no record; SKIPDATA lines say where");
        }
    }
}

/// Writes windows until the log is to end, and then what is left.
fn write_all(shared: &Shared, engine: &Engine, merger: &mut Merger, format: &Format, mut out: Out) {
    loop {
        // Asked first: what was handed over before the end is then seen below.
        let is_end = shared.end.load(Ordering::Acquire);
        while let Some(windows) =
            if is_end { merger.take_left() } else { merger.take(engine.now()) }
        {
            write_windows(&windows, &mut |record| {
                // Into memory, which does not fail.
                let _ = writeln!(out.chunk, "{}", format.line(record));
                if out.chunk.len() >= CHUNK {
                    out.flush(shared);
                }
            });
        }
        out.flush(shared);
        if is_end {
            return;
        }
        thread::sleep(LOOK);
    }
}

/// Where lines go.
struct Out {
    /// `None`: standard output.
    path: Option<PathBuf>,
    /// `None` while it could not be opened.
    file: Option<Box<dyn Write + Send>>,
    /// Lines to be written; the first may be the rest of one.
    chunk: Vec<u8>,
    is_failing: bool,
}

impl Out {
    fn name(&self) -> String {
        let path = self.path.as_deref();
        path.map_or_else(|| "on standard output".into(), |path| path.display().to_string())
    }

    fn open(&mut self) -> io::Result<()> {
        self.file = None;
        self.file = Some(match &self.path {
            None => Box::new(io::stdout()),
            Some(path) => Box::new(append(path)?),
        });
        Ok(())
    }

    /// Writes all that there is, however long that takes; gives up only where the log is to end.
    fn flush(&mut self, shared: &Shared) {
        loop {
            if shared.reopen.swap(false, Ordering::AcqRel) {
                self.file = None;
            }
            match self.try_write() {
                Ok(()) => {
                    if std::mem::take(&mut self.is_failing) {
                        info!("flow log {}: it can be written again", self.name());
                    }
                    return;
                }
                Err(failure) if shared.end.load(Ordering::Acquire) => {
                    let bytes = self.chunk.len();
                    error!(bytes, "flow log {}: given up: {failure}", self.name());
                    self.chunk.clear();
                    return;
                }
                Err(failure) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        let name = self.name();
                        error!(
                            "flow log {name}: cannot write: {failure}; trying again every \
                             second, packets do not wait"
                        );
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        while !self.chunk.is_empty() {
            match file.write(&self.chunk) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.chunk.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        file.flush()
    }
}

/// Opens a file to append to; others than its owner and group may not read who talks to whom.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(path: &Path) -> Out {
        let chunk = b"one\n".to_vec();
        Out { path: Some(path.to_owned()), file: None, chunk, is_failing: false }
    }

    /// A full disk keeps the lines; once the file is opened anew elsewhere, they are all there.
    #[test]
    fn what_a_full_disk_refused_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flow.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut out = out(&path);
        let refused = out.try_write().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(out.chunk, b"one\n");
        std::fs::remove_file(&path).unwrap();
        let shared = Shared::default();
        shared.reopen.store(true, Ordering::Release);
        out.flush(&shared);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    }

    /// As logrotate does: the file is renamed, then a signal, and lines go to a new one.
    #[test]
    fn a_renamed_file_is_left_alone_once_told() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("flow.log"), dir.path().join("flow.log.1"));
        let (mut out, shared) = (out(&path), Shared::default());
        out.flush(&shared);
        std::fs::rename(&path, &old).unwrap();
        shared.reopen.store(true, Ordering::Release);
        out.flush(&shared);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        out.chunk = b"two\n".to_vec();
        out.flush(&shared);
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&old), read(&path)), ("one\n".into(), "two\n".into()));
    }

    /// At the end, what cannot be written is given up: the firewall must be able to end.
    #[test]
    fn the_end_does_not_wait_for_a_full_disk() {
        let mut out = out(Path::new("/dev/full"));
        let shared = Shared::default();
        shared.end.store(true, Ordering::Release);
        out.flush(&shared);
        assert!(out.chunk.is_empty());
    }
}
