//! Packets in one line of text, for tests, examples and questions on the command line.
//!
//! ```text
//! tcp 203.0.113.1:5000 -> 10.0.1.10:22 S            flags S A F R P U; none said: S
//! udp [2001:db8::1]:53 -> [2001:db8::2]:4000 len=100
//! icmp 10.0.1.10 -> 203.0.113.1 8/0 id=5             or echo-request
//! gre 10.0.1.10 -> 203.0.113.1                       or proto 47
//! icmp 198.51.100.1 -> 10.0.1.10 frag-needed mtu=1400 quote="tcp 10.0.1.10:22 -> 203.0.113.1:5000 A"
//! ```
//!
//! Extras, in any order: `seq= ack= win= wscale= len= df ttl= id= mtu= quote=` and
//! `frag=ID:OFFSET` (`+` after it: more fragments follow), offset in bytes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::build::{self, IpFields, TcpFields};
use crate::headers::{FragmentInfo, TcpFlags, protocol};

/// A packet as a person would write it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Source and destination port (TCP, UDP); else 0.
    pub ports: (u16, u16),
    /// TCP flags.
    pub flags: TcpFlags,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// TCP window field (65535).
    pub window: u16,
    /// TCP window-scale option.
    pub window_scale: Option<u8>,
    /// ICMP or ICMPv6 type and code.
    pub icmp: (u8, u8),
    /// ICMP identifier.
    pub id: u16,
    /// MTU in a fragmentation-needed or packet-too-big message, bytes.
    pub mtu: u32,
    /// The packet that an ICMP error quotes.
    pub quote: Option<Box<PacketSpec>>,
    /// Payload bytes after the transport header (after the IP header, without one).
    pub len: u16,
    /// IPv4 don't-fragment bit.
    pub dont_fragment: bool,
    /// Time to live or hop limit (64).
    pub hop_limit: u8,
    /// Place in a fragmented datagram: identification, offset in bytes, more fragments.
    pub fragment: Option<(u32, u16, bool)>,
}

/// What is wrong with a packet's text. Where a word is at fault, the message begins with it, quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(String);

