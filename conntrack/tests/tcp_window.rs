//! What lies in a receiver's window (SEMANTICS 7.7): tables, and honest connections over a bad
//! path, of which nothing may ever be outside.

mod common;

use common::{Line, SCOPE, Tracker, checked, headers, segment};
use proptest::prelude::*;
use sgwall_conntrack::Lookup;
use sgwall_packet::{Headers, Tcp, TcpFlags, Timestamp, Transport};

/// A handshake with windows of 1000 bytes.
const OPEN: [Line; 3] = [
    (0.0, '>', "S seq=1000 win=1000", "taken"),
    (0.1, '<', "SA seq=5000 ack=1001 win=1000", "taken"),
    (0.2, '>', "A seq=1001 ack=5001 win=1000", "taken"),
];

fn after_open(lines: &[Line]) {
    checked(&[&OPEN[..], lines].concat());
}

#[test]
fn a_segment_begins_in_the_window() {
    after_open(&[
        (1.0, '<', "PA seq=5001 ack=1001 len=500", "taken"),
        (1.1, '<', "PA seq=6001 ack=1001 len=500", "taken"),
        (1.2, '<', "PA seq=6002 ack=1001 len=500", "out"),
        (1.3, '<', "FA seq=6002 ack=1001", "out"),
        (1.4, '<', "A seq=2000000000 ack=1001", "out"),
        (1.5, '>', "A seq=1001 ack=5501 win=1000", "taken"),
        (1.6, '<', "PA seq=6501 ack=1001 len=500", "taken"),
        (1.7, '<', "PA seq=6502 ack=1001 len=500", "out"),
    ]);
}

/// Behind: a retransmission, whole or in part; a keep-alive (RFC 9293, 3.8.4), with a byte or
/// without.
#[test]
fn a_segment_may_lie_behind() {
    after_open(&[
        (1.0, '<', "PA seq=5001 ack=1001 len=500", "taken"),
        (1.1, '>', "A seq=1001 ack=5501 win=1000", "taken"),
        (1.2, '<', "PA seq=5001 ack=1001 len=500", "taken"),
        (1.3, '<', "PA seq=5301 ack=1001 len=500", "taken"),
        (1.4, '<', "A seq=5500 ack=1001", "taken"),
        (1.5, '<', "A seq=5500 ack=1001 len=1", "taken"),
        (1.6, '>', "A seq=1000 ack=5501 win=1000", "taken"),
        // 66,000 bytes behind at most.
        (1.7, '<', "A seq=4294906796 ack=1001", "out"),
        (1.8, '<', "A seq=4294906797 ack=1001", "taken"),
    ]);
}

/// A window that closes: what was sent into it while it was open is not outside. A probe of one
/// byte passes, and so does what follows when it opens again.
#[test]
fn a_window_may_close() {
    after_open(&[
        (1.0, '<', "A seq=5001 ack=1001 len=500", "taken"),
        (1.1, '>', "A seq=1001 ack=5501 win=0", "taken"),
        // On its way when the window closed.
        (1.2, '<', "A seq=5501 ack=1001 len=500", "taken"),
        (1.3, '>', "A seq=1001 ack=6001 win=0", "taken"),
        (2.0, '<', "A seq=6001 ack=1001 len=1", "taken"),
        (2.1, '<', "A seq=6002 ack=1001 len=1", "taken"),
        (2.2, '<', "A seq=6003 ack=1001 len=1", "out"),
        (2.3, '<', "R seq=6002", "out"),
        (3.0, '>', "A seq=1001 ack=6001 win=2000", "taken"),
        (3.1, '<', "A seq=7001 ack=1001 len=1000", "taken"),
        (3.2, '<', "A seq=8002 ack=1001 len=1", "out"),
        // An older acknowledgement that was overtaken takes nothing back.
        (3.3, '>', "A seq=1001 ack=5501 win=0", "taken"),
        (3.4, '<', "A seq=8001 ack=1001 len=1", "taken"),
    ]);
}

