//! `sgwall replay`: judges captures by a policy, packet by packet.
//!
//! Here flags are resolved to what they mean, captures are read, and each event goes to whoever
//! wants it: [`record`] makes it printable, [`summary`] adds up, [`split`] writes packets back,
//! [`flow_log`] keeps a flow log. [`changes`] holds the policies that take over on the way.

mod changes;
mod flow_log;
mod record;
mod split;
mod summary;

use std::fs;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use sgwall_dataplane::{Attribution, Config, Judge, Pipeline, Sink};
use sgwall_netio::capture::{self, Packet, Reader};
use sgwall_netio::seed::random_seed;
use sgwall_rules::compile::{CompiledPolicy, Generation};

use crate::cli::{OnReload, ReplayArgs};
use crate::failure::Failure;
use crate::policy;
use crate::traffic::{attribution, frame_input, local_ranges};
pub(crate) use changes::At;
use changes::{Change, Changes};
use flow_log::FlowLogFile;
use record::{Printer, Reload};
use split::Split;
use summary::Summary;

const EXAMPLE_POLICY: &[u8] = include_bytes!("../../example/policy.toml");
const EXAMPLE_CAPTURE: &[u8] = include_bytes!("../../example/capture.pcapng");
const EXAMPLE_NOTE: &str = "\
No capture and no policy given: this is the embedded example. To judge your own:
  sgwall replay CAPTURE --policy POLICY
";

/// What is printed for each packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Summary,
    Packets,
    Json,
}

/// Where a capture comes from.
enum Capture {
    Embedded,
    File(PathBuf),
}

/// Everything that one run needs, resolved from the flags.
struct Replay<'a> {
    args: &'a ReplayArgs,
    captures: Vec<Capture>,
    judge: Judge,
    policy: Arc<CompiledPolicy>,
    changes: Changes,
    printer: Printer,
    split: Split,
    flow_log: Option<FlowLogFile>,
    summary: Summary,
}

/// Runs the command.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let (captures, policies) = captures_and_policies(args)?;
    let policy = policy::compile(&policies, Generation(0))?;
    let attribution = attribution(&args.traffic, &policy)?;
    let changes = Changes::load(&args.at, &policy)?;
    for change in changes.given() {
        attribution_after(args, &change.policy)?;
    }
    let config = Config { max_flows: args.traffic.max_flows, hash_seed: random_seed() };
    let output = match (args.json, args.packets) {
        (true, _) => Output::Json,
        (false, true) => Output::Packets,
        (false, false) => Output::Summary,
    };
    if matches!(captures[..], [Capture::Embedded]) {
        anstream::eprintln!("{EXAMPLE_NOTE}");
    }
    let flow_log = FlowLogFile::create(args, &policy, &attribution)?;
    let replay = Replay {
        judge: Judge::new(Pipeline::new(Arc::clone(&policy), config), attribution)
            .with_offload(args.traffic.offload),
        printer: Printer::new(output, captures.len() > 1),
        split: Split::create(args.pass.as_deref(), args.drop.as_deref(), args.emitted.as_deref())?,
        flow_log,
        summary: Summary::new(&policy),
        args,
        captures,
        policy,
        changes,
    };
    let stdout = anstream::AutoStream::auto(io::stdout().lock());
    replay.run(output, BufWriter::with_capacity(1 << 16, stdout))
}

