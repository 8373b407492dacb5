//! What a packet costs in the NAPT: `cargo bench --bench napt`.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{Filter, Filtering, Inside, Napt, NaptParams, Outside, Protocol, Remote, Segment, TcpFlags, Timers};
use mapt::ops::saved::{self, Moment, Owner};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const START: Duration = Duration::from_secs(1);
const ACK: Segment =
    Segment { flags: TcpFlags { syn: false, ack: true, fin: false, rst: false }, seq: 9000, ack: 5000, len: 1400 };
const SYN: Segment =
    Segment { flags: TcpFlags { syn: true, ack: false, fin: false, rst: false }, seq: 9000, ack: 0, len: 0 };
const REFUSAL: Segment =
    Segment { flags: TcpFlags { syn: false, ack: true, fin: false, rst: true }, seq: 0, ack: 9001, len: 0 };
const SERVER: Remote = Remote { addr: Ipv4Addr::new(10, 2, 3, 4), port: 443 };

fn inside(n: usize) -> Inside {
    Inside { addr: Ipv4Addr::from(0xc0a8_0100 + (n / 4096) as u32), port: 20_000 + (n % 4096) as u16 }
}

/// One of a hundred servers.
fn server(n: usize) -> Remote {
    Remote { addr: Ipv4Addr::from(0x0a00_0001 + (n % 100) as u32), port: 443 }
}

fn set_252() -> PortSet {
    PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap()
}

fn set_4032() -> PortSet {
    PortParams::new(6, 4).unwrap().port_set(Psid(3)).unwrap()
}

/// Octets of memory that this process has touched.
fn rss() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
}

/// A NAPT with `count` established TCP flows, its endpoints in random order.
fn filled(count: usize, ports: PortSet) -> (Napt<Inside>, Vec<(Inside, Outside, Remote)>) {
    // The default, or as many as fit.
    let max_flows = count.next_power_of_two().max(131_072) as u32;
    let params = NaptParams { max_flows, ..NaptParams::default() };
    let mut napt = Napt::new(ADDR, ports, &params, 99);
    let mut flows = Vec::new();
    for n in 0..count {
        let remote = server(n);
        let proposal = napt.propose_outbound(Protocol::Tcp, inside(n), remote, START).unwrap();
        napt.commit_outbound(proposal, Some(&ACK), START);
        let back = napt.propose_inbound(Protocol::Tcp, proposal.outside, remote, START).unwrap();
        napt.commit_inbound(back, Some(&ACK), START);
        flows.push((proposal.inside, proposal.outside, remote));
    }
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for i in (1..flows.len()).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        flows.swap(i, (x % (i as u64 + 1)) as usize);
    }
    (napt, flows)
}

/// Propose and commit of a packet on an existing flow, at a million packets a second.
fn existing(c: &mut Criterion) {
    let mut group = c.benchmark_group("napt/existing");
    group.throughput(Throughput::Elements(1));
    let cases = [
        ("1000", 1_000, PortSet::ALL),
        ("100000", 100_000, PortSet::ALL),
        ("1000000", 1_000_000, PortSet::ALL),
        ("10000-on-252-ports", 10_000, set_252()),
    ];
    for (name, count, ports) in cases {
        let before = rss();
        let (mut napt, flows) = filled(count, ports);
        let own = (rss() - before) as f64 - std::mem::size_of_val(&flows[..]) as f64;
        println!("napt/memory/{name}: {:.0} octets a flow", own / count as f64);
        let mut now = START;
        let mut at = 0;
        group.bench_function(format!("outbound/{name}"), |b| {
            b.iter(|| {
                at = if at + 1 == flows.len() { 0 } else { at + 1 };
                now += Duration::from_micros(1);
                let (inside, _, remote) = flows[black_box(at)];
                let proposal = napt.propose_outbound(Protocol::Tcp, inside, remote, now).unwrap();
                napt.commit_outbound(proposal, Some(&ACK), now);
                black_box(proposal.outside.port)
            })
        });
        group.bench_function(format!("inbound/{name}"), |b| {
            b.iter(|| {
                at = if at + 1 == flows.len() { 0 } else { at + 1 };
                now += Duration::from_micros(1);
                let (_, outside, remote) = flows[black_box(at)];
                let proposal = napt.propose_inbound(Protocol::Tcp, outside, remote, now).unwrap();
                napt.commit_inbound(proposal, Some(&ACK), now);
                black_box(proposal.inside.port)
            })
        });
    }
    group.finish();
}

