//! Namespaces without names for the tests of `io`: the kernel takes them down with the last file descriptor or
//! process in them, whatever becomes of the test.
#![allow(dead_code)]

pub mod daemon;

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mapt::engine::{Engine, TransmitKind};
use mapt::io::netlink::Route;
use mapt::io::plan::{Plan, Program};
use mapt::stats::Counters;
use mapt::verdict::{Direction, DropReason, Verdict};
use mapt::wire::{PacketBuf, VnetHdr};
use nix::sched::{CloneFlags, setns, unshare};

/// Whether namespaces can be made here; says so loudly where not.
pub fn privileged() -> bool {
    let can = nix::unistd::geteuid().is_root()
        && std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().unwrap().is_ok();
    if !can {
        loudly("network namespaces need root");
    }
    can
}

/// Says that a test is skipped. `eprintln!` would be kept back with the output of a test that passes.
pub fn loudly(why: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {why} ***\n");
}

/// A network namespace with `lo` up.
pub struct Namespace(File);

impl Namespace {
    pub fn new() -> Namespace {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let namespace = Namespace(std::thread::spawn(open).join().unwrap());
        namespace.ip("link set lo up");
        namespace.wait_for_local("::1");
        namespace
    }

    /// With forwarding, no redirects, and an IPv6 address.
    pub fn router() -> Namespace {
        let namespace = Namespace::new();
        namespace.ip("address add 2001:db8:a::1/128 dev lo nodad");
        namespace.wait_for_local("2001:db8:a::1");
        for (name, value) in
            [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv4/conf/all/send_redirects", "0")]
        {
            namespace.sysctl(name, value);
        }
        namespace
    }

    /// The kernel makes the route to an IPv6 address of its own in its own time.
    pub fn wait_for_local(&self, address: &str) {
        let route = format!("local {address} dev ");
        wait_for(&route, || self.ip("-6 route show table local").contains(&route));
    }

    /// Runs `f` inside: what it opens and the processes that it starts belong there.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let inside = || {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                f()
            };
            match scope.spawn(inside).join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    pub fn output(&self, program: &str, arguments: &str) -> Output {
        self.run(|| Command::new(program).args(arguments.split_whitespace()).output().unwrap())
    }

    /// Runs `ip` and returns what it printed.
    pub fn ip(&self, arguments: &str) -> String {
        let output = self.output("ip", arguments);
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn sysctl(&self, name: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap());
    }

    pub fn get_sysctl(&self, name: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned())
    }

    pub fn has_link(&self, name: &str) -> bool {
        self.output("ip", &format!("link show dev {name}")).status.success()
    }

    /// A veth pair between two namespaces, both ends up.
    pub fn connect(&self, name: &str, other: &Namespace, other_name: &str) {
        let fd = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {fd}"));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }

    /// Runs a future on a runtime of its own, inside.
    pub fn block_on<R: Send>(&self, f: impl AsyncFnOnce() -> R + Send) -> R {
        self.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f()))
    }
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn route(destination: &str) -> Route {
    let destination: ipnet::IpNet = destination.parse().unwrap();
    let mtu = destination.addr().is_ipv4().then_some(1480);
    Route { destination, table: 254, metric: 1024, protocol: 182, mtu, source: None }
}

pub fn plan(tun: &str, routes: &[&str]) -> Plan {
    Plan {
        program: Program::Br,
        instance: tun.to_owned(),
        tun: tun.to_owned(),
        queues: 2,
        mtu: 1520,
        address: None,
        routes: routes.iter().map(|r| route(r)).collect(),
        install: true,
        protocol: 182,
        table: 254,
        metric: 1024,
        sysctl: mapt::config::Sysctl::Check,
        state_directory: None,
        pcp: Vec::new(),
        restore_within: Duration::ZERO,
        provisioned: true,
        br: None,
    }
}

/// What a `Mirror` saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub packets: AtomicU64,
    pub tcpv4_gso: AtomicU64,
    pub tcpv6_gso: AtomicU64,
    pub udp_gso: AtomicU64,
    pub longest: AtomicU64,
    pub longest_segment: AtomicU64,
    /// Superpackets whose virtio header contradicts the packet.
    pub contradictions: AtomicU64,
}

/// Sends every IP packet back with source and destination swapped. That changes no checksum, partial or complete,
/// so a host can talk to itself through it.
#[derive(Default)]
pub struct Mirror {
    pub seen: Arc<Seen>,
    counters: Arc<Counters>,
}

impl Mirror {
    fn look(&self, packet: &PacketBuf) {
        let seen = &self.seen;
        seen.packets.fetch_add(1, Ordering::Relaxed);
        seen.longest.fetch_max(packet.len() as u64, Ordering::Relaxed);
        let Some(offload) = packet.offload() else { return };
        if !offload.is_gso() {
            return;
        }
        let ipv6 = packet.bytes()[0] >> 4 == 6;
        let (l4, protocol) = if ipv6 { (40, packet.bytes()[6]) } else { (20, packet.bytes()[9]) };
        let expected = match (offload.gso_type & !VnetHdr::GSO_ECN, ipv6) {
            (VnetHdr::GSO_TCPV4, false) => {
                seen.tcpv4_gso.fetch_add(1, Ordering::Relaxed);
                protocol == 6
            }
            (VnetHdr::GSO_TCPV6, true) => {
                seen.tcpv6_gso.fetch_add(1, Ordering::Relaxed);
                protocol == 6
            }
            (VnetHdr::GSO_UDP_L4, _) => {
                seen.udp_gso.fetch_add(1, Ordering::Relaxed);
                protocol == 17
            }
            _ => false,
        };
        let headers = l4 + if protocol == 6 { usize::from(packet.bytes()[l4 + 12] >> 4) * 4 } else { 8 };
        let segment = headers + usize::from(offload.gso_size);
        seen.longest_segment.fetch_max(segment as u64, Ordering::Relaxed);
        if !expected || !offload.needs_csum() || usize::from(offload.csum_start) != l4 {
            seen.contradictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Engine for Mirror {
    fn handle(&mut self, packet: &mut PacketBuf, _now: Duration) -> Verdict {
        self.look(packet);
        let len = packet.len();
        let bytes = packet.bytes_mut();
        let (direction, at, addr) = match bytes.first().map(|b| b >> 4) {
            Some(4) if len >= 20 => (Direction::V4ToV6, 12, 4),
            Some(6) if len >= 40 => (Direction::V6ToV4, 8, 16),
            _ => {
                self.counters.received(Direction::V4ToV6, len);
                self.counters.dropped(Direction::V4ToV6, DropReason::NotIp, len);
                return Verdict::Drop { reason: DropReason::NotIp, reply: false };
            }
        };
        let (source, destination) = bytes[at..at + 2 * addr].split_at_mut(addr);
        source.swap_with_slice(destination);
        self.counters.received(direction, len);
        self.counters.forwarded(direction, len);
        Verdict::Forward
    }

    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        None
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    fn last_rule(&self) -> Option<&str> {
        None
    }
}

pub const MIRRORED_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
