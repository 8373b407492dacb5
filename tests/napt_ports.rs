//! Which ports the NAPT gives: each of the set once, out of every range, in an order that the seed alone knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{Inside, Napt, NaptParams, Outside, Proposal, Protocol, Refusal, Remote, Segment, TcpFlags};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
const NOW: Duration = Duration::from_secs(5);
const SYN: Segment =
    Segment { flags: TcpFlags { syn: true, ack: false, fin: false, rst: false }, seq: 7000, ack: 0, len: 0 };
const SERVER: Remote = Remote { addr: Ipv4Addr::new(10, 2, 3, 4), port: 443 };

/// RFC 7597 Appendix A, example 1: PSID 0x34 of 8 bits at offset 6. 63 ranges of 4: 1232-1235, 2256-2259, ...
fn set_252() -> PortSet {
    PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap()
}

fn ports_252() -> BTreeSet<u16> {
    (1..64u16).flat_map(|a| (0..4).map(move |j| a * 1024 + 0x34 * 4 + j)).collect()
}

fn napt(ports: PortSet, seed: u64) -> Napt<Inside> {
    Napt::new(ADDR, ports, &NaptParams::default(), seed)
}

fn inside(n: u32) -> Inside {
    Inside { addr: Ipv4Addr::from(0xc0a8_0100 + n / 50_000), port: 2000 + (n % 50_000) as u16 }
}

fn open(napt: &mut Napt<Inside>, protocol: Protocol, inside: Inside, now: Duration) -> Result<u16, Refusal> {
    let proposal = napt.propose_outbound(protocol, inside, SERVER, now)?;
    napt.commit_outbound(proposal, Some(&SYN), now);
    Ok(proposal.outside.port)
}

#[test]
fn a_set_of_252_ports_is_handed_out_exactly_once_for_each_protocol() {
    let mut napt = napt(set_252(), 1);
    for protocol in ALL {
        assert_eq!(napt.capacity(protocol), 252);
        let given: Vec<u16> = (0..252).map(|n| open(&mut napt, protocol, inside(n), NOW).unwrap()).collect();
        assert_eq!(given.iter().copied().collect::<BTreeSet<_>>(), ports_252());
        assert_eq!(open(&mut napt, protocol, inside(252), NOW), Err(Refusal::Exhausted));
        assert_eq!(napt.ports_in_use(protocol), 252);
        // Who has one keeps it, and is found by it.
        for (n, port) in given.iter().enumerate() {
            assert_eq!(open(&mut napt, protocol, inside(n as u32), NOW), Ok(*port));
            let back = napt.propose_inbound(protocol, Outside { addr: ADDR, port: *port }, SERVER, NOW).unwrap();
            assert_eq!(back.inside, inside(n as u32));
        }
    }
}

#[test]
fn one_endpoint_has_one_port_per_protocol_and_protocols_do_not_meet() {
    let mut napt = napt(set_252(), 3);
    let me = inside(9);
    open(&mut napt, Protocol::Tcp, me, NOW).unwrap();
    assert_eq!((napt.ports_in_use(Protocol::Tcp), napt.ports_in_use(Protocol::Udp)), (1, 0));
    assert_eq!(napt.outside_of(Protocol::Udp, me, SERVER, NOW), None);
    let tcp = napt.outside_of(Protocol::Tcp, me, SERVER, NOW).unwrap();
    assert_eq!(napt.propose_inbound(Protocol::Udp, tcp, SERVER, NOW), Err(Refusal::NoMapping));
    assert_eq!(napt.propose_inbound(Protocol::Icmp, tcp, SERVER, NOW), Err(Refusal::NoMapping));
}

