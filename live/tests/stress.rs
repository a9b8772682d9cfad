//! Two workers judge while policies are replaced, flows are listed, ended and expire, and verdicts are
//! traced and explained, all at once. Bounded by numbers of operations; what must hold is looked at
//! with every packet, and at the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::thread;

use sgwall_dataplane::{Config, DropReason, FrameInput, FullTable, PassReason};
use sgwall_live::filter::Filter;
use sgwall_live::{Firewall, OnReload, Port, Shared, Snapshot};
use sgwall_netio::device::{Frames, VnetHeader};
use sgwall_netio::worker::{Handler, Output};
use sgwall_packet::{LinkType, PacketSpec, Timestamp};
use sgwall_rules::compile::Generation;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{Policy, Vlans};

const WORKERS: usize = 2;
/// Batches of each worker.
const BATCHES: u32 = 1500;
/// Frames of a batch.
const FRAMES: u32 = 8;
/// Fewer than the workers would have alive: the table is full again and again.
const MAX_FLOWS: usize = 150;
const NETWORK: usize = 2;

const fn port_of(destination: &str) -> usize {
    // 10.0.1.10 is A's, 10.0.1.20 is B's.
    (destination.as_bytes()[7] == b'2') as usize
}

/// What the policy of a generation lets in; odd and even ones differ.
fn is_open(generation: u32, destination: &str, port: u16) -> bool {
    let is_odd = generation % 2 == 1;
    let is_port_open = match port {
        80 => is_odd,
        81 => !is_odd,
        82 => true,
        _ => false,
    };
    is_port_open && (port_of(destination) == 0 || has_b(generation))
}

/// Every third policy lacks the second interface.
fn has_b(generation: u32) -> bool {
    !generation.is_multiple_of(3)
}

/// Nothing may leave unless it answers: so every flow is tracked, and answers show that it is.
fn policy(generation: u32) -> Arc<Policy> {
    let port = if generation % 2 == 1 { 80 } else { 81 };
    let rule = |protocol, port| {
        format!("{{ protocol = \"{protocol}\", ports = {port}, cidr = \"203.0.113.0/24\" }},")
    };
    let rules = ["tcp", "udp"].map(|protocol| rule(protocol, port) + &rule(protocol, 82));
    let interface = |name: &str, address: &str| {
        format!(
            "[[interface]]\nid = \"eni-{name}\"\nsubnet = \"s\"\naddresses = [\"{address}\"]\n\
             security_groups = [\"sg-1\"]\n"
        )
    };
    let mut interfaces = vec![interface("a", "10.0.1.10")];
    if has_b(generation) {
        // In turns the first one and the second: what remembers a number remembers the wrong one.
        interfaces.insert(generation as usize / 2 % 2, interface("b", "10.0.1.20"));
    }
    let text = format!(
        "version = 1\n[[vpc]]\nid = \"vpc-1\"\ncidrs = [\"10.0.0.0/16\"]\n[[subnet]]\nid = \"s\"\nvpc \
         = \"vpc-1\"\ncidrs = [\"10.0.1.0/24\"]\n[[security_group]]\nid = \"sg-1\"\negress = \
         []\ningress = [{}]\n{}",
        rules.concat(),
        interfaces.concat()
    );
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    Arc::new(load(&[input]).expect("a good policy").policy)
}

fn ports() -> Vec<Port> {
    let port = |(n, interface): (usize, &Option<&str>)| Port {
        device: format!("tap{n}"),
        interface: interface.map(str::to_owned),
        vlans: Vlans::None,
    };
    [Some("eni-a"), Some("eni-b"), None].iter().enumerate().map(port).collect()
}

struct World {
    shared: Arc<Shared>,
    /// Nanoseconds. Workers read it at different moments, so it steps back from shard to shard.
    time: AtomicI64,
    /// The policy that is being put in force, and the one that is for certain.
    announced: AtomicU32,
    settled: AtomicU32,
    /// Frames handed to workers.
    frames: AtomicU64,
    /// Drops that no policy explains: the table was full.
    unexplained: AtomicU64,
    working: AtomicBool,
}

