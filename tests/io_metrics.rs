//! The metrics endpoint of running daemons, read by curl, promtool and prometheus.
mod io_support;
mod net_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use io_support::daemon::{Daemon, Files};
use io_support::{Namespace, wait_for};
use net_support::{SERVER, SHARED, World, ready};
use nix::sys::signal::Signal;
use serde_json::Value;

const BR: &str = env!("CARGO_BIN_EXE_mapt-br");
const AT: &str = "127.0.0.1:9782";

/// A CE and a BR, each with an endpoint in its own namespace.
fn world(name: &str) -> World {
    let mut world = World::new(name, &[SHARED], "2001:db8:ffff::/64", 1500);
    for namespace in [&world.br, &world.sites[0].ce] {
        namespace.ip("link set lo up");
    }
    world.more = "metrics: {listen: 9782}\ncontrol: {socket: br.sock}\n";
    world.start_br();
    world.more = "metrics: {listen: 9782}\ncontrol: {socket: ce.sock}\n";
    world.start_ce(0);
    world
}

/// Status line and body, by curl.
fn curl(namespace: &Namespace, arguments: &str) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["-s", "-S", "-m", "20", "-w", "\n%{http_code}"]).args(arguments.split_whitespace());
    let output = namespace.run(|| command.output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap_or_else(|_| panic!("{text} {}", String::from_utf8_lossy(&output.stderr))), body.to_owned())
}

fn page(namespace: &Namespace) -> String {
    let (status, body) = curl(namespace, &format!("http://{AT}/metrics"));
    assert_eq!(status, 200, "{body}");
    body
}

