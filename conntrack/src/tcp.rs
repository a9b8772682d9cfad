//! The TCP state machine of SEMANTICS 7.6, as a table from state, sender and segment.
//!
//! Windows are never checked to drop (7.7): a segment outside the receiver's window passes, but
//! it neither refreshes nor advances the flow, so that a sender who guesses cannot end a flow or
//! keep it alive. A RST counts only if its sequence number is what the receiver expects, or lies
//! in its window.
//!
//! Sequence numbers are compared modulo 2^32 (RFC 9293, section 3.4).

use sgwall_packet::{Tcp, TcpFlags};

use crate::entry::{FlowState, Track};

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The end that opened the flow.
    Original,
    /// The other one.
    Reply,
}

impl From {
    const fn other(self) -> Self {
        match self {
            From::Original => From::Reply,
            From::Reply => From::Original,
        }
    }
}

/// `expects` of the original end is known.
const KNOWN: u8 = 1;
/// The original end has sent a FIN.
const FIN: u8 = 1 << 2;
/// The second FIN came from the reply end.
const LAST_FIN_REPLY: u8 = 1 << 4;
const NO_SHIFT: u8 = 15;

/// How far behind what its receiver expects a segment may lie: a retransmission. As Linux's
/// connection tracking has it (`MAXACKWINDOW`).
const BEHIND: u32 = 66_000;

impl Track {
    fn has(&self, flag: u8, end: From) -> bool {
        self.flags & (flag << end as u8) != 0
    }

    fn set(&mut self, flag: u8, end: From) {
        self.flags |= flag << end as u8;
    }

    fn expect(&mut self, end: From, next: u32) {
        self.expects[end as usize] = next;
        self.set(KNOWN, end);
    }

    /// Bytes that `end` is ready to take; at least one, which a zero-window probe uses.
    fn window(&self, end: From) -> u32 {
        let shifts = [self.shifts & 15, self.shifts >> 4];
        let scaled = shifts.iter().all(|&shift| shift != NO_SHIFT);
        let shift = if scaled { shifts[end as usize] } else { 0 };
        (u32::from(self.window[end as usize]) << shift).max(1)
    }

    fn note_shift(&mut self, end: From, offered: Option<u8>) {
        let shift = offered.unwrap_or(NO_SHIFT).min(NO_SHIFT);
        self.shifts = match end {
            From::Original => self.shifts & 0xf0 | shift,
            From::Reply => self.shifts & 0x0f | shift << 4,
        };
    }

    /// Whether a segment lies where its receiver can use it, or is an old one sent again.
    fn in_window(&self, from: From, tcp: &Tcp) -> bool {
        let to = from.other();
        if !self.has(KNOWN, to) {
            return true;
        }
        let ahead = tcp.seq.wrapping_sub(self.expects[to as usize]) as i32;
        let window = self.window(to);
        ahead <= window as i32
            && ahead.saturating_add_unsigned(segment_len(tcp)) >= -(window.max(BEHIND) as i32)
    }

    /// Whether a RST ends the flow.
    fn is_valid_reset(&self, from: From, tcp: &Tcp) -> bool {
        // The answer to a SYN names nothing but that SYN (RFC 9293, section 3.10.7.3).
        if self.state == FlowState::TcpSynSent && from == From::Reply {
            return tcp.flags.contains(TcpFlags::ACK) && tcp.ack == self.expects[1];
        }
        let to = from.other();
        let ahead = tcp.seq.wrapping_sub(self.expects[to as usize]);
        self.has(KNOWN, to) && ahead < self.window(to)
    }

    fn learn(&mut self, from: From, tcp: &Tcp) {
        if !tcp.flags.contains(TcpFlags::ACK) {
            return;
        }
        let newer = tcp.ack.wrapping_sub(self.expects[from as usize]) as i32 >= 0;
        if newer || !self.has(KNOWN, from) {
            self.expect(from, tcp.ack);
            self.window[from as usize] = tcp.window;
        }
    }
}

