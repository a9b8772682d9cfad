//! The stages of one side, in the packet's order, each with what it saw.
//!
//! Every stage asks the function that the pipeline asks. The pipeline's verdict is the frame: once
//! the stage that gave it has been told, the rest is not reached.

use sgwall_conntrack::{FlowView, Full, Hit, Lookup, may_open};
use sgwall_packet::{Direction, Transport, protocol};
use sgwall_rules::compile::{CompiledInterface, RuleInfo, Service};
use sgwall_rules::explain::{Considered, acl_entries, group_rules};
use sgwall_rules::model::{NetworkAcl, protocol_name};
use sgwall_rules::oracle::Packet;

use super::{Explainer, FlowFacts, PathFacts, StageFacts, StageOutcome, words};
use crate::exempt::exempt;
use crate::path_mtu::{Fit, Path, fit};
use crate::pipeline::{
    Effect, PacketContext, fails_address_check, follows_dhcp, is_direct, is_unsupported,
    network_acl, passes_exempt, remote, stays_inside,
};
use crate::verdict::{DropReason, Outcome, Stage, Verdict};

/// A step of the way. Those that are no [`Stage`] of their own have a name here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Exempt,
    AddressCheck,
    Fragment,
    NetworkAcl,
    Conntrack,
    SecurityGroup,
    Tracking,
    PathMtu,
    Commit,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Step::Exempt => Stage::Exempt.as_str(),
            Step::AddressCheck => "address-check",
            Step::Fragment => Stage::Fragment.as_str(),
            Step::NetworkAcl => Stage::NetworkAcl.as_str(),
            Step::Conntrack => Stage::Conntrack.as_str(),
            Step::SecurityGroup => Stage::SecurityGroup.as_str(),
            Step::Tracking => "tracking",
            Step::PathMtu => Stage::PathMtu.as_str(),
            Step::Commit => "commit",
        }
    }
}

/// SEMANTICS 9.1, 9.2; a later fragment must fit before it may follow its first.
fn order(packet: &PacketContext<'_>) -> [Step; 9] {
    use Step::{
        AddressCheck, Commit, Conntrack, Exempt, Fragment, NetworkAcl, PathMtu, SecurityGroup,
        Tracking,
    };
    let is_later = packet.headers.transport == Transport::LaterFragment;
    match (packet.direction, is_later) {
        (Direction::Ingress, false) => [
            Exempt,
            Fragment,
            NetworkAcl,
            AddressCheck,
            Conntrack,
            SecurityGroup,
            Tracking,
            PathMtu,
            Commit,
        ],
        (Direction::Egress, false) => [
            Exempt,
            AddressCheck,
            Fragment,
            Conntrack,
            SecurityGroup,
            Tracking,
            NetworkAcl,
            PathMtu,
            Commit,
        ],
        (Direction::Ingress, true) => [
            Exempt,
            PathMtu,
            Fragment,
            NetworkAcl,
            AddressCheck,
            Conntrack,
            SecurityGroup,
            Tracking,
            Commit,
        ],
        (Direction::Egress, true) => [
            Exempt,
            AddressCheck,
            PathMtu,
            Fragment,
            Conntrack,
            SecurityGroup,
            Tracking,
            NetworkAcl,
            Commit,
        ],
    }
}

/// A stage without details.
pub(super) fn facts(stage: &str, outcome: StageOutcome, text: impl Into<String>) -> StageFacts {
    StageFacts {
        stage: stage.to_owned(),
        outcome,
        text: text.into(),
        considered: Vec::new(),
        flow: None,
        conditions: Vec::new(),
        path: None,
    }
}

/// The stages of a side that the packet does not come to.
pub(super) fn none_reached(packet: &PacketContext<'_>) -> Vec<StageFacts> {
    let steps = order(packet).into_iter();
    steps.map(|step| facts(step.as_str(), StageOutcome::NotReached, "")).collect()
}

