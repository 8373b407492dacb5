//! The log of mappings: whoever follows it knows at every moment whose each port is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    Event, EventKind, Forward, Inside, Napt, NaptParams, Protocol, Remote, Segment, Sharing, TcpFlags, Timers, Why,
};
use proptest::prelude::*;

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
const START: Duration = Duration::from_secs(50);
const TIMERS: Timers = Timers {
    udp: Duration::from_secs(30),
    tcp_established: Duration::from_secs(100),
    tcp_opening: Duration::from_secs(20),
    tcp_closing: Duration::from_secs(15),
    icmp: Duration::from_secs(10),
};

/// The seven ports 0x2034, 0x4034, ..., or seven others.
fn ports(psid: u16) -> PortSet {
    PortParams::new(3, 13).unwrap().port_set(Psid(psid)).unwrap()
}

fn host(n: u8) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, 10 + n % 4), port: 40_000 + u16::from(n / 4) }
}

fn server(n: u8) -> Remote {
    Remote { addr: Ipv4Addr::new(10, 0, 0, 1 + n), port: 443 }
}

type Key = (Protocol, u16, Option<(Ipv4Addr, u16)>);

/// What a reader knows.
#[derive(Default)]
struct Reader(BTreeMap<Key, (Inside, Ipv4Addr)>);

impl Reader {
    fn read(&mut self, napt: &mut Napt<Inside>, now: Duration) -> Result<Vec<Event<Inside>>, TestCaseError> {
        let events: Vec<_> = std::iter::from_fn(|| napt.next_event()).collect();
        for event in &events {
            let remote = event.remote.map(|remote| (remote.addr, remote.port));
            let key = (event.protocol, event.outside.port, remote);
            let whose = (event.inside, event.outside.addr);
            prop_assert!(event.at <= now && now < event.at + Duration::from_millis(250), "{:?} at {:?}", event, now);
            match event.kind {
                EventKind::Made => prop_assert_eq!(self.0.insert(key, whose), None, "made twice: {:?}", event),
                EventKind::Ended(_) => prop_assert_eq!(self.0.remove(&key), Some(whose), "{:?}", event),
            }
        }
        Ok(events)
    }
}

/// What there is, by the lists.
fn mappings(napt: &Napt<Inside>, now: Duration) -> BTreeMap<Key, (Inside, Ipv4Addr)> {
    let mut all = BTreeMap::new();
    for protocol in Protocol::ALL {
        let mut from = Some(0);
        while let Some(at) = from {
            from = napt.page(protocol, at, 1000, now, &mut |view| {
                let remote = view.remote.filter(|_| view.shared).map(|remote| (remote.addr, remote.port));
                all.insert((protocol, view.outside.port, remote), (view.inside, view.outside.addr));
            });
        }
    }
    for forward in napt.forwards() {
        all.insert((forward.protocol, forward.port, None), (forward.inside, napt.address()));
    }
    all
}

#[derive(Clone, Debug)]
enum Step {
    Out { protocol: Protocol, host: u8, to: u8, flags: (bool, bool, bool) },
    Wait { millis: u64 },
    Forwards(Vec<(u16, u8)>),
    Replace { psid: u16, other: bool, room: u32, forwards: Vec<(u16, u8)> },
}

fn step() -> impl Strategy<Value = Step> {
    let protocol = prop_oneof![3 => Just(Protocol::Tcp), 3 => Just(Protocol::Udp), 1 => Just(Protocol::Icmp)];
    let forwards = || prop::collection::vec((1..8u16, 0..16u8), 0..3);
    prop_oneof![
        20 => (protocol, 0..16u8, 0..4u8, any::<(bool, bool, bool)>())
            .prop_map(|(protocol, host, to, flags)| Step::Out { protocol, host, to, flags }),
        4 => (0..15_000u64).prop_map(|millis| Step::Wait { millis }),
        1 => forwards().prop_map(Step::Forwards),
        1 => (0x34..0x36u16, prop::bool::weighted(0.3), 0..2u32, forwards())
            .prop_map(|(psid, other, room, forwards)| Step::Replace { psid, other, room, forwards }),
    ]
}

