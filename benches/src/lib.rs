//! Inputs that the benches share: rules, packets and flows, the same in every run.

pub mod classbench;
pub mod workload;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::model::{
    Interface, L4Match, Peer, Policy, PortRange, SecurityGroup, SecurityGroupRule, Subnet,
    Timeouts, Vpc,
};

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
}

/// `n` rules: prefixes of 8 to 32 bits, half of them nested in others, TCP or UDP with one port or
/// a range, as large groups have them.
#[must_use]
pub fn rules(n: usize) -> Vec<SecurityGroupRule> {
    let mut random = Random::new(0x5eed_0001);
    let mut rules = Vec::with_capacity(n);
    for i in 0..n {
        let bits = random.draw();
        // Half the rules lie in 10.0.0.0/8 and so in one another.
        let address =
            if bits & 1 == 0 { bits as u32 & 0x00ff_ffff | 0x0a00_0000 } else { bits as u32 };
        let len = 16 + (bits >> 32) as u8 % 17;
        let cidr = IpNet::new(IpAddr::V4(address.into()), len).expect("a length up to 32").trunc();
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
        security_groups: vec![SecurityGroup {
            id: "sg-1".into(),
            name: "bench".into(),
            description: String::new(),
            vpc: Some("vpc".into()),
            owner: None,
            is_default: false,
            ingress,
            egress: vec![],
            origin: origin(),
        }],
        interfaces: vec![Interface {
            id: "eni-1".into(),
            subnet: "subnet".into(),
            addresses: vec![Ipv4Addr::new(10, 0, 1, 10).into()],
            public: vec![],
            security_groups: vec!["sg-1".into()],
            source_dest_check: true,
            mtu: None,
            timeouts: Timeouts::default(),
            mac: None,
            instance: None,
            instance_type: None,
            origin: origin(),
        }],
        ..Policy::default()
    }
}
