//! How long a flow may be idle (SEMANTICS 7.10).

use sgwall_packet::Duration;

use crate::entry::FlowState;

/// The idle timeout of each state. A change holds for an entry from its next packet on
/// (SEMANTICS 7.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutProfile {
    /// TCP, SYN seen: 120 s.
    pub tcp_syn_sent: Duration,
    /// TCP, SYN answered: 60 s.
    pub tcp_syn_recv: Duration,
    /// TCP, established: 432,000 s, five days.
    pub tcp_established: Duration,
    /// TCP, first FIN seen: 120 s.
    pub tcp_fin_wait: Duration,
    /// TCP, first FIN acknowledged: 60 s.
    pub tcp_close_wait: Duration,
    /// TCP, second FIN seen: 30 s.
    pub tcp_last_ack: Duration,
    /// TCP, both FINs acknowledged: 120 s.
    pub tcp_time_wait: Duration,
    /// TCP, reset: 10 s.
    pub tcp_close: Duration,
    /// UDP, at most one transaction: 30 s.
    pub udp: Duration,
    /// UDP, more than one transaction: 180 s.
    pub udp_stream: Duration,
    /// ICMP and ICMPv6 queries: 30 s.
    pub icmp: Duration,
    /// Every other protocol: 600 s.
    pub other: Duration,
}

impl Default for TimeoutProfile {
    fn default() -> Self {
        let s = Duration::from_secs;
        TimeoutProfile {
            tcp_syn_sent: s(120),
            tcp_syn_recv: s(60),
            tcp_established: s(432_000),
            tcp_fin_wait: s(120),
            tcp_close_wait: s(60),
            tcp_last_ack: s(30),
            tcp_time_wait: s(120),
            tcp_close: s(10),
            udp: s(30),
            udp_stream: s(180),
            icmp: s(30),
            other: s(600),
        }
    }
}

impl TimeoutProfile {
    /// How long a flow in `state` may be idle.
    #[must_use]
    pub const fn of(&self, state: FlowState) -> Duration {
        match state {
            FlowState::TcpSynSent | FlowState::TcpSynSent2 => self.tcp_syn_sent,
            FlowState::TcpSynRecv => self.tcp_syn_recv,
            FlowState::TcpEstablished => self.tcp_established,
            FlowState::TcpFinWait => self.tcp_fin_wait,
            FlowState::TcpCloseWait => self.tcp_close_wait,
            FlowState::TcpLastAck => self.tcp_last_ack,
            FlowState::TcpTimeWait => self.tcp_time_wait,
            FlowState::TcpClose => self.tcp_close,
            FlowState::Udp => self.udp,
            FlowState::UdpStream => self.udp_stream,
            FlowState::Icmp => self.icmp,
            FlowState::Other => self.other,
        }
    }
}
