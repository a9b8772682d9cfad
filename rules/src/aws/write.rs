//! A policy as AWS would print it: the answers of `aws ec2 describe-*`, merged into one object, as
//! [`super::Dump`] reads them. What their form cannot say is told.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::limits::Limits;
use crate::model::{
    AclAction, Compat, Direction, Exempt, FlowLimits, Interface, L4Match, Peer, Peering, Policy,
    PortRange, Route, RouteTarget, SecurityGroup, Subnet, Timeouts, Vpc,
};

/// What `policy` says in the form of AWS's answers, and a sentence for all that is lost.
#[must_use]
pub fn write(policy: &Policy) -> (Value, Vec<String>) {
    let mut lost = settings(policy);
    let mut all = Map::new();
    let mut put = |key: &str, objects: Vec<Value>| {
        if !objects.is_empty() {
            all.insert(key.to_owned(), Value::Array(objects));
        }
    };
    put("Vpcs", policy.vpcs.iter().map(|v| vpc(v, &mut lost)).collect());
    put("Subnets", policy.subnets.iter().map(subnet).collect());
    put("RouteTables", route_tables(policy, &mut lost));
    let lists = policy.prefix_lists.iter().map(|list| {
        let entries = list.entries.as_ref().map(|entries| texts(entries));
        some(json!({ "PrefixListId": list.id, "PrefixListName": list.name,
            "MaxEntries": list.max_entries, "Cidrs": entries }))
    });
    put("PrefixLists", lists.collect());
    put("SecurityGroups", policy.security_groups.iter().map(|g| group(g, &mut lost)).collect());
    put("SecurityGroupRules", policy.security_groups.iter().flat_map(rule_ids).collect());
    put("NetworkAcls", acls(policy, &mut lost));
    put("NetworkInterfaces", policy.interfaces.iter().map(|i| interface(i, &mut lost)).collect());
    put("Reservations", instances(policy));
    put("VpcPeeringConnections", policy.peerings.iter().map(|p| peering(p, &mut lost)).collect());
    (Value::Object(all), lost)
}

/// What is said of a policy as a whole, which AWS's answers know nothing of.
fn settings(policy: &Policy) -> Vec<String> {
    let is_kept = [
        (policy.compat == Compat::default(), "compat"),
        (!policy.icmp_related, "icmp_related"),
        (policy.exempt == Exempt::ALL, "exempt"),
        (!policy.tcp_window_check, "tcp_window_check"),
        (policy.limits == Limits::of(policy.compat), "[limits]"),
    ];
    let mut lost = Vec::new();
    for (_, name) in is_kept.iter().filter(|(is_kept, _)| !is_kept) {
        lost.push(format!("{name}: a small TOML file beside the answers can set it"));
    }
    for instance in &policy.classic_instances {
        lost.push(format!("the instance {} of EC2-Classic", instance.id));
    }
    for port in &policy.ports {
        lost.push(format!("the port {}", port.device));
    }
    lost
}

