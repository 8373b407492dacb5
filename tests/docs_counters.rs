//! `docs/counters.md` against the table of drop reasons in `src/verdict.rs`.

use std::collections::BTreeMap;

use mapt::verdict::DropReason;

const PAGE: &str = include_str!("../docs/counters.md");

/// `3/13`, or a dash.
fn told(answer: Option<(u8, u8)>) -> String {
    answer.map_or("—".into(), |(kind, code)| format!("{kind}/{code}"))
}

/// The first five cells of a reason's row.
fn cells(reason: DropReason) -> [String; 5] {
    let answer = reason.answer();
    [
        format!("`{}`", reason.name()),
        reason.sentence().into(),
        reason.section().into(),
        told(answer.icmpv4),
        told(answer.icmpv6),
    ]
}

/// The rows of the table of reasons, by their first cell.
fn rows() -> BTreeMap<String, Vec<String>> {
    let (_, section) = PAGE.split_once("\n## The reasons\n").expect("the section of reasons");
    let table = section.lines().filter(|line| line.starts_with("| `"));
    let mut rows = BTreeMap::new();
    for line in table {
        let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        assert_eq!(cells.len(), 7, "seven cells, no `|` inside one: {line}");
        let name = cells[0].clone();
        assert!(rows.insert(name, cells).is_none(), "twice: {line}");
    }
    rows
}

#[test]
fn every_reason_has_its_row_and_no_other_has() {
    let mut rows = rows();
    let mut wrong = Vec::new();
    for reason in DropReason::ALL {
        let expected = cells(*reason);
        let row = format!("| {} | where (A-F) | what to do at 3 a.m. |", expected.join(" | "));
        match rows.remove(&expected[0]) {
            None => wrong.push(format!("missing; paste this and fill in its end:\n{row}")),
            Some(found) if found[..5] != expected => wrong.push(format!("differs, should begin with:\n{row}")),
            Some(_) => {}
        }
    }
    wrong.extend(rows.keys().map(|name| format!("no such reason: {name}")));
    assert!(wrong.is_empty(), "docs/counters.md:\n{}", wrong.join("\n"));
}

/// Each place of a row has its letter in the drawing, and each reason stands in the drawing.
#[test]
fn every_reason_stands_on_the_path() {
    let drawing = PAGE.split("\n```").nth(1).expect("the drawing");
    let words: Vec<&str> =
        drawing.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| !word.is_empty()).collect();
    for reason in DropReason::ALL {
        assert!(words.contains(&reason.name()), "{} is not on the drawn path", reason.name());
    }
    for (name, cells) in rows() {
        for letter in cells[5].split(", ") {
            assert_eq!(letter.len(), 1, "{name}: {:?} is no list of letters", cells[5]);
            assert!(drawing.contains(&format!("\n {letter}  ")), "{name}: the drawing has no {letter}");
        }
        assert!(cells[6].len() > 20 && cells[6].ends_with('.'), "{name}: {:?} helps nobody at 3 a.m.", cells[6]);
    }
}
