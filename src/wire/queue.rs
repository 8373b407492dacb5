//! Packets on their way out, in buffers that are used again.

use super::PacketBuf;

/// A first-in first-out queue that keeps its buffers. It grows to what one input needs and stays there.
#[derive(Default)]
pub struct PacketQueue {
    slots: Vec<PacketBuf>,
    next: usize,
    len: usize,
    spare: Option<PacketBuf>,
}

impl PacketQueue {
    /// A buffer at the end of the queue, for the caller to fill.
    pub fn push(&mut self) -> &mut PacketBuf {
        if self.next == self.len {
            self.next = 0;
            self.len = 0;
        }
        if self.len == self.slots.len() {
            self.slots.push(PacketBuf::new());
        }
        self.len += 1;
        &mut self.slots[self.len - 1]
    }

    /// Takes back the last `push`.
    pub fn unpush(&mut self) {
        self.len = self.len.saturating_sub(1).max(self.next);
    }

    /// The oldest packet.
    pub fn pop(&mut self) -> Option<&mut PacketBuf> {
        if self.next == self.len {
            return None;
        }
        self.next += 1;
        self.slots.get_mut(self.next - 1)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.next == self.len
    }

    /// Octets of all that waits.
    pub fn octets(&self) -> usize {
        self.slots[self.next..self.len].iter().map(PacketBuf::len).sum()
    }

    /// A buffer for work in between; to be given back by `put_spare`.
    pub fn take_spare(&mut self) -> PacketBuf {
        self.spare.take().unwrap_or_default()
    }

    /// Gives the work buffer back.
    pub fn put_spare(&mut self, packet: PacketBuf) {
        self.spare = Some(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_and_used_again() {
        let mut queue = PacketQueue::default();
        for round in 0..3 {
            for i in 0..5 {
                queue.push().set(&[round, i]);
            }
            queue.push().set(&[99]);
            queue.unpush();
            for i in 0..5 {
                assert_eq!(queue.pop().map(|p| p.bytes().to_vec()), Some(vec![round, i]));
            }
            assert!(queue.pop().is_none() && queue.is_empty());
        }
        assert_eq!(queue.slots.len(), 6);
    }
}
