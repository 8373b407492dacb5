//! Two BRs with the same rules behind BIRD: connections outlive the one that they run through.
//! The configurations are those of docs/operations.md, word for word.
mod io_support;
mod net_support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_support::daemon::{Daemon, Files};
use io_support::{Namespace, wait_for};
use net_support::{NAPT, SERVER, World, batch, ready, run};
use nix::sys::signal::Signal;

/// The fenced block of docs/operations.md that begins with this line.
fn documented(first: &str) -> String {
    let text = include_str!("../docs/operations.md");
    let begin = text.find(&format!("\n{first}\n")).unwrap_or_else(|| panic!("no `{first}`")) + 1;
    let length = text[begin..].find("\n```").unwrap();
    text[begin..begin + length + 1].to_owned()
}

/// A routing daemon in the foreground; killed when dropped.
struct Bird {
    child: Child,
    control: String,
}

impl Bird {
    fn start(namespace: &Namespace, files: &Files, name: &str, config: &str) -> Bird {
        let path = files.write(&format!("{name}.conf"), config);
        let control = files.path(&format!("{name}.ctl")).to_string_lossy().into_owned();
        let mut command = Command::new("bird");
        command.arg("-f").arg("-c").arg(path).args(["-s", &control, "-P"]).arg(files.path(&format!("{name}.pid")));
        let child = namespace.run(|| command.stdin(Stdio::null()).spawn().unwrap());
        let bird = Bird { child, control };
        wait_for("BIRD", || bird.ask("show status").contains("Daemon is up and running"));
        bird
    }

