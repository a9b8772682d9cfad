//! Counters for Prometheus: the text exposition format, over HTTP on a loopback address.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>. Names that users of AWS know from
//! the Elastic Network Adapter (`conntrack_allowance_available` and so on) are kept, behind
//! `sgwall_`.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use sgwall_live::Engine;
use sgwall_live::engine::{InterfaceStats, Stats};
use tiny_http::{Header, Method, Response, Server};

use crate::failure::Failure;

/// Serves counters until dropped.
pub(super) struct Metrics {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

/// A socket at which counters will be served.
pub(super) struct Bound(TcpListener, SocketAddr);

impl Metrics {
    /// Opens a socket at `addr`, which must be a loopback address: what passes through a firewall is
    /// nobody else's business.
    pub(super) fn bind(addr: SocketAddr) -> Result<Bound, Failure> {
        if !addr.ip().is_loopback() {
            let message = "not a loopback address; use 127.0.0.1 or [::1]";
            return Err(unserved(addr, message));
        }
        TcpListener::bind(addr).map(|listener| Bound(listener, addr)).map_err(|e| unserved(addr, e))
    }
}

fn unserved(addr: SocketAddr, why: impl std::fmt::Display) -> Failure {
    Failure::Io(format!("cannot serve metrics at {addr}: {why}"))
}

impl Bound {
    /// Begins to serve.
    pub(super) fn serve(self, engine: Arc<Engine>) -> Result<Metrics, Failure> {
        let Bound(listener, addr) = self;
        let server = Server::from_listener(listener, None).map_err(|e| unserved(addr, e))?;
        let server = Arc::new(server);
        let serving = Arc::clone(&server);
        let thread = std::thread::Builder::new().name("sgwall-metrics".into()).spawn(move || {
            for request in serving.incoming_requests() {
                let is_metrics = request.url() == "/metrics" && *request.method() == Method::Get;
                // A client that went away is no fault of ours.
                let _ = match is_metrics {
                    true => {
                        let text = Response::from_string(text(&engine.stats()));
                        let kind = "text/plain; version=0.0.4";
                        let header = Header::from_bytes("Content-Type", kind);
                        request.respond(match header {
                            Ok(header) => text.with_header(header),
                            Err(()) => text,
                        })
                    }
                    false => request
                        .respond(Response::from_string("look at /metrics\n").with_status_code(404)),
                };
            }
        });
        let thread = thread.map_err(|e| unserved(addr, e))?;
        Ok(Metrics { server, thread: Some(thread) })
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The counters, as Prometheus reads them.
pub(super) fn text(stats: &Stats) -> String {
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        let _ = writeln!(out, "# HELP sgwall_{name} {help}\n# TYPE sgwall_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "sgwall_{name}{labels} {value}");
        }
    };
    let one = |value| [(String::new(), value)];
    metric("uptime_seconds", "gauge", "Seconds since the start.", &one(stats.uptime));
    metric(
        "policy_generation",
        "gauge",
        "Policies that took over, the first among them.",
        &one(stats.generation.into()),
    );
    metric("conntrack_flows", "gauge", "Tracked flows.", &one(stats.flows));
    metric(
        "conntrack_allowance_available",
        "gauge",
        "Flows that may still be tracked.",
        &one(stats.max_flows.saturating_sub(stats.flows)),
    );
    metric(
        "conntrack_flows_created_total",
        "counter",
        "Tracked flows that were opened.",
        &one(stats.flows_created),
    );
    metric(
        "conntrack_allowance_exceeded_total",
        "counter",
        "Packets dropped because no further flow could be tracked.",
        &one(stats.flows_refused),
    );
    let of_interfaces = |value: fn(&InterfaceStats) -> Option<u64>| -> Vec<_> {
        let sample =
            |of: &InterfaceStats| Some((labels(&[("interface", &of.interface)]), value(of)?));
        stats.interfaces.iter().filter_map(sample).collect()
    };
    metric(
        "conntrack_evicted_total",
        "counter",
        "Tracked flows that gave their place to others, by the interface that had them.",
        &of_interfaces(|of| Some(of.evicted)),
    );
    metric(
        "conntrack_interface_flows",
        "gauge",
        "Tracked flows of interfaces with limits.",
        &of_interfaces(|of| of.flows),
    );
    metric(
        "conntrack_interface_max_flows",
        "gauge",
        "Tracked flows that an interface may have (max_flows).",
        &of_interfaces(|of| of.max_flows.map(u64::from)),
    );
    metric(
        "conntrack_interface_reserved_flows",
        "gauge",
        "Tracked flows that are kept for an interface (reserved_flows).",
        &of_interfaces(|of| of.reserved_flows.map(u64::from)),
    );
    if let Some(skipped) = stats.flow_log_skipped {
        let help = "Packets that are in no record of the flow log.";
        metric("flow_log_skipped_packets_total", "counter", help, &one(skipped));
    }
    let by_reason = |value: fn(&sgwall_live::engine::ReasonStats) -> u64| -> Vec<_> {
        let sample = |of: &sgwall_live::engine::ReasonStats| {
            let labels = labels(&[
                ("interface", of.interface.as_deref().unwrap_or("")),
                ("verdict", &of.verdict),
                ("stage", &of.stage),
                ("reason", &of.reason),
            ]);
            (labels, value(of))
        };
        stats.reasons.iter().map(sample).collect()
    };
    metric(
        "packets_total",
        "counter",
        "Judgements, by interface, stage and reason.",
        &by_reason(|of| of.packets),
    );
    metric("bytes_total", "counter", "Bytes of the IP packets judged.", &by_reason(|of| of.bytes));
    let rules: Vec<_> = stats
        .rules
        .iter()
        .map(|rule| (labels(&[("rule", &rule.rule), ("direction", &rule.direction)]), rule.packets))
        .collect();
    metric(
        "rule_packets_total",
        "counter",
        "Packets that a rule decided, since the policy took over.",
        &rules,
    );
    let names = stats.ports.first().map(|port| port.counters.keys().cloned().collect::<Vec<_>>());
    for name in names.unwrap_or_default() {
        let samples: Vec<_> = stats
            .ports
            .iter()
            .map(|port| {
                let value = port.counters.get(&name).copied().unwrap_or(0);
                (labels(&[("device", &port.device)]), value)
            })
            .collect();
        metric(&format!("port_{name}_total"), "counter", "Of a device, all queues.", &samples);
    }
    out
}

/// `{rule="sg-1/ingress-1",direction="ingress"}`, with what must be escaped escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escape =
        |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use sgwall_live::engine::{PortReport, ReasonStats, RuleStats};

