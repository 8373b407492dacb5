//! Random packets through the engines and through a second translator that was written from the RFCs.

mod common;
mod oracle;

use std::net::Ipv4Addr;

use common::*;
use mapt::br::Br;
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::frag::FragParams;
use mapt::map::{Dmr, Rule, RuleSpec, RuleTable};
use mapt::napt::{Filter, Filtering, NaptParams, Sharing};
use mapt::siit::{MssClamp, Mtu, PortList, TranslationParams, UdpZeroChecksum};
use mapt::verdict::{DropReason, Verdict};
use oracle::build::{Home, Kind, Make, Place, Report, World, home, offloaded, worlds};
use oracle::packet::{Packet4, Packet6, Upper, complete, sum, word};
use oracle::{Expected, Mss, Oracle, Settings, UdpZero, is_illegal4};
use proptest::prelude::*;
use proptest::sample::select;

/// Octets for a message, not more than a person reads.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for octet in self.0.iter().take(160) {
            write!(f, "{octet:02x}")?;
        }
        write!(f, " ({} octets)", self.0.len())
    }
}

fn params(s: &Settings) -> TranslationParams {
    TranslationParams {
        mtu: Mtu { ipv6: s.mtu6 as u32, ipv4: s.mtu4 as u32, lowest_ipv6: s.lowest as u32 },
        udp_zero_checksum: match s.udp_zero {
            UdpZero::Compute => UdpZeroChecksum::Compute,
            UdpZero::Drop => UdpZeroChecksum::Drop,
            UdpZero::Forward => UdpZeroChecksum::Forward,
        },
        udp_zero_checksum_ports: PortList::new(&s.zero_ports).unwrap(),
        dscp_v4_to_v6: s.dscp[0],
        dscp_v6_to_v4: s.dscp[1],
        tcp_mss_clamp: match s.mss {
            Mss::Off => MssClamp::Off,
            Mss::Auto => MssClamp::Auto,
            Mss::To(limit) => MssClamp::To(limit as u16),
        },
        decrement_hop_limit: s.decrement,
        rfc5837_object: s.object,
    }
}

/// The oracle knows one packet at a time: `tests/prop_fragments.rs` has those that need another.
const STATELESS: FragParams = FragParams { packets: 0, ..FragParams::CE };

fn icmp_of(s: &Settings) -> mapt::reply::IcmpParams {
    mapt::reply::IcmpParams { rfc6791_pool: s.pool.iter().map(|a| Ipv4Addr::from(*a)).collect(), ..icmp_on() }
}

fn br_of(world: &World, s: &Settings) -> (Br, Oracle) {
    let params = mapt::br::BrParams {
        translation: params(s),
        icmp: icmp_of(s),
        check_interface_id: s.check_interface_id,
        fragments: STATELESS,
        ..br_params()
    };
    let engine = Br::new(&provisioning(world.rules.clone(), &world.dmr, None), &params);
    (engine, Oracle::br(&world.rules, &world.dmr, s.clone()))
}

fn ce_of(world: &World, s: &Settings, end_user: &str, napt: bool) -> (Ce, Oracle) {
    let params = CeParams {
        translation: params(s),
        icmp: icmp_of(s),
        check_interface_id: s.check_interface_id,
        fragments: STATELESS,
        napt,
        // As the oracle's NAPT: one port for each inside endpoint, open to everybody.
        napt_params: NaptParams {
            filtering: Filtering { tcp: Some(Filter::EndpointIndependent), udp: Some(Filter::EndpointIndependent) },
            sharing: Sharing { threshold: 0, ..Sharing::default() },
            ..NaptParams::default()
        },
        ..ce_params()
    };
    let engine = Ce::new(&provisioning(world.rules.clone(), &world.dmr, Some(end_user)), &params);
    (engine, Oracle::ce(&world.rules, &world.dmr, end_user, napt, s.clone()))
}

/// One input through both; what must hold for every packet.
fn agree(engine: &mut dyn Engine, oracle: &mut Oracle, input: &[u8]) -> Result<Outcome, TestCaseError> {
    let outcome = handle(engine, input);
    let settings = oracle.settings.clone();
    match (outcome.verdict, oracle.expect(input, &outcome.packets)) {
        (Verdict::Forward, Expected::Forward(expected)) => {
            prop_assert!(
                outcome.packets == expected,
                "{:?}, not {:?}, from {:?}",
                outcome.packets.iter().map(|b| Hex(b)).collect::<Vec<_>>(),
                expected.iter().map(|b| Hex(b)).collect::<Vec<_>>(),
                Hex(input)
            );
        }
        (Verdict::Drop { reason, .. }, Expected::Drop(faults)) => {
            prop_assert!(faults.contains(&reason), "{} is none of {:?}: {:?}", reason.name(), faults, Hex(input));
        }
        (verdict, Expected::Forward(_)) => prop_assert!(false, "{:?}, not forwarded: {:?}", verdict, Hex(input)),
        (verdict, expected) => prop_assert!(false, "{:?}, not {:?}: {:?}", verdict, expected, Hex(input)),
    }
    let v6_in = input.first().is_some_and(|b| b >> 4 == 6);
    let zero = !v6_in
        && Packet4::read(input, false, &mut Vec::new())
            .filter(|p| p.protocol == 17 && p.payload.len() >= 8 && word(&p.payload, 6) == 0)
            .is_some_and(|p| !settings.zero_ports.contains(&(word(&p.payload, 2) as u16)));
    for out in &outcome.packets {
        prop_assert!(out.len() <= if v6_in { settings.mtu4 } else { settings.mtu6 }, "{} octets", out.len());
        // etherparse looks for an Authentication Header in later fragments too.
        let fragment_of_ah = out.get(6) == Some(&44) && out.get(40) == Some(&51);
        if !fragment_of_ah && judge(input).is_ok() || (zero && settings.udp_zero == UdpZero::Compute) {
            prop_assert!(judge(out).is_ok(), "{:?} of {:?}: {:?}", judge(out), Hex(input), Hex(out));
        }
    }
    if let Verdict::Drop { reason, .. } = outcome.verdict {
        check_answer(oracle, input, reason, outcome.reply.as_deref())?;
    }
    Ok(outcome)
}

