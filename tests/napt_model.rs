//! The NAPT against a plain model: a vector of flows, searched from end to end, with the rules of RFC 4787,
//! 5382 and 7857 written out in words of their own. Random traffic, random time.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    Changed, Filter, Filtering, Forward, Inside, Napt, NaptParams, Outside, Protocol, Refusal, Remote, Segment,
    TcpFlags, Timers,
};
use mapt::ops::saved::{self, Moment, Owner};
use proptest::prelude::*;

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const TIMERS: Timers = Timers {
    udp: Duration::from_secs(30),
    tcp_established: Duration::from_secs(100),
    tcp_opening: Duration::from_secs(20),
    tcp_closing: Duration::from_secs(15),
    icmp: Duration::from_secs(10),
};

/// a = 3, k = 13: the seven ports 0x2034, 0x4034, ... 0xe034 of PSID 0x0034. So few that they run out.
fn few_ports() -> (PortSet, Vec<u16>) {
    let set = PortParams::new(3, 13).unwrap().port_set(Psid(0x034)).unwrap();
    (set, (1..8u16).map(|a| a << 13 | 0x034).collect())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Which of the two ends have acknowledged: home, Internet.
    Open { home: bool, internet: bool, home_fin: bool, internet_fin: bool },
    /// By RST; what had been seen before.
    Reset { internet: bool, home_fin: bool, internet_fin: bool },
    /// By both FINs.
    Closed { home: bool, internet: bool },
}

const NEW: Phase = Phase::Open { home: false, internet: false, home_fin: false, internet_fin: false };

fn closed_by_fins(phase: Phase) -> Phase {
    match phase {
        Phase::Open { home, internet, home_fin: true, internet_fin: true } => Phase::Closed { home, internet },
        other => other,
    }
}

/// None: the phase stays.
fn home_sends(phase: Phase, f: TcpFlags) -> Phase {
    let next = match phase {
        Phase::Open { internet, home_fin, internet_fin, .. } if f.rst => {
            Phase::Reset { internet, home_fin, internet_fin }
        }
        Phase::Open { home, internet, .. } if f.syn => {
            Phase::Open { home: home || f.ack, internet, home_fin: false, internet_fin: false }
        }
        Phase::Open { home, internet, home_fin, internet_fin } => {
            Phase::Open { home: home || f.ack, internet, home_fin: home_fin || f.fin, internet_fin }
        }
        stays if f.rst => stays,
        Phase::Reset { .. } | Phase::Closed { .. } if f.syn => {
            Phase::Open { home: f.ack, internet: false, home_fin: false, internet_fin: false }
        }
        Phase::Reset { internet, home_fin, internet_fin } if f.ack => {
            Phase::Open { home: true, internet, home_fin: home_fin || f.fin, internet_fin }
        }
        Phase::Reset { internet, home_fin, internet_fin } => {
            Phase::Reset { internet, home_fin: home_fin || f.fin, internet_fin }
        }
        closed => closed,
    };
    closed_by_fins(next)
}

