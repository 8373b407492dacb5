//! Explicit Congestion Notification (RFC 3168) through both translators: a router in IPv6 marks, an IPv4 host notices.
mod io_support;
mod net_support;

use io_support::Namespace;
use net_support::{OWN, SERVER, SHARED, World, ready, run, tcp_both_ways};

/// One in so many packets, mostly superpackets, is marked: seldom enough that senders make superpackets in between.
const ONE_IN: u32 = 8;

/// A counter of /proc/net/netstat.
fn netstat(namespace: &Namespace, name: &str) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap());
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.chunks(2).flat_map(|two| two[0].split_whitespace().zip(two[1].split_whitespace()));
    pairs.into_iter().find(|(head, _)| *head == name).unwrap_or_else(|| panic!("{name}")).1.parse().unwrap()
}

/// P38, HDR: the ECN bits of every packet are those that the last router gave it, in superpackets too, whose virtio type
/// has a bit of its own for the sender's CWR.
#[test]
fn marks_of_an_ipv6_router_slow_ipv4_senders() {
    if !ready(&["ip", "nft"]) {
        return;
    }
    let world = World::mapt("ecn", &[SHARED, OWN], 1500);
    for namespace in [world.host(SHARED), world.host(OWN), &world.server] {
        namespace.sysctl("ipv4/tcp_ecn", "1");
    }
    for arguments in [
        "add table ip6 marks",
        "add chain ip6 marks forward { type filter hook forward priority 0 ; }",
        &format!("add rule ip6 marks forward ip6 ecn != not-ect numgen inc mod {ONE_IN} == 0 counter ip6 ecn set ce"),
    ] {
        run(&world.near, "nft", arguments);
    }
    for (site, port) in world.sites.iter().zip(8051..) {
        let ends = [&site.host, &world.server];
        let before = ends.map(|end| [netstat(end, "InCEPkts"), netstat(end, "TCPDeliveredCE")]);
        tcp_both_ways(&site.host, &world.server, SERVER, port, 4 << 20);
        for (end, before) in ends.into_iter().zip(before) {
            // As receiver: marked packets came. As sender: the receiver's ECE came back.
            assert!(netstat(end, "InCEPkts") > before[0], "{}", site.home.ipv4);
            assert!(netstat(end, "TCPDeliveredCE") > before[1], "{}", site.home.ipv4);
        }
    }
    world.nothing_refused();
}
