//! A MAP-T network for tests against software that is not ours: kernels, tayga, tshark, mtr, traceroute.
//!
//! ```text
//!  host ── ce ══ near ══ far ══ br ── server          ── IPv4   ══ IPv6 only
//!          lan  wan  middle  access   internet
//! ```
//! Addresses are written out from RFC 7597 and RFC 7599 Appendix A, never computed.
#![allow(dead_code)]

pub mod packets;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::io_support::daemon::{Daemon, Files};
use super::io_support::{Namespace, loudly, privileged, wait_for};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;

/// The server.
pub const SERVER: &str = "198.51.100.2";
/// The server as seen through the DMR 2001:db8:ffff::/64 (RFC 6052 §2.2: octets 9 to 12).
pub const SERVER_IPV6: &str = "2001:db8:ffff:0:c6:3364:200:0";
/// The BR's IPv4 address towards the server.
pub const BR_IPV4: &str = "198.51.100.1";
/// The BR's addresses for errors of IPv6 routers (RFC 6791); the CE has others, so that one can tell who translated.
pub const BR_POOL: [&str; 2] = ["203.0.113.252", "203.0.113.253"];
/// The CE's.
pub const CE_POOL: [&str; 3] = ["192.0.0.9", "192.0.0.10", "192.0.0.11"];
/// What an IPv4 packet may measure so that its translation fits 1500 octets.
pub const IPV4_MTU: usize = 1480;

/// Whether tests in namespaces that call `programs` can run. Says loudly what is missing, and fails where `CI=true`.
pub fn ready(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &&&str| {
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into)).any(|d| d.join(program).is_file())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !there(program)).collect();
    if !missing.is_empty() {
        loudly(&format!("not installed: {missing:?}; `scripts/apt-install $(scripts/test-packages)`"));
    }
    let ready = privileged() && missing.is_empty();
    assert!(ready || std::env::var("CI").as_deref() != Ok("true"), "CI=true, and a test would be skipped: {missing:?}");
    ready
}

/// A customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    pub number: u8,
    pub end_user_prefix: &'static str,
    pub map_address: &'static str,
    /// The public IPv4 address.
    pub ipv4: &'static str,
    /// The host's own.
    pub host: &'static str,
    pub napt: bool,
    pub shared: bool,
}

/// RFC 7597 Appendix A, example 1: PSID 0x34 of 192.0.2.18.
pub const SHARED: Home = Home {
    number: 1,
    end_user_prefix: "2001:db8:12:3400::/56",
    map_address: "2001:db8:12:3400:0:c000:212:34",
    ipv4: "192.0.2.18",
    host: "192.168.1.2",
    napt: true,
    shared: true,
};
/// An address of its own (EA bits 0x05 of rule `business`) behind a NAPT.
pub const NAPT: Home = Home {
    number: 2,
    end_user_prefix: "2001:db8:8000:5000::/52",
    map_address: "2001:db8:8000:5000:0:cb00:7105:0",
    ipv4: "203.0.113.5",
    host: "192.168.2.2",
    napt: true,
    shared: false,
};
/// An address of its own (EA bits 0x09) that the host itself has.
pub const OWN: Home = Home {
    number: 3,
    end_user_prefix: "2001:db8:8000:9000::/52",
    map_address: "2001:db8:8000:9000:0:cb00:7109:0",
    ipv4: "203.0.113.9",
    host: "203.0.113.9",
    napt: false,
    shared: false,
};

/// PSID 0x56 of the same address.
pub const NEIGHBOUR: Home = Home {
    number: 4,
    end_user_prefix: "2001:db8:12:5600::/56",
    map_address: "2001:db8:12:5600:0:c000:212:56",
    ipv4: "192.0.2.18",
    host: "192.168.4.2",
    napt: true,
    shared: true,
};
/// 203.0.113.96/28 (EA bits 2 of rule `prefixes`), of which the host has an address itself.
pub const PREFIX: Home = Home {
    number: 5,
    end_user_prefix: "2001:db8:9008::/46",
    map_address: "2001:db8:9008:0:0:cb00:7162:0",
    ipv4: "203.0.113.98",
    host: "203.0.113.98",
    napt: false,
    shared: false,
};
/// The same home behind a NAPT, which uses the first address.
pub const PREFIX_NAPT: Home = Home {
    map_address: "2001:db8:9008:0:0:cb00:7160:0",
    ipv4: "203.0.113.96",
    host: "192.168.5.2",
    napt: true,
    ..PREFIX
};

