//! What each protocol and port is worth to one prefix class: maps from keys to a rank.
//!
//! A class that cuts the keys into eight intervals or fewer is a *run*, one cache line that is
//! searched without branches. The map of another is a tree of 16 children a node over the
//! [`Numbers`] of the intervals that all rules together cut the keys into; a subtree of eight
//! intervals or fewer is a run again. While rules are compiled trees are persistent: laying a rule
//! over one copies only the path to what changes, and equal nodes are one. So a prefix that adds
//! one port to the thousands it inherits costs a few cache lines, not a copy.

use std::collections::HashMap;
use std::hint::select_unpredictable as select;

use ahash::RandomState;

use super::Entry;
use super::intervals::Intervals;
use super::keys::{Numbers, keys};
use super::run::Run32;
use crate::model::L4Match;

/// No rule: worse than every rank. Ranks are below it.
pub(crate) const NONE: u32 = (1 << 30) - 1;

pub(super) const INDEX: u32 = NONE;
const VALUE: u32 = 0;
pub(super) const RUN: u32 = 1;
pub(super) const NODE: u32 = 2;

/// What each key is worth to a prefix class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    /// Few intervals of keys.
    Few(Intervals),
    /// The root of a tree over their numbers.
    Many(u32),
}

impl Row {
    /// The row of an address that no rule covers.
    pub(crate) fn empty() -> Self {
        Row::Few(Intervals::all(NONE))
    }
}

/// Maps as lookups read them. What they are asked for is a class: the number of a run or, with
/// [`LINE`], of the line that is a tree's root.
#[derive(Debug)]
pub(crate) struct PortMaps {
    /// Nodes of trees.
    pub(super) lines: Vec<Line>,
    pub(super) runs: Vec<Run32>,
    pub(super) numbers: Numbers,
}

/// Marks classes that are lines. Classes are below twice that.
pub(super) const LINE: u32 = 1 << 29;

#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Line([u32; FAN]);

/// Children of a node: four bits of a number.
const FAN: usize = 16;

impl PortMaps {
    /// The rank of a key in a class, [`NONE`] where no rule matches.
    #[inline]
    pub(crate) fn get(&self, class: u32, key: u32) -> u32 {
        if class & LINE == 0 {
            return self.runs[class as usize].get(key);
        }
        let number = self.numbers.of(key);
        let mut slot = NODE << 30 | class & !LINE;
        let mut shift = 4 * self.numbers.levels();
        while slot >> 30 == NODE {
            // Values stand at the lowest level, so the shift never falls below zero.
            shift = shift.saturating_sub(4);
            slot = self.lines[(slot & INDEX) as usize].0[(number >> shift) as usize % FAN];
        }
        match slot >> 30 {
            RUN => self.runs[(slot & INDEX) as usize].get(number),
            _ => slot,
        }
    }

    /// [`Self::get`] of each, in step and without branches on where one of them ends.
    #[inline]
    pub(super) fn get_all<const N: usize>(
        &self,
        classes: &[u32; N],
        mut keys: [u32; N],
    ) -> [u32; N] {
        let mut slots = classes.map(|class| RUN << 30 | class);
        if classes.iter().fold(0, |any, class| any | class) & LINE != 0 {
            for ((slot, key), class) in slots.iter_mut().zip(&mut keys).zip(classes) {
                let is_line = class & LINE != 0;
                let number = self.numbers.of(*key);
                *key = select(is_line, number, *key);
                *slot = select(is_line, NODE << 30 | class & !LINE, *slot);
            }
            let mut shift = 4 * self.numbers.levels();
            while slots.iter().fold(false, |any, slot| any | (slot >> 30 == NODE)) {
                shift = shift.saturating_sub(4);
                for (slot, key) in slots.iter_mut().zip(&keys) {
                    let is_node = *slot >> 30 == NODE;
                    let line = select(is_node, *slot & INDEX, 0);
                    let child = self.lines[line as usize].0[(key >> shift) as usize % FAN];
                    *slot = select(is_node, child, *slot);
                }
            }
        }
        for (slot, key) in slots.iter_mut().zip(keys) {
            let is_run = *slot >> 30 == RUN;
            let run = select(is_run, *slot & INDEX, 0);
            let rank = self.runs[run as usize].get(key);
            *slot = select(is_run, rank, *slot);
        }
        slots
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
            + self.runs.len() * size_of::<Run32>()
            + self.numbers.heap_bytes()
    }
}

