//! Network ACLs, their entries and associations (SEMANTICS 1.4, 8.1-8.6, 16).

use ipnet::IpNet;

use super::permission::cidr;
use super::{ApiError, ErrorCode, apply, everywhere, origin};
use crate::model::{AclAction, Direction, L4Match, NetworkAcl, NetworkAclEntry, Policy, Subnet};
use crate::text::{self, EntryText};

/// The numbers of entries; 32767 and 32768 are the final deny.
const RULE_NUMBERS: std::ops::RangeInclusive<i32> = 1..=32766;

/// An entry as the EC2 API states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRequest {
    /// 1-32766.
    pub rule_number: i32,
    /// What it decides.
    pub action: AclAction,
    /// A number 0-255, or `-1` for every protocol; `tcp`, `udp`, `icmp`, `icmpv6` and `all` too.
    pub protocol: String,
    /// An IPv4 range, or
    pub cidr_block: Option<String>,
    /// an IPv6 range.
    pub ipv6_cidr_block: Option<String>,
    /// First and last port; needed for TCP and UDP, without meaning for others.
    pub port_range: Option<(i32, i32)>,
    /// Type and code, -1 for all; needed for ICMP, and for ICMPv6 with an IPv6 range.
    pub icmp_type_code: Option<(i32, i32)>,
}

/// The entry of a line, whose direction is the call's.
impl From<&EntryText> for EntryRequest {
    fn from(text: &EntryText) -> Self {
        let (range, other) = match text.cidr {
            IpNet::V4(range) => (Some(range.to_string()), None),
            IpNet::V6(range) => (None, Some(range.to_string())),
        };
        let any = |number: Option<u8>| number.map_or(-1, i32::from);
        EntryRequest {
            rule_number: text.rule_number.into(),
            action: text.action,
            protocol: text.matches.protocol().map_or("-1".to_owned(), |n| n.to_string()),
            cidr_block: range,
            ipv6_cidr_block: other,
            port_range: match text.matches {
                L4Match::Tcp(ports) | L4Match::Udp(ports) => {
                    Some((ports.from.into(), ports.to.into()))
                }
                _ => None,
            },
            icmp_type_code: match text.matches {
                L4Match::Icmp(icmp) | L4Match::Icmpv6(icmp) => {
                    Some((any(icmp.kind), any(icmp.code)))
                }
                _ => None,
            },
        }
    }
}

/// `CreateNetworkAcl`: without entries, so that it denies everything (SEMANTICS 8.6). `id` is the
/// caller's choice.
///
/// # Errors
/// `InvalidVpcID.NotFound`, `NetworkAclLimitExceeded`, `InvalidParameterValue` for an id that is
/// taken.
pub fn create_network_acl(policy: &mut Policy, id: &str, vpc: &str) -> Result<(), ApiError> {
    apply(policy, |policy| {
        policy.network_acls.push(NetworkAcl {
            id: id.to_owned(),
            vpc: Some(vpc.to_owned()),
            is_default: false,
            ingress: Vec::new(),
            egress: Vec::new(),
            origin: origin(id),
        });
        Ok(())
    })
}

/// `DeleteNetworkAcl`.
///
/// # Errors
/// `InvalidNetworkAclID.NotFound`, `InvalidParameterValue` for a default ACL,
/// `DependencyViolation` for one that a subnet is associated with.
pub fn delete_network_acl(policy: &mut Policy, id: &str) -> Result<(), ApiError> {
    let index = acl_index(policy, id)?;
    if policy.network_acls[index].is_default {
        let message = format!("cannot delete default network ACL {id}");
        return Err(ApiError::invalid(message));
    }
    let is_user = |subnet: &&Subnet| subnet.network_acl.as_deref() == Some(id);
    if let Some(subnet) = policy.subnets.iter().find(is_user) {
        let message = format!(
            "The networkAcl '{id}' has dependencies and cannot be deleted: subnet {} is \
             associated with it; replace that association",
            subnet.id
        );
        return Err(ApiError::new(ErrorCode::DependencyViolation, message));
    }
    policy.network_acls.remove(index);
    Ok(())
}

/// `CreateNetworkAclEntry`.
///
/// # Errors
/// `NetworkAclEntryAlreadyExists` for a number that is taken in this direction,
/// `NetworkAclEntryLimitExceeded`, `InvalidNetworkAclID.NotFound`; `InvalidParameterCombination`
/// for ranges of both families, `MissingParameter` for none; `InvalidParameterValue` for bad
/// numbers, protocols, ports, types and ranges.
pub fn create_network_acl_entry(
    policy: &mut Policy,
    id: &str,
    direction: Direction,
    entry: &EntryRequest,
) -> Result<(), ApiError> {
    let entry = stored(id, direction, entry)?;
    apply(policy, |policy| {
        let index = acl_index(policy, id)?;
        let entries = entries_mut(&mut policy.network_acls[index], direction);
        if entries.iter().any(|known| known.rule_number == entry.rule_number) {
            let message = format!(
                "The network acl entry identified by {} already exists.",
                entry.rule_number
            );
            return Err(ApiError::new(ErrorCode::NetworkAclEntryAlreadyExists, message));
        }
        entries.push(entry);
        Ok(())
    })
}

/// `ReplaceNetworkAclEntry`: the entry of the same number gives way.
///
/// # Errors
/// `InvalidNetworkAclEntry.NotFound` if there is none; as [`create_network_acl_entry`] otherwise.
pub fn replace_network_acl_entry(
    policy: &mut Policy,
    id: &str,
    direction: Direction,
    entry: &EntryRequest,
) -> Result<(), ApiError> {
    let entry = stored(id, direction, entry)?;
    apply(policy, |policy| {
        let index = acl_index(policy, id)?;
        let entries = entries_mut(&mut policy.network_acls[index], direction);
        let place = place(entries, entry.rule_number)?;
        entries[place] = entry;
        Ok(())
    })
}

