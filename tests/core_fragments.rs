//! Fragments of packets whose ports matter, in both roles. Ids: P = pitfalls, others = requirements.
//!
//! What goes out is put together again by hand, octet by octet, and judged by etherparse.

mod common;
mod oracle;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use mapt::br::Br;
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::frag::{FragParams, FragTable};
use mapt::siit::UdpZeroChecksum;
use mapt::verdict::{Direction, DropReason, Verdict};
use oracle::packet::{Packet4, Packet6, Piece, word};

/// RFC 7597 Appendix A: 192.0.2.18 with PSID 0x34 has the ports 1232-1235, 2256-2259, ..., 64720-64723.
const CE: &str = "2001:db8:12:3400:0:c000:212:34";
const CE4: &str = "192.0.2.18";
/// 10.2.3.4 behind the DMR.
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER4: &str = "10.2.3.4";
const HOST: &str = "192.168.1.10";
const PORT: u16 = 2257;

/// A datagram cut where one likes: `at` are offsets in octets, multiples of 8.
fn cut4(whole: &[u8], id: u16, at: &[usize]) -> Vec<Vec<u8>> {
    let mut faults = Vec::new();
    let base = Packet4::read(whole, false, &mut faults).unwrap();
    assert_eq!(faults, []);
    let ends = at.iter().skip(1).copied().chain([base.payload.len()]);
    let piece = |from: usize, to: usize| {
        let payload = base.payload[from..to].to_vec();
        let mf = to < base.payload.len();
        Packet4 { id, df: false, mf, offset: from, announced: payload.len(), payload, ..base.clone() }.write()
    };
    at.iter().copied().zip(ends).map(|(from, to)| piece(from, to)).collect()
}

fn cut6(whole: &[u8], id: u32, at: &[usize]) -> Vec<Vec<u8>> {
    let mut faults = Vec::new();
    let base = Packet6::read(whole, false, &mut faults).unwrap();
    assert_eq!(faults, []);
    let ends = at.iter().skip(1).copied().chain([base.payload.len()]);
    let piece = |from: usize, to: usize| {
        let payload = base.payload[from..to].to_vec();
        let fragment = Some(Piece { id, offset: from, more: to < base.payload.len() });
        Packet6 { fragment, announced: payload.len(), payload, ..base.clone() }.write()
    };
    at.iter().copied().zip(ends).map(|(from, to)| piece(from, to)).collect()
}

/// Puts fragments of either family together and returns the whole packet, which etherparse judges.
fn whole(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut faults = Vec::new();
    let mut payload = Vec::new();
    let mut parts = Vec::new();
    for fragment in fragments {
        match fragment[0] >> 4 {
            4 => {
                let p = Packet4::read(fragment, false, &mut faults).unwrap();
                let base = Packet4 { mf: false, offset: 0, announced: 0, payload: vec![], ..p.clone() };
                parts.push((p.offset, p.mf, u32::from(p.id), p.payload, base.write()));
            }
            _ => {
                let p = Packet6::read(fragment, false, &mut faults).unwrap();
                let place = p.fragment.expect("a fragment");
                let base = Packet6 { fragment: None, announced: 0, payload: vec![], ..p.clone() };
                parts.push((place.offset, place.more, place.id, p.payload, base.write()));
            }
        }
    }
    assert_eq!(faults, []);
    parts.sort_by_key(|part| part.0);
    let base = parts[0].4.clone();
    let id = parts[0].2;
    for (n, (offset, more, its_id, octets, header)) in parts.iter().enumerate() {
        assert_eq!(*offset, payload.len(), "no hole and no overlap");
        assert_eq!(*more, n + 1 < parts.len());
        assert_eq!(*its_id, id);
        assert_eq!(header, &base);
        payload.extend(octets);
    }
    let out = match base[0] >> 4 {
        4 => {
            let p = Packet4::read(&base, false, &mut faults).unwrap();
            Packet4 { announced: payload.len(), payload, ..p }.write()
        }
        _ => {
            let p = Packet6::read(&base, false, &mut faults).unwrap();
            Packet6 { announced: payload.len(), payload, ..p }.write()
        }
    };
    assert_valid(&out);
    out
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Every order of `n` things.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for order in orders(n - 1) {
        for at in 0..=order.len() {
            let mut longer = order.clone();
            longer.insert(at, n - 1);
            all.push(longer);
        }
    }
    all
}

