//! Routes, device and address stay as they were installed, whoever removes them, and nobody else's are touched.
mod io_support;
mod net_support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use io_support::daemon::Daemon;
use io_support::{Namespace, wait_for};
use net_support::{NAPT, SERVER, UdpPair, World, batch, ready};

const ROUTES: usize = 3;

/// What the daemon says on stderr.
struct Log(Arc<Mutex<String>>);

impl Log {
    fn of(daemon: &mut Daemon) -> Log {
        let stderr = daemon.child.stderr.take().unwrap();
        let text = Arc::new(Mutex::new(String::new()));
        let into = text.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = into.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        Log(text)
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, what: &str) -> usize {
        self.text().matches(what).count()
    }

    fn wait_for(&self, what: &str) {
        let begin = Instant::now();
        while !self.text().contains(what) {
            assert!(begin.elapsed() < Duration::from_secs(20), "`{what}` is not said:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A daemon of the network, started again with its log in our hands.
fn restart(world: &mut World, program: &str) -> (Daemon, Log) {
    let former = if program == "mapt-br" { world.br_daemon.take() } else { world.sites[0].daemon.take() };
    drop(former);
    let (namespace, path, config) = match program {
        "mapt-br" => (&world.br, env!("CARGO_BIN_EXE_mapt-br"), world.files.path("br.yaml")),
        _ => (&world.sites[0].ce, env!("CARGO_BIN_EXE_mapt-ce"), world.files.path("ce2.yaml")),
    };
    wait_for("the former device to go", || !namespace.has_link(program));
    let mut command = Command::new(path);
    command.arg("--config").arg(config).env("RUST_LOG", "debug,netlink_proto=off").stderr(Stdio::piped());
    let mut daemon = Daemon::spawn(namespace, &mut command);
    let log = Log::of(&mut daemon);
    assert!(daemon.line().starts_with("ready: "), "{}", log.text());
    (daemon, log)
}

/// Routes with our protocol number, IPv4 and IPv6, one a line.
fn ours(namespace: &Namespace) -> Vec<String> {
    let text = namespace.ip("-4 route show proto 182") + &namespace.ip("-6 route show proto 182");
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// Waits until all is as before; how long that took.
fn back(namespace: &Namespace, before: &[String]) -> Duration {
    let begin = Instant::now();
    wait_for("the routes to come back", || ours(namespace) == before);
    begin.elapsed()
}

/// Of a daemon; zero where it says nothing.
fn restored(daemon: &Daemon) -> usize {
    let _ = daemon.counters();
    // The line comes right behind, or not at all; errors of the device may come between.
    while let Some(line) = daemon.line_within(Duration::from_millis(500)) {
        if let Some(count) = line.strip_prefix("routes restored: ") {
            return count.parse().unwrap();
        }
    }
    0
}

/// Clock ticks of a process, of which there are a hundred a second.
fn ticks(daemon: &Daemon) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn world(name: &str) -> World {
    World::napt(name, &[NAPT], "", false)
}

#[test]
fn what_others_remove_comes_back_and_theirs_stays() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("routes-back");
    let (daemon, log) = restart(&mut world, "mapt-br");
    let br = &world.br;
    batch(
        br,
        "route add 10.9.0.0/16 dev internet proto 182\nroute add 10.10.0.0/16 dev mapt-br proto static\n\
         route add 192.0.2.0/24 dev internet metric 5000\nlink add veil type veth peer name veiled\nlink set veil up\n",
    );
    let theirs = || {
        let text = br.ip("-4 route show");
        ["10.9.0.0/16 dev internet", "10.10.0.0/16 dev mapt-br", "192.0.2.0/24 dev internet"].map(|r| text.contains(r))
    };
    let pair = UdpPair::new(world.host(NAPT), &world.server, SERVER, (5001, 5002));
    let before = ours(br);
    assert_eq!(before.len(), ROUTES + 1, "{before:?}");

    br.ip("route del 203.0.113.0/24 dev mapt-br metric 1024");
    assert!(back(br, &before) < Duration::from_secs(2));
    log.wait_for("1 route(s) of ours were gone and are back: 203.0.113.0/24\n");
    assert_eq!(restored(&daemon), 1);
    pair.exchange(100);

    // Another route of the same prefix beside ours is no business of ours.
    br.ip("route replace 192.0.2.0/24 dev internet metric 5001");
    br.ip("-6 route del 2001:db8:ffff::/64 dev mapt-br");
    assert!(back(br, &before) < Duration::from_secs(2));
    assert_eq!(restored(&daemon), 2);
    assert!(br.ip("-4 route show").contains("192.0.2.0/24 dev internet scope link metric 5001"));

    // In our place: another device, both families, and another MTU on ours.
    br.ip("route replace 192.0.2.0/24 dev veil metric 1024");
    br.ip("-6 route replace 2001:db8:ffff::/64 dev veil metric 1024");
    wait_for("them to come back", || ours(br) == before);
    log.wait_for(
        "in the place of our route 192.0.2.0/24 somebody has put `192.0.2.0/24 dev veil table 254 proto 3 metric 1024`",
    );
    log.wait_for("somebody has put `2001:db8:ffff::/64 dev veil table 254 proto 3 metric 1024`");
    assert_eq!(restored(&daemon), 4);
    br.ip("route replace 203.0.113.0/24 dev mapt-br metric 1024 proto 182 scope link mtu 600");
    wait_for("its MTU to come back", || ours(br) == before);
    assert_eq!(restored(&daemon), 5);
    pair.exchange(1400);

    // The kernel says nothing of IPv4 routes that go with a device that is set down.
    br.ip("link set mapt-br down");
    wait_for("the device and its routes to come back", || ours(br) == before);
    log.wait_for("TUN device `mapt-br` was set down: it is up again");
    assert_eq!(restored(&daemon), 5 + ROUTES);
    pair.exchange(200);

    // What the daemon has removed the test has to put back: it went with the device.
    br.ip("route add 10.10.0.0/16 dev mapt-br proto static");
    assert_eq!(theirs(), [true; 3]);
    br.ip("route flush proto 182 dev mapt-br");
    br.ip("-6 route flush proto 182");
    wait_for("all to come back", || ours(br) == before);
    pair.exchange(300);
    assert_eq!(theirs(), [true; 3]);

    // The end takes ours alone, and nothing comes back after it.
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.end().0.success());
    assert_eq!(ours(br).len(), 1, "{:?}", ours(br));
}

#[test]
fn a_ce_keeps_its_address_and_tells_what_becomes_of_its_network() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("routes-ce");
    let (daemon, log) = restart(&mut world, "mapt-ce");
    let ce = &world.sites[0].ce;
    let before = ours(ce);
    assert!(before.iter().any(|line| line.contains("src 192.0.0.2")), "{before:?}");
    let pair = UdpPair::new(world.host(NAPT), &world.server, SERVER, (5003, 5004));

    ce.ip("address del 192.0.0.2/32 dev mapt-ce");
    assert!(back(ce, &before) < Duration::from_secs(2));
    log.wait_for("address 192.0.0.2 of `mapt-ce` was removed: it is back");
    assert!(ce.ip("address show dev mapt-ce").contains("192.0.0.2/32"));
    pair.exchange(100);

    ce.ip("link set mapt-ce down");
    wait_for("all to come back", || ours(ce) == before);
    pair.exchange(100);
    log.wait_for("TUN device `mapt-ce` was set down");

    // Its way out goes and comes, twice.
    for round in 1..=2 {
        ce.ip("-6 route del default");
        wait_for("it to be noticed", || log.count("no IPv6 route to the BR (2001:db8:ffff::) any more") == round);
        ce.ip("-6 route add default via 2001:db8:f000:2::1");
        wait_for("it to be noticed", || log.count("has an IPv6 route to the BR (2001:db8:ffff::) again") == round);
    }
    ce.ip("link set wan down");
    log.wait_for("interface `wan` is down or gone");
    log.wait_for("this host has no IPv6 address any more");
    batch(
        ce,
        "link set wan up\naddr add 2001:db8:f000:2::2/64 dev wan nodad\nroute add default via 2001:db8:f000:2::1\n",
    );
    log.wait_for("interface `wan` works again");
    log.wait_for("this host has an IPv6 address again");
    wait_for("the way out", || log.count("has an IPv6 route to the BR (2001:db8:ffff::) again") == 3);
    pair.exchange(100);
    assert_eq!(log.count("is down or gone"), 1, "{}", log.text());
    assert_eq!(log.count("no IPv6 address any more"), 1, "{}", log.text());

    // The device itself is what the daemon ends with.
    ce.ip("link del mapt-ce");
    let (status, _) = daemon.end();
    assert_eq!(status.code(), Some(1));
    log.wait_for("TUN device `mapt-ce` was removed while it was in use");
}

#[test]
fn what_the_daemon_changes_itself_is_not_restored() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("routes-own");
    let (daemon, log) = restart(&mut world, "mapt-br");
    let br = &world.br;
    let before = ours(br);
    let rules = std::fs::read_to_string(world.files.path("rules.yaml")).unwrap();
    let br_yaml = std::fs::read_to_string(world.files.path("br.yaml")).unwrap();
    let reload = || {
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
        while !daemon.line().starts_with("reloaded: ") {}
    };
    let looks = || log.count("looked at");

    // A route less: the kernel tells of it, it is looked at, and it stays away.
    let without: String =
        rules.lines().filter(|line| !line.contains("metro")).map(|line| format!("{line}\n")).collect();
    world.files.write("rules.yaml", &without);
    let looked = looks();
    reload();
    wait_for("a look", || looks() > looked);
    assert_eq!(ours(br).len(), before.len() - 1);

    // Back again, and removed by somebody: the new route is ours as well.
    world.files.write("rules.yaml", &rules);
    reload();
    assert_eq!(ours(br), before);
    br.ip("route del 192.0.2.0/24 dev mapt-br");
    back(br, &before);

    // All with another MTU.
    let looked = looks();
    world.files.write("br.yaml", &format!("{br_yaml}mtu: {{ipv6: 1400}}\n"));
    reload();
    wait_for("a look", || looks() > looked);
    let altered = ours(br);
    assert_eq!(altered.iter().filter(|line| line.contains("mtu 1380")).count(), 2, "{altered:?}");
    br.ip("route del 192.0.2.0/24 dev mapt-br");
    back(br, &altered);
    assert_eq!(restored(&daemon), 2, "{}", log.text());
}

#[test]
fn ten_thousand_flushed_routes_come_back_under_traffic() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("routes-many");
    let mut rules = std::fs::read_to_string(world.files.path("rules.yaml")).unwrap();
    for i in 0..10_000 {
        rules += &format!(
            "  - {{name: r{i}, rule-ipv6-prefix: 2001:db9:{i:x}::/48, rule-ipv4-prefix: 20.{}.{}.0/24, ea-len: 8}}\n",
            i >> 8,
            i & 255
        );
    }
    world.files.write("rules.yaml", &rules);
    let (daemon, log) = restart(&mut world, "mapt-br");
    let br = &world.br;
    let before = ours(br);
    assert_eq!(before.len(), ROUTES + 10_000);
    let pair = UdpPair::new(world.host(NAPT), &world.server, SERVER, (5005, 5006));
    let begin = Instant::now();
    br.output("ip", "-4 route flush proto 182");
    println!("flush took {:?}", begin.elapsed());
    let flushed = ours(br).len();
    // The first datagram that is answered ends the interruption.
    let limit = Duration::from_millis(20);
    for socket in [&pair.client, &pair.server] {
        socket.set_read_timeout(Some(limit)).unwrap();
    }
    let mut buffer = [0; 16];
    loop {
        assert!(begin.elapsed() < Duration::from_secs(10), "{}", log.text());
        let _ = pair.client.send(b"ping");
        if pair.server.recv_from(&mut buffer).is_ok() {
            let _ = pair.server.send_to(b"pong", pair.client_seen);
            if pair.client.recv(&mut buffer).is_ok() {
                break;
            }
        }
    }
    let interruption = begin.elapsed();
    let took = back(br, &before) + interruption;
    println!("{flushed} routes left after the flush; packets again after {interruption:?}, all routes after {took:?}");
    println!("{}", log.text());
    assert!(took < Duration::from_secs(5), "{took:?}");
    log.wait_for("and 9"); // names three, counts the rest
    // All that went came back, whatever of it the kernel had told.
    assert!(restored(&daemon) >= 10_000, "{}", log.text());
}