/// Type and code that a sender is told (RFC 7599 §8.2, §8.3, RFC 7915 §4.1, §4.4, §5.1, §5.4, RFC 5508 REQ-8).
fn answer_to(reason: DropReason, v6: bool) -> Option<(u8, u8)> {
    use DropReason::*;
    match (reason, v6) {
        (SourceRoute, false) => Some((3, 5)),
        (RoutingHeader, true) => Some((4, 0)),
        (TooBig, false) => Some((3, 4)),
        (TooBig, true) => Some((2, 0)),
        (HopLimit, false) => Some((11, 0)),
        (HopLimit, true) => Some((3, 0)),
        (ProtocolWithoutPort | NoRule | AddressNotGlobal | Unprovisioned, true) => Some((1, 1)),
        (PortExcluded | PsidUnassigned | PortOutsideSet | SourceMismatch, true) => Some((1, 5)),
        (ProtocolWithoutPort | NoRule | AddressNotGlobal | Unprovisioned, false) => Some((3, 13)),
        (PortExcluded | PsidUnassigned | SourceNotOurs | NaptExhausted | NaptUnsupported, false) => Some((3, 13)),
        _ => None,
    }
}

/// ICMP-4, ICMP-5, ICMP-10: RFC 1812 §4.3.2.7, RFC 4443 §2.4, RFC 7915 §4.4, §5.4: who is told, what, and how much of the packet.
fn check_answer(oracle: &Oracle, input: &[u8], reason: DropReason, reply: Option<&[u8]>) -> Result<(), TestCaseError> {
    let v6 = input.first().is_some_and(|b| b >> 4 == 6);
    let mut told = answer_to(reason, v6);
    if v6 {
        let p = Packet6::read(input, false, &mut Vec::new());
        let message = p.as_ref().filter(|p| p.next == 58).and_then(|p| p.payload.first().copied());
        let multicast = |a: &[u8; 16]| a[0] == 0xff;
        told = told.filter(|answer| {
            p.as_ref().is_some_and(|p| {
                let bad = multicast(&p.src) || p.src[..15] == [0; 15] && p.src[15] < 2;
                !bad && (!multicast(&p.dst) || *answer == (2, 0))
            }) && message.is_none_or(|kind| kind >= 128 && kind != 137 && *answer != (1, 1))
        });
        prop_assert_eq!(reply.is_some(), told.is_some(), "{} about {:?}", reason.name(), Hex(input));
        let (Some(reply), Some((kind, code)), Some(p)) = (reply, told, p) else { return Ok(()) };
        let dmr = oracle.reply_source();
        let r = Packet6::read(reply, false, &mut Vec::new()).unwrap();
        prop_assert_eq!((r.src, r.dst, r.next, r.payload[0], r.payload[1]), (dmr, p.src, 58, kind, code));
        let total = 40 + word(input, 4);
        let most = total.min(1280 - 48);
        prop_assert_eq!(&r.payload[8..], &input[..most]);
        let field = u32::from_be_bytes(r.payload[4..8].try_into().unwrap()) as usize;
        let expected = match reason {
            DropReason::TooBig => 1280.max(oracle.settings.mtu4 + 20),
            DropReason::RoutingHeader => p.segments_left_at.unwrap(),
            _ => 0,
        };
        prop_assert_eq!(field, expected);
    } else {
        let p = Packet4::read(input, false, &mut Vec::new());
        told = told.filter(|_| {
            p.as_ref().is_some_and(|p| {
                let query = |kind: u8| [0, 8, 13, 14, 15, 16, 17, 18].contains(&kind);
                let error = p.protocol == 1 && !p.payload.first().is_some_and(|kind| query(*kind));
                let single = |a: [u8; 4]| a[0] != 0 && a[0] != 127 && a[0] < 224;
                p.offset == 0 && !error && single(p.src) && single(p.dst)
            })
        });
        prop_assert_eq!(reply.is_some(), told.is_some(), "{} about {:?}", reason.name(), Hex(input));
        let (Some(reply), Some((kind, code)), Some(p)) = (reply, told, p) else { return Ok(()) };
        let r = Packet4::read(reply, false, &mut Vec::new()).unwrap();
        let from = oracle.settings.pool[0];
        prop_assert_eq!((r.src, r.dst, r.protocol, r.payload[0], r.payload[1]), (from, p.src, 1, kind, code));
        let most = p.total().min(576 - 28);
        prop_assert_eq!(&r.payload[8..], &input[..most]);
        let growth = if p.mf { 28 } else { 20 };
        let expected = if reason == DropReason::TooBig { oracle.settings.mtu6 - growth } else { 0 };
        prop_assert_eq!((word(&r.payload, 4), word(&r.payload, 6)), (0, expected));
    }
    Ok(())
}

// What packets are drawn from.

