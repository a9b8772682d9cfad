//! A device that no kernel knows of: two queues in memory, for tests and benches.
//!
//! [`pair`] makes the device and its other end. The other end can also fill the device up, take it
//! down or away, and say what offload it has.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

use super::frames::Frames;
use super::vnet::{Features, VnetHeader};
use super::{Device, DeviceError, Sent};

/// A frame with its offload header.
pub type OwnedFrame = (Vec<u8>, VnetHeader);

/// Makes a device and its other end. `capacity` is how many frames wait at the other end before
/// the device is full.
///
/// # Errors
/// If the kernel gives no event descriptor.
pub fn pair(
    name: &str,
    features: Features,
    capacity: usize,
) -> Result<(Memory, Peer), DeviceError> {
    let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
    let event = event.map_err(|errno| DeviceError::Io {
        name: name.to_owned(),
        what: "make an event descriptor",
        source: errno.into(),
    })?;
    let shared = Arc::new(Shared { event, state: Mutex::default() });
    let device = Memory { name: name.to_owned(), features, capacity, shared: Arc::clone(&shared) };
    Ok((device, Peer { shared }))
}

/// The device.
#[derive(Debug)]
pub struct Memory {
    name: String,
    features: Features,
    capacity: usize,
    shared: Arc<Shared>,
}

/// The other end of a [`Memory`] device.
#[derive(Clone, Debug)]
pub struct Peer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Readable while the device has frames, or has failed.
    event: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    to_device: VecDeque<OwnedFrame>,
    from_device: VecDeque<OwnedFrame>,
    is_down: bool,
    is_gone: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        // It can only fail where the counter is at its end, and then it is readable.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

impl Peer {
    /// Sends a frame to the device.
    pub fn push(&self, frame: &[u8], header: VnetHeader) {
        self.shared.state().to_device.push_back((frame.to_vec(), header));
        self.shared.signal();
    }

    /// Takes the next frame that the device has sent.
    #[must_use]
    pub fn pop(&self) -> Option<OwnedFrame> {
        self.shared.state().from_device.pop_front()
    }

    /// Takes the interface down, or up again.
    pub fn set_down(&self, is_down: bool) {
        self.shared.state().is_down = is_down;
    }

    /// Takes the interface away: every further call of the device fails.
    pub fn remove(&self) {
        self.shared.state().is_gone = true;
        self.shared.signal();
    }
}

impl Device for Memory {
    fn receive(&mut self, into: &mut Frames) -> Result<bool, DeviceError> {
        let mut state = self.shared.state();
        if state.is_gone {
            return Err(DeviceError::Gone { name: self.name.clone() });
        }
        while !into.is_full() {
            let Some((frame, header)) = state.to_device.pop_front() else {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.shared.event, &mut count);
                return Ok(false);
            };
            into.push_checked(&frame, header);
        }
        Ok(true)
    }

    fn send(&mut self, from: &mut Frames, order: &[u32]) -> Result<Sent, DeviceError> {
        let mut state = self.shared.state();
        if state.is_gone {
            return Err(DeviceError::Gone { name: self.name.clone() });
        }
        let mut sent = Sent::default();
        for &k in order {
            let k = k as usize;
            if state.is_down {
                sent.down += 1;
            } else if state.from_device.len() >= self.capacity {
                sent.full += 1;
            } else if !self.features.carries(&from.header(k)) {
                sent.refused += 1;
            } else {
                sent.frames += 1;
                sent.bytes += from.bytes(k).len() as u64;
                state.from_device.push_back((from.bytes(k).to_vec(), from.header(k)));
            }
        }
        Ok(sent)
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    fn features(&self) -> Features {
        self.features
    }

    fn name(&self) -> &str {
        &self.name
    }
}
