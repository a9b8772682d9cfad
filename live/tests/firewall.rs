//! A firewall without devices or clocks: frames in at a port, and what comes out where.

use std::sync::Arc;

use sgwall_dataplane::{Config, DropReason, FullTable, PassReason};
use sgwall_live::{Firewall, Port, Shared, Snapshot};
use sgwall_netio::device::vnet::{PartialChecksum, SegmentKind, Segmentation};
use sgwall_netio::device::{Frames, VnetHeader};
use sgwall_netio::worker::{Handler, Output};
use sgwall_packet::{Frame, LinkType, Mac, PacketSpec, Timestamp, parse};
use sgwall_rules::compile::Generation;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Vlans;

const POLICY: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "s"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
[[security_group]]
id = "sg-1"
ingress = [
  { protocol = "tcp", ports = 80, cidr = "203.0.113.0/24" },
  { protocol = "udp", ports = 53, cidr = "10.0.0.0/16" },
  { protocol = "icmp", type = 3, code = 4, cidr = "10.0.1.1/32" },
]
[[interface]]
id = "eni-a"
subnet = "s"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
mac = "02:00:00:00:00:0a"
[[interface]]
id = "eni-b"
subnet = "s"
addresses = ["10.0.1.20"]
security_groups = ["sg-1"]
"#;

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const ROUTER: Mac = [2, 0, 0, 0, 0, 1];
const BROADCAST: Mac = [0xff; 6];
const NOWHERE: [usize; 0] = [];
/// Port numbers.
const PORT_A: usize = 0;
const PORT_B: usize = 1;
const NETWORK: usize = 2;

struct World {
    shared: Arc<Shared>,
    firewall: Firewall,
    out: Output,
    now: Timestamp,
}

fn ports() -> Vec<Port> {
    [Some("eni-a"), Some("eni-b"), None]
        .iter()
        .enumerate()
        .map(|(n, interface)| Port {
            device: format!("tap{n}"),
            interface: interface.map(str::to_owned),
            vlans: if n == NETWORK { Vlans::Only(vec![7]) } else { Vlans::None },
        })
        .collect()
}

fn snapshot(text: &str, generation: u32) -> Snapshot {
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    let model = load(&[input]).expect("a good policy").policy;
    Snapshot::new(Arc::new(model), Generation(generation), &ports())
}

fn world_of(workers: usize) -> World {
    world_with(POLICY, workers)
}

