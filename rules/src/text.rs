//! Rules as one line of text, and the small notations that they share with policy files.
//!
//! ```text
//! ingress tcp 443 from 0.0.0.0/0
//! egress all to ::/0
//! ingress icmp 3/4 from sg-app
//! ingress 100 deny udp 1000-2000 from 203.0.113.0/24
//! ```
//!
//! The first word is the direction (`in` and `out` will do), an ACL entry's number and action
//! follow, then protocol and ports or type/code, then the peer: a range or address, a group
//! (`sg-…`) or a prefix list (`pl-…`).

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use sgwall_packet::protocol;

use crate::model::{AclAction, Direction, GroupRef, IcmpMatch, L4Match, Peer, PortRange};

/// What a one-line security group rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// Which list it belongs to.
    pub direction: Direction,
    /// Protocol and ports.
    pub matches: L4Match,
    /// The other end.
    pub peer: Peer,
}

/// What a one-line network ACL entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryText {
    /// Which list it belongs to.
    pub direction: Direction,
    /// Rule number, 1-32766.
    pub rule_number: u16,
    /// What it decides.
    pub action: AclAction,
    /// Protocol and ports.
    pub matches: L4Match,
    /// The other end.
    pub cidr: IpNet,
}

/// Why a line is no rule: a sentence with the word at fault and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

impl FromStr for RuleText {
    type Err = TextError;

    fn from_str(line: &str) -> Result<Self, TextError> {
        let mut words = line.split_whitespace();
        let direction = direction(words.next().unwrap_or_default())?;
        let (matches, peer) = matches_and_peer(words.collect(), direction)?;
        let peer = if peer.starts_with("sg-") {
            Peer::Group(GroupRef::local(peer))
        } else if peer.starts_with("pl-") {
            Peer::PrefixList(peer.to_owned())
        } else {
            Peer::Cidr(cidr(peer).map_err(TextError)?.0)
        };
        Ok(RuleText { direction, matches, peer })
    }
}

impl FromStr for EntryText {
    type Err = TextError;

    fn from_str(line: &str) -> Result<Self, TextError> {
        let mut words = line.split_whitespace();
        let direction = direction(words.next().unwrap_or_default())?;
        let number = words.next().unwrap_or_default();
        let rule_number = number
            .parse()
            .ok()
            .filter(|n| (1..=32766).contains(n))
            .ok_or_else(|| expected(number, "a rule number, 1-32766"))?;
        let action = match words.next().unwrap_or_default() {
            "allow" => AclAction::Allow,
            "deny" => AclAction::Deny,
            other => return Err(expected(other, "allow or deny")),
        };
        let (matches, peer) = matches_and_peer(words.collect(), direction)?;
        let cidr = cidr(peer).map_err(TextError)?.0;
        Ok(EntryText { direction, rule_number, action, matches, cidr })
    }
}

fn direction(word: &str) -> Result<Direction, TextError> {
    match word {
        "in" | "ingress" => Ok(Direction::Ingress),
        "out" | "egress" => Ok(Direction::Egress),
        other => Err(expected(other, "ingress or egress")),
    }
}

/// `tcp 443 from PEER`, already split.
fn matches_and_peer(words: Vec<&str>, direction: Direction) -> Result<(L4Match, &str), TextError> {
    let preposition = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let Some(((before, peer), matches)) =
        words.split_last_chunk::<2>().map(|(rest, &[a, b])| ((a, b), rest))
    else {
        return Err(TextError(format!("expected a protocol, then {preposition} and a peer")));
    };
    if before != preposition {
        return Err(expected(before, preposition));
    }
    let matches = match matches {
        ["proto", number] => l4(number, None, None, None),
        [protocol] => l4(protocol, None, None, None),
        [protocol @ ("tcp" | "udp"), ports] => l4(protocol, Some(ports), None, None),
        [protocol @ ("icmp" | "icmpv6"), what] => {
            let (kind, code) = what.split_once('/').unwrap_or((what, "-1"));
            let number = |text: &str| -> Result<i64, TextError> {
                text.parse().map_err(|_| expected(text, "an ICMP type or code, 0-255"))
            };
            l4(protocol, None, Some(number(kind)?), Some(number(code)?))
        }
        other => Err(format!("{:?} is no protocol with ports", other.join(" "))),
    };
    Ok((matches.map_err(TextError)?, peer))
}

