//! AWS's objects, one function each. Field names are those of the EC2 API reference.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic::Diagnostic;
use crate::json::{Cursor, invalid};
use crate::model::{
    AclAction, FlowLimits, GroupRef, Interface, L4Match, NetworkAcl, NetworkAclEntry, Peer,
    Peering, PrefixList, Route, RouteTarget, SecurityGroup, SecurityGroupRule, Subnet, Timeouts,
    Vpc,
};
use crate::text;

pub(super) fn vpc(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<Vpc> {
    let id = c.required("VpcId", out)?.to_owned();
    let mut cidrs = Vec::new();
    cidrs.extend(c.cidr("CidrBlock", Some(false), out));
    for block in c.list("CidrBlockAssociationSet", out) {
        if is_associated(&block, "CidrBlockState") {
            cidrs.extend(block.cidr("CidrBlock", Some(false), out));
        }
    }
    for block in c.list("Ipv6CidrBlockAssociationSet", out) {
        if is_associated(&block, "Ipv6CidrBlockState") {
            cidrs.extend(block.cidr("Ipv6CidrBlock", Some(true), out));
        }
    }
    // The primary range stands in the set as well.
    let mut distinct = Vec::new();
    for cidr in cidrs {
        if !distinct.contains(&cidr) {
            distinct.push(cidr);
        }
    }
    Some(Vpc { id, cidrs: distinct, classic_link: false, origin: c.at.clone() })
}

pub(super) fn subnet(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<Subnet> {
    let id = c.required("SubnetId", out)?.to_owned();
    let vpc = c.required("VpcId", out)?.to_owned();
    let mut cidrs = Vec::new();
    cidrs.extend(c.cidr("CidrBlock", Some(false), out));
    for block in c.list("Ipv6CidrBlockAssociationSet", out) {
        if is_associated(&block, "Ipv6CidrBlockState") {
            cidrs.extend(block.cidr("Ipv6CidrBlock", Some(true), out));
        }
    }
    Some(Subnet { id, vpc, cidrs, network_acl: None, routes: Vec::new(), origin: c.at.clone() })
}

/// Whether an address block is in use: its state says so, or nothing else.
fn is_associated(block: &Cursor<'_>, state: &str) -> bool {
    let state = block.get(state).and_then(|state| state.value.get("State")?.as_str());
    state.is_none_or(|state| matches!(state, "associated" | "associating"))
}

/// `describe-managed-prefix-lists`, or `describe-prefix-lists` with the ranges in place.
pub(super) fn prefix_list(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<PrefixList> {
    let entries = c.get("Cidrs").map(|_| {
        let mut entries = Vec::new();
        for cidr in c.list("Cidrs", out) {
            match cidr.value.as_str().map(text::cidr) {
                Some(Ok((range, _))) => entries.push(range),
                Some(Err(message)) => {
                    out.push(invalid(&cidr.at, message, "write the range as AWS prints it"));
                }
                None => cidr.expected("a string", out),
            }
        }
        entries
    });
    Some(PrefixList {
        id: c.required("PrefixListId", out)?.to_owned(),
        name: c.text("PrefixListName", out).map(str::to_owned),
        max_entries: c.number("MaxEntries", out).and_then(|n| u32::try_from(n).ok()),
        entries,
        origin: c.at.clone(),
    })
}

/// A group. A rule that names another group by its name alone has that name as the id, which
/// [`super::Dump::finish`] resolves: no name begins as ids do.
pub(super) fn group(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<SecurityGroup> {
    let name = c.text("GroupName", out).unwrap_or_default().to_owned();
    Some(SecurityGroup {
        id: c.required("GroupId", out)?.to_owned(),
        description: c.text("Description", out).unwrap_or_default().to_owned(),
        is_default: name == "default",
        name,
        vpc: c.text("VpcId", out).filter(|id| !id.is_empty()).map(str::to_owned),
        owner: c.text("OwnerId", out).map(str::to_owned),
        ingress: permissions(c, "IpPermissions", "ingress", out),
        egress: permissions(c, "IpPermissionsEgress", "egress", out),
        origin: c.at.clone(),
    })
}

/// One permission with n peers is n rules (SEMANTICS 1.7).
fn permissions(
    c: &Cursor<'_>,
    key: &str,
    direction: &str,
    out: &mut Vec<Diagnostic>,
) -> Vec<SecurityGroupRule> {
    let mut rules = Vec::new();
    for permission in c.list(key, out) {
        let Some(matches) = rule_match(&permission, out) else { continue };
        for (at, peer) in peers(&permission, out) {
            rules.push(SecurityGroupRule {
                id: format!("{direction}-{}", rules.len() + 1),
                matches,
                peer,
                description: at.text("Description", out).map(str::to_owned),
                origin: at.at,
            });
        }
    }
    rules
}

fn peers<'a>(permission: &Cursor<'a>, out: &mut Vec<Diagnostic>) -> Vec<(Cursor<'a>, Peer)> {
    let mut peers = Vec::new();
    for range in permission.list("IpRanges", out) {
        let cidr = range.cidr("CidrIp", Some(false), out);
        peers.extend(cidr.map(|cidr| (range, Peer::Cidr(cidr))));
    }
    for range in permission.list("Ipv6Ranges", out) {
        let cidr = range.cidr("CidrIpv6", Some(true), out);
        peers.extend(cidr.map(|cidr| (range, Peer::Cidr(cidr))));
    }
    for list in permission.list("PrefixListIds", out) {
        let id = list.required("PrefixListId", out).map(str::to_owned);
        peers.extend(id.map(|id| (list, Peer::PrefixList(id))));
    }
    for pair in permission.list("UserIdGroupPairs", out) {
        let reference = group_reference(&pair, out);
        peers.extend(reference.map(|reference| (pair, Peer::Group(reference))));
    }
    peers
}

/// A `UserIdGroupPair`, or the `ReferencedGroupInfo` of a security group rule.
fn group_reference(pair: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<GroupRef> {
    let name = pair.text("GroupName", out).filter(|_| pair.get("GroupId").is_none());
    let id = match name {
        Some(name) => name,
        None => pair.required("GroupId", out)?,
    };
    let mut text = |key| pair.text(key, out).filter(|text| !text.is_empty()).map(str::to_owned);
    Some(GroupRef {
        id: id.to_owned(),
        vpc: text("VpcId"),
        owner: text("UserId"),
        peering: text("VpcPeeringConnectionId"),
        stale: text("PeeringStatus").is_some_and(|status| status != "active"),
    })
}

/// `IpProtocol`, `FromPort` and `ToPort`, by SEMANTICS 2.4.
fn rule_match(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<L4Match> {
    let protocol = c.required("IpProtocol", out)?;
    let (from, to) = (c.number("FromPort", out), c.number("ToPort", out));
    l4(c, "IpProtocol", protocol, (from, to), (from, to), out)
}

/// The layer-4 part of a rule or entry; `ports` and `icmp` are as the answer gives them.
fn l4(
    c: &Cursor<'_>,
    key: &str,
    protocol: &str,
    ports: (Option<i64>, Option<i64>),
    icmp: (Option<i64>, Option<i64>),
    out: &mut Vec<Diagnostic>,
) -> Option<L4Match> {
    match text::l4_of_numbers(protocol, ports, icmp) {
        Ok(matches) => Some(matches),
        Err(message) => {
            let at = match text::protocol_number(protocol) {
                Err(_) => c.at.field(key),
                Ok(_) => c.at.clone(),
            };
            out.push(invalid(&at, message, "AWS would not accept it: save its answer again"));
            None
        }
    }
}

/// A rule of `describe-security-group-rules`: its id, group, direction, and what it says.
pub(super) fn named_rule(
    c: &Cursor<'_>,
    out: &mut Vec<Diagnostic>,
) -> Option<(String, String, bool, L4Match, Peer)> {
    let id = c.required("SecurityGroupRuleId", out)?.to_owned();
    let group = c.required("GroupId", out)?.to_owned();
    let is_egress = c.flag("IsEgress", out).unwrap_or(false);
    let matches = rule_match(c, out)?;
    let peer = if c.get("CidrIpv4").is_some() {
        Peer::Cidr(c.cidr("CidrIpv4", Some(false), out)?)
    } else if c.get("CidrIpv6").is_some() {
        Peer::Cidr(c.cidr("CidrIpv6", Some(true), out)?)
    } else if let Some(list) = c.text("PrefixListId", out) {
        Peer::PrefixList(list.to_owned())
    } else {
        Peer::Group(group_reference(&c.get("ReferencedGroupInfo")?, out)?)
    };
    Some((id, group, is_egress, matches, peer))
}

/// An ACL, and the subnets that it is associated with.
pub(super) fn network_acl(
    c: &Cursor<'_>,
    out: &mut Vec<Diagnostic>,
) -> Option<(NetworkAcl, Vec<String>)> {
    let mut acl = NetworkAcl {
        id: c.required("NetworkAclId", out)?.to_owned(),
        vpc: c.text("VpcId", out).map(str::to_owned),
        is_default: c.flag("IsDefault", out).unwrap_or(false),
        ingress: Vec::new(),
        egress: Vec::new(),
        origin: c.at.clone(),
    };
    for entry in c.list("Entries", out) {
        let is_egress = entry.flag("Egress", out).unwrap_or(false);
        if let Some(entry) = acl_entry(&entry, out) {
            if is_egress { &mut acl.egress } else { &mut acl.ingress }.push(entry);
        }
    }
    let subnets = c.list("Associations", out);
    let subnets = subnets.iter().filter_map(|a| a.text("SubnetId", out).map(str::to_owned));
    Some((acl, subnets.collect()))
}

/// One entry; `None` for the final deny, which every ACL has, and for what cannot be read.
fn acl_entry(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<NetworkAclEntry> {
    let Some(number) = c.number("RuleNumber", out) else {
        out.push(Diagnostic::error(
            "MissingParameter",
            &c.at,
            "\"RuleNumber\" is missing",
            "save the answer of `aws ec2 describe-network-acls` again",
        ));
        return None;
    };
    let rule_number = match number {
        32767 | 32768 => return None,
        1..=32766 => number as u16,
        _ => {
            let message = format!("rule number {number} is not within 1-32766");
            let mend = "save the answer of `aws ec2 describe-network-acls` again";
            out.push(invalid(&c.at.field("RuleNumber"), message, mend));
            return None;
        }
    };
    let action = match c.required("RuleAction", out)? {
        "allow" => AclAction::Allow,
        "deny" => AclAction::Deny,
        other => {
            let message = format!("{other:?} is no action");
            let mend = "AWS says \"allow\" or \"deny\": save its answer again";
            out.push(invalid(&c.at.field("RuleAction"), message, mend));
            return None;
        }
    };
    let keys = ["CidrBlock", "Ipv6CidrBlock"].map(|key| c.get(key).is_some());
    let cidr = match keys {
        [true, false] => c.cidr("CidrBlock", Some(false), out)?,
        [false, true] => c.cidr("Ipv6CidrBlock", Some(true), out)?,
        both => {
            let (code, message) = match both[0] {
                true => {
                    ("InvalidParameterCombination", "the entry has both an IPv4 and an IPv6 range")
                }
                false => ("MissingParameter", "the entry has no range"),
            };
            let mend = "an entry has exactly one: save the answer of AWS again";
            out.push(Diagnostic::error(code, &c.at, message, mend));
            return None;
        }
    };
    let protocol = c.required("Protocol", out)?;
    let mut pair = |key, first, second| {
        let range = c.get(key);
        let mut number = |field| range.as_ref().and_then(|r| r.number(field, out));
        (number(first), number(second))
    };
    let ports = pair("PortRange", "From", "To");
    let icmp = pair("IcmpTypeCode", "Type", "Code");
    let matches = l4(c, "Protocol", protocol, ports, icmp, out)?;
    Some(NetworkAclEntry { rule_number, action, matches, cidr, origin: c.at.clone() })
}

/// A network interface, of its own answer or of an instance's.
pub(super) fn interface(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<Interface> {
    let id = c.required("NetworkInterfaceId", out)?.to_owned();
    let mut private = Vec::new();
    let mut public = Vec::new();
    for entry in c.list("PrivateIpAddresses", out) {
        let is_primary = entry.flag("Primary", out).unwrap_or(false);
        let Some(address) = entry.address("PrivateIpAddress", out) else { continue };
        private.push((!is_primary, address));
        public.extend(public_address(&entry, address, out));
    }
    if private.is_empty()
        && let Some(address) = c.address("PrivateIpAddress", out)
    {
        private.push((false, address));
        public.extend(public_address(c, address, out));
    }
    private.sort_by_key(|(is_secondary, _)| *is_secondary);
    let mut addresses: Vec<IpAddr> = private.into_iter().map(|(_, address)| address).collect();
    for entry in c.list("Ipv6Addresses", out) {
        addresses.extend(entry.address("Ipv6Address", out));
    }
    let groups = c.list("Groups", out);
    Some(Interface {
        id,
        subnet: c.text("SubnetId", out).unwrap_or_default().to_owned(),
        addresses,
        public,
        security_groups: groups
            .iter()
            .filter_map(|g| g.required("GroupId", out).map(str::to_owned))
            .collect(),
        source_dest_check: c.flag("SourceDestCheck", out).unwrap_or(true),
        flows: FlowLimits::default(),
        mtu: None,
        timeouts: timeouts(c, out),
        mac: c.text("MacAddress", out).and_then(text::mac),
        instance: c.get("Attachment").and_then(|a| a.text("InstanceId", out)).map(str::to_owned),
        instance_type: None,
        origin: c.at.clone(),
    })
}

fn public_address(
    c: &Cursor<'_>,
    private: IpAddr,
    out: &mut Vec<Diagnostic>,
) -> Option<(IpAddr, IpAddr)> {
    Some((private, c.get("Association")?.address("PublicIp", out)?))
}

/// The timeouts that AWS lets one set, in seconds (SEMANTICS 7.10).
fn timeouts(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Timeouts {
    let keys = ["ConnectionTrackingConfiguration", "ConnectionTrackingSpecification"];
    let Some(settings) = keys.iter().find_map(|key| c.get(key)) else {
        return Timeouts::default();
    };
    let mut seconds = |key| settings.number(key, out).and_then(|n| u32::try_from(n).ok());
    Timeouts {
        tcp_established: seconds("TcpEstablishedTimeout"),
        udp: seconds("UdpTimeout"),
        udp_stream: seconds("UdpStreamTimeout"),
        ..Timeouts::default()
    }
}

pub(super) fn peering(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<Peering> {
    let id = c.required("VpcPeeringConnectionId", out)?.to_owned();
    let mut cidrs = Vec::new();
    let mut ends = Vec::new();
    for key in ["RequesterVpcInfo", "AccepterVpcInfo"] {
        let end = c.get(key)?;
        let vpc = end.text("VpcId", out).unwrap_or_default().to_owned();
        let mut ranges = Vec::new();
        ranges.extend(end.cidr("CidrBlock", Some(false), out));
        for block in end.list("CidrBlockSet", out) {
            ranges.extend(block.cidr("CidrBlock", Some(false), out));
        }
        for block in end.list("Ipv6CidrBlockSet", out) {
            ranges.extend(block.cidr("Ipv6CidrBlock", Some(true), out));
        }
        for range in ranges {
            if !cidrs.contains(&(vpc.clone(), range)) {
                cidrs.push((vpc.clone(), range));
            }
        }
        ends.push((vpc, end.text("Region", out)));
    }
    let [(requester, from), (accepter, to)] = <[_; 2]>::try_from(ends).ok()?;
    let status = c.get("Status").and_then(|status| status.text("Code", out));
    Some(Peering {
        id,
        vpcs: [requester, accepter],
        cidrs,
        active: status == Some("active"),
        inter_region: from.is_some() && to.is_some() && from != to,
        origin: c.at.clone(),
    })
}

/// A route table: its VPC, whether it is the main one, the subnets associated with it, its routes.
pub(super) struct RouteTable {
    pub(super) vpc: String,
    pub(super) is_main: bool,
    pub(super) subnets: Vec<String>,
    pub(super) routes: Vec<TableRoute>,
}

/// A route whose destination may still be a prefix list, and whose target a peering.
pub(super) struct TableRoute {
    pub(super) destination: Destination,
    pub(super) peering: Option<String>,
    pub(super) route: Route,
}

pub(super) enum Destination {
    Range,
    PrefixList(String),
}

pub(super) fn route_table(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<RouteTable> {
    let associations = c.list("Associations", out);
    Some(RouteTable {
        vpc: c.required("VpcId", out)?.to_owned(),
        is_main: associations.iter().any(|a| a.flag("Main", out).unwrap_or(false)),
        subnets: associations
            .iter()
            .filter_map(|a| a.text("SubnetId", out).map(str::to_owned))
            .collect(),
        routes: c.list("Routes", out).iter().filter_map(|route| table_route(route, out)).collect(),
    })
}

fn table_route(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> Option<TableRoute> {
    let nowhere = IpNet::default();
    let (destination, range) = if let Some(list) = c.text("DestinationPrefixListId", out) {
        (Destination::PrefixList(list.to_owned()), nowhere)
    } else if c.get("DestinationIpv6CidrBlock").is_some() {
        (Destination::Range, c.cidr("DestinationIpv6CidrBlock", Some(true), out)?)
    } else {
        (Destination::Range, c.cidr("DestinationCidrBlock", Some(false), out)?)
    };
    let peering = c.text("VpcPeeringConnectionId", out).map(str::to_owned);
    let target = match c.text("State", out) {
        Some("blackhole") => RouteTarget::Blackhole,
        _ => target(c, out),
    };
    let interface = c.text("NetworkInterfaceId", out).map(str::to_owned);
    let interface = interface.filter(|_| target == RouteTarget::Appliance);
    let origin = c.at.clone();
    let route = Route { destination: range, target, interface, mtu: None, origin };
    Some(TableRoute { destination, peering, route })
}

fn target(c: &Cursor<'_>, out: &mut Vec<Diagnostic>) -> RouteTarget {
    const FIELDS: &[(&str, RouteTarget)] = &[
        ("NatGatewayId", RouteTarget::NatGateway),
        ("EgressOnlyInternetGatewayId", RouteTarget::EgressOnlyInternetGateway),
        ("TransitGatewayId", RouteTarget::TransitGateway),
        ("VpcPeeringConnectionId", RouteTarget::Peering),
        ("NetworkInterfaceId", RouteTarget::Appliance),
        ("InstanceId", RouteTarget::Appliance),
        ("CarrierGatewayId", RouteTarget::OtherGateway),
        ("LocalGatewayId", RouteTarget::OtherGateway),
        ("CoreNetworkArn", RouteTarget::OtherGateway),
    ];
    const GATEWAYS: &[(&str, RouteTarget)] = &[
        ("local", RouteTarget::Local),
        ("igw-", RouteTarget::InternetGateway),
        ("vgw-", RouteTarget::VpnGateway),
        ("eigw-", RouteTarget::EgressOnlyInternetGateway),
        ("nat-", RouteTarget::NatGateway),
        ("tgw-", RouteTarget::TransitGateway),
    ];
    if let Some(id) = c.text("GatewayId", out) {
        if id.starts_with("vpce-") {
            // To a prefix list it is a gateway endpoint, to a range one that inspects.
            return match c.get("DestinationPrefixListId") {
                Some(_) => RouteTarget::GatewayEndpoint,
                None => RouteTarget::InspectionEndpoint,
            };
        }
        let known = GATEWAYS.iter().find(|(prefix, _)| id.starts_with(prefix));
        return known.map_or(RouteTarget::OtherGateway, |(_, target)| *target);
    }
    let known = FIELDS.iter().find(|(key, _)| c.get(key).is_some());
    known.map_or(RouteTarget::OtherGateway, |(_, target)| *target)
}
