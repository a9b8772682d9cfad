//! The policy as a person or AWS states it: plain data, nothing compiled, nothing resolved.
//!
//! Every object carries its [`Origin`], so that whoever finds fault with it can say where.
//! Loaders fill the model with what they could read; [`crate::load`] validates the whole.
//! Object names follow the EC2 API reference.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
pub use sgwall_packet::Direction;
use sgwall_packet::protocol;

use crate::diagnostic::Origin;
use crate::limits::Limits;

/// Which edition of the semantics holds where the EC2 guide of 2017 and AWS today differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compat {
    /// The guide of 2017: `ec2-2017`, the default.
    #[default]
    Ec2_2017,
    /// AWS today: `current`.
    Current,
}

impl Compat {
    /// The name in policy files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Compat::Ec2_2017 => "ec2-2017",
            Compat::Current => "current",
        }
    }
}

/// A whole policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Which edition of the semantics.
    pub compat: Compat,
    /// Admit ICMP errors by the packet they quote (SEMANTICS section 10). Default off.
    pub icmp_related: bool,
    /// What passes unfiltered (SEMANTICS 2.9, 8.8). Default: all of it.
    pub exempt: Exempt,
    /// Drop TCP segments of tracked flows outside the receiver's window (SEMANTICS 7.7). Default
    /// off.
    pub tcp_window_check: bool,
    /// The limits in force: the profile's, with the policy's overrides.
    pub limits: Limits,
    /// VPCs.
    pub vpcs: Vec<Vpc>,
    /// Subnets.
    pub subnets: Vec<Subnet>,
    /// Prefix lists.
    pub prefix_lists: Vec<PrefixList>,
    /// Security groups.
    pub security_groups: Vec<SecurityGroup>,
    /// Network ACLs.
    pub network_acls: Vec<NetworkAcl>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// Instances in EC2-Classic.
    pub classic_instances: Vec<ClassicInstance>,
    /// VPC peering connections.
    pub peerings: Vec<Peering>,
    /// Devices of a live firewall.
    pub ports: Vec<Port>,
}

/// Traffic of the VPC's own that neither groups nor ACLs filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExemptTraffic {
    /// IPv6 neighbour discovery.
    NeighbourDiscovery,
    /// DHCP with the VPC's server.
    Dhcp,
    /// The VPC's resolver.
    Dns,
    /// Instance metadata.
    Metadata,
    /// ECS task metadata.
    TaskMetadata,
    /// Time synchronisation.
    Time,
    /// Windows licence activation.
    Licences,
    /// All else with the subnet's router; only under [`Compat::Current`].
    Router,
}

impl ExemptTraffic {
    /// All of it, in the order of the discriminants.
    pub const ALL: [ExemptTraffic; 8] = [
        ExemptTraffic::NeighbourDiscovery,
        ExemptTraffic::Dhcp,
        ExemptTraffic::Dns,
        ExemptTraffic::Metadata,
        ExemptTraffic::TaskMetadata,
        ExemptTraffic::Time,
        ExemptTraffic::Licences,
        ExemptTraffic::Router,
    ];

    /// The name in policy files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ExemptTraffic::NeighbourDiscovery => "neighbour-discovery",
            ExemptTraffic::Dhcp => "dhcp",
            ExemptTraffic::Dns => "dns",
            ExemptTraffic::Metadata => "metadata",
            ExemptTraffic::TaskMetadata => "task-metadata",
            ExemptTraffic::Time => "time",
            ExemptTraffic::Licences => "licences",
            ExemptTraffic::Router => "router",
        }
    }
}

/// Which traffic is exempt from filtering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exempt(u8);

impl Exempt {
    /// None of it.
    pub const NONE: Exempt = Exempt(0);
    /// All of it, as AWS has it.
    pub const ALL: Exempt = Exempt(u8::MAX);

    /// This and `traffic`.
    #[must_use]
    pub const fn with(self, traffic: ExemptTraffic) -> Self {
        Exempt(self.0 | 1 << traffic as u8)
    }

    /// Whether `traffic` is exempt.
    #[inline]
    #[must_use]
    pub const fn contains(self, traffic: ExemptTraffic) -> bool {
        self.0 & (1 << traffic as u8) != 0
    }
}

impl Default for Exempt {
    fn default() -> Self {
        Exempt::ALL
    }
}

/// A virtual private cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Vpc {
    /// `vpc-…`.
    pub id: String,
    /// IPv4 and IPv6 address ranges, canonical.
    pub cidrs: Vec<IpNet>,
    /// Whether instances of EC2-Classic may be linked to it (SEMANTICS 14.3).
    pub classic_link: bool,
    /// Where it was said.
    pub origin: Origin,
}

