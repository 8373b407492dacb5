//! The Customer Edge by scenario. Ids: P = pitfalls, others = requirements. Addresses are worked out by hand.
//!
//! The customer of RFC 7597's Appendix A: 192.0.2.18 with PSID 0x34, the ports 1232-1235, 2256-2259, ..., 64720-64723:
//! 252 of them.

mod common;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::*;
use mapt::br::Br;
use mapt::ce::{Ce, CeParams};
use mapt::engine::{Engine, TransmitKind};
use mapt::map::{Dmr, Provisioning, RuleSpec};
use mapt::napt::{Filter, Filtering, Forward, Inside, Protocol};
use mapt::reply::Originate;
use mapt::siit::{MssClamp, Mtu, PortList, TranslationParams};
use mapt::verdict::{Direction, DropReason, Verdict};
use oracle::build::{Kind, Make, Place};
use oracle::packet::{Packet4, Packet6, complete, word};

const OWN: &str = "2001:db8:12:3400:0:c000:212:34";
const OWN4: &str = "192.0.2.18";
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER4: &str = "10.2.3.4";
const HOST: &str = "192.168.1.10";
/// 192.0.2.33 with PSID 1: the ports 1028-1031, 2052-2055, ...
const NEIGHBOUR: &str = "2001:db8:21:100:0:c000:221:1";
const NEIGHBOUR4: &str = "192.0.2.33";

const UDP: Kind = Kind::Udp { zero: false, slack: 0 };

fn ce_of(provisioning: &Provisioning, change: impl FnOnce(&mut CeParams)) -> Ce {
    let mut params = ce_params();
    change(&mut params);
    Ce::new(provisioning, &params)
}

fn ours() -> Provisioning {
    appendix_a(Some("2001:db8:12:3400::/56"))
}

fn plain() -> Ce {
    ce_of(&ours(), |p| p.napt = false)
}

fn neighbour() -> Ce {
    ce_of(&appendix_a(Some("2001:db8:21:100::/56")), |p| p.seed = 99)
}

fn in_set(port: u16) -> bool {
    port >= 1024 && (port / 4) % 256 == 0x34
}

fn a4(text: &str) -> [u8; 4] {
    v4(text).octets()
}

fn a6(text: &str) -> [u8; 16] {
    v6(text).octets()
}

fn read4(b: &[u8]) -> Packet4 {
    Packet4::read(b, false, &mut Vec::new()).unwrap()
}

fn read6(b: &[u8]) -> Packet6 {
    Packet6::read(b, false, &mut Vec::new()).unwrap()
}

fn told4(outcome: &Outcome, to: &str) -> (u8, u8) {
    let reply = outcome.reply.as_ref().expect("an answer");
    let (src, _, dst, _) = tuple(reply);
    assert_eq!((src.as_str(), dst.as_str()), ("192.0.0.8", to));
    (reply[20], reply[21])
}

fn told6(outcome: &Outcome, to: &str) -> (u8, u8) {
    let reply = outcome.reply.as_ref().expect("an answer");
    let (src, _, dst, _) = tuple(reply);
    assert_eq!((src.as_str(), dst.as_str()), ("2001:db8:ffff:0:c0:0:800:0", to));
    (reply[40], reply[41])
}

/// Opens a mapping of the host and returns its outside port.
fn open(ce: &mut Ce, packet: &[u8]) -> u16 {
    let out = handle(ce, packet).forwarded();
    assert_valid(&out);
    let (src, port, ..) = tuple(&out);
    assert_eq!(src, OWN);
    assert!(in_set(port), "{port}");
    port
}

// NAPT44 outbound and inbound.

/// P2, CE-1, CE-2, CE-4, CE-11, NAT-1: out through a port of the set, back to the host, for each protocol.
#[test]
fn ce1_out_and_back() {
    let mut ce = ce();
    let udp = udp4(HOST, 40_000, SERVER4, 53, b"question");
    let port = open(&mut ce, &udp);
    assert_eq!(tuple(&handle(&mut ce, &udp).forwarded()), (OWN.into(), port, SERVER.into(), 53));
    let back = handle(&mut ce, &udp6(SERVER, 53, OWN, port, b"answer")).forwarded();
    assert_valid(&back);
    assert_eq!(tuple(&back), (SERVER4.into(), 53, HOST.into(), 40_000));
    assert!(back.ends_with(b"answer"));

    let port = open(&mut ce, &tcp4(HOST, 40_000, SERVER4, 443, "S", b""));
    let back = handle(&mut ce, &tcp6(SERVER, 443, OWN, port, "SA", b"")).forwarded();
    assert_valid(&back);
    assert_eq!(tuple(&back), (SERVER4.into(), 443, HOST.into(), 40_000));
    for (protocol, count) in [(Protocol::Udp, 1), (Protocol::Tcp, 1), (Protocol::Icmp, 0)] {
        assert_eq!(ce.ports_in_use(protocol), count);
    }
}

/// P14, CE-3, P40: an echo leaves with an identifier of the set and comes back with its own; 16 at a time.
#[test]
fn ce3_p40_echoes() {
    let mut ce = ce();
    let mut ids = BTreeMap::new();
    for id in 0..16u16 {
        let outside = open(&mut ce, &echo4(HOST, SERVER4, 7000 + id, true, b"ping"));
        assert_eq!(ids.insert(outside, 7000 + id), None);
    }
    for (outside, id) in ids {
        let back = handle(&mut ce, &echo6(SERVER, OWN, outside, false, b"ping")).forwarded();
        assert_valid(&back);
        assert_eq!(tuple(&back), (SERVER4.into(), id, HOST.into(), id));
        assert_eq!(back[20], 0);
    }
}

/// NAT-1, NAT-2: one outside port for an inside endpoint, whomever it talks to; never one for two.
#[test]
fn nat1_mapping_is_endpoint_independent() {
    let mut ce = ce();
    let mut ports = BTreeSet::new();
    for host in 1..=5 {
        let host = format!("192.168.1.{host}");
        let first = open(&mut ce, &udp4(&host, 5060, SERVER4, 53, b""));
        assert_eq!(open(&mut ce, &udp4(&host, 5060, "8.8.8.8", 4444, b"")), first);
        assert_eq!(open(&mut ce, &udp4(&host, 5060, NEIGHBOUR4, 1029, b"")), first);
        assert!(ports.insert(first));
    }
}

/// P39, NAT-14, CE-2: all 252 ports are used, then the host is told 3/13, and others lose nothing.
#[test]
fn p39_the_port_set_is_used_up() {
    let mut ce = ce();
    let mut ports = BTreeSet::new();
    for n in 0..252u16 {
        assert!(ports.insert(open(&mut ce, &udp4(HOST, 40_000 + n, SERVER4, 53, b""))));
    }
    assert_eq!((ports.len(), ports.first(), ports.last()), (252, Some(&1232), Some(&64_723)));
    let late = udp4("192.168.1.77", 50_000, SERVER4, 53, b"one too many");
    let outcome = handle(&mut ce, &late);
    assert_eq!((outcome.reason(), told4(&outcome, "192.168.1.77")), (DropReason::NaptExhausted, (3, 13)));
    assert_eq!(outcome.reply.unwrap()[28..], late);
    let counters = ce.counters().snapshot();
    let counters = counters.direction(Direction::V4ToV6);
    assert_eq!(counters.dropped[DropReason::NaptExhausted as usize].packets, 1);
    assert_eq!(handle(&mut ce, &udp4(HOST, 40_100, SERVER4, 53, b"")).verdict, Verdict::Forward);
    // Each protocol has the whole set.
    assert_eq!(handle(&mut ce, &tcp4(HOST, 50_000, SERVER4, 53, "S", b"")).verdict, Verdict::Forward);
    assert_eq!(handle(&mut ce, &echo4(HOST, SERVER4, 50_000, true, b"")).verdict, Verdict::Forward);
    // When all have expired, all can be had again.
    let later = NOW + Duration::from_secs(301);
    while ce.poll_timeout().is_some_and(|at| at <= later) {
        ce.handle_timeout(later);
    }
    assert_eq!(ce.ports_in_use(Protocol::Udp), 0);
    assert_eq!(handle_at(&mut ce, &late, later).verdict, Verdict::Forward);
}

/// NAT-5, N64-5: what nobody asked for is dropped, silently, and ports outside the set before that.
#[test]
fn ce9_unsolicited_packets() {
    let mut ce = ce();
    for (packet, reason) in [
        (udp6(SERVER, 53, OWN, 1234, b""), DropReason::NaptNoMapping),
        (tcp6(SERVER, 443, OWN, 1235, "S", b""), DropReason::NaptNoMapping),
        (echo6(SERVER, OWN, 2256, true, b""), DropReason::NaptNoMapping),
        (udp6(SERVER, 53, OWN, 1236, b""), DropReason::DestinationPortOutsideSet),
        (udp6(SERVER, 53, OWN, 5555, b""), DropReason::DestinationPortOutsideSet),
        (tcp6(SERVER, 53, OWN, 80, "S", b""), DropReason::DestinationPortOutsideSet),
        (echo6(SERVER, OWN, 1236, true, b""), DropReason::DestinationPortOutsideSet),
    ] {
        let outcome = handle(&mut ce, &packet);
        assert_eq!((outcome.reason(), outcome.reply), (reason, None));
    }
    // A mapping of one protocol is none of another.
    let port = open(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b""));
    assert_eq!(handle(&mut ce, &tcp6(SERVER, 443, OWN, port, "A", b"")).reason(), DropReason::NaptNoMapping);
    assert_eq!(handle(&mut ce, &echo6(SERVER, OWN, port, false, b"")).reason(), DropReason::NaptNoMapping);
}

/// All that leaves of itself up to `now`.
fn late(ce: &mut Ce, now: Duration) -> Vec<Vec<u8>> {
    let mut left = Vec::new();
    while ce.poll_timeout().is_some_and(|at| at <= now) {
        ce.handle_timeout(now);
        while let Some((kind, packet)) = ce.poll_transmit() {
            assert_eq!(kind, TransmitKind::Reply);
            left.push(packet.bytes().to_vec());
        }
    }
    left
}

fn after(ms: u64) -> Duration {
    NOW + Duration::from_millis(ms)
}

fn open_to_all() -> Ce {
    ce_of(&ours(), |p| p.napt_params.filtering.tcp = Some(Filter::EndpointIndependent))
}

