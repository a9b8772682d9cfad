//! What each protocol and port is worth to one prefix class: maps of 16 bits to a rank.
//!
//! A [`Row`] holds one map for each [`Domain`]. While rules are compiled a map is a persistent
//! tree of 16 children a node and four levels; laying a rule over it copies only the path to what
//! changes, and equal nodes are one. So a prefix that adds one port to the thousands it inherits
//! costs a few cache lines, not a copy. [`PortMapsBuilder::freeze`] then makes the form for
//! lookups: a row that cuts into eight intervals or fewer, all domains together, is a *run*, one
//! cache line that is searched without branches. Another is a *line* of slots, eight for equal
//! parts of TCP's ports, four for UDP's, one for each of the rest; a part is a run again or, where
//! it has too many intervals, four levels of nodes. So a lookup is one cache line or two, seldom
//! more, and a row that adds a port to many shares the other parts with the row it inherits from.

use std::collections::HashMap;

use ahash::RandomState;
use sgwall_packet::protocol;

use super::intervals::Intervals;
use super::run::Run32;
use crate::model::{IcmpMatch, L4Match, PortRange};

/// No rule: worse than every rank. Ranks are below it.
pub(crate) const NONE: u32 = (1 << 30) - 1;

const INDEX: u32 = NONE;
const VALUE: u32 = 0;
const RUN: u32 = 1;
const NODE: u32 = 2;

/// What the 16 bits of a map mean.
#[derive(Clone, Copy)]
enum Domain {
    /// TCP destination port.
    Tcp,
    /// UDP destination port.
    Udp,
    /// ICMP type and code.
    Icmp,
    /// ICMPv6 type and code.
    Icmpv6,
    /// The number of any other protocol, in the low 8 bits.
    Other,
}

impl Domain {
    const fn of(number: u8) -> Self {
        match number {
            protocol::TCP => Domain::Tcp,
            protocol::UDP => Domain::Udp,
            protocol::ICMP => Domain::Icmp,
            protocol::ICMPV6 => Domain::Icmpv6,
            _ => Domain::Other,
        }
    }

    /// Its first slot in a line, and the bits of a key that tell its slots apart.
    const fn place(self) -> (u32, u32) {
        match self {
            Domain::Tcp => (0, 3),
            Domain::Udp => (8, 2),
            Domain::Icmp => (12, 0),
            Domain::Icmpv6 => (13, 0),
            Domain::Other => (14, 0),
        }
    }

    const ALL: [Domain; 5] =
        [Domain::Tcp, Domain::Udp, Domain::Icmp, Domain::Icmpv6, Domain::Other];
}

/// Where the packets of a protocol stand.
#[derive(Clone, Copy)]
struct Place {
    domain: u8,
    /// The domain's first slot in a line.
    first: u8,
    /// Bits of the key below those that choose the slot.
    shift: u8,
    /// What is the key: the selector, or the protocol's number.
    is_number: bool,
}

static PLACES: [Place; 256] = {
    let mut places = [Place { domain: 0, first: 0, shift: 0, is_number: false }; 256];
    let mut number = 0;
    while number < 256 {
        let domain = Domain::of(number as u8);
        let (first, bits) = domain.place();
        places[number] = Place {
            domain: domain as u8,
            first: first as u8,
            shift: 16 - bits as u8,
            is_number: matches!(domain, Domain::Other),
        };
        number += 1;
    }
    places
};

/// What a packet is looked up by.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// Its slot in a line.
    part: u8,
    /// Its domain, and its 16 bits there.
    of_run: u32,
}

impl Key {
    #[inline]
    pub(super) fn new(number: u8, selector: u16) -> Self {
        let place = PLACES[usize::from(number)];
        let key = u32::from(if place.is_number { u16::from(number) } else { selector });
        let part = place.first + (key >> place.shift) as u8;
        Key { part, of_run: run_key(place.domain.into(), key) }
    }
}

/// The key of runs.
const fn run_key(domain: u32, key: u32) -> u32 {
    domain << 16 | key
}

/// What each key is worth to a prefix class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    /// All domains together, in few intervals.
    Few(Intervals),
    /// One map for each domain, by its root.
    Many([u32; 5]),
}

impl Row {
    /// The row of an address that no rule covers.
    pub(crate) fn empty() -> Self {
        Row::Few(Intervals::all(NONE))
    }
}

/// Maps as lookups read them. What they are asked for is a class: the number of a run that holds
/// all of a row or, with [`LINE`], of a line.
#[derive(Debug)]
pub(crate) struct PortMaps {
    /// Rows, and nodes of the maps that are too large for runs.
    lines: Vec<Line>,
    runs: Vec<Run32>,
}

