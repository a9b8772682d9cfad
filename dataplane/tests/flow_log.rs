//! Flow logs: windows and their edges, time that steps back, bounded memory, changes of policy.
//! What is logged of which packet is in the conformance suite.

use std::net::Ipv6Addr;
use std::sync::Arc;

use proptest::prelude::*;
use sgwall_dataplane::counters::Tally;
use sgwall_dataplane::flow_log::{
    Action, ClosedWindow, Config, Content, FlowLog, FlowLogRecord, Format, Interval, Room, Traffic,
    write_windows,
};
use sgwall_dataplane::{
    Attribution, DropReason, Event, FrameInput, Judge, Judgement, PassReason, Pipeline, Verdict,
};
use sgwall_packet::{Direction, Frame, Headers, LinkType, PacketSpec, Timestamp, parse};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Policy;

const POLICY: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
[[security_group]]
id = "sg-1"
ingress = [{ protocol = "udp", ports = 53, cidr = "203.0.113.0/24" },
           { protocol = "udp", ports = 53, cidr = "2001:db8:ffff::/48" }]
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
[[interface]]
id = "eni-2"
subnet = "subnet-1"
addresses = ["10.0.1.20"]
security_groups = ["sg-1"]
"#;

fn policy() -> Policy {
    let input = Input { name: "policy".into(), bytes: POLICY.as_bytes() };
    load(&[input]).expect("a good policy").policy
}

fn compiled(policy: &Policy) -> Arc<CompiledPolicy> {
    Arc::new(CompiledPolicy::compile(policy, Generation(0)))
}

fn config() -> Config {
    Config {
        interval: Interval::Minute,
        traffic: Traffic::All,
        fields: Format::default(),
        max_records: 1000,
        only: None,
        hash_seed: [1, 2, 3, 4],
    }
}

/// A log, and the lines that it has given.
struct Logged {
    log: FlowLog,
    format: Format,
    lines: Vec<String>,
}

impl Logged {
    fn new(policy: &Policy, config: Config) -> Self {
        let format = config.fields.clone();
        Logged { log: FlowLog::new(compiled(policy), config), format, lines: Vec::new() }
    }

    /// A datagram from a port of 203.0.113.1 to an interface, which passes.
    fn packet(&mut self, time: f64, interface: usize, port: u16) {
        let headers = headers(&format!("udp 203.0.113.1:{port} -> 10.0.1.10:53"));
        let verdict = Verdict::pass(PassReason::AllowedTracked);
        let event = event(&headers, (time * 1e9) as i64, interface, verdict);
        let Logged { log, format, lines } = self;
        log.record(&event, &mut |record| lines.push(format.line(record).to_string()));
    }

    fn advance(&mut self, time: i64) {
        let Logged { log, format, lines } = self;
        let now = Timestamp::from_secs(time);
        log.advance(now, &mut |record| lines.push(format.line(record).to_string()));
    }

    fn finish(&mut self, time: i64) {
        let Logged { log, format, lines } = self;
        let now = Timestamp::from_secs(time);
        log.finish(now, &mut |record| lines.push(format.line(record).to_string()));
    }

    /// The lines since the last call.
    fn lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}

/// Interface, source port, packets, start, end and status of each record.
fn short() -> Config {
    let fields = "${interface-id} ${srcport} ${packets} ${start} ${end} ${log-status}";
    Config { fields: fields.parse().unwrap(), ..config() }
}

fn headers(line: &str) -> Headers {
    let frame = line.parse::<PacketSpec>().unwrap_or_else(|e| panic!("{line}: {e}")).to_frame();
    match parse(LinkType::Ethernet, &frame, frame.len()) {
        Ok(Frame::Ip(headers)) => headers,
        other => panic!("{line}: {other:?}"),
    }
}

fn event(headers: &Headers, nanos: i64, interface: usize, verdict: Verdict) -> Event<'_> {
    Event {
        frame: FrameInput {
            token: 0,
            link: Some(LinkType::Ethernet),
            data: &[],
            wire_len: headers.ip_len,
            time: Timestamp::from_nanos(nanos),
            decimals: 9,
            recorded: None,
        },
        headers: Some(headers),
        error: None,
        side: Some((interface, Direction::Ingress)),
        judgement: Judgement::Verdict(verdict),
        admitted_by: None,
        is_final: true,
        emitted: None,
    }
}

#[test]
fn an_interval_is_60_or_600() {
    assert_eq!(Interval::from_secs(60), Ok(Interval::Minute));
    assert_eq!(Interval::from_secs(600).unwrap().as_secs(), 600);
    let refused = Interval::from_secs(300).unwrap_err().to_string();
    assert_eq!(refused, "InvalidParameter: an aggregation interval of 300 s; it is 60 or 600");
}

