//! Faults of the process and its devices while it runs: nothing passes that must not, and it goes on
//! or ends with a word. What `operations.rs` and `reload.rs` have is not here again.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use crate::clients::{ClosedPort, at, is_silent, reach, udp};
use crate::lab::{Firewall, INSTANCE, Lab, Rules, WORLD, can_run, eventually, text};
use crate::stream::Stream;
use sgwall_netio::netns::Scratch;

/// HTTP from one range, which is tracked (SEMANTICS 6.2), and ping.
const NARROW: Rules<'static> = Rules {
    ingress: r#"
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = 80, cidr = "203.0.113.0/24" },"#,
    ..Rules::NEW
};
/// No HTTP.
const CLOSED: Rules<'static> =
    Rules { ingress: r#"{ protocol = "icmp", type = 8, cidr = "0.0.0.0/0" }"#, ..Rules::NEW };

/// How often in twenty looks a thread of the firewall was at work, the busiest one.
fn busiest(firewall: &Firewall) -> usize {
    let mut looks = std::collections::BTreeMap::new();
    for _ in 0..20 {
        let tasks = fs::read_dir(format!("/proc/{}/task", firewall.pid())).expect("its threads");
        for task in tasks {
            let task = task.expect("a thread").path();
            // A client's thread may be gone by now.
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            // The state follows the name in brackets.
            let runs = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R'));
            *looks.entry(task).or_insert(0) += usize::from(runs);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    looks.into_values().max().unwrap_or(0)
}

/// The network's link goes down and comes up again: traffic waits and resumes; meanwhile nobody
/// spins.
#[test]
fn a_network_that_is_down_for_a_while_is_no_end() {
    if !can_run("a_network_that_is_down_for_a_while_is_no_end", &[]) {
        return;
    }
    let lab = Lab::new("netdown", &NARROW, &["--workers", "2"]);
    let closed = ClosedPort::of(&lab.instance);
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    stream.goes_on();
    lab.world.ip("link set tap-n down").expect("a TAP of ours");
    stream.is_cut();
    // The instance goes on sending into it.
    assert!(is_silent(&lab.instance, WORLD, ""));
    let busiest = busiest(&lab.firewall);
    assert!(busiest < 15, "a thread was at work in {busiest} of 20 looks");
    lab.world.ip("link set tap-n up").expect("a TAP of ours");
    // The kernel has forgotten where answers come from.
    lab.world.ip(&format!("route replace 10.0.1.0/24 dev tap-n src {WORLD}")).expect("a route");
    stream.goes_on();
    closed.is_closed_to(&lab.world);
    assert!(!lab.firewall.log().contains("ERROR"), "{}", lab.firewall.log());
}

/// A worker that panics with a part of the flow table in hand ends all.
#[test]
fn a_panic_ends_all_and_names_the_worker() {
    if !can_run("a_panic_ends_all_and_names_the_worker", &[]) {
        return;
    }
    if !cfg!(debug_assertions) {
        eprintln!(
            "NOT RUN: a_panic_ends_all_and_names_the_worker: a release build has no such fault"
        );
        return;
    }
    for workers in ["1", "2"] {
        let set = |command: &mut std::process::Command| {
            command.env("SGWALL_PANIC_ON", "a-fatal-payload");
        };
        let mut lab = Lab::with("panic", &NARROW, &["--workers", workers], set);
        let closed = ClosedPort::of(&lab.instance);
        let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
        stream.goes_on();
        let socket = udp(&lab.world, "0.0.0.0:0");
        socket.send_to(b"-- a-fatal-payload --", at(INSTANCE, 9)).expect("sent");
        assert_eq!(lab.firewall.wait().code(), Some(1), "{}", lab.firewall.log());
        stream.is_cut();
        assert!(is_silent(&lab.instance, WORLD, ""));
        closed.is_closed_to(&lab.world);
        assert!(!lab.firewall.control().exists());
        let log = lab.firewall.log();
        let why = "the packet handler panicked: SGWALL_PANIC_ON is set, and a frame has its text";
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("the firewall failed, and nothing passes: worker "), "{log}");
        assert!(last.contains(why), "{log}");
        // The payload is nobody's business.
        assert!(!log.contains("a-fatal-payload"), "{log}");
    }
}

/// After SIGKILL nothing passes and nothing has to be cleaned up; tracked flows are lost, and what
/// rules admit passes without (SEMANTICS 7.13, 6.10).
#[test]
fn killed_nothing_passes_and_it_starts_again_without_cleaning_up() {
    if !can_run("killed_nothing_passes_and_it_starts_again_without_cleaning_up", &[]) {
        return;
    }
    let lab = Lab::new("kill", &NARROW, &[]);
    let closed = ClosedPort::of(&lab.instance);
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    stream.goes_on();
    lab.firewall.reload(&CLOSED.text());
    stream.goes_on();
    assert_eq!(lab.firewall.flows(&["protocol=tcp", "state=established"]).len(), 1);
    lab.firewall.signal(Signal::KILL);
    // Its TAP interfaces went with it, wherever they were.
    for (host, device) in [(&lab.instance, "tap-i"), (&lab.world, "tap-n")] {
        eventually("the interface is gone", || host.ip(&format!("link show {device}")).is_err());
    }
    stream.is_cut();
    // The socket stays, and nobody serves it.
    assert!(lab.firewall.control().exists());
    assert_eq!(lab.firewall.try_ask(&["stats"]).status.code(), Some(3));

    let lab = lab.restart(&CLOSED.text());
    reach(&lab.world, INSTANCE, "");
    assert!(lab.firewall.flows(&["protocol=tcp"]).is_empty());
    stream.is_cut();
    closed.is_closed_to(&lab.world);
    lab.firewall.reload(&NARROW.text());
    stream.goes_on();
    assert!(lab.firewall.flows(&["protocol=tcp", "state=established"]).is_empty());
}

/// A persistent TAP outlives the firewall and is attached to again; one that it made does not.
#[test]
fn a_persistent_tap_is_attached_to_again_after_a_kill() {
    if !can_run("a_persistent_tap_is_attached_to_again_after_a_kill", &[]) {
        return;
    }
    let middle = Scratch::new("persist").expect("a namespace");
    middle.ip("tuntap add dev tap-p mode tap").expect("a TAP");
    let devices = ["--interface", "eni-1", "--instance", "tap-p", "--network", "tap-n"];
    let mut firewall = Firewall::start(&middle, &Rules::NEW.text(), &devices);
    for _ in 0..2 {
        firewall = firewall.start_again(&middle, &Rules::NEW.text(), &devices);
        middle.ip("link show tap-p").expect("it is there");
        assert_eq!(firewall.stats()["generation"], 1);
    }
    firewall.signal(Signal::KILL);
    firewall.wait();
    middle.ip("link show tap-p").expect("it stays");
    eventually("tap-n is gone", || middle.ip("link show tap-n").is_err());
}

/// A flow table that could not be filled is refused before the first frame.
#[test]
fn a_table_that_does_not_fit_is_refused_at_the_start() {
    if !can_run(
        "a_table_that_does_not_fit_is_refused_at_the_start",
        &["prlimit", "nsenter", "timeout"],
    ) {
        return;
    }
    let middle = Scratch::new("memory").expect("a namespace");
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("policy.toml"), Rules::NEW.text()).expect("written");
    let refused = |mut command: std::process::Command, limit: &str| {
        command.args(["run", "--interface", "eni-1", "--instance", "tap-i", "--network", "tap-n"]);
        command.arg("--policy").arg(dir.path().join("policy.toml"));
        command.arg("--control").arg(dir.path().join("control"));
        command.args(["--max-flows", "3000000"]).stdin(Stdio::null());
        let output = command.output().expect("started");
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("--max-flows 3000000: a full flow table takes"), "{errors}");
        assert!(
            errors.contains(limit) && errors.contains("or less, or raise that limit"),
            "{errors}"
        );
        assert!(middle.ip("link show tap-i").is_err());
    };
    let mut command = middle.command("timeout");
    command.args(["20", "prlimit", "--as=300000000"]).arg(env!("CARGO_BIN_EXE_sgwall"));
    refused(command, "of address space (ulimit -v)");

    // The same by a control group, where this machine lets us make one.
    let Some(group) = Group::new(middle.name(), 200 << 20) else {
        eprintln!("NOT RUN: a table in a control group: none can be made here");
        return;
    };
    // Not `ip netns exec`, which hides /sys/fs/cgroup.
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", middle.name())).args(["sh", "-c"]);
    let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.0.display());
    command.args([&script, "sh", "timeout", "20", env!("CARGO_BIN_EXE_sgwall")]);
    refused(command, &format!("of memory by {}", group.0.display()));
}

