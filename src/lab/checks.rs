//! What ordinary programs do in a home, one function for each check.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::LabError;
use super::pattern::Verifier;
use super::peers::{self, Reflector};
use super::process::{Finished, Runner};
use super::servers::{NAME, Servers, iperf3};
use super::table::Figures;
use super::topology::{DUMMY, Home, IPV4_MTU, SERVER, SHARED, Topology};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Echo requests of one ping.
    pub pings: u32,
    /// Seconds of one iperf3 test.
    pub seconds: u32,
    /// Octets of the large download.
    pub download: u64,
    /// Octets of a TCP transfer from home to home, each way.
    pub transfer: u64,
    /// Connections that each home holds open at once.
    pub connections: u32,
}

impl Sizes {
    /// For people.
    pub const FULL: Sizes = Sizes { pings: 10, seconds: 5, download: 512 << 20, transfer: 128 << 20, connections: 100 };
    /// For tests.
    pub const QUICK: Sizes = Sizes { pings: 3, seconds: 1, download: 32 << 20, transfer: 8 << 20, connections: 60 };
}

/// What the checks work on.
#[derive(Clone, Copy, Debug)]
pub struct Checks<'a> {
    /// Starts programs.
    pub runner: &'a Runner,
    /// The namespaces.
    pub topology: &'a Topology,
    /// The server's programs.
    pub servers: &'a Servers,
    /// How much.
    pub sizes: Sizes,
}

