//! ClassBench's filter sets and traces, as a rule of a security group or network ACL sees them.
//!
//! A filter has five fields; a rule has one remote prefix, one protocol and one range of destination
//! ports. The *projection* keeps the source prefix, the protocol and the destination ports, takes
//! all else for wildcards, and keeps the order: the first filter that matches a packet wins.
//!
//! D. Taylor, J. Turner, *ClassBench: A Packet Classification Benchmark*, 2007.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sgwall_rules::matcher::Entry;
use sgwall_rules::model::{IcmpMatch, L4Match, PortRange};

use crate::Random;

/// TCP and UDP, whose ports rules look at.
const WITH_PORTS: [u8; 2] = [6, 17];
/// Where [`to_ipv6`] puts addresses: 2001:db8::/32.
const IPV6_PREFIX: u32 = 0x2001_0db8;

/// A filter's projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The remote end.
    pub source: IpNet,
    /// `None` is any.
    pub protocol: Option<u8>,
    /// Destination ports; all of them unless the protocol is TCP or UDP.
    pub ports: PortRange,
}

/// A packet's projection: the three arguments of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The remote end.
    pub source: IpAddr,
    /// The number in the IP header.
    pub protocol: u8,
    /// The destination port of TCP and UDP, 0 of all else.
    pub port: u16,
}

impl Filter {
    /// Whether the filter matches, field by field: what the compiled matcher is held against.
    #[must_use]
    pub fn matches(&self, packet: &Packet) -> bool {
        self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && (self.ports.from..=self.ports.to).contains(&packet.port)
            && self.source.contains(&packet.source)
    }

    /// The same as an entry of the matcher.
    #[must_use]
    pub fn entry(&self, rank: u32) -> Entry {
        let matches = match self.protocol {
            None => L4Match::All,
            Some(1) => L4Match::Icmp(IcmpMatch::default()),
            Some(58) => L4Match::Icmpv6(IcmpMatch::default()),
            Some(6) => L4Match::Tcp(self.ports),
            Some(17) => L4Match::Udp(self.ports),
            Some(other) => L4Match::Other(other),
        };
        Entry { remote: self.source, matches, rank }
    }

    /// A line of a filter set, as DPDK's `dpdk-test-acl` reads it.
    #[must_use]
    pub fn to_line(&self) -> String {
        let (any, PortRange { from, to }) = (unspecified(&self.source.addr()), self.ports);
        let (protocol, mask) = self.protocol.map_or((0, 0), |protocol| (protocol, 0xff));
        let source = self.source;
        format!("@{source}\t{any}/0\t0 : 65535\t{from} : {to}\t0x{protocol:02x}/0x{mask:02x}")
    }
}

impl Packet {
    /// A line of a trace, as DPDK's `dpdk-test-acl` reads it.
    #[must_use]
    pub fn to_line(&self) -> String {
        let Packet { source, protocol, port } = self;
        match source {
            IpAddr::V4(v4) => format!("{}\t0\t0\t{port}\t{protocol}", u32::from(*v4)),
            IpAddr::V6(v6) => format!("{v6}\t::\t0\t{port}\t{protocol}"),
        }
    }
}

/// Reads a filter set: `@SOURCE/N DESTINATION/N FROM : TO FROM : TO PROTOCOL/MASK`, and columns that
/// do not concern us.
///
/// # Errors
/// At a line that is none, or whose filter no single rule can express: a protocol mask that is
/// neither 0x00 nor 0xFF, or ports of another protocol than TCP and UDP.
pub fn read_filters(text: &str) -> Result<Vec<Filter>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            read_filter(line).map_err(|what| format!("line {}: {what}: {line:?}", n + 1))
        })
        .collect()
}

fn read_filter(line: &str) -> Result<Filter, &'static str> {
    let line = line.strip_prefix('@').ok_or("a filter begins with @")?;
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [source, _, _, ":", _, from, ":", to, protocol, ..] = fields[..] else {
        return Err("a filter has SOURCE DESTINATION FROM : TO FROM : TO PROTOCOL/MASK");
    };
    let source: Ipv4Net = source.parse().map_err(|_| "the source is no IPv4 prefix")?;
    let port = |text: &str| text.parse().map_err(|_| "a port is a number from 0 to 65535");
    let ports = PortRange { from: port(from)?, to: port(to)? };
    let (number, mask) = protocol.split_once('/').ok_or("the protocol lacks its mask")?;
    let hex = |text: &str| {
        let digits = text.strip_prefix("0x").ok_or("protocol and mask begin with 0x")?;
        u8::from_str_radix(digits, 16).map_err(|_| "protocol and mask are below 0x100")
    };
    let protocol = match hex(mask)? {
        0x00 => None,
        0xff => Some(hex(number)?),
        _ => return Err("the protocol's mask is neither 0x00 nor 0xFF"),
    };
    if ports != PortRange::ALL && protocol.is_none_or(|number| !WITH_PORTS.contains(&number)) {
        return Err("a rule has ports for TCP and UDP only");
    }
    Ok(Filter { source: IpNet::V4(source.trunc()), protocol, ports })
}

