//! What bears a verdict out: rules, read from the model one by one, and flows, datagrams and
//! untracked pairs of rules that were told of before.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_dataplane::{DropReason, Emitted, Event, Judgement, Outcome, PassReason, Verdict};
use sgwall_packet::{Direction, FlowKey, Headers, Transport, quoted_of_receiver};
use sgwall_rules::compile::CompiledPolicy;
use sgwall_rules::model::{AclAction, ExemptTraffic, Interface, Peer, Policy};
use sgwall_rules::oracle::{self, Packet};

/// What was told of so far.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Interface and key of every flow that was opened.
    flows: HashSet<(String, FlowKey)>,
    /// Interface, direction, ends and identification of every datagram whose first fragment passed.
    datagrams: HashSet<(String, Direction, IpAddr, IpAddr, u32)>,
}

/// One packet on one side of one interface of the model.
struct Seen<'a> {
    policy: &'a Policy,
    interface: &'a Interface,
    direction: Direction,
    headers: &'a Headers,
}

impl Witness {
    /// Takes note of a verdict, and says what it is borne out by.
    pub(super) fn hear(&mut self, event: &Event<'_>, policy: &Policy, compiled: &CompiledPolicy) {
        let Judgement::Verdict(verdict) = event.judgement else { return };
        assert_ne!(verdict.outcome, Outcome::Hold, "held frames have no event");
        let (Some(headers), Some((index, direction))) = (event.headers, event.side) else { return };
        if event.emitted == Some(Emitted::Fragment) {
            return;
        }
        let interface = &policy.interfaces[index];
        assert_eq!(interface.id, compiled.interfaces()[index].id);
        let seen = Seen { policy, interface, direction, headers };
        match verdict.outcome {
            Outcome::Pass(reason) => self.check_pass(&seen, reason, &verdict, event.frame.data),
            Outcome::Drop(reason) => seen.check_drop(reason),
            Outcome::Hold => {}
        }
        let id = headers.fragment.filter(|fragment| fragment.offset == 0).map(|f| f.id);
        if let Some(id) = id.filter(|_| verdict.is_pass()) {
            let name = (interface.id.clone(), direction, headers.src, headers.dst, id);
            self.datagrams.insert(name);
        }
    }

    fn check_pass(&mut self, seen: &Seen<'_>, reason: PassReason, verdict: &Verdict, data: &[u8]) {
        let id = || seen.interface.id.clone();
        let flow = FlowKey::of(seen.headers).map(|(key, _)| (id(), key));
        let exempt = |traffic| seen.policy.exempt.contains(traffic);
        let is_exempt = match reason {
            PassReason::Arp => panic!("an IP packet is no ARP"),
            PassReason::NeighbourDiscovery => exempt(ExemptTraffic::NeighbourDiscovery),
            PassReason::Dhcp => exempt(ExemptTraffic::Dhcp),
            PassReason::VpcService => {
                use ExemptTraffic::{Dns, Licences, Metadata, TaskMetadata, Time};
                [Dns, Licences, Metadata, TaskMetadata, Time].into_iter().any(exempt)
            }
            PassReason::Router => exempt(ExemptTraffic::Router),
            PassReason::FollowsFirst => {
                let Headers { src, dst, fragment, .. } = *seen.headers;
                let fragment = fragment.expect("only fragments follow");
                let name = (id(), seen.direction, src, dst, fragment.id);
                assert!(self.datagrams.contains(&name), "no first fragment of {name:?} passed");
                assert!(verdict.first.is_some_and(|f| matches!(f.outcome, Outcome::Pass(_))));
                return;
            }
            PassReason::Established | PassReason::Reply => {
                let flow = flow.expect("a tracked packet has a flow");
                assert!(self.flows.contains(&flow), "{flow:?} was never opened");
                false
            }
            PassReason::Related => {
                assert!(seen.policy.icmp_related);
                let inner = quoted_of_receiver(seen.headers, data).expect("it quotes a packet");
                let (key, _) = FlowKey::of(&inner).expect("it quotes a packet of a flow");
                assert!(self.flows.contains(&(id(), key)), "{key:?} was never opened");
                false
            }
            PassReason::AllowedTracked => {
                assert!(seen.rule().is_some(), "no rule allows it");
                assert!(!seen.is_untracked(), "it is untracked");
                if let Transport::Tcp(tcp) = seen.headers.transport {
                    assert!(tcp.flags.is_opening(), "{:?} opens a flow", tcp.flags);
                }
                self.flows.insert(flow.expect("what opens a flow has one"));
                false
            }
            PassReason::AllowedUntracked => {
                assert!(seen.rule().is_some(), "no rule allows it");
                assert!(seen.is_untracked(), "no pair of rules leaves it untracked");
                false
            }
            PassReason::AllowedStateless => {
                assert!(seen.rule().is_some(), "no rule allows it");
                false
            }
        };
        if !is_exempt {
            assert!(reason.stage() != sgwall_dataplane::Stage::Exempt, "{reason:?} is not exempt");
            let entry = seen.entry();
            let is_allowed = entry.is_none_or(|entry| entry == Some(AclAction::Allow));
            assert!(is_allowed || seen.may_stay_inside(), "{entry:?}");
        }
    }
}

