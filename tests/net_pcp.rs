//! `pcp` with the real daemons: Debian's natpmpc and requests by hand get ports, the Internet reaches them for as long.
mod io_support;
mod net_support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use io_support::{Namespace, wait_for};
use nix::sys::signal::Signal;

use net_support::{NAPT, SERVER, SHARED, World, again, in_shared_set, ready, tcp_through};

const ROUTER: &str = "192.168.1.1:5351";
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

fn world(name: &str) -> World {
    let mut world = World::new(name, &[SHARED], "2001:db8:ffff::/64", 1500);
    world.ce_more = "pcp: {listen: [192.168.1.1], min-lifetime: 1}\ncontrol: {socket: ce.sock}\n";
    world.napt = ", forwards: [{protocol: tcp, external-port: 1232, internal-address: 192.168.1.2, internal-port: 22}]";
    world.start_br();
    world
}

fn socket(namespace: &Namespace, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (n, from) = again(|| socket.recv_from(&mut buffer)).expect("a datagram");
    (buffer[..n].to_vec(), from)
}

/// Datagrams of `from` to an outside port, until the CE knows nobody who wants them; `service` got all before.
fn until_nobody_wants_them(world: &World, from: &UdpSocket, service: &UdpSocket, port: u16) {
    let ce = world.site(SHARED).daemon.as_ref().unwrap();
    let dropped = || ce.counters().get("napt-no-mapping")[1];
    let before = dropped();
    wait_for("the port to be nobody's", || {
        from.send_to(b"anybody?", (SHARED.ipv4, port)).unwrap();
        dropped() > before
    });
    service.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    while let Ok((n, _)) = service.recv_from(&mut buffer) {
        assert_eq!(&buffer[..n], b"anybody?");
    }
    service.set_nonblocking(false).unwrap();
}

