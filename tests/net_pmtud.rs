//! A link of 1280 octets in the middle of the access network: nobody at either end knows, and TCP gets through.
mod io_support;
mod net_support;

use io_support::Namespace;
use net_support::{Home, NAPT, OWN, SERVER, SHARED, World, ready, snmp6, tcp_both_ways};

/// What the kernel learnt from Fragmentation Needed (RFC 7915 §4.2: 1280 - 20).
const LEARNT: &str = "mtu 1260";

const OCTETS: usize = 3 << 20;

fn learnt(namespace: &Namespace, address: &str) -> bool {
    namespace.ip(&format!("route get {address}")).contains(LEARNT)
}

/// ICMP-1, MTU-6, P21. DF = 1: both senders are told by ICMP, which two translators pass on.
#[test]
fn tcp_learns_the_mtu_of_the_middle() {
    if !ready(&["ip"]) {
        return;
    }
    let world = World::mapt("pmtud", &[SHARED, NAPT, OWN], 1280);
    std::thread::scope(|scope| {
        for (site, port) in world.sites.iter().zip(8081..) {
            let server = &world.server;
            scope.spawn(move || tcp_both_ways(&site.host, server, SERVER, port, OCTETS));
        }
    });
    for site in &world.sites {
        assert!(learnt(&site.host, SERVER), "the host of {}", site.home.ipv4);
        assert!(learnt(&world.server, site.home.ipv4), "the server towards {}", site.home.ipv4);
    }
    assert!(snmp6(&world.near, "Icmp6OutPktTooBigs") > 0 && snmp6(&world.far, "Icmp6OutPktTooBigs") > 0);
    world.nothing_refused();
}

fn without_df(name: &str, homes: &[Home]) {
    let world = World::mapt(name, homes, 1280);
    for site in &world.sites {
        site.host.sysctl("ipv4/ip_no_pmtu_disc", "1");
    }
    world.server.sysctl("ipv4/ip_no_pmtu_disc", "1");
    std::thread::scope(|scope| {
        for (site, port) in world.sites.iter().zip(8091..) {
            let server = &world.server;
            scope.spawn(move || tcp_both_ways(&site.host, server, SERVER, port, OCTETS));
        }
    });
    for site in &world.sites {
        assert!(!learnt(&site.host, SERVER) && !learnt(&world.server, site.home.ipv4));
    }
    for router in [&world.near, &world.far] {
        assert_eq!(snmp6(router, "Icmp6OutPktTooBigs"), 0);
    }
    world.nothing_refused();
}

/// MTU-5, FRAG-6. DF = 0: the translators fragment to 1280 octets and nobody is told (RFC 7915 §4.1).
#[test]
fn tcp_that_may_be_fragmented_needs_not_learn() {
    if ready(&["ip"]) {
        without_df("pmtud-df0", &[OWN]);
    }
}

/// The same behind a NAPT, where later fragments need the port of their first one.
#[test]
fn tcp_that_may_be_fragmented_passes_a_napt() {
    if ready(&["ip"]) {
        without_df("pmtud-df0-napt", &[SHARED, NAPT]);
    }
}

/// The narrow link is an IPv4 one, in the home or on the Internet, where the routers' errors are ICMPv4. Of less than
/// 1280 octets nobody hears, since no IPv6 host has to send less (RFC 7915 §4.2): the last router fragments.
fn narrow_ipv4(name: &str, mtu: u32, learnt: &str) {
    let world = World::mapt(name, &[SHARED, NAPT, OWN], 1500);
    for site in &world.sites {
        site.ce.ip(&format!("route replace {}/32 dev lan mtu {mtu}", site.home.host));
    }
    world.br.ip(&format!("route replace {SERVER}/32 dev internet mtu {mtu}"));
    std::thread::scope(|scope| {
        for (site, port) in world.sites.iter().zip(8101..) {
            let server = &world.server;
            scope.spawn(move || tcp_both_ways(&site.host, server, SERVER, port, OCTETS));
        }
    });
    for site in &world.sites {
        let at =
            [site.host.ip(&format!("route get {SERVER}")), world.server.ip(&format!("route get {}", site.home.ipv4))];
        assert!(at.iter().all(|route| route.contains(learnt)), "{}: {at:?}", site.home.ipv4);
    }
    world.nothing_refused();
}

/// MTU-3, P21: Fragmentation Needed to Packet Too Big and back is the same figure.
#[test]
fn tcp_learns_the_mtu_of_an_ipv4_link() {
    if ready(&["ip"]) {
        narrow_ipv4("pmtud-1400", 1400, "mtu 1400");
    }
}

/// HDR-9, P21: never below 1280 in IPv6, and no DF up to 1260 octets in IPv4.
#[test]
fn tcp_passes_an_ipv4_link_narrower_than_ipv6_allows() {
    if ready(&["ip"]) {
        narrow_ipv4("pmtud-576", 576, LEARNT);
    }
}