fn world_with(policy: &str, workers: usize) -> World {
    let config =
        Config { max_flows: 1000, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let shared = Arc::new(Shared::new(ports(), snapshot(policy, 0), workers, config));
    World {
        firewall: Firewall::new(Arc::clone(&shared), 0),
        shared,
        out: Output::new(3),
        now: Timestamp::from_secs(1000),
    }
}

fn world() -> World {
    world_of(1)
}

/// A frame from one MAC address to another.
fn frame((dst, src): (Mac, Mac), packet: &str) -> Vec<u8> {
    let mut frame =
        packet.parse::<PacketSpec>().unwrap_or_else(|e| panic!("{packet}: {e}")).to_frame();
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
    frame
}

impl World {
    /// Hands over a batch; what is sent, as port and frame.
    fn batch(&mut self, port: usize, batch: &[(Vec<u8>, VnetHeader)]) -> Vec<(usize, Vec<u8>)> {
        let mut frames = Frames::new();
        for (frame, header) in batch {
            frames.push(frame, *header);
        }
        self.firewall.batch(self.now, port, &mut frames, &mut self.out);
        let sent = self.out.take_sent(&frames);
        sent.into_iter().map(|(port, frame, _)| (port, frame)).collect()
    }

    /// Hands over one frame; the ports that it goes to, unchanged.
    fn goes_to(&mut self, port: usize, frame: &[u8]) -> Vec<usize> {
        let sent = self.batch(port, &[(frame.to_vec(), VnetHeader::default())]);
        for (_, sent) in &sent {
            assert_eq!(sent, frame);
        }
        sent.iter().map(|(port, _)| *port).collect()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let mut packets = 0;
        self.shared.with_shards(|judge, _| {
            packets += judge.pipeline().counters().dropped(reason).packets;
        });
        packets
    }

    fn passed(&self, reason: PassReason) -> u64 {
        let mut packets = 0;
        self.shared.with_shards(|judge, _| {
            packets += judge.pipeline().counters().passed(reason).packets;
        });
        packets
    }

    fn flows(&self) -> usize {
        let mut flows = 0;
        self.shared.with_shards(|judge, _| {
            flows += judge.pipeline().connections().iter(self.now).count();
        });
        flows
    }
}

#[test]
fn what_rules_allow_passes_both_ways_and_nothing_else() {
    for workers in [1, 2, 3] {
        let mut world = world_of(workers);
        let syn = frame((A, ROUTER), "tcp 203.0.113.1:5000 -> 10.0.1.10:80 S");
        assert_eq!(world.goes_to(NETWORK, &syn), [PORT_A]);
        let answer = frame((ROUTER, A), "tcp 10.0.1.10:80 -> 203.0.113.1:5000 SA");
        assert_eq!(world.goes_to(PORT_A, &answer), [NETWORK]);
        let other = frame((A, ROUTER), "tcp 203.0.113.1:5001 -> 10.0.1.10:81 S");
        assert_eq!(world.goes_to(NETWORK, &other), NOWHERE);
        assert_eq!(world.dropped(DropReason::NoRule), 1);
        // Outbound is open, and answers come back.
        let query = frame((ROUTER, A), "udp 10.0.1.10:4000 -> 198.51.100.1:53");
        assert_eq!(world.goes_to(PORT_A, &query), [NETWORK]);
        let reply = frame((A, ROUTER), "udp 198.51.100.1:53 -> 10.0.1.10:4000");
        assert_eq!(world.goes_to(NETWORK, &reply), [PORT_A]);
        assert_eq!(world.flows(), 2);
    }
}

/// Workers share flows: a packet of a flow may come on any worker's queue.
#[test]
fn any_worker_knows_every_flow() {
    let mut world = world_of(4);
    let mut another = Firewall::new(Arc::clone(&world.shared), 3);
    for n in 0..64 {
        let syn = frame((A, ROUTER), &format!("tcp 203.0.113.{n}:5000 -> 10.0.1.10:80 S"));
        assert_eq!(world.goes_to(NETWORK, &syn), [PORT_A]);
        let answer = frame((ROUTER, A), &format!("tcp 10.0.1.10:80 -> 203.0.113.{n}:5000 SA"));
        let mut frames = Frames::new();
        frames.push(&answer, VnetHeader::default());
        another.batch(world.now, PORT_A, &mut frames, &mut world.out);
        assert_eq!(world.out.take_sent(&frames).len(), 1);
    }
    assert_eq!((world.flows(), world.passed(PassReason::Reply)), (64, 64));
}

#[test]
fn what_an_instance_sends_is_its_own() {
    let mut world = world();
    let spoofed = frame((ROUTER, A), "udp 10.0.1.20:4000 -> 198.51.100.1:53");
    assert_eq!(world.goes_to(PORT_A, &spoofed), NOWHERE);
    assert_eq!(world.dropped(DropReason::SrcDstCheck), 1);
    let other_mac = frame((ROUTER, B), "udp 10.0.1.10:4000 -> 198.51.100.1:53");
    assert_eq!(world.goes_to(PORT_A, &other_mac), NOWHERE);
    let from_outside = frame((B, A), "udp 10.0.1.10:4000 -> 10.0.1.20:53");
    assert_eq!(world.goes_to(NETWORK, &from_outside), NOWHERE);
    assert_eq!(world.dropped(DropReason::MacCheck), 2);
    let not_for_us = frame((ROUTER, B), "udp 203.0.113.1:4000 -> 10.0.9.9:53");
    assert_eq!(world.goes_to(NETWORK, &not_for_us), NOWHERE);
    assert_eq!(world.dropped(DropReason::NotServed), 1);
}

/// Between two instances both sides are judged, and the frame goes straight across if its MAC
/// address says so; else it is for the router, and comes back through the network.
#[test]
fn two_instances_are_judged_on_both_sides() {
    let mut world = world();
    // Nobody knows b's MAC address before b has sent anything.
    let hello = frame((ROUTER, B), "udp 10.0.1.20:4000 -> 198.51.100.1:53");
    assert_eq!(world.goes_to(PORT_B, &hello), [NETWORK]);
    let allowed = frame((B, A), "udp 10.0.1.10:4000 -> 10.0.1.20:53");
    assert_eq!(world.goes_to(PORT_A, &allowed), [PORT_B]);
    assert_eq!(world.flows(), 3);
    let refused = frame((B, A), "udp 10.0.1.10:4000 -> 10.0.1.20:54");
    assert_eq!(world.goes_to(PORT_A, &refused), NOWHERE);
    assert_eq!(world.dropped(DropReason::NoRule), 1);
    let answer = frame((A, B), "udp 10.0.1.20:53 -> 10.0.1.10:4000");
    assert_eq!(world.goes_to(PORT_B, &answer), [PORT_A]);
    let routed = frame((ROUTER, A), "udp 10.0.1.10:4001 -> 10.0.1.20:53");
    assert_eq!(world.goes_to(PORT_A, &routed), [NETWORK]);
    let back = frame((B, ROUTER), "udp 10.0.1.10:4001 -> 10.0.1.20:53");
    assert_eq!(world.goes_to(NETWORK, &back), [PORT_B]);
}

#[test]
fn what_was_found_of_a_frame_is_not_taken_for_another() {
    let links = [(A, ROUTER), (B, ROUTER), (BROADCAST, ROUTER), (ROUTER, A)];
    let packets = [
        "tcp 203.0.113.9:1000 -> 10.0.1.10:80 S",
        "tcp 203.0.113.9:1000 -> 10.0.1.20:80 S",
        "udp 10.0.1.20:53 -> 10.0.1.10:53",
        "udp 10.0.1.10:53 -> 10.0.1.20:53",
        "udp 203.0.113.9:53 -> 10.0.9.9:53",
    ];
    let frames: Vec<_> =
        links.iter().flat_map(|link| packets.map(|packet| frame(*link, packet))).collect();
    // Whose MAC address is whose is seen from what they send.
    let policy = POLICY.replace("mac = ", "# mac = ");
    let plain = |frame: &Vec<u8>| (frame.clone(), VnetHeader::default());
    let mut passed = 0;
    for first in &frames {
        for second in &frames {
            for port in [PORT_A, PORT_B, NETWORK] {
                let mut together = world_with(&policy, 1);
                let sent = handled_afresh(&policy, &[(port, first), (port, second)]);
                assert_eq!(together.batch(port, &[plain(first), plain(second)]), sent);
                passed += sent.len();
            }
        }
    }
    assert!(passed > 500, "{passed} frames went anywhere");

    // Between two batches from one port another instance may show the same MAC address.
    let from_b = frame((ROUTER, B), packets[2]);
    let [to_a, to_b] = [packets[0], packets[1]].map(|packet| frame((B, ROUTER), packet));
    let steps = [
        (PORT_B, &from_b),
        (NETWORK, &to_b),
        (NETWORK, &to_a),
        (PORT_A, &from_b),
        (NETWORK, &to_a),
    ];
    let mut world = world_with(&policy, 1);
    let sent: Vec<_> =
        steps.iter().flat_map(|(port, frame)| world.batch(*port, &[plain(frame)])).collect();
    assert_eq!(sent, handled_afresh(&policy, &steps));
    assert!(sent.contains(&(PORT_A, to_a)), "{sent:?}");
}

/// What is sent of frames on their ports, each handled by somebody who has seen none before.
fn handled_afresh(policy: &str, steps: &[(usize, &Vec<u8>)]) -> Vec<(usize, Vec<u8>)> {
    let mut world = world_with(policy, 1);
    let mut sent = Vec::new();
    for (port, frame) in steps {
        world.firewall = Firewall::new(Arc::clone(&world.shared), 0);
        sent.extend(world.batch(*port, &[((*frame).clone(), VnetHeader::default())]));
    }
    sent
}

fn arp((dst, src): (Mac, Mac), operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&dst[..], &src, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &src, &sender, &[0; 6], &target]
        .concat()
}