/// Whether a port is in the set of this PSID: a = 6, k = 8, so `AAAAAA PPPPPPPP jj` with A > 0 (RFC 7597 §5.1).
pub fn in_set(psid: u16, port: u16) -> bool {
    port >= 1024 && (port >> 2) & 0xff == psid
}

/// Whether a port is in the shared customer's set: a = 6, k = 8, so `AAAAAA PPPPPPPP jj` with A > 0 (RFC 7597 §5.1).
pub fn in_shared_set(port: u16) -> bool {
    in_set(0x34, port)
}

/// The rules: Appendix A's, one with addresses, one with prefixes. `forwarding`: homes of all of them talk directly.
fn rules(dmr: &str, forwarding: bool) -> String {
    let rules = [
        "name: metro, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16, psid-offset: 6",
        "name: business, rule-ipv6-prefix: 2001:db8:8000::/44, rule-ipv4-prefix: 203.0.113.0/24, ea-len: 8",
        "name: prefixes, rule-ipv6-prefix: 2001:db8:9000::/44, rule-ipv4-prefix: 203.0.113.64/26, ea-len: 2",
    ];
    let mut text = format!("version: 1\ndmr-ipv6-prefix: {dmr}\nrules:\n");
    for rule in rules {
        text.push_str(&format!("  - {{{rule}, forwarding: {forwarding}}}\n"));
    }
    text
}

/// A customer's network.
pub struct Site {
    pub home: Home,
    pub host: Namespace,
    pub ce: Namespace,
    pub daemon: Option<Daemon>,
}

/// The whole network. Translators are started by the test.
pub struct World {
    pub sites: Vec<Site>,
    pub near: Namespace,
    pub far: Namespace,
    pub br: Namespace,
    pub server: Namespace,
    pub br_daemon: Option<Daemon>,
    /// `icmp.rfc5837-object`.
    pub names_reporters: bool,
    /// Further lines of every translator's configuration.
    pub more: &'static str,
    /// Further keys of every CE's `napt`, each behind a comma.
    pub napt: &'static str,
    /// Further lines of every CE's configuration.
    pub ce_more: &'static str,
    pub files: Files,
}

impl World {
    /// Namespaces, links, addresses, routes and rules; `dmr` is a /64 or a /96, `middle_mtu` that of the link between
    /// the two access routers.
    pub fn new(name: &str, homes: &[Home], dmr: &str, middle_mtu: u32) -> World {
        let files = Files::new(&format!("net-{name}"), &[("rules.yaml", &rules(dmr, false))]);
        let world = World {
            sites: homes.iter().map(|&home| Site { home, host: node(), ce: node(), daemon: None }).collect(),
            near: node(),
            far: node(),
            br: node(),
            server: node(),
            br_daemon: None,
            names_reporters: false,
            more: "",
            napt: "",
            ce_more: "",
            files,
        };
        let World { near, far, br, server, .. } = &world;
        near.connect("middle", far, "middle");
        far.connect("border", br, "access");
        br.connect("internet", server, "eth0");
        for site in &world.sites {
            site.build(near);
        }
        batch(
            near,
            &format!(
                "addr add 2001:db8:f000:a::1/64 dev middle nodad\nlink set middle mtu {middle_mtu}\n\
                 route add default via 2001:db8:f000:a::2\n"
            ),
        );
        batch(
            far,
            &format!(
                "addr add 2001:db8:f000:a::2/64 dev middle nodad\nlink set middle mtu {middle_mtu}\n\
                 addr add 2001:db8:f000:b::1/64 dev border nodad\n\
                 route add 2001:db8::/32 via 2001:db8:f000:a::1\nroute add {dmr} via 2001:db8:f000:b::2\n"
            ),
        );
        batch(
            br,
            &format!(
                "addr add 2001:db8:f000:b::2/64 dev access nodad\nroute add 2001:db8::/32 via 2001:db8:f000:b::1\n\
                 addr add {BR_IPV4}/24 dev internet\n"
            ),
        );
        batch(server, &format!("addr add {SERVER}/24 dev eth0\nroute add default via {BR_IPV4}\n"));
        // What passes between the routers is IPv6 alone.
        for router in [near, far] {
            router.sysctl("ipv4/ip_forward", "0");
        }
        world
    }

    /// Everything by `mapt`.
    pub fn mapt(name: &str, homes: &[Home], middle_mtu: u32) -> World {
        let mut world = World::new(name, homes, "2001:db8:ffff::/64", middle_mtu);
        world.start_br();
        (0..homes.len()).for_each(|index| world.start_ce(index));
        world
    }

