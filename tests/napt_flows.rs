//! More flows than ports, who may send in, who gives way when no port fits, and which reset counts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    Filter, Filtering, Inside, Napt, NaptParams, Origin, Outside, Protocol, Refusal, Remote, Segment, Sharing,
    TcpFlags, Want,
};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const START: Duration = Duration::from_secs(50);

/// RFC 7597 Appendix A: 63 ranges of four ports, 1232-1235, 2256-2259, ...
fn set_252() -> PortSet {
    PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap()
}

/// The 15 ports 0x1034, 0x2034, ... 0xf034.
fn set_15() -> PortSet {
    PortParams::new(4, 12).unwrap().port_set(Psid(0x034)).unwrap()
}

fn host(host: u8, port: u16) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, host), port }
}

fn server(n: u32, port: u16) -> Remote {
    Remote { addr: Ipv4Addr::from(0x0a02_0301 + n), port }
}

fn flags(letters: &str) -> TcpFlags {
    let has = |flag| letters.contains(flag);
    TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') }
}

/// One NAPT and its time.
struct Home {
    napt: Napt<Inside>,
    now: Duration,
}

impl Home {
    fn new(ports: PortSet) -> Home {
        Home::with(ports, NaptParams::default())
    }

    fn with(ports: PortSet, params: NaptParams) -> Home {
        Home { napt: Napt::new(ADDR, ports, &params, 31), now: START }
    }

    /// A TCP segment out: the letters of its flags, sequence number, acknowledgement number.
    fn out(&mut self, inside: Inside, remote: Remote, letters: &str, seq: u32, ack: u32) -> Result<u16, Refusal> {
        let proposal = self.napt.propose_outbound(Protocol::Tcp, inside, remote, self.now)?;
        let segment = Segment { flags: flags(letters), seq, ack, len: 0 };
        self.napt.commit_outbound(proposal, Some(&segment), self.now);
        Ok(proposal.outside.port)
    }

    fn back(&mut self, port: u16, remote: Remote, letters: &str, seq: u32, ack: u32) -> Result<Inside, Refusal> {
        let outside = Outside { addr: ADDR, port };
        let proposal = self.napt.propose_inbound(Protocol::Tcp, outside, remote, self.now)?;
        let segment = Segment { flags: flags(letters), seq, ack, len: 0 };
        self.napt.commit_inbound(proposal, Some(&segment), self.now);
        Ok(proposal.inside)
    }

    /// A handshake: the home at 1001 afterwards, the server at 9001.
    fn connect(&mut self, inside: Inside, remote: Remote) -> Result<u16, Refusal> {
        let port = self.out(inside, remote, "S", 1000, 0)?;
        assert_eq!(self.back(port, remote, "SA", 9000, 1001), Ok(inside));
        assert_eq!(self.out(inside, remote, "A", 1001, 9001), Ok(port));
        Ok(port)
    }

    /// Both FINs and their acknowledgements.
    fn close(&mut self, inside: Inside, remote: Remote) {
        let port = self.out(inside, remote, "FA", 1001, 9001).unwrap();
        assert_eq!(self.back(port, remote, "FA", 9001, 1002), Ok(inside));
        assert_eq!(self.out(inside, remote, "A", 1002, 9002), Ok(port));
    }

    fn udp(&mut self, inside: Inside, remote: Remote) -> Result<u16, Refusal> {
        let proposal = self.napt.propose_outbound(Protocol::Udp, inside, remote, self.now)?;
        self.napt.commit_outbound(proposal, None, self.now);
        Ok(proposal.outside.port)
    }

    fn udp_back(&mut self, port: u16, remote: Remote) -> Result<Inside, Refusal> {
        let outside = Outside { addr: ADDR, port };
        let proposal = self.napt.propose_inbound(Protocol::Udp, outside, remote, self.now)?;
        self.napt.commit_inbound(proposal, None, self.now);
        Ok(proposal.inside)
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        while self.napt.poll_timeout().is_some_and(|at| at <= self.now) {
            self.napt.handle_timeout(self.now);
        }
    }
}

