//! The offload header of a frame: `virtio_net_hdr`, as TAP and `AF_PACKET` devices carry it.
//!
//! It says that the transport checksum is only begun, or that the frame is a super-frame which the
//! device is to cut into segments. It comes from whoever sent the frame, a guest perhaps, so
//! [`VnetHeader::check`] holds it against the frame before anything relies on it. `hdr_len` is
//! never believed: it is computed again when a frame is written.
//!
//! Virtual I/O Device (VIRTIO) 1.2, section 5.1.6; fields in the byte order of the host, which is
//! what Linux means by the legacy header of these devices.

use sgwall_packet::{Frame, LinkType, ParseError, parse, protocol};
use thiserror::Error;

/// Bytes of the header with `num_buffers`, which is ignored and written as zero.
pub const HEADER_LEN: usize = 12;
/// Bytes of the header without it.
pub const SHORT_HEADER_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The most segments of one super-frame. Linux makes 1,365 at most (TCP segments of 48 bytes); a
/// liar could make a million.
pub const MAX_SEGMENTS: usize = 2048;

/// What a frame leaves to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum to complete, if any.
    pub checksum: Option<PartialChecksum>,
    /// How to cut the frame into segments, if it is a super-frame.
    pub segmentation: Option<Segmentation>,
}

/// A checksum that holds only the sum of the pseudo-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the sum begins, bytes from the beginning of the frame; it ends with the frame.
    pub start: u16,
    /// Where the 16-bit checksum is to be stored, bytes from `start`.
    pub offset: u16,
}

/// How a super-frame is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What the segments are.
    pub kind: SegmentKind,
    /// Transport payload of every segment but the last, bytes. Not zero.
    pub size: u16,
    /// Whether it is TCP with explicit congestion notification (CWR in the first segment only).
    pub ecn: bool,
}

/// The kinds of super-frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either: datagrams of one size (UDP segmentation offload).
    Udp,
}

/// What a device takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// It completes checksums.
    pub checksum: bool,
    /// It cuts TCP over IPv4 and IPv6.
    pub tcp: bool,
    /// It cuts UDP.
    pub udp: bool,
}

impl Features {
    /// Nothing.
    pub const NONE: Features = Features { checksum: false, tcp: false, udp: false };
    /// Everything.
    pub const ALL: Features = Features { checksum: true, tcp: true, udp: true };

    /// Whether a frame with this header can be written as it is.
    #[must_use]
    pub const fn carries(self, header: &VnetHeader) -> bool {
        let is_cut = match header.segmentation {
            None => true,
            Some(Segmentation { kind: SegmentKind::Udp, .. }) => self.udp,
            Some(_) => self.tcp,
        };
        is_cut && (header.checksum.is_none() || self.checksum)
    }
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [(self.checksum, "checksum"), (self.tcp, "TCP"), (self.udp, "UDP")];
        let names: Vec<_> = names.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join("+"))
    }
}

/// Why an offload header is wrong, or does not fit its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OffloadError {
    /// Fewer bytes than a header has.
    #[error("an offload header of {had} bytes; it has at least {SHORT_HEADER_LEN}")]
    Short {
        /// Bytes there.
        had: usize,
    },
    /// A kind of super-frame that was never asked for.
    #[error("segmentation type {0:#04x} is not one that was agreed on")]
    UnknownKind(u8),
    /// A super-frame whose segments have no size.
    #[error("a super-frame with segments of size 0")]
    ZeroSize,
    /// The checksum lies outside the frame.
    #[error("the checksum at {start}+{offset} lies outside the frame of {len} bytes")]
    ChecksumOutside {
        /// Where the sum begins.
        start: u16,
        /// Where the checksum lies, from there.
        offset: u16,
        /// Bytes of the frame.
        len: usize,
    },
    /// A super-frame whose headers cannot be read.
    #[error("a super-frame that cannot be read: {0}")]
    Unreadable(ParseError),
    /// A super-frame that is no whole packet of its kind.
    #[error("a super-frame said to be {kind:?}, but its headers say otherwise")]
    Mismatch {
        /// What the header said.
        kind: SegmentKind,
    },
    /// More than [`MAX_SEGMENTS`].
    #[error("a super-frame of {0} segments; the most is {MAX_SEGMENTS}")]
    TooManySegments(usize),
}

