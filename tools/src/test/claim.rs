//! What a test says of a whole capture: `every packet to 10.0.1.10:443 passes`.

use std::net::IpAddr;

use ipnet::IpNet;
use sgwall_dataplane::{Event, Judgement};
use sgwall_packet::{Direction, FiveTuple, Headers, protocol};
use sgwall_rules::compile::CompiledPolicy;

use super::expect::{Expectation, check_reason};
use crate::found::Fate;

/// A sentence about a capture.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    /// About the frame of this number, from 1 in the first capture.
    Frame(u64, Expectation),
    /// About all packets that are meant.
    Packets(Packets),
}

/// How many of which packets become what.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Packets {
    pub(super) quantity: Quantity,
    filter: Filter,
    fate: Fate,
    reason: Option<String>,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Quantity {
    Every,
    AtMost(Amount),
    AtLeast(Amount),
    Exactly(Amount),
}

/// Packets, or a share of those that are meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Amount {
    Count(u64),
    Percent(f64),
}

/// Which packets.
#[derive(Clone, Debug, Default, PartialEq)]
struct Filter {
    from: Endpoint,
    to: Endpoint,
    protocol: Option<u8>,
    direction: Option<Direction>,
    interface: Option<String>,
}

/// Where a packet comes from or goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Endpoint {
    net: Option<IpNet>,
    /// The first and the last.
    ports: Option<(u16, u16)>,
}

/// What a claim's sentences look like, for errors.
const FORM: &str = "write `every packet to 10.0.1.10:443 passes`, `nothing from 198.51.100.0/24 \
                    passes`, `at most 0.1% of packets are dropped`, `at least 3 udp packets pass` \
                    or `frame 17 => drop no-rule`";

impl Claim {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some((frame, expected)) = text.split_once("=>") {
            let number = frame.trim().strip_prefix("frame ").and_then(|n| n.trim().parse().ok());
            let number = number.filter(|number| *number > 0);
            let number = number.ok_or_else(|| format!("{:?}: {FORM}", frame.trim()))?;
            return Ok(Claim::Frame(number, Expectation::parse(expected)?));
        }
        let words: Vec<_> = text.split_whitespace().collect();
        let mut words = Words { words: &words, at: 0 };
        let quantity = words.quantity()?;
        words.skip_any(&["of"]);
        let mut filter = words.filter()?;
        words.skip_any(&["packet", "packets"]);
        filter = words.more_filter(filter)?;
        let (fate, reason) = words.fate()?;
        Ok(Claim::Packets(Packets { quantity, filter, fate, reason }))
    }
}

