//! Forwards: ports that are set for an endpoint of the home, and what happens to flows when they change.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    Changed, Filter, Filtering, Forward, Inside, Napt, NaptParams, Outside, Protocol, Refusal, Remote, Segment,
    Sharing, TcpFlags,
};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const NOW: Duration = Duration::from_secs(50);
const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;

/// The 15 ports 0x1034, 0x2034, ... 0xf034.
fn set_15() -> PortSet {
    PortParams::new(4, 12).unwrap().port_set(Psid(0x034)).unwrap()
}

fn host(host: u8, port: u16) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, host), port }
}

fn peer(n: u8, port: u16) -> Remote {
    Remote { addr: Ipv4Addr::new(10, 2, 3, n), port }
}

fn forward(protocol: Protocol, port: u16, inside: Inside) -> Forward {
    Forward { protocol, port, inside }
}

struct Home {
    napt: Napt<Inside>,
    now: Duration,
}

impl Home {
    fn with(forwards: &[Forward], change: impl FnOnce(&mut NaptParams)) -> Home {
        let mut params = NaptParams { forwards: forwards.to_vec(), ..NaptParams::default() };
        change(&mut params);
        Home { napt: Napt::new(ADDR, set_15(), &params, 31), now: NOW }
    }

    fn new(forwards: &[Forward]) -> Home {
        Home::with(forwards, |_| {})
    }

    fn out(&mut self, protocol: Protocol, inside: Inside, remote: Remote) -> Result<u16, Refusal> {
        let proposal = self.napt.propose_outbound(protocol, inside, remote, self.now)?;
        let syn = Segment { flags: TcpFlags { syn: true, ..TcpFlags::default() }, seq: 1, ack: 0, len: 0 };
        self.napt.commit_outbound(proposal, Some(&syn), self.now);
        Ok(proposal.outside.port)
    }

    fn back(&mut self, protocol: Protocol, port: u16, remote: Remote) -> Result<Inside, Refusal> {
        let proposal = self.napt.propose_inbound(protocol, Outside { addr: ADDR, port }, remote, self.now)?;
        self.napt.commit_inbound(proposal, None, self.now);
        Ok(proposal.inside)
    }

    fn set(&mut self, forwards: &[Forward]) -> [usize; 4] {
        let Changed { added, removed, purged, refused } = self.napt.set_forwards(forwards, self.now);
        [added, removed, purged, refused]
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        while self.napt.poll_timeout().is_some_and(|at| at <= self.now) {
            self.napt.handle_timeout(self.now);
        }
    }
}

/// Anybody reaches the endpoint, whatever the filter; no packet of theirs makes state; its own leave by the port.
#[test]
fn a_forward_is_open_to_anybody_and_flows_leave_by_it() {
    for filter in [Filter::EndpointIndependent, Filter::AddressDependent, Filter::AddressAndPortDependent] {
        let filtering = Filtering { tcp: Some(filter), udp: Some(filter) };
        let web = host(10, 80);
        let forwards = [forward(TCP, 0x3034, web), forward(UDP, 0x3034, host(11, 5060))];
        let mut home = Home::with(&forwards, |p| p.filtering = filtering);
        for n in 1..=255 {
            assert_eq!(home.back(TCP, 0x3034, peer(n, 40_000)), Ok(web));
            assert_eq!(home.back(UDP, 0x3034, peer(n, 40_000)), Ok(host(11, 5060)));
        }
        assert_eq!((home.napt.flows(TCP), home.napt.ports_in_use(TCP)), (0, 1));
        assert_eq!(home.napt.poll_timeout(), None);
        assert_eq!(home.out(TCP, web, peer(1, 40_000)), Ok(0x3034));
        assert_eq!(home.out(TCP, web, peer(2, 443)), Ok(0x3034));
        home.wait(1_000_000);
        assert_eq!((home.napt.flows(TCP), home.napt.ports_in_use(TCP)), (0, 1), "it stays when its flows end");
        assert_eq!(home.back(TCP, 0x3034, peer(9, 40_000)), Ok(web));
        assert_eq!(home.back(TCP, 0x4034, peer(9, 40_000)), Err(Refusal::NoMapping));
        assert_eq!(
            home.napt
                .propose_inbound(Protocol::Icmp, Outside { addr: ADDR, port: 0x3034 }, peer(9, 1), NOW)
                .unwrap_err(),
            Refusal::NoMapping
        );
    }
}

/// RFC 5508 REQ-5: an error of the home about what came in by a forward, without any flow.
#[test]
fn errors_about_what_came_in_by_a_forward() {
    let mut home = Home::new(&[forward(UDP, 0x3034, host(10, 5060))]);
    let outside = Some(Outside { addr: ADDR, port: 0x3034 });
    assert_eq!(home.napt.outside_of(UDP, host(10, 5060), peer(1, 7), NOW), outside);
    assert_eq!(home.napt.outside_of(UDP, host(10, 5061), peer(1, 7), NOW), None);
    home.set(&[]);
    assert_eq!(home.napt.outside_of(UDP, host(10, 5060), peer(1, 7), NOW), None);
}

