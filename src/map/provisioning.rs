//! What a node was told: rules, End-user prefix, version; and what a CE derives from it (RFC 7597 §5.2).

use super::{Ipv4Prefix, Ipv6Prefix, MapAddress, PortSet, Psid, RuleId, RuleTable};
use std::sync::Arc;

/// An End-user IPv6 prefix: what the customer's network was delegated (RFC 7597 §3).
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
    /// For people: the prefix, what is wrong with it, what was expected.
    pub message: String,
    /// Such as `RFC 7597 §5.2`.
    pub rfc: &'static str,
}

impl RuleTable {
    /// Finds the Basic Mapping Rule by longest match and derives the CE's addresses and ports (RFC 7597 §5.2).
    ///
    /// Refused: a prefix in no rule, one shorter than Rule IPv6 prefix and EA bits together, one whose remaining bits
    /// are not what the border writes there, and one whose MAP address belongs to another rule. Takes time in
    /// proportion to the number of rules.
    pub fn customer(&self, prefix: EndUserPrefix) -> Result<Customer, CustomerError> {
        const RFC: &str = "RFC 7597 §5.2";
        let refuse = |rfc, message| Err(CustomerError { message, rfc });
        let EndUserPrefix(prefix) = prefix;
        let basic = (self.rules().iter().enumerate())
            .filter(|(_, rule)| rule.spec().rule_ipv6_prefix.covers(&prefix))
            .max_by_key(|(_, rule)| rule.spec().rule_ipv6_prefix.prefix_len());
        let Some((index, basic)) = basic else {
            let message =
                format!("End-user prefix {prefix} lies in no Rule IPv6 prefix; there is no Basic Mapping Rule");
            return refuse("RFC 7597 §5", message);
        };
        let (id, name) = (RuleId(index as u32), &basic.spec().name);
        let end = basic.end_user_prefix_len();
        if prefix.prefix_len() < end {
            let (n, o) = (basic.spec().rule_ipv6_prefix.prefix_len(), basic.spec().ea_len);
            let message = format!(
                "End-user prefix {prefix} is too short for rule `{name}`; expected at least /{end} (Rule IPv6 prefix {n} + EA bits {o})"
            );
            return refuse(RFC, message);
        }
        let rule = self.get(id);
        let (ipv4, psid) = rule.decompose(Ipv6Prefix::truncating(prefix.addr(), end).addr());
        let len = basic.ce_ipv4_prefix_len();
        let ipv4 = Ipv4Prefix::truncating(ipv4, len);
        let map_address = rule.compose(ipv4.addr(), psid);
        let map_prefix = Ipv6Prefix::truncating(map_address.ipv6(), if len < 32 { end.max(80 + len) } else { 128 });
        if !prefix.covers(&map_prefix) {
            return refuse(RFC, bits_differ(prefix, map_prefix, end, name));
        }
        let Some(ports) = rule.port_set(psid) else {
            return refuse(RFC, format!("End-user prefix {prefix} has PSID {}, which rule `{name}` lacks", psid.0));
        };
        // The border looks an address up by itself; where another rule is more specific, nothing would come back.
        let taken = match self.by_ipv6(map_address.ipv6()) {
            Some(other) if other != id => Some((other, format!("MAP address {map_address}"))),
            _ if len < 32 => None,
            _ => match self.by_ipv4(ipv4.addr(), ports.nth(0)) {
                Ok((other, _)) if other != id => Some((other, format!("IPv4 address {}", ipv4.addr()))),
                _ => None,
            },
        };
        if let Some((other, what)) = taken {
            let other = self.name(other);
            let message = format!(
                "{what} of End-user prefix {prefix} belongs to the more specific rule `{other}`, not to `{name}`"
            );
            return refuse("RFC 7597 §5", message);
        }
        let psid = rule.is_shared().then_some(psid);
        Ok(Customer { rule: id, ipv4, psid, ports, map_address, map_prefix })
    }
}

/// Why an End-user prefix does not cover what the border writes.
fn bits_differ(prefix: Ipv6Prefix, map: Ipv6Prefix, end: u8, rule: &str) -> String {
    let len = prefix.prefix_len();
    if prefix.contains(map.addr()) {
        return format!(
            "End-user prefix {prefix} holds one host of the CE's IPv4 prefix alone; rule `{rule}` expects /{} or shorter",
            map.prefix_len()
        );
    }
    let expected = Ipv6Prefix::truncating(map.addr(), len);
    let differ = u128::from(expected.addr()) ^ u128::from(prefix.addr());
    let (first, last) = (differ.leading_zeros(), 127 - differ.trailing_zeros());
    format!(
        "End-user prefix {prefix} has bits {first} to {last} set differently from what rule `{rule}` writes behind bit {end} (zeros, then the interface id); expected {expected}"
    )
}
