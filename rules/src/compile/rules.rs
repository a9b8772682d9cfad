//! Rules of groups and entries of ACLs, resolved and compiled.
//!
//! A security group's rule becomes one matcher entry for each prefix its peer stands for: the
//! range itself, the entries of a prefix list, or the private addresses of a group's members
//! (SEMANTICS 4.1, 4.9). All have one rank, so that a group of a thousand members is one prefix
//! class. Ranks put the rules that name all of a family's addresses first, so that the best match
//! says at once whether the flow may go untracked (SEMANTICS 6.2b, 6.5).

use std::collections::{HashMap, HashSet};

use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_packet::protocol;

use crate::matcher::{Entry, Matcher};
use crate::model::{
    AclAction, Direction, GroupRef, IcmpMatch, L4Match, NetworkAcl, Peer, Policy, PortRange,
    SecurityGroup, SecurityGroupRule,
};

/// Index of a rule or ACL entry in [`super::CompiledPolicy::rules`]. Good for one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// Whose rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// A security group's.
    SecurityGroup,
    /// A network ACL's.
    NetworkAcl,
}

/// What people are told of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleInfo {
    /// Whose rule it is.
    pub kind: RuleKind,
    /// The group (`sg-…`) or ACL (`acl-…`).
    pub owner: String,
    /// The rule in it: `sgr-…` or `ingress-3`, or an ACL's rule number.
    pub rule: String,
    /// Which list it stands in.
    pub direction: Direction,
    /// What it says: `tcp 443 from 0.0.0.0/0`, `deny all to 10.0.0.0/8`.
    pub text: String,
}

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
    matcher: Matcher,
    /// By rank.
    matches: Vec<GroupMatch>,
    /// Whether one rule covers all ports from all addresses, by family (IPv4, IPv6).
    all_ports_any: [AllPorts; 2],
    /// The same without the rules that refer to groups, where there are any.
    without_references: Option<Box<RuleSet>>,
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

    /// `rules`: in order of preference, each with the prefixes of its peer.
    fn new(rules: &[(RuleId, L4Match, &[IpNet])]) -> Self {
        let mut set = RuleSet {
            matcher: Matcher::new(&[]),
            matches: Vec::new(),
            all_ports_any: [AllPorts::default(); 2],
            without_references: None,
        };
        let mut entries = Vec::new();
        for any_peer in [true, false] {
            for &(rule, matches, prefixes) in rules {
                let rank = set.matches.len() as u32;
                let before = entries.len();
                for &remote in prefixes.iter().filter(|net| (net.prefix_len() == 0) == any_peer) {
                    entries.push(Entry { remote, matches, rank });
                    if any_peer {
                        let all = &mut set.all_ports_any[usize::from(remote.addr().is_ipv6())];
                        all.tcp |= matches!(matches, L4Match::All | L4Match::Tcp(PortRange::ALL));
                        all.udp |= matches!(matches, L4Match::All | L4Match::Udp(PortRange::ALL));
                    }
                }
                if entries.len() > before {
                    set.matches.push(GroupMatch { rule, any_peer });
                }
            }
        }
        set.matcher = Matcher::new(&entries);
        set
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
    matcher: Matcher,
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

    fn new(acl: Option<(&NetworkAcl, [u32; 2])>, direction: Direction) -> Self {
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
        AclSet { matcher: Matcher::new(&entries), matches }
    }
}

/// An ACL's ICMPv6 entry with an IPv4 range means all types (SEMANTICS 8.4).
fn acl_match(matches: L4Match, cidr: &IpNet) -> L4Match {
    match (matches, cidr) {
        (L4Match::Icmpv6(_), IpNet::V4(_)) => L4Match::Icmpv6(IcmpMatch::default()),
        _ => matches,
    }
}

/// A policy's groups, lists and ACLs by id, with what their references stand for.
pub(super) struct Catalogue<'a> {
    policy: &'a Policy,
    groups: HashMap<&'a str, Named<'a, SecurityGroup>>,
    acls: HashMap<&'a str, Named<'a, NetworkAcl>>,
    prefix_lists: HashMap<&'a str, &'a [IpNet]>,
    /// The private addresses of each group's members.
    members: HashMap<&'a str, Vec<IpNet>>,
}

