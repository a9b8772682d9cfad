//! The way of a packet: from headers, time and policy to a verdict with its reason.
//!
//! The modules, in the order in which a packet meets them:
//!
//! 1. [`attribution`]: which network interface judges it, and in which direction;
//! 2. [`exempt`]: traffic that neither groups nor ACLs ever filter;
//! 3. [`fragment`]: virtual reassembly, so that later fragments follow the first;
//! 4. [`pipeline`]: the whole way in one function, network ACL, connection tracking and
//!    security groups included;
//! 5. [`path_mtu`]: whether the packet fits the way out;
//! 6. [`verdict`]: what comes out;
//! 7. [`counters`]: what was counted on the way;
//! 8. [`flow_log`]: what is written down of it, a record for each flow and window.
//!
//! [`judge`] puts them together for whoever has whole frames: it parses, finds the interfaces
//! concerned, judges on each side and keeps what virtual reassembly holds; [`clock`] is its time. [`explain`] walks the
//! same way without changing anything and tells what each stage saw; [`black_hole`] finds where
//! path-MTU discovery does not work. [`neighbour`] checks what ARP and neighbour discovery claim, for
//! whoever sits between an instance and its network.
//!
//! Nothing here reads a clock, a file or a device: packets, time and policy come in, verdicts go
//! out. Directions are always as seen from the network interface (ENI): *ingress* is towards the
//! instance, *egress* from it.

pub mod attribution;
pub mod black_hole;
pub mod clock;
pub mod counters;
pub mod exempt;
pub mod explain;
pub mod flow_log;
pub mod fragment;
pub mod judge;
mod limits;
pub mod names;
pub mod neighbour;
pub mod path_mtu;
pub mod pipeline;
mod sync;
pub mod verdict;

pub use attribution::{Attribution, Side, Sides};
pub use black_hole::{BlackHole, Teller};
pub use clock::Clock;
pub use counters::Counters;
pub use explain::Explanation;
pub use judge::{Emitted, Event, FrameInput, Judge, Judgement, Plain, Route, Sight, Sink};
pub use limits::{check_reserves, places_for_any};
pub use names::Names;
pub use pipeline::{Config, PacketContext, Pipeline, Released, TrackedFlow};
pub use sgwall_conntrack::FullTable;
pub use verdict::{
    DropReason, FirstFragment, FlowState, Outcome, PassReason, SkipReason, Stage, Verdict,
};
