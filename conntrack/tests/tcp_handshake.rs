//! How TCP flows begin, honestly and otherwise (SEMANTICS 6.9, 7.6, 7.7, 7.10).

mod common;

use common::{ACK, Line, SYN, SYN_ACK, Tracker, at, segment, tcp};

#[test]
fn what_comes_before_the_syn_opens_nothing() {
    let mut tracker = Tracker::new(8);
    for (from, text) in [
        ('<', "SA seq=5000 ack=1001"),
        ('>', "A seq=1001 ack=5001"),
        ('<', "PA seq=5001 ack=1001 len=10"),
    ] {
        assert_eq!(tracker.accept(0.0, &segment(from, text)), "none", "{text}");
    }
    // The SYN that comes late opens the flow, and what the other end repeats completes it.
    assert_eq!(tracker.accept(1.0, &segment('>', "S seq=1000")), "new");
    assert_eq!(tracker.accept(1.1, &segment('>', "A seq=1001 ack=5001")), "established");
    assert_eq!(tracker.state(1.1), "syn-sent");
    tracker.accept(1.2, &segment('<', "SA seq=5000 ack=1001"));
    tracker.accept(1.3, &segment('>', "A seq=1001 ack=5001"));
    assert_eq!(tracker.state(1.3), "established");
}

/// What follows the opener's ACK may overtake it.
#[test]
fn data_may_complete_the_handshake() {
    tcp(&[SYN, SYN_ACK, (0.2, '>', "PA seq=1001 ack=5001 len=100", "established")]);
    tcp(&[
        SYN,
        SYN_ACK,
        (0.2, '>', "PA seq=1101 ack=5001 len=100", "established"),
        (0.3, '>', "A seq=1001 ack=5001", "established"),
    ]);
    // The other end's data before the opener has confirmed anything does not.
    tcp(&[SYN, SYN_ACK, (0.2, '<', "PA seq=5001 ack=1001 len=100", "syn-recv")]);
    tcp(&[SYN, SYN_ACK, (0.2, '>', "FA seq=1001 ack=5001", "fin-wait")]);
}

/// RFC 9293, figure 7: both ends send a SYN, then both a SYN-ACK.
#[test]
fn simultaneous_open() {
    tcp(&[
        SYN,
        (0.1, '<', "S seq=5000", "syn-sent-2"),
        (0.2, '>', "SA seq=1000 ack=5001", "syn-recv"),
        (0.2, '<', "SA seq=5000 ack=1001", "syn-recv"),
        (0.3, '<', "PA seq=5001 ack=1001 len=9", "syn-recv"),
        (0.4, '>', "A seq=1001 ack=5010", "established"),
    ]);
    // Either SYN-ACK may be first, and SYNs may be repeated meanwhile.
    tcp(&[
        SYN,
        (0.1, '<', "S seq=5000", "syn-sent-2"),
        (0.2, '>', "S seq=1000", "syn-sent-2"),
        (0.3, '<', "S seq=5000", "syn-sent-2"),
        (0.4, '<', "SA seq=5000 ack=1001", "syn-recv"),
        (0.5, '<', "S seq=5000", "syn-recv"),
        (0.6, '>', "SA seq=1000 ack=5001", "syn-recv"),
        (0.7, '>', "A seq=1001 ack=5001", "established"),
    ]);
    // An ACK that is not a SYN-ACK is no step of it.
    tcp(&[
        SYN,
        (0.1, '<', "S seq=5000", "syn-sent-2"),
        (0.2, '<', "A seq=5001 ack=1001", "syn-sent-2"),
        (0.3, '>', "A seq=1001 ack=5001", "syn-sent-2"),
    ]);
}

/// A server that answers a SYN with a SYN of its own, with an ACK before it or without: what is
/// then exchanged is a simultaneous open.
#[test]
fn split_handshake() {
    tcp(&[
        SYN,
        (0.1, '<', "S seq=5000", "syn-sent-2"),
        (0.2, '>', "SA seq=1000 ack=5001", "syn-recv"),
        (0.3, '<', "A seq=5001 ack=1001", "syn-recv"),
        (0.4, '>', "PA seq=1001 ack=5001 len=5", "established"),
    ]);
    tcp(&[
        SYN,
        (0.1, '<', "A seq=77 ack=1001", "syn-sent"),
        (0.2, '<', "S seq=5000", "syn-sent-2"),
        (0.3, '>', "SA seq=1000 ack=5001", "syn-recv"),
        (0.4, '<', "A seq=5001 ack=1001", "syn-recv"),
        (0.5, '>', "A seq=1001 ack=5001", "established"),
    ]);
}

