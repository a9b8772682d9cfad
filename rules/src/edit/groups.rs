//! Security groups and their rules (SEMANTICS 1.5-1.8, 2.10, 4.6, 4.7, 5.2, 16).

use super::permission::{IpPermission, Named, Purpose, named};
use super::{ApiError, ErrorCode, apply, everywhere, group, group_index, has_ipv6, origin};
use crate::model::{
    ClassicInstance, Compat, Direction, GroupRef, L4Match, Peer, Policy, SecurityGroup,
    SecurityGroupRule,
};

/// What `CreateSecurityGroup` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSecurityGroup {
    /// `sg-…`, the caller's choice.
    pub id: String,
    /// Name, 1-255 characters; trailing spaces are cut off.
    pub name: String,
    /// Description, 1-255 characters.
    pub description: String,
    /// Its VPC; `None` for EC2-Classic.
    pub vpc: Option<String>,
    /// Owning account, if known.
    pub owner: Option<String>,
}

/// `CreateSecurityGroup`: nothing in, everything out (SEMANTICS 5.2).
///
/// # Errors
/// `MissingParameter`, `InvalidGroupId.Malformed`, `InvalidGroup.Reserved`,
/// `InvalidGroup.Duplicate`, `InvalidVpcID.NotFound`, `SecurityGroupLimitExceeded`, and
/// `InvalidParameterValue` for a bad name or description or an id that is taken.
pub fn create_security_group(policy: &mut Policy, new: NewSecurityGroup) -> Result<(), ApiError> {
    let name = new.name.trim_end_matches(' ').to_owned();
    for (parameter, text) in [("GroupName", &name), ("GroupDescription", &new.description)] {
        if text.is_empty() {
            return Err(ApiError::missing(parameter));
        }
    }
    apply(policy, |policy| {
        let egress = match &new.vpc {
            Some(vpc) => open_egress(&new.id, has_ipv6(policy, vpc)),
            // EC2-Classic's are not told, and always open (SEMANTICS 14.1).
            None => open_egress(&new.id, false),
        };
        policy.security_groups.push(SecurityGroup {
            origin: origin(new.id.clone()),
            id: new.id,
            name,
            description: new.description,
            vpc: new.vpc,
            owner: new.owner,
            is_default: false,
            ingress: Vec::new(),
            egress,
        });
        Ok(())
    })
}

/// The outbound rules that AWS gives a new group.
pub(super) fn open_egress(group: &str, has_ipv6: bool) -> Vec<SecurityGroupRule> {
    let mut rules = Vec::new();
    for cidr in everywhere(has_ipv6) {
        let all = Named { matches: L4Match::All, peer: Peer::Cidr(cidr), description: None };
        push(&mut rules, group, Direction::Egress, all);
    }
    rules
}

/// `DeleteSecurityGroup`. References from peer VPCs go stale (SEMANTICS 4.7).
///
/// # Errors
/// `CannotDelete` or, in EC2-Classic, `InvalidGroup.Reserved` for a default group;
/// `DependencyViolation` or, in EC2-Classic, `InvalidGroup.InUse` for one that an interface or an
/// instance has, or a rule of a group of its VPC names; under `ec2-2017` a rule of its own counts
/// too.
/// `InvalidGroup.NotFound`, `InvalidGroupId.Malformed`.
pub fn delete_security_group(policy: &mut Policy, id: &str) -> Result<(), ApiError> {
    let index = group_index(policy, id)?;
    let group = &policy.security_groups[index];
    let name = &group.name;
    if group.is_default {
        return Err(match group.vpc {
            Some(_) => ApiError::new(
                ErrorCode::CannotDelete,
                format!(
                    "the specified group: \"{id}\" name: \"{name}\" cannot be deleted by a user"
                ),
            ),
            None => ApiError::new(
                ErrorCode::InvalidGroupReserved,
                format!("The security group '{name}' is reserved"),
            ),
        });
    }
    if let Some(user) = user_of(policy, group) {
        return Err(match group.vpc {
            Some(_) => ApiError::new(
                ErrorCode::DependencyViolation,
                format!("resource {id} has a dependent object: {user}"),
            ),
            None => ApiError::new(
                ErrorCode::InvalidGroupInUse,
                format!("The security group '{name}' is in use: {user}"),
            ),
        });
    }
    policy.security_groups.remove(index);
    for group in &mut policy.security_groups {
        make_stale(group, |to| to.id == id);
    }
    Ok(())
}

