//! Random policies: small, so that what they say of one another's addresses and ports meets.

use fastrand::Rng;
use ipnet::IpNet;
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::model::{
    AclAction, Compat, Direction, Exempt, ExemptTraffic, FlowLimits, GroupRef, IcmpMatch,
    Interface, L4Match, NetworkAcl, NetworkAclEntry, Peer, Peering, Policy, PortRange, PrefixList,
    Route, RouteTarget, SecurityGroup, SecurityGroupRule, Subnet, Timeouts, Vpc,
};

const GROUPS: [&str; 5] = ["sg-0", "sg-1", "sg-2", "sg-3", "sg-peer"];
const LISTS: [&str; 3] = ["pl-4", "pl-6", "pl-unknown"];
const ACLS: [&str; 2] = ["acl-0", "acl-1"];

/// Interfaces: name, subnet, and the addresses of which it has the first and some of the rest.
const INTERFACES: [(&str, &str, &[&str]); 5] = [
    ("eni-0", "subnet-0", &["10.0.1.10", "2001:db8:0:1::10", "10.0.1.11"]),
    ("eni-1", "subnet-0", &["10.0.1.20", "2001:db8:0:1::20", "10.0.1.11"]),
    ("eni-2", "subnet-1", &["10.0.2.10", "2001:db8:0:2::10", "10.0.2.11"]),
    ("eni-3", "subnet-2", &["10.1.1.10"]),
    ("eni-4", "subnet-gone", &["10.0.3.10"]),
];

const RANGES: [&str; 16] = [
    "0.0.0.0/0",
    "0.0.0.0/0",
    "0.0.0.0/0",
    "::/0",
    "::/0",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "203.0.113.0/24",
    "203.0.113.1/32",
    "198.51.100.0/24",
    "10.0.0.0/16",
    "10.0.1.0/24",
    "10.0.2.10/32",
    "2001:db8:f::/64",
    "2001:db8:f::1/128",
    "2001:db8::/32",
];

/// A policy.
pub(crate) fn policy(rng: &mut Rng) -> Policy {
    let mut policy = Policy {
        vpcs: vec![vpc("vpc-0", &["10.0.0.0/16", "2001:db8::/56"]), vpc("vpc-1", &["10.1.0.0/16"])],
        subnets: vec![
            subnet("subnet-0", "vpc-0", &["10.0.1.0/24", "2001:db8:0:1::/64"]),
            subnet("subnet-1", "vpc-0", &["10.0.2.0/24", "2001:db8:0:2::/64"]),
            subnet("subnet-2", "vpc-1", &["10.1.1.0/24"]),
        ],
        peerings: vec![Peering {
            id: "pcx-0".to_owned(),
            vpcs: ["vpc-0".to_owned(), "vpc-1".to_owned()],
            cidrs: vec![
                ("vpc-0".to_owned(), net("10.0.0.0/16")),
                ("vpc-1".to_owned(), net("10.1.0.0/16")),
            ],
            active: true,
            inter_region: false,
            origin: origin(),
        }],
        ..Policy::default()
    };
    settings(rng, &mut policy);
    for id in LISTS {
        policy.prefix_lists.push(prefix_list(rng, id));
    }
    for id in GROUPS {
        policy.security_groups.push(group(rng, id));
    }
    for id in ACLS {
        policy.network_acls.push(acl(rng, id));
    }
    for subnet in &mut policy.subnets {
        change_subnet(rng, subnet);
    }
    for which in INTERFACES {
        policy.interfaces.push(interface(rng, which));
    }
    policy
}

/// The policy with something changed, as a reload would.
pub(crate) fn changed(rng: &mut Rng, policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    for _ in 0..rng.usize(1..4) {
        match rng.u8(0..10) {
            0..=2 => {
                let at = rng.usize(..policy.security_groups.len());
                policy.security_groups[at] = group(rng, GROUPS[at]);
            }
            3..=4 => {
                let at = rng.usize(..policy.network_acls.len());
                policy.network_acls[at] = acl(rng, ACLS[at]);
            }
            5 => {
                let at = rng.usize(..policy.subnets.len());
                change_subnet(rng, &mut policy.subnets[at]);
            }
            6..=7 => {
                let which = *rng.choice(&INTERFACES).expect("there are some");
                policy.interfaces.retain(|interface| interface.id != which.0);
                // Sometimes it is gone; it may come back later, at another place.
                if policy.interfaces.is_empty() || rng.u8(0..3) > 0 {
                    let at = rng.usize(..=policy.interfaces.len());
                    policy.interfaces.insert(at, interface(rng, which));
                }
            }
            8 => {
                let at = rng.usize(..policy.prefix_lists.len());
                policy.prefix_lists[at] = prefix_list(rng, LISTS[at]);
            }
            _ => settings(rng, &mut policy),
        }
    }
    policy
}

