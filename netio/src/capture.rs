//! Packet captures: pcap and pcapng, plain or compressed, read as a stream and written back.
//!
//! What a file is shows in its first bytes, never in its name. A damaged or cut file yields every
//! packet before the damage, then an error with the byte at which it lies. Memory is bounded by
//! one block of at most 16 MiB, whatever lengths a hostile file claims.
//!
//! Sources: pcap, draft-ietf-opsawg-pcap; pcapng, draft-ietf-opsawg-pcapng; link types,
//! draft-ietf-opsawg-pcaplinktype.

mod error;
mod input;
mod pcap;
mod pcapng;
mod writer;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use sgwall_packet::{Direction, LinkType, Timestamp};

pub use error::CaptureError;
use input::Input;
pub use writer::{OutPacket, Writer};

/// One packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The bytes that were captured.
    pub data: &'a [u8],
    /// Bytes on the wire; not less than `data.len()`.
    pub wire_len: u32,
    /// When it was captured. A pcapng Simple Packet has no time: it takes that of the packet
    /// before it.
    pub time: Timestamp,
    /// Decimals of a second that the capture records, 0-9. Finer times are cut to nanoseconds.
    pub decimals: u8,
    /// How its first bytes are to be read.
    pub link: LinkKind,
    /// Which way the packet went, as seen from the capturing host, if the capture says.
    pub direction: Option<Direction>,
}

/// A packet, whose bytes lie at `data` of a buffer.
#[derive(Clone, Debug)]
struct Located {
    data: Range<usize>,
    wire_len: u32,
    time: Timestamp,
    decimals: u8,
    link: LinkKind,
    direction: Option<Direction>,
}

impl Located {
    fn packet<'a>(&self, data: &'a [u8]) -> Packet<'a> {
        let Located { wire_len, time, decimals, link, direction, .. } = *self;
        Packet { data, wire_len, time, decimals, link, direction }
    }
}

/// Packets that were read together, for whoever hands them to other threads: the bytes lie where
/// they were read.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    packets: Vec<Located>,
}

impl Batch {
    /// How many packets it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The packet of a number, from 0.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<Packet<'_>> {
        let located = self.packets.get(number)?;
        Some(located.packet(self.bytes.get(located.data.clone()).unwrap_or_default()))
    }

    /// All of them, in the order of the capture.
    pub fn iter(&self) -> impl Iterator<Item = Packet<'_>> {
        (0..self.len()).filter_map(|number| self.get(number))
    }
}

/// A `LINKTYPE_` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkKind(pub u16);

impl LinkKind {
    /// The link type, if it is one that sgwall reads.
    #[must_use]
    pub const fn known(self) -> Option<LinkType> {
        Some(match self.0 {
            0 => LinkType::Null,
            1 => LinkType::Ethernet,
            // 12 and 14 are what some systems call DLT_RAW.
            12 | 14 | 101 => LinkType::RawIp,
            108 => LinkType::Loop,
            113 => LinkType::LinuxSll,
            228 => LinkType::Ipv4,
            229 => LinkType::Ipv6,
            276 => LinkType::LinuxSll2,
            _ => return None,
        })
    }
}

impl From<LinkType> for LinkKind {
    fn from(link: LinkType) -> Self {
        LinkKind(match link {
            LinkType::Null => 0,
            LinkType::Ethernet => 1,
            LinkType::RawIp => 101,
            LinkType::Loop => 108,
            LinkType::LinuxSll => 113,
            LinkType::Ipv4 => 228,
            LinkType::Ipv6 => 229,
            LinkType::LinuxSll2 => 276,
        })
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LINKTYPE {}", self.0)
    }
}

/// Whether a file that begins so is a capture, or compressed as captures are.
#[must_use]
pub fn is_magic(bytes: [u8; 4]) -> bool {
    input::is_compressed(&bytes) || pcap::Format::of(bytes).is_some() || bytes == pcapng::MAGIC
}

