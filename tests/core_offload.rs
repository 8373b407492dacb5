//! Superpackets and partial checksums: what a TUN device with offloads hands over (virtio 1.2 §5.1.6).
//!
//! A superpacket is cut here by hand, each piece is translated by itself, and the translated superpacket, cut as a
//! device would cut it, must be the same.

mod common;
mod oracle;

use common::*;
use mapt::br::{Br, BrParams};
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::siit::{MssClamp, Mtu, TranslationParams};
use mapt::verdict::{DropReason, Verdict};
use mapt::wire::segment::{segment, segments};
use mapt::wire::{PacketBuf, VnetHdr};
use oracle::build::{Kind, Make, offloaded, transport};
use oracle::packet::{Packet4, Packet6, Piece, complete, cut, pseudo, word};
use proptest::prelude::*;
use proptest::sample::select;

const CUSTOMER6: &str = "2001:db8:12:3400:0:c000:212:34";
const SERVER6: &str = "2001:db8:ffff:0:8:808:800:0";
const CUSTOMER4: [u8; 4] = [192, 0, 2, 18];
const SERVER4: [u8; 4] = [8, 8, 8, 8];

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

fn br_with(mtu: Mtu) -> Br {
    let translation = TranslationParams { mtu, tcp_mss_clamp: MssClamp::Auto, ..Default::default() };
    Br::new(&appendix_a(None), &BrParams { translation, ..br_params() })
}

fn ce_with(mtu: Mtu, napt: bool) -> Ce {
    let translation = TranslationParams { mtu, tcp_mss_clamp: MssClamp::Auto, ..Default::default() };
    Ce::new(&appendix_a(Some("2001:db8:12:3400::/56")), &CeParams { translation, napt, ..ce_params() })
}

/// Which engine a packet of which family goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    BrDown,
    BrUp,
    CeUp,
    CeUpNapt,
    CeDown,
}

const PATHS: [Path; 5] = [Path::BrDown, Path::BrUp, Path::CeUp, Path::CeUpNapt, Path::CeDown];

impl Path {
    fn v6(self) -> bool {
        matches!(self, Path::BrUp | Path::CeDown)
    }

    fn engine(self, mtu: Mtu) -> Box<dyn Engine> {
        match self {
            Path::BrDown | Path::BrUp => Box::new(br_with(mtu)),
            Path::CeUp | Path::CeDown => Box::new(ce_with(mtu, false)),
            Path::CeUpNapt => Box::new(ce_with(mtu, true)),
        }
    }

    /// A complete packet of any length, with a right checksum.
    fn packet(self, make: &Make) -> Vec<u8> {
        let server6 = v6(SERVER6).octets();
        let customer6 = v6(CUSTOMER6).octets();
        let outbound = Make { src_port: 1234, dst_port: 443, ..make.clone() };
        let inbound = Make { src_port: 443, dst_port: 1234, ..make.clone() };
        match self {
            Path::BrDown => inbound.v4(SERVER4, CUSTOMER4),
            Path::CeUp => outbound.v4(CUSTOMER4, SERVER4),
            Path::CeUpNapt => Make { src_port: 50_123, ..outbound }.v4([192, 168, 1, 7], SERVER4),
            Path::BrUp => outbound.v6(customer6, server6),
            Path::CeDown => inbound.v6(server6, customer6),
        }
    }
}