/// A control group with a limit; removed when dropped.
struct Group(std::path::PathBuf);

impl Group {
    fn new(name: &str, bytes: u64) -> Option<Group> {
        [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
            .into_iter()
            .find_map(|(root, file)| {
                let group = Group(std::path::Path::new(root).join(name));
                fs::create_dir(&group.0).ok()?;
                // Only a control group has that file, and only one of memory.
                let mut limit = fs::OpenOptions::new().write(true).open(group.0.join(file)).ok()?;
                limit.write_all(bytes.to_string().as_bytes()).ok()?;
                Some(group)
            })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where memory ends while it runs, the process does, and nothing passes.
#[test]
fn out_of_memory_it_ends_and_nothing_passes() {
    if !can_run("out_of_memory_it_ends_and_nothing_passes", &["prlimit"]) {
        return;
    }
    let mut lab = Lab::new("oom", &NARROW, &["--max-flows", "1000"]);
    let closed = ClosedPort::of(&lab.instance);
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    stream.goes_on();
    let limit = |bytes: u64| {
        let mut limit = std::process::Command::new("prlimit");
        // The soft limit alone, which can be raised again.
        limit.args([&format!("--as={bytes}:"), "--pid", &lab.firewall.pid().to_string()]);
        assert!(limit.status().expect("prlimit of util-linux").success());
    };
    limit(1_000_000);
    // Packets need no memory. A large policy does: already to read it.
    stream.goes_on();
    let rules: String = (1..60_000).fold(String::new(), |rules, n| {
        rules + &format!("{{ protocol = \"tcp\", ports = {n}, cidr = \"203.0.113.9/32\" }},\n")
    });
    lab.firewall.write_policy(&Rules { ingress: &rules, ..NARROW }.text());
    lab.firewall.signal(Signal::HUP);
    let stays = "the old policy stays in force: error: cannot read";
    eventually("it is refused", || lab.firewall.log().contains(stays));
    assert!(lab.firewall.log().contains("policy.toml: out of memory"), "{}", lab.firewall.log());
    stream.goes_on();
    closed.is_closed_to(&lab.world);
    // Where it can be read and not understood, the process ends.
    limit((lab.firewall.status("VmSize:") << 10) + (12 << 20));
    lab.firewall.signal(Signal::HUP);
    let status = lab.firewall.wait();
    assert!(!status.success(), "{status}: {}", lab.firewall.log());
    stream.is_cut();
    assert!(is_silent(&lab.instance, WORLD, ""));
    closed.is_closed_to(&lab.world);
    assert!(lab.firewall.log().contains("memory allocation of"), "{}", lab.firewall.log());
}
