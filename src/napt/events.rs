//! What a log of mappings needs: which port was whose, and until when.
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::clock::Tick;
use super::table::Table;
use super::{InsideKey, Napt, Outside, Protocol, Remote};

/// Events of a protocol that wait to be read.
const ROOM: usize = 16_384;

/// A mapping was made or has ended: of an endpoint-independent port when it is taken and when it is free again, of a
/// shared one for each flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<K> {
    /// When, rounded down to a quarter of a second; where a host gives up what it has asked for, when the NAPT last
    /// looked at the clock.
    pub at: Duration,
    /// Which of both.
    pub kind: EventKind,
    /// TCP, UDP, or an echo identifier.
    pub protocol: Protocol,
    /// In the home.
    pub inside: K,
    /// As the Internet sees it.
    pub outside: Outside,
    /// Whom the flow is with, on a shared port alone.
    pub remote: Option<Remote>,
}

/// What has happened to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It begins.
    Made,
    /// It ends.
    Ended(Why),
}

/// Why a mapping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Its idle time, or what a host had asked for, is over.
    Expired,
    /// Another flow needed its port or its place.
    GaveWay,
    /// The configuration: another address or port set, less room, a forward.
    Purged,
}

impl Why {
    /// `expired`, `gave-way`, `purged`.
    pub fn name(self) -> &'static str {
        match self {
            Why::Expired => "expired",
            Why::GaveWay => "gave-way",
            Why::Purged => "purged",
        }
    }
}

/// The events of one protocol.
pub(super) struct Log<K> {
    waiting: Option<VecDeque<Event<K>>>,
    lost: u64,
    /// Flows that ended since another needed their place; counted whether or not anybody listens.
    pub(super) gave_way: u64,
    /// The last time that was heard of.
    pub(super) now: Tick,
    addr: Ipv4Addr,
    protocol: Protocol,
}

impl<K: InsideKey> Log<K> {
    pub(super) fn new(addr: Ipv4Addr, protocol: Protocol) -> Log<K> {
        Log { waiting: None, lost: 0, gave_way: 0, now: Tick::default(), addr, protocol }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.waiting.is_some()
    }

    pub(super) fn addr(&self) -> Ipv4Addr {
        self.addr
    }

    /// Another outside address, after the events of the one before.
    pub(super) fn move_to(&mut self, addr: Ipv4Addr) {
        self.addr = addr;
    }

    pub(super) fn push(&mut self, kind: EventKind, inside: K, port: u16, remote: Option<Remote>) {
        let Some(waiting) = &mut self.waiting else { return };
        if waiting.len() == ROOM {
            self.lost += 1;
            return;
        }
        let outside = Outside { addr: self.addr, port };
        waiting.push_back(Event { at: self.now.time(), kind, protocol: self.protocol, inside, outside, remote });
    }
}

/// What waits to be read of a NAPT that is no more.
pub struct Past<K>([Log<K>; 3]);

impl<K: InsideKey> Past<K> {
    /// As `Napt::next_event`.
    pub fn next_event(&mut self) -> Option<Event<K>> {
        oldest(self.0.iter_mut())
    }

    /// As `Napt::lost_events`.
    pub fn lost_events(&self) -> u64 {
        self.0.iter().map(|log| log.lost).sum()
    }
}

/// The oldest event of some logs.
fn oldest<'a, K: InsideKey + 'a>(logs: impl Iterator<Item = &'a mut Log<K>>) -> Option<Event<K>> {
    let first = |log: &Log<K>| log.waiting.as_ref().and_then(VecDeque::front).map(|event| event.at);
    logs.filter(|log| first(log).is_some()).min_by_key(|log| first(log))?.waiting.as_mut()?.pop_front()
}

impl<K: InsideKey> Napt<K> {
    /// The last events of a NAPT that will have no more packets: all its mappings have ended. `None` where none are
    /// recorded.
    pub fn past(&mut self, now: Duration) -> Option<Past<K>> {
        self.look_at_the_clock(now);
        self.tables.iter_mut().for_each(Table::note_end_of_all);
        let addr = self.addr;
        let logs = self.tables.each_mut().map(|table| {
            let empty = Log::new(addr, table.protocol);
            std::mem::replace(&mut table.log, empty)
        });
        logs[0].is_on().then_some(Past(logs))
    }

    /// Begins to record events, or stops and forgets those that wait. Takes the memory for 16,384 events of each protocol;
    /// recording itself allocates nothing and costs one branch while it is off. Mappings that there are already, and those
    /// that `restore` brings, have no event of their making.
    pub fn record(&mut self, on: bool) {
        for table in &mut self.tables {
            if on != table.log.is_on() {
                table.log.waiting = on.then(|| VecDeque::with_capacity(ROOM));
            }
        }
    }

    /// The oldest event that waits; those of a protocol come in their order.
    pub fn next_event(&mut self) -> Option<Event<K>> {
        oldest(self.tables.iter_mut().map(|table| &mut table.log))
    }

    /// Events that found no room since the start, because nobody read them in time.
    pub fn lost_events(&self) -> u64 {
        self.tables.iter().map(|table| table.log.lost).sum()
    }

    /// What happens next, happens now.
    pub(super) fn look_at_the_clock(&mut self, now: Duration) {
        self.tables.iter_mut().for_each(|table| table.log.now = Tick::reached(now));
    }
}
