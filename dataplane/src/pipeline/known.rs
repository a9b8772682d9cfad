//! The short way: packets of tracked flows of which the long way has been found out before.
//!
//! Whether a packet is exempt, carried by the VPC, own to the interface and let through by the
//! network ACL depends on its five-tuple, its direction and the policy, and on nothing that differs
//! between the whole packets that one end of a TCP or UDP flow sends. So when the long way has passed
//! one, its flow's entry is marked for that direction and that end, and from then on tracking alone
//! decides: one look-up, and the size of the packet. The end counts, because an instance may forge
//! the other end's packets, and an interface without address check carries those of both. A new
//! policy, or another way of finding interfaces, is a new epoch, in which no mark holds.
//!
//! What an entry may be marked for is decided strictly: the ACL must let the packet through even
//! where it does not apply because the packet stays in the subnet, since that depends on the hop
//! (SEMANTICS 9.4). Explaining never takes the short way, so whoever compares the two
//! (`pcap-fixtures/tests/explained.rs`) compares both ways.

use sgwall_conntrack::{Hit, Mark, Probe};
use sgwall_packet::{Direction, Headers, Transport};
use sgwall_rules::compile::CompiledInterface;

use super::{PacketContext, Pipeline, State, refused_by_acl};
use crate::path_mtu::{Fit, fit};
use crate::verdict::{FlowState, PassReason, Verdict};

impl Pipeline {
    /// Judges several packets in order, as [`Self::process`] would one after the other, and tells
    /// of each. Flows are looked up for all at once, which pays from a handful to a hundred.
    ///
    /// The packets are asked for twice, so that nobody needs to keep them.
    #[inline]
    pub fn process_batch<'a>(
        &mut self,
        packets: impl Iterator<Item = PacketContext<'a>> + Clone,
        mut tell: impl FnMut(&PacketContext<'a>, &Verdict),
    ) {
        let mut probes = std::mem::take(&mut self.probes);
        probes.clear();
        for packet in packets.clone() {
            probes.push(Probe::NOTHING);
            if let Some(probe) = probes.last_mut() {
                self.probe_into(packet.interface, packet.headers, probe);
            }
        }
        self.locate(&mut probes);
        for (packet, probe) in packets.zip(&probes) {
            tell(&packet, &self.process_located(&packet, probe));
        }
        self.probes = probes;
    }

    /// The flow that a packet on an interface names, to be looked up by [`Self::locate`], in place of
    /// [`Probe::NOTHING`].
    #[inline(always)]
    pub(crate) fn probe_into(&self, interface: usize, headers: &Headers, out: &mut Probe) {
        if let Some((scope, _)) = self.state.tracking.get(interface)
            && is_markable(headers)
        {
            self.state.connections.probe_into(*scope, headers, out);
        }
    }

    /// Looks flows up, for [`Self::process_known`].
    #[inline]
    pub(crate) fn locate(&self, probes: &mut [Probe]) {
        self.state.connections.locate(probes);
    }

    /// Judges a packet whose flow has been looked up.
    #[inline(always)]
    pub(crate) fn process_located(&mut self, packet: &PacketContext<'_>, probe: &Probe) -> Verdict {
        match self.process_known(packet, probe) {
            Some(verdict) => verdict,
            // A copy: what nobody but the compiler sees of a known flow's packet needs no memory.
            None => self.process_copy(*packet, probe),
        }
    }

    #[inline(never)]
    fn process_copy(&mut self, packet: PacketContext<'_>, probe: &Probe) -> Verdict {
        self.process_unknown(&packet, probe)
    }

    /// Judges a packet whose flow has been looked up, and that [`Self::process_known`] has left.
    #[inline]
    pub(crate) fn process_unknown(&mut self, packet: &PacketContext<'_>, probe: &Probe) -> Verdict {
        self.process_probed(packet, Some(probe).filter(|probe| !probe.is_nothing()))
    }

    /// Looks up the flow of a packet, and judges it.
    pub(crate) fn process_alone(&mut self, packet: &PacketContext<'_>) -> Verdict {
        let mut probe = [Probe::NOTHING];
        self.probe_into(packet.interface, packet.headers, &mut probe[0]);
        self.locate(&mut probe);
        self.process_located(packet, &probe[0])
    }

    /// Judges a packet of a tracked flow the short way; `None`, and nothing is changed, if
    /// [`Self::process`] must. Of `packet`, the frame is not looked
    /// at, nor where it comes from and whether its address is the interface's own.
    #[inline(always)]
    pub(crate) fn process_known(
        &mut self,
        packet: &PacketContext<'_>,
        probe: &Probe,
    ) -> Option<Verdict> {
        let (policy, state) = (&self.policy, &mut self.state);
        if packet.size > policy.smallest_mtu().into() {
            let interface = policy.interfaces().get(packet.interface)?;
            if fit(policy, interface, packet) != Fit::Whole {
                return None;
            }
        }
        let (_, timeouts) = state.tracking.get(packet.interface)?;
        let mark = mark(state.epoch, packet.direction);
        let (headers, now) = (packet.headers, packet.now);
        let in_window = policy.tcp_window_check();
        let noted =
            state.connections.note_marked(probe, mark, headers, now, timeouts, in_window)?;
        let (reason, flow) = match noted.reply {
            true => (PassReason::Reply, FlowState::Reply),
            false => (PassReason::Established, FlowState::Established),
        };
        let verdict = Verdict { admitted_by: Some(noted.tag), ..Verdict::pass(reason) };
        let verdict = verdict.of_flow(Some(flow));
        self.counters.count(Some(packet.interface), &verdict, headers.ip_len);
        Some(verdict)
    }

    /// Lets no mark hold from here on.
    pub(crate) fn begin_epoch(&mut self) {
        let state = &mut self.state;
        if state.epoch == Mark::LAST_EPOCH {
            state.connections.forget_marks();
            state.epoch = 0;
        }
        state.epoch += 1;
    }
}

impl State {
    /// Marks the entry of a flow for packets like this one, which the long way has passed, if all of
    /// them pass. `was_asked`: whether the ACL has let this one through.
    pub(super) fn mark(
        &mut self,
        interface: &CompiledInterface,
        packet: &PacketContext<'_>,
        was_asked: bool,
        entry: &Hit,
    ) {
        if is_markable(packet.headers) && (was_asked || refused_by_acl(interface, packet).is_none())
        {
            self.connections.mark(entry, mark(self.epoch, packet.direction));
        }
    }
}

/// Whether the packets of a flow are alike to all stages but tracking: those with ports, and whole.
fn is_markable(headers: &Headers) -> bool {
    let has_ports = matches!(headers.transport, Transport::Tcp(_) | Transport::Udp { .. });
    has_ports && headers.fragment.is_none()
}

const fn mark(epoch: u16, direction: Direction) -> Mark {
    Mark::new(epoch, matches!(direction, Direction::Egress))
}
