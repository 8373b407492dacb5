//! The TUN device and the run loop, against the kernel.
mod io_support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use io_support::{MIRRORED_V4, Mirror, Namespace, Seen, plan, privileged, wait_for};
use mapt::engine::{Engine, TransmitKind};
use mapt::io::netlink::Netlink;
use mapt::io::run::{self, RunError, Running};
use mapt::io::setup;
use mapt::io::tun::{Device, Persistent, TunError};
use mapt::stats::Counters;
use mapt::verdict::Verdict;
use mapt::wire::PacketBuf;

#[test]
fn a_device_comes_with_its_offloads_and_goes_with_its_last_queue() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new();
    let device = namespace.run(|| Device::create("mapt-t", 3)).unwrap();
    assert_eq!(device.queues.len(), 3);
    assert!(!device.persistent);
    // Linux 2.6.27 and 6.2; the kernels that tests run on are later.
    assert!(device.offloads.tso() && device.offloads.uso(), "{}", device.offloads);
    let shown = namespace.ip("-d link show dev mapt-t");
    for word in ["tun type tun", "pi off", "vnet_hdr on", "multi_queue", "numqueues 3", "persist off"] {
        assert!(shown.contains(word), "{word} is missing in {shown}");
    }
    drop(device);
    // A child that another test is just starting holds our descriptors until it executes its program.
    wait_for("the device to go", || !namespace.has_link("mapt-t"));

    let device = namespace.run(|| Device::create("mapt-t", 1)).unwrap();
    assert!(!namespace.ip("-d link show dev mapt-t").contains("multi_queue"));
    drop(device);
}

#[test]
fn a_second_opener_never_becomes_one_more_queue() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new();
    let _device = namespace.run(|| Device::create("mapt-t", 2)).unwrap();
    let error = namespace.run(|| Device::create("mapt-t", 2)).unwrap_err();
    assert!(matches!(error, TunError::Exists(_)), "{error}");
    assert!(namespace.ip("-d link show dev mapt-t").contains("numqueues 2"));
}

#[test]
fn names_that_no_interface_can_have_are_refused() {
    for name in ["", ".", "..", "a/b", "sixteen-octets-0", "a b", "tun%d", "a:1", "süß"] {
        let error = Device::create(name, 1).unwrap_err();
        assert!(matches!(error, TunError::Name(_)), "{name}: {error}");
    }
}

#[test]
fn a_persistent_device_is_taken_when_it_is_free() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new();
    for (options, multi_queue, queues) in [("multi_queue vnet_hdr", true, 2), ("vnet_hdr", false, 1), ("", false, 1)] {
        namespace.ip(&format!("tuntap add dev mapt-t mode tun {options}"));
        let link = namespace.block_on(async || Netlink::connect().unwrap().link("mapt-t").await.unwrap().unwrap());
        assert_eq!(link.free_tun, Some(Persistent { multi_queue }), "{options}");
        let device = namespace.run(|| Device::adopt("mapt-t", 2, link.free_tun.unwrap())).unwrap();
        assert_eq!(device.queues.len(), queues);
        let link = namespace.block_on(async || Netlink::connect().unwrap().link("mapt-t").await.unwrap().unwrap());
        // A single-queue device does not tell whether somebody holds it; the kernel refuses a second holder then.
        assert_eq!(link.free_tun.is_some(), !multi_queue);
        if !multi_queue {
            let error = namespace.run(|| Device::adopt("mapt-t", 1, link.free_tun.unwrap())).unwrap_err();
            assert!(matches!(error, TunError::Busy(_)), "{error}");
        }
        drop(device);
        assert!(namespace.has_link("mapt-t"));
        namespace.ip("link delete mapt-t");
    }
    namespace.ip("tuntap add dev mapt-t mode tap");
    let link = namespace.block_on(async || Netlink::connect().unwrap().link("mapt-t").await.unwrap().unwrap());
    assert_eq!((link.kind.as_str(), link.free_tun), ("tap", None));
}

/// A host behind a veth, and a router whose TUN mirrors what is sent to 198.51.100.2 and 2001:db8:b::2.
struct MirrorNet {
    host: Namespace,
    _router: Namespace,
    running: Running<Mirror>,
    seen: Vec<Arc<Seen>>,
}

