//! A network interface as the dataplane asks of it: addresses, rules, routes, services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::rules::{AclRules, AclSet, GroupRules, RuleSet};
use crate::matcher::prefixes::PrefixMap;
use crate::model::{Compat, Direction, Interface, Policy, RouteTarget, Subnet, Timeouts};

/// MTU of an interface that names none, bytes (SEMANTICS 12.3).
const DEFAULT_MTU: u16 = 9001;

/// An interface with its rules.
#[derive(Debug)]
pub struct CompiledInterface {
    /// `eni-…`.
    pub id: String,
    /// Private addresses, the primary IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Elastic and public IPv4 addresses as (private, public) pairs.
    pub public: Vec<(IpAddr, IpAddr)>,
    /// Source/destination check (SEMANTICS 13.2).
    pub source_dest_check: bool,
    /// MTU in bytes.
    pub mtu: u16,
    /// Idle timeouts that differ from the default.
    pub timeouts: Timeouts,
    /// MAC address, if known.
    pub mac: Option<[u8; 6]>,
    /// Its groups, as the policy lists them.
    pub group_ids: Vec<String>,
    compat: Compat,
    groups: Arc<GroupRules>,
    acl: Option<Arc<AclRules>>,
    subnet: Arc<SubnetContext>,
}

/// A service of the VPC that neither groups nor ACLs filter (SEMANTICS 8.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// The VPC's resolver.
    Dns,
    /// Instance metadata.
    Metadata,
    /// ECS task metadata.
    EcsMetadata,
    /// Time synchronisation.
    TimeSync,
    /// Windows licence activation.
    Licence,
    /// The subnet's router, which is also its DHCP server.
    Router,
}

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompiledRoute {
    /// The next hop.
    pub target: RouteTarget,
    /// Path MTU in bytes that overrides the target's own.
    pub mtu: Option<u32>,
}

impl CompiledInterface {
    pub(super) fn new(
        compat: Compat,
        interface: &Interface,
        subnet: Arc<SubnetContext>,
        groups: Arc<GroupRules>,
        acl: Option<Arc<AclRules>>,
    ) -> Self {
        CompiledInterface {
            id: interface.id.clone(),
            addresses: interface.addresses.clone(),
            public: interface.public.clone(),
            source_dest_check: interface.source_dest_check,
            mtu: interface.mtu.unwrap_or(DEFAULT_MTU),
            timeouts: interface.timeouts,
            mac: interface.mac,
            group_ids: interface.security_groups.clone(),
            compat,
            groups,
            acl,
            subnet,
        }
    }

    /// Whether `addr` is one of its private addresses.
    #[must_use]
    pub fn owns(&self, addr: &IpAddr) -> bool {
        self.addresses.contains(addr)
    }

    /// Whether `addr` lies in its subnet, so that traffic with it crosses no subnet's edge
    /// (SEMANTICS 8.7).
    #[inline]
    #[must_use]
    pub fn in_subnet(&self, addr: &IpAddr) -> bool {
        self.subnet.cidrs.iter().any(|cidr| cidr.contains(addr))
    }

    /// Whether `addr` is the last address of its subnet, the directed broadcast.
    #[must_use]
    pub fn is_subnet_broadcast(&self, addr: &Ipv4Addr) -> bool {
        self.subnet.cidrs.iter().any(|cidr| cidr.broadcast() == IpAddr::V4(*addr))
    }

    /// The rules of its groups in one direction.
    #[inline]
    #[must_use]
    pub fn groups(&self, direction: Direction) -> &RuleSet {
        self.groups.direction(direction)
    }

    /// The entries of its subnet's ACL in one direction; `None`: the default ACL, which allows
    /// all (SEMANTICS 8.6).
    #[inline]
    #[must_use]
    pub fn acl(&self, direction: Direction) -> Option<&AclSet> {
        self.acl.as_ref().map(|acl| acl.direction(direction))
    }

    /// The id of its subnet's ACL; `None`: the default one, or the subnet is unknown.
    #[must_use]
    pub fn acl_id(&self) -> Option<&str> {
        self.subnet.network_acl.as_deref()
    }

    /// The id of its VPC; `None` if its subnet is unknown.
    #[must_use]
    pub fn vpc(&self) -> Option<&str> {
        self.subnet.vpc.as_deref()
    }

    /// The id of its subnet; `None` if the subnet is unknown.
    #[must_use]
    pub fn subnet(&self) -> Option<&str> {
        self.subnet.id.as_deref()
    }

