//! VPCs, subnets, network ACLs, prefix lists, peerings and interfaces.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Index, Report, field};
use crate::diagnostic::SourceKind;
use crate::instance_types::InstanceType;
use crate::model::{Compat, Direction, Interface, L4Match, NetworkAcl, Policy, PrefixList, Subnet};

/// Addresses at the base of a subnet that AWS keeps for itself: network, router, DNS, future.
const RESERVED: u128 = 4;
/// How to mend what an instance type does not have.
const OTHER_TYPE: &str = "use less of it, or a type that has more";

pub(super) fn check(policy: &Policy, index: &Index<'_>, report: &mut Report<'_>) {
    for vpc in &policy.vpcs {
        if vpc.cidrs.is_empty() {
            report.fault(
                "MissingParameter",
                &vpc.origin,
                "the VPC has no address range",
                "add cidrs = [\"10.0.0.0/16\"]",
            );
        }
    }
    for (n, subnet) in policy.subnets.iter().enumerate() {
        check_subnet(subnet, &policy.subnets[..n], index, report);
    }
    for list in &policy.prefix_lists {
        check_prefix_list(list, policy, report);
    }
    let mut acls_of_vpc: HashMap<&str, u32> = HashMap::new();
    for acl in &policy.network_acls {
        check_acl(acl, policy, index, report);
        let count = acls_of_vpc.entry(acl.vpc.as_deref().unwrap_or_default()).or_default();
        *count += 1;
        if report.is_above(*count, policy.limits.acls_per_vpc) {
            report.fault(
                "NetworkAclLimitExceeded",
                &acl.origin,
                format!("more than {} network ACLs in one VPC", policy.limits.acls_per_vpc),
                "remove some, or raise acls_per_vpc in [limits]",
            );
        }
    }
    for peering in &policy.peerings {
        for vpc in &peering.vpcs {
            // AWS tells of peerings with VPCs of other accounts, which no dump holds.
            if peering.origin.source.kind == SourceKind::Native
                && !index.vpcs.contains_key(vpc.as_str())
            {
                let at = field(&peering.origin, "vpcs");
                report.missing("InvalidVpcID.NotFound", &at, ("VPC", vpc), "");
            }
        }
    }
    let mut owners = HashMap::new();
    for interface in &policy.interfaces {
        check_interface(interface, policy, index, report);
        check_addresses(interface, index, &mut owners, report);
    }
    check_public(policy, report);
    check_instances(policy, report);
}

/// What an instance of a type may have (SEMANTICS 1.9, 12.3).
fn check_instances(policy: &Policy, report: &mut Report<'_>) {
    let mut attached: HashMap<&str, (u32, &str)> = HashMap::new();
    for interface in &policy.interfaces {
        let Some(name) = interface.instance_type.as_deref() else { continue };
        let at = field(&interface.origin, "instance_type");
        if let Some(instance) = interface.instance.as_deref() {
            let (count, first) = attached.entry(instance).or_insert((0, name));
            *count += 1;
            if *first != name {
                let message = format!("{instance} is {first} elsewhere and {name} here");
                report.fault("InvalidParameterValue", &at, message, "an instance has one type");
            }
        }
        let Some(most) = InstanceType::of(name) else { continue };
        let count = interface.instance.as_deref().map_or(0, |id| attached[id].0);
        if report.is_above(count, most.interfaces) {
            let message = format!("more than {} interfaces on a {name}", most.interfaces);
            report.fault("AttachmentLimitExceeded", &at, message, OTHER_TYPE);
        }
        let ipv6 = interface.addresses.iter().filter(|address| address.is_ipv6()).count();
        let ipv4 = interface.addresses.len() - ipv6;
        for (family, count, most) in [("IPv4", ipv4, most.ipv4), ("IPv6", ipv6, most.ipv6)] {
            if count > most as usize {
                let message =
                    format!("{count} {family} addresses, an interface of {name} has {most}");
                let at = field(&interface.origin, "addresses");
                report.fault("PrivateIpAddressLimitExceeded", &at, message, OTHER_TYPE);
            }
        }
        if interface.mtu.is_some_and(|mtu| mtu > most.mtu) {
            let message = format!("an interface of {name} has an MTU of {} at most", most.mtu);
            report.fault(
                "InvalidParameterValue",
                &field(&interface.origin, "mtu"),
                message,
                OTHER_TYPE,
            );
        }
    }
}

/// A public address leads to one private address, which has no other (SEMANTICS 13.1, 14.5).
fn check_public(policy: &Policy, report: &mut Report<'_>) {
    for interface in &policy.interfaces {
        let mut known = HashSet::new();
        let again = interface.public.iter().find(|(private, _)| !known.insert(private));
        if let Some((private, _)) = again {
            report.fault(
                "Resource.AlreadyAssociated",
                &field(&interface.origin, "public"),
                format!("{private} has a public address already"),
                "a private address has one public address: remove one",
            );
        }
    }
    let interfaces = policy.interfaces.iter().flat_map(|interface| {
        let public = interface.public.iter();
        public.map(move |(_, public)| (public, &interface.id, &interface.origin))
    });
    let instances = policy.classic_instances.iter();
    let instances = instances.filter_map(|i| Some((i.public.as_ref()?, &i.id, &i.origin)));
    let mut owners = HashMap::new();
    for (public, id, at) in interfaces.chain(instances) {
        if let Some(owner) = owners.insert(public, id) {
            report.fault(
                "Resource.AlreadyAssociated",
                &field(at, "public"),
                format!("{public} stands for an address of {owner} already"),
                "a public address stands for one private address: choose another",
            );
        }
    }
}

