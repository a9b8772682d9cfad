//! A batch of frames in one piece of memory, packed, each with headroom before it.
//!
//! A device reads into the free room after the last frame, so small frames of a batch share cache
//! lines and pages, and nothing is allocated once the batch has grown to its size. A frame stays
//! where it was read: forwarding writes it from there, with its offload header put into the
//! headroom.

use super::vnet::{HEADER_LEN, OffloadError, VnetHeader};

/// Bytes before every frame: for the offload header, a restored VLAN tag, or what a handler puts
/// there.
pub const HEADROOM: usize = 32;

/// The longest frame: an IP packet of 65,535 bytes behind an Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;

/// Frames of a batch. More make longer queues, not fewer system calls.
const BATCH_FRAMES: usize = 64;
/// Bytes after which a batch is full: four super-frames.
const BATCH_BYTES: usize = 256 * 1024;

/// A frame's place.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    len: usize,
    header: VnetHeader,
}

/// A batch of frames.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// Bytes in use, all frames and their headroom.
    used: usize,
    /// Frames that were too long to be read whole, and are not here.
    truncated: u64,
    /// Frames whose offload header did not fit them, and that are not here.
    bad_offload: u64,
}

impl Frames {
    /// A batch without frames and without memory: it grows with use.
    #[must_use]
    pub fn new() -> Self {
        Frames::default()
    }

