//! The live path over real interfaces: TAP and packet sockets in network namespaces of their own.
//!
//! Needs root, iproute2, ping, ethtool and setpriv. Where one is missing the tests say so and pass,
//! unless `SGWALL_LIVE=required`.

// Tests of input and output look at the clock.
#![allow(clippy::disallowed_methods)]

#[path = "live/lab.rs"]
mod lab;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sgwall_netio::clock::Clock;
use sgwall_netio::device::packet::{Packet, PacketOptions};
use sgwall_netio::device::tap::{Tap, TapOptions};
use sgwall_netio::device::vnet::{PartialChecksum, SegmentKind, Segmentation};
use sgwall_netio::device::{Device, DeviceError, Frames, Interface, VnetHeader};
use sgwall_netio::netns::Scratch;
use sgwall_netio::worker::{
    Handler, NullForwarder, Output, Plan, PortStats, WorkerFailure, Workers,
};
use sgwall_packet::build::{self, IpFields, TcpFields};
use sgwall_packet::{TcpFlags, Timestamp};

use lab::{A, B, Hosts, can_run};

/// Long enough for any machine; a test that works never waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// `n` bytes that differ from place to place.
fn pattern(n: usize) -> Vec<u8> {
    (0..n as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(n).collect()
}

/// Waits until `to` answers: a link that has just come up loses frames for a while.
fn reach(from: &Scratch, to: &str) {
    let begin = Instant::now();
    loop {
        let output = from.command("ping").args(["-c", "1", "-W", "1", to]).output();
        if output.expect("ping ran").status.success() {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{to} does not answer");
    }
}

/// Pings thrice; every answer must come.
fn ping(from: &Scratch, to: &str, more: &[&str]) {
    reach(from, to);
    let mut command = from.command("ping");
    let output = command.args(["-c", "3", "-i", "0.05", "-W", "5"]).args(more).arg(to).output();
    let output = output.expect("ping ran");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" 0% packet loss"), "{text}");
}

/// Sends `len` bytes from one host to the other over TCP, and compares what arrives.
fn transfer(hosts: &Hosts, len: usize, port_of: Ipv4Addr) {
    let listener = hosts.b.inside(|| TcpListener::bind((port_of, 0)));
    let listener = listener.expect("namespace").expect("a listener");
    let address = listener.local_addr().expect("its address");
    let data = pattern(len);
    let received = thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut received = Vec::new();
            stream.read_to_end(&mut received).expect("all of it");
            received
        });
        let connect = || TcpStream::connect_timeout(&address, PATIENCE);
        let mut stream = hosts.a.inside(connect).expect("namespace").expect("connected");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&data).expect("sent");
        drop(stream);
        server.join().expect("the server")
    });
    assert_eq!(received.len(), data.len());
    assert!(received == data, "the bytes differ");
}

fn sum<H>(workers: &Workers<H>, port: usize) -> PortStats {
    let counters = workers.counters().iter();
    counters.fold(PortStats::default(), |sum, ports| sum.plus(ports[port].read()))
}

/// Stops the workers, none of which may have failed, and says what they counted on both ports.
fn finish<H: Handler + 'static>(workers: Workers<H>) -> [PortStats; 2] {
    let counters = workers.counters().to_vec();
    for ended in workers.join() {
        ended.result.expect("stopped when told to");
    }
    [0, 1].map(|port| {
        counters.iter().fold(PortStats::default(), |sum, ports| sum.plus(ports[port].read()))
    })
}

#[test]
fn ping_and_bulk_cross_two_taps() {
    if !can_run("ping_and_bulk_cross_two_taps") {
        return;
    }
    for (queues, offload, mtu) in
        [(1, true, 1500), (1, false, 1500), (2, true, 9001), (2, false, 9001)]
    {
        let hosts = Hosts::new("bulk");
        let taps = hosts.taps(queues, offload, mtu);
        for tap in &taps {
            assert_eq!((tap.interface.mtu, tap.interface.is_up), (mtu, true));
            assert_eq!(tap.queues.len(), queues);
            assert_eq!(tap.granted.checksum, offload);
        }
        let workers = lab::forward(taps, || NullForwarder);
        ping(&hosts.a, B, &[]);
        ping(&hosts.b, "fd99::1", &[]);
        // The largest packet, unfragmented.
        ping(&hosts.a, B, &["-M", "do", "-s", &(mtu - 28).to_string()]);
        let whole = sum(&workers, 0);
        transfer(&hosts, 20_000_000, B.parse().expect("an address"));
        let after = sum(&workers, 0);
        let (frames, bytes) = (after.rx_frames - whole.rx_frames, after.rx_bytes - whole.rx_bytes);
        // With offload the frames are super-frames, without none is longer than the MTU.
        let largest = u64::from(mtu) + 14;
        assert_eq!(bytes / frames.max(1) > largest, offload, "{bytes} bytes in {frames} frames");
        for port in finish(workers) {
            let bad = (port.rx_truncated, port.rx_bad_offload, port.tx_refused, port.tx_full);
            assert_eq!(bad, (0, 0, 0, 0), "{port:?}");
        }
    }
}