#[test]
fn arp_goes_where_it_is_asked_for() {
    let mut world = world();
    let (a, b, router) = ([10, 0, 1, 10], [10, 0, 1, 20], [10, 0, 1, 1]);
    assert_eq!(world.goes_to(PORT_A, &arp((BROADCAST, A), 1, a, router)), [NETWORK]);
    assert_eq!(world.goes_to(PORT_A, &arp((BROADCAST, A), 1, a, b)), [PORT_B]);
    assert_eq!(world.goes_to(PORT_B, &arp((A, B), 2, b, a)), [PORT_A]);
    assert_eq!(world.goes_to(NETWORK, &arp((BROADCAST, ROUTER), 1, router, b)), [PORT_B]);
    assert_eq!(world.goes_to(NETWORK, &arp((A, ROUTER), 2, router, a)), [PORT_A]);
    // Whoever tells of itself tells everybody.
    assert_eq!(
        world.goes_to(NETWORK, &arp((BROADCAST, ROUTER), 1, router, router)),
        [PORT_A, PORT_B]
    );
    assert_eq!(world.goes_to(PORT_A, &arp((BROADCAST, A), 1, a, a)), [PORT_B, NETWORK]);
    // Nobody speaks for another.
    assert_eq!(world.goes_to(PORT_A, &arp((BROADCAST, A), 2, b, b)), NOWHERE);
    assert_eq!(world.goes_to(NETWORK, &arp((BROADCAST, ROUTER), 2, a, a)), [PORT_B]);
    assert_eq!(world.dropped(DropReason::ArpInvalid), 2);
    assert_eq!(
        world.goes_to(NETWORK, &arp((BROADCAST, ROUTER), 1, router, [10, 0, 1, 99])),
        NOWHERE
    );
}