/// Values by name and labels.
fn values(page: &str) -> BTreeMap<String, f64> {
    let rows = page.lines().filter(|line| !line.starts_with('#'));
    let split = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    rows.map(|line| split(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The sum over all labels that contain `of`.
fn sum(page: &str, name: &str, of: &str) -> f64 {
    let all = values(page);
    let rows = all.iter().filter(|(row, _)| row.split('{').next() == Some(name) && row.contains(of));
    rows.map(|(_, value)| value).sum()
}

/// Datagrams of 72 octets there and back, each of which arrives.
struct Talk {
    server: UdpSocket,
    host: UdpSocket,
    to: u16,
}

impl Talk {
    fn new(world: &World, from: u16, to: u16) -> Talk {
        let server = world.server.run(|| UdpSocket::bind(("0.0.0.0", to)).unwrap());
        let host = world.host(SHARED).run(|| UdpSocket::bind(("0.0.0.0", from)).unwrap());
        for socket in [&server, &host] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        Talk { server, host, to }
    }

    fn exchange(&self, times: usize) {
        let mut buffer = [0; 100];
        for _ in 0..times {
            self.host.send_to(&[7; 72], (SERVER, self.to)).unwrap();
            let (n, seen) = self.server.recv_from(&mut buffer).unwrap();
            self.server.send_to(&buffer[..n], seen).unwrap();
            assert_eq!(self.host.recv(&mut buffer).unwrap(), 72);
        }
    }
}

fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn the_page_says_what_was_sent() {
    if !ready(&["ip", "ping", "curl", "promtool"]) {
        return;
    }
    let world = world("metrics-page");
    let ce = &world.sites[0].ce;
    Talk::new(&world, 40_201, 5201).exchange(20);
    // Figures are a second old at most.
    wait_for("twenty packets", || sum(&page(&world.br), "mapt_sent_ipv4_packets_total", "") == 20.0);
    let br = page(&world.br);
    // UDP of 72 octets: 100 as IPv4, 120 as IPv6 (RFC 791 §3.1, RFC 8200 §3). Another packet came: the host's ping.
    for (name, value) in [
        ("mapt_rcvd_ipv6_packets_total", 20.0),
        ("mapt_rcvd_ipv6_bytes_total", 2400.0),
        ("mapt_sent_ipv4_bytes_total", 2000.0),
        ("mapt_rcvd_ipv4_bytes_total", 2000.0),
        ("mapt_sent_ipv6_bytes_total", 2400.0),
        ("mapt_build_info", 1.0),
        ("mapt_rules_version", 1.0),
        ("mapt_rules", 3.0),
        ("mapt_napt_ports", 0.0),
    ] {
        assert_eq!(sum(&br, name, ""), value, "{name}\n{br}");
    }
    assert_eq!(sum(&br, "mapt_rule_forwarded_packets_total", "rule=\"metro\",direction=\"v6_to_v4\""), 20.0);
    let state = |state: &str| sum(&br, "mapt_routes", &format!("\"{state}\""));
    assert_eq!([state("wanted"), state("installed"), state("missing")], [3.0, 3.0, 0.0], "{br}");
    let started = sum(&br, "mapt_start_time_seconds", "");
    let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
    assert!((0.0..60.0).contains(&(now - started)), "{started} {now}");
    assert!(sum(&br, "mapt_rules_since_seconds", "") >= started - 5.0);

    let mut home = String::new();
    wait_for("the CE's packets", || {
        home = page(ce);
        sum(&home, "mapt_sent_ipv6_packets_total", "") == 20.0
    });
    assert_eq!(sum(&home, "mapt_napt_ports", "\"udp\""), 252.0);
    assert_eq!(sum(&home, "mapt_napt_ports_in_use", "\"udp\""), 1.0);
    assert_eq!((sum(&home, "mapt_napt_flows", "\"udp\""), sum(&home, "mapt_napt_flows", "\"tcp\"")), (1.0, 0.0));
    assert_eq!(sum(&home, "mapt_napt_flows_gave_way_total", ""), 0.0);

    // Either format, judged by Prometheus's own tool: no errors, and no complaints of its lint.
    for page in [&br, &home] {
        let (good, said) = promtool(&["check", "metrics"], page);
        assert!(good && said.trim().is_empty(), "{said}");
    }
    let (status, open) =
        curl(&world.br, &format!("-H Accept:application/openmetrics-text;version=1.0.0 http://{AT}/metrics"));
    assert_eq!(status, 200);
    assert!(open.ends_with("\n# EOF\n") && open.contains("# TYPE mapt_rcvd_ipv4_packets counter\n"), "{open}");
    assert_eq!(values(&open).len(), values(&br).len());

    // Nothing in dashboard and alerts that no daemon tells.
    let known: BTreeSet<String> = values(&br)
        .into_keys()
        .chain(values(&home).into_keys())
        .map(|row| row.split('{').next().unwrap().to_owned())
        .collect();
    for text in [include_str!("../config/grafana-dashboard.json"), include_str!("../config/prometheus-alerts.yaml")] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.starts_with("mapt_")) {
            // Told while a push waits alone.
            assert!(known.contains(name) || name == "mapt_rules_confirm_until_seconds", "{name}");
        }
    }
    let board: Value = serde_json::from_str(include_str!("../config/grafana-dashboard.json")).unwrap();
    assert!(board["panels"].as_array().unwrap().len() > 10);
    let (good, said) = promtool(&["check", "rules", "config/prometheus-alerts.yaml"], "");
    assert!(good, "{said}");
    let (good, said) = promtool(&["test", "rules", "tests/prometheus-alerts.yaml"], "");
    assert!(good, "{said}");
}

#[test]
fn what_is_refused() {
    if !ready(&["ip", "curl"]) {
        return;
    }
    let rule = |n: usize| {
        format!(
            "  - {{name: r{n}, rule-ipv6-prefix: 2001:db8:{n:x}00::/40, rule-ipv4-prefix: 192.0.{n}.0/24, ea-len: 16}}\n"
        )
    };
    let rules = format!("dmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n{}", [1, 2, 3].map(rule).concat());
    let config = |more: &str| format!("role: br\nrules: rules.yaml\nmetrics: {{{more}}}\n");
    let files =
        Files::new("metrics-refused", &[("rules.yaml", &rules), ("br.yaml", &config("listen: 9782, rules: 2"))]);
    let namespace = Namespace::router();
    namespace.ip("link set lo up");
    let daemon = Daemon::start(&namespace, BR, &files.path("br.yaml"));
    let ask = |arguments: &str| curl(&namespace, arguments).0;
    assert_eq!(ask(&format!("http://{AT}/")), 404);
    assert_eq!(ask(&format!("http://{AT}/metrics?x=1")), 200);
    assert_eq!(ask(&format!("-X POST -d x http://{AT}/metrics")), 405);
    let long = format!("-H X-Long:{} http://{AT}/metrics", "y".repeat(9000));
    assert_eq!(ask(&long), 431);
    let raw = |request: &[u8]| {
        let mut stream = namespace.run(|| TcpStream::connect(AT).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(raw(b"\x16\x03\x01\x02\x00 no http\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(raw(b"GET /metrics HTTP/1.1\r\n"), "HTTP/1.1 408 Request Timeout");
    // Three rules are more than two: none has series of its own.
    assert!(!page(&namespace).contains("mapt_rule_forwarded"));

    // Another start on the same port, and what waits for a restart.
    files.write("two.yaml", &config("listen: 9782").replace("role: br", "role: br\ninstance: two"));
    let output = namespace.run(|| Command::new(BR).arg(files.path("two.yaml")).output().unwrap());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("metrics.listen: 127.0.0.1:9782"), "{said}");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().0.success());

    // A Unix socket, its owner's.
    files.write("br.yaml", &config("listen: ./m.sock"));
    let daemon = Daemon::start(&namespace, BR, &files.path("br.yaml"));
    let socket = files.path("m.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, body) = curl(&namespace, &format!("--unix-socket {} http://mapt/metrics", socket.display()));
    assert_eq!(status, 200);
    assert!(body.contains("mapt_rule_forwarded_packets_total") || sum(&body, "mapt_rules", "") == 3.0, "{body}");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().0.success());
    assert!(!Path::new(&socket).exists());
}

#[test]
fn stuck_and_many_clients_cost_the_packets_nothing() {
    if !ready(&["ip", "ping", "curl"]) {
        return;
    }
    let world = world("metrics-crowd");
    let ce = &world.sites[0].ce;
    let talk = Talk::new(&world, 40_203, 5203);
    talk.exchange(1);
    let at: SocketAddr = AT.parse().unwrap();
    let alone = Instant::now();
    talk.exchange(500);
    let alone = alone.elapsed();
    let connect = || TcpStream::connect(at).unwrap();
    // A hundred that say nothing: a third are let in, the others are told or sent away at once.
    let mut clients: Vec<TcpStream> = ce.run(|| (0..100).map(|_| connect()).collect());
    wait_for("the room to be full", || curl(ce, &format!("http://{AT}/metrics")).0 == 503);
    let among = Instant::now();
    talk.exchange(500);
    let among = among.elapsed();
    assert!(among < alone * 10 + Duration::from_secs(1), "{alone:?} alone, {among:?} among 100 clients");
    // They are sent away, and there is room again, though none of them has gone.
    wait_for("room", || curl(ce, &format!("http://{AT}/metrics")).0 == 200);
    // Some that ask and take nothing, and a hundred that ask all the time.
    for _ in 0..8 {
        let mut stuck = ce.run(connect);
        stuck.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        clients.push(stuck);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let asked = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                ce.run(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let all: Vec<_> = (0..25).filter_map(|_| TcpStream::connect(at).ok()).collect();
                        for mut stream in all {
                            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
                            let _ = stream.read_to_end(&mut Vec::new());
                            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            });
        }
        talk.exchange(500);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(asked.into_inner() > 0);
    drop(clients);
    wait_for("the figures", || sum(&page(ce), "mapt_sent_ipv6_packets_total", "") == 1501.0);
    assert_eq!(sum(&page(ce), "mapt_device_refused_packets_total", ""), 0.0);
}

/// A process of somebody else's; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_prometheus_scrapes_a_daemon() {
    if !ready(&["ip", "ping", "curl", "prometheus"]) {
        return;
    }
    let world = world("metrics-prometheus");
    let alerts = std::fs::canonicalize("config/prometheus-alerts.yaml").unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  - job_name: mapt\n    static_configs: [{{targets: ['{AT}']}}]\n",
        alerts.display()
    );
    let file = world.files.write("prometheus.yaml", &config);
    let log = std::fs::File::create(world.files.path("prometheus.log")).unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display())).arg("--web.listen-address=127.0.0.1:9783");
    command.arg(format!("--storage.tsdb.path={}", world.files.path("tsdb").display())).stderr(log);
    let _prometheus = Process(world.br.run(|| command.spawn().unwrap()));
    let query = |expression: &str| -> Option<f64> {
        let mut command = Command::new("curl");
        command.args(["-s", "-m", "5", "-G", "--data-urlencode"]).arg(format!("query={expression}"));
        command.arg("http://127.0.0.1:9783/api/v1/query");
        let output = world.br.run(|| command.output().unwrap());
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    wait_for("a scrape", || query("up{job=\"mapt\"}") == Some(1.0));
    Talk::new(&world, 40_205, 5205).exchange(30);
    wait_for("what was sent", || query("sum(mapt_sent_ipv4_packets_total)") == Some(30.0));
    assert_eq!(query("sum(mapt_rcvd_ipv6_bytes_total)"), Some(30.0 * 120.0));
    assert_eq!(query("count(mapt_build_info{role=\"br\"})"), Some(1.0));
    assert_eq!(query("sum(mapt_dropped_ipv4_packets_total{reason=\"port-excluded\"})"), Some(0.0));
    // One of the alerts fires: it was started within the last quarter of an hour, so nothing is missing but this.
    assert_eq!(query("count(ALERTS{alertname=\"MaptDown\"})"), None);
    let (status, rules) = curl(&world.br, "http://127.0.0.1:9783/api/v1/rules");
    assert_eq!(status, 200);
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 12 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
}
