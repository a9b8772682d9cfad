//! An explanation never disagrees with the judge, and neither does the way of packets of which
//! nobody needs an event: over random traffic and over real captures.

// Tests of input read files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use sgwall_conntrack::Probe;
use sgwall_dataplane::{
    Attribution, Config, Event, FrameInput, FullTable, Judge, Judgement, Pipeline, Plain, Sight,
};
use sgwall_fixtures::explained::{contradictions, event_words, foretold};
use sgwall_netio::capture;
use sgwall_packet::{LinkType, PacketSpec, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Policy;

const NETWORK: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
network_acl = "acl-1"
[[subnet]]
id = "subnet-2"
vpc = "vpc-1"
cidrs = ["10.0.2.0/24"]
[[network_acl]]
id = "acl-1"
ingress = [
  { rule = 90, action = "deny", protocol = "tcp", ports = "81", cidr = "0.0.0.0/0" },
  { rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" },
  { rule = 110, action = "allow", protocol = "tcp", cidr = "::/0" },
]
egress = [{ rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]
[[security_group]]
id = "sg-1"
name = "one"
ingress = [
  { protocol = "tcp", ports = "80-81", cidr = "0.0.0.0/0" },
  { protocol = "udp", group = "sg-2" },
  { protocol = "icmp", type = 3, code = 4, cidr = "10.0.0.0/8" },
]
[[security_group]]
id = "sg-2"
name = "two"
ingress = [{ protocol = "all", group = "sg-1" }]
egress = [{ protocol = "udp", ports = "53", cidr = "0.0.0.0/0" }, { protocol = "all", group = "sg-1" }]
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
public = [{ private = "10.0.1.10", public = "198.51.100.1" }]
security_groups = ["sg-1"]
[[interface]]
id = "eni-2"
subnet = "subnet-2"
addresses = ["10.0.2.20"]
security_groups = ["sg-2"]
mtu = 1500
"#;

fn policy(text: &[u8]) -> Policy {
    load(&[Input { name: "policy".into(), bytes: text }]).unwrap().policy
}

fn judge(model: &Policy, attribution: Attribution, max_flows: usize) -> Judge {
    judge_with(model, attribution, max_flows, FullTable::DropNew)
}

fn judge_with(
    model: &Policy,
    attribution: Attribution,
    max_flows: usize,
    full_table: FullTable,
) -> Judge {
    let compiled = Arc::new(CompiledPolicy::compile(model, Generation(0)));
    let config = Config { max_flows, full_table, hash_seed: [1, 2, 3, 4] };
    Judge::new(Pipeline::new(compiled, config), attribution)
}

/// Explains a frame, judges it, and tells what differs.
fn explain_and_judge(judge: &mut Judge, model: &Policy, frame: FrameInput<'_>) -> Vec<String> {
    let policy = Arc::clone(judge.pipeline().policy());
    let explanation = judge.explain(model, frame);
    let mut judged = Vec::new();
    judge.judge(frame, &mut |event| {
        if event.frame.token == frame.token {
            judged.push(event_words(&event, &policy));
        }
    });
    let foretold = foretold(&explanation);
    let mut wrong = contradictions(&explanation);
    if foretold != judged {
        wrong.push(format!("explained: {foretold:?}\njudged: {judged:?}"));
    }
    wrong
}

/// Two judges of the same frames, of which one tells of nothing but a verdict where it can.
struct BothWays {
    events: Judge,
    plain: Judge,
    /// Verdicts that were all there was to tell.
    verdicts: usize,
}

impl BothWays {
    fn new(judge: impl Fn() -> Judge) -> Self {
        BothWays { events: judge(), plain: judge(), verdicts: 0 }
    }

    /// Judges a frame both ways, and tells what differs.
    fn judge(&mut self, frame: FrameInput<'_>) -> Option<String> {
        let say = |event: &Event<'_>| {
            let emitted = event.emitted.map(|emitted| (emitted, event.frame.data.to_vec()));
            (event.frame.token, event.side, event.judgement, event.is_final, emitted)
        };
        let (mut expected, mut said) = (Vec::new(), Vec::new());
        self.events.judge(frame, &mut |event| expected.push(say(&event)));

        let (mut sight, mut probe) = (Sight::NOTHING, [Probe::NOTHING]);
        self.plain.look(&frame, &mut sight);
        self.plain.probe_seen(&sight, &mut probe[0]);
        self.plain.locate(&mut probe);
        match self.plain.judge_plain_seen(frame.time, frame.data, &sight, &probe[0]) {
            Some(Plain { side, verdict }) => {
                said.push((frame.token, Some(side), Judgement::Verdict(verdict), true, None));
                self.verdicts += 1;
            }
            None => {
                let mut sink = |event: Event<'_>| said.push(say(&event));
                self.plain.judge_seen(frame, &sight, Some(&probe[0]), &mut sink);
            }
        }
        let counted = |judge: &Judge| {
            (judge.pipeline().counters().clone(), *judge.unjudged(), judge.super_frames())
        };
        if counted(&self.events) != counted(&self.plain) {
            return Some("other counters".to_owned());
        }
        (expected != said).then(|| format!("events: {expected:?}\nplain: {said:?}"))
    }
}

/// Few addresses and ports, so that packets meet each other's flows and fragments.
fn packet() -> impl Strategy<Value = PacketSpec> {
    let address = || {
        prop_oneof![
            3 => Just("10.0.1.10"), 3 => Just("10.0.2.20"), 2 => Just("203.0.113.1"),
            1 => Just("198.51.100.1"), 1 => Just("10.0.1.1"), 1 => Just("10.0.9.9"),
            1 => Just("255.255.255.255"), 1 => Just("2001:db8:0:1::10"), 1 => Just("2001:db8:1::1"),
        ]
    };
    let port = || prop_oneof![Just(53u16), Just(80), Just(81), Just(4000)];
    let what = prop_oneof![
        3 => Just(("tcp", "S")), 1 => Just(("tcp", "SA ack=1")), 1 => Just(("tcp", "A ack=1")),
        1 => Just(("tcp", "R")), 1 => Just(("tcp", "FA ack=1")), 3 => Just(("udp", "")),
        1 => Just(("icmp", "8/0 id=1")), 1 => Just(("icmp", "0/0 id=1")), 1 => Just(("gre", "")),
    ];
    let extra = prop_oneof![
        6 => Just(""), 1 => Just("len=1600 df"), 1 => Just("len=1600"), 1 => Just("len=64 frag=7:0+"),
        1 => Just("len=64 frag=7:72"), 1 => Just("len=64 frag=7:72+"), 1 => Just("len=8 frag=7:64"),
    ];
    let ends = (address(), address(), port(), port());
    (ends, what, extra).prop_filter_map("of one family", |((src, dst, from, to), what, extra)| {
        let (protocol, detail) = what;
        let end = |address: &str, port: u16| match (protocol, address.contains(':')) {
            ("tcp" | "udp", true) => format!("[{address}]:{port}"),
            ("tcp" | "udp", false) => format!("{address}:{port}"),
            _ => address.to_owned(),
        };
        let text = format!("{protocol} {} -> {} {detail} {extra}", end(src, from), end(dst, to));
        text.parse().ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Two interfaces, a table that is soon full, fragments, time that passes and steps back.
    #[test]
    fn random_traffic_is_explained_as_it_is_judged(
        steps in proptest::collection::vec((packet(), -1000i64..200_000), 1..40),
        max_flows in prop_oneof![Just(1usize), Just(2), Just(3), Just(1000)],
        full_table in prop_oneof![Just(FullTable::DropNew), Just(FullTable::EvictEmbryonic)],
        limits in prop_oneof![Just(""), Just("max_flows = 1"), Just("reserved_flows = 1")],
        current in any::<bool>(),
    ) {
        let edition = if current { "version = 1\ncompat = \"current\"" } else { "version = 1" };
        let network = NETWORK.replacen("version = 1", edition, 1)
            + limits;
        let model = policy(network.as_bytes());
        let judge = || judge_with(&model, Attribution::default(), max_flows, full_table);
        let (mut both, mut judge) = (BothWays::new(judge), judge());
        let mut millis = 0;
        for (token, (packet, gap)) in (1..).zip(&steps) {
            // Most gaps are short: flows meet their answers.
            millis += if gap % 4 == 0 { *gap } else { gap % 50 };
            let data = packet.to_ip();
            let frame = FrameInput {
                token,
                link: Some(LinkType::RawIp),
                data: &data,
                wire_len: data.len() as u32,
                time: Timestamp::from_nanos(millis * 1_000_000),
                decimals: 9,
                recorded: None,
            };
            let wrong = explain_and_judge(&mut judge, &model, frame);
            prop_assert!(wrong.is_empty(), "step {token}, {packet}:\n{}", wrong.join("\n"));
            prop_assert_eq!(both.judge(frame), None, "step {}, {}", token, packet);
        }
    }
}

/// Every capture of the suite, its busiest addresses standing for the interface.
#[test]
fn real_captures_are_explained_as_they_are_judged() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let model = policy(&fs::read(dir.join("policy.toml")).unwrap());
    let (mut frames, mut verdicts) = (0, 0);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if !path.extension().is_some_and(|e| e == "pcap" || e == "pcapng") {
            continue;
        }
        // Everybody in the lower half of the addresses is the interface.
        let halves = [("0.0.0.0", "127.255.255.255"), ("::", "2001:7fff::")];
        let local = halves.map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).to_vec();
        let attribution = Attribution { only: Some(vec![0]), direction: None, local };
        let judge = || judge(&model, attribution.clone(), 1000);
        let (mut both, mut judge) = (BothWays::new(judge), judge());
        let mut reader = capture::open(&path).unwrap();
        let mut token = 0;
        // A damaged capture ends early: what came before counts.
        while let Ok(Some(packet)) = reader.next_packet() {
            token += 1;
            let frame = FrameInput {
                token,
                link: packet.link.known(),
                data: packet.data,
                wire_len: packet.wire_len,
                time: packet.time,
                decimals: packet.decimals,
                recorded: packet.direction,
            };
            let wrong = explain_and_judge(&mut judge, &model, frame);
            assert!(wrong.is_empty(), "{} {token}:\n{}", path.display(), wrong.join("\n"));
            assert_eq!(both.judge(frame), None, "{} {token}", path.display());
        }
        (frames, verdicts) = (frames + token, verdicts + both.verdicts);
    }
    assert!(frames > 100, "{frames} frames");
    assert!(verdicts > 20, "{verdicts} of {frames} frames had one verdict and no more");
}
