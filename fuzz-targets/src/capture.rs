//! pcap and pcapng, plain or compressed: packet by packet, in batches, however the file arrives, and
//! written back.

use std::io::{self, Read};

use sgwall_netio::capture::{Batch, LinkKind, OutPacket, Packet, Reader, Writer};
use sgwall_packet::{Direction, Timestamp};

use crate::source::Source;

/// Packets that are looked at: a few bytes of zstd are a hundred million empty records.
const MOST: usize = 2000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    data: Vec<u8>,
    wire_len: u32,
    time: Timestamp,
    decimals: u8,
    link: LinkKind,
    direction: Option<Direction>,
}

impl From<Packet<'_>> for Got {
    fn from(p: Packet<'_>) -> Self {
        assert!(p.wire_len as usize >= p.data.len() && p.decimals <= 9);
        let Packet { wire_len, time, decimals, link, direction, .. } = p;
        Got { data: p.data.to_vec(), wire_len, time, decimals, link, direction }
    }
}

/// What a capture says: its packets, and what is wrong behind them.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    packets: Vec<Got>,
    /// `None`: all is well, or nobody looked so far.
    wrong: Option<String>,
}

/// Reads a capture. The input: how many bytes the system gives at once, in sixteens (0: all); the
/// file.
pub fn capture(data: &[u8]) {
    let mut source = Source::new(data);
    let chunk = match source.byte() {
        0 => usize::MAX,
        sixteens => usize::from(sixteens) * 16,
    };
    let file = source.rest();
    let single = one_by_one(file);
    assert_eq!(in_batches(Chunks { file, chunk: usize::MAX }), single, "in batches");
    assert_eq!(in_batches(Chunks { file, chunk }), single, "in batches of {chunk} bytes");
    write_back(&single.packets);
}

/// A file that arrives little by little.
struct Chunks<'a> {
    file: &'a [u8],
    chunk: usize,
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.chunk);
        self.file.read(&mut buffer[..len])
    }
}

fn one_by_one(file: &[u8]) -> Said {
    let mut packets = Vec::new();
    let wrong = |error: sgwall_netio::capture::CaptureError| Some(error.to_string());
    let mut reader = match Reader::new(file, "input") {
        Ok(reader) => reader,
        Err(error) => return Said { packets, wrong: wrong(error) },
    };
    while packets.len() < MOST {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push(packet.into()),
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(reader.next_packet(), Ok(None)), "it ends with its error");
                return Said { packets, wrong: wrong(error) };
            }
        }
    }
    Said { packets, wrong: None }
}

fn in_batches(input: Chunks<'_>) -> Said {
    let mut packets: Vec<Got> = Vec::new();
    let mut reader = match Reader::new(input, "input") {
        Ok(reader) => reader,
        Err(error) => return Said { packets, wrong: Some(error.to_string()) },
    };
    let mut batch = Batch::default();
    while packets.len() < MOST {
        if let Err(error) = reader.next_batch(&mut batch, 1) {
            return Said { packets, wrong: Some(error.to_string()) };
        }
        if batch.is_empty() {
            break;
        }
        packets.extend(batch.iter().map(Got::from));
    }
    packets.truncate(MOST);
    Said { packets, wrong: None }
}

/// What is written is read again.
fn write_back(packets: &[Got]) {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "output").expect("memory takes it");
    for p in packets {
        let Got { data, wire_len, time, decimals, link, direction } = p;
        let out = OutPacket {
            data,
            wire_len: *wire_len,
            time: *time,
            decimals: *decimals,
            link: *link,
            direction: *direction,
            comment: None,
        };
        writer.write(&out).expect("memory takes it");
    }
    writer.flush().expect("memory takes it");
    drop(writer);
    let read = one_by_one(&file);
    assert_eq!(read.wrong, None);
    assert_eq!(read.packets.len(), packets.len());
    for (read, written) in read.packets.iter().zip(packets) {
        // The format has no time before 1970, and no finer one than it says.
        let unit = 10i64.pow(9 - u32::from(written.decimals));
        let nanos = written.time.as_nanos().max(0) / unit * unit;
        let expected = Got { time: Timestamp::from_nanos(nanos), ..written.clone() };
        assert_eq!(*read, expected);
    }
}
