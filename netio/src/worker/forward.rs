//! A handler that does nothing: what any other is measured against.

use sgwall_packet::Timestamp;

use super::{Handler, Output};
use crate::device::Frames;

/// Forwards every frame of port 0 to port 1 and the other way round, unread.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullForwarder;

impl Handler for NullForwarder {
    fn batch(&mut self, _now: Timestamp, port: usize, frames: &mut Frames, out: &mut Output) {
        for frame in 0..frames.len() {
            out.forward(frame, 1 - port.min(1));
        }
    }

    fn idle(&mut self, _now: Timestamp, _out: &mut Output) {}
}
