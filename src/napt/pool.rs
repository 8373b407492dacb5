//! The free ports of one protocol: pick at random, take and give back one by number, each in O(1).
use crate::map::port_set::PortSet;

/// A port as its place in the ascending port set.
pub(super) type PortIndex = u16;

/// What an outside port keeps of the inside port (RFC 4787 REQ-3a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// 1-1023.
    System = 0,
    /// 1024-65535, and every identifier.
    Dynamic = 1,
}

impl Class {
    /// Ports of one class for as long as it lasts, then those of the other.
    fn preference(self) -> [Class; 2] {
        match self {
            Class::System => [Class::System, Class::Dynamic],
            Class::Dynamic => [Class::Dynamic, Class::System],
        }
    }
}

/// A sparse set per class: `free` in no order, `place` says where in it a port stands.
pub(super) struct PortPool {
    free: [Vec<PortIndex>; 2],
    place: Vec<u16>,
    /// Indices below this are of class `System`: the set is ascending.
    system: u32,
    /// Ports to hand out when all are free.
    capacity: usize,
}

impl PortPool {
    /// All ports of the set but port 0, which no host answers to. `classes`: whether 0-1023 is a class of its own.
    pub(super) fn new(ports: &PortSet, classes: bool) -> PortPool {
        let count = ports.count();
        let below = |limit: u16| (0..count).take_while(|n| ports.nth(*n).is_some_and(|p| p < limit)).count() as u32;
        let mut pool = PortPool {
            free: [Vec::new(), Vec::new()],
            place: vec![0; count as usize],
            system: if classes { below(1024) } else { 0 },
            capacity: 0,
        };
        // Room for the whole class at once: `give` on the packet path never allocates.
        pool.free[Class::System as usize].reserve_exact(pool.system as usize);
        pool.free[Class::Dynamic as usize].reserve_exact((count - pool.system) as usize);
        for index in below(1)..count {
            pool.give(index as PortIndex);
        }
        pool.capacity = pool.free.iter().map(Vec::len).sum();
        pool
    }

    /// How many ports can be handed out when all are free.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many are free now.
    pub(super) fn len(&self) -> usize {
        self.free.iter().map(Vec::len).sum()
    }

    /// The port that `draw` falls on.
    pub(super) fn pick(&self, class: Class, draw: u64) -> Option<PortIndex> {
        class.preference().into_iter().find_map(|class| {
            let free = &self.free[class as usize];
            let at = (u128::from(draw) * free.len() as u128) >> 64;
            free.get(at as usize).copied()
        })
    }

    /// Takes a port out; `false` where it was not free.
    pub(super) fn take(&mut self, index: PortIndex) -> bool {
        let free = &mut self.free[self.class_of(index) as usize];
        let Some(&place) = self.place.get(usize::from(index)) else { return false };
        if free.get(usize::from(place)) != Some(&index) {
            return false;
        }
        free.swap_remove(usize::from(place));
        if let Some(&moved) = free.get(usize::from(place)) {
            self.place[usize::from(moved)] = place;
        }
        true
    }

    /// Puts back a port that `take` took.
    pub(super) fn give(&mut self, index: PortIndex) {
        let free = &mut self.free[self.class_of(index) as usize];
        self.place[usize::from(index)] = free.len() as u16;
        free.push(index);
    }

    fn class_of(&self, index: PortIndex) -> Class {
        if u32::from(index) < self.system { Class::System } else { Class::Dynamic }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_address_keeps_port_0_back_and_the_classes_apart() {
        let mut pool = PortPool::new(&PortSet::ALL, true);
        assert_eq!(pool.capacity(), 65_535);
        assert!(!pool.take(0), "port 0 is nobody's");
        for draw in [0, 1 << 40, u64::MAX / 2, u64::MAX] {
            assert!((1..1024).contains(&pool.pick(Class::System, draw).unwrap()));
            assert!(pool.pick(Class::Dynamic, draw).unwrap() >= 1024);
        }
    }

    #[test]
    fn the_other_class_serves_when_one_is_used_up() {
        let mut pool = PortPool::new(&PortSet::ALL, true);
        (1..1024).for_each(|index| assert!(pool.take(index)));
        assert!(pool.pick(Class::System, 5).unwrap() >= 1024);
        (1024..=65_535).for_each(|index| assert!(pool.take(index)));
        assert_eq!(pool.pick(Class::Dynamic, 5), None);
        pool.give(700);
        assert_eq!(pool.pick(Class::Dynamic, u64::MAX), Some(700));
    }

    #[test]
    fn identifiers_have_one_class() {
        let pool = PortPool::new(&PortSet::ALL, false);
        assert!((0..1000).any(|n| pool.pick(Class::Dynamic, n << 54).unwrap() < 1024));
    }

    #[test]
    fn a_taken_port_is_free_again_only_when_given() {
        let mut pool = PortPool::new(&PortSet::ALL, true);
        assert!(pool.take(5000));
        assert!(!pool.take(5000));
        pool.give(5000);
        assert!(pool.take(5000));
    }
}
