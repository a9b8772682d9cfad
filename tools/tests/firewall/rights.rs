//! What a running firewall may still do, who may change its policy, and what it tells of packets.
//! What must be refused in the sandbox is tried in `sandbox/tests/refused.rs`; all other tests here
//! run in it as well.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use sgwall_netio::netns::Scratch;

use crate::clients::{ask, at, curl, reach, receive, run, send_frame, udp};
use crate::lab::{Firewall, INSTANCE, Lab, Rules, WORLD, can_run, eventually, sgwall, text};

const DEVICES: [&str; 6] = ["--interface", "eni-1", "--instance", "tap-i", "--network", "tap-n"];

/// What `/proc` says of each thread: a line's first word after its name.
fn of_threads(firewall: &Firewall, name: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", firewall.pid())).expect("its threads");
    let line = |task: std::io::Result<fs::DirEntry>| {
        let path = task.expect("a thread").path().join("status");
        let status = fs::read_to_string(path).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
        line.split_whitespace().next().expect("a word").to_owned()
    };
    tasks.map(line).collect()
}

/// Every thread, whenever it was started: no capability in any set, none to be gained, a filter of
/// system calls; and a line that says so.
#[test]
fn no_thread_has_rights_left() {
    if !can_run("no_thread_has_rights_left", &[]) {
        return;
    }
    let modes = [(&[][..], "2"), (&["--sandbox=required"], "2"), (&["--sandbox=off"], "0")];
    for (args, filtered) in modes {
        if args == ["--sandbox=required"] && !has_landlock() {
            continue;
        }
        let lab = Lab::new("rights", &Rules::NEW, &[&["--workers", "2"], args].concat());
        let none = "0000000000000000";
        for (line, expected) in [
            ("CapInh:", none),
            ("CapPrm:", none),
            ("CapEff:", none),
            ("CapBnd:", none),
            ("CapAmb:", none),
            ("NoNewPrivs:", "1"),
            ("Seccomp:", filtered),
        ] {
            let words = of_threads(&lab.firewall, line);
            assert!(words.len() >= 5, "{} threads", words.len());
            assert!(words.iter().all(|word| word == expected), "{args:?} {line} {words:?}");
        }
        let said = match filtered {
            "2" if !has_landlock() => "; system calls: seccomp",
            "2" => "no capabilities; files: Landlock ABI ",
            _ => "no capabilities; no sandbox is in force (--sandbox=off)",
        };
        assert!(lab.firewall.log().contains(said), "{}", lab.firewall.log());
        reach(&lab.instance, WORLD, "");
    }
}

/// Whether this kernel has Landlock; if not, says so.
fn has_landlock() -> bool {
    let middle = Scratch::new("landlock").expect("a namespace");
    let firewall = Firewall::start(&middle, &Rules::NEW.text(), &DEVICES);
    let has = firewall.log().contains("files: Landlock ABI ");
    if !has {
        eprintln!("NOT RUN: what Landlock must refuse: {}", firewall.log());
    }
    has
}

/// The whole of what a firewall does while it runs, where nothing is allowed that it does not need:
/// ask, trace, reload, watch, metrics, a renamed flow log, rotation, the end.
#[test]
fn in_the_sandbox_everything_works() {
    if !can_run("in_the_sandbox_everything_works", &["curl"]) {
        return;
    }
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("flow.log");
    let path = log.to_str().expect("a path");
    let args = [
        &["--watch", "--metrics", "127.0.0.1:9464"][..],
        &["--flow-log", path, "--flow-log-rotate", "1", "--flow-log-keep", "2"],
    ];
    let mut lab = Lab::new("allworks", &Rules::NEW, &args.concat());
    let firewall = &lab.firewall;
    reach(&lab.instance, WORLD, "");
    let page = curl(&lab.middle, "http://127.0.0.1:9464/metrics", "10").expect("a page");
    assert!(page.contains("sgwall_policy_generation 1"), "{page}");
    assert!(firewall.reload(&Rules::NEW.text()).contains("policy 2 is in force"));
    // It may have been seen by itself, too.
    firewall.write_policy(&Rules { egress: "", ..Rules::NEW }.text());
    eventually("it is seen", || firewall.log().contains("rules +0 -2"));
    let mut trace = sgwall();
    trace.args(["trace", "verdict=drop", "--count", "1"]).arg("--control").arg(firewall.control());
    let mut trace = Killed(trace.stdout(Stdio::piped()).spawn().expect("sgwall runs"));
    eventually("a verdict", || {
        run(&lab.instance, &format!("ping -n -q -c 1 -W 0.1 {WORLD}"));
        trace.0.try_wait().expect("its status").is_some_and(|status| status.success())
    });
    fs::rename(&log, logs.path().join("renamed")).expect("renamed");
    firewall.signal(Signal::USR1);
    eventually("it is opened anew", || log.exists());
    lab.firewall.signal(Signal::TERM);
    assert_eq!(lab.firewall.wait().code(), Some(0), "{}", lab.firewall.log());
    assert!(!lab.firewall.control().exists());
    let rotated = fs::read_to_string(logs.path().join("flow.log.1")).expect("rotated");
    assert!(rotated.contains(INSTANCE), "{rotated}");
    assert!(!lab.firewall.log().contains("ERROR"), "{}", lab.firewall.log());
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory with a policy that the user may read, or not.
fn furnished(mode: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, Rules::NEW.text()).expect("written");
    fs::set_permissions(policy, Permissions::from_mode(mode)).expect("set");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("set");
    dir
}

