//! TCP, UDP and ICMP headers.

use super::{Bytes, bad_field};
use crate::error::{Layer, ParseError};
use crate::flow::query_request_type;
use crate::headers::{FragmentInfo, IcmpInfo, Tcp, TcpFlags, Transport, protocol};

/// Largest shift of the window-scale option (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// Reads the transport header at `offset` into `out`; `bytes` ends where the IP packet does.
#[inline(always)]
pub(super) fn parse(
    bytes: Bytes<'_>,
    offset: usize,
    proto: u8,
    fragment: &Option<FragmentInfo>,
    out: &mut Transport,
) -> Result<(), ParseError> {
    if fragment.is_some() {
        return parse_fragment(bytes, offset, proto, fragment, out);
    }
    match proto {
        protocol::TCP => tcp(bytes, offset, false, out),
        protocol::UDP => udp(bytes, offset, false, out),
        _ => parse_other(bytes, offset, proto, out),
    }
}

fn parse_other(
    bytes: Bytes<'_>,
    offset: usize,
    proto: u8,
    out: &mut Transport,
) -> Result<(), ParseError> {
    *out = match proto {
        protocol::ICMP | protocol::ICMPV6 => icmp(bytes, offset, proto)?,
        _ => Transport::Other,
    };
    Ok(())
}

#[inline(never)]
fn parse_fragment(
    bytes: Bytes<'_>,
    offset: usize,
    proto: u8,
    fragment: &Option<FragmentInfo>,
    out: &mut Transport,
) -> Result<(), ParseError> {
    if fragment.is_some_and(|f| f.offset > 0) {
        *out = Transport::LaterFragment;
        return Ok(());
    }
    let parsed = match proto {
        protocol::TCP => tcp(bytes, offset, true, out),
        protocol::UDP => udp(bytes, offset, true, out),
        _ => parse_other(bytes, offset, proto, out),
    };
    parsed.map_err(|error| match error {
        ParseError::TooShort { layer, offset, needed, had } => {
            ParseError::TinyFragment { layer, offset, needed, had }
        }
        error => error,
    })
}

#[inline(always)]
fn tcp(
    bytes: Bytes<'_>,
    offset: usize,
    is_fragment: bool,
    out: &mut Transport,
) -> Result<(), ParseError> {
    let h: &[u8; 20] = bytes.array(Layer::Tcp, offset)?;
    let claimed = usize::from(h[12] >> 4) * 4;
    // A first fragment may end among the options: what filters look at is there (RFC 1858).
    let header_len = if is_fragment { claimed.min(bytes.left(offset)) } else { claimed };
    if claimed < 20 || header_len > bytes.left(offset) {
        return Err(bad_field(Layer::Tcp, offset, "data offset", claimed as u32));
    }
    let flags = TcpFlags(h[13]);
    let window_scale = match flags.contains(TcpFlags::SYN) && header_len > 20 {
        true => window_scale(bytes.slice(Layer::Tcp, offset + 20, header_len - 20)?),
        false => None,
    };
    *out = Transport::Tcp(tcp_of(h, window_scale, (bytes.left(offset) - header_len) as u32));
    Ok(())
}

/// What a TCP header says.
#[inline(always)]
pub(super) fn tcp_of(h: &[u8; 20], window_scale: Option<u8>, payload_len: u32) -> Tcp {
    Tcp {
        src_port: u16::from_be_bytes([h[0], h[1]]),
        dst_port: u16::from_be_bytes([h[2], h[3]]),
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        window: u16::from_be_bytes([h[14], h[15]]),
        flags: TcpFlags(h[13]),
        window_scale,
        payload_len,
    }
}

/// Reads the first eight bytes of a transport header: ports, or ICMP type, code and identifier.
pub(super) fn parse_start(
    bytes: Bytes<'_>,
    offset: usize,
    proto: u8,
    fragment: &Option<FragmentInfo>,
    out: &mut Transport,
) -> Result<(), ParseError> {
    if fragment.is_some_and(|f| f.offset > 0) {
        *out = Transport::LaterFragment;
        return Ok(());
    }
    let [s0, s1, d0, d1, q0, q1, q2, q3] = *bytes.array(Layer::Tcp, offset)?;
    let (src_port, dst_port) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    *out = match proto {
        protocol::TCP => Transport::Tcp(Tcp {
            src_port,
            dst_port,
            seq: u32::from_be_bytes([q0, q1, q2, q3]),
            ack: 0,
            window: 0,
            flags: TcpFlags::default(),
            window_scale: None,
            payload_len: 0,
        }),
        protocol::UDP => Transport::Udp { src_port, dst_port },
        _ => return parse_other(bytes, offset, proto, out),
    };
    Ok(())
}

/// The shift of the window-scale option, if the options hold one. Options that make no sense are
/// the receiver's affair: the search ends there.
#[inline(never)]
fn window_scale(mut options: &[u8]) -> Option<u8> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    loop {
        match *options {
            [NOP, ref rest @ ..] => options = rest,
            [WINDOW_SCALE, 3, shift, ..] => return Some(shift.min(MAX_WINDOW_SCALE)),
            [END, ..] | [_, 0 | 1, ..] | [] | [_] => return None,
            [_, len, ..] => options = options.get(usize::from(len)..)?,
        }
    }
}

#[inline(always)]
fn udp(
    bytes: Bytes<'_>,
    offset: usize,
    is_fragment: bool,
    out: &mut Transport,
) -> Result<(), ParseError> {
    let h: &[u8; 8] = bytes.array(Layer::Udp, offset)?;
    let len = u16::from_be_bytes([h[4], h[5]]);
    // A first fragment's length is the whole datagram's; 0 is a jumbogram (RFC 2675, section 4)
    // or a frame under segmentation offload.
    let beyond = usize::from(len) > bytes.left(offset) && !is_fragment;
    if len != 0 && (len < 8 || beyond) {
        return Err(bad_field(Layer::Udp, offset, "length", len.into()));
    }
    *out = Transport::Udp {
        src_port: u16::from_be_bytes([h[0], h[1]]),
        dst_port: u16::from_be_bytes([h[2], h[3]]),
    };
    Ok(())
}

#[inline(never)]
fn icmp(bytes: Bytes<'_>, offset: usize, proto: u8) -> Result<Transport, ParseError> {
    // Type, code and checksum are all that every message has; queries have an identifier.
    let [kind, code, _, _] = *bytes.array(Layer::Icmp, offset)?;
    let identifier = match query_request_type(proto, kind) {
        Some(_) => {
            let [.., id0, id1] = *bytes.array::<6>(Layer::Icmp, offset)?;
            Some(u16::from_be_bytes([id0, id1]))
        }
        None => None,
    };
    Ok(Transport::Icmp(IcmpInfo { kind, code, identifier }))
}
