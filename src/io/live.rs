//! What a running daemon has in force, and how that changes: by SIGHUP, by a push, by a push that nobody confirmed.
//!
//! Every change goes the same way: all of it is made ready first, then the routes that it needs are added, then it is
//! written to the history, then the engines change between two packets, then routes that nobody needs go. Whatever
//! fails before the engines change leaves all as it was.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::plan::{Plan, Program};
use super::run::Jobs;
use super::setup::{Installed, RouteCounts, SetupError};
use super::standing::InForce;
use crate::config::{Config, Findings, Loaded, Role, RuleSet};
use crate::ops::control::Version;
use crate::ops::counters::ByRule;
use crate::ops::diff::Difference;
use crate::ops::engine::{self, Machine, Next, Replaced};
use crate::ops::fault::fault;
use crate::ops::files;
use crate::ops::history::{Entry, History, HistoryError, Origin, Pending};
use crate::ops::push::{Committed, Offer, Prepared, RouteChange};
use crate::ops::rules_text::rules_text;

/// Why the configuration stayed what it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The files, or the rules that were pushed, have errors.
    #[error("{0}")]
    Config(Findings),
    /// The file is another daemon's.
    #[error("{}: the role is now `{}`: stop this daemon and start `{}`", .0.display(), .1.role(), .1.name())]
    Role(PathBuf, Program),
    /// A push that is not wanted.
    #[error("{0}")]
    Unwanted(String),
    /// Routes.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Nothing can be kept.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A thread is gone; the daemon is about to end.
    #[error("the daemon is ending")]
    Ending,
}

/// What a change came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    /// Rule set version before and after.
    pub versions: (u64, u64),
    /// Routes before and after.
    pub routes: (usize, usize),
    /// What became of mappings.
    pub mappings: Replaced,
    /// Keys whose new values wait for a restart.
    pub waiting: Vec<&'static str>,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((from, to), (before, after)) = (self.versions, self.routes);
        write!(f, "rule set version {from} -> {to}, {before} -> {after} route(s)")?;
        match self.mappings {
            Replaced { kept: 0, purged: 0 } => Ok(()),
            Replaced { kept, purged } => write!(f, ", {kept} mapping(s) kept, {purged} purged"),
        }
    }
}

/// A configuration and how its rules came.
pub struct Chosen {
    /// Ready to run.
    pub config: Config,
    /// The daemon's file.
    text: String,
    /// Of its rules.
    pub origin: Origin,
    /// The largest version that ever was in force here.
    highest: u64,
    history: Option<History>,
    /// Since when the history has these rules as its newest; `None` where it has not.
    kept: Option<Timestamp>,
}

impl Chosen {
    /// At a start: the newest set of the history, unless the file has changed since and is newer; the file, where there
    /// is no history or where its set no longer fits. Says which, and why.
    pub fn at_start(file: &Path) -> Result<Chosen, Findings> {
        let text = files::text(file)?;
        let own = files::daemon_of(&text, file, None);
        // Without the rules' file the rest may still say where the history is.
        let Some((directory, instance)) = Config::state_of(&text, file) else {
            return own.map(|loaded| Chosen::of_file(warned(loaded), text, 0, None));
        };
        let history = History::of(&directory, &instance);
        match newest(&history) {
            Ok(Some((entry, set, highest))) => Chosen::between(file, text, own, history, entry, &set, highest),
            Ok(None) => own.map(|loaded| Chosen::of_file(warned(loaded), text, 0, Some(history))),
            Err(error) => {
                tracing::warn!("{error}: the rules are those of the file");
                own.map(|loaded| Chosen::of_file(warned(loaded), text, 0, Some(history)))
            }
        }
    }

    /// What the files alone say.
    pub fn without_history(file: &Path) -> Result<Chosen, Findings> {
        let text = files::text(file)?;
        let loaded = files::daemon_of(&text, file, None)?;
        Ok(Chosen::of_file(warned(loaded), text, 0, None))
    }

