//! The Default Mapping Rule: IPv4 addresses embedded in an IPv6 prefix (RFC 7599 §5.1, RFC 6052 §2.2).
//!
//! The IPv4 address follows the prefix, except that bits 64-71 (the "u octet") stay zero; what is left behind it, the
//! suffix, is zero as well. A received suffix or u octet is not looked at (RFC 6052 §2.2, §2.3).

use super::prefix::{Ipv6Prefix, mask128};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A prefix of 32, 40, 48, 56, 64 or 96 bits that carries IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dmr {
    prefix: Ipv6Prefix,
}

/// Why a prefix cannot be a DMR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmrError {
    /// A length that RFC 6052 lacks.
    #[error("a DMR prefix of {0} bits; expected 32, 40, 48, 56, 64 or 96 (RFC 6052 §2.2, RFC 7599 §5.1)")]
    Length(u8),
    /// A /96 with bits 64-71 set.
    #[error("{0} has bits 64-71 set; they must be zero in a DMR prefix (RFC 6052 §2.2)")]
    UOctet(Ipv6Prefix),
}

/// Bits in front of the u octet, and behind it: an address without its u octet has 120 bits.
const BEHIND_U: u32 = 56;
const LOW_56: u128 = (1 << BEHIND_U) - 1;
/// 64:ff9b::/96 (RFC 6052 §2.1).
const WELL_KNOWN: u128 = 0x0064_ff9b << 96;

