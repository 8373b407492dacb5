//! Which routes a role needs: a pure list.
use super::Config;
use crate::map::{Ipv4Prefix, Ipv6Prefix};
use std::net::Ipv4Addr;

/// A destination of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// IPv4.
    V4(Ipv4Prefix),
    /// IPv6.
    V6(Ipv6Prefix),
}

/// A route into the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WantedRoute {
    /// Where to.
    pub destination: Destination,
    /// `mtu` metric: the kernel then answers Fragmentation Needed with the right figure.
    pub mtu: Option<u32>,
    /// Preferred source of the host's own packets.
    pub source: Option<Ipv4Addr>,
}

/// The routes, sorted, without those that another one covers.
pub fn wanted(_config: &Config) -> Vec<WantedRoute> {
    todo!()
}
