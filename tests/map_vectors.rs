//! The vectors of `vectors/rfc.yaml` that concern `map`; those of packets have a runner of their own.

#[path = "vectors/mod.rs"]
mod vectors;

use mapt::map::{Dmr, EndUserPrefix, Ipv4Prefix, Ipv6Prefix, PortParams, PortSet, Psid, Rule, RuleSpec, RuleTable};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use vectors::Vector;

/// Kinds that this file runs.
const MINE: [&str; 6] = ["bmr", "port_set", "psid_of_port", "map_addr", "dmr", "checksum_neutral"];
/// Kinds that the packet path runs.
const PACKETS: [&str; 8] = ["br46", "br64", "ce46", "ce64", "icmp46", "icmp64", "mtu46", "mtu64"];
/// Kinds of what is not built yet.
const LATER: [&str; 6] = ["eam46", "eam64", "hairpin", "s46_mapt", "s46_portparams", "s46_rule"];

fn parse<T: FromStr<Err: std::fmt::Display>>(value: &Value) -> Result<T, String> {
    value.as_str().ok_or("no text")?.parse().map_err(|e: T::Err| e.to_string())
}

fn int<T: TryFrom<u64>>(value: &Value) -> T {
    T::try_from(value.as_u64().expect("a number")).ok().expect("a number in range")
}

fn rule(value: &Value) -> Result<Rule, String> {
    let spec = RuleSpec {
        name: "vector".into(),
        rule_ipv6_prefix: parse(&value["v6"])?,
        rule_ipv4_prefix: parse(&value["v4"])?,
        ea_len: int(&value["ea"]),
        psid_offset: value.get("a").map_or(6, int),
        psid_len: value.get("k").map(int),
        psid: value.get("psid").map(int),
        forwarding: true,
        dmr_ipv6_prefix: None,
    };
    Rule::new(spec).map_err(|errors| errors.iter().map(|e| e.to_string()).collect::<Vec<_>>().join("; "))
}

fn table(value: &Value) -> Result<RuleTable, String> {
    let dmr = Dmr::new("64:ff9b:1:fffe::/96".parse().unwrap()).unwrap();
    RuleTable::new(vec![rule(value)?], Some(dmr)).map_err(|conflicts| format!("{conflicts:?}"))
}

fn bmr(vector: &Vector) -> Result<Value, String> {
    let table = table(vector.input("rule"))?;
    let prefix = parse(vector.input("enduser"))?;
    let customer = table.customer(EndUserPrefix(prefix)).map_err(|e| e.to_string())?;
    assert!(prefix.covers(&customer.map_prefix) && customer.map_prefix.contains(customer.map_address.ipv6()));
    let kind = match (customer.psid, customer.ipv4.prefix_len()) {
        (Some(_), 32) => "shared",
        (None, 32) => "full",
        (None, _) => "prefix",
        (Some(_), _) => panic!("a shared prefix"),
    };
    assert_eq!(customer.ports == PortSet::ALL, customer.psid.is_none());
    assert_eq!(customer.map_prefix.prefix_len() == 128, kind != "prefix");
    let mut out = json!({
        "kind": kind,
        "ipv4": customer.ipv4.to_string(),
        "addr": customer.map_address.to_string(),
    });
    if let Some(psid) = customer.psid {
        out["psid"] = psid.0.into();
    }
    Ok(out)
}

fn port_set(vector: &Vector) -> Result<Value, String> {
    let params = PortParams::new(int(vector.input("a")), int(vector.input("k"))).map_err(|e| e.to_string())?;
    let set = params.port_set(Psid(int(vector.input("psid")))).ok_or("no such PSID")?;
    let ranges: Vec<[u16; 2]> = set.ranges().map(|range| [*range.start(), *range.end()]).collect();
    let all = json!({
        "ranges": ranges.len(),
        "ports": set.count(),
        "m": params.m(),
        "first": ranges[..ranges.len().min(2)],
        "last": ranges[ranges.len().saturating_sub(2)..],
        "all": ranges,
    });
    // A vector gives some of these.
    let wanted = vector.output().as_object().expect("an object");
    Ok(wanted.keys().map(|key| (key.clone(), all[key].clone())).collect())
}

fn psid_of_port(vector: &Vector) -> Result<Value, String> {
    let params = PortParams::new(int(vector.input("a")), int(vector.input("k"))).map_err(|e| e.to_string())?;
    Ok(json!({ "psid": params.psid_of(int(vector.input("port"))).map(|psid| psid.0) }))
}

fn map_addr(vector: &Vector) -> Result<Value, String> {
    let table = table(vector.input("rule"))?;
    let ipv4: Ipv4Addr = parse(vector.input("ipv4"))?;
    let port: u16 = int(vector.input("port"));
    let (id, address) = table.by_ipv4(ipv4, Some(port)).map_err(|e| format!("{e:?}"))?;
    // The way back.
    assert_eq!(table.by_ipv6(address.ipv6()), Some(id));
    let (back, psid) = table.get(id).decompose(address.ipv6());
    assert_eq!((back, Some(psid)), (ipv4, table.get(id).psid_of(port)));
    Ok(json!({ "addr": address.to_string() }))
}

fn dmr(vector: &Vector) -> Result<Value, String> {
    let dmr = Dmr::new(parse(vector.input("prefix"))?).map_err(|e| e.to_string())?;
    let ipv4 = parse(vector.input("ipv4"))?;
    let addr = dmr.embed(ipv4);
    assert_eq!(dmr.extract(addr), Some(ipv4));
    Ok(json!({ "addr": addr.to_string() }))
}

fn checksum_neutral(vector: &Vector) -> Result<Value, String> {
    let dmr = Dmr::new(parse(vector.input("prefix"))?).map_err(|e| e.to_string())?;
    Ok(json!({ "neutral": dmr.is_checksum_neutral() }))
}

/// Addresses and prefixes in canonical text, as vectors may spell them otherwise.
fn canonical(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let addr = text.parse::<Ipv6Addr>().map(|a| a.to_string()).ok();
            let prefix = || text.parse::<Ipv6Prefix>().map(|p| p.to_string()).ok();
            let ipv4 = || text.parse::<Ipv4Prefix>().map(|p| p.to_string()).ok();
            addr.or_else(prefix).or_else(ipv4).unwrap_or_else(|| text.clone()).into()
        }
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), canonical(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn vectors_of_map() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for vector in vectors::load() {
        *counts.entry(vector.kind.clone()).or_default() += 1;
        let result = match vector.kind.as_str() {
            "bmr" => bmr(&vector),
            "port_set" => port_set(&vector),
            "psid_of_port" => psid_of_port(&vector),
            "map_addr" => map_addr(&vector),
            "dmr" => dmr(&vector),
            "checksum_neutral" => checksum_neutral(&vector),
            kind if PACKETS.contains(&kind) || LATER.contains(&kind) => continue,
            kind => panic!("{}: nobody runs the kind {kind}", vector.id),
        };
        match result {
            Err(message) if vector.refused() => println!("{}: refused: {message}", vector.id),
            Ok(out) if !vector.refused() && canonical(&out) == canonical(vector.output()) => {}
            other => wrong.push(format!("{}: {other:?}, expected {}", vector.id, vector.output())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for kind in MINE {
        assert!(counts.contains_key(kind), "no vector of kind {kind}");
    }
    for (kind, count) in &counts {
        let who = if MINE.contains(&kind.as_str()) {
            "run"
        } else if PACKETS.contains(&kind.as_str()) {
            "run by the packet path's tests"
        } else {
            "later"
        };
        println!("{kind}: {count} {who}");
    }
}
