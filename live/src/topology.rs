//! Which port leads where, and so which interfaces judge a frame.
//!
//! A port leads to the instance of one interface, or to the network. What comes out of an instance
//! is its interface's egress, whatever its addresses say; what comes in from the network is the
//! ingress of the interface that it is for. Between two instances of this firewall a frame is
//! delivered directly only if its MAC address says that it is for the other one: across subnets it
//! goes through the network's router, as in a VPC, and is judged when it comes back.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use sgwall_dataplane::neighbour::is_group;
use sgwall_dataplane::{Side, Sides};
use sgwall_packet::{Headers, LinkInfo, Mac};
use sgwall_rules::compile::CompiledPolicy;
use sgwall_rules::model::Vlans;

/// A port, as it was opened: the same as long as the firewall runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its device.
    pub device: String,
    /// The interface whose instance is behind it; `None`: the network is.
    pub interface: Option<String>,
    /// VLAN tags that it carries.
    pub vlans: Vlans,
}

/// What is behind a port under the policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The instance of an interface (index in the policy).
    Instance(usize),
    /// The network.
    Network,
    /// The instance of an interface that the policy has no more: nothing passes.
    Nothing,
}

/// Ports and interfaces under one policy.
#[derive(Debug)]
pub struct Topology {
    /// By port number.
    behind: Vec<Behind>,
    /// Interfaces that have a port, with it.
    served: Vec<(usize, usize)>,
    /// The port of the network.
    network: usize,
}

/// MAC addresses that instances were seen to have, by port: for interfaces of which the policy
/// knows none. Shared by workers; each is one word.
#[derive(Debug)]
pub struct LearnedMacs {
    by_port: Vec<AtomicU64>,
    /// How often one was learned that was not known.
    changes: AtomicU64,
}

impl LearnedMacs {
    /// None yet, of `ports` ports.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        let by_port = (0..ports).map(|_| AtomicU64::new(0)).collect();
        LearnedMacs { by_port, changes: AtomicU64::new(0) }
    }

    /// Notes the sender of a frame.
    pub(crate) fn note(&self, port: usize, mac: Mac) {
        let word = word(mac);
        let known = self.by_port.get(port);
        if let Some(known) = known.filter(|known| known.load(Ordering::Relaxed) != word) {
            known.store(word, Ordering::Relaxed);
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// A number that is another one after anything new was learned.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn is(&self, port: usize, mac: Mac) -> bool {
        self.by_port.get(port).is_some_and(|known| known.load(Ordering::Relaxed) == word(mac))
    }
}

/// Never zero, which says that nothing was learned.
const fn word(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 1, a, b, c, d, e, f])
}

impl Topology {
    /// What `ports` lead to under `policy`. Without a port for the network, the last one is taken
    /// for it.
    #[must_use]
    pub fn new(ports: &[Port], policy: &CompiledPolicy) -> Self {
        let behind: Vec<_> = ports
            .iter()
            .map(|port| match &port.interface {
                None => Behind::Network,
                Some(id) => policy.interface_by_id(id).map_or(Behind::Nothing, Behind::Instance),
            })
            .collect();
        let served = behind.iter().enumerate().filter_map(|(port, behind)| match behind {
            Behind::Instance(interface) => Some((*interface, port)),
            _ => None,
        });
        let network = behind.iter().position(|behind| *behind == Behind::Network);
        Topology {
            served: served.collect(),
            network: network.unwrap_or(ports.len().saturating_sub(1)),
            behind,
        }
    }

    /// What is behind a port.
    #[must_use]
    pub fn behind(&self, port: usize) -> Behind {
        self.behind.get(port).copied().unwrap_or(Behind::Nothing)
    }

    /// The port of the network.
    #[must_use]
    pub fn network(&self) -> usize {
        self.network
    }

    /// Interfaces that have a port, with it.
    #[must_use]
    pub fn served(&self) -> &[(usize, usize)] {
        &self.served
    }

    /// The port of an interface.
    #[must_use]
    pub fn port_of(&self, interface: usize) -> Option<usize> {
        self.served.iter().find(|(served, _)| *served == interface).map(|&(_, port)| port)
    }

