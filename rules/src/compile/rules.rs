//! Rules of groups and entries of ACLs, resolved and compiled.
//!
//! A security group's rule becomes one matcher entry for each prefix its peer stands for: the
//! range itself, the entries of a prefix list, or the private addresses of a group's members
//! (SEMANTICS 4.1, 4.9). All have one rank, so that a group of a thousand members is one prefix
//! class. Ranks put the rules that name all of a family's addresses first, so that the best match
//! says at once whether the flow may go untracked (SEMANTICS 6.2b, 6.5).
//!
//! What is compiled keeps what it was compiled of. Where an earlier policy has the same, its matcher
//! serves again: a matcher knows ranks, and what rank is which rule is said beside it, so rules that
//! are only numbered anew cost no compilation.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sgwall_packet::protocol;

use super::table::RuleId;
use crate::matcher::{Entry, Matcher};
use crate::model::{
    AclAction, Direction, GroupRef, IcmpMatch, L4Match, NetworkAcl, Peer, Policy, PortRange,
    SecurityGroup, SecurityGroupRule,
};

/// The rules of an interface's groups, both directions.
#[derive(Debug)]
pub struct GroupRules {
    ingress: RuleSet,
    egress: RuleSet,
    /// The account that owns the groups, as the first of them that knows tells.
    pub(super) account: Option<String>,
}

