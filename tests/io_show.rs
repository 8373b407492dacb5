//! `mapt show` against running daemons: what they say is held against what the kernel, the configuration and the
//! traffic say.
mod io_support;
mod net_support;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use io_support::daemon::{Daemon, Files};
use io_support::{Namespace, privileged, wait_for};
use net_support::{SERVER, SERVER_IPV6, SHARED, World, ready};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto};
use serde_json::{Value, json};

const MAPT: &str = env!("CARGO_BIN_EXE_mapt");
const BR: &str = env!("CARGO_BIN_EXE_mapt-br");

fn show(socket: &Path, what: &str) -> Output {
    let mut words = what.split_whitespace();
    let mut command = Command::new(MAPT);
    command.arg("show").arg(words.next().unwrap()).arg("--from").arg(socket).args(words).output().unwrap()
}

fn text(socket: &Path, what: &str) -> String {
    let output = show(socket, what);
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn asked(socket: &Path, what: &str) -> Value {
    let text = text(socket, &format!("{what} --json"));
    assert_eq!(text.lines().count(), 1, "one document: {text}");
    serde_json::from_str(&text).unwrap()
}

/// A CE and a BR, each with a control socket.
fn world(name: &str) -> (World, PathBuf, PathBuf) {
    let mut world = World::new(name, &[SHARED], "2001:db8:ffff::/64", 1500);
    world.more = "control: {socket: br.sock}\n";
    world.start_br();
    world.more = "control: {socket: ce.sock}\n";
    world.start_ce(0);
    let (ce, br) = (world.files.path("ce.sock"), world.files.path("br.sock"));
    (world, ce, br)
}

/// `packets` datagrams of 100 octets of IPv4 from the home to the server, all received there.
fn send(world: &World, from: u16, to: u16, packets: usize) {
    let server = world.server.run(|| UdpSocket::bind(("0.0.0.0", to)).unwrap());
    let host = world.host(SHARED).run(|| UdpSocket::bind(("0.0.0.0", from)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 100];
    for _ in 0..packets {
        host.send_to(&[7; 72], (SERVER, to)).unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap(), 72);
    }
}

#[test]
fn status_of_both_roles() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let (world, ce, br) = world("show-status");
    let status = asked(&ce, "status");
    let pid = world.sites[0].daemon.as_ref().unwrap().child.id();
    assert_eq!((&status["role"], &status["instance"], &status["pid"]), (&"ce".into(), &"ce".into(), &pid.into()));
    assert_eq!((&status["rules-version"], &status["rules-date"]), (&1.into(), &Value::Null));
    assert_eq!((&status["rules"], &status["rules-origin"]), (&3.into(), &"file".into()));
    assert_eq!((&status["version"], &status["confirm-until"]), (&env!("CARGO_PKG_VERSION").into(), &Value::Null));
    assert!(status["uptime"].as_u64().unwrap() < 60, "{status}");
    // RFC 7597 Appendix A, example 1.
    let customer = json!({
        "end-user-ipv6-prefix": "2001:db8:12:3400::/56", "rule": "metro", "ipv4": "192.0.2.18", "ipv4-prefix-len": 32,
        "psid": 0x34, "psid-len": 8, "psid-offset": 6, "map-ipv6-address": SHARED.map_address, "port-count": 252,
        "napt": true
    });
    assert_eq!(status["customer"], customer);
    let link = world.sites[0].ce.ip("-o link show dev mapt-ce");
    let mtu = link.split("mtu ").nth(1).unwrap().split(' ').next().unwrap().parse::<u32>().unwrap();
    assert_eq!((&status["tun"]["name"], &status["tun"]["mtu"]), (&"mapt-ce".into(), &mtu.into()));
    assert_eq!(status["tun"]["queues"], 1);
    let routes = json!({"install": true, "wanted": 2, "installed": 2, "missing": 0, "differing": 0, "unwanted": 0});
    assert_eq!((&status["routes"], &status["sysctls"]), (&routes, &json!([])));

    let words = text(&ce, "status");
    let says = |start: &str, rest: &str| {
        let line = words.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {words}"));
        assert!(line.contains(rest), "{line}");
    };
    says("Daemon", &format!("mapt-ce `ce`, version {}, process {pid}", env!("CARGO_PKG_VERSION")));
    says("Rule set", "version 1, 3 rules");
    says("IPv4", "192.0.2.18, PSID 52 (0x34; 8 bits behind an offset of 6), 252 ports, NAPT on");
    says("TUN", &format!("mapt-ce, MTU {mtu} octets, 1 queue, checksum"));
    says("Routes", "2 wanted, 2 installed");
    says("Sysctls", "as needed");

    // What the host no longer has is said.
    world.br.sysctl("ipv4/ip_forward", "0");
    let status = asked(&br, "status");
    assert_eq!((&status["role"], &status["customer"]), (&"br".into(), &Value::Null));
    let found = &status["sysctls"][0];
    assert_eq!(
        (&found["name"], &found["value"], &found["expected"]),
        (&"net.ipv4.ip_forward".into(), &"0".into(), &"1".into())
    );

    let version = asked(&br, "version");
    assert_eq!((&version["program"], &version["protocol"]), (&"mapt-br".into(), &1.into()));
    assert!(text(&br, "version").starts_with(&format!("mapt-br {}", env!("CARGO_PKG_VERSION"))));
    let none = show(&world.files.path("none.sock"), "routes --json");
    assert_eq!((none.status.code(), none.stdout.as_slice()), (Some(1), &b""[..]), "no half of an answer");
}

