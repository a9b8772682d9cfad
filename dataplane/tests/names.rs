//! What a tracked flow is known by outlives the policy that it began under, whoever made the names.

use std::sync::Arc;

use sgwall_dataplane::{Attribution, Config, FrameInput, FullTable, Judge, Names, Pipeline};
use sgwall_packet::{LinkType, PacketSpec, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Policy;

/// A policy of interfaces, `a` with 10.0.1.10 and `b` with 10.0.1.11, whose group has rules for UDP ports.
fn policy(interfaces: &[&str], ports: &[u16]) -> Policy {
    let rules: Vec<_> = ports
        .iter()
        .map(|port| format!("{{ protocol = \"udp\", ports = {port}, cidr = \"203.0.113.0/24\" }}"))
        .collect();
    let mut text = format!(
        "version = 1\n\
         vpc = [{{ id = \"vpc\", cidrs = [\"10.0.0.0/16\"] }}]\n\
         subnet = [{{ id = \"s1\", vpc = \"vpc\", cidrs = [\"10.0.1.0/24\"] }}]\n\
         security_group = [{{ id = \"sg-1\", vpc = \"vpc\", ingress = [{}] }}]\n",
        rules.join(", ")
    );
    for id in interfaces {
        let host = if *id == "a" { 10 } else { 11 };
        text += &format!(
            "[[interface]]\nid = \"{id}\"\nsubnet = \"s1\"\naddresses = [\"10.0.1.{host}\"]\n\
             security_groups = [\"sg-1\"]\n"
        );
    }
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    load(&[input]).unwrap_or_else(|e| panic!("{e:?}")).policy
}

fn send(judge: &mut Judge, line: &str) {
    let packet: PacketSpec = line.parse().unwrap();
    let data = packet.to_frame();
    let frame = FrameInput {
        token: 1,
        link: Some(LinkType::Ethernet),
        data: &data,
        wire_len: data.len() as u32,
        time: Timestamp::from_nanos(0),
        decimals: 3,
        recorded: None,
    };
    judge.judge(frame, &mut |_| {});
}

/// The rules that admitted the flows, and the places of the flows' interfaces.
fn admitted_by(judge: &Judge) -> Vec<(String, Option<usize>)> {
    let pipeline = judge.pipeline();
    let all = 0..pipeline.connections().places();
    let flows = pipeline.flows(all, Timestamp::from_nanos(1));
    let mut found: Vec<_> = flows.map(|f| (f.rule.text.clone(), f.interface)).collect();
    found.sort();
    found
}

fn text(port: u16) -> String {
    format!("udp {port} from 203.0.113.0/24")
}

#[test]
fn flows_are_named_by_the_rule_of_their_time_in_every_pipeline() {
    let config = Config { max_flows: 10, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let both = ["a", "b"];
    let models = [
        policy(&both, &[53, 123]),
        policy(&both, &[123, 161, 53]),
        policy(&["b", "a"], &[161]),
        policy(&both, &[53, 123]),
    ];
    let first = Arc::new(CompiledPolicy::compile(&models[0], Generation(0)));
    let mut policies = vec![(Arc::clone(&first), Names::new(&first))];
    for (model, generation) in models[1..].iter().zip(1..) {
        let (before, names) = policies.last().unwrap();
        let policy = Arc::new(before.recompile(model, Generation(generation)));
        let names = names.after(before, &policy);
        policies.push((policy, names));
    }

    // One pipeline makes its names itself, the others are given them; one misses policies.
    let judge = || Judge::new(Pipeline::new(Arc::clone(&first), config), Attribution::default());
    let (mut alone, mut given, mut late) = (judge(), judge(), judge());
    for judge in [&mut alone, &mut given, &mut late] {
        send(judge, "udp 203.0.113.1:1 -> 10.0.1.10:53");
    }
    for (step, (policy, names)) in policies.iter().enumerate().skip(1) {
        alone.set_policy(Arc::clone(policy), Attribution::default());
        given.take_over(Arc::clone(policy), names.clone(), Attribution::default());
        if step == 3 {
            late.take_over(Arc::clone(policy), names.clone(), Attribution::default());
        }
        if step == 1 {
            for judge in [&mut alone, &mut given] {
                send(judge, "udp 203.0.113.1:2 -> 10.0.1.11:161");
            }
        }
        // In the third policy the interfaces have changed places.
        let (a, b) = if step == 2 { (1, 0) } else { (0, 1) };
        let expected = [(text(161), Some(b)), (text(53), Some(a))];
        assert_eq!(admitted_by(&alone), expected, "{step}");
        assert_eq!(admitted_by(&given), expected, "{step}");
    }
    assert_eq!(admitted_by(&late), [(text(53), Some(0))]);
    send(&mut late, "udp 203.0.113.1:3 -> 10.0.1.10:123");
    assert_eq!(admitted_by(&late), [(text(123), Some(0)), (text(53), Some(0))]);
}
