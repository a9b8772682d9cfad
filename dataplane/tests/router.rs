//! What the router answers to packets that do not fit their path (SEMANTICS 12.4, 12.6 to 12.9).

use std::net::IpAddr;
use std::sync::Arc;

use sgwall_dataplane::{
    Attribution, Config, DropReason, Emitted, Event, FrameInput, FullTable, Judge, Judgement,
    Outcome, PassReason, Pipeline,
};
use sgwall_packet::{LinkType, PacketSpec, Timestamp, Transport};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};

const POLICY: &str = r#"
version = 1
vpc = [{ id = "vpc", cidrs = ["10.0.0.0/16", "2001:db8::/56"] }]
[[subnet]]
id = "s1"
vpc = "vpc"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
routes = [{ destination = "10.9.0.0/16", target = "inter-region-peering" }]
[[security_group]]
id = "sg-1"
vpc = "vpc"
ingress = [{ protocol = "icmp", type = 3, code = 4, cidr = "10.0.1.0/24" },
           { protocol = "icmpv6", type = 2, code = 0, cidr = "2001:db8:0:1::/64" }]
egress = [{ protocol = "udp", cidr = "0.0.0.0/0" }, { protocol = "udp", cidr = "::/0" }]
[[interface]]
id = "a"
subnet = "s1"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
mac = "02:00:00:00:00:01"
"#;

fn judge(compat: &str) -> Judge {
    let text = POLICY.replace("version = 1", &format!("version = 1\ncompat = \"{compat}\""));
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    let loaded = load(&[input]).unwrap_or_else(|e| panic!("{e:?}"));
    let policy = Arc::new(CompiledPolicy::compile(&loaded.policy, Generation(0)));
    let config =
        Config { max_flows: 100_000, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    Judge::new(Pipeline::new(policy, config), Attribution::default())
}

/// The answer to one packet in an Ethernet frame: its bytes and what became of it.
fn answer(judge: &mut Judge, millis: i64, line: &str) -> Option<(Vec<u8>, Outcome)> {
    let spec: PacketSpec = line.parse().unwrap();
    let data = spec.to_frame();
    let frame = FrameInput {
        token: 1,
        link: Some(LinkType::Ethernet),
        data: &data,
        wire_len: data.len() as u32,
        time: Timestamp::from_nanos(millis * 1_000_000),
        decimals: 3,
        recorded: None,
    };
    let (mut answer, mut refused) = (None, false);
    judge.judge(frame, &mut |event: Event<'_>| {
        let Judgement::Verdict(verdict) = event.judgement else { return };
        if event.emitted == Some(Emitted::Answer) {
            answer = Some((event.frame.data.to_vec(), verdict.outcome));
        } else {
            refused = verdict.outcome == Outcome::Drop(DropReason::MtuExceeded);
        }
    });
    assert!(refused, "{line} fits");
    answer
}

/// Cases 46, 47 and 49: whence, whither, and the number in it; the edition decides what fits and
/// why the answer passes.
#[test]
fn the_answer_comes_from_the_router_and_names_the_mtu() {
    let (to_vpc, to_world) = ("10.0.2.9", "203.0.113.1");
    let by_rule = PassReason::AllowedStateless;
    let exempt = PassReason::Router;
    for (compat, len, dst, mtu, reason) in [
        ("ec2-2017", 8974, to_vpc, 9001, by_rule),
        ("current", 8974, to_vpc, 9001, exempt),
        ("ec2-2017", 1572, to_world, 1500, by_rule),
        ("current", 1572, to_world, 1500, exempt),
        ("ec2-2017", 1473, "10.9.0.1", 1500, by_rule),
        ("current", 8473, "10.9.0.1", 8500, exempt),
        ("ec2-2017", 1552, "2001:db8:ffff::1", 1500, by_rule),
        ("current", 1552, "2001:db8:ffff::1", 1500, exempt),
    ] {
        let is_v6 = dst.contains(':');
        let line = match is_v6 {
            true => format!("udp [2001:db8:0:1::10]:1 -> [{dst}]:1 len={len}"),
            false => format!("udp 10.0.1.10:1 -> {dst}:1 len={len} df"),
        };
        let (frame, outcome) = answer(&mut judge(compat), 0, &line).expect("an answer");
        assert_eq!(outcome, Outcome::Pass(reason), "{compat}: {line}");
        let Ok(sgwall_packet::Frame::Ip(h)) =
            sgwall_packet::parse(LinkType::Ethernet, &frame, frame.len())
        else {
            panic!("an IP packet answers {line}")
        };
        let (router, sender) = match is_v6 {
            true => ("2001:db8:0:1::1", "2001:db8:0:1::10"),
            false => ("10.0.1.1", "10.0.1.10"),
        };
        assert_eq!((h.src, h.dst), (ip(router), ip(sender)));
        let Transport::Icmp(icmp) = h.transport else { panic!("ICMP answers {line}") };
        assert_eq!((icmp.kind, icmp.code), if is_v6 { (2, 0) } else { (3, 4) });
        let at = usize::from(h.transport_offset);
        assert_eq!(frame[at + 4..at + 8], [0, 0, (mtu >> 8) as u8, mtu as u8], "{compat}: {line}");
        // Back to the card that it came from.
        assert_eq!(frame[..6], [2, 0, 0, 0, 0, 1]);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// SEMANTICS 12.8: a hundred at once, then one every ten milliseconds.
#[test]
fn answers_are_limited() {
    let mut judge = judge("current");
    let line = "udp 10.0.1.10:1 -> 203.0.113.1:1 len=1572 df";
    let mut answers = |millis: std::ops::Range<i64>, each: usize| {
        millis
            .flat_map(|t| vec![t; each])
            .filter(|&t| answer(&mut judge, t, line).is_some())
            .count()
    };
    assert_eq!(answers(0..1, 150), 100);
    assert_eq!(answers(1..10, 1), 0);
    assert_eq!(answers(10..1010, 2), 100);
}
