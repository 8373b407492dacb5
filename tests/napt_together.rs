//! Forwards, what hosts ask for, other ports and parameters, a restart and the log of mappings, all together at random:
//! what must live is kept in plain lists beside it, and what must hold always is looked at after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    EventKind, FlowView, Forward, Inside, Mapping, Napt, NaptParams, Origin, Outside, Protocol, Remote, Segment,
    Sharing, TcpFlags, Timers, Want,
};
use proptest::prelude::*;

const ADDRS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 18), Ipv4Addr::new(192, 0, 2, 33)];
/// A week and more: what was saved may have begun long before.
const START: Duration = Duration::from_secs(1_000_000);
const TIMERS: Timers = Timers {
    udp: Duration::from_secs(30),
    tcp_established: Duration::from_secs(100),
    tcp_opening: Duration::from_secs(20),
    tcp_closing: Duration::from_secs(15),
    icmp: Duration::from_secs(10),
};

/// Seven ports: 0x2034, 0x4034, ... 0xe034; the seven beside them; or the fourteen of both.
fn ports(n: usize) -> (PortSet, Vec<u16>) {
    let (k, psid) = [(13, 0x34), (13, 0x35), (12, 0x1a)][n];
    let set = PortParams::new(3, k).unwrap().port_set(Psid(psid)).unwrap();
    let all = [vec![0x34], vec![0x35], vec![0x34, 0x35]][n].clone();
    (set, (1..8u16).flat_map(|a| all.iter().map(move |low| a << 13 | low)).collect())
}

/// Eight endpoints of four hosts.
fn host(n: u8) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, 10 + n % 4), port: 40_000 + u16::from(n / 4) }
}

/// Three servers, and a port of the home's own.
fn server(n: u8) -> Remote {
    if n == 3 {
        return Remote { addr: ADDRS[0], port: 0x4034 };
    }
    Remote { addr: Ipv4Addr::new(10, 0, 0, 1 + n), port: 443 }
}

/// A time begins with the next quarter of a second.
const QUARTER: Duration = Duration::from_millis(250);

fn begins(now: Duration) -> Duration {
    QUARTER * now.as_nanos().div_ceil(QUARTER.as_nanos()) as u32
}

fn nonce(n: u8) -> Origin {
    Origin::Pcp([n; 12])
}

#[derive(Clone, Debug)]
struct Setup {
    addr: usize,
    set: usize,
    room: u32,
    threshold: u8,
    /// Protocol, place of the port in the set, host.
    forwards: Vec<(Protocol, usize, u8)>,
}

#[derive(Clone, Debug)]
enum Step {
    Out { protocol: Protocol, host: u8, to: u8, flags: [bool; 4] },
    In { protocol: Protocol, port: usize, from: u8, flags: [bool; 4] },
    Wait { millis: u64 },
    Map { protocol: Protocol, host: u8, nonce: u8, seconds: u64, suggested: usize },
    Peer { protocol: Protocol, host: u8, to: u8, seconds: u64 },
    Unmap { protocol: Protocol, host: u8, nonce: u8 },
    Forwards(Vec<(Protocol, usize, u8)>),
    Replace(Setup),
    Restart { millis: u64, forwards: Vec<(Protocol, usize, u8)> },
    Record(bool),
}

fn ported() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn forwards() -> impl Strategy<Value = Vec<(Protocol, usize, u8)>> {
    prop::collection::vec((ported(), 0..14usize, 0..8u8), 0..4)
}

fn setup() -> impl Strategy<Value = Setup> {
    let room = prop_oneof![Just(30u32), Just(60)];
    let threshold = prop_oneof![3 => Just(50u8), 1 => Just(0), 1 => Just(100)];
    (prop::bool::weighted(0.2), 0..3usize, room, threshold, forwards())
        .prop_map(|(addr, set, room, threshold, forwards)| Setup { addr: addr.into(), set, room, threshold, forwards })
}

