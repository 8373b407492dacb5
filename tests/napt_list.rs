//! The list of flows, page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    FlowState, FlowView, Inside, Napt, NaptParams, Outside, Protocol, Remote, Segment, Sharing, TcpFlags,
};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const START: Duration = Duration::from_secs(50);

/// RFC 7597 Appendix A.
fn set_252() -> PortSet {
    PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap()
}

fn host(n: u32) -> Inside {
    Inside { addr: Ipv4Addr::from(0xc0a8_0000 + n), port: 40_000 + (n % 1000) as u16 }
}

fn server(n: u32) -> Remote {
    Remote { addr: Ipv4Addr::from(0x0a02_0304 + n), port: 443 }
}

fn send(napt: &mut Napt<Inside>, protocol: Protocol, n: u32, flags: &str, now: Duration) -> u16 {
    let proposal = napt.propose_outbound(protocol, host(n), server(n), now).unwrap();
    napt.commit_outbound(proposal, Some(&segment(flags, 1000)), now);
    proposal.outside.port
}

fn answer(napt: &mut Napt<Inside>, protocol: Protocol, n: u32, port: u16, flags: &str, now: Duration) {
    let proposal = napt.propose_inbound(protocol, Outside { addr: ADDR, port }, server(n), now).unwrap();
    napt.commit_inbound(proposal, Some(&segment(flags, 9000)), now);
}

fn segment(letters: &str, seq: u32) -> Segment {
    let has = |flag| letters.contains(flag);
    let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
    Segment { flags, seq, ack: if flags.ack { 10_000 - seq + 1 } else { 0 }, len: 0 }
}

fn all(napt: &Napt<Inside>, protocol: Protocol, now: Duration) -> Vec<FlowView<Inside>> {
    let mut views = Vec::new();
    let mut from = 0;
    loop {
        let before = views.len();
        let next = napt.page(protocol, from, 7, now, &mut |view| views.push(view));
        assert!(views.len() - before <= 7);
        match next {
            Some(next) => assert!(std::mem::replace(&mut from, next) < next),
            None => return views,
        }
    }
}

#[test]
fn each_state_has_its_name_and_times() {
    let mut napt = Napt::new(ADDR, set_252(), &NaptParams::default(), 5);
    let after = |s: u64| START + Duration::from_secs(s);
    send(&mut napt, Protocol::Tcp, 1, "S", START);
    for n in [2, 3] {
        let port = send(&mut napt, Protocol::Tcp, n, "S", START);
        answer(&mut napt, Protocol::Tcp, n, port, "SA", START);
        send(&mut napt, Protocol::Tcp, n, "A", after(3));
        if n == 3 {
            send(&mut napt, Protocol::Tcp, n, "FA", after(4));
            answer(&mut napt, Protocol::Tcp, n, port, "FA", after(5));
        }
    }
    send(&mut napt, Protocol::Udp, 4, "", START);
    let port = send(&mut napt, Protocol::Udp, 5, "", after(1));
    answer(&mut napt, Protocol::Udp, 5, port, "", after(2));
    let id = send(&mut napt, Protocol::Icmp, 6, "", START);
    let expected = [
        (Protocol::Tcp, 1, FlowState::Opening, "opening", 10, 230),
        (Protocol::Tcp, 2, FlowState::Established, "established", 7, 7433),
        (Protocol::Tcp, 3, FlowState::Closing, "closing", 5, 235),
        (Protocol::Udp, 4, FlowState::Unanswered, "unanswered", 10, 290),
        (Protocol::Udp, 5, FlowState::Answered, "answered", 9, 291),
        (Protocol::Icmp, 6, FlowState::Query, "query", 10, 50),
    ];
    for (protocol, n, state, name, idle, left) in expected {
        let view = all(&napt, protocol, after(10)).into_iter().find(|v| v.inside == host(n)).unwrap();
        assert_eq!((view.state, view.state.name()), (state, name));
        let times = (view.idle, view.expires_in);
        assert_eq!(times, (Duration::from_secs(idle), Duration::from_secs(left)), "{name}");
        assert_eq!((view.protocol, view.shared), (protocol, false));
        assert_eq!(view.remote, (protocol != Protocol::Icmp).then_some(server(n)));
    }
    let echo = all(&napt, Protocol::Icmp, START)[0];
    assert_eq!(echo.outside, Outside { addr: ADDR, port: id });
    assert_eq!(all(&napt, Protocol::Icmp, after(60)), [], "expired and not yet swept");
}

/// 10,000 flows on 252 ports: every one of them once, though others come and go between the pages.
#[test]
fn pages_show_each_flow_once() {
    let sharing = Sharing { threshold: 100, ..Sharing::default() };
    let mut napt = Napt::new(ADDR, set_252(), &NaptParams { sharing, ..NaptParams::default() }, 5);
    let ports: BTreeMap<u32, u16> = (0..10_000).map(|n| (n, send(&mut napt, Protocol::Udp, n, "", START))).collect();
    let (mut seen, mut from, mut pages, mut extra) = (BTreeSet::new(), 0, 0, 10_000);
    let now = START + Duration::from_secs(1);
    loop {
        let (mut shown, start) = (0, from);
        let next = napt.page(Protocol::Udp, from, 100, now, &mut |view| {
            shown += 1;
            let n = u32::from(view.inside.addr) - 0xc0a8_0000;
            if let Some(port) = ports.get(&n) {
                assert!(seen.insert(n), "{n} twice");
                assert_eq!((view.inside, view.remote, view.outside.port), (host(n), Some(server(n)), *port));
            }
        });
        assert!(shown <= 100);
        pages += 1;
        extra += 1;
        send(&mut napt, Protocol::Udp, extra, "", now);
        match next {
            Some(next) => from = next,
            None => break,
        }
        assert!(from - start <= 1024, "bounded");
    }
    assert_eq!(seen.len(), 10_000);
    assert!((100..=103).contains(&pages), "{pages}");
    let shared = all(&napt, Protocol::Udp, now).into_iter().filter(|view| view.shared).count();
    assert!(shared > 9000, "{shared}");
    // Nothing lives, and a page is as short as before.
    let (late, mut turns, mut from) = (START + Duration::from_secs(1000), 0, Some(0));
    while let Some(at) = from {
        from = napt.page(Protocol::Udp, at, 100, late, &mut |view| panic!("{view:?}"));
        turns += 1;
    }
    assert!((10..=11).contains(&turns), "{turns}");
    assert_eq!(napt.page(Protocol::Udp, u32::MAX, 1, late, &mut |_| ()), None);
}
