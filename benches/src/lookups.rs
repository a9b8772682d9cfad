//! Look-ups of packets among the rules of an interface's groups.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use sgwall_packet::{Direction, protocol};
use sgwall_rules::compile::{CompiledPolicy, RuleSet};
use sgwall_rules::matcher::Matcher;
use sgwall_rules::model::L4Match;

use crate::{RUN, Random, Work};

/// Remote address, protocol number, and destination port or ICMP type and code.
pub type Packet = (IpAddr, u8, u16);

/// Packets that the cache, and the processor's guesses, can know.
pub const FEW: usize = 4096;
/// Packets that they cannot.
pub const MANY: usize = 65_536;
/// Packets that come upon a cold cache: a batch of four queues.
pub const COLD: usize = 256;

/// The rules of an interface's groups in one direction.
#[must_use]
pub fn rules_of(policy: &CompiledPolicy, interface: usize, direction: Direction) -> &RuleSet {
    let nobody = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    policy.interfaces()[interface].groups(direction, &nobody)
}

/// Packets that rules match: each is somewhere within a prefix and the ports of one of them. None if
/// no rule can match anything.
#[must_use]
pub fn aimed(rules: &RuleSet, n: usize) -> Vec<Packet> {
    let prefixes: Vec<_> = rules.prefixes().collect();
    let mut random = Random::new(0x5eed_0002);
    let packets = std::iter::repeat_with(|| {
        let (matches, prefix) = prefixes[random.draw() as usize % prefixes.len()];
        packet_within(matches, prefix, &mut random)
    });
    // Ports that are the wrong way round match nothing, for instance.
    let matched = packets.take(2 * n).filter(|(remote, protocol, selector)| {
        rules.matcher().lookup(remote, *protocol, *selector).is_some()
    });
    if prefixes.is_empty() { Vec::new() } else { matched.take(n).collect() }
}

fn packet_within(matches: L4Match, prefix: IpNet, random: &mut Random) -> Packet {
    let host = u128::from(random.draw()) << 64 | u128::from(random.draw());
    let address = match prefix {
        IpNet::V4(net) => {
            IpAddr::V4((u32::from(net.network()) | host as u32 & u32::from(net.hostmask())).into())
        }
        IpNet::V6(net) => {
            IpAddr::V6((u128::from(net.network()) | host & u128::from(net.hostmask())).into())
        }
    };
    let any = random.draw() as u16;
    let (protocol, selector) = match matches {
        L4Match::All => (protocol::TCP, any),
        L4Match::Tcp(ports) => (protocol::TCP, random.within(ports.from, ports.to)),
        L4Match::Udp(ports) => (protocol::UDP, random.within(ports.from, ports.to)),
        L4Match::Icmp(icmp) | L4Match::Icmpv6(icmp) => {
            let [kind, code] = any.to_be_bytes();
            let selector = [icmp.kind.unwrap_or(kind), icmp.code.unwrap_or(code)];
            let is_icmpv6 = matches!(matches, L4Match::Icmpv6(_));
            let number = if is_icmpv6 { protocol::ICMPV6 } else { protocol::ICMP };
            (number, u16::from_be_bytes(selector))
        }
        L4Match::Other(number) => (number, 0),
    };
    (address, protocol, selector)
}

/// Packets from anywhere to any port.
#[must_use]
pub fn stray(is_ipv6: bool, n: usize) -> Vec<Packet> {
    let mut random = Random::new(0x5eed_0003);
    let packet = |_| {
        let (bits, more) = (random.draw(), random.draw());
        let address = match is_ipv6 {
            true => IpAddr::V6((u128::from(bits) << 64 | u128::from(more)).into()),
            false => IpAddr::V4((bits as u32).into()),
        };
        let protocol = if more & 1 == 0 { protocol::TCP } else { protocol::UDP };
        (address, protocol, (more >> 40) as u16)
    };
    (0..n).map(packet).collect()
}

/// Looks packets up one by one. Never part of its caller: `benches/guard` counts the instructions
/// between its beginning and its end.
#[inline(never)]
pub fn look_up(matcher: &Matcher, packets: &[Packet]) {
    for (remote, protocol, selector) in packets {
        black_box(matcher.lookup(remote, *protocol, *selector));
    }
}

/// Something larger than the cache: a walk over it leaves nothing else there.
#[derive(Debug)]
pub struct Evictor(Vec<u64>);

impl Default for Evictor {
    /// Of 64 MiB.
    fn default() -> Self {
        // Not of zeros, which might all be one page.
        Evictor(vec![1; 64 << 17])
    }
}

impl Evictor {
    /// Fills the cache with something else.
    pub fn evict(&self) {
        black_box(self.0.iter().step_by(8).sum::<u64>());
    }
}

/// Packets looked up over and over.
#[derive(Debug)]
pub struct Lookups {
    policy: Arc<CompiledPolicy>,
    interface: usize,
    direction: Direction,
    packets: Vec<Packet>,
    is_batch: bool,
    evictor: Option<Arc<Evictor>>,
    out: Vec<Option<u32>>,
    /// The next to be looked up.
    at: usize,
}

impl Lookups {
    /// Look-ups of `packets`, at least one, side by side or one by one; with an evictor on a cold
    /// cache, and [`COLD`] in a run.
    #[must_use]
    pub fn new(
        (policy, interface, direction): (Arc<CompiledPolicy>, usize, Direction),
        packets: Vec<Packet>,
        is_batch: bool,
        evictor: Option<Arc<Evictor>>,
    ) -> Self {
        let (out, at) = (vec![None; RUN], 0);
        Lookups { policy, interface, direction, packets, is_batch, evictor, out, at }
    }
}

impl Work for Lookups {
    fn prepare(&mut self) {
        if self.at == self.packets.len() {
            self.at = 0;
        }
        if let Some(evictor) = &self.evictor {
            evictor.evict();
        }
    }

    fn run(&mut self) -> usize {
        let matcher = rules_of(&self.policy, self.interface, self.direction).matcher();
        let most = if self.evictor.is_some() { COLD } else { RUN };
        let rest = &self.packets[self.at..];
        let packets = &rest[..most.min(rest.len())];
        match self.is_batch {
            true => matcher.lookup_batch(packets, black_box(&mut self.out)),
            false => look_up(matcher, packets),
        }
        self.at += packets.len();
        packets.len()
    }
}

#[cfg(test)]
mod tests {
    use sgwall_rules::compile::Generation;

    use super::*;
    use crate::{policy, rules, rules6};

    #[test]
    fn aimed_packets_hit() {
        for rules in [rules(300), rules6(300)] {
            let policy = CompiledPolicy::compile(&policy(rules), Generation(0));
            let set = rules_of(&policy, 0, Direction::Ingress);
            let packets = aimed(set, 1000);
            assert_eq!(packets.len(), 1000);
            let hits = |(remote, protocol, selector): &Packet| {
                set.lookup(remote, *protocol, *selector).is_some()
            };
            assert!(packets.iter().all(hits));
            let is_ipv6 = packets[0].0.is_ipv6();
            assert!(!stray(is_ipv6, 1000).iter().all(hits));
        }
    }

    #[test]
    fn no_rule_no_packets() {
        let policy = CompiledPolicy::compile(&policy(Vec::new()), Generation(0));
        assert_eq!(aimed(rules_of(&policy, 0, Direction::Ingress), 10), []);
    }
}
