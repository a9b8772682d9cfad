//! What is measured, for the benches and for `sgwall bench`: rules, packets and flows, the same in
//! every run, and what is done with them. Who measures reads the clock.

pub mod classbench;
pub mod floods;
pub mod flows;
pub mod lookups;
pub mod workload;

use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::model::{
    FlowLimits, GroupRef, Interface, L4Match, Peer, Policy, PortRange, SecurityGroup,
    SecurityGroupRule, Subnet, Timeouts, Vpc,
};

/// Packets, look-ups or flows of a short run, about. Some tenths of a millisecond: long for the clock,
/// short beside what else a machine does.
pub const RUN: usize = 4096;

/// Something to be measured in short runs.
pub trait Work: Send {
    /// Makes ready what the next run needs; it takes its time, which does not count.
    fn prepare(&mut self) {}

    /// A short run: how many packets, look-ups or flows it had, at least one.
    fn run(&mut self) -> usize;
}

/// A xorshift generator: cheap, and the same numbers each time.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds, equal numbers. The seed is not zero.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from `from` to `to`, both among them.
    pub fn within(&mut self, from: u16, to: u16) -> u16 {
        let span = u64::from(to.saturating_sub(from)) + 1;
        from + (self.draw() % span) as u16
    }
}

/// `n` rules: IPv4 prefixes of 16 to 32 bits, half of them nested in others, TCP or UDP with one
/// port or a range, as large groups have them.
#[must_use]
pub fn rules(n: usize) -> Vec<SecurityGroupRule> {
    some_rules(n, |bits, _| {
        // Half the rules lie in 10.0.0.0/8 and so in one another.
        let address =
            if bits & 1 == 0 { bits as u32 & 0x00ff_ffff | 0x0a00_0000 } else { bits as u32 };
        (IpAddr::V4(address.into()), 16 + (bits >> 32) as u8 % 17)
    })
}

/// As [`rules`], with IPv6 prefixes of 32 to 128 bits, half of them in one range of 32 bits.
#[must_use]
pub fn rules6(n: usize) -> Vec<SecurityGroupRule> {
    some_rules(n, |bits, more| {
        let high = if bits & 1 == 0 { 0x2001_0db8 } else { 0x2000_0000 | more >> 36 };
        let address = u128::from(high) << 96
            | u128::from(bits.rotate_left(20) as u32) << 64
            | u128::from(more);
        (IpAddr::V6(address.into()), 32 + ((bits >> 32) % 97) as u8)
    })
}

fn some_rules(n: usize, prefix: fn(u64, u64) -> (IpAddr, u8)) -> Vec<SecurityGroupRule> {
    let mut random = Random::new(0x5eed_0001);
    let mut others = Random::new(0x5eed_0005);
    let mut rules = Vec::with_capacity(n);
    for i in 0..n {
        let bits = random.draw();
        let (address, len) = prefix(bits, others.draw());
        let cidr = IpNet::new(address, len).expect("a length that fits").trunc();
        let from = (bits >> 40) as u16;
        let to = if bits >> 63 == 0 { from } else { from.saturating_add((bits >> 56) as u16) };
        let ports = PortRange { from, to };
        rules.push(SecurityGroupRule {
            id: format!("ingress-{i}"),
            matches: if bits & 2 == 0 { L4Match::Tcp(ports) } else { L4Match::Udp(ports) },
            peer: Peer::Cidr(cidr),
            description: None,
            origin: Origin::synthetic("bench"),
        });
    }
    rules
}

/// A policy of one interface, 10.0.1.10, whose one group has these ingress rules.
#[must_use]
pub fn policy(ingress: Vec<SecurityGroupRule>) -> Policy {
    let origin = || Origin::synthetic("bench");
    let cidr = |text: &str| text.parse().expect("a range");
    Policy {
        vpcs: vec![Vpc {
            id: "vpc".into(),
            cidrs: vec![cidr("10.0.0.0/16")],
            classic_link: false,
            origin: origin(),
        }],
        subnets: vec![Subnet {
            id: "subnet".into(),
            vpc: "vpc".into(),
            cidrs: vec![cidr("10.0.1.0/24")],
            network_acl: None,
            routes: vec![],
            origin: origin(),
        }],
        security_groups: vec![group("sg-1", ingress)],
        interfaces: vec![interface("eni-1", [10, 0, 1, 10], &["sg-1"])],
        ..Policy::default()
    }
}

/// Groups of the interfaces of [`fleet`], but for the one that all have.
const TIERS: usize = 100;

/// A policy of `n` interfaces in a hundred tiers. The group of a tier has 50 ranges, itself and the
/// next tier's group for peers; all interfaces also have the group `sg-base`, with 20 ranges and the
/// first tier's group.
#[must_use]
pub fn fleet(n: usize) -> Policy {
    let mut ranges = rules(50 * TIERS + 20).into_iter();
    let tier = |tier: usize| format!("sg-{}", tier % TIERS);
    let with_groups = |mut rules: Vec<SecurityGroupRule>, groups: &[String]| {
        let port = PortRange { from: 22, to: 22 };
        rules.extend(groups.iter().map(|id| SecurityGroupRule {
            id: format!("ingress-{id}"),
            matches: L4Match::Tcp(port),
            peer: Peer::Group(GroupRef::local(id.clone())),
            description: None,
            origin: Origin::synthetic("bench"),
        }));
        rules
    };
    let mut groups = Vec::with_capacity(TIERS + 1);
    for at in 0..TIERS {
        let own = ranges.by_ref().take(50).collect();
        groups.push(group(&tier(at), with_groups(own, &[tier(at), tier(at + 1)])));
    }
    groups.push(group("sg-base", with_groups(ranges.collect(), &[tier(0)])));
    let interfaces = (0..n).map(|at| {
        let [high, low] = (at as u16).to_be_bytes();
        interface(&format!("eni-{at}"), [10, 0, high, low], &[&tier(at), "sg-base"])
    });
    Policy { security_groups: groups, interfaces: interfaces.collect(), ..policy(Vec::new()) }
}

fn group(id: &str, ingress: Vec<SecurityGroupRule>) -> SecurityGroup {
    SecurityGroup {
        id: id.into(),
        name: id.into(),
        description: String::new(),
        vpc: Some("vpc".into()),
        owner: None,
        is_default: false,
        ingress,
        egress: vec![],
        origin: Origin::synthetic("bench"),
    }
}

fn interface(id: &str, address: [u8; 4], groups: &[&str]) -> Interface {
    Interface {
        id: id.into(),
        subnet: "subnet".into(),
        addresses: vec![address.into()],
        public: vec![],
        security_groups: groups.iter().map(|&id| id.into()).collect(),
        source_dest_check: true,
        flows: FlowLimits::default(),
        mtu: None,
        timeouts: Timeouts::default(),
        mac: None,
        instance: None,
        instance_type: None,
        origin: Origin::synthetic("bench"),
    }
}