#[test]
fn windows_begin_at_multiples_of_the_interval() {
    let mut logged = Logged::new(&policy(), short());
    logged.packet(119.9, 0, 1);
    logged.packet(119.95, 1, 1);
    assert_eq!(logged.lines(), [""; 0]);
    logged.packet(120.0, 0, 1);
    assert_eq!(logged.lines(), ["eni-1 1 1 119 119 OK", "eni-2 1 1 119 119 OK"]);
    logged.advance(179);
    assert_eq!(logged.lines(), [""; 0]);
    logged.advance(180);
    assert_eq!(logged.lines(), ["eni-1 1 1 120 120 OK", "eni-2 - - 120 179 NODATA"]);
    logged.finish(200);
    assert_eq!(logged.lines(), ["eni-1 - - 180 200 NODATA", "eni-2 - - 180 200 NODATA"]);
    logged.finish(300);
    assert_eq!(logged.lines(), [""; 0], "a log ends once");
}

#[test]
fn a_log_that_saw_nothing_says_nothing() {
    let mut logged = Logged::new(&policy(), short());
    logged.finish(1_000_000);
    assert_eq!(logged.lines(), [""; 0]);
}

#[test]
fn windows_before_the_epoch_begin_at_multiples_too() {
    let mut logged = Logged::new(&policy(), Config { only: Some(vec!["eni-1".into()]), ..short() });
    logged.packet(-60.5, 0, 1);
    logged.packet(-60.0, 0, 1);
    logged.packet(0.0, 0, 1);
    assert_eq!(logged.lines(), ["eni-1 1 1 -61 -61 OK", "eni-1 1 1 -60 -60 OK"]);
}

/// A held fragment is judged up to two seconds late: it belongs to the open window.
#[test]
fn what_comes_late_counts_in_the_open_window() {
    let mut logged = Logged::new(&policy(), Config { only: Some(vec!["eni-1".into()]), ..short() });
    logged.packet(60.0, 0, 1);
    logged.packet(119.0, 0, 1);
    logged.packet(121.0, 0, 1);
    logged.packet(119.5, 0, 2);
    logged.packet(60.0, 0, 1);
    logged.packet(130.0, 0, 1);
    logged.finish(130);
    assert_eq!(
        logged.lines(),
        ["eni-1 1 2 60 119 OK", "eni-1 1 3 120 130 OK", "eni-1 2 1 120 120 OK"]
    );
}

/// More than an interval back is another recording: the open window ends where it was.
#[test]
fn a_long_step_back_begins_anew() {
    let mut logged = Logged::new(&policy(), short());
    logged.packet(1210.0, 0, 1);
    logged.packet(1139.0, 0, 1);
    assert_eq!(logged.lines(), ["eni-1 1 1 1210 1210 OK", "eni-2 - - 1210 1210 NODATA"]);
    logged.finish(1140);
    assert_eq!(
        logged.lines(),
        [
            "eni-1 1 1 1139 1139 OK",
            "eni-2 - - 1139 1139 NODATA",
            "eni-1 - - 1140 1140 NODATA",
            "eni-2 - - 1140 1140 NODATA",
        ]
    );
}

/// A silence of years is told in a bounded number of lines.
#[test]
fn a_very_long_silence_is_told_shortly() {
    let mut logged = Logged::new(&policy(), Config { only: Some(vec!["eni-1".into()]), ..short() });
    logged.packet(0.0, 0, 1);
    logged.advance(9_000_000_000);
    let lines = logged.lines();
    assert_eq!(lines.len(), 1 + 144 + 1);
    assert_eq!(lines[1], "eni-1 - - 60 119 NODATA");
    assert_eq!(lines[144], "eni-1 - - 8640 8699 NODATA");
    assert_eq!(lines[145], "eni-1 - - 8700 8999999999 NODATA");
}

