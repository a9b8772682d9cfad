//! The hosts, the firewall between them, and its policy.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sgwall_netio::netns::{Scratch, can_test};
use tempfile::TempDir;

/// Long enough for any machine; a test that works never waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come for us to believe that nothing will.
pub(crate) const SILENCE: Duration = Duration::from_millis(600);

/// The instance's addresses.
pub(crate) const INSTANCE: &str = "10.0.1.10";
pub(crate) const INSTANCE_V6: &str = "2001:db8:0:1::10";
/// A host of the internet; behind the router, which is the same namespace.
pub(crate) const WORLD: &str = "203.0.113.9";
pub(crate) const WORLD_V6: &str = "2001:db8:9::9";
/// A host of another subnet of the VPC, behind the same router.
pub(crate) const PEER: &str = "10.0.2.20";
pub(crate) const PEER_V6: &str = "2001:db8:0:2::20";

/// Rules that allow all, to everywhere.
pub(crate) const ALL: &str = r#"
  { protocol = "all", cidr = "0.0.0.0/0" },
  { protocol = "all", cidr = "::/0" },"#;

/// Whether live tests can run here. If not, says so, and fails where they are required.
pub(crate) fn can_run(test: &str, programs: &[&str]) -> bool {
    can_test(test, &[&["ping"], programs].concat())
}

/// Waits until `holds`, and fails if it never does.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The `sgwall` under test.
pub(crate) fn sgwall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sgwall"));
    command.stdin(Stdio::null());
    command
}

/// A policy of one interface, `eni-1`, in one group, `sg-1`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// Further keys at the top.
    pub(crate) top: &'a str,
    /// Ingress rules.
    pub(crate) ingress: &'a str,
    /// Egress rules.
    pub(crate) egress: &'a str,
    /// Further keys of the interface, and tables after it.
    pub(crate) interface: &'a str,
}

impl Rules<'_> {
    /// As AWS makes a group: nothing in, everything out.
    pub(crate) const NEW: Rules<'static> =
        Rules { top: "", ingress: "", egress: ALL, interface: "" };

    /// The policy file.
    pub(crate) fn text(&self) -> String {
        let Rules { top, ingress, egress, interface } = self;
        format!(
            r#"version = 1
{top}
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]

[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]

[[security_group]]
id = "sg-1"
ingress = [{ingress}]
egress = [{egress}]

[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["{INSTANCE}", "{INSTANCE_V6}"]
security_groups = ["sg-1"]
{interface}
"#
        )
    }
}

/// A running `sgwall run`, and the directory of its files. Killed when dropped.
pub(crate) struct Firewall {
    child: Child,
    dir: TempDir,
}

impl Firewall {
    /// Starts it in the namespace `middle` with a policy, and waits until it runs.
    pub(crate) fn start(middle: &Scratch, policy: &str, args: &[&str]) -> Firewall {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("policy.toml"), policy).expect("written");
        Firewall::start_in(dir, middle, args, |_| {})
    }

    /// The same with the policy that is in a directory, and further settings of the command.
    pub(crate) fn start_in(
        dir: TempDir,
        middle: &Scratch,
        args: &[&str],
        set: impl FnOnce(&mut Command),
    ) -> Firewall {
        let log = File::create(dir.path().join("log")).expect("a log");
        let mut command = middle.command(env!("CARGO_BIN_EXE_sgwall"));
        command.arg("run").arg("--policy").arg(dir.path().join("policy.toml"));
        command.arg("--control").arg(dir.path().join("control")).args(args);
        command.stdout(Stdio::null()).stderr(log);
        set(&mut command);
        let child = command.spawn().expect("ip of iproute2");
        let mut firewall = Firewall { child, dir };
        eventually("the firewall runs", || {
            let ended = firewall.child.try_wait().expect("its status");
            assert!(ended.is_none(), "{ended:?}: {}", firewall.log());
            firewall.log().contains("the firewall runs")
        });
        firewall
    }

    /// Kills it, and starts it again with the same files; `policy` replaces its policy.
    pub(crate) fn start_again(mut self, middle: &Scratch, policy: &str, args: &[&str]) -> Firewall {
        self.signal(Signal::KILL);
        self.wait();
        fs::write(self.policy(), policy).expect("written");
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a directory"));
        File::create(self.dir.path().join("log")).expect("a log");
        Firewall::start_in(dir, middle, args, |_| {})
    }

    /// The directory of its files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A line of `/proc/PID/status`, as a number.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Its control socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// Its policy file.
    pub(crate) fn policy(&self) -> PathBuf {
        self.dir.path().join("policy.toml")
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("its log")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the firewall ends", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Asks it, by a command that is to succeed; its output.
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        let output = self.try_ask(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Asks it.
    pub(crate) fn try_ask(&self, args: &[&str]) -> Output {
        let mut command = sgwall();
        command.args(args).arg("--control").arg(self.control());
        command.output().expect("sgwall runs")
    }

    /// Replaces its policy file at once, as careful editors do.
    pub(crate) fn write_policy(&self, policy: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, policy).expect("written");
        fs::rename(&new, self.policy()).expect("renamed");
    }

    /// Puts another policy in force; what the firewall said of it.
    pub(crate) fn reload(&self, policy: &str) -> String {
        self.write_policy(policy);
        self.ask(&["reload"])
    }

    /// Its counters.
    pub(crate) fn stats(&self) -> Value {
        let lines = self.ask(&["stats", "--json"]);
        let first = lines.lines().next().expect("an answer");
        serde_json::from_str(first).expect("JSON")
    }

    /// Packets that passed for a reason, on all interfaces.
    pub(crate) fn passed(&self, reason: &str) -> u64 {
        self.packets("pass", reason)
    }

    /// Packets that were dropped for a reason, on all interfaces.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.packets("drop", reason)
    }

    fn packets(&self, verdict: &str, reason: &str) -> u64 {
        let stats = self.stats();
        let reasons = stats["reasons"].as_array().expect("reasons");
        let meant = reasons.iter().filter(|of| of["verdict"] == verdict && of["reason"] == reason);
        meant.map(|of| of["packets"].as_u64().expect("a number")).sum()
    }

    /// Its tracked flows that pass a filter.
    pub(crate) fn flows(&self, filter: &[&str]) -> Vec<Value> {
        let lines = self.ask(&[&["flows", "--json"], filter].concat());
        let answers = lines.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        answers.filter(|answer: &Value| answer["type"] == "flow").collect()
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the firewall said:\n{}", self.log());
        }
    }
}

