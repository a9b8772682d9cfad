//! The whole way of a packet, written down a second time: straight from the specification and
//! `docs/semantics.md`, slow, with lists that are walked. Numbers are those of the specification.
//!
//! Of the code that it judges it shares the policy's model, the reading of headers and the words of
//! a verdict. Which rule of a group or an ACL matches, `sgwall_rules::oracle` says, which walks
//! them all. EC2-Classic and public addresses are left out.

mod flows;
mod fragments;
mod tcp;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sgwall_dataplane::{DropReason, FlowState, FullTable, Outcome, PacketContext, PassReason};
use sgwall_packet::{
    Direction, FiveTuple, Headers, Timestamp, Transport, protocol, query_request_type,
    quoted_of_receiver,
};
use sgwall_rules::model::{
    AclAction, Compat, ExemptTraffic, Interface, NetworkAcl, Peer, Policy, Route, RouteTarget,
    Subnet,
};
use sgwall_rules::oracle;

use self::flows::{Tracked, may_open, note, open, opening_tuple, timeout, turned};
use self::fragments::Fragments;

/// What is said of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) state: Option<FlowState>,
    /// Owner and name of the rule that decided.
    pub(crate) rule: Option<String>,
    /// The same of the rule that admitted the packet's flow.
    pub(crate) admitted_by: Option<String>,
    pub(crate) mtu: Option<u16>,
}

impl Answer {
    pub(crate) fn of(outcome: Outcome) -> Self {
        Answer { outcome, state: None, rule: None, admitted_by: None, mtu: None }
    }

    pub(crate) fn drop(reason: DropReason) -> Self {
        Answer::of(Outcome::Drop(reason))
    }

    fn pass(reason: PassReason) -> Self {
        Answer::of(Outcome::Pass(reason))
    }

    pub(crate) fn passes(&self) -> bool {
        matches!(self.outcome, Outcome::Pass(_))
    }
}

/// A tracked flow; its key is the five-tuple of the packet that opened it.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) tracked: Tracked,
    pub(crate) dies: Timestamp,
    pub(crate) rule: String,
    /// One more with each flow.
    opened: u64,
    /// A TCP flow's handshake was complete once; any other was seen in the reply direction.
    is_answered: bool,
}

/// An interface and the five-tuple of a flow's first packet.
pub(crate) type Key = (String, FiveTuple);

/// What an accepted packet does to the table.
enum Effect {
    None,
    Note(Key, bool),
    Open { rule: String, ended: Option<Key> },
    End(Key),
}

/// The slow pipeline.
pub(crate) struct Slow {
    policy: Policy,
    /// The same without rules that refer to groups (4.5).
    without_references: Policy,
    max_flows: usize,
    full_table: FullTable,
    pub(crate) flows: BTreeMap<Key, Flow>,
    opened: u64,
    /// Flows that gave their place to others.
    pub(crate) evicted: u64,
    pub(crate) fragments: Fragments,
}

impl Slow {
    pub(crate) fn new(policy: Policy, max_flows: usize, full_table: FullTable) -> Self {
        let without_references = without_references(&policy);
        let (flows, fragments) = (BTreeMap::new(), Fragments::default());
        let (opened, evicted) = (0, 0);
        Slow {
            policy,
            without_references,
            max_flows,
            full_table,
            flows,
            opened,
            evicted,
            fragments,
        }
    }

