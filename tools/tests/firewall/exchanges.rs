//! Protocols without connections: UDP, and one whose headers nobody here reads.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, sockopt};
use sgwall_netio::netns::Scratch;

use crate::clients::{ask, at, receive, udp};
use crate::lab::{
    INSTANCE, INSTANCE_V6, Lab, Rules, SILENCE, WORLD, WORLD_V6, can_run, eventually,
};

/// Answers a question by turning it round; the port it came from.
fn answer(server: &UdpSocket) -> Option<SocketAddr> {
    let (mut bytes, from) = receive(server)?;
    bytes.reverse();
    server.send_to(&bytes, from).expect("sent");
    Some(from)
}

/// A question from the instance is answered, and nothing else comes in.
fn answers_come_by_tracking(label: &str, args: &[&str]) {
    let lab = Lab::new(label, &Rules::NEW, args);
    for (instance, world) in [(INSTANCE, WORLD), (INSTANCE_V6, WORLD_V6)] {
        let server = udp(&lab.world, &at(world, 53).to_string());
        let client = udp(&lab.instance, &at(instance, 0).to_string());
        let state = || -> Vec<String> {
            let flows = lab.firewall.flows(&["protocol=udp", &format!("src={instance}")]);
            flows.iter().map(|flow| flow["state"].as_str().expect("a state").into()).collect()
        };
        assert_eq!(state(), [""; 0]);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&client, at(world, 53), b"who is it?"));
            answer(&server).expect("a question");
            let answer = asked.join().expect("the client");
            assert_eq!(answer.as_deref(), Some(&b"?ti si ohw"[..]));
        });
        assert_eq!(state(), ["single"]);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&client, at(world, 53), b"again"));
            answer(&server).expect("a question");
            assert_eq!(asked.join().expect("the client").as_deref(), Some(&b"niaga"[..]));
        });
        assert_eq!(state(), ["stream"]);
        // From another port, to the same one: no answer of anything.
        let other = udp(&lab.world, &at(world, 5353).to_string());
        other.send_to(b"news", client.local_addr().expect("its address")).expect("sent");
        assert_eq!(receive(&client), None);
    }
    assert_eq!(lab.firewall.dropped("no-rule"), 2);
}

#[test]
fn udp_answers_come_by_tracking() {
    if can_run("udp_answers_come_by_tracking", &[]) {
        answers_come_by_tracking("udp", &[]);
    }
}

#[test]
fn udp_answers_come_by_tracking_with_two_workers() {
    if can_run("udp_answers_come_by_tracking_with_two_workers", &[]) {
        answers_come_by_tracking("udp2", &["--workers", "2"]);
    }
}

/// GRE, which is tracked by addresses alone (SEMANTICS 7.2), and SCTP.
const PROTOCOLS: [u8; 2] = [47, 132];

/// A raw socket of a protocol.
struct Raw(OwnedFd);

impl Raw {
    fn new(host: &Scratch, protocol: u8) -> Raw {
        let number = std::num::NonZeroU32::new(protocol.into()).expect("not IP itself");
        let protocol = Some(Protocol::from_raw(number));
        let socket =
            host.inside(|| rustix::net::socket(AddressFamily::INET, SocketType::RAW, protocol));
        let socket = socket.expect("a namespace").expect("a raw socket");
        let timeout = Some(SILENCE);
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, timeout).expect("a timeout");
        Raw(socket)
    }

    fn send(&self, to: &str, bytes: &[u8]) {
        let sent = rustix::net::sendto(&self.0, bytes, SendFlags::empty(), &at(to, 0));
        assert_eq!(sent.expect("sent"), bytes.len());
    }

    /// What comes in time, without its IPv4 header.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let len = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()).ok()?.0;
        Some(buffer[20..len].to_vec())
    }
}

#[test]
fn other_protocols_are_let_back_in_until_their_timeout() {
    if !can_run("other_protocols_are_let_back_in_until_their_timeout", &[]) {
        return;
    }
    let rules = Rules { interface: "timeouts = { other = 2 }", ..Rules::NEW };
    let lab = Lab::new("other", &rules, &[]);
    for protocol in PROTOCOLS {
        let instance = Raw::new(&lab.instance, protocol);
        let world = Raw::new(&lab.world, protocol);
        // GRE version 0 that carries IPv4; to SCTP it is no more than bytes.
        let packet = |text: &[u8]| [&[0, 0, 8, 0], text].concat();
        world.send(INSTANCE, &packet(b"unasked"));
        assert_eq!(instance.receive(), None);
        instance.send(WORLD, &packet(b"hello"));
        assert_eq!(world.receive(), Some(packet(b"hello")));
        for text in [b"one", b"two"] {
            world.send(INSTANCE, &packet(text));
            assert_eq!(instance.receive(), Some(packet(text)));
        }
        let filter = [format!("protocol={protocol}")];
        let flows = lab.firewall.flows(&[&filter[0]]);
        assert_eq!(flows.len(), 1, "{flows:?}");
        assert!(flows[0]["expires_in"].as_f64().expect("seconds") <= 2.0, "{flows:?}");
        eventually("the flow ends", || lab.firewall.flows(&[&filter[0]]).is_empty());
        world.send(INSTANCE, &packet(b"late"));
        assert_eq!(instance.receive(), None);
    }
    assert_eq!(lab.firewall.dropped("no-rule"), 4);
}