/// RFC 5382 REQ-4: no answer to an unsolicited SYN for 6 s; then port unreachable, once, by way of the BR as 3/3. One
/// drop is counted for each SYN, and one answer.
#[test]
fn unsolicited_syns_are_answered_after_6_s() {
    let (mut ce, mut br) = (open_to_all(), br());
    let syn = Make::new(Kind::Tcp { options: 5, flags: 2 }, 40_111, 1235, 0).v4(a4(SERVER4), a4(OWN4));
    let arrived = handle(&mut br, &syn).forwarded();
    let outcome = handle(&mut ce, &arrived);
    let silent = Verdict::Drop { reason: DropReason::NaptNoMapping, reply: false };
    assert_eq!((outcome.verdict, outcome.reply), (silent, None));
    // Sent again, it does not begin to wait anew.
    assert_eq!(handle_at(&mut ce, &arrived, after(3000)).verdict, silent);
    assert_eq!(ce.poll_timeout(), Some(after(6000)));
    assert_eq!(late(&mut ce, after(5999)), Vec::<Vec<u8>>::new());
    let told = late(&mut ce, after(6000));
    assert_eq!((told.len(), ce.poll_timeout()), (1, None));
    assert_valid(&told[0]);
    let (src, _, dst, _) = tuple(&told[0]);
    assert_eq!((src.as_str(), dst.as_str(), told[0][40], told[0][41]), ("2001:db8:ffff:0:c0:0:800:0", SERVER, 1, 4));
    assert_eq!(told[0][48..], arrived);
    let at_server = handle(&mut br, &told[0]).forwarded();
    assert_valid(&at_server);
    let (src, _, dst, _) = tuple(&at_server);
    assert_eq!((src.as_str(), dst.as_str(), at_server[20], at_server[21]), ("192.0.0.8", SERVER4, 3, 3));
    let (inner, sent) = (read4(&at_server[28..]), read4(&syn));
    assert_eq!((inner.src, inner.dst, &inner.payload), (sent.src, sent.dst, &sent.payload));
    let counters = ce.counters().snapshot();
    let counters = counters.direction(Direction::V6ToV4);
    assert_eq!((counters.received.packets, counters.dropped[DropReason::NaptNoMapping as usize].packets), (2, 2));
    assert_eq!((counters.replies.packets, counters.replies.octets), (1, told[0].len() as u64));
}

/// RFC 5382 REQ-4, REQ-2: the home's own SYN comes within 6 s, and the connection opens from both sides.
#[test]
fn simultaneous_open_forgets_the_unsolicited_syn() {
    let sent = tcp4(HOST, 40_000, SERVER4, 443, "S", b"");
    // The seed decides which port the first mapping gets.
    let port = open(&mut open_to_all(), &sent);
    let syn = tcp6(SERVER, 443, OWN, port, "S", b"");
    let mut ce = open_to_all();
    assert_eq!(handle(&mut ce, &syn).reason(), DropReason::NaptNoMapping);
    assert_eq!(tuple(&handle_at(&mut ce, &sent, after(5900)).forwarded()).1, port);
    assert_eq!(late(&mut ce, after(6100)), Vec::<Vec<u8>>::new());
    let again = handle_at(&mut ce, &syn, after(6200)).forwarded();
    assert_eq!(tuple(&again), (SERVER4.into(), 443, HOST.into(), 40_000));
    assert_eq!(late(&mut ce, after(20_000)), Vec::<Vec<u8>>::new());
    assert_eq!(ce.counters().snapshot().direction(Direction::V6ToV4).replies.packets, 0);
    // A mapping towards elsewhere lets the sender's next SYN in as well: nothing is unreachable.
    let mut ce = open_to_all();
    handle(&mut ce, &syn);
    assert_eq!(tuple(&handle(&mut ce, &tcp4(HOST, 40_000, "10.9.9.9", 80, "S", b"")).forwarded()).1, port);
    assert_eq!(late(&mut ce, after(20_000)), Vec::<Vec<u8>>::new());
}

/// RFC 5382 REQ-4a: silence where the filter is stricter, where answers are off, about what is no SYN, and about a flood
/// beyond 64; the limit on answers holds for these as well.
#[test]
fn unsolicited_syns_without_an_answer() {
    let syn = |n: u16| tcp6(SERVER, 10_000 + n, OWN, 1232 + n % 4, "S", b"");
    for filter in [None, Some(Filter::AddressDependent), Some(Filter::AddressAndPortDependent)] {
        let mut ce = ce_of(&ours(), |p| p.napt_params.filtering.tcp = filter);
        assert_eq!(handle(&mut ce, &syn(0)).reason(), DropReason::NaptNoMapping);
        assert_eq!(ce.poll_timeout(), None, "{filter:?}");
    }
    let with = |originate| {
        ce_of(&ours(), |p| {
            p.napt_params.filtering.tcp = Some(Filter::EndpointIndependent);
            p.icmp.originate = originate;
        })
    };
    let mut off = with(Originate::Off);
    handle(&mut off, &syn(0));
    assert_eq!(off.poll_timeout(), None);
    let mut ce = open_to_all();
    for flags in ["SA", "A", "R", "F", "SR"] {
        assert_eq!(handle(&mut ce, &tcp6(SERVER, 443, OWN, 1232, flags, b"")).reason(), DropReason::NaptNoMapping);
    }
    handle(&mut ce, &udp6(SERVER, 53, OWN, 1232, b""));
    handle(&mut ce, &tcp6(SERVER, 443, OWN, 1236, "S", b""));
    let first = Make { place: Place::First(10), ..Make::new(Kind::Tcp { options: 5, flags: 2 }, 443, 1232, 200) };
    assert_eq!(handle(&mut ce, &first.v6(a6(SERVER), a6(OWN))).reason(), DropReason::NaptNoMapping);
    // What is refused next is not taken for it.
    handle(&mut ce, &icmp6(SERVER, OWN, 1, 4, [0; 4], &tcp6(OWN, 1232, SERVER, 443, "S", b"")));
    assert_eq!(late(&mut ce, after(30_000)), Vec::<Vec<u8>>::new());
    let at = |ms: u64| after(30_000 + ms);
    (0..1000).for_each(|n| _ = handle_at(&mut ce, &syn(n), at(0)));
    let told = late(&mut ce, at(6000));
    let ports: Vec<u16> = told.iter().map(|reply| word(&reply[88..], 0) as u16).collect();
    assert_eq!(ports, (10_000..10_064).collect::<Vec<_>>(), "the first of them");
    let mut limited = with(Originate::Limited);
    (0..64).for_each(|n| _ = handle(&mut limited, &syn(n)));
    assert_eq!(late(&mut limited, after(6000)).len(), 50, "Linux's burst");
}

/// A change in between: answers go on where the customer's addresses and ports stay, under the filter then in force.
#[test]
fn unsolicited_syns_over_a_change() {
    let syn = tcp6(SERVER, 443, OWN, 1232, "S", b"");
    let with = |filter, udp| {
        let mut params = ce_params();
        params.napt_params.filtering.tcp = filter;
        params.napt_params.timers.udp = Duration::from_secs(udp);
        params
    };
    let open = Some(Filter::EndpointIndependent);
    let elsewhere = appendix_a(Some("2001:db8:21:100::/56"));
    for (provisioning, params, answers) in [
        (ours(), with(open, 600), 1),
        (ours(), with(None, 300), 0),
        (elsewhere, with(open, 300), 0),
        (appendix_a(None), with(open, 300), 0),
    ] {
        let mut ce = open_to_all();
        assert_eq!(handle(&mut ce, &syn).reason(), DropReason::NaptNoMapping);
        ce.replace(&mut Ce::prepare(&provisioning, &params), after(1000));
        assert_eq!(late(&mut ce, after(7000)).len(), answers);
    }
}

/// §4 of the design: a packet that is dropped takes no port and refreshes none.
#[test]
fn a_dropped_packet_takes_no_port() {
    let mut ce = ce();
    let too_big = Make { df: true, ..Make::new(UDP, 40_000, 53, 1500) }.v4(a4(HOST), a4(SERVER4));
    let outcome = handle(&mut ce, &too_big);
    assert_eq!((outcome.reason(), told4(&outcome, HOST)), (DropReason::TooBig, (3, 4)));
    assert_eq!(word(&outcome.reply.unwrap(), 26), 1480);
    let zero = Make { place: Place::First(40), ..Make::new(Kind::Udp { zero: true, slack: 0 }, 40_000, 53, 500) };
    assert_eq!(handle(&mut ce, &zero.v4(a4(HOST), a4(SERVER4))).reason(), DropReason::UdpChecksumZero);
    assert_eq!(ce.ports_in_use(Protocol::Udp), 0);
    open(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b""));
    // It would be kept alive until 500 s by this one.
    let at = |seconds| NOW + Duration::from_secs(seconds);
    assert_eq!(handle_at(&mut ce, &too_big, at(200)).reason(), DropReason::TooBig);
    ce.handle_timeout(at(301));
    assert_eq!(ce.ports_in_use(Protocol::Udp), 0);
}

/// NAT-5, NAT-13: mappings live for their time; outbound packets keep them, inbound ones and errors do not.
#[test]
fn nat13_idle_times() {
    let at = |seconds| NOW + Duration::from_secs(seconds);
    let udp = udp4(HOST, 40_000, SERVER4, 53, b"");
    let mut ce = ce();
    let port = open(&mut ce, &udp);
    let answer = udp6(SERVER, 53, OWN, port, b"");
    let quoted = udp6(OWN, port, SERVER, 53, b"");
    let error = icmp6(SERVER, OWN, 1, 4, [0; 4], &quoted);
    let complaint = icmp4(HOST, SERVER4, 3, 3, [0; 4], &udp4(SERVER4, 53, HOST, 40_000, b""));
    assert_eq!(handle_at(&mut ce, &answer, at(299)).verdict, Verdict::Forward);
    assert_eq!(handle_at(&mut ce, &error, at(299)).verdict, Verdict::Forward);
    assert_eq!(handle_at(&mut ce, &complaint, at(299)).verdict, Verdict::Forward);
    assert_eq!(handle_at(&mut ce, &answer, at(301)).reason(), DropReason::NaptNoMapping);
    assert_eq!(handle_at(&mut ce, &error, at(301)).reason(), DropReason::NaptNoMapping);
    assert_eq!(handle_at(&mut ce, &complaint, at(301)).reason(), DropReason::NaptNoMapping);
    // An echo has 60 s.
    let id = open(&mut ce, &echo4(HOST, SERVER4, 9, true, b""));
    assert_eq!(handle_at(&mut ce, &echo6(SERVER, OWN, id, false, b""), at(59)).verdict, Verdict::Forward);
    assert_eq!(handle_at(&mut ce, &echo6(SERVER, OWN, id, false, b""), at(62)).reason(), DropReason::NaptNoMapping);
}

