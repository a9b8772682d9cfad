//! Lookups in batches, in step, say what lookups one by one say, and that is what the walk over every
//! entry says: of large classes and small ones, of either family and of both, in batches of any length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sgwall_rules::matcher::{Entry, Matcher};
use sgwall_rules::model::{IcmpMatch, L4Match, PortRange};

type Asked = (IpAddr, u8, u16);

/// Whether an entry matches, by the definition.
fn is_match(entry: &Entry, &(remote, protocol, selector): &Asked) -> bool {
    let is_in = |ports: PortRange| (ports.from..=ports.to).contains(&selector);
    entry.remote.contains(&remote)
        && match entry.matches {
            L4Match::All => true,
            L4Match::Tcp(ports) => protocol == 6 && is_in(ports),
            L4Match::Udp(ports) => protocol == 17 && is_in(ports),
            L4Match::Icmp(IcmpMatch { kind, .. }) => {
                protocol == 1 && kind.is_none_or(|kind| kind == (selector >> 8) as u8)
            }
            L4Match::Icmpv6(IcmpMatch { kind, .. }) => {
                protocol == 58 && kind.is_none_or(|kind| kind == (selector >> 8) as u8)
            }
            L4Match::Other(number) => protocol == number,
        }
}

#[test]
fn a_batch_says_what_one_by_one_says() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for rules in [0, 5, 60, 400] {
        // Few addresses, so that prefixes nest and have many ports; the edges of ports among them.
        let port =
            |bits: u64| [0, 22, 80, 443, 1023, 1024, 65_535, bits as u16][bits as usize >> 16 & 7];
        let address = |is_ipv6: bool, bits: u64| -> IpAddr {
            let (network, host) = (u128::from(bits & 3), u128::from(bits >> 60));
            match is_ipv6 {
                true => Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | network << 64 | host).into(),
                false => Ipv4Addr::from_bits(0x0a00_0000_u32 | bits as u32 & 0x0003_0003).into(),
            }
        };
        let entries: Vec<_> = (0..rules)
            .map(|rank| {
                let remote = address(rank % 3 == 0, random());
                let bits = random();
                let len = if remote.is_ipv6() { 40 + bits % 89 } else { 6 + bits % 27 };
                let (from, to) = (port(bits), port(bits >> 3));
                let ports = PortRange { from: from.min(to), to: from.max(to) };
                let kind = Some((bits >> 56) as u8);
                let matches = match bits >> 5 & 15 {
                    0 if rank % 16 == 0 => L4Match::All,
                    1 => L4Match::Icmp(IcmpMatch { kind, code: None }),
                    2 => L4Match::Icmpv6(IcmpMatch { kind: None, code: None }),
                    3 => L4Match::Other(47),
                    4..=7 => L4Match::Udp(ports),
                    _ => L4Match::Tcp(ports),
                };
                let remote = IpNet::new(remote, len as u8).expect("a length that fits").trunc();
                Entry { remote, matches, rank }
            })
            .collect();
        let matcher = Matcher::new(&entries);
        let mut asked: Vec<Asked> = Vec::new();
        for at in 0..600_u64 {
            let selector = port(random());
            // The first third are IPv4, the second IPv6, the last both.
            let is_ipv6 = at / 200 == 1 || at / 200 == 2 && at % 3 == 0;
            asked.push((
                address(is_ipv6, random()),
                [6, 17, 1, 58, 47, 50][at as usize % 6],
                selector,
            ));
        }
        let walked: Vec<_> = asked
            .iter()
            .map(|asked| entries.iter().find(|entry| is_match(entry, asked)).map(|e| e.rank))
            .collect();
        for (asked, walked) in asked.iter().zip(&walked) {
            assert_eq!(matcher.lookup(&asked.0, asked.1, asked.2), *walked, "{asked:?}");
        }
        for len in [1, 3, 16, 17, 40, 200, 600] {
            for (asked, walked) in asked.chunks(len).zip(walked.chunks(len)) {
                let mut found = vec![None; asked.len()];
                matcher.lookup_batch(asked, &mut found);
                assert_eq!(found, walked, "{asked:?}");
            }
        }
    }
}
