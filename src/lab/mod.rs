//! `mapt lab`: two homes, an IPv6-only access network, a border relay and an IPv4-only server in network
//! namespaces, and ordinary programs that prove that it all works. See `docs/lab.md`.

mod bench;
mod blast;
mod checks;
mod connections;
mod daemons;
mod flows;
mod netns;
mod pattern;
mod peers;
mod process;
mod registry;
mod run;
mod servers;
mod signals;
mod table;
mod tools;
mod topology;
mod witness;

pub use run::{LabArgs, ModeChoice, run};

use std::fmt::Display;

/// Why a step of the lab did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Ctrl-C, SIGTERM or SIGHUP.
    #[error("stopped by a signal")]
    Interrupted,
    /// A step failed.
    #[error("{step}: {why}")]
    Failed {
        /// What was tried; for a program its command line.
        step: String,
        /// What came of it; for a program its last lines.
        why: String,
    },
}

impl LabError {
    fn failed(step: impl Into<String>, why: impl Display) -> Self {
        LabError::Failed { step: step.into(), why: why.to_string() }
    }

    /// The beginning of the reason, short enough for a table.
    fn in_short(&self) -> String {
        let text = match self {
            LabError::Failed { why, .. } => why.clone(),
            LabError::Interrupted => self.to_string(),
        };
        let line = text.lines().next().unwrap_or_default();
        if line.chars().count() > 72 { line.chars().take(69).chain("...".chars()).collect() } else { line.to_owned() }
    }
}