/// Only what acknowledges the SYN answers it. Once, any SYN-ACK was taken for the answer, and an
/// ACK of the other end for what that end expects.
#[test]
fn only_an_answer_to_the_syn_counts() {
    tcp(&[
        SYN,
        (0.1, '<', "SA seq=5000 ack=1000", "syn-sent"),
        (0.1, '<', "SA seq=5000 ack=1002", "syn-sent"),
        (0.1, '<', "SA seq=5000 ack=900000", "syn-sent"),
        (0.1, '<', "A seq=5000 ack=900000", "syn-sent"),
        // The opener refuses such an answer (RFC 9293, figure 8); its SYN stands.
        (0.2, '>', "R seq=900000", "syn-sent"),
        (0.3, '<', "SA seq=5000 ack=1001", "syn-recv"),
        ACK,
    ]);
    // A new SYN with another number: that one is to be answered.
    tcp(&[
        SYN,
        (1.0, '>', "S seq=2000", "syn-sent"),
        (1.1, '<', "SA seq=5000 ack=1001", "syn-sent"),
        (1.2, '<', "SA seq=5000 ack=2001", "syn-recv"),
    ]);
}

/// RFC 7413: the answer acknowledges some of the data that came with the SYN, or none; a refusal
/// acknowledges all of it. Once, the refusal was not taken for one.
#[test]
fn data_in_the_syn() {
    const SYN_DATA: Line = (0.0, '>', "S seq=1000 len=100", "syn-sent");
    for ack in ["1001", "1050", "1101"] {
        let answer: &'static str = format!("SA seq=5000 ack={ack}").leak();
        let third: &'static str = format!("A seq={ack} ack=5001").leak();
        tcp(&[SYN_DATA, (0.1, '<', answer, "syn-recv"), (0.2, '>', third, "established")]);
    }
    tcp(&[SYN_DATA, (0.1, '<', "SA seq=5000 ack=1102", "syn-sent")]);
    tcp(&[SYN_DATA, (0.1, '<', "RA seq=0 ack=1101", "close")]);
    tcp(&[SYN_DATA, (0.1, '<', "RA seq=0 ack=1102", "syn-sent")]);
    // The SYN sent again without its data does not shorten what was sent.
    tcp(&[
        SYN_DATA,
        (1.0, '>', "S seq=1000", "syn-sent"),
        (1.1, '<', "RA seq=0 ack=1101", "close"),
    ]);
    // The server's data comes at once, with its answer or after it.
    tcp(&[
        SYN_DATA,
        (0.1, '<', "SA seq=5000 ack=1101 len=20", "syn-recv"),
        (0.2, '<', "PA seq=5021 ack=1101 len=500", "syn-recv"),
        (0.3, '>', "A seq=1101 ack=5521", "established"),
    ]);
}

/// A forger of the opener's address sees no answer. Once, an ACK of any number completed the
/// handshake, and two forged packets held an entry for five days.
#[test]
fn an_ack_of_something_else_completes_nothing() {
    tcp(&[
        SYN,
        SYN_ACK,
        (0.2, '>', "A seq=1001 ack=5000", "syn-recv"),
        (0.2, '>', "A seq=1001 ack=1", "syn-recv"),
        (0.2, '>', "A seq=1001 ack=100000", "syn-recv"),
        (0.2, '>', "A seq=1001 ack=2000000000", "syn-recv"),
        (0.2, '>', "A seq=900000 ack=5001", "syn-recv"),
        (0.2, '>', "PU seq=1001", "syn-recv"),
        (0.2, '>', "F seq=1001", "syn-recv"),
        // The answer of the server to such an ACK (RFC 9293, 3.10.7.4) takes its number.
        (0.3, '<', "R seq=2000000000", "syn-recv"),
        ACK,
    ]);
}