/// RFC 7323, 2.2 and 2.3: both SYNs must offer it, and the window of a SYN is never scaled.
#[test]
fn windows_are_scaled_as_both_ends_agree() {
    checked(&[
        (0.0, '>', "S seq=1000 win=1000 wscale=4", "taken"),
        (0.1, '<', "SA seq=5000 ack=1001 win=1000 wscale=8", "taken"),
        (0.3, '>', "A seq=1001 ack=5001 win=100", "taken"),
        // 1000 rounded up to the unit of 256 bytes.
        (0.4, '>', "PA seq=2025 ack=5001 win=100 len=1", "taken"),
        (0.5, '>', "PA seq=2026 ack=5001 win=100 len=1", "out"),
        // 100 units of 16.
        (0.6, '<', "PA seq=6601 ack=1001 win=100 len=1", "taken"),
        (0.7, '<', "PA seq=6602 ack=1001 win=100 len=1", "out"),
        // 100 units of 256.
        (0.8, '>', "PA seq=26601 ack=5001 win=100 len=1", "taken"),
        (0.9, '>', "PA seq=26602 ack=5001 win=100 len=1", "out"),
        // As far behind as the window can ever have been wide: 65,535 units of 256.
        (1.0, '>', "A seq=4278191337 ack=5001 win=100", "nothing"),
        (1.1, '>', "A seq=4278191336 ack=5001 win=100", "out"),
    ]);
    for (first, second) in [("wscale=8", ""), ("", "wscale=8"), ("", "")] {
        let leak = |text: String| -> &'static str { text.leak() };
        checked(&[
            (0.0, '>', leak(format!("S seq=1000 win=1000 {first}")), "taken"),
            (0.1, '<', leak(format!("SA seq=5000 ack=1001 win=1000 {second}")), "taken"),
            (0.2, '>', "A seq=1001 ack=5001 win=1000", "taken"),
            (0.3, '>', "PA seq=2001 ack=5001 win=1000 len=1", "taken"),
            (0.4, '>', "PA seq=2002 ack=5001 len=1", "out"),
            (0.5, '<', "PA seq=6002 ack=1001 len=1", "out"),
        ]);
    }
}

#[test]
fn sequence_numbers_wrap() {
    checked(&[
        (0.0, '>', "S seq=4294967295 win=1000", "taken"),
        (0.1, '<', "SA seq=4294967000 ack=0 win=1000", "taken"),
        (0.2, '>', "A seq=0 ack=4294967001 win=1000", "taken"),
        (0.3, '<', "PA seq=4294967001 ack=0 len=500", "taken"),
        (0.4, '<', "PA seq=705 ack=0 len=1", "taken"),
        (0.5, '<', "PA seq=706 ack=0 len=1", "out"),
        (0.6, '>', "A seq=0 ack=205 win=1000", "taken"),
        (0.7, '<', "PA seq=1205 ack=0 len=1", "taken"),
        (0.8, '<', "PA seq=4294967001 ack=0 len=500", "taken"),
        (0.9, '<', "R seq=204", "out"),
        (1.0, '<', "R seq=205", "taken"),
    ]);
}

/// RFC 5961, section 5. Once, an acknowledgement of what was never sent was taken at its word, and
/// from then on the other end's data lay behind.
#[test]
fn what_was_never_sent_is_not_acknowledged() {
    after_open(&[
        (1.0, '>', "A seq=1001 ack=80000 win=1000", "out"),
        (1.1, '>', "A seq=1001 ack=2000000000 win=1000", "out"),
        (1.2, '>', "A seq=1001 ack=4294900000 win=1000", "out"),
        (1.3, '<', "PA seq=5001 ack=1001 len=500", "taken"),
        // A receiver may take a segment that begins in its window whole.
        (1.4, '<', "PA seq=5501 ack=1001 len=1400", "taken"),
        (1.5, '>', "A seq=1001 ack=6901 win=1000", "taken"),
        (1.6, '<', "PA seq=6901 ack=1001 len=10", "taken"),
    ]);
}

/// Before the handshake is complete nothing but a RST is judged: no end has confirmed anything.
/// That is also where a flow stays of which one direction goes another way.
#[test]
fn the_check_begins_with_the_connection() {
    checked(&[
        (0.0, '>', "S seq=1000", "taken"),
        (0.1, '>', "PA seq=900000 ack=5001 len=10", "nothing"),
        (0.2, '<', "PA seq=900000 ack=77 len=10", "nothing"),
        (0.3, '<', "SA seq=900000 ack=77", "nothing"),
        // The opener's answer to that.
        (0.4, '>', "R seq=77", "nothing"),
        (0.5, '<', "R seq=900001", "out"),
        (0.6, '<', "RA seq=900001 ack=77", "out"),
        (0.7, '<', "SA seq=5000 ack=1001", "taken"),
        (0.8, '<', "PA seq=900000 ack=1001 len=10", "nothing"),
        (0.9, '<', "R seq=900000", "out"),
        (1.0, '>', "R seq=900000", "out"),
    ]);
}