/// No scarcity of any kind gives a forward's port to others, not when all its flows are over.
#[test]
fn scarcity_never_takes_a_forwards_port() {
    let web = host(10, 80);
    let forwards = [forward(TCP, 0x3034, web), forward(UDP, 0x5034, host(10, 53))];
    let never = Sharing { threshold: 0, ..Sharing::default() };
    for sharing in [never, Sharing::default()] {
        let mut home = Home::with(&forwards, |p| p.sharing = sharing);
        // Half-open and alone on its port: whoever else is so gives way after ten seconds.
        assert_eq!(home.out(TCP, web, peer(1, 40_000)), Ok(0x3034));
        home.wait(11);
        for n in 0..1000u16 {
            if let Ok(port) = home.out(TCP, host(20, 1000 + n), peer((n % 200) as u8, 443)) {
                assert_ne!(port, 0x3034);
            }
            if let Ok(port) = home.out(UDP, host(20, 1000 + n), peer((n % 200) as u8, 443)) {
                assert_ne!(port, 0x5034);
            }
            home.wait(u64::from(n % 3));
        }
        assert_eq!(home.napt.ports_in_use(TCP), 15);
        assert_eq!(home.back(TCP, 0x3034, peer(77, 9)), Ok(web));
        assert_eq!(home.out(TCP, web, peer(78, 9)), Ok(0x3034));
    }
}

/// All ports may be forwards; then nobody else has any.
#[test]
fn all_ports_are_forwards() {
    let forwards: Vec<Forward> = (1..16).map(|n| forward(TCP, n << 12 | 0x034, host(n as u8, 80))).collect();
    let mut home = Home::new(&forwards);
    assert_eq!(home.napt.ports_in_use(TCP), 15);
    assert_eq!(home.out(TCP, host(99, 1), peer(1, 443)), Err(Refusal::Exhausted));
    assert_eq!(home.out(UDP, host(99, 1), peer(1, 443)).map(|_| ()), Ok(()));
    assert_eq!(home.napt.forwards().count(), 15);
    assert_eq!(home.set(&forwards[3..]), [0, 3, 0, 0]);
    assert_eq!(home.napt.ports_in_use(TCP), 12);
    assert!([0x1034, 0x2034, 0x3034].contains(&home.out(TCP, host(99, 1), peer(1, 443)).unwrap()));
}

/// What cannot be is left out, the rest counts.
#[test]
fn what_cannot_be_forwarded() {
    let mut home = Home::new(&[]);
    let set = [
        forward(TCP, 0x3034, host(10, 80)),
        forward(TCP, 0x3035, host(10, 81)),
        forward(TCP, 0, host(10, 82)),
        forward(TCP, 0x3034, host(10, 83)),
        forward(TCP, 0x4034, host(10, 80)),
        forward(UDP, 0x3034, host(10, 80)),
    ];
    assert_eq!(home.set(&set), [2, 0, 0, 4]);
    let now: Vec<Forward> = home.napt.forwards().collect();
    assert_eq!(now, [set[0], set[5]]);
    assert_eq!(home.set(&set), [0, 0, 0, 4]);
    // Port 0 of a whole address is no port.
    let mut whole = Napt::new(ADDR, PortSet::ALL, &NaptParams::default(), 3);
    let changed = whole.set_forwards(&[forward(TCP, 0, host(1, 1)), forward(TCP, 22, host(1, 22))], NOW);
    assert_eq!((changed.added, changed.refused), (1, 1));
}

/// A forward that goes leaves its port to the flows on it; the last one frees it.
#[test]
fn a_removed_forward_serves_its_flows_to_their_end() {
    let web = host(10, 80);
    let mut home = Home::with(&[forward(UDP, 0x3034, web)], |p| p.filtering.udp = Some(Filter::AddressDependent));
    assert_eq!(home.out(UDP, web, peer(1, 40_000)), Ok(0x3034));
    assert_eq!(home.set(&[]), [0, 1, 0, 0]);
    assert_eq!(home.back(UDP, 0x3034, peer(1, 40_000)), Ok(web));
    assert_eq!(home.back(UDP, 0x3034, peer(2, 40_000)), Err(Refusal::Filtered), "no longer open to anybody");
    assert_eq!(home.out(UDP, web, peer(2, 40_000)), Ok(0x3034), "an ordinary mapping");
    home.wait(301);
    assert_eq!((home.napt.flows(UDP), home.napt.ports_in_use(UDP)), (0, 0));
    // Without flows it is free at once.
    home.set(&[forward(UDP, 0x3034, web)]);
    assert_eq!(home.set(&[]), [0, 1, 0, 0]);
    assert_eq!(home.napt.ports_in_use(UDP), 0);
}

