//! RFC 7915 through both roles and in both directions: what the roles have in common, by tables written out of the RFC.
//!
//! The customer has 192.0.2.18 alone; with NAPT44 the host behind it is 192.168.1.10. Ids: P = pitfalls, others =
//! requirements.

mod common;
mod oracle;

use common::*;
use mapt::br::{Br, BrParams};
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::siit::{Mtu, TranslationParams, UdpZeroChecksum};
use mapt::verdict::{DropReason, Verdict};
use oracle::build::{Kind, Make, Place, Report};
use oracle::packet::{Packet4, Packet6, complete, sum, word};

const CUSTOMER4: [u8; 4] = [192, 0, 2, 18];
const HOST4: [u8; 4] = [192, 168, 1, 10];
const SERVER4: [u8; 4] = [10, 2, 3, 4];
/// 192.0.2.18 by rule 2001:db8::/40 with 8 EA bits: no PSID.
const CUSTOMER6: &str = "2001:db8:12:0:0:c000:212:0";
/// 10.2.3.4 in 2001:db8:ffff::/64.
const SERVER6: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER_PORT: u16 = 53;
const HOST_PORT: u16 = 40_000;

const UDP: Kind = Kind::Udp { zero: false, slack: 0 };
const TCP: Kind = Kind::Tcp { options: 0, flags: 0x10 };
const ECHO: Kind = Kind::Echo { request: true };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Br,
    Ce,
    CeNapt,
}

/// A role, and the family that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    role: Role,
    v6: bool,
}

const WAYS: [Way; 6] = [
    Way { role: Role::Br, v6: false },
    Way { role: Role::Br, v6: true },
    Way { role: Role::Ce, v6: false },
    Way { role: Role::Ce, v6: true },
    Way { role: Role::CeNapt, v6: false },
    Way { role: Role::CeNapt, v6: true },
];

/// An engine, and what it has mapped.
struct Bench {
    way: Way,
    engine: Box<dyn Engine>,
    /// Of TCP, UDP, echo: the port outside that the host's port has.
    outside: [u16; 3],
}

fn bench(way: Way, translation: TranslationParams) -> Bench {
    let rules =
        provisioning(vec![rule("2001:db8::/40", "192.0.2.0/24", 8)], "2001:db8:ffff::/64", Some("2001:db8:12::/48"));
    let mut outside = [HOST_PORT; 3];
    let engine: Box<dyn Engine> = match way.role {
        Role::Br => Box::new(Br::new(&rules, &BrParams { translation, fragments: small_table(), ..br_params() })),
        Role::Ce => Box::new(Ce::new(&rules, &CeParams { translation, napt: false, ..ce_params() })),
        Role::CeNapt => {
            let mut ce = Ce::new(&rules, &CeParams { translation, ..ce_params() });
            for (port, kind) in outside.iter_mut().zip([TCP, UDP, ECHO]) {
                let packet = Make::new(kind, HOST_PORT, SERVER_PORT, 4).v4(HOST4, SERVER4);
                *port = tuple(&handle(&mut ce, &packet).forwarded()).1;
                assert_ne!(*port, HOST_PORT, "the test is worth nothing if they are the same");
            }
            Box::new(ce)
        }
    };
    Bench { way, engine, outside }
}

fn plain(way: Way) -> Bench {
    bench(way, TranslationParams::default())
}

fn mtus(way: Way, ipv6: u32, ipv4: u32) -> Bench {
    bench(way, TranslationParams { mtu: Mtu { ipv6, ipv4, lowest_ipv6: 1280 }, ..Default::default() })
}

fn server6() -> [u8; 16] {
    v6(SERVER6).octets()
}

fn customer6() -> [u8; 16] {
    v6(CUSTOMER6).octets()
}

impl Bench {
    /// The direction of what comes in.
    fn to_home(&self) -> bool {
        (self.way.role == Role::Br) != self.way.v6
    }

    fn home4(&self) -> [u8; 4] {
        if self.way.role == Role::CeNapt { HOST4 } else { CUSTOMER4 }
    }

    /// The packet between host and server, as it is in one family.
    fn between(&self, make: &Make, v6: bool, to_home: bool) -> Vec<u8> {
        let port = match make.kind {
            _ if !v6 => HOST_PORT,
            Kind::Tcp { .. } => self.outside[0],
            Kind::Udp { .. } => self.outside[1],
            _ => self.outside[2],
        };
        let (mut src_port, dst_port) = if to_home { (SERVER_PORT, port) } else { (port, SERVER_PORT) };
        if let Kind::Echo { .. } = make.kind {
            src_port = port;
        }
        let make = Make { src_port, dst_port, ..make.clone() };
        match (v6, to_home) {
            (false, true) => make.v4(SERVER4, self.home4()),
            (false, false) => make.v4(self.home4(), SERVER4),
            (true, true) => make.v6(server6(), customer6()),
            (true, false) => make.v6(customer6(), server6()),
        }
    }

    /// What comes in.
    fn input(&self, make: &Make) -> Vec<u8> {
        self.between(make, self.way.v6, self.to_home())
    }

    /// What must come out.
    fn output(&self, make: &Make, seen: &[u8]) -> Vec<u8> {
        as_translated(&self.between(make, !self.way.v6, self.to_home()), make, seen)
    }

    /// An error that comes in, about `quoted`.
    fn error(&self, kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
        let report = Report { kind, code, rest, tos: 0, ttl: 64 };
        match (self.way.v6, self.to_home()) {
            (false, true) => report.v4(SERVER4, self.home4(), quoted),
            (false, false) => report.v4(self.home4(), SERVER4, quoted),
            (true, true) => report.v6(server6(), customer6(), quoted),
            (true, false) => report.v6(customer6(), server6(), quoted),
        }
    }

    /// The packet that such an error is about: it went the other way.
    fn quote(&self, make: &Make) -> Vec<u8> {
        self.between(make, self.way.v6, !self.to_home())
    }

    fn quote_out(&self, make: &Make, seen: &[u8]) -> Vec<u8> {
        as_translated(&self.between(make, !self.way.v6, !self.to_home()), make, seen)
    }

    fn handle(&mut self, input: &[u8]) -> Outcome {
        handle(self.engine.as_mut(), input)
    }

    /// What came out, its addresses, lengths and checksums right.
    fn forwarded(&mut self, input: &[u8]) -> Vec<u8> {
        let way = self.way;
        let outcome = self.handle(input);
        assert_eq!(outcome.verdict, Verdict::Forward, "{way:?}");
        assert_eq!(outcome.packets.len(), 1, "{way:?}");
        let out = outcome.packets.into_iter().next().unwrap();
        assert_valid(&out);
        assert_eq!(out[0] >> 4, if way.v6 { 4 } else { 6 });
        out
    }

