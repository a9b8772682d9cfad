//! Workers over devices in memory: order, offload, counters, failures. No root, no kernel device.

// Tests of input and output look at the clock.
#![allow(clippy::disallowed_methods)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use sgwall_netio::clock::Clock;
use sgwall_netio::device::memory::{Peer, pair};
use sgwall_netio::device::offload::Segments;
use sgwall_netio::device::vnet::{PartialChecksum, SegmentKind, Segmentation};
use sgwall_netio::device::{Device, DeviceError, Features, Frames, VnetHeader};
use sgwall_netio::worker::{
    Handler, IDLE, NullForwarder, Output, Plan, PortStats, WorkerFailure, Workers,
};
use sgwall_packet::build::{self, IpFields, TcpFields};
use sgwall_packet::{TcpFlags, Timestamp};

/// Long enough for any machine; a test that works never waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn device(features: Features, capacity: usize) -> (Box<dyn Device>, Peer) {
    let (device, peer) = pair("mem", features, capacity).expect("a device in memory");
    (Box::new(device), peer)
}

/// One worker between two devices in memory.
fn between<H: Handler + 'static>(
    handler: H,
    features: [Features; 2],
    capacity: usize,
) -> (Workers<H>, [Peer; 2]) {
    let [(a, peer_a), (b, peer_b)] = features.map(|features| device(features, capacity));
    let plan = Plan { devices: vec![a, b], handler };
    let workers = Workers::spawn(Clock::new(), vec![plan]).expect("a worker");
    (workers, [peer_a, peer_b])
}

fn next(peer: &Peer) -> (Vec<u8>, VnetHeader) {
    let begin = Instant::now();
    loop {
        if let Some(frame) = peer.pop() {
            return frame;
        }
        assert!(begin.elapsed() < PATIENCE, "no frame came");
        std::thread::yield_now();
    }
}

fn stats<H>(workers: &Workers<H>, port: usize) -> PortStats {
    workers.counters()[0][port].read()
}

/// Waits until the counters of a port are as `is_so` wants them: they are written after the frame.
fn until<H>(workers: &Workers<H>, port: usize, is_so: impl Fn(PortStats) -> bool) -> PortStats {
    let begin = Instant::now();
    loop {
        let now = stats(workers, port);
        if is_so(now) {
            return now;
        }
        assert!(begin.elapsed() < PATIENCE, "the counters stay {now:?}");
        std::thread::yield_now();
    }
}

fn plain() -> VnetHeader {
    VnetHeader::default()
}

fn super_frame(len: usize) -> (Vec<u8>, VnetHeader) {
    let [src, dst] = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().expect("an address"));
    let fields = TcpFields { flags: TcpFlags::ACK, ..TcpFields::default() };
    let tcp = build::tcp(src, dst, &fields, &vec![9; len]);
    let frame = build::ethernet(&build::ip(src, dst, 6, IpFields::default(), &tcp));
    let segmentation = Segmentation { kind: SegmentKind::TcpV4, size: 1000, ecn: false };
    let checksum = PartialChecksum { start: 34, offset: 16 };
    (frame, VnetHeader { checksum: Some(checksum), segmentation: Some(segmentation) })
}

#[test]
fn frames_cross_in_order_and_are_counted() {
    let (workers, [a, b]) = between(NullForwarder, [Features::ALL; 2], 10_000);
    for n in 0..1000u32 {
        a.push(&[&n.to_be_bytes()[..], &[0; 56]].concat(), plain());
    }
    b.push(&[7; 60], plain());
    for n in 0..1000u32 {
        assert_eq!(next(&b).0[..4], n.to_be_bytes());
    }
    assert_eq!(next(&a).0, [7; 60]);
    let out = until(&workers, 1, |s| s.tx_frames == 1000);
    let back = until(&workers, 0, |s| s.tx_frames == 1);
    assert_eq!((out.tx_bytes, out.rx_frames, out.rx_bytes), (60_000, 1, 60));
    assert_eq!((back.tx_bytes, back.rx_frames, back.rx_bytes), (60, 1000, 60_000));
    assert!(back.rx_batches >= 1000 / 64 && back.rx_batches <= 1000);
    let ended = workers.join();
    assert_eq!(ended.len(), 1);
    assert!(ended[0].result.is_ok() && ended[0].handler.is_some());
}