/// Maps while rules are laid over one another.
pub(crate) struct PortMapsBuilder<'a> {
    /// What cuts the keys into intervals.
    entries: &'a [Entry],
    /// Made with the first tree, with the first key of each.
    numbers: Option<(Numbers, Vec<u32>)>,
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

impl<'a> PortMapsBuilder<'a> {
    pub(crate) fn new(entries: &'a [Entry]) -> Self {
        // A row for each, about.
        let rows = entries.len() + 1;
        PortMapsBuilder {
            entries,
            numbers: None,
            nodes: Vec::new(),
            ids: HashMap::with_hasher(hasher()),
            rows: Vec::with_capacity(rows),
            row_ids: HashMap::with_capacity_and_hasher(rows, hasher()),
        }
    }

    /// The number of a row; equal rows have one.
    pub(crate) fn row_id(&mut self, row: Row) -> u32 {
        let row = match row {
            Row::Many(root) => self.few(root).map_or(row, Row::Few),
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
        let Some((first, last)) = keys(matches) else { return };
        let root = match row {
            Row::Few(few) => match few.lay(first, last, rank) {
                Some(laid) => {
                    *few = laid;
                    return;
                }
                None => self.tree(few),
            },
            Row::Many(root) => *root,
        };
        *row = Row::Many(self.lay_keys(root, first, last, rank));
    }

    /// The tree of a row of few intervals.
    fn tree(&mut self, few: &Intervals) -> u32 {
        let matches = self.entries.iter().map(|entry| entry.matches);
        self.numbers.get_or_insert_with(|| Numbers::new(matches));
        few.iter().fold(NONE, |root, (first, last, rank)| self.lay_keys(root, first, last, rank))
    }

    /// The few intervals of a tree, if they are.
    fn few(&self, root: u32) -> Option<Intervals> {
        let (numbers, firsts) = self.numbers.as_ref()?;
        let mut few = Intervals::default();
        let fits = self.collect(root, numbers.levels(), 0, &mut few);
        fits.then(|| few.map(|number| firsts[numbers.place(number)]))
    }

    /// Lays a rank over keys, where rules begin and end.
    fn lay_keys(&mut self, root: u32, first: u32, last: u32, rank: u32) -> u32 {
        let Some((numbers, _)) = &self.numbers else { return root };
        let levels = numbers.levels();
        let (first, last) = numbers.range(first, last);
        self.lay(root, levels, first, last.min((1 << (4 * levels)) - 1), rank)
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
    pub(crate) fn freeze(mut self) -> (PortMaps, Vec<u32>) {
        let (numbers, _) = self.numbers.take().unwrap_or_default();
        let levels = numbers.levels();
        let runs = Vec::with_capacity(self.rows.len());
        let mut frozen = Frozen {
            maps: PortMaps { lines: Vec::new(), runs, numbers },
            nodes: HashMap::with_hasher(hasher()),
        };
        let class = |row: &Row| match *row {
            Row::Few(few) => frozen.run(&few) & INDEX,
            Row::Many(root) => LINE | self.freeze_map(&mut frozen, root, levels, 0) & INDEX,
        };
        let classes = self.rows.iter().map(class).collect();
        (frozen.maps, classes)
    }

    /// Freezes the map at `root` whose numbers begin at `base`.
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
    /// Trees and subtrees, by root and first number.
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
