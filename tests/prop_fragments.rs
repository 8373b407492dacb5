//! Fragments in random orders, interleaved and doubled, through both roles; and the table against a plain map.

mod common;
mod oracle;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use common::*;
use mapt::engine::Engine;
use mapt::frag::{FragParams, FragTable, Key, Known, Later, Losses, Piece};
use mapt::verdict::{Direction, DropReason, Verdict};
use mapt::wire::PacketBuf;
use oracle::packet::{Packet4, Packet6, Piece as Place};
use proptest::prelude::*;
use proptest::sample::Index;

const CE: &str = "2001:db8:12:3400:0:c000:212:34";
const CE4: &str = "192.0.2.18";
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER4: &str = "10.2.3.4";
const HOSTS: [&str; 3] = ["192.168.1.10", "192.168.1.11", "192.168.1.12"];
/// Ports of PSID 0x34 (RFC 7597 Appendix A).
const PORTS: [u16; 4] = [1232, 2257, 3282, 64_723];

#[derive(Clone, Debug)]
struct Datagram {
    v6: bool,
    tcp: bool,
    port: Index,
    host: Index,
    len: usize,
    cuts: Vec<Index>,
    doubled: Vec<Index>,
    seed: u8,
}

fn datagrams() -> impl Strategy<Value = Vec<Datagram>> {
    let index = || any::<Index>();
    let one = (any::<bool>(), any::<bool>(), index(), index(), 40..3000usize, any::<u8>());
    let lists = (prop::collection::vec(index(), 1..6), prop::collection::vec(index(), 0..3));
    let one = (one, lists).prop_map(|((v6, tcp, port, host, len, seed), (cuts, doubled))| Datagram {
        v6,
        tcp,
        port,
        host,
        len,
        cuts,
        doubled,
        seed,
    });
    prop::collection::vec(one, 1..7)
}

impl Datagram {
    fn data(&self) -> Vec<u8> {
        (0..self.len).map(|i| (i * 13 + i / 255) as u8 ^ self.seed).collect()
    }

    /// The fragments; `n` makes the Identification, which no other datagram has.
    fn fragments(&self, src: &str, sport: u16, dst: &str, dport: u16, n: usize, most: usize) -> Vec<Vec<u8>> {
        let data = self.data();
        let whole = match (self.v6, self.tcp) {
            (false, false) => udp4(src, sport, dst, dport, &data),
            (false, true) => tcp4(src, sport, dst, dport, "A", &data),
            (true, false) => udp6(src, sport, dst, dport, &data),
            (true, true) => tcp6(src, sport, dst, dport, "A", &data),
        };
        let payload = whole[if self.v6 { 40 } else { 20 }..].to_vec();
        // The first fragment has the TCP header; none has more than `most` octets of payload.
        let eights = payload.len() / 8;
        let mut at: Vec<usize> = self.cuts.iter().map(|i| 8 * (3 + i.index(eights.max(4) - 3))).collect();
        at.extend((1..).map(|k| k * most).take_while(|at| *at < payload.len()));
        at.push(0);
        at.sort_unstable();
        at.dedup();
        at.retain(|a| *a < payload.len());
        let ends = at.iter().skip(1).copied().chain([payload.len()]);
        let mut faults = Vec::new();
        let parts: Vec<Vec<u8>> = at
            .iter()
            .copied()
            .zip(ends)
            .map(|(from, to)| {
                let (part, more) = (payload[from..to].to_vec(), to < payload.len());
                match self.v6 {
                    false => {
                        let base = Packet4::read(&whole, false, &mut faults).unwrap();
                        let id = n as u16;
                        Packet4 { id, df: false, mf: more, offset: from, announced: to - from, payload: part, ..base }
                            .write()
                    }
                    true => {
                        let base = Packet6::read(&whole, false, &mut faults).unwrap();
                        let fragment = Some(Place { id: 0x9000_0000 + n as u32, offset: from, more });
                        Packet6 { fragment, announced: to - from, payload: part, ..base }.write()
                    }
                }
            })
            .collect();
        assert_eq!(faults, []);
        parts
    }

