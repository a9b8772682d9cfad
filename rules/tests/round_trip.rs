//! Policies written down and read again: nothing is lost on the way, or it is told.

// Tests of input read files.
#![allow(clippy::disallowed_methods)]

#[path = "../../pcap-fixtures/tests/oracle/policies.rs"]
#[allow(dead_code)] // It also changes them.
mod random_policies;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sgwall_rules::diagnostic::{Origin, Source, SourceKind};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{Interface, Policy, Vlans};
use sgwall_rules::{aws, native};

/// The policy without the places where it was said.
fn placeless(policy: Policy) -> Policy {
    placed(policy, &Origin::synthetic(""))
}

/// The policy as if all of it had been said at `place`.
fn placed(mut policy: Policy, place: &Origin) -> Policy {
    let mut origins: Vec<&mut Origin> = Vec::new();
    origins.extend(policy.vpcs.iter_mut().map(|o| &mut o.origin));
    origins.extend(policy.prefix_lists.iter_mut().map(|o| &mut o.origin));
    origins.extend(policy.interfaces.iter_mut().map(|o| &mut o.origin));
    origins.extend(policy.classic_instances.iter_mut().map(|o| &mut o.origin));
    origins.extend(policy.peerings.iter_mut().map(|o| &mut o.origin));
    origins.extend(policy.ports.iter_mut().map(|o| &mut o.origin));
    for subnet in &mut policy.subnets {
        origins.push(&mut subnet.origin);
        origins.extend(subnet.routes.iter_mut().map(|o| &mut o.origin));
    }
    for group in &mut policy.security_groups {
        origins.push(&mut group.origin);
        origins.extend(group.ingress.iter_mut().chain(&mut group.egress).map(|o| &mut o.origin));
    }
    for acl in &mut policy.network_acls {
        origins.push(&mut acl.origin);
        origins.extend(acl.ingress.iter_mut().chain(&mut acl.egress).map(|o| &mut o.origin));
    }
    origins.into_iter().for_each(|origin| *origin = place.clone());
    policy
}

/// Names and contents of what makes one policy.
type Files = Vec<(String, Vec<u8>)>;

fn read(files: &[(String, Vec<u8>)]) -> Result<Policy, String> {
    let inputs: Vec<_> =
        files.iter().map(|(name, bytes)| Input { name: name.clone(), bytes }).collect();
    load(&inputs)
        .map(|loaded| loaded.policy)
        .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// What differs, an object a line.
fn difference(one: &Policy, other: &Policy) -> String {
    let lines = |policy: &Policy| -> Vec<String> {
        format!("{policy:#?}").lines().map(str::to_owned).collect()
    };
    let (one, other) = (lines(one), lines(other));
    let at = one.iter().zip(&other).position(|(a, b)| a != b).unwrap_or(one.len().min(other.len()));
    let near =
        |lines: &[String]| lines[at.saturating_sub(20)..(at + 5).min(lines.len())].join("\n");
    format!("{}\n-- against --\n{}", near(&one), near(&other))
}

/// Files that make one policy: each file and each directory of the repository's and of those that
/// stand beside it.
fn policies() -> Vec<(String, Files)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for place in [
        "examples",
        "pcap-fixtures/captures",
        "tools/tests",
        "rules/tests",
        "benches",
        "dist",
        "../shared/aws",
    ] {
        collect(&root.join(place), &mut all);
    }
    all
}

fn collect(dir: &Path, all: &mut Vec<(String, Files)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut together = Vec::new();
    for path in paths {
        if path.is_dir() {
            collect(&path, all);
        } else if path.extension().is_some_and(|e| e == "json" || e == "toml") {
            let file = (path.file_name().unwrap().display().to_string(), fs::read(&path).unwrap());
            all.push((path.display().to_string(), vec![file.clone()]));
            together.push(file);
        }
    }
    // A plan and the state before it describe the same things twice.
    if together.len() > 1 && !dir.ends_with("terraform") {
        all.push((dir.display().to_string(), together));
    }
}

/// Every policy that can be read, with its name.
fn read_all() -> Vec<(String, Policy)> {
    let read = |(name, files): (String, Files)| Some((name, read(&files).ok()?));
    let all: Vec<_> = policies().into_iter().filter_map(read).collect();
    let least = if Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/aws").is_dir() {
        100
    } else {
        eprintln!("NOT RUN on AWS's own answers: they do not stand beside the repository");
        8
    };
    assert!(all.len() > least, "only {} policies", all.len());
    all
}

/// Policies made in code, of everything that the slow pipeline is asked about, as if AWS had accepted
/// them: they refer to much that is not there.
fn random() -> impl Iterator<Item = (String, Policy)> {
    let source = Source { kind: SourceKind::Aws, ..Source::default() };
    let place = Origin::new(&Arc::new(source), "");
    (0..300).map(move |seed| {
        let mut policy = random_policies::policy(&mut fastrand::Rng::with_seed(seed));
        for Interface { timeouts, flows, .. } in &mut policy.interfaces {
            // No more can be kept for an interface than it may have.
            if let (Some(max), Some(reserved)) = (flows.max_flows, &mut flows.reserved_flows) {
                *reserved = max.min(*reserved);
            }
            // AWS has ranges of its own for these.
            timeouts.tcp_established = timeouts.tcp_established.map(|_| 60);
            timeouts.udp = timeouts.udp.map(|_| 60);
            timeouts.udp_stream = timeouts.udp_stream.map(|_| 60);
        }
        (format!("seed {seed}"), placed(policy, &place))
    })
}