    /// Frames in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a device should read no further frames into it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.len() >= BATCH_FRAMES || self.used >= BATCH_BYTES
    }

    /// Forgets all frames; the memory stays.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.used = 0;
        self.truncated = 0;
        self.bad_offload = 0;
    }

    /// The bytes of frame `k`, from its Ethernet header on; empty if there is no such frame.
    #[must_use]
    pub fn bytes(&self, k: usize) -> &[u8] {
        self.slots.get(k).and_then(|s| self.bytes.get(s.start..s.start + s.len)).unwrap_or_default()
    }

    /// The bytes of frame `k`, to be changed in place.
    #[must_use]
    pub fn bytes_mut(&mut self, k: usize) -> &mut [u8] {
        let slot = self.slots.get(k);
        slot.and_then(|s| self.bytes.get_mut(s.start..s.start + s.len)).unwrap_or_default()
    }

    /// What frame `k` leaves to the device; nothing if there is no such frame.
    #[must_use]
    pub fn header(&self, k: usize) -> VnetHeader {
        self.slots.get(k).map(|s| s.header).unwrap_or_default()
    }

    /// Sets what frame `k` leaves to the device.
    pub fn set_header(&mut self, k: usize, header: VnetHeader) {
        if let Some(slot) = self.slots.get_mut(k) {
            slot.header = header;
        }
    }

    /// Bytes of all frames, without headroom.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.slots.iter().map(|s| s.len as u64).sum()
    }

    /// Frames that the device had and that were too long to be read whole.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Frames that the device had and whose offload header was wrong.
    #[must_use]
    pub fn bad_offload(&self) -> u64 {
        self.bad_offload
    }

    /// Appends a copy of `frame`; the answer is its number.
    pub fn push(&mut self, frame: &[u8], header: VnetHeader) -> u32 {
        self.room(frame.len())[..frame.len()].copy_from_slice(frame);
        self.commit(0, frame.len(), header)
    }

    /// Appends a frame of `len` bytes that `fill` writes; the answer is its number.
    pub fn push_with(
        &mut self,
        len: usize,
        header: VnetHeader,
        fill: impl FnOnce(&mut [u8]),
    ) -> u32 {
        fill(&mut self.room(len)[..len]);
        self.commit(0, len, header)
    }

    /// Room for a frame of up to `len` bytes after the last one, without the headroom before it.
    /// What is written there is a frame after [`commit`](Self::commit).
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let start = self.used + HEADROOM;
        self.reserve(start + len);
        &mut self.bytes[start..]
    }

    /// The same, beginning `before` bytes (at most [`HEADROOM`]) before the frame's place.
    pub(super) fn room_before(&mut self, before: usize, len: usize) -> &mut [u8] {
        let start = self.used + HEADROOM;
        self.reserve(start + len);
        &mut self.bytes[start - before.min(HEADROOM)..start + len]
    }

    /// Makes a frame of the first `len` bytes of the room, beginning `earlier` bytes before it.
    pub(super) fn commit(&mut self, earlier: usize, len: usize, header: VnetHeader) -> u32 {
        let start = self.used + HEADROOM - earlier.min(HEADROOM);
        self.slots.push(Slot { start, len, header });
        // Frames begin at even places, so that sums of 16-bit words are aligned.
        self.used = (start + len).next_multiple_of(16);
        (self.slots.len() - 1) as u32
    }

    /// Counts a frame that could not be read whole.
    pub(super) fn note_truncated(&mut self) {
        self.truncated += 1;
    }

    /// Counts a frame whose offload header the kernel could not write.
    pub(super) fn note_bad_offload(&mut self) {
        self.bad_offload += 1;
    }

    /// Appends a copy of a frame that came from outside, if its offload header fits it.
    pub(super) fn push_checked(&mut self, frame: &[u8], header: VnetHeader) {
        self.room(frame.len())[..frame.len()].copy_from_slice(frame);
        self.commit_checked(0, frame.len(), Ok(header));
    }

    /// Makes a frame of `len` bytes just read into [`room_before`](Self::room_before), of which
    /// the first `header_len` are its offload header. One that is too long, or whose header does
    /// not fit it, is counted and forgotten.
    pub(super) fn take(&mut self, header_len: usize, len: usize) {
        let Some(len) = len.checked_sub(header_len) else { return };
        if len > MAX_FRAME {
            return self.note_truncated();
        }
        let header = self.read_header(header_len);
        self.commit_checked(0, len, header);
    }

    /// The same, with a VLAN tag put back behind the MAC addresses.
    pub(super) fn take_tagged(&mut self, header_len: usize, len: usize, tpid: u16, tci: u16) {
        const TAG: usize = 4;
        const MACS: usize = 12;
        let Some(len) = len.checked_sub(header_len) else { return };
        if !(MACS..=MAX_FRAME).contains(&len) {
            return self.note_truncated();
        }
        let header = self.read_header(header_len).map(|header| header.shifted(TAG as u16));
        let start = self.used + HEADROOM;
        self.bytes.copy_within(start..start + MACS, start - TAG);
        let [t0, t1] = tpid.to_be_bytes();
        let [c0, c1] = tci.to_be_bytes();
        self.bytes[start - TAG + MACS..start + MACS].copy_from_slice(&[t0, t1, c0, c1]);
        self.commit_checked(TAG, len + TAG, header);
    }

    /// The offload header just read before the place of the next frame.
    fn read_header(&self, header_len: usize) -> Result<VnetHeader, OffloadError> {
        let start = self.used + HEADROOM;
        match header_len {
            0 => Ok(VnetHeader::default()),
            _ => VnetHeader::from_bytes(&self.bytes[start - header_len..start]),
        }
    }

    fn commit_checked(
        &mut self,
        earlier: usize,
        len: usize,
        header: Result<VnetHeader, OffloadError>,
    ) {
        let start = self.used + HEADROOM - earlier;
        let frame = &self.bytes[start..start + len];
        match header.and_then(|header| header.check(frame).map(|()| header)) {
            Ok(header) => drop(self.commit(earlier, len, header)),
            Err(_) => self.bad_offload += 1,
        }
    }

    /// Frame `k` with its offload header in the `header_len` bytes before it, and how long the
    /// frame itself is.
    pub(super) fn with_header(&mut self, k: usize, header_len: usize) -> Option<(&[u8], usize)> {
        let slot = *self.slots.get(k)?;
        let begin = slot.start.checked_sub(header_len)?;
        let wire = self.bytes.get_mut(begin..slot.start + slot.len)?;
        if header_len > 0 {
            let header = slot.header.to_bytes(slot.len);
            let len = header_len.min(HEADER_LEN);
            wire.get_mut(..len)?.copy_from_slice(&header[..len]);
        }
        Some((wire, slot.len))
    }

    fn reserve(&mut self, end: usize) {
        if self.bytes.len() < end {
            // A batch of received frames ends in room for one more of any length.
            self.bytes.resize(end.max(self.bytes.len() * 2), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vnet::PartialChecksum;
    use super::*;

    #[test]
    fn frames_keep_their_bytes_and_order() {
        let mut frames = Frames::new();
        for n in 0..10u8 {
            let k = frames.push(&vec![n; 100 + usize::from(n)], VnetHeader::default());
            assert_eq!(k, u32::from(n));
        }
        for n in 0..10u8 {
            assert_eq!(frames.bytes(n.into()), vec![n; 100 + usize::from(n)]);
        }
        assert_eq!(frames.bytes(10), [0u8; 0]);
        assert_eq!(frames.total_bytes(), 1045);
        frames.clear();
        assert!(frames.is_empty());
        assert_eq!(frames.bytes(0), [0u8; 0]);
    }

    #[test]
    fn a_header_does_not_touch_the_frame_before() {
        let mut frames = Frames::new();
        frames.push(&[0xaa; 64], VnetHeader::default());
        frames.push(&[0xbb; 64], VnetHeader::default());
        let (wire, len) = frames.with_header(1, HEADER_LEN).expect("frame 1");
        assert_eq!((wire.len(), len), (HEADER_LEN + 64, 64));
        assert_eq!(wire[..HEADER_LEN], [0; HEADER_LEN]);
        assert_eq!(frames.bytes(0), [0xaa; 64]);
        assert_eq!(frames.bytes(1), [0xbb; 64]);
    }

    #[test]
    fn a_batch_is_full_by_frames_or_by_bytes() {
        let mut frames = Frames::new();
        for _ in 0..BATCH_FRAMES {
            frames.push(&[0; 60], VnetHeader::default());
        }
        assert!(frames.is_full());
        frames.clear();
        for _ in 0..4 {
            frames.push(&[0; MAX_FRAME], VnetHeader::default());
        }
        assert!(frames.is_full());
    }

    /// Puts what a device would have read into the room, and takes it.
    fn read(frames: &mut Frames, header: &[u8], frame: &[u8], tag: Option<(u16, u16)>) {
        let room = frames.room_before(header.len(), MAX_FRAME);
        room[..header.len()].copy_from_slice(header);
        let part = frame.len().min(MAX_FRAME);
        room[header.len()..header.len() + part].copy_from_slice(&frame[..part]);
        let len = header.len() + frame.len();
        match tag {
            None => frames.take(header.len(), len),
            Some((tpid, tci)) => frames.take_tagged(header.len(), len, tpid, tci),
        }
    }

    #[test]
    fn a_tag_is_put_back_behind_the_addresses_and_moves_the_checksum() {
        let header = VnetHeader {
            checksum: Some(PartialChecksum { start: 34, offset: 6 }),
            segmentation: None,
        };
        let frame: Vec<u8> = (0..60).collect();
        let mut frames = Frames::new();
        for _ in 0..2 {
            read(&mut frames, &header.to_bytes(60)[..10], &frame, Some((0x88a8, 0xe123)));
        }
        for k in 0..2 {
            assert_eq!(frames.bytes(k)[..12], frame[..12]);
            assert_eq!(frames.bytes(k)[12..16], [0x88, 0xa8, 0xe1, 0x23]);
            assert_eq!(frames.bytes(k)[16..], frame[12..]);
            let checksum = Some(PartialChecksum { start: 38, offset: 6 });
            assert_eq!(frames.header(k), VnetHeader { checksum, segmentation: None });
        }
    }

    #[test]
    fn what_cannot_be_a_frame_is_counted_and_forgotten() {
        let mut frames = Frames::new();
        // Longer than any frame, and too short to have had a tag.
        read(&mut frames, &[0; 10], &vec![0; MAX_FRAME + 1], None);
        read(&mut frames, &[0; 10], &[0; 11], Some((0x8100, 1)));
        assert_eq!((frames.len(), frames.truncated(), frames.bad_offload()), (0, 2, 0));
        // A checksum outside, with and without the tag, and a kind that nobody asked for.
        let outside = VnetHeader {
            checksum: Some(PartialChecksum { start: 60, offset: 0 }),
            segmentation: None,
        };
        read(&mut frames, &outside.to_bytes(60), &[0; 60], None);
        read(&mut frames, &outside.to_bytes(60), &[0; 60], Some((0x8100, 1)));
        read(&mut frames, &[0, 3, 0, 0, 1, 0, 0, 0, 0, 0], &[0; 60], None);
        assert_eq!((frames.len(), frames.truncated(), frames.bad_offload()), (0, 2, 3));
        // The next one has nothing of them.
        read(&mut frames, &[0; 10], &[7; 60], None);
        assert_eq!((frames.len(), frames.bytes(0)), (1, &[7; 60][..]));
        frames.clear();
        assert_eq!((frames.truncated(), frames.bad_offload()), (0, 0));
    }
}
