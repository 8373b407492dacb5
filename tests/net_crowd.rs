//! Crowds through a CE: 10,000 TCP connections at once through 252 ports, and beside them through the kernel's NAT
//! over the same ports; 60,000 UDP mappings of a whole address, and 100,000 UDP flows.
mod io_support;
mod net_support;

use std::collections::HashSet;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use io_support::wait_for;
use net_support::packets::{Listener, Sender, UDP, ipv4, udp};
use net_support::{Helper, NAPT, SERVER, SHARED, World, again, batch, in_shared_set, ready, run};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, socket, sockopt};

/// Servers: 198.18.0.1 and up.
const SERVERS: usize = 100;
const SERVERS_PREFIX: &str = "198.18.0.0/25";
const WEB: u16 = 8051;
const CONNECTIONS: usize = 10_000;
/// 175 ports of 252 towards each server; nginx closes what is idle when 15/16 of its connections are in use.
const MORE: usize = 17_500;
/// Connections that are being opened at a time.
const OPENING: usize = 500;

fn server(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 1 + (n % SERVERS) as u8)
}

/// nginx at every server's address; it says who asks, whom, and for what, and keeps connections open.
fn web_server(world: &World) -> Helper {
    let directory = world.files.path("state");
    let conf = format!(
        "daemon off; master_process off; user root; pid {0}/nginx.pid; error_log {0}/nginx.log;\n\
         events {{ worker_connections 19000; }}\n\
         http {{ access_log off; keepalive_timeout 1h; keepalive_requests 1000000;\n\
         client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u;\n\
         scgi_temp_path {0}/s;\n\
         server {{ listen 0.0.0.0:{WEB} backlog=19000; location / {{\n\
         return 200 \"<$remote_addr $remote_port $server_addr $request_uri>\"; }} }} }}\n",
        directory.display()
    );
    let conf = world.files.write("nginx.conf", &conf);
    world.server.sysctl("core/somaxconn", "19000");
    let mut command = Command::new("prlimit");
    command.args(["--nofile=19500", "nginx", "-e"]).arg(directory.join("nginx.log")).arg("-c").arg(conf);
    let nginx = Helper::start(&world.server, &mut command);
    wait_for("nginx to listen", || {
        let listening = world.server.output("ss", "-Hnlt");
        String::from_utf8_lossy(&listening.stdout).contains(&format!(":{WEB} "))
    });
    nginx
}

/// What became of the connections.
#[derive(Debug)]
struct Crowd {
    /// Connected, asked, and answered, all open at once.
    open: usize,
    /// Until the last one that came to that.
    took: Duration,
    /// Asked once more and were answered, after all were open.
    again: usize,
}

struct Member {
    stream: TcpStream,
    heard: Vec<u8>,
    asked: bool,
}

impl Member {
    fn ask(&mut self, path: &str) -> std::io::Result<()> {
        self.heard.clear();
        self.asked = true;
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: crowd\r\n\r\n").as_bytes())
    }

    /// What stands between `<` and `>` once it has come.
    fn hear(&mut self) -> std::io::Result<Option<String>> {
        let mut buffer = [0; 1024];
        match again(|| self.stream.read(&mut buffer)) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.heard.extend(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let text = String::from_utf8_lossy(&self.heard);
        Ok(text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(said, _)| said.to_owned()))
    }
}

fn begin(number: usize) -> Member {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    match connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(server(number), WEB))) {
        Ok(()) | Err(Errno::EINPROGRESS) => Member { stream: fd.into(), heard: Vec::new(), asked: false },
        Err(errno) => panic!("connection {number}: {errno}"),
    }
}

