//! The control socket and SIGHUP of a running `mapt-ce`: what it answers, whom it does not, what changes under traffic.
mod io_support;
mod net_support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use io_support::daemon::{Daemon, Files};
use io_support::{Namespace, privileged, wait_for};
use net_support::{SERVER, SHARED, World, in_shared_set, ready, run};
use nix::sys::signal::Signal;
use serde_json::Value;

const CE: &str = env!("CARGO_BIN_EXE_mapt-ce");

/// A CE with a control socket, behind a BR.
fn world(name: &str) -> (World, PathBuf) {
    let mut world = World::new(name, &[SHARED], "2001:db8:ffff::/64", 1500);
    world.start_br();
    world.more = "control: {socket: ce.sock}\n";
    world.start_ce(0);
    let socket = world.files.path("ce.sock");
    (world, socket)
}

fn show(socket: &std::path::Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapt"));
    command.args(["show", "mappings", "--from"]).arg(socket).args(arguments.split_whitespace());
    command.output().unwrap()
}

fn mappings(socket: &std::path::Path, arguments: &str) -> Vec<Value> {
    let output = show(socket, &format!("--json {arguments}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["mappings"].as_array().unwrap().clone()
}

/// A datagram to the server and back; the server's socket, the home's, and how the home is seen.
fn exchange(world: &World, from: u16, to: u16) -> (UdpSocket, UdpSocket, std::net::SocketAddr) {
    let server = world.server.run(|| UdpSocket::bind(("0.0.0.0", to)).unwrap());
    let host = world.host(SHARED).run(|| UdpSocket::bind(("0.0.0.0", from)).unwrap());
    for socket in [&server, &host] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let seen = again(&host, &server, to);
    (server, host, seen)
}

fn again(host: &UdpSocket, server: &UdpSocket, to: u16) -> std::net::SocketAddr {
    let mut buffer = [0; 100];
    host.send_to(b"there", (SERVER, to)).unwrap();
    let (n, seen) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"there");
    server.send_to(b"back", seen).unwrap();
    let (n, _) = host.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"back");
    seen
}

fn port(value: &Value) -> u16 {
    value.as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn mappings_are_shown_and_filtered() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let (world, socket) = world("mappings");
    assert!(mappings(&socket, "").is_empty());

    let (_server, _host, seen) = exchange(&world, 40_001, 5001);
    let listener = world.server.run(|| TcpListener::bind(("0.0.0.0", 5002)).unwrap());
    let client = world.host(SHARED).run(|| TcpStream::connect((SERVER, 5002)).unwrap());
    let _accepted = listener.accept().unwrap();
    run(world.host(SHARED), "ping", &format!("-c 1 -W 10 {SERVER}"));

    let all = mappings(&socket, "");
    let of = |protocol: &str| all.iter().find(|m| m["protocol"] == protocol).unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(all.len(), 3, "{all:?}");
    let udp = of("udp");
    assert_eq!((&udp["inside"], &udp["remote"]), (&"192.168.1.2:40001".into(), &"198.51.100.2:5001".into()));
    assert_eq!((&udp["outside"], &udp["origin"]), (&seen.to_string().into(), &"own".into()));
    assert_eq!(udp["state"], "answered");
    let left = udp["expires-in"].as_f64().unwrap();
    assert!((270.0..=300.5).contains(&left), "{left}");
    let tcp = of("tcp");
    assert_eq!(port(&tcp["inside"]), client.local_addr().unwrap().port());
    assert_eq!((&tcp["remote"], &tcp["state"]), (&"198.51.100.2:5002".into(), &"established".into()));
    let echo = of("icmp");
    assert_eq!((&echo["remote"], &echo["state"]), (&Value::Null, &"query".into()));
    for mapping in &all {
        assert!(in_shared_set(port(&mapping["outside"])), "{mapping}");
    }

    let count = |arguments: &str| mappings(&socket, arguments).len();
    assert_eq!(count("--protocol udp"), 1);
    assert_eq!(count("--inside 192.168.1.2"), 3);
    assert_eq!(count("--inside 192.168.1.2:40001"), 1);
    assert_eq!(count("--inside 192.168.1.3"), 0);
    assert_eq!(count(&format!("--outside-port {}", seen.port())), 1);
    assert_eq!(count("--remote 198.51.100.2"), 2, "an echo is with anybody");
    assert_eq!(count("--remote 198.51.100.2:5002"), 1);
    assert_eq!(count("--remote 198.51.100.2:5002 --protocol udp"), 0);

    let text = String::from_utf8(show(&socket, "").stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..5], ["PROTO", "INSIDE", "OUTSIDE", "REMOTE", "ORIGIN"]);
    assert_eq!(
        lines[1][..4],
        ["tcp", tcp["inside"].as_str().unwrap(), tcp["outside"].as_str().unwrap(), "198.51.100.2:5002"]
    );
    assert_eq!(lines[4], ["tcp:", "1", "flow,", "1", "of", "252", "ports", "in", "use,", "0", "of", "them", "shared"]);
    assert_eq!(lines.len(), 7, "{text}");

    let output = show(&world.files.path("none.sock"), "");
    assert_eq!(output.status.code(), Some(1));
    let reason = String::from_utf8(output.stderr).unwrap();
    assert!(reason.contains("none.sock") && reason.contains("control.socket"), "{reason}");
    assert_eq!(show(&socket, "--inside 192.168.1.300").status.code(), Some(2));
}

