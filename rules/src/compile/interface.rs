//! A network interface as the dataplane asks of it: addresses, rules, routes, services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::rules::{AclRules, AclSet, GroupRules, RuleSet};
use crate::instance_types::InstanceType;
use crate::matcher::prefixes::PrefixMap;
use crate::model::{
    ClassicInstance, Compat, Direction, FlowLimits, Interface, Policy, Route, RouteTarget, Subnet,
    Timeouts, Vpc,
};

/// MTU of an interface that names none, bytes (SEMANTICS 12.3).
const DEFAULT_MTU: u16 = 9001;

/// The largest MTU that the interface's instance has, in bytes.
fn largest_mtu(interface: &Interface) -> Option<u16> {
    Some(InstanceType::of(interface.instance_type.as_deref()?)?.mtu)
}

/// An interface with its rules. An instance of EC2-Classic is one too.
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
    /// How many flows may be tracked on it.
    pub flows: FlowLimits,
    /// MAC address, if known.
    pub mac: Option<[u8; 6]>,
    /// Its groups, as the policy lists them.
    pub group_ids: Vec<String>,
    compat: Compat,
    groups: Arc<GroupRules>,
    link: Option<Link>,
    acl: Option<Arc<AclRules>>,
    subnet: Arc<SubnetContext>,
}

