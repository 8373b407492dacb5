//! tshark looks at every packet on every link while a mix of traffic runs, and finds no wrong checksum.
mod io_support;
mod net_support;

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use io_support::{Namespace, wait_for};
use net_support::packets::{DCCP, Sender, UDP, UDP_LITE, dccp, ipv4, udp, udp_lite};
use net_support::{Helper, Home, NAPT, OWN, SERVER, SHARED, UdpPair, World, again, ready, run, tcp_both_ways};
use nix::sys::socket::{setsockopt, sockopt};

const PROGRAMS: [&str; 6] = ["ip", "ethtool", "tcpdump", "tshark", "ping", "traceroute"];

/// Ports of datagrams that their sender gives no checksum: the home's, and the server's for each home.
const WITHOUT_SUM: (u16, [u16; 4]) = (46_501, [0, 46_511, 46_512, 46_513]);

/// A capture on one link.
struct Link {
    name: String,
    file: PathBuf,
    tcpdump: Helper,
    /// Whose traffic passes here.
    homes: Vec<Home>,
    /// Who sends packets here whose checksums its own device is to finish.
    unfinished: Option<String>,
    /// Whether superpackets come by, whose checksums a kernel completes.
    cut: bool,
}

/// What was found on one link: packets whose checksum tshark says is good.
#[derive(Debug, Default)]
struct Good {
    tcp: usize,
    udp: usize,
    icmp: usize,
    /// DCCP and UDP-Lite.
    others: usize,
    /// UDP datagrams without one.
    without: usize,
    /// Fragments, whose datagram is looked at in the last one.
    fragments: usize,
    /// Packets longer than any link takes.
    superpackets: usize,
}

/// `on`: what the senders leave to their devices. The devices of translators and routers do nothing themselves, so
/// that what passes is complete.
fn offloads(world: &World, on: bool) {
    for namespace in world.namespaces() {
        for line in run(namespace, "ip", "-o link show type veth").lines() {
            let device = line.split([':', '@']).nth(1).unwrap().trim();
            let ours = device == "eth0";
            // `gro` on a veth is for what comes in: there the kernel makes superpackets for the translators.
            let gro = on && matches!(device, "wan" | "access");
            let word = |on| if on { "on" } else { "off" };
            let (tx, gro) = (word(on && ours), word(gro));
            let all = format!("-K {device} tx {tx} tso {tx} gso {tx} gro {gro} rx-udp-gro-forwarding {gro}");
            run(namespace, "ethtool", &all);
        }
    }
}

fn capture(world: &World, unfinished: bool) -> Vec<Link> {
    let all: Vec<Home> = world.sites.iter().map(|site| site.home).collect();
    let link = |name: String, namespace: &Namespace, device: &str, sender: Option<&str>, homes: &[Home]| {
        let file = world.files.path(&format!("{name}.pcap"));
        let tcpdump = Helper::tcpdump(namespace, device, &file);
        Link {
            name,
            file,
            tcpdump,
            homes: homes.to_vec(),
            unfinished: sender.filter(|_| unfinished).map(str::to_owned),
            cut: unfinished,
        }
    };
    let mut links = vec![
        link("middle".into(), &world.near, "middle", None, &all),
        link("access".into(), &world.far, "border", None, &all),
        link("internet".into(), &world.br, "internet", Some(SERVER), &all),
    ];
    for site in &world.sites {
        let n = site.home.number;
        links.push(link(format!("lan{n}"), &site.ce, "lan", Some(site.home.host), &[site.home]));
        links.push(link(format!("wan{n}"), &world.near, &format!("home{n}"), None, &[site.home]));
    }
    links
}

/// What a home sends at the end.
fn last_of(home: &Home) -> Vec<u8> {
    format!("the last datagram of home {}", home.number).into_bytes()
}

fn send_last(world: &World, home: Home) {
    let socket = world.host(home).run(|| UdpSocket::bind((home.host, 46_201)).unwrap());
    socket.send_to(&last_of(&home), (SERVER, 46_202)).unwrap();
}

