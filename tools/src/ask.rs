//! The commands that ask a running firewall: `flows`, `stats`, `reload`, `trace`.

use std::io::{self, Write};
use std::path::Path;

use anstyle::Style;
use sgwall_live::control::{Answer, Client, Request, TraceLine};
use sgwall_live::engine::{FlowInfo, Stats};

use crate::failure::Failure;
use crate::run::{AskArgs, CONTROL, ControlArgs, FlowsArgs, FlowsCommand, TraceArgs};

/// `sgwall flows`, `sgwall flows kill`.
pub(crate) fn flows(args: &FlowsArgs) -> Result<(), Failure> {
    if let Some(FlowsCommand::Kill { filter }) = &args.command {
        return ask(&args.control, &Request::Kill { filter: filter.join(" ") });
    }
    ask(&args.control, &Request::Flows { filter: args.filter.join(" "), limit: args.limit })
}

/// `sgwall stats`.
pub(crate) fn stats(args: &AskArgs) -> Result<(), Failure> {
    ask(&args.control, &Request::Stats)
}

/// `sgwall reload`.
pub(crate) fn reload(args: &AskArgs) -> Result<(), Failure> {
    ask(&args.control, &Request::Reload)
}

/// `sgwall trace`.
pub(crate) fn trace(args: &TraceArgs) -> Result<(), Failure> {
    let request = Request::Trace { filter: args.filter.join(" "), rate: args.rate };
    answers(&args.control, &request, args.count)
}

fn ask(control: &ControlArgs, request: &Request) -> Result<(), Failure> {
    answers(control, request, None)
}

/// Asks for one thing, and gives the first answer.
pub(crate) fn one(path: &Path, request: &Request) -> Result<Answer, Failure> {
    let mut client = Client::ask(path, request).map_err(|e| unreachable_at(path, &e))?;
    match client.next_answer() {
        Ok(Some(Answer::Error { message })) => Err(Failure::Usage(message)),
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Failure::Io(format!("{}: the firewall has hung up", path.display()))),
        Err(error) => Err(Failure::Io(format!("{}: {error}", path.display()))),
    }
}

/// Asks for many things, and hands over each answer.
pub(crate) fn all(
    path: &Path,
    request: &Request,
    each: &mut dyn FnMut(Answer),
) -> Result<(), Failure> {
    let mut client = Client::ask(path, request).map_err(|e| unreachable_at(path, &e))?;
    loop {
        match client.next_answer() {
            Ok(Some(Answer::Error { message })) => return Err(Failure::Usage(message)),
            Ok(Some(Answer::Done { .. })) => return Ok(()),
            Ok(Some(answer)) => each(answer),
            Ok(None) => {
                return Err(Failure::Io(format!("{}: the firewall has hung up", path.display())));
            }
            Err(error) => return Err(Failure::Io(format!("{}: {error}", path.display()))),
        }
    }
}

/// Prints the answers to a request, at most `count` verdicts.
fn answers(control: &ControlArgs, request: &Request, count: Option<u64>) -> Result<(), Failure> {
    let path = &control.control;
    let mut client = Client::ask(path, request).map_err(|e| unreachable_at(path, &e))?;
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    let mut printer = Printer { json: control.json, rows: 0 };
    let mut left = count.unwrap_or(u64::MAX);
    loop {
        let answer = client.next_answer();
        let answer = answer.map_err(|e| Failure::Io(format!("{}: {e}", path.display())))?;
        match answer {
            None => {
                return Err(Failure::Io(format!("{}: the firewall has hung up", path.display())));
            }
            Some(Answer::Error { message }) => return Err(Failure::Usage(message)),
            Some(Answer::Done { more }) => {
                printer.end(&mut out, request, more).map_err(Failure::Output)?;
                return out.flush().map_err(Failure::Output);
            }
            Some(answer) => {
                left = left.saturating_sub(u64::from(matches!(answer, Answer::Trace(_))));
                printer.print(&mut out, &answer).map_err(Failure::Output)?;
                if left == 0 {
                    return out.flush().map_err(Failure::Output);
                }
            }
        }
        // Whoever watches wants to see a verdict when it happens.
        if matches!(request, Request::Trace { .. }) {
            out.flush().map_err(Failure::Output)?;
        }
    }
}

fn unreachable_at(path: &Path, error: &io::Error) -> Failure {
    let mend = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let other = if path == Path::new(CONTROL) { "another" } else { "the right" };
            format!("; is the firewall running? name {other} socket with --control")
        }
        io::ErrorKind::PermissionDenied => "; it belongs to the firewall's user and root".into(),
        _ => String::new(),
    };
    Failure::Io(format!("cannot reach the firewall at {}: {error}{mend}", path.display()))
}

/// Prints answers for people, or as they came for programs.
struct Printer {
    json: bool,
    rows: u64,
}

impl Printer {
    fn print(&mut self, out: &mut impl Write, answer: &Answer) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, answer)?;
            return writeln!(out);
        }
        let is_first = self.rows == 0;
        self.rows += 1;
        match answer {
            Answer::Flow(flow) => {
                if is_first {
                    flow_heading(out)?;
                }
                flow_line(out, flow)
            }
            Answer::Killed { ended } => writeln!(out, "{ended} flows ended"),
            Answer::Stats(stats) => write_stats(out, stats),
            Answer::Reloaded(report) => writeln!(out, "{report}"),
            Answer::Trace(line) => trace_line(out, line),
            Answer::Lost { verdicts } => {
                let dim = Style::new().dimmed();
                writeln!(out, "{dim}({verdicts} verdicts not shown: they come faster){dim:#}")
            }
            Answer::Explanation(_) | Answer::Error { .. } | Answer::Done { .. } => Ok(()),
        }
    }

    fn end(&mut self, out: &mut impl Write, request: &Request, more: bool) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, &Answer::Done { more })?;
            return writeln!(out);
        }
        match request {
            Request::Flows { .. } if self.rows == 0 => writeln!(out, "no flows"),
            Request::Flows { limit, .. } if more => {
                writeln!(out, "and more; these are the first {limit} (--limit)")
            }
            _ => Ok(()),
        }
    }
}

