//! Live interfaces: frames in and out in batches, with headroom and offload metadata.
//!
//! A [`Device`] is one queue of one interface. [`tap`] makes queues of a TAP interface, [`packet`]
//! of any Linux interface through an `AF_PACKET` socket, [`memory`] a pair of them that no kernel
//! knows of, for tests and benches. [`vnet`] and [`offload`] are functions of bytes and need no
//! device. Nothing here looks at what a frame says, but where offload makes it.

mod error;
mod frames;
mod interface;
pub mod memory;
pub mod offload;
pub mod packet;
mod sys;
pub mod tap;
pub mod vnet;

use std::os::fd::BorrowedFd;

pub use error::DeviceError;
pub use frames::{Frames, HEADROOM, MAX_FRAME};
pub use interface::Interface;
pub use vnet::{Features, VnetHeader};

/// One queue of an interface. One thread owns it; nothing blocks.
pub trait Device: Send {
    /// Reads frames until `into` is full or the device has no more; true if it may have more.
    ///
    /// # Errors
    /// If the interface is gone or the kernel refuses to read from it: the device is of no more
    /// use. An interface that is merely down has no frames.
    fn receive(&mut self, into: &mut Frames) -> Result<bool, DeviceError>;

    /// Writes the frames of `from` that `order` names, in that order.
    ///
    /// What the device cannot take now is dropped and counted, as a full ring of a network card
    /// does: to wait would stall the other devices of the worker.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    fn send(&mut self, from: &mut Frames, order: &[u32]) -> Result<Sent, DeviceError>;

    /// Readable when there are frames, or when the device has failed.
    fn readiness(&self) -> BorrowedFd<'_>;

    /// What a frame written to it may leave to the kernel.
    fn features(&self) -> Features;

    /// The name of the interface.
    fn name(&self) -> &str;
}

/// What became of frames that were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames that the device took.
    pub frames: u64,
    /// Their bytes, without offload headers.
    pub bytes: u64,
    /// Frames dropped because the queue was full.
    pub full: u64,
    /// Frames dropped because the interface was down.
    pub down: u64,
    /// Frames that the kernel refused: too long for the interface, or offload it does not know.
    pub refused: u64,
}

impl Sent {
    /// Adds what became of further frames.
    pub fn add(&mut self, other: Sent) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.full += other.full;
        self.down += other.down;
        self.refused += other.refused;
    }
}