/// One side of one packet, being told.
pub(super) struct Way<'a> {
    pub(super) explainer: Explainer<'a>,
    pub(super) interface: &'a CompiledInterface,
    pub(super) packet: &'a PacketContext<'a>,
    verdict: Verdict,
    effect: Effect,
    lookup: Lookup,
    /// Whether it is an ICMP error that is admitted for the packet it quotes.
    is_related: bool,
}

impl<'a> Explainer<'a> {
    /// Every stage, in order.
    pub(super) fn stages(
        &self,
        packet: &'a PacketContext<'a>,
        verdict: Verdict,
        effect: Effect,
    ) -> Vec<StageFacts> {
        let state = &self.pipeline.state;
        let (Some(interface), Some((scope, _))) = (
            self.compiled.interfaces().get(packet.interface),
            state.tracking.get(packet.interface),
        ) else {
            return none_reached(packet);
        };
        let lookup = state.connections.lookup(*scope, packet.headers, packet.now);
        let is_related =
            lookup == Lookup::Miss && state.related(self.compiled, *scope, packet).is_some();
        let way = Way { explainer: *self, interface, packet, verdict, effect, lookup, is_related };
        let mut told = Vec::new();
        let mut is_decided = false;
        for step in order(packet) {
            if is_decided {
                told.push(facts(step.as_str(), StageOutcome::NotReached, ""));
                continue;
            }
            let stage = way.step(step);
            let is_last_word = matches!(step, Step::Exempt | Step::Fragment);
            is_decided = match stage.outcome {
                StageOutcome::Dropped | StageOutcome::Held => true,
                StageOutcome::Allowed => is_last_word,
                _ => false,
            };
            told.push(stage);
        }
        told
    }
}

