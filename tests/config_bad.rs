//! What each wrong file is refused with: `tests/bad/NAME.yaml`, and in `NAME.errors` one line for each error.
use mapt::config::{ConfigError, Document, Findings};
use std::fs;
use std::path::Path;

/// Without the excerpt, and without the file's name where it is the checked one.
fn line(e: &ConfigError, file: &Path) -> String {
    let all = e.to_string();
    let first = all.lines().next().unwrap_or_default();
    first.strip_prefix(&format!("{}:", file.display())).unwrap_or(first).trim_start().to_string()
}

fn errors(file: &Path) -> Findings {
    let text = fs::read_to_string(file).unwrap();
    match Document::load(&text, file, &mut |path| fs::read_to_string(path)) {
        Ok(_) => panic!("{} was accepted", file.display()),
        Err(findings) => findings,
    }
}

#[test]
fn every_bad_file_gives_its_errors() {
    let mut names: Vec<_> = fs::read_dir("tests/bad").unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    names.sort();
    assert!(names.len() > 25, "tests/bad is there");
    let mut wrong = String::new();
    for file in names {
        let found: Vec<String> = errors(&file).errors.iter().map(|e| line(e, &file)).collect();
        let expected = fs::read_to_string(file.with_extension("errors")).unwrap_or_default();
        let expected: Vec<&str> = expected.lines().collect();
        if found != expected {
            let text = found.join("\n");
            wrong.push_str(&format!("== {}\n{text}\n-- expected\n{}\n", file.display(), expected.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Line and column of an error point at the first character of what it speaks of.
#[test]
fn carets_stand_under_the_value() {
    let findings = errors(Path::new("tests/bad/ranges.yaml"));
    let shown = findings.errors[1].to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1], "    6 |     ea-len: 49");
    assert_eq!(lines[2], "      |             ^^");
}
