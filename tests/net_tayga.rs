//! tayga 0.9.2 as the translator at the other end: a CE and a BR of an unshared address without NAPT are plain
//! RFC 7915 translators, so any other one must do in place of either.
//!
//! What tayga cannot: give a checksum to a UDP datagram that came without one over IPv4 (it drops it), and leave an
//! echo in one piece that may be cut, which ends it at the next translator.
mod io_support;
mod net_support;

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use io_support::Namespace;
use net_support::packets::{Listener, Sender, UDP, fragments, ipv4, udp};
use net_support::{Helper, OWN, SERVER, UdpPair, World, again, batch, ready, run, tcp_both_ways, wait_for_ping};

const PROGRAMS: [&str; 3] = ["ip", "ping", "tayga"];
/// A prefix of each length that RFC 6052 §2.2 knows and RFC 7599 §5.1 allows.
const DMRS: [&str; 6] = [
    "2001:db8:ffff:aaaa::/64",
    "2001:db8:ffff:aa00::/56",
    "2001:db8:ffff::/48",
    "2001:db8:ff00::/40",
    "2001:db9::/32",
    "2001:db8:ffff:aaaa:bb:cccc::/96",
];
const DMR: &str = "2001:db8:ffff::/96";
/// tayga's own address: the last one of the rule, which no customer here has.
const TAYGA: &str = "203.0.113.254";

/// tayga on a device `tayga` in `namespace`, mapping the customer's address as RFC 7597 writes it.
fn tayga(world: &World, namespace: &Namespace, dmr: &str) -> Helper {
    let data = world.files.path("state");
    let config = format!(
        "tun-device tayga\nipv4-addr {TAYGA}\nprefix {dmr}\nmap {} {}\ndata-dir {}\n",
        OWN.ipv4,
        OWN.map_address,
        data.display()
    );
    let config = world.files.write("tayga.conf", &config);
    run(namespace, "tayga", &format!("-c {} --mktun", config.display()));
    namespace.ip("link set tayga up");
    Helper::start(namespace, Command::new("tayga").arg("-c").arg(&config).arg("-n"))
}

fn in_place_of_the_br(dmr: &str) -> (World, Helper) {
    let mut world = World::new("tayga-br", &[OWN], dmr, 1500);
    let helper = tayga(&world, &world.br, dmr);
    let routes =
        format!("route add {dmr} dev tayga\nroute add {} dev tayga mtu 1480\nroute add {TAYGA} dev tayga\n", OWN.ipv4);
    batch(&world.br, &routes);
    world.start_ce(0);
    (world, helper)
}

fn in_place_of_the_ce(dmr: &str) -> (World, Helper) {
    let mut world = World::new("tayga-ce", &[OWN], dmr, 1500);
    world.start_br();
    let ce = &world.site(OWN).ce;
    let helper = tayga(&world, ce, dmr);
    let routes = format!(
        "route add {} dev tayga\nroute add default dev tayga mtu 1480\nroute add {TAYGA} dev tayga\n",
        OWN.map_address
    );
    batch(ce, &routes);
    (world, helper)
}

#[test]
fn a_ce_works_with_tayga_in_place_of_the_br() {
    if ready(&PROGRAMS) {
        let (world, _tayga) = in_place_of_the_br(DMR);
        everything_passes(&world, (&world.server, OWN.ipv4));
    }
}

#[test]
fn a_br_works_with_tayga_in_place_of_the_ce() {
    if ready(&PROGRAMS) {
        let (world, _tayga) = in_place_of_the_ce(DMR);
        everything_passes(&world, (world.host(OWN), SERVER));
    }
}