fn say(socket: &std::path::Path, line: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(line).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn bad_clients_are_told_and_cost_nothing() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let (world, socket) = world("clients");
    let (server, host, seen) = exchange(&world, 40_003, 5003);
    assert!(say(&socket, b"nonsense\n").contains("\"error\":\"no request"));
    assert!(say(&socket, b"{\"mapt\":1,\"ask\":\"weather\"}\n").contains("unknown variant"));
    assert!(say(&socket, b"{\"mapt\":1,\"ask\":{\"mappings\":{}},\"more\":1}\n").contains("unknown field"));
    assert!(say(&socket, b"{\"mapt\":2,\"ask\":\"weather\"}\n").contains("version 2"));
    assert!(say(&socket, b"{\"mapt\":1,\"ask\":{\"mappings\":{}}}").contains("newline"));
    assert!(say(&socket, &[b'x'; 70_000]).contains("65536 octets"));
    assert_eq!(
        say(&socket, b"{\"mapt\":1,\"ask\":{\"mappings\":{\"protocol\":\"tcp\"}}}\n").matches("\"done\"").count(),
        1
    );

    // As many as there is room for, all silent: one more is told so, traffic goes on, and they are sent away in the end.
    let silent: Vec<UnixStream> = (0..128).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    wait_for("the room to be full", || {
        say(&socket, b"{\"mapt\":1,\"ask\":{\"mappings\":{}}}\n").contains("128 clients")
    });
    assert_eq!(again(&host, &server, 5003), seen);
    drop(silent);
    wait_for("room for another", || mappings_or_none(&socket) == Some(1));
    assert_eq!(again(&host, &server, 5003), seen);
}

fn mappings_or_none(socket: &std::path::Path) -> Option<usize> {
    let output = show(socket, "--json");
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(answer["mappings"].as_array()?.len())
}

#[test]
fn the_socket_is_its_owners_and_goes_with_the_daemon() {
    if !privileged() {
        return;
    }
    let rules = "dmr-ipv6-prefix: 2001:db8:ffff::/64\nrules: []\n";
    let config = |more: &str| format!("role: ce\nrules: rules.yaml\ncontrol: {{socket: c.sock{more}}}\n");
    let files = Files::new("io-control", &[("rules.yaml", rules), ("ce.yaml", &config(""))]);
    let socket = files.path("c.sock");
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777;
    let namespace = Namespace::router();
    // What a killed daemon left.
    drop(UnixListener::bind(&socket).unwrap());
    let daemon = Daemon::start(&namespace, CE, &files.path("ce.yaml"));
    assert_eq!(mode(), 0o600);

    let second = files.write("ce2.yaml", &config("").replace("role: ce", "role: ce\ninstance: two"));
    let refuse = |file: &PathBuf| {
        let Output { status, stderr, .. } = namespace.run(|| Command::new(CE).arg(file).output().unwrap());
        let message = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{message}");
        message
    };
    let message = refuse(&second);
    assert!(message.contains("another process serves") && message.contains("c.sock"), "{message}");
    assert!(!namespace.has_link("mapt-two"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().0.success());
    assert!(!socket.exists());

    std::fs::write(&socket, "precious").unwrap();
    let message = refuse(&second);
    assert!(message.contains("no socket"), "{message}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    std::fs::remove_file(&socket).unwrap();

    let third = files.write("ce3.yaml", &config(", mode: 0660, group: 4321"));
    let _daemon = Daemon::start(&namespace, CE, &third);
    assert_eq!(mode(), 0o660);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&socket).unwrap()), 4321);
    let message =
        refuse(&files.write("ce4.yaml", &config(", mode: 0660, group: no-such-group").replace("c.sock", "d.sock")));
    assert!(message.contains("no-such-group"), "{message}");
}

