//! Path-MTU black holes: where the messages that make path-MTU discovery work do not get in.
//!
//! A host that sends a packet too large for its path must hear of it: ICMP type 3 code 4, ICMPv6
//! type 2 (RFC 1191, RFC 8201). Those messages are judged like any other (SEMANTICS 12.9): the
//! router's own by the interface's groups (not under `current`, where its address is exempt), those
//! of routers and hosts further out by the network ACL too. Where no rule lets them in, large
//! packets vanish without a word.
//!
//! One function finds the holes for `explain`, `check` and the hints of `replay`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sgwall_packet::{Direction, protocol};
use sgwall_rules::compile::{CompiledInterface, CompiledPolicy};
use sgwall_rules::model::{AclAction, Compat, ExemptTraffic, RouteTarget};

use crate::path_mtu::route_mtu;
use crate::verdict::Stage;

/// Whose messages do not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Teller {
    /// The router of the interface's subnet, at this address.
    Router(IpAddr),
    /// Routers and hosts further out, whose addresses nobody knows beforehand.
    FurtherOut,
}

/// A kind of message that path-MTU discovery needs and that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlackHole {
    /// The interface that does not hear of it.
    pub interface: String,
    /// Whether they are of ICMPv6.
    pub ipv6: bool,
    /// Whose messages.
    pub teller: Teller,
    /// What refuses them: `security-group` or `network-acl`.
    pub stage: String,
    /// The owner of the missing rule: groups of which one needs it, or the ACL.
    pub owners: Vec<String>,
    /// The missing rule, as `sgwall_rules::text` reads it; of an ACL without its number.
    pub rule: String,
}

/// The sizes of the paths of an interface, for one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathSizes {
    /// Whether it is IPv6.
    pub ipv6: bool,
    /// The interface's own MTU, bytes.
    pub own: u16,
    /// The smallest of its paths, bytes.
    pub smallest: u16,
    /// Where that path leads: `0.0.0.0/0 by internet-gateway`.
    pub to: String,
}

impl BlackHole {
    /// One sentence, without the final stop.
    #[must_use]
    pub fn sentence(&self) -> String {
        let who = match self.teller {
            Teller::Router(address) => format!("the router's own messages (from {address})"),
            Teller::FurtherOut => "messages of routers and hosts further out".to_owned(),
        };
        let by = match self.stage == Stage::NetworkAcl.as_str() {
            true => format!("the network ACL {}", self.owners.join(", ")),
            false => format!("the groups of {}", self.interface),
        };
        format!("{who} are refused by {by}; add `{}`{}", self.rule, self.place())
    }

    /// ` to sg-web`, ` to one of sg-a, sg-b`, or nothing where no owner is known.
    fn place(&self) -> String {
        match &self.owners[..] {
            [] => String::new(),
            [one] => format!(" to {one}"),
            many => format!(" to one of {}", many.join(", ")),
        }
    }
}

/// The sizes of an interface's paths, by family, where they differ: where all have the interface's
/// own MTU, nothing it sends can be too large.
#[must_use]
pub fn path_sizes(policy: &CompiledPolicy, interface: &CompiledInterface) -> Vec<PathSizes> {
    let families = [false, true].into_iter();
    families.filter_map(|ipv6| smallest_path(policy, interface, ipv6)).collect()
}

/// What keeps path-MTU discovery from working on an interface; empty where it works, and where it
/// is not needed because no path is smaller than the interface's own MTU.
#[must_use]
pub fn black_holes(policy: &CompiledPolicy, interface: &CompiledInterface) -> Vec<BlackHole> {
    let mut holes = Vec::new();
    for PathSizes { ipv6, .. } in path_sizes(policy, interface) {
        if let Some(router) = interface.router(ipv6) {
            holes.extend(router_hole(policy, interface, router));
        }
        let leaves = |target| !matches!(target, RouteTarget::Local | RouteTarget::Blackhole);
        let mut routes = routes(interface, ipv6);
        if !routes.any(|route| leaves(route.target)) {
            continue;
        }
        // What is said of everywhere is said of an address that no rule names apart.
        let anyone: IpAddr = match ipv6 {
            false => Ipv4Addr::new(240, 0, 0, 1).into(),
            true => Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 1).into(),
        };
        let (proto, selector) = message(ipv6);
        let rules = interface.groups(Direction::Ingress, &anyone);
        if !rules.lookup(&anyone, proto, selector).is_some_and(|found| found.any_peer) {
            let rule = rule(None, ipv6);
            let owners = interface.group_ids_with(&anyone).to_vec();
            holes.push(hole(
                interface,
                ipv6,
                Teller::FurtherOut,
                Stage::SecurityGroup,
                owners,
                rule,
            ));
        }
        let acl = interface.acl(Direction::Ingress);
        let found = acl.map(|acl| acl.lookup(&anyone, proto, selector).map(|found| found.action));
        if found.is_some_and(|action| action != Some(AclAction::Allow)) {
            let rule = rule(None, ipv6).replacen("ingress", "ingress N allow", 1);
            let owners = interface.acl_id().map(str::to_owned).into_iter().collect();
            holes.push(hole(interface, ipv6, Teller::FurtherOut, Stage::NetworkAcl, owners, rule));
        }
    }
    holes
}

