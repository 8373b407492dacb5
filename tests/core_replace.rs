//! Other rules, prefixes and parameters while packets flow, by scenario. `prop_replace` has them at random.

mod common;
mod oracle;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use mapt::br::Br;
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::map::{Provisioning, RuleSpec};
use mapt::napt::{EventKind, Filter, Filtering, Protocol, Replaced, Sharing, Why};
use mapt::reply::{IcmpParams, Originate};
use mapt::verdict::{DropReason, Verdict};
use oracle::build::{Kind, Make, Place};
use oracle::packet::Packet6;

const OWN: &str = "2001:db8:12:3400:0:c000:212:34";
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER4: &str = "10.2.3.4";
const HOST: &str = "192.168.1.10";
const UDP: Kind = Kind::Udp { zero: false, slack: 0 };

fn ours() -> Provisioning {
    appendix_a(Some("2001:db8:12:3400::/56"))
}

/// The same MAP address with PSID offset 4: the ports 0x1340-0x134f, 0x2340-..., none of Appendix A's.
fn other_ports() -> Provisioning {
    let rule = RuleSpec { psid_offset: 4, ..rule("2001:db8::/40", "192.0.2.0/24", 16) };
    provisioning(vec![rule], "2001:db8:ffff::/64", Some("2001:db8:12:3400::/56"))
}

fn changed(change: impl FnOnce(&mut CeParams)) -> CeParams {
    let mut params = ce_params();
    change(&mut params);
    params
}

fn replace(ce: &mut Ce, provisioning: &Provisioning, params: &CeParams, now: Duration) -> Replaced {
    ce.replace(&mut Ce::prepare(provisioning, params), now)
}

fn out(ce: &mut Ce, packet: &[u8], now: Duration) -> u16 {
    let (src, port, ..) = tuple(&handle_at(ce, packet, now).forwarded());
    assert_eq!(src, OWN);
    port
}

fn a4(text: &str) -> [u8; 4] {
    v4(text).octets()
}

fn after(seconds: u64) -> Duration {
    NOW + Duration::from_secs(seconds)
}

/// R7599-8.1: from the first packet on nothing leaves with a port of the old set, though the MAP address is the same.
#[test]
fn another_port_set_on_the_same_map_address() {
    let mut ce = ce();
    let udp = udp4(HOST, 40_000, SERVER4, 53, b"");
    let old = out(&mut ce, &udp, NOW);
    assert_eq!((old / 4) % 256, 0x34);
    assert_eq!(replace(&mut ce, &other_ports(), &ce_params(), NOW), Replaced { kept: 0, purged: 1 });
    assert_eq!(ce.ports_in_use(Protocol::Udp), 0);
    let back = handle(&mut ce, &udp6(SERVER, 53, OWN, old, b""));
    assert_eq!(back.reason(), DropReason::DestinationPortOutsideSet);
    let new = out(&mut ce, &udp, NOW);
    assert_eq!((new / 16) % 256, 0x34);
    assert_eq!(tuple(&handle(&mut ce, &udp6(SERVER, 53, OWN, new, b"")).forwarded()).2, HOST);
}

/// What a change of parameters alone does: at once, to flows that idle already, and to no port.
#[test]
fn idle_times_and_filters_change_under_a_flow() {
    let mut ce = ce();
    let (udp, tcp) = (udp4(HOST, 40_000, SERVER4, 53, b""), tcp4(HOST, 40_001, SERVER4, 443, "S", b""));
    let port = out(&mut ce, &udp, NOW);
    let tcp_port = out(&mut ce, &tcp, NOW);
    let stranger = tcp6("2001:db8:ffff:0:a:203:500:0", 1, OWN, tcp_port, "S", b"");
    assert_eq!(handle(&mut ce, &stranger).reason(), DropReason::NaptFiltered);
    let short = changed(|p| p.napt_params.timers.udp = Duration::from_secs(120));
    assert_eq!(replace(&mut ce, &ours(), &short, after(100)), Replaced { kept: 2, purged: 0 });
    assert_eq!(ce.poll_timeout(), Some(after(120)));
    let reply = udp6(SERVER, 53, OWN, port, b"");
    assert_eq!(tuple(&handle_at(&mut ce, &reply, after(119)).forwarded()).3, 40_000);
    let open = changed(|p| {
        p.napt_params.filtering = Filtering { tcp: Some(Filter::EndpointIndependent), udp: None };
        p.napt_params.timers.udp = Duration::from_secs(120);
    });
    assert_eq!(replace(&mut ce, &ours(), &open, after(119)), Replaced { kept: 2, purged: 0 });
    assert_eq!(tuple(&handle_at(&mut ce, &stranger, after(119)).forwarded()).3, 40_001);
    assert_eq!(handle_at(&mut ce, &reply, after(120)).reason(), DropReason::NaptNoMapping);
    assert_eq!((out(&mut ce, &tcp, after(130)), ce.flows(Protocol::Udp)), (tcp_port, 1));
    // What has expired is no loss.
    assert_eq!(replace(&mut ce, &other_ports(), &open, after(130)), Replaced { kept: 0, purged: 1 });
}

