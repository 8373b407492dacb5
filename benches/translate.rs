//! What a packet costs in an engine, without I/O: each direction and kind, and random flows over many rules.
//!
//! A packet is put back to what it was by the same few octets that translation changed, which is part of the time.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use mapt::br::{Br, BrParams};
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::map::{Dmr, EndUserPrefix, Ipv4Prefix, Ipv6Prefix, Provisioning, Psid, Rule, RuleId, RuleSpec, RuleTable};
use mapt::verdict::Verdict;
use mapt::wire::{PacketBuf, VnetHdr};

const NOW: Duration = Duration::from_secs(1);
const MAP: &str = "2001:db8:12:3400:0:c000:212:34";
const SERVER6: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER4: &str = "10.2.3.4";
const CUSTOMER4: &str = "192.0.2.18";
const LAN: &str = "192.168.1.2";

fn v4(text: &str) -> [u8; 4] {
    text.parse::<Ipv4Addr>().unwrap().octets()
}

fn v6(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn provisioning(rules: Vec<RuleSpec>, end_user: Option<&str>) -> Provisioning {
    let dmr = Dmr::new("2001:db8:ffff::/64".parse().unwrap()).unwrap();
    let rules = rules.into_iter().map(|spec| Rule::new(spec).unwrap()).collect();
    Provisioning {
        version: 1,
        date: None,
        table: RuleTable::new(rules, Some(dmr)).unwrap().into(),
        end_user_prefix: end_user.map(|p| EndUserPrefix(p.parse().unwrap())),
    }
}

fn spec(index: u32, v6: Ipv6Prefix, v4: Ipv4Prefix) -> RuleSpec {
    RuleSpec {
        name: format!("rule-{index}"),
        rule_ipv6_prefix: v6,
        rule_ipv4_prefix: v4,
        ea_len: 16,
        psid_offset: 6,
        psid_len: None,
        psid: None,
        forwarding: true,
        dmr_ipv6_prefix: None,
    }
}

fn appendix_a() -> Vec<RuleSpec> {
    vec![spec(0, "2001:db8::/40".parse().unwrap(), "192.0.2.0/24".parse().unwrap())]
}

fn br_params() -> BrParams {
    BrParams {
        translation: Default::default(),
        icmp: Default::default(),
        check_interface_id: true,
        fragments: Default::default(),
        seed: 7,
    }
}

fn br(rules: Vec<RuleSpec>) -> Br {
    Br::new(&provisioning(rules, None), &br_params())
}

fn ce() -> Ce {
    let params = CeParams {
        translation: Default::default(),
        icmp: Default::default(),
        check_interface_id: true,
        fragments: Default::default(),
        rewrite_identification: false,
        napt: true,
        napt_params: Default::default(),
        seed: 7,
    };
    Ce::new(&provisioning(appendix_a(), Some("2001:db8:12:3400::/56")), &params)
}

/// UDP of `payload` octets.
fn udp(ip: PacketBuilderStep<etherparse::IpHeaders>, ports: (u16, u16), payload: usize) -> PacketBuf {
    let mut out = Vec::new();
    ip.udp(ports.0, ports.1).write(&mut out, &vec![0x5a; payload]).unwrap();
    PacketBuf::from_slice(&out)
}

/// TCP of `payload` octets; a superpacket of 1,428-octet segments where that is more than one.
fn tcp(ip: PacketBuilderStep<etherparse::IpHeaders>, ports: (u16, u16), payload: usize) -> PacketBuf {
    let mut header = TcpHeader::new(ports.0, ports.1, 1, 4096);
    header.ack = true;
    let mut out = Vec::new();
    ip.tcp_header(header).write(&mut out, &vec![0x5a; payload]).unwrap();
    let mut packet = PacketBuf::from_slice(&out);
    if payload > 1428 {
        let is_v6 = out[0] >> 4 == 6;
        let start = if is_v6 { 40 } else { 20 };
        packet.set_offload(Some(VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            gso_type: if is_v6 { VnetHdr::GSO_TCPV6 } else { VnetHdr::GSO_TCPV4 },
            hdr_len: start + 20,
            gso_size: 1428,
            csum_start: start,
            csum_offset: 16,
        }));
    }
    packet
}