/// What stands in the way of deleting `group`, and how to take it away.
fn user_of(policy: &Policy, group: &SecurityGroup) -> Option<String> {
    let mut interfaces = policy.interfaces.iter();
    if let Some(user) = interfaces.find(|user| user.security_groups.contains(&group.id)) {
        return Some(format!("interface {} has it; change the interface's groups", user.id));
    }
    let has_it = |user: &&ClassicInstance| {
        let linked = user.link.iter().flat_map(|link| &link.security_groups);
        user.security_groups.iter().chain(linked).any(|id| *id == group.id)
    };
    if let Some(user) = policy.classic_instances.iter().find(has_it) {
        return Some(format!("instance {} has it, whose groups are fixed", user.id));
    }
    let names_it = |other: &&SecurityGroup| {
        let mut rules = Direction::BOTH.into_iter().flat_map(|d| other.rules(d));
        rules.any(|rule| matches!(&rule.peer, Peer::Group(to) if to.id == group.id))
    };
    let is_obstacle = |other: &&SecurityGroup| match other.id == group.id {
        true => policy.compat == Compat::Ec2_2017,
        false => other.vpc == group.vpc,
    };
    let user = policy.security_groups.iter().filter(is_obstacle).find(names_it)?;
    Some(format!("a rule of {} names it; revoke that first", user.id))
}

/// Marks the references of `group` that `is_gone` picks.
pub(super) fn make_stale(group: &mut SecurityGroup, is_gone: impl Fn(&GroupRef) -> bool) {
    for rule in group.ingress.iter_mut().chain(&mut group.egress) {
        if let Peer::Group(to) = &mut rule.peer {
            to.stale |= is_gone(to);
        }
    }
}

/// `AuthorizeSecurityGroupIngress` and `…Egress`: adds a rule for each peer of each permission, or
/// none. Gives the ids of the new rules.
///
/// # Errors
/// `InvalidPermission.Duplicate`, `RulesPerSecurityGroupLimitExceeded`, `InvalidGroup.NotFound`,
/// `InvalidGroupId.Malformed`, `InvalidPrefixListID.NotFound`, `MissingParameter` without a peer,
/// and `InvalidParameterValue` for bad protocols, ports, types, ranges and descriptions, for one
/// rule twice in the call, and for outbound rules of EC2-Classic.
pub fn authorize(
    policy: &mut Policy,
    id: &str,
    direction: Direction,
    permissions: &[IpPermission],
) -> Result<Vec<String>, ApiError> {
    apply(policy, |policy| {
        let index = changeable(policy, id, direction)?;
        let group = &policy.security_groups[index];
        let new = named(policy, group, direction, permissions, Purpose::Add)?;
        let rules = rules_mut(&mut policy.security_groups[index], direction);
        let mut ids = Vec::new();
        for rule in new {
            if rules.iter().any(|known| rule.is(known)) {
                return Err(duplicate(&rule));
            }
            ids.push(push(rules, id, direction, rule));
        }
        Ok(ids)
    })
}

/// `RevokeSecurityGroupIngress` and `…Egress`: takes a rule away for each peer of each permission,
/// or none. Stale rules are named like any other.
///
/// # Errors
/// `InvalidPermission.NotFound`, `InvalidGroup.NotFound`, `InvalidGroupId.Malformed`,
/// `MissingParameter`, and `InvalidParameterValue` as for [`authorize`].
pub fn revoke(
    policy: &mut Policy,
    id: &str,
    direction: Direction,
    permissions: &[IpPermission],
) -> Result<(), ApiError> {
    let index = changeable(policy, id, direction)?;
    let group = &policy.security_groups[index];
    let old = named(policy, group, direction, permissions, Purpose::Find)?;
    for rule in &old {
        place(group.rules(direction), rule)?;
    }
    let rules = rules_mut(&mut policy.security_groups[index], direction);
    rules.retain(|known| !old.iter().any(|rule| rule.is(known)));
    Ok(())
}

/// `UpdateSecurityGroupRuleDescriptionsIngress` and `…Egress`: the rules that the permissions name
/// get their descriptions, and lose theirs where there is none (SEMANTICS 2.10).
///
/// # Errors
/// As [`revoke`], and `InvalidParameterValue` for a bad description.
pub fn update_rule_descriptions(
    policy: &mut Policy,
    id: &str,
    direction: Direction,
    permissions: &[IpPermission],
) -> Result<(), ApiError> {
    apply(policy, |policy| {
        let index = changeable(policy, id, direction)?;
        let group = &policy.security_groups[index];
        let described = named(policy, group, direction, permissions, Purpose::Find)?;
        let rules = rules_mut(&mut policy.security_groups[index], direction);
        for described in described {
            let place = place(rules, &described)?;
            let rule = &mut rules[place];
            rule.description = described.description;
            rule.origin = origin(format!("{id}.{}", rule.id));
        }
        Ok(())
    })
}