fn settings() -> impl Strategy<Value = Settings> {
    let mtus = prop_oneof![
        4 => Just((1500, 1500, 1280)),
        3 => (select(vec![1280, 1281, 1400, 1492, 1500, 9000, 65535]),
              select(vec![68, 75, 300, 576, 1260, 1280, 1400, 1500, 9000]),
              select(vec![1280, 1283, 1400, 1500, 65535])),
    ];
    let zero = prop_oneof![4 => Just(UdpZero::Compute), 1 => Just(UdpZero::Drop), 1 => Just(UdpZero::Forward)];
    let pool = select(vec![vec![[192, 0, 0, 8]], vec![[198, 51, 100, 1], [198, 51, 100, 2], [198, 51, 100, 3]]]);
    let switches = (prop::bool::weighted(0.2), prop::bool::weighted(0.8), any::<bool>());
    let mss = prop_oneof![1 => Just(Mss::Off), 1 => Just(Mss::Auto), 1 => (536..=1500usize).prop_map(Mss::To)];
    let ports = prop_oneof![Just(vec![]), Just(vec![2152, 4789]), Just((4780..4796).collect())];
    let dscp = || prop::option::weighted(0.3, 0..64u8);
    (mtus, (zero, ports), switches, pool, mss, (dscp(), dscp())).prop_map(
        |((mtu6, mtu4, lowest), (udp_zero, zero_ports), (decrement, check_interface_id, object), pool, mss, dscp)| {
            Settings {
                mtu6,
                mtu4,
                lowest,
                udp_zero,
                zero_ports,
                mss,
                dscp: [dscp.0, dscp.1],
                decrement,
                check_interface_id,
                object,
                pool,
            }
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (0..11u8, any::<u8>()).prop_map(|(options, flags)| Kind::Tcp { options, flags }),
        4 => (prop::bool::weighted(0.2), prop_oneof![5 => Just(0u8), 1 => 0..9u8])
            .prop_map(|(zero, slack)| Kind::Udp { zero, slack }),
        3 => any::<bool>().prop_map(|request| Kind::Echo { request }),
        1 => (any::<u8>(), 0..17u8).prop_map(|(kind, code)| Kind::Icmp { kind, code }),
        3 => prop_oneof![2 => select(vec![33u8, 33, 136, 136, 47, 50, 51, 59, 132, 0, 2, 41, 43, 44, 60, 1, 58]), 1 => any::<u8>()].prop_map(Kind::Other),
    ]
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let random = prop::collection::vec(any::<u8>(), 4..=40).prop_map(|mut options| {
        options.truncate(options.len() / 4 * 4);
        options
    });
    prop_oneof![
        12 => Just(Vec::new()),
        1 => random,
        // Router Alert; a record route; source routes that are used up and that are not.
        1 => select(vec![vec![148, 4, 0, 0], vec![7, 7, 4, 0, 0, 0, 0, 0], vec![1, 131, 7, 8, 10, 0, 0, 1],
                         vec![137, 7, 4, 10, 0, 0, 1, 0], vec![131, 3, 4, 1, 68, 0, 0, 0], vec![7, 0, 131, 7]]),
    ]
}

/// Options of TCP, most of them well-formed, an MSS among them.
fn tcp_options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        6 => any::<u16>().prop_map(|mss| vec![2, 4, (mss >> 8) as u8, mss as u8]),
        6 => (400..1700u16).prop_map(|mss| vec![2, 4, (mss >> 8) as u8, mss as u8]),
        4 => Just(vec![1]),
        2 => Just(vec![4, 2]),
        2 => Just(vec![3, 3, 7]),
        2 => any::<[u8; 8]>().prop_map(|stamps| [&[8, 10], &stamps[..]].concat()),
        1 => select(vec![vec![0], vec![2, 0], vec![3, 1], vec![2, 3, 9], vec![2, 5, 5, 5, 5], vec![200, 41], vec![2]]),
    ];
    prop_oneof![
        2 => Just(Vec::new()),
        6 => prop::collection::vec(option, 1..7).prop_map(|options| options.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let header = (select(vec![0u8, 60, 43]), 0..3u8, prop_oneof![6 => Just(0u8), 1 => 1..4u8]).prop_map(
        |(number, words, left)| {
            let mut rest = vec![words];
            rest.extend([if number == 43 { 4 } else { 1 }, if number == 43 { left } else { 4 }]);
            rest.resize(7 + usize::from(words) * 8, 0);
            (number, rest)
        },
    );
    prop_oneof![8 => Just(Vec::new()), 2 => prop::collection::vec(header, 1..4)]
}

fn make() -> impl Strategy<Value = Make> {
    let len = prop_oneof![
        20 => 0..120usize,
        12 => 1180..1300usize,
        12 => 1380..1540usize,
        6 => 0..4000usize,
        1 => 65_400..65_530usize,
    ];
    let place = prop_oneof![
        12 => Just(Place::Whole),
        1 => Just(Place::Atomic),
        1 => (0..200u16).prop_map(Place::First),
        1 => (0..200u16, any::<bool>()).prop_map(|(from, more)| Place::Later(from, more)),
    ];
    let fields = (any::<u8>(), prop_oneof![8 => 2..=255u8, 1 => 0..2u8], any::<u32>(), any::<bool>());
    (kind(), len, any::<u8>(), fields, (options(), tcp_options()), extensions(), place).prop_map(
        |(kind, len, seed, (tos, ttl, id, df), (options, tcp_options), extensions, place)| Make {
            tos,
            ttl,
            id,
            df,
            options,
            tcp_options,
            extensions,
            place,
            seed,
            ..Make::new(kind, 0, 0, len)
        },
    )
}

fn random_rule() -> impl Strategy<Value = World> {
    let numbers = (16..=100u8, 8..=32u8, 0..=48u8, 0..=15u8, 0..=16u8);
    (numbers, any::<u128>(), any::<u32>(), any::<u16>(), select(vec![32u8, 40, 48, 56, 64, 96])).prop_filter_map(
        "a rule that RFC 7597 accepts",
        |((n, r, o, a, k), v6, v4, psid, dmr_len)| {
            let v6 = v6 >> 4 | 2 << 124;
            let v4 = (v4 % 0x4000_0000) | 0x4000_0000;
            let rule_ipv6_prefix = mapt::map::Ipv6Prefix::truncating(v6.into(), n);
            let rule_ipv4_prefix = mapt::map::Ipv4Prefix::truncating(v4.into(), r);
            let explicit = o + r == 32 && k > 0;
            let spec = RuleSpec {
                name: "random".into(),
                rule_ipv6_prefix,
                rule_ipv4_prefix,
                ea_len: o,
                psid_offset: a,
                psid_len: explicit.then_some(k),
                psid: explicit.then(|| (u32::from(psid) % (1 << k)) as u16),
                forwarding: psid % 4 > 0,
                dmr_ipv6_prefix: None,
            };
            let dmr = mapt::map::Ipv6Prefix::truncating("fd00:64:9b:4600:11:22:33:44".parse().unwrap(), dmr_len);
            let rule = Rule::new(spec.clone()).ok()?;
            RuleTable::new(vec![rule], Some(Dmr::new(dmr).ok()?)).ok()?;
            Some(World { rules: vec![spec], dmr: dmr.to_string() })
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    prop_oneof![3 => select(worlds()), 1 => Just(worlds().swap_remove(1)), 1 => random_rule()]
}

/// Where an address of the Internet may lie, or may not.
fn remote() -> impl Strategy<Value = [u8; 4]> {
    let odd =
        vec![[127, 0, 0, 1], [0, 1, 2, 3], [224, 0, 0, 5], [255, 255, 255, 255], [169, 254, 3, 3], [240, 1, 1, 1]];
    let local = vec![[10, 2, 3, 4], [192, 168, 7, 7], [100, 64, 1, 1], [192, 0, 2, 201], [172, 31, 0, 9]];
    prop_oneof![12 => select(vec![[8, 8, 8, 8], [9, 1, 2, 3], [193, 0, 14, 129]]), 3 => select(local), 1 => select(odd)]
}

/// One packet between a home and somebody, and what is wrong with it.
#[derive(Clone, Debug)]
struct Draw {
    world: World,
    home: (usize, u64),
    /// Which port of the home: of its set, or any.
    port: (u16, bool),
    peer: Peer,
    peer_port: u16,
    v6: bool,
    make: Make,
    report: Option<(Report, Reporter, usize, Option<Extension>)>,
    /// A bit of source (or destination) that is turned over.
    spoof: Option<(bool, u8)>,
}

/// An RFC 4884 extension: words of quote in front of it, what the attribute says beside the truth, its octets.
type Extension = (u8, Option<u8>, Vec<u8>);

#[derive(Clone, Copy, Debug)]
enum Peer {
    Internet([u8; 4]),
    Neighbour(usize, u64),
}

#[derive(Clone, Copy, Debug)]
enum Reporter {
    End,
    Internet([u8; 4]),
    Router(u64),
    Neighbour(usize, u64),
}

fn extension() -> impl Strategy<Value = Extension> {
    let octets = prop_oneof![
        3 => Just(vec![0x20, 0, 0xde, 0xad, 0, 8, 1, 1, 9, 2, 3, 4]),
        3 => prop::collection::vec(any::<u8>(), 0..200),
        1 => prop::collection::vec(any::<u8>(), 350..480),
        1 => prop::collection::vec(any::<u8>(), 1000..1200),
    ];
    let words = prop_oneof![1 => Just(0u8), 1 => 0..40u8, 1 => any::<u8>()];
    let lie = prop_oneof![8 => Just(None), 1 => any::<u8>().prop_map(Some)];
    (words, lie, octets)
}

fn report(v6: bool) -> impl Strategy<Value = (Report, Reporter, usize, Option<Extension>)> {
    let kind4 = vec![
        (3, 0),
        (3, 1),
        (3, 2),
        (3, 3),
        (3, 4),
        (3, 13),
        (3, 14),
        (11, 0),
        (11, 1),
        (12, 0),
        (12, 1),
        (12, 2),
        (5, 1),
    ];
    let kind6 = vec![
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (1, 5),
        (1, 6),
        (2, 0),
        (3, 0),
        (3, 1),
        (4, 0),
        (4, 1),
        (4, 2),
        (137, 0),
    ];
    let kind = if v6 { kind6 } else { kind4 };
    let kind = prop_oneof![8 => select(kind), 1 => (0..20u8, 0..17u8)];
    let rest = prop_oneof![
        Just([0; 4]),
        (0..45u8).prop_map(|at| [0, 0, 0, at]),
        (0..22u8).prop_map(|at| [at, 0, 0, 0]),
        (0..2000u16).prop_map(|mtu| [0, 0, (mtu >> 8) as u8, mtu as u8]),
        any::<[u8; 4]>(),
    ];
    let who = prop_oneof![
        2 => Just(Reporter::End),
        2 => remote().prop_map(Reporter::Internet),
        2 => any::<u64>().prop_map(Reporter::Router),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(which, draw)| Reporter::Neighbour(which, draw)),
    ];
    let keep = prop_oneof![3 => Just(usize::MAX), 1 => 0..100usize, 1 => 0..1600usize];
    let extension = prop::option::weighted(0.4, extension());
    (kind, rest, who, keep, extension, any::<u8>(), 2..=255u8).prop_map(
        |((kind, code), rest, who, keep, extension, tos, ttl)| {
            (Report { kind, code, rest, tos, ttl }, who, keep, extension)
        },
    )
}

fn draw() -> impl Strategy<Value = Draw> {
    let peer = prop_oneof![
        4 => remote().prop_map(Peer::Internet),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(which, draw)| Peer::Neighbour(which, draw)),
    ];
    let port = prop_oneof![
        12 => any::<u16>().prop_map(|port| (port, true)),
        2 => any::<u16>().prop_map(|port| (port, false)),
        2 => select(vec![2152u16, 4789]).prop_map(|port| (port, true)),
        1 => (0..1024u16).prop_map(|port| (port, false)),
    ];
    let reports = (prop::option::weighted(0.35, report(false)), prop::option::weighted(0.35, report(true)));
    let spoof = prop_oneof![8 => Just(None), 1 => (any::<bool>(), 0..128u8).prop_map(Some)];
    let peer_port = prop_oneof![9 => any::<u16>(), 1 => select(vec![2152u16, 4789])];
    let who = (world(), (any::<usize>(), any::<u64>()), port, peer, peer_port);
    (who, any::<bool>(), make(), reports, spoof).prop_map(
        |((world, home, port, peer, peer_port), v6, make, reports, spoof)| Draw {
            world,
            home,
            port,
            peer,
            peer_port,
            v6,
            make,
            report: if v6 { reports.1 } else { reports.0 },
            spoof,
        },
    )
}

fn flipped<const N: usize>(mut a: [u8; N], bit: u8) -> [u8; N] {
    let bit = usize::from(bit) % (N * 8);
    a[bit / 8] ^= 0x80 >> (bit % 8);
    a
}

impl Draw {
    fn home(&self, oracle: &Oracle) -> Home {
        home(&oracle.rules, self.home.0, self.home.1)
    }

    /// The packet, as it comes to a BR or to the CE of the home.
    fn input(&self, oracle: &Oracle, is_br: bool) -> Vec<u8> {
        let home = self.home(oracle);
        let port = if self.port.1 { home.port(&oracle.rules, self.port.0) } else { self.port.0 };
        let of_home = |ipv4| oracle.outside(home.rule, ipv4);
        let (peer4, peer6) = match self.peer {
            Peer::Internet(ipv4) => (ipv4, of_home(ipv4)),
            Peer::Neighbour(which, draw) => {
                let other = oracle::build::home(&oracle.rules, which, draw);
                (other.ipv4, if is_br { of_home(other.ipv4) } else { other.ipv6 })
            }
        };
        let peer_port = match self.peer {
            Peer::Neighbour(which, draw) if !self.peer_port.is_multiple_of(8) => {
                oracle::build::home(&oracle.rules, which, draw).port(&oracle.rules, self.peer_port)
            }
            _ => self.peer_port,
        };
        // Towards the home: IPv4 at the BR, IPv6 at the CE; a packet in error went the other way.
        let inbound = self.v6 != is_br;
        let to_home = inbound != self.report.is_some();
        let mut make = self.make.clone();
        let is_echo = matches!(make.kind, Kind::Echo { .. });
        (make.src_port, make.dst_port) = if to_home { (peer_port, port) } else { (port, peer_port) };
        if is_echo {
            make.src_port = port;
        }
        if self.report.is_some() {
            make.len = make.len.min(1600);
        }
        if self.v6 {
            if make.len > 65_000 {
                make.extensions.clear();
            }
            let ends = if to_home { (peer6, home.ipv6) } else { (home.ipv6, peer6) };
            let (mut src, mut dst) = ends;
            match self.spoof {
                Some((true, bit)) => src = flipped(src, bit),
                Some((false, bit)) => dst = flipped(dst, bit),
                None => {}
            }
            let packet = make.v6(src, dst);
            let Some((report, who, keep, extension)) = &self.report else { return packet };
            let (report, quoted) = quote(self.v6, report, packet, *keep, extension);
            let reporter = match *who {
                Reporter::End => ends.1,
                Reporter::Internet(ipv4) => of_home(ipv4),
                Reporter::Router(draw) => {
                    (0x2001_0db8_dead_0000_0000_0000_0000_0000u128 | u128::from(draw)).to_be_bytes()
                }
                Reporter::Neighbour(which, draw) => oracle::build::home(&oracle.rules, which, draw).ipv6,
            };
            report.v6(reporter, src, &quoted)
        } else {
            let ends = if to_home { (peer4, home.ipv4) } else { (home.ipv4, peer4) };
            let (mut src, mut dst) = ends;
            match self.spoof {
                Some((true, bit)) => src = flipped(src, bit),
                Some((false, bit)) => dst = flipped(dst, bit),
                None => {}
            }
            let packet = make.v4(src, dst);
            let Some((report, who, keep, extension)) = &self.report else { return packet };
            let (report, quoted) = quote(self.v6, report, packet, *keep, extension);
            let reporter = match *who {
                Reporter::End => ends.1,
                Reporter::Internet(ipv4) => ipv4,
                Reporter::Router(draw) => (draw as u32).to_be_bytes(),
                Reporter::Neighbour(which, draw) => oracle::build::home(&oracle.rules, which, draw).ipv4,
            };
            report.v4(reporter, src, &quoted)
        }
    }
}

/// RFC 4884: a datagram of at least 128 octets, zero-padded, its length in the attribute, an extension behind it.
fn quote(
    v6: bool,
    report: &Report,
    mut packet: Vec<u8>,
    keep: usize,
    extension: &Option<Extension>,
) -> (Report, Vec<u8>) {
    let mut report = report.clone();
    packet.truncate(keep.min(1700));
    if let Some((words, lie, octets)) = extension {
        let unit = if v6 { 8 } else { 4 };
        let words = (*words).max(128 / unit);
        packet.resize(usize::from(words) * usize::from(unit), 0);
        report.rest[if v6 { 0 } else { 1 }] = lie.unwrap_or(words);
        packet.extend(octets);
    }
    (report, packet)
}

/// What a careless or hostile network does to a packet.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize),
    Octet(usize, u8),
    Cut(usize),
    Grow(u8),
    /// Another total or payload length.
    Length(u16),
    /// Another length, by a little.
    Off(i8),
    /// IHL, or the next header.
    Header(u8),
}