#[test]
fn it_goes_on_as_another_user() {
    if !can_run("it_goes_on_as_another_user", &[]) {
        return;
    }
    let middle = Scratch::new("user").expect("a namespace");
    let args = [&DEVICES[..], &["--user", "nobody"]].concat();
    let mut firewall = Firewall::start_in(furnished(0o644), &middle, &args, |_| {});
    for id in ["Uid:", "Gid:", "Groups:"] {
        assert!(of_threads(&firewall, id).iter().all(|word| word == "65534"));
    }
    let socket = fs::metadata(firewall.control()).expect("a socket");
    assert_eq!((socket.uid(), socket.mode() & 0o777), (65534, 0o600));
    assert!(firewall.ask(&["reload"]).contains("policy 2 is in force"));
    firewall.signal(Signal::TERM);
    assert_eq!(firewall.wait().code(), Some(0));

    let fails = |dir: &Path, user: &str| {
        let mut command = middle.command(env!("CARGO_BIN_EXE_sgwall"));
        command.args(["run", "--user", user]).args(DEVICES);
        command.arg("--policy").arg(dir.join("policy.toml"));
        let output = command.arg("--control").arg(dir.join("control")).output().expect("started");
        (output.status.code(), text(&output.stderr))
    };
    let (status, errors) = fails(furnished(0o644).path(), "no-such-user");
    assert_eq!(status, Some(2), "{errors}");
    assert!(
        errors.contains("there is no user \"no-such-user\"; name one of /etc/passwd"),
        "{errors}"
    );
    // One that could not be read again is found out at the start.
    let (status, errors) = fails(furnished(0o600).path(), "nobody");
    assert_eq!(status, Some(3), "{errors}");
    assert!(errors.contains("cannot read") && errors.contains("let this user read it"), "{errors}");
}

/// Whoever can write to the policy is the firewall's master: said at the start, at a reload, and by
/// `sgwall check`.
#[test]
fn a_policy_that_others_can_change_is_warned_of() {
    if !can_run("a_policy_that_others_can_change_is_warned_of", &[]) {
        return;
    }
    let dir = furnished(0o664);
    let policy = dir.path().join("policy.toml");
    let name = policy.display().to_string();
    let of_file =
        format!("{name}: the file has mode 0664: others than its owner can change the policy");
    let mend = format!("chmod go-w {name}");
    let check = |expected: &[&str]| {
        let output = sgwall().arg("check").arg(&name).output().expect("sgwall runs");
        let said = text(&output.stdout);
        assert!(expected.iter().all(|part| said.contains(part)), "{expected:?}: {said}");
        said
    };
    check(&[&of_file, &mend, "[writable-by-others]"]);
    let middle = Scratch::new("writable").expect("a namespace");
    let firewall = Firewall::start_in(dir, &middle, &DEVICES, |_| {});
    let log = firewall.log();
    assert!(log.contains(&of_file) && log.contains(&mend), "{log}");
    // The directory, in which it could be replaced; and another owner.
    let set = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    };
    set(&policy, 0o644);
    set(firewall.dir(), 0o777);
    std::os::unix::fs::chown(&policy, Some(65534), None).expect("given");
    let of_dir = format!("{}: the directory has mode 0777", firewall.dir().display());
    let of_owner = format!("{name}: the file belongs to user 65534, who can change the policy");
    check(&[&of_dir, &of_owner, "[owned-by-another]"]);
    let before = firewall.log().len();
    firewall.ask(&["reload"]);
    let said = firewall.log()[before..].to_owned();
    assert!(said.contains(&of_dir) && said.contains(&of_owner), "{said}");
    // Nobody but root and the owner: nothing is said. Nor of a sticky directory, as /tmp is.
    std::os::unix::fs::chown(&policy, Some(0), None).expect("given");
    set(firewall.dir(), 0o1777);
    let said = check(&[]);
    assert!(!said.contains("the policy"), "{said}");
    let before = firewall.log().len();
    firewall.ask(&["reload"]);
    assert!(!firewall.log()[before..].contains("WARN"));
}

