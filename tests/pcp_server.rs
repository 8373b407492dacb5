//! The PCP and NAT-PMP server: requests by hand from the figures of RFC 6887 and RFC 6886, answers octet by octet.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    Filter, Filtering, Forward, Inside, Mapping, Napt, NaptParams, Origin, Outside, Protocol, Refusal, Remote, Segment,
    TcpFlags,
};
use mapt::pcp::{Pcp, PcpParams};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const START: Duration = Duration::from_secs(1000);
const NONCE: [u8; 12] = *b"twelve octet";
const ANOTHER: [u8; 12] = *b"another once";
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The 15 ports 0x1034, 0x2034, ... 0xf034.
fn set_15() -> PortSet {
    PortParams::new(4, 12).unwrap().port_set(Psid(0x034)).unwrap()
}

/// `::ffff:a.b.c.d` (RFC 6887 §5).
fn mapped(addr: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = addr.octets();
    vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// RFC 6887 figure 2: version, R and opcode, reserved, lifetime, client's address.
fn head(opcode: u8, lifetime: u32, client: Ipv4Addr) -> Vec<u8> {
    [&[2, opcode, 0, 0][..], &lifetime.to_be_bytes(), &mapped(client)].concat()
}

/// Figure 9.
fn map(nonce: [u8; 12], protocol: u8, inside: u16, suggested: (u16, Ipv4Addr), lifetime: u32) -> Vec<u8> {
    let ports = [inside.to_be_bytes(), suggested.0.to_be_bytes()].concat();
    [&head(1, lifetime, HOST)[..], &nonce, &[protocol, 0, 0, 0], &ports, &mapped(suggested.1)].concat()
}

/// A mapping of any port.
fn plain(protocol: u8, inside: u16, lifetime: u32) -> Vec<u8> {
    map(NONCE, protocol, inside, (0, Ipv4Addr::UNSPECIFIED), lifetime)
}

/// Figure 11.
fn peer(nonce: [u8; 12], protocol: u8, inside: u16, suggested: (u16, Ipv4Addr), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut request = map(nonce, protocol, inside, suggested, 600);
    request[1] = 2;
    [&request[..], &to.1.to_be_bytes(), &[0, 0], &mapped(to.0)].concat()
}

/// Figure 4.
fn option(code: u8, data: &[u8]) -> Vec<u8> {
    let mut option = [&[code, 0][..], &(data.len() as u16).to_be_bytes(), data].concat();
    option.resize(option.len().next_multiple_of(4), 0);
    option
}

/// Figure 15.
fn filter(prefix_len: u8, port: u16, addr: Ipv4Addr) -> Vec<u8> {
    option(3, &[&[0, prefix_len][..], &port.to_be_bytes(), &mapped(addr)].concat())
}

fn prefer_failure() -> Vec<u8> {
    option(2, &[])
}

struct Server {
    pcp: Pcp,
    napt: Napt<Inside>,
    now: Duration,
}

impl Server {
    fn with(change: impl FnOnce(&mut NaptParams, &mut PcpParams)) -> Server {
        let (mut napt, mut pcp) = (NaptParams::default(), PcpParams::default());
        change(&mut napt, &mut pcp);
        Server { pcp: Pcp::new(pcp, START), napt: Napt::new(ADDR, set_15(), &napt, 5), now: START }
    }

    fn new() -> Server {
        Server::with(|_, _| ())
    }

    fn ask(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        self.pcp.answer(Some(&mut self.napt), HOST, request, self.now)
    }

    /// The outside port and lifetime of a MAP or PEER that must succeed; everything else is as it was asked.
    fn granted(&mut self, request: &[u8]) -> (u16, u32) {
        let epoch = (self.now - START).as_secs() as u32;
        let answer = self.ask(request).unwrap();
        assert_eq!(answer[..4], [2, 0x80 | request[1], 0, 0], "{answer:?}");
        assert_eq!(answer[8..12], epoch.to_be_bytes());
        assert_eq!(answer[12..24], [0; 12]);
        assert_eq!(answer[24..42], request[24..42]);
        assert_eq!(answer[44..60], mapped(ADDR));
        assert_eq!(answer[60..], request[60..]);
        (u16::from_be_bytes([answer[42], answer[43]]), u32::from_be_bytes(answer[4..8].try_into().unwrap()))
    }

    /// The result code of a request that must fail; RFC 6887 §8.2: the request comes back with another head.
    fn refused(&mut self, request: &[u8]) -> (u8, u32) {
        let answer = self.ask(request).unwrap();
        assert_eq!(answer[..3], [2, 0x80 | request[1], 0]);
        let mut whole = request[..request.len().min(1100)].to_vec();
        whole.resize(whole.len().next_multiple_of(4).max(24), 0);
        assert_eq!(answer.len(), whole.len());
        assert_eq!(answer[24..], whole[24..]);
        let reserved =
            if (1..=6).contains(&answer[3]) && answer[3] != 2 { whole[12..24].to_vec() } else { vec![0; 12] };
        assert_eq!(answer[12..24], reserved, "RFC 6887 §7.2");
        (answer[3], u32::from_be_bytes(answer[4..8].try_into().unwrap()))
    }

    fn inbound(&self, protocol: Protocol, port: u16, from: Remote) -> Result<Inside, Refusal> {
        self.napt.propose_inbound(protocol, Outside { addr: ADDR, port }, from, self.now).map(|p| p.inside)
    }

    fn outbound(&mut self, protocol: Protocol, inside: Inside, to: Remote) -> Option<u16> {
        let proposal = self.napt.propose_outbound(protocol, inside, to, self.now).ok()?;
        self.napt.commit_outbound(proposal, None, self.now);
        Some(proposal.outside.port)
    }

    /// A TCP segment out, with these of SYN, ACK and RST.
    fn send(&mut self, inside: Inside, to: Remote, letters: &str) -> Result<u16, Refusal> {
        let proposal = self.napt.propose_outbound(Protocol::Tcp, inside, to, self.now)?;
        self.napt.commit_outbound(proposal, Some(&segment(letters)), self.now);
        Ok(proposal.outside.port)
    }

    /// A whole handshake.
    fn connect(&mut self, inside: Inside, to: Remote) -> Result<u16, Refusal> {
        let port = self.send(inside, to, "S")?;
        let back = self.napt.propose_inbound(Protocol::Tcp, Outside { addr: ADDR, port }, to, self.now)?;
        self.napt.commit_inbound(back, Some(&segment("SA")), self.now);
        self.send(inside, to, "A")
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        while self.napt.poll_timeout().is_some_and(|at| at <= self.now) {
            self.napt.handle_timeout(self.now);
        }
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.napt.explicit(self.now).collect()
    }
}

fn segment(letters: &str) -> Segment {
    let has = |letter| letters.contains(letter);
    let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: false, rst: has('R') };
    Segment { flags, seq: 1, ack: u32::from(has('A')) * 2, len: 0 }
}

