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

/// What to do with a UDP packet without checksum (RFC 7915 §4.5). IPv6 knows none (RFC 8200 §8.1), so from there
/// they are only ever forwarded or dropped.
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

/// A few ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortList {
    ports: [u16; PortList::MOST],
    len: usize,
}

impl PortList {
    /// How many ports a list holds.
    pub const MOST: usize = 16;
    /// Tunnels that are known to go without checksum (RFC 6936): GTP-U and VXLAN.
    pub const TUNNELS: [u16; 2] = [2152, 4789];

    /// `None` where there are more than `MOST`.
    pub fn new(ports: &[u16]) -> Option<PortList> {
        let mut list = PortList { ports: [0; PortList::MOST], len: ports.len() };
        list.ports.get_mut(..ports.len())?.copy_from_slice(ports);
        Some(list)
    }

    /// The ports, in the order given.
    pub fn ports(&self) -> &[u16] {
        &self.ports[..self.len]
    }

    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.ports().contains(&port)
    }
}

impl Default for PortList {
    fn default() -> Self {
        let mut ports = [0; PortList::MOST];
        ports[..2].copy_from_slice(&PortList::TUNNELS);
        PortList { ports, len: 2 }
    }
}

/// Whether the MSS option of a TCP SYN is lowered, in both directions (RFC 7599 §10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// It is left alone.
    #[default]
    Off,
    /// To what fits both next hops without a fragment.
    Auto,
    /// To so many octets; 536..=65495.
    To(u16),
}

/// What the translator is told by configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TranslationParams {
    /// Next hops.
    pub mtu: Mtu,
    /// UDP without checksum.
    pub udp_zero_checksum: UdpZeroChecksum,
    /// Destination ports to which UDP goes without checksum whatever `udp_zero_checksum` says (RFC 7915 §4.5, RFC
    /// 6936). Default 2152 and 4789.
    pub udp_zero_checksum_ports: PortList,
    /// DSCP of all IPv6 results, 0..=63; `None`, the default: that of the IPv4 packet (RFC 7915 §4.1).
    pub dscp_v4_to_v6: Option<u8>,
    /// DSCP of all IPv4 results, 0..=63; `None`, the default: that of the IPv6 packet (RFC 7915 §5.1).
    pub dscp_v6_to_v4: Option<u8>,
    /// The MSS of TCP. Default off.
    pub tcp_mss_clamp: MssClamp,
    /// Decrement TTL and hop limit here, for those who feed the engine without a kernel. Default off.
    pub decrement_hop_limit: bool,
    /// Name the IPv6 source that an ICMPv4 error cannot have in an extension (RFC 6791 §4). Default off.
    pub rfc5837_object: bool,
}

impl TranslationParams {
    /// Whether UDP to this port goes as it is where it has no checksum.
    pub fn forwards_zero_checksum(&self, dst_port: u16) -> bool {
        self.udp_zero_checksum == UdpZeroChecksum::Forward || self.udp_zero_checksum_ports.contains(dst_port)
    }

    /// The largest MSS, in octets; `None` where it is left alone.
    pub fn mss_limit(&self) -> Option<u16> {
        match self.tcp_mss_clamp {
            MssClamp::Off => None,
            MssClamp::To(mss) => Some(mss),
            MssClamp::Auto => {
                let mss = self.mtu.ipv6.saturating_sub(60).min(self.mtu.ipv4.saturating_sub(40));
                Some(mss.min(0xffff) as u16)
            }
        }
    }
}

/// The octet of DSCP and ECN with another DSCP, where one is set; ECN says what happened on the way (RFC 3168 §5).
#[inline(always)]
pub(super) fn traffic_class(octet: u8, dscp: Option<u8>) -> u8 {
    match dscp {
        None => octet,
        Some(dscp) => dscp << 2 | octet & 3,
    }
}
