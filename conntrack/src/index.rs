//! From the hash of a key to the number of its entry: what stands between a packet and its flow.
//!
//! A hash table of buckets, each one cache line of fifteen words and a count. A word is the number
//! of an entry in its low bits and, above them, bits of the hash (a *tag*): a bucket is searched by
//! comparing all its words at once, and an entry is looked at only if its tag is right. What does
//! not fit its bucket stands in one of the next, and every bucket that it passed counts it, so that
//! a search ends at the first bucket that nobody had to pass. Nothing is left behind by a removal.
//!
//! At the load that is allowed, a word in about 30 stands outside its own bucket: a look-up is one
//! cache line, and knows no more of the entry than where it is. Looking up many keys at once, one
//! step for all before the next, lets the processor wait for all their lines together
//! (see `docs/decisions.md`).

use crate::pages::prefer_huge;

/// No entry.
pub(crate) const NONE: u32 = u32::MAX;
/// No entry, for there is none of the hash.
pub(crate) const ABSENT: u32 = u32::MAX - 1;

/// Words of a cache line.
const WORDS: usize = 16;
/// Entries of a bucket; its last word counts those that had to pass it.
const ENTRIES: usize = WORDS - 1;
/// Entries for each bucket, on average, when the table is full.
const LOAD: usize = 12;
/// What an entry takes of the index, rounded up.
pub(crate) const BYTES_PER_ENTRY: usize = size_of::<Bucket>().div_ceil(LOAD);
/// A tag is never zero, so that a word in use is never an empty one.
const IN_USE: u32 = 1 << 31;

type Bucket = [u32; WORDS];

#[derive(Debug)]
pub(crate) struct Index {
    /// The buckets, from `skip` on, where a cache line begins. Zero is what fresh memory holds: room
    /// that is not used costs nothing.
    words: Vec<u32>,
    skip: usize,
    buckets: u32,
    /// The bits of a word that are its tag.
    tag: u32,
    len: usize,
}

impl Index {
    /// An index with room for so many entries, below 2^31. Without the memory for that it begins
    /// smaller.
    pub(crate) fn with_room(entries: usize) -> Self {
        let buckets = entries.min(NONE as usize / 2).div_ceil(LOAD).max(1);
        match Vec::<u32>::new().try_reserve_exact(Self::words_of(buckets)) {
            Err(_) if buckets > 1 => Index::with_room(entries / 2),
            _ => Index::of(buckets as u32),
        }
    }

    fn of(buckets: u32) -> Self {
        let mut words = vec![0; Self::words_of(buckets as usize)];
        prefer_huge(&mut words);
        let room = buckets * LOAD as u32;
        Index {
            skip: words.as_ptr().align_offset(size_of::<Bucket>()).min(WORDS),
            words,
            buckets,
            tag: !(u32::MAX >> room.leading_zeros()),
            len: 0,
        }
    }

    /// Words of so many buckets, and of what lies before the first cache line that begins in them.
    const fn words_of(buckets: usize) -> usize {
        (buckets + 1) * WORDS
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Entries that it may hold before it must grow.
    pub(crate) fn room(&self) -> usize {
        self.buckets as usize * LOAD
    }

    /// A word of the bucket that [`Self::candidate`] will look at: for whoever wants its cache line
    /// to be on its way. What it says is of no use.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u32 {
        self.bucket(self.home(hash)).map_or(0, |bucket| bucket[ENTRIES])
    }

    /// The first entry that a hash may belong to; [`ABSENT`]: there is none; [`NONE`]: the search must
    /// go the long way, by [`Self::find`].
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> u32 {
        let home = self.home(hash);
        let Some(bucket) = self.bucket(home) else { return NONE };
        let found = matches(bucket, self.word(hash), self.tag);
        if (found == 0) & (bucket[ENTRIES] != 0) {
            return self.candidate_beyond(hash, home);
        }
        // Whether a flow is known, nobody can foretell: either is at hand.
        let entry = self.entry(bucket[first_of(found)]);
        if found == 0 { ABSENT } else { entry }
    }

    /// [`Self::candidate`] in the bucket after a hash's own.
    #[inline(never)]
    fn candidate_beyond(&self, hash: u64, home: u32) -> u32 {
        let Some(bucket) = self.bucket(self.next(home)) else { return NONE };
        let found = matches(bucket, self.word(hash), self.tag);
        if found == 0 { NONE } else { self.entry(bucket[first_of(found)]) }
    }