    /// Like `mapt`, with further keys of `napt`, and with homes that talk directly or through the BR.
    pub fn napt(name: &str, homes: &[Home], napt: &'static str, forwarding: bool) -> World {
        let dmr = "2001:db8:ffff::/64";
        let mut world = World::new(name, homes, dmr, 1500);
        world.napt = napt;
        world.files.write("rules.yaml", &rules(dmr, forwarding));
        world.start_br();
        (0..homes.len()).for_each(|index| world.start_ce(index));
        world
    }

    /// `mapt-br`, answering without a rate limit.
    pub fn start_br(&mut self) {
        let config = format!(
            "role: br\nrules: rules.yaml\nsysctl: manage\nicmp: {{rfc6791-pool: [{}], originate: on, rfc5837-object: {}}}\n{}",
            BR_POOL.join(", "),
            self.names_reporters,
            self.more
        );
        let config = self.files.write("br.yaml", &config);
        self.br_daemon = Some(Daemon::start(&self.br, env!("CARGO_BIN_EXE_mapt-br"), &config));
        patient(&self.br, "mapt-br");
    }

    /// `mapt-ce` of a site.
    pub fn start_ce(&mut self, index: usize) {
        let site = &mut self.sites[index];
        let config = format!(
            "role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: {}\nsysctl: manage\nnapt: {{enabled: {}{}}}\n\
             icmp: {{rfc6791-pool: [{}], originate: on, rfc5837-object: {}}}\n{}{}",
            site.home.end_user_prefix,
            site.home.napt,
            self.napt,
            CE_POOL.join(", "),
            self.names_reporters,
            self.more,
            self.ce_more
        );
        let config = self.files.write(&format!("ce{}.yaml", site.home.number), &config);
        site.daemon = Some(Daemon::start(&site.ce, env!("CARGO_BIN_EXE_mapt-ce"), &config));
        patient(&site.ce, "mapt-ce");
    }

    pub fn site(&self, home: Home) -> &Site {
        self.sites.iter().find(|site| site.home == home).unwrap()
    }

    pub fn host(&self, home: Home) -> &Namespace {
        &self.site(home).host
    }

    /// Every namespace's name and itself.
    pub fn namespaces(&self) -> Vec<&Namespace> {
        let mut all: Vec<&Namespace> = vec![&self.near, &self.far, &self.br, &self.server];
        all.extend(self.sites.iter().flat_map(|site| [&site.host, &site.ce]));
        all
    }

    /// One more host of a home, in a LAN of its own: 192.168.(100 + number).2.
    pub fn second_host(&self, home: Home) -> Namespace {
        let (host, n) = (node(), 100 + home.number);
        let ce = &self.site(home).ce;
        ce.connect("lan2", &host, "eth0");
        ce.ip(&format!("addr add 192.168.{n}.1/24 dev lan2"));
        batch(&host, &format!("addr add 192.168.{n}.2/24 dev eth0\nroute add default via 192.168.{n}.1\n"));
        host
    }

    /// The server has all of `prefix` beside its own address.
    pub fn server_has(&self, prefix: &str) {
        self.server.ip(&format!("route add local {prefix} dev lo"));
        self.br.ip(&format!("route add {prefix} via {SERVER}"));
    }

    /// No device of a daemon refused a packet.
    pub fn nothing_refused(&self) {
        let daemons = self.sites.iter().map(|site| &site.daemon).chain([&self.br_daemon]);
        for daemon in daemons.flatten() {
            assert_eq!(daemon.counters().refused, 0);
        }
    }
}

impl Site {
    fn build(&self, near: &Namespace) {
        let Site { home, host, ce, .. } = self;
        let n = home.number;
        ce.connect("lan", host, "eth0");
        ce.connect("wan", near, &format!("home{n}"));
        let (host_lines, lan_lines) = if home.napt {
            (format!("addr add {}/24 dev eth0\n", home.host), String::new())
        } else {
            let host = format!("addr add {}/32 dev eth0\nroute add 192.168.{n}.1 dev eth0\n", home.host);
            (host, format!("route add {}/32 dev lan\n", home.host))
        };
        batch(host, &format!("{host_lines}route add default via 192.168.{n}.1\n"));
        batch(
            ce,
            &format!(
                "addr add 192.168.{n}.1/24 dev lan\n{lan_lines}addr add 2001:db8:f000:{n}::2/64 dev wan nodad\n\
                 route add default via 2001:db8:f000:{n}::1\n"
            ),
        );
        batch(
            near,
            &format!(
                "addr add 2001:db8:f000:{n}::1/64 dev home{n} nodad\n\
                 route add {} via 2001:db8:f000:{n}::2\n",
                home.end_user_prefix
            ),
        );
    }
}

