//! How many flows the tables of several workers may hold together, and each interface of them.
//!
//! A table takes some at a time from what is left, when it needs more, and gives back what it does
//! not need. So the limit holds exactly for all of them together, whichever worker the flows are on,
//! workers meet at one counter once in many new flows, and what lies idle is a small part of all.
//!
//! An interface with a limit of its own ([`Limits`]) has an [`Account`] instead, one for all tables:
//! its flows are counted one by one when they open and end, so its cap and its reserve hold to the
//! flow. Interfaces without cost nothing more than before.
//!
//! **The sum.** Of all places of the table, the *common* ones are those that no reserve keeps. A
//! flow takes a common place unless its interface holds fewer flows than its reserve. `places` is
//! what nobody has; it is the smaller number only after a reload that keeps more than is free: then
//! reserves too wait until flows end.

use std::sync::{Arc, PoisonError};

use crate::Scope;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use crate::table::Full;

/// Flows that a table takes at a time, at the most.
const MAX_CHUNK: usize = 256;
/// A table keeps less than two chunks that it does not need: of all together, an eighth at most.
const CHUNKS_PER_TABLE: usize = 16;

/// How many flows an interface may hold, and how many are kept for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// It may hold no more; `None`: as many as there are.
    pub max_flows: Option<u32>,
    /// No other interface gets these places, even when the table is full.
    pub reserved_flows: u32,
}

/// What is left of a number of flows that several tables share.
#[derive(Debug)]
pub struct Allowance {
    pool: Arc<Pool>,
    chunk: usize,
    /// Whether it is for one table alone: what that is told is the latest.
    is_alone: bool,
    /// Locked when a policy takes over, never for a packet.
    register: Mutex<Register>,
}

/// Places that nobody has.
#[derive(Debug)]
struct Pool {
    places: AtomicI64,
    /// Those that no reserve keeps. Below zero after a reload that reserves more than is free.
    common: AtomicI64,
}

/// The limits in force.
#[derive(Clone, Debug, Default)]
struct Register {
    generation: u32,
    limits: Vec<(Scope, Limits)>,
    accounts: Arc<Accounts>,
}

/// The interfaces that have limits, each with its account.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// By scope number: the place in `all`, plus one; zero: it has none.
    by_scope: Vec<u32>,
    all: Vec<(Scope, Arc<Account>)>,
}

/// The flows of one interface, in all tables.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Account {
    pool: Arc<Pool>,
    /// Flows in the high half, the reserve in the low one: both are compared at once.
    state: AtomicU64,
    cap: AtomicU32,
}

impl Allowance {
    /// So many flows for so many tables, none of them taken.
    #[must_use]
    pub fn new(flows: usize, tables: usize) -> Self {
        let chunk = flows / tables.max(1) / CHUNKS_PER_TABLE;
        let flows = i64::try_from(flows).unwrap_or(i64::MAX);
        let pool = Pool { places: AtomicI64::new(flows), common: AtomicI64::new(flows) };
        Allowance {
            pool: Arc::new(pool),
            chunk: chunk.clamp(1, MAX_CHUNK),
            is_alone: tables <= 1,
            register: Mutex::default(),
        }
    }

    /// Flows that no table has taken and no reserve keeps.
    #[must_use]
    pub fn left(&self) -> usize {
        let Pool { places, common } = &*self.pool;
        places.load(Ordering::Relaxed).min(common.load(Ordering::Relaxed)).max(0) as usize
    }

    /// Whether more is reserved than is free: what ends is for the reserves.
    pub(crate) fn is_owed(&self) -> bool {
        self.pool.common.load(Ordering::Relaxed) < 0
    }

    /// Flows that a table takes, or gives back, at a time.
    pub(crate) const fn chunk(&self) -> usize {
        self.chunk
    }

    /// Takes up to a chunk; how many it got.
    pub(crate) fn take(&self) -> usize {
        let places = take_some(&self.pool.places, self.chunk as i64);
        let taken = take_some(&self.pool.common, places);
        self.pool.places.fetch_add(places - taken, Ordering::Relaxed);
        taken as usize
    }

    pub(crate) fn give_back(&self, flows: usize) {
        self.pool.add(flows as i64);
    }

    /// Takes places for flows that there are already, whether or not any are left.
    pub(crate) fn take_regardless(&self, flows: usize) {
        self.pool.add(-(flows as i64));
    }

