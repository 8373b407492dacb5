//! The run loop: one plain thread for each TUN queue, each with an engine of its own.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{mpsc, oneshot};

use super::mend::Upkeep;
use super::tun::{Device, Tun};
use crate::engine::Engine;
use crate::ops::counters::{self as ops, DeviceIo};
use crate::stats::{Counters, Snapshot};
use crate::verdict::Verdict;
use crate::wire::PacketBuf;

/// Packets handled between two looks at the clock, the stop flag and the timers: half a millisecond of 64 KB
/// packets.
const BURST: u32 = 32;

/// Where the engines' clock begins: flows that a former process left began to idle before this one, the longest idle
/// time being a week.
pub const BEGIN: Duration = Duration::from_secs(700_000);

/// Errors of device writes that have a counter of their own.
const WRITE_ERRORS: [(Errno, &str); 6] = [
    (Errno::EINVAL, "EINVAL: the kernel refuses the packet or its offload request"),
    (Errno::EIO, "EIO: the device is down"),
    (Errno::ENOBUFS, "ENOBUFS: no buffer"),
    (Errno::ENOMEM, "ENOMEM: no memory"),
    (Errno::EAGAIN, "EAGAIN: the device's send buffer is full"),
    (Errno::EMSGSIZE, "EMSGSIZE: the packet is too long for the device"),
];

/// Counters of one queue's device I/O. Written by its thread alone.
#[derive(Debug, Default)]
pub struct IoCounters {
    reads: AtomicU64,
    short_reads: AtomicU64,
    writes: AtomicU64,
    waits: AtomicU64,
    write_errors: [AtomicU64; WRITE_ERRORS.len() + 1],
}

fn bump(cell: &AtomicU64) {
    // One writer: no locked instruction.
    cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl IoCounters {
    #[cold]
    fn write_error(&self, errno: Errno) {
        let index = WRITE_ERRORS.iter().position(|(e, _)| *e == errno).unwrap_or(WRITE_ERRORS.len());
        bump(&self.write_errors[index]);
    }

    /// What they hold now.
    pub fn snapshot(&self) -> IoSnapshot {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        IoSnapshot {
            reads: get(&self.reads),
            short_reads: get(&self.short_reads),
            writes: get(&self.writes),
            waits: get(&self.waits),
            write_errors: std::array::from_fn(|i| get(&self.write_errors[i])),
        }
    }
}

/// I/O counters as they were at one moment; sums over queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoSnapshot {
    /// Packets read from the device.
    pub reads: u64,
    /// Reads without even a virtio header.
    pub short_reads: u64,
    /// Packets that the device took.
    pub writes: u64,
    /// How often a thread had to wait for a packet.
    pub waits: u64,
    write_errors: [u64; WRITE_ERRORS.len() + 1],
}

impl IoSnapshot {
    /// Packets that the device did not take.
    pub fn write_errors_total(&self) -> u64 {
        self.write_errors.iter().sum()
    }

    /// Packets that the device did not take, by error; those that did not happen are left out.
    pub fn write_errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = WRITE_ERRORS.iter().map(|(_, name)| *name).chain(["another error"]);
        names.zip(self.write_errors).filter(|(_, count)| *count > 0)
    }

    fn add(&mut self, other: &IoSnapshot) {
        self.reads += other.reads;
        self.short_reads += other.short_reads;
        self.writes += other.writes;
        self.waits += other.waits;
        for (mine, theirs) in self.write_errors.iter_mut().zip(other.write_errors) {
            *mine += theirs;
        }
    }
}

impl From<IoSnapshot> for DeviceIo {
    fn from(io: IoSnapshot) -> DeviceIo {
        DeviceIo {
            read: io.reads,
            written: io.writes,
            refused: io.write_errors_total(),
            waits: io.waits,
            short_reads: io.short_reads,
            errors: io.write_errors().map(|(error, count)| (error.to_owned(), count)).collect(),
        }
    }
}

/// The counters of every queue, readable while they count.
#[derive(Clone, Debug)]
pub struct Meters {
    engines: Vec<Arc<Counters>>,
    queues: Vec<Arc<IoCounters>>,
    epoch: Instant,
    /// How the routes fare.
    pub upkeep: Arc<Upkeep>,
}

impl Meters {
    /// By queue.
    pub fn by_queue(&self) -> impl Iterator<Item = (Snapshot, IoSnapshot)> + '_ {
        self.engines.iter().zip(&self.queues).map(|(engine, queue)| (engine.snapshot(), queue.snapshot()))
    }

    /// The sums over all queues.
    pub fn sum(&self) -> (Snapshot, IoSnapshot) {
        let mut sum = (Snapshot::default(), IoSnapshot::default());
        for (engine, queue) in self.by_queue() {
            sum.0.add(&engine);
            sum.1.add(&queue);
        }
        sum
    }

    /// Since the threads began.
    pub fn uptime(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The sums as others are told of them.
    pub fn document(&self) -> ops::Counters {
        let (engines, io) = self.sum();
        let routes_restored = self.upkeep.restored();
        ops::Counters { routes_restored, ..ops::Counters::of(&engines, io.into(), self.uptime().as_secs_f64()) }
    }
}