/// Ends the captures once each has the last datagram; nothing may be missing.
fn look(links: Vec<Link>) -> Vec<(String, Good)> {
    for link in &links {
        wait_for(&format!("the last datagrams on {}", link.name), || {
            let octets = std::fs::read(&link.file).unwrap();
            let end = &octets[octets.len().saturating_sub(20_000)..];
            let there = |home: &Home| end.windows(last_of(home).len()).any(|window| window == last_of(home));
            link.homes.iter().all(there)
        });
    }
    let looked = |link: Link| {
        let summary = link.tcpdump.interrupt();
        assert!(summary.contains("\n0 packets dropped by kernel"), "{}: {summary}", link.name);
        let good = tshark(&link.name, &link.file, link.unfinished.as_deref(), link.cut);
        (link.name, good)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = links.into_iter().map(|link| scope.spawn(move || looked(link))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

const FIELDS: [&str; 20] = [
    "frame.number",
    "frame.len",
    "ip.src",
    "ip.flags.mf",
    "ip.frag_offset",
    "ipv6.fraghdr.nxt",
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
    "udp.dstport",
    "ip.len",
    "ipv6.plen",
    "udp.srcport",
    "udp.checksum_coverage",
    "dccp.checksum.status",
    "tcp.dstport",
    "tcp.checksum",
    "ip.ttl",
];

/// Wireshark's words for a checksum.
const BAD: &str = "0";
const GOOD: &str = "1";
const NOT_PRESENT: &str = "3";

/// Not so for an ICMP error that quotes only the beginning of a packet: tshark sums up what is there and calls it bad.
/// (What a host left to its device is quoted as it is, too.)
fn quotes_all(fields: &[Vec<&str>]) -> bool {
    let number = |text: &str| text.parse::<usize>().unwrap();
    match (&fields[12][..], &fields[13][..]) {
        ([outer, inner], _) => number(inner) <= number(outer) - 28,
        (_, [outer, inner]) => number(inner) + 40 <= number(outer) - 8,
        _ => true,
    }
}

fn tshark(name: &str, file: &std::path::Path, unfinished: Option<&str>, cut: bool) -> Good {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file).args(["-Y", "ip or ipv6", "-T", "fields"]);
    for protocol in ["ip", "tcp", "udp", "udplite", "dccp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let mut good = Good::default();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut fields: Vec<Vec<&str>> = line.split('\t').map(|field| field.split(',').collect()).collect();
        // traceroute, and a kernel that completes a partial checksum (CSUM_MANGLED_0), write 0xffff for a TCP checksum of
        // 0, which is as good, and which tshark calls bad. On its way through a translator it becomes another one.
        if cut || name == "internet" || name.starts_with("lan") {
            let sums = fields[18].clone();
            let unusual = |sum: &&str| *sum == "0xffff";
            fields[7].iter_mut().zip(&sums).filter(|(_, sum)| unusual(sum)).for_each(|(status, _)| *status = GOOD);
        }
        // The packet itself; what an ICMP error quotes stands behind it.
        let [_, len, src, more, offset, fragment6, header, tcp, udp, icmp, icmpv6, to, _, _, from, lite, dccp, _, _, _] =
            std::array::from_fn(|index| fields[index][0]);
        let frame = format!("{name}: frame {line:?} of {FIELDS:?}");
        if unfinished == Some(src) {
            good.superpackets += usize::from(len.parse::<usize>().unwrap() > 2000);
            continue;
        }
        assert!(len.parse::<usize>().unwrap() <= 1514, "{frame}");
        assert!(fields[6].iter().all(|&status| status != BAD), "{frame}");
        if quotes_all(&fields) && unfinished.is_none() {
            assert!(fields[7..11].iter().chain([&fields[16]]).flatten().all(|&status| status != BAD), "{frame}");
        }
        assert_eq!(header, if src.is_empty() { "" } else { GOOD }, "{frame}");
        let fragment = more == "1" || more == "True" || !matches!(offset, "" | "0") || !fragment6.is_empty();
        match [tcp, udp, icmp, icmpv6] {
            [GOOD, "", "", ""] => good.tcp += 1,
            ["", GOOD, "", ""] if lite.is_empty() => good.udp += 1,
            ["", GOOD, "", ""] => good.others += 1,
            ["", "", "", ""] if dccp == GOOD => good.others += 1,
            ["", "", GOOD, _] | ["", "", "", GOOD] => good.icmp += 1,
            [_, _, GOOD, ""] | [_, _, "", GOOD] => good.icmp += 1,
            // RFC 768 allows none, RFC 8200 does not.
            ["", NOT_PRESENT, "", ""]
                if !src.is_empty() && WITHOUT_SUM.1.iter().any(|p| [from, to].contains(&&*p.to_string())) =>
            {
                good.without += 1
            }
            ["", "", "", ""] if fragment => good.fragments += 1,
            _ => panic!("not looked at: {frame}"),
        }
    }
    good
}

/// A little of everything between a home and the server.
fn mix(world: &World, home: Home) {
    let (host, server) = (world.host(home), &world.server);
    let n = u16::from(home.number) * 100;
    std::thread::scope(|scope| {
        scope.spawn(|| tcp_both_ways(host, server, SERVER, 8000 + n, TCP_OCTETS));
        scope.spawn(|| {
            let pair = UdpPair::new(host, server, SERVER, (45_001 + n, 45_502 + n));
            (0..UDP_SIZES).for_each(|size| pair.exchange(size));
            // Learnt by now or not, the kernel sends these in fragments.
            [2000, 4001].into_iter().for_each(|size| pair.exchange(size));
        });
        scope.spawn(|| {
            for size in [0, 1, 55, 56, 1000, 1001, 1232] {
                run(host, "ping", &format!("-n -c 2 -i 0.01 -W 2 -s {size} {SERVER}"));
            }
            if !home.napt {
                run(server, "ping", &format!("-n -c 5 -i 0.01 -W 2 -s 333 {}", home.ipv4));
                run(server, "traceroute", &format!("-n -q 2 -w 3 -m 12 -U {}", home.ipv4));
            }
        });
        for method in ["-U", "-I", "-T -p 4443"] {
            scope.spawn(move || run(host, "traceroute", &format!("-n -q 2 -w 3 -m 12 {method} {SERVER} 333")));
        }
        scope.spawn(|| refused(host, SERVER));
        if !home.napt {
            scope.spawn(|| refused(server, home.ipv4));
        }
    });
    if !home.napt {
        for (from, source, target) in [(host, home.ipv4, SERVER), (server, SERVER, home.ipv4)] {
            let sender = Sender::new(from);
            for data in [&b""[..], b"x", b"an odd number of octets"] {
                let ports = (46_601, 46_602);
                sender.send(&ipv4(source, target, DCCP, 5, 0, &dccp(source, target, ports, data)));
                for coverage in [8, 8 + data.len()] {
                    let packet = udp_lite(source, target, ports, data, coverage);
                    sender.send(&ipv4(source, target, UDP_LITE, 6, 0, &packet));
                }
            }
        }
    }
    // Without a checksum, first from the home, then to the port that the NAPT gave it.
    let ports = (WITHOUT_SUM.0, WITHOUT_SUM.1[usize::from(home.number)]);
    let there = server.run(|| UdpSocket::bind(("0.0.0.0", ports.1)).unwrap());
    there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 2048];
    for size in [0, 1, 2, 3, 400, 1001] {
        let datagram = udp(home.host, SERVER, ports, &vec![size as u8; size], false);
        Sender::new(host).send(&ipv4(home.host, SERVER, UDP, 1, 0, &datagram));
        let (len, seen) = again(|| there.recv_from(&mut buffer)).expect("a datagram without checksum");
        assert_eq!(len, size);
        let target = home.ipv4;
        let answer = udp(SERVER, target, (ports.1, seen.port()), &vec![!size as u8; size], false);
        let here = (size == 0).then(|| host.run(|| UdpSocket::bind((home.host, ports.0)).unwrap()));
        Sender::new(server).send(&ipv4(SERVER, target, UDP, 2, 0, &answer));
        if let Some(here) = here {
            here.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(again(|| here.recv(&mut buffer)).expect("an answer without checksum"), 0);
        }
    }
}

const TCP_OCTETS: usize = 400_000;
const UDP_SIZES: usize = 120;

/// A port where nobody listens: the kernel must find the socket by what the error quotes.
fn refused(from: &Namespace, to: &str) {
    let socket = from.run(|| UdpSocket::bind("0.0.0.0:46301").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect((to, 46_302)).unwrap();
    for size in [0, 1, 700, 1200] {
        socket.send(&vec![7; size]).unwrap();
        let error = again(|| socket.recv(&mut [0; 64])).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}: {error}");
    }
}

/// Every packet as its sender made it, complete; a narrow link in the middle makes errors of its own.
#[test]
fn no_checksum_of_a_mix_is_wrong_on_any_link() {
    if !ready(&PROGRAMS) {
        return;
    }
    let homes = [SHARED, NAPT, OWN];
    let world = World::mapt("checksums", &homes, 1280);
    offloads(&world, false);
    let links = capture(&world, false);
    let world = &world;
    std::thread::scope(|scope| homes.iter().for_each(|&home| drop(scope.spawn(move || mix(world, home)))));
    homes.iter().for_each(|&home| send_last(world, home));
    for (name, good) in look(links) {
        println!("{name}: {good:?}");
        let mixes = if name.ends_with(['1', '2', '3']) { 1 } else { homes.len() };
        // Both ways in segments of no more than 1460 octets; both ways a datagram of each size; two pings of seven
        // sizes and their answers, and what three traceroutes cause.
        assert!(good.tcp >= mixes * 2 * TCP_OCTETS / 1460, "{name}: {good:?}");
        assert!(good.udp >= mixes * 2 * UDP_SIZES, "{name}: {good:?}");
        assert!(good.icmp >= mixes * (2 * 2 * 7 + 6), "{name}: {good:?}");
        // Both ways two datagrams, of two fragments or more and of three or more, less the last ones.
        assert!(good.fragments >= mixes * 2 * 3, "{name}: {good:?}");
        // Nine each way.
        let own = if name.ends_with(['1', '2']) { 0 } else { 1 };
        assert_eq!(good.others, own * 2 * 9, "{name}: {good:?}");
        // Six from each home; what goes home has been given one at the BR.
        let without = if name.starts_with("lan") {
            6
        } else if name == "internet" {
            6 * homes.len()
        } else {
            0
        };
        assert_eq!((good.without, good.superpackets), (without, 0), "{name}: {good:?}");
    }
    world.nothing_refused();
}

/// Many datagrams in one call, that the sender's device is to cut (UDP_SEGMENT).
fn burst(from: &UdpSocket, to: &str, at: &UdpSocket, segment: usize) {
    let data: Vec<u8> = (0..BURST * segment + 333).map(|at| (at / 250 + at) as u8).collect();
    // The option belongs to the socket, and others are to be sent from it.
    setsockopt(from, sockopt::UdpGsoSegment, &(segment as i32)).unwrap();
    let sent = if to.is_empty() { from.send(&data) } else { from.send_to(&data, to) };
    assert_eq!(sent.unwrap(), data.len());
    setsockopt(from, sockopt::UdpGsoSegment, &0).unwrap();
    // A short last one, which is no fragment, may overtake the fragments before it on another queue of the BR.
    let mut expected: Vec<&[u8]> = data.chunks(segment).collect();
    let mut buffer = [0; 2048];
    while !expected.is_empty() {
        let n = again(|| at.recv(&mut buffer))
            .unwrap_or_else(|e| panic!("{} of {} of {segment} octets: {e}", expected.len(), BURST + 1));
        let found = expected.iter().position(|part| buffer[..n] == **part);
        expected.remove(found.unwrap_or_else(|| panic!("{n} octets that are none of the segments of {segment}")));
    }
}

const BURST: usize = 30;

/// Hosts leave segmentation and checksums to their devices, and routers join what comes in: the translators get
/// superpackets with partial checksums from either side, and what leaves them is complete.
#[test]
fn no_checksum_of_a_superpacket_is_wrong_after_it_was_cut() {
    if !ready(&PROGRAMS) {
        return;
    }
    let homes = [SHARED, OWN];
    let world = World::mapt("checksums-gso", &homes, 1500);
    offloads(&world, true);
    let links = capture(&world, true);
    std::thread::scope(|scope| {
        for home in homes {
            let world = &world;
            scope.spawn(move || {
                let (host, server) = (world.host(home), &world.server);
                tcp_both_ways(host, server, SERVER, 8000 + u16::from(home.number), 4 * TCP_OCTETS);
                let pair = UdpPair::new(host, server, SERVER, (46_401, 46_402 + u16::from(home.number)));
                (0..UDP_SIZES).for_each(|size| pair.exchange(size));
                // DF on, then off: then segments of more than 1280 octets of IPv6 are fragmented one by one.
                for no_pmtu_discovery in ["0", "1"] {
                    for node in [host, server] {
                        node.sysctl("ipv4/ip_no_pmtu_disc", no_pmtu_discovery);
                    }
                    for segment in [1000, 1400] {
                        burst(&pair.client, "", &pair.server, segment);
                        burst(&pair.server, &pair.client_seen.to_string(), &pair.client, segment);
                    }
                }
            });
        }
    });
    homes.iter().for_each(|&home| send_last(&world, home));
    let looked = look(links);
    for (name, good) in &looked {
        println!("{name}: {good:?}");
        let mixes = if name.ends_with(['1', '3']) { 1 } else { homes.len() };
        let lan = name == "internet" || name.starts_with("lan");
        let ways = if lan { 1 } else { 2 };
        assert!(good.tcp >= mixes * ways * 4 * TCP_OCTETS / 1460, "{name}: {good:?}");
        assert!(good.udp >= mixes * ways * (UDP_SIZES + 4 * BURST), "{name}: {good:?}");
        assert_eq!(good.superpackets > 0, lan, "{name}: {good:?}");
    }
    // The kernel joins what comes in on a CE's device: fewer packets enter the CE than leave its LAN.
    for site in &world.sites {
        let name = format!("lan{}", site.home.number);
        let (_, out) = looked.iter().find(|(link, _)| *link == name).unwrap();
        let received = site.daemon.as_ref().unwrap().counters().get("received")[1] as usize;
        assert!(received < out.tcp + out.udp + out.fragments, "{name}: {received} {out:?}");
    }
    // The server's device leaves its superpackets whole.
    let segments = (4 * TCP_OCTETS / 1460) as u64;
    assert!(world.br_daemon.as_ref().unwrap().counters().get("received")[0] < segments * homes.len() as u64);
    world.nothing_refused();
}
