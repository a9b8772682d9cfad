//! The TCP state machine of SEMANTICS 7.6, as a table from state, sender and segment.
//!
//! A segment outside the receiver's window passes unless the caller asks ([`is_outside`], 7.7),
//! but it neither refreshes nor advances the flow, so that a sender who guesses cannot end a flow
//! or keep it alive. A RST counts only if its sequence number is what the receiver expects, or
//! lies in its window.
//!
//! A window is known by what its owner says of it, never by what others send: the highest byte
//! that an end was ready to take, which never moves back, because data sent while it was open may
//! still be on its way. A lost, fragmented or repeated segment cannot put it out of step.
//!
//! Sequence numbers are compared modulo 2^32 (RFC 9293, section 3.4), windows scaled as RFC 7323
//! has it: only if both SYNs offer it, and never the window of a SYN itself.

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

/// The original end has sent a FIN; the next bit: the reply end has.
const FIN: u8 = 1;
/// The second FIN came from the reply end.
const LAST_FIN_REPLY: u8 = 1 << 2;
/// It was reset before its handshake was complete.
pub(crate) const REFUSED: u8 = 1 << 3;
/// From this bit on: the window scale that the SYN offers.
const OFFER: u8 = 4;
/// It offers none; the largest is 14.
const NO_SHIFT: u8 = 15;

/// How far behind what its receiver expects a segment may lie at least (a retransmission), and how
/// far beyond an end's window its acknowledgement: Linux takes a segment that begins in its window
/// whole. As Linux's connection tracking has it (`MAXACKWINDOW`).
const SLACK: u32 = 66_000;

impl Track {
    fn has(&self, flag: u8, end: From) -> bool {
        self.flags & (flag << end as u8) != 0
    }

    fn set(&mut self, flag: u8, end: From) {
        self.flags |= flag << end as u8;
    }

    /// The shift of an end's window: 0 unless both have offered one.
    #[inline(always)]
    fn shift(&self, end: From) -> u8 {
        self.shifts >> (4 * end as u8) & 15
    }

    /// Notes what the SYN offers.
    fn offer_shift(&mut self, offered: Option<u8>) {
        self.flags |= offered.unwrap_or(NO_SHIFT) << OFFER;
    }

    /// Notes what the answer to the SYN offers, which decides for both ends.
    fn settle_shifts(&mut self, offered: Option<u8>) {
        self.shifts = match (self.flags >> OFFER, offered) {
            (original @ 0..NO_SHIFT, Some(reply)) => original | reply << 4,
            _ => 0,
        };
    }

    /// Bytes that `end` is ready to take; at least one, which a zero-window probe uses.
    #[inline(always)]
    fn window(&self, end: From) -> u32 {
        (u32::from(self.window[end as usize]) << self.shift(end)).max(1)
    }

    /// The largest window that `end` can have offered: how far back a sender that has missed its
    /// acknowledgements may begin again.
    #[inline(always)]
    fn widest(&self, end: From) -> u32 {
        (u32::from(u16::MAX) << self.shift(end)).max(SLACK)
    }

    /// How far a segment begins beyond what its receiver expects, and how far it ends.
    #[inline(always)]
    fn reach(&self, from: From, tcp: &Tcp) -> (i32, i32) {
        let ahead = tcp.seq.wrapping_sub(self.expects[from.other() as usize]) as i32;
        (ahead, ahead.saturating_add_unsigned(segment_len(tcp)))
    }

    /// Whether a segment lies where its receiver can use it, or is an old one sent again.
    #[inline(always)]
    fn in_window(&self, from: From, tcp: &Tcp) -> bool {
        let (start, end) = self.reach(from, tcp);
        let window = self.window(from.other());
        start <= window as i32 && end >= -(window.max(SLACK) as i32)
    }

    /// Whether a segment acknowledges what the other end may have sent, or did long ago.
    #[inline(always)]
    fn acknowledges_sent(&self, from: From, tcp: &Tcp) -> bool {
        let ahead = tcp.ack.wrapping_sub(self.expects[from as usize]) as i32;
        (-(self.widest(from) as i32)..=(self.window(from) + SLACK) as i32).contains(&ahead)
    }

    /// Whether a segment of the reply end acknowledges the SYN, and at most the data in it
    /// (RFC 7413): nothing else is an answer to it (RFC 9293, section 3.10.7.3).
    fn answers_syn(&self, tcp: &Tcp) -> bool {
        let ahead = tcp.ack.wrapping_sub(self.expects[From::Reply as usize]);
        tcp.flags.contains(TcpFlags::ACK) && ahead <= self.window[From::Reply as usize].into()
    }

