//! `mapt lab --bench`: the same client and server behind two plain routers, behind tayga as CLAT and as PLAT,
//! and behind `mapt-ce` and `mapt-br`; repetitions alternate, so that other load on the machine hits all alike.
//! With `=connections`, the kernel's NAT44 is beside them, with all ports and with the CE's port set; with `=flows`, one
//! translator is behind one NAT44.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::connections::SERVERS_PREFIX;
use super::daemons::{self, Programs};
use super::netns::Netns;
use super::process::{Helper, Runner};
use super::registry::Site;
use super::servers::iperf3;
use super::table::{Table, columns};
use super::topology::{IPV4_MTU, SERVER, SHARED, ipv4_only, link, quiet, rules_yaml};
use super::{LabError, blast, connections, flows};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seconds of one throughput test.
    pub seconds: u32,
    /// Times that everything is measured; the table has the medians.
    pub repetitions: usize,
}

/// One way from client to server.
struct Path4 {
    name: &'static str,
    client: Netns,
    server: Netns,
    /// The router beside the server, where the server has IPv4.
    last: Option<Netns>,
    /// Where the kernel keeps connections; they are forgotten before each measurement.
    nat: Option<Netns>,
    /// Dropped, and so ended, with the path.
    helpers: Vec<Helper>,
    results: Vec<Vec<f64>>,
}

/// What `--bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// TCP and small packets: plain routing, tayga twice, mapt-ce and mapt-br.
    Throughput,
    /// New connections a second to 100 servers: the kernel's NAT44 with all ports, the kernel's and mapt-ce's with the
    /// 252 ports of a shared address.
    Connections,
    /// Small packets through one NAPT among 1,024, 131,072 and 1,048,576 flows: the kernel's NAT44, and mapt-ce.
    Flows,
}

/// What is measured: its head in the table and its key in JSON.
type Measure = (&'static str, &'static str);
const THROUGHPUT: &[Measure] = &[
    ("TCP 1 Gbit/s", "tcp-1-gbit-per-s"),
    ("TCP 1 reverse", "tcp-1-reverse-gbit-per-s"),
    ("TCP 4 Gbit/s", "tcp-4-gbit-per-s"),
    ("UDP 64 kpps", "udp-64-kpps"),
    ("ping-pong µs", "ping-pong-us"),
];
const CONNECTIONS: &[Measure] = &[
    ("connections/s", "connections-per-s"),
    ("from 1 client", "connections-per-s-of-1-client"),
    ("from 4", "connections-per-s-of-4-clients"),
    ("failed %", "failed-percent"),
    ("median ms", "median-ms"),
    ("99 % ms", "99-percent-ms"),
];

const FLOWS: &[Measure] = &[
    ("1,024 flows, kpps", "kpps-1024-flows"),
    ("131,072", "kpps-131072-flows"),
    ("1,048,576", "kpps-1048576-flows"),
    ("131,072 / 1,024", "131072-by-1024"),
    ("1,048,576 / 1,024", "1048576-by-1024"),
];

impl What {
    fn measures(self) -> &'static [Measure] {
        match self {
            What::Throughput => THROUGHPUT,
            What::Connections => CONNECTIONS,
            What::Flows => FLOWS,
        }
    }

    /// Which paths are compared, by their places.
    fn ratios(self) -> &'static [(usize, usize)] {
        match self {
            What::Throughput => &[(2, 1), (2, 0), (1, 0)],
            What::Connections => &[(6, 0), (6, 7), (7, 0), (4, 0), (4, 1), (4, 3), (4, 5), (1, 0), (2, 0)],
            What::Flows => &[(1, 0)],
        }
    }
}

