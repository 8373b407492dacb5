//! What translation will do to the bytes, decided before any of them changes.

use super::fragment::{self, Split};
use crate::wire::queue::PacketQueue;
use crate::wire::{PacketBuf, VnetHdr};

/// Room for an outer header, an ICMP header, an inner header with Fragment header, and 20 octets of transport.
const HEAD: usize = 128;

/// New octets for the front of the packet, and what becomes of the rest.
#[derive(Clone, Debug)]
pub struct Plan {
    strip: usize,
    tail: usize,
    head: [u8; HEAD],
    head_len: usize,
    offload: Option<VnetHdr>,
    split: Option<Split>,
}

impl Plan {
    /// A plan that puts nothing yet in front of `tail` octets that stay, behind `strip` octets that go.
    #[inline]
    pub(super) fn new(strip: usize, tail: usize) -> Plan {
        Plan { strip, tail, head: [0; HEAD], head_len: 0, offload: None, split: None }
    }

    /// Appends to the new front.
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.head_len + bytes.len();
        debug_assert!(end <= HEAD);
        if let Some(room) = self.head.get_mut(self.head_len..end) {
            room.copy_from_slice(bytes);
            self.head_len = end;
        }
    }

    /// The new front so far.
    #[inline]
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// Overwrites part of the new front.
    #[inline]
    pub(super) fn patch(&mut self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= self.head_len);
        if let Some(room) = self.head.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    pub(super) fn set_offload(&mut self, offload: Option<VnetHdr>) {
        self.offload = offload;
    }

    pub(super) fn set_split(&mut self, split: Option<Split>) {
        self.split = split;
    }

    /// Octets of the result before it is split.
    pub fn len(&self) -> usize {
        self.head_len + self.tail
    }

    /// Never: every plan has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Carries the plan out. The first output is in `packet`, further ones are in `more`.
    #[inline]
    pub fn apply(&self, packet: &mut PacketBuf, more: &mut PacketQueue) {
        packet.truncate(self.strip + self.tail);
        packet.replace_front(self.strip, &self.head[..self.head_len]);
        packet.set_offload(self.offload);
        if let Some(split) = &self.split {
            fragment::split(packet, split, more);
        }
    }
}
