//! Dropped flows, remembered one by one: as many as there may be, with what their packets add up to.
//!
//! A capture may be dropped packets for the most part, so finding a flow again costs one cache line
//! of its own ([`Counted`]); what is known of its first packet lies elsewhere.

use std::net::IpAddr;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use sgwall_dataplane::DropReason;
use sgwall_netio::seed::random_seed;
use sgwall_packet::{Direction, FiveTuple};

use super::sums::{Place, Sum};

/// An interface (its place among those of all policies), a direction and a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowOf {
    pub(super) interface: u32,
    pub(super) direction: Direction,
    pub(super) flow: FiveTuple,
}

/// A flow, and what its dropped packets add up to.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Counted {
    pub(super) of: FlowOf,
    pub(super) sum: Sum,
}

const _: () = assert!(size_of::<Counted>() == 64);

/// Of the first packet of a flow that was dropped.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub(super) reason: DropReason,
    /// When it was: what is less came before.
    pub(super) when: (Place, u64),
}

/// See the module.
pub(super) struct DroppedFlows {
    counted: Vec<Counted>,
    /// Of each of them.
    firsts: Vec<First>,
    /// Their numbers.
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl DroppedFlows {
    /// None so far.
    pub(super) fn new() -> Self {
        let [a, b, c, d] = random_seed();
        DroppedFlows {
            counted: Vec::new(),
            firsts: Vec::new(),
            numbers: HashTable::new(),
            hasher: RandomState::with_seeds(a, b, c, d),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.counted.len()
    }

    /// Adds a packet to its flow; false, and nothing is done, if that is not known.
    #[inline]
    pub(super) fn count(&mut self, packet: &Counted) -> bool {
        let counted = &mut self.counted;
        let is = |number: &u32| counted[*number as usize].of == packet.of;
        let found = self.numbers.find(hash(&self.hasher, &packet.of), is).copied();
        if let Some(number) = found {
            counted[number as usize].sum.add_all(packet.sum);
        }
        found.is_some()
    }

    /// Adds what is known of a flow; one that was known began with what came first.
    pub(super) fn add(&mut self, flow: Counted, first: First) {
        let DroppedFlows { counted, firsts, numbers, hasher } = self;
        let is = |number: &u32| counted[*number as usize].of == flow.of;
        let hash_of = |number: &u32| hash(hasher, &counted[*number as usize].of);
        match numbers.entry(hash(hasher, &flow.of), is, hash_of) {
            Entry::Occupied(known) => {
                let number = *known.get() as usize;
                counted[number].sum.add_all(flow.sum);
                if first.when < firsts[number].when {
                    firsts[number] = first;
                }
            }
            Entry::Vacant(new) => {
                new.insert(counted.len() as u32);
                counted.push(flow);
                firsts.push(first);
            }
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Counted, &First)> {
        self.counted.iter().zip(&self.firsts)
    }

    /// Leaves the first `room` flows by their first packets; packets of those that are left out.
    pub(super) fn keep_first(&mut self, room: usize) -> u64 {
        if self.len() <= room {
            return 0;
        }
        let mut whens: Vec<_> = self.firsts.iter().map(|first| first.when).collect();
        let (_, &mut last, _) = whens.select_nth_unstable(room - 1);
        let (mut kept, mut left_out) = (DroppedFlows::new(), 0);
        for (flow, first) in self.iter() {
            match first.when <= last {
                true => kept.add(*flow, *first),
                false => left_out += flow.sum.packets,
            }
        }
        *self = kept;
        left_out
    }
}

/// In whole words: field by field it takes several times as long.
#[inline]
fn hash(hasher: &RandomState, of: &FlowOf) -> u64 {
    let FlowOf { interface, direction, flow } = of;
    let FiveTuple { src, dst, src_port, dst_port, protocol } = flow;
    let ports = u64::from(*src_port) | u64::from(*dst_port) << 16 | u64::from(*protocol) << 32;
    let rest = ports ^ u64::from(*direction as u8) << 40 ^ u64::from(*interface) << 41;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ends = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
            hasher.hash_one(u128::from(ends) << 64 | u128::from(rest))
        }
        (src, dst) => hasher.hash_one((src, dst, rest)),
    }
}