fn settings(rng: &mut Rng, policy: &mut Policy) {
    policy.compat = if rng.bool() { Compat::Ec2_2017 } else { Compat::Current };
    policy.icmp_related = rng.bool();
    policy.tcp_window_check = rng.u8(0..3) == 0;
    policy.exempt = match rng.u8(0..4) {
        0 => ExemptTraffic::ALL.into_iter().filter(|_| rng.bool()).fold(Exempt::NONE, Exempt::with),
        _ => Exempt::ALL,
    };
    for peering in &mut policy.peerings {
        peering.active = rng.u8(0..4) > 0;
        peering.inter_region = rng.u8(0..4) == 0;
    }
}

fn group(rng: &mut Rng, id: &str) -> SecurityGroup {
    let mut rules = |direction: Direction| {
        let rules = (0..rng.usize(0..7)).map(|n| rule(rng, direction, n));
        rules.collect()
    };
    SecurityGroup {
        id: id.to_owned(),
        name: id.to_owned(),
        description: String::new(),
        vpc: Some(if id == "sg-peer" { "vpc-1" } else { "vpc-0" }.to_owned()),
        owner: None,
        is_default: false,
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
        origin: origin(),
    }
}

fn rule(rng: &mut Rng, direction: Direction, n: usize) -> SecurityGroupRule {
    let peer = match rng.u8(0..10) {
        0..=6 => Peer::Cidr(range(rng)),
        7 => Peer::PrefixList(pick(rng, &LISTS)),
        _ => {
            let id = pick(rng, &GROUPS);
            let peering = (rng.bool()).then(|| "pcx-0".to_owned());
            Peer::Group(GroupRef { peering, stale: rng.u8(0..8) == 0, ..GroupRef::local(id) })
        }
    };
    SecurityGroupRule {
        id: format!("{direction}-{}", n + 1),
        matches: l4(rng),
        peer,
        description: None,
        origin: origin(),
    }
}

fn l4(rng: &mut Rng) -> L4Match {
    let kinds: [Option<u8>; 5] = [None, Some(8), Some(3), Some(128), Some(13)];
    match rng.u8(0..12) {
        0..=2 => L4Match::All,
        3..=5 => L4Match::Tcp(ports(rng)),
        6..=8 => L4Match::Udp(ports(rng)),
        9 | 10 => {
            let kind = kinds[rng.usize(..kinds.len())];
            let code = kind.filter(|_| rng.bool()).map(|_| rng.u8(0..5));
            let icmp = IcmpMatch { kind, code };
            if rng.bool() { L4Match::Icmp(icmp) } else { L4Match::Icmpv6(icmp) }
        }
        _ => L4Match::Other([47, 132, 51, 99][rng.usize(..4)]),
    }
}

fn ports(rng: &mut Rng) -> PortRange {
    let ranges = [
        (0, 65_535),
        (0, 65_535),
        (80, 80),
        (22, 22),
        (53, 53),
        (0, 1023),
        (1024, 65_535),
        (1000, 2000),
    ];
    let (from, to) = ranges[rng.usize(..ranges.len())];
    PortRange { from, to }
}

fn prefix_list(rng: &mut Rng, id: &str) -> PrefixList {
    let is_v6 = id == "pl-6";
    let ranges = RANGES.iter().map(|range| net(range)).filter(|net| net.addr().is_ipv6() == is_v6);
    let entries = ranges.filter(|_| rng.u8(0..4) == 0).collect();
    PrefixList {
        id: id.to_owned(),
        name: None,
        max_entries: None,
        entries: (id != "pl-unknown").then_some(entries),
        origin: origin(),
    }
}

fn acl(rng: &mut Rng, id: &str) -> NetworkAcl {
    let mut entries = || {
        let mut numbers: Vec<u16> = (1..=9).map(|n| n * 100).collect();
        rng.shuffle(&mut numbers);
        numbers.truncate(rng.usize(1..9));
        let entry = |rule_number, action, matches, cidr| NetworkAclEntry {
            rule_number,
            action,
            matches,
            cidr,
            origin: origin(),
        };
        let mut entries: Vec<_> = numbers
            .into_iter()
            .map(|number| {
                let is_deny = rng.u8(0..4) == 0;
                let action = if is_deny { AclAction::Deny } else { AclAction::Allow };
                entry(number, action, l4(rng), range(rng))
            })
            .collect();
        for everywhere in ["0.0.0.0/0", "::/0"] {
            if rng.u8(0..3) > 0 {
                let number = 1000 + entries.len() as u16;
                entries.push(entry(number, AclAction::Allow, L4Match::All, net(everywhere)));
            }
        }
        entries
    };
    let (ingress, egress) = (entries(), entries());
    NetworkAcl {
        id: id.to_owned(),
        vpc: None,
        is_default: false,
        ingress,
        egress,
        origin: origin(),
    }
}