impl GroupRules {
    /// The rules of one direction.
    #[inline]
    #[must_use]
    pub const fn direction(&self, direction: Direction) -> &RuleSet {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// The union of all rules of an interface's groups in one direction (SEMANTICS 3.1).
#[derive(Debug)]
pub struct RuleSet {
    /// In order of preference.
    inputs: Vec<Input>,
    matcher: Arc<Matcher>,
    /// By rank.
    matches: Vec<GroupMatch>,
    /// Whether one rule covers all ports from all addresses, by family (IPv4, IPv6).
    all_ports_any: [AllPorts; 2],
    /// The same without the rules that refer to groups, where there are any.
    without_references: Option<Box<RuleSet>>,
}

/// A rule with the prefixes of its peer.
#[derive(Clone, Debug, PartialEq)]
struct Input {
    rule: RuleId,
    matches: L4Match,
    prefixes: Prefixes,
    is_reference: bool,
}

/// Prefixes that a peer stands for; those of lists and members are shared.
#[derive(Clone, Debug, PartialEq)]
enum Prefixes {
    One(IpNet),
    Many(Arc<[IpNet]>),
}

impl Prefixes {
    fn as_slice(&self) -> &[IpNet] {
        match self {
            Prefixes::One(one) => std::slice::from_ref(one),
            Prefixes::Many(many) => many,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct AllPorts {
    tcp: bool,
    udp: bool,
}

/// The rule that admits a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupMatch {
    /// The rule: of those that match one for all addresses if there is one, then by the order of
    /// the groups on the interface and of the rules in the group.
    pub rule: RuleId,
    /// Whether a rule matches whose peer is literally all addresses of the packet's family
    /// (SEMANTICS 6.1, 6.2b).
    pub any_peer: bool,
}

impl RuleSet {
    /// The rule that admits a packet, `None` where none does. `selector` is
    /// `sgwall_packet::Headers::selector`.
    #[inline]
    #[must_use]
    pub fn lookup(&self, remote: &IpAddr, protocol: u8, selector: u16) -> Option<GroupMatch> {
        let rank = self.matcher.lookup(remote, protocol, selector)?;
        self.matches.get(rank as usize).copied()
    }

    /// What finds the rule: its ranks are in the order of [`GroupMatch::rule`]'s preference.
    #[must_use]
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// What each rule matches, with each prefix that its peer stands for.
    pub fn prefixes(&self) -> impl Iterator<Item = (L4Match, IpNet)> {
        self.inputs.iter().flat_map(|input| {
            input.prefixes.as_slice().iter().map(|&prefix| (input.matches, prefix))
        })
    }

    /// Whether one rule with a literal `/0` peer of the family covers every port of TCP or UDP:
    /// `-1`, or the protocol with 0-65535 (SEMANTICS 6.2c). False for every other protocol, which
    /// is always tracked (6.2a).
    #[inline]
    #[must_use]
    pub const fn all_ports_any(&self, ipv6: bool, protocol: u8) -> bool {
        let family = self.all_ports_any[ipv6 as usize];
        match protocol {
            protocol::TCP => family.tcp,
            protocol::UDP => family.udp,
            _ => false,
        }
    }

    /// Whether any rule refers to a group.
    #[inline]
    #[must_use]
    pub const fn has_references(&self) -> bool {
        self.without_references.is_some()
    }

    /// The rules that hold for packets whose sender or next hop is not the address's owner: all but
    /// those that refer to groups (SEMANTICS 4.5).
    #[must_use]
    pub fn without_references(&self) -> &RuleSet {
        self.without_references.as_deref().unwrap_or(self)
    }

    /// Whether no rule of this direction can match anything (SEMANTICS 3.2).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    /// The rules in order of preference; the matcher is that of `before` if it was of the same.
    fn new(inputs: Vec<Input>, before: Option<&RuleSet>) -> Self {
        let others: Vec<_> = inputs.iter().filter(|input| !input.is_reference).cloned().collect();
        let without_references = (others.len() < inputs.len()).then(|| {
            let before = before.and_then(|before| before.without_references.as_deref());
            Box::new(RuleSet::new(others, before))
        });
        let same = before.filter(|before| {
            before.inputs.len() == inputs.len()
                && before.inputs.iter().zip(&inputs).all(|(before, now)| before.matches_as(now))
        });
        let mut matches = Vec::new();
        let mut all_ports_any = [AllPorts::default(); 2];
        let mut entries = Vec::new();
        for any_peer in [true, false] {
            for &Input { rule, matches: l4, ref prefixes, .. } in &inputs {
                let prefixes = prefixes.as_slice().iter();
                let prefixes = prefixes.filter(|net| (net.prefix_len() == 0) == any_peer);
                if prefixes.clone().next().is_none() {
                    continue;
                }
                let rank = matches.len() as u32;
                matches.push(GroupMatch { rule, any_peer });
                if any_peer {
                    for remote in prefixes.clone() {
                        let all = &mut all_ports_any[usize::from(remote.addr().is_ipv6())];
                        all.tcp |= matches!(l4, L4Match::All | L4Match::Tcp(PortRange::ALL));
                        all.udp |= matches!(l4, L4Match::All | L4Match::Udp(PortRange::ALL));
                    }
                }
                if same.is_none() {
                    entries.extend(prefixes.map(|&remote| Entry { remote, matches: l4, rank }));
                }
            }
        }
        let matcher = match same {
            Some(same) => Arc::clone(&same.matcher),
            None => Arc::new(Matcher::new(&entries)),
        };
        RuleSet { inputs, matcher, matches, all_ports_any, without_references }
    }
}

impl Input {
    /// Whether the two differ in nothing but their number.
    fn matches_as(&self, other: &Input) -> bool {
        self.matches == other.matches && self.prefixes == other.prefixes
    }
}

/// The entries of a network ACL, both directions.
#[derive(Debug)]
pub struct AclRules {
    ingress: AclSet,
    egress: AclSet,
}

impl AclRules {
    /// The entries of one direction.
    #[inline]
    #[must_use]
    pub const fn direction(&self, direction: Direction) -> &AclSet {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// The entries of a network ACL in one direction: the first that matches decides (SEMANTICS 8.1).
#[derive(Debug)]
pub struct AclSet {
    entries: Vec<Entry>,
    matcher: Arc<Matcher>,
    /// By rank.
    matches: Vec<AclMatch>,
}

/// The ACL entry that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AclMatch {
    /// The entry.
    pub rule: RuleId,
    /// What it says.
    pub action: AclAction,
}

impl AclSet {
    /// The entry that decides; `None`: none matches, and the final `*` entry denies.
    #[inline]
    #[must_use]
    pub fn lookup(&self, remote: &IpAddr, protocol: u8, selector: u16) -> Option<AclMatch> {
        let rank = self.matcher.lookup(remote, protocol, selector)?;
        self.matches.get(rank as usize).copied()
    }

    fn new(
        acl: Option<(&NetworkAcl, [u32; 2])>,
        direction: Direction,
        before: Option<&AclSet>,
    ) -> Self {
        let mut ordered: Vec<_> = acl
            .into_iter()
            .flat_map(|(acl, first)| acl.entries(direction).iter().zip(first[direction as usize]..))
            .collect();
        ordered.sort_by_key(|(entry, _)| entry.rule_number);
        let entries: Vec<_> = ordered
            .iter()
            .zip(0..)
            .map(|((entry, _), rank)| Entry {
                remote: entry.cidr,
                matches: acl_match(entry.matches, &entry.cidr),
                rank,
            })
            .collect();
        let matches = ordered
            .iter()
            .map(|&(entry, id)| AclMatch { rule: RuleId(id), action: entry.action })
            .collect();
        let matcher = match before.filter(|before| before.entries == entries) {
            Some(same) => Arc::clone(&same.matcher),
            None => Arc::new(Matcher::new(&entries)),
        };
        AclSet { entries, matcher, matches }
    }
}

/// An ACL's ICMPv6 entry with an IPv4 range means all types (SEMANTICS 8.4).
fn acl_match(matches: L4Match, cidr: &IpNet) -> L4Match {
    match (matches, cidr) {
        (L4Match::Icmpv6(_), IpNet::V4(_)) => L4Match::Icmpv6(IcmpMatch::default()),
        _ => matches,
    }
}

/// The prefixes that lists and groups stand for.
#[derive(Debug, Default)]
pub(super) struct Peers {
    lists: HashMap<String, Arc<[IpNet]>>,
    /// The private addresses of each group's members.
    members: HashMap<String, Arc<[IpNet]>>,
}

impl Peers {
    /// Those of a policy; what an earlier one has likewise is shared with it, so that comparing them
    /// later is cheap.
    fn new(policy: &Policy, before: Option<&Peers>) -> Self {
        let mut lists: HashMap<&str, Vec<IpNet>> = HashMap::new();
        for list in &policy.prefix_lists {
            lists.entry(&*list.id).or_insert_with(|| list.entries.clone().unwrap_or_default());
        }
        let mut members: HashMap<&str, Vec<IpNet>> = HashMap::new();
        let interfaces = policy.interfaces.iter().map(|i| (&i.security_groups, &i.addresses[..]));
        let classic = policy.classic_instances.iter().flat_map(|instance| {
            let linked = instance.link.as_ref().map(|link| &link.security_groups);
            let groups = std::iter::once(&instance.security_groups).chain(linked);
            groups.map(|groups| (groups, std::slice::from_ref(&instance.address)))
        });
        for (groups, addresses) in interfaces.chain(classic) {
            for group in groups {
                let addresses = addresses.iter().map(|&address| IpNet::from(address));
                members.entry(group).or_default().extend(addresses);
            }
        }
        Peers {
            lists: shared(lists, before.map(|before| &before.lists)),
            members: shared(members, before.map(|before| &before.members)),
        }
    }
}

fn shared(
    all: HashMap<&str, Vec<IpNet>>,
    before: Option<&HashMap<String, Arc<[IpNet]>>>,
) -> HashMap<String, Arc<[IpNet]>> {
    let all = all.into_iter().map(|(id, prefixes)| {
        let known = before.and_then(|before| before.get(id));
        let same = known.filter(|known| ***known == *prefixes).cloned();
        (id.to_owned(), same.unwrap_or_else(|| prefixes.into()))
    });
    all.collect()
}

/// A policy's groups and ACLs by id, with what their references stand for.
pub(super) struct Catalogue<'a> {
    policy: &'a Policy,
    groups: HashMap<&'a str, Named<'a, SecurityGroup>>,
    acls: HashMap<&'a str, Named<'a, NetworkAcl>>,
    peers: Peers,
    nobody: Arc<[IpNet]>,
}

/// An object, and the id of its first rule in each direction.
type Named<'a, T> = (&'a T, [u32; 2]);

impl<'a> Catalogue<'a> {
    /// Numbers all rules, as [`super::table::RuleTable`] does. Where an id occurs twice, the first
    /// counts.
    pub(super) fn new(policy: &'a Policy, before: Option<&Peers>) -> Self {
        let mut next = 0;
        let mut number = |len: usize| {
            let first = next;
            next += len as u32;
            first
        };
        let mut groups = HashMap::new();
        for group in &policy.security_groups {
            let first = Direction::BOTH.map(|direction| number(group.rules(direction).len()));
            groups.entry(group.id.as_str()).or_insert((group, first));
        }
        let mut acls = HashMap::new();
        for acl in &policy.network_acls {
            let first = Direction::BOTH.map(|direction| number(acl.entries(direction).len()));
            acls.entry(acl.id.as_str()).or_insert((acl, first));
        }
        let peers = Peers::new(policy, before);
        Catalogue { policy, groups, acls, peers, nobody: Arc::from([]) }
    }

    /// What peers stand for, for the next policy.
    pub(super) fn into_peers(self) -> Peers {
        self.peers
    }

    /// The rules of an interface that has these groups; `before`: those that it had.
    pub(super) fn groups(
        &self,
        ids: &[String],
        before: Option<&Arc<GroupRules>>,
    ) -> Arc<GroupRules> {
        let mut seen = HashSet::new();
        let groups: Vec<_> = ids
            .iter()
            .filter(|id| seen.insert(*id))
            .filter_map(|id| self.groups.get(id.as_str()))
            .collect();
        let inputs = |direction: Direction| -> Vec<Input> {
            let rules = groups.iter().flat_map(|(group, first)| {
                let rules = group.rules(direction).iter().zip(first[direction as usize]..);
                rules.map(|(rule, id)| Input {
                    rule: RuleId(id),
                    matches: rule.matches,
                    prefixes: self.prefixes(group, rule),
                    is_reference: matches!(rule.peer, Peer::Group(_)),
                })
            });
            rules.collect()
        };
        let (ingress, egress) = (inputs(Direction::Ingress), inputs(Direction::Egress));
        let account = groups.iter().find_map(|(group, _)| group.owner.as_ref());
        let same = before.filter(|before| {
            before.ingress.inputs == ingress
                && before.egress.inputs == egress
                && before.account.as_ref() == account
        });
        if let Some(same) = same {
            return Arc::clone(same);
        }
        Arc::new(GroupRules {
            ingress: RuleSet::new(ingress, before.map(|before| &before.ingress)),
            egress: RuleSet::new(egress, before.map(|before| &before.egress)),
            account: account.cloned(),
        })
    }

    /// The entries of an ACL; none, which denies all, if there is no such ACL. `before`: those that
    /// it had.
    pub(super) fn acl(&self, id: Option<&str>, before: Option<&AclRules>) -> AclRules {
        let acl = id.and_then(|id| self.acls.get(id)).copied();
        let set = |direction| {
            AclSet::new(acl, direction, before.map(|before| before.direction(direction)))
        };
        AclRules { ingress: set(Direction::Ingress), egress: set(Direction::Egress) }
    }

    /// The prefixes that a rule's peer stands for.
    fn prefixes(&self, group: &SecurityGroup, rule: &SecurityGroupRule) -> Prefixes {
        let many = match &rule.peer {
            Peer::Cidr(cidr) => return Prefixes::One(*cidr),
            Peer::PrefixList(id) => self.peers.lists.get(id),
            Peer::Group(to) if self.resolves(group, to) => self.peers.members.get(&to.id),
            Peer::Group(_) => None,
        };
        Prefixes::Many(Arc::clone(many.unwrap_or(&self.nobody)))
    }

    /// Whether a reference in a rule of `group` holds (SEMANTICS 4.6, 4.7): the other group is in
    /// the same VPC, or in the VPC at the other end of the peering that the reference names, which
    /// is active and does not cross Regions.
    fn resolves(&self, group: &SecurityGroup, to: &GroupRef) -> bool {
        let Some((other, _)) = self.groups.get(to.id.as_str()) else { return false };
        if to.stale || (to.vpc.is_some() && to.vpc != other.vpc) {
            return false;
        }
        if other.vpc == group.vpc {
            return true;
        }
        let (Some(ours), Some(theirs), Some(id)) = (&group.vpc, &other.vpc, &to.peering) else {
            return false;
        };
        let peering = self.policy.peerings.iter().find(|peering| peering.id == *id);
        peering.is_some_and(|peering| peering.carries_references(ours, theirs))
    }
}
