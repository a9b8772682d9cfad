//! EC2-Classic: its groups, instances and their links to VPCs (SEMANTICS section 14).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Index, Report, field};
use crate::diagnostic::{Origin, SourceKind};
use crate::model::{
    ClassicInstance, Compat, L4Match, Peer, Policy, RouteTarget, SecurityGroup, Subnet, Vpc,
};

pub(super) fn check(policy: &Policy, index: &Index<'_>, report: &mut Report<'_>) {
    for group in policy.security_groups.iter().filter(|group| group.vpc.is_none()) {
        check_group(group, report);
    }
    for vpc in policy.vpcs.iter().filter(|vpc| vpc.classic_link) {
        check_vpc(vpc, &policy.subnets, report);
    }
    let mut owners = HashMap::new();
    for instance in &policy.classic_instances {
        check_instance(instance, policy, index, report);
        if let Some(owner) = owners.insert(instance.address, &instance.id) {
            report.fault(
                "InvalidIPAddress.InUse",
                &field(&instance.origin, "address"),
                format!("{} belongs to {owner} already", instance.address),
                "an address has one instance",
            );
        }
    }
}

/// IPv4 alone, and protocols by name (14.1).
fn check_group(group: &SecurityGroup, report: &mut Report<'_>) {
    for rule in &group.ingress {
        let is_ipv6 = matches!(rule.peer, Peer::Cidr(IpNet::V6(_)))
            || matches!(rule.matches, L4Match::Icmpv6(_));
        if is_ipv6 {
            report.fault(
                "InvalidParameterValue",
                &rule.origin,
                "EC2-Classic has no IPv6",
                "remove the rule",
            );
        }
        if matches!(rule.matches, L4Match::All | L4Match::Other(_)) {
            report.warn(
                "classic-protocol",
                &rule.origin,
                "EC2-Classic knows TCP, UDP and ICMP only",
                "write rules for tcp, udp and icmp",
            );
        }
    }
}

/// The private range of EC2-Classic.
fn classic_range() -> Option<IpNet> {
    IpNet::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8).ok()
}

/// A VPC of 10.0.0.0/8 may be enabled for links only within 10.0.0.0/16 and 10.1.0.0/16, and
/// without routes of its own into 10.0.0.0/8 (14.3).
fn check_vpc(vpc: &Vpc, subnets: &[Subnet], report: &mut Report<'_>) {
    let Some(range) = classic_range() else { return };
    let overlaps = |net: &IpNet| range.contains(net) || net.contains(&range);
    let may = |net: &IpNet| {
        let second = |addr: IpAddr| matches!(addr, IpAddr::V4(v4) if v4.octets()[1] <= 1);
        net.prefix_len() >= 16 && second(net.addr())
    };
    for cidr in vpc.cidrs.iter().filter(|cidr| overlaps(cidr) && !may(cidr)) {
        report.fault(
            "InvalidParameterValue",
            &field(&vpc.origin, "classic_link"),
            format!("{cidr} conflicts with 10.0.0.0/8, the range of EC2-Classic"),
            "use 10.0.0.0/16, 10.1.0.0/16 or a range outside 10.0.0.0/8, or unset classic_link",
        );
    }
    for subnet in subnets.iter().filter(|subnet| subnet.vpc == vpc.id) {
        let conflicts = subnet.routes.iter().filter(|route| {
            let is_default = route.destination.prefix_len() == 0;
            route.target != RouteTarget::Local && !is_default && overlaps(&route.destination)
        });
        for route in conflicts {
            report.fault(
                "InvalidParameterValue",
                &field(&route.origin, "destination"),
                format!(
                    "a route to {} conflicts with 10.0.0.0/8, where EC2-Classic is",
                    route.destination
                ),
                format!("remove it, or unset classic_link of {}", vpc.id),
            );
        }
    }
}

fn check_instance(
    instance: &ClassicInstance,
    policy: &Policy,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    let at = &instance.origin;
    if policy.compat == Compat::Current {
        report.fault(
            "InvalidParameterValue",
            at,
            "EC2-Classic is no more under compat = \"current\"",
            "remove the instance, or write compat = \"ec2-2017\"",
        );
    }
    if instance.address.is_ipv6() {
        report.fault(
            "InvalidParameterValue",
            &field(at, "address"),
            "EC2-Classic has no IPv6",
            "give it an IPv4 address",
        );
    }
    let own = field(at, "security_groups");
    let limit = policy.limits.groups_per_classic_instance;
    check_groups(&instance.security_groups, &own, limit, None, index, report);
    let Some(link) = &instance.link else { return };
    let at = field(at, "classic_link");
    match index.vpcs.get(link.vpc.as_str()) {
        None => report.missing(
            "InvalidVpcID.NotFound",
            &at,
            ("VPC", &link.vpc),
            "traffic with it is governed by the groups of EC2-Classic",
        ),
        Some(vpc) if !vpc.classic_link => report.fault(
            "InvalidParameterValue",
            &at,
            format!("{} is not enabled for ClassicLink", vpc.id),
            "set classic_link = true in the VPC",
        ),
        Some(vpc) => {
            // Else the VPC's groups would govern traffic between linked instances (14.3).
            if let Some(cidr) = vpc.cidrs.iter().find(|cidr| cidr.contains(&instance.address)) {
                report.fault(
                    "InvalidParameterValue",
                    &field(&instance.origin, "address"),
                    format!(
                        "{} lies in {cidr}, a range of {}, to which the instance is linked",
                        instance.address, vpc.id
                    ),
                    "EC2-Classic gives no address of 10.0.0.0/16 and 10.1.0.0/16: choose another",
                );
            }
        }
    }
    let limit = policy.limits.groups_per_interface;
    check_groups(&link.security_groups, &at, limit, Some(&link.vpc), index, report);
}

/// At least one group, not more than the limit, all of the VPC (`None`: of EC2-Classic).
fn check_groups(
    groups: &[String],
    at: &Origin,
    limit: u32,
    vpc: Option<&str>,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    let place = vpc.unwrap_or("EC2-Classic");
    if groups.is_empty() {
        report.fault("InvalidParameterValue", at, "no security group", "name at least one");
    }
    if groups.len() > limit as usize {
        report.fault(
            "SecurityGroupsPerInterfaceLimitExceeded",
            at,
            format!("{} groups, the limit is {limit}", groups.len()),
            "merge groups, or raise the limit in [limits]",
        );
    }
    for id in groups {
        match index.groups.get(id.as_str()) {
            None => report.missing(
                "InvalidGroup.NotFound",
                at,
                ("security group", id),
                "it allows nothing",
            ),
            Some(group) if group.vpc.as_deref() != vpc && at.source.kind == SourceKind::Native => {
                report.fault(
                    "InvalidGroup.NotFound",
                    at,
                    format!("{id} is no group of {place}"),
                    format!("use a group of {place}"),
                );
            }
            Some(_) => {}
        }
    }
}