fn everything_passes(world: &World, beside_tayga: (&Namespace, &str)) {
    let (host, server) = (world.host(OWN), &world.server);
    let fragmented_icmp = || {
        let daemons = world.sites.iter().map(|site| &site.daemon).chain([&world.br_daemon]);
        daemons.flatten().map(|daemon| daemon.counters().get("fragmented-icmp")[1]).sum::<u64>()
    };
    wait_for_ping(host, SERVER);
    for (from, to) in [(host, SERVER), (server, OWN.ipv4)] {
        for size in [0, 1, 56, 1231, 1232] {
            for df in ["do", "dont"] {
                run(from, "ping", &format!("-n -c 2 -i 0.01 -W 2 -M {df} -s {size} {to}"));
            }
        }
    }
    // tayga cuts an echo without DF as it cuts everything, and fragmented ICMP ends at the next translator
    // (RFC 7915 §1.2); with DF it passes.
    let (beside, to) = beside_tayga;
    let before = fragmented_icmp();
    run(beside, "ping", &format!("-n -c 1 -W 2 -M do -s 1452 {to}"));
    assert!(!beside.output("ping", &format!("-n -c 1 -W 1 -M dont -s 1233 {to}")).status.success());
    assert_eq!(fragmented_icmp() - before, 2);
    tcp_both_ways(host, server, SERVER, 8071, 1 << 20);
    tcp_both_ways(server, host, OWN.ipv4, 8072, 1 << 20);

    // Fragmentation Needed would be for the first of the long ones.
    for node in [host, server] {
        node.sysctl("ipv4/ip_no_pmtu_disc", "1");
    }
    let pair = UdpPair::new(host, server, SERVER, (47_001, 47_002));
    for size in [0, 1, 2, 3, 500, 1232, 1233, 1251, 1252, 1400, 1452, 1472, 2000, 4000, 20_000] {
        pair.exchange(size);
    }
    let pair = UdpPair::new(server, host, OWN.ipv4, (47_003, 47_004));
    pair.exchange(4001);

    // Port unreachable: only by the ports in the packet that it quotes does the kernel find the socket.
    for (from, to, port) in [(host, SERVER, 47_011), (server, OWN.ipv4, 47_012)] {
        let socket = from.run(|| UdpSocket::bind("0.0.0.0:47013").unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect((to, port)).unwrap();
        socket.send(b"nobody listens there").unwrap();
        let error = again(|| socket.recv(&mut [0; 64])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
    }
    reversed(host, server, OWN.ipv4, SERVER);
    reversed(server, host, SERVER, OWN.ipv4);
    world.nothing_refused();
}

/// Fragments, the last one first.
fn reversed(from: &Namespace, to: &Namespace, source: &str, target: &str) {
    let socket = to.run(|| UdpSocket::bind("0.0.0.0:47022").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let data: Vec<u8> = (0..4000).map(|at| (at / 255 + at) as u8).collect();
    let datagram = udp(source, target, (47_021, 47_022), &data, true);
    let sender = Sender::new(from);
    fragments(source, target, UDP, 0x4711, &datagram, 1000).iter().rev().for_each(|part| sender.send(part));
    let mut buffer = [0; 8192];
    let (n, from) = again(|| socket.recv_from(&mut buffer)).unwrap_or_else(|e| panic!("to {target}: {e}"));
    assert!(buffer[..n] == data);
    assert_eq!(from.to_string(), format!("{source}:47021"));
}

/// A UDP checksum of zero, which IPv6 does not allow: `mapt` computes it (RFC 7915 §4.5) and tayga translates what comes
/// of it.
#[test]
fn udp_without_checksum_passes_where_mapt_translates_to_ipv6() {
    if !ready(&PROGRAMS) {
        return;
    }
    let (with_ce, _one) = in_place_of_the_br(DMR);
    let (with_br, _other) = in_place_of_the_ce(DMR);
    let to_server = (with_ce.host(OWN), &with_ce.server, OWN.ipv4, SERVER);
    let to_home = (&with_br.server, with_br.host(OWN), SERVER, OWN.ipv4);
    for (from, to, source, target) in [to_server, to_home] {
        wait_for_ping(from, target);
        let arrivals = Listener::ipv4(to);
        for data in [&b""[..], b"x", b"an odd number of octets"] {
            let sent = udp(source, target, (47_031, 47_032), data, false);
            Sender::new(from).send(&ipv4(source, target, UDP, 3, 0, &sent));
            let came = arrivals.collect(1, |packet| packet[9] == UDP).remove(0);
            assert_eq!(came[20..], udp(source, target, (47_031, 47_032), data, true), "to {target}");
        }
    } // The other way tayga would have to compute it, and drops the datagram instead: the next one is the first to come.
    let from_server = (&with_ce.server, with_ce.host(OWN), SERVER, OWN.ipv4);
    let from_home = (with_br.host(OWN), &with_br.server, OWN.ipv4, SERVER);
    for (from, to, source, target) in [from_server, from_home] {
        let (sender, arrivals) = (Sender::new(from), Listener::ipv4(to));
        for sum in [false, true] {
            sender.send(&ipv4(source, target, UDP, 4, 0, &udp(source, target, (47_033, 47_034), b"x", sum)));
        }
        let came = arrivals.collect(1, |packet| packet[9] == UDP);
        assert_eq!(came.len(), 1);
        assert_eq!(came[0][20..], udp(source, target, (47_033, 47_034), b"x", true));
        assert!(arrivals.waiting().iter().all(|packet| packet[9] != UDP));
    }
}

/// DMR-3: both know the same IPv6 address for the server, whatever the length of the prefix.
#[test]
fn every_length_of_prefix_puts_the_ipv4_address_where_tayga_does() {
    if !ready(&PROGRAMS) {
        return;
    }
    for dmr in DMRS {
        for (world, _tayga) in [in_place_of_the_br(dmr), in_place_of_the_ce(dmr)] {
            wait_for_ping(world.host(OWN), SERVER);
            UdpPair::new(world.host(OWN), &world.server, SERVER, (47_041, 47_042)).exchange(321);
        }
    }
}
