//! What a worker counts on each port. The worker alone writes; anybody reads, at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::{Frames, Sent};

/// Declares the counters once: as atomics that a worker writes, and as numbers that others read.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one worker on one port.
        ///
        /// On cache lines of their own, so that workers do not slow each other.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct PortCounters {
            $($name: AtomicU64,)+
        }

        /// The counters at one moment. Each is exact; together they may be a frame apart.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct PortStats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl PortCounters {
            /// The counters now.
            #[must_use]
            pub fn read(&self) -> PortStats {
                PortStats { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl PortStats {
            /// The sum of both.
            #[must_use]
            pub fn plus(self, other: PortStats) -> PortStats {
                PortStats { $($name: self.$name + other.$name,)+ }
            }

            /// Every counter with its name, for export.
            #[must_use]
            pub fn named(&self) -> [(&'static str, u64); [$(stringify!($name)),+].len()] {
                [$((stringify!($name), self.$name)),+]
            }
        }
    };
}

counters! {
    /// Frames read; a super-frame counts once.
    rx_frames,
    /// Their bytes.
    rx_bytes,
    /// Batches they came in.
    rx_batches,
    /// Frames dropped as they were read: longer than any frame may be.
    rx_truncated,
    /// Frames dropped as they were read: their offload header did not fit them.
    rx_bad_offload,
    /// Frames that the device took.
    tx_frames,
    /// Their bytes.
    tx_bytes,
    /// Super-frames cut into segments, because the device does not.
    tx_segmented,
    /// Checksums completed, because the device does not; segments not counted.
    tx_checksums,
    /// Frames dropped: the queue was full.
    tx_full,
    /// Frames dropped: the interface was down.
    tx_down,
    /// Frames dropped: the kernel refused them, as a packet socket does those longer than the MTU.
    tx_refused,
    /// Frames dropped: the handler gave them an offload header that does not fit them.
    tx_bad_offload,
}

/// Adds without a locked instruction: there is one writer.
fn add(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }
}

impl PortCounters {
    pub(super) fn count_received(&self, frames: &Frames) {
        add(&self.rx_frames, frames.len() as u64);
        add(&self.rx_bytes, frames.total_bytes());
        add(&self.rx_batches, u64::from(!frames.is_empty()));
        add(&self.rx_truncated, frames.truncated());
        add(&self.rx_bad_offload, frames.bad_offload());
    }

    pub(super) fn count_sent(&self, sent: Sent) {
        add(&self.tx_frames, sent.frames);
        add(&self.tx_bytes, sent.bytes);
        add(&self.tx_full, sent.full);
        add(&self.tx_down, sent.down);
        add(&self.tx_refused, sent.refused);
    }

    pub(super) fn count_segmented(&self) {
        add(&self.tx_segmented, 1);
    }

    pub(super) fn count_checksum(&self) {
        add(&self.tx_checksums, 1);
    }

    pub(super) fn count_bad_offload(&self) {
        add(&self.tx_bad_offload, 1);
    }
}

const _: () = assert!(align_of::<PortCounters>() == 128);
