//! A running firewall between devices in memory, asked and commanded over its control socket.

// Tests of a running firewall look at the clock, and at files.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sgwall_dataplane::{Config, FullTable};
use sgwall_live::control::{Answer, Client, Request, Server};
use sgwall_live::full::Watch;
use sgwall_live::top::By;
use sgwall_live::{Engine, Firewall, OnReload, OpenPort, Port};
use sgwall_netio::device::memory::{Peer, pair};
use sgwall_netio::device::{Features, Interface, VnetHeader};
use sgwall_netio::worker::Workers;
use sgwall_packet::PacketSpec;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{Policy, Vlans};

const POLICY: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "s"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
[[security_group]]
id = "sg-1"
ingress = [{ protocol = "tcp", ports = 80, cidr = "203.0.113.0/24" }, { protocol = "udp", ports = 53, cidr = "203.0.113.0/24" }]
[[interface]]
id = "eni-1"
subnet = "s"
addresses = ["10.0.1.10"]
security_groups = ["sg-1"]
"#;

/// Long enough for any machine; a test that works never waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn policy(text: &str) -> Arc<Policy> {
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    Arc::new(load(&[input]).expect("a good policy").policy)
}

struct Running {
    engine: Arc<Engine>,
    workers: Workers<Firewall>,
    instance: Peer,
    network: Peer,
}

