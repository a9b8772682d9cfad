//! Real captures, rewritten so that their busiest host is the instance.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sgwall_netio::capture;
use sgwall_packet::{Direction, Frame, Headers, Transport, parse};

/// The bare IP packets of a capture.
pub(crate) type Packets = Vec<(Headers, Vec<u8>)>;

/// Packets of one capture at the most: tags are 16 bits.
const MOST: usize = 5000;

/// The suite's captures, and those of the directory that `SGWALL_CAPTURES` names.
pub(crate) fn all() -> Vec<(String, Packets)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let more = std::env::var_os("SGWALL_CAPTURES").map(PathBuf::from);
    let mut paths = Vec::new();
    for dir in std::iter::once(own).chain(more) {
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        paths.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "pcap" || e == "pcapng"));
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let read = paths.iter().map(|path| (name(path), packets(path)));
    read.filter(|(_, packets)| !packets.is_empty()).collect()
}

/// Whole packets that a router forwards: fragments are reassembled by the kernel first, what is
/// longer than its interface or cut by the capture cannot be sent, and extension headers are read
/// differently.
fn packets(path: &Path) -> Packets {
    let mut packets = Vec::new();
    let Ok(mut reader) = capture::open(path) else { return packets };
    while let Ok(Some(packet)) = reader.next_packet() {
        let Some(link) = packet.link.known() else { continue };
        let Ok(Frame::Ip(headers)) = parse(link, packet.data, packet.wire_len as usize) else {
            continue;
        };
        let start = usize::from(headers.ip_offset);
        let Some(bytes) = packet.data.get(start..start + headers.ip_len as usize) else { continue };
        let header_len = usize::from(headers.transport_offset - headers.ip_offset);
        let is_plain = header_len == if headers.is_ipv6() { 40 } else { 20 };
        let is_unicast = |addr: IpAddr| !addr.is_multicast() && !addr.is_unspecified();
        let is_sent = is_plain
            && headers.fragment.is_none()
            && headers.transport != Transport::LaterFragment
            && is_unicast(headers.src)
            && is_unicast(headers.dst)
            && bytes.len() < 65_000
            && packets.len() < MOST;
        if is_sent {
            packets.push((headers, bytes.to_vec()));
        }
    }
    packets
}

/// The packets of the busiest host of each family, with `own` for its address and others for
/// theirs; quotes in ICMP errors stay as they are, and so belong to no flow.
pub(crate) fn readdressed(packets: &Packets, own: [IpAddr; 2]) -> Vec<(Direction, Vec<u8>)> {
    let mut busy: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (headers, _) in packets {
        *busy.entry(headers.src).or_default() += 1;
        *busy.entry(headers.dst).or_default() += 1;
    }
    let busiest = |is_v6: bool| {
        let family = busy.iter().filter(|(address, _)| address.is_ipv6() == is_v6);
        family.max_by_key(|(_, packets)| **packets).map(|(address, _)| *address)
    };
    let busiest = [busiest(false), busiest(true)];
    let others: Vec<IpAddr> = busy.keys().copied().collect();
    let theirs = |address: IpAddr| -> IpAddr {
        let n = others.iter().position(|other| *other == address).unwrap_or(0) as u16;
        let [high, low] = (n + 1).to_be_bytes();
        match address {
            IpAddr::V4(_) => [203, 0, 113 + high, low].into(),
            IpAddr::V6(_) => [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, n + 1].into(),
        }
    };
    let mut all = Vec::new();
    for (headers, bytes) in packets {
        let family = usize::from(headers.is_ipv6());
        let is_own = |address| busiest[family] == Some(address);
        let (src, dst, direction) = match (is_own(headers.src), is_own(headers.dst)) {
            (true, false) => (own[family], theirs(headers.dst), Direction::Egress),
            (false, true) => (theirs(headers.src), own[family], Direction::Ingress),
            _ => continue,
        };
        let mut bytes = bytes.clone();
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                bytes[8] = 64;
                bytes[12..16].copy_from_slice(&src.octets());
                bytes[16..20].copy_from_slice(&dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                bytes[7] = 64;
                bytes[8..24].copy_from_slice(&src.octets());
                bytes[24..40].copy_from_slice(&dst.octets());
            }
            _ => continue,
        }
        all.push((direction, bytes));
    }
    all
}
