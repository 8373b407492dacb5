//! `mapt push`: every target checks the rule set, then all put it in force; one refusal, and nobody changes.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::client::{ClientError, Connection, Target};
use crate::config::{MAX_TEXT, RuleSet};
use crate::ops::control::{Ask, Version};
use crate::ops::fault::fault;
use crate::ops::files;
use crate::ops::history::{History, Origin};
use crate::ops::push::{Account, Committed, Offer, Outcome, Prepared, in_words};
use crate::ops::rules_text::rules_text;

/// Targets of which one is told how far it is.
const MANY: usize = 10;

/// Puts a rule set in force on running daemons.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The rule set (rules.yaml)
    #[arg(value_name = "RULES", required_unless_present = "confirm", conflicts_with = "confirm")]
    rules: Option<PathBuf>,
    /// A daemon: its control socket, or ssh://HOST[/SOCKET]
    #[arg(long, value_name = "TARGET", num_args = 1..)]
    to: Vec<Target>,
    /// A file with a target in each line; `#` begins a comment
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Put the former set in force again after this time (such as 5m), unless `mapt push --confirm` follows
    #[arg(long, value_name = "TIME", value_parser = time)]
    confirm_within: Option<Duration>,
    /// Keep what was pushed with --confirm-within
    #[arg(long, conflicts_with_all = ["confirm_within", "check", "force"])]
    confirm: bool,
    /// Ask what would change, and change nothing
    #[arg(long, conflicts_with = "force")]
    check: bool,
    /// Also where an equal or a larger version is in force
    #[arg(long)]
    force: bool,
    /// Keep the set in this directory too, for `mapt whois --at`
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// `90`, `90s`, `5m`, `2h`; at least ten seconds, at most a week.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        Some(seconds @ 10..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected 10 seconds to a week, such as 90s, 5m or 2h".into()),
    }
}

