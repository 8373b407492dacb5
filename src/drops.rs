//! A small sample of what was dropped lately, for people who look for the reason.

use std::time::Duration;

use crate::verdict::{Direction, DropReason};
use crate::wire::PacketBuf;

/// Drops kept.
const KEPT: usize = 64;
/// Octets kept of each: headers, and those that an ICMP error quotes.
const HEAD: usize = 128;
/// One drop in this time is kept: a flood costs a comparison each.
const PERIOD: Duration = Duration::from_millis(1);

/// A packet that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// By the engine's clock.
    pub at: Duration,
    /// Where it was going.
    pub direction: Direction,
    /// Why it did not.
    pub reason: DropReason,
    /// The number of the rule by which it was mapped; none where none was found, or where the rules have changed since.
    pub rule: Option<u32>,
    /// Its length.
    pub octets: usize,
    head: [u8; HEAD],
    kept: u8,
}

impl Dropped {
    /// Its first octets.
    pub fn head(&self) -> &[u8] {
        self.head.get(..usize::from(self.kept)).unwrap_or_default()
    }
}

/// The sample, of one engine.
#[derive(Debug, Default)]
pub struct Drops {
    ring: Vec<Dropped>,
    /// Where the next one goes once all places are taken.
    oldest: usize,
    /// When the next one may be kept.
    next: Duration,
}

impl Drops {
    /// Room for all that it will keep.
    pub fn new() -> Drops {
        Drops { ring: Vec::with_capacity(KEPT), ..Drops::default() }
    }

    /// One more; kept where none was in the last millisecond.
    #[inline]
    pub fn take(
        &mut self,
        packet: &PacketBuf,
        direction: Direction,
        reason: DropReason,
        rule: Option<u32>,
        now: Duration,
    ) {
        if now >= self.next {
            self.keep(packet.bytes(), direction, reason, rule, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn keep(&mut self, packet: &[u8], direction: Direction, reason: DropReason, rule: Option<u32>, now: Duration) {
        self.next = now + PERIOD;
        let mut dropped = Dropped { at: now, direction, reason, rule, octets: packet.len(), head: [0; HEAD], kept: 0 };
        for (to, from) in dropped.head.iter_mut().zip(packet) {
            *to = *from;
            dropped.kept += 1;
        }
        if self.ring.len() < KEPT {
            // Within the room of `new`.
            self.ring.push(dropped);
            return;
        }
        if let Some(place) = self.ring.get_mut(self.oldest) {
            *place = dropped;
            self.oldest = (self.oldest + 1) % KEPT;
        }
    }

    /// Numbers of rules no longer say anything.
    pub fn forget_rules(&mut self) {
        self.ring.iter_mut().for_each(|dropped| dropped.rule = None);
    }

    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Dropped> {
        let (newer, older) = self.ring.split_at(self.oldest.min(self.ring.len()));
        older.iter().chain(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(drops: &mut Drops, number: u8, now: Duration) {
        let packet = PacketBuf::from_slice(&[number; 200]);
        drops.take(&packet, Direction::V4ToV6, DropReason::NoRule, Some(7), now);
    }

    #[test]
    fn one_a_millisecond_and_the_last_64_are_kept() {
        let mut drops = Drops::new();
        let us = Duration::from_micros;
        for (number, at) in [(1, 10), (2, 500), (3, 1009), (4, 1010), (5, 2009), (6, 5000)] {
            take(&mut drops, number, us(at));
        }
        let kept = |drops: &Drops| drops.iter().map(|d| d.head()[0]).collect::<Vec<_>>();
        assert_eq!(kept(&drops), [1, 4, 6]);
        for number in 10..110 {
            take(&mut drops, number, us(10_000) * u32::from(number));
        }
        assert_eq!(kept(&drops), (46..110).collect::<Vec<_>>());
        let last = drops.iter().last().unwrap();
        assert_eq!((last.octets, last.head().len(), last.rule), (200, 128, Some(7)));
        drops.forget_rules();
        assert!(drops.iter().all(|dropped| dropped.rule.is_none()));
    }
}
