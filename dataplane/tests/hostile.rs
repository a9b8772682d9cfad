//! Hostile traffic: bounds of virtual reassembly, and frames that make no sense.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use sgwall_dataplane::{
    Attribution, Config, DropReason, FrameInput, FullTable, Judge, Judgement, PassReason, Pipeline,
    SkipReason,
};
use sgwall_packet::{LinkType, PacketSpec, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};

const POLICY: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
network_acl = "acl-1"
[[network_acl]]
id = "acl-1"
ingress = [{ rule = 1, action = "deny", protocol = "tcp", ports = 99, cidr = "0.0.0.0/0" },
           { rule = 2, action = "allow", protocol = "all", cidr = "0.0.0.0/0" },
           { rule = 3, action = "allow", protocol = "all", cidr = "::/0" }]
egress = [{ rule = 1, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]
[[security_group]]
id = "sg-1"
ingress = [{ protocol = "udp", ports = 53, cidr = "203.0.113.0/24" },
           { protocol = "tcp", ports = 80, cidr = "0.0.0.0/0" },
           { protocol = "all", group = "sg-1" }]
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

fn judge(max_flows: usize) -> Judge {
    let input = Input { name: "policy".into(), bytes: POLICY.as_bytes() };
    let policy = load(&[input]).expect("a good policy").policy;
    let compiled = Arc::new(CompiledPolicy::compile(&policy, Generation(0)));
    let config = Config { max_flows, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    Judge::new(Pipeline::new(compiled, config), Attribution::default())
}

/// The reasons that a frame's events give.
fn reasons(judge: &mut Judge, millis: i64, data: &[u8]) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    let frame = FrameInput {
        token: millis as u64,
        link: Some(LinkType::Ethernet),
        data,
        wire_len: data.len() as u32,
        time: Timestamp::from_nanos(millis * 1_000_000),
        decimals: 3,
        recorded: None,
    };
    judge.judge(frame, &mut |event| {
        reasons.push(match event.judgement {
            Judgement::Verdict(verdict) => verdict.reason(),
            Judgement::Skip(reason) => reason.as_str(),
        });
    });
    reasons
}

fn packet(line: &str) -> Vec<u8> {
    line.parse::<PacketSpec>().unwrap_or_else(|e| panic!("{line}: {e}")).to_frame()
}

/// SEMANTICS 11.2: 16 fragments are held of a datagram, and no more.
#[test]
fn sixteen_fragments_are_held_of_a_datagram() {
    let mut judge = judge(100);
    for n in 1..=20 {
        let later = format!("udp 203.0.113.1:1 -> 10.0.1.10:53 len=8 frag=7:{}+", n * 8 + 72);
        let expected: &[&str] = if n <= 16 { &[] } else { &["frag-limit"] };
        assert_eq!(reasons(&mut judge, n, &packet(&later)), expected, "fragment {n}");
    }
    let first = "udp 203.0.113.1:1 -> 10.0.1.10:53 len=64 frag=7:0+";
    let released = reasons(&mut judge, 30, &packet(first));
    assert_eq!(released.len(), 17);
    assert_eq!(released[0], "allowed-tracked");
    assert!(released[1..].iter().all(|reason| *reason == "follows-first-fragment"));
}

/// SEMANTICS 11.2: and no more than 64 KiB of it.
#[test]
fn sixty_four_kibibytes_are_held_of_a_datagram() {
    let mut judge = judge(100);
    let held = (1..=10).take_while(|n| {
        let offset = n * 6400;
        let later = format!("udp 203.0.113.1:1 -> 10.0.1.10:53 len=6400 frag=7:{offset}+");
        offset + 6400 < 65_535 && reasons(&mut judge, i64::from(*n), &packet(&later)).is_empty()
    });
    // 64 KiB are ten frames of 6434 bytes, but a datagram ends at 65,535 bytes.
    assert_eq!(held.count(), 9);
    let mut judge = self::judge(100);
    let held = (1..=16).take_while(|n| {
        let offset = n * 3200 + 4000;
        let later = format!("udp 203.0.113.1:1 -> 10.0.1.10:53 len=3200 frag=7:{offset}+");
        let mut frame = packet(&later);
        // What lies behind the IP packet in its frame is kept, and counts.
        frame.resize(9_000, 0);
        reasons(&mut judge, i64::from(*n), &frame).is_empty()
    });
    assert_eq!(held.count(), 7, "seven frames of 9000 bytes fit, the eighth does not");
}

/// SEMANTICS 11.2: 4096 datagrams are known at once; further ones are dropped, old ones go on.
#[test]
fn four_thousand_datagrams_are_known_at_once() {
    let mut judge = judge(10_000);
    for n in 0..4096 {
        let first = format!("udp 203.0.113.1:{n} -> 10.0.1.10:53 len=64 frag={n}:0+");
        assert_eq!(reasons(&mut judge, 1, &packet(&first)), ["allowed-tracked"]);
    }
    let beyond = packet("udp 203.0.113.1:9999 -> 10.0.1.10:53 len=64 frag=5000:0+");
    assert_eq!(reasons(&mut judge, 2, &beyond), ["frag-limit"]);
    let known = packet("udp 203.0.113.1:7 -> 10.0.1.10:53 len=8 frag=7:72");
    assert_eq!(reasons(&mut judge, 3, &known), ["follows-first-fragment"]);
    // That one was complete and is known no more; so there is room for one.
    assert_eq!(reasons(&mut judge, 4, &beyond), ["allowed-tracked"]);
    assert_eq!(reasons(&mut judge, 30_003, &beyond), ["established"]);
}

/// A datagram that contradicts itself is refused whole, what waited included.
#[test]
fn a_contradiction_refuses_what_waits() {
    let mut judge = judge(100);
    let later = packet("udp 203.0.113.1:1 -> 10.0.1.10:53 len=16 frag=7:72");
    assert!(reasons(&mut judge, 1, &later).is_empty());
    let overlapping = packet("udp 203.0.113.1:1 -> 10.0.1.10:53 len=16 frag=7:80");
    assert_eq!(reasons(&mut judge, 2, &overlapping), ["frag-overlap", "frag-overlap"]);
    let first = packet("udp 203.0.113.1:1 -> 10.0.1.10:53 len=64 frag=7:0+");
    assert_eq!(reasons(&mut judge, 3, &first), ["frag-overlap"]);
}

/// A first fragment that cannot hold its ports (RFC 1858).
#[test]
fn a_tiny_first_fragment_is_named() {
    let mut judge = judge(100);
    let mut tiny = packet("udp 203.0.113.1:1 -> 10.0.1.10:80 len=0 frag=7:0+");
    tiny[23] = 6;
    assert_eq!(reasons(&mut judge, 1, &tiny), ["frag-tiny"]);
}

const LINES: &[&str] = &[
    "tcp 203.0.113.1:4000 -> 10.0.1.10:80 S seq=1",
    "tcp 10.0.1.10:80 -> 203.0.113.1:4000 SA seq=1 ack=2",
    "tcp 203.0.113.1:4000 -> 10.0.1.10:99 S",
    "udp 203.0.113.1:4000 -> 10.0.1.10:53 len=64 frag=3:0+",
    "udp 203.0.113.1:4000 -> 10.0.1.10:53 len=64 frag=3:72+",
    "udp 203.0.113.1:4000 -> 10.0.1.10:53 len=8 frag=3:136",
    "icmp 10.0.1.10 -> 10.0.1.20 8/0 id=4",
    "icmp 10.0.1.20 -> 10.0.1.10 0/0 id=4",
    "icmp 203.0.113.9 -> 10.0.1.10 3/4 quote=\"tcp 10.0.1.10:80 -> 203.0.113.1:4000 A\"",
    "udp [2001:db8::9]:1 -> [2001:db8:0:1::10]:53 frag=9:8 len=16",
    "icmpv6 fe80::1 -> ff02::1 134/0 ttl=255",
    "gre 10.0.1.10 -> 10.0.1.20 len=20",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever frames come, in whatever order and at whatever time: each has exactly one last
    /// word, and the counters are those of the verdicts given.
    #[test]
    fn every_frame_has_one_last_word(
        frames in proptest::collection::vec(
            (any::<Index>(), proptest::collection::vec((any::<Index>(), any::<u8>()), 0..3), any::<Index>(), 0..40_000i64, any::<bool>()),
            1..120,
        ),
        max_flows in 0..20usize,
    ) {
        let mut judge = judge(max_flows);
        let mut now = 0;
        let mut last_words = vec![0; frames.len()];
        let (mut judged, mut skipped) = (0, 0);
        for (token, (line, flips, keep, gap, cut)) in frames.iter().enumerate() {
            now += gap;
            let mut data = packet(LINES[line.index(LINES.len())]);
            let wire_len = data.len() as u32;
            for (index, bits) in flips {
                let at = index.index(data.len());
                data[at] ^= bits;
            }
            if *cut {
                data.truncate(keep.index(data.len() + 1));
            }
            let frame = FrameInput {
                token: token as u64,
                link: Some(LinkType::Ethernet),
                data: &data,
                wire_len,
                time: Timestamp::from_nanos(now * 1_000_000),
                decimals: 3,
                recorded: None,
            };
            judge.judge(frame, &mut |event| {
                last_words[event.frame.token as usize] += u32::from(event.is_final);
                match event.judgement {
                    Judgement::Verdict(_) => judged += 1,
                    Judgement::Skip(_) => skipped += 1,
                }
            });
            prop_assert!(judge.pipeline().connections().len() <= max_flows);
        }
        judge.finish(&mut |event| {
            last_words[event.frame.token as usize] += u32::from(event.is_final);
            judged += 1;
        });
        prop_assert!(last_words.iter().all(|words| *words == 1), "{:?}", last_words);
        let counters = judge.pipeline().counters();
        let passed: u64 = PassReason::ALL.iter().map(|&r| counters.passed(r).packets).sum();
        let dropped: u64 = DropReason::ALL.iter().map(|&r| counters.dropped(r).packets).sum();
        let not_judged: u64 = SkipReason::ALL.iter().map(|&r| judge.unjudged().skipped(r).packets).sum();
        prop_assert_eq!((passed + dropped, not_judged), (judged, skipped));
    }
}
