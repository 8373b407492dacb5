//! Idle times and TCP: how long a mapping lives, what refreshes it, and that its port comes back.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{Inside, Napt, NaptParams, Outside, Protocol, Refusal, Remote, Segment, TcpFlags, Timers};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const ME: Inside = Inside { addr: Ipv4Addr::new(192, 168, 1, 23), port: 51_234 };
const SERVER: Remote = Remote { addr: Ipv4Addr::new(10, 2, 3, 4), port: 443 };
const START: Duration = Duration::from_secs(1_700_000_000);

fn set_252() -> PortSet {
    PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap()
}

fn host(n: u16) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, 24), port: 30_000 + n }
}

/// One NAPT and its time.
struct Home {
    napt: Napt<Inside>,
    now: Duration,
    /// The next sequence numbers of the home and of the server.
    next: [u32; 2],
}

impl Home {
    fn new() -> Home {
        Home::with(Timers::default())
    }

    fn with(timers: Timers) -> Home {
        let params = NaptParams { timers, ..NaptParams::default() };
        Home { napt: Napt::new(ADDR, set_252(), &params, 77), now: START, next: [u32::MAX - 1, 90_000] }
    }

    fn wait(&mut self, seconds: u64) -> &mut Home {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn sweep(&mut self) {
        self.napt.handle_timeout(self.now);
    }

    fn out(&mut self, protocol: Protocol, inside: Inside, segment: Option<Segment>) -> Outside {
        let proposal = self.napt.propose_outbound(protocol, inside, SERVER, self.now).unwrap();
        self.napt.commit_outbound(proposal, segment.as_ref(), self.now);
        proposal.outside
    }

    fn back(&mut self, protocol: Protocol, outside: Outside, segment: Option<Segment>) -> Inside {
        let proposal = self.napt.propose_inbound(protocol, outside, SERVER, self.now).unwrap();
        self.napt.commit_inbound(proposal, segment.as_ref(), self.now);
        proposal.inside
    }

    /// TCP of `ME`: `>` outbound, `<` inbound; S, A, F, R are flags; a number waits for so many seconds.
    fn tcp(&mut self, script: &str) -> &mut Home {
        for word in script.split_whitespace() {
            let has = |flag| word.contains(flag);
            let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
            if let Ok(seconds) = word.parse() {
                self.wait(seconds);
                continue;
            }
            let side = usize::from(has('<'));
            let ack = if flags.ack { self.next[1 - side] } else { 0 };
            let segment = Some(Segment { flags, seq: self.next[side], ack, len: 0 });
            self.next[side] = self.next[side].wrapping_add(u32::from(flags.syn) + u32::from(flags.fin));
            if side == 0 {
                self.out(Protocol::Tcp, ME, segment);
            } else {
                let outside = self.napt.outside_of(Protocol::Tcp, ME, SERVER, self.now).unwrap();
                assert_eq!(self.back(Protocol::Tcp, outside, segment), ME);
            }
        }
        self
    }

    /// Seconds until the mapping of `ME` ends, as both directions see it.
    fn left(&mut self, protocol: Protocol) -> u64 {
        let outside = self.napt.outside_of(protocol, ME, SERVER, self.now).unwrap();
        let end = self.napt.poll_timeout().unwrap();
        let before = end - Duration::from_millis(1);
        assert!(self.napt.propose_inbound(protocol, outside, SERVER, before).is_ok());
        assert_eq!(self.napt.propose_inbound(protocol, outside, SERVER, end), Err(Refusal::NoMapping));
        assert_eq!(self.napt.outside_of(protocol, ME, SERVER, before), Some(outside));
        assert_eq!(self.napt.outside_of(protocol, ME, SERVER, end), None);
        (end - self.now).as_secs()
    }
}

const NONE: Option<Segment> = None;

#[test]
fn the_defaults_are_the_rfcs() {
    let timers = Timers::default();
    assert_eq!(timers.udp.as_secs(), 5 * 60, "RFC 4787 REQ-5");
    assert_eq!(timers.tcp_established.as_secs(), 2 * 3600 + 4 * 60, "RFC 5382 REQ-5");
    assert_eq!((timers.tcp_opening.as_secs(), timers.tcp_closing.as_secs()), (4 * 60, 4 * 60), "RFC 5382 REQ-5");
    assert_eq!(timers.icmp.as_secs(), 60, "RFC 5508 REQ-2");
}

#[test]
fn udp_lives_300_s_from_the_last_outbound_packet() {
    let mut home = Home::new();
    let outside = home.out(Protocol::Udp, ME, NONE);
    assert_eq!(home.left(Protocol::Udp), 300);
    assert_eq!(home.wait(200).left(Protocol::Udp), 100);
    home.back(Protocol::Udp, outside, NONE);
    assert_eq!(home.left(Protocol::Udp), 100, "a stranger cannot keep it alive");
    assert_eq!(home.out(Protocol::Udp, ME, NONE), outside);
    assert_eq!(home.left(Protocol::Udp), 300);
}

#[test]
fn an_echo_identifier_lives_60_s_from_the_last_query() {
    let mut home = Home::new();
    let outside = home.out(Protocol::Icmp, ME, NONE);
    home.wait(10).back(Protocol::Icmp, outside, NONE);
    assert_eq!(home.left(Protocol::Icmp), 50);
    home.out(Protocol::Icmp, ME, NONE);
    assert_eq!(home.left(Protocol::Icmp), 60);
}

#[test]
fn an_icmp_error_about_a_mapping_does_not_refresh_it() {
    let mut home = Home::new();
    let outside = home.out(Protocol::Udp, ME, NONE);
    home.wait(100);
    assert_eq!(home.napt.outside_of(Protocol::Udp, ME, SERVER, home.now), Some(outside));
    home.napt.propose_inbound(Protocol::Udp, outside, SERVER, home.now).unwrap();
    assert_eq!(home.left(Protocol::Udp), 200);
}

#[test]
fn tcp_half_open_is_transitory() {
    assert_eq!(Home::new().tcp(">S").left(Protocol::Tcp), 240);
    assert_eq!(Home::new().tcp(">S 3 >S 6 >S").left(Protocol::Tcp), 240, "its own SYN refreshes");
    assert_eq!(Home::new().tcp(">S 40 <SA").left(Protocol::Tcp), 200, "an answer alone does not");
    assert_eq!(Home::new().tcp(">S 40 <RA").left(Protocol::Tcp), 240, "a refusal closes (RFC 7857 §2.2)");
    assert_eq!(Home::new().tcp(">S 40 <RA 40 <RA").left(Protocol::Tcp), 200, "and only once");
}

#[test]
fn tcp_established_lives_7440_s_from_the_last_segment_of_either_side() {
    assert_eq!(Home::new().tcp(">S <SA >A").left(Protocol::Tcp), 7440);
    assert_eq!(Home::new().tcp(">S <SA >A 3000 >A").left(Protocol::Tcp), 7440);
    assert_eq!(Home::new().tcp(">S <SA >A 3000 <A").left(Protocol::Tcp), 7440);
    assert_eq!(Home::new().tcp(">S <SA >A 3000").left(Protocol::Tcp), 4440);
    assert_eq!(Home::new().tcp(">S <S >SA <SA").left(Protocol::Tcp), 7440, "simultaneous open");
    assert_eq!(Home::new().tcp(">A 10 <A").left(Protocol::Tcp), 7440, "older than this NAPT");
}

#[test]
fn tcp_half_closed_is_established_still() {
    assert_eq!(Home::new().tcp(">S <SA >A >FA <A 1000 <A").left(Protocol::Tcp), 7440);
    assert_eq!(Home::new().tcp(">S <SA >A <FA >A 1000 >A").left(Protocol::Tcp), 7440);
}

#[test]
fn tcp_closed_by_both_fins_is_transitory() {
    assert_eq!(Home::new().tcp(">S <SA >A 50 >FA <FA >A").left(Protocol::Tcp), 240);
    assert_eq!(Home::new().tcp(">S <SA >A 50 <FA >FA 30 <A").left(Protocol::Tcp), 210);
    assert_eq!(Home::new().tcp(">S <SA >A <FA >FA 30 >FA").left(Protocol::Tcp), 240, "a FIN sent again refreshes");
}

#[test]
fn tcp_reset_is_transitory() {
    assert_eq!(Home::new().tcp(">S <SA >A 50 <R").left(Protocol::Tcp), 240);
    assert_eq!(Home::new().tcp(">S <SA >A 50 >RA").left(Protocol::Tcp), 240);
    assert_eq!(Home::new().tcp(">S <SA >A <R 60 <A").left(Protocol::Tcp), 180, "stragglers do not refresh");
    assert_eq!(Home::new().tcp(">S <SA >A <R 60 >R").left(Protocol::Tcp), 180, "nor their answers, RFC 7857 §7.1");
    assert_eq!(Home::new().tcp(">S <SA >A <R 60 >A").left(Protocol::Tcp), 7440, "RFC 7857 §2.2: it was forged");
}

#[test]
fn a_new_syn_reopens_a_closing_mapping_on_the_same_port() {
    let mut home = Home::new();
    home.tcp(">S");
    let port = home.napt.outside_of(Protocol::Tcp, ME, SERVER, home.now);
    assert_eq!(home.tcp("<SA >A >FA <FA >A 100 >S").left(Protocol::Tcp), 240);
    assert_eq!(home.tcp("<SA >A").left(Protocol::Tcp), 7440);
    assert_eq!(home.napt.outside_of(Protocol::Tcp, ME, SERVER, home.now), port);
}

#[test]
fn an_expired_mapping_before_its_sweep_is_dead_inbound_and_revived_outbound() {
    let mut home = Home::new();
    home.tcp(">S <SA >A");
    let outside = home.napt.outside_of(Protocol::Tcp, ME, SERVER, home.now).unwrap();
    home.wait(7440);
    assert_eq!(home.napt.propose_inbound(Protocol::Tcp, outside, SERVER, home.now), Err(Refusal::NoMapping));
    assert_eq!(home.napt.outside_of(Protocol::Tcp, ME, SERVER, home.now), None);
    assert_eq!(home.napt.ports_in_use(Protocol::Tcp), 1);
    assert_eq!(home.out(Protocol::Tcp, ME, NONE), outside, "nobody has had the port since");
    assert_eq!(home.left(Protocol::Tcp), 240, "and what was seen of the old connection is forgotten");
}

#[test]
fn an_expired_mapping_before_its_sweep_gives_its_port_up_when_there_is_no_other() {
    let mut home = Home::new();
    let first = home.out(Protocol::Udp, ME, NONE);
    home.wait(10);
    for n in 0..251 {
        home.out(Protocol::Udp, host(n), NONE);
    }
    assert_eq!(home.napt.propose_outbound(Protocol::Udp, host(300), SERVER, home.now), Err(Refusal::Exhausted));
    home.wait(290);
    assert_eq!(home.out(Protocol::Udp, host(300), NONE), first);
    assert_eq!(home.napt.ports_in_use(Protocol::Udp), 252);
    let back = home.napt.propose_inbound(Protocol::Udp, first, SERVER, home.now).unwrap();
    assert_eq!(back.inside, host(300));
    assert_eq!(home.napt.outside_of(Protocol::Udp, ME, SERVER, home.now), None);
    assert_eq!(home.napt.propose_outbound(Protocol::Udp, ME, SERVER, home.now), Err(Refusal::Exhausted));
}

#[test]
fn ports_return_after_expiry() {
    let mut home = Home::new();
    for _ in 0..5 {
        for n in 0..252 {
            home.out(Protocol::Udp, host(n), NONE);
            home.out(Protocol::Icmp, host(n), NONE);
        }
        assert!(home.napt.propose_outbound(Protocol::Udp, ME, SERVER, home.now).is_err());
        home.wait(60);
        home.sweep();
        assert_eq!((home.napt.ports_in_use(Protocol::Udp), home.napt.ports_in_use(Protocol::Icmp)), (252, 0));
        home.wait(240);
        home.sweep();
        assert_eq!(home.napt.ports_in_use(Protocol::Udp), 0);
        assert_eq!(home.napt.poll_timeout(), None);
    }
}

#[test]
fn one_timeout_is_bounded_and_asks_to_be_called_again() {
    let mut napt = Napt::new(ADDR, PortSet::ALL, &NaptParams::default(), 3);
    for n in 0..1000 {
        let proposal = napt.propose_outbound(Protocol::Udp, host(n), SERVER, START).unwrap();
        napt.commit_outbound(proposal, None, START);
    }
    let end = START + Duration::from_secs(300);
    let mut left = 1000;
    while left > 0 {
        assert_eq!(napt.poll_timeout(), Some(end));
        napt.handle_timeout(end);
        left -= left.min(256);
        assert_eq!(napt.ports_in_use(Protocol::Udp), left);
    }
    assert_eq!(napt.poll_timeout(), None);
}

#[test]
fn timers_are_the_configured_ones() {
    let timers = Timers {
        udp: Duration::from_secs(120),
        tcp_established: Duration::from_secs(8000),
        tcp_opening: Duration::from_secs(30),
        tcp_closing: Duration::from_secs(40),
        icmp: Duration::from_secs(61),
    };
    let mut home = Home::with(timers);
    home.out(Protocol::Udp, ME, NONE);
    assert_eq!(home.left(Protocol::Udp), 120);
    home.wait(120).sweep();
    home.out(Protocol::Icmp, ME, NONE);
    assert_eq!(home.left(Protocol::Icmp), 61);
    home.wait(61).sweep();
    assert_eq!(home.tcp(">S").left(Protocol::Tcp), 30);
    assert_eq!(home.tcp("<SA >A").left(Protocol::Tcp), 8000);
    assert_eq!(home.tcp("<R").left(Protocol::Tcp), 40);
    assert_eq!(home.tcp(">A >FA <FA >A").left(Protocol::Tcp), 40);
}
