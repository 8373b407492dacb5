//! Lists beside those of the idle times, for whoever needs a port: flows that nobody has answered, by inside host, and
//! closed ones, by remote endpoint or alone on their ports. A flow stands in one of them at most.
use std::time::Duration;

use super::{Flow, Flows, Id, at_port, slot};
use crate::napt::clock::{Tick, Ticks};
use crate::napt::{InsideKey, Remote};

/// Inside hosts are told apart by this many buckets where the one that holds most is looked for.
pub(super) const HOSTS: usize = 256;
/// A bucket for so many flows where closed ones are looked for by their remote endpoint.
pub(super) const CLOSED_PER_BUCKET: usize = 32;

/// In which list beside that of its idle time a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    Nobody,
    /// Those of its host that nobody has answered.
    Unanswered,
    /// The closed ones of its remote endpoint's bucket.
    Closed,
    /// The closed ones that were alone on a port of their own.
    Alone,
}

/// Flows linked by `beside`.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside {
    pub(super) oldest: Option<Id>,
    pub(super) newest: Option<Id>,
    pub(super) count: u32,
}

impl<K: InsideKey> Flows<K> {
    /// A flow waits, and had so for some ticks when its idle time began; the longest of a host comes first.
    pub(in crate::napt) fn put_waiting(&mut self, id: Id, waited: u16) {
        if !self.slots[slot(id)].is_waiting() {
            self.wait(id, waited);
        }
    }

    /// Another connection of the same ends: nobody has waited for an answer of it yet.
    #[inline]
    pub(in crate::napt) fn begin_again(&mut self, id: Id) {
        if self.slots[slot(id)].is_waiting() {
            self.leave(id);
        }
    }

    /// How long nobody has answered a flow; `None` where somebody has.
    pub(in crate::napt) fn waited(&self, flow: &Flow<K>, now: Duration) -> Option<Duration> {
        flow.is_waiting().then(|| now.saturating_sub(self.since(flow).before(flow.waited).time()))
    }

    #[cold]
    pub(super) fn set_waiting(&mut self, id: Id, waiting: bool) {
        if waiting {
            self.wait(id, 0);
        } else {
            self.leave(id);
        }
    }

    /// Closed flows with a remote endpoint, and perhaps others of its bucket, the longest closed first.
    pub(in crate::napt) fn closed_beside(&self, remote: Remote) -> impl Iterator<Item = (Id, &Flow<K>)> {
        self.chain(self.closed[self.closed_bucket(remote)].oldest, |flow| flow.beside_newer)
    }

    /// Closed flows that were alone on a port of their own, the longest closed first.
    pub(in crate::napt) fn closed_alone(&self) -> impl Iterator<Item = (Id, &Flow<K>)> {
        self.chain(self.alone.oldest, |flow| flow.beside_newer)
    }

    /// Flows that have waited since before `limit` ticks, the longest first, of the inside host with most of them.
    pub(in crate::napt) fn waiting_longest(&self, now: Tick, limit: Ticks) -> impl Iterator<Item = (Id, &Flow<K>)> {
        let waited = move |flow: &Flow<K>| self.has_waited(flow, now, limit);
        let mut most = (0, None);
        for host in &self.hosts {
            if host.count > most.0 && host.oldest.is_some_and(|id| waited(&self.slots[slot(id)])) {
                most = (host.count, host.oldest);
            }
        }
        self.chain(most.1, |flow| flow.beside_newer).take_while(move |(_, flow)| waited(flow))
    }

    /// Flows that nobody has answered and the ticks before their idle time began, the longest of a host first.
    pub(in crate::napt) fn waiting(&self) -> impl Iterator<Item = (&Flow<K>, u16)> {
        let of_host = |host: &Beside| self.chain(host.oldest, |flow| flow.beside_newer);
        self.hosts.iter().flat_map(of_host).map(|(_, flow)| (flow, flow.waited))
    }

    /// Whether a flow has waited for so long.
    pub(in crate::napt) fn has_waited(&self, flow: &Flow<K>, now: Tick, limit: Ticks) -> bool {
        flow.is_waiting() && now.waited(self.since(flow), flow.waited) >= limit
    }

    pub(super) fn host_bucket(&self, id: Id) -> usize {
        self.hash.hash(&self.slots[slot(id)].inside.host()) as usize % HOSTS
    }

    pub(super) fn closed_bucket(&self, remote: Remote) -> usize {
        self.hash.hash(&at_port(0, remote)) as usize & (self.closed.len() - 1)
    }

    fn wait(&mut self, id: Id, waited: u16) {
        self.slots[slot(id)].waited = waited;
        self.join(id, Among::Unanswered);
    }

    /// Into a list beside; out of none.
    pub(super) fn join(&mut self, id: Id, among: Among) {
        self.slots[slot(id)].among = among;
        if let Some((slots, list)) = self.beside(id) {
            append_beside(slots, list, id);
        }
    }

    /// Out of the list beside in which a flow stands, if any.
    pub(super) fn leave(&mut self, id: Id) {
        if let Some((slots, list)) = self.beside(id) {
            unlink_beside(slots, list, id);
            self.slots[slot(id)].among = Among::Nobody;
        }
    }

    fn beside(&mut self, id: Id) -> Option<(&mut [Flow<K>], &mut Beside)> {
        let flow = &self.slots[slot(id)];
        let list = match flow.among {
            Among::Nobody => return None,
            Among::Unanswered => {
                let bucket = self.host_bucket(id);
                &mut self.hosts[bucket]
            }
            Among::Closed => {
                let bucket = self.closed_bucket(flow.remote);
                &mut self.closed[bucket]
            }
            Among::Alone => &mut self.alone,
        };
        Some((&mut self.slots, list))
    }
}

fn append_beside<K>(slots: &mut [Flow<K>], list: &mut Beside, id: Id) {
    list.count += 1;
    let newest = list.newest.replace(id);
    match newest {
        Some(before) => slots[slot(before)].beside_newer = Some(id),
        None => list.oldest = Some(id),
    }
    let flow = &mut slots[slot(id)];
    flow.beside_older = newest;
    flow.beside_newer = None;
}

fn unlink_beside<K>(slots: &mut [Flow<K>], list: &mut Beside, id: Id) {
    list.count -= 1;
    let flow = &slots[slot(id)];
    let (older, newer) = (flow.beside_older, flow.beside_newer);
    match older {
        Some(older) => slots[slot(older)].beside_newer = newer,
        None => list.oldest = newer,
    }
    match newer {
        Some(newer) => slots[slot(newer)].beside_older = older,
        None => list.newest = older,
    }
}
