//! What the switches of translation do to packets of Linux kernels, as tshark sees them on the links.
mod io_support;
mod net_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use io_support::wait_for;
use net_support::{Helper, NAPT, OWN, SERVER, SHARED, World, batch, ready, run, snmp6, tcp_both_ways};

const PROGRAMS: [&str; 5] = ["ip", "ethtool", "tcpdump", "tshark", "ping"];

/// A world with more configuration.
fn world(name: &str, middle_mtu: u32, more: &'static str) -> World {
    let mut world = World::new(name, &[SHARED, NAPT, OWN], "2001:db8:ffff::/64", middle_mtu);
    world.more = more;
    world.start_br();
    (0..3).for_each(|index| world.start_ce(index));
    world
}

/// Different lines of `fields` of the packets that `filter` lets through; a capture that is still growing will do.
fn seen(file: &Path, filter: &str, fields: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    // VXLAN is to be read on any port.
    command.args(["-d", "udp.port==4790,vxlan", "-r"]).arg(file).args(["-Y", filter, "-T", "fields"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// P37, MTU-8: with the MSS of both ends lowered to what fits, TCP passes a link of 1400 octets, and nobody needs to be
/// told that a packet is too big.
#[test]
fn the_mss_of_both_ends_fits_the_narrow_link() {
    if !ready(&PROGRAMS) {
        return;
    }
    let world = world("mss", 1400, "tcp-mss-clamp: auto\nmtu: {ipv6: 1400}\n");
    // Else the last device in the path would finish the checksums, after tshark has seen them.
    for end in world.sites.iter().map(|site| &site.host).chain([&world.server]) {
        run(end, "ethtool", "-K eth0 tx off");
    }
    std::thread::scope(|scope| {
        for site in &world.sites {
            let world = &world;
            scope.spawn(move || {
                let n = site.home.number;
                let (lan, middle) = (format!("lan{n}.pcap"), format!("home{n}.pcap"));
                let (lan, middle) = (world.files.path(&lan), world.files.path(&middle));
                let captures = [
                    Helper::tcpdump(&site.ce, "lan", &lan),
                    Helper::tcpdump(&world.near, &format!("home{n}"), &middle),
                ];
                let port = 8100 + u16::from(n);
                tcp_both_ways(&site.host, &world.server, SERVER, port, 300_000);
                // 1400 - 60, whatever the ends have said, and a right checksum.
                let fields = ["tcp.options.mss_val", "tcp.checksum.status"];
                let both = BTreeSet::from(["1340\t1".to_owned()]);
                let from_server = format!("tcp.flags.syn == 1 and tcp.srcport == {port}");
                wait_for("the SYN of the server", || !seen(&lan, &from_server, &fields).is_empty());
                assert_eq!(seen(&lan, &from_server, &fields), both, "home {n}");
                let from_home = format!("ipv6 and tcp.flags.syn == 1 and tcp.dstport == {port}");
                wait_for("the SYN of the host", || !seen(&middle, &from_home, &fields).is_empty());
                assert_eq!(seen(&middle, &from_home, &fields), both, "home {n}");
                captures.into_iter().for_each(|capture| drop(capture.interrupt()));
            });
        }
    });
    for router in [&world.near, &world.far] {
        assert_eq!(snmp6(router, "Icmp6OutPktTooBigs"), 0);
    }
    world.nothing_refused();
}

/// P27, SUM-3: a tunnel without UDP checksums, VXLAN by its own port: its packets stay without. By another port they
/// get one on their way through IPv6, and IPv4 has it then too.
#[test]
fn a_tunnel_without_checksums() {
    if !ready(&PROGRAMS) {
        return;
    }
    let world = world("vxlan", 1500, "");
    let file = world.files.path("middle.pcap");
    let capture = Helper::tcpdump(&world.near, "middle", &file);
    for (port, net) in [(4789, 77), (4790, 78)] {
        for (namespace, local, remote, host) in
            [(world.host(OWN), OWN.ipv4, SERVER, 1), (&world.server, SERVER, OWN.ipv4, 2)]
        {
            batch(
                namespace,
                &format!(
                    "link add vx{net} type vxlan id {net} local {local} remote {remote} dstport {port} noudpcsum\n\
                     addr add 10.{net}.0.{host}/24 dev vx{net}\nlink set vx{net} mtu 1300 up\n"
                ),
            );
        }
        run(world.host(OWN), "ping", &format!("-n -c 3 -i 0.02 -W 3 -s 700 10.{net}.0.2"));
    }
    // Both ways, by what is inside.
    let sums = |port: u16, fields: &[&str]| {
        let filter = format!("ipv6 and udp.dstport == {port} and icmp.type");
        wait_for("echoes inside the tunnel", || {
            let kinds = seen(&file, &filter, &["icmp.type", "icmp.seq"]);
            kinds.iter().filter(|kind| kind.starts_with('0')).count() == 3
        });
        seen(&file, &filter, fields)
    };
    assert_eq!(sums(4789, &["udp.checksum"]), BTreeSet::from(["0x0000".to_owned()]));
    assert_eq!(sums(4790, &["udp.checksum.status"]), BTreeSet::from(["1".to_owned()]), "good");
    capture.interrupt();
    world.nothing_refused();
}

/// P38: a DSCP for each direction, between the translators and behind them; the ECN bits are the sender's.
#[test]
fn a_dscp_for_each_direction() {
    if !ready(&PROGRAMS) {
        return;
    }
    let world = world("dscp", 1500, "dscp: {v4-to-v6: 10, v6-to-v4: 46}\n");
    let (middle, internet) = (world.files.path("middle.pcap"), world.files.path("internet.pcap"));
    let captures = [Helper::tcpdump(&world.near, "middle", &middle), Helper::tcpdump(&world.br, "internet", &internet)];
    for home in [SHARED, OWN] {
        // EF and ECT(0).
        run(world.host(home), "ping", &format!("-n -c 2 -i 0.02 -W 3 -Q 0xba {SERVER}"));
    }
    let fields = ["ipv6.tclass.dscp", "ipv6.tclass.ecn"];
    let requests = || seen(&middle, "icmpv6.type == 128", &fields);
    wait_for("requests", || !requests().is_empty());
    assert_eq!(requests(), BTreeSet::from(["10\t2".to_owned()]));
    // The server answers with what it got.
    let replies = || seen(&middle, "icmpv6.type == 129", &["ipv6.tclass.dscp"]);
    wait_for("replies", || !replies().is_empty());
    assert_eq!(replies(), BTreeSet::from(["10".to_owned()]));
    let at_server = || seen(&internet, "icmp.type == 8", &["ip.dsfield.dscp", "ip.dsfield.ecn"]);
    wait_for("requests at the server", || !at_server().is_empty());
    assert_eq!(at_server(), BTreeSet::from(["46\t2".to_owned()]));
    captures.into_iter().for_each(|capture| drop(capture.interrupt()));
    world.nothing_refused();
}
