//! The flows for people, a page at a time.
use std::time::Duration;

use super::clock::Tick;
use super::flow::Flow;
use super::ports::Use;
use super::table::Table;
use super::tcp::TcpState;
use super::{InsideKey, Napt, Outside, Protocol, Remote};

/// Slots that one page looks at, however few flows are in them.
const SLOTS: usize = 1024;

/// A flow at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView<K> {
    /// TCP, UDP, or an echo identifier.
    pub protocol: Protocol,
    /// In the home.
    pub inside: K,
    /// As the Internet sees it.
    pub outside: Outside,
    /// Whom it is with. `None` for an echo identifier, which is the same for all (RFC 5508 REQ-1).
    pub remote: Option<Remote>,
    /// Whether the outside port serves flows of other endpoints too (RFC 7857 §3).
    pub shared: bool,
    /// Whether a host has asked to keep it (PEER, RFC 6887 §12).
    pub peer: bool,
    /// How far it is.
    pub state: FlowState,
    /// Since its idle time began.
    pub idle: Duration,
    /// Until it ends, if nothing refreshes it.
    pub expires_in: Duration,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// TCP of which not both ends have acknowledged something.
    Opening,
    /// TCP of which both have.
    Established,
    /// TCP after both FINs, or after a reset that counts.
    Closing,
    /// UDP that nobody has answered.
    Unanswered,
    /// UDP that somebody has.
    Answered,
    /// Echoes.
    Query,
}

impl FlowState {
    /// The name for people and in JSON: `opening`, `established`, `closing`, `unanswered`, `answered`, `query`.
    pub fn name(self) -> &'static str {
        match self {
            FlowState::Opening => "opening",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::Unanswered => "unanswered",
            FlowState::Answered => "answered",
            FlowState::Query => "query",
        }
    }

    fn of(protocol: Protocol, tcp: TcpState) -> FlowState {
        match protocol {
            Protocol::Icmp => FlowState::Query,
            Protocol::Udp if tcp == TcpState::ANSWERED => FlowState::Answered,
            Protocol::Udp => FlowState::Unanswered,
            Protocol::Tcp if tcp.is_closing() => FlowState::Closing,
            Protocol::Tcp if tcp.is_established() => FlowState::Established,
            Protocol::Tcp => FlowState::Opening,
        }
    }
}

impl<K: InsideKey> Napt<K> {
    /// Shows at most `most` flows of a protocol to `each`, from slot `from` on, and returns the slot where the next page
    /// begins; `None` at the end. The first page begins at 0.
    ///
    /// A page looks at 1,024 slots at most, so it may show none and yet not be the last. Flows keep their slots: what
    /// lives through all pages is shown once. What has expired by `now` is left out.
    pub fn page(
        &self,
        protocol: Protocol,
        from: u32,
        most: usize,
        now: Duration,
        each: &mut dyn FnMut(FlowView<K>),
    ) -> Option<u32> {
        let table = self.table(protocol);
        let from = from as usize;
        let (mut next, mut shown) = (from, 0);
        let end = table.flows.slots().min(from.saturating_add(SLOTS));
        while next < end && shown < most {
            if let Some(flow) = table.flows.in_slot(next)
                && !table.flows.is_expired(flow, Tick::reached(now))
            {
                each(self.view(table, next, flow, now));
                shown += 1;
            }
            next += 1;
        }
        (next < table.flows.slots()).then_some(next as u32)
    }

    fn view(&self, table: &Table<K>, slot: usize, flow: &Flow<K>, now: Duration) -> FlowView<K> {
        let port = flow.port;
        FlowView {
            protocol: table.protocol,
            inside: flow.inside,
            outside: Outside { addr: self.addr, port },
            remote: (flow.remote != Remote::ANYBODY).then_some(flow.remote),
            shared: table.index(flow).is_some_and(|index| table.ports.used(index) == Use::Shared),
            peer: table.flows.is_held(flow),
            state: FlowState::of(table.protocol, flow.tcp),
            idle: Tick::reached(now).from(table.flows.since(flow)),
            expires_in: self
                .until(table.protocol, slot)
                .unwrap_or(table.flows.deadline(flow))
                .time()
                .saturating_sub(now),
        }
    }
}
