//! What the calls do that are granted.

use std::net::IpAddr;

use sgwall_rules::edit::{self, *};
use sgwall_rules::load::{self, Input};
use sgwall_rules::model::{AclAction, Compat, Direction, GroupRef, Peer, Policy, Timeouts};

use crate::{
    Call, authorize, classic, create, entry, is_sound, new_group, revoke, rules, said, v4, v6,
    world,
};

/// SEMANTICS 2.3, 2.4, 2.8.
#[test]
fn permissions_are_stored_as_aws_stores_them() {
    for (line, stored) in [
        ("in 6 22-22 from 100.68.0.18/18", "tcp 22 100.68.0.0/18"),
        ("in 17 0-65535 from pl-20", "udp pl-20"),
        ("in 1 8/-1 from 10.0.0.0/8", "icmp 8 10.0.0.0/8"),
        ("in proto 58 from ::/0", "icmpv6 ::/0"),
        ("in icmp 3/4 from 0.0.0.0/0", "icmp 3/4 0.0.0.0/0"),
        ("in -1 70000-1 from 0.0.0.0/0", "all 0.0.0.0/0"),
        ("in 47 99999-1 from sg-lone", "proto 47 sg-lone"),
        ("in all from sg-far", "all sg-far"),
    ] {
        let mut policy = world(Compat::Ec2_2017);
        authorize(&mut policy, "sg-lone", line).unwrap();
        is_sound(&policy);
        assert_eq!(rules(&policy, "sg-lone", Direction::Ingress), [stored], "{line}");
        revoke(&mut policy, "sg-lone", line).unwrap();
        assert_eq!(policy, world(Compat::Ec2_2017), "{line}");
    }
    // What a reference to a peer's group holds: its VPC, the peering, and its account if another.
    for (account, stored) in [("111122223333", None), ("444455556666", Some("444455556666"))] {
        let mut policy = world(Compat::Ec2_2017);
        for group in &mut policy.security_groups {
            let owner = if group.id == "sg-far" { account } else { "111122223333" };
            group.owner = Some(owner.into());
        }
        authorize(&mut policy, "sg-lone", "in all from sg-far").unwrap();
        let lone = policy.security_groups.iter().find(|group| group.id == "sg-lone").unwrap();
        let reference = GroupRef {
            id: "sg-far".into(),
            vpc: Some("vpc-2".into()),
            owner: stored.map(str::to_owned),
            peering: Some("pcx-1".into()),
            stale: false,
        };
        assert_eq!(lone.ingress[0].peer, Peer::Group(reference));
    }
    // One permission with n peers is n rules, and each has its description.
    let mut policy = world(Compat::Ec2_2017);
    let (direction, mut permission) = said("in tcp 80 from 10.0.0.0/8");
    permission.ip_ranges[0].description = Some("inside".into());
    permission.ipv6_ranges.push(Ipv6Range { cidr_ipv6: "::/0".into(), description: None });
    permission
        .user_id_group_pairs
        .push(UserIdGroupPair { group_name: Some("web".into()), ..UserIdGroupPair::default() });
    let ids = edit::authorize(&mut policy, "sg-app", direction, &[permission]).unwrap();
    assert_eq!(ids, ["ingress-3", "ingress-4", "ingress-5"]);
    let added = &policy.security_groups.iter().find(|g| g.id == "sg-app").unwrap().ingress[2..];
    assert_eq!(added[0].description.as_deref(), Some("inside"));
    assert_eq!(added[2].peer.to_string(), "sg-web");
    is_sound(&policy);
}