/// A life: a new flow and the expiry of an old one, with `count` alive.
fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("napt/new-and-expire");
    group.throughput(Throughput::Elements(1));
    let cases = [("252-port-set", set_252(), 200u32), ("whole-address", PortSet::ALL, 60_000)];
    for (name, ports, count) in cases {
        // One new flow a tick of a quarter of a second, each living `count` ticks.
        let timers = Timers { udp: Duration::from_millis(250) * count, ..Timers::default() };
        let mut napt = Napt::new(ADDR, ports, &NaptParams { timers, ..NaptParams::default() }, 99);
        let mut now = START;
        let mut n = 0;
        let mut step = |napt: &mut Napt<Inside>| {
            n = (n + 1) % 1_000_000;
            now += Duration::from_millis(250);
            napt.handle_timeout(now);
            let proposal = napt.propose_outbound(Protocol::Udp, inside(n), SERVER, now).unwrap();
            napt.commit_outbound(proposal, None, now);
        };
        (0..2 * count).for_each(|_| step(&mut napt));
        assert_eq!(napt.flows(Protocol::Udp), count as usize);
        group.bench_function(name, |b| b.iter(|| step(&mut napt)));
    }
    group.finish();
}

/// A new TCP flow where none fits: in place of one that a minute of silence has made the oldest unanswered, and in place
/// of a closed one, with its refusal.
fn scarce(c: &mut Criterion) {
    let mut group = c.benchmark_group("napt/new-when-scarce");
    group.throughput(Throughput::Elements(1));
    let mut napt = Napt::new(ADDR, set_252(), &NaptParams::default(), 99);
    let (mut now, mut n) = (START, 0);
    let mut step = |napt: &mut Napt<Inside>| {
        n = (n + 1) % 1_000_000;
        now += Duration::from_secs(60) / 252;
        let proposal = napt.propose_outbound(Protocol::Tcp, inside(n), SERVER, now).unwrap();
        napt.commit_outbound(proposal, Some(&SYN), now);
    };
    (0..1000).for_each(|_| step(&mut napt));
    assert_eq!(napt.flows(Protocol::Tcp), 252);
    group.bench_function("252-port-set", |b| b.iter(|| step(&mut napt)));
    let mut napt = Napt::new(ADDR, set_252(), &NaptParams::default(), 99);
    let (mut now, mut n) = (START, 0);
    // 252 to each of 100 servers; those that give way were refused two and a half seconds ago.
    let mut step = |napt: &mut Napt<Inside>| {
        n = (n + 1) % 1_000_000;
        now += Duration::from_micros(100);
        let proposal = napt.propose_outbound(Protocol::Tcp, inside(n), server(n), now).unwrap();
        napt.commit_outbound(proposal, Some(&SYN), now);
        let refusal = napt.propose_inbound(Protocol::Tcp, proposal.outside, server(n), now).unwrap();
        napt.commit_inbound(refusal, Some(&REFUSAL), now);
    };
    (0..100_000).for_each(|_| step(&mut napt));
    assert_eq!((napt.flows(Protocol::Tcp), napt.shared_ports(Protocol::Tcp)), (25_200, 252));
    group.bench_function("252-port-set-closed", |b| b.iter(|| step(&mut napt)));
    group.finish();
}

/// 131,072 flows, when one filter changes.
fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("napt/change");
    group.sample_size(20);
    for (name, ports) in [("4032-port-set", set_4032()), ("whole-address", PortSet::ALL)] {
        let (mut napt, flows) = filled(131_072, ports);
        let mut filter = Filter::AddressAndPortDependent;
        let next = |filter| {
            let filtering = Filtering { tcp: Some(filter), udp: None };
            Napt::new(ADDR, ports, &NaptParams { filtering, ..NaptParams::default() }, 98)
        };
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    filter = match filter {
                        Filter::AddressDependent => Filter::AddressAndPortDependent,
                        _ => Filter::AddressDependent,
                    };
                    let mut next = next(filter);
                    let begin = std::time::Instant::now();
                    let replaced = napt.replace(&mut next, START);
                    spent += begin.elapsed();
                    assert_eq!(replaced.kept, flows.len());
                }
                spent
            })
        });
    }
    group.finish();
}

/// 100,000 flows as the text of a file, and back into a NAPT.
fn keep(c: &mut Criterion) {
    let mut group = c.benchmark_group("napt/saved");
    group.sample_size(20);
    let (napt, flows) = filled(100_000, PortSet::ALL);
    let (owner, now) = (Owner::new(ADDR, PortSet::ALL), START + Duration::from_secs(700_000));
    let at = Moment { wall: now, boot: "0".into(), up: now };
    let text = || {
        let mut text = Vec::new();
        saved::write(&mut text, owner, &at, &napt, START).unwrap();
        String::from_utf8(text).unwrap()
    };
    group.bench_function("write", |b| b.iter(&text));
    let text = text();
    group.bench_function("read-and-restore", |b| {
        b.iter_batched(
            || Napt::new(ADDR, PortSet::ALL, &NaptParams::default(), 98),
            |mut napt| {
                let mut saved = saved::parse(&text, flows.len()).unwrap();
                let restored = napt.restore(&mut saved.flows, &saved.mappings, Duration::ZERO, now);
                assert_eq!(restored.taken, flows.len());
                napt
            },
            BatchSize::LargeInput,
        )
    });
    group.finish();
}

criterion_group!(benches, existing, churn, scarce, change, keep);
criterion_main!(benches);
