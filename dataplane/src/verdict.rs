//! What becomes of a packet, and why. One type serves the live path, replay, explain and tests.
//!
//! The reasons are closed enums: if a verdict cannot say why, it is a bug. Each reason belongs to
//! exactly one stage and has a stable kebab-case word, which is what `--json` prints.

use std::fmt;
use std::num::NonZeroU16;

use sgwall_rules::compile::RuleId;

/// The stage that decided, in the order of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Reading the headers.
    Parse,
    /// Which interface, which direction, source/destination check.
    Interface,
    /// Traffic that is never filtered.
    Exempt,
    /// Virtual reassembly.
    Fragment,
    /// The subnet's network ACL.
    NetworkAcl,
    /// Connection tracking.
    Conntrack,
    /// The interface's security groups.
    SecurityGroup,
    /// Path MTU.
    PathMtu,
}

impl Stage {
    /// The stage's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Parse => "parse",
            Stage::Interface => "interface",
            Stage::Exempt => "exempt",
            Stage::Fragment => "fragment",
            Stage::NetworkAcl => "network-acl",
            Stage::Conntrack => "conntrack",
            Stage::SecurityGroup => "security-group",
            Stage::PathMtu => "path-mtu",
        }
    }
}

/// A packet's relation to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// It opens a tracked flow.
    New,
    /// It belongs to a tracked flow, in its original direction.
    Established,
    /// It belongs to a tracked flow, in its reply direction.
    Reply,
    /// It is an ICMP error about a packet of a tracked flow (only with `icmp_related`).
    Related,
    /// Its flow is untracked: every packet is judged by the rules alone (SEMANTICS 6.7).
    Untracked,
}

impl FlowState {
    /// The state's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowState::New => "new",
            FlowState::Established => "established",
            FlowState::Reply => "reply",
            FlowState::Related => "related",
            FlowState::Untracked => "untracked",
        }
    }
}

/// Declares an enum of reasons: each with its word, its stage and its sentence for people.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident: $word:literal, $stage:ident, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $text] $(#[$doc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of the discriminants.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The stable kebab-case word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            /// The stage that decides so.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $($name::$variant => Stage::$stage,)+ }
            }

            /// A sentence for people, without the final stop.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Why a packet passed.
    PassReason {
        Arp: "arp", Exempt, "ARP is served by the VPC itself and never filtered";
        NeighbourDiscovery: "neighbour-discovery", Exempt,
            "IPv6 neighbour discovery is served by the VPC itself and never filtered";
        Dhcp: "dhcp", Exempt, "DHCP with the VPC's own server is never filtered";
        VpcService: "vpc-service", Exempt,
            "an address of the VPC's own services (DNS, metadata, time, licences), never filtered";
        Router: "vpc-router", Exempt, "the VPC router's address, never filtered (compat current)";
        FollowsFirst: "follows-first-fragment", Fragment,
            "a later fragment of a datagram whose first fragment passed";
        Established: "established", Conntrack,
            "belongs to a tracked flow, whatever the rules say now";
        Reply: "reply", Conntrack, "answers a tracked flow, whatever the rules say now";
        Related: "related", Conntrack, "an ICMP error about a packet of a tracked flow";
        AllowedTracked: "allowed-tracked", SecurityGroup, "a rule allows it and its flow is tracked from here on";
        AllowedUntracked: "allowed-untracked", SecurityGroup,
            "a rule allows it from everywhere and the way back is open to everywhere: not tracked";
        AllowedStateless: "allowed-stateless", SecurityGroup,
            "a rule allows it, but it opens no flow and belongs to none";
    }
}

reasons! {
    /// Why a packet was dropped.
    DropReason {
        Malformed: "malformed", Parse, "its headers contradict themselves or end too early";
        NotIp: "not-ip", Parse, "neither IPv4, IPv6 nor ARP";
        Unsupported: "l2l3-unsupported", Interface,
            "broadcast or multicast, which a VPC does not carry";
        VlanTag: "vlan-tag", Interface, "it has a VLAN tag that the port does not carry";
        MacCheck: "mac-check", Interface, "its MAC address is not the interface's own";
        ArpInvalid: "arp-invalid", Interface,
            "an ARP packet that makes no sense, or claims an address that is not its sender's";
        NeighbourInvalid: "neighbour-invalid", Interface,
            "a neighbour discovery message that makes no sense, or claims what is not its sender's";
        NotServed: "not-served", Interface,
            "its destination is no interface behind this firewall";
        SrcDstCheck: "src-dst-check", Interface,
            "the source/destination check is on and the address is not the interface's own";
        FragmentFollowsFirst: "follows-first-fragment", Fragment,
            "a later fragment of a datagram whose first fragment was dropped";
        FragmentOrphan: "frag-orphan", Fragment,
            "a later fragment whose first fragment did not come within 2 seconds";
        FragmentOverlap: "frag-overlap", Fragment,
            "fragments of one datagram overlap (RFC 5722, RFC 3128)";
        FragmentTiny: "frag-tiny", Fragment,
            "fragments that split the transport header between them (RFC 1858)";
        FragmentLimit: "frag-limit", Fragment,
            "too many fragmented datagrams, or too many fragments of this one, at once";
        AclDeny: "acl-deny", NetworkAcl, "an entry of the subnet's network ACL denies it";
        AclNoMatch: "acl-no-match", NetworkAcl,
            "no entry of the subnet's network ACL matches: the final deny";
        ConntrackFull: "conntrack-full", Conntrack,
            "it would open a tracked flow, and there is no place for one";
        TcpOutOfWindow: "tcp-out-of-window", Conntrack,
            "a TCP segment outside its receiver's window, or a reset that does not fit (tcp_window_check)";
        NoRule: "no-rule", SecurityGroup, "no rule of the interface's groups allows it";
        MtuExceeded: "mtu-exceeded", PathMtu,
            "larger than the path's MTU, and it may not be fragmented";
    }
}

