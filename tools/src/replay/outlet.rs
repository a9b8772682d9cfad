//! Where the results of a replay go: standard output, the files of `--pass`, `--drop` and
//! `--emitted`, and the flow log. All in the order in which one worker comes to them.
//!
//! A replay may begin anew when workers cannot go on together ([`super::parallel`]): what has gone
//! out already then goes out no more.

use std::io::Write;
use std::sync::Arc;

use sgwall_dataplane::Event;
use sgwall_netio::capture::Packet;
use sgwall_rules::compile::CompiledPolicy;

use super::Output;
use super::flow_log::FlowLogFile;
use super::record::{Form, Reload};
use super::report::Report;
use super::split::Split;
use crate::failure::Failure;

/// See the module.
pub(super) struct Outlet<'a> {
    pub(super) form: Form,
    out: Box<dyn Write + 'a>,
    split: Split,
    flow_log: Option<FlowLogFile>,
    report: Option<Report>,
    policy: Arc<CompiledPolicy>,
    capture: Arc<str>,
    /// Whether the capture's heading is printed.
    has_heading: bool,
    come_to: Extent,
    gone_out: Extent,
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    /// Frames of all captures; the end of a capture counts as one.
    frames: u64,
    changes: usize,
    captures: usize,
}

impl<'a> Outlet<'a> {
    pub(super) fn new(
        form: Form,
        out: Box<dyn Write + 'a>,
        split: Split,
        flow_log: Option<FlowLogFile>,
        report: Option<Report>,
        policy: &Arc<CompiledPolicy>,
    ) -> Self {
        Outlet {
            form,
            out,
            split,
            flow_log,
            report,
            policy: Arc::clone(policy),
            capture: "".into(),
            has_heading: false,
            come_to: Extent::default(),
            gone_out: Extent::default(),
        }
    }

    /// Whether anyone wants the events themselves, in their order.
    pub(super) fn wants_events(&self) -> bool {
        self.split.is_wanted() || self.flow_log.is_some() || self.report.is_some()
    }

    /// Whether all that is wanted of packets is that they are counted.
    #[inline]
    pub(super) fn only_counts(&self) -> bool {
        self.form.output == Output::Summary && !self.wants_events()
    }

    /// Begins the replay again under its first policy: what comes before `frame` has gone out.
    pub(super) fn begin_anew(&mut self, frame: u64, policy: &Arc<CompiledPolicy>) {
        self.gone_out = Extent { frames: frame, ..self.come_to };
        self.come_to = Extent::default();
        self.policy = Arc::clone(policy);
    }

    /// Goes on to the next capture.
    pub(super) fn begin(&mut self, capture: &str) {
        self.come_to.captures += 1;
        if self.come_to.captures > self.gone_out.captures {
            (self.capture, self.has_heading) = (capture.into(), false);
            if let Some(report) = &mut self.report {
                report.begin(capture);
            }
        }
    }

    /// The capture.
    pub(super) fn capture(&self) -> Arc<str> {
        Arc::clone(&self.capture)
    }

    /// Takes an event that came with a frame.
    #[inline]
    pub(super) fn event(&mut self, event: &Event<'_>, frame: u64) -> Result<(), Failure> {
        if frame < self.gone_out.frames {
            return Ok(());
        }
        if self.form.output != Output::Summary {
            self.heading()?;
            let Outlet { form, out, policy, capture, .. } = self;
            form.print(&mut **out, policy, event, capture).map_err(Failure::Output)?;
        }
        match self.wants_events() {
            true => self.keep(event),
            false => Ok(()),
        }
    }

    /// Takes the text of events.
    pub(super) fn text(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.heading()?;
        self.out.write_all(text).map_err(Failure::Output)
    }

    /// Takes an event, but for its text.
    pub(super) fn keep(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        self.split.write(event, &self.policy)?;
        if let Some(report) = &mut self.report {
            report.record(event);
        }
        match &mut self.flow_log {
            Some(flow_log) => flow_log.record(event),
            None => Ok(()),
        }
    }

    fn heading(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.has_heading, true) {
            return Ok(());
        }
        self.form.heading(&mut *self.out, &self.capture).map_err(Failure::Output)
    }

    /// Another policy takes over before a packet.
    pub(super) fn change_policy(
        &mut self,
        policy: &Arc<CompiledPolicy>,
        reload: &Reload<'_>,
        before: &Packet<'_>,
    ) -> Result<(), Failure> {
        self.policy = Arc::clone(policy);
        self.come_to.changes += 1;
        if self.come_to.changes <= self.gone_out.changes {
            return Ok(());
        }
        if let Some(flow_log) = &mut self.flow_log {
            flow_log.set_policy(policy);
        }
        if let Some(report) = &mut self.report {
            report.set_policy(policy);
        }
        self.form.policy(&mut *self.out, reload, before).map_err(Failure::Output)
    }

    /// Writes out what is left but for the summary; where that belongs.
    pub(super) fn finish(mut self) -> Result<SummaryPlace<'a>, Failure> {
        self.split.finish()?;
        if let Some(report) = &self.report {
            report.finish()?;
        }
        if let Some(flow_log) = &mut self.flow_log {
            flow_log.finish()?;
            if flow_log.is_stdout() {
                return Ok(SummaryPlace::StandardError);
            }
        }
        Ok(SummaryPlace::Output(self.form.output, self.out))
    }
}

/// Where the summary goes.
pub(super) enum SummaryPlace<'a> {
    /// To standard error, because standard output holds the flow log and nothing else.
    StandardError,
    /// With what was printed before.
    Output(Output, Box<dyn Write + 'a>),
}
