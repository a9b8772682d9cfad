//! The fastest of many short runs of the pipeline, ns a packet: what is left when nothing else
//! disturbs. `fastest [established|new|untracked|refused] [FLOWS] [RULES] [RUNS]`

// It measures time.
#![allow(clippy::disallowed_methods)]

use std::time::Instant;

use sgwall_benches::workload::{DATA, Frames, NOW, judge, open, pipeline, shuffled};
use sgwall_packet::Direction;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "established".into());
    let mut numbers = arguments.filter_map(|text| text.parse::<u32>().ok());
    let flows = numbers.next().unwrap_or(10_000);
    let rules = numbers.next().unwrap_or(1000);
    let runs = numbers.next().unwrap_or(3_000_000 / flows.max(300)).max(20);
    let mut pipeline = pipeline(rules as usize, flows as usize + 64);
    let (line, passed) = match kind.as_str() {
        "new" => ("tcp 203.0.0.1:1 -> 10.0.1.10:443 S seq=1", flows),
        "untracked" => ("udp 203.0.0.1:1 -> 10.0.1.10:53", flows),
        "refused" => ("tcp 203.0.0.1:1 -> 10.0.1.10:444 S", 0),
        _ => {
            open(&mut pipeline, flows);
            (DATA, flows)
        }
    };
    let data = Frames::new(line, Direction::Ingress, shuffled(flows).into_iter(), &[60]);
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            if kind == "new" {
                let places = 0..pipeline.connections().places();
                pipeline.end_flows(places, NOW, |_| true);
            }
            let begin = Instant::now();
            assert_eq!(judge(&mut pipeline, &data), passed as usize);
            begin.elapsed().as_nanos() as f64 / f64::from(flows)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (fastest, median) = (times[0], times[times.len() / 2]);
    println!(
        "{kind}, {flows} flows, {rules} rules: fastest {fastest:.1} ns, median {median:.1} ns"
    );
}