    /// Whether a segment of the original end acknowledges the answer to its SYN, and at most the
    /// data that came with it (RFC 7413).
    fn confirms_answer(&self, tcp: &Tcp) -> bool {
        tcp.ack.wrapping_sub(self.expects[From::Original as usize]) <= self.window(From::Original)
    }

    /// Whether a RST ends the flow.
    fn is_valid_reset(&self, from: From, tcp: &Tcp) -> bool {
        if self.state == FlowState::TcpSynSent && from == From::Reply {
            return self.answers_syn(tcp);
        }
        let to = from.other();
        let ahead = tcp.seq.wrapping_sub(self.expects[to as usize]);
        let in_window = ahead < self.window(to);
        // The opener may not have heard the answer to its SYN: the answer to its next one counts.
        let refuses_syn = self.state == FlowState::TcpSynRecv
            && from == From::Reply
            && tcp.flags.contains(TcpFlags::ACK)
            && tcp.ack == self.expects[From::Reply as usize];
        in_window || refuses_syn
    }

    /// Takes over what an end says it expects and is ready to take.
    #[inline(always)]
    fn learn(&mut self, from: From, tcp: &Tcp) {
        let (end, shift) = (from as usize, self.shift(from));
        let bytes = match tcp.flags.contains(TcpFlags::SYN) {
            true => i64::from(tcp.window),
            false => i64::from(tcp.window) << shift,
        };
        let moved = i64::from(tcp.ack.wrapping_sub(self.expects[end]) as i32);
        let forward = moved.max(0);
        let edge = (moved + bytes).max(i64::from(self.window[end]) << shift);
        self.expects[end] = self.expects[end].wrapping_add(forward as u32);
        self.window[end] = in_units((edge - forward) as u32, shift);
    }

    /// Notes a SYN or SYN-ACK that answers the SYN: what the original end will expect, and how the
    /// windows of both are scaled from here on.
    fn note_answer(&mut self, tcp: &Tcp) {
        let bytes = self.window(From::Original);
        self.expects[From::Original as usize] = tcp.seq.wrapping_add(1);
        self.settle_shifts(tcp.window_scale);
        self.window[From::Original as usize] = in_units(bytes, self.shift(From::Original));
        let window = u32::from(tcp.window);
        self.window[From::Reply as usize] = in_units(window, self.shift(From::Reply));
        if tcp.flags.contains(TcpFlags::ACK) {
            self.expects[From::Reply as usize] = tcp.ack;
        }
    }
}

/// Bytes of a window as its field counts them, rounded up: what fits is never taken for too much.
#[inline]
fn in_units(bytes: u32, shift: u8) -> u16 {
    ((u64::from(bytes) + ((1 << shift) - 1)) >> shift).min(u16::MAX.into()) as u16
}

/// Notes the SYN that opens a flow.
pub(crate) fn open(track: &mut Track, syn: &Tcp) {
    track.window[From::Original as usize] = syn.window;
    track.offer_shift(syn.window_scale);
    note_syn(track, syn);
}

/// Notes what the answer to a SYN of the original end must acknowledge. Until it comes, the
/// window of the reply end holds how many bytes of data came with the SYN.
fn note_syn(track: &mut Track, syn: &Tcp) {
    track.expects[From::Reply as usize] = syn.seq.wrapping_add(1);
    let reply = &mut track.window[From::Reply as usize];
    *reply = (*reply).max(syn.payload_len.min(u16::MAX.into()) as u16);
}

/// Whether a new SYN on the five-tuple of such a flow is a new connection. The specification says
/// so of the original end; a SYN of the other end is no part of the ended connection either.
pub(crate) fn reopens(state: FlowState, tcp: &Tcp) -> bool {
    tcp.flags.is_opening() && matches!(state, FlowState::TcpTimeWait | FlowState::TcpClose)
}

/// Whether a segment is one that its receiver can only refuse: outside its window, acknowledging
/// what was never sent, or a RST that does not count.
///
/// A SYN is never that, nor a SYN-ACK: whoever has a connection answers it, whatever its number
/// (RFC 5961, section 4). Nor is what comes before the handshake is complete, RSTs aside: no end
/// has confirmed yet what it expects, and what does not fit lets the ends find out (RFC 9293,
/// figures 8 to 10). After a RST there is no window any more.
pub(crate) fn is_outside(track: &Track, from: From, tcp: &Tcp) -> bool {
    use FlowState as S;
    if track.state == S::TcpClose {
        return false;
    }
    if tcp.flags.contains(TcpFlags::RST) {
        // What the other end expects of the opener may be left from an earlier connection.
        let is_unknown = track.state == S::TcpSynSent && from == From::Original;
        return !is_unknown && !track.is_valid_reset(from, tcp);
    }
    let in_handshake = matches!(track.state, S::TcpSynSent | S::TcpSynSent2 | S::TcpSynRecv);
    if in_handshake || tcp.flags.contains(TcpFlags::SYN) {
        return false;
    }
    let to = from.other();
    let (start, end) = track.reach(from, tcp);
    let fits = start <= track.window(to) as i32 && end >= -(track.widest(to) as i32);
    !fits || (tcp.flags.contains(TcpFlags::ACK) && !track.acknowledges_sent(from, tcp))
}