/// `DeleteNetworkAclEntry`.
///
/// # Errors
/// `InvalidNetworkAclEntry.NotFound`, `InvalidNetworkAclID.NotFound`, `InvalidParameterValue` for a
/// number outside 1-32766, the final deny's among them.
pub fn delete_network_acl_entry(
    policy: &mut Policy,
    id: &str,
    direction: Direction,
    rule_number: i32,
) -> Result<(), ApiError> {
    let rule_number = number(rule_number)?;
    let index = acl_index(policy, id)?;
    let entries = entries_mut(&mut policy.network_acls[index], direction);
    let place = place(entries, rule_number)?;
    entries.remove(place);
    Ok(())
}

/// `ReplaceNetworkAclAssociation`: the subnet's former ACL gives way (SEMANTICS 1.4).
///
/// # Errors
/// `InvalidSubnetID.NotFound`, `InvalidNetworkAclID.NotFound`, `InvalidParameterValue` for an ACL
/// of another VPC.
pub fn replace_network_acl_association(
    policy: &mut Policy,
    subnet: &str,
    acl: &str,
) -> Result<(), ApiError> {
    apply(policy, |policy| {
        acl_index(policy, acl)?;
        let Some(subnet) = policy.subnets.iter_mut().find(|known| known.id == subnet) else {
            let message = format!("The subnet ID '{subnet}' does not exist");
            return Err(ApiError::new(ErrorCode::InvalidSubnetIdNotFound, message));
        };
        subnet.network_acl = Some(acl.to_owned());
        Ok(())
    })
}

/// The entries that AWS gives a default ACL in each direction (SEMANTICS 8.6).
pub(super) fn open_entries(
    acl: &str,
    direction: Direction,
    has_ipv6: bool,
) -> Vec<NetworkAclEntry> {
    let entry = |(rule_number, cidr)| NetworkAclEntry {
        rule_number,
        action: AclAction::Allow,
        matches: L4Match::All,
        cidr,
        origin: origin(format!("{acl}.{direction}.{rule_number}")),
    };
    (100..).zip(everywhere(has_ipv6)).map(entry).collect()
}

fn acl_index(policy: &Policy, id: &str) -> Result<usize, ApiError> {
    policy.network_acls.iter().position(|acl| acl.id == id).ok_or_else(|| {
        let message = format!("The networkAcl ID '{id}' does not exist");
        ApiError::new(ErrorCode::InvalidNetworkAclIdNotFound, message)
    })
}

fn entries_mut(acl: &mut NetworkAcl, direction: Direction) -> &mut Vec<NetworkAclEntry> {
    match direction {
        Direction::Ingress => &mut acl.ingress,
        Direction::Egress => &mut acl.egress,
    }
}

fn place(entries: &[NetworkAclEntry], number: u16) -> Result<usize, ApiError> {
    entries.iter().position(|entry| entry.rule_number == number).ok_or_else(|| {
        let message = format!("The network acl entry identified by {number} does not exist.");
        ApiError::new(ErrorCode::InvalidNetworkAclEntryNotFound, message)
    })
}

fn number(rule_number: i32) -> Result<u16, ApiError> {
    let in_range = RULE_NUMBERS.contains(&rule_number);
    u16::try_from(rule_number).ok().filter(|_| in_range).ok_or_else(|| {
        ApiError::invalid(match rule_number {
            32767 | 32768 => format!(
                "{rule_number} is the final deny, which every ACL has and nobody can change; \
                 choose a number in 1-32766"
            ),
            _ => format!("{rule_number} is no rule number; choose one in 1-32766"),
        })
    })
}

fn stored(
    acl: &str,
    direction: Direction,
    entry: &EntryRequest,
) -> Result<NetworkAclEntry, ApiError> {
    let rule_number = number(entry.rule_number)?;
    let cidr = match (&entry.cidr_block, &entry.ipv6_cidr_block) {
        (Some(range), None) => cidr(range, false)?,
        (None, Some(range)) => cidr(range, true)?,
        (Some(_), Some(_)) => {
            let message = "an entry has one range; give CidrBlock or Ipv6CidrBlock, not both";
            return Err(ApiError::new(ErrorCode::InvalidParameterCombination, message));
        }
        (None, None) => return Err(ApiError::missing("CidrBlock or Ipv6CidrBlock")),
    };
    let matches = l4(entry, cidr.addr().is_ipv6())?;
    let origin = origin(format!("{acl}.{direction}.{rule_number}"));
    Ok(NetworkAclEntry { rule_number, action: entry.action, matches, cidr, origin })
}

/// By SEMANTICS 8.4: ICMPv6 with an IPv4 range is every type, whatever was given.
fn l4(entry: &EntryRequest, is_ipv6: bool) -> Result<L4Match, ApiError> {
    let pair = |numbers: Option<(i32, i32)>| match numbers {
        Some((first, second)) => (Some(i64::from(first)), Some(i64::from(second))),
        None => (None, None),
    };
    let read = |icmp| text::l4_of_numbers(&entry.protocol, pair(entry.port_range), pair(icmp));
    let any = read(None).map_err(ApiError::invalid)?;
    let needs_type = match any {
        L4Match::Icmp(_) => true,
        L4Match::Icmpv6(_) => is_ipv6,
        _ => return Ok(any),
    };
    match needs_type {
        false => Ok(any),
        true if entry.icmp_type_code.is_none() => {
            let message = "ICMP needs IcmpTypeCode, a type and a code; -1 is all of them";
            Err(ApiError::invalid(message))
        }
        true => read(entry.icmp_type_code).map_err(ApiError::invalid),
    }
}
