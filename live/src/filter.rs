//! Which flows or verdicts somebody means: words such as `protocol=tcp addr=10.0.0.0/8 port=443`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sgwall_packet::{FiveTuple, protocol};

use crate::trace::Record;

/// All that is said must hold; what is not said may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The interface's id. Compared by whoever knows ids.
    pub interface: Option<String>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source, as (first, last) address.
    pub src: Option<Range>,
    /// Destination.
    pub dst: Option<Range>,
    /// Either end.
    pub addr: Option<Range>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// Either port.
    pub port: Option<u16>,
    /// State of a tracked flow (`established`, `syn-sent`, `stream` …).
    pub state: Option<String>,
    /// `pass` or `drop`.
    pub verdict: Option<String>,
    /// Reason of a verdict.
    pub reason: Option<String>,
}

/// Addresses from the first to the last, of one family.
pub type Range = (IpAddr, IpAddr);

/// What is wrong with a filter's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

const KEYS: &str =
    "interface, protocol, src, dst, addr, sport, dport, port, state, verdict, reason";

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Filter::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| {
                FilterError(format!("{word:?} is not KEY=VALUE; the keys are {KEYS}"))
            })?;
            let wrong = |what: &str| FilterError(format!("{key}={value}: {value:?} is not {what}"));
            let port = || value.parse().map_err(|_| wrong("a port, 0-65535"));
            let range = || range(value).ok_or_else(|| wrong("an address or a range"));
            let word = || Some(value.to_owned());
            match key {
                "interface" => filter.interface = word(),
                "protocol" => {
                    let number = protocol_number(value);
                    filter.protocol = Some(number.ok_or_else(|| wrong("a protocol"))?);
                }
                "src" => filter.src = Some(range()?),
                "dst" => filter.dst = Some(range()?),
                "addr" => filter.addr = Some(range()?),
                "sport" => filter.sport = Some(port()?),
                "dport" => filter.dport = Some(port()?),
                "port" => filter.port = Some(port()?),
                "state" => filter.state = word(),
                "verdict" if matches!(value, "pass" | "drop") => filter.verdict = word(),
                "verdict" => return Err(wrong("pass or drop")),
                "reason" => filter.reason = word(),
                _ => {
                    return Err(FilterError(format!("{key:?} is no key; the keys are {KEYS}")));
                }
            }
        }
        Ok(filter)
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

/// `10.0.0.1`, `10.0.0.0/8`.
fn range(text: &str) -> Option<Range> {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr.parse().ok()?, Some(len.parse::<u32>().ok()?)),
        None => (text.parse().ok()?, None),
    };
    match addr {
        IpAddr::V4(v4) => {
            let host = 32u32.checked_sub(len.unwrap_or(32))?;
            let mask = u32::MAX.checked_shl(host).unwrap_or(0);
            let first = u32::from(v4) & mask;
            Some((IpAddr::V4(first.into()), IpAddr::V4((first | !mask).into())))
        }
        IpAddr::V6(v6) => {
            let host = 128u32.checked_sub(len.unwrap_or(128))?;
            let mask = u128::MAX.checked_shl(host).unwrap_or(0);
            let first = u128::from(v6) & mask;
            Some((IpAddr::V6(first.into()), IpAddr::V6((first | !mask).into())))
        }
    }
}

fn within(range: Option<Range>, addr: IpAddr) -> bool {
    range.is_none_or(|(first, last)| {
        first.is_ipv4() == addr.is_ipv4() && first <= addr && addr <= last
    })
}

impl Filter {
    /// Whether a five-tuple is meant.
    #[must_use]
    pub fn passes(&self, tuple: &FiveTuple) -> bool {
        let is = |wanted: Option<u16>, port| wanted.is_none_or(|wanted| wanted == port);
        self.protocol.is_none_or(|wanted| wanted == tuple.protocol)
            && within(self.src, tuple.src)
            && within(self.dst, tuple.dst)
            && (within(self.addr, tuple.src) || within(self.addr, tuple.dst))
            && is(self.sport, tuple.src_port)
            && is(self.dport, tuple.dst_port)
            && (is(self.port, tuple.src_port) || is(self.port, tuple.dst_port))
    }

    /// Whether anything is said of the five-tuple.
    fn asks_for_tuple(&self) -> bool {
        self.protocol.is_some()
            || self.src.is_some()
            || self.dst.is_some()
            || self.addr.is_some()
            || self.sport.is_some()
            || self.dport.is_some()
            || self.port.is_some()
    }

    /// Whether a verdict is meant; its interface is not looked at.
    #[must_use]
    pub fn passes_record(&self, record: &Record) -> bool {
        let word = if record.verdict.is_pass() { "pass" } else { "drop" };
        let tuple = match &record.tuple {
            Some(tuple) => self.passes(tuple),
            None => !self.asks_for_tuple(),
        };
        tuple
            && self.verdict.as_deref().is_none_or(|wanted| wanted == word)
            && self.reason.as_deref().is_none_or(|wanted| wanted == record.verdict.reason())
            && self.state.as_deref().is_none_or(|wanted| {
                record.verdict.state.is_some_and(|state| state.as_str() == wanted)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: &str, dst: &str, ports: (u16, u16), protocol: u8) -> FiveTuple {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        FiveTuple { src, dst, src_port: ports.0, dst_port: ports.1, protocol }
    }

    #[test]
    fn what_is_said_must_hold() {
        let tcp = tuple("10.0.0.1", "203.0.113.9", (5000, 443), 6);
        let v6 = tuple("2001:db8::1", "2001:db8::2", (53, 4000), 17);
        for (text, passes_tcp, passes_v6) in [
            ("", true, true),
            ("protocol=tcp", true, false),
            ("protocol=17", false, true),
            ("src=10.0.0.0/8", true, false),
            ("dst=10.0.0.0/8", false, false),
            ("addr=203.0.113.9", true, false),
            ("addr=0.0.0.0/0", true, false),
            ("addr=2001:db8::/64", false, true),
            ("port=443", true, false),
            ("sport=443", false, false),
            ("dport=4000", false, true),
            ("protocol=udp port=53 src=2001:db8::1", false, true),
        ] {
            let filter: Filter = text.parse().unwrap();
            assert_eq!(
                (filter.passes(&tcp), filter.passes(&v6)),
                (passes_tcp, passes_v6),
                "{text}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, expected) in [
            ("tcp", "\"tcp\" is not KEY=VALUE"),
            ("colour=red", "\"colour\" is no key"),
            ("port=70000", "\"70000\" is not a port"),
            ("src=10.0.0.0/33", "is not an address or a range"),
            ("src=10.0.0", "is not an address or a range"),
            ("protocol=quic", "is not a protocol"),
            ("verdict=maybe", "is not pass or drop"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
