//! Calls that are refused, and their codes: every row of SEMANTICS 16 about these calls.

use sgwall_rules::diagnostic::Origin;
use sgwall_rules::edit::{self, *};
use sgwall_rules::model::{ClassicInstance, ClassicLink, Compat, Direction, Policy, Timeouts};

use crate::{
    BOTH, NEW, OLD, authorize, classic, create, entry, is_refused, new_group, nothing, revoke,
    said, v4, v6, world,
};

/// A row is AWS's code, `[OLD]` or `[NEW]` if it holds under one edition only, a `{…}` that makes
/// the policy ready, and the call.
macro_rules! refusals {
    ($($test:ident($p:ident) {
        $($code:literal $([$editions:ident])? $({ $($ready:tt)* })? => $call:expr;)*
    })*) => {$(
        #[test]
        fn $test() {
            $(is_refused(
                refusals!(editions $($editions)?),
                refusals!(ready $p $($($ready)*)?),
                |$p: &mut Policy| -> Result<(), ApiError> { $call },
                $code,
            );)*
        }
    )*};
    (editions) => { BOTH };
    (editions $editions:ident) => { $editions };
    (ready $p:ident) => { nothing };
    (ready $p:ident $($ready:tt)+) => { |$p: &mut Policy| { $($ready)+; } };
}

/// The permission of a line, changed, into `sg-web`.
fn authorize_as(
    policy: &mut Policy,
    line: &str,
    change: fn(&mut IpPermission),
) -> Result<(), ApiError> {
    let (direction, mut permission) = said(line);
    change(&mut permission);
    edit::authorize(policy, "sg-web", direction, &[permission]).map(drop)
}

fn describe(policy: &mut Policy, line: &str, description: &str) -> Result<(), ApiError> {
    let (direction, mut permission) = said(line);
    permission.ip_ranges[0].description = Some(description.into());
    update_rule_descriptions(policy, "sg-web", direction, &[permission])
}

fn modify(policy: &mut Policy, group: &str, id: &str, line: &str) -> Result<(), ApiError> {
    modify_rule(policy, group, id, &said(line).1)
}

refusals! { rules_are_refused_with_awss_codes(p) {
    "InvalidPermission.Duplicate" => authorize(p, "sg-web", "in tcp 22 from 203.0.113.1/32");
    "InvalidPermission.Duplicate" => authorize(p, "sg-app", "in udp 53 from sg-far");
    // By another name, with host bits, and whatever its description.
    "InvalidPermission.Duplicate" => authorize_as(p, "out proto -1 to 0.0.0.1/0", |new| {
        new.ip_ranges[0].description = Some("new".into());
    });
    "InvalidParameterValue" => authorize_as(p, "in tcp 80 from 0.0.0.0/0", |new| {
        new.ip_ranges.push(new.ip_ranges[0].clone());
    });
    "InvalidPermission.NotFound" => revoke(p, "sg-web", "in tcp 23 from 203.0.113.1/32");
    "InvalidPermission.NotFound" => revoke(p, "sg-web", "out all to ::/0");
    "InvalidPermission.NotFound" => describe(p, "in tcp 23 from 203.0.113.1/32", "new");
    "InvalidParameterValue" => describe(p, "in tcp 22 from 203.0.113.1/32", "you & me");
    "InvalidGroup.NotFound" => authorize(p, "sg-none", "in all from ::/0");
    "InvalidGroup.NotFound" => revoke(p, "sg-none", "in all from ::/0");
    "InvalidGroupId.Malformed" => authorize(p, "web", "in all from ::/0");
    "InvalidGroup.NotFound" => authorize(p, "sg-web", "in all from sg-none");
    // No peering leads there; it is another one; it is not active; it crosses Regions.
    "InvalidGroup.NotFound" => authorize(p, "sg-web", "in all from sg-third");
    "InvalidGroup.NotFound" => authorize_as(p, "in all from sg-far", |new| {
        new.user_id_group_pairs[0].vpc_peering_connection_id = Some("pcx-2".into());
    });
    "InvalidGroup.NotFound" { p.peerings[0].active = false }
        => authorize(p, "sg-web", "in all from sg-far");
    "InvalidGroup.NotFound" {
        revoke(p, "sg-app", "in udp 53 from sg-far").unwrap();
        p.peerings[0].inter_region = true
    } => authorize(p, "sg-web", "in all from sg-far");
    "InvalidGroup.NotFound" => authorize_as(p, "in all from sg-app", |new| {
        new.user_id_group_pairs[0].vpc_id = Some("vpc-2".into());
    });
    "InvalidGroup.NotFound" { p.security_groups[2].owner = Some("111122223333".into()) }
        => authorize_as(p, "in all from sg-app", |new| {
            new.user_id_group_pairs[0].user_id = Some("444455556666".into());
        });
    "InvalidGroupId.Malformed" => authorize_as(p, "in all from sg-app", |new| {
        new.user_id_group_pairs[0].group_id = Some("app".into());
    });
    "InvalidGroup.NotFound" => authorize_as(p, "in all from sg-app", |new| {
        new.user_id_group_pairs[0].group_id = None;
        new.user_id_group_pairs[0].group_name = Some("nobody".into());
    });
    "MissingParameter" => authorize_as(p, "in all from sg-app", |new| {
        new.user_id_group_pairs[0].group_id = None;
    });
    "MissingParameter" => authorize_as(p, "in all from ::/0", |new| new.ipv6_ranges.clear());
    "MissingParameter" => edit::authorize(p, "sg-web", Direction::Ingress, &[]).map(drop);
    "InvalidPrefixListID.NotFound" => authorize(p, "sg-web", "in all from pl-none");
    "InvalidAction" [OLD] => modify(p, "sg-web", "ingress-1", "in all from ::/0");
    "InvalidSecurityGroupRuleId.NotFound" [NEW]
        => modify(p, "sg-web", "ingress-2", "in all from ::/0");
    "InvalidPermission.Duplicate" [NEW]
        => modify(p, "sg-app", "ingress-2", "in tcp 6001 from sg-web");
    "InvalidParameterCombination" [NEW] => {
        let mut permission = said("in all from ::/0").1;
        permission.ipv6_ranges.push(Ipv6Range { cidr_ipv6: "::/1".into(), description: None });
        modify_rule(p, "sg-app", "ingress-2", &permission)
    };
} }

