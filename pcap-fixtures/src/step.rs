//! One step of a case.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sgwall_packet::{PacketSpec, Timestamp};
use sgwall_rules::edit::{self, ApiError, EntryRequest, PermissionText};
use sgwall_rules::model::{Direction, FlowLimits, Interface, Policy, Timeouts};
use sgwall_rules::text::EntryText;

use crate::world;

/// A step: when, and what.
pub(crate) struct Step {
    pub(crate) time: Timestamp,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// A packet, and the events that it must cause, in order; none if it is held.
    Packet {
        packet: Box<PacketSpec>,
        /// The interface that puts it on the wire, if its address does not tell.
        via: Option<String>,
        expected: Vec<String>,
    },
    /// A change of the policy, and the code of the error that it must get; `None`: it is granted.
    Change { line: String, refused: Option<String> },
}

impl Step {
    /// `6.1 tcp X:5000 -> a:22 A => pass established`, `5 revoke sg-1 in tcp 22 from 0.0.0.0/0`.
    pub(crate) fn parse(line: &str, names: &BTreeMap<String, IpAddr>) -> Result<Self, String> {
        let (time, rest) = line.split_once(' ').ok_or("expected a time and what happens")?;
        let seconds: f64 = time.parse().map_err(|_| format!("{time:?} is no time"))?;
        let time = Timestamp::from_nanos((seconds * 1000.0).round() as i64 * 1_000_000);
        let Some((packet, expected)) = rest.split_once("=>") else {
            let what = What::Change { line: rest.trim().to_owned(), refused: None };
            return Ok(Step { time, what });
        };
        if let Some(code) = expected.trim().strip_prefix("error ") {
            let (line, refused) = (packet.trim().to_owned(), Some(code.to_owned()));
            return Ok(Step { time, what: What::Change { line, refused } });
        }
        let (packet, via) = match packet.trim_end().rsplit_once(" via ") {
            Some((packet, via)) => (packet, Some(via.to_owned())),
            None => (packet, None),
        };
        let packet = with_addresses(packet, names);
        let packet = packet.parse().map_err(|e| format!("{packet:?}: {e}"))?;
        let expected = match expected.trim() {
            "held" => Vec::new(),
            events => events.split('|').map(|event| event.trim().to_owned()).collect(),
        };
        Ok(Step { time, what: What::Packet { packet: Box::new(packet), via, expected } })
    }
}

/// The text of a packet with addresses in place of names: `X:53` becomes `203.0.113.1:53`.
fn with_addresses(packet: &str, names: &BTreeMap<String, IpAddr>) -> String {
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
        let address = names.get(name).copied().or_else(|| world::address(name));
        let text = match (address, port) {
            (None, _) => word.to_owned(),
            (Some(address), None) => address.to_string(),
            (Some(address), Some(port)) if address.is_ipv6() => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
        };
        quote + &text + end
    };
    packet.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Changes the policy as a line says, by a call of the EC2 API where it has one, and gives the