impl Checks<'_> {
    fn run(&self, home: &Home, name: &str, argv: &[&str], limit: u64) -> Result<Finished, LabError> {
        self.runner.run(&home.host, name, argv, Duration::from_secs(limit))
    }

    /// The lab is what it says: no IPv6 at the hosts, no IPv4 on the access router.
    pub fn families(&self) -> Result<Figures, LabError> {
        let topology = self.topology;
        for netns in [&topology.homes[0].host, &topology.homes[1].host, &topology.server] {
            let six = netns.ask_ip("-6 addr show")?;
            if !six.trim().is_empty() {
                return Err(LabError::failed(format!("look for IPv6 in {}", netns.name()), six.trim()));
            }
        }
        let four = topology.access.ask_ip("-4 addr show")?;
        let forwarding = topology.access.read_sysctl("net/ipv4/ip_forward")?;
        if !four.trim().is_empty() || forwarding != "0" {
            let why = format!("net.ipv4.ip_forward = {forwarding}\n{}", four.trim());
            return Err(LabError::failed("look for IPv4 in the access router", why));
        }
        Ok(Figures::text("hosts and server: no IPv6 address; access router: no IPv4 address, ip_forward 0"))
    }

    /// Echo both ways.
    pub fn ping(&self, home: &Home) -> Result<Figures, LabError> {
        let count = self.sizes.pings.to_string();
        let server = SERVER.to_string();
        let done = self.run(home, "ping", &["ping", "-n", "-c", &count, "-i", "0.1", "-W", "2", &server], 30)?;
        let line = done.stdout.lines().find(|line| line.contains(" received, ")).unwrap_or_default();
        if !line.contains(&format!(" {count} received, ")) {
            return Err(done.unexpected("not every echo request was answered"));
        }
        let average: f64 = done
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "))
            .and_then(|rest| rest.split('/').nth(1)?.parse().ok())
            .ok_or_else(|| done.unexpected("no round-trip time"))?;
        Ok(Figures::text(format!("{count} of {count}, {average:.2} ms")).with("rtt-ms", average))
    }

    /// Every hop answers, the IPv6-only one from the dummy address, the last one is the server.
    pub fn traceroute(&self, home: &Home, icmp: bool) -> Result<Figures, LabError> {
        let server = SERVER.to_string();
        let mut argv = vec!["traceroute", "-n", "-q", "1", "-w", "2", "-m", "12"];
        if icmp {
            argv.push("-I");
        }
        argv.push(&server);
        let done = self.run(home, "traceroute", &argv, 60)?.success()?;
        let hops: Vec<&str> = done.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        if hops.last() != Some(&&*server) {
            return Err(done.unexpected("the last hop is not the server"));
        }
        if hops.contains(&"*") {
            return Err(done.unexpected("a hop did not answer"));
        }
        if !hops.contains(&&*DUMMY.to_string()) {
            return Err(done.unexpected(format!("no hop is {DUMMY}, the access router's dummy address")));
        }
        Ok(Figures::text(hops.join(" ")).with("hops", hops))
    }

    /// A page, and that it is the right one.
    pub fn web(&self, home: &Home) -> Result<Figures, LabError> {
        let url = format!("http://{SERVER}/");
        let format = "%{stderr}%{http_code} %{time_total}";
        let done = self
            .run(home, "curl", &["curl", "-sS", "--connect-timeout", "3", "--max-time", "10", "-w", format, &url], 20)?
            .success()?;
        if done.stdout != self.servers.greeting {
            return Err(done.unexpected("this is not the page of our server"));
        }
        let (code, time) = done.stderr.trim().split_once(' ').unwrap_or_default();
        let milliseconds = time.parse::<f64>().unwrap_or_default() * 1000.0;
        if code != "200" {
            return Err(done.unexpected("not status 200"));
        }
        Ok(Figures::text(format!("HTTP 200, {milliseconds:.1} ms")).with("time-ms", milliseconds))
    }

    /// A name, over UDP or TCP.
    pub fn dns(&self, home: &Home, tcp: bool) -> Result<Figures, LabError> {
        let at = format!("@{SERVER}");
        let transport = if tcp { "+tcp" } else { "+notcp" };
        let argv = ["dig", &at, NAME, "A", transport, "+ignore", "+time=2", "+tries=2"];
        let done = self.run(home, "dig", &argv, 20)?.success()?;
        let wanted = SERVER.to_string();
        let answered = done.stdout.lines().any(|line| line.starts_with(NAME) && line.ends_with(&wanted));
        let by = if tcp { "(TCP)" } else { "(UDP)" };
        if !answered || !done.stdout.contains(by) {
            return Err(done.unexpected(format!("no answer {wanted} {by}")));
        }
        Ok(Figures::text(format!("{NAME} is {wanted}")))
    }

    /// The kernel names the right MTU to the host, and that size passes.
    pub fn path_mtu(&self, home: &Home) -> Result<Figures, LabError> {
        let result = self.largest(home, 1500, IPV4_MTU);
        home.host.ip("route flush cache")?;
        result?;
        Ok(Figures::text(format!("1500 refused with MTU {IPV4_MTU}, {IPV4_MTU} passes")))
    }

    /// A narrower link inside the access network: the access router's Packet Too Big, translated, teaches the
    /// host and the server.
    pub fn narrow_path(&self, home: &Home) -> Result<Figures, LabError> {
        let topology = self.topology;
        let route = topology.home_route(home);
        let back = "2001:db8:ffff::/64 via 2001:db8:f000:3::2";
        topology.access.ip(&format!("route change {route} mtu 1400"))?;
        topology.access.ip(&format!("route change {back} mtu 1400"))?;
        let result = self.narrowed(home);
        topology.access.ip(&format!("route change {route}"))?;
        topology.access.ip(&format!("route change {back}"))?;
        for netns in [&home.host, &topology.server] {
            netns.ip("route flush cache")?;
        }
        result
    }

    fn narrowed(&self, home: &Home) -> Result<Figures, LabError> {
        // The server first: a host that knows would announce a smaller MSS.
        let size = self.sizes.transfer;
        let megabits = self.fetch(home, size)?;
        let learnt = self.topology.server.ask_ip(&format!("route get {SHARED}"))?;
        if !learnt.contains("mtu 1380") {
            return Err(LabError::failed("ip route get at the server", format!("no mtu 1380 in: {}", learnt.trim())));
        }
        self.largest(home, IPV4_MTU, 1380)?;
        let text = format!("host and server learn MTU 1380, {} MiB at {}", size >> 20, rate(megabits));
        Ok(Figures::text(text).with("mbit-per-s", megabits))
    }

    /// A packet of `size` octets must be refused with `mtu`; one of `mtu` must pass both ways.
    fn largest(&self, home: &Home, size: u32, mtu: u32) -> Result<(), LabError> {
        let server = SERVER.to_string();
        // Less 20 octets of IPv4 and 8 of ICMP.
        let payload = (size - 28).to_string();
        let done = self.run(
            home,
            "ping-too-big",
            &["ping", "-n", "-M", "do", "-s", &payload, "-c", "3", "-i", "0.1", "-W", "1", &server],
            20,
        )?;
        let told = [format!("(mtu = {mtu})"), format!("mtu={mtu}")];
        if done.status.success() || !told.iter().any(|text| done.both().contains(text)) {
            return Err(done.unexpected(format!("no Fragmentation Needed with MTU {mtu}")));
        }
        // UDP has DF set both ways; a kernel's echo reply has not.
        let _reflector = Reflector::start(&self.topology.server)?;
        peers::datagram(home, mtu as usize - 28).map(drop)
    }

    /// iperf3 over TCP; `reverse` is from the server.
    pub fn iperf(&self, home: &Home, reverse: bool) -> Result<Figures, LabError> {
        let more: &[&str] = if reverse { &["-R"] } else { &[] };
        let end = iperf3(self.runner, &home.host, &self.topology.server, self.sizes.seconds, more)?;
        let megabits = end["sum_received"]["bits_per_second"].as_f64().unwrap_or_default() / 1e6;
        let again = end["sum_sent"]["retransmits"].as_u64().unwrap_or_default();
        Ok(Figures::text(format!("{}, {again} retransmits", rate(megabits)))
            .with("mbit-per-s", megabits)
            .with("retransmits", again))
    }

    /// The large download, every octet compared.
    pub fn download(&self, home: &Home) -> Result<Figures, LabError> {
        let size = self.sizes.download;
        let megabits = self.fetch(home, size)?;
        Ok(Figures::text(format!("{} MiB, each octet right, {}", size >> 20, rate(megabits)))
            .with("octets", size)
            .with("mbit-per-s", megabits))
    }

    /// The first `size` octets of `/large` through curl; the answer is in Mbit/s.
    fn fetch(&self, home: &Home, size: u64) -> Result<f64, LabError> {
        let url = format!("http://{SERVER}/large");
        let range = format!("0-{}", size - 1);
        let argv = ["curl", "-sS", "--connect-timeout", "3", "--max-time", "120", "-r", &range, &url];
        let mut curl = self.runner.start_piped(&home.host, "curl-large", &argv)?;
        let what = curl.command().to_owned();
        let failed = |e: std::io::Error| LabError::failed(what.clone(), e);
        let start = Instant::now();
        let mut verifier = Verifier::new();
        if let Some(mut pipe) = curl.take_stdout() {
            let mut buffer = vec![0; 1 << 18];
            loop {
                self.runner.stop().check()?;
                let ready = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100u16));
                if ready.map_err(|e| failed(e.into()))? == 0 {
                    continue;
                }
                match pipe.read(&mut buffer).map_err(failed)? {
                    0 => break,
                    count => verifier.take(&buffer[..count]).map_err(|at| {
                        LabError::failed(what.clone(), format!("octet {at} is not what the server has"))
                    })?,
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        self.runner.finish(curl, Duration::from_secs(10))?.success()?;
        if verifier.verified() != size {
            return Err(LabError::failed(what, format!("{} octets of {size}", verifier.verified())));
        }
        Ok(size as f64 * 8.0 / seconds / 1e6)
    }

    /// Many connections of both homes at once; the server must see one IPv4 address, and each home on ports of
    /// its own set.
    pub fn sharing(&self) -> Result<Figures, LabError> {
        let count = self.sizes.connections;
        let before = self.servers.clients()?.len();
        let parallel = count.to_string();
        let mut running = Vec::new();
        for home in &self.topology.homes {
            let url = format!("http://{SERVER}/slow?home={}&n=[1-{count}]", home.number);
            let argv = [
                "curl",
                "-sS",
                "--parallel",
                "--parallel-immediate",
                "--parallel-max",
                &parallel,
                "--connect-timeout",
                "5",
                "--max-time",
                "30",
                "-o",
                "/dev/null",
                &url,
            ];
            running.push(self.runner.start(&home.host, "curl-many", &argv)?);
        }
        for helper in running {
            self.runner.finish(helper, Duration::from_secs(60))?.success()?;
        }
        let clients = self.servers.clients()?;
        for home in &self.topology.homes {
            let sign = format!("/slow?home={}&", home.number);
            let mut ports: Vec<u16> = Vec::new();
            for (address, port, status, path) in &clients[before..] {
                if path.starts_with(&sign) {
                    let right = *address == SHARED.to_string() && home.owns(*port) && *status == 200;
                    if !right {
                        let why =
                            format!("{address} port {port}, status {status}; PSID {:#x} of {SHARED} is due", home.psid);
                        return Err(LabError::failed(format!("{} at the server", home.name()), why));
                    }
                    ports.push(*port);
                }
            }
            if ports.len() as u32 != count {
                let why = format!("{} of {count} requests", ports.len());
                return Err(LabError::failed(format!("{} at the server", home.name()), why));
            }
        }
        let [one, two] = &self.topology.homes;
        let text =
            format!("{count} connections each at once, all from {SHARED}: PSID {:#x} and {:#x}", one.psid, two.psid);
        Ok(Figures::text(text).with("connections", 2 * count))
    }

    /// Both homes opened a port by talking to the server; the first reaches the second there over UDP.
    pub fn home_to_home_udp(&self) -> Result<Figures, LabError> {
        let _reflector = Reflector::start(&self.topology.server)?;
        let seen = peers::udp(&self.topology.homes, self.runner.stop())?;
        self.check_ports("UDP", [seen.first, seen.second])?;
        let microseconds = seen.median.as_secs_f64() * 1e6;
        // A datagram or two may meet a resolving neighbour.
        if seen.rounds + 2 < peers::UDP_ROUNDS {
            let why = format!("{} of {} round trips", seen.rounds, peers::UDP_ROUNDS);
            return Err(LabError::failed("UDP from home to home", why));
        }
        let text = format!(
            "{} to {}, {} of {} round trips, median {microseconds:.0} µs",
            seen.first,
            seen.second,
            seen.rounds,
            peers::UDP_ROUNDS
        );
        Ok(Figures::text(text).with("rtt-us", microseconds))
    }

    /// The same with TCP, and that the octets take the way that the rules say: `through_br` or not.
    pub fn home_to_home_tcp(&self, through_br: bool) -> Result<Figures, LabError> {
        let size = self.sizes.transfer;
        let _reflector = Reflector::start(&self.topology.server)?;
        let before = self.br_link_octets()?;
        let seen = peers::tcp(&self.topology.homes, size, self.runner.stop())?;
        let crossed = self.br_link_octets()? - before;
        self.check_ports("TCP", [seen.first, seen.second])?;
        // Through the BR each octet of both transfers crosses its link twice.
        let right = if through_br { crossed >= 4 * size } else { crossed < size / 10 };
        if !right {
            let why = format!("{crossed} octets crossed the link of the BR, {size} went each way");
            return Err(LabError::failed("TCP from home to home", why));
        }
        let way = if through_br { "through the BR" } else { "not through the BR" };
        let megabits = |time: Duration| size as f64 * 8.0 / time.as_secs_f64() / 1e6;
        let (there, back) = (megabits(seen.there), megabits(seen.back));
        Ok(Figures::text(format!("{way}; {} MiB each way, {} and {}", size >> 20, rate(there), rate(back)))
            .with("mbit-per-s", there)
            .with("mbit-per-s-back", back)
            .with("octets-over-br-link", crossed))
    }

    fn check_ports(&self, what: &str, ends: [std::net::SocketAddrV4; 2]) -> Result<(), LabError> {
        for (home, end) in self.topology.homes.iter().zip(ends) {
            if *end.ip() != SHARED || !home.owns(end.port()) {
                let why =
                    format!("{} is seen as {end}; {SHARED} and a port of PSID {:#x} are due", home.name(), home.psid);
                return Err(LabError::failed(format!("{what} from home to home"), why));
            }
        }
        Ok(())
    }

    /// Octets that crossed the link between access router and BR, both directions.
    fn br_link_octets(&self) -> Result<u64, LabError> {
        let text = self.topology.access.ask_ip("-j -s link show dev br")?;
        let json: Value = serde_json::from_str(&text).map_err(|e| LabError::failed("ip -j -s link", e))?;
        let of = |way: &str| json[0]["stats64"][way]["bytes"].as_u64();
        of("rx").zip(of("tx")).map(|(rx, tx)| rx + tx).ok_or_else(|| LabError::failed("ip -j -s link", text))
    }
}

/// Mbit/s for people.
pub fn rate(megabits: f64) -> String {
    if megabits >= 1000.0 { format!("{:.1} Gbit/s", megabits / 1000.0) } else { format!("{megabits:.0} Mbit/s") }
}