fn inside(port: u16) -> Inside {
    Inside { addr: HOST, port }
}

fn remote(n: u8, port: u16) -> Remote {
    Remote { addr: Ipv4Addr::new(10, 0, 0, n), port }
}

const ANY: (u16, Ipv4Addr) = (0, Ipv4Addr::UNSPECIFIED);
const DENIED_LONG: u32 = 1800;
const DENIED_SHORT: u32 = 30;

/// RFC 6887 §11.3: a port of the set, open to anybody, for the lifetime, and no longer.
#[test]
fn a_mapping_lives_for_its_time() {
    let mut server = Server::new();
    let (port, lifetime) = server.granted(&plain(TCP, 8080, 600));
    assert_eq!((port & 0xfff, lifetime), (0x034, 600));
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Ok(inside(8080)));
    assert_eq!(server.inbound(Protocol::Udp, port, remote(1, 9)), Err(Refusal::NoMapping));
    assert_eq!(server.outbound(Protocol::Tcp, inside(8080), remote(2, 9)), Some(port));
    let expected = Mapping {
        protocol: Protocol::Tcp,
        inside: inside(8080),
        port,
        remote: None,
        origin: Origin::Pcp(NONCE),
        remaining: Some(Duration::from_secs(600)),
    };
    assert_eq!(server.mappings(), [expected]);
    server.wait(599);
    assert_eq!(server.mappings()[0].remaining, Some(Duration::from_secs(1)));
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Ok(inside(8080)));
    server.wait(1);
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Err(Refusal::NoMapping));
    assert_eq!((server.mappings(), server.napt.ports_in_use(Protocol::Tcp)), (vec![], 0));
}

/// RFC 6887 §11.2.1, §11.3: a renewal has the same port, whatever is suggested; the flows go on when all is over.
#[test]
fn a_mapping_is_renewed() {
    let mut server = Server::new();
    let (port, _) = server.granted(&plain(UDP, 5000, 600));
    server.wait(500);
    let other = if port == 0x3034 { 0x4034 } else { 0x3034 };
    assert_eq!(server.granted(&map(NONCE, UDP, 5000, (other, ADDR), 700)), (port, 700));
    server.wait(600);
    assert_eq!(server.outbound(Protocol::Udp, inside(5000), remote(1, 7)), Some(port));
    server.wait(101);
    assert_eq!(server.inbound(Protocol::Udp, port, remote(2, 7)), Err(Refusal::Filtered), "an ordinary mapping now");
    assert_eq!(server.inbound(Protocol::Udp, port, remote(1, 7)), Ok(inside(5000)));
    server.wait(300);
    assert_eq!(server.napt.ports_in_use(Protocol::Udp), 0);
}

/// RFC 6887 §15: lifetimes are 120 s to a day unless set otherwise.
#[test]
fn lifetimes_are_clamped() {
    let mut server = Server::new();
    for (asked, expected) in [(1, 120), (119, 120), (121, 121), (86_400, 86_400), (86_401, 86_400), (u32::MAX, 86_400)]
    {
        assert_eq!(server.granted(&plain(TCP, 8080, asked)).1, expected);
    }
    let mut server = Server::with(|_, pcp| {
        (pcp.min_lifetime, pcp.max_lifetime) = (Duration::from_secs(5), Duration::from_secs(10));
    });
    assert_eq!(server.granted(&plain(TCP, 8080, 1)).1, 5);
    assert_eq!(server.granted(&plain(TCP, 8080, 3600)).1, 10);
}