fn step() -> impl Strategy<Value = Step> {
    let any_protocol = || prop_oneof![3 => Just(Protocol::Tcp), 3 => Just(Protocol::Udp), 1 => Just(Protocol::Icmp)];
    prop_oneof![
        20 => (any_protocol(), 0..8u8, 0..4u8, any::<[bool; 4]>())
            .prop_map(|(protocol, host, to, flags)| Step::Out { protocol, host, to, flags }),
        8 => (any_protocol(), 0..14usize, 0..4u8, any::<[bool; 4]>())
            .prop_map(|(protocol, port, from, flags)| Step::In { protocol, port, from, flags }),
        6 => (0..20_000u64).prop_map(|millis| Step::Wait { millis }),
        4 => (ported(), 0..8u8, 0..2u8, 1..60u64, 0..15usize).prop_map(|(protocol, host, nonce, seconds, suggested)| {
            Step::Map { protocol, host, nonce, seconds, suggested }
        }),
        4 => (ported(), 0..8u8, 0..4u8, 1..200u64)
            .prop_map(|(protocol, host, to, seconds)| Step::Peer { protocol, host, to, seconds }),
        2 => (ported(), 0..8u8, 0..2u8).prop_map(|(protocol, host, nonce)| Step::Unmap { protocol, host, nonce }),
        2 => forwards().prop_map(Step::Forwards),
        3 => setup().prop_map(Step::Replace),
        1 => (0..15_000u64, forwards()).prop_map(|(millis, forwards)| Step::Restart { millis, forwards }),
        1 => any::<bool>().prop_map(Step::Record),
    ]
}

type Ends = (Protocol, (Ipv4Addr, u16), Option<(Ipv4Addr, u16)>);
type Key = (Protocol, u16, Option<(Ipv4Addr, u16)>);
type Picture = BTreeMap<Key, (Inside, Ipv4Addr)>;

fn ends(protocol: Protocol, inside: Inside, remote: Option<Remote>) -> Ends {
    (protocol, (inside.addr, inside.port), remote.map(|remote| (remote.addr, remote.port)))
}

/// What a host has been promised.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Promise {
    inside: Inside,
    port: u16,
    nonce: u8,
    until: Duration,
}

struct Run {
    napt: Napt<Inside>,
    now: Duration,
    setup: Setup,
    seed: u64,
    maps: BTreeMap<(Protocol, u16), Promise>,
    peers: BTreeMap<Ends, Promise>,
    losses: u64,
    reader: Option<Picture>,
}

fn params(setup: &Setup) -> NaptParams {
    NaptParams {
        timers: TIMERS,
        max_flows: setup.room,
        sharing: Sharing { threshold: setup.threshold, ..Sharing::default() },
        forwards: wanted(setup),
        ..NaptParams::default()
    }
}

/// The forwards of the configuration, the impossible ones among them.
fn wanted(setup: &Setup) -> Vec<Forward> {
    let all = ports(setup.set).1;
    let of = |&(protocol, n, to): &(Protocol, usize, u8)| {
        // One beyond the set is another customer's.
        Forward { protocol, port: all.get(n).copied().unwrap_or(0x2036), inside: host(to) }
    };
    setup.forwards.iter().map(of).collect()
}

/// Those that can be.
fn possible(setup: &Setup) -> Vec<Forward> {
    let all = ports(setup.set).1;
    let mut taken = Vec::<Forward>::new();
    for forward in wanted(setup) {
        let meets = |other: &Forward| {
            other.protocol == forward.protocol && (other.port == forward.port || other.inside == forward.inside)
        };
        if all.contains(&forward.port) && !taken.iter().any(meets) {
            taken.push(forward);
        }
    }
    taken
}

fn listing(napt: &Napt<Inside>, now: Duration) -> Vec<FlowView<Inside>> {
    let mut all = Vec::new();
    for protocol in Protocol::ALL {
        let mut from = Some(0);
        while let Some(at) = from {
            from = napt.page(protocol, at, 1000, now, &mut |view| all.push(view));
        }
    }
    all
}

fn explicit(napt: &Napt<Inside>, now: Duration, peers: bool) -> Vec<Mapping> {
    napt.explicit(now).filter(|mapping| mapping.remote.is_some() == peers).collect()
}

/// Whose each port is, as a log of mappings tells it.
fn picture(napt: &Napt<Inside>, now: Duration) -> Picture {
    let mut all = Picture::new();
    for view in listing(napt, now) {
        let remote = view.remote.filter(|_| view.shared).map(|remote| (remote.addr, remote.port));
        all.insert((view.protocol, view.outside.port, remote), (view.inside, view.outside.addr));
    }
    for map in explicit(napt, now, false) {
        all.insert((map.protocol, map.port, None), (map.inside, napt.address()));
    }
    all
}

