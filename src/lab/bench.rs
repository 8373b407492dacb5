//! `mapt lab --bench`: the same client and server behind two plain routers, behind tayga as CLAT and as PLAT,
//! and behind `mapt-ce` and `mapt-br`; repetitions alternate, so that other load on the machine hits all alike.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::daemons::{self, Programs};
use super::netns::Netns;
use super::process::{Helper, Runner};
use super::registry::Site;
use super::servers::iperf3;
use super::table::{Table, columns};
use super::topology::{IPV4_MTU, SERVER, ipv4_only, link, quiet, rules_yaml};
use super::{LabError, blast};

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
    /// Dropped, and so ended, with the path.
    helpers: Vec<Helper>,
    results: Vec<[f64; MEASURES.len()]>,
}

/// What is measured: its head in the table and its key in JSON.
const MEASURES: [(&str, &str); 5] = [
    ("TCP 1 Gbit/s", "tcp-1-gbit-per-s"),
    ("TCP 1 reverse", "tcp-1-reverse-gbit-per-s"),
    ("TCP 4 Gbit/s", "tcp-4-gbit-per-s"),
    ("UDP 64 kpps", "udp-64-kpps"),
    ("ping-pong µs", "ping-pong-us"),
];

/// Builds all paths, measures, answers the table as text and as JSON.
pub fn run(
    runner: &Runner,
    site: &Site,
    programs: &Programs,
    plan: Plan,
    table: &Table,
) -> Result<(String, Value), LabError> {
    let mut paths = vec![plain(runner, site)?, tayga(runner, site)?, mapt(runner, site, programs)?];
    for path in &paths {
        path.wait_until_it_works(runner)?;
    }
    for repetition in 1..=plan.repetitions {
        for path in &mut paths {
            let result = path.measure(runner, plan.seconds)?;
            let shown: Vec<String> =
                result.iter().zip(MEASURES).map(|(x, (head, _))| format!("{head} {x:.1}")).collect();
            table.progress(&format!("{repetition} of {}  {}: {}", plan.repetitions, path.name, shown.join(", ")), true);
            path.results.push(result);
        }
    }
    Ok(report(&paths))
}

fn report(paths: &[Path4]) -> (String, Value) {
    let medians: Vec<[f64; MEASURES.len()]> =
        paths.iter().map(|path| std::array::from_fn(|i| median(path.results.iter().map(|r| r[i])))).collect();
    let mut head = [""; MEASURES.len() + 1];
    head[0] = "path";
    for (cell, (name, _)) in head[1..].iter_mut().zip(MEASURES) {
        *cell = name;
    }
    let mut rows = Vec::new();
    for (path, median) in paths.iter().zip(&medians) {
        rows.push(row(path.name.to_owned(), median.map(|x| format!("{x:.1}"))));
    }
    // Ratios of one repetition share its luck; the median is taken of these, not of the figures.
    for (of, to) in [(2, 1), (2, 0), (1, 0)] {
        let name = format!("{} / {}", paths[of].name, paths[to].name);
        let ratios = std::array::from_fn(|i| {
            let ratio = median(paths[of].results.iter().zip(&paths[to].results).map(|(a, b)| a[i] / b[i]));
            format!("{ratio:.2}")
        });
        rows.push(row(name, ratios));
    }
    let keys = |figures: &[f64; MEASURES.len()]| -> Value {
        MEASURES
            .iter()
            .zip(figures)
            .map(|((_, key), &x)| ((*key).to_owned(), json!(x)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let json: Vec<Value> = paths
        .iter()
        .zip(&medians)
        .map(|(path, median)| {
            json!({"path": path.name, "median": keys(median), "repetitions": path.results.iter().map(keys).collect::<Vec<_>>()})
        })
        .collect();
    (columns(&head, rows), json.into())
}

fn row(name: String, cells: [String; MEASURES.len()]) -> [String; MEASURES.len() + 1] {
    let mut cells = cells.into_iter();
    let mut name = Some(name);
    std::array::from_fn(|_| name.take().or_else(|| cells.next()).unwrap_or_default())
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
        let path = Path4 { name, client, server, helpers: Vec::new(), results: Vec::new() };
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

    fn measure(&self, runner: &Runner, seconds: u32) -> Result<[f64; MEASURES.len()], LabError> {
        let one = self.iperf(runner, seconds, &[])?;
        let reverse = self.iperf(runner, seconds, &["-R"])?;
        let four = self.iperf(runner, seconds, &["-P", "4"])?;
        runner.stop().check()?;
        let rate = blast::packets_per_second(&self.client, &self.server, SERVER, Duration::from_secs(seconds.into()))?;
        runner.stop().check()?;
        let round = blast::ping_pong(&self.client, &self.server, SERVER, 5_000)?;
        Ok([one, reverse, four, rate.received / 1e3, round.as_secs_f64() * 1e6])
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

fn mapt(runner: &Runner, site: &Site, programs: &Programs) -> Result<Path4, LabError> {
    let (mut path, one, two) = Path4::build(site, "mapt-ce + mapt-br", "mapt", false)?;
    let directory = site.directory();
    write(&directory.join("rules.yaml"), &rules_yaml(true))?;
    let mut br = daemons::start_br(runner, &programs.br, &two, directory)?;
    let mut ce = daemons::start_ce(runner, &programs.ce, &one, "ce1", "2001:db8:12:3400::/56", directory)?;
    daemons::wait_until_ready(runner, &mut br)?;
    daemons::wait_until_ready(runner, &mut ce)?;
    path.helpers.extend([br, ce]);
    Ok(path)
}

/// 464XLAT: tayga in the home, tayga and masquerade at the border.
fn tayga(runner: &Runner, site: &Site) -> Result<Path4, LabError> {
    let (mut path, one, two) = Path4::build(site, "tayga + tayga and nftables", "tayga", false)?;
    let host = "2001:db8:12:3400::2";
    let prefix = "2001:db8:ffff::/96";
    for (netns, name, own, inside) in
        [(&one, "clat", "192.168.255.1", "192.168.1.2"), (&two, "plat", "192.168.255.2", "10.64.0.2")]
    {
        let state = site.directory().join(format!("tayga-{name}"));
        fs::create_dir_all(&state).map_err(|e| LabError::failed(format!("make {}", state.display()), e))?;
        let conf = state.join("tayga.conf");
        write(
            &conf,
            &format!(
                "tun-device {name}\nipv4-addr {own}\nprefix {prefix}\nmap {inside} {host}\ndata-dir {}\n",
                state.display()
            ),
        )?;
        let conf = conf.to_string_lossy();
        runner.run(netns, "tayga-mktun", &["tayga", "-c", &conf, "--mktun"], Duration::from_secs(10))?.success()?;
        netns.ip(&format!("link set dev {name} up"))?;
        path.helpers.push(runner.start(netns, name, &["tayga", "-c", &conf, "-n"])?);
    }
    one.ip(&format!("route add 198.51.100.0/24 dev clat mtu {IPV4_MTU}"))?;
    one.ip(&format!("route add {host}/128 dev clat"))?;
    two.ip(&format!("route add {prefix} dev plat"))?;
    two.ip(&format!("route add 10.64.0.0/24 dev plat mtu {IPV4_MTU}"))?;
    let rules = site.directory().join("plat.nft");
    write(
        &rules,
        "table ip nat { chain post {\ntype nat hook postrouting priority srcnat\noifname \"internet\" masquerade\n}\n}\n",
    )?;
    runner.run(&two, "nft", &["nft", "-f", &rules.to_string_lossy()], Duration::from_secs(10))?.success()?;
    Ok(path)
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