/// Notes the SYN that opens a flow.
pub(crate) fn open(track: &mut Track, syn: &Tcp) {
    track.expect(From::Reply, syn.seq.wrapping_add(1));
    track.window[From::Original as usize] = syn.window;
    track.note_shift(From::Original, syn.window_scale);
    track.note_shift(From::Reply, None);
}

/// Whether a new SYN on the five-tuple of such a flow is a new connection. The specification says
/// so of the original end; a SYN of the other end is no part of the ended connection either.
pub(crate) fn reopens(state: FlowState, tcp: &Tcp) -> bool {
    tcp.flags.is_opening() && matches!(state, FlowState::TcpTimeWait | FlowState::TcpClose)
}

/// What an accepted segment makes of the state; `None`: it has no effect, not even a refresh.
pub(crate) fn advance(track: &mut Track, from: From, tcp: &Tcp) -> Option<FlowState> {
    use FlowState as S;
    let state = track.state;
    let has = |flag| tcp.flags.contains(flag);
    let (syn, ack, fin) = (has(TcpFlags::SYN), has(TcpFlags::ACK), has(TcpFlags::FIN));
    if has(TcpFlags::RST) {
        return track.is_valid_reset(from, tcp).then_some(S::TcpClose);
    }
    // What follows a reset does not keep the flow alive.
    if state == S::TcpClose || (syn && fin) {
        return None;
    }
    if tcp.flags.is_opening() {
        return match (state, from) {
            (S::TcpSynSent, From::Original) => {
                track.expect(From::Reply, tcp.seq.wrapping_add(1));
                Some(state)
            }
            // Simultaneous open (RFC 9293, figure 7).
            (S::TcpSynSent | S::TcpSynSent2, From::Reply) => {
                track.expect(From::Original, tcp.seq.wrapping_add(1));
                track.note_shift(From::Reply, tcp.window_scale);
                Some(S::TcpSynSent2)
            }
            (S::TcpSynSent2 | S::TcpSynRecv, _) => Some(state),
            // RFC 5961: the receiver answers with a challenge ACK, and the connection stands.
            _ => None,
        };
    }
    if !track.in_window(from, tcp) {
        return None;
    }
    track.learn(from, tcp);
    if syn && ack {
        return match (state, from) {
            (S::TcpSynSent, From::Reply) | (S::TcpSynSent2, _) => {
                track.expect(from.other(), tcp.seq.wrapping_add(1));
                track.note_shift(from, tcp.window_scale);
                Some(S::TcpSynRecv)
            }
            (S::TcpSynRecv, _) => Some(state),
            _ => None,
        };
    }
    let state = match (state, from) {
        (S::TcpSynRecv, From::Original) if ack => S::TcpEstablished,
        (S::TcpSynSent | S::TcpSynSent2, _) => return None,
        _ => state,
    };
    if fin && !track.has(FIN, from) {
        track.set(FIN, from);
        if track.has(FIN, from.other()) {
            if from == From::Reply {
                track.flags |= LAST_FIN_REPLY;
            }
            return Some(S::TcpLastAck);
        }
        return Some(S::TcpFinWait);
    }
    let last_fin = if track.flags & LAST_FIN_REPLY != 0 { From::Reply } else { From::Original };
    Some(match state {
        S::TcpFinWait if ack && !track.has(FIN, from) => S::TcpCloseWait,
        S::TcpLastAck if ack && !fin && from != last_fin => S::TcpTimeWait,
        state => state,
    })
}

/// Sequence numbers that a segment takes: payload, SYN and FIN.
fn segment_len(tcp: &Tcp) -> u32 {
    let one = |flag| u32::from(tcp.flags.contains(flag));
    tcp.payload_len + one(TcpFlags::SYN) + one(TcpFlags::FIN)
}
