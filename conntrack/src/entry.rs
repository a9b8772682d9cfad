//! One tracked flow: its state, and what a packet does to it.

use sgwall_packet::{FiveTuple, FlowKey, Headers, Side, Timestamp, Transport, query_request_type};

use crate::tcp::{self, From};
use crate::{RuleTag, Scope};

/// The state of a tracked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// A SYN was seen.
    TcpSynSent,
    /// A SYN was seen from each end: simultaneous open.
    TcpSynSent2,
    /// The SYN was answered by SYN and ACK.
    TcpSynRecv,
    /// The handshake is complete.
    TcpEstablished,
    /// One end has sent a FIN.
    TcpFinWait,
    /// That FIN was acknowledged.
    TcpCloseWait,
    /// The other end has sent its FIN too.
    TcpLastAck,
    /// That one was acknowledged: the connection is over.
    TcpTimeWait,
    /// A valid RST was seen: the connection is over.
    TcpClose,
    /// UDP with at most one transaction.
    Udp,
    /// UDP with two transactions or more.
    UdpStream,
    /// An ICMP or ICMPv6 query.
    Icmp,
    /// Another protocol.
    Other,
}

impl FlowState {
    /// How many there are.
    pub(crate) const COUNT: usize = FlowState::Other as usize + 1;

    /// A stable kebab-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowState::TcpSynSent => "syn-sent",
            FlowState::TcpSynSent2 => "syn-sent-2",
            FlowState::TcpSynRecv => "syn-recv",
            FlowState::TcpEstablished => "established",
            FlowState::TcpFinWait => "fin-wait",
            FlowState::TcpCloseWait => "close-wait",
            FlowState::TcpLastAck => "last-ack",
            FlowState::TcpTimeWait => "time-wait",
            FlowState::TcpClose => "close",
            FlowState::Udp => "single",
            FlowState::UdpStream => "stream",
            FlowState::Icmp => "query",
            FlowState::Other => "other",
        }
    }
}

/// A tracked flow, as whoever lists them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// The interface that owns it.
    pub scope: Scope,
    /// Its key.
    pub key: FlowKey,
    /// The side that opened it.
    pub original: Side,
    /// Its state.
    pub state: FlowState,
    /// When it is dead unless another packet comes.
    pub deadline: Timestamp,
    /// The rule that admitted it.
    pub tag: RuleTag,
    /// The policy generation that did.
    pub generation: u32,
}

impl FlowView {
    pub(crate) fn of(key: FlowKey, flow: &Flow, deadline: Timestamp) -> Self {
        FlowView {
            scope: flow.scope,
            key,
            original: flow.track.original,
            state: flow.track.state,
            deadline,
            tag: flow.tag,
            generation: flow.generation,
        }
    }

    /// The five-tuple of its original direction. Of an ICMP query the ports hold the request's type
    /// and the identifier (see [`FlowKey::of`]).
    #[must_use]
    pub fn original_tuple(&self) -> FiveTuple {
        self.key.tuple(self.original)
    }
}

/// Whether an accepted packet that belongs to no flow may open one: a TCP SYN (SEMANTICS 6.9), a
/// UDP packet, an ICMP query but not its reply (7.3), a packet of any protocol without ports
/// (7.4). Later fragments and other ICMP messages may not.
#[must_use]
pub fn may_open(headers: &Headers) -> bool {
    match headers.transport {
        Transport::Tcp(tcp) => tcp.flags.is_opening(),
        Transport::Udp { .. } | Transport::Other => true,
        Transport::Icmp(icmp) => {
            icmp.identifier.is_some()
                && query_request_type(headers.protocol, icmp.kind) == Some(icmp.kind)
        }
        Transport::LaterFragment => false,
    }
}

/// What the table holds of a flow besides its key and its places in lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) scope: Scope,
    pub(crate) tag: RuleTag,
    pub(crate) generation: u32,
    pub(crate) track: Track,
}