/// RFC 6887 §11.3, §13.2: a suggestion is a wish; with PREFER_FAILURE it is a condition.
#[test]
fn suggested_ports() {
    let mut server = Server::new();
    assert_eq!(server.granted(&map(NONCE, TCP, 80, (0x3034, Ipv4Addr::UNSPECIFIED), 600)), (0x3034, 600));
    let taken = server.granted(&map(NONCE, TCP, 81, (0x3034, ADDR), 600)).0;
    assert!(taken != 0x3034 && taken & 0xfff == 0x034);
    assert_ne!(server.granted(&map(NONCE, TCP, 82, (8080, PEER), 600)).0, 8080, "neither port nor address are ours");
    let insist = |request: Vec<u8>| [request, prefer_failure()].concat();
    for (port, suggested) in [(83, (0x3034, ADDR)), (84, (8080, ADDR)), (85, (0x5034, PEER)), (86, (0, PEER))] {
        assert_eq!(server.refused(&insist(map(NONCE, TCP, port, suggested, 600))), (11, DENIED_SHORT), "{suggested:?}");
    }
    let used: Vec<u16> = server.mappings().iter().map(|m| m.port).collect();
    let free = (1..16).map(|n| n << 12 | 0x034).find(|port| !used.contains(port)).unwrap();
    assert_eq!(server.granted(&insist(map(NONCE, TCP, 87, (free, Ipv4Addr::UNSPECIFIED), 600))).0, free);
    assert_eq!(server.granted(&insist(map(NONCE, TCP, 87, (free, ADDR), 600))).0, free, "a renewal");
    assert_eq!(server.refused(&insist(map(NONCE, TCP, 87, (0x3034, ADDR), 600))).0, 11, "the port stays");
    assert_eq!(server.granted(&insist(map(NONCE, TCP, 88, (0, ADDR), 600))).0 & 0xfff, 0x034, "the address alone");
    assert_eq!(server.refused(&insist(plain(TCP, 89, 600))), (6, DENIED_LONG), "nothing suggested");
}

/// RFC 6887 §11.3: what a host has already becomes explicit with the port that it has.
#[test]
fn a_flow_becomes_a_mapping() {
    let mut server = Server::with(|napt, _| {
        let filter = Some(Filter::AddressDependent);
        napt.filtering = Filtering { tcp: filter, udp: filter };
    });
    let port = server.outbound(Protocol::Udp, inside(5000), remote(1, 7)).unwrap();
    assert_eq!(server.inbound(Protocol::Udp, port, remote(2, 7)), Err(Refusal::Filtered));
    let other = if port == 0x3034 { 0x4034 } else { 0x3034 };
    let insist = [map(NONCE, UDP, 5000, (other, ADDR), 600), prefer_failure()].concat();
    assert_eq!(server.refused(&insist).0, 11);
    assert_eq!(server.granted(&map(NONCE, UDP, 5000, (other, ADDR), 900)), (port, 900));
    assert_eq!(server.inbound(Protocol::Udp, port, remote(2, 7)), Ok(inside(5000)));
    assert_eq!((server.napt.flows(Protocol::Udp), server.napt.ports_in_use(Protocol::Udp)), (1, 1));
    server.wait(400);
    assert_eq!((server.napt.flows(Protocol::Udp), server.napt.ports_in_use(Protocol::Udp)), (0, 1));
}

/// RFC 6887 §18.1 (simple threat model), §11.3: who does not know the nonce changes nothing.
#[test]
fn nonces_are_checked() {
    let mut server = Server::new();
    let (port, _) = server.granted(&plain(TCP, 8080, 600));
    for lifetime in [0, 1200] {
        assert_eq!(server.refused(&map(ANOTHER, TCP, 8080, ANY, lifetime)), (2, DENIED_LONG));
    }
    assert_eq!(server.mappings()[0].remaining, Some(Duration::from_secs(600)));
    // Another protocol or port is another mapping.
    server.granted(&map(ANOTHER, UDP, 8080, ANY, 600));
    server.granted(&map(ANOTHER, TCP, 8081, ANY, 600));
    server.granted(&peer(NONCE, TCP, 9000, ANY, (PEER, 443)));
    assert_eq!(server.refused(&peer(ANOTHER, TCP, 9000, ANY, (PEER, 443))), (2, DENIED_LONG));
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Ok(inside(8080)));
}

/// RFC 6887 §15.1: a lifetime of 0 deletes, also what is not there; ports and protocols of 0 mean all.
#[test]
fn mappings_are_deleted() {
    let mut server = Server::new();
    let deleted = |server: &mut Server, request: Vec<u8>| {
        let answer = server.ask(&request).unwrap();
        assert_eq!((answer[3], &answer[4..8]), (0, &[0u8; 4][..]));
        assert_eq!(answer[24..], request[24..], "what is suggested comes back");
    };
    let (port, _) = server.granted(&plain(TCP, 8080, 600));
    deleted(&mut server, plain(TCP, 8080, 0));
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Err(Refusal::NoMapping));
    deleted(&mut server, plain(TCP, 8080, 0));
    for inside in 1..4 {
        server.granted(&plain(TCP, inside, 600));
        server.granted(&plain(UDP, inside, 600));
    }
    server.granted(&map(ANOTHER, TCP, 9, ANY, 600));
    deleted(&mut server, plain(TCP, 0, 0));
    let left = |server: &Server| server.mappings().iter().map(|m| (m.protocol, m.inside.port)).collect::<Vec<_>>();
    let of_udp = server.mappings().iter().filter(|m| m.protocol == Protocol::Udp).count();
    assert_eq!((of_udp, left(&server).len()), (3, 4), "{:?}", left(&server));
    deleted(&mut server, plain(0, 0, 0));
    assert_eq!(left(&server), [(Protocol::Tcp, 9)], "somebody else's nonce");
    assert_eq!(server.napt.ports_in_use(Protocol::Udp), 0);
}