    /// The ICMP part of a translated error, its addresses checked: type and code, field, quote.
    fn told(&mut self, input: &[u8]) -> ([u8; 2], [u8; 4], Vec<u8>) {
        let to_home = self.to_home();
        let out = self.forwarded(input);
        let at = if self.way.v6 {
            let ends = if to_home { (SERVER4, self.home4()) } else { (CUSTOMER4, SERVER4) };
            assert_eq!((&out[12..16], &out[16..20]), (&ends.0[..], &ends.1[..]), "{:?}", self.way);
            assert_eq!(out[9], 1);
            20
        } else {
            let ends = if to_home { (server6(), customer6()) } else { (customer6(), server6()) };
            assert_eq!((&out[8..24], &out[24..40]), (&ends.0[..], &ends.1[..]), "{:?}", self.way);
            assert_eq!(out[6], 58);
            40
        };
        ([out[at], out[at + 1]], out[at + 4..at + 8].try_into().unwrap(), out[at + 8..].to_vec())
    }
}

/// What RFC 7915 makes of a packet whose other form `made` is: no options, no extension headers, no flow label, a
/// Fragment header only for a fragment, 16 bits of identification, DF by length. An identification out of a generator
/// is that of `seen`.
fn as_translated(made: &[u8], make: &Make, seen: &[u8]) -> Vec<u8> {
    let has_fragment_header = make.place != Place::Whole;
    if made[0] >> 4 == 4 {
        let p = Packet4::read(made, false, &mut Vec::new()).unwrap();
        let p = Packet4 { options: Vec::new(), ..p };
        let df = !has_fragment_header && p.total() > 1260;
        let id = if has_fragment_header { make.id as u16 } else { word(seen, 4) as u16 };
        Packet4 { df, id, ..p }.write()
    } else {
        let p = Packet6::read(made, false, &mut Vec::new()).unwrap();
        let fragment = p.fragment.filter(|_| p.is_fragment()).map(|f| oracle::packet::Piece { id: f.id % 65_536, ..f });
        Packet6 { flow_label: 0, extensions: Vec::new(), fragment, ..p }.write()
    }
}

/// ICMPv4 to ICMPv6 (RFC 7915 §4.2). Of a pointer: octet 9, the protocol, stands at 6.
fn table46(kind: u8, code: u8) -> Option<([u8; 2], [u8; 4])> {
    let zero = [0; 4];
    Some(match (kind, code) {
        (8, 0) => ([128, 0], zero),
        (0, 0) => ([129, 0], zero),
        (3, 0) | (3, 1) => ([1, 0], zero),
        (3, 2) => ([4, 1], [0, 0, 0, 6]),
        (3, 3) => ([1, 4], zero),
        (3, 4) => ([2, 0], [0, 0, 5, 140]),
        (3, 5) | (3, 6) | (3, 7) | (3, 8) => ([1, 0], zero),
        (3, 9) | (3, 10) => ([1, 1], zero),
        (3, 11) | (3, 12) => ([1, 0], zero),
        (3, 13) | (3, 15) => ([1, 1], zero),
        (11, code) => ([3, code], zero),
        (12, 0) | (12, 2) => ([4, 0], [0, 0, 0, 6]),
        _ => return None,
    })
}

/// ICMPv6 to ICMPv4 (RFC 7915 §5.2). Of a pointer: octet 7, the hop limit, stands at 8.
fn table64(kind: u8, code: u8) -> Option<([u8; 2], [u8; 4])> {
    let zero = [0; 4];
    Some(match (kind, code) {
        (128, 0) => ([8, 0], zero),
        (129, 0) => ([0, 0], zero),
        (1, 0) | (1, 2) | (1, 3) => ([3, 1], zero),
        (1, 1) => ([3, 10], zero),
        (1, 4) => ([3, 3], zero),
        (2, 0) => ([3, 4], [0, 0, 5, 120]),
        (3, code) => ([11, code], zero),
        (4, 0) => ([12, 0], [8, 0, 0, 0]),
        (4, 1) => ([3, 2], zero),
        _ => return None,
    })
}

/// P14, P16, P19, P19b, ICMP tables: all types with codes 0 to 16 and 255. What is not in the table leaves nothing on
/// the wire, not even an answer.
#[test]
fn p16_every_type_and_code() {
    for way in WAYS {
        let mut bench = plain(way);
        let quoted = bench.quote(&Make::new(UDP, 0, 0, 20));
        for kind in 0..=255u8 {
            for code in (0..=16).chain([255]) {
                let is_echo = code == 0 && if way.v6 { kind == 128 || kind == 129 } else { kind == 8 || kind == 0 };
                let id = if way.v6 { bench.outside[2] } else { HOST_PORT }.to_be_bytes();
                let rest = match (way.v6, kind, code) {
                    _ if is_echo => [id[0], id[1], 0, 9],
                    (false, 12, _) => [9, 0, 0, 0],
                    (false, 3, 4) => [0, 0, 5, 120],
                    (true, 4, _) => [0, 0, 0, 7],
                    (true, 2, _) => [0, 0, 5, 140],
                    _ => [0; 4],
                };
                let packet = bench.error(kind, code, rest, &quoted);
                match if way.v6 { table64(kind, code) } else { table46(kind, code) } {
                    None => {
                        let outcome = bench.handle(&packet);
                        assert_eq!(outcome.reason(), DropReason::IcmpType, "{way:?} {kind}/{code}");
                        assert_eq!((outcome.packets.len(), outcome.reply), (0, None), "P19b {way:?} {kind}/{code}");
                    }
                    Some((new, _)) if is_echo => {
                        let (told, field, body) = bench.told(&packet);
                        assert_eq!((told, body), (new, quoted.clone()), "{way:?} {kind}/{code}");
                        let id = if way.v6 { HOST_PORT } else { bench.outside[2] }.to_be_bytes();
                        assert_eq!(field, [id[0], id[1], 0, 9]);
                    }
                    Some((new, rest)) => {
                        let (told, field, _) = bench.told(&packet);
                        assert_eq!((told, field), (new, rest), "{way:?} {kind}/{code}");
                    }
                }
            }
        }
    }
}

