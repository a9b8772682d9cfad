//! The fastest of many short runs of the pipeline, ns a packet: what is left when nothing else
//! disturbs. `fastest [FLOWS] [RULES]`

use std::time::Instant;

use sgwall_benches::workload::{Frames, judge, open, pipeline, shuffled};
use sgwall_packet::Direction;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u32>().ok());
    let flows = arguments.next().unwrap_or(10_000);
    let rules = arguments.next().unwrap_or(1000);
    let runs = arguments.next().unwrap_or(3_000_000 / flows.max(300));
    let mut pipeline = pipeline(rules as usize, flows as usize + 64);
    open(&mut pipeline, flows);
    let line = "tcp 203.0.0.1:1 -> 10.0.1.10:443 A seq=2 ack=2 win=65535 len=6";
    let data = Frames::new(line, Direction::Ingress, shuffled(flows).into_iter());
    let mut times = Vec::new();
    for _ in 0..runs.max(20) {
        let begin = Instant::now();
        assert_eq!(judge(&mut pipeline, &data), flows as usize);
        times.push(begin.elapsed().as_nanos() as f64 / f64::from(flows));
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{flows} flows, {rules} rules: fastest {:.1} ns, median {:.1} ns",
        times[0],
        times[times.len() / 2]
    );
}
