//! The changes that the EC2 API makes to a policy, with AWS's checks and error codes (SEMANTICS
//! 16).
//!
//! Each call is atomic: on an error the policy is as it was before. The policy's own limits hold,
//! whoever wrote it, and what [`crate::load`] refuses in a file no call brings about; a fault that
//! a dump came with stands in nobody's way. After a change the caller compiles the policy again.
//!
//! Ids of new objects are the caller's, because this crate has no source of randomness. Requests
//! are read by no one here: fields hold what the API's do, and every check is made on them.

mod acls;
mod error;
mod groups;
mod interfaces;
mod permission;
mod vpcs;

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use self::acls::{
    EntryRequest, create_network_acl, create_network_acl_entry, delete_network_acl,
    delete_network_acl_entry, replace_network_acl_association, replace_network_acl_entry,
};
pub use self::error::{ApiError, ErrorCode};
pub use self::groups::{
    NewSecurityGroup, authorize, create_security_group, delete_security_group, modify_rule, revoke,
    update_rule_descriptions,
};
pub use self::interfaces::{
    assign_ipv6_addresses, assign_private_ip_addresses, associate_address, disassociate_address,
    modify_interface_groups, set_interface_timeouts, unassign_ipv6_addresses,
    unassign_private_ip_addresses,
};
pub use self::permission::{
    IpPermission, IpRange, Ipv6Range, PermissionText, PrefixListId, UserIdGroupPair,
};
pub use self::vpcs::{create_default_vpc_objects, delete_peering};
use crate::diagnostic::{Origin, Source};
use crate::model::{Policy, SecurityGroup};
use crate::validate;

/// Makes `change` on a copy, which takes the policy's place if nothing is wrong with it that was
/// not wrong before. Copy and check cost less than the compilation that follows every change.
fn apply<T>(
    policy: &mut Policy,
    change: impl FnOnce(&mut Policy) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut edited = policy.clone();
    let answer = change(&mut edited)?;
    let errors = validate::errors(&edited);
    if !errors.is_empty() {
        let known = validate::errors(policy);
        if let Some(new) = errors.into_iter().find(|error| !known.contains(error)) {
            return Err(new.into());
        }
    }
    *policy = edited;
    Ok(answer)
}

/// The place of what a call has said; `path` is the object, as `sg-1.ingress-3`.
fn origin(path: impl Into<Arc<str>>) -> Origin {
    Origin::new(&Arc::new(Source { name: "edit".into(), ..Source::default() }), path)
}

/// The place of a security group among those of the policy.
fn group_index(policy: &Policy, id: &str) -> Result<usize, ApiError> {
    if !id.starts_with("sg-") {
        let message = format!("Invalid id: {id:?} (expecting \"sg-...\")");
        return Err(ApiError::new(ErrorCode::InvalidGroupIdMalformed, message));
    }
    policy.security_groups.iter().position(|group| group.id == id).ok_or_else(|| {
        let message = format!("The security group '{id}' does not exist");
        ApiError::new(ErrorCode::InvalidGroupNotFound, message)
    })
}

fn group<'p>(policy: &'p Policy, id: &str) -> Result<&'p SecurityGroup, ApiError> {
    group_index(policy, id).map(|index| &policy.security_groups[index])
}

/// Whether a VPC has an IPv6 range.
fn has_ipv6(policy: &Policy, vpc: &str) -> bool {
    let mut vpcs = policy.vpcs.iter().filter(|known| known.id == vpc);
    vpcs.any(|vpc| vpc.cidrs.iter().any(|cidr| cidr.addr().is_ipv6()))
}

/// Everything of IPv4 and, if `has_ipv6`, of IPv6.
fn everywhere(has_ipv6: bool) -> impl Iterator<Item = IpNet> {
    let v6 = has_ipv6.then(|| IpNet::V6(Ipv6Net::default()));
    std::iter::once(IpNet::V4(Ipv4Net::default())).chain(v6)
}