/// SEMANTICS 5.1, 5.2, 8.6.
#[test]
fn new_objects_have_awss_defaults() {
    let mut policy = world(Compat::Ec2_2017);
    create(&mut policy, "sg-new", "new ").unwrap();
    assert_eq!(policy.security_groups.last().unwrap().name, "new");
    assert!(rules(&policy, "sg-new", Direction::Ingress).is_empty());
    assert_eq!(rules(&policy, "sg-new", Direction::Egress), ["all 0.0.0.0/0", "all ::/0"]);
    let far = NewSecurityGroup { vpc: Some("vpc-2".into()), ..new_group("sg-v4", "v4") };
    create_security_group(&mut policy, far).unwrap();
    assert_eq!(rules(&policy, "sg-v4", Direction::Egress), ["all 0.0.0.0/0"]);
    create_security_group(&mut policy, classic("old")).unwrap();
    assert_eq!(rules(&policy, "sg-old", Direction::Egress), ["all 0.0.0.0/0"]);

    create_default_vpc_objects(&mut policy, "vpc-2", "sg-d2", "acl-d2").unwrap();
    assert_eq!(rules(&policy, "sg-d2", Direction::Ingress), ["all sg-d2"]);
    assert_eq!(rules(&policy, "sg-d2", Direction::Egress), ["all 0.0.0.0/0"]);
    assert_eq!(policy.subnets[1].network_acl.as_deref(), Some("acl-d2"));
    let acl = policy.network_acls.last().unwrap();
    let entries = |direction| {
        let entries = acl.entries(direction).iter();
        entries.map(|e| format!("{} {:?} {} {}", e.rule_number, e.action, e.matches, e.cidr))
    };
    for direction in Direction::BOTH {
        assert!(entries(direction).eq(["100 Allow all 0.0.0.0/0"]));
    }
    is_sound(&policy);
    let before = policy.clone();
    let again = create_default_vpc_objects(&mut policy, "vpc-2", "sg-d3", "acl-d3").unwrap_err();
    assert_eq!(again.code, ErrorCode::InvalidParameterValue);
    // An IPv6 VPC has the second pair; its default group and ACL exist already.
    let other = create_default_vpc_objects(&mut policy, "vpc-1", "sg-d3", "acl-d3").unwrap_err();
    assert_eq!(other.code, ErrorCode::InvalidParameterValue);
    assert_eq!(policy, before);
    policy.network_acls.retain(|acl| acl.id != "acl-default");
    let other = create_default_vpc_objects(&mut policy, "vpc-1", "sg-d3", "acl-d3").unwrap_err();
    assert_eq!(other.code, ErrorCode::InvalidGroupDuplicate);
    policy.security_groups.retain(|group| group.id != "sg-default");
    policy.interfaces.retain(|interface| interface.id != "eni-2");
    create_default_vpc_objects(&mut policy, "vpc-1", "sg-d3", "acl-d3").unwrap();
    assert_eq!(policy.network_acls.last().unwrap().ingress[1].rule_number, 101);
    assert_eq!(policy.network_acls.last().unwrap().ingress[1].cidr.to_string(), "::/0");
    assert_eq!(rules(&policy, "sg-d3", Direction::Egress), ["all 0.0.0.0/0", "all ::/0"]);
    is_sound(&policy);
}