/// NAT-2, P39: 10,000 connections to 100 addresses through 252 ports: each carries data, none meets another, those
/// that came while ports were plenty keep a port of their own, and the others use all ranges evenly.
#[test]
fn ten_thousand_connections_through_252_ports() {
    let mut home = Home::new(set_252());
    let flow = |n: u32| (host((n % 20) as u8, 20_000 + n as u16), server(n % 100, 443));
    let mut ports = Vec::new();
    for n in 0..10_000 {
        let (inside, remote) = flow(n);
        ports.push(home.connect(inside, remote).unwrap());
    }
    assert_eq!((home.napt.flows(Protocol::Tcp), home.napt.ports_in_use(Protocol::Tcp)), (10_000, 252));
    // 252 ports, of which at least half were to be free: the 127th took one of 126.
    assert_eq!(home.napt.shared_ports(Protocol::Tcp), 252 - 127);
    let own: BTreeSet<u16> = ports[..127].iter().copied().collect();
    assert_eq!(own.len(), 127);
    assert!(ports[127..].iter().all(|port| !own.contains(port)), "a port is one endpoint's or shared");
    let together: HashSet<(u16, Remote)> = (0..10_000).map(|n| (ports[n as usize], flow(n).1)).collect();
    assert_eq!(together.len(), 10_000, "two flows with one port and one server");
    home.wait(100_000);
    for n in 0..10_000 {
        let ((inside, remote), port) = (flow(n), ports[n as usize]);
        assert_eq!(home.out(inside, remote, "A", 1001, 9001), Ok(port));
        assert_eq!(home.back(port, remote, "A", 9001, 1001), Ok(inside));
    }
    // Evenly: 9,873 flows on 125 ports are 79 each.
    let mut load = BTreeMap::<u16, u32>::new();
    ports[127..].iter().for_each(|port| *load.entry(*port).or_default() += 1);
    assert_eq!(load.len(), 125);
    assert!(load.values().all(|n| (69..=89).contains(n)), "{load:?}");
    let ranges: BTreeSet<u16> = ports.iter().map(|port| port / 1024).collect();
    assert_eq!(ranges, (1..64).collect());
}

/// A whole address: 60,000 inside endpoints with a port each, then 100,000 flows.
#[test]
fn a_whole_address() {
    let sharing = Sharing { threshold: 8, ..Sharing::default() };
    let mut home = Home::with(PortSet::ALL, NaptParams { sharing, ..NaptParams::default() });
    let inside = |n: u32| Inside { addr: Ipv4Addr::from(0xc0a8_0100 + n / 50_000), port: 2000 + (n % 50_000) as u16 };
    let mut ports = BTreeSet::new();
    for n in 0..60_000 {
        ports.insert(home.udp(inside(n), server(0, 3478)).unwrap());
    }
    assert_eq!((ports.len(), home.napt.shared_ports(Protocol::Udp)), (60_000, 0));
    for n in (0..60_000).step_by(1000) {
        let port = home.udp(inside(n), server(1, 3478)).unwrap();
        assert_eq!(home.udp(inside(n), server(0, 3478)), Ok(port), "endpoint-independent");
    }
    for n in 60_000..99_940 {
        let port = home.udp(inside(n), server(n % 40, 53)).unwrap();
        assert_eq!(home.udp_back(port, server(n % 40, 53)), Ok(inside(n)));
    }
    assert_eq!(home.napt.flows(Protocol::Udp), 100_000);
    assert!(home.napt.shared_ports(Protocol::Udp) > 4000);
}

