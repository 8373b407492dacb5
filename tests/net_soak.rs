//! Churn: new TCP connections, UDP flows and echoes of many hosts to many servers through two CEs, for
//! `MAPT_SOAK_SECONDS` (60 by default) at `MAPT_SOAK_RATE` new flows a second (2,000 by default). Every flow carries
//! data both ways; memory stays; at the end no port is in use, and every packet is accounted for.
//!
//! An hour: `MAPT_SOAK_SECONDS=3600 cargo test --release --test net_soak -- --ignored --nocapture`
mod io_support;
mod net_support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_support::Namespace;
use net_support::packets::{Sender, TCP, UDP, echo, ipv4, udp};
use net_support::{Home, NAPT, SHARED, World, again, connect_as, in_shared_set, ready, refused_as};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Addresses of each home's hosts: 192.168.n.2 and up.
const HOSTS: u8 = 40;
/// Servers: 198.18.0.1 and up.
const SERVERS: u8 = 100;
const TCP_PORT: u16 = 7001;
const UDP_PORT: u16 = 7002;
/// Nobody listens there.
const CLOSED_PORT: u16 = 7003;
/// A server that no home talks to.
const STRANGER: &str = "198.18.0.101";
/// Echo identifiers of each home: as many as the shared set has, less some, since each lives for 60 s.
const IDS: u64 = 200;
/// What a CE may grow by: 96 octets for each of 131,072 flows of TCP and of UDP, and 8 MiB of fragments and buffers.
const GROWTH_KIB: u64 = (2 * 131_072 * 96 + (8 << 20)) / 1024;
/// By which time every table has been touched as far as it will be: the longest idle time, and a minute.
const SETTLED: Duration = Duration::from_secs(180);
/// What memory may grow by from then on.
const DRIFT_KIB: u64 = 1024;

#[derive(Default)]
struct Score {
    tcp: AtomicU64,
    reset: AtomicU64,
    refused: AtomicU64,
    udp: AtomicU64,
    echo: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl Score {
    fn note(&self, kind: &AtomicU64, result: Result<(), String>) {
        match result {
            Ok(()) => drop(kind.fetch_add(1, Ordering::Relaxed)),
            Err(why) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.first_failure.lock().unwrap().get_or_insert(why);
            }
        }
    }

    fn line(&self) -> String {
        let [tcp, reset, refused, udp, echo, failed] =
            [&self.tcp, &self.reset, &self.refused, &self.udp, &self.echo, &self.failed]
                .map(|count| count.load(Ordering::Relaxed));
        format!("TCP {tcp} closed, {reset} reset, {refused} refused; UDP {udp}; echo {echo}; failed {failed}")
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn server(n: u64) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 1 + (n % u64::from(SERVERS)) as u8)
}

fn host(home: Home, n: u64) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, home.number, 2 + (n % u64::from(HOSTS)) as u8)
}

/// Does `work` for number 0, 1, 2, ... `rate` times a second until the end.
fn paced(end: Instant, rate: f64, mut work: impl FnMut(u64)) {
    let start = Instant::now();
    for n in 0.. {
        let due = start + Duration::from_secs_f64(n as f64 / rate);
        if due >= end {
            return;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        work(n);
    }
}

/// Thirty-two octets that no other flow sends.
fn words(n: u64, from: Ipv4Addr, kind: u64) -> [u8; 32] {
    let mut words = [0; 32];
    for (at, word) in [n, u64::from(from.to_bits()), kind, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)].iter().enumerate() {
        words[at * 8..][..8].copy_from_slice(&word.to_be_bytes());
    }
    words
}

/// What the server makes of them.
fn answer(words: &[u8]) -> Vec<u8> {
    words.iter().map(|octet| !octet).collect()
}

fn tcp(from: Ipv4Addr, n: u64, lane: u64, reset: bool) -> Result<(), String> {
    let to = SocketAddrV4::new(server(n * 7 + lane), TCP_PORT);
    let say = |what: &'static str| move |e: std::io::Error| format!("TCP from {from} to {to}, {what}: {e}");
    let mut stream = connect_as(from, to).map_err(say("connect"))?;
    let (words, mut heard) = (words(n, from, lane), [0; 32]);
    stream.write_all(&words).map_err(say("write"))?;
    again(|| stream.read_exact(&mut heard)).map_err(say("read"))?;
    if reset {
        setsockopt(&stream, sockopt::Linger, &libc_linger()).map_err(|e| e.to_string())?;
    }
    if heard[..] == answer(&words)[..] { Ok(()) } else { Err(format!("TCP from {from} to {to}: another answer")) }
}

/// Close by RST.
fn libc_linger() -> nix::libc::linger {
    nix::libc::linger { l_onoff: 1, l_linger: 0 }
}

