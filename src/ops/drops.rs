//! What a running daemon has dropped lately, for whoever asks: a sample, see [`crate::drops`].

use serde::{Deserialize, Serialize};

use super::explain;
use crate::drops::Dropped;

/// A packet that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Drop {
    /// When (RFC 3339), to about a millisecond.
    pub at: String,
    /// `v4_to_v6` or `v6_to_v4`.
    pub direction: String,
    /// Why.
    pub reason: String,
    /// By which rule it was mapped; null where by none, and where the rules have changed since.
    pub rule: Option<String>,
    /// Its length.
    pub octets: usize,
    /// Its headers in words.
    pub packet: String,
}

impl Drop {
    /// As others are told of it, whose clock says `at`.
    pub fn of(dropped: &Dropped, rule: Option<String>, at: String) -> Drop {
        Drop {
            at,
            direction: dropped.direction.name().to_owned(),
            reason: dropped.reason.name().to_owned(),
            rule,
            octets: dropped.octets,
            packet: explain::header_in_words(dropped.head(), dropped.octets),
        }
    }
}

/// Nothing stands above the list.
pub fn head() -> String {
    String::new()
}

/// For people: two lines.
pub fn row(drop: &Drop) -> String {
    let Drop { at, direction, reason, packet, .. } = drop;
    let rule = drop.rule.as_ref().map(|rule| format!(", rule `{rule}`")).unwrap_or_default();
    format!("{at} {direction} {reason}{rule}\n  {packet}\n")
}
