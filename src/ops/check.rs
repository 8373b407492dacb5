//! `mapt rules check`: all that is wrong with a file, at once.
use super::cli::Output;
use super::files;
use super::text::counted;
use crate::config::{ConfigError, Document, Findings};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Answer<'e> {
    ok: bool,
    errors: Vec<Finding<'e>>,
    warnings: Vec<Finding<'e>>,
}

#[derive(Serialize)]
struct Finding<'e> {
    path: &'e str,
    line: Option<usize>,
    column: Option<usize>,
    message: &'e str,
    rfc: Option<&'e str>,
    /// Only where it is not the file that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'e str>,
}

/// Checks a rule set or a daemon's file.
pub fn run(file: &Path, json: bool) -> Output {
    let (document, findings) = match files::document(file) {
        Ok(loaded) => (Some(loaded.value), Findings { errors: Vec::new(), warnings: loaded.warnings }),
        Err(findings) => (None, findings),
    };
    let name = file.to_string_lossy();
    let Findings { errors, warnings } = &findings;
    let mut out = Output { status: u8::from(document.is_none()), ..Output::default() };
    if json {
        let of = |e| finding(e, &name);
        let answer = Answer {
            ok: document.is_some(),
            errors: errors.iter().map(of).collect(),
            warnings: warnings.iter().map(of).collect(),
        };
        out.json(&answer);
    } else {
        for warning in warnings {
            out.say(&format!("warning: {warning}"));
        }
        for error in errors {
            out.say(&format!("error: {error}"));
        }
    }
    match document {
        Some(document) if !json => {
            let provisioning = document.provisioning();
            let what = match document {
                Document::Rules(_) => "rule set",
                Document::Daemon(_) => "configuration",
            };
            let rules = counted(provisioning.table.rules().len(), "rule");
            let version =
                if provisioning.version == 0 { String::new() } else { format!(" version {}", provisioning.version) };
            out.print(&format!("{name}: a valid {what}{version} with {rules}"));
        }
        Some(_) => {}
        None => {
            let more =
                if warnings.is_empty() { String::new() } else { format!(", {}", counted(warnings.len(), "warning")) };
            out.say(&format!("{name}: {}{more}", counted(errors.len(), "error")));
        }
    }
    out
}

fn finding<'e>(e: &'e ConfigError, asked: &str) -> Finding<'e> {
    Finding {
        path: &e.path,
        line: (e.line > 0).then_some(e.line),
        column: (e.column > 0).then_some(e.column),
        message: &e.message,
        rfc: (!e.rfc.is_empty()).then_some(&e.rfc),
        file: (e.file != asked).then_some(&e.file),
    }
}
