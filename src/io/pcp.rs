//! The sockets of the PCP server. Each request is handled between two bursts by the thread that owns the NAPT, one at a
//! time, so that whoever floods the server takes little from the packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::run::Jobs;
use crate::config::PcpConfig;
use crate::ops::engine::Machine;
use crate::pcp::{CLIENT_PORT, MAX_MESSAGE, Pcp, PcpParams, SERVER_PORT};

/// All hosts of a link.
const EVERYBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)), CLIENT_PORT);
/// Requests that wait; more are dropped.
const WAITING: usize = 64;
/// Requests a second, and as many at once.
const RATE: u32 = 200;
/// How often a new outside address is looked for where nobody tells of one.
const LOOK: Duration = Duration::from_secs(60);

/// An address of `pcp.listen` that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("`pcp.listen`: {}", why(.0, .1))]
pub struct PcpError(SocketAddrV4, io::Error);

fn why(addr: &SocketAddrV4, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this host: expected one of the CE's own LAN addresses", addr.ip())
        }
        io::ErrorKind::AddrInUse => {
            format!("{addr}/udp is in use: another server of PCP or NAT-PMP, such as miniupnpd")
        }
        _ => format!("{addr}/udp: {error}"),
    }
}

/// Open sockets of a server that does not run yet.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<Arc<UdpSocket>>,
    ours: Vec<Ipv4Addr>,
    params: PcpParams,
}

/// A server that runs; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
    changed: Arc<Notify>,
}

impl Server {
    /// The NAPT's address or ports may be others now: hosts are told.
    pub fn changed(&self) {
        self.changed.notify_one();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Request {
    socket: Arc<UdpSocket>,
    from: SocketAddrV4,
    datagram: Vec<u8>,
}

impl Sockets {
    /// Opens a socket for each address, in the network namespace of this thread.
    pub async fn open(config: &PcpConfig) -> Result<Sockets, PcpError> {
        let mut sockets = Vec::new();
        for addr in &config.listen {
            let addr = SocketAddrV4::new(*addr, SERVER_PORT);
            sockets.push(Arc::new(UdpSocket::bind(addr).await.map_err(|error| PcpError(addr, error))?));
        }
        Ok(Sockets { sockets, ours: config.listen.clone(), params: config.params })
    }

    /// Serves the NAPT of a queue's thread.
    pub fn serve(self, jobs: Jobs<Machine>) -> Server {
        let (tell, requests) = mpsc::channel(WAITING);
        let changed = Arc::new(Notify::new());
        let ours = Arc::new(self.ours);
        let mut tasks: Vec<_> = (self.sockets.iter())
            .map(|socket| tokio::spawn(receive(Arc::clone(socket), Arc::clone(&ours), tell.clone())))
            .collect();
        tasks.push(tokio::spawn(answer(self.sockets, self.params, jobs, requests, Arc::clone(&changed))));
        Server { tasks, changed }
    }
}

/// Takes requests of hosts of the home from a socket.
async fn receive(socket: Arc<UdpSocket>, ours: Arc<Vec<Ipv4Addr>>, tell: mpsc::Sender<Request>) {
    // One octet more than fits shows that it was too long.
    let mut buffer = [0; MAX_MESSAGE + 1];
    let mut bucket = Bucket { left: RATE, filled: Instant::now() };
    loop {
        let Ok((len, SocketAddr::V4(from))) = socket.recv_from(&mut buffer).await else {
            // An ICMP error about an answer, or a link that is gone: not as fast as it goes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if ours.contains(from.ip()) || from.port() == 0 || !bucket.take(Instant::now()) {
            continue;
        }
        let request = Request { socket: Arc::clone(&socket), from, datagram: buffer[..len].to_vec() };
        if let Err(mpsc::error::TrySendError::Closed(_)) = tell.try_send(request) {
            return;
        }
    }
}

/// Until the queue's thread has ended.
async fn answer(
    sockets: Vec<Arc<UdpSocket>>,
    params: PcpParams,
    jobs: Jobs<Machine>,
    mut requests: mpsc::Receiver<Request>,
    changed: Arc<Notify>,
) {
    let Some(mut pcp) = jobs.call(move |_, now| Pcp::new(params, now)).await else { return };
    loop {
        let mut server = pcp;
        let done = jobs.call(move |machine, now| {
            let datagrams = server.announce(machine.ce().and_then(|ce| ce.napt()), now);
            let wait = server.poll_timeout().map_or(LOOK, |at| at.saturating_sub(now));
            (server, datagrams, wait)
        });
        let Some((server, datagrams, wait)) = done.await else { return };
        pcp = server;
        for datagram in datagrams {
            for socket in &sockets {
                // A link that is down is told when it is up and asks.
                let _ = socket.send_to(&datagram, EVERYBODY).await;
            }
        }
        let again = tokio::time::sleep(wait);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                () = changed.notified() => break,
                request = requests.recv() => {
                    let Some(Request { socket, from, datagram }) = request else { return };
                    let mut server = pcp;
                    let done = jobs.call(move |machine, now| {
                        let napt = machine.ce_mut().and_then(|ce| ce.napt_mut());
                        let answer = server.answer(napt, *from.ip(), &datagram, now);
                        (server, answer)
                    });
                    let Some((server, answer)) = done.await else { return };
                    pcp = server;
                    if let Some(answer) = answer {
                        let _ = socket.send_to(&answer, SocketAddr::V4(from)).await;
                    }
                }
            }
        }
    }
}

/// `RATE` a second.
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let new = (now - self.filled).as_millis() * u128::from(RATE) / 1000;
        if new > 0 {
            self.left = RATE.min(self.left.saturating_add(new.min(u128::from(RATE)) as u32));
            self.filled = now;
        }
        let some = self.left > 0;
        self.left -= u32::from(some);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded() {
        let start = Instant::now();
        let mut bucket = Bucket { left: RATE, filled: start };
        let taken =
            |bucket: &mut Bucket, ms| (0..1000).filter(|_| bucket.take(start + Duration::from_millis(ms))).count();
        assert_eq!([0, 4, 5, 1005, 9000].map(|ms| taken(&mut bucket, ms)), [200, 0, 1, 200, 200]);
    }
}
