//! Sets of traffic: what rules admit, to be compared as sets and not as text.
//!
//! A packet, as rules see it, is a point: the address at the other end, the IP protocol, and the
//! destination port (of ICMP: type and code). A rule is a [`Block`] of such points, and a
//! [`Region`] is a union of blocks that do not overlap. For people and for comparison: packets are
//! matched by [`crate::matcher`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use sgwall_packet::protocol;

use crate::model::{IcmpMatch, L4Match, protocol_name};

/// A range, both ends within.
type Range<T> = (T, T);

/// All points with an address of one family, a protocol and a port within three ranges. Of IPv4
/// addresses the upper bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    ipv6: bool,
    addresses: Range<u128>,
    protocols: Range<u8>,
    /// Destination ports; of ICMP the type in the upper eight bits and the code in the lower.
    ports: Range<u16>,
}

/// A set of traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// None overlaps another.
    blocks: Vec<Block>,
}

impl Block {
    /// What a rule for these addresses matches.
    #[must_use]
    pub fn new(matches: L4Match, net: IpNet) -> Self {
        let addresses = (bits(net.network()), bits(net.broadcast()));
        let (protocols, ports) = match matches {
            L4Match::All => ((0, u8::MAX), ALL_PORTS),
            L4Match::Tcp(ports) => (one(protocol::TCP), (ports.from, ports.to)),
            L4Match::Udp(ports) => (one(protocol::UDP), (ports.from, ports.to)),
            L4Match::Icmp(icmp) => (one(protocol::ICMP), icmp_range(icmp)),
            L4Match::Icmpv6(icmp) => (one(protocol::ICMPV6), icmp_range(icmp)),
            L4Match::Other(number) => (one(number), ALL_PORTS),
        };
        Block { ipv6: matches!(net, IpNet::V6(_)), addresses, protocols, ports }
    }

    /// Whether a packet is in it. `selector`: as [`crate::oracle::Packet`] has it.
    #[must_use]
    pub fn contains(&self, remote: IpAddr, protocol: u8, selector: u16) -> bool {
        self.ipv6 == remote.is_ipv6()
            && within(self.addresses, bits(remote))
            && within(self.protocols, protocol)
            && within(self.ports, selector)
    }

    fn intersection(&self, other: &Block) -> Option<Block> {
        if self.ipv6 != other.ipv6 {
            return None;
        }
        Some(Block {
            ipv6: self.ipv6,
            addresses: overlap(self.addresses, other.addresses)?,
            protocols: overlap(self.protocols, other.protocols)?,
            ports: overlap(self.ports, other.ports)?,
        })
    }

    /// Adds to `rest` what of this block is not in `other`, in at most six blocks.
    fn minus(&self, other: &Block, rest: &mut Vec<Block>) {
        let Some(common) = self.intersection(other) else {
            rest.push(*self);
            return;
        };
        let mut left = *self;
        if left.addresses.0 < common.addresses.0 {
            rest.push(Block { addresses: (left.addresses.0, common.addresses.0 - 1), ..left });
        }
        if common.addresses.1 < left.addresses.1 {
            rest.push(Block { addresses: (common.addresses.1 + 1, left.addresses.1), ..left });
        }
        left.addresses = common.addresses;
        if left.protocols.0 < common.protocols.0 {
            rest.push(Block { protocols: (left.protocols.0, common.protocols.0 - 1), ..left });
        }
        if common.protocols.1 < left.protocols.1 {
            rest.push(Block { protocols: (common.protocols.1 + 1, left.protocols.1), ..left });
        }
        left.protocols = common.protocols;
        if left.ports.0 < common.ports.0 {
            rest.push(Block { ports: (left.ports.0, common.ports.0 - 1), ..left });
        }
        if common.ports.1 < left.ports.1 {
            rest.push(Block { ports: (common.ports.1 + 1, left.ports.1), ..left });
        }
    }

    /// The block that the two make together, if they differ in one range alone and that is whole.
    fn joined(&self, other: &Block) -> Option<Block> {
        let same = (
            self.addresses == other.addresses,
            self.protocols == other.protocols,
            self.ports == other.ports,
        );
        match same {
            _ if self.ipv6 != other.ipv6 => None,
            (_, true, true) => {
                join(self.addresses, other.addresses).map(|addresses| Block { addresses, ..*self })
            }
            (true, _, true) => {
                join(self.protocols, other.protocols).map(|protocols| Block { protocols, ..*self })
            }
            (true, true, _) => join(self.ports, other.ports).map(|ports| Block { ports, ..*self }),
            _ => None,
        }
    }

    /// The prefixes that its addresses are.
    #[must_use]
    pub fn prefixes(&self) -> Vec<IpNet> {
        let (first, last) = self.addresses;
        match self.ipv6 {
            false => {
                let v4 = |bits: u128| Ipv4Addr::from_bits(bits as u32);
                Ipv4Subnets::new(v4(first), v4(last), 0).map(IpNet::V4).collect()
            }
            true => {
                let v6 = Ipv6Addr::from_bits;
                Ipv6Subnets::new(v6(first), v6(last), 0).map(IpNet::V6).collect()
            }
        }
    }