#[test]
fn neighbour_discovery_reaches_all_and_nobody_plays_the_router() {
    let mut world = world();
    let all: Mac = [0x33, 0x33, 0, 0, 0, 1];
    let advertisement = frame((all, ROUTER), "icmpv6 fe80::1 -> ff02::1 134/0 ttl=255 len=8");
    assert_eq!(world.goes_to(NETWORK, &advertisement), [PORT_A, PORT_B]);
    let rogue = frame((all, A), "icmpv6 fe80::10 -> ff02::1 134/0 ttl=255 len=8");
    assert_eq!(world.goes_to(PORT_A, &rogue), NOWHERE);
    assert_eq!(world.dropped(DropReason::NeighbourInvalid), 1);
    let solicitation = frame((all, A), "icmpv6 2001:db8:0:1::10 -> ff02::1 135/0 ttl=255 len=16");
    assert_eq!(world.goes_to(PORT_A, &solicitation), [NETWORK, PORT_B]);
    assert_eq!(
        world.goes_to(NETWORK, &frame((all, ROUTER), "udp 10.0.1.1:5353 -> 224.0.0.251:5353")),
        NOWHERE
    );
    assert_eq!(world.dropped(DropReason::Unsupported), 2);
}

/// The answer of the DHCP server may be for everybody.
#[test]
fn dhcp_passes() {
    let mut world = world();
    let discover = frame((BROADCAST, A), "udp 0.0.0.0:68 -> 255.255.255.255:67");
    assert_eq!(world.goes_to(PORT_A, &discover), [NETWORK]);
    let offer = frame((BROADCAST, ROUTER), "udp 10.0.1.1:67 -> 255.255.255.255:68");
    assert_eq!(world.goes_to(NETWORK, &offer), [PORT_A, PORT_B]);
}