/// Connections of this namespace to all servers in turn. Every answer names an outside port of the set,
/// which no other connection to that server has.
fn crowd(connections: usize, patience: Duration) -> Crowd {
    let start = Instant::now();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let mut members: Vec<Option<Member>> = Vec::new();
    let (mut opening, mut open, mut last) = (0, 0, start);
    let mut used = HashSet::new();
    let mut events = vec![EpollEvent::empty(); 512];
    while open < connections && last.elapsed() < Duration::from_secs(5) && start.elapsed() < patience {
        while opening < OPENING && members.len() < connections {
            let member = begin(members.len());
            epoll.add(&member.stream, EpollEvent::new(EpollFlags::EPOLLOUT, members.len() as u64)).unwrap();
            members.push(Some(member));
            opening += 1;
        }
        let count = epoll.wait(&mut events, EpollTimeout::from(200u16)).unwrap_or(0);
        for event in &events[..count] {
            let number = event.data() as usize;
            let Some(member) = &mut members[number] else { continue };
            let path = format!("/first/{number}");
            let result = if member.asked {
                member.hear()
            } else if getsockopt(&member.stream, sockopt::SocketError) == Ok(0) {
                epoll.modify(&member.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
                member.ask(&path).map(|()| None)
            } else {
                Err(Error::other("refused"))
            };
            match result {
                Ok(None) => continue,
                Ok(Some(said)) => {
                    let words: Vec<&str> = said.split(' ').collect();
                    assert_eq!((words[0], words[3]), (SHARED.ipv4, &path[..]), "{said}");
                    assert_eq!(words[2], server(number).to_string(), "{said}");
                    assert!(in_shared_set(words[1].parse().unwrap()), "{said}");
                    assert!(used.insert((words[1].to_owned(), words[2].to_owned())), "twice: {said}");
                    epoll.delete(&member.stream).unwrap();
                    (open, last) = (open + 1, Instant::now());
                }
                Err(_) => members[number] = None,
            }
            opening -= 1;
        }
    }
    let took = last - start;
    let mut again = 0;
    for (number, member) in members.iter_mut().enumerate().rev() {
        let Some(member) = member.as_mut().filter(|member| !member.heard.is_empty()) else { continue };
        member.stream.set_nonblocking(false).unwrap();
        member.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let path = format!("/second/{number}");
        let said = member.ask(&path).and_then(|()| member.hear());
        again += usize::from(said.is_ok_and(|said| said.is_some_and(|said| said.ends_with(&path))));
    }
    Crowd { open, took, again }
}

/// Room for the descriptors of this process.
fn many_descriptors(world: &World) {
    run(&world.server, "prlimit", &format!("--pid {} --nofile=19500:", std::process::id()));
}

/// `sharing`: further keys of `napt`.
fn through_mapt(connections: usize, sharing: &'static str) -> Crowd {
    let world = World::napt("crowd", &[SHARED], sharing, false);
    many_descriptors(&world);
    world.server_has(SERVERS_PREFIX);
    let _nginx = web_server(&world);
    let found = world.host(SHARED).run(|| crowd(connections, Duration::from_secs(120)));
    let counters = world.site(SHARED).daemon.as_ref().unwrap().counters();
    assert_eq!(counters.get("dropped"), [0, 0], "{counters:?}");
    counters.balance();
    world.nothing_refused();
    found
}

/// nftables in place of the CE, over IPv4 alone.
fn through_the_kernel(connections: usize) -> Crowd {
    let world = World::new("crowd-kernel", &[SHARED], "2001:db8:ffff::/64", 1500);
    many_descriptors(&world);
    let ce = &world.site(SHARED).ce;
    ce.connect("direct", &world.server, "direct");
    ce.ip("addr add 10.0.0.1/24 dev direct");
    batch(ce, &format!("route add {SERVERS_PREFIX} via 10.0.0.2\n"));
    let lines = format!(
        "addr add 10.0.0.2/24 dev direct\nroute add {} via 10.0.0.1\nroute add local {SERVERS_PREFIX} dev lo\n",
        SHARED.ipv4
    );
    batch(&world.server, &lines);
    // 63 ranges of four: `AAAAAA 00110100 jj`, A from 1.
    let ranges: Vec<String> =
        (1..64u32).map(|a| format!("{} : {} . {}-{}", a - 1, SHARED.ipv4, a << 10 | 0xd0, a << 10 | 0xd3)).collect();
    let rules = format!(
        "table ip nat {{\nchain post {{\ntype nat hook postrouting priority srcnat\noifname \"direct\" meta l4proto tcp \
         snat ip to numgen inc mod 63 map {{ {} }}\n}}\n}}\n",
        ranges.join(", ")
    );
    let rules = world.files.write("nat.nft", &rules);
    run(ce, "nft", &format!("-f {}", rules.display()));
    let _nginx = web_server(&world);
    world.host(SHARED).run(|| crowd(connections, Duration::from_secs(120)))
}

const PROGRAMS: [&str; 4] = ["ip", "ss", "nginx", "prlimit"];

#[test]
fn ten_thousand_connections_at_once_through_252_ports() {
    if !ready(&PROGRAMS) {
        return;
    }
    let found = through_mapt(CONNECTIONS, "");
    assert_eq!((found.open, found.again), (CONNECTIONS, CONNECTIONS), "{found:?}");
}

#[test]
#[ignore = "half a minute where the kernel gives up"]
fn ten_thousand_connections_beside_the_kernels_nat() {
    if !ready(&PROGRAMS) || !ready(&["nft"]) {
        return;
    }
    eprintln!("{:<36}{:>12}{:>8}{:>12}{:>8}", "252 ports, 100 servers", "connections", "open", "in", "again");
    // By default half of the ports are their endpoints' own, and carry one of these connections each: 126 * 100 + 126.
    for (connections, sharing) in [(CONNECTIONS, ""), (MORE, ", sharing: {threshold: 100}")] {
        let row = |name: &str, found: &Crowd| {
            let seconds = found.took.as_secs_f64();
            eprintln!("{name:<36}{connections:>12}{:>8}{seconds:>10.1} s{:>8}", found.open, found.again);
        };
        let mapt = through_mapt(connections, sharing);
        row("mapt-ce and mapt-br", &mapt);
        let kernel = through_the_kernel(connections);
        row("nftables, snat to 63 ranges of 4", &kernel);
        assert_eq!((mapt.open, mapt.again), (connections, connections), "{mapt:?}");
        assert!(kernel.open <= connections && kernel.again <= kernel.open, "{kernel:?}");
    }
}

/// Where the crowd of UDP asks, and where it comes from: 4,000 ports of each address from 10.9.0.1 on.
const ASKED: u16 = 8052;

fn endpoint(n: usize) -> (Ipv4Addr, u16) {
    (Ipv4Addr::new(10, 9, (n / 4000) as u8, 1), 20_000 + (n % 4000) as u16)
}

/// What stands in a packet's transport header and behind it: addresses, ports, the number in the data.
fn read(packet: &[u8]) -> ((Ipv4Addr, u16), (Ipv4Addr, u16), usize) {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let addr = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    let number = u64::from_be_bytes(packet[28..36].try_into().unwrap());
    ((addr(12), word(20)), (addr(16), word(22)), number as usize)
}

/// One datagram of each of `count` endpoints inside, and its answer; the outside ports in order.
fn udp_crowd(world: &World, count: usize, to: impl Fn(usize) -> Ipv4Addr) -> Vec<(u16, Ipv4Addr)> {
    let (host, ce, server) = (world.host(NAPT), &world.site(NAPT).ce, &world.server);
    ce.ip(&format!("route add 10.9.0.0/16 via {}", NAPT.host));
    host.ip("route add blackhole 10.9.0.0/16");
    // Nobody reads it; but the server's kernel says nothing either.
    let _taker = server.run(|| UdpSocket::bind(("0.0.0.0", ASKED)).unwrap());
    let (from_host, from_server) = (Sender::new(host), Sender::new(server));
    let (at_host, at_server) = (Listener::ipv4(host), Listener::ipv4(server));
    let mut outside = Vec::new();
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(500) {
        for &n in some {
            let ((addr, port), to) = (endpoint(n), to(n).to_string());
            let datagram = udp(&addr.to_string(), &to, (port, ASKED), &(n as u64).to_be_bytes(), true);
            from_host.send(&ipv4(&addr.to_string(), &to, UDP, n as u16, 0, &datagram));
        }
        let mut asked = at_server.collect(some.len(), |packet| packet[9] == UDP);
        asked.sort_by_key(|packet| read(packet).2);
        for (packet, &n) in asked.iter().zip(some) {
            let (from, (server, port), number) = read(packet);
            assert_eq!((number, server, port), (n, to(n), ASKED));
            assert_eq!(from.0.to_string(), NAPT.ipv4);
            outside.push((from.1, server));
            let answer = (u64::MAX - n as u64).to_be_bytes();
            let datagram = udp(&server.to_string(), NAPT.ipv4, (ASKED, from.1), &answer, true);
            from_server.send(&ipv4(&server.to_string(), NAPT.ipv4, UDP, n as u16, 0, &datagram));
        }
        let answers = at_host.collect(some.len(), |packet| packet[9] == UDP);
        assert_eq!(answers.len(), some.len());
        for packet in answers {
            let (from, target, number) = read(&packet);
            let n = (u64::MAX - number as u64) as usize;
            assert!(some.contains(&n), "{n}");
            assert_eq!((from, target), ((to(n), ASKED), endpoint(n)));
        }
    }
    let counters = world.site(NAPT).daemon.as_ref().unwrap().counters();
    assert_eq!(counters.get("forwarded"), [count as u64; 2], "{counters:?}");
    counters.balance();
    world.nothing_refused();
    outside
}

/// RFC 4787 REQ-1: as many mappings as there are ports, but for some.
#[test]
fn sixty_thousand_udp_mappings_of_a_whole_address() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::napt("mappings", &[NAPT], ", sharing: {threshold: 0}", false);
    let outside = udp_crowd(&world, 60_000, |_| SERVER.parse().unwrap());
    assert_eq!(outside.iter().collect::<HashSet<_>>().len(), 60_000, "a port for each");
}

/// RFC 7857 §3: more flows than an address has ports.
#[test]
fn a_hundred_thousand_udp_flows_of_a_whole_address() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::napt("flows", &[NAPT], "", false);
    world.server_has(SERVERS_PREFIX);
    let outside = udp_crowd(&world, 100_000, server);
    assert_eq!(outside.iter().collect::<HashSet<_>>().len(), 100_000, "a port and a server for each");
    let ports = outside.iter().map(|(port, _)| port).collect::<HashSet<_>>().len();
    assert!((32_768..65_536).contains(&ports), "{ports} ports");
}
