//! Echo with every size that fits, answered by kernels; what does not fit is dropped by name.
mod io_support;
mod net_support;

use std::net::Ipv6Addr;
use std::time::Duration;

use io_support::{Namespace, wait_for};
use net_support::packets::{DF, ICMP, ICMPV6, Listener, Sender, checksum, echo, fragments, ipv4, ipv6};
use net_support::{Home, IPV4_MTU, NAPT, OWN, SERVER, SERVER_IPV6, SHARED, World, in_shared_set, ready};

const FRAGMENTED_ICMP: &str = "fragmented-icmp";

/// The most data that an echo carries through 1500 octets of IPv6.
const MOST: usize = IPV4_MTU - 20 - 8;

/// Packets that no device on the way has to queue for long.
const WINDOW: usize = 64;

fn data(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 13 + at / 256 + size) as u8).collect()
}

/// Echo of every size from `from` to `to`, which stand behind `source` and `target`, with and without DF.
/// The requests arrive between the addresses `request_at`, with an identifier of which `id_at` is true.
fn every_size(
    from: &Namespace,
    to: &Namespace,
    source: &str,
    target: &str,
    request_at: (&str, &str),
    id_at: impl Fn(u16) -> bool,
) {
    let sender = Sender::new(from);
    let (requests, replies) = (Listener::ipv4(to), Listener::ipv4(from));
    for df in [0, DF] {
        for sizes in (0..=MOST).collect::<Vec<_>>().chunks(WINDOW) {
            for &size in sizes {
                let message = echo(8, 0x5151, size as u16, &data(size));
                sender.send(&ipv4(source, target, ICMP, 1 + size as u16, df, &message));
            }
            let mut heard = vec![[false; 2]; MOST + 1];
            for _ in sizes {
                for (which, listener, kind, ends) in [(0, &requests, 8, request_at), (1, &replies, 0, (target, source))]
                {
                    let packet =
                        listener.next().unwrap_or_else(|| panic!("type {kind} missing among {sizes:?}, {df:#x}"));
                    let size = packet.len() - 28;
                    assert!(sizes.contains(&size), "an echo of {size} octets, and {sizes:?} were sent");
                    let id = u16::from_be_bytes([packet[24], packet[25]]);
                    // All octets, checksums included: a translator must not touch the data.
                    assert!(if which == 1 { id == 0x5151 } else { id_at(id) }, "identifier {id}");
                    let expected = ipv4(ends.0, ends.1, ICMP, 0, 0, &echo(kind, id, size as u16, &data(size)));
                    assert_eq!(packet[12..], expected[12..], "type {kind}, {size} octets, {df:#x}");
                    // RFC 7915 §5.1: DF where the packet has more than 1260 octets.
                    let expected = if packet.len() > 1260 { DF } else { 0 };
                    assert_eq!(u16::from_be_bytes([packet[6], packet[7]]), expected, "{size} octets, {df:#x}");
                    assert!(!std::mem::replace(&mut heard[size][which], true), "{size} octets came twice");
                }
            }
        }
    }
}

/// Longer ones are fragments by the time they reach the translator, and end there (RFC 7915 §1.2).
fn longer(world: &World, from: &Namespace, to: &Namespace, source: &str, target: &str, counter: impl Fn() -> u64) {
    let sender = Sender::new(from);
    let mut arrivals = Listener::ipv4(to);
    let before = counter();
    let mut sent = 0;
    for size in [MOST + 1, 1460, 1472] {
        // In one piece up to the translator's kernel, which cuts it in two.
        sender.send(&ipv4(source, target, ICMP, 7, 0, &echo(8, 0x5252, 1, &data(size))));
        sent += 2;
    }
    for size in [1473, 2000, 4000] {
        let parts = fragments(source, target, ICMP, 9, &echo(8, 0x5252, 2, &data(size)), 1400);
        parts.iter().for_each(|part| sender.send(part));
        sent += parts.len() as u64;
    }
    wait_for(&format!("{sent} fragments to be dropped on their way to {target}"), || counter() - before == sent);
    // What comes after them shows that they are through.
    sender.send(&ipv4(source, target, ICMP, 11, 0, &echo(8, 0x5353, 3, b"the last one")));
    let came = arrivals.until(|packet| packet.ends_with(b"the last one"));
    assert!(came.is_empty(), "{} of {sent} fragments came out", came.len());

    // With DF they do not reach the translator, and the sender is told (RFC 1191).
    let told = Listener::ipv4(from);
    sender.send(&ipv4(source, target, ICMP, 13, DF, &echo(8, 0x5454, 4, &data(MOST + 1))));
    let answer = told.until(|packet| packet[20..22] == [3, 4]).len();
    assert!(answer <= 1, "the answer to the last one, then Fragmentation Needed");
    arrivals.wait_at_most(Duration::from_millis(1));
    while let Some(packet) = arrivals.next() {
        assert!(packet.len() < MOST, "too long, and it came");
    }
    assert_eq!(counter() - before, sent);
    world.nothing_refused();
}