/// Reads a trace: source, destination, both ports, protocol, all decimal, and columns that do not
/// concern us.
///
/// # Errors
/// At a line that is none.
pub fn read_packets(text: &str) -> Result<Vec<Packet>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            read_packet(line).ok_or_else(|| {
                format!("line {}: a packet has five decimal numbers: {line:?}", n + 1)
            })
        })
        .collect()
}

fn read_packet(line: &str) -> Option<Packet> {
    let mut fields = line.split_ascii_whitespace();
    let source: u32 = fields.next()?.parse().ok()?;
    let port = fields.nth(2)?.parse().ok()?;
    let protocol = fields.next()?.parse().ok()?;
    let port = if WITH_PORTS.contains(&protocol) { port } else { 0 };
    Some(Packet { source: Ipv4Addr::from(source).into(), protocol, port })
}

/// `n` filters made of a smaller set, and the packets that go with them.
///
/// Each filter is followed by its copies, in whose network bits a number has been added by
/// exclusive or, the same for all filters of one copy. So prefixes that were nested stay nested, inside
/// their copy, and the order of filters that overlap stays. Packet *i* goes to copy *i* modulo the
/// number of copies. Only IPv4.
#[must_use]
pub fn scale(filters: &[Filter], packets: &[Packet], n: usize) -> (Vec<Filter>, Vec<Packet>) {
    let copies = n.div_ceil(filters.len().max(1));
    let mut random = Random::new(0x5eed_0003);
    let masks: Vec<u32> =
        (0..copies).map(|copy| if copy == 0 { 0 } else { random.draw() as u32 }).collect();
    let moved = |address: IpAddr, mask: u32| match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ mask).into()),
        IpAddr::V6(_) => address,
    };
    let copied = filters.iter().flat_map(|filter| {
        masks.iter().map(move |mask| {
            let source = IpNet::new(moved(filter.source.addr(), *mask), filter.source.prefix_len());
            Filter { source: source.map_or(filter.source, |net| net.trunc()), ..*filter }
        })
    });
    let packets = packets.iter().zip(masks.iter().cycle());
    let packets = packets.map(|(p, mask)| Packet { source: moved(p.source, *mask), ..*p });
    (copied.take(n).collect(), packets.collect())
}

/// The same filter in IPv6: a prefix of *n* bits becomes one of 32 + *n* bits in 2001:db8::/32, a
/// single address a single address. What a filter matches stays the same.
#[must_use]
pub fn filter_to_ipv6(filter: &Filter) -> Filter {
    let IpNet::V4(v4) = filter.source else { return *filter };
    let len = if v4.prefix_len() == 32 { 128 } else { 32 + v4.prefix_len() };
    let net = Ipv6Net::new(to_ipv6(v4.addr()), len).map(|net| IpNet::V6(net.trunc()));
    Filter { source: net.unwrap_or(filter.source), ..*filter }
}

/// The same packet in IPv6.
#[must_use]
pub fn packet_to_ipv6(packet: &Packet) -> Packet {
    let IpAddr::V4(v4) = packet.source else { return *packet };
    Packet { source: to_ipv6(v4).into(), ..*packet }
}

/// 2001:db8, the IPv4 address, and an interface identifier that is a function of it.
fn to_ipv6(address: Ipv4Addr) -> Ipv6Addr {
    let bits = u32::from(address);
    // Two rounds spread the few bits that neighbours differ in.
    let mut random = Random::new(u64::from(bits) << 32 | u64::from(!bits));
    random.draw();
    let network = u128::from(IPV6_PREFIX) << 96 | u128::from(bits) << 64;
    (network | u128::from(random.draw())).into()
}

/// Packets at random, of which most filter sets know nothing: as many as `n`, TCP and UDP in turns.
#[must_use]
pub fn random_packets(n: usize, ipv6: bool) -> Vec<Packet> {
    let mut random = Random::new(0x5eed_0004);
    let packet = |i: usize| {
        let bits = random.draw();
        let source = Ipv4Addr::from(bits as u32);
        let packet = Packet {
            source: source.into(),
            protocol: WITH_PORTS[i % 2],
            port: (bits >> 40) as u16,
        };
        if ipv6 { packet_to_ipv6(&packet) } else { packet }
    };
    (0..n).map(packet).collect()
}