/// API's answer.
///
/// # Errors
/// What is wrong with the line itself.
pub(crate) fn change(policy: &mut Policy, line: &str) -> Result<Result<(), ApiError>, String> {
    let (verb, rest) = line.split_once(' ').ok_or_else(|| format!("{line:?}: no change"))?;
    let (what, detail) = rest.split_once(' ').unwrap_or((rest, ""));
    Ok(match verb {
        "authorize" => {
            let PermissionText { direction, permission } = detail.parse()?;
            edit::authorize(policy, what, direction, &[permission]).map(drop)
        }
        "revoke" => {
            let PermissionText { direction, permission } = detail.parse()?;
            edit::revoke(policy, what, direction, &[permission])
        }
        "delete-group" => edit::delete_security_group(policy, what),
        "delete-peering" => edit::delete_peering(policy, what),
        "add-entry" => {
            let entry: EntryText = detail.parse().map_err(|e| format!("{line:?}: {e}"))?;
            let request = EntryRequest::from(&entry);
            let acl = world::acl_id(what);
            edit::create_network_acl_entry(policy, &acl, entry.direction, &request)
        }
        "remove-entry" => {
            let expected = || format!("{detail:?}: expected in or out and a number");
            let (direction, number) = match detail.split_once(' ') {
                Some(("in", number)) => (Direction::Ingress, number),
                Some(("out", number)) => (Direction::Egress, number),
                _ => return Err(expected()),
            };
            let number = number.parse().map_err(|_| expected())?;
            edit::delete_network_acl_entry(policy, &world::acl_id(what), direction, number)
        }
        "attach" => {
            let mut groups = interface(policy, what)?.security_groups.clone();
            groups.push(detail.to_owned());
            modify_groups(policy, what, &groups)
        }
        "detach" => {
            let mut groups = interface(policy, what)?.security_groups.clone();
            groups.retain(|id| id != detail);
            modify_groups(policy, what, &groups)
        }
        "assign" => {
            let (name, may_move) = match detail.split_once(' ') {
                Some((name, "move")) => (name, true),
                _ => (detail, false),
            };
            match address(name)? {
                IpAddr::V4(address) => {
                    edit::assign_private_ip_addresses(policy, what, &[address], may_move)
                }
                IpAddr::V6(address) => edit::assign_ipv6_addresses(policy, what, &[address]),
            }
        }
        "unassign" => match address(detail)? {
            IpAddr::V4(address) => edit::unassign_private_ip_addresses(policy, what, &[address]),
            IpAddr::V6(address) => edit::unassign_ipv6_addresses(policy, what, &[address]),
        },
        "associate" => match detail.split_once(' ').map(|(own, to)| (address(own), address(to))) {
            Some((Ok(IpAddr::V4(own)), Ok(IpAddr::V4(to)))) => {
                edit::associate_address(policy, what, Some(own), to, false)
            }
            _ => return Err(format!("{detail:?}: expected a private and a public IPv4 address")),
        },
        "disassociate" => match address(what)? {
            IpAddr::V4(public) => edit::disassociate_address(policy, public),
            IpAddr::V6(_) => return Err(format!("{what:?}: expected an IPv4 address")),
        },
        "timeout" => {
            let seconds = detail.parse().map_err(|_| format!("{detail:?} is no timeout"))?;
            let timeouts = Timeouts { tcp_established: Some(seconds), ..Timeouts::default() };
            edit::set_interface_timeouts(policy, what, timeouts)
        }
        "limit" => {
            let (max_flows, reserved_flows) = match detail.split_once(' ') {
                Some((max, reserved)) => (number(max)?, number(reserved)?),
                None => (number(detail)?, None),
            };
            let found = policy.interfaces.iter_mut().find(|i| i.id == what);
            let found = found.ok_or_else(|| format!("no interface {what:?}"))?;
            found.flows = FlowLimits { max_flows, reserved_flows };
            Ok(())
        }
        "route" => {
            world::add_route(policy, what, detail)?;
            Ok(())
        }
        _ => return Err(format!("{verb:?} is no change")),
    })
}

/// A number of flows; `-` is none.
fn number(text: &str) -> Result<Option<u32>, String> {
    match text {
        "-" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("{text:?} is no number of flows")),
    }
}

/// The address of a name, or one that is written out.
fn address(text: &str) -> Result<IpAddr, String> {
    let known = world::address(text).or_else(|| text.parse().ok());
    known.ok_or_else(|| format!("no address {text:?}"))
}

fn interface<'p>(policy: &'p Policy, id: &str) -> Result<&'p Interface, String> {
    let mut interfaces = policy.interfaces.iter();
    interfaces.find(|i| i.id == id).ok_or_else(|| format!("no interface {id:?}"))
}

fn modify_groups(policy: &mut Policy, id: &str, groups: &[String]) -> Result<(), ApiError> {
    let groups: Vec<_> = groups.iter().map(String::as_str).collect();
    edit::modify_interface_groups(policy, id, &groups)
}
