//! Two instances behind one firewall: what passes between them is judged on both sides, and neither
//! can pretend to be the other.

use std::time::Duration;

use sgwall_netio::netns::Scratch;

use crate::clients::{
    Http, PAGE, at, connect, curl, is_silent, reach, receive, run, send_frame, udp,
};
use crate::lab::{
    Firewall, INSTANCE, INSTANCE_V6, PEER, Rules, WORLD, can_run, eventually, move_to,
    set_up_instance, set_up_world, text,
};
use crate::stream::Stream;

/// The second instance.
const OTHER: &str = "10.0.1.20";
const OTHER_V6: &str = "2001:db8:0:1::20";

/// Two instances of one subnet, each behind its own TAP, and the world behind a third.
struct Two {
    firewall: Firewall,
    one: Scratch,
    other: Scratch,
    world: Scratch,
    _middle: Scratch,
}

/// `eni-1` in `sg-1`, which may speak to members of `sg-2` as `egress` says; `eni-2` in `sg-2`,
/// which lets in what `ingress` says.
fn policy(egress: &str, ingress: &str) -> String {
    let more = format!(
        r#"
[[security_group]]
id = "sg-2"
ingress = [{ingress}]

[[interface]]
id = "eni-2"
subnet = "subnet-1"
addresses = ["{OTHER}", "{OTHER_V6}"]
security_groups = ["sg-2"]

[[port]]
device = "tap-1"
interface = "eni-1"

[[port]]
device = "tap-2"
interface = "eni-2"

[[port]]
device = "tap-n"
"#
    );
    Rules { egress, interface: &more, ..Rules::NEW }.text()
}

/// What `sg-1` may send: HTTP and ping to members of `sg-2`, and UDP to anywhere.
const EGRESS: &str = r#"
  { protocol = "tcp", ports = "80-81", group = "sg-2" },
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", type = 128, cidr = "::/0" },
  { protocol = "udp", ports = "all", cidr = "0.0.0.0/0" },"#;
/// What `sg-2` lets in: HTTP and ping, from members of `sg-1`.
const INGRESS: &str = r#"
  { protocol = "tcp", ports = 80, group = "sg-1" },
  { protocol = "tcp", ports = 82, group = "sg-1" },
  { protocol = "icmp", type = 8, group = "sg-1" },
  { protocol = "icmpv6", type = 128, group = "sg-1" },"#;

impl Two {
    fn new(label: &str, args: &[&str]) -> Two {
        let [one, other, world, middle] =
            [(); 4].map(|()| Scratch::new(label).expect("a namespace"));
        let firewall = Firewall::start(&middle, &policy(EGRESS, INGRESS), args);
        move_to(&middle, "tap-1", &one);
        move_to(&middle, "tap-2", &other);
        move_to(&middle, "tap-n", &world);
        set_up_instance(&one, "tap-1", INSTANCE, INSTANCE_V6);
        set_up_instance(&other, "tap-2", OTHER, OTHER_V6);
        set_up_world(&world, "tap-n");
        Two { firewall, one, other, world, _middle: middle }
    }

    /// Drops on the side of an interface, in a direction that a trace shows.
    fn dropped_at(&self, interface: &str, reason: &str) -> u64 {
        let stats = self.firewall.stats();
        let reasons = stats["reasons"].as_array().expect("reasons");
        let meant = reasons.iter().filter(|of| {
            of["verdict"] == "drop" && of["reason"] == reason && of["interface"] == interface
        });
        meant.map(|of| of["packets"].as_u64().expect("a number")).sum()
    }
}

#[test]
fn both_sides_judge_what_passes_between_two() {
    if !can_run("both_sides_judge_what_passes_between_two", &["curl"]) {
        return;
    }
    for args in [&[][..], &["--workers", "2"], &["--no-offload"]] {
        let two = Two::new("two", args);
        reach(&two.one, OTHER, "");
        reach(&two.one, OTHER_V6, "");
        // Other may ping by its egress, and one lets nothing in.
        assert!(is_silent(&two.other, INSTANCE, ""));
        assert!(is_silent(&two.other, INSTANCE_V6, ""));
        assert_eq!(two.dropped_at("eni-1", "no-rule"), 4);
        let servers = [80, 81, 82].map(|port| Http::serve(&two.other, &format!("[::]:{port}")));
        let get = |from, port| curl(from, &format!("http://{OTHER}:{port}/"), "1");
        assert_eq!(get(&two.one, 80), Ok(format!("{PAGE}\n200")));
        // 81 is refused where it arrives, 82 where it leaves.
        let before = ["eni-1", "eni-2"].map(|interface| two.dropped_at(interface, "no-rule"));
        assert_eq!(get(&two.one, 81), Err(Some(28)));
        let after = ["eni-1", "eni-2"].map(|interface| two.dropped_at(interface, "no-rule"));
        assert_eq!((after[0], after[1] > before[1]), (before[0], true));
        assert_eq!(get(&two.one, 82), Err(Some(28)));
        let last = ["eni-1", "eni-2"].map(|interface| two.dropped_at(interface, "no-rule"));
        assert_eq!((last[0] > after[0], last[1]), (true, after[1]));
        // The world is no member of sg-1.
        assert_eq!(get(&two.world, 80), Err(Some(28)));

        drop(servers);
        // Each side tracks for itself: the transfer outlives the rules of both.
        let stream = Stream::start(&two.one, &two.other, OTHER, 80);
        stream.goes_on();
        let interfaces = ["eni-1", "eni-2"].map(|interface| {
            two.firewall.flows(&[&format!("interface={interface}"), "state=established"]).len()
        });
        assert_eq!(interfaces, [1, 1]);
        two.firewall.reload(&policy("", ""));
        stream.goes_on();
        assert_eq!(get(&two.one, 80), Err(Some(28)));
        // Ended on one side, it is over.
        let ended = two.firewall.ask(&["flows", "kill", "interface=eni-2", "protocol=tcp"]);
        assert!(ended.contains("flows ended") && !ended.starts_with("0 "), "{ended}");
        stream.is_cut();
    }
}