    fn of_file(config: Config, text: String, highest: u64, history: Option<History>) -> Chosen {
        let highest = highest.max(config.provisioning.version);
        Chosen { config, text, origin: Origin::File, highest, history, kept: None }
    }

    fn between(
        file: &Path,
        text: String,
        own: Result<Loaded<Config>, Findings>,
        history: History,
        entry: Entry,
        set: &RuleSet,
        highest: u64,
    ) -> Result<Chosen, Findings> {
        let what = format!("rule set version {} ({}, {})", set.version, entry.origin.name(), entry.at);
        let file_wins = |version: u64| entry.origin == Origin::File || version > highest;
        let same = |config: &Config| text_of(config) == set_text(set);
        if let Ok(loaded) = &own
            && !same(&loaded.value)
            && file_wins(loaded.value.provisioning.version)
        {
            let version = loaded.value.provisioning.version;
            tracing::info!("the file has rule set version {version} now: it follows {what}");
            return own.map(|loaded| Chosen::of_file(warned(loaded), text, highest, Some(history)));
        }
        match files::daemon_of(&text, file, Some(set)) {
            Ok(loaded) => {
                match &own {
                    Ok(own) if same(&own.value) => tracing::info!("{what} is in force, as in the file"),
                    Ok(own) => tracing::warn!(
                        "{what} is in force; the file's version {} is not larger than {highest}",
                        own.value.provisioning.version
                    ),
                    Err(findings) => tracing::warn!("{what} is in force; the file cannot be used: {findings}"),
                }
                let (config, kept) = (warned(loaded), Some(entry.at));
                Ok(Chosen { config, text, origin: entry.origin, highest, history: Some(history), kept })
            }
            Err(findings) => {
                tracing::warn!("{what} does not fit this configuration, the rules are those of the file: {findings}");
                own.map(|loaded| Chosen::of_file(warned(loaded), text, highest, Some(history)))
            }
        }
    }
}

fn warned(loaded: Loaded<Config>) -> Config {
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.value
}

/// The set in force by the history, after what was not confirmed in time has gone back; and the largest version of all.
fn newest(history: &History) -> Result<Option<(Entry, RuleSet, u64)>, HistoryError> {
    if let Some(pending) = history.pending()?
        && pending.until <= Timestamp::now()
    {
        return_to(history, &pending)?;
    }
    let mut highest = 0;
    let mut entries = history.entries()?;
    for entry in &entries {
        highest = highest.max(history.version(entry)?);
    }
    let Some(entry) = entries.pop() else { return Ok(None) };
    let text = history.text(&entry)?;
    match RuleSet::load(&text, &entry.path) {
        Ok(loaded) => Ok(Some((entry, loaded.value, highest))),
        Err(findings) => {
            tracing::warn!("the newest rule set of the history has errors: {findings}");
            Ok(None)
        }
    }
}

/// Makes the former set the newest; the text of it.
fn return_to(history: &History, pending: &Pending) -> Result<Option<String>, HistoryError> {
    let former = history.named(&pending.back_to)?;
    let newest = history.newest()?;
    let mut text = None;
    if let Some(former) = former
        && newest.as_ref() != Some(&former)
    {
        let former = history.text(&former)?;
        if newest.map(|newest| history.text(&newest)).transpose()?.as_deref() != Some(former.as_str()) {
            history.accept(&former, Origin::Returned, Timestamp::now())?;
        }
        text = Some(former);
    }
    fault("returned");
    history.clear_pending()?;
    Ok(text)
}

fn text_of(config: &Config) -> String {
    let provisioning = &config.provisioning;
    rules_text(provisioning.version, provisioning.date.as_deref(), &provisioning.table)
}

fn set_text(set: &RuleSet) -> String {
    rules_text(set.version, set.date.as_deref(), &set.table)
}

/// A change that can be made at once.
pub struct Candidate {
    config: Config,
    plan: Plan,
    next: Vec<Next>,
    /// The rules as they are kept.
    text: String,
    origin: Origin,
    confirm_within: Option<Duration>,
    /// What was in force when it was made ready.
    generation: u64,
    same: bool,
}

