//! IPv4 and IPv6 prefixes without host bits: all that this crate knows as a prefix.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 prefix of 0..=32 bits whose host bits are zero.
///
/// Sorts by address, then the shorter prefix first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv4Prefix {
    addr: Ipv4Addr,
    len: u8,
}

/// An IPv6 prefix of 0..=128 bits whose host bits are zero.
///
/// Sorts by address, then the shorter prefix first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv6Prefix {
    addr: Ipv6Addr,
    len: u8,
}

/// Why text or numbers are no prefix. The message names what was given and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// No `ADDRESS/LENGTH`.
    #[error("`{text}` is no {family} prefix; expected ADDRESS/LENGTH, such as {example}")]
    Syntax {
        /// What was given.
        text: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// A prefix of that family.
        example: &'static str,
    },
    /// The length is longer than an address of the family.
    #[error("prefix length {len} is out of range; expected 0 to {max}")]
    Length {
        /// What was given.
        len: u16,
        /// 32 or 128.
        max: u8,
    },
    /// Bits behind the length are set.
    #[error("{given} has bits set behind its length; the prefix is {expected}")]
    HostBits {
        /// What was given.
        given: String,
        /// The same without its host bits.
        expected: String,
    },
}

/// The `len` highest of 32 bits; `len` is 0..=32.
pub(super) const fn mask32(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len as u32) }
}

/// The `len` highest of 128 bits; `len` is 0..=128.
pub(super) const fn mask128(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
}

impl Ipv4Prefix {
    /// Refuses `len` above 32 and host bits.
    pub fn new(addr: Ipv4Addr, len: u8) -> Result<Self, PrefixError> {
        if len > 32 {
            return Err(PrefixError::Length { len: len.into(), max: 32 });
        }
        let prefix = Self::truncating(addr, len);
        if prefix.addr == addr { Ok(prefix) } else { Err(host_bits(format!("{addr}/{len}"), prefix)) }
    }
    /// The prefix of `len` bits (at most 32, more counts as 32) that `addr` lies in.
    pub fn truncating(addr: Ipv4Addr, len: u8) -> Self {
        let len = len.min(32);
        Ipv4Prefix { addr: (u32::from(addr) & mask32(len)).into(), len }
    }
    /// The first address.
    #[inline(always)]
    pub fn addr(&self) -> Ipv4Addr {
        self.addr
    }
    /// The last address.
    pub fn last_addr(&self) -> Ipv4Addr {
        (u32::from(self.addr) | !mask32(self.len)).into()
    }
    /// Length in bits, 0..=32.
    #[inline(always)]
    pub fn prefix_len(&self) -> u8 {
        self.len
    }
    /// Whether `addr` lies in the prefix.
    #[inline(always)]
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        (u32::from(addr) ^ u32::from(self.addr)) & mask32(self.len) == 0
    }
    /// Whether every address of `other` lies in this prefix; a prefix covers itself.
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

impl Ipv6Prefix {
    /// Refuses `len` above 128 and host bits.
    pub fn new(addr: Ipv6Addr, len: u8) -> Result<Self, PrefixError> {
        if len > 128 {
            return Err(PrefixError::Length { len: len.into(), max: 128 });
        }
        let prefix = Self::truncating(addr, len);
        if prefix.addr == addr { Ok(prefix) } else { Err(host_bits(format!("{addr}/{len}"), prefix)) }
    }
    /// The prefix of `len` bits (at most 128, more counts as 128) that `addr` lies in.
    pub fn truncating(addr: Ipv6Addr, len: u8) -> Self {
        let len = len.min(128);
        Ipv6Prefix { addr: (u128::from(addr) & mask128(len)).into(), len }
    }
    /// The first address.
    #[inline(always)]
    pub fn addr(&self) -> Ipv6Addr {
        self.addr
    }
    /// The last address.
    pub fn last_addr(&self) -> Ipv6Addr {
        (u128::from(self.addr) | !mask128(self.len)).into()
    }
    /// Length in bits, 0..=128.
    #[inline(always)]
    pub fn prefix_len(&self) -> u8 {
        self.len
    }
    /// Whether `addr` lies in the prefix.
    #[inline(always)]
    pub fn contains(&self, addr: Ipv6Addr) -> bool {
        (u128::from(addr) ^ u128::from(self.addr)) & mask128(self.len) == 0
    }
    /// Whether every address of `other` lies in this prefix; a prefix covers itself.
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

fn host_bits(given: String, expected: impl fmt::Display) -> PrefixError {
    PrefixError::HostBits { given, expected: expected.to_string() }
}

/// `ADDRESS/LENGTH` with a length of decimal digits alone.
fn split<A: FromStr>(s: &str, max: u8) -> Option<Result<(A, u8), PrefixError>> {
    let (addr, len) = s.split_once('/')?;
    let addr = addr.parse().ok()?;
    if len.is_empty() || len.len() > 3 || !len.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let len: u16 = len.parse().ok()?;
    Some(match u8::try_from(len) {
        Ok(len) if len <= max => Ok((addr, len)),
        _ => Err(PrefixError::Length { len, max }),
    })
}

impl FromStr for Ipv4Prefix {
    type Err = PrefixError;
    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax { text: s.into(), family: "IPv4", example: "192.0.2.0/24" };
        let (addr, len) = split(s, 32).ok_or_else(syntax)??;
        Self::new(addr, len)
    }
}

