//! The state machines, as tables of packets and the states they lead to (SEMANTICS 7.3-7.7).

mod common;

use common::{ACK, SYN, SYN_ACK, Tracker, at, tcp};

#[test]
fn handshake_and_orderly_close() {
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        (0.3, '>', "PA seq=1001 ack=5001 len=100", "established"),
        (0.4, '<', "A seq=5001 ack=1101", "established"),
        (1.0, '>', "FA seq=1101 ack=5001", "fin-wait"),
        (1.1, '>', "FA seq=1101 ack=5001", "fin-wait"),
        (1.2, '<', "A seq=5001 ack=1102", "close-wait"),
        (1.3, '<', "PA seq=5001 ack=1102 len=50", "close-wait"),
        (1.4, '>', "A seq=1102 ack=5051", "close-wait"),
        (2.0, '<', "FA seq=5051 ack=1102", "last-ack"),
        (2.1, '<', "FA seq=5051 ack=1102", "last-ack"),
        (2.2, '>', "A seq=1102 ack=5052", "time-wait"),
        (2.3, '<', "FA seq=5051 ack=1102", "time-wait"),
    ]);
}

#[test]
fn the_other_end_may_close_first_or_both_at_once() {
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        (1.0, '<', "FA seq=5001 ack=1001", "fin-wait"),
        (1.1, '>', "FA seq=1001 ack=5002", "last-ack"),
        (1.2, '<', "A seq=5002 ack=1002", "time-wait"),
    ]);
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        (1.0, '>', "FA seq=1001 ack=5001", "fin-wait"),
        (1.0, '<', "FA seq=5001 ack=1001", "last-ack"),
        (1.1, '<', "A seq=5002 ack=1002", "last-ack"),
        (1.1, '>', "A seq=1002 ack=5002", "time-wait"),
    ]);
}

#[test]
fn simultaneous_open_and_split_handshake() {
    tcp(&[
        SYN,
        (0.1, '<', "S seq=5000", "syn-sent-2"),
        (0.2, '>', "SA seq=1000 ack=5001", "syn-recv"),
        (0.2, '<', "SA seq=5000 ack=1001", "syn-recv"),
        (0.3, '>', "A seq=1001 ack=5001", "established"),
    ]);
}

#[test]
fn what_is_no_part_of_the_handshake_has_no_effect() {
    tcp(&[
        SYN,
        (0.1, '>', "A seq=1001 ack=1", "syn-sent"),
        (0.1, '<', "A seq=77 ack=900", "syn-sent"),
        (0.1, '<', "FA seq=77 ack=900", "syn-sent"),
        (0.2, '<', "SA seq=5000 ack=1001", "syn-recv"),
        (0.3, '<', "A seq=5001 ack=1001", "syn-recv"),
        ACK,
    ]);
}

#[test]
fn a_syn_does_not_disturb_an_established_flow() {
    tcp(&[
        SYN,
        SYN_ACK,
        ACK,
        (1.0, '>', "S seq=9999999", "established"),
        (1.1, '<', "S seq=9999999", "established"),
        (1.2, '<', "A seq=5001 ack=1001", "established"),
        (1.3, '>', "SF seq=1001", "established"),
    ]);
}

/// SEMANTICS 7.7: only a RST that its receiver expects, or that lies in its window, counts.
#[test]
fn only_a_fitting_reset_ends_a_flow() {
    tcp(&[
        (0.0, '>', "S seq=1000 win=1000", "syn-sent"),
        SYN_ACK,
        (0.2, '>', "A seq=1001 ack=5001 win=1000", "established"),
        (1.0, '<', "R seq=5000", "established"),
        (1.0, '<', "R seq=6001", "established"),
        (1.0, '<', "R seq=3000000000", "established"),
        (1.1, '<', "R seq=6000", "close"),
    ]);
    tcp(&[SYN, SYN_ACK, ACK, (1.0, '>', "RA seq=1001 ack=5001", "close")]);
    // An answer to a SYN names that SYN.
    tcp(&[
        SYN,
        (0.1, '<', "RA seq=0 ack=1002", "syn-sent"),
        (0.1, '<', "RA seq=0 ack=1001", "close"),
    ]);
    tcp(&[SYN, (0.1, '<', "R seq=1", "syn-sent")]);
    // The opener takes its SYN back.
    tcp(&[SYN, (0.1, '>', "R seq=1001", "close")]);
}