#[test]
fn a_native_file_says_the_whole_policy() {
    for (name, policy) in read_all().into_iter().chain(random()) {
        let text = native::write(&policy);
        let again = read(&[("again.toml".into(), text.clone().into_bytes())])
            .unwrap_or_else(|errors| panic!("{name}:\n{errors}\n{text}"));
        let (one, other) = (placeless(policy), placeless(again));
        assert!(one == other, "{name}: {}", difference(&one, &other));
        assert_eq!(native::write(&other), native::write(&one), "{name}");
    }
}

#[test]
fn answers_of_aws_say_all_but_what_is_told() {
    let mut whole = 0;
    for (name, policy) in read_all().into_iter().chain(random()) {
        let (value, lost) = aws::write(&policy);
        let again = read(&[("again.json".into(), value.to_string().into_bytes())])
            .unwrap_or_else(|errors| panic!("{name}:\n{errors}"));
        let (one, other) = (placeless(policy), placeless(again));
        whole += u32::from(lost.is_empty());
        assert!(!lost.is_empty() || one == other, "{name}: {}", difference(&one, &other));
        // The rules of groups and ACLs are never lost.
        assert!(one.security_groups == other.security_groups, "{name}: {lost:?}");
        assert!(
            one.network_acls.iter().all(|acl| other.network_acls.contains(acl)),
            "{name}: {lost:?}"
        );
    }
    assert!(whole > 3, "only {whole} policies without a loss");
}

#[test]
fn what_is_lost_in_answers_of_aws_is_told() {
    let text = r#"
version = 1
compat = "current"
icmp_related = true
exempt = ["dns"]
tcp_window_check = true
limits = { rules_per_group = 61, rules_per_interface = 1000 }
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
routes = [{ destination = "0.0.0.0/0", target = "gateway-endpoint", mtu = 1500 }]
[[security_group]]
id = "sg-1"
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10"]
security_groups = ["sg-1"]
mtu = 1500
timeouts = { icmp = 5, udp = 40 }
max_flows = 9
[[port]]
device = "tap0"
"#;
    let policy = read(&[("p.toml".into(), text.into())]).unwrap();
    assert_eq!(policy.ports[0].vlans, Vlans::None);
    assert_eq!(
        aws::write(&policy).1,
        [
            "compat: a small TOML file beside the answers can set it",
            "icmp_related: a small TOML file beside the answers can set it",
            "exempt: a small TOML file beside the answers can set it",
            "tcp_window_check: a small TOML file beside the answers can set it",
            "[limits]: a small TOML file beside the answers can set it",
            "the port tap0",
            "the route of subnet-1 to 0.0.0.0/0: its MTU",
            "the route of subnet-1 to 0.0.0.0/0: that it leads to a gateway endpoint, not another gateway",
            "eni-1: its MTU",
            "eni-1: max_flows and reserved_flows",
            "eni-1: timeouts other than tcp_established, udp, udp_stream",
        ]
    );
}

/// What only AWS's answers said before: it stays in a native file, which is then judged as they are.
#[test]
fn what_aws_has_accepted_stays_accepted() {
    let dump = r#"{ "SecurityGroups": [{ "GroupId": "sg-1", "GroupName": "ä\"\\\nx", "VpcId": "vpc-1", "OwnerId": "123",
        "IpPermissions": [{ "IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [
            { "GroupId": "sg-9", "UserId": "456", "VpcId": "vpc-9", "VpcPeeringConnectionId": "pcx-1", "PeeringStatus": "deleted" }] }] }],
        "SecurityGroupRules": [{ "SecurityGroupRuleId": "sgr-1", "GroupId": "sg-1", "IsEgress": false, "IpProtocol": "tcp",
            "FromPort": 80, "ToPort": 80, "ReferencedGroupInfo": { "GroupId": "sg-9" } }],
        "PrefixLists": [{ "PrefixListId": "pl-1" }],
        "NetworkInterfaces": [{ "NetworkInterfaceId": "eni-1" }] }"#;
    let policy = read(&[("dump.json".into(), dump.into())]).unwrap();
    let text = native::write(&policy);
    for line in [
        "accepted = true",
        "owner = \"123\"",
        "name = \"ä\\\"\\\\\\nx\"",
        "  { id = \"sgr-1\", protocol = \"tcp\", ports = 80, group = \"sg-9\", peering = \"pcx-1\", group_vpc = \"vpc-9\", group_owner = \"456\", stale = true },",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    let again = read(&[("p.toml".into(), text.clone().into_bytes())])
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
    let (one, other) = (placeless(policy), placeless(again));
    assert!(one == other, "{}", difference(&one, &other));
    // The same file of a person is refused.
    let refused = read(&[("p.toml".into(), text.replace("accepted = true\n", "").into_bytes())]);
    assert!(refused.is_err_and(|errors| errors.contains("\"vpc-1\"")));
}
