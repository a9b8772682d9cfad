//! Why a packet gets its verdict: every stage of its way, and every rule that was held against it.
//!
//! [`Judge::explain`] foresees what [`Judge::judge`] would say of a frame, by the pipeline's own
//! decisions, and tells what each stage saw. It changes nothing: no flow, no counter, no fragment.
//! What it yields is owned and serialisable, so that it may leave the process; its fields are
//! documented in `docs/explain-json.md`. [`VERSION`] goes up when a field changes its meaning or
//! goes away, not when one is added.
//!
//! Rules are told from the policy as it was written, so that must be at hand: the one that the
//! pipeline's policy was compiled from.

mod remedy;
mod stages;
mod tracking;
mod words;

use serde::{Deserialize, Serialize};
use sgwall_packet::{Direction, Frame, Headers, ParseError, Readdress, fragment_ipv4, parse};
use sgwall_rules::compile::CompiledPolicy;
use sgwall_rules::explain::Considered;
use sgwall_rules::model::Policy;

use crate::attribution::{Side, Sides};
use crate::black_hole::{BlackHole, router_hole};
use crate::judge::{FrameInput, Judge, Judgement, as_seen};
use crate::pipeline::{Effect, PacketContext, Pipeline};
use crate::verdict::{DropReason, Outcome, PassReason, SkipReason, Verdict};

/// Version of the form that an explanation has when it is serialised.
pub const VERSION: u32 = 1;

/// Why a frame gets its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// [`VERSION`].
    pub version: u32,
    /// Which edition of the semantics: `ec2-2017` or `current`.
    pub compat: String,
    /// The generation of the policy in force.
    pub generation: u32,
    /// The packet, as it came.
    pub packet: PacketFacts,
    /// What is settled before any interface judges: reading the headers, finding the interface.
    pub stages: Vec<StageFacts>,
    /// The last word on the frame.
    pub decision: Decision,
    /// The interfaces that judge it: the sender's side, then the receiver's.
    pub sides: Vec<SideFacts>,
}

/// A packet, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PacketFacts {
    /// `tcp 198.51.100.7:50000 -> 10.0.1.10:22 S`, or what is known of it.
    pub text: String,
    /// When it came: seconds since the epoch, with nine decimals.
    pub time: String,
    /// Bytes of the IP packet, by its own length field; 0 if it could not be read.
    pub ip_length: u32,
    /// Bytes of the frame on the wire.
    pub wire_length: u32,
    /// Whether it may not be fragmented.
    pub dont_fragment: bool,
}

/// A verdict in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// `pass`, `drop`, `held` or `skip`.
    pub verdict: String,
    /// The stage that decided: [`crate::Stage::as_str`].
    pub stage: String,
    /// The stable word of the reason.
    pub reason: String,
    /// The reason in a sentence, without the final stop.
    pub text: String,
    /// The rule that decided: `sg-web/ingress-1`, `acl-1/100`, `acl-1/*`.
    pub rule: Option<String>,
    /// The packet's relation to a flow: [`crate::FlowState::as_str`].
    pub state: Option<String>,
    /// The rule that admitted the tracked flow, perhaps of an earlier policy.
    pub admitted_by: Option<String>,
    /// The MTU of the path in bytes, where the packet is larger.
    pub mtu: Option<u16>,
}

/// One interface's side of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SideFacts {
    /// The interface.
    pub interface: String,
    /// `ingress` (towards the instance) or `egress`.
    pub direction: String,
    /// The packet as this side sees it, where an internet gateway translates its addresses.
    pub seen_as: Option<String>,
    /// Every stage, in the order of the packet's way; none of a frame that could not be read.
    pub stages: Vec<StageFacts>,
    /// What this side decides; `None`: the packet does not come here.
    pub decision: Option<Decision>,
    /// For a packet that is dropped: what would have let it through.
    pub remedy: Option<Remedy>,
    /// What is made of a packet that does not fit its path.
    pub emitted: Option<EmittedFacts>,
}

