//! The CE's NAPT as others see it: coturn's NAT discovery, homes that call each other, the CE's own traffic, customers
//! with an address or a prefix of their own.
mod io_support;
mod net_support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use io_support::{Namespace, wait_for};
use net_support::packets::{Listener, Sender, TCP, UDP, ipv4, tcp, udp};
use net_support::{
    Helper, Home, NAPT, NEIGHBOUR, PREFIX, PREFIX_NAPT, SERVER, SHARED, UdpPair, World, again, in_set, in_shared_set,
    ready, run, tcp_both_ways, wait_for_ping,
};

/// The STUN server's other address (RFC 5780 §3).
const OTHER: &str = "198.51.100.3";

/// A socket that waits for at most five seconds.
fn socket(namespace: &Namespace, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn receive(socket: &UdpSocket, what: &str) -> (String, SocketAddr) {
    let mut buffer = [0; 2048];
    let (n, from) = again(|| socket.recv_from(&mut buffer)).unwrap_or_else(|e| panic!("{what}: {e}"));
    (String::from_utf8_lossy(&buffer[..n]).into_owned(), from)
}

/// `text` goes from one socket to an endpoint, and comes out of the other one as from `seen`.
fn passes(from: &UdpSocket, seen: SocketAddr, to: SocketAddr, at: &UdpSocket, text: &str) {
    from.send_to(text.as_bytes(), to).unwrap();
    assert_eq!(receive(at, text), (text.to_owned(), seen));
}

/// How a socket of a home is seen by a socket of the server.
fn seen_as(inside: &UdpSocket, server: &UdpSocket, server_port: u16) -> SocketAddr {
    let to: SocketAddr = format!("{SERVER}:{server_port}").parse().unwrap();
    let text = format!("who am I, asks {}", inside.local_addr().unwrap().port());
    inside.send_to(text.as_bytes(), to).unwrap();
    let (said, seen) = receive(server, &text);
    assert_eq!(said, text);
    seen
}

/// coturn's STUN server on the Internet, with two addresses and two ports.
fn stun_server(world: &World) -> Helper {
    world.server.ip(&format!("addr add {OTHER}/24 dev eth0"));
    let state = world.files.path("state");
    let mut command = Command::new("turnserver");
    command.args(["-n", "-L", SERVER, "-L", OTHER, "-p", "3478", "--alt-listening-port", "3479"]);
    command.args(["--no-tcp", "--no-tls", "--no-dtls", "--no-cli", "--stun-only", "--no-auth", "--simple-log"]);
    command.args(["--relay-threads", "1", "--log-file"]).arg(state.join("turn.log"));
    command.arg("--pidfile").arg(state.join("turn.pid")).arg("--db").arg(state.join("turn.db"));
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let server = Helper::start(&world.server, &mut command);
    wait_for("turnserver to listen", || {
        let sockets = world.server.output("ss", "-Hnlu");
        let sockets = String::from_utf8_lossy(&sockets.stdout).into_owned();
        [SERVER, OTHER].iter().all(|a| [3478, 3479].iter().all(|p| sockets.contains(&format!("{a}:{p} "))))
    });
    server
}

/// RFC 4787 REQ-1, REQ-8, REQ-9 as coturn's `turnutils_natdiscovery` finds them out by RFC 5780.
fn discovered(home: Home, napt: &'static str, filtering: &str) {
    let world = World::napt("stun", &[home], napt, false);
    let _server = stun_server(&world);
    let said = run(world.host(home), "turnutils_natdiscovery", &format!("-m -f {SERVER}"));
    assert!(said.contains("NAT with Endpoint Independent Mapping!"), "{napt}\n{said}");
    assert!(said.contains(&format!("NAT with {filtering} Filtering!")), "{napt}\n{said}");
    let seen: BTreeSet<SocketAddr> = said
        .lines()
        .filter_map(|line| line.split_once("UDP reflexive addr: "))
        .map(|(_, address)| address.trim().parse().unwrap())
        .collect();
    assert!(!seen.is_empty(), "{said}");
    for address in seen {
        assert_eq!(address.ip().to_string(), home.ipv4);
        assert!(!home.shared || in_shared_set(address.port()), "{address}");
    }
    let filtered = world.site(home).daemon.as_ref().unwrap().counters().get("napt-filtered");
    assert_eq!(filtered[1] == 0, filtering == "Endpoint Independent", "{filtered:?}");
    if filtering == "Endpoint Independent" {
        // Two sockets of one host, by the outside address.
        let said = run(world.host(home), "turnutils_natdiscovery", &format!("-H {SERVER}"));
        assert!(said.contains("Received a request (maybe a successful hairpinning)"), "{said}");
    }
    world.nothing_refused();
}

#[test]
fn coturn_finds_endpoint_independent_mapping_and_the_configured_filtering() {
    if !ready(&["ip", "ss", "turnserver", "turnutils_natdiscovery"]) {
        return;
    }
    discovered(SHARED, ", filtering: endpoint-independent", "Endpoint Independent");
    discovered(SHARED, ", filtering: address-dependent", "Address Dependent");
    discovered(SHARED, ", filtering: address-and-port-dependent", "Address and Port Dependent");
    // The defaults.
    discovered(SHARED, "", "Address Dependent");
    discovered(NAPT, "", "Endpoint Independent");
}

/// Two homes with one IPv4 address, each with address-dependent filtering, and a rendezvous that tells each how the
/// other one is seen.
fn punch(forwarding: bool) {
    let world = World::napt("punch", &[SHARED, NEIGHBOUR], "", forwarding);
    let rendezvous = socket(&world.server, 45_001);
    let (here, there) = (socket(world.host(SHARED), 45_002), socket(world.host(NEIGHBOUR), 45_003));
    let here_seen = seen_as(&here, &rendezvous, 45_001);
    let there_seen = seen_as(&there, &rendezvous, 45_001);
    assert!(here_seen.ip().to_string() == SHARED.ipv4 && in_set(0x34, here_seen.port()), "{here_seen}");
    assert!(there_seen.ip().to_string() == NEIGHBOUR.ipv4 && in_set(0x56, there_seen.port()), "{there_seen}");
    let told = |peer: &UdpSocket, seen: SocketAddr, other: SocketAddr| -> SocketAddr {
        rendezvous.send_to(other.to_string().as_bytes(), seen).unwrap();
        receive(peer, "what the rendezvous tells").0.parse().unwrap()
    };
    let (there_told, here_told) = (told(&here, here_seen, there_seen), told(&there, there_seen, here_seen));

    // The first one is filtered, and opens the way back.
    let ce = world.site(NEIGHBOUR).daemon.as_ref().unwrap();
    let br = world.br_daemon.as_ref().unwrap();
    let through_br = br.counters().get("forwarded")[1];
    assert_eq!(ce.counters().get("napt-filtered")[1], 0);
    here.send_to(b"nobody has asked for this", there_told).unwrap();
    wait_for("the filter", || ce.counters().get("napt-filtered")[1] == 1);
    passes(&there, there_seen, here_told, &here, "through the hole");
    passes(&here, here_seen, there_told, &there, "and back");
    for number in 0..100 {
        passes(&there, there_seen, here_told, &here, &format!("number {number}"));
        passes(&here, here_seen, there_told, &there, &format!("answer {number}"));
    }
    let through_br = br.counters().get("forwarded")[1] - through_br;
    assert_eq!(through_br, if forwarding { 0 } else { 203 });
    world.nothing_refused();
}

#[test]
fn homes_punch_holes_to_each_other_directly() {
    if ready(&["ip"]) {
        punch(true);
    }
}

#[test]
fn homes_punch_holes_to_each_other_through_the_br() {
    if ready(&["ip"]) {
        punch(false);
    }
}

/// RFC 4787 REQ-9, RFC 5508 REQ-7: two hosts of one home by the home's outside address.
fn hairpin(forwarding: bool) {
    let world = World::napt("hairpin", &[SHARED], "", forwarding);
    let second = world.second_host(SHARED);
    let rendezvous = socket(&world.server, 46_001);
    let (one, two) = (socket(world.host(SHARED), 46_002), socket(&second, 46_003));
    let (one_seen, two_seen) = (seen_as(&one, &rendezvous, 46_001), seen_as(&two, &rendezvous, 46_001));
    let ce = world.site(SHARED).daemon.as_ref().unwrap();
    one.send_to(b"filtered", two_seen).unwrap();
    wait_for("the filter", || ce.counters().get("napt-filtered")[1] == 1);
    for number in 0..20 {
        passes(&two, two_seen, one_seen, &one, &format!("number {number}"));
        passes(&one, one_seen, two_seen, &two, &format!("answer {number}"));
    }

    // TCP, both ends opening at once (RFC 5382 REQ-2, REQ-8): the kernels of two hosts connect to each other.
    let ends = simultaneous(&world, world.host(SHARED), &second);
    assert_eq!(ends, 2);

    // Nobody has the port any more; the error about the hairpinned datagram finds the socket of the first host.
    drop(two);
    one.connect(two_seen).unwrap();
    one.send(b"too late").unwrap();
    let error = again(|| one.recv(&mut [0; 64])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    world.nothing_refused();
}

/// Both hosts connect from a port that the server has seen to the port of the other that the server has seen; how many
/// of them said what the other heard.
fn simultaneous(world: &World, one: &Namespace, two: &Namespace) -> usize {
    use std::io::{Read, Write};
    let listener = world.server.run(|| std::net::TcpListener::bind(("0.0.0.0", 46_011)).unwrap());
    let server: SocketAddr = format!("{SERVER}:46011").parse().unwrap();
    let mut kept = Vec::new();
    let mut seen = |host: &Namespace, port| {
        kept.push(host.run(|| net_support::connect_from(port, server).unwrap()));
        let (accepted, from) = listener.accept().unwrap();
        kept.push(accepted);
        from
    };
    let (one_seen, two_seen) = (seen(one, 46_012), seen(two, 46_013));
    std::thread::scope(|scope| {
        let call = |host: &'_ Namespace, port, to, says: &'static [u8], hears: &'static [u8]| {
            let mut stream = host.run(|| net_support::connect_from(port, to)).unwrap();
            stream.write_all(says).unwrap();
            let mut heard = vec![0; hears.len()];
            stream.read_exact(&mut heard).unwrap();
            usize::from(heard == hears)
        };
        let other = scope.spawn(move || call(two, 46_013, one_seen, b"from the second", b"from the first"));
        call(one, 46_012, two_seen, b"from the first", b"from the second") + other.join().unwrap()
    })
}

#[test]
fn hosts_of_a_home_meet_by_its_outside_address_directly() {
    if ready(&["ip"]) {
        hairpin(true);
    }
}

#[test]
fn hosts_of_a_home_meet_by_its_outside_address_through_the_br() {
    if ready(&["ip"]) {
        hairpin(false);
    }
}

/// What the CE's host itself sends leaves by the TUN's own address, 192.0.0.2, and through the port set of the home.
#[test]
fn the_ce_shares_the_port_set_with_its_home() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let world = World::napt("own", &[SHARED], "", false);
    let (host, ce) = (world.host(SHARED), &world.site(SHARED).ce);
    assert!(ce.ip(&format!("route get {SERVER}")).contains("src 192.0.0.2 "));
    let of_home = UdpPair::new(host, &world.server, SERVER, (47_001, 47_002));
    // The same port inside: another host's nonetheless.
    let of_ce = UdpPair::new(ce, &world.server, SERVER, (47_001, 47_003));
    assert_ne!(of_home.client_seen, of_ce.client_seen);
    for seen in [of_home.client_seen, of_ce.client_seen] {
        assert!(seen.ip().to_string() == SHARED.ipv4 && in_shared_set(seen.port()), "{seen}");
    }
    std::thread::scope(|scope| {
        let ping = |from| run(from, "ping", &format!("-n -q -c 20 -i 0.02 -W 5 {SERVER}"));
        for from in [ce, host] {
            scope.spawn(move || assert!(ping(from).contains(" 20 received, 0% packet loss")));
        }
        scope.spawn(|| tcp_both_ways(ce, &world.server, SERVER, 47_004, 1 << 20));
        scope.spawn(|| tcp_both_ways(host, &world.server, SERVER, 47_005, 1 << 20));
        for size in [0, 1, 999, 1452, 4000] {
            of_ce.exchange(size);
            of_home.exchange(size);
        }
    });
    let daemon = world.site(SHARED).daemon.as_ref().unwrap();
    let counters = daemon.counters();
    assert_eq!(counters.get("dropped"), [0, 0], "{counters:?}");
    counters.balance();
    world.nothing_refused();
}