fn internet_sends(phase: Phase, f: TcpFlags) -> Phase {
    let next = match phase {
        Phase::Open { internet, home_fin, internet_fin, .. } if f.rst => {
            Phase::Reset { internet, home_fin, internet_fin }
        }
        stays if f.rst => stays,
        Phase::Open { home, internet, home_fin, internet_fin } => {
            Phase::Open { home, internet: internet || f.ack, home_fin, internet_fin: internet_fin || f.fin }
        }
        Phase::Reset { internet, home_fin, internet_fin } => {
            Phase::Reset { internet: internet || f.ack, home_fin, internet_fin: internet_fin || f.fin }
        }
        closed => closed,
    };
    closed_by_fins(next)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Class {
    Opening,
    Established,
    Closing,
}

fn class(phase: Phase) -> Class {
    match phase {
        Phase::Open { home: true, internet: true, .. } => Class::Established,
        Phase::Open { .. } => Class::Opening,
        Phase::Reset { .. } | Phase::Closed { .. } => Class::Closing,
    }
}

#[derive(Clone, Debug)]
struct Flow {
    protocol: Protocol,
    inside: Inside,
    remote: Remote,
    port: u16,
    /// Its port is nobody's own.
    shared: bool,
    phase: Phase,
    /// Since when it is of its class, or has been refreshed in it.
    since: Duration,
    /// Since when it has been half-open.
    opening: Duration,
    ends: Duration,
}

#[derive(Default)]
struct Model {
    flows: Vec<Flow>,
    forwards: Vec<Forward>,
}

impl Model {
    fn of(&self, protocol: Protocol) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |f| f.protocol == protocol)
    }

    fn on(&self, protocol: Protocol, port: u16) -> Vec<&Flow> {
        self.of(protocol).filter(|f| f.port == port).collect()
    }

    fn between(&mut self, protocol: Protocol, inside: Inside, remote: Remote) -> Option<&mut Flow> {
        self.flows.iter_mut().find(|f| f.protocol == protocol && f.inside == inside && f.remote == remote)
    }

    fn forward(&self, protocol: Protocol, port: u16) -> Option<Inside> {
        self.forwards.iter().find(|f| (f.protocol, f.port) == (protocol, port)).map(|f| f.inside)
    }

    /// Where a new flow of this endpoint may stand, if it has ports: its forward, else those of its flows. There are
    /// two of them only where one was a forward.
    fn own_ports(&self, protocol: Protocol, inside: Inside) -> Vec<u16> {
        let forward = self.forwards.iter().find(|f| (f.protocol, f.inside) == (protocol, inside));
        let flows = self.of(protocol).filter(|f| f.inside == inside && !f.shared);
        forward.map_or_else(|| flows.map(|f| f.port).collect(), |f| vec![f.port])
    }

    /// The operator's word: who has no port of a new forward loses nothing.
    fn set_forwards(&mut self, all: &[u16], forwards: &[Forward]) -> Changed {
        let mut wanted = Vec::<Forward>::new();
        for new in forwards {
            let meets = |f: &Forward| f.protocol == new.protocol && (f.port == new.port || f.inside == new.inside);
            if all.contains(&new.port) && !wanted.iter().any(meets) {
                wanted.push(*new);
            }
        }
        let old = std::mem::replace(&mut self.forwards, wanted);
        let new: Vec<&Forward> = self.forwards.iter().filter(|f| !old.contains(f)).collect();
        let before = self.flows.len();
        self.flows.retain(|flow| {
            let takes = |f: &&Forward| (f.protocol, f.port) == (flow.protocol, flow.port);
            new.iter().find(|f| takes(f)).is_none_or(|f| !flow.shared && flow.inside == f.inside)
        });
        Changed {
            added: new.len(),
            removed: old.iter().filter(|f| !self.forwards.contains(f)).count(),
            purged: before - self.flows.len(),
            refused: forwards.len() - self.forwards.len(),
        }
    }

    fn free(&self, protocol: Protocol, all: &[u16]) -> usize {
        all.iter().filter(|p| self.on(protocol, **p).is_empty() && self.forward(protocol, **p).is_none()).count()
    }

    fn shared_ports(&self, protocol: Protocol, all: &[u16]) -> usize {
        all.iter().filter(|port| self.on(protocol, **port).iter().any(|f| f.shared)).count()
    }

    /// Whether this flow's end would leave its port to a new one towards `remote`.
    fn leaves(&self, flow: &Flow, remote: Remote) -> bool {
        let alone = self.on(flow.protocol, flow.port).len() == 1 && self.forward(flow.protocol, flow.port).is_none();
        alone || flow.shared && flow.remote == remote
    }
}

/// A time begins with the next quarter of a second, and has ended when the last one says so.
const QUARTER: Duration = Duration::from_millis(250);

fn begins(now: Duration) -> Duration {
    QUARTER * now.as_nanos().div_ceil(QUARTER.as_nanos()) as u32
}

fn reached(now: Duration) -> Duration {
    QUARTER * (now.as_nanos() / QUARTER.as_nanos()) as u32
}

/// Both ends have closed it, and that for a second.
fn is_over(flow: &Flow, now: Duration) -> bool {
    let closed = flow.protocol == Protocol::Tcp && class(flow.phase) == Class::Closing;
    closed && reached(now) >= flow.since + Duration::from_secs(1)
}

fn is_unanswered(flow: &Flow, now: Duration) -> bool {
    let opening = flow.protocol == Protocol::Tcp && class(flow.phase) == Class::Opening;
    opening && reached(now) >= flow.opening + Duration::from_secs(10)
}

fn idle(protocol: Protocol, phase: Phase) -> Duration {
    match protocol {
        Protocol::Udp => TIMERS.udp,
        Protocol::Icmp => TIMERS.icmp,
        Protocol::Tcp => match class(phase) {
            Class::Opening => TIMERS.tcp_opening,
            Class::Established => TIMERS.tcp_established,
            Class::Closing => TIMERS.tcp_closing,
        },
    }
}

