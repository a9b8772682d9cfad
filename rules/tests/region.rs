//! Sets of traffic, held against the points that they are sets of.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use sgwall_rules::model::{IcmpMatch, L4Match, PortRange};
use sgwall_rules::region::{Block, Region};

/// Of a world so small that all of its points can be looked at.
fn block() -> impl Strategy<Value = Block> {
    let ports = (0u16..6, 0u16..6).prop_map(|(a, b)| PortRange { from: a.min(b), to: a.max(b) });
    let matches = prop_oneof![
        ports.clone().prop_map(L4Match::Tcp),
        ports.prop_map(L4Match::Udp),
        Just(L4Match::All),
        Just(L4Match::Icmp(IcmpMatch { kind: Some(0), code: None })),
        Just(L4Match::Icmp(IcmpMatch { kind: Some(0), code: Some(3) })),
        Just(L4Match::Other(47)),
    ];
    (matches, 0u8..8, 29u8..=32).prop_map(|(matches, host, len)| {
        let net = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, host), len).unwrap().trunc();
        Block::new(matches, IpNet::V4(net))
    })
}

fn points() -> impl Iterator<Item = (IpAddr, u8, u16)> {
    (0..8u8).flat_map(|host| {
        [1u8, 6, 17, 47].into_iter().flat_map(move |protocol| {
            [0, 1, 2, 3, 4, 5, 6, 256]
                .into_iter()
                .map(move |selector| (IpAddr::from([10, 0, 0, host]), protocol, selector))
        })
    })
}

proptest! {
    #[test]
    fn operations_are_those_of_sets(
        one in prop::collection::vec(block(), 0..6),
        other in prop::collection::vec(block(), 0..6),
    ) {
        let is_in = |blocks: &[Block], (a, p, s)| blocks.iter().any(|b| b.contains(a, p, s));
        let (left, right): (Region, Region) =
            (one.iter().copied().collect(), other.iter().copied().collect());
        let union = left.clone().union(&right);
        let minus = left.clone().minus(&right);
        let both = left.intersection(&right);
        let tidy = minus.clone().tidy();
        prop_assert!(tidy.blocks().len() <= minus.blocks().len());
        for point in points() {
            let (a, b) = (is_in(&one, point), is_in(&other, point));
            let (addr, protocol, selector) = point;
            let has = |region: &Region| region.contains(addr, protocol, selector);
            prop_assert_eq!(has(&left), a);
            prop_assert_eq!(has(&union), a || b);
            prop_assert_eq!(has(&minus), a && !b);
            prop_assert_eq!(has(&both), a && b);
            prop_assert_eq!(has(&tidy), a && !b);
            for region in [&left, &union, &minus, &both, &tidy] {
                let covering =
                    region.blocks().iter().filter(|b| b.contains(addr, protocol, selector));
                prop_assert!(covering.count() <= 1, "blocks overlap");
            }
        }
    }
}

#[test]
fn blocks_read_like_rules() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let tcp = |from, to| L4Match::Tcp(PortRange { from, to });
    let whole: Region = [Block::new(tcp(0, u16::MAX), net("10.0.0.0/8"))].into_iter().collect();
    let hole: Region = [Block::new(tcp(22, 22), net("10.0.0.0/9"))].into_iter().collect();
    let texts: Vec<_> =
        whole.minus(&hole).tidy().blocks().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["tcp 0-21 of 10.0.0.0/9", "tcp 23-65535 of 10.0.0.0/9", "tcp of 10.128.0.0/9"]
    );
    for (matches, range, text) in [
        (L4Match::All, "::/0", "all of ::/0"),
        (
            L4Match::Icmp(IcmpMatch { kind: Some(3), code: Some(4) }),
            "0.0.0.0/0",
            "icmp 3/4 of 0.0.0.0/0",
        ),
        (L4Match::Icmpv6(IcmpMatch { kind: Some(2), code: None }), "::/0", "icmpv6 2 of ::/0"),
        (L4Match::Other(47), "10.0.0.1/32", "gre of 10.0.0.1/32"),
    ] {
        assert_eq!(Block::new(matches, net(range)).to_string(), text);
    }
}
