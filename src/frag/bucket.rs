//! The fragmented packets of a few groups, and their early fragments.

use super::store::{Line, Store, chunks_of};
use super::{Key, Known, Later, Losses, Moment, Piece, Usage};
use crate::verdict::{Direction, DropReason};
use crate::wire::PacketBuf;

/// What is known of one packet.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    state: State,
    /// Octets of its first fragment; 0 before that comes.
    first_len: u32,
    /// Octets of the whole packet; 0 before the last fragment comes.
    total: u32,
    /// Octets that have passed.
    seen: u32,
    id: Option<u16>,
    /// The bucket's turn in which its first fragment was settled.
    turn: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first fragment has not come, or is being judged.
    Waiting,
    /// Its ports.
    Ports((u16, u16)),
    /// Why it was refused.
    Refused(DropReason),
}

const EMPTY: u32 = 0;

pub(super) struct Bucket {
    /// By slot: part of the key's hash, `EMPTY` where there is no entry.
    tags: Box<[u32]>,
    /// By slot: part of the source's hash. What is often looked through lies close together.
    sources: Box<[u32]>,
    /// By slot: when the first octet of the packet was seen.
    born: Box<[u64]>,
    /// By slot: what is held.
    held: Box<[Line]>,
    entries: Box<[Entry]>,
    store: Store,
    turn: u32,
}

/// What a packet is called in a bucket: parts of hashes, of its key and of its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    /// Never `EMPTY`.
    pub(super) tag: u32,
    pub(super) source: u32,
}

impl Entry {
    const NONE: Entry = Entry {
        key: Key { direction: Direction::V4ToV6, src: 0, dst: 0, id: 0, protocol: 0 },
        state: State::Waiting,
        first_len: 0,
        total: 0,
        seen: 0,
        id: None,
        turn: 0,
    };

    fn is_complete(&self) -> bool {
        self.total > 0 && self.seen >= self.total
    }

    /// Lets a later fragment of a settled packet pass, or says why not.
    fn pass(&mut self, offset: u32, len: u32, more: bool, turn: u32) -> Result<Known, DropReason> {
        match self.state {
            State::Ports(_) if self.turn != turn => {
                self.state = State::Refused(DropReason::FragmentWithoutPort);
                Err(DropReason::FragmentWithoutPort)
            }
            State::Ports(ports) if offset >= self.first_len => {
                self.seen = self.seen.saturating_add(len);
                if !more {
                    self.total = offset + len;
                }
                Ok(Known { ports, id: self.id })
            }
            State::Ports(_) => {
                self.state = State::Refused(DropReason::FragmentOverlap);
                Err(DropReason::FragmentOverlap)
            }
            State::Refused(reason) => Err(reason),
            State::Waiting => Err(DropReason::FragmentWithoutPort),
        }
    }
}

impl Bucket {
    pub(super) fn new(entries: u32, held_octets: u32) -> Bucket {
        let n = entries as usize;
        Bucket {
            tags: vec![EMPTY; n].into_boxed_slice(),
            sources: vec![0; n].into_boxed_slice(),
            born: vec![0; n].into_boxed_slice(),
            held: vec![Line::EMPTY; n].into_boxed_slice(),
            entries: vec![Entry::NONE; n].into_boxed_slice(),
            store: Store::new(held_octets),
            turn: 0,
        }
    }

