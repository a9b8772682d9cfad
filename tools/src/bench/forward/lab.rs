//! The laboratory: two network namespaces, a TAP interface in each, workers between them.

use std::time::Duration;

use sgwall_netio::clock::Clock;
use sgwall_netio::device::tap::{Tap, TapOptions};
use sgwall_netio::device::{Device, Features};
use sgwall_netio::netns::{NetnsError, Scratch};
use sgwall_netio::worker::{Handler, Plan, PortStats, Workers};

use crate::bench::args::ForwardArgs;
use crate::failure::Failure;

/// Where the server listens, in its namespace.
pub(super) const SERVER: &str = "10.99.1.10";
/// In the same network, but not in what the measured policy takes for the server's subnet.
pub(super) const CLIENT: &str = "10.99.2.20";
/// The name of the interface in both namespaces.
const INTERFACE: &str = "tap0";

/// Two hosts with nothing between them but the workers. Dropping it takes all of it away.
pub(super) struct Lab {
    // The workers end before the namespaces go.
    workers: Workers<Box<dyn Handler>>,
    pub(super) client: Scratch,
    pub(super) server: Scratch,
    granted: Features,
}

impl Lab {
    /// Two hosts, and a worker for each handler between them.
    pub(super) fn new(
        args: &ForwardArgs,
        clock: Clock,
        handlers: Vec<Box<dyn Handler>>,
    ) -> Result<Self, Failure> {
        let (client, client_tap) = host("client", CLIENT, args)?;
        let (server, server_tap) = host("server", SERVER, args)?;
        let granted = client_tap.granted;
        let queues = client_tap.queues.into_iter().zip(server_tap.queues);
        let plans = queues.zip(handlers).map(|((a, b), handler)| {
            let devices: Vec<Box<dyn Device>> = vec![Box::new(a), Box::new(b)];
            Plan { devices, handler }
        });
        let workers = Workers::spawn(clock, plans.collect())
            .map_err(|error| Failure::Io(error.to_string()))?;
        Ok(Lab { workers, client, server, granted })
    }

    /// What offload the kernel granted.
    pub(super) fn granted(&self) -> Features {
        self.granted
    }

    /// Fails if a worker has ended, with its reason.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.workers.wait(Duration::ZERO) {
            true => Err(Failure::Io("a worker ended while it was measured".to_owned())),
            false => Ok(()),
        }
    }

    /// Ends it, with what the workers counted on both ports.
    pub(super) fn stop(self) -> Result<PortStats, Failure> {
        let Lab { workers, client, server, .. } = self;
        let counters = workers.counters().to_vec();
        for ended in workers.join() {
            ended.result.map_err(|error| Failure::Io(error.to_string()))?;
        }
        drop((client, server));
        let ports = counters.iter().flat_map(|ports| ports.iter());
        Ok(ports.fold(PortStats::default(), |sum, port| sum.plus(port.read())))
    }
}

/// A namespace whose only way out is a TAP interface.
fn host(label: &str, address: &str, args: &ForwardArgs) -> Result<(Scratch, Tap), Failure> {
    let namespace = Scratch::new(label).map_err(|error| needs_root(&error))?;
    let options = TapOptions {
        queues: args.queues.into(),
        mtu: Some(args.mtu.into()),
        offload: !args.no_offload,
        ..TapOptions::new(INTERFACE)
    };
    let tap = namespace
        .inside(|| Tap::open(&options))
        .map_err(|error| needs_root(&error))?
        .map_err(|error| Failure::Io(error.to_string()))?;
    namespace
        .ip(&format!("address add {address}/16 dev {INTERFACE}"))
        .map_err(|error| needs_root(&error))?;
    Ok((namespace, tap))
}

fn needs_root(error: &NetnsError) -> Failure {
    Failure::Io(format!("cannot make a network namespace (this needs root): {error}"))
}