/// Scarcity takes nothing from those who have a port of their own.
#[test]
fn own_ports_are_not_disturbed() {
    let mut home = Home::new(set_15());
    let games: Vec<(Inside, u16)> =
        (0..8).map(|n| (host(5, 3000 + n), home.udp(host(5, 3000 + n), server(0, 3074)).unwrap())).collect();
    let mut refused = 0;
    for n in 0..200 {
        refused += u32::from(home.udp(host(6, 5000 + n), server(u32::from(n % 4), 53)) == Err(Refusal::Exhausted));
    }
    // Seven shared ports, four servers.
    assert_eq!((refused, home.napt.flows(Protocol::Udp)), (200 - 28, 8 + 28));
    for (inside, port) in &games {
        assert_eq!(home.udp(*inside, server(9, 3074)), Ok(*port), "whomever it talks to");
        assert_eq!(home.udp_back(*port, server(9, 3074)), Ok(*inside));
    }
    // The shared ports are free again when their flows are gone, and then anybody's own.
    home.wait(200_000);
    games.iter().for_each(|(inside, port)| assert_eq!(home.udp(*inside, server(0, 3074)), Ok(*port)));
    home.wait(100_000);
    assert_eq!((home.napt.ports_in_use(Protocol::Udp), home.napt.shared_ports(Protocol::Udp)), (8, 0));
}

/// `napt.sharing`: by destination port from the first flow on; 0 never; 100 all but the first.
#[test]
fn who_shares() {
    let sharing = Sharing { threshold: 50, tcp: vec![443], udp: vec![53] };
    let mut home = Home::with(set_252(), NaptParams { sharing, ..NaptParams::default() });
    for n in 0..100 {
        home.connect(host(5, 4000 + n), server(u32::from(n), 443)).unwrap();
        home.udp(host(5, 4000 + n), server(u32::from(n), 443)).unwrap();
    }
    assert!(home.napt.ports_in_use(Protocol::Tcp) <= 30, "{}", home.napt.ports_in_use(Protocol::Tcp));
    assert_eq!((home.napt.ports_in_use(Protocol::Udp), home.napt.shared_ports(Protocol::Udp)), (100, 0));
    let never = Sharing { threshold: 0, ..Sharing::default() };
    let mut home = Home::with(set_15(), NaptParams { sharing: never, ..NaptParams::default() });
    let opened = (0..20).filter(|n| home.udp(host(5, 4000 + n), server(u32::from(*n), 80)).is_ok()).count();
    assert_eq!((opened, home.napt.shared_ports(Protocol::Udp)), (15, 0));
    let all = Sharing { threshold: 100, ..Sharing::default() };
    let mut home = Home::with(set_15(), NaptParams { sharing: all, ..NaptParams::default() });
    for n in 0..20 {
        home.udp(host(5, 4000 + n), server(u32::from(n), 80)).unwrap();
    }
    assert_eq!(home.napt.ports_in_use(Protocol::Udp) - home.napt.shared_ports(Protocol::Udp), 1);
}

/// Where sharing has ended, a new flow takes no place on a port where others are, even that of a flow which is over.
#[test]
fn nobody_joins_a_shared_port_when_sharing_is_off() {
    let sharing =
        |threshold| NaptParams { sharing: Sharing { threshold, ..Sharing::default() }, ..NaptParams::default() };
    let mut home = Home::with(set_15(), sharing(100));
    // All ports, and then two flows on each shared one: to server 0, and to server 1.
    for n in 0..15 {
        home.connect(host(5, 4000 + n), server(0, 443)).unwrap();
    }
    for n in 0..14 {
        home.connect(host(6, 4000 + n), server(1, 443)).unwrap();
    }
    (1..15).for_each(|n| home.close(host(5, 4000 + n), server(0, 443)));
    home.wait(2000);
    home.napt.replace(&mut Napt::new(ADDR, set_15(), &sharing(0), 8), home.now);
    assert_eq!(home.napt.shared_ports(Protocol::Tcp), 14);
    assert_eq!(home.connect(host(7, 7000), server(0, 443)), Err(Refusal::Exhausted));
    assert_eq!(home.napt.flows(Protocol::Tcp), 29, "and nobody ended for it");
}