fn udp_flow(from: Ipv4Addr, n: u64, lane: u64) -> Result<(), String> {
    let to = SocketAddrV4::new(server(n * 11 + lane), UDP_PORT);
    let say = |e: std::io::Error| format!("UDP from {from} to {to}: {e}");
    let socket = UdpSocket::bind((from, 0)).map_err(say)?;
    socket.connect(to).map_err(say)?;
    socket.set_read_timeout(Some(Duration::from_secs(3))).map_err(say)?;
    let (words, mut heard) = (words(n, from, 100 + lane), [0; 64]);
    for left in (0..3).rev() {
        socket.send(&words).map_err(say)?;
        match again(|| socket.recv(&mut heard)) {
            Ok(32) if heard[..32] == answer(&words)[..] => return Ok(()),
            Ok(_) => return Err(format!("UDP from {from} to {to}: another answer")),
            Err(e) if left == 0 => return Err(say(e)),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Ten addresses with twenty identifiers each.
fn echo_flow(sockets: &[OwnedFd], n: u64) -> Result<(), String> {
    let id = 2000 + (n % IDS) as u16;
    let socket = &sockets[(n % IDS) as usize % sockets.len()];
    let to = SockaddrIn::from(SocketAddrV4::new(server(n * 13), 0));
    let message = echo(8, id, n as u16, &words(n, Ipv4Addr::LOCALHOST, 200));
    let mut heard = [0; 128];
    for _ in 0..3 {
        sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty()).map_err(|e| format!("echo: {e}"))?;
        while let Ok(length) = recv(socket.as_raw_fd(), &mut heard, MsgFlags::empty()) {
            // Behind an IPv4 header; the reply differs in type and checksum.
            if length == 20 + message.len() && heard[24..length] == message[4..] && heard[20] == 0 {
                return Ok(());
            }
        }
    }
    Err(format!("echo {n}, identifier {id}: no answer"))
}

/// The load of one home, by threads in its host's namespace.
fn churn<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    (namespace, home): (&'scope Namespace, Home),
    score: &'scope Score,
    (end, rate): (Instant, f64),
) {
    const LANES: u64 = 8;
    for lane in 0..LANES {
        scope.spawn(move || {
            let tcp_rate = rate * 0.9 / LANES as f64;
            namespace.run(|| {
                paced(end, tcp_rate, |n| {
                    let from = host(home, n * LANES + lane);
                    match n % 16 {
                        7 => score.note(&score.reset, tcp(from, n, lane, true)),
                        13 => score.note(&score.refused, refused_as(from, SocketAddrV4::new(server(n), CLOSED_PORT))),
                        _ => score.note(&score.tcp, tcp(from, n, lane, false)),
                    }
                });
            });
        });
    }
    for lane in 0..2 {
        scope.spawn(move || {
            namespace.run(|| {
                paced(end, rate * 0.1 / 2.0, |n| score.note(&score.udp, udp_flow(host(home, n), n, lane)));
            });
        });
    }
    scope.spawn(move || {
        namespace.run(|| {
            let sockets: Vec<OwnedFd> = (0..10)
                .map(|n| {
                    let fd = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp);
                    let fd = fd.unwrap();
                    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(host(home, n), 0))).unwrap();
                    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(3)).unwrap();
                    fd
                })
                .collect();
            paced(end, 20.0, |n| score.note(&score.echo, echo_flow(&sockets, n)));
        });
    });
}

/// Answers TCP and UDP at every server's address until told to stop.
fn serve<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    namespace: &'scope Namespace,
    done: &'scope AtomicBool,
) {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", TCP_PORT)).unwrap());
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200)).unwrap();
    for _ in 0..12 {
        let listener = listener.try_clone().unwrap();
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let _ = serve_one(stream);
                }
            }
        });
    }
    // Before anybody asks.
    let sockets: Vec<UdpSocket> =
        (0..u64::from(SERVERS)).map(|n| namespace.run(|| UdpSocket::bind((server(n), UDP_PORT)).unwrap())).collect();
    scope.spawn(move || {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for (n, socket) in sockets.iter().enumerate() {
            socket.set_nonblocking(true).unwrap();
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, n as u64)).unwrap();
        }
        let mut events = [EpollEvent::empty(); 32];
        let mut buffer = [0; 256];
        while !done.load(Ordering::Relaxed) {
            let count = epoll.wait(&mut events, EpollTimeout::from(200u16)).unwrap_or(0);
            for event in &events[..count] {
                let socket = &sockets[event.data() as usize];
                while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&answer(&buffer[..n]), from);
                }
            }
        }
    });
}

