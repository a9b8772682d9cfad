//! What each protocol and port is worth to one prefix class: maps of 16 bits to a rank.
//!
//! A [`Row`] holds one map for each [`Domain`]. While rules are compiled a map is a persistent
//! tree of 16 children a node and four levels; laying a rule over it copies only the path to what
//! changes, and equal nodes are one. So a prefix that adds one port to the thousands it inherits
//! costs a few cache lines, not a copy. [`PortMaps::freeze`] then turns each subtree that cuts
//! into eleven intervals or fewer (nearly all do) into a *run*: one cache line, searched without
//! branches. A lookup is one such line, or at most four nodes of one line each.

use std::collections::HashMap;

use sgwall_packet::protocol;

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
    #[inline]
    const fn of(number: u8) -> Self {
        match number {
            protocol::TCP => Domain::Tcp,
            protocol::UDP => Domain::Udp,
            protocol::ICMP => Domain::Icmp,
            protocol::ICMPV6 => Domain::Icmpv6,
            _ => Domain::Other,
        }
    }
}

/// One map for each domain, by its root.
pub(crate) type Row = [u32; 5];

/// The row of an address that no rule covers.
pub(crate) const EMPTY_ROW: Row = [NONE; 5];

/// Maps as lookups read them.
#[derive(Debug)]
pub(crate) struct PortMaps {
    rows: Vec<Row>,
    runs: Vec<Run>,
    nodes: Vec<Node>,
}

/// Boundaries in a run.
const STARTS: usize = 10;

/// As [`super::prefixes`]' run: the rank of a key is the one after all starts not above it.
#[derive(Debug)]
#[repr(C, align(64))]
struct Run {
    starts: [u16; STARTS],
    ranks: [u32; STARTS + 1],
}

const _: () = assert!(size_of::<Run>() == 64);

#[derive(Debug)]
#[repr(align(64))]
struct Node([u32; FAN]);

/// Children of a node: four bits of the key.
const FAN: usize = 16;
/// Levels of nodes: all 16 bits.
const LEVELS: u32 = 4;

impl PortMaps {
    /// The rank of a packet in a row, [`NONE`] where no rule matches.
    #[inline]
    pub(crate) fn get(&self, row: u32, number: u8, selector: u16) -> u32 {
        let domain = Domain::of(number);
        let key = if matches!(domain, Domain::Other) { u16::from(number) } else { selector };
        let mut slot = self.rows[row as usize][domain as usize];
        let mut shift = 4 * LEVELS;
        loop {
            let index = (slot & INDEX) as usize;
            match slot >> 30 {
                RUN => {
                    let run = &self.runs[index];
                    let above: u16 = run.starts.iter().map(|&s| u16::from(s <= key)).sum();
                    return run.ranks[usize::from(above).min(STARTS)];
                }
                NODE => {
                    // Values stand at the lowest level, so the shift never falls below zero.
                    shift = shift.saturating_sub(4);
                    slot = self.nodes[index].0[usize::from(key >> shift) % FAN];
                }
                _ => return slot,
            }
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.rows.len() * size_of::<Row>()
            + self.runs.len() * size_of::<Run>()
            + self.nodes.len() * size_of::<Node>()
    }
}

/// Maps while rules are laid over one another.
#[derive(Default)]
pub(crate) struct PortMapsBuilder {
    nodes: Vec<BuildNode>,
    /// The node of given children at a level.
    ids: HashMap<(u32, [u32; FAN]), u32>,
    rows: Vec<Row>,
    row_ids: HashMap<Row, u32>,
}

struct BuildNode {
    children: [u32; FAN],
    /// Best and worst rank below.
    best: u32,
    worst: u32,
}

impl PortMapsBuilder {
    /// The number of a row; equal rows have one.
    pub(crate) fn row_id(&mut self, row: Row) -> u32 {
        *self.row_ids.entry(row).or_insert_with(|| {
            self.rows.push(row);
            self.rows.len() as u32 - 1
        })
    }

    /// The row of a number that [`Self::row_id`] gave.
    pub(crate) fn row(&self, id: u32) -> Row {
        self.rows.get(id as usize).copied().unwrap_or(EMPTY_ROW)
    }

