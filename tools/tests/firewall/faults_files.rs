//! Faults of files while the firewall runs: the policy turns into something else, the disk of the
//! flow log fills up.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::clients::{ClosedPort, reach};
use crate::lab::{INSTANCE, Lab, Rules, WORLD, can_run, eventually, text};
use crate::stream::Stream;

const NARROW: Rules<'static> = Rules {
    ingress: r#"
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = 80, cidr = "203.0.113.0/24" },"#,
    ..Rules::NEW
};

/// Makes something of a path.
type Fate = fn(&Path);

/// What becomes of a policy file, and a part of what is said of it.
const FATES: &[(Fate, &str)] = &[
    (|path| fs::write(path, b"\xff\xfe\0\x01 no policy \x80").expect("written"), "policy.toml"),
    (|path| fs::write(path, "").expect("written"), "policy.toml"),
    (|path| fs::create_dir(path).expect("made"), "holds no .toml or .json file"),
    (|_| {}, "cannot read"),
    (|path| with_mode(path, 0o000), "Permission denied"),
    (
        |path| File::create(path).expect("made").set_len(100 << 20).expect("sparse"),
        "more than 64 MiB",
    ),
    (
        |path| assert!(Command::new("mkfifo").arg(path).status().expect("done").success()),
        "not a pipe",
    ),
];

fn with_mode(path: &Path, mode: u32) {
    fs::write(path, NARROW.text()).expect("written");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
}

fn remove(path: &Path) {
    let is_dir = path.is_dir();
    let _ = if is_dir { fs::remove_dir(path) } else { fs::remove_file(path) };
}

/// Whatever the policy file turns into, asked or by itself, the policy in force stays and the message
/// names the file.
#[test]
fn whatever_becomes_of_the_policy_file_the_old_policy_stays() {
    if !can_run("whatever_becomes_of_the_policy_file_the_old_policy_stays", &["mkfifo"]) {
        return;
    }
    for watch in [&[][..], &["--watch"]] {
        let lab = Lab::new("policyfile", &NARROW, watch);
        let (firewall, policy) = (&lab.firewall, lab.firewall.policy());
        let closed = ClosedPort::of(&lab.instance);
        let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
        for (fate, expected) in FATES {
            let said = firewall.log().len();
            remove(&policy);
            // Made elsewhere, so that it changes at once.
            let next = firewall.dir().join("next");
            fate(&next);
            if next.exists() {
                fs::rename(&next, &policy).expect("renamed");
            }
            let errors = match watch {
                [] => {
                    let output = firewall.try_ask(&["reload"]);
                    assert_eq!(output.status.code(), Some(2), "{expected}");
                    text(&output.stderr)
                }
                _ => {
                    let new = || firewall.log()[said..].to_owned();
                    eventually(expected, || new().contains(expected));
                    assert!(new().contains("the old policy stays in force"), "{}", new());
                    new()
                }
            };
            assert!(errors.contains(expected) && errors.contains("policy.toml"), "{errors}");
            assert_eq!(firewall.stats()["generation"], 1, "{expected}");
            stream.goes_on();
        }
        closed.is_closed_to(&lab.world);
        reach(&lab.world, INSTANCE, "");
        remove(&policy);
        let good = firewall.reload(&NARROW.text());
        assert!(good.contains("is in force: rules +0 -0"), "{good}");
        stream.goes_on();
    }
}

/// A disk of a few pages; gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16k", "sgwall-test"]).arg(dir.path());
        assert!(mount.status().expect("mount").success());
        Disk(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// It takes a minute: the shortest window of a flow log.
#[test]
fn a_full_disk_holds_up_the_flow_log_alone_and_is_said_once() {
    if !can_run("a_full_disk_holds_up_the_flow_log_alone_and_is_said_once", &["mount", "umount"]) {
        return;
    }
    let disk = Disk::new();
    let log = disk.0.path().join("flow.log");
    let path = log.to_str().expect("a path").to_owned();
    let args = ["--flow-log", &path, "--flow-log-interval", "60", "--workers", "2"];
    let mut lab = Lab::new("fulldisk", &NARROW, &args);
    let closed = ClosedPort::of(&lab.instance);
    let filler = disk.0.path().join("filler");
    while fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&filler)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 1024]))
        .is_ok()
    {}
    let begin = Instant::now();
    let cannot = "cannot write: No space left on device";
    while !lab.firewall.log().contains(cannot) {
        assert!(begin.elapsed() < Duration::from_secs(150), "{}", lab.firewall.log());
        reach(&lab.instance, WORLD, "");
        closed.is_closed_to(&lab.world);
    }
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    stream.goes_on();
    // It tries again every second.
    std::thread::sleep(Duration::from_secs(3));
    stream.goes_on();
    closed.is_closed_to(&lab.world);
    assert_eq!(lab.firewall.log().matches(cannot).count(), 1, "{}", lab.firewall.log());
    assert_eq!(lab.firewall.stats()["flow_log_skipped"], 0);
    assert_eq!(fs::read_to_string(&log).expect("the log"), "");
    fs::remove_file(&filler).expect("removed");
    eventually("there is room again", || lab.firewall.log().contains("it can be written again"));
    lab.firewall.signal(Signal::TERM);
    assert_eq!(lab.firewall.wait().code(), Some(0), "{}", lab.firewall.log());
    let lines = fs::read_to_string(&log).expect("the log");
    assert!(lines.lines().any(|line| line.contains(&format!("{INSTANCE} {WORLD}"))), "{lines}");
    assert!(lines.lines().all(|line| line.split(' ').count() == 14), "{lines}");
}