/// What the configuration says is nobody's to change (RFC 6887 §15.1); asked for, it is told.
#[test]
fn forwards_and_requests() {
    let forward = Forward { protocol: Protocol::Tcp, port: 0x3034, inside: inside(80) };
    let mut server = Server::with(|napt, _| napt.forwards = vec![forward]);
    assert_eq!(server.granted(&plain(TCP, 80, 600)), (0x3034, 600));
    assert_eq!(server.refused(&plain(TCP, 80, 0)), (2, DENIED_LONG));
    assert_eq!(server.ask(&pmp(2, 80, 0, 0)), Some(vec![0, 130, 0, 2, 0, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0]));
    server.wait(1000);
    assert_eq!(server.mappings()[0].origin, Origin::Static);
    // A forward that comes takes the port and the endpoint.
    let (port, _) = server.granted(&plain(TCP, 81, 600));
    server.granted(&plain(TCP, 82, 600));
    let new = |port, inside| Forward { protocol: Protocol::Tcp, port, inside };
    let other = Inside { addr: OTHER, port: 1 };
    let changed = server.napt.set_forwards(&[forward, new(port, other), new(0xf034, inside(82))], server.now);
    assert_eq!((changed.added, changed.removed, server.mappings().len()), (2, 0, 3));
    assert!(server.mappings().iter().all(|m| m.origin == Origin::Static));
    assert_eq!(server.napt.losses(), 2);
}

/// RFC 6887 §13.3: with filters only those may send; they add up; a prefix length of 0 removes them.
#[test]
fn filters() {
    let mut server = Server::with(|napt, _| napt.filtering.tcp = Some(Filter::EndpointIndependent));
    let (port, _) = server.granted(&[plain(TCP, 80, 600), filter(24, 0, Ipv4Addr::new(10, 0, 0, 0))].concat());
    let passes = |server: &Server, from: Remote| match server.inbound(Protocol::Tcp, port, from) {
        Ok(_) => true,
        Err(refusal) => {
            assert_eq!(refusal, Refusal::Filtered);
            false
        }
    };
    let stranger = Remote { addr: PEER, port: 443 };
    assert_eq!([remote(1, 9), remote(255, 1), stranger].map(|from| passes(&server, from)), [true, true, false]);
    // As IPv4-mapped: 96 bits more.
    server.granted(&[plain(TCP, 80, 600), filter(128, 443, PEER)].concat());
    assert_eq!([remote(1, 9), stranger].map(|from| passes(&server, from)), [true, true]);
    assert!(!passes(&server, Remote { port: 444, ..stranger }));
    server.granted(&plain(TCP, 80, 600));
    assert!(!passes(&server, Remote { port: 444, ..stranger }), "a renewal without the option leaves them");
    server.granted(&[plain(TCP, 80, 600), filter(0, 0, PEER)].concat());
    assert!(passes(&server, Remote { port: 444, ..stranger }));
    // A flow of its own gets its answers in any case.
    server.granted(&[plain(TCP, 80, 600), filter(0, 0, PEER), filter(32, 0, PEER)].concat());
    assert!(!passes(&server, remote(7, 7)));
    server.outbound(Protocol::Tcp, inside(80), remote(7, 7)).unwrap();
    assert!(passes(&server, remote(7, 7)) && !passes(&server, remote(7, 8)));
    let five: Vec<u8> = (1..=5).flat_map(|n| filter(32, n, PEER)).collect();
    assert_eq!(server.refused(&[plain(TCP, 81, 600), five].concat()), (13, DENIED_LONG), "more than four");
    assert_eq!(server.mappings().len(), 1);
    for wrong in [filter(33, 0, PEER), filter(95, 0, PEER), filter(129, 0, PEER), option(3, &[0; 16]), {
        option(3, &[&[0, 64, 0, 0][..], &[0x20, 1, 0xd, 0xb8], &[0; 12]].concat())
    }] {
        assert_eq!(server.refused(&[plain(TCP, 81, 600), wrong].concat()), (6, DENIED_LONG));
    }
}

/// RFC 6887 §12.3: a flow towards one endpoint, kept for its time; the port is the endpoint's.
#[test]
fn peers() {
    let mut server = Server::new();
    let server_at = Remote { addr: PEER, port: 443 };
    let (port, lifetime) = server.granted(&peer(NONCE, TCP, 9000, ANY, (PEER, 443)));
    assert_eq!((port & 0xfff, lifetime), (0x034, 600));
    assert_eq!(server.inbound(Protocol::Tcp, port, server_at), Ok(inside(9000)));
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Err(Refusal::Filtered));
    assert_eq!(server.outbound(Protocol::Tcp, inside(9000), remote(1, 9)), Some(port), "endpoint-independent");
    assert_eq!(server.mappings()[0].remote, Some(server_at));
    // Longer than an idle time; and never shorter than it was.
    server.wait(590);
    let mut shorter = peer(NONCE, TCP, 9000, ANY, (PEER, 443));
    shorter[4..8].copy_from_slice(&0u32.to_be_bytes());
    assert_eq!(server.granted(&shorter), (port, 120));
    assert_eq!(server.granted(&peer(NONCE, TCP, 9000, (port, ADDR), (PEER, 443))), (port, 600));
    assert_eq!(server.granted(&shorter), (port, 600));
    let other = if port == 0x3034 { 0x4034 } else { 0x3034 };
    for suggested in [(other, ADDR), (8080, ADDR), (port, PEER)] {
        assert_eq!(server.refused(&peer(NONCE, TCP, 9000, suggested, (PEER, 443))), (11, DENIED_SHORT));
    }
    server.wait(599);
    assert_eq!(server.inbound(Protocol::Tcp, port, server_at), Ok(inside(9000)));
    server.wait(1);
    assert_eq!(server.inbound(Protocol::Tcp, port, server_at), Err(Refusal::NoMapping), "idle for long");
    assert_eq!((server.napt.flows(Protocol::Tcp), server.napt.ports_in_use(Protocol::Tcp)), (0, 0));
    // RFC 6887 §10.4: a connection that was lost comes back to where it was.
    assert_eq!(server.granted(&peer(NONCE, TCP, 9001, (0x7034, ADDR), (PEER, 443))).0, 0x7034);
    assert_eq!(server.refused(&peer(NONCE, TCP, 9002, (0x7034, ADDR), (PEER, 444))).0, 11, "somebody's own");
}