impl Dmr {
    /// Refuses lengths that RFC 6052 §2.2 lacks and a /96 with bits 64-71 set.
    pub fn new(prefix: Ipv6Prefix) -> Result<Self, DmrError> {
        match prefix.prefix_len() {
            32 | 40 | 48 | 56 | 64 => Ok(Dmr { prefix }),
            96 if prefix.addr().octets()[8] == 0 => Ok(Dmr { prefix }),
            96 => Err(DmrError::UOctet(prefix)),
            len => Err(DmrError::Length(len)),
        }
    }
    /// The prefix.
    #[inline(always)]
    pub fn prefix(&self) -> Ipv6Prefix {
        self.prefix
    }
    /// How far the IPv4 address stands from the end of an address without its u octet.
    #[inline(always)]
    fn shift(&self) -> u32 {
        // A /96 is longer than 64 bits, so the u octet lies inside the prefix.
        if self.prefix.prefix_len() > 64 { 0 } else { 120 - 32 - u32::from(self.prefix.prefix_len()) }
    }
    /// The IPv6 address that stands for `ipv4`: u octet and suffix are zero.
    #[inline(always)]
    pub fn embed(&self, ipv4: Ipv4Addr) -> Ipv6Addr {
        let joined = u128::from(u32::from(ipv4)) << self.shift();
        (u128::from(self.prefix.addr()) | ((joined & !LOW_56) << 8) | (joined & LOW_56)).into()
    }
    /// The IPv4 address inside, `None` outside the prefix. Suffix and u octet are ignored (RFC 6052 §2.2, §2.3).
    #[inline(always)]
    pub fn extract(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        let addr = u128::from(addr);
        if (addr ^ u128::from(self.prefix.addr())) & mask128(self.prefix.prefix_len()) != 0 {
            return None;
        }
        let joined = ((addr >> 8) & !LOW_56) | (addr & LOW_56);
        Some(((joined >> self.shift()) as u32).into())
    }
    /// Whether it is 64:ff9b::/96, which must not carry non-global IPv4 (RFC 6052 §3.1).
    #[inline(always)]
    pub fn is_well_known(&self) -> bool {
        self.prefix.prefix_len() == 96 && u128::from(self.prefix.addr()) == WELL_KNOWN
    }
    /// Whether an embedded address has the checksum of the IPv4 address (RFC 6052 §4.1): the prefix sums up to 0 or
    /// 0xffff, and IPv4 stands on a 16-bit boundary, which of the six lengths only 32 and 96 give.
    pub fn is_checksum_neutral(&self) -> bool {
        let sum: u32 = self.prefix.addr().segments().iter().map(|&word| u32::from(word)).sum();
        matches!(self.prefix.prefix_len(), 32 | 96) && sum.is_multiple_of(0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dmr(s: &str) -> Dmr {
        Dmr::new(s.parse().unwrap()).unwrap()
    }

    /// DMR-2, P6b: 0 to 128, without a prefix that has the u octet set.
    #[test]
    fn only_six_lengths() {
        for len in 0..=128u8 {
            let prefix = Ipv6Prefix::truncating("2001:db8:1:2::".parse().unwrap(), len);
            assert_eq!(Dmr::new(prefix).is_ok(), [32, 40, 48, 56, 64, 96].contains(&len), "{prefix}");
        }
        let prefix = "64:0:0:0:100::/96".parse().unwrap();
        assert_eq!(Dmr::new(prefix), Err(DmrError::UOctet(prefix)));
        assert!(Dmr::new("64:0:0:0:ff::/96".parse().unwrap()).is_ok());
    }

    #[test]
    fn well_known_is_that_prefix_alone() {
        assert!(dmr("64:ff9b::/96").is_well_known());
        for other in ["64:ff9b::/32", "64:ff9b::/64", "64:ff9b:1::/48", "64:ff9b:1::/96", "64:ff9c::/96"] {
            assert!(!dmr(other).is_well_known(), "{other}");
        }
    }

    proptest! {
        /// DMR-4, DMR-5, DMR-6, P35: u octet zero, suffix zero; both ignored on receipt.
        #[test]
        fn embeds_and_extracts(bits: u128, len in prop::sample::select(vec![32u8, 40, 48, 56, 64, 96]), ipv4: u32, noise: u128) {
            let prefix = Ipv6Prefix::truncating((bits & !(0xff << 56)).into(), len);
            let dmr = Dmr::new(prefix).unwrap();
            let addr = dmr.embed(ipv4.into());
            prop_assert!(prefix.contains(addr));
            // RFC 6052 §2.2's figure, octet by octet.
            let octets: &[usize] = match len {
                32 => &[4, 5, 6, 7],
                40 => &[5, 6, 7, 9],
                48 => &[6, 7, 9, 10],
                56 => &[7, 9, 10, 11],
                64 => &[9, 10, 11, 12],
                _ => &[12, 13, 14, 15],
            };
            let mut expected = prefix.addr().octets();
            for (&at, octet) in octets.iter().zip(ipv4.to_be_bytes()) {
                expected[at] = octet;
            }
            prop_assert_eq!(addr.octets(), expected);
            prop_assert_eq!(dmr.extract(addr), Some(ipv4.into()));
            let mut noisy = addr.octets();
            for (at, octet) in noise.to_be_bytes().into_iter().enumerate() {
                if at >= usize::from(len / 8) && !octets.contains(&at) {
                    noisy[at] = octet;
                }
            }
            prop_assert_eq!(dmr.extract(noisy.into()), Some(ipv4.into()));
        }

        /// DMR-9 by its meaning: one's complement sums of both addresses agree.
        #[test]
        fn neutrality_is_what_it_says(bits: u128, len in prop::sample::select(vec![32u8, 40, 48, 56, 64, 96]), ipv4 in 1u32.., neutral: bool) {
            let mut prefix = Ipv6Prefix::truncating((bits & !(0xff << 56)).into(), len);
            let sum = |octets: &[u8]| octets.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(w[1])).sum::<u64>() % 0xffff;
            if neutral {
                let rest = sum(&prefix.addr().octets()[2..]);
                let first = 0xffff - rest;
                prefix = Ipv6Prefix::new((u128::from(prefix.addr()) << 16 >> 16 | u128::from(first) << 112).into(), len).unwrap();
            }
            let dmr = Dmr::new(prefix).unwrap();
            let same = sum(&dmr.embed(ipv4.into()).octets()) == sum(&ipv4.to_be_bytes());
            if dmr.is_checksum_neutral() {
                prop_assert!(same);
            }
            if matches!(len, 32 | 96) {
                prop_assert_eq!(dmr.is_checksum_neutral(), same);
            }
        }
    }
}