    /// Lays a rule over a row: where it matches, the better rank stands.
    pub(crate) fn overlay(&mut self, row: &mut Row, matches: L4Match, rank: u32) {
        const FULL: (u32, u32) = (0, u16::MAX as u32);
        let ports = |PortRange { from, to }| (u32::from(from), u32::from(to));
        let (domain, (first, last)) = match matches {
            L4Match::All => {
                for root in row {
                    *root = self.lay(*root, LEVELS, FULL.0, FULL.1, rank);
                }
                return;
            }
            L4Match::Tcp(range) => (Domain::Tcp, ports(range)),
            L4Match::Udp(range) => (Domain::Udp, ports(range)),
            L4Match::Icmp(icmp) => (Domain::Icmp, icmp_range(icmp)),
            L4Match::Icmpv6(icmp) => (Domain::Icmpv6, icmp_range(icmp)),
            L4Match::Other(number) => match Domain::of(number) {
                Domain::Other => (Domain::Other, (u32::from(number), u32::from(number))),
                named => (named, FULL),
            },
        };
        if first <= last {
            let root = &mut row[domain as usize];
            *root = self.lay(*root, LEVELS, first, last, rank);
        }
    }

    /// Lays a rank over keys `first..=last` of the map at `root`, which has `level` levels.
    fn lay(&mut self, root: u32, level: u32, first: u32, last: u32, rank: u32) -> u32 {
        let (best, worst) = self.bounds(root);
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

    fn bounds(&self, root: u32) -> (u32, u32) {
        if root >> 30 == VALUE {
            return (root, root);
        }
        let node = &self.nodes[(root & INDEX) as usize];
        (node.best, node.worst)
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
        let bounds = children.map(|child| self.bounds(child));
        let best = bounds.iter().map(|b| b.0).min().unwrap_or(NONE);
        let worst = bounds.iter().map(|b| b.1).max().unwrap_or(NONE);
        let id = NODE << 30 | (self.nodes.len() as u32 & INDEX);
        self.nodes.push(BuildNode { children, best, worst });
        self.ids.insert((level, children), id);
        id
    }

    /// The maps in the form for lookups, rows under the numbers they had.
    pub(crate) fn freeze(self) -> PortMaps {
        let mut maps = PortMaps { rows: Vec::new(), runs: Vec::new(), nodes: Vec::new() };
        let mut frozen = HashMap::new();
        maps.rows = self
            .rows
            .iter()
            .map(|row| row.map(|root| self.freeze_map(&mut maps, &mut frozen, root, LEVELS, 0)))
            .collect();
        maps
    }

    /// Freezes the map at `root` whose keys begin at `base`; `frozen` remembers which are done.
    fn freeze_map(
        &self,
        maps: &mut PortMaps,
        frozen: &mut HashMap<(u32, u32), u32>,
        root: u32,
        level: u32,
        base: u32,
    ) -> u32 {
        if root >> 30 == VALUE {
            return root;
        }
        if let Some(&done) = frozen.get(&(root, base)) {
            return done;
        }
        let mut intervals = Intervals::default();
        let slot = if self.collect(root, level, base, &mut intervals) {
            maps.runs.push(intervals.run());
            RUN << 30 | ((maps.runs.len() - 1) as u32 & INDEX)
        } else {
            let step = 1 << (4 * level.saturating_sub(1));
            let mut children = self.children(root);
            for (child, start) in children.iter_mut().zip((base..).step_by(step)) {
                *child = self.freeze_map(maps, frozen, *child, level.saturating_sub(1), start);
            }
            maps.nodes.push(Node(children));
            NODE << 30 | ((maps.nodes.len() - 1) as u32 & INDEX)
        };
        frozen.insert((root, base), slot);
        slot
    }

    /// Collects the intervals of a map; false as soon as they are too many for a run.
    fn collect(&self, root: u32, level: u32, base: u32, out: &mut Intervals) -> bool {
        if root >> 30 == VALUE {
            return out.push(base as u16, root);
        }
        let step = 1 << (4 * level.saturating_sub(1));
        self.children(root)
            .iter()
            .zip((base..).step_by(step))
            .all(|(&child, start)| self.collect(child, level.saturating_sub(1), start, out))
    }
}

/// Intervals on their way into a run.
#[derive(Default)]
struct Intervals {
    len: usize,
    items: [(u16, u32); STARTS + 1],
}

impl Intervals {
    /// Adds an interval that begins at `start`; false if it does not fit.
    fn push(&mut self, start: u16, rank: u32) -> bool {
        if self.len > 0 && self.items[self.len - 1].1 == rank {
            return true;
        }
        let Some(free) = self.items.get_mut(self.len) else { return false };
        *free = (start, rank);
        self.len += 1;
        true
    }

    fn run(&self) -> Run {
        let used = &self.items[..self.len];
        let last = used.last().map_or(NONE, |&(_, rank)| rank);
        let mut run = Run { starts: [u16::MAX; STARTS], ranks: [last; STARTS + 1] };
        for (rank, item) in run.ranks.iter_mut().zip(used) {
            *rank = item.1;
        }
        for (start, item) in run.starts.iter_mut().zip(used.iter().skip(1)) {
            *start = item.0;
        }
        run
    }
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