/// The CE's daemon anew, with its log in a file.
fn with_log(world: &mut World) -> PathBuf {
    let log = world.files.path("ce.log");
    world.sites[0].daemon = None;
    let site = &mut world.sites[0];
    let mut command = Command::new(CE);
    command.arg(world.files.path("ce1.yaml")).stderr(std::fs::File::create(&log).unwrap());
    let daemon = Daemon::spawn(&site.ce, &mut command);
    assert!(daemon.line().starts_with("ready: "));
    site.daemon = Some(daemon);
    log
}

#[test]
fn another_prefix_purges_what_no_longer_fits_and_bad_files_change_nothing() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let (mut world, socket) = world("reload");
    let log = with_log(&mut world);
    let daemon = world.sites[0].daemon.as_ref().unwrap();
    let config = std::fs::read_to_string(world.files.path("ce1.yaml")).unwrap();
    let reload = |text: &str| {
        world.files.write("ce1.yaml", text);
        daemon.signal(Signal::SIGHUP);
    };
    let map_routes = || world.sites[0].ce.ip("-6 route show dev mapt-ce");
    let (server, host, seen) = exchange(&world, 40_005, 5005);
    assert!(in_shared_set(seen.port()));

    // Other timers: nobody notices.
    reload(&config.replace("napt: {", "napt: {timers: {udp: 120}, "));
    assert_eq!(daemon.line(), "reloaded: rule set version 1 -> 1, 2 -> 2 route(s), 1 mapping(s) kept, 0 purged");
    assert!(mappings(&socket, "")[0]["expires-in"].as_f64().unwrap() <= 120.25);
    assert_eq!(again(&host, &server, 5005), seen);

    // PSID 0x35 of the same address.
    world.near.ip("route add 2001:db8:12:3500::/56 via 2001:db8:f000:1::2");
    let other = config.replace("2001:db8:12:3400::/56", "2001:db8:12:3500::/56");
    reload(&other);
    assert_eq!(daemon.line(), "reloaded: rule set version 1 -> 1, 2 -> 2 route(s), 0 mapping(s) kept, 1 purged");
    assert_eq!(map_routes().split_whitespace().next(), Some("2001:db8:12:3500:0:c000:212:35"), "{}", map_routes());
    assert!(mappings(&socket, "").is_empty());
    let seen = again(&host, &server, 5005);
    assert_eq!((seen.port() >> 2 & 0xff, seen.ip().to_string().as_str()), (0x35, "192.0.2.18"));

    // Errors in the file, in the rules, another role: all stays, and the log says which line.
    let broken = [
        (other.replace("sysctl: manage", "sysctl: mange"), "mange"),
        (other.replace("rules.yaml", "none.yaml"), "none.yaml"),
        (format!("role: br\nrules: rules.yaml\n{}", world.more), "the role is now `br`"),
    ];
    for (text, said) in broken {
        reload(&text);
        let logged = || std::fs::read_to_string(&log).unwrap();
        wait_for(said, || logged().lines().any(|line| line.contains("not reloaded")) && logged().contains(said));
        assert_eq!(again(&host, &server, 5005), seen);
    }
    // What waits for a restart, and no prefix at all.
    let bare = other.lines().filter(|line| !line.contains("end-user-ipv6-prefix")).collect::<Vec<_>>().join("\n");
    reload(&format!("{bare}\ntun: {{name: elsewhere}}\n"));
    assert_eq!(daemon.line(), "reloaded: rule set version 1 -> 1, 2 -> 0 route(s), 0 mapping(s) kept, 1 purged");
    wait_for("what waits", || std::fs::read_to_string(&log).unwrap().contains("`tun` has changed"));
    assert_eq!(map_routes(), "");
    assert!(String::from_utf8(show(&socket, "").stderr).unwrap().contains("no NAPT"));
    reload(&config);
    assert_eq!(daemon.line(), "reloaded: rule set version 1 -> 1, 0 -> 2 route(s)");
    assert!(in_shared_set(again(&host, &server, 5005).port()));
}

