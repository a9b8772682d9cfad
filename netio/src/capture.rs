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
}

enum Format {
    Pcap(pcap::Format),
    PcapNg(pcapng::Section),
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
        Ok(Reader { input, format, failed: false })
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
