//! `sgwall replay`: judges captures by a policy, packet by packet.
//!
//! Here flags are resolved to what they mean, captures are read and judged by one worker;
//! [`parallel`] is how several do it. Each event is added up ([`sums`], [`summary`]) and goes to the
//! [`outlet`]: [`record`] makes it printable, [`split`] writes packets back, [`flow_log`] keeps a
//! flow log. [`changes`] holds the policies that take over on the way.

mod changes;
mod dropped;
mod flow_log;
mod outlet;
mod parallel;
mod record;
mod report;
mod split;
mod steering;
mod summary;
mod sums;

use std::fs;
use std::hint::black_box;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use sgwall_conntrack::{Allowance, Probe};
use sgwall_dataplane::{
    Attribution, Config, Event, FrameInput, Judge, Names, Pipeline, Sight, Sink,
};
use sgwall_netio::capture::{self, Batch, CaptureError, Packet, Reader};
use sgwall_netio::seed::random_seed;
use sgwall_rules::compile::{CompiledPolicy, Generation};

use crate::cli::{OnReload, ReplayArgs, TableArgs};
use crate::failure::Failure;
use crate::policy;
use crate::traffic::{attribution, attribution_after, frame_input};
pub(crate) use changes::At;
use changes::{Change, Changes};
use flow_log::FlowLogFile;
use outlet::{Outlet, SummaryPlace};
use record::{Form, Reload};
pub(crate) use record::{admitting_rule, rule as deciding_rule};
use report::Report;
use split::Split;
use summary::{Ended, Summary};
use sums::Sums;

/// Bytes that one worker reads at once: they fit into the processor's cache.
const BATCH: usize = 256 << 10;
/// Frames that are looked at before they are judged.
const TOGETHER: usize = 32;
/// Workers at once.
pub(crate) const MAX_WORKERS: u16 = sums::MAX_PARTS as u16;

const EXAMPLE_POLICY: &[u8] = include_bytes!("../../example/policy.toml");
const EXAMPLE_CAPTURE: &[u8] = include_bytes!("../../example/capture.pcapng");
/// Flows for which a table has room from the beginning.
const ROOM: usize = 1 << 10;
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

/// What is to be judged, resolved from the flags.
struct Replay<'a> {
    args: &'a ReplayArgs,
    captures: Vec<Capture>,
    policy: Arc<CompiledPolicy>,
    attribution: Attribution,
    changes: Changes,
}

/// A replay on its way, of which each worker has a part.
struct Run<'a> {
    replay: &'a Replay<'a>,
    changes: Changes,
    summary: Summary,
    /// Frames so far, of all captures; the end of a capture counts as one.
    frames: u64,
}

/// What one worker has of a replay.
struct Part {
    judge: Judge,
    sums: Sums,
    ahead: Ahead,
}

/// Frames that are looked at before they are judged, so that their flows are looked up together:
/// the misses of the processor's cache then wait for each other no more.
#[derive(Default)]
struct Ahead {
    /// Of the present frames, and perhaps of some before.
    sights: Vec<Sight>,
    probes: Vec<Probe>,
}

impl Ahead {
    fn look<'f>(&mut self, judge: &Judge, frames: impl Iterator<Item = FrameInput<'f>> + Clone) {
        touch(frames.clone());
        let mut seen = 0;
        for frame in frames {
            if self.sights.len() <= seen {
                self.sights.push(Sight::NOTHING);
                self.probes.push(Probe::NOTHING);
            }
            let sight = &mut self.sights[seen];
            judge.look(&frame, sight);
            let probe = &mut self.probes[seen];
            *probe = Probe::NOTHING;
            judge.probe_seen(sight, probe);
            seen += 1;
        }
        judge.locate(&mut self.probes[..seen]);
    }

    fn get(&self, number: usize) -> Option<(&Sight, &Probe)> {
        Some((self.sights.get(number)?, self.probes.get(number)?))
    }
}