fn start(workers: usize, on_reload: OnReload) -> Running {
    let mut peers = Vec::new();
    let ports = [("tap-i", Some("eni-1")), ("tap-n", None)].map(|(name, interface)| {
        // All workers but the first have devices that nothing comes from.
        let queues = (0..workers).map(|worker| {
            let (device, peer) = pair(name, Features::ALL, 1024).expect("a device");
            if worker == 0 {
                peers.push(peer);
            }
            Box::new(device) as _
        });
        OpenPort {
            queues: queues.collect(),
            port: Port {
                device: name.into(),
                interface: interface.map(str::to_owned),
                vlans: Vlans::None,
            },
            interface: Interface {
                name: name.into(),
                index: 0,
                mtu: 9001,
                mac: [2, 0, 0, 0, 0, 1],
                is_up: true,
            },
            granted: Features::ALL,
        }
    });
    let config =
        Config { max_flows: 1000, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    let (engine, workers) =
        Engine::start(ports.into(), policy(POLICY), workers, config, on_reload).expect("workers");
    let [instance, network] = <[Peer; 2]>::try_from(peers).expect("two peers");
    Running { engine, workers, instance, network }
}

impl Running {
    fn in_from_network(&self, packet: &str) {
        let frame = packet.parse::<PacketSpec>().expect("a packet").to_frame();
        self.network.push(&frame, VnetHeader::default());
    }

    /// Waits for a frame at the instance.
    fn arrives(&self) {
        let begin = Instant::now();
        while self.instance.pop().is_none() {
            assert!(begin.elapsed() < PATIENCE, "no frame came");
            std::thread::yield_now();
        }
    }

    fn open(&self, port: u16) {
        self.open_from("203.0.113.1", port);
    }

    fn open_from(&self, address: &str, port: u16) {
        self.in_from_network(&format!("tcp {address}:{port} -> 10.0.1.10:80 S"));
        self.arrives();
    }
}

/// A socket of its own, in a directory of its own.
struct Socket(std::path::PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sgwall-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Socket(dir)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.join("control")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn all_answers(path: &Path, request: &Request) -> Vec<Answer> {
    let mut client = Client::ask(path, request).expect("a firewall");
    let mut answers = Vec::new();
    while let Some(answer) = client.next_answer().expect("an answer") {
        answers.push(answer);
    }
    answers
}

#[test]
fn flows_are_listed_counted_and_ended() {
    let running = start(2, OnReload::Keep);
    running.open(5000);
    running.open(5001);
    running.in_from_network("udp 203.0.113.1:4000 -> 10.0.1.10:53");
    running.arrives();
    running.in_from_network("tcp 203.0.113.1:5002 -> 10.0.1.10:81 S");
    let engine = &running.engine;
    let (flows, more) = engine.flows(&"protocol=tcp".parse().expect("a filter"), 100);
    assert_eq!((flows.len(), more), (2, false));
    assert!(flows.iter().all(|flow| flow.interface == "eni-1" && flow.rule == "sg-1/ingress-1"));
    assert!(flows.iter().all(|flow| flow.state == "syn-sent" && flow.direction == "ingress"));
    assert!(flows.iter().all(|flow| (100.0..=120.0).contains(&flow.expires_in)));
    let (one, more) = engine.flows(&"".parse().expect("a filter"), 1);
    assert_eq!((one.len(), more), (1, true));
    assert_eq!(engine.kill(&"port=5000".parse().expect("a filter")), 1);
    assert_eq!(engine.flows(&"addr=203.0.113.0/24".parse().expect("a filter"), 100).0.len(), 2);

    let begin = Instant::now();
    let stats = loop {
        let stats = engine.stats();
        if stats.reasons.iter().any(|of| of.reason == "no-rule") {
            // Ports are read first, and the frame may have come since.
            break engine.stats();
        }
        assert!(begin.elapsed() < PATIENCE, "{stats:?}");
    };
    assert_eq!((stats.flows, stats.flows_created, stats.flows_refused), (2, 3, 0));
    let count = |reason: &str| {
        let of_reason = stats.reasons.iter().filter(|of| of.reason == reason);
        of_reason.map(|of| (of.interface.as_deref(), of.packets)).collect::<Vec<_>>()
    };
    assert_eq!(count("allowed-tracked"), [(Some("eni-1"), 3)]);
    assert_eq!(count("no-rule"), [(Some("eni-1"), 1)]);
    let hits: Vec<_> = stats.rules.iter().map(|rule| rule.packets).collect();
    assert_eq!(hits, [2, 1, 0]);
    assert_eq!(stats.ports[1].counters["rx_frames"], 4);
    for ended in running.workers.join() {
        assert!(ended.result.is_ok());
    }
}

/// Of flows in several shards, by the counters of all of them; and what is told when there is no
/// place for more.
#[test]
fn who_has_most_flows_is_told() {
    let running = start(2, OnReload::Keep);
    let engine = &running.engine;
    let mut watch = Watch::default();
    assert_eq!(watch.look(engine), None);
    for (host, flows) in [(7, 5), (8, 3), (9, 1)] {
        (0..flows).for_each(|n| running.open_from(&format!("203.0.113.{host}"), 4000 + n));
    }
    let [remotes, interfaces] = engine.top([By::Remote, By::Interface], 2);
    assert_eq!(remotes.to_string(), "203.0.113.7 5, 203.0.113.8 3");
    assert_eq!((remotes.flows, interfaces.to_string().as_str()), (9, "eni-1 9"));
    let [src, dst, port] = engine.top([By::Src, By::Dst, By::Port], 1);
    assert_eq!((src.by, src.rows), (By::Src, remotes.rows[..1].to_vec()));
    assert_eq!((dst.to_string(), port.to_string()), ("10.0.1.10 9".into(), "tcp/80 9".into()));
    assert_eq!(watch.look(engine), None, "every flow has found a place");

    let begin = Instant::now();
    let capped = POLICY.replace("addresses", "max_flows = 9\naddresses");
    engine.reload(policy(&capped));
    running.in_from_network("tcp 203.0.113.9:9 -> 10.0.1.10:80 S");
    let filled = loop {
        if let Some(filled) = watch.look(engine) {
            break filled;
        }
        assert!(begin.elapsed() < PATIENCE, "it is never told of");
    };
    assert_eq!((filled.flows, filled.refused, filled.evicted), (9, 1, 0));
    let told = filled.to_string();
    assert!(told.contains("by remote address: 203.0.113.7 5, 203.0.113.8 3"), "{told}");
    assert!(told.contains("by interface: eni-1 9"), "{told}");
    let of = engine.stats().interfaces;
    assert_eq!((of.len(), of[0].flows, of[0].max_flows), (1, Some(9), Some(9)));
    for ended in running.workers.join() {
        assert!(ended.result.is_ok());
    }
}

#[test]
fn a_reload_says_what_changed() {
    for (on_reload, left) in [(OnReload::Keep, 2), (OnReload::Rejudge, 1)] {
        let running = start(1, on_reload);
        running.open(5000);
        running.in_from_network("udp 203.0.113.1:4000 -> 10.0.1.10:53");
        running.arrives();
        let closed =
            POLICY.replace("{ protocol = \"tcp\", ports = 80, cidr = \"203.0.113.0/24\" }, ", "");
        let report = running.engine.reload(policy(&closed));
        assert_eq!((report.generation, report.flows, report.not_admitted), (2, 2, 1));
        assert_eq!(report.ended, 2 - left);
        assert_eq!((report.interfaces_added, report.interfaces_removed), (0, 0));
        assert_eq!(running.engine.flows(&"".parse().expect("a filter"), 9).0.len(), left);
        // The UDP rule is the first now: one name is gone, and another means something else.
        assert_eq!((report.rules_added, report.rules_removed), (1, 2));
        drop(running.workers.join());
    }
}

#[test]
fn a_packet_is_explained_with_the_flows_that_there_are() {
    let running = start(2, OnReload::Keep);
    let ask = |packet: &str, interface, direction| {
        running.engine.explain(&packet.parse().expect("a packet"), interface, direction)
    };
    let data = "tcp 203.0.113.1:5000 -> 10.0.1.10:80 A";
    let decision = |packet: &str| ask(packet, None, None).expect("explained").decision.reason;
    assert_eq!(decision(data), "allowed-stateless");
    running.open(5000);
    assert_eq!(decision(data), "established");
    assert_eq!(decision("tcp 10.0.1.10:80 -> 203.0.113.1:5000 SA"), "reply");
    assert_eq!(decision("tcp 203.0.113.1:5000 -> 10.0.1.10:81 S"), "no-rule");
    let foreign = "udp 198.51.100.1:1 -> 198.51.100.2:2";
    assert!(ask(foreign, None, None).is_err_and(|e| e.contains("concerns nobody")));
    let egress = ask(foreign, Some("eni-1"), Some("egress")).expect("explained");
    assert_eq!(egress.decision.reason, "src-dst-check");
    assert!(ask(data, Some("eni-2"), None).is_err_and(|e| e.contains("eni-1")));
    assert!(ask(data, None, Some("up")).is_err_and(|e| e.contains("ingress or egress")));
    drop(running.workers.join());
}

#[test]
fn the_socket_answers_and_holds_up_against_nonsense() {
    let running = start(1, OnReload::Keep);
    let socket = Socket::new("answers");
    let path = socket.path();
    let listener = Server::bind(&path).expect("a socket");
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let next: Arc<Mutex<Result<Arc<Policy>, String>>> =
        Arc::new(Mutex::new(Err("policy.toml:1: broken".into())));
    let loading = Arc::clone(&next);
    let server = Server::serve(
        listener,
        &path,
        Arc::clone(&running.engine),
        Arc::new(move || loading.lock().expect("no panic").clone()),
    )
    .expect("a server");
    assert!(Server::bind(&path).is_err_and(|e| e.to_string().contains("another sgwall serves it")));

    running.open(5000);
    let flows = all_answers(&path, &Request::Flows { filter: String::new(), limit: 10 });
    assert!(matches!(&flows[..], [Answer::Flow(_), Answer::Done { more: false }]), "{flows:?}");
    let message = |request: &Request| match &all_answers(&path, request)[..] {
        [Answer::Error { message }] => message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(message(&Request::Flows { filter: "x".into(), limit: 1 }).contains("KEY=VALUE"));
    assert!(message(&Request::Kill { filter: String::new() }).contains("say which flows"));
    assert_eq!(message(&Request::Reload), "policy.toml:1: broken");
    *next.lock().expect("no panic") = Ok(policy(POLICY));
    let reloaded = all_answers(&path, &Request::Reload);
    assert!(matches!(&reloaded[0], Answer::Reloaded(report) if report.generation == 2));

    // Clients that say nothing, and those that say nonsense, hold up nobody.
    let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).expect("a socket")).collect();
    for nonsense in [
        "",
        "{}",
        "null",
        "{\"command\":\"fly\"}",
        "\u{0}\u{1}",
        "{\"command\":\"flows\",\"limit\":-1}",
    ] {
        let mut client = UnixStream::connect(&path).expect("a socket");
        writeln!(client, "{nonsense}").expect("written");
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).expect("an answer");
        assert!(line.contains("not a request"), "{nonsense}: {line}");
    }
    let mut endless = UnixStream::connect(&path).expect("a socket");
    endless.set_write_timeout(Some(PATIENCE)).expect("set");
    // It is hung up on after 64 KiB without a line's end.
    while endless.write_all(&[b'x'; 4096]).is_ok() {}
    let stats = all_answers(&path, &Request::Stats);
    assert!(matches!(&stats[..], [Answer::Stats(_), Answer::Done { .. }]), "{stats:?}");
    drop(silent);

    drop(server);
    assert!(!path.exists());
    drop(running.workers.join());
}

