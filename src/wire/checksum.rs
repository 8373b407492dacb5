//! Internet checksum arithmetic (RFC 1071, RFC 1624).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A one's complement sum of big-endian 16-bit words, not yet folded.
///
/// It is kept modulo 2^64 - 1, of which 0xffff is a divisor: wider words may be added as they are, and the
/// complement of a word takes it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// The sum of `bytes`, an odd last one padded with a zero octet.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let mut sum = 0u64;
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        if !rest.is_empty() {
            let mut tail = [0; 4];
            tail[..rest.len()].copy_from_slice(rest);
            sum += u64::from(u32::from_be_bytes(tail));
        }
        Sum(sum)
    }

    /// The sum of as many octets as the compiler knows of: a header.
    #[inline(always)]
    pub fn of_array<const N: usize>(bytes: &[u8; N]) -> Sum {
        const { assert!(N.is_multiple_of(4)) };
        let mut sum = 0u64;
        let (words, _) = bytes.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        Sum(sum)
    }

    #[inline(always)]
    fn add(self, word: u64) -> Sum {
        let (sum, carry) = self.0.overflowing_add(word);
        Sum(sum + u64::from(carry))
    }

    /// Adds another sum. Both parts must begin at an even offset of the message.
    #[inline(always)]
    pub fn plus(self, other: Sum) -> Sum {
        self.add(other.0)
    }

    /// Takes another sum away.
    #[inline(always)]
    pub fn minus(self, other: Sum) -> Sum {
        self.add(!other.0)
    }

    /// Adds a 16-bit word.
    #[inline(always)]
    pub fn word(self, word: u16) -> Sum {
        self.add(u64::from(word))
    }

    /// Adds a 32-bit word.
    #[inline(always)]
    pub fn long(self, long: u32) -> Sum {
        self.add(u64::from(long))
    }

    /// Adds two IPv4 addresses.
    #[inline(always)]
    pub fn ipv4(self, src: Ipv4Addr, dst: Ipv4Addr) -> Sum {
        self.add(u64::from(u32::from(src)) + u64::from(u32::from(dst)))
    }

    /// Adds two IPv6 addresses.
    #[inline(always)]
    pub fn ipv6(self, src: Ipv6Addr, dst: Ipv6Addr) -> Sum {
        let (src, dst) = (u128::from(src), u128::from(dst));
        self.add((src >> 64) as u64).add(src as u64).add((dst >> 64) as u64).add(dst as u64)
    }

    /// The 16-bit sum; 0 only where every word was 0.
    #[inline(always)]
    pub fn fold(self) -> u16 {
        // The upper half of x + (x with its halves exchanged) is the sum of both, its carry brought round.
        let long = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        (long.wrapping_add(long.rotate_left(16)) >> 16) as u16
    }

    /// The checksum field that makes a message with this sum valid.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether a message, its checksum field included, is valid.
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// A checksum field after the covered words changed by `delta` (RFC 1624 eq. 3).
#[inline(always)]
pub fn adjust(checksum: u16, delta: Sum) -> u16 {
    Sum::ZERO.word(!checksum).plus(delta).checksum()
}

/// A partial checksum field (a folded pseudo-header sum, not complemented) after `delta`.
#[inline(always)]
pub fn adjust_partial(field: u16, delta: Sum) -> u16 {
    Sum::ZERO.word(field).plus(delta).fold()
}

/// A UDP checksum that came out as zero is sent as 0xffff (RFC 768, RFC 8200 §8.1).
#[inline(always)]
pub fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The pseudo-header of an IPv6 upper-layer packet (RFC 8200 §8.1).
#[inline(always)]
pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, len: usize, protocol: u8) -> Sum {
    Sum::ZERO.ipv6(src, dst).long(len as u32).word(u16::from(protocol))
}

/// The pseudo-header of a TCP or UDP packet over IPv4 (RFC 768, RFC 9293 §3.1).
#[inline(always)]
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, len: usize, protocol: u8) -> Sum {
    Sum::ZERO.ipv4(src, dst).long(len as u32).word(u16::from(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1's loop, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    #[test]
    fn rfc1071_example() {
        // RFC 1071 §3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn rfc1624_example() {
        // RFC 1624 §4: HC = 0xdd2f, m = 0x5555, m' = 0x3285 gives 0x0000.
        let delta = Sum::ZERO.word(0x3285).minus(Sum::ZERO.word(0x5555));
        assert_eq!(adjust(0xdd2f, delta), 0x0000);
    }

    proptest! {
        #[test]
        fn agrees_with_the_rfc_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::of(&bytes).fold() % 0xffff, slow(&bytes) % 0xffff);
        }

        #[test]
        fn differences_equal_a_fresh_sum(mut bytes in proptest::collection::vec(any::<u8>(), 40..41),
                                         other in any::<[u8; 8]>()) {
            bytes[38..].copy_from_slice(&[0, 0]);
            let checksum = Sum::of(&bytes).checksum();
            let delta = Sum::of(&other).minus(Sum::of(&bytes[4..12]));
            bytes[4..12].copy_from_slice(&other);
            prop_assert_eq!(adjust(checksum, delta) % 0xffff, Sum::of(&bytes).checksum() % 0xffff);
        }

        #[test]
        fn addresses_add_as_their_octets(src in any::<u128>(), dst in any::<u128>()) {
            let (s, d) = (Ipv6Addr::from(src), Ipv6Addr::from(dst));
            let sum = Sum::of(&s.octets()).plus(Sum::of(&d.octets()));
            prop_assert_eq!(Sum::ZERO.ipv6(s, d).fold(), sum.fold());
        }
    }
}