/// NAT-6, RFC 4787 §5: which senders reach a port of one endpoint's own, and nobody else a shared one.
#[test]
fn filters() {
    let (asked, other_port, stranger) = (server(0, 3478), server(0, 3479), server(1, 3478));
    for (filter, admitted) in [
        (Filter::EndpointIndependent, [true, true, true]),
        (Filter::AddressDependent, [true, true, false]),
        (Filter::AddressAndPortDependent, [true, false, false]),
    ] {
        for (tcp, udp) in [(filter, Filter::EndpointIndependent), (Filter::EndpointIndependent, filter)] {
            let filtering = Filtering { tcp: Some(tcp), udp: Some(udp) };
            let mut home = Home::with(set_252(), NaptParams { filtering, ..NaptParams::default() });
            let me = host(7, 7777);
            let (tcp_port, udp_port) = (home.connect(me, asked).unwrap(), home.udp(me, asked).unwrap());
            for (remote, admitted) in [asked, other_port, stranger].into_iter().zip(admitted) {
                let expected = |of: Filter| if of == filter && !admitted { Err(Refusal::Filtered) } else { Ok(me) };
                assert_eq!(home.back(tcp_port, remote, "S", 5, 0), expected(tcp));
                assert_eq!(home.udp_back(udp_port, remote), expected(udp));
            }
            assert_eq!(home.udp_back(udp_port ^ 1, asked), Err(Refusal::NoMapping));
        }
    }
    let filtering = Filtering { tcp: None, udp: Some(Filter::EndpointIndependent) };
    let sharing = Sharing { threshold: 50, tcp: Vec::new(), udp: vec![3478] };
    let mut home = Home::with(set_252(), NaptParams { filtering, sharing, ..NaptParams::default() });
    let port = home.udp(host(7, 7777), asked).unwrap();
    assert_eq!(home.udp_back(port, asked), Ok(host(7, 7777)));
    assert_eq!(home.udp_back(port, other_port), Err(Refusal::Filtered), "a shared port");
}

/// RFC 7599 §13, RFC 4787 REQ-8: the defaults, with an address that is shared and one that is not.
#[test]
fn default_filters() {
    for (ports, expected) in [(set_252(), Err(Refusal::Filtered)), (PortSet::ALL, Ok(host(7, 7777)))] {
        let mut home = Home::new(ports);
        let port = home.udp(host(7, 7777), server(0, 3478)).unwrap();
        assert_eq!(home.udp_back(port, server(0, 9)), Ok(host(7, 7777)));
        assert_eq!(home.udp_back(port, server(1, 3478)), expected);
        let port = home.connect(host(7, 7777), server(0, 443)).unwrap();
        assert_eq!(home.back(port, server(1, 443), "S", 1, 0), expected);
    }
}

/// An address is admitted for as long as one flow to it lives; what is admitted or filtered keeps nothing alive.
#[test]
fn an_address_is_admitted_while_a_flow_to_it_lives() {
    let mut home = Home::new(set_252());
    let me = host(7, 7777);
    let port = home.udp(me, server(0, 1)).unwrap();
    home.wait(100_000);
    assert_eq!(home.udp(me, server(0, 2)), Ok(port));
    assert_eq!(home.udp(me, server(1, 1)), Ok(port));
    home.wait(200_000);
    assert_eq!(home.udp_back(port, server(0, 3)), Ok(me), "the first flow is gone, the second lives");
    assert_eq!(home.udp_back(port, server(2, 1)), Err(Refusal::Filtered));
    assert_eq!(home.udp(me, server(1, 1)), Ok(port));
    home.wait(100_000);
    assert_eq!(home.udp_back(port, server(0, 3)), Err(Refusal::Filtered));
    assert_eq!(home.udp_back(port, server(1, 3)), Ok(me));
    home.wait(200_000);
    assert_eq!(home.udp_back(port, server(1, 1)), Err(Refusal::NoMapping));
}

