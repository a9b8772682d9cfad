//! Why a rule's peer is not the address at the other end (SEMANTICS 2.6, 4).

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Field, Mismatch, same_family};
use crate::model::{GroupRef, Peer, Policy, SecurityGroup};

/// An address of the other family: no change of the range helps.
const OTHER_FAMILY: u32 = 200;
/// A reference that does not resolve, or does not hold on this path.
const NO_REFERENCE: u32 = 60;
/// An address that is no member's: the interface must join the group.
const NO_MEMBER: u32 = 40;

/// The group with this id, the first of several.
pub(super) fn group<'a>(policy: &'a Policy, id: &str) -> Option<&'a SecurityGroup> {
    policy.security_groups.iter().find(|group| group.id == id)
}

/// Why `peer`, in a rule of `owner`, is not `remote`; `None`: it is.
pub(super) fn mismatch(
    policy: &Policy,
    owner: &SecurityGroup,
    peer: &Peer,
    remote: IpAddr,
    is_direct: bool,
) -> Option<Mismatch> {
    match peer {
        Peer::Cidr(cidr) => prefix_mismatch(cidr, remote),
        Peer::PrefixList(id) => list_mismatch(policy, id, remote),
        Peer::Group(to) => {
            if let Some(why) = unresolved(policy, owner, to) {
                return Some(Mismatch::new(Field::Reference, why, NO_REFERENCE));
            }
            not_a_member(policy, &to.id, remote).or_else(|| {
                (!is_direct).then(|| {
                    let text = format!(
                        "through a middlebox or gateway a reference to {} does not hold; a range \
                         would",
                        to.id
                    );
                    Mismatch::new(Field::Middlebox, text, NO_REFERENCE)
                })
            })
        }
    }
}

/// Why `peer` is not literally all addresses of a family (SEMANTICS 6.1); `None`: it is.
pub(super) fn mismatch_any(policy: &Policy, peer: &Peer, ipv6: bool) -> Option<Mismatch> {
    let any = if ipv6 { "::/0" } else { "0.0.0.0/0" };
    let is_any = |net: &IpNet| net.prefix_len() == 0 && net.addr().is_ipv6() == ipv6;
    let (found, distance) = match peer {
        Peer::Cidr(net) if is_any(net) => return None,
        Peer::Cidr(net) if net.addr().is_ipv6() != ipv6 => (net.to_string(), OTHER_FAMILY),
        Peer::Cidr(net) => (net.to_string(), net.prefix_len().into()),
        Peer::PrefixList(id) => match list(policy, id) {
            Some(entries) if entries.iter().any(is_any) => return None,
            _ => (id.clone(), NO_REFERENCE),
        },
        Peer::Group(to) => (to.id.clone(), NO_REFERENCE),
    };
    Some(Mismatch::new(Field::Address, format!("{found} is not {any}"), distance))
}

/// Why `remote` is not in `net`; `None`: it is.
pub(super) fn prefix_mismatch(net: &IpNet, remote: IpAddr) -> Option<Mismatch> {
    if net.contains(&remote) {
        return None;
    }
    if !same_family(net, remote) {
        let (range, found) = if remote.is_ipv6() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let text = format!("{net} is {range}, the packet {found}");
        return Some(Mismatch::new(Field::Family, text, OTHER_FAMILY));
    }
    let text = format!("{remote} is not in {net}");
    Some(Mismatch::new(Field::Address, text, to_shorten(net, remote)))
}

/// Bits by which the prefix must be shortened to hold `addr`, which it does not; of IPv6 a
/// quarter, so that the families compare.
fn to_shorten(net: &IpNet, addr: IpAddr) -> u32 {
    let len = u32::from(net.prefix_len());
    match (net.addr(), addr) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            len.saturating_sub((u32::from(a) ^ u32::from(b)).leading_zeros())
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            len.saturating_sub((u128::from(a) ^ u128::from(b)).leading_zeros()).div_ceil(4)
        }
        _ => len,
    }
}