fn from_home(name: &str, home: Home) {
    let world = World::mapt(name, &[home], 1500);
    let (host, server) = (world.host(home), &world.server);
    every_size(host, server, home.host, SERVER, (home.ipv4, SERVER), |id| !home.shared || in_shared_set(id));
    let ce = world.site(home).daemon.as_ref().unwrap();
    longer(&world, host, server, home.host, SERVER, || ce.counters().get(FRAGMENTED_ICMP)[0]);
}

#[test]
fn every_size_from_a_shared_address() {
    if ready(&["ip"]) {
        from_home("sizes-shared", SHARED);
    }
}

#[test]
fn every_size_from_behind_a_napt() {
    if ready(&["ip"]) {
        from_home("sizes-napt", NAPT);
    }
}

#[test]
fn every_size_to_and_from_an_address_of_its_own() {
    if !ready(&["ip"]) {
        return;
    }
    from_home("sizes-own", OWN);
    let world = World::mapt("sizes-own-in", &[OWN], 1500);
    let (host, server) = (world.host(OWN), &world.server);
    every_size(server, host, SERVER, OWN.ipv4, (SERVER, OWN.ipv4), |id| id == 0x5151);
    let br = world.br_daemon.as_ref().unwrap();
    longer(&world, server, host, SERVER, OWN.ipv4, || br.counters().get(FRAGMENTED_ICMP)[0]);
}

/// Fragments of ICMPv6, as no translator of ours makes them, at both translators.
#[test]
fn fragmented_icmpv6_ends_at_either_translator() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::mapt("sizes-icmpv6", &[OWN], 1500);
    let (host, server) = (world.host(OWN), &world.server);
    let ce = world.site(OWN).daemon.as_ref().unwrap();
    let br = world.br_daemon.as_ref().unwrap();
    for (router, daemon, source, target, arrivals) in [
        (&world.near, br, OWN.map_address, SERVER_IPV6, Listener::ipv4(server)),
        (&world.far, ce, SERVER_IPV6, OWN.map_address, Listener::ipv4(host)),
    ] {
        let sender = Sender::new(router);
        let before = daemon.counters().get(FRAGMENTED_ICMP);
        let whole = echo_v6(source, target, b"sixteen octets..");
        // Next header 58, offset and M, identification (RFC 8200 §4.5).
        for (place, part) in [([0, 1], &whole[..16]), ([0, 16], &whole[16..])] {
            let header = [58, 0, place[0], place[1], 0, 0, 0x77, 0x01];
            sender.send(&ipv6(source, target, 44, &[&header[..], part].concat()));
        }
        let dropped = [before[0], before[1] + 2];
        wait_for("two fragments to be dropped", || daemon.counters().get(FRAGMENTED_ICMP) == dropped);
        sender.send(&ipv6(source, target, ICMPV6, &echo_v6(source, target, b"the last one")));
        let came = arrivals.until(|packet| packet.ends_with(b"the last one"));
        assert!(came.is_empty(), "{came:x?}");
    }
}

/// An ICMPv6 echo request with its checksum (RFC 4443 §2.3).
fn echo_v6(source: &str, target: &str, data: &[u8]) -> Vec<u8> {
    let mut message = [&[128, 0, 0, 0, 0x21, 0x43, 0, 1], data].concat();
    let addresses = [source, target].map(|a| a.parse::<Ipv6Addr>().unwrap().octets()).concat();
    let pseudo = [&addresses[..], &(message.len() as u32).to_be_bytes(), &[0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}
