//! Workers: threads that move frames between devices through a handler.
//!
//! Worker *n* owns queue *n* of every port, its handler and its memory, and shares nothing but
//! counters, which it alone writes. It reads a batch from a port, asks the clock once, hands the
//! batch to its [`Handler`], and writes what the handler forwarded or built, in that order. It
//! makes no system calls but to read, to write and to wait, and allocates nothing once its buffers
//! have grown. Frames that nobody forwards are dropped: that is the default.
//!
//! A worker ends when it is told to, when a device fails, or when its handler panics; then all
//! workers of the set end, their devices close, and no frame passes any more. Whoever spawned them
//! learns why from [`Workers::join`].

mod counters;
mod forward;
mod output;

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Errno;
use sgwall_packet::Timestamp;
use thiserror::Error;

use crate::clock::Clock;
use crate::device::{Device, DeviceError, Frames};

pub use counters::{PortCounters, PortStats};
pub use forward::NullForwarder;
pub use output::Output;

/// The longest time between two calls of [`Handler::idle`].
pub const IDLE: Duration = Duration::from_millis(100);

/// What to do with frames. One worker owns it.
pub trait Handler: Send {
    /// Looks at a batch that was read from `port`, at time `now`, and tells `out` what to forward
    /// and what else to send. It may change frames in place.
    fn batch(&mut self, now: Timestamp, port: usize, frames: &mut Frames, out: &mut Output);

    /// Called at least every [`IDLE`], with or without traffic, and when the worker was woken.
    fn idle(&mut self, now: Timestamp, out: &mut Output);
}

impl<H: Handler + ?Sized> Handler for Box<H> {
    fn batch(&mut self, now: Timestamp, port: usize, frames: &mut Frames, out: &mut Output) {
        (**self).batch(now, port, frames, out);
    }

    fn idle(&mut self, now: Timestamp, out: &mut Output) {
        (**self).idle(now, out);
    }
}

/// One worker before it runs: its queue of every port, and its handler.
pub struct Plan<H> {
    /// One device a port; the index is the port's number.
    pub devices: Vec<Box<dyn Device>>,
    /// What to do with their frames.
    pub handler: H,
}

/// Why a worker ended before it was told to.
#[derive(Debug, Error)]
pub enum WorkerFailure {
    /// A device cannot be used any more.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The handler panicked.
    #[error("the packet handler panicked: {0}")]
    Panic(String),
    /// The system refused what a worker needs.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl WorkerFailure {
    fn io(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| WorkerFailure::Io { what, source: errno.into() }
    }
}

/// How a worker ended.
#[derive(Debug)]
pub struct Ended<H> {
    /// Its number.
    pub worker: usize,
    /// Whether it was told to, or what happened.
    pub result: Result<(), WorkerFailure>,
    /// Its handler, unless that panicked.
    pub handler: Option<H>,
}

/// What a worker's thread leaves behind.
type ThreadEnd<H> = (Result<(), WorkerFailure>, Option<H>);

/// A set of running workers. Dropping it stops them.
#[derive(Debug)]
pub struct Workers<H> {
    threads: Vec<JoinHandle<ThreadEnd<H>>>,
    counters: Vec<Arc<[PortCounters]>>,
    shared: Arc<Shared>,
}

/// What workers and their owner tell each other.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Whether a worker has ended, and whom to tell.
    has_ended: Mutex<bool>,
    ends: Condvar,
    wakers: Vec<Waker>,
}

/// Makes a sleeping worker look around.
#[derive(Debug)]
struct Waker {
    event: OwnedFd,
    is_set: AtomicBool,
}

impl Shared {
    fn wake(&self) {
        for waker in &self.wakers {
            waker.is_set.store(true, Ordering::Release);
            // It fails only where the counter is at its end, and then the worker wakes anyway.
            let _ = rustix::io::write(&waker.event, &1u64.to_ne_bytes());
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }
}

/// Stops the whole set when one worker ends, however it ends.
struct StopAll(Arc<Shared>);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stop();
        *self.0.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.ends.notify_all();
    }
}

impl<H: Handler + 'static> Workers<H> {
    /// Starts a thread for each plan.
    ///
    /// # Errors
    /// If the system gives no thread or no descriptors; then none runs.
    pub fn spawn(clock: Clock, plans: Vec<Plan<H>>) -> Result<Self, WorkerFailure> {
        let mut wakers = Vec::with_capacity(plans.len());
        for _ in &plans {
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
            let event = rustix::event::eventfd(0, flags)
                .map_err(WorkerFailure::io("make an event descriptor"))?;
            wakers.push(Waker { event, is_set: AtomicBool::new(false) });
        }
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            has_ended: Mutex::new(false),
            ends: Condvar::new(),
            wakers,
        });
        let mut workers =
            Workers { threads: Vec::new(), counters: Vec::new(), shared: Arc::clone(&shared) };
        for (number, Plan { devices, mut handler }) in plans.into_iter().enumerate() {
            let counters: Arc<[PortCounters]> =
                devices.iter().map(|_| PortCounters::default()).collect();
            workers.counters.push(Arc::clone(&counters));
            let mut worker = Worker::new(number, devices, counters, clock, Arc::clone(&shared))?;
            let end = StopAll(Arc::clone(&shared));
            let thread = thread::Builder::new().name(format!("sgwall-{number}")).spawn(move || {
                let _end = end;
                match catch_unwind(AssertUnwindSafe(|| worker.run(&mut handler))) {
                    Ok(result) => (result, Some(handler)),
                    Err(panic) => (Err(WorkerFailure::Panic(panic_message(&*panic))), None),
                }
            });
            let thread = thread
                .map_err(|source| WorkerFailure::Io { what: "start a worker thread", source })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }
}