/// One packet over and over.
fn one(c: &mut Criterion, name: &str, engine: &mut dyn Engine, mut packet: PacketBuf) {
    let original = packet.bytes()[..packet.len().min(64)].to_vec();
    let (len, offload) = (packet.len(), packet.offload());
    let mut group = c.benchmark_group("packet");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |b| {
        b.iter(|| {
            let verdict = engine.handle(black_box(&mut packet), NOW);
            assert_eq!(verdict, Verdict::Forward);
            let grown = packet.len() + original.len() - len;
            packet.replace_front(grown, &original);
            packet.set_offload(offload);
        });
    });
    group.finish();
}

fn kinds(c: &mut Criterion) {
    let from_server4 = || PacketBuilder::ipv4(v4(SERVER4), v4(CUSTOMER4), 64);
    let from_home6 = || PacketBuilder::ipv6(v6(MAP), v6(SERVER6), 64);
    let from_lan4 = || PacketBuilder::ipv4(v4(LAN), v4(SERVER4), 64);
    let mut br = br(appendix_a());
    let mut ce = ce();
    // 64 octets of IPv4: 36 of payload; a segment of 1,400 octets of IPv4; 64 KB.
    one(c, "br v4_to_v6 udp 64", &mut br, udp(from_server4(), (80, 1232), 36));
    one(c, "br v6_to_v4 udp 64", &mut br, udp(from_home6(), (1232, 80), 36));
    one(c, "br v4_to_v6 tcp 1400", &mut br, tcp(from_server4(), (80, 1232), 1360));
    one(c, "br v6_to_v4 tcp 1400", &mut br, tcp(from_home6(), (1232, 80), 1360));
    one(c, "br v4_to_v6 tso 64k", &mut br, tcp(from_server4(), (80, 1232), 64_260));
    one(c, "br v6_to_v4 tso 64k", &mut br, tcp(from_home6(), (1232, 80), 64_260));
    one(c, "ce v4_to_v6 udp 64", &mut ce, udp(from_lan4(), (5000, 80), 36));
    one(c, "ce v4_to_v6 tcp 1400", &mut ce, tcp(from_lan4(), (5001, 80), 1360));
    one(c, "ce v4_to_v6 tso 64k", &mut ce, tcp(from_lan4(), (5002, 80), 64_260));
    // The way back needs the port that the NAPT chose.
    let mut chosen = |mut packet: PacketBuf| {
        assert_eq!(ce.handle(&mut packet, NOW), Verdict::Forward);
        u16::from_be_bytes([packet.bytes()[40], packet.bytes()[41]])
    };
    let back = || PacketBuilder::ipv6(v6(SERVER6), v6(MAP), 64);
    let (u, t) = (chosen(udp(from_lan4(), (5000, 80), 36)), chosen(tcp(from_lan4(), (5001, 80), 1360)));
    one(c, "ce v6_to_v4 udp 64", &mut ce, udp(back(), (80, u), 36));
    one(c, "ce v6_to_v4 tcp 1400", &mut ce, tcp(back(), (80, t), 1360));
    one(c, "ce v6_to_v4 tso 64k", &mut ce, tcp(back(), (80, t), 64_260));
}