/// The first answer, while packets go on to be refused: a trace begins when its request is read.
fn shown(running: &Running, client: &mut Client) -> std::io::Result<Option<Answer>> {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| client.next_answer());
        while !first.is_finished() {
            assert!(begin.elapsed() < PATIENCE, "nothing was shown");
            running.in_from_network("tcp 203.0.113.1:6000 -> 10.0.1.10:81 S");
            std::thread::sleep(Duration::from_millis(20));
        }
        first.join().expect("no panic")
    })
}

#[test]
fn verdicts_are_watched_by_one_at_a_time() {
    let running = start(1, OnReload::Keep);
    let socket = Socket::new("trace");
    let path = socket.path();
    let listener = Server::bind(&path).expect("a socket");
    let engine = Arc::clone(&running.engine);
    let server = Server::serve(listener, &path, engine, Arc::new(|| Err("none".into())));
    let server = server.expect("a server");
    let request = Request::Trace { filter: "verdict=drop interface=eni-1".into(), rate: 1000 };
    let mut client = Client::ask(&path, &request).expect("a firewall");
    let Ok(Some(Answer::Trace(line))) = shown(&running, &mut client) else { panic!("no verdict") };
    assert_eq!((line.reason.as_str(), line.dst_port), ("no-rule", Some(81)));
    assert_eq!(line.interface.as_deref(), Some("eni-1"));
    let second = all_answers(&path, &request);
    assert!(
        matches!(&second[..], [Answer::Error { message }] if message.contains("another trace"))
    );
    drop(client);
    // Once the first has gone away, another may watch.
    let begin = Instant::now();
    loop {
        let mut again = Client::ask(&path, &request).expect("a firewall");
        if !matches!(shown(&running, &mut again), Ok(Some(Answer::Error { .. }))) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the trace never ended");
    }
    drop(server);
    drop(running.workers.join());
}
