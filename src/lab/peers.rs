//! Two programs of our own, for home to home: no port of a home can be reached from outside before the home
//! has opened it. Host 2 asks a reflector on the server under which outside address and port it is seen, host 1
//! talks to these. Works where mapping and filtering are endpoint-independent (RFC 4787 §4.1, §5; RFC 5382).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, listen, setsockopt, socket, sockopt,
};

use super::LabError;
use super::netns::Netns;
use super::pattern::{BLOCK, Source, Verifier};
use super::signals::Stop;
use super::topology::{Home, SERVER};

/// The reflector's port, UDP and TCP.
const PORT: u16 = 7000;
/// How long a blocking call sleeps before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells whoever asks under which address and port it is seen; UDP also returns larger datagrams whole.
#[derive(Debug)]
pub struct Reflector {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Reflector {
    /// Starts it on [`SERVER`], in `netns`.
    pub fn start(netns: &Netns) -> Result<Reflector, LabError> {
        let stop = Arc::new(AtomicBool::new(false));
        let failed = |e: io::Error| LabError::failed("start the reflector", e);
        let (udp, tcp) = netns.within(|| (UdpSocket::bind((SERVER, PORT)), TcpListener::bind((SERVER, PORT))))?;
        let (udp, tcp) = (udp.map_err(failed)?, tcp.map_err(failed)?);
        udp.set_read_timeout(Some(LOOK)).map_err(failed)?;
        tcp.set_nonblocking(true).map_err(failed)?;
        let (for_udp, for_tcp) = (stop.clone(), stop.clone());
        let threads = vec![
            std::thread::spawn(move || reflect_udp(&udp, &for_udp)),
            std::thread::spawn(move || reflect_tcp(&tcp, &for_tcp)),
        ];
        Ok(Reflector { stop, threads })
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn reflect_udp(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; 65_535];
    while !stop.load(Ordering::SeqCst) {
        match socket.recv_from(&mut buffer) {
            Ok((0..=1, from)) => drop(socket.send_to(from.to_string().as_bytes(), from)),
            Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
            Err(e) if again(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Keeps its connections open, and with them the mappings.
fn reflect_tcp(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    let mut open = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((mut stream, from)) => {
                let _ = stream.write_all(format!("{from}\n").as_bytes());
                open.push(stream);
            }
            Err(e) if again(&e) => std::thread::sleep(LOOK / 20),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What UDP between the homes showed.
#[derive(Clone, Debug)]
pub struct UdpSeen {
    /// Host 1's address and port as host 2 saw them.
    pub first: SocketAddrV4,
    /// Host 2's as the reflector saw them.
    pub second: SocketAddrV4,
    /// Round trips that came back, of [`UDP_ROUNDS`].
    pub rounds: u32,
    /// The median of them.
    pub median: Duration,
}

/// Datagrams that host 1 sends.
pub const UDP_ROUNDS: u32 = 200;

/// Host 1 sends to host 2's outside address; host 2 answers with the address that it saw.
pub fn udp(homes: &[Home; 2], stop: &Stop) -> Result<UdpSeen, LabError> {
    let done = Arc::new(AtomicBool::new(false));
    let (tell, told) = channel();
    let (done_2, stop_2) = (done.clone(), stop.clone());
    let second = homes[1].host.spawn(move || udp_second(&tell, &done_2, &stop_2))?;
    let stop_1 = stop.clone();
    let first = homes[0].host.spawn(move || udp_first(&told, &stop_1))?;
    let first = joined("host 1", first);
    done.store(true, Ordering::SeqCst);
    let second = joined("host 2", second);
    stop.check()?;
    // Host 2's failure explains host 1's.
    second?;
    first
}

fn udp_second(tell: &Sender<SocketAddrV4>, done: &AtomicBool, stop: &Stop) -> Result<(), LabError> {
    let failed = |e: io::Error| LabError::failed("host 2, UDP", e);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    socket.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let mut buffer = [0; 2048];
    let start = Instant::now();
    let outside = loop {
        socket.send_to(b"?", (SERVER, PORT)).map_err(failed)?;
        match socket.recv_from(&mut buffer) {
            Ok((length, _)) => break parse_address(&buffer[..length])?,
            Err(e) if again(&e) && start.elapsed() < PATIENCE && stop.signal().is_none() => {}
            Err(e) => return Err(LabError::failed("host 2 asks the reflector over UDP", silence(&e))),
        }
    };
    let _ = tell.send(outside);
    while !done.load(Ordering::SeqCst) && stop.signal().is_none() {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let answer = [from.to_string().as_bytes(), b" ", &buffer[..length]].concat();
                socket.send_to(&answer, from).map_err(failed)?;
            }
            Err(e) if again(&e) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(())
}

fn udp_first(told: &Receiver<SocketAddrV4>, stop: &Stop) -> Result<UdpSeen, LabError> {
    let second = told
        .recv_timeout(PATIENCE + Duration::from_secs(2))
        .map_err(|_| LabError::failed("host 1 waits for host 2", "no answer"))?;
    let what = format!("host 1 sends UDP to {second}");
    let failed = |e: io::Error| LabError::failed(what.clone(), e);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    socket.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let mut seen = None;
    let mut times = Vec::new();
    for round in 0..UDP_ROUNDS {
        stop.check()?;
        if round >= 20 && times.is_empty() {
            break;
        }
        let text = format!("round {round}");
        let start = Instant::now();
        socket.send_to(text.as_bytes(), second).map_err(failed)?;
        let mut buffer = [0; 2048];
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && from == SocketAddr::V4(second)
            && let Some((address, rest)) = std::str::from_utf8(&buffer[..length]).unwrap_or("").split_once(' ')
            && rest == text
        {
            times.push(start.elapsed());
            seen = Some(parse_address(address.as_bytes())?);
        }
    }
    times.sort();
    match (seen, times.get(times.len() / 2)) {
        (Some(first), Some(&median)) => Ok(UdpSeen { first, second, rounds: times.len() as u32, median }),
        _ => Err(LabError::failed(what, "no answer")),
    }
}

/// What TCP between the homes showed.
#[derive(Clone, Debug)]
pub struct TcpSeen {
    /// Host 1's address and port as host 2 saw them.
    pub first: SocketAddrV4,
    /// Host 2's as the reflector saw them.
    pub second: SocketAddrV4,
    /// How long `size` octets took from host 1 to host 2.
    pub there: Duration,
    /// And back.
    pub back: Duration,
}

/// Host 1 connects to host 2's outside address; `size` octets go each way and are verified.
pub fn tcp(homes: &[Home; 2], size: u64, stop: &Stop) -> Result<TcpSeen, LabError> {
    let (tell, told) = channel();
    let stop_2 = stop.clone();
    let second = homes[1].host.spawn(move || tcp_second(&tell, size, &stop_2))?;
    let stop_1 = stop.clone();
    let first = homes[0].host.spawn(move || tcp_first(&told, size, &stop_1))?;
    let first = joined("host 1", first);
    let second = joined("host 2", second);
    stop.check()?;
    let (first, second) = match (first, second) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(one), Err(two)) => return Err(LabError::failed(one.to_string(), two)),
        (Err(e), _) | (_, Err(e)) => return Err(e),
    };
    Ok(TcpSeen { first: second.0, second: first.0, there: second.1, back: first.1 })
}

/// The address host 2 saw, and how long receiving took.
fn tcp_second(tell: &Sender<SocketAddrV4>, size: u64, stop: &Stop) -> Result<(SocketAddrV4, Duration), LabError> {
    let failed = |e: io::Error| LabError::failed("host 2, TCP", e);
    // One port that listens and that has spoken to the reflector, whose connection holds the mapping.
    let listener = TcpListener::from(shared_port(None).map_err(failed)?);
    let port = listener.local_addr().map_err(failed)?.port();
    let outward = shared_port(Some(port)).map_err(failed)?;
    let server = SockaddrIn::from(SocketAddrV4::new(SERVER, PORT));
    let asked = |e: io::Error| LabError::failed("host 2 asks the reflector over TCP", e);
    setsockopt(&outward, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(5, 0)).map_err(|e| asked(e.into()))?;
    connect(outward.as_raw_fd(), &server).map_err(|e| match e {
        nix::errno::Errno::EINPROGRESS => LabError::failed("host 2 asks the reflector over TCP", "no answer"),
        e => asked(e.into()),
    })?;
    let mut outward = TcpStream::from(outward);
    outward.set_read_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
    let mut line = Vec::new();
    let mut octet = [0];
    while outward.read(&mut octet).map_err(asked)? == 1 && octet != *b"\n" {
        line.push(octet[0]);
    }
    let _ = tell.send(parse_address(&line)?);

    listener.set_nonblocking(true).map_err(failed)?;
    let start = Instant::now();
    let (mut stream, from) = loop {
        match listener.accept() {
            Ok(accepted) => break accepted,
            Err(e) if again(&e) && start.elapsed() < PATIENCE && stop.signal().is_none() => {
                std::thread::sleep(LOOK / 20);
            }
            Err(e) => return Err(LabError::failed("host 2 waits for host 1's connection", e)),
        }
    };
    stream.set_nonblocking(false).map_err(failed)?;
    let took = receive(&mut stream, size, stop)?;
    send(&mut stream, size, stop)?;
    match from {
        SocketAddr::V4(from) => Ok((from, took)),
        SocketAddr::V6(_) => Err(LabError::failed("host 2, TCP", "an IPv6 peer")),
    }
}

/// The address host 1 connected to, and how long receiving took.
fn tcp_first(told: &Receiver<SocketAddrV4>, size: u64, stop: &Stop) -> Result<(SocketAddrV4, Duration), LabError> {
    let second = told
        .recv_timeout(PATIENCE + Duration::from_secs(2))
        .map_err(|_| LabError::failed("host 1 waits for host 2", "no answer"))?;
    let what = format!("host 1 connects to {second}");
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(second), Duration::from_secs(5))
        .map_err(|e| LabError::failed(what, e))?;
    send(&mut stream, size, stop)?;
    Ok((second, receive(&mut stream, size, stop)?))
}

fn shared_port(port: Option<u16>) -> io::Result<std::os::fd::OwnedFd> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port.unwrap_or(0));
    bind(fd.as_raw_fd(), &SockaddrIn::from(address))?;
    if port.is_none() {
        listen(&fd, Backlog::new(4)?)?;
    }
    Ok(fd)
}

fn send(stream: &mut TcpStream, size: u64, stop: &Stop) -> Result<(), LabError> {
    let failed = |sent: u64, e: io::Error| LabError::failed(format!("send octet {sent} of {size}"), e);
    stream.set_write_timeout(Some(PATIENCE)).map_err(|e| failed(0, e))?;
    let mut source = Source::new();
    let mut sent = 0;
    while sent < size {
        stop.check()?;
        let block = source.next_block();
        let count = usize::try_from(size - sent).unwrap_or(BLOCK).min(BLOCK);
        stream.write_all(&block[..count]).map_err(|e| failed(sent, e))?;
        sent += count as u64;
    }
    Ok(())
}

/// From the first octet to the last.
fn receive(stream: &mut TcpStream, size: u64, stop: &Stop) -> Result<Duration, LabError> {
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| LabError::failed("receive", e))?;
    let mut verifier = Verifier::new();
    let mut buffer = vec![0; BLOCK];
    let mut start = None;
    while verifier.verified() < size {
        stop.check()?;
        let what = || format!("receive octet {} of {size}", verifier.verified());
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err(LabError::failed(what(), "the connection was closed")),
            Ok(count) => count,
            Err(e) => return Err(LabError::failed(what(), e)),
        };
        start.get_or_insert_with(Instant::now);
        verifier.take(&buffer[..count]).map_err(|at| LabError::failed("receive", format!("octet {at} is wrong")))?;
    }
    Ok(start.map_or(Duration::ZERO, |start| start.elapsed()))
}

