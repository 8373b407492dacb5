//! Connections as fast as they come: connect, ask, be answered, close.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::LabError;
use super::netns::Netns;

/// Servers: 198.18.0.1 and up (RFC 2544's addresses), all in one namespace.
pub const SERVERS: u8 = 100;
/// Where they are.
pub const SERVERS_PREFIX: &str = "198.18.0.0/25";
const PORT: u16 = 7002;
/// Threads of the client where there are to be many, as many of the server.
pub const CLIENTS: usize = 32;
/// A connection that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Octets of a question and of its answer.
const LENGTH: usize = 128;

/// What came of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connections {
    /// A second, answered and closed.
    pub rate: f64,
    /// In percent of all.
    pub failed: f64,
    /// Milliseconds from connect to the answer.
    pub median: f64,
    /// The same, of which 99 % took less.
    pub slow: f64,
}

#[derive(Default)]
struct Tally {
    /// For the client; the server goes on until the last connection has its answer.
    done: AtomicBool,
    ended: AtomicBool,
    counting: AtomicBool,
    good: AtomicU64,
    failed: AtomicU64,
    micros: Mutex<Vec<u32>>,
}

/// Opens and closes connections from `client` to all servers in turn for `length`, one after another in each of
/// `clients` threads. The first second is not counted.
/// The server listens at `any`, the unspecified address of its family.
pub fn measure(
    client: &Netns,
    server: &Netns,
    any: IpAddr,
    clients: usize,
    length: Duration,
) -> Result<Connections, LabError> {
    let failed = |e: io::Error| LabError::failed("connect and close", e);
    let listener = server.within(move || TcpListener::bind((any, PORT)))?.map_err(failed)?;
    let errno = |e: nix::Error| LabError::failed("listen", e);
    // Again, with a longer queue than the standard library's.
    listen(&listener, Backlog::new(4096).map_err(errno)?).map_err(errno)?;
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200)).map_err(errno)?;
    let listener = Arc::new(listener);
    let tally = Arc::new(Tally::default());
    let (mut askers, mut servers) = (Vec::new(), Vec::new());
    for thread in 0..clients {
        let (ours, listener) = (tally.clone(), listener.clone());
        servers.push(std::thread::spawn(move || serve(&listener, &ours)));
        let ours = tally.clone();
        askers.push(client.spawn(move || ask(thread, clients, &ours))?);
    }
    std::thread::sleep(Duration::from_secs(1));
    tally.counting.store(true, Ordering::SeqCst);
    let start = Instant::now();
    std::thread::sleep(length);
    let (good, bad) = (tally.good.load(Ordering::SeqCst), tally.failed.load(Ordering::SeqCst));
    let seconds = start.elapsed().as_secs_f64();
    tally.done.store(true, Ordering::SeqCst);
    for thread in askers {
        match thread.join() {
            Ok(result) => result.map_err(failed)?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    tally.ended.store(true, Ordering::SeqCst);
    for thread in servers {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    let mut micros = std::mem::take(&mut *tally.micros.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    micros.sort_unstable();
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).map_or(f64::NAN, |&x| f64::from(x) / 1e3);
    let all = (good + bad).max(1);
    Ok(Connections {
        rate: good as f64 / seconds,
        failed: 100.0 * bad as f64 / all as f64,
        median: at(0.5),
        slow: at(0.99),
    })
}

fn ask(thread: usize, threads: usize, tally: &Tally) {
    let mut micros = Vec::new();
    for n in 0usize.. {
        if tally.done.load(Ordering::Relaxed) {
            break;
        }
        let last = 1 + ((n * threads + thread) % usize::from(SERVERS)) as u8;
        let start = Instant::now();
        let result = one(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, last), PORT), n as u8);
        if tally.counting.load(Ordering::Relaxed) && !tally.done.load(Ordering::Relaxed) {
            match result {
                Ok(()) => {
                    tally.good.fetch_add(1, Ordering::Relaxed);
                    micros.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                Err(_) => drop(tally.failed.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }
    tally.micros.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&mut micros);
}

fn one(to: SocketAddrV4, mark: u8) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[mark; LENGTH])?;
    let mut answer = [0; LENGTH];
    stream.read_exact(&mut answer)?;
    if answer == [!mark; LENGTH] { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

fn serve(listener: &TcpListener, tally: &Tally) {
    while !tally.ended.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            // What went wrong, the client counts.
            let _ = answer(stream);
        }
    }
}

/// Answers one question, and waits until the other end closes.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut octets = [0; LENGTH];
    stream.read_exact(&mut octets)?;
    for octet in &mut octets {
        *octet = !*octet;
    }
    stream.write_all(&octets)?;
    stream.read(&mut octets).map(drop)
}