/// An instance of EC2-Classic with the group `sg-one`, linked to vpc-1 with `sg-lone`.
fn with_instance(policy: &mut Policy) {
    create_security_group(policy, classic("one")).unwrap();
    policy.vpcs[0].classic_link = true;
    policy.classic_instances.push(ClassicInstance {
        id: "i-1".into(),
        address: v4("10.9.9.9").into(),
        public: Some(v4("198.51.100.9").into()),
        security_groups: vec!["sg-one".into()],
        link: Some(ClassicLink { vpc: "vpc-1".into(), security_groups: vec!["sg-lone".into()] }),
        mtu: None,
        timeouts: Timeouts::default(),
        mac: None,
        origin: Origin::synthetic("test"),
    });
}

refusals! { groups_are_refused_with_awss_codes(p) {
    "InvalidGroup.Reserved" => create(p, "sg-new", "default");
    "InvalidGroup.Reserved" => create_security_group(p, NewSecurityGroup {
        id: "sg-2".into(), ..classic("default")
    });
    "InvalidGroup.Duplicate" => create(p, "sg-new", "web  ");
    "InvalidGroup.Duplicate" { create_security_group(p, classic("old")).unwrap() }
        => create_security_group(p, NewSecurityGroup { id: "sg-2".into(), ..classic("old") });
    "InvalidGroupId.Malformed" => create(p, "new", "new");
    "InvalidParameterValue" => create(p, "sg-web", "new");
    "InvalidParameterValue" => create(p, "sg-new", "sg-other");
    "InvalidParameterValue" => create(p, "sg-new", "naïve");
    "InvalidParameterValue" => create(p, "sg-new", &"n".repeat(256));
    "MissingParameter" => create(p, "sg-new", "  ");
    "MissingParameter" => create_security_group(p, NewSecurityGroup {
        description: String::new(), ..new_group("sg-new", "new")
    });
    "InvalidVpcID.NotFound" => create_security_group(p, NewSecurityGroup {
        vpc: Some("vpc-9".into()), ..new_group("sg-new", "new")
    });
    // Of the VPC's five; of the Region's seven.
    "SecurityGroupLimitExceeded" [OLD] { p.limits.groups_per_vpc = 5 } => create(p, "sg-new", "new");
    "SecurityGroupLimitExceeded" [NEW] { p.limits.groups_per_vpc = 7 } => create(p, "sg-new", "new");
    "InvalidGroup.NotFound" => delete_security_group(p, "sg-none");
    "InvalidGroupId.Malformed" => delete_security_group(p, "web");
    "CannotDelete" => delete_security_group(p, "sg-default");
    "InvalidGroup.Reserved" {
        create_security_group(p, classic("old")).unwrap();
        let group = p.security_groups.last_mut().unwrap();
        (group.name, group.is_default) = ("default".into(), true)
    } => delete_security_group(p, "sg-old");
    // On an interface; in a rule of another group; in one of its own.
    "DependencyViolation" { revoke(p, "sg-app", "in tcp 6001 from sg-web").unwrap() }
        => delete_security_group(p, "sg-web");
    "DependencyViolation" { modify_interface_groups(p, "eni-1", &["sg-lone"]).unwrap() }
        => delete_security_group(p, "sg-web");
    "DependencyViolation" [OLD] => delete_security_group(p, "sg-self");
    "InvalidGroup.InUse" {
        create_security_group(p, classic("one")).unwrap();
        create_security_group(p, classic("two")).unwrap();
        authorize(p, "sg-one", "in tcp 80 from sg-two").unwrap()
    } => delete_security_group(p, "sg-two");
    "InvalidGroup.InUse" [OLD] { with_instance(p) } => delete_security_group(p, "sg-one");
    "DependencyViolation" [OLD] { with_instance(p) } => delete_security_group(p, "sg-lone");
    // EC2-Classic has no IPv6, no outbound rules, and is a world of its own.
    "InvalidParameterValue" { create_security_group(p, classic("one")).unwrap() }
        => authorize(p, "sg-one", "in tcp from ::/0");
    "InvalidParameterValue" { create_security_group(p, classic("one")).unwrap() }
        => authorize(p, "sg-one", "out all to 0.0.0.0/0");
    "InvalidParameterValue" { create_security_group(p, classic("one")).unwrap() }
        => revoke(p, "sg-one", "out all to 0.0.0.0/0");
    "InvalidGroup.NotFound" { create_security_group(p, classic("one")).unwrap() }
        => authorize(p, "sg-one", "in tcp from sg-web");
    "InvalidGroup.NotFound" { create_security_group(p, classic("one")).unwrap() }
        => authorize(p, "sg-web", "in tcp from sg-one");
} }

