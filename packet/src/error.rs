//! Why a frame could not be read. It prints straight into a drop record.

use std::fmt;

/// The header that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Ethernet, cooked or loopback header.
    Link,
    /// An 802.1Q or 802.1ad tag.
    Vlan,
    /// ARP packet.
    Arp,
    /// IPv4 header or options.
    Ipv4,
    /// IPv6 fixed header.
    Ipv6,
    /// An IPv6 extension header.
    Ipv6Extension,
    /// TCP header or options.
    Tcp,
    /// UDP header.
    Udp,
    /// ICMP or ICMPv6 header.
    Icmp,
}

/// Why a frame could not be read.
///
/// *Truncated* is the capture's doing (the bytes were on the wire but not kept), *malformed* the
/// sender's: the two are never confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// The capture's snap length cut the header off.
    Truncated {
        /// The header that is incomplete.
        layer: Layer,
        /// Its offset in the frame, bytes.
        offset: u32,
        /// Bytes that it needs.
        needed: u32,
        /// Bytes that the capture holds from there.
        captured: u32,
    },
    /// The packet ends before the header does.
    TooShort {
        /// The header that is incomplete.
        layer: Layer,
        /// Its offset in the frame, bytes.
        offset: u32,
        /// Bytes that it needs.
        needed: u32,
        /// Bytes that there are, by the enclosing layer's own length.
        had: u32,
    },
    /// A first fragment ends before its transport header does, so that filters could not see the
    /// ports (RFC 1858).
    TinyFragment {
        /// The header that is incomplete.
        layer: Layer,
        /// Its offset in the frame, bytes.
        offset: u32,
        /// Bytes that it needs.
        needed: u32,
        /// Bytes that the fragment has of it.
        had: u32,
    },
    /// A length or version field contradicts the packet.
    BadField {
        /// The header at fault.
        layer: Layer,
        /// Offset of the header in the frame, bytes.
        offset: u32,
        /// The field, in words.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// An IPv6 header chain longer than SEMANTICS 2.7 allows (8 headers, 256 bytes).
    ExtensionChain {
        /// Extension headers seen.
        headers: u32,
        /// Bytes they take.
        bytes: u32,
    },
}

impl ParseError {
    /// Whether the capture, not the sender, is to blame.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        matches!(self, ParseError::Truncated { .. })
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Link => "link-layer header",
            Layer::Vlan => "VLAN tag",
            Layer::Arp => "ARP packet",
            Layer::Ipv4 => "IPv4 header",
            Layer::Ipv6 => "IPv6 header",
            Layer::Ipv6Extension => "IPv6 extension header",
            Layer::Tcp => "TCP header",
            Layer::Udp => "UDP header",
            Layer::Icmp => "ICMP header",
        })
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ParseError::Truncated { layer, offset, needed, captured } => write!(
                f,
                "the capture cut the {layer} at byte {offset}: needs {needed} bytes, captured {captured}"
            ),
            ParseError::TooShort { layer, offset, needed, had } => {
                write!(f, "{layer} at byte {offset} needs {needed} bytes, the packet has {had}")
            }
            ParseError::TinyFragment { layer, offset, needed, had } => write!(
                f,
                "{layer} at byte {offset} needs {needed} bytes, the first fragment has {had} of it"
            ),
            ParseError::BadField { layer, offset, field, value } => {
                write!(f, "{layer} at byte {offset}: {field} is {value}")
            }
            ParseError::ExtensionChain { headers, bytes } => write!(
                f,
                "IPv6 header chain of {headers} extension headers in {bytes} bytes (limit 8 and 256)"
            ),
        }
    }
}

impl std::error::Error for ParseError {}