/// SEMANTICS 1.4, 8.3, 8.4.
#[test]
fn acls_do_as_they_are_told() {
    let mut policy = world(Compat::Ec2_2017);
    create_network_acl(&mut policy, "acl-new", "vpc-1").unwrap();
    let mut expected = Vec::new();
    for (n, (request, stored)) in [
        (entry(1, "-1"), "all 203.0.113.0/24"),
        (EntryRequest { port_range: Some((80, 90)), ..entry(1, "6") }, "tcp 80-90 203.0.113.0/24"),
        (
            EntryRequest { icmp_type_code: Some((3, 4)), ..entry(1, "icmp") },
            "icmp 3/4 203.0.113.0/24",
        ),
        // With an IPv4 range ICMPv6 has no type, whatever is given.
        (
            EntryRequest { icmp_type_code: Some((999, 4)), ..entry(1, "58") },
            "icmpv6 203.0.113.0/24",
        ),
        (EntryRequest { port_range: Some((9, 1)), ..entry(1, "47") }, "proto 47 203.0.113.0/24"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = EntryRequest { rule_number: n as i32 + 1, ..request };
        create_network_acl_entry(&mut policy, "acl-new", Direction::Egress, &request).unwrap();
        expected.push(stored.to_owned());
        let entries = policy.network_acls.last().unwrap().egress.iter();
        let found: Vec<_> = entries.map(|e| format!("{} {}", e.matches, e.cidr)).collect();
        assert_eq!(found, expected);
    }
    is_sound(&policy);
    replace_network_acl_association(&mut policy, "subnet-1", "acl-new").unwrap();
    delete_network_acl(&mut policy, "acl-1").unwrap();
    let request = EntryRequest { action: AclAction::Allow, ..entry(1, "-1") };
    replace_network_acl_entry(&mut policy, "acl-new", Direction::Egress, &request).unwrap();
    for number in 2..=5 {
        delete_network_acl_entry(&mut policy, "acl-new", Direction::Egress, number).unwrap();
    }
    let egress = &policy.network_acls.last().unwrap().egress;
    assert_eq!((egress.len(), egress[0].action), (1, AclAction::Allow));
    is_sound(&policy);
}

/// SEMANTICS 13.3, 13.5, 7.10.
#[test]
fn addresses_move_and_take_their_public_ones_along() {
    let addresses = |policy: &Policy, n: usize| -> Vec<String> {
        policy.interfaces[n].addresses.iter().map(ToString::to_string).collect()
    };
    let pair = |private: &str, public: &str| -> (IpAddr, IpAddr) {
        (private.parse().unwrap(), public.parse().unwrap())
    };
    let mut policy = world(Compat::Ec2_2017);
    let wanted = [v4("10.0.1.50"), v4("10.0.1.11")];
    assign_private_ip_addresses(&mut policy, "eni-2", &wanted, true).unwrap();
    assert_eq!(addresses(&policy, 0), ["10.0.1.10", "2001:db8:0:1::10"]);
    assert_eq!(addresses(&policy, 1), ["10.0.1.20", "10.0.1.50", "10.0.1.11"]);
    assert!(policy.interfaces[0].public.is_empty());
    assert_eq!(policy.interfaces[1].public, [pair("10.0.1.11", "198.51.100.11")]);
    // Secondary IPv4 addresses stand before IPv6 ones.
    assign_private_ip_addresses(&mut policy, "eni-1", &[v4("10.0.1.60")], false).unwrap();
    assert_eq!(addresses(&policy, 0), ["10.0.1.10", "10.0.1.60", "2001:db8:0:1::10"]);
    is_sound(&policy);

    associate_address(&mut policy, "eni-2", None, v4("198.51.100.20"), false).unwrap();
    associate_address(&mut policy, "eni-1", None, v4("198.51.100.20"), true).unwrap();
    assert_eq!(policy.interfaces[0].public, [pair("10.0.1.10", "198.51.100.20")]);
    // What is associated already stays so; a private address has one public address.
    associate_address(&mut policy, "eni-1", None, v4("198.51.100.20"), false).unwrap();
    associate_address(&mut policy, "eni-1", None, v4("198.51.100.21"), true).unwrap();
    assert_eq!(policy.interfaces[0].public, [pair("10.0.1.10", "198.51.100.21")]);
    disassociate_address(&mut policy, v4("198.51.100.21")).unwrap();
    assert!(policy.interfaces[0].public.is_empty());

    unassign_private_ip_addresses(&mut policy, "eni-2", &wanted).unwrap();
    assert!(policy.interfaces[1].public.is_empty());
    assert_eq!(addresses(&policy, 1), ["10.0.1.20"]);

    unassign_ipv6_addresses(&mut policy, "eni-1", &[v6("2001:db8:0:1::10")]).unwrap();
    assign_ipv6_addresses(&mut policy, "eni-2", &[v6("2001:db8:0:1::10")]).unwrap();
    assert_eq!(addresses(&policy, 1), ["10.0.1.20", "2001:db8:0:1::10"]);

    let first = Timeouts { tcp_established: Some(60), udp: Some(30), ..Timeouts::default() };
    set_interface_timeouts(&mut policy, "eni-1", first).unwrap();
    let second = Timeouts { udp: Some(60), udp_stream: Some(180), ..Timeouts::default() };
    set_interface_timeouts(&mut policy, "eni-1", second).unwrap();
    let both = Timeouts { tcp_established: Some(60), ..second };
    assert_eq!(policy.interfaces[0].timeouts, both);
    is_sound(&policy);
}

/// SEMANTICS 4.7: whoever is left with a reference has a stale rule, which can be revoked.
#[test]
fn what_a_peer_loses_goes_stale() {
    let calls: [Call; 2] = [|p| delete_security_group(p, "sg-far"), |p| delete_peering(p, "pcx-1")];
    for call in calls {
        let mut policy = world(Compat::Ec2_2017);
        call(&mut policy).unwrap();
        is_sound(&policy);
        let app = policy.security_groups.iter().find(|group| group.id == "sg-app").unwrap();
        let stale: Vec<_> = app
            .ingress
            .iter()
            .map(|rule| matches!(&rule.peer, Peer::Group(to) if to.stale))
            .collect();
        assert_eq!(stale, [false, true]);
        revoke(&mut policy, "sg-app", "in udp 53 from sg-far").unwrap();
        assert_eq!(rules(&policy, "sg-app", Direction::Ingress), ["tcp 6001 sg-web"]);
        is_sound(&policy);
    }
}

/// SEMANTICS 2.10.
#[test]
fn descriptions_change_and_rules_are_replaced() {
    let mut policy = world(Compat::Current);
    let (direction, mut permission) = said("in tcp 22 from 203.0.113.1/32");
    for description in [Some("the office".to_owned()), None] {
        permission.ip_ranges[0].description.clone_from(&description);
        let permissions = [permission.clone()];
        update_rule_descriptions(&mut policy, "sg-web", direction, &permissions).unwrap();
        let web = policy.security_groups.iter().find(|group| group.id == "sg-web").unwrap();
        assert_eq!(web.ingress[0].description, description);
        is_sound(&policy);
    }
    modify_rule(&mut policy, "sg-app", "ingress-1", &said("in all from pl-20").1).unwrap();
    assert_eq!(rules(&policy, "sg-app", Direction::Ingress), ["all pl-20", "udp 53 sg-far"]);
    // To itself is no duplicate.
    modify_rule(&mut policy, "sg-app", "ingress-1", &said("in all from pl-20").1).unwrap();
    is_sound(&policy);
}

/// A call with several permissions is made whole or not at all.
#[test]
fn one_bad_permission_refuses_all() {
    let good = said("in tcp 80 from 0.0.0.0/0").1;
    for (bad, code) in [
        ("in tcp 22 from 203.0.113.1/32", ErrorCode::InvalidPermissionDuplicate),
        ("in tcp 100-50 from 0.0.0.0/0", ErrorCode::InvalidParameterValue),
        ("in all from sg-none", ErrorCode::InvalidGroupNotFound),
        ("in all from pl-none", ErrorCode::InvalidPrefixListIdNotFound),
    ] {
        let mut policy = world(Compat::Ec2_2017);
        let before = policy.clone();
        let permissions = [good.clone(), said(bad).1];
        let refused =
            edit::authorize(&mut policy, "sg-web", Direction::Ingress, &permissions).unwrap_err();
        assert_eq!(refused.code, code);
        assert_eq!(policy, before);
    }
    let mut policy = world(Compat::Ec2_2017);
    let before = policy.clone();
    let permissions = [said("in tcp 22 from 203.0.113.1/32").1, good];
    let refused =
        edit::revoke(&mut policy, "sg-web", Direction::Ingress, &permissions).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidPermissionNotFound);
    assert_eq!(policy, before);
}