/// What is in force.
pub struct Live {
    file: PathBuf,
    /// Its text when it was read last: a push does not read it again.
    text: Arc<str>,
    /// The configuration.
    pub config: Config,
    /// What it does to the host.
    pub plan: Arc<Plan>,
    /// What of that is done.
    pub installed: Installed,
    jobs: Vec<Jobs<Machine>>,
    origin: Origin,
    highest: u64,
    history: Option<History>,
    /// Since when the rules are in force.
    since: Timestamp,
    by_rule: Arc<ByRule>,
    pending: Option<Pending>,
    /// Counts changes.
    generation: u64,
    /// Those who only look.
    lookers: watch::Sender<Arc<InForce>>,
}

impl Live {
    /// A daemon that has just started. Rules out of the file begin its history.
    pub fn new(
        file: PathBuf,
        chosen: Chosen,
        plan: Plan,
        installed: Installed,
        jobs: Vec<Jobs<Machine>>,
        by_rule: ByRule,
    ) -> Live {
        let Chosen { config, text, origin, highest, history, kept } = chosen;
        let (text, plan, since) = (text.into(), Arc::new(plan), kept.unwrap_or_else(Timestamp::now));
        let by_rule = Arc::new(by_rule);
        let seen = InForce {
            config: config.clone(),
            plan: plan.clone(),
            origin,
            since,
            confirm_until: None,
            by_rule: by_rule.clone(),
        };
        let mut live = Live {
            file,
            text,
            config,
            plan,
            installed,
            jobs,
            origin,
            highest,
            history,
            since,
            by_rule,
            pending: None,
            generation: 0,
            lookers: watch::Sender::new(Arc::new(seen)),
        };
        if let Some(history) = &live.history {
            // Rules of the file's own do not go back.
            let pending = if kept.is_some() { history.pending() } else { history.clear_pending().map(|()| None) };
            match pending {
                Ok(pending) => live.pending = pending,
                Err(error) => tracing::warn!("{error}"),
            }
            if kept.is_none()
                && let Err(error) = history.accept(&text_of(&live.config), origin, Timestamp::now())
            {
                // It translates all the same: a border without history is better than none.
                tracing::error!("{error}: this rule set is in force and not in the history");
            }
        }
        live.tell();
        live
    }

    /// What is in force, now and whenever it changes.
    pub fn look(&self) -> watch::Receiver<Arc<InForce>> {
        self.lookers.subscribe()
    }

    fn tell(&self) {
        self.lookers.send_replace(Arc::new(InForce {
            config: self.config.clone(),
            plan: self.plan.clone(),
            origin: self.origin,
            since: self.since,
            confirm_until: self.pending.as_ref().map(|pending| pending.until),
            by_rule: self.by_rule.clone(),
        }));
    }

    /// The version in force.
    pub fn version(&self) -> Version {
        let provisioning = &self.config.provisioning;
        Version { version: provisioning.version, date: provisioning.date.clone() }
    }

    /// Reads the files again and puts them in force, whole or not at all. Rules that were pushed stay, unless the
    /// file's have a larger version than any before.
    pub async fn reload(&mut self) -> Result<Changed, ChangeError> {
        let text = files::text(&self.file).map_err(ChangeError::Config)?;
        let read = |rules: Option<&RuleSet>| {
            files::daemon_of(&text, &self.file, rules).map(warned).map_err(ChangeError::Config)
        };
        let mut config = read(None)?;
        let mut origin = Origin::File;
        let older = self.origin != Origin::File && config.provisioning.version <= self.highest;
        if older || self.pending.is_some() {
            if text_of(&config) != text_of(&self.config) {
                let (file, ours) = (config.provisioning.version, self.config.provisioning.version);
                let why = match older {
                    true => format!("the file's version {file} is not larger than {}", self.highest),
                    false => "it waits for its confirmation".to_owned(),
                };
                tracing::warn!("rule set version {ours} ({}) stays in force: {why}", self.origin.name());
            }
            config = read(Some(&self.rules()))?;
            origin = self.origin;
        }
        let waiting = self.fit(&mut config)?;
        let candidate = self.candidate(config, origin, None);
        let changed = self.put_in_force(candidate).await?;
        self.text = text.into();
        Ok(Changed { waiting, ..changed })
    }