/// Payloads are nobody's business: what passed, what was dropped, what was no packet at all, and
/// whatever was asked about them.
#[test]
fn no_payload_is_in_any_log() {
    if !can_run("no_payload_is_in_any_log", &["python3"]) {
        return;
    }
    const MARK: &str = "sgwall-secret-7f3a";
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("flow.log");
    let format =
        "${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${action} ${rule} ${reason}";
    let args = ["--flow-log", log.to_str().expect("a path"), "--flow-log-format", format];
    let rules = Rules {
        ingress: r#"{ protocol = "udp", ports = 53, cidr = "203.0.113.0/24" }"#,
        ..Rules::NEW
    };
    let mut lab = Lab::with("secret", &rules, &args, |command| {
        command.env("RUST_LOG", "trace");
    });
    let traced = logs.path().join("trace");
    let mut trace = sgwall();
    trace.args(["trace", "--json", "--rate", "1000"]).arg("--control").arg(lab.firewall.control());
    trace.stdout(File::create(&traced).expect("made")).stderr(Stdio::null());
    let trace = Killed(trace.spawn().expect("sgwall runs"));
    let shown = || fs::read_to_string(&traced).expect("the trace");
    let server = udp(&lab.instance, "0.0.0.0:53");
    let mut has_passed = false;
    eventually("all of it was shown", || {
        // What passes, what no rule allows, what is no packet: no IP, a broken header.
        let client = udp(&lab.world, "0.0.0.0:0");
        client.send_to(MARK.as_bytes(), at(INSTANCE, 53)).expect("sent");
        if let Some((bytes, _)) = receive(&server) {
            assert_eq!(bytes, MARK.as_bytes());
            has_passed = true;
        }
        ask(&client, at(INSTANCE, 54), MARK.as_bytes());
        for ethertype in ["88b5", "0800", "86dd", "0806"] {
            let frame = format!("ffffffffffff020000000001{ethertype}{hex}{hex}{hex}");
            send_frame(&lab.world, "tap-n", &frame);
        }
        let reasons = ["allowed-tracked", "no-rule", "malformed", "not-ip"];
        has_passed && reasons.iter().all(|reason| shown().contains(reason))
    });
    drop(trace);
    let mut said = shown();
    for question in [
        &["stats"][..],
        &["stats", "--json"],
        &["flows"],
        &["flows", "--json"],
        &["explain", "--live", "udp", "203.0.113.9:5000", "to", "10.0.1.10:54"],
    ] {
        let output = lab.firewall.try_ask(question);
        said += &(text(&output.stdout) + &text(&output.stderr));
    }
    lab.firewall.signal(Signal::TERM);
    assert_eq!(lab.firewall.wait().code(), Some(0));
    let records = fs::read_to_string(&log).expect("the log");
    assert!(records.contains("REJECT - no-rule"), "{records}");
    said += &(lab.firewall.log() + &records);
    assert!(!said.contains(MARK) && !said.contains(&hex), "{said}");
}

/// The unit says what systemd understands, and takes no right away that the start needs.
#[test]
fn the_unit_is_understood() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/sgwall.service");
    let is_there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("NOT RUN: the_unit_is_understood: there is no systemd-analyze command");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    // The program is not where the unit has it.
    let text_of = fs::read_to_string(&unit).expect("the unit");
    let copy = dir.path().join("sgwall.service");
    fs::write(&copy, text_of.replace("/usr/bin/sgwall", "/bin/true")).expect("written");
    let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output().expect("run");
    let said = text(&output.stderr);
    let about: Vec<_> = said.lines().filter(|line| line.contains("sgwall.service")).collect();
    assert!(about.is_empty(), "{about:?}");
}
