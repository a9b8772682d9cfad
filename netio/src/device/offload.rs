//! What a device without offload leaves to us: checksums and segments, as functions of bytes.
//!
//! [`complete_checksum`] finishes a checksum in place. [`Segments`] cuts a super-frame into the
//! frames that its sender would have sent: the size it asked for, never another. Whether a segment
//! fits its path is judged elsewhere, by [`segment_size`].
//!
//! RFC 1071 (checksum), RFC 791 and RFC 9293 (IPv4 and TCP headers of segments), RFC 3168 (CWR),
//! RFC 768 (UDP).

use super::vnet::{OffloadError, PartialChecksum, SegmentKind, SuperFrame, VnetHeader};

const FIN_AND_PSH: u8 = 0x01 | 0x08;
const CWR: u8 = 0x80;
/// Where the checksum stands in a UDP header, bytes, and in that of no other protocol.
const UDP_CHECKSUM: u16 = 6;

/// Completes the checksum that `header` says is only begun, and clears it from the header.
///
/// # Errors
/// If the checksum would lie outside the frame; frame and header are then as before.
pub fn complete_checksum(frame: &mut [u8], header: &mut VnetHeader) -> Result<(), OffloadError> {
    let Some(PartialChecksum { start, offset }) = header.checksum else { return Ok(()) };
    let outside = OffloadError::ChecksumOutside { start, offset, len: frame.len() };
    let begin = usize::from(start);
    let sum = frame.get(begin..).map(|covered| fold(sum(covered))).ok_or(outside)?;
    let at = begin + usize::from(offset);
    let field = frame.get_mut(at..at + 2).ok_or(outside)?;
    let sum = if offset == UDP_CHECKSUM { not_zero(!sum) } else { !sum };
    field.copy_from_slice(&sum.to_be_bytes());
    header.checksum = None;
    Ok(())
}

/// The length in bytes of the IP packet in `frame`, or of its largest segment if it is a
/// super-frame; `ip_offset` is where its IP header begins, `ip_len` how long it is.
///
/// # Errors
/// If the frame is not the super-frame that `header` says it is.
pub fn segment_size(frame: &[u8], header: &VnetHeader, ip_len: u32) -> Result<u32, OffloadError> {
    let Some(segmentation) = header.segmentation else { return Ok(ip_len) };
    let parts = SuperFrame::read(frame, header, segmentation)?;
    let whole = parts.end - parts.ip;
    let cut = parts.payload - parts.ip + usize::from(segmentation.size);
    Ok(whole.min(cut) as u32)
}

/// The segments of a super-frame, each to be written where the caller likes.
///
/// A segment has the headers of the super-frame with its own lengths and checksums. IPv4
/// identifications count up; TCP sequence numbers advance by payload, FIN and PSH are in the last
/// segment only, CWR in the first only.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    frame: &'a [u8],
    parts: SuperFrame,
}

impl<'a> Segments<'a> {
    /// Prepares to cut `frame`. `None` if it is not a super-frame.
    ///
    /// # Errors
    /// If the frame is not the super-frame that `header` says it is.
    pub fn new(frame: &'a [u8], header: &VnetHeader) -> Result<Option<Self>, OffloadError> {
        let Some(segmentation) = header.segmentation else { return Ok(None) };
        let parts = SuperFrame::read(frame, header, segmentation)?;
        Ok(Some(Segments { frame, parts }))
    }

    /// How many there are, 1 to [`MAX_SEGMENTS`](super::vnet::MAX_SEGMENTS).
    #[must_use]
    pub fn count(&self) -> usize {
        self.parts.count()
    }

    /// The length of the frame of segment `n`, bytes; zero if there is no such segment.
    #[must_use]
    pub fn frame_len(&self, n: usize) -> usize {
        match self.payload(n).len() {
            0 => 0,
            len => self.parts.payload + len,
        }
    }

    /// Writes the frame of segment `n` to the beginning of `out`, which holds
    /// [`frame_len`](Self::frame_len) bytes. Less room, or no such segment, leaves it untouched.
    pub fn write(&self, n: usize, out: &mut [u8]) {
        let SuperFrame { ip, transport, payload, is_ipv6, segmentation, .. } = self.parts;
        let data = self.payload(n);
        let len = payload + data.len();
        let (Some(out), Some(headers)) = (out.get_mut(..len), self.frame.get(..payload)) else {
            return;
        };
        if data.is_empty() {
            return;
        }
        out[..payload].copy_from_slice(headers);
        out[payload..].copy_from_slice(data);

        let ip_len = len - ip;
        if is_ipv6 {
            put(out, ip + 4, (ip_len - 40) as u16);
        } else {
            put(out, ip + 2, ip_len as u16);
            put(out, ip + 4, get(out, ip + 4).wrapping_add(n as u16));
            put(out, ip + 10, 0);
            let header_sum = fold(sum(&out[ip..ip_len_of_header(out, ip)]));
            put(out, ip + 10, !header_sum);
        }

        let (checksum, protocol) = match segmentation.kind {
            SegmentKind::Udp => {
                put(out, transport + 4, (len - transport) as u16);
                (transport + 6, 17u8)
            }
            SegmentKind::TcpV4 | SegmentKind::TcpV6 => {
                let advance = (n * usize::from(segmentation.size)) as u32;
                let seq =
                    (u32::from(get(out, transport + 4)) << 16) | u32::from(get(out, transport + 6));
                let seq = seq.wrapping_add(advance);
                put(out, transport + 4, (seq >> 16) as u16);
                put(out, transport + 6, seq as u16);
                if n + 1 < self.count() {
                    out[transport + 13] &= !FIN_AND_PSH;
                }
                if n > 0 {
                    out[transport + 13] &= !CWR;
                }
                (transport + 16, 6u8)
            }
        };
        put(out, checksum, 0);
        let addresses = if is_ipv6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let pseudo = sum(&out[addresses]) + u64::from(protocol) + (len - transport) as u64;
        let whole = fold(sum(&out[transport..]) + u64::from(fold(pseudo)));
        let is_udp = segmentation.kind == SegmentKind::Udp;
        put(out, checksum, if is_udp { not_zero(!whole) } else { !whole });
    }

    /// The payload of segment `n`.
    fn payload(&self, n: usize) -> &'a [u8] {
        let size = usize::from(self.parts.segmentation.size);
        let whole = self.frame.get(self.parts.payload..self.parts.end).unwrap_or_default();
        let begin = n.saturating_mul(size).min(whole.len());
        &whole[begin..(begin + size).min(whole.len())]
    }
}

/// Where the IPv4 header at `ip` ends.
fn ip_len_of_header(frame: &[u8], ip: usize) -> usize {
    (ip + usize::from(frame[ip] & 0x0f) * 4).min(frame.len())
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A checksum of zero means "none" to UDP, which writes the other form of the number (RFC 768). To
/// TCP it means zero.
const fn not_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The sum of the 16-bit big-endian words of `bytes`, an odd byte being the upper half of one.
fn sum(bytes: &[u8]) -> u64 {
    // The order of bytes does not matter to the sum (RFC 1071, section 2 (B)), so words are added
    // as the processor reads them, and the result is swapped once.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let (pairs, odd) = rest.as_chunks::<2>();
    total += pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum::<u64>();
    if let [byte] = *odd {
        total += u64::from(u16::from_ne_bytes([byte, 0]));
    }
    u64::from(u16::from_be(fold(total)))
}

/// The sum in ones' complement, 16 bits.
const fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