/// Adds an inbound entry to `acl-1`.
fn enter(policy: &mut Policy, entry: EntryRequest) -> Result<(), ApiError> {
    create_network_acl_entry(policy, "acl-1", Direction::Ingress, &entry)
}

fn over(cidr_block: Option<&str>, ipv6_cidr_block: Option<&str>, protocol: &str) -> EntryRequest {
    EntryRequest {
        cidr_block: cidr_block.map(str::to_owned),
        ipv6_cidr_block: ipv6_cidr_block.map(str::to_owned),
        ..entry(7, protocol)
    }
}

fn ports(protocol: &str, from: i32, to: i32) -> EntryRequest {
    EntryRequest { port_range: Some((from, to)), ..entry(7, protocol) }
}

refusals! { acls_are_refused_with_awss_codes(p) {
    "NetworkAclEntryAlreadyExists" => enter(p, entry(100, "-1"));
    // Today the final deny counts.
    "NetworkAclEntryLimitExceeded" [OLD] { p.limits.entries_per_acl = 1 } => enter(p, entry(7, "-1"));
    "NetworkAclEntryLimitExceeded" [NEW] { p.limits.entries_per_acl = 2 } => enter(p, entry(7, "-1"));
    "InvalidParameterValue" => enter(p, entry(0, "-1"));
    "InvalidParameterValue" => enter(p, entry(-1, "-1"));
    "InvalidParameterValue" => enter(p, entry(32767, "-1"));
    "InvalidParameterValue" => enter(p, entry(65537, "-1"));
    "InvalidParameterCombination" => enter(p, over(Some("0.0.0.0/0"), Some("::/0"), "-1"));
    "MissingParameter" => enter(p, over(None, None, "-1"));
    "InvalidParameterValue" => enter(p, over(Some("::/0"), None, "-1"));
    "InvalidParameterValue" => enter(p, over(None, Some("0.0.0.0/0"), "-1"));
    "InvalidParameterValue" => enter(p, over(Some("10.0.0.0"), None, "-1"));
    "InvalidParameterValue" => enter(p, entry(7, "6"));
    "InvalidParameterValue" => enter(p, ports("17", 80, 70));
    "InvalidParameterValue" => enter(p, ports("6", 0, 65536));
    "InvalidParameterValue" => enter(p, entry(7, "256"));
    "InvalidParameterValue" => enter(p, entry(7, "1"));
    "InvalidParameterValue"
        => enter(p, EntryRequest { icmp_type_code: Some((-1, 0)), ..entry(7, "1") });
    "InvalidParameterValue" => enter(p, over(None, Some("::/0"), "58"));
    "InvalidNetworkAclID.NotFound"
        => create_network_acl_entry(p, "acl-9", Direction::Ingress, &entry(7, "-1"));
    "InvalidNetworkAclEntry.NotFound"
        => replace_network_acl_entry(p, "acl-1", Direction::Egress, &entry(100, "-1"));
    "InvalidNetworkAclEntry.NotFound"
        => delete_network_acl_entry(p, "acl-1", Direction::Egress, 100);
    "InvalidParameterValue" => delete_network_acl_entry(p, "acl-1", Direction::Ingress, 32767);
    "InvalidParameterValue" => delete_network_acl_entry(p, "acl-1", Direction::Ingress, 0);
    "DependencyViolation" => delete_network_acl(p, "acl-1");
    "InvalidParameterValue" => delete_network_acl(p, "acl-default");
    "InvalidNetworkAclID.NotFound" => delete_network_acl(p, "acl-9");
    "InvalidParameterValue" => create_network_acl(p, "acl-1", "vpc-1");
    "InvalidVpcID.NotFound" => create_network_acl(p, "acl-9", "vpc-9");
    "NetworkAclLimitExceeded" { p.limits.acls_per_vpc = 3 }
        => create_network_acl(p, "acl-9", "vpc-1");
    "InvalidSubnetID.NotFound" => replace_network_acl_association(p, "subnet-9", "acl-1");
    "InvalidNetworkAclID.NotFound" => replace_network_acl_association(p, "subnet-1", "acl-9");
    "InvalidParameterValue" => replace_network_acl_association(p, "subnet-1", "acl-far");
} }

