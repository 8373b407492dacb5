//! Small packets as fast as one thread can: iperf3 makes one system call for each, which measures iperf3.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt};

use super::LabError;
use super::netns::Netns;

/// Datagrams for one system call.
pub const BATCH: usize = 64;
/// UDP payload in octets.
pub const PAYLOAD: usize = 64;
const PORT: u16 = 7001;
/// How long the receiver sleeps when there is nothing. A receiver that blocks is woken for each packet, which in a
/// virtual machine costs more than the packet's whole way.
const NAP: Duration = Duration::from_micros(200);

/// Datagrams a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// That left the sender.
    pub sent: f64,
    /// That the receiver got.
    pub received: f64,
}

/// Sends from `client` to `address` in `server` at full speed and counts what arrives. The first half second
/// is not counted.
pub fn packets_per_second(
    client: &Netns,
    server: &Netns,
    address: Ipv4Addr,
    length: Duration,
) -> Result<Rate, LabError> {
    let failed = |e: std::io::Error| LabError::failed("64-octet UDP", e);
    let done = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let received = Arc::new(AtomicU64::new(0));
    let receiver = server.within(move || UdpSocket::bind((address, PORT)))?.map_err(failed)?;
    let sender = client.within(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.map_err(failed)?;
    sender.connect(SocketAddrV4::new(address, PORT)).map_err(failed)?;
    // Room for what comes while the receiver naps, whatever the machine's limit is.
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).map_err(|e| failed(e.into()))?;

    let threads = [
        std::thread::spawn({
            let (done, sent) = (done.clone(), sent.clone());
            move || send_until(&sender, &done, &sent)
        }),
        std::thread::spawn({
            let (done, received) = (done.clone(), received.clone());
            move || receive_until(&receiver, &done, &received)
        }),
    ];
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    let count = || (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    let before = count();
    std::thread::sleep(length);
    let after = count();
    let seconds = start.elapsed().as_secs_f64();
    done.store(true, Ordering::SeqCst);
    for thread in threads {
        match thread.join() {
            Ok(result) => result.map_err(|e| LabError::failed("64-octet UDP", e))?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(Rate { sent: (after.0 - before.0) as f64 / seconds, received: (after.1 - before.1) as f64 / seconds })
}

fn send_until(socket: &UdpSocket, done: &AtomicBool, sent: &AtomicU64) -> Result<(), Errno> {
    let payload = [0x5a; PAYLOAD];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let slices = [[IoSlice::new(&payload)]; BATCH];
    let nowhere = [None; BATCH];
    while !done.load(Ordering::Relaxed) {
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nowhere, [], MsgFlags::empty()) {
            Ok(results) => drop(sent.fetch_add(results.count() as u64, Ordering::Relaxed)),
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Counts what comes to a socket of either family.
pub fn receive_until(socket: &UdpSocket, done: &AtomicBool, received: &AtomicU64) -> Result<(), Errno> {
    let mut room = vec![[0; PAYLOAD]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    while !done.load(Ordering::Relaxed) {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = room.iter_mut().map(|one| [IoSliceMut::new(one)]).collect();
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => drop(received.fetch_add(results.count() as u64, Ordering::Relaxed)),
            Err(Errno::EAGAIN) => std::thread::sleep(NAP),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The median round trip of one small datagram at a time.
pub fn ping_pong(client: &Netns, server: &Netns, address: Ipv4Addr, rounds: usize) -> Result<Duration, LabError> {
    let failed = |e: std::io::Error| LabError::failed("UDP ping-pong", e);
    let echo = server.within(move || UdpSocket::bind((address, PORT)))?.map_err(failed)?;
    let ours = client.within(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.map_err(failed)?;
    for socket in [&echo, &ours] {
        socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(failed)?;
    }
    ours.connect(SocketAddrV4::new(address, PORT)).map_err(failed)?;
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let thread = std::thread::spawn(move || {
        let mut room = [0; PAYLOAD];
        while !finished.load(Ordering::Relaxed) {
            if let Ok((length, from)) = echo.recv_from(&mut room) {
                let _ = echo.send_to(&room[..length], from);
            }
        }
    });
    let mut times = Vec::with_capacity(rounds);
    let mut room = [0; PAYLOAD];
    for _ in 0..rounds {
        let start = Instant::now();
        let _ = ours.send(&[0x5a; PAYLOAD]);
        match ours.recv(&mut room) {
            Ok(_) => times.push(start.elapsed()),
            // Late answers must not be taken for the next.
            Err(_) if times.len() < rounds / 10 => continue,
            Err(_) => break,
        }
    }
    done.store(true, Ordering::SeqCst);
    let _ = thread.join();
    times.sort();
    times.get(times.len() / 2).copied().ok_or_else(|| LabError::failed("UDP ping-pong", "no answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_sent_and_counted_over_loopback() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let done = AtomicBool::new(false);
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| send_until(&sender, &done, &sent).unwrap());
            scope.spawn(|| receive_until(&receiver, &done, &received).unwrap());
            let start = Instant::now();
            while received.load(Ordering::Relaxed) < 1000 && start.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
        });
        let (sent, received) = (sent.into_inner(), received.into_inner());
        assert!(received >= 1000 && received <= sent, "{received} of {sent}");
    }
}
