//! A long transfer while the rule that admitted it goes: tracked flows stay, untracked ones end.
//! And the ways to say that a policy has changed.

use std::fs;

use rustix::process::Signal;

use crate::clients::reach;
use crate::lab::{INSTANCE, Lab, Rules, can_run, eventually, text};
use crate::stream::Stream;

/// HTTP from one range, which is tracked (SEMANTICS 6.2), and ping.
const NARROW: Rules<'static> = Rules {
    ingress: r#"
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = 80, cidr = "203.0.113.0/24" },"#,
    ..Rules::NEW
};
/// HTTP from everywhere, which is not.
const WIDE: Rules<'static> = Rules {
    ingress: r#"
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = 80, cidr = "0.0.0.0/0" },"#,
    ..Rules::NEW
};
/// No HTTP.
const CLOSED: Rules<'static> =
    Rules { ingress: r#"{ protocol = "icmp", type = 8, cidr = "0.0.0.0/0" }"#, ..Rules::NEW };

fn tracked_goes_on_and_untracked_ends(label: &str, args: &[&str]) {
    let lab = Lab::new(label, &NARROW, args);
    let tracked = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    tracked.goes_on();
    let said = lab.firewall.reload(&CLOSED.text());
    assert!(said.contains("policy 2 is in force: rules +0 -1"), "{said}");
    assert!(said.contains("it would not admit 1, 0 ended"), "{said}");
    tracked.goes_on();
    let flows = lab.firewall.flows(&["protocol=tcp"]);
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert_eq!((&flows[0]["state"], &flows[0]["generation"]), (&"established".into(), &1.into()));
    drop(tracked);

    lab.firewall.reload(&WIDE.text());
    let untracked = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    untracked.goes_on();
    assert_eq!(lab.firewall.flows(&["protocol=tcp", "state=established"]).len(), 0);
    lab.firewall.reload(&CLOSED.text());
    untracked.is_cut();
    assert!(lab.firewall.dropped("no-rule") > 0);
    // The rule comes back, and so does the transfer.
    lab.firewall.reload(&WIDE.text());
    untracked.goes_on();
}

#[test]
fn a_tracked_transfer_outlives_its_rule() {
    if can_run("a_tracked_transfer_outlives_its_rule", &[]) {
        tracked_goes_on_and_untracked_ends("reload", &[]);
    }
}

#[test]
fn a_tracked_transfer_outlives_its_rule_with_two_workers() {
    if can_run("a_tracked_transfer_outlives_its_rule_with_two_workers", &[]) {
        tracked_goes_on_and_untracked_ends("reload2", &["--workers", "2"]);
    }
}

#[test]
fn rejudging_cuts_a_tracked_transfer() {
    if !can_run("rejudging_cuts_a_tracked_transfer", &[]) {
        return;
    }
    for args in [&["--on-reload", "rejudge"][..], &["--on-reload", "rejudge", "--workers", "2"]] {
        let lab = Lab::new("rejudge", &NARROW, args);
        let tracked = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
        tracked.goes_on();
        // As long as the rules admit it, it stays.
        let said = lab.firewall.reload(&NARROW.text());
        assert!(said.contains("it would not admit 0, 0 ended"), "{said}");
        tracked.goes_on();
        let said = lab.firewall.reload(&CLOSED.text());
        assert!(said.contains("it would not admit 1, 1 ended"), "{said}");
        tracked.is_cut();
        assert_eq!(lab.firewall.flows(&["protocol=tcp"]).len(), 0);
    }
}

#[test]
fn a_signal_or_a_changed_file_reloads() {
    if !can_run("a_signal_or_a_changed_file_reloads", &[]) {
        return;
    }
    for args in [&[][..], &["--watch"]] {
        let lab = Lab::new("reloads", &WIDE, args);
        let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
        stream.goes_on();
        lab.firewall.write_policy(&CLOSED.text());
        if args.is_empty() {
            stream.goes_on();
            lab.firewall.signal(Signal::HUP);
        }
        eventually("policy 2", || lab.firewall.log().contains("policy 2 is in force"));
        stream.is_cut();
        // A broken file is no reason to give up what is in force.
        lab.firewall.write_policy("version = 1\nnonsense");
        if args.is_empty() {
            lab.firewall.signal(Signal::HUP);
        }
        eventually("a warning", || lab.firewall.log().contains("the old policy stays in force"));
        assert!(lab.firewall.log().contains("policy.toml:2"), "{}", lab.firewall.log());
        reach(&lab.world, INSTANCE, "");
        lab.firewall.write_policy(&WIDE.text());
        if args.is_empty() {
            lab.firewall.signal(Signal::HUP);
        }
        eventually("policy 3", || lab.firewall.log().contains("policy 3 is in force"));
        stream.goes_on();
    }
}

#[test]
fn a_policy_that_cannot_be_used_leaves_the_old_one() {
    if !can_run("a_policy_that_cannot_be_used_leaves_the_old_one", &[]) {
        return;
    }
    let lab = Lab::new("badpolicy", &NARROW, &[]);
    let (firewall, policy) = (&lab.firewall, lab.firewall.policy());
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    let refused = |expected: &[&str]| {
        let output = firewall.try_ask(&["reload"]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        for part in expected {
            assert!(errors.contains(part), "{part:?} is not in: {errors}");
        }
        assert_eq!(firewall.stats()["generation"], 1);
        stream.goes_on();
        reach(&lab.world, INSTANCE, "");
    };
    let name = policy.display().to_string();
    // Syntax; a value; a reference. Each is named with its line.
    firewall.write_policy("version = 1\n\nnonsense");
    refused(&[&format!("{name}:3")]);
    let text = NARROW.text().replace("ports = 80", "ports = 80000");
    let line = 1 + text.lines().position(|line| line.contains("80000")).expect("it is there");
    firewall.write_policy(&text);
    refused(&[&format!("{name}:{line}"), "80000"]);
    let text = NARROW.text().replace("groups = [\"sg-1\"]", "groups = [\"sg-2\"]");
    let line = 1 + text.lines().position(|line| line.contains("sg-2")).expect("it is there");
    firewall.write_policy(&text);
    refused(&[&format!("{name}:{line}"), "sg-2"]);
    // A file that cannot be read: it is gone, or a directory without a policy.
    fs::remove_file(&policy).expect("removed");
    refused(&[&format!("cannot read {name}")]);
    fs::create_dir(&policy).expect("made");
    refused(&[&name, "holds no .toml or .json file"]);
    fs::remove_dir(&policy).expect("removed");
    firewall.write_policy(&CLOSED.text());
    assert!(firewall.ask(&["reload"]).contains("policy 2 is in force"));
    stream.goes_on();
}
