//! `sgwall replay --workers`: whatever their number, what comes out is the same to the byte.

// Tests of the command line read and write files.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{root, sgwall};
use proptest::prelude::*;
use sgwall_netio::capture::{LinkKind, OutPacket, Writer};
use sgwall_packet::{PacketSpec, Timestamp};

/// Everything that a replay leaves behind: standard output, files, exit status.
#[derive(PartialEq, Eq)]
struct Results(Vec<(&'static str, Vec<u8>)>);

/// Replays with so many workers; the notes on standard error come apart.
fn replay(args: &[&str], workers: u32, dir: &Path) -> (Results, String) {
    let workers = workers.to_string();
    let base = [&["replay", "--workers", &workers], args].concat();
    let files = ["pass", "drop", "emitted", "flow-log"].map(|name| (name, dir.join(name)));
    let names = files.each_ref().map(|(_, path)| path.display().to_string());
    let mut with_files = vec!["--json", "--flow-log-format", "v5"];
    for (flag, name) in ["--pass", "--drop", "--emitted", "--flow-log"].iter().zip(&names) {
        with_files.extend([*flag, name]);
    }
    let mut results = Vec::new();
    let mut notes = String::new();
    for more in [&with_files[..], &["--packets"], &[]] {
        let run = sgwall(&[&base[..], more].concat());
        results.push(("standard output", run.stdout.into_bytes()));
        results.push(("exit status", run.status.to_string().into_bytes()));
        notes = run.stderr;
    }
    results.extend(files.map(|(name, path)| (name, fs::read(path).unwrap_or_default())));
    (Results(results), notes)
}

/// Replays with one worker and with several, and compares. Why several gave up, if they did.
fn compare(args: &[&str], numbers: &[u32]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let (alone, notes) = replay(args, 1, dir.path());
    assert!(!notes.contains("--workers"), "{notes}");
    let mut given_up = None;
    for &workers in numbers {
        let (together, notes) = replay(args, workers, dir.path());
        for ((name, one), (_, several)) in alone.0.iter().zip(&together.0) {
            let is_same = one == several;
            assert!(
                is_same,
                "{name} of {workers} workers: {args:?}\n{}\nof one:\n{}",
                String::from_utf8_lossy(several),
                String::from_utf8_lossy(one)
            );
        }
        let note = notes.lines().find_map(|line| line.strip_prefix("note: --workers: "));
        given_up = note.map(str::to_owned).or(given_up);
    }
    given_up
}

fn captures_in(dir: &Path) -> Option<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).ok()?.map(|entry| entry.unwrap().path());
    let is_capture = |path: &PathBuf| {
        path.extension().is_some_and(|e| ["pcap", "pcapng", "cap"].iter().any(|known| e == *known))
    };
    let mut captures: Vec<_> = entries.filter(is_capture).collect();
    captures.sort();
    Some(captures)
}

/// Of so many captures, how many did several workers judge to the end?
fn compare_all(captures: &[PathBuf], more: &[&str], numbers: &[u32]) -> usize {
    let judged_together = captures.iter().filter(|path| {
        let name = path.display().to_string();
        let policy = "pcap-fixtures/captures/policy.toml";
        let args = [&name, "-p", policy, "-l", "0.0.0.0/1", "-l", "2000::/4"];
        compare(&[&args[..], more].concat(), numbers).is_none()
    });
    judged_together.count()
}

#[test]
fn every_capture_of_the_repository() {
    let captures = captures_in(&root().join("pcap-fixtures/captures")).unwrap();
    assert_eq!(captures.len(), 16);
    let together = compare_all(&captures, &[], &[2, 3, 8]);
    assert!(together >= 14, "only {together} were judged by several workers");
    // So few flows that none of several workers can tell whether there is room.
    let together = compare_all(&captures, &["--max-flows", "2"], &[2, 3]);
    assert_eq!(together, 0);
}

#[test]
fn every_shared_capture() {
    let Some(captures) = captures_in(&root().join("../shared/pcaps")) else {
        eprintln!("NOT RUN: there are no shared captures beside the repository");
        return;
    };
    let together = compare_all(&captures, &[], &[2, 3, 8]);
    assert!(captures.len() > 100 && together > captures.len() * 3 / 4, "only {together}");
}

