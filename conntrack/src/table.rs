//! The flow table of one worker.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use sgwall_packet::{FlowKey, Headers, Side, Timestamp};
use sgwall_packet::{FlowKeyV4, FlowKeyV6};

use crate::allowance::{Account, Accounts, Allowance, Limits};
use crate::entry::{Flow, FlowView};
use crate::index::NONE;
use crate::mark::Mark;
use crate::probe::Probe;
use crate::store::{self, Handle, Store, Whose};
use crate::timeouts::TimeoutProfile;
use crate::{RuleTag, Scope};

/// What a table is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entries at once, up to 2^32 - 2.
    pub max_entries: usize,
    /// What becomes of a flow beyond.
    pub full_table: FullTable,
    /// Seed of the hash: random for each process.
    pub hash_seed: [u64; 4],
}

/// What becomes of a new flow when the table is full. Flows that were answered are never affected
/// (SEMANTICS 6.16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullTable {
    /// It is refused.
    #[default]
    DropNew,
    /// The oldest flow that nobody has answered gives it its place, if there is one. Which flows may
    /// be asked for theirs, [`ConnTable::insert`] says.
    EvictEmbryonic,
}

impl FullTable {
    /// The policy's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FullTable::DropNew => "drop-new",
            FullTable::EvictEmbryonic => "evict-embryonic",
        }
    }
}

/// Why no entry was made. Existing flows are not affected (SEMANTICS 6.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// As many flows as the table may hold are alive, less those places that are reserved for other
    /// interfaces.
    Table,
    /// The interface has as many as it may hold.
    Cap,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Table => "the flow table is full",
            Full::Cap => "the interface has as many flows as it may",
        })
    }
}

impl std::error::Error for Full {}

/// A live entry, good until the table is next changed by anyone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Whether the packet goes in the reply direction.
    pub reply: bool,
    /// The rule that admitted the flow.
    pub tag: RuleTag,
    /// The policy generation that did.
    pub generation: u32,
    is_ipv6: bool,
    side: Side,
    handle: Handle,
}

/// What the table knows of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    Miss,
    /// The packet belongs to a live entry.
    Hit(Hit),
    /// The packet begins a new connection where an ended one stands: to be judged by the rules
    /// (SEMANTICS 7.6).
    Reopen(Hit),
}

/// A packet of a known flow, see [`ConnTable::note_marked`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Whether the packet goes in the reply direction.
    pub reply: bool,
    /// The rule that admitted the flow.
    pub tag: RuleTag,
}

/// What a table has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries made.
    pub created: u64,
    /// Entries not made because the table was full (`conntrack_allowance_exceeded`).
    pub refused: u64,
    /// Entries that gave their place to another flow.
    pub evicted: u64,
}

/// How often a place that was made free may be lost to another worker before the flow is refused.
const EVICTIONS: usize = 4;

/// An index of so many entries is likely to be in a processor's second cache: 5.3 bytes each.
const IN_CACHE: usize = 1 << 16;

/// Tracked flows of all interfaces that a worker serves.
#[derive(Debug)]
pub struct ConnTable {
    v4: Store<FlowKeyV4>,
    v6: Store<FlowKeyV6>,
    /// What it has taken of the allowance: places of entries of interfaces without an account.
    held: usize,
    allowance: Arc<Allowance>,
    accounts: Arc<Accounts>,
    full_table: FullTable,
    counters: Counters,
    /// By scope number: entries that gave their place to another flow.
    evicted: Vec<u64>,
}

/// What a table of so many flows takes, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// In memory when it is full, whatever the flows: all of them may be IPv6.
    pub resident: u64,
    /// Of address space, from the beginning: there is room for either family.
    pub reserved: u64,
}

impl Footprint {
    /// That of a table of `max_entries` flows.
    #[must_use]
    pub fn of(max_entries: usize) -> Self {
        let [v4, v6] = store::ENTRY.map(|bytes| (bytes as u64).saturating_mul(max_entries as u64));
        Footprint { resident: v4.max(v6), reserved: v4.saturating_add(v6) }
    }
}

