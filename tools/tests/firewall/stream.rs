//! A long TCP transfer, watched while policies change.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sgwall_netio::netns::Scratch;

use crate::clients::{at, connect, listen};
use crate::lab::{PATIENCE, SILENCE, eventually};

/// A transfer that goes on until dropped, at a pace that leaves the machine to others. The receiver
/// compares every byte.
pub(crate) struct Stream {
    received: Arc<AtomicU64>,
    is_wrong: Arc<AtomicBool>,
    ends: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

/// Bytes sent at once, and then nothing for [`PAUSE`].
const CHUNK: usize = 20_000;
const PAUSE: Duration = Duration::from_millis(5);

/// The byte at a place of the stream.
const fn byte(place: u64) -> u8 {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Stream {
    /// Connects from one host to another and begins to send.
    pub(crate) fn start(from: &Scratch, to: &Scratch, address: &str, port: u16) -> Stream {
        let at = at(address, port);
        let listener = listen(to, &at.to_string());
        let mut source = connect(from, at, PATIENCE).expect("connected");
        let (mut sink, _) = listener.accept().expect("a connection");
        let ends = [&source, &sink].map(|end| end.try_clone().expect("a copy"));
        let received = Arc::new(AtomicU64::new(0));
        let is_wrong = Arc::new(AtomicBool::new(false));
        let (count, wrong) = (Arc::clone(&received), Arc::clone(&is_wrong));
        let sender = std::thread::spawn(move || {
            for place in (0..).step_by(CHUNK) {
                let chunk: Vec<u8> = (place..place + CHUNK as u64).map(byte).collect();
                if source.write_all(&chunk).is_err() {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        });
        let receiver = std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(len @ 1..) = sink.read(&mut buffer) {
                let place = count.load(Ordering::Relaxed);
                if !(place..).zip(&buffer[..len]).all(|(place, found)| byte(place) == *found) {
                    wrong.store(true, Ordering::Release);
                }
                count.fetch_add(len as u64, Ordering::Release);
            }
        });
        Stream { received, is_wrong, ends, threads: vec![sender, receiver] }
    }

    fn received(&self) -> u64 {
        assert!(!self.is_wrong.load(Ordering::Acquire), "the bytes differ");
        self.received.load(Ordering::Acquire)
    }

    /// Far more arrives than was on its way when asked.
    pub(crate) fn goes_on(&self) {
        let begin = self.received();
        eventually("the transfer goes on", || self.received() > begin + 1_000_000);
    }

    /// Nothing arrives any more, but what the receiver had on its way when asked.
    pub(crate) fn is_cut(&self) {
        let begin = self.received();
        std::thread::sleep(SILENCE);
        let after = self.received();
        assert!(after - begin < 500_000, "{} bytes arrived after the cut", after - begin);
        std::thread::sleep(SILENCE);
        assert_eq!(self.received(), after, "the transfer still goes on");
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