/// A flow that is there is kept; used, it goes on when the PEER mapping is over.
#[test]
fn a_flow_is_kept_for_longer() {
    let mut server = Server::new();
    let to = Remote { addr: PEER, port: 3478 };
    let port = server.outbound(Protocol::Udp, inside(5000), to).unwrap();
    server.wait(200);
    assert_eq!(server.granted(&peer(NONCE, UDP, 5000, ANY, (PEER, 3478))), (port, 600));
    server.wait(500);
    assert_eq!(server.outbound(Protocol::Udp, inside(5000), to), Some(port));
    assert_eq!(server.napt.poll_timeout(), Some(server.now + Duration::from_secs(100)));
    server.wait(101);
    assert!(server.mappings().is_empty());
    assert_eq!(server.inbound(Protocol::Udp, port, to), Ok(inside(5000)));
    server.wait(300);
    assert_eq!(server.napt.flows(Protocol::Udp), 0);
}

/// Where ports are shared a PEER takes a place on one; nobody's flow ends for it, and its flow ends for nobody.
#[test]
fn peers_when_ports_are_few() {
    let mut server = Server::new();
    for n in 0..60u16 {
        server.outbound(Protocol::Tcp, Inside { addr: OTHER, port: 2000 + n }, remote((n % 20) as u8, 443)).unwrap();
    }
    assert_eq!(server.napt.ports_in_use(Protocol::Tcp), 15);
    let (port, _) = server.granted(&peer(NONCE, TCP, 9000, ANY, (PEER, 443)));
    assert_eq!(server.inbound(Protocol::Tcp, port, Remote { addr: PEER, port: 443 }), Ok(inside(9000)));
    assert_eq!(server.refused(&plain(TCP, 8080, 600)), (8, DENIED_SHORT), "no port is free");
    // Everybody waits for an answer, the PEER as well; those who come want the same server.
    server.wait(11);
    for n in 0..60u16 {
        let _ =
            server.outbound(Protocol::Tcp, Inside { addr: OTHER, port: 3000 + n }, Remote { addr: PEER, port: 443 });
        server.wait(1);
    }
    assert_eq!(server.inbound(Protocol::Tcp, port, Remote { addr: PEER, port: 443 }), Ok(inside(9000)));
}

/// A PEER's flow gives way to nobody: not when it waits for an answer, not when it is closed. Nor does the one flow of a
/// mapping give its port away.
#[test]
fn what_is_kept_gives_way_to_nobody() {
    for last in ["S", "R"] {
        let mut server = Server::new();
        let web = Remote { addr: PEER, port: 443 };
        let (mapped, _) = server.granted(&plain(TCP, 8080, 3600));
        assert_eq!(server.send(inside(8080), web, last), Ok(mapped));
        // Others leave no port on which there is no flow with this server.
        let mut n = 0;
        while server.napt.ports_in_use(Protocol::Tcp) < 9 {
            n += 1;
            server.connect(Inside { addr: OTHER, port: 2000 + n }, web).unwrap();
        }
        let (kept, _) = server.granted(&peer(NONCE, TCP, 9000, ANY, (PEER, 443)));
        assert!(server.napt.shared_ports(Protocol::Tcp) > 0);
        assert_eq!(server.send(inside(9000), web, last), Ok(kept));
        while server.connect(Inside { addr: OTHER, port: 3000 + n }, web).is_ok() {
            n += 1;
        }
        server.wait(20);
        let flows = server.napt.flows(Protocol::Tcp);
        assert_eq!(server.send(Inside { addr: OTHER, port: 4000 }, web, "S"), Err(Refusal::Exhausted), "{last}");
        assert_eq!(server.napt.flows(Protocol::Tcp), flows);
        assert_eq!(server.inbound(Protocol::Tcp, kept, web), Ok(inside(9000)));
        assert_eq!(server.inbound(Protocol::Tcp, mapped, web), Ok(inside(8080)));
    }
}

/// One host has so many, and all hosts half of the ports.
#[test]
fn quotas() {
    let mut server = Server::with(|_, pcp| pcp.per_host = 3);
    server.granted(&plain(TCP, 1, 600));
    server.granted(&plain(UDP, 1, 600));
    server.granted(&peer(NONCE, TCP, 2, ANY, (PEER, 443)));
    assert_eq!(server.refused(&plain(TCP, 3, 600)), (10, DENIED_SHORT));
    assert_eq!(server.refused(&peer(NONCE, TCP, 2, ANY, (PEER, 444))), (10, DENIED_SHORT));
    assert_eq!(server.ask(&pmp(1, 3, 0, 600)).unwrap()[3], 4);
    server.granted(&plain(TCP, 1, 900));
    assert_eq!(server.ask(&plain(UDP, 1, 0)).unwrap()[3], 0);
    server.granted(&plain(TCP, 3, 600));
    let mut server = Server::new();
    let granted = (1..=15).filter(|port| server.ask(&plain(TCP, *port, 600)).unwrap()[3] == 0).count();
    assert_eq!(granted, 7);
    assert_eq!(server.refused(&plain(TCP, 15, 600)), (8, DENIED_SHORT));
    assert_eq!(server.granted(&plain(UDP, 15, 600)).1, 600, "each protocol by itself");
}