/// A BR alone in a namespace.
fn alone(name: &str, rules: &str, more: &str) -> (Namespace, Files, Daemon, PathBuf) {
    let config = format!("role: br\nrules: rules.yaml\ncontrol: {{socket: br.sock}}\n{more}");
    let files = Files::new(name, &[("rules.yaml", rules), ("br.yaml", &config)]);
    let namespace = Namespace::router();
    let daemon = Daemon::start(&namespace, BR, &files.path("br.yaml"));
    let socket = files.path("br.sock");
    (namespace, files, daemon, socket)
}

const RULES: &str = "version: 9
date: 2026-11-22T00:00:00Z
dmr-ipv6-prefix: 2001:db8:ffff::/64
rules:
  - {name: \"süd \\\"1\\\"\", rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16, forwarding: true}
  - {name: b, rule-ipv6-prefix: 2001:db8:8000::/44, rule-ipv4-prefix: 203.0.113.0/24, ea-len: 8}
";

#[test]
fn rules_are_shown_as_those_of_a_file() {
    if !privileged() {
        return;
    }
    let (_namespace, files, daemon, socket) = alone("show-rules", RULES, "state-directory: state\n");
    let of_file = |file: &str, json: &str| {
        let mut command = Command::new(MAPT);
        command.args(["rules", "show"]).arg(files.path(file)).args(json.split_whitespace());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for form in ["", "--json"] {
        assert_eq!(text(&socket, &format!("rules {form}")), of_file("rules.yaml", form));
    }
    // Those in force, not those of the file.
    files.write("new.yaml", &RULES.replace("version: 9", "version: 10").replace("name: b", "name: c"));
    let push = |options: &str| {
        let mut command = Command::new(MAPT);
        command.args(["push", "new.yaml", "--to", "br.sock"]).args(options.split_whitespace());
        let output = command.current_dir(&files.0).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let before = asked(&socket, "status");
    push("--confirm-within 1h");
    assert_eq!(text(&socket, "rules --json"), of_file("new.yaml", "--json"));
    let after = asked(&socket, "status");
    assert_eq!((&after["rules-version"], &after["rules-origin"]), (&10.into(), &"pushed".into()));
    assert_eq!((&before["rules-date"], &before["rules-origin"]), (&"2026-11-22T00:00:00Z".into(), &"file".into()));
    let time = |status: &Value, key: &str| status[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&after, "rules-since") > time(&before, "rules-since"));
    let left = time(&after, "confirm-until").duration_since(time(&after, "rules-since"));
    assert!((3500..=3600).contains(&left.as_secs()), "{after}");
    assert!(text(&socket, "status").contains("to be confirmed until"));
    // A restart keeps the time.
    drop(daemon);
    let _daemon = Daemon::start(&_namespace, BR, &files.path("br.yaml"));
    let again = asked(&socket, "status");
    let drift = time(&again, "rules-since").duration_since(time(&after, "rules-since"));
    assert!(drift.as_millis().abs() < 1000, "{again} {after}");
    assert_eq!((&again["rules-version"], &again["confirm-until"]), (&10.into(), &after["confirm-until"]));
}

#[test]
fn routes_are_held_against_the_kernel() {
    if !privileged() {
        return;
    }
    let rule = |n: u8| {
        format!(
            "  - {{name: r{n}, rule-ipv6-prefix: 2001:db8:{n}00::/40, rule-ipv4-prefix: 192.0.{n}.0/24, ea-len: 16}}\n"
        )
    };
    let rules = format!("dmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n{}", [2, 3, 4, 5].map(rule).concat());
    let (namespace, files, _daemon, socket) = alone("show-routes", &rules, "");
    let states = || {
        let answer = asked(&socket, "routes");
        let rows = answer["routes"].as_array().unwrap().iter();
        let mut all: Vec<String> =
            rows.map(|r| format!("{} {}", r["destination"].as_str().unwrap(), r["state"].as_str().unwrap())).collect();
        all.sort();
        (all, answer)
    };
    let (all, answer) = states();
    assert_eq!(
        all,
        ["192.0.2.0/24", "192.0.3.0/24", "192.0.4.0/24", "192.0.5.0/24", "2001:db8:ffff::/64"]
            .map(|d| format!("{d} installed"))
    );
    assert_eq!((&answer["tun"], &answer["wanted"], &answer["installed"]), (&"mapt-br".into(), &5.into(), &5.into()));
    let row = &answer["routes"][0];
    assert_eq!(
        (&row["table"], &row["metric"], &row["mtu"], &row["source"]),
        (&254.into(), &1024.into(), &1480.into(), &Value::Null)
    );
    let lines = text(&socket, "routes");
    let line: Vec<&str> = lines.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line, ["192.0.2.0/24", "254", "1024", "1480", "-", "installed"]);
    assert!(lines.ends_with("5 routes into mapt-br: 5 wanted, 5 installed\n"), "{lines}");
    // Somebody else's at the place of one of ours.
    namespace.ip("route replace 192.0.4.0/24 dev lo metric 1024 proto static");
    let mut last = Value::Null;
    wait_for("what is in the way", || {
        let (all, answer) = states();
        last = answer;
        all.contains(&"192.0.4.0/24 in-the-way".to_owned())
    });
    assert_eq!((&last["installed"], &last["missing"]), (&4.into(), &1.into()), "{last}");
    let lines = text(&socket, "routes");
    assert!(
        lines.contains("in-the-way") && lines.contains("192.0.4.0/24 dev lo table 254 proto 4 metric 1024"),
        "{lines}"
    );
    assert!(text(&socket, "status").contains("5 wanted, 4 installed, 1 missing"));
    drop(files);
}

#[test]
fn counters_are_those_of_the_traffic() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let (world, ce, br) = world("show-counters");
    let before = asked(&br, "counters");
    send(&world, 40_101, 5101, 20);
    // Nobody asked for this one.
    let stray = world.server.run(|| UdpSocket::bind(("0.0.0.0", 5102)).unwrap());
    stray.send_to(&[1; 8], (SHARED.ipv4, 1234)).unwrap();
    let count = |answer: &Value, path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let grown = |path: &str| count(&asked(&br, "counters"), path) - count(&before, path);
    wait_for("the packets", || grown("/v6-to-v4/forwarded/packets") >= 20);
    // UDP of 72 octets: 100 as IPv4, 120 as IPv6 (RFC 791 §3.1, RFC 8200 §3).
    assert_eq!(grown("/v6-to-v4/received/octets"), 20 * 120);
    assert_eq!(grown("/v6-to-v4/forwarded/octets"), 20 * 100);
    assert!(grown("/device/read") >= 20 && grown("/device/written") >= 20);
    wait_for("the stray", || count(&asked(&ce, "counters"), "/v6-to-v4/reasons/napt-no-mapping/packets") == 1);
    let answer = asked(&ce, "counters");
    assert_eq!(count(&answer, "/v6-to-v4/reasons/napt-no-mapping/octets"), 40 + 8 + 8);
    assert!(answer["uptime"].as_f64().unwrap() > 0.0);
    let table = text(&ce, "counters");
    let line = |word: &str| {
        table.lines().find(|line| line.trim_start().starts_with(word)).unwrap_or_else(|| panic!("{table}"))
    };
    assert_eq!(
        line("napt-no-mapping").split_whitespace().collect::<Vec<_>>(),
        ["napt-no-mapping", "0", "0", "1", "56"]
    );

    // By rule, in octets as they came: 100 as IPv4, 120 as IPv6.
    let rules = |socket: &Path| {
        let answer = asked(socket, "counters");
        let rows = answer["rules"].as_array().unwrap().clone();
        assert_eq!(rows.len(), 1, "one rule has customers: {rows:?}");
        assert_eq!(rows[0]["rule"], "metro");
        ["v4-to-v6", "v6-to-v4"]
            .map(|way| [count(&rows[0], &format!("/{way}/packets")), count(&rows[0], &format!("/{way}/octets"))])
    };
    assert_eq!(rules(&br)[1], [20, 2400]);
    assert_eq!(rules(&ce)[0], [20, 2000]);
    assert_eq!(line("metro").split_whitespace().collect::<Vec<_>>()[..3], ["metro", "20", "2000"]);

    // Rates: 20 packets between two looks.
    let mut command = Command::new(MAPT);
    command.args(["show", "counters", "--watch", "1", "--json", "--from"]).arg(&br).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let first = next();
    send(&world, 40_103, 5103, 5);
    let second = next();
    assert_eq!(count(&second, "/v6-to-v4/forwarded/packets") - count(&first, "/v6-to-v4/forwarded/packets"), 5);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut command = Command::new(MAPT);
    command.args(["show", "counters", "--watch", "--from"]).arg(&br).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let head = lines.nth(1).unwrap().unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["packets/s", "bit/s", "packets/s", "bit/s"]);
    child.kill().unwrap();
    child.wait().unwrap();

    // What was counted by a rule goes on under new rules, as long as there is one of its name.
    let path = world.files.path("rules.yaml");
    let rules_before = rules(&br);
    let renamed = |to: &str, version: u64| {
        let text = std::fs::read_to_string(&path).unwrap().replace("name: business", &format!("name: {to}"));
        let (_, rest) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("version: {version}\n{rest}")).unwrap();
        world.br_daemon.as_ref().unwrap().signal(Signal::SIGHUP);
        wait_for("the new rules", || asked(&br, "status")["rules-version"] == version);
    };
    renamed("commerce", 2);
    assert_eq!(rules(&br), rules_before);
    send(&world, 40_104, 5104, 3);
    wait_for("three more", || rules(&br)[1][0] == rules_before[1][0] + 3);
    let text = std::fs::read_to_string(&path).unwrap().replace("name: metro", "name: town");
    std::fs::write(&path, text.replace("version: 2", "version: 3")).unwrap();
    world.br_daemon.as_ref().unwrap().signal(Signal::SIGHUP);
    wait_for("no rule of that name", || asked(&br, "counters")["rules"] == json!([]));
}

