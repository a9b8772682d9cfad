//! Longest-prefix match: addresses to small numbers, IPv4 and IPv6.
//!
//! Nested prefixes are first flattened by [`sweep`] into the elementary intervals they cut the
//! address space into; a [`PrefixMap`] then finds the interval of an address. Its tree mixes two
//! kinds of node, each chosen where it is small:
//!
//! * a *run*: up to five boundaries and six slots in one 64-byte cache line, compared all at once
//!   without branches;
//! * a *table*: slots indexed by the address bits that tell its boundaries apart. Base and shift
//!   fit the boundaries, so neither a common prefix nor an empty part of the space costs a level.
//!
//! A table has a slot for every four boundaries (at least 16), so memory is linear in the number
//! of prefixes, and each level consumes at least four bits: depth is bounded by the address, not
//! by the number of prefixes (one or two levels in practice). An IPv6 address is two 64-bit keys:
//! where boundaries fall inside one value of the high half, a second tree takes the low half.
//!
//! It refuses to change: a new set of prefixes is a new map.

use std::net::IpAddr;

use ipnet::IpNet;

/// The first address of an elementary interval, and the value that holds from there to the next.
/// IPv4 addresses stand in the low 32 bits.
pub(crate) type Interval = (u128, u32);

/// Values must be below this; the two highest bits of a slot say what it is.
pub(crate) const VALUE_LIMIT: u32 = 1 << 30;

const INDEX: u32 = VALUE_LIMIT - 1;
const VALUE: u32 = 0;
const RUN: u32 = 1;
const TABLE: u32 = 2;
const LOW: u32 = 3;

/// First and last address of a prefix, IPv4 in the low 32 bits; host bits are ignored.
pub(crate) fn bounds(prefix: &IpNet) -> (u128, u128) {
    (number(&prefix.network()), number(&prefix.broadcast()))
}

fn number(addr: &IpAddr) -> u128 {
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
    let mut out = vec![(0, outside)];
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
    v4: Tree,
    v6: Tree,
}

impl PrefixMap {
    /// A map of the intervals that [`sweep`] yields for each family.
    pub(crate) fn new(v4: &[Interval], v6: &[Interval]) -> Self {
        PrefixMap { v4: Tree::of_v4(v4), v6: Tree::of_v6(v6) }
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
            IpAddr::V4(a) => self.v4.find(self.v4.root, u64::from(u32::from(*a))) & INDEX,
            IpAddr::V6(a) => {
                let bits = u128::from(*a);
                let slot = self.v6.find(self.v6.root, (bits >> 64) as u64);
                if slot >> 30 == LOW {
                    let root = self.v6.lows[(slot & INDEX) as usize];
                    return self.v6.find(root, bits as u64) & INDEX;
                }
                slot & INDEX
            }
        }
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

/// Boundaries in a run.
const STARTS: usize = 5;
/// Boundaries for each slot of a table.
const PER_SLOT: usize = 4;

/// One cache line of boundaries: the slot of a key is the one after all starts not above it.
/// Unused starts are the highest key, unused slots repeat the last.
#[derive(Debug)]
#[repr(C, align(64))]
struct Run {
    starts: [u64; STARTS],
    slots: [u32; STARTS + 1],
}

const _: () = assert!(size_of::<Run>() == 64);

/// Slots for equal parts of the keys from `base`. Keys below fall to the first slot, keys beyond
/// to the last, and what stands there answers them rightly.
#[derive(Debug)]
struct Table {
    base: u64,
    first: u32,
    last: u32,
    shift: u32,
}

#[derive(Debug, Default)]
struct Tree {
    root: u32,
    tables: Vec<Table>,
    slots: Vec<u32>,
    runs: Vec<Run>,
    /// Roots of the trees over the low half.
    lows: Vec<u32>,
}

impl Tree {
    fn of_v4(intervals: &[Interval]) -> Self {
        let mut tree = Tree::default();
        let keys: Vec<_> = intervals.iter().map(|&(start, value)| (start as u64, value)).collect();
        tree.root = tree.build(&keys);
        tree
    }

