//! traceroute and mtr through both translators: IPv6 hops answer by addresses of `icmp.rfc6791-pool`.
mod io_support;
mod net_support;

use std::collections::BTreeSet;
use std::sync::Mutex;

use io_support::Namespace;
use net_support::{BR_IPV4, BR_POOL, CE_POOL, NAPT, OWN, SERVER, SHARED, UdpPair, World, ready, run};

const PROGRAMS: [&str; 3] = ["ip", "traceroute", "mtr"];

/// What may answer at one hop.
type Hop<'a> = &'a [&'a str];

/// traceroute by UDP, ICMP and TCP, and mtr, all at once; every address that answered goes to `seen`.
fn trace(name: &str, from: &Namespace, target: &str, path: &[Hop], seen: &Mutex<BTreeSet<String>>) {
    let note = |hops: &[Vec<&str>]| seen.lock().unwrap().extend(hops.iter().flatten().map(|&a| a.to_owned()));
    std::thread::scope(|scope| {
        for method in ["-U", "-I", "-T -p 4443", "--sport=45001 -U -p 45002 -N 1"] {
            let note = &note;
            scope.spawn(move || {
                let text = run(from, "traceroute", &format!("-n -4 -q 2 -w 3 -m 12 {method} {target}"));
                // ` 3  192.0.0.9  0.4 ms 192.0.0.10  0.3 ms`
                let hops: Vec<Vec<&str>> = text.lines().skip(1).map(|line| addresses(line).collect()).collect();
                check(&format!("{name}: traceroute {method}"), &hops, path, &text);
                note(&hops);
            });
        }
        scope.spawn(move || {
            let text = run(from, "mtr", &format!("-n -4 --report --report-cycles 3 -i 0.2 -G 1 -m 12 {target}"));
            // `  3.|-- 192.0.0.9  0.0%  3 ...`, and a line of its own for a second address of the same hop.
            let mut hops: Vec<Vec<&str>> = Vec::new();
            for line in text.lines().skip(2) {
                if line.contains(".|--") {
                    assert!(line.contains(" 0.0% "), "{name}: mtr\n{text}");
                    hops.push(Vec::new());
                }
                hops.last_mut().unwrap().extend(addresses(line));
            }
            // It ends where the target is first heard of, be it by its router.
            let end = path.iter().position(|hop| hop.contains(&target)).unwrap();
            check(&format!("{name}: mtr"), &hops, &path[..=end], &text);
        });
    });
}

fn addresses(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().filter(|word| word.parse::<std::net::Ipv4Addr>().is_ok())
}

fn check(name: &str, hops: &[Vec<&str>], path: &[Hop], text: &str) {
    assert_eq!(hops.len(), path.len(), "{name}\n{text}");
    for (number, (seen, expected)) in hops.iter().zip(path).enumerate() {
        let silent = expected.is_empty();
        assert!(
            seen.is_empty() == silent && seen.iter().all(|a| expected.contains(a)),
            "{name}: hop {}\n{text}",
            number + 1
        );
    }
}

fn hex(digits: &[u8]) -> u16 {
    u16::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}

/// ICMP-11, ICMP-12, P33: each translator costs two hops, its kernel's way into the TUN and out of it, once in either family.
#[test]
fn from_home_the_ce_names_the_ipv6_hops() {
    if !ready(&PROGRAMS) {
        return;
    }
    let world = World::mapt("hops", &[SHARED, NAPT, OWN], 1500);
    let seen = Mutex::default();
    std::thread::scope(|scope| {
        let seen = &seen;
        for site in &world.sites {
            scope.spawn(move || {
                let lan = format!("192.168.{}.1", site.home.number);
                // CE in IPv4 and IPv6, near, far, BR in IPv6 and IPv4.
                let pool: Hop = &CE_POOL;
                let path: [Hop; 7] = [&[&lan], pool, pool, pool, pool, &[BR_IPV4], &[SERVER]];
                trace(site.home.ipv4, &site.host, SERVER, &path, seen);
            });
        }
    });
    // Drawn at random a hundred times.
    let seen = seen.into_inner().unwrap();
    assert!(CE_POOL.iter().all(|&address| seen.contains(address)), "{seen:?}");
    world.nothing_refused();
}

/// ICMP-11, ICMP-12, P33.
#[test]
fn from_the_server_the_br_names_the_ipv6_hops() {
    if !ready(&PROGRAMS) {
        return;
    }
    let world = World::mapt("hops-in", &[OWN], 1500);
    let pool: Hop = &BR_POOL;
    // The CE has no IPv4 address that means anything outside, and reports as the host behind it.
    let path: [Hop; 7] = [&[BR_IPV4], pool, pool, pool, pool, &[OWN.ipv4], &[OWN.ipv4]];
    let seen = Mutex::default();
    trace("from the server", &world.server, OWN.ipv4, &path, &seen);
    // Drawn at random thirty times.
    let seen = seen.into_inner().unwrap();
    assert!(BR_POOL.iter().all(|&address| seen.contains(address)), "{seen:?}");
    world.nothing_refused();
}

/// BR-11, P14: to an address behind a NAPT the way is as far as a mapping goes: the errors, in IPv6 and in IPv4, find back by the
/// port of the packet that they quote.
#[test]
fn from_the_server_to_a_port_of_a_napt() {
    if !ready(&PROGRAMS) {
        return;
    }
    let world = World::mapt("hops-port", &[SHARED, NAPT], 1500);
    for site in &world.sites {
        let home = site.home;
        let pair = UdpPair::new(&site.host, &world.server, SERVER, (48_001, 48_002));
        let port = pair.client_seen.port();
        // With its socket gone, the host answers that nobody listens.
        drop(pair);
        let pool: Hop = &BR_POOL;
        let path: [Hop; 7] = [&[BR_IPV4], pool, pool, pool, pool, &[home.ipv4], &[home.ipv4]];
        let text = run(&world.server, "traceroute", &format!("-n -4 -q 2 -w 3 -m 12 -U -p {port} {}", home.ipv4));
        let hops: Vec<Vec<&str>> = text.lines().skip(1).map(|line| addresses(line).collect()).collect();
        check(home.ipv4, &hops, &path, &text);
    }
    world.nothing_refused();
}

/// ICMP-6, ICMP-8, ICMP-13: traceroute reads the IPv6 address of each hop between the translators out of RFC 5837's
/// object, and in no other hop's answer.
#[test]
fn traceroute_reads_the_ipv6_hops() {
    if !ready(&PROGRAMS) {
        return;
    }
    let mut world = World::new("hops-names", &[SHARED, OWN], "2001:db8:ffff::/64", 1500);
    world.names_reporters = true;
    world.start_br();
    (0..2).for_each(|index| world.start_ce(index));
    // What traceroute shows of class 2, C-Type 4: address family 2, and the address.
    let hops = |from: &Namespace, target: &str| -> Vec<Option<String>> {
        let text = run(from, "traceroute", &format!("-e -n -4 -q 1 -w 3 -m 12 -U {target}"));
        let named = text.lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split_once("<2/4:00020000,")?.1.split_once('>')?.0.split(',').collect();
            let digits: Vec<u16> = words.concat().as_bytes().chunks(4).map(hex).collect();
            Some(std::net::Ipv6Addr::from(<[u16; 8]>::try_from(digits).unwrap()).to_string())
        });
        named.collect()
    };
    let expected = |names: [&str; 4]| {
        let between = names.map(|name| Some(name.to_string()));
        [&[None], &between[..], &[None, None]].concat()
    };
    // CE, near, far, BR, each by the address from which it sends back.
    let up = ["2001:db8:f000:1::2", "2001:db8:f000:1::1", "2001:db8:f000:a::2", "2001:db8:f000:b::2"];
    assert_eq!(hops(world.host(SHARED), SERVER), expected(up));
    let down = ["2001:db8:f000:b::2", "2001:db8:f000:b::1", "2001:db8:f000:a::1", "2001:db8:f000:3::2"];
    assert_eq!(hops(&world.server, OWN.ipv4), expected(down));
    world.nothing_refused();
}
