//! Sequence numbers for TCP segments that are written by hand without any, so that a handshake of
//! three lines is a handshake.

use std::collections::HashMap;
use std::net::SocketAddr;

use sgwall_packet::{PacketSpec, TcpFlags, protocol};

/// Where a sender begins that nothing is known of: numbers are relative, as people write them.
const FIRST: u32 = 0;

/// The number that each sender's next segment has, by its end and the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers(HashMap<(SocketAddr, SocketAddr), u32>);

impl Numbers {
    /// The packet, with numbers that fit what was passed before if it is a TCP segment that has
    /// none.
    pub(crate) fn fit(&self, packet: &PacketSpec) -> PacketSpec {
        let mut packet = packet.clone();
        if packet.protocol == protocol::TCP && (packet.seq, packet.ack) == (0, 0) {
            let (from, to) = ends(&packet);
            packet.seq = self.0.get(&(from, to)).copied().unwrap_or(FIRST);
            if packet.flags.contains(TcpFlags::ACK) {
                packet.ack = self.0.get(&(to, from)).copied().unwrap_or(FIRST);
            }
        }
        packet
    }

    /// Notes a packet that reached its receiver.
    pub(crate) fn note(&mut self, packet: &PacketSpec) {
        if packet.protocol == protocol::TCP {
            let takes = |flag| u32::from(packet.flags.contains(flag));
            let len = u32::from(packet.len) + takes(TcpFlags::SYN) + takes(TcpFlags::FIN);
            self.0.insert(ends(packet), packet.seq.wrapping_add(len));
        }
    }
}

fn ends(packet: &PacketSpec) -> (SocketAddr, SocketAddr) {
    let (from, to) = packet.ports;
    (SocketAddr::new(packet.src, from), SocketAddr::new(packet.dst, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_numbers_gets_some_that_fit() {
        let mut numbers = Numbers::default();
        let mut seen = Vec::new();
        for (text, passes) in [
            ("tcp 192.0.2.1:5000 -> 10.0.1.10:22 S", false),
            ("tcp 192.0.2.1:5000 -> 10.0.1.10:22 S", true),
            ("tcp 10.0.1.10:22 -> 192.0.2.1:5000 SA", true),
            ("tcp 192.0.2.1:5000 -> 10.0.1.10:22 A", true),
            ("tcp 192.0.2.1:5000 -> 10.0.1.10:22 PA len=10", true),
            ("tcp 10.0.1.10:22 -> 192.0.2.1:5000 FA", true),
            ("tcp 192.0.2.1:5000 -> 10.0.1.10:22 A", true),
            ("tcp 192.0.2.1:5000 -> 10.0.1.10:22 A seq=7 ack=8", true),
            ("udp 192.0.2.1:5000 -> 10.0.1.10:22", true),
        ] {
            let packet = numbers.fit(&text.parse().expect(text));
            seen.push((packet.seq, packet.ack));
            if passes {
                numbers.note(&packet);
            }
        }
        let expected = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (1, 11), (11, 2), (7, 8), (0, 0)];
        assert_eq!(seen, expected);
    }
}
