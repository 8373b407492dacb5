//! A running daemon's configuration: read again, held against the one in force, and put in its place.

use std::fmt;
use std::path::PathBuf;

use super::plan::{Plan, Program};
use super::run::Jobs;
use super::setup::{Installed, SetupError};
use crate::config::{Config, Findings, Loaded, Role};
use crate::ops::engine::{self, Machine, Replaced};
use crate::ops::files;

/// Why the configuration stayed what it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has errors.
    #[error("{0}")]
    Config(Findings),
    /// The file is another daemon's.
    #[error("{}: the role is now `{}`: stop this daemon and start `{}`", .0.display(), .1.role(), .1.name())]
    Role(PathBuf, Program),
    /// Routes.
    #[error(transparent)]
    Setup(#[from] SetupError),
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

/// What is in force.
pub struct Live {
    file: PathBuf,
    /// The configuration.
    pub config: Config,
    /// What it does to the host.
    pub plan: Plan,
    /// What of that is done.
    pub installed: Installed,
    jobs: Vec<Jobs<Machine>>,
}

impl Live {
    /// A daemon that has just started.
    pub fn new(file: PathBuf, config: Config, plan: Plan, installed: Installed, jobs: Vec<Jobs<Machine>>) -> Live {
        Live { file, config, plan, installed, jobs }
    }

    /// Reads the files again and puts them in force, whole or not at all.
    pub async fn reload(&mut self) -> Result<Changed, ReloadError> {
        let Loaded { value: config, warnings } = files::daemon(&self.file).map_err(ReloadError::Config)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        self.replace(config).await
    }

    /// Puts a configuration in force: new routes first, then the engines, then the routes that nobody needs any more.
    pub async fn replace(&mut self, mut config: Config) -> Result<Changed, ReloadError> {
        if Program::of(&config) != self.plan.program {
            return Err(ReloadError::Role(self.file.clone(), Program::of(&config)));
        }
        let waiting = keep_what_needs_a_restart(&self.config, &mut config);
        let plan = Plan::of(&config);
        let routes = self.installed.route_count();
        let next = engine::prepare_all(&config, self.jobs.len());
        self.installed.widen(&plan).await?;
        let mut mappings = Replaced::default();
        for (jobs, mut next) in self.jobs.iter().zip(next) {
            // What was in force comes back in `next`, to be dropped on this thread.
            let done = jobs.call(move |machine, now| (machine.replace(&mut next, now), next)).await;
            let (replaced, _former) = done.ok_or(ReloadError::Ending)?;
            mappings += replaced;
        }
        self.installed.narrow(&plan).await;
        let versions = (self.config.provisioning.version, config.provisioning.version);
        (self.config, self.plan) = (config, plan);
        Ok(Changed { versions, routes: (routes, self.installed.route_count()), mappings, waiting })
    }
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
    keep(&old.pcp, &mut new.pcp, "pcp", &mut waiting);
    keep(&old.state_directory, &mut new.state_directory, "state-directory", &mut waiting);
    match (&old.role, &mut new.role) {
        (Role::Br(old), Role::Br(new)) => keep(&old.fragments, &mut new.fragments, "fragments", &mut waiting),
        (Role::Ce(old), Role::Ce(new)) => keep(&old.fragments, &mut new.fragments, "fragments", &mut waiting),
        _ => {}
    }
    waiting
}