#[test]
fn what_is_no_packet_and_what_is_tagged_drops() {
    let mut world = world();
    let lldp = [&[0x01u8, 0x80, 0xc2, 0, 0, 0x0e][..], &A, &[0x88, 0xcc, 0, 0]].concat();
    assert_eq!(world.goes_to(PORT_A, &lldp), NOWHERE);
    assert_eq!(world.dropped(DropReason::NotIp), 1);
    let plain = frame((A, ROUTER), "tcp 203.0.113.1:5000 -> 10.0.1.10:80 S");
    let tagged = |id: u8| [&plain[..12], &[0x81, 0, 0, id], &plain[12..]].concat();
    assert_eq!(world.goes_to(NETWORK, &tagged(8)), NOWHERE);
    assert_eq!(world.dropped(DropReason::VlanTag), 1);
    assert_eq!(world.goes_to(NETWORK, &tagged(7)), [PORT_A]);
    for len in 0..plain.len() - 1 {
        assert_eq!(world.goes_to(NETWORK, &plain[..len]), NOWHERE, "{len} bytes");
    }
    assert_eq!(world.dropped(DropReason::Malformed), plain.len() as u64 - 1);
}

fn ip_len(frame: &[u8]) -> u32 {
    match parse(LinkType::Ethernet, frame, frame.len()) {
        Ok(Frame::Ip(headers)) => headers.ip_len,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_does_not_fit_is_cut_or_answered() {
    let mut world = world();
    let large = frame((ROUTER, A), "udp 10.0.1.10:4000 -> 203.0.113.1:53 len=1972");
    let sent = world.batch(PORT_A, &[(large, VnetHeader::default())]);
    let sizes: Vec<_> = sent.iter().map(|(port, frame)| (*port, ip_len(frame))).collect();
    assert_eq!(sizes, [(NETWORK, 1500), (NETWORK, 520)]);

    let must_not = frame((ROUTER, A), "udp 10.0.1.10:4000 -> 203.0.113.1:53 len=1972 df");
    let sent = world.batch(PORT_A, &[(must_not, VnetHeader::default())]);
    let [(PORT_A, answer)] = &sent[..] else { panic!("{sent:?}") };
    // From the router, to the instance: fragmentation needed, 1500.
    assert_eq!((&answer[..6], &answer[6..12]), (&A[..], &ROUTER[..]));
    assert_eq!((answer[34], answer[35], &answer[40..42]), (3, 4, &1500u16.to_be_bytes()[..]));
    assert_eq!(world.dropped(DropReason::MtuExceeded), 1);
}

/// A TCP super-frame of `payload` bytes, to be cut into segments of `size`, its checksum begun.
fn super_frame(payload: u16, size: u16, df: &str) -> (Vec<u8>, VnetHeader) {
    let text = format!("tcp 10.0.1.10:80 -> 203.0.113.1:5000 A len={payload} {df}");
    let frame = frame((ROUTER, A), &text);
    let header = VnetHeader {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size, ecn: false }),
    };
    (frame, header)
}

/// Super-frames are judged by the size of their segments, and go on whole.
#[test]
fn super_frames_are_judged_by_their_segments() {
    let mut world = world();
    let (fits, header) = super_frame(30_000, 1460, "df");
    let mut frames = Frames::new();
    frames.push(&fits, header);
    world.firewall.batch(world.now, PORT_A, &mut frames, &mut world.out);
    assert_eq!(world.out.take_sent(&frames), [(NETWORK, fits, header)]);

    let sent = world.batch(PORT_A, &[super_frame(30_000, 1461, "df")]);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1[34]), (PORT_A, 3));

    // Each segment of 2001 bytes payload is cut into two, and all of them are whole packets.
    let sent = world.batch(PORT_A, &[super_frame(6003, 2001, "")]);
    let sizes: Vec<_> = sent.iter().map(|(port, frame)| (*port, ip_len(frame))).collect();
    assert_eq!(sizes, [(NETWORK, 1500), (NETWORK, 561)].repeat(3));
}

/// A checksum that is only begun is completed before the packet is cut.
#[test]
fn an_unfinished_checksum_is_completed_before_cutting() {
    let mut world = world();
    let whole = frame((ROUTER, A), "udp 10.0.1.10:4000 -> 203.0.113.1:53 len=1972");
    let finished = world.batch(PORT_A, &[(whole.clone(), VnetHeader::default())]);
    let mut begun = whole;
    // What a guest leaves in the field: the sum of the pseudo-header.
    let sum: u32 = [0x0a00, 0x010a, 0xcb00, 0x7101, 17, 1980].iter().sum();
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    begun[40..42].copy_from_slice(&folded.to_be_bytes());
    let header =
        VnetHeader { checksum: Some(PartialChecksum { start: 34, offset: 6 }), segmentation: None };
    assert_eq!(world.batch(PORT_A, &[(begun, header)]), finished);
}