/// A host's datagram with `size` octets of payload to the reflector and back; more than fits the MTU is
/// fragmented both ways.
pub fn datagram(home: &Home, size: usize) -> Result<Duration, LabError> {
    home.host.within(move || {
        let what = format!("a datagram of {size} octets to {SERVER} and back");
        let failed = |e: io::Error| LabError::failed(what.clone(), e);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
        socket.set_read_timeout(Some(Duration::from_secs(1))).map_err(failed)?;
        let mut source = Source::new();
        let text = &source.next_block()[..size];
        let mut buffer = vec![0; BLOCK];
        for attempt in 1..=3 {
            let start = Instant::now();
            socket.send_to(text, (SERVER, PORT)).map_err(failed)?;
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length] == *text => return Ok(start.elapsed()),
                Ok(length) => return Err(LabError::failed(what, format!("{length} octets came back, changed"))),
                Err(e) if again(&e) && attempt < 3 => {}
                Err(e) => return Err(LabError::failed(what, silence(&e))),
            }
        }
        Err(LabError::failed(what, "no answer"))
    })?
}

fn joined<T>(who: &str, thread: JoinHandle<io::Result<Result<T, LabError>>>) -> Result<T, LabError> {
    match thread.join() {
        Ok(Ok(result)) => result,
        Ok(Err(e)) => Err(LabError::failed(format!("{who} enters its namespace"), e)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn parse_address(text: &[u8]) -> Result<SocketAddrV4, LabError> {
    let text = String::from_utf8_lossy(text);
    text.trim().parse().map_err(|e| LabError::failed(format!("read an address in {text:?}"), e))
}

/// What a timeout means to people.
fn silence(error: &io::Error) -> String {
    if again(error) { "no answer".to_owned() } else { error.to_string() }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