#[test]
fn a_super_frame_crosses_whole_where_the_device_cuts_and_in_segments_where_not() {
    let (frame, header) = super_frame(2500);
    let (workers, [a, b]) = between(NullForwarder, [Features::ALL; 2], 100);
    a.push(&frame, header);
    assert_eq!(next(&b), (frame.clone(), header));
    assert_eq!(stats(&workers, 1).tx_segmented, 0);
    drop(workers);

    let (workers, [a, b]) = between(NullForwarder, [Features::ALL, Features::NONE], 100);
    a.push(&[1; 60], plain());
    a.push(&frame, header);
    a.push(&[2; 60], plain());
    assert_eq!(next(&b).0, [1; 60]);
    let cut = Segments::new(&frame, &header).expect("right").expect("a super-frame");
    assert_eq!(cut.count(), 3);
    for n in 0..cut.count() {
        let mut segment = vec![0; cut.frame_len(n)];
        cut.write(n, &mut segment);
        assert_eq!(next(&b), (segment, plain()));
    }
    assert_eq!(next(&b).0, [2; 60]);
    let out = until(&workers, 1, |s| s.tx_frames == 5);
    assert_eq!((out.tx_segmented, out.tx_checksums, out.tx_refused), (1, 0, 0));
}

#[test]
fn a_checksum_is_completed_where_the_device_does_not() {
    let (frame, header) = super_frame(100);
    let header = VnetHeader { segmentation: None, ..header };
    let (workers, [a, b]) = between(NullForwarder, [Features::ALL, Features::NONE], 100);
    a.push(&frame, header);
    let (sent, left) = next(&b);
    assert!(left.is_plain());
    // The builder had put the whole checksum where the pseudo-header's sum belongs.
    assert_ne!(sent, frame);
    assert_eq!(sent[..50], frame[..50]);
    assert_eq!(until(&workers, 1, |s| s.tx_frames == 1).tx_checksums, 1);
}

#[test]
fn a_wrong_offload_header_is_dropped_and_counted() {
    let (frame, header) = super_frame(2500);
    let (workers, [a, b]) = between(NullForwarder, [Features::ALL; 2], 100);
    a.push(&frame[..60], header);
    a.push(&[5; 60], plain());
    assert_eq!(next(&b).0, [5; 60]);
    let rx = until(&workers, 0, |s| s.rx_frames == 1);
    assert_eq!((rx.rx_bad_offload, rx.rx_bytes), (1, 60));
}

#[test]
fn a_full_device_and_one_that_is_down_drop_and_count() {
    let (workers, [a, b]) = between(NullForwarder, [Features::ALL; 2], 3);
    for n in 0..10 {
        a.push(&[n; 60], plain());
    }
    let out = until(&workers, 1, |s| s.tx_frames + s.tx_full == 10);
    assert_eq!((out.tx_frames, out.tx_full), (3, 7));
    for n in 0..3 {
        assert_eq!(next(&b).0, [n; 60]);
    }
    b.set_down(true);
    a.push(&[99; 60], plain());
    assert_eq!(until(&workers, 1, |s| s.tx_down > 0).tx_down, 1);
    b.set_down(false);
    a.push(&[100; 60], plain());
    assert_eq!(next(&b).0, [100; 60]);
}

/// Answers each frame before it forwards it, to itself and to a port that there is not.
struct Answering;

impl Handler for Answering {
    fn batch(&mut self, _now: Timestamp, port: usize, frames: &mut Frames, out: &mut Output) {
        assert_eq!(out.ports(), 2);
        for k in 0..frames.len() {
            let number = frames.bytes(k)[0];
            if number == 0 {
                continue;
            }
            out.send(port, &[number; 42]);
            out.forward(k, 1 - port);
            out.forward(k, port);
            out.forward(k, 17);
            out.forward(9999, 1 - port);
            out.send_with(1 - port, 50, plain(), |bytes| bytes.fill(number + 100));
        }
    }

