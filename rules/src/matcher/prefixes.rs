//! Longest-prefix match: addresses to small numbers, IPv4 and IPv6.
//!
//! Nested prefixes are first flattened by [`sweep`] into the elementary intervals they cut the
//! address space into; a [`PrefixMap`] then finds the interval of an address. Its tree mixes two
//! kinds of node:
//!
//! * a *table*: slots indexed by the next bits of the address, as many bits as make about four
//!   slots for each boundary. The root is fitted to its boundaries, so a common prefix costs no
//!   level; a table below says in its slot where it is and how many bits it takes, so there is
//!   nothing to load but the next slot;
//! * a *run*, where boundaries are few and far between: up to seven of them and eight slots (IPv6:
//!   five and six) in one 64-byte cache line, compared all at once without branches.
//!
//! Memory is linear in the number of prefixes, and each table takes at least four bits: depth is
//! bounded by the address, not by the number of prefixes (two or three levels in practice). An IPv6
//! address is two 64-bit keys: where boundaries fall inside one value of the high half, a second
//! tree takes the low half.
//!
//! It refuses to change: a new set of prefixes is a new map.

use std::hint::select_unpredictable as select;
use std::net::IpAddr;

use ipnet::IpNet;

use super::run::{Key, Run};

/// The first address of an elementary interval, and the value that holds from there to the next.
/// IPv4 addresses stand in the low 32 bits.
pub(crate) type Interval = (u128, u32);

/// Values must be below this; the two highest bits of a slot say what it is.
pub(crate) const VALUE_LIMIT: u32 = 1 << 30;

pub(super) const INDEX: u32 = VALUE_LIMIT - 1;
/// Below these bits of a table's slot is its place, above how many address bits it takes, less 1.
pub(super) const TABLE_BITS: u32 = 26;
pub(super) const TABLE_INDEX: u32 = (1 << TABLE_BITS) - 1;
const VALUE: u32 = 0;
pub(super) const RUN: u32 = 1;
pub(super) const TABLE: u32 = 2;
pub(super) const LOW: u32 = 3;

/// First and last address of a prefix, IPv4 in the low 32 bits; host bits are ignored.
pub(crate) fn bounds(prefix: &IpNet) -> (u128, u128) {
    (number(&prefix.network()), number(&prefix.broadcast()))
}

pub(super) fn number(addr: &IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(*a)),
        IpAddr::V6(a) => u128::from(*a),
    }
}

/// The elementary intervals of one family's prefixes.
///
/// `prefixes` are first and last address with whatever belongs to each, sorted by first address,
/// the wider first, none twice. `inherit` makes a prefix's value of its parent's (`outside`'s
/// where it has none) and of what belongs to it. `end` is the last address of the family.
pub(crate) fn sweep<T>(
    prefixes: impl IntoIterator<Item = ((u128, u128), T)>,
    end: u128,
    outside: u32,
    mut inherit: impl FnMut(u32, T) -> u32,
) -> Vec<Interval> {
    let prefixes = prefixes.into_iter();
    let mut out = Vec::with_capacity(2 * prefixes.size_hint().1.unwrap_or_default() + 1);
    out.push((0, outside));
    let mut open: Vec<(u128, u32)> = Vec::new();
    let enclosing = |open: &[(u128, u32)]| open.last().map_or(outside, |&(_, value)| value);
    for ((first, last), own) in prefixes {
        while let Some(&(closed, _)) = open.last().filter(|&&(closed, _)| closed < first) {
            open.pop();
            emit(&mut out, closed + 1, enclosing(&open));
        }
        let value = inherit(enclosing(&open), own);
        emit(&mut out, first, value);
        open.push((last, value));
    }
    while let Some((closed, _)) = open.pop() {
        if closed < end {
            emit(&mut out, closed + 1, enclosing(&open));
        }
    }
    out
}

/// Appends an interval; one of no length is replaced, one that changes nothing left out.
fn emit(out: &mut Vec<Interval>, start: u128, value: u32) {
    if out.last().is_some_and(|&(previous, _)| previous == start) {
        out.pop();
    }
    if out.last().is_none_or(|&(_, previous)| previous != value) {
        out.push((start, value));
    }
}

/// Values by longest prefix.
#[derive(Debug)]
pub(crate) struct PrefixMap {
    pub(super) v4: Tree<u32, 8, 8>,
    pub(super) v6: Tree<u64, 5, 6>,
}

