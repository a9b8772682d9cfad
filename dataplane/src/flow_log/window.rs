//! The records of the open window, by key, in the order of their first packets.
//!
//! A known flow costs one hash and one comparison, and nothing is allocated for it. Closing a
//! window hands its memory over with the records.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use ahash::RandomState;
use hashbrown::HashTable;
use sgwall_packet::{Direction, FiveTuple};

use super::record::{Action, LoggedFlow, LoggedPacket};

/// What a record is kept under (SEMANTICS 15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The log's own number of the interface, which outlives a policy.
    slot: u32,
    direction: Direction,
    action: Action,
    flow: FiveTuple,
}

impl Key {
    #[inline]
    pub(super) fn of(slot: u32, packet: &LoggedPacket) -> Self {
        let LoggedPacket { direction, action, flow, .. } = *packet;
        Key { slot, direction, action, flow }
    }
}

/// A few whole words: the derived form feeds the hasher a dozen small pieces.
impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let FiveTuple { src, dst, src_port, dst_port, protocol } = self.flow;
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                state.write_u64(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()));
            }
            (src, dst) => [src, dst].iter().for_each(|address| match address {
                IpAddr::V4(v4) => state.write_u128(v4.to_bits().into()),
                IpAddr::V6(v6) => state.write_u128(v6.to_bits()),
            }),
        }
        let ports = u64::from(src_port) << 16 | u64::from(dst_port);
        let kind = u64::from(protocol) << 8 | (self.direction as u64) << 1 | self.action as u64;
        state.write_u64(ports << 32 | kind);
        state.write_u32(self.slot);
    }
}

/// A record that still grows. Times are whole seconds since the epoch.
#[derive(Debug)]
pub(super) struct OpenRecord {
    pub(super) slot: u32,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) logged: LoggedFlow,
}

const _: () = assert!(size_of::<OpenRecord>() <= 136);

impl OpenRecord {
    fn key(&self) -> Key {
        let LoggedFlow { direction, action, flow, .. } = self.logged;
        Key { slot: self.slot, direction, action, flow }
    }

    /// Adds a packet.
    #[inline]
    pub(super) fn add(&mut self, packet: &LoggedPacket, second: i64) {
        self.start = self.start.min(second);
        self.end = self.end.max(second);
        self.logged.sum.add(packet.bytes);
        self.logged.tcp_flags |= packet.tcp_flags;
    }
}

/// The records of the open window.
#[derive(Debug)]
pub(super) struct OpenRecords {
    records: Vec<OpenRecord>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl OpenRecords {
    pub(super) fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = RandomState::with_seeds(a, b, c, d);
        OpenRecords { records: Vec::new(), index: HashTable::new(), hasher }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The record of a key, if there is one.
    #[inline]
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut OpenRecord> {
        let records = &self.records;
        let is_it = |&i: &u32| records.get(i as usize).is_some_and(|r| r.key() == *key);
        let found = *self.index.find(self.hasher.hash_one(key), is_it)?;
        self.records.get_mut(found as usize)
    }

    /// Keeps a record whose key has none yet.
    pub(super) fn insert(&mut self, record: OpenRecord) {
        let OpenRecords { records, index, hasher } = self;
        let (place, hash) = (records.len() as u32, hasher.hash_one(record.key()));
        records.push(record);
        let hash_of = |&i: &u32| records.get(i as usize).map_or(0, |r| hasher.hash_one(r.key()));
        index.insert_unique(hash, place, hash_of);
    }

    /// Takes the records out, in the order of their first packets. There is room for as many to
    /// come.
    pub(super) fn take(&mut self) -> Vec<OpenRecord> {
        self.index.clear();
        let next = Vec::with_capacity(self.records.len());
        std::mem::replace(&mut self.records, next)
    }

    /// Takes the memory of records that are written.
    pub(super) fn reuse(&mut self, mut records: Vec<OpenRecord>) {
        if self.records.is_empty() {
            records.clear();
            self.records = records;
        }
    }
}
