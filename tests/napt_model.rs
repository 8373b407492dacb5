//! The NAPT against a plain model: a vector of mappings, searched from end to end, with the rules of RFC 4787,
//! 5382 and 7857 written out in words of their own. Random traffic, random time.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{Inside, Napt, Outside, Protocol, Refusal, TcpFlags, Timers};
use proptest::prelude::*;

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const TIMERS: Timers = Timers {
    udp: Duration::from_secs(30),
    tcp_established: Duration::from_secs(100),
    tcp_transitory: Duration::from_secs(20),
    icmp: Duration::from_secs(10),
};

/// a = 4, k = 12: the fifteen ports 0x1034, 0x2034, ... 0xf034 of PSID 0x034. So few that they run out.
fn few_ports() -> (PortSet, Vec<u16>) {
    let set = PortParams::new(4, 12).unwrap().port_set(Psid(0x034)).unwrap();
    (set, (1..16u16).map(|a| a << 12 | 0x034).collect())
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

fn established(phase: Phase) -> bool {
    matches!(phase, Phase::Open { home: true, internet: true, .. })
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

#[derive(Clone, Debug)]
struct ModelMapping {
    protocol: Protocol,
    inside: Inside,
    port: u16,
    phase: Phase,
    ends: Duration,
}

#[derive(Default)]
struct Model {
    mappings: Vec<ModelMapping>,
}

impl Model {
    fn of_inside(&mut self, protocol: Protocol, inside: Inside) -> Option<&mut ModelMapping> {
        self.mappings.iter_mut().find(|m| m.protocol == protocol && m.inside == inside)
    }

    fn of_port(&mut self, protocol: Protocol, port: u16) -> Option<&mut ModelMapping> {
        self.mappings.iter_mut().find(|m| m.protocol == protocol && m.port == port)
    }

    fn live(&self, protocol: Protocol, now: Duration) -> usize {
        self.mappings.iter().filter(|m| m.protocol == protocol && m.ends > now).count()
    }
}

fn idle(protocol: Protocol, phase: Phase) -> Duration {
    match protocol {
        Protocol::Udp => TIMERS.udp,
        Protocol::Icmp => TIMERS.icmp,
        Protocol::Tcp if established(phase) => TIMERS.tcp_established,
        Protocol::Tcp => TIMERS.tcp_transitory,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Out { protocol: Protocol, host: u8, flags: TcpFlags, commit: bool },
    In { protocol: Protocol, port: u16, flags: TcpFlags, commit: bool },
    Error { protocol: Protocol, host: u8 },
    Wait { quarters: u64 },
    Sweep,
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![3 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp), 1 => Just(Protocol::Icmp)]
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    let f = |syn, ack, fin, rst| Just(TcpFlags { syn, ack, fin, rst });
    prop_oneof![
        4 => f(true, false, false, false),
        4 => f(true, true, false, false),
        8 => f(false, true, false, false),
        3 => f(false, true, true, false),
        1 => f(false, false, false, true),
        1 => f(false, true, false, true),
        1 => (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(syn, ack, fin, rst)| TcpFlags { syn, ack, fin, rst }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (protocol(), 0..20u8, flags(), prop::bool::weighted(0.8))
            .prop_map(|(protocol, host, flags, commit)| Step::Out { protocol, host, flags, commit }),
        8 => (protocol(), 0..18u16, flags(), prop::bool::weighted(0.8))
            .prop_map(|(protocol, port, flags, commit)| Step::In { protocol, port, flags, commit }),
        1 => (protocol(), 0..20u8).prop_map(|(protocol, host)| Step::Error { protocol, host }),
        6 => (0..30u64).prop_map(|quarters| Step::Wait { quarters }),
        1 => (0..300u64).prop_map(|quarters| Step::Wait { quarters }),
        2 => Just(Step::Sweep),
    ]
}

fn host(n: u8) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, 10 + n % 7), port: 40_000 + u16::from(n / 7) }
}

