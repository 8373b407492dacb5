//! ICMP errors that we originate.
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether drops are answered (RFC 7915 §4.4, §5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Originate {
    /// Never.
    Off,
    /// Within a token bucket (RFC 4443 §2.4f).
    #[default]
    Limited,
    /// Always.
    On,
}

/// The `icmp` block of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpParams {
    /// IPv4 sources of errors from untranslatable IPv6 nodes (RFC 6791 §3.2), and of our own. Never empty.
    pub rfc6791_pool: Vec<Ipv4Addr>,
    /// Whether drops are answered.
    pub originate: Originate,
    /// Source of our own ICMPv6 errors; `None`: the pool's first address embedded in the DMR.
    pub ipv6_source: Option<Ipv6Addr>,
}

impl Default for IcmpParams {
    fn default() -> Self {
        // RFC 7600 §4.5's dummy address.
        IcmpParams {
            rfc6791_pool: vec![Ipv4Addr::new(192, 0, 0, 8)],
            originate: Originate::default(),
            ipv6_source: None,
        }
    }
}