fn expected(found: &str, what: &str) -> TextError {
    TextError(match found {
        "" => format!("expected {what}"),
        _ => format!("{found:?} is not {what}"),
    })
}

/// A protocol by name (`tcp`, `udp`, `icmp`, `icmpv6`, `all`) or number; `None` is all.
///
/// # Errors
/// A sentence with the value and what was expected.
pub(crate) fn protocol_number(text: &str) -> Result<Option<u8>, String> {
    match text {
        "all" | "-1" => Ok(None),
        "tcp" => Ok(Some(protocol::TCP)),
        "udp" => Ok(Some(protocol::UDP)),
        "icmp" => Ok(Some(protocol::ICMP)),
        "icmpv6" => Ok(Some(protocol::ICMPV6)),
        number => number.parse().map(Some).map_err(|_| {
            format!("{text:?} is not a protocol: tcp, udp, icmp, icmpv6, all or a number 0-255")
        }),
    }
}

/// The layer-4 part of a rule from its fields, by SEMANTICS 2.4: ports count for TCP and UDP,
/// type and code for ICMP and ICMPv6 (-1 is any), and neither for any other protocol.
///
/// # Errors
/// A sentence with the value and what was expected.
pub(crate) fn l4(
    protocol: &str,
    ports: Option<&str>,
    kind: Option<i64>,
    code: Option<i64>,
) -> Result<L4Match, String> {
    let icmp = || -> Result<IcmpMatch, String> {
        let octet = |value: Option<i64>, name: &str| match value {
            None | Some(-1) => Ok(None),
            Some(n) => u8::try_from(n)
                .map(Some)
                .map_err(|_| format!("{name} {n} is not in 0-255 (-1: any)")),
        };
        let (kind, code) = (octet(kind, "type")?, octet(code, "code")?);
        match (kind, code) {
            (None, Some(code)) => Err(format!("code {code} needs a type: with any type, any code")),
            (kind, code) => Ok(IcmpMatch { kind, code }),
        }
    };
    let range = || ports.map_or(Ok(PortRange::ALL), port_range);
    Ok(match protocol_number(protocol)? {
        None => L4Match::All,
        Some(protocol::TCP) => L4Match::Tcp(range()?),
        Some(protocol::UDP) => L4Match::Udp(range()?),
        Some(protocol::ICMP) => L4Match::Icmp(icmp()?),
        Some(protocol::ICMPV6) => L4Match::Icmpv6(icmp()?),
        Some(number) => L4Match::Other(number),
    })
}

/// The layer-4 part of a rule from the numbers in which the EC2 API states it. Both ends of the
/// port range are needed for TCP and UDP, and neither is looked at for protocols without ports.
///
/// # Errors
/// A sentence with the value and what was expected.
pub(crate) fn l4_of_numbers(
    protocol: &str,
    ports: (Option<i64>, Option<i64>),
    (kind, code): (Option<i64>, Option<i64>),
) -> Result<L4Match, String> {
    let range = || {
        let (Some(from), Some(to)) = ports else {
            return Err("TCP and UDP need both ends of a port range".to_owned());
        };
        match (u16::try_from(from), u16::try_from(to)) {
            (Ok(from), Ok(to)) if from <= to => Ok(PortRange { from, to }),
            (Ok(_), Ok(_)) => Err(format!("the port range {from}-{to} is reversed")),
            _ => Err(format!("the port range {from}-{to} is not within 0-65535")),
        }
    };
    Ok(match l4(protocol, None, kind, code)? {
        L4Match::Tcp(_) => L4Match::Tcp(range()?),
        L4Match::Udp(_) => L4Match::Udp(range()?),
        other => other,
    })
}