impl Replay<'_> {
    fn run(mut self, output: Output, mut out: impl Write) -> Result<(), Failure> {
        let mut damage = Ok(());
        for capture in std::mem::take(&mut self.captures) {
            match self.one_capture(&capture, &mut out) {
                // What was read before the damage has been judged: report it first.
                Err(Failure::Capture(error)) => {
                    damage = Err(Failure::Capture(error));
                    break;
                }
                result => result?,
            }
        }
        self.split.finish()?;
        self.summary.end_policy(&self.judge);
        for change in self.changes.never_due() {
            anstream::eprintln!(
                "warning: --at {}={}: the captures end before that time",
                change.time,
                change.name
            );
        }
        let mut only_flow_log = false;
        if let Some(flow_log) = &mut self.flow_log {
            flow_log.finish()?;
            only_flow_log = flow_log.is_stdout();
        }
        let written = match output {
            _ if only_flow_log => {
                let mut err = anstream::stderr().lock();
                self.summary.write_text(&mut err, &self.judge)
            }
            Output::Json => self.summary.write_json(&mut out, &self.judge),
            _ => self.summary.write_text(&mut out, &self.judge),
        };
        written.and_then(|()| out.flush()).map_err(Failure::Output)?;
        damage
    }

    fn one_capture(&mut self, capture: &Capture, out: &mut impl Write) -> Result<(), Failure> {
        match capture {
            Capture::Embedded => {
                let reader = Reader::new(EXAMPLE_CAPTURE, "embedded example")?;
                self.judge_all(reader, None, out)
            }
            Capture::File(path) => {
                let reader = capture::open(path)?;
                let progress = progress_bar(path);
                let result = self.judge_all(reader, progress.as_ref(), out);
                if let Some(bar) = progress {
                    bar.finish_and_clear();
                }
                result
            }
        }
    }

    /// Judges a whole capture. Its frames are numbered from 1.
    fn judge_all(
        &mut self,
        mut reader: Reader<'_>,
        progress: Option<&ProgressBar>,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        self.printer.begin(reader.name());
        self.summary.captures += 1;
        let mut frame = 0;
        let end = loop {
            match reader.next_packet() {
                Ok(Some(packet)) => {
                    frame += 1;
                    while let Some(change) = self.changes.due(packet.time) {
                        self.change_policy(change, &packet, out)?;
                    }
                    self.with_sink(out, |judge, sink| {
                        judge.judge(frame_input(frame, &packet), sink);
                    })?;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(Failure::Capture(error)),
            }
            if let Some(bar) = progress.filter(|_| frame % 8192 == 0) {
                bar.set_position(reader.bytes_read());
            }
        };
        self.with_sink(out, |judge, sink| judge.finish(sink))?;
        end
    }

    /// Lets the judge work, its events going to whoever wants them.
    fn with_sink(
        &mut self,
        out: &mut impl Write,
        work: impl FnOnce(&mut Judge, Sink<'_>),
    ) -> Result<(), Failure> {
        let Replay { judge, policy, printer, split, flow_log, summary, .. } = self;
        let mut failed = None;
        work(judge, &mut |event| {
            summary.add(&event);
            let printed = printer.print(out, policy, &event).map_err(Failure::Output);
            let written = printed.and_then(|()| split.write(&event, policy)).and_then(|()| {
                flow_log.as_mut().map_or(Ok(()), |flow_log| flow_log.record(&event))
            });
            if let Err(failure) = written {
                failed.get_or_insert(failure);
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Lets a policy take over before a packet is judged.
    fn change_policy(
        &mut self,
        change: Change,
        packet: &Packet<'_>,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let attribution = attribution_after(self.args, &change.policy)?;
        self.summary.end_policy(&self.judge);
        self.summary.begin_policy(&change.policy);
        if let Some(flow_log) = &mut self.flow_log {
            flow_log.set_policy(&change.policy);
        }
        self.judge.set_policy(Arc::clone(&change.policy), attribution);
        self.policy = change.policy;
        let reload = Reload {
            file: &change.name,
            live: self.judge.pipeline().connections().iter(packet.time).count(),
            not_admitted: self.judge.pipeline().count_not_admitted(packet.time),
            ended: match self.args.on_reload {
                OnReload::Keep => 0,
                OnReload::Rejudge => self.judge.rejudge(packet.time),
            },
        };
        self.printer.policy(out, &reload, packet).map_err(Failure::Output)
    }
}

/// Tells captures from policies. `--policy p.toml web.pcap` reads as two policies to the command
/// line; a capture among them is known by its first bytes and was meant as one.
fn captures_and_policies(
    args: &ReplayArgs,
) -> Result<(Vec<Capture>, Vec<policy::NamedBytes>), Failure> {
    if args.captures.is_empty() && args.policy.is_empty() {
        let example = ("embedded example policy".to_owned(), EXAMPLE_POLICY.to_vec());
        return Ok((vec![Capture::Embedded], vec![example]));
    }
    let (misplaced, policies): (Vec<_>, Vec<_>) =
        args.policy.iter().cloned().partition(|path| looks_like_capture(path));
    let captures: Vec<_> =
        args.captures.iter().cloned().chain(misplaced).map(Capture::File).collect();
    if captures.is_empty() {
        return Err(Failure::Usage("no capture given; name one, or - for standard input".into()));
    }
    if policies.is_empty() {
        return Err(Failure::Usage(
            "no policy given; name one with --policy FILE (TOML, or JSON of aws ec2 describe-*)"
                .into(),
        ));
    }
    Ok((captures, policy::read(&policies)?))
}

fn looks_like_capture(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && capture::is_magic(magic)
}

/// The same under a policy that takes over later. There, an interface that is gone judges nothing
/// more.
fn attribution_after(args: &ReplayArgs, policy: &CompiledPolicy) -> Result<Attribution, Failure> {
    let args = &args.traffic;
    if args.interface.is_empty() && !policy.interfaces().is_empty() {
        return attribution(args, policy);
    }
    let only = args.interface.iter().filter_map(|id| policy.interface_by_id(id)).collect();
    Ok(Attribution {
        only: Some(only),
        direction: args.direction.map(Into::into),
        local: local_ranges(args),
    })
}

/// A bar on standard error for files that take a while; none where nobody watches.
fn progress_bar(path: &Path) -> Option<ProgressBar> {
    const WORTH_A_BAR: u64 = 16 << 20;
    let len = fs::metadata(path).ok()?.len();
    if len < WORTH_A_BAR || !io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template(
        "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    );
    let bar = ProgressBar::new(len).with_prefix(path.display().to_string());
    Some(style.map_or(bar.clone(), |style| bar.with_style(style)))
}
