//! What can be wrong with a capture.

use std::io;

/// What is wrong with a capture. Offsets count bytes of the capture itself, after decompression.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The operating system refused to open, read or write it.
    #[error("{name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The first bytes are those of no format that is read.
    #[error(
        "{name}: not a packet capture: it {found}; pcap and pcapng are read, plain or compressed \
         with gzip or zstd"
    )]
    NotACapture {
        /// The file.
        name: String,
        /// "is empty", "begins with …".
        found: String,
    },
    /// The file ends within a record.
    #[error(
        "{name}: the capture ends within {what} that begins at byte {offset}{decompressed}: \
         {needed} bytes are needed and {had} are there; it was probably cut off while being \
         written or copied, so capture or copy it again; what came before was read"
    )]
    Truncated {
        /// The file.
        name: String,
        /// Where the record begins, bytes.
        offset: u64,
        /// " (after decompression)" where the file is compressed.
        decompressed: &'static str,
        /// The record.
        what: &'static str,
        /// Its length, as far as known, bytes.
        needed: u64,
        /// What is there of it, bytes.
        had: u64,
    },
    /// A record contradicts itself or the format.
    #[error(
        "{name}: the capture is damaged at byte {offset}{decompressed}: {what}; \
         capture or copy it again; what came before was read"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Where the record begins, bytes.
        offset: u64,
        /// " (after decompression)" where the file is compressed.
        decompressed: &'static str,
        /// What is wrong, with the value at fault.
        what: String,
    },
}