fn segment([syn, ack, fin, rst]: [bool; 4]) -> Segment {
    Segment { flags: TcpFlags { syn, ack, fin, rst: rst && ack && fin }, ..Segment::default() }
}

impl Run {
    fn new(setup: Setup, seed: u64) -> Run {
        let mut run = Run {
            napt: Napt::new(ADDRS[setup.addr], ports(setup.set).0, &params(&setup), seed),
            now: START,
            setup,
            seed,
            maps: BTreeMap::new(),
            peers: BTreeMap::new(),
            losses: 0,
            reader: None,
        };
        run.record(true);
        run
    }

    fn record(&mut self, on: bool) {
        self.napt.record(on);
        if !on {
            self.reader = None;
        } else if self.reader.is_none() {
            self.reader = Some(picture(&self.napt, self.now));
        }
    }

    fn sweep(&mut self) {
        while self.napt.poll_timeout().is_some_and(|at| at <= self.now) {
            self.napt.handle_timeout(self.now);
        }
        self.maps.retain(|_, promise| promise.until > self.now);
        self.peers.retain(|_, promise| promise.until > self.now);
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let all = ports(self.setup.set).1;
        match *step {
            Step::Out { protocol, host: n, to, flags } => {
                let before = self.found(protocol, host(n), server(to));
                let Ok(proposal) = self.napt.propose_outbound(protocol, host(n), server(to), self.now) else {
                    prop_assert_eq!(before, None);
                    return Ok(());
                };
                prop_assert!(before.is_none_or(|port| port == proposal.outside.port), "a flow has moved");
                let own = self.maps.iter().find(|(at, map)| at.0 == protocol && map.inside == host(n));
                let own = own.map(|(at, _)| at.1).or_else(|| {
                    let forward =
                        possible(&self.setup).into_iter().find(|f| (f.protocol, f.inside) == (protocol, host(n)));
                    forward.map(|forward| forward.port)
                });
                prop_assert!(
                    before.is_some() || own.is_none_or(|port| port == proposal.outside.port),
                    "not by its own port"
                );
                self.napt.commit_outbound(proposal, Some(&segment(flags)), self.now);
                let joins = listing(&self.napt, self.now).iter().any(|view| {
                    ends(view.protocol, view.inside, view.remote) == ends(protocol, host(n), Some(server(to)))
                        && view.shared
                });
                prop_assert!(!joins || before.is_some() || self.setup.threshold > 0, "sharing is off");
            }
            Step::In { protocol, port, from, flags } => {
                let Some(&port) = all.get(port) else { return Ok(()) };
                let outside = Outside { addr: self.napt.address(), port };
                let found = self.napt.propose_inbound(protocol, outside, server(from), self.now);
                let open = self.maps.get(&(protocol, port)).map(|map| map.inside);
                let shown = listing(&self.napt, self.now).into_iter().find(|view| {
                    let remote = view.remote.is_none_or(|remote| remote == server(from));
                    view.protocol == protocol && view.outside.port == port && remote
                });
                if let Some(inside) = shown.map(|view| view.inside).or(open) {
                    prop_assert_eq!(found.map(|proposal| proposal.inside), Ok(inside));
                }
                if let Ok(proposal) = found {
                    self.napt.commit_inbound(proposal, Some(&segment(flags)), self.now);
                }
            }
            Step::Wait { millis } => self.now += Duration::from_millis(millis),
            Step::Map { protocol, host: n, nonce: of, seconds, suggested } => {
                let suggested = all.get(suggested).copied().unwrap_or(0);
                let forward = possible(&self.setup).iter().any(|f| (f.protocol, f.inside) == (protocol, host(n)));
                let want = self.want(protocol, n, of, seconds, suggested);
                let held =
                    self.maps.values().filter(|map| map.inside == host(n)).map(|map| map.nonce).collect::<Vec<_>>();
                if let Ok(granted) = self.napt.map(&want, self.now) {
                    prop_assert!(all.contains(&granted.outside.port));
                    let until = begins(self.now) + Duration::from_secs(seconds);
                    let expected = if forward { Duration::from_secs(seconds) } else { until - self.now };
                    prop_assert_eq!(granted.lifetime, expected);
                    let new = Promise { inside: host(n), port: granted.outside.port, nonce: of, until };
                    let old = (!forward).then(|| self.maps.insert((protocol, new.port), new)).flatten();
                    prop_assert!(
                        old.is_none_or(|old| (old.inside, old.nonce) == (new.inside, of)),
                        "{:?} lost it",
                        old
                    );
                } else {
                    prop_assert!(held.len() < 2 || held.iter().any(|old| *old != of) || self.short_of_room(protocol));
                }
            }
            Step::Peer { protocol, host: n, to, seconds } => {
                let want = self.want(protocol, n, 0, seconds, 0);
                if let Ok(granted) = self.napt.peer(&want, server(to), self.now) {
                    let key = ends(protocol, host(n), Some(server(to)));
                    let old = self.peers.get(&key).copied();
                    let until = begins(self.now) + Duration::from_secs(seconds);
                    let until = old.map_or(until, |old| until.max(old.until));
                    prop_assert!(old.is_none_or(|old| old.port == granted.outside.port));
                    self.peers.insert(key, Promise { inside: host(n), port: granted.outside.port, nonce: 0, until });
                }
            }
            Step::Unmap { protocol, host: n, nonce: of } => {
                let _ = self.napt.unmap(protocol, host(n), nonce(of));
                self.maps.retain(|at, map| (at.0, map.inside, map.nonce) != (protocol, host(n), of));
            }
            Step::Forwards(ref forwards) => {
                let setup = Setup { forwards: forwards.clone(), ..self.setup.clone() };
                let before = listing(&self.napt, self.now);
                let changed = self.napt.set_forwards(&wanted(&setup), self.now);
                prop_assert_eq!(changed.refused, setup.forwards.len() - possible(&setup).len());
                self.moved(setup, before, Duration::ZERO)?;
            }
            Step::Replace(ref setup) => {
                let before = listing(&self.napt, self.now);
                self.seed += 1;
                let mut next = Napt::new(ADDRS[setup.addr], ports(setup.set).0, &params(setup), self.seed);
                let replaced = self.napt.replace(&mut next, self.now);
                prop_assert_eq!(replaced.kept, listing(&self.napt, self.now).len());
                prop_assert_eq!(replaced.kept + replaced.purged, before.len());
                self.moved(setup.clone(), before, Duration::ZERO)?;
            }
            Step::Restart { millis, ref forwards } => {
                let setup = Setup { forwards: forwards.clone(), ..self.setup.clone() };
                let before = listing(&self.napt, self.now);
                let mut flows = Vec::new();
                self.napt.save(self.now, &mut |flow| flows.push(*flow));
                prop_assert_eq!(flows.len(), before.len());
                let mappings = self.napt.save_mappings(self.now);
                prop_assert_eq!(mappings.len(), self.maps.len() + self.peers.len());
                let away = Duration::from_millis(millis);
                self.now += away;
                self.seed += 1;
                self.napt = Napt::new(ADDRS[setup.addr], ports(setup.set).0, &params(&setup), self.seed);
                let recorded = self.reader.is_some();
                self.napt.record(recorded);
                let restored = self.napt.restore(&mut flows, &mappings, away, self.now);
                prop_assert_eq!(restored.taken + restored.expired + restored.refused, before.len());
                prop_assert_eq!(self.napt.next_event(), None, "what comes back was there before");
                self.maps.retain(|_, promise| promise.until > self.now);
                self.peers.retain(|_, promise| promise.until > self.now);
                self.moved(setup, before, away)?;
                prop_assert_eq!(restored.mappings, self.maps.len() + self.peers.len());
                self.losses = 0;
                self.reader = recorded.then(|| picture(&self.napt, self.now));
            }
            Step::Record(on) => self.record(on),
        }
        Ok(())
    }