#[test]
fn the_ends_of_time_are_no_trouble() {
    let mut logged = Logged::new(&policy(), short());
    for nanos in [i64::MIN, i64::MAX, i64::MIN, 0] {
        logged.packet(nanos as f64 / 1e9, 0, 1);
    }
    logged.finish(i64::MAX);
    assert_eq!(logged.lines().iter().filter(|line| line.ends_with("OK")).count(), 4);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let mut logged = Logged::new(&policy(), Config { max_records: 2, ..short() });
    for port in 1..=5 {
        logged.packet(1.0, 0, port);
        logged.packet(2.0, 0, port);
    }
    assert_eq!(logged.log.skipped(), Tally { packets: 6, bytes: 6 * 28 });
    let mut skipped = Vec::new();
    logged.log.finish(Timestamp::from_secs(3), &mut |record| {
        if let Content::SkipData(tally) = record.content {
            skipped.push((record.interface.id.clone(), tally));
        }
    });
    assert_eq!(skipped, [("eni-1".to_owned(), Tally { packets: 6, bytes: 6 * 28 })]);
    // The next window has room again.
    logged.packet(60.0, 0, 5);
    logged.finish(60);
    assert_eq!(logged.lines(), ["eni-1 5 1 60 60 OK", "eni-2 - - 60 60 NODATA"]);
}

/// Interfaces are known by their ids: another order, one that goes, one that comes.
#[test]
fn a_new_policy_goes_on_with_the_records_of_the_old() {
    let mut policy = policy();
    let mut logged = Logged::new(&policy, short());
    logged.packet(1.0, 0, 1);
    policy.interfaces.reverse();
    logged.log.set_policy(compiled(&policy));
    logged.packet(2.0, 1, 1);
    policy.interfaces[0].id = "eni-3".into();
    logged.log.set_policy(compiled(&policy));
    logged.packet(3.0, 1, 1);
    logged.finish(9);
    assert_eq!(logged.lines(), ["eni-1 1 3 1 3 OK", "eni-3 - - 1 9 NODATA"]);
}

#[test]
fn the_account_is_that_of_the_first_group_that_tells() {
    let mut policy = policy();
    policy.security_groups[0].owner = Some("123456789010".into());
    let fields = "${account-id} ${interface-id} ${vpc-id} ${subnet-id}".parse().unwrap();
    let mut logged = Logged::new(&policy, Config { fields, ..config() });
    logged.packet(1.0, 0, 1);
    logged.finish(1);
    let expected = ["123456789010 eni-1 vpc-1 subnet-1", "123456789010 eni-2 vpc-1 subnet-1"];
    assert_eq!(logged.lines(), expected);
}

/// An IPv6 fragment from 2001:db8:ffff::1, whose Fragment header announces destination options.
fn fragment(offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8 + payload.len() as u8, 44, 64];
    packet.extend("2001:db8:ffff::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend("2001:db8:0:1::10".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend([60, 0]);
    packet.extend((offset | u16::from(more)).to_be_bytes());
    packet.extend([0, 0, 0, 7]);
    packet.extend(payload);
    packet
}

/// Later fragments of IPv6 show the header that follows the Fragment header, here destination
/// options: protocol and ports come from the first fragment.
#[test]
fn later_fragments_have_the_protocol_of_the_first() {
    let policy = compiled(&policy());
    let pipeline = sgwall_dataplane::Config {
        max_flows: 10,
        full_table: sgwall_dataplane::FullTable::DropNew,
        hash_seed: [1, 2, 3, 4],
    };
    let pipeline = Pipeline::new(Arc::clone(&policy), pipeline);
    let mut judge = Judge::new(pipeline, Attribution::default());
    let fields = "${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${action}";
    let format: Format = fields.parse().unwrap();
    let only = Some(vec!["eni-1".into()]);
    let mut log = FlowLog::new(policy, Config { fields: format.clone(), only, ..config() });
    let mut lines = Vec::new();
    let mut sink = |record: &FlowLogRecord<'_>| lines.push(format.line(record).to_string());
    let options_and_udp = [17, 0, 1, 4, 0, 0, 0, 0, 0x0f, 0xa0, 0, 53, 0, 16, 0, 0];
    let later = fragment(16, false, &[0; 8]);
    for (data, token) in [later, fragment(0, true, &options_and_udp)].iter().zip(1..) {
        let frame = FrameInput {
            token,
            link: Some(LinkType::Ipv6),
            data,
            wire_len: data.len() as u32,
            time: Timestamp::from_secs(1),
            decimals: 0,
            recorded: None,
        };
        judge.judge(frame, &mut |event| log.record(&event, &mut sink));
    }
    log.finish(Timestamp::from_secs(2), &mut sink);
    assert_eq!(lines, ["4000 53 17 2 120 ACCEPT"]);
}

/// An event of the property tests: when, on which interface, from which port, and whether it
/// passes.
fn events() -> impl Strategy<Value = Vec<(i64, usize, u16, bool)>> {
    let millis = prop_oneof![0..300_000_i64, 0..3_000_000_i64];
    prop::collection::vec((millis, 0..2_usize, 1..6_u16, any::<bool>()), 0..200)
}