/// Why a thread ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The device is gone.
    #[error("TUN device `{0}` was removed while it was in use")]
    Gone(String),
    /// It cannot be read or waited for.
    #[error("TUN device `{0}` cannot be read: {1}")]
    Read(String, Errno),
    /// A defect of ours.
    #[error("the thread of queue {1} of TUN device `{0}` panicked; this is a defect of mapt")]
    Panicked(String, usize),
    /// No thread, no event descriptor.
    #[error("{0}: {1}")]
    Start(&'static str, String),
}

/// What a queue's thread does with its engine between two bursts.
type Job<E> = Box<dyn FnOnce(&mut E, Duration) + Send>;

/// What waits for a queue's thread. The data path looks at `waiting` alone.
struct Inbox<E> {
    /// `None` where nobody will take them any more.
    jobs: Mutex<Option<Vec<Job<E>>>>,
    waiting: AtomicBool,
    stop: AtomicBool,
    bell: EventFd,
}

impl<E> Inbox<E> {
    fn new() -> Result<Inbox<E>, RunError> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| RunError::Start("no event descriptor", errno.to_string()))?;
        Ok(Inbox {
            jobs: Mutex::new(Some(Vec::new())),
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            bell,
        })
    }

    fn ring(&self) {
        let _ = self.bell.write(1);
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ring();
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn post(&self, job: Job<E>) {
        if let Some(jobs) = &mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            jobs.push(job);
            self.waiting.store(true, Ordering::Release);
        }
        self.ring();
    }

    #[cold]
    fn take(&self) -> Vec<Job<E>> {
        let _ = self.bell.read();
        self.waiting.store(false, Ordering::Release);
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Drops what waits and what comes.
    fn close(&self) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<E> std::fmt::Debug for Inbox<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// A way to a queue's engine from another thread.
#[derive(Debug)]
pub struct Jobs<E>(Arc<Inbox<E>>);

impl<E> Clone for Jobs<E> {
    fn clone(&self) -> Self {
        Jobs(Arc::clone(&self.0))
    }
}

impl<E: 'static> Jobs<E> {
    /// Has the queue's thread do something with its engine between two bursts, and waits for the answer; what the
    /// engine then has to send is sent. Packets wait meanwhile: bounded work, some microseconds. `None` where the
    /// thread has ended.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut E, Duration) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.0.post(Box::new(move |engine, now| {
            // Nobody waits any more: done all the same.
            let _ = tell.send(work(engine, now));
        }));
        told.await.ok()
    }
}

/// The running threads of one device. Dropping it stops them.
#[derive(Debug)]
pub struct Running<E> {
    name: String,
    threads: Vec<JoinHandle<(E, Result<(), RunError>)>>,
    inboxes: Vec<Arc<Inbox<E>>>,
    meters: Meters,
    ended: mpsc::UnboundedReceiver<()>,
    epoch: Instant,
}

/// What is left of threads that have ended.
#[derive(Debug)]
pub struct Stopped<E> {
    /// The engines, without those of threads that panicked.
    pub engines: Vec<E>,
    /// The first error of a thread.
    pub result: Result<(), RunError>,
    /// The time of the engines' clock.
    pub now: Duration,
}

/// Starts a thread for each queue with the engine of the same index; the clock begins at `BEGIN`.
pub fn start<E: Engine + 'static>(device: Device, engines: Vec<E>) -> Result<Running<E>, RunError> {
    debug_assert_eq!(device.queues.len(), engines.len());
    let (ended_tx, ended) = mpsc::unbounded_channel();
    let epoch = Instant::now();
    let mut running = Running {
        name: device.name,
        threads: Vec::new(),
        inboxes: Vec::new(),
        meters: Meters { engines: Vec::new(), queues: Vec::new(), epoch, upkeep: Arc::default() },
        ended,
        epoch,
    };
    for (queue, (tun, engine)) in device.queues.into_iter().zip(engines).enumerate() {
        let counters = Arc::new(IoCounters::default());
        let inbox = Arc::new(Inbox::new()?);
        running.meters.engines.push(engine.counters());
        running.meters.queues.push(counters.clone());
        running.inboxes.push(inbox.clone());
        let worker = Queue { name: running.name.clone(), tun, engine, counters, inbox: inbox.clone(), epoch };
        let tell = EndTeller(ended_tx.clone(), inbox);
        let thread = std::thread::Builder::new().name(format!("queue-{queue}")).spawn(move || {
            let _tell = tell;
            worker.run()
        });
        running.threads.push(thread.map_err(|error| RunError::Start("no thread", error.to_string()))?);
    }
    Ok(running)
}

/// Tells that a thread has ended, also by a panic.
struct EndTeller<E>(mpsc::UnboundedSender<()>, Arc<Inbox<E>>);