    /// Puts limits in force, unless later ones are already; the accounts that are. Interfaces keep
    /// the account that they have.
    pub(crate) fn set_limits(&self, generation: u32, limits: &[(Scope, Limits)]) -> Arc<Accounts> {
        let mut register = self.register.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_alone || generation >= register.generation {
            register.generation = generation;
            if register.limits != limits {
                register.accounts = Arc::new(register.accounts.after(limits, &self.pool));
                register.limits = limits.to_vec();
            }
        }
        Arc::clone(&register.accounts)
    }

    /// One of its own with the same numbers, and the accounts in it that stand for `accounts`.
    pub(crate) fn copy(&self, accounts: &Accounts) -> (Allowance, Arc<Accounts>) {
        let copied = |counter: &AtomicI64| AtomicI64::new(counter.load(Ordering::Relaxed));
        let Pool { places, common } = &*self.pool;
        let pool = Arc::new(Pool { places: copied(places), common: copied(common) });
        let register = self.register.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let accounts = Arc::new(accounts.copy(&pool));
        let register = Register { accounts: Arc::clone(&accounts), ..register };
        (Allowance { pool, is_alone: true, register: Mutex::new(register), ..*self }, accounts)
    }
}

impl Pool {
    fn add(&self, flows: i64) {
        self.common.fetch_add(flows, Ordering::Relaxed);
        self.places.fetch_add(flows, Ordering::Relaxed);
    }
}

/// Takes up to `wanted` of what is above zero.
fn take_some(counter: &AtomicI64, wanted: i64) -> i64 {
    let mut left = counter.load(Ordering::Relaxed);
    loop {
        let taken = left.min(wanted).max(0);
        if taken == 0 {
            return 0;
        }
        let rest = left - taken;
        match counter.compare_exchange_weak(left, rest, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return taken,
            Err(now) => left = now,
        }
    }
}

impl Accounts {
    /// The account of an interface, if it has limits.
    #[inline]
    pub(crate) fn of(&self, scope: Scope) -> Option<&Account> {
        self.numbered(self.list_of(scope))
    }