#[test]
fn what_happens_is_followed_and_logged() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let (mut world, socket) = world("follow");
    let config = std::fs::read_to_string(world.files.path("ce1.yaml")).unwrap();
    world.files.write("ce1.yaml", &config.replace("napt: {", "napt: {log-mappings: true, sharing: {udp: [5008]}, "));
    let log = with_log(&mut world);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapt"));
    command.args(["show", "mappings", "--follow", "--json", "--protocol", "udp", "--from"]).arg(&socket);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (tell, told) = std::sync::mpsc::channel::<Value>();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = tell.send(serde_json::from_str(&line).unwrap());
        }
    });
    // Until the first event comes nobody knows that it listens.
    let mut from = 41_000;
    let mut first = None;
    wait_for("an event", || {
        from += 1;
        exchange(&world, from, 5007);
        first = told.recv_timeout(Duration::from_millis(300)).ok();
        first.is_some()
    });
    let first = first.unwrap();
    assert_eq!((first["event"].as_str(), first["remote"].clone()), (Some("made"), Value::Null), "{first}");
    while told.recv_timeout(Duration::from_millis(300)).is_ok() {}
    run(world.host(SHARED), "ping", &format!("-c 1 -W 10 {SERVER}"));
    let (_, _, seen) = exchange(&world, 42_000, 5007);
    let event = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(
        (&event["inside"], &event["outside"]),
        (&"192.168.1.2:42000".into(), &seen.to_string().into()),
        "no ping"
    );
    // On a shared port the flow is what counts.
    exchange(&world, 42_001, 5008);
    let event = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((&event["inside"], &event["remote"]), (&"192.168.1.2:42001".into(), &"198.51.100.2:5008".into()));
    // Another prefix ends them all.
    let text = std::fs::read_to_string(world.files.path("ce1.yaml")).unwrap();
    world.files.write("ce1.yaml", &text.replace("2001:db8:12:3400::/56", "2001:db8:13:3500::/56"));
    world.sites[0].daemon.as_ref().unwrap().signal(Signal::SIGHUP);
    let event = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((event["event"].as_str(), event["why"].as_str()), (Some("ended"), Some("purged")), "{event}");
    let logged = || std::fs::read_to_string(&log).unwrap();
    wait_for("the log", || logged().contains("ended udp  192.168.1.2:42001 as 192.0.2.18:"));
    assert!(logged().contains(&format!("made  udp  192.168.1.2:42000 as {seen}")) && logged().contains("made  icmp"));

    // It goes with the daemon, and says so.
    world.sites[0].daemon.as_ref().unwrap().signal(Signal::SIGTERM);
    reader.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_br_takes_new_rules_and_new_limits_of_their_routes() {
    if !privileged() {
        return;
    }
    let rule = |n: u8| {
        format!(
            "  - {{name: r{n}, rule-ipv6-prefix: 2001:db8:{n}00::/40, rule-ipv4-prefix: 192.0.{n}.0/24, ea-len: 16}}\n"
        )
    };
    let rules = |version: u8, of: &[u8]| {
        let all: String = of.iter().map(|&n| rule(n)).collect();
        format!("version: {version}\ndmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n{all}")
    };
    let config = "role: br\nrules: rules.yaml\nstate-directory: state\n";
    let files = Files::new("io-reload", &[("rules.yaml", &rules(1, &[2, 3])), ("br.yaml", config)]);
    let namespace = Namespace::router();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapt-br"));
    command.arg(files.path("br.yaml")).stderr(std::fs::File::create(files.path("br.log")).unwrap());
    let daemon = Daemon::spawn(&namespace, &mut command);
    assert!(daemon.line().starts_with("ready: "));
    let reloaded = |said: &str| {
        daemon.signal(Signal::SIGHUP);
        assert_eq!(daemon.line(), said);
        let routes = namespace.ip("-4 route show dev mapt-br");
        let file = std::fs::read_to_string(files.path("state/br.routes")).unwrap();
        assert_eq!(file.lines().count(), routes.lines().count() + 1, "{file}");
        routes.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    files.write("rules.yaml", &rules(2, &[3, 4]));
    let line = |n: u8, mtu: u16| format!("192.0.{n}.0/24 proto 182 scope link metric 1024 mtu {mtu}");
    assert_eq!(reloaded("reloaded: rule set version 1 -> 2, 3 -> 3 route(s)"), [line(3, 1480), line(4, 1480)]);
    files.write("br.yaml", &format!("{config}mtu: {{ipv6: 9000}}\n"));
    assert_eq!(reloaded("reloaded: rule set version 2 -> 2, 3 -> 3 route(s)"), [line(3, 8980), line(4, 8980)]);
    assert!(namespace.ip("link show dev mapt-br").contains("mtu 9000"));

    // A route that is somebody's keeps the whole set out.
    namespace.ip("route add 192.0.6.0/24 dev lo metric 1024");
    files.write("rules.yaml", &rules(3, &[3, 5, 6]));
    daemon.signal(Signal::SIGHUP);
    let logged = || std::fs::read_to_string(files.path("br.log")).unwrap();
    wait_for("the refusal", || logged().contains("not reloaded") && logged().contains("192.0.6.0/24 dev lo"));
    files.write("rules.yaml", &rules(4, &[3, 4]));
    assert_eq!(reloaded("reloaded: rule set version 2 -> 4, 3 -> 3 route(s)"), [line(3, 8980), line(4, 8980)]);
}
