//! The entries of one address family: a slab, an index into it by key, and a timing wheel.
//!
//! Entries never move, so an index and a version name one for as long as it lives. The index
//! ([`crate::index`]) is keyed with a seed of the process: no sender can aim at a bucket.
//!
//! The wheel is a ring of lists, one for each 0.27 s of the next 18 minutes; an entry stands in
//! the list of its deadline, or in the last one if that is further off. Refreshing writes the
//! deadline alone: when the list comes up, an entry that lives on moves to a later one. Only a
//! deadline that comes nearer (a connection that closes) moves an entry at once.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use sgwall_packet::{FlowKeyV4, FlowKeyV6, Headers, Side, Timestamp};

use crate::Scope;
use crate::allowance::Accounts;
use crate::embryonic::Embryonic;
use crate::entry::{Flow, FlowState};
use crate::index::{self, Index};
use crate::mark::Mark;
use crate::pages::prefer_huge;
use crate::table::Noted;
use crate::timeouts::TimeoutProfile;

/// No entry.
const NONE: u32 = index::NONE;
/// Nanoseconds of a tick, as a power of two: 0.27 s.
const TICK_BITS: u32 = 28;
/// Lists of the wheel.
const LISTS: i64 = 4096;
/// Entries for which room is made at the start; a larger table grows as it needs.
const RESERVED: usize = 1 << 24;

/// The key of an entry.
pub(crate) trait Key: Copy + Eq {
    /// Zero-sized, and aligned as entries are to be.
    type Align: Copy + Default + std::fmt::Debug;

    /// The hash of the key on an interface.
    fn hash(&self, scope: Scope, state: &RandomState) -> u64;
}

/// One cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(crate) struct Line;

/// Eight bytes: on lines of its own an entry of 88 would take 128, on halves of them 96.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(8))]
pub(crate) struct Word;

impl Key for FlowKeyV4 {
    type Align = Line;

    #[inline]
    fn hash(&self, scope: Scope, state: &RandomState) -> u64 {
        let ports = self.port_bits() ^ u64::from(scope.0) << 40;
        state.hash_one(u128::from(self.address_bits()) << 64 | u128::from(ports))
    }
}

impl Key for FlowKeyV6 {
    type Align = Word;

    #[inline]
    fn hash(&self, scope: Scope, state: &RandomState) -> u64 {
        let ports = self.port_bits() ^ u64::from(scope.0) << 40;
        state.hash_one((self.low.to_bits(), self.high.to_bits(), ports))
    }
}

/// A name for an entry that notices when the entry is gone, unless it is kept for longer than it
/// takes to judge a batch of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    index: u32,
    version: u16,
}

/// The flow of a packet, the end that sent it, and where its entry most likely is.
#[derive(Clone, Copy)]
pub(crate) struct Whose<'a, K> {
    pub(crate) index: u32,
    pub(crate) scope: Scope,
    pub(crate) key: &'a K,
    pub(crate) side: Side,
}

#[derive(Clone, Copy, Debug)]
struct Slot<K: Key> {
    _align: K::Align,
    key: K,
    /// Counts the entries that have stood here; odd while one does.
    version: u16,
    /// Neighbours in the wheel's list; `next` links free slots as well.
    next: u32,
    previous: u32,
    /// The wheel's list it stands in.
    list: u16,
    /// What the caller remembers of the flow, see [`crate::Mark`]; zero: nothing.
    mark: u16,
    flow: Flow,
    deadline: Timestamp,
}

const _: () = assert!(size_of::<Slot<FlowKeyV4>>() == 64);
const _: () = assert!(size_of::<Slot<FlowKeyV6>>() == 88);
// What [`Store::touch_entry`] looks at leaves out no line of an entry.
const _: () = {
    let state = offset_of!(Slot<FlowKeyV6>, flow.track.state);
    let version = offset_of!(Slot<FlowKeyV6>, version);
    assert!(offset_of!(Slot<FlowKeyV6>, deadline) < 8 && version >= 80);
    assert!(state <= 64 && version - state <= 64);
};