/// The words of a sentence that are left.
struct Words<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        let word = self.peek().ok_or_else(|| format!("{what} is missing at the end: {FORM}"))?;
        self.at += 1;
        Ok(word)
    }

    fn skip_any(&mut self, words: &[&str]) {
        if self.peek().is_some_and(|word| words.contains(&word)) {
            self.at += 1;
        }
    }

    fn quantity(&mut self) -> Result<Quantity, String> {
        let first = self.next("how many packets")?;
        let second = self.peek();
        Ok(match (first, second) {
            ("every" | "all", _) => Quantity::Every,
            ("nothing", _) => Quantity::AtMost(Amount::Count(0)),
            ("something" | "some", _) => Quantity::AtLeast(Amount::Count(1)),
            ("no", Some("more")) => {
                self.at += 1;
                match self.next("than")? {
                    "than" => Quantity::AtMost(self.amount()?),
                    other => return Err(format!("{other:?}: expected `no more than`")),
                }
            }
            ("no", _) => Quantity::AtMost(Amount::Count(0)),
            ("at", Some("most")) => {
                self.at += 1;
                Quantity::AtMost(self.amount()?)
            }
            ("at", Some("least")) => {
                self.at += 1;
                Quantity::AtLeast(self.amount()?)
            }
            ("exactly", _) => Quantity::Exactly(self.amount()?),
            (other, _) => {
                return Err(format!(
                    "{other:?}: expected every, nothing, no, some, at most, at least, exactly or \
                     frame; {FORM}"
                ));
            }
        })
    }

    fn amount(&mut self) -> Result<Amount, String> {
        let word = self.next("a number or a percentage")?;
        let amount = match word.strip_suffix('%') {
            Some(percent) => percent
                .parse()
                .ok()
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(Amount::Percent),
            None => word.parse().ok().map(Amount::Count),
        };
        amount.ok_or_else(|| format!("{word:?}: expected a number, or a percentage such as 0.1%"))
    }

    fn filter(&mut self) -> Result<Filter, String> {
        self.more_filter(Filter::default())
    }

    /// Goes on to the word that is none of a filter.
    fn more_filter(&mut self, mut filter: Filter) -> Result<Filter, String> {
        while let Some(word) = self.peek() {
            match word {
                "tcp" | "udp" | "icmp" | "icmpv6" => filter.protocol = protocol_number(word),
                "ingress" => filter.direction = Some(Direction::Ingress),
                "egress" => filter.direction = Some(Direction::Egress),
                "from" | "to" | "on" | "protocol" => {
                    self.at += 1;
                    let value = self.next(&format!("what follows `{word}`"))?;
                    match word {
                        "from" => filter.from = self.endpoint(value)?,
                        "to" => filter.to = self.endpoint(value)?,
                        "on" => filter.interface = Some(value.to_owned()),
                        _ => {
                            let number = protocol_number(value);
                            let number = number
                                .ok_or_else(|| format!("protocol {value}: no such protocol"))?;
                            filter.protocol = Some(number);
                        }
                    }
                    continue;
                }
                _ => break,
            }
            self.at += 1;
        }
        Ok(filter)
    }

    fn endpoint(&mut self, word: &str) -> Result<Endpoint, String> {
        if word == "port" || word == "ports" {
            let ports = self.next("the port")?;
            return Ok(Endpoint { net: None, ports: Some(port_range(ports)?) });
        }
        if let Some(net) = network(word) {
            return Ok(Endpoint { net, ports: None });
        }
        let wrong = || {
            format!("{word:?}: expected an address, a range, or either with :PORT or :FIRST-LAST")
        };
        let (net, ports) = word.rsplit_once(':').ok_or_else(wrong)?;
        let net = net.strip_prefix('[').and_then(|net| net.strip_suffix(']')).unwrap_or(net);
        let net = network(net).ok_or_else(wrong)?;
        Ok(Endpoint { net, ports: Some(port_range(ports)?) })
    }

    /// `passes`, `are dropped for no-rule`.
    fn fate(&mut self) -> Result<(Fate, Option<String>), String> {
        self.skip_any(&["is", "are"]);
        let fate = match self.next("`pass` or `dropped`")? {
            "pass" | "passes" | "passed" => Fate::Pass,
            "drop" | "drops" | "dropped" => Fate::Drop,
            other => return Err(format!("{other:?}: expected `passes` or `is dropped`; {FORM}")),
        };
        let reason = match self.peek() {
            None => None,
            Some("for" | "as") => {
                self.at += 1;
                Some(self.next("the reason")?.to_owned())
            }
            Some(other) => return Err(format!("{other:?}: expected the end, or `for REASON`")),
        };
        if let Some(reason) = &reason {
            check_reason(fate, reason)?;
        }
        match self.peek() {
            None => Ok((fate, reason)),
            Some(other) => Err(format!("{other:?}: expected the end")),
        }
    }
}

fn protocol_number(text: &str) -> Option<u8> {
    match text {
        "tcp" => Some(protocol::TCP),
        "udp" => Some(protocol::UDP),
        "icmp" => Some(protocol::ICMP),
        "icmpv6" => Some(protocol::ICMPV6),
        number => number.parse().ok(),
    }
}

/// `None`: it is none; `Some(None)`: any.
fn network(text: &str) -> Option<Option<IpNet>> {
    if text == "any" {
        return Some(None);
    }
    let host = text.parse().ok().map(|host: IpAddr| IpNet::from(host));
    host.or_else(|| text.parse().ok()).map(Some)
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("{text:?}: expected a port or FIRST-LAST, 0 to 65535")),
    }
}