#[test]
fn every_range_is_used_evenly() {
    // 64 mappings at a time out of 252 ports, with 400 seeds: 25,600 ports, 406 a range of four.
    let mut by_range = BTreeMap::<u16, u32>::new();
    let mut by_place = BTreeMap::<u16, u32>::new();
    for seed in 0..400 {
        let mut napt = napt(set_252(), seed);
        for n in 0..64 {
            let port = open(&mut napt, Protocol::Udp, inside(n), NOW).unwrap();
            *by_range.entry(port / 1024).or_default() += 1;
            *by_place.entry(port % 4).or_default() += 1;
        }
    }
    assert_eq!(by_range.len(), 63);
    let chi_square = |counts: &BTreeMap<u16, u32>| {
        let mean = 25_600.0 / counts.len() as f64;
        counts.values().map(|n| (f64::from(*n) - mean).powi(2) / mean).sum::<f64>()
    };
    // Below the 99.99 % points of 62 and 3 degrees of freedom; drawing without replacement only lowers it.
    assert!(chi_square(&by_range) < 113.0, "{}", chi_square(&by_range));
    assert!(chi_square(&by_place) < 21.1, "{}", chi_square(&by_place));
}

/// RFC 4787 REQ-4, for endpoints with a port of their own.
#[test]
fn udp_keeps_the_parity() {
    let mut napt = napt(set_252(), 4);
    for n in 0..120 {
        let me = inside(n);
        assert_eq!(open(&mut napt, Protocol::Udp, me, NOW).unwrap() % 2, me.port % 2);
    }
    let tcp: Vec<u16> = (0..120).map(|n| open(&mut napt, Protocol::Tcp, inside(2 * n), NOW).unwrap()).collect();
    assert!((30..90).contains(&tcp.iter().filter(|port| **port % 2 == 1).count()), "TCP has no reason to");
    // A set of odd ports alone: 0x9235 and others with m = 0.
    let odd = PortParams::new(2, 14).unwrap().port_set(Psid(0x1235)).unwrap();
    let mut napt = Napt::new(ADDR, odd, &NaptParams::default(), 2);
    assert!(open(&mut napt, Protocol::Udp, inside(0), NOW).is_ok(), "an even one");
}

