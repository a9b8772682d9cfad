//! Lookups in the lanes of AVX-512: what [`super::Matcher::lookup_batch`] does in step, in
//! one instruction for sixteen of them. The only file of the crate with `unsafe`.
//!
//! Words are gathered from tables by [`gather`], which leaves out lanes whose place is not in the
//! table, so that no index can make it read anything else.

#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::net::IpAddr;

use super::LANES;
use super::keys::{Group, Numbers};
use super::ports::{self, LINE, Line, PortMaps};
use super::prefixes::{self, PrefixMap, Root, TABLE_BITS, TABLE_INDEX, Tree};
use super::run::{Run32, Run64};

/// A word of each lane, in `V` vectors.
type Lanes<const V: usize> = [__m512i; V];
/// Two words of each lane.
type Longs<const V: usize> = [[__m512i; 2]; V];

/// Proof that this processor has what the functions of this file are compiled for.
#[derive(Clone, Copy)]
pub(super) struct Wide(());

impl Wide {
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("popcnt");
        has_all.then_some(Wide(()))
    }

    /// The rank of each key in the maps of its address; `None` if addresses are of both families.
    #[inline]
    pub(super) fn ranks<const V: usize>(
        self,
        prefixes: &PrefixMap,
        maps: &PortMaps,
        addrs: &[[&IpAddr; LANES]; V],
        keys: &[[u32; LANES]; V],
    ) -> Option<[[u32; LANES]; V]> {
        // SAFETY: `self` is there only where the processor has these features.
        unsafe { ranks(prefixes, maps, addrs, keys) }
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq,popcnt")]
fn ranks<const V: usize>(
    prefixes: &PrefixMap,
    maps: &PortMaps,
    addrs: &[[&IpAddr; LANES]; V],
    keys: &[[u32; LANES]; V],
) -> Option<[[u32; LANES]; V]> {
    let addrs = addrs.as_flattened();
    let classes = match addrs.first()? {
        IpAddr::V4(_) => {
            let mut bits = [[0; LANES]; V];
            for (bits, addr) in bits.as_flattened_mut().iter_mut().zip(addrs) {
                let IpAddr::V4(addr) = addr else { return None };
                *bits = addr.to_bits();
            }
            of_v4(&prefixes.v4, load(&bits))
        }
        IpAddr::V6(_) => {
            let mut bits = [[0; LANES]; V];
            for (bits, addr) in bits.as_flattened_mut().iter_mut().zip(addrs) {
                let IpAddr::V6(addr) = addr else { return None };
                *bits = (addr.to_bits() >> 64) as u64;
            }
            let mut found = store(of_v6(&prefixes.v6, load_longs(&bits)));
            for (slot, addr) in found.as_flattened_mut().iter_mut().zip(addrs) {
                if *slot >> 30 == prefixes::LOW {
                    *slot = prefixes.low(*slot, prefixes::number(addr) as u64);
                }
            }
            load(&found)
        }
    };
    Some(store(of_keys(maps, classes, load(keys))))
}

#[target_feature(enable = "avx512f,avx512vl,popcnt")]
#[inline]
fn of_v4<const V: usize>(tree: &Tree<u32, 8, 8>, mut keys: Lanes<V>) -> Lanes<V> {
    let Root { base, limit, first, shift } = tree.root;
    let (base, limit) = (all(base as u32), all(limit.min(u32::MAX.into()) as u32));
    let (mut slots, mut rests) = (keys, keys);
    for v in 0..V {
        let relative = _mm512_sub_epi32(_mm512_max_epu32(keys[v], base), base);
        keys[v] = _mm512_min_epu32(relative, limit);
        let part = _mm512_srlv_epi32(keys[v], all(shift));
        slots[v] = gather(&tree.slots, _mm512_add_epi32(part, all(first)), ALL, part);
        // What is left of each key, from the highest bit on.
        rests[v] = _mm512_sllv_epi32(keys[v], all(32_u32.wrapping_sub(shift)));
    }
    loop {
        let tables = tagged(slots, prefixes::TABLE);
        if is_none(tables) {
            break;
        }
        for v in 0..V {
            let bits_less_1 = bits_less_1(slots[v]);
            let part = _mm512_srlv_epi32(rests[v], _mm512_sub_epi32(all(31), bits_less_1));
            rests[v] = _mm512_slli_epi32::<1>(_mm512_sllv_epi32(rests[v], bits_less_1));
            let places = _mm512_add_epi32(place_of_table(slots[v]), part);
            slots[v] = gather(&tree.slots, places, tables[v], slots[v]);
        }
    }
    search(&tree.runs, slots, keys)
}

#[target_feature(enable = "avx512f,avx512vl,popcnt")]
#[inline]
fn of_v6<const V: usize>(tree: &Tree<u64, 5, 6>, mut keys: Longs<V>) -> Lanes<V> {
    let Root { base, limit, first, shift } = tree.root;
    let (base, limit) = (all_long(base), all_long(limit));
    let (mut slots, mut rests) = ([all(0); V], keys);
    for v in 0..V {
        let mut parts = keys[v];
        for half in 0..2 {
            let relative = _mm512_sub_epi64(_mm512_max_epu64(keys[v][half], base), base);
            keys[v][half] = _mm512_min_epu64(relative, limit);
            parts[half] = _mm512_srlv_epi64(keys[v][half], all_long(shift.into()));
            rests[v][half] = _mm512_sllv_epi64(keys[v][half], all_long(64 - u64::from(shift)));
        }
        let part = narrow(parts);
        slots[v] = gather(&tree.slots, _mm512_add_epi32(part, all(first)), ALL, part);
    }
    loop {
        let tables = tagged(slots, prefixes::TABLE);
        if is_none(tables) {
            break;
        }
        for v in 0..V {
            let mut parts = widen(bits_less_1(slots[v]));
            for half in 0..2 {
                let bits_less_1 = parts[half];
                let above = _mm512_sub_epi64(all_long(63), bits_less_1);
                parts[half] = _mm512_srlv_epi64(rests[v][half], above);
                let rest = _mm512_sllv_epi64(rests[v][half], bits_less_1);
                rests[v][half] = _mm512_slli_epi64::<1>(rest);
            }
            let places = _mm512_add_epi32(place_of_table(slots[v]), narrow(parts));
            slots[v] = gather(&tree.slots, places, tables[v], slots[v]);
        }
    }
    if is_none(tagged(slots, prefixes::RUN)) {
        return slots;
    }
    let (mut found, keys) = (store(slots), store_longs(keys));
    for (slot, key) in found.as_flattened_mut().iter_mut().zip(keys.as_flattened()) {
        let is_run = *slot >> 30 == prefixes::RUN;
        let run = if is_run { (*slot & prefixes::INDEX) as usize } else { 0 };
        let value = of_long_run(&tree.runs[run], *key);
        *slot = if is_run { value } else { *slot };
    }
    load(&found)
}

/// The rank of each key in its class.
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq,popcnt")]
#[inline]
fn of_keys<const V: usize>(maps: &PortMaps, classes: Lanes<V>, mut keys: Lanes<V>) -> Lanes<V> {
    let (mut slots, mut lines) = (classes, [0; V]);
    for v in 0..V {
        slots[v] = _mm512_or_si512(classes[v], all(ports::RUN << 30));
        lines[v] = _mm512_test_epi32_mask(classes[v], all(LINE));
    }
    if !is_none(lines) {
        for v in 0..V {
            keys[v] = _mm512_mask_mov_epi32(keys[v], lines[v], numbers(&maps.numbers, keys[v]));
            let root = _mm512_andnot_si512(all(LINE), classes[v]);
            slots[v] = _mm512_mask_or_epi32(slots[v], lines[v], root, all(ports::NODE << 30));
        }
        let mut shift = 4 * maps.numbers.levels();
        loop {
            let nodes = tagged(slots, ports::NODE);
            if is_none(nodes) {
                break;
            }
            shift = shift.saturating_sub(4);
            for v in 0..V {
                let child = _mm512_and_si512(_mm512_srlv_epi32(keys[v], all(shift)), all(15));
                // The tag is shifted out.
                let line = _mm512_slli_epi32::<4>(slots[v]);
                slots[v] = gather(&maps.lines, _mm512_or_si512(line, child), nodes[v], slots[v]);
            }
        }
    }
    search(&maps.runs, slots, keys)
}

/// The numbers of keys.
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
#[inline]
fn numbers(numbers: &Numbers, keys: __m512i) -> __m512i {
    let domain = _mm512_slli_epi32::<1>(_mm512_srli_epi32::<16>(keys));
    let firsts = gather(&numbers.domains, domain, ALL, keys);
    let more = gather(&numbers.domains, _mm512_or_si512(domain, all(1)), ALL, keys);
    let group = _mm512_srli_epi32::<5>(_mm512_and_si512(keys, all(0xffff)));
    let group = _mm512_add_epi32(firsts, _mm512_min_epu32(group, more));
    let place = _mm512_slli_epi32::<1>(group);
    let starts = gather(&numbers.groups, place, ALL, keys);
    let before = gather(&numbers.groups, _mm512_or_si512(place, all(1)), ALL, keys);
    // All bits up to the key's.
    let bit = _mm512_and_si512(keys, all(31));
    let below = _mm512_sub_epi32(_mm512_sllv_epi32(all(2), bit), all(1));
    let count = _mm512_popcnt_epi32(_mm512_and_si512(starts, below));
    _mm512_sllv_epi32(_mm512_add_epi32(before, count), all(numbers.shift))
}

/// Searches the runs of those slots that are runs.
#[target_feature(enable = "avx512f,avx512vl,popcnt")]
#[inline]
fn search<const V: usize>(runs: &[Run32], slots: Lanes<V>, keys: Lanes<V>) -> Lanes<V> {
    const { assert!(prefixes::RUN == ports::RUN && prefixes::INDEX == ports::INDEX) };
    if is_none(tagged(slots, ports::RUN)) {
        return slots;
    }
    let (mut found, keys) = (store(slots), store(keys));
    for (slot, key) in found.as_flattened_mut().iter_mut().zip(keys.as_flattened()) {
        let is_run = *slot >> 30 == ports::RUN;
        let run = if is_run { (*slot & ports::INDEX) as usize } else { 0 };
        let value = of_run(&runs[run], *key);
        *slot = if is_run { value } else { *slot };
    }
    load(&found)
}

#[target_feature(enable = "avx512f,avx512vl,popcnt")]
#[inline]
fn of_run(run: &Run32, key: u32) -> u32 {
    // SAFETY: a vector of eight words is loaded from eight words.
    let starts = unsafe { _mm256_loadu_si256(run.starts.as_ptr().cast()) };
    let above = _mm256_cmple_epu32_mask(starts, _mm256_set1_epi32(key as i32)).count_ones();
    run.slots[(above as usize).min(run.slots.len() - 1)]
}

#[target_feature(enable = "avx512f,avx512vl,popcnt")]
#[inline]
fn of_long_run(run: &Run64, key: u64) -> u32 {
    let starts = 0b1_1111;
    // SAFETY: five of eight words are loaded, from five words.
    let words = unsafe { _mm512_maskz_loadu_epi64(starts, run.starts.as_ptr().cast()) };
    let above = _mm512_mask_cmple_epu64_mask(starts, words, all_long(key)).count_ones();
    run.slots[(above as usize).min(run.slots.len() - 1)]
}

/// All lanes of a vector.
const ALL: __mmask16 = !0;

#[inline]
fn is_none<const V: usize>(lanes: [__mmask16; V]) -> bool {
    lanes.iter().fold(0, |any, lanes| any | lanes) == 0
}

/// Lanes of this tag.
#[target_feature(enable = "avx512f")]
#[inline]
fn tagged<const V: usize>(slots: Lanes<V>, tag: u32) -> [__mmask16; V] {
    let mut lanes = [0; V];
    for (lanes, slots) in lanes.iter_mut().zip(slots) {
        *lanes = _mm512_cmpeq_epi32_mask(_mm512_srli_epi32::<30>(slots), all(tag));
    }
    lanes
}

/// Where the tables of slots begin.
#[target_feature(enable = "avx512f")]
#[inline]
fn place_of_table(slots: __m512i) -> __m512i {
    const { assert!(prefixes::ALIGN == 4) };
    _mm512_slli_epi32::<2>(_mm512_and_si512(slots, all(TABLE_INDEX)))
}

/// How many bits the tables of slots take, less 1.
#[target_feature(enable = "avx512f")]
#[inline]
fn bits_less_1(slots: __m512i) -> __m512i {
    _mm512_and_si512(_mm512_srli_epi32::<TABLE_BITS>(slots), all(15))
}

/// What a table of words is made of.
///
/// # Safety
/// Of 32-bit words alone, without padding.
unsafe trait Words {}

// SAFETY: it is one.
unsafe impl Words for u32 {}
// SAFETY: sixteen of them; 64 bytes are aligned to 64.
unsafe impl Words for Line {}
// SAFETY: two of them, in the order that `repr(C)` keeps.
unsafe impl Words for Group {}
// SAFETY: two of them, in the order that `repr(C)` keeps.
unsafe impl Words for super::keys::Groups {}

/// The words of a table at these places, counted in words; in lanes that are not asked for, or whose
/// place is beyond the table, what `others` has.
#[target_feature(enable = "avx512f")]
#[inline]
fn gather<T: Words>(table: &[T], places: __m512i, lanes: __mmask16, others: __m512i) -> __m512i {
    let len = (size_of_val(table) / size_of::<u32>()).min(i32::MAX as usize) as u32;
    let inside = _mm512_mask_cmplt_epu32_mask(lanes, places, all(len));
    // SAFETY: only lanes `inside` are read, whose places are below the table's length and, as that is
    // no more than `i32::MAX`, not negative. It is borrowed, and made of words.
    unsafe { _mm512_mask_i32gather_epi32::<4>(others, inside, places, table.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn all(word: u32) -> __m512i {
    _mm512_set1_epi32(word as i32)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn all_long(word: u64) -> __m512i {
    _mm512_set1_epi64(word as i64)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load<const V: usize>(words: &[[u32; LANES]; V]) -> Lanes<V> {
    // SAFETY: both are sixteen words, of which any bits are valid.
    words.map(|words| unsafe { std::mem::transmute(words) })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_longs<const V: usize>(words: &[[u64; LANES]; V]) -> Longs<V> {
    // SAFETY: as above, twice as long.
    words.map(|words| unsafe { std::mem::transmute(words) })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store<const V: usize>(lanes: Lanes<V>) -> [[u32; LANES]; V] {
    // SAFETY: as above.
    lanes.map(|lanes| unsafe { std::mem::transmute(lanes) })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store_longs<const V: usize>(lanes: Longs<V>) -> [[u64; LANES]; V] {
    // SAFETY: as above.
    lanes.map(|lanes| unsafe { std::mem::transmute(lanes) })
}

/// The low words of longs.
#[target_feature(enable = "avx512f")]
#[inline]
fn narrow(longs: [__m512i; 2]) -> __m512i {
    let low = _mm512_castsi256_si512(_mm512_cvtepi64_epi32(longs[0]));
    _mm512_inserti64x4::<1>(low, _mm512_cvtepi64_epi32(longs[1]))
}

/// Words as longs.
#[target_feature(enable = "avx512f")]
#[inline]
fn widen(words: __m512i) -> [__m512i; 2] {
    let high = _mm512_extracti64x4_epi64::<1>(words);
    [_mm512_cvtepu32_epi64(_mm512_castsi512_si256(words)), _mm512_cvtepu32_epi64(high)]
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use fastrand::Rng;
    use ipnet::IpNet;

    use super::*;
    use crate::matcher::{Entry, Matcher, key};
    use crate::model::{L4Match, PortRange};

    fn wide() -> Option<Wide> {
        let wide = Wide::detect();
        if wide.is_none() {
            eprintln!("NOT TESTED: this processor has no AVX-512 with VPOPCNTDQ");
        }
        wide
    }

    /// Few networks and hosts, so that addresses are in what rules name, and next to it.
    fn address(rng: &mut Rng, is_ipv6: bool) -> IpAddr {
        let (network, host) = (rng.u32(..40), rng.u32(..40));
        if is_ipv6 {
            let (network, host) = (u128::from(network), u128::from(host));
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | network << 60 | host << rng.u8(..64)).into()
        } else {
            Ipv4Addr::from_bits(0x0a00_0000 | network << 10 | host).into()
        }
    }

    fn matcher(rng: &mut Rng, rules: u32, ports: u16) -> Matcher {
        let entry = |rank| {
            let remote = address(rng, rank % 2 == 0);
            let bits = if remote.is_ipv6() { rng.u8(28..=128) } else { rng.u8(6..=32) };
            let from = rng.u16(..ports);
            let ports = PortRange { from, to: from + rng.u16(..3) };
            let matches = match rng.u8(..8) {
                0 => L4Match::Other(47),
                1..=3 => L4Match::Udp(ports),
                _ => L4Match::Tcp(ports),
            };
            let remote = IpNet::new(remote, bits).expect("a length that fits").trunc();
            Entry { remote, matches, rank }
        };
        Matcher::new(&(0..rules).map(entry).collect::<Vec<_>>())
    }

    fn agree<const V: usize>(wide: Wide, matcher: &Matcher, rng: &mut Rng, is_ipv6: bool) -> usize {
        let addrs = [[(); LANES]; V].map(|lanes| lanes.map(|()| address(rng, is_ipv6)));
        let addrs = std::array::from_fn(|v| addrs[v].each_ref());
        let mut one = || key([6, 17, 47, 58][rng.usize(..4)], rng.u16(..600));
        let keys = [[(); LANES]; V].map(|lanes| lanes.map(|()| one()));
        let ranks = wide.ranks(&matcher.prefixes, &matcher.ports, &addrs, &keys);
        assert_eq!(ranks, Some(matcher.portable_ranks(&addrs, &keys)), "{addrs:?} {keys:x?}");
        ranks.iter().flatten().flatten().filter(|&&rank| rank != ports::NONE).count()
    }

    #[test]
    fn lanes_say_what_the_portable_way_says() {
        let Some(wide) = wide() else { return };
        let mut rng = Rng::with_seed(1);
        for (rules, ports) in [(0, 1), (3, 5), (40, 20), (400, 500), (4000, 500)] {
            let matcher = matcher(&mut rng, rules, ports);
            let found: usize = (0..400)
                .map(|round| {
                    agree::<1>(wide, &matcher, &mut rng, round % 2 == 0)
                        + agree::<4>(wide, &matcher, &mut rng, round % 2 == 0)
                })
                .sum();
            assert_eq!(found > 0, rules > 0, "{rules} rules");
        }
    }

    #[test]
    fn addresses_of_both_families_are_left_to_others() {
        let Some(wide) = wide() else { return };
        let matcher = matcher(&mut Rng::with_seed(1), 40, 20);
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        for last in [LANES - 1, 1, 0] {
            let addrs = std::array::from_fn(|lane| if lane >= last { &v6 } else { &v4 });
            let ranks = wide.ranks(&matcher.prefixes, &matcher.ports, &[addrs], &[[0; LANES]]);
            assert_eq!(ranks.is_none(), last > 0);
        }
    }

    #[test]
    fn nothing_beyond_a_table_is_read() {
        let Some(_) = wide() else { return };
        let places = std::array::from_fn(|lane| match lane {
            0..4 => lane as u32,
            4..8 => 4 + lane as u32,
            8 => u32::MAX,
            9 => 1 << 31,
            lane => 1 << lane,
        });
        let gathered = |table: &[u32]| {
            // SAFETY: `wide` says that the processor has AVX-512.
            unsafe {
                let [places] = load(&[places]);
                store([gather(table, places, !2, all(7))])[0]
            }
        };
        assert_eq!(gathered(&[]), [7; LANES]);
        let [a, b, c, d, rest @ ..] = gathered(&[10, 11, 12, 13, 14, 15, 16, 17]);
        // The second lane is not asked for.
        assert_eq!([a, b, c, d], [10, 7, 12, 13]);
        assert_eq!(rest, [7; LANES - 4]);
    }
}
