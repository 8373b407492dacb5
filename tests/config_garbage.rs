//! Whatever the text, the answer is a value or errors that stand inside it; never a panic.
use mapt::config::{Document, Findings};
use proptest::prelude::*;
use std::io;
use std::path::Path;

const SAMPLES: &[&str] = &[
    include_str!("../config/rules-full.yaml"),
    include_str!("../config/br-full.yaml"),
    include_str!("../config/ce-full.yaml"),
];
const RULES: &str = include_str!("../config/rules-full.yaml");

fn judge(text: &str) -> Result<(), TestCaseError> {
    let mut loader = |path: &Path| match path.file_name() {
        Some(name) if name == "rules-full.yaml" => Ok(RULES.to_string()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let Err(Findings { errors, .. }) = Document::load(text, Path::new("g.yaml"), &mut loader) else { return Ok(()) };
    prop_assert!(!errors.is_empty());
    // A carriage return alone ends a line too (YAML 1.2 §5.4).
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.split('\n').collect();
    for error in errors.iter().filter(|e| e.file == "g.yaml") {
        if error.line == 0 && error.message.ends_with("more errors are not shown") {
            continue;
        }
        prop_assert!((1..=lines.len() + 1).contains(&error.line), "{error}");
        let width = lines.get(error.line - 1).map_or(0, |line| line.chars().count());
        prop_assert!((1..=width + 1).contains(&error.column), "{error}");
        prop_assert!(!error.to_string().contains('\u{1b}'), "control characters do not reach a terminal");
    }
    Ok(())
}

/// A piece of YAML that a key may meet.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (any::<u32>(), 0u8..40).prop_map(|(a, n)| format!("{}/{n}", std::net::Ipv4Addr::from(a))),
        (any::<u128>(), 0u8..140).prop_map(|(a, n)| format!("{}/{n}", std::net::Ipv6Addr::from(a))),
        prop::sample::select(vec![
            "",
            "~",
            "true",
            "no",
            "\"\"",
            "''",
            "[]",
            "{}",
            "[~]",
            "{a: b}",
            "*x",
            "&x y",
            "!t z",
            "- -",
            "|",
            ">-",
            "0x",
            "-0",
            "1e9",
            "?",
            ": :",
            "\"\u{1b}[31m\"",
            "é",
            "\u{feff}",
            "%",
            "@",
            "{rules: {rules: []}}"
        ])
        .prop_map(String::from),
        "\\PC{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "(?s).{0,200}") {
        judge(&text)?;
    }

    #[test]
    fn yaml_like_text(text in "[-a-z0-9 :{}\\[\\],\"'#&*!|>%\n\t?./]{0,120}") {
        judge(&text)?;
    }

    /// A sample with one value replaced, and one line moved, cut or doubled.
    #[test]
    fn damaged_samples(sample in prop::sample::select(SAMPLES), at: prop::sample::Index, with in value(), cut: prop::sample::Index, how in 0u8..4) {
        let mut lines: Vec<String> = sample.lines().filter(|l| !l.trim_start().starts_with('#')).map(String::from).collect();
        let n = at.index(lines.len());
        if let Some((key, _)) = lines[n].clone().split_once(": ") {
            lines[n] = format!("{key}: {with}");
        }
        let m = cut.index(lines.len());
        match how {
            0 => drop(lines.remove(m)),
            1 => lines.insert(m, lines[n].clone()),
            2 => lines.truncate(m),
            _ => {}
        }
        judge(&lines.join("\n"))?;
    }
}

#[test]
fn large_and_deep_texts_end() {
    for text in [
        "- ".repeat(200_000),
        "[".repeat(200_000),
        "a: ".repeat(100_000),
        "? ".repeat(100_000),
        format!("rules: [{}]", "1,".repeat(30_000)),
        format!("rules:\n{}", "  - {x: 1}\n".repeat(30_000)),
        format!("{}: 1", "k".repeat(2_000_000)),
        format!("version: {}", "9".repeat(2_000_000)),
        "version: 1\n".repeat(100_000),
        (0..100_000).map(|n| format!("k{n}: 1\n")).collect(),
    ] {
        judge(&text).unwrap();
    }
}
