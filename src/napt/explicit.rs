//! Ports that are set instead of found: forwards of the configuration.
//!
//! Such a port is one inside endpoint's whatever flows there are, open to anybody, and the one that its new flows leave
//! by. What comes in on it makes no state.
use std::collections::BTreeMap;
use std::time::Duration;

use super::ports::Use;
use super::{Inside, InsideKey, Napt, Protocol};

/// An outside port that is always an inside endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<K = Inside> {
    /// TCP or UDP; of ICMP the port is an identifier.
    pub protocol: Protocol,
    /// Outside port, 1..=65535, in the port set.
    pub port: u16,
    /// Inside endpoint.
    pub inside: K,
}

/// What `set_forwards` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Forwards that are new.
    pub added: usize,
    /// Forwards that are no more; their flows go on.
    pub removed: usize,
    /// Flows of others that a new forward's port ended.
    pub purged: usize,
    /// Forwards that cannot be: a port outside the set, or a port or an endpoint that an earlier one has.
    pub refused: usize,
}

/// Who has a port that was set.
pub(super) struct Explicit<K> {
    ports: BTreeMap<(Protocol, u16), K>,
}

impl<K: InsideKey> Explicit<K> {
    pub(super) fn new() -> Explicit<K> {
        Explicit { ports: BTreeMap::new() }
    }

    /// The ports of a protocol that were set, and for whom.
    pub(super) fn of(&self, protocol: Protocol) -> impl Iterator<Item = (u16, K)> {
        self.ports.range((protocol, 0)..=(protocol, u16::MAX)).map(|((_, port), inside)| (*port, *inside))
    }
}

impl<K: InsideKey> Napt<K> {
    /// The forwards from now on; those that were there before stay as they are, with their flows.
    ///
    /// The port of one that is gone serves the flows on it until the last has ended. A new one takes its port from
    /// whoever has it, and ends the flows there. An endpoint that has another port keeps it for the flows on it; new
    /// ones leave by the forward's. Takes time in proportion to the flows; not for the packet path.
    pub fn set_forwards(&mut self, forwards: &[Forward<K>], _now: Duration) -> Changed {
        let mut changed = Changed::default();
        let mut wanted = BTreeMap::<(Protocol, u16), K>::new();
        for forward in forwards {
            let Forward { protocol, port, inside } = *forward;
            let fits = port > 0 && self.table(protocol).ports.index(port).is_some();
            let meets = wanted.iter().any(|(at, other)| at.0 == protocol && (at.1 == port || *other == inside));
            if fits && !meets {
                wanted.insert((protocol, port), inside);
            } else {
                changed.refused += 1;
            }
        }
        let gone: Vec<_> = (self.explicit.ports.iter())
            .filter(|(at, inside)| wanted.get(at) != Some(*inside))
            .map(|(at, _)| *at)
            .collect();
        for (protocol, port) in gone {
            self.explicit.ports.remove(&(protocol, port));
            self.tables[protocol as usize].unpin(port);
            changed.removed += 1;
        }
        wanted.retain(|at, _| !self.explicit.ports.contains_key(at));
        for protocol in Protocol::ALL {
            let table = &mut self.tables[protocol as usize];
            let is_others = |port, inside| wanted.get(&(protocol, port)).is_some_and(|own| *own != inside);
            let ends = |port, inside| match table.ports.index(port).map(|index| table.ports.used(index)) {
                Some(Use::Shared) => wanted.contains_key(&(protocol, port)),
                _ => is_others(port, inside),
            };
            let ended: Vec<_> = table.flows.all().filter(|(_, f)| ends(f.port, f.inside)).map(|(id, _)| id).collect();
            changed.purged += ended.len();
            ended.into_iter().for_each(|id| table.end(id));
        }
        for ((protocol, port), inside) in wanted {
            if self.tables[protocol as usize].pin(port, inside) {
                self.explicit.ports.insert((protocol, port), inside);
                changed.added += 1;
            } else {
                changed.refused += 1;
            }
        }
        changed
    }

    /// The forwards of another NAPT with the same ports from now on. At once where they are the same.
    pub(super) fn go_on_with_forwards_of(&mut self, next: &Napt<K>, now: Duration) {
        if self.explicit.ports != next.explicit.ports {
            let forwards: Vec<_> = next.forwards().collect();
            self.set_forwards(&forwards, now);
        }
    }

    /// The ports that are set, by protocol and port.
    pub fn forwards(&self) -> impl Iterator<Item = Forward<K>> {
        self.explicit.ports.iter().map(|(&(protocol, port), &inside)| Forward { protocol, port, inside })
    }
}