impl Packets {
    /// Whether the claim speaks of the packet that this is the last word on.
    pub(super) fn means(&self, event: &Event<'_>, policy: &CompiledPolicy) -> bool {
        let Filter { from, to, protocol, direction, interface } = &self.filter;
        let side = event.side;
        if direction.is_some_and(|wanted| side.is_none_or(|(_, found)| found != wanted)) {
            return false;
        }
        let is_on = |wanted: &String| {
            let on = side.and_then(|(index, _)| policy.interfaces().get(index));
            on.is_some_and(|on| on.id == *wanted)
        };
        if !interface.as_ref().is_none_or(is_on) {
            return false;
        }
        if protocol.is_none() && *from == Endpoint::default() && *to == Endpoint::default() {
            return true;
        }
        let Some(tuple) = event.headers.map(|headers| tuple_of(headers, event)) else {
            return false;
        };
        protocol.is_none_or(|wanted| wanted == tuple.protocol)
            && from.is(tuple.src, tuple.src_port)
            && to.is(tuple.dst, tuple.dst_port)
    }

    /// Whether it becomes what the claim says of such packets.
    pub(super) fn is_fulfilled(&self, event: &Event<'_>) -> bool {
        let Judgement::Verdict(verdict) = event.judgement else { return false };
        (verdict.is_pass() == (self.fate == Fate::Pass))
            && self.reason.as_deref().is_none_or(|reason| reason == verdict.reason())
    }

    /// Whether it holds where so many packets are meant and so many of them fulfil it; if not, why.
    pub(super) fn judge(&self, meant: u64, fulfilled: u64) -> Result<(), String> {
        let word = match self.fate {
            Fate::Pass => "pass",
            _ => "are dropped",
        };
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!(" for {reason}"));
        if meant == 0 && !matches!(self.quantity, Quantity::AtMost(_)) {
            return Err("no packet is meant: the captures have none such".to_owned());
        }
        let compare = |amount: Amount| match amount {
            Amount::Count(count) => (fulfilled as f64).partial_cmp(&(count as f64)),
            Amount::Percent(percent) => {
                (fulfilled as f64 * 100.0).partial_cmp(&(percent * meant as f64))
            }
        };
        let holds = match self.quantity {
            Quantity::Every => fulfilled == meant,
            Quantity::AtMost(amount) => compare(amount).is_some_and(|order| order.is_le()),
            Quantity::AtLeast(amount) => compare(amount).is_some_and(|order| order.is_ge()),
            Quantity::Exactly(amount) => compare(amount).is_some_and(|order| order.is_eq()),
        };
        let share = 100.0 * fulfilled as f64 / meant.max(1) as f64;
        match holds {
            true => Ok(()),
            false => Err(format!(
                "of {meant} packet{} {fulfilled} {word}{reason} ({share:.3}%)",
                crate::wrap::plural(meant as usize)
            )),
        }
    }

    /// Whether a packet that fulfils it is what speaks against it, or one that does not.
    pub(super) fn offends(&self, is_fulfilled: bool) -> bool {
        match self.quantity {
            Quantity::AtMost(_) | Quantity::Exactly(_) => is_fulfilled,
            Quantity::Every | Quantity::AtLeast(_) => !is_fulfilled,
        }
    }
}

impl Endpoint {
    fn is(&self, addr: IpAddr, port: u16) -> bool {
        self.net.is_none_or(|net| net.contains(&addr))
            && self.ports.is_none_or(|(first, last)| first <= port && port <= last)
    }
}

