//! `mapt whois`: the customer behind an IPv4 address and port, or behind an IPv6 address.
use super::cli::Output;
use super::{derive, files, text};
use crate::map::{Customer, EndUserPrefix, Ipv6Prefix, MapAddress, PortParams, Rule, RuleTable, Unmapped};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::path::Path;
use std::str::FromStr;

/// Whose customer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An IPv4 address, and the port that a shared one needs.
    V4(Ipv4Addr, Option<u16>),
    /// An IPv6 address of the customer's network.
    V6(Ipv6Addr),
}

impl FromStr for Target {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if let Ok(addr) = s.parse::<SocketAddrV4>() {
            return Ok(Target::V4(*addr.ip(), Some(addr.port())));
        }
        match s.parse() {
            Ok(IpAddr::V4(addr)) => Ok(Target::V4(addr, None)),
            Ok(IpAddr::V6(addr)) => Ok(Target::V6(addr)),
            Err(_) => Err("expected IPV4:PORT, IPV4 or IPV6, such as 192.0.2.18:1232".into()),
        }
    }
}

/// The answer as JSON; keys that do not apply are null.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<'t> {
    rule: &'t str,
    end_user_ipv6_prefix: String,
    map_ipv6_address: Ipv6Addr,
    ipv4: Ipv4Addr,
    psid: Option<u16>,
}

/// A customer, and which of the addresses was meant.
struct Owner {
    prefix: Ipv6Prefix,
    customer: Customer,
    ipv4: Ipv4Addr,
    map_address: MapAddress,
}

/// Asks the rules of a file.
pub fn run(file: &Path, target: Target, json: bool) -> Output {
    let document = match files::document(file) {
        Ok(loaded) => loaded.value,
        Err(findings) => return Output::no(&findings.to_string()),
    };
    let table = &document.provisioning().table;
    let found = match target {
        Target::V4(addr, port) => by_ipv4(table, addr, port),
        Target::V6(addr) => by_ipv6(table, addr),
    };
    let owner = match found {
        Ok(owner) => owner,
        Err(reason) => return Output::no(&reason),
    };
    let mut out = Output::default();
    if json {
        out.json(&Answer {
            rule: table.name(owner.customer.rule),
            end_user_ipv6_prefix: owner.prefix.to_string(),
            map_ipv6_address: owner.map_address.ipv6(),
            ipv4: owner.ipv4,
            psid: owner.customer.psid.map(|psid| psid.0),
        });
        return out;
    }
    let mut pairs = vec![("End-user prefix", owner.prefix.to_string())];
    if owner.customer.ipv4.prefix_len() < 32 {
        pairs.push(("Host", format!("{} is {}", owner.ipv4, owner.map_address)));
    }
    pairs.extend(derive::describe(table, &owner.customer));
    out.print(&text::fields(&pairs));
    out
}

fn by_ipv4(table: &RuleTable, addr: Ipv4Addr, port: Option<u16>) -> Result<Owner, String> {
    let (id, map_address) = table.by_ipv4(addr, port).map_err(|why| nobody_by_ipv4(table, addr, port, why))?;
    let prefix = Ipv6Prefix::truncating(map_address.ipv6(), table.rules()[id.0 as usize].end_user_prefix_len());
    let customer = customer(table, prefix)?;
    Ok(Owner { prefix, customer, ipv4: addr, map_address })
}

fn by_ipv6(table: &RuleTable, addr: Ipv6Addr) -> Result<Owner, String> {
    if let Some(id) = table.by_ipv6(addr) {
        let prefix = Ipv6Prefix::truncating(addr, table.rules()[id.0 as usize].end_user_prefix_len());
        let customer = customer(table, prefix)?;
        // One host of a customer with an IPv4 prefix, if this is its MAP address.
        let (host, psid) = table.get(id).decompose(addr);
        let map_address = table.get(id).compose(host, psid);
        if map_address.ipv6() == addr {
            return Ok(Owner { prefix, customer, ipv4: host, map_address });
        }
        return Ok(Owner { prefix, customer, ipv4: customer.ipv4.addr(), map_address: customer.map_address });
    }
    Err(nobody_by_ipv6(table, addr))
}

/// Why nobody has this IPv6 address.
pub(super) fn nobody_by_ipv6(table: &RuleTable, addr: Ipv6Addr) -> String {
    if let Some((dmr, outside)) = table.by_dmr(addr) {
        return format!(
            "{addr} belongs to no customer: it lies in the DMR {} and stands for {outside} in the IPv4 Internet (RFC 7599 §5.1)",
            dmr.prefix()
        );
    }
    let nearest = nearest_ipv6(table, addr)
        .first()
        .map(|rule| format!("; the nearest is {} of `{}`", rule.spec().rule_ipv6_prefix, rule.spec().name));
    format!("{addr} belongs to no customer: no Rule IPv6 prefix covers it{}", nearest.unwrap_or_default())
}

