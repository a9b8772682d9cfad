//! One finished record: plain values, written as text by [`super::format`].

use std::net::{IpAddr, Ipv4Addr};

use sgwall_packet::{Direction, FiveTuple, Headers, TcpFlags, Transport};
use sgwall_rules::compile::CompiledInterface;
use sgwall_rules::model::RouteTarget;

use crate::counters::Tally;
use crate::judge::{Event, Judgement};
use crate::verdict::{DropReason, Outcome, PassReason, Stage, Verdict};

/// A record of one interface and window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLogRecord<'a> {
    /// The interface.
    pub interface: &'a LoggedInterface,
    /// When the first packet came, or the window's first second: whole seconds since the epoch.
    pub start: i64,
    /// When the last packet came, or the window's last second: whole seconds since the epoch.
    pub end: i64,
    /// What it tells.
    pub content: Content<'a>,
}

/// What a record tells (SEMANTICS 15.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Traffic.
    Flow(&'a LoggedFlow),
    /// There was none in the window.
    NoData,
    /// There was more than was recorded; this much is missing.
    SkipData(Tally),
}

impl FlowLogRecord<'_> {
    /// `OK`, `NODATA` or `SKIPDATA`.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match self.content {
            Content::Flow(_) => "OK",
            Content::NoData => "NODATA",
            Content::SkipData(_) => "SKIPDATA",
        }
    }
}

/// An interface, as its records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedInterface {
    /// `eni-…`.
    pub id: String,
    /// The account that owns its groups, if a group tells.
    pub account: Option<String>,
    /// Its VPC, if known.
    pub vpc: Option<String>,
    /// Its subnet, if known.
    pub subnet: Option<String>,
    /// Its primary private IPv4 address; `None` if it has IPv6 only.
    pub primary: Option<Ipv4Addr>,
}

impl From<&CompiledInterface> for LoggedInterface {
    fn from(interface: &CompiledInterface) -> Self {
        LoggedInterface {
            id: interface.id.clone(),
            account: interface.account().map(str::to_owned),
            vpc: interface.vpc().map(str::to_owned),
            subnet: interface.subnet().map(str::to_owned),
            primary: interface.addresses.iter().find_map(|address| match address {
                IpAddr::V4(v4) => Some(*v4),
                IpAddr::V6(_) => None,
            }),
        }
    }
}

/// What became of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// They passed.
    Accept,
    /// A group, an ACL, tracking or virtual reassembly refused them.
    Reject,
}

impl Action {
    /// `ACCEPT` or `REJECT`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Accept => "ACCEPT",
            Action::Reject => "REJECT",
        }
    }

    /// The action to log a verdict as; `None` where it is not logged: what neither a group nor an
    /// ACL was asked about, and what did not fit its path (SEMANTICS 2.9, 12.10, 13.2, 15.7).
    pub(super) const fn of(verdict: &Verdict) -> Option<Action> {
        match (verdict.outcome, verdict.first) {
            // A later fragment is logged if its first is.
            (
                Outcome::Drop(DropReason::FragmentFollowsFirst)
                | Outcome::Pass(PassReason::FollowsFirst),
                Some(first),
            ) => Action::of(&Verdict::of(first.outcome)),
            (Outcome::Hold, _) => None,
            _ => match verdict.stage() {
                Stage::Parse | Stage::Interface | Stage::Exempt | Stage::PathMtu => None,
                Stage::Fragment | Stage::NetworkAcl | Stage::Conntrack | Stage::SecurityGroup => {
                    Some(if verdict.is_pass() { Action::Accept } else { Action::Reject })
                }
            },
        }
    }
}

/// Traffic of one flow in one direction, with one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedFlow {
    /// The five-tuple as the packets had it.
    pub flow: FiveTuple,
    /// Which way they went.
    pub direction: Direction,
    /// What became of them.
    pub action: Action,
    /// How many there were.
    pub sum: Tally,
    /// FIN 1, SYN 2, RST 4, and 16 with a SYN that acknowledges; or-ed (SEMANTICS 15.4). 0 for
    /// other protocols than TCP.
    pub tcp_flags: u8,
    /// The way that egress took (SEMANTICS 15.5), 1-8; only if the format asks for it.
    pub traffic_path: Option<u8>,
    /// The verdict on the first packet.
    pub verdict: Verdict,
    /// The rule that decided the first packet, or admitted its tracked flow; only if the format
    /// asks for it.
    pub rule: Option<Box<str>>,
}

/// The part of an event that every packet of a flow log adds to its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoggedPacket {
    /// Index of the interface in the policy.
    pub(super) interface: usize,
    pub(super) direction: Direction,
    pub(super) action: Action,
    pub(super) flow: FiveTuple,
    pub(super) tcp_flags: u8,
    /// Bytes of the IP packet.
    pub(super) bytes: u32,
    pub(super) verdict: Verdict,
}

