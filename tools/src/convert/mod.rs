//! `sgwall convert`: a policy in another form, and what is lost on the way.
//!
//! The forms that sgwall reads itself are written by `sgwall_rules`; nftables' is [`nft`].

pub(crate) mod args;
mod nft;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use sgwall_rules::model::{Compat, Exempt, FlowLimits, Interface, Policy, Subnet, Timeouts};
use sgwall_rules::{aws, native};

use self::nft::Devices;
use args::{ConvertArgs, Form};

use crate::failure::Failure;
use crate::policy;

/// Runs the command.
pub(crate) fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let files = policy::read(&args.policy)?;
    let policy = policy::load_model(&files)?;
    let output = args.output.as_deref();
    match args.to {
        Form::Toml => write(output, &native::write(&policy)),
        Form::Aws => {
            let (value, lost) = aws::write(&policy);
            let text = serde_json::to_string_pretty(&value).map_err(io::Error::from);
            write(output, &(text.map_err(Failure::Output)? + "\n"))?;
            tell(&lost);
            Ok(())
        }
        Form::Nftables => rulesets(args, &policy, output),
    }
}

/// The ruleset of one interface, or into a directory one of each.
fn rulesets(args: &ConvertArgs, policy: &Policy, output: Option<&Path>) -> Result<(), Failure> {
    let devices = Devices { instance: &args.instance_device, network: &args.network_device };
    let Some(dir) = output.filter(|path| path.is_dir()) else {
        let interface = interface(policy, args.interface.as_deref())?;
        let lost = lost_in_nftables(policy, interface);
        write(output, &ruleset(policy, interface, devices, &lost))?;
        tell(&lost);
        return Ok(());
    };
    let chosen = match args.interface.as_deref() {
        None if !policy.interfaces.is_empty() => policy.interfaces.iter().collect(),
        id => vec![interface(policy, id)?],
    };
    let mut written = HashSet::new();
    for interface in chosen {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = interface.id.chars().map(plain).collect();
        if !written.insert(name.clone()) {
            return Err(Failure::Usage(format!(
                "two interfaces would be written to {name}.nft: choose with --interface"
            )));
        }
        let lost = lost_in_nftables(policy, interface);
        let text = ruleset(policy, interface, devices, &lost);
        write(Some(&dir.join(name + ".nft")), &text)?;
        tell(&lost.iter().map(|what| format!("{}: {what}", interface.id)).collect::<Vec<_>>());
    }
    Ok(())
}

/// What the form could not say.
fn tell(lost: &[String]) {
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    for what in lost {
        anstream::eprintln!("{yellow}lost{yellow:#}: {what}");
    }
}

fn write(path: Option<&Path>, text: &str) -> Result<(), Failure> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => fs::write(path, text)
            .map_err(|e| Failure::Io(format!("cannot write {}: {e}", path.display()))),
        None => {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
        }
    }
}

