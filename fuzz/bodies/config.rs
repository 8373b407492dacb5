//! Random text as a configuration file: errors with a place, or a configuration that works.

use std::io;
use std::path::Path;

use mapt::config::{Config, ConfigError, Document, Findings, Role, RuleSet};
use mapt::engine::Engine;
use mapt::frag::FragParams;
use mapt::ops;
use mapt::wire::PacketBuf;

/// The input: the file, and behind a NUL the file that `rules:` names.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (text, rules) = text.split_once('\0').unwrap_or((&text, ""));
    let mut loader =
        |_: &Path| if rules.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(rules.to_owned()) };
    let file = Path::new("fuzz.yaml");
    let breaks = |text: &str| text.chars().filter(|c| matches!(c, '\n' | '\r')).count();
    let lines = breaks(text).max(breaks(rules)) + 2;

    match Document::load(text, file, &mut loader) {
        Ok(loaded) => {
            places(&loaded.warnings, lines);
            let table = loaded.value.provisioning().table;
            let _ = (table.dmrs(), table.by_ipv4([192, 0, 2, 18].into(), Some(1232)));
        }
        Err(findings) => refused(&findings, lines),
    }
    match RuleSet::load(text, file) {
        Ok(loaded) => places(&loaded.warnings, lines),
        Err(findings) => refused(&findings, lines),
    }
    match Config::load(text, file, &mut loader) {
        Ok(mut loaded) => {
            places(&loaded.warnings, lines);
            // A gigabyte for fragments is allowed, and slow to take a thousand times a second.
            match &mut loaded.value.role {
                Role::Br(params) => params.fragments = FragParams { packets: 8, ..FragParams::CE },
                Role::Ce(params) => params.fragments = FragParams { packets: 8, ..FragParams::CE },
            }
            let mut engine = ops::engine::build(&loaded.value);
            let mut packet =
                PacketBuf::from_slice(&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            engine.handle(&mut packet, Default::default());
            while engine.poll_transmit().is_some() {}
        }
        Err(findings) => refused(&findings, lines),
    }
}

fn refused(findings: &Findings, lines: usize) {
    assert!(!findings.errors.is_empty(), "refused without a word");
    places(&findings.errors, lines);
    places(&findings.warnings, lines);
}

/// A message for people, and a line that the file has.
fn places(errors: &[ConfigError], lines: usize) {
    for error in errors {
        let shown = error.to_string();
        assert!(!error.message.is_empty());
        assert!(error.line <= lines, "{error}");
        assert!(
            !shown.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')),
            "a terminal obeys this: {shown:?}"
        );
    }
}
