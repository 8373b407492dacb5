//! What a home's flows must have of a NAPT, told from packets alone: a slow tracker beside the one under test. It says
//! less than the NAPT knows, and never what it does not know for certain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::ce::Ce;
use mapt::engine::Engine;
use mapt::napt::{
    EventKind, Filter, FlowState, FlowView, Forward, Inside, Mapping, Napt, NaptParams, Outside, Protocol, Remote,
};
use mapt::verdict::{DropReason, Verdict};

use super::engine::Watch;
use super::flow::{ACK, ANYBODY, Flow, RST, SYN};
use super::homes::Customer;
use super::oracle::{self, Ip, Packet};

/// RFC 5382 REQ-4.
const PATIENCE: Duration = Duration::from_secs(6);
/// The NAPT's clock.
const TICK: Duration = Duration::from_millis(250);

/// A mapping of the events: outside address, protocol, outside port, inside, and whom it is with on a shared port.
type Noted = (Ipv4Addr, Protocol, u16, (Ipv4Addr, u16), Option<(Ipv4Addr, u16)>);

/// The tracker of one CE.
pub(super) struct Tracker {
    pub customer: Customer,
    pub params: NaptParams,
    /// What the NAPT lists.
    pub listed: Vec<FlowView<Inside>>,
    /// The rare thing: somebody may have two ports.
    pub was_explicit: bool,
    pub recording: bool,
    /// The first octet of the parameters in force.
    pub choice: u8,
    /// The next sequence numbers of both ends, by both ends: home, Internet.
    pub numbers: BTreeMap<(Ipv4Addr, u16, Ipv4Addr, u16), [u32; 2]>,
    explicit: Vec<Mapping<Inside>>,
    flows: Vec<Flow>,
    noted: BTreeSet<Noted>,
    /// Flows of a protocol were as many as may be.
    full: [bool; 3],
    /// SYNs that were dropped, and when.
    refused: Vec<(Duration, Vec<u8>)>,
}

/// What a packet says of its flow.
struct Ends {
    protocol: Protocol,
    /// Source and destination.
    ports: (u16, u16),
    flags: Option<u8>,
}

fn ends(ip: &Ip) -> Option<Ends> {
    let protocol = match ip.protocol {
        oracle::TCP => Protocol::Tcp,
        oracle::UDP => Protocol::Udp,
        _ if ip.is_icmp() && !ip.is_icmp_error() => Protocol::Icmp,
        _ => return None,
    };
    let flags = ip.payload.get(13).copied().filter(|_| ip.payload.len() >= 20);
    Some(Ends { protocol, ports: (ip.port(true)?, ip.port(false)?), flags })
}

fn v4(b: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(b[0], b[1], b[2], b[3])
}

fn remote(protocol: Protocol, addr: &[u8], port: u16) -> Remote {
    if protocol == Protocol::Icmp { ANYBODY } else { Remote { addr: v4(addr), port } }
}

/// RFC 6052 §2.2 for a /64.
pub(super) fn embedded(addr: &[u8]) -> Option<[u8; 4]> {
    let prefix = [0x20, 1, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0];
    (addr[..9] == prefix).then(|| [addr[9], addr[10], addr[11], addr[12]])
}

fn list(ce: &Ce, now: Duration) -> Vec<FlowView<Inside>> {
    let mut listed = Vec::new();
    let Some(napt) = ce.napt() else { return listed };
    for protocol in Protocol::ALL {
        let mut page = Some(0);
        while let Some(from) = page {
            page = napt.page(protocol, from, usize::MAX, now, &mut |view| listed.push(view));
        }
    }
    listed
}

/// The NAPT's own recount, where there are few enough ports for it.
fn audit(ce: &Ce, now: Duration) {
    #[cfg(debug_assertions)]
    if let Some(napt) = ce.napt().filter(|napt| napt.capacity(Protocol::Icmp) < 20) {
        napt.audit(now).unwrap_or_else(|what| panic!("{what}"));
    }
    #[cfg(not(debug_assertions))]
    let _ = (ce, now);
}

type Key = (Protocol, Inside, Option<Remote>, u16);

fn key(view: &FlowView<Inside>) -> Key {
    (view.protocol, view.inside, view.remote, view.outside.port)
}

impl Tracker {
    pub fn new(customer: Customer, params: NaptParams) -> Tracker {
        Tracker {
            customer,
            params,
            listed: Vec::new(),
            was_explicit: false,
            recording: false,
            choice: 0,
            numbers: BTreeMap::new(),
            explicit: Vec::new(),
            flows: Vec::new(),
            noted: BTreeSet::new(),
            full: [false; 3],
            refused: Vec::new(),
        }
    }