/// Answers what comes until the other end closes.
fn serve_one(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut heard = [0; 32];
    again(|| stream.read_exact(&mut heard))?;
    stream.write_all(&answer(&heard))?;
    again(|| stream.read(&mut heard)).map(drop)
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Packets of a stranger to every port of a home: `[napt-no-mapping, napt-filtered]` of them. Who has a flow on a port
/// filters, who has none has no mapping, so with all timers run out all are of the first kind.
fn probe(world: &World, home: Home) -> [u64; 2] {
    let daemon = world.site(home).daemon.as_ref().unwrap();
    let sender = Sender::new(&world.server);
    let ports: Vec<u16> = (1..=u16::MAX).filter(|port| !home.shared || in_shared_set(*port)).collect();
    let count = || ["napt-no-mapping", "napt-filtered"].map(|row| daemon.counters().get(row)[1]);
    let before = count();
    let mut sent = 0;
    for some in ports.chunks(1000) {
        for &port in some {
            let syn = net_support::packets::syn(STRANGER, home.ipv4, (7009, port), 77);
            sender.send(&ipv4(STRANGER, home.ipv4, TCP, 1, 0, &syn));
            sender.send(&ipv4(STRANGER, home.ipv4, UDP, 2, 0, &udp(STRANGER, home.ipv4, (7010, port), b"?", true)));
            sent += 2;
        }
        io_support::wait_for("the CE to see the probes", || {
            let now = count();
            now[0] + now[1] - before[0] - before[1] == sent
        });
    }
    let after = count();
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
#[ignore = "takes MAPT_SOAK_SECONDS, and two minutes for the last mappings to expire"]
fn nothing_grows_and_nothing_stays() {
    if !ready(&["ip"]) {
        return;
    }
    let length = Duration::from_secs(number("MAPT_SOAK_SECONDS", 60));
    let rate = number("MAPT_SOAK_RATE", 2000) as f64;
    // The least that the RFCs allow.
    let napt = ", filtering: address-dependent, timers: {udp: 120, tcp-opening: 10, tcp-closing: 10, icmp: 60}";
    let world = World::napt("soak", &[SHARED, NAPT], napt, false);
    world.server_has("198.18.0.0/25");
    for site in &world.sites {
        for n in 1..u64::from(HOSTS) {
            site.host.ip(&format!("addr add {}/24 dev eth0", host(site.home, n)));
        }
        site.host.sysctl("ipv4/tcp_max_tw_buckets", "262144");
    }
    let daemons: Vec<_> = world.sites.iter().map(|site| site.daemon.as_ref().unwrap()).collect();
    let rss = || daemons.iter().map(|daemon| rss_kib(daemon.child.id())).collect::<Vec<_>>();
    let first = rss();
    let (score, done) = (Score::default(), AtomicBool::new(false));
    let start = Instant::now();
    let end = start + length;
    let mut settled = None;
    std::thread::scope(|scope| {
        serve(scope, &world.server, &done);
        std::thread::scope(|scope| {
            for site in &world.sites {
                churn(scope, (&site.host, site.home), &score, (end, rate / world.sites.len() as f64));
            }
            let mut told = start;
            while Instant::now() < end {
                std::thread::sleep(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())));
                let now = rss();
                for (now, first) in now.iter().zip(&first) {
                    assert!(*now <= first + GROWTH_KIB, "from {first} to {now} KiB");
                }
                if start.elapsed() > SETTLED {
                    let settled = settled.get_or_insert_with(|| now.clone());
                    for (now, then) in now.iter().zip(settled) {
                        assert!(*now <= *then + DRIFT_KIB, "from {then} KiB when settled to {now} KiB");
                    }
                }
                if told.elapsed() >= Duration::from_secs(10) {
                    told = Instant::now();
                    eprintln!("{:5} s  {}  RSS {now:?} KiB", start.elapsed().as_secs(), score.line());
                }
            }
        });
        done.store(true, Ordering::Relaxed);
    });
    eprintln!("{:5} s  {}  RSS {first:?} to {:?} KiB", start.elapsed().as_secs(), score.line(), rss());
    eprintln!("first failure: {:?}", score.first_failure.lock().unwrap());
    let flows = [&score.tcp, &score.reset, &score.refused, &score.udp].map(|count| count.load(Ordering::Relaxed));
    assert!(flows.iter().all(|count| *count > 0), "{flows:?}");
    // The machine may be slower than was asked, but not by far.
    assert!(flows.iter().sum::<u64>() as f64 > 0.2 * rate * length.as_secs_f64(), "{flows:?}");

    // Idle times: UDP 120 s, and what a busy machine adds.
    for home in [SHARED, NAPT] {
        let began = Instant::now();
        loop {
            let [none, some] = probe(&world, home);
            eprintln!("{} s later: {some} of {} ports of {} in use", began.elapsed().as_secs(), none + some, home.ipv4);
            if some == 0 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(180), "{some} ports still in use");
            std::thread::sleep(Duration::from_secs(5));
        }
    }
    for daemon in daemons {
        let counters = daemon.counters();
        eprintln!("{counters:?}");
        counters.balance();
        assert_eq!(counters.get("napt-exhausted"), [0, 0], "{counters:?}");
    }
    world.nothing_refused();
    assert_eq!(score.failed.load(Ordering::Relaxed), 0, "{:?}", score.first_failure.lock().unwrap());
}