/// Cuts a complete packet as RFC 9293 and Linux would: sequence numbers and identifications go on, FIN and PSH
/// belong to the last segment, CWR to the first.
fn cut_by_hand(packet: &[u8], gso_size: usize) -> Vec<Vec<u8>> {
    let (at, len, is_tcp) = transport(packet);
    let head = &packet[at..at + len];
    let chunks: Vec<&[u8]> = packet[at + len..].chunks(gso_size).collect();
    let last = chunks.len() - 1;
    let piece = |(i, chunk): (usize, &&[u8])| {
        let mut payload = [head, chunk].concat();
        if is_tcp {
            let sequence = u32::from_be_bytes(head[4..8].try_into().unwrap()) + (i * gso_size) as u32;
            payload[4..8].copy_from_slice(&sequence.to_be_bytes());
            if i < last {
                payload[13] &= !(FIN | PSH);
            }
            if i > 0 {
                payload[13] &= !CWR;
            }
        } else {
            let len = payload.len() as u16;
            payload[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let number = if is_tcp { 6 } else { 17 };
        let announced = payload.len();
        match packet[0] >> 4 {
            4 => {
                let p = Packet4::read(packet, false, &mut Vec::new()).unwrap();
                complete(&mut payload, number, &p.src, &p.dst);
                Packet4 { id: p.id.wrapping_add(i as u16), announced, payload, ..p }.write()
            }
            _ => {
                let p = Packet6::read(packet, false, &mut Vec::new()).unwrap();
                complete(&mut payload, number, &p.src, &p.dst);
                Packet6 { announced, payload, ..p }.write()
            }
        }
    };
    chunks.iter().enumerate().map(piece).collect()
}

/// What a device makes of a packet with an offload request.
fn cut_by_device(packet: &PacketBuf) -> Vec<Vec<u8>> {
    let mut out = PacketBuf::new();
    let mut pieces = Vec::new();
    while segment(packet, pieces.len(), &mut out) {
        assert_eq!(out.offload(), None);
        pieces.push(out.bytes().to_vec());
    }
    assert_eq!(pieces.len(), segments(packet));
    pieces
}

/// Without what is random (the Identification that IPv4 gets) and what follows from it, and without DF, which a
/// device repeats from the superpacket on its last, shorter segment.
fn comparable(mut packet: Vec<u8>, from_v6: bool) -> Vec<u8> {
    if from_v6 {
        packet[4..8].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn make(kind: Kind, len: usize) -> Make {
    Make { id: 0x8765, df: true, tos: 0x5a, ..Make::new(kind, 0, 0, len) }
}

/// Its MSS is of 1460, at an odd offset.
fn tcp(flags: u8, len: usize) -> Make {
    Make { tcp_options: vec![1, 2, 4, 5, 180], ..make(Kind::Tcp { options: 3, flags }, len) }
}

fn udp(len: usize) -> Make {
    make(Kind::Udp { zero: false, slack: 0 }, len)
}

/// Translates a superpacket, and its hand-cut segments by another engine alike; both must come out the same.
fn same_as_by_hand(path: Path, packet: &[u8], gso_size: u16, ecn: bool) -> PacketBuf {
    let mut superpacket = offloaded(packet.to_vec(), gso_size, ecn);
    let outcome = handle_packet(path.engine(Mtu::default()).as_mut(), &mut superpacket, NOW);
    assert_eq!(outcome.verdict, Verdict::Forward, "{path:?}");
    assert_eq!(outcome.packets.len(), 1);
    let offload = superpacket.offload().unwrap();
    let (at, len, is_tcp) = transport(superpacket.bytes());
    let expected = match (is_tcp, path.v6()) {
        (true, true) => VnetHdr::GSO_TCPV4,
        (true, false) => VnetHdr::GSO_TCPV6,
        (false, _) => VnetHdr::GSO_UDP_L4,
    };
    assert_eq!(offload.gso_type, expected | if ecn { VnetHdr::GSO_ECN } else { 0 });
    assert_eq!((offload.flags, offload.gso_size), (VnetHdr::NEEDS_CSUM, gso_size));
    assert_eq!((offload.csum_start, offload.hdr_len), (at as u16, (at + len) as u16));
    assert_eq!(offload.csum_offset, if is_tcp { 16 } else { 6 });

    let by_hand = cut_by_hand(packet, gso_size.into());
    let by_device = cut_by_device(&superpacket);
    assert_eq!(by_device.len(), by_hand.len());
    let mut engine = path.engine(Mtu::default());
    for (piece, device) in by_hand.iter().zip(by_device) {
        assert_valid(piece);
        assert_valid(&device);
        let expected = handle(engine.as_mut(), piece).forwarded();
        assert_eq!(comparable(device, path.v6()), comparable(expected, path.v6()), "{path:?}");
    }
    superpacket
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    /// P28, P47, P59: TCPV4 to TCPV6 and back, UDP_L4; every path, any number of segments.
    #[test]
    fn a_superpacket_is_the_same_as_its_segments(
        path in select(PATHS.to_vec()), is_tcp: bool, options in 0..11u8, flags in select(vec![ACK, ACK | PSH, ACK | PSH | FIN, SYN, SYN | ACK]),
        ecn: bool, gso_size in select(vec![1u16, 7, 100, 536, 1000, 1241, 1400]), count in 1..40usize, short in 0..1400usize, seed: u8,
    ) {
        let len = (usize::from(gso_size) * count).saturating_sub(short % usize::from(gso_size)).max(1);
        let ecn = ecn && is_tcp;
        let flags = flags | if ecn { CWR } else { 0 };
        let kind = if is_tcp { Kind::Tcp { options, flags } } else { Kind::Udp { zero: false, slack: 0 } };
        let tcp_options = vec![1, 1, 2, 4, 5, 180];
        let packet = path.packet(&Make { seed, tcp_options, ..make(kind, len) });
        same_as_by_hand(path, &packet, gso_size, ecn);
    }

    /// Whatever a device asks for, an engine answers with a verdict: no panic, dropped is untouched.
    #[test]
    fn lying_requests(
        path in select(PATHS.to_vec()), is_tcp: bool, len in 0..4000usize, flags in 0..4u8, gso_type: u8, sizes in any::<[u16; 3]>(),
        small: bool, transport_octet in (0..60usize, any::<u8>()), unprovisioned: bool, csum_offset in select(vec![6u16, 16, 0, 65535]),
    ) {
        let kind = if is_tcp { Kind::Tcp { options: 0, flags: ACK } } else { Kind::Udp { zero: false, slack: 0 } };
        let mut packet = path.packet(&make(kind, len));
        packet.truncate(packet.len().max(60));
        if transport_octet.0 < packet.len() {
            packet[transport_octet.0] = transport_octet.1;
        }
        let [hdr_len, gso_size, csum_start] = sizes.map(|n| if small { n % 80 } else { n });
        let mut packet = PacketBuf::from_slice(&packet);
        packet.set_offload(Some(VnetHdr { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset }));
        let mut engine = path.engine(Mtu::default());
        if unprovisioned {
            engine = Box::new(Ce::new(&appendix_a(None), &ce_params()));
        }
        let request = packet.offload();
        let outcome = handle_packet(engine.as_mut(), &mut packet, NOW);
        // A request that passed was one for this packet.
        if outcome.verdict == Verdict::Forward && let (Some(request), Some(result)) = (request, packet.offload()) {
            prop_assert!(request.needs_csum() && result.needs_csum());
            prop_assert_eq!(usize::from(result.csum_start), transport(packet.bytes()).0);
        }
    }
}

/// A CE without prefix answers what it has not read; the request may be nonsense.
#[test]
fn an_unprovisioned_ce_answers_a_lying_request() {
    let mut ce = Ce::new(&appendix_a(None), &ce_params());
    let packet = Path::CeUp.packet(&tcp(ACK, 3000));
    let good = offloaded(packet.clone(), 1400, false).offload().unwrap();
    for (data_offset, ihl) in [(5 + 3, 5), (0, 5), (15, 5), (8, 15), (4, 6)] {
        for gso_size in [0, 1, 13, 1400, 65_535] {
            for csum_start in [0, 19, 20, 24, 60, 3000, 3051, 3052, 65_535] {
                let mut lie = packet.clone();
                lie[32] = data_offset << 4;
                lie[0] = 0x40 | ihl;
                let lie = edit4(lie, |_| {});
                let mut buf = PacketBuf::from_slice(&lie);
                buf.set_offload(Some(VnetHdr { gso_size, csum_start, ..good }));
                let outcome = handle_packet(&mut ce, &mut buf, NOW);
                assert_eq!(outcome.reason(), DropReason::Unprovisioned);
                assert!(outcome.reply.is_some(), "{data_offset} {ihl} {gso_size} {csum_start}");
            }
        }
    }
}

/// The longest superpackets there are: 65,535 octets of IPv4, and as much IPv6 as IPv4 can hold.
#[test]
fn sixty_four_kilobytes() {
    for path in PATHS {
        let headers = if path.v6() { 40 } else { 20 };
        let most = if path.v6() { 65_535 + 20 } else { 65_535 };
        let len = most - headers - 32;
        let packet = path.packet(&tcp(ACK | PSH, len));
        assert_eq!(packet.len(), most);
        let out = same_as_by_hand(path, &packet, 1400, false);
        assert_eq!(out.len(), if path.v6() { 65_535 } else { 65_555 });
        assert_eq!(segments(&out), len.div_ceil(1400));
        let packet = path.packet(&udp(65_515 - 8));
        same_as_by_hand(path, &packet, 1400, false);
    }
}

/// MTU-*, RFC 791 §3.1: an IPv6 superpacket with more behind its headers than IPv4 has room for.
#[test]
fn a_superpacket_too_long_for_ipv4() {
    for path in [Path::BrUp, Path::CeDown] {
        for len in [65_515 - 32 + 1, 65_535 - 32] {
            let mut packet = offloaded(path.packet(&tcp(ACK, len)), 1400, false);
            let outcome = handle_packet(path.engine(Mtu::default()).as_mut(), &mut packet, NOW);
            assert_eq!(outcome.reason(), DropReason::TooLongForIpv4);
        }
    }
}

/// HDR-1, HDR-3: what is not translated moves `csum_start` and `hdr_len` all the same.
#[test]
fn options_and_extension_headers_in_front_of_a_superpacket() {
    for path in PATHS {
        let make = Make {
            options: vec![148, 4, 0, 0, 1, 1, 1, 1],
            extensions: vec![(0, vec![0, 1, 4, 0, 0, 0, 0]), (60, vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
            ..tcp(ACK | PSH, 5000)
        };
        let packet = path.packet(&make);
        let out = same_as_by_hand(path, &packet, 1300, false);
        let at = if path.v6() { 20 } else { 40 };
        assert_eq!(out.offload().unwrap().csum_start, at);
        assert_eq!(out.offload().unwrap().hdr_len, at + 32);
    }
}

/// A partial checksum without segmentation: the field holds the pseudo-header's sum, so addresses alone change it;
/// with NAPT the port changes and the field does not. P37: nor does it with a lower MSS.
#[test]
fn a_partial_checksum_is_adjusted_by_addresses_only() {
    for path in PATHS {
        for make in [tcp(ACK, 100), tcp(SYN, 0), udp(99), udp(0)] {
            let complete = path.packet(&make);
            let mut packet = offloaded(complete.clone(), 0, false);
            let outcome = handle_packet(path.engine(Mtu::default()).as_mut(), &mut packet, NOW);
            assert_eq!(outcome.verdict, Verdict::Forward);
            let b = packet.bytes().to_vec();
            let (at, _, is_tcp) = transport(&b);
            let addresses = if path.v6() { &b[12..20] } else { &b[8..40] };
            let (src, dst) = addresses.split_at(addresses.len() / 2);
            let expected = pseudo(src, dst, b.len() - at, if is_tcp { 6 } else { 17 });
            let field = word(&b, at + if is_tcp { 16 } else { 6 });
            assert_eq!(field % 65535, expected, "{path:?}");
            let offload = packet.offload().unwrap();
            assert_eq!((offload.gso_type, usize::from(offload.csum_start)), (VnetHdr::GSO_NONE, at));
            // Completed, it is what the complete packet becomes.
            let device = cut_by_device(&packet).remove(0);
            assert_valid(&device);
            if let Kind::Tcp { flags, .. } = make.kind {
                let mss = if flags == SYN { 1440 } else { 1460 };
                assert_eq!(word(&device, at + 23), mss, "{path:?}");
            }
            let by_hand = handle(path.engine(Mtu::default()).as_mut(), &complete).forwarded();
            assert_eq!(comparable(device, path.v6()), comparable(by_hand, path.v6()));
        }
    }
}

/// SUM-5: a partial UDP checksum that completes to zero is sent as 0xffff.
#[test]
fn a_partial_udp_checksum_that_completes_to_zero() {
    let mut packet = Path::BrUp.packet(&udp(2));
    let end = packet.len();
    packet[end - 2..].fill(0);
    let packet_sum = |p: &[u8]| oracle::packet::sum(&p[8..]);
    // The last word of payload makes the sum over the translated packet 0xffff.
    let translated = {
        let mut zeroed = packet.clone();
        zeroed[46..48].fill(0);
        let mut buf = offloaded(zeroed, 0, false);
        assert_eq!(handle_packet(&mut br(), &mut buf, NOW).verdict, Verdict::Forward);
        buf.bytes().to_vec()
    };
    assert!(packet_sum(&translated) > 0);
    let rest = (pseudo(&CUSTOMER4, &SERVER4, 10, 17)
        + oracle::packet::sum(&translated[20..26])
        + oracle::packet::sum(&translated[28..]))
        % 65535;
    packet[end - 2..].copy_from_slice(&((65535 - rest) as u16).to_be_bytes());
    let mut buf = offloaded(packet, 0, false);
    assert_eq!(handle_packet(&mut br(), &mut buf, NOW).verdict, Verdict::Forward);
    let device = cut_by_device(&buf).remove(0);
    assert_eq!(word(&device, 26), 0xffff);
    assert_valid(&device);
}

/// A request that does not fit the packet is no packet to translate.
#[test]
fn offload_mismatch() {
    let packet = |path: Path| path.packet(&tcp(ACK, 3000));
    for path in PATHS {
        let good = offloaded(packet(path), 1400, false).offload().unwrap();
        let wrong_family = if path.v6() { VnetHdr::GSO_TCPV4 } else { VnetHdr::GSO_TCPV6 };
        let lies = [
            ("gso without checksum", VnetHdr { flags: 0, ..good }),
            ("the other family", VnetHdr { gso_type: wrong_family, ..good }),
            ("udp for tcp", VnetHdr { gso_type: VnetHdr::GSO_UDP_L4, ..good }),
            ("UFO", VnetHdr { gso_type: 3, ..good }),
            ("unknown type", VnetHdr { gso_type: 9, ..good }),
            ("segments of nothing", VnetHdr { gso_size: 0, ..good }),
            ("checksum starts before", VnetHdr { csum_start: good.csum_start - 4, ..good }),
            ("checksum starts behind", VnetHdr { csum_start: good.csum_start + 4, ..good }),
            ("checksum field of udp", VnetHdr { csum_offset: 6, ..good }),
            ("ecn without segments", VnetHdr { gso_type: VnetHdr::GSO_UDP_L4 | VnetHdr::GSO_ECN, ..good }),
        ];
        for (what, lie) in lies {
            let mut buf = PacketBuf::from_slice(&packet(path));
            buf.set_offload(Some(lie));
            let outcome = handle_packet(path.engine(Mtu::default()).as_mut(), &mut buf, NOW);
            assert_eq!(outcome.reason(), DropReason::OffloadMismatch, "{path:?}: {what}");
            assert!(outcome.reply.is_none());
        }
        // Nobody cuts echoes, and no fragment.
        let echo = path.packet(&make(Kind::Echo { request: true }, 3000));
        let mut buf = PacketBuf::from_slice(&echo);
        buf.set_offload(Some(good));
        assert_eq!(
            handle_packet(path.engine(Mtu::default()).as_mut(), &mut buf, NOW).reason(),
            DropReason::OffloadMismatch
        );
        let first = path.packet(&Make { place: oracle::build::Place::First(100), ..tcp(ACK, 3000) });
        let mut buf = PacketBuf::from_slice(&first);
        buf.set_offload(Some(VnetHdr { csum_start: good.csum_start + if path.v6() { 8 } else { 0 }, ..good }));
        assert_eq!(
            handle_packet(path.engine(Mtu::default()).as_mut(), &mut buf, NOW).reason(),
            DropReason::OffloadMismatch
        );
    }
}

/// P59, MTU-3: a superpacket is too big where one of its segments is; the answer quotes the first segment, complete.
#[test]
fn too_big_is_decided_by_one_segment() {
    // 20 of IPv6 more, 20 of IPv6 less, 32 of TCP.
    for (path, fits) in [(Path::BrDown, 1500 - 40 - 32), (Path::CeUp, 1500 - 40 - 32), (Path::BrUp, 1500 - 20 - 32)] {
        let mtu = Mtu { ipv4: 1500, ..Mtu::default() };
        let packet = path.packet(&tcp(ACK | PSH | FIN, 20_000));
        let mut buf = offloaded(packet.clone(), fits, false);
        assert_eq!(handle_packet(path.engine(mtu).as_mut(), &mut buf, NOW).verdict, Verdict::Forward, "{path:?}");
        let mut buf = offloaded(packet.clone(), fits + 1, false);
        let outcome = handle_packet(path.engine(mtu).as_mut(), &mut buf, NOW);
        assert_eq!(outcome.reason(), DropReason::TooBig);
        let first = &cut_by_hand(&packet, usize::from(fits) + 1)[0];
        let reply = outcome.reply.unwrap();
        assert_valid(&reply);
        if path.v6() {
            assert_eq!((reply[40], reply[41], word(&reply, 44), word(&reply, 46)), (2, 0, 0, 1520));
            assert_eq!(reply[48..], first[..1280 - 48]);
        } else {
            assert_eq!((reply[20], reply[21], word(&reply, 24), word(&reply, 26)), (3, 4, 0, 1480));
            assert_eq!(reply[28..], first[..576 - 28]);
        }
    }
}

/// A small segment in a large superpacket is not too big at all: 64 KB with DF through an MTU of 1280.
#[test]
fn small_segments_pass_a_small_mtu() {
    let mtu = Mtu { ipv6: 1280, ipv4: 576, lowest_ipv6: 1280 };
    for path in PATHS {
        let mut buf = offloaded(path.packet(&tcp(ACK, 60_000)), 500, false);
        let outcome = handle_packet(path.engine(mtu).as_mut(), &mut buf, NOW);
        assert_eq!((outcome.verdict, outcome.packets.len()), (Verdict::Forward, 1), "{path:?}");
    }
}

/// MTU-5, SUM-6: without DF the segments are made first, then fragments of each, every segment under an
/// identification of its own, as if IPv4 had sent them.
#[test]
fn a_superpacket_without_df_is_segmented_and_then_fragmented() {
    for (path, make) in [
        (Path::BrDown, tcp(ACK | PSH, 10_000)),
        (Path::CeUp, udp(10_000)),
        (Path::CeUpNapt, tcp(ACK, 4321)),
        // The identification goes over the top of its 16 bits.
        (Path::BrDown, Make { id: 0xfffe, ..tcp(ACK | PSH, 10_000) }),
    ] {
        let make = Make { df: false, ..make };
        let packet = path.packet(&make);
        let mut buf = offloaded(packet.clone(), 1400, false);
        let outcome = handle_packet(path.engine(Mtu::default()).as_mut(), &mut buf, NOW);
        assert_eq!(outcome.verdict, Verdict::Forward);
        assert_eq!(buf.offload(), None);
        let mut expected = Vec::new();
        let mut engine = path.engine(Mtu::default());
        for piece in cut_by_hand(&packet, 1400) {
            expected.extend(handle(engine.as_mut(), &piece).packets);
        }
        assert_eq!(outcome.packets, expected, "{path:?}");
        let ids: std::collections::BTreeSet<_> =
            outcome.packets.iter().filter(|b| b[6] == 44).map(|b| &b[44..48]).collect();
        assert_eq!(ids.len(), cut_by_hand(&packet, 1400).iter().filter(|b| b.len() > 1260).count());
        for out in &outcome.packets {
            assert!(out.len() <= 1280);
            assert!(out[6] != 44 || word(out, 44) == 0, "16 zero bits in front of the IPv4 identification");
        }
        // The counters count an input once, and every octet that leaves.
        let counters = engine.counters().snapshot();
        assert_eq!(counters.directions[0].received.packets, cut_by_hand(&packet, 1400).len() as u64);
    }
}

/// RFC 7915 §5.1.1: segments of up to 1280 octets that the IPv4 next hop cannot take are cut, each by itself.
#[test]
fn an_ipv6_superpacket_of_small_segments_is_cut_for_a_small_ipv4_mtu() {
    let mtu = Mtu { ipv4: 576, ..Mtu::default() };
    for make in [tcp(ACK | PSH, 5000), udp(5000)] {
        let packet = Path::BrUp.packet(&make);
        let mut buf = offloaded(packet.clone(), 1200, false);
        let outcome = handle_packet(&mut br_with(mtu), &mut buf, NOW);
        assert_eq!(outcome.verdict, Verdict::Forward);
        let mut left = outcome.packets.as_slice();
        let mut engine = br_with(Mtu::default());
        let mut ids = std::collections::BTreeSet::new();
        for piece in cut_by_hand(&packet, 1200) {
            let whole = handle(&mut engine, &piece).forwarded();
            let whole = Packet4::read(&whole, false, &mut Vec::new()).unwrap();
            let id = word(&left[0], 4) as u16;
            assert!(ids.insert(id), "an identification for each segment");
            if whole.total() <= 576 {
                assert_eq!(left[0], Packet4 { id, ..whole }.write());
                left = &left[1..];
                continue;
            }
            for (place, payload) in cut(&whole.payload, 576 - 20, Piece { id: 0, offset: 0, more: false }) {
                let announced = payload.len();
                let (mf, offset) = (place.more, place.offset);
                assert_eq!(left[0], Packet4 { id, mf, offset, announced, payload, ..whole.clone() }.write());
                left = &left[1..];
            }
        }
        assert!(left.is_empty());
    }
}

/// One superpacket is one packet to the counters.
#[test]
fn a_superpacket_counts_once() {
    let mut engine = br();
    let packet = Path::BrDown.packet(&tcp(ACK, 30_000));
    let len = packet.len() as u64;
    assert_eq!(handle_packet(&mut engine, &mut offloaded(packet, 1400, false), NOW).verdict, Verdict::Forward);
    let counters = engine.counters().snapshot();
    assert_eq!((counters.directions[0].received.packets, counters.directions[0].received.octets), (1, len));
    assert_eq!((counters.directions[0].forwarded.packets, counters.directions[0].forwarded.octets), (1, len + 20));
}

/// What was read with a virtio header is written with one: gso_type 1 came in, 4 goes out.
#[test]
fn the_virtio_header_on_the_device() {
    let packet = offloaded(Path::BrDown.packet(&tcp(ACK | CWR, 4000)), 1300, true);
    let mut buf = PacketBuf::new();
    let area = buf.read_area();
    area[..10].copy_from_slice(&packet.offload().unwrap().to_bytes());
    area[10..10 + packet.len()].copy_from_slice(packet.bytes());
    assert!(buf.commit_read(10 + packet.len()));
    assert_eq!(br().handle(&mut buf, NOW), Verdict::Forward);
    let written = buf.write_area();
    assert_eq!(written.len(), 10 + packet.len() + 20);
    let header: Vec<u16> = written[2..10].chunks(2).map(|w| u16::from_ne_bytes([w[0], w[1]])).collect();
    assert_eq!((written[0], written[1]), (1, 4 | 0x80));
    assert_eq!(header, [40 + 32, 1300, 40, 16]);
}
