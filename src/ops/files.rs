//! Configuration and rule files, read from disk.
use crate::config::{Config, ConfigError, Document, Findings, Loaded, MAX_TEXT, Role, RuleSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The text of a file, if it is UTF-8 and not longer than the configuration takes.
pub fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_TEXT {
        let message = format!("longer than {} MiB", MAX_TEXT >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("not UTF-8 text in line {line}"))
    })
}

/// A rule set or a daemon's file, with all that is wrong in it and in the rules' file that it names.
pub fn document(path: &Path) -> Result<Loaded<Document>, Findings> {
    let text = text(path)?;
    Document::load(&text, path, &mut read)
}

/// A daemon's file, ready to run: the seed is drawn from the system.
pub fn daemon(path: &Path) -> Result<Loaded<Config>, Findings> {
    daemon_of(&text(path)?, path, None)
}

/// A daemon's file by its text, with other rules than its own if some are given.
pub fn daemon_of(text: &str, path: &Path, rules: Option<&RuleSet>) -> Result<Loaded<Config>, Findings> {
    seeded(match rules {
        Some(rules) => Config::load_with(text, path, rules)?,
        None => Config::load(text, path, &mut read)?,
    })
}

fn seeded(mut loaded: Loaded<Config>) -> Result<Loaded<Config>, Findings> {
    let drawn = draw_seed().map_err(|e| ConfigError::of_file("/dev/urandom", format!("no seed: {e}")))?;
    match &mut loaded.value.role {
        Role::Br(params) => params.seed = drawn,
        Role::Ce(params) => params.seed = drawn,
    }
    Ok(loaded)
}

/// The text of a daemon's file or a rule set.
pub fn text(path: &Path) -> Result<String, Findings> {
    read(path).map_err(|e| ConfigError::of_file(&path.to_string_lossy(), format!("cannot read it: {e}")).into())
}

fn draw_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