    /// The sides that judge what the instance of `sender` sends: its own and, if it is for another
    /// instance here, that one's.
    pub(crate) fn sides_from_instance(
        &self,
        policy: &CompiledPolicy,
        learned: &LearnedMacs,
        sender: usize,
        headers: &Headers,
    ) -> Sides {
        let receiver = self.receiver(policy, learned, &headers.link, headers.dst);
        Sides {
            egress: Some(side(sender)),
            ingress: receiver.filter(|receiver| *receiver != sender).map(side),
            origin: Some(sender),
        }
    }

    /// The interface that a frame for one host is for, if its MAC address is that of an instance
    /// here. An interface whose MAC address nobody knows yet is told by its address.
    fn receiver(
        &self,
        policy: &CompiledPolicy,
        learned: &LearnedMacs,
        link: &LinkInfo,
        dst: IpAddr,
    ) -> Option<usize> {
        let mac = link.mac?.dst();
        if is_group(mac) {
            return None;
        }
        let owns = |&(interface, _): &(usize, usize)| {
            policy.interfaces().get(interface).is_some_and(|interface| interface.owns(&dst))
        };
        let mut by_mac = self.served.iter().filter(|served| has_mac(policy, learned, served, mac));
        by_mac.clone().find(|served| owns(served)).or_else(|| by_mac.next()).map(|&(i, _)| i)
    }

    /// Whether the sides of a packet depend on its destination address, and not on its MAC addresses
    /// alone. `is_from_instance`: an instance here sent it.
    pub(crate) fn needs_address(
        &self,
        policy: &CompiledPolicy,
        learned: &LearnedMacs,
        link: &LinkInfo,
        is_from_instance: bool,
    ) -> bool {
        let Some(mac) = link.mac.map(|macs| macs.dst()).filter(|mac| !is_group(*mac)) else {
            return true;
        };
        match self.served.iter().filter(|served| has_mac(policy, learned, served, mac)).count() {
            0 => !is_from_instance && self.served.len() != 1,
            1 => false,
            _ => true,
        }
    }

    /// The interface that a frame from the network is for: by MAC address, else by address; where
    /// there is but one, that one.
    pub(crate) fn sides_from_network(
        &self,
        policy: &CompiledPolicy,
        learned: &LearnedMacs,
        headers: &Headers,
    ) -> Option<Sides> {
        let receiver = self.receiver(policy, learned, &headers.link, headers.dst);
        let owner = || {
            let served = |interface: &&usize| self.port_of(**interface).is_some();
            policy.interfaces_of(&headers.dst).iter().find(served).copied()
        };
        let only = || match self.served[..] {
            [(only, _)] => Some(only),
            _ => None,
        };
        let receiver = receiver.or_else(owner).or_else(only)?;
        let origin = headers.link.mac.and_then(|macs| policy.interface_by_mac(macs.src()));
        Some(Sides { egress: None, ingress: Some(side(receiver)), origin })
    }

    /// The instances that an ARP packet for `target` is for, besides `sender`: the one that has
    /// the address or the MAC address, those that may answer for others and, if it tells everybody
    /// about its sender, all.
    pub(crate) fn arp_receivers<'a>(
        &'a self,
        policy: &'a CompiledPolicy,
        learned: &'a LearnedMacs,
        link: &LinkInfo,
        target: IpAddr,
        tells_all: bool,
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let one = self.receiver(policy, learned, link, target);
        let is_group = link.mac.is_none_or(|macs| is_group(macs.dst()));
        self.served.iter().copied().filter(move |&(index, _)| {
            let Some(interface) = policy.interfaces().get(index) else { return false };
            if !is_group {
                return match one {
                    Some(one) => one == index,
                    None => interface.owns(&target),
                };
            }
            tells_all || interface.owns(&target) || !interface.source_dest_check
        })
    }
}

/// Whether the instance of an interface has a MAC address: by the policy or, where that does not
/// say, by what it was seen to send.
fn has_mac(
    policy: &CompiledPolicy,
    learned: &LearnedMacs,
    &(interface, port): &(usize, usize),
    mac: Mac,
) -> bool {
    match policy.interfaces().get(interface).and_then(|interface| interface.mac) {
        Some(own) => own == mac,
        None => learned.is(port, mac),
    }
}

/// A side that sees the packet as it is: a live firewall translates no addresses.
pub(crate) const fn side(interface: usize) -> Side {
    Side { interface, readdress: sgwall_packet::Readdress { src: None, dst: None } }
}
