//! The run loop: one plain thread for each TUN queue, each with an engine of its own.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use super::tun::{Device, Tun};
use crate::engine::Engine;
use crate::stats::{Counters, Snapshot};
use crate::verdict::Verdict;
use crate::wire::PacketBuf;

/// Packets handled between two looks at the clock, the stop flag and the timers: half a millisecond of 64 KB
/// packets.
const BURST: u32 = 32;

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

#[derive(Debug)]
struct Stop {
    flag: AtomicBool,
    event: EventFd,
}

impl Stop {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
        // Never read: it stays readable for every thread.
        let _ = self.event.write(1);
    }
}

/// The running threads of one device. Dropping it stops them.
#[derive(Debug)]
pub struct Running {
    name: String,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<Result<(), RunError>>>,
    engines: Vec<Arc<Counters>>,
    queues: Vec<Arc<IoCounters>>,
    ended: mpsc::UnboundedReceiver<()>,
}

/// Starts a thread for each queue with the engine of the same index; the clock begins at 0.
pub fn start(device: Device, engines: Vec<Box<dyn Engine>>) -> Result<Running, RunError> {
    debug_assert_eq!(device.queues.len(), engines.len());
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| RunError::Start("no event descriptor", errno.to_string()))?;
    let (ended_tx, ended) = mpsc::unbounded_channel();
    let mut running = Running {
        name: device.name,
        stop: Arc::new(Stop { flag: AtomicBool::new(false), event }),
        threads: Vec::new(),
        engines: Vec::new(),
        queues: Vec::new(),
        ended,
    };
    let epoch = Instant::now();
    for (queue, (tun, engine)) in device.queues.into_iter().zip(engines).enumerate() {
        let counters = Arc::new(IoCounters::default());
        running.engines.push(engine.counters());
        running.queues.push(counters.clone());
        let worker = Queue { name: running.name.clone(), tun, engine, counters, stop: running.stop.clone(), epoch };
        let tell = EndTeller(ended_tx.clone());
        let thread = std::thread::Builder::new().name(format!("queue-{queue}")).spawn(move || {
            let _tell = tell;
            worker.run()
        });
        running.threads.push(thread.map_err(|error| RunError::Start("no thread", error.to_string()))?);
    }
    Ok(running)
}

/// Tells that a thread has ended, also by a panic.
struct EndTeller(mpsc::UnboundedSender<()>);

impl Drop for EndTeller {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Running {
    /// Returns when a thread has ended by itself; `stop` tells why.
    pub async fn ended(&mut self) {
        self.ended.recv().await;
    }

    /// The sums over all queues.
    pub fn counters(&self) -> (Snapshot, IoSnapshot) {
        let (mut engines, mut queues) = (Snapshot::default(), IoSnapshot::default());
        for engine in &self.engines {
            engines.add(&engine.snapshot());
        }
        for queue in &self.queues {
            queues.add(&queue.snapshot());
        }
        (engines, queues)
    }

    /// Stops every thread, closes the device and returns the first error.
    pub fn stop(&mut self) -> Result<(), RunError> {
        self.stop.set();
        let mut result = Ok(());
        for (queue, thread) in self.threads.drain(..).enumerate() {
            let ended = thread.join().unwrap_or_else(|_| Err(RunError::Panicked(self.name.clone(), queue)));
            if result.is_ok() {
                result = ended;
            }
        }
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

struct Queue {
    name: String,
    tun: Tun,
    engine: Box<dyn Engine>,
    counters: Arc<IoCounters>,
    stop: Arc<Stop>,
    epoch: Instant,
}

impl Queue {
    fn run(mut self) -> Result<(), RunError> {
        let mut packet = PacketBuf::new();
        while !self.stop.is_set() {
            let now = self.epoch.elapsed();
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
                    Err(Errno::EBADFD | Errno::EFAULT) => return Err(RunError::Gone(self.name)),
                    Err(errno) => return Err(RunError::Read(self.name, errno)),
                }
            }
        }
        Ok(())
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

    /// Until a packet comes, the next timer is due, or all is to stop.
    fn wait(&self) -> Result<(), RunError> {
        bump(&self.counters.waits);
        let timeout = match self.engine.poll_timeout() {
            None => PollTimeout::NONE,
            Some(at) => {
                // Up: a millisecond early would be a turn for nothing.
                let wait = at.saturating_sub(self.epoch.elapsed()).as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(wait.min(60_000)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds =
            [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN), PollFd::new(self.stop.event.as_fd(), PollFlags::POLLIN)];
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
