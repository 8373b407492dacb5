//! MAP IPv6 addresses (RFC 7597 §5.2, §6).
use std::net::Ipv6Addr;
/// An address that a rule has composed: rule prefix, EA bits, subnet id 0, interface id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapAddress(Ipv6Addr);
impl MapAddress {
    /// The address as written into packets.
    pub fn ipv6(self) -> Ipv6Addr {
        self.0
    }
}
impl std::fmt::Display for MapAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