/// P19, P20, P58: every pointer of IPv4; of IPv6 those of the header, and a sample of 32 bits.
#[test]
fn p20_every_pointer() {
    for way in WAYS {
        let mut bench = plain(way);
        let quoted = bench.quote(&Make::new(UDP, 0, 0, 20));
        let (kind, pointers): (u8, Vec<u32>) = match way.v6 {
            false => (12, (0..256).collect()),
            true => {
                let sample = (0..32).flat_map(|bit| [0u32, 1, 6, 7, 39].map(|low| 1u32 << bit | low));
                (4, (0..1500).chain(sample).chain([u32::MAX, 0x0600_0000]).collect())
            }
        };
        for at in pointers {
            let expected = match (way.v6, at) {
                (_, 0) => Some(0),
                (_, 1) => Some(1),
                (false, 2 | 3) => Some(4),
                (false, 8) => Some(7),
                (false, 9) => Some(6),
                (false, 12..=15) => Some(8),
                (false, 16..=19) => Some(24),
                (true, 4 | 5) => Some(2),
                (true, 6) => Some(9),
                (true, 7) => Some(8),
                (true, 8..=23) => Some(12),
                (true, 24..=39) => Some(16),
                _ => None,
            };
            let rest = if way.v6 { at.to_be_bytes() } else { [at as u8, 0, 0, 0] };
            let packet = bench.error(kind, 0, rest, &quoted);
            match expected {
                Some(pointer) if way.v6 => assert_eq!(bench.told(&packet).1, [pointer, 0, 0, 0], "{way:?} {at}"),
                Some(pointer) => assert_eq!(bench.told(&packet).1, [0, 0, 0, pointer], "{way:?} {at}"),
                None => assert_eq!(bench.handle(&packet).reason(), DropReason::IcmpType, "{way:?} {at}"),
            }
        }
    }
}

/// P21, ICMP tables: the MTU that an error tells, with both next hops, and what routers without RFC 1191 leave out.
#[test]
fn p21_the_mtu_in_errors() {
    for way in WAYS {
        for (ipv6, ipv4) in
            [(1500, 1500), (1280, 1500), (1400, 1500), (9000, 1380), (1500, 1259), (9000, 9000), (65_535, 65_535)]
        {
            let mut bench = mtus(way, ipv6, ipv4);
            for (place, growth) in [(Place::Whole, 20), (Place::First(64), 28)] {
                let make = Make { place, id: 77, ..Make::new(UDP, 0, 0, 900) };
                let quoted = bench.quote(&make);
                for told in
                    [68u32, 69, 576, 1252, 1260, 1261, 1279, 1280, 1359, 1360, 1361, 1400, 1480, 1500, 8980, 65_535]
                {
                    let (kind, code) = if way.v6 { (2, 0) } else { (3, 4) };
                    let (new, field, _) = bench.told(&bench.error(kind, code, told.to_be_bytes(), &quoted));
                    let field = u32::from_be_bytes(field);
                    if way.v6 {
                        assert_eq!(new, [3, 4]);
                        let expected = told.saturating_sub(growth).min(ipv4).min(ipv6 - 20).max(68);
                        assert_eq!(field, expected, "{way:?} {ipv6} {ipv4} {told} {place:?}");
                    } else {
                        assert_eq!(new, [2, 0]);
                        let expected = 1280.max((told + growth).min(ipv6).min(ipv4 + 20));
                        assert_eq!(field, expected, "{way:?} {ipv6} {ipv4} {told} {place:?}");
                        assert!(field >= 1280, "P21: VPP says 1000");
                    }
                }
            }
        }
        // An MTU of 32 bits in IPv6, and one that is no MTU.
        if way.v6 {
            let mut bench = mtus(way, 65_535, 65_535);
            let quoted = bench.quote(&Make::new(UDP, 0, 0, 900));
            for (told, expected) in
                [(u32::MAX, 65_515), (0x1_0000, 65_515), (65_555, 65_515), (0, 68), (20, 68), (88, 68), (89, 69)]
            {
                assert_eq!(u32::from_be_bytes(bench.told(&bench.error(2, 0, told.to_be_bytes(), &quoted)).1), expected);
            }
            continue;
        }
        // RFC 1191 §7.1's plateaus, not below 1280.
        let mut bench = mtus(way, 65_535, 65_535);
        for (total, expected) in [
            (65_535, 32_020),
            (32_001, 32_020),
            (32_000, 17_934),
            (17_914, 8186),
            (8166, 4372),
            (4352, 2022),
            (2002, 1512),
            (1493, 1512),
            (1492, 1280),
            (1280, 1280),
            (300, 1280),
        ] {
            let quoted = bench.quote(&Make::new(UDP, 0, 0, 900));
            let quoted = edit4(quoted, |header| header[2..4].copy_from_slice(&(total as u16).to_be_bytes()));
            let told = bench.told(&bench.error(3, 4, [0; 4], &quoted)).1;
            assert_eq!(u32::from_be_bytes(told), expected, "{way:?} {total}");
        }
    }
}

