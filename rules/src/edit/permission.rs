//! Rules as the EC2 API states them, and what they become (SEMANTICS 1.7, 2.3-2.8, 4.6).

use std::str::FromStr;

use ipnet::IpNet;

use super::{ApiError, ErrorCode, group};
use crate::model::{Direction, GroupRef, L4Match, Peer, Policy, SecurityGroup, SecurityGroupRule};
use crate::text;

/// A permission of the EC2 API: protocol and ports, and any number of peers, each of which makes a
/// rule of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpPermission {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, a number 0-255, or `-1` for every protocol.
    pub ip_protocol: String,
    /// First port, or ICMP type (-1: all); without meaning for other protocols.
    pub from_port: Option<i32>,
    /// Last port, or ICMP code (-1: all).
    pub to_port: Option<i32>,
    /// IPv4 ranges.
    pub ip_ranges: Vec<IpRange>,
    /// IPv6 ranges.
    pub ipv6_ranges: Vec<Ipv6Range>,
    /// Prefix lists.
    pub prefix_list_ids: Vec<PrefixListId>,
    /// Security groups.
    pub user_id_group_pairs: Vec<UserIdGroupPair>,
}

/// An IPv4 range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpRange {
    /// `203.0.113.0/24`; a single address needs its /32.
    pub cidr_ip: String,
    /// Description of the rule.
    pub description: Option<String>,
}

/// An IPv6 range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipv6Range {
    /// `2001:db8::/32`; a single address needs its /128.
    pub cidr_ipv6: String,
    /// Description of the rule.
    pub description: Option<String>,
}

/// A prefix list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixListId {
    /// `pl-…`.
    pub prefix_list_id: String,
    /// Description of the rule.
    pub description: Option<String>,
}

/// A security group, by id or, in the same VPC or in EC2-Classic, by name. An id wins over a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserIdGroupPair {
    /// `sg-…`.
    pub group_id: Option<String>,
    /// Its name.
    pub group_name: Option<String>,
    /// The account that must own it.
    pub user_id: Option<String>,
    /// The VPC that it must belong to.
    pub vpc_id: Option<String>,
    /// The peering through which it is reached; left out: whichever leads there.
    pub vpc_peering_connection_id: Option<String>,
    /// Description of the rule.
    pub description: Option<String>,
}

/// A permission in the notation of [`crate::text`], with one peer and a direction. Protocol,
/// numbers and peer are taken as they stand (`in tcp 100-50 from 10.0.0.1` is one): to judge them
/// is the call's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionText {
    /// Which list it is meant for.
    pub direction: Direction,
    /// The permission.
    pub permission: IpPermission,
}

impl FromStr for PermissionText {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let expected = || {
            format!("{line:?}: expected a direction, a protocol, its ports, then from or to a peer")
        };
        let words: Vec<_> = line.split_whitespace().collect();
        let (direction, what, peer) = match words.as_slice() {
            ["in" | "ingress", what @ .., "from", peer] => (Direction::Ingress, what, *peer),
            ["out" | "egress", what @ .., "to", peer] => (Direction::Egress, what, *peer),
            _ => return Err(expected()),
        };
        let number = |text: &str| text.parse::<i32>().map_err(|_| expected());
        let pair = |text: &str, by: char| -> Result<_, String> {
            let (from, to) = text.split_once(by).ok_or_else(expected)?;
            Ok((Some(number(from)?), Some(number(to)?)))
        };
        let (protocol, (from_port, to_port)) = match what {
            ["all"] => ("-1", (None, None)),
            ["proto", protocol] => (*protocol, (None, None)),
            [protocol @ ("tcp" | "udp")] => (*protocol, (Some(0), Some(65535))),
            [protocol @ ("icmp" | "icmpv6")] => (*protocol, (Some(-1), Some(-1))),
            [protocol] => (*protocol, (None, None)),
            [protocol, pair_of] if pair_of.contains('/') => (*protocol, pair(pair_of, '/')?),
            [protocol, range] if range.contains('-') => (*protocol, pair(range, '-')?),
            [protocol @ ("icmp" | "icmpv6"), kind] => (*protocol, (Some(number(kind)?), Some(-1))),
            [protocol, port] => (*protocol, (Some(number(port)?), Some(number(port)?))),
            _ => return Err(expected()),
        };
        let mut permission = IpPermission {
            ip_protocol: protocol.to_owned(),
            from_port,
            to_port,
            ..IpPermission::default()
        };
        let peer = peer.to_owned();
        if peer.starts_with("sg-") {
            let pair = UserIdGroupPair { group_id: Some(peer), ..UserIdGroupPair::default() };
            permission.user_id_group_pairs.push(pair);
        } else if peer.starts_with("pl-") {
            let list = PrefixListId { prefix_list_id: peer, ..PrefixListId::default() };
            permission.prefix_list_ids.push(list);
        } else if peer.contains(':') {
            permission.ipv6_ranges.push(Ipv6Range { cidr_ipv6: peer, ..Ipv6Range::default() });
        } else {
            permission.ip_ranges.push(IpRange { cidr_ip: peer, ..IpRange::default() });
        }
        Ok(PermissionText { direction, permission })
    }
}