    fn found(&self, protocol: Protocol, inside: Inside, remote: Remote) -> Option<u16> {
        let remote = (protocol != Protocol::Icmp).then_some(remote);
        let all = listing(&self.napt, self.now);
        let found =
            all.iter().find(|view| ends(view.protocol, view.inside, view.remote) == ends(protocol, inside, remote));
        found.map(|view| view.outside.port)
    }

    fn want(&self, protocol: Protocol, n: u8, of: u8, seconds: u64, suggested: u16) -> Want<Inside> {
        Want {
            protocol,
            inside: host(n),
            origin: nonce(of),
            lifetime: Duration::from_secs(seconds),
            suggested,
            prefer_failure: false,
            filters: Vec::new(),
            per_host: 64,
        }
    }

    /// Half of the ports are asked for, or none is free.
    fn short_of_room(&self, protocol: Protocol) -> bool {
        let all = ports(self.setup.set).1.len();
        self.maps.keys().filter(|at| at.0 == protocol).count() >= all / 2 || self.napt.ports_in_use(protocol) == all
    }

    /// After a change: what fits is what it was, nothing else is there, and promises that fit are kept.
    fn moved(&mut self, setup: Setup, before: Vec<FlowView<Inside>>, away: Duration) -> Result<(), TestCaseError> {
        let (all, forwards) = (ports(setup.set).1, possible(&setup));
        let had = possible(&self.setup);
        let same_address = setup.addr == self.setup.addr;
        let on = |protocol, port| forwards.iter().find(|f: &&Forward| (f.protocol, f.port) == (protocol, port));
        let fits = |view: &&FlowView<Inside>| {
            let taken = on(view.protocol, view.outside.port).is_some_and(|f| view.shared || f.inside != view.inside);
            same_address && all.contains(&view.outside.port) && !taken && (view.peer || view.expires_in > away)
        };
        let promised = self.maps.len() + self.peers.len();
        self.maps.retain(|&(protocol, port), map| {
            let gone = forwards.iter().any(|f| f.protocol == protocol && (f.port == port || f.inside == map.inside));
            same_address && all.contains(&port) && !gone
        });
        // Their ports may be another's map now.
        let after: BTreeMap<Ends, FlowView<Inside>> =
            listing(&self.napt, self.now).iter().map(|v| (ends(v.protocol, v.inside, v.remote), *v)).collect();
        self.peers.retain(|key, peer| {
            let taken = on(key.0, peer.port).is_some_and(|f| {
                let shared = before.iter().any(|v| ends(v.protocol, v.inside, v.remote) == *key && v.shared);
                shared || f.inside != peer.inside
            });
            same_address && all.contains(&peer.port) && !taken
        });
        self.losses += (promised - self.maps.len() - self.peers.len()) as u64;
        let fit: Vec<&FlowView<Inside>> = before.iter().filter(fits).collect();
        for protocol in Protocol::ALL {
            let fit: Vec<_> = fit.iter().filter(|view| view.protocol == protocol).collect();
            let room = if protocol == Protocol::Icmp { all.len() } else { setup.room as usize };
            for view in &fit {
                let key = ends(view.protocol, view.inside, view.remote);
                // A peer whose time is over meanwhile goes on as a flow, or not.
                let lapsed = view.peer && !self.peers.contains_key(&key);
                match after.get(&key) {
                    Some(now) if lapsed => prop_assert_eq!(now.outside, view.outside),
                    Some(now) => {
                        // Idle times are shown in whole quarters of a second.
                        prop_assert!(now.idle.abs_diff(view.idle + away) < 2 * QUARTER, "{:?} {:?}", now, view);
                        let expected = FlowView { idle: now.idle, expires_in: view.expires_in - away, ..***view };
                        prop_assert_eq!(*now, expected);
                    }
                    None => prop_assert!(lapsed || !view.peer && fit.len() > room, "{:?} is gone", view),
                }
            }
        }
        for (key, view) in &after {
            let was =
                fit.iter().any(|old| ends(old.protocol, old.inside, old.remote) == *key && old.outside == view.outside);
            prop_assert!(was, "{:?} comes from nowhere; {:?}", view, had);
        }
        self.setup = setup;
        Ok(())
    }