fn check_subnet(subnet: &Subnet, before: &[Subnet], index: &Index<'_>, report: &mut Report<'_>) {
    let at = &subnet.origin;
    match index.vpcs.get(subnet.vpc.as_str()) {
        None => report.missing(
            "InvalidVpcID.NotFound",
            &field(at, "vpc"),
            ("VPC", &subnet.vpc),
            "its resolver and its routes are unknown",
        ),
        Some(vpc) => {
            for cidr in &subnet.cidrs {
                if !vpc.cidrs.iter().any(|range| range.contains(cidr)) {
                    report.fault(
                        "InvalidSubnet.Range",
                        &field(at, "cidrs"),
                        format!("{cidr} lies outside its VPC {}", vpc.id),
                        "choose a range inside the VPC's, or add one to the VPC",
                    );
                }
            }
        }
    }
    let families = [false, true]
        .map(|v6| subnet.cidrs.iter().filter(|c| matches!(c, IpNet::V6(_)) == v6).count());
    if subnet.cidrs.is_empty() || families.iter().any(|&n| n > 1) {
        report.fault(
            "InvalidSubnet.Range",
            &field(at, "cidrs"),
            format!("the subnet has {} IPv4 and {} IPv6 ranges", families[0], families[1]),
            "give it one range of a family, or one of each",
        );
    }
    for other in before.iter().filter(|other| other.vpc == subnet.vpc && other.id != subnet.id) {
        for cidr in &subnet.cidrs {
            if other.cidrs.iter().any(|c| c.contains(cidr) || cidr.contains(c)) {
                report.fault(
                    "InvalidSubnet.Conflict",
                    &field(at, "cidrs"),
                    format!("{cidr} overlaps the subnet {}", other.id),
                    "subnets of a VPC do not overlap: choose another range",
                );
            }
        }
    }
    let Some(id) = &subnet.network_acl else { return };
    match index.acls.get(id.as_str()) {
        None => report.missing(
            "InvalidNetworkAclID.NotFound",
            &field(at, "network_acl"),
            ("network ACL", id),
            "nothing crosses the edge of its subnets",
        ),
        Some(acl) if acl.vpc.as_ref().is_some_and(|vpc| *vpc != subnet.vpc) => report.fault(
            "InvalidParameterValue",
            &field(at, "network_acl"),
            format!("{id} belongs to another VPC than the subnet"),
            "use an ACL of the same VPC",
        ),
        Some(_) => {}
    }
}

fn check_prefix_list(list: &PrefixList, policy: &Policy, report: &mut Report<'_>) {
    let at = &list.origin;
    let Some(entries) = &list.entries else { return };
    let v6 = entries.iter().filter(|e| matches!(e, IpNet::V6(_))).count();
    if v6 > 0 && v6 < entries.len() {
        report.fault(
            "InvalidParameterValue",
            &field(at, "entries"),
            "the list mixes IPv4 and IPv6",
            "make one list for each family",
        );
    }
    let (have, limit) = (entries.len(), policy.limits.entries_per_prefix_list);
    if have > limit as usize {
        report.fault(
            "PrefixListEntryLimitExceeded",
            &field(at, "entries"),
            format!("{have} entries, the limit is {limit}"),
            "split the list, or raise entries_per_prefix_list in [limits]",
        );
    }
    if list.max_entries.is_some_and(|max| have > max as usize) {
        report.fault(
            "PrefixListMaxEntriesExceeded",
            &field(at, "entries"),
            format!("{have} entries, but max_entries is {}", list.max_entries.unwrap_or_default()),
            "raise max_entries, or remove entries",
        );
    }
}