/// Builds all paths, measures, answers the table as text and as JSON.
pub fn run(
    runner: &Runner,
    site: &Site,
    programs: &Programs,
    what: What,
    plan: Plan,
    table: &Table,
) -> Result<(String, Value), LabError> {
    let mut paths = match what {
        What::Throughput => vec![plain(runner, site)?, tayga(runner, site)?, mapt(runner, site, programs)?],
        What::Connections => vec![
            nat44(runner, site, "NAT44, all ports", "all", ALL_PORTS.to_owned(), false)?,
            nat44(runner, site, "NAT44, port set", "set", port_set(), false)?,
            nat44(runner, site, "NAT44, port set, closed for 1 s", "brief", port_set(), true)?,
            tayga(runner, site)?,
            mapt(runner, site, programs)?,
            whole(runner, site, programs)?,
            ce_alone(runner, site, programs, "filtering: endpoint-independent")?,
            tayga_alone(runner, site)?,
        ],
        What::Flows => vec![
            nat44(runner, site, "NAT44, all ports", "all", ALL_PORTS.to_owned(), false)?,
            ce_alone(runner, site, programs, "max-flows: 1048576")?,
        ],
    };
    for path in &paths {
        path.wait_until_it_works(runner)?;
    }
    match what {
        What::Throughput => {}
        What::Connections => paths.iter().try_for_each(|path| path.add_servers(SERVERS_PREFIX))?,
        What::Flows => paths.iter().try_for_each(|path| path.add_servers(flows::PREFIX))?,
    }
    for repetition in 1..=plan.repetitions {
        for path in &mut paths {
            let result = path.measure(runner, what, plan.seconds)?;
            let shown: Vec<String> =
                result.iter().zip(what.measures()).map(|(x, (head, _))| format!("{head} {}", shown(*x))).collect();
            table.progress(&format!("{repetition} of {}  {}: {}", plan.repetitions, path.name, shown.join(", ")), true);
            path.results.push(result);
        }
    }
    Ok(report(what, &paths))
}

fn report(what: What, paths: &[Path4]) -> (String, Value) {
    let measures = what.measures();
    let medians: Vec<Vec<f64>> = paths
        .iter()
        .map(|path| (0..measures.len()).map(|i| median(path.results.iter().map(|r| r[i]))).collect())
        .collect();
    let head: Vec<&str> = ["path"].into_iter().chain(measures.iter().map(|(head, _)| *head)).collect();
    let row = |name: String, cells: Vec<String>| [name].into_iter().chain(cells).collect::<Vec<String>>();
    let mut rows = Vec::new();
    for (path, median) in paths.iter().zip(&medians) {
        rows.push(row(path.name.to_owned(), median.iter().map(|x| shown(*x)).collect()));
    }
    // Ratios of one repetition share its luck; the median is taken of these, not of the figures.
    for &(of, to) in what.ratios() {
        let name = format!("{} / {}", paths[of].name, paths[to].name);
        let ratio = |i: usize| median(paths[of].results.iter().zip(&paths[to].results).map(|(a, b)| a[i] / b[i]));
        rows.push(row(name, (0..measures.len()).map(|i| shown(ratio(i))).collect()));
    }
    let keys = |figures: &Vec<f64>| -> Value {
        let named = measures.iter().zip(figures).map(|((_, key), &x)| ((*key).to_owned(), json!(x)));
        named.collect::<serde_json::Map<_, _>>().into()
    };
    let json: Vec<Value> = paths
        .iter()
        .zip(&medians)
        .map(|(path, median)| {
            json!({"path": path.name, "median": keys(median), "repetitions": path.results.iter().map(keys).collect::<Vec<_>>()})
        })
        .collect();
    (columns(&head, &rows), json.into())
}

