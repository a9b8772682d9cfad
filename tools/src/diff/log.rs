//! Flow logs in the format of Amazon VPC, read for the flows that they tell of.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use sgwall_packet::{Direction, PacketSpec, protocol};
use sgwall_rules::compile::CompiledPolicy;

use super::flows::Begun;
use crate::failure::Failure;

/// The fields of version 2, which a log without a heading has.
const VERSION_2: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol \
                         packets bytes start end action log-status";
const SYN: u8 = 2;
const ACK: u8 = 16;

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) flows: Vec<Begun>,
    pub(super) notes: Vec<String>,
}

/// Where the fields stand that are needed.
struct Columns(HashMap<String, usize>);

/// Both directions of a flow, told by its ends in order.
type Ends = (String, u8, (IpAddr, u16), (IpAddr, u16));

/// Reads a log; `policy` tells which way a record goes where the log does not.
pub(super) fn read(path: &Path, policy: &CompiledPolicy) -> Result<Log, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Io(format!("cannot read {}: {error}", path.display())))?;
    parse(&text, policy)
        .map_err(|(line, fault)| Failure::Usage(format!("{}:{line}: {fault}", path.display())))
}

fn parse(text: &str, policy: &CompiledPolicy) -> Result<Log, (usize, String)> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).peekable();
    let has_heading = lines.peek().is_some_and(|(_, line)| line.contains("srcaddr"));
    let heading = match has_heading {
        true => lines.next().map_or((1, VERSION_2), |(n, line)| (n, line)),
        false => (1, VERSION_2),
    };
    let columns = Columns::new(heading.1).map_err(|fault| (heading.0, fault))?;
    let (mut log, mut known) = (Log::default(), HashMap::<Ends, usize>::new());
    let (mut empty, mut strange, mut queries) = (0, 0, 0);
    for (number, line) in lines {
        let fields: Vec<_> = line.split_whitespace().collect();
        let get = |name: &str| columns.get(&fields, name);
        if get("srcaddr").is_none_or(|src| src == "-") {
            empty += 1;
            continue;
        }
        let record = record(&get, policy).map_err(|fault| (number, fault))?;
        let Some((record, flags)) = record else {
            strange += 1;
            continue;
        };
        queries += u64::from(matches!(record.packet.protocol, protocol::ICMP | protocol::ICMPV6));
        let packet = &record.packet;
        let (one, other) = ((packet.src, packet.ports.0), (packet.dst, packet.ports.1));
        let ends = (record.interface.clone(), packet.protocol, one.min(other), one.max(other));
        match known.get(&ends).copied() {
            None => {
                known.insert(ends, log.flows.len());
                log.flows.push(begun_by(record, flags));
            }
            Some(index) => {
                let flow = &mut log.flows[index];
                flow.packets += record.packets;
                flow.bytes += record.bytes;
                // A SYN without ACK tells who began, whatever was taken for it before.
                if flags.is_some_and(|flags| flags & (SYN | ACK) == SYN) {
                    (flow.direction, flow.packet) = (record.direction, record.packet);
                }
            }
        }
    }
    let mut note = |count: u64, text: &str| {
        if count > 0 {
            log.notes.push(format!("{count} {text}"));
        }
    };
    note(empty, "records without traffic (NODATA, SKIPDATA)");
    note(strange, "records of interfaces that the policy does not have were left out");
    note(queries, "records of ICMP: the log has no types, so they are taken for echo requests");
    Ok(log)
}

impl Columns {
    fn new(heading: &str) -> Result<Self, String> {
        let names = heading.split_whitespace().map(|name| name.replace('_', "-"));
        let columns = Columns(names.enumerate().map(|(n, name)| (name, n)).collect());
        let needed = ["interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol"];
        let missing: Vec<_> =
            needed.into_iter().filter(|name| !columns.0.contains_key(*name)).collect();
        match missing.is_empty() {
            true => Ok(columns),
            false => Err(format!("the log lacks the fields {}", missing.join(", "))),
        }
    }

    fn get<'a>(&self, fields: &[&'a str], name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(|column| fields.get(*column)).copied()
    }
}

/// A record with its TCP flags, if the log has them; `None`: of an interface that is not known.
fn record<'a>(
    get: &impl Fn(&str) -> Option<&'a str>,
    policy: &CompiledPolicy,
) -> Result<Option<(Begun, Option<u8>)>, String> {
    let number = |name: &str| -> Result<u64, String> {
        let text = get(name).unwrap_or("0");
        match text {
            "-" => Ok(0),
            text => text.parse().map_err(|_| format!("{name} {text:?} is no number")),
        }
    };
    let address = |name: &str| -> Result<IpAddr, String> {
        let text = get(name).unwrap_or_default();
        text.parse().map_err(|_| format!("{name} {text:?} is no address"))
    };
    let port = |name: &str| -> Result<u16, String> {
        number(name)?.try_into().map_err(|_| format!("{name} is no port"))
    };
    let interface = get("interface-id").unwrap_or_default();
    let Some(index) = policy.interface_by_id(interface) else { return Ok(None) };
    let (src, dst) = (address("srcaddr")?, address("dstaddr")?);
    if src.is_ipv4() != dst.is_ipv4() {
        return Err("srcaddr and dstaddr are of different families".to_owned());
    }
    let direction = match get("flow-direction") {
        Some("ingress") => Direction::Ingress,
        Some("egress") => Direction::Egress,
        _ => match policy.interfaces().get(index).is_some_and(|i| i.owns(&dst)) {
            true => Direction::Ingress,
            false => Direction::Egress,
        },
    };
    let number_of = number("protocol")?;
    let protocol = u8::try_from(number_of).map_err(|_| format!("protocol {number_of}"))?;
    let flags = match get("tcp-flags") {
        None | Some("-") => None,
        Some(_) => Some(number("tcp-flags")? as u8),
    };
    let packet = first_packet(protocol, (src, port("srcport")?), (dst, port("dstport")?));
    let begun = Begun {
        interface: interface.to_owned(),
        direction,
        packet,
        packets: number("packets")?.max(1),
        bytes: number("bytes")?,
    };
    Ok(Some((begun, flags)))
}

