//! What must be refused is tried, in processes of their own: with all rights, without capabilities,
//! and in the sandbox. With all rights it must not be refused, or the test would show nothing.
//!
//! Not of the usual harness: that runs tests on threads, and rights are given up before there are any.

// A test may touch files.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::ptrace;
use rustix::process::{Pid, test_kill_process};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use sgwall_netio::device::tap::{Tap, TapOptions};
use sgwall_sandbox::rights::{Account, give_up};
use sgwall_sandbox::{Files, Mode, enter};

/// Which rights a try has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rights {
    /// Those of root.
    All,
    /// No capabilities.
    NoCapabilities,
    /// No capabilities, and the sandbox.
    Sandbox,
}

/// How a try ends: as the name of an error, `done`, or `killed`.
type Outcome = String;

fn of<T, E: Into<io::Error>>(result: Result<T, E>) -> Outcome {
    match result.map_err(Into::into) {
        Ok(_) => "done".into(),
        Err(error) => match error.raw_os_error() {
            Some(code) => format!("{:?}", nix::errno::Errno::from_raw(code)),
            None => error.to_string(),
        },
    }
}

/// A try: given the directory of the test, with `read`, `write` and `remove` in it.
type Try = fn(&Path) -> Outcome;

/// Each try, and its outcome with all rights, without capabilities, and in the sandbox; an empty
/// one is not tried, for the machine's sake.
const TRIES: &[(&str, Try, [&str; 3])] = &[
    // What a firewall does goes on.
    ("read the policy again", |d| of(File::open(d.join("read/policy"))), ["done", "done", "done"]),
    ("list its directory", |d| of(fs::read_dir(d.join("read"))), ["done", "done", "done"]),
    ("append to the flow log", |d| append(&d.join("write/log")), ["done", "done", "done"]),
    ("rename the flow log", rename_log, ["done", "done", "done"]),
    ("remove the socket", |d| of(fs::remove_file(d.join("remove/socket"))), ["done"; 3]),
    ("start a thread", |_| of(std::thread::Builder::new().spawn(|| ())), ["done"; 3]),
    // Files.
    ("read /etc/shadow", |_| of(File::open("/etc/shadow")), ["done", "done", "EACCES"]),
    ("write to the policy", |d| append(&d.join("read/policy")), ["done", "done", "EACCES"]),
    ("read the flow log", |d| of(File::open(d.join("write/log"))), ["done", "done", "EACCES"]),
    ("make a file elsewhere", |d| append(&d.join("elsewhere")), ["done", "done", "EACCES"]),
    (
        "remove the policy",
        |d| of(fs::remove_file(d.join("read/policy"))),
        ["done", "done", "EACCES"],
    ),
    ("make a directory", |d| of(fs::create_dir(d.join("write/dir"))), ["done", "done", "ENOSYS"]),
    ("open /dev/net/tun", |_| of(File::open("/dev/net/tun")), ["done", "done", "EACCES"]),
    ("make a TAP", make_tap, ["", "no permission", "no permission"]),
    // Programs and other processes.
    ("start a program", |_| of(Command::new("true").status()), ["done", "done", "ENOSYS"]),
    (
        "become a program",
        |_| of::<(), _>(Err(Command::new("true").exec())),
        ["ended", "ended", "killed"],
    ),
    ("be traced", |_| of(ptrace::traceme()), ["done", "done", "killed"]),
    ("signal another process", signal_another, ["done", "done", "ENOSYS"]),
    ("run memory", |_| run_memory(), ["done", "done", "ENOSYS"]),
    // The network.
    ("make a UDP socket", |_| of(UdpSocket::bind("127.0.0.1:0")), ["done", "done", "ENOSYS"]),
    (
        "connect over TCP",
        |_| of(TcpStream::connect("127.0.0.1:1")),
        ["ECONNREFUSED", "ECONNREFUSED", "ENOSYS"],
    ),
    (
        "connect to a socket",
        |d| of(UnixStream::connect(d.join("remove/socket"))),
        ["done", "done", "ENOSYS"],
    ),
    // The system.
    ("become another user", become_nobody, ["done", "EPERM", "killed"]),
    ("mount", |_| mount(), ["ENODEV", "EPERM", "killed"]),
    ("enter a namespace", |_| unshare(), ["done", "EPERM", "killed"]),
    ("name the machine", |_| name_machine(), ["done", "EPERM", "killed"]),
    ("set the clock", |_| set_clock(), ["", "EPERM", "killed"]),
    ("ask a file that is open", ask_file, ["done", "done", "ENOSYS"]),
];