reasons! {
    /// Why a packet of a capture was not judged.
    SkipReason {
        Truncated: "truncated", Parse, "the capture's snap length cut its headers off";
        UnknownLinkType: "unknown-link-type", Parse, "the capture's link type is not one sgwall reads";
        NotOurs: "not-ours", Interface, "neither its source nor its destination is an interface of the policy";
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It goes on.
    Pass(PassReason),
    /// It goes no further.
    Drop(DropReason),
    /// A later fragment that came before its first: the verdict follows as a
    /// [`crate::Released`] event, at the latest 2 seconds on.
    Hold,
}

/// An outcome with what led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What becomes of the packet, and why.
    pub outcome: Outcome,
    /// The rule or ACL entry that decided, if one did.
    pub rule: Option<RuleId>,
    /// The packet's relation to a flow, if it has one.
    pub state: Option<FlowState>,
    /// For a packet of a tracked flow: the rule that admitted the flow, perhaps of an earlier
    /// policy. [`crate::Pipeline::admitting_rule`] names it.
    pub admitted_by: Option<sgwall_conntrack::RuleTag>,
    /// The path MTU in bytes, where the packet is larger: one that passes goes on in fragments,
    /// one that is dropped for it is answered.
    pub mtu: Option<NonZeroU16>,
    /// For a later fragment that follows its datagram's first: what that one told.
    pub first: Option<FirstFragment>,
}

const _: () = assert!(size_of::<Verdict>() <= 32);

/// What later fragments of a datagram do not carry themselves, told by its first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FirstFragment {
    /// What became of the first fragment.
    pub outcome: Outcome,
    /// Upper-layer protocol number; IPv6's later fragments may show another header's.
    pub protocol: u8,
    /// Source port; 0 for protocols without.
    pub src_port: u16,
    /// Destination port; 0 for protocols without.
    pub dst_port: u16,
}

impl Verdict {
    /// A drop without rule or state.
    #[must_use]
    pub const fn drop(reason: DropReason) -> Self {
        Verdict::of(Outcome::Drop(reason))
    }

    /// A pass without rule or state.
    #[must_use]
    pub const fn pass(reason: PassReason) -> Self {
        Verdict::of(Outcome::Pass(reason))
    }

    /// An outcome without rule or state.
    pub(crate) const fn of(outcome: Outcome) -> Self {
        Verdict { outcome, rule: None, state: None, admitted_by: None, mtu: None, first: None }
    }

    /// This verdict, decided by `rule`.
    #[must_use]
    pub const fn by(mut self, rule: RuleId) -> Self {
        self.rule = Some(rule);
        self
    }

    /// This verdict on a packet of a flow in `state`.
    #[must_use]
    pub const fn of_flow(mut self, state: Option<FlowState>) -> Self {
        self.state = state;
        self
    }

    /// Whether the packet goes on.
    #[must_use]
    pub const fn is_pass(&self) -> bool {
        matches!(self.outcome, Outcome::Pass(_))
    }

    /// The stage that decided.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self.outcome {
            Outcome::Pass(reason) => reason.stage(),
            Outcome::Drop(reason) => reason.stage(),
            Outcome::Hold => Stage::Fragment,
        }
    }

    /// The reason's stable word.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self.outcome {
            Outcome::Pass(reason) => reason.as_str(),
            Outcome::Drop(reason) => reason.as_str(),
            Outcome::Hold => "held",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_distinct_and_kebab_case() {
        fn check(words: &[&str]) {
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len());
            for word in words {
                assert!(
                    word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                );
            }
        }
        check(&PassReason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
        check(&DropReason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
        check(&SkipReason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
    }

    #[test]
    fn all_is_in_discriminant_order() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
        for (i, reason) in PassReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