    fn filter(&self, protocol: Protocol) -> Filter {
        let filtering = self.params.filtering;
        let shared = if self.customer.ports.1 > 0 { Filter::AddressDependent } else { Filter::EndpointIndependent };
        match protocol {
            Protocol::Tcp => filtering.tcp.unwrap_or(shared),
            Protocol::Udp => filtering.udp.unwrap_or(shared),
            Protocol::Icmp => Filter::EndpointIndependent,
        }
    }

    /// Looks at the NAPT, and holds it against itself and what is known.
    pub fn look(&mut self, ce: &mut Ce, now: Duration) {
        self.listed = list(ce, now);
        self.read_events(ce);
        if let Some(napt) = ce.napt() {
            self.explicit = napt.explicit(now).collect();
            self.check_listed(napt, now);
        } else {
            assert!(self.noted.is_empty(), "mappings of a NAPT that is gone: {:?}", self.noted);
            self.explicit.clear();
        }
        if let Some(first) = self.listed.iter().map(|view| now + view.expires_in).min() {
            let next = ce.poll_timeout();
            assert!(next.is_some_and(|next| next <= first), "{next:?} is later than {first:?}");
        }
        let Tracker { flows, listed, params, full, .. } = self;
        flows.retain(|flow| {
            let safe = flow.safe_until(params, full[flow.protocol as usize]);
            let Some(view) = listed.iter().find(|view| flow.is(view)) else {
                let Flow { protocol, inside, remote, port, .. } = flow;
                assert!(safe <= now, "lost {protocol:?} {inside:?} {port} {remote:?}: {safe:?} at {now:?}");
                return false;
            };
            if safe > now {
                assert_eq!(view.outside.port, flow.port, "another port for {:?}", flow.inside);
                let expiry = flow.last + flow.idle(params);
                // What a host has asked for is listed by its own end.
                assert!(view.peer || view.expires_in >= expiry - now, "{view:?} ends before {expiry:?} at {now:?}");
                if flow.protocol == Protocol::Tcp && flow.is_established() {
                    assert_eq!(view.state, FlowState::Established);
                }
            }
            true
        });
    }

    fn check_listed(&self, napt: &Napt<Inside>, now: Duration) {
        let (mut there, mut between, mut owners) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for view in &self.listed {
            let FlowView { protocol, inside, outside, remote, shared, peer, .. } = *view;
            let far = remote.map(|r| (r.addr, r.port));
            assert!(self.customer.has(outside.port) && outside.port != 0, "{outside:?}");
            assert_eq!(outside.addr, Ipv4Addr::from(self.customer.addr));
            assert!(there.insert((protocol, outside.port, far)), "two flows on {outside:?} with {remote:?}");
            assert!(between.insert((protocol, inside.addr, inside.port, far)), "two flows of {inside:?}");
            assert!(peer || !view.expires_in.is_zero());
            let timers = self.params.timers;
            let most = match protocol {
                Protocol::Tcp => timers.tcp_established.max(timers.tcp_opening).max(timers.tcp_closing),
                Protocol::Udp => timers.udp,
                Protocol::Icmp => timers.icmp,
            };
            assert!(peer || view.expires_in <= most.max(TICK) + 2 * TICK, "{view:?}");
            owners.push((protocol, outside.port, shared, inside));
        }
        for (n, (protocol, port, shared, inside)) in owners.iter().enumerate() {
            for (other, other_port, other_shared, other_inside) in &owners[n + 1..] {
                if (protocol, port) == (other, other_port) {
                    assert_eq!(shared, other_shared);
                    assert!(*shared || inside == other_inside, "{port} is of {inside:?} and {other_inside:?}");
                }
                let same = protocol == other && inside == other_inside;
                if same && !self.was_explicit && !shared && !other_shared {
                    assert_eq!(port, other_port, "RFC 4787 REQ-1 for {inside:?}");
                }
            }
        }
        for protocol in Protocol::ALL {
            let ports = |only_shared: bool| {
                let of = self.listed.iter().filter(|v| v.protocol == protocol && (v.shared || !only_shared));
                of.map(|view| view.outside.port).collect::<BTreeSet<_>>().len()
            };
            let flows = self.listed.iter().filter(|view| view.protocol == protocol).count();
            assert!(flows <= napt.flows(protocol) && ports(false) <= napt.ports_in_use(protocol));
            assert!(ports(true) <= napt.shared_ports(protocol));
            assert!(napt.ports_in_use(protocol) <= napt.capacity(protocol));
            assert!(protocol == Protocol::Icmp || napt.flows(protocol) <= self.params.max_flows as usize);
        }
        for mapping in &self.explicit {
            assert!(self.customer.has(mapping.port) && mapping.port != 0);
        }
        assert_eq!(napt.live(now), self.listed.len());
    }