impl VnetHeader {
    /// Reads a header of 10 or more bytes.
    ///
    /// # Errors
    /// If it is too short, or asks for what Linux does not define or was not asked for.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OffloadError> {
        let Some(&[flags, gso, _, _, s0, s1, c0, c1, o0, o1]) = bytes.first_chunk() else {
            return Err(OffloadError::Short { had: bytes.len() });
        };
        let size = u16::from_ne_bytes([s0, s1]);
        let kind = match gso & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(SegmentKind::TcpV4),
            GSO_TCPV6 => Some(SegmentKind::TcpV6),
            GSO_UDP_L4 => Some(SegmentKind::Udp),
            other => return Err(OffloadError::UnknownKind(other)),
        };
        if kind.is_some() && size == 0 {
            return Err(OffloadError::ZeroSize);
        }
        Ok(VnetHeader {
            checksum: (flags & NEEDS_CSUM != 0).then_some(PartialChecksum {
                start: u16::from_ne_bytes([c0, c1]),
                offset: u16::from_ne_bytes([o0, o1]),
            }),
            segmentation: kind.map(|kind| Segmentation { kind, size, ecn: gso & GSO_ECN != 0 }),
        })
    }

    /// The header as bytes, for a frame of `frame_len` bytes.
    #[must_use]
    pub fn to_bytes(&self, frame_len: usize) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        if let Some(checksum) = self.checksum {
            bytes[0] = NEEDS_CSUM;
            bytes[6..8].copy_from_slice(&checksum.start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&checksum.offset.to_ne_bytes());
        }
        if let Some(segmentation) = self.segmentation {
            let ecn = if segmentation.ecn { GSO_ECN } else { 0 };
            bytes[1] = ecn
                | match segmentation.kind {
                    SegmentKind::TcpV4 => GSO_TCPV4,
                    SegmentKind::TcpV6 => GSO_TCPV6,
                    SegmentKind::Udp => GSO_UDP_L4,
                };
            bytes[4..6].copy_from_slice(&segmentation.size.to_ne_bytes());
            // Bytes the kernel copies into the linear part of its buffer: a hint. Enough for any
            // headers, and it may not exceed the frame.
            bytes[2..4].copy_from_slice(&(frame_len.min(128) as u16).to_ne_bytes());
        }
        bytes
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.checksum.is_none() && self.segmentation.is_none()
    }

    /// The header of the same frame after `by` bytes, a VLAN tag, were put in behind its MAC
    /// addresses.
    #[must_use]
    pub fn shifted(self, by: u16) -> Self {
        let checksum =
            self.checksum.map(|c| PartialChecksum { start: c.start.saturating_add(by), ..c });
        VnetHeader { checksum, ..self }
    }

    /// Holds the header against its frame.
    ///
    /// # Errors
    /// What is wrong. The frame should then be dropped: nobody can say what it means.
    pub fn check(&self, frame: &[u8]) -> Result<(), OffloadError> {
        if let Some(PartialChecksum { start, offset }) = self.checksum {
            let end = usize::from(start) + usize::from(offset) + 2;
            if end > frame.len() {
                return Err(OffloadError::ChecksumOutside { start, offset, len: frame.len() });
            }
        }
        match self.segmentation {
            None => Ok(()),
            Some(segmentation) => SuperFrame::read(frame, self, segmentation).map(|_| ()),
        }
    }
}

/// Where the parts of a super-frame lie, once its headers agree with its offload header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SuperFrame {
    /// Where the IP header begins, bytes from the beginning of the frame.
    pub(super) ip: usize,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
    /// Where the IP packet ends; padding of the link layer may follow.
    pub(super) end: usize,
    /// Whether it is IPv6.
    pub(super) is_ipv6: bool,
    /// What and how large the segments are.
    pub(super) segmentation: Segmentation,
}

impl SuperFrame {
    /// Reads the headers of a super-frame and holds them against its offload header.
    pub(super) fn read(
        frame: &[u8],
        header: &VnetHeader,
        segmentation: Segmentation,
    ) -> Result<Self, OffloadError> {
        let kind = segmentation.kind;
        let mismatch = OffloadError::Mismatch { kind };
        let parsed = parse(LinkType::Ethernet, frame, frame.len());
        let Frame::Ip(h) = parsed.map_err(OffloadError::Unreadable)? else {
            return Err(mismatch);
        };
        let (wanted, checksum_offset) = match kind {
            SegmentKind::TcpV4 | SegmentKind::TcpV6 => (protocol::TCP, 16),
            SegmentKind::Udp => (protocol::UDP, 6),
        };
        let is_version = match kind {
            SegmentKind::TcpV4 => !h.is_ipv6(),
            SegmentKind::TcpV6 => h.is_ipv6(),
            SegmentKind::Udp => true,
        };
        let transport = usize::from(h.transport_offset);
        let is_checksum = header.checksum.is_none_or(|c| {
            usize::from(c.start) == transport && usize::from(c.offset) == checksum_offset
        });
        if h.protocol != wanted || !is_version || h.fragment.is_some() || !is_checksum {
            return Err(mismatch);
        }
        let (header_len, least) = match kind {
            SegmentKind::Udp => (8, 8),
            _ => (frame.get(transport + 12).map_or(0, |b| usize::from(b >> 4) * 4), 20),
        };
        let ip = usize::from(h.ip_offset);
        let (payload, end) = (transport + header_len, ip + h.ip_len as usize);
        if header_len < least || payload >= end || end > frame.len() {
            return Err(mismatch);
        }
        let parts = SuperFrame { ip, transport, payload, end, is_ipv6: h.is_ipv6(), segmentation };
        match parts.count() {
            count if count > MAX_SEGMENTS => Err(OffloadError::TooManySegments(count)),
            _ => Ok(parts),
        }
    }

    /// How many segments it makes.
    pub(super) fn count(&self) -> usize {
        (self.end - self.payload).div_ceil(usize::from(self.segmentation.size).max(1))
    }
}