/// All ports of an address, and both of what a customer with a prefix may do.
#[test]
fn customers_with_an_address_or_a_prefix_of_their_own() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    // Behind a NAPT: ports that no shared customer has (0-1023 to those of 0-1023), one mapping whomever it talks to.
    for home in [NAPT, PREFIX_NAPT] {
        let world = World::napt("whole", &[home], "", false);
        let (host, server) = (world.host(home), &world.server);
        wait_for_ping(host, SERVER);
        tcp_both_ways(host, server, SERVER, 48_001, 1 << 18);
        let low = UdpPair::new(host, server, SERVER, (501, 48_002));
        low.exchange(700);
        assert!((1..1024).contains(&low.client_seen.port()), "{}", low.client_seen);
        let (asking, asked) = (socket(host, 48_003), socket(server, 48_004));
        let seen = seen_as(&asking, &asked, 48_004);
        assert!(seen.ip().to_string() == home.ipv4 && seen.port() >= 1024, "{seen}");
        let stranger = socket(server, 48_005);
        passes(&stranger, format!("{SERVER}:48005").parse().unwrap(), seen, &asking, "anybody may");
        assert_eq!(seen_as(&asking, &stranger, 48_005), seen);
        world.nothing_refused();
    }

    // Without: whoever has an address of the prefix is reached by it, port by port; nobody else gets out.
    let world = World::napt("prefix", &[PREFIX], "", false);
    let (host, server) = (world.host(PREFIX), &world.server);
    let ce = &world.site(PREFIX).ce;
    for last in [96, 111] {
        host.ip(&format!("addr add 203.0.113.{last}/32 dev eth0"));
        ce.ip(&format!("route add 203.0.113.{last}/32 dev lan"));
    }
    wait_for_ping(host, SERVER);
    for address in ["203.0.113.96", "203.0.113.98", "203.0.113.111"] {
        wait_for_ping(server, address);
        tcp_both_ways(server, host, address, 48_011, 1 << 18);
        let (sender, arrivals) = (Sender::new(host), Listener::ipv4(server));
        for (protocol, segment) in [
            (TCP, tcp(address, SERVER, (1, 48_014), b"port 1")),
            (UDP, udp(address, SERVER, (65_535, 48_015), b"port 65535", true)),
        ] {
            sender.send(&ipv4(address, SERVER, protocol, 7, 0, &segment));
            let came = arrivals.collect(1, |p| p[9] == protocol && p[20..24] == segment[..4]);
            assert_eq!(came[0][12..16], ipv4(address, SERVER, 0, 0, 0, &[])[12..16]);
            assert_eq!(came[0][20..], segment);
        }
    }
    for node in [host, server] {
        node.sysctl("ipv4/ip_no_pmtu_disc", "1");
    }
    UdpPair::new(server, host, PREFIX.host, (48_012, 48_013)).exchange(4000);
    let daemon = world.site(PREFIX).daemon.as_ref().unwrap();
    let before = daemon.counters().get("source-not-ours")[0];
    for address in ["203.0.113.95", "203.0.113.112", "192.168.5.2"] {
        // What they are told must not be routed into the TUN again.
        ce.ip(&format!("route add {address}/32 dev lan"));
        Sender::new(host).send(&ipv4(address, SERVER, UDP, 8, 0, &udp(address, SERVER, (48_016, 48_017), b"x", true)));
    }
    wait_for("the drops", || daemon.counters().get("source-not-ours")[0] == before + 3);
    world.nothing_refused();
}
