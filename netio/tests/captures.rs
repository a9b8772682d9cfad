//! Captures of every form that is read, built byte by byte, and every way they can be damaged.

use std::io::Write;

use proptest::prelude::*;
use sgwall_netio::capture::{
    Batch, CaptureError, LinkKind, OutPacket, Packet, Reader, Writer, is_magic,
};
use sgwall_packet::{Direction, Timestamp};

/// A packet as tests compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    data: Vec<u8>,
    wire_len: u32,
    nanos: i64,
    decimals: u8,
    link: u16,
    direction: Option<Direction>,
}

impl From<Packet<'_>> for Got {
    fn from(p: Packet<'_>) -> Self {
        Got {
            data: p.data.to_vec(),
            wire_len: p.wire_len,
            nanos: p.time.as_nanos(),
            decimals: p.decimals,
            link: p.link.0,
            direction: p.direction,
        }
    }
}

/// Every packet, and how it ended; the same whether they are read one by one or in batches.
fn read(bytes: &[u8]) -> (Vec<Got>, Option<CaptureError>) {
    let (packets, error) = read_singly(bytes);
    for batch_bytes in [1, 100, 1 << 20] {
        let (same, end) = read_batches(bytes, batch_bytes);
        assert_eq!(packets, same, "in batches of {batch_bytes} bytes");
        let text = |error: &Option<CaptureError>| error.as_ref().map(ToString::to_string);
        assert_eq!(text(&error), text(&end), "in batches of {batch_bytes} bytes");
    }
    (packets, error)
}

fn read_batches(bytes: &[u8], batch_bytes: usize) -> (Vec<Got>, Option<CaptureError>) {
    let mut reader = match Reader::new(bytes, "test") {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let (mut packets, mut batches) = (Vec::new(), [Batch::default(), Batch::default()]);
    loop {
        let end = reader.next_batch(&mut batches[0], batch_bytes);
        packets.extend(batches[0].iter().map(Got::from));
        match end {
            Ok(()) if batches[0].is_empty() => return (packets, None),
            Ok(()) => {}
            Err(error) => {
                assert!(batches[0].is_empty(), "what was read came before");
                assert!(matches!(reader.next_packet(), Ok(None)), "after an error comes the end");
                return (packets, Some(error));
            }
        }
        // A reader works with whatever batch comes back to it.
        batches.swap(0, 1);
    }
}

fn read_singly(bytes: &[u8]) -> (Vec<Got>, Option<CaptureError>) {
    let mut reader = match Reader::new(bytes, "test") {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut packets = Vec::new();
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push(packet.into()),
            Ok(None) => return (packets, None),
            Err(error) => {
                assert!(matches!(reader.next_packet(), Ok(None)), "after an error comes the end");
                return (packets, Some(error));
            }
        }
    }
}

fn whole(bytes: &[u8]) -> Vec<Got> {
    let (packets, error) = read(bytes);
    assert!(error.is_none(), "{}", error.unwrap());
    packets
}

fn message(bytes: &[u8]) -> (usize, String) {
    let (packets, error) = read(bytes);
    (packets.len(), error.expect("an error").to_string())
}