impl FromStr for Ipv6Prefix {
    type Err = PrefixError;
    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax { text: s.into(), family: "IPv6", example: "2001:db8::/40" };
        let (addr, len) = split(s, 128).ok_or_else(syntax)??;
        Self::new(addr, len)
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Display for Ipv6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_written_back() {
        for s in ["0.0.0.0/0", "128.0.0.0/1", "192.0.2.0/24", "192.0.2.1/32"] {
            assert_eq!(s.parse::<Ipv4Prefix>().unwrap().to_string(), s);
        }
        for s in ["::/0", "8000::/1", "2001:db8::/40", "2001:db8:12:3400::/56", "2001:db8::1/128"] {
            assert_eq!(s.parse::<Ipv6Prefix>().unwrap().to_string(), s);
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for s in
            ["", "/", "192.0.2.0", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/ 8", "::/0", "192.0.2/24", "1.2.3.4/0024"]
        {
            assert!(matches!(s.parse::<Ipv4Prefix>(), Err(PrefixError::Syntax { .. })), "{s}");
        }
        for s in ["", "2001:db8::", "2001:db8::/-1", "0.0.0.0/0", "2001:db8::%1/64", "::/0x40"] {
            assert!(matches!(s.parse::<Ipv6Prefix>(), Err(PrefixError::Syntax { .. })), "{s}");
        }
        assert_eq!("192.0.2.0/33".parse::<Ipv4Prefix>(), Err(PrefixError::Length { len: 33, max: 32 }));
        assert_eq!("::/129".parse::<Ipv6Prefix>(), Err(PrefixError::Length { len: 129, max: 128 }));
        assert_eq!("::/999".parse::<Ipv6Prefix>(), Err(PrefixError::Length { len: 999, max: 128 }));
    }

    /// P9: the message says what the prefix would be.
    #[test]
    fn host_bits_are_refused() {
        let error = "192.0.2.18/24".parse::<Ipv4Prefix>().unwrap_err();
        assert_eq!(error.to_string(), "192.0.2.18/24 has bits set behind its length; the prefix is 192.0.2.0/24");
        let error = Ipv6Prefix::new("2001:db8::1".parse().unwrap(), 127).unwrap_err();
        assert_eq!(error.to_string(), "2001:db8::1/127 has bits set behind its length; the prefix is 2001:db8::/127");
    }

    #[test]
    fn coverage_ends_where_the_prefix_ends() {
        let p: Ipv4Prefix = "192.0.2.16/28".parse().unwrap();
        assert!(p.contains("192.0.2.16".parse().unwrap()) && p.contains(p.last_addr()));
        assert!(!p.contains("192.0.2.15".parse().unwrap()) && !p.contains("192.0.2.32".parse().unwrap()));
        let all: Ipv6Prefix = "::/0".parse().unwrap();
        let p: Ipv6Prefix = "2001:db8:f0::/44".parse().unwrap();
        assert!(all.covers(&p) && !p.covers(&all) && p.covers(&p) && all.contains(Ipv6Addr::from(u128::MAX)));
        assert!(p.contains("2001:db8:ff::1".parse().unwrap()) && !p.contains("2001:db8:100::".parse().unwrap()));
    }
}