/// The interface that is asked for, or the only one.
fn interface<'a>(policy: &'a Policy, id: Option<&str>) -> Result<&'a Interface, Failure> {
    let ids = || policy.interfaces.iter().map(|i| i.id.as_str()).collect::<Vec<_>>().join(", ");
    match (id, &policy.interfaces[..]) {
        (Some(id), all) => all.iter().find(|interface| interface.id == id).ok_or_else(|| {
            Failure::Usage(format!("the policy has no interface {id:?}; it has: {}", ids()))
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(Failure::Usage(
            "the policy has no interface, and a ruleset is for one: add a file that describes it"
                .to_owned(),
        )),
        (None, _) => Err(Failure::Usage(format!(
            "a ruleset is for one interface: choose one with --interface, or name a directory with -o \
             for all of {}",
            ids()
        ))),
    }
}

/// The whole file: what it is for, what differs, and the commands.
fn ruleset(
    policy: &Policy,
    interface: &Interface,
    devices: Devices<'_>,
    lost: &[String],
) -> String {
    let Devices { instance, network } = devices;
    let mut text = format!(
        "#!/usr/sbin/nft -f\n\
         # The security groups and the network ACL of {}, for a host that forwards between\n\
         # \"{instance}\", behind which the instance is, and \"{network}\", towards the network.\n\
         # Nothing else on the host may set or clear the mark of a connection.\n#\n",
        printable(&interface.id)
    );
    text += "# Set these as well, or the kernel judges otherwise:\n";
    for (name, value, why) in SETTINGS {
        let setting = format!("net.netfilter.{name}={value}");
        let _ = writeln!(text, "#   sysctl -w {setting:<42}  {why}");
    }
    text += "#\n# What the kernel does otherwise (K1 to K13 of docs/reliability.md):\n";
    for line in DIFFERENCES {
        let _ = writeln!(text, "#   {line}");
    }
    text += "#\n# What this policy says and the ruleset does not do:\n";
    for line in lost {
        let _ = writeln!(text, "#   {}", printable(line));
    }
    if lost.is_empty() {
        text += "#   nothing\n";
    }
    text + "\n" + &nft::commands(policy, interface, devices)
}

/// Names of a policy may hold anything; a comment ends with its line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Settings of the kernel's tracking, and what they are for.
const SETTINGS: [(&str, u8, &str); 3] = [
    ("nf_conntrack_tcp_loose", 0, "K5: no connection is picked up in the middle"),
    ("nf_conntrack_tcp_be_liberal", 1, "K6: segments outside the window pass"),
    ("nf_conntrack_checksum", 0, "K7: checksums are not looked at"),
];

const DIFFERENCES: [&str; 8] = [
    "K1: TCP segments that do not fit the state of their connection are judged by the rules",
    "K2-K4: connections end, and their addresses and ports are taken again, at other segments",
    "K8: fragments are reassembled before any rule sees them",
    "K9: SCTP, GRE, DCCP and IPv6 extension headers are looked into",
    "K10: ICMP queries are told apart by their code as well",
    "K11: flows are forgotten after the kernel's times",
    "K12: broadcast and multicast are not forwarded, and no sender's address is checked",
    "K13: packets that do not fit the link are the kernel's to answer, not the path's MTU",
];

/// What the policy says of the interface that the ruleset does not do.
fn lost_in_nftables(policy: &Policy, interface: &Interface) -> Vec<String> {
    let mut lost = Vec::new();
    if policy.exempt != Exempt::NONE {
        lost.push(
            "exempt: DHCP, DNS, metadata, time and neighbour discovery of the VPC are judged like \
             all else"
                .to_owned(),
        );
    }
    if policy.tcp_window_check {
        lost.push("tcp_window_check: leave nf_conntrack_tcp_be_liberal at 0 for it".to_owned());
    }
    let subnet = policy.subnets.iter().find(|subnet| subnet.id == interface.subnet);
    if policy.compat == Compat::Current && subnet.is_some_and(|s| !s.routes.is_empty()) {
        lost.push("routes: flows that are tracked because of their route are not".to_owned());
    }
    let detour = |subnet: &Subnet| subnet.routes.iter().any(|route| route.target.is_detour());
    if subnet.is_some_and(detour) {
        lost.push("routes: rules for groups hold behind middleboxes too".to_owned());
    }
    if interface.flows != FlowLimits::default() {
        lost.push("max_flows and reserved_flows: the kernel has one table for all".to_owned());
    }
    if interface.timeouts != Timeouts::default() {
        lost.push("timeouts: set net.netfilter.nf_conntrack_*_timeout*".to_owned());
    }
    if interface.source_dest_check {
        lost.push(
            "source_dest_check: packets of and to other addresses are judged alike".to_owned(),
        );
    }
    if policy.interfaces.len() > 1 {
        lost.push("each other interface: it needs a ruleset and a host of its own".to_owned());
    }
    if !policy.classic_instances.is_empty() {
        lost.push("EC2-Classic: its instances have no network ACL and are not written".to_owned());
    }
    lost
}