/// NAT-14, BR-12: no port, no NAPT. The sender is told.
#[test]
fn protocols_without_ports_behind_napt() {
    for number in [47, 50, 132, 59] {
        let packet = Make::new(Kind::Other(number), 0, 0, 40).v4(a4(HOST), a4(SERVER4));
        let outcome = handle(&mut ce(), &packet);
        assert_eq!((outcome.reason(), told4(&outcome, HOST)), (DropReason::NaptUnsupported, (3, 13)));
        let packet = Make::new(Kind::Other(number), 0, 0, 40).v6(a6(SERVER), a6(OWN));
        assert_eq!(handle(&mut ce(), &packet).reason(), DropReason::ProtocolWithoutPort);
    }
}

/// FRAG-1, NAT-9: a first fragment has its port; a later one has none without a table.
#[test]
fn fragments_behind_napt() {
    let make = |place| Make { place, ..Make::new(UDP, 40_000, 53, 1000) };
    let mut ce = ce();
    let out = handle(&mut ce, &make(Place::First(50)).v4(a4(HOST), a4(SERVER4))).forwarded();
    let first = read6(&out);
    assert!(in_set(word(&first.payload, 0) as u16));
    assert_eq!(first.fragment.map(|f| (f.id, f.offset, f.more)), Some((0x1234, 0, true)));
    // The checksum is that of the whole datagram, with the new port and addresses.
    let mut whole = make(Place::Whole).upper(&a4(HOST), &a4(SERVER4));
    whole[..2].copy_from_slice(&first.payload[..2]);
    complete(&mut whole, 17, &first.src, &first.dst);
    assert_eq!(first.payload, whole[..400]);
    let mut ce = ce_of(&ours(), |p| p.fragments.packets = 0);
    let outcome = handle(&mut ce, &make(Place::Later(50, false)).v4(a4(HOST), a4(SERVER4)));
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::FragmentWithoutPort, None));
    let outcome = handle(&mut ce, &make(Place::Later(50, false)).v6(a6(SERVER), a6(OWN)));
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::FragmentWithoutPort, None));
}

/// MTU-5: DF clear and too large for `lowest-ipv6`: translated once, then cut; one input, one mapping.
#[test]
fn mtu5_a_large_packet_of_the_home_is_cut() {
    let mut ce = ce();
    let make = Make { id: 0xfeed, ..Make::new(UDP, 40_000, 53, 1400) };
    let outcome = handle(&mut ce, &make.v4(a4(HOST), a4(SERVER4)));
    let mut whole = Vec::new();
    for out in &outcome.packets {
        let out = read6(out);
        assert_eq!(out.fragment.map(|f| (f.id, f.offset)), Some((0xfeed, whole.len())));
        whole.extend(out.payload);
    }
    assert_eq!((outcome.packets.len(), whole.len()), (2, 1408));
    let before = whole.clone();
    complete(&mut whole, 17, &a6(OWN), &a6(SERVER));
    assert_eq!(before, whole);
    let counters = ce.counters().snapshot();
    let counters = counters.direction(Direction::V4ToV6);
    assert_eq!((counters.received.packets, counters.forwarded.packets), (1, 1));
    assert_eq!(counters.forwarded.octets, outcome.packets.iter().map(|p| p.len() as u64).sum::<u64>());
    assert_eq!(ce.ports_in_use(Protocol::Udp), 1);
}

// ICMP errors.

/// NAT-12, ICMP-3: an error of the Internet about a packet of the home reaches its host; everything inside is turned
/// back, checksums included.
#[test]
fn nat12_an_error_from_the_internet() {
    let mut ce = ce();
    let sent = [
        udp4(HOST, 40_000, SERVER4, 53, b"question"),
        tcp4(HOST, 40_000, SERVER4, 443, "S", b""),
        echo4(HOST, SERVER4, 40_000, true, b"ping"),
    ];
    for sent in sent {
        let quoted = handle(&mut ce, &sent).forwarded();
        for (reporter, seen) in
            [(SERVER, SERVER4), ("2001:db8:ffff:0:a:909:900:0", "10.9.9.9"), ("2001:db8:dead::1", "192.0.0.8")]
        {
            let out = handle(&mut ce, &icmp6(reporter, OWN, 1, 0, [0; 4], &quoted)).forwarded();
            assert_valid(&out);
            let (src, _, dst, _) = tuple(&out);
            assert_eq!((src.as_str(), dst.as_str(), out[20], out[21]), (seen, HOST, 3, 1));
            // The Identification alone is another one.
            let (inner, sent) = (read4(&out[28..]), read4(&sent));
            assert_eq!(Packet4 { id: sent.id, df: sent.df, ..inner }, sent);
        }
    }
}

/// NAT-12: errors about what nobody sent, or what another customer sent.
#[test]
fn nat12_errors_that_match_nothing() {
    let mut ce = ce();
    let port = open(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b""));
    for (quoted, reason) in [
        (udp6(OWN, port ^ 1, SERVER, 53, b""), DropReason::NaptNoMapping),
        (tcp6(OWN, port, SERVER, 53, "S", b""), DropReason::NaptNoMapping),
        (udp6(OWN, 1236, SERVER, 53, b""), DropReason::DestinationPortOutsideSet),
        (udp6(OWN, 80, SERVER, 53, b""), DropReason::DestinationPortOutsideSet),
        (udp6("2001:db8:12:3400::1", port, SERVER, 53, b""), DropReason::DestinationNotOurs),
        (udp6(OWN, port, "2001:db8:8000::1", 53, b""), DropReason::SourceNotMap),
        // To a neighbour by FMR, with a port that is not the neighbour's.
        (udp6(OWN, port, NEIGHBOUR, 1032, b""), DropReason::PortOutsideSet),
    ] {
        let outcome = handle(&mut ce, &icmp6(SERVER, OWN, 1, 4, [0; 4], &quoted));
        assert_eq!((outcome.reason(), outcome.reply), (reason, None));
    }
    let quoted = udp6(OWN, port, SERVER, 53, b"");
    let outcome = handle(&mut ce, &icmp6(SERVER, "2001:db8:12:3400::1", 1, 4, [0; 4], &quoted));
    assert_eq!(outcome.reason(), DropReason::DestinationNotOurs);
}

/// NAT-12, RFC 5508 REQ-5: an error of a host, or of a router in the home, leaves as from the customer's own address.
#[test]
fn nat12_an_error_of_the_home() {
    let mut ce = ce();
    let port = open(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b""));
    let received = handle(&mut ce, &udp6(SERVER, 53, OWN, port, b"unwanted")).forwarded();
    for (reporter, kind, code, expected) in
        [(HOST, 3, 3, [1, 4]), ("192.168.1.254", 11, 0, [3, 0]), ("127.0.0.1", 3, 1, [1, 0])]
    {
        let out = handle(&mut ce, &icmp4(reporter, SERVER4, kind, code, [0; 4], &received)).forwarded();
        assert_valid(&out);
        let (src, _, dst, _) = tuple(&out);
        assert_eq!((src.as_str(), dst.as_str(), &out[40..42]), (OWN, SERVER, &expected[..]));
        assert_eq!(out[48..], udp6(SERVER, 53, OWN, port, b"unwanted"));
        // And the BR passes it on (BR-3).
        let at_server = handle(&mut br(), &out).forwarded();
        let (src, _, dst, _) = tuple(&at_server);
        assert_eq!((src.as_str(), dst.as_str()), (OWN4, SERVER4));
    }
    let id = open(&mut ce, &echo4(HOST, SERVER4, 77, true, b""));
    let received = handle(&mut ce, &echo6(SERVER, OWN, id, false, b"late")).forwarded();
    let out = handle(&mut ce, &icmp4(HOST, SERVER4, 3, 2, [0; 4], &received)).forwarded();
    assert_valid(&out);
    assert_eq!(out[48..], echo6(SERVER, OWN, id, false, b"late"));
    // About what never came through the NAPT.
    let outcome = handle(&mut ce, &icmp4(HOST, SERVER4, 3, 3, [0; 4], &udp4(SERVER4, 53, HOST, 40_001, b"")));
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::NaptNoMapping, None));
}

/// ICMP-1, CE-12, RFC 5508 REQ-5: without NAPT, a router of the home reports with an address that means nothing
/// outside. Then the host that it could not reach is the reporter, so that traceroute and PMTUD reach into the home.
#[test]
fn ce12_errors_of_routers_in_the_home() {
    // A full address, a prefix of 16 addresses, and the address that is shared.
    for (rules, end_user, host, other, map) in [
        (rule("2001:db8::/40", "192.0.2.0/24", 8), "2001:db8:12::/48", OWN4, "192.0.2.19", "2001:db8:12::c000:212:0"),
        (
            rule("2001:db8::/40", "192.0.2.0/24", 4),
            "2001:db8:10::/44",
            "192.0.2.23",
            "192.0.2.32",
            "2001:db8:10::c000:217:0",
        ),
        (rule("2001:db8::/40", "192.0.2.0/24", 16), "2001:db8:12:3400::/56", OWN4, "192.0.2.19", OWN),
    ] {
        let provisioning = provisioning(vec![rules], "2001:db8:ffff::/64", Some(end_user));
        let mut ce = ce_of(&provisioning, |p| p.napt = false);
        for (kind, code, new) in [(11, 0, (3, 0)), (3, 4, (2, 0)), (3, 1, (1, 0))] {
            for reporter in ["192.168.1.254", "10.0.0.1", "100.64.0.1", other, "0.0.0.0", "8.8.8.8"] {
                let quoted = udp4(SERVER4, 53, host, 1234, b"question");
                let error = icmp4(reporter, SERVER4, kind, code, [0, 0, 5, 120], &quoted);
                let error =
                    if kind == 3 && code == 4 { error } else { icmp4(reporter, SERVER4, kind, code, [0; 4], &quoted) };
                let out = handle(&mut ce, &error).forwarded();
                assert_valid(&out);
                assert_eq!((out[40], out[41]), new);
                assert_eq!((tuple(&out).0.as_str(), tuple(&out).2.as_str()), (map, SERVER), "{reporter}");
                assert_eq!(out[48..], udp6(SERVER, 53, map, 1234, b"question"));
            }
            // What was not for the customer is nobody's to report on.
            let error = icmp4("192.168.1.254", SERVER4, kind, code, [0; 4], &udp4(SERVER4, 53, other, 1234, b""));
            assert_eq!(handle(&mut ce, &error).reason(), DropReason::SourceNotOurs);
        }
        // Only errors: a packet of such an address stays in the home.
        assert_eq!(handle(&mut ce, &udp4("192.168.1.254", 1234, SERVER4, 53, b"")).reason(), DropReason::SourceNotOurs);
        // A reporter that is the customer's keeps its own.
        let error = icmp4(host, SERVER4, 3, 3, [0; 4], &udp4(SERVER4, 53, host, 1234, b""));
        assert_eq!(tuple(&handle(&mut ce, &error).forwarded()).0, map);
    }
}