/// An object, and the id of its first rule in each direction.
type Named<'a, T> = (&'a T, [u32; 2]);

impl<'a> Catalogue<'a> {
    /// Numbers all rules, and says what they are. Where an id occurs twice, the first counts.
    pub(super) fn new(policy: &'a Policy) -> (Self, Vec<RuleInfo>) {
        let mut infos = Vec::new();
        let mut groups = HashMap::new();
        for group in &policy.security_groups {
            let first = Direction::BOTH.map(|direction| {
                let first = infos.len() as u32;
                infos.extend(group.rules(direction).iter().map(|rule| RuleInfo {
                    kind: RuleKind::SecurityGroup,
                    owner: group.id.clone(),
                    rule: rule.id.clone(),
                    direction,
                    text: format!("{} {} {}", rule.matches, preposition(direction), rule.peer),
                }));
                first
            });
            groups.entry(group.id.as_str()).or_insert((group, first));
        }
        let mut acls = HashMap::new();
        for acl in &policy.network_acls {
            let first = Direction::BOTH.map(|direction| {
                let first = infos.len() as u32;
                infos.extend(acl.entries(direction).iter().map(|entry| {
                    let action = match entry.action {
                        AclAction::Allow => "allow",
                        AclAction::Deny => "deny",
                    };
                    let to = preposition(direction);
                    RuleInfo {
                        kind: RuleKind::NetworkAcl,
                        owner: acl.id.clone(),
                        rule: entry.rule_number.to_string(),
                        direction,
                        text: format!("{action} {} {to} {}", entry.matches, entry.cidr),
                    }
                }));
                first
            });
            acls.entry(acl.id.as_str()).or_insert((acl, first));
        }
        let mut prefix_lists = HashMap::new();
        for list in &policy.prefix_lists {
            prefix_lists.entry(&*list.id).or_insert(list.entries.as_deref().unwrap_or_default());
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
        (Catalogue { policy, groups, acls, prefix_lists, members }, infos)
    }

    /// The rules of an interface that has these groups.
    pub(super) fn groups(&self, ids: &[String]) -> GroupRules {
        let mut seen = HashSet::new();
        let groups: Vec<_> = ids
            .iter()
            .filter(|id| seen.insert(*id))
            .filter_map(|id| self.groups.get(id.as_str()))
            .collect();
        let compile = |direction: Direction| {
            let rules = groups.iter().flat_map(|(group, first)| {
                group.rules(direction).iter().zip(first[direction as usize]..).map(|(rule, id)| {
                    let prefixes = self.prefixes(group, rule);
                    let is_reference = matches!(rule.peer, Peer::Group(_));
                    ((RuleId(id), rule.matches, prefixes), is_reference)
                })
            });
            let (mut all, mut others) = (Vec::new(), Vec::new());
            for (rule, is_reference) in rules {
                all.push(rule);
                if !is_reference {
                    others.push(rule);
                }
            }
            let mut set = RuleSet::new(&all);
            set.without_references =
                (others.len() < all.len()).then(|| Box::new(RuleSet::new(&others)));
            set
        };
        GroupRules {
            ingress: compile(Direction::Ingress),
            egress: compile(Direction::Egress),
            account: groups.iter().find_map(|(group, _)| group.owner.clone()),
        }
    }

    /// The entries of an ACL; none, which denies all, if there is no such ACL.
    pub(super) fn acl(&self, id: Option<&str>) -> AclRules {
        let acl = id.and_then(|id| self.acls.get(id)).copied();
        AclRules {
            ingress: AclSet::new(acl, Direction::Ingress),
            egress: AclSet::new(acl, Direction::Egress),
        }
    }

    /// The prefixes that a rule's peer stands for.
    fn prefixes(&self, group: &SecurityGroup, rule: &'a SecurityGroupRule) -> &[IpNet] {
        match &rule.peer {
            Peer::Cidr(cidr) => std::slice::from_ref(cidr),
            Peer::PrefixList(id) => self.prefix_lists.get(id.as_str()).copied().unwrap_or(&[]),
            Peer::Group(to) if self.resolves(group, to) => {
                self.members.get(to.id.as_str()).map_or(&[], Vec::as_slice)
            }
            Peer::Group(_) => &[],
        }
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

const fn preposition(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}