    fn read_events(&mut self, ce: &mut Ce) {
        if !self.recording {
            return;
        }
        while let Some(event) = ce.next_event() {
            let inside = (event.inside.addr, event.inside.port);
            let Outside { addr, port } = event.outside;
            let noted = (addr, event.protocol, port, inside, event.remote.map(|r| (r.addr, r.port)));
            match event.kind {
                EventKind::Made => assert!(self.noted.insert(noted), "made twice: {event:?}"),
                EventKind::Ended(_) => assert!(self.noted.remove(&noted), "ended, and never made: {event:?}"),
            }
        }
        let Some(napt) = ce.napt() else { return };
        for view in &self.listed {
            assert!(self.noted.contains(&noted(view)), "never told of {view:?}");
        }
        for protocol in Protocol::ALL {
            let of = self.noted.iter().filter(|noted| noted.1 == protocol);
            let ports: BTreeSet<_> = of.map(|noted| noted.2).collect();
            assert_eq!(ports.len(), napt.ports_in_use(protocol), "{protocol:?}: told of {ports:?}");
        }
    }

    /// Another process: what it was told is no event.
    pub fn begin_again(&mut self, ce: &Ce, now: Duration) {
        self.listed = list(ce, now);
        self.refused.clear();
        if !self.recording {
            return;
        }
        self.noted = self.listed.iter().map(noted).collect();
        if let Some(napt) = ce.napt() {
            let maps = napt.explicit(now).filter(|mapping| mapping.remote.is_none());
            let own = |m: Mapping<Inside>| (napt.addr(), m.protocol, m.port, (m.inside.addr, m.inside.port), None);
            self.noted.extend(maps.map(own));
        }
    }

    /// Forwards that come end what others have on their ports.
    pub fn forget_others_on(&mut self, forwards: &[Forward]) {
        self.was_explicit |= !forwards.is_empty();
        let listed = &self.listed;
        self.flows.retain(|flow| {
            let shared = listed.iter().any(|view| flow.is(view) && view.shared);
            let takes = |f: &Forward| (f.protocol, f.port) == (flow.protocol, flow.port);
            !forwards.iter().any(|f| takes(f) && (shared || f.inside != flow.inside))
        });
    }

    /// Another customer, other parameters: what need not live on is forgotten. Before the change.
    pub fn change(&mut self, napt: Option<&Napt<Inside>>, customer: Customer, params: NaptParams) {
        let goes_on = self.customer.addr == customer.addr && self.customer.napt && customer.napt;
        let fits = |protocol: Protocol| {
            napt.is_some_and(|napt| protocol == Protocol::Icmp || napt.flows(protocol) <= params.max_flows as usize)
        };
        self.flows.retain(|flow| goes_on && customer.has(flow.port) && fits(flow.protocol));
        self.forget_others_on(&params.forwards);
        (self.customer, self.params) = (customer, params);
        self.refused.retain(|_| goes_on);
    }

    /// After a change.
    pub fn changed(&mut self, ce: &mut Ce, now: Duration) {
        self.full = [false; 3];
        self.look(ce, now);
        audit(ce, now);
    }

    fn flow(&mut self, protocol: Protocol, inside: Inside, remote: Remote) -> Option<&mut Flow> {
        self.flows.iter_mut().find(|f| (f.protocol, f.inside, f.remote) == (protocol, inside, remote))
    }

    fn went_out(&mut self, input: &Ip, output: &Ip, before: &[FlowView<Inside>], now: Duration) {
        let (Some(ends), Some(port)) = (ends(input), output.port(true)) else { return };
        let Ends { protocol, ports, flags } = ends;
        let inside = Inside { addr: v4(input.src), port: ports.0 };
        let remote = remote(protocol, input.dst, ports.1);
        let is = |view: &&FlowView<Inside>| {
            (view.protocol, view.inside, view.remote.unwrap_or(ANYBODY)) == (protocol, inside, remote)
        };
        let was = before.iter().find(is).map(|view| view.outside.port);
        assert!(was.is_none_or(|was| was == port), "{inside:?} was {was:?}, is {port}");
        let is = self.listed.iter().find(is).map(|view| view.outside.port);
        assert_eq!(is, Some(port), "{inside:?} has no flow");
        if was.is_none() {
            self.flows.retain(|f| (f.protocol, f.inside, f.remote) != (protocol, inside, remote));
            let (acks, fins) = ([false; 2], [false; 2]);
            let (answered, closed, unsure) = (false, None, false);
            let (born, last) = (now, now);
            let flow = Flow { protocol, inside, remote, port, born, last, answered, acks, fins, closed, unsure };
            self.flows.push(flow);
        }
        if let Some(flow) = self.flow(protocol, inside, remote) {
            flow.sends(0, flags, now);
        }
    }

