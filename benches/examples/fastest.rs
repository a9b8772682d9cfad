//! The fastest of many short runs of the pipeline, ns a packet: what is left when nothing else
//! disturbs. `fastest [FLOWS] [RULES] [RUNS]`

use std::time::Instant;

use sgwall_benches::workload::{DATA, Frames, judge, open, pipeline, shuffled};
use sgwall_packet::Direction;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u32>().ok());
    let flows = arguments.next().unwrap_or(10_000);
    let rules = arguments.next().unwrap_or(1000);
    let runs = arguments.next().unwrap_or(3_000_000 / flows.max(300)).max(20);
    let mut pipeline = pipeline(rules as usize, flows as usize + 64);
    open(&mut pipeline, flows);
    let order = shuffled(flows).into_iter();
    let data = Frames::new(DATA, Direction::Ingress, order, &[60]);
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(judge(&mut pipeline, &data), flows as usize);
            begin.elapsed().as_nanos() as f64 / f64::from(flows)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (fastest, median) = (times[0], times[times.len() / 2]);
    println!("{flows} flows, {rules} rules: fastest {fastest:.1} ns, median {median:.1} ns");
}