/// The packet that begins a flow.
pub(super) fn first_packet(number: u8, src: (IpAddr, u16), dst: (IpAddr, u16)) -> PacketSpec {
    let has_ports = matches!(number, protocol::TCP | protocol::UDP);
    let ports = if has_ports { (src.1, dst.1) } else { (0, 0) };
    PacketSpec { ports, ..PacketSpec::first(number, src.0, dst.0) }
}

/// The flow of a record that is the first of its flow. Who began it is told by flags; without, the
/// end with the lower port is taken for the server.
fn begun_by(record: Begun, flags: Option<u8>) -> Begun {
    let (from, to) = record.packet.ports;
    let is_answer = match flags {
        Some(flags) if flags & SYN != 0 => flags & ACK != 0,
        _ => from < to,
    };
    if !is_answer {
        return record;
    }
    let Begun { interface, direction, packet, packets, bytes } = record;
    let direction = match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    let packet = first_packet(packet.protocol, (packet.dst, to), (packet.src, from));
    Begun { interface, direction, packet, packets, bytes }
}

#[cfg(test)]
mod tests {
    use sgwall_rules::compile::Generation;
    use sgwall_rules::load::{Input, load};

    use super::*;

    fn policy() -> CompiledPolicy {
        let bytes = include_bytes!("../../example/policy.toml");
        let loaded = load(&[Input { name: "example".into(), bytes }]).expect("a good policy");
        CompiledPolicy::compile(&loaded.policy, Generation(0))
    }

    #[test]
    fn both_directions_are_one_flow_of_whoever_began_it() {
        let text = "\
2 1 eni-web 10.0.1.10 198.51.100.7 443 40001 6 2 1180 0 60 ACCEPT OK
2 1 eni-web 198.51.100.7 10.0.1.10 40001 443 6 3 300 0 60 ACCEPT OK
2 1 eni-web 10.0.1.10 198.51.100.9 5000 53 17 1 60 0 60 ACCEPT OK
2 1 eni-other 10.0.9.9 198.51.100.9 5000 53 17 1 60 0 60 ACCEPT OK
2 1 eni-web - - - - - - - 0 60 - NODATA
2 1 eni-web 198.51.100.7 10.0.1.10 0 0 1 1 84 0 60 REJECT OK
";
        let log = parse(text, &policy()).expect("a good log");
        let seen: Vec<_> = log
            .flows
            .iter()
            .map(|flow| (flow.direction, flow.packet.ports, flow.packets, flow.bytes))
            .collect();
        let expected = [
            (Direction::Ingress, (40001, 443), 5, 1480),
            (Direction::Egress, (5000, 53), 1, 60),
            (Direction::Ingress, (0, 0), 1, 84),
        ];
        assert_eq!(seen, expected);
        assert_eq!(log.notes.len(), 3, "{:?}", log.notes);
    }

    #[test]
    fn flags_tell_who_began_against_the_ports() {
        let text = "\
interface-id srcaddr dstaddr srcport dstport protocol tcp-flags flow-direction packets bytes
eni-web 10.0.1.10 198.51.100.7 22 4000 6 2 egress 1 40
eni-web 198.51.100.7 10.0.1.10 4000 22 6 18 ingress 1 40
";
        let log = parse(text, &policy()).expect("a good log");
        assert_eq!(log.flows.len(), 1);
        assert_eq!(log.flows[0].direction, Direction::Egress);
        assert_eq!(log.flows[0].packet.ports, (22, 4000));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for (text, line, expected) in [
            ("interface-id srcaddr\nx y", 1, "the log lacks the fields dstaddr, srcport"),
            ("2 1 eni-web 10.0.1 1.2.3.4 1 2 6 1 1 0 0 ACCEPT OK", 1, "srcaddr \"10.0.1\""),
            ("\n2 1 eni-web 10.0.1.1 ::1 1 2 6 1 1 0 0 ACCEPT OK", 2, "different families"),
            ("2 1 eni-web 10.0.1.1 1.2.3.4 70000 2 6 1 1 0 0 ACCEPT OK", 1, "srcport is no port"),
            ("2 1 eni-web 10.0.1.1 1.2.3.4 x 2 6 1 1 0 0 ACCEPT OK", 1, "srcport \"x\""),
        ] {
            let (at, fault) = parse(text, &policy()).expect_err(text);
            assert!(at == line && fault.contains(expected), "{text}: {at} {fault}");
        }
    }
}