/// P17, P18, P57, P58, ICMP-1, ICMP-3: the packet in error is translated like any packet, whatever it is, as far as it
/// is there; its TTL stays even where the engine counts hops.
#[test]
fn p17_every_kind_of_packet_in_error() {
    let fragment = |place| Make { place, id: 0xabcd_1234, ..Make::new(UDP, 0, 0, 600) };
    let option = |kind: &[u8]| Make { options: kind.to_vec(), ..Make::new(UDP, 0, 0, 30) };
    let extensions = |list: &[(u8, usize)]| Make {
        extensions: list
            .iter()
            .map(|(number, words)| (*number, [vec![*words as u8], vec![0; 6 + 8 * words]].concat()))
            .collect(),
        ..Make::new(UDP, 0, 0, 30)
    };
    let mut makes = vec![
        ("TCP", Make::new(TCP, 0, 0, 333)),
        ("TCP with options", Make::new(Kind::Tcp { options: 10, flags: 2 }, 0, 0, 3)),
        ("UDP", Make::new(UDP, 0, 0, 33)),
        ("no payload", Make::new(UDP, 0, 0, 0)),
        ("long", Make::new(UDP, 0, 0, 1400)),
        ("echo", Make::new(ECHO, 0, 0, 56)),
        ("echo reply", Make::new(Kind::Echo { request: false }, 0, 0, 56)),
        ("first fragment", fragment(Place::First(50))),
        ("tiny first fragment", fragment(Place::First(1))),
        ("later fragment", fragment(Place::Later(50, true))),
        ("last fragment", fragment(Place::Later(50, false))),
        ("zero checksum", Make::new(Kind::Udp { zero: true, slack: 0 }, 0, 0, 40)),
        ("octets behind the UDP length", Make::new(Kind::Udp { zero: false, slack: 5 }, 0, 0, 40)),
        ("DCCP", Make::new(Kind::Other(33), 0, 0, 90)),
        ("UDP-Lite", Make::new(Kind::Other(136), 0, 0, 90)),
        ("SCTP", Make::new(Kind::Other(132), 0, 0, 90)),
        ("ESP", Make::new(Kind::Other(50), 0, 0, 90)),
        ("hop limit 0", Make { ttl: 0, ..Make::new(UDP, 0, 0, 8) }),
        ("hop limit 1", Make { ttl: 1, tos: 0xb9, ..Make::new(UDP, 0, 0, 8) }),
    ];
    let options = [
        ("router alert", option(&[148, 4, 0, 0])),
        ("a source route that is not used up", option(&[131, 7, 4, 10, 0, 0, 1, 0])),
        ("40 octets of options", option(&[1; 40])),
    ];
    let extended = [
        ("hop-by-hop", extensions(&[(0, 0)])),
        ("a chain", extensions(&[(0, 1), (60, 0), (43, 2), (60, 3)])),
        ("atomic fragment", fragment(Place::Atomic)),
    ];
    let headers4 = options.len();
    makes.extend(options.into_iter().chain(extended));
    for way in WAYS {
        let translation = TranslationParams { decrement_hop_limit: true, ..Default::default() };
        for (n, (name, make)) in makes.iter().enumerate() {
            let only6 = n >= makes.len() - 3;
            let only4 = !only6 && n >= makes.len() - 3 - headers4;
            if (only4 && way.v6) || (only6 && !way.v6) {
                continue;
            }
            let mut bench = bench(way, translation);
            let quoted = bench.quote(make);
            let header = quoted.len()
                - Packet4::read(&quoted, false, &mut Vec::new()).map_or_else(
                    || Packet6::read(&quoted, false, &mut Vec::new()).unwrap().payload.len(),
                    |p| p.payload.len(),
                );
            let portless = matches!(make.kind, Kind::Other(_)) || matches!(make.place, Place::Later(..));
            // As it is, and cut: to 8 octets of transport (RFC 792), and somewhere behind.
            for keep in [quoted.len(), header + 8, header + 9, header + 16, header + 18, header + 19, header + 31] {
                let quoted = &quoted[..keep.min(quoted.len())];
                let packet = bench.error(if way.v6 { 1 } else { 3 }, 3, [0; 4], quoted);
                if portless && way.role == Role::CeNapt {
                    let reason = bench.handle(&packet).reason();
                    let unknown = [DropReason::NaptUnsupported, DropReason::FragmentWithoutPort];
                    assert!(unknown.contains(&reason), "{way:?} {name}: {}", reason.name());
                    continue;
                }
                let (new, field, body) = bench.told(&packet);
                assert_eq!((new, field), (if way.v6 { [3, 1] } else { [1, 4] }, [0; 4]), "{way:?} {name}");
                let whole = bench.quote_out(make, &body);
                // P17: what is not there is not made up, and what is too much is cut.
                let most = if way.v6 { 576 - 28 } else { 1280 - 48 };
                let header_out = whole.len() - (bench.quote(make).len() - header);
                let expected = header_out + quoted.len() - header;
                assert_eq!(body.len(), expected.min(most), "{way:?} {name} {keep}");
                assert_eq!(body, whole[..body.len()], "{way:?} {name} {keep}");
                if way.v6 {
                    assert_eq!(sum(&body[..20]), 0, "HDR-8: {name}");
                }
            }
            // Less than 8 octets of it say nothing about a port.
            if !portless {
                let packet = bench.error(if way.v6 { 1 } else { 3 }, 3, [0; 4], &quoted[..header + 7]);
                let reason = bench.handle(&packet).reason();
                assert_eq!(reason, DropReason::IcmpInner, "{way:?} {name}");
            }
        }
    }
}

/// ICMP-6, ICMP-7, ICMP-8: an RFC 4884 extension goes along behind a quote padded to 128 octets and to the other word
/// size, where there is a place for its attribute.
#[test]
fn icmp6_extensions() {
    let mut extension = vec![0x20, 0, 0, 0, 0, 12, 1, 1, 0xde, 0xad, 0xbe, 0xef, 0, 1, 2, 3];
    complete(&mut extension, 1, &[], &[]);
    for way in WAYS {
        let (word_in, word_out) = if way.v6 { (8, 4) } else { (4, 8) };
        let mut bench = plain(way);
        for len in (0..520).step_by(13) {
            let make = Make::new(UDP, 0, 0, len);
            let whole = bench.quote(&make);
            for padded in [128, 160, 512, 1016] {
                let mut body = whole.clone();
                body.resize(padded, 0);
                body.extend(&extension);
                let attribute = (padded / word_in) as u8;
                let rest = if way.v6 { [attribute, 0, 0, 0] } else { [0, attribute, 0, 0] };
                let (kind, new) = if way.v6 { (3, [11, 0]) } else { (11, [3, 0]) };
                let (told, field, out) = bench.told(&bench.error(kind, 0, rest, &body));
                assert_eq!(told, new);
                // What was cut of the packet before is not there now; what is there is padded.
                let mut quote = bench.quote_out(&make, &out);
                let cut = whole.len().saturating_sub(padded);
                quote.truncate(quote.len() - cut);
                let most = if way.v6 { 576 - 28 } else { 1280 - 48 } - extension.len();
                let expected = quote.len().max(128).div_ceil(word_out).min(most / word_out) * word_out;
                quote.resize(expected, 0);
                assert_eq!(out, [quote, extension.clone()].concat(), "{way:?} {len} {padded}");
                let attribute = (expected / word_out) as u8;
                assert_eq!(field, if way.v6 { [0, attribute, 0, 0] } else { [attribute, 0, 0, 0] });
            }
        }
        // ICMP-7: types 2 and 4 of ICMPv6 have none, whichever side they are on.
        let mut bench = plain(way);
        let make = Make::new(UDP, 0, 0, 20);
        let mut body = bench.quote(&make);
        body.resize(128, 0);
        body.extend(&extension);
        let cases: &[(u8, u8, [u8; 4])] = match way.v6 {
            true => &[],
            false => &[(3, 4, [0, 32, 5, 120]), (3, 2, [0, 32, 0, 0]), (12, 0, [9, 32, 0, 0]), (12, 2, [9, 32, 0, 0])],
        };
        for (kind, code, rest) in cases {
            let (_, _, out) = bench.told(&bench.error(*kind, *code, *rest, &body));
            assert_eq!(out, bench.quote_out(&make, &out), "{way:?} {kind}/{code}");
        }
    }
}