#[derive(Clone, Debug)]
enum Step {
    Out {
        protocol: Protocol,
        host: u8,
        to: usize,
        flags: TcpFlags,
        commit: bool,
    },
    In {
        protocol: Protocol,
        port: u16,
        from: usize,
        flags: TcpFlags,
        forged: bool,
        commit: bool,
    },
    Error {
        protocol: Protocol,
        host: u8,
        to: usize,
    },
    Wait {
        millis: u64,
    },
    /// Time goes by and nobody sweeps.
    Lag {
        millis: u64,
    },
    Forwards(Vec<(Protocol, u16, u8)>),
    Move(u32, Vec<(Protocol, u16, u8)>),
    Restart {
        millis: u64,
    },
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Icmp)]
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    let f = |syn, ack, fin, rst| Just(TcpFlags { syn, ack, fin, rst });
    prop_oneof![
        4 => f(true, false, false, false),
        4 => f(true, true, false, false),
        8 => f(false, true, false, false),
        3 => f(false, true, true, false),
        2 => f(false, true, false, true),
        1 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(syn, ack, fin)| TcpFlags { syn, ack, fin, rst: false }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let remote = || 0..REMOTES.len();
    prop_oneof![
        10 => (protocol(), 0..10u8, remote(), flags(), prop::bool::weighted(0.8))
            .prop_map(|(protocol, host, to, flags, commit)| Step::Out { protocol, host, to, flags, commit }),
        8 => (protocol(), 0..9u16, remote(), flags(), prop::bool::weighted(0.1), prop::bool::weighted(0.8))
            .prop_map(|(protocol, port, from, flags, forged, commit)| {
                Step::In { protocol, port, from, flags, forged, commit }
            }),
        1 => (protocol(), 0..10u8, remote()).prop_map(|(protocol, host, to)| Step::Error { protocol, host, to }),
        4 => (0..7_500u64).prop_map(|millis| Step::Wait { millis }),
        1 => (0..300u64).prop_map(|quarters| Step::Wait { millis: 250 * quarters }),
        1 => (0..75_000u64).prop_map(|millis| Step::Wait { millis }),
        1 => (0..25_000u64).prop_map(|millis| Step::Lag { millis }),
        1 => forwards().prop_map(Step::Forwards),
        1 => (0..25_000u64).prop_map(|millis| Step::Restart { millis }),
        1 => (0..3u32, forwards()).prop_map(|(room, forwards)| Step::Move(room, forwards)),
    ]
}

/// Protocol, place of the port in the set, host.
fn forwards() -> impl Strategy<Value = Vec<(Protocol, u16, u8)>> {
    prop::collection::vec((protocol(), 0..8u16, 0..10u8), 0..5)
}

const REMOTES: [Remote; 3] = [
    Remote { addr: Ipv4Addr::new(10, 0, 0, 1), port: 443 },
    Remote { addr: Ipv4Addr::new(10, 0, 0, 1), port: 444 },
    Remote { addr: Ipv4Addr::new(10, 0, 0, 2), port: 443 },
];

fn host(n: u8) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, 10 + n % 4), port: 40_000 + u16::from(n / 4) }
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        Just(Filter::EndpointIndependent),
        Just(Filter::AddressDependent),
        Just(Filter::AddressAndPortDependent)
    ]
}

/// The next sequence numbers of both ends of a connection; they do not depend on who has seen what.
#[derive(Default)]
struct Numbers(std::collections::HashMap<(Inside, Remote), [u32; 2]>);

impl Numbers {
    fn segment(&mut self, inside: Inside, remote: Remote, side: usize, flags: TcpFlags, sent: bool) -> Segment {
        let next = self.0.entry((inside, remote)).or_insert([u32::MAX - 3, 77_000]);
        let segment = Segment { flags, seq: next[side], ack: if flags.ack { next[1 - side] } else { 0 }, len: 0 };
        if sent && !flags.rst {
            next[side] = next[side].wrapping_add(u32::from(flags.syn) + u32::from(flags.fin));
        }
        segment
    }
}

fn sweep(napt: &mut Napt<Inside>, model: &mut Model, now: Duration) {
    while napt.poll_timeout().is_some_and(|at| at <= now) {
        napt.handle_timeout(now);
    }
    model.flows.retain(|f| f.ends > now);
}

