//! The Default Mapping Rule: IPv4 addresses embedded in an IPv6 prefix (RFC 6052 §2.2, RFC 7599 §5.1).
use super::prefix::Ipv6Prefix;
use std::net::{Ipv4Addr, Ipv6Addr};
/// A prefix of 32, 40, 48, 56, 64 or 96 bits that carries IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dmr {
    prefix: Ipv6Prefix,
}
/// Why a prefix cannot be a DMR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmrError {
    /// x
    #[error("length")]
    Length(u8),
    /// y
    #[error("u octet")]
    UOctet,
}
impl Dmr {
    /// Refuses lengths that RFC 6052 lacks and a /96 with bits 64-71 set.
    pub fn new(_prefix: Ipv6Prefix) -> Result<Self, DmrError> {
        todo!()
    }
    /// The prefix.
    pub fn prefix(&self) -> Ipv6Prefix {
        self.prefix
    }
    /// The IPv6 address that stands for `ipv4`.
    #[inline]
    pub fn embed(&self, _ipv4: Ipv4Addr) -> Ipv6Addr {
        todo!()
    }
    /// The IPv4 address inside, `None` outside the prefix. Suffix and u octet are ignored.
    #[inline]
    pub fn extract(&self, _addr: Ipv6Addr) -> Option<Ipv4Addr> {
        todo!()
    }
    /// Whether it is 64:ff9b::/96, which must not carry non-global IPv4 (RFC 6052 §3.1).
    pub fn is_well_known(&self) -> bool {
        todo!()
    }
    /// Whether embedding leaves transport checksums as they are (RFC 6052 §4.1).
    pub fn is_checksum_neutral(&self) -> bool {
        todo!()
    }
}
