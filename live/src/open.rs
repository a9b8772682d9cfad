//! Opening the devices of a firewall.

use sgwall_netio::device::packet::{Packet, PacketOptions};
use sgwall_netio::device::tap::{Tap, TapOptions};
use sgwall_netio::device::{Device, DeviceError, Features, Interface};
use sgwall_rules::model::{self, PortKind};

use crate::topology::Port;

/// MTU of a TAP that is made, if its port names none, bytes (SEMANTICS 12.3).
const DEFAULT_MTU: u32 = 9001;

/// A port whose device is open and up.
pub struct OpenPort {
    /// The port.
    pub port: Port,
    /// The device.
    pub interface: Interface,
    /// What the kernel may leave to us in the frames that are read.
    pub granted: Features,
    /// Its queues, one for each worker.
    pub queues: Vec<Box<dyn Device>>,
}

/// How devices are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Queues of each device: one for each worker.
    pub queues: usize,
    /// Whether frames carry their offload headers, so that super-frames pass whole.
    pub offload: bool,
}

/// Opens the device of a port, in the network namespace of the calling thread.
///
/// # Errors
/// As [`Tap::open`] and [`Packet::open`].
pub fn open(port: &model::Port, options: OpenOptions) -> Result<OpenPort, DeviceError> {
    let OpenOptions { queues, offload } = options;
    let (interface, granted, queues) = match port.kind {
        PortKind::Tap => {
            let exists = Interface::find(&port.device).is_ok();
            let mtu = port.mtu.map(u32::from).or((!exists).then_some(DEFAULT_MTU));
            let options = TapOptions { queues, mtu, offload, ..TapOptions::new(&port.device) };
            let tap = Tap::open(&options)?;
            (tap.interface, tap.granted, boxed(tap.queues))
        }
        PortKind::Existing => {
            let options = PacketOptions { queues, offload, ..PacketOptions::new(&port.device) };
            let packet = Packet::open(&options)?;
            let granted = if offload { Features::ALL } else { Features::NONE };
            (packet.interface, granted, boxed(packet.queues))
        }
    };
    let port = Port {
        device: port.device.clone(),
        interface: port.interface.clone(),
        vlans: port.vlans.clone(),
    };
    Ok(OpenPort { port, interface, granted, queues })
}

fn boxed<D: Device + 'static>(queues: Vec<D>) -> Vec<Box<dyn Device>> {
    queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Device>).collect()
}
