//! What a node was told: rules, End-user prefix, version; and what a CE derives from it.
use super::{Ipv4Prefix, Ipv6Prefix, MapAddress, PortSet, Psid, RuleId, RuleTable};
use std::sync::Arc;
/// An End-user IPv6 prefix (RFC 7597 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndUserPrefix(pub Ipv6Prefix);
/// Rules, End-user prefix, version: one value, swapped whole.
#[derive(Clone, Debug)]
pub struct Provisioning {
    /// Rule set version (RFC 8676 algo-versioning); 0 where the file has none.
    pub version: u64,
    /// Rule set date as written (RFC 3339), where the file has one.
    pub date: Option<String>,
    /// The rules.
    pub table: Arc<RuleTable>,
    /// The CE's prefix; a BR has none, and a CE idles without.
    pub end_user_prefix: Option<EndUserPrefix>,
}
/// What an End-user prefix and its Basic Mapping Rule give a CE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The Basic Mapping Rule.
    pub rule: RuleId,
    /// The address, or the prefix where o + r < 32.
    pub ipv4: Ipv4Prefix,
    /// The PSID of a shared address.
    pub psid: Option<Psid>,
    /// The ports.
    pub ports: PortSet,
    /// The CE's own MAP address (of the prefix's first address).
    pub map_address: MapAddress,
    /// The IPv6 prefix that covers all MAP addresses of the CE: /128, shorter for an IPv4 prefix.
    pub map_prefix: Ipv6Prefix,
}
/// Why an End-user prefix gives no customer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CustomerError {
    /// for people
    pub message: String,
    /// section
    pub rfc: &'static str,
}
impl RuleTable {
    /// Finds the BMR by longest match and derives the CE's addresses and ports (RFC 7597 §5.2).
    pub fn customer(&self, _prefix: EndUserPrefix) -> Result<Customer, CustomerError> {
        todo!()
    }
}