    fn came_in(&mut self, input: &Ip, output: &Ip, before: &[FlowView<Inside>], now: Duration) {
        if output.is_icmp_error() {
            let Some(quoted) = Ip::quoted(&output.payload[8..]) else { return };
            let (Some(Ends { protocol, ports, .. }), addr) = (ends(&quoted), v4(quoted.src)) else { return };
            let inside = Inside { addr, port: ports.0 };
            let known = before.iter().any(|view| (view.protocol, view.inside) == (protocol, inside))
                || self.explicit.iter().any(|m| (m.protocol, m.inside) == (protocol, inside));
            return assert!(known, "an error about a packet of {inside:?}, who is unknown");
        }
        let (Some(Ends { protocol, ports, .. }), Some(out)) = (ends(output), ends(input)) else { return };
        let (inside, port) = (Inside { addr: v4(output.dst), port: ports.1 }, out.ports.1);
        let remote = remote(protocol, output.src, ports.0);
        let exact = |view: &&FlowView<Inside>| {
            (view.protocol, view.outside.port, view.remote.unwrap_or(ANYBODY)) == (protocol, port, remote)
        };
        match before.iter().find(exact) {
            Some(view) => {
                assert_eq!(view.inside, inside, "another one's packet");
                if let Some(flow) = self.flow(protocol, inside, remote).filter(|flow| flow.port == port) {
                    // Of a superpacket the last segment alone may have the FIN.
                    flow.sends(1, out.flags, now);
                }
            }
            None => {
                let filter = self.filter(protocol);
                let opens = |view: &FlowView<Inside>| {
                    let mine = (view.protocol, view.outside.port, view.inside) == (protocol, port, inside);
                    let far = match filter {
                        Filter::EndpointIndependent => true,
                        Filter::AddressDependent => view.remote.is_some_and(|r| r.addr == remote.addr),
                        Filter::AddressAndPortDependent => false,
                    };
                    mine && !view.shared && far
                };
                let set = |m: &Mapping<Inside>| (m.protocol, m.port, m.inside) == (protocol, port, inside);
                let open = before.iter().any(opens) || self.explicit.iter().any(set);
                assert!(open, "{remote:?} came through to {inside:?} by {port}");
            }
        }
    }

    fn dropped(&mut self, napt: &Napt<Inside>, input: &Ip, reason: DropReason, packet: &Packet, now: Duration) {
        let Some(Ends { protocol, ports, flags }) = ends(input) else { return };
        if !input.v6 && reason == DropReason::NaptExhausted {
            let inside = Inside { addr: v4(input.src), port: ports.0 };
            let remote = remote(protocol, input.dst, ports.1);
            let of = || self.listed.iter().filter(|view| view.protocol == protocol);
            let full = protocol != Protocol::Icmp && napt.flows(protocol) >= self.params.max_flows as usize;
            // One that is not swept yet has room to give, and its place on a port.
            let expired = of().count() < napt.flows(protocol);
            if !full || expired {
                let free = napt.capacity(protocol) - napt.ports_in_use(protocol);
                assert_eq!(free, 0, "exhausted with free ports");
                let own = of().any(|view| view.inside == inside && !view.shared);
                assert!(!own, "exhausted, and {inside:?} has a port");
                let shared: BTreeSet<u16> = of().filter(|view| view.shared).map(|view| view.outside.port).collect();
                let fits = |port: &u16| {
                    let itself = remote == Remote { addr: self.customer.addr.into(), port: *port };
                    !itself && !of().any(|view| view.outside.port == *port && view.remote == Some(remote))
                };
                let sharing = self.params.sharing.threshold > 0 && protocol != Protocol::Icmp;
                assert!(
                    !sharing || expired || !shared.iter().any(fits),
                    "exhausted beside a shared port for {remote:?}"
                );
            }
        }
        if input.v6 && input.dst == self.customer.map_address() {
            let known = embedded(input.src).is_some_and(|far| {
                let remote = remote(protocol, &far, ports.0);
                let is = |view: &FlowView<Inside>| {
                    (view.protocol, view.outside.port, view.remote.unwrap_or(ANYBODY)) == (protocol, ports.1, remote)
                };
                self.listed.iter().any(is)
            });
            let unknown = matches!(reason, DropReason::NaptNoMapping | DropReason::NaptFiltered);
            assert!(!known || !unknown, "{reason:?}, and there is a flow");
            if reason == DropReason::NaptNoMapping && flags.is_some_and(|f| f & (SYN | ACK | RST) == SYN) {
                self.refused.push((now, packet.bytes.clone()));
            }
        }
    }
}