    fn of_v6(intervals: &[Interval]) -> Self {
        let mut tree = Tree::default();
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
                let root = tree.build(&low);
                tree.lows.push(root);
                keys.push((at, slot(LOW, tree.lows.len() - 1)));
            }
            before = last;
        }
        resume(&mut keys, before, None);
        tree.root = tree.build(&keys);
        tree
    }

    /// A subtree over sorted keys; the first slot holds also for every key below.
    fn build(&mut self, keys: &[(u64, u32)]) -> u32 {
        let &[(_, first), (second, _), .., (last, _)] = keys else {
            // One key, or two.
            return match keys {
                [(_, below), (start, above)] => self.run(*below, &[(*start, *above)]),
                [(_, only)] => *only,
                _ => VALUE,
            };
        };
        if keys.len() <= STARTS + 1 {
            return self.run(first, &keys[1..]);
        }
        // The slot that holds the key before the second start also answers all keys below it.
        let lowest = second.saturating_sub(1);
        let span = last - lowest;
        let wanted = (keys.len() / PER_SLOT).clamp(16, 1 << 16).next_power_of_two();
        let shift = (64 - span.leading_zeros()).saturating_sub(wanted.trailing_zeros());
        let base = lowest >> shift << shift;
        let count = ((last - base) >> shift) + 1;

        let table = self.tables.len();
        let first_slot = self.slots.len();
        self.tables.push(Table { base, first: first_slot as u32, last: count as u32 - 1, shift });
        self.slots.resize(first_slot + count as usize, VALUE);
        let mut rest = &keys[1..];
        let mut before = keys[0];
        for index in 0..count {
            let inside = rest.partition_point(|&(start, _)| (start - base) >> shift <= index);
            let (mine, later) = rest.split_at(inside);
            rest = later;
            let from = base + (index << shift);
            let filled = match mine {
                [] => before.1,
                [(start, only)] if *start == from => *only,
                _ => {
                    let mut part = Vec::with_capacity(mine.len() + 1);
                    if mine[0].0 != from {
                        part.push(before);
                    }
                    part.extend_from_slice(mine);
                    self.build(&part)
                }
            };
            self.slots[first_slot + index as usize] = filled;
            before = mine.last().copied().unwrap_or(before);
        }
        slot(TABLE, table)
    }

    fn run(&mut self, below: u32, above: &[(u64, u32)]) -> u32 {
        let last = above.last().map_or(below, |&(_, slot)| slot);
        let mut run = Run { starts: [u64::MAX; STARTS], slots: [last; STARTS + 1] };
        run.slots[0] = below;
        for (i, &(start, slot)) in above.iter().enumerate().take(STARTS) {
            run.starts[i] = start;
            run.slots[i + 1] = slot;
        }
        self.runs.push(run);
        slot(RUN, self.runs.len() - 1)
    }

    /// The slot of `key`: a value, or a tree over the low half.
    #[inline]
    fn find(&self, root: u32, key: u64) -> u32 {
        let mut slot = root;
        loop {
            let index = (slot & INDEX) as usize;
            match slot >> 30 {
                TABLE => {
                    let table = &self.tables[index];
                    let part = (key.saturating_sub(table.base) >> table.shift)
                        .min(u64::from(table.last)) as usize;
                    slot = self.slots[table.first as usize + part];
                }
                RUN => {
                    let run = &self.runs[index];
                    let above: usize = run.starts.iter().map(|&s| usize::from(s <= key)).sum();
                    slot = run.slots[above.min(STARTS)];
                }
                _ => return slot,
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        self.tables.len() * size_of::<Table>()
            + self.slots.len() * size_of::<u32>()
            + self.runs.len() * size_of::<Run>()
            + self.lows.len() * size_of::<u32>()
    }
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
