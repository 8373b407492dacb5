//! `mapt derive`: what an End-user IPv6 prefix gives a CE (RFC 7597 §5.2).
use super::cli::Output;
use super::{files, text};
use crate::map::{Customer, EndUserPrefix, Ipv6Prefix, RuleTable};
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The answer as JSON; keys that do not apply are null.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<'t> {
    rule: &'t str,
    ipv4: Ipv4Addr,
    ipv4_prefix_len: u8,
    psid: Option<u16>,
    psid_len: Option<u8>,
    psid_offset: Option<u8>,
    map_ipv6_address: Ipv6Addr,
    port_count: u32,
    port_ranges: Vec<(u16, u16)>,
}

/// Derives by the rules of a file.
pub fn run(file: &Path, prefix: Ipv6Prefix, json: bool) -> Output {
    let document = match files::document(file) {
        Ok(loaded) => loaded.value,
        Err(findings) => return Output::no(&findings.to_string()),
    };
    let table = &document.provisioning().table;
    let customer = match table.customer(EndUserPrefix(prefix)) {
        Ok(customer) => customer,
        Err(error) => return Output::no(&format!("{error} ({})", error.rfc)),
    };
    let mut out = Output::default();
    if json {
        out.json(&answer(table, &customer));
    } else {
        let mut pairs = vec![("End-user prefix", prefix.to_string())];
        pairs.extend(describe(table, &customer));
        out.print(&text::fields(&pairs));
    }
    out
}

fn answer<'t>(table: &'t RuleTable, customer: &Customer) -> Answer<'t> {
    let params = table.get(customer.rule).port_params();
    Answer {
        rule: table.name(customer.rule),
        ipv4: customer.ipv4.addr(),
        ipv4_prefix_len: customer.ipv4.prefix_len(),
        psid: customer.psid.map(|psid| psid.0),
        psid_len: params.map(|params| params.k()),
        psid_offset: params.map(|params| params.a()),
        map_ipv6_address: customer.map_address.ipv6(),
        port_count: customer.ports.count(),
        port_ranges: customer.ports.ranges().map(|range| range.into_inner()).collect(),
    }
}

/// A customer in words, without the End-user prefix.
pub(super) fn describe(table: &RuleTable, customer: &Customer) -> Vec<(&'static str, String)> {
    let params = table.get(customer.rule).port_params();
    let mut pairs = vec![("Rule", table.name(customer.rule).to_string())];
    match (params, customer.psid) {
        (Some(params), Some(psid)) => {
            pairs.push(("IPv4 address", format!("{}, shared by {}", customer.ipv4.addr(), 1u32 << params.k())));
            let (k, a) = (params.k(), params.a());
            pairs.push(("PSID", format!("{0} ({0:#x}): {k} bits behind an offset of {a}", psid.0)));
        }
        _ if customer.ipv4.prefix_len() == 32 => {
            pairs.push(("IPv4 address", format!("{}, not shared", customer.ipv4.addr())));
        }
        _ => pairs.push(("IPv4 prefix", customer.ipv4.to_string())),
    }
    pairs.push(("MAP address", customer.map_address.to_string()));
    if customer.map_prefix.prefix_len() < 128 {
        pairs.push(("MAP addresses", format!("{}, one for each host", customer.map_prefix)));
    }
    pairs.push(("Ports", text::ports(&customer.ports)));
    pairs
}
