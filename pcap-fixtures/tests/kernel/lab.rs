//! A namespace that forwards between two TAP interfaces, by the rules that it is given.
//!
//! What is written to a TAP interface has been forwarded, or not, when the write returns, so packets
//! are judged in the order in which they are sent.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use sgwall_netio::device::tap::{Tap, TapOptions};
use sgwall_netio::device::{Device, Frames, VnetHeader};
use sgwall_netio::netns::Scratch;
use sgwall_packet::Direction;
use sgwall_packet::build::{checksum, ethernet};

use crate::nft::Devices;

/// The device behind which the instance is, and the one towards the network.
const INSTANCE: &str = "inst";
const NETWORK: &str = "net";
pub(crate) const DEVICES: Devices<'static> = Devices { instance: INSTANCE, network: NETWORK };

/// Notes which packets the kernel's tracking calls invalid, by the tag that they bear; made once.
const SEEN: &str = "
table inet seen {
  set invalid4 { typeof ip id; flags dynamic; size 65535; }
  set invalid6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
  chain note {
    type filter hook prerouting priority -150;
    ct state invalid meta nfproto ipv4 update @invalid4 { ip id }
    ct state invalid meta nfproto ipv6 update @invalid6 { ip6 flowlabel }
  }
}
";

/// The MAC address that [`ethernet`] sends to.
const MAC: &str = "02:00:00:00:00:02";
const MTU: u32 = 65_521;

pub(crate) struct Lab {
    namespace: Scratch,
    instance: Box<dyn Device>,
    network: Box<dyn Device>,
}