proptest! {
    /// Every packet is in exactly one record, or skipped: none is lost, none counted twice.
    #[test]
    fn records_add_up_to_the_events(events in events(), max_records in 0..12_usize) {
        for max_records in [max_records, 1000] {
            let mut log = FlowLog::new(compiled(&policy()), Config { max_records, ..config() });
            let (mut recorded, mut logged, mut skipped) = ([(0, 0); 2], [(0, 0); 2], (0, 0));
            let mut misplaced = Vec::new();
            let mut sink = |record: &FlowLogRecord<'_>| {
                match record.content {
                    Content::Flow(flow) => {
                        let sum = &mut logged[usize::from(flow.action == Action::Accept)];
                        *sum = (sum.0 + flow.sum.packets, sum.1 + flow.sum.bytes);
                    }
                    Content::SkipData(sum) => {
                        skipped = (skipped.0 + sum.packets, skipped.1 + sum.bytes);
                    }
                    Content::NoData => return,
                }
                if record.start > record.end
                    || record.start.div_euclid(60) != record.end.div_euclid(60)
                {
                    misplaced.push((record.start, record.end));
                }
            };
            for &(millis, interface, port, passes) in &events {
                let headers = headers(&format!("udp 203.0.113.1:{port} -> 10.0.1.10:53 len={port}"));
                let verdict = match passes {
                    true => Verdict::pass(PassReason::AllowedTracked),
                    false => Verdict::drop(DropReason::NoRule),
                };
                let sum = &mut recorded[usize::from(passes)];
                *sum = (sum.0 + 1, sum.1 + u64::from(headers.ip_len));
                log.record(&event(&headers, millis * 1_000_000, interface, verdict), &mut sink);
            }
            log.finish(Timestamp::from_secs(0), &mut sink);
            prop_assert_eq!(misplaced, vec![]);
            let of_log = log.skipped();
            prop_assert_eq!((of_log.packets, of_log.bytes), skipped);
            if max_records == 1000 {
                prop_assert_eq!(logged, recorded);
            } else {
                let add = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
                let all = add(add(logged[0], logged[1]), skipped);
                prop_assert_eq!(all, add(recorded[0], recorded[1]));
            }
        }
    }
}

/// Logs that share room write windows as one: a line without data only where none had traffic; what
/// there was no room for is told, and places are free again once a window is dropped.
#[test]
fn windows_of_several_logs_are_written_as_one() {
    let room = Arc::new(Room::new(2));
    let mut logs: Vec<_> = (0..2)
        .map(|_| FlowLog::sharing(compiled(&policy()), config(), Arc::clone(&room)))
        .collect();
    let mut windows = Vec::new();
    let format = Format::default();
    let at = |seconds: i64| Timestamp::from_secs(seconds);
    let write = |windows: &[ClosedWindow]| {
        let mut lines = Vec::new();
        write_windows(windows, &mut |record| lines.push(format.line(record).to_string()));
        lines
    };
    for (n, log) in logs.iter_mut().enumerate() {
        log.advance_whole(at(60), &mut |_, window| windows.push(window));
        let packets = if n == 0 { 2 } else { 1 };
        for port in 0..packets {
            let headers = headers(&format!("udp 203.0.113.{n}:{port} -> 10.0.1.10:53"));
            log.count_event(&event(
                &headers,
                61_000_000_000,
                0,
                Verdict::pass(PassReason::AllowedTracked),
            ));
        }
        log.advance_whole(at(120), &mut |_, window| windows.push(window));
    }
    assert_eq!((room.left(), windows.len()), (0, 2));
    assert_eq!(
        write(&windows),
        [
            "2 - eni-1 203.0.113.0 10.0.1.10 0 53 17 1 28 61 61 ACCEPT OK",
            "2 - eni-1 203.0.113.0 10.0.1.10 1 53 17 1 28 61 61 ACCEPT OK",
            "2 - eni-1 - - - - - - - 60 119 - SKIPDATA",
            "2 - eni-2 - - - - - - - 60 119 - NODATA",
        ]
    );
    assert_eq!((logs[0].skipped().packets, logs[1].skipped().packets), (0, 1));
    // Nobody writes the first: its packets are skipped, and its interface says so the next time.
    logs[0].take_back(&windows[0]);
    windows.clear();
    assert_eq!((room.left(), logs[0].skipped().packets), (2, 2));
    logs[0].finish_whole(at(130), &mut |_, window| windows.push(window));
    assert_eq!(write(&windows)[0], "2 - eni-1 - - - - - - - 120 130 - SKIPDATA");
}