#[test]
fn a_full_table_beside_ours_costs_little() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("routes-bgp");
    let (daemon, log) = restart(&mut world, "mapt-br");
    let br = &world.br;
    let before = ours(br);
    let used = ticks(&daemon);
    let routes = |verb: &str| {
        let route = |i: u32| format!("route {verb} 20.{}.{}.0/24 dev internet proto bird metric 32\n", i >> 8, i & 255);
        (0..20_000).map(route).collect::<String>()
    };
    batch(br, &routes("add"));
    batch(br, &routes("del"));
    br.ip("route del 192.0.2.0/24 dev mapt-br");
    back(br, &before);
    let used = ticks(&daemon) - used;
    println!("40,000 changes by others: {used} ticks of 10 ms");
    assert!(used < 400, "{used} ticks");
    assert_eq!(restored(&daemon), 1, "{}", log.text());
}

#[test]
fn a_fight_costs_nothing() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("routes-fight");
    let (daemon, log) = restart(&mut world, "mapt-br");
    let br = &world.br;
    let before = ours(br);
    let used = ticks(&daemon);
    let begin = Instant::now();
    // In one process: thousands of tries a second.
    let lines = "route del 203.0.113.0/24 dev mapt-br metric 1024\nlink set mapt-br down\n".repeat(50);
    let mut deletions = 0;
    while begin.elapsed() < Duration::from_secs(6) {
        br.run(|| {
            use std::io::Write;
            let mut child = Command::new("ip")
                .args(["-force", "-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
            child.wait().unwrap();
        });
        deletions += 50;
    }
    let used = ticks(&daemon) - used;
    let text = log.text();
    println!("{deletions} tries in 6 s, {used} ticks of 10 ms;\n{text}");
    assert!(used < 60, "{used} ticks of 10 ms in 6 s");
    assert!(text.lines().count() < 40, "{text}");
    log.wait_for("it happens again and again");
    // Peace: it comes back within its wait.
    wait_for("the routes to come back", || ours(br) == before);
}