/// The hole that an interface has for messages of its router at `router`, if it has: whatever the
/// sizes of its paths. Messages of a router are refused by groups alone: it is inside the subnet.
#[must_use]
pub fn router_hole(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    router: IpAddr,
) -> Option<BlackHole> {
    let is_exempt =
        policy.compat() == Compat::Current && policy.exempt().contains(ExemptTraffic::Router);
    let (proto, selector) = message(router.is_ipv6());
    let rules = interface.groups(Direction::Ingress, &router);
    if is_exempt || rules.lookup(&router, proto, selector).is_some() {
        return None;
    }
    let rule = rule(Some(router), router.is_ipv6());
    let owners = interface.group_ids_with(&router).to_vec();
    Some(hole(
        interface,
        router.is_ipv6(),
        Teller::Router(router),
        Stage::SecurityGroup,
        owners,
        rule,
    ))
}

fn hole(
    interface: &CompiledInterface,
    ipv6: bool,
    teller: Teller,
    stage: Stage,
    owners: Vec<String>,
    rule: String,
) -> BlackHole {
    let interface = interface.id.clone();
    BlackHole { interface, ipv6, teller, stage: stage.as_str().to_owned(), owners, rule }
}

/// Protocol and selector of the message that says how large a packet may be.
const fn message(ipv6: bool) -> (u8, u16) {
    match ipv6 {
        false => (protocol::ICMP, 3 << 8 | 4),
        true => (protocol::ICMPV6, 2 << 8),
    }
}

/// The rule that lets the message in, from one address or from everywhere.
fn rule(from: Option<IpAddr>, ipv6: bool) -> String {
    let message = if ipv6 { "icmpv6 2/0" } else { "icmp 3/4" };
    match from {
        Some(address) => format!("ingress {message} from {}", IpNet::from(address)),
        None => format!("ingress {message} from {}", if ipv6 { "::/0" } else { "0.0.0.0/0" }),
    }
}

fn routes(
    interface: &CompiledInterface,
    ipv6: bool,
) -> impl Iterator<Item = &sgwall_rules::compile::CompiledRoute> {
    interface.routes().filter(move |route| route.destination.addr().is_ipv6() == ipv6)
}

/// The smallest path of a family that the interface has an address of, if it is smaller than the
/// interface's own MTU. Interfaces of the policy that it reaches count as paths.
fn smallest_path(
    policy: &CompiledPolicy,
    interface: &CompiledInterface,
    ipv6: bool,
) -> Option<PathSizes> {
    let own = interface.mtu;
    if !interface.addresses.iter().any(|address| address.is_ipv6() == ipv6) {
        return None;
    }
    let by_route = routes(interface, ipv6)
        .filter(|route| route.target != RouteTarget::Blackhole)
        .map(|route| {
            let text = format!("{} by {}", route.destination, route.target.as_str());
            (route_mtu(policy.compat(), route), text)
        });
    let same_vpc = |other: &&CompiledInterface| {
        other.id != interface.id && other.vpc().is_some() && other.vpc() == interface.vpc()
    };
    let by_far_end = policy.interfaces().iter().filter(same_vpc).filter_map(|other| {
        let address = other.addresses.iter().find(|address| address.is_ipv6() == ipv6)?;
        Some((other.mtu, format!("{address}, {}", other.id)))
    });
    let (smallest, to) = by_route.chain(by_far_end).min_by_key(|(mtu, _)| *mtu)?;
    (smallest < own).then_some(PathSizes { ipv6, own, smallest, to })
}