fn damage() -> impl Strategy<Value = (Vec<Damage>, bool)> {
    let one = prop_oneof![
        3 => (0..100usize * 8).prop_map(Damage::Flip),
        2 => (0..130usize, any::<u8>()).prop_map(|(at, octet)| Damage::Octet(at, octet)),
        1 => (1..9usize).prop_map(Damage::Cut),
        1 => (0..160usize).prop_map(Damage::Cut),
        1 => any::<u8>().prop_map(Damage::Grow),
        1 => any::<u16>().prop_map(Damage::Length),
        2 => any::<i8>().prop_map(Damage::Off),
        1 => any::<u8>().prop_map(Damage::Header),
    ];
    (prop::collection::vec(one, 1..4), any::<bool>())
}

/// Damages a packet; `mend` makes checksums (and the length of a packet cut short) right again, so that the damage
/// gets further.
fn damaged(mut b: Vec<u8>, (damages, mend): &(Vec<Damage>, bool)) -> Vec<u8> {
    for damage in damages {
        let v6 = b.first().is_some_and(|b| b >> 4 == 6);
        let length_at = if v6 { 4 } else { 2 };
        match *damage {
            Damage::Flip(bit) if bit / 8 < b.len() => b[bit / 8] ^= 1 << (bit % 8),
            Damage::Octet(at, octet) if at < b.len() => b[at] = octet,
            Damage::Cut(by) => b.truncate(b.len().saturating_sub(by)),
            Damage::Grow(by) => b.extend(vec![by; usize::from(by)]),
            Damage::Length(len) if b.len() > 6 => b[length_at..length_at + 2].copy_from_slice(&len.to_be_bytes()),
            Damage::Off(by) if b.len() > 6 => {
                let len = (word(&b, length_at) as u16).wrapping_add_signed(by.into());
                b[length_at..length_at + 2].copy_from_slice(&len.to_be_bytes());
            }
            Damage::Header(octet) if b.len() > 6 => {
                b[if v6 { 6 } else { 0 }] = if v6 { octet } else { 0x40 | (octet % 16) }
            }
            _ => {}
        }
    }
    // What no device hands over, no buffer holds.
    b.truncate(40 + 65_535);
    if *mend { mended(b, damages.iter().any(|d| matches!(d, Damage::Cut(_)))) } else { b }
}

