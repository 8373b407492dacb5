//! Whether the lists and buckets of flows say what a plain recount says.
use std::collections::BTreeSet;
use std::time::Duration;

use super::{Among, Beside, Flow, Flows, Id, Idle, slot};
use crate::napt::InsideKey;
use crate::napt::audit::{Found, ensure};
use crate::napt::clock::Tick;

impl<K: InsideKey> Flows<K> {
    /// Of a table whose newest time is not after `now`.
    pub(in crate::napt) fn audit(&self, now: Duration) -> Found {
        let live = self.all().count();
        ensure(live == self.live && live <= self.limit, || format!("{live} flows, counted {}", self.live))?;
        let vacant = self.numbers(self.vacant, |flow| flow.outbound)?;
        ensure(vacant.len() + live == self.slots.len(), || format!("{} vacant slots of some", vacant.len()))?;
        ensure(vacant.iter().all(|id| self.slots[slot(*id)].port == 0), || "a flow in a vacant slot".into())?;
        self.audit_buckets()?;
        let mut listed = 0;
        for (n, list) in self.lists.iter().enumerate() {
            let ids = self.numbers(list.oldest, |flow| flow.newer)?;
            listed += ids.len();
            self.audit_order(&ids, list.newest, |flow| flow.older, |flow| flow.idle as usize == n)?;
            let times: Vec<Tick> = ids.iter().map(|id| self.since(&self.slots[slot(*id)])).collect();
            ensure(n == Idle::Held as usize || times.is_sorted(), || format!("list {n} is out of order: {times:?}"))?;
        }
        ensure(listed == live, || format!("{listed} of {live} flows in lists"))?;
        let fits = |flow: &Flow<K>| self.is_held(flow) || flow.idle == flow.tcp.idle();
        ensure(self.all().all(|(_, flow)| fits(flow)), || "an idle time of another state".into())?;
        self.audit_beside(&self.hosts, "waiting", |id| {
            let flow = &self.slots[slot(id)];
            flow.is_waiting().then(|| self.host_bucket(id))
        })?;
        for host in &self.hosts {
            let ids = self.numbers(host.oldest, |flow| flow.beside_newer)?;
            let waited: Vec<_> = ids.iter().map(|id| self.waited(&self.slots[slot(*id)], now)).collect();
            ensure(waited.is_sorted_by(|a, b| a >= b), || format!("waiting flows are out of order: {waited:?}"))?;
        }
        self.audit_beside(&self.closed, "closed", |id| {
            let flow = &self.slots[slot(id)];
            (flow.among == Among::Closed).then(|| self.closed_bucket(flow.remote))
        })?;
        self.audit_beside(&[self.alone], "alone", |id| (self.slots[slot(id)].among == Among::Alone).then_some(0))?;
        for bucket in self.closed.iter().chain([&self.alone]) {
            let ids = self.numbers(bucket.oldest, |flow| flow.beside_newer)?;
            let times: Vec<Tick> = ids.iter().map(|id| self.since(&self.slots[slot(*id)])).collect();
            ensure(times.is_sorted(), || format!("closed flows are out of order: {times:?}"))?;
        }
        let fits = |flow: &Flow<K>| match flow.among {
            Among::Nobody => flow.idle != Idle::Closing,
            Among::Unanswered => flow.idle != Idle::Closing && flow.idle != Idle::Held,
            Among::Closed | Among::Alone => flow.idle == Idle::Closing,
        };
        ensure(self.all().all(|(_, flow)| fits(flow)), || "a flow in a list of another kind".into())
    }

    /// Both hash tables, bucket by bucket.
    fn audit_buckets(&self) -> Found {
        let (mut out, mut back) = (0, 0);
        for n in 0..self.outbound.len() {
            let ids = self.numbers(self.outbound[n], |flow| flow.outbound)?;
            out += ids.len();
            let here = |flow: &Flow<K>| flow.port != 0 && self.outbound_bucket(&flow.inside, flow.remote) == n;
            ensure(ids.iter().all(|id| here(&self.slots[slot(*id)])), || format!("a stray in outbound bucket {n}"))?;
        }
        for n in 0..self.inbound.len() {
            let ids = self.numbers(self.inbound[n], |flow| flow.inbound)?;
            back += ids.len();
            let here = |flow: &Flow<K>| flow.port != 0 && self.inbound_bucket(flow.port, flow.remote) == n;
            ensure(ids.iter().all(|id| here(&self.slots[slot(*id)])), || format!("a stray in inbound bucket {n}"))?;
        }
        ensure((out, back) == (self.live, self.live), || format!("{out} and {back} of {} in buckets", self.live))
    }

    /// Lists by bucket: every flow that has a bucket is in it, and nobody else.
    fn audit_beside(&self, lists: &[Beside], name: &str, of: impl Fn(Id) -> Option<usize>) -> Found {
        let mut listed = 0;
        for (n, list) in lists.iter().enumerate() {
            let ids = self.numbers(list.oldest, |flow| flow.beside_newer)?;
            listed += ids.len();
            let count = list.count;
            ensure(ids.len() == count as usize, || format!("{name} {n}: {} listed, {count} counted", ids.len()))?;
            ensure(ids.iter().all(|id| of(*id) == Some(n)), || format!("{name} {n}: a stray"))?;
            self.audit_order(&ids, list.newest, |flow| flow.beside_older, |_| true)?;
        }
        let all = self.all().filter(|(id, _)| of(*id).is_some()).count();
        ensure(listed == all, || format!("{name}: {listed} of {all} listed"))
    }

    /// Links back, the last one, and that all fit.
    fn audit_order(
        &self,
        ids: &[Id],
        newest: Option<Id>,
        older: fn(&Flow<K>) -> Option<Id>,
        fits: impl Fn(&Flow<K>) -> bool,
    ) -> Found {
        ensure(newest == ids.last().copied(), || "a list does not end with its newest".into())?;
        for (n, id) in ids.iter().enumerate() {
            let flow = &self.slots[slot(*id)];
            let before = n.checked_sub(1).map(|n| ids[n]);
            ensure(flow.port != 0 && fits(flow), || "a stray in a list".into())?;
            ensure(older(flow) == before, || "a list that leads elsewhere backwards".into())?;
        }
        Ok(())
    }

    /// A chain, which ends.
    fn numbers(&self, first: Option<Id>, next: fn(&Flow<K>) -> Option<Id>) -> Result<Vec<Id>, String> {
        let (mut ids, mut seen, mut at) = (Vec::new(), BTreeSet::new(), first);
        while let Some(id) = at {
            ensure(seen.insert(id), || "a chain that goes round".into())?;
            ids.push(id);
            at = next(self.slots.get(slot(id)).ok_or("a chain that leads nowhere")?);
        }
        Ok(ids)
    }
}
