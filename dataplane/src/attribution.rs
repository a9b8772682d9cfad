//! Which interface a packet concerns, and on which side of it the packet is.

use std::net::{IpAddr, Ipv4Addr};

use sgwall_packet::{Direction, Headers, LinkInfo, Readdress};
use sgwall_rules::compile::CompiledPolicy;

/// The interfaces that judge a packet: the sender's side first, then the receiver's.
///
/// A packet between two interfaces of the policy is judged on both (SEMANTICS 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// The interface that sends it.
    pub egress: Option<Side>,
    /// The interface that receives it.
    pub ingress: Option<Side>,
    /// Index of the interface that puts it on the last hop, if its MAC address tells.
    pub origin: Option<usize>,
}

/// An interface that judges a packet, and how the packet looks there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Index of the interface.
    pub interface: usize,
    /// Public addresses to read as the private ones that the interface knows, and the other way
    /// round: an internet gateway translates between them (SEMANTICS 14.5).
    pub readdress: Readdress,
}

impl Side {
    const fn of(interface: usize) -> Self {
        Side { interface, readdress: Readdress { src: None, dst: None } }
    }
}

impl Sides {
    /// The side of a direction, if an interface judges there.
    #[inline]
    #[must_use]
    pub const fn side(&self, direction: Direction) -> Option<&Side> {
        match direction {
            Direction::Egress => self.egress.as_ref(),
            Direction::Ingress => self.ingress.as_ref(),
        }
    }

    /// The sides to judge, in order.
    pub fn iter(self) -> impl Iterator<Item = (Side, Direction)> {
        let egress = self.egress.map(|side| (side, Direction::Egress));
        egress.into_iter().chain(self.ingress.map(|side| (side, Direction::Ingress)))
    }

    /// The side that judges first.
    #[inline]
    #[must_use]
    pub const fn first(&self) -> Option<(&Side, Direction)> {
        match (&self.egress, &self.ingress) {
            (Some(side), _) => Some((side, Direction::Egress)),
            (None, Some(side)) => Some((side, Direction::Ingress)),
            (None, None) => None,
        }
    }

    /// Whether two interfaces judge.
    #[inline]
    #[must_use]
    pub const fn is_both(&self) -> bool {
        self.egress.is_some() && self.ingress.is_some()
    }

    /// Whether no interface is concerned.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.egress.is_none() && self.ingress.is_none()
    }
}