/// RFC 6886 by a client of others.
#[test]
fn natpmpc_gets_a_port() {
    if !ready(&["ip", "natpmpc"]) {
        return;
    }
    let mut world = world("pcp-natpmpc");
    world.start_ce(0);
    let (host, server) = (world.host(SHARED), &world.server);
    let natpmpc = |arguments: &str| {
        let output = host.output("natpmpc", &format!("-g 192.168.1.1 {arguments}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let text = natpmpc("");
    assert!(text.contains(&format!("Public IP address : {}", SHARED.ipv4)), "{text}");

    assert!(in_shared_set(2257) && !in_shared_set(8080));
    let text = natpmpc("-a 2257 8081 tcp 600");
    assert!(text.contains("Mapped public port 2257 protocol TCP to local port 8081 liftime 600"), "{text}");
    let seen = tcp_through(server, host, (SHARED.ipv4, 2257), 8081, 300_000);
    assert_eq!(seen.ip().to_string(), SERVER);

    // Not one of the customer's: the client is told another.
    let text = natpmpc("-a 8080 5353 udp 600");
    let port = text.split("Mapped public port ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
    assert!(in_shared_set(port), "{text}");
    let (service, stranger) = (socket(host, 5353), socket(server, 41_000));
    stranger.send_to(b"hello", (SHARED.ipv4, port)).unwrap();
    assert_eq!(received(&service).0, b"hello");
    natpmpc(&format!("-a {port} 5353 udp 0"));
    until_nobody_wants_them(&world, &stranger, &service, port);

    // And of itself, when its time is over.
    let text = natpmpc("-a 2258 5353 udp 2");
    assert!(text.contains("Mapped public port 2258 protocol UDP to local port 5353 liftime 2"), "{text}");
    stranger.send_to(b"hello", (SHARED.ipv4, 2258)).unwrap();
    assert_eq!(received(&service).0, b"hello");
    until_nobody_wants_them(&world, &stranger, &service, 2258);
    world.nothing_refused();
}

/// `::ffff:a.b.c.d`.
fn mapped(addr: Ipv4Addr) -> [u8; 16] {
    addr.to_ipv6_mapped().octets()
}

/// RFC 6887 figures 2, 9 and, with `to`, 11: UDP.
fn request(lifetime: u32, inside: u16, to: Option<(Ipv4Addr, u16)>) -> Vec<u8> {
    let mut request = vec![2, if to.is_some() { 2 } else { 1 }, 0, 0];
    request.extend(lifetime.to_be_bytes());
    request.extend(mapped(HOST));
    request.extend(b"twelve octet");
    request.extend([17, 0, 0, 0]);
    request.extend(inside.to_be_bytes());
    request.extend([0; 2]);
    request.extend(mapped(Ipv4Addr::UNSPECIFIED));
    if let Some((addr, port)) = to {
        request.extend(port.to_be_bytes());
        request.extend([0; 2]);
        request.extend(mapped(addr));
    }
    request
}

/// RFC 6887 by hand: MAP, PEER, ANNOUNCE, and what the daemon says of itself at its start.
#[test]
fn pcp_by_hand() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("pcp-by-hand");
    let everybody = socket(world.host(SHARED), 5350);
    world.host(SHARED).run(|| everybody.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 1), &HOST).unwrap());
    world.start_ce(0);
    let (host, server) = (world.host(SHARED), &world.server);
    let router: SocketAddr = ROUTER.parse().unwrap();
    // Twice: it is repeated after 250 ms.
    for _ in 0..2 {
        let (announce, from) = received(&everybody);
        assert_eq!((announce.len(), &announce[..8], from), (24, &[2, 0x80, 0, 0, 0, 0, 0, 0][..], router));
        let (address, from) = received(&everybody);
        assert_eq!((&address[..4], &address[8..], from), (&[0, 128, 0, 0][..], &[192, 0, 2, 18][..], router));
    }

    let client = socket(host, 40_500);
    let ask = |request: &[u8]| {
        client.send_to(request, router).unwrap();
        let (answer, from) = received(&client);
        assert_eq!(from, router);
        assert_eq!(answer[..4], [2, 0x80 | request[1], 0, 0], "{answer:?}");
        answer
    };
    let announce = ask(&[&[2, 0, 0, 0, 0, 0, 0, 0][..], &mapped(HOST)].concat());
    assert_eq!(announce.len(), 24);

    let (service, stranger) = (socket(host, 5353), socket(server, 41_000));
    let answer = ask(&request(3600, 5353, None));
    let port = u16::from_be_bytes([answer[42], answer[43]]);
    assert_eq!((&answer[4..8], &answer[44..60]), (&3600u32.to_be_bytes()[..], &mapped([192, 0, 2, 18].into())[..]));
    assert!(in_shared_set(port));
    stranger.send_to(b"hello", (SHARED.ipv4, port)).unwrap();
    let (hello, from) = received(&service);
    assert_eq!((&hello[..], from.to_string()), (&b"hello"[..], format!("{SERVER}:41000")));
    // The answer comes from where the question went.
    service.send_to(b"well", from).unwrap();
    assert_eq!(received(&stranger), (b"well".to_vec(), SocketAddr::new(SHARED.ipv4.parse().unwrap(), port)));

    // A PEER mapping lets one endpoint in, to which the host has not said a word.
    let (quiet, known) = (socket(host, 5400), socket(server, 41_001));
    let answer = ask(&request(3600, 5400, Some((SERVER.parse().unwrap(), 41_001))));
    let port = u16::from_be_bytes([answer[42], answer[43]]);
    known.send_to(b"psst", (SHARED.ipv4, port)).unwrap();
    assert_eq!(received(&quiet).0, b"psst");

    // What there is, for the operator.
    let socket_file = world.files.path("ce.sock");
    let arguments = format!("show mappings --json --from {}", socket_file.display());
    let shown = world.server.output(env!("CARGO_BIN_EXE_mapt"), &arguments);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let rows: Vec<String> = (shown["mappings"].as_array().unwrap().iter())
        .filter(|row| row["origin"] != "own")
        .map(|row| format!("{} {} {} {}", row["protocol"], row["inside"], row["origin"], row["remote"]))
        .map(|row| row.replace('"', ""))
        .collect();
    let expected = [
        format!("udp {HOST}:5400 pcp {SERVER}:41001"),
        format!("tcp {HOST}:22 static null"),
        format!("udp {HOST}:5353 pcp null"),
    ];
    assert_eq!(rows, expected);

    // Until its time is over.
    let (short, service) = (ask(&request(2, 5500, None)), socket(host, 5500));
    let port = u16::from_be_bytes([short[42], short[43]]);
    stranger.send_to(b"hello", (SHARED.ipv4, port)).unwrap();
    assert_eq!(received(&service).0, b"hello");
    until_nobody_wants_them(&world, &stranger, &service, port);
    world.nothing_refused();
}

/// Another prefix with other ports, under way: what was granted is gone, and hosts are told at once (RFC 6887 §8.5).
#[test]
fn a_new_prefix_is_announced() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = world("pcp-prefix");
    world.napt = "";
    world.start_ce(0);
    let (host, daemon) = (world.host(SHARED), world.site(SHARED).daemon.as_ref().unwrap());
    let router: SocketAddr = ROUTER.parse().unwrap();
    let client = socket(host, 40_500);
    let granted = || {
        client.send_to(&request(3600, 5353, None), router).unwrap();
        let answer = received(&client).0;
        assert_eq!(answer[3], 0);
        (u16::from_be_bytes([answer[42], answer[43]]), u32::from_be_bytes(answer[8..12].try_into().unwrap()))
    };
    wait_for("a second of epoch time", || granted().1 > 0);
    assert!(in_shared_set(granted().0));
    let everybody = socket(host, 5350);
    host.run(|| everybody.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 1), &HOST).unwrap());
    let config = std::fs::read_to_string(world.files.path("ce1.yaml")).unwrap();
    world.files.write("ce1.yaml", &config.replace("2001:db8:12:3400::/56", "2001:db8:12:3500::/56"));
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.line().starts_with("reloaded: "));
    // Those of the start may still be under way; epoch time 0 is that of the change.
    wait_for("the announcement of the change", || {
        let (datagram, _) = received(&everybody);
        datagram.len() == 24 && datagram[8..12] == [0; 4]
    });
    let (port, _) = granted();
    assert_eq!(port >> 2 & 0xff, 0x35, "a port of the new set");
}

/// An address that the CE's host does not have: the daemon says which, and leaves nothing behind.
#[test]
fn an_address_of_somebody_else() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::new("pcp-address", &[NAPT], "2001:db8:ffff::/64", 1500);
    let ce = &world.site(NAPT).ce;
    let config = "role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: 2001:db8:8000:5000::/52\nsysctl: manage\n\
                  pcp: {listen: [192.168.2.1, 192.168.2.99]}\n";
    let config = world.files.write("ce.yaml", config);
    let output = ce.output(env!("CARGO_BIN_EXE_mapt-ce"), config.to_str().unwrap());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("`pcp.listen`: 192.168.2.99 is no address of this host"), "{text}");
    assert!(!ce.has_link("mapt-ce"));
}