/// `mapt push`. Status 0: every target is as wanted; 1: at least one is not; 2: wrong usage.
pub fn push(args: &PushArgs) -> ExitCode {
    match run(args) {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(reason) => {
            eprintln!("mapt push: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &PushArgs) -> Result<bool, String> {
    let targets = targets(args)?;
    let rules = match &args.rules {
        Some(file) => Some(rules(file)?),
        None => None,
    };
    let accounts = match &rules {
        Some((set, text)) => offer(args, &targets, set, text)?,
        None => confirm(&targets),
    };
    let good = accounts.iter().all(|account| match args.check {
        true => matches!(account.outcome, Outcome::Prepared | Outcome::Unchanged),
        false => account.is_good(),
    });
    let version = rules.as_ref().map(|(set, _)| set.version);
    let text = match args.json {
        true => serde_json::json!({ "ok": good, "version": version, "targets": accounts }).to_string() + "\n",
        false => in_words(&accounts),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("the answer cannot be written: {error}"))
        }
        _ => Ok(good),
    }
}

fn targets(args: &PushArgs) -> Result<Vec<Target>, String> {
    let mut targets = args.to.clone();
    if let Some(file) = &args.inventory {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                targets.push(line.parse().map_err(|e| format!("{}:{}: `{line}`: {e}", file.display(), n + 1))?);
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    targets.retain(|target| seen.insert(target.to_string()));
    match targets.is_empty() {
        true => Err("no target: expected --to TARGET or --inventory FILE".to_owned()),
        false => Ok(targets),
    }
}

/// The set, checked here before anybody is asked, and its text in the one form.
fn rules(file: &std::path::Path) -> Result<(RuleSet, String), String> {
    let text = files::text(file).map_err(|findings| findings.to_string())?;
    let loaded = RuleSet::load(&text, file).map_err(|findings| findings.to_string())?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let set = loaded.value;
    let text = rules_text(set.version, set.date.as_deref(), &set.table);
    if text.len() > MAX_TEXT {
        return Err(format!(
            "{}: the rules take {} octets: at most {MAX_TEXT} can be sent",
            file.display(),
            text.len()
        ));
    }
    Ok((set, text))
}

/// One target: what it is told, and what it says, in a thread of its own, so that a slow one holds up nobody's check.
struct Talk {
    say: mpsc::Sender<Word>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Commit,
    Revert,
}

/// What a target's thread reports, with the target's number.
enum Report {
    Prepared(Result<Prepared, String>),
    Committed(Result<Committed, ClientError>),
    Reverted(Result<Version, String>),
}

fn offer(args: &PushArgs, targets: &[Target], set: &RuleSet, text: &str) -> Result<Vec<Account>, String> {
    let offer = Offer {
        octets: text.len(),
        force: args.force,
        confirm_within: args.confirm_within.map(|within| within.as_secs()),
    };
    std::thread::scope(|scope| {
        let (tell, reports) = mpsc::channel();
        let talks: Vec<Talk> = (targets.iter().enumerate())
            .map(|(n, target)| {
                let (say, words) = mpsc::channel();
                let (tell, offer) = (tell.clone(), offer.clone());
                scope.spawn(move || talk(target, offer, text, &words, |report| drop(tell.send((n, report)))));
                Talk { say }
            })
            .collect();
        drop(tell);
        let mut accounts: Vec<Account> = targets.iter().map(|target| Account::new(&target.to_string())).collect();
        collect(&reports, targets.len(), "checked", |n, report| take(&mut accounts[n], report));
        fault("all-prepared");
        let refused = accounts.iter().any(|account| matches!(account.outcome, Outcome::Refused(_)));
        if refused || args.check {
            return Ok(accounts);
        }
        if let Some(directory) = &args.history {
            let history = History::at(directory);
            let kept = match history.newest() {
                Ok(Some(newest)) => history.text(&newest).map(|newest| newest == text),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            let write = kept.and_then(|kept| match kept {
                true => Ok(()),
                false => history.accept(text, Origin::Pushed, Timestamp::now()).map(drop),
            });
            write.map_err(|error| format!("{error}; nobody was changed"))?;
        }
        let wanting: Vec<usize> =
            (0..accounts.len()).filter(|n| matches!(accounts[*n].outcome, Outcome::Prepared)).collect();
        for (done, n) in wanting.iter().enumerate() {
            let _ = talks[*n].say.send(Word::Commit);
            if done == 0 {
                fault("one-committing");
            }
        }
        collect(&reports, wanting.len(), "in force on", |n, report| take(&mut accounts[n], report));
        if accounts.iter().all(Account::is_good) {
            return Ok(accounts);
        }
        let committed: Vec<usize> =
            (0..accounts.len()).filter(|n| matches!(accounts[*n].outcome, Outcome::Committed)).collect();
        for n in &committed {
            let _ = talks[*n].say.send(Word::Revert);
        }
        collect(&reports, committed.len(), "put back on", |n, report| take(&mut accounts[n], report));
        eprintln!("mapt push: version {} is in force nowhere that it was not before, see below", set.version);
        Ok(accounts)
    })
}

fn collect(
    reports: &mpsc::Receiver<(usize, Report)>,
    expected: usize,
    what: &str,
    mut take: impl FnMut(usize, Report),
) {
    for done in 1..=expected {
        let Ok((n, report)) = reports.recv() else { return };
        take(n, report);
        if expected >= MANY {
            progress(what, done, expected);
        }
    }
}

fn progress(what: &str, done: usize, of: usize) {
    if io::stderr().is_terminal() {
        eprint!("\r{what} {done} of {of}{}", if done == of { "\n" } else { "" });
    } else if done == of || done.is_multiple_of(of.div_ceil(10)) {
        eprintln!("{what} {done} of {of}");
    }
}

fn take(account: &mut Account, report: Report) {
    account.outcome = match report {
        Report::Prepared(Ok(prepared)) => {
            let outcome = if prepared.same { Outcome::Unchanged } else { Outcome::Prepared };
            account.prepared = Some(prepared);
            outcome
        }
        Report::Committed(Ok(committed)) => {
            account.committed = Some(committed);
            Outcome::Committed
        }
        Report::Reverted(Ok(_)) => Outcome::Reverted,
        Report::Committed(Err(ClientError::Refused { reason, .. })) => Outcome::Refused(reason),
        Report::Committed(Err(error)) => Outcome::Unknown(error.to_string()),
        Report::Prepared(Err(reason)) => Outcome::Refused(reason),
        Report::Reverted(Err(reason)) => Outcome::Unknown(format!("it has the new set and did not go back: {reason}")),
    };
}

/// From the offer to the end; the connection stays open in between, and closing it takes the offer back.
fn talk(target: &Target, offer: Offer, text: &str, words: &mpsc::Receiver<Word>, tell: impl Fn(Report)) {
    let mut connection = match Connection::open(target) {
        Ok(connection) => connection,
        Err(error) => return tell(Report::Prepared(Err(error.to_string()))),
    };
    match ask(&mut connection, Ask::Prepare(offer), text.as_bytes()) {
        Ok(prepared) => tell(Report::Prepared(Ok(prepared))),
        Err(ClientError::Refused { reason, .. }) => return tell(Report::Prepared(Err(reason))),
        Err(error) => return tell(Report::Prepared(Err(error.to_string()))),
    }
    while let Ok(word) = words.recv() {
        tell(match word {
            Word::Commit => Report::Committed(ask(&mut connection, Ask::Commit, &[])),
            Word::Revert => Report::Reverted(ask(&mut connection, Ask::Revert, &[]).map_err(|error| error.to_string())),
        });
    }
}

fn ask<D: DeserializeOwned>(connection: &mut Connection, ask: Ask, body: &[u8]) -> Result<D, ClientError> {
    connection.ask(ask, body, |(): ()| Ok(()))
}

fn confirm(targets: &[Target]) -> Vec<Account> {
    std::thread::scope(|scope| {
        let (tell, reports) = mpsc::channel();
        for (n, target) in targets.iter().enumerate() {
            let tell = tell.clone();
            scope.spawn(move || {
                let result = Connection::open(target).and_then(|mut c| ask::<Version>(&mut c, Ask::Confirm, &[]));
                let _ = tell.send((n, result));
            });
        }
        drop(tell);
        let mut accounts: Vec<Account> = targets.iter().map(|target| Account::new(&target.to_string())).collect();
        for (n, result) in reports {
            accounts[n].outcome = match result {
                Ok(_) => Outcome::Confirmed,
                Err(ClientError::Refused { reason, .. }) => Outcome::Refused(reason),
                Err(error) => Outcome::Refused(error.to_string()),
            };
        }
        accounts
    })
}