/// Marks classes that are lines. Classes are below twice that.
const LINE: u32 = 1 << 29;

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Line([u32; FAN]);

/// Children of a node: four bits of the key.
const FAN: usize = 16;
/// Levels of nodes: all 16 bits.
const LEVELS: u32 = 4;

impl PortMaps {
    /// The rank of a packet in a class, [`NONE`] where no rule matches.
    #[inline]
    pub(crate) fn get(&self, class: u32, key: Key) -> u32 {
        self.finish(key, self.begin(class, key))
    }

    /// The first of the memory that [`Self::get`] waits for; [`Self::finish`] does the rest. Apart,
    /// so that the waits of several packets overlap.
    #[inline]
    pub(super) fn begin(&self, class: u32, key: Key) -> u32 {
        match class & LINE {
            0 => RUN << 30 | class,
            _ => self.lines[(class & !LINE) as usize].0[usize::from(key.part) % FAN],
        }
    }

    #[inline]
    pub(super) fn finish(&self, key: Key, mut slot: u32) -> u32 {
        let mut shift = 4 * LEVELS;
        while slot >> 30 == NODE {
            // Values stand at the lowest level, so the shift never falls below zero.
            shift = shift.saturating_sub(4);
            slot = self.lines[(slot & INDEX) as usize].0[(key.of_run >> shift) as usize % FAN];
        }
        match slot >> 30 {
            RUN => self.runs[(slot & INDEX) as usize].get(key.of_run),
            _ => slot,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>() + self.runs.len() * size_of::<Run32>()
    }
}

/// Maps while rules are laid over one another.
pub(crate) struct PortMapsBuilder {
    nodes: Vec<BuildNode>,
    /// The node of given children at a level.
    ids: HashMap<(u32, [u32; FAN]), u32, RandomState>,
    rows: Vec<Row>,
    row_ids: HashMap<Row, u32, RandomState>,
}

struct BuildNode {
    children: [u32; FAN],
    extent: Extent,
}

/// What there is below a node.
#[derive(Clone, Copy)]
struct Extent {
    best: u32,
    worst: u32,
    /// The ranks of the first and of the last key.
    ends: (u32, u32),
    /// How often the rank changes from a key to the next.
    cuts: u32,
}

impl PortMapsBuilder {
    /// For about so many rows.
    pub(crate) fn new(rows: usize) -> Self {
        PortMapsBuilder {
            nodes: Vec::new(),
            ids: HashMap::with_hasher(hasher()),
            rows: Vec::with_capacity(rows),
            row_ids: HashMap::with_capacity_and_hasher(rows, hasher()),
        }
    }

    /// The number of a row; equal rows have one.
    pub(crate) fn row_id(&mut self, row: Row) -> u32 {
        let row = match row {
            Row::Many(roots) => self.few(&roots).map_or(row, Row::Few),
            Row::Few(_) => row,
        };
        *self.row_ids.entry(row).or_insert_with(|| {
            self.rows.push(row);
            self.rows.len() as u32 - 1
        })
    }

    /// The row of a number that [`Self::row_id`] gave.
    pub(crate) fn row(&self, id: u32) -> Row {
        self.rows.get(id as usize).copied().unwrap_or_else(Row::empty)
    }

    /// Lays a rule over a row: where it matches, the better rank stands.
    pub(crate) fn overlay(&mut self, row: &mut Row, matches: L4Match, rank: u32) {
        let Some((first, last)) = run_keys(matches) else { return };
        match row {
            Row::Few(few) => match few.lay(first, last, rank) {
                Some(laid) => *few = laid,
                None => {
                    let mut roots = self.roots(few);
                    self.lay_keys(&mut roots, first, last, rank);
                    *row = Row::Many(roots);
                }
            },
            Row::Many(roots) => self.lay_keys(roots, first, last, rank),
        }
    }

    /// The maps of a row of few intervals.
    fn roots(&mut self, few: &Intervals) -> [u32; 5] {
        let mut roots = [NONE; 5];
        for (first, last, rank) in few.iter() {
            self.lay_keys(&mut roots, first, last, rank);
        }
        roots
    }

    /// All maps in few intervals, if they are.
    fn few(&self, roots: &[u32; 5]) -> Option<Intervals> {
        let mut few = Intervals::default();
        let mut maps = Domain::ALL.iter().zip(roots);
        let fits = maps.all(|(&domain, &root)| {
            self.collect(root, LEVELS, run_key(domain as u32, 0), &mut few)
        });
        fits.then_some(few)
    }

