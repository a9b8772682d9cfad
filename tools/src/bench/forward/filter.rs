//! The firewall as it is measured: a hundred rules, a network ACL on the way, every flow tracked.

use std::fmt::Write;
use std::sync::Arc;

use sgwall_dataplane::Config;
use sgwall_live::{Firewall, Port, Shared, Snapshot};
use sgwall_netio::seed::random_seed;
use sgwall_netio::worker::Handler;
use sgwall_rules::compile::Generation;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Vlans;

use super::lab::{CLIENT, SERVER};
use crate::failure::Failure;

/// Rules of the interface's groups, both directions together; two of them are met.
const RULES: usize = 100;

/// The handlers of so many workers, which share flows.
///
/// # Errors
/// If the policy that is made here is no policy, which would be a fault of ours.
pub(super) fn handlers(workers: usize) -> Result<Vec<Box<dyn Handler>>, Failure> {
    let text = policy();
    let input = Input { name: "bench policy".into(), bytes: text.as_bytes() };
    let model = load(&[input]).map_err(Failure::Policy)?.policy;
    let port = |device: &str, interface: Option<&str>| Port {
        device: device.into(),
        interface: interface.map(Into::into),
        vlans: Vlans::None,
    };
    let ports = vec![port("client", None), port("server", Some("eni-server"))];
    let snapshot = Snapshot::new(Arc::new(model), Generation(1), &ports);
    let config = Config { max_flows: 1 << 20, hash_seed: random_seed() };
    let shared = Arc::new(Shared::new(ports, snapshot, workers, config));
    let handler = |worker| Box::new(Firewall::new(Arc::clone(&shared), worker)) as Box<dyn Handler>;
    Ok((0..workers).map(handler).collect())
}

/// The server is the instance. Its group names the client's address, so that its flows are tracked,
/// among many rules that name others. It does so for both directions: of a connection that begins
/// while somebody else has the turn, what follows must pass.
fn policy() -> String {
    let mut group = String::new();
    for n in 0..RULES - 5 {
        let _ = writeln!(
            group,
            "  {{ protocol = \"tcp\", ports = \"{}-{}\", cidr = \"198.18.{n}.0/24\" }},",
            1000 + n,
            2000 + n
        );
    }
    format!(
        r#"
version = 1
[[vpc]]
id = "vpc-bench"
cidrs = ["10.99.0.0/16"]
[[subnet]]
id = "subnet-server"
vpc = "vpc-bench"
cidrs = ["10.99.1.0/24"]
network_acl = "acl-bench"
[[network_acl]]
id = "acl-bench"
ingress = [
  {{ rule = 100, action = "deny", protocol = "tcp", ports = 23, cidr = "0.0.0.0/0" }},
  {{ rule = 200, action = "allow", protocol = "all", cidr = "10.99.0.0/16" }},
]
egress = [{{ rule = 100, action = "allow", protocol = "all", cidr = "10.99.0.0/16" }}]
{}
[[interface]]
id = "eni-server"
subnet = "subnet-server"
addresses = ["{SERVER}"]
security_groups = ["sg-1", "sg-2"]
"#,
        groups(&group)
    )
}

/// The rules in two groups, as many as an edition of the limits allows.
fn groups(rules: &str) -> String {
    let lines: Vec<_> = rules.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    format!(
        "[[security_group]]\nid = \"sg-1\"\ningress = [\n{}\n]\n[[security_group]]\nid = \
         \"sg-2\"\ningress = [\n{}\n  {{ protocol = \"all\", cidr = \"{CLIENT}/32\" }},\n]\negress = \
         [{{ protocol = \"all\", cidr = \"{CLIENT}/32\" }}]\n",
        first.join("\n"),
        second.join("\n")
    )
}
