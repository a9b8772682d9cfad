//! The forwarder that does nothing, between two TAP interfaces that it makes, until it is killed:
//! what any other program is measured against. Says `ready` when it forwards.

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use sgwall_netio::clock::Clock;
use sgwall_netio::device::Device;
use sgwall_netio::device::tap::{Tap, TapOptions};
use sgwall_netio::worker::{NullForwarder, Plan, Workers};

/// Forwards every frame of one interface to the other.
#[derive(Debug, Parser)]
struct Args {
    /// The one interface
    a: String,
    /// The other one
    b: String,
    /// MTU of both, bytes
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let open = |name: &str| Tap::open(&TapOptions { mtu: Some(args.mtu), ..TapOptions::new(name) });
    let queues = open(&args.a)?.queues.into_iter().chain(open(&args.b)?.queues);
    let devices = queues.map(|queue| Box::new(queue) as Box<dyn Device>).collect();
    let workers = Workers::spawn(Clock::new(), vec![Plan { devices, handler: NullForwarder }])?;
    println!("ready");
    while !workers.wait(Duration::from_secs(3600)) {}
    for ended in workers.join() {
        ended.result?;
    }
    Ok(())
}