fn append(path: &Path) -> Outcome {
    of(OpenOptions::new().append(true).create(true).open(path))
}

fn rename_log(dir: &Path) -> Outcome {
    of(fs::rename(dir.join("write/log"), dir.join("write/log.1")))
}

/// Only where it must be refused, so that none is made in this machine's namespace.
fn make_tap(_: &Path) -> Outcome {
    match Tap::open(&TapOptions::new("sgwall-refused")) {
        Ok(_) => "done".into(),
        Err(error) if error.to_string().contains("no permission") => "no permission".into(),
        Err(error) => error.to_string(),
    }
}

/// Signal 0, which changes nothing.
fn signal_another(_: &Path) -> Outcome {
    of(test_kill_process(Pid::INIT))
}

fn run_memory() -> Outcome {
    of(memmap2::MmapMut::map_anon(4096).and_then(memmap2::MmapMut::make_exec))
}

fn become_nobody(_: &Path) -> Outcome {
    of(nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)))
}

/// There is no such file system: who may mount is told that.
fn mount() -> Outcome {
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    of(nix::mount::mount(none, ".", Some("sgwall-none"), flags, none))
}

fn unshare() -> Outcome {
    of(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS))
}

/// In a namespace of its own, where there may be one.
fn name_machine() -> Outcome {
    let name = nix::unistd::gethostname().unwrap_or_default();
    of(nix::unistd::sethostname(name))
}

fn set_clock() -> Outcome {
    let now = nix::time::ClockId::CLOCK_REALTIME.now();
    of(now.and_then(|now| nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, now)))
}

/// How many bytes can be read: an ioctl that we never use.
fn ask_file(dir: &Path) -> Outcome {
    let file = File::open(dir.join("read/policy")).expect("open");
    of(rustix::io::ioctl_fionread(&file))
}

const CHILD: &str = "SGWALL_REFUSED";

/// What a directory of a test holds.
fn furnish(dir: &Path) -> io::Result<UnixListener> {
    for name in ["read", "write", "remove"] {
        fs::create_dir(dir.join(name))?;
    }
    fs::write(dir.join("read/policy"), "version = 1\n")?;
    fs::write(dir.join("write/log"), "")?;
    UnixListener::bind(dir.join("remove/socket"))
}

fn files(dir: &Path) -> Files {
    let mut files = Files::default();
    files.read_again(&dir.join("read/policy"));
    files.append(&dir.join("write/log"));
    files.remove(&dir.join("remove/socket"));
    files
}

/// The child: gives up what is to be given up, tries, and says how it ended.
fn child(what: &str) -> Outcome {
    let (rights, number) = what.split_once(' ').unwrap_or((what, ""));
    let dir = std::env::current_dir().expect("a directory");
    if rights == "NoCapabilities" || rights == "Sandbox" {
        give_up(None).expect("given up");
    }
    if rights == "Sandbox" {
        let sandbox = enter(Mode::On, &files(&dir)).expect("a sandbox").expect("one");
        assert_eq!(sandbox.calls, Ok(()));
    }
    match rights {
        "threads" => with_a_thread(&dir),
        "no-landlock" => without(&[libc::SYS_landlock_create_ruleset], number, &dir),
        "no-seccomp" => without(&[libc::SYS_seccomp], number, &dir),
        "status" => status(&dir),
        _ => TRIES[number.parse::<usize>().expect("a number")].1(&dir),
    }
}

/// Rights are not given up by one thread while another keeps them.
fn with_a_thread(dir: &Path) -> Outcome {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv().is_ok());
    let said = [
        enter(Mode::On, &files(dir)).expect_err("a thread").to_string(),
        give_up(None).expect_err("a thread").to_string(),
    ];
    drop(sender);
    let _ = thread.join();
    said.join("; ")
}