/// Without fields that are null.
fn some(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

fn texts<T: ToString>(elements: &[T]) -> Vec<String> {
    elements.iter().map(ToString::to_string).collect()
}

fn is_v6(cidr: &&IpNet) -> bool {
    matches!(cidr, IpNet::V6(_))
}

/// Ranges of one family, each under `key`.
fn blocks(cidrs: &[IpNet], v6: bool, key: &str) -> Vec<Value> {
    cidrs.iter().filter(|cidr| is_v6(cidr) == v6).map(|cidr| json!({ key: cidr })).collect()
}

fn vpc(vpc: &Vpc, lost: &mut Vec<String>) -> Value {
    if vpc.classic_link {
        lost.push(format!("that {} may be linked to instances of EC2-Classic", vpc.id));
    }
    some(json!({ "VpcId": vpc.id,
        "CidrBlock": vpc.cidrs.iter().find(|cidr| !is_v6(cidr)),
        "CidrBlockAssociationSet": blocks(&vpc.cidrs, false, "CidrBlock"),
        "Ipv6CidrBlockAssociationSet": blocks(&vpc.cidrs, true, "Ipv6CidrBlock") }))
}

fn subnet(subnet: &Subnet) -> Value {
    some(json!({ "SubnetId": subnet.id, "VpcId": subnet.vpc,
        "CidrBlock": subnet.cidrs.iter().find(|cidr| !is_v6(cidr)),
        "Ipv6CidrBlockAssociationSet": blocks(&subnet.cidrs, true, "Ipv6CidrBlock") }))
}

fn route_tables(policy: &Policy, lost: &mut Vec<String>) -> Vec<Value> {
    let mut tables = Vec::new();
    for subnet in policy.subnets.iter().filter(|subnet| !subnet.routes.is_empty()) {
        let routes: Vec<_> = subnet.routes.iter().map(|r| route(r, subnet, policy, lost)).collect();
        tables.push(json!({ "RouteTableId": format!("rtb-of-{}", subnet.id), "VpcId": subnet.vpc,
            "Associations": [{ "SubnetId": subnet.id }], "Routes": routes }));
    }
    tables
}

/// A route; of its target, which the policy knows by its kind alone, the id is made up.
fn route(route: &Route, subnet: &Subnet, policy: &Policy, lost: &mut Vec<String>) -> Value {
    let at = format!("the route of {} to {}", subnet.id, route.destination);
    if route.mtu.is_some() {
        lost.push(format!("{at}: its MTU"));
    }
    let is_inter_region = route.target == RouteTarget::InterRegionPeering;
    let peering = policy.peerings.iter().find(|peering| {
        peering.inter_region == is_inter_region && peering.vpcs.contains(&subnet.vpc)
    });
    let peering = peering.map_or("pcx-unknown", |peering| &peering.id);
    let (key, id) = match route.target {
        RouteTarget::Local => ("GatewayId", "local"),
        RouteTarget::InternetGateway => ("GatewayId", "igw-unknown"),
        RouteTarget::EgressOnlyInternetGateway => ("EgressOnlyInternetGatewayId", "eigw-unknown"),
        RouteTarget::NatGateway => ("NatGatewayId", "nat-unknown"),
        RouteTarget::TransitGateway => ("TransitGatewayId", "tgw-unknown"),
        RouteTarget::VpnGateway => ("GatewayId", "vgw-unknown"),
        RouteTarget::Peering => ("VpcPeeringConnectionId", peering),
        RouteTarget::InterRegionPeering => {
            if peering == "pcx-unknown" {
                lost.push(format!("{at}: that its peering crosses Regions"));
            }
            ("VpcPeeringConnectionId", peering)
        }
        RouteTarget::GatewayEndpoint => {
            lost.push(format!("{at}: that it leads to a gateway endpoint, not another gateway"));
            ("CarrierGatewayId", "cagw-unknown")
        }
        RouteTarget::InspectionEndpoint => ("GatewayId", "vpce-unknown"),
        RouteTarget::Appliance => match &route.interface {
            Some(interface) => ("NetworkInterfaceId", interface.as_str()),
            None => ("InstanceId", "i-unknown"),
        },
        RouteTarget::OtherGateway => ("CarrierGatewayId", "cagw-unknown"),
        RouteTarget::Blackhole => ("State", "blackhole"),
    };
    let destination = match route.destination {
        IpNet::V4(_) => "DestinationCidrBlock",
        IpNet::V6(_) => "DestinationIpv6CidrBlock",
    };
    json!({ destination: route.destination, key: id })
}

fn group(group: &SecurityGroup, lost: &mut Vec<String>) -> Value {
    if group.is_default != (group.name == "default") {
        lost.push(format!(
            "{}: whether it is its VPC's default group, which its name tells",
            group.id
        ));
    }
    let permissions = |direction| -> Vec<Value> {
        let rules = group.rules(direction).iter();
        rules
            .map(|rule| permission(rule.matches, &rule.peer, rule.description.as_deref()))
            .collect()
    };
    some(json!({ "GroupId": group.id, "GroupName": group.name, "Description": group.description,
        "VpcId": group.vpc, "OwnerId": group.owner,
        "IpPermissions": permissions(Direction::Ingress),
        "IpPermissionsEgress": permissions(Direction::Egress) }))
}

/// One rule as a permission of its own: AWS groups them, which says the same.
fn permission(matches: L4Match, peer: &Peer, description: Option<&str>) -> Value {
    let (protocol, from, to) = l4(matches);
    let (key, mut who) = match peer {
        Peer::Cidr(cidr @ IpNet::V4(_)) => ("IpRanges", json!({ "CidrIp": cidr })),
        Peer::Cidr(cidr @ IpNet::V6(_)) => ("Ipv6Ranges", json!({ "CidrIpv6": cidr })),
        Peer::PrefixList(id) => ("PrefixListIds", json!({ "PrefixListId": id })),
        Peer::Group(_) => ("UserIdGroupPairs", pair(peer)),
    };
    if let Some(description) = description {
        who["Description"] = description.into();
    }
    some(json!({ "IpProtocol": protocol, "FromPort": from, "ToPort": to, key: [who] }))
}

fn pair(peer: &Peer) -> Value {
    let Peer::Group(to) = peer else { return Value::Null };
    let status = to.stale.then_some("deleted");
    some(json!({ "GroupId": to.id, "VpcId": to.vpc, "UserId": to.owner,
        "VpcPeeringConnectionId": to.peering, "PeeringStatus": status }))
}

/// Ids of rules that are more than their place.
fn rule_ids(group: &SecurityGroup) -> Vec<Value> {
    let mut named = Vec::new();
    for direction in Direction::BOTH {
        for (n, rule) in group.rules(direction).iter().enumerate() {
            if rule.id == format!("{direction}-{}", n + 1) {
                continue;
            }
            let (protocol, from, to) = l4(rule.matches);
            let (key, who) = match &rule.peer {
                Peer::Cidr(cidr @ IpNet::V4(_)) => ("CidrIpv4", json!(cidr)),
                Peer::Cidr(cidr @ IpNet::V6(_)) => ("CidrIpv6", json!(cidr)),
                Peer::PrefixList(id) => ("PrefixListId", json!(id)),
                Peer::Group(_) => ("ReferencedGroupInfo", pair(&rule.peer)),
            };
            named.push(some(json!({ "SecurityGroupRuleId": rule.id, "GroupId": group.id,
                "IsEgress": direction == Direction::Egress, "IpProtocol": protocol,
                "FromPort": from, "ToPort": to, key: who })));
        }
    }
    named
}

/// Protocol, and the first and last port or the ICMP type and code.
fn l4(matches: L4Match) -> (String, Option<i32>, Option<i32>) {
    let number = matches.protocol().map_or(-1, i32::from);
    match matches {
        L4Match::All | L4Match::Other(_) => (number.to_string(), None, None),
        L4Match::Tcp(PortRange { from, to }) => {
            ("tcp".to_owned(), Some(from.into()), Some(to.into()))
        }
        L4Match::Udp(PortRange { from, to }) => {
            ("udp".to_owned(), Some(from.into()), Some(to.into()))
        }
        L4Match::Icmp(icmp) | L4Match::Icmpv6(icmp) => {
            let name = if number == 1 { "icmp" } else { "icmpv6" };
            let octet = |value: Option<u8>| Some(value.map_or(-1, i32::from));
            (name.to_owned(), octet(icmp.kind), octet(icmp.code))
        }
    }
}

fn acls(policy: &Policy, lost: &mut Vec<String>) -> Vec<Value> {
    let of = |id: &str| -> Vec<Value> {
        let subnets = policy.subnets.iter().filter(|s| s.network_acl.as_deref() == Some(id));
        subnets.map(|subnet| json!({ "SubnetId": subnet.id })).collect()
    };
    let mut acls = Vec::new();
    for acl in &policy.network_acls {
        let mut entries = Vec::new();
        for direction in Direction::BOTH {
            for entry in acl.entries(direction) {
                let (_, first, second) = l4(entry.matches);
                let (ports, icmp) = match entry.matches {
                    L4Match::Tcp(_) | L4Match::Udp(_) => {
                        (Some(json!({ "From": first, "To": second })), None)
                    }
                    L4Match::Icmp(_) | L4Match::Icmpv6(_) => {
                        (None, Some(json!({ "Type": first, "Code": second })))
                    }
                    _ => (None, None),
                };
                let protocol = entry.matches.protocol().map_or(-1, i32::from);
                let range = if is_v6(&&entry.cidr) { "Ipv6CidrBlock" } else { "CidrBlock" };
                let action = if entry.action == AclAction::Allow { "allow" } else { "deny" };
                entries.push(some(json!({ "RuleNumber": entry.rule_number,
                    "Egress": direction == Direction::Egress, "Protocol": protocol.to_string(),
                    "RuleAction": action, range: entry.cidr, "PortRange": ports,
                    "IcmpTypeCode": icmp })));
            }
        }
        acls.push(some(json!({ "NetworkAclId": acl.id, "VpcId": acl.vpc,
            "IsDefault": acl.is_default, "Associations": of(&acl.id), "Entries": entries })));
    }
    for subnet in &policy.subnets {
        let default = policy
            .network_acls
            .iter()
            .find(|acl| acl.is_default && acl.vpc.as_ref() == Some(&subnet.vpc));
        match (&subnet.network_acl, default) {
            (None, Some(acl)) => lost.push(format!(
                "{}: that no ACL judges it; it gets {}, the default of its VPC",
                subnet.id, acl.id
            )),
            // An ACL that nobody describes lets nothing pass, and nor does one without entries.
            (Some(id), _) if !acls.iter().any(|acl| acl["NetworkAclId"] == **id) => {
                acls.push(json!({ "NetworkAclId": id, "Associations": of(id), "Entries": [] }));
                lost.push(format!("that {id} is not described: it is written without entries"));
            }
            _ => {}
        }
    }
    acls
}

fn interface(interface: &Interface, lost: &mut Vec<String>) -> Value {
    if interface.mtu.is_some() {
        lost.push(format!("{}: its MTU", interface.id));
    }
    if interface.flows != FlowLimits::default() {
        lost.push(format!("{}: max_flows and reserved_flows", interface.id));
    }
    let Timeouts { tcp_established, udp, udp_stream, .. } = interface.timeouts;
    if interface.timeouts != (Timeouts { tcp_established, udp, udp_stream, ..Timeouts::default() })
    {
        lost.push(format!(
            "{}: timeouts other than tcp_established, udp, udp_stream",
            interface.id
        ));
    }
    let tracking = some(json!({ "TcpEstablishedTimeout": tcp_established,
        "UdpTimeout": udp, "UdpStreamTimeout": udp_stream }));
    let tracking = tracking.as_object().is_some_and(|t| !t.is_empty()).then_some(tracking);
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
        interface.addresses.iter().partition(|a| a.is_ipv4());
    if interface.addresses != [&v4[..], &v6[..]].concat() {
        lost.push(format!("{}: that an IPv6 address stands before an IPv4 one", interface.id));
    }
    let public = |private: &IpAddr| interface.public.iter().find(|(known, _)| known == private);
    for (private, _) in interface.public.iter().filter(|(private, _)| !v4.contains(private)) {
        lost.push(format!("{}: the public address of {private}", interface.id));
    }
    let private: Vec<_> = v4
        .iter()
        .enumerate()
        .map(|(n, address)| {
            let association = public(address).map(|(_, public)| json!({ "PublicIp": public }));
            some(json!({ "PrivateIpAddress": address, "Primary": n == 0, "Association": association }))
        })
        .collect();
    let ipv6: Vec<_> = v6.iter().map(|address| json!({ "Ipv6Address": address })).collect();
    let groups: Vec<_> =
        interface.security_groups.iter().map(|id| json!({ "GroupId": id })).collect();
    let mac = interface.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    let attachment = interface.instance.as_ref().map(|id| json!({ "InstanceId": id }));
    some(json!({ "NetworkInterfaceId": interface.id, "SubnetId": interface.subnet,
        "PrivateIpAddresses": private, "Ipv6Addresses": ipv6, "Groups": groups,
        "SourceDestCheck": interface.source_dest_check, "MacAddress": mac,
        "Attachment": attachment, "ConnectionTrackingConfiguration": tracking }))
}

/// Instances, for the types that they are of.
fn instances(policy: &Policy) -> Vec<Value> {
    let typed = policy.interfaces.iter().filter(|interface| interface.instance_type.is_some());
    typed
        .map(|interface| {
            let instance = some(json!({ "InstanceId": interface.instance,
                "InstanceType": interface.instance_type,
                "NetworkInterfaces": [{ "NetworkInterfaceId": interface.id }] }));
            json!({ "Instances": [instance] })
        })
        .collect()
}

fn peering(peering: &Peering, lost: &mut Vec<String>) -> Value {
    if peering.inter_region {
        lost.push(format!("{}: nothing, but its Regions' names are made up", peering.id));
    }
    let end = |n: usize| {
        let vpc = &peering.vpcs[n];
        let cidrs: Vec<IpNet> =
            peering.cidrs.iter().filter(|(of, _)| of == vpc).map(|(_, cidr)| *cidr).collect();
        let region = if n == 0 { "us-east-1" } else { "us-west-2" };
        some(json!({ "VpcId": vpc, "Region": peering.inter_region.then_some(region),
            "CidrBlockSet": blocks(&cidrs, false, "CidrBlock"),
            "Ipv6CidrBlockSet": blocks(&cidrs, true, "Ipv6CidrBlock") }))
    };
    let status = if peering.active { "active" } else { "deleted" };
    json!({ "VpcPeeringConnectionId": peering.id, "RequesterVpcInfo": end(0),
        "AccepterVpcInfo": end(1), "Status": { "Code": status } })
}
