//! `sgwall explain`: what becomes of one packet, and why, down to the last rule considered.
//!
//! The packet is written by hand, with others before it if its flow is to be known, or it is a
//! frame of a capture with all before it. [`question`] reads what was asked, [`text`] is the answer
//! for people; for programs it is the dataplane's own explanation as JSON.

mod numbers;
mod question;
mod text;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sgwall_dataplane::{Config, Explanation, FrameInput, Judge, Judgement, Pipeline};
use sgwall_live::control::{Answer, Request};
use sgwall_netio::capture;
use sgwall_netio::seed::random_seed;
use sgwall_packet::{Direction, LinkType, Timestamp};
use sgwall_rules::compile::Generation;

use crate::ask;
use crate::cli::ExplainArgs;
use crate::failure::Failure;
use crate::policy::Loaded;
use crate::traffic::{attribution, frame_input, known_interfaces};
pub(crate) use numbers::Numbers;
pub(crate) use question::Question;
pub(crate) use text::write as write_explanation;

/// The object that `--json` prints.
#[derive(Serialize)]
struct Object<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// Runs the command.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    if args.live {
        return live(args);
    }
    // The question is read before the policy, so that a typing error is told of at once.
    let asked = match args.frame {
        Some(_) => None,
        None => Some(questions(args)?),
    };
    let policy = Loaded::load(&args.policy, Generation(0))?;
    let attribution = attribution(&args.traffic, &policy.compiled)?;
    let config = Config { max_flows: args.traffic.max_flows, hash_seed: random_seed() };
    let pipeline = Pipeline::new(Arc::clone(&policy.compiled), config);
    let mut judge = Judge::new(pipeline, attribution).with_offload(args.traffic.offload);
    let explanation = match (args.frame, asked) {
        (Some(number), _) => frame_of_capture(args, number, &mut judge, &policy)?,
        (None, asked) => by_hand(&asked.unwrap_or_default(), &mut judge, &policy)?,
    };
    print(args, &explanation)
}

/// Asks a running firewall.
fn live(args: &ExplainArgs) -> Result<(), Failure> {
    let Question { packet, direction, .. } = Question::read(&args.packet, "the packet")?;
    let interface = match &args.traffic.interface[..] {
        [] => None,
        [one] => Some(one.clone()),
        _ => return Err(Failure::Usage("--live explains on one --interface".into())),
    };
    let direction = args.traffic.direction.map(Direction::from).or(direction);
    let request = Request::Explain {
        packet: packet.to_string(),
        interface,
        direction: direction.map(|direction| direction.as_str().to_owned()),
    };
    match ask::one(&args.control, &request)? {
        Answer::Explanation(explanation) => print(args, &explanation),
        _ => Err(Failure::Io("the firewall gave another answer than an explanation".into())),
    }
}

fn print(args: &ExplainArgs, explanation: &Explanation) -> Result<(), Failure> {
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    let written = match args.json {
        true => serde_json::to_string(&Object { kind: "explanation", explanation })
            .map_err(io::Error::from)
            .and_then(|object| writeln!(out, "{object}")),
        false => text::write(&mut out, explanation, args.all),
    };
    written.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// The packets before, and last the one that is asked about.
fn questions(args: &ExplainArgs) -> Result<Vec<Question>, Failure> {
    if let [one] = &args.packet[..]
        && Path::new(one).is_file()
    {
        return Err(Failure::Usage(format!(
            "{one} is a file: say which of its frames to explain, with --frame N"
        )));
    }
    let before =
        args.after.iter().map(|packet| Question::read(std::slice::from_ref(packet), "--after"));
    before.chain([Question::read(&args.packet, "the packet")]).collect()
}

/// Judges all but the last of `asked`, and explains that one.
fn by_hand(asked: &[Question], judge: &mut Judge, policy: &Loaded) -> Result<Explanation, Failure> {
    let attribution = judge.attribution().clone();
    let (mut now, mut numbers) = (Timestamp::default(), Numbers::default());
    for (token, question) in (1..).zip(asked) {
        now = question.time.unwrap_or(now);
        let fitting = numbers.fit(&question.packet);
        let data = question.with(fitting.clone()).bytes()?;
        let frame = FrameInput {
            token,
            link: Some(LinkType::RawIp),
            data: &data,
            wire_len: data.len() as u32,
            time: now,
            decimals: 9,
            recorded: None,
        };
        judge.set_attribution(question.attribution(&attribution, &policy.compiled)?);
        if token == asked.len() as u64 {
            let explanation = judge.explain(&policy.model, frame);
            if explanation.decision.reason == "not-ours" {
                return Err(concerns_nobody(question, policy));
            }
            return Ok(explanation);
        }
        let mut passed = false;
        judge.judge(frame, &mut |event| {
            let is_pass = matches!(event.judgement, Judgement::Verdict(v) if v.is_pass());
            passed |= is_pass && event.is_final && event.frame.token == token;
        });
        if passed {
            numbers.note(&fitting);
        }
    }
    Err(Failure::Usage("no packet given".into()))
}

fn concerns_nobody(question: &Question, policy: &Loaded) -> Failure {
    let packet = &question.packet;
    Failure::Usage(format!(
        "the packet concerns nobody: neither {} nor {} is an address of an interface; {}. Name the \
         interface with --interface ENI and begin with ingress or egress, or say which address \
         stands for it with --local ADDRESS",
        packet.src,
        packet.dst,
        known_interfaces(&policy.compiled)
    ))
}

/// Judges the frames before the one of this number, and explains that one.
fn frame_of_capture(
    args: &ExplainArgs,
    number: u64,
    judge: &mut Judge,
    policy: &Loaded,
) -> Result<Explanation, Failure> {
    let [path] = &args.packet[..] else {
        return Err(Failure::Usage(format!(
            "--frame is of one capture, not of {}: name the one",
            args.packet.join(" ")
        )));
    };
    let mut reader = capture::open(Path::new(path))?;
    let mut seen = 0;
    while let Some(packet) = reader.next_packet()? {
        seen += 1;
        let frame = frame_input(seen, &packet);
        if seen == number {
            return Ok(judge.explain(&policy.model, frame));
        }
        judge.judge(frame, &mut |_| {});
    }
    Err(Failure::Usage(format!(
        "--frame {number}: {path} has {seen} frames; they are numbered from 1"
    )))
}