fn drops(engine: &dyn Engine, direction: Direction, reason: DropReason) -> u64 {
    engine.counters().snapshot().direction(direction).dropped[reason as usize].packets
}

fn held(engine: &dyn Engine, direction: Direction) -> u64 {
    engine.counters().snapshot().direction(direction).held
}

/// Sends them and checks what is held when; returns what came out in its order.
fn send(engine: &mut dyn Engine, fragments: &[Vec<u8>], order: &[usize]) -> Vec<Vec<u8>> {
    let first = order.iter().position(|n| *n == 0).unwrap();
    let mut out = Vec::new();
    for (k, n) in order.iter().enumerate() {
        let outcome = handle(engine, &fragments[*n]);
        let expected = if k < first { Verdict::Held } else { Verdict::Forward };
        assert_eq!(outcome.verdict, expected, "{order:?}, fragment {n}");
        // FRAG-8: the first one, then those that waited in the order in which they came.
        let released = if k == first { first + 1 } else { usize::from(k > first) };
        assert_eq!(outcome.packets.len(), released, "{order:?}, fragment {n}");
        out.extend(outcome.packets);
    }
    let offsets = |packets: &[Vec<u8>]| packets.iter().map(|p| offset(p)).collect::<Vec<_>>();
    let mut expected: Vec<usize> = vec![0];
    expected.extend(order.iter().filter(|n| **n != 0));
    let expected: Vec<Vec<u8>> = expected.iter().map(|n| fragments[*n].clone()).collect();
    assert_eq!(offsets(&out), offsets(&expected), "{order:?}");
    out
}

fn offset(packet: &[u8]) -> usize {
    match packet[0] >> 4 {
        4 => word(packet, 6) % 0x2000 * 8,
        _ => word(packet, 42) / 8 * 8,
    }
}

/// FRAG-1, FRAG-2, FRAG-8, NAT-9, P26: in every order, both ways, both roles, TCP and UDP, every fragment gets through
/// and what is put together again has the right checksum.
#[test]
fn frag1_every_order_gets_through() {
    for tcp in [false, true] {
        let data = body(4000 - 8);
        let (v4_in, v6_in) = match tcp {
            false => (udp4(SERVER4, 53, CE4, PORT, &data), udp6(CE, PORT, SERVER, 53, &data)),
            true => (tcp4(SERVER4, 53, CE4, PORT, "A", &data), tcp6(CE, PORT, SERVER, 53, "A", &data)),
        };
        for order in orders(4) {
            let at = [0, 1200, 2000, 2808];
            let mut br = br();
            let out = whole(&send(&mut br, &cut4(&v4_in, 0xabcd, &at), &order));
            assert_eq!(tuple(&out), (SERVER.into(), 53, CE.into(), PORT));
            assert_eq!(out[40..].len(), v4_in[20..].len());
            let out = whole(&send(&mut br, &cut6(&v6_in, 0x7654_3210, &at), &order));
            assert_eq!(tuple(&out), (CE4.into(), PORT, SERVER4.into(), 53));
            assert_eq!(held(&br, Direction::V4ToV6) + held(&br, Direction::V6ToV4), 0);

            let mut ce = ce();
            let home = match tcp {
                false => udp4(HOST, 40_000, SERVER4, 53, &data),
                true => tcp4(HOST, 40_000, SERVER4, 53, "S", &data),
            };
            let out = whole(&send(&mut ce, &cut4(&home, 0x1234, &at), &order));
            let (src, port, dst, dport) = tuple(&out);
            assert_eq!((src.as_str(), dst.as_str(), dport), (CE, SERVER, 53));
            assert!(port >= 1024 && (port / 4) % 256 == 0x34);
            let back = match tcp {
                false => udp6(SERVER, 53, CE, port, &data),
                true => tcp6(SERVER, 53, CE, port, "SA", &data),
            };
            let out = whole(&send(&mut ce, &cut6(&back, 0x1234_9999, &at), &order));
            assert_eq!(tuple(&out), (SERVER4.into(), 53, HOST.into(), 40_000));
            assert_eq!(word(&out, 4), 0x9999, "the low 16 bits of the Identification");
        }
    }
}