/// P44: where no port fits, a connection closed by both ends gives way after a second, the oldest first.
#[test]
fn closed_connections_give_way() {
    let mut home = Home::new(set_15());
    let web = server(0, 443);
    let ports: Vec<u16> = (0..15).map(|n| home.connect(host(5, 4000 + n), web).unwrap()).collect();
    for n in [3, 9] {
        home.close(host(5, 4000 + n), web);
        home.wait(250);
    }
    assert_eq!(home.connect(host(6, 1), web), Err(Refusal::Exhausted), "a quarter of a second after its end");
    home.wait(500);
    assert_eq!(home.connect(host(6, 1), web), Ok(ports[3]), "a second after its end");
    assert_eq!(home.connect(host(6, 2), web), Err(Refusal::Exhausted));
    home.wait(250);
    assert_eq!(home.connect(host(6, 2), web), Ok(ports[9]));
    home.wait(60_000);
    assert_eq!(home.connect(host(6, 3), web), Err(Refusal::Exhausted), "who is established stays");
    assert_eq!(home.napt.gave_way(Protocol::Tcp), 2);
    for n in (0..15).filter(|n| ![3, 9].contains(n)) {
        assert_eq!(home.back(ports[usize::from(n)], web, "A", 9001, 1001), Ok(host(5, 4000 + n)));
    }
}

/// However many have closed before it that leave nothing to this destination: who was alone on its port is found.
#[test]
fn closed_connections_give_way_whoever_closed_before() {
    let mut home = Home::new(set_252());
    let (web, own, elsewhere) =
        (server(0, 443), |n: u16| server(1 + u32::from(n), 80), |n: u16| server(1000 + u32::from(n), 80));
    let ports: Vec<u16> = (0..127).map(|n| home.connect(host(5, 1000 + n), own(n)).unwrap()).collect();
    for n in 0..500u16 {
        home.connect(host(6, 1000 + n), elsewhere(n)).unwrap();
    }
    for n in 0..125 {
        home.connect(host(7, 1000 + n), web).unwrap();
    }
    (0..500u16).for_each(|n| home.close(host(6, 1000 + n), elsewhere(n)));
    home.wait(1000);
    assert_eq!(home.connect(host(8, 1), web), Err(Refusal::Exhausted), "each shared port has one to it");
    for n in [70, 7] {
        home.close(host(5, 1000 + n), own(n));
        home.wait(1000);
    }
    assert_eq!(home.connect(host(8, 1), web), Ok(ports[70]));
    assert_eq!(home.connect(host(8, 2), web), Ok(ports[7]));
    assert_eq!(home.connect(host(8, 3), web), Err(Refusal::Exhausted));
    assert_eq!(home.napt.flows(Protocol::Tcp), 127 + 500 + 125);
}

/// P44: a SYN flood of one host takes the set for ten seconds at most; what others have goes on.
#[test]
fn a_syn_flood() {
    let mut home = Home::new(set_252());
    let web = server(0, 443);
    let download = home.connect(host(5, 4000), web).unwrap();
    for n in 0..5000 {
        let _ = home.out(host(66, 10_000 + n), web, "S", u32::from(n), 0);
    }
    let late = home.out(host(5, 4001), web, "S", 1000, 0);
    assert_eq!(late, Err(Refusal::Exhausted));
    // One of the others' is half-open too, and older: it stays, the flooder has more.
    home.wait(10_000);
    for n in 0..50 {
        let (inside, remote) = (host(5, 5000 + n), web);
        let port = home.connect(inside, remote).unwrap();
        assert_eq!(home.back(port, remote, "A", 9001, 1001), Ok(inside));
    }
    assert_eq!(home.back(download, web, "A", 9001, 1001), Ok(host(5, 4000)));
    assert_eq!(home.out(host(5, 4000), web, "A", 1001, 9001), Ok(download));
    assert_eq!(home.napt.flows(Protocol::Tcp), 252);
}