/// A subnet of a VPC.
#[derive(Clone, Debug, PartialEq)]
pub struct Subnet {
    /// `subnet-…`.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Address ranges, canonical: one IPv4, at most one IPv6.
    pub cidrs: Vec<IpNet>,
    /// Its network ACL; `None`: the default, which allows all both ways (SEMANTICS 8.6).
    pub network_acl: Option<String>,
    /// Its routes, those of its route table; empty: the VPC's ranges are local, active peers'
    /// ranges go to the peering, all else to an internet gateway.
    pub routes: Vec<Route>,
    /// Where it was said.
    pub origin: Origin,
}

/// One route of a subnet's route table.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Destination prefix, canonical.
    pub destination: IpNet,
    /// Where packets to it go.
    pub target: RouteTarget,
    /// The interface of an appliance, if it is known (SEMANTICS 4.5, 9.4).
    pub interface: Option<String>,
    /// Path MTU in bytes that overrides the target's own (SEMANTICS 12.2).
    pub mtu: Option<u32>,
    /// Where it was said.
    pub origin: Origin,
}

/// The kind of next hop of a route: what tracking (SEMANTICS 6.2d) and path MTU (12.2) ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteTarget {
    /// Inside the VPC.
    Local,
    /// Internet gateway.
    InternetGateway,
    /// Egress-only internet gateway (IPv6).
    EgressOnlyInternetGateway,
    /// NAT gateway.
    NatGateway,
    /// Transit gateway attachment.
    TransitGateway,
    /// Virtual private gateway: VPN or Direct Connect.
    VpnGateway,
    /// VPC peering in the same Region.
    Peering,
    /// VPC peering across Regions.
    InterRegionPeering,
    /// Gateway endpoint (S3, DynamoDB).
    GatewayEndpoint,
    /// Gateway Load Balancer or Network Firewall endpoint, or another interface endpoint.
    InspectionEndpoint,
    /// A network interface or instance: an appliance.
    Appliance,
    /// Carrier or local gateway.
    OtherGateway,
    /// The target is gone: packets to it are lost.
    Blackhole,
}

impl RouteTarget {
    /// Whether packets to a private address may pass something on the way that is not the VPC
    /// itself, so that the address's owner is not the next to see them (SEMANTICS 4.5). An internet
    /// gateway is none: no private address is behind it.
    #[must_use]
    pub const fn is_detour(self) -> bool {
        match self {
            RouteTarget::Local
            | RouteTarget::Peering
            | RouteTarget::InternetGateway
            | RouteTarget::EgressOnlyInternetGateway => false,
            RouteTarget::NatGateway
            | RouteTarget::TransitGateway
            | RouteTarget::VpnGateway
            | RouteTarget::InterRegionPeering
            | RouteTarget::GatewayEndpoint
            | RouteTarget::InspectionEndpoint
            | RouteTarget::Appliance
            | RouteTarget::OtherGateway
            | RouteTarget::Blackhole => true,
        }
    }

    /// The name in policy files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RouteTarget::Local => "local",
            RouteTarget::InternetGateway => "internet-gateway",
            RouteTarget::EgressOnlyInternetGateway => "egress-only-internet-gateway",
            RouteTarget::NatGateway => "nat-gateway",
            RouteTarget::TransitGateway => "transit-gateway",
            RouteTarget::VpnGateway => "vpn-gateway",
            RouteTarget::Peering => "peering",
            RouteTarget::InterRegionPeering => "inter-region-peering",
            RouteTarget::GatewayEndpoint => "gateway-endpoint",
            RouteTarget::InspectionEndpoint => "inspection-endpoint",
            RouteTarget::Appliance => "appliance",
            RouteTarget::OtherGateway => "other-gateway",
            RouteTarget::Blackhole => "blackhole",
        }
    }
}

/// A managed prefix list.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixList {
    /// `pl-…`.
    pub id: String,
    /// Name, if any (`com.amazonaws.us-east-1.s3`).
    pub name: Option<String>,
    /// Entries it may hold, which is what it weighs (SEMANTICS 1.6); `None`: as many as it has.
    pub max_entries: Option<u32>,
    /// Prefixes, canonical. `None`: the dump names the list but not its entries, so it matches
    /// nothing.
    pub entries: Option<Vec<IpNet>>,
    /// Where it was said.
    pub origin: Origin,
}