    /// Numbers the account of an interface, from one; zero: it has none.
    #[inline]
    pub(crate) fn list_of(&self, scope: Scope) -> usize {
        self.by_scope.get(scope.0 as usize).map_or(0, |&list| list as usize)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    fn numbered(&self, list: usize) -> Option<&Account> {
        Some(&self.all.get(list.checked_sub(1)?)?.1)
    }

    /// Whether all flows of a list are within the reserve of its interface.
    pub(crate) fn is_within_reserve(&self, list: usize) -> bool {
        let state = self.numbered(list).map(|account| account.state.load(Ordering::Relaxed));
        state.map(halves).is_some_and(|(flows, reserve)| flows <= reserve)
    }

    /// Gives the place of one flow of a list back, of the reserve only if `any`; false if that may
    /// not be. Flows without an account hold no place here.
    pub(crate) fn end_one(&self, list: usize, any: bool) -> bool {
        let Some(account) = self.numbered(list) else { return true };
        account.end_if(|flows, reserve| any || flows > reserve)
    }

    fn from(all: Vec<(Scope, Arc<Account>)>) -> Self {
        let scopes = all.iter().map(|(scope, _)| scope.0 as usize + 1).max().unwrap_or(0);
        let mut by_scope = vec![0; scopes];
        for ((scope, _), list) in all.iter().zip(1..) {
            by_scope[scope.0 as usize] = list;
        }
        Accounts { by_scope, all }
    }

    fn after(&self, limits: &[(Scope, Limits)], pool: &Arc<Pool>) -> Self {
        let of = |scope: Scope| self.all.iter().find(|(of, _)| *of == scope);
        let is_gone = |scope: Scope| limits.iter().all(|(of, _)| *of != scope);
        for (_, account) in self.all.iter().filter(|(scope, _)| is_gone(*scope)) {
            account.set(Limits::default());
        }
        let account = |&(scope, limits): &(Scope, Limits)| {
            let known = of(scope).map(|(_, account)| Arc::clone(account));
            let account = known.unwrap_or_else(|| {
                let (state, cap) = (AtomicU64::new(0), AtomicU32::new(u32::MAX));
                Arc::new(Account { pool: Arc::clone(pool), state, cap })
            });
            account.set(limits);
            (scope, account)
        };
        Accounts::from(limits.iter().map(account).collect())
    }

    fn copy(&self, pool: &Arc<Pool>) -> Self {
        let copied = |(scope, account): &(Scope, Arc<Account>)| {
            let state = AtomicU64::new(account.state.load(Ordering::Relaxed));
            let cap = AtomicU32::new(account.cap.load(Ordering::Relaxed));
            (*scope, Arc::new(Account { pool: Arc::clone(pool), state, cap }))
        };
        Accounts::from(self.all.iter().map(copied).collect())
    }
}

/// Flows and reserve of a state.
const fn halves(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

const fn joined(flows: u32, reserve: u32) -> u64 {
    (flows as u64) << 32 | reserve as u64
}

impl Account {
    /// Flows that the interface has.
    pub(crate) fn flows(&self) -> u32 {
        halves(self.state.load(Ordering::Relaxed)).0
    }

    /// Flows that it may still have by its cap.
    pub(crate) fn below_cap(&self) -> u32 {
        self.cap.load(Ordering::Relaxed).saturating_sub(self.flows())
    }

    /// Whether a flow finds a place that found none for `full`, once another has given its own. Where
    /// more is reserved than is free, only the reserve has places.
    pub(crate) fn would_help(&self, full: Full, is_owed: bool) -> bool {
        let (flows, reserve) = halves(self.state.load(Ordering::Relaxed));
        match full {
            Full::Table => !is_owed || flows < reserve,
            Full::Cap => {
                flows <= self.cap.load(Ordering::Relaxed) && (!is_owed || flows <= reserve)
            }
        }
    }

    /// Takes a place for one more flow.
    ///
    /// # Errors
    /// What there is no more of. Nothing is taken then.
    pub(crate) fn open(&self) -> Result<(), Full> {
        let mut state = self.state.load(Ordering::Relaxed);
        if halves(state).0 >= self.cap.load(Ordering::Relaxed) {
            return Err(Full::Cap);
        }
        if take_some(&self.pool.places, 1) == 0 {
            return Err(Full::Table);
        }
        // A common place is in hand before the number says that one is held, and is given back
        // after: so there are never more flows than places, whatever others do in between.
        let (mut common, mut refused) = (0, None);
        loop {
            let (flows, reserve) = halves(state);
            if flows >= self.cap.load(Ordering::Relaxed) {
                refused = Some(Full::Cap);
                break;
            }
            if flows >= reserve && common == 0 {
                common = take_some(&self.pool.common, 1);
                if common == 0 {
                    refused = Some(Full::Table);
                    break;
                }
            }
            match self.become_state(state, joined(flows + 1, reserve)) {
                Ok(()) if flows < reserve => break,
                Ok(()) => return Ok(()),
                Err(now) => state = now,
            }
        }
        self.pool.common.fetch_add(common, Ordering::Relaxed);
        match refused {
            None => Ok(()),
            Some(full) => {
                self.pool.places.fetch_add(1, Ordering::Relaxed);
                Err(full)
            }
        }
    }

    /// Takes a place for a flow that there is already, whether or not there is one.
    pub(crate) fn open_regardless(&self) {
        self.pool.add(-1);
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let (flows, reserve) = halves(state);
            match self.become_state(state, joined(flows + 1, reserve)) {
                Ok(()) => {
                    self.pool.common.fetch_add(i64::from(flows < reserve), Ordering::Relaxed);
                    return;
                }
                Err(now) => state = now,
            }
        }
    }

    /// Gives the place of a flow back.
    pub(crate) fn end(&self) {
        self.end_if(|_, _| true);
    }

    /// The same if its flows and its reserve are such; false, and nothing is changed, if not.
    fn end_if(&self, may: impl Fn(u32, u32) -> bool) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let (flows, reserve) = halves(state);
            if flows == 0 || !may(flows, reserve) {
                return false;
            }
            match self.become_state(state, joined(flows - 1, reserve)) {
                Ok(()) => {
                    self.pool.common.fetch_add(i64::from(flows > reserve), Ordering::Relaxed);
                    self.pool.places.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(now) => state = now,
            }
        }
    }

    /// Puts limits in force. Flows stay.
    fn set(&self, limits: Limits) {
        self.cap.store(limits.max_flows.unwrap_or(u32::MAX), Ordering::Relaxed);
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let (flows, before) = halves(state);
            let held = |reserve: u32| i64::from(flows.max(reserve));
            // What the interface keeps from others: its reserve, and what it holds beyond.
            let less = held(before) - held(limits.reserved_flows);
            self.pool.common.fetch_add(less.min(0), Ordering::Relaxed);
            match self.become_state(state, joined(flows, limits.reserved_flows)) {
                Ok(()) => {
                    self.pool.common.fetch_add(less.max(0), Ordering::Relaxed);
                    return;
                }
                Err(now) => {
                    self.pool.common.fetch_sub(less.min(0), Ordering::Relaxed);
                    state = now;
                }
            }
        }
    }

    fn become_state(&self, from: u64, to: u64) -> Result<(), u64> {
        let (ok, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        self.state.compare_exchange_weak(from, to, ok, failed).map(|_| ())
    }
}
