//! What a packet costs in the NAPT: `cargo bench --bench napt`.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{Inside, Napt, Outside, Protocol, TcpFlags, Timers};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const START: Duration = Duration::from_secs(1);
const ACK: TcpFlags = TcpFlags { syn: false, ack: true, fin: false, rst: false };

fn inside(n: usize) -> Inside {
    Inside { addr: Ipv4Addr::from(0xc0a8_0100 + (n / 4096) as u32), port: 20_000 + (n % 4096) as u16 }
}

/// A NAPT with `count` established TCP mappings, its endpoints in random order.
fn filled(count: usize) -> (Napt<Inside>, Vec<(Inside, Outside)>) {
    let mut napt = Napt::new(ADDR, PortSet::ALL, Timers::default(), 99);
    let mut flows = Vec::new();
    for n in 0..count {
        let proposal = napt.propose_outbound(Protocol::Tcp, inside(n), START).unwrap();
        napt.commit_outbound(proposal, ACK, START);
        napt.commit_inbound(napt.propose_inbound(Protocol::Tcp, proposal.outside, START).unwrap(), ACK, START);
        flows.push((proposal.inside, proposal.outside));
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

/// Propose and commit of a packet on an existing mapping, at a million packets a second.
fn existing(c: &mut Criterion) {
    let mut group = c.benchmark_group("napt/existing");
    group.throughput(Throughput::Elements(1));
    for count in [1_000, 60_000] {
        let (mut napt, flows) = filled(count);
        let mut now = START;
        let mut at = 0;
        group.bench_function(format!("outbound/{count}"), |b| {
            b.iter(|| {
                at = if at + 1 == flows.len() { 0 } else { at + 1 };
                now += Duration::from_micros(1);
                let proposal = napt.propose_outbound(Protocol::Tcp, flows[black_box(at)].0, now).unwrap();
                napt.commit_outbound(proposal, ACK, now);
                black_box(proposal.outside.port)
            })
        });
        group.bench_function(format!("inbound/{count}"), |b| {
            b.iter(|| {
                at = if at + 1 == flows.len() { 0 } else { at + 1 };
                now += Duration::from_micros(1);
                let proposal = napt.propose_inbound(Protocol::Tcp, flows[black_box(at)].1, now).unwrap();
                napt.commit_inbound(proposal, ACK, now);
                black_box(proposal.inside.port)
            })
        });
    }
    group.finish();
}

/// A life: a new mapping and the expiry of an old one, with `count` alive.
fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("napt/new-and-expire");
    group.throughput(Throughput::Elements(1));
    let small = PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap();
    for (name, ports, count) in [("252-port-set", small, 200u32), ("whole-address", PortSet::ALL, 60_000)] {
        // One new mapping a tick of a quarter of a second, each living `count` ticks.
        let timers = Timers { udp: Duration::from_millis(250) * count, ..Timers::default() };
        let mut napt = Napt::new(ADDR, ports, timers, 99);
        let mut now = START;
        let mut n = 0;
        let mut step = |napt: &mut Napt<Inside>| {
            n = (n + 1) % 1_000_000;
            now += Duration::from_millis(250);
            napt.handle_timeout(now);
            let proposal = napt.propose_outbound(Protocol::Udp, inside(n), now).unwrap();
            napt.commit_outbound(proposal, TcpFlags::default(), now);
        };
        (0..2 * count).for_each(|_| step(&mut napt));
        assert_eq!(napt.mappings(Protocol::Udp), count as usize);
        group.bench_function(name, |b| b.iter(|| step(&mut napt)));
    }
    group.finish();
}

criterion_group!(benches, existing, churn);
criterion_main!(benches);