/// RFC 6887 §8.2, §9, §7.4: what is no request that we understand.
#[test]
fn what_is_wrong() {
    let mut server = Server::new();
    for silent in [&[][..], &[2], &[2, 0x81], &[0, 128], &[0, 1, 0, 0, 0, 80]] {
        assert_eq!(server.ask(silent), None, "{silent:?}");
    }
    assert_eq!(server.ask(&[1, 1]).unwrap().len(), 24);
    for version in [1, 3, 255] {
        let mut request = plain(TCP, 80, 600);
        request[0] = version;
        assert_eq!(server.refused(&request), (1, DENIED_LONG));
    }
    let short = plain(TCP, 80, 600);
    for len in [2, 3, 4, 20, 23, 24, 25, 56, 57, 59] {
        assert_eq!(server.refused(&short[..len]), (3, DENIED_LONG), "{len} octets");
    }
    assert_eq!(server.refused(&peer(NONCE, TCP, 80, ANY, (PEER, 443))[..76]), (3, DENIED_LONG));
    // 1100 octets are the most (§7); options that nobody knows fill them.
    let filled = |len: usize| [&short[..], &option(200, &vec![7; len - 64])].concat();
    assert_eq!(server.ask(&filled(1100)).unwrap()[3], 0);
    assert_eq!(server.refused(&filled(1104)), (3, DENIED_LONG));
    for opcode in [3, 63, 96, 127] {
        let mut request = plain(TCP, 80, 600);
        request[1] = opcode;
        assert_eq!(server.refused(&request), (4, DENIED_LONG));
    }
    let mut elsewhere = plain(TCP, 80, 600);
    elsewhere[8..24].copy_from_slice(&mapped(OTHER));
    assert_eq!(server.refused(&elsewhere), (12, DENIED_LONG));
    elsewhere[8..24].copy_from_slice(&[&[0; 12][..], &HOST.octets()].concat());
    assert_eq!(server.refused(&elsewhere), (12, DENIED_LONG), "not IPv4-mapped (§5)");
    for (protocol, port, code) in [(132, 80, 9), (0, 0, 9), (0, 80, 3), (TCP, 0, 9), (1, 7, 9)] {
        assert_eq!(server.refused(&plain(protocol, port, 600)), (code, DENIED_LONG), "{protocol} {port}");
    }
    for (protocol, inside, to, code) in
        [(0, 80, (PEER, 443), 3), (TCP, 0, (PEER, 443), 3), (TCP, 80, (PEER, 0), 3), (33, 80, (PEER, 443), 9)]
    {
        assert_eq!(server.refused(&peer(NONCE, protocol, inside, ANY, to)), (code, DENIED_LONG));
    }
    for nobody in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST] {
        assert_eq!(server.refused(&peer(NONCE, TCP, 80, ANY, (nobody, 443))), (3, DENIED_LONG));
    }
    assert_eq!(server.mappings().len(), 1, "port 80 of the filled request");
}

/// RFC 6887 §7.3, §13.1, §13.2: mandatory options, optional ones, and options in the wrong place.
#[test]
fn options() {
    let mut server = Server::new();
    let with = |options: &[Vec<u8>]| [plain(TCP, 80, 600), options.concat()].concat();
    let third = |addr| option(1, &mapped(addr));
    let (three, zero) = (option(200, &[1, 2, 3]), option(255, &[]));
    assert_eq!(server.refused(&with(&[option(4, &[])])), (5, DENIED_LONG));
    assert_eq!(server.refused(&with(&[option(127, &[1; 4])])), (5, DENIED_LONG));
    assert_eq!(server.refused(&with(&[third(OTHER)])), (5, DENIED_LONG), "nobody speaks for others (§13.1)");
    assert_eq!(server.refused(&with(&[third(HOST)])), (3, DENIED_LONG));
    assert_eq!(server.refused(&with(&[third(OTHER), third(OTHER)])), (6, DENIED_LONG));
    assert_eq!(server.refused(&with(&[option(1, &[0; 12])])), (6, DENIED_LONG));
    assert_eq!(server.refused(&with(&[option(2, &[0; 4])])), (6, DENIED_LONG));
    assert_eq!(server.refused(&with(&[prefer_failure(), prefer_failure()])), (6, DENIED_LONG));
    assert_eq!(server.refused(&with(&[vec![200, 0, 0, 5, 0, 0, 0, 0]])), (6, DENIED_LONG), "longer than the message");
    // The first that is wrong is the answer.
    assert_eq!(server.refused(&with(&[zero.clone(), option(4, &[]), option(2, &[0; 4])])), (5, DENIED_LONG));
    assert_eq!(server.mappings(), []);
    // What is optional and unknown is passed over, and not in the answer; what was done is.
    let answer = server.ask(&with(&[three, filter(32, 0, PEER), zero])).unwrap();
    assert_eq!((answer[3], &answer[60..]), (0, &filter(32, 0, PEER)[..]));
    for option in [prefer_failure(), filter(32, 0, PEER)] {
        let request = [peer(NONCE, TCP, 81, ANY, (PEER, 443)), option].concat();
        assert_eq!(server.refused(&request), (3, DENIED_LONG), "§12.2");
    }
}

/// RFC 6887 §14.1: a solicited ANNOUNCE tells the epoch.
#[test]
fn announce() {
    let mut server = Server::new();
    server.wait(77);
    let answer = server.ask(&head(0, 0, HOST)).unwrap();
    let expected = [&[2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 77][..], &[0; 12]].concat();
    assert_eq!(answer, expected);
    assert_eq!(server.refused(&head(0, 0, OTHER)), (12, DENIED_LONG));
}

