//! Which routes a role needs: a pure list.
use super::{Config, Role};
use crate::map::{EndUserPrefix, Ipv4Prefix, Ipv6Prefix};
use crate::siit::Mtu;
use std::fmt;
use std::net::Ipv4Addr;

/// What IPv6 headers are longer by, without a Fragment header, in octets (RFC 7599 §10.1).
const GROWTH: u32 = 20;

/// A destination of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// IPv4.
    V4(Ipv4Prefix),
    /// IPv6.
    V6(Ipv6Prefix),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::V4(prefix) => prefix.fmt(f),
            Destination::V6(prefix) => prefix.fmt(f),
        }
    }
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
///
/// A BR takes the Rule IPv4 prefixes and the DMRs, a CE everything IPv4 and its own MAP addresses (RFC 7599 §8). A CE
/// without an End-user prefix needs none.
pub fn wanted(config: &Config) -> Vec<WantedRoute> {
    let table = &config.provisioning.table;
    match &config.role {
        Role::Br(params) => {
            let mtu = params.translation.mtu;
            let mut ipv4: Vec<Ipv4Prefix> = table.rules().iter().map(|rule| rule.spec().rule_ipv4_prefix).collect();
            let mut ipv6: Vec<Ipv6Prefix> = table.dmrs().iter().map(|dmr| dmr.prefix()).collect();
            ipv4.sort_unstable();
            ipv6.sort_unstable();
            // Sorted, what a prefix covers follows it without a gap.
            ipv4.dedup_by(|later, kept| kept.covers(later));
            ipv6.dedup_by(|later, kept| kept.covers(later));
            let ipv4 = ipv4.into_iter().map(|prefix| route_v4(prefix, mtu, None));
            ipv4.chain(ipv6.into_iter().map(|prefix| route_v6(prefix, mtu))).collect()
        }
        Role::Ce(params) => {
            let mtu = params.translation.mtu;
            let Some(EndUserPrefix(prefix)) = config.provisioning.end_user_prefix else { return Vec::new() };
            let Ok(customer) = table.customer(EndUserPrefix(prefix)) else { return Vec::new() };
            let all = Ipv4Prefix::truncating(Ipv4Addr::UNSPECIFIED, 0);
            vec![route_v4(all, mtu, config.tun.ipv4_address), route_v6(customer.map_prefix, mtu)]
        }
    }
}

/// IPv4 packets grow.
fn route_v4(prefix: Ipv4Prefix, mtu: Mtu, source: Option<Ipv4Addr>) -> WantedRoute {
    WantedRoute { destination: Destination::V4(prefix), mtu: Some(mtu.ipv6 - GROWTH), source }
}

/// IPv6 packets shrink: a limit only where the IPv4 side is the narrower one. IPv6 knows none below 1280.
fn route_v6(prefix: Ipv6Prefix, mtu: Mtu) -> WantedRoute {
    let limit = (mtu.ipv4 + GROWTH).max(1280);
    WantedRoute { destination: Destination::V6(prefix), mtu: (limit < mtu.ipv6).then_some(limit), source: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn routes(text: &str) -> Vec<String> {
        let mut none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let config = Config::load(text, Path::new("t.yaml"), &mut none).unwrap_or_else(|e| panic!("{e}")).value;
        let show = |r: WantedRoute| {
            let mtu = r.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
            let source = r.source.map(|source| format!(" src {source}")).unwrap_or_default();
            format!("{}{mtu}{source}", r.destination)
        };
        wanted(&config).into_iter().map(show).collect()
    }

    const RULES: &str = "
rules:
  dmr-ipv6-prefix: 2001:db8:ffff::/64
  rules:
    - {name: a, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16}
    - {name: b, rule-ipv6-prefix: 2001:db8:9900::/48, rule-ipv4-prefix: 192.0.2.128/25, ea-len: 15, dmr-ipv6-prefix: 2001:db8:ffff::/96}
    - {name: c, rule-ipv6-prefix: 2001:db8:7700::/48, rule-ipv4-prefix: 192.0.3.0/28, ea-len: 2, dmr-ipv6-prefix: 2001:db8:fffe::/64}
    - {name: d, rule-ipv6-prefix: 2001:db8:7800::/48, rule-ipv4-prefix: 192.0.0.0/20, ea-len: 2}
";

    /// MTU-1: what grows by 20 octets must fit. HDR-10, P55: no other IPv6 is routed here, native traffic least of all.
    #[test]
    fn a_br_takes_rule_prefixes_and_dmrs_without_what_is_covered() {
        let expected = ["192.0.0.0/20 mtu 1480", "2001:db8:fffe::/64", "2001:db8:ffff::/64"];
        assert_eq!(routes(&format!("role: br{RULES}")), expected);
        let expected = ["192.0.0.0/20 mtu 1380", "2001:db8:fffe::/64 mtu 1320", "2001:db8:ffff::/64 mtu 1320"];
        assert_eq!(routes(&format!("role: br\nmtu: {{ipv6: 1400, ipv4: 1300}}{RULES}")), expected);
        assert_eq!(routes(&format!("role: br\nmtu: {{ipv4: 576}}{RULES}"))[1], "2001:db8:fffe::/64 mtu 1280");
    }

    /// MTU-1, HDR-10: the CE's own MAP addresses and no others of its End-user prefix.
    #[test]
    fn a_ce_takes_ipv4_and_its_own_address() {
        let ce = |rest: &str| routes(&format!("role: ce\n{rest}{RULES}"));
        assert_eq!(
            ce("end-user-ipv6-prefix: 2001:db8:12:3400::/56\n"),
            ["0.0.0.0/0 mtu 1480 src 192.0.0.2", "2001:db8:12:3400:0:c000:212:34/128"]
        );
        // Rule c: 4 prefixes of /30; the CE's MAP addresses differ in the two host bits alone.
        assert_eq!(
            ce("end-user-ipv6-prefix: 2001:db8:7700:4000::/50\ntun: {ipv4-address: 10.9.8.7}\n"),
            ["0.0.0.0/0 mtu 1480 src 10.9.8.7", "2001:db8:7700:4000:0:c000:304:0/110"]
        );
        assert!(ce("").is_empty());
    }
}