/// P38: every class through the CE, both ways, copied or with a DSCP of the operator's own.
#[test]
fn p38_every_traffic_class() {
    for (up, down) in [(None, None), (Some(46), None), (Some(1), Some(62))] {
        let mut ce = ce_of(&ours(), |p| {
            p.translation = TranslationParams { dscp_v4_to_v6: up, dscp_v6_to_v4: down, ..Default::default() };
        });
        let expected = |tos: u8, dscp: Option<u8>| dscp.map_or(tos, |dscp| dscp * 4 + tos % 4);
        for tos in 0..=255 {
            let make = |src, dst| Make { tos, id: 0xf_ffff, df: true, ..Make::new(UDP, src, dst, 20) };
            let out = handle(&mut ce, &make(40_000, 53).v4(a4(HOST), a4(SERVER4))).forwarded();
            assert_valid(&out);
            let read = Packet6::read(&out, false, &mut Vec::new()).unwrap();
            assert_eq!((read.class, read.flow_label), (expected(tos, up), 0));
            let out = handle(&mut ce, &make(53, tuple(&out).1).v6(a6(SERVER), a6(OWN))).forwarded();
            assert_valid(&out);
            assert_eq!(read4(&out).tos, expected(tos, down));
        }
    }
}

/// P37: the MSS of both ends, through the NAPT.
#[test]
fn p37_mss() {
    let clamp = TranslationParams { tcp_mss_clamp: MssClamp::Auto, ..Default::default() };
    let mut ce = ce_of(&ours(), |p| p.translation = clamp);
    let syn = |flags, src, dst| Make {
        tcp_options: vec![1, 2, 4, 5, 180, 1, 4, 2],
        ..Make::new(Kind::Tcp { options: 2, flags }, src, dst, 0)
    };
    let out = handle(&mut ce, &syn(2, 40_000, 443).v4(a4(HOST), a4(SERVER4))).forwarded();
    assert_valid(&out);
    assert_eq!(out[60..], [1, 2, 4, 5, 160, 1, 4, 2]);
    let out = handle(&mut ce, &syn(0x12, 443, tuple(&out).1).v6(a6(SERVER), a6(OWN))).forwarded();
    assert_valid(&out);
    assert_eq!(out[40..], [1, 2, 4, 5, 160, 1, 4, 2]);
}

/// P27: the home's tunnels without checksum, by the destination port as it comes and goes.
#[test]
fn p27_ports_without_checksum() {
    let mut ce = ce();
    let zero = Kind::Udp { zero: true, slack: 0 };
    let out = handle(&mut ce, &Make::new(zero, 40_000, 4789, 30).v4(a4(HOST), a4(SERVER4))).forwarded();
    assert_eq!(word(&out, 46), 0);
    let out = handle(&mut ce, &Make::new(zero, 40_000, 4790, 30).v4(a4(HOST), a4(SERVER4))).forwarded();
    assert_valid(&out);
    let port = tuple(&out).1;
    let back = Make::new(zero, 4789, port, 30).v6(a6(SERVER), a6(OWN));
    assert_eq!(handle(&mut ce, &back).reason(), DropReason::UdpChecksumZero);
    let list = PortList::new(&[port]).unwrap();
    let mut ce = ce_of(&ours(), |p| p.translation.udp_zero_checksum_ports = list);
    let out = handle(&mut ce, &Make::new(zero, 40_000, 4790, 30).v4(a4(HOST), a4(SERVER4))).forwarded();
    assert_eq!(tuple(&out).1, port, "the same seed");
    assert_eq!(word(&handle(&mut ce, &back).forwarded(), 26), 0);
}

/// P15: without NAPT, an error about a packet of somebody else.
#[test]
fn p15_errors_of_others_without_napt() {
    let mut ce = plain();
    let quoted = |dst: &str, port| udp4(SERVER4, 53, dst, port, b"");
    assert_eq!(handle(&mut ce, &icmp4(OWN4, SERVER4, 3, 3, [0; 4], &quoted(OWN4, 1234))).verdict, Verdict::Forward);
    for (reporter, dst, port) in [(OWN4, "192.0.2.19", 1234), (OWN4, "198.51.100.18", 1234), (OWN4, OWN4, 1236)] {
        let outcome = handle(&mut ce, &icmp4(reporter, SERVER4, 3, 3, [0; 4], &quoted(dst, port)));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceNotOurs, None), "{reporter} {dst} {port}");
    }
}

/// A TCP segment of the home or of the server, with its numbers.
fn segment(
    v6: bool,
    (src, sport): (&str, u16),
    (dst, dport): (&str, u16),
    letters: &str,
    seq: u32,
    ack: u32,
) -> Vec<u8> {
    let mut packet =
        if v6 { tcp6(src, sport, dst, dport, letters, b"") } else { tcp4(src, sport, dst, dport, letters, b"") };
    let at = if v6 { 40 } else { 20 };
    packet[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
    packet[at + 8..at + 12].copy_from_slice(&ack.to_be_bytes());
    let (head, upper) = packet.split_at_mut(at);
    match v6 {
        true => complete(upper, 6, &head[8..24], &head[24..40]),
        false => complete(upper, 6, &head[12..16], &head[16..20]),
    }
    packet
}

/// CE-14, NAT-6: on a shared address only addresses that the home sends to may send to a port of its own; by option
/// anybody may, or only the very endpoint. What is filtered is dropped silently, counted, and keeps nothing alive.
#[test]
fn ce14_filtering() {
    const OTHER: &str = "2001:db8:ffff:0:a:203:500:0";
    let of = |filter| Filtering { tcp: filter, udp: filter };
    for (filter, [port, addr]) in [
        (None, [true, false]),
        (Some(Filter::EndpointIndependent), [true, true]),
        (Some(Filter::AddressDependent), [true, false]),
        (Some(Filter::AddressAndPortDependent), [false, false]),
    ] {
        let mut ce = ce_of(&ours(), |p| p.napt_params.filtering = of(filter));
        let udp = open(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b""));
        let tcp = open(&mut ce, &tcp4(HOST, 40_000, SERVER4, 443, "S", b""));
        for (src, sport, admitted) in [(SERVER, 53, true), (SERVER, 54, port), (OTHER, 53, addr)] {
            let outcome = handle(&mut ce, &udp6(src, sport, OWN, udp, b""));
            let expected = if admitted { Verdict::Forward } else { outcome.verdict };
            assert_eq!(outcome.verdict, expected);
            if !admitted {
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::NaptFiltered, None), "{src} {sport}");
            }
        }
        let unsolicited = handle(&mut ce, &tcp6(OTHER, 9999, OWN, tcp, "S", b""));
        assert_eq!(unsolicited.verdict == Verdict::Forward, addr);
        // An error about a packet that the home never sent is filtered like an answer to it.
        let error = icmp6(OTHER, OWN, 1, 4, [0; 4], &udp6(OWN, udp, OTHER, 53, b""));
        assert_eq!(handle(&mut ce, &error).verdict == Verdict::Forward, addr);
        let counters = ce.counters().snapshot();
        let filtered = counters.direction(Direction::V6ToV4).dropped[DropReason::NaptFiltered as usize].packets;
        assert_eq!(filtered, u64::from(!port) + 3 * u64::from(!addr));
        assert_eq!((ce.flows(Protocol::Udp), ce.flows(Protocol::Tcp)), (1, 1), "strangers make no state");
        let at = |seconds| NOW + Duration::from_secs(seconds);
        handle_at(&mut ce, &udp6(OTHER, 53, OWN, udp, b""), at(299));
        ce.handle_timeout(at(301));
        assert_eq!(ce.ports_in_use(Protocol::Udp), 0);
    }
}

/// NAT-2, P39: when ports are few, two hosts share one towards different servers, and each gets its own answers and
/// its own errors.
#[test]
fn p39_shared_ports() {
    let mut ce = ce();
    let server = |n: u16| (format!("10.9.0.{n}"), format!("2001:db8:ffff:0:a:900:{n:x}00:0"));
    let mut ports = BTreeMap::<u16, Vec<u16>>::new();
    for n in 0..1000u16 {
        let (server4, _) = server(1 + n % 200);
        let port = open(&mut ce, &udp4(&format!("192.168.1.{}", n % 7), 20_000 + n, &server4, 53, b""));
        ports.entry(port).or_default().push(n);
    }
    assert_eq!((ports.len(), ce.ports_in_use(Protocol::Udp), ce.flows(Protocol::Udp)), (252, 252, 1000));
    assert!(ports.values().filter(|flows| flows.len() > 1).count() > 100);
    for (port, flows) in ports {
        for n in flows {
            let (server4, server6) = server(1 + n % 200);
            let home = format!("192.168.1.{}", n % 7);
            let answer = handle(&mut ce, &udp6(&server6, 53, OWN, port, b"")).forwarded();
            assert_eq!(tuple(&answer), (server4.clone(), 53, home.clone(), 20_000 + n));
            let error = icmp6(&server6, OWN, 1, 4, [0; 4], &udp6(OWN, port, &server6, 53, b""));
            assert_eq!(tuple(&handle(&mut ce, &error).forwarded()).2, home);
            // And the home's errors about what it received leave with the port that they are about.
            let complaint = icmp4(&home, &server4, 3, 3, [0; 4], &answer);
            let out = handle(&mut ce, &complaint).forwarded();
            assert_eq!(out[48..], udp6(&server6, 53, OWN, port, b""));
        }
    }
}