/// Later fragments wait for the first; those that wait in vain are told of by the idle worker.
#[test]
fn fragments_wait_for_the_first() {
    let mut world = world();
    let mac = (A, ROUTER);
    let first = frame(mac, "udp 10.0.9.9:4000 -> 10.0.1.10:53 len=64 frag=7:0+");
    let later = frame(mac, "udp 10.0.9.9:4000 -> 10.0.1.10:53 len=80 frag=7:72");
    assert_eq!(world.goes_to(NETWORK, &later), NOWHERE);
    let sent = world.batch(NETWORK, &[(first.clone(), VnetHeader::default())]);
    assert_eq!(sent, [(PORT_A, first), (PORT_A, later.clone())]);

    let orphan = frame(mac, "udp 10.0.9.9:4000 -> 10.0.1.10:53 len=80 frag=8:72");
    assert_eq!(world.goes_to(NETWORK, &orphan), NOWHERE);
    world.now = Timestamp::from_secs(1002);
    world.firewall.idle(world.now, &mut world.out);
    assert_eq!(world.dropped(DropReason::FragmentOrphan), 1);
}

/// A fragment that is cut on its way out and then held by the interface it is for leaves nothing
/// behind that could go where the next frame goes.
#[test]
fn what_is_held_leaves_nothing_behind() {
    let mut world = world();
    world.shared.set_snapshot(snapshot(
        &POLICY.replace("addresses = [\"10.0.1.20\"]", "mtu = 1500\naddresses = [\"10.0.1.20\"]"),
        1,
    ));
    let hello = frame((ROUTER, B), "udp 10.0.1.20:4000 -> 198.51.100.1:53");
    assert_eq!(world.goes_to(PORT_B, &hello), [NETWORK]);
    // The first fragment of a datagram from a to b passes a, and b refuses it; of another one only
    // a later fragment comes, which a has seen the first of and b has not.
    let first = frame((ROUTER, A), "udp 10.0.1.10:4000 -> 10.0.1.20:53 len=2040 frag=7:0+");
    assert_eq!(world.batch(PORT_A, &[(first, VnetHeader::default())]).len(), 2);
    let later = frame((B, A), "udp 10.0.1.10:4000 -> 10.0.1.20:53 len=2000 frag=7:2048");
    assert_eq!(world.batch(PORT_A, &[(later, VnetHeader::default())]), []);
    let next = frame((ROUTER, A), "udp 10.0.1.10:4001 -> 203.0.113.1:53 len=1972");
    let sent = world.batch(PORT_A, &[(next, VnetHeader::default())]);
    let ports: Vec<_> = sent.iter().map(|(port, frame)| (*port, ip_len(frame))).collect();
    assert_eq!(ports, [(NETWORK, 1500), (NETWORK, 520)]);
}

/// A policy is swapped whole: the next batch is judged by it, tracked flows stay, and an interface
/// that is gone passes nothing.
#[test]
fn a_new_policy_takes_over_at_once() {
    let mut world = world_of(2);
    let syn = |port: u16| frame((A, ROUTER), &format!("tcp 203.0.113.1:{port} -> 10.0.1.10:80 S"));
    assert_eq!(world.goes_to(NETWORK, &syn(5000)), [PORT_A]);
    let closed =
        POLICY.replace("{ protocol = \"tcp\", ports = 80, cidr = \"203.0.113.0/24\" },", "");
    world.shared.set_snapshot(snapshot(&closed, 1));
    assert_eq!(world.goes_to(NETWORK, &syn(5001)), NOWHERE);
    let data = frame((A, ROUTER), "tcp 203.0.113.1:5000 -> 10.0.1.10:80 A len=10");
    assert_eq!(world.goes_to(NETWORK, &data), [PORT_A]);

    let without_b = &closed[..closed.rfind("[[interface]]").unwrap()];
    world.shared.set_snapshot(snapshot(without_b, 2));
    let from_b = frame((ROUTER, B), "udp 10.0.1.20:4000 -> 198.51.100.1:53");
    assert_eq!(world.goes_to(PORT_B, &from_b), NOWHERE);
    assert_eq!(world.dropped(DropReason::NotServed), 1);
    assert_eq!(world.goes_to(NETWORK, &data), [PORT_A]);
    world.shared.set_snapshot(snapshot(POLICY, 3));
    assert_eq!(world.goes_to(PORT_B, &from_b), [NETWORK]);
}

