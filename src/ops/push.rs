//! A rule set on its way to running daemons: what is offered, what each says, and the account for the operator.

use serde::{Deserialize, Serialize};

use super::control::Version;
use super::diff::Difference;
use super::text;

/// The first half of a push: the daemon checks, and changes nothing. The rule set follows the line, as YAML text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Offer {
    /// Octets of the text.
    pub octets: usize,
    /// Accept a version that is not larger than the one in force.
    #[serde(default)]
    pub force: bool,
    /// Go back by itself after so many seconds, unless it is confirmed.
    #[serde(default)]
    pub confirm_within: Option<u64>,
}

/// How many routes come, go, or get another MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteChange {
    /// New ones.
    pub added: usize,
    /// Those that go.
    pub removed: usize,
    /// Those with another MTU or source.
    pub changed: usize,
}

/// A daemon's answer to an offer: it will do it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Prepared {
    /// `br` or `ce`.
    pub role: String,
    /// `instance`.
    pub instance: String,
    /// In force.
    pub before: Version,
    /// Offered.
    pub after: Version,
    /// Whether it is in force already: a commit does nothing.
    pub same: bool,
    /// Rules.
    pub rules: Difference,
    /// Routes.
    pub routes: RouteChange,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// How long it took, in milliseconds.
    pub took: f64,
}

/// A daemon's answer to a commit: it is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Committed {
    /// In force now.
    pub version: Version,
    /// Mappings that live on; null at a BR.
    pub mappings_kept: Option<usize>,
    /// Mappings that ended; null at a BR.
    pub mappings_purged: Option<usize>,
    /// When the former set comes back unless this one is confirmed.
    pub confirm_until: Option<String>,
    /// How long it took, in milliseconds.
    pub took: f64,
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It would, or it would have.
    Prepared,
    /// The set is in force.
    Committed,
    /// It was in force before.
    Unchanged,
    /// It was in force, and the former one is again, because another target failed.
    Reverted,
    /// Confirmed.
    Confirmed,
    /// It did not, and why.
    Refused(String),
    /// Nobody knows, and why: the connection broke after the commit was sent.
    Unknown(String),
}

/// The account of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Account {
    /// As it was named.
    pub target: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Its answer to the offer.
    pub prepared: Option<Prepared>,
    /// Its answer to the commit.
    pub committed: Option<Committed>,
}

impl Account {
    /// Of a target that has not answered yet.
    pub fn new(target: &str) -> Account {
        let outcome = Outcome::Refused("it was not asked".to_owned());
        Account { target: target.to_owned(), outcome, prepared: None, committed: None }
    }

    /// Whether it is as the operator wanted.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Committed | Outcome::Unchanged | Outcome::Confirmed)
    }

    fn cells(&self) -> Vec<String> {
        let outcome = match &self.outcome {
            Outcome::Prepared => "ready".to_owned(),
            Outcome::Committed => "in force".to_owned(),
            Outcome::Unchanged => "was in force".to_owned(),
            Outcome::Reverted => "put back".to_owned(),
            Outcome::Confirmed => "confirmed".to_owned(),
            Outcome::Refused(_) => "refused".to_owned(),
            Outcome::Unknown(_) => "unknown".to_owned(),
        };
        let mut cells = vec![self.target.clone(), outcome];
        let Some(prepared) = &self.prepared else { return cells };
        let Prepared { before, after, rules, routes, .. } = prepared;
        cells.push(format!("{} -> {}", before.version, after.version));
        cells.push(format!("+{} -{} ~{}", rules.added, rules.removed, rules.changed));
        cells.push(format!("+{} -{} ~{}", routes.added, routes.removed, routes.changed));
        cells.push(rules.customers.to_string());
        let purged = self.committed.as_ref().and_then(|committed| committed.mappings_purged);
        cells.push(purged.map_or("-".to_owned(), |purged| purged.to_string()));
        let took = prepared.took + self.committed.as_ref().map_or(0.0, |committed| committed.took);
        cells.push(format!("{took:.0} ms"));
        cells
    }
}

/// The account of all targets, for people.
pub fn in_words(accounts: &[Account]) -> String {
    let head = ["TARGET", "", "VERSION", "RULES", "ROUTES", "CUSTOMERS", "MAPPINGS ENDED", "TIME"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    rows.extend(accounts.iter().map(Account::cells));
    let mut out = text::columns(&rows);
    for account in accounts {
        let target = &account.target;
        if let Outcome::Refused(reason) | Outcome::Unknown(reason) = &account.outcome {
            out += &format!("{target}: {reason}\n");
        }
        for note in account.prepared.iter().flat_map(|prepared| &prepared.notes) {
            out += &format!("{target}: {note}\n");
        }
    }
    let until = accounts.iter().filter_map(|account| account.committed.as_ref()?.confirm_until.as_deref()).min();
    if let Some(until) = until {
        out += &format!("the former set comes back at {until}, unless `mapt push --confirm` follows\n");
    }
    out
}