    /// `tcp 22`, `udp 1024-65535`, `icmp 3/4`, `all`.
    #[must_use]
    pub fn protocol_text(&self) -> String {
        let (first, last) = self.protocols;
        let ports = self.ports;
        if (first, last) == (0, u8::MAX) && ports == ALL_PORTS {
            return "all".to_owned();
        }
        if first != last {
            return format!("protocols {first}-{last}");
        }
        let name = protocol_name(first);
        match first {
            _ if ports == ALL_PORTS => name,
            protocol::ICMP | protocol::ICMPV6 => {
                let [kind, code] = ports.0.to_be_bytes();
                let [last_kind, last_code] = ports.1.to_be_bytes();
                match (code, last_code) {
                    (0, u8::MAX) if kind == last_kind => format!("{name} {kind}"),
                    (0, u8::MAX) => format!("{name} {kind}-{last_kind}"),
                    _ if ports.0 == ports.1 => format!("{name} {kind}/{code}"),
                    _ => format!("{name} {kind}/{code}-{last_kind}/{last_code}"),
                }
            }
            _ if ports.0 == ports.1 => format!("{name} {}", ports.0),
            _ => format!("{name} {}-{}", ports.0, ports.1),
        }
    }

    /// `10.0.0.0/8`, or the first and the last address where that is no prefix.
    #[must_use]
    pub fn address_text(&self) -> String {
        match &self.prefixes()[..] {
            [one] => one.to_string(),
            _ => {
                let (first, last) = self.addresses;
                format!("{}-{}", address(self.ipv6, first), address(self.ipv6, last))
            }
        }
    }
}

const ALL_PORTS: Range<u16> = (0, u16::MAX);

const fn one<T: Copy>(value: T) -> Range<T> {
    (value, value)
}

fn icmp_range(icmp: IcmpMatch) -> Range<u16> {
    match (icmp.kind, icmp.code) {
        (None, _) => ALL_PORTS,
        (Some(kind), None) => (u16::from_be_bytes([kind, 0]), u16::from_be_bytes([kind, u8::MAX])),
        (Some(kind), Some(code)) => one(u16::from_be_bytes([kind, code])),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(ipv6: bool, bits: u128) -> IpAddr {
    match ipv6 {
        false => Ipv4Addr::from_bits(bits as u32).into(),
        true => Ipv6Addr::from_bits(bits).into(),
    }
}

fn within<T: PartialOrd>((first, last): Range<T>, value: T) -> bool {
    first <= value && value <= last
}

fn overlap<T: Ord + Copy>(one: Range<T>, other: Range<T>) -> Option<Range<T>> {
    let common = (one.0.max(other.0), one.1.min(other.1));
    (common.0 <= common.1).then_some(common)
}

/// Two ranges of which one begins after the other ends.
fn join<T: Ord + Copy + Successor>(one: Range<T>, other: Range<T>) -> Option<Range<T>> {
    let (low, high) = if one.0 <= other.0 { (one, other) } else { (other, one) };
    (low.1.next() == Some(high.0)).then_some((low.0, high.1))
}

trait Successor: Sized {
    fn next(self) -> Option<Self>;
}

macro_rules! successor {
    ($($number:ty),+) => {
        $(impl Successor for $number {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })+
    };
}

successor!(u8, u16, u128);

impl From<Block> for Region {
    fn from(block: Block) -> Self {
        Region { blocks: vec![block] }
    }
}

impl Region {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Region::default()
    }

    /// Whether no packet is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Its blocks, none of which overlaps another.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Whether a packet is in it.
    #[must_use]
    pub fn contains(&self, remote: IpAddr, protocol: u8, selector: u16) -> bool {
        self.blocks.iter().any(|block| block.contains(remote, protocol, selector))
    }

    /// Adds a block.
    pub fn add(&mut self, block: Block) {
        let mut new = vec![block];
        for known in &self.blocks {
            let mut rest = Vec::with_capacity(new.len());
            new.iter().for_each(|block| block.minus(known, &mut rest));
            new = rest;
            if new.is_empty() {
                return;
            }
        }
        self.blocks.extend(new);
    }

    /// Takes a block away.
    pub fn remove(&mut self, block: &Block) {
        let mut rest = Vec::with_capacity(self.blocks.len());
        self.blocks.iter().for_each(|known| known.minus(block, &mut rest));
        self.blocks = rest;
    }

    /// What is in one of them.
    #[must_use]
    pub fn union(mut self, other: &Region) -> Self {
        other.blocks.iter().for_each(|block| self.add(*block));
        self
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn minus(mut self, other: &Region) -> Self {
        other.blocks.iter().for_each(|block| self.remove(block));
        self
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Region) -> Self {
        let pairs = self
            .blocks
            .iter()
            .flat_map(|one| other.blocks.iter().filter_map(|other| one.intersection(other)));
        Region { blocks: pairs.collect() }
    }

    /// The same in as few blocks as joining neighbours gives, in order: for people to read.
    #[must_use]
    pub fn tidy(mut self) -> Self {
        loop {
            self.blocks.sort_unstable();
            let mut joined: Vec<Block> = Vec::with_capacity(self.blocks.len());
            'blocks: for block in &self.blocks {
                for known in &mut joined {
                    if let Some(both) = known.joined(block) {
                        *known = both;
                        continue 'blocks;
                    }
                }
                joined.push(*block);
            }
            if joined.len() == self.blocks.len() {
                return self;
            }
            self.blocks = joined;
        }
    }
}

impl FromIterator<Block> for Region {
    fn from_iter<I: IntoIterator<Item = Block>>(blocks: I) -> Self {
        let mut region = Region::new();
        blocks.into_iter().for_each(|block| region.add(block));
        region
    }
}

/// `tcp 22 of 10.0.0.0/8`.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.protocol_text(), self.address_text())
    }
}
