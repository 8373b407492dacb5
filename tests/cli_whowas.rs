//! `mapt whois --history`: who had it when, one question or many.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A history of three sets: rule `old` (2001:db8::/40, 192.0.2.0/24) from November 1, the same addresses with PSID
/// offset 4 from November 10, customers with prefixes from November 20.
fn history(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("mapt-whowas-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let set = |version: u8, rule: &str| {
        format!("version: {version}\ndmr-ipv6-prefix: \"2001:db8:ffff::/64\"\nrules:\n  - {{{rule}}}\n")
    };
    let shared = "rule-ipv6-prefix: \"2001:db8::/40\", rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16";
    let files = [
        ("20261101T000000Z-file.yaml", set(1, &format!("name: old, {shared}, psid-offset: 6"))),
        ("20261110T120000.500Z-pushed.yaml", set(2, &format!("name: new, {shared}, psid-offset: 4"))),
        (
            "20261120T000000Z-returned.yaml",
            set(3, "name: prefix, rule-ipv6-prefix: \"2001:db8::/40\", rule-ipv4-prefix: 192.0.2.0/24, ea-len: 4"),
        ),
        ("pending", "nonsense".to_owned()),
    ];
    for (file, text) in files {
        std::fs::write(directory.join(file), text).unwrap();
    }
    directory
}