    pub(super) fn first(
        &mut self,
        name: Name,
        piece: &Piece,
        ports: (u16, u16),
        id: Option<u16>,
        moment: Moment,
        lost: &mut Losses,
    ) -> Result<Option<u16>, DropReason> {
        let slot = match self.find(name, &piece.key, moment, lost) {
            Some(slot) => slot,
            None => self.insert(name, &piece.key, moment, lost),
        };
        let entry = &mut self.entries[slot];
        let other_len = entry.first_len != piece.len;
        match entry.state {
            // The Identification has come round, or the packet again.
            State::Ports(_) if entry.is_complete() => {
                *entry = Entry { key: piece.key, ..Entry::NONE };
                self.born[slot] = moment.now;
            }
            State::Ports(known) if known == ports && !other_len => return Ok(entry.id),
            // RFC 3128: whoever sends two first fragments wants one of them to be checked and the other to be used.
            State::Ports(_) | State::Refused(DropReason::FragmentOverlap) => {
                entry.state = State::Refused(DropReason::FragmentOverlap);
                return Err(DropReason::FragmentOverlap);
            }
            // Another thread is judging one.
            State::Waiting if entry.first_len != 0 && other_len => {
                entry.state = State::Refused(DropReason::FragmentOverlap);
                return Err(DropReason::FragmentOverlap);
            }
            State::Waiting | State::Refused(_) => {}
        }
        entry.state = State::Waiting;
        entry.first_len = piece.len;
        entry.id = entry.id.or(id);
        Ok(entry.id)
    }

    pub(super) fn settle(&mut self, name: Name, key: &Key, outcome: Result<(u16, u16), DropReason>) {
        let Some(slot) = self.slot(name, key) else { return };
        let entry = &mut self.entries[slot];
        if entry.state != State::Refused(DropReason::FragmentOverlap) {
            entry.seen = entry.seen.saturating_add(entry.first_len);
            entry.state = outcome.map_or_else(State::Refused, State::Ports);
            entry.turn = self.turn;
        }
    }

    pub(super) fn release(&mut self, name: Name, key: &Key, out: &mut PacketBuf) -> Option<Result<Known, DropReason>> {
        let slot = self.slot(name, key)?;
        let taken = self.store.take(&mut self.held[slot], Some(out))?;
        Some(self.entries[slot].pass(taken.offset, taken.len, taken.more, self.turn))
    }

    pub(super) fn later(
        &mut self,
        name: Name,
        piece: &Piece,
        packet: &[u8],
        moment: Moment,
        lost: &mut Losses,
    ) -> Later {
        let found = self.find(name, &piece.key, moment, lost);
        if let Some(slot) = found {
            let entry = &mut self.entries[slot];
            if entry.state != State::Waiting {
                return entry.pass(piece.offset, piece.len, piece.more, self.turn).map_or_else(Later::Drop, Later::Go);
            }
        }
        if self.store.capacity() == 0 {
            return Later::Drop(DropReason::FragmentWithoutPort);
        }
        if !self.make_room(chunks_of(packet.len()), name.source, found, lost) {
            return Later::Drop(DropReason::FragmentTableFull);
        }
        let slot = match found {
            Some(slot) => slot,
            None => self.insert(name, &piece.key, moment, lost),
        };
        let held = self.store.put(&mut self.held[slot], packet, piece);
        if held { Later::Held } else { Later::Drop(DropReason::FragmentTableFull) }
    }

    pub(super) fn refused(&self, name: Name, key: &Key, moment: Moment) -> Option<DropReason> {
        let slot = self.slot(name, key)?;
        match self.entries[slot].state {
            State::Refused(reason) if !moment.is_past(self.born[slot]) => Some(reason),
            _ => None,
        }
    }

    /// What is settled so far no longer serves later fragments.
    pub(super) fn turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Gives up what is too old and holds something; tells when the next is.
    pub(super) fn expire(&mut self, moment: Moment, lost: &mut Losses) -> Option<u64> {
        if self.store.free() == self.store.capacity() {
            return None;
        }
        let mut next = None;
        for slot in 0..self.tags.len() {
            if self.held[slot].count == 0 {
                continue;
            }
            if moment.is_past(self.born[slot]) {
                self.remove(slot, &mut lost.timeout);
            } else {
                let due = moment.due_of(self.born[slot]);
                next = Some(next.map_or(due, |n: u64| n.min(due)));
            }
        }
        next
    }

    pub(super) fn add_usage(&self, sum: &mut Usage) {
        sum.packets += self.tags.iter().filter(|tag| **tag != EMPTY).count() as u64;
        sum.held += self.held.iter().map(|line| u64::from(line.count)).sum::<u64>();
        sum.held_octets += self.store.used_octets();
    }