/// A dump may hold what AWS would not let one say today: it stands in no other call's way, but a
/// limit that is exceeded already lets nothing more in, and everything out.
#[test]
fn faults_of_a_dump_are_not_those_of_a_call() {
    let dump = r#"{ "SecurityGroups": [
        { "GroupId": "sg-1", "GroupName": "one", "VpcId": "vpc-1", "IpPermissions": [
            { "IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "UserIdGroupPairs": [{ "GroupId": "sg-gone" }] },
            { "IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{ "CidrIp": "10.0.0.0/8" }] }] },
        { "GroupId": "sg-2", "GroupName": "two", "VpcId": "vpc-1" }] ,
      "Vpcs": [{ "VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16" }] }"#;
    let limits = "version = 1\n[limits]\nrules_per_group = 1\ngroups_per_vpc = 1";
    let file =
        |name: &str, bytes: &'static str| Input { name: name.into(), bytes: bytes.as_bytes() };
    let mut policy =
        load::load(&[file("dump.json", dump), file("limits.toml", limits)]).unwrap().policy;
    authorize(&mut policy, "sg-2", "in tcp 1 from 10.0.0.0/8").unwrap();
    let full = authorize(&mut policy, "sg-1", "in tcp 2 from 10.0.0.0/8").unwrap_err();
    assert_eq!(full.code, ErrorCode::RulesPerSecurityGroupLimitExceeded);
    assert_eq!(
        create(&mut policy, "sg-3", "three").unwrap_err().code,
        ErrorCode::SecurityGroupLimitExceeded
    );
    revoke(&mut policy, "sg-1", "in tcp 1 from sg-gone").unwrap();
    delete_security_group(&mut policy, "sg-1").unwrap();
}