/// Opens a capture; `-` is standard input.
///
/// # Errors
/// If the file cannot be read, or is no capture.
pub fn open(path: &Path) -> Result<Reader<'static>, CaptureError> {
    if path == Path::new("-") {
        return Reader::new(io::stdin().lock(), "standard input");
    }
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => Reader::new(file, &name),
        Err(source) => Err(CaptureError::Io { name, source }),
    }
}

/// Reads a capture packet by packet.
pub struct Reader<'a> {
    input: Input<'a>,
    format: Format,
    failed: bool,
    /// What is wrong behind the packets that were given out.
    pending: Option<CaptureError>,
}

enum Format {
    Pcap(pcap::Format),
    PcapNg(pcapng::Section),
}

impl Format {
    /// Takes the packets that have been read to their end already, as far as that can be told
    /// beforehand.
    fn take_whole(&self, input: &mut Input<'_>, packets: &mut Vec<Located>) {
        if let Format::Pcap(format) = self {
            format.take_whole(input, packets);
        }
    }

    /// Whether the record that begins here is there to its end, as far as that can be told.
    fn is_whole(&self, window: &[u8]) -> bool {
        match self {
            Format::Pcap(format) => format.is_whole(window),
            Format::PcapNg(section) => section.is_whole(window),
        }
    }
}

impl<'a> Reader<'a> {
    /// Reads a capture from anything; `name` is for messages.
    ///
    /// # Errors
    /// If it cannot be read, or is no capture.
    pub fn new(input: impl Read + 'a, name: &str) -> Result<Self, CaptureError> {
        let mut input = Input::new(input, name)?;
        let mut magic = [0; 4];
        let begin = input.peek(4)?;
        if begin.len() < 4 {
            return Err(input.not_a_capture());
        }
        magic.copy_from_slice(begin);
        let format = if magic == pcapng::MAGIC {
            Format::PcapNg(pcapng::Section::default())
        } else {
            match pcap::Format::of(magic) {
                Some(format) => Format::Pcap(format.read_header(&mut input)?),
                None => return Err(input.not_a_capture()),
            }
        };
        Ok(Reader { input, format, failed: false, pending: None })
    }

    /// The name it was opened with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.input.name()
    }

    /// Bytes taken from the file so far, before decompression: for a progress bar.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    /// The next packet, `None` at the end of the capture.
    ///
    /// # Errors
    /// Once, where the file is damaged, cut off or unreadable; then the capture has ended.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        let next = self.next_located()?;
        Ok(next.map(|packet| packet.packet(self.input.bytes(packet.data.clone()))))
    }

    /// Replaces what `batch` holds by the next packets, about `bytes` bytes of them; by none at the
    /// end of the capture.
    ///
    /// # Errors
    /// As [`Self::next_packet`], once the packets before the damage have been given out.
    pub fn next_batch(&mut self, batch: &mut Batch, bytes: usize) -> Result<(), CaptureError> {
        batch.packets.clear();
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        self.input.begin_batch(std::mem::take(&mut batch.bytes), bytes);
        let end = loop {
            if !self.failed {
                self.format.take_whole(&mut self.input, &mut batch.packets);
            }
            if !batch.is_empty() && self.is_batch_over() {
                break Ok(());
            }
            match self.next_located() {
                Ok(Some(packet)) => batch.packets.push(packet),
                end => break end.map(|_| ()),
            }
        };
        batch.bytes = self.input.end_batch();
        match end {
            Err(error) if !batch.is_empty() => self.pending = Some(error),
            end => return end,
        }
        Ok(())
    }

    /// Whether a batch that is not empty ends here: it has enough, and the next packet is not there to
    /// its end, or there is no more without waiting for it.
    fn is_batch_over(&self) -> bool {
        let window = self.input.window();
        window.is_empty() || (self.input.has_enough() && !self.format.is_whole(window))
    }

    #[inline]
    fn next_located(&mut self) -> Result<Option<Located>, CaptureError> {
        if self.failed {
            return Ok(None);
        }
        let next = match &mut self.format {
            Format::Pcap(format) => format.next_packet(&mut self.input),
            Format::PcapNg(section) => section.next_packet(&mut self.input),
        };
        self.failed = next.is_err();
        next
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("name", &self.name()).finish_non_exhaustive()
    }
}