fn mended(mut b: Vec<u8>, cut: bool) -> Vec<u8> {
    let header = b.first().map_or(0, |b| usize::from(b % 16) * 4);
    match b.first().map_or(0, |b| b >> 4) {
        4 if (20..=b.len()).contains(&header) => {
            if cut {
                let len = b.len() as u16;
                b[2..4].copy_from_slice(&len.to_be_bytes());
            }
            b[10..12].copy_from_slice(&[0, 0]);
            let field = (65535 - sum(&b[..header])) as u16;
            b[10..12].copy_from_slice(&field.to_be_bytes());
            let end = b.len().min(word(&b, 2));
            if b[9] == 1 && end >= header + 8 {
                complete(&mut b[header..end], 1, &[], &[]);
            }
        }
        6 if b.len() >= 40 => {
            if cut {
                let len = (b.len() - 40) as u16;
                b[4..6].copy_from_slice(&len.to_be_bytes());
            }
            let end = b.len().min(40 + word(&b, 4));
            if b[6] == 58 && end >= 48 {
                let (ip, rest) = b.split_at_mut(40);
                complete(&mut rest[..end - 40], 58, &ip[8..24], &ip[24..40]);
            }
        }
        _ => {}
    }
    b
}

fn is_ce_of(world: &World, end_user: &str) -> bool {
    let provisioning = provisioning(world.rules.clone(), &world.dmr, Some(end_user));
    provisioning.table.customer(provisioning.end_user_prefix.unwrap()).is_ok()
}

