//! `docs/rfc`: every requirement and pitfall has its row, and every test that a page names exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Families of requirements, and how many each has: PORT-1 to PORT-12.
const REQUIREMENTS: &[(&str, u32)] = &[
    ("PORT", 12),
    ("RULE", 21),
    ("DMR", 11),
    ("CE", 18),
    ("BR", 17),
    ("FRAG", 8),
    ("MTU", 8),
    ("HDR", 10),
    ("SUM", 6),
    ("ICMP", 14),
    ("NAT", 19),
    // REQ by REQ, or section by section: RFC 7857 begins with its §2.
    ("R4787", 14),
    ("R5382", 10),
    ("R5508", 11),
    ("R7857", 12),
    // A server of PCP and NAT-PMP.
    ("PCP", 37),
    ("PMP", 12),
];
/// The pages, in which an id stands once in all.
const PAGES: &[&str] = &["7597", "7599", "7915", "6052", "6791", "nat", "pcp", "pitfalls"];

fn ids() -> Vec<String> {
    let requirements = REQUIREMENTS.iter().flat_map(|(family, last)| (1..=*last).map(move |n| format!("{family}-{n}")));
    let pitfalls = (1..=48).chain(52..=59).map(|n| format!("P{n}"));
    let requirements = requirements.filter(|id| id != "R7857-1");
    requirements.chain(pitfalls).chain(["P6b".into(), "P19b".into()]).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs/rfc").join(format!("{name}.md"))).unwrap()
}

/// Cells of the rows that begin with an id.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let is_id = |cell: &str| {
        let letters = cell.trim_start_matches(|c: char| c.is_ascii_uppercase());
        letters.len() < cell.len() && letters.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit())
    };
    (page.lines().filter(|line| line.starts_with("| ")))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| is_id(cells[0]))
        .collect()
}

/// What stands in backticks and has `::` in it.
fn named_tests(text: &str) -> impl Iterator<Item = &str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.contains("::") && !code.contains(['/', ' ']) || code.contains(".rs::"))
}

fn file_of(name: &str) -> PathBuf {
    if name.contains('/') { root().join(name) } else { root().join("tests").join(format!("{name}.rs")) }
}

/// Whether the text has this function, marked as a test.
fn has_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let name =
            line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ").map(|rest| rest.split(['(', '<']).next());
        let above = || lines[..at].iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//"));
        name == Some(Some(function)) && above().any(|line| line.starts_with("#[") && line.contains("test"))
    })
}

#[test]
fn every_id_is_exactly_one_row() {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in PAGES {
        for cells in rows(&page(name)) {
            found.entry(cells[0].into()).or_default().push(name);
        }
    }
    let mut wrong = Vec::new();
    for id in ids() {
        match found.remove(&id).as_deref() {
            None => wrong.push(format!("{id} has no row")),
            Some([_]) => {}
            Some(pages) => wrong.push(format!("{id} has rows in {pages:?}")),
        }
    }
    wrong.extend(found.keys().map(|id| format!("{id} is no id of ours")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_is_shown_or_says_why_not() {
    let mut wrong = Vec::new();
    for name in PAGES {
        let columns = if *name == "pitfalls" { 3 } else { 5 };
        for cells in rows(&page(name)) {
            let last = cells[cells.len() - 1];
            let shown = named_tests(last).next().is_some();
            let excused = ["Not ours: ", "Later: "].iter().any(|word| last.starts_with(word)) && last.len() > 30;
            if cells.len() != columns || shown == excused {
                wrong.push(format!("docs/rfc/{name}.md: {}: {last:?} neither names a test nor says why not", cells[0]));
            }
            if columns == 5 && !["M", "S", "O", "F", "D"].contains(&cells[1]) {
                wrong.push(format!("docs/rfc/{name}.md: {}: {:?} is no level", cells[0], cells[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_named_test_exists() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for name in PAGES {
        for test in named_tests(&page(name)) {
            count += 1;
            let (file, function) = test.split_once("::").unwrap();
            let exists = fs::read_to_string(file_of(file)).is_ok_and(|text| has_test(&text, function));
            if !exists {
                wrong.push(format!("docs/rfc/{name}.md names `{test}`, and no such test is there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 200, "only {count} tests are named");
}

/// The readers above see what they must.
#[test]
fn rows_and_tests_are_told_from_text() {
    let text = "| id | level |\n|---|---|\n| PORT-1 | F |\n| P6b | x |\n| `mtu` | y |\nP1 is text\n";
    let ids: Vec<&str> = rows(text).iter().map(|cells| cells[0]).collect();
    assert_eq!(ids, ["PORT-1", "P6b"]);
    let names: Vec<&str> = named_tests("`a::b`, `src/c/d.rs::e`, `::/0`, `2001:db8::/40`, `mtu`, f::g").collect();
    assert_eq!(names, ["a::b", "src/c/d.rs::e"]);
    let source = "/// Why.\n#[test]\nfn a() {}\nfn helper(x: u8) {}\n    #[tokio::test]\n    async fn b() {}\n";
    assert_eq!(["a", "helper", "b", "c"].map(|name| has_test(source, name)), [true, false, true, false]);
}