/// A security group.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityGroup {
    /// `sg-…`.
    pub id: String,
    /// Name; unique in its VPC, `default` reserved.
    pub name: String,
    /// Description, 0-255 characters.
    pub description: String,
    /// Its VPC; `None` for EC2-Classic.
    pub vpc: Option<String>,
    /// Owning account, if known.
    pub owner: Option<String>,
    /// Whether it is its VPC's default group (SEMANTICS 5.1).
    pub is_default: bool,
    /// Inbound rules.
    pub ingress: Vec<SecurityGroupRule>,
    /// Outbound rules.
    pub egress: Vec<SecurityGroupRule>,
    /// Where it was said.
    pub origin: Origin,
}

impl SecurityGroup {
    /// The rules of one direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> &[SecurityGroupRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// One stored rule: protocol and ports, and exactly one peer (SEMANTICS 1.7).
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityGroupRule {
    /// `sgr-…` where AWS told it; else a name made of the direction and the rule's place counted
    /// from 1, `ingress-3`.
    pub id: String,
    /// Protocol and ports, or ICMP type and code.
    pub matches: L4Match,
    /// Who is at the other end: the source of ingress, the destination of egress.
    pub peer: Peer,
    /// Description, if any.
    pub description: Option<String>,
    /// Where it was said.
    pub origin: Origin,
}

impl SecurityGroupRule {
    /// What tells one rule of a group's direction from another; the description does not.
    #[must_use]
    pub fn identity(&self) -> (L4Match, PeerIdentity<'_>) {
        (self.matches, self.peer.identity())
    }
}

/// The other end that a security group's rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An address range, canonical.
    Cidr(IpNet),
    /// The private addresses of another group's members (SEMANTICS section 4).
    Group(GroupRef),
    /// A prefix list.
    PrefixList(String),
}

impl Peer {
    /// What tells one peer from another.
    #[must_use]
    pub fn identity(&self) -> PeerIdentity<'_> {
        match self {
            Peer::Cidr(cidr) => PeerIdentity::Cidr(*cidr),
            Peer::Group(to) => PeerIdentity::Group(&to.id, to.peering.as_deref()),
            Peer::PrefixList(id) => PeerIdentity::PrefixList(id),
        }
    }
}

/// What tells one [`Peer`] from another. An id belongs to one group, so its VPC and account, which
/// AWS's answers state and policies need not, do not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerIdentity<'a> {
    /// The address range.
    Cidr(IpNet),
    /// The group's id, and the peering connection through which it is reached.
    Group(&'a str, Option<&'a str>),
    /// The prefix list's id.
    PrefixList(&'a str),
}

/// A reference to a security group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupRef {
    /// The group referred to.
    pub id: String,
    /// Its VPC, when it is another one.
    pub vpc: Option<String>,
    /// Its account, when it is another one.
    pub owner: Option<String>,
    /// The peering connection through which it is reached.
    pub peering: Option<String>,
    /// AWS said that the peering is deleted: the rule is stale (SEMANTICS 4.7).
    pub stale: bool,
}

impl GroupRef {
    /// A reference to a group of the same VPC and account.
    #[must_use]
    pub fn local(id: impl Into<String>) -> Self {
        GroupRef { id: id.into(), vpc: None, owner: None, peering: None, stale: false }
    }
}

/// A network ACL.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkAcl {
    /// `acl-…`.
    pub id: String,
    /// Its VPC, if said.
    pub vpc: Option<String>,
    /// Whether it is its VPC's default ACL.
    pub is_default: bool,
    /// Inbound entries, in any order; the final deny (32767, 32768) is not among them.
    pub ingress: Vec<NetworkAclEntry>,
    /// Outbound entries; as `ingress`.
    pub egress: Vec<NetworkAclEntry>,
    /// Where it was said.
    pub origin: Origin,
}

impl NetworkAcl {
    /// The entries of one direction.
    #[must_use]
    pub fn entries(&self, direction: Direction) -> &[NetworkAclEntry] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// One numbered entry of a network ACL.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkAclEntry {
    /// 1-32766; the lowest number that matches decides.
    pub rule_number: u16,
    /// What it decides.
    pub action: AclAction,
    /// Protocol and ports, or ICMP type and code.
    pub matches: L4Match,
    /// The source of ingress, the destination of egress; canonical.
    pub cidr: IpNet,
    /// Where it was said.
    pub origin: Origin,
}

/// What a network ACL entry decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AclAction {
    /// The packet may cross the subnet's edge.
    Allow,
    /// It may not.
    Deny,
}