/// What is not watched costs nothing; what is, is shown, and what nobody reads in time is counted.
#[test]
fn verdicts_are_shown_to_whoever_watches() {
    let mut world = world();
    let syn =
        |port: u16| frame((A, ROUTER), &format!("tcp 203.0.113.1:5000 -> 10.0.1.10:{port} S"));
    world.goes_to(NETWORK, &syn(80));
    assert_eq!(world.shared.tracer.next(), None);
    world.shared.tracer.start("verdict=drop port=81".parse().unwrap());
    for port in [80, 81, 82] {
        world.goes_to(NETWORK, &syn(port));
    }
    let record = world.shared.tracer.next().expect("a record");
    assert_eq!(record.tuple.map(|tuple| tuple.dst_port), Some(81));
    assert_eq!(record.verdict.reason(), "no-rule");
    assert_eq!(world.shared.tracer.next(), None);
    for _ in 0..5000 {
        world.goes_to(NETWORK, &syn(81));
    }
    assert_eq!(world.shared.tracer.take_lost(), 5000 - 4096);
    world.shared.tracer.stop();
    assert_eq!(world.shared.tracer.next(), None);
}

/// The clock of a live firewall does not step (`sgwall_netio::clock`). If it did, by an hour back or
/// forward, no flow would end before its time, and nothing would pass that must not.
#[test]
fn a_step_of_time_ends_no_flow_early_and_opens_nothing() {
    for step in [-3600, 3600] {
        let mut world = world();
        world.now = Timestamp::from_secs(1_000_000);
        let out = |packet: &str| frame((ROUTER, A), packet);
        let back = |packet: &str| frame((A, ROUTER), packet);
        let answer = back("tcp 203.0.113.1:443 -> 10.0.1.10:5000 A seq=501 ack=101 len=100");
        let other = back("tcp 203.0.113.1:444 -> 10.0.1.10:5000 A len=100");
        let syn_ack = back("tcp 203.0.113.1:443 -> 10.0.1.10:5000 SA seq=500 ack=101");
        assert_eq!(world.goes_to(NETWORK, &syn_ack), NOWHERE);
        for (port, sent, to) in [
            (PORT_A, out("tcp 10.0.1.10:5000 -> 203.0.113.1:443 S seq=100"), NETWORK),
            (NETWORK, syn_ack, PORT_A),
            (PORT_A, out("tcp 10.0.1.10:5000 -> 203.0.113.1:443 A seq=101 ack=501"), NETWORK),
            (NETWORK, answer.clone(), PORT_A),
        ] {
            assert_eq!(world.goes_to(port, &sent), [to]);
        }
        for _ in 0..2 {
            world.now = Timestamp::from_secs(1_000_000 + step);
            world.firewall.idle(world.now, &mut world.out);
            assert_eq!(world.goes_to(NETWORK, &answer), [PORT_A], "{step}");
            assert_eq!(world.goes_to(NETWORK, &other), NOWHERE, "{step}");
            assert_eq!(world.flows(), 1);
            world.now = Timestamp::from_secs(1_000_000);
            world.firewall.idle(world.now, &mut world.out);
            assert_eq!(world.goes_to(NETWORK, &answer), [PORT_A], "{step}");
        }
        // And it ends when it has been silent for so long, whatever happened before.
        let five_days = std::time::Duration::from_secs(432_000);
        world.now = world.now.after(five_days);
        assert_eq!(world.goes_to(NETWORK, &answer), NOWHERE);
    }
}