#[test]
fn several_queues_all_carry_traffic() {
    if !can_run("several_queues_all_carry_traffic") {
        return;
    }
    let hosts = Hosts::new("queues");
    let workers = lab::forward(hosts.taps(2, true, 1500), || NullForwarder);
    for _ in 0..24 {
        transfer(&hosts, 1000, B.parse().expect("an address"));
    }
    let each: Vec<u64> = workers.counters().iter().map(|ports| ports[0].read().rx_frames).collect();
    assert!(each.iter().all(|frames| *frames > 0), "frames of each queue: {each:?}");
}

#[test]
fn a_device_without_offload_gets_segments_and_whole_checksums() {
    if !can_run("a_device_without_offload_gets_segments_and_whole_checksums") {
        return;
    }
    let hosts = Hosts::new("mixed");
    let taps = [hosts.tap(&hosts.a, 1, true, 1500), hosts.tap(&hosts.b, 1, false, 1500)];
    let workers = lab::forward(taps, || NullForwarder);
    ping(&hosts.a, B, &[]);
    transfer(&hosts, 5_000_000, B.parse().expect("an address"));
    let [_, out] = finish(workers);
    assert!(out.tx_segmented > 0, "{out:?}");
    assert!(out.tx_checksums > 0, "{out:?}");
    assert!(out.tx_frames > out.tx_segmented * 2, "{out:?}");
    assert_eq!((out.tx_refused, out.tx_bad_offload), (0, 0));
}

/// Sends datagrams of `size` bytes with UDP segmentation offload, and checks that each arrives.
fn udp_segments(hosts: &Hosts, from: &str, to: &str) {
    const SIZE: usize = 1000;
    const COUNT: usize = 30;
    let server = hosts.b.inside(|| UdpSocket::bind((to, 0))).expect("namespace").expect("bound");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = server.local_addr().expect("its address");
    let client = hosts.a.inside(|| UdpSocket::bind((from, 0))).expect("namespace").expect("bound");
    lab::set_udp_segment(client.as_fd(), SIZE as i32);
    let data = pattern(SIZE * COUNT - 17);
    client.send_to(&data, address).expect("a super-frame is sent");
    let mut received: Vec<u8> = Vec::new();
    let mut buffer = [0; 65_536];
    while received.len() < data.len() {
        let len = server.recv(&mut buffer).expect("a datagram");
        assert!(len == SIZE || received.len() + len == data.len(), "a datagram of {len} bytes");
        received.extend(&buffer[..len]);
    }
    assert!(received == data, "the bytes differ");
}

#[test]
fn udp_super_frames_cross_whole_and_cut() {
    if !can_run("udp_super_frames_cross_whole_and_cut") {
        return;
    }
    for offload_out in [true, false] {
        let hosts = Hosts::new("uso");
        let tap = hosts.tap(&hosts.a, 1, true, 1500);
        assert!(tap.granted.udp, "this kernel grants no UDP offload: {}", tap.granted);
        let taps = [tap, hosts.tap(&hosts.b, 1, offload_out, 1500)];
        let workers = lab::forward(taps, || NullForwarder);
        ping(&hosts.a, B, &[]);
        ping(&hosts.a, "fd99::2", &[]);
        udp_segments(&hosts, A, B);
        udp_segments(&hosts, "fd99::1", "fd99::2");
        let [into, out] = finish(workers);
        assert!(into.rx_bytes > 2 * 29_000, "{into:?}");
        assert_eq!(out.tx_segmented, if offload_out { 0 } else { 2 });
        assert_eq!(out.tx_refused, 0);
    }
}