fn unspecified(like: &IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "\
@237.73.3.4/32	67.236.63.210/32	0 : 65535	1711 : 1712	0x06/0xFF	0x0000/0x0200	
@237.73.3.9/24	0.0.0.0/0	0 : 65535	0 : 65535	0x01/0xFF	0x0000/0x0000	

@0.0.0.0/0	67.236.63.0/24	53 : 53	0 : 65535	0x00/0x00	0x0000/0x0000	
";
    const TRACE: &str =
        "3980985092 1139556306 0 1711 6 4294967295 0\n3980985093\t2\t3\t4\t1\t0\t1\n";

    fn first(filters: &[Filter], packet: &Packet) -> Option<usize> {
        filters.iter().position(|filter| filter.matches(packet))
    }

    #[test]
    fn the_projection_keeps_source_protocol_and_destination_ports() {
        let filters = read_filters(SET).expect("filters");
        let lines: Vec<_> = filters.iter().map(Filter::to_line).collect();
        assert_eq!(
            lines,
            [
                "@237.73.3.4/32\t0.0.0.0/0\t0 : 65535\t1711 : 1712\t0x06/0xff",
                "@237.73.3.0/24\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x01/0xff",
                "@0.0.0.0/0\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x00/0x00",
            ]
        );
        let again = read_filters(&lines.join("\n")).expect("what we write");
        assert_eq!(again, filters);
        let packets = read_packets(TRACE).expect("packets");
        assert_eq!(packets[0].to_line(), "3980985092\t0\t0\t1711\t6");
        assert_eq!(packets[1].port, 0, "ICMP has no port");
        assert_eq!(
            packets.iter().map(|p| first(&filters, p)).collect::<Vec<_>>(),
            [Some(0), Some(1)]
        );
    }

    #[test]
    fn what_no_rule_can_say_is_refused_with_its_line() {
        let cases = [
            ("\n@1.0.0.0/8 0.0.0.0/0 0 : 65535 1 : 2 0x01/0xFF", "line 2: a rule has ports"),
            ("@1.0.0.0/8 0.0.0.0/0 0 : 65535 0 : 65535 0x06/0x0F", "neither 0x00 nor 0xFF"),
            ("@1.0.0.0/40 0.0.0.0/0 0 : 65535 0 : 65535 0x06/0xFF", "no IPv4 prefix"),
            ("1.0.0.0/8 0.0.0.0/0 0 : 65535 0 : 65535 0x06/0xFF", "begins with @"),
            ("@1.0.0.0/8 0.0.0.0/0 0 : 65535", "FROM : TO"),
        ];
        for (text, expected) in cases {
            let said = read_filters(text).expect_err(text);
            assert!(said.contains(expected), "{said}");
        }
        assert!(read_packets("1 2 3 4 5\n1 2 3\n").expect_err("short").starts_with("line 2: "));
    }

    #[test]
    fn ipv6_filters_match_what_their_originals_match() {
        let filters = read_filters(SET).expect("filters");
        let mut packets = read_packets(TRACE).expect("packets");
        packets.extend(random_packets(1000, false));
        let (filters6, packets6): (Vec<_>, Vec<_>) = (
            filters.iter().map(filter_to_ipv6).collect(),
            packets.iter().map(packet_to_ipv6).collect(),
        );
        assert_eq!(filters6[0].source.prefix_len(), 128);
        assert_eq!(filters6[1].source.prefix_len(), 56);
        for (packet, packet6) in packets.iter().zip(&packets6) {
            assert_eq!(first(&filters6, packet6), first(&filters, packet), "{packet:?}");
        }
    }

    #[test]
    fn a_scaled_set_begins_with_its_original_and_keeps_nesting() {
        let filters = &read_filters(SET).expect("filters")[..2];
        let packets = read_packets(TRACE).expect("packets");
        let (scaled, moved) = scale(filters, &packets, 5);
        assert_eq!(scaled.len(), 5);
        // Three copies, each filter before its own copies; the last one is cut off.
        assert_eq!((scaled[0], scaled[3]), (filters[0], filters[1]));
        assert_eq!(moved[0], packets[0]);
        for copy in 0..2 {
            assert!(scaled[3 + copy].source.contains(&scaled[copy].source.addr()), "copy {copy}");
        }
        assert_eq!(first(&scaled, &moved[1]), Some(4), "the second packet goes to the second copy");
    }
}
