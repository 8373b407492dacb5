//! Whether everything that is kept twice agrees with a plain recount: for tests, and in no release build.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::counts::{to_address, to_remote};
use super::params::Filter;
use super::ports::Use;
use super::table::Table;
use super::{InsideKey, Napt, Protocol};

/// What is wrong.
pub(super) type Found = Result<(), String>;

pub(super) fn ensure(holds: bool, else_say: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(else_say()) }
}

impl<K: InsideKey> Napt<K> {
    /// Counts everything again, in time in proportion to the table; `Err` says what does not agree.
    #[doc(hidden)]
    pub fn audit(&self, now: Duration) -> Result<(), String> {
        for table in &self.tables {
            let of = |what: String| format!("{:?}: {what}", table.protocol);
            table.flows.audit(now).map_err(of)?;
            table.audit().map_err(of)?;
            self.audit_explicit(table).map_err(of)?;
        }
        self.explicit.audit()
    }

    /// Pinned ports and held flows are those that were asked for.
    fn audit_explicit(&self, table: &Table<K>) -> Found {
        let ports = &table.ports;
        let set = |n: u32| ports.set().nth(n).zip(ports.set().nth(n).and_then(|port| ports.index(port)));
        for (port, index) in (0..ports.set().count()).filter_map(set) {
            let map = self.explicit.maps.get(&(table.protocol, port));
            ensure(ports.is_pinned(index) == map.is_some(), || format!("port {port}: pinned, or asked for"))?;
            let own = map.is_none_or(|map| ports.used(index) == Use::Own(map.inside));
            ensure(own, || format!("port {port} is another's"))?;
            let first = map.is_none_or(|map| ports.of_inside(&map.inside) == Some(index));
            ensure(first, || format!("port {port} is not found by its owner"))?;
        }
        for (id, flow) in table.flows.all() {
            let peer = self.explicit.peers.get(&(table.protocol, id));
            let same = peer.is_some_and(|p| (p.inside, p.remote, p.port) == (flow.inside, flow.remote, flow.port));
            ensure(table.flows.is_held(flow) == same, || format!("port {}: held, or asked for", flow.port))?;
        }
        let peers = self.explicit.peers.keys().filter(|(protocol, _)| *protocol == table.protocol).count();
        let held = table.flows.all().filter(|(_, flow)| table.flows.is_held(flow)).count();
        ensure(peers == held, || format!("{peers} peers, {held} held flows"))
    }
}

impl<K: InsideKey> Table<K> {
    fn audit(&self) -> Found {
        let (mut on, mut to, mut sharers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut ends = BTreeSet::new();
        for (id, flow) in self.flows.all() {
            let index = self.index(flow).ok_or_else(|| format!("port {} is of no set", flow.port))?;
            *on.entry(index).or_insert(0u32) += 1;
            *to.entry(to_address(flow.port, flow.remote.addr)).or_insert(0u32) += 1;
            match self.ports.used(index) {
                Use::Free => return Err(format!("a flow on port {}, which is free", flow.port)),
                Use::Own(inside) => ensure(inside == flow.inside, || format!("port {} is another's", flow.port))?,
                Use::Shared => *sharers.entry(to_remote(flow.remote)).or_insert(0u32) += 1,
            }
            let first = ends.insert((flow.port, to_remote(flow.remote)));
            ensure(first, || format!("port {}: two flows for one answer", flow.port))?;
            let (there, back) =
                (self.flows.between(&flow.inside, flow.remote), self.flows.at_port(flow.port, flow.remote));
            ensure(there.is_some_and(|found| found.0 == id), || "a flow that is not found from inside".into())?;
            ensure(back.is_some_and(|found| found.0 == id), || "a flow that is not found from outside".into())?;
            let waits = self.waits(flow.tcp) && !self.flows.is_held(flow);
            let waiting = self.flows.waited(flow, Duration::ZERO).is_some();
            ensure(waits == waiting, || format!("port {}: waits {waits}, listed {waiting}", flow.port))?;
        }
        if self.filter == Filter::AddressDependent {
            self.permits.audit(&to).map_err(|what| format!("permits: {what}"))?;
        }
        if self.protocol != Protocol::Icmp {
            self.sharers.audit(&sharers).map_err(|what| format!("sharers: {what}"))?;
        }
        self.audit_ports(&on)
    }

    fn audit_ports(&self, on: &BTreeMap<u16, u32>) -> Found {
        let ports = &self.ports;
        let (mut free, mut shared) = (0, BTreeSet::new());
        for (port, index) in (0..ports.set().count()).filter_map(|n| Some((ports.set().nth(n)?, n as u16))) {
            let flows = on.get(&index).copied().unwrap_or(0);
            ensure(ports.flows(index) == flows, || {
                format!("port {port}: {flows} flows, counted {}", ports.flows(index))
            })?;
            let unused = flows == 0 && !ports.is_pinned(index);
            ensure((ports.used(index) == Use::Free) == unused, || format!("port {port}: free, or used"))?;
            match ports.used(index) {
                Use::Free => free += usize::from(port != 0),
                Use::Own(inside) => {
                    let found = ports.of_inside(&inside).map(|index| ports.used(index));
                    ensure(found == Some(Use::Own(inside)), || format!("port {port} is not found by its owner"))?;
                }
                Use::Shared => _ = shared.insert(index),
            }
        }
        ensure(free == ports.free(), || format!("{free} free ports, counted {}", ports.free()))?;
        let listed: BTreeSet<u16> = ports.shared().iter().copied().collect();
        ensure(listed.len() == ports.shared().len() && listed == shared, || "other ports are shared".into())
    }
}
