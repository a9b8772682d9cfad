//! AWS's answers: what they mean, what is said of broken ones, and what spans several.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use sgwall_rules::load::{Input, Loaded, load};
use sgwall_rules::model::{AclAction, Peer, RouteTarget, SecurityGroupRule};

fn try_load(files: &[(&str, &Value)]) -> Result<Loaded, Vec<String>> {
    let files: Vec<_> =
        files.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let inputs: Vec<_> = files
        .iter()
        .map(|(name, text)| Input { name: name.clone(), bytes: text.as_bytes() })
        .collect();
    load(&inputs).map_err(|found| found.iter().map(ToString::to_string).collect())
}

/// One answer of everything, merged, in which all is in order.
fn good() -> Value {
    json!({
        "Vpcs": [{
            "VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16",
            "CidrBlockAssociationSet": [
                { "CidrBlock": "10.0.0.0/16", "CidrBlockState": { "State": "associated" } },
                { "CidrBlock": "10.9.0.0/16", "CidrBlockState": { "State": "disassociated" } },
            ],
            "Ipv6CidrBlockAssociationSet": [
                { "Ipv6CidrBlock": "2001:db8::/56", "Ipv6CidrBlockState": { "State": "associated" } },
            ],
        }],
        "Subnets": [
            { "SubnetId": "subnet-1", "VpcId": "vpc-1", "CidrBlock": "10.0.1.0/24",
              "Ipv6CidrBlockAssociationSet": [{ "Ipv6CidrBlock": "2001:db8:0:1::/64" }] },
            { "SubnetId": "subnet-2", "VpcId": "vpc-1", "CidrBlock": "10.0.2.0/24" },
        ],
        "SecurityGroups": [
            { "GroupId": "sg-1", "GroupName": "web", "VpcId": "vpc-1", "OwnerId": "123",
              "Description": "web servers",
              "IpPermissions": [
                  { "IpProtocol": "tcp", "FromPort": 80, "ToPort": 81,
                    "IpRanges": [{ "CidrIp": "0.0.0.0/0", "Description": "all" }, { "CidrIp": "10.0.0.0/8" }],
                    "Ipv6Ranges": [{ "CidrIpv6": "::/0" }],
                    "PrefixListIds": [{ "PrefixListId": "pl-1" }],
                    "UserIdGroupPairs": [{ "GroupId": "sg-2", "UserId": "123" }] },
                  { "IpProtocol": "6", "FromPort": 22, "ToPort": 22, "IpRanges": [{ "CidrIp": "10.0.0.0/8" }], "UserIdGroupPairs": [{ "GroupName": "app" }] },
                  { "IpProtocol": "icmp", "FromPort": 3, "ToPort": 4, "IpRanges": [{ "CidrIp": "0.0.0.0/0" }] },
                  { "IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{ "CidrIp": "10.0.0.0/8" }] },
                  { "IpProtocol": "icmpv6", "Ipv6Ranges": [{ "CidrIpv6": "::/0" }] },
                  { "IpProtocol": "47", "FromPort": 1, "ToPort": 2, "IpRanges": [{ "CidrIp": "10.0.0.0/8" }] },
              ],
              "IpPermissionsEgress": [{ "IpProtocol": "-1", "FromPort": null, "IpRanges": [{ "CidrIp": "0.0.0.0/0" }] }] },
            { "GroupId": "sg-2", "GroupName": "app", "VpcId": "vpc-1", "IpPermissions": [], "IpPermissionsEgress": [] },
        ],
        "SecurityGroupRules": [
            { "SecurityGroupRuleId": "sgr-a", "GroupId": "sg-1", "IsEgress": false, "IpProtocol": "tcp",
              "FromPort": 80, "ToPort": 81, "CidrIpv4": "10.0.0.0/8" },
            { "SecurityGroupRuleId": "sgr-b", "GroupId": "sg-1", "IsEgress": false, "IpProtocol": "tcp",
              "FromPort": 80, "ToPort": 81, "ReferencedGroupInfo": { "GroupId": "sg-2", "UserId": "123" } },
            { "SecurityGroupRuleId": "sgr-c", "GroupId": "sg-1", "IsEgress": true, "IpProtocol": "-1",
              "FromPort": -1, "ToPort": -1, "CidrIpv4": "0.0.0.0/0" },
        ],
        "PrefixLists": [{ "PrefixListId": "pl-1", "PrefixListName": "office", "MaxEntries": 5 }],
        "Entries": [{ "Cidr": "203.0.113.0/24" }],
        "NetworkAcls": [
            { "NetworkAclId": "acl-1", "VpcId": "vpc-1", "IsDefault": true, "Associations": [],
              "Entries": [{ "RuleNumber": 100, "Egress": false, "Protocol": "-1", "RuleAction": "allow", "CidrBlock": "0.0.0.0/0" }] },
            { "NetworkAclId": "acl-2", "VpcId": "vpc-1", "IsDefault": false,
              "Associations": [{ "SubnetId": "subnet-1" }],
              "Entries": [
                  { "RuleNumber": 200, "Egress": true, "Protocol": "6", "RuleAction": "deny", "CidrBlock": "10.0.0.0/8", "PortRange": { "From": 1, "To": 9 } },
                  { "RuleNumber": 100, "Egress": false, "Protocol": "58", "RuleAction": "allow", "Ipv6CidrBlock": "::/0", "IcmpTypeCode": { "Type": 128, "Code": -1 } },
                  { "RuleNumber": 32767, "Egress": false, "Protocol": "-1", "RuleAction": "deny", "CidrBlock": "0.0.0.0/0" },
                  { "RuleNumber": 32768, "Egress": false, "Protocol": "-1", "RuleAction": "deny", "Ipv6CidrBlock": "::/0" },
              ] },
        ],
        "NetworkInterfaces": [{
            "NetworkInterfaceId": "eni-1", "SubnetId": "subnet-1", "MacAddress": "02:00:00:00:00:0a",
            "PrivateIpAddresses": [
                { "PrivateIpAddress": "10.0.1.11", "Primary": false },
                { "PrivateIpAddress": "10.0.1.10", "Primary": true, "Association": { "PublicIp": "198.51.100.1" } },
            ],
            "Ipv6Addresses": [{ "Ipv6Address": "2001:db8:0:1::10" }],
            "Groups": [{ "GroupId": "sg-1" }], "SourceDestCheck": false,
            "ConnectionTrackingConfiguration": { "TcpEstablishedTimeout": 350, "UdpTimeout": 40, "UdpStreamTimeout": 100 },
        }],
        "RouteTables": [
            { "RouteTableId": "rtb-1", "VpcId": "vpc-1", "Associations": [{ "Main": true }],
              "Routes": [{ "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1", "State": "active" }] },
            { "RouteTableId": "rtb-2", "VpcId": "vpc-1", "Associations": [{ "SubnetId": "subnet-1" }],
              "Routes": [
                  { "DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active" },
                  { "DestinationCidrBlock": "10.1.0.0/16", "VpcPeeringConnectionId": "pcx-1", "State": "active" },
                  { "DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1", "State": "active" },
                  { "DestinationPrefixListId": "pl-1", "GatewayId": "vpce-1", "State": "active" },
                  { "DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "blackhole" },
              ] },
        ],
        "VpcPeeringConnections": [{
            "VpcPeeringConnectionId": "pcx-1", "Status": { "Code": "active" },
            "RequesterVpcInfo": { "VpcId": "vpc-1", "Region": "us-east-1", "CidrBlock": "10.0.0.0/16", "CidrBlockSet": [{ "CidrBlock": "10.0.0.0/16" }] },
            "AccepterVpcInfo": { "VpcId": "vpc-9", "Region": "eu-west-1", "CidrBlock": "10.1.0.0/16" },
        }],
    })
}

fn texts(rules: &[SecurityGroupRule]) -> Vec<String> {
    rules.iter().map(|r| format!("{}: {} {}", r.id, r.matches, r.peer)).collect()
}

#[test]
fn answers_mean_what_they_say() {
    let loaded = try_load(&[("all.json", &good())]).unwrap();
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let policy = loaded.policy;
    assert_eq!(format!("{:?}", policy.vpcs[0].cidrs), "[10.0.0.0/16, 2001:db8::/56]");
    assert_eq!(format!("{:?}", policy.subnets[0].cidrs), "[10.0.1.0/24, 2001:db8:0:1::/64]");
    let web = &policy.security_groups[0];
    assert_eq!(
        texts(&web.ingress),
        [
            "ingress-1: tcp 80-81 0.0.0.0/0",
            "sgr-a: tcp 80-81 10.0.0.0/8",
            "ingress-3: tcp 80-81 ::/0",
            "ingress-4: tcp 80-81 pl-1",
            "sgr-b: tcp 80-81 sg-2",
            "ingress-6: tcp 22 10.0.0.0/8",
            // Named by its name alone, it is the same group.
            "ingress-7: tcp 22 sg-2",
            "ingress-8: icmp 3/4 0.0.0.0/0",
            "ingress-9: icmp 10.0.0.0/8",
            "ingress-10: icmpv6 ::/0",
            "ingress-11: proto 47 10.0.0.0/8",
        ]
    );
    assert_eq!(texts(&web.egress), ["sgr-c: all 0.0.0.0/0"]);
    assert_eq!(
        web.ingress[0].origin.to_string(),
        "all.json: SecurityGroups[0].IpPermissions[0].IpRanges[0]"
    );
    assert_eq!(format!("{:?}", policy.prefix_lists[0].entries), "Some([203.0.113.0/24])");

    // The final denies are no entries; a subnet without an association has its VPC's default.
    let acl = &policy.network_acls[1];
    let entries = |list: &[sgwall_rules::model::NetworkAclEntry]| -> Vec<String> {
        list.iter()
            .map(|e| {
                format!(
                    "{} {} {} {}",
                    e.rule_number,
                    e.action == AclAction::Allow,
                    e.matches,
                    e.cidr
                )
            })
            .collect()
    };
    assert_eq!(entries(&acl.ingress), ["100 true icmpv6 128 ::/0"]);
    assert_eq!(entries(&acl.egress), ["200 false tcp 1-9 10.0.0.0/8"]);
    let acls: Vec<_> = policy.subnets.iter().map(|s| s.network_acl.as_deref()).collect();
    assert_eq!(acls, [Some("acl-2"), Some("acl-1")]);

    let interface = &policy.interfaces[0];
    assert_eq!(format!("{:?}", interface.addresses), "[10.0.1.10, 10.0.1.11, 2001:db8:0:1::10]");
    assert_eq!(format!("{:?}", interface.public), "[(10.0.1.10, 198.51.100.1)]");
    assert!(!interface.source_dest_check);
    assert_eq!(interface.mac, Some([2, 0, 0, 0, 0, 10]));
    let timeouts = interface.timeouts;
    assert_eq!(
        (timeouts.tcp_established, timeouts.udp, timeouts.udp_stream, timeouts.icmp),
        (Some(350), Some(40), Some(100), None)
    );

    let routes = |n: usize| -> Vec<String> {
        policy.subnets[n]
            .routes
            .iter()
            .map(|r| format!("{} {:?}", r.destination, r.target))
            .collect()
    };
    assert_eq!(
        routes(0),
        [
            "10.0.0.0/16 Local",
            "10.1.0.0/16 InterRegionPeering",
            "::/0 EgressOnlyInternetGateway",
            "203.0.113.0/24 GatewayEndpoint",
            "0.0.0.0/0 Blackhole"
        ]
    );
    assert_eq!(policy.subnets[1].routes[0].target, RouteTarget::InternetGateway);
    let peering = &policy.peerings[0];
    assert!(peering.active && peering.inter_region);
    assert_eq!(peering.cidrs.len(), 2);
}

#[test]
fn answers_may_be_wrapped_listed_or_spread() {
    let all = good();
    let expected = try_load(&[("all.json", &all)]).unwrap().policy;
    let count = |policy: &sgwall_rules::model::Policy| {
        (
            policy.subnets.len(),
            policy.security_groups.len(),
            policy.network_acls.len(),
            policy.interfaces.len(),
        )
    };
    let wrapped = json!({ "status_code": 200, "data": all });
    assert_eq!(count(&try_load(&[("w", &wrapped)]).unwrap().policy), count(&expected));
    let parts: Vec<Value> =
        all.as_object().unwrap().iter().map(|(k, v)| json!({ k.as_str(): v })).collect();
    let listed = Value::Array(parts.clone());
    assert_eq!(count(&try_load(&[("l", &listed)]).unwrap().policy), count(&expected));
    let files: Vec<_> = parts.iter().rev().map(|part| ("part.json", part)).collect();
    assert_eq!(count(&try_load(&files).unwrap().policy), count(&expected));
}

#[test]
fn the_same_object_twice_counts_once() {
    let all = good();
    let twice = try_load(&[("a", &all), ("b", &all)]);
    // The entries are not objects with an id: they are of the one list that is there.
    assert_eq!(twice.unwrap().policy.security_groups.len(), 2);
    let mut other = json!({ "Vpcs": all["Vpcs"] });
    other["Vpcs"][0]["CidrBlock"] = json!("10.0.0.0/15");
    let loaded = try_load(&[("a", &all), ("b", &other)]).unwrap();
    assert_eq!(
        loaded.diagnostics[0].to_string(),
        "warning[duplicate-id]: b: Vpcs[0]: \"vpc-1\" was described otherwise at a: Vpcs[0], and \
         that counts; leave out the older of the two files"
    );
}

#[test]
fn entries_find_their_list_by_the_files_name() {
    let lists = json!({ "PrefixLists": [
        { "PrefixListId": "pl-1", "PrefixListName": "office" },
        { "PrefixListId": "pl-2", "PrefixListName": "branch-office" },
        { "PrefixListId": "pl-3", "PrefixListName": "lab" },
    ]});
    let entries = json!({ "Entries": [{ "Cidr": "10.0.0.0/8" }] });
    for (file, found) in
        [("x/get-office.json", 0), ("get-branch-office.json", 1), ("entries-pl-3.json", 2)]
    {
        let policy = try_load(&[("lists", &lists), (file, &entries)]).unwrap().policy;
        let with: Vec<_> = (0..3).filter(|&i| policy.prefix_lists[i].entries.is_some()).collect();
        assert_eq!(with, [found], "{file}");
    }
    assert_eq!(
        try_load(&[("lists", &lists), ("what.json", &entries)]).unwrap_err(),
        ["error[unknown-entries]: what.json: Entries: the answer does not say which prefix list \
          these entries are of; put the list's id into the file's name, as in pl-0123abcd.json"]
    );
}

/// SEMANTICS 4.7.
#[test]
fn a_reference_over_a_peering_that_is_gone_is_stale() {
    let mut all = good();
    all["SecurityGroups"][1]["IpPermissions"] = json!([{ "IpProtocol": "-1", "UserIdGroupPairs": [
        { "GroupId": "sg-7", "VpcId": "vpc-9", "VpcPeeringConnectionId": "pcx-1", "PeeringStatus": "deleted" }
    ]}]);
    let loaded = try_load(&[("a", &all)]).unwrap();
    let Peer::Group(to) = &loaded.policy.security_groups[1].ingress[0].peer else { panic!() };
    assert!(to.stale);
    assert_eq!(
        loaded.diagnostics[0].to_string(),
        "warning[stale-reference]: a: SecurityGroups[1].IpPermissions[0].UserIdGroupPairs[0]: the \
         peering to sg-7 is gone: the rule is stale and matches nothing; remove the rule"
    );
}

/// What the dump lacks is named once, however often it is referred to.
#[test]
fn what_is_outside_the_dump_is_named_once() {
    let mut all = good();
    all["SecurityGroups"][0]["IpPermissions"][1]["UserIdGroupPairs"] =
        json!([{ "GroupId": "sg-9" }]);
    all["SecurityGroups"][0]["IpPermissions"][2]["UserIdGroupPairs"] =
        json!([{ "GroupId": "sg-9" }]);
    all["NetworkInterfaces"][0]["SubnetId"] = json!("subnet-9");
    all["NatGateways"] = json!([]);
    let found: Vec<_> =
        try_load(&[("a", &all)]).unwrap().diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "note[not-read]: a: NatGateways: \"NatGateways\" says nothing that sgwall reads, and is skipped",
            "warning[InvalidSubnetID.NotFound]: a: NetworkInterfaces[0]: the subnet \"subnet-9\" is outside the dump: its network ACL is unknown and lets nothing pass; add the answer of `aws ec2 describe-subnets`",
            "warning[InvalidGroup.NotFound]: a: SecurityGroups[0].IpPermissions[1].UserIdGroupPairs[0]: the security group \"sg-9\" is outside the dump: rules that name it match nothing; add the answer of `aws ec2 describe-security-groups`",
        ]
    );
}