/// Reads a byte of each frame's headers, so that all of them are waited for at once: what another
/// thread has read lies in its cache.
fn touch<'f>(frames: impl Iterator<Item = FrameInput<'f>>) {
    let bytes = frames.map(|frame| frame.data.get(TOUCHED).copied().unwrap_or_default());
    black_box(bytes.fold(0, |all, byte| all ^ byte));
}

/// A place in the headers of most frames: the protocol of IPv4 on Ethernet.
const TOUCHED: usize = 23;

/// A replay that has been judged.
struct Judged<'a> {
    run: Run<'a>,
    parts: Vec<Part>,
    /// What was read before the damage has been judged: it is reported first.
    damage: Result<(), CaptureError>,
}

/// Runs the command.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let (captures, policies) = captures_and_policies(args)?;
    let policy = policy::compile(&policies, Generation(0))?;
    let attribution = attribution(&args.traffic, &policy)?;
    let changes = Changes::load(&args.at, &policy)?;
    for policy in std::iter::once(&policy).chain(changes.given().iter().map(|of| &of.policy)) {
        let interfaces = policy.interfaces().iter();
        args.traffic.table.check_reserves(interfaces.map(|of| (of.id.as_str(), of.flows)))?;
    }
    for change in changes.given() {
        attribution_after(&args.traffic, &change.policy)?;
    }
    let output = match (args.json, args.packets) {
        (true, _) => Output::Json,
        (false, true) => Output::Packets,
        (false, false) => Output::Summary,
    };
    if matches!(captures[..], [Capture::Embedded]) {
        anstream::eprintln!("{EXAMPLE_NOTE}");
    }
    let flow_log = FlowLogFile::create(args, &policy, &attribution)?;
    let report = Report::create(args.report.as_deref(), &policy)?;
    let split = Split::create(args.pass.as_deref(), args.drop.as_deref(), args.emitted.as_deref())?;
    let stdout: Box<dyn Write> = match output {
        // Without any style, so that nobody need look for one.
        Output::Json => Box::new(io::stdout().lock()),
        _ => Box::new(anstream::AutoStream::auto(io::stdout().lock())),
    };
    let out = Box::new(BufWriter::with_capacity(1 << 16, stdout));
    let form = Form { output, several: captures.len() > 1 };
    let outlet = Outlet::new(form, out, split, flow_log, report, &policy);
    Replay { args, captures, policy, attribution, changes }.run(outlet)
}

impl Replay<'_> {
    fn run(&self, mut outlet: Outlet<'_>) -> Result<(), Failure> {
        // What cannot be read twice is judged by one worker: see `parallel`.
        let workers = match self.captures.iter().all(Capture::is_readable_again) {
            true => self.args.workers.into(),
            false => 1,
        };
        let together = match workers {
            1 => None,
            _ => parallel::judge(self, workers, &mut outlet)?,
        };
        match together {
            Some(judged) => judged.report(outlet),
            None => self.judge_alone(&mut outlet)?.report(outlet),
        }
    }

    /// A replay that begins, and its parts.
    fn begin(&self, workers: usize) -> (Run<'_>, Vec<Part>) {
        let mut summary = Summary::new();
        let places = summary.begin_policy(&self.policy);
        let part = |_| Part {
            judge: new_judge(self.args, &self.policy, self.attribution.clone()),
            sums: Sums::new(places.clone()),
            ahead: Ahead::default(),
        };
        let parts = (0..workers).map(part).collect();
        (Run { replay: self, changes: self.changes.clone(), summary, frames: 0 }, parts)
    }

    /// Judges everything, in this thread.
    fn judge_alone(&self, outlet: &mut Outlet<'_>) -> Result<Judged<'_>, Failure> {
        let (mut run, mut parts) = self.begin(1);
        let mut damage = Ok(());
        for capture in &self.captures {
            let mut opened = match capture.open() {
                Ok(opened) => opened,
                Err(error) => {
                    damage = Err(error);
                    break;
                }
            };
            run.begin(&opened, outlet);
            for part in &mut parts {
                damage = run.judge_capture(&mut opened, part, outlet)?;
            }
            if damage.is_err() {
                break;
            }
        }
        Ok(Judged { run, parts, damage })
    }
}