/// A network interface (ENI).
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// `eni-…`.
    pub id: String,
    /// Its subnet.
    pub subnet: String,
    /// Private addresses, the primary IPv4 first; then secondary IPv4, then IPv6.
    pub addresses: Vec<IpAddr>,
    /// Elastic and public IPv4 addresses as (private, public) pairs.
    pub public: Vec<(IpAddr, IpAddr)>,
    /// Its groups, 1 to the limit.
    pub security_groups: Vec<String>,
    /// Source/destination check (SEMANTICS 13.2). Default on.
    pub source_dest_check: bool,
    /// MTU in bytes, 576-9001; `None`: the most that the instance's type has (SEMANTICS 12.3), 9001
    /// where that is unknown.
    pub mtu: Option<u16>,
    /// Idle timeouts that differ from the default.
    pub timeouts: Timeouts,
    /// How many flows may be tracked on it.
    pub flows: FlowLimits,
    /// MAC address, if known.
    pub mac: Option<[u8; 6]>,
    /// The instance that it is attached to, `i-…`, if that is known.
    pub instance: Option<String>,
    /// The instance's type, `m4.large`, if that is known.
    pub instance_type: Option<String>,
    /// Where it was said.
    pub origin: Origin,
}

/// An instance in EC2-Classic: one private IPv4 address outside every VPC (SEMANTICS 14.1).
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicInstance {
    /// `i-…`.
    pub id: String,
    /// Its private address.
    pub address: IpAddr,
    /// Its public or elastic address, if it has one.
    pub public: Option<IpAddr>,
    /// Its groups, of EC2-Classic.
    pub security_groups: Vec<String>,
    /// Its link to a VPC, if it has one.
    pub link: Option<ClassicLink>,
    /// MTU in bytes, 576-9001; `None`: 9001.
    pub mtu: Option<u16>,
    /// Idle timeouts that differ from the default.
    pub timeouts: Timeouts,
    /// MAC address, if known.
    pub mac: Option<[u8; 6]>,
    /// Where it was said.
    pub origin: Origin,
}

/// A ClassicLink: a VPC, and the groups of it that govern traffic with it (SEMANTICS 14.2).
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicLink {
    /// The VPC.
    pub vpc: String,
    /// Groups of the VPC.
    pub security_groups: Vec<String>,
}

/// Idle timeouts in seconds; `None` is the default of SEMANTICS 7.10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP, SYN seen (120).
    pub tcp_syn_sent: Option<u32>,
    /// TCP, SYN answered (60).
    pub tcp_syn_recv: Option<u32>,
    /// TCP, established (432000; AWS allows 60-432000).
    pub tcp_established: Option<u32>,
    /// TCP, first FIN seen (120).
    pub tcp_fin_wait: Option<u32>,
    /// TCP, first FIN acknowledged (60).
    pub tcp_close_wait: Option<u32>,
    /// TCP, second FIN seen (30).
    pub tcp_last_ack: Option<u32>,
    /// TCP, both FINs acknowledged (120).
    pub tcp_time_wait: Option<u32>,
    /// TCP, reset (10).
    pub tcp_close: Option<u32>,
    /// UDP, one transaction (30; AWS allows 30-60).
    pub udp: Option<u32>,
    /// UDP, more than one transaction (180; AWS allows 60-180).
    pub udp_stream: Option<u32>,
    /// ICMP and ICMPv6 queries (30).
    pub icmp: Option<u32>,
    /// Every other protocol (600).
    pub other: Option<u32>,
}

/// How many flows may be tracked on an interface. AWS has such limits by instance type and tells
/// none of them (SEMANTICS 1.5); these are the policy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowLimits {
    /// No more than these; `None`: as many as the table has places.
    pub max_flows: Option<u32>,
    /// Places that are kept for it: no other interface gets them, even when the table is full.
    pub reserved_flows: Option<u32>,
}

/// A VPC peering connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Peering {
    /// `pcx-…`.
    pub id: String,
    /// Its two VPCs.
    pub vpcs: [String; 2],
    /// The peer's address ranges as this connection knows them, by VPC, canonical.
    pub cidrs: Vec<(String, IpNet)>,
    /// Whether it is active (AWS status code `active`).
    pub active: bool,
    /// Whether it crosses Regions.
    pub inter_region: bool,
    /// Where it was said.
    pub origin: Origin,
}

impl Peering {
    /// Whether groups of either VPC may refer to groups of the other through it: it is active, and
    /// within one Region (SEMANTICS 4.6).
    #[must_use]
    pub fn carries_references(&self, one: &str, other: &str) -> bool {
        self.active && !self.inter_region && self.connects(one, other)
    }