fn whois(directory: &PathBuf, arguments: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapt"));
    command.arg("whois").arg("--history").arg(directory).args(arguments.split_whitespace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

fn answer(directory: &PathBuf, arguments: &str) -> Value {
    let output = whois(directory, &format!("--json {arguments}"), "");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_answer_is_that_of_the_time() {
    let directory = history("time");
    // RFC 7597 Appendix A, example 1: PSID 0x34 of 192.0.2.18 has port 1232 with an offset of 6.
    let a = answer(&directory, "--at 2026-11-05T10:00:00Z 192.0.2.18:1232");
    assert_eq!(a["end-user-ipv6-prefix"], "2001:db8:12:3400::/56");
    assert_eq!(a["map-ipv6-address"], "2001:db8:12:3400:0:c000:212:34");
    assert_eq!(
        (a["rule"].as_str(), a["psid"].as_u64(), a["rules-version"].as_u64()),
        (Some("old"), Some(0x34), Some(1))
    );
    assert_eq!(
        (a["from"].as_str(), a["until"].as_str()),
        (Some("2026-11-01T00:00:00Z"), Some("2026-11-10T12:00:00.5Z"))
    );
    assert_eq!(a["port-ranges"], Value::Null);
    // With an offset of 4 port 5001 is 0001 0011 1000 1001: PSID 0x38.
    let a = answer(&directory, "--at 2026-11-10T13:00:00+00:30 192.0.2.18:5001");
    assert_eq!((a["end-user-ipv6-prefix"].as_str(), a["rule"].as_str()), (Some("2001:db8:12:3800::/56"), Some("new")));
    let output = whois(&directory, "--at 2026-11-10T12:00:00.500Z 192.0.2.18:1232", "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("keeps 0-4095"), "{output:?}");
    // Without a time it is now: 192.0.2.16/28, and the ports of all of it.
    let a = answer(&directory, "192.0.2.18");
    assert_eq!((a["rule"].as_str(), a["psid"].clone(), a["until"].clone()), (Some("prefix"), Value::Null, Value::Null));
    assert_eq!(a["end-user-ipv6-prefix"], "2001:db8:10::/44");
    let a = answer(&directory, "2001:db8:10::77");
    assert_eq!((a["ipv4"].as_str(), &a["port-ranges"]), (Some("192.0.2.16"), &serde_json::json!([[0, 65_535]])));

    // The reverse: which ports this network had then.
    let a = answer(&directory, "--at 2026-11-05T10:00:00Z 2001:db8:12:34ab::1");
    assert_eq!((a["ipv4"].as_str(), a["psid"].as_u64()), (Some("192.0.2.18"), Some(0x34)));
    assert_eq!(
        (a["port-ranges"][0].clone(), a["port-ranges"].as_array().unwrap().len()),
        (serde_json::json!([1232, 1235]), 63)
    );

    let text =
        String::from_utf8(whois(&directory, "--at 2026-11-05T10:00:00Z 2001:db8:12:34ab::1", "").stdout).unwrap();
    assert!(
        text.contains("252 in 63 ranges\n") && text.contains("in force from 2026-11-01T00:00:00Z to 2026"),
        "{text}"
    );
    let no = |arguments: &str, status: i32, said: &str| {
        let output = whois(&directory, arguments, "");
        assert_eq!(output.status.code(), Some(status), "{arguments}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{arguments}: {output:?}");
    };
    no("--at 2026-10-31T23:59:59Z 192.0.2.18:1232", 1, "the history begins at 2026-11-01T00:00:00Z");
    no("--at yesterday 192.0.2.18:1232", 2, "yesterday");
    no("192.0.2.18:1232 192.0.2.19:1232", 2, "--history");
    no("", 2, "--bulk");
    no("nobody", 2, "IPV4:PORT");
    let none = std::env::temp_dir().join("mapt-no-such-history");
    assert_eq!(whois(&none, "192.0.2.18:1232", "").status.code(), Some(1));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn many_questions_at_once() {
    let directory = history("bulk");
    let input = "# an abuse report\n2026-11-05T10:00:00Z 192.0.2.18:1232 spam\n\n2026-11-11T10:00:00Z,192.0.2.18:5001,scan\n\
                 2026-11-05T10:00:00Z 192.0.2.18:80\n2026-11-05T10:00:00Z\nrubbish\n2026-11-21T00:00:00Z 192.0.2.18";
    let output = whois(&directory, "--bulk -", input);
    assert_eq!(output.status.code(), Some(1), "not all have an owner");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["2026-11-05T10:00:00Z 192.0.2.18:1232 spam", "2001:db8:12:3400::/56", "old", "1"]);
    assert_eq!(lines[1][1..], ["2001:db8:12:3800::/56", "new", "2"]);
    assert!(lines[2][1] == "-" && lines[2][2].contains("keeps 0-1023"), "{text}");
    assert!(lines[3][2].contains("no address") && lines[4][2].contains("expected IPV4:PORT"), "{text}");
    assert_eq!(lines[5][1..], ["2001:db8:10::/44", "prefix", "3"]);
    assert_eq!(lines.len(), 6);

    let mut many = String::new();
    for n in 0..50_000u32 {
        // Every PSID of every address, at both times.
        let (addr, psid) = (n % 256, n / 256 % 256);
        let day = if n % 2 == 0 { "05" } else { "15" };
        let port = if n % 2 == 0 { 1024 + psid * 4 + n % 4 } else { 4096 + psid * 16 + n % 16 };
        many += &format!("2026-11-{day}T00:00:{:02}Z 192.0.2.{addr}:{port}\n", n % 60);
    }
    let file = directory.join("questions");
    std::fs::write(&file, many).unwrap();
    let output = whois(&directory, &format!("--json --bulk {}", file.display()), "");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for (n, line) in text.lines().enumerate() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let (addr, psid) = (n % 256, n / 256 % 256);
        let expected = format!("2001:db8:{:x}::/56", addr).replace("::/56", &format!(":{psid:x}00::/56"));
        let expected: mapt::map::Ipv6Prefix = expected.parse().unwrap();
        assert_eq!(answer["end-user-ipv6-prefix"], expected.to_string(), "{line}");
        assert_eq!(answer["rules-version"].as_u64(), Some(if n % 2 == 0 { 1 } else { 2 }));
    }
    assert_eq!(text.lines().count(), 50_000);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_file_of_rules_answers_many_questions_too() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapt"));
    command.args(["whois", "config/rules.yaml", "--bulk", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"192.0.2.18:1232\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "192.0.2.18:1232\t2001:db8:12:3400::/56\tappendix-a\t1\n");
}