#[test]
fn drops_are_told_in_words() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let (world, ce, br) = world("show-drops");
    assert_eq!(asked(&ce, "drops"), json!({"drops": []}));
    // Nobody asked for this one; port 1234 = 000001 00110100 10 is of PSID 0x34.
    let stray = world.server.run(|| UdpSocket::bind(("0.0.0.0", 5111)).unwrap());
    let before = jiff::Timestamp::now();
    stray.send_to(&[1; 8], (SHARED.ipv4, 1234)).unwrap();
    let mut drops = Vec::new();
    wait_for("the drop", || {
        drops = asked(&ce, "drops")["drops"].as_array().unwrap().clone();
        !drops.is_empty()
    });
    let drop = &drops[0];
    assert_eq!((&drop["reason"], &drop["direction"]), (&"napt-no-mapping".into(), &"v6_to_v4".into()));
    assert_eq!((&drop["octets"], &drop["rule"]), (&56.into(), &"metro".into()));
    let at: jiff::Timestamp = drop["at"].as_str().unwrap().parse().unwrap();
    let late = at.duration_since(before).as_millis();
    assert!((-50..10_000).contains(&late), "{drop} {before}");
    let said = drop["packet"].as_str().unwrap();
    let ends = format!("[{}]:5111 to [{}]:1234", SERVER_IPV6, SHARED.map_address);
    assert!(said.starts_with("IPv6, 56 octets, UDP from ") && said.contains(&ends), "{said}");

    // A port that nobody owns, at the BR; then a flood, of which a few are kept, the newest among them.
    stray.send_to(&[1; 9], (SHARED.ipv4, 80)).unwrap();
    wait_for("the BR's drop", || asked(&br, "drops")["drops"][0]["reason"] == "port-excluded");
    for n in 0..5000u32 {
        stray.send_to(&n.to_be_bytes(), (SHARED.ipv4, 81)).unwrap();
    }
    stray.send_to(&[0; 1600], (SHARED.ipv4, 82)).unwrap();
    let count = || asked(&br, "counters")["v4-to-v6"]["reasons"]["port-excluded"]["packets"].as_u64();
    wait_for("the flood", || count() >= Some(5001));
    let kept = asked(&br, "drops")["drops"].as_array().unwrap().len();
    assert!((2..=64 * 2).contains(&kept), "{kept} of 5,001, with two queues at most");
    let words = text(&br, "drops");
    assert!(
        words.contains(" v4_to_v6 port-excluded\n  IPv4, 32 octets, UDP from 198.51.100.2:5111 to 192.0.2.18:81"),
        "{words}"
    );
}