/// One rule that a call names.
pub(super) struct Named {
    pub(super) matches: L4Match,
    pub(super) peer: Peer,
    pub(super) description: Option<String>,
}

impl Named {
    pub(super) fn is(&self, rule: &SecurityGroupRule) -> bool {
        rule.identity() == (self.matches, self.peer.identity())
    }
}

/// What a call wants with the rules that it names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To add them: what they refer to must exist.
    Add,
    /// To find them: what they refer to may be gone.
    Find,
}

/// The rules that `permissions` name, one for each peer.
pub(super) fn named(
    policy: &Policy,
    owner: &SecurityGroup,
    direction: Direction,
    permissions: &[IpPermission],
    purpose: Purpose,
) -> Result<Vec<Named>, ApiError> {
    let mut rules: Vec<Named> = Vec::new();
    for permission in permissions {
        let matches = l4(permission)?;
        for (peer, description) in peers(policy, owner, direction, permission, purpose)? {
            let is_same =
                |rule: &Named| rule.matches == matches && rule.peer.identity() == peer.identity();
            if rules.iter().any(is_same) {
                return Err(ApiError::invalid(
                    "The same permission must not appear multiple times",
                ));
            }
            rules.push(Named { matches, peer, description: description.clone() });
        }
    }
    if rules.is_empty() {
        return Err(ApiError::missing("IpPermissions, with at least one peer each"));
    }
    Ok(rules)
}

fn l4(permission: &IpPermission) -> Result<L4Match, ApiError> {
    let protocol = permission.ip_protocol.as_str();
    // `all` is a word of the command line, and of policy files, but not of the API.
    if protocol == "all" || text::protocol_number(protocol).is_err() {
        return Err(ApiError::invalid(format!(
            "Invalid value '{protocol}' for IP protocol. Unknown protocol."
        )));
    }
    let numbers = (permission.from_port.map(i64::from), permission.to_port.map(i64::from));
    let matches = text::l4_of_numbers(protocol, numbers, numbers).map_err(ApiError::invalid)?;
    if matches!(matches, L4Match::Icmp(_)) && (numbers.0.is_none() || numbers.1.is_none()) {
        let message = "ICMP needs a type in FromPort and a code in ToPort; -1 is all of them";
        return Err(ApiError::invalid(message));
    }
    Ok(matches)
}

fn peers<'r>(
    policy: &Policy,
    owner: &SecurityGroup,
    direction: Direction,
    permission: &'r IpPermission,
    purpose: Purpose,
) -> Result<Vec<(Peer, &'r Option<String>)>, ApiError> {
    let mut peers = Vec::new();
    for range in &permission.ip_ranges {
        peers.push((Peer::Cidr(cidr(&range.cidr_ip, false)?), &range.description));
    }
    for range in &permission.ipv6_ranges {
        peers.push((Peer::Cidr(cidr(&range.cidr_ipv6, true)?), &range.description));
    }
    for list in &permission.prefix_list_ids {
        peers.push((Peer::PrefixList(list.prefix_list_id.clone()), &list.description));
    }
    for pair in &permission.user_id_group_pairs {
        let id = group_id(policy, owner, pair)?;
        let reference = match purpose {
            Purpose::Add => reference(policy, owner, pair, &id)?,
            Purpose::Find => stored_reference(owner, direction, pair, id),
        };
        peers.push((Peer::Group(reference), &pair.description));
    }
    if peers.is_empty() {
        let peers = "IpRanges, Ipv6Ranges, PrefixListIds or UserIdGroupPairs";
        return Err(ApiError::missing(peers));
    }
    Ok(peers)
}

