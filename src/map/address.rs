//! MAP IPv6 addresses (RFC 7597 §5.2, §6).

use std::fmt;
use std::net::Ipv6Addr;

/// An address that a rule has composed: Rule IPv6 prefix, EA bits, subnet id 0, interface id.
///
/// Made by [`CompiledRule::compose`](super::CompiledRule::compose) alone, so that an address out of a packet cannot
/// be taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapAddress(pub(super) Ipv6Addr);

impl MapAddress {
    /// The address as written into packets.
    #[inline]
    pub fn ipv6(self) -> Ipv6Addr {
        self.0
    }
}

impl From<MapAddress> for Ipv6Addr {
    fn from(address: MapAddress) -> Self {
        address.0
    }
}

impl fmt::Display for MapAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