/// What a stage does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageOutcome {
    /// It has nothing against it.
    Passed,
    /// It lets it in; later stages may still refuse it.
    Allowed,
    /// It refuses it.
    Dropped,
    /// It makes it wait for its datagram's first fragment.
    Held,
    /// The frame is not judged.
    Skipped,
    /// It does not concern this packet.
    NotApplicable,
    /// An earlier stage has decided.
    NotReached,
}

impl StageOutcome {
    /// A stable word or two.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            StageOutcome::Passed => "passed",
            StageOutcome::Allowed => "allowed",
            StageOutcome::Dropped => "dropped",
            StageOutcome::Held => "held",
            StageOutcome::Skipped => "skipped",
            StageOutcome::NotApplicable => "-",
            StageOutcome::NotReached => "not reached",
        }
    }
}

/// One stage of a packet's way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageFacts {
    /// Its name: a [`crate::Stage`], or one of the steps `address-check`, `tracking`, `commit`.
    pub stage: String,
    /// What it does.
    pub outcome: StageOutcome,
    /// Why, in a sentence without the final stop.
    pub text: String,
    /// The rules or entries that it held against the packet, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub considered: Vec<Considered>,
    /// The tracked flow that it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowFacts>,
    /// Whether the flow is tracked, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What limits the packet's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathFacts>,
}

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowFacts {
    /// The flow in its original direction: `tcp 10.0.1.10:4000 -> 203.0.113.1:80`.
    pub original: String,
    /// The state of its protocol: `established`, `syn-sent`, `stream`.
    pub state: String,
    /// Milliseconds until it is dead, unless another packet comes.
    pub expires_in_ms: u64,
    /// Milliseconds that it may be idle in its state.
    pub timeout_ms: u64,
    /// The rule that admitted it: `sg-web/ingress-1 (tcp 22 from 0.0.0.0/0)`.
    pub admitted_by: Option<String>,
    /// The generation of the policy that did.
    pub generation: u32,
}

/// One of the conditions on which a flow is untracked (SEMANTICS 6.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Its letter there: `a` to `e`.
    pub letter: char,
    /// Whether it holds; `None`: it was not asked for.
    pub holds: Option<bool>,
    /// Which rule it rests on, or what is missing.
    pub text: String,
}

/// What limits the size of a packet on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathFacts {
    /// The route: `0.0.0.0/0 by internet-gateway`; `None`: no route leads there.
    pub route: Option<String>,
    /// The MTU of the route or its class, bytes.
    pub class_mtu: u16,
    /// The interface's own MTU, bytes.
    pub interface_mtu: u16,
    /// That of the interface at the other end, if the policy has it, bytes.
    pub far_mtu: Option<u16>,
    /// The smallest of these.
    pub mtu: u16,
    /// Bytes of the IP packet.
    pub length: u32,
}

/// What would have let a dropped packet through this stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remedy {
    /// What to do, in a sentence.
    pub text: String,
    /// The smallest rule or entry that does, as the policy's one-line notation has it.
    pub rule: Option<String>,
    /// Where it may stand: groups of which one needs it, or the ACL.
    pub owners: Vec<String>,
    /// Rules or entries that come near, nearest first.
    pub nearest: Vec<Considered>,
}

/// What is made of a packet that does not fit its path (SEMANTICS section 12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmittedFacts {
    /// In a sentence.
    pub text: String,
    /// The lengths of its fragments in bytes, where it is cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fragments: Vec<u32>,
    /// The answer to its sender, and what becomes of that.
    pub answer: Option<Box<AnswerFacts>>,
    /// What the sender does not hear of, because the answer is refused.
    pub black_hole: Option<BlackHole>,
}

/// The router's answer to the sender of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerFacts {
    /// The answer.
    pub packet: PacketFacts,
    /// Its way in.
    pub side: SideFacts,
}

impl Judge {
    /// Explains what [`Judge::judge`] would say of `frame`, and changes nothing. `policy` is what
    /// the pipeline's policy was compiled from; with another, rules are told wrongly.
    #[must_use]
    pub fn explain(&self, policy: &Policy, frame: FrameInput<'_>) -> Explanation {
        let (pipeline, compiled) = (&self.pipeline, &**self.pipeline.policy());
        Explainer { judge: self, pipeline, compiled, model: policy }.frame(&frame)
    }
}