/// RFC 4987, 3.6: a server with SYN cookies keeps nothing of a SYN, and its answer to the next one
/// may begin elsewhere. The last answer is the one to be confirmed.
#[test]
fn a_server_may_answer_again_otherwise() {
    tcp(&[
        SYN,
        SYN_ACK,
        (1.0, '>', "S seq=1000", "syn-recv"),
        (1.1, '<', "SA seq=800000 ack=1001", "syn-recv"),
        (1.2, '>', "A seq=1001 ack=800001", "established"),
        (1.3, '<', "PA seq=800001 ack=1001 len=10", "established"),
        (1.4, '<', "R seq=800011", "close"),
    ]);
    // Once the opener has confirmed one answer, another changes nothing.
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        (1.1, '<', "SA seq=800000 ack=1001", "established"),
        (1.2, '<', "R seq=800001", "established"),
        (1.3, '<', "R seq=5001", "close"),
    ]);
}

/// Whoever repeats SYNs and SYN-ACKs without the third step holds an entry for a handshake's
/// timeout from the last of them (SEMANTICS 7.10), and never for that of a connection.
#[test]
fn repeated_syns_never_reach_the_established_timeout() {
    let mut tracker = Tracker::new(8);
    for round in 0..200 {
        let time = f64::from(round) * 50.0;
        tracker.accept(time, &segment('>', "S seq=1000"));
        let asked = tracker.flow(time).unwrap();
        let (state, timeout) = if round == 0 { ("syn-sent", 120.0) } else { ("syn-recv", 60.0) };
        assert_eq!((asked.state.as_str(), asked.deadline), (state, at(time + timeout)));
        tracker.accept(time + 1.0, &segment('<', "SA seq=5000 ack=1001"));
        let answered = tracker.flow(time + 1.0).unwrap();
        assert_eq!((answered.state.as_str(), answered.deadline), ("syn-recv", at(time + 61.0)));
    }
    let last = 199.0 * 50.0 + 1.0;
    assert_eq!(tracker.state(last + 59.999), "syn-recv");
    assert_eq!(tracker.state(last + 60.0), "none");
    // SYNs alone, and SYNs from both ends: 120 s from the last.
    let mut tracker = Tracker::new(8);
    for round in 0..100 {
        let from = if round % 2 == 0 { '>' } else { '<' };
        tracker.accept(f64::from(round), &segment(from, "S seq=1"));
        let flow = tracker.flow(f64::from(round)).unwrap();
        assert_eq!(flow.deadline, at(f64::from(round) + 120.0));
    }
}

/// The server's refusal, and the opener's change of mind.
#[test]
fn a_reset_ends_a_handshake() {
    tcp(&[SYN, (0.1, '<', "RA seq=0 ack=1001", "close")]);
    tcp(&[SYN, (0.1, '<', "R seq=0", "syn-sent")]);
    tcp(&[SYN, (0.1, '>', "R seq=1001", "close")]);
    tcp(&[SYN, (0.1, '>', "R seq=1002", "syn-sent")]);
    let both = (0.1, '<', "S seq=5000", "syn-sent-2");
    tcp(&[SYN, both, (0.2, '<', "R seq=5001", "close")]);
    tcp(&[SYN, both, (0.2, '>', "R seq=1001", "close")]);
    tcp(&[SYN, both, (0.2, '>', "R seq=900000", "syn-sent-2")]);
    tcp(&[SYN, SYN_ACK, (0.2, '<', "R seq=5001", "close")]);
    tcp(&[SYN, SYN_ACK, (0.2, '>', "R seq=1001", "close")]);
    tcp(&[SYN, SYN_ACK, (0.2, '<', "R seq=5000", "syn-recv")]);
    tcp(&[SYN, SYN_ACK, (0.2, '>', "R seq=900000", "syn-recv")]);
    // The opener may have missed the SYN-ACK: its next SYN is refused as the first might have been.
    tcp(&[
        SYN,
        SYN_ACK,
        (1.0, '>', "S seq=1000", "syn-recv"),
        (1.1, '<', "RA seq=0 ack=1001", "close"),
    ]);
    tcp(&[SYN, SYN_ACK, (1.1, '<', "RA seq=0 ack=1002", "syn-recv")]);
}
