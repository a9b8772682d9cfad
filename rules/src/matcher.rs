//! The compiled matcher: the best-ranked rule for a packet, at a cost that does not grow with the
//! number of rules.
//!
//! Each rule has a remote prefix, a protocol with ports, and a rank. The longest match of the
//! remote address over all prefixes names a *prefix class*: the rules whose prefixes cover the
//! address. A class has a *row*: for TCP, UDP, ICMP, ICMPv6 and the other protocols a map from
//! port (or type and code, or protocol number) to the best rank. A prefix's row is its parent's
//! with its own rules laid over it, so only the best rank of each interval is kept, and prefixes
//! with equal rows share one.
//!
//! A lookup walks the prefix tree ([`prefixes`]) and searches the port maps of the class
//! ([`ports`]): a handful of cache lines in all. It allocates nothing.
//!
//! One matcher serves security groups, where any order of ranks gives the union (SEMANTICS 3.1),
//! and network ACLs, where the rank is the order of rule numbers (SEMANTICS 8.1).

mod intervals;
mod keys;
mod ports;
pub(crate) mod prefixes;
mod run;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::net::IpAddr;

use ipnet::IpNet;

use self::keys::key;
use self::ports::{NONE, PortMaps, PortMapsBuilder, Row};
use self::prefixes::{Interval, PrefixMap, bounds, last_address, sweep};
use crate::model::L4Match;

/// One rule as the matcher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Remote addresses; host bits are ignored. Matches packets of its family only.
    pub remote: IpNet,
    /// Protocol and ports, or ICMP type and code.
    pub matches: L4Match,
    /// The lower, the better; below 2^30 - 1. Entries may share one: they are then one rule.
    pub rank: u32,
}

/// Lookups that run in step, in a vector where the processor has such.
const LANES: usize = 16;
/// Lookups that run in step where there are as many: what one waits for, others work on.
const MANY: usize = 4 * LANES;
/// Fewer than this are sooner looked up one by one than in a vector's lanes.
const FEW: usize = 8;

/// Finds the best-ranked of a set of rules.
#[derive(Debug)]
pub struct Matcher {
    prefixes: PrefixMap,
    ports: PortMaps,
}

impl Matcher {
    /// Compiles `entries`, given in any order. An entry that can match nothing (ports reversed,
    /// an ICMP code without a type, a rank out of range) is left out.
    #[must_use]
    pub fn new(entries: &[Entry]) -> Self {
        let mut maps = PortMapsBuilder::new(entries);
        let outside = maps.row_id(Row::empty());
        let mut family = |ipv6: bool| -> Vec<Interval> {
            let own = entries
                .iter()
                .filter(|entry| matches!(entry.remote, IpNet::V6(_)) == ipv6 && entry.rank < NONE);
            let mut sorted = Vec::with_capacity(own.clone().count());
            sorted.extend(own.map(|entry| (bounds(&entry.remote), entry)));
            sorted.sort_unstable_by_key(|&((first, last), entry)| {
                (first, std::cmp::Reverse(last), entry.rank)
            });
            let prefixes = sorted.chunk_by(|a, b| a.0 == b.0).map(|group| (group[0].0, group));
            sweep(prefixes, last_address(ipv6), outside, |parent, group| {
                let mut row = maps.row(parent);
                for (_, entry) in group {
                    maps.overlay(&mut row, entry.matches, entry.rank);
                }
                maps.row_id(row)
            })
        };
        let (mut v4, mut v6) = (family(false), family(true));
        let (ports, classes) = maps.freeze();
        for (_, row) in v4.iter_mut().chain(&mut v6) {
            *row = classes[*row as usize];
        }
        Matcher { prefixes: PrefixMap::new(&v4, &v6), ports }
    }

    /// The rank of the best rule that matches a packet, by its remote address, the protocol
    /// number found in it, and its selector (`sgwall_packet::Headers::selector`).
    #[inline]
    #[must_use]
    pub fn lookup(&self, remote: &IpAddr, protocol: u8, selector: u16) -> Option<u32> {
        let rank = self.ports.get(self.prefixes.get(remote), key(protocol, selector));
        (rank != NONE).then_some(rank)
    }

    /// [`Self::lookup`] of each packet (remote address, protocol number, selector), several in step:
    /// their waits for memory overlap, and the processor need not guess where each of them ends.
    ///
    /// # Panics
    /// If `out` is shorter than `packets`.
    pub fn lookup_batch(&self, packets: &[(IpAddr, u8, u16)], out: &mut [Option<u32>]) {
        let (packets_in_fours, packets) = packets.split_at(packets.len() / MANY * MANY);
        let (out_in_fours, out) = out[..].split_at_mut(packets_in_fours.len());
        self.in_step::<{ MANY / LANES }>(packets_in_fours, out_in_fours);
        self.in_step::<1>(packets, &mut out[..packets.len()]);
    }

    /// Looks packets up, `V` times sixteen in step.
    fn in_step<const V: usize>(&self, packets: &[(IpAddr, u8, u16)], out: &mut [Option<u32>]) {
        for (packets, out) in packets.chunks(V * LANES).zip(out.chunks_mut(V * LANES)) {
            if packets.len() < FEW {
                for (out, (remote, protocol, selector)) in out.iter_mut().zip(packets) {
                    *out = self.lookup(remote, *protocol, *selector);
                }
                continue;
            }
            // Lanes without a packet are looked up too.
            let mut remotes = [[&packets[0].0; LANES]; V];
            let mut keys = [[0; LANES]; V];
            let lanes = remotes.as_flattened_mut().iter_mut().zip(keys.as_flattened_mut());
            for ((address, selected), lane) in lanes.zip(packets) {
                (*address, *selected) = (&lane.0, key(lane.1, lane.2));
            }
            let ranks = self.ranks(&remotes, &keys);
            for (out, &rank) in out.iter_mut().zip(ranks.as_flattened()) {
                *out = (rank != NONE).then_some(rank);
            }
        }
    }

    fn ranks<const V: usize>(
        &self,
        remotes: &[[&IpAddr; LANES]; V],
        keys: &[[u32; LANES]; V],
    ) -> [[u32; LANES]; V] {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = wide::Wide::detect()
            && let Some(ranks) = wide.ranks(&self.prefixes, &self.ports, remotes, keys)
        {
            return ranks;
        }
        self.portable_ranks(remotes, keys)
    }

    fn portable_ranks<const V: usize>(
        &self,
        remotes: &[[&IpAddr; LANES]; V],
        keys: &[[u32; LANES]; V],
    ) -> [[u32; LANES]; V] {
        std::array::from_fn(|v| self.ports.get_all(&self.prefixes.get_all(remotes[v]), keys[v]))
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.prefixes.heap_bytes() + self.ports.heap_bytes()
    }
}
