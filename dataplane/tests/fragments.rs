//! Virtual reassembly through the whole pipeline (SEMANTICS section 11).

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use sgwall_dataplane::{Attribution, Config, FrameInput, FullTable, Judge, Judgement, Pipeline};
use sgwall_packet::build::{self, IpFields, TcpFields};
use sgwall_packet::{Direction, FragmentInfo, LinkType, PacketSpec, TcpFlags, Timestamp};
use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};

/// Two interfaces in two subnets; `1` may send UDP 53 and TCP 80 to `2`, which takes UDP 53 alone.
const POLICY: &str = r#"
version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8::/56"]
[[subnet]]
id = "subnet-1"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:0:1::/64"]
[[subnet]]
id = "subnet-2"
vpc = "vpc-1"
cidrs = ["10.0.2.0/24", "2001:db8:0:2::/64"]
network_acl = "acl-2"
[[network_acl]]
id = "acl-2"
ingress = [{ rule = 1, action = "deny", protocol = "udp", ports = 99, cidr = "0.0.0.0/0" },
           { rule = 2, action = "allow", protocol = "all", cidr = "0.0.0.0/0" },
           { rule = 3, action = "allow", protocol = "all", cidr = "::/0" }]
egress = [{ rule = 1, action = "allow", protocol = "all", cidr = "0.0.0.0/0" }]
[[security_group]]
id = "sg-1"
egress = [{ protocol = "udp", ports = "53-99", cidr = "10.0.0.0/16" },
          { protocol = "tcp", ports = 80, cidr = "10.0.0.0/16" },
          { protocol = "udp", ports = "53-99", cidr = "2001:db8::/56" },
          { protocol = "tcp", ports = 80, cidr = "2001:db8::/56" }]
[[security_group]]
id = "sg-2"
ingress = [{ protocol = "udp", ports = "53-99", cidr = "10.0.0.0/16" },
           { protocol = "udp", ports = 53, cidr = "2001:db8::/56" }]
egress = []
[[interface]]
id = "eni-1"
subnet = "subnet-1"
addresses = ["10.0.1.10", "2001:db8:0:1::10"]
security_groups = ["sg-1"]
[[interface]]
id = "eni-2"
subnet = "subnet-2"
addresses = ["10.0.2.20", "2001:db8:0:2::20"]
security_groups = ["sg-2"]
"#;

fn compile(text: &str) -> Arc<CompiledPolicy> {
    let input = Input { name: "policy".into(), bytes: text.as_bytes() };
    let policy = load(&[input]).expect("a good policy").policy;
    Arc::new(CompiledPolicy::compile(&policy, Generation(0)))
}