fn forward(psid: u16, &(n, to): &(u16, u8)) -> Forward {
    Forward { protocol: Protocol::Tcp, port: n << 13 | psid, inside: host(to) }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_reader_knows_whose_each_port_is(steps in prop::collection::vec(step(), 1..200), seed: u64) {
        let params = |room: u32, forwards| {
            NaptParams { timers: TIMERS, max_flows: 20 + room, forwards, ..NaptParams::default() }
        };
        let (mut psid, mut now) = (0x34, START);
        let mut napt = Napt::new(ADDR, ports(psid), &params(0, vec![]), seed);
        napt.record(true);
        let mut reader = Reader::default();
        for step in steps {
            match step {
                Step::Out { protocol, host: n, to, flags: (syn, ack, fin) } => {
                    if let Ok(proposal) = napt.propose_outbound(protocol, host(n), server(to), now) {
                        let segment = Segment { flags: TcpFlags { syn, ack, fin, rst: false }, ..Segment::default() };
                        napt.commit_outbound(proposal, Some(&segment), now);
                    }
                }
                Step::Wait { millis } => now += Duration::from_millis(millis),
                Step::Forwards(forwards) => {
                    let forwards: Vec<_> = forwards.iter().map(|f| forward(psid, f)).collect();
                    napt.set_forwards(&forwards, now);
                }
                Step::Replace { psid: other_psid, other, room, forwards } => {
                    psid = other_psid;
                    let forwards = forwards.iter().map(|f| forward(psid, f)).collect();
                    let addr = if other { OTHER } else { ADDR };
                    let mut next = Napt::new(addr, ports(psid), &params(room, forwards), seed ^ 1);
                    napt.replace(&mut next, now);
                }
            }
            while napt.poll_timeout().is_some_and(|at| at <= now) {
                napt.handle_timeout(now);
            }
            reader.read(&mut napt, now)?;
            prop_assert_eq!(&reader.0, &mappings(&napt, now));
        }
        prop_assert_eq!(napt.lost_events(), 0);
    }
}

fn udp(napt: &mut Napt<Inside>, n: u32, now: Duration) {
    let inside = Inside { addr: Ipv4Addr::from(0xc0a8_0000 + n), port: 5000 };
    let remote = Remote { addr: Ipv4Addr::from(0x0a00_0000 + n), port: 53 };
    let proposal = napt.propose_outbound(Protocol::Udp, inside, remote, now).unwrap();
    napt.commit_outbound(proposal, None, now);
}

/// An endpoint-independent port has one event however many flows are on it, a shared one an event for each.
#[test]
fn one_event_a_port_or_one_a_flow() {
    let mut napt = Napt::new(ADDR, ports(0x34), &NaptParams { timers: TIMERS, ..NaptParams::default() }, 5);
    napt.record(true);
    for n in 0..4 {
        let proposal = napt.propose_outbound(Protocol::Udp, host(1), server(n), START).unwrap();
        napt.commit_outbound(proposal, None, START);
    }
    let made: Vec<_> = std::iter::from_fn(|| napt.next_event()).collect();
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].kind, made[0].inside, made[0].remote, made[0].at), (EventKind::Made, host(1), None, START));
    let end = START + TIMERS.udp;
    napt.handle_timeout(end);
    let ended: Vec<_> = std::iter::from_fn(|| napt.next_event()).collect();
    assert_eq!(ended, [Event { kind: EventKind::Ended(Why::Expired), at: end, ..made[0] }]);
    assert_eq!(Why::Expired.name(), "expired");
}

/// Nobody reads: what is over the bound is counted, and recording goes on when there is room again.
#[test]
fn more_events_than_anybody_reads() {
    let sharing = Sharing { threshold: 100, ..Sharing::default() };
    let mut napt = Napt::new(ADDR, ports(0x34), &NaptParams { sharing, ..NaptParams::default() }, 5);
    udp(&mut napt, 1, START);
    assert_eq!(napt.next_event(), None, "off");
    napt.record(true);
    (2..20_002).for_each(|n| udp(&mut napt, n, START));
    assert_eq!(napt.lost_events(), 20_000 - 16_384);
    assert_eq!(std::iter::from_fn(|| napt.next_event()).count(), 16_384);
    udp(&mut napt, 30_000, START);
    assert!(napt.next_event().is_some_and(|event| event.remote.is_some()));
    napt.record(false);
    udp(&mut napt, 30_001, START);
    assert_eq!(napt.next_event(), None);
}
