//! A policy made ready for packets: names resolved, rules compiled, what is equal shared.
//!
//! [`CompiledPolicy::compile`] turns references to groups and prefix lists into addresses
//! (SEMANTICS section 4) and builds a [`crate::matcher::Matcher`] for each direction of each set
//! of groups and of each network ACL. Interfaces with the same groups share one, as subnets with
//! the same ACL do. The result is immutable: a reload compiles another, and
//! [`CompiledPolicy::recompile`] takes over of the present one what stays as it was.
//!
//! It judges nothing: which stage asks what, and what an answer means, is the dataplane's. Nor
//! does it find fault: a policy is validated before, and what does not resolve here matches
//! nothing.

mod interface;
mod owners;
mod rules;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::AHasher;

pub use self::interface::{CompiledInterface, CompiledRoute, Service};
use self::interface::{Link, SubnetContext};
use self::owners::Owners;
pub use self::rules::{AclMatch, AclRules, AclSet, GroupMatch, GroupRules, RuleSet};
use self::rules::{Catalogue, Peers};
use self::table::RuleTable;
pub use self::table::{RuleId, RuleInfo, RuleKind};
use crate::model::{Compat, Exempt, Policy};

/// Which policy a match came from; the caller counts it up at each reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// A map that is asked for every packet. Its keys are the policy's, which no sender chooses, so
/// neither speed nor a seed is given up for hash flooding.
type PacketMap<K, V> = HashMap<K, V, BuildHasherDefault<AHasher>>;

/// A compiled policy.
#[derive(Debug)]
pub struct CompiledPolicy {
    generation: Generation,
    compat: Compat,
    icmp_related: bool,
    exempt: Exempt,
    tcp_window_check: bool,
    rules: Arc<RuleTable>,
    peers: Peers,
    interfaces: Vec<CompiledInterface>,
    by_id: HashMap<String, usize>,
    by_mac: PacketMap<[u8; 6], usize>,
    /// Public address to interface and the private address that it stands for.
    by_public: PacketMap<IpAddr, (usize, IpAddr)>,
    smallest_mtu: u16,
    /// The interfaces that have a private address, by family.
    owners_v4: Owners,
    owners_v6: PacketMap<u128, Vec<usize>>,
}

impl CompiledPolicy {
    /// Compiles a validated policy. What does not resolve (an unknown group, a stale reference, a
    /// prefix list without entries) matches nothing; an interface whose subnet or ACL is unknown
    /// gets an ACL without entries, which denies all.
    #[must_use]
    pub fn compile(policy: &Policy, generation: Generation) -> Self {
        Self::build(policy, generation, None)
    }

    /// What [`Self::compile`] would make of a policy. Matchers whose rules, addresses and order are
    /// as they were are shared with this one, so a small change costs little; of what the change was
    /// nobody need know.
    #[must_use]
    pub fn recompile(&self, policy: &Policy, generation: Generation) -> Self {
        Self::build(policy, generation, Some(self))
    }

    fn build(policy: &Policy, generation: Generation, before: Option<&Self>) -> Self {
        let rules = RuleTable::new(policy, before.map(|before| &before.rules));
        let catalogue = Catalogue::new(policy, before.map(|before| &before.peers));
        let known = before.map(Known::of).unwrap_or_default();
        let mut groups: HashMap<&[String], Arc<GroupRules>> = HashMap::new();
        let mut groups_of = |ids| {
            let compile = || catalogue.groups(ids, known.groups.get(ids).copied());
            Arc::clone(groups.entry(ids).or_insert_with(compile))
        };
        let mut acls: HashMap<Option<&str>, Arc<AclRules>> = HashMap::new();
        let subnets: HashMap<&str, Arc<SubnetContext>> = policy
            .subnets
            .iter()
            .rev()
            .map(|subnet| (subnet.id.as_str(), Arc::new(SubnetContext::new(policy, subnet))))
            .collect();
        let nowhere = Arc::new(SubnetContext::default());

        let mut interfaces = Vec::with_capacity(policy.interfaces.len());
        for interface in &policy.interfaces {
            let groups = groups_of(interface.security_groups.as_slice());
            let subnet = subnets.get(interface.subnet.as_str());
            // An unknown subnet's ACL is unknown too, and the one without entries stands in.
            let acl = match subnet.map(|subnet| subnet.network_acl.as_deref()) {
                Some(None) => None,
                Some(named) => Some(named),
                None => Some(None),
            }
            .map(|id| {
                let compile = || Arc::new(catalogue.acl(id, known.acls.get(&id).copied()));
                Arc::clone(acls.entry(id).or_insert_with(compile))
            });
            let subnet = Arc::clone(subnet.unwrap_or(&nowhere));
            interfaces.push(CompiledInterface::new(policy.compat, interface, subnet, groups, acl));
        }

        for instance in &policy.classic_instances {
            let own = groups_of(instance.security_groups.as_slice());
            let link = instance.link.as_ref().map(|link| {
                let vpc = policy.vpcs.iter().find(|vpc| vpc.id == link.vpc);
                let groups = groups_of(link.security_groups.as_slice());
                Link {
                    cidrs: vpc.map(|vpc| vpc.cidrs.clone()).unwrap_or_default(),
                    group_ids: link.security_groups.clone(),
                    groups,
                }
            });
            interfaces.push(CompiledInterface::classic(policy.compat, instance, own, link));
        }

        let mut by_id = HashMap::with_capacity(interfaces.len());
        let mut by_mac = PacketMap::default();
        let mut by_public = PacketMap::default();
        let mut owners_v4: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut owners_v6: PacketMap<u128, Vec<usize>> = PacketMap::default();
        for (index, interface) in interfaces.iter().enumerate() {
            by_id.entry(interface.id.clone()).or_insert(index);
            if let Some(mac) = interface.mac {
                by_mac.entry(mac).or_insert(index);
            }
            for &(private, public) in &interface.public {
                by_public.entry(public).or_insert((index, private));
            }
            for &address in &interface.addresses {
                let owners = match address {
                    IpAddr::V4(v4) => owners_v4.entry(v4.to_bits()).or_default(),
                    IpAddr::V6(v6) => owners_v6.entry(v6.to_bits()).or_default(),
                };
                if owners.last() != Some(&index) {
                    owners.push(index);
                }
            }
        }
        CompiledPolicy {
            generation,
            compat: policy.compat,
            icmp_related: policy.icmp_related,
            exempt: policy.exempt,
            tcp_window_check: policy.tcp_window_check,
            rules,
            peers: catalogue.into_peers(),
            interfaces,
            smallest_mtu: smallest_mtu(policy),
            by_id,
            by_mac,
            by_public,
            owners_v4: Owners::new(&owners_v4),
            owners_v6,
        }
    }

