//! pcapng: blocks of a type, a length, a body and the length again, in sections.

use sgwall_packet::{Direction, Timestamp};

use super::error::CaptureError;
use super::input::{Input, MAX_RECORD};
use super::{LinkKind, Located};

/// The type of a section header, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// Obsolete, but old captures have it.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

const OPTION_END: u16 = 0;
/// `epb_flags`, `pack_flags`.
const OPTION_FLAGS: u16 = 2;
const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;

/// Type and length before a body, and the length after it.
const FRAME: usize = 12;
/// Interfaces of a section: more is damage.
const MAX_INTERFACES: usize = 1 << 16;

/// The section that is being read.
#[derive(Debug, Default)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// The time of the last packet, for those that have none.
    last: Timestamp,
}

/// What an interface description says.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkKind,
    /// Bytes kept of a packet; 0: all.
    snap_len: u32,
    resolution: Resolution,
    /// Seconds to add to each time.
    offset: i64,
}

/// Units of time in a second.
#[derive(Clone, Copy, Debug)]
struct Resolution {
    per_second: u128,
    decimals: u8,
}

/// Where a packet lies in its block, and what the block says of it.
struct Found {
    interface: usize,
    /// Units of the interface's resolution.
    ticks: Option<u64>,
    data: std::ops::Range<usize>,
    wire_len: u32,
    direction: Option<Direction>,
}

impl Section {
    pub(super) fn next_packet(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<Located>, CaptureError> {
        let (found, block_len) = loop {
            if input.is_at_end()? {
                return Ok(None);
            }
            let (kind, len) = self.block(input)?;
            let block = input.record(len, "a block")?;
            let body = block.get(8..len - 4).unwrap_or_default();
            match self.read(kind, body) {
                Ok(Some(found)) => break (found, len),
                Ok(None) => _ = input.take(len),
                Err(what) => return Err(input.damaged(what)),
            }
        };
        let interface = self.interfaces[found.interface];
        if let Some(ticks) = found.ticks {
            self.last = interface.time(ticks);
        }
        let body = input.take(block_len).start + 8;
        let data = body + found.data.start..body + found.data.end;
        Ok(Some(Located {
            data: data.clone(),
            wire_len: found.wire_len.max(data.len() as u32),
            time: self.last,
            decimals: interface.resolution.decimals,
            link: interface.link,
            direction: found.direction,
        }))
    }

    /// Whether the block that begins here is there to its end. Of a section header nobody knows
    /// before it is read.
    pub(super) fn is_whole(&self, window: &[u8]) -> bool {
        let is_known = window.len() >= FRAME && window[..4] != MAGIC;
        is_known && u32_at(window, 4, self.big_endian) as usize <= window.len()
    }

    /// The type and length of the next block, whose two lengths agree. A section header sets the
    /// byte order.
    fn block(&mut self, input: &mut Input<'_>) -> Result<(u32, usize), CaptureError> {
        let start = input.record(FRAME, "a block")?;
        let is_section = start[..4] == MAGIC;
        if is_section {
            let word = u32_at(start, 8, true);
            if word != BYTE_ORDER && word != BYTE_ORDER.swap_bytes() {
                return Err(input.damaged(format!("a section's byte-order magic is {word:#010x}")));
            }
            self.big_endian = word == BYTE_ORDER;
        }
        let (kind, claimed) =
            (u32_at(start, 0, self.big_endian), u32_at(start, 4, self.big_endian));
        let len = claimed as usize;
        if len < FRAME || !len.is_multiple_of(4) || len > MAX_RECORD {
            return Err(input.damaged(format!("a block claims a length of {claimed} bytes")));
        }
        let block = input.record(len, "a block")?;
        let again = u32_at(block, len - 4, self.big_endian);
        if again != claimed {
            return Err(input.damaged(format!(
                "a block says it has {claimed} bytes at its beginning and {again} at its end"
            )));
        }
        Ok((kind, len))
    }

    /// Reads the body of a block; blocks of other kinds say nothing of packets.
    fn read(&mut self, kind: u32, body: &[u8]) -> Result<Option<Found>, String> {
        let be = self.big_endian;
        let needs = |len: usize, what: &str| match body.len() >= len {
            true => Ok(()),
            false => Err(format!("{what} has a body of {} bytes, not {len}", body.len())),
        };
        match kind {
            SECTION_HEADER => {
                needs(16, "a section header")?;
                let major = u16_at(body, 4, be);
                if major != 1 {
                    return Err(format!("a section is of pcapng version {major}, not 1"));
                }
                self.interfaces.clear();
                Ok(None)
            }
            INTERFACE_DESCRIPTION => {
                needs(8, "an interface description")?;
                if self.interfaces.len() >= MAX_INTERFACES {
                    return Err(format!("a section has more than {MAX_INTERFACES} interfaces"));
                }
                self.interfaces.push(Interface::read(body, be)?);
                Ok(None)
            }
            ENHANCED_PACKET | PACKET => {
                needs(20, "a packet block")?;
                let interface = match kind {
                    PACKET => u32::from(u16_at(body, 0, be)),
                    _ => u32_at(body, 0, be),
                };
                let [high, low, captured, wire_len] = [4, 8, 12, 16].map(|at| u32_at(body, at, be));
                let data = 20..20usize.saturating_add(captured as usize);
                if data.end > body.len() {
                    return Err(format!(
                        "a packet claims {captured} bytes, its block has room for {}",
                        body.len() - 20
                    ));
                }
                let after = data.end.next_multiple_of(4);
                let flags = options(body.get(after..).unwrap_or_default(), be)
                    .find(|(code, value)| *code == OPTION_FLAGS && value.len() == 4)
                    .map(|(_, value)| u32_at(value, 0, be));
                Ok(Some(Found {
                    interface: self.known(interface)?,
                    ticks: Some(u64::from(high) << 32 | u64::from(low)),
                    data,
                    wire_len,
                    direction: match flags.unwrap_or(0) & 3 {
                        1 => Some(Direction::Ingress),
                        2 => Some(Direction::Egress),
                        _ => None,
                    },
                }))
            }
            SIMPLE_PACKET => {
                needs(4, "a simple packet block")?;
                let interface = self.known(0)?;
                let wire_len = u32_at(body, 0, be);
                let kept = match self.interfaces[interface].snap_len {
                    0 => wire_len,
                    snap_len => wire_len.min(snap_len),
                };
                let end = 4usize.saturating_add(kept as usize);
                if end > body.len() {
                    return Err(format!(
                        "a simple packet of {kept} bytes has {} in its block",
                        body.len() - 4
                    ));
                }
                Ok(Some(Found { interface, ticks: None, data: 4..end, wire_len, direction: None }))
            }
            _ => Ok(None),
        }
    }

    fn known(&self, interface: u32) -> Result<usize, String> {
        let index = interface as usize;
        if index >= self.interfaces.len() {
            return Err(format!(
                "a packet names interface {interface}, its section has described {}",
                self.interfaces.len()
            ));
        }
        Ok(index)
    }
}

impl Interface {
    fn read(body: &[u8], big_endian: bool) -> Result<Self, String> {
        let mut interface = Interface {
            link: LinkKind(u16_at(body, 0, big_endian)),
            snap_len: u32_at(body, 4, big_endian),
            resolution: Resolution { per_second: 1_000_000, decimals: 6 },
            offset: 0,
        };
        for (code, value) in options(body.get(8..).unwrap_or_default(), big_endian) {
            match (code, value) {
                (OPTION_TSRESOL, [resolution]) => {
                    interface.resolution = Resolution::read(*resolution)?;
                }
                (OPTION_TSOFFSET, value) if value.len() == 8 => {
                    let words = [u32_at(value, 0, big_endian), u32_at(value, 4, big_endian)];
                    let [high, low] = if big_endian { words } else { [words[1], words[0]] };
                    interface.offset = (u64::from(high) << 32 | u64::from(low)) as i64;
                }
                _ => {}
            }
        }
        Ok(interface)
    }