/// With less room those go that are closing, then opening, the longest idle first.
#[test]
fn with_less_room_established_connections_stay() {
    let mut ce = ce_with_flows();
    let few = changed(|p| p.napt_params.max_flows = 3);
    assert_eq!(replace(&mut ce, &ours(), &few, after(20)), Replaced { kept: 3, purged: 3 });
    let napt = ce.napt().unwrap();
    let mut left = Vec::new();
    assert_eq!(napt.page(Protocol::Tcp, 0, 10, after(20), &mut |view| left.push(view.inside.port)), None);
    left.sort_unstable();
    assert_eq!(left, [40_003, 40_004, 40_005]);
}

/// 40,000 and 40,001 closing, 40,002 and 40,003 opening, 40,004 and 40,005 established; a second between them.
fn ce_with_flows() -> Ce {
    let mut ce = ce();
    for n in 0..6u16 {
        let (now, inside) = (after(u64::from(n)), 40_000 + n);
        let port = out(&mut ce, &tcp4(HOST, inside, SERVER4, 443, "S", b""), now);
        if n == 2 || n == 3 {
            continue;
        }
        handle_at(&mut ce, &tcp6(SERVER, 443, OWN, port, "SA", b""), now).forwarded();
        out(&mut ce, &tcp4(HOST, inside, SERVER4, 443, "A", b""), now);
        if n < 2 {
            out(&mut ce, &tcp4(HOST, inside, SERVER4, 443, "FA", b""), now);
            handle_at(&mut ce, &tcp6(SERVER, 443, OWN, port, "FA", b""), now).forwarded();
        }
    }
    ce
}

/// A connection that nobody answers gives its port to another after ten seconds, also when it has moved.
#[test]
fn unanswered_connections_still_give_way() {
    let no_sharing = |p: &mut CeParams| p.napt_params.sharing = Sharing { threshold: 0, ..Sharing::default() };
    let mut ce = Ce::new(&ours(), &changed(no_sharing));
    let syn = |n: u16| tcp4(HOST, 20_000 + n, SERVER4, 443, "S", b"");
    let ports: Vec<u16> = (0..252).map(|n| out(&mut ce, &syn(n), NOW + Duration::from_millis(10) * n.into())).collect();
    assert_eq!(handle_at(&mut ce, &syn(252), after(5)).reason(), DropReason::NaptExhausted);
    let moved = changed(|p| {
        no_sharing(p);
        p.napt_params.max_flows = 300;
    });
    assert_eq!(replace(&mut ce, &ours(), &moved, after(15)), Replaced { kept: 252, purged: 0 });
    assert_eq!(out(&mut ce, &syn(252), after(15)), ports[0], "the longest waiting");
    assert_eq!(out(&mut ce, &syn(253), after(15)), ports[1]);
}

/// Shared ports stay shared where sharing ends; nobody new joins them.
#[test]
fn sharing_ends_for_newcomers() {
    let all = changed(|p| p.napt_params.sharing = Sharing { threshold: 100, ..Sharing::default() });
    let mut ce = Ce::new(&ours(), &all);
    let mut ports = Vec::new();
    for n in 0..400u16 {
        let dst = format!("10.2.{}.4", n % 100);
        ports.push(out(&mut ce, &udp4(HOST, 20_000 + n, &dst, 53, b""), NOW));
    }
    let none = changed(|p| p.napt_params.sharing = Sharing { threshold: 0, ..Sharing::default() });
    assert_eq!(replace(&mut ce, &ours(), &none, NOW), Replaced { kept: 400, purged: 0 });
    for n in 0..400u16 {
        let dst = format!("10.2.{}.4", n % 100);
        assert_eq!(out(&mut ce, &udp4(HOST, 20_000 + n, &dst, 53, b""), NOW), ports[usize::from(n)]);
    }
    let free = 252 - ce.ports_in_use(Protocol::Udp);
    for n in 0..free as u16 {
        assert!(!ports.contains(&out(&mut ce, &udp4(HOST, 30_000 + n, SERVER4, 53, b""), NOW)));
    }
    assert_eq!(handle(&mut ce, &udp4(HOST, 39_999, SERVER4, 53, b"")).reason(), DropReason::NaptExhausted);
}