/// How packets find their interface, by order of precedence: a direction said by the user; MAC
/// addresses that the policy knows; the interfaces' own addresses, the public ones among them, and
/// those that stand for them; the direction the capture recorded.
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
    /// The sides that judge a packet from `src` to `dst`; `link` is its link layer, `recorded` the
    /// capture's own word.
    #[must_use]
    pub fn sides(
        &self,
        policy: &CompiledPolicy,
        link: &LinkInfo,
        (src, dst): (IpAddr, IpAddr),
        recorded: Option<Direction>,
    ) -> Sides {
        let the_one = match self.only.as_deref() {
            Some([one]) => Some(*one),
            _ => None,
        };
        if let (Some(one), Some(direction)) = (the_one, self.direction) {
            return Self::one_side(one, direction);
        }
        let sides = self.by_address(policy, link, src, dst);
        match (the_one, recorded) {
            (Some(one), Some(direction)) if sides.is_empty() => Self::one_side(one, direction),
            _ => sides,
        }
    }

    /// [`Self::sides`] of a packet, written where they are to stay: for whoever asks for many.
    #[inline]
    pub(crate) fn find_sides(
        &self,
        policy: &CompiledPolicy,
        headers: &Headers,
        recorded: Option<Direction>,
        sides: &mut Sides,
    ) {
        let Headers { link, src, dst, .. } = headers;
        if policy.has_private_addresses_alone() && self.direction.is_none() {
            sides.egress = self.owner(policy, src).map(Side::of);
            sides.ingress = self.owner(policy, dst).map(Side::of);
            sides.origin = None;
            if recorded.is_none() || !sides.is_empty() {
                return;
            }
        }
        *sides = self.sides(policy, link, (*src, *dst), recorded);
    }

    fn by_address(
        &self,
        policy: &CompiledPolicy,
        link: &LinkInfo,
        src: IpAddr,
        dst: IpAddr,
    ) -> Sides {
        if policy.has_private_addresses_alone() {
            let egress = self.owner(policy, &src).map(Side::of);
            return Sides { egress, ingress: self.owner(policy, &dst).map(Side::of), origin: None };
        }
        let by_mac = |mac: Option<[u8; 6]>| policy.interface_by_mac(mac?);
        let from_mac = by_mac(link.mac.map(|macs| macs.src()));
        let to_mac = by_mac(link.mac.map(|macs| macs.dst()));
        let from_public = policy.interface_by_public(&src);
        let to_public = policy.interface_by_public(&dst);

        let sender = from_mac.or(from_public.map(|(i, _)| i));
        let sender = match sender {
            Some(known) => Some(known).filter(|i| self.is_wanted(*i)),
            None => self.owner(policy, &src),
        };
        let egress = sender.map(|interface| {
            let private = from_public.filter(|(i, _)| *i == interface).map(|(_, private)| private);
            let readdress = Readdress { src: private.and_then(v4), dst: None };
            Side { interface, readdress }
        });
        let receiver = match to_mac.or(to_public.map(|(i, _)| i)) {
            Some(known) => Some(known).filter(|i| self.is_wanted(*i)),
            None => self.owner(policy, &dst),
        };
        let Some((public_owner, private)) = to_public else {
            return Sides { egress, ingress: receiver.map(Side::of), origin: from_mac };
        };
        // By its public address an interface is reached from outside its VPC, where a sender of
        // the policy is known by its public address too; one that has none comes back from where
        // nobody here can tell, and only its own side is judged.
        let seen_as = match from_mac.or_else(|| policy.interfaces_of(&src).first().copied()) {
            Some(sender) if from_public.is_none() => {
                let public = policy.interfaces().get(sender).and_then(|i| i.public_of(&src));
                match public {
                    Some(public) => Some(public),
                    None => return Sides { egress, ingress: None, origin: None },
                }
            }
            _ => None,
        };
        let readdress = Readdress { src: seen_as.and_then(v4), dst: v4(private) };
        let ingress = receiver
            .filter(|receiver| *receiver == public_owner)
            .map(|interface| Side { interface, readdress });
        Sides { egress, ingress, origin: None }
    }

    /// Whether `addr` is `interface`'s own, or stands for it.
    #[must_use]
    pub fn is_own(&self, policy: &CompiledPolicy, interface: usize, addr: &IpAddr) -> bool {
        policy.interfaces().get(interface).is_some_and(|i| i.owns(addr))
            || (self.only.as_deref() == Some(&[interface]) && self.stands_for(*addr))
    }

    fn is_wanted(&self, interface: usize) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&interface))
    }

    #[inline(always)]
    fn owner(&self, policy: &CompiledPolicy, addr: &IpAddr) -> Option<usize> {
        match self.only.as_deref() {
            None => policy.interfaces_of(addr).first().copied(),
            Some([one]) => {
                let is_own = policy.is_interface_of(*one, addr) | self.stands_for(*addr);
                is_own.then_some(*one)
            }
            Some(only) => policy.interfaces_of(addr).iter().copied().find(|i| only.contains(i)),
        }
    }

    #[inline]
    fn stands_for(&self, addr: IpAddr) -> bool {
        !self.local.is_empty() && self.is_local(addr)
    }

    #[inline(never)]
    fn is_local(&self, addr: IpAddr) -> bool {
        self.local.iter().any(|(first, last)| {
            first.is_ipv4() == addr.is_ipv4() && *first <= addr && addr <= *last
        })
    }

    const fn one_side(interface: usize, direction: Direction) -> Sides {
        let side = Some(Side::of(interface));
        match direction {
            Direction::Ingress => Sides { egress: None, ingress: side, origin: None },
            Direction::Egress => Sides { egress: side, ingress: None, origin: None },
        }
    }
}

const fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}