/// Whenever they began: the clock's ticks are of no one's business.
#[test]
fn half_open_connections_have_their_ten_seconds() {
    for offset in [0, 1, 100, 249] {
        let mut home = Home::new(set_15());
        let web = server(0, 443);
        home.wait(offset);
        let first = home.out(host(5, 1), web, "S", 1, 0).unwrap();
        for n in 1..15 {
            home.out(host(5, 1 + n), web, "S", 1, 0).unwrap();
        }
        for wait in [0, 1, 100, 500, 5_000, 4_398] {
            home.wait(wait);
            assert_eq!(home.out(host(6, 1), web, "S", 1, 0), Err(Refusal::Exhausted), "{offset} and {wait} ms");
        }
        home.wait(251);
        assert_eq!(home.out(host(6, 1), web, "S", 1, 0), Ok(first));
    }
}

/// An expired flow that nobody has swept yet takes the next connection of its ends, which has its own ten seconds.
#[test]
fn a_connection_in_the_place_of_an_expired_one_has_its_ten_seconds() {
    let mut home = Home::new(set_15());
    let web = server(0, 443);
    let ports: Vec<u16> = (0..15).map(|n| home.out(host(5, 1 + n), web, "S", 1, 0).unwrap()).collect();
    home.now += Duration::from_secs(240);
    for n in 0..15 {
        assert_eq!(home.out(host(5, 1 + n), web, "S", 1, 0), Ok(ports[usize::from(n)]));
    }
    home.wait(9_750);
    assert_eq!(home.out(host(6, 1), web, "S", 1, 0), Err(Refusal::Exhausted));
    home.wait(250);
    assert_eq!(home.out(host(6, 1), web, "S", 1, 0), Ok(ports[0]));
}

/// Found by the fuzzer: flows that have expired let nobody in, swept or not, whoever they were with.
#[test]
fn expired_flows_admit_nobody() {
    for filter in [Filter::EndpointIndependent, Filter::AddressDependent] {
        let filtering = Filtering { tcp: Some(filter), udp: None };
        let mut home = Home::with(set_252(), NaptParams { filtering, ..NaptParams::default() });
        let knocker = server(0, 445);
        let port = home.out(host(5, 1), server(0, 443), "S", 1, 0).unwrap();
        assert_eq!(home.out(host(5, 1), server(0, 444), "S", 1, 0), Ok(port));
        home.now += Duration::from_millis(239_999);
        assert_eq!(home.back(port, knocker, "S", 1, 0), Ok(host(5, 1)));
        home.now += Duration::from_millis(1);
        for remote in [knocker, server(0, 443), server(0, 444)] {
            assert_eq!(home.back(port, remote, "S", 1, 0), Err(Refusal::NoMapping), "{filter:?}");
        }
        // One that lives is with another.
        assert_eq!(home.out(host(5, 1), server(1, 443), "S", 1, 0), Ok(port));
        let others = if filter == Filter::AddressDependent { Err(Refusal::Filtered) } else { Ok(host(5, 1)) };
        assert_eq!(home.back(port, knocker, "S", 1, 0), others);
        assert_eq!(home.back(port, server(1, 80), "S", 1, 0), Ok(host(5, 1)));
    }
}

/// Who knocks for hours at a door that nobody opens never looks young again: 2^16 ticks are 16,384 s.
#[test]
fn half_open_connections_give_way_after_hours_too() {
    let mut home = Home::new(set_15());
    let web = server(0, 443);
    let ports: Vec<u16> = (0..15).map(|n| home.out(host(5, 1 + n), web, "S", 1, 0).unwrap()).collect();
    let knock = |home: &mut Home, seconds: u64| {
        while home.now < START + Duration::from_secs(seconds) {
            home.wait(128_000);
            (0..15).for_each(|n| assert_eq!(home.out(host(5, 1 + n), web, "S", 1, 0), Ok(ports[usize::from(n)])));
        }
        for _ in 0..48 {
            home.wait(250);
            let found = home.napt.propose_outbound(Protocol::Tcp, host(6, 1), web, home.now);
            assert_eq!(found.map(|proposal| proposal.outside.port), Ok(ports[0]), "{:?}", home.now);
        }
    };
    knock(&mut home, 16_384);
    knock(&mut home, 100_000);
}

