//! Bytes of a capture: decompressed, buffered, counted, and bounded.

use std::io::{self, BufReader, Chain, Cursor, ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::CaptureError;

/// The largest record: beyond what any link carries, so that a longer one is damage.
pub(super) const MAX_RECORD: usize = 16 << 20;
/// Bytes asked of the system at once.
const CHUNK: usize = 256 << 10;
/// Bytes asked of a decoder at once, whatever the batch.
const DECODED: usize = 64 << 10;
/// Bytes of a batch at the least.
const SMALLEST_BATCH: usize = 4 << 10;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file that begins so is compressed.
pub(super) fn is_compressed(begin: &[u8]) -> bool {
    begin.starts_with(&GZIP) || begin.starts_with(&ZSTD)
}

/// A window on the stream that slides forward.
pub(super) struct Input<'a> {
    source: Box<dyn Read + 'a>,
    name: String,
    is_compressed: bool,
    bytes_read: Arc<AtomicU64>,
    buffer: Vec<u8>,
    /// The window: what of `buffer` is filled and not yet taken.
    start: usize,
    end: usize,
    /// Offset of `start` in the stream.
    offset: u64,
    at_end: bool,
    /// Why there is no more, if it is not the end.
    failure: Option<io::Error>,
    /// What was taken stays in `buffer`, and up to where that is enough.
    batch: Option<usize>,
}