/// A tagged super-frame of TCP: 4,000 bytes in segments of 1,000.
fn tagged_super_frame() -> (Vec<u8>, VnetHeader) {
    let [src, dst] = [A, B].map(|a| a.parse().expect("an address"));
    let fields = TcpFields { flags: TcpFlags::ACK, ..TcpFields::default() };
    let tcp = build::tcp(src, dst, &fields, &pattern(4000));
    let frame = build::ethernet(&build::ip(src, dst, 6, IpFields::default(), &tcp));
    let segmentation = Segmentation { kind: SegmentKind::TcpV4, size: 1000, ecn: false };
    let checksum = PartialChecksum { start: 38, offset: 16 };
    let header = VnetHeader { checksum: Some(checksum), segmentation: Some(segmentation) };
    (tagged(&frame, &[[0x81, 0x00, 0x60, 0x2a]]), header)
}

/// A frame with VLAN tags put behind its MAC addresses.
fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], tags.as_flattened(), &frame[12..]].concat()
}

#[test]
fn vlan_tags_survive_taps_and_packet_sockets() {
    if !can_run("vlan_tags_survive_taps_and_packet_sockets") {
        return;
    }
    let [src, dst] = [A, B].map(|a| a.parse().expect("an address"));
    let udp = build::udp(src, dst, (1000, 2000), &pattern(100));
    let plain = build::ethernet(&build::ip(src, dst, 17, IpFields::default(), &udp));
    let none = VnetHeader::default();
    let sent = [
        (tagged(&plain, &[[0x81, 0x00, 0xe0, 0x2a]]), none),
        (tagged(&plain, &[[0x88, 0xa8, 0x00, 0x07], [0x81, 0x00, 0x0f, 0xff]]), none),
        tagged_super_frame(),
    ];
    for is_packet in [false, true] {
        let hosts = Hosts::new("vlan");
        let one = lab::one_queue(hosts.tap(&hosts.a, 1, true, 1500));
        let (other, _middle) = if is_packet {
            let (packet, middle) = hosts.veth(1, true);
            (lab::one_packet_queue(packet), Some(middle))
        } else {
            (lab::one_queue(hosts.tap(&hosts.b, 1, true, 1500)), None)
        };
        let plan = Plan { devices: vec![one, other], handler: NullForwarder };
        let workers = Workers::spawn(Clock::new(), vec![plan]).expect("a worker");
        // Until both links are up for good.
        ping(&hosts.a, B, &[]);
        let mut sockets = [Hosts::socket(&hosts.a), Hosts::socket(&hosts.b)];
        for (from, to) in [(0, 1), (1, 0)] {
            for (frame, header) in &sent {
                let mut frames = Frames::new();
                frames.push(frame, *header);
                let took = sockets[from].send(&mut frames, &[0]).expect("sent");
                assert_eq!(took.frames, 1, "{took:?}");
                let (got, left) = received(sockets[to].as_mut(), |got| got[..6] == frame[..6]);
                assert!(got == *frame, "sent {frame:02x?}\n got {got:02x?}");
                assert_eq!(left, *header);
            }
        }
        assert_eq!(finish(workers).map(|port| port.tx_refused), [0, 0]);
    }
}

/// The next frame that `is_it`, among whatever else hosts say to each other.
fn received(device: &mut dyn Device, is_it: impl Fn(&[u8]) -> bool) -> (Vec<u8>, VnetHeader) {
    let begin = Instant::now();
    let mut frames = Frames::new();
    while begin.elapsed() < PATIENCE {
        frames.clear();
        device.receive(&mut frames).expect("received");
        if let Some(k) = (0..frames.len()).find(|&k| is_it(frames.bytes(k))) {
            return (frames.bytes(k).to_vec(), frames.header(k));
        }
        thread::yield_now();
    }
    panic!("the frame did not come");
}

