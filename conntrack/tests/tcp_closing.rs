//! How TCP flows end, and what a packet of an old or ended one does (SEMANTICS 6.10, 7.6, 7.7).

mod common;

use common::{ACK, Line, SYN, SYN_ACK, Tracker, at, segment, tcp};

/// What leads to each state, from both ends having expected 1001 and 5001.
const STATES: &[(&str, &[Line])] = &[
    ("syn-sent", &[SYN]),
    ("syn-sent-2", &[SYN, (0.1, '<', "S seq=5000", "syn-sent-2")]),
    ("syn-recv", &[SYN, SYN_ACK]),
    ("established", &[SYN, SYN_ACK, ACK]),
    ("fin-wait", &[SYN, SYN_ACK, ACK, FIN]),
    ("close-wait", &[SYN, SYN_ACK, ACK, FIN, FIN_ACKED]),
    ("last-ack", &[SYN, SYN_ACK, ACK, FIN, FIN_ACKED, FIN_2]),
    ("time-wait", &[SYN, SYN_ACK, ACK, FIN, FIN_ACKED, FIN_2, FIN_2_ACKED]),
    ("close", &[SYN, SYN_ACK, ACK, (0.3, '<', "R seq=5001", "close")]),
];

const FIN: Line = (0.3, '>', "FA seq=1001 ack=5001", "fin-wait");
const FIN_ACKED: Line = (0.4, '<', "A seq=5001 ack=1002", "close-wait");
const FIN_2: Line = (0.5, '<', "FA seq=5001 ack=1002", "last-ack");
const FIN_2_ACKED: Line = (0.6, '>', "A seq=1002 ack=5002", "time-wait");

/// A flow in a state, and how many seconds it has then.
fn in_state(lines: &[Line]) -> Tracker {
    let mut tracker = Tracker::new(8);
    for &(time, from, text, state) in lines {
        tracker.accept(time, &segment(from, text));
        assert_eq!(tracker.state(time), state);
    }
    tracker
}

/// SEMANTICS 7.6: a new connection in TIME_WAIT and after a RST, from either end; else the SYN
/// passes, and the flow stands (RFC 5961, section 4.2).
#[test]
fn a_syn_on_an_old_flow_in_every_state_from_both_ends() {
    for &(state, lines) in STATES {
        for from in ['>', '<'] {
            let mut tracker = in_state(lines);
            let before = tracker.flow(1.0).unwrap();
            let syn = segment(from, "S seq=7777777");
            let found = tracker.accept(1.0, &syn);
            let after = tracker.flow(1.0).unwrap();
            match (state, from) {
                ("time-wait" | "close", _) => {
                    assert_eq!((found, after.state.as_str()), ("reopen", "syn-sent"), "{state}");
                    assert_eq!(after.original == before.original, from == '>', "{state} {from}");
                }
                ("syn-sent", '<') => assert_eq!(after.state.as_str(), "syn-sent-2"),
                ("syn-sent" | "syn-sent-2" | "syn-recv", _) => {
                    assert_eq!(after.state, before.state, "{state} {from}");
                    assert!(after.deadline > before.deadline, "{state} {from}");
                }
                _ => {
                    assert_ne!(found, "reopen", "{state} {from}");
                    assert_eq!(after, before, "{state} {from}");
                }
            }
        }
    }
}

/// A host that has lost its connections opens one of the same ports: the other end, which still
/// has it, says where it stands, and the RST that answers ends it (RFC 9293, figure 9).
#[test]
fn a_half_open_connection_is_found_out() {
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        (9.0, '>', "S seq=400", "established"),
        (9.1, '<', "A seq=5001 ack=1001", "established"),
        (9.2, '>', "R seq=1001", "close"),
    ]);
    let mut tracker = in_state(STATES[3].1);
    tracker.accept(9.0, &segment('>', "S seq=400"));
    tracker.accept(9.1, &segment('<', "A seq=5001 ack=1001"));
    tracker.accept(9.2, &segment('>', "R seq=1001"));
    assert_eq!(tracker.accept(10.0, &segment('>', "S seq=400")), "reopen");
    tracker.accept(10.1, &segment('<', "SA seq=90 ack=401"));
    tracker.accept(10.2, &segment('>', "A seq=401 ack=91"));
    assert_eq!(tracker.state(10.2), "established");
}

/// In each state from both ends: at what the receiver expects, inside its window, behind it, at
/// its edge and far away (SEMANTICS 7.7). Both windows are 65,535 bytes.
#[test]
fn a_reset_in_every_state() {
    for &(state, lines) in &STATES[3..8] {
        for from in ['>', '<'] {
            let expected = match (state, from) {
                ("established", '>') => 1001,
                ("fin-wait", '>') => 1001,
                (_, '>') => 1002,
                ("time-wait", _) => 5002,
                _ => 5001_u32,
            };
            let after = |seq: u32| {
                let mut tracker = in_state(lines);
                tracker.accept(1.0, &segment(from, &format!("R seq={seq}")));
                tracker.state(1.0)
            };
            assert_eq!(after(expected), "close", "{state} {from}");
            assert_eq!(after(expected + 1), "close", "{state} {from}");
            assert_eq!(after(expected + 65_000), "close", "{state} {from}");
            assert_eq!(after(expected - 1), state, "{from}");
            assert_eq!(after(expected + 65_537), state, "{from}");
            assert_eq!(after(expected.wrapping_add(1 << 31)), state, "{from}");
        }
    }
}

