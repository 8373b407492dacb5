//! `napt.forwards` with the real daemons: a server in the home, reached from the Internet and from the home itself.
mod io_support;
mod net_support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use io_support::Namespace;
use net_support::{Home, NAPT, SERVER, SHARED, World, again, batch, in_shared_set, ready, tcp_through};

const OCTETS: usize = 300_000;

fn from_both_sides(name: &str, home: Home, port: u16, forwards: &'static str) {
    let mut world = World::new(name, &[home], "2001:db8:ffff::/64", 1500);
    world.napt = forwards;
    world.start_br();
    world.start_ce(0);
    let web = world.host(home);

    let seen = tcp_through(&world.server, web, (home.ipv4, port), 8080, OCTETS);
    assert_eq!(seen.ip().to_string(), SERVER, "who comes from the Internet is seen as such");

    // A second host of the home.
    let (ce, other) = (&world.site(home).ce, Namespace::new());
    ce.connect("lan2", &other, "eth0");
    batch(ce, "addr add 192.168.77.1/24 dev lan2\n");
    batch(&other, "addr add 192.168.77.2/24 dev eth0\nroute add default via 192.168.77.1\n");
    let seen = tcp_through(&other, web, (home.ipv4, port), 8080, OCTETS);
    assert_eq!(seen.ip().to_string(), home.ipv4, "a hairpinned connection shows the outside address");
    assert_ne!(seen.port(), port);

    // UDP without any word of the home before; the answer comes from where the question went.
    let service = web.run(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
    let asker = world.server.run(|| UdpSocket::bind("0.0.0.0:41234").unwrap());
    for socket in [&service, &asker] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    asker.send_to(b"question", (home.ipv4, port)).unwrap();
    let mut buffer = [0; 64];
    let (n, from) = again(|| service.recv_from(&mut buffer)).expect("the question");
    assert_eq!((&buffer[..n], from), (&b"question"[..], SocketAddr::new(SERVER.parse().unwrap(), 41_234)));
    service.send_to(b"answer", from).unwrap();
    let (n, from) = again(|| asker.recv_from(&mut buffer)).expect("the answer");
    assert_eq!((&buffer[..n], from), (&b"answer"[..], SocketAddr::new(home.ipv4.parse().unwrap(), port)));
    world.nothing_refused();
}

#[test]
fn a_server_behind_a_shared_address() {
    if ready(&["ip"]) {
        assert!(in_shared_set(2257));
        from_both_sides(
            "forwards-shared",
            SHARED,
            2257,
            ", forwards: [{protocol: tcp, external-port: 2257, internal-address: 192.168.1.2, internal-port: 8080}, \
             {protocol: udp, external-port: 2257, internal-address: 192.168.1.2, internal-port: 5353}]",
        );
    }
}

#[test]
fn a_server_behind_a_whole_address() {
    if ready(&["ip"]) {
        from_both_sides(
            "forwards-napt",
            NAPT,
            80,
            ", forwards: [{protocol: tcp, external-port: 80, internal-address: 192.168.2.2, internal-port: 8080}, \
             {protocol: udp, external-port: 80, internal-address: 192.168.2.2, internal-port: 5353}]",
        );
    }
}