/// A range of one family, canonical as AWS stores it (SEMANTICS 2.8).
pub(super) fn cidr(text: &str, is_ipv6: bool) -> Result<IpNet, ApiError> {
    let (cidr, _) = text::cidr(text).map_err(ApiError::invalid)?;
    if is_ipv6 != cidr.addr().is_ipv6() {
        let families = if is_ipv6 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        return Err(ApiError::invalid(format!(
            "{text:?} is an {} range where an {} range belongs; each family has a parameter of its own",
            families.0, families.1
        )));
    }
    Ok(cidr)
}

/// The id of the group that a pair names.
fn group_id(
    policy: &Policy,
    owner: &SecurityGroup,
    pair: &UserIdGroupPair,
) -> Result<String, ApiError> {
    let name = match (&pair.group_id, &pair.group_name) {
        (Some(id), _) => return Ok(id.clone()),
        (None, Some(name)) => name,
        (None, None) => return Err(ApiError::missing("GroupId or GroupName")),
    };
    let mut groups = policy.security_groups.iter();
    let named = groups.find(|group| group.vpc == owner.vpc && group.name == *name);
    named.map(|group| group.id.clone()).ok_or_else(|| {
        let message = format!("The security group '{name}' does not exist");
        ApiError::new(ErrorCode::InvalidGroupNotFound, message)
    })
}

/// A reference that may be made: to a group of the same VPC, or of one at the other end of an
/// active peering in the same Region (SEMANTICS 4.6).
fn reference(
    policy: &Policy,
    owner: &SecurityGroup,
    pair: &UserIdGroupPair,
    id: &str,
) -> Result<GroupRef, ApiError> {
    let out_of_reach = |why: String| {
        let message = format!("The security group '{id}' {why}");
        ApiError::new(ErrorCode::InvalidGroupNotFound, message)
    };
    let other = group(policy, id)?;
    if pair.vpc_id.is_some() && pair.vpc_id != other.vpc {
        let vpc = pair.vpc_id.as_deref().unwrap_or_default();
        return Err(out_of_reach(format!("does not exist in VPC '{vpc}'")));
    }
    if let (Some(user), Some(account)) = (&pair.user_id, &other.owner)
        && user != account
    {
        return Err(out_of_reach(format!("does not belong to account '{user}'")));
    }
    if other.vpc == owner.vpc {
        return Ok(GroupRef::local(id));
    }
    let (Some(ours), Some(theirs)) = (&owner.vpc, &other.vpc) else {
        let why = "is of EC2-Classic or of a VPC, and its like alone may refer to it".to_owned();
        return Err(out_of_reach(why));
    };
    let named = pair.vpc_peering_connection_id.as_ref();
    let leads_there = policy.peerings.iter().find(|peering| {
        named.is_none_or(|id| *id == peering.id) && peering.carries_references(ours, theirs)
    });
    let Some(peering) = leads_there else {
        return Err(out_of_reach(format!(
            "is of VPC '{theirs}', to which no active peering in this Region leads from '{ours}'"
        )));
    };
    Ok(GroupRef {
        id: id.to_owned(),
        vpc: Some(theirs.clone()),
        owner: other.owner.clone().filter(|account| owner.owner.as_ref() != Some(account)),
        peering: Some(peering.id.clone()),
        stale: false,
    })
}

/// A reference as the group may have it, whatever became of its target; a peering that the call
/// does not name is that of the rule.
fn stored_reference(
    owner: &SecurityGroup,
    direction: Direction,
    pair: &UserIdGroupPair,
    id: String,
) -> GroupRef {
    let stored = owner.rules(direction).iter().find_map(|rule| match &rule.peer {
        Peer::Group(to) if to.id == id => to.peering.clone(),
        _ => None,
    });
    let peering = pair.vpc_peering_connection_id.clone().or(stored);
    GroupRef { peering, ..GroupRef::local(id) }
}
