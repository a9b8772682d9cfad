//! Interfaces: groups, private and public addresses, idle timeouts (SEMANTICS 13.1-13.4, 16).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ApiError, ErrorCode, apply, group};
use crate::limits::TIMEOUTS;
use crate::model::{Interface, Policy, Timeouts};

/// `ModifyNetworkInterfaceAttribute` with groups: these and no others (SEMANTICS 13.4).
///
/// # Errors
/// `InvalidParameterValue` for none at all or one named twice,
/// `SecurityGroupsPerInterfaceLimitExceeded`, `InvalidParameter` for a group of another VPC,
/// `InvalidGroup.NotFound`, `InvalidGroupId.Malformed`, `InvalidNetworkInterfaceID.NotFound`.
pub fn modify_interface_groups(
    policy: &mut Policy,
    id: &str,
    groups: &[&str],
) -> Result<(), ApiError> {
    if groups.is_empty() {
        let message = "an interface has at least one security group; name one";
        return Err(ApiError::invalid(message));
    }
    apply(policy, |policy| {
        let index = interface_index(policy, id)?;
        for id in groups {
            group(policy, id)?;
        }
        policy.interfaces[index].security_groups = groups.iter().map(|&id| id.to_owned()).collect();
        Ok(())
    })
}

/// `AssignPrivateIpAddresses`: all of them become secondary addresses, or none does. An address
/// that is another interface's secondary one moves here if `allow_reassignment`, with its public
/// address (SEMANTICS 13.3).
///
/// # Errors
/// `InvalidIPAddress.InUse`, `PrivateIpAddressLimitExceeded`, `InvalidParameterValue` for an address
/// outside the subnet or kept by AWS, `MissingParameter` without one, `InvalidNetworkInterfaceID.NotFound`.
pub fn assign_private_ip_addresses(
    policy: &mut Policy,
    id: &str,
    addresses: &[Ipv4Addr],
    allow_reassignment: bool,
) -> Result<(), ApiError> {
    if addresses.is_empty() {
        return Err(ApiError::missing("PrivateIpAddress"));
    }
    apply(policy, |policy| {
        let index = interface_index(policy, id)?;
        for &address in addresses {
            let address = IpAddr::V4(address);
            let public = match holder(policy, index, address) {
                None => None,
                Some(other) if other != index && allow_reassignment => {
                    take(&mut policy.interfaces[other], address)?
                }
                Some(other) => return Err(in_use(address, &policy.interfaces[other])),
            };
            let interface = &mut policy.interfaces[index];
            let end = interface.addresses.iter().take_while(|known| known.is_ipv4()).count();
            interface.addresses.insert(end, address);
            interface.public.extend(public.map(|public| (address, public)));
        }
        Ok(())
    })
}

/// Takes a secondary address from the interface that has it, and gives what public address was
/// associated with it.
fn take(interface: &mut Interface, address: IpAddr) -> Result<Option<IpAddr>, ApiError> {
    if is_primary(interface, address) {
        return Err(in_use(address, interface));
    }
    let found = interface.public.iter().find(|(private, _)| *private == address);
    let public = found.map(|(_, public)| *public);
    remove(interface, &[address]);
    Ok(public)
}

/// `UnassignPrivateIpAddresses`: all of them or none. Their public addresses are disassociated.
///
/// # Errors
/// `InvalidParameterValue` for the primary address and for one that is not the interface's,
/// `MissingParameter` without one, `InvalidNetworkInterfaceID.NotFound`.
pub fn unassign_private_ip_addresses(
    policy: &mut Policy,
    id: &str,
    addresses: &[Ipv4Addr],
) -> Result<(), ApiError> {
    let addresses: Vec<_> = addresses.iter().map(|&address| IpAddr::V4(address)).collect();
    unassign(policy, id, &addresses)
}

/// `AssignIpv6Addresses`: all of them or none. One that another interface has must be unassigned
/// there first (SEMANTICS 13.3).
///
/// # Errors
/// As [`assign_private_ip_addresses`].
pub fn assign_ipv6_addresses(
    policy: &mut Policy,
    id: &str,
    addresses: &[Ipv6Addr],
) -> Result<(), ApiError> {
    if addresses.is_empty() {
        return Err(ApiError::missing("Ipv6Address"));
    }
    apply(policy, |policy| {
        let index = interface_index(policy, id)?;
        for &address in addresses {
            let address = IpAddr::V6(address);
            if let Some(other) = holder(policy, index, address) {
                return Err(in_use(address, &policy.interfaces[other]));
            }
            policy.interfaces[index].addresses.push(address);
        }
        Ok(())
    })
}

/// `UnassignIpv6Addresses`: all of them or none.
///
/// # Errors
/// As [`unassign_private_ip_addresses`].
pub fn unassign_ipv6_addresses(
    policy: &mut Policy,
    id: &str,
    addresses: &[Ipv6Addr],
) -> Result<(), ApiError> {
    let addresses: Vec<_> = addresses.iter().map(|&address| IpAddr::V6(address)).collect();
    unassign(policy, id, &addresses)
}

fn unassign(policy: &mut Policy, id: &str, addresses: &[IpAddr]) -> Result<(), ApiError> {
    if addresses.is_empty() {
        return Err(ApiError::missing("an address to unassign"));
    }
    let index = interface_index(policy, id)?;
    let interface = &mut policy.interfaces[index];
    for address in addresses {
        if !interface.addresses.contains(address) {
            let message = format!("{address} is not assigned to interface {id}; name one that is");
            return Err(ApiError::invalid(message));
        }
        if is_primary(interface, *address) {
            let message = format!("{address} is the primary address of {id} and stays with it");
            return Err(ApiError::invalid(message));
        }
    }
    remove(interface, addresses);
    Ok(())
}

