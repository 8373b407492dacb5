//! The mappings of a CE's NAPT, for whoever asks.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::control::{Event, Filter, Happened, Mapping, Origin, Ports};
use super::engine::Machine;
use super::text;
use crate::napt::{self, FlowView, Inside, Napt, Protocol};

/// In the order in which they are listed.
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];

/// A row of the listing as the engine knows it.
pub enum Entry {
    /// A flow.
    Flow(FlowView<Inside>),
    /// A port that is set, of this address.
    Port(Ipv4Addr, napt::Mapping),
}

/// Where a listing stands: flows by protocol, then ports that are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    protocol: usize,
    slot: u32,
}

/// The next rows from a place on, and where to go on. Looks at `most` of them: bounded work on the engine's thread.
/// The error says why there are none at all.
pub fn page(
    machine: &Machine,
    filter: &Filter,
    from: Place,
    most: usize,
    now: Duration,
) -> Result<(Vec<Entry>, Option<Place>), String> {
    let napt = napt(machine)?;
    let Some(&protocol) = PROTOCOLS.get(from.protocol) else {
        let ports = napt.explicit(now).filter(|mapping| mapping.remote.is_none());
        let some: Vec<_> = ports.skip(from.slot as usize).take(most).collect();
        let next = (some.len() == most).then(|| Place { slot: from.slot + most as u32, ..from });
        let wanted = some.into_iter().filter(|m| filter.admits(m.protocol, m.inside, m.port, None));
        return Ok((wanted.map(|mapping| Entry::Port(napt.addr(), mapping)).collect(), next));
    };
    let after = Place { protocol: from.protocol + 1, slot: 0 };
    if filter.protocol.is_some_and(|wanted| Protocol::from(wanted) != protocol) {
        return Ok((Vec::new(), Some(after)));
    }
    let mut flows = Vec::new();
    let next = napt.page(protocol, from.slot, most, now, &mut |flow| {
        if filter.admits(flow.protocol, flow.inside, flow.outside.port, flow.remote) {
            flows.push(Entry::Flow(flow));
        }
    });
    Ok((flows, Some(next.map_or(after, |slot| Place { slot, ..from }))))
}

/// How many ports and flows there are of each protocol.
pub fn ports(machine: &Machine) -> Result<Vec<Ports>, String> {
    let napt = napt(machine)?;
    let of = |protocol: Protocol| Ports {
        protocol: protocol.into(),
        ports: napt.capacity(protocol),
        in_use: napt.ports_in_use(protocol),
        shared: napt.shared_ports(protocol),
        flows: napt.flows(protocol),
        gave_way: napt.gave_way(protocol),
    };
    Ok(PROTOCOLS.map(of).into())
}

/// Has a CE record what is made and what ends, or stop; nothing of a BR.
pub fn record(machine: &mut Machine, on: bool) {
    if let Some(ce) = machine.ce_mut() {
        ce.record(on);
    }
}

/// What has happened since the last call, at most `most`, and how much was lost since the start.
pub fn events(machine: &mut Machine, most: usize) -> (Vec<napt::Event<Inside>>, u64) {
    let Some(ce) = machine.ce_mut() else { return (Vec::new(), 0) };
    let events = std::iter::from_fn(|| ce.next_event()).take(most).collect();
    (events, ce.lost_events())
}

impl Event {
    /// As others are told of it, whose clock says `at`.
    pub fn of(event: &napt::Event<Inside>, at: String) -> Event {
        let (kind, why) = match event.kind {
            napt::EventKind::Made => (Happened::Made, None),
            napt::EventKind::Ended(why) => (Happened::Ended, Some(why.name().to_owned())),
        };
        Event {
            at,
            event: kind,
            why,
            protocol: event.protocol.into(),
            inside: SocketAddrV4::new(event.inside.addr, event.inside.port),
            outside: SocketAddrV4::new(event.outside.addr, event.outside.port),
            remote: event.remote.map(|remote| SocketAddrV4::new(remote.addr, remote.port)),
        }
    }

