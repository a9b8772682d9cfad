//! A random policy: one network, and rules, entries and settings that an input chooses.

use std::sync::{Arc, LazyLock};

use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Origin;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{
    AclAction, Compat, Exempt, ExemptTraffic, GroupRef, IcmpMatch, L4Match, NetworkAclEntry, Peer,
    Policy, PortRange, SecurityGroupRule,
};

use crate::source::Source;

const NETWORK: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
network_acl = "acl-1"
[[subnet]]
id = "subnet-2"
vpc = "vpc-1"
cidrs = ["10.0.2.0/24"]
[[network_acl]]
id = "acl-1"
[[security_group]]
id = "sg-1"
[[security_group]]
id = "sg-2"
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
[[interface]]
id = "eni-2"
subnet = "subnet-2"
addresses = ["10.0.2.20"]
security_groups = ["sg-2"]
[[interface]]
id = "eni-3"
subnet = "subnet-1"
addresses = ["10.0.1.30"]
security_groups = ["sg-1", "sg-2"]
"#;

/// MAC addresses of the interfaces, where they have one.
pub(crate) const MACS: [[u8; 6]; 3] =
    [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x20], [2, 0, 0, 0, 0, 0x30]];

pub(crate) struct World {
    model: Policy,
    /// The policy before, to be compiled as the present one differs.
    before: Option<Arc<CompiledPolicy>>,
    generation: u32,
    rules: u32,
}

impl World {
    pub(crate) fn new(source: &mut Source<'_>) -> Self {
        static LOADED: LazyLock<Policy> = LazyLock::new(|| {
            let loaded = load(&[Input { name: "policy".into(), bytes: NETWORK.as_bytes() }]);
            loaded.expect("a good policy").policy
        });
        let mut world = World { model: LOADED.clone(), before: None, generation: 0, rules: 0 };
        let flags = source.byte();
        let model = &mut world.model;
        model.compat = if flags & 1 != 0 { Compat::Current } else { Compat::Ec2_2017 };
        model.icmp_related = flags & 2 != 0;
        model.tcp_window_check = flags & 4 != 0;
        if flags & 8 != 0 {
            let bits = source.byte();
            let chosen = (0..).zip(ExemptTraffic::ALL).filter(|(bit, _)| bits >> bit & 1 != 0);
            model.exempt = chosen.fold(Exempt::NONE, |all, (_, traffic)| all.with(traffic));
        }
        if flags & 16 != 0 {
            for (interface, mac) in model.interfaces.iter_mut().zip(MACS) {
                interface.mac = Some(mac);
            }
        }
        if flags & 32 != 0 {
            let pair = ([10, 0, 1, 10].into(), [198, 51, 100, 1].into());
            model.interfaces[0].public = vec![pair];
        }
        for interface in &mut model.interfaces {
            let flags = source.byte();
            interface.source_dest_check = flags & 1 == 0;
            interface.mtu = [None, Some(1500), Some(576), Some(9001)][usize::from(flags >> 1 & 3)];
            if flags & 8 != 0 {
                interface.timeouts.tcp_established = Some(60);
                interface.timeouts.udp = Some(30);
            }
        }
        for group in 0..2 {
            for is_ingress in [true, false] {
                let rules = (0..source.below(6)).map(|_| world.rule(source)).collect();
                let group = &mut world.model.security_groups[group];
                *(if is_ingress { &mut group.ingress } else { &mut group.egress }) = rules;
            }
        }
        world.change_acl(source);
        world
    }

    pub(crate) fn model(&self) -> &Policy {
        &self.model
    }

    /// Takes the public addresses away.
    pub(crate) fn forget_public(&mut self) {
        self.model.interfaces.iter_mut().for_each(|interface| interface.public.clear());
    }

    pub(crate) fn compile(&mut self) -> Arc<CompiledPolicy> {
        let compiled = Arc::new(CompiledPolicy::compile(&self.model, Generation(self.generation)));
        self.before.get_or_insert_with(|| Arc::clone(&compiled));
        compiled
    }

    /// What [`Self::compile`] makes, of what it made last time.
    pub(crate) fn recompile(&mut self) -> Arc<CompiledPolicy> {
        let generation = Generation(self.generation);
        let compiled = match &self.before {
            Some(before) => before.recompile(&self.model, generation),
            None => CompiledPolicy::compile(&self.model, generation),
        };
        let compiled = Arc::new(compiled);
        self.before = Some(Arc::clone(&compiled));
        compiled
    }