/// P33, ICMP-11, ICMP-12, ICMP-13, ICMP-14: an ICMPv6 error of a router that has no IPv4 address comes from the pool,
/// out of which each is drawn, and names the router by RFC 5837 where that is wanted; nothing else comes from there.
#[test]
fn icmp11_reporters_without_ipv4() {
    let pool = [[198, 51, 100, 1], [198, 51, 100, 2], [198, 51, 100, 3]];
    let router = v6("2001:db8:9999:1:2:3:4:5").octets();
    let rules =
        || provisioning(vec![rule("2001:db8::/40", "192.0.2.0/24", 8)], "2001:db8:ffff::/64", Some("2001:db8:12::/48"));
    for (is_br, rfc5837_object) in [(true, false), (true, true), (false, false), (false, true)] {
        let translation = TranslationParams { rfc5837_object, ..Default::default() };
        let icmp = mapt::reply::IcmpParams { rfc6791_pool: pool.map(|a| a.into()).to_vec(), ..icmp_on() };
        let mut engine: Box<dyn Engine> = if is_br {
            Box::new(Br::new(&rules(), &BrParams { translation, icmp, ..br_params() }))
        } else {
            Box::new(Ce::new(&rules(), &CeParams { translation, icmp, napt: false, ..ce_params() }))
        };
        let (near, far) = if is_br { (server6(), customer6()) } else { (customer6(), server6()) };
        let quoted = Make::new(UDP, 1234, 80, 30).v6(near, far);
        let mut seen = std::collections::BTreeMap::new();
        for n in 0..300u32 {
            let (kind, code) = [(3, 0), (1, 0), (1, 4), (2, 0), (4, 1)][n as usize % 5];
            let report = Report { kind, code, rest: [0, 0, 5, 0], tos: 0, ttl: 64 };
            let rest = if kind == 2 { report.rest } else { [0; 4] };
            let out = handle(engine.as_mut(), &Report { rest, ..report }.v6(router, near, &quoted)).forwarded();
            assert_valid(&out);
            let src: [u8; 4] = out[12..16].try_into().unwrap();
            assert!(pool.contains(&src), "ICMP-11");
            *seen.entry(src).or_insert(0) += 1;
            if rfc5837_object && (kind == 1 || kind == 3) {
                assert_eq!(out[24..28], [0, 32, 0, 0]);
                assert_eq!(out[28 + 128..].len(), 28);
                assert_eq!((out[156] >> 4, sum(&out[156..]), &out[160..168]), (2, 0, &[0, 24, 2, 4, 0, 2, 0, 0][..]));
                assert_eq!(out[168..], router, "ICMP-13");
            } else {
                assert_eq!((out.len(), out[25]), (28 + quoted.len() - 20, 0), "ICMP-14");
            }
        }
        assert!(seen.len() == 3 && seen.values().all(|n| (60..140).contains(n)), "ICMP-12: {seen:?}");
        // P33: nothing but errors.
        let reason = if is_br { DropReason::NoRule } else { DropReason::SourceNotMap };
        for kind in [ECHO, UDP, TCP] {
            let outcome = handle(engine.as_mut(), &Make::new(kind, 1234, 80, 30).v6(router, near));
            assert_eq!(outcome.reason(), reason);
        }
    }
}

/// P35: an address under the DMR is the same whatever its u octet and its suffix are.
#[test]
fn p35_u_octet_and_suffix() {
    for way in WAYS.into_iter().filter(|way| way.v6) {
        for (at, octet) in [(8, 0xff), (8, 1), (13, 1), (14, 0x80), (15, 7)] {
            let mut bench = plain(way);
            let mut server = server6();
            server[at] = octet;
            let make = Make::new(UDP, 0, 0, 30);
            let (src_port, dst_port) =
                if bench.to_home() { (SERVER_PORT, bench.outside[1]) } else { (HOST_PORT, SERVER_PORT) };
            let odd = Make { src_port, dst_port, ..make.clone() };
            let input = if bench.to_home() { odd.v6(server, customer6()) } else { odd.v6(customer6(), server) };
            let out = bench.forwarded(&input);
            assert_eq!(out, bench.output(&make, &out), "{way:?} {at}");
        }
    }
}

/// ICMP-2: no message but an echo may stand inside an error.
#[test]
fn icmp2_every_type_inside_an_error() {
    for way in WAYS {
        let mut bench = plain(way);
        for kind in 0..=255u8 {
            for code in [0, 1] {
                let is_echo = code == 0 && if way.v6 { kind == 128 || kind == 129 } else { kind == 8 || kind == 0 };
                let message = Make::new(Kind::Icmp { kind, code }, 0, 0, 40);
                let packet = bench.error(if way.v6 { 1 } else { 3 }, 3, [0; 4], &bench.quote(&message));
                let outcome = bench.handle(&packet);
                if !is_echo {
                    assert_eq!(
                        (outcome.reason(), outcome.reply),
                        (DropReason::IcmpInner, None),
                        "{way:?} {kind}/{code}"
                    );
                } else if way.role != Role::CeNapt {
                    assert_eq!(outcome.verdict, Verdict::Forward);
                }
            }
        }
    }
}

/// ICMP-9, P17: no error is longer than what every path takes.
#[test]
fn icmp9_the_longest_error() {
    for way in WAYS {
        let mut bench = plain(way);
        for len in (0..1500).step_by(37) {
            let make = Make::new(TCP, 0, 0, len);
            let packet = bench.error(if way.v6 { 1 } else { 11 }, 0, [0; 4], &bench.quote(&make));
            let out = bench.forwarded(&packet);
            let whole = if way.v6 { 20 + 8 + 20 + 20 + len } else { 40 + 8 + 40 + 20 + len };
            assert_eq!(out.len(), whole.min(if way.v6 { 576 } else { 1280 }), "{way:?} {len}");
        }
    }
}

/// HDR-8, HDR-9, P22, P38, IPv6 and IPv4 header tables: every field of a whole packet, at every length near a limit.
#[test]
fn hdr_tables_of_a_whole_packet() {
    for way in WAYS {
        let mut bench = mtus(way, 9000, 9000);
        let mut ids = std::collections::BTreeSet::new();
        for kind in [TCP, UDP, ECHO] {
            for len in (0..64).chain(1190..1260).chain([1400, 1472, 4000, 8900]) {
                // DF, so that nothing is cut.
                let make = Make {
                    tos: len as u8,
                    ttl: (len % 250) as u8,
                    id: 0x9abcd,
                    df: true,
                    ..Make::new(kind, 0, 0, len)
                };
                let out = bench.forwarded(&bench.input(&make));
                assert_eq!(out, bench.output(&make, &out), "{way:?} {kind:?} {len}");
                if way.v6 {
                    let p = Packet4::read(&out, false, &mut Vec::new()).unwrap();
                    assert_eq!((p.tos, p.ttl, p.df), (len as u8, (len % 250) as u8, p.total() > 1260));
                    assert_ne!(p.id, 0, "P22");
                    ids.insert(p.id);
                }
            }
        }
        // RFC 6864 §4.3: out of a generator; of 414 draws out of 65,535 hardly ten meet.
        assert!(!way.v6 || ids.len() > 380, "{} identifications", ids.len());
    }
}

/// P32, HDR tables: TTL and hop limit go through, or are decremented once where the engine is told to.
#[test]
fn p32_hop_limits() {
    for way in WAYS {
        let with = |decrement_hop_limit| bench(way, TranslationParams { decrement_hop_limit, ..Default::default() });
        let mut benches = [with(false), with(true)];
        for (decrement_hop_limit, ttl) in (0..=255u8).flat_map(|ttl| [(false, ttl), (true, ttl)]) {
            let bench = &mut benches[usize::from(decrement_hop_limit)];
            let outcome = bench.handle(&bench.input(&Make { ttl, ..Make::new(UDP, 0, 0, 10) }));
            if decrement_hop_limit && ttl < 2 {
                assert_eq!(outcome.reason(), DropReason::HopLimit, "{way:?}");
                let reply = outcome.reply.unwrap();
                let at = if way.v6 { 40 } else { 20 };
                assert_eq!(reply[at..at + 2], if way.v6 { [3, 0] } else { [11, 0] });
                continue;
            }
            let out = outcome.forwarded();
            assert_eq!(out[if way.v6 { 8 } else { 7 }], ttl - u8::from(decrement_hop_limit), "{way:?}");
        }
    }
}