/// All in one replay: time runs backwards between them, so one worker ends what several began.
#[test]
fn several_captures_in_one_replay() {
    let captures = captures_in(&root().join("pcap-fixtures/captures")).unwrap();
    let names = captures.iter().map(|path| path.display().to_string());
    let names: Vec<_> = names.filter(|name| !name.contains("damaged")).collect();
    let mut args: Vec<_> = names.iter().map(String::as_str).collect();
    args.extend(["-p", "pcap-fixtures/captures/policy.toml", "-l", "0.0.0.0/1"]);
    let why = compare(&args, &[2, 3]).expect("some time runs backwards");
    assert!(why.contains("time runs backwards"), "{why}");
}

/// A policy of two interfaces in two subnets, with public addresses. `shut` has fewer rules, and
/// other public addresses; `limits` are of the second interface.
fn policy(head: &str, limits: &str, shut: bool) -> String {
    let (ssh, public) = match shut {
        false => ("{ protocol = \"tcp\", ports = \"22\", cidr = \"203.0.113.0/24\" },", 10),
        true => ("", 11),
    };
    format!(
        r#"version = 1
{head}
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "subnet-a"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
[[subnet]]
id = "subnet-b"
vpc = "vpc-1"
cidrs = ["10.0.2.0/24"]
[[security_group]]
id = "sg-a"
description = "a"
ingress = [
  {ssh}
  {{ protocol = "tcp", ports = "443", cidr = "0.0.0.0/0" }},
  {{ protocol = "udp", ports = "53", cidr = "203.0.113.0/24" }},
  {{ protocol = "icmp", type = 8, cidr = "0.0.0.0/0" }},
  {{ protocol = "icmp", type = 3, code = 4, cidr = "10.0.1.1/32" }},
]
[[security_group]]
id = "sg-b"
description = "b"
ingress = [
  {{ protocol = "tcp", ports = "6001", group = "sg-a" }},
  {{ protocol = "tcp", ports = "443", cidr = "198.51.100.0/24" }},
]
[[interface]]
id = "eni-a"
subnet = "subnet-a"
addresses = ["10.0.1.10"]
public = [{{ private = "10.0.1.10", public = "198.51.100.{public}" }}]
security_groups = ["sg-a"]
[[interface]]
id = "eni-b"
subnet = "subnet-b"
addresses = ["10.0.2.20"]
public = [{{ private = "10.0.2.20", public = "198.51.100.20" }}]
security_groups = ["sg-b"]
{limits}
"#
    )
}

/// Who sends and receives: interfaces, their public addresses, strangers.
const ENDS: [&str; 8] = [
    "10.0.1.10",
    "10.0.2.20",
    "198.51.100.10",
    "198.51.100.20",
    "203.0.113.1",
    "203.0.113.2",
    "203.0.113.3",
    "192.0.2.9",
];

/// A packet at a time, milliseconds after the one before it.
type Timed = (i64, PacketSpec);

/// One packet, of any kind that leaves traces of its own.
fn packets() -> impl Strategy<Value = Timed> {
    let wait = prop_oneof![
        60 => 0i64..40,
        4 => 500i64..3000,
        2 => -400i64..0,
        1 => 20_000i64..40_000,
    ];
    (wait, 0usize..8, 0usize..8, 0u8..14, 0u8..6, 0u16..4).prop_map(
        |(wait, from, to, kind, flags, n)| {
            let (from, to) = (ENDS[from], ENDS[if from == to { (to + 1) % 8 } else { to }]);
            let port = [443, 22, 6001, 53][usize::from(n)];
            let flags = ["S", "SA", "A", "PA", "FA", "R"][usize::from(flags)];
            let text = match kind {
                0..=2 => format!("tcp {from}:{} -> {to}:{port} {flags}", 4000 + n),
                3..=4 => format!("tcp {from}:{port} -> {to}:{} {flags}", 4000 + n),
                5 => format!("udp {from}:{} -> {to}:53 len=40", 4000 + n),
                6 => format!("udp {from}:53 -> {to}:{} len=40", 4000 + n),
                7 => format!("icmp {from} -> {to} {} id={n}", ["8/0", "0/0"][usize::from(n % 2)]),
                8 => format!("tcp {from}:{port} -> {to}:{} A len=1600 df", 4000 + n),
                9 => format!("udp {from}:{} -> {to}:53 len=2000", 4000 + n),
                10 => format!("udp {from}:4000 -> {to}:53 len=1000 frag={n}:0+"),
                11 => format!("udp {from}:4000 -> {to}:53 len=100 frag={n}:1008"),
                12 => format!(
                    "icmp {from} -> {to} {} quote=\"tcp {to}:{} -> {}:{port} A\"",
                    ["11/0", "3/4"][usize::from(n % 2)],
                    4000 + n,
                    ENDS[4 + usize::from(n)]
                ),
                _ => format!("gre {from} -> {to}"),
            };
            (wait, text.parse().unwrap())
        },
    )
}

