//! The entries of one address family: a slab, an index into it by key, and a timing wheel.
//!
//! Entries never move, so an index and a version name one for as long as it lives. The index is a
//! hash table of slab numbers, keyed with a seed of the process: no sender can aim at a bucket.
//!
//! The wheel is a ring of lists, one for each 0.27 s of the next 18 minutes; an entry stands in
//! the list of its deadline, or in the last one if that is further off. Refreshing writes the
//! deadline alone: when the list comes up, an entry that lives on moves to a later one. Only a
//! deadline that comes nearer (a connection that closes) moves an entry at once.

use std::hash::Hash;
use std::ops::Range;

use ahash::RandomState;
use hashbrown::HashTable;
use sgwall_packet::Timestamp;

use crate::Scope;
use crate::entry::Flow;

/// No entry.
const NONE: u32 = u32::MAX;
/// Nanoseconds of a tick, as a power of two: 0.27 s.
const TICK_BITS: u32 = 28;
/// Lists of the wheel.
const LISTS: i64 = 4096;
/// Entries for which room is made at the start; a larger table grows as it needs.
const RESERVED: usize = 1 << 24;

/// A name for an entry that notices when the entry is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    index: u32,
    version: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    /// Counts the entries that have stood here; odd while one does.
    version: u32,
    /// Neighbours in the wheel's list; `next` links free slots as well.
    next: u32,
    previous: u32,
    /// The wheel's list it stands in.
    list: u16,
    flow: Flow,
    deadline: Timestamp,
}

const _: () = assert!(size_of::<Slot<sgwall_packet::FlowKeyV4>>() <= 64);
const _: () = assert!(size_of::<Slot<sgwall_packet::FlowKeyV6>>() <= 96);

#[derive(Clone, Debug)]
pub(crate) struct Store<K> {
    slots: Vec<Slot<K>>,
    index: HashTable<u32>,
    hasher: RandomState,
    free: u32,
    heads: Box<[u32]>,
    /// The tick whose list comes up next; all before are empty.
    cursor: i64,
}