#[test]
fn the_seed_decides_the_order() {
    let order = |seed| {
        let mut napt = napt(set_252(), seed);
        (0..252).map(|n| open(&mut napt, Protocol::Tcp, inside(n), NOW).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(order(11), order(11));
    assert_ne!(order(11), order(12));
    assert_ne!(order(11)[..8], order(12)[..8]);
    let steps_up = order(11).windows(2).filter(|w| w[0] < w[1]).count();
    assert!((95..157).contains(&steps_up), "{steps_up} of 251 go up: no order");
}

#[test]
fn a_proposal_that_is_not_committed_takes_nothing() {
    let mut napt = napt(set_252(), 5);
    let dropped = napt.propose_outbound(Protocol::Tcp, inside(1), SERVER, NOW).unwrap();
    let other = napt.propose_outbound(Protocol::Tcp, inside(2), SERVER, NOW).unwrap();
    assert_eq!(napt.ports_in_use(Protocol::Tcp), 0);
    assert_eq!(napt.propose_inbound(Protocol::Tcp, dropped.outside, SERVER, NOW), Err(Refusal::NoMapping));
    napt.commit_outbound(other, Some(&SYN), NOW);
    assert_eq!(napt.outside_of(Protocol::Tcp, inside(2), SERVER, NOW), Some(other.outside));
    assert_eq!(napt.outside_of(Protocol::Tcp, inside(1), SERVER, NOW), None);
    for n in 3..254 {
        open(&mut napt, Protocol::Tcp, inside(n), NOW).unwrap();
    }
    assert_eq!(napt.ports_in_use(Protocol::Tcp), 252);
}

#[test]
fn a_commit_that_comes_too_late_does_nothing() {
    let mut napt = napt(set_252(), 5);
    let stale: Proposal<Inside> = napt.propose_outbound(Protocol::Udp, inside(1), SERVER, NOW).unwrap();
    let thief = napt.propose_outbound(Protocol::Udp, inside(3), SERVER, NOW).unwrap();
    assert_eq!(stale.outside, thief.outside);
    napt.commit_outbound(thief, Some(&SYN), NOW);
    napt.commit_outbound(stale, Some(&SYN), NOW);
    assert_eq!(napt.outside_of(Protocol::Udp, inside(1), SERVER, NOW), None);
    assert_eq!(napt.ports_in_use(Protocol::Udp), 1);

    let stale = napt.propose_outbound(Protocol::Udp, inside(3), SERVER, NOW).unwrap();
    let later = NOW + Duration::from_secs(301);
    napt.handle_timeout(later);
    napt.commit_outbound(stale, Some(&SYN), later);
    napt.commit_inbound(stale, Some(&SYN), later);
    assert_eq!((napt.ports_in_use(Protocol::Udp), napt.poll_timeout()), (0, None));
}

#[test]
fn another_address_or_a_port_of_another_set_has_no_mapping() {
    let mut napt = napt(set_252(), 8);
    let port = open(&mut napt, Protocol::Udp, inside(1), NOW).unwrap();
    let elsewhere = Outside { addr: Ipv4Addr::new(192, 0, 2, 19), port };
    assert_eq!(napt.propose_inbound(Protocol::Udp, elsewhere, SERVER, NOW), Err(Refusal::NoMapping));
    for port in (0..=u16::MAX).filter(|p| !ports_252().contains(p)) {
        assert!(napt.propose_inbound(Protocol::Udp, Outside { addr: ADDR, port }, SERVER, NOW).is_err());
    }
}

#[test]
fn an_inbound_scan_of_all_ports_makes_nothing() {
    let napt = napt(PortSet::ALL, 8);
    for port in 0..=u16::MAX {
        assert!(napt.propose_inbound(Protocol::Tcp, Outside { addr: ADDR, port }, SERVER, NOW).is_err());
    }
    assert_eq!((napt.ports_in_use(Protocol::Tcp), napt.poll_timeout()), (0, None));
}

#[test]
fn a_whole_address_gives_65535_ports_and_keeps_the_class() {
    let mut napt = napt(PortSet::ALL, 21);
    for n in 0..100 {
        let low = Inside { addr: Ipv4Addr::new(192, 168, 7, n), port: 500 };
        assert!((1..1024).contains(&open(&mut napt, Protocol::Udp, low, NOW).unwrap()));
    }
    let mut given = BTreeSet::new();
    for n in 0..64_512 {
        let port = open(&mut napt, Protocol::Udp, inside(n), NOW).unwrap();
        assert!(port >= 1024, "a dynamic port while there are any");
        given.insert(port);
    }
    assert_eq!(given.len(), 64_512);
    // Then the other class serves, never port 0.
    let rest = (0..923).map(|n| open(&mut napt, Protocol::Udp, inside(100_000 + n), NOW).unwrap());
    assert!(rest.collect::<BTreeSet<_>>().range(1..1024).count() == 923);
    assert_eq!(open(&mut napt, Protocol::Udp, inside(200_000), NOW), Err(Refusal::Exhausted));
    assert_eq!(napt.ports_in_use(Protocol::Udp), 65_535);
}

#[test]
fn a_set_that_begins_at_port_0_leaves_it_out() {
    // a = 0, PSID 0 of 4 bits: 0-4095.
    let ports = PortParams::new(0, 4).unwrap().port_set(Psid(0)).unwrap();
    let mut napt = napt(ports, 2);
    let given: BTreeSet<u16> = (0..4095).map(|n| open(&mut napt, Protocol::Tcp, inside(n), NOW).unwrap()).collect();
    assert_eq!(given, (1..4096).collect());
    assert!(open(&mut napt, Protocol::Tcp, inside(5000), NOW).is_err());
}

#[test]
fn a_set_of_one_port_works() {
    // a + k = 16 with m = 0 and a = 1: the single port 0x8000 + PSID.
    let ports = PortParams::new(1, 15).unwrap().port_set(Psid(0x1234)).unwrap();
    let mut napt = napt(ports, 2);
    assert_eq!(open(&mut napt, Protocol::Icmp, inside(1), NOW), Ok(0x9234));
    assert_eq!(open(&mut napt, Protocol::Icmp, inside(2), NOW), Err(Refusal::Exhausted));
}