    /// 7.12: addresses that an interface has lost take their flows with them, an interface that is
    /// gone takes all of its own.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        let old = std::mem::replace(&mut self.policy, policy);
        self.without_references = without_references(&self.policy);
        self.fragments.forget_rules();
        let new = &self.policy;
        let keeps = |id: &str, address: &IpAddr| {
            let find = |policy: &Policy| policy.interfaces.iter().find(|i| i.id == id).cloned();
            match (find(&old), find(new)) {
                (_, None) => false,
                (Some(before), Some(after)) => {
                    after.addresses.contains(address) || !before.addresses.contains(address)
                }
                (None, Some(_)) => true,
            }
        };
        self.flows.retain(|(id, tuple), _| keeps(id, &tuple.src) && keeps(id, &tuple.dst));
    }

    /// Judges a packet.
    pub(crate) fn judge(&mut self, packet: &PacketContext<'_>) -> Answer {
        let interface = self.policy.interfaces[packet.interface].clone();
        let headers = packet.headers;
        if let Some(answer) = self.before_fragments(&interface, packet) {
            // Later fragments show no port, so they follow the first of an exempt datagram; what
            // waited to see whether it is DHCP follows a first that is not, too.
            // Those of the router need not: its address suffices.
            let is_router = answer.outcome == Outcome::Pass(PassReason::Router);
            if headers.fragment.is_some()
                && !is_router
                && (answer.passes() || self.may_be_dhcp_to_all(&interface, packet))
            {
                match self.fragments.first(&interface.id, packet) {
                    Err(reason) if answer.passes() => return Answer::drop(reason),
                    Err(_) => {}
                    Ok(()) => self.fragments.decide(&interface.id, packet, &answer),
                }
            }
            return answer;
        }
        if headers.fragment.is_none() {
            return self.judge_whole(&interface, packet);
        }
        if headers.transport == Transport::LaterFragment {
            return match self.too_big_or_mtu(&interface, packet) {
                Err(answer) => answer,
                Ok(mtu) => self.fragments.later(&interface.id, packet, mtu),
            };
        }
        if let Err(reason) = self.fragments.first(&interface.id, packet) {
            return Answer::drop(reason);
        }
        let answer = self.judge_whole(&interface, packet);
        self.fragments.decide(&interface.id, packet, &answer);
        answer
    }

    fn judge_whole(&mut self, interface: &Interface, packet: &PacketContext<'_>) -> Answer {
        let (answer, effect) = self.decide(interface, packet);
        let now = packet.now;
        match effect {
            Effect::None => {}
            Effect::End(key) => {
                self.flows.remove(&key);
            }
            Effect::Note(key, reply) => {
                if let Some(flow) = self.flows.get_mut(&key)
                    && note(&mut flow.tracked, packet.headers, reply)
                {
                    let state = flow.tracked.state();
                    flow.dies = now.after(timeout(&interface.timeouts, state));
                    flow.is_answered |= match flow.tracked {
                        // A reset before the handshake is complete is no answer.
                        Tracked::Tcp(_) => {
                            !matches!(state, "syn-sent" | "syn-sent-2" | "syn-recv" | "close")
                        }
                        _ => reply,
                    };
                }
            }
            Effect::Open { rule, ended } => {
                if let Some(ended) = ended {
                    self.flows.remove(&ended);
                }
                if !self.finds_place(&interface.id, now) {
                    let state = answer.state;
                    return Answer { state, ..Answer::drop(DropReason::ConntrackFull) };
                }
                let tuple = opening_tuple(packet.headers);
                self.flows.remove(&(interface.id.clone(), turned(tuple)));
                let tracked = open(packet.headers);
                let dies = now.after(timeout(&interface.timeouts, tracked.state()));
                self.opened += 1;
                let (opened, is_answered) = (self.opened, false);
                let flow = Flow { tracked, dies, rule, opened, is_answered };
                self.flows.insert((interface.id.clone(), tuple), flow);
            }
        }
        answer
    }

    /// 6.16, with the limits of interfaces: whether there is a place for a flow, or one is made by
    /// ending another.
    fn finds_place(&mut self, id: &str, now: Timestamp) -> bool {
        let holders = || self.flows.iter().filter(|(_, flow)| now < flow.dies);
        let count = |id: &str| holders().filter(|((of, _), _)| of == id).count();
        let limits = |id: &str| {
            let found = self.policy.interfaces.iter().find(|interface| interface.id == id);
            let limits = found.map(|interface| interface.flows).unwrap_or_default();
            let cap = limits.max_flows.map_or(usize::MAX, |cap| cap as usize);
            (cap, limits.reserved_flows.unwrap_or(0) as usize)
        };
        // What nobody else may have: an interface's flows, and what of its reserve stands empty.
        let kept = |id: &str| count(id).max(limits(id).1);
        let taken: usize = self.policy.interfaces.iter().map(|interface| kept(&interface.id)).sum();
        let (flows, (cap, reserve)) = (count(id), limits(id));
        let is_at_cap = flows >= cap;
        let is_table_full = holders().count() >= self.max_flows;
        let has_free = flows < reserve || taken < self.max_flows;
        if !is_at_cap && !is_table_full && has_free {
            return true;
        }
        // More may be reserved than is free, and fewer allowed than there are: then ending one makes
        // no place, but of the reserve.
        let makes_place = match is_at_cap {
            true => flows == cap && (taken <= self.max_flows || flows <= reserve),
            false => taken <= self.max_flows || flows < reserve,
        };
        if self.full_table == FullTable::DropNew || !makes_place {
            return false;
        }
        let may_give = |of: &str| of == id || (!is_at_cap && count(of) > limits(of).1);
        let asked = holders().filter(|((of, _), flow)| !flow.is_answered && may_give(of));
        let oldest = asked.min_by_key(|(_, flow)| flow.opened).map(|(key, _)| key.clone());
        let ended = oldest.and_then(|key| self.flows.remove(&key));
        self.evicted += u64::from(ended.is_some());
        ended.is_some()
    }

    /// 9.1, 9.2: on the way in the ACL and the address come first, on the way out the groups.
    fn decide(&self, interface: &Interface, packet: &PacketContext<'_>) -> (Answer, Effect) {
        let ingress = packet.direction == Direction::Ingress;
        if ingress {
            if let Some(refused) = self.network_acl(interface, packet) {
                return (refused, Effect::None);
            }
            if fails_address_check(interface, packet) {
                return (Answer::drop(DropReason::SrcDstCheck), Effect::None);
            }
        }
        let (answer, effect) = self.admit(interface, packet);
        if !answer.passes() {
            return (answer, effect);
        }
        if !ingress && let Some(refused) = self.network_acl(interface, packet) {
            return (Answer { state: answer.state, ..refused }, Effect::None);
        }
        match self.too_big_or_mtu(interface, packet) {
            Err(refused) => (Answer { state: answer.state, ..refused }, Effect::None),
            Ok(mtu) => (Answer { mtu, ..answer }, effect),
        }
    }

    fn admit(&self, interface: &Interface, packet: &PacketContext<'_>) -> (Answer, Effect) {
        let headers = packet.headers;
        let Some((key, reply)) = self.find(&interface.id, headers, packet.now) else {
            return match self.related(interface, packet) {
                Some(answer) => (answer, Effect::None),
                None => self.by_rules(interface, packet),
            };
        };
        let flow = &self.flows[&key];
        if let (Tracked::Tcp(connection), Transport::Tcp(tcp)) = (&flow.tracked, &headers.transport)
        {
            // 7.6: a new connection on the five-tuple of one that has ended.
            if tcp.flags.is_opening() && matches!(connection.state, "time-wait" | "close") {
                let (answer, effect) = self.by_rules(interface, packet);
                let effect = match effect {
                    Effect::Open { rule, .. } => Effect::Open { rule, ended: Some(key) },
                    _ => Effect::End(key),
                };
                return (answer, effect);
            }
            if self.policy.tcp_window_check && tcp::is_refused(connection, tcp, reply) {
                let answer = Answer {
                    state: Some(if reply { FlowState::Reply } else { FlowState::Established }),
                    admitted_by: Some(flow.rule.clone()),
                    ..Answer::drop(DropReason::TcpOutOfWindow)
                };
                return (answer, Effect::None);
            }
        }
        let (reason, state) = match reply {
            true => (PassReason::Reply, FlowState::Reply),
            false => (PassReason::Established, FlowState::Established),
        };
        let answer = Answer {
            state: Some(state),
            admitted_by: Some(flow.rule.clone()),
            ..Answer::pass(reason)
        };
        (answer, Effect::Note(key, reply))
    }

    /// The living flow of a packet, and whether it goes in the reply direction (7.2, 7.9).
    fn find(&self, id: &str, headers: &Headers, now: Timestamp) -> Option<(Key, bool)> {
        let tuple = opening_tuple(headers);
        let candidates = match headers.transport {
            Transport::LaterFragment => return None,
            Transport::Icmp(icmp) => {
                icmp.identifier?;
                let is_request = query_request_type(headers.protocol, icmp.kind)? == icmp.kind;
                vec![(tuple, !is_request)]
            }
            _ => vec![(tuple, false), (turned(tuple), true)],
        };
        let keys = candidates.into_iter().map(|(tuple, reply)| ((id.to_owned(), tuple), reply));
        let mut living =
            keys.filter(|(key, _)| self.flows.get(key).is_some_and(|flow| now < flow.dies));
        living.next()
    }

    /// 10.2, 10.3.
    fn related(&self, interface: &Interface, packet: &PacketContext<'_>) -> Option<Answer> {
        if !self.policy.icmp_related {
            return None;
        }
        let quoted = quoted_of_receiver(packet.headers, packet.frame)?;
        let (key, _) = self.find(&interface.id, &quoted, packet.now)?;
        Some(Answer {
            state: Some(FlowState::Related),
            admitted_by: Some(self.flows[&key].rule.clone()),
            ..Answer::pass(PassReason::Related)
        })
    }

    /// Sections 2 to 6.
    fn by_rules(&self, interface: &Interface, packet: &PacketContext<'_>) -> (Answer, Effect) {
        let headers = packet.headers;
        let policy = match self.is_direct(interface, packet) {
            true => &self.policy,
            false => &self.without_references,
        };
        let looked_at = oracle::Packet {
            direction: packet.direction,
            remote: remote(packet),
            protocol: headers.protocol,
            selector: headers.selector(),
        };
        let groups = &interface.security_groups;
        let Some((group, rule, any)) = oracle::admitting_rule(policy, groups, looked_at) else {
            return (Answer::drop(DropReason::NoRule), Effect::None);
        };
        let rule = format!("{}/{}", group.id, rule.id);
        let (reason, state, effect) = if self.is_untracked(interface, packet, any) {
            (PassReason::AllowedUntracked, Some(FlowState::Untracked), Effect::None)
        } else if may_open(headers) {
            let effect = Effect::Open { rule: rule.clone(), ended: None };
            (PassReason::AllowedTracked, Some(FlowState::New), effect)
        } else {
            (PassReason::AllowedStateless, None, Effect::None)
        };
        (Answer { rule: Some(rule), state, ..Answer::pass(reason) }, effect)
    }

    /// 6.2. A SYN tells who began; of every other packet both views count.
    fn is_untracked(&self, interface: &Interface, packet: &PacketContext<'_>, any: bool) -> bool {
        let headers = packet.headers;
        let is_syn = match headers.transport {
            Transport::Tcp(tcp) => tcp.flags.is_opening(),
            Transport::Udp { .. } => false,
            _ => return false,
        };
        let remote = remote(packet);
        if self.policy.compat == Compat::Current
            && self.route(interface, remote).is_some_and(|route| {
                use RouteTarget as T;
                matches!(
                    route.target,
                    T::EgressOnlyInternetGateway
                        | T::NatGateway
                        | T::TransitGateway
                        | T::InspectionEndpoint
                )
            })
        {
            return false;
        }
        let groups = &interface.security_groups;
        let (there, back) = (packet.direction, packet.direction.reverse());
        let (v6, proto) = (headers.is_ipv6(), headers.protocol);
        let all = |direction| oracle::all_ports_any(&self.policy, groups, direction, v6, proto);
        let turned_round = oracle::Packet {
            direction: back,
            remote,
            protocol: proto,
            selector: headers.src_port(),
        };
        let turned_any = || {
            oracle::admitting_rule(&self.policy, groups, turned_round)
                .is_some_and(|(_, _, any)| any)
        };
        (any && all(back)) || (!is_syn && all(there) && turned_any())
    }

    /// 2.9, 8.8, and on the way out 13.2.
    fn before_fragments(
        &self,
        interface: &Interface,
        packet: &PacketContext<'_>,
    ) -> Option<Answer> {
        if let Some(reason) = self.exempt(interface, packet) {
            // The VPC's services answer an interface at its own addresses alone.
            let needs_own = matches!(reason, PassReason::VpcService | PassReason::Router);
            if !needs_own || !fails_address_check(interface, packet) {
                return Some(Answer::pass(reason));
            }
        }
        let is_later = packet.headers.transport == Transport::LaterFragment;
        if is_later && self.may_be_dhcp_to_all(interface, packet) {
            return None;
        }
        if self.is_to_many(interface, packet.headers) {
            return Some(Answer::drop(DropReason::Unsupported));
        }
        let fails = packet.direction == Direction::Egress && fails_address_check(interface, packet);
        fails.then(|| Answer::drop(DropReason::SrcDstCheck))
    }

    fn exempt(&self, interface: &Interface, packet: &PacketContext<'_>) -> Option<PassReason> {
        let headers = packet.headers;
        let exempt = |traffic, reason| self.policy.exempt.contains(traffic).then_some(reason);
        if let Transport::Icmp(icmp) = headers.transport
            && (headers.is_ipv6() && headers.protocol == protocol::ICMPV6)
            && (133..=137).contains(&icmp.kind)
            && (icmp.code == 0 && headers.hop_limit == 255 && headers.fragment.is_none())
        {
            return exempt(ExemptTraffic::NeighbourDiscovery, PassReason::NeighbourDiscovery);
        }
        let (own_port, its_port) = match packet.direction {
            Direction::Ingress => (headers.dst_port(), headers.src_port()),
            Direction::Egress => (headers.src_port(), headers.dst_port()),
        };
        let remote = remote(packet);
        let dhcp_ports = if headers.is_ipv6() { (546, 547) } else { (68, 67) };
        if self.is_dhcp_peer(interface, packet) && (own_port, its_port) == dhcp_ports {
            return exempt(ExemptTraffic::Dhcp, PassReason::Dhcp);
        }
        let vpc_cidr = self.subnet(interface).and_then(|subnet| {
            let vpc = self.policy.vpcs.iter().find(|vpc| vpc.id == subnet.vpc)?;
            vpc.cidrs.iter().find(|cidr| cidr.addr().is_ipv4())
        });
        let resolver = vpc_cidr.map(|cidr| after_base(cidr, 2));
        let service = PassReason::VpcService;
        let (tcp, udp) = (headers.protocol == protocol::TCP, headers.protocol == protocol::UDP);
        let is = |text: &str| text.parse() == Ok(remote);
        if Some(remote) == resolver || is("169.254.169.253") || is("fd00:ec2::253") {
            return if (tcp || udp) && its_port == 53 {
                exempt(ExemptTraffic::Dns, service)
            } else {
                None
            };
        }
        if self.routers(interface).contains(&remote) {
            return if self.policy.compat == Compat::Current {
                exempt(ExemptTraffic::Router, PassReason::Router)
            } else {
                None
            };
        }
        if is("169.254.169.254") || is("fd00:ec2::254") {
            return if tcp && its_port == 80 {
                exempt(ExemptTraffic::Metadata, service)
            } else {
                None
            };
        }
        if is("169.254.170.2") && tcp && its_port == 80 {
            return exempt(ExemptTraffic::TaskMetadata, service);
        }
        if (is("169.254.169.123") || is("fd00:ec2::123")) && udp && its_port == 123 {
            return exempt(ExemptTraffic::Time, service);
        }
        if (is("169.254.169.250") || is("169.254.169.251")) && tcp && its_port == 1688 {
            return exempt(ExemptTraffic::Licences, service);
        }
        None
    }

    /// Whether DHCP may be spoken with the other end: the router, everyone, link-local neighbours.
    fn is_dhcp_peer(&self, interface: &Interface, packet: &PacketContext<'_>) -> bool {
        let remote = remote(packet);
        let everyone =
            [IpAddr::V4(Ipv4Addr::BROADCAST), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into()];
        packet.headers.protocol == protocol::UDP
            && (self.routers(interface).contains(&remote)
                || (packet.direction == Direction::Egress && everyone.contains(&remote))
                || matches!(remote, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80))
    }

    /// Whether only a first fragment can tell that it is no broadcast that a VPC does not carry.
    fn may_be_dhcp_to_all(&self, interface: &Interface, packet: &PacketContext<'_>) -> bool {
        packet.headers.fragment.is_some()
            && self.policy.exempt.contains(ExemptTraffic::Dhcp)
            && self.is_dhcp_peer(interface, packet)
            && self.is_to_many(interface, packet.headers)
    }

    fn is_to_many(&self, interface: &Interface, headers: &Headers) -> bool {
        let subnet = self.subnet(interface);
        let is_last = subnet.is_some_and(|subnet| {
            subnet.cidrs.iter().any(|cidr| cidr.addr().is_ipv4() && cidr.broadcast() == headers.dst)
        });
        is_last
            || headers.dst == IpAddr::V4(Ipv4Addr::BROADCAST)
            || headers.dst.is_multicast()
            || headers.src.is_multicast()
    }

    /// 8.1, 8.6, 8.7; the refusal, if it refuses.
    fn network_acl(&self, interface: &Interface, packet: &PacketContext<'_>) -> Option<Answer> {
        let acl = match self.subnet(interface).map(|subnet| subnet.network_acl.as_deref()) {
            Some(None) => return None,
            Some(Some(id)) => self.policy.network_acls.iter().find(|acl| acl.id == id),
            None => None,
        };
        if self.stays_inside(interface, packet) {
            return None;
        }
        let looked_at = oracle::Packet {
            direction: packet.direction,
            remote: remote(packet),
            protocol: packet.headers.protocol,
            selector: packet.headers.selector(),
        };
        let found =
            acl.and_then(|acl: &NetworkAcl| Some((acl, oracle::deciding_entry(acl, looked_at)?)));
        match found {
            None => Some(Answer::drop(DropReason::AclNoMatch)),
            Some((_, entry)) if entry.action == AclAction::Allow => None,
            Some((acl, entry)) => Some(Answer {
                rule: Some(format!("{}/{}", acl.id, entry.rule_number)),
                ..Answer::drop(DropReason::AclDeny)
            }),
        }
    }

    /// The interface at the other end of the hop; `Err`: the hop leads elsewhere; `Ok(None)`: only
    /// the address tells (4.5, 9.4).
    fn hop(
        &self,
        interface: &Interface,
        packet: &PacketContext<'_>,
    ) -> Result<Option<&Interface>, ()> {
        if packet.direction == Direction::Ingress {
            return Ok(packet.origin.map(|origin| &self.policy.interfaces[origin]));
        }
        match self.route(interface, packet.headers.dst) {
            Some(route) if route.target.is_detour() => {
                let id = route.interface.filter(|_| route.target == RouteTarget::Appliance);
                let known = self.policy.interfaces.iter().find(|i| Some(&i.id) == id.as_ref());
                known.map(Some).ok_or(())
            }
            _ => Ok(None),
        }
    }

    fn stays_inside(&self, interface: &Interface, packet: &PacketContext<'_>) -> bool {
        let remote = remote(packet);
        match self.hop(interface, packet) {
            Ok(Some(other)) => other.subnet == interface.subnet,
            Ok(None) => self
                .subnet(interface)
                .is_some_and(|subnet| subnet.cidrs.iter().any(|cidr| cidr.contains(&remote))),
            Err(()) => false,
        }
    }

    fn is_direct(&self, interface: &Interface, packet: &PacketContext<'_>) -> bool {
        match self.hop(interface, packet) {
            Ok(Some(other)) => other.addresses.contains(&remote(packet)),
            Ok(None) => true,
            Err(()) => false,
        }
    }

    /// Section 12: the path's MTU if the packet goes on in fragments, or its refusal.
    fn too_big_or_mtu(
        &self,
        interface: &Interface,
        packet: &PacketContext<'_>,
    ) -> Result<Option<u16>, Answer> {
        use RouteTarget as T;
        if packet.direction == Direction::Ingress {
            return Ok(None);
        }
        let dst = packet.headers.dst;
        let class = match self.route(interface, dst) {
            None => 1500,
            Some(Route { mtu: Some(mtu), .. }) => mtu as u16,
            Some(route) => match route.target {
                T::Local | T::Peering | T::Appliance => 9001,
                T::InterRegionPeering | T::TransitGateway
                    if self.policy.compat == Compat::Current =>
                {
                    8500
                }
                _ => 1500,
            },
        };
        let own = |interface: &Interface| interface.mtu.unwrap_or(9001);
        let ends = self.policy.interfaces.iter().filter(|i| i.addresses.contains(&dst)).map(own);
        let mtu = ends.chain([class, own(interface)]).min().unwrap_or(class);
        if packet.size <= mtu.into() {
            return Ok(None);
        }
        match packet.headers.dont_fragment {
            true => Err(Answer { mtu: Some(mtu), ..Answer::drop(DropReason::MtuExceeded) }),
            false => Ok(Some(mtu)),
        }
    }

    /// The longest prefix; of equal ones the subnet's own comes first.
    fn route(&self, interface: &Interface, dst: IpAddr) -> Option<Route> {
        let subnet = self.subnet(interface)?;
        let vpc = self.policy.vpcs.iter().find(|vpc| vpc.id == subnet.vpc);
        let made = |destination: IpNet, target| Route {
            destination,
            target,
            interface: None,
            mtu: None,
            origin: subnet.origin.clone(),
        };
        let mut routes = subnet.routes.clone();
        let local = vpc.map_or(&subnet.cidrs, |vpc| &vpc.cidrs);
        routes.extend(local.iter().map(|&cidr| made(cidr, RouteTarget::Local)));
        if subnet.routes.is_empty() {
            for peering in self.policy.peerings.iter().filter(|p| p.active) {
                let target = match peering.inter_region {
                    true => RouteTarget::InterRegionPeering,
                    false => RouteTarget::Peering,
                };
                let theirs = peering.cidrs.iter().filter(|(vpc, _)| *vpc != subnet.vpc);
                let concerns = peering.vpcs.contains(&subnet.vpc);
                routes.extend(theirs.filter(|_| concerns).map(|&(_, cidr)| made(cidr, target)));
            }
            for everywhere in ["0.0.0.0/0", "::/0"] {
                routes.push(made(everywhere.parse().unwrap(), RouteTarget::InternetGateway));
            }
        }
        routes.reverse();
        let leading = routes.into_iter().filter(|route| route.destination.contains(&dst));
        leading.max_by_key(|route| route.destination.prefix_len())
    }

    fn subnet(&self, interface: &Interface) -> Option<&Subnet> {
        self.policy.subnets.iter().find(|subnet| subnet.id == interface.subnet)
    }

    fn routers(&self, interface: &Interface) -> Vec<IpAddr> {
        let subnet = self.subnet(interface);
        subnet.map(|s| s.cidrs.iter().map(|c| after_base(c, 1)).collect()).unwrap_or_default()
    }
}

fn without_references(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    for group in &mut policy.security_groups {
        for rules in [&mut group.ingress, &mut group.egress] {
            rules.retain(|rule| !matches!(rule.peer, Peer::Group(_)));
        }
    }
    policy
}

fn remote(packet: &PacketContext<'_>) -> IpAddr {
    match packet.direction {
        Direction::Ingress => packet.headers.src,
        Direction::Egress => packet.headers.dst,
    }
}

/// 13.2.
fn fails_address_check(interface: &Interface, packet: &PacketContext<'_>) -> bool {
    let ours = match packet.direction {
        Direction::Ingress => packet.headers.dst,
        Direction::Egress => packet.headers.src,
    };
    interface.source_dest_check && !interface.addresses.contains(&ours)
}

fn after_base(cidr: &IpNet, n: u8) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + u32::from(n)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + u128::from(n)).into(),
    }
}
