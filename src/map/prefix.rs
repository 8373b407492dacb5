//! Prefixes without host bits.
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 prefix whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv4Prefix {
    addr: Ipv4Addr,
    len: u8,
}
/// An IPv6 prefix whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv6Prefix {
    addr: Ipv6Addr,
    len: u8,
}
/// Why text or numbers are no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// host bits
    #[error("host bits")]
    HostBits,
}
impl Ipv4Prefix {
    /// new
    pub fn new(_addr: Ipv4Addr, _len: u8) -> Result<Self, PrefixError> {
        todo!()
    }
    /// The first address.
    pub fn addr(&self) -> Ipv4Addr {
        self.addr
    }
    /// Length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }
    /// contains
    pub fn contains(&self, _addr: Ipv4Addr) -> bool {
        todo!()
    }
    /// covers
    pub fn covers(&self, _other: &Self) -> bool {
        todo!()
    }
}
impl Ipv6Prefix {
    /// new
    pub fn new(_addr: Ipv6Addr, _len: u8) -> Result<Self, PrefixError> {
        todo!()
    }
    /// The first address.
    pub fn addr(&self) -> Ipv6Addr {
        self.addr
    }
    /// Length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }
    /// contains
    pub fn contains(&self, _addr: Ipv6Addr) -> bool {
        todo!()
    }
    /// covers
    pub fn covers(&self, _other: &Self) -> bool {
        todo!()
    }
}
impl FromStr for Ipv4Prefix {
    type Err = PrefixError;
    fn from_str(_s: &str) -> Result<Self, PrefixError> {
        todo!()
    }
}
impl FromStr for Ipv6Prefix {
    type Err = PrefixError;
    fn from_str(_s: &str) -> Result<Self, PrefixError> {
        todo!()
    }
}
impl std::fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}
impl std::fmt::Display for Ipv6Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}