#[test]
fn windows_are_scaled_only_if_both_ends_offer_it() {
    tcp(&[
        (0.0, '>', "S seq=1000 win=1000 wscale=7", "syn-sent"),
        (0.1, '<', "SA seq=5000 ack=1001 wscale=2", "syn-recv"),
        (0.2, '>', "A seq=1001 ack=5001 win=1000", "established"),
        (0.3, '<', "R seq=133001", "established"),
        (0.4, '<', "R seq=133000", "close"),
    ]);
    tcp(&[
        (0.0, '>', "S seq=1000 win=1000 wscale=7", "syn-sent"),
        SYN_ACK,
        (0.2, '>', "A seq=1001 ack=5001 win=1000", "established"),
        (0.3, '<', "R seq=6001", "established"),
    ]);
}

#[test]
fn sequence_numbers_wrap() {
    tcp(&[
        (0.0, '>', "S seq=4294967295", "syn-sent"),
        (0.1, '<', "SA seq=4294967290 ack=0", "syn-recv"),
        (0.2, '>', "A seq=0 ack=4294967291 win=1000", "established"),
        (0.3, '<', "PA seq=4294967291 ack=0 len=10", "established"),
        (0.4, '>', "A seq=0 ack=5", "established"),
        (0.5, '<', "R seq=5", "close"),
    ]);
}