    /// Whether these are its two VPCs.
    #[must_use]
    pub fn connects(&self, one: &str, other: &str) -> bool {
        [one, other].iter().all(|vpc| self.vpcs.iter().any(|known| known == vpc))
    }
}

/// A Linux device that a live firewall reads from and writes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name.
    pub device: String,
    /// What it is.
    pub kind: PortKind,
    /// The interface whose instance is behind it; `None`: the network is.
    pub interface: Option<String>,
    /// MTU in bytes to give it, 576-9001; `None`: 9001 for a TAP that is made, else as it is.
    pub mtu: Option<u16>,
    /// VLAN tags that it carries.
    pub vlans: Vlans,
    /// Where it was said.
    pub origin: Origin,
}

/// What a port's device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// A TAP interface, made if it does not exist.
    Tap,
    /// Any Linux interface that exists: a veth, a network card.
    Existing,
}

/// VLAN tags that a port carries. Tagged frames are judged by the packet inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Vlans {
    /// None: tagged frames drop.
    #[default]
    None,
    /// Any.
    All,
    /// Those identifiers, 1-4094, by the outermost tag; untagged frames too.
    Only(Vec<u16>),
}

impl Vlans {
    /// Whether the port carries frames with this outermost identifier.
    #[must_use]
    pub fn carry(&self, vlan: Option<u16>) -> bool {
        match (self, vlan) {
            (_, None) | (Vlans::All, _) => true,
            (Vlans::None, _) => false,
            (Vlans::Only(ids), Some(id)) => ids.contains(&id),
        }
    }
}

/// Protocol and ports, or ICMP type and code: the part of a rule that looks at layer 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4Match {
    /// Every protocol, every port (`-1`).
    All,
    /// TCP with a destination port in the range.
    Tcp(PortRange),
    /// UDP with a destination port in the range.
    Udp(PortRange),
    /// ICMP (protocol 1).
    Icmp(IcmpMatch),
    /// ICMPv6 (protocol 58).
    Icmpv6(IcmpMatch),
    /// Any other protocol by number, ports never looked at (SEMANTICS 2.4).
    Other(u8),
}

impl L4Match {
    /// The protocol number; `None` for [`L4Match::All`].
    #[must_use]
    pub const fn protocol(self) -> Option<u8> {
        match self {
            L4Match::All => None,
            L4Match::Tcp(_) => Some(protocol::TCP),
            L4Match::Udp(_) => Some(protocol::UDP),
            L4Match::Icmp(_) => Some(protocol::ICMP),
            L4Match::Icmpv6(_) => Some(protocol::ICMPV6),
            L4Match::Other(number) => Some(number),
        }
    }
}

/// An inclusive range of destination ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// First port, 0-65535.
    pub from: u16,
    /// Last port, not below `from`.
    pub to: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: PortRange = PortRange { from: 0, to: u16::MAX };
}

/// Equality tests on ICMP type and code; `None` is any. A code needs a type (SEMANTICS 2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// Type.
    pub kind: Option<u8>,
    /// Code.
    pub code: Option<u8>,
}

/// `tcp 443`, `udp 1000-2000`, `icmp 3/4`, `icmpv6`, `all`, `proto 47`.
impl fmt::Display for L4Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            L4Match::All => f.write_str("all"),
            L4Match::Tcp(ports) => write!(f, "tcp{ports}"),
            L4Match::Udp(ports) => write!(f, "udp{ports}"),
            L4Match::Icmp(icmp) => write!(f, "icmp{icmp}"),
            L4Match::Icmpv6(icmp) => write!(f, "icmpv6{icmp}"),
            L4Match::Other(number) => write!(f, "proto {number}"),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            PortRange::ALL => Ok(()),
            PortRange { from, to } if from == to => write!(f, " {from}"),
            PortRange { from, to } => write!(f, " {from}-{to}"),
        }
    }
}

impl fmt::Display for IcmpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.code) {
            (None, _) => Ok(()),
            (Some(kind), None) => write!(f, " {kind}"),
            (Some(kind), Some(code)) => write!(f, " {kind}/{code}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Cidr(cidr) => write!(f, "{cidr}"),
            Peer::Group(group) => f.write_str(&group.id),
            Peer::PrefixList(id) => f.write_str(id),
        }
    }
}

/// A protocol number's usual name, or the number where sgwall has none (IANA "Protocol Numbers").
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp",
        2 => "igmp",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        protocol::ICMPV6 => "icmpv6",
        132 => "sctp",
        _ => return number.to_string(),
    }
    .to_owned()
}
