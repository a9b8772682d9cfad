//! The laboratory: an instance, the world, and `sgwall run` between them, each in a network namespace
//! of its own, with the files of the firewall in a directory of its own. Dropping it takes all away.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sgwall_live::control::{Answer, Request};
use sgwall_live::engine::Stats;
use sgwall_netio::netns::{NetnsError, Scratch};

use crate::ask;
use crate::bench::args::SoakArgs;
use crate::failure::Failure;

/// The instance, and a host of the world that the policy knows.
pub(super) const INSTANCE: &str = "10.0.1.10";
pub(super) const INSTANCE_V6: &str = "2001:db8:0:1::10";
pub(super) const WORLD: &str = "203.0.113.9";
pub(super) const WORLD_V6: &str = "2001:db8:9::9";
/// A host of the world that no rule names, for either direction.
pub(super) const STRANGER: &str = "198.51.100.7";
pub(super) const STRANGER_V6: &str = "2001:db8:bad::7";

/// Open to the known part of the world: long transfers, short ones, and one where nobody listens.
pub(super) const STREAM: u16 = 8000;
pub(super) const SHORT: u16 = 8001;
pub(super) const DEAD: u16 = 8002;
/// Open: datagrams that are answered, and the first of 256 ports where nobody listens.
pub(super) const ECHO: u16 = 9000;
pub(super) const DEAD_UDP: u16 = 9500;
/// Not open, though somebody listens there, with TCP and UDP.
pub(super) const SHUT: u16 = 8100;
/// Where the world listens for the instance, with TCP.
pub(super) const BACK: u16 = 8080;

/// Long enough for any machine to start a program.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the process of the firewall has, from `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Memory in use, KiB.
    pub(super) resident: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
}

pub(super) struct Lab {
    // The firewall ends before the namespaces go.
    firewall: Firewall,
    pub(super) instance: Scratch,
    pub(super) world: Scratch,
    _middle: Scratch,
}

/// The process, and its files.
struct Firewall {
    child: Child,
    dir: Directory,
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Failure> {
        let [random, ..] = sgwall_netio::seed::random_seed();
        let name = format!("sgwall-soak-{}-{:08x}", std::process::id(), random as u32);
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| io(&path, &error))?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("directory {} stays: {error}", self.0.display());
        }
    }
}

impl Lab {
    pub(super) fn new(args: &SoakArgs) -> Result<Self, Failure> {
        let [instance, world, middle] = ["instance", "world", "middle"].map(Scratch::new);
        let (instance, world, middle) = (
            instance.map_err(|error| needs_root(&error))?,
            world.map_err(|error| needs_root(&error))?,
            middle.map_err(|error| needs_root(&error))?,
        );
        let firewall = Firewall::start(args, &middle)?;
        for (device, host) in [("tap-i", &instance), ("tap-n", &world)] {
            ip(&middle, &[&format!("link set {device} netns {}", host.name())])?;
        }
        ip(
            &instance,
            &[
                &format!("address add {INSTANCE}/24 dev tap-i"),
                &format!("address add {INSTANCE_V6}/64 dev tap-i nodad"),
                "link set tap-i up",
                "route add default via 10.0.1.1",
                "route add default via 2001:db8:0:1::1",
            ],
        )?;
        ip(
            &world,
            &[
                "address add 10.0.1.1/24 dev tap-n",
                "address add 2001:db8:0:1::1/64 dev tap-n nodad",
                &format!("address add {WORLD}/32 dev lo"),
                &format!("address add {WORLD_V6}/128 dev lo nodad"),
                &format!("address add {STRANGER}/32 dev lo"),
                &format!("address add {STRANGER_V6}/128 dev lo nodad"),
                "link set tap-n up",
                &format!("route replace 10.0.1.0/24 dev tap-n src {WORLD}"),
                &format!("route replace 2001:db8:0:1::/64 dev tap-n src {WORLD_V6} metric 1"),
            ],
        )?;
        Ok(Lab { firewall, instance, world, _middle: middle })
    }

    /// Puts policy number `n` in force.
    pub(super) fn reload(&self, n: u64) -> Result<(), Failure> {
        self.firewall.dir.write_policy(n)?;
        self.ask(&Request::Reload).map(drop)
    }

