//! Who has an IPv4 address. Asked for both addresses of every packet, so it is an open table with one
//! multiplication for a hash: its keys are the policy's, and no sender chooses what stands where.

use std::collections::BTreeMap;

/// Places for each address, at least: a search for one that nobody has ends where it begins, nearly
/// always.
const ROOM: usize = 4;

/// An address, and where its owners stand in the list; nobody's, if there are none.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    address: u32,
    first: u32,
    owners: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Owners {
    /// A power of two of them.
    places: Box<[Place]>,
    /// Leaves as many bits of a hash as number the places.
    shift: u32,
    owners: Vec<usize>,
}

impl Owners {
    /// Of addresses and their owners.
    pub(super) fn new(all: &BTreeMap<u32, Vec<usize>>) -> Self {
        let places = vec![Place::default(); (all.len() * ROOM).next_power_of_two().max(2)];
        let shift = u32::BITS - places.len().trailing_zeros();
        let mut table = Owners { places: places.into(), shift, owners: Vec::new() };
        for (&address, owners) in all {
            let place =
                Place { address, first: table.owners.len() as u32, owners: owners.len() as u32 };
            table.owners.extend(owners);
            let at = table.search(address);
            table.places[at] = place;
        }
        table
    }

    /// The owners of an address, in the order of the policy.
    #[inline]
    pub(super) fn get(&self, address: u32) -> &[usize] {
        let Place { first, owners, .. } = self.places[self.search(address)];
        if owners == 0 {
            return &[];
        }
        let first = first as usize;
        self.owners.get(first..first + owners as usize).unwrap_or_default()
    }

    /// Whether an interface is among the owners of an address: quickest where one has it alone.
    #[inline]
    pub(super) fn has(&self, address: u32, owner: usize) -> bool {
        let Place { first, owners, .. } = self.places[self.search(address)];
        let is_first = self.owners.get(first as usize).is_some_and(|first| *first == owner);
        match owners > 1 {
            false => (owners == 1) & is_first,
            true => self.get(address).contains(&owner),
        }
    }

    /// Where an address stands, or would.
    #[inline]
    fn search(&self, address: u32) -> usize {
        let last = self.places.len() - 1;
        // Fibonacci hashing: neighbours are spread, and the best bits are the highest.
        let mut at = (address.wrapping_mul(0x9e37_79b9) >> self.shift) as usize;
        loop {
            let place = &self.places[at & last];
            if place.owners == 0 || place.address == address {
                return at & last;
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map() {
        assert_eq!(Owners::new(&BTreeMap::new()).get(7), &[] as &[usize]);
        for step in [1, 2, 256, 0x0100_0193] {
            let address = |number: u32| 0x0a00_0000u32.wrapping_add(number.wrapping_mul(step));
            let all: BTreeMap<_, _> =
                (0..500).map(|n| (address(n), (0..1 + n as usize % 3).collect())).collect();
            let owners = Owners::new(&all);
            for number in 0..2000 {
                let expected = all.get(&address(number)).map_or(&[][..], Vec::as_slice);
                assert_eq!(owners.get(address(number)), expected);
                for owner in 0..4 {
                    let is_one = expected.contains(&owner);
                    assert_eq!(owners.has(address(number), owner), is_one);
                }
            }
            assert_eq!(owners.get(0), &[] as &[usize]);
        }
    }
}
