//! A policy that is compiled as it differs from an earlier one is what compiling it from scratch
//! gives, and what did not change is the same memory.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::Index;
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::{
    Direction, NetworkAclEntry, Peer, Policy, PrefixList, SecurityGroupRule,
};

use crate::{address, entries, matches, origin, peer, policy, prefix};

/// One change of a policy; an [`Index`] says where.
#[derive(Clone, Debug)]
enum Change {
    AddRule(Index, Index, SecurityGroupRule),
    RemoveRule(Index, Index),
    RemoveGroup(Index),
    SwapGroups(Index, Index),
    /// Another VPC, to which references do not hold.
    MoveGroup(Index),
    StaleReferences(Index),
    Join(Index, u8),
    Leave(Index, Index),
    AddAddress(Index, IpAddr),
    RemoveAddress(Index, Index),
    AddInterface(Index),
    SetList(Index, Vec<ipnet::IpNet>),
    RemoveList(Index),
    SetAcl(Vec<NetworkAclEntry>),
    Nothing,
}

fn change() -> impl Strategy<Value = Change> {
    let rule = (0..1000u16, matches(), peer()).prop_map(|(id, matches, peer)| SecurityGroupRule {
        id: format!("new-{id}"),
        matches,
        peer,
        description: None,
        origin: origin(),
    });
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), at(), rule).prop_map(|(group, at, rule)| Change::AddRule(group, at, rule)),
        2 => (at(), at()).prop_map(|(group, at)| Change::RemoveRule(group, at)),
        1 => at().prop_map(Change::RemoveGroup),
        1 => (at(), at()).prop_map(|(a, b)| Change::SwapGroups(a, b)),
        1 => at().prop_map(Change::MoveGroup),
        1 => at().prop_map(Change::StaleReferences),
        3 => (at(), 0..5u8).prop_map(|(interface, group)| Change::Join(interface, group)),
        2 => (at(), at()).prop_map(|(interface, group)| Change::Leave(interface, group)),
        3 => (at(), address()).prop_map(|(interface, addr)| Change::AddAddress(interface, addr)),
        2 => (at(), at()).prop_map(|(interface, at)| Change::RemoveAddress(interface, at)),
        1 => at().prop_map(Change::AddInterface),
        2 => (at(), proptest::collection::vec(prefix(), 0..6))
            .prop_map(|(list, prefixes)| Change::SetList(list, prefixes)),
        1 => at().prop_map(Change::RemoveList),
        2 => entries(40).prop_map(Change::SetAcl),
        1 => Just(Change::Nothing),
    ]
}

fn pick<'a, T>(all: &'a mut [T], at: &Index) -> Option<&'a mut T> {
    if all.is_empty() { None } else { Some(at.get_mut(all)) }
}

fn take_out<T>(all: &mut Vec<T>, at: &Index) {
    if !all.is_empty() {
        all.remove(at.index(all.len()));
    }
}

fn apply(policy: &mut Policy, change: &Change) {
    let Policy { security_groups: groups, interfaces, prefix_lists: lists, .. } = policy;
    match change {
        Change::AddRule(group, at, rule) => {
            if let Some(group) = pick(groups, group) {
                let list = if at.index(2) == 0 { &mut group.ingress } else { &mut group.egress };
                list.insert(at.index(list.len() + 1), rule.clone());
            }
        }
        Change::RemoveRule(group, at) => {
            if let Some(group) = pick(groups, group) {
                take_out(&mut group.ingress, at);
            }
        }
        Change::RemoveGroup(group) => take_out(groups, group),
        Change::SwapGroups(a, b) if !groups.is_empty() => {
            let (a, b) = (a.index(groups.len()), b.index(groups.len()));
            groups.swap(a, b);
        }
        Change::MoveGroup(group) => {
            if let Some(group) = pick(groups, group) {
                group.vpc = Some("another".into());
            }
        }
        Change::StaleReferences(group) => {
            if let Some(group) = pick(groups, group) {
                for rule in group.ingress.iter_mut().chain(&mut group.egress) {
                    if let Peer::Group(to) = &mut rule.peer {
                        to.stale = !to.stale;
                    }
                }
            }
        }
        Change::Join(interface, group) => {
            if let Some(interface) = pick(interfaces, interface) {
                interface.security_groups.push(format!("sg-{group}"));
            }
        }
        Change::Leave(interface, group) => {
            if let Some(interface) = pick(interfaces, interface) {
                take_out(&mut interface.security_groups, group);
            }
        }
        Change::AddAddress(interface, addr) => {
            if let Some(interface) = pick(interfaces, interface) {
                interface.addresses.push(*addr);
            }
        }
        Change::RemoveAddress(interface, at) => {
            if let Some(interface) = pick(interfaces, interface) {
                take_out(&mut interface.addresses, at);
            }
        }
        Change::AddInterface(at) => {
            let mut new = at.get(interfaces).clone();
            new.id = format!("eni-{}", interfaces.len());
            interfaces.insert(at.index(interfaces.len()), new);
        }
        Change::SetList(list, entries) => {
            if let Some(list) = pick(lists, list) {
                list.entries = Some(entries.clone());
            }
        }
        Change::RemoveList(list) => take_out::<PrefixList>(lists, list),
        Change::SetAcl(entries) => policy.network_acls[0].ingress.clone_from(entries),
        Change::SwapGroups(..) | Change::Nothing => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 1024, ..Default::default() })]

    /// Interfaces print as everything that they are made of: matchers, ids of rules, addresses,
    /// routes. So what is printed alike answers alike, whatever is asked.
    #[test]
    fn recompiling_gives_what_compiling_gives(
        policy in policy(),
        changes in proptest::collection::vec(proptest::collection::vec(change(), 1..3), 1..6),
    ) {
        let mut policy = policy;
        let mut compiled = CompiledPolicy::compile(&policy, Generation(0));
        for (changes, generation) in changes.iter().zip(1..) {
            changes.iter().for_each(|change| apply(&mut policy, change));
            compiled = compiled.recompile(&policy, Generation(generation));
            let fresh = CompiledPolicy::compile(&policy, Generation(generation));
            prop_assert_eq!(compiled.generation(), fresh.generation());
            prop_assert_eq!(compiled.rules(), fresh.rules());
            prop_assert_eq!(
                format!("{:?}", compiled.interfaces()),
                format!("{:?}", fresh.interfaces())
            );
            for interface in fresh.interfaces() {
                let by_id = fresh.interface_by_id(&interface.id);
                prop_assert_eq!(compiled.interface_by_id(&interface.id), by_id);
                for addr in &interface.addresses {
                    prop_assert_eq!(compiled.interfaces_of(addr), fresh.interfaces_of(addr));
                }
            }
        }
    }
}

