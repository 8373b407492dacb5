//! The routes that a daemon wants beside those that the kernel has, for whoever asks.

use serde::{Deserialize, Serialize};

use super::status::RouteSums;
use super::text;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteRow {
    /// A prefix.
    pub destination: String,
    /// Routing table.
    pub table: u32,
    /// The lowest wins.
    pub metric: u32,
    /// `mtu` metric in octets.
    pub mtu: Option<u32>,
    /// Preferred source.
    pub source: Option<String>,
    /// How it stands.
    pub state: RouteState,
    /// What the kernel has instead, or what stands in its way.
    pub found: Option<String>,
}

/// How a route stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// Wanted, and there.
    Installed,
    /// Wanted, and not there.
    Missing,
    /// Wanted, and somebody else's has its destination, table and metric.
    InTheWay,
    /// Wanted, and there with another MTU or source.
    Differs,
    /// Ours by its protocol number and device, and not wanted.
    Unwanted,
    /// Wanted, and left to others: `routes.install` is off.
    LeftToOthers,
}

impl RouteState {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            RouteState::Installed => "installed",
            RouteState::Missing => "missing",
            RouteState::InTheWay => "in-the-way",
            RouteState::Differs => "differs",
            RouteState::Unwanted => "unwanted",
            RouteState::LeftToOthers => "left-to-others",
        }
    }
}

/// The head of the table for people.
pub fn head() -> String {
    columns(["DESTINATION", "TABLE", "METRIC", "MTU", "SOURCE", "STATE", ""].map(str::to_owned))
}

/// A row of it.
pub fn row(route: &RouteRow) -> String {
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    columns([
        route.destination.clone(),
        route.table.to_string(),
        route.metric.to_string(),
        or(route.mtu.map(|mtu| mtu.to_string())),
        or(route.source.clone()),
        route.state.name().to_owned(),
        route.found.clone().unwrap_or_default(),
    ])
}

/// What stands below it.
pub fn sums(sums: &RouteSums, device: &str) -> String {
    format!("{} into {device}: {}\n", text::counted(sums.wanted, "route"), sums.words())
}

/// Of fixed widths: a listing may be long, and begins before its end is known.
fn columns(cells: [String; 7]) -> String {
    let [destination, table, metric, mtu, source, state, found] = cells;
    let line = format!("{destination:<43}  {table:>5}  {metric:>6}  {mtu:>5}  {source:<15}  {state:<14}  {found}");
    format!("{}\n", line.trim_end())
}