/// `AssociateAddress`: packets to `public` reach `private`, or the primary address if that is left
/// out. A private address has one public address at most. What is associated already stays so.
///
/// # Errors
/// `Resource.AlreadyAssociated` if either has another association and `allow_reassociation` is not
/// set, `InvalidParameterValue` for an address that is not the interface's,
/// `InvalidNetworkInterfaceID.NotFound`.
pub fn associate_address(
    policy: &mut Policy,
    id: &str,
    private: Option<Ipv4Addr>,
    public: Ipv4Addr,
    allow_reassociation: bool,
) -> Result<(), ApiError> {
    apply(policy, |policy| {
        let index = interface_index(policy, id)?;
        let primary = || policy.interfaces[index].addresses.iter().copied().find(IpAddr::is_ipv4);
        let Some(private) = private.map(IpAddr::V4).or_else(primary) else {
            let message = format!("{id} has no IPv4 address; assign one first");
            return Err(ApiError::invalid(message));
        };
        let public = IpAddr::V4(public);
        if policy.interfaces[index].public.contains(&(private, public)) {
            return Ok(());
        }
        let mut instances = policy.classic_instances.iter();
        if let Some(instance) = instances.find(|instance| instance.public == Some(public)) {
            let message = format!("{public} is that of {} in EC2-Classic", instance.id);
            return Err(ApiError::new(ErrorCode::ResourceAlreadyAssociated, message));
        }
        for (n, interface) in policy.interfaces.iter_mut().enumerate() {
            let concerns =
                |pair: &(IpAddr, IpAddr)| pair.1 == public || (n == index && pair.0 == private);
            let known = interface.public.iter().find(|pair| concerns(pair)).copied();
            if let Some((private, public)) = known.filter(|_| !allow_reassociation) {
                let message = format!(
                    "resource {public} is already associated with {private} of {}; \
                     allow its reassociation",
                    interface.id
                );
                return Err(ApiError::new(ErrorCode::ResourceAlreadyAssociated, message));
            }
            interface.public.retain(|pair| !concerns(pair));
        }
        policy.interfaces[index].public.push((private, public));
        Ok(())
    })
}

/// `DisassociateAddress`, from an interface or an instance of EC2-Classic.
///
/// # Errors
/// `InvalidAddress.NotFound` if neither has it.
pub fn disassociate_address(policy: &mut Policy, public: Ipv4Addr) -> Result<(), ApiError> {
    let public = IpAddr::V4(public);
    let mut found = false;
    for interface in &mut policy.interfaces {
        let before = interface.public.len();
        interface.public.retain(|(_, known)| *known != public);
        found |= interface.public.len() < before;
    }
    for instance in &mut policy.classic_instances {
        found |= instance.public.take_if(|known| *known == public).is_some();
    }
    if !found {
        let message = format!("Address '{public}' not found.");
        return Err(ApiError::new(ErrorCode::InvalidAddressNotFound, message));
    }
    Ok(())
}

/// `ModifyNetworkInterfaceAttribute` with idle timeouts: those given change, the others stay. AWS
/// has three of them (SEMANTICS 7.10), the policy all.
///
/// # Errors
/// `InvalidParameterValue` for one out of its range, `InvalidNetworkInterfaceID.NotFound`.
pub fn set_interface_timeouts(
    policy: &mut Policy,
    id: &str,
    mut timeouts: Timeouts,
) -> Result<(), ApiError> {
    let index = interface_index(policy, id)?;
    let mut merged = policy.interfaces[index].timeouts;
    for (name, (first, last), field) in TIMEOUTS {
        let Some(seconds) = *field(&mut timeouts) else { continue };
        if !(*first..=*last).contains(&seconds) {
            let message =
                format!("{name} = {seconds} is out of range; choose a value in {first}-{last}");
            return Err(ApiError::invalid(message));
        }
        *field(&mut merged) = Some(seconds);
    }
    policy.interfaces[index].timeouts = merged;
    Ok(())
}

fn interface_index(policy: &Policy, id: &str) -> Result<usize, ApiError> {
    policy.interfaces.iter().position(|interface| interface.id == id).ok_or_else(|| {
        let message = format!("The networkInterface ID '{id}' does not exist");
        ApiError::new(ErrorCode::InvalidNetworkInterfaceIdNotFound, message)
    })
}

/// The interface of the same VPC as that at `index` which has `address`.
fn holder(policy: &Policy, index: usize, address: IpAddr) -> Option<usize> {
    let vpc = |interface: &Interface| {
        let subnet = policy.subnets.iter().find(|subnet| subnet.id == interface.subnet);
        subnet.map(|subnet| subnet.vpc.as_str())
    };
    let ours = vpc(&policy.interfaces[index]);
    let has_it = |other: &Interface| other.addresses.contains(&address) && vpc(other) == ours;
    policy.interfaces.iter().position(has_it)
}

fn is_primary(interface: &Interface, address: IpAddr) -> bool {
    address.is_ipv4() && interface.addresses.first() == Some(&address)
}

fn remove(interface: &mut Interface, addresses: &[IpAddr]) {
    interface.addresses.retain(|known| !addresses.contains(known));
    interface.public.retain(|(private, _)| !addresses.contains(private));
}

fn in_use(address: IpAddr, interface: &Interface) -> ApiError {
    let message = format!(
        "Address {address} is in use by {}; choose another, or unassign it there",
        interface.id
    );
    ApiError::new(ErrorCode::InvalidIpAddressInUse, message)
}
