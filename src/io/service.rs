//! What a running daemon can be asked, whoever asks.

use super::run::Jobs;
use crate::ops::control::{Filter, Mapping, Ports};
use crate::ops::engine::Machine;
use crate::ops::mappings::{self, Place};

/// Flows listed between two bursts.
const PAGE: usize = 256;

/// The engine's thread has ended.
const ENDING: &str = "the daemon is ending";

/// A running daemon as those see it who ask.
#[derive(Clone)]
pub struct Service {
    /// Ways to the engines, by queue.
    pub jobs: Vec<Jobs<Machine>>,
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