/// Bytes of an entry with its place in the index: of IPv4, of IPv6.
pub(crate) const ENTRY: [usize; 2] = [
    size_of::<Slot<FlowKeyV4>>() + index::BYTES_PER_ENTRY,
    size_of::<Slot<FlowKeyV6>>() + index::BYTES_PER_ENTRY,
];

#[derive(Clone, Debug)]
pub(crate) struct Store<K: Key> {
    slots: Vec<Slot<K>>,
    index: Index,
    hasher: RandomState,
    free: u32,
    heads: Box<[u32]>,
    /// The tick whose list comes up next; all before are empty.
    cursor: i64,
    /// The flows that may be evicted, if any may.
    embryonic: Option<Embryonic>,
    accounts: Arc<Accounts>,
    /// Entries of interfaces that have an account.
    on_account: usize,
}

impl<K: Key> Store<K> {
    /// `evicts`: whether flows that nobody has answered are to be known by their age.
    pub(crate) fn new(max_entries: usize, hasher: RandomState, evicts: bool) -> Self {
        // Room made now is no pause later. Failing to get it is no harm: the table then grows.
        let reserved = max_entries.min(RESERVED);
        let mut slots = Vec::new();
        let _ = slots.try_reserve_exact(reserved);
        prefer_huge(slots.spare_capacity_mut());
        let index = Index::with_room(reserved);
        let heads = vec![NONE; LISTS as usize].into();
        Store {
            slots,
            index,
            hasher,
            free: NONE,
            heads,
            cursor: i64::MIN,
            embryonic: evicts.then(|| Embryonic::with_room(reserved)),
            accounts: Arc::default(),
            on_account: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Entries of interfaces without an account.
    pub(crate) fn plain(&self) -> usize {
        self.len() - self.on_account
    }

    /// The hash of a key, for [`Self::candidate`] and [`Self::find`].
    #[inline]
    pub(crate) fn hash(&self, scope: Scope, key: &K) -> u64 {
        key.hash(scope, &self.hasher)
    }

    /// See [`Index::touch`].
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u32 {
        self.index.touch(hash)
    }

    /// The same for an entry, for all the lines that it is on.
    #[inline]
    pub(crate) fn touch_entry(&self, index: u32) -> u32 {
        // Some entry, where there is none: whether there is, nobody can foretell.
        let index = (index as usize).min(self.slots.len().saturating_sub(1));
        let Some(Slot { deadline, flow, version, .. }) = self.slots.get(index) else { return 0 };
        let end = u32::from(*version);
        match size_of::<Slot<K>>() <= 64 {
            true => end,
            false => deadline.as_nanos() as u32 ^ flow.track.state as u32 ^ end,
        }
    }

    /// The first step of a look-up: where the entry of a hash most likely is.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> u32 {
        self.index.candidate(hash)
    }

    /// The second: what [`crate::ConnTable::note_marked`] does, if the entry there is the key's.
    #[inline(always)]
    pub(crate) fn note_marked(
        &mut self,
        Whose { index, scope, key, side }: Whose<'_, K>,
        mark: Mark,
        headers: &Headers,
        now: Timestamp,
        timeouts: &TimeoutProfile,
        in_window: bool,
    ) -> Option<Noted> {
        let slot = self.slots.get_mut(index as usize)?;
        let is_it = slot.key == *key && slot.flow.scope == scope && slot.version % 2 == 1;
        let flow = &mut slot.flow;
        if !is_it
            || slot.deadline <= now
            || !mark.is_on(slot.mark, side)
            || flow.is_reopened_by(headers)
            || (in_window && flow.is_outside(headers, side))
        {
            return None;
        }
        let noted = Noted { reply: flow.is_reply(side), tag: flow.tag };
        if flow.note(headers, side) {
            let deadline = timeouts.deadline(now, flow.track.state);
            let was = std::mem::replace(&mut slot.deadline, deadline);
            if deadline < was {
                self.come_nearer(index);
            }
        }
        Some(noted)
    }

    /// See [`Index::search_length`]: the longest of all entries.
    pub(crate) fn longest_search(&self) -> usize {
        let all = self.slots.iter().zip(0..).filter(|(slot, _)| slot.version % 2 == 1);
        let length = |(slot, index): (&Slot<K>, u32)| {
            self.index.search_length(slot.key.hash(slot.flow.scope, &self.hasher), index)
        };
        all.map(length).max().unwrap_or(0)
    }

    /// The name of the entry of a key, which most likely is `candidate`.
    #[inline]
    pub(crate) fn find(&self, hash: u64, candidate: u32, scope: Scope, key: &K) -> Option<Handle> {
        let index = match self.is_of(candidate, scope, key) {
            true => candidate,
            false => self.index_of(hash, scope, key)?,
        };
        let version = self.slots.get(index as usize)?.version;
        Some(Handle { index, version })
    }

    /// Makes an entry, in place of any other of its key; its interface's account has a place for it.
    /// The hash is the key's, `is_absent`: it has no entry; `number` is one more with each flow.
    pub(crate) fn insert(
        &mut self,
        (hash, key, is_absent): (u64, K, bool),
        flow: Flow,
        now: Timestamp,
        deadline: Timestamp,
        number: u64,
    ) -> Handle {
        if !is_absent && let Some(old) = self.index_of(hash, flow.scope, &key) {
            self.free_slot(old);
        }
        if self.len() == 0 {
            self.cursor = tick(now);
        }
        if self.len() == self.index.room() {
            self.grow();
        }
        let index = match self.slots.get(self.free as usize) {
            Some(slot) => std::mem::replace(&mut self.free, slot.next),
            None => self.slots.len() as u32,
        };
        let version = self.slots.get(index as usize).map_or(1, |slot| slot.version.wrapping_add(1));
        let (next, previous, list, mark) = (NONE, NONE, 0, 0);
        let _align = K::Align::default();
        let slot = Slot { _align, key, version, next, previous, list, mark, flow, deadline };
        match self.slots.get_mut(index as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        self.index.insert(hash, index);
        self.link(index);
        let list = self.accounts.list_of(flow.scope);
        self.on_account += usize::from(list > 0);
        if let Some(embryonic) = &mut self.embryonic {
            embryonic.join(index, list, number);
        }
        Handle { index, version }
    }

    /// Twice the room in the index.
    #[cold]
    fn grow(&mut self) {
        let mut index = Index::with_room(self.index.room() * 2);
        for (slot, number) in self.slots.iter().zip(0..).filter(|(slot, _)| slot.version % 2 == 1) {
            index.insert(slot.key.hash(slot.flow.scope, &self.hasher), number);
        }
        self.index = index;
    }

    /// The entry of a handle and when it dies, if it is still the one.
    #[inline]
    pub(crate) fn get(&self, handle: Handle) -> Option<(&Flow, Timestamp)> {
        let slot = self.slots.get(handle.index as usize)?;
        (slot.version == handle.version).then_some((&slot.flow, slot.deadline))
    }

    /// The entry, to change it.
    #[inline]
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut Flow> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        (slot.version == handle.version).then_some(&mut slot.flow)
    }

    /// The entry of a handle with its key and deadline, if it is still the one.
    pub(crate) fn entry(&self, handle: Handle) -> Option<(&K, &Flow, Timestamp)> {
        let slot = self.slots.get(handle.index as usize)?;
        (slot.version == handle.version).then_some((&slot.key, &slot.flow, slot.deadline))
    }

    /// Puts a mark on an entry for packets from `side`, if it is still the one. Where flows may be
    /// evicted, one whose handshake is not complete gets none: the packet that completes it must be
    /// met by [`Self::note_answer`]. The answer to a datagram is, because its end has no mark before.
    pub(crate) fn mark(&mut self, handle: Handle, side: Side, mark: Mark) {
        if let Some(slot) = self.slots.get_mut(handle.index as usize)
            && slot.version == handle.version
        {
            let is_udp = slot.flow.track.state == FlowState::Udp;
            if self.embryonic.is_none() || is_udp || !slot.flow.is_embryonic() {
                slot.mark = mark.put_on(slot.mark, side);
            }
        }
    }

    /// Notes that an entry may have been answered: then it is not evicted any more.
    pub(crate) fn note_answer(&mut self, handle: Handle) {
        if let Some(embryonic) = &mut self.embryonic
            && let Some(slot) = self.slots.get(handle.index as usize)
            && slot.version == handle.version
            && !slot.flow.is_embryonic()
        {
            embryonic.leave(handle.index, self.accounts.list_of(slot.flow.scope));
        }
    }

    /// The oldest flow of a list (see [`Accounts::list_of`]) that nobody has answered: its number,
    /// its entry, and when it dies.
    pub(crate) fn oldest_embryonic(&self, list: usize) -> Option<(u64, Handle, Timestamp)> {
        let (number, index) = self.embryonic.as_ref()?.oldest(list)?;
        let slot = self.slots.get(index as usize)?;
        Some((number, Handle { index, version: slot.version }, slot.deadline))
    }

    /// Removes the entry of a flow whose place has been given back already; its interface.
    pub(crate) fn remove_ended(&mut self, handle: Handle) -> Option<Scope> {
        self.take_out(handle.index)
    }

    /// Has interfaces hold their places by accounts that are copies of those that they have.
    pub(crate) fn account_to(&mut self, copies: &Arc<Accounts>) {
        self.accounts = Arc::clone(copies);
    }

    /// Has interfaces hold their places by other accounts from here on. `moved` hears of every entry
    /// whose interface had another account, or none, and moves its place.
    pub(crate) fn set_accounts(&mut self, accounts: Arc<Accounts>, mut moved: impl FnMut(Scope)) {
        let before = std::mem::replace(&mut self.accounts, accounts);
        let place = |accounts: &Accounts, scope| accounts.of(scope).map(std::ptr::from_ref);
        self.on_account = 0;
        for slot in self.slots.iter().filter(|slot| slot.version % 2 == 1) {
            let scope = slot.flow.scope;
            let now = place(&self.accounts, scope);
            self.on_account += usize::from(now.is_some());
            if place(&before, scope) != now {
                moved(scope);
            }
        }
        if let Some(embryonic) = &mut self.embryonic {
            let (slots, accounts) = (&self.slots, &self.accounts);
            embryonic.sort(|index| {
                slots.get(index as usize).map_or(0, |slot| accounts.list_of(slot.flow.scope))
            });
        }
    }

    /// Takes the marks off all entries.
    pub(crate) fn forget_marks(&mut self) {
        for slot in &mut self.slots {
            slot.mark = 0;
        }
    }

    /// Dead entries whose places [`Self::reclaim`] would free at `now`, looking at all.
    pub(crate) fn reclaimable(&self, now: Timestamp) -> usize {
        let until = tick(now);
        let is_met = |slot: &&Slot<K>| {
            slot.version % 2 == 1 && slot.deadline <= now && self.due(slot.list) < until
        };
        self.slots.iter().filter(is_met).count()
    }

    /// Gives an entry another deadline.
    #[inline]
    pub(crate) fn set_deadline(&mut self, handle: Handle, deadline: Timestamp) {
        let Some(slot) = self.slots.get_mut(handle.index as usize) else { return };
        if slot.version != handle.version {
            return;
        }
        let was = std::mem::replace(&mut slot.deadline, deadline);
        if deadline < was {
            self.come_nearer(handle.index);
        }
    }

    /// Moves an entry whose deadline has come nearer, if its list comes up too late. Any list comes
    /// up before the deadline it was chosen for, so a later one needs no look.
    fn come_nearer(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index as usize) else { return };
        if tick(slot.deadline) < self.due(slot.list) {
            self.unlink(index);
            self.link(index);
        }
    }

