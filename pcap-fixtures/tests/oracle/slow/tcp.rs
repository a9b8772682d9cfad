//! A TCP connection as `docs/semantics.md` ("Tracking") tells of it, segment by segment.
//!
//! Ends are 0, which opened the connection, and 1.

use sgwall_packet::{Tcp, TcpFlags};

/// What may lie behind what a receiver expects, and beyond what may be acknowledged, bytes.
const SLACK: i64 = 66_000;

/// A tracked connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) state: &'static str,
    ends: [End; 2],
    /// Bytes of data that came with the opener's SYNs, at the most.
    syn_data: u32,
    /// The window scale that the first SYN offers.
    offered: Option<u8>,
    /// Who sent the second FIN.
    last_fin: usize,
}

/// What is known of one end.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// The next byte that it expects.
    expects: u32,
    /// Bytes beyond that it was ever ready to take: whole units of its scale.
    ready: i64,
    /// The shift of its window.
    shift: u8,
    has_sent_fin: bool,
}

impl End {
    /// At least the byte of a zero-window probe.
    fn window(&self) -> i64 {
        self.ready.max(1)
    }

    fn be_ready(&mut self, bytes: i64) {
        let unit = 1 << self.shift;
        self.ready = ((bytes + unit - 1) / unit).min(65_535) * unit;
    }

    /// The widest window that its scale can express.
    fn widest(&self) -> i64 {
        (65_535 << self.shift).max(SLACK)
    }
}

/// How far `number` is ahead of `of`, modulo 2^32.
fn ahead(number: u32, of: u32) -> i64 {
    i64::from(number.wrapping_sub(of) as i32)
}

fn has(tcp: &Tcp, flag: TcpFlags) -> bool {
    tcp.flags.contains(flag)
}

impl Connection {
    pub(crate) fn open(syn: &Tcp) -> Self {
        let mut connection = Connection {
            state: "syn-sent",
            ends: [End::default(); 2],
            syn_data: 0,
            offered: syn.window_scale,
            last_fin: 0,
        };
        connection.ends[0].ready = syn.window.into();
        connection.note_syn(syn);
        connection
    }

    fn note_syn(&mut self, syn: &Tcp) {
        self.ends[1].expects = syn.seq.wrapping_add(1);
        self.syn_data = self.syn_data.max(syn.payload_len.min(65_535));
    }

    /// A SYN or SYN-ACK of the other end: scales are settled, if both offer one.
    fn note_answer(&mut self, tcp: &Tcp) {
        if let (Some(opener), Some(answerer)) = (self.offered, tcp.window_scale) {
            (self.ends[0].shift, self.ends[1].shift) = (opener, answerer);
        }
        let opener_ready = self.ends[0].window();
        self.ends[0].expects = tcp.seq.wrapping_add(1);
        self.ends[0].be_ready(opener_ready);
        self.ends[1].be_ready(tcp.window.into());
        if has(tcp, TcpFlags::ACK) {
            self.ends[1].expects = tcp.ack;
        }
    }

    /// Takes over what an end acknowledges and is ready to take: no edge moves back.
    fn learn(&mut self, from: usize, tcp: &Tcp) {
        let end = &mut self.ends[from];
        let moved = ahead(tcp.ack, end.expects);
        let shift = if has(tcp, TcpFlags::SYN) { 0 } else { end.shift };
        let edge = (moved + (i64::from(tcp.window) << shift)).max(end.ready);
        if moved > 0 {
            end.expects = tcp.ack;
        }
        end.be_ready(edge - moved.max(0));
    }

    /// A SYN-ACK or RST that answers the SYN acknowledges it, and at most the data in it.
    fn answers_syn(&self, tcp: &Tcp) -> bool {
        let beyond = tcp.ack.wrapping_sub(self.ends[1].expects);
        has(tcp, TcpFlags::ACK) && beyond <= self.syn_data
    }

    /// From where to where a segment reaches, from what its receiver expects on.
    fn reach(&self, from: usize, tcp: &Tcp) -> (i64, i64) {
        let start = ahead(tcp.seq, self.ends[1 - from].expects);
        let flags = u32::from(has(tcp, TcpFlags::SYN)) + u32::from(has(tcp, TcpFlags::FIN));
        (start, start + i64::from(tcp.payload_len + flags))
    }

    fn acknowledges_sent(&self, from: usize, tcp: &Tcp) -> bool {
        let end = &self.ends[from];
        let acknowledged = ahead(tcp.ack, end.expects);
        acknowledged >= -end.widest() && acknowledged <= self.window_of(from) + SLACK
    }

