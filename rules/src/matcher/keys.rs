//! What the ports of a rule and of a packet are to the matcher: *keys*, one space for all protocols;
//! and the numbers of the intervals that rules cut them into.

use sgwall_packet::protocol;

use crate::model::{IcmpMatch, L4Match, PortRange};

/// A part of the keys: the 16 bits of a key below its domain's number.
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

/// How many domains there are.
const DOMAINS: u32 = 5;
/// All keys are below.
const END: u32 = DOMAINS << 16;

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

    const fn key(self, low: u32) -> u32 {
        (self as u32) << 16 | low
    }
}

/// For each protocol number the key of its packets, but for the bits of the selector that count.
static PLACES: [(u32, u32); 256] = {
    let mut places = [(0, 0); 256];
    let mut number = 0;
    while number < 256 {
        let domain = Domain::of(number as u8);
        places[number] = match domain {
            Domain::Other => (domain.key(number as u32), 0),
            _ => (domain.key(0), 0xffff),
        };
        number += 1;
    }
    places
};

/// The key of a packet.
#[inline]
pub(super) fn key(number: u8, selector: u16) -> u32 {
    let (key, mask) = PLACES[usize::from(number)];
    key | u32::from(selector) & mask
}

/// The keys that a rule matches, first and last. What has no end is all of them.
pub(super) fn keys(matches: L4Match) -> Option<(u32, u32)> {
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
    (first <= last).then(|| (domain.key(first), domain.key(last)))
}

/// First and last of an ICMP match. A code without a type is no match (SEMANTICS 2.4): no key.
fn icmp_range(icmp: IcmpMatch) -> (u32, u32) {
    match (icmp.kind.map(u32::from), icmp.code.map(u32::from)) {
        (None, None) => (0, u16::MAX.into()),
        (Some(kind), None) => (kind << 8, kind << 8 | 0xff),
        (Some(kind), Some(code)) => (kind << 8 | code, kind << 8 | code),
        (None, Some(_)) => (1, 0),
    }
}

/// The intervals that rules cut the keys into, numbered in their order.
///
/// Rules name few ports of the many that there are, and mostly neighbours: of numbers a tree needs
/// fewer levels than of keys. A bitmap has the keys at which an interval begins, with a count of
/// those before each 32; beyond the last such key of a domain it ends.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) domains: [Groups; DOMAINS.next_power_of_two() as usize],
    pub(super) groups: Vec<Group>,
    /// Numbers are multiples of two to the power of this, so that they fill all levels of a tree.
    pub(super) shift: u32,
    levels: u32,
}

/// The groups of a domain: its first, and how many more there are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Groups {
    first: u32,
    more: u32,
}

/// 32 keys: at which an interval begins, and the number of the one that comes in from before.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Group {
    starts: u32,
    before: u32,
}

const KEYS_EACH: u32 = 32;

impl Numbers {
    /// The numbers for rules, and for each the first key.
    pub(super) fn new(rules: impl Iterator<Item = L4Match>) -> (Self, Vec<u32>) {
        let mut bits = vec![0_u32; (END / KEYS_EACH) as usize];
        let mut mark = |key: u32| {
            if let Some(group) = bits.get_mut((key / KEYS_EACH) as usize) {
                *group |= 1 << (key % KEYS_EACH);
            }
        };
        (0..DOMAINS).for_each(|domain| mark(domain << 16));
        for (first, last) in rules.filter_map(keys) {
            mark(first);
            mark(last.saturating_add(1));
        }
        let (mut numbers, mut firsts) = (Numbers::default(), Vec::new());
        let of_domain = bits.chunks((0x1_0000 / KEYS_EACH) as usize);
        for ((domain, bits), place) in (0..).zip(of_domain).zip(&mut numbers.domains) {
            let used = bits.iter().rposition(|&starts| starts != 0).unwrap_or_default() + 1;
            let groups =
                bits.iter().take(used + 1).zip((domain << 16..).step_by(KEYS_EACH as usize));
            place.first = numbers.groups.len() as u32;
            for (&starts, key) in groups {
                let before = (firsts.len() as u32).wrapping_sub(1);
                numbers.groups.push(Group { starts, before });
                firsts.extend(
                    (0..KEYS_EACH).filter(|bit| starts >> bit & 1 != 0).map(|bit| key + bit),
                );
            }
            place.more = numbers.groups.len() as u32 - 1 - place.first;
        }
        let bits = u32::BITS - (firsts.len() as u32 - 1).leading_zeros();
        numbers.levels = bits.div_ceil(4);
        numbers.shift = 4 * numbers.levels - bits;
        (numbers, firsts)
    }

    /// The number of the interval that a key is in.
    #[inline]
    pub(super) fn of(&self, key: u32) -> u32 {
        let domain = &self.domains[(key >> 16) as usize % self.domains.len()];
        let group = ((key & 0xffff) / KEYS_EACH).min(domain.more);
        let group = &self.groups[(domain.first + group) as usize];
        // All bits up to the key's.
        let below = (2_u32 << (key % KEYS_EACH)).wrapping_sub(1);
        group.before.wrapping_add((group.starts & below).count_ones()) << self.shift
    }

    /// The numbers of the intervals of `first..=last`, where intervals begin and end.
    pub(super) fn range(&self, first: u32, last: u32) -> (u32, u32) {
        let end = if last >= END - 1 { u32::MAX } else { self.of(last) | ((1 << self.shift) - 1) };
        (self.of(first), end)
    }

    /// The place of a number among all.
    pub(super) const fn place(&self, number: u32) -> usize {
        (number >> self.shift) as usize
    }

    /// Levels of a tree over the numbers, of four bits each.
    pub(super) const fn levels(&self) -> u32 {
        self.levels
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.groups.len() * size_of::<Group>()
    }
}