    fn idle(&mut self, _now: Timestamp, _out: &mut Output) {}
}

#[test]
fn what_a_handler_builds_keeps_its_place_among_what_it_forwards() {
    let (_workers, [a, b]) = between(Answering, [Features::ALL; 2], 1000);
    for n in 0..5 {
        a.push(&[n; 60], plain());
    }
    for n in 1..5u8 {
        assert_eq!(next(&a).0, [n; 42]);
        assert_eq!(next(&a).0, [n; 60]);
        assert_eq!(next(&b).0, [n; 60]);
        assert_eq!(next(&b).0, [n + 100; 50]);
    }
    assert_eq!((a.pop(), b.pop()), (None, None));
}

/// Tells when it was idle, and panics at a frame that begins with 13.
struct Telling(mpsc::Sender<Timestamp>);

impl Handler for Telling {
    fn batch(&mut self, _now: Timestamp, _port: usize, frames: &mut Frames, _out: &mut Output) {
        assert_ne!(frames.bytes(0)[0], 13, "an unlucky frame");
    }

    fn idle(&mut self, now: Timestamp, _out: &mut Output) {
        let _ = self.0.send(now);
    }
}

#[test]
fn idle_comes_without_traffic_and_at_once_when_woken() {
    let (sender, idles) = mpsc::channel();
    let (workers, _peers) = between(Telling(sender), [Features::ALL; 2], 10);
    let times: Vec<_> = (0..4).map(|_| idles.recv_timeout(PATIENCE).expect("idle")).collect();
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= IDLE), "{times:?}");
    workers.wake();
    let woken = idles.recv_timeout(PATIENCE).expect("idle");
    assert!(woken >= times[3]);
}

#[test]
fn idle_comes_under_load_too() {
    let (sender, idles) = mpsc::channel();
    let (workers, [a, _b]) = between(Telling(sender), [Features::ALL; 2], 10);
    let begin = Instant::now();
    while idles.try_iter().count() < 1 || begin.elapsed() < 3 * IDLE {
        a.push(&[0; 60], plain());
        assert!(begin.elapsed() < PATIENCE, "never idle");
    }
    drop(workers);
}

#[test]
fn a_panic_ends_all_workers_with_its_message() {
    let (sender, _idles) = mpsc::channel();
    let ((one, peer), (two, _other)) = (device(Features::ALL, 9), device(Features::ALL, 9));
    let plans = vec![
        Plan { devices: vec![one], handler: Telling(sender.clone()) },
        Plan { devices: vec![two], handler: Telling(sender) },
    ];
    let workers = Workers::spawn(Clock::new(), plans).expect("workers");
    assert!(!workers.wait(Duration::ZERO));
    peer.push(&[13; 60], plain());
    assert!(workers.wait(PATIENCE));
    let ended = workers.join();
    match &ended[0].result {
        Err(WorkerFailure::Panic(message)) => assert!(message.contains("unlucky"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(ended[0].handler.is_none());
    // The other worker was told to end, and did.
    assert!(ended[1].result.is_ok() && ended[1].handler.is_some());
}

#[test]
fn a_device_that_goes_away_ends_the_worker_with_its_name() {
    for is_target in [false, true] {
        let (workers, [a, b]) = between(NullForwarder, [Features::ALL; 2], 10);
        if is_target {
            b.remove();
        } else {
            a.remove();
        }
        assert!(workers.wait(PATIENCE));
        let ended = workers.join();
        match &ended[0].result {
            Err(WorkerFailure::Device(DeviceError::Gone { name })) => assert_eq!(name, "mem"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn dropping_the_workers_closes_their_devices() {
    let (workers, [a, b]) = between(NullForwarder, [Features::ALL; 2], 10);
    drop(workers);
    a.push(&[1; 60], plain());
    assert_eq!(b.pop(), None);
}
