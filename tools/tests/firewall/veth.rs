//! The network behind an interface that exists, a veth, which the firewall neither makes nor changes.

use sgwall_netio::netns::Scratch;

use crate::clients::{Http, PAGE, curl, reach, run, transfer};
use crate::lab::{
    Firewall, INSTANCE, INSTANCE_V6, PATIENCE, Rules, WORLD, can_run, move_to, set_up_instance,
    set_up_world,
};
use crate::stream::Stream;

#[test]
fn a_veth_leads_to_the_network() {
    if !can_run("a_veth_leads_to_the_network", &["curl", "ethtool"]) {
        return;
    }
    let devices = r#"
[[port]]
device = "tap-i"
interface = "eni-1"

[[port]]
device = "veth-n"
kind = "existing"
"#;
    let by_flags = ["--interface", "eni-1", "--instance", "tap-i", "--network", "packet:veth-n"];
    let by_policy: [&str; 0] = [];
    let more: [(&str, &[&str], &[&str]); 3] = [
        (devices, &by_policy, &[]),
        ("", &by_flags, &["--workers", "2"]),
        ("", &by_flags, &["--no-offload"]),
    ];
    for (ports, args, more) in more {
        let rules = Rules {
            ingress: r#"{ protocol = "tcp", ports = 80, cidr = "0.0.0.0/0" }"#,
            interface: ports,
            ..Rules::NEW
        };
        let [instance, world, middle] = [(); 3].map(|()| Scratch::new("veth").expect("one"));
        middle.ip("link add veth-n type veth peer name net0").expect("a veth");
        middle.ip("link set veth-n up").expect("up");
        let firewall = Firewall::start(&middle, &rules.text(), &[args, more].concat());
        move_to(&middle, "tap-i", &instance);
        move_to(&middle, "net0", &world);
        set_up_instance(&instance, "tap-i", INSTANCE, INSTANCE_V6);
        set_up_world(&world, "net0");
        if more.contains(&"--no-offload") {
            // Nobody finishes a veth's checksums, unless the sender does.
            assert!(run(&world, "ethtool -K net0 tx off").status.success());
        }
        reach(&instance, WORLD, "");
        let _open = Http::serve(&instance, &format!("{INSTANCE}:80"));
        let _closed = Http::serve(&instance, &format!("{INSTANCE}:8080"));
        let get = |port: u16| curl(&world, &format!("http://{INSTANCE}:{port}/"), "1");
        assert_eq!(get(80), Ok(format!("{PAGE}\n200")));
        assert_eq!(get(8080), Err(Some(28)));
        let received = transfer(&instance, &world, &format!("{WORLD}:0"), 5_000_000, PATIENCE);
        assert_eq!(received, 5_000_000);
        assert!(firewall.dropped("no-rule") >= 1);
        drop(firewall);
        // It is there as it was, and nothing passes.
        middle.ip("link show dev veth-n up").expect("it is there");
        assert!(curl(&world, &format!("http://{INSTANCE}/"), "1").is_err());
    }
}

#[test]
fn a_veth_that_goes_ends_the_firewall() {
    if !can_run("a_veth_that_goes_ends_the_firewall", &[]) {
        return;
    }
    let rules =
        Rules { ingress: r#"{ protocol = "tcp", ports = 80, cidr = "0.0.0.0/0" }"#, ..Rules::NEW };
    let [instance, world, middle] = [(); 3].map(|()| Scratch::new("vethend").expect("one"));
    middle.ip("link add veth-n type veth peer name net0").expect("a veth");
    let args = ["--interface", "eni-1", "--instance", "tap-i", "--network", "packet:veth-n"];
    let mut firewall = Firewall::start(&middle, &rules.text(), &args);
    move_to(&middle, "tap-i", &instance);
    move_to(&middle, "net0", &world);
    set_up_instance(&instance, "tap-i", INSTANCE, INSTANCE_V6);
    set_up_world(&world, "net0");
    let stream = Stream::start(&world, &instance, INSTANCE, 80);
    stream.goes_on();
    middle.ip("link del veth-n").expect("a veth of ours");
    assert_eq!(firewall.wait().code(), Some(1));
    assert!(firewall.log().contains("interface veth-n is gone"), "{}", firewall.log());
    stream.is_cut();
}
