//! The end of every `handle`: one verdict, one count, one answer.

use std::sync::Arc;
use std::time::Duration;

use crate::drops::Drops;
use crate::engine::TransmitKind;
use crate::frag::Losses;
use crate::reply::{Quote, Replier};
use crate::siit::Refusal;
use crate::stats::Counters;
use crate::verdict::{Direction, DropReason, Verdict};
use crate::wire::PacketBuf;
use crate::wire::queue::PacketQueue;

/// Counters, answers and further outputs of an engine.
pub struct Desk {
    counters: Arc<Counters>,
    drops: Drops,
    replier: Replier,
    replies: PacketQueue,
    /// Further outputs of the packet in hand.
    pub more: PacketQueue,
}

impl Desk {
    /// Counters at 0.
    pub fn new(replier: Replier) -> Desk {
        Desk {
            counters: Arc::default(),
            drops: Drops::new(),
            replier,
            replies: PacketQueue::default(),
            more: PacketQueue::default(),
        }
    }

    /// Answers as `next` does from now on; the limit goes on. What answered until then is in `next`.
    pub fn replace(&mut self, next: &mut Replier) {
        next.go_on_with(&self.replier);
        self.drops.forget_rules();
        std::mem::swap(&mut self.replier, next);
    }

    /// The direction by the version nibble. What is no IP counts as `v4_to_v6`.
    #[inline(always)]
    pub fn direction(packet: &PacketBuf) -> Direction {
        match packet.bytes().first().map(|b| b >> 4) {
            Some(6) => Direction::V6ToV4,
            _ => Direction::V4ToV6,
        }
    }

    /// Counts one input of `octets` and what became of it, by this rule; answers a drop.
    #[inline(always)]
    pub fn close(
        &mut self,
        packet: &PacketBuf,
        direction: Direction,
        octets: usize,
        outcome: Result<(), Refusal>,
        rule: Option<u32>,
        now: Duration,
    ) -> Verdict {
        self.counters.received(direction, octets);
        match outcome {
            Ok(()) => {
                let further = if self.more.is_empty() { 0 } else { self.more.octets() };
                self.counters.forwarded(direction, packet.len() + further);
                Verdict::Forward
            }
            Err(refusal) => self.refuse(packet, direction, octets, refusal, rule, now),
        }
    }

    /// One input is kept for later.
    pub fn hold(&mut self, direction: Direction, octets: usize) -> Verdict {
        self.counters.received(direction, octets);
        self.counters.held(direction);
        Verdict::Held
    }

    /// One input dropped that earns no answer of its own.
    pub fn drop_silently(
        &mut self,
        packet: &PacketBuf,
        direction: Direction,
        reason: DropReason,
        now: Duration,
    ) -> Verdict {
        let octets = packet.len();
        self.counters.received(direction, octets);
        self.counters.dropped(direction, reason, octets);
        self.drops.take(packet, direction, reason, None, now);
        Verdict::Drop { reason, reply: false }
    }

    /// An input of `octets` that was held goes on as `first` and `others`, or is dropped without an answer.
    pub fn release(
        &mut self,
        first: &PacketBuf,
        others: &mut PacketQueue,
        direction: Direction,
        octets: usize,
        outcome: Result<(), Refusal>,
    ) {
        if let Err(Refusal { reason, .. }) = outcome {
            return self.counters.dropped_held(direction, reason, 1, octets as u64);
        }
        self.counters.released(direction, 1);
        self.counters.forwarded(direction, first.len() + others.octets());
        self.more.push().set(first.bytes());
        while let Some(other) = others.pop() {
            self.more.push().set(other.bytes());
        }
    }

    /// Held inputs were given up.
    pub fn lose(&mut self, lost: &Losses) {
        let kinds = [(lost.timeout, DropReason::FragmentTimeout), (lost.full, DropReason::FragmentTableFull)];
        for (counts, reason) in kinds {
            for (direction, (packets, octets)) in Direction::ALL.into_iter().zip(counts) {
                if packets > 0 {
                    self.counters.dropped_held(direction, reason, packets, octets);
                }
            }
        }
    }

    #[cold]
    fn refuse(
        &mut self,
        packet: &PacketBuf,
        direction: Direction,
        octets: usize,
        Refusal { reason, detail }: Refusal,
        rule: Option<u32>,
        now: Duration,
    ) -> Verdict {
        self.counters.dropped(direction, reason, octets);
        self.drops.take(packet, direction, reason, rule, now);
        let reply = self.replier.answer(packet, direction, reason, detail, now, &mut self.replies);
        if let Some(len) = reply {
            self.counters.replied(direction, len);
        }
        Verdict::Drop { reason, reply: reply.is_some() }
    }

    /// What a later answer to an IPv6 packet will quote; `None` where it earns none.
    pub fn quote(&mut self, packet: &PacketBuf) -> Option<Quote> {
        self.replier.quote(packet, &mut self.replies)
    }

    /// Answers, late, a packet that was counted when it was dropped; `false` where the limit forbids it.
    pub fn tell_port_unreachable(&mut self, direction: Direction, quote: &Quote, now: Duration) -> bool {
        let reply = self.replier.port_unreachable(quote, now, &mut self.replies);
        if let Some(len) = reply {
            self.counters.replied(direction, len);
        }
        reply.is_some()
    }

    /// Further outputs first, then answers.
    pub fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        if let Some(packet) = self.more.pop() {
            return Some((TransmitKind::Packet, packet));
        }
        self.replies.pop().map(|packet| (TransmitKind::Reply, packet))
    }

    /// What was dropped lately.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// The live counters.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}