/// What a host asked to keep and keeps no longer (RFC 6887 §12) is as any connection that nobody has answered.
#[test]
fn a_half_open_connection_gives_way_after_its_peer_mapping() {
    let mut home = Home::new(set_15());
    let web = server(0, 443);
    let want = |inside| Want {
        protocol: Protocol::Tcp,
        inside,
        origin: Origin::Pcp([7; 12]),
        lifetime: Duration::from_secs(120),
        suggested: 0,
        prefer_failure: false,
        filters: Vec::new(),
        per_host: 64,
    };
    for n in 0..15 {
        home.napt.peer(&want(host(5, 1 + n)), web, home.now).unwrap();
    }
    home.wait(119_750);
    assert_eq!(home.out(host(6, 1), web, "S", 1, 0), Err(Refusal::Exhausted));
    home.wait(250);
    home.wait(9_750);
    assert_eq!(home.out(host(6, 1), web, "S", 1, 0), Err(Refusal::Exhausted));
    home.wait(250);
    assert!(home.out(host(6, 1), web, "S", 1, 0).is_ok());
}

/// The host with most half-open connections loses one, not the one with the oldest.
#[test]
fn the_host_that_holds_most_gives_way() {
    let mut home = Home::new(set_15());
    let web = server(0, 443);
    let first = home.out(host(5, 1), web, "S", 1, 0).unwrap();
    home.wait(1000);
    let flood: Vec<u16> = (0..14).map(|n| home.out(host(66, 10_000 + n), web, "S", 1, 0).unwrap()).collect();
    home.wait(10_000);
    assert_eq!(home.out(host(7, 1), web, "S", 1, 0), Ok(flood[0]));
    assert_eq!(home.back(first, web, "SA", 1, 2), Ok(host(5, 1)));
}

/// A full table: whoever fills it with UDP that nobody answers gives way; answered flows stay.
#[test]
fn a_scan_that_fills_the_table() {
    let mut home = Home::with(set_252(), NaptParams { max_flows: 1024, ..NaptParams::default() });
    let call = home.udp(host(5, 5060), server(0, 5060)).unwrap();
    assert_eq!(home.udp_back(call, server(0, 5060)), Ok(host(5, 5060)));
    for n in 0..2000 {
        let _ = home.udp(host(66, 6666), server(n, 80));
    }
    assert_eq!(home.napt.flows(Protocol::Udp), 1024);
    assert_eq!(home.udp(host(6, 1), server(0, 53)), Err(Refusal::Exhausted));
    home.wait(10_000);
    for n in 0..100 {
        let port = home.udp(host(6, 1 + n), server(0, 53)).unwrap();
        assert_eq!(home.udp_back(port, server(0, 53)), Ok(host(6, 1 + n)));
    }
    assert_eq!(home.udp_back(call, server(0, 5060)), Ok(host(5, 5060)));
    assert_eq!(home.napt.flows(Protocol::Udp), 1024);
}

/// Idle time left of the only flow, in seconds.
fn left(home: &Home) -> u64 {
    (home.napt.poll_timeout().unwrap() - home.now).as_secs()
}

