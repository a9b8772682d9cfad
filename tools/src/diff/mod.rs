//! `sgwall diff`: what a new policy changes, as sets of traffic and for real traffic.

pub(crate) mod args;
mod flows;
mod log;
mod report;

use std::path::Path;

use serde::Serialize;
use sgwall_live::control::{Answer, Request};
use sgwall_packet::Direction;
use sgwall_rules::compare::{Comparison, compare};
use sgwall_rules::compile::Generation;
use sgwall_rules::model::protocol_name;

use crate::ask;
use crate::failure::Failure;
use crate::policy::Loaded;
use args::DiffArgs;
use flows::{Begun, Flows};

/// Version of the JSON object, documented in `docs/guides/diff.md`.
const VERSION: u32 = 1;
/// Exit status with `--exit-code` where anything differs.
const DIFFERS: u8 = 1;

/// Everything that differs.
#[derive(Serialize)]
struct Difference {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    policy: Comparison,
    traffic: Vec<Flows>,
}

/// Runs the command; the exit status.
pub(crate) fn run(args: &DiffArgs) -> Result<u8, Failure> {
    let old = Loaded::load(std::slice::from_ref(&args.old), Generation(0))?;
    let new = Loaded::load(std::slice::from_ref(&args.new), Generation(1))?;
    let policies = [&old, &new];
    let mut traffic = Vec::new();
    if !args.capture.is_empty() {
        traffic.push(flows::of_captures(&args.capture, policies, &args.traffic)?);
    }
    for path in &args.flow_log {
        let log = log::read(path, &old.compiled)?;
        let source = path.display().to_string();
        let mut flows = flows::of_begun(source, &log.flows, policies, false);
        flows.notes = log.notes;
        traffic.push(flows);
    }
    if args.live {
        let begun = of_running(&args.control)?;
        let source = format!("tracked flows of the firewall at {}", args.control.display());
        traffic.push(flows::of_begun(source, &begun, policies, true));
    }
    let policy = compare(&old.model, &new.model);
    let difference = Difference { kind: "diff", version: VERSION, policy, traffic };
    report::print(&difference, args)?;
    let is_same = difference.policy.is_empty()
        && difference.traffic.iter().all(|flows| flows.packets == flows.unchanged);
    Ok(if args.exit_code && !is_same { DIFFERS } else { 0 })
}

/// The tracked flows of a running firewall.
fn of_running(control: &Path) -> Result<Vec<Begun>, Failure> {
    let mut begun = Vec::new();
    let request = Request::Flows { filter: String::new(), limit: usize::MAX };
    ask::all(control, &request, &mut |answer| {
        let Answer::Flow(flow) = answer else { return };
        let direction = Direction::BOTH.into_iter().find(|d| d.as_str() == flow.direction);
        let number = (0..=u8::MAX).find(|number| protocol_name(*number) == flow.protocol);
        let number = number.or_else(|| flow.protocol.parse().ok());
        if let (Some(direction), Some(number)) = (direction, number) {
            let src = (flow.src, flow.src_port.unwrap_or(0));
            let mut packet = log::first_packet(number, src, (flow.dst, flow.dst_port.unwrap_or(0)));
            if let Some(kind) = flow.icmp_type {
                packet.icmp = (kind, 0);
            }
            let interface = flow.interface;
            begun.push(Begun { interface, direction, packet, packets: 1, bytes: 0 });
        }
    })?;
    Ok(begun)
}