/// NAT-19: the numbers of a reset are read out of the packet, both families; it is translated in any case.
#[test]
fn nat19_a_forged_reset() {
    let at = |seconds| NOW + Duration::from_secs(seconds);
    for (forged, ends) in [(77_777_777, 7440), (9001, 240)] {
        let mut ce = ce();
        let port = open(&mut ce, &segment(false, (HOST, 40_000), (SERVER4, 443), "S", 1000, 0));
        let answer = segment(true, (SERVER, 443), (OWN, port), "SA", 9000, 1001);
        assert_valid(&handle(&mut ce, &answer).forwarded());
        handle(&mut ce, &segment(false, (HOST, 40_000), (SERVER4, 443), "A", 1001, 9001)).forwarded();
        let reset = handle(&mut ce, &segment(true, (SERVER, 443), (OWN, port), "R", forged, 0)).forwarded();
        assert_valid(&reset);
        assert_eq!(tuple(&reset), (SERVER4.into(), 443, HOST.into(), 40_000));
        for (seconds, flows) in [(ends - 1, 1), (ends, 0)] {
            ce.handle_timeout(at(seconds));
            assert_eq!(ce.flows(Protocol::Tcp), flows, "{forged} {seconds}");
        }
    }
}

// Neighbours.

/// P42, RULE-17, CE-10: CE to CE by a Forwarding Mapping Rule, without the BR; both behind their NAPTs.
#[test]
fn p42_ce_to_ce_by_fmr() {
    let (mut a, mut b) = (ce(), neighbour());
    // B talks to A's server first, so that its port is open.
    let out = handle(&mut b, &udp4("192.168.9.9", 6000, SERVER4, 53, b"")).forwarded();
    let b_port = tuple(&out).1;
    assert_eq!((b_port / 4) % 256, 1);
    let out = handle(&mut a, &udp4(HOST, 40_000, NEIGHBOUR4, b_port, b"hello")).forwarded();
    let (src, a_port, dst, port) = tuple(&out);
    assert_eq!((src.as_str(), dst.as_str(), port), (OWN, NEIGHBOUR, b_port));
    // B has not asked for A: both punch a hole, and A tries again (CE-14).
    let outcome = handle(&mut b, &out);
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::NaptFiltered, None));
    let back = handle(&mut b, &udp4("192.168.9.9", 6000, OWN4, a_port, b"hello yourself")).forwarded();
    let at_b = handle(&mut b, &out).forwarded();
    assert_valid(&at_b);
    assert_eq!(tuple(&at_b), (OWN4.into(), a_port, "192.168.9.9".into(), 6000));
    assert_eq!(tuple(&back), (NEIGHBOUR.into(), b_port, OWN.into(), a_port));
    let at_a = handle(&mut a, &back).forwarded();
    assert_eq!(tuple(&at_a), (NEIGHBOUR4.into(), b_port, HOST.into(), 40_000));

    // B's host complains: A's host is told by B's address.
    let error = handle(&mut b, &icmp4("192.168.9.9", OWN4, 3, 3, [0; 4], &at_b)).forwarded();
    let (src, _, dst, _) = tuple(&error);
    assert_eq!((src.as_str(), dst.as_str()), (NEIGHBOUR, OWN));
    let at_a = handle(&mut a, &error).forwarded();
    assert_valid(&at_a);
    let (src, _, dst, _) = tuple(&at_a);
    assert_eq!((src.as_str(), dst.as_str()), (NEIGHBOUR4, HOST));
    let inner = read4(&at_a[28..]);
    assert_eq!(
        (inner.src, word(&inner.payload, 0), inner.dst, word(&inner.payload, 2)),
        (a4(HOST), 40_000, a4(NEIGHBOUR4), b_port.into())
    );
}

/// P1, CE-10: a neighbour's source is checked against its port, address and interface id; the neighbour is told 1/5.
#[test]
fn ce10_a_spoofed_neighbour() {
    let mut ce = ce();
    let port = open(&mut ce, &udp4(HOST, 40_000, NEIGHBOUR4, 1028, b""));
    assert_eq!(handle(&mut ce, &udp6(NEIGHBOUR, 1029, OWN, port, b"")).verdict, Verdict::Forward);
    for (src, sport, reason) in [
        (NEIGHBOUR, 1032, DropReason::PortOutsideSet),
        (NEIGHBOUR, 53, DropReason::PortExcluded),
        ("2001:db8:21:100::1", 1029, DropReason::SourceMismatch),
        ("2001:db8:21:101:0:c000:221:1", 1029, DropReason::SourceMismatch),
    ] {
        let outcome = handle(&mut ce, &udp6(src, sport, OWN, port, b""));
        assert_eq!((outcome.reason(), told6(&outcome, src)), (reason, (1, 5)));
    }
    // Neither neighbour nor Internet.
    let outcome = handle(&mut ce, &udp6("2001:db8:8000::1", 1029, OWN, port, b""));
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceNotMap, None));
    let mut ce = ce_of(&ours(), |p| p.check_interface_id = false);
    let port = open(&mut ce, &udp4(HOST, 40_000, NEIGHBOUR4, 1028, b""));
    assert_eq!(handle(&mut ce, &udp6("2001:db8:21:101::1", 1029, OWN, port, b"")).verdict, Verdict::Forward);
    assert_eq!(handle(&mut ce, &udp6(NEIGHBOUR, 1032, OWN, port, b"")).reason(), DropReason::PortOutsideSet);
}

/// RULE-15, RULE-16: a rule that is not forwarding sends everything to the BR, and takes nothing from neighbours.
#[test]
fn rule15_hub_and_spoke() {
    let hub = RuleSpec { forwarding: false, ..rule("2001:db8::/40", "192.0.2.0/24", 16) };
    let provisioning = provisioning(vec![hub], "2001:db8:ffff::/64", Some("2001:db8:12:3400::/56"));
    let mut ce = ce_of(&provisioning, |_| ());
    let out = handle(&mut ce, &udp4(HOST, 40_000, NEIGHBOUR4, 1029, b"")).forwarded();
    let (_, port, dst, _) = tuple(&out);
    assert_eq!(dst, "2001:db8:ffff:0:c0:2:2100:0");
    assert_eq!(handle(&mut ce, &udp6(NEIGHBOUR, 1029, OWN, port, b"")).reason(), DropReason::SourceNotMap);
    // As the BR returns it (BR-17).
    let back = handle(&mut ce, &udp6("2001:db8:ffff:0:c0:2:2100:0", 1029, OWN, port, b"")).forwarded();
    assert_eq!(tuple(&back), (NEIGHBOUR4.into(), 1029, HOST.into(), 40_000));
}

/// RULE-17: an address of a rule, but a port of nobody: the BR judges.
#[test]
fn rule17_what_no_fmr_maps_goes_to_the_br() {
    for (dst, port, expected) in [
        (NEIGHBOUR4, 1029, NEIGHBOUR),
        (NEIGHBOUR4, 80, "2001:db8:ffff:0:c0:2:2100:0"),
        ("198.51.100.1", 1029, "2001:db8:ffff:0:c6:3364:100:0"),
    ] {
        assert_eq!(tuple(&handle(&mut ce(), &udp4(HOST, 40_000, dst, port, b"")).forwarded()).2, expected);
    }
}

/// NAT-11, R5508-3: an error of the home whose quote has a wrong header checksum is dropped behind a NAPT, silently; its
/// transport checksum may be what it will.
#[test]
fn nat11_an_error_that_quotes_a_broken_header() {
    let open_port = |ce: &mut Ce| {
        let port = open(ce, &udp4(HOST, 40_000, SERVER4, 53, b""));
        handle(ce, &udp6(SERVER, 53, OWN, port, b"question")).forwarded()
    };
    let mut ce = ce();
    let at_host = open_port(&mut ce);
    let error = |quoted: &[u8]| icmp4(HOST, SERVER4, 3, 3, [0; 4], quoted);
    for octet in [4, 8, 10] {
        let mut broken = at_host.clone();
        broken[octet] ^= 0x40;
        let outcome = handle(&mut ce, &error(&broken));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::IcmpInner, None), "octet {octet}");
    }
    let mut other_sum = at_host.clone();
    other_sum[26] ^= 0x40;
    for quoted in [&at_host, &other_sum] {
        let out = handle(&mut ce, &error(quoted)).forwarded();
        let (src, _, dst, _) = tuple(&out);
        assert_eq!((src.as_str(), dst.as_str()), (OWN, SERVER));
    }
    // Without a NAPT nothing is looked up by it.
    let mut broken = udp4(SERVER4, 53, OWN4, 1234, b"");
    broken[10] ^= 0x40;
    let error = icmp4(OWN4, SERVER4, 3, 3, [0; 4], &broken);
    assert_eq!(tuple(&handle(&mut plain(), &error).forwarded()).2, SERVER);
}

/// P42, NAT-7: two hosts of one home by their outside address; the second sees the first's outside address and port.
/// The kernel routes the packet, which has the CE's address at both ends, back to the CE.
#[test]
fn p42_hairpin_inside_one_home() {
    let mut ce = ce();
    let host = "192.168.1.20";
    let b_port = open(&mut ce, &udp4(host, 6000, SERVER4, 53, b""));
    let out = handle(&mut ce, &udp4(HOST, 40_000, OWN4, b_port, b"hello")).forwarded();
    let (src, a_port, dst, port) = tuple(&out);
    assert_eq!((src.as_str(), dst.as_str(), port), (OWN, OWN, b_port));
    assert_ne!(a_port, b_port);
    // The filter takes a neighbour in the home as anybody: both punch.
    assert_eq!(handle(&mut ce, &out).reason(), DropReason::NaptFiltered);
    handle(&mut ce, &udp4(host, 6000, OWN4, a_port, b"")).forwarded();
    let at_b = handle(&mut ce, &out).forwarded();
    assert_valid(&at_b);
    assert_eq!(tuple(&at_b), (OWN4.into(), a_port, host.into(), 6000));
    // And an error on the same way back.
    let error = handle(&mut ce, &icmp4(host, OWN4, 3, 3, [0; 4], &at_b)).forwarded();
    let at_a = handle(&mut ce, &error).forwarded();
    assert_valid(&at_a);
    let (src, _, dst, _) = tuple(&at_a);
    assert_eq!((src.as_str(), dst.as_str()), (OWN4, HOST));
    let inner = read4(&at_a[28..]);
    assert_eq!((inner.src, word(&inner.payload, 0), word(&inner.payload, 2)), (a4(HOST), 40_000, b_port.into()));
}

const HOST_B: &str = "192.168.1.20";

/// Whether what one host of the home has sent to another passes the CE on its way in.
fn turns_back(ce: &mut Ce, out: &[u8]) -> bool {
    let outcome = handle(ce, out);
    if outcome.verdict != Verdict::Forward {
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::NaptFiltered, None));
        return false;
    }
    assert_valid(&outcome.packets[0]);
    true
}