/// SEMANTICS 7.7: it passes, but the flow's idle time goes on, and a FIN does nothing.
#[test]
fn segments_outside_the_window_do_not_refresh() {
    let mut tracker = Tracker::new(8);
    for packet in [
        "tcp 10.0.0.1:4000 -> 10.0.0.2:80 S seq=1000",
        "tcp 10.0.0.2:80 -> 10.0.0.1:4000 SA seq=5000 ack=1001 win=1000",
        "tcp 10.0.0.1:4000 -> 10.0.0.2:80 A seq=1001 ack=5001 win=1000",
    ] {
        tracker.accept(0.0, packet);
    }
    let deadline = tracker.flow(0.0).unwrap().deadline;
    assert_eq!(deadline, at(432_000.0));
    for (time, segment) in [
        (10.0, "A seq=2002000 ack=5001 len=10"),
        (11.0, "FA seq=2002000 ack=5001"),
        (12.0, "A seq=4294900000 ack=5001"),
    ] {
        let packet = format!("tcp 10.0.0.1:4000 -> 10.0.0.2:80 {segment}");
        assert_eq!(tracker.accept(time, &packet), "established");
        assert_eq!(tracker.flow(time).unwrap().deadline, deadline, "{segment}");
        assert_eq!(tracker.state(time), "established");
    }
    tracker.accept(13.0, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 A seq=1001 ack=5001 len=10");
    assert_eq!(tracker.flow(13.0).unwrap().deadline, at(432_013.0));
    // A retransmission, and a probe of a closed window, do.
    tracker.accept(14.0, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 A seq=1000 ack=5001 len=1");
    assert_eq!(tracker.flow(14.0).unwrap().deadline, at(432_014.0));
}

#[test]
fn an_ended_connection_is_opened_anew_by_a_syn() {
    let close = |tracker: &mut Tracker| {
        tracker.accept(0.0, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 S seq=1000");
        tracker.accept(0.1, "tcp 10.0.0.2:80 -> 10.0.0.1:4000 RA seq=0 ack=1001");
        assert_eq!(tracker.state(0.1), "close");
    };
    let mut tracker = Tracker::new(8);
    close(&mut tracker);
    assert_eq!(tracker.accept(1.0, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 S seq=7000"), "reopen");
    assert_eq!(tracker.state(1.0), "syn-sent");
    // From the other end too: it is no part of the connection that ended.
    let mut tracker = Tracker::new(8);
    close(&mut tracker);
    assert_eq!(tracker.peek(1.0, "tcp 10.0.0.2:80 -> 10.0.0.1:4000 S seq=7000"), "reopen");
    // What follows a reset passes for ten seconds from the reset, and keeps nothing alive.
    assert_eq!(tracker.accept(9.0, "tcp 10.0.0.2:80 -> 10.0.0.1:4000 A seq=1 ack=1"), "reply");
    assert_eq!(tracker.peek(10.099, "tcp 10.0.0.2:80 -> 10.0.0.1:4000 A seq=1 ack=1"), "reply");
    assert_eq!(tracker.peek(10.1, "tcp 10.0.0.2:80 -> 10.0.0.1:4000 A seq=1 ack=1"), "none");
}

#[test]
fn only_a_bare_syn_opens_a_tcp_flow() {
    for flags in ["A", "SA", "SF", "SR", "F", "R", "PA", "U"] {
        let mut tracker = Tracker::new(8);
        let packet = format!("tcp 10.0.0.1:4000 -> 10.0.0.2:80 {flags}");
        assert_eq!(tracker.accept(0.0, &packet), "none", "{flags}");
    }
    assert_eq!(Tracker::new(8).accept(0.0, "tcp 10.0.0.1:4000 -> 10.0.0.2:80 SP"), "new");
}

/// Each timeout to the millisecond: alive just before it, dead at it (SEMANTICS 7.9, 7.10).
#[test]
fn each_state_has_its_timeout() {
    let open = ["> S seq=1000", "< SA seq=5000 ack=1001", "> A seq=1001 ack=5001"];
    let close = [
        "> FA seq=1001 ack=5001",
        "< A seq=5001 ack=1002",
        "< FA seq=5001 ack=1002",
        "> A seq=1002 ack=5002",
    ];
    let cases: [(usize, usize, &str, f64); 7] = [
        (1, 0, "syn-sent", 120.0),
        (2, 0, "syn-recv", 60.0),
        (3, 0, "established", 432_000.0),
        (3, 1, "fin-wait", 120.0),
        (3, 2, "close-wait", 60.0),
        (3, 3, "last-ack", 30.0),
        (3, 4, "time-wait", 120.0),
    ];
    for (opened, closed, state, timeout) in cases {
        let mut tracker = Tracker::new(8);
        for segment in open[..opened].iter().chain(&close[..closed]) {
            let (from, segment) = segment.split_once(' ').unwrap();
            tracker.accept(
                0.0,
                &match from {
                    ">" => format!("tcp 10.0.0.1:4000 -> 10.0.0.2:80 {segment}"),
                    _ => format!("tcp 10.0.0.2:80 -> 10.0.0.1:4000 {segment}"),
                },
            );
        }
        assert_eq!(tracker.state(0.0), state);
        assert_eq!(tracker.state(timeout - 0.001), state);
        assert_eq!(tracker.state(timeout), "none", "{state} lives longer than {timeout}");
    }
}

/// SEMANTICS 7.5, cases 21 and 22.
#[test]
fn udp_becomes_a_stream_with_the_second_transaction() {
    const ASK: &str = "udp 10.0.0.1:4000 -> 10.0.0.2:53";
    const ANSWER: &str = "udp 10.0.0.2:53 -> 10.0.0.1:4000";
    let run = |packets: &[&str]| {
        let mut tracker = Tracker::new(8);
        for (second, packet) in packets.iter().enumerate() {
            tracker.accept(second as f64, packet);
        }
        let last = packets.len() as f64 - 1.0;
        let flow = tracker.flow(last).unwrap();
        (flow.state.as_str(), flow.deadline.since(at(last)).as_secs())
    };
    assert_eq!(run(&[ASK]), ("single", 30));
    assert_eq!(run(&[ASK, ASK, ASK]), ("single", 30));
    assert_eq!(run(&[ASK, ANSWER]), ("single", 30));
    assert_eq!(run(&[ASK, ANSWER, ANSWER, ANSWER]), ("single", 30));
    assert_eq!(run(&[ASK, ANSWER, ASK]), ("single", 30));
    assert_eq!(run(&[ASK, ANSWER, ASK, ANSWER]), ("stream", 180));
    assert_eq!(run(&[ASK, ANSWER, ASK, ANSWER, ANSWER, ASK]), ("stream", 180));
}

/// SEMANTICS 7.2, 7.3.
#[test]
fn icmp_queries_are_flows_by_type_and_identifier() {
    for (request, reply, ask, answer) in [
        ("8/0", "0/0", "icmp 10.0.0.1 -> 10.0.0.2", "icmp 10.0.0.2 -> 10.0.0.1"),
        ("13/0", "14/0", "icmp 10.0.0.1 -> 10.0.0.2", "icmp 10.0.0.2 -> 10.0.0.1"),
        ("15/0", "16/0", "icmp 10.0.0.1 -> 10.0.0.2", "icmp 10.0.0.2 -> 10.0.0.1"),
        ("17/0", "18/0", "icmp 10.0.0.1 -> 10.0.0.2", "icmp 10.0.0.2 -> 10.0.0.1"),
        (
            "128/0",
            "129/0",
            "icmpv6 2001:db8::1 -> 2001:db8::2",
            "icmpv6 2001:db8::2 -> 2001:db8::1",
        ),
        (
            "139/0",
            "140/0",
            "icmpv6 2001:db8::1 -> 2001:db8::2",
            "icmpv6 2001:db8::2 -> 2001:db8::1",
        ),
    ] {
        let mut tracker = Tracker::new(8);
        assert_eq!(tracker.accept(0.0, &format!("{ask} {reply} id=5")), "none", "{reply}");
        assert_eq!(tracker.accept(0.0, &format!("{ask} {request} id=5")), "new", "{request}");
        assert_eq!(tracker.peek(29.999, &format!("{answer} {reply} id=5")), "reply");
        assert_eq!(tracker.peek(30.0, &format!("{answer} {reply} id=5")), "none");
        assert_eq!(tracker.peek(1.0, &format!("{answer} {reply} id=6")), "none");
        assert_eq!(tracker.peek(1.0, &format!("{ask} {request} id=5")), "established");
        // A request of the other end, and a reply from the asking end, belong to no flow.
        assert_eq!(tracker.peek(1.0, &format!("{answer} {request} id=5")), "none");
        assert_eq!(tracker.peek(1.0, &format!("{ask} {reply} id=5")), "none");
    }
    let mut tracker = Tracker::new(8);
    for other in ["3/4", "11/0", "5/0", "9/0", "12/0"] {
        assert_eq!(tracker.accept(0.0, &format!("icmp 10.0.0.1 -> 10.0.0.2 {other}")), "none");
    }
}

/// SEMANTICS 7.4: either end refreshes, ports do not matter.
#[test]
fn other_protocols_are_flows_by_addresses() {
    let mut tracker = Tracker::new(8);
    assert_eq!(tracker.accept(0.0, "gre 10.0.0.1 -> 10.0.0.2"), "new");
    assert_eq!(tracker.peek(1.0, "esp 10.0.0.2 -> 10.0.0.1"), "none");
    assert_eq!(tracker.accept(599.0, "gre 10.0.0.2 -> 10.0.0.1"), "reply");
    assert_eq!(tracker.peek(1198.999, "gre 10.0.0.1 -> 10.0.0.2"), "established");
    assert_eq!(tracker.peek(1199.0, "gre 10.0.0.1 -> 10.0.0.2"), "none");
}