#[test]
fn fragments_are_shown_beside_their_bounds() {
    if !privileged() {
        return;
    }
    let more = "fragments: {lifetime: 30, packets: 64, held-octets: 100000}\n";
    let (namespace, _files, _daemon, socket) = alone("show-fragments", RULES, more);
    let empty = json!({"packets": 0, "packets-limit": 64, "held": 0, "held-octets": 0, "held-octets-limit": 100_000, "lifetime": 30.0});
    assert_eq!(asked(&socket, "fragments"), empty);
    // The last piece of 1,008 octets of payload, without the others: 192.0.2.18 is shared, so it waits for its ports.
    let fragment = |id: u16| {
        let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0x00, 126, 64, 17, 0, 0, 198, 51, 100, 2, 192, 0, 2, 18];
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet.extend([0; 40]);
        packet
    };
    namespace.run(|| {
        let raw = socket::socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        let to = SockaddrIn::new(192, 0, 2, 18, 0);
        for id in [1, 2, 3] {
            sendto(raw.as_raw_fd(), &fragment(id), &to, MsgFlags::empty()).unwrap();
        }
    });
    wait_for("three fragments", || asked(&socket, "fragments")["held"] == 3);
    let fragments = asked(&socket, "fragments");
    assert_eq!(fragments["packets"], 3);
    assert!((180..=3 * 512).contains(&fragments["held-octets"].as_u64().unwrap()), "{fragments}");
    assert_eq!(asked(&socket, "counters")["v4-to-v6"]["held"], 3);
    let words = text(&socket, "fragments");
    assert!(words.contains("Packets known   3 of 64 (4.7 %)\nFragments held  3\n"), "{words}");
}