    /// One change, as a reload brings it.
    pub(crate) fn change(&mut self, source: &mut Source<'_>) {
        self.generation += 1;
        let which = source.byte();
        match source.below(8) {
            0 | 1 => {
                let rule = self.rule(source);
                let group = &mut self.model.security_groups[usize::from(which & 1)];
                let list = if which & 2 == 0 { &mut group.ingress } else { &mut group.egress };
                list.push(rule);
            }
            2 | 3 => {
                let group = &mut self.model.security_groups[usize::from(which & 1)];
                let list = if which & 2 == 0 { &mut group.ingress } else { &mut group.egress };
                if !list.is_empty() {
                    list.remove(usize::from(which >> 2) % list.len());
                }
            }
            4 => self.change_acl(source),
            5 => {
                let groups = [&["sg-1"][..], &["sg-2"], &["sg-1", "sg-2"]];
                let groups = groups[usize::from(which >> 2) % 3].iter();
                let interface = &mut self.model.interfaces[usize::from(which & 3) % 3];
                interface.security_groups = groups.map(|id| (*id).to_owned()).collect();
            }
            6 => {
                let addresses = &mut self.model.interfaces[0].addresses;
                let more = [10, 0, 1, 11].into();
                match addresses.contains(&more) {
                    true => addresses.retain(|address| *address != more),
                    false => addresses.insert(1, more),
                }
            }
            _ => {
                let interface = &mut self.model.interfaces[usize::from(which & 3) % 3];
                interface.source_dest_check = !interface.source_dest_check;
            }
        }
    }

    fn change_acl(&mut self, source: &mut Source<'_>) {
        let flags = source.byte();
        self.model.subnets[0].network_acl = Some("acl-1".to_owned()).filter(|_| flags & 3 != 0);
        let mut number = 0;
        let mut entries = |source: &mut Source<'_>| {
            let mut entries = Vec::new();
            for _ in 0..source.below(5) {
                number += 1;
                entries.push(NetworkAclEntry {
                    rule_number: number,
                    action: if source.one_in(4) { AclAction::Deny } else { AclAction::Allow },
                    matches: matches(source),
                    cidr: source.pick(&CIDRS).parse().expect("a prefix"),
                    origin: Origin::synthetic("input"),
                });
            }
            entries
        };
        let acl = (entries(source), entries(source));
        (self.model.network_acls[0].ingress, self.model.network_acls[0].egress) = acl;
    }

    fn rule(&mut self, source: &mut Source<'_>) -> SecurityGroupRule {
        self.rules += 1;
        let matches = matches(source);
        let peer = match source.below(8) {
            0 => Peer::Group(GroupRef::local("sg-1")),
            1 => Peer::Group(GroupRef::local("sg-2")),
            2 | 3 => Peer::Cidr(source.pick(&CIDRS[..2]).parse().expect("a prefix")),
            _ => Peer::Cidr(source.pick(&CIDRS).parse().expect("a prefix")),
        };
        SecurityGroupRule {
            id: format!("rule-{}", self.rules),
            matches,
            peer,
            description: None,
            origin: Origin::synthetic("input"),
        }
    }
}

const CIDRS: [&str; 8] = [
    "0.0.0.0/0",
    "::/0",
    "0.0.0.0/1",
    "203.0.113.0/24",
    "10.0.0.0/16",
    "10.0.2.20/32",
    "2001:db8::/32",
    "203.0.113.1/32",
];

fn matches(source: &mut Source<'_>) -> L4Match {
    let ports = [
        PortRange::ALL,
        PortRange { from: 80, to: 81 },
        PortRange { from: 53, to: 53 },
        PortRange { from: 1024, to: 65_535 },
    ];
    match source.below(10) {
        0..3 => L4Match::All,
        3 | 4 => L4Match::Tcp(source.pick(&ports)),
        5 | 6 => L4Match::Udp(source.pick(&ports)),
        7 => L4Match::Icmp(source.pick(&[
            IcmpMatch { kind: None, code: None },
            IcmpMatch { kind: Some(8), code: None },
            IcmpMatch { kind: Some(3), code: Some(4) },
        ])),
        8 => L4Match::Icmpv6(IcmpMatch { kind: None, code: None }),
        _ => L4Match::Other(47),
    }
}