/// Rules of sg-0 name members of sg-1, which eni-1 alone has; sg-2 names nobody.
fn two_tiers() -> Policy {
    let text = r#"version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
[[security_group]]
id = "sg-0"
vpc = "vpc-1"
ingress = [
  { protocol = "tcp", ports = 80, cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = 5432, group = "sg-1" },
]
[[security_group]]
id = "sg-1"
vpc = "vpc-1"
ingress = [{ protocol = "tcp", ports = 22, cidr = "192.0.2.0/24" }]
[[security_group]]
id = "sg-2"
vpc = "vpc-1"
ingress = [{ protocol = "udp", ports = 53, cidr = "192.0.2.0/24" }]
[[interface]]
id = "eni-0"
subnet = "subnet-1"
addresses = ["10.0.1.10"]
security_groups = ["sg-0"]
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.11"]
security_groups = ["sg-1"]
[[interface]]
id = "eni-2"
subnet = "subnet-1"
addresses = ["10.0.1.12"]
security_groups = ["sg-2"]
"#;
    let input = sgwall_rules::load::Input { name: "tiers.toml".into(), bytes: text.as_bytes() };
    sgwall_rules::load::load(&[input]).expect("a good policy").policy
}

/// By interface: whether two policies share its ingress rules whole, and their matcher.
fn shared(before: &CompiledPolicy, after: &CompiledPolicy) -> Vec<(bool, bool)> {
    let nobody = IpAddr::from([0, 0, 0, 0]);
    let set = |policy: &CompiledPolicy, at: usize| {
        let rules = policy.interfaces()[at].groups(Direction::Ingress, &nobody);
        (std::ptr::from_ref(rules), std::ptr::from_ref(rules.matcher()))
    };
    let both = (0..after.interfaces().len()).map(|at| (set(before, at), set(after, at)));
    both.map(|(before, after)| (before.0 == after.0, before.1 == after.1)).collect()
}

#[test]
fn only_what_names_the_members_is_compiled_again() {
    let mut policy = two_tiers();
    let before = CompiledPolicy::compile(&policy, Generation(0));
    policy.interfaces[1].addresses.push("10.0.1.21".parse().unwrap());
    let after = before.recompile(&policy, Generation(1));
    assert_eq!(shared(&before, &after), [(false, false), (true, true), (true, true)]);
    assert!(after.shares_rules(&before));
    let new = "10.0.1.21".parse().unwrap();
    let ask = |policy: &CompiledPolicy| {
        let rules = policy.interfaces()[0].groups(Direction::Ingress, &new);
        let references = rules.without_references().lookup(&new, 6, 5432);
        (rules.lookup(&new, 6, 5432).is_some(), references.is_some())
    };
    assert_eq!((ask(&before), ask(&after)), ((false, false), (true, false)));
}

#[test]
fn rules_that_are_only_numbered_anew_keep_their_matcher() {
    let mut policy = two_tiers();
    let before = CompiledPolicy::compile(&policy, Generation(0));
    let first = policy.security_groups[0].ingress.remove(0);
    let after = before.recompile(&policy, Generation(1));
    assert_eq!(shared(&before, &after), [(false, false), (false, true), (false, true)]);
    assert!(!after.shares_rules(&before));
    // Back again: what eni-0 has is compiled again, the rest is numbered as it was.
    policy.security_groups[0].ingress.insert(0, first);
    let back = after.recompile(&policy, Generation(2));
    assert_eq!(shared(&after, &back), [(false, false), (false, true), (false, true)]);
    assert_eq!(back.rules(), before.rules());
}
