//! What a VPC begins with, and the end of a peering (SEMANTICS 4.7, 5.1, 8.6).

use super::acls::open_entries;
use super::groups::{make_stale, open_egress};
use super::{ApiError, ErrorCode, apply, has_ipv6, origin};
use crate::model::{
    Direction, GroupRef, L4Match, NetworkAcl, Peer, Policy, SecurityGroup, SecurityGroupRule,
};

/// What AWS makes with a VPC: the group `default`, everything in from itself and out, and the
/// default network ACL, everything both ways, which the subnets without an ACL get.
///
/// # Errors
/// `InvalidVpcID.NotFound`, `InvalidGroup.Duplicate` or `InvalidParameterValue` if the VPC has its
/// default group or ACL already, and those of a bad or taken id.
pub fn create_default_vpc_objects(
    policy: &mut Policy,
    vpc: &str,
    group_id: &str,
    acl_id: &str,
) -> Result<(), ApiError> {
    let is_of_vpc = |acl: &NetworkAcl| acl.is_default && acl.vpc.as_deref() == Some(vpc);
    if let Some(acl) = policy.network_acls.iter().find(|acl| is_of_vpc(acl)) {
        let message = format!("{vpc} has its default network ACL, {}; keep that", acl.id);
        return Err(ApiError::invalid(message));
    }
    apply(policy, |policy| {
        let has_ipv6 = has_ipv6(policy, vpc);
        policy.security_groups.push(SecurityGroup {
            id: group_id.to_owned(),
            name: "default".to_owned(),
            description: "default VPC security group".to_owned(),
            vpc: Some(vpc.to_owned()),
            owner: None,
            is_default: true,
            ingress: vec![SecurityGroupRule {
                id: "ingress-1".to_owned(),
                matches: L4Match::All,
                peer: Peer::Group(GroupRef::local(group_id)),
                description: None,
                origin: origin(format!("{group_id}.ingress-1")),
            }],
            egress: open_egress(group_id, has_ipv6),
            origin: origin(group_id),
        });
        policy.network_acls.push(NetworkAcl {
            id: acl_id.to_owned(),
            vpc: Some(vpc.to_owned()),
            is_default: true,
            ingress: open_entries(acl_id, Direction::Ingress, has_ipv6),
            egress: open_entries(acl_id, Direction::Egress, has_ipv6),
            origin: origin(acl_id),
        });
        for subnet in policy.subnets.iter_mut().filter(|subnet| subnet.vpc == vpc) {
            subnet.network_acl.get_or_insert_with(|| acl_id.to_owned());
        }
        Ok(())
    })
}

/// `DeleteVpcPeeringConnection`: references through it go stale, and their rules remain until they
/// are revoked (SEMANTICS 4.7).
///
/// # Errors
/// `InvalidVpcPeeringConnectionID.NotFound`.
pub fn delete_peering(policy: &mut Policy, id: &str) -> Result<(), ApiError> {
    let Some(index) = policy.peerings.iter().position(|peering| peering.id == id) else {
        let message = format!("The vpcPeeringConnection ID '{id}' does not exist");
        return Err(ApiError::new(ErrorCode::InvalidVpcPeeringConnectionIdNotFound, message));
    };
    policy.peerings.remove(index);
    for group in &mut policy.security_groups {
        make_stale(group, |to| to.peering.as_deref() == Some(id));
    }
    Ok(())
}
