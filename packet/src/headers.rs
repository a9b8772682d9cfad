//! The plain values that parsing yields. Nothing here borrows from the frame: offsets do that.

use std::net::{IpAddr, Ipv4Addr};

use crate::neighbour::Mac;

/// IP protocol numbers that sgwall treats by name (IANA "Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// How the first bytes of a frame are to be read (the `LINKTYPE_` values sgwall understands).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet II, with any 802.1Q and 802.1ad tags (`LINKTYPE_ETHERNET`, 1).
    Ethernet,
    /// A bare IPv4 or IPv6 packet, told apart by its version (`LINKTYPE_RAW` 101, and 12, 14).
    RawIp,
    /// A bare IPv4 packet (`LINKTYPE_IPV4`, 228).
    Ipv4,
    /// A bare IPv6 packet (`LINKTYPE_IPV6`, 229).
    Ipv6,
    /// Linux "cooked" capture, version 1 (`LINKTYPE_LINUX_SLL`, 113).
    LinuxSll,
    /// Linux "cooked" capture, version 2 (`LINKTYPE_LINUX_SLL2`, 276).
    LinuxSll2,
    /// BSD loopback, four-byte family in the capturing host's byte order (`LINKTYPE_NULL`, 0).
    Null,
    /// OpenBSD loopback, four-byte family in network byte order (`LINKTYPE_LOOP`, 108).
    Loop,
}

/// One parsed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An IPv4 or IPv6 packet.
    Ip(Headers),
    /// An ARP packet (ethertype 0x0806), valid or not.
    Arp(LinkInfo),
    /// Anything else: the ethertype (or the cooked/loopback protocol) is all that is known.
    Other(LinkInfo),
}

/// What the link layer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The ethertype after all VLAN tags, host byte order. Zero where the link type has none.
    pub ethertype: u16,
    /// The outermost VLAN identifier (0-4095), if tagged.
    pub vlan: Option<u16>,
    /// MAC addresses; `None` where the link type has no MAC header.
    pub mac: Option<Macs>,
}

/// Destination and source MAC address, as they begin an Ethernet frame. In one piece, because the
/// parser copies them for every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs([u8; 12]);

impl Macs {
    /// Both addresses in the order of the frame: the destination first.
    #[must_use]
    pub const fn from_frame(both: [u8; 12]) -> Self {
        Macs(both)
    }

    /// The destination.
    #[must_use]
    pub fn dst(&self) -> Mac {
        let [dst @ .., _, _, _, _, _, _] = self.0;
        dst
    }

    /// The source.
    #[must_use]
    pub fn src(&self) -> Mac {
        let [_, _, _, _, _, _, src @ ..] = self.0;
        src
    }
}

impl LinkInfo {
    /// No link layer: a bare IP packet.
    pub const NONE: LinkInfo = LinkInfo { ethertype: 0, vlan: None, mac: None };
}

/// The headers of one IP packet: all that a verdict may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The link layer around it.
    pub link: LinkInfo,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Upper-layer protocol number: IPv4's field, or the last header of an IPv6 chain after
    /// Hop-by-Hop (0), Routing (43), Fragment (44) and Destination Options (60). AH (51) is a
    /// protocol, not skipped.
    pub protocol: u8,
    /// The transport header, as far as the packet has one.
    pub transport: Transport,
    /// Where this packet stands in a fragmented datagram, `None` if it is whole. An IPv6 atomic
    /// fragment (offset 0, no more fragments; RFC 6946) counts as whole.
    pub fragment: Option<FragmentInfo>,
    /// IPv4 don't-fragment bit; always true for IPv6, which routers never fragment.
    pub dont_fragment: bool,
    /// IPv4 time to live or IPv6 hop limit.
    pub hop_limit: u8,
    /// Length of the IP packet in bytes, link layer excluded: IPv4 total length, or 40 + IPv6
    /// payload length (or the Hop-by-Hop jumbo length, RFC 2675; or, where the IPv4 length is 0
    /// or the IPv6 length is 0 as segmentation offload leaves it, the bytes on the wire).
    pub ip_len: u32,
    /// Offset in the frame of the IP header, bytes.
    pub ip_offset: u16,
    /// Offset in the frame of the transport header (or of the fragment's data), bytes.
    pub transport_offset: u16,
}