    fn ask(&self, question: &str) -> String {
        let output = Command::new("birdc").args(["-s", &self.control, question]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// zebra, bgpd and bfdd.
struct Frr {
    daemons: Vec<Child>,
    directory: String,
}

impl Frr {
    fn start(namespace: &Namespace, files: &Files, name: &str, config: &str) -> Frr {
        let config = files.write(&format!("{name}.conf"), config);
        let directory = files.path(name).to_string_lossy().into_owned();
        std::fs::create_dir(&directory).unwrap();
        // They give up root.
        let user = nix::unistd::User::from_name("frr").unwrap().expect("the user of Debian's package");
        std::os::unix::fs::chown(&directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let mut frr = Frr { daemons: Vec::new(), directory: directory.clone() };
        for (daemon, more) in [("zebra", ""), ("bfdd", ""), ("bgpd", "-p 179")] {
            let mut command = Command::new(format!("/usr/lib/frr/{daemon}"));
            let place = |name: &str| format!("{directory}/{daemon}.{name}");
            std::fs::write(place("conf"), "").unwrap();
            command.args(["-P", "0", "--vty_socket", &directory, "-z", &format!("{directory}/zserv.api")]);
            command.args(["-i", &place("pid"), "-f", &place("conf"), "--log", &format!("file:{}", place("log"))]);
            if daemon == "bfdd" {
                command.args(["--bfdctl", &format!("{directory}/bfdd.sock")]);
            }
            command.args(more.split_whitespace());
            frr.daemons.push(namespace.run(|| command.stdin(Stdio::null()).spawn().unwrap()));
            wait_for(daemon, || std::path::Path::new(&place("vty")).exists());
        }
        let read = frr.vtysh(&["-f", config.to_str().unwrap()]);
        assert!(!read.contains("%"), "{read}");
        frr
    }

    fn vtysh(&self, arguments: &[&str]) -> String {
        let output = Command::new("vtysh").args(["--vty_socket", &self.directory]).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        text.into_owned()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A router of somebody's that prefers the first of two BRs.
fn preferring(kind: &str, number: u32, routes: &str, neighbours: [&str; 2]) -> String {
    let mut text = format!(
        "log stderr {{ warning, error, fatal }};\nrouter id 10.0.0.{number};\nprotocol device {{}}\n\
         protocol kernel {{ {kind} {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol static {{ {kind}; {routes} }}\n\
         protocol bfd {{ interface \"*\" {{ interval 100 ms; multiplier 3; }}; }}\n"
    );
    for (i, neighbour) in neighbours.iter().enumerate() {
        let preference = 200 - 100 * i;
        text += &format!(
            "protocol bgp br{i} {{ local as 645{number:02}; neighbor {neighbour} as 64500; bfd;\n\
             connect retry time 2; connect delay time 1; error wait time 1, 2;\n\
             {kind} {{ import filter {{ bgp_local_pref = {preference}; accept; }}; \
             export where source = RTS_STATIC; next hop self; }}; }}\n"
        );
    }
    text
}

/// Numbered datagrams from the client to the server and back, one a millisecond, until dropped.
struct Probe {
    client: UdpSocket,
    server: UdpSocket,
    stop: AtomicBool,
    sent: AtomicU64,
    /// When an answer came, by number.
    answered: std::sync::Mutex<BTreeMap<u64, Instant>>,
}

impl Probe {
    fn new(client: &Namespace, server: &Namespace) -> Probe {
        let server = server.run(|| UdpSocket::bind(("0.0.0.0", 5100)).unwrap());
        let client = client.run(|| UdpSocket::bind(("0.0.0.0", 5101)).unwrap());
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        }
        Probe { client, server, stop: AtomicBool::new(false), sent: AtomicU64::new(0), answered: Default::default() }
    }

    fn run(&self) {
        let stopped = || self.stop.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let to: SocketAddr = format!("{SERVER}:5100").parse().unwrap();
                while !stopped() {
                    let number = self.sent.fetch_add(1, Ordering::Relaxed);
                    let _ = self.client.send_to(&number.to_be_bytes(), to);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            scope.spawn(|| {
                let mut buffer = [0; 8];
                while !stopped() {
                    if let Ok((8, from)) = self.server.recv_from(&mut buffer) {
                        let _ = self.server.send_to(&buffer, from);
                    }
                }
            });
            let mut buffer = [0; 8];
            while !stopped() {
                if let Ok((8, _)) = self.client.recv_from(&mut buffer) {
                    self.answered.lock().unwrap().insert(u64::from_be_bytes(buffer), Instant::now());
                }
            }
        });
    }

    fn count(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    /// The longest time without an answer and the answers that are missing, between two moments of `sent`.
    fn gap(&self, from: u64, to: u64) -> (Duration, usize) {
        let answered = self.answered.lock().unwrap();
        let within: Vec<_> = answered.range(from..to).collect();
        let gaps = within.windows(2).map(|pair| pair[1].1.saturating_duration_since(*pair[0].1));
        (gaps.max().unwrap_or(Duration::MAX), (to - from) as usize - within.len())
    }

    fn now(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// A connection that says something all the time and has it said back.
struct Talk {
    stream: TcpStream,
    said: u64,
}

impl Talk {
    fn new(client: &Namespace, server: &Namespace) -> Talk {
        let listener = server.run(|| TcpListener::bind(("0.0.0.0", 5200)).unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..n]).unwrap();
            }
        });
        let to: SocketAddr = format!("{SERVER}:5200").parse().unwrap();
        let stream = client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap());
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Talk { stream, said: 0 }
    }

    /// Goes on for a while; the longest answer took this long.
    fn go_on(&mut self, time: Duration) -> Duration {
        let begin = Instant::now();
        let mut longest = Duration::ZERO;
        while begin.elapsed() < time {
            let asked = Instant::now();
            self.said += 1;
            self.stream.write_all(&self.said.to_be_bytes()).expect("the connection lives on");
            let mut answer = [0; 8];
            self.stream.read_exact(&mut answer).expect("the connection lives on");
            assert_eq!(u64::from_be_bytes(answer), self.said);
            longest = longest.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
        longest
    }
}

/// Two BRs in place of one: the IPv4 and the IPv6 router beside them learn by BGP where to go.
struct Anycast<R> {
    world: World,
    /// Of the BRs.
    routers: Vec<R>,
    _birds: Vec<Bird>,
    second: Daemon,
}

impl<R> Anycast<R> {
    /// With BRs on which `start` runs this configuration.
    fn new(name: &str, config: &str, start: fn(&Namespace, &Files, &str, &str) -> R) -> Anycast<R> {
        let mut world = World::new(name, &[NAPT], "2001:db8:ffff::/64", 1500);
        let br2 = Namespace::router();
        world.far.connect("border2", &br2, "access");
        world.server.connect("eth1", &br2, "internet");
        // Nobody tells the way but BGP.
        world.br.ip("-6 route del 2001:db8::/32");
        world.server.ip("route del default");
        batch(&world.far, "route del 2001:db8:ffff::/64\naddr add 2001:db8:f000:c::1/64 dev border2 nodad\n");
        batch(&br2, "addr add 2001:db8:f000:c::2/64 dev access nodad\naddr add 198.51.101.1/24 dev internet\n");
        world.server.ip("addr add 198.51.101.2/24 dev eth1");
        world.start_br();
        world.start_ce(0);
        let br = std::fs::read_to_string(world.files.path("br.yaml")).unwrap();
        let br = world.files.write("br2.yaml", &br.replace("203.0.113.25", "203.0.113.24"));
        let second = Daemon::start(&br2, env!("CARGO_BIN_EXE_mapt-br"), &br);

        let config2 = config
            .replace("router id 10.0.0.11", "router id 10.0.0.12")
            .replace("router-id 10.0.0.11", "router-id 10.0.0.12")
            .replace("2001:db8:f000:b::1", "2001:db8:f000:c::1")
            .replace("198.51.100.2", "198.51.101.2");
        let access = "route 2001:db8::/32 via 2001:db8:f000:a::1;";
        let internet = "route 198.51.100.0/24 via \"eth0\"; route 198.51.101.0/24 via \"eth1\";";
        let access = preferring("ipv6", 1, access, ["2001:db8:f000:b::2", "2001:db8:f000:c::2"]);
        let internet = preferring("ipv4", 2, internet, ["198.51.100.1", "198.51.101.1"]);
        let birds = vec![
            Bird::start(&world.far, &world.files, "access", &access),
            Bird::start(&world.server, &world.files, "internet", &internet),
        ];
        let routers = vec![start(&world.br, &world.files, "br1", config), start(&br2, &world.files, "br2", &config2)];
        let anycast = Anycast { world, routers, _birds: birds, second };
        // Both are known before anything ends.
        for (bird, prefixes) in anycast._birds.iter().zip([1, 2]) {
            wait_for("two ways", || bird.ask("show route").matches("[br").count() == 2 * prefixes);
        }
        anycast.wait_for_way(true);
        anycast
    }

    fn start_first(&mut self) {
        let config = self.world.files.path("br.yaml");
        self.world.br_daemon = Some(Daemon::start(&self.world.br, env!("CARGO_BIN_EXE_mapt-br"), &config));
    }

    /// How much went by the second BR.
    fn by_second(&self) -> u64 {
        self.second.counters().get("forwarded").iter().sum()
    }

    /// Who asks, for what, and the interfaces towards the two BRs.
    fn ways(&self) -> [(&Namespace, &'static str, (&'static str, &'static str)); 2] {
        [
            (&self.world.far, "2001:db8:ffff::1", ("border", "border2")),
            (&self.world.server, "203.0.113.5", ("eth0", "eth1")),
        ]
    }

    fn way(&self, namespace: &Namespace, to: &str) -> String {
        let output = namespace.output("ip", &format!("route get {to}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
        words.nth(1).unwrap_or_default().to_owned()
    }

    /// Waits until both sides use the first BR, or the second.
    fn wait_for_way(&self, first: bool) {
        for (namespace, route, (one, two)) in self.ways() {
            wait_for(route, || self.way(namespace, route) == if first { one } else { two });
        }
    }
}

/// How long nobody may get an answer: on a busy machine; docs/operations.md has the usual figures.
const LIMIT: Duration = Duration::from_secs(3);

/// The nearest BR's daemon is killed, comes back, ends, comes back; then its whole machine goes dark.
fn outlive<R: Sync>(mut anycast: Anycast<R>) {
    let probe = Probe::new(anycast.world.host(NAPT), &anycast.world.server);
    let mut talk = Talk::new(anycast.world.host(NAPT), &anycast.world.server);
    std::thread::scope(|scope| {
        let _stop = Stop(&probe.stop);
        scope.spawn(|| probe.run());
        wait_for("the first answers", || probe.count() > 100);
        assert!(anycast.by_second() < 10, "the first BR is the nearest");
        let mut steps = Vec::new();
        // Its TUN and routes go with it, BGP withdraws, the other one goes on.
        for (what, signal) in [("kill -9", Some(Signal::SIGKILL)), ("SIGTERM", Some(Signal::SIGTERM)), ("dark", None)] {
            let (from, before) = (probe.now(), anycast.by_second());
            talk.go_on(Duration::from_millis(300));
            let daemon = signal.map(|signal| {
                let daemon = anycast.world.br_daemon.take().unwrap();
                daemon.signal(signal);
                daemon
            });
            if daemon.is_none() {
                let dark = "add chain inet dark in { type filter hook prerouting priority -300; policy drop; }";
                run(&anycast.world.br, "nft", "add table inet dark");
                run(&anycast.world.br, "nft", dark);
            }
            let tcp = talk.go_on(LIMIT);
            anycast.wait_for_way(false);
            assert!(anycast.by_second() > before + 500, "the second BR goes on");
            steps.push((what, from, probe.now(), tcp));
            let Some(daemon) = daemon else { break };
            daemon.end();
            let from = probe.now();
            anycast.start_first();
            let tcp = talk.go_on(LIMIT);
            anycast.wait_for_way(true);
            steps.push(("comes back", from, probe.now(), tcp));
        }
        let end = probe.now();
        wait_for("the last answers", || probe.now() > end + 200);
        for (what, from, to, tcp) in steps {
            let (gap, lost) = probe.gap(from, to);
            let sent = to - from;
            println!("{what}: {gap:?} without an answer, {lost} of {sent} datagrams lost, TCP waited {tcp:?}");
            assert!(gap < LIMIT, "{what}: {gap:?}");
        }
    });
}

#[test]
fn with_bird_connections_outlive_the_border_relay_they_run_through() {
    if !ready(&["ip", "nft", "bird", "birdc"]) {
        return;
    }
    let anycast = Anycast::new("anycast-bird", &documented("# /etc/bird/bird.conf of a BR"), Bird::start);
    // Ours and nothing else: what is beside them on the host stays there.
    let exported =
        anycast.routers[0].ask("show route export access") + &anycast.routers[0].ask("show route export internet");
    let mut prefixes: Vec<&str> = exported.lines().filter_map(|line| line.split_whitespace().next()).collect();
    prefixes.retain(|word| word.contains('/'));
    prefixes.sort();
    assert_eq!(prefixes, ["192.0.2.0/24", "2001:db8:ffff::/64", "203.0.113.0/24"], "{exported}");
    outlive(anycast);
}

#[test]
fn with_frr_connections_outlive_the_border_relay_they_run_through() {
    if !ready(&["ip", "nft", "bird", "birdc", "vtysh"]) {
        return;
    }
    let config = documented("! /etc/frr/frr.conf of a BR (daemons: zebra, bgpd, bfdd)");
    outlive(Anycast::new("anycast-frr", &config, Frr::start));
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