/// NAT-19, RFC 7857 §2.2: a reset from outside ends a connection only with a number that the home may expect.
#[test]
fn a_forged_reset_changes_nothing() {
    let (me, web) = (host(7, 7777), server(0, 443));
    // After the handshake the home expects 9001. An unscaled window of 65,535 begins there.
    for (seq, counts) in
        [(9001, true), (9001 + 65_535, true), (9000, false), (9002 + 65_535, false), (1 << 31, false), (0, false)]
    {
        let mut home = Home::new(set_252());
        let port = home.connect(me, web).unwrap();
        home.wait(100_000);
        assert_eq!(home.back(port, web, "R", seq, 0), Ok(me), "it is translated in any case");
        assert_eq!(left(&home), if counts { 240 } else { 7340 }, "{seq}");
        // Traffic that follows shows that it was forged after all.
        assert_eq!(home.out(me, web, "A", 1001, 9001), Ok(port));
        assert_eq!(left(&home), 7440);
    }
}

/// The numbers move with the connection, over the end of their range, whoever loses segments.
#[test]
fn the_window_moves() {
    let (me, web) = (host(7, 7777), server(0, 443));
    let mut home = Home::new(set_252());
    let port = home.out(me, web, "S", 1000, 0).unwrap();
    let isn = u32::MAX - 70_000;
    assert_eq!(home.back(port, web, "SA", isn, 1001), Ok(me));
    home.out(me, web, "A", 1001, isn.wrapping_add(1)).unwrap();
    // 200,000 octets arrive, of which the home has acknowledged 150,000 (65,000 of them were not seen here).
    let outside = Outside { addr: ADDR, port };
    for n in 0..10u32 {
        let seq = isn.wrapping_add(1 + n * 20_000);
        let proposal = home.napt.propose_inbound(Protocol::Tcp, outside, web, home.now).unwrap();
        let segment = Segment { flags: flags("A"), seq, ack: 1001, len: if n % 3 == 2 { 0 } else { 20_000 } };
        home.napt.commit_inbound(proposal, Some(&segment), home.now);
    }
    home.out(me, web, "A", 1001, isn.wrapping_add(150_001)).unwrap();
    home.wait(1000);
    for (seq, counts) in [(149_000, false), (300_000, false), (205_000, true)] {
        home.back(port, web, "R", isn.wrapping_add(1 + seq), 0).unwrap();
        assert_eq!(left(&home) == 240, counts, "{seq}");
    }
}

/// A refusal acknowledges the SYN; forged ones do not know its number.
#[test]
fn a_refusal_is_known_by_the_syn_that_it_acknowledges() {
    let (me, web) = (host(7, 7777), server(0, 443));
    let mut home = Home::new(set_15());
    let port = home.out(me, web, "S", 1000, 0).unwrap();
    home.wait(100_000);
    for (letters, ack) in [("R", 1001), ("RA", 1000), ("RA", 1002), ("RA", 0)] {
        assert_eq!(home.back(port, web, letters, 0, ack), Ok(me));
        assert_eq!(left(&home), 140, "{letters} {ack}");
    }
    assert_eq!(home.back(port, web, "RA", 0, 1001), Ok(me));
    assert_eq!(left(&home), 240);
}

/// Data with a forged number does not prepare the way for a forged reset.
#[test]
fn forged_data_moves_no_window() {
    let (me, web) = (host(7, 7777), server(0, 443));
    let mut home = Home::new(set_252());
    let port = home.connect(me, web).unwrap();
    home.back(port, web, "A", 1 << 30, 1001).unwrap();
    home.wait(1000);
    home.back(port, web, "R", 1 << 30, 0).unwrap();
    assert_eq!(left(&home), 7439);
}

/// A reset of the home counts likewise.
#[test]
fn a_reset_of_the_home() {
    let (me, web) = (host(7, 7777), server(0, 443));
    for (seq, left_after) in [(1001, 240), (5_000_000, 7340)] {
        let mut home = Home::new(set_252());
        let port = home.connect(me, web).unwrap();
        home.wait(100_000);
        assert_eq!(home.out(me, web, "R", seq, 0), Ok(port));
        assert_eq!(left(&home), left_after);
    }
}