fn change_subnet(rng: &mut Rng, subnet: &mut Subnet) {
    subnet.network_acl = match rng.u8(0..5) {
        0..=2 => None,
        3 => Some(pick(rng, &ACLS)),
        _ => Some("acl-unknown".to_owned()).filter(|_| rng.u8(0..8) == 0),
    };
    subnet.routes = match rng.u8(0..3) {
        0 => (0..rng.usize(1..5)).map(|_| route(rng)).collect(),
        _ => Vec::new(),
    };
}

fn route(rng: &mut Rng) -> Route {
    use RouteTarget as T;
    let targets = [
        T::InternetGateway,
        T::EgressOnlyInternetGateway,
        T::NatGateway,
        T::TransitGateway,
        T::VpnGateway,
        T::Peering,
        T::InterRegionPeering,
        T::GatewayEndpoint,
        T::InspectionEndpoint,
        T::Appliance,
        T::Appliance,
        T::OtherGateway,
        T::Blackhole,
        T::Local,
    ];
    let target = targets[rng.usize(..targets.len())];
    let interface = (target == T::Appliance && rng.u8(0..4) > 0).then(|| {
        let (id, ..) = INTERFACES[rng.usize(..INTERFACES.len())];
        id.to_owned()
    });
    let mtu = (rng.u8(0..4) == 0).then(|| rng.u32(576..9002));
    Route { destination: range(rng), target, interface, mtu, origin: origin() }
}

fn interface(rng: &mut Rng, (id, subnet, all): (&str, &str, &[&str])) -> Interface {
    let mut addresses = vec![all[0].parse().expect("an address")];
    let rest = all[1..].iter().filter(|_| rng.u8(0..3) > 0);
    addresses.extend(rest.map(|address| address.parse::<std::net::IpAddr>().expect("an address")));
    let mut groups: Vec<String> = GROUPS.map(str::to_owned).to_vec();
    rng.shuffle(&mut groups);
    groups.truncate(rng.usize(1..5));
    let mut seconds = || (rng.u8(0..3) == 0).then(|| rng.u32(1..100));
    let timeouts = Timeouts {
        tcp_syn_sent: seconds(),
        tcp_syn_recv: seconds(),
        tcp_established: seconds(),
        tcp_fin_wait: seconds(),
        tcp_close_wait: seconds(),
        tcp_last_ack: seconds(),
        tcp_time_wait: seconds(),
        tcp_close: seconds(),
        udp: seconds(),
        udp_stream: seconds(),
        icmp: seconds(),
        other: seconds(),
    };
    Interface {
        id: id.to_owned(),
        subnet: subnet.to_owned(),
        addresses,
        public: Vec::new(),
        security_groups: groups,
        source_dest_check: rng.u8(0..3) > 0,
        flows: FlowLimits {
            max_flows: (rng.u8(0..4) == 0).then(|| rng.u32(0..8)),
            reserved_flows: (rng.u8(0..4) == 0).then(|| rng.u32(0..3)),
        },
        mtu: [None, None, Some(1500), Some(1300)][rng.usize(..4)],
        timeouts,
        mac: None,
        instance: None,
        instance_type: None,
        origin: origin(),
    }
}

fn vpc(id: &str, cidrs: &[&str]) -> Vpc {
    let cidrs = cidrs.iter().map(|cidr| net(cidr)).collect();
    Vpc { id: id.to_owned(), cidrs, classic_link: false, origin: origin() }
}

fn subnet(id: &str, vpc: &str, cidrs: &[&str]) -> Subnet {
    Subnet {
        id: id.to_owned(),
        vpc: vpc.to_owned(),
        cidrs: cidrs.iter().map(|cidr| net(cidr)).collect(),
        network_acl: None,
        routes: Vec::new(),
        origin: origin(),
    }
}

fn range(rng: &mut Rng) -> IpNet {
    net(RANGES[rng.usize(..RANGES.len())])
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a range")
}

fn pick(rng: &mut Rng, names: &[&str]) -> String {
    names[rng.usize(..names.len())].to_owned()
}

fn origin() -> Origin {
    Origin::synthetic("random")
}