    /// While a SYN is unanswered nothing is known of the other end's window; the data that came
    /// with the SYN stands for it.
    fn window_of(&self, end: usize) -> i64 {
        match (end, self.state) {
            (1, "syn-sent") => i64::from(self.syn_data).max(1),
            _ => self.ends[end].window(),
        }
    }

    fn is_valid_reset(&self, from: usize, tcp: &Tcp) -> bool {
        if self.state == "syn-sent" && from == 1 {
            return self.answers_syn(tcp);
        }
        let start = i64::from(tcp.seq.wrapping_sub(self.ends[1 - from].expects));
        let refuses_syn = self.state == "syn-recv"
            && from == 1
            && has(tcp, TcpFlags::ACK)
            && tcp.ack == self.ends[1].expects;
        start < self.window_of(1 - from) || refuses_syn
    }

    /// Notes an accepted segment; false if it has no effect.
    pub(crate) fn note(&mut self, tcp: &Tcp, reply: bool) -> bool {
        match self.next(tcp, reply.into()) {
            Some(state) => self.state = state,
            None => return false,
        }
        true
    }

    fn next(&mut self, tcp: &Tcp, from: usize) -> Option<&'static str> {
        let state = self.state;
        let (syn, ack, fin) =
            (has(tcp, TcpFlags::SYN), has(tcp, TcpFlags::ACK), has(tcp, TcpFlags::FIN));
        if state == "close" {
            return None;
        }
        if has(tcp, TcpFlags::RST) {
            return self.is_valid_reset(from, tcp).then_some("close");
        }
        if syn && fin {
            return None;
        }
        if syn && !ack {
            match (state, from) {
                ("syn-sent", 0) => self.note_syn(tcp),
                ("syn-sent", _) => {
                    self.note_answer(tcp);
                    return Some("syn-sent-2");
                }
                ("syn-sent-2" | "syn-recv", _) => {}
                _ => return None,
            }
            return Some(state);
        }
        if !ack {
            return None;
        }
        if state == "syn-sent" {
            let is_answer = syn && from == 1 && self.answers_syn(tcp);
            return is_answer.then(|| {
                self.note_answer(tcp);
                "syn-recv"
            });
        }
        if state == "syn-recv" && syn && from == 1 && tcp.ack == self.ends[1].expects {
            self.ends[0].expects = tcp.seq.wrapping_add(1);
            return Some(state);
        }
        let (start, end) = self.reach(from, tcp);
        let window = self.ends[1 - from].window();
        let fits = start <= window && end >= -window.max(SLACK);
        if !fits || !self.acknowledges_sent(from, tcp) {
            return None;
        }
        if state == "syn-sent-2" {
            if syn {
                self.learn(from, tcp);
            }
            return syn.then_some("syn-recv");
        }
        let is_third = state == "syn-recv" && from == 0;
        let beyond_answer = i64::from(tcp.ack.wrapping_sub(self.ends[0].expects));
        if is_third && beyond_answer > self.ends[0].window() {
            return None;
        }
        if syn && state != "syn-recv" {
            return None;
        }
        self.learn(from, tcp);
        if syn {
            return Some(state);
        }
        if fin && !self.ends[from].has_sent_fin {
            self.ends[from].has_sent_fin = true;
            if self.ends[1 - from].has_sent_fin {
                self.last_fin = from;
                return Some("last-ack");
            }
            return Some("fin-wait");
        }
        Some(match state {
            "syn-recv" if is_third => "established",
            "fin-wait" if !self.ends[from].has_sent_fin => "close-wait",
            "last-ack" if !fin && from != self.last_fin => "time-wait",
            _ => state,
        })
    }
}

/// Whether `tcp_window_check` drops a segment.
pub(crate) fn is_refused(connection: &Connection, tcp: &Tcp, reply: bool) -> bool {
    let from = usize::from(reply);
    let state = connection.state;
    if state == "close" {
        return false;
    }
    if has(tcp, TcpFlags::RST) {
        let may_be_of_an_earlier_one = state == "syn-sent" && from == 0;
        return !may_be_of_an_earlier_one && !connection.is_valid_reset(from, tcp);
    }
    if has(tcp, TcpFlags::SYN) || matches!(state, "syn-sent" | "syn-sent-2" | "syn-recv") {
        return false;
    }
    let (start, end) = connection.reach(from, tcp);
    let receiver = &connection.ends[1 - from];
    start > receiver.window()
        || end < -receiver.widest()
        || (has(tcp, TcpFlags::ACK) && !connection.acknowledges_sent(from, tcp))
}