/// `to` of the home refuses the packet that reached it as `received`, sent as `sent` by `from`, who is told by the home's
/// own address about its own packet (RFC 5508 REQ-7).
fn a_refusal_turns_back(ce: &mut Ce, to: &str, received: &[u8], from: &str, sent: &[u8]) {
    let error = handle(ce, &icmp4(to, OWN4, 3, 3, [0; 4], received)).forwarded();
    assert_valid(&error);
    let (src, _, dst, _) = tuple(&error);
    assert_eq!((src.as_str(), dst.as_str(), error[40], error[41]), (OWN, OWN, 1, 4));
    let told = handle(ce, &error).forwarded();
    assert_valid(&told);
    let (src, _, dst, _) = tuple(&told);
    assert_eq!((src.as_str(), dst.as_str(), told[20], told[21]), (OWN4, from, 3, 3));
    let (inner, sent) = (read4(&told[28..]), read4(sent));
    assert_eq!(Packet4 { id: sent.id, df: sent.df, ..inner }, sent);
}

/// RFC 4787 REQ-9, RFC 5508 REQ-7, with own ports: a neighbour in the home is to the filter what anybody is, namely the
/// home's own address with its outside port. Errors go the same way as what they are about.
#[test]
fn hairpin_by_filter_with_own_ports() {
    for (filter, [at_once, address, endpoint]) in [
        (Filter::EndpointIndependent, [true, true, true]),
        (Filter::AddressDependent, [false, true, true]),
        (Filter::AddressAndPortDependent, [false, false, true]),
    ] {
        for tcp in [false, true] {
            let packet = |src: &str, sport, dst: &str, dport| {
                if tcp { tcp4(src, sport, dst, dport, "S", b"") } else { udp4(src, sport, dst, dport, b"data") }
            };
            let both = Filtering { tcp: Some(filter), udp: Some(filter) };
            let mut ce = ce_of(&ours(), |p| p.napt_params.filtering = both);
            let b_port = open(&mut ce, &packet(HOST_B, 6000, SERVER4, 53));
            let sent = packet(HOST, 40_000, OWN4, b_port);
            let out = handle(&mut ce, &sent).forwarded();
            let a_port = tuple(&out).1;
            assert_eq!(turns_back(&mut ce, &out), at_once, "{filter:?}");
            // To the same address, and a port of nobody.
            let elsewhere = (0..).map(|n| 1232 + n).find(|port| ![a_port, b_port].contains(port)).unwrap();
            assert_eq!(open(&mut ce, &packet(HOST_B, 6000, OWN4, elsewhere)), b_port);
            assert_eq!(turns_back(&mut ce, &out), address, "{filter:?}");
            assert_eq!(open(&mut ce, &packet(HOST_B, 6000, OWN4, a_port)), b_port);
            assert_eq!(turns_back(&mut ce, &out), endpoint, "{filter:?}");
            let at_b = handle(&mut ce, &out).forwarded();
            assert_eq!(tuple(&at_b), (OWN4.into(), a_port, HOST_B.into(), 6000));
            a_refusal_turns_back(&mut ce, HOST_B, &at_b, HOST, &sent);
            let answer = packet(HOST_B, 6000, OWN4, a_port);
            let back = handle(&mut ce, &answer).forwarded();
            let at_a = handle(&mut ce, &back).forwarded();
            assert_eq!(tuple(&at_a), (OWN4.into(), b_port, HOST.into(), 40_000));
            a_refusal_turns_back(&mut ce, HOST, &at_a, HOST_B, &answer);
        }
    }
}

/// The same where ports are shared: who has a port of its own is reached and answered by one who shares; two who share
/// do not find each other, whatever the filter says, as nobody outside finds them.
#[test]
fn hairpin_by_filter_with_shared_ports() {
    for filter in [Filter::EndpointIndependent, Filter::AddressDependent, Filter::AddressAndPortDependent] {
        let mut ce = ce_of(&ours(), |p| {
            p.napt_params.sharing.threshold = 100;
            p.napt_params.filtering.udp = Some(filter);
        });
        // The first endpoint alone has a port of its own.
        let own = open(&mut ce, &udp4(HOST_B, 6000, SERVER4, 53, b""));
        let sent = udp4(HOST, 40_000, OWN4, own, b"hello");
        let out = handle(&mut ce, &sent).forwarded();
        let shared = tuple(&out).1;
        assert_eq!(ce.napt().unwrap().shared_ports(Protocol::Udp), 1);
        let answer = udp4(HOST_B, 6000, OWN4, shared, b"hello");
        let back = handle(&mut ce, &answer).forwarded();
        assert_eq!(tuple(&back).1, own);
        let at_a = handle(&mut ce, &back).forwarded();
        assert_eq!(tuple(&at_a), (OWN4.into(), own, HOST.into(), 40_000));
        let at_b = handle(&mut ce, &out).forwarded();
        assert_eq!(tuple(&at_b), (OWN4.into(), shared, HOST_B.into(), 6000));
        a_refusal_turns_back(&mut ce, HOST_B, &at_b, HOST, &sent);
        a_refusal_turns_back(&mut ce, HOST, &at_a, HOST_B, &answer);
        let other = open(&mut ce, &udp4("192.168.1.30", 7000, SERVER4, 53, b""));
        assert_ne!(other, own);
        let knock = handle(&mut ce, &udp4(HOST, 40_001, OWN4, other, b"")).forwarded();
        assert!(!turns_back(&mut ce, &knock), "{filter:?}");
        // Nor does a refusal of what never came reach anybody.
        let forged = udp4(OWN4, tuple(&knock).1, "192.168.1.30", 7000, b"");
        let refused = handle(&mut ce, &icmp4("192.168.1.30", OWN4, 3, 3, [0; 4], &forged));
        assert_eq!(refused.reason(), DropReason::NaptNoMapping);
    }
}

/// R4787-1, R4787-3: the CE's own host (192.0.0.2) and a host of the LAN, with the same inside port, share the set and nothing else.
#[test]
fn the_ces_own_traffic_is_a_hosts() {
    const CE4: &str = "192.0.0.2";
    let mut ce = ce();
    let ports = [CE4, HOST].map(|host| {
        let port = open(&mut ce, &tcp4(host, 40_000, SERVER4, 443, "S", b""));
        let back = handle(&mut ce, &tcp6(SERVER, 443, OWN, port, "SA", b"")).forwarded();
        assert_eq!(tuple(&back), (SERVER4.into(), 443, host.into(), 40_000));
        port
    });
    assert_ne!(ports[0], ports[1]);
    // Together they have the 252 ports, and who comes late is told, whoever it is.
    let mut all = BTreeSet::new();
    for n in 0..126u16 {
        for host in [CE4, HOST] {
            assert!(all.insert(open(&mut ce, &udp4(host, 20_000 + n, SERVER4, 53, b""))));
        }
    }
    for host in [CE4, HOST] {
        let outcome = handle(&mut ce, &udp4(host, 30_000, SERVER4, 53, b""));
        assert_eq!((outcome.reason(), told4(&outcome, host)), (DropReason::NaptExhausted, (3, 13)));
    }
    // And they meet by the outside address.
    let ping = handle(&mut ce, &echo4(CE4, OWN4, 77, true, b"me")).forwarded();
    assert_eq!(tuple(&handle(&mut ce, &ping).forwarded()).2, CE4);
}

/// R5508-7, RFC 7857 §12: a host's echo to the home's own address comes back to it, and so does its answer.
#[test]
fn p42_a_hairpinned_echo() {
    let mut ce = ce();
    let out = handle(&mut ce, &echo4(HOST, OWN4, 77, true, b"me")).forwarded();
    let (src, id, dst, _) = tuple(&out);
    assert_eq!((src.as_str(), dst.as_str()), (OWN, OWN));
    let at_host = handle(&mut ce, &out).forwarded();
    assert_valid(&at_host);
    assert_eq!((tuple(&at_host), at_host[20]), ((OWN4.into(), 77, HOST.into(), 77), 8));
    let out = handle(&mut ce, &echo4(HOST, OWN4, 77, false, b"me")).forwarded();
    assert_eq!(tuple(&out).1, id);
    let back = handle(&mut ce, &out).forwarded();
    assert_eq!((tuple(&back), back[20]), ((OWN4.into(), 77, HOST.into(), 77), 0));
}

// Forwards.

/// A forward of the customer's port 1232 to a web server, and of 1233 to a name server.
fn with_forwards() -> Ce {
    let to = |protocol, port, inside_port| Forward {
        protocol,
        port,
        inside: Inside { addr: v4("192.168.1.20"), port: inside_port },
    };
    let forwards = vec![to(Protocol::Tcp, 1232, 80), to(Protocol::Udp, 1233, 53)];
    ce_of(&ours(), |p| p.napt_params.forwards = forwards)
}

/// A stranger reaches the server, the answer leaves by the forward's port, and only the answer makes a flow.
#[test]
fn a_forward_in_and_back() {
    const WEB: &str = "192.168.1.20";
    let mut ce = with_forwards();
    for port in 5000..5100 {
        let at_web = handle(&mut ce, &tcp6(SERVER, port, OWN, 1232, "S", b"")).forwarded();
        assert_valid(&at_web);
        assert_eq!(tuple(&at_web), (SERVER4.into(), port, WEB.into(), 80));
    }
    assert_eq!((ce.flows(Protocol::Tcp), ce.ports_in_use(Protocol::Tcp)), (0, 1));
    let back = handle(&mut ce, &tcp4(WEB, 80, SERVER4, 5000, "SA", b"")).forwarded();
    assert_valid(&back);
    assert_eq!(tuple(&back), (OWN.into(), 1232, SERVER.into(), 5000));
    assert_eq!((ce.flows(Protocol::Tcp), ce.ports_in_use(Protocol::Tcp)), (1, 1));
    // Of UDP, from a neighbour in the mesh.
    let at_web = handle(&mut ce, &udp6(NEIGHBOUR, 1028, OWN, 1233, b"question")).forwarded();
    assert_eq!(tuple(&at_web), (NEIGHBOUR4.into(), 1028, WEB.into(), 53));
    let back = handle(&mut ce, &udp4(WEB, 53, NEIGHBOUR4, 1028, b"answer")).forwarded();
    assert_eq!(tuple(&back), (OWN.into(), 1233, NEIGHBOUR.into(), 1028));
    // The same port of the other protocol, and its neighbours in the set, are as ever.
    for packet in [udp6(SERVER, 7, OWN, 1232, b""), tcp6(SERVER, 7, OWN, 1233, "S", b"")] {
        assert_eq!(handle(&mut ce, &packet).reason(), DropReason::NaptNoMapping);
    }
}