    /// Checks a rule set against everything here; changes nothing.
    pub async fn prepare(&mut self, text: Vec<u8>, offer: &Offer) -> Result<(Prepared, Candidate), ChangeError> {
        let began = Instant::now();
        let unwanted = |reason: String| Err(ChangeError::Unwanted(reason));
        if let Some(pending) = &self.pending {
            let version = self.config.provisioning.version;
            return unwanted(format!(
                "version {version} waits for its confirmation until {}: `mapt push --confirm` first",
                pending.until
            ));
        }
        if offer.confirm_within.is_some() && self.history.is_none() {
            return unwanted("without `state-directory` nothing can be put back after a restart".to_owned());
        }
        let Ok(text) = String::from_utf8(text) else { return unwanted("the rule set is not UTF-8 text".to_owned()) };
        let (file, own, queues) = (self.file.clone(), self.text.clone(), self.jobs.len());
        let old = self.config.provisioning.clone();
        // 100,000 rules take a while: signals and other clients do not wait for them.
        let work = tokio::task::spawn_blocking(move || {
            let set = RuleSet::load(&text, Path::new("pushed rules"))?.value;
            let config = files::daemon_of(&own, &file, Some(&set))?.value;
            let next = engine::prepare_all(&config, queues);
            let rules = Difference::between(&old.table, &set.table);
            Ok((config, next, rules, set_text(&set), rules_text(old.version, old.date.as_deref(), &old.table)))
        });
        let (mut config, next, rules, text, before) =
            work.await.map_err(|_| ChangeError::Ending)?.map_err(ChangeError::Config)?;
        let (old, new) = (self.config.provisioning.version, config.provisioning.version);
        let same = text == before;
        if !same && !offer.force && new <= old {
            return unwanted(match new == old {
                true => format!(
                    "version {old} is in force with other rules: give the new set a larger version, or push with --force"
                ),
                false => format!("version {old} is in force, and {new} is older: push with --force"),
            });
        }
        self.fit(&mut config)?;
        let mut notes = Vec::new();
        if self.history.is_none() {
            notes.push("without `state-directory` the set is forgotten at a restart".to_owned());
        }
        let plan = Plan::of(&config);
        let RouteCounts { added, removed, changed } = self.installed.compare(&plan);
        let after = Version { version: new, date: config.provisioning.date.clone() };
        let prepared = Prepared {
            role: self.plan.program.role().to_owned(),
            instance: self.plan.instance.clone(),
            before: self.version(),
            after,
            same,
            rules,
            routes: RouteChange { added, removed, changed },
            notes,
            took: milliseconds(began),
        };
        let confirm_within = offer.confirm_within.map(Duration::from_secs);
        let origin = Origin::Pushed;
        let generation = self.generation;
        Ok((prepared, Candidate { config, plan, next, text, origin, confirm_within, generation, same }))
    }

    /// Puts in force what was checked.
    pub async fn commit(&mut self, candidate: Candidate) -> Result<Committed, ChangeError> {
        let began = Instant::now();
        fault("commit");
        if candidate.generation != self.generation {
            let reason = "something else was put in force since this was checked: push again".to_owned();
            return Err(ChangeError::Unwanted(reason));
        }
        let mappings = match candidate.same {
            true => Replaced::default(),
            false => self.put_in_force(candidate).await?.mappings,
        };
        let is_ce = self.plan.program == Program::Ce;
        Ok(Committed {
            version: self.version(),
            mappings_kept: is_ce.then_some(mappings.kept),
            mappings_purged: is_ce.then_some(mappings.purged),
            confirm_until: self.pending.as_ref().map(|pending| pending.until.to_string()),
            took: milliseconds(began),
        })
    }