impl World {
    fn new() -> Self {
        let snapshot = Snapshot::new(policy(1), Generation(1), &ports());
        let config = Config {
            max_flows: MAX_FLOWS,
            full_table: FullTable::DropNew,
            hash_seed: [1, 2, 3, 4],
        };
        World {
            shared: Arc::new(Shared::new(ports(), snapshot, WORKERS, config)),
            time: AtomicI64::new(Timestamp::from_secs(1000).as_nanos()),
            announced: AtomicU32::new(1),
            settled: AtomicU32::new(1),
            frames: AtomicU64::new(0),
            unexplained: AtomicU64::new(0),
            working: AtomicBool::new(true),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.time.load(Ordering::Relaxed))
    }

    fn is_working(&self) -> bool {
        self.working.load(Ordering::Acquire)
    }

    /// Waits until workers were handed so many frames; false if they have no more.
    fn wait_for_frames(&self, frames: u64) -> bool {
        while self.frames.load(Ordering::Relaxed) < frames {
            if !self.is_working() {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    fn reload(&self, generation: u32) {
        self.announced.store(generation, Ordering::SeqCst);
        let before = self.shared.snapshot();
        let after = before.next(policy(generation), Generation(generation), &ports());
        let on_reload = if generation % 4 < 2 { OnReload::Keep } else { OnReload::Rejudge };
        self.shared.replace(after, on_reload, self.now());
        self.settled.store(generation, Ordering::SeqCst);
    }

    /// Counters over all shards: what was judged, and dropped because the table was full.
    fn judged(&self) -> (u64, u64) {
        let (mut judged, mut full) = (0, 0);
        self.shared.with_shards(|judge, _| {
            let counters = judge.pipeline().counters();
            let passed = PassReason::ALL.iter().map(|&reason| counters.passed(reason).packets);
            let dropped = DropReason::ALL.iter().map(|&reason| counters.dropped(reason).packets);
            judged += passed.chain(dropped).sum::<u64>();
            full += counters.dropped(DropReason::ConntrackFull).packets;
        });
        (judged, full)
    }

    fn flows(&self) -> usize {
        let mut flows = 0;
        let now = self.now();
        self.shared.with_shards(|judge, _| {
            flows += judge.pipeline().connections().iter(now).count();
        });
        flows
    }
}

/// One worker, with the world's packets and the instances' answers.
struct Worker<'a> {
    world: &'a World,
    number: usize,
    firewall: Firewall,
    out: Output,
    sent: u32,
}

/// A packet that begins something: protocol, source port, destination, destination port.
type Opener = (&'static str, u16, u8, &'static str, u16);

fn forth((protocol, source_port, host, destination, port): Opener) -> String {
    let flags = if protocol == "tcp" { " S" } else { "" };
    format!("{protocol} 203.0.113.{host}:{source_port} -> {destination}:{port}{flags}")
}

fn back((protocol, source_port, host, destination, port): Opener) -> String {
    let flags = if protocol == "tcp" { " SA" } else { "" };
    format!("{protocol} {destination}:{port} -> 203.0.113.{host}:{source_port}{flags}")
}

impl Worker<'_> {
    fn new(world: &World, number: usize) -> Worker<'_> {
        let firewall = Firewall::new(Arc::clone(&world.shared), number);
        Worker { world, number, firewall, out: Output::new(ports().len()), sent: 0 }
    }

    /// Hands over a batch; of which frames something came out, and where.
    fn batch(&mut self, port: usize, packets: &[String]) -> Vec<Option<usize>> {
        let frames: Vec<_> = packets
            .iter()
            .map(|packet| packet.parse::<PacketSpec>().expect("a packet").to_frame())
            .collect();
        let mut batch = Frames::new();
        for frame in &frames {
            batch.push(frame, VnetHeader::default());
        }
        self.world.frames.fetch_add(frames.len() as u64, Ordering::Relaxed);
        self.firewall.batch(self.world.now(), port, &mut batch, &mut self.out);
        let sent = self.out.take_sent(&batch);
        let went = |frame: &Vec<u8>| {
            let mut ports =
                sent.iter().filter(|(_, sent, _)| sent == frame).map(|(port, ..)| *port);
            let port = ports.next();
            assert_eq!(ports.next(), None, "it went twice");
            port
        };
        frames.iter().map(went).collect()
    }