/// `ModifySecurityGroupRules` for one rule: `permission`, which has exactly one peer, takes its
/// place under its id. No packet sees the group without either (SEMANTICS 2.10).
///
/// # Errors
/// `InvalidAction` under `ec2-2017`, whose API has no such call;
/// `InvalidSecurityGroupRuleId.NotFound`; `InvalidParameterCombination` for several peers; as
/// [`authorize`] otherwise.
pub fn modify_rule(
    policy: &mut Policy,
    id: &str,
    rule_id: &str,
    permission: &IpPermission,
) -> Result<(), ApiError> {
    if policy.compat == Compat::Ec2_2017 {
        let message = "The action ModifySecurityGroupRules is not valid for this web service; \
                       revoke the rule and authorize another";
        return Err(ApiError::new(ErrorCode::InvalidAction, message));
    }
    apply(policy, |policy| {
        let index = group_index(policy, id)?;
        let group = &policy.security_groups[index];
        let find = |direction: Direction| {
            let place = group.rules(direction).iter().position(|rule| rule.id == rule_id)?;
            Some((direction, place))
        };
        let Some((direction, place)) = Direction::BOTH.into_iter().find_map(find) else {
            let message = format!("The security group rule ID '{rule_id}' does not exist");
            return Err(ApiError::new(ErrorCode::InvalidSecurityGroupRuleIdNotFound, message));
        };
        changeable(policy, id, direction)?;
        let permissions = std::slice::from_ref(permission);
        let mut new = named(policy, group, direction, permissions, Purpose::Add)?;
        let (Some(new), true) = (new.pop(), new.is_empty()) else {
            let message = "a rule has exactly one peer; name one range, list or group";
            return Err(ApiError::new(ErrorCode::InvalidParameterCombination, message));
        };
        let rules = rules_mut(&mut policy.security_groups[index], direction);
        if rules.iter().enumerate().any(|(n, known)| n != place && new.is(known)) {
            return Err(duplicate(&new));
        }
        rules[place] = stored(id, rule_id.to_owned(), new);
        Ok(())
    })
}

/// The place of a group whose rules of this direction are its own to change: outbound, those of
/// EC2-Classic are not (SEMANTICS 14.1).
fn changeable(policy: &Policy, id: &str, direction: Direction) -> Result<usize, ApiError> {
    if direction == Direction::Egress && group(policy, id)?.vpc.is_none() {
        let message = "Only Amazon VPC security groups may be used with this operation.";
        return Err(ApiError::invalid(message));
    }
    group_index(policy, id)
}

fn rules_mut(group: &mut SecurityGroup, direction: Direction) -> &mut Vec<SecurityGroupRule> {
    match direction {
        Direction::Ingress => &mut group.ingress,
        Direction::Egress => &mut group.egress,
    }
}

fn place(rules: &[SecurityGroupRule], rule: &Named) -> Result<usize, ApiError> {
    rules.iter().position(|known| rule.is(known)).ok_or_else(|| {
        let message = "The specified rule does not exist in this security group.";
        ApiError::new(ErrorCode::InvalidPermissionNotFound, message)
    })
}

/// Adds a rule, whose id has the next number of its direction, and gives that id.
fn push(
    rules: &mut Vec<SecurityGroupRule>,
    group: &str,
    direction: Direction,
    rule: Named,
) -> String {
    let number = |rule: &SecurityGroupRule| {
        rule.id.strip_prefix(direction.as_str())?.strip_prefix('-')?.parse::<u32>().ok()
    };
    let last = rules.iter().filter_map(number).max().unwrap_or(0);
    let id = format!("{direction}-{}", last.saturating_add(1));
    rules.push(stored(group, id.clone(), rule));
    id
}

fn stored(group: &str, id: String, rule: Named) -> SecurityGroupRule {
    SecurityGroupRule {
        origin: origin(format!("{group}.{id}")),
        id,
        matches: rule.matches,
        peer: rule.peer,
        description: rule.description,
    }
}

/// In AWS's words: `the specified rule "peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW"
/// already exists`.
fn duplicate(rule: &Named) -> ApiError {
    let any = |number: Option<u8>| number.map_or_else(|| "ALL".to_owned(), |n| n.to_string());
    let matches = match rule.matches {
        L4Match::All => "ALL".to_owned(),
        L4Match::Tcp(ports) => format!("TCP, from port: {}, to port: {}", ports.from, ports.to),
        L4Match::Udp(ports) => format!("UDP, from port: {}, to port: {}", ports.from, ports.to),
        L4Match::Icmp(icmp) => format!("ICMP, type: {}, code: {}", any(icmp.kind), any(icmp.code)),
        L4Match::Icmpv6(icmp) => {
            format!("ICMPV6, type: {}, code: {}", any(icmp.kind), any(icmp.code))
        }
        L4Match::Other(number) => number.to_string(),
    };
    let message =
        format!("the specified rule \"peer: {}, {matches}, ALLOW\" already exists", rule.peer);
    ApiError::new(ErrorCode::InvalidPermissionDuplicate, message)
}