/// A ClassicLink: traffic with the VPC is governed by groups of the VPC (SEMANTICS 14.2).
#[derive(Debug)]
pub(super) struct Link {
    pub(super) cidrs: Vec<IpNet>,
    pub(super) group_ids: Vec<String>,
    pub(super) groups: Arc<GroupRules>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledRoute {
    /// The prefix that it is for, canonical.
    pub destination: IpNet,
    /// The next hop.
    pub target: RouteTarget,
    /// The interface of an appliance, if it is known.
    pub interface: Option<String>,
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
            mtu: interface.mtu.or_else(|| largest_mtu(interface)).unwrap_or(DEFAULT_MTU),
            timeouts: interface.timeouts,
            flows: interface.flows,
            mac: interface.mac,
            group_ids: interface.security_groups.clone(),
            compat,
            groups,
            link: None,
            acl,
            subnet,
        }
    }

    /// An instance of EC2-Classic: no subnet, so no network ACL.
    pub(super) fn classic(
        compat: Compat,
        instance: &ClassicInstance,
        groups: Arc<GroupRules>,
        link: Option<Link>,
    ) -> Self {
        let cidrs = link.as_ref().map_or(&[][..], |link| &link.cidrs);
        CompiledInterface {
            id: instance.id.clone(),
            addresses: vec![instance.address],
            public: instance.public.map(|public| (instance.address, public)).into_iter().collect(),
            source_dest_check: true,
            mtu: instance.mtu.unwrap_or(DEFAULT_MTU),
            timeouts: instance.timeouts,
            flows: FlowLimits::default(),
            mac: instance.mac,
            group_ids: instance.security_groups.clone(),
            compat,
            groups,
            acl: None,
            subnet: Arc::new(SubnetContext::classic(instance.address, cidrs)),
            link,
        }
    }

    /// Whether it is an instance of EC2-Classic, which is in no VPC.
    #[must_use]
    pub fn is_classic(&self) -> bool {
        self.subnet.is_classic
    }

    /// Whether both are in one subnet, so that traffic between them crosses no subnet's edge.
    #[must_use]
    pub fn shares_subnet(&self, other: &CompiledInterface) -> bool {
        Arc::ptr_eq(&self.subnet, &other.subnet)
    }

    /// Whether `addr` is one of its private addresses.
    #[inline]
    #[must_use]
    pub fn owns(&self, addr: &IpAddr) -> bool {
        self.addresses.contains(addr)
    }

    /// The public address that stands for its private address `addr`, if one does.
    #[must_use]
    pub fn public_of(&self, addr: &IpAddr) -> Option<IpAddr> {
        self.public.iter().find(|(private, _)| private == addr).map(|&(_, public)| public)
    }

    /// Whether `addr` lies in its subnet, so that traffic with it crosses no subnet's edge
    /// (SEMANTICS 8.7).
    #[inline]
    #[must_use]
    pub fn in_subnet(&self, addr: &IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => self.subnet.v4.iter().any(|range| range.contains(v4)),
            IpAddr::V6(_) => self.subnet.cidrs.iter().any(|cidr| cidr.contains(addr)),
        }
    }

    /// Whether `addr` is the last address of its subnet, the directed broadcast.
    #[inline]
    #[must_use]
    pub fn is_subnet_broadcast(&self, addr: &Ipv4Addr) -> bool {
        self.subnet.v4.iter().any(|range| range.last == addr.to_bits())
    }

    /// The rules, in one direction, of the groups that govern traffic with `remote`: the
    /// interface's own or, of an instance of EC2-Classic with its VPC, those of its link.
    #[inline]
    #[must_use]
    pub fn groups(&self, direction: Direction, remote: &IpAddr) -> &RuleSet {
        match self.link_with(remote) {
            Some(link) => &link.groups,
            None => &self.groups,
        }
        .direction(direction)
    }

    /// The ids of the groups that [`Self::groups`] is of, as the policy lists them.
    #[must_use]
    pub fn group_ids_with(&self, remote: &IpAddr) -> &[String] {
        self.link_with(remote).map_or(&self.group_ids, |link| &link.group_ids)
    }

    /// All sets of groups that it has compiled, by their ids.
    pub(super) fn compiled_groups(&self) -> impl Iterator<Item = (&[String], &Arc<GroupRules>)> {
        let link = self.link.as_ref().map(|link| (&link.group_ids[..], &link.groups));
        std::iter::once((&self.group_ids[..], &self.groups)).chain(link)
    }

    /// Its subnet's ACL, both directions.
    pub(super) fn compiled_acl(&self) -> Option<&AclRules> {
        self.acl.as_deref()
    }

    /// The ClassicLink that traffic with `remote` goes over.
    #[inline]
    fn link_with(&self, remote: &IpAddr) -> Option<&Link> {
        self.link.as_ref().filter(|link| link.cidrs.iter().any(|cidr| cidr.contains(remote)))
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

    /// Whether any of its routes is a detour ([`RouteTarget::is_detour`]).
    #[inline]
    #[must_use]
    pub fn has_detours(&self) -> bool {
        self.subnet.routes.has_detours
    }

    /// Where packets to `addr` go; `None` where no route leads.
    #[must_use]
    pub fn route(&self, addr: &IpAddr) -> Option<&CompiledRoute> {
        self.subnet.routes.get(addr)
    }

    /// Every route of its subnet, its own first and then those that every table has.
    pub fn routes(&self) -> impl Iterator<Item = &CompiledRoute> {
        self.subnet.routes.routes.iter()
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
    #[inline]
    #[must_use]
    pub fn service_address(&self, addr: &IpAddr) -> Option<Service> {
        if self.subnet.dns == Some(*addr) {
            return Some(Service::Dns);
        }
        if self.subnet.routers.contains(addr) {
            return Some(Service::Router);
        }
        match addr {
            IpAddr::V4(v4) if !v4.is_link_local() => None,
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
    is_classic: bool,
    cidrs: Vec<IpNet>,
    /// The IPv4 ranges among them.
    v4: Vec<Ipv4Range>,
    pub(super) network_acl: Option<String>,
    /// The router's addresses: the first after the base of each range (SEMANTICS 12.8).
    routers: Vec<IpAddr>,
    /// The VPC's resolver: the second after the base of its primary IPv4 range.
    dns: Option<IpAddr>,
    routes: Routes,
}

/// A range that packets are held against: two numbers and no arithmetic.
#[derive(Debug)]
struct Ipv4Range {
    first: u32,
    last: u32,
}

impl Ipv4Range {
    fn of(cidr: &IpNet) -> Option<Self> {
        match cidr {
            IpNet::V4(v4) => {
                Some(Ipv4Range { first: v4.network().to_bits(), last: v4.broadcast().to_bits() })
            }
            IpNet::V6(_) => None,
        }
    }

    #[inline]
    fn contains(&self, addr: &Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&addr.to_bits())
    }
}

impl SubnetContext {
    pub(super) fn new(policy: &Policy, subnet: &Subnet) -> Self {
        let vpc = policy.vpcs.iter().find(|vpc| vpc.id == subnet.vpc);
        let vpc_cidrs = vpc.map_or(&[][..], |vpc| &vpc.cidrs);
        let primary = vpc_cidrs.iter().find(|cidr| matches!(cidr, IpNet::V4(_)));
        SubnetContext {
            id: Some(subnet.id.clone()),
            vpc: Some(subnet.vpc.clone()),
            is_classic: false,
            cidrs: subnet.cidrs.clone(),
            v4: subnet.cidrs.iter().filter_map(Ipv4Range::of).collect(),
            network_acl: subnet.network_acl.clone(),
            routers: subnet.cidrs.iter().map(|cidr| after_base(cidr, 1)).collect(),
            dns: primary.map(|cidr| after_base(cidr, 2)),
            routes: Routes::new(policy, subnet, vpc),
        }
    }

    /// What surrounds an instance of EC2-Classic: its Region's private network, and the ranges of
    /// the VPC that it is linked to. Its router is taken to be the first address of its /24.
    fn classic(address: IpAddr, linked: &[IpNet]) -> Self {
        const REGION: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
        const DNS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 23);
        let nets = |base: Ipv4Addr, len| IpNet::new(base.into(), len).into_iter();
        let local = nets(REGION, 8).chain(linked.iter().copied());
        let local = local.map(|net| CompiledRoute::new(net, RouteTarget::Local));
        let outside = nets(Ipv4Addr::UNSPECIFIED, 0)
            .map(|net| CompiledRoute::new(net, RouteTarget::InternetGateway));
        let router = IpNet::new(address, 24).map(|net| after_base(&net.trunc(), 1));
        SubnetContext {
            is_classic: true,
            routers: router.into_iter().collect(),
            dns: Some(DNS.into()),
            routes: Routes::of(local.chain(outside).collect()),
            ..SubnetContext::default()
        }
    }
}

/// A route table, by longest prefix.
#[derive(Debug)]
struct Routes {
    /// Address to index in `routes` plus one; 0: no route.
    by_address: PrefixMap,
    routes: Vec<CompiledRoute>,
    has_detours: bool,
}

impl Default for Routes {
    fn default() -> Self {
        Routes::of(Vec::new())
    }
}

impl CompiledRoute {
    fn new(destination: IpNet, target: RouteTarget) -> (IpNet, Self) {
        (destination, CompiledRoute { destination, target, interface: None, mtu: None })
    }
}

impl Routes {
    /// The subnet's own routes come first, then what every table has: the VPC's ranges are local,
    /// and EC2-Classic's if the VPC may be linked to it; where the VPC is unknown, the subnet's own
    /// ranges are. A subnet that names no routes reaches active peers and, for the rest, the
    /// internet.
    fn new(policy: &Policy, subnet: &Subnet, vpc: Option<&Vpc>) -> Self {
        let local = |cidr| CompiledRoute::new(cidr, RouteTarget::Local);
        let own = subnet.routes.iter().map(|route| {
            let Route { destination, target, mtu, .. } = *route;
            let interface = route.interface.clone();
            (destination, CompiledRoute { destination, target, interface, mtu })
        });
        let mut all: Vec<_> = own.collect();
        all.extend(vpc.map_or(&subnet.cidrs, |vpc| &vpc.cidrs).iter().map(|&cidr| local(cidr)));
        if vpc.is_some_and(|vpc| vpc.classic_link) {
            all.extend(IpNet::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8).map(local));
        }
        if subnet.routes.is_empty() {
            for peering in policy.peerings.iter().filter(|p| p.active) {
                let target = match peering.inter_region {
                    true => RouteTarget::InterRegionPeering,
                    false => RouteTarget::Peering,
                };
                if peering.vpcs.contains(&subnet.vpc) {
                    let theirs = peering.cidrs.iter().filter(|(vpc, _)| *vpc != subnet.vpc);
                    all.extend(theirs.map(|&(_, cidr)| CompiledRoute::new(cidr, target)));
                }
            }
            let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
            let everywhere = everywhere.into_iter().filter_map(|base| IpNet::new(base, 0).ok());
            let internet = |net| CompiledRoute::new(net, RouteTarget::InternetGateway);
            all.extend(everywhere.map(internet));
        }
        Routes::of(all)
    }

    fn of(all: Vec<(IpNet, CompiledRoute)>) -> Self {
        let prefixes: Vec<_> = all.iter().zip(1..).map(|((net, _), n)| (*net, n)).collect();
        let routes: Vec<_> = all.into_iter().map(|(_, route)| route).collect();
        Routes {
            by_address: PrefixMap::from_prefixes(&prefixes, 0),
            has_detours: routes.iter().any(|route| route.target.is_detour()),
            routes,
        }
    }

    fn get(&self, addr: &IpAddr) -> Option<&CompiledRoute> {
        let index = self.by_address.get(addr).checked_sub(1)?;
        self.routes.get(index as usize)
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