impl Run<'_> {
    fn begin(&mut self, capture: &Opened, outlet: &mut Outlet<'_>) {
        outlet.begin(capture.reader.name());
        self.summary.captures += 1;
    }

    /// Judges a whole capture, or what is not damaged of it. Its frames are numbered from 1.
    fn judge_capture(
        &mut self,
        capture: &mut Opened,
        part: &mut Part,
        outlet: &mut Outlet<'_>,
    ) -> Result<Result<(), CaptureError>, Failure> {
        let (mut number, mut batch) = (1, Batch::default());
        let only_counts = outlet.only_counts();
        let end = loop {
            match capture.reader.next_batch(&mut batch, BATCH) {
                Ok(()) if batch.is_empty() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
            let mut packets = batch.iter().peekable();
            let mut frames = [FrameInput::NOTHING; TOGETHER];
            while let Some(packet) = packets.peek() {
                while let Some(change) = self.changes.due(packet.time) {
                    self.change_policy(change, packet, &mut [&mut *part], outlet)?;
                }
                let mut count = 0;
                while let Some(frame) = frames.get_mut(count)
                    && let Some(packet) = packets.next_if(|next| !self.changes.is_due(next.time))
                {
                    *frame = frame_input(number, &packet);
                    number += 1;
                    count += 1;
                }
                let frames = &frames[..count];
                part.ahead.look(&part.judge, frames.iter().copied());
                for (seen, frame) in frames.iter().enumerate() {
                    if !only_counts || !part.count_seen(seen, frame, self.frames) {
                        part.deliver_seen(seen, *frame, self.frames, outlet)?;
                    }
                    self.frames += 1;
                }
            }
            capture.show_progress();
        };
        part.finish(self.frames, outlet)?;
        self.frames += 1;
        Ok(end)
    }

    /// Lets a policy take over before a packet is judged.
    fn change_policy(
        &mut self,
        change: Change,
        packet: &Packet<'_>,
        parts: &mut [&mut Part],
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Failure> {
        let attribution = attribution_after(&self.replay.args.traffic, &change.policy)?;
        self.summary.end_policy(parts.iter().map(|part| &part.judge));
        let places = self.summary.begin_policy(&change.policy);
        let mut reload = Reload { file: &change.name, live: 0, not_admitted: 0, ended: 0 };
        for Part { judge, sums, .. } in parts {
            judge.set_policy(Arc::clone(&change.policy), attribution.clone());
            sums.set_places(places.clone());
            let now = judge.clock().at(packet.time);
            reload.live += judge.pipeline().connections().iter(now).count();
            reload.not_admitted += judge.pipeline().count_not_admitted(now);
            if self.replay.args.on_reload == OnReload::Rejudge {
                reload.ended += judge.rejudge(now);
            }
        }
        outlet.change_policy(&change.policy, &reload, packet)
    }
}

/// Lets a judge work, its events going to whoever wants them.
#[inline]
fn deliver(
    judge: &mut Judge,
    sums: &mut Sums,
    frame: u64,
    outlet: &mut Outlet<'_>,
    work: impl FnOnce(&mut Judge, Sink<'_>),
) -> Result<(), Failure> {
    let mut delivered = Ok(());
    work(judge, &mut |event: Event<'_>| {
        sums.add(&event, frame);
        if delivered.is_ok() {
            delivered = outlet.event(&event, frame);
        }
    });
    delivered
}

impl Part {
    /// Ends a capture. What was held in it is told of.
    fn finish(&mut self, frame: u64, outlet: &mut Outlet<'_>) -> Result<(), Failure> {
        deliver(&mut self.judge, &mut self.sums, frame, outlet, |judge, sink| judge.finish(sink))
    }

    /// Judges a frame, the one of this number among those that were looked at, if all there is to
    /// tell of it is one verdict; false, and nothing is changed but the time, if not.
    #[inline]
    fn count_seen(&mut self, seen: usize, input: &FrameInput<'_>, frame: u64) -> bool {
        let Part { judge, sums, ahead } = self;
        let Some((sight, probe)) = ahead.get(seen) else { return false };
        let plain = judge.judge_plain_seen(input.time, input.data, sight, probe);
        if let Some(plain) = &plain {
            sums.add_plain(plain, sight.headers(), input.wire_len, frame);
        }
        plain.is_some()
    }

    /// Judges such a frame, whatever there is to tell of it.
    #[inline(never)]
    fn deliver_seen(
        &mut self,
        seen: usize,
        input: FrameInput<'_>,
        frame: u64,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Failure> {
        let Part { judge, sums, ahead } = self;
        let Some((sight, probe)) = ahead.get(seen) else { return Ok(()) };
        deliver(judge, sums, frame, outlet, |judge, sink| {
            judge.judge_seen(input, sight, Some(probe), sink);
        })
    }
}

impl Judged<'_> {
    /// Says what it adds up to.
    fn report(self, outlet: Outlet<'_>) -> Result<(), Failure> {
        let Judged { mut run, parts, damage } = self;
        let (judges, sums): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|part| (part.judge, part.sums)).unzip();
        let place = outlet.finish()?;
        run.summary.end_policy(judges.iter());
        for change in run.changes.never_due() {
            anstream::eprintln!(
                "warning: --at {}={}: the captures end before that time",
                change.time,
                change.name
            );
        }
        let judges: Vec<_> = judges.iter().collect();
        let ended = Ended { summary: &run.summary, sums: &Sums::of(sums), judges: &judges };
        let written = match place {
            SummaryPlace::StandardError => ended.write_text(&mut anstream::stderr().lock()),
            SummaryPlace::Output(Output::Json, mut out) => {
                ended.write_json(&mut out).and_then(|()| out.flush())
            }
            SummaryPlace::Output(_, mut out) => {
                ended.write_text(&mut out).and_then(|()| out.flush())
            }
        };
        written.map_err(Failure::Output)?;
        damage.map_err(Failure::Capture)
    }
}