/// RFC 5961, section 4: a SYN or SYN-ACK on a connection is answered, whatever its number. After a
/// RST nothing is outside any more.
#[test]
fn syns_are_never_outside() {
    after_open(&[
        (1.0, '>', "S seq=900000", "nothing"),
        (1.1, '<', "S seq=900000", "nothing"),
        (1.2, '<', "SA seq=900000 ack=77", "nothing"),
        (1.3, '<', "R seq=5000", "out"),
        (1.4, '<', "R seq=6001", "out"),
        (1.5, '<', "RA seq=6000 ack=77", "taken"),
        (1.6, '<', "PA seq=900000 ack=77 len=3", "nothing"),
        (1.7, '<', "R seq=900000", "nothing"),
    ]);
}

/// A SYN-ACK on a connection has no effect (RFC 5961, section 4): what it acknowledges was learned,
/// and put the true segments outside.
#[test]
fn a_late_answer_teaches_nothing() {
    after_open(&[
        (1.0, '<', "SA seq=5001 ack=68001 win=65535", "nothing"),
        (1.1, '<', "PA seq=5001 ack=1001 len=10", "taken"),
        (1.2, '>', "PA seq=1001 ack=5011 win=1000 len=10", "taken"),
    ]);
}

#[test]
fn only_tcp_has_windows() {
    let mut tracker = Tracker::new(8);
    assert_eq!(tracker.check(0.0, "udp 10.0.0.1:4000 -> 10.0.0.2:53"), "taken");
    assert_eq!(tracker.check(1.0, "udp 10.0.0.2:53 -> 10.0.0.1:4000"), "taken");
}

/// One end of a connection, as simple as it can be: it sends what the other's window takes, takes
/// what comes in order, and goes back to the first unacknowledged byte now and then.
struct End {
    /// Bytes sent, bytes acknowledged by the other end, bytes taken from it; the SYN is byte 0.
    sent: u32,
    acked: u32,
    taken: u32,
    /// How far the other end was ever ready to take, as it last said.
    edge: u32,
    /// Room for bytes not yet taken by the program.
    room: u32,
    shift: u8,
}

/// A segment on its way: relative numbers, so that only the wire wraps.
#[derive(Clone, Copy)]
struct Segment {
    seq: u32,
    len: u32,
    ack: u32,
    window: u16,
}

impl End {
    fn segment(&self, seq: u32, len: u32) -> Segment {
        let window = (self.room >> self.shift).min(65_535) as u16;
        Segment { seq, len, ack: self.taken, window }
    }