/// A debug build on a busy machine may fall behind for a moment, and what is counted must not be lost for that.
fn patient(namespace: &Namespace, tun: &str) {
    namespace.ip(&format!("link set {tun} txqueuelen 10000"));
}

/// A namespace that forwards, and that answers errors without a rate limit.
fn node() -> Namespace {
    let node = Namespace::new();
    node.run(|| {
        for (name, value) in [
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        // Newer kernels count the global limit of ICMP errors for each namespace.
        for name in ["icmp_msgs_per_sec", "icmp_msgs_burst"] {
            let _ = std::fs::write(format!("/proc/sys/net/ipv4/{name}"), "1000000");
        }
    });
    node
}

/// A counter of /proc/net/snmp6.
pub fn snmp6(namespace: &Namespace, name: &str) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap());
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_else(|| panic!("{name}"))
}

/// Several commands of `ip` in one process.
pub fn batch(namespace: &Namespace, lines: &str) {
    let output = namespace.run(|| {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program that must succeed; its standard output.
pub fn run(namespace: &Namespace, program: &str, arguments: &str) -> String {
    let output = namespace.output(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {}\n{text}{errors}", output.status);
    text
}

/// A program in the background; killed when dropped.
pub struct Helper(Child);

impl Helper {
    pub fn start(namespace: &Namespace, command: &mut Command) -> Helper {
        Helper(namespace.run(|| command.stdin(Stdio::null()).spawn().unwrap()))
    }

    /// A capture on `interface`, at work on return.
    pub fn tcpdump(namespace: &Namespace, interface: &str, file: &Path) -> Helper {
        let mut command = Command::new("tcpdump");
        command.args(["-i", interface, "-n", "-U", "-B", "16384", "-Z", "root", "-w"]).arg(file).stderr(Stdio::piped());
        let mut helper = Helper::start(namespace, &mut command);
        // It says `listening on`, then nothing until its end.
        let mut said = Vec::new();
        let mut octet = [0];
        let stderr = helper.0.stderr.as_mut().unwrap();
        while !said.ends_with(b"snapshot length") {
            assert_eq!(stderr.read(&mut octet).unwrap(), 1, "tcpdump: {}", String::from_utf8_lossy(&said));
            said.push(octet[0]);
        }
        helper
    }

    /// SIGINT, and the end; its standard error if that is a pipe.
    pub fn interrupt(mut self) -> String {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT).unwrap();
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        self.0.wait().unwrap();
        text
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Octet `at` of what is transferred.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(0x9E37_79B1) >> 13) as u8
}

/// As `tcp_through`, with the port on which the server listens.
pub fn tcp_both_ways(client: &Namespace, server: &Namespace, address: &str, port: u16, octets: usize) {
    tcp_through(client, server, (address, port), port, octets);
}

/// On a port that was listened on a moment ago, perhaps: a child of another test's has our descriptors too until it is
/// another program.
fn listener(port: u16) -> TcpListener {
    let mut listener = None;
    wait_for("the port to listen on", || match TcpListener::bind(("0.0.0.0", port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => false,
        bound => {
            listener = Some(bound.unwrap());
            true
        }
    });
    listener.unwrap()
}

/// What `pattern` writes to a connection from `client` to `server`, both ways, `octets` each, checked octet by octet.
/// A way that moves nothing for ten seconds fails. `outside` is where the client finds the port on which the server
/// listens; whom the server sees is returned.
pub fn tcp_through(
    client: &Namespace,
    server: &Namespace,
    outside: (&str, u16),
    port: u16,
    octets: usize,
) -> SocketAddr {
    let listener = server.run(|| listener(port));
    let remote: SocketAddr = format!("{}:{}", outside.0, outside.1).parse().unwrap();
    let near = client
        .run(|| TcpStream::connect_timeout(&remote, Duration::from_secs(10)))
        .unwrap_or_else(|e| panic!("connect to {remote}: {e}"));
    let (far, seen) = listener.accept().unwrap();
    let limit = Some(Duration::from_secs(10));
    for stream in [&near, &far] {
        stream.set_read_timeout(limit).unwrap();
        stream.set_write_timeout(limit).unwrap();
    }
    for (from, to, way) in [(&near, &far, "up"), (&far, &near, "down")] {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut sent = 0;
                while sent < octets {
                    let chunk: Vec<u8> = (sent..octets.min(sent + 65_536)).map(pattern).collect();
                    let mut from = from;
                    from.write_all(&chunk).unwrap_or_else(|e| panic!("TCP {way}, {sent} octets sent: {e}"));
                    sent += chunk.len();
                }
            });
            let mut to = to;
            let mut got = 0;
            let mut buffer = vec![0; 65_536];
            while got < octets {
                let n =
                    again(|| to.read(&mut buffer)).unwrap_or_else(|e| panic!("TCP {way}, {got} octets arrived: {e}"));
                assert!(n > 0, "TCP {way} ended after {got} octets");
                assert!(buffer[..n].iter().enumerate().all(|(i, &x)| x == pattern(got + i)), "TCP {way} near {got}");
                got += n;
            }
        });
    }
    seen
}