/// MTU-3, MTU-6, MTU-7, P21: too big is told with what fits, in the sender's family.
#[test]
fn mtu3_mtu6_too_big() {
    for way in WAYS {
        for (ipv6, ipv4) in [(1280, 1500), (1500, 1500), (1500, 1280), (1400, 1300), (9000, 600), (1300, 68)] {
            let mut bench = mtus(way, ipv6, ipv4);
            let headers = if way.v6 { 48 } else { 28 };
            // Total Length of what comes in.
            let fits = if way.v6 { ipv4 as usize + 20 } else { ipv6 as usize - 20 };
            for total in [fits - 1, fits, fits + 1, fits + 100] {
                let make = Make { df: true, ..Make::new(UDP, 0, 0, total.saturating_sub(headers)) };
                let input = bench.input(&make);
                let outcome = bench.handle(&input);
                if total <= fits {
                    let out = outcome.forwarded();
                    assert_eq!(out.len(), input.len() + 20 - if way.v6 { 40 } else { 0 });
                    continue;
                }
                if way.v6 && total <= 1280 {
                    // RFC 7915 §5.1.1: nobody has to send less than 1280 octets, so it is cut.
                    assert_eq!(outcome.verdict, Verdict::Forward);
                    assert!(outcome.packets.len() > 1 && outcome.packets.iter().all(|p| p.len() <= ipv4 as usize));
                    outcome.packets.iter().for_each(|p| assert_valid(p));
                    continue;
                }
                assert_eq!(outcome.reason(), DropReason::TooBig, "{way:?} {ipv6} {ipv4} {total}");
                let reply = outcome.reply.unwrap();
                let at = if way.v6 { 40 } else { 20 };
                let told = u32::from_be_bytes(reply[at + 4..at + 8].try_into().unwrap());
                assert_eq!(reply[at..at + 2], if way.v6 { [2, 0] } else { [3, 4] });
                assert_eq!(told, if way.v6 { (ipv4 + 20).max(1280) } else { ipv6 - 20 }, "MTU-7");
            }
        }
    }
}

/// MTU-4: a fragment with DF grows by 28 octets, and may not become more than fits.
#[test]
fn mtu4_a_fragment_with_df() {
    for role in [Role::Br, Role::Ce] {
        let way = Way { role, v6: false };
        for payload in [1224usize, 1232, 1240] {
            let mut bench = mtus(way, 1280, 1500);
            let eighths = (payload / 8) as u16;
            let make = Make { place: Place::First(eighths), df: true, ..Make::new(UDP, 0, 0, 1400) };
            let outcome = bench.handle(&bench.input(&make));
            if payload <= 1280 - 48 {
                assert_eq!(outcome.forwarded().len(), payload + 48);
            } else {
                assert_eq!(outcome.reason(), DropReason::TooBig);
                assert_eq!(word(&outcome.reply.unwrap(), 26), 1280 - 28);
            }
            // RFC 1812 §4.3.2.7: nobody is told about a later one.
            let make = Make { place: Place::Later(8, true), df: true, ..Make::new(UDP, 0, 0, payload + 64) };
            let input = bench.input(&make);
            let outcome = bench.handle(&input);
            if input.len() + 28 > 1280 {
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::TooBig, None));
            } else {
                assert_eq!(outcome.verdict, Verdict::Forward);
            }
        }
    }
}

/// MTU-2, MTU-5, FRAG-6: without DF it is cut so that each piece fits `lowest-ipv6`; at 1280, 1232 octets of payload.
#[test]
fn mtu5_without_df() {
    for way in WAYS.into_iter().filter(|way| !way.v6) {
        for (lowest_ipv6, step) in [(1280u32, 1232usize), (1400, 1352), (1500, 1448)] {
            let mtu = Mtu { ipv6: 1500, ipv4: 9000, lowest_ipv6 };
            let mut bench = bench(way, TranslationParams { mtu, ..Default::default() });
            for len in [1200, 1252, 1253, 1400, 1472, 1473, 4000] {
                let make = Make { id: 0x4242, ..Make::new(UDP, 0, 0, len) };
                let outcome = bench.handle(&bench.input(&make));
                assert_eq!(outcome.verdict, Verdict::Forward);
                let whole = bench.output(&make, &[]);
                if whole.len() <= lowest_ipv6 as usize {
                    assert_eq!(outcome.packets, [whole]);
                    continue;
                }
                let mut payload = Vec::new();
                for (n, out) in outcome.packets.iter().enumerate() {
                    let p = Packet6::read(out, false, &mut Vec::new()).unwrap();
                    let piece = p.fragment.unwrap();
                    assert_eq!((piece.id, piece.offset, p.next), (0x4242, payload.len(), 17));
                    assert_eq!(piece.more, n + 1 < outcome.packets.len());
                    assert!(!piece.more || p.payload.len() == step, "{way:?} {lowest_ipv6} {len}");
                    payload.extend(p.payload);
                }
                assert_eq!(payload, whole[40..], "{way:?} {lowest_ipv6} {len}");
            }
        }
    }
}

/// MTU-5, HDR-1: options of IPv4 are not in the result, so they do not count towards what fits.
#[test]
fn mtu5_options_do_not_count() {
    for way in WAYS.into_iter().filter(|way| !way.v6) {
        for (len, fits) in [(1280 - 48, true), (1280 - 47, false)] {
            let mut bench = plain(way);
            let make = Make { options: vec![1; 40], ..Make::new(UDP, 0, 0, len) };
            let outcome = bench.handle(&bench.input(&make));
            assert_eq!(outcome.packets.len(), if fits { 1 } else { 2 }, "{way:?} {len}");
            outcome.packets.iter().for_each(|out| assert_valid(out));
        }
    }
}

/// MTU-5, FRAG-5: an echo without DF goes whole as long as the next hop takes it, and is never cut.
#[test]
fn mtu5_an_echo_is_not_cut() {
    for way in WAYS.into_iter().filter(|way| !way.v6) {
        for (len, fits) in [(1280 - 48, true), (1281 - 48, true), (1400 - 48, true), (1401 - 48, false)] {
            let mut bench = mtus(way, 1400, 1500);
            let make = Make::new(ECHO, 0, 0, len);
            let outcome = bench.handle(&bench.input(&make));
            if fits {
                let out = outcome.forwarded();
                assert_eq!(out, bench.output(&make, &out), "{way:?} {len}");
            } else {
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::FragmentedIcmp, None), "{way:?} {len}");
            }
        }
    }
}

