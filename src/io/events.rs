//! What happens to mappings, told to the log and to whoever follows.
//!
//! The engine records while somebody listens, into a ring of its own; the control thread empties it every tenth of a
//! second. Whoever is slower than that loses events, and is told how many.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;

use super::run::Jobs;
use crate::ops::control::Event;
use crate::ops::engine::Machine;
use crate::ops::mappings;

/// How often the engine's ring is emptied.
const PERIOD: Duration = Duration::from_millis(100);
/// Events taken from it between two bursts.
const SOME: usize = 512;
/// Batches that a listener may lag behind.
const LAG: usize = 64;

/// Events of one time, in their order.
pub type Batch = Arc<Vec<Event>>;

/// Where one can listen.
#[derive(Debug)]
pub struct Hub {
    sender: broadcast::Sender<Batch>,
    wanted: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    /// Of the first engine: a CE has no other. `log`: each event is a line of the log.
    pub fn new(jobs: Jobs<Machine>, log: bool) -> Hub {
        let sender = broadcast::Sender::new(LAG);
        let wanted = Arc::new(Notify::new());
        let task = tokio::spawn(empty(jobs, sender.clone(), wanted.clone(), log));
        Hub { sender, wanted, task }
    }

    /// What happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Batch> {
        let receiver = self.sender.subscribe();
        self.wanted.notify_one();
        receiver
    }
}

async fn empty(jobs: Jobs<Machine>, sender: broadcast::Sender<Batch>, wanted: Arc<Notify>, log: bool) {
    let mut lost_before = 0;
    loop {
        if !log && sender.receiver_count() == 0 {
            if jobs.call(|machine, _| mappings::record(machine, false)).await.is_none() {
                return;
            }
            wanted.notified().await;
        }
        // Again each time: a NAPT that has replaced another one does not record yet.
        let taken = jobs.call(|machine, now| {
            mappings::record(machine, true);
            (mappings::events(machine, SOME), now)
        });
        let Some(((events, lost), now)) = taken.await else { return };
        let wall = Timestamp::now();
        let at = |time: Duration| wall.saturating_sub(now.saturating_sub(time)).map_or(wall, |at| at);
        let full = events.len() == SOME;
        let batch: Vec<Event> = events.iter().map(|event| Event::of(event, format!("{:.2}", at(event.at)))).collect();
        if log {
            for event in &batch {
                tracing::info!("mapping {}", event.in_words());
            }
        }
        if lost > lost_before {
            tracing::warn!("{} event(s) of mappings were lost: too many at once", lost - lost_before);
            lost_before = lost;
        }
        if !batch.is_empty() {
            // Nobody need listen.
            let _ = sender.send(Arc::new(batch));
        }
        if !full {
            tokio::time::sleep(PERIOD).await;
        }
    }
}