/// A new forward takes its port from whoever has it, and from nobody else.
#[test]
fn a_new_forward_takes_its_port() {
    let mut home = Home::with(&[], |p| p.sharing.tcp = vec![443]);
    // One endpoint's own port with two flows, and a shared one with three.
    let own = home.out(TCP, host(20, 1000), peer(1, 80)).unwrap();
    assert_eq!(home.out(TCP, host(20, 1000), peer(2, 80)), Ok(own));
    let shared = home.out(TCP, host(21, 1000), peer(1, 443)).unwrap();
    assert_eq!(home.out(TCP, host(21, 1001), peer(2, 443)), Ok(shared));
    assert_eq!(home.out(TCP, host(22, 1002), peer(3, 443)), Ok(shared));
    let other = home.out(TCP, host(23, 1000), peer(1, 80)).unwrap();
    let udp = home.out(UDP, host(20, 1000), peer(1, 80)).unwrap();
    let forwards = [forward(TCP, own, host(10, 80)), forward(TCP, shared, host(10, 81))];
    assert_eq!(home.set(&forwards), [2, 0, 5, 0]);
    assert_eq!((home.napt.flows(TCP), home.napt.ports_in_use(TCP), home.napt.shared_ports(TCP)), (1, 3, 0));
    assert_eq!(home.back(TCP, own, peer(1, 80)), Ok(host(10, 80)));
    assert_eq!(home.back(TCP, shared, peer(1, 443)), Ok(host(10, 81)));
    assert_eq!(home.back(TCP, other, peer(1, 80)), Ok(host(23, 1000)));
    assert_eq!(home.back(UDP, udp, peer(1, 80)), Ok(host(20, 1000)));
    let elsewhere = home.out(TCP, host(20, 1000), peer(1, 80)).unwrap();
    assert!(![own, shared, other].contains(&elsewhere));
    // From one forward to another.
    assert_eq!(home.out(TCP, host(10, 80), peer(4, 5)), Ok(own));
    assert_eq!(home.set(&[forward(TCP, own, host(11, 80)), forwards[1]]), [1, 1, 1, 0]);
    assert_eq!(home.back(TCP, own, peer(4, 5)), Ok(host(11, 80)));
}

/// A mapping of the very endpoint becomes the forward: its flows do not notice.
#[test]
fn a_mapping_becomes_a_forward() {
    let mut home = Home::with(&[], |p| p.filtering.udp = Some(Filter::AddressDependent));
    let camera = host(30, 5000);
    let port = home.out(UDP, camera, peer(1, 80)).unwrap();
    assert_eq!(home.set(&[forward(UDP, port, camera)]), [1, 0, 0, 0]);
    assert_eq!((home.napt.flows(UDP), home.napt.ports_in_use(UDP)), (1, 1));
    assert_eq!(home.back(UDP, port, peer(1, 80)), Ok(camera));
    assert_eq!(home.back(UDP, port, peer(2, 80)), Ok(camera));
    home.wait(301);
    assert_eq!((home.napt.flows(UDP), home.napt.ports_in_use(UDP)), (0, 1));
}

/// An endpoint with another port keeps it for the flows on it; new ones leave by the forward. And back again.
#[test]
fn an_endpoint_that_has_another_port() {
    let mut home = Home::new(&[]);
    let web = host(10, 80);
    let old = home.out(UDP, web, peer(1, 7)).unwrap();
    let new = if old == 0x7034 { 0x8034 } else { 0x7034 };
    assert_eq!(home.set(&[forward(UDP, new, web)]), [1, 0, 0, 0]);
    assert_eq!(home.out(UDP, web, peer(1, 7)), Ok(old));
    assert_eq!(home.back(UDP, old, peer(1, 7)), Ok(web));
    assert_eq!(home.out(UDP, web, peer(2, 7)), Ok(new));
    // The forward moves to the port that the endpoint had first.
    assert_eq!(home.set(&[forward(UDP, old, web)]), [1, 1, 0, 0]);
    assert_eq!(home.out(UDP, web, peer(2, 7)), Ok(new));
    assert_eq!(home.out(UDP, web, peer(3, 7)), Ok(old));
    home.wait(301);
    assert_eq!((home.napt.flows(UDP), home.napt.ports_in_use(UDP)), (0, 1));
    assert_eq!(home.out(UDP, web, peer(4, 7)), Ok(old));
}

/// A proposal that was made before a change does nothing after it.
#[test]
fn a_proposal_does_not_outlive_a_change() {
    let mut home = Home::new(&[]);
    let proposal = home.napt.propose_outbound(UDP, host(20, 1000), peer(1, 80), NOW).unwrap();
    let port = proposal.outside.port;
    assert_eq!(home.set(&[forward(UDP, port, host(10, 80))]), [1, 0, 0, 0]);
    home.napt.commit_outbound(proposal, None, NOW);
    assert_eq!((home.napt.flows(UDP), home.napt.ports_in_use(UDP)), (0, 1));
    let proposal = home.napt.propose_outbound(UDP, host(10, 80), peer(1, 80), NOW).unwrap();
    home.set(&[]);
    home.napt.commit_outbound(proposal, None, NOW);
    assert_eq!((home.napt.flows(UDP), home.napt.ports_in_use(UDP)), (0, 0));
}
