//! What a handler wants to have sent, and the sending of it.

use crate::device::offload::{Segments, complete_checksum};
use crate::device::{Device, DeviceError, Features, Frames, VnetHeader};

use super::counters::PortCounters;

/// What a handler wants to have sent, in order.
#[derive(Debug)]
pub struct Output {
    ports: usize,
    actions: Vec<Action>,
    /// Frames that the handler built.
    built: Frames,
    run: Run,
}

/// One frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Action {
    port: usize,
    source: Source,
    frame: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The batch that the handler looks at.
    Batch,
    /// What it built.
    Built,
}

/// Working memory of sending a run of frames to one port.
#[derive(Debug, Default)]
struct Run {
    order: Vec<u32>,
    /// Frames that can go as they are, until one must be cut.
    whole: Vec<u32>,
    /// The segments of one super-frame, and their numbers.
    segments: Frames,
    numbers: Vec<u32>,
}

impl Output {
    /// Nothing to send yet, to any of `ports` ports. Workers have their own; this is for whoever
    /// calls a handler without devices, and looks at what it wants with [`take_sent`](Self::take_sent).
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Output { ports, actions: Vec::new(), built: Frames::new(), run: Run::default() }
    }

    /// How many ports there are.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.ports
    }

    /// Sends frame `frame` of the batch to `port`, from where it lies. A frame may go to several
    /// ports. A frame or port that there is not is ignored.
    pub fn forward(&mut self, frame: usize, port: usize) {
        self.act(Action { port, source: Source::Batch, frame: frame as u32 });
    }

    /// Sends a copy of `frame`, beginning with its Ethernet header, to `port`; its checksums are
    /// complete.
    pub fn send(&mut self, port: usize, frame: &[u8]) {
        let frame = self.built.push(frame, VnetHeader::default());
        self.act(Action { port, source: Source::Built, frame });
    }

    /// Sends a frame of `len` bytes that `fill` writes to `port`; `header` says what is left to
    /// the device.
    pub fn send_with(
        &mut self,
        port: usize,
        len: usize,
        header: VnetHeader,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let frame = self.built.push_with(len, header, fill);
        self.act(Action { port, source: Source::Built, frame });
    }

    /// Takes what would be sent, in order: port, frame, and what is left to the device. `batch` is
    /// the batch that the handler looked at.
    pub fn take_sent(&mut self, batch: &Frames) -> Vec<(usize, Vec<u8>, VnetHeader)> {
        let sent = self.actions.drain(..).filter_map(|Action { port, source, frame }| {
            let (from, k) = match source {
                Source::Batch => (batch, frame as usize),
                Source::Built => (&self.built, frame as usize),
            };
            (k < from.len()).then(|| (port, from.bytes(k).to_vec(), from.header(k)))
        });
        let sent = sent.collect();
        self.built.clear();
        sent
    }

    /// Forgets what would be sent.
    pub fn forget(&mut self) {
        self.actions.clear();
        self.built.clear();
    }

    fn act(&mut self, action: Action) {
        if action.port < self.ports {
            self.actions.push(action);
        }
    }

    /// Sends all of it, run by run: frames that follow each other to one port go in one call.
    pub(super) fn flush(
        &mut self,
        batch: &mut Frames,
        devices: &mut [Box<dyn Device>],
        counters: &[PortCounters],
    ) -> Result<(), DeviceError> {
        let mut rest = self.actions.as_slice();
        while let Some(first) = rest.first() {
            let is_same = |a: &&Action| (a.port, a.source) == (first.port, first.source);
            let (run, further) = rest.split_at(rest.iter().take_while(is_same).count());
            rest = further;
            let from = match first.source {
                Source::Batch => &mut *batch,
                Source::Built => &mut self.built,
            };
            let exists = |frame: &u32| (*frame as usize) < from.len();
            self.run.order.clear();
            self.run.order.extend(run.iter().map(|action| action.frame).filter(exists));
            if let (Some(device), Some(counters)) =
                (devices.get_mut(first.port), counters.get(first.port))
            {
                self.run.send(device.as_mut(), from, counters)?;
            }
        }
        self.actions.clear();
        self.built.clear();
        Ok(())
    }
}

impl Run {
    /// Sends frames to one device, doing first what it does not do itself.
    fn send(
        &mut self,
        device: &mut dyn Device,
        from: &mut Frames,
        counters: &PortCounters,
    ) -> Result<(), DeviceError> {
        let features = device.features();
        if features == Features::ALL {
            counters.count_sent(device.send(from, &self.order)?);
            return Ok(());
        }
        self.whole.clear();
        for &frame in &self.order {
            let k = frame as usize;
            let mut header = from.header(k);
            if features.carries(&header) {
                self.whole.push(frame);
                continue;
            }
            match Segments::new(from.bytes(k), &header) {
                Ok(None) => match complete_checksum(from.bytes_mut(k), &mut header) {
                    Ok(()) => {
                        from.set_header(k, header);
                        self.whole.push(frame);
                        counters.count_checksum();
                    }
                    Err(_) => counters.count_bad_offload(),
                },
                Ok(Some(cut)) => {
                    self.segments.clear();
                    self.numbers.clear();
                    for n in 0..cut.count() {
                        let (len, plain) = (cut.frame_len(n), VnetHeader::default());
                        let number = self.segments.push_with(len, plain, |at| cut.write(n, at));
                        self.numbers.push(number);
                    }
                    // What came before it goes before it.
                    counters.count_sent(device.send(from, &self.whole)?);
                    self.whole.clear();
                    counters.count_sent(device.send(&mut self.segments, &self.numbers)?);
                    counters.count_segmented();
                }
                Err(_) => counters.count_bad_offload(),
            }
        }
        counters.count_sent(device.send(from, &self.whole)?);
        Ok(())
    }
}
