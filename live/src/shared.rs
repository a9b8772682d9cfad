//! What workers share: the policy in force, and the state of flows in shards.
//!
//! **Life cycle.** A [`Snapshot`] is made whole by whoever loads a policy and then swapped in; a
//! worker takes the present one once a batch. A shard takes over a new policy when a worker that
//! has seen it next locks the shard, so a packet is judged by one policy, never by half of two.
//!
//! **Synchronisation.** A shard's lock is held by a worker for its part of a batch, by others for a
//! bounded piece of work. Packets of two addresses always meet in one shard, both directions and
//! all fragments, whichever worker has them. There are more shards than workers, so that two
//! workers seldom want the same one.
//!
//! **Lock order.** No two shards are locked at once. Nothing else is locked while a shard is, but what
//! [`Allowance`] keeps of the interfaces' limits, for the moment in which the shard takes over a policy.

use std::convert::Infallible;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use sgwall_conntrack::Allowance;
use sgwall_dataplane::{Attribution, Config, Judge, Names, Pipeline, TrackedFlow};
use sgwall_packet::Timestamp;
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::model::Policy;

use crate::engine::OnReload;
use crate::flow_log::Recorder;
use crate::sync::{Mutex, MutexGuard, Slot, Watched};
use crate::topology::{LearnedMacs, Port, Topology};
use crate::trace::Tracer;

/// The policy in force, and what it makes of the ports.
#[derive(Debug)]
pub struct Snapshot {
    /// As it was written.
    pub model: Arc<Policy>,
    /// As packets are judged.
    pub policy: Arc<CompiledPolicy>,
    /// What flows are known by under it.
    pub names: Names,
    /// What the ports lead to.
    pub topology: Topology,
}

impl Snapshot {
    /// Compiles a policy.
    #[must_use]
    pub fn new(model: Arc<Policy>, generation: Generation, ports: &[Port]) -> Self {
        let policy = CompiledPolicy::compile(&model, generation);
        let names = Names::new(&policy);
        Self::of(model, policy, names, ports)
    }

    /// Compiles the policy that takes over from this one, as far as it differs. All that grows with
    /// the number of rules is done here and not where packets wait.
    #[must_use]
    pub fn next(&self, model: Arc<Policy>, generation: Generation, ports: &[Port]) -> Self {
        let policy = self.policy.recompile(&model, generation);
        let names = self.names.after(&self.policy, &policy);
        Self::of(model, policy, names, ports)
    }

    fn of(model: Arc<Policy>, policy: CompiledPolicy, names: Names, ports: &[Port]) -> Self {
        let topology = Topology::new(ports, &policy);
        Snapshot { model, policy: Arc::new(policy), names, topology }
    }
}

/// What became of tracked flows as a policy took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Those alive.
    pub flows: usize,
    /// Those that the new rules would not admit if they began now.
    pub not_admitted: usize,
    /// Those that ended for it.
    pub ended: usize,
}

/// See [`Shared::watch_snapshot`].
pub(crate) type WatchedSnapshot = Watched<Arc<Snapshot>>;

/// What all workers of a firewall share.
#[derive(Debug)]
pub struct Shared {
    /// The ports, in the order of their numbers.
    pub ports: Vec<Port>,
    /// Verdicts for whoever wants to see them.
    pub tracer: Tracer,
    pub(crate) learned: LearnedMacs,
    snapshot: Arc<Slot<Arc<Snapshot>>>,
    shards: Box<[Shard]>,
    workers: usize,
    steering: RandomState,
}

/// Places of a table that are looked at while its shard is locked: tens of microseconds.
const PLACES: usize = 1024;
/// Shards for each worker, where there are several workers.
const SHARDS_PER_WORKER: usize = 8;

/// What a worker says that ends because of another's panic: the other one's is the cause.
pub const FAILED_ELSEWHERE: &str = "another thread failed with this part of the flow table in hand";

/// A part of all flows, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Part>);

/// What a shard's lock guards.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) judge: Judge,
    /// What it counts for the flow log, if there is one.
    pub(crate) recorder: Option<Recorder>,
}

impl Shared {
    /// A firewall of `workers` workers without any flow. `config` is that of all shards together.
    #[must_use]
    pub fn new(ports: Vec<Port>, snapshot: Snapshot, workers: usize, config: Config) -> Self {
        let workers = workers.max(1);
        let shards = if workers == 1 { 1 } else { workers * SHARDS_PER_WORKER };
        let allowance = Arc::new(Allowance::new(config.max_flows, shards));
        let config = Config { max_flows: config.max_flows.div_ceil(shards), ..config };
        let shard = |_| {
            let (policy, allowance) = (Arc::clone(&snapshot.policy), Arc::clone(&allowance));
            let pipeline = Pipeline::sharing(policy, snapshot.names.clone(), config, allowance);
            let judge = Judge::new(pipeline, Attribution::default());
            Shard(Mutex::new(Part { judge, recorder: None }))
        };
        let [a, b, c, d] = config.hash_seed;
        Shared {
            learned: LearnedMacs::new(ports.len()),
            tracer: Tracer::default(),
            shards: (0..shards).map(shard).collect(),
            workers,
            snapshot: Arc::new(Slot::new(Arc::new(snapshot))),
            // Another seed than the tables': a shard must not be a part of their buckets.
            steering: RandomState::with_seeds(!a, !b, !c, !d),
            ports,
        }
    }