/// Later fragments are of what their datagram's first told.
fn tuple_of(headers: &Headers, event: &Event<'_>) -> FiveTuple {
    let tuple = FiveTuple::from(headers);
    match event.judgement {
        Judgement::Verdict(verdict) => match verdict.first {
            Some(first) => FiveTuple {
                src_port: first.src_port,
                dst_port: first.dst_port,
                protocol: first.protocol,
                ..tuple
            },
            None => tuple,
        },
        Judgement::Skip(_) => tuple,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(text: &str) -> Packets {
        match Claim::parse(text).expect(text) {
            Claim::Packets(packets) => packets,
            Claim::Frame(..) => panic!("{text} is about a frame"),
        }
    }

    #[test]
    fn sentences_are_understood() {
        let web = Endpoint { net: Some("10.0.1.10/32".parse().unwrap()), ports: Some((443, 443)) };
        let every = packets("every packet to 10.0.1.10:443 passes");
        assert_eq!((every.quantity, every.fate), (Quantity::Every, Fate::Pass));
        assert_eq!(every.filter, Filter { to: web, ..Filter::default() });

        let nothing = packets("nothing from 198.51.100.0/24 passes");
        assert_eq!(nothing.quantity, Quantity::AtMost(Amount::Count(0)));
        assert_eq!(nothing.filter.from.net, Some("198.51.100.0/24".parse().unwrap()));

        let few = packets("no more than 0.1% dropped");
        assert_eq!(few.quantity, Quantity::AtMost(Amount::Percent(0.1)));
        assert_eq!((few.fate, few.filter), (Fate::Drop, Filter::default()));

        let all = packets(
            "at least 3 of udp packets ingress from [2001:db8::/32]:53 to ports 1024-65535 on eni-1 \
             are dropped for no-rule",
        );
        assert_eq!(all.quantity, Quantity::AtLeast(Amount::Count(3)));
        assert_eq!(all.filter.protocol, Some(17));
        assert_eq!(all.filter.from.net, Some("2001:db8::/32".parse().unwrap()));
        assert_eq!(all.filter.from.ports, Some((53, 53)));
        assert_eq!(all.filter.to, Endpoint { net: None, ports: Some((1024, 65535)) });
        assert_eq!(all.filter.direction, Some(Direction::Ingress));
        assert_eq!(all.filter.interface.as_deref(), Some("eni-1"));
        assert_eq!(all.reason.as_deref(), Some("no-rule"));

        let frame = Claim::parse("frame 17 => drop no-rule").unwrap();
        assert_eq!(frame, Claim::Frame(17, Expectation::parse("drop no-rule").unwrap()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, error) in [
            ("packets pass", "\"packets\": expected every, nothing"),
            ("every packet", "`pass` or `dropped` is missing at the end"),
            ("every packet towards 10.0.0.1 passes", "\"towards\": expected `passes`"),
            ("every packet to 10.0.0 passes", "\"10.0.0\": expected an address"),
            ("every packet to 10.0.0.1:99999 passes", "\"99999\": expected a port"),
            ("at most many packets pass", "\"many\": expected a number"),
            ("at most 101% of packets pass", "\"101%\": expected a number"),
            ("no more packets pass", "\"packets\": expected `no more than`"),
            ("every packet passes for no-rule", "\"no-rule\" is no reason to pass"),
            ("every packet passes today", "\"today\": expected the end"),
            ("frame 0 => pass", "\"frame 0\": write"),
            ("frame 3 => maybe", "\"maybe\": expected pass, drop"),
        ] {
            let found = Claim::parse(text).expect_err(text);
            assert!(found.contains(error), "{text}: {found}");
        }
    }

    #[test]
    fn amounts_are_compared_exactly() {
        for (text, meant, fulfilled, holds) in [
            ("every packet passes", 3, 3, true),
            ("every packet passes", 3, 2, false),
            ("every packet passes", 0, 0, false),
            ("nothing passes", 0, 0, true),
            ("nothing passes", 9, 1, false),
            ("some packet passes", 9, 1, true),
            ("some packet passes", 0, 0, false),
            ("no more than 0.1% dropped", 1000, 1, true),
            ("no more than 0.1% dropped", 999, 1, false),
            ("exactly 2 packets pass", 5, 2, true),
            ("exactly 2 packets pass", 5, 3, false),
            ("at least 50% of packets pass", 4, 2, true),
            ("at least 50% of packets pass", 5, 2, false),
        ] {
            let found = packets(text).judge(meant, fulfilled);
            assert_eq!(found.is_ok(), holds, "{text}: {found:?}");
        }
    }
}