    /// For people: one line.
    pub fn in_words(&self) -> String {
        let Event { at, event, protocol, inside, outside, .. } = self;
        let (event, protocol) = (event.name(), protocol.name());
        let remote = self.remote.map(|remote| format!(" with {remote}")).unwrap_or_default();
        let why = self.why.as_deref().map(|why| format!(", {why}")).unwrap_or_default();
        format!("{at} {event:<5} {protocol:<4} {inside} as {outside}{remote}{why}")
    }
}

fn napt(machine: &Machine) -> Result<&Napt<Inside>, String> {
    let ce = machine.ce().ok_or("a BR keeps no mappings: ask a CE")?;
    ce.napt()
        .ok_or_else(|| "there is no NAPT here: `napt.enabled` is false, or the CE has no End-user prefix".to_owned())
}

impl From<FlowView<Inside>> for Mapping {
    fn from(flow: FlowView<Inside>) -> Mapping {
        Mapping {
            protocol: flow.protocol.into(),
            inside: SocketAddrV4::new(flow.inside.addr, flow.inside.port),
            outside: SocketAddrV4::new(flow.outside.addr, flow.outside.port),
            remote: flow.remote.map(|remote| SocketAddrV4::new(remote.addr, remote.port)),
            origin: match (flow.peer, flow.shared) {
                (true, _) => Origin::Pcp,
                (_, true) => Origin::Shared,
                (_, false) => Origin::Own,
            },
            state: Some(flow.state.name().to_owned()),
            idle: Some(seconds(flow.idle)),
            expires_in: Some(seconds(flow.expires_in)),
        }
    }
}

impl From<Entry> for Mapping {
    fn from(entry: Entry) -> Mapping {
        match entry {
            Entry::Flow(flow) => flow.into(),
            Entry::Port(addr, mapping) => Mapping {
                protocol: mapping.protocol.into(),
                inside: SocketAddrV4::new(mapping.inside.addr, mapping.inside.port),
                outside: SocketAddrV4::new(addr, mapping.port),
                remote: None,
                origin: match mapping.origin {
                    napt::Origin::Static => Origin::Static,
                    napt::Origin::Pcp(_) => Origin::Pcp,
                    napt::Origin::NatPmp => Origin::NatPmp,
                },
                state: None,
                idle: None,
                expires_in: mapping.remaining.map(seconds),
            },
        }
    }
}

/// To a tenth: the NAPT keeps quarters.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// The head of the table of mappings, for people.
pub fn head() -> String {
    columns(["PROTO", "INSIDE", "OUTSIDE", "REMOTE", "ORIGIN", "STATE", "IDLE", "ENDS IN"].map(str::to_owned))
}

/// A row of it.
pub fn row(mapping: &Mapping) -> String {
    let or = |text: Option<String>, none: &str| text.unwrap_or_else(|| none.to_owned());
    columns([
        mapping.protocol.name().to_owned(),
        mapping.inside.to_string(),
        mapping.outside.to_string(),
        or(mapping.remote.map(|remote| remote.to_string()), "anybody"),
        mapping.origin.name().to_owned(),
        or(mapping.state.clone(), "-"),
        or(mapping.idle.map(text::time), "-"),
        or(mapping.expires_in.map(text::time), "never"),
    ])
}

/// What stands below it.
pub fn sums(ports: &[Ports]) -> String {
    let of = |p: &Ports| {
        let flows = text::counted(p.flows, "flow");
        format!(
            "{}: {flows}, {} of {} ports in use, {} of them shared\n",
            p.protocol.name(),
            p.in_use,
            p.ports,
            p.shared
        )
    };
    ports.iter().map(of).collect()
}

/// Of fixed widths: a listing may be long, and begins before its end is known.
fn columns(cells: [String; 8]) -> String {
    let [proto, inside, outside, remote, origin, state, idle, ends] = cells;
    format!("{proto:<5}  {inside:<21}  {outside:<21}  {remote:<21}  {origin:<7}  {state:<11}  {idle:>8}  {ends:>8}\n")
}
