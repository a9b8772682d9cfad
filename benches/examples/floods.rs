//! Floods of millions of packets, measured: what honest traffic loses, what the table holds, how much
//! memory is used, and how many packets a second of one processor's time go through meanwhile.
//!
//! ```sh
//! cargo run --release -p sgwall-benches --example floods -- --packets 4000000
//! ```

// Whoever measures reads files and starts processes.
#![allow(clippy::disallowed_methods)]

use std::process::Command;

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use sgwall_benches::floods::{Attack, Flood, Limits, Plan, Report, Tried};
use sgwall_dataplane::FullTable;

#[derive(Parser)]
struct Args {
    /// Packets of each flood
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(100_000..))]
    packets: u64,

    /// Places of the flow table
    #[arg(long, default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(10_000..))]
    max_flows: u32,

    /// Print a JSON object for each run
    #[arg(long)]
    json: bool,

    /// One run alone, by its number
    #[arg(long)]
    one: Option<usize>,
}

/// Seconds that this thread has had a processor: what else the machine does takes none of them.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes of memory in use.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Every flood under every policy.
fn plans(args: &Args) -> Vec<Plan> {
    let settings = [Limits::None, Limits::Reserve, Limits::Cap];
    let mut plans = Vec::new();
    for attack in Attack::ALL {
        // Where nothing fills, limits change nothing.
        let settings = if attack == Attack::IcmpErrors { &settings[..1] } else { &settings[..] };
        for &limits in settings {
            for full_table in [FullTable::DropNew, FullTable::EvictEmbryonic] {
                plans.push(Plan {
                    attack,
                    full_table,
                    limits,
                    max_flows: args.max_flows as usize,
                    packets: args.packets,
                    established: 5000,
                    tries: 1000,
                    // At a million packets a second: 20 ms.
                    round_trip: 20_000,
                    look_every: 65_536,
                });
            }
        }
    }
    plans
}

fn main() -> Result<(), String> {
    let args = Args::parse();
    let plans = plans(&args);
    if let Some(one) = args.one {
        let plan = plans.get(one).ok_or("there is no such run")?;
        return measure(*plan, args.json);
    }
    if !args.json {
        println!(
            "| flood | full table | limits | packets | established: sent, lost | new on web | new \
             on db | peak flows | refused | evicted | memory, MB | million packets/s |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    }
    // Each in a process of its own, whose memory is its own.
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    for one in 0..plans.len() {
        let mut command = Command::new(&program);
        command.args(std::env::args().skip(1)).arg("--one").arg(one.to_string());
        let status = command.status().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("run {one} failed"));
        }
    }
    Ok(())
}

fn measure(plan: Plan, json: bool) -> Result<(), String> {
    let flood = Flood::new(plan, [1, 2, 3, 4])?;
    let (before, begun) = (resident(), processor_time());
    let (report, memory) = flood.run_and(|| resident().saturating_sub(before))?;
    let rate = report.frames as f64 / (processor_time() - begun);
    match json {
        true => println!("{}", object(&plan, &report, memory, rate)),
        false => row(&plan, &report, memory, rate),
    }
    Ok(())
}

fn row(plan: &Plan, report: &Report, memory: u64, rate: f64) {
    let share = |tried: Tried| {
        format!("{:.1} %", 100.0 * tried.succeeded as f64 / tried.tried.max(1) as f64)
    };
    println!(
        "| {} | {} | {} | {} | {}, {} | {} | {} | {} | {} | {} | {:.1} | {:.2} |",
        plan.attack.as_str(),
        plan.full_table.as_str(),
        plan.limits.as_str(),
        report.flood,
        report.established,
        report.established_lost + report.completed_lost,
        share(report.web),
        share(report.db),
        report.peak_flows,
        report.refused,
        report.evicted,
        memory as f64 / 1e6,
        rate / 1e6,
    );
}

fn object(plan: &Plan, report: &Report, memory: u64, rate: f64) -> serde_json::Value {
    let tried = |tried: Tried| json!({ "tried": tried.tried, "succeeded": tried.succeeded });
    json!({
        "attack": plan.attack.as_str(),
        "full_table": plan.full_table.as_str(),
        "limits": plan.limits.as_str(),
        "max_flows": plan.max_flows,
        "packets": report.flood,
        "established_sent": report.established,
        "established_lost": report.established_lost,
        "completed_lost": report.completed_lost,
        "new_on_web": tried(report.web),
        "new_on_db": tried(report.db),
        "peak_flows": report.peak_flows,
        "peak_datagrams": report.peak_datagrams,
        "refused": report.refused,
        "evicted": report.evicted,
        "longest_search": report.longest_search,
        "memory_bytes": memory,
        "packets_per_second": rate,
    })
}