#[test]
fn a_packet_socket_carries_traffic_of_a_veth() {
    if !can_run("a_packet_socket_carries_traffic_of_a_veth") {
        return;
    }
    for (queues, offload) in [(1, true), (2, true), (1, false)] {
        let hosts = Hosts::new("veth");
        let tap = hosts.tap(&hosts.a, queues, offload, 1500);
        let (packet, _middle) = hosts.veth(queues, offload);
        assert_eq!(packet.queues.len(), queues);
        let plans = tap.queues.into_iter().zip(packet.queues).map(|(a, b)| {
            let devices: Vec<Box<dyn Device>> = vec![Box::new(a), Box::new(b)];
            Plan { devices, handler: NullForwarder }
        });
        let workers = Workers::spawn(Clock::new(), plans.collect()).expect("workers");
        ping(&hosts.a, B, &[]);
        ping(&hosts.b, "fd99::1", &[]);
        transfer(&hosts, 5_000_000, B.parse().expect("an address"));
        let [tap, veth] = finish(workers);
        assert_eq!((tap.tx_refused, veth.tx_refused, veth.rx_bad_offload), (0, 0, 0));
        // Our own frames did not come back: what the TAP was given is what the veth received.
        assert!(veth.rx_frames >= tap.tx_frames && veth.tx_frames <= tap.rx_frames);
        let is_long = veth.tx_bytes / veth.tx_frames > 1514;
        assert_eq!(is_long, offload, "{veth:?}");
    }
}

/// Waits for the workers to fail, and says why they did.
fn failure(workers: Workers<NullForwarder>) -> WorkerFailure {
    assert!(workers.wait(PATIENCE), "no worker noticed");
    let ended = workers.join();
    ended.into_iter().find_map(|ended| ended.result.err()).expect("a worker failed")
}

