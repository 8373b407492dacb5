//! Mapping rules (RFC 7597 §5).
use super::{Dmr, Ipv4Prefix, Ipv6Prefix, MapAddress, PortParams, Psid};
use std::net::{Ipv4Addr, Ipv6Addr};
/// The leaves of a rule as an operator writes them (RFC 8676 names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Unique name.
    pub name: String,
    /// Rule IPv6 prefix.
    pub rule_ipv6_prefix: Ipv6Prefix,
    /// Rule IPv4 prefix.
    pub rule_ipv4_prefix: Ipv4Prefix,
    /// EA-bits length, 0..=48.
    pub ea_len: u8,
    /// PSID offset a, 0..=15.
    pub psid_offset: u8,
    /// Explicit PSID length k; only where the EA bits carry no PSID.
    pub psid_len: Option<u8>,
    /// Explicit PSID.
    pub psid: Option<u16>,
    /// Whether CEs send to it directly (FMR).
    pub forwarding: bool,
    /// The rule's own DMR; `None` takes the rule set's.
    pub dmr_ipv6_prefix: Option<Dmr>,
}
/// A rule that RFC 7597 accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    spec: RuleSpec,
}
/// Which leaf of the rule is refused, why, and by which section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// YAML leaf name
    pub leaf: &'static str,
    /// for people
    pub message: String,
    /// e.g. "RFC 7597 §5.2"
    pub rfc: &'static str,
}
impl Rule {
    /// All that is wrong with the leaves, not the first alone.
    pub fn new(_spec: RuleSpec) -> Result<Self, Vec<RuleError>> {
        todo!()
    }
    /// The leaves.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }
    /// Shifts and masks.
    pub fn compile(&self) -> CompiledRule {
        todo!()
    }
}
/// A rule as shifts and masks: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct CompiledRule {
    _x: u128,
}
impl CompiledRule {
    /// Whether the IPv4 address is shared, so that a port is needed to find its CE.
    #[inline]
    pub fn is_shared(&self) -> bool {
        todo!()
    }
    /// Whether it is a Forwarding Mapping Rule.
    #[inline]
    pub fn is_forwarding(&self) -> bool {
        todo!()
    }
    /// Port parameters of a shared address.
    #[inline]
    pub fn port_params(&self) -> Option<PortParams> {
        todo!()
    }
    /// IPv4 address and PSID (0 where not shared) that this IPv6 address of the rule stands for.
    #[inline]
    pub fn decompose(&self, _addr: Ipv6Addr) -> (Ipv4Addr, Psid) {
        todo!()
    }
    /// The MAP address of this IPv4 address of the rule and PSID.
    #[inline]
    pub fn compose(&self, _ipv4: Ipv4Addr, _psid: Psid) -> MapAddress {
        todo!()
    }
}