    /// The entry of a hash for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let (_, _, word) = self.seek(hash, is)?;
        Some(self.entry(word))
    }

    /// Buckets that a search for an entry of a hash looks at.
    pub(crate) fn search_length(&self, hash: u64, entry: u32) -> usize {
        let found = self.seek(hash, |other| other == entry).map(|(found, ..)| found);
        let (home, buckets) = (self.home(hash), self.buckets);
        found.map_or(0, |found| ((found + buckets - home) % buckets) as usize + 1)
    }

    /// Puts an entry in; there must be room.
    pub(crate) fn insert(&mut self, hash: u64, entry: u32) {
        let word = self.word(hash) | (entry + 1);
        let mut at = self.home(hash);
        while let Some(bucket) = self.bucket_mut(at) {
            let free = first_of(matches(bucket, 0, u32::MAX));
            if free < ENTRIES && bucket[free] == 0 {
                bucket[free] = word;
                self.len += 1;
                return;
            }
            bucket[ENTRIES] += 1;
            at = self.next(at);
        }
    }

    /// Takes an entry out, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, entry: u32) {
        let Some((found, place, _)) = self.seek(hash, |other| other == entry) else { return };
        let mut at = self.home(hash);
        while at != found {
            if let Some(passed) = self.bucket_mut(at) {
                passed[ENTRIES] -= 1;
            }
            at = self.next(at);
        }
        if let Some(bucket) = self.bucket_mut(found) {
            bucket[place] = 0;
            self.len -= 1;
        }
    }

    /// Bucket, place and word of an entry.
    #[inline]
    fn seek(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<(u32, usize, u32)> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets {
            let bucket = self.bucket(at)?;
            let mut found = matches(bucket, self.word(hash), self.tag);
            while found != 0 {
                let place = first_of(found);
                if is(self.entry(bucket[place])) {
                    return Some((at, place, bucket[place]));
                }
                found &= found - 1;
            }
            if bucket[ENTRIES] == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// A word without its entry.
    #[inline]
    const fn word(&self, hash: u64) -> u32 {
        (hash as u32 | IN_USE) & self.tag
    }

    #[inline]
    const fn entry(&self, word: u32) -> u32 {
        (word & !self.tag).wrapping_sub(1)
    }

    /// The high half of a product: even, whatever the number of buckets. The tag is of other bits.
    #[inline]
    pub(crate) const fn home(&self, hash: u64) -> u32 {
        (((hash >> 32) * self.buckets as u64) >> 32) as u32
    }

    #[inline]
    const fn next(&self, at: u32) -> u32 {
        if at + 1 == self.buckets { 0 } else { at + 1 }
    }

    #[inline]
    fn bucket(&self, at: u32) -> Option<&Bucket> {
        self.words.get(self.skip..)?.as_chunks().0.get(at as usize)
    }

    #[inline]
    fn bucket_mut(&mut self, at: u32) -> Option<&mut Bucket> {
        self.words.get_mut(self.skip..)?.as_chunks_mut().0.get_mut(at as usize)
    }
}

/// The words of a bucket that have the same tag as `wanted`, a bit each: see [`first_of`]. The count
/// is never one: it has no [`IN_USE`].
#[inline(always)]
fn matches(bucket: &Bucket, wanted: u32, tag: u32) -> u32 {
    // Bits from the second on: all words are then alike to the compiler, which takes them by fours.
    let words = bucket.iter().zip(1..);
    words.fold(0, |found, (word, bit)| found | u32::from(word & tag == wanted) << bit)
}

/// The place of the first of [`matches`], if there is one.
#[inline(always)]
const fn first_of(found: u32) -> usize {
    (found >> 1).trailing_zeros() as usize % WORDS
}

/// Memory of its own begins at another place in its cache line.
impl Clone for Index {
    fn clone(&self) -> Self {
        let mut copy = Index::of(self.buckets);
        let used = self.buckets as usize * WORDS;
        if let (Some(to), Some(from)) = (
            copy.words.get_mut(copy.skip..copy.skip + used),
            self.words.get(self.skip..self.skip + used),
        ) {
            to.copy_from_slice(from);
        }
        Index { len: self.len, ..copy }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hashes of few bits, so that buckets overflow into one another and tags collide.
        #[test]
        fn it_is_a_map(
            steps in proptest::collection::vec((0..48u64, 0..4u64, any::<bool>()), 1..400),
        ) {
            let mut index = Index::with_room(64);
            let mut map: HashMap<u32, u64> = HashMap::new();
            for (high, low, put) in steps {
                let hash = high << 58 | low << 30;
                if put && map.len() < index.room() {
                    let entry = (0..).find(|entry| !map.contains_key(entry)).expect("a number");
                    index.insert(hash, entry);
                    map.insert(entry, hash);
                } else if let Some((&entry, &hash)) = map.iter().find(|(_, h)| **h >= hash) {
                    index.remove(hash, entry);
                    map.remove(&entry);
                }
                prop_assert_eq!(index.len(), map.len());
                for (&entry, &hash) in &map {
                    prop_assert_eq!(index.find(hash, |found| found == entry), Some(entry));
                    let candidate = index.candidate(hash);
                    prop_assert!(candidate == NONE || map.contains_key(&candidate));
                    let other = hash ^ 1 << 30;
                    if index.candidate(other) == ABSENT {
                        prop_assert_eq!(index.find(other, |_| true), None);
                    }
                }
                prop_assert_eq!(index.find(hash, |entry| !map.contains_key(&entry)), None);
            }
            for (entry, hash) in map {
                index.remove(hash, entry);
            }
            prop_assert_eq!(index.len(), 0);
            prop_assert!(index.words.iter().all(|word| *word == 0), "nothing is left behind");
        }
    }

    #[test]
    fn buckets_are_cache_lines() {
        let index = Index::with_room(1 << 20);
        let first: *const u32 = index.bucket(0).expect("a bucket").as_ptr();
        assert_eq!(first.align_offset(64), 0);
        let copy = index.clone();
        let first: *const u32 = copy.bucket(0).expect("a bucket").as_ptr();
        assert_eq!(first.align_offset(64), 0);
    }
}