/// Both roles behind each other, as a home's packet of 4,000 octets passes.
#[test]
fn through_ce_and_br_and_back() {
    let data = body(4000);
    let (mut ce, mut br) = (ce(), br());
    let sent = udp4(HOST, 40_000, SERVER4, 53, &data);
    let parts = cut4(&sent, 0x4321, &[0, 1480, 2960]);
    let middle: Vec<Vec<u8>> = [2, 0, 1].iter().flat_map(|n| handle(&mut ce, &parts[*n]).packets).collect();
    // 1500 octets of IPv4 with DF = 0 are cut again to 1280 (MTU-5); the BR takes the pieces as they come.
    assert_eq!(middle.len(), 5);
    let mut out = Vec::new();
    for fragment in middle.iter().rev() {
        out.extend(handle(&mut br, fragment).packets);
    }
    let arrived = whole(&out);
    assert_eq!(arrived[28..], sent[28..]);
    assert_eq!(word(&arrived, 4), 0x4321, "HDR table: the Identification survives both translations");
}

/// FRAG-2: what is early is held for at least 2 s, and is given up then.
#[test]
fn frag2_held_for_so_long_and_no_longer() {
    let parts = cut4(&udp4(SERVER4, 53, CE4, PORT, &body(2000)), 7, &[0, 1000, 1600]);
    let at = |ms| NOW + Duration::from_millis(ms);
    let mut br = br();
    assert_eq!(handle_at(&mut br, &parts[1], at(0)).verdict, Verdict::Held);
    assert_eq!(handle_at(&mut br, &parts[2], at(1500)).verdict, Verdict::Held);
    assert_eq!(held(&br, Direction::V4ToV6), 2);
    assert_eq!(handle_at(&mut br, &parts[0], at(2000)).packets.len(), 3, "at the last moment");

    let due = at(2000) + Duration::from_nanos(1);
    for late_first in [true, false] {
        let mut br = common::br();
        assert_eq!(br.poll_timeout(), None);
        assert_eq!(handle_at(&mut br, &parts[1], at(0)).verdict, Verdict::Held);
        assert_eq!(br.poll_timeout(), Some(due));
        if late_first {
            // Found too old by whoever looks, not only by the timer.
            assert_eq!(handle_at(&mut br, &parts[0], due).packets.len(), 1);
        } else {
            br.handle_timeout(at(2000));
            assert_eq!(held(&br, Direction::V4ToV6), 1, "too early");
            br.handle_timeout(due);
            assert_eq!(br.poll_timeout(), None);
        }
        assert_eq!(drops(&br, Direction::V4ToV6, DropReason::FragmentTimeout), 1);
        assert_eq!(held(&br, Direction::V4ToV6), 0);
        let counters = br.counters().snapshot();
        assert!(counters.direction(Direction::V4ToV6).is_balanced());
        let lost = counters.direction(Direction::V4ToV6).dropped[DropReason::FragmentTimeout as usize];
        assert_eq!(lost.octets, parts[1].len() as u64);
    }

    // The ports of a first fragment serve as long.
    for (ms, verdict) in [(2000, Verdict::Forward), (2001, Verdict::Held)] {
        let mut br = common::br();
        assert_eq!(handle_at(&mut br, &parts[0], at(0)).verdict, Verdict::Forward);
        assert_eq!(handle_at(&mut br, &parts[1], at(ms)).verdict, verdict, "{ms} ms");
    }
    let mut long = br_of(|p| p.fragments.lifetime = Duration::from_secs(60));
    assert_eq!(handle_at(&mut long, &parts[0], at(0)).verdict, Verdict::Forward);
    assert_eq!(handle_at(&mut long, &parts[1], at(60_000)).verdict, Verdict::Forward);
}