/// What is said on a kernel that lacks some calls.
fn without(calls: &[libc::c_long], mode: &str, dir: &Path) -> Outcome {
    let rules: BTreeMap<_, _> = calls.iter().map(|&call| (call, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("known");
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, arch).expect("a filter");
    apply_filter(&BpfProgram::try_from(filter).expect("a filter")).expect("in force");
    let mode = if mode == "required" { Mode::Required } else { Mode::On };
    match enter(mode, &files(dir)) {
        Ok(sandbox) => format!("goes on: {}", sandbox.expect("one")),
        Err(error) => format!("fails: {error}"),
    }
}

/// What the kernel says of a process that has given up everything, as another user.
fn status(dir: &Path) -> Outcome {
    let account = Account::find("nobody").expect("a user");
    account.give(&dir.join("read/policy")).expect("given");
    give_up(Some(&account)).expect("given up");
    // A thread has what its process has.
    let status = std::thread::spawn(|| fs::read_to_string("/proc/thread-self/status"));
    let status = status.join().expect("a thread").expect("its status");
    let lines = status.lines().filter(|line| {
        ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs"].iter().any(|word| line.starts_with(word))
    });
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// Runs a child; how its try ended.
fn run(what: &str) -> Outcome {
    let dir = tempfile::tempdir().expect("a directory");
    let _listener = furnish(dir.path()).expect("furnished");
    assert!(dir.path().join("remove/socket").metadata().expect("there").file_type().is_socket());
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(CHILD, what).current_dir(dir.path()).stdin(Stdio::null());
    let output = command.output().expect("started");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.signal() {
        Some(libc::SIGSYS) => "killed".into(),
        // It became a program that says nothing.
        None if output.status.success() && said.is_empty() => "ended".into(),
        None if output.status.success() => said,
        _ => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

/// Without Landlock, all but what only that refuses.
fn what_must_be_refused_is_refused(has_landlock: bool) -> usize {
    let mut tried = 0;
    for (number, (name, _, expected)) in TRIES.iter().enumerate() {
        let all = [Rights::All, Rights::NoCapabilities, Rights::Sandbox];
        for (rights, expected) in all.iter().zip(expected) {
            let is_landlocks = matches!(*expected, "EACCES" | "no permission");
            if !expected.is_empty() && (has_landlock || !is_landlocks) {
                tried += 1;
                assert_eq!(run(&format!("{rights:?} {number}")), *expected, "{name}, {rights:?}");
            }
        }
    }
    tried
}

fn no_thread_keeps_what_is_given_up() {
    assert_eq!(
        run("threads").matches("2 threads run already, and would keep their rights").count(),
        2
    );
}

fn a_kernel_without_it_is_said_and_refused_where_it_is_required(has_landlock: bool) {
    let said = run("no-landlock on");
    assert!(said.contains("goes on: files: NOT RESTRICTED, this kernel has no Landlock"), "{said}");
    assert!(said.contains("system calls: seccomp"), "{said}");
    let said = run("no-landlock required");
    assert!(said.contains("fails: files: NOT RESTRICTED"), "{said}");
    assert!(said.contains("run a kernel that has it, or leave out --sandbox=required"), "{said}");
    let said = run("no-seccomp on");
    assert_eq!(said.contains("goes on: files: Landlock ABI"), has_landlock, "{said}");
    assert!(said.contains("system calls: NOT RESTRICTED, this kernel has no seccomp"), "{said}");
    let said = run("no-seccomp required");
    assert!(said.contains("fails: ") && said.contains("has no seccomp filters"), "{said}");
}

fn another_user_has_nothing_left() {
    let said = run("status");
    assert!(said.starts_with("Uid: 65534 65534 65534 65534 Gid: 65534"), "{said}");
    assert!(said.contains("Groups: 65534 "), "{said}");
    for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
        assert!(said.contains(&format!("Cap{set}: 0000000000000000")), "{set}: {said}");
    }
    assert!(said.contains("NoNewPrivs: 1"), "{said}");
}

fn main() -> ExitCode {
    if let Some(what) = std::env::var_os(CHILD) {
        print!("{}", child(&what.to_string_lossy()));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: what must be refused: not root");
        let is_required = std::env::var_os("SGWALL_LIVE").is_some_and(|value| value == "required");
        return if is_required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let has_landlock = run("no-seccomp on").contains("files: Landlock ABI");
    if !has_landlock {
        eprintln!("NOT RUN: what Landlock must refuse: this kernel has none, or it is off");
    }
    let tried = what_must_be_refused_is_refused(has_landlock);
    no_thread_keeps_what_is_given_up();
    a_kernel_without_it_is_said_and_refused_where_it_is_required(has_landlock);
    another_user_has_nothing_left();
    println!("{tried} tries, with all rights, without capabilities, and in the sandbox: ok");
    ExitCode::SUCCESS
}
