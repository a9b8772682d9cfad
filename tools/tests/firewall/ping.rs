//! Ping, allowed one way by rule and answered by tracking, in both families.

use crate::clients::{is_silent, reach};
use crate::lab::{INSTANCE, INSTANCE_V6, Lab, Rules, WORLD, WORLD_V6, can_run};

#[test]
fn ping_is_allowed_in_and_not_out() {
    if !can_run("ping_is_allowed_in_and_not_out", &[]) {
        return;
    }
    let rules = Rules {
        ingress: r#"
  { protocol = "icmp", type = 8, cidr = "203.0.113.0/24" },
  { protocol = "icmpv6", type = 128, cidr = "2001:db8:9::/48" },"#,
        egress: "",
        ..Rules::NEW
    };
    let lab = Lab::new("pingin", &rules, &[]);
    reach(&lab.world, INSTANCE, "");
    reach(&lab.world, INSTANCE_V6, "");
    // From another address than the rule's, and the other way.
    assert!(is_silent(&lab.world, INSTANCE, "-I 10.0.2.20"));
    assert!(is_silent(&lab.instance, WORLD, ""));
    assert!(is_silent(&lab.instance, WORLD_V6, ""));
    assert!(lab.firewall.dropped("no-rule") >= 6);
    assert!(lab.firewall.passed("reply") >= 2);
}

#[test]
fn ping_is_allowed_out_and_not_in() {
    if !can_run("ping_is_allowed_out_and_not_in", &[]) {
        return;
    }
    let lab = Lab::new("pingout", &Rules::NEW, &[]);
    reach(&lab.instance, WORLD, "");
    reach(&lab.instance, WORLD_V6, "");
    assert!(is_silent(&lab.world, INSTANCE, ""));
    assert!(is_silent(&lab.world, INSTANCE_V6, ""));
    assert_eq!(lab.firewall.dropped("no-rule"), 4);
}