/// `443`, `7000-8000` or `all`.
///
/// # Errors
/// A sentence with the value and what was expected.
pub(crate) fn port_range(text: &str) -> Result<PortRange, String> {
    if matches!(text, "all" | "-1") {
        return Ok(PortRange::ALL);
    }
    let port = |part: &str| -> Result<u16, String> {
        part.trim().parse().map_err(|_| format!("{part:?} in {text:?} is not a port, 0-65535"))
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (port(from)?, port(to)?);
    match from <= to {
        true => Ok(PortRange { from, to }),
        false => Err(format!("the range {text:?} is reversed: write \"{to}-{from}\"")),
    }
}

/// A range such as `10.0.0.0/8`, or an address, which is the range of that one. The canonical
/// form, and whether host bits had to be cleared (SEMANTICS 2.8).
///
/// # Errors
/// A sentence with the value and what was expected.
pub(crate) fn cidr(text: &str) -> Result<(IpNet, bool), String> {
    let bad = |why: &dyn Display| format!("{text:?} is not a CIDR: {why}");
    let Some((address, len)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => Err(bad(&format!("for the one address write \"{text}/32\""))),
            Ok(IpAddr::V6(_)) => Err(bad(&format!("for the one address write \"{text}/128\""))),
            Err(_) => Err(bad(&"expected a range such as 10.0.0.0/8 or 2001:db8::/32")),
        };
    };
    let address: IpAddr =
        address.parse().map_err(|_| bad(&format!("{address:?} is no IPv4 or IPv6 address")))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let len = len
        .parse()
        .ok()
        .filter(|len| *len <= most)
        .ok_or_else(|| bad(&format!("the prefix length is 0-{most}")))?;
    let net = IpNet::new(address, len).map_err(|e| bad(&e))?;
    Ok((net.trunc(), net.trunc() != net))
}

/// A MAC address such as `02:00:5e:10:00:01`.
pub(crate) fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().filter(|part| part.len() == 2)?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_printed() {
        for line in [
            "ingress tcp 443 from 0.0.0.0/0",
            "egress tcp to 10.0.0.0/8",
            "ingress udp 7000-8000 from sg-app",
            "ingress icmp 3/4 from 2001:db8::/32",
            "ingress icmpv6 128 from ::/0",
            "egress all to pl-office",
            "ingress proto 47 from 203.0.113.1/32",
        ] {
            let rule: RuleText = line.parse().unwrap();
            let to = if rule.direction == Direction::Ingress { "from" } else { "to" };
            assert_eq!(format!("{} {} {to} {}", rule.direction, rule.matches, rule.peer), line);
        }
        let entry: EntryText = "in 100 deny tcp 80 from 10.0.0.0/8".parse().unwrap();
        assert_eq!((entry.rule_number, entry.action), (100, AclAction::Deny));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, error) in [
            ("", "expected ingress or egress"),
            ("sideways tcp from ::/0", "\"sideways\" is not ingress or egress"),
            ("in tcp 80", "\"tcp\" is not from"),
            ("in tcp 80 to ::/0", "\"to\" is not from"),
            ("in tcp 80-70 from ::/0", "the range \"80-70\" is reversed: write \"70-80\""),
            ("in tcp 65536 from ::/0", "\"65536\" in \"65536\" is not a port, 0-65535"),
            ("in icmp -1/0 from ::/0", "code 0 needs a type: with any type, any code"),
            ("in icmp 256 from ::/0", "type 256 is not in 0-255 (-1: any)"),
            (
                "in gre from ::/0",
                "\"gre\" is not a protocol: tcp, udp, icmp, icmpv6, all or a number 0-255",
            ),
            (
                "in all from 10.0.0.1",
                "\"10.0.0.1\" is not a CIDR: for the one address write \"10.0.0.1/32\"",
            ),
            ("in all from 10.0.0.0/33", "\"10.0.0.0/33\" is not a CIDR: the prefix length is 0-32"),
            (
                "in all from 10.0.0/8",
                "\"10.0.0/8\" is not a CIDR: \"10.0.0\" is no IPv4 or IPv6 address",
            ),
        ] {
            assert_eq!(line.parse::<RuleText>().unwrap_err().to_string(), error, "{line}");
        }
        assert_eq!(
            "in 32767 allow all from ::/0".parse::<EntryText>().unwrap_err().to_string(),
            "\"32767\" is not a rule number, 1-32766"
        );
    }

    #[test]
    fn host_bits_are_cleared_and_told() {
        assert_eq!(cidr("100.68.0.18/18"), Ok(("100.68.0.0/18".parse().unwrap(), true)));
        assert_eq!(cidr("100.68.0.0/18"), Ok(("100.68.0.0/18".parse().unwrap(), false)));
    }
}