    fn next_opener(&mut self) -> Opener {
        self.sent += 1;
        let n = self.sent;
        // No two packets of a run are of one flow, and both workers have flows in every shard.
        let protocol = if n.is_multiple_of(3) { "tcp" } else { "udp" };
        let host = (n / 50_000 * 2 + self.number as u32 + 1) as u8;
        let destination = if n.is_multiple_of(2) { "10.0.1.10" } else { "10.0.1.20" };
        let host = host + (n % 16) as u8 * 8;
        (protocol, 1024 + (n % 50_000) as u16, host, destination, 80 + (n / 7 % 4) as u16)
    }

    /// New flows, and the answers to them.
    fn work(&mut self) {
        let openers: Vec<_> = (0..FRAMES).map(|_| self.next_opener()).collect();
        let begin = self.world.settled.load(Ordering::SeqCst);
        let went = self.batch(NETWORK, &openers.iter().copied().map(forth).collect::<Vec<_>>());
        let end = self.world.announced.load(Ordering::SeqCst);
        for (&opener, went) in openers.iter().zip(&went) {
            let (.., destination, port) = opener;
            let says = |open| (begin..=end).any(|g| is_open(g, destination, port) == open);
            match went {
                Some(to) => {
                    assert!(says(true), "{opener:?} passed under {begin} to {end}");
                    assert_eq!(*to, port_of(destination), "{opener:?} went astray");
                }
                None if says(false) => {}
                None => drop(self.world.unexplained.fetch_add(1, Ordering::Relaxed)),
            }
        }
        // The answers to all of them, each from the port of its instance.
        for destination in ["10.0.1.10", "10.0.1.20"] {
            let answered: Vec<_> =
                openers.iter().zip(&went).filter(|((.., to, _), _)| *to == destination).collect();
            let answers: Vec<_> = answered.iter().map(|(opener, _)| back(**opener)).collect();
            for ((opener, went), answer) in
                answered.iter().zip(self.batch(port_of(destination), &answers))
            {
                // What passed may have been ended meanwhile; what did not pass has no flow.
                assert!(
                    answer.is_none() || (answer, went.is_some()) == (Some(NETWORK), true),
                    "{opener:?} was refused, and answered"
                );
            }
        }
    }
}

/// Everybody but the workers, each on a thread of its own until the workers are done.
fn disturb<'scope>(scope: &'scope thread::Scope<'scope, '_>, world: &'scope World) {
    scope.spawn(|| {
        for generation in (2..).take_while(|_| world.is_working()) {
            world.reload(generation);
        }
    });
    scope.spawn(|| {
        // A tenth of a second for a batch or two, and now and then so long that all that is idle dies.
        for round in 1_u64.. {
            if !world.wait_for_frames(round * 20) {
                return;
            }
            let nanos = if round.is_multiple_of(200) { 400_000_000_000 } else { 100_000_000 };
            world.time.fetch_add(nanos, Ordering::Relaxed);
        }
    });
    scope.spawn(|| {
        let mut killed = 0;
        while world.is_working() {
            let now = world.now();
            // Some flows end each time that so many packets have come.
            let is_kill = world.frames.load(Ordering::Relaxed) > (killed + 1) * 300;
            killed += u64::from(is_kill);
            world.shared.with_flows(|judge, places, snapshot| {
                let policy = &snapshot.policy;
                let mut alive = 0;
                for flow in judge.pipeline().flows(places.clone(), now) {
                    alive += 1;
                    let interface = flow.interface.and_then(|index| policy.interfaces().get(index));
                    let interface = interface.expect("a flow of a deleted interface");
                    let own = flow.view.original_tuple().dst;
                    assert!(interface.owns(&own), "{} has a flow of {own}", interface.id);
                    // Admitted under a policy that there was, by a rule that is a rule.
                    assert!(flow.view.generation <= policy.generation().0);
                    assert_eq!(flow.rule.owner, "sg-1");
                }
                let ended = judge.end_flows(places, now, |flow| {
                    is_kill && u64::from(flow.view.original_tuple().src_port) % 16 == killed % 16
                });
                assert!(ended <= alive);
            });
        }
    });
    scope.spawn(|| {
        let filters = ["port=82", "verdict=drop", "protocol=tcp port=80"];
        for filter in filters.iter().cycle().take_while(|_| world.is_working()) {
            let filter: Filter = filter.parse().expect("a filter");
            world.shared.tracer.start(filter.clone());
            for _ in 0..100 {
                match world.shared.tracer.next() {
                    Some(record) => {
                        assert!(filter.passes_record(&record), "{filter:?}: {record:?}")
                    }
                    None => thread::yield_now(),
                }
            }
            world.shared.tracer.stop();
        }
    });
    scope.spawn(|| {
        for n in (0_u16..=u16::MAX).cycle().take_while(|_| world.is_working()) {
            let port = 80 + n % 4;
            let packet: PacketSpec =
                format!("tcp 203.0.113.200:{n} -> 10.0.1.10:{port} S").parse().expect("a packet");
            let data = packet.to_ip();
            let frame = FrameInput {
                token: 0,
                link: Some(LinkType::RawIp),
                data: &data,
                wire_len: data.len() as u32,
                time: world.now(),
                decimals: 9,
                recorded: None,
            };
            world.shared.with_shard_of(packet.src, packet.dst, |judge, snapshot| {
                let decision = judge.explain(&snapshot.model, frame).decision;
                let open = is_open(snapshot.policy.generation().0, "10.0.1.10", port);
                let expected: &[&str] = match open {
                    true => &["allowed-tracked", "conntrack-full"],
                    false => &["no-rule"],
                };
                assert!(expected.contains(&decision.reason.as_str()), "{packet}: {decision:?}");
            });
        }
    });
}