impl LoggedPacket {
    /// What an event adds; `None` if it is not logged. What the router makes is not: the packet
    /// that it cut is logged whole, and its answers come from its address, which never is.
    #[inline]
    pub(super) fn of(event: &Event<'_>) -> Option<Self> {
        let Judgement::Verdict(verdict) = event.judgement else { return None };
        let (headers, (interface, direction)) = (event.headers?, event.side?);
        if event.emitted.is_some() {
            return None;
        }
        let action = Action::of(&verdict)?;
        let mut flow = FiveTuple::from(headers);
        if let Some(first) = verdict.first {
            let (protocol, src_port, dst_port) = (first.protocol, first.src_port, first.dst_port);
            flow = FiveTuple { protocol, src_port, dst_port, ..flow };
        }
        let (tcp_flags, bytes) = (tcp_flags(headers), headers.ip_len);
        Some(LoggedPacket { interface, direction, action, flow, tcp_flags, bytes, verdict })
    }
}

/// The flags that are logged: an ACK counts only with a SYN (SEMANTICS 15.4).
fn tcp_flags(headers: &Headers) -> u8 {
    let Transport::Tcp(tcp) = headers.transport else { return 0 };
    let logged = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST;
    let syn_ack = TcpFlags::SYN | TcpFlags::ACK;
    let with_ack = if tcp.flags.contains(syn_ack) { TcpFlags::ACK.0 } else { 0 };
    tcp.flags.0 & logged.0 | with_ack
}

/// AWS's number for the way through a next hop (SEMANTICS 15.5); `None` where it has none.
///
/// Gateways have two numbers each, one for traffic of Nitro instances alone; ours is that one,
/// because it says which gateway it was. What puts a network interface of its own into the VPC
/// counts as a resource there.
pub(super) const fn traffic_path(target: RouteTarget) -> Option<u8> {
    match target {
        RouteTarget::Local
        | RouteTarget::NatGateway
        | RouteTarget::TransitGateway
        | RouteTarget::InspectionEndpoint
        | RouteTarget::Appliance => Some(1),
        RouteTarget::VpnGateway => Some(3),
        RouteTarget::Peering => Some(4),
        RouteTarget::InterRegionPeering => Some(5),
        RouteTarget::OtherGateway => Some(6),
        RouteTarget::GatewayEndpoint => Some(7),
        RouteTarget::InternetGateway | RouteTarget::EgressOnlyInternetGateway => Some(8),
        RouteTarget::Blackhole => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::FirstFragment;

    #[test]
    fn what_is_logged_is_decided_by_the_stage() {
        let dropped = |reason| Action::of(&Verdict::drop(reason));
        let passed = |reason| Action::of(&Verdict::pass(reason));
        assert_eq!(dropped(DropReason::NoRule), Some(Action::Reject));
        assert_eq!(dropped(DropReason::AclNoMatch), Some(Action::Reject));
        assert_eq!(dropped(DropReason::FragmentOrphan), Some(Action::Reject));
        assert_eq!(passed(PassReason::Established), Some(Action::Accept));
        for reason in [DropReason::Malformed, DropReason::NotIp, DropReason::Unsupported] {
            assert_eq!(dropped(reason), None);
        }
        for reason in [DropReason::SrcDstCheck, DropReason::MtuExceeded] {
            assert_eq!(dropped(reason), None);
        }
        for reason in [PassReason::Arp, PassReason::Dhcp, PassReason::VpcService] {
            assert_eq!(passed(reason), None);
        }
    }

    #[test]
    fn a_later_fragment_is_logged_if_its_first_is() {
        let after = |reason| {
            let outcome = Outcome::Drop(reason);
            let first = FirstFragment { outcome, protocol: 17, src_port: 1, dst_port: 2 };
            let follows = Verdict::drop(DropReason::FragmentFollowsFirst);
            Action::of(&Verdict { first: Some(first), ..follows })
        };
        assert_eq!(after(DropReason::AclDeny), Some(Action::Reject));
        assert_eq!(after(DropReason::MtuExceeded), None);
        assert_eq!(after(DropReason::SrcDstCheck), None);
        let after = |reason| {
            let outcome = Outcome::Pass(reason);
            let first = FirstFragment { outcome, protocol: 17, src_port: 53, dst_port: 2 };
            let follows = Verdict::pass(PassReason::FollowsFirst);
            Action::of(&Verdict { first: Some(first), ..follows })
        };
        assert_eq!(after(PassReason::Established), Some(Action::Accept));
        assert_eq!(after(PassReason::VpcService), None);
    }
}