/// A file in either byte order.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, n: u16) -> [u8; 2] {
        if self.0 { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn u32(self, n: u32) -> [u8; 4] {
        if self.0 { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn u64(self, n: u64) -> [u8; 8] {
        if self.0 { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|&word| self.u32(word)).collect()
    }

    fn pcap(self, magic: u32, link: u32, records: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
        let mut file = self.u32(magic).to_vec();
        file.extend(self.u16(2));
        file.extend(self.u16(4));
        file.extend(self.words(&[0, 0, 65535, link]));
        for (seconds, fraction, data, wire_len) in records {
            file.extend(self.words(&[*seconds, *fraction, data.len() as u32, *wire_len]));
            if magic == 0xa1b2_cd34 {
                file.extend([0; 8]);
            }
            file.extend(*data);
        }
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let body_len = body.len().next_multiple_of(4);
        let len = self.u32(body_len as u32 + 12);
        let mut block = self.u32(kind).to_vec();
        block.extend(len);
        block.extend(body);
        block.resize(8 + body_len, 0);
        block.extend(len);
        block
    }

    fn section(self) -> Vec<u8> {
        let mut body = self.u32(0x1a2b_3c4d).to_vec();
        body.extend(self.u16(1));
        body.extend(self.u16(0));
        body.extend(self.u64(u64::MAX));
        self.block(0x0a0d_0d0a, &body)
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = self.u16(code).to_vec();
        option.extend(self.u16(value.len() as u16));
        option.extend(value);
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn interface(self, link: u16, snap_len: u32, options: &[u8]) -> Vec<u8> {
        let mut body = self.u16(link).to_vec();
        body.extend(self.u16(0));
        body.extend(self.u32(snap_len));
        body.extend(options);
        self.block(1, &body)
    }

    fn enhanced(self, interface: u32, ticks: u64, data: &[u8], options: &[u8]) -> Vec<u8> {
        let len = data.len() as u32;
        let mut body = self.words(&[interface, (ticks >> 32) as u32, ticks as u32, len, len + 7]);
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(options);
        self.block(6, &body)
    }
}

const LE: Order = Order(false);
const BE: Order = Order(true);

fn got(data: &[u8], wire_len: u32, nanos: i64, decimals: u8, link: u16) -> Got {
    Got { data: data.to_vec(), wire_len, nanos, decimals, link, direction: None }
}

#[test]
fn pcap_in_both_orders_and_three_forms() {
    for order in [LE, BE] {
        let records: [(u32, u32, &[u8], u32); 3] =
            [(5, 999_999, b"abc", 3), (6, 0, b"", 60), (u32::MAX, 1_500_000, b"de", 1)];
        let expected = [
            got(b"abc", 3, 5_999_999_000, 6, 1),
            got(b"", 60, 6_000_000_000, 6, 1),
            // A fraction beyond a second carries over; a wire length below what was captured is
            // what was captured.
            got(b"de", 2, 4_294_967_296_500_000_000, 6, 1),
        ];
        assert_eq!(whole(&order.pcap(0xa1b2_c3d4, 1, &records)), expected);
        assert_eq!(whole(&order.pcap(0xa1b2_cd34, 1, &records)), expected);
        let nano = order.pcap(0xa1b2_3c4d, 101, &[(1, 1, b"x", 1)]);
        assert_eq!(whole(&nano), [got(b"x", 1, 1_000_000_001, 9, 101)]);
        // The upper bits of the link type tell of a frame check sequence.
        assert_eq!(whole(&order.pcap(0xa1b2_c3d4, 0x5400_0001, &[(0, 0, b"x", 1)]))[0].link, 1);
        assert!(whole(&order.pcap(0xa1b2_c3d4, 1, &[])).is_empty());
    }
}

#[test]
fn pcapng_blocks_of_every_kind() {
    for order in [LE, BE] {
        let mut file = order.section();
        file.extend(order.interface(1, 0, &[]));
        file.extend(order.interface(113, 3, &order.option(9, &[9])));
        file.extend(order.block(0x0bad, b"a custom block is skipped"));
        file.extend(order.enhanced(0, 1_000_001, b"abcde", &[]));
        file.extend(order.enhanced(1, 7 << 32, b"abcd", &order.option(2, &order.u32(1))));
        let mut options = order.option(1, b"a comment");
        options.extend(order.option(2, &order.u32(2)));
        options.extend(order.option(0, b""));
        options.extend(order.option(2, &order.u32(1)));
        file.extend(order.enhanced(0, 2_000_000, b"", &options));
        // Obsolete packet block, interface and drops in one word.
        let mut body = order.u16(1).to_vec();
        body.extend(order.u16(9));
        body.extend(order.words(&[0, 5, 2, 2]));
        body.extend(b"pb");
        file.extend(order.block(2, &body));
        // A simple packet has the first interface and no time.
        let mut body = order.u32(6).to_vec();
        body.extend(b"simple");
        file.extend(order.block(3, &body));
        // A new section forgets the interfaces.
        file.extend(order.section());
        file.extend(order.interface(101, 4, &[]));
        let mut body = order.u32(60).to_vec();
        body.extend(b"snap");
        file.extend(order.block(3, &body));
        let direction = |packet: Got, direction| Got { direction: Some(direction), ..packet };
        assert_eq!(
            whole(&file),
            [
                got(b"abcde", 12, 1_000_001_000, 6, 1),
                direction(got(b"abcd", 11, 7 << 32, 9, 113), Direction::Ingress),
                direction(got(b"", 7, 2_000_000_000, 6, 1), Direction::Egress),
                got(b"pb", 2, 5, 9, 113),
                got(b"simple", 6, 5, 6, 1),
                got(b"snap", 60, 5, 6, 101),
            ]
        );
    }
}

#[test]
fn sections_may_differ_in_byte_order() {
    let mut file = LE.section();
    file.extend(LE.interface(1, 0, &[]));
    file.extend(LE.enhanced(0, 1, b"le", &[]));
    file.extend(BE.section());
    file.extend(BE.interface(101, 0, &[]));
    file.extend(BE.enhanced(0, 2, b"be", &[]));
    assert_eq!(whole(&file), [got(b"le", 9, 1000, 6, 1), got(b"be", 9, 2000, 6, 101)]);
}

#[test]
fn time_resolutions_and_offsets() {
    for order in [LE, BE] {
        for (resolution, ticks, nanos, decimals) in [
            (0, 5, 5_000_000_000, 0),
            (3, 5, 5_000_000, 3),
            (9, 5, 5, 9),
            (12, 5_999, 5, 9),
            (0x80, 3, 3_000_000_000, 0),
            (0x81, 3, 1_500_000_000, 1),
            (0x8a, 1 << 10, 1_000_000_000, 9),
            (0xa0, 1 << 31, 500_000_000, 9),
            (6, u64::MAX, i64::MAX, 6),
        ] {
            let mut file = order.section();
            file.extend(order.interface(1, 0, &order.option(9, &[resolution])));
            file.extend(order.enhanced(0, ticks, b"", &[]));
            assert_eq!(whole(&file), [got(b"", 7, nanos, decimals, 1)], "{resolution:#x}");
        }
        let mut file = order.section();
        file.extend(order.interface(1, 0, &order.option(14, &order.u64((-10i64) as u64))));
        file.extend(order.enhanced(0, 1_000_000, b"", &[]));
        assert_eq!(whole(&file), [got(b"", 7, -9_000_000_000, 6, 1)]);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_captures_in_one_piece_or_several() {
    let file = LE.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"abc", 3), (2, 0, b"de", 2)]);
    let expected = whole(&file);
    for compress in [gzip, zstd] {
        assert_eq!(whole(&compress(&file)), expected);
        let two: Vec<u8> = [compress(&file[..30]), compress(&file[30..])].concat();
        assert_eq!(whole(&two), expected);
        assert!(is_magic(two[..4].try_into().unwrap()));
    }
}

#[test]
fn damage_inside_compressed_data_is_named() {
    let data: Vec<u8> = (0..60_000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
    let records: Vec<_> = data.chunks(1000).map(|chunk| (1, 0, chunk, 1000)).collect();
    let file = LE.pcap(0xa1b2_c3d4, 1, &records);
    for compress in [gzip, zstd] {
        let packed = compress(&file);
        let (packets, error) = read(&packed[..packed.len() / 2]);
        assert!(packets.len() < 240);
        let error = error.unwrap().to_string();
        assert!(error.contains("ends within compressed data that begins at byte"), "{error}");
        assert!(error.contains("(after decompression)"), "{error}");
        let mut broken = packed.clone();
        let middle = broken.len() / 2;
        broken[middle..middle + 40].fill(0xff);
        let (_, error) = read(&broken);
        // At the latest a checksum notices.
        assert!(matches!(error, Some(CaptureError::Damaged { .. })), "{error:?}");
    }
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    const ACCEPTED: &str = "; pcap and pcapng are read, plain or compressed with gzip or zstd";
    for (bytes, found) in [
        (&b""[..], "it is empty"),
        (b"\x0a", "it begins with 0a"),
        (b"GET / HTTP/1.1", "it begins with 47 45 54 20"),
    ] {
        assert_eq!(message(bytes), (0, format!("test: not a packet capture: {found}{ACCEPTED}")));
    }
    assert!(!is_magic(*b"vers"));
    assert!(is_magic([0xd4, 0xc3, 0xb2, 0xa1]));
}

#[test]
fn damage_is_named_with_its_place() {
    let damaged = |at: usize, what: &str| {
        format!(
            "test: the capture is damaged at byte {at}: {what}; capture or copy it again; what \
             came before was read"
        )
    };
    let good = LE.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"abc", 3)]);
    let mut version = good.clone();
    version[4] = 9;
    assert_eq!(message(&version), (0, damaged(0, "the file header says pcap version 9, not 2")));
    let mut huge = good.clone();
    huge.extend(LE.words(&[1, 0, 0x7fff_ffff, 3]));
    huge.extend([0; 64]);
    assert_eq!(
        message(&huge),
        (1, damaged(43, "a record claims 2147483647 bytes, more than any packet has"))
    );

    let mut start = LE.section();
    start.extend(LE.interface(1, 0, &[]));
    start.extend(LE.enhanced(0, 1, b"abcd", &[]));
    let at = start.len();
    let after = |block: Vec<u8>| [start.clone(), block].concat();
    let mut lengths_differ = LE.enhanced(0, 1, b"abcd", &[]);
    *lengths_differ.last_mut().unwrap() = 1;
    let mut too_long = LE.enhanced(0, 1, b"abcd", &[]);
    too_long[20..24].copy_from_slice(&99u32.to_le_bytes());
    let mut order = LE.section();
    order[8..12].copy_from_slice(b"ABCD");
    let mut version = LE.section();
    version[12] = 2;
    for (block, what) in [
        (lengths_differ, "a block says it has 36 bytes at its beginning and 16777252 at its end"),
        (too_long, "a packet claims 99 bytes, its block has room for 4"),
        (
            LE.enhanced(1, 1, b"abcd", &[]),
            "a packet names interface 1, its section has described 1",
        ),
        (LE.words(&[6, 13, 0, 0]), "a block claims a length of 13 bytes"),
        (LE.words(&[6, 8, 0, 0]), "a block claims a length of 8 bytes"),
        (LE.words(&[6, 0xffff_fff0, 0, 0]), "a block claims a length of 4294967280 bytes"),
        (LE.block(6, b"tiny"), "a packet block has a body of 4 bytes, not 20"),
        (LE.block(1, b"tiny"), "an interface description has a body of 4 bytes, not 8"),
        (LE.block(3, b""), "a simple packet block has a body of 0 bytes, not 4"),
        (LE.block(3, &[9, 0, 0, 0, 1]), "a simple packet of 9 bytes has 4 in its block"),
        (LE.interface(1, 0, &LE.option(9, &[20])), "an interface has a time resolution of 0x14"),
        (order, "a section's byte-order magic is 0x41424344"),
        (version, "a section is of pcapng version 2, not 1"),
    ] {
        assert_eq!(message(&after(block)), (1, damaged(at, what)));
    }
    let mut first_is_simple = LE.section();
    first_is_simple.extend(LE.block(3, &[0; 4]));
    assert_eq!(
        message(&first_is_simple).1,
        damaged(28, "a packet names interface 0, its section has described 0")
    );
}

