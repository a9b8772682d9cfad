//! A flow that is being looked up.

use std::net::Ipv4Addr;

use sgwall_packet::{FlowKey, FlowKeyV4, Side};

use crate::Scope;
use crate::index::{ABSENT, NONE};

/// A look-up of several steps: the flow that a packet names, and where the table has it. Good
/// until the end of a batch; what has changed meanwhile is noticed.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub(crate) key: FlowKey,
    pub(crate) side: Side,
    pub(crate) scope: Scope,
    pub(crate) hash: u64,
    pub(crate) candidate: u32,
    /// How many entries had been made when it was located.
    pub(crate) created: u32,
}

impl Probe {
    /// That of a packet which names no flow: nothing is found.
    pub const NOTHING: Probe = {
        const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
        let (low_port, high_port, protocol) = (0, 0, 0);
        let key = FlowKeyV4 { low: NOWHERE, high: NOWHERE, low_port, high_port, protocol };
        Probe {
            key: FlowKey::V4(key),
            side: Side::Low,
            scope: Scope(u32::MAX),
            hash: 0,
            candidate: NONE,
            created: 0,
        }
    };

    /// Whether it was found that the flow has no entry, before any was made that it does not know of:
    /// `created` entries were made until now.
    #[inline]
    pub(crate) const fn is_absent(&self, created: u64) -> bool {
        self.candidate == ABSENT && self.created == created as u32
    }

    /// Whether it is of no flow: a look-up by it tells nothing of any packet.
    #[inline]
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.scope.0 == u32::MAX
    }
}