#[test]
fn an_instance_describes_its_interfaces_where_nobody_else_does() {
    let mut all = good();
    let interface = all.as_object_mut().unwrap().shift_remove("NetworkInterfaces").unwrap();
    all["Reservations"] = json!([{ "Instances": [{ "NetworkInterfaces": interface }] }]);
    let policy = try_load(&[("a", &all)]).unwrap().policy;
    assert_eq!(policy.interfaces[0].id, "eni-1");
}

/// Only the instance's answer tells the type; what is known of both is put together.
#[test]
fn an_instance_tells_the_type() {
    let mut all = good();
    let interface = all["NetworkInterfaces"].clone();
    let instance =
        json!({ "InstanceId": "i-1", "InstanceType": "t2.small", "NetworkInterfaces": interface });
    all["Reservations"] = json!([{ "Instances": [instance] }]);
    let policy = try_load(&[("a", &all)]).unwrap().policy;
    let known = &policy.interfaces[0];
    assert_eq!(known.instance.as_deref(), Some("i-1"));
    assert_eq!(known.instance_type.as_deref(), Some("t2.small"));
}

/// Each case: a place in the good answer, what is put there, and all that is then said.
#[test]
fn broken_answers_are_refused_with_the_place() {
    const AGAIN: &str = "save the answer of `aws ec2 describe-*` again, whole";
    const RULE: &str = "SecurityGroups[0].IpPermissions[0]";
    const NOT_ACCEPTED: &str = "AWS would not accept it: save its answer again";
    let cases: Vec<(&str, Value, String)> = vec![
        ("/SecurityGroups", json!("x"), format!("InvalidParameterValue]: a: SecurityGroups: expected a list, found a string; {AGAIN}")),
        ("/SecurityGroups/0/GroupId", Value::Null, format!("MissingParameter]: a: SecurityGroups[0]: \"GroupId\" is missing; {AGAIN}")),
        ("/SecurityGroups/0/GroupName", json!(7), format!("InvalidParameterValue]: a: SecurityGroups[0].GroupName: expected a string, found a number; {AGAIN}")),
        ("/SecurityGroups/0/IpPermissions/0/FromPort", json!(82), format!("InvalidParameterValue]: a: {RULE}: the port range 82-81 is reversed; {NOT_ACCEPTED}")),
        ("/SecurityGroups/0/IpPermissions/0/ToPort", json!(65536), format!("InvalidParameterValue]: a: {RULE}: the port range 80-65536 is not within 0-65535; {NOT_ACCEPTED}")),
        ("/SecurityGroups/0/IpPermissions/0/FromPort", Value::Null, format!("InvalidParameterValue]: a: {RULE}: TCP and UDP need both ends of a port range; {NOT_ACCEPTED}")),
        ("/SecurityGroups/0/IpPermissions/0/IpProtocol", json!("sctp"), format!("InvalidParameterValue]: a: {RULE}.IpProtocol: \"sctp\" is not a protocol: tcp, udp, icmp, icmpv6, all or a number 0-255; {NOT_ACCEPTED}")),
        ("/SecurityGroups/0/IpPermissions/3/ToPort", json!(0), format!("InvalidParameterValue]: a: SecurityGroups[0].IpPermissions[3]: code 0 needs a type: with any type, any code; {NOT_ACCEPTED}")),
        ("/SecurityGroups/0/IpPermissions/0/IpRanges/0/CidrIp", json!("2001:db8::/32"), format!("InvalidParameterValue]: a: {RULE}.IpRanges[0].CidrIp: \"2001:db8::/32\" is of the wrong family; IPv4 and IPv6 ranges have fields of their own")),
        ("/SecurityGroups/0/IpPermissions/0/IpRanges/0/CidrIp", json!("10.0.0.0/x"), format!("InvalidParameterValue]: a: {RULE}.IpRanges[0].CidrIp: \"10.0.0.0/x\" is not a CIDR: the prefix length is 0-32; write a range such as 10.0.0.0/8")),
        ("/NetworkAcls/1/Entries/0/RuleNumber", json!(40000), "InvalidParameterValue]: a: NetworkAcls[1].Entries[0].RuleNumber: rule number 40000 is not within 1-32766; save the answer of `aws ec2 describe-network-acls` again".into()),
        ("/NetworkAcls/1/Entries/0/RuleAction", json!("drop"), "InvalidParameterValue]: a: NetworkAcls[1].Entries[0].RuleAction: \"drop\" is no action; AWS says \"allow\" or \"deny\": save its answer again".into()),
        ("/NetworkAcls/1/Entries/0/Ipv6CidrBlock", json!("::/0"), "InvalidParameterCombination]: a: NetworkAcls[1].Entries[0]: the entry has both an IPv4 and an IPv6 range; an entry has exactly one: save the answer of AWS again".into()),
        ("/NetworkAcls/1/Entries/0/CidrBlock", Value::Null, "MissingParameter]: a: NetworkAcls[1].Entries[0]: the entry has no range; an entry has exactly one: save the answer of AWS again".into()),
        ("/NetworkInterfaces/0/PrivateIpAddresses/0/PrivateIpAddress", json!("10.0.1"), "InvalidParameterValue]: a: NetworkInterfaces[0].PrivateIpAddresses[0].PrivateIpAddress: \"10.0.1\" is no IP address; save the answer of `aws ec2 describe-*` again, whole".into()),
        ("/NetworkInterfaces/0/SourceDestCheck", json!("yes"), format!("InvalidParameterValue]: a: NetworkInterfaces[0].SourceDestCheck: expected true or false, found a string; {AGAIN}")),
    ];
    for (pointer, value, expected) in cases {
        let mut all = good();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        all.pointer_mut(parent).unwrap()[key] = value.clone();
        let found = try_load(&[("a", &all)]).expect_err(pointer);
        let errors: Vec<_> = found.iter().filter_map(|d| d.strip_prefix("error[")).collect();
        assert_eq!(errors, [expected], "{value} at {pointer}");
    }
}

/// Every node of a value, by pointer.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, &format!("{at}/{k}"), all)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), all));
        }
        _ => {}
    }
}

proptest! {
    /// Whatever stands in the place of anything: findings, but no panic.
    #[test]
    fn mutated_answers_never_panic(
        changes in proptest::collection::vec((any::<Index>(), 0..9usize), 1..5)
    ) {
        let mut all = good();
        for (which, what) in changes {
            let mut places = Vec::new();
            pointers(&all, "", &mut places);
            let place = places[which.index(places.len())].clone();
            let values = [
                Value::Null, json!(true), json!(-1), json!(99999999999i64), json!(""), json!("sg-1"),
                json!("10.0.0.0/8"), json!([]), json!({}),
            ];
            *all.pointer_mut(&place).unwrap() = values[what].clone();
        }
        if let Ok(loaded) = try_load(&[("a", &all)]) {
            use sgwall_rules::compile::{CompiledPolicy, Generation};
            let _ = CompiledPolicy::compile(&loaded.policy, Generation(0));
        }
    }
}
