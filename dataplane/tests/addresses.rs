//! Tracked flows end with the address of their interface (SEMANTICS 7.12).

use std::sync::Arc;

use sgwall_conntrack::Probe;
use sgwall_dataplane::{
    Attribution, Config, FrameInput, FullTable, Judge, Judgement, Pipeline, Sight,
};
use sgwall_packet::{Direction, LinkType, PacketSpec, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};

const NETWORK: &str = r#"
version = 1
vpc = [{ id = "vpc", cidrs = ["10.0.0.0/16"] }]
subnet = [{ id = "s1", vpc = "vpc", cidrs = ["10.0.1.0/24"] }]
security_group = [{ id = "sg-1", vpc = "vpc", ingress = [], egress = [{ protocol = "udp", cidr = "203.0.113.0/24" }] }]
"#;

/// A policy of interfaces with their addresses.
fn policy(interfaces: &[(&str, &str)]) -> Arc<CompiledPolicy> {
    compile(interfaces, "")
}

/// The same, with more keys of the last interface.
fn compile(interfaces: &[(&str, &str)], more: &str) -> Arc<CompiledPolicy> {
    let mut text = NETWORK.to_owned();
    for (id, addresses) in interfaces {
        text += &format!(
            "[[interface]]\nid = \"{id}\"\nsubnet = \"s1\"\naddresses = [{addresses}]\n\
             security_groups = [\"sg-1\"]\n"
        );
    }
    text += more;
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    let loaded = load(&[input]).unwrap_or_else(|e| panic!("{e:?}"));
    Arc::new(CompiledPolicy::compile(&loaded.policy, Generation(0)))
}

fn frame(seconds: i64, data: &[u8]) -> FrameInput<'_> {
    FrameInput {
        token: 1,
        link: Some(LinkType::Ethernet),
        data,
        wire_len: data.len() as u32,
        time: Timestamp::from_nanos(seconds * 1_000_000_000),
        decimals: 3,
        recorded: None,
    }
}

fn reason(judge: &mut Judge, seconds: i64, line: &str) -> &'static str {
    let packet: PacketSpec = line.parse().unwrap();
    let data = packet.to_frame();
    let mut reason = "";
    judge.judge(frame(seconds, &data), &mut |event| {
        reason = match event.judgement {
            Judgement::Verdict(verdict) => verdict.reason(),
            Judgement::Skip(skipped) => skipped.as_str(),
        };
    });
    reason
}

const OUT: &str = "udp 10.0.1.10:4000 -> 203.0.113.1:53";
const BACK: &str = "udp 203.0.113.1:53 -> 10.0.1.10:4000";

/// Changes the policy by way of `meanwhile`; what an answer gets then, and how many flows are left.
fn after(first: &[(&str, &str)], meanwhile: &[&[(&str, &str)]]) -> (&'static str, usize) {
    let config = Config { max_flows: 10, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let mut judge = Judge::new(Pipeline::new(policy(first), config), Attribution::default());
    assert_eq!(reason(&mut judge, 0, OUT), "allowed-tracked");
    assert_eq!(reason(&mut judge, 0, "udp 10.0.1.11:1 -> 203.0.113.1:1"), "allowed-tracked");
    for interfaces in meanwhile {
        judge.set_policy(policy(interfaces), Attribution::default());
    }
    let found = reason(&mut judge, 1, BACK);
    let now = Timestamp::from_nanos(1_000_000_000);
    (found, judge.pipeline().connections().iter(now).count())
}

#[test]
fn flows_end_with_their_address() {
    let both = "\"10.0.1.10\", \"10.0.1.11\"";
    let (one, other) = ("\"10.0.1.10\"", "\"10.0.1.11\"");
    // Nothing that concerns the addresses has changed.
    assert_eq!(after(&[("a", both)], &[&[("a", both)]]), ("reply", 2));
    assert_eq!(after(&[("a", both)], &[&[("b", "\"10.0.1.9\""), ("a", both)]]), ("reply", 2));
    // Unassigned, and assigned again.
    assert_eq!(after(&[("a", both)], &[&[("a", other)], &[("a", both)]]), ("no-rule", 1));
    // Moved to another interface, which does not take the flow over.
    assert_eq!(after(&[("a", both)], &[&[("a", other), ("b", one)]]), ("no-rule", 1));
    // The interface deleted, or detached and attached again under the same id.
    assert_eq!(after(&[("a", both)], &[&[], &[("a", both)]]), ("no-rule", 0));
}

/// Without address check an interface has flows of addresses that are not its own: they end with the
/// interface, and do not come back with another of its name.
#[test]
fn an_interface_that_is_gone_takes_the_flows_that_it_carried() {
    let carrier = |own| compile(&[("b", "\"10.0.1.20\""), ("a", own)], "source_dest_check = false");
    let config = Config { max_flows: 10, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let egress = Attribution {
        only: Some(vec![1]),
        direction: Some(Direction::Egress),
        ..Attribution::default()
    };
    let mut judge = Judge::new(Pipeline::new(carrier("\"10.0.1.10\""), config), egress.clone());
    let carried = "udp 10.0.9.9:4000 -> 203.0.113.1:53";
    assert_eq!(reason(&mut judge, 0, carried), "allowed-tracked");
    assert_eq!(reason(&mut judge, 1, carried), "established");
    judge.set_policy(carrier("\"10.0.1.11\""), egress.clone());
    assert_eq!(reason(&mut judge, 2, carried), "established");
    judge.set_policy(policy(&[("b", "\"10.0.1.20\"")]), Attribution::default());
    assert_eq!(judge.pipeline().connections().len(), 0);
    judge.set_policy(carrier("\"10.0.1.10\""), egress);
    assert_eq!(reason(&mut judge, 3, carried), "allowed-tracked");
}

/// A frame that is looked at ahead, and its flow looked up, gets what it would get alone, through
/// public addresses too (SEMANTICS 14.5).
#[test]
fn looking_ahead_changes_nothing() {
    let with_public = compile(
        &[("eni-1", "\"10.0.1.10\"")],
        "public = [{ private = \"10.0.1.10\", public = \"198.51.100.7\" }]\n",
    );
    let config = Config { max_flows: 10, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    for own in ["10.0.1.10", "198.51.100.7"] {
        let pipeline = Pipeline::new(Arc::clone(&with_public), config);
        let mut judge = Judge::new(pipeline, Attribution::default());
        let out = format!("udp {own}:4000 -> 203.0.113.1:53");
        let back = format!("udp 203.0.113.1:53 -> {own}:4000");
        for (line, expected) in [
            (&out, "allowed-tracked"),
            (&back, "reply"),
            (&back, "reply"),
            (&out, "established"),
            (&out, "established"),
        ] {
            let data = line.parse::<PacketSpec>().unwrap().to_frame();
            let frame = frame(0, &data);
            let mut sight = Sight::NOTHING;
            judge.look(&frame, &mut sight);
            let mut probe = [Probe::NOTHING];
            judge.probe_seen(&sight, &mut probe[0]);
            judge.locate(&mut probe);
            let mut found = "";
            judge.judge_seen(frame, &sight, Some(&probe[0]), &mut |event| {
                if let Judgement::Verdict(verdict) = event.judgement {
                    found = verdict.reason();
                }
            });
            assert_eq!(found, expected, "{line}");
        }
    }
}