/// The transport header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP header.
    Tcp(Tcp),
    /// UDP ports, host byte order.
    Udp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
    },
    /// An ICMP or ICMPv6 message; [`Headers::protocol`] says which.
    Icmp(IcmpInfo),
    /// A protocol without ports (GRE, ESP, SCTP as AWS sees it, ...).
    Other,
    /// A fragment that is not the first: its transport header is in another packet.
    LaterFragment,
}

/// What tracking needs of a TCP header. All fields in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number (meaningful with [`TcpFlags::ACK`]).
    pub ack: u32,
    /// Window field, not scaled.
    pub window: u16,
    /// Flags.
    pub flags: TcpFlags,
    /// Shift of the window-scale option (0-14, larger values read as 14, RFC 7323), if present.
    pub window_scale: Option<u8>,
    /// Payload bytes, from the IP length (SYN and FIN not counted).
    pub payload_len: u32,
}

/// TCP flags as they stand in the header's 14th byte (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// SYN.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// RST.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// PSH.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// ACK.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// URG.
    pub const URG: TcpFlags = TcpFlags(0x20);

    /// Whether every flag of `other` is set here.
    #[must_use]
    pub const fn contains(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it is a segment in the middle of a connection: ACK set; SYN, RST and FIN not.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.0 & (0x02 | 0x10 | 0x04 | 0x01) == 0x10
    }

    /// Whether this packet may open a tracked flow: SYN set; ACK, RST and FIN not (SEMANTICS 6.9).
    #[must_use]
    pub const fn is_opening(self) -> bool {
        self.0 & (0x02 | 0x10 | 0x04 | 0x01) == 0x02
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = TcpFlags;
    fn bitor(self, rhs: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | rhs.0)
    }
}

/// What is known of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpInfo {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Identifier of a query or its reply, host byte order; `None` for every other type.
    pub identifier: Option<u16>,
}

/// Where a packet stands in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Identification (IPv4: 16 bits, IPv6: 32 bits), host byte order.
    pub id: u32,
    /// Offset of this fragment's data in the datagram, bytes (a multiple of 8).
    pub offset: u32,
    /// Bytes of data in this fragment.
    pub len: u32,
    /// Whether more fragments follow.
    pub more: bool,
}

impl Headers {
    /// Those of no packet: what is to be filled in.
    pub const NONE: Headers = Headers {
        link: LinkInfo::NONE,
        src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        protocol: 0,
        transport: Transport::Other,
        fragment: None,
        dont_fragment: false,
        hop_limit: 0,
        ip_len: 0,
        ip_offset: 0,
        transport_offset: 0,
    };

    /// Whether the packet is IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// Source port, or 0 where the packet has none.
    #[must_use]
    pub const fn src_port(&self) -> u16 {
        match self.transport {
            Transport::Tcp(t) => t.src_port,
            Transport::Udp { src_port, .. } => src_port,
            _ => 0,
        }
    }

    /// Destination port, or 0 where the packet has none.
    #[must_use]
    pub const fn dst_port(&self) -> u16 {
        match self.transport {
            Transport::Tcp(t) => t.dst_port,
            Transport::Udp { dst_port, .. } => dst_port,
            _ => 0,
        }
    }

    /// The 16 bits that rules compare besides the protocol: destination port for TCP and UDP,
    /// `type << 8 | code` for ICMP and ICMPv6, 0 otherwise.
    #[must_use]
    pub const fn selector(&self) -> u16 {
        match self.transport {
            Transport::Tcp(t) => t.dst_port,
            Transport::Udp { dst_port, .. } => dst_port,
            Transport::Icmp(i) => (i.kind as u16) << 8 | i.code as u16,
            Transport::Other | Transport::LaterFragment => 0,
        }
    }
}