/// What an accepted segment makes of the state; `None`: it has no effect, not even a refresh.
#[inline(always)]
pub(crate) fn advance(track: &mut Track, from: From, tcp: &Tcp) -> Option<FlowState> {
    // Nearly all segments, which change no state; [`advance_any`] comes to the same.
    if track.state == FlowState::TcpEstablished && tcp.flags.is_plain() {
        let fits = track.in_window(from, tcp) && track.acknowledges_sent(from, tcp);
        return fits.then(|| {
            track.learn(from, tcp);
            FlowState::TcpEstablished
        });
    }
    advance_any(track, from, tcp)
}

/// [`advance`] of whatever segment.
#[inline(never)]
fn advance_any(track: &mut Track, from: From, tcp: &Tcp) -> Option<FlowState> {
    use FlowState as S;
    let state = track.state;
    let has = |flag| tcp.flags.contains(flag);
    let (syn, ack, fin) = (has(TcpFlags::SYN), has(TcpFlags::ACK), has(TcpFlags::FIN));
    // What follows a reset does not keep the flow alive.
    if state == S::TcpClose {
        return None;
    }
    if has(TcpFlags::RST) {
        return track.is_valid_reset(from, tcp).then(|| {
            if matches!(state, S::TcpSynSent | S::TcpSynSent2 | S::TcpSynRecv) {
                track.flags |= REFUSED;
            }
            S::TcpClose
        });
    }
    if syn && fin {
        return None;
    }
    if tcp.flags.is_opening() {
        return match (state, from) {
            (S::TcpSynSent, From::Original) => {
                note_syn(track, tcp);
                Some(state)
            }
            // Simultaneous open (RFC 9293, figure 7).
            (S::TcpSynSent, From::Reply) => {
                track.note_answer(tcp);
                Some(S::TcpSynSent2)
            }
            (S::TcpSynSent2 | S::TcpSynRecv, _) => Some(state),
            // RFC 5961: the receiver answers with a challenge ACK, and the connection stands.
            _ => None,
        };
    }
    // A receiver drops what has no ACK (RFC 9293, section 3.10.7.4).
    if !ack {
        return None;
    }
    if state == S::TcpSynSent {
        let is_answer = syn && from == From::Reply && track.answers_syn(tcp);
        return is_answer.then(|| {
            track.note_answer(tcp);
            S::TcpSynRecv
        });
    }
    // A server that keeps nothing of a SYN (RFC 4987, 3.6) may answer the next one otherwise.
    let answers_again = state == S::TcpSynRecv
        && (syn && from == From::Reply)
        && tcp.ack == track.expects[From::Reply as usize];
    if answers_again {
        track.expects[From::Original as usize] = tcp.seq.wrapping_add(1);
        return Some(state);
    }
    if !track.in_window(from, tcp) || !track.acknowledges_sent(from, tcp) {
        return None;
    }
    if state == S::TcpSynSent2 {
        return syn.then(|| {
            track.learn(from, tcp);
            S::TcpSynRecv
        });
    }
    let completes = state == S::TcpSynRecv && from == From::Original;
    // Else a forger who cannot see the answer to the SYN it forged would make it a connection.
    if completes && !track.confirms_answer(tcp) {
        return None;
    }
    // As with a SYN: nobody takes over what the answer to one says later.
    if syn && state != S::TcpSynRecv {
        return None;
    }
    track.learn(from, tcp);
    if syn {
        return Some(state);
    }
    let state = if completes { S::TcpEstablished } else { state };
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
        S::TcpFinWait if !track.has(FIN, from) => S::TcpCloseWait,
        S::TcpLastAck if !fin && from != last_fin => S::TcpTimeWait,
        state => state,
    })
}

/// Sequence numbers that a segment takes: payload, SYN and FIN.
#[inline]
fn segment_len(tcp: &Tcp) -> u32 {
    let one = |flag| u32::from(tcp.flags.contains(flag));
    tcp.payload_len + one(TcpFlags::SYN) + one(TcpFlags::FIN)
}