/// CE-17: a CE loses its prefix and gets it back; counters and the limit on answers go on.
#[test]
fn a_prefix_is_lost_and_gained() {
    let limited = |p: &mut CeParams| p.icmp.originate = Originate::Limited;
    let mut ce = Ce::new(&ours(), &changed(limited));
    let counters = ce.counters();
    let udp = udp4(HOST, 40_000, SERVER4, 53, b"");
    let port = out(&mut ce, &udp, NOW);
    assert_eq!(replace(&mut ce, &appendix_a(None), &changed(limited), NOW), Replaced { kept: 0, purged: 1 });
    assert!(ce.napt().is_none() && ce.poll_timeout().is_none());
    let answered = (0..60).filter(|_| handle(&mut ce, &udp).reply.is_some()).count();
    assert_eq!(answered, 50, "Linux's burst");
    assert_eq!(handle(&mut ce, &udp6(SERVER, 53, OWN, port, b"")).reason(), DropReason::Unprovisioned);
    assert_eq!(replace(&mut ce, &appendix_a(None), &changed(limited), NOW), Replaced::default());
    assert!(handle(&mut ce, &udp).reply.is_none(), "the bucket is still empty");
    assert_eq!(replace(&mut ce, &ours(), &changed(limited), NOW), Replaced::default());
    out(&mut ce, &udp, NOW);
    assert!(Arc::ptr_eq(&ce.counters(), &counters));
    assert_eq!(counters.snapshot().directions[0].received.packets, 63);
}

/// The log of mappings knows of the end when the prefix goes, and of the next mapping when there is one again.
#[test]
fn the_log_of_mappings_without_a_prefix() {
    let mut ce = ce();
    ce.record(true);
    let (udp, tcp) = (udp4(HOST, 40_000, SERVER4, 53, b""), tcp4(HOST, 40_001, SERVER4, 443, "S", b""));
    let ports = [out(&mut ce, &udp, NOW), out(&mut ce, &tcp, after(1))];
    replace(&mut ce, &appendix_a(None), &ce_params(), after(2));
    replace(&mut ce, &appendix_a(None), &ce_params(), after(3));
    replace(&mut ce, &ours(), &ce_params(), after(4));
    let new = out(&mut ce, &udp, after(5));
    let events: Vec<_> = std::iter::from_fn(|| ce.next_event()).map(|e| (e.at, e.kind, e.outside.port)).collect();
    let gone = EventKind::Ended(Why::Purged);
    assert_eq!(
        events,
        [
            (NOW, EventKind::Made, ports[0]),
            (after(1), EventKind::Made, ports[1]),
            (after(2), gone, ports[1]),
            (after(2), gone, ports[0]),
            (after(5), EventKind::Made, new),
        ]
    );
    ce.record(false);
    replace(&mut ce, &appendix_a(None), &ce_params(), after(6));
    replace(&mut ce, &ours(), &ce_params(), after(7));
    out(&mut ce, &udp, after(8));
    assert_eq!(ce.next_event(), None);
}

/// Our own answers come from the new addresses at once.
#[test]
fn answers_come_from_the_new_source() {
    let mut ce = ce();
    let own = changed(|p| {
        p.icmp = IcmpParams { rfc6791_pool: vec![v4("203.0.113.9")], originate: Originate::On, ipv6_source: None };
    });
    replace(&mut ce, &ours(), &own, NOW);
    let gre = Make::new(Kind::Other(47), 0, 0, 30).v4(a4(HOST), a4(SERVER4));
    let outcome = handle(&mut ce, &gre);
    assert_eq!(tuple(&outcome.reply.unwrap()).0, "203.0.113.9");
}