impl SpecError {
    /// The word at fault, or the part of it; `None` where none is: the text ends too early.
    #[must_use]
    pub fn word(&self) -> Option<&str> {
        self.0.strip_prefix('"')?.split_once('"').map(|(word, _)| word)
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

/// Names of protocols without ports that the notation knows besides `proto NUMBER`.
const PORTLESS: [(&str, u8); 7] =
    [("igmp", 2), ("ipip", 4), ("gre", 47), ("esp", 50), ("ah", 51), ("ospf", 89), ("sctp", 132)];

/// Names of ICMP messages, by protocol.
const MESSAGES: [(u8, &str, (u8, u8)); 10] = [
    (protocol::ICMP, "echo-reply", (0, 0)),
    (protocol::ICMP, "unreachable", (3, 1)),
    (protocol::ICMP, "port-unreachable", (3, 3)),
    (protocol::ICMP, "frag-needed", (3, 4)),
    (protocol::ICMP, "echo-request", (8, 0)),
    (protocol::ICMP, "time-exceeded", (11, 0)),
    (protocol::ICMPV6, "packet-too-big", (2, 0)),
    (protocol::ICMPV6, "time-exceeded", (3, 0)),
    (protocol::ICMPV6, "echo-request", (128, 0)),
    (protocol::ICMPV6, "echo-reply", (129, 0)),
];

const FLAGS: [(char, TcpFlags); 6] = [
    ('S', TcpFlags::SYN),
    ('A', TcpFlags::ACK),
    ('F', TcpFlags::FIN),
    ('R', TcpFlags::RST),
    ('P', TcpFlags::PSH),
    ('U', TcpFlags::URG),
];

impl PacketSpec {
    /// The packet that begins a flow of protocol `number` between two addresses of one family: a SYN, an
    /// echo request. Ports are 0.
    #[must_use]
    pub const fn first(number: u8, src: IpAddr, dst: IpAddr) -> Self {
        PacketSpec {
            protocol: number,
            src,
            dst,
            ports: (0, 0),
            flags: if number == protocol::TCP { TcpFlags::SYN } else { TcpFlags(0) },
            seq: 0,
            ack: 0,
            window: 65_535,
            window_scale: None,
            icmp: if number == protocol::ICMPV6 { (128, 0) } else { (8, 0) },
            id: 0,
            mtu: 0,
            quote: None,
            len: 0,
            dont_fragment: false,
            hop_limit: 64,
            fragment: None,
        }
    }

    /// The bare IP packet, with right checksums.
    #[must_use]
    pub fn to_ip(&self) -> Vec<u8> {
        let is_later = self.fragment.is_some_and(|(_, offset, _)| offset > 0);
        let payload: Vec<u8> = (0..self.len).map(|i| i as u8).collect();
        let mut data = match self.protocol {
            _ if is_later => payload,
            protocol::TCP => {
                let fields = TcpFields {
                    src_port: self.ports.0,
                    dst_port: self.ports.1,
                    seq: self.seq,
                    ack: self.ack,
                    flags: self.flags,
                    window: self.window,
                    window_scale: self.window_scale,
                };
                build::tcp(self.src, self.dst, &fields, &payload)
            }
            protocol::UDP => build::udp(self.src, self.dst, self.ports, &payload),
            protocol::ICMP | protocol::ICMPV6 => {
                let rest = match (self.protocol, self.icmp) {
                    (protocol::ICMP, (3, 4)) | (protocol::ICMPV6, (2, 0)) => self.mtu.to_be_bytes(),
                    _ => (u32::from(self.id) << 16).to_be_bytes(),
                };
                let body = self.quote.as_ref().map_or(payload, |quote| quote.to_ip());
                build::icmp(self.src, self.dst, self.protocol, self.icmp, rest, &body)
            }
            _ => payload,
        };
        // All fragments but the last are multiples of eight bytes.
        if self.fragment.is_some_and(|(_, _, more)| more) {
            data.resize(data.len().next_multiple_of(8), 0);
        }
        let fragment = self.fragment.map(|(id, offset, more)| FragmentInfo {
            id,
            offset: offset.into(),
            len: data.len() as u32,
            more,
        });
        let fields =
            IpFields { hop_limit: self.hop_limit, dont_fragment: self.dont_fragment, fragment };
        build::ip(self.src, self.dst, self.protocol, fields, &data)
    }

    /// The packet in an Ethernet II frame.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        build::ethernet(&self.to_ip())
    }
}

impl FromStr for PacketSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let words = words(text)?;
        let mut words = words.iter().map(String::as_str);
        let mut next = |what: &str| {
            words.next().ok_or_else(|| SpecError(format!("the packet ends where {what} should be")))
        };
        let proto = match next("a protocol")? {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "icmp" => protocol::ICMP,
            "icmpv6" => protocol::ICMPV6,
            "proto" => number(next("a protocol number")?, "a protocol number, 0-255")?,
            name => {
                PORTLESS.iter().find(|(n, _)| *n == name).map(|(_, p)| *p).ok_or_else(|| {
                    SpecError(format!(
                        "{name:?} is no protocol: tcp, udp, icmp, icmpv6, gre … or proto NUMBER"
                    ))
                })?
            }
        };
        let src = next("the source")?;
        match next("'->'")? {
            "->" => {}
            word => return Err(SpecError(format!("{word:?} stands where '->' should be"))),
        }
        let dst = next("the destination")?;
        let has_ports = matches!(proto, protocol::TCP | protocol::UDP);
        let (src, src_port) = endpoint(src, has_ports)?;
        let (dst, dst_port) = endpoint(dst, has_ports)?;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(SpecError(format!("\"{dst}\" is of another family than {src}")));
        }
        let mut spec =
            PacketSpec { ports: (src_port, dst_port), ..PacketSpec::first(proto, src, dst) };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => spec.extra(key, value)?,
                None if word == "df" => spec.dont_fragment = true,
                None if proto == protocol::TCP => spec.flags = tcp_flags(word)?,
                None if matches!(proto, protocol::ICMP | protocol::ICMPV6) => {
                    spec.icmp = message(proto, word)?;
                }
                None => return Err(SpecError(format!("{word:?} means nothing here"))),
            }
        }
        Ok(spec)
    }
}

impl PacketSpec {
    fn extra(&mut self, key: &str, value: &str) -> Result<(), SpecError> {
        match key {
            "seq" => self.seq = number(value, "a sequence number")?,
            "ack" => self.ack = number(value, "an acknowledgement number")?,
            "win" => self.window = number(value, "a window, 0-65535")?,
            "wscale" => self.window_scale = Some(number(value, "a window scale, 0-14")?),
            "len" => self.len = number(value, "a length in bytes")?,
            "ttl" => self.hop_limit = number(value, "a time to live, 0-255")?,
            "id" => self.id = number(value, "an identifier, 0-65535")?,
            "mtu" => self.mtu = number(value, "an MTU in bytes")?,
            "quote" => self.quote = Some(Box::new(value.parse()?)),
            "frag" => {
                let (place, more) = match value.strip_suffix('+') {
                    Some(place) => (place, true),
                    None => (value, false),
                };
                let (id, offset) = place.split_once(':').ok_or_else(|| {
                    SpecError(format!("{value:?} is not frag=ID:OFFSET or frag=ID:OFFSET+"))
                })?;
                let offset: u16 = number(offset, "an offset in bytes")?;
                if !offset.is_multiple_of(8) {
                    return Err(SpecError(format!(
                        "\"{offset}\" is no multiple of 8, as offsets are"
                    )));
                }
                self.fragment = Some((number(id, "an identification")?, offset, more));
            }
            _ => {
                return Err(SpecError(format!(
                    "{key:?} is not one of seq, ack, win, wscale, len, ttl, id, mtu, quote, frag"
                )));
            }
        }
        Ok(())
    }
}