fn br_of(change: impl FnOnce(&mut mapt::br::BrParams)) -> Br {
    let mut params = br_params();
    change(&mut params);
    Br::new(&appendix_a(None), &params)
}

fn ce_of(change: impl FnOnce(&mut CeParams)) -> Ce {
    let mut params = ce_params();
    change(&mut params);
    Ce::new(&appendix_a(Some("2001:db8:12:3400::/56")), &params)
}

/// FRAG-3, RFC 3128, P26: fragments that overlap the first one, before and after it, and a second first one.
#[test]
fn frag3_overlaps_are_refused() {
    let sent = udp4(SERVER4, 53, CE4, PORT, &body(2000));
    let parts = cut4(&sent, 7, &[0, 1000, 1600]);
    let overlapping = cut4(&sent, 7, &[0, 992, 1600])[1].clone();

    let mut br = br();
    assert_eq!(handle(&mut br, &parts[0]).verdict, Verdict::Forward);
    let outcome = handle(&mut br, &overlapping);
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::FragmentOverlap, None));
    assert_eq!(handle(&mut br, &parts[2]).reason(), DropReason::FragmentOverlap, "nor what follows (RFC 5722)");

    let mut br = common::br();
    assert_eq!(handle(&mut br, &overlapping).verdict, Verdict::Held);
    assert_eq!(handle(&mut br, &parts[0]).packets.len(), 1, "the held one overlaps");
    assert_eq!(drops(&br, Direction::V4ToV6, DropReason::FragmentOverlap), 1);
    assert_eq!(held(&br, Direction::V4ToV6), 0);

    // The same again is a duplicate; another port, or another length, is an attack.
    let other_port = cut4(&udp4(SERVER4, 53, CE4, PORT + 1, &body(2000)), 7, &[0, 1000, 1600])[0].clone();
    let other_len = cut4(&sent, 7, &[0, 1008])[0].clone();
    let mut br = common::br();
    assert_eq!(handle(&mut br, &parts[0]).verdict, Verdict::Forward);
    assert_eq!(handle(&mut br, &parts[0]).verdict, Verdict::Forward);
    assert_eq!(handle(&mut br, &parts[1]).verdict, Verdict::Forward);
    for second in [&other_port, &other_len] {
        let mut br = common::br();
        assert_eq!(handle(&mut br, &parts[0]).verdict, Verdict::Forward);
        assert_eq!(handle(&mut br, second).reason(), DropReason::FragmentOverlap);
        assert_eq!(handle(&mut br, &parts[1]).reason(), DropReason::FragmentOverlap);
        assert_eq!(handle(&mut br, &parts[0]).reason(), DropReason::FragmentOverlap);
    }
    // The Identification comes round when the packet has passed: RFC 4963 is no attack.
    let mut br = common::br();
    for packet in [&parts, &cut4(&udp4(SERVER4, 53, CE4, PORT + 1, &body(2000)), 7, &[0, 1000, 1600])] {
        for part in packet {
            assert_eq!(handle(&mut br, part).verdict, Verdict::Forward);
        }
    }
}