/// Writes a capture whose frames have so long trailers that a batch has only some of them.
fn write_capture(path: &Path, packets: &[Timed], trailer: usize) {
    let mut writer = Writer::create(path).unwrap();
    let mut millis = 1_700_000_000_000;
    for (wait, packet) in packets {
        millis += wait;
        let mut data = packet.to_frame();
        data.resize(data.len() + trailer, 0);
        let packet = OutPacket {
            data: &data,
            wire_len: data.len() as u32,
            time: Timestamp::from_nanos(millis * 1_000_000),
            decimals: 6,
            link: LinkKind(1),
            direction: None,
            comment: None,
        };
        writer.write(&packet).unwrap();
    }
    writer.flush().unwrap();
}

/// A directory with a capture and two policies, and how to replay it.
struct Trace {
    dir: tempfile::TempDir,
}

impl Trace {
    fn new(head: &str, limits: &str, packets: &[Timed], trailer: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_capture(&dir.path().join("trace.pcapng"), packets, trailer);
        fs::write(dir.path().join("open.toml"), policy(head, limits, false)).unwrap();
        fs::write(dir.path().join("shut.toml"), policy(head, limits, true)).unwrap();
        Trace { dir }
    }

    fn compare(&self, more: &[&str], numbers: &[u32]) -> Option<String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let (capture, open, shut) = (path("trace.pcapng"), path("open.toml"), path("shut.toml"));
        let more: Vec<_> = more.iter().map(|word| word.replace("SHUT", &shut)).collect();
        let mut args = vec![&capture, "-p", &open];
        args.extend(more.iter().map(String::as_str));
        compare(&args, numbers)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_traces(
        packets in prop::collection::vec(packets(), 1..600),
        trailer in prop_oneof![Just(0usize), Just(9000)],
        max_flows in prop_oneof![1 => Just("4"), 1 => Just("40"), 4 => Just("1048576")],
        limits in prop_oneof![
            4 => Just(""),
            1 => Just("max_flows = 3"),
            1 => Just("max_flows = 40\nreserved_flows = 2"),
        ],
        full_table in prop_oneof![Just("drop-new"), Just("evict-embryonic")],
        head in prop_oneof![
            Just(""),
            Just("icmp_related = true"),
            Just("compat = \"current\"\nicmp_related = true"),
        ],
        change in prop_oneof![
            Just(&[][..]),
            Just(&["--at", "1.5=SHUT"][..]),
            Just(&["--at", "1.5=SHUT", "--at", "3=SHUT", "--on-reload", "rejudge"][..]),
        ],
    ) {
        let trace = Trace::new(head, limits, &packets, trailer);
        let table = ["--max-flows", max_flows, "--full-table", full_table];
        trace.compare(&[&table[..], change].concat(), &[2, 3]);
    }
}

/// What one end of a flow says to the other, `n` apart in ports and addresses.
fn well_behaved(n: usize) -> Vec<String> {
    let (port, remote) = (1024 + n % 60_000, format!("203.0.{}.{}", 113 + n % 2, 1 + n % 250));
    match n % 6 {
        0 => vec![
            format!("tcp {remote}:{port} -> 10.0.1.10:22 S"),
            format!("tcp 10.0.1.10:22 -> {remote}:{port} SA"),
            format!("tcp {remote}:{port} -> 10.0.1.10:22 A"),
            format!(
                "icmp 192.0.2.9 -> 10.0.1.10 11/0 quote=\"tcp 10.0.1.10:22 -> {remote}:{port} A\""
            ),
        ],
        1 => vec![
            // Later fragments wait for their first.
            format!("udp {remote}:{port} -> 10.0.1.10:53 len=100 frag={n}:1008"),
            format!("udp {remote}:{port} -> 10.0.1.10:53 len=1000 frag={n}:0+"),
            format!("udp 10.0.1.10:53 -> {remote}:{port} len=40"),
        ],
        // Between interfaces, by private and by public addresses.
        2 => vec![
            format!("tcp 10.0.1.10:{port} -> 10.0.2.20:6001 S"),
            format!("tcp 10.0.2.20:6001 -> 10.0.1.10:{port} SA"),
        ],
        3 => vec![
            format!("tcp 10.0.1.10:{port} -> 198.51.100.20:443 S"),
            format!("tcp 10.0.2.20:443 -> 198.51.100.10:{port} SA"),
            format!("tcp 198.51.100.10:{port} -> 198.51.100.20:443 A"),
        ],
        4 => vec![
            format!("udp 10.0.1.10:{port} -> {remote}:53 len=2000"),
            format!("udp 10.0.1.10:{port} -> {remote}:53 len=1600 df"),
        ],
        _ => vec![format!("tcp {remote}:{port} -> 10.0.1.10:8080 S")],
    }
}