/// NAT-12: errors about what passes a forward, both ways, before there is any flow and after.
#[test]
fn errors_about_forwarded_traffic() {
    const WEB: &str = "192.168.1.20";
    let mut ce = with_forwards();
    // A service that does not run: the host says so.
    let question = udp6(SERVER, 5353, OWN, 1233, b"question");
    let at_web = handle(&mut ce, &question).forwarded();
    let error = handle(&mut ce, &icmp4(WEB, SERVER4, 3, 3, [0; 4], &at_web)).forwarded();
    assert_valid(&error);
    let (src, _, dst, _) = tuple(&error);
    assert_eq!((src.as_str(), dst.as_str(), &error[40..42]), (OWN, SERVER, &[1u8, 4][..]));
    assert_eq!(error[48..], question);
    // An answer that is too big for a link of the Internet.
    let answer = udp4(WEB, 53, SERVER4, 5353, b"answer");
    let outside = handle(&mut ce, &answer).forwarded();
    let error = handle(&mut ce, &icmp6(SERVER, OWN, 1, 4, [0; 4], &outside)).forwarded();
    assert_valid(&error);
    let (inner, sent) = (read4(&error[28..]), read4(&answer));
    assert_eq!((tuple(&error).2.as_str(), &error[20..22]), (WEB, &[3u8, 3][..]));
    assert_eq!(Packet4 { id: sent.id, df: sent.df, ..inner }, sent);
}

/// P42, NAT-7: another host of the home uses the forward by the outside address, and needs no punching.
#[test]
fn p42_hairpin_to_a_forward() {
    const WEB: &str = "192.168.1.20";
    let mut ce = with_forwards();
    let out = handle(&mut ce, &tcp4(HOST, 40_000, OWN4, 1232, "S", b"")).forwarded();
    let (src, a_port, dst, port) = tuple(&out);
    assert_eq!((src.as_str(), dst.as_str(), port), (OWN, OWN, 1232));
    let at_web = handle(&mut ce, &out).forwarded();
    assert_valid(&at_web);
    assert_eq!(tuple(&at_web), (OWN4.into(), a_port, WEB.into(), 80));
    let out = handle(&mut ce, &tcp4(WEB, 80, OWN4, a_port, "SA", b"")).forwarded();
    assert_eq!(tuple(&out), (OWN.into(), 1232, OWN.into(), a_port));
    let back = handle(&mut ce, &out).forwarded();
    assert_valid(&back);
    assert_eq!(tuple(&back), (OWN4.into(), 1232, HOST.into(), 40_000));
}

// Without NAPT.

/// CE-12, P15: a router behind a full address or prefix; everything else stays in the home, by name.
#[test]
fn p15_without_napt_only_the_customers_own_leaves() {
    let mut ce = plain();
    let out = handle(&mut ce, &udp4(OWN4, 1234, SERVER4, 53, b"")).forwarded();
    assert_eq!(tuple(&out), (OWN.into(), 1234, SERVER.into(), 53));
    for (src, port) in [(OWN4, 1236), (OWN4, 80), (OWN4, 5555), ("192.0.2.19", 1234), (HOST, 1234)] {
        let outcome = handle(&mut ce, &udp4(src, port, SERVER4, 53, b""));
        assert_eq!((outcome.reason(), told4(&outcome, src)), (DropReason::SourceNotOurs, (3, 13)), "{src} {port}");
    }
    let outcome = handle(&mut ce, &echo4(OWN4, SERVER4, 1236, true, b""));
    assert_eq!(outcome.reason(), DropReason::SourceNotOurs);
    let gre = Make::new(Kind::Other(47), 0, 0, 30).v4(a4(OWN4), a4(SERVER4));
    assert_eq!(handle(&mut ce, &gre).reason(), DropReason::ProtocolWithoutPort);
    let out = handle(&mut ce, &udp6(SERVER, 53, OWN, 1234, b"")).forwarded();
    assert_eq!(tuple(&out), (SERVER4.into(), 53, OWN4.into(), 1234));
    assert_eq!(handle(&mut ce, &udp6(SERVER, 53, OWN, 1236, b"")).reason(), DropReason::DestinationPortOutsideSet);
}

/// P10, CE-12, CE-13: a home with 203.0.113.16/28; each host has a MAP address of its own.
#[test]
fn p10_a_home_with_a_prefix() {
    let provisioning = provisioning(
        vec![rule("2001:db8:4000::/36", "203.0.113.0/24", 4)],
        "2001:db8:ffff::/64",
        Some("2001:db8:4100::/40"),
    );
    let mut ce = ce_of(&provisioning, |p| p.napt = false);
    for (host, mapped) in
        [("203.0.113.16", "2001:db8:4100::cb00:7110:0"), ("203.0.113.31", "2001:db8:4100::cb00:711f:0")]
    {
        let out = handle(&mut ce, &tcp4(host, 22, SERVER4, 99, "SA", b"")).forwarded();
        assert_eq!(tuple(&out), (mapped.into(), 22, SERVER.into(), 99));
        let out = handle(&mut ce, &tcp6(SERVER, 99, mapped, 22, "S", b"")).forwarded();
        assert_eq!(tuple(&out), (SERVER4.into(), 99, host.into(), 22));
        let gre = Make::new(Kind::Other(47), 0, 0, 30);
        assert_eq!(read6(&handle(&mut ce, &gre.v4(a4(host), a4(SERVER4))).forwarded()).src, a6(mapped));
        assert_eq!(read4(&handle(&mut ce, &gre.v6(a6(SERVER), a6(mapped))).forwarded()).dst, a4(host));
        // A later fragment needs no port here.
        let later = Make { place: Place::Later(50, false), ..Make::new(UDP, 1, 2, 900) };
        assert_eq!(read4(&handle(&mut ce, &later.v6(a6(SERVER), a6(mapped))).forwarded()).dst, a4(host));
        // One host's error about a packet to it.
        let error = icmp4(host, SERVER4, 3, 3, [0; 4], &udp4(SERVER4, 53, host, 7, b""));
        assert_eq!(tuple(&handle(&mut ce, &error).forwarded()).0, mapped);
    }
    assert_eq!(handle(&mut ce, &udp4("203.0.113.32", 22, SERVER4, 99, b"")).reason(), DropReason::SourceNotOurs);
    for dst in [
        "2001:db8:4100::cb00:7120:0",
        "2001:db8:4100::cb00:7110:1",
        "2001:db8:4100:1:0:cb00:7110:0",
        "2001:db8:4200::cb00:7120:0",
    ] {
        assert_eq!(handle(&mut ce, &udp6(SERVER, 99, dst, 22, b"")).reason(), DropReason::DestinationNotOurs, "{dst}");
    }
}

/// PORT-11, CE-12: a full address has all ports; behind a NAPT all but port 0.
#[test]
fn port11_a_full_address() {
    let provisioning = provisioning(
        vec![rule("2001:db8:5000::/40", "198.51.100.0/24", 8)],
        "2001:db8:ffff::/64",
        Some("2001:db8:5012::/48"),
    );
    let full = "2001:db8:5012::c633:6412:0";
    let mut ce = ce_of(&provisioning, |p| p.napt = false);
    for port in [0, 1, 80, 1023, 65535] {
        assert_eq!(tuple(&handle(&mut ce, &udp4("198.51.100.18", port, SERVER4, 53, b"")).forwarded()).1, port);
        assert_eq!(tuple(&handle(&mut ce, &udp6(SERVER, 53, full, port, b"")).forwarded()).3, port);
    }
    let mut ce = ce_of(&provisioning, |_| ());
    let out = handle(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b"")).forwarded();
    let (src, port, ..) = tuple(&out);
    assert_eq!(src, full);
    assert!(port >= 1024, "NAT-3: an inside port above 1023 stays above it");
    let out = handle(&mut ce, &udp4(HOST, 123, SERVER4, 123, b"")).forwarded();
    assert!((1..1024).contains(&tuple(&out).1), "NAT-3");
    // Nobody shares the address: anybody may send to a port that is somebody's (RFC 4787 REQ-8).
    let port = port_of_the_host(&mut ce, full);
    let stranger = handle(&mut ce, &udp6("2001:db8:ffff:0:a:203:500:0", 9, full, port, b"")).forwarded();
    assert_eq!(tuple(&stranger), ("10.2.3.5".into(), 9, HOST.into(), 40_000));
    // To its own outside address without punching; all ports are its own, low ones too, but port 0 is nobody's.
    let out = handle(&mut ce, &udp4(HOST_B, 6000, "198.51.100.18", port, b"")).forwarded();
    assert_eq!(tuple(&handle(&mut ce, &out).forwarded()).2, HOST);
    for port in [0, 7, 65_535] {
        let outcome = handle(&mut ce, &udp6(SERVER, 53, full, port, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::NaptNoMapping, None), "{port}");
    }
    let gre = handle(&mut ce, &Make::new(Kind::Other(47), 0, 0, 40).v4(a4(HOST), a4(SERVER4)));
    assert_eq!((gre.reason(), told4(&gre, HOST)), (DropReason::NaptUnsupported, (3, 13)));
}

/// The port by which the host's 40,000 leaves, by an answer to it.
fn port_of_the_host(ce: &mut Ce, full: &str) -> u16 {
    let port = tuple(&handle(ce, &udp4(HOST, 40_000, SERVER4, 53, b"")).forwarded()).1;
    let back = handle(ce, &udp6(SERVER, 53, full, port, b"")).forwarded();
    assert_eq!(tuple(&back), (SERVER4.into(), 53, HOST.into(), 40_000));
    port
}