    /// Ends flows; how many.
    pub(super) fn kill(&self, filter: &str) -> Result<u64, Failure> {
        match self.ask(&Request::Kill { filter: filter.to_owned() })? {
            Answer::Killed { ended } => Ok(ended as u64),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn stats(&self) -> Result<Stats, Failure> {
        match self.ask(&Request::Stats)? {
            Answer::Stats(stats) => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        // One that has failed is to be reported by what it said.
        ask::one(&self.firewall.dir.control(), request)
            .map_err(|failure| Failure::Live(format!("{failure}\n{}", self.firewall.log())))
    }

    pub(super) fn usage(&self) -> Result<Usage, Failure> {
        let process = PathBuf::from(format!("/proc/{}", self.firewall.child.id()));
        let status = read(&process.join("status"))?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .ok_or_else(|| Failure::Io(format!("{}: no {key}", process.display())))
        };
        let open = process.join("fd");
        let descriptors = fs::read_dir(&open).map_err(|error| io(&open, &error))?.count() as u64;
        Ok(Usage { resident: number("VmRSS:")?, threads: number("Threads:")?, descriptors })
    }

    /// Frames for the firewall that the kernel dropped on both sides, because it had not read those
    /// before them.
    pub(super) fn kernel_drops(&self) -> Result<u64, Failure> {
        let mut drops = 0;
        for (host, device) in [(&self.instance, "tap-i:"), (&self.world, "tap-n:")] {
            // Of the network namespace of the thread that reads.
            let table = host.inside(|| read(Path::new("/proc/thread-self/net/dev")));
            let table = table.map_err(|error| Failure::Io(error.to_string()))??;
            let line = table.lines().find_map(|line| line.trim_start().strip_prefix(device));
            // Bytes, packets, errors, drops and four more received; then the same sent.
            let dropped =
                line.and_then(|line| line.split_whitespace().nth(8 + 3)?.parse::<u64>().ok());
            drops += dropped.ok_or_else(|| Failure::Io(format!("no counters of {device}")))?;
        }
        Ok(drops)
    }
}

impl Firewall {
    fn start(args: &SoakArgs, middle: &Scratch) -> Result<Self, Failure> {
        let dir = Directory::new()?;
        dir.write_policy(0)?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::Io(format!("cannot find this program: {error}")))?;
        let log = File::create(dir.log()).map_err(|error| io(&dir.log(), &error))?;
        let mut command = middle.command(&program.display().to_string());
        command.args(["run", "--interface", "eni-1", "--instance", "tap-i", "--network", "tap-n"]);
        command.args(["--mtu", "1500", "--on-reload", "rejudge"]);
        command.arg("--workers").arg(args.workers.to_string());
        command.arg("--policy").arg(dir.policy()).arg("--control").arg(dir.control());
        command.stdout(Stdio::null()).stderr(log);
        // An interrupt from the terminal is for us, who then end it.
        command.process_group(0);
        let child = command
            .spawn()
            .map_err(|error| Failure::Io(format!("cannot run the firewall: {error}")))?;
        let mut firewall = Firewall { child, dir };
        let begin = Instant::now();
        while !firewall.log().contains("the firewall runs") {
            let ended = firewall.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || begin.elapsed() > PATIENCE {
                let log = firewall.log();
                return Err(Failure::Io(format!("the firewall does not start:\n{log}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(firewall)
    }

    /// What it has said.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.log()).unwrap_or_default()
    }
}

impl Directory {
    fn policy(&self) -> PathBuf {
        self.0.join("policy.toml")
    }

    fn control(&self) -> PathBuf {
        self.0.join("control")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn write_policy(&self, n: u64) -> Result<(), Failure> {
        let new = self.0.join("new");
        fs::write(&new, policy(n)).map_err(|error| io(&new, &error))?;
        fs::rename(&new, self.policy()).map_err(|error| io(&new, &error))
    }
}

/// Policies that differ and let the same packets through: other rules before and after those that
/// count, in another order, in one group or in two.
pub(super) fn policy(n: u64) -> String {
    let dead = format!("{DEAD_UDP}-{}", DEAD_UDP + 255);
    let mut rules = Vec::new();
    for (family, known) in [("icmp", "203.0.113.0/24"), ("icmpv6", "2001:db8:9::/48")] {
        let kind = if family == "icmp" { 8 } else { 128 };
        rules.push(format!("{{ protocol = \"{family}\", type = {kind}, cidr = \"{known}\" }}"));
        for (protocol, ports) in
            [("tcp", format!("{STREAM}-{DEAD}")), ("udp", ECHO.to_string()), ("udp", dead.clone())]
        {
            rules.push(format!(
                "{{ protocol = \"{protocol}\", ports = \"{ports}\", cidr = \"{known}\" }}"
            ));
        }
    }
    rules.push("{ protocol = 47, cidr = \"203.0.113.0/24\" }".to_owned());
    let places = rules.len() as u64;
    rules.rotate_left((n % places) as usize);
    for other in 0..n % 30 {
        let rule = format!("{{ protocol = \"tcp\", ports = 443, cidr = \"192.0.2.{other}/32\" }}");
        rules.insert((other % 2) as usize * rules.len(), rule);
    }
    let (first, second) = rules.split_at(if n.is_multiple_of(2) { 0 } else { rules.len() / 2 });
    let groups = [first, second].map(|rules| rules.join(",\n  "));
    format!(
        r#"version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
[[security_group]]
id = "sg-1"
ingress = [{}]
egress = [
  {{ protocol = "all", cidr = "203.0.113.0/24" }},
  {{ protocol = "all", cidr = "2001:db8:9::/48" }},
]
[[security_group]]
id = "sg-2"
ingress = [{}]
egress = []
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["{INSTANCE}", "{INSTANCE_V6}"]
security_groups = ["sg-1", "sg-2"]
"#,
        groups[0], groups[1]
    )
}

fn ip(host: &Scratch, commands: &[&str]) -> Result<(), Failure> {
    commands
        .iter()
        .try_for_each(|command| host.ip(command))
        .map_err(|error| Failure::Io(error.to_string()))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| io(path, &error))
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Io(format!("{}: {error}", path.display()))
}

fn unexpected(answer: &Answer) -> Failure {
    Failure::Live(format!("the firewall answered with something else: {answer:?}"))
}

fn needs_root(error: &NetnsError) -> Failure {
    Failure::Io(format!("cannot make a network namespace (this needs root): {error}"))
}

#[cfg(test)]
mod tests {
    use sgwall_rules::load::{Input, load};

    /// All of them are policies, and no two that follow each other are the same.
    #[test]
    fn policies_are_good_and_differ() {
        for n in 0..200 {
            let text = super::policy(n);
            let input = Input { name: "policy".into(), bytes: text.as_bytes() };
            load(&[input]).unwrap_or_else(|errors| panic!("policy {n}: {errors:?}"));
            assert_ne!(text, super::policy(n + 1));
        }
    }
}
