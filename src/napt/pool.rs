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
    fn other(self) -> Class {
        match self {
            Class::System => Class::Dynamic,
            Class::Dynamic => Class::System,
        }
    }
}

/// A sparse set for each class and parity: `free` in no order, `place` says where in it a port stands.
pub(super) struct PortPool {
    set: PortSet,
    free: [Vec<PortIndex>; 4],
    place: Vec<u16>,
    /// Indices below this are of class `System`: the set is ascending.
    system: u32,
    parity: bool,
    /// Ports to hand out when all are free.
    capacity: usize,
}

impl PortPool {
    /// All ports of the set but port 0, which no host answers to. `classes`: whether 0-1023 is a class of its own;
    /// `parity`: whether odd ports and even ones are told apart.
    pub(super) fn new(ports: &PortSet, classes: bool, parity: bool) -> PortPool {
        let count = ports.count();
        let below = |limit: u16| (0..count).take_while(|n| ports.nth(*n).is_some_and(|p| p < limit)).count() as u32;
        let mut pool = PortPool {
            set: *ports,
            free: Default::default(),
            place: vec![0; count as usize],
            system: if classes { below(1024) } else { 0 },
            parity,
            capacity: 0,
        };
        let first = below(1);
        let mut sizes = [0; 4];
        (first..count).for_each(|index| sizes[pool.list_of(index as PortIndex)] += 1);
        // Room for all of a list at once: `give` on the packet path never allocates.
        pool.free.iter_mut().zip(sizes).for_each(|(free, size)| free.reserve_exact(size));
        (first..count).for_each(|index| pool.give(index as PortIndex));
        pool.capacity = pool.len();
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

    /// The port that `draw` falls on, of this class and of the parity of `like` while there are such; else of the
    /// other parity, else of the other class.
    pub(super) fn pick(&self, class: Class, like: u16, draw: u64) -> Option<PortIndex> {
        let odd = self.odd(like);
        let lists = [(class, odd), (class, !odd), (class.other(), odd), (class.other(), !odd)];
        lists.into_iter().find_map(|(class, odd)| {
            let free = &self.free[list(class, odd)];
            let at = (u128::from(draw) * free.len() as u128) >> 64;
            free.get(at as usize).copied()
        })
    }

    /// Takes a port out; `false` where it was not free.
    pub(super) fn take(&mut self, index: PortIndex) -> bool {
        let list = self.list_of(index);
        let free = &mut self.free[list];
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
        let list = self.list_of(index);
        let free = &mut self.free[list];
        self.place[usize::from(index)] = free.len() as u16;
        free.push(index);
    }

    fn odd(&self, port: u16) -> bool {
        self.parity && port % 2 == 1
    }

    fn list_of(&self, index: PortIndex) -> usize {
        let class = if u32::from(index) < self.system { Class::System } else { Class::Dynamic };
        list(class, self.set.nth(u32::from(index)).is_some_and(|port| self.odd(port)))
    }
}

fn list(class: Class, odd: bool) -> usize {
    class as usize * 2 + usize::from(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_address_keeps_port_0_back_and_the_classes_apart() {
        let mut pool = PortPool::new(&PortSet::ALL, true, false);
        assert_eq!(pool.capacity(), 65_535);
        assert!(!pool.take(0), "port 0 is nobody's");
        for draw in [0, 1 << 40, u64::MAX / 2, u64::MAX] {
            assert!((1..1024).contains(&pool.pick(Class::System, 7, draw).unwrap()));
            assert!(pool.pick(Class::Dynamic, 7, draw).unwrap() >= 1024);
        }
    }

    #[test]
    fn the_other_class_serves_when_one_is_used_up() {
        let mut pool = PortPool::new(&PortSet::ALL, true, false);
        (1..1024).for_each(|index| assert!(pool.take(index)));
        assert!(pool.pick(Class::System, 7, 5).unwrap() >= 1024);
        (1024..=65_535).for_each(|index| assert!(pool.take(index)));
        assert_eq!(pool.pick(Class::Dynamic, 7, 5), None);
        pool.give(700);
        assert_eq!(pool.pick(Class::Dynamic, 7, u64::MAX), Some(700));
    }

    #[test]
    fn parity_stays_while_the_class_has_it() {
        let mut pool = PortPool::new(&PortSet::ALL, true, true);
        for like in [2000, 2001u16] {
            for draw in [0, 1 << 40, u64::MAX / 2, u64::MAX] {
                assert_eq!(pool.pick(Class::System, like, draw).unwrap() % 2, like % 2);
                assert_eq!(pool.pick(Class::Dynamic, like, draw).unwrap() % 2, like % 2);
            }
        }
        (1..1024).step_by(2).for_each(|index| assert!(pool.take(index)));
        let even = pool.pick(Class::System, 500 + 1, 1 << 60).unwrap();
        assert!(even < 1024 && even.is_multiple_of(2), "the class before the parity");
    }

    #[test]
    fn identifiers_have_one_class() {
        let pool = PortPool::new(&PortSet::ALL, false, false);
        assert!((0..1000).any(|n| pool.pick(Class::Dynamic, 7, n << 54).unwrap() < 1024));
    }

    #[test]
    fn a_taken_port_is_free_again_only_when_given() {
        let mut pool = PortPool::new(&PortSet::ALL, true, false);
        assert!(pool.take(5000));
        assert!(!pool.take(5000));
        pool.give(5000);
        assert!(pool.take(5000));
    }
}