/// Words, of which one may be `key="several words"`.
fn words(text: &str) -> Result<Vec<String>, SpecError> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        if let Some(open) = rest[..end].find("=\"") {
            let (key, quoted) = (&rest[..open], &rest[open + 2..]);
            let close = quoted
                .find('"')
                .ok_or_else(|| SpecError(format!("{key}=\" has no closing quotation mark")))?;
            words.push(format!("{key}={}", &quoted[..close]));
            rest = quoted[close + 1..].trim_start();
        } else {
            words.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Ok(words)
}

fn number<T: FromStr>(text: &str, what: &str) -> Result<T, SpecError> {
    text.parse().map_err(|_| SpecError(format!("{text:?} is not {what}")))
}

fn endpoint(text: &str, has_port: bool) -> Result<(IpAddr, u16), SpecError> {
    if has_port {
        let addr: SocketAddr = number(text, "ADDRESS:PORT (IPv6: [ADDRESS]:PORT)")?;
        Ok((addr.ip(), addr.port()))
    } else {
        Ok((number(text, "an IP address")?, 0))
    }
}

fn tcp_flags(word: &str) -> Result<TcpFlags, SpecError> {
    word.chars().try_fold(TcpFlags::default(), |flags, letter| {
        let known = FLAGS.iter().find(|(l, _)| *l == letter);
        let (_, flag) =
            known.ok_or_else(|| SpecError(format!("{word:?} is not made of the flags SAFRPU")))?;
        Ok(flags | *flag)
    })
}

fn message(proto: u8, word: &str) -> Result<(u8, u8), SpecError> {
    if let Some((_, _, message)) = MESSAGES.iter().find(|(p, n, _)| *p == proto && *n == word) {
        return Ok(*message);
    }
    let (kind, code) = word.split_once('/').unwrap_or((word, "0"));
    Ok((number(kind, "an ICMP message, TYPE/CODE")?, number(code, "an ICMP code, 0-255")?))
}

/// The notation that [`PacketSpec::from_str`] reads; defaults are left out.
impl fmt::Display for PacketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (self.src, self.dst);
        match self.protocol {
            protocol::TCP | protocol::UDP => {
                let name = if self.protocol == protocol::TCP { "tcp" } else { "udp" };
                let (src, dst) =
                    (SocketAddr::new(src, self.ports.0), SocketAddr::new(dst, self.ports.1));
                write!(f, "{name} {src} -> {dst}")?;
            }
            protocol::ICMP => write!(f, "icmp {src} -> {dst} {}/{}", self.icmp.0, self.icmp.1)?,
            protocol::ICMPV6 => write!(f, "icmpv6 {src} -> {dst} {}/{}", self.icmp.0, self.icmp.1)?,
            other => match PORTLESS.iter().find(|(_, p)| *p == other) {
                Some((name, _)) => write!(f, "{name} {src} -> {dst}")?,
                None => write!(f, "proto {other} {src} -> {dst}")?,
            },
        }
        if self.protocol == protocol::TCP {
            f.write_str(" ")?;
            for (letter, _) in FLAGS.iter().filter(|(_, flag)| self.flags.contains(*flag)) {
                write!(f, "{letter}")?;
            }
        }
        let mut extra = |key: &str, value: u32, default: u32| match value == default {
            true => Ok(()),
            false => write!(f, " {key}={value}"),
        };
        extra("seq", self.seq, 0)?;
        extra("ack", self.ack, 0)?;
        extra("win", self.window.into(), 65_535)?;
        extra("len", self.len.into(), 0)?;
        extra("ttl", self.hop_limit.into(), 64)?;
        extra("id", self.id.into(), 0)?;
        extra("mtu", self.mtu, 0)?;
        if let Some(shift) = self.window_scale {
            write!(f, " wscale={shift}")?;
        }
        if self.dont_fragment {
            f.write_str(" df")?;
        }
        if let Some((id, offset, more)) = self.fragment {
            write!(f, " frag={id}:{offset}{}", if more { "+" } else { "" })?;
        }
        match &self.quote {
            Some(quote) => write!(f, " quote=\"{quote}\""),
            None => Ok(()),
        }
    }
}