    /// Lays a rank over the keys `first..=last` of runs.
    fn lay_keys(&mut self, roots: &mut [u32; 5], first: u32, last: u32, rank: u32) {
        const WHOLE: u32 = u16::MAX as u32;
        for (domain, root) in Domain::ALL.into_iter().zip(roots) {
            let start = run_key(domain as u32, 0);
            if first <= start + WHOLE && last >= start {
                let (from, to) = (first.saturating_sub(start), (last - start).min(WHOLE));
                *root = self.lay(*root, LEVELS, from, to, rank);
            }
        }
    }

    /// Lays a rank over keys `first..=last` of the map at `root`, which has `level` levels.
    fn lay(&mut self, root: u32, level: u32, first: u32, last: u32, rank: u32) -> u32 {
        let Extent { best, worst, .. } = self.extent(root);
        if rank >= worst {
            return root;
        }
        let whole = (1 << (4 * level)) - 1;
        if first == 0 && last == whole && rank <= best {
            return rank;
        }
        let part = level.saturating_sub(1);
        let child_whole = whole >> 4;
        let mut children = self.children(root);
        for (child, start) in children.iter_mut().zip((0u32..).step_by(child_whole as usize + 1)) {
            if first <= start + child_whole && last >= start {
                let (from, to) = (first.saturating_sub(start), (last - start).min(child_whole));
                *child = self.lay(*child, part, from, to, rank);
            }
        }
        self.intern(level, children)
    }

    fn extent(&self, root: u32) -> Extent {
        if root >> 30 == VALUE {
            return Extent { best: root, worst: root, ends: (root, root), cuts: 0 };
        }
        self.nodes[(root & INDEX) as usize].extent
    }

    fn children(&self, root: u32) -> [u32; FAN] {
        if root >> 30 == VALUE {
            return [root; FAN];
        }
        self.nodes[(root & INDEX) as usize].children
    }

    fn intern(&mut self, level: u32, children: [u32; FAN]) -> u32 {
        if children[0] >> 30 == VALUE && children.iter().all(|&child| child == children[0]) {
            return children[0];
        }
        if let Some(&id) = self.ids.get(&(level, children)) {
            return id;
        }
        let mut extent = self.extent(children[0]);
        for &child in &children[1..] {
            let next = self.extent(child);
            extent.best = extent.best.min(next.best);
            extent.worst = extent.worst.max(next.worst);
            extent.cuts += next.cuts + u32::from(extent.ends.1 != next.ends.0);
            extent.ends.1 = next.ends.1;
        }
        let id = NODE << 30 | (self.nodes.len() as u32 & INDEX);
        self.nodes.push(BuildNode { children, extent });
        self.ids.insert((level, children), id);
        id
    }

    /// The maps in the form for lookups, and the class of each row.
    pub(crate) fn freeze(self) -> (PortMaps, Vec<u32>) {
        let mut frozen = Frozen {
            maps: PortMaps { lines: Vec::new(), runs: Vec::with_capacity(self.rows.len()) },
            parts: HashMap::with_hasher(hasher()),
            nodes: HashMap::with_hasher(hasher()),
        };
        let classes = self.rows.iter().map(|row| self.freeze_row(&mut frozen, row)).collect();
        (frozen.maps, classes)
    }

    fn freeze_row(&self, frozen: &mut Frozen, row: &Row) -> u32 {
        let roots = match row {
            Row::Few(few) => return frozen.run(few) & INDEX,
            Row::Many(roots) => roots,
        };
        let mut line = [NONE; FAN];
        for (domain, &root) in Domain::ALL.into_iter().zip(roots) {
            let (first, bits) = domain.place();
            let slots = line.iter_mut().skip(first as usize);
            for (part, slot) in (0..1 << bits).zip(slots) {
                *slot = self.freeze_part(frozen, root, domain, part);
            }
        }
        frozen.maps.lines.push(Line(line));
        LINE | (frozen.maps.lines.len() - 1) as u32
    }