impl<'a> Input<'a> {
    /// Recognises compression by the first bytes.
    pub(super) fn new(source: impl Read + 'a, name: &str) -> Result<Self, CaptureError> {
        let io_error = |source| CaptureError::Io { name: name.to_owned(), source };
        let bytes_read = Arc::new(AtomicU64::new(0));
        let mut counted = Counted { source, count: Arc::clone(&bytes_read) };
        let mut begin = Vec::new();
        (&mut counted).take(4).read_to_end(&mut begin).map_err(io_error)?;
        let is_compressed = is_compressed(&begin);
        let is_gzip = begin.starts_with(&GZIP);
        let whole: Chain<Cursor<Vec<u8>>, _> = Cursor::new(begin).chain(counted);
        let source: Box<dyn Read + 'a> = match (is_compressed, is_gzip) {
            (false, _) => Box::new(whole),
            (true, true) => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole))),
            (true, false) => Box::new(zstd::Decoder::new(whole).map_err(io_error)?),
        };
        // What a decoder has of the bytes before a fault hangs on how many are asked for.
        let source = match is_compressed {
            true => Box::new(BufReader::with_capacity(DECODED, source)),
            false => source,
        };
        Ok(Input {
            source,
            name: name.to_owned(),
            is_compressed,
            bytes_read,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            offset: 0,
            at_end: false,
            failure: None,
            batch: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The next `len` bytes without taking them, at most [`MAX_RECORD`]; fewer only at the end of
    /// the stream.
    pub(super) fn peek(&mut self, len: usize) -> Result<&[u8], CaptureError> {
        let len = len.min(MAX_RECORD);
        if self.end - self.start < len {
            self.fill(len);
            if self.end - self.start < len
                && let Some(error) = self.failure.take()
            {
                return Err(self.read_error(error));
            }
        }
        let have = (self.end - self.start).min(len);
        Ok(&self.buffer[self.start..self.start + have])
    }

    /// Moves past `len` bytes that were peeked at, and says where [`Self::bytes`] finds them, until
    /// more is read.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Range<usize> {
        let from = self.start;
        self.start = self.end.min(from + len);
        self.offset += (self.start - from) as u64;
        from..self.start
    }

    /// What is there to be taken without reading more.
    #[inline]
    pub(super) fn window(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Where [`Self::bytes`] will find what is taken next, if nothing is read before.
    #[inline]
    pub(super) fn place(&self) -> usize {
        self.start
    }

    /// Bytes that were taken.
    pub(super) fn bytes(&self, at: Range<usize>) -> &[u8] {
        self.buffer.get(at).unwrap_or_default()
    }

    /// Begins a batch of about `len` bytes: what is taken from here on stays where it is, in `memory`,
    /// until [`Self::end_batch`]. Memory that was a batch before is likely to be in the processor's
    /// cache.
    pub(super) fn begin_batch(&mut self, mut memory: Vec<u8>, len: usize) {
        let rest = &self.buffer[self.start..self.end];
        let len = len.max(SMALLEST_BATCH);
        memory.resize(len.max(rest.len()), 0);
        memory[..rest.len()].copy_from_slice(rest);
        (self.start, self.end) = (0, rest.len());
        self.buffer = memory;
        self.batch = Some(len / 2);
    }

    /// Whether a batch has enough.
    pub(super) fn has_enough(&self) -> bool {
        self.batch.is_some_and(|enough| self.start >= enough)
    }

    /// Ends a batch: its bytes, at the places where they were taken.
    pub(super) fn end_batch(&mut self) -> Vec<u8> {
        let rest = self.buffer[self.start..self.end].to_vec();
        (self.start, self.end, self.batch) = (0, rest.len(), None);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// The next `len` bytes of a record, of which `what` is its name.
    pub(super) fn record(&mut self, len: usize, what: &'static str) -> Result<&[u8], CaptureError> {
        let had = self.peek(len)?.len();
        if had < len {
            return Err(self.truncated(what, len, had));
        }
        Ok(&self.buffer[self.start..self.start + len])
    }

    /// Whether the stream ends here.
    pub(super) fn is_at_end(&mut self) -> Result<bool, CaptureError> {
        Ok(self.peek(1)?.is_empty())
    }

    /// Reads until the window has `len` bytes, or there is no more to be had. What the system says
    /// to that is told when it matters.
    fn fill(&mut self, len: usize) {
        if self.batch.is_none() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            // A batch may have left little.
            self.buffer.resize(self.buffer.len().max(CHUNK), 0);
        }
        let wanted = self.start + len;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < wanted && !self.at_end {
            let room = &mut self.buffer[self.end..];
            // With less than its capacity asked for, the reader asks for all of it.
            let asked = if self.is_compressed { room.len().min(DECODED - 1) } else { room.len() };
            match self.source.read(&mut room[..asked]) {
                Ok(0) => self.at_end = true,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => (self.at_end, self.failure) = (true, Some(e)),
            }
        }
    }

    fn read_error(&self, error: io::Error) -> CaptureError {
        let had = (self.end - self.start) as u64;
        match error.kind() {
            ErrorKind::UnexpectedEof if self.is_compressed => {
                self.truncated("compressed data", had as usize + 1, had as usize)
            }
            ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::Other
                if self.is_compressed && error.raw_os_error().is_none() =>
            {
                let name = self.name.clone();
                let what = format!("the compressed data cannot be read on: {error}");
                let decompressed = self.decompressed();
                CaptureError::Damaged { name, offset: self.offset + had, decompressed, what }
            }
            _ => CaptureError::Io { name: self.name.clone(), source: error },
        }
    }

    fn truncated(&self, what: &'static str, needed: usize, had: usize) -> CaptureError {
        CaptureError::Truncated {
            name: self.name.clone(),
            offset: self.offset,
            decompressed: self.decompressed(),
            what,
            needed: needed as u64,
            had: had as u64,
        }
    }

    /// Damage in the record that begins here.
    pub(super) fn damaged(&self, what: impl Into<String>) -> CaptureError {
        CaptureError::Damaged {
            name: self.name.clone(),
            offset: self.offset,
            decompressed: self.decompressed(),
            what: what.into(),
        }
    }

    pub(super) fn not_a_capture(&mut self) -> CaptureError {
        let name = self.name.clone();
        let found = match self.peek(4) {
            Ok([]) => "is empty".to_owned(),
            Ok(bytes) => {
                let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("begins with {}", hex.join(" "))
            }
            Err(error) => return error,
        };
        CaptureError::NotACapture { name, found }
    }

    const fn decompressed(&self) -> &'static str {
        if self.is_compressed { " (after decompression)" } else { "" }
    }
}

/// Counts what is read.
struct Counted<R> {
    source: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