/// Nobody but a host of the home is answered, and without an outside address there is nothing to map.
#[test]
fn who_is_answered() {
    let mut server = Server::new();
    for from in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST, ADDR] {
        let mut request = plain(TCP, 80, 600);
        request[8..24].copy_from_slice(&mapped(from));
        assert_eq!(server.pcp.answer(Some(&mut server.napt), from, &request, START), None, "{from}");
        assert_eq!(server.pcp.answer(Some(&mut server.napt), from, &[0, 0], START), None, "{from}");
    }
    for request in [plain(TCP, 80, 600), plain(TCP, 80, 0), peer(NONCE, TCP, 80, ANY, (PEER, 443))] {
        let answer = server.pcp.answer(None, HOST, &request, START).unwrap();
        assert_eq!((answer[3], &answer[4..8]), (7, &30u32.to_be_bytes()[..]));
    }
    assert_eq!(server.pcp.answer(None, HOST, &[0, 0], START), Some(vec![0, 128, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(server.pcp.answer(None, HOST, &pmp(2, 80, 0, 60), START).unwrap()[3], 3);
}

/// RFC 6886 §3.3: version 0, opcode, reserved, internal port, suggested external port, lifetime.
fn pmp(opcode: u8, inside: u16, suggested: u16, lifetime: u32) -> Vec<u8> {
    [&[0, opcode, 0, 0][..], &inside.to_be_bytes(), &suggested.to_be_bytes(), &lifetime.to_be_bytes()].concat()
}

/// RFC 6886 §3.2, §3.3, §3.4, §3.6.
#[test]
fn nat_pmp() {
    let mut server = Server::new();
    server.wait(5);
    assert_eq!(server.ask(&[0, 0]).unwrap(), [0, 128, 0, 0, 0, 0, 0, 5, 192, 0, 2, 18]);
    // Port 0x3034 is 12340; 7200 s is the recommended lifetime.
    let answer = server.ask(&pmp(2, 8080, 0x3034, 7200)).unwrap();
    assert_eq!(answer, [0, 130, 0, 0, 0, 0, 0, 5, 0x1f, 0x90, 0x30, 0x34, 0, 0, 0x1c, 0x20]);
    assert_eq!(server.inbound(Protocol::Tcp, 0x3034, remote(1, 9)), Ok(inside(8080)));
    let other = server.ask(&pmp(1, 53, 80, 60)).unwrap();
    assert_eq!((&other[..4], other[11], &other[12..]), (&[0, 129, 0, 0][..], 0x34, &[0, 0, 0, 60][..]), "not longer");
    assert_eq!(server.mappings().iter().map(|m| m.origin).collect::<Vec<_>>(), [Origin::NatPmp; 2]);
    // Renewed, at most a day; then deleted.
    let answer = server.ask(&pmp(2, 8080, 0x4034, 1_000_000)).unwrap();
    assert_eq!(answer[10..], [0x30, 0x34, 0, 1, 0x51, 0x80]);
    let answer = server.ask(&pmp(2, 8080, 0, 0)).unwrap();
    assert_eq!(answer, [0, 130, 0, 0, 0, 0, 0, 5, 0x1f, 0x90, 0, 0, 0, 0, 0, 0]);
    assert_eq!(server.ask(&pmp(2, 8080, 0, 0)).unwrap(), answer, "gone already");
    assert_eq!(server.inbound(Protocol::Tcp, 0x3034, remote(1, 9)), Err(Refusal::NoMapping));
    // All of one protocol.
    server.ask(&pmp(1, 54, 0, 600)).unwrap();
    server.ask(&pmp(2, 54, 0, 600)).unwrap();
    assert_eq!(server.ask(&pmp(1, 0, 0, 0)).unwrap(), [0, 129, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(server.mappings().iter().map(|m| m.protocol).collect::<Vec<_>>(), [Protocol::Tcp]);
    assert_eq!(server.ask(&[0, 3]).unwrap(), [0, 131, 0, 5, 0, 0, 0, 5]);
    assert_eq!(server.ask(&pmp(2, 0, 0, 600)).unwrap()[..4], [0, 130, 0, 2]);
}

/// One port, two protocols: a mapping by PCP needs its nonce; one by NAT-PMP becomes PCP's (RFC 6887 §A).
#[test]
fn both_protocols() {
    let mut server = Server::new();
    let (port, _) = server.granted(&plain(TCP, 80, 600));
    for lifetime in [0, 7200] {
        assert_eq!(server.ask(&pmp(2, 80, 0, lifetime)).unwrap()[2..4], [0, 2]);
    }
    server.ask(&pmp(2, 0, 0, 0)).unwrap();
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Ok(inside(80)));
    let answer = server.ask(&pmp(2, 81, 0, 600)).unwrap();
    assert_eq!(server.granted(&plain(TCP, 81, 700)).0.to_be_bytes(), answer[10..12]);
    assert_eq!(server.ask(&pmp(2, 81, 0, 600)).unwrap()[2..4], [0, 2]);
    let mut without = Server::with(|_, pcp| pcp.nat_pmp = false);
    assert_eq!(without.ask(&[0, 0]).unwrap(), [&[2, 0x80, 0, 1, 0, 0, 7, 8][..], &[0; 16]].concat());
}

/// RFC 6887 §11.3, §12.3: at whatever moment of the NAPT's clock, what is told lasts, and not for long after.
#[test]
fn a_lifetime_is_kept_whenever_it_begins() {
    let to = Remote { addr: PEER, port: 444 };
    for micros in [0, 1, 100_000, 249_999, 250_000, 999_999] {
        for request in [plain(TCP, 9000, 600), peer(NONCE, TCP, 9000, ANY, (PEER, 444))] {
            let mut server = Server::new();
            server.now += Duration::from_micros(micros);
            let (port, lifetime) = server.granted(&request);
            assert_eq!(lifetime, 600);
            for wait in [100_000_001, 599_999_999, 599_999_999] {
                server.now += Duration::from_micros(wait);
                server.wait(0);
                assert_eq!(server.inbound(Protocol::Tcp, port, to), Ok(inside(9000)), "{micros} and {wait}");
                assert_eq!(server.granted(&request), (port, 600), "{micros} and {wait}");
            }
            server.now += Duration::from_millis(600_500);
            server.wait(0);
            assert_eq!((server.mappings().len(), server.napt.ports_in_use(Protocol::Tcp)), (0, 0));
        }
    }
}

/// RFC 6887 §14.1.3, RFC 6886 §3.2.1: ten times, the first at once, the second after 250 ms, then twice as long each.
#[test]
fn announcements() {
    let mut pcp = Pcp::new(PcpParams::default(), START);
    assert_eq!((pcp.poll_timeout(), pcp.announce(None, START)), (None, vec![]));
    let up = START + Duration::from_secs(10);
    let napt = Napt::new(ADDR, set_15(), &NaptParams::default(), 5);
    let mut now = up;
    let mut at = Vec::new();
    loop {
        let datagrams = pcp.announce(Some(&napt), now);
        let seconds = (now - START).as_secs() as u32;
        let of_pcp = [&[2, 0x80, 0, 0, 0, 0, 0, 0][..], &seconds.to_be_bytes(), &[0; 12]].concat();
        let of_pmp = [&[0, 128, 0, 0][..], &seconds.to_be_bytes(), &ADDR.octets()].concat();
        assert_eq!(datagrams, [of_pcp, of_pmp]);
        assert_eq!(pcp.announce(Some(&napt), now), Vec::<Vec<u8>>::new(), "not before its time");
        at.push((now - up).as_millis());
        let Some(next) = pcp.poll_timeout() else { break };
        now = next;
    }
    assert_eq!(at, [0, 250, 750, 1750, 3750, 7750, 15_750, 31_750, 63_750, 127_750]);
    // Another address: the mappings are gone, the epoch begins anew (§8.5), and it is announced again.
    now += Duration::from_secs(1000);
    let napt = Napt::new(Ipv4Addr::new(192, 0, 2, 19), set_15(), &NaptParams::default(), 5);
    let datagrams = pcp.announce(Some(&napt), now);
    assert_eq!(datagrams[1], [0, 128, 0, 0, 0, 0, 0, 0, 192, 0, 2, 19]);
    assert_eq!(pcp.poll_timeout(), Some(now + Duration::from_millis(250)));
}

/// New parameters: mappings and kept flows go on where they fit. Other ports: they are lost, and the epoch says so.
#[test]
fn mappings_when_the_configuration_changes() {
    let mut server = Server::new();
    let (port, _) = server.granted(&[plain(TCP, 80, 600), filter(32, 0, PEER)].concat());
    let (kept, _) = server.granted(&peer(NONCE, UDP, 5000, ANY, (PEER, 3478)));
    server.outbound(Protocol::Udp, inside(6000), remote(1, 1)).unwrap();
    server.wait(290);
    let flows = NaptParams { max_flows: 4096, ..NaptParams::default() };
    let before = server.mappings();
    let replaced = server.napt.replace(&mut Napt::new(ADDR, set_15(), &flows, 9), server.now);
    assert_eq!((replaced.kept, replaced.purged, server.mappings(), server.napt.losses()), (2, 0, before, 0));
    assert_eq!(server.inbound(Protocol::Tcp, port, Remote { addr: PEER, port: 9 }), Ok(inside(80)));
    assert_eq!(server.inbound(Protocol::Tcp, port, remote(1, 9)), Err(Refusal::Filtered));
    assert_eq!(server.granted(&plain(TCP, 80, 600)).0, port);
    server.wait(300);
    assert_eq!(server.inbound(Protocol::Udp, kept, Remote { addr: PEER, port: 3478 }), Ok(inside(5000)));
    server.wait(10);
    assert_eq!((server.napt.flows(Protocol::Udp), server.mappings().len()), (0, 1));
    assert_eq!(server.pcp.announce(Some(&server.napt), server.now).len(), 2, "of the address");
    let other = PortParams::new(4, 12).unwrap().port_set(Psid(0x035)).unwrap();
    server.napt.replace(&mut Napt::new(ADDR, other, &flows, 9), server.now);
    assert_eq!((server.mappings().len(), server.napt.losses()), (0, 1));
    let answer = server.ask(&head(0, 0, HOST)).unwrap();
    assert_eq!(answer[8..12], [0; 4], "RFC 6887 §8.5");
    assert_eq!(server.pcp.announce(Some(&server.napt), server.now).len(), 2);
}

/// Ends in the order of their lifetimes, 256 at most in one go, whatever else lives.
#[test]
fn many_mappings_expire() {
    let params = PcpParams { per_host: 100_000, ..PcpParams::default() };
    let mut server = Server {
        pcp: Pcp::new(params, START),
        napt: Napt::new(ADDR, PortSet::ALL, &NaptParams::default(), 5),
        now: START,
    };
    for n in 1..=16_384u32 {
        assert_eq!(server.ask(&plain(TCP, n as u16, 120 + n % 600)).unwrap()[3], 0);
    }
    assert_eq!(server.ask(&plain(TCP, 20_000, 600)).unwrap()[3], 8, "bounded");
    let mut turns = 0;
    server.now += Duration::from_secs(719);
    while server.napt.poll_timeout().is_some_and(|at| at <= server.now) {
        let before = server.napt.ports_in_use(Protocol::Tcp);
        server.napt.handle_timeout(server.now);
        assert!(before - server.napt.ports_in_use(Protocol::Tcp) <= 256);
        turns += 1;
    }
    assert_eq!((turns, server.napt.ports_in_use(Protocol::Tcp), server.mappings().len()), (64, 0, 0));
}