/// HDR-9, P22: out of the generator comes every Identification but 0, and none much more often than another.
#[test]
fn hdr9_identifications() {
    let random = mapt::siit::Randomness::new(7);
    let mut seen = vec![0u16; 65_536];
    for _ in 0..65_536 * 16 {
        seen[usize::from(random.identification())] += 1;
    }
    assert_eq!(seen[0], 0);
    // Poisson with mean 16, and a fixed seed; 1 has its own share and that of 0.
    assert!(seen[2..].iter().all(|&n| (1..50).contains(&n)), "{:?}", seen[2..].iter().max());
}

/// P23, P24, SUM-6, FRAG-7, HDR tables: fragments keep place and identification; only the first one's header changes.
#[test]
fn p23_p24_fragments() {
    for way in WAYS.into_iter().filter(|way| way.role != Role::CeNapt) {
        for kind in [TCP, UDP, Kind::Other(33), Kind::Other(136)] {
            for place in [
                Place::First(3),
                Place::First(60),
                Place::Later(3, true),
                Place::Later(60, true),
                Place::Later(60, false),
            ] {
                for id in [1, 0xffff, 0x0001_0000, 0xabcd_1234] {
                    let mut bench = plain(way);
                    let make = Make { place, id, df: id == 1, ..Make::new(kind, 0, 0, 900) };
                    let input = bench.input(&make);
                    let out = bench.forwarded(&input);
                    assert_eq!(out, bench.output(&make, &out), "{way:?} {kind:?} {place:?}");
                    if let Place::Later(..) = place {
                        let at = |b: &[u8], v6| if v6 { b[48..].to_vec() } else { b[20..].to_vec() };
                        assert_eq!(at(&out, !way.v6), at(&input, way.v6), "P24: nothing of it");
                    }
                }
            }
        }
    }
}

/// P25, P57, FRAG-5: an atomic fragment is a whole packet, ICMP too; a fragment of ICMP goes nowhere (RFC 7915 §1.2).
#[test]
fn p57_atomic_fragments() {
    for way in WAYS {
        for kind in [TCP, UDP, ECHO] {
            let mut bench = plain(way);
            if way.v6 {
                let make = Make { place: Place::Atomic, id: 0xabcd_1234, ..Make::new(kind, 0, 0, 100) };
                let out = bench.forwarded(&bench.input(&make));
                assert_eq!(out, bench.output(&make, &out));
                assert_eq!((word(&out, 4), word(&out, 6)), (0x1234, 0), "no MF, and RFC 7915 §5.1.1's DF 0");
            }
        }
        for place in [Place::First(4), Place::Later(4, true), Place::Later(4, false)] {
            let mut bench = plain(way);
            let input = bench.input(&Make { place, ..Make::new(ECHO, 0, 0, 100) });
            let outcome = bench.handle(&input);
            assert_eq!((outcome.reason(), outcome.reply), (DropReason::FragmentedIcmp, None), "{way:?} {place:?}");
        }
    }
}

/// HDR-1, P29: options are left out; a source route with a way to go is refused, and told.
#[test]
fn hdr1_options() {
    for way in WAYS.into_iter().filter(|way| !way.v6) {
        for kind in [TCP, UDP, ECHO] {
            for options in [
                vec![148, 4, 0, 0],
                vec![7, 7, 4, 0, 0, 0, 0, 0],
                vec![131, 7, 8, 10, 0, 0, 1, 0],
                vec![1; 40],
                vec![7, 0, 0, 0],
            ] {
                let mut bench = plain(way);
                let make = Make { options, ..Make::new(kind, 0, 0, 100) };
                let out = bench.forwarded(&bench.input(&make));
                assert_eq!(out, bench.output(&make, &out), "{way:?} {:?}", make.options);
            }
            for options in
                [vec![131, 7, 4, 10, 0, 0, 1, 0], vec![137, 7, 4, 10, 0, 0, 1, 0], vec![1, 1, 1, 131, 3, 3, 0, 0]]
            {
                let mut bench = plain(way);
                let outcome = bench.handle(&bench.input(&Make { options, ..Make::new(kind, 0, 0, 100) }));
                assert_eq!(outcome.reason(), DropReason::SourceRoute);
                assert_eq!(outcome.reply.unwrap()[20..22], [3, 5]);
            }
        }
    }
}

/// HDR-3, HDR-4, HDR-5, P30: extension headers are walked and left out; segments left are refused with a pointer;
/// what stands behind a Fragment header cannot be translated; a chain may not run past the packet.
#[test]
fn hdr3_extension_headers() {
    let header = |words: usize, left: u8| [vec![words as u8, 4, left], vec![0; 4 + 8 * words]].concat();
    for way in WAYS.into_iter().filter(|way| way.v6) {
        for kind in [TCP, UDP, ECHO] {
            for chain in
                [vec![(0, 0)], vec![(60, 0)], vec![(43, 0)], vec![(0, 3), (60, 1), (43, 2), (60, 0)], vec![(60, 255)]]
            {
                let extensions: Vec<_> = chain.iter().map(|(n, words)| (*n, header(*words, 0))).collect();
                for place in [Place::Whole, Place::Atomic] {
                    let mut bench = mtus(way, 9000, 9000);
                    let make = Make { extensions: extensions.clone(), place, ..Make::new(kind, 0, 0, 100) };
                    let out = bench.forwarded(&bench.input(&make));
                    assert_eq!(out, bench.output(&make, &out), "{way:?} {chain:?}");
                }
            }
            for before in 0..3 {
                let mut extensions = vec![(60, header(1, 0)); before];
                extensions.push((43, header(2, 1)));
                let mut bench = plain(way);
                let outcome = bench.handle(&bench.input(&Make { extensions, ..Make::new(kind, 0, 0, 100) }));
                assert_eq!(outcome.reason(), DropReason::RoutingHeader);
                let reply = outcome.reply.unwrap();
                assert_eq!((&reply[40..42], word(&reply, 46)), (&[4, 0][..], 40 + 16 * before + 3));
            }
        }
        // Behind a Fragment header: AH and what could be skipped elsewhere; ESP is a payload like another.
        for (next, refused) in [(0, true), (43, true), (60, true), (44, true), (51, true), (50, false)] {
            let mut bench = plain(way);
            let make = Make { place: Place::Atomic, ..Make::new(Kind::Other(next), 0, 0, 100) };
            let outcome = bench.handle(&bench.input(&make));
            if refused {
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::ExtensionHeader, None), "{way:?} {next}");
            } else if way.role == Role::CeNapt {
                assert_eq!(outcome.reason(), DropReason::NaptUnsupported);
            } else {
                assert_eq!(outcome.verdict, Verdict::Forward);
            }
        }
        let mut bench = plain(way);
        let make = Make { extensions: vec![(60, header(1, 0))], ..Make::new(UDP, 0, 0, 100) };
        let mut input = bench.input(&make);
        input[41] = 200;
        assert_eq!(bench.handle(&input).reason(), DropReason::HeaderTruncated);
    }
}