    fn take(&mut self, segment: Segment, shift: u8) {
        if segment.ack >= self.acked {
            self.acked = segment.ack;
            self.edge = segment.ack + (u32::from(segment.window) << shift);
        }
        let end = segment.seq + segment.len;
        let is_next = segment.seq <= self.taken && end > self.taken;
        if is_next && self.room > 0 {
            // The last segment is taken whole even if it is larger than the room.
            self.room = self.room.saturating_sub(end - self.taken);
            self.taken = end;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Send { len: u16 },
    Again,
    Ack,
    KeepAlive,
    Probe,
    Read { bytes: u32 },
    Shrink { to: u32 },
    Deliver { index: u8 },
    Lose { index: u8 },
    Pass { index: u8 },
}

fn acts() -> impl Strategy<Value = Vec<(bool, Act)>> {
    let act = prop_oneof![
        8 => (1..3000u16).prop_map(|len| Act::Send { len }),
        2 => Just(Act::Again),
        4 => Just(Act::Ack),
        1 => Just(Act::KeepAlive),
        1 => Just(Act::Probe),
        3 => (0..60_000u32).prop_map(|bytes| Act::Read { bytes }),
        1 => (0..3000u32).prop_map(|to| Act::Shrink { to }),
        12 => any::<u8>().prop_map(|index| Act::Deliver { index }),
        1 => any::<u8>().prop_map(|index| Act::Lose { index }),
        10 => any::<u8>().prop_map(|index| Act::Pass { index }),
    ];
    proptest::collection::vec((any::<bool>(), act), 1..400)
}

fn wire(from_original: bool, mut tcp: Tcp) -> Headers {
    let mut headers = headers(&segment(if from_original { '>' } else { '<' }, "A"));
    let Transport::Tcp(known) = headers.transport else { panic!("no TCP") };
    (tcp.src_port, tcp.dst_port) = (known.src_port, known.dst_port);
    headers.transport = Transport::Tcp(tcp);
    headers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Two honest ends over a path that delays, loses and reorders on both sides of the tracker:
    /// no segment is outside, and at the end the flow still follows.
    #[test]
    fn an_honest_connection_is_never_outside(
        firsts in any::<[u32; 2]>(),
        shifts in (0..8u8, 0..8u8),
        is_scaled in any::<bool>(),
        rooms in (0..200_000u32, 0..200_000u32),
        acts in acts(),
    ) {
        let mut tracker = Tracker::new(8);
        let shifts = if is_scaled { [shifts.0, shifts.1] } else { [0, 0] };
        let rooms = [rooms.0, rooms.1];
        let mut ends = [0, 1].map(|n| End {
            sent: 1,
            acked: 1,
            taken: 1,
            edge: 1 + rooms[1 - n].min(65_535),
            room: rooms[n],
            shift: shifts[n],
        });
        let mut now = Timestamp::from_secs(1);
        let mut track = |from: usize, flags: TcpFlags, s: Segment, firsts: [u32; 2], scale: Option<u8>| {
            let tcp = Tcp {
                src_port: 0,
                dst_port: 0,
                seq: firsts[from].wrapping_add(s.seq),
                ack: firsts[1 - from].wrapping_add(s.ack),
                window: s.window,
                flags,
                window_scale: scale,
                payload_len: s.len,
            };
            let headers = wire(from == 0, tcp);
            now = Timestamp::from_nanos(now.as_nanos() + 1_000_000);
            match tracker.table.lookup(SCOPE, &headers, now) {
                Lookup::Hit(hit) => {
                    let is_outside = tracker.table.is_out_of_window(&hit, &headers);
                    tracker.table.refresh(&hit, &headers, now, &tracker.timeouts);
                    !is_outside
                }
                _ => {
                    let tag = sgwall_conntrack::RuleTag(0);
                    tracker.table.insert(SCOPE, &headers, now, &tracker.timeouts, tag, 0).is_ok()
                }
            }
        };
        let offer = |n: usize| is_scaled.then_some(shifts[n]);
        let hello = |n: usize| Segment { seq: 0, len: 0, ack: n as u32, window: rooms[n].min(65_535) as u16 };
        prop_assert!(track(0, TcpFlags::SYN, hello(0), firsts, offer(0)));
        prop_assert!(track(1, TcpFlags::SYN | TcpFlags::ACK, hello(1), firsts, offer(1)));
        prop_assert!(track(0, TcpFlags::ACK, ends[0].segment(1, 0), firsts, None));

        // On the way to the tracker, and from it to the other end; by sender.
        let mut before: [Vec<Segment>; 2] = [Vec::new(), Vec::new()];
        let mut behind: [Vec<Segment>; 2] = [Vec::new(), Vec::new()];
        for (second, act) in acts {
            let n = usize::from(second);
            let end = &mut ends[n];
            let pick = |index: u8, queue: &[Segment]| usize::from(index) % queue.len().max(1);
            match act {
                Act::Send { len } => {
                    let len = u32::from(len).min(end.edge.saturating_sub(end.sent));
                    before[n].push(end.segment(end.sent, len));
                    end.sent += len;
                }
                Act::Again => {
                    let len = (end.sent - end.acked.min(end.sent)).min(1460);
                    before[n].push(end.segment(end.acked.min(end.sent), len));
                }
                Act::Ack => before[n].push(end.segment(end.sent, 0)),
                Act::KeepAlive => before[n].push(end.segment(end.acked - 1, 0)),
                Act::Probe if end.sent == end.edge && end.acked == end.sent => {
                    before[n].push(end.segment(end.sent, 1));
                    end.sent += 1;
                }
                Act::Probe => {}
                Act::Read { bytes } => end.room = (end.room + bytes).min(400_000),
                Act::Shrink { to } => end.room = end.room.min(to),
                Act::Pass { index } if !before[n].is_empty() => {
                    let at = pick(index, &before[n]);
                    let segment = before[n].remove(at);
                    let fits = track(n, TcpFlags::ACK, segment, firsts, None);
                    prop_assert!(fits, "{n}: {} +{} ack {}", segment.seq, segment.len, segment.ack);
                    behind[n].push(segment);
                }
                Act::Deliver { index } if !behind[n].is_empty() => {
                    let at = pick(index, &behind[n]);
                    let segment = behind[n].remove(at);
                    let shift = ends[n].shift;
                    ends[1 - n].take(segment, shift);
                }
                Act::Lose { index } if !behind[n].is_empty() => {
                    let at = pick(index, &behind[n]);
                    behind[n].remove(at);
                }
                _ => {}
            }
        }
    }
}
