//! pcap: a file header of 24 bytes, then records of a header and a packet each.

use std::ops::Range;

use sgwall_packet::Timestamp;

use super::error::CaptureError;
use super::input::{Input, MAX_RECORD};
use super::{LinkKind, Located};

/// What the file header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    big_endian: bool,
    /// Nanoseconds of the fraction's unit, and its decimals.
    unit: (i64, u8),
    /// Bytes of a record's header: 16, or 24 in the variant of some Linux 2.2 systems.
    record_header: usize,
    link: LinkKind,
}

const FILE_HEADER: usize = 24;

impl Format {
    /// By the magic number, in either byte order.
    pub(super) fn of(magic: [u8; 4]) -> Option<Self> {
        [true, false].into_iter().find_map(|big_endian| {
            let (unit, record_header) = match u32_at(&magic, 0, big_endian) {
                0xa1b2_c3d4 => ((1000, 6), 16),
                0xa1b2_3c4d => ((1, 9), 16),
                0xa1b2_cd34 => ((1000, 6), 24),
                _ => return None,
            };
            Some(Format { big_endian, unit, record_header, link: LinkKind(0) })
        })
    }

    pub(super) fn read_header(mut self, input: &mut Input<'_>) -> Result<Self, CaptureError> {
        let header = input.record(FILE_HEADER, "the file header")?;
        // The upper bits tell of a frame check sequence; it follows what the IP length covers.
        self.link = LinkKind(u32_at(header, 20, self.big_endian) as u16);
        let version = match self.big_endian {
            true => u16::from_be_bytes([header[4], header[5]]),
            false => u16::from_le_bytes([header[4], header[5]]),
        };
        if version != 2 {
            return Err(
                input.damaged(format!("the file header says pcap version {version}, not 2"))
            );
        }
        input.take(FILE_HEADER);
        Ok(self)
    }

    pub(super) fn next_packet(
        &self,
        input: &mut Input<'_>,
    ) -> Result<Option<Located>, CaptureError> {
        let record = match self.whole(input.window()) {
            Some(record) => Some(record),
            None => self.read_record(input)?,
        };
        Ok(record.map(|(header, len)| self.located(header, input.take(len))))
    }

    /// Whether the record that begins here is there to its end.
    pub(super) fn is_whole(&self, window: &[u8]) -> bool {
        self.whole(window).is_some()
    }

    /// Takes all packets whose records are there to their end.
    pub(super) fn take_whole(&self, input: &mut Input<'_>, packets: &mut Vec<Located>) {
        let (window, place) = (input.window(), input.place());
        let mut end = 0;
        while let Some((header, len)) = self.whole(&window[end..]) {
            let start = end;
            end += len;
            packets.push(self.located(header, place + start..place + end));
        }
        input.take(end);
    }

    /// The packet of a record.
    #[inline(always)]
    fn located(&self, header: Header, record: Range<usize>) -> Located {
        let [seconds, fraction, captured, wire_len] = header;
        let (unit, decimals) = self.unit;
        // A fraction beyond a second carries over, as in libpcap.
        let time = i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * unit;
        Located {
            data: record.start + self.record_header..record.end,
            wire_len: wire_len.max(captured),
            time: Timestamp::from_nanos(time),
            decimals,
            link: self.link,
            direction: None,
        }
    }
}

/// The four numbers at the beginning of a record's header: seconds, their fraction, bytes captured
/// and bytes on the wire.
type Header = [u32; 4];

impl Format {
    /// The header of the record that begins here and the length of both, if the header is there.
    #[inline(always)]
    fn record(&self, bytes: &[u8]) -> Option<(Header, usize)> {
        let header: &[u8; 16] = bytes.get(..self.record_header)?.first_chunk()?;
        let header = [0, 4, 8, 12].map(|at| u32_at(header, at, self.big_endian));
        Some((header, self.record_header.saturating_add(header[2] as usize)))
    }

    /// The same, if all of the record is there, and it is none that must be refused.
    #[inline(always)]
    fn whole(&self, bytes: &[u8]) -> Option<(Header, usize)> {
        self.record(bytes).filter(|(_, len)| *len <= bytes.len().min(MAX_RECORD))
    }

    /// The same, read on until all of the record is there; `None` at the end.
    #[cold]
    fn read_record(&self, input: &mut Input<'_>) -> Result<Option<(Header, usize)>, CaptureError> {
        if input.is_at_end()? {
            return Ok(None);
        }
        let header = input.record(self.record_header, "the header of a record")?;
        let Some((header, len)) = self.record(header) else { return Ok(None) };
        if len > MAX_RECORD {
            let captured = header[2];
            return Err(input
                .damaged(format!("a record claims {captured} bytes, more than any packet has")));
        }
        input.record(len, "a record")?;
        Ok(Some((header, len)))
    }
}

/// Four bytes at `at`, which the caller has made sure of.
fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let bytes = bytes.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}