fn shown(x: f64) -> String {
    match x {
        x if x.is_nan() => "-".to_owned(),
        x if x < 10.0 => format!("{x:.2}"),
        x => format!("{x:.1}"),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

impl Path4 {
    /// Client, two routers, server; the link between the routers has addresses of the families asked for.
    fn build(
        site: &Site,
        name: &'static str,
        role: &str,
        ipv4_between: bool,
    ) -> Result<(Path4, Netns, Netns), LabError> {
        let [client, one, two, server] = ["c", "r1", "r2", "s"].map(|part| site.netns(&format!("{role}{part}")));
        for netns in [&client, &one, &two, &server] {
            netns.create()?;
            quiet(netns)?;
        }
        for netns in [&client, &server] {
            ipv4_only(netns)?;
        }
        link(&client, "eth0", &one, "lan")?;
        link(&one, "wan", &two, "access")?;
        link(&two, "internet", &server, "eth0")?;
        client.ip("addr add 192.168.1.2/24 dev eth0")?;
        client.ip("route add default via 192.168.1.1")?;
        one.ip("addr add 192.168.1.1/24 dev lan")?;
        two.ip("addr add 198.51.100.1/24 dev internet")?;
        server.ip(&format!("addr add {SERVER}/24 dev eth0"))?;
        server.ip("route add default via 198.51.100.1")?;
        if ipv4_between {
            one.ip("addr add 10.0.0.1/24 dev wan")?;
            one.ip("route add default via 10.0.0.2")?;
            two.ip("addr add 10.0.0.2/24 dev access")?;
            two.ip("route add 192.168.1.0/24 via 10.0.0.1")?;
        } else {
            one.ip("addr add 2001:db8:f000::1/64 dev wan")?;
            one.ip("route add default via 2001:db8:f000::2")?;
            two.ip("addr add 2001:db8:f000::2/64 dev access")?;
            two.ip("route add 2001:db8::/40 via 2001:db8:f000::1")?;
        }
        for router in [&one, &two] {
            router.sysctl(&["net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"])?;
        }
        let path = Path4 {
            name,
            client,
            server,
            last: Some(two.clone()),
            nat: None,
            helpers: Vec::new(),
            results: Vec::new(),
        };
        Ok((path, one, two))
    }

    fn wait_until_it_works(&self, runner: &Runner) -> Result<(), LabError> {
        let server = SERVER.to_string();
        let start = Instant::now();
        loop {
            let argv = ["ping", "-n", "-c", "1", "-W", "1", &server];
            let done = runner.run(&self.client, "ping", &argv, Duration::from_secs(5))?;
            if done.status.success() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(10) {
                let said: Vec<String> = self.helpers.iter().map(|h| format!("{}: {}", h.name(), h.output())).collect();
                return Err(done.unexpected(format!("the path \"{}\" does not work\n{}", self.name, said.join("\n"))));
            }
        }
    }

    fn measure(&self, runner: &Runner, what: What, seconds: u32) -> Result<Vec<f64>, LabError> {
        runner.stop().check()?;
        let length = Duration::from_secs(seconds.into());
        let any: IpAddr = if self.last.is_some() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        if what == What::Flows {
            let of = |count: u32| {
                // No table of the kernel's has so many.
                if self.nat.is_some() && u64::from(count) > conntrack_max()? {
                    return Ok(f64::NAN);
                }
                self.forget_connections(runner)?;
                let rate = flows::packets_per_second(&self.client, &self.server, any, count, length)?;
                Ok::<_, LabError>(rate / 1e3)
            };
            let [few, many, most] = flows::COUNTS.map(of);
            let (few, many, most) = (few?, many?, most?);
            return Ok(vec![few, many, most, many / few, most / few]);
        }
        if what == What::Connections {
            let of = |clients| {
                self.forget_connections(runner)?;
                connections::measure(&self.client, &self.server, any, clients, length)
            };
            let (one, four, many) = (of(1)?, of(4)?, of(connections::CLIENTS)?);
            return Ok(vec![many.rate, one.rate, four.rate, many.failed, many.median, many.slow]);
        }
        let one = self.iperf(runner, seconds, &[])?;
        let reverse = self.iperf(runner, seconds, &["-R"])?;
        let four = self.iperf(runner, seconds, &["-P", "4"])?;
        runner.stop().check()?;
        let rate = blast::packets_per_second(&self.client, &self.server, SERVER, length)?;
        runner.stop().check()?;
        let round = blast::ping_pong(&self.client, &self.server, SERVER, 5_000)?;
        Ok(vec![one, reverse, four, rate.received / 1e3, round.as_secs_f64() * 1e6])
    }

    /// The server has these addresses too.
    fn add_servers(&self, prefix: &str) -> Result<(), LabError> {
        let Some(last) = &self.last else { return Ok(()) };
        self.server.ip(&format!("route add local {prefix} dev lo"))?;
        last.ip(&format!("route add {prefix} via {SERVER}"))
    }

    /// Closed ones stay in the kernel's table for two minutes, and fill it in one.
    fn forget_connections(&self, runner: &Runner) -> Result<(), LabError> {
        let Some(nat) = &self.nat else { return Ok(()) };
        runner.run(nat, "conntrack", &["conntrack", "-F"], Duration::from_secs(20))?.success().map(drop)
    }

    /// Gbit/s received.
    fn iperf(&self, runner: &Runner, seconds: u32, more: &[&str]) -> Result<f64, LabError> {
        // The first second is TCP's slow start.
        let more: Vec<&str> = ["-O", "1"].into_iter().chain(more.iter().copied()).collect();
        let end = iperf3(runner, &self.client, &self.server, seconds, &more)?;
        Ok(end["sum_received"]["bits_per_second"].as_f64().unwrap_or_default() / 1e9)
    }
}

fn plain(_runner: &Runner, site: &Site) -> Result<Path4, LabError> {
    Ok(Path4::build(site, "two plain routers", "plain", true)?.0)
}

const ALL_PORTS: &str = "masquerade";

/// The port set of the lab's first home, PSID 0x34 of 192.0.2.18: `AAAAAA 00110100 jj` with A from 1 to 63 (RFC 7597
/// §5.1), a range for each A.
fn port_set() -> String {
    let range = |a: u32| {
        let first = a << 10 | 0x34 << 2;
        format!("{} : {SHARED} . {first}-{}", a - 1, first + 3)
    };
    let ranges: Vec<String> = (1..64).map(range).collect();
    format!("meta l4proto {{ tcp, udp }} snat ip to numgen inc mod 63 map {{ {} }}", ranges.join(", "))
}

/// The kernel's NAT in the first router. `brief`: what is closed is forgotten after a second, not after two minutes.
fn nat44(
    runner: &Runner,
    site: &Site,
    name: &'static str,
    role: &str,
    rule: String,
    brief: bool,
) -> Result<Path4, LabError> {
    let (mut path, one, two) = Path4::build(site, name, role, true)?;
    two.ip(&format!("route add {SHARED} via 10.0.0.1"))?;
    let rules = site.directory().join(format!("{role}.nft"));
    let chain = "type nat hook postrouting priority srcnat";
    write(&rules, &format!("table ip nat {{\nchain post {{\n{chain}\noifname \"wan\" {rule}\n}}\n}}\n"))?;
    runner.run(&one, "nft", &["nft", "-f", &rules.to_string_lossy()], Duration::from_secs(10))?.success()?;
    if brief {
        one.sysctl(&["net/netfilter/nf_conntrack_tcp_timeout_time_wait=1"])?;
    }
    path.nat = Some(one);
    Ok(path)
}

fn mapt(runner: &Runner, site: &Site, programs: &Programs) -> Result<Path4, LabError> {
    pair(runner, site, programs, ("mapt-ce + mapt-br", "mapt"), &rules_yaml(true), "2001:db8:12:3400::/56")
}

/// The same with all ports of the address.
fn whole(runner: &Runner, site: &Site, programs: &Programs) -> Result<Path4, LabError> {
    let rules = rules_yaml(true).replace("ea-len: 16", "ea-len: 8");
    pair(runner, site, programs, ("mapt-ce + mapt-br, all ports", "whole"), &rules, "2001:db8:12::/48")
}

fn pair(
    runner: &Runner,
    site: &Site,
    programs: &Programs,
    (name, role): (&'static str, &str),
    rules: &str,
    end_user_prefix: &str,
) -> Result<Path4, LabError> {
    let (mut path, one, two) = Path4::build(site, name, role, false)?;
    let directory = directory(site, role, rules)?;
    let mut br = daemons::start_br(runner, &programs.br, &two, &directory)?;
    let mut ce = daemons::start_ce(runner, &programs.ce, &one, "ce", end_user_prefix, &directory)?;
    daemons::wait_until_ready(runner, &mut br)?;
    daemons::wait_until_ready(runner, &mut ce)?;
    path.helpers.extend([br, ce]);
    Ok(path)
}

/// One for a path's files, with its rules in it.
fn directory(site: &Site, role: &str, rules: &str) -> Result<PathBuf, LabError> {
    let directory = site.directory().join(role);
    fs::create_dir_all(&directory).map_err(|e| LabError::failed(format!("make {}", directory.display()), e))?;
    write(&directory.join("rules.yaml"), rules)?;
    Ok(directory)
}

/// What the second router and the server of one translator alone are: the router routes IPv6, and the server is all of
/// the prefix's IPv6 addresses.
fn build_alone(site: &Site, name: &'static str, role: &str, prefix: &str) -> Result<(Path4, Netns), LabError> {
    let (mut path, one, two) = Path4::build(site, name, role, false)?;
    path.last = None;
    path.server.sysctl(&["net/ipv6/conf/all/disable_ipv6=0", "net/ipv6/conf/eth0/disable_ipv6=0"])?;
    two.ip("addr add 2001:db8:f001::1/64 dev internet")?;
    two.ip(&format!("route add {prefix} via 2001:db8:f001::2"))?;
    path.server.ip("addr add 2001:db8:f001::2/64 dev eth0")?;
    path.server.ip("route add default via 2001:db8:f001::1")?;
    path.server.ip(&format!("route add local {prefix} dev lo"))?;
    Ok((path, one))
}

fn ce_alone(runner: &Runner, site: &Site, programs: &Programs, napt: &str) -> Result<Path4, LabError> {
    let (mut path, one) = build_alone(site, "mapt-ce, servers with IPv6", "alone", "2001:db8:ffff::/64")?;
    let directory = directory(site, "alone", &rules_yaml(true))?;
    let ce = ("ce", "2001:db8:12:3400::/56", napt);
    let mut ce = daemons::start_ce_with(runner, &programs.ce, &one, ce, &directory)?;
    daemons::wait_until_ready(runner, &mut ce)?;
    path.helpers.push(ce);
    Ok(path)
}

/// A CLAT without a NAT: tayga gives the client's address an IPv6 one, and its ports stay.
fn tayga_alone(runner: &Runner, site: &Site) -> Result<Path4, LabError> {
    let (mut path, one) = build_alone(site, "tayga, servers with IPv6", "clat", CLAT_PREFIX)?;
    clat(runner, site, &mut path, &one, "clat-alone")?;
    Ok(path)
}

const CLAT_PREFIX: &str = "2001:db8:ffff::/96";
const CLAT_HOST: &str = "2001:db8:12:3400::2";

/// 464XLAT: tayga in the home, tayga and masquerade at the border.
fn tayga(runner: &Runner, site: &Site) -> Result<Path4, LabError> {
    let (mut path, one, two) = Path4::build(site, "tayga + tayga and nftables", "tayga", false)?;
    clat(runner, site, &mut path, &one, "clat")?;
    start_tayga(runner, site, &mut path, &two, ("plat", "plat"), "192.168.255.2", "10.64.0.2")?;
    two.ip(&format!("route add {CLAT_PREFIX} dev plat"))?;
    two.ip(&format!("route add 10.64.0.0/24 dev plat mtu {IPV4_MTU}"))?;
    let rules = site.directory().join("plat.nft");
    write(
        &rules,
        "table ip nat { chain post {\ntype nat hook postrouting priority srcnat\noifname \"internet\" masquerade\n}\n}\n",
    )?;
    runner.run(&two, "nft", &["nft", "-f", &rules.to_string_lossy()], Duration::from_secs(10))?.success()?;
    Ok(path)
}

/// tayga as CLAT in the first router.
fn clat(runner: &Runner, site: &Site, path: &mut Path4, one: &Netns, files: &str) -> Result<(), LabError> {
    start_tayga(runner, site, path, one, (files, "clat"), "192.168.255.1", "192.168.1.2")?;
    for behind in ["198.51.100.0/24", SERVERS_PREFIX] {
        one.ip(&format!("route add {behind} dev clat mtu {IPV4_MTU}"))?;
    }
    one.ip(&format!("route add {CLAT_HOST}/128 dev clat"))
}

/// One with its device, which stands for `inside` towards IPv4.
fn start_tayga(
    runner: &Runner,
    site: &Site,
    path: &mut Path4,
    netns: &Netns,
    (files, name): (&str, &str),
    own: &str,
    inside: &str,
) -> Result<(), LabError> {
    let state = site.directory().join(format!("tayga-{files}"));
    fs::create_dir_all(&state).map_err(|e| LabError::failed(format!("make {}", state.display()), e))?;
    let conf = state.join("tayga.conf");
    let settings = format!(
        "tun-device {name}\nipv4-addr {own}\nprefix {CLAT_PREFIX}\nmap {inside} {CLAT_HOST}\ndata-dir {}\n",
        state.display()
    );
    write(&conf, &settings)?;
    let conf = conf.to_string_lossy();
    runner.run(netns, "tayga-mktun", &["tayga", "-c", &conf, "--mktun"], Duration::from_secs(10))?.success()?;
    netns.ip(&format!("link set dev {name} up"))?;
    path.helpers.push(runner.start(netns, name, &["tayga", "-c", &conf, "-n"])?);
    Ok(())
}

fn conntrack_max() -> Result<u64, LabError> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_max";
    let text = fs::read_to_string(path).map_err(|e| LabError::failed(format!("read {path}"), e))?;
    text.trim().parse().map_err(|e| LabError::failed(format!("read {path}"), e))
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(|e| LabError::failed(format!("write {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_odd_and_even_counts() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }
}