/// 256 cases, or PROPTEST_CASES, divided by how slow one is.
fn config(slowness: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases / slowness, max_shrink_iters: 4000, failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(config(1))]

    /// BR-*, HDR-*, SUM-*, ICMP-*, MTU-*: each packet as RFC 7599 §8.3, §8.4 and RFC 7915 have it.
    #[test]
    fn br(
        draws in prop::collection::vec(draw(), 1..6), settings in settings(),
        superpacket in prop::option::weighted(0.3, 400..1500u16),
    ) {
        let world = draws[0].world.clone();
        let (mut engine, mut oracle) = br_of(&world, &settings);
        for mut draw in draws {
            draw.world = world.clone();
            // Nothing of one packet may be left over in the next.
            if let Some(size) = superpacket {
                let server = oracle.outside(draw.home(&oracle).rule, [8, 8, 8, 8]);
                let make = Make::new(Kind::Tcp { options: 3, flags: 16 }, 1234, 80, 5000);
                handle_packet(&mut engine, &mut offloaded(make.v6(draw.home(&oracle).ipv6, server), size, false), NOW);
                let make = Make { df: size % 2 == 0, ..make };
                handle_packet(&mut engine, &mut offloaded(make.v4([8, 8, 8, 8], draw.home(&oracle).ipv4), size, false), NOW);
            }
            let input = draw.input(&oracle, true);
            agree(&mut engine, &mut oracle, &input)?;
        }
    }

    /// CE-*: RFC 7599 §8.1, §8.2 without NAPT44.
    #[test]
    fn ce(draws in prop::collection::vec(draw(), 1..6), settings in settings()) {
        for draw in draws {
            let (_, oracle) = br_of(&draw.world, &settings);
            let end_user = draw.home(&oracle).end_user(&oracle.rules);
            if !is_ce_of(&draw.world, &end_user) {
                continue;
            }
            let (mut engine, mut oracle) = ce_of(&draw.world, &settings, &end_user, false);
            let input = draw.input(&oracle, false);
            agree(&mut engine, &mut oracle, &input)?;
        }
    }

    /// P18, P36: broken packets are dropped as they are, or translated as what they say they are.
    #[test]
    fn br_damaged(draws in prop::collection::vec((draw(), damage()), 1..6), settings in settings()) {
        let world = draws[0].0.world.clone();
        let (mut engine, mut oracle) = br_of(&world, &settings);
        for (mut draw, damage) in draws {
            draw.world = world.clone();
            let input = damaged(draw.input(&oracle, true), &damage);
            agree(&mut engine, &mut oracle, &input)?;
        }
    }

    #[test]
    fn ce_damaged(draws in prop::collection::vec((draw(), damage()), 1..6), settings in settings()) {
        for (draw, damage) in draws {
            let (_, oracle) = br_of(&draw.world, &settings);
            let end_user = draw.home(&oracle).end_user(&oracle.rules);
            if !is_ce_of(&draw.world, &end_user) {
                continue;
            }
            let (mut engine, mut oracle) = ce_of(&draw.world, &settings, &end_user, false);
            let input = damaged(draw.input(&oracle, false), &damage);
            agree(&mut engine, &mut oracle, &input)?;
        }
    }

    /// No octets at all make an engine panic.
    #[test]
    fn noise(mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6: bool, settings in settings()) {
        if let Some(first) = bytes.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let world = &worlds()[0];
        let (mut br, mut oracle) = br_of(world, &settings);
        agree(&mut br, &mut oracle, &bytes)?;
        let (mut ce, mut oracle) = ce_of(world, &settings, "2001:db8:12:3400::/56", true);
        agree(&mut ce, &mut oracle, &bytes)?;
    }
}