    /// Freezes one of the equal parts of a domain's map; where it is too large for a run, all of
    /// the map.
    fn freeze_part(&self, frozen: &mut Frozen, root: u32, domain: Domain, part: usize) -> u32 {
        if root >> 30 == VALUE {
            return root;
        }
        let bits = domain.place().1;
        let len = FAN >> bits;
        let all = self.children(root);
        let children = &all[part * len..][..len];
        if children[0] >> 30 == VALUE && children.iter().all(|&child| child == children[0]) {
            return children[0];
        }
        let base = run_key(domain as u32, (part as u32) << (16 - bits));
        // No child is as the places that are not used.
        let mut key = [u32::MAX; FAN];
        key[..len].copy_from_slice(children);
        if let Some(&done) = frozen.parts.get(&(base, key)) {
            return done;
        }
        let mut intervals = Intervals::default();
        let mut starts = children.iter().zip((base..).step_by(1 << (4 * (LEVELS - 1))));
        if !starts.all(|(&child, start)| self.collect(child, LEVELS - 1, start, &mut intervals)) {
            return self.freeze_map(frozen, root, LEVELS, run_key(domain as u32, 0));
        }
        let slot = frozen.run(&intervals);
        frozen.parts.insert((base, key), slot);
        slot
    }

    /// Freezes the map at `root` whose run keys begin at `base`.
    fn freeze_map(&self, frozen: &mut Frozen, root: u32, level: u32, base: u32) -> u32 {
        if root >> 30 == VALUE {
            return root;
        }
        if let Some(&done) = frozen.nodes.get(&(root, base)) {
            return done;
        }
        let mut intervals = Intervals::default();
        let slot = if self.collect(root, level, base, &mut intervals) {
            frozen.run(&intervals)
        } else {
            let step = 1 << (4 * level.saturating_sub(1));
            let mut children = self.children(root);
            for (child, start) in children.iter_mut().zip((base..).step_by(step)) {
                *child = self.freeze_map(frozen, *child, level.saturating_sub(1), start);
            }
            frozen.maps.lines.push(Line(children));
            NODE << 30 | ((frozen.maps.lines.len() - 1) as u32 & INDEX)
        };
        frozen.nodes.insert((root, base), slot);
        slot
    }

    /// Collects the intervals of a map; false as soon as they are too many for a run.
    fn collect(&self, root: u32, level: u32, base: u32, out: &mut Intervals) -> bool {
        if root >> 30 == VALUE {
            return out.push(base, root);
        }
        let node = &self.nodes[(root & INDEX) as usize];
        if out.len() + node.extent.cuts as usize > Run32::MOST {
            return false;
        }
        let step = 1 << (4 * level.saturating_sub(1));
        let children = node.children.iter();
        children
            .zip((base..).step_by(step))
            .all(|(&child, start)| self.collect(child, level.saturating_sub(1), start, out))
    }
}

/// Maps on their way into the form for lookups, and what is done already.
struct Frozen {
    maps: PortMaps,
    /// Parts of maps, by their first key and their children.
    parts: HashMap<(u32, [u32; FAN]), u32, RandomState>,
    /// Maps and subtrees, by root and first key.
    nodes: HashMap<(u32, u32), u32, RandomState>,
}

impl Frozen {
    fn run(&mut self, intervals: &Intervals) -> u32 {
        self.maps.runs.push(intervals.run());
        RUN << 30 | ((self.maps.runs.len() - 1) as u32 & INDEX)
    }
}

/// Hashes what only this process makes: nobody chooses a bucket.
fn hasher() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// The keys of runs that a rule matches, first and last.
fn run_keys(matches: L4Match) -> Option<(u32, u32)> {
    const FULL: (u32, u32) = (0, u16::MAX as u32);
    let ports = |PortRange { from, to }| (u32::from(from), u32::from(to));
    let (domain, (first, last)) = match matches {
        L4Match::All => return Some((0, u32::MAX)),
        L4Match::Tcp(range) => (Domain::Tcp, ports(range)),
        L4Match::Udp(range) => (Domain::Udp, ports(range)),
        L4Match::Icmp(icmp) => (Domain::Icmp, icmp_range(icmp)),
        L4Match::Icmpv6(icmp) => (Domain::Icmpv6, icmp_range(icmp)),
        L4Match::Other(number) => match Domain::of(number) {
            Domain::Other => (Domain::Other, (u32::from(number), u32::from(number))),
            named => (named, FULL),
        },
    };
    (first <= last).then(|| (run_key(domain as u32, first), run_key(domain as u32, last)))
}

/// The keys of an ICMP match. A code without a type is no match (SEMANTICS 2.4): no key.
fn icmp_range(icmp: IcmpMatch) -> (u32, u32) {
    match (icmp.kind.map(u32::from), icmp.code.map(u32::from)) {
        (None, None) => (0, u16::MAX.into()),
        (Some(kind), None) => (kind << 8, kind << 8 | 0xff),
        (Some(kind), Some(code)) => (kind << 8 | code, kind << 8 | code),
        (None, Some(_)) => (1, 0),
    }
}