fn flow_heading(out: &mut impl Write) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(
        out,
        "{bold}{:<8} {:<45} {:<12} {:>10}  {:<14} {:<8} RULE{bold:#}",
        "PROTOCOL", "FROM -> TO", "STATE", "EXPIRES IN", "INTERFACE", "WAY"
    )
}

fn flow_line(out: &mut impl Write, flow: &FlowInfo) -> io::Result<()> {
    let end = |addr: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(addr, port).to_string(),
        None => addr.to_string(),
    };
    let mut ends = format!("{} -> {}", end(flow.src, flow.src_port), end(flow.dst, flow.dst_port));
    if let (Some(kind), Some(id)) = (flow.icmp_type, flow.icmp_id) {
        ends += &format!(" type {kind} id {id}");
    }
    writeln!(
        out,
        "{:<8} {ends:<45} {:<12} {:>9}s  {:<14} {:<8} {}",
        flow.protocol, flow.state, flow.expires_in, flow.interface, flow.direction, flow.rule
    )
}

fn trace_line(out: &mut impl Write, line: &TraceLine) -> io::Result<()> {
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let end = |addr: Option<std::net::IpAddr>, port: Option<u16>| match (addr, port) {
        (Some(addr), Some(port)) => std::net::SocketAddr::new(addr, port).to_string(),
        (Some(addr), None) => addr.to_string(),
        (None, _) => "-".to_owned(),
    };
    let mut ends = format!("{} -> {}", end(line.src, line.src_port), end(line.dst, line.dst_port));
    if let (Some(kind), Some(code)) = (line.icmp_type, line.icmp_code) {
        ends += &format!(" {kind}/{code}");
    }
    let style = crate::style::verdict(&line.verdict);
    writeln!(
        out,
        "{} {:<14} {:<7} {:<8} {ends:<45} {style}{:<4}{style:#} {:<14} {:<11} {:<22} {}",
        line.time,
        dash(&line.interface),
        dash(&line.direction),
        dash(&line.protocol),
        line.verdict,
        line.stage,
        dash(&line.state),
        line.reason,
        dash(&line.rule)
    )
}

fn write_stats(out: &mut impl Write, stats: &Stats) -> io::Result<()> {
    let bold = Style::new().bold();
    let grouped = crate::style::grouped;
    writeln!(
        out,
        "policy {}, {} workers, running for {} s",
        stats.generation,
        stats.workers,
        grouped(stats.uptime)
    )?;
    writeln!(
        out,
        "{} tracked flows of at most {}; {} were opened, {} refused",
        grouped(stats.flows),
        grouped(stats.max_flows),
        grouped(stats.flows_created),
        grouped(stats.flows_refused)
    )?;
    if let Some(skipped) = stats.flow_log_skipped {
        writeln!(out, "{} packets are in no record of the flow log", grouped(skipped))?;
    }
    writeln!(
        out,
        "\n{bold}{:<16} {:<5}{:<15} {:<23}{:>14} {:>18}{bold:#}",
        "INTERFACE", "", "STAGE", "REASON", "packets", "bytes"
    )?;
    for of in &stats.reasons {
        let style = crate::style::verdict(&of.verdict);
        writeln!(
            out,
            "{:<16} {style}{:<5}{style:#}{:<15} {:<23}{:>14} {:>18}",
            of.interface.as_deref().unwrap_or("-"),
            of.verdict,
            of.stage,
            of.reason,
            grouped(of.packets),
            grouped(of.bytes)
        )?;
    }
    let mut rules: Vec<_> = stats.rules.iter().filter(|rule| rule.packets > 0).collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.packets));
    if !rules.is_empty() {
        writeln!(out, "\n{bold}{:>14}  {:<34} RULE THAT DECIDED{bold:#}", "packets", "")?;
    }
    for rule in &rules {
        let (packets, direction) = (grouped(rule.packets), &rule.direction);
        writeln!(out, "{packets:>14}  {:<34} {direction} {}", rule.rule, rule.text)?;
    }
    writeln!(
        out,
        "\n{bold}{:<16} {:<16} {:>14} {:>14} {:>14}{bold:#}",
        "DEVICE", "BEHIND IT", "frames in", "frames out", "lost"
    )?;
    for port in &stats.ports {
        let count = |name: &str| port.counters.get(name).copied().unwrap_or(0);
        let lost = [
            "rx_truncated",
            "rx_bad_offload",
            "tx_full",
            "tx_down",
            "tx_refused",
            "tx_bad_offload",
        ];
        writeln!(
            out,
            "{:<16} {:<16} {:>14} {:>14} {:>14}",
            port.device,
            port.interface.as_deref().unwrap_or("(network)"),
            grouped(count("rx_frames")),
            grouped(count("tx_frames")),
            grouped(lost.iter().map(|name| count(name)).sum())
        )?;
    }
    Ok(())
}
