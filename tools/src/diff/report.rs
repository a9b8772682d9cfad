//! What differs, for people and as JSON.

use std::io::{self, Write};

use anstyle::Style;
use sgwall_rules::compare::{Comparison, Gains, Presence, RuleFate};

use super::Difference;
use super::args::DiffArgs;
use super::flows::{Changed, Flows};
use crate::failure::Failure;
use crate::style::{grouped, verdict};
use crate::wrap::plural;

/// Rows of a list, unless all are wanted.
const FEW: usize = 20;

/// Prints the difference as the flags ask.
pub(super) fn print(difference: &Difference, args: &DiffArgs) -> Result<(), Failure> {
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    let few = if args.all { usize::MAX } else { FEW };
    let written = match args.json {
        true => serde_json::to_string(difference)
            .map_err(io::Error::from)
            .and_then(|object| writeln!(out, "{object}")),
        false => write(&mut out, difference, few),
    };
    written.and_then(|()| out.flush()).map_err(Failure::Output)
}

fn write(out: &mut impl Write, difference: &Difference, few: usize) -> io::Result<()> {
    match difference.policy.is_empty() {
        true => writeln!(out, "The policies allow the same.")?,
        false => write_policy(out, &difference.policy, few)?,
    }
    for flows in &difference.traffic {
        writeln!(out)?;
        write_flows(out, flows, few)?;
    }
    Ok(())
}

fn heading(out: &mut impl Write, text: &str) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(out, "{bold}{text}{bold:#}")
}

fn write_policy(out: &mut impl Write, policy: &Comparison, few: usize) -> io::Result<()> {
    if !policy.groups.is_empty() {
        heading(out, "SECURITY GROUPS")?;
    }
    for group in &policy.groups {
        writeln!(out, "  {}{}", group.group, added_or_removed(group.presence))?;
        for rule in &group.rules {
            let word = match rule.fate {
                RuleFate::Added => "added",
                RuleFate::Removed => "removed",
                RuleFate::Widened => "widened",
                RuleFate::Narrowed => "narrowed",
                RuleFate::Members => "other members",
            };
            let direction = rule.direction;
            let text = match (&rule.before, &rule.after) {
                (Some((id, before)), Some((_, after))) if before == after => {
                    format!("{id}  {direction} {before}")
                }
                (Some((id, before)), Some((_, after))) => {
                    format!("{id}  {direction} {before}, now {after}")
                }
                (Some((id, text)), None) | (None, Some((id, text))) => {
                    format!("{id}  {direction} {text}")
                }
                (None, None) => String::new(),
            };
            writeln!(out, "    {word:<14}{text}")?;
            if !matches!(rule.fate, RuleFate::Added | RuleFate::Removed) {
                write_gains(out, &rule.gained, &rule.lost, 18, few)?;
            }
        }
    }
    if !policy.acls.is_empty() {
        heading(out, "NETWORK ACLS")?;
    }
    for acl in &policy.acls {
        writeln!(out, "  {}{}  {}", acl.acl, added_or_removed(acl.presence), acl.direction)?;
        write_gains(out, &acl.gained, &acl.lost, 4, few)?;
    }
    if !policy.interfaces.is_empty() {
        heading(out, "WHAT INTERFACES ADMIT, GROUPS AND ACL TOGETHER")?;
    }
    for interface in &policy.interfaces {
        let presence = added_or_removed(interface.presence);
        writeln!(out, "  {}{presence}  {}", interface.interface, interface.direction)?;
        write_gains(out, &interface.gained, &interface.lost, 4, few)?;
    }
    Ok(())
}

const fn added_or_removed(presence: Presence) -> &'static str {
    match presence {
        Presence::Added => " (added)",
        Presence::Removed => " (removed)",
        Presence::Changed => "",
    }
}

fn write_gains(
    out: &mut impl Write,
    gained: &Gains,
    lost: &Gains,
    indent: usize,
    few: usize,
) -> io::Result<()> {
    for (sign, style, gains) in [("+", verdict("pass"), gained), ("-", verdict("drop"), lost)] {
        let texts = gains.texts();
        for text in texts.iter().take(few) {
            writeln!(out, "{:indent$}{style}{sign} {text}{style:#}", "")?;
        }
        if texts.len() > few {
            writeln!(out, "{:indent$}{sign} {} more; --all lists them", "", texts.len() - few)?;
        }
    }
    Ok(())
}

fn write_flows(out: &mut impl Write, flows: &Flows, few: usize) -> io::Result<()> {
    let Flows { source, packets, unchanged, notes, changed, unremembered } = flows;
    heading(out, &format!("TRAFFIC OF {source}"))?;
    let differ = packets - unchanged;
    writeln!(
        out,
        "  {} packet{}, of which {} become something else, in {} flow{}",
        grouped(*packets),
        plural(*packets as usize),
        grouped(differ),
        grouped(changed.len() as u64),
        plural(changed.len())
    )?;
    for note in notes {
        writeln!(out, "  note: {note}")?;
    }
    if *unremembered > 0 {
        writeln!(out, "  {} of them of flows that are not listed", grouped(*unremembered))?;
    }
    let (pass, drop): (Vec<_>, Vec<_>) = changed.iter().partition(|flow| flow.passes);
    let (lives_on, ends): (Vec<_>, Vec<_>) = drop.into_iter().partition(|flow| flow.is_tracked);
    write_list(out, "REFUSED, AND ENDS AT ONCE", "drop", &ends, few)?;
    let tracked = "REFUSED ANEW: WHAT IS TRACKED AT THE CHANGE GOES ON UNTIL IT ENDS";
    write_list(out, tracked, "drop", &lives_on, few)?;
    write_list(out, "ALLOWED", "pass", &pass, few)
}

fn write_list(
    out: &mut impl Write,
    title: &str,
    word: &str,
    flows: &[&Changed],
    few: usize,
) -> io::Result<()> {
    if flows.is_empty() {
        return Ok(());
    }
    let style = verdict(word);
    writeln!(out, "\n  {style}{title}{style:#}")?;
    writeln!(out, "  {:>9} {:>12}  INTERFACE AND FLOW", "PACKETS", "BYTES")?;
    for flow in flows.iter().take(few) {
        writeln!(
            out,
            "  {:>9} {:>12}  {} {} {}",
            grouped(flow.packets),
            grouped(flow.bytes),
            flow.interface,
            flow.direction,
            flow.flow
        )?;
        writeln!(out, "  {:>9} {:>12}    {}, then {}", "", "", flow.old, flow.new)?;
    }
    if flows.len() > few {
        writeln!(out, "  {:>9} {} more; --all lists them", "", flows.len() - few)?;
    }
    Ok(())
}