/// What happens at a CE with NAPT44.
#[derive(Clone, Debug)]
enum Step {
    Out {
        host: u8,
        port: u8,
        make: Make,
        remote: [u8; 4],
        remote_port: u16,
    },
    In {
        make: Make,
        port: InPort,
        remote: [u8; 4],
        remote_port: u16,
    },
    /// A host of the home, or a router there, complains about the last packet that came in.
    ErrorOut {
        report: Report,
        extension: Option<Extension>,
        router: bool,
    },
    /// The Internet complains about the last packet that went out.
    ErrorIn {
        report: Report,
        extension: Option<Extension>,
        reporter: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum InPort {
    Seen(usize),
    OfSet(u16),
    Any(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let plain = || {
        make().prop_map(|mut make| {
            make.options.clear();
            make.len %= 1200;
            make
        })
    };
    let errors = vec![(3, 3), (3, 0), (3, 4), (11, 0), (12, 0), (1, 4), (1, 0), (2, 0), (4, 1)];
    let report = move || {
        (select(errors.clone()), 2..=255u8).prop_map(|((kind, code), ttl)| Report {
            kind,
            code,
            rest: [0, 0, 5, 0],
            tos: 3,
            ttl,
        })
    };
    let in_port = prop_oneof![
        5 => any::<usize>().prop_map(InPort::Seen),
        1 => any::<u16>().prop_map(InPort::OfSet),
        1 => any::<u16>().prop_map(InPort::Any),
    ];
    prop_oneof![
        6 => (0..4u8, 0..24u8, plain(), remote(), any::<u16>())
            .prop_map(|(host, port, make, remote, remote_port)| Step::Out { host, port, make, remote, remote_port }),
        3 => (plain(), in_port, remote(), any::<u16>())
            .prop_map(|(make, port, remote, remote_port)| Step::In { make, port, remote, remote_port }),
        1 => (report(), prop::option::of(extension()), any::<bool>())
            .prop_map(|(report, extension, router)| Step::ErrorOut { report, extension, router }),
        1 => (report(), prop::option::of(extension()), any::<u64>())
            .prop_map(|(report, extension, reporter)| Step::ErrorIn { report, extension, reporter }),
    ]
}

proptest! {
    #![proptest_config(config(4))]

    /// CE-1 to CE-3, NAT-1, NAT-2, NAT-12, P15, P39: 63 ports, 4 hosts, any order. Each mapping stays what it was.
    #[test]
    fn ce_with_napt(steps in prop::collection::vec(step(), 1..150), settings in settings()) {
        let world = World {
            rules: vec![rule("2001:db8::/40", "192.0.2.0/24", 18), RuleSpec { forwarding: false, ..rule("2001:db8:100::/40", "198.51.100.0/24", 16) }],
            dmr: "2001:db8:ffff::/64".into(),
        };
        let end_user = "2001:db8:12:3480::/58";
        let (mut engine, mut oracle) = ce_of(&world, &settings, end_user, true);
        let ours = home(&oracle.rules, 0, 0);
        let own: [u8; 16] = v6("2001:db8:12:3480:0:c000:212:d2").octets();
        let psid = oracle.rules[0].read(own).1;
        prop_assert_eq!(oracle.rules[0].address([192, 0, 2, 18], psid), own);
        let mut seen: Vec<u16> = Vec::new();
        let (mut last_out, mut last_in): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
        for step in steps {
            match step {
                Step::Out { host, port, mut make, remote, remote_port } => {
                    (make.src_port, make.dst_port) = (40_000 + u16::from(port), remote_port);
                    let input = make.v4([192, 168, 1, 10 + host], remote);
                    let outcome = agree(&mut engine, &mut oracle, &input)?;
                    if outcome.verdict == Verdict::Forward {
                        let first = Packet6::read(&outcome.packets[0], false, &mut Vec::new()).unwrap();
                        let is_echo = matches!(make.kind, Kind::Echo { .. });
                        seen.push(word(&first.payload, if is_echo { 4 } else { 0 }) as u16);
                        last_out = Some(outcome.packets[0].clone());
                    }
                }
                Step::In { mut make, port, remote, remote_port } => {
                    let port = match port {
                        InPort::Seen(n) if !seen.is_empty() => seen[n % seen.len()],
                        InPort::Seen(n) => n as u16,
                        InPort::OfSet(draw) => Home { psid, ..ours }.port(&oracle.rules, draw),
                        InPort::Any(port) => port,
                    };
                    (make.src_port, make.dst_port) = (remote_port, port);
                    if matches!(make.kind, Kind::Echo { .. }) {
                        make.src_port = port;
                    }
                    let input = make.v6(oracle.outside(0, remote), own);
                    let outcome = agree(&mut engine, &mut oracle, &input)?;
                    if outcome.verdict == Verdict::Forward {
                        last_in = Some(outcome.packets[0].clone());
                    }
                }
                Step::ErrorOut { report, extension, router } => {
                    let Some(about) = &last_in else { continue };
                    let packet = Packet4::read(about, false, &mut Vec::new()).unwrap();
                    let reporter = if router { [192, 168, 1, 254] } else { packet.dst };
                    let (report, about) = quote(false, &report, about.clone(), usize::MAX, &extension);
                    agree(&mut engine, &mut oracle, &report.v4(reporter, packet.src, &about))?;
                }
                Step::ErrorIn { report, extension, reporter } => {
                    let Some(about) = &last_out else { continue };
                    let packet = Packet6::read(about, false, &mut Vec::new()).unwrap();
                    let router: [u8; 16] = (0x2001_0db8_dead_0000_0000_0000_0000_0000u128 | u128::from(reporter)).to_be_bytes();
                    let reporter = if reporter % 2 == 0 { router } else { packet.dst };
                    let (report, about) = quote(true, &report, about.clone(), usize::MAX, &extension);
                    agree(&mut engine, &mut oracle, &report.v6(reporter, packet.src, &about))?;
                }
            }
        }
    }
}

/// What two translations may change, and nothing else: addresses and ports as given, checksums, options, and what
/// RFC 7915 §5.1 says of Identification and DF.
fn same_but_for_translation(
    before: &[u8],
    after: &[u8],
    src: [u8; 4],
    dst: [u8; 4],
    ports: Option<(u16, u16)>,
) -> Result<(), TestCaseError> {
    let a = Packet4::read(before, false, &mut Vec::new()).unwrap();
    let b = Packet4::read(after, false, &mut Vec::new()).unwrap();
    prop_assert!(b.options.is_empty());
    prop_assert_eq!((a.tos, a.ttl, a.protocol, a.fragment()), (b.tos, b.ttl, b.protocol, b.fragment()));
    prop_assert_eq!((b.src, b.dst), (src, dst));
    match a.fragment() {
        // FRAG-7: DF is lost on a fragment.
        Some(_) => prop_assert_eq!((b.id, b.df), (a.id, false)),
        None => prop_assert_eq!((b.id != 0, b.df), (true, b.total() > 1260)),
    }
    let (mut old, mut new) = (a.payload.clone(), b.payload.clone());
    prop_assert_eq!(old.len(), new.len());
    let upper = Upper::read(false, a.protocol, &old, a.announced, a.fragment(), false).unwrap();
    if let Some(at) = upper.checksum_at() {
        old[at..at + 2].fill(0);
        new[at..at + 2].fill(0);
        let port_at = if matches!(upper, Upper::Echo { .. }) { 4 } else { 0 };
        if matches!(upper, Upper::Dccp | Upper::UdpLite) {
            // Nobody else looks at their checksums.
            let mut right = b.payload.clone();
            complete(&mut right, b.protocol, &b.src, &b.dst);
            prop_assert!(b.fragment().is_some() || right == b.payload);
        } else {
            let (src_port, dst_port) = ports.unwrap();
            old[port_at..port_at + 2].copy_from_slice(&src_port.to_be_bytes());
            if port_at == 0 {
                old[2..4].copy_from_slice(&dst_port.to_be_bytes());
            }
        }
    }
    prop_assert_eq!(old, new);
    if a.fragment().is_none() {
        prop_assert_eq!(judge(after), Ok(()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(1))]

    /// CE in, BR out, and the answer back: the same IPv4 packets.
    #[test]
    fn pair(
        world in select(worlds()), which: usize, home_draw: u64, port_draw: u16, napt: bool,
        make in make(), remote in select(vec![[8, 8, 8, 8], [9, 1, 2, 3]]), remote_port: u16, host in 2..250u8,
        mtu in select(vec![1500usize, 9000, 65535]),
    ) {
        let zero_ports = Vec::new();
        let settings = Settings { mtu6: mtu, mtu4: mtu, lowest: mtu, zero_ports, ..Settings::default() };
        let (mut br, oracle) = br_of(&world, &settings);
        let ours = home(&oracle.rules, which, home_draw);
        let rule = &oracle.rules[ours.rule];
        let end_user = ours.end_user(&oracle.rules);
        // A rule nested in this one may own the prefix: then the CE is another.
        prop_assume!(is_ce_of(&world, &end_user) && rule_of(&end_user, &oracle) == Some(ours.rule));
        let mut ce = ce_of(&world, &settings, &end_user, napt).0;

        let mut make = Make { place: if make.place == Place::Atomic { Place::Whole } else { make.place }, ..make };
        let can_pass = match make.kind {
            Kind::Tcp { .. } | Kind::Udp { .. } | Kind::Echo { .. } => {
                make.place == Place::Whole || !napt && !rule.is_shared() && !matches!(make.kind, Kind::Echo { .. })
            }
            // GRE, ESP, SCTP, DCCP, UDP-Lite.
            Kind::Other(number) => !napt && !rule.is_shared() && [47, 50, 132, 33, 136].contains(&number),
            Kind::Icmp { .. } => false,
        };
        if !can_pass {
            (make.kind, make.place) = (Kind::Udp { zero: make.df, slack: 0 }, Place::Whole);
        }
        // SUM-4, FRAG-3: no zero checksum in a fragment, no TCP header across two of them.
        if make.place != Place::Whole {
            make.kind = if let Kind::Udp { .. } = make.kind { Kind::Udp { zero: false, slack: 0 } } else { make.kind };
            make.len = make.len.max(64);
            if let Place::First(n) = make.place { make.place = Place::First(n.max(3)) }
            if let Place::Later(n, more) = make.place { make.place = Place::Later(n.max(3), more) }
        }
        make.len = make.len.min(mtu.min(65_400) - 20 - 60 - 40 - 28);
        make.options = if make.options.first().is_some_and(|o| [7, 131, 137].contains(o)) || make.options.len() == 4 { vec![148, 4, 0, 0] } else { Vec::new() };
        let own_port = ours.port(&oracle.rules, port_draw);
        let (inside, port) = if napt { ([192, 168, 1, host], port_draw.wrapping_add(77)) } else { (ours.ipv4, own_port) };
        (make.src_port, make.dst_port) = (port, remote_port);
        let ports = |b: &[u8]| {
            let p = Packet4::read(b, false, &mut Vec::new()).unwrap();
            let upper = Upper::read(false, p.protocol, &p.payload, p.announced, p.fragment(), false).unwrap();
            (p.src, upper.ports(&p.payload))
        };

        let input = make.v4(inside, remote);
        let through = handle(&mut ce, &input).forwarded();
        let output = handle(&mut br, &through).forwarded();
        let (outside, seen) = ports(&output);
        prop_assert_eq!(outside, if napt { oracle_address(&end_user, &oracle) } else { inside });
        if !napt {
            prop_assert_eq!(seen, ports(&input).1);
        }
        same_but_for_translation(&input, &output, outside, remote, seen)?;

        // And back, with the ports the other way round.
        let back_make = Make { src_port: remote_port, dst_port: seen.map_or(0, |s| s.0), tos: !make.tos, options: Vec::new(), ..make.clone() };
        let back_make = match back_make.kind {
            Kind::Echo { .. } => Make { kind: Kind::Echo { request: false }, src_port: seen.unwrap().0, ..back_make },
            _ => back_make,
        };
        let back = back_make.v4(remote, outside);
        let through = handle(&mut br, &back).forwarded();
        let output = handle(&mut ce, &through).forwarded();
        let inside_ports = match (back_make.kind, ports(&back).1) {
            (Kind::Echo { .. }, Some(_)) => Some((port, port)),
            (_, found) => found.map(|(src_port, _)| (src_port, port)),
        };
        same_but_for_translation(&back, &output, remote, inside, inside_ports)?;
        prop_assert!(!is_illegal4(outside));
    }
}

/// The rule that owns an End-user prefix, by longest match.
fn rule_of(end_user: &str, oracle: &Oracle) -> Option<usize> {
    let prefix: mapt::map::Ipv6Prefix = end_user.parse().unwrap();
    oracle.rule_of6(prefix.addr().octets())
}

/// The address behind which a CE hides.
fn oracle_address(end_user: &str, oracle: &Oracle) -> [u8; 4] {
    let prefix: mapt::map::Ipv6Prefix = end_user.parse().unwrap();
    let octets = prefix.addr().octets();
    oracle.rules[oracle.rule_of6(octets).unwrap()].read(octets).0
}

/// The properties above are worth what their draws reach: every reason to drop, and every kind of packet forwarded.
#[test]
fn the_draws_reach_everything() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reasons: std::collections::BTreeMap<&str, usize> = Default::default();
    let strategy = (draw(), prop::option::weighted(0.4, damage()), settings());
    for n in 0..4000 {
        let (draw, damage, settings) = strategy.new_tree(&mut runner).unwrap().current();
        let (mut br, oracle) = br_of(&draw.world, &settings);
        let end_user = draw.home(&oracle).end_user(&oracle.rules);
        let is_br = n % 2 == 0 || !is_ce_of(&draw.world, &end_user);
        let mut input = draw.input(&oracle, is_br);
        if let Some(damage) = &damage {
            input = damaged(input, damage);
        }
        let outcome = match is_br {
            true => handle(&mut br, &input),
            false => handle(&mut ce_of(&draw.world, &settings, &end_user, false).0, &input),
        };
        let name = match (outcome.verdict, draw.report.is_some(), draw.v6) {
            (Verdict::Drop { reason, .. }, ..) => reason.name(),
            (_, true, false) => "ICMPv4 error forwarded",
            (_, true, true) => "ICMPv6 error forwarded",
            _ if outcome.packets.len() > 1 && draw.v6 => "IPv6 cut",
            _ if outcome.packets.len() > 1 => "IPv4 cut",
            (_, _, false) => "IPv4 forwarded",
            _ => "IPv6 forwarded",
        };
        *reasons.entry(name).or_default() += 1;
    }
    println!("{reasons:#?}");
    for way in ["IPv4 forwarded", "IPv6 forwarded", "ICMPv4 error forwarded", "ICMPv6 error forwarded"] {
        assert!(reasons.get(way).is_some_and(|n| *n >= 50), "{way}: {:?}", reasons.get(way));
    }
    assert!(reasons.contains_key("IPv4 cut") && reasons.contains_key("IPv6 cut"));
    // Only a device can ask for offloads; the NAPT, the fragment table and a CE without prefix have properties and
    // scenarios of their own.
    let elsewhere = [
        "offload-mismatch",
        "unprovisioned",
        "napt-no-mapping",
        "napt-filtered",
        "napt-exhausted",
        "napt-unsupported",
        "fragment-overlap",
        "fragment-table-full",
        "fragment-timeout",
    ];
    for reason in DropReason::ALL.iter().map(|r| r.name()).filter(|r| !elsewhere.contains(r)) {
        assert!(reasons.contains_key(reason), "no packet was dropped as {reason}");
    }
}
