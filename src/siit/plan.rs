//! What translation will do to the bytes, decided before any of them changes.

use super::fragment::{self, Split};
use crate::wire::queue::PacketQueue;
use crate::wire::{PacketBuf, VnetHdr};

/// Octets of the longest extension of our own: headers and an IPv6 address (RFC 4884 §7, RFC 5837 §4).
pub(super) const OWN: usize = 28;

/// What comes behind the octets that stay, `pad` zeros away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing, and no zeros.
    Nothing,
    /// These octets of the packet as it came.
    Moved { pad: usize, from: usize, len: usize },
    /// These, which are new.
    Own { pad: usize, bytes: [u8; OWN] },
}

/// Room for an outer header, an ICMP header, an inner header with Fragment header, and 20 octets of transport.
const HEAD: usize = 128;

/// New octets for the front of the packet, and what becomes of the rest.
///
/// It belongs to the engine and is written anew for each packet, so that nothing is moved about.
#[derive(Clone, Debug)]
pub struct Plan {
    strip: usize,
    tail: usize,
    head_len: usize,
    offload: Option<VnetHdr>,
    split: Option<Split>,
    behind: Behind,
    head: [u8; HEAD],
}

impl Default for Plan {
    fn default() -> Self {
        let behind = Behind::Nothing;
        Plan { strip: 0, tail: 0, head_len: 0, offload: None, split: None, behind, head: [0; HEAD] }
    }
}

impl Plan {
    /// Starts anew: nothing yet in front of `tail` octets that stay, behind `strip` octets that go.
    #[inline(always)]
    pub(super) fn start(&mut self, strip: usize, tail: usize) {
        self.strip = strip;
        self.tail = tail;
        self.head_len = 0;
        self.offload = None;
        self.split = None;
        self.behind = Behind::Nothing;
    }

    /// Appends a header to the new front.
    #[inline(always)]
    pub(super) fn put_array<const N: usize>(&mut self, bytes: &[u8; N]) {
        let end = self.head_len + N;
        debug_assert!(end <= HEAD);
        if let Some(room) = self.head.get_mut(self.head_len..end) {
            room.copy_from_slice(bytes);
            self.head_len = end;
        }
    }

    /// Puts the first octets behind the new front into it, changed: `bytes` are as many as they were.
    pub(super) fn take_in(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.tail);
        self.put(bytes);
        self.strip += bytes.len();
        self.tail = self.tail.saturating_sub(bytes.len());
    }

    /// Appends octets of any number to the new front.
    #[inline(always)]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.head_len + bytes.len();
        debug_assert!(end <= HEAD);
        if let Some(room) = self.head.get_mut(self.head_len..end) {
            room.copy_from_slice(bytes);
            self.head_len = end;
        }
    }

    /// The new front so far.
    #[inline(always)]
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// Overwrites part of the new front.
    #[inline(always)]
    pub(super) fn patch<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        debug_assert!(at + N <= self.head_len);
        if let Some(room) = self.head.get_mut(at..at + N) {
            room.copy_from_slice(&bytes);
        }
    }

    #[inline(always)]
    pub(super) fn set_offload(&mut self, offload: Option<VnetHdr>) {
        self.offload = offload;
    }

    #[inline(always)]
    pub(super) fn set_split(&mut self, split: Option<Split>) {
        self.split = split;
    }

    pub(super) fn set_behind(&mut self, behind: Behind) {
        self.behind = behind;
    }

    /// Octets of the result before it is split.
    pub fn len(&self) -> usize {
        let behind = match self.behind {
            Behind::Nothing => 0,
            Behind::Moved { pad, len, .. } => pad + len,
            Behind::Own { pad, bytes } => pad + bytes.len(),
        };
        self.head_len + self.tail + behind
    }

    /// Never: every plan has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Carries the plan out. The first output is in `packet`, further ones are in `more`.
    #[inline(always)]
    pub fn apply(&self, packet: &mut PacketBuf, more: &mut PacketQueue) {
        let end = self.strip + self.tail;
        match &self.behind {
            Behind::Nothing => packet.truncate(end),
            Behind::Moved { pad, from, len } => packet.close_up(end, *pad, *from, *len),
            Behind::Own { pad, bytes } => {
                packet.close_up(end, *pad, end, 0);
                packet.push(bytes);
            }
        }
        packet.replace_front(self.strip, &self.head[..self.head_len]);
        packet.set_offload(self.offload);
        if let Some(split) = &self.split {
            fragment::split(packet, split, more);
        }
    }
}