    /// The generation it was compiled as.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Which edition of the semantics holds.
    #[must_use]
    pub const fn compat(&self) -> Compat {
        self.compat
    }

    /// Whether ICMP errors are admitted by the packet they quote (SEMANTICS 10.2).
    #[must_use]
    pub const fn icmp_related(&self) -> bool {
        self.icmp_related
    }

    /// What passes unfiltered.
    #[must_use]
    pub const fn exempt(&self) -> Exempt {
        self.exempt
    }

    /// Whether TCP segments of tracked flows outside the receiver's window are dropped
    /// (SEMANTICS 7.7).
    #[must_use]
    pub const fn tcp_window_check(&self) -> bool {
        self.tcp_window_check
    }

    /// No path of the policy has a smaller MTU, bytes: what is not larger fits everywhere.
    #[inline]
    #[must_use]
    pub const fn smallest_mtu(&self) -> u16 {
        self.smallest_mtu
    }

    /// All interfaces, in the policy's order; their indices are what the look-ups yield.
    #[must_use]
    pub fn interfaces(&self) -> &[CompiledInterface] {
        &self.interfaces
    }

    /// The index of the interface with this id.
    #[must_use]
    pub fn interface_by_id(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Whether nothing but private addresses tells which interface a packet concerns.
    #[inline]
    #[must_use]
    pub fn has_private_addresses_alone(&self) -> bool {
        self.by_mac.is_empty() && self.by_public.is_empty()
    }

    /// The index of the interface with this MAC address.
    #[must_use]
    pub fn interface_by_mac(&self, mac: [u8; 6]) -> Option<usize> {
        self.by_mac.get(&mac).copied()
    }

    /// The index of the interface that is reached at the public address `addr` from outside its
    /// VPC, and the private address that it has there (SEMANTICS 14.5).
    #[must_use]
    pub fn interface_by_public(&self, addr: &IpAddr) -> Option<(usize, IpAddr)> {
        self.by_public.get(addr).copied()
    }

    /// The indices, ascending, of the interfaces that have the private address `addr`. More than
    /// one only where VPCs use the same addresses.
    #[inline]
    #[must_use]
    pub fn interfaces_of(&self, addr: &IpAddr) -> &[usize] {
        match addr {
            IpAddr::V4(v4) => self.owners_v4.get(v4.to_bits()),
            IpAddr::V6(v6) => self.owners_v6.get(&v6.to_bits()).map_or(&[], Vec::as_slice),
        }
    }

    /// Whether an interface (its index) is among [`Self::interfaces_of`] an address.
    #[inline]
    #[must_use]
    pub fn is_interface_of(&self, interface: usize, addr: &IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => self.owners_v4.has(v4.to_bits(), interface),
            IpAddr::V6(_) => self.interfaces_of(addr).contains(&interface),
        }
    }

    /// What a rule is. Ids come from this policy's matches; one of another generation may be
    /// unknown here, or another rule's.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&RuleInfo> {
        self.rules.rules.get(id.0 as usize)
    }

    /// All rules, in the order of their ids.
    #[must_use]
    pub fn rules(&self) -> &[RuleInfo] {
        &self.rules.rules
    }

    /// Whether the two are known to have the same rules under the same ids, because one was
    /// [recompiled](Self::recompile) from the other. False does not say that they differ.
    #[must_use]
    pub fn shares_rules(&self, other: &CompiledPolicy) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
    }
}

/// What an earlier policy has compiled.
#[derive(Default)]
struct Known<'a> {
    groups: HashMap<&'a [String], &'a Arc<GroupRules>>,
    acls: HashMap<Option<&'a str>, &'a AclRules>,
}

impl<'a> Known<'a> {
    fn of(policy: &'a CompiledPolicy) -> Self {
        let mut known = Known::default();
        for interface in &policy.interfaces {
            known.groups.extend(interface.compiled_groups());
            known.acls.extend(interface.compiled_acl().map(|acl| (interface.acl_id(), acl)));
        }
        known
    }
}

/// The smallest of the internet's 1500, every interface's and every route's own.
fn smallest_mtu(policy: &Policy) -> u16 {
    let routes = policy.subnets.iter().flat_map(|subnet| &subnet.routes);
    let routes = routes.filter_map(|route| u16::try_from(route.mtu?).ok());
    let interfaces = policy.interfaces.iter().map(|interface| interface.mtu);
    let classic = policy.classic_instances.iter().map(|instance| instance.mtu);
    let ends = interfaces.chain(classic).flatten();
    routes.chain(ends).fold(1500, u16::min)
}
