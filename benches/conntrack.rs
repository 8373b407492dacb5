//! What the kernel's conntrack and NAT44 cost, to be read beside `cargo bench --bench napt`: `cargo bench --bench
//! conntrack`, as root, with nftables. Nanoseconds that a UDP packet takes through a router in a namespace with
//! masquerade more than without: the sender's own thread carries it all the way to the blackhole behind the router.

use std::fs::File;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Instant;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg, socket,
};

/// Packets for one system call.
const BATCH: usize = 64;
/// Timed packets of a run.
const PACKETS: usize = 20_000;
/// With and without NAT in turn; the least counts, since what else the machine does only adds.
const RUNS: usize = 60;

fn main() {
    // `cargo test` runs benches too, and asks for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let nft = Command::new("nft").arg("--version").output();
    if !nix::unistd::geteuid().is_root() || nft.is_err() {
        println!("conntrack: needs root and nftables");
        return;
    }
    let plain = Router::new("");
    let nat = |_| Router::new("table ip n { chain p { type nat hook postrouting priority srcnat; masquerade; }; }");
    // Loads conntrack, where it is a module.
    nat(());
    let max = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    let max: usize = max.trim().parse().unwrap();
    println!("nf_conntrack_max {max}");
    for count in [1_000, 100_000, 200_000].into_iter().filter(|count| *count < max) {
        let router = nat(());
        let before = slab();
        router.send(count, |n| n);
        let after = slab();
        let (mut with, mut without) = (f64::INFINITY, f64::INFINITY);
        for run in 0..RUNS {
            let flow = |n: usize| shuffle(run * PACKETS + n) % count;
            with = with.min(router.timed(PACKETS, flow));
            without = without.min(plain.timed(PACKETS, flow));
        }
        println!(
            "{count:>8} flows, random: {with:.0} ns a packet, {without:.0} without NAT: {:.0}; {:.0} octets of slab a flow, nf_conntrack alone {} each",
            with - without,
            (after.0 - before.0) as f64 / count as f64,
            after.1
        );
    }
    // Each packet is a new flow.
    let router = nat(());
    let (mut with, mut without) = (f64::INFINITY, f64::INFINITY);
    for run in 0..(max / 2 / PACKETS).min(10) {
        with = with.min(router.timed(PACKETS, |n| run * PACKETS + n));
        without = without.min(plain.timed(PACKETS, |n| run * PACKETS + n));
    }
    println!("a new flow with each packet: {with:.0} ns, {without:.0} without NAT: {:.0}", with - without);
}

/// A sender and a router in namespaces of their own.
struct Router {
    socket: OwnedFd,
    _namespaces: [File; 2],
}

impl Router {
    fn new(ruleset: &str) -> Router {
        let [sender, router] = [namespace(), namespace()];
        inside(&sender, || {
            let name = format!("/proc/{}/fd/{}", std::process::id(), router.as_raw_fd());
            ip(&format!("link add e0 type veth peer name e0 netns {name}"));
            for line in ["link set lo up", "link set e0 up", "addr add 10.0.0.2/24 dev e0"] {
                ip(line);
            }
        });
        inside(&router, || {
            // Nobody there has this link-layer address, so a packet ends.
            for line in [
                "link set lo up",
                "link set e0 up",
                "addr add 10.0.0.1/24 dev e0",
                "link add out type veth peer name end",
                "link set end up",
                "link set out up",
                "addr add 203.0.113.1/24 dev out",
                "route add default via 203.0.113.2",
                "neigh add 203.0.113.2 lladdr 02:00:00:00:00:02 dev out",
            ] {
                ip(line);
            }
            for (name, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/e0/rp_filter", "0")] {
                std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
            }
            if !ruleset.is_empty() {
                assert!(Command::new("nft").arg(ruleset).status().unwrap().success());
            }
        });
        let socket = inside(&sender, || {
            ip("route add default via 10.0.0.1");
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap()
        });
        Router { socket, _namespaces: [sender, router] }
    }

    /// Sends packets of the flows `flow(0)`, `flow(1)`, ...
    fn send(&self, count: usize, flow: impl Fn(usize) -> usize) {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut packets = [[0u8; 92]; BATCH];
        let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 0));
        let mut n = 0;
        while n < count {
            let some = BATCH.min(count - n);
            for (i, packet) in packets[..some].iter_mut().enumerate() {
                *packet = datagram(flow(n + i));
            }
            let slices: Vec<_> = packets[..some].iter().map(|packet| [IoSlice::new(packet)]).collect();
            let sent =
                sendmmsg(self.socket.as_raw_fd(), &mut headers, &slices, vec![Some(to); some], [], MsgFlags::empty());
            assert_eq!(sent.unwrap().count(), some);
            n += some;
        }
    }

    /// Nanoseconds a packet.
    fn timed(&self, count: usize, flow: impl Fn(usize) -> usize) -> f64 {
        let start = Instant::now();
        self.send(count, flow);
        start.elapsed().as_nanos() as f64 / count as f64
    }
}

/// 64 octets of UDP of one of many hosts; one of a hundred servers.
fn datagram(flow: usize) -> [u8; 92] {
    let mut packet = [0; 92];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 92, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet[12..16].copy_from_slice(&[10, 0, 1, (flow / 4096) as u8]);
    packet[16..20].copy_from_slice(&[198, 18, 0, 1 + (flow % 100) as u8]);
    packet[20..22].copy_from_slice(&(20_000 + (flow % 4096) as u16).to_be_bytes());
    packet[22..28].copy_from_slice(&[1, 187, 0, 72, 0, 0]);
    packet
}

/// Scatters 0, 1, 2, ... (splitmix64).
fn shuffle(n: usize) -> usize {
    let mut z = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as usize
}

/// Octets of all slabs, and of one `nf_conntrack`.
fn slab() -> (i64, String) {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo.lines().find(|line| line.starts_with("Slab:")).unwrap();
    let slabs = std::fs::read_to_string("/proc/slabinfo").unwrap();
    let own = slabs.lines().find(|line| line.starts_with("nf_conntrack ")).unwrap();
    (
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024,
        own.split_whitespace().nth(3).unwrap().to_owned(),
    )
}

fn namespace() -> File {
    let open = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(open).join().unwrap()
}

fn inside<R: Send>(namespace: &File, work: impl FnOnce() -> R + Send) -> R {
    let enter = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split_whitespace()).status().unwrap().success(), "{arguments}");
}