    /// The slot of a packet, however old.
    fn slot(&self, name: Name, key: &Key) -> Option<usize> {
        let is = |slot: usize, tag: u32| tag == name.tag && self.entries[slot].key == *key;
        self.tags.iter().enumerate().position(|(slot, tag)| is(slot, *tag))
    }

    /// The slot of a packet that is not too old.
    fn find(&mut self, name: Name, key: &Key, moment: Moment, lost: &mut Losses) -> Option<usize> {
        let slot = self.slot(name, key)?;
        if moment.is_past(self.born[slot]) {
            self.remove(slot, &mut lost.timeout);
            return None;
        }
        Some(slot)
    }

    /// A slot for a new packet: a free one, else the oldest that is too old or has passed as a whole, else the oldest
    /// of the source that has most.
    fn insert(&mut self, name: Name, key: &Key, moment: Moment, lost: &mut Losses) -> usize {
        let slot = match self.tags.iter().position(|tag| *tag == EMPTY) {
            Some(free) => free,
            None => {
                let done = |slot: usize| self.held[slot].count == 0 && self.entries[slot].is_complete();
                let slot = self.oldest(|slot| moment.is_past(self.born[slot]) || done(slot));
                let slot = slot.or_else(|| self.of_heaviest(name.source, |_| 1, |_| true)).unwrap_or(0);
                let past = moment.is_past(self.born[slot]);
                self.remove(slot, if past { &mut lost.timeout } else { &mut lost.full });
                slot
            }
        };
        self.tags[slot] = name.tag;
        self.sources[slot] = name.source;
        self.born[slot] = moment.now;
        self.entries[slot] = Entry { key: *key, ..Entry::NONE };
        slot
    }

    /// Makes room for `chunks`: the source that holds most gives up its oldest, whoever asks. Never what is held of
    /// the packet in slot `keep`.
    fn make_room(&mut self, chunks: usize, source: u32, keep: Option<usize>, lost: &mut Losses) -> bool {
        if chunks > self.store.capacity() {
            return false;
        }
        while self.store.free() < chunks {
            let chunks_in = |slot: usize| u32::from(self.held[slot].chunks);
            let may_go = |slot: usize| self.held[slot].count > 0 && Some(slot) != keep;
            let Some(slot) = self.of_heaviest(source, chunks_in, may_go) else { return false };
            self.drop_held(slot, &mut lost.full);
            // What is no longer whole is not waited for.
            if self.entries[slot].state == State::Waiting {
                self.entries[slot].state = State::Refused(DropReason::FragmentTableFull);
            }
        }
        true
    }

    fn oldest(&self, is: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.tags.len()).filter(|&slot| is(slot)).min_by_key(|&slot| self.born[slot])
    }

    /// Of the slots that may go, the oldest of the source that weighs most. `asking` weighs one more than it has.
    fn of_heaviest(&self, asking: u32, weight: impl Fn(usize) -> u32, may_go: impl Fn(usize) -> bool) -> Option<usize> {
        let total = |source: u32| -> u32 {
            let slots = self.sources.iter().enumerate().filter(|(_, s)| **s == source);
            slots.map(|(slot, _)| weight(slot)).sum::<u32>() + u32::from(source == asking)
        };
        let may = (0..self.tags.len()).filter(|&slot| may_go(slot));
        may.max_by_key(|&slot| (total(self.sources[slot]), std::cmp::Reverse(self.born[slot])))
    }

    fn remove(&mut self, slot: usize, lost: &mut [(u64, u64); 2]) {
        self.drop_held(slot, lost);
        self.tags[slot] = EMPTY;
    }

    fn drop_held(&mut self, slot: usize, lost: &mut [(u64, u64); 2]) {
        let (packets, octets) = &mut lost[self.entries[slot].key.direction as usize];
        while let Some(taken) = self.store.take(&mut self.held[slot], None) {
            *packets += 1;
            *octets += u64::from(taken.octets);
        }
    }
}