impl PrefixMap {
    /// A map of the intervals that [`sweep`] yields for each family.
    pub(crate) fn new(v4: &[Interval], v6: &[Interval]) -> Self {
        PrefixMap { v4: of_v4(v4), v6: of_v6(v6) }
    }

    /// A map of prefixes to values (below [`VALUE_LIMIT`]), `outside` where none matches. The
    /// longest prefix wins; of equal ones the first.
    pub(crate) fn from_prefixes(prefixes: &[(IpNet, u32)], outside: u32) -> Self {
        let family = |ipv6: bool| {
            let mut sorted: Vec<_> = prefixes
                .iter()
                .filter(|(prefix, _)| matches!(prefix, IpNet::V6(_)) == ipv6)
                .map(|(prefix, value)| (bounds(prefix), *value))
                .collect();
            sorted.sort_by_key(|&((first, last), _)| (first, std::cmp::Reverse(last)));
            sorted.dedup_by_key(|&mut (range, _)| range);
            sweep(sorted, last_address(ipv6), outside, |_, value| value)
        };
        PrefixMap::new(&family(false), &family(true))
    }

    /// The value of the longest prefix that covers `addr`.
    #[inline]
    pub(crate) fn get(&self, addr: &IpAddr) -> u32 {
        match addr {
            IpAddr::V4(a) => self.v4.get(&self.v4.root, u32::from(*a).into()),
            IpAddr::V6(a) => {
                let bits = u128::from(*a);
                let slot = self.v6.get(&self.v6.root, (bits >> 64) as u64);
                if slot >> 30 == LOW { self.low(slot, bits as u64) } else { slot }
            }
        }
    }

    /// [`Self::get`] of each, in step if they are of one family.
    #[inline]
    pub(super) fn get_all<const N: usize>(&self, addrs: [&IpAddr; N]) -> [u32; N] {
        let (mut keys, mut v4, mut v6) = ([0; N], true, true);
        for (key, addr) in keys.iter_mut().zip(addrs) {
            *key = match addr {
                IpAddr::V4(a) => {
                    v6 = false;
                    u32::from(*a).into()
                }
                IpAddr::V6(a) => {
                    v4 = false;
                    (u128::from(*a) >> 64) as u64
                }
            };
        }
        if v4 {
            self.v4.get_all(&self.v4.root, keys)
        } else if v6 {
            let mut slots = self.v6.get_all(&self.v6.root, keys);
            for (slot, addr) in slots.iter_mut().zip(addrs) {
                if *slot >> 30 == LOW {
                    *slot = self.low(*slot, number(addr) as u64);
                }
            }
            slots
        } else {
            addrs.map(|addr| self.get(addr))
        }
    }

    pub(super) fn low(&self, slot: u32, key: u64) -> u32 {
        let index = (slot & (LOW_RUN - 1)) as usize;
        if slot & LOW_RUN != 0 {
            return self.v6.runs[index].get(key);
        }
        self.v6.get(&self.v6.lows[index], key)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.v4.heap_bytes() + self.v6.heap_bytes()
    }
}

/// The last address of a family.
pub(crate) const fn last_address(ipv6: bool) -> u128 {
    if ipv6 { u128::MAX } else { u32::MAX as u128 }
}

/// Slots of a table for each boundary in it, about.
const SLOTS_EACH: usize = 8;
/// The most address bits that a table takes.
const MOST_BITS: u32 = 16;
/// The fewest, where there are as many.
const LEAST_BITS: u32 = 4;
/// Address bits that are left for one last table, however few boundaries there are.
const LAST_BITS: u32 = 5;
/// Tables begin at multiples of this.
pub(super) const ALIGN: usize = 4;
/// In a slot of a tree over the low half: it begins with a run, not with a root.
const LOW_RUN: u32 = 1 << 29;

/// A table that its boundaries were fitted to: slots for equal parts of the keys from `base`. Keys
/// below stand for `base`, keys beyond for `base + limit`, which have the same value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Root {
    pub(super) base: u64,
    pub(super) limit: u64,
    pub(super) first: u32,
    pub(super) shift: u32,
}

impl Root {
    #[inline]
    fn relative(&self, key: u64) -> u64 {
        key.saturating_sub(self.base).min(self.limit)
    }
}

/// The keys of a family or of a low half. A slot is a value, a run, a table or, tagged [`LOW`], a
/// tree over the next key. A table's slot says where it begins and how many bits it takes, of those
/// below its parent's.
#[derive(Debug)]
pub(super) struct Tree<K, const N: usize, const S: usize> {
    pub(super) root: Root,
    pub(super) slots: Vec<u32>,
    pub(super) runs: Vec<Run<K, N, S>>,
    lows: Vec<Root>,
}

