//! A home under attack from a host of its own and from the Internet, while another host goes on.
mod io_support;
mod net_support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use io_support::{Namespace, wait_for};
use net_support::packets::{MF, Sender, TCP, UDP, ipv4, syn, udp};
use net_support::{SERVER, SHARED, World, again, batch, connect_as, ready, run, tcp_both_ways};

/// The host that attacks: the second one of home 1.
const ATTACKER: &str = "192.168.101.2";
/// Whoever scans from the Internet; no host of the home talks to it.
const SCANNER: &str = "198.18.0.77";
/// Who never answers: 198.19.0.0/16.
const SILENT: &str = "198.19.0.1";
const DOWNLOAD: u16 = 49_001;
const ECHO: u16 = 49_002;

/// Sends packet 0, 1, 2, ... at `rate` a second until told to stop; how many.
fn flood(from: &Namespace, rate: u32, done: &AtomicBool, packet: impl Fn(u32) -> Vec<u8>) -> u64 {
    let sender = Sender::new(from);
    let (start, mut sent) = (Instant::now(), 0);
    while !done.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        while sent < due && !done.load(Ordering::Relaxed) {
            // A queue that is full is the attacker's own.
            let _ = sender.try_send(&packet(sent));
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    sent.into()
}

/// Ends the floods, also where a check has failed.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Spreads a number over 32 bits.
fn mix(n: u32) -> u32 {
    (n ^ 0x5bd1).wrapping_mul(0x9e37_79b1).rotate_left(13).wrapping_mul(0x85eb_ca6b)
}

/// SYNs from ever new ports: every other one to one server, the rest to servers all over.
fn connection(n: u32) -> Vec<u8> {
    let port = 1024 + (mix(n) % 60_000) as u16;
    let to = if n.is_multiple_of(2) { SILENT.parse().unwrap() } else { Ipv4Addr::from(0xc613_0000 | mix(n) >> 16) };
    let to = to.to_string();
    ipv4(ATTACKER, &to, TCP, n as u16, 0, &syn(ATTACKER, &to, (port, 80), mix(n)))
}

/// Fragments that never become a packet: first ones without more, later ones without a first.
fn fragment(source: &str, target: &str, n: u32) -> Vec<u8> {
    let datagram = udp(source, target, (49_100, 1232 + (mix(n) % 60_000) as u16), &[n as u8; 592], true);
    match n % 2 {
        0 => ipv4(source, target, UDP, mix(n) as u16, MF, &datagram),
        _ => ipv4(source, target, UDP, mix(n) as u16, 75, &datagram),
    }
}

/// Every port by TCP and by UDP, once.
fn scan(world: &World) {
    let sender = Sender::new(&world.server);
    for port in 0..=u16::MAX {
        let probe = syn(SCANNER, SHARED.ipv4, (49_200, port), 1);
        sender.send(&ipv4(SCANNER, SHARED.ipv4, TCP, port, 0, &probe));
        let probe = udp(SCANNER, SHARED.ipv4, (49_201, port), b"scan", true);
        sender.send(&ipv4(SCANNER, SHARED.ipv4, UDP, port, 0, &probe));
        if port.is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// One connection after another, each of which says something and hears it again; how many, and how long the slowest took.
fn new_connections(world: &World, done: &AtomicBool) -> (u64, Duration) {
    let listener = world.server.run(|| TcpListener::bind(("0.0.0.0", ECHO)).unwrap());
    let to = SocketAddrV4::new(SERVER.parse().unwrap(), ECHO);
    let (mut count, mut slowest) = (0, Duration::ZERO);
    world.host(SHARED).run(|| {
        while !done.load(Ordering::Relaxed) {
            let start = Instant::now();
            let mut near = connect_as(SHARED.host.parse().unwrap(), to)
                .unwrap_or_else(|e| panic!("connection {count} under attack: {e}"));
            let (mut far, _) = listener.accept().unwrap();
            let mut heard = [0; 8];
            near.write_all(&u64::to_be_bytes(count)).unwrap();
            again(|| far.read_exact(&mut heard)).unwrap();
            far.write_all(&heard).unwrap();
            again(|| near.read_exact(&mut heard)).unwrap();
            assert_eq!(u64::from_be_bytes(heard), count);
            slowest = slowest.max(start.elapsed());
            count += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    (count, slowest)
}

#[test]
fn a_home_under_attack_goes_on() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::napt("attack", &[SHARED], "", false);
    let attacker = world.second_host(SHARED);
    world.server_has("198.18.0.0/25");
    batch(&world.br, &format!("route add 198.19.0.0/16 via {SERVER}\n"));
    batch(&world.server, "route add blackhole 198.19.0.0/16\n");
    // Else what is for homes that do not exist circles between the routers.
    world.near.ip("-6 route add blackhole 2001:db8::/40");
    let daemon = world.site(SHARED).daemon.as_ref().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&done);
        let syns = scope.spawn(|| flood(&attacker, 3000, &done, connection));
        let up = scope.spawn(|| flood(&attacker, 1000, &done, |n| fragment(ATTACKER, SERVER, n)));
        let down = scope.spawn(|| flood(&world.server, 1000, &done, |n| fragment(SCANNER, SHARED.ipv4, n)));
        let scanned = scope.spawn(|| scan(&world));
        // All ports towards the silent server are taken before the other host begins.
        wait_for("the flood to use up what it can", || daemon.counters().get("napt-exhausted")[0] > 0);
        let small = scope.spawn(|| new_connections(&world, &done));
        while !scanned.is_finished() && !small.is_finished() {
            tcp_both_ways(world.host(SHARED), &world.server, SERVER, DOWNLOAD, 4 << 20);
        }
        tcp_both_ways(world.host(SHARED), &world.server, SERVER, DOWNLOAD, 4 << 20);
        done.store(true, Ordering::Relaxed);
        scanned.join().unwrap();
        let sent = [syns, up, down].map(|flood| flood.join().unwrap());
        let (count, slowest) = small.join().unwrap();
        eprintln!("floods of {sent:?}; {count} connections meanwhile, the slowest {slowest:?}");
        assert!(sent.iter().all(|sent| *sent > 1000), "{sent:?}");
        assert!(count > 20, "{count} connections");
    });

    wait_for("the fragments to be gone", || daemon.counters().get("held") == [0, 0]);
    let counters = daemon.counters();
    let get = |row: &str| counters.get(row);
    // The scan: two probes for each of the 252 ports; what else came there are first fragments.
    assert!(get("napt-no-mapping")[1] + get("napt-filtered")[1] >= 2 * 252, "{counters:?}");
    assert!(get("napt-exhausted")[0] > 0, "{counters:?}");
    assert!(get("fragment-timeout")[0] + get("fragment-table-full")[0] > 0, "{counters:?}");
    counters.balance();
    let named: u64 = ["napt-no-mapping", "napt-filtered", "napt-exhausted", "fragment-timeout", "fragment-table-full"]
        .iter()
        .flat_map(|row| get(row))
        .sum();
    let dropped: u64 = get("dropped").iter().sum();
    assert!(named * 100 >= dropped * 99, "{counters:?}");

    // What was not this home's ended at the BR: the ports of nobody, twice each.
    let at_br = world.br_daemon.as_ref().unwrap();
    wait_for("the fragments at the BR", || at_br.counters().get("held") == [0, 0]);
    let at_br = at_br.counters();
    assert!(at_br.get("port-excluded")[0] >= 2 * 1024, "{at_br:?}");
    at_br.balance();
    world.nothing_refused();
}

/// The fenced block of docs/operations.md that begins with this line.
fn documented(first: &str) -> String {
    let text = include_str!("../docs/operations.md");
    let begin = text.find(&format!("\n{first}\n")).unwrap_or_else(|| panic!("no `{first}`")) + 1;
    let length = text[begin..].find("\n```").unwrap();
    text[begin..begin + length + 1].to_owned()
}

/// What operators are told to do about a host that takes all ports, word for word.
#[test]
fn a_limit_on_syns_leaves_ports_to_others() {
    if !ready(&["ip", "nft"]) {
        return;
    }
    let world = World::napt("guard", &[SHARED], "", false);
    let attacker = world.second_host(SHARED);
    batch(&world.br, &format!("route add 198.19.0.0/16 via {SERVER}\n"));
    batch(&world.server, "route add blackhole 198.19.0.0/16\n");
    let site = world.site(SHARED);
    let daemon = site.daemon.as_ref().unwrap();
    let rules = world.files.write("guard.nft", &documented("# /etc/nftables.d/mapt-guard.nft"));
    // It can be read again while it is in force.
    (0..2).for_each(|_| _ = run(&site.ce, "nft", &format!("-f {}", rules.display())));
    let to_one = |host: &'static str, n: u32| {
        let port = 1024 + (mix(n) % 60_000) as u16;
        ipv4(host, SILENT, TCP, n as u16, 0, &syn(host, SILENT, (port, 80), mix(n)))
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&done);
        scope.spawn(|| flood(&attacker, 1500, &done, |n| to_one(ATTACKER, n)));
        let stopped = || {
            let shown = run(&site.ce, "nft", "list chain inet mapt_guard syns");
            let counts =
                shown.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            counts.sum::<u64>()
        };
        wait_for("the guard to stop ten times the ports", || stopped() > 2520);
        let before = daemon.counters().get("forwarded")[0];
        let other = Sender::new(world.host(SHARED));
        (0..40).for_each(|n| other.send(&to_one(SHARED.host, n)));
        wait_for("another host's SYNs to go", || daemon.counters().get("forwarded")[0] >= before + 40);
        assert_eq!(daemon.counters().get("napt-exhausted"), [0, 0]);
        // It was the guard.
        run(&site.ce, "nft", "delete table inet mapt_guard");
        wait_for("the flood to use up what it can", || daemon.counters().get("napt-exhausted")[0] > 0);
        done.store(true, Ordering::Relaxed);
    });
    world.nothing_refused();
}
