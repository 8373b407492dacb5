//! Counters: written by one engine, read by anyone. Only an engine's `handle` counts.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::verdict::{Direction, DropReason};

/// Packets and octets (of IP, as received for inputs and as sent for outputs).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets; a segmentation-offload packet counts as one.
    pub packets: u64,
    /// Octets from the IP header on.
    pub octets: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// A pair of cells with a single writer: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
struct Cells {
    packets: AtomicU64,
    octets: AtomicU64,
}

impl Cells {
    #[inline(always)]
    fn add(&self, octets: usize) {
        self.add_many(1, octets as u64);
    }

    #[inline(always)]
    fn add_many(&self, packets: u64, octets: u64) {
        self.packets.store(self.packets.load(Ordering::Relaxed) + packets, Ordering::Relaxed);
        self.octets.store(self.octets.load(Ordering::Relaxed) + octets, Ordering::Relaxed);
    }

    fn get(&self) -> Traffic {
        Traffic { packets: self.packets.load(Ordering::Relaxed), octets: self.octets.load(Ordering::Relaxed) }
    }
}

/// The live counters of one engine, one pair of cells for each direction.
#[derive(Debug)]
pub struct Counters {
    received: [Cells; 2],
    forwarded: [Cells; 2],
    dropped: [[Cells; DropReason::COUNT]; 2],
    held: [AtomicU64; 2],
    replies: [Cells; 2],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            received: Default::default(),
            forwarded: Default::default(),
            dropped: std::array::from_fn(|_| std::array::from_fn(|_| Cells::default())),
            held: Default::default(),
            replies: Default::default(),
        }
    }
}

impl Counters {
    /// One input of `octets`.
    #[inline(always)]
    pub fn received(&self, direction: Direction, octets: usize) {
        self.received[direction as usize].add(octets);
    }

    /// One input forwarded; `octets` of its output.
    #[inline(always)]
    pub fn forwarded(&self, direction: Direction, octets: usize) {
        self.forwarded[direction as usize].add(octets);
    }

    /// One input of `octets` dropped.
    #[inline(always)]
    pub fn dropped(&self, direction: Direction, reason: DropReason, octets: usize) {
        self.dropped[direction as usize][reason as usize].add(octets);
    }

    /// Inputs of `octets` in all, held until now, dropped.
    pub fn dropped_held(&self, direction: Direction, reason: DropReason, packets: u64, octets: u64) {
        self.dropped[direction as usize][reason as usize].add_many(packets, octets);
        self.released(direction, packets);
    }

    /// One input held.
    pub fn held(&self, direction: Direction) {
        let cell = &self.held[direction as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Inputs that are no longer held; another engine may have held them, so only the sum over engines that share a
    /// fragment table is a number of packets.
    pub fn released(&self, direction: Direction, packets: u64) {
        let cell = &self.held[direction as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_sub(packets), Ordering::Relaxed);
    }

    /// One ICMP error of ours, of `octets`, about a packet of `direction`.
    pub fn replied(&self, direction: Direction, octets: usize) {
        self.replies[direction as usize].add(octets);
    }

    /// What the cells hold now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { directions: Direction::ALL.map(|d| self.direction(d as usize)) }
    }

    fn direction(&self, d: usize) -> DirectionSnapshot {
        DirectionSnapshot {
            received: self.received[d].get(),
            forwarded: self.forwarded[d].get(),
            dropped: std::array::from_fn(|r| self.dropped[d][r].get()),
            held: self.held[d].load(Ordering::Relaxed),
            replies: self.replies[d].get(),
        }
    }
}

/// Inputs of one engine that went on, by the number of their rule and by direction, with the octets in which they came.
#[derive(Debug, Default)]
pub struct RuleCounters(Box<[[Cells; 2]]>);

impl RuleCounters {
    /// Most rules that are counted: beyond, the cells of random rules would not stay in a core's cache, and a packet
    /// would wait for them.
    pub const MOST: usize = 1000;

    /// At 0; of more than `MOST` rules nothing is counted.
    pub fn new(rules: usize) -> RuleCounters {
        let rules = if rules > Self::MOST { 0 } else { rules };
        RuleCounters((0..rules).map(|_| Default::default()).collect())
    }

    /// One input of `octets` went on.
    #[inline(always)]
    pub fn forwarded(&self, rule: u32, direction: Direction, octets: usize) {
        if let Some(cells) = self.0.get(rule as usize) {
            cells[direction as usize].add(octets);
        }
    }

    /// What they hold now, by rule and direction.
    pub fn iter(&self) -> impl Iterator<Item = [Traffic; 2]> + '_ {
        self.0.iter().map(|[a, b]| [a.get(), b.get()])
    }
}

/// Counters as they were at one moment; sums over engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// By direction, in the order of `Direction::ALL`.
    pub directions: [DirectionSnapshot; 2],
}

impl Default for Snapshot {
    fn default() -> Self {
        Counters::default().snapshot()
    }
}

/// The counters of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectionSnapshot {
    /// All inputs.
    pub received: Traffic,
    /// Inputs that went on.
    pub forwarded: Traffic,
    /// Inputs dropped, by `DropReason as usize`.
    pub dropped: [Traffic; DropReason::COUNT],
    /// Inputs held now; modulo 2^64 the sum over engines that share a fragment table.
    pub held: u64,
    /// ICMP errors of ours.
    pub replies: Traffic,
}

impl Snapshot {
    /// Adds the counters of another engine.
    pub fn add(&mut self, other: &Snapshot) {
        for (mine, theirs) in self.directions.iter_mut().zip(&other.directions) {
            mine.received += theirs.received;
            mine.forwarded += theirs.forwarded;
            for (m, t) in mine.dropped.iter_mut().zip(&theirs.dropped) {
                *m += *t;
            }
            mine.held = mine.held.wrapping_add(theirs.held);
            mine.replies += theirs.replies;
        }
    }

    /// One direction.
    pub fn direction(&self, direction: Direction) -> &DirectionSnapshot {
        &self.directions[direction as usize]
    }
}

impl DirectionSnapshot {
    /// Inputs dropped for any reason.
    pub fn dropped_total(&self) -> Traffic {
        let mut sum = Traffic::default();
        for t in &self.dropped {
            sum += *t;
        }
        sum
    }

    /// received = forwarded + dropped + held.
    pub fn is_balanced(&self) -> bool {
        let ended = self.forwarded.packets + self.dropped_total().packets;
        self.received.packets == ended.wrapping_add(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rules_are_not_counted_one_by_one() {
        let counted = |rules: usize| {
            let counters = RuleCounters::new(rules);
            counters.forwarded(rules as u32 - 1, Direction::V6ToV4, 84);
            counters.forwarded(rules as u32, Direction::V6ToV4, 84);
            counters.iter().map(|[a, b]| (a.packets, b.packets, b.octets)).collect::<Vec<_>>()
        };
        assert_eq!(counted(2), [(0, 0, 0), (0, 1, 84)]);
        assert_eq!(counted(RuleCounters::MOST).last(), Some(&(0, 1, 84)));
        assert!(counted(RuleCounters::MOST + 1).is_empty());
    }
}