impl ConnTable {
    /// An empty table.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let [a, b, c, d] = config.hash_seed;
        let hasher = RandomState::with_seeds(a, b, c, d);
        let max_entries = config.max_entries.min(u32::MAX as usize - 1);
        let evicts = config.full_table == FullTable::EvictEmbryonic;
        ConnTable {
            v4: Store::new(max_entries, hasher.clone(), evicts),
            v6: Store::new(max_entries, hasher, evicts),
            held: 0,
            allowance: Arc::new(Allowance::new(max_entries, 1)),
            accounts: Arc::default(),
            full_table: config.full_table,
            counters: Counters::default(),
            evicted: Vec::new(),
        }
    }

    /// An empty table that shares `allowance` with others. `config.max_entries` is no limit then,
    /// but what there is room for from the beginning.
    #[must_use]
    pub fn sharing(config: Config, allowance: Arc<Allowance>) -> Self {
        ConnTable { allowance, ..ConnTable::new(config) }
    }

    /// Puts limits of interfaces in force; those that are not named have none. Flows stay, whatever
    /// the limits; new ones must fit. Of tables that share an allowance each is told, and the limits
    /// are those of the highest `generation` that any was told of. A table that shares with none has
    /// those that it was told last.
    pub fn set_limits(&mut self, generation: u32, limits: &[(Scope, Limits)]) {
        let accounts = self.allowance.set_limits(generation, limits);
        if Arc::ptr_eq(&accounts, &self.accounts) {
            return;
        }
        let before = std::mem::replace(&mut self.accounts, Arc::clone(&accounts));
        let (allowance, held) = (&self.allowance, &mut self.held);
        let mut move_place = |scope: Scope| {
            // First taken, then given back: there is never a place too many.
            match accounts.of(scope) {
                Some(account) => account.open_regardless(),
                None => {
                    allowance.take_regardless(1);
                    *held += 1;
                }
            }
            match before.of(scope) {
                Some(account) => account.end(),
                None => {
                    *held -= 1;
                    allowance.give_back(1);
                }
            }
        };
        self.v4.set_accounts(Arc::clone(&accounts), &mut move_place);
        self.v6.set_accounts(Arc::clone(&accounts), &mut move_place);
        self.give_back_idle();
    }

    /// Gives back all that lies idle here.
    fn give_back_idle(&mut self) {
        let idle = self.held - self.plain();
        self.held -= idle;
        self.allowance.give_back(idle);
    }

    /// Looks up the flow of a packet on an interface. Entries idle for their timeout or longer at
    /// `now` are dead, whether or not [`Self::expire`] has met them (SEMANTICS 7.9).
    #[inline]
    #[must_use]
    pub fn lookup(&self, scope: Scope, headers: &Headers, now: Timestamp) -> Lookup {
        self.lookup_probe(&self.probe(scope, headers), headers, now)
    }

    /// [`Self::lookup`] of the flow that `probe` is of.
    #[inline]
    #[must_use]
    pub fn lookup_probe(&self, probe: &Probe, headers: &Headers, now: Timestamp) -> Lookup {
        match self.find(probe, now) {
            None => Lookup::Miss,
            Some((hit, flow)) if flow.is_reopened_by(headers) => Lookup::Reopen(hit),
            Some((hit, _)) => Lookup::Hit(hit),
        }
    }

    /// The entry of the flow that an ICMP error quotes a packet of, by the quoted packet's key and
    /// side.
    #[must_use]
    pub fn lookup_related(
        &self,
        scope: Scope,
        key: &FlowKey,
        side: Side,
        now: Timestamp,
    ) -> Option<Hit> {
        let mut probe = Probe::NOTHING;
        self.probe_of(scope, *key, side, &mut probe);
        self.find(&probe, now).map(|(hit, _)| hit)
    }

    #[inline]
    fn find(&self, probe: &Probe, now: Timestamp) -> Option<(Hit, &Flow)> {
        if probe.is_absent(self.counters.created) {
            return None;
        }
        let Probe { key, side, scope, hash, candidate, .. } = probe;
        let handle = match key {
            FlowKey::V4(key) => self.v4.find(*hash, *candidate, *scope, key)?,
            FlowKey::V6(key) => self.v6.find(*hash, *candidate, *scope, key)?,
        };
        self.hit(key, *side, handle, now)
    }

    /// The entry of a handle, if it is alive at `now`.
    #[inline]
    fn hit(
        &self,
        key: &FlowKey,
        side: Side,
        handle: Handle,
        now: Timestamp,
    ) -> Option<(Hit, &Flow)> {
        let is_ipv6 = matches!(key, FlowKey::V6(_));
        let (flow, deadline) = match is_ipv6 {
            false => self.v4.get(handle)?,
            true => self.v6.get(handle)?,
        };
        let hit = Hit {
            reply: flow.is_reply(side),
            tag: flow.tag,
            generation: flow.generation,
            is_ipv6,
            side,
            handle,
        };
        (now < deadline).then_some((hit, flow))
    }

    /// The first step of several look-ups at once: which flow a packet names.
    #[inline(always)]
    #[must_use]
    pub fn probe(&self, scope: Scope, headers: &Headers) -> Probe {
        let mut probe = Probe::NOTHING;
        self.probe_into(scope, headers, &mut probe);
        probe
    }

    /// [`Self::probe`], to where it stays, in place of [`Probe::NOTHING`]: for whoever looks many up.
    /// What is moved so soon after it was made is waited for.
    #[inline(always)]
    pub fn probe_into(&self, scope: Scope, headers: &Headers, out: &mut Probe) {
        // IPv6 apart: together, either family waits for what only the other needs.
        match headers.is_ipv6() {
            true => self.probe_ipv6(scope, headers, out),
            false => self.probe_any(scope, headers, out),
        }
    }

    #[inline(never)]
    fn probe_ipv6(&self, scope: Scope, headers: &Headers, out: &mut Probe) {
        self.probe_any(scope, headers, out);
    }

    #[inline(always)]
    fn probe_any(&self, scope: Scope, headers: &Headers, out: &mut Probe) {
        if let Some((key, side)) = FlowKey::of(headers) {
            self.probe_of(scope, key, side, out);
        }
    }

    #[inline(always)]
    fn probe_of(&self, scope: Scope, key: FlowKey, side: Side, out: &mut Probe) {
        let hash = match &key {
            FlowKey::V4(key) => self.v4.hash(scope, key),
            FlowKey::V6(key) => self.v6.hash(scope, key),
        };
        *out = Probe { key, side, scope, hash, candidate: NONE, created: 0 };
    }

    /// The next steps, each for all packets before the one after it, so that their cache misses
    /// come together: the line of the index, then the entry. Where an entry most likely is, it is
    /// for the last step to see whether it is there.
    #[inline]
    pub fn locate(&self, probes: &mut [Probe]) {
        let mut touched = 0;
        // What is in the processor's cache needs no touch.
        let is_large = self.v4.slots() + self.v6.slots() > IN_CACHE;
        for probe in probes.iter().filter(|_| is_large) {
            touched ^= match &probe.key {
                FlowKey::V4(_) => self.v4.touch(probe.hash),
                FlowKey::V6(_) => self.v6.touch(probe.hash),
            };
        }
        for probe in &mut *probes {
            probe.candidate = match &probe.key {
                FlowKey::V4(_) => self.v4.candidate(probe.hash),
                FlowKey::V6(_) => self.v6.candidate(probe.hash),
            };
            probe.created = self.counters.created as u32;
        }
        for probe in &*probes {
            touched ^= match &probe.key {
                FlowKey::V4(_) => self.v4.touch_entry(probe.candidate),
                FlowKey::V6(_) => self.v6.touch_entry(probe.candidate),
            };
        }
        // Nobody wants to know, but the compiler must not find out.
        std::hint::black_box(touched);
    }

    /// The last step for a packet of a flow that was located: if the entry is still the one, alive,
    /// and marked as `mark` asks for packets from its end, the packet is noted in it as by [`Self::refresh`]. `None`: nothing
    /// is changed, and [`Self::lookup`] tells. So it is for a packet that begins a new connection
    /// and, with `in_window`, for one that [`Self::is_out_of_window`] speaks of.
    #[inline(always)]
    pub fn note_marked(
        &mut self,
        probe: &Probe,
        mark: Mark,
        headers: &Headers,
        now: Timestamp,
        timeouts: &TimeoutProfile,
        in_window: bool,
    ) -> Option<Noted> {
        let Probe { candidate: index, scope, side, .. } = *probe;
        match &probe.key {
            FlowKey::V4(key) => {
                let whose = Whose { index, scope, key, side };
                self.v4.note_marked(whose, mark, headers, now, timeouts, in_window)
            }
            FlowKey::V6(key) => {
                let whose = Whose { index, scope, key, side };
                self.v6.note_marked(whose, mark, headers, now, timeouts, in_window)
            }
        }
    }

    /// Puts a mark on an entry, for packets from the end that sent the one that hit it.
    pub fn mark(&mut self, hit: &Hit, mark: Mark) {
        match hit.is_ipv6 {
            false => self.v4.mark(hit.handle, hit.side, mark),
            true => self.v6.mark(hit.handle, hit.side, mark),
        }
    }

    /// Takes the marks off all entries.
    pub fn forget_marks(&mut self) {
        self.v4.forget_marks();
        self.v6.forget_marks();
    }

    /// Whether a packet of a flow is a TCP segment outside the receiver's window, or a RST that
    /// does not fit: what [`Self::refresh`] would give no effect, and no receiver takes
    /// (SEMANTICS 7.7). Before the handshake is complete only RSTs can be that.
    #[must_use]
    pub fn is_out_of_window(&self, hit: &Hit, headers: &Headers) -> bool {
        let flow = match hit.is_ipv6 {
            false => self.v4.get(hit.handle),
            true => self.v6.get(hit.handle),
        };
        flow.is_some_and(|(flow, _)| flow.is_outside(headers, hit.side))
    }

    /// Notes an accepted packet in its entry: its state advances and its idle time starts again.
    pub fn refresh(
        &mut self,
        hit: &Hit,
        headers: &Headers,
        now: Timestamp,
        timeouts: &TimeoutProfile,
    ) {
        let flow = match hit.is_ipv6 {
            false => self.v4.get_mut(hit.handle),
            true => self.v6.get_mut(hit.handle),
        };
        let Some(flow) = flow else { return };
        if !flow.note(headers, hit.side) {
            return;
        }
        let deadline = timeouts.deadline(now, flow.track.state);
        match hit.is_ipv6 {
            false => {
                self.v4.set_deadline(hit.handle, deadline);
                self.v4.note_answer(hit.handle);
            }
            true => {
                self.v6.set_deadline(hit.handle, deadline);
                self.v6.note_answer(hit.handle);
            }
        }
    }

    /// Makes the entry of the flow that an accepted packet opens; [`crate::may_open`] says which
    /// packets may. A packet that names no flow makes none.
    ///
    /// With [`FullTable::EvictEmbryonic`] the place may be that of the oldest flow in this table that
    /// nobody has answered: of the same interface if that is at its cap, else of any interface that
    /// has more flows than are reserved for it. What that takes grows with the number of interfaces
    /// that have limits, and with nothing else.
    ///
    /// # Errors
    /// If there is no place for it. A flow that has died within the last 0.3 s may still count.
    pub fn insert(
        &mut self,
        scope: Scope,
        headers: &Headers,
        now: Timestamp,
        timeouts: &TimeoutProfile,
        tag: RuleTag,
        generation: u32,
    ) -> Result<(), Full> {
        let probe = self.probe(scope, headers);
        self.insert_probed(&probe, headers, now, timeouts, tag, generation).map(drop)
    }

    /// [`Self::insert`] of the flow that `probe` is of, on its interface: the entry, for as long as a
    /// [`Hit`] is good.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_probed(
        &mut self,
        probe: &Probe,
        headers: &Headers,
        now: Timestamp,
        timeouts: &TimeoutProfile,
        tag: RuleTag,
        generation: u32,
    ) -> Result<Option<Hit>, Full> {
        if probe.is_nothing() {
            return Ok(None);
        }
        let Probe { key, side, scope, hash, .. } = *probe;
        let is_absent = probe.is_absent(self.counters.created);
        if let Err(full) = self.find_place(scope, now) {
            self.counters.refused += 1;
            return Err(full);
        }
        self.counters.created += 1;
        let number = self.counters.created;
        let flow = Flow::open(scope, headers, side, tag, generation);
        let deadline = timeouts.deadline(now, flow.track.state);
        let is_ipv6 = matches!(key, FlowKey::V6(_));
        let handle = match key {
            FlowKey::V4(key) => self.v4.insert((hash, key, is_absent), flow, now, deadline, number),
            FlowKey::V6(key) => self.v6.insert((hash, key, is_absent), flow, now, deadline, number),
        };
        Ok(Some(Hit { reply: false, tag, generation, is_ipv6, side, handle }))
    }

    /// Takes a place for a flow of an interface.
    fn find_place(&mut self, scope: Scope, now: Timestamp) -> Result<(), Full> {
        let mut full = loop {
            match self.take_place(scope) {
                Ok(()) => return Ok(()),
                Err(full) if !self.reclaim(now) => break full,
                Err(_) => {}
            }
        };
        for _ in 0..EVICTIONS {
            if !self.evict(scope, full, now) {
                break;
            }
            match self.take_place(scope) {
                Ok(()) => return Ok(()),
                Err(now) => full = now,
            }
        }
        Err(full)
    }

    /// Takes a place that is free.
    fn take_place(&mut self, scope: Scope) -> Result<(), Full> {
        let Some(account) = self.accounts.of(scope) else {
            if self.allowance.is_owed() {
                // What has ended here is for the reserves first.
                self.give_back_idle();
            }
            let has_place = self.plain() < self.held || self.take_allowance();
            return if has_place { Ok(()) } else { Err(Full::Table) };
        };
        match account.open() {
            Err(Full::Table) if self.held > self.plain() => {
                self.give_back_idle();
                self.accounts.of(scope).map_or(Err(Full::Table), Account::open)
            }
            result => result,
        }
    }

    /// Takes more of what tables share; false if there is none to be had.
    fn take_allowance(&mut self) -> bool {
        let taken = self.allowance.take();
        self.held += taken;
        taken > 0
    }

    /// Ends the oldest flow that nobody has answered and whose place a flow of an interface may have
    /// that found no other; false if there is none.
    fn evict(&mut self, scope: Scope, full: Full, now: Timestamp) -> bool {
        if self.full_table != FullTable::EvictEmbryonic {
            return false;
        }
        if self.allowance.is_owed() {
            self.give_back_idle();
        }
        if !self.would_help(scope, full) {
            return false;
        }
        let own = self.accounts.list_of(scope);
        let lists = 0..=self.accounts.len();
        let mut oldest: Option<(u64, usize, bool, Handle, Timestamp)> = None;
        for list in lists.filter(|list| full == Full::Table || *list == own) {
            let v4 = self.v4.oldest_embryonic(list).map(|found| (found, false));
            let v6 = self.v6.oldest_embryonic(list).map(|found| (found, true));
            let found = v4.into_iter().chain(v6).min_by_key(|((number, ..), _)| *number);
            let Some(((number, handle, deadline), is_ipv6)) = found else { continue };
            let is_kept = list != own && self.accounts.is_within_reserve(list);
            if !is_kept && oldest.is_none_or(|(before, ..)| number < before) {
                oldest = Some((number, list, is_ipv6, handle, deadline));
            }
        }
        let Some((_, list, is_ipv6, handle, deadline)) = oldest else { return false };
        if !self.accounts.end_one(list, list == own) {
            // Another worker has ended the last one that was beyond the reserve: its place is free.
            return true;
        }
        let scope = match is_ipv6 {
            false => self.v4.remove_ended(handle),
            true => self.v6.remove_ended(handle),
        };
        if let Some(Scope(scope)) = scope.filter(|_| now < deadline) {
            self.counters.evicted += 1;
            let scope = scope as usize;
            self.evicted.resize(self.evicted.len().max(scope + 1), 0);
            self.evicted[scope] += 1;
        }
        true
    }

    /// Whether a flow of an interface finds a place once another has given its own. Not so where a
    /// reload has set the cap below what the interface has, or reserves more than was free: then what
    /// ends is for the reserves.
    fn would_help(&self, scope: Scope, full: Full) -> bool {
        let is_owed = self.allowance.is_owed();
        self.accounts.of(scope).map_or(!is_owed, |account| account.would_help(full, is_owed))
    }

    /// Entries of an interface that gave their place to another flow.
    #[must_use]
    pub fn evicted(&self, scope: Scope) -> u64 {
        self.evicted.get(scope.0 as usize).copied().unwrap_or(0)
    }

    /// Entries of an interface that has limits, in this table and all that share its allowance; dead
    /// ones are among them.
    #[must_use]
    pub fn flows_of(&self, scope: Scope) -> Option<u32> {
        self.accounts.of(scope).map(Account::flows)
    }

    /// Entries of interfaces without an account.
    fn plain(&self) -> usize {
        self.v4.plain() + self.v6.plain()
    }

    /// Whether a packet that opens a flow on each of two interfaces, one of them this, may find no
    /// place that is free for one of them.
    #[must_use]
    pub fn is_tight(&self, scope: Scope) -> bool {
        let free = self.held.saturating_sub(self.plain()) + self.allowance.left();
        free < 2 || self.accounts.of(scope).is_some_and(|account| account.below_cap() < 2)
    }

    /// Frees the place of a dead entry, if there is one.
    fn reclaim(&mut self, now: Timestamp) -> bool {
        self.v4.reclaim(now) || self.v6.reclaim(now)
    }

    /// Ends an entry.
    pub fn remove(&mut self, hit: &Hit) {
        match hit.is_ipv6 {
            false => self.v4.remove(hit.handle),
            true => self.v6.remove(hit.handle),
        };
    }

    /// Frees the memory of dead entries, in at most `budget` steps of constant time.
    #[inline]
    pub fn expire(&mut self, now: Timestamp, budget: usize) {
        let left = self.v4.expire(now, budget);
        self.v6.expire(now, left);
        let chunk = self.allowance.chunk();
        if self.allowance.is_owed() {
            self.give_back_idle();
        } else if self.held >= self.plain() + 2 * chunk {
            self.held -= chunk;
            self.allowance.give_back(chunk);
        }
    }

    /// Places at which entries may be, for whoever looks at all of them a part at a time: an entry
    /// keeps its place as long as it lives, and places only become more.
    #[must_use]
    pub fn places(&self) -> usize {
        self.v4.slots().max(self.v6.slots())
    }

    /// Ends every entry at these places for which `keep` is false: for changes of the policy, not
    /// for packets. The number that ended.
    pub fn retain(
        &mut self,
        places: Range<usize>,
        mut keep: impl FnMut(&FlowView) -> bool,
    ) -> usize {
        let v4 = self.v4.retain(places.clone(), |key, flow, deadline| {
            keep(&FlowView::of(FlowKey::V4(*key), flow, deadline))
        });
        let v6 = self.v6.retain(places, |key, flow, deadline| {
            keep(&FlowView::of(FlowKey::V6(*key), flow, deadline))
        });
        v4 + v6
    }

    /// Entries in memory; dead ones that [`Self::expire`] has not met are among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no entry in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flows alive at `now`, in no particular order.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = FlowView> {
        self.iter_places(0..self.places(), now)
    }

    /// Those of them at these places.
    pub fn iter_places(
        &self,
        places: Range<usize>,
        now: Timestamp,
    ) -> impl Iterator<Item = FlowView> {
        let v4 = self.v4.iter(places.clone(), now);
        let v4 = v4.map(|(k, flow, d)| FlowView::of(FlowKey::V4(*k), flow, d));
        let v6 = self.v6.iter(places, now);
        v4.chain(v6.map(|(k, flow, d)| FlowView::of(FlowKey::V6(*k), flow, d)))
    }

    /// The flow of an entry, if that is still the one that was hit.
    #[must_use]
    pub fn view(&self, hit: &Hit) -> Option<FlowView> {
        match hit.is_ipv6 {
            false => {
                self.v4.entry(hit.handle).map(|(k, flow, d)| FlowView::of(FlowKey::V4(*k), flow, d))
            }
            true => {
                self.v6.entry(hit.handle).map(|(k, flow, d)| FlowView::of(FlowKey::V6(*k), flow, d))
            }
        }
    }

    /// How many entries [`Self::insert`] could make at `now` of interfaces without limits, at least,
    /// and without evicting any. A table that is nearly full is searched for dead entries: this is
    /// for questions, not for packets.
    #[must_use]
    pub fn room(&self, now: Timestamp) -> usize {
        let free = self.held.saturating_sub(self.plain()) + self.allowance.left();
        match free {
            // Two sides of one packet open two flows at most.
            0 | 1 => free + self.v4.reclaimable(now) + self.v6.reclaimable(now),
            _ => free,
        }
    }

    /// Buckets that the longest look-up of an entry passes, of fifteen entries each: a few, unless a
    /// sender could aim at one. Looks at all entries.
    #[must_use]
    pub fn longest_search(&self) -> usize {
        self.v4.longest_search().max(self.v6.longest_search())
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

/// A copy is on its own: what it takes and gives back is nobody else's.
impl Clone for ConnTable {
    fn clone(&self) -> Self {
        let (allowance, accounts) = self.allowance.copy(&self.accounts);
        let (mut v4, mut v6) = (self.v4.clone(), self.v6.clone());
        v4.account_to(&accounts);
        v6.account_to(&accounts);
        ConnTable {
            v4,
            v6,
            held: self.held,
            allowance: Arc::new(allowance),
            accounts,
            full_table: self.full_table,
            counters: self.counters,
            evicted: self.evicted.clone(),
        }
    }
}