/// Fragments to one shared address: of an honest sender, and of a flood from addresses that never come again.
fn fragments(c: &mut Criterion) {
    // (source, Identification) to the first and the last fragment of a UDP packet of 1,000 octets.
    let pair = |n: u32| {
        let mut ip = etherparse::Ipv4Header::new(
            0,
            64,
            etherparse::IpNumber::UDP,
            (0x0a00_0000 + n).to_be_bytes(),
            v4(CUSTOMER4),
        )
        .unwrap();
        ip.dont_fragment = false;
        ip.identification = n as u16;
        let transport =
            [&80u16.to_be_bytes()[..], &1232u16.to_be_bytes(), &[3, 232, 0x12, 0x34], &[0x5a; 992]].concat();
        [(0, 504), (504, 1000)].map(|(from, to)| {
            ip.fragment_offset = etherparse::IpFragOffset::try_new(from as u16 / 8).unwrap();
            ip.more_fragments = to < 1000;
            ip.set_payload_len(to - from).unwrap();
            ip.header_checksum = ip.calc_header_checksum();
            let mut out = Vec::new();
            ip.write_raw(&mut out).unwrap();
            out.extend(&transport[from..to]);
            out
        })
    };
    const MANY: usize = 1 << 16;
    let packets: Vec<[Vec<u8>; 2]> = (0..MANY as u32).map(pair).collect();
    let mut packet = PacketBuf::new();
    let mut next = 0;
    let mut now = NOW;
    let mut run = |c: &mut Criterion, name: &str, order: &[usize]| {
        let mut engine = br(appendix_a());
        let mut group = c.benchmark_group("fragments");
        group.throughput(Throughput::Elements(order.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                next = (next + 1) % MANY;
                // A million packets a second.
                now += Duration::from_micros(1);
                for which in order {
                    packet.set(&packets[next][*which]);
                    black_box(engine.handle(black_box(&mut packet), now));
                    while engine.poll_transmit().is_some() {}
                }
                if engine.poll_timeout().is_some_and(|due| due <= now) {
                    engine.handle_timeout(now);
                }
            });
        });
        group.finish();
    };
    run(c, "in order", &[0, 1]);
    run(c, "out of order", &[1, 0]);
    run(c, "flood of first ones", &[0]);
    run(c, "flood of later ones", &[1]);
}

/// xorshift64*: the same flows in every run.
struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(n)) >> 64) as u64
    }
}

const FLOWS: usize = 1 << 17;

/// Random customers and ports of random rules; every packet another flow.
fn many_rules(c: &mut Criterion) {
    for size in [1u32, 1_000, 100_000] {
        let rules = (0..size)
            .map(|i| {
                let v6 = Ipv6Prefix::new(((0x2a00u128 << 112) | (u128::from(i) << 88)).into(), 40).unwrap();
                let v4 = Ipv4Prefix::new((0x0b00_0000u32 + (i << 9)).into(), 24).unwrap();
                spec(i, v6, v4)
            })
            .collect();
        let provisioned = provisioning(rules, None);
        let mut engine = Br::new(&provisioned, &br_params());
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for _ in 0..FLOWS {
            let i = random.below(u64::from(size)) as u32;
            let rule = provisioned.table.get(RuleId(i));
            let ipv4 = Ipv4Addr::from(0x0b00_0000u32 + (i << 9) + random.below(256) as u32);
            let psid = Psid(random.below(256) as u16);
            let ports = rule.port_set(psid).unwrap();
            let port = ports.nth(random.below(u64::from(ports.count())) as u32).unwrap();
            let address = rule.compose(ipv4, psid).ipv6();
            let four = PacketBuilder::ipv4(v4(SERVER4), ipv4.octets(), 64);
            let six = PacketBuilder::ipv6(address.octets(), v6(SERVER6), 64);
            to.push(udp(four, (80, port), 36).bytes().to_vec());
            from.push(udp(six, (port, 80), 36).bytes().to_vec());
        }
        for (name, packets) in [("v4_to_v6", to), ("v6_to_v4", from)] {
            let mut group = c.benchmark_group(format!("rules {name} udp 64"));
            group.throughput(Throughput::Elements(1));
            let mut packet = PacketBuf::new();
            let mut next = 0;
            group.bench_function(size.to_string(), |b| {
                b.iter(|| {
                    next = (next + 1) % FLOWS;
                    packet.set(&packets[next]);
                    assert_eq!(engine.handle(black_box(&mut packet), NOW), Verdict::Forward);
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500)).sample_size(30);
    targets = kinds, fragments, many_rules
}
criterion_main!(benches);