/// A capture that is being read.
struct Opened {
    reader: Reader<'static>,
    progress: Option<ProgressBar>,
}

impl Capture {
    fn open(&self) -> Result<Opened, CaptureError> {
        Ok(match self {
            Capture::Embedded => {
                Opened { reader: Reader::new(EXAMPLE_CAPTURE, "embedded example")?, progress: None }
            }
            Capture::File(path) => {
                Opened { reader: capture::open(path)?, progress: progress_bar(path) }
            }
        })
    }

    fn is_readable_again(&self) -> bool {
        match self {
            Capture::Embedded => true,
            Capture::File(path) => {
                path != Path::new("-") && fs::metadata(path).is_ok_and(|file| file.is_file())
            }
        }
    }
}

impl Opened {
    fn show_progress(&self) {
        if let Some(bar) = &self.progress {
            bar.set_position(self.reader.bytes_read());
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(bar) = &self.progress {
            bar.finish_and_clear();
        }
    }
}

/// A judge whose flow table grows as it needs: most captures have few of the flows that they may
/// have, and those are judged twice as fast in a table that fits into the processor's cache.
fn new_judge(args: &ReplayArgs, policy: &Arc<CompiledPolicy>, attribution: Attribution) -> Judge {
    let TableArgs { max_flows, full_table } = args.traffic.table;
    let allowance = Arc::new(Allowance::new(max_flows, 1));
    let config = Config {
        max_flows: ROOM.min(max_flows),
        full_table: full_table.into(),
        hash_seed: random_seed(),
    };
    let names = Names::new(policy);
    let pipeline = Pipeline::sharing(Arc::clone(policy), names, config, allowance);
    Judge::new(pipeline, attribution).with_offload(args.traffic.offload)
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