    /// The account that owns it, which is that of its groups; `None` where no group tells.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.groups.account.as_deref()
    }

    /// The router's address in its subnet, of a family (SEMANTICS 12.8).
    #[must_use]
    pub fn router(&self, ipv6: bool) -> Option<IpAddr> {
        self.subnet.routers.iter().copied().find(|router| router.is_ipv6() == ipv6)
    }

    /// Where packets to `addr` go; `None` where no route leads.
    #[must_use]
    pub fn route(&self, addr: &IpAddr) -> Option<CompiledRoute> {
        self.subnet.routes.get(addr)
    }

    /// Whether flows with `remote` are tracked whatever the rules, because of the path they take
    /// (SEMANTICS 6.2d). Never under `ec2-2017`.
    #[must_use]
    pub fn auto_tracked(&self, remote: &IpAddr) -> bool {
        self.compat == Compat::Current
            && self.route(remote).is_some_and(|route| {
                matches!(
                    route.target,
                    RouteTarget::EgressOnlyInternetGateway
                        | RouteTarget::NatGateway
                        | RouteTarget::TransitGateway
                        | RouteTarget::InspectionEndpoint
                )
            })
    }

    /// The service of the VPC that answers at `addr`, if one does (SEMANTICS 8.8).
    #[must_use]
    pub fn service_address(&self, addr: &IpAddr) -> Option<Service> {
        if self.subnet.dns == Some(*addr) {
            return Some(Service::Dns);
        }
        if self.subnet.routers.contains(addr) {
            return Some(Service::Router);
        }
        match addr {
            IpAddr::V4(v4) => match v4.octets() {
                [169, 254, 169, 253] => Some(Service::Dns),
                [169, 254, 169, 254] => Some(Service::Metadata),
                [169, 254, 170, 2] => Some(Service::EcsMetadata),
                [169, 254, 169, 123] => Some(Service::TimeSync),
                [169, 254, 169, 250 | 251] => Some(Service::Licence),
                _ => None,
            },
            IpAddr::V6(v6) => match v6.segments() {
                [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253] => Some(Service::Dns),
                [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Some(Service::Metadata),
                [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123] => Some(Service::TimeSync),
                _ => None,
            },
        }
    }
}

/// What the interfaces of a subnet share.
#[derive(Debug, Default)]
pub(super) struct SubnetContext {
    id: Option<String>,
    vpc: Option<String>,
    cidrs: Vec<IpNet>,
    pub(super) network_acl: Option<String>,
    /// The router's addresses: the first after the base of each range (SEMANTICS 12.8).
    routers: Vec<IpAddr>,
    /// The VPC's resolver: the second after the base of its primary IPv4 range.
    dns: Option<IpAddr>,
    routes: Routes,
}

impl SubnetContext {
    pub(super) fn new(policy: &Policy, subnet: &Subnet) -> Self {
        let vpc = policy.vpcs.iter().find(|vpc| vpc.id == subnet.vpc);
        let vpc_cidrs = vpc.map_or(&[][..], |vpc| &vpc.cidrs);
        let primary = vpc_cidrs.iter().find(|cidr| matches!(cidr, IpNet::V4(_)));
        SubnetContext {
            id: Some(subnet.id.clone()),
            vpc: Some(subnet.vpc.clone()),
            cidrs: subnet.cidrs.clone(),
            network_acl: subnet.network_acl.clone(),
            routers: subnet.cidrs.iter().map(|cidr| after_base(cidr, 1)).collect(),
            dns: primary.map(|cidr| after_base(cidr, 2)),
            routes: Routes::new(policy, subnet, vpc_cidrs),
        }
    }
}

/// A route table, by longest prefix.
#[derive(Debug)]
struct Routes {
    /// Address to index in `routes` plus one; 0: no route.
    by_address: PrefixMap,
    routes: Vec<CompiledRoute>,
}

impl Default for Routes {
    fn default() -> Self {
        Routes { by_address: PrefixMap::from_prefixes(&[], 0), routes: Vec::new() }
    }
}

impl Routes {
    /// The subnet's own routes come first, then what every table has: the VPC's ranges are local.
    /// A subnet that names no routes reaches active peers and, for the rest, the internet.
    fn new(policy: &Policy, subnet: &Subnet, vpc_cidrs: &[IpNet]) -> Self {
        let mut all: Vec<_> =
            subnet.routes.iter().map(|r| (r.destination, r.target, r.mtu)).collect();
        all.extend(vpc_cidrs.iter().map(|&cidr| (cidr, RouteTarget::Local, None)));
        if subnet.routes.is_empty() {
            for peering in policy.peerings.iter().filter(|p| p.active) {
                let target = match peering.inter_region {
                    true => RouteTarget::InterRegionPeering,
                    false => RouteTarget::Peering,
                };
                if peering.vpcs.contains(&subnet.vpc) {
                    let theirs = peering.cidrs.iter().filter(|(vpc, _)| *vpc != subnet.vpc);
                    all.extend(theirs.map(|&(_, cidr)| (cidr, target, None)));
                }
            }
            let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
            all.extend(everywhere.into_iter().filter_map(|base| {
                Some((IpNet::new(base, 0).ok()?, RouteTarget::InternetGateway, None))
            }));
        }
        let prefixes: Vec<_> = all.iter().zip(1..).map(|(route, n)| (route.0, n)).collect();
        let routes = all.iter().map(|&(_, target, mtu)| CompiledRoute { target, mtu }).collect();
        Routes { by_address: PrefixMap::from_prefixes(&prefixes, 0), routes }
    }

    fn get(&self, addr: &IpAddr) -> Option<CompiledRoute> {
        let index = self.by_address.get(addr).checked_sub(1)?;
        self.routes.get(index as usize).copied()
    }
}

/// The `n`th address after the base of a range.
fn after_base(cidr: &IpNet, n: u8) -> IpAddr {
    match cidr {
        IpNet::V4(v4) => Ipv4Addr::from(u32::from(v4.network()).wrapping_add(u32::from(n))).into(),
        IpNet::V6(v6) => {
            Ipv6Addr::from(u128::from(v6.network()).wrapping_add(u128::from(n))).into()
        }
    }
}
