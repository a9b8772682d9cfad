//! One judgement on one packet, as a line for people or an object for programs.
//!
//! The JSON schema is documented in `docs/replay-json.md`; [`VERSION`] goes up when a field
//! changes its meaning or goes away, not when one is added.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;

use anstyle::Style;
use serde::Serialize;
use sgwall_dataplane::{DropReason, Emitted, Event, Judgement, Outcome, Stage};
use sgwall_netio::capture::Packet;
use sgwall_packet::{FiveTuple, Timestamp, Transport, protocol};
use sgwall_rules::compile::{CompiledPolicy, RuleInfo};
use sgwall_rules::model::protocol_name;

use super::Output;
use crate::style::verdict as verdict_style;

/// Version of the JSON schema.
pub(super) const VERSION: u32 = 1;

/// The form in which events are printed.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) output: Output,
    /// Whether there are several captures, so that it matters which one a packet is of.
    pub(super) several: bool,
}

/// One judgement, with the names that people and programs know.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<&'a str>,
    frame: u64,
    /// What it is, if it was not captured but made because that frame did not fit its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    emitted: Option<&'static str>,
    time: String,
    interface: Option<&'a str>,
    direction: Option<&'static str>,
    protocol: Option<String>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    length: u32,
    verdict: &'static str,
    stage: &'static str,
    rule: Option<String>,
    /// The rule that admitted the tracked flow, which the policy may no longer have.
    #[serde(skip_serializing_if = "Option::is_none")]
    admitted_by: Option<String>,
    state: Option<&'static str>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// The policy was replaced.
#[derive(Serialize)]
pub(super) struct Reload<'a> {
    /// The new policy.
    pub(super) file: &'a str,
    /// Tracked flows alive.
    pub(super) live: usize,
    /// Those that the new rules would not admit.
    pub(super) not_admitted: usize,
    /// Those that ended for it.
    pub(super) ended: usize,
}

#[derive(Serialize)]
struct ReloadRecord<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    #[serde(flatten)]
    reload: &'a Reload<'a>,
}

impl Form {
    /// Prints one event of a capture, if events are printed at all.
    pub(super) fn print(
        self,
        out: &mut (impl Write + ?Sized),
        policy: &CompiledPolicy,
        event: &Event<'_>,
        capture: &str,
    ) -> io::Result<()> {
        match self.output {
            Output::Summary => Ok(()),
            Output::Json => {
                let capture = self.several.then_some(capture);
                serde_json::to_writer(&mut *out, &Record::of(event, policy, capture))?;
                writeln!(out)
            }
            Output::Packets => line(out, &Record::of(event, policy, None), event),
        }
    }

    /// Prints what stands above the first event of a capture.
    pub(super) fn heading(self, out: &mut (impl Write + ?Sized), capture: &str) -> io::Result<()> {
        if self.output != Output::Packets {
            return Ok(());
        }
        if self.several {
            writeln!(out, "{capture}:")?;
        }
        heading(out)
    }

    /// Prints that a policy took over before a packet.
    pub(super) fn policy(
        self,
        out: &mut (impl Write + ?Sized),
        reload: &Reload<'_>,
        before: &Packet<'_>,
    ) -> io::Result<()> {
        let time = time(before.time, before.decimals);
        match self.output {
            Output::Summary => Ok(()),
            Output::Json => {
                serde_json::to_writer(&mut *out, &ReloadRecord { kind: "policy", time, reload })?;
                writeln!(out)
            }
            Output::Packets => {
                let Reload { file, live, not_admitted, ended } = reload;
                writeln!(
                    out,
                    "{:>7}  {time:<20} policy {file} from here on: of {live} tracked flows it would \
                     not admit {not_admitted}; {ended} end",
                    ""
                )
            }
        }
    }
}

impl<'a> Record<'a> {
    fn of(event: &Event<'_>, policy: &'a CompiledPolicy, capture: Option<&'a str>) -> Self {
        let headers = event.headers;
        let transport = headers.map(|h| h.transport);
        let has_ports = matches!(transport, Some(Transport::Tcp(_) | Transport::Udp { .. }));
        let icmp = match transport {
            Some(Transport::Icmp(icmp)) => Some(icmp),
            _ => None,
        };
        let (verdict, stage, reason) = words(&event.judgement);
        Record {
            kind: "packet",
            capture,
            frame: event.frame.token,
            emitted: event.emitted.map(Emitted::as_str),
            time: time(event.frame.time, event.frame.decimals),
            interface: event.side.and_then(|(i, _)| Some(policy.interfaces().get(i)?.id.as_str())),
            direction: event.side.map(|(_, direction)| direction.as_str()),
            protocol: headers.map(|h| protocol_name(h.protocol)),
            src: headers.map(|h| h.src),
            dst: headers.map(|h| h.dst),
            src_port: headers.filter(|_| has_ports).map(|h| h.src_port()),
            dst_port: headers.filter(|_| has_ports).map(|h| h.dst_port()),
            icmp_type: icmp.map(|i| i.kind),
            icmp_code: icmp.map(|i| i.code),
            length: event.frame.wire_len,
            verdict,
            stage: stage.as_str(),
            rule: rule(event, policy),
            admitted_by: event.admitted_by.map(rule_name),
            state: match event.judgement {
                Judgement::Verdict(v) => v.state.map(|s| s.as_str()),
                Judgement::Skip(_) => None,
            },
            reason,
            detail: event.error.map(|e| e.to_string()),
        }
    }
}