    fn ports(&self, engine: Role) -> (u16, u16) {
        let ours = PORTS[self.port.index(PORTS.len())];
        match (engine, self.v6) {
            (Role::Br, true) => (ours, 53),
            (Role::Br, false) => (53, ours),
            (Role::Ce, _) => (40_000 + self.host.index(3) as u16, 443),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Br,
    Ce,
}

/// What came out of one datagram, by offset.
type Out = BTreeMap<usize, (bool, Vec<u8>)>;

fn collect(out: &mut BTreeMap<(bool, u16), Out>, packet: &[u8]) -> Result<(), TestCaseError> {
    let mut faults = Vec::new();
    let (key, offset, more, payload) = match packet[0] >> 4 {
        4 => {
            let p = Packet4::read(packet, false, &mut faults).unwrap();
            ((false, p.id), p.offset, p.mf, p.payload)
        }
        _ => {
            let p = Packet6::read(packet, false, &mut faults).unwrap();
            let f = p.fragment.expect("a fragment");
            ((true, f.id as u16), f.offset, f.more, p.payload)
        }
    };
    prop_assert_eq!(faults, vec![]);
    let before = out.entry(key).or_default().insert(offset, (more, payload.clone()));
    prop_assert!(before.is_none_or(|b| b == (more, payload)), "a duplicate differs");
    Ok(())
}

fn through(role: Role, datagrams: &[Datagram], order: &[Index]) -> Result<(), TestCaseError> {
    let mut engine: Box<dyn Engine> = match role {
        Role::Br => Box::new(br()),
        Role::Ce => Box::new(ce()),
    };
    // Behind a CE somebody has asked before: the mappings are there, for answers to be let in.
    let mut outside = HashMap::new();
    if role == Role::Ce {
        for (h, host) in HOSTS.iter().enumerate() {
            for tcp in [false, true] {
                let port = 40_000 + h as u16;
                let asked = match tcp {
                    false => udp4(host, port, SERVER4, 443, b"?"),
                    true => tcp4(host, port, SERVER4, 443, "S", b""),
                };
                outside.insert((h, tcp), tuple(&handle(engine.as_mut(), &asked).forwarded()).1);
            }
        }
    }
    let mut queue: Vec<Vec<u8>> = Vec::new();
    let mut expected = Vec::new();
    for (n, d) in datagrams.iter().enumerate() {
        let (sport, dport) = d.ports(role);
        let h = d.host.index(3);
        let (src, dst, sport, dport) = match (role, d.v6) {
            (Role::Br, true) => (CE, SERVER, sport, dport),
            (Role::Br, false) => (SERVER4, CE4, sport, dport),
            (Role::Ce, false) => (HOSTS[h], SERVER4, sport, dport),
            (Role::Ce, true) => (SERVER, CE, dport, outside[&(h, d.tcp)]),
        };
        let to = match (role, d.v6) {
            (Role::Br, true) => (CE4, sport, SERVER4, dport),
            (Role::Br, false) => (SERVER, sport, CE, dport),
            (Role::Ce, false) => (CE, outside[&(h, d.tcp)], SERVER, dport),
            (Role::Ce, true) => (SERVER4, sport, HOSTS[h], 40_000 + h as u16),
        };
        let fragments = d.fragments(src, sport, dst, dport, n, 1200);
        expected.push((fragments.len(), to));
        // Only later ones are doubled: with a second first one the table does not wait for more.
        let later = &fragments[1..];
        let twice: Vec<_> =
            d.doubled.iter().filter(|_| !later.is_empty()).map(|i| later[i.index(later.len())].clone()).collect();
        queue.extend(fragments);
        queue.extend(twice);
    }
    for (k, index) in order.iter().enumerate() {
        let (a, b) = (k % queue.len(), index.index(queue.len()));
        queue.swap(a, b);
    }
    let mut out: BTreeMap<(bool, u16), Out> = BTreeMap::new();
    for (k, packet) in queue.iter().enumerate() {
        // All within the lifetime.
        let outcome = handle_at(engine.as_mut(), packet, NOW + Duration::from_millis(20 * k as u64));
        prop_assert!(matches!(outcome.verdict, Verdict::Forward | Verdict::Held), "{:?}", outcome.verdict);
        for packet in &outcome.packets {
            collect(&mut out, packet)?;
        }
    }
    let counters = engine.counters().snapshot();
    prop_assert_eq!(counters.directions.iter().map(|d| d.held).sum::<u64>(), 0);
    for (n, (d, (count, to))) in datagrams.iter().zip(expected).enumerate() {
        let pieces = &out[&(!d.v6, n as u16)];
        prop_assert!(pieces.len() >= count, "{} of {} fragments", pieces.len(), count);
        let mut payload = Vec::new();
        for (offset, (more, octets)) in pieces {
            prop_assert_eq!(*offset, payload.len());
            payload.extend(octets);
            prop_assert_eq!(*more, *offset != *pieces.last_key_value().unwrap().0);
        }
        // The checksum of the whole is right with the new addresses, and the data are the same.
        let (src, sport, dst, dport) = to;
        let (protocol, header) = if d.tcp { (6, 20) } else { (17, 8) };
        let whole = match d.v6 {
            true => {
                let (src, dst) = (v4(src).octets(), v4(dst).octets());
                let base = Packet4 {
                    tos: 0,
                    id: 1,
                    df: false,
                    mf: false,
                    offset: 0,
                    ttl: 64,
                    protocol,
                    src,
                    dst,
                    options: vec![],
                    announced: payload.len(),
                    payload: payload.clone(),
                };
                base.write()
            }
            false => {
                let mut whole = vec![0x60, 0, 0, 0, (payload.len() >> 8) as u8, payload.len() as u8, protocol, 64];
                whole.extend(v6(src).octets());
                whole.extend(v6(dst).octets());
                whole.extend(&payload);
                whole
            }
        };
        assert_valid(&whole);
        prop_assert_eq!(tuple(&whole), (src.to_string(), sport, dst.to_string(), dport));
        prop_assert_eq!(&payload[header..], &d.data()[..]);
    }
    Ok(())
}

/// `pair`: from the home through CE and BR to the Internet, and from there back, shuffled on each link. What was cut
/// small enough arrives in the pieces in which it was sent.
fn through_both(datagrams: &[Datagram], order: &[Index], most: usize) -> Result<(), TestCaseError> {
    let (mut ce, mut br) = (ce(), br());
    let mut at = NOW;
    let mut pass = |engine: &mut dyn Engine, mut packets: Vec<Vec<u8>>| {
        for (k, index) in order.iter().enumerate().take(packets.len()) {
            let b = index.index(packets.len());
            packets.swap(k, b);
        }
        at += Duration::from_millis(1);
        packets.iter().flat_map(|packet| handle_at(engine, packet, at).packets).collect::<Vec<_>>()
    };
    let mut there = Vec::new();
    for (n, d) in datagrams.iter().enumerate() {
        let d = Datagram { v6: false, ..d.clone() };
        let h = d.host.index(3);
        there.extend(d.fragments(HOSTS[h], 40_000 + h as u16, SERVER4, 443, n, most));
    }
    let access = pass(&mut ce, there.clone());
    let mut ports = HashMap::new();
    let mut arrived: BTreeMap<(bool, u16), Out> = BTreeMap::new();
    for packet in pass(&mut br, access) {
        collect(&mut arrived, &packet)?;
        let p = Packet4::read(&packet, false, &mut vec![]).unwrap();
        if p.offset == 0 {
            ports.insert(p.id, oracle::packet::word(&p.payload, 0) as u16);
        }
    }
    let whole = |pieces: &Out| pieces.values().flat_map(|(_, octets)| octets.clone()).collect::<Vec<u8>>();
    let mut back = Vec::new();
    for (n, d) in datagrams.iter().enumerate() {
        let pieces = &arrived[&(false, n as u16)];
        let header = if d.tcp { 20 } else { 8 };
        prop_assert_eq!(&whole(pieces)[header..], &d.data()[..]);
        let sent: Vec<usize> = there
            .iter()
            .map(|p| Packet4::read(p, false, &mut vec![]).unwrap())
            .filter(|p| usize::from(p.id) == n)
            .map(|p| p.offset)
            .collect();
        if most <= 1232 {
            prop_assert_eq!(pieces.keys().copied().collect::<Vec<_>>(), sent);
        }
        let d = Datagram { v6: false, ..d.clone() };
        back.extend(d.fragments(SERVER4, 443, CE4, ports[&(n as u16)], n, most));
    }
    let access = pass(&mut br, back);
    let mut home: BTreeMap<(bool, u16), Out> = BTreeMap::new();
    for packet in pass(&mut ce, access) {
        collect(&mut home, &packet)?;
        let p = Packet4::read(&packet, false, &mut vec![]).unwrap();
        let h = datagrams[usize::from(p.id)].host.index(3);
        prop_assert_eq!((p.src, p.dst), (v4(SERVER4).octets(), v4(HOSTS[h]).octets()));
        prop_assert!(p.offset > 0 || oracle::packet::word(&p.payload, 2) == 40_000 + h);
    }
    for (n, d) in datagrams.iter().enumerate() {
        let header = if d.tcp { 20 } else { 8 };
        prop_assert_eq!(&whole(&home[&(false, n as u16)])[header..], &d.data()[..]);
    }
    for engine in [&ce as &dyn Engine, &br] {
        prop_assert_eq!(engine.counters().snapshot().directions.iter().map(|d| d.held).sum::<u64>(), 0);
    }
    Ok(())
}

proptest! {
    /// `pair` for fragments: FRAG-6, FRAG-7.
    #[test]
    fn pair_of_fragments(d in datagrams(), order in prop::collection::vec(any::<Index>(), 0..80), small in any::<bool>()) {
        through_both(&d, &order, if small { 1200 } else { 1480 })?;
    }

    /// FRAG-1, FRAG-2, FRAG-4, FRAG-8, P24, P26.
    #[test]
    fn every_datagram_gets_through_a_br(d in datagrams(), order in prop::collection::vec(any::<Index>(), 0..80)) {
        through(Role::Br, &d, &order)?;
    }

    /// NAT-9.
    #[test]
    fn every_datagram_gets_through_a_ce(d in datagrams(), order in prop::collection::vec(any::<Index>(), 0..80)) {
        through(Role::Ce, &d, &order)?;
    }

    #[test]
    fn the_table_is_a_map(acts in prop::collection::vec(act(), 1..120)) {
        against_a_map(&acts)?;
    }

    /// Whatever floods a small table: the bounds hold and every held fragment is accounted for.
    #[test]
    fn a_full_table_keeps_its_bounds(acts in prop::collection::vec(act(), 1..300), packets in 1..10u32, held in 0..9000u32) {
        let table = FragTable::new(&FragParams { packets, held_octets: held, ..FragParams::default() }, 5);
        let (mut now, mut given, mut back) = (Duration::ZERO, 0u64, 0u64);
        let mut out = PacketBuf::new();
        for act in acts {
            let mut lost = Losses::default();
            let piece = act.piece();
            match act.what {
                What::First(ports, refused) => if table.first(&piece, ports, None, now, &mut lost).is_ok() {
                    table.settle(&piece, if refused { Err(DropReason::NoRule) } else { Ok(ports) });
                    while table.release(&piece, &mut out).is_some() { back += 1 }
                },
                What::Later(_, octets, _) => {
                    if table.later(&piece, &vec![1; octets], now, &mut lost) == Later::Held { given += 1 }
                }
                What::Wait(us) => { now += Duration::from_micros(us); table.expire(now, &mut lost) }
            }
            back += lost.timeout.iter().chain(&lost.full).map(|(packets, _)| packets).sum::<u64>();
            let usage = table.usage();
            prop_assert!(usage.packets <= u64::from(packets) && usage.held_octets <= u64::from(held));
            prop_assert_eq!(usage.held, given - back);
            prop_assert!(usage.held == 0 || table.poll_timeout().is_some(), "held, and nobody will look");
        }
        let mut lost = Losses::default();
        table.expire(now + Duration::from_secs(3), &mut lost);
        prop_assert_eq!(table.usage().held, 0, "all is given up in the end");
    }
}

#[derive(Clone, Debug)]
enum What {
    /// Ports, refused.
    First((u16, u16), bool),
    /// Offset, octets of the packet, more.
    Later(u32, usize, bool),
    /// Milliseconds.
    Wait(u64),
}

#[derive(Clone, Debug)]
struct Act {
    key: u32,
    len: u32,
    what: What,
}

impl Act {
    fn piece(&self) -> Piece {
        let direction = Direction::ALL[(self.key & 1) as usize];
        let key = Key { direction, src: u128::from(self.key / 4), dst: 9, id: self.key, protocol: 17 };
        let (offset, more) = match self.what {
            What::Later(offset, _, more) => (offset, more),
            _ => (0, true),
        };
        Piece { key, group: 77, offset, len: self.len, more }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let ports = prop_oneof![9 => Just((53, 1232)), 1 => Just((53, 2257))];
    let what = prop_oneof![
        3 => (ports, prop::bool::weighted(0.1)).prop_map(|(p, r)| What::First(p, r)),
        6 => (1..5u32, 1..1600usize, any::<bool>()).prop_map(|(o, n, m)| What::Later(o * 400, n, m)),
        2 => (0..900_000u64).prop_map(What::Wait),
    ];
    let len = prop_oneof![9 => Just(400u32), 1 => Just(800)];
    (0..12u32, len, what).prop_map(|(key, len, what)| Act { key, len, what })
}

/// What the table does, said plainly and without bounds.
#[derive(Default)]
struct Plain {
    born: Duration,
    /// `None` before the first fragment.
    settled: Option<Result<(u16, u16), DropReason>>,
    first_len: u32,
    total: Option<u32>,
    seen: u32,
    held: VecDeque<(u32, u32, bool, Vec<u8>)>,
}

impl Plain {
    fn pass(&mut self, offset: u32, len: u32, more: bool) -> Result<(u16, u16), DropReason> {
        let ports = self.settled.expect("settled")?;
        if offset < self.first_len {
            self.settled = Some(Err(DropReason::FragmentOverlap));
            return Err(DropReason::FragmentOverlap);
        }
        self.seen += len;
        if !more {
            self.total = Some(offset + len);
        }
        Ok(ports)
    }
}

fn against_a_map(acts: &[Act]) -> Result<(), TestCaseError> {
    let table = FragTable::new(&FragParams { packets: 64, held_octets: 1 << 20, ..FragParams::default() }, 5);
    let mut plain: HashMap<Key, Plain> = HashMap::new();
    let mut now = Duration::ZERO;
    let (mut lost, mut too_old) = (Losses::default(), 0);
    let mut out = PacketBuf::new();
    for act in acts {
        let piece = act.piece();
        if let What::Wait(us) = act.what {
            now += Duration::from_micros(us);
            table.expire(now, &mut lost);
            continue;
        }
        if plain.get(&piece.key).is_some_and(|p| now - p.born > Duration::from_secs(2)) {
            too_old += plain.remove(&piece.key).unwrap().held.len();
        }
        let mine = plain.entry(piece.key).or_insert(Plain { born: now, ..Plain::default() });
        match act.what {
            What::First(ports, refused) => {
                let overlap = Err(DropReason::FragmentOverlap);
                let whole = mine.total.is_some_and(|total| mine.seen >= total);
                let expected = match mine.settled {
                    Some(Ok(_)) if whole => {
                        *mine = Plain { born: now, ..Plain::default() };
                        Ok(None)
                    }
                    Some(Ok(known)) if known == ports && mine.first_len == piece.len => {
                        // A duplicate: nothing new is learnt from it.
                        prop_assert_eq!(table.first(&piece, ports, None, now, &mut lost), Ok(None));
                        table.settle(&piece, Ok(ports));
                        mine.seen += piece.len;
                        continue;
                    }
                    Some(Ok(_)) | Some(Err(DropReason::FragmentOverlap)) => overlap,
                    Some(Err(_)) | None => Ok(None),
                };
                prop_assert_eq!(table.first(&piece, ports, None, now, &mut lost), expected);
                if expected.is_err() {
                    mine.settled = Some(Err(DropReason::FragmentOverlap));
                    continue;
                }
                let outcome = if refused { Err(DropReason::NoRule) } else { Ok(ports) };
                table.settle(&piece, outcome);
                mine.settled = Some(outcome);
                mine.first_len = piece.len;
                mine.seen += piece.len;
                while let Some((offset, len, more, octets)) = mine.held.pop_front() {
                    let released = table.release(&piece, &mut out);
                    let known = mine.pass(offset, len, more).map(|ports| Known { ports, id: None });
                    prop_assert_eq!(released, Some(known));
                    prop_assert_eq!(out.bytes(), &octets[..]);
                }
                prop_assert_eq!(table.release(&piece, &mut out), None);
            }
            What::Later(offset, octets, more) => {
                let packet: Vec<u8> = (0..octets).map(|i| (i as u32 ^ offset ^ piece.key.id) as u8).collect();
                let later = table.later(&piece, &packet, now, &mut lost);
                if mine.settled.is_none() {
                    prop_assert_eq!(later, Later::Held);
                    mine.held.push_back((offset, piece.len, more, packet));
                } else {
                    let known = mine.pass(offset, piece.len, more).map(|ports| Known { ports, id: None });
                    prop_assert_eq!(later, known.map_or_else(Later::Drop, Later::Go));
                }
            }
            What::Wait(_) => {}
        }
    }
    // What is still in the plain map and too old may or may not have been swept.
    let late: usize = plain.values().filter(|p| now - p.born > Duration::from_secs(2)).map(|p| p.held.len()).sum();
    let swept: u64 = lost.timeout.iter().map(|(packets, _)| packets).sum();
    prop_assert!((too_old as u64..=(too_old + late) as u64).contains(&swept), "{} of {}", swept, too_old);
    prop_assert_eq!(lost.full, [(0, 0); 2]);
    Ok(())
}