    /// The policy in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The policy in force, for whoever asks again and again: while it stays the same, one look at a
    /// pointer.
    pub(crate) fn watch_snapshot(&self) -> WatchedSnapshot {
        WatchedSnapshot::new(Arc::clone(&self.snapshot))
    }

    /// Puts another policy in force, from the next batch of each worker on.
    pub fn set_snapshot(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// [`Self::set_snapshot`], then looks at all flows under the policy in force: what becomes of those
    /// that it would not admit. No flow that an older policy admits is opened after that.
    ///
    /// # Panics
    /// As [`with_shards`](Self::with_shards).
    pub fn replace(&self, snapshot: Snapshot, on_reload: OnReload, now: Timestamp) -> Replaced {
        self.set_snapshot(snapshot);
        let mut replaced = Replaced::default();
        self.with_flows(|judge, places, snapshot| {
            for flow in judge.pipeline().flows(places.clone(), now) {
                replaced.flows += 1;
                replaced.not_admitted += usize::from(!flow.is_admitted(&snapshot.policy));
            }
            if on_reload == OnReload::Rejudge {
                let is_admitted = |flow: &TrackedFlow<'_>| flow.is_admitted(&snapshot.policy);
                replaced.ended += judge.end_flows(places, now, |flow| !is_admitted(flow));
            }
        });
        replaced
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shard in which packets between two addresses meet, in either direction.
    #[inline]
    pub(crate) fn shard_of(&self, one: &IpAddr, other: &IpAddr) -> usize {
        if self.shards.len() == 1 {
            return 0;
        }
        let bits = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let (one, other) = (bits(one), bits(other));
        // The high half of a product: even, whatever the number of shards.
        let hash = u128::from(self.steering.hash_one((one.min(other), one.max(other))));
        ((hash * self.shards.len() as u128) >> 64) as usize
    }

    /// Locks a shard that is under the policy of `snapshot`, which it takes over if that is newer;
    /// `None` if the shard is under a newer one already.
    ///
    /// # Panics
    /// If a worker has panicked with the shard in hand: what it holds cannot be trusted, and a
    /// firewall that cannot trust its state must not pass anything.
    pub(crate) fn lock(&self, shard: usize, snapshot: &Snapshot) -> Option<MutexGuard<'_, Part>> {
        let mut part = match self.shards[shard].0.lock() {
            Ok(part) => part,
            Err(_) => panic!("{FAILED_ELSEWHERE}"),
        };
        let (has, wanted) =
            (part.judge.pipeline().policy().generation(), snapshot.policy.generation());
        if has < wanted {
            let (policy, names) = (Arc::clone(&snapshot.policy), snapshot.names.clone());
            part.judge.take_over(policy, names, Attribution::default());
            if let Some(recorder) = &mut part.recorder {
                recorder.set_policy(Arc::clone(&snapshot.policy));
            }
        }
        (has <= wanted).then_some(part)
    }

    /// Works with each shard in turn, under the policy in force.
    ///
    /// # Panics
    /// If a worker has panicked with a shard in hand.
    pub fn with_shards(&self, mut work: impl FnMut(&mut Judge, &Snapshot)) {
        self.with_parts(|part, snapshot| work(&mut part.judge, snapshot));
    }

    /// As [`Self::with_shards`], flow logs included.
    pub(crate) fn with_parts(&self, mut work: impl FnMut(&mut Part, &Snapshot)) {
        for shard in 0..self.shards.len() {
            self.with_part(shard, &mut work);
        }
    }

    /// Works with all flows, some places of a shard's table at a time: a shard is free in between, so
    /// that packets never wait for a whole table. Flows that come or go meanwhile may be missed.
    ///
    /// # Panics
    /// As [`with_shards`](Self::with_shards).
    pub fn with_flows(&self, work: impl FnMut(&mut Judge, Range<usize>, &Snapshot)) {
        let Ok(()) = self.each_page(work, |()| Ok::<_, Infallible>(()));
    }

    /// The same, and hands on what was found in some places while no shard is locked.
    ///
    /// # Errors
    /// The first of `hand_on`, which ends it.
    ///
    /// # Panics
    /// As [`with_shards`](Self::with_shards).
    pub fn each_page<T, E>(
        &self,
        mut work: impl FnMut(&mut Judge, Range<usize>, &Snapshot) -> T,
        mut hand_on: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        for shard in 0..self.shards.len() {
            let mut places = 0..PLACES;
            loop {
                let (found, all) = self.with_part(shard, |part, snapshot| {
                    let found = work(&mut part.judge, places.clone(), snapshot);
                    (found, part.judge.pipeline().connections().places())
                });
                hand_on(found)?;
                if places.end >= all {
                    break;
                }
                places = places.end..places.end + PLACES;
            }
        }
        Ok(())
    }

    /// Works with the shard in which packets between two addresses meet.
    ///
    /// # Panics
    /// As [`with_shards`](Self::with_shards).
    pub fn with_shard_of<T>(
        &self,
        one: IpAddr,
        other: IpAddr,
        work: impl FnOnce(&mut Judge, &Snapshot) -> T,
    ) -> T {
        self.with_part(self.shard_of(&one, &other), |part, snapshot| {
            work(&mut part.judge, snapshot)
        })
    }

    fn with_part<T>(&self, shard: usize, work: impl FnOnce(&mut Part, &Snapshot) -> T) -> T {
        loop {
            let snapshot = self.snapshot();
            if let Some(mut part) = self.lock(shard, &snapshot) {
                return work(&mut part, &snapshot);
            }
        }
    }
}