/// Verdict, stage and reason of a judgement.
pub(super) fn words(judgement: &Judgement) -> (&'static str, Stage, &'static str) {
    match judgement {
        Judgement::Verdict(v) => {
            let word = if v.is_pass() { "pass" } else { "drop" };
            (word, v.stage(), v.reason())
        }
        Judgement::Skip(reason) => ("skip", reason.stage(), reason.as_str()),
    }
}

/// The deciding rule: `sg-web/ingress-1`, `acl-1/100`, or `acl-1/*` for an ACL's final deny.
pub(crate) fn rule(event: &Event<'_>, policy: &CompiledPolicy) -> Option<String> {
    let Judgement::Verdict(verdict) = event.judgement else { return None };
    if let Some(id) = verdict.rule {
        return policy.rule(id).map(rule_name);
    }
    if verdict.outcome == Outcome::Drop(DropReason::AclNoMatch) {
        let interface = policy.interfaces().get(event.side?.0)?;
        return Some(format!("{}/*", interface.acl_id()?));
    }
    None
}

/// The rule that admitted the tracked flow of the packet.
pub(crate) fn admitting_rule(event: &Event<'_>) -> Option<String> {
    event.admitted_by.map(rule_name)
}

/// `sg-web/ingress-1`.
fn rule_name(rule: &RuleInfo) -> String {
    format!("{}/{}", rule.owner, rule.rule)
}

/// Seconds since the epoch, with as many decimals as the capture has.
fn time(time: Timestamp, decimals: u8) -> String {
    let mut text = time.to_string();
    let cut = 9usize.saturating_sub(decimals.into());
    text.truncate(text.len() - cut - usize::from(decimals == 0));
    text
}

/// `10.0.0.1:5000 -> 10.0.0.2:80`, `10.0.0.1 -> 10.0.0.2 8/0`, or nothing.
fn endpoints(event: &Event<'_>) -> String {
    let Some(headers) = event.headers else { return "-".to_owned() };
    let mut text = FiveTuple::from(headers).to_string();
    match headers.transport {
        Transport::Icmp(icmp) => {
            let _ = write!(text, " {}/{}", icmp.kind, icmp.code);
        }
        Transport::LaterFragment => {
            if matches!(headers.protocol, protocol::TCP | protocol::UDP) {
                text = format!("{} -> {}", headers.src, headers.dst);
            }
            let _ = write!(text, " fragment");
        }
        _ => {}
    }
    if let Some(emitted) = event.emitted {
        let _ = write!(text, " ({})", emitted.as_str());
    }
    text
}

fn heading(out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(
        out,
        "{bold}{:>7}  {:<20} {:<7} {:<8} {:<45} {:<4} {:<14} {:<11} {:<24} RULE{bold:#}",
        "FRAME", "TIME", "WAY", "PROTOCOL", "FROM -> TO", "", "STAGE", "STATE", "REASON"
    )
}

fn line(out: &mut (impl Write + ?Sized), record: &Record<'_>, event: &Event<'_>) -> io::Result<()> {
    let style = verdict_style(record.verdict);
    let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    writeln!(
        out,
        "{:>7}  {:<20} {:<7} {:<8} {:<45} {style}{:<4}{style:#} {:<14} {:<11} {:<24} {}",
        record.frame,
        record.time,
        dash(record.direction),
        dash(record.protocol.as_deref()),
        endpoints(event),
        record.verdict,
        record.stage,
        dash(record.state),
        record.reason,
        match (&record.rule, &record.admitted_by, &record.detail) {
            (Some(rule), ..) => rule.clone(),
            (None, Some(rule), _) => format!("(flow of {rule})"),
            (None, None, detail) => dash(detail.as_deref()),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_has_the_captures_own_decimals() {
        let t = Timestamp::from_nanos(1_700_000_012_500_000_001);
        assert_eq!(time(t, 9), "1700000012.500000001");
        assert_eq!(time(t, 6), "1700000012.500000");
        assert_eq!(time(t, 0), "1700000012");
    }
}