fn run(steps: &[Step], filters: [Filter; 2], seed: u64) -> Result<(), TestCaseError> {
    let (set, all) = few_ports();
    let filtering = Filtering { tcp: Some(filters[0]), udp: Some(filters[1]) };
    let params = |room: u32| NaptParams { timers: TIMERS, filtering, max_flows: 200 + room, ..NaptParams::default() };
    // The last port is another customer's.
    let port = |n: u16| all.get(usize::from(n)).copied().unwrap_or(0x2035);
    let forward = |&(protocol, n, to): &(Protocol, u16, u8)| Forward { protocol, port: port(n), inside: host(to) };
    let mut napt = Napt::new(ADDR, set, &params(0), seed);
    let mut model = Model::default();
    let mut numbers = Numbers::default();
    let mut now = Duration::from_secs(1000);
    for step in steps {
        if !matches!(step, Step::Out { .. } | Step::Lag { .. }) {
            sweep(&mut napt, &mut model, now);
        }
        match *step {
            Step::Forwards(ref forwards) => {
                let forwards: Vec<Forward> = forwards.iter().map(forward).collect();
                prop_assert_eq!(napt.set_forwards(&forwards, now), model.set_forwards(&all, &forwards));
            }
            // Another process, by way of a file, after a while.
            Step::Restart { millis } => {
                let forwards: Vec<Forward> = napt.forwards().collect();
                let mut text = Vec::new();
                let at = Moment {
                    wall: Duration::from_secs(1_790_000_000),
                    boot: "1f-2a".into(),
                    up: Duration::from_secs(7),
                };
                let written = saved::write(&mut text, Owner::new(ADDR, set), &at, &napt, now).unwrap();
                prop_assert_eq!(written, model.flows.len());
                let mut read = saved::parse(std::str::from_utf8(&text).unwrap(), written).unwrap();
                prop_assert_eq!((read.owner, read.at, read.flows.len()), (Owner::new(ADDR, set), at, written));
                let away = Duration::from_millis(millis);
                now += away;
                napt = Napt::new(ADDR, set, &NaptParams { forwards, ..params(0) }, seed ^ millis);
                let restored = napt.restore(&mut read.flows, &read.mappings, away, now);
                model.flows.retain(|f| f.ends > now);
                let taken = model.flows.len();
                prop_assert_eq!((restored.taken, restored.expired, restored.refused), (taken, written - taken, 0));
            }
            // The same address and ports, perhaps with room for other numbers of flows.
            Step::Move(room, ref forwards) => {
                let forwards: Vec<Forward> = forwards.iter().map(forward).collect();
                let params = NaptParams { forwards: forwards.clone(), ..params(room) };
                let replaced = napt.replace(&mut Napt::new(ADDR, set, &params, seed ^ u64::from(room)), now);
                let before = model.flows.len();
                model.set_forwards(&all, &forwards);
                let after = model.flows.len();
                prop_assert_eq!((replaced.kept, replaced.purged), (after, before - after));
            }
            Step::Out { protocol, host: n, to, flags, commit } => {
                let (inside, given) = (host(n), REMOTES[to]);
                let icmp = protocol == Protocol::Icmp;
                let remote = if icmp { Remote { addr: Ipv4Addr::UNSPECIFIED, port: 0 } } else { given };
                let proposal = napt.propose_outbound(protocol, inside, given, now);
                prop_assert_eq!(proposal, napt.propose_outbound(protocol, inside, given, now), "propose only reads");
                let known = model.between(protocol, inside, remote).map(|f| vec![f.port]);
                let known = known.unwrap_or_else(|| model.own_ports(protocol, inside));
                let free = model.free(protocol, &all);
                let shares = !icmp && free * 2 < all.len();
                let fits = |port: u16| {
                    let flows = model.on(protocol, port);
                    let free = flows.is_empty() && model.forward(protocol, port).is_none();
                    free || !flows.is_empty() && shares && flows.iter().all(|f| f.shared && f.remote != remote)
                };
                let expired = model.of(protocol).any(|f| f.ends <= now && model.leaves(f, remote));
                let Ok(proposal) = proposal else {
                    prop_assert_eq!(proposal, Err(Refusal::Exhausted));
                    prop_assert!(!expired, "one has expired");
                    prop_assert_eq!(known, Vec::<u16>::new());
                    prop_assert!(!all.iter().any(|port| fits(*port)), "a port fits");
                    let over = model.of(protocol).find(|f| is_over(f, now) && model.leaves(f, remote));
                    prop_assert!(over.is_none(), "{:?} is over", over);
                    let same = model.of(protocol).find(|f| f.shared && f.remote == remote && is_unanswered(f, now));
                    prop_assert!(same.is_none(), "{:?} has waited", same);
                    continue;
                };
                let port = proposal.outside.port;
                prop_assert_eq!(proposal.outside.addr, ADDR);
                prop_assert_eq!(proposal.inside, inside);
                prop_assert!(all.contains(&port));
                let mut victim = None;
                match &known[..] {
                    [_, ..] => prop_assert!(known.contains(&port), "{} is none of {:?}", port, known),
                    [] if fits(port) => {}
                    [] => {
                        prop_assert!(!all.iter().any(|port| fits(*port)), "somebody loses {} for nothing", port);
                        let found = model.on(protocol, port).into_iter().find(|f| {
                            model.leaves(f, remote) && (f.ends <= now || is_over(f, now) || is_unanswered(f, now))
                        });
                        prop_assert!(found.is_some(), "{} is in use", port);
                        let found = found.unwrap();
                        let over = model.of(protocol).filter(|f| is_over(f, now) && model.leaves(f, remote));
                        match over.map(|f| f.since).min() {
                            _ if expired => prop_assert!(found.ends <= now, "another has expired"),
                            Some(oldest) => prop_assert!(is_over(found, now) && found.since == oldest),
                            None => prop_assert!(is_unanswered(found, now)),
                        }
                        victim = Some((found.inside, found.remote));
                    }
                }
                if !commit {
                    continue;
                }
                let segment = numbers.segment(inside, remote, 0, flags, protocol == Protocol::Tcp);
                napt.commit_outbound(proposal, Some(&segment), now);
                if let Some((inside, remote)) = victim {
                    model.flows.retain(|f| (f.protocol, f.inside, f.remote) != (protocol, inside, remote));
                }
                let was = model.between(protocol, inside, remote).cloned();
                let before = was.as_ref().filter(|f| f.ends > now).map(|f| f.phase);
                let phase = if protocol == Protocol::Tcp { home_sends(before.unwrap_or(NEW), flags) } else { NEW };
                let turned = before.is_none_or(|before| class(before) != class(phase));
                let refreshes = protocol != Protocol::Tcp || !flags.rst || turned;
                let new = Flow {
                    protocol,
                    inside,
                    remote,
                    port,
                    shared: was.as_ref().map_or(known.is_empty() && shares, |f| f.shared),
                    phase,
                    since: begins(now),
                    opening: was.as_ref().filter(|_| !turned).map_or(begins(now), |f| f.opening),
                    ends: begins(now) + idle(protocol, phase),
                };
                let flow = match was {
                    Some(was) if !refreshes => Flow { phase, ..was },
                    _ => new,
                };
                model.flows.retain(|f| (f.protocol, f.inside, f.remote) != (protocol, inside, remote));
                model.flows.push(flow);
            }
            Step::In { protocol, port, from, flags, forged, commit } => {
                // Beside the seven of the set: a port of nobody and one of another PSID.
                let port = all.get(usize::from(port)).copied().unwrap_or(0x0034 + port);
                let icmp = protocol == Protocol::Icmp;
                let remote = if icmp { Remote { addr: Ipv4Addr::UNSPECIFIED, port: 0 } } else { REMOTES[from] };
                let proposal = napt.propose_inbound(protocol, Outside { addr: ADDR, port }, REMOTES[from], now);
                let flows = model.on(protocol, port);
                let filter = filters[usize::from(protocol == Protocol::Udp)];
                let expected = match (flows.first(), flows.iter().find(|f| f.remote == remote)) {
                    (_, Some(flow)) => Ok(flow.inside),
                    _ if model.forward(protocol, port).is_some() => Ok(model.forward(protocol, port).unwrap()),
                    (None, _) => Err(Refusal::NoMapping),
                    (Some(some), _) if some.shared => Err(Refusal::Filtered),
                    (Some(some), _) => match filter {
                        Filter::EndpointIndependent => Ok(some.inside),
                        Filter::AddressDependent if flows.iter().any(|f| f.remote.addr == remote.addr) => {
                            Ok(some.inside)
                        }
                        _ => Err(Refusal::Filtered),
                    },
                };
                prop_assert_eq!(proposal.map(|p| p.inside), expected);
                let Ok(proposal) = proposal else { continue };
                prop_assert_eq!(proposal.outside, Outside { addr: ADDR, port });
                if !commit {
                    continue;
                }
                let mut segment =
                    numbers.segment(proposal.inside, remote, 1, flags, !forged && protocol == Protocol::Tcp);
                if forged {
                    segment.flags = TcpFlags { rst: true, ..flags };
                    segment.seq = segment.seq.wrapping_add(1 << 30);
                    segment.ack = segment.ack.wrapping_add(1 << 30);
                }
                napt.commit_inbound(proposal, Some(&segment), now);
                // Its flow with the same remote endpoint may stand on a shared port.
                let flow = model.between(protocol, proposal.inside, remote).filter(|f| f.port == port);
                let Some(flow) = flow else { continue };
                if protocol == Protocol::Tcp && !forged {
                    let before = flow.phase;
                    flow.phase = internet_sends(before, flags);
                    let turned = class(before) != class(flow.phase);
                    if turned || class(flow.phase) == Class::Established && !flags.rst {
                        flow.since = begins(now);
                        flow.ends = begins(now) + idle(protocol, flow.phase);
                    }
                }
            }
            Step::Error { protocol, host: n, to } => {
                let icmp = protocol == Protocol::Icmp;
                let remote = if icmp { Remote { addr: Ipv4Addr::UNSPECIFIED, port: 0 } } else { REMOTES[to] };
                let found = napt.outside_of(protocol, host(n), REMOTES[to], now).map(|o| o.port);
                match model.between(protocol, host(n), remote).map(|f| f.port) {
                    Some(port) => prop_assert_eq!(found, Some(port)),
                    // What a filter may have let in.
                    None => {
                        let own = model.own_ports(protocol, host(n));
                        prop_assert!(found.is_none_or(|port| own.contains(&port)));
                        let forward = own.iter().find(|port| model.forward(protocol, **port) == Some(host(n)));
                        prop_assert!(forward.is_none() || found == forward.copied());
                    }
                }
            }
            Step::Wait { millis } => {
                now += Duration::from_millis(millis);
                sweep(&mut napt, &mut model, now);
            }
            Step::Lag { millis } => now += Duration::from_millis(millis),
        }
        #[cfg(debug_assertions)]
        prop_assert_eq!(napt.audit(now), Ok(()));
        prop_assert_eq!(napt.poll_timeout(), model.flows.iter().map(|f| f.ends).min());
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            prop_assert_eq!(napt.flows(protocol), model.of(protocol).count());
            prop_assert_eq!(napt.ports_in_use(protocol), all.len() - model.free(protocol, &all));
            prop_assert_eq!(napt.shared_ports(protocol), model.shared_ports(protocol, &all));
            for flow in model.of(protocol) {
                let same = model.on(protocol, flow.port);
                prop_assert!(same.iter().all(|f| f.shared == flow.shared), "both own and shared");
                prop_assert_eq!(same.iter().filter(|f| f.remote == flow.remote).count(), 1, "two hosts for one answer");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_behaves_as_the_model(
        steps in prop::collection::vec(step(), 1..400), tcp in filter(), udp in filter(), seed: u64,
    ) {
        run(&steps, [tcp, udp], seed)?;
    }

    /// Times that are no multiple of the clock's tick: never early, and late by less than half a second.
    #[test]
    fn a_flow_lives_its_idle_time_at_any_moment(start in 0u64..10_000_000, idle in 1u64..100_000_000) {
        let (set, _) = few_ports();
        let timers = Timers { udp: Duration::from_micros(idle), ..TIMERS };
        let mut napt = Napt::new(ADDR, set, &NaptParams { timers, ..NaptParams::default() }, 1);
        let (start, idle) = (Duration::from_micros(start), Duration::from_micros(idle));
        let proposal = napt.propose_outbound(Protocol::Udp, host(3), REMOTES[0], start).unwrap();
        napt.commit_outbound(proposal, None, start);
        let last = start + idle - Duration::from_micros(1);
        prop_assert!(napt.propose_inbound(Protocol::Udp, proposal.outside, REMOTES[0], last).is_ok());
        let late = start + idle + Duration::from_millis(500);
        prop_assert!(napt.propose_inbound(Protocol::Udp, proposal.outside, REMOTES[0], late).is_err());
        prop_assert!(napt.poll_timeout().unwrap() <= late);
        napt.handle_timeout(napt.poll_timeout().unwrap());
        prop_assert_eq!(napt.flows(Protocol::Udp), 0);
    }
}