    /// The tick at which a list comes up.
    fn due(&self, list: u16) -> i64 {
        self.cursor + (i64::from(list) - self.cursor).rem_euclid(LISTS)
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
    #[inline]
    pub(crate) fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        match self.is_due(tick(now)) {
            true => self.expire_due(now, budget),
            false => budget,
        }
    }

    #[inline(never)]
    fn expire_due(&mut self, now: Timestamp, budget: usize) -> usize {
        let until = tick(now);
        let mut left = budget;
        while left > 0 && self.step(until, now) {
            left -= 1;
        }
        left
    }

    /// Whether a list comes up before `until` that may have entries.
    #[inline]
    fn is_due(&self, until: i64) -> bool {
        self.len() > 0 && self.cursor < until
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
        if !self.is_due(until) {
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
    fn index_of(&self, hash: u64, scope: Scope, key: &K) -> Option<u32> {
        self.index.find(hash, |index| self.is_of(index, scope, key))
    }

    /// Whether an entry is there, and a key's.
    #[inline]
    fn is_of(&self, index: u32, scope: Scope, key: &K) -> bool {
        let is = |slot: &Slot<K>| slot.key == *key && slot.flow.scope == scope;
        self.slots.get(index as usize).is_some_and(|slot| is(slot) && slot.version % 2 == 1)
    }

    fn free_slot(&mut self, index: u32) {
        if let Some(scope) = self.take_out(index)
            && let Some(account) = self.accounts.of(scope)
        {
            account.end();
        }
    }

    /// Takes an entry out of all that it stands in, without giving its place back.
    fn take_out(&mut self, index: u32) -> Option<Scope> {
        self.unlink(index);
        let slot = self.slots.get_mut(index as usize)?;
        let scope = slot.flow.scope;
        let hash = slot.key.hash(slot.flow.scope, &self.hasher);
        slot.version = slot.version.wrapping_add(1);
        slot.next = std::mem::replace(&mut self.free, index);
        self.index.remove(hash, index);
        let list = self.accounts.list_of(scope);
        self.on_account -= usize::from(list > 0);
        if let Some(embryonic) = &mut self.embryonic {
            embryonic.leave(index, list);
        }
        Some(scope)
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sgwall_packet::Headers;

    use super::*;
    use crate::RuleTag;

    /// Whoever knew the seed could put as many flows as they like into one bucket, and every search
    /// there would look at all of them. The same flows under another seed are like any others.
    #[test]
    fn only_who_knows_the_seed_can_crowd_a_bucket() {
        const FLOWS: usize = 4000;
        let hasher = |seed: u64| RandomState::with_seeds(seed, 2, 3, 4);
        let index = Index::with_room(FLOWS);
        let key = |number: u32| FlowKeyV4 {
            low: Ipv4Addr::from(0x0a00_010a),
            high: Ipv4Addr::from(0xc612_0000 | number >> 12),
            low_port: 443,
            high_port: (number & 0xfff) as u16,
            protocol: 6,
        };
        let known = hasher(1);
        let aims = |key: &FlowKeyV4| index.home(key.hash(Scope(0), &known)) == 7;
        let aimed: Vec<_> = (0..2_000_000).map(key).filter(aims).take(FLOWS).collect();
        assert_eq!(aimed.len(), FLOWS);
        let anything: Vec<_> = (0..FLOWS as u32).map(key).collect();
        let longest = |hasher: RandomState, keys: &[FlowKeyV4]| {
            let mut store = Store::new(FLOWS, hasher, false);
            let now = Timestamp::from_secs(1);
            for (key, number) in keys.iter().zip(1..) {
                let flow = Flow::open(Scope(0), &Headers::NONE, Side::Low, RuleTag(0), 0);
                let hash = store.hash(Scope(0), key);
                store.insert((hash, *key, false), flow, now, Timestamp::from_secs(9), number);
            }
            store.longest_search()
        };
        assert!(longest(known, &aimed) > FLOWS / 16);
        for seed in 100..110 {
            let (aimed, anything) =
                (longest(hasher(seed), &aimed), longest(hasher(seed), &anything));
            assert!(aimed <= 24 && anything <= 24, "{aimed} {anything}");
        }
    }
}