/// The two rules whose IPv6 prefixes have the most bits in common with an address, the nearest first.
pub(super) fn nearest_ipv6(table: &RuleTable, addr: Ipv6Addr) -> Vec<&Rule> {
    nearest(table, |rule| {
        let prefix = rule.spec().rule_ipv6_prefix;
        (addr.to_bits() ^ prefix.addr().to_bits()).leading_zeros().min(prefix.prefix_len().into())
    })
}

/// The two rules whose IPv4 prefixes have the most bits in common with an address, the nearest first.
pub(super) fn nearest_ipv4(table: &RuleTable, addr: Ipv4Addr) -> Vec<&Rule> {
    nearest(table, |rule| {
        let prefix = rule.spec().rule_ipv4_prefix;
        (addr.to_bits() ^ prefix.addr().to_bits()).leading_zeros().min(prefix.prefix_len().into())
    })
}

fn nearest(table: &RuleTable, common: impl Fn(&Rule) -> u32) -> Vec<&Rule> {
    let first = table.rules().iter().max_by_key(|rule| common(rule));
    let others = table.rules().iter().filter(|rule| !first.is_some_and(|first| std::ptr::eq(first, *rule)));
    let second = others.max_by_key(|rule| common(rule));
    first.into_iter().chain(second).collect()
}

fn customer(table: &RuleTable, prefix: Ipv6Prefix) -> Result<Customer, String> {
    table.customer(EndUserPrefix(prefix)).map_err(|e| format!("nobody: {e} ({})", e.rfc))
}

/// Why nobody has this address and port.
pub(super) fn nobody_by_ipv4(table: &RuleTable, addr: Ipv4Addr, port: Option<u16>, why: Unmapped) -> String {
    let covering = |rule: &&Rule| rule.spec().rule_ipv4_prefix.contains(addr);
    let longest = table.rules().iter().filter(covering).map(|rule| rule.spec().rule_ipv4_prefix.prefix_len()).max();
    let rules: Vec<&Rule> = (table.rules().iter().filter(covering))
        .filter(|rule| Some(rule.spec().rule_ipv4_prefix.prefix_len()) == longest)
        .collect();
    let shared = rules.first().and_then(|rule| Some((*rule, rule.port_params()?)));
    match (why, port, shared) {
        (Unmapped::PortExcluded, Some(port), Some((rule, params))) => format!(
            "nobody has port {port} of {addr}: PSID offset {} of rule `{}` keeps 0-{} from everyone (RFC 7597 §5.1)",
            params.a(),
            rule.spec().name,
            params.first_port().saturating_sub(1)
        ),
        (Unmapped::PsidUnassigned, Some(port), Some((rule, params))) => {
            let psid = params.psid_of(port).map(|psid| psid.0).unwrap_or_default();
            format!(
                "nobody has port {port} of {addr}: it belongs to PSID {psid}, and {} for {} assign{} only {}",
                text::counted(rules.len(), "rule"),
                rule.spec().rule_ipv4_prefix,
                if rules.len() == 1 { "s" } else { "" },
                psids(&rules)
            )
        }
        (Unmapped::PortNeeded, _, Some((rule, params))) => format!(
            "{addr} is shared by {} customers of rule `{}`: ask with a port, {addr}:{}",
            rule.sharing_ratio(),
            rule.spec().name,
            example_port(params)
        ),
        _ => {
            let nearest = nearest_ipv4(table, addr)
                .first()
                .map(|rule| format!("; the nearest is {} of `{}`", rule.spec().rule_ipv4_prefix, rule.spec().name));
            format!("{addr} belongs to no customer: no Rule IPv4 prefix covers it{}", nearest.unwrap_or_default())
        }
    }
}

fn example_port(params: PortParams) -> u16 {
    params.first_port().max(1)
}

/// `PSID 52, 53`, a few of them.
pub(super) fn psids(rules: &[&Rule]) -> String {
    const MOST: usize = 8;
    let mut all: Vec<u16> = rules.iter().filter_map(|rule| rule.explicit_psid()).map(|psid| psid.0).collect();
    all.sort_unstable();
    let shown: Vec<String> = all.iter().take(MOST).map(u16::to_string).collect();
    let more = if all.len() > MOST { format!(" and {} more", all.len() - MOST) } else { String::new() };
    format!("PSID {}{more}", shown.join(", "))
}