fn noted(view: &FlowView<Inside>) -> Noted {
    let far = view.remote.filter(|_| view.shared).map(|r| (r.addr, r.port));
    (view.outside.addr, view.protocol, view.outside.port, (view.inside.addr, view.inside.port), far)
}

impl Watch<Ce> for Tracker {
    fn step(run: &mut super::engine::Run<Ce, Tracker>, what: u8, data: &[u8]) -> bool {
        super::ce::step(run, what, data)
    }

    fn before(&mut self, ce: &mut Ce, _: Duration) {
        self.full = Protocol::ALL.map(|protocol| ce.flows(protocol) >= self.params.max_flows as usize);
    }

    fn output(&mut self, _: &Packet, output: &Packet) {
        // RFC 7599 §8.1: the source is the MAP address, the port one of the set.
        let out = Ip::quoted(&output.bytes).expect("an output");
        let customer = &self.customer;
        if !out.v6 || !customer.alone {
            return;
        }
        assert_eq!(out.src, customer.map_address());
        if customer.ports.1 > 0 || customer.napt {
            assert!(out.port(true).is_none_or(|port| customer.has(port) && (port != 0 || !customer.napt)));
        }
        if customer.ports.1 > 0 {
            let later = out.fragment.is_some_and(|(_, offset, _)| offset > 0);
            assert!(out.port(true).is_some() || out.is_icmp_error() || later, "nothing without a port: {output:02x?}");
        }
    }

    fn after(&mut self, ce: &mut Ce, input: &Packet, verdict: Verdict, outputs: &[Packet], now: Duration) {
        if ce.napt().is_none() {
            return;
        }
        let before = std::mem::take(&mut self.listed);
        self.listed = list(ce, now);
        let ip = Ip::quoted(&input.bytes);
        let keys = |views: &[FlowView<Inside>]| views.iter().map(key).collect::<Vec<_>>();
        let (old, new) = (keys(&before), keys(&self.listed));
        match (verdict, &ip) {
            (Verdict::Forward, Some(ip)) if !ip.v6 && !ip.is_icmp_error() => {
                let made = new.iter().filter(|key| !old.contains(key)).count();
                let ended = old.iter().filter(|key| !new.contains(key)).count();
                // Those that waited for a first fragment have flows of their own if its one was lost.
                let most = if ip.fragment.is_some() { outputs.len() } else { 1 };
                assert!(made <= most && ended <= made, "{made} made, {ended} ended");
                let output = Ip::quoted(&outputs[0].bytes).expect("an output");
                self.went_out(ip, &output, &before, now);
            }
            (Verdict::Forward, Some(ip)) if ip.v6 => {
                assert_eq!(old, new, "inbound packets make nothing");
                let output = Ip::quoted(&outputs[0].bytes).expect("an output");
                self.came_in(ip, &output, &before, now);
            }
            _ => assert_eq!(before, self.listed, "{verdict:?} changes nothing"),
        }
        if let (Verdict::Drop { reason, .. }, Some(ip), Some(napt)) = (verdict, &ip, ce.napt()) {
            self.dropped(napt, ip, reason, input, now);
        }
        self.look(ce, now);
    }

    /// RFC 5382 REQ-4: a SYN that nobody asked for is answered after six seconds, once.
    fn late(&mut self, reply: &Packet, now: Duration) {
        let ip = Ip::whole(&reply.bytes).expect("a packet");
        assert!(ip.v6 && ip.is_icmp_error() && ip.transport_is_valid(ip.payload, false) == Some(true));
        assert_eq!(ip.payload[..2], [1, 4]);
        let is = |(at, syn): &(Duration, Vec<u8>)| {
            now >= *at + PATIENCE && syn[8..24] == *ip.dst && syn.starts_with(&ip.payload[8..])
        };
        let at = self.refused.iter().position(is).expect("the SYN that it answers");
        self.refused.remove(at);
    }

    fn passed(&mut self, ce: &mut Ce, told: bool, now: Duration) {
        self.full = [false; 3];
        self.look(ce, now);
        audit(ce, now);
        if told && let Some(napt) = ce.napt() {
            for protocol in Protocol::ALL {
                let listed = self.listed.iter().filter(|view| view.protocol == protocol).count();
                assert_eq!(listed, napt.flows(protocol), "{protocol:?} that has expired");
            }
        }
    }
}