impl<H> Workers<H> {
    /// The counters of each worker: one of each port.
    #[must_use]
    pub fn counters(&self) -> &[Arc<[PortCounters]>] {
        &self.counters
    }

    /// Makes every worker call [`Handler::idle`] soon: there is news for the handler.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Tells the workers to end after the batch in hand.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits until a worker has ended, at most `timeout`; true if one has.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let has_ended = self.shared.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.ends.wait_timeout_while(has_ended, timeout, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Stops the workers, waits for them, and says how each ended.
    #[must_use]
    pub fn join(mut self) -> Vec<Ended<H>> {
        self.shared.stop();
        let mut ended = Vec::with_capacity(self.threads.len());
        for (worker, thread) in self.threads.drain(..).enumerate() {
            let (result, handler) = thread
                .join()
                .unwrap_or_else(|panic| (Err(WorkerFailure::Panic(panic_message(&*panic))), None));
            ended.push(Ended { worker, result, handler });
        }
        ended
    }
}

impl<H> Drop for Workers<H> {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // How it ended is of interest to `join` alone.
            let _ = thread.join();
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
        .to_owned()
}

/// One worker: what its thread owns.
struct Worker {
    number: usize,
    devices: Vec<Box<dyn Device>>,
    counters: Arc<[PortCounters]>,
    clock: Clock,
    shared: Arc<Shared>,
    poll: OwnedFd,
    /// Which ports may have frames.
    ready: Vec<bool>,
    frames: Frames,
    out: Output,
}

impl Worker {
    fn new(
        number: usize,
        devices: Vec<Box<dyn Device>>,
        counters: Arc<[PortCounters]>,
        clock: Clock,
        shared: Arc<Shared>,
    ) -> Result<Self, WorkerFailure> {
        let failed = || WorkerFailure::io("watch a device");
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed())?;
        for (port, device) in devices.iter().enumerate() {
            let data = epoll::EventData::new_u64(port as u64);
            epoll::add(&poll, device.readiness(), data, epoll::EventFlags::IN).map_err(failed())?;
        }
        if let Some(waker) = shared.wakers.get(number) {
            let data = epoll::EventData::new_u64(devices.len() as u64);
            epoll::add(&poll, waker.event.as_fd(), data, epoll::EventFlags::IN).map_err(failed())?;
        }
        let ready = vec![true; devices.len()];
        let out = Output::new(devices.len());
        let frames = Frames::new();
        Ok(Worker { number, devices, counters, clock, shared, poll, ready, frames, out })
    }

    /// Works until told to stop.
    fn run(&mut self, handler: &mut impl Handler) -> Result<(), WorkerFailure> {
        let mut now = self.clock.now();
        let mut next_idle = now;
        loop {
            for port in 0..self.devices.len() {
                if self.ready[port] {
                    now = self.serve(port, handler)?;
                }
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            if now >= next_idle || self.take_wake() {
                handler.idle(now, &mut self.out);
                self.flush()?;
                next_idle = now.after(IDLE);
            }
            if !self.ready.contains(&true) {
                self.sleep(next_idle.since(now))?;
                now = self.clock.now();
            }
        }
    }

    /// Reads a batch from `port` and carries out what the handler says; the answer is the batch's
    /// time.
    fn serve(
        &mut self,
        port: usize,
        handler: &mut impl Handler,
    ) -> Result<Timestamp, WorkerFailure> {
        self.frames.clear();
        self.ready[port] = self.devices[port].receive(&mut self.frames)?;
        let now = self.clock.now();
        self.counters[port].count_received(&self.frames);
        if !self.frames.is_empty() {
            handler.batch(now, port, &mut self.frames, &mut self.out);
            self.flush()?;
        }
        Ok(now)
    }

    fn flush(&mut self) -> Result<(), WorkerFailure> {
        self.out.flush(&mut self.frames, &mut self.devices, &self.counters)?;
        Ok(())
    }

    /// Whether somebody called, since last asked.
    fn take_wake(&self) -> bool {
        let waker = self.shared.wakers.get(self.number);
        waker.is_some_and(|waker| {
            waker.is_set.load(Ordering::Acquire) && waker.is_set.swap(false, Ordering::AcqRel)
        })
    }

    /// Waits for frames, a call, or the time to pass.
    fn sleep(&mut self, at_most: Duration) -> Result<(), WorkerFailure> {
        let timeout = Timespec {
            tv_sec: at_most.as_secs() as i64,
            tv_nsec: i64::from(at_most.subsec_nanos()),
        };
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [nothing; 16];
        let count = match epoll::wait(&self.poll, &mut events, Some(&timeout)) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(WorkerFailure::io("wait for frames")(errno)),
        };
        for event in events.iter().take(count) {
            let data = event.data;
            match self.ready.get_mut(data.u64() as usize) {
                Some(ready) => *ready = true,
                None => self.drain_wakes(),
            }
        }
        Ok(())
    }

    fn drain_wakes(&self) {
        if let Some(waker) = self.shared.wakers.get(self.number) {
            // Empty if it was drained already.
            let _ = rustix::io::read(&waker.event, &mut [0; 8]);
        }
    }
}