fn assign(
    policy: &mut Policy,
    id: &str,
    addresses: &[&str],
    move_them: bool,
) -> Result<(), ApiError> {
    let addresses: Vec<_> = addresses.iter().map(|address| v4(address)).collect();
    assign_private_ip_addresses(policy, id, &addresses, move_them)
}

fn unassign(policy: &mut Policy, id: &str, addresses: &[&str]) -> Result<(), ApiError> {
    let addresses: Vec<_> = addresses.iter().map(|address| v4(address)).collect();
    unassign_private_ip_addresses(policy, id, &addresses)
}

fn associate(policy: &mut Policy, private: &str, public: &str) -> Result<(), ApiError> {
    associate_address(policy, "eni-1", Some(v4(private)), v4(public), false)
}

fn time_out(policy: &mut Policy, tcp: u32, udp: u32, udp_stream: u32) -> Result<(), ApiError> {
    let timeouts = Timeouts {
        tcp_established: Some(tcp),
        udp: Some(udp),
        udp_stream: Some(udp_stream),
        ..Timeouts::default()
    };
    set_interface_timeouts(policy, "eni-1", timeouts)
}

refusals! { interfaces_are_refused_with_awss_codes(p) {
    "InvalidParameterValue" => modify_interface_groups(p, "eni-1", &[]);
    "InvalidParameter" => modify_interface_groups(p, "eni-1", &["sg-far"]);
    "InvalidParameter" { create_security_group(p, classic("one")).unwrap() }
        => modify_interface_groups(p, "eni-1", &["sg-one"]);
    "InvalidGroup.NotFound" => modify_interface_groups(p, "eni-1", &["sg-none"]);
    "InvalidGroupId.Malformed" => modify_interface_groups(p, "eni-1", &["web"]);
    "InvalidParameterValue" => modify_interface_groups(p, "eni-1", &["sg-web", "sg-web"]);
    "InvalidNetworkInterfaceID.NotFound" => modify_interface_groups(p, "eni-9", &["sg-web"]);
    "SecurityGroupsPerInterfaceLimitExceeded" { p.limits.groups_per_interface = 2 }
        => modify_interface_groups(p, "eni-1", &["sg-web", "sg-app", "sg-lone"]);
    // Outside the subnet; AWS's own; another's, or its own already; another's primary.
    "InvalidParameterValue" => assign(p, "eni-1", &["10.0.1.50", "10.0.2.50"], true);
    "InvalidParameterValue" => assign(p, "eni-1", &["10.0.1.3"], true);
    "InvalidIPAddress.InUse" => assign(p, "eni-2", &["10.0.1.50", "10.0.1.11"], false);
    "InvalidIPAddress.InUse" => assign(p, "eni-1", &["10.0.1.11"], true);
    "InvalidIPAddress.InUse" => assign(p, "eni-2", &["10.0.1.10"], true);
    "MissingParameter" => assign(p, "eni-1", &[], true);
    "InvalidParameterValue" => unassign(p, "eni-1", &["10.0.1.11", "10.0.1.10"]);
    "InvalidParameterValue" => unassign(p, "eni-1", &["10.0.1.11", "10.0.1.20"]);
    "MissingParameter" => unassign(p, "eni-1", &[]);
    "InvalidIPAddress.InUse" => assign_ipv6_addresses(p, "eni-2", &[v6("2001:db8:0:1::10")]);
    "InvalidParameterValue" => assign_ipv6_addresses(p, "eni-2", &[v6("2001:db8:0:2::10")]);
    "MissingParameter" => assign_ipv6_addresses(p, "eni-2", &[]);
    "InvalidParameterValue" => unassign_ipv6_addresses(p, "eni-2", &[v6("2001:db8:0:1::10")]);
    "InvalidParameterValue" => associate(p, "10.0.1.20", "198.51.100.1");
    "Resource.AlreadyAssociated" => associate(p, "10.0.1.10", "198.51.100.11");
    "Resource.AlreadyAssociated" => associate(p, "10.0.1.11", "198.51.100.1");
    "Resource.AlreadyAssociated" [OLD] { with_instance(p) }
        => associate_address(p, "eni-1", None, v4("198.51.100.9"), true);
    "InvalidAddress.NotFound" [OLD] {
        with_instance(p);
        disassociate_address(p, v4("198.51.100.9")).unwrap()
    } => disassociate_address(p, v4("198.51.100.9"));
    "InvalidAddress.NotFound" => disassociate_address(p, v4("198.51.100.1"));
    "InvalidParameterValue" => time_out(p, 59, 30, 180);
    "InvalidParameterValue" => time_out(p, 432_001, 30, 180);
    "InvalidParameterValue" => time_out(p, 60, 29, 180);
    "InvalidParameterValue" => time_out(p, 60, 61, 180);
    "InvalidParameterValue" => time_out(p, 60, 30, 59);
    "InvalidParameterValue" => time_out(p, 60, 30, 181);
    "InvalidNetworkInterfaceID.NotFound"
        => set_interface_timeouts(p, "eni-9", Timeouts::default());
    "InvalidVpcPeeringConnectionID.NotFound" => delete_peering(p, "pcx-9");
} }