/// The MAC address of a device, as `ip` shows it.
fn mac(host: &Scratch, device: &str) -> String {
    let shown = text(&run(host, &format!("ip -o link show {device}")).stdout);
    let after = shown.split_once("link/ether ").expect("a MAC address").1;
    after.split(' ').next().expect("a MAC address").to_owned()
}

/// An ARP packet to everybody, in hexadecimal: operation 1 asks, 2 answers.
fn arp(operation: u8, mac: &str, sender: &str, target: &str) -> String {
    let mac = mac.replace(':', "");
    let hex = |address: &str| {
        let octets = address.parse::<std::net::Ipv4Addr>().expect("an address").octets();
        octets.map(|octet| format!("{octet:02x}")).concat()
    };
    format!(
        "ffffffffffff{mac}0806000108000604{operation:04x}{mac}{}ffffffffffff{}",
        hex(sender),
        hex(target)
    )
}

/// What a host knows of a neighbour.
fn neighbour(host: &Scratch, address: &str) -> String {
    text(&run(host, &format!("ip neigh show {address}")).stdout)
}

#[test]
fn an_address_of_another_cannot_be_claimed() {
    if !can_run("an_address_of_another_cannot_be_claimed", &["python3"]) {
        return;
    }
    let two = Two::new("arp", &[]);
    reach(&two.one, OTHER, "");
    reach(&two.other, WORLD, "");
    let (spoofer, owner) = (mac(&two.one, "tap-1"), mac(&two.other, "tap-2"));
    assert!(neighbour(&two.world, OTHER).contains(&owner), "{}", neighbour(&two.world, OTHER));
    // A claim of the other's address, asked and answered; of the router's; and of a foreign MAC.
    let claims = [
        arp(2, &spoofer, OTHER, OTHER),
        arp(1, &spoofer, OTHER, "10.0.1.1"),
        arp(2, &spoofer, "10.0.1.1", OTHER),
    ];
    for (number, claim) in (1..).zip(&claims) {
        send_frame(&two.one, "tap-1", claim);
        eventually("a drop", || two.dropped_at("eni-1", "arp-invalid") == number);
    }
    assert!(neighbour(&two.world, OTHER).contains(&owner));
    assert!(!neighbour(&two.world, OTHER).contains(&spoofer));
    assert!(!neighbour(&two.other, "10.0.1.1").contains(&spoofer));
    // Its own address it may tell everybody: the same frame, but true, is believed.
    two.one.ip("link set tap-1 address 02:00:00:00:00:77").expect("a TAP of ours");
    assert!(neighbour(&two.other, INSTANCE).contains(&spoofer));
    // Not the first time: for a second after it has learned an address the kernel keeps to it.
    eventually("the news", || {
        send_frame(&two.one, "tap-1", &arp(2, "02:00:00:00:00:77", INSTANCE, INSTANCE));
        neighbour(&two.other, INSTANCE).contains("02:00:00:00:00:77")
    });
    reach(&two.one, OTHER, "");
}

#[test]
fn an_address_of_another_cannot_be_sent_from() {
    if !can_run("an_address_of_another_cannot_be_sent_from", &[]) {
        return;
    }
    let two = Two::new("spoof", &[]);
    reach(&two.one, OTHER, "");
    reach(&two.one, WORLD, "");
    let server = udp(&two.world, &at(WORLD, 0).to_string());
    let to = server.local_addr().expect("its address");
    let own = udp(&two.one, &at(INSTANCE, 0).to_string());
    own.send_to(b"true", to).expect("sent");
    assert_eq!(receive(&server).map(|(bytes, _)| bytes), Some(b"true".to_vec()));
    // The other's address, one of nobody, and one of another subnet.
    for (number, false_source) in (1..).zip([OTHER, "10.0.1.99", PEER]) {
        two.one.ip(&format!("address add {false_source}/32 dev lo")).expect("an address");
        let socket = udp(&two.one, &at(false_source, 0).to_string());
        socket.send_to(b"false", to).expect("sent");
        eventually("a drop", || two.dropped_at("eni-1", "src-dst-check") == number);
        assert_eq!(receive(&server), None);
    }
    // From the world, an instance's own address: it is not where that address is.
    let stranger = connect(&two.world, at(OTHER, 80), Duration::from_millis(300));
    assert!(stranger.is_err());
    reach(&two.one, WORLD, "");
}