impl<K: Copy + Eq + Hash> Store<K> {
    pub(crate) fn new(max_entries: usize, hasher: RandomState) -> Self {
        let mut slots = Vec::new();
        let mut index = HashTable::new();
        // Room made now is no pause later. Failing to get it is no harm: the table then grows.
        let reserved = max_entries.min(RESERVED);
        let _ = slots.try_reserve_exact(reserved);
        let _ = index.try_reserve(reserved, |_| 0);
        let heads = vec![NONE; LISTS as usize].into();
        Store { slots, index, hasher, free: NONE, heads, cursor: i64::MIN }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The entry of a key, alive at `now`.
    #[inline]
    pub(crate) fn find(&self, scope: Scope, key: &K, now: Timestamp) -> Option<(Handle, &Flow)> {
        let index = self.index_of(scope, key)?;
        let slot = self.slots.get(index as usize)?;
        let handle = Handle { index, version: slot.version };
        (now < slot.deadline).then_some((handle, &slot.flow))
    }

    /// Makes an entry, in place of any other of its key.
    pub(crate) fn insert(&mut self, key: K, flow: Flow, now: Timestamp, deadline: Timestamp) {
        if let Some(old) = self.index_of(flow.scope, &key) {
            self.free_slot(old);
        }
        if self.len() == 0 {
            self.cursor = tick(now);
        }
        let index = match self.slots.get(self.free as usize) {
            Some(slot) => std::mem::replace(&mut self.free, slot.next),
            None => self.slots.len() as u32,
        };
        let version = self.slots.get(index as usize).map_or(1, |slot| slot.version.wrapping_add(1));
        let slot = Slot { key, version, next: NONE, previous: NONE, list: 0, flow, deadline };
        match self.slots.get_mut(index as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        let (hasher, slots) = (&self.hasher, &self.slots);
        let hash = hasher.hash_one((flow.scope, &key));
        self.index.insert_unique(hash, index, |&i| {
            let slot = &slots[i as usize];
            hasher.hash_one((slot.flow.scope, &slot.key))
        });
        self.link(index);
    }

    /// The entry of a handle, if it is still the one.
    pub(crate) fn get(&self, handle: Handle) -> Option<&Flow> {
        let slot = self.slots.get(handle.index as usize)?;
        (slot.version == handle.version).then_some(&slot.flow)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut Flow> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        (slot.version == handle.version).then_some(&mut slot.flow)
    }

    /// The entry of a handle with its key and deadline, if it is still the one.
    pub(crate) fn entry(&self, handle: Handle) -> Option<(&K, &Flow, Timestamp)> {
        let slot = self.slots.get(handle.index as usize)?;
        (slot.version == handle.version).then_some((&slot.key, &slot.flow, slot.deadline))
    }

    /// Dead entries whose places [`Self::reclaim`] would free at `now`, looking at all.
    pub(crate) fn reclaimable(&self, now: Timestamp) -> usize {
        let until = tick(now);
        let is_met = |slot: &&Slot<K>| {
            slot.version % 2 == 1
                && slot.deadline <= now
                && self.cursor + (i64::from(slot.list) - self.cursor).rem_euclid(LISTS) < until
        };
        self.slots.iter().filter(is_met).count()
    }

    /// Gives an entry another deadline.
    pub(crate) fn set_deadline(&mut self, handle: Handle, deadline: Timestamp) {
        let Some(slot) = self.slots.get_mut(handle.index as usize) else { return };
        if slot.version != handle.version {
            return;
        }
        slot.deadline = deadline;
        let due = self.cursor + (i64::from(slot.list) - self.cursor).rem_euclid(LISTS);
        if tick(deadline) < due {
            self.unlink(handle.index);
            self.link(handle.index);
        }
    }

    /// Removes an entry; false if it is gone already.
    pub(crate) fn remove(&mut self, handle: Handle) -> bool {
        let alive =
            self.slots.get(handle.index as usize).is_some_and(|s| s.version == handle.version);
        if alive {
            self.free_slot(handle.index);
        }
        alive
    }

    /// Frees dead entries, doing at most `budget` steps; the steps left over.
    pub(crate) fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let until = tick(now);
        let mut left = budget;
        while left > 0 && self.step(until, now) {
            left -= 1;
        }
        left
    }

    /// Frees dead entries until one place is free; false if there is none to be had. An entry
    /// that died within the current tick may still hold its place.
    pub(crate) fn reclaim(&mut self, now: Timestamp) -> bool {
        let (until, before) = (tick(now), self.len());
        while self.step(until, now) {
            if self.len() < before {
                return true;
            }
        }
        false
    }

    /// Handles one entry, or one list without any; false if nothing is due before `until`.
    fn step(&mut self, until: i64, now: Timestamp) -> bool {
        if self.len() == 0 || self.cursor >= until {
            return false;
        }
        // After a leap in time one turn of the wheel meets every list.
        self.cursor = self.cursor.max(until.saturating_sub(LISTS));
        let index = self.heads[list_of(self.cursor)];
        match self.slots.get(index as usize).map(|slot| slot.deadline <= now) {
            None => self.cursor += 1,
            Some(true) => self.free_slot(index),
            Some(false) => {
                self.unlink(index);
                self.link(index);
            }
        }
        true
    }

    /// Slots, free ones among them.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Removes every entry of these slots for which `keep` is false; the number removed.
    pub(crate) fn retain(
        &mut self,
        slots: Range<usize>,
        mut keep: impl FnMut(&K, &Flow, Timestamp) -> bool,
    ) -> usize {
        let mut removed = 0;
        for index in slots.start as u32..slots.end.min(self.slots.len()) as u32 {
            let slot = &self.slots[index as usize];
            if slot.version % 2 == 1 && !keep(&slot.key, &slot.flow, slot.deadline) {
                self.free_slot(index);
                removed += 1;
            }
        }
        removed
    }

    /// Every entry of these slots that is alive at `now`, in no particular order.
    pub(crate) fn iter(
        &self,
        slots: Range<usize>,
        now: Timestamp,
    ) -> impl Iterator<Item = (&K, &Flow, Timestamp)> {
        let alive = move |slot: &&Slot<K>| slot.version % 2 == 1 && now < slot.deadline;
        let end = slots.end.min(self.slots.len());
        let slots = self.slots.get(slots.start..end).unwrap_or_default();
        slots.iter().filter(alive).map(|slot| (&slot.key, &slot.flow, slot.deadline))
    }

    #[inline]
    fn index_of(&self, scope: Scope, key: &K) -> Option<u32> {
        let hash = self.hasher.hash_one((scope, key));
        let is = |&i: &u32| {
            self.slots.get(i as usize).is_some_and(|s| s.key == *key && s.flow.scope == scope)
        };
        self.index.find(hash, is).copied()
    }

    fn free_slot(&mut self, index: u32) {
        self.unlink(index);
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let hash = self.hasher.hash_one((slot.flow.scope, &slot.key));
        slot.version = slot.version.wrapping_add(1);
        slot.next = std::mem::replace(&mut self.free, index);
        if let Ok(entry) = self.index.find_entry(hash, |&i| i == index) {
            entry.remove();
        }
    }

    /// Puts an entry into the list of its deadline, the nearest that the wheel has.
    fn link(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let last = self.cursor.saturating_add(LISTS - 1);
        let list = list_of(tick(slot.deadline).clamp(self.cursor, last));
        let next = std::mem::replace(&mut self.heads[list], index);
        (slot.list, slot.next, slot.previous) = (list as u16, next, NONE);
        if let Some(next) = self.slots.get_mut(next as usize) {
            next.previous = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(&Slot { next, previous, list, .. }) = self.slots.get(index as usize) else {
            return;
        };
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = next,
            None => self.heads[usize::from(list)] = next,
        }
        if let Some(slot) = self.slots.get_mut(next as usize) {
            slot.previous = previous;
        }
    }
}

/// The tick of a time; one that has begun before `now` is past in [`Store::expire`] only when it
/// has ended, so nothing is looked at before it can be dead.
const fn tick(time: Timestamp) -> i64 {
    time.as_nanos() >> TICK_BITS
}

const fn list_of(tick: i64) -> usize {
    tick.rem_euclid(LISTS) as usize
}