#[test]
fn an_interface_deleted_while_in_use_ends_the_worker() {
    if !can_run("an_interface_deleted_while_in_use_ends_the_worker") {
        return;
    }
    for under_load in [false, true] {
        let hosts = Hosts::new("gone");
        let workers = lab::forward(hosts.taps(1, true, 1500), || NullForwarder);
        ping(&hosts.a, B, &[]);
        thread::scope(|scope| {
            if under_load {
                // Datagrams to a port where nobody listens, until the interface is gone.
                scope.spawn(|| {
                    let socket = hosts.a.inside(|| UdpSocket::bind((A, 0)));
                    let socket = socket.expect("namespace").expect("bound");
                    let begin = Instant::now();
                    while begin.elapsed() < Duration::from_millis(500) {
                        let _ = socket.send_to(&[0; 64], (B, 9));
                    }
                });
                thread::sleep(Duration::from_millis(100));
            }
            hosts.b.ip("link del net0").expect("deleted");
            match failure(workers) {
                WorkerFailure::Device(DeviceError::Gone { name }) => assert_eq!(name, "net0"),
                other => panic!("{other:?}"),
            }
        });
    }
    let hosts = Hosts::new("gone");
    let tap = hosts.tap(&hosts.a, 1, true, 1500);
    let (packet, middle) = hosts.veth(1, true);
    let devices = vec![lab::one_queue(tap), lab::one_packet_queue(packet)];
    let plan = Plan { devices, handler: NullForwarder };
    let workers = Workers::spawn(Clock::new(), vec![plan]).expect("a worker");
    ping(&hosts.a, B, &[]);
    middle.ip("link del veth0").expect("deleted");
    match failure(workers) {
        WorkerFailure::Device(DeviceError::Gone { name }) => assert_eq!(name, "veth0"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_interface_that_is_down_drops_and_comes_back() {
    if !can_run("an_interface_that_is_down_drops_and_comes_back") {
        return;
    }
    for is_packet in [false, true] {
        let hosts = Hosts::new("down");
        let one = lab::one_queue(hosts.tap(&hosts.a, 1, true, 1500));
        let (other, middle) = if is_packet {
            let (packet, middle) = hosts.veth(1, true);
            (lab::one_packet_queue(packet), Some(middle))
        } else {
            (lab::one_queue(hosts.tap(&hosts.b, 1, true, 1500)), None)
        };
        let plan = Plan { devices: vec![one, other], handler: NullForwarder };
        let workers = Workers::spawn(Clock::new(), vec![plan]).expect("a worker");
        ping(&hosts.a, B, &[]);
        let (owner, name) = middle.as_ref().map_or((&hosts.b, "net0"), |m| (m, "veth0"));
        owner.ip(&format!("link set {name} down")).expect("down");
        let lost = hosts.a.command("ping").args(["-c", "1", "-W", "1", B]).output();
        assert!(!lost.expect("ping").status.success());
        // A neighbour that is not reached any more is asked for: those frames find it down.
        hosts.a.ip("neighbour flush all").expect("flushed");
        let _ = hosts.a.command("ping").args(["-c", "1", "-W", "1", B]).output();
        assert!(sum(&workers, 1).tx_down > 0, "{:?}", sum(&workers, 1));
        owner.ip(&format!("link set {name} up")).expect("up");
        if !is_packet {
            hosts.b.ip("address replace fd99::2/64 dev net0 nodad").expect("an address");
        }
        ping(&hosts.a, B, &[]);
        assert!(!workers.wait(Duration::ZERO), "a worker ended");
    }
}

#[test]
fn a_persistent_tap_is_attached_to_and_stays() {
    if !can_run("a_persistent_tap_is_attached_to_and_stays") {
        return;
    }
    let scratch = Scratch::new("stay").expect("a namespace");
    scratch.ip("tuntap add dev keep0 mode tap").expect("a persistent TAP");
    scratch.ip("link set keep0 address 02:00:00:00:00:42").expect("its address");
    let options = TapOptions { mtu: Some(1400), ..TapOptions::new("keep0") };
    let try_open = |options: &TapOptions| scratch.inside(|| Tap::open(options)).expect("namespace");
    let open = |options: &TapOptions| {
        eventually(|| match try_open(options) {
            Err(DeviceError::Busy { .. }) => None,
            opened => Some(opened.expect("a TAP")),
        })
    };
    let tap = open(&options);
    assert_eq!((tap.interface.mac, tap.interface.mtu), ([2, 0, 0, 0, 0, 0x42], 1400));
    // Nobody else can have it meanwhile.
    assert!(matches!(try_open(&options), Err(DeviceError::Busy { .. })));
    drop(tap);
    // Offload is forgotten by who does not want it: nobody would cut the super-frames.
    let cuts = || {
        let output = scratch.command("ethtool").args(["-k", "keep0"]).output().expect("ethtool");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().any(|line| line.starts_with("tcp-segmentation-offload: on"))
    };
    assert!(cuts(), "offload was granted");
    let tap = open(&TapOptions { offload: false, ..options });
    assert!(!cuts());
    drop(tap);
    let find = |name: &str| scratch.inside(|| Interface::find(name)).expect("namespace");
    assert_eq!(find("keep0").expect("it stays").mac, [2, 0, 0, 0, 0, 0x42]);
    // One that we made goes, unless it is to stay.
    let goes = |name| {
        eventually(|| matches!(find(name), Err(DeviceError::NotFound { .. })).then_some(()));
    };
    drop(open(&TapOptions::new("made0")));
    goes("made0");
    let stay = TapOptions { persistent: Some(true), ..TapOptions::new("made1") };
    drop(open(&stay));
    find("made1").expect("it stays");
    let go = TapOptions { persistent: Some(false), ..stay };
    drop(open(&go));
    goes("made1");
}

/// Asks until there is an answer. A descriptor that we close lives on in the child that another
/// test has just forked, until that becomes another program.
fn eventually<T>(ask: impl Fn() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "no answer");
        thread::yield_now();
    }
}

#[test]
fn what_cannot_be_opened_says_why_and_the_mend() {
    if !can_run("what_cannot_be_opened_says_why_and_the_mend") {
        return;
    }
    let scratch = Scratch::new("bad").expect("a namespace");
    scratch.ip("tuntap add dev one0 mode tap").expect("a TAP of one queue");
    scratch.ip("tuntap add dev tun0 mode tun").expect("a TUN");
    scratch.ip("link add veth0 type veth peer name veth1").expect("a veth");
    let open = |options: TapOptions| {
        let opened = scratch.inside(|| Tap::open(&options)).expect("namespace");
        opened.expect_err("it cannot be opened").to_string()
    };
    let several = |name| TapOptions { queues: 2, ..TapOptions::new(name) };
    for (error, words) in [
        (open(several("one0")), "not a TAP interface of several queues; delete it (ip link del"),
        (open(TapOptions::new("tun0")), "not a TAP interface of one queue"),
        (open(TapOptions::new("veth0")), "not a TAP interface of one queue"),
        (open(TapOptions::new("a-name-of-16-byt")), "more than 15 bytes; use 1-15 letters"),
        (open(TapOptions { queues: 0, ..TapOptions::new("x0") }), "0 queues; use 1 to 256"),
        (open(TapOptions { mtu: Some(9), ..TapOptions::new("x0") }), "no MTU of 9; use 68 to"),
    ] {
        assert!(error.contains(words), "{error}");
    }
    let packet = |name: &str| {
        let opened = scratch.inside(|| Packet::open(&PacketOptions::new(name))).expect("namespace");
        opened.expect_err("it cannot be opened").to_string()
    };
    for (error, words) in [
        (packet("none0"), "there is no interface none0 in this network namespace; ip link"),
        (packet("lo"), "hardware type 772; only Ethernet"),
        (packet("tun0"), "hardware type 65534; only Ethernet"),
    ] {
        assert!(error.contains(words), "{error}");
    }
}

/// Set where the test below runs itself again, without privileges.
const CHILD: &str = "SGWALL_TEST_WITHOUT_PRIVILEGES";

#[test]
fn without_privileges_the_mend_is_named() {
    if std::env::var_os(CHILD).is_some() {
        let tap = Tap::open(&TapOptions::new("nope0")).expect_err("no privileges");
        let veth = Packet::open(&PacketOptions::new("veth0")).expect_err("no privileges");
        println!("TAP: {tap}\nPACKET: {veth}");
        return;
    }
    if !can_run("without_privileges_the_mend_is_named") {
        return;
    }
    let scratch = Scratch::new("caps").expect("a namespace");
    scratch.ip("link add veth0 type veth peer name veth1").expect("a veth");
    let program = std::env::current_exe().expect("this program");
    let mut command: Command = scratch.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
    command.arg(&program).args(["without_privileges_the_mend_is_named", "--exact", "--nocapture"]);
    command.env(CHILD, "1");
    let output = command.output().expect("setpriv ran");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    for (label, capability) in [("TAP: ", "CAP_NET_ADMIN"), ("PACKET: ", "CAP_NET_RAW")] {
        let line = text.lines().find_map(|line| line.split_once(label)).map(|(_, rest)| rest);
        let line = line.unwrap_or_else(|| panic!("{text}\n{errors}"));
        assert!(line.contains("no permission") && line.contains(capability), "{line}");
    }
}

/// Every frame carries its sequence number; the handler checks that none overtakes another.
#[derive(Clone, Default)]
struct Ordered(Arc<Mutex<Vec<u32>>>);

impl Handler for Ordered {
    fn batch(&mut self, now: Timestamp, port: usize, frames: &mut Frames, out: &mut Output) {
        if let Ok(mut seen) = self.0.lock() {
            for k in 0..frames.len() {
                // Behind Ethernet, IPv4 and UDP.
                let payload = frames.bytes(k).get(42..).and_then(|p| p.first_chunk::<8>());
                if let Some([b'#', b'#', b'#', b'#', n @ ..]) = payload.copied() {
                    seen.push(u32::from_be_bytes(n));
                }
            }
        }
        NullForwarder.batch(now, port, frames, out);
    }

    fn idle(&mut self, _now: Timestamp, _out: &mut Output) {}
}

#[test]
fn datagrams_of_a_flow_keep_their_order() {
    if !can_run("datagrams_of_a_flow_keep_their_order") {
        return;
    }
    const COUNT: u32 = 2000;
    let hosts = Hosts::new("order");
    let seen = Ordered::default();
    let handler = seen.clone();
    let _workers = lab::forward(hosts.taps(2, true, 1500), move || handler.clone());
    ping(&hosts.a, B, &[]);
    let server = hosts.b.inside(|| UdpSocket::bind((B, 0))).expect("namespace").expect("bound");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = server.local_addr().expect("its address");
    let client = hosts.a.inside(|| UdpSocket::bind((A, 0))).expect("namespace").expect("bound");
    let mut buffer = [0; 64];
    for n in 0..COUNT {
        let datagram = [&b"####"[..], &n.to_be_bytes()].concat();
        client.send_to(&datagram, address).expect("sent");
        // Not more under way than any queue holds.
        if n >= 100 {
            server.recv(&mut buffer).expect("a datagram");
            assert_eq!(buffer[4..8], (n - 100).to_be_bytes());
        }
    }
    let seen = seen.0.lock().expect("no handler panicked");
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}