fn judge() -> Judge {
    let config =
        Config { max_flows: 10_000, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
    Judge::new(Pipeline::new(compile(POLICY), config), Attribution::default())
}

/// Judges a bare IP packet: the token of each frame that something became of, and the reason.
fn words(
    judge: &mut Judge,
    token: u64,
    millis: i64,
    data: &[u8],
) -> Vec<(u64, bool, &'static str)> {
    let frame = FrameInput {
        token,
        link: Some(LinkType::RawIp),
        data,
        wire_len: data.len() as u32,
        time: Timestamp::from_nanos(millis * 1_000_000),
        decimals: 3,
        recorded: None,
    };
    let mut words = Vec::new();
    judge.judge(frame, &mut |event| {
        words.push(match event.judgement {
            Judgement::Verdict(v) => (event.frame.token, v.is_pass(), v.reason()),
            Judgement::Skip(reason) => (event.frame.token, false, reason.as_str()),
        });
    });
    words
}

/// Packets, each a millisecond after the one before, and every reason that each gives.
fn check(judge: &mut Judge, lines: &[(&str, &[&str])]) {
    check_at(judge, 0, lines);
}

fn check_at(judge: &mut Judge, start: i64, lines: &[(&str, &[&str])]) {
    for (n, (line, expected)) in (start..).zip(lines) {
        let packet = line.parse::<PacketSpec>().unwrap_or_else(|e| panic!("{line}: {e}")).to_ip();
        let found: Vec<_> = words(judge, n as u64, n, &packet).into_iter().map(|w| w.2).collect();
        assert_eq!(&found, expected, "{n}: {line}");
    }
}

const FOLLOWS: &str = "follows-first-fragment";

#[test]
fn each_side_has_its_own_verdict() {
    check(
        &mut judge(),
        &[
            (
                "udp 10.0.1.10:9 -> 10.0.2.20:53 len=64 frag=1:0+",
                &["allowed-tracked", "allowed-tracked"],
            ),
            ("udp 10.0.1.10:9 -> 10.0.2.20:53 len=8 frag=1:72", &[FOLLOWS, FOLLOWS]),
            // Passes out of the one, not into the other.
            ("tcp 10.0.1.10:9 -> 10.0.2.20:80 S len=64 frag=2:0+", &["allowed-tracked", "no-rule"]),
            ("tcp 10.0.1.10:9 -> 10.0.2.20:80 S len=8 frag=2:88", &[FOLLOWS, FOLLOWS]),
            // Does not leave the one.
            ("udp 10.0.1.10:9 -> 10.0.2.20:1 len=64 frag=3:0+", &["no-rule"]),
            ("udp 10.0.1.10:9 -> 10.0.2.20:1 len=8 frag=3:72", &[FOLLOWS]),
        ],
    );
}

#[test]
fn a_held_fragment_goes_its_whole_way() {
    for (port, first) in [
        (53, ["allowed-tracked", "allowed-tracked", FOLLOWS, FOLLOWS]),
        (99, ["allowed-tracked", "acl-deny", FOLLOWS, FOLLOWS]),
    ] {
        let later = format!("udp 10.0.1.10:9 -> 10.0.2.20:{port} len=8 frag=1:72");
        let begin = format!("udp 10.0.1.10:9 -> 10.0.2.20:{port} len=64 frag=1:0+");
        check(&mut judge(), &[(&later, &[]), (&begin, &first)]);
    }
}

/// The ACL refuses the first: the later ones follow, before it or after.
#[test]
fn a_refused_first_fragment_refuses_all() {
    check(
        &mut judge(),
        &[
            ("udp 203.0.113.1:9 -> 10.0.2.20:99 len=8 frag=1:72+", &[]),
            ("udp 203.0.113.1:9 -> 10.0.2.20:99 len=64 frag=1:0+", &["acl-deny", FOLLOWS]),
            ("udp 203.0.113.1:9 -> 10.0.2.20:99 len=8 frag=1:80", &[FOLLOWS]),
        ],
    );
}

/// Overlaps refuse the whole datagram, for both families: one byte, a hole filled twice, a piece
/// inside another, a second end, something beyond the end, another beginning.
#[test]
fn whatever_overlaps_is_refused_whole() {
    let overlaps: &[[(u32, u32, bool); 2]] = &[
        [(64, 16, true), (72, 16, true)],
        [(64, 16, true), (64, 8, true)],
        [(64, 32, true), (72, 8, true)],
        [(72, 8, true), (64, 32, true)],
        [(72, 8, false), (80, 8, true)],
        [(72, 8, false), (80, 8, false)],
        [(80, 8, false), (72, 8, false)],
        [(96, 8, true), (72, 8, false)],
        [(64, 16, true), (56, 8, true)],
    ];
    for (src, dst) in [("10.0.1.10", "10.0.2.20"), ("2001:db8:0:1::10", "2001:db8:0:2::20")] {
        for pieces in overlaps {
            for begin_at in 0..3 {
                let mut order = vec![pieces[0], pieces[1]];
                order.insert(begin_at, (0, 64, true));
                let mut judge = judge();
                let mut found = Vec::new();
                for (n, (offset, len, more)) in (0..).zip(order.into_iter().chain([(200, 8, true)]))
                {
                    let fragment = FragmentInfo { id: 5, offset, len, more };
                    let data = datagram(src, dst, 53, 64)[..64].to_vec();
                    let data = [data, vec![0; 64]].concat()[..len as usize].to_vec();
                    let packet = ip_fragment(src, dst, 17, fragment, &data);
                    found.extend(words(&mut judge, n as u64, n, &packet));
                }
                // All but the one that showed the contradiction may have passed before it.
                let overlapping = found.iter().filter(|w| w.2 == "frag-overlap").count();
                assert!(overlapping >= 2, "{src} {pieces:?} {begin_at}: {found:?}");
                let last = found.iter().filter(|w| w.0 == 3).map(|w| w.2).collect::<Vec<_>>();
                assert_eq!(last, ["frag-overlap"], "{src} {pieces:?} {begin_at}");
            }
        }
    }
}

/// A UDP datagram of `len` bytes, header included.
fn datagram(src: &str, dst: &str, port: u16, len: usize) -> Vec<u8> {
    build::udp(src.parse().unwrap(), dst.parse().unwrap(), (4000, port), &vec![7; len - 8])
}

fn ip_fragment(src: &str, dst: &str, proto: u8, fragment: FragmentInfo, data: &[u8]) -> Vec<u8> {
    let fields = IpFields { fragment: Some(fragment), ..IpFields::default() };
    build::ip(src.parse().unwrap(), dst.parse().unwrap(), proto, fields, data)
}

/// RFC 1858, RFC 3128: the first fragment must have the ports (and TCP's flags), and no later one
/// may begin where those were. What follows such a first is an orphan.
#[test]
fn tiny_fragments_are_refused() {
    for (src, dst) in [("10.0.1.10", "10.0.2.20"), ("2001:db8:0:1::10", "2001:db8:0:2::20")] {
        let mut judge = judge();
        let segment = build::tcp(
            src.parse().unwrap(),
            dst.parse().unwrap(),
            &TcpFields { src_port: 9, dst_port: 80, flags: TcpFlags::SYN, ..TcpFields::default() },
            &[0; 40],
        );
        for (token, len) in [(1, 8), (2, 16)] {
            let first = FragmentInfo { id: token, offset: 0, len: 0, more: true };
            let packet = ip_fragment(src, dst, 6, first, &segment[..len]);
            let found = words(&mut judge, token.into(), 1, &packet);
            assert_eq!(found, [(token.into(), false, "frag-tiny")], "{src}, {len} bytes");
            let rest = FragmentInfo { id: token, offset: len as u32, len: 0, more: false };
            let packet = ip_fragment(src, dst, 6, rest, &segment[len..]);
            let found = words(&mut judge, 10, 2, &packet);
            assert_eq!(found, [(10, false, "frag-tiny")], "{src}, from byte {len}");
        }
        // UDP has its ports in eight bytes, which is the least that a fragment carries.
        let first = FragmentInfo { id: 3, offset: 0, len: 0, more: true };
        let packet = ip_fragment(src, dst, 17, first, &datagram(src, dst, 53, 8));
        let found = words(&mut judge, 3, 3, &packet);
        assert_eq!(found.iter().map(|w| w.1).collect::<Vec<_>>(), [true, true], "{src}");
    }
}

/// An exact repeat passes as often as it comes, and does not count as another piece.
#[test]
fn duplicates_are_harmless() {
    check(
        &mut judge(),
        &[
            ("udp 203.0.113.1:9 -> 10.0.2.20:53 len=8 frag=1:72", &[]),
            ("udp 203.0.113.1:9 -> 10.0.2.20:53 len=8 frag=1:72", &[]),
            ("udp 203.0.113.1:9 -> 10.0.2.20:1 len=56 frag=1:0+", &["no-rule", FOLLOWS, FOLLOWS]),
            ("udp 203.0.113.1:9 -> 10.0.2.20:1 len=56 frag=1:0+", &["no-rule"]),
            ("udp 203.0.113.1:9 -> 10.0.2.20:1 len=8 frag=1:72", &[FOLLOWS]),
            // One that claims other ports is no repeat.
            ("udp 203.0.113.1:9 -> 10.0.2.20:53 len=56 frag=1:0+", &["frag-overlap"]),
            ("udp 203.0.113.1:9 -> 10.0.2.20:1 len=8 frag=1:72", &["frag-overlap"]),
        ],
    );
}

/// A first fragment that nothing follows is known for 30 s; a repeat does not prolong that.
#[test]
fn a_datagram_that_is_never_finished_is_forgotten() {
    let first = "udp 10.0.1.10:9 -> 10.0.2.20:53 len=64 frag=1:0+";
    let later = "udp 10.0.1.10:9 -> 10.0.2.20:53 len=8 frag=1:72+";
    let mut judge = judge();
    check_at(&mut judge, 0, &[(first, &["allowed-tracked", "allowed-tracked"])]);
    check_at(&mut judge, 20_000, &[(first, &["established", "established"])]);
    check_at(&mut judge, 29_999, &[(later, &[FOLLOWS, FOLLOWS]), (later, &[])]);
    // And a later one for two seconds, however many more come.
    check_at(&mut judge, 31_999, &[(later, &[])]);
    let orphans: &[_] = &["frag-orphan", "frag-orphan", "no-rule"];
    check_at(&mut judge, 32_000, &[("udp 10.0.1.10:9 -> 10.0.2.20:1", orphans)]);
}

/// RFC 6946: an atomic fragment is no fragment, even under the identification of one.
#[test]
fn an_atomic_fragment_has_nothing_to_do_with_its_namesake() {
    let (a, b) = ("[2001:db8:0:1::10]", "[2001:db8:0:2::20]");
    let packet =
        |port: u16, fragment: &str| format!("udp {a}:9 -> {b}:{port} len=64 frag={fragment}");
    check(
        &mut judge(),
        &[
            (&packet(53, "7:72"), &[]),
            (&packet(53, "7:0"), &["allowed-tracked", "allowed-tracked"]),
            (&packet(1, "7:0"), &["no-rule"]),
            (&packet(53, "7:0+"), &["established", "established", FOLLOWS, FOLLOWS]),
        ],
    );
}

/// SEMANTICS 11.2: the verdict on the first fragment holds for 30 s, whatever the policy says
/// meanwhile. A datagram is one packet, and half of one is of use to nobody.
#[test]
fn a_policy_change_does_not_divide_a_datagram() {
    let first = "udp 10.0.1.10:9 -> 10.0.2.20:53 len=64 frag=1:0+";
    let refused = "udp 10.0.1.10:9 -> 10.0.2.20:1 len=64 frag=2:0+";
    let mut judge = judge();
    check_at(
        &mut judge,
        0,
        &[
            (first, &["allowed-tracked", "allowed-tracked"]),
            (refused, &["no-rule"]),
            ("udp 10.0.1.10:9 -> 10.0.2.20:60 len=8 frag=3:72", &[]),
        ],
    );
    let closed =
        POLICY.replace("ports = \"53-99\"", "ports = 1").replace("ports = 53,", "ports = 1,");
    judge.set_policy(compile(&closed), Attribution::default());
    check_at(
        &mut judge,
        1000,
        &[
            ("udp 10.0.1.10:9 -> 10.0.2.20:53 len=8 frag=1:72", &[FOLLOWS, FOLLOWS]),
            ("udp 10.0.1.10:9 -> 10.0.2.20:1 len=8 frag=2:72", &[FOLLOWS]),
            // What still waits is judged by the policy under which its first fragment comes.
            ("udp 10.0.1.10:9 -> 10.0.2.20:60 len=64 frag=3:0+", &["no-rule", FOLLOWS]),
        ],
    );
}

/// The resolver's large answers come in fragments; only the first shows its port. Once, the later
/// ones waited for a first that had never been noted, and were dropped as orphans.
#[test]
fn fragments_of_exempt_datagrams_follow_too() {
    let first = "udp 10.0.0.2:53 -> 10.0.1.10:9 len=64 frag=1:0+";
    let later = "udp 10.0.0.2:53 -> 10.0.1.10:9 len=8 frag=1:72";
    check(&mut judge(), &[(first, &["vpc-service"]), (later, &[FOLLOWS])]);
    check(&mut judge(), &[(later, &[]), (first, &["vpc-service", FOLLOWS])]);
    // Another port of the same address is filtered, and so is what follows it.
    check(
        &mut judge(),
        &[
            ("udp 10.0.0.2:54 -> 10.0.1.10:9 len=64 frag=1:0+", &["no-rule"]),
            ("udp 10.0.0.2:54 -> 10.0.1.10:9 len=8 frag=1:72", &[FOLLOWS]),
        ],
    );
    // The router is exempt by its address alone today; its datagrams are known to nobody.
    let current = POLICY.replace("version = 1", "version = 1\ncompat = \"current\"");
    let mut judge = judge();
    judge.set_policy(compile(&current), Attribution::default());
    check(
        &mut judge,
        &[
            ("udp 10.0.1.1:9 -> 10.0.1.10:9 len=8 frag=1:72", &["vpc-router"]),
            ("udp 10.0.1.1:9 -> 10.0.1.10:9 len=64 frag=1:0+", &["vpc-router"]),
            ("udp 10.0.1.1:8 -> 10.0.1.10:9 len=64 frag=1:0+", &["vpc-router"]),
        ],
    );
}

/// DHCP goes by broadcast and multicast too, which a VPC carries nothing else by. Whether a later
/// fragment is DHCP only the first can tell, so it waits for it, from whatever address.
#[test]
fn fragments_of_a_dhcp_broadcast_follow_too() {
    let check = |direction, lines: &[(&str, &[&str])]| {
        let attribution = Attribution {
            only: Some(vec![0]),
            direction: Some(direction),
            ..Attribution::default()
        };
        let config =
            Config { max_flows: 10, full_table: FullTable::DropNew, hash_seed: [1, 2, 3, 4] };
        check(&mut Judge::new(Pipeline::new(compile(POLICY), config), attribution), lines);
    };
    for (direction, src, dst, port) in [
        (Direction::Egress, "0.0.0.0:68", "255.255.255.255", 67),
        (Direction::Egress, "[fe80::1]:546", "[ff02::1:2]", 547),
        (Direction::Ingress, "10.0.1.1:67", "255.255.255.255", 68),
    ] {
        let packet = |port, fragment: &str| format!("udp {src} -> {dst}:{port} {fragment}");
        let first = &packet(port, "len=64 frag=1:0+");
        let later = &packet(port, "len=8 frag=1:72");
        check(direction, &[(first, &["dhcp"]), (later, &[FOLLOWS])]);
        check(direction, &[(later, &[]), (first, &["dhcp", FOLLOWS])]);
        let other = &packet(9, "len=64 frag=1:0+");
        check(direction, &[(other, &["l2l3-unsupported"]), (later, &[FOLLOWS])]);
        check(direction, &[(later, &[]), (other, &["l2l3-unsupported", FOLLOWS])]);
    }
    let packet = |fragment: &str| format!("udp 0.0.0.0:9 -> 255.255.255.255:9 {fragment}");
    let (first, overlapping) = (&packet("len=64 frag=1:0+"), &packet("len=8 frag=1:64"));
    check(Direction::Egress, &[(overlapping, &[]), (first, &["l2l3-unsupported", "frag-overlap"])]);
    // To other groups, of other protocols and from elsewhere nothing can be DHCP: nothing waits.
    let refused: &[&str] = &["l2l3-unsupported"];
    for (direction, line) in [
        (Direction::Egress, "udp 10.0.1.10:68 -> 224.0.0.1:67 len=8 frag=1:72"),
        (Direction::Egress, "tcp 10.0.1.10:68 -> 255.255.255.255:67 len=8 frag=1:72"),
        (Direction::Ingress, "udp 10.0.1.9:67 -> 255.255.255.255:68 len=8 frag=1:72"),
    ] {
        check(direction, &[(line, refused)]);
    }
}

/// A datagram cut into pieces, in some order: who, protocol, destination port, pieces.
#[derive(Clone, Debug)]
struct Shuffled {
    ends: (&'static str, &'static str),
    protocol: u8,
    port: u16,
    /// In order: offset, bytes.
    pieces: Vec<(usize, usize)>,
    order: Vec<usize>,
}

fn shuffled() -> impl Strategy<Value = Shuffled> {
    let ends = prop_oneof![
        Just(("10.0.1.10", "10.0.2.20")),
        Just(("203.0.113.1", "10.0.2.20")),
        Just(("2001:db8:0:1::10", "2001:db8:0:2::20")),
    ];
    let protocol = prop_oneof![Just(17u8), Just(6), Just(47)];
    let port = prop_oneof![Just(53u16), Just(80), Just(99), Just(1)];
    // The first piece holds any header; 17 pieces are as many as may wait, and the first.
    let pieces = (3..40usize, proptest::collection::vec(1..60usize, 1..17), 1..9usize);
    (ends, protocol, port, pieces)
        .prop_map(|(ends, protocol, port, (first, others, last))| {
            let mut lengths = vec![first * 8];
            lengths.extend(others.iter().map(|eights| eights * 8));
            if let Some(end) = lengths.last_mut() {
                *end -= 8 - last;
            }
            let mut offset = 0;
            let pieces: Vec<_> = lengths
                .into_iter()
                .map(|len| {
                    offset += len;
                    (offset - len, len)
                })
                .collect();
            Shuffled { ends, protocol, port, order: (0..pieces.len()).collect(), pieces }
        })
        .prop_flat_map(|datagram| {
            let order = Just(datagram.order.clone()).prop_shuffle();
            (Just(datagram), order).prop_map(|(datagram, order)| Shuffled { order, ..datagram })
        })
}

/// By piece: whether it passed in the end.
fn fates(datagram: &Shuffled, order: &[usize]) -> Vec<bool> {
    let (src, dst): (IpAddr, IpAddr) =
        (datagram.ends.0.parse().unwrap(), datagram.ends.1.parse().unwrap());
    let len: usize = datagram.pieces.iter().map(|(_, len)| len).sum();
    let data = match datagram.protocol {
        17 => build::udp(src, dst, (4000, datagram.port), &vec![0; len - 8]),
        6 => {
            let fields = TcpFields {
                src_port: 4000,
                dst_port: datagram.port,
                flags: TcpFlags::SYN,
                ..TcpFields::default()
            };
            build::tcp(src, dst, &fields, &vec![0; len - 20])
        }
        _ => vec![0; len],
    };
    let mut judge = judge();
    let mut passed: Vec<Option<bool>> = vec![None; datagram.pieces.len()];
    // As slowly as the wait of two seconds allows.
    let gap = 1999 / order.len() as i64;
    for (n, &piece) in (0..).zip(order) {
        let (offset, len) = datagram.pieces[piece];
        let more = piece + 1 < datagram.pieces.len();
        let info = FragmentInfo { id: 77, offset: offset as u32, len: len as u32, more };
        let fields = IpFields { fragment: Some(info), ..IpFields::default() };
        let packet = build::ip(src, dst, datagram.protocol, fields, &data[offset..offset + len]);
        for (token, is_pass, _) in words(&mut judge, piece as u64, n * gap, &packet) {
            // Both sides must let it pass.
            let fate = passed[token as usize].get_or_insert(true);
            *fate &= is_pass;
        }
    }
    passed.into_iter().map(|fate| fate.expect("a verdict on every piece")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// In whatever order a datagram's fragments come, as long as none waits too long: all pass or
    /// none does, as in order.
    #[test]
    fn the_order_of_fragments_does_not_matter(datagram in shuffled()) {
        let in_order: Vec<_> = (0..datagram.pieces.len()).collect();
        let expected = fates(&datagram, &in_order);
        prop_assert!(expected.iter().all(|fate| *fate == expected[0]), "{:?}", expected);
        prop_assert_eq!(fates(&datagram, &datagram.order), expected);
    }
}
