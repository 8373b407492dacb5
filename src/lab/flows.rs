//! Small packets of many flows, each packet of another one: what finding a flow costs a router among ever more of them.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};

use super::LabError;
use super::blast::{BATCH, PAYLOAD, receive_until};
use super::netns::Netns;

/// How many flows there are, by powers of two.
pub const COUNTS: [u32; 3] = [1 << 10, 1 << 17, 1 << 20];
/// The servers' addresses, one for each flow.
pub const PREFIX: &str = "10.128.0.0/12";
const FIRST: u32 = 0x0a80_0000;
const PORT: u16 = 7003;
/// To have seen each flow at least once, whatever was lost on the way.
const PATIENCE: Duration = Duration::from_secs(120);

/// Datagrams a second that get from one socket of `client` to `count` addresses of `server` in turn, in an order in
/// which no two neighbours follow one another. Counted once so many have got through that all flows are known.
pub fn packets_per_second(
    client: &Netns,
    server: &Netns,
    any: IpAddr,
    count: u32,
    length: Duration,
) -> Result<f64, LabError> {
    let failed = |e: std::io::Error| LabError::failed("UDP of many flows", e);
    let receiver = server.within(move || UdpSocket::bind((any, PORT)))?.map_err(failed)?;
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).map_err(|e| failed(e.into()))?;
    let sender = client.within(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.map_err(failed)?;
    let done = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let threads = [
        std::thread::spawn({
            let done = done.clone();
            move || send_until(&sender, count, &done)
        }),
        std::thread::spawn({
            let (done, received) = (done.clone(), received.clone());
            move || receive_until(&receiver, &done, &received)
        }),
    ];
    let begin = Instant::now();
    while received.load(Ordering::Relaxed) < u64::from(count) * 2 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
    std::thread::sleep(length);
    let rate = (received.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    done.store(true, Ordering::SeqCst);
    for thread in threads {
        match thread.join() {
            Ok(result) => result.map_err(|e| LabError::failed("UDP of many flows", e))?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    if before < u64::from(count) * 2 {
        return Err(LabError::failed("UDP of many flows", format!("only {before} of {count} flows' packets arrived")));
    }
    Ok(rate)
}

/// All numbers below a power of two, each once: a full-period linear congruential sequence (Hull and Dobell).
struct Order {
    at: u32,
    mask: u32,
}

impl Iterator for Order {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        self.at = self.at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & self.mask;
        // The low bits of such a sequence have short periods: they become the high ones.
        Some(self.at.reverse_bits() >> self.mask.leading_zeros())
    }
}

fn send_until(socket: &UdpSocket, count: u32, done: &AtomicBool) -> Result<(), Errno> {
    let payload = [0x5a; PAYLOAD];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let slices = [[IoSlice::new(&payload)]; BATCH];
    let mut order = Order { at: 0, mask: count - 1 };
    let mut to = [None; BATCH];
    while !done.load(Ordering::Relaxed) {
        for (to, n) in to.iter_mut().zip(&mut order) {
            let [a, b, c, d] = (FIRST | n).to_be_bytes();
            *to = Some(SockaddrIn::new(a, b, c, d, PORT));
        }
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_comes_once_in_a_round_and_no_neighbour_follows() {
        for count in COUNTS {
            let mut seen = vec![false; count as usize];
            let (mut last, mut neighbours) = (0, 0);
            for n in (Order { at: 0, mask: count - 1 }).take(count as usize) {
                assert!(!std::mem::replace(&mut seen[n as usize], true), "{n} of {count} twice");
                neighbours += u32::from(n.abs_diff(last) == 1);
                last = n;
            }
            assert!(neighbours <= count / 64, "{neighbours} of {count}");
        }
    }
}
