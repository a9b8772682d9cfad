//! Which interface a packet concerns, and on which side of it the packet is.

use std::net::IpAddr;

use sgwall_packet::Direction;
use sgwall_rules::compile::CompiledPolicy;

/// The interfaces that judge a packet: the sender's side first, then the receiver's.
///
/// A packet between two interfaces of the policy is judged on both (SEMANTICS 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// Index of the interface that sends it.
    pub egress: Option<usize>,
    /// Index of the interface that receives it.
    pub ingress: Option<usize>,
}

impl Sides {
    /// The sides to judge, in order.
    pub fn iter(self) -> impl Iterator<Item = (usize, Direction)> {
        let egress = self.egress.map(|i| (i, Direction::Egress));
        egress.into_iter().chain(self.ingress.map(|i| (i, Direction::Ingress)))
    }

    /// Whether no interface is concerned.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.egress.is_none() && self.ingress.is_none()
    }
}

/// How packets find their interface, by order of precedence: a direction said by the user; the
/// interfaces' own addresses and those that stand for them; the direction the capture recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// Only these interfaces judge (indices); `None`: all of the policy.
    pub only: Option<Vec<usize>>,
    /// Every packet goes this way, through the one interface of `only`.
    pub direction: Option<Direction>,
    /// Ranges that stand for the one interface of `only`, as (first, last) address.
    pub local: Vec<(IpAddr, IpAddr)>,
}

impl Attribution {
    /// The sides that judge a packet from `src` to `dst`; `recorded` is the capture's own word.
    #[must_use]
    pub fn sides(
        &self,
        policy: &CompiledPolicy,
        src: IpAddr,
        dst: IpAddr,
        recorded: Option<Direction>,
    ) -> Sides {
        let the_one = match self.only.as_deref() {
            Some([one]) => Some(*one),
            _ => None,
        };
        if let (Some(one), Some(direction)) = (the_one, self.direction) {
            return Self::one_side(one, direction);
        }
        let sides = Sides { egress: self.owner(policy, src), ingress: self.owner(policy, dst) };
        match (the_one, recorded) {
            (Some(one), Some(direction)) if sides.is_empty() => Self::one_side(one, direction),
            _ => sides,
        }
    }

    /// Whether `addr` is `interface`'s own, or stands for it.
    #[must_use]
    pub fn is_own(&self, policy: &CompiledPolicy, interface: usize, addr: IpAddr) -> bool {
        policy.interfaces().get(interface).is_some_and(|i| i.owns(&addr))
            || (self.only.as_deref() == Some(&[interface]) && self.stands_for(addr))
    }

    fn owner(&self, policy: &CompiledPolicy, addr: IpAddr) -> Option<usize> {
        let wanted = |i: &usize| self.only.as_ref().is_none_or(|only| only.contains(i));
        policy.interfaces_of(&addr).iter().copied().find(wanted).or_else(|| {
            match self.only.as_deref() {
                Some([one]) if self.stands_for(addr) => Some(*one),
                _ => None,
            }
        })
    }

    fn stands_for(&self, addr: IpAddr) -> bool {
        self.local.iter().any(|(first, last)| {
            first.is_ipv4() == addr.is_ipv4() && *first <= addr && addr <= *last
        })
    }

    const fn one_side(interface: usize, direction: Direction) -> Sides {
        match direction {
            Direction::Ingress => Sides { egress: None, ingress: Some(interface) },
            Direction::Egress => Sides { egress: Some(interface), ingress: None },
        }
    }
}
