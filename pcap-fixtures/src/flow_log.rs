//! The flow log of a case, if it expects one.

use std::sync::Arc;

use sgwall_dataplane::Event;
use sgwall_dataplane::flow_log::{Config, FlowLog, FlowLogRecord, Format, Interval, Traffic};
use sgwall_packet::Timestamp;
use sgwall_rules::compile::CompiledPolicy;

use crate::Case;

/// A flow log in the making, with the lines that it must have.
pub(crate) struct ExpectedLog<'a>(Option<Expected<'a>>);

struct Expected<'a> {
    log: FlowLog,
    format: Format,
    found: Vec<String>,
    lines: &'a [String],
}

impl<'a> ExpectedLog<'a> {
    pub(crate) fn of(case: &'a Case, policy: Arc<CompiledPolicy>) -> Result<Self, String> {
        let Some(lines) = &case.flow_log else { return Ok(ExpectedLog(None)) };
        let format = case.flow_log_format.as_deref().unwrap_or("v2");
        let format: Format = format.parse().map_err(|e| format!("flow_log_format: {e}"))?;
        let interval = Interval::from_secs(case.flow_log_interval.unwrap_or(600));
        let config = Config {
            interval: interval.map_err(|e| format!("flow_log_interval: {e}"))?,
            traffic: match case.flow_log_traffic.as_deref() {
                None => Traffic::All,
                Some("accept") => Traffic::Accept,
                Some("reject") => Traffic::Reject,
                Some(word) => return Err(format!("flow_log_traffic: {word:?} is none")),
            },
            fields: format.clone(),
            max_records: case.flow_log_max.unwrap_or(1000),
            only: None,
            hash_seed: [0x5eed, 1, 2, 3],
        };
        let log = FlowLog::new(policy, config);
        Ok(ExpectedLog(Some(Expected { log, format, found: Vec::new(), lines })))
    }

    pub(crate) fn set_policy(&mut self, policy: Arc<CompiledPolicy>) {
        if let Some(expected) = &mut self.0 {
            expected.log.set_policy(policy);
        }
    }

    pub(crate) fn record(&mut self, event: &Event<'_>) {
        if let Some(expected) = &mut self.0 {
            let Expected { log, format, found, .. } = expected;
            log.record(event, &mut keep(format, found));
        }
    }

    /// Ends the log; if its lines are not those expected, says so in `wrong`.
    pub(crate) fn finish(self, now: Timestamp, wrong: &mut Vec<String>) {
        let Some(Expected { mut log, format, mut found, lines }) = self.0 else { return };
        log.finish(now, &mut keep(&format, &mut found));
        if found != lines {
            let found = found.join("\n      ");
            wrong.push(format!("the flow log is otherwise:\n      {found}"));
        }
    }
}

fn keep<'a>(
    format: &'a Format,
    found: &'a mut Vec<String>,
) -> impl FnMut(&FlowLogRecord<'_>) + use<'a> {
    move |record| found.push(format.line(record).to_string())
}
