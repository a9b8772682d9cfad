//! Which worker judges a frame: one alone has all that the frame's verdict depends on.
//!
//! Flows and fragmented datagrams are known by two addresses, so frames between the same two, in
//! either direction, go to the same worker. A public address counts as the private one that it
//! stands for, whichever of the run's policies says so, because sides of one packet may see either
//! (SEMANTICS 14.5). Where a policy admits ICMP errors by the packet that they quote (10.2), that
//! packet's addresses count, and the error's own do not: it belongs to no flow.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;
use sgwall_dataplane::{Clock, FrameInput};
use sgwall_packet::{Frame, LinkType, addresses, parse, quoted};
use sgwall_rules::compile::CompiledPolicy;

/// Finds the worker of each frame.
pub(super) struct Steering {
    workers: usize,
    hasher: RandomState,
    /// Addresses that are not their own representative, and the one they have.
    same_as: HashMap<IpAddr, IpAddr, RandomState>,
    /// Whether ICMP errors go with what they quote.
    by_quotes: bool,
    clock: Clock,
}

/// The way of one frame.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) worker: u16,
    /// What time it is when it comes.
    pub(super) clock: Clock,
}

impl Steering {
    /// For a run under `policies`, one after the other.
    pub(super) fn new<'p>(
        workers: usize,
        policies: impl Iterator<Item = &'p CompiledPolicy> + Clone,
        [a, b, c, d]: [u64; 4],
    ) -> Self {
        let hasher = RandomState::with_seeds(a, b, c, d);
        let mut same_as = HashMap::with_hasher(hasher.clone());
        let interfaces = policies.clone().flat_map(CompiledPolicy::interfaces);
        for &(private, public) in interfaces.flat_map(|interface| &interface.public) {
            let (one, other) =
                (representative(&same_as, private), representative(&same_as, public));
            if one != other {
                same_as.insert(other, one);
            }
        }
        let by_quotes = policies.into_iter().any(CompiledPolicy::icmp_related);
        Steering { workers, hasher, same_as, by_quotes, clock: Clock::default() }
    }

    /// What time it is, by the frames so far.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether all packets between two addresses go to one worker.
    pub(super) fn is_by_pairs(&self) -> bool {
        !self.by_quotes
    }

    /// Which way the next frame goes; `None` if no one worker can judge it as it would alone:
    ///
    /// * its time lies so far back that expired flows may be known again, to those that have not
    ///   swept them out (half of what [`Clock::LATE`] allows: a frame may be held for a while, and
    ///   be late for it on its other side);
    /// * it is the first fragment of an ICMP error that goes with what it quotes: the rest of it
    ///   goes elsewhere.
    pub(super) fn way(&mut self, frame: &FrameInput<'_>) -> Option<Way> {
        let before = self.clock.now();
        let now = self.clock.advance(frame.time);
        if now < before || now.since(frame.time) > Clock::LATE / 2 {
            return None;
        }
        let worker = match frame.link {
            Some(link) if self.by_quotes => self.worker_by_quote(link, frame)?,
            Some(link) => self.worker(addresses(link, frame.data)),
            None => 0,
        };
        Some(Way { worker, clock: self.clock })
    }

    fn worker_by_quote(&self, link: LinkType, frame: &FrameInput<'_>) -> Option<u16> {
        let ends = match parse(link, frame.data, frame.wire_len as usize) {
            Ok(Frame::Ip(headers)) => match quoted(&headers, frame.data) {
                Some(_) if headers.fragment.is_some() => return None,
                Some(inner) => Some((inner.src, inner.dst)),
                None => Some((headers.src, headers.dst)),
            },
            _ => None,
        };
        Some(self.worker(ends))
    }

    /// The worker of two addresses; frames without any leave no trace.
    #[inline]
    fn worker(&self, ends: Option<(IpAddr, IpAddr)>) -> u16 {
        let Some((src, dst)) = ends else { return 0 };
        let (src, dst) = match self.same_as.is_empty() {
            true => (src, dst),
            false => (representative(&self.same_as, src), representative(&self.same_as, dst)),
        };
        let hash = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (src, dst) = (src.to_bits(), dst.to_bits());
                self.hasher.hash_one(u64::from(src.min(dst)) << 32 | u64::from(src.max(dst)))
            }
            _ => self.hasher.hash_one((src.min(dst), src.max(dst))),
        };
        // The high half of a product: even, whatever the number of workers.
        ((u128::from(hash) * self.workers as u128) >> 64) as u16
    }
}

/// The one address that stands for all that are the same.
fn representative(same_as: &HashMap<IpAddr, IpAddr, RandomState>, mut addr: IpAddr) -> IpAddr {
    while let Some(other) = same_as.get(&addr) {
        addr = *other;
    }
    addr
}