/// FRAG-4, BR-2, CE-9, CE-10: later fragments are checked with the port of the first one.
#[test]
fn frag4_later_fragments_are_checked() {
    let mut br = br();
    // 1238 is PSID 0x35's.
    let foreign = cut6(&udp6(CE, 1238, SERVER, 53, &body(2000)), 9, &[0, 1000, 1600]);
    let outcome = handle(&mut br, &foreign[0]);
    assert_eq!(outcome.reason(), DropReason::PortOutsideSet);
    assert_eq!(outcome.reply.map(|r| (r[40], r[41])), Some((1, 5)));
    for later in &foreign[1..] {
        let outcome = handle(&mut br, later);
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::PortOutsideSet, None), "one answer a packet");
    }
    // Held, then judged by the first one.
    let foreign = cut6(&udp6(CE, 1238, SERVER, 53, &body(2000)), 10, &[0, 1000, 1600]);
    assert_eq!(handle(&mut br, &foreign[2]).verdict, Verdict::Held);
    assert_eq!(handle(&mut br, &foreign[0]).reason(), DropReason::PortOutsideSet);
    assert_eq!(drops(&br, Direction::V6ToV4, DropReason::PortOutsideSet), 5);
    assert_eq!(held(&br, Direction::V6ToV4), 0);
    // Somebody else's interface identifier, with the right Identification: another packet, and no MAP address.
    let mine = cut6(&udp6(CE, PORT, SERVER, 53, &body(2000)), 11, &[0, 1000, 1600]);
    let spoofed = cut6(&udp6("2001:db8:12:3400:0:c000:213:34", PORT, SERVER, 53, &body(2000)), 11, &[0, 1000, 1600]);
    assert_eq!(handle(&mut br, &mine[0]).verdict, Verdict::Forward);
    assert_eq!(handle(&mut br, &spoofed[1]).verdict, Verdict::Held);
    assert_eq!(handle(&mut br, &spoofed[0]).reason(), DropReason::SourceMismatch);
    assert_eq!(drops(&br, Direction::V6ToV4, DropReason::SourceMismatch), 2);
    // No port helps a later fragment that is addressed to nobody: it is not held.
    let nowhere = cut6(&udp6("2001:db9::1", PORT, SERVER, 53, &body(2000)), 12, &[0, 1000]);
    assert_eq!(handle(&mut br, &nowhere[1]).reason(), DropReason::NoRule);

    let mut ce = ce();
    let unasked = cut6(&udp6(SERVER, 53, CE, PORT, &body(2000)), 9, &[0, 1000, 1600]);
    assert_eq!(handle(&mut ce, &unasked[1]).verdict, Verdict::Held);
    assert_eq!(handle(&mut ce, &unasked[0]).reason(), DropReason::NaptNoMapping);
    assert_eq!(handle(&mut ce, &unasked[2]).reason(), DropReason::NaptNoMapping);
    let outside = cut6(&udp6(SERVER, 53, CE, 1238, &body(2000)), 10, &[0, 1000, 1600]);
    assert_eq!(handle(&mut ce, &outside[0]).reason(), DropReason::DestinationPortOutsideSet);
    assert_eq!(handle(&mut ce, &outside[1]).reason(), DropReason::DestinationPortOutsideSet);
    assert_eq!(
        handle(&mut ce, &cut6(&udp6(SERVER, 53, "2001:db8:12:3400::1", PORT, &body(2000)), 1, &[0, 1000])[1]).reason(),
        DropReason::DestinationNotOurs
    );
}

/// P27, SUM-4: a first fragment without UDP checksum is dropped, and so is the rest of its packet, on shared and on
/// other addresses; where zero is forwarded, all of it passes.
#[test]
fn p27_all_of_a_packet_without_checksum_is_dropped() {
    let zero = |dst: &str, port| {
        let mut packet = udp4(SERVER4, 53, dst, port, &body(2000));
        packet[26..28].copy_from_slice(&[0, 0]);
        cut4(&packet, 7, &[0, 1000, 1600])
    };
    let full = || {
        let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16), rule("2001:db8:f000::/48", "203.0.113.1/32", 0)];
        provisioning(rules, "2001:db8:ffff::/64", None)
    };
    let mut br = Br::new(&full(), &br_params());
    for parts in [zero(CE4, PORT), zero("203.0.113.1", 7777)] {
        for part in &parts {
            let outcome = handle(&mut br, part);
            assert_eq!((outcome.reason(), outcome.reply), (DropReason::UdpChecksumZero, None));
        }
    }
    let mut params = br_params();
    params.translation.udp_zero_checksum = UdpZeroChecksum::Forward;
    let mut br = Br::new(&full(), &params);
    for parts in [zero(CE4, PORT), zero("203.0.113.1", 7777)] {
        for part in &parts {
            assert_eq!(handle(&mut br, part).verdict, Verdict::Forward);
        }
    }
    // At an unshared address nothing is held, whatever comes first.
    let parts = cut4(&udp4(SERVER4, 53, "203.0.113.1", 7777, &body(2000)), 8, &[0, 1000, 1600]);
    assert_eq!(handle(&mut br, &parts[2]).verdict, Verdict::Forward);
}

