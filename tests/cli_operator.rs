//! The built `mapt`, as an operator or a script calls it. Expected values are those that RFC 7597 and RFC 7599 print
//! in their Appendix A.
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const RULES: &str = "config/rules.yaml";

fn mapt(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mapt")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The answer of a command that must succeed, as JSON, with its keys in the order they were written.
fn answer(args: &[&str]) -> Value {
    let mut with = args.to_vec();
    with.push("--json");
    let out = mapt(&with);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// The reason of a command that must say no.
fn refusal(args: &[&str]) -> String {
    let out = mapt(args);
    assert_eq!(out.status.code(), Some(1), "{args:?}: {}", text(&out.stderr));
    assert!(out.stdout.is_empty(), "{args:?}");
    text(&out.stderr)
}

/// A file of this test's own.
fn file(name: &str, content: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{name}", std::process::id()));
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

fn keys(json: &str) -> Vec<&str> {
    json.split('"').skip(1).step_by(2).collect()
}

#[test]
fn derive_example_1_of_rfc_7597() {
    let found = answer(&["derive", RULES, "2001:db8:12:3400::/56"]);
    assert_eq!(found["rule"], "appendix-a");
    assert_eq!(found["ipv4"], "192.0.2.18");
    assert_eq!(found["ipv4-prefix-len"], 32);
    assert_eq!(found["psid"], 0x34);
    assert_eq!(found["psid-len"], 8);
    assert_eq!(found["psid-offset"], 6);
    assert_eq!(found["map-ipv6-address"], "2001:db8:12:3400:0:c000:212:34");
    assert_eq!(found["port-count"], 252);
    let ranges = found["port-ranges"].as_array().unwrap();
    assert_eq!(ranges.len(), 63);
    assert_eq!(ranges[..2], [json!([1232, 1235]), json!([2256, 2259])]);
    assert_eq!(ranges[61..], [json!([63696, 63699]), json!([64720, 64723])]);
}

#[test]
fn derive_writes_its_keys_in_order() {
    let out = mapt(&["derive", "--json", RULES, "2001:db8:12:3400::/56"]);
    let line = text(&out.stdout);
    assert!(line.starts_with(
        r#"{"rule":"appendix-a","ipv4":"192.0.2.18","ipv4-prefix-len":32,"psid":52,"psid-len":8,"psid-offset":6,"map-ipv6-address":"2001:db8:12:3400:0:c000:212:34","port-count":252,"port-ranges":[[1232,1235],"#
    ));
}

/// Example 4: one address for each customer, nothing in the EA bits.
#[test]
fn derive_example_4_of_rfc_7597() {
    let rules = "dmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n  - {name: one, rule-ipv6-prefix: '2001:db8:12:3400::/56', rule-ipv4-prefix: 192.0.2.18/32, ea-len: 0}\n";
    let found = answer(&["derive", &file("ex4.yaml", rules), "2001:db8:12:3400::/56"]);
    assert_eq!(
        found,
        json!({
            "rule": "one", "ipv4": "192.0.2.18", "ipv4-prefix-len": 32, "psid": null, "psid-len": null,
            "psid-offset": null, "map-ipv6-address": "2001:db8:12:3400:0:c000:212:0", "port-count": 65536,
            "port-ranges": [[0, 65535]]
        })
    );
}

/// Example 5: the PSID is given apart.
#[test]
fn derive_example_5_of_rfc_7597() {
    let rules = "dmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n  - {rule-ipv6-prefix: '2001:db8:12:3400::/56', rule-ipv4-prefix: 192.0.2.18/32, ea-len: 0, psid-len: 8, psid: 0x34}\n";
    let rules = file("ex5.yaml", rules);
    let found = answer(&["derive", &rules, "2001:db8:12:3400::/56"]);
    assert_eq!(found["rule"], "rule-1");
    assert_eq!((&found["ipv4"], &found["psid"]), (&json!("192.0.2.18"), &json!(52)));
    assert_eq!(found["map-ipv6-address"], "2001:db8:12:3400:0:c000:212:34");
    assert_eq!(found["port-ranges"][0], json!([1232, 1235]));
    // PSID 0x36 has port 1240, and no rule.
    let reason = refusal(&["whois", &rules, "192.0.2.18:1240"]);
    assert!(reason.contains("PSID 54") && reason.contains("only PSID 52"), "{reason}");
}

#[test]
fn derive_a_prefix() {
    // 203.0.113.128/25 and 4 EA bits: a /29; the fourth one begins at .152.
    let found = answer(&["derive", "config/rules-full.yaml", "2001:db8:9003::/48"]);
    assert_eq!((&found["ipv4"], &found["ipv4-prefix-len"]), (&json!("203.0.113.152"), &json!(29)));
    assert_eq!((&found["psid"], &found["port-ranges"]), (&json!(null), &json!([[0, 65535]])));
}

#[test]
fn derive_refuses_with_a_reason() {
    let reason = refusal(&["derive", RULES, "2001:db8:12::/48"]);
    assert!(reason.contains("too short") && reason.contains("/56") && reason.contains("RFC 7597 §5.2"), "{reason}");
    let reason = refusal(&["derive", RULES, "2001:db8:9912:3400::/56"]);
    assert!(reason.contains("no Rule IPv6 prefix"), "{reason}");
    let reason = refusal(&["derive", "tests/bad/inline.yaml", "2001:db8:12:3400::/56"]);
    assert!(reason.contains("tests/bad/inline.yaml:7:15: rules.rules[0].ea-len"), "{reason}");
}

#[test]
fn whois_by_ipv4_and_port() {
    let expected = json!({
        "rule": "appendix-a", "end-user-ipv6-prefix": "2001:db8:12:3400::/56",
        "map-ipv6-address": "2001:db8:12:3400:0:c000:212:34", "ipv4": "192.0.2.18", "psid": 52
    });
    // RFC 7597's first and last range of PSID 0x34.
    for port in [1232, 1235, 2256, 64720, 64723] {
        assert_eq!(answer(&["whois", RULES, &format!("192.0.2.18:{port}")]), expected, "{port}");
    }
    for port in [1231, 1236, 64719, 64724] {
        assert_ne!(answer(&["whois", RULES, &format!("192.0.2.18:{port}")])["psid"], 52, "{port}");
    }
    let out = mapt(&["whois", RULES, "192.0.2.18:1232", "--json"]);
    let line = text(&out.stdout);
    let named: Vec<&str> = keys(&line).into_iter().step_by(2).collect();
    assert_eq!(named[..3], ["rule", "end-user-ipv6-prefix", "map-ipv6-address"]);
}

#[test]
fn whois_by_ipv6() {
    // The MAP address, and a host of the customer's network.
    for addr in ["2001:db8:12:3400:0:c000:212:34", "2001:db8:12:34ff:1::7"] {
        let found = answer(&["whois", RULES, addr]);
        assert_eq!(found["end-user-ipv6-prefix"], "2001:db8:12:3400::/56", "{addr}");
        assert_eq!(found["map-ipv6-address"], "2001:db8:12:3400:0:c000:212:34", "{addr}");
        assert_eq!((&found["ipv4"], &found["psid"]), (&json!("192.0.2.18"), &json!(52)), "{addr}");
    }
}

#[test]
fn whois_in_a_prefix_names_the_host() {
    let found = answer(&["whois", "config/rules-full.yaml", "203.0.113.145"]);
    assert_eq!(found["map-ipv6-address"], "2001:db8:9002::cb00:7191:0");
    assert_eq!((&found["ipv4"], &found["psid"]), (&json!("203.0.113.145"), &json!(null)));
    let back = answer(&["whois", "config/rules-full.yaml", "2001:db8:9002::cb00:7191:0"]);
    assert_eq!(back, found);
    // Not a MAP address: the customer's first host.
    let other = answer(&["whois", "config/rules-full.yaml", "2001:db8:9002::1"]);
    assert_eq!(other["ipv4"], "203.0.113.144");
}

#[test]
fn whois_says_why_nobody_has_it() {
    for (target, why) in [
        ("192.0.2.18:80", "keeps 0-1023 from everyone (RFC 7597 §5.1)"),
        ("192.0.2.18:0", "nobody has port 0"),
        ("192.0.2.18", "is shared by 256 customers"),
        ("192.0.3.18:1232", "the nearest is 192.0.2.0/24 of `appendix-a`"),
        ("2001:db8:ffff:0:a:203:400:0", "stands for 10.2.3.4"),
        ("2001:db9::1", "no Rule IPv6 prefix covers it"),
    ] {
        let reason = refusal(&["whois", RULES, target]);
        assert!(reason.contains(why), "{target}: {reason}");
        refusal(&["whois", RULES, target, "--json"]);
    }
}

#[test]
fn show_tells_what_follows_from_a_rule() {
    let found = answer(&["rules", "show", RULES]);
    assert_eq!((&found["version"], &found["dmr-ipv6-prefix"]), (&json!(1), &json!("2001:db8:ffff::/64")));
    assert_eq!(
        found["rules"],
        json!([{
            "name": "appendix-a", "rule-ipv6-prefix": "2001:db8::/40", "rule-ipv4-prefix": "192.0.2.0/24",
            "ea-len": 16, "psid-offset": 6, "psid-len": 8, "psid": null, "forwarding": true,
            "dmr-ipv6-prefix": "2001:db8:ffff::/64", "sharing-ratio": 256, "ports-per-ce": 252,
            "end-user-prefix-len": 56, "ce-count": 65536
        }])
    );
    let out = text(&mapt(&["rules", "show", RULES]).stdout);
    let rows: Vec<&str> = out.lines().collect();
    assert!(rows[2].starts_with("NAME        RULE IPv6      RULE IPv4     EA"), "{out}");
    assert!(rows[3].starts_with("appendix-a  2001:db8::/40  192.0.2.0/24  16  6 "), "{out}");
    let address = "| Rule IPv6 prefix (40) | EA: IPv4 suffix (8) | EA: PSID (8) | subnet 0 (8) | 0 (16) | IPv4 address (32) | PSID (16) |";
    assert!(out.contains(address), "{out}");
    assert!(out.contains("| not 0 (6) | PSID (8) | any (2) |"), "{out}");
}

#[test]
fn check_accepts_and_refuses() {
    for good in fs::read_dir("config").unwrap().map(|entry| entry.unwrap().path()) {
        let good = good.to_str().unwrap();
        // Others' files.
        if good.contains("prometheus") || good.contains("grafana") {
            continue;
        }
        assert_eq!(answer(&["rules", "check", good]), json!({"ok": true, "errors": [], "warnings": []}), "{good}");
        assert!(text(&mapt(&["rules", "check", good]).stdout).contains("valid"));
    }
    let out = mapt(&["rules", "check", "tests/bad/rules.yaml", "--json"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out.stderr), "tests/bad/rules.yaml: 6 errors\n");
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(found["ok"], false);
    assert_eq!(found["errors"].as_array().unwrap().len(), 6);
    let message = "PSID length 6, but the EA bits carry a PSID of 8 (16 + 24 - 32); leave `psid-len` out";
    assert_eq!(
        found["errors"][1],
        json!({"path": "rules[1].psid-len", "line": 11, "column": 15, "message": message, "rfc": "RFC 7598 §4.5"})
    );
    assert!(
        text(&out.stdout)
            .starts_with(r#"{"ok":false,"errors":[{"path":"rules[0].ea-len","line":6,"column":13,"message":"#)
    );

    let out = text(&mapt(&["rules", "check", "tests/bad/rules.yaml"]).stderr);
    assert!(out.contains("error: tests/bad/rules.yaml:11:15: rules[1].psid-len: PSID length 6"), "{out}");
    assert!(out.contains("\n   11 |     psid-len: 6\n      |               ^\n"), "{out}");
}

#[test]
fn check_names_the_other_file() {
    let out = mapt(&["rules", "check", "tests/bad/rules-elsewhere.yaml", "--json"]);
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(found["errors"][0]["path"], "tun.queues");
    assert_eq!(found["errors"][0].get("file"), None);
    assert_eq!(found["errors"][1]["file"], "tests/bad/ranges.yaml");
}

#[test]
fn check_warns_and_says_yes() {
    let rules = "rules:\n  - {rule-ipv6-prefix: '2001:db8::/40', rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16, psid-offset: 0, dmr-ipv6-prefix: '64:ff9b::/96'}\n";
    let found = answer(&["rules", "check", &file("warn.yaml", rules)]);
    let warnings = found["warnings"].as_array().unwrap();
    let paths: Vec<&str> = warnings.iter().filter_map(|w| w["path"].as_str()).collect();
    assert_eq!(paths, ["rules[0].psid-offset", "rules[0].dmr-ipv6-prefix"]);
    assert_eq!(warnings[0]["line"], 2);
}

#[test]
fn files_that_cannot_be_read() {
    for command in [vec!["rules", "check"], vec!["rules", "show"]] {
        let mut args = command.clone();
        args.push("/nonexistent/rules.yaml");
        assert!(refusal(&args).contains("/nonexistent/rules.yaml: cannot read it: No such file"));
    }
    let out = mapt(&["rules", "check", "/nonexistent/rules.yaml", "--json"]);
    assert_eq!(out.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&found["ok"], &found["errors"][0]["line"]), (&json!(false), &json!(null)));
    assert!(refusal(&["rules", "check", "src"]).contains("cannot read it"));
    let path = file("latin1.yaml", "");
    fs::write(&path, b"version: 1\nname: caf\xe9\n").unwrap();
    assert!(refusal(&["rules", "check", &path]).contains("not UTF-8 text in line 2"));
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &[][..],
        &["rules"],
        &["frobnicate"],
        &["rules", "check"],
        &["derive", RULES],
        &["derive", RULES, "2001:db8:12:3400::"],
        &["derive", RULES, "2001:db8:12:3400::/40"],
        &["whois", RULES, "192.0.2.18:65536"],
        &["whois", RULES, "somebody"],
        &["rules", "check", RULES, "--yaml"],
    ] {
        let out = mapt(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(!out.stderr.is_empty() && out.stdout.is_empty(), "{args:?}");
    }
    let out = mapt(&["derive", RULES, "2001:db8:12:3400::/40"]);
    assert!(text(&out.stderr).contains("2001:db8::/40"), "the prefix that was probably meant");
}

#[test]
fn help_and_version() {
    let out = mapt(&["--version"]);
    assert_eq!(text(&out.stdout), format!("mapt {}\n", env!("CARGO_PKG_VERSION")));
    for args in [&["--help"][..], &["rules", "--help"], &["derive", "--help"], &["whois", "--help"]] {
        let out = mapt(args);
        assert_eq!(out.status.code(), Some(0));
        assert!(text(&out.stdout).contains("Usage: mapt"), "{args:?}");
    }
}

/// `mapt rules show FILE | head -1` is no failure of mapt's.
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mapt"))
        .args(["rules", "show", RULES])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
}
