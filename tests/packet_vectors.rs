//! The vectors of `vectors/rfc.yaml` that concern packets: addresses, checks, ICMP tables, MTUs.

mod common;
#[path = "vectors/mod.rs"]
mod vectors;

use std::collections::BTreeMap;

use common::*;
use mapt::br::Br;
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::map::RuleSpec;
use mapt::siit::icmp::{Field, error_v4_to_v6, error_v6_to_v4};
use mapt::siit::{Mtu, mtu};
use mapt::verdict::Verdict;
use serde_json::{Value, json};
use vectors::Vector;

fn specs(domain: &Value) -> Vec<RuleSpec> {
    let read = |r: &Value| RuleSpec {
        psid_offset: r.get("a").map_or(6, |a| a.as_u64().unwrap() as u8),
        psid_len: r.get("k").map(|k| k.as_u64().unwrap() as u8),
        psid: r.get("psid").map(|p| p.as_u64().unwrap() as u16),
        ..rule(r["v6"].as_str().unwrap(), r["v4"].as_str().unwrap(), r["ea"].as_u64().unwrap() as u8)
    };
    domain["rules"].as_array().unwrap().iter().map(read).collect()
}

/// Runs a packet of each transport through a role and compares the addresses; ports must stay what they are.
fn packet(vector: &Vector, is_br: bool, v4_in: bool) {
    let domain = &vector.value["domain"];
    let provisioning =
        provisioning(specs(domain), domain["dmr"].as_str().unwrap(), domain.get("enduser").and_then(Value::as_str));
    let text = |key: &str| vector.input(key).as_str().unwrap().to_owned();
    let port = |key: &str| vector.input(key).as_u64().unwrap() as u16;
    let (src, dst, sport, dport) = (text("src"), text("dst"), port("sport"), port("dport"));
    for tcp in [false, true] {
        let mut engine: Box<dyn Engine> = match is_br {
            true => Box::new(Br::new(&provisioning, &br_params())),
            // The vectors are about addresses: with NAPT the outside port would be ours to choose.
            false => Box::new(Ce::new(&provisioning, &CeParams { napt: false, ..ce_params() })),
        };
        let bytes = match (v4_in, tcp) {
            (true, false) => udp4(&src, sport, &dst, dport, b"payload"),
            (true, true) => tcp4(&src, sport, &dst, dport, "A", b"payload"),
            (false, false) => udp6(&src, sport, &dst, dport, b"payload"),
            (false, true) => tcp6(&src, sport, &dst, dport, "A", b"payload"),
        };
        let outcome = handle(engine.as_mut(), &bytes);
        match vector.output()["verdict"].as_str().unwrap() {
            "forward" => {
                let out = outcome.forwarded();
                assert_valid(&out);
                let canonical = |key: &str| {
                    let text = vector.output()[key].as_str().unwrap();
                    text.parse::<std::net::IpAddr>().unwrap().to_string()
                };
                assert_eq!(tuple(&out), (canonical("src"), sport, canonical("dst"), dport), "{}", vector.id);
            }
            "drop" => assert!(matches!(outcome.verdict, Verdict::Drop { .. }), "{}", vector.id),
            "icmp6 1/5" => {
                assert!(matches!(outcome.verdict, Verdict::Drop { reply: true, .. }), "{}", vector.id);
                let reply = outcome.reply.unwrap();
                assert_eq!(reply[40..42], [1, 5], "{}", vector.id);
                assert_eq!(reply[24..40], bytes[8..24], "{}: told is the sender", vector.id);
                assert_eq!(reply[48..], bytes[..], "{}: the packet is quoted", vector.id);
            }
            other => panic!("{other}"),
        }
    }
}

fn icmp(vector: &Vector, v4_in: bool) {
    let from: Vec<u32> = vector.input("from").as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect();
    let (kind, code, pointer) = (from[0] as u8, from[1] as u8, from.get(2).copied().unwrap_or(0));
    let echo: BTreeMap<u8, u8> = if v4_in { [(8, 128), (0, 129)] } else { [(128, 8), (129, 0)] }.into();
    let translated = match v4_in {
        _ if echo.contains_key(&kind) => return echo_through_br(vector, v4_in, kind, echo[&kind]),
        true => error_v4_to_v6(kind, code, pointer as u8),
        false => error_v6_to_v4(kind, code, pointer),
    };
    let got = translated.map(|t| match t.field {
        Field::Pointer(p) => json!([t.kind, t.code, p]),
        _ => json!([t.kind, t.code]),
    });
    assert_eq!(json!(got), vector.output()["to"], "{}", vector.id);
}

fn echo_through_br(vector: &Vector, v4_in: bool, kind: u8, expected: u8) {
    assert_eq!(vector.output()["to"], json!([expected, 0]), "{}", vector.id);
    let request = matches!(kind, 8 | 128);
    let out = match v4_in {
        true => handle(&mut br(), &echo4("10.2.3.4", "192.0.2.18", 1232, request, b"ping")).forwarded(),
        false => {
            let bytes = echo6("2001:db8:12:3400:0:c000:212:34", "2001:db8:ffff:0:a:203:400:0", 1232, request, b"ping");
            handle(&mut br(), &bytes).forwarded()
        }
    };
    assert_valid(&out);
    assert_eq!(out[if v4_in { 40 } else { 20 }], expected, "{}", vector.id);
}

fn mtu_of(vector: &Vector, v4_in: bool) {
    let number = |key: &str| vector.input(key).as_u64().unwrap_or(0) as u32;
    let next_hop = Mtu { ipv6: number("mtu6_nh"), ipv4: number("mtu4_nh"), lowest_ipv6: 1280 };
    let fragment = vector.input("inner_frag").as_bool().unwrap_or(false);
    let got = match v4_in {
        true => mtu::v4_to_v6(number("mtu") as u16, number("inner_len") as usize, fragment, &next_hop),
        false => u32::from(mtu::v6_to_v4(number("mtu"), fragment, &next_hop)),
    };
    assert_eq!(json!(got), vector.output()["mtu"], "{}", vector.id);
}

#[test]
fn packet_vectors() {
    let mut counts = BTreeMap::new();
    for vector in vectors::load() {
        match vector.kind.as_str() {
            "br46" => packet(&vector, true, true),
            "br64" => packet(&vector, true, false),
            "ce46" => packet(&vector, false, true),
            "ce64" => packet(&vector, false, false),
            "icmp46" => icmp(&vector, true),
            "icmp64" => icmp(&vector, false),
            "mtu46" => mtu_of(&vector, true),
            "mtu64" => mtu_of(&vector, false),
            _ => continue,
        }
        *counts.entry(vector.kind.clone()).or_insert(0) += 1;
    }
    println!("{counts:?}");
    for kind in ["br46", "br64", "ce46", "ce64", "icmp46", "icmp64", "mtu46", "mtu64"] {
        assert!(counts.contains_key(kind), "no vector of kind {kind}");
    }
}