/// HDR-7, P15: later fragments of protocols without ports are not held where the address is shared.
#[test]
fn protocols_without_port_are_not_held() {
    let mut packet = udp4(SERVER4, 53, CE4, PORT, &body(2000));
    packet[9] = 132;
    let packet = Packet4::read(&packet, true, &mut Vec::new()).unwrap().write();
    let later = cut4(&packet, 7, &[0, 1000])[1].clone();
    assert_eq!(handle(&mut br(), &later).reason(), DropReason::ProtocolWithoutPort);
    let mut home = udp4(HOST, 40_000, SERVER4, 53, &body(2000));
    home[9] = 132;
    let home = Packet4::read(&home, true, &mut Vec::new()).unwrap().write();
    assert_eq!(handle(&mut ce(), &cut4(&home, 7, &[0, 1000])[1]).reason(), DropReason::NaptUnsupported);
}

/// FRAG-2: packets and octets are bounded; who comes too much gives way himself, with a name.
#[test]
fn frag2_bounds() {
    let early = |src: &str, id| cut4(&udp4(src, 53, CE4, PORT, &body(2000)), id, &[0, 1000])[1].clone();
    // 16 chunks of 512 octets; 1028 octets take three: five fragments.
    let mut br = br_of(|p| p.fragments = FragParams { packets: 8, held_octets: 8 << 10, ..FragParams::default() });
    for id in 0..20 {
        assert_eq!(handle(&mut br, &early(SERVER4, id)).verdict, Verdict::Held);
    }
    assert_eq!(held(&br, Direction::V4ToV6), 5);
    assert_eq!(drops(&br, Direction::V4ToV6, DropReason::FragmentTableFull), 15);
    // Nothing held: nothing waits.
    let mut br = br_of(|p| p.fragments.held_octets = 0);
    assert_eq!(handle(&mut br, &early(SERVER4, 1)).reason(), DropReason::FragmentWithoutPort);
    assert_eq!(held(&br, Direction::V4ToV6), 0);
    // Larger than all room.
    let mut br = br_of(|p| p.fragments.held_octets = 1024);
    assert_eq!(handle(&mut br, &early(SERVER4, 1)).reason(), DropReason::FragmentTableFull);
}

/// "A flood of fragments costs others nothing": while one source floods the same customer with first and with early
/// fragments, every packet of another source gets through in any order.
#[test]
fn a_flood_costs_others_nothing() {
    for first in [false, true] {
        let mut br = br();
        let mut id = 0u16;
        let mut flood = |br: &mut Br, packets: usize| {
            for _ in 0..packets {
                id = id.wrapping_add(1);
                let parts = cut4(&udp4("198.51.100.99", 4444, CE4, PORT, &body(1500)), id, &[0, 800]);
                handle(br, &parts[usize::from(!first)]);
            }
        };
        flood(&mut br, 1000);
        for n in 0..100u16 {
            let parts = cut4(&udp4(SERVER4, 53, CE4, PORT, &body(2000)), n, &[0, 1000, 1600]);
            let order = &orders(3)[usize::from(n) % 6];
            let mut out = Vec::new();
            for k in order {
                out.extend(handle(&mut br, &parts[*k]).packets);
                flood(&mut br, 50);
            }
            assert_eq!(out.len(), 3, "packet {n} in {order:?}, flood of {}", if first { "first" } else { "early" });
            whole(&out);
        }
        assert!(drops(&br, Direction::V4ToV6, DropReason::FragmentTableFull) > 1000 || first);
    }
    // At the CE, from the home and from outside.
    let mut ce = ce();
    let out = whole(&send(&mut ce, &cut4(&udp4(HOST, 40_000, SERVER4, 53, &body(2000)), 1, &[0, 1000]), &[1, 0]));
    let port = tuple(&out).1;
    for n in 0..2000u32 {
        let junk = cut6(&udp6("2001:db8:ffff:0:c6:3364:100:0", 99, CE, PORT, &body(2000)), n, &[0, 1000]);
        handle(&mut ce, &junk[1]);
        if n % 20 == 0 {
            let parts = cut6(&udp6(SERVER, 53, CE, port, &body(2000)), n, &[0, 1000]);
            assert_eq!(handle(&mut ce, &parts[1]).verdict, Verdict::Held);
            assert_eq!(handle(&mut ce, &parts[0]).packets.len(), 2);
        }
    }
}

