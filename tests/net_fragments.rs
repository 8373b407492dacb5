//! UDP datagrams of several fragments, both ways, made by kernels and by hand, put together by kernels.
mod io_support;
mod net_support;

use net_support::packets::{Sender, UDP, fragments, udp};
use net_support::{Home, NAPT, OWN, SERVER, SHARED, UdpPair, World, again, ready};

/// Octets of a datagram.
const SIZES: [usize; 4] = [1453, 2961, 4000, 20_000];

/// Data that no two sizes or fragments share.
fn data(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 251 + at * 7 + size) as u8).collect()
}

/// Fragments in an order in which no link delivers them.
fn shuffled(count: usize, order: &str) -> Vec<usize> {
    match order {
        "reversed" => (0..count).rev().collect(),
        "odd ones first" => (1..count).step_by(2).chain((0..count).step_by(2)).collect(),
        "first one in the middle" => (1..count / 2).chain([0]).chain(count / 2..count).collect(),
        _ => (0..count).collect(),
    }
}

const ORDERS: [&str; 4] = ["in order", "reversed", "odd ones first", "first one in the middle"];

fn both_ways(name: &str, home: Home) {
    let world = World::mapt(name, &[home], 1500);
    let (host, server) = (world.host(home), &world.server);
    // Else a first datagram that just fits the link is sent with DF and lost, as it should be.
    for node in [host, server] {
        node.sysctl("ipv4/ip_no_pmtu_disc", "1");
    }
    let pair = UdpPair::new(host, server, SERVER, (40_001, 40_002));
    for size in SIZES {
        pair.exchange(size);
    }

    let (up, down) = (Sender::new(host), Sender::new(server));
    let seen = pair.client_seen;
    assert_eq!(seen.ip().to_string(), home.ipv4);
    let mut buffer = vec![0; 65_536];
    let mut id = 0x4000;
    for order in ORDERS {
        // 1,000 octets pass unchanged; 1,448 are cut again, to 1,280 octets of IPv6 (RFC 7915 §4.1).
        for room in [1000, 1448] {
            let data = data(7 * room + 3);
            id += 1;
            let datagram = udp(home.host, SERVER, (40_001, 40_002), &data, true);
            let parts = fragments(home.host, SERVER, UDP, id, &datagram, room);
            shuffled(parts.len(), order).into_iter().for_each(|part| up.send(&parts[part]));
            let (n, from) = again(|| pair.server.recv_from(&mut buffer))
                .unwrap_or_else(|e| panic!("up, {order}, {room} octets each: {e}"));
            assert!(buffer[..n] == data && from == seen, "up, {order}, {room} octets each");

            let datagram = udp(SERVER, home.ipv4, (40_002, seen.port()), &data, true);
            let parts = fragments(SERVER, home.ipv4, UDP, id, &datagram, room);
            shuffled(parts.len(), order).into_iter().for_each(|part| down.send(&parts[part]));
            let n = again(|| pair.client.recv(&mut buffer))
                .unwrap_or_else(|e| panic!("down, {order}, {room} octets each: {e}"));
            assert!(buffer[..n] == data, "down, {order}, {room} octets each");
        }
    }
    world.nothing_refused();
}

#[test]
fn fragments_of_an_address_of_its_own_pass_in_any_order() {
    if ready(&["ip"]) {
        both_ways("fragments-own", OWN);
    }
}

#[test]
fn fragments_of_a_shared_address_pass_in_any_order() {
    if ready(&["ip"]) {
        both_ways("fragments-shared", SHARED);
    }
}

#[test]
fn fragments_behind_a_napt_pass_in_any_order() {
    if ready(&["ip"]) {
        both_ways("fragments-napt", NAPT);
    }
}