/// Keys on their way into a tree: sorted boundaries, relative to the root's base, with what holds
/// from there on. The first holds also for every key below.
type Keys = [(u64, u32)];

fn of_v4<K: Key, const N: usize, const S: usize>(intervals: &[Interval]) -> Tree<K, N, S> {
    let mut tree = Tree::new();
    let keys: Vec<_> = intervals.iter().map(|&(start, value)| (start as u64, value)).collect();
    tree.root = tree.root(keys);
    tree
}

fn of_v6<K: Key, const N: usize, const S: usize>(intervals: &[Interval]) -> Tree<K, N, S> {
    let mut tree = Tree::new();
    let high = |&(start, _): &Interval| (start >> 64) as u64;
    let mut keys: Vec<(u64, u32)> = Vec::new();
    let mut before = 0;
    for group in intervals.chunk_by(|a, b| high(a) == high(b)) {
        let (Some(first), Some(&(_, last))) = (group.first(), group.last()) else { continue };
        let at = high(first);
        resume(&mut keys, before, Some(at));
        if group.len() == 1 && first.0 as u64 == 0 {
            keys.push((at, last));
        } else {
            let mut low: Vec<(u64, u32)> = Vec::with_capacity(group.len() + 1);
            if first.0 as u64 != 0 {
                low.push((0, before));
            }
            low.extend(group.iter().map(|&(start, value)| (start as u64, value)));
            keys.push((at, tree.low(low)));
        }
        before = last;
    }
    resume(&mut keys, before, None);
    tree.root = tree.root(keys);
    tree
}

impl<K: Key, const N: usize, const S: usize> Tree<K, N, S> {
    fn new() -> Self {
        Tree { root: Root::default(), slots: Vec::new(), runs: Vec::new(), lows: Vec::new() }
    }

    /// The slot, in a tree over the high half, of one over the low half.
    fn low(&mut self, keys: Vec<(u64, u32)>) -> u32 {
        if keys.len() <= S {
            let run = self.run(&keys);
            return slot(LOW, (run & INDEX | LOW_RUN) as usize);
        }
        let root = self.root(keys);
        self.lows.push(root);
        slot(LOW, self.lows.len() - 1)
    }

    /// A root of keys that are not relative yet.
    fn root(&mut self, mut keys: Vec<(u64, u32)>) -> Root {
        let first = self.slots.len() as u32;
        let (&[_, (second, _), .., (last, _)], true) = (&keys[..], keys.len() > S) else {
            let only = match keys[..] {
                [] => VALUE,
                [(_, only)] => only,
                _ => self.run(&keys),
            };
            self.slots.extend([only; 2]);
            return Root { base: 0, limit: u64::MAX, first, shift: 63 };
        };
        // The part that holds the key before the second start also answers all keys below it.
        let lowest = second.saturating_sub(1);
        let span = 64 - (last - lowest).leading_zeros();
        let shift = span.saturating_sub(bits_for(keys.len(), span));
        let base = lowest >> shift << shift;
        let count = ((last - base) >> shift) + 1;
        for (start, _) in &mut keys {
            *start = start.saturating_sub(base);
        }
        self.slots.resize(self.slots.len() + count as usize, VALUE);
        self.fill(first as usize, count, 0, shift, &keys);
        Root { base, limit: ((count - 1) << shift) + ((1 << shift) - 1), first, shift }
    }

    /// Fills `count` slots for parts of 2^`shift` keys from `from`.
    fn fill(&mut self, first: usize, count: u64, from: u64, shift: u32, keys: &Keys) {
        let mut before = keys[0];
        let mut next = first;
        let mut part = Vec::new();
        for mine in keys[1..].chunk_by(|a, b| (a.0 - from) >> shift == (b.0 - from) >> shift) {
            let index = (mine[0].0 - from) >> shift;
            let start = from + (index << shift);
            self.slots[next..first + index as usize].fill(before.1);
            next = first + index as usize;
            self.slots[next] = match mine {
                [(at, only)] if *at == start => *only,
                _ => {
                    part.clear();
                    if mine[0].0 != start {
                        part.push((start, before.1));
                    }
                    part.extend_from_slice(mine);
                    self.part(start, shift, &part)
                }
            };
            next += 1;
            before = mine.last().copied().unwrap_or(before);
        }
        self.slots[next..first + count as usize].fill(before.1);
    }