fn run(steps: &[Step], seed: u64) -> Result<(), TestCaseError> {
    let (set, all) = few_ports();
    let mut napt = Napt::new(ADDR, set, TIMERS, seed);
    let mut model = Model::default();
    let mut now = Duration::from_secs(1000);
    for step in steps {
        match *step {
            Step::Out { protocol, host: n, flags, commit } => {
                let inside = host(n);
                let proposal = napt.propose_outbound(protocol, inside, now);
                prop_assert_eq!(proposal, napt.propose_outbound(protocol, inside, now), "propose only reads");
                let known = model.of_inside(protocol, inside).map(|m| m.port);
                let proposal = match proposal {
                    Err(refusal) => {
                        prop_assert_eq!(refusal, Refusal::Exhausted);
                        prop_assert_eq!(known, None);
                        prop_assert_eq!(model.live(protocol, now), all.len());
                        continue;
                    }
                    Ok(proposal) => proposal,
                };
                let port = proposal.outside.port;
                prop_assert_eq!(proposal.outside.addr, ADDR);
                prop_assert_eq!(proposal.inside, inside);
                match known {
                    // Also where it has expired: nobody has taken the port since.
                    Some(known) => prop_assert_eq!(port, known),
                    None => {
                        prop_assert!(all.contains(&port));
                        let holder = model.of_port(protocol, port).map(|m| m.ends);
                        prop_assert!(holder.is_none_or(|ends| ends <= now), "{} is in use", port);
                    }
                }
                if !commit {
                    continue;
                }
                napt.commit_outbound(proposal, flags, now);
                model.mappings.retain(|m| m.protocol != protocol || m.port != port || m.inside == inside);
                let was = model.of_inside(protocol, inside).filter(|m| m.ends > now).cloned();
                let before = was.as_ref().map_or(NEW, |m| m.phase);
                let phase = if protocol == Protocol::Tcp { home_sends(before, flags) } else { NEW };
                let refreshes = protocol != Protocol::Tcp || !flags.rst || established(before) != established(phase);
                let ends = match was {
                    Some(m) if !refreshes => m.ends,
                    _ => now + idle(protocol, phase),
                };
                model.mappings.retain(|m| m.protocol != protocol || m.inside != inside);
                model.mappings.push(ModelMapping { protocol, inside, port, phase, ends });
            }
            Step::In { protocol, port, flags, commit } => {
                // Beside the fifteen of the set: two ports of nobody and one of another PSID.
                let port = all.get(usize::from(port)).copied().unwrap_or(0x0034 + port);
                let proposal = napt.propose_inbound(protocol, Outside { addr: ADDR, port }, now);
                let Some(mapping) = model.of_port(protocol, port).filter(|m| m.ends > now) else {
                    prop_assert_eq!(proposal, Err(Refusal::NoMapping));
                    continue;
                };
                let proposal = proposal.unwrap();
                prop_assert_eq!(proposal.inside, mapping.inside);
                prop_assert_eq!(proposal.outside, Outside { addr: ADDR, port });
                if !commit {
                    continue;
                }
                napt.commit_inbound(proposal, flags, now);
                if protocol == Protocol::Tcp {
                    let before = mapping.phase;
                    mapping.phase = internet_sends(before, flags);
                    if established(before) || established(mapping.phase) {
                        mapping.ends = now + idle(protocol, mapping.phase);
                    }
                }
            }
            Step::Error { protocol, host: n } => {
                let expected = model.of_inside(protocol, host(n)).filter(|m| m.ends > now);
                let expected = expected.map(|m| Outside { addr: ADDR, port: m.port });
                prop_assert_eq!(napt.outside_of(protocol, host(n), now), expected);
            }
            Step::Wait { quarters } => now += Duration::from_millis(250 * quarters),
            Step::Sweep => {
                napt.handle_timeout(now);
                model.mappings.retain(|m| m.ends > now);
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                    prop_assert_eq!(napt.mappings(protocol), model.live(protocol, now));
                }
            }
        }
        prop_assert_eq!(napt.poll_timeout(), model.mappings.iter().map(|m| m.ends).min());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_behaves_as_the_model(steps in prop::collection::vec(step(), 1..400), seed: u64) {
        run(&steps, seed)?;
    }

    /// Times that are no multiple of the clock's tick: never early, and late by less than half a second.
    #[test]
    fn a_mapping_lives_its_idle_time_at_any_moment(start in 0u64..10_000_000, idle in 1u64..100_000_000) {
        let (set, _) = few_ports();
        let timers = Timers { udp: Duration::from_micros(idle), ..TIMERS };
        let mut napt = Napt::new(ADDR, set, timers, 1);
        let (start, idle) = (Duration::from_micros(start), Duration::from_micros(idle));
        let proposal = napt.propose_outbound(Protocol::Udp, host(3), start).unwrap();
        napt.commit_outbound(proposal, TcpFlags::default(), start);
        let last = start + idle - Duration::from_micros(1);
        prop_assert!(napt.propose_inbound(Protocol::Udp, proposal.outside, last).is_ok());
        let late = start + idle + Duration::from_millis(500);
        prop_assert!(napt.propose_inbound(Protocol::Udp, proposal.outside, late).is_err());
        prop_assert!(napt.poll_timeout().unwrap() <= late);
        napt.handle_timeout(napt.poll_timeout().unwrap());
        prop_assert_eq!(napt.mappings(Protocol::Udp), 0);
    }
}
