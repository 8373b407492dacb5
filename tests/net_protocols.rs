//! Every protocol number, as a sweep like `nmap -sO` sends them: what arrives, octet for octet, and what does not.
mod io_support;
mod net_support;

use std::collections::BTreeMap;

use io_support::wait_for;
use net_support::packets::{DCCP, ICMP, ICMPV6, Listener, Sender, TCP, UDP, UDP_LITE, echo, ipv4, ipv6, tcp, udp};
use net_support::{NAPT, OWN, SERVER, SERVER_IPV6, SHARED, World, in_shared_set, ready};

/// Never translated from IPv4: IGMP (RFC 7915 §4.2), what IPv6 reads as extension headers or as its own ICMP.
const NOT_FROM_IPV4: [u8; 6] = [0, 2, 43, 44, 58, 60];

/// Which way a sweep goes; what its receiver answers is no part of it, nor are answers to the sweep before.
type Way = &'static str;
const UP: Way = " on its way up, an odd number";
const DOWN: Way = " on its way down, an odd number";

/// A body that no two protocols and ways share.
fn body(protocol: u8, way: Way) -> Vec<u8> {
    format!("protocol {protocol:3}{way}").into_bytes()
}

/// What a packet of `protocol` carries: with a whole transport header where a translator has to read one.
fn payload(protocol: u8, source: &str, target: &str, ports: (u16, u16), way: Way) -> Vec<u8> {
    let body = body(protocol, way);
    match protocol {
        ICMP => echo(8, ports.0, 1, &body),
        TCP => tcp(source, target, ports, &body),
        UDP => udp(source, target, ports, &body, true),
        _ => body,
    }
}

/// Exactly these payloads, by protocol, come from `source` to `target`, each once. That all others were dropped shows
/// in counters, which `dropped` looks at.
fn arrive(
    arrivals: &Listener,
    (source, target, way): (&str, &str, Way),
    expected: &BTreeMap<u8, Vec<u8>>,
    dropped: impl Fn() -> bool,
) {
    wait_for("the drops to be counted", dropped);
    let ends = &ipv4(source, target, 0, 0, 0, &[])[12..20];
    // An error quotes the sweep that came the other way.
    let wanted = |p: &[u8]| p[12..20] == *ends && p.ends_with(way.as_bytes());
    let mut found = BTreeMap::new();
    for packet in arrivals.collect(expected.len(), wanted) {
        assert_eq!(packet[0], 0x45);
        let old = found.insert(packet[9], packet[20..].to_vec());
        assert_eq!(old, None, "protocol {} came twice", packet[9]);
    }
    assert_same(&found, expected);
}

fn assert_same(found: &BTreeMap<u8, Vec<u8>>, expected: &BTreeMap<u8, Vec<u8>>) {
    let numbers = |map: &BTreeMap<u8, Vec<u8>>| map.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers(found), numbers(expected));
    assert_eq!(found, expected);
}

/// An address of its own, no NAPT: both translators are plain, and everything with a counterpart passes.
#[test]
fn all_that_rfc_7915_passes_reaches_and_leaves_an_address_of_its_own() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::mapt("protocols-own", &[OWN], 1500);
    let (host, server) = (world.host(OWN), &world.server);
    let ce = world.site(OWN).daemon.as_ref().unwrap();
    let br = world.br_daemon.as_ref().unwrap();
    for (from, to, source, target, daemon, way) in
        [(host, server, OWN.ipv4, SERVER, ce, UP), (server, host, SERVER, OWN.ipv4, br, DOWN)]
    {
        let (sender, arrivals) = (Sender::new(from), Listener::ipv4(to));
        let before = daemon.counters().get("protocol-illegal")[0];
        let mut expected = BTreeMap::new();
        for protocol in 0..=255 {
            let payload = payload(protocol, source, target, (41_001, 41_002), way);
            sender.send(&ipv4(source, target, protocol, 100, 0, &payload));
            if !NOT_FROM_IPV4.contains(&protocol) {
                expected.insert(protocol, payload);
            }
        }
        let dropped = before + NOT_FROM_IPV4.len() as u64;
        arrive(&arrivals, (source, target, way), &expected, || daemon.counters().get("protocol-illegal")[0] == dropped);
    }
    world.nothing_refused();
}