impl MirrorNet {
    fn new() -> MirrorNet {
        let (host, router) = (Namespace::new(), Namespace::router());
        host.connect("wan", &router, "lan");
        host.ip("address add 10.9.0.2/24 dev wan");
        host.ip("address add 2001:db8:9::2/64 dev wan nodad");
        router.ip("address add 10.9.0.1/24 dev lan");
        router.ip("address add 2001:db8:9::1/64 dev lan nodad");
        host.ip("route add default via 10.9.0.1");
        host.ip("route add default via 2001:db8:9::1");
        let mut plan = plan("mapt-t", &["198.51.100.0/24", "2001:db8:b::/64"]);
        plan.queues = 1;
        let (device, _) = router.block_on(async || setup::install(&plan).await.unwrap());
        let mirror = Mirror::default();
        let seen = vec![mirror.seen.clone()];
        let running = run::start(device, vec![mirror]).unwrap();
        MirrorNet { host, _router: router, running, seen }
    }

    fn sum(&self, counter: impl Fn(&Seen) -> &AtomicU64) -> u64 {
        self.seen.iter().map(|seen| counter(seen).load(Ordering::Relaxed)).sum()
    }

    /// Sends `data` through TCP to itself, and checks that it arrives as it was.
    fn tcp(&self, to: IpAddr, data: &[u8]) {
        let local: SocketAddr = if to.is_ipv4() { "0.0.0.0:4001" } else { "[::]:4001" }.parse().unwrap();
        let (listener, mut client) = self.host.run(|| {
            let listener = TcpListener::bind(local).unwrap();
            (listener, TcpStream::connect_timeout(&SocketAddr::new(to, 4001), Duration::from_secs(10)).unwrap())
        });
        std::thread::scope(|scope| {
            scope.spawn(move || client.write_all(data).unwrap());
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            assert!(received == data, "{} octets sent, {} received", data.len(), received.len());
        });
    }
}

#[test]
fn tcp_comes_in_segments_of_many_packets_with_a_true_header() {
    if !privileged() {
        return;
    }
    let mut net = MirrorNet::new();
    let data: Vec<u8> = (0..8_000_000u32).map(|i| (i / 251 + i) as u8).collect();
    net.tcp(MIRRORED_V4, &data);
    assert!(net.sum(|s| &s.tcpv4_gso) > 0 && net.sum(|s| &s.tcpv6_gso) == 0);
    net.tcp("2001:db8:b::2".parse().unwrap(), &data);
    assert!(net.sum(|s| &s.tcpv6_gso) > 0);
    assert!(net.sum(|s| &s.longest) > 10_000, "{:?}", net.seen);
    // The mtu metric of the IPv4 route holds for what is inside a superpacket; IPv6 has the veth's 1500.
    assert!(net.sum(|s| &s.longest_segment) <= 1500);
    assert_eq!(net.sum(|s| &s.contradictions), 0);
    net.running.stop().result.unwrap();
    let (counters, io) = net.running.meters().sum();
    assert_eq!(io.reads, counters.directions.iter().map(|d| d.received.packets).sum::<u64>());
    assert_eq!(io.reads, net.sum(|s| &s.packets));
    assert_eq!((io.writes, io.write_errors_total()), (io.reads, 0));
    // 16 MB there and the acknowledgements back, in far fewer calls than there were packets on the wire.
    assert!(io.reads < 6_000, "{io:?}");
}

#[test]
fn the_host_has_nothing_to_say_on_the_device() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let _kept = namespace.block_on(async || setup::install(&plan("mapt-t", &["2001:db8:b::/64"])).await.unwrap());
    // No address: no Router Solicitation, no Redirect. Nothing joined but the all-nodes groups, which are never
    // reported: no MLD, no IGMP.
    let addresses = namespace.ip("address show dev mapt-t");
    assert!(!addresses.contains("inet"), "{addresses}");
    let groups = namespace.ip("maddress show dev mapt-t");
    let groups: Vec<&str> = groups.lines().filter_map(|line| line.trim().strip_prefix("inet")).collect();
    assert_eq!(groups, ["  224.0.0.1", "6 ff02::1", "6 ff01::1"]);
}