/// Lets so much time pass that every flow is dead, and the memory of all of them free.
fn end_all_flows(world: &World, workers: &mut [Worker<'_>]) {
    world.time.fetch_add(600 * 1_000_000_000, Ordering::Relaxed);
    assert_eq!(world.flows(), 0);
    // A bounded piece of work at a time, as between batches.
    for _ in 0..100_000 {
        let mut in_memory = 0;
        world.shared.with_shards(|judge, _| in_memory += judge.pipeline().connections().len());
        if in_memory == 0 {
            return;
        }
        for worker in &mut *workers {
            worker.firewall.idle(world.now(), &mut worker.out);
        }
    }
    panic!("the memory of dead flows is never free");
}

#[test]
fn all_at_once() {
    let world = World::new();
    let mut workers = thread::scope(|scope| {
        let judging = [0, 1].map(|number| {
            let mut worker = Worker::new(&world, number);
            scope.spawn(move || {
                for _ in 0..BATCHES {
                    worker.work();
                    worker.firewall.idle(worker.world.now(), &mut worker.out);
                }
                worker
            })
        });
        disturb(scope, &world);
        let workers = judging.map(thread::ScopedJoinHandle::join);
        world.working.store(false, Ordering::Release);
        workers.map(|worker| worker.expect("a worker failed"))
    });
    // Every frame has had one verdict, and what no policy explains the table does.
    let (judged, full) = world.judged();
    assert_eq!(judged, world.frames.load(Ordering::Relaxed));
    let unexplained = world.unexplained.load(Ordering::Relaxed);
    assert!(unexplained <= full, "{unexplained} drops for no reason, {full} for the table");
    let generations = world.settled.load(Ordering::Relaxed);
    println!("{judged} verdicts, {generations} policies, {full} flows refused");
    // Enough happened for this to be a test.
    assert!(generations > 20 && full > 0, "{generations} policies, {full} flows refused");

    // An interface that is gone leaves no flow: policies that are multiples of three lack the second.
    world.reload(generations.next_multiple_of(3) + 3);
    world.shared.with_shards(|judge, _| {
        for flow in judge.pipeline().flows(0..usize::MAX, world.now()) {
            assert_eq!(flow.interface, Some(0));
        }
    });

    // What was taken of the allowance is back: as many flows as ever may be alive again, exactly.
    end_all_flows(&world, &mut workers);
    let mut tuples = HashSet::new();
    let [worker, _] = &mut workers;
    for n in 0..MAX_FLOWS as u32 * 40 {
        let opener: Opener = ("udp", 1024 + (n / 200) as u16, (n % 200) as u8, "10.0.1.10", 82);
        assert!(tuples.insert(opener));
        worker.batch(NETWORK, &[forth(opener)]);
        assert!(world.flows() <= MAX_FLOWS);
        if n % 1000 == 999 && world.flows() == MAX_FLOWS {
            break;
        }
    }
    assert_eq!(world.flows(), MAX_FLOWS);
}
