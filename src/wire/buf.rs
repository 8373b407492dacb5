//! One packet behind headroom, with the offload request that came along with it.

/// Octets kept free in front of a packet as received, for the longest header that translation can add.
pub const HEADROOM: usize = 256;
/// The longest packet that a buffer holds: an IPv6 header and 65,535 octets behind it.
pub const MAX_PACKET: usize = 40 + 65_535;
/// Room behind the longest packet, for the zeros and the extension that an ICMP error can gain (RFC 4884 §3).
const TAILROOM: usize = 256;
const CAPACITY: usize = HEADROOM + MAX_PACKET + TAILROOM;

/// The virtio network header of Linux's TUN (`struct virtio_net_hdr`, host byte order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// `NEEDS_CSUM` (1), `DATA_VALID` (2).
    pub flags: u8,
    /// `NONE` 0, `TCPV4` 1, `TCPV6` 4, `UDP_L4` 5; 0x80 marks ECN.
    pub gso_type: u8,
    /// Octets of all headers of a GSO packet.
    pub hdr_len: u16,
    /// Payload octets of one segment.
    pub gso_size: u16,
    /// Where the checksummed part begins.
    pub csum_start: u16,
    /// Where the checksum field stands behind `csum_start`.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Its length on the device.
    pub const LEN: usize = 10;
    /// The checksum field holds the pseudo-header sum and is to be completed.
    pub const NEEDS_CSUM: u8 = 1;
    /// No segmentation.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP, either family.
    pub const GSO_UDP_L4: u8 = 5;
    /// Flag beside the GSO type: segments carry CWR.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads the header as the device wrote it.
    pub fn from_bytes(b: &[u8; Self::LEN]) -> VnetHdr {
        let word = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
        VnetHdr {
            flags: b[0],
            gso_type: b[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// The header as the device reads it.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = self.flags;
        b[1] = self.gso_type;
        for (i, word) in [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset].iter().enumerate() {
            b[2 + 2 * i..4 + 2 * i].copy_from_slice(&word.to_ne_bytes());
        }
        b
    }

    /// Whether the checksum is still partial.
    pub fn needs_csum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// Whether the packet is to be cut into segments.
    pub fn is_gso(&self) -> bool {
        self.gso_type & !Self::GSO_ECN != Self::GSO_NONE
    }

    /// Whether the header asks for nothing: neither checksum nor segmentation.
    pub fn is_plain(&self) -> bool {
        !self.needs_csum() && !self.is_gso()
    }
}

/// A packet from its IP header on.
pub struct PacketBuf {
    storage: Box<[u8]>,
    start: usize,
    end: usize,
    offload: Option<VnetHdr>,
}

impl Default for PacketBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketBuf {
    /// An empty buffer; the only allocation of a packet's life.
    pub fn new() -> PacketBuf {
        PacketBuf { storage: vec![0; CAPACITY].into_boxed_slice(), start: HEADROOM, end: HEADROOM, offload: None }
    }

    /// A buffer with a copy of `bytes`, for tools and tests. Longer input than `MAX_PACKET` is cut.
    pub fn from_slice(bytes: &[u8]) -> PacketBuf {
        let mut packet = PacketBuf::new();
        packet.set(bytes);
        packet
    }

    /// Replaces the content, without an offload request. Longer input than `MAX_PACKET` is cut.
    pub fn set(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(MAX_PACKET);
        self.start = HEADROOM;
        self.end = HEADROOM + len;
        self.storage[HEADROOM..HEADROOM + len].copy_from_slice(&bytes[..len]);
        self.offload = None;
    }

    /// The packet.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The packet, to be changed in place.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// Octets in the packet.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The offload request; `None` where the packet is complete as it stands.
    #[inline(always)]
    pub fn offload(&self) -> Option<VnetHdr> {
        self.offload
    }

    /// Sets or clears the offload request.
    #[inline(always)]
    pub fn set_offload(&mut self, offload: Option<VnetHdr>) {
        self.offload = offload.filter(|o| !o.is_plain());
    }

    /// Replaces the first `strip` octets by `head`. The caller's plan has seen that both fit; a plan that
    /// lies leaves the packet as it is.
    #[inline(always)]
    pub fn replace_front(&mut self, strip: usize, head: &[u8]) {
        debug_assert!(strip <= self.len() && head.len() <= self.start + strip);
        let body = self.start + strip;
        let Some(start) = body.checked_sub(head.len()).filter(|_| body <= self.end) else { return };
        let Some(room) = self.storage.get_mut(start..body) else { return };
        room.copy_from_slice(head);
        self.start = start;
    }

    /// Cuts the packet to `len` octets.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len;
        }
    }

    /// Ends the packet at `end`, and puts `pad` zeros and the `len` octets that now begin at `from` behind it. The
    /// caller's plan has seen that all are there; a plan that lies leaves the packet as it is.
    pub fn close_up(&mut self, end: usize, pad: usize, from: usize, len: usize) {
        debug_assert!(end <= self.len() && from + len <= self.len() && pad + len <= TAILROOM + self.len() - end);
        let (gap, from) = (self.start + end, self.start + from);
        let to = gap + pad;
        if gap > self.end || from + len > self.end || to + len > self.storage.len() {
            return;
        }
        self.storage.copy_within(from..from + len, to);
        self.storage[gap..to].fill(0);
        self.end = to + len;
    }

    /// Appends `bytes`; what does not fit into `MAX_PACKET` is cut.
    pub fn push(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.storage.len() - self.end);
        self.storage[self.end..self.end + len].copy_from_slice(&bytes[..len]);
        self.end += len;
    }

    /// Where a device read puts the virtio header and the packet behind it. `commit_read` follows.
    pub fn read_area(&mut self) -> &mut [u8] {
        &mut self.storage[HEADROOM - VnetHdr::LEN..HEADROOM + MAX_PACKET]
    }

    /// Takes what a device read of `n` octets (virtio header included) put into `read_area`.
    /// `false`, and an empty packet, where not even the header came.
    pub fn commit_read(&mut self, n: usize) -> bool {
        self.start = HEADROOM;
        self.end = HEADROOM;
        self.offload = None;
        if !(VnetHdr::LEN..=VnetHdr::LEN + MAX_PACKET).contains(&n) {
            return false;
        }
        let mut header = [0; VnetHdr::LEN];
        header.copy_from_slice(&self.storage[HEADROOM - VnetHdr::LEN..HEADROOM]);
        self.end = HEADROOM + n - VnetHdr::LEN;
        self.set_offload(Some(VnetHdr::from_bytes(&header)));
        true
    }

    /// The packet with its virtio header in front, for one device write.
    pub fn write_area(&mut self) -> &[u8] {
        // replace_front never moves start below HEADROOM minus the longest plan, far above LEN.
        let from = self.start.saturating_sub(VnetHdr::LEN);
        let header = self.offload.unwrap_or_default().to_bytes();
        self.storage[from..from + VnetHdr::LEN].copy_from_slice(&header);
        &self.storage[from..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_moves_up_or_down() {
        let mut packet = PacketBuf::from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        packet.close_up(2, 1, 4, 3);
        assert_eq!(packet.bytes(), [1, 2, 0, 5, 6, 7]);
        packet.close_up(3, 4, 4, 2);
        assert_eq!(packet.bytes(), [1, 2, 0, 0, 0, 0, 0, 6, 7]);
        packet.close_up(8, 2, 8, 0);
        assert_eq!(packet.bytes(), [1, 2, 0, 0, 0, 0, 0, 6, 0, 0]);
        let mut longest = PacketBuf::from_slice(&vec![7; MAX_PACKET]);
        longest.close_up(MAX_PACKET - 4, 128, MAX_PACKET - 4, 4);
        assert_eq!(longest.len(), MAX_PACKET + 128);
        assert_eq!(longest.bytes()[MAX_PACKET - 5..][..133], [&[7; 1][..], &[0; 128], &[7; 4]].concat());
    }

    #[test]
    fn a_read_and_a_write_keep_bytes_and_offload() {
        let header = VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            gso_type: VnetHdr::GSO_TCPV4,
            hdr_len: 52,
            gso_size: 1448,
            csum_start: 20,
            csum_offset: 16,
        };
        let mut packet = PacketBuf::new();
        packet.read_area()[..10].copy_from_slice(&header.to_bytes());
        packet.read_area()[10..14].copy_from_slice(&[0x45, 1, 2, 3]);
        assert!(packet.commit_read(14));
        assert_eq!(packet.bytes(), [0x45, 1, 2, 3]);
        assert_eq!(packet.offload(), Some(header));
        packet.replace_front(1, &[9, 8, 7]);
        assert_eq!(packet.bytes(), [9, 8, 7, 1, 2, 3]);
        assert_eq!(packet.write_area()[..10], header.to_bytes());
        assert_eq!(packet.write_area()[10..], [9, 8, 7, 1, 2, 3]);
        assert!(!packet.commit_read(9));
        assert!(packet.is_empty());
    }
}