    /// The slot of several keys among the 2^`span` from `from`.
    fn part(&mut self, from: u64, span: u32, keys: &Keys) -> u32 {
        if keys.len() <= S && span > LAST_BITS {
            return self.run(keys);
        }
        let bits = bits_for(keys.len(), span);
        let first = self.slots.len().next_multiple_of(ALIGN);
        self.slots.resize(first + (1 << bits), VALUE);
        self.fill(first, 1 << bits, from, span - bits, keys);
        slot(TABLE, (first / ALIGN) | ((bits as usize - 1) << TABLE_BITS))
    }

    fn run(&mut self, keys: &Keys) -> u32 {
        self.runs.push(Run::new(keys.iter().copied()));
        slot(RUN, self.runs.len() - 1)
    }

    /// The value of a key, or the tree over the next one.
    #[inline]
    fn get(&self, root: &Root, key: u64) -> u32 {
        let key = root.relative(key);
        let mut slot = self.slots[root.first as usize + (key >> root.shift) as usize];
        let mut shift = root.shift;
        while slot >> 30 == TABLE {
            let bits = (slot >> TABLE_BITS & 15) + 1;
            // The bits of nested tables add up to the root's shift at most.
            shift = shift.saturating_sub(bits);
            let part = (key >> shift) as usize & ((1 << bits) - 1);
            slot = self.slots[(slot & TABLE_INDEX) as usize * ALIGN + part];
        }
        if slot >> 30 == RUN { self.runs[(slot & INDEX) as usize].get(K::of(key)) } else { slot }
    }

    /// [`Self::get`] of each, in step and without branches on where one of them ends.
    #[inline]
    fn get_all<const L: usize>(&self, root: &Root, keys: [u64; L]) -> [u32; L] {
        let keys = keys.map(|key| root.relative(key));
        let mut slots =
            keys.map(|key| self.slots[root.first as usize + (key >> root.shift) as usize]);
        // What is left of each key, from the highest bit on.
        let mut rests = keys.map(|key| key << (63 - root.shift) << 1);
        while any(&slots, TABLE) {
            for (slot, rest) in slots.iter_mut().zip(&mut rests) {
                let is_table = *slot >> 30 == TABLE;
                let bits_less_1 = *slot >> TABLE_BITS & 15;
                let part = (*rest >> (63 - bits_less_1)) as usize;
                *rest = *rest << bits_less_1 << 1;
                let place = (*slot & TABLE_INDEX) as usize * ALIGN + part;
                let inner = self.slots[select(is_table, place, 0)];
                *slot = select(is_table, inner, *slot);
            }
        }
        if any(&slots, RUN) {
            for (slot, key) in slots.iter_mut().zip(&keys) {
                let is_run = *slot >> 30 == RUN;
                let run = select(is_run, (*slot & INDEX) as usize, 0);
                let found = self.runs[run].get(K::of(*key));
                *slot = select(is_run, found, *slot);
            }
        }
        slots
    }

    fn heap_bytes(&self) -> usize {
        self.slots.len() * size_of::<u32>()
            + self.runs.len() * size_of::<Run<K, N, S>>()
            + self.lows.len() * size_of::<Root>()
    }
}

/// Whether any of the slots has this tag.
#[inline]
fn any(slots: &[u32], tag: u32) -> bool {
    slots.iter().fold(false, |any, slot| any | (slot >> 30 == tag))
}

/// The bits that a table of so many boundaries takes of `span`.
fn bits_for(boundaries: usize, span: u32) -> u32 {
    if span <= LAST_BITS {
        return span;
    }
    let wanted = (boundaries * SLOTS_EACH).next_power_of_two().trailing_zeros();
    wanted.clamp(LEAST_BITS, MOST_BITS).min(span)
}

/// After a tree over the low half, what held at its end holds on from the next high half, unless
/// other boundaries begin there.
fn resume(keys: &mut Vec<(u64, u32)>, value: u32, until: Option<u64>) {
    let Some(&(key, slot)) = keys.last() else { return };
    let next = key.checked_add(1).filter(|next| slot >> 30 == LOW && Some(*next) != until);
    keys.extend(next.map(|next| (next, value)));
}

/// A slot; the structure would need gigabytes before its index left the 30 bits.
fn slot(tag: u32, index: usize) -> u32 {
    tag << 30 | (index as u32 & INDEX)
}