/// What explaining reads.
#[derive(Clone, Copy)]
struct Explainer<'a> {
    judge: &'a Judge,
    /// The judge's, but for what an interface sends to itself.
    pipeline: &'a Pipeline,
    compiled: &'a CompiledPolicy,
    model: &'a Policy,
}

impl Explainer<'_> {
    fn frame(&self, frame: &FrameInput<'_>) -> Explanation {
        let Some(link) = frame.link else {
            return self.unjudged(frame, None, None, Judgement::Skip(SkipReason::UnknownLinkType));
        };
        match parse(link, frame.data, frame.wire_len as usize) {
            Ok(Frame::Ip(headers)) => self.packet(frame, &headers),
            Ok(Frame::Arp(_)) => {
                let verdict = Verdict::pass(PassReason::Arp);
                self.unjudged(frame, None, None, Judgement::Verdict(verdict))
            }
            Ok(Frame::Other(_)) => {
                let verdict = Verdict::drop(DropReason::NotIp);
                self.unjudged(frame, None, None, Judgement::Verdict(verdict))
            }
            Err(error) => {
                let (side, fate) = self.judge.unreadable_fate(frame, link, error);
                self.unjudged(frame, Some(error), side, fate)
            }
        }
    }

    /// A frame that meets no stage of an interface, because of what it is.
    fn unjudged(
        &self,
        frame: &FrameInput<'_>,
        error: Option<ParseError>,
        side: Option<(usize, Direction)>,
        judgement: Judgement,
    ) -> Explanation {
        let decision = self.decision(&judgement, None);
        let outcome = match decision.verdict.as_str() {
            "pass" => StageOutcome::Allowed,
            "drop" => StageOutcome::Dropped,
            _ => StageOutcome::Skipped,
        };
        let text = error.map_or_else(|| decision.text.clone(), |error| error.to_string());
        let stages = match decision.stage.as_str() {
            "interface" => vec![
                stages::facts("parse", StageOutcome::NotApplicable, text),
                stages::facts("interface", outcome, decision.text.clone()),
            ],
            _ => vec![
                stages::facts("parse", outcome, text),
                stages::facts("interface", StageOutcome::NotReached, String::new()),
            ],
        };
        let packet = PacketFacts {
            text: words::unread(frame, decision.reason.as_str()),
            time: frame.time.to_string(),
            ip_length: 0,
            wire_length: frame.wire_len,
            dont_fragment: false,
        };
        // Whom it was for may be known even so.
        let side = side.map(|(interface, direction)| SideFacts {
            interface: self.interface_id(interface),
            direction: direction.as_str().to_owned(),
            seen_as: None,
            stages: Vec::new(),
            decision: Some(decision.clone()),
            remedy: None,
            emitted: None,
        });
        self.explanation(packet, stages, decision, side.into_iter().collect())
    }

    fn packet(&self, frame: &FrameInput<'_>, headers: &Headers) -> Explanation {
        let ends = (headers.src, headers.dst);
        let attribution = &self.judge.attribution;
        let sides = attribution.sides(self.compiled, &headers.link, ends, frame.recorded);
        let read = stages::facts("parse", StageOutcome::Passed, words::headers(headers));
        let found = words::attribution(self.compiled, attribution, frame, headers, sides);
        let packet = PacketFacts::of(headers, frame);
        if sides.is_empty() {
            let decision = self.decision(&Judgement::Skip(SkipReason::NotOurs), None);
            let found = stages::facts("interface", StageOutcome::Skipped, found);
            return self.explanation(packet, vec![read, found], decision, Vec::new());
        }
        let found = stages::facts("interface", StageOutcome::Passed, found);
        let (decision, sides) = self.sides(frame, headers, sides);
        self.explanation(packet, vec![read, found], decision, sides)
    }

    fn explanation(
        &self,
        packet: PacketFacts,
        stages: Vec<StageFacts>,
        decision: Decision,
        sides: Vec<SideFacts>,
    ) -> Explanation {
        Explanation {
            version: VERSION,
            compat: self.compiled.compat().as_str().to_owned(),
            generation: self.compiled.generation().0,
            packet,
            stages,
            decision,
            sides,
        }
    }

    /// Each side in turn, until one refuses or holds the packet; the last word on it.
    fn sides(
        &self,
        frame: &FrameInput<'_>,
        captured: &Headers,
        sides: Sides,
    ) -> (Decision, Vec<SideFacts>) {
        let mut explained = Vec::new();
        let (mut last, mut ended) = (None, false);
        let mut sent: Option<Pipeline> = None;
        for (Side { interface, readdress }, direction) in sides.iter() {
            let (headers, data) = as_seen(frame.data, captured, readdress);
            let seen_as = seen_as(readdress, &headers);
            let context = (interface, direction);
            let packet = self.judge.context(frame, &headers, &data, context, sides.origin);
            if ended {
                explained.push(self.not_reached(&packet, seen_as));
                continue;
            }
            let pipeline = sent.as_ref().unwrap_or(self.pipeline);
            let (side, verdict, effect) =
                Explainer { pipeline, ..*self }.side(frame, &packet, seen_as);
            // What an interface sends to itself meets its own flow again, on its way back in; and
            // the flow that a packet opens on one side may have the last place.
            let returns = sides.ingress.is_some_and(|ingress| ingress.interface == interface);
            let both = sides.iter().map(|(side, _)| side.interface);
            let moves_places = matches!(effect, Effect::Open(..) | Effect::End(_));
            let matters = returns || (moves_places && pipeline.is_tight(both));
            if direction == Direction::Egress && sides.is_both() && matters {
                let mut copy = self.pipeline.clone();
                copy.process(&packet);
                sent = Some(copy);
            }
            ended = !verdict.is_pass();
            last = side.decision.clone();
            explained.push(side);
        }
        let nobody = || self.decision(&Judgement::Skip(SkipReason::NotOurs), None);
        (last.unwrap_or_else(nobody), explained)
    }

    /// One side of a packet: the pipeline's own verdict, and how it comes about.
    fn side(
        &self,
        frame: &FrameInput<'_>,
        packet: &PacketContext<'_>,
        seen_as: Option<String>,
    ) -> (SideFacts, Verdict, Effect) {
        let (verdict, effect) = self.pipeline.foresee(packet);
        let decision = self.decision(&Judgement::Verdict(verdict), Some(packet.interface));
        let stages = self.stages(packet, verdict, effect);
        let side = SideFacts {
            interface: self.interface_id(packet.interface),
            direction: packet.direction.as_str().to_owned(),
            seen_as,
            remedy: self.remedy(packet, verdict, effect),
            emitted: self.emitted(frame, packet, verdict),
            stages,
            decision: Some(decision),
        };
        (side, verdict, effect)
    }

    fn not_reached(&self, packet: &PacketContext<'_>, seen_as: Option<String>) -> SideFacts {
        SideFacts {
            interface: self.interface_id(packet.interface),
            direction: packet.direction.as_str().to_owned(),
            seen_as,
            stages: stages::none_reached(packet),
            decision: None,
            remedy: None,
            emitted: None,
        }
    }

    fn interface_id(&self, index: usize) -> String {
        self.compiled.interfaces().get(index).map(|i| i.id.clone()).unwrap_or_default()
    }

    /// What the router makes of a packet that does not fit its path.
    fn emitted(
        &self,
        frame: &FrameInput<'_>,
        packet: &PacketContext<'_>,
        verdict: Verdict,
    ) -> Option<EmittedFacts> {
        let mtu = verdict.mtu?.get();
        let none = |text: String| EmittedFacts {
            text,
            fragments: Vec::new(),
            answer: None,
            black_hole: None,
        };
        if verdict.is_pass() {
            let (_, bytes) = packet.frame.split_at_checked(packet.headers.ip_offset.into())?;
            let pieces = fragment_ipv4(bytes, mtu.into());
            let fragments: Vec<u32> = pieces.iter().map(|piece| piece.len() as u32).collect();
            let text = format!("it goes on in {} fragments of at most {mtu} bytes", pieces.len());
            return Some(EmittedFacts { fragments, ..none(text) });
        }
        let Some(data) = self.judge.answer(packet.frame, packet.headers, packet.interface, mtu)
        else {
            return Some(none(
                "nothing is sent back: ICMP errors and later fragments are not answered, nor is a \
                 sender that is not one host (RFC 1122)"
                    .into(),
            ));
        };
        if !self.pipeline.would_answer(packet.interface, packet.now) {
            return Some(none(
                "nothing is sent back: the router's 100 answers a second are spent".into(),
            ));
        }
        let frame = FrameInput { data: &data, wire_len: data.len() as u32, ..*frame };
        let Some(Ok(Frame::Ip(headers))) = frame.link.map(|l| parse(l, &data, data.len())) else {
            return None;
        };
        let context = (packet.interface, Direction::Ingress);
        let answer = PacketContext {
            own_address: true,
            ..self.judge.context(&frame, &headers, &data, context, None)
        };
        let (side, verdict, _) = self.side(&frame, &answer, None);
        let interface = self.compiled.interfaces().get(packet.interface);
        let hole = interface.and_then(|i| router_hole(self.compiled, i, headers.src));
        let facts = PacketFacts::of(&headers, &frame);
        let fate = if verdict.is_pass() { "reaches its sender" } else { "is refused on its way" };
        Some(EmittedFacts {
            text: format!("the router's answer, {} mtu={mtu}, {fate}", facts.text),
            fragments: Vec::new(),
            answer: Some(Box::new(AnswerFacts { packet: facts, side })),
            black_hole: hole.filter(|_| !verdict.is_pass()),
        })
    }

    /// A verdict or skip in words.
    fn decision(&self, judgement: &Judgement, interface: Option<usize>) -> Decision {
        let verdict = match judgement {
            Judgement::Skip(reason) => {
                return Decision {
                    verdict: "skip".into(),
                    stage: reason.stage().as_str().into(),
                    reason: reason.as_str().into(),
                    text: reason.describe().into(),
                    rule: None,
                    state: None,
                    admitted_by: None,
                    mtu: None,
                };
            }
            Judgement::Verdict(verdict) => verdict,
        };
        let (word, text) = match verdict.outcome {
            Outcome::Pass(reason) => ("pass", reason.describe()),
            Outcome::Drop(reason) => ("drop", reason.describe()),
            Outcome::Hold => ("held", "waits for its datagram's first fragment, 2 seconds at most"),
        };
        let rule = match (verdict.rule, verdict.outcome) {
            (Some(id), _) => self.compiled.rule(id).map(|r| format!("{}/{}", r.owner, r.rule)),
            (None, Outcome::Drop(DropReason::AclNoMatch)) => interface
                .and_then(|i| self.compiled.interfaces().get(i)?.acl_id())
                .map(|acl| format!("{acl}/*")),
            _ => None,
        };
        let admitted_by = verdict.admitted_by.and_then(|t| self.pipeline.admitting_rule(t));
        Decision {
            verdict: word.into(),
            stage: verdict.stage().as_str().into(),
            reason: verdict.reason().into(),
            text: text.into(),
            rule,
            state: verdict.state.map(|state| state.as_str().into()),
            admitted_by: admitted_by.map(|r| format!("{}/{}", r.owner, r.rule)),
            mtu: verdict.mtu.map(std::num::NonZeroU16::get),
        }
    }
}

impl PacketFacts {
    fn of(headers: &Headers, frame: &FrameInput<'_>) -> Self {
        PacketFacts {
            text: words::packet(headers),
            time: frame.time.to_string(),
            ip_length: headers.ip_len,
            wire_length: frame.wire_len,
            dont_fragment: headers.dont_fragment,
        }
    }
}

/// The packet with the addresses that an internet gateway puts in, if it does.
fn seen_as(readdress: Readdress, headers: &Headers) -> Option<String> {
    (!readdress.is_nothing()).then(|| words::packet(headers))
}