impl Seen<'_> {
    fn remote(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.headers.src,
            Direction::Egress => self.headers.dst,
        }
    }

    fn packet(&self, direction: Direction, selector: u16) -> Packet {
        Packet { direction, remote: self.remote(), protocol: self.headers.protocol, selector }
    }

    /// The rule that admits it: its peer, and whether that is everybody.
    fn rule(&self) -> Option<(Peer, bool)> {
        let packet = self.packet(self.direction, self.headers.selector());
        let (_, rule, any) =
            oracle::admitting_rule(self.policy, &self.interface.security_groups, packet)?;
        Some((rule.peer.clone(), any))
    }

    /// SEMANTICS 6.2, from the packet and, but for an opening SYN, from the packet turned round.
    fn is_untracked(&self) -> bool {
        let is_syn = match self.headers.transport {
            Transport::Tcp(tcp) => tcp.flags.is_opening(),
            Transport::Udp { .. } => false,
            _ => return false,
        };
        let groups = &self.interface.security_groups;
        let (is_v6, protocol) = (self.headers.is_ipv6(), self.headers.protocol);
        let is_open =
            |direction| oracle::all_ports_any(self.policy, groups, direction, is_v6, protocol);
        let back = self.direction.reverse();
        let turned = self.packet(back, self.headers.src_port());
        let answers_any =
            || oracle::admitting_rule(self.policy, groups, turned).is_some_and(|(_, _, any)| any);
        let forward = self.rule().is_some_and(|(_, any)| any) && is_open(back);
        forward || (!is_syn && is_open(self.direction) && answers_any())
    }

    /// What the subnet's ACL says of it: `None` if there is none, of an ACL `None` if no entry
    /// matches.
    fn entry(&self) -> Option<Option<AclAction>> {
        let subnet = self.policy.subnets.iter().find(|s| s.id == self.interface.subnet)?;
        let id = subnet.network_acl.as_ref()?;
        let acl = self.policy.network_acls.iter().find(|acl| acl.id == *id)?;
        let packet = self.packet(self.direction, self.headers.selector());
        Some(oracle::deciding_entry(acl, packet).map(|entry| entry.action))
    }

    /// Whether the packet's hop may lie inside the subnet: it does if the other end does, and may if
    /// a MAC address says where it comes from.
    fn may_stay_inside(&self) -> bool {
        let subnet = self.policy.subnets.iter().find(|s| s.id == self.interface.subnet);
        let is_inside = |cidr: &IpNet| cidr.contains(&self.remote());
        subnet.is_some_and(|subnet| subnet.cidrs.iter().any(is_inside))
            || self.policy.interfaces.iter().any(|interface| interface.mac.is_some())
    }

    fn check_drop(&self, reason: DropReason) {
        match reason {
            // Through a middlebox a reference to a group does not hold.
            DropReason::NoRule => {
                let rule = self.rule();
                let is_reference = matches!(rule, Some((Peer::Group(_), _)));
                assert!(rule.is_none() || is_reference, "{rule:?} allows it");
            }
            DropReason::AclDeny => assert_eq!(self.entry(), Some(Some(AclAction::Deny))),
            DropReason::AclNoMatch => assert_eq!(self.entry(), Some(None)),
            DropReason::SrcDstCheck => assert!(self.interface.source_dest_check),
            DropReason::TcpOutOfWindow => assert!(self.policy.tcp_window_check),
            DropReason::MtuExceeded => {
                assert!(self.headers.dont_fragment && self.headers.ip_len > 576);
            }
            _ => {}
        }
    }
}