    use super::*;

    fn stats() -> Stats {
        let counters = [("rx_frames".to_owned(), 7), ("tx_full".to_owned(), 1)].into();
        Stats {
            generation: 2,
            uptime: 60,
            workers: 1,
            flows: 3,
            max_flows: 10,
            flows_created: 5,
            flows_refused: 4,
            flows_evicted: 2,
            full_table: "evict-embryonic".into(),
            interfaces: vec![InterfaceStats {
                interface: "eni-1".into(),
                flows: Some(3),
                max_flows: Some(8),
                reserved_flows: None,
                evicted: 2,
            }],
            flow_log_skipped: Some(6),
            reasons: vec![ReasonStats {
                interface: Some("eni-1".into()),
                verdict: "drop".into(),
                stage: "security-group".into(),
                reason: "no-rule".into(),
                packets: 9,
                bytes: 540,
            }],
            rules: vec![RuleStats {
                rule: "sg-\"odd\\\n/1".into(),
                direction: "ingress".into(),
                text: "tcp 443 from 0.0.0.0/0".into(),
                packets: 8,
            }],
            ports: vec![PortReport { device: "tap-i".into(), interface: None, counters }],
        }
    }

    /// Every line is a comment or a sample; a metric has its help and type once, before its
    /// samples, and counters end in `_total`.
    #[test]
    fn the_text_is_in_the_exposition_format() {
        let text = text(&stats());
        let (mut seen, mut kind) = (HashSet::new(), (String::new(), String::new()));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(seen.insert(name.to_owned()), "{name} twice");
                assert!(help.ends_with('.'), "{help}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, is) = rest.split_once(' ').expect("a type");
                assert!(seen.contains(name));
                assert_eq!(is == "counter", name.ends_with("_total"), "{name}");
                kind = (name.to_owned(), is.to_owned());
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a sample");
                let name = name.split('{').next().unwrap_or_default();
                assert_eq!(name, kind.0);
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
                assert!(value.parse::<u64>().is_ok(), "{line}");
            }
        }
        for sample in [
            "sgwall_conntrack_allowance_available 7",
            "sgwall_conntrack_allowance_exceeded_total 4",
            "sgwall_conntrack_evicted_total{interface=\"eni-1\"} 2",
            "sgwall_conntrack_interface_flows{interface=\"eni-1\"} 3",
            "sgwall_conntrack_interface_max_flows{interface=\"eni-1\"} 8",
            "sgwall_flow_log_skipped_packets_total 6",
            "sgwall_packets_total{interface=\"eni-1\",verdict=\"drop\",stage=\"security-group\",reason=\"no-rule\"} 9",
            "sgwall_rule_packets_total{rule=\"sg-\\\"odd\\\\\\n/1\",direction=\"ingress\"} 8",
            "sgwall_port_tx_full_total{device=\"tap-i\"} 1",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
        }
    }
}