/// CE-6, CE-7, RFC 7599 §10.3: with `rewrite-identification` fragmented packets of a shared address leave with
/// Identifications out of the port set, the same for all fragments of a packet, none again before all were used.
#[test]
fn ce6_identifications_out_of_the_port_set() {
    let in_set = |id: u32| (1024..65_536).contains(&id) && (id / 4) % 256 == 0x34;
    let id_of = |packet: &[u8]| u32::from_be_bytes(packet[44..48].try_into().unwrap());
    let mut ce = ce_of(|p| p.rewrite_identification = true);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..252u16 {
        let out = match n % 3 {
            // In order, out of order, and cut by us.
            0 => send(&mut ce, &cut4(&udp4(HOST, 40_000, SERVER4, 53, &body(2000)), n, &[0, 1000, 1600]), &[0, 1, 2]),
            1 => send(&mut ce, &cut4(&udp4(HOST, 40_000, SERVER4, 53, &body(2000)), n, &[0, 1000, 1600]), &[2, 1, 0]),
            _ => {
                let mut whole = udp4(HOST, 40_000, SERVER4, 53, &body(1400));
                whole[6] = 0;
                let whole = Packet4::read(&whole, true, &mut Vec::new()).unwrap().write();
                handle(&mut ce, &whole).packets
            }
        };
        assert!(out.len() > 1);
        whole(&out);
        assert!(in_set(id_of(&out[0])), "{:#x}", id_of(&out[0]));
        assert!(seen.insert(id_of(&out[0])), "{:#x} again after {n}", id_of(&out[0]));
    }
    let mut plain = common::ce();
    let out = send(&mut plain, &cut4(&udp4(HOST, 40_000, SERVER4, 53, &body(2000)), 0xbeef, &[0, 1000]), &[1, 0]);
    assert_eq!(id_of(&out[0]), 0xbeef, "off by default");
}

/// The kernel may put the fragments of one packet on different queues: engines with one table release each other's,
/// and their sums balance.
#[test]
fn engines_share_the_table() {
    let table = Arc::new(FragTable::new(&small_table(), 3));
    let mut engines: Vec<Br> =
        (0..2).map(|_| Br::with_fragments(&appendix_a(None), &br_params(), Arc::clone(&table))).collect();
    let parts = cut4(&udp4(SERVER4, 53, CE4, PORT, &body(2000)), 7, &[0, 1000, 1600]);
    let raw = |engine: &mut Br, bytes: &[u8], at| {
        let mut packet = mapt::wire::PacketBuf::from_slice(bytes);
        let verdict = engine.handle(&mut packet, at);
        let mut out = if verdict == Verdict::Forward { vec![packet.bytes().to_vec()] } else { vec![] };
        while let Some((_, more)) = engine.poll_transmit() {
            out.push(more.bytes().to_vec());
        }
        (verdict, out)
    };
    assert_eq!(raw(&mut engines[0], &parts[1], NOW).0, Verdict::Held);
    assert_eq!(table.usage().held, 1);
    let (_, mut out) = raw(&mut engines[1], &parts[0], NOW);
    out.extend(raw(&mut engines[0], &parts[2], NOW).1);
    whole(&out);
    // One thread's timer counts what the other one held.
    assert_eq!(raw(&mut engines[0], &cut4(&parts_whole(), 8, &[0, 1000])[1], NOW).0, Verdict::Held);
    let later = NOW + Duration::from_secs(3);
    assert!(engines[1].poll_timeout().is_some_and(|due| due < later));
    engines[1].handle_timeout(later);
    let mut sum = engines[0].counters().snapshot();
    sum.add(&engines[1].counters().snapshot());
    let both = sum.direction(Direction::V4ToV6);
    assert!(both.is_balanced());
    assert_eq!((both.received.packets, both.forwarded.packets, both.held), (4, 3, 0));
    assert_eq!(both.dropped[DropReason::FragmentTimeout as usize].packets, 1);
    assert_eq!(table.usage().held, 0);
}

