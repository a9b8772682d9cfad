//! The flows that nobody has answered yet, oldest first: what gives its place to a new flow where
//! that is the policy ([`crate::FullTable::EvictEmbryonic`]).
//!
//! A list for each interface that has limits, and one for all others. Joining, leaving and finding
//! the oldest are steps of constant time; there is a link for each slot of the store, beside the
//! slots, so that entries stay as small as they are without.

use crate::index::NONE;

/// Neighbours of a slot in its list.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// When the flow opened: the number of flows until then; zero: it is in no list.
    number: u64,
    older: u32,
    newer: u32,
}

const NOWHERE: Link = Link { number: 0, older: NONE, newer: NONE };

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    newest: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Embryonic {
    /// By slot.
    links: Vec<Link>,
    /// By list.
    ends: Vec<Ends>,
}

impl Embryonic {
    /// Empty, with room for so many slots if there is the memory for that.
    pub(crate) fn with_room(slots: usize) -> Self {
        let mut links = Vec::new();
        let _ = links.try_reserve_exact(slots);
        Embryonic { links, ends: Vec::new() }
    }

    /// Puts a slot into a list, as its newest. Numbers only grow.
    pub(crate) fn join(&mut self, slot: u32, list: usize, number: u64) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, NOWHERE);
        }
        if list >= self.ends.len() {
            self.ends.resize(list + 1, Ends { oldest: NONE, newest: NONE });
        }
        let older = std::mem::replace(&mut self.ends[list].newest, slot);
        self.links[at] = Link { number, older, newer: NONE };
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = slot,
            None => self.ends[list].oldest = slot,
        }
    }

    /// Takes a slot out of the list, if it is there.
    pub(crate) fn leave(&mut self, slot: u32, list: usize) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let Link { number, older, newer } = std::mem::replace(link, NOWHERE);
        if number == 0 {
            return;
        }
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => self.ends[list].oldest = newer,
        }
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => self.ends[list].newest = older,
        }
    }

    /// The oldest of a list: its number, and its slot.
    pub(crate) fn oldest(&self, list: usize) -> Option<(u64, u32)> {
        let slot = self.ends.get(list)?.oldest;
        Some((self.links.get(slot as usize)?.number, slot))
    }

    /// Sorts all slots into other lists, each in the order that it has; `list` says into which.
    pub(crate) fn sort(&mut self, list: impl Fn(u32) -> usize) {
        let of = |(link, slot): (&Link, u32)| (link.number > 0).then_some((link.number, slot));
        let mut all: Vec<_> = self.links.iter().zip(0..).filter_map(of).collect();
        all.sort_unstable();
        self.ends.clear();
        for (number, slot) in all {
            self.join(slot, list(slot), number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list of what is in it.
        #[test]
        fn lists_keep_their_order(
            steps in proptest::collection::vec((0..24u32, 0..3usize, 0..8u8), 1..300),
        ) {
            let mut lists = Embryonic::with_room(4);
            let mut model: Vec<(u64, u32, usize)> = Vec::new();
            for ((slot, list, what), number) in steps.into_iter().zip(1..) {
                let known = model.iter().position(|(_, of, _)| *of == slot);
                match (known, what) {
                    (_, 7) => {
                        for entry in &mut model {
                            entry.2 = (entry.1 as usize + list) % 3;
                        }
                        lists.sort(|slot| (slot as usize + list) % 3);
                    }
                    (Some(at), _) => {
                        let (_, slot, list) = model.remove(at);
                        lists.leave(slot, list);
                        lists.leave(slot, list);
                    }
                    (None, _) => {
                        model.push((number, slot, list));
                        lists.join(slot, list, number);
                    }
                }
                for list in 0..4 {
                    let oldest = model.iter().find(|(_, _, of)| *of == list);
                    prop_assert_eq!(lists.oldest(list), oldest.map(|(number, slot, _)| (*number, *slot)));
                }
            }
        }
    }
}