    /// A time of this interface; what lies beyond the years 1677-2262 becomes their end.
    fn time(&self, ticks: u64) -> Timestamp {
        const NANOS: i128 = 1_000_000_000;
        let nanos = (u128::from(ticks) * NANOS as u128 / self.resolution.per_second) as i128
            + i128::from(self.offset) * NANOS;
        Timestamp::from_nanos(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }
}

impl Resolution {
    /// `if_tsresol`: a negative power of 10 or, with the top bit, of 2.
    fn read(value: u8) -> Result<Self, String> {
        let exponent = u32::from(value & 0x7f);
        let per_second = match value & 0x80 {
            0 => 10u128.checked_pow(exponent),
            _ => 2u128.checked_pow(exponent),
        };
        // A tick is at least what 64 bits of ticks need to span a second.
        match per_second.filter(|units| *units <= 1 << 64) {
            Some(per_second) => Ok(Resolution { per_second, decimals: exponent.min(9) as u8 }),
            None => Err(format!("an interface has a time resolution of {value:#04x}")),
        }
    }
}

/// The options of a block; those after the end, or cut off by it, are left out.
fn options(mut bytes: &[u8], big_endian: bool) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_at_checked(4)?;
        let (code, len) = (u16_at(header, 0, big_endian), u16_at(header, 2, big_endian));
        let value = rest.get(..usize::from(len))?;
        bytes = rest.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
        (code != OPTION_END).then_some((code, value))
    })
}

/// Two bytes at `at`; zero where there are none, which callers have made sure of.
fn u16_at(bytes: &[u8], at: usize, big_endian: bool) -> u16 {
    let bytes = bytes.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
    if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
}

/// Four bytes at `at`; as [`u16_at`].
fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let bytes = bytes.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}