impl Way<'_> {
    fn step(&self, step: Step) -> StageFacts {
        match step {
            Step::Exempt => self.exempt(),
            Step::AddressCheck => self.address_check(),
            Step::Fragment => self.fragment(),
            Step::NetworkAcl => self.network_acl(),
            Step::Conntrack => self.conntrack(),
            Step::SecurityGroup => self.security_group(),
            Step::Tracking => self.tracking(),
            Step::PathMtu => self.path_mtu(),
            Step::Commit => self.commit(),
        }
    }

    /// Exempt traffic, and what a VPC does not carry.
    fn exempt(&self) -> StageFacts {
        let (policy, headers) = (self.explainer.compiled, self.packet.headers);
        if let Some(reason) = passes_exempt(policy, self.interface, self.packet) {
            // A fragment of exempt traffic may still contradict its datagram.
            let outcome = match self.verdict.stage() {
                Stage::Fragment => StageOutcome::Passed,
                _ => StageOutcome::Allowed,
            };
            return facts("exempt", outcome, reason.describe());
        }
        if follows_dhcp(policy, self.interface, self.packet) {
            let text = "only its first fragment can tell whether it is DHCP";
            return facts("exempt", StageOutcome::Passed, text);
        }
        if is_unsupported(self.interface, headers) {
            let text = DropReason::Unsupported.describe();
            return facts("interface", StageOutcome::Dropped, text);
        }
        let far = remote(self.packet);
        let is_foreign = exempt(policy, self.interface, self.packet.direction, headers).is_some();
        let text = match self.interface.service_address(far) {
            Some(_) if is_foreign => {
                format!("{far} serves {} at its own addresses alone", self.interface.id)
            }
            Some(Service::Router) => {
                format!("{far} is the subnet's router, filtered like any other but for DHCP")
            }
            Some(_) => {
                format!("{far} is a service of the VPC, but this is not its protocol or port")
            }
            None => "no traffic of the VPC's own services".to_owned(),
        };
        facts("exempt", StageOutcome::Passed, text)
    }

    fn address_check(&self) -> StageFacts {
        let (ours, what) = match self.packet.direction {
            Direction::Ingress => (self.packet.headers.dst, "destination"),
            Direction::Egress => (self.packet.headers.src, "source"),
        };
        let id = &self.interface.id;
        let is_first_asked = follows_dhcp(self.explainer.compiled, self.interface, self.packet);
        let (outcome, text) = if is_first_asked {
            (StageOutcome::NotApplicable, "that of its first fragment counts".to_owned())
        } else if fails_address_check(self.interface, self.packet) {
            (StageOutcome::Dropped, format!("the {what} {ours} is no address of {id}"))
        } else if self.packet.own_address {
            (StageOutcome::Passed, format!("the {what} {ours} is {id}'s own"))
        } else {
            let text =
                format!("the source/destination check of {id} is off: {ours} may be foreign");
            (StageOutcome::Passed, text)
        };
        facts(Step::AddressCheck.as_str(), outcome, text)
    }

    fn fragment(&self) -> StageFacts {
        let Some(fragment) = self.packet.headers.fragment else {
            return facts("fragment", StageOutcome::NotApplicable, "not a fragment");
        };
        let is_here = self.verdict.stage() == Stage::Fragment;
        let (outcome, text) = match self.verdict.outcome {
            Outcome::Drop(reason) if is_here => (StageOutcome::Dropped, reason.describe().into()),
            Outcome::Pass(reason) if is_here => (StageOutcome::Allowed, reason.describe().into()),
            Outcome::Hold => {
                let text = "its first fragment has not come: it waits for it, 2 seconds at most";
                (StageOutcome::Held, text.to_owned())
            }
            _ => {
                let text = format!(
                    "the first fragment of datagram {}: its verdict will be that of the others",
                    fragment.id
                );
                (StageOutcome::Passed, text)
            }
        };
        facts("fragment", outcome, text)
    }

    fn network_acl(&self) -> StageFacts {
        let policy = self.explainer.compiled;
        let na = |text: &str| facts("network-acl", StageOutcome::NotApplicable, text);
        if self.interface.is_classic() {
            return na("EC2-Classic has no network ACLs");
        }
        if stays_inside(policy, self.interface, self.packet) {
            return na("the packet stays inside the subnet");
        }
        let Some(id) = self.interface.acl_id() else {
            return match self.interface.acl(self.packet.direction) {
                None => {
                    let text = "the subnet has the default ACL, which allows all";
                    facts("network-acl", StageOutcome::Passed, text)
                }
                Some(_) => {
                    let text = "the policy does not describe the subnet, so its ACL denies all";
                    facts("network-acl", StageOutcome::Dropped, text)
                }
            };
        };
        let considered =
            self.acl().map(|acl| acl_entries(acl, self.question())).unwrap_or_default();
        let decides = considered.iter().find(|entry| entry.matches());
        let refused = network_acl(policy, self.interface, self.packet);
        let text = match decides {
            Some(entry) => format!("{} decides: {}", entry.rule, entry.text),
            None => format!("no {} entry of {id} matches: {id}/* denies", self.packet.direction),
        };
        let outcome = if refused.is_some() { StageOutcome::Dropped } else { StageOutcome::Passed };
        StageFacts { considered, ..facts("network-acl", outcome, text) }
    }

    fn conntrack(&self) -> StageFacts {
        let (outcome, text, hit) = match self.lookup {
            Lookup::Hit(hit)
                if self.verdict.outcome == Outcome::Drop(DropReason::TcpOutOfWindow) =>
            {
                let text = DropReason::TcpOutOfWindow.describe().to_owned();
                (StageOutcome::Dropped, text, Some(hit))
            }
            Lookup::Hit(hit) => {
                let way = if hit.reply { "answers" } else { "belongs to" };
                let text =
                    format!("it {way} a tracked flow and is allowed, whatever the rules say now");
                (StageOutcome::Allowed, text, Some(hit))
            }
            Lookup::Reopen(hit) => {
                let text =
                    "a new connection on the five-tuple of an ended one: judged by the rules";
                (StageOutcome::Passed, text.to_owned(), Some(hit))
            }
            Lookup::Miss if self.is_related() => {
                let text =
                    "an ICMP error about a packet of a tracked flow, which the policy admits";
                (StageOutcome::Allowed, text.to_owned(), None)
            }
            Lookup::Miss => (StageOutcome::Passed, self.why_no_flow(), None),
        };
        let flow = hit.and_then(|hit| self.flow(&hit));
        StageFacts { flow, ..facts("conntrack", outcome, text) }
    }

    pub(super) fn is_related(&self) -> bool {
        self.is_related
    }

    fn why_no_flow(&self) -> String {
        let headers = self.packet.headers;
        match headers.transport {
            Transport::Tcp(tcp) if !tcp.flags.is_opening() => {
                "it belongs to no tracked flow, and only a SYN opens one".into()
            }
            Transport::Icmp(_) if !may_open(headers) => {
                "it belongs to no tracked flow: rules alone decide on this ICMP message".into()
            }
            _ => "it belongs to no tracked flow".into(),
        }
    }

    fn flow(&self, hit: &Hit) -> Option<FlowFacts> {
        let pipeline = self.explainer.pipeline;
        let view: FlowView = pipeline.state.connections.view(hit)?;
        let (_, timeouts) = pipeline.state.tracking.get(self.packet.interface)?;
        let left = view.deadline.since(self.packet.now);
        let name = |rule: &RuleInfo| format!("{}/{} ({})", rule.owner, rule.rule, rule.text);
        Some(FlowFacts {
            original: words::flow(&view.key, view.original),
            state: view.state.as_str().to_owned(),
            expires_in_ms: left.as_millis() as u64,
            timeout_ms: timeouts.of(view.state).as_millis() as u64,
            admitted_by: pipeline.admitting_rule(view.tag).map(name),
            generation: view.generation,
        })
    }

    fn security_group(&self) -> StageFacts {
        let groups = self.groups();
        let names = match groups {
            [] => "no group".to_owned(),
            _ => groups.join(", "),
        };
        let considered = self.rules();
        let direction = self.packet.direction;
        if matches!(self.lookup, Lookup::Hit(_)) || self.is_related() {
            let now = match considered.iter().find(|rule| rule.matches()) {
                Some(rule) => format!("{} would allow it now", rule.rule),
                None => format!("no {direction} rule of {names} would allow it now"),
            };
            let text = format!("not asked, since it belongs to a tracked flow; {now}");
            return facts("security-group", StageOutcome::NotApplicable, text);
        }
        let decided = self.admitting_rule();
        let (outcome, text) = match decided {
            Some(rule) => {
                let text = format!("{}/{} allows it: {}", rule.owner, rule.rule, rule.text);
                (StageOutcome::Allowed, text)
            }
            None => {
                let text = match considered.len() {
                    0 => format!("{names} has no {direction} rules"),
                    1 => format!("the one {direction} rule of {names} does not match"),
                    n => format!("none of the {n} {direction} rules of {names} matches"),
                };
                (StageOutcome::Dropped, text)
            }
        };
        StageFacts { considered, ..facts("security-group", outcome, text) }
    }

    fn path_mtu(&self) -> StageFacts {
        if self.packet.direction == Direction::Ingress {
            let text = "the size matters on the way out only";
            return facts("path-mtu", StageOutcome::NotApplicable, text);
        }
        let headers = self.packet.headers;
        let path = Path::to(self.explainer.compiled, self.interface, &headers.dst);
        let route = path.route.map(|r| format!("{} by {}", r.destination, r.target.as_str()));
        let mtu = path.mtu();
        let (outcome, fate) = match fit(self.explainer.compiled, self.interface, self.packet) {
            Fit::Whole if self.packet.size == 0 => {
                (StageOutcome::Passed, "not yet segmented when captured, taken to fit")
            }
            Fit::Whole => (StageOutcome::Passed, "fits"),
            Fit::InFragments(_) => (StageOutcome::Passed, "goes on in fragments"),
            Fit::TooBig(_) if headers.is_ipv6() => {
                (StageOutcome::Dropped, "too large, and routers do not fragment IPv6")
            }
            Fit::TooBig(_) => (StageOutcome::Dropped, "too large, and may not be fragmented (df)"),
        };
        let over = match &route {
            Some(route) => format!("over {route}"),
            None => "without a route (taken for the internet)".to_owned(),
        };
        let text = format!("{} bytes on a path of {mtu}, {over}: {fate}", headers.ip_len);
        let path = PathFacts {
            route,
            class_mtu: path.class,
            interface_mtu: path.own,
            far_mtu: path.far,
            mtu,
            length: headers.ip_len,
        };
        StageFacts { path: Some(path), ..facts("path-mtu", outcome, text) }
    }

    fn commit(&self) -> StageFacts {
        let (outcome, text) = match (self.verdict.outcome, self.effect) {
            (_, Effect::Refused(Full::Table)) => {
                (StageOutcome::Dropped, "it would open a tracked flow, and the flow table is full")
            }
            (_, Effect::Refused(Full::Cap)) => (
                StageOutcome::Dropped,
                "it would open a tracked flow, and its interface has as many as max_flows allows",
            ),
            (_, Effect::Open(_, None)) => (StageOutcome::Passed, "an entry is made for its flow"),
            (_, Effect::Open(_, Some(_))) => {
                (StageOutcome::Passed, "an entry is made for its flow, in place of the ended one")
            }
            (_, Effect::Refresh(_)) => (StageOutcome::Passed, "its flow's entry takes note of it"),
            (_, Effect::End(_)) => (StageOutcome::Passed, "the ended flow's entry is removed"),
            (_, Effect::None) => (StageOutcome::NotApplicable, "nothing is written down"),
        };
        facts(Step::Commit.as_str(), outcome, text)
    }

    /// What rules look at.
    pub(super) fn question(&self) -> Packet {
        question(self.packet)
    }

    /// The groups that govern traffic with the other end.
    pub(super) fn groups(&self) -> &[String] {
        self.interface.group_ids_with(remote(self.packet))
    }

    fn rules(&self) -> Vec<Considered> {
        let is_direct = is_direct(self.explainer.compiled, self.interface, self.packet);
        group_rules(self.explainer.model, self.groups(), self.question(), is_direct)
    }

    fn acl(&self) -> Option<&NetworkAcl> {
        let id = self.interface.acl_id()?;
        self.explainer.model.network_acls.iter().find(|acl| acl.id == id)
    }

    /// The rule of a group that admits the packet, whatever stages after say.
    fn admitting_rule(&self) -> Option<&RuleInfo> {
        let (verdict, _) =
            crate::pipeline::by_rules(self.explainer.compiled, self.interface, self.packet);
        self.explainer.compiled.rule(verdict.rule?)
    }

    /// What the groups say of it, whatever stages after say.
    pub(super) fn by_rules(&self) -> Verdict {
        crate::pipeline::by_rules(self.explainer.compiled, self.interface, self.packet).0
    }

    /// Whether rules let it in, so that it matters whether its flow is tracked.
    pub(super) fn is_admitted_by_rules(&self) -> bool {
        !matches!(self.lookup, Lookup::Hit(_)) && !self.is_related() && self.by_rules().is_pass()
    }
}

/// What rules look at in a packet.
pub(super) fn question(packet: &PacketContext<'_>) -> Packet {
    Packet {
        direction: packet.direction,
        remote: *remote(packet),
        protocol: packet.headers.protocol,
        selector: packet.headers.selector(),
    }
}

/// `tcp`, `udp`: the protocols whose flows may go untracked.
pub(super) fn name_if_untrackable(number: u8) -> Option<String> {
    matches!(number, protocol::TCP | protocol::UDP).then(|| protocol_name(number))
}