/// Cut anywhere, a capture yields a beginning of its packets, and says that it was cut unless
/// that happened between records.
#[test]
fn every_cut_is_noticed() {
    let pcap = LE.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"abc", 3), (2, 0, b"defgh", 5)]);
    let mut pcapng = LE.section();
    pcapng.extend(LE.interface(1, 0, &[]));
    pcapng.extend(LE.enhanced(0, 1, b"abc", &[]));
    pcapng.extend(LE.enhanced(0, 2, b"defgh", &[]));
    // Between records: after the header or section, and after each record or block.
    for (file, boundaries) in [(pcap, vec![24, 43]), (pcapng, vec![28, 48, 84])] {
        let all = whole(&file);
        for len in 0..file.len() {
            let (packets, error) = read(&file[..len]);
            assert!(packets.len() < all.len() && all.starts_with(&packets), "cut at {len}");
            assert_eq!(error.is_none(), boundaries.contains(&len), "cut at {len}");
        }
        let (_, error) = read(&file[..file.len() - 1]);
        let error = error.unwrap().to_string();
        assert!(error.contains("it was probably cut off"), "{error}");
    }
    let cut = LE.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"abc", 3)]);
    assert_eq!(
        message(&cut[..41]).1,
        "test: the capture ends within a record that begins at byte 24: 19 bytes are needed and \
         17 are there; it was probably cut off while being written or copied, so capture or copy \
         it again; what came before was read"
    );
}