/// One row of SEMANTICS 16 has many forms: what is in the permission itself.
#[test]
fn malformed_permissions_are_invalid_parameter_values() {
    for line in [
        "in tcp 22 from 10.0.0.0",
        "in tcp 22 from 10.0.0.0/33",
        "in tcp 22 from 10.0.0/8",
        "in tcp 22 from 2001:db8::1",
        "in tcp 65536 from 10.0.0.0/8",
        "in tcp 100-65536 from 10.0.0.0/8",
        "in udp -1/80 from 10.0.0.0/8",
        "in tcp 100-50 from 10.0.0.0/8",
        "in icmp -1/0 from 10.0.0.0/8",
        "in icmpv6 -1/0 from ::/0",
        "in icmp 256/0 from 10.0.0.0/8",
        "in icmp 3/256 from 10.0.0.0/8",
        "in gre from 10.0.0.0/8",
        "in proto 256 from 10.0.0.0/8",
        "in proto -2 from 10.0.0.0/8",
        "in proto all from 10.0.0.0/8",
        // Ports and types are required by number as by name.
        "in proto tcp from 10.0.0.0/8",
        "in proto 17 from 10.0.0.0/8",
        "in proto icmp from 10.0.0.0/8",
    ] {
        for &compat in BOTH {
            let mut policy = world(compat);
            let before = policy.clone();
            let error = authorize(&mut policy, "sg-lone", line).expect_err(line);
            assert_eq!(error.code, ErrorCode::InvalidParameterValue, "{line}: {error}");
            assert_eq!(policy, before, "{line}");
        }
    }
    for (families, line) in [("IPv6", "in all from ::/0"), ("IPv4", "in all from 10.0.0.0/8")] {
        let (direction, mut permission) = said(line);
        // Each range into the other family's parameter.
        let v4 = std::mem::take(&mut permission.ip_ranges);
        let v6 = std::mem::take(&mut permission.ipv6_ranges);
        permission
            .ip_ranges
            .extend(v6.into_iter().map(|r| IpRange { cidr_ip: r.cidr_ipv6, description: None }));
        permission
            .ipv6_ranges
            .extend(v4.into_iter().map(|r| Ipv6Range { cidr_ipv6: r.cidr_ip, description: None }));
        let error =
            edit::authorize(&mut world(Compat::Current), "sg-lone", direction, &[permission])
                .unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParameterValue);
        assert!(error.message.contains(&format!("an {families} range where")), "{error}");
    }
}