/// An instance, the world, and the firewall between them, each in its own namespace.
pub(crate) struct Lab {
    // The firewall first: it ends before its namespace does.
    pub(crate) firewall: Firewall,
    pub(crate) instance: Scratch,
    pub(crate) world: Scratch,
    pub(crate) middle: Scratch,
}

impl Lab {
    /// Starts the firewall with `rules` and further arguments between two TAP interfaces: `tap-i`
    /// in the instance, `tap-n` in the world, where it has MTU 1500 as the internet has.
    pub(crate) fn new(label: &str, rules: &Rules<'_>, args: &[&str]) -> Lab {
        Lab::with(label, rules, args, |_| {})
    }

    /// The same, with further settings of the command.
    pub(crate) fn with(
        label: &str,
        rules: &Rules<'_>,
        args: &[&str],
        set: impl FnOnce(&mut Command),
    ) -> Lab {
        let [instance, world, middle] = [(); 3].map(|()| Scratch::new(label).expect("a namespace"));
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("policy.toml"), rules.text()).expect("written");
        let firewall = Firewall::start_in(dir, &middle, &[&DEVICES, args].concat(), set);
        let lab = Lab { firewall, instance, world, middle };
        lab.connect();
        lab
    }

    /// Gives the hosts the interfaces that the firewall has made.
    pub(crate) fn connect(&self) {
        move_to(&self.middle, "tap-i", &self.instance);
        move_to(&self.middle, "tap-n", &self.world);
        set_up_instance(&self.instance, "tap-i", INSTANCE, INSTANCE_V6);
        set_up_world(&self.world, "tap-n");
    }

    /// Kills the firewall and starts it again, with TAP interfaces of the same names.
    pub(crate) fn restart(self, policy: &str) -> Lab {
        let Lab { firewall, instance, world, middle } = self;
        let firewall = firewall.start_again(&middle, policy, &DEVICES);
        let lab = Lab { firewall, instance, world, middle };
        lab.connect();
        lab
    }
}

/// The flags of a lab's devices.
const DEVICES: [&str; 6] = ["--interface", "eni-1", "--instance", "tap-i", "--network", "tap-n"];

/// Moves an interface to another namespace.
pub(crate) fn move_to(from: &Scratch, device: &str, to: &Scratch) {
    from.ip(&format!("link set {device} netns {}", to.name())).expect("moved");
}

fn all_of(host: &Scratch, commands: &[String]) {
    for command in commands {
        host.ip(command).expect("ip of iproute2");
    }
}

/// Gives an instance its addresses and its routes.
pub(crate) fn set_up_instance(host: &Scratch, device: &str, v4: &str, v6: &str) {
    let commands = [
        format!("address add {v4}/24 dev {device}"),
        format!("address add {v6}/64 dev {device} nodad"),
        format!("link set {device} up"),
        "route add default via 10.0.1.1".to_owned(),
        "route add default via 2001:db8:0:1::1".to_owned(),
    ];
    all_of(host, &commands);
}

/// Makes a host the subnet's router and all that is behind it; by default it speaks from [`WORLD`].
pub(crate) fn set_up_world(host: &Scratch, device: &str) {
    let commands = [
        format!("address add 10.0.1.1/24 dev {device}"),
        format!("address add 2001:db8:0:1::1/64 dev {device} nodad"),
        format!("address replace {WORLD}/32 dev lo"),
        format!("address replace {WORLD_V6}/128 dev lo nodad"),
        format!("address replace {PEER}/32 dev lo"),
        format!("address replace {PEER_V6}/128 dev lo nodad"),
        format!("link set {device} mtu 1500"),
        format!("link set {device} up"),
        format!("route replace 10.0.1.0/24 dev {device} src {WORLD}"),
        format!("route replace 2001:db8:0:1::/64 dev {device} src {WORLD_V6} metric 1"),
    ];
    all_of(host, &commands);
}