/// Data, bytes beyond it on the wire, time, decimals, link type, direction, comment.
type Out = (Vec<u8>, u32, i64, u8, u16, u8, Option<String>);

fn out_packets() -> impl Strategy<Value = Vec<Out>> {
    let packet = (
        proptest::collection::vec(any::<u8>(), 0..80),
        0..100u32,
        0..i64::MAX,
        0..10u8,
        prop_oneof![Just(1u16), Just(101), any::<u16>()],
        0..3u8,
        proptest::option::of("[a-z ü-]{0,40}"),
    );
    proptest::collection::vec(packet, 0..20)
}

proptest! {
    #[test]
    fn what_is_written_is_read(packets in out_packets()) {
        let mut file = Vec::new();
        let mut expected = Vec::new();
        let mut writer = Writer::new(&mut file, "test").unwrap();
        for (data, more, nanos, decimals, link, direction, comment) in &packets {
            let direction = [None, Some(Direction::Ingress), Some(Direction::Egress)]
                [usize::from(*direction)];
            let wire_len = data.len() as u32 + more;
            writer.write(&OutPacket {
                data,
                wire_len,
                time: Timestamp::from_nanos(*nanos),
                decimals: *decimals,
                link: LinkKind(*link),
                direction,
                comment: comment.as_deref(),
            }).unwrap();
            let unit = 10i64.pow(9 - u32::from(*decimals));
            expected.push(Got {
                data: data.clone(),
                wire_len,
                nanos: nanos / unit * unit,
                decimals: *decimals,
                link: *link,
                direction,
            });
        }
        writer.flush().unwrap();
        drop(writer);
        prop_assert_eq!(whole(&file), expected);
    }

    /// Whatever follows a good beginning: no panic, and an end.
    #[test]
    fn no_bytes_break_the_reader(
        kind in 0..5usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        cut in any::<proptest::sample::Index>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut ng = BE.section();
        ng.extend(BE.interface(1, 96, &BE.option(9, &[9])));
        ng.extend(BE.enhanced(0, 1, &bytes[..bytes.len().min(60)], &[]));
        let mut file = match kind {
            0 => LE.pcap(0xa1b2_c3d4, 1, &[]),
            1 => BE.pcap(0xa1b2_3c4d, 1, &[(1, 2, &bytes, 3)]),
            2 => LE.section(),
            3 => ng,
            _ => vec![0x1f, 0x8b, 8, 0],
        };
        file.extend(&bytes);
        for (index, bits) in flips {
            let at = index.index(file.len());
            file[at] ^= bits;
        }
        file.truncate(cut.index(file.len() + 1));
        let (packets, _) = read(&file);
        prop_assert!(packets.len() <= file.len());
    }
}
