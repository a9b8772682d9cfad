//! Writing captures: one pcapng section, an interface for each link type and time resolution.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sgwall_packet::{Direction, Timestamp};

use super::LinkKind;
use super::error::CaptureError;

/// A packet to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutPacket<'a> {
    /// The bytes that there are.
    pub data: &'a [u8],
    /// Bytes on the wire.
    pub wire_len: u32,
    /// When it came. Times before 1970 become 1970: the format has none.
    pub time: Timestamp,
    /// Decimals of a second to write, 0-9.
    pub decimals: u8,
    /// How its first bytes are to be read.
    pub link: LinkKind,
    /// Which way it went, if known.
    pub direction: Option<Direction>,
    /// A comment of at most 65,535 bytes; more is cut off.
    pub comment: Option<&'a str>,
}

/// Writes a pcapng file, little-endian.
pub struct Writer<'a> {
    out: Box<dyn Write + 'a>,
    name: String,
    interfaces: Vec<(LinkKind, u8)>,
    block: Vec<u8>,
}

impl Writer<'static> {
    /// Creates a file, or empties it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let name = path.display().to_string();
        match File::create(path) {
            Ok(file) => Writer::new(BufWriter::with_capacity(1 << 16, file), &name),
            Err(source) => Err(CaptureError::Io { name, source }),
        }
    }
}

impl<'a> Writer<'a> {
    /// Writes to anything; `name` is for messages.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(out: impl Write + 'a, name: &str) -> Result<Self, CaptureError> {
        let mut writer = Writer {
            out: Box::new(out),
            name: name.to_owned(),
            interfaces: Vec::new(),
            block: Vec::new(),
        };
        // Byte order, version 1.0, length of the section unknown.
        writer.block.extend(0x1a2b_3c4du32.to_le_bytes());
        writer.block.extend([1, 0, 0, 0]);
        writer.block.extend(u64::MAX.to_le_bytes());
        writer.option(4, b"sgwall");
        writer.end_options();
        writer.end_block(0x0a0d_0d0a)?;
        Ok(writer)
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, packet: &OutPacket<'_>) -> Result<(), CaptureError> {
        let decimals = packet.decimals.min(9);
        let interface = self.interface(packet.link, decimals)?;
        let unit = 10u64.pow(9 - u32::from(decimals));
        let ticks = u64::try_from(packet.time.as_nanos()).unwrap_or(0) / unit;
        for word in [
            interface,
            (ticks >> 32) as u32,
            ticks as u32,
            packet.data.len() as u32,
            packet.wire_len,
        ] {
            self.block.extend(word.to_le_bytes());
        }
        self.block.extend(packet.data);
        self.pad();
        if let Some(comment) = packet.comment {
            self.option(1, comment.as_bytes());
        }
        if let Some(direction) = packet.direction {
            let flags: u32 = match direction {
                Direction::Ingress => 1,
                Direction::Egress => 2,
            };
            self.option(2, &flags.to_le_bytes());
        }
        if packet.comment.is_some() || packet.direction.is_some() {
            self.end_options();
        }
        self.end_block(6)
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        self.out.flush().map_err(|source| CaptureError::Io { name: self.name.clone(), source })
    }

    fn interface(&mut self, link: LinkKind, decimals: u8) -> Result<u32, CaptureError> {
        let key = (link, decimals);
        if let Some(index) = self.interfaces.iter().position(|known| *known == key) {
            return Ok(index as u32);
        }
        self.block.extend(link.0.to_le_bytes());
        // Reserved; and no snap length.
        self.block.extend([0; 6]);
        self.option(9, &[decimals]);
        self.end_options();
        self.end_block(1)?;
        self.interfaces.push(key);
        Ok(self.interfaces.len() as u32 - 1)
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.block.extend(code.to_le_bytes());
        self.block.extend((value.len() as u16).to_le_bytes());
        self.block.extend(value);
        self.pad();
    }

    fn end_options(&mut self) {
        self.block.extend([0; 4]);
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// Writes the body that was gathered as a block of type `kind`.
    fn end_block(&mut self, kind: u32) -> Result<(), CaptureError> {
        let len = (self.block.len() as u32 + 12).to_le_bytes();
        let parts: [&[u8]; 4] = [&kind.to_le_bytes(), &len, &self.block, &len];
        let written: io::Result<()> = parts.iter().try_for_each(|part| self.out.write_all(part));
        self.block.clear();
        written.map_err(|source| CaptureError::Io { name: self.name.clone(), source })
    }
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("name", &self.name).finish_non_exhaustive()
    }
}