/// What the state machines remember. One struct for all protocols keeps an entry at 64 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Track {
    pub(crate) state: FlowState,
    /// The side that opened the flow.
    pub(crate) original: Side,
    /// Bits, of which each protocol has its own.
    pub(crate) flags: u8,
    /// TCP: the window shift of each end, 4 bits each.
    pub(crate) shifts: u8,
    /// TCP: how much more each end has been ready to take, in units of its scale. Index 0 is the
    /// original end. While a SYN is unanswered, index 1 has the bytes of data it carried.
    pub(crate) window: [u16; 2],
    /// TCP: the next byte that each end expects: its last acknowledgement number or, before it
    /// has sent one, the one after the other's SYN. That of the original end is unknown until its
    /// SYN is answered.
    pub(crate) expects: [u32; 2],
}

/// UDP: the last packet went in the original direction.
const ASKED: u8 = 1;
/// All but TCP: the flow was seen in the reply direction.
const ANSWERED: u8 = 2;

impl Flow {
    /// The flow that `headers` opens, coming from `side`.
    pub(crate) fn open(
        scope: Scope,
        headers: &Headers,
        side: Side,
        tag: RuleTag,
        generation: u32,
    ) -> Self {
        let (state, flags) = match headers.transport {
            Transport::Tcp(_) => (FlowState::TcpSynSent, 0),
            Transport::Udp { .. } => (FlowState::Udp, ASKED),
            Transport::Icmp(_) => (FlowState::Icmp, 0),
            Transport::Other | Transport::LaterFragment => (FlowState::Other, 0),
        };
        let mut track =
            Track { state, original: side, flags, shifts: 0, window: [0; 2], expects: [0; 2] };
        if let Transport::Tcp(syn) = &headers.transport {
            tcp::open(&mut track, syn);
        }
        Flow { scope, tag, generation, track }
    }

    /// Whether nobody has shown that the flow is wanted: a TCP flow before its handshake is complete,
    /// or refused before it was; any other that was seen in its original direction alone.
    pub(crate) fn is_embryonic(&self) -> bool {
        use FlowState as S;
        let Track { state, flags, .. } = self.track;
        match state {
            S::TcpSynSent | S::TcpSynSent2 | S::TcpSynRecv => true,
            S::TcpClose => flags & tcp::REFUSED != 0,
            S::Udp | S::Icmp | S::Other => flags & ANSWERED == 0,
            _ => false,
        }
    }

    /// Whether a packet from `side` goes in the reply direction.
    pub(crate) fn is_reply(&self, side: Side) -> bool {
        side != self.track.original
    }

    /// Whether the packet begins a new connection on the five-tuple of this ended one.
    pub(crate) fn is_reopened_by(&self, headers: &Headers) -> bool {
        matches!(&headers.transport, Transport::Tcp(tcp) if tcp::reopens(self.track.state, tcp))
    }

    /// Whether the packet is a TCP segment that its receiver can only refuse.
    pub(crate) fn is_outside(&self, headers: &Headers, side: Side) -> bool {
        match &headers.transport {
            Transport::Tcp(tcp) => tcp::is_outside(&self.track, self.from(side), tcp),
            _ => false,
        }
    }

    fn from(&self, side: Side) -> From {
        if self.is_reply(side) { From::Reply } else { From::Original }
    }

    /// Notes an accepted packet; false if it does not refresh the flow.
    #[inline(always)]
    pub(crate) fn note(&mut self, headers: &Headers, side: Side) -> bool {
        let from = self.from(side);
        let track = &mut self.track;
        match &headers.transport {
            Transport::Tcp(tcp) => {
                let next = tcp::advance(track, from, tcp);
                track.state = next.unwrap_or(track.state);
                next.is_some()
            }
            Transport::Udp { .. } => {
                track.note_datagram(from);
                true
            }
            _ => {
                if from == From::Reply {
                    track.flags |= ANSWERED;
                }
                true
            }
        }
    }
}

impl Track {
    /// A reply that follows a request completes a transaction; the second one makes the flow a
    /// stream (SEMANTICS 7.5).
    fn note_datagram(&mut self, from: From) {
        if from == From::Original {
            self.flags |= ASKED;
            return;
        }
        if self.flags & (ASKED | ANSWERED) == ASKED | ANSWERED {
            self.state = FlowState::UdpStream;
        }
        if self.flags & ASKED != 0 {
            self.flags = ANSWERED;
        }
    }
}
