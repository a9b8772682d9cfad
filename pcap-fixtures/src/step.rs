//! One step of a case.

use sgwall_packet::{PacketSpec, Timestamp};
use sgwall_rules::model::Policy;

use crate::world;

/// A step: when, and what.
pub(crate) struct Step {
    pub(crate) time: Timestamp,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// A packet, and the events that it must cause, in order; none if it is held.
    Packet { packet: Box<PacketSpec>, expected: Vec<String> },
    /// A change of the policy.
    Change(String),
}

impl std::str::FromStr for Step {
    type Err = String;

    /// `6.1 tcp X:5000 -> a:22 A => pass established`, `5 revoke sg-1 in tcp 22 from 0.0.0.0/0`.
    fn from_str(line: &str) -> Result<Self, String> {
        let (time, rest) = line.split_once(' ').ok_or("expected a time and what happens")?;
        let seconds: f64 = time.parse().map_err(|_| format!("{time:?} is no time"))?;
        let time = Timestamp::from_nanos((seconds * 1000.0).round() as i64 * 1_000_000);
        let Some((packet, expected)) = rest.split_once("=>") else {
            return Ok(Step { time, what: What::Change(rest.trim().to_owned()) });
        };
        let packet = with_addresses(packet);
        let packet = packet.parse().map_err(|e| format!("{packet:?}: {e}"))?;
        let expected = match expected.trim() {
            "held" => Vec::new(),
            events => events.split('|').map(|event| event.trim().to_owned()).collect(),
        };
        Ok(Step { time, what: What::Packet { packet: Box::new(packet), expected } })
    }
}

/// The text of a packet with addresses in place of names: `X:53` becomes `203.0.113.1:53`.
fn with_addresses(packet: &str) -> String {
    let word = |word: &str| {
        let (quote, word) = match word.split_once("=\"") {
            Some((quote, rest)) => (format!("{quote}=\""), rest),
            None => (String::new(), word),
        };
        let (word, end) = word.strip_suffix('"').map_or((word, ""), |word| (word, "\""));
        let (name, port) = match word.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (word, None),
        };
        let text = match (world::address(name), port) {
            (None, _) => word.to_owned(),
            (Some(address), None) => address.to_string(),
            (Some(address), Some(port)) if address.is_ipv6() => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
        };
        quote + &text + end
    };
    packet.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Changes the policy as a line says.
pub(crate) fn change(policy: &mut Policy, line: &str) -> Result<(), String> {
    let (verb, rest) = line.split_once(' ').ok_or_else(|| format!("{line:?}: no change"))?;
    let (what, detail) = rest.split_once(' ').unwrap_or((rest, ""));
    let interface = |policy: &mut Policy, id: &str| {
        policy.interfaces.iter().position(|i| i.id == id).ok_or(format!("no interface {id:?}"))
    };
    match verb {
        "authorize" => world::add_rule(policy, what, detail),
        "revoke" => world::remove_rule(policy, what, detail),
        "add-entry" => world::add_entry(policy, what, detail),
        "remove-entry" => world::remove_entry(policy, what, detail),
        "attach" => {
            let index = interface(policy, what)?;
            policy.interfaces[index].security_groups.push(detail.to_owned());
            Ok(())
        }
        "detach" => {
            let index = interface(policy, what)?;
            policy.interfaces[index].security_groups.retain(|id| id != detail);
            Ok(())
        }
        "unassign" => {
            let index = interface(policy, what)?;
            let address = world::address(detail).ok_or_else(|| format!("no address {detail:?}"))?;
            policy.interfaces[index].addresses.retain(|known| *known != address);
            Ok(())
        }
        "timeout" => {
            let index = interface(policy, what)?;
            let seconds = detail.parse().map_err(|_| format!("{detail:?} is no timeout"))?;
            policy.interfaces[index].timeouts.tcp_established = Some(seconds);
            Ok(())
        }
        _ => Err(format!("{verb:?} is no change")),
    }
}