    /// The set that waits for its confirmation stays.
    pub fn confirm(&mut self) -> Result<Version, ChangeError> {
        let Some(history) = self.history.as_ref().filter(|_| self.pending.is_some()) else {
            let version = self.config.provisioning.version;
            return Err(ChangeError::Unwanted(format!(
                "nothing waits for a confirmation; version {version} is in force"
            )));
        };
        history.clear_pending()?;
        self.pending = None;
        self.tell();
        Ok(self.version())
    }

    /// When what nobody has confirmed goes back: from now.
    pub fn returns_in(&self) -> Option<Duration> {
        let until = self.pending.as_ref()?.until;
        Some(Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default())
    }

    /// Ten seconds from now, in this process alone: a restart tries at once.
    pub fn try_again_later(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.until = Timestamp::now().checked_add(Duration::from_secs(10)).unwrap_or(Timestamp::MAX);
        }
        self.tell();
    }

    /// Puts the former set in force again, now.
    pub async fn go_back(&mut self) -> Result<Changed, ChangeError> {
        let (Some(history), Some(pending)) = (self.history.clone(), self.pending.clone()) else {
            return Err(ChangeError::Unwanted("there is nothing to go back to".to_owned()));
        };
        let former = history.named(&pending.back_to)?.map(|entry| history.text(&entry)).transpose()?;
        let Some(text) = former else {
            history.clear_pending()?;
            self.pending = None;
            self.tell();
            return Err(ChangeError::Unwanted(format!("`{}` is no longer in the history", pending.back_to)));
        };
        let set = RuleSet::load(&text, Path::new(&pending.back_to)).map_err(ChangeError::Config)?.value;
        self.return_to(&set).await
    }

    /// The rules in force, for `return_to`.
    pub fn rules(&self) -> RuleSet {
        let provisioning = &self.config.provisioning;
        RuleSet {
            version: provisioning.version,
            date: provisioning.date.clone(),
            dmr: provisioning.table.set_dmr().copied(),
            table: provisioning.table.clone(),
        }
    }

    /// Puts a set in force again that was in force before, whatever its version.
    pub async fn return_to(&mut self, set: &RuleSet) -> Result<Changed, ChangeError> {
        let mut config = files::daemon_of(&self.text, &self.file, Some(set)).map_err(ChangeError::Config)?.value;
        self.fit(&mut config)?;
        let candidate = self.candidate(config, Origin::Returned, None);
        let changed = self.put_in_force(candidate).await?;
        if let Some(history) = self.history.as_ref().filter(|_| self.pending.is_some()) {
            history.clear_pending()?;
        }
        self.pending = None;
        self.tell();
        Ok(changed)
    }

    /// Takes over what cannot change while the daemon runs, and names what was to change.
    fn fit(&self, config: &mut Config) -> Result<Vec<&'static str>, ChangeError> {
        if Program::of(config) != self.plan.program {
            return Err(ChangeError::Role(self.file.clone(), Program::of(config)));
        }
        Ok(keep_what_needs_a_restart(&self.config, config))
    }

    fn candidate(&self, config: Config, origin: Origin, confirm_within: Option<Duration>) -> Candidate {
        let next = engine::prepare_all(&config, self.jobs.len());
        let (plan, text) = (Plan::of(&config), text_of(&config));
        Candidate { config, plan, next, text, origin, confirm_within, generation: self.generation, same: false }
    }

    async fn put_in_force(&mut self, candidate: Candidate) -> Result<Changed, ChangeError> {
        let Candidate { config, plan, next, text, origin, confirm_within, .. } = candidate;
        let routes = self.installed.route_count();
        self.installed.widen(&plan).await?;
        fault("widened");
        let pending = match self.keep(&text, origin, confirm_within) {
            Ok(pending) => pending,
            Err(error) => {
                if let Err(error) = self.installed.widen(&self.plan).await {
                    tracing::error!("{error}");
                }
                self.installed.narrow(&self.plan).await;
                return Err(error.into());
            }
        };
        fault("kept");
        self.generation += 1;
        let mut mappings = Replaced::default();
        let by_rule = next.iter().map(Next::by_rule).collect();
        for (jobs, mut next) in self.jobs.iter().zip(next) {
            // What was in force comes back in `next`, to be dropped on this thread.
            let done = jobs.call(move |machine, now| (machine.replace(&mut next, now), next)).await;
            let (replaced, _former) = done.ok_or(ChangeError::Ending)?;
            mappings += replaced;
        }
        fault("replaced");
        self.installed.narrow(&plan).await;
        let versions = (self.config.provisioning.version, config.provisioning.version);
        self.highest = self.highest.max(config.provisioning.version);
        let (former, table) = (&self.config.provisioning.table, &config.provisioning.table);
        self.by_rule = Arc::new(self.by_rule.go_on(former, table, by_rule));
        if !same_rules(&self.config, &config) {
            self.since = Timestamp::now();
        }
        (self.config, self.plan, self.origin) = (config, Arc::new(plan), origin);
        if pending.is_some() {
            self.pending = pending;
        }
        self.tell();
        Ok(Changed { versions, routes: (routes, self.installed.route_count()), mappings, waiting: Vec::new() })
    }

    /// Writes rules to the history, if they are others than its newest. From then on a restart finds them.
    fn keep(
        &self,
        text: &str,
        origin: Origin,
        confirm_within: Option<Duration>,
    ) -> Result<Option<Pending>, HistoryError> {
        let Some(history) = &self.history else { return Ok(None) };
        let newest = history.newest()?;
        let now = Timestamp::now();
        let pending = match (confirm_within, &newest) {
            (Some(within), Some(newest)) => {
                let back_to = newest.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let pending = Pending { until: now.checked_add(within).unwrap_or(Timestamp::MAX), back_to };
                // First: whoever dies now finds that it goes back to what is in force.
                history.set_pending(&pending)?;
                Some(pending)
            }
            _ => None,
        };
        fault("pending");
        let same = newest.map(|newest| history.text(&newest)).transpose()?.as_deref() == Some(text);
        if !same && let Err(error) = history.accept(text, origin, now) {
            if pending.is_some() {
                let _ = history.clear_pending();
            }
            return Err(error);
        }
        Ok(pending)
    }
}