    /// What holds after every step.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let (flows, now) = (listing(&self.napt, self.now), self.now);
        let all = ports(self.setup.set).1;
        let maps = explicit(&self.napt, now, false);
        prop_assert!(self.napt.poll_timeout().is_none_or(|at| at > now));
        let forwards: BTreeSet<_> =
            self.napt.forwards().map(|f| (f.protocol, f.port, f.inside.addr, f.inside.port)).collect();
        let expected: BTreeSet<_> =
            possible(&self.setup).iter().map(|f| (f.protocol, f.port, f.inside.addr, f.inside.port)).collect();
        prop_assert_eq!(forwards, expected);
        // Promises.
        let leased: BTreeMap<_, _> = maps
            .iter()
            .filter_map(|m| Some(((m.protocol, m.port), (m.inside, m.origin, now + m.remaining?))))
            .collect();
        let expected: BTreeMap<_, _> =
            self.maps.iter().map(|(at, map)| (*at, (map.inside, nonce(map.nonce), map.until))).collect();
        prop_assert_eq!(leased, expected);
        let held: BTreeMap<_, _> = explicit(&self.napt, now, true)
            .iter()
            .filter_map(|m| Some((ends(m.protocol, m.inside, m.remote), (m.port, now + m.remaining?))))
            .collect();
        let expected: BTreeMap<_, _> = self.peers.iter().map(|(key, peer)| (*key, (peer.port, peer.until))).collect();
        prop_assert_eq!(held, expected);
        let shown: BTreeSet<_> =
            flows.iter().filter(|v| v.peer).map(|v| ends(v.protocol, v.inside, v.remote)).collect();
        prop_assert_eq!(shown, self.peers.keys().copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(self.napt.losses(), self.losses);
        // Ports.
        for protocol in Protocol::ALL {
            let of: Vec<_> = flows.iter().filter(|view| view.protocol == protocol).collect();
            prop_assert_eq!(self.napt.flows(protocol), of.len());
            let mut used = BTreeMap::<u16, Vec<&FlowView<Inside>>>::new();
            of.iter().for_each(|view| used.entry(view.outside.port).or_default().push(view));
            let set = maps.iter().filter(|map| map.protocol == protocol);
            set.clone().for_each(|map| _ = used.entry(map.port).or_default());
            prop_assert_eq!(self.napt.ports_in_use(protocol), used.len());
            prop_assert_eq!(
                self.napt.shared_ports(protocol),
                used.values().filter(|on| on.iter().any(|v| v.shared)).count()
            );
            for (port, on) in &used {
                prop_assert!(all.contains(port), "{:#x} is not of the set", port);
                let owners: BTreeSet<_> = on.iter().map(|view| (view.inside.addr, view.inside.port)).collect();
                let remotes: BTreeSet<_> = on.iter().map(|view| view.remote.map(|r| (r.addr, r.port))).collect();
                prop_assert_eq!(remotes.len(), on.len(), "{:#x}: one answer for two", port);
                prop_assert!(on.iter().all(|view| view.shared) || owners.len() == 1, "{:#x} is somebody's", port);
                prop_assert!(on.iter().all(|view| view.outside.addr == ADDRS[self.setup.addr]));
                if let Some(map) = set.clone().find(|map| map.port == *port) {
                    prop_assert!(on.iter().all(|view| !view.shared && view.inside == map.inside), "{:#x}", port);
                }
            }
            let distinct: BTreeSet<_> = of.iter().map(|view| ends(protocol, view.inside, view.remote)).collect();
            prop_assert_eq!(distinct.len(), of.len(), "one flow twice");
            let owners: BTreeSet<_> = set.clone().map(|map| (map.inside.addr, map.inside.port)).collect();
            prop_assert_eq!(owners.len(), set.count(), "one endpoint, two ports");
        }
        // The log.
        let events: Vec<_> = std::iter::from_fn(|| self.napt.next_event()).collect();
        let Some(reader) = &mut self.reader else {
            prop_assert_eq!(events, vec![]);
            return Ok(());
        };
        for event in events {
            let key = (event.protocol, event.outside.port, event.remote.map(|remote| (remote.addr, remote.port)));
            let whose = (event.inside, event.outside.addr);
            match event.kind {
                EventKind::Made => prop_assert_eq!(reader.insert(key, whose), None, "made twice: {:?}", event),
                EventKind::Ended(_) => prop_assert_eq!(reader.remove(&key), Some(whose), "{:?}", event),
            }
        }
        let picture = picture(&self.napt, now);
        prop_assert_eq!(&*reader, &picture);
        prop_assert_eq!(self.napt.lost_events(), 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn all_together(first in setup(), steps in prop::collection::vec(step(), 1..150), seed in 0..u64::MAX / 2) {
        let mut run = Run::new(first, seed);
        for step in steps {
            run.step(&step)?;
            run.sweep();
            run.check()?;
            #[cfg(debug_assertions)]
            prop_assert_eq!(run.napt.audit(run.now), Ok(()));
        }
    }
}