/// Sent as IPv6 by the customer's own router, whatever the CE would have made of it.
#[test]
fn all_next_headers_at_the_br() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::mapt("protocols-ipv6", &[OWN], 1500);
    let (sender, arrivals) = (Sender::new(&world.near), Listener::ipv4(&world.server));
    let br = world.br_daemon.as_ref().unwrap();
    let mut expected = BTreeMap::new();
    for next in 0..=255 {
        let (payload, arrives) = match next {
            // ICMP and IGMP belong to IPv4.
            1 | 2 => (body(next, UP), None),
            // The checksums are not looked at on the way; how they are translated is tested elsewhere.
            TCP | UDP | DCCP | ICMPV6 | UDP_LITE => continue,
            // Extension headers are walked over (RFC 7915 §5.1): Hop-by-Hop, Routing, Fragment, Destination Options
            // of 8 octets. Behind each of them a protocol of its own, so that they can be told apart.
            0 | 43 | 44 | 60 => {
                let behind = 146 + [0, 43, 44, 60].iter().position(|&number| number == next).unwrap() as u8;
                // Six octets of padding, no segment left, offset 0 and no M.
                let padding = if next == 0 || next == 60 { [1, 4] } else { [0, 0] };
                let header = [behind, 0, padding[0], padding[1], 0, 0, 0, 0];
                ([&header[..], &body(next, UP)].concat(), Some((behind, body(next, UP))))
            }
            146..=149 => continue,
            _ => (body(next, UP), Some((next, body(next, UP)))),
        };
        sender.send(&ipv6(OWN.map_address, SERVER_IPV6, next, &payload));
        expected.extend(arrives);
    }
    arrive(&arrivals, (OWN.ipv4, SERVER, UP), &expected, || br.counters().get("protocol-illegal") == [0, 2]);
    world.nothing_refused();
}

/// A shared address, or a NAPT: without a port nobody knows whose packet it is.
#[test]
fn only_tcp_udp_and_icmp_pass_a_napt() {
    if !ready(&["ip"]) {
        return;
    }
    for home in [SHARED, NAPT] {
        let world = World::mapt(&format!("protocols-{}", home.number), &[home], 1500);
        let (host, server) = (world.host(home), &world.server);
        let ce = world.site(home).daemon.as_ref().unwrap();
        let br = world.br_daemon.as_ref().unwrap();

        let (sender, arrivals) = (Sender::new(host), Listener::ipv4(server));
        for protocol in 0..=255 {
            let payload = payload(protocol, home.host, SERVER, (42_001, 42_002), UP);
            sender.send(&ipv4(home.host, SERVER, protocol, 100, 0, &payload));
        }
        let illegal = NOT_FROM_IPV4.len() as u64;
        let unsupported = 256 - 3 - illegal;
        wait_for("the drops to be counted", || {
            let dropped = ce.counters();
            [dropped.get("protocol-illegal")[0], dropped.get("napt-unsupported")[0]] == [illegal, unsupported]
        });
        let ends = &ipv4(home.ipv4, SERVER, 0, 0, 0, &[])[12..20];
        let came: BTreeMap<u8, Vec<u8>> = arrivals
            .collect(3, |packet| packet[12..20] == *ends && packet.ends_with(UP.as_bytes()))
            .into_iter()
            .map(|packet| (packet[9], packet[20..].to_vec()))
            .collect();
        let port_of = |protocol: u8| {
            let at = if protocol == ICMP { 4 } else { 0 };
            u16::from_be_bytes([came[&protocol][at], came[&protocol][at + 1]])
        };
        for protocol in [ICMP, TCP, UDP] {
            let expected = payload(protocol, home.ipv4, SERVER, (port_of(protocol), 42_002), UP);
            assert_eq!(came[&protocol], expected, "protocol {protocol}");
            assert!(!home.shared || in_shared_set(port_of(protocol)), "protocol {protocol}: {}", port_of(protocol));
        }

        // The three that got out may be answered; nothing else gets in.
        let (sender, arrivals) = (Sender::new(server), Listener::ipv4(host));
        let mut expected = BTreeMap::new();
        for protocol in 0..=255 {
            let answer = |target, to| match protocol {
                ICMP => echo(0, to, 1, &body(protocol, DOWN)),
                _ => payload(protocol, SERVER, target, (42_002, to), DOWN),
            };
            let to = if matches!(protocol, ICMP | TCP | UDP) { port_of(protocol) } else { 0 };
            sender.send(&ipv4(SERVER, home.ipv4, protocol, 102, 0, &answer(home.ipv4, to)));
            if matches!(protocol, ICMP | TCP | UDP) {
                expected.insert(protocol, answer(home.host, 42_001));
            }
        }
        arrive(&arrivals, (SERVER, home.host, DOWN), &expected, || {
            let (at_br, at_ce) = (br.counters(), ce.counters());
            let without_port =
                if home.shared { at_br.get("protocol-without-port")[0] } else { at_ce.get("napt-unsupported")[1] };
            [at_br.get("protocol-illegal")[0], without_port] == [illegal, unsupported]
        });
        world.nothing_refused();
    }
}