impl<E> Drop for EndTeller<E> {
    fn drop(&mut self) {
        self.1.close();
        let _ = self.0.send(());
    }
}

impl<E> Running<E> {
    /// Returns when a thread has ended by itself; `stop` tells why.
    pub async fn ended(&mut self) {
        self.ended.recv().await;
    }

    /// Ways to the engines, by queue.
    pub fn jobs(&self) -> Vec<Jobs<E>> {
        self.inboxes.iter().map(|inbox| Jobs(Arc::clone(inbox))).collect()
    }

    /// The counters of all queues, for whoever reads them.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// What else is counted.
    pub fn count_also(&mut self, upkeep: Arc<Upkeep>) {
        self.meters.upkeep = upkeep;
    }

    /// Stops every thread and closes the device.
    pub fn stop(&mut self) -> Stopped<E> {
        self.inboxes.iter().for_each(|inbox| inbox.stop());
        let mut stopped = Stopped { engines: Vec::new(), result: Ok(()), now: BEGIN };
        for (queue, thread) in self.threads.drain(..).enumerate() {
            let result = match thread.join() {
                Ok((engine, result)) => {
                    stopped.engines.push(engine);
                    result
                }
                Err(_) => Err(RunError::Panicked(self.name.clone(), queue)),
            };
            if stopped.result.is_ok() {
                stopped.result = result;
            }
        }
        stopped.now += self.epoch.elapsed();
        stopped
    }
}

impl<E> Drop for Running<E> {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

struct Queue<E> {
    name: String,
    tun: Tun,
    engine: E,
    counters: Arc<IoCounters>,
    inbox: Arc<Inbox<E>>,
    epoch: Instant,
}

impl<E: Engine> Queue<E> {
    fn run(mut self) -> (E, Result<(), RunError>) {
        let result = self.translate();
        (self.engine, result)
    }

    fn translate(&mut self) -> Result<(), RunError> {
        let mut packet = PacketBuf::new();
        while !self.inbox.is_stopped() {
            let now = self.now();
            if self.inbox.waiting.load(Ordering::Acquire) {
                self.work(now)?;
            }
            if self.engine.poll_timeout().is_some_and(|at| at <= now) {
                self.engine.handle_timeout(now);
                self.send_waiting()?;
            }
            for _ in 0..BURST {
                match self.tun.recv(&mut packet) {
                    Ok(true) => self.handle(&mut packet, now)?,
                    Ok(false) => bump(&self.counters.short_reads),
                    Err(Errno::EAGAIN) => {
                        self.wait()?;
                        break;
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EBADFD | Errno::EFAULT) => return Err(RunError::Gone(self.name.clone())),
                    Err(errno) => return Err(RunError::Read(self.name.clone(), errno)),
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn now(&self) -> Duration {
        BEGIN + self.epoch.elapsed()
    }

    #[cold]
    fn work(&mut self, now: Duration) -> Result<(), RunError> {
        for job in self.inbox.take() {
            job(&mut self.engine, now);
        }
        self.send_waiting()
    }

    #[inline]
    fn handle(&mut self, packet: &mut PacketBuf, now: Duration) -> Result<(), RunError> {
        bump(&self.counters.reads);
        if let Verdict::Forward = self.engine.handle(packet, now) {
            send(&self.tun, &self.counters, &self.name, packet)?;
        }
        self.send_waiting()
    }

    #[inline]
    fn send_waiting(&mut self) -> Result<(), RunError> {
        while let Some((_, packet)) = self.engine.poll_transmit() {
            send(&self.tun, &self.counters, &self.name, packet)?;
        }
        Ok(())
    }

    /// Until a packet comes, the next timer is due, or somebody rings.
    fn wait(&self) -> Result<(), RunError> {
        bump(&self.counters.waits);
        let timeout = match self.engine.poll_timeout() {
            None => PollTimeout::NONE,
            Some(at) => {
                // Up: a millisecond early would be a turn for nothing.
                let wait = at.saturating_sub(self.now()).as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(wait.min(60_000)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds =
            [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN), PollFd::new(self.inbox.bell.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(RunError::Read(self.name.clone(), errno)),
        }
        let failed = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if fds[0].revents().is_some_and(|events| events.intersects(failed)) {
            return Err(RunError::Gone(self.name.clone()));
        }
        Ok(())
    }
}

#[inline]
fn send(tun: &Tun, counters: &IoCounters, name: &str, packet: &mut PacketBuf) -> Result<(), RunError> {
    match tun.send(packet) {
        Ok(()) => bump(&counters.writes),
        Err(Errno::EINTR) => match tun.send(packet) {
            Ok(()) => bump(&counters.writes),
            Err(errno) => counters.write_error(errno),
        },
        Err(Errno::EBADFD) => return Err(RunError::Gone(name.to_owned())),
        Err(errno) => counters.write_error(errno),
    }
    Ok(())
}