impl Lab {
    /// The instance's addresses are 10.200.0.0/17 and 2001:db8:0:1::/80.
    pub(crate) fn new() -> Self {
        let namespace = Scratch::new("judge").expect("a namespace");
        let settings = [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/dad_transmits", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            // No connection is picked up in the middle (6.9), none is held to its window (7.7).
            ("netfilter/nf_conntrack_tcp_loose", "0"),
            ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
            ("netfilter/nf_conntrack_checksum", "0"),
        ];
        // No entry ends while a sequence runs, however busy the machine is.
        let states = ["syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack"];
        let timeouts =
            states.iter().chain(&["time_wait", "close", "unacknowledged", "max_retrans"]);
        let timeouts = timeouts.map(|state| format!("tcp_timeout_{state}"));
        let others = ["udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout"];
        let others = others.iter().chain(&["generic_timeout"]).map(|&name| name.to_owned());
        let timeouts: Vec<String> = timeouts.chain(others).collect();
        let set = || {
            let timeouts =
                timeouts.iter().map(|name| (format!("netfilter/nf_conntrack_{name}"), "3600"));
            let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value));
            for (name, value) in settings.chain(timeouts) {
                let path = format!("/proc/sys/net/{name}");
                fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        };
        // The settings of tracking are there once it is used.
        nft(&namespace, SEEN);
        namespace.inside(set).expect("the namespace");
        let open = |name: &str| -> Box<dyn Device> {
            let options = TapOptions { offload: false, mtu: Some(MTU), ..TapOptions::new(name) };
            let tap = namespace.inside(|| Tap::open(&options)).expect("the namespace");
            let queue = tap.expect("a TAP").queues.remove(0);
            Box::new(queue)
        };
        let (instance, network) = (open(INSTANCE), open(NETWORK));
        for (device, n) in [(INSTANCE, 1), (NETWORK, 2)] {
            let commands = [
                format!("link set {device} down"),
                format!("link set {device} address {MAC}"),
                format!("link set {device} txqueuelen 4000 up"),
                format!(
                    "neigh add 169.254.0.{n} lladdr 02:00:00:00:00:01 dev {device} nud permanent"
                ),
                format!("neigh add fe80::{n} lladdr 02:00:00:00:00:01 dev {device} nud permanent"),
            ];
            commands.iter().for_each(|command| namespace.ip(command).expect("an interface"));
        }
        for (to, n, device) in [
            ("10.200.0.0/17", 1, INSTANCE),
            ("2001:db8:0:1::/80", 1, INSTANCE),
            ("0.0.0.0/0", 2, NETWORK),
            ("::/0", 2, NETWORK),
        ] {
            let via =
                if to.contains(':') { format!("fe80::{n}") } else { format!("169.254.0.{n}") };
            namespace
                .ip(&format!("route add {to} via {via} dev {device} onlink"))
                .expect("a route");
        }
        Lab { namespace, instance, network }
    }

    /// Puts rules in place of those before.
    pub(crate) fn load(&self, commands: &str) {
        nft(&self.namespace, commands);
    }

    /// Sends packets in order, tagged with their place and `first`; the tags of those that came out
    /// at the other side.
    pub(crate) fn send(&mut self, packets: &[(Direction, Vec<u8>)], first: u32) -> HashSet<u32> {
        let mut passed = HashSet::new();
        for ((direction, packet), tag) in packets.iter().zip(first..) {
            let (from, to) = match direction {
                Direction::Ingress => (&mut self.network, &mut self.instance),
                Direction::Egress => (&mut self.instance, &mut self.network),
            };
            let mut frames = Frames::new();
            let n = frames.push(&ethernet(&tagged(packet, tag)), VnetHeader::default());
            let sent = from.send(&mut frames, &[n]).expect("the TAP takes frames");
            assert_eq!(sent.frames, 1, "{sent:?}");
            receive(to.as_mut(), &mut passed);
        }
        // Nothing is on its way any more; if it were, it would come now.
        std::thread::sleep(Duration::from_millis(2));
        receive(self.network.as_mut(), &mut passed);
        receive(self.instance.as_mut(), &mut passed);
        passed
    }

    /// The tags of packets that tracking has called invalid since the last time.
    pub(crate) fn invalid(&self) -> HashSet<u32> {
        let mut command = self.namespace.command("nft");
        let output = command.args(["-j", "list", "table", "inet", "seen"]).output().expect("nft");
        let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON of nft");
        let sets = listed["nftables"].as_array().into_iter().flatten();
        let elements = sets.filter_map(|object| object["set"]["elem"].as_array()).flatten();
        let tags = elements.map(|element| {
            let value = element.get("elem").map_or(element, |element| &element["val"]);
            value.as_u64().unwrap_or_else(|| panic!("an element: {element}")) as u32
        });
        let tags = tags.collect();
        nft(&self.namespace, "flush set inet seen invalid4\nflush set inet seen invalid6\n");
        tags
    }
}

fn nft(namespace: &Scratch, commands: &str) {
    let mut command = namespace.command("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nft");
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft: {said}\n{commands}");
}

fn receive(device: &mut dyn Device, into: &mut HashSet<u32>) {
    let mut frames = Frames::new();
    loop {
        frames.clear();
        let more = device.receive(&mut frames).expect("the TAP gives frames");
        into.extend((0..frames.len()).filter_map(|n| tag(frames.bytes(n).get(14..)?)));
        if !more {
            return;
        }
    }
}

/// The packet with `tag` as its identification (IPv4) or flow label (IPv6).
fn tagged(packet: &[u8], tag: u32) -> Vec<u8> {
    let mut packet = packet.to_vec();
    match packet[0] >> 4 {
        4 => {
            packet[4..6].copy_from_slice(&(tag as u16).to_be_bytes());
            packet[10..12].fill(0);
            let len = usize::from(packet[0] & 15) * 4;
            let sum = checksum(&[&packet[..len]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        _ => packet[1..4].copy_from_slice(&tag.to_be_bytes()[1..]),
    }
    packet
}

fn tag(packet: &[u8]) -> Option<u32> {
    match packet.first()? >> 4 {
        4 => Some(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]).into()),
        6 => Some(u32::from_be_bytes([0, packet[1] & 15, packet[2], packet[3]])),
        _ => None,
    }
}