/// A datagram in pieces over a change of ports: what waits goes as a whole by what is new, what has begun to go ends.
#[test]
fn fragments_over_a_change() {
    let piece = |id: u32, place: Place| Make { id, place, ..Make::new(UDP, 40_000 + id as u16, 53, 40) };
    let (first, later) = (Place::First(3), Place::Later(3, false));
    let send = |ce: &mut Ce, id, place, now| handle_at(ce, &piece(id, place).v4(a4(HOST), a4(SERVER4)), now);
    let mut ce = ce();
    assert_eq!(send(&mut ce, 1, first, NOW).verdict, Verdict::Forward);
    assert_eq!(send(&mut ce, 2, later, NOW).verdict, Verdict::Held);
    assert_eq!(replace(&mut ce, &other_ports(), &ce_params(), NOW), Replaced { kept: 0, purged: 1 });
    assert_eq!(send(&mut ce, 1, later, NOW).reason(), DropReason::FragmentWithoutPort);
    assert_eq!(ce.ports_in_use(Protocol::Udp), 0, "a later fragment opens nothing");
    let outcome = send(&mut ce, 2, first, NOW);
    assert_eq!(outcome.packets.len(), 2);
    let pieces: Vec<Packet6> =
        outcome.packets.iter().map(|p| Packet6::read(p, false, &mut Vec::new()).unwrap()).collect();
    let port = u16::from_be_bytes([pieces[0].payload[0], pieces[0].payload[1]]);
    assert_eq!((port / 16) % 256, 0x34, "{port}");
    assert_eq!(pieces[1].fragment.map(|f| (f.offset, f.more, f.id)), Some((24, false, 2)));
    // Inbound: the piece behind one that has reached the old port.
    let mut ce = crate::ce();
    let port = out(&mut ce, &udp4(HOST, 40_000, SERVER4, 53, b""), NOW);
    let inbound =
        |id, place| Make { id, place, ..Make::new(UDP, 53, port, 40) }.v6(v6(SERVER).octets(), v6(OWN).octets());
    assert_eq!(handle(&mut ce, &inbound(3, first)).verdict, Verdict::Forward);
    replace(&mut ce, &other_ports(), &ce_params(), NOW);
    assert_eq!(handle(&mut ce, &inbound(3, later)).reason(), DropReason::FragmentWithoutPort);
    // Where nobody's ports change, nobody's pieces are lost.
    let mut ce = crate::ce();
    let longer = changed(|p| p.napt_params.timers.udp = Duration::from_secs(600));
    assert_eq!(send(&mut ce, 4, first, NOW).verdict, Verdict::Forward);
    replace(&mut ce, &ours(), &longer, NOW);
    assert_eq!(send(&mut ce, 4, later, NOW).verdict, Verdict::Forward);
}

/// A BR goes by the new rules from the next packet on; a held piece as well.
#[test]
fn a_br_changes_its_rules() {
    let mut br = br();
    let counters = br.counters();
    let packet = udp6(OWN, 1232, SERVER, 53, b"");
    handle(&mut br, &packet).forwarded();
    let later = Make { id: 9, place: Place::Later(3, false), ..Make::new(UDP, 1233, 53, 40) };
    let bytes = |make: &Make| make.v6(v6(OWN).octets(), v6(SERVER).octets());
    assert_eq!(handle(&mut br, &bytes(&later)).verdict, Verdict::Held);
    let other = provisioning(vec![rule("2001:db8::/40", "198.51.100.0/24", 16)], "2001:db8:ffff::/64", None);
    let mut next = Br::prepare(&other, &br_params());
    br.replace(&mut next);
    assert_eq!(handle(&mut br, &packet).reason(), DropReason::SourceMismatch);
    let first = Make { place: Place::First(3), ..later };
    assert_eq!(handle(&mut br, &bytes(&first)).reason(), DropReason::SourceMismatch);
    assert_eq!(counters.snapshot().directions[1].held, 0, "it went the way of its first one");
    let new = udp6("2001:db8:12:3400:0:c633:6412:34", 1232, SERVER, 53, b"");
    assert_eq!(tuple(&handle(&mut br, &new).forwarded()).0, "198.51.100.18");
    // And back.
    br.replace(&mut next);
    assert_eq!(tuple(&handle(&mut br, &packet).forwarded()).0, "192.0.2.18");
    assert!(Arc::ptr_eq(&br.counters(), &counters));
    assert_eq!(counters.snapshot().directions[1].received.packets, 6);
}