fn check_acl(acl: &NetworkAcl, policy: &Policy, index: &Index<'_>, report: &mut Report<'_>) {
    if let Some(vpc) = acl.vpc.as_deref().filter(|vpc| !index.vpcs.contains_key(vpc)) {
        let at = field(&acl.origin, "vpc");
        report.missing("InvalidVpcID.NotFound", &at, ("VPC", vpc), "its ranges are unknown");
    }
    let limit = policy.limits.entries_per_acl as usize;
    for direction in Direction::BOTH {
        let entries = acl.entries(direction);
        let mut numbers = HashMap::new();
        for entry in entries {
            if let Some(first) = numbers.insert(entry.rule_number, &entry.origin) {
                report.fault(
                    "NetworkAclEntryAlreadyExists",
                    &entry.origin,
                    format!(
                        "rule number {} stands in {direction} already, at {first}",
                        entry.rule_number
                    ),
                    "give it a number of its own",
                );
            }
            if matches!((entry.matches, entry.cidr), (L4Match::Icmp(_), IpNet::V6(_))) {
                report.warn(
                    "wrong-family",
                    &entry.origin,
                    "icmp with an IPv6 range matches no ICMPv6",
                    "write protocol = \"icmpv6\"",
                );
            }
        }
        let of_family =
            |v6: bool| entries.iter().filter(|e| matches!(e.cidr, IpNet::V6(_)) == v6).count();
        // Today the final deny counts, and the families apart (SEMANTICS 1.5).
        let (have, most) = match policy.compat {
            Compat::Ec2_2017 => (entries.len(), limit),
            Compat::Current => (of_family(false).max(of_family(true)), limit.saturating_sub(1)),
        };
        if have > most {
            report.fault(
                "NetworkAclEntryLimitExceeded",
                &field(&acl.origin, direction.as_str()),
                format!("{have} entries, the limit is {most}"),
                "merge entries, or raise entries_per_acl in [limits]",
            );
        }
    }
}

fn check_interface(
    interface: &Interface,
    policy: &Policy,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    let at = &interface.origin;
    let subnet = index.subnets.get(interface.subnet.as_str());
    if subnet.is_none() {
        report.missing(
            "InvalidSubnetID.NotFound",
            &field(at, "subnet"),
            ("subnet", &interface.subnet),
            "its network ACL is unknown and lets nothing pass",
        );
    }
    let groups = &interface.security_groups;
    if groups.is_empty() && at.source.kind != SourceKind::Native {
        let message = "the interface has no security group: nothing is allowed on it";
        report.warn("InvalidParameterValue", at, message, "");
    }
    let limit = policy.limits.groups_per_interface;
    if groups.len() > limit as usize {
        report.fault(
            "SecurityGroupsPerInterfaceLimitExceeded",
            &field(at, "security_groups"),
            format!("{} groups, the limit is {limit}", groups.len()),
            "merge groups, or raise groups_per_interface in [limits]",
        );
    }
    let mut seen = HashSet::new();
    for (n, id) in groups.iter().enumerate() {
        let at = field(at, &format!("security_groups[{n}]"));
        if !seen.insert(id) {
            report.fault(
                "InvalidParameterValue",
                &at,
                format!("{id} is named twice"),
                "remove one",
            );
        }
        match index.groups.get(id.as_str()) {
            None => report.missing(
                "InvalidGroup.NotFound",
                &at,
                ("security group", id),
                "it allows nothing",
            ),
            Some(group) if subnet.is_some_and(|s| group.vpc.as_ref() != Some(&s.vpc)) => {
                report.fault(
                    "InvalidParameter",
                    &at,
                    format!("{id} belongs to another VPC than the interface"),
                    "use a group of the interface's VPC",
                );
            }
            Some(_) => {}
        }
    }
    for (private, _) in interface.public.iter().filter(|(p, _)| !interface.addresses.contains(p)) {
        report.fault(
            "InvalidParameterValue",
            &field(at, "public"),
            format!("{private} is no address of the interface"),
            "name one of its private addresses",
        );
    }
}

fn check_addresses<'a>(
    interface: &'a Interface,
    index: &Index<'a>,
    owners: &mut HashMap<(Option<&'a str>, IpAddr), &'a str>,
    report: &mut Report<'_>,
) {
    let subnet = index.subnets.get(interface.subnet.as_str());
    for (n, address) in interface.addresses.iter().enumerate() {
        let at = field(&interface.origin, &format!("addresses[{n}]"));
        if let Some(subnet) = subnet {
            match subnet.cidrs.iter().find(|cidr| cidr.contains(address)) {
                None => report.fault(
                    "InvalidParameterValue",
                    &at,
                    format!("{address} lies outside its subnet {}", subnet.id),
                    format!("choose one of {}", list(&subnet.cidrs)),
                ),
                Some(cidr) if is_reserved(cidr, address) => report.fault(
                    "InvalidParameterValue",
                    &at,
                    format!("{address} is reserved: the first four addresses of a subnet, and the last, are AWS's own"),
                    "choose another",
                ),
                Some(_) => {}
            }
        }
        let vpc = subnet.map(|s| s.vpc.as_str());
        if let Some(owner) = owners.insert((vpc, *address), &interface.id) {
            report.fault(
                "InvalidIPAddress.InUse",
                &at,
                format!("{address} belongs to {owner} already"),
                "an address of a VPC has one interface",
            );
        }
    }
}

/// The first four addresses of a subnet, and an IPv4 subnet's last.
fn is_reserved(cidr: &IpNet, address: &IpAddr) -> bool {
    match (cidr, address) {
        (IpNet::V4(net), IpAddr::V4(a)) => {
            u128::from(u32::from(*a) - u32::from(net.network())) < RESERVED || *a == net.broadcast()
        }
        (IpNet::V6(net), IpAddr::V6(a)) => u128::from(*a) - u128::from(net.network()) < RESERVED,
        _ => false,
    }
}

fn list(cidrs: &[IpNet]) -> String {
    cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
