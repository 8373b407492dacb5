//! What a running daemon can be asked, whoever asks.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::events::Hub;
use super::run::Jobs;
use super::standing::Standing;
use crate::config::RuleSet;
use crate::ops::control::{Filter, Mapping, Ports, Version};
use crate::ops::drops::Drop;
use crate::ops::engine::Machine;
use crate::ops::mappings::{self, Place};
use crate::ops::push::{Committed, Offer, Prepared};
use crate::ops::rules_text::rules_text;

/// Flows listed between two bursts.
const PAGE: usize = 256;

/// The engine's thread has ended.
const ENDING: &str = "the daemon is ending";

/// What changes the daemon: done one after another, by the thread that also attends to signals.
pub enum Act {
    /// Check a rule set, and hold it under a number.
    Prepare {
        /// YAML.
        text: Vec<u8>,
        /// What was said of it.
        offer: Offer,
        /// Where the answer goes.
        reply: Reply<(Prepared, u64)>,
    },
    /// Put in force what is held; the answer has what was in force.
    Commit {
        /// Its number.
        token: u64,
        /// Where the answer goes.
        reply: Reply<(Committed, RuleSet)>,
    },
    /// Forget what is held.
    Abort(u64),
    /// Put a set in force again.
    Revert {
        /// Which.
        rules: Box<RuleSet>,
        /// Where the answer goes: the version in force.
        reply: Reply<Version>,
    },
    /// Keep what would go back by itself.
    Confirm(Reply<Version>),
}

/// Where an answer goes; the error is for people.
pub type Reply<T> = oneshot::Sender<Result<T, String>>;

/// A running daemon as those see it who ask.
#[derive(Clone)]
pub struct Service {
    /// What it is to do.
    pub acts: mpsc::Sender<Act>,
    /// What happens to mappings.
    pub events: Arc<Hub>,
    /// Ways to the engines, by queue.
    pub jobs: Vec<Jobs<Machine>>,
    /// What needs no asking.
    pub standing: Arc<Standing>,
}

impl Service {
    /// Mappings from a place on, and where to go on: some hundred at a time, so that packets wait for microseconds.
    /// What is made meanwhile may be missing.
    pub async fn mappings(&self, filter: &Filter, from: Place) -> Result<(Vec<Mapping>, Option<Place>), String> {
        let filter = filter.clone();
        let page = self.ask(move |machine, now| mappings::page(machine, &filter, from, PAGE, now)).await;
        let (flows, next) = page??;
        Ok((flows.into_iter().map(Mapping::from).collect(), next))
    }

    /// Ports and flows, by protocol.
    pub async fn ports(&self) -> Result<Vec<Ports>, String> {
        self.ask(|machine, _| mappings::ports(machine)).await?
    }

    /// What was dropped lately, the oldest first.
    pub async fn drops(&self) -> Result<Vec<Drop>, String> {
        let mut all = Vec::new();
        let wall = Timestamp::now();
        for jobs in &self.jobs {
            let (drops, now) = jobs.call(|machine, now| (machine.drops(), now)).await.ok_or(ENDING)?;
            let ago = |at| now.saturating_sub(at);
            all.extend(drops.into_iter().map(|(dropped, rule)| (ago(dropped.at), dropped, rule)));
        }
        all.sort_by_key(|(ago, ..)| std::cmp::Reverse(*ago));
        let told = all.into_iter().map(|(ago, dropped, rule)| {
            let at = wall.saturating_sub(ago).unwrap_or(wall);
            Drop::of(&dropped, rule, format!("{at:.3}"))
        });
        Ok(told.collect())
    }

    /// The rule set in force, as text.
    pub async fn rules(&self) -> Result<String, String> {
        let provisioning = self.standing.now().config.provisioning.clone();
        // 100,000 rules take a while.
        let text = move || rules_text(provisioning.version, provisioning.date.as_deref(), &provisioning.table);
        tokio::task::spawn_blocking(text).await.map_err(|_| ENDING.to_owned())
    }

    /// Has something done, and waits for it.
    pub async fn act<T>(&self, act: impl FnOnce(Reply<T>) -> Act) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let sent = self.acts.send(act(reply)).await;
        sent.map_err(|_| ENDING.to_owned())?;
        answer.await.unwrap_or_else(|_| Err(ENDING.to_owned()))
    }

    /// The answer of the first engine: a CE has no other.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Machine, std::time::Duration) -> T + Send + 'static,
    ) -> Result<T, String> {
        match self.jobs.first() {
            Some(jobs) => jobs.call(work).await.ok_or_else(|| ENDING.to_owned()),
            None => Err(ENDING.to_owned()),
        }
    }
}