/// Connects from one of a host's addresses; every wait is for ten seconds at most.
pub fn connect_as(from: Ipv4Addr, to: SocketAddrV4) -> std::io::Result<TcpStream> {
    let socket = tcp_socket(SocketAddrV4::new(from, 0))?;
    connect_patiently(&socket, to)?;
    Ok(socket.into())
}

/// Nobody listens there, and says so.
pub fn refused_as(from: Ipv4Addr, to: SocketAddrV4) -> Result<(), String> {
    match connect_as(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("from {from} to {to}, where nobody listens: {other:?}")),
    }
}

/// Connects from a port that another connection of ours may use as well, within ten seconds.
pub fn connect_from(port: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = tcp_socket(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    let SocketAddr::V4(to) = to else { panic!("{to}") };
    connect_patiently(&socket, to)?;
    Ok(socket.into())
}

/// A connect that is interrupted goes on; another call waits for it (connect(2)).
fn connect_patiently(socket: &OwnedFd, to: SocketAddrV4) -> std::io::Result<()> {
    loop {
        match connect(socket.as_raw_fd(), &SockaddrIn::from(to)) {
            Ok(()) | Err(Errno::EISCONN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn tcp_socket(from: SocketAddrV4) -> std::io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if from.port() != 0 {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(10))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(from))?;
    Ok(socket)
}

/// A stop of the process, as a machine makes it that is moved or saved, interrupts reads with a time-out (signal(7)).
pub fn again<T>(mut read: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Sockets of two hosts, of which the first one has spoken to the second.
pub struct UdpPair {
    pub client: UdpSocket,
    pub server: UdpSocket,
    /// The client as the server sees it.
    pub client_seen: SocketAddr,
}

impl UdpPair {
    pub fn new(client: &Namespace, server: &Namespace, address: &str, ports: (u16, u16)) -> UdpPair {
        let server = server.run(|| UdpSocket::bind(("0.0.0.0", ports.1)).unwrap());
        let client = client.run(|| UdpSocket::bind(("0.0.0.0", ports.0)).unwrap());
        client.connect((address, ports.1)).unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        client.send(b"hello").unwrap();
        let mut buffer = [0; 16];
        let (n, client_seen) = again(|| server.recv_from(&mut buffer)).expect("the first datagram");
        assert_eq!(&buffer[..n], b"hello");
        UdpPair { client, server, client_seen }
    }

    /// A datagram each way; both arrive as they were.
    pub fn exchange(&self, size: usize) {
        self.up(size);
        self.down(size);
    }

    /// A datagram from the client to the server.
    pub fn up(&self, size: usize) {
        let sent: Vec<u8> = (0..size).map(|at| pattern(at + size)).collect();
        self.client.send(&sent).unwrap_or_else(|e| panic!("{size} octets up: {e}"));
        let mut buffer = vec![0; 65_536];
        let (n, from) =
            again(|| self.server.recv_from(&mut buffer)).unwrap_or_else(|e| panic!("{size} octets up: {e}"));
        assert!(buffer[..n] == sent, "{size} octets up came as {n}");
        assert_eq!(from, self.client_seen);
    }

    /// A datagram from the server to the client.
    pub fn down(&self, size: usize) {
        let sent: Vec<u8> = (0..size).map(|at| pattern(at + size + 7)).collect();
        self.server.send_to(&sent, self.client_seen).unwrap_or_else(|e| panic!("{size} octets down: {e}"));
        let mut buffer = vec![0; 65_536];
        let n = again(|| self.client.recv(&mut buffer)).unwrap_or_else(|e| panic!("{size} octets down: {e}"));
        assert!(buffer[..n] == sent, "{size} octets down came as {n}");
    }
}

/// Waits until `to` answers: a started tayga says nothing.
pub fn wait_for_ping(from: &Namespace, to: &str) {
    wait_for(&format!("{to} to answer"), || from.output("ping", &format!("-n -c 1 -W 1 {to}")).status.success());
}