#[test]
fn a_removed_device_ends_its_threads_and_says_so() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let (device, _installed) = namespace.block_on(async || setup::install(&plan("mapt-t", &[])).await.unwrap());
    let engines = device.queues.iter().map(|_| Mirror::default()).collect();
    let mut running = run::start(device, engines).unwrap();
    namespace.ip("link delete mapt-t");
    namespace.block_on(async || {
        tokio::time::timeout(Duration::from_secs(10), running.ended()).await.unwrap();
        let error = running.stop().result.unwrap_err();
        assert_eq!(error, RunError::Gone("mapt-t".into()));
        assert_eq!(error.to_string(), "TUN device `mapt-t` was removed while it was in use");
    });
}

/// Sends packets of its own at given times: one that is none, then a broken offload request.
struct Clockwork {
    due: Vec<(Duration, PacketBuf)>,
    ready: Option<PacketBuf>,
    late: Arc<AtomicU64>,
}

impl Engine for Clockwork {
    fn handle(&mut self, _packet: &mut PacketBuf, _now: Duration) -> Verdict {
        Verdict::Held
    }

    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        let (_, packet) = self.due.pop_if(|(at, _)| *at == Duration::ZERO)?;
        Some((TransmitKind::Packet, self.ready.insert(packet)))
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.due.last().map(|(at, _)| *at)
    }

    fn handle_timeout(&mut self, now: Duration) {
        if let Some((at, _)) = self.due.last_mut() {
            self.late.fetch_max(now.saturating_sub(*at).as_millis() as u64, Ordering::Relaxed);
            assert!(now >= *at, "too early");
            *at = Duration::ZERO;
        }
    }

    fn counters(&self) -> Arc<Counters> {
        Arc::default()
    }

    fn last_rule(&self) -> Option<&str> {
        None
    }
}

#[test]
fn timers_fire_without_traffic_and_refused_packets_are_counted() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let (device, _installed) = namespace.block_on(async || {
        let mut plan = plan("mapt-t", &[]);
        plan.queues = 1;
        setup::install(&plan).await.unwrap()
    });
    let mut good = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let due = vec![
        (run::BEGIN + Duration::from_millis(40), PacketBuf::from_slice(&good)),
        (run::BEGIN + Duration::from_millis(20), {
            good[0] = 0x15;
            PacketBuf::from_slice(&good)
        }),
    ];
    let late = Arc::new(AtomicU64::new(0));
    let engine = Clockwork { due, ready: None, late: late.clone() };
    let mut running = run::start(device, vec![engine]).unwrap();
    wait_for("both packets", || {
        let (_, io) = running.meters().sum();
        io.writes + io.write_errors_total() == 2
    });
    let (_, io) = running.meters().sum();
    let errors: Vec<_> = io.write_errors().collect();
    assert_eq!((io.writes, errors.len()), (1, 1), "{io:?}");
    assert!(errors[0].0.starts_with("EINVAL") && errors[0].1 == 1);
    assert!(late.load(Ordering::Relaxed) < 1000);
    running.stop().result.unwrap();
}

#[test]
fn jobs_reach_an_idle_engine_and_end_with_it() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let (device, _installed) = namespace.block_on(async || setup::install(&plan("mapt-t", &[])).await.unwrap());
    let engines = device.queues.iter().map(|_| Mirror::default()).collect();
    let mut running = run::start(device, engines).unwrap();
    let jobs = running.jobs();
    namespace.block_on(async || {
        for (queue, jobs) in jobs.iter().enumerate() {
            let (name, now) = jobs
                .call(|_: &mut Mirror, now| (std::thread::current().name().map(str::to_owned), now))
                .await
                .expect("the thread lives");
            assert_eq!(name, Some(format!("queue-{queue}")));
            assert!(now >= run::BEGIN && now < run::BEGIN + Duration::from_secs(60), "{now:?}");
        }
    });
    let stopped = running.stop();
    assert_eq!((stopped.engines.len(), stopped.result), (jobs.len(), Ok(())));
    namespace.block_on(async || assert_eq!(jobs[0].call(|_, _| ()).await, None, "nobody is left to do it"));
}