fn same_rules(a: &Config, b: &Config) -> bool {
    let (a, b) = (&a.provisioning, &b.provisioning);
    (a.version, &a.date, a.table.set_dmr()) == (b.version, &b.date, b.table.set_dmr())
        && a.table.rules() == b.table.rules()
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// Takes over into `new` what cannot change while the daemon runs, and names what was to change.
fn keep_what_needs_a_restart(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut waiting = Vec::new();
    fn keep<T: Clone + PartialEq>(old: &T, new: &mut T, key: &'static str, waiting: &mut Vec<&'static str>) {
        if old != new {
            waiting.push(key);
            new.clone_from(old);
        }
    }
    keep(&old.instance, &mut new.instance, "instance", &mut waiting);
    keep(&old.tun, &mut new.tun, "tun", &mut waiting);
    keep(&old.routes, &mut new.routes, "routes", &mut waiting);
    keep(&old.sysctl, &mut new.sysctl, "sysctl", &mut waiting);
    keep(&old.control, &mut new.control, "control", &mut waiting);
    keep(&old.metrics, &mut new.metrics, "metrics", &mut waiting);
    keep(&old.pcp, &mut new.pcp, "pcp", &mut waiting);
    keep(&old.state_directory, &mut new.state_directory, "state-directory", &mut waiting);
    match (&old.role, &mut new.role) {
        (Role::Br(old), Role::Br(new)) => keep(&old.fragments, &mut new.fragments, "fragments", &mut waiting),
        (Role::Ce(old), Role::Ce(new)) => keep(&old.fragments, &mut new.fragments, "fragments", &mut waiting),
        _ => {}
    }
    waiting
}