/// Ten seconds from the RST, whatever follows, another RST included; once, each RST began them
/// anew.
#[test]
fn nothing_prolongs_a_reset_flow() {
    let mut tracker = in_state(STATES[8].1);
    let deadline = tracker.flow(0.3).unwrap().deadline;
    assert_eq!(deadline, at(10.3));
    for (time, from, text) in [
        (1.0, '<', "R seq=5001"),
        (2.0, '>', "RA seq=1001 ack=5001"),
        (3.0, '>', "PA seq=1001 ack=5001 len=5"),
        (4.0, '<', "FA seq=5001 ack=1001"),
    ] {
        tracker.accept(time, &segment(from, text));
        assert_eq!(tracker.flow(time).unwrap().deadline, deadline, "{text}");
    }
    assert_eq!(tracker.peek(10.299, &segment('<', "A seq=5001 ack=1001")), "reply");
    assert_eq!(tracker.peek(10.3, &segment('<', "A seq=5001 ack=1001")), "none");
}

/// A RST, and any segment but a SYN, without a flow: there is none afterwards either.
#[test]
fn an_expired_flow_is_not_picked_up_again() {
    let mut tracker = in_state(STATES[3].1);
    assert_eq!(tracker.state(432_000.2), "none");
    for text in
        ["A seq=1001 ack=5001", "PA seq=1001 ack=5001 len=10", "FA seq=1001 ack=5001", "R seq=1001"]
    {
        for from in ['>', '<'] {
            assert_eq!(tracker.accept(432_001.0, &segment(from, text)), "none", "{text}");
        }
    }
    assert_eq!(tracker.accept(432_002.0, &segment('<', "S seq=1")), "new");
}

/// One end is done, the other sends on: each packet gives CLOSE_WAIT's 60 s anew.
#[test]
fn a_half_closed_flow_lives_as_long_as_data_flows() {
    let mut tracker = in_state(STATES[5].1);
    let mut sent = 5001_u32;
    for round in 1..=200 {
        let time = f64::from(round) * 59.0;
        assert_eq!(tracker.state(time), "close-wait", "at {time}");
        tracker.accept(time, &segment('<', &format!("PA seq={sent} ack=1002 len=1000")));
        sent += 1000;
        tracker.accept(time + 0.1, &segment('>', &format!("A seq=1002 ack={sent}")));
    }
    let last = 200.0 * 59.0 + 0.1;
    assert_eq!(tracker.state(last + 59.999), "close-wait");
    assert_eq!(tracker.state(last + 60.0), "none");
}

#[test]
fn fins_are_sent_again() {
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        FIN,
        (0.4, '>', "FA seq=1001 ack=5001", "fin-wait"),
        FIN_ACKED,
        (0.5, '>', "FA seq=1001 ack=5001", "close-wait"),
        (0.5, '<', "FA seq=5001 ack=1002", "last-ack"),
        (0.6, '>', "FA seq=1001 ack=5001", "last-ack"),
        (0.7, '<', "FA seq=5001 ack=1002", "last-ack"),
        (0.8, '>', "A seq=1002 ack=5002", "time-wait"),
        (0.9, '<', "FA seq=5001 ack=1002", "time-wait"),
        (1.0, '>', "A seq=1002 ack=5002", "time-wait"),
    ]);
}

/// RFC 9293, figure 13: the FINs cross.
#[test]
fn simultaneous_close() {
    for (first, second) in [('>', '<'), ('<', '>')] {
        let fin = |from| if from == '>' { "FA seq=1001 ack=5001" } else { "FA seq=5001 ack=1001" };
        let ack = |from| if from == '>' { "A seq=1002 ack=5002" } else { "A seq=5002 ack=1002" };
        tcp(&[
            SYN,
            SYN_ACK,
            ACK,
            (1.0, first, fin(first), "fin-wait"),
            (1.0, second, fin(second), "last-ack"),
            (1.1, second, ack(second), "last-ack"),
            (1.1, first, ack(first), "time-wait"),
        ]);
    }
}

/// A FIN far from the window ends nothing, nor does one that comes without ACK.
#[test]
fn a_forged_fin_ends_nothing() {
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        (1.0, '>', "FA seq=900000 ack=5001", "established"),
        (1.1, '>', "FA seq=1001 ack=900000", "established"),
        (1.2, '>', "F seq=1001", "established"),
        (1.3, '<', "FPU seq=5001", "established"),
        (1.4, '<', "SFA seq=5001 ack=1001", "established"),
    ]);
}