fn list<'a>(policy: &'a Policy, id: &str) -> Option<&'a [IpNet]> {
    policy.prefix_lists.iter().find(|list| list.id == id)?.entries.as_deref()
}

fn list_mismatch(policy: &Policy, id: &str, remote: IpAddr) -> Option<Mismatch> {
    let Some(entries) = list(policy, id) else {
        let text = format!("the policy does not say what is in {id}");
        return Some(Mismatch::new(Field::Reference, text, NO_REFERENCE));
    };
    if entries.iter().any(|net| net.contains(&remote)) {
        return None;
    }
    let same = entries.iter().filter(|net| same_family(net, remote));
    let nearest = same.map(|net| to_shorten(net, remote)).min();
    let text = match entries.len() {
        0 => format!("{id} has no entries"),
        1 => format!("{remote} is not in the one entry of {id}"),
        n => format!("{remote} is in none of the {n} entries of {id}"),
    };
    Some(match nearest {
        Some(distance) => Mismatch::new(Field::Address, text, distance),
        None if entries.is_empty() => Mismatch::new(Field::Address, text, NO_REFERENCE),
        None => Mismatch::new(Field::Family, text, OTHER_FAMILY),
    })
}

/// Why `remote` is no private address of a member of group `id` (SEMANTICS 4.1).
fn not_a_member(policy: &Policy, id: &str, remote: IpAddr) -> Option<Mismatch> {
    let is_in = |groups: &[String]| groups.iter().any(|group| group == id);
    let interfaces = policy.interfaces.iter().filter(|i| is_in(&i.security_groups));
    let instances = policy.classic_instances.iter().filter(|i| {
        is_in(&i.security_groups) || i.link.as_ref().is_some_and(|l| is_in(&l.security_groups))
    });
    let members = interfaces.clone().count() + instances.clone().count();
    let has = interfaces.clone().any(|i| i.addresses.contains(&remote))
        || instances.clone().any(|i| i.address == remote);
    if has {
        return None;
    }
    let is_public =
        interfaces.clone().any(|i| i.public.iter().any(|(_, public)| *public == remote))
            || instances.clone().any(|i| i.public == Some(remote));
    let text = match members {
        _ if is_public => format!(
            "{remote} is a member's public address; members of {id} are known by private ones"
        ),
        0 => format!("no interface has {id}"),
        1 => format!("{remote} is no private address of {id}'s one member"),
        n => format!("{remote} is no private address of {id}'s {n} members"),
    };
    Some(Mismatch::new(Field::Members, text, NO_MEMBER))
}

/// Why a reference in a rule of `owner` matches nothing, whoever the members are (SEMANTICS 4.6,
/// 4.7); `None`: it holds.
#[must_use]
pub fn unresolved(policy: &Policy, owner: &SecurityGroup, to: &GroupRef) -> Option<String> {
    let Some(other) = group(policy, &to.id) else {
        return Some(format!("the policy has no group {}", to.id));
    };
    if to.stale {
        return Some(format!("stale: the peering to {} is gone", to.id));
    }
    if to.vpc.is_some() && to.vpc != other.vpc {
        return Some(format!("{} is not in the VPC that the rule names", to.id));
    }
    if other.vpc == owner.vpc {
        return None;
    }
    let Some(id) = &to.peering else {
        return Some(format!("{} is in another VPC and the rule names no peering", to.id));
    };
    let Some(peering) = policy.peerings.iter().find(|peering| peering.id == *id) else {
        return Some(format!("stale: there is no peering {id}"));
    };
    let joins = |vpc: &Option<String>| vpc.as_ref().is_some_and(|v| peering.vpcs.contains(v));
    if !peering.active {
        Some(format!("stale: the peering {id} is not active"))
    } else if peering.inter_region {
        Some(format!("{id} crosses Regions, where groups cannot be referred to"))
    } else if !joins(&owner.vpc) || !joins(&other.vpc) {
        Some(format!("{id} does not join the VPCs of {} and {}", owner.id, to.id))
    } else {
        None
    }
}