/// HDR-7, P31: a protocol is passed on as it is, 59 too; numbers of the other version, and IGMP, are not.
#[test]
fn hdr7_every_protocol_number() {
    for way in WAYS {
        let mut bench = plain(way);
        for number in 0..=255u8 {
            let make = Make::new(Kind::Other(number), 0, 0, 100);
            let outcome = bench.handle(&bench.input(&make));
            match (number, way.v6) {
                // Their headers do not make sense of the octets; the other tests have packets of theirs.
                (6 | 17, _) | (1, false) | (58, true) | (0 | 43 | 44 | 60, true) => {}
                (1 | 2, true) | (0 | 2 | 43 | 44 | 58 | 60, false) => {
                    assert_eq!(
                        (outcome.reason(), outcome.reply),
                        (DropReason::ProtocolIllegal, None),
                        "{way:?} {number}"
                    );
                }
                _ if way.role == Role::CeNapt => {
                    assert_eq!(outcome.reason(), DropReason::NaptUnsupported, "{way:?} {number}");
                }
                _ => {
                    let out = outcome.forwarded();
                    assert_eq!(out, bench.output(&make, &out), "{way:?} {number}");
                }
            }
        }
    }
}

/// HDR-2, HDR-6, P34: a source that no host may have is dropped in silence; an ICMPv4 error from there is not.
#[test]
fn hdr2_illegal_sources() {
    for way in WAYS {
        let mut bench = plain(way);
        let make = Make::new(UDP, HOST_PORT, SERVER_PORT, 10);
        if way.v6 {
            let to = if bench.to_home() { customer6() } else { server6() };
            for src in ["::", "::1", "ff02::1", "fe80::1"] {
                let outcome = bench.handle(&make.v6(v6(src).octets(), to));
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceIllegal, None), "{way:?} {src}");
            }
            continue;
        }
        let to = if bench.to_home() { bench.home4() } else { SERVER4 };
        let quoted = bench.quote(&Make::new(UDP, 0, 0, 20));
        for src in
            [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [240, 1, 1, 1], [169, 254, 1, 1]]
        {
            let outcome = bench.handle(&make.v4(src, to));
            assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceIllegal, None), "{way:?} {src:?}");
            let report = Report { kind: 11, code: 0, rest: [0; 4], tos: 0, ttl: 64 };
            let out = bench.forwarded(&report.v4(src, to, &quoted));
            assert_eq!(out[40..42], [3, 0], "{way:?} {src:?}");
            // P15: out of the home nothing but the customer's address.
            assert!(bench.to_home() || out[8..24] == customer6());
        }
    }
}

/// SUM-1, SUM-2: a right checksum stays right and a wrong one wrong, by as much (RFC 1624 §4).
#[test]
fn sum1_sum2_wrong_stays_wrong() {
    for way in WAYS {
        for (kind, field) in [(TCP, 16), (UDP, 6), (ECHO, 2)] {
            for error in [0u16, 1, 0x00ff, 0x7fff, 0xfffe] {
                let mut bench = plain(way);
                let make = Make::new(kind, 0, 0, 101);
                let mut input = bench.input(&make);
                let at = if way.v6 { 40 } else { 20 };
                let before = word(&input, at + field) as u32 + u32::from(error);
                let before = (before % 65_535) as u16;
                if before == 0 {
                    continue;
                }
                input[at + field..at + field + 2].copy_from_slice(&before.to_be_bytes());
                let out = bench.handle(&input).forwarded();
                let right = bench.output(&make, &out);
                let at = if way.v6 { 20 } else { 40 };
                let expected = (word(&right, at + field) + usize::from(error)) % 65_535;
                assert_eq!(word(&out, at + field) % 65_535, expected, "{way:?} {kind:?} {error}");
                assert_eq!(out[..at + field], right[..at + field]);
            }
        }
    }
}

/// SUM-3, SUM-4, SUM-5, P27: UDP without checksum, by policy, in both roles and directions.
#[test]
fn sum3_udp_without_checksum() {
    for way in WAYS {
        for policy in [UdpZeroChecksum::Compute, UdpZeroChecksum::Drop, UdpZeroChecksum::Forward] {
            for place in [Place::Whole, Place::First(20)] {
                let translation = TranslationParams { udp_zero_checksum: policy, ..Default::default() };
                let mut bench = bench(way, translation);
                let make = Make { place, ..Make::new(Kind::Udp { zero: true, slack: 0 }, 0, 0, 300) };
                let outcome = bench.handle(&bench.input(&make));
                match policy {
                    UdpZeroChecksum::Forward => {
                        let out = outcome.forwarded();
                        assert_eq!(out, bench.output(&make, &out), "{way:?} {place:?}");
                    }
                    UdpZeroChecksum::Compute if !way.v6 && place == Place::Whole => {
                        let out = outcome.forwarded();
                        assert_valid(&out);
                        let mut expected = bench.output(&make, &out);
                        let (header, payload) = expected.split_at_mut(40);
                        complete(payload, 17, &header[8..24], &header[24..40]);
                        assert_eq!(out, expected);
                    }
                    _ => {
                        let dropped = (outcome.reason(), outcome.reply);
                        assert_eq!(dropped, (DropReason::UdpChecksumZero, None), "{way:?} {place:?} {policy:?}");
                    }
                }
            }
        }
    }
}

/// P36: transport headers that end too early, or say so.
#[test]
fn p36_short_headers() {
    for way in WAYS {
        let at = if way.v6 { 40 } else { 20 };
        for (kind, least) in [(TCP, 20), (UDP, 8), (ECHO, 8)] {
            for there in 0..least {
                let mut bench = plain(way);
                let mut input = bench.input(&Make::new(kind, 0, 0, 30));
                input.truncate(at + there);
                let len = if way.v6 { there } else { 20 + there } as u16;
                let length_at = if way.v6 { 4 } else { 2 };
                input[length_at..length_at + 2].copy_from_slice(&len.to_be_bytes());
                let input = if way.v6 { input } else { edit4(input, |_| {}) };
                let outcome = bench.handle(&input);
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::HeaderTruncated, None), "{way:?} {kind:?}");
            }
        }
        // A UDP length beyond the packet, or below its header; a data offset likewise.
        for (kind, field, value) in [(UDP, 4, [0, 7]), (UDP, 4, [0, 200]), (TCP, 12, [0x40, 16]), (TCP, 12, [0xf0, 16])]
        {
            let mut bench = plain(way);
            let mut input = bench.input(&Make::new(kind, 0, 0, 3));
            input[at + field..at + field + 2].copy_from_slice(&value);
            assert_eq!(bench.handle(&input).reason(), DropReason::LengthMismatch, "{way:?} {kind:?} {value:?}");
        }
    }
}
