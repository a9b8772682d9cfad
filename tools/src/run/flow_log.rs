//! `sgwall run --flow-log FILE|-`: writes the flow log of the live firewall, on a thread of its own.
//!
//! The file is appended to. Once it is as large as it may be, it is renamed and a new one begun
//! (`--flow-log-rotate`); SIGUSR1 opens it anew, for whoever else has renamed it. A file that cannot
//! be written holds up the log and never packets: that is logged once, tried again every second,
//! and a line that was written in part is completed. Meanwhile records wait in memory, as many as
//! there is room for; beyond, packets are counted as skipped.

use std::fs::{self, File, OpenOptions};
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

use super::args::RotationArgs;
use crate::cli::FlowLogArgs;
use crate::failure::Failure;

/// Records of all open windows and of those that wait to be written.
const MAX_RECORDS: usize = 1 << 20;
/// What they take at most, roughly.
pub(super) const MAX_BYTES: u64 = 150 << 20;
/// How often to look for windows that have ended.
const LOOK: Duration = Duration::from_millis(200);
/// How long to wait before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that are written at a time.
const CHUNK: usize = 64 * 1024;

/// A flow log that is being written, or [`Opened`] and not yet.
pub(super) struct FlowLogWriter<State = Writing>(State);

/// The file that it will be written to.
pub(super) struct Opened(Out);

/// Who writes it.
pub(super) struct Writing {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the writer is told.
#[derive(Default)]
struct Shared {
    reopen: AtomicBool,
    end: AtomicBool,
}

impl FlowLogWriter<Opened> {
    /// Opens the file; `None` if no flow log is asked for.
    pub(super) fn open(
        args: &FlowLogArgs,
        rotation: RotationArgs,
    ) -> Result<Option<Self>, Failure> {
        let Some(path) = args.path.as_deref() else { return Ok(None) };
        let path = (path != Path::new("-")).then(|| path.to_owned());
        let mut out = Out::new(path, rotation);
        out.open().map_err(|error| {
            let mend = "name a file in a directory that this user may write to";
            Failure::Io(format!("cannot write the flow log {}: {error}; {mend}", out.name()))
        })?;
        Ok(Some(FlowLogWriter(Opened(out))))
    }

    /// Begins the log.
    pub(super) fn start(
        self,
        args: &FlowLogArgs,
        engine: &Arc<Engine>,
    ) -> Result<FlowLogWriter, Failure> {
        let FlowLogWriter(Opened(out)) = self;
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
        Ok(FlowLogWriter(Writing { shared, thread }))
    }
}

impl FlowLogWriter {
    /// Opens the file anew before the next line.
    pub(super) fn reopen(&self) {
        self.0.shared.reopen.store(true, Ordering::Release);
    }

    /// Ends the log, once the workers have ended and no packet comes any more.
    pub(super) fn finish(self, engine: &Engine) {
        let skipped = engine.finish_flow_log();
        self.0.shared.end.store(true, Ordering::Release);
        let _ = self.0.thread.join();
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
    rotation: RotationArgs,
    /// Bytes in the file.
    size: u64,
}

impl Out {
    fn new(path: Option<PathBuf>, rotation: RotationArgs) -> Self {
        Out { path, file: None, chunk: Vec::new(), is_failing: false, rotation, size: 0 }
    }

    fn name(&self) -> String {
        let path = self.path.as_deref();
        path.map_or_else(|| "on standard output".into(), |path| path.display().to_string())
    }

    fn open(&mut self) -> io::Result<()> {
        self.file = None;
        self.file = Some(match &self.path {
            None => Box::new(io::stdout()),
            Some(path) => {
                let file = append(path)?;
                self.size = file.metadata()?.len();
                Box::new(file)
            }
        });
        Ok(())
    }

    /// Renames a file that is as large as it may be; the next line begins a new one. To be called
    /// between lines.
    fn rotate(&mut self) -> io::Result<()> {
        let RotationArgs { rotate: Some(bytes), keep } = self.rotation else { return Ok(()) };
        let Some(path) = self.path.as_deref().filter(|_| self.size >= bytes.get()) else {
            return Ok(());
        };
        for number in (1..keep).rev() {
            match fs::rename(numbered(path, number), numbered(path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(path, numbered(path, 1))?;
        (self.file, self.size) = (None, 0);
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
                    if let Err(failure) = self.rotate() {
                        // What is written goes on into the file that is there.
                        self.rotation.rotate = None;
                        let name = self.name();
                        error!(
                            "flow log {name}: cannot rename it: {failure}; it grows until the \
                             firewall is started again: see that its directory may be written to"
                        );
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
                Ok(written) => {
                    self.chunk.drain(..written);
                    self.size += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        file.flush()
    }
}

/// `flow.log.1` and so on; 1 is the last that was written.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Opens a file to append to; others than its owner and group may not read who talks to whom.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn out(path: &Path) -> Out {
        let rotation = RotationArgs { rotate: None, keep: 1 };
        Out { chunk: b"one\n".to_vec(), ..Out::new(Some(path.to_owned()), rotation) }
    }

    /// Files of the size that is given and no smaller, the last written first, the oldest gone;
    /// what an earlier run has written counts.
    #[test]
    fn a_full_file_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flow.log");
        fs::write(&path, "zero\n").unwrap();
        let rotation = RotationArgs { rotate: NonZeroU64::new(8), keep: 2 };
        let (mut out, shared) = (Out { rotation, ..out(&path) }, Shared::default());
        for text in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n"] {
            out.chunk = text.into();
            out.flush(&shared);
        }
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
        let found: Vec<_> = names.iter().map(read).collect();
        assert_eq!(names, [path.clone(), numbered(&path, 1), numbered(&path, 2)]);
        assert_eq!(found, ["six\n", "four\nfive\n", "two\nthree\n"]);
    }

    /// Where renaming fails, lines go on into the file that is there.
    #[test]
    fn a_file_that_cannot_be_renamed_is_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flow.log");
        fs::create_dir_all(numbered(&path, 1).join("in the way")).unwrap();
        let rotation = RotationArgs { rotate: NonZeroU64::new(1), keep: 1 };
        let (mut out, shared) = (Out { rotation, ..out(&path) }, Shared::default());
        out.flush(&shared);
        out.chunk = b"two\n".to_vec();
        out.flush(&shared);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
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

    /// Who talks to whom is its owner's and group's to know.
    #[test]
    fn others_may_not_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flow.log");
        out(&path).flush(&Shared::default());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
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