fn well_behaved_trace(flows: usize, millis: i64) -> Vec<Timed> {
    let packets = (0..flows).flat_map(well_behaved);
    packets.map(|text| (millis, text.parse().unwrap())).collect()
}

/// Many batches, and all that workers do together to the end: policy changes, fragments that wait,
/// public addresses, answers, errors that go with what they quote, late frames, expiry.
#[test]
fn a_long_trace_is_judged_by_several_workers_to_its_end() {
    let mut packets = well_behaved_trace(1500, 30);
    for (wait, _) in packets.iter_mut().step_by(7) {
        *wait = -4;
    }
    for head in ["", "icmp_related = true"] {
        let trace = Trace::new(head, "", &packets, 2500);
        let given_up = trace.compare(
            &["--at", "10=SHUT", "--at", "40.5=SHUT", "--on-reload", "rejudge"],
            &[2, 3, 8],
        );
        assert_eq!(given_up, None);
    }
}

/// Each reason why several workers cannot come to what one does, met in the middle of a trace.
#[test]
fn one_worker_ends_what_several_cannot() {
    let calm = || well_behaved_trace(600, 30);
    let given_up = |packets: &[Timed], head: &str, more: &[&str]| {
        Trace::new(head, "", packets, 2500).compare(more, &[2, 3]).unwrap_or_default()
    };
    let add = |texts: &mut dyn Iterator<Item = (i64, String)>| -> Vec<Timed> {
        let parsed = texts.map(|(wait, text)| (wait, text.parse().unwrap()));
        calm().into_iter().chain(parsed).chain(calm()).collect()
    };

    let why = given_up(&calm(), "", &["--max-flows", "300"]);
    assert!(why.contains("flow table"), "{why}");

    let too_large =
        |n| (0, format!("udp 10.0.1.10:{n} -> 203.0.113.{}:53 len=1600 df", 1 + n % 90));
    let why = given_up(&add(&mut (1..200).map(too_large)), "", &[]);
    assert!(why.contains("answer"), "{why}");

    let begun =
        |n| (0, format!("udp 203.0.113.{}:9 -> 10.0.1.10:53 len=8 frag={n}:0+", 1 + n % 90));
    let why = given_up(&add(&mut (1..4200).map(begun)), "", &[]);
    assert!(why.contains("fragmented datagrams"), "{why}");

    let lost = |n| (0, format!("udp 203.0.113.{n}:9 -> 10.0.1.10:53 len=8 frag={n}:1008"));
    let why = given_up(
        &add(&mut (1..60).map(lost).chain([(5000, "gre 10.0.1.10 -> 203.0.113.1".into())])),
        "",
        &[],
    );
    assert!(why.contains("lack their first"), "{why}");

    let back = [(-60_000, "gre 10.0.1.10 -> 203.0.113.1".to_owned())];
    let why = given_up(&add(&mut back.into_iter()), "", &[]);
    assert!(why.contains("time runs backwards"), "{why}");
}

/// What cannot be read twice is judged by one, whatever is asked for.
#[test]
fn standard_input_is_judged_by_one_worker() {
    let capture = fs::File::open(root().join("tools/example/capture.pcapng")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .args(["replay", "-", "-p", "tools/example/policy.toml", "--json", "-w", "4"])
        .current_dir(root())
        .stdin(capture)
        .output()
        .unwrap();
    let file = ["replay", "tools/example/capture.pcapng", "-p", "tools/example/policy.toml"];
    let of_file = sgwall(&[&file[..], &["--json"]].concat());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), of_file.stdout);
}
