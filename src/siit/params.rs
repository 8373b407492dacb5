//! What the translator is told by configuration.

/// MTUs as the engine models them, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// Of the IPv6 next hop; 1280..=65535, default 1500.
    pub ipv6: u32,
    /// Of the IPv4 next hop; 68..=65535, default 1500.
    pub ipv4: u32,
    /// `lowest-ipv6-mtu` of RFC 7915 §4: what DF = 0 packets are fragmented to; 1280..=65535, default 1280.
    pub lowest_ipv6: u32,
}

impl Default for Mtu {
    fn default() -> Self {
        Mtu { ipv6: 1500, ipv4: 1500, lowest_ipv6: 1280 }
    }
}

/// What to do with an IPv4 UDP packet without checksum (RFC 7915 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpZeroChecksum {
    /// Compute it.
    #[default]
    Compute,
    /// Drop the packet.
    Drop,
    /// Forward it with checksum zero.
    Forward,
}

/// What the translator is told by configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TranslationParams {
    /// Next hops.
    pub mtu: Mtu,
    /// UDP without checksum.
    pub udp_zero_checksum: UdpZeroChecksum,
    /// Decrement TTL and hop limit here, for those who feed the engine without a kernel. Default off.
    pub decrement_hop_limit: bool,
    /// Name the IPv6 source that an ICMPv4 error cannot have in an extension (RFC 6791 §4). Default off.
    pub rfc5837_object: bool,
}