fn parts_whole() -> Vec<u8> {
    udp4(SERVER4, 53, CE4, PORT, &body(2000))
}

/// Who gives way in a full bucket: of the source that has most, whoever asks counted in, the oldest packet.
#[test]
fn the_oldest_of_the_heaviest_gives_way() {
    let first = |src: &str, id| cut4(&udp4(src, 53, CE4, PORT, &body(2000)), id, &[0, 1000])[0].clone();
    let later = |src: &str, id| cut4(&udp4(src, 53, CE4, PORT, &body(2000)), id, &[0, 1000])[1].clone();
    let full = |sources: [&str; 8]| {
        let mut br = br_of(|p| p.fragments = FragParams { packets: 8, held_octets: 64 << 10, ..FragParams::default() });
        for (n, src) in sources.iter().enumerate() {
            let at = NOW + Duration::from_millis(n as u64);
            assert_eq!(handle_at(&mut br, &first(src, n as u16), at).verdict, Verdict::Forward);
        }
        br
    };
    let at = NOW + Duration::from_millis(100);
    let known = |br: &mut Br, src, id| handle_at(br, &later(src, id), at).verdict == Verdict::Forward;
    let (a, b, c) = ("198.51.100.1", "198.51.100.2", "198.51.100.3");
    // Equal but for the one who asks.
    for (asks, gone) in [(a, 1u16), (b, 0)] {
        let sources = [b, a, a, b, b, a, a, b];
        let mut br = full(sources);
        assert_eq!(handle_at(&mut br, &first(asks, 99), at).verdict, Verdict::Forward);
        for (n, src) in sources.iter().enumerate().filter(|(n, _)| *n != usize::from(gone)) {
            assert!(known(&mut br, src, n as u16), "{asks} asks: {n}");
        }
        assert!(!known(&mut br, sources[usize::from(gone)], gone), "{asks} asks");
    }
    // A newcomer takes from the one who has most.
    let sources = [a, b, b, a, b, b, a, b];
    let mut br = full(sources);
    assert_eq!(handle_at(&mut br, &first(c, 99), at).verdict, Verdict::Forward);
    for (n, src) in sources.iter().enumerate().filter(|(n, _)| *n != 1) {
        assert!(known(&mut br, src, n as u16), "{n}");
    }
    assert!(known(&mut br, c, 99));
    // Who has passed as a whole goes before anybody.
    let mut br = full(sources);
    assert!(known(&mut br, a, 3));
    assert_eq!(handle_at(&mut br, &first(c, 99), at).verdict, Verdict::Forward);
    for (n, src) in sources.iter().enumerate().filter(|(n, _)| *n != 3) {
        assert!(known(&mut br, src, n as u16), "{n}");
    }
}

/// FRAG-8, RULE-17: without NAPT, later fragments to a neighbour with a shared address go where their first one goes.
#[test]
fn later_fragments_to_a_neighbour_follow_the_first() {
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16), rule("2001:db8:f000::/48", "203.0.113.1/32", 0)];
    let ours = provisioning(rules, "2001:db8:ffff::/64", Some("2001:db8:f000::/48"));
    let parts = cut4(&udp4("203.0.113.1", 7777, CE4, PORT, &body(3000)), 5, &[0, 1000, 2000]);
    for order in orders(3) {
        let mut home = Ce::new(&ours, &CeParams { napt: false, ..ce_params() });
        let out = whole(&send(&mut home, &parts, &order));
        assert_eq!(tuple(&out), ("2001:db8:f000::cb00:7101:0".into(), 7777, CE.into(), PORT));
    }
}