/// CE-12: NAPT before a prefix: everybody leaves by its first address, with all ports; the others are nobody's.
#[test]
fn a_home_with_a_prefix_behind_napt() {
    let provisioning = provisioning(
        vec![rule("2001:db8:4000::/36", "203.0.113.0/24", 4)],
        "2001:db8:ffff::/64",
        Some("2001:db8:4100::/40"),
    );
    let (first, second) = ("2001:db8:4100::cb00:7110:0", "2001:db8:4100::cb00:7111:0");
    let forward = Forward { protocol: Protocol::Tcp, port: 22, inside: Inside { addr: v4(HOST_B), port: 2222 } };
    let mut ce = ce_of(&provisioning, |p| p.napt_params.forwards = vec![forward]);
    let mut ports = BTreeSet::new();
    for host in [HOST, HOST_B, "192.0.0.2", "203.0.113.17"] {
        let out = handle(&mut ce, &udp4(host, 40_000, SERVER4, 53, b"")).forwarded();
        assert_valid(&out);
        let (src, port, ..) = tuple(&out);
        assert_eq!(src, first);
        assert!(ports.insert(port) && port >= 1024);
        let back = handle(&mut ce, &udp6(SERVER, 53, first, port, b"")).forwarded();
        assert_eq!(tuple(&back), (SERVER4.into(), 53, host.into(), 40_000));
        let other = handle(&mut ce, &udp6(SERVER, 53, second, port, b""));
        assert_eq!((other.reason(), other.reply), (DropReason::NaptNoMapping, None));
    }
    let at_b = handle(&mut ce, &tcp6(SERVER, 40_111, first, 22, "S", b"")).forwarded();
    assert_eq!(tuple(&at_b), (SERVER4.into(), 40_111, HOST_B.into(), 2222));
    assert_eq!(handle(&mut ce, &tcp6(SERVER, 40_111, second, 22, "S", b"")).reason(), DropReason::NaptNoMapping);
    let outside = "2001:db8:4100::cb00:7120:0";
    assert_eq!(handle(&mut ce, &tcp6(SERVER, 40_111, outside, 22, "S", b"")).reason(), DropReason::DestinationNotOurs);
}

// Addresses.

/// CE-8, CE-13, RULE-13: only the MAP address itself, to the last bit.
#[test]
fn ce13_only_the_map_address() {
    for dst in [
        "2001:db8:12:3400::1",
        "2001:db8:12:3400:0:c000:212:35",
        "2001:db8:12:3400:0:c000:213:34",
        "2001:db8:12:3400:1:c000:212:34",
        "2001:db8:12:34ff:0:c000:212:34",
        "2001:db8:12:3500:0:c000:212:35",
        NEIGHBOUR,
        SERVER,
    ] {
        let outcome = handle(&mut plain(), &udp6(SERVER, 53, dst, 1234, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::DestinationNotOurs, None), "{dst}");
    }
}

/// P34, HDR-2, HDR-6: sources that cannot be, also inside the DMR.
#[test]
fn p34_illegal_sources() {
    for bad in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.1.1"] {
        let outcome = handle(&mut ce(), &udp4(bad, 40_000, SERVER4, 53, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceIllegal, None));
        let outcome = handle(&mut ce(), &udp4(HOST, 40_000, bad, 53, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::DestinationIllegal, None));
        let mut src = a6("2001:db8:ffff::");
        src[9..13].copy_from_slice(&a4(bad));
        let packet = Make::new(UDP, 53, 1234, 5).v6(src, a6(OWN));
        let outcome = handle(&mut plain(), &packet);
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceIllegal, None));
    }
    for bad in ["::", "::1", "fe80::1", "ff02::1"] {
        assert_eq!(handle(&mut plain(), &udp6(bad, 53, OWN, 1234, b"")).reason(), DropReason::SourceIllegal);
    }
}

/// DMR-10, RULE-12, P12: the CE uses the DMR of its own rule.
#[test]
fn rule12_the_dmr_of_the_basic_mapping_rule() {
    let own = RuleSpec {
        dmr_ipv6_prefix: Some(Dmr::new("2001:db8:eeee::/48".parse().unwrap()).unwrap()),
        ..rule("2001:db8:12:3400::/56", "198.51.100.7/32", 0)
    };
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16), own];
    // The longer Rule IPv6 prefix is the Basic Mapping Rule.
    let mut ce = ce_of(&provisioning(rules, "2001:db8:ffff::/64", Some("2001:db8:12:3400::/56")), |_| ());
    let out = handle(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b"")).forwarded();
    let (src, port, dst, _) = tuple(&out);
    assert_eq!((src.as_str(), dst.as_str()), ("2001:db8:12:3400:0:c633:6407:0", "2001:db8:eeee:a02:3:400::"));
    let back = udp6("2001:db8:eeee:a02:3:400::", 53, &src, port, b"");
    assert_eq!(tuple(&handle(&mut ce, &back).forwarded()), (SERVER4.into(), 53, HOST.into(), 40_000));
    assert_eq!(handle(&mut ce, &udp6(SERVER, 53, &src, port, b"")).reason(), DropReason::SourceNotMap);
    // A neighbour of the other rule, by FMR.
    assert_eq!(tuple(&handle(&mut ce, &udp4(HOST, 40_000, NEIGHBOUR4, 1029, b"")).forwarded()).2, NEIGHBOUR);
}

/// DMR-7: nothing private through the Well-Known Prefix.
#[test]
fn dmr7_the_well_known_prefix() {
    let provisioning =
        provisioning(vec![rule("2001:db8::/40", "5.6.7.0/24", 16)], "64:ff9b::/96", Some("2001:db8:12:3400::/56"));
    let mut ce = ce_of(&provisioning, |_| ());
    let outcome = handle(&mut ce, &udp4(HOST, 40_000, "10.2.3.4", 53, b""));
    assert_eq!((outcome.reason(), told4(&outcome, HOST)), (DropReason::AddressNotGlobal, (3, 13)));
    assert_eq!(ce.ports_in_use(Protocol::Udp), 0);
    let out = handle(&mut ce, &udp4(HOST, 40_000, "8.8.8.8", 53, b"")).forwarded();
    assert_eq!(tuple(&out).2, "64:ff9b::808:808");
}

/// CE-17, design §4: no prefix, or one that no rule covers: idle, and it says so.
#[test]
fn ce17_without_a_prefix() {
    for end_user in [None, Some("2001:db8:ff12:3400::/56")] {
        let mut ce = ce_of(&appendix_a(end_user), |_| ());
        let outcome = handle(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b""));
        assert_eq!((outcome.reason(), told4(&outcome, HOST)), (DropReason::Unprovisioned, (3, 13)));
        let outcome = handle(&mut ce, &udp6(SERVER, 53, OWN, 1234, b""));
        assert_eq!(outcome.reason(), DropReason::Unprovisioned);
        assert_eq!((ce.poll_timeout(), ce.ports_in_use(Protocol::Udp)), (None, 0));
        ce.handle_timeout(NOW);
        for nonsense in [&[][..], &[0x45; 3], &[0x60; 41], &[0xff; 100]] {
            assert_eq!(handle(&mut ce, nonsense).reason(), DropReason::Unprovisioned);
        }
    }
}

/// BR-7, ICMP-10: the home's answers too are limited, and never about errors.
#[test]
fn answers_are_rate_limited() {
    let mut ce = ce_of(&ours(), |p| {
        p.icmp.originate = Originate::Limited;
        p.napt = false;
    });
    let packet = udp4(HOST, 40_000, SERVER4, 53, b"");
    let answers = (0..1000).filter(|_| handle(&mut ce, &packet).reply.is_some()).count();
    assert!((1..500).contains(&answers), "{answers}");
    assert!(handle_at(&mut ce, &packet, NOW * 10).reply.is_some());
    let error = icmp4(HOST, SERVER4, 3, 3, [0; 4], &udp4(SERVER4, 53, HOST, 40_000, b""));
    assert_eq!(handle_at(&mut ce, &error, NOW * 20).reply, None);
}

/// MTU-3, NAT-9, P32: what the home is told about packets that cannot go on quotes them as the home sent them.
#[test]
fn nat9_answers_quote_the_inside_packet() {
    let translation = TranslationParams {
        mtu: Mtu { ipv6: 1400, ..Mtu::default() },
        decrement_hop_limit: true,
        ..Default::default()
    };
    let mut ce = ce_of(&ours(), |p| p.translation = translation);
    let big = Make { df: true, ..Make::new(UDP, 40_000, 53, 1400) }.v4(a4(HOST), a4(SERVER4));
    let reply = handle(&mut ce, &big).reply.unwrap();
    assert_eq!((reply[20], reply[21], word(&reply, 26)), (3, 4, 1380));
    assert_eq!(reply[28..], big[..548]);
    let last_hop = Make { ttl: 1, ..Make::new(UDP, 40_000, 53, 10) }.v4(a4(HOST), a4(SERVER4));
    let outcome = handle(&mut ce, &last_hop);
    assert_eq!((outcome.reason(), told4(&outcome, HOST)), (DropReason::HopLimit, (11, 0)));
    assert_eq!(outcome.reply.unwrap()[28..], last_hop);
}

/// The whole way: home, CE, BR, server and back, as the server and the host see it.
#[test]
fn through_ce_and_br() {
    let (mut ce, mut br): (Ce, Br) = (ce(), br());
    let sent = Make { tos: 0x2e, ..Make::new(Kind::Tcp { options: 5, flags: 2 }, 40_000, 443, 0) };
    let at_server = handle(&mut br, &handle(&mut ce, &sent.v4(a4(HOST), a4(SERVER4))).forwarded()).forwarded();
    assert_valid(&at_server);
    let (src, port, dst, dport) = tuple(&at_server);
    assert_eq!((src.as_str(), dst.as_str(), dport), (OWN4, SERVER4, 443));
    assert!(in_set(port));
    let answer = Make { tos: 0x01, ..Make::new(Kind::Tcp { options: 5, flags: 0x12 }, 443, port, 0) };
    let at_host = handle(&mut ce, &handle(&mut br, &answer.v4(a4(SERVER4), a4(OWN4))).forwarded()).forwarded();
    assert_valid(&at_host);
    assert_eq!(tuple(&at_host), (SERVER4.into(), 443, HOST.into(), 40_000));
    // The server's router finds a packet too big; the host learns the MTU that its own packets may have.
    let quoted = Make { df: true, ..Make::new(Kind::Tcp { options: 5, flags: 0x10 }, 40_000, 443, 1400) };
    let at_router = handle(&mut br, &handle(&mut ce, &quoted.v4(a4(HOST), a4(SERVER4))).forwarded()).forwarded();
    let error = icmp4("10.9.9.9", OWN4, 3, 4, [0, 0, 5, 0x14], &at_router[..200]);
    let at_host = handle(&mut ce, &handle(&mut br, &error).forwarded()).forwarded();
    assert_valid(&at_host);
    assert_eq!((tuple(&at_host).0.as_str(), word(&at_host, 26)), ("10.9.9.9", 1300));
    let inner = Packet4::read(&at_host[28..], true, &mut Vec::new()).unwrap();
    let original = read4(&quoted.v4(a4(HOST), a4(SERVER4)));
    assert_eq!(
        (inner.src, inner.dst, inner.announced, inner.df),
        (original.src, original.dst, original.announced, true)
    );
    assert_eq!(inner.payload[..], original.payload[..inner.payload.len()]);
}
