//! Engines out of configuration.

use std::sync::Arc;
use std::time::Duration;

pub use crate::napt::Replaced;

use crate::br::{Br, BrParams, NextBr};
use crate::ce::{Ce, NextCe};
use crate::config::{Config, Role};
use crate::drops::Dropped;
use crate::engine::{Engine, TransmitKind};
use crate::frag::{FragTable, Usage};
use crate::stats::{Counters, RuleCounters};
use crate::verdict::Verdict;
use crate::wire::PacketBuf;

/// The engine of either role, where more is asked of it than to translate.
pub enum Machine {
    /// `mapt-br`.
    Br(Box<Br>),
    /// `mapt-ce`.
    Ce(Box<Ce>),
}

impl Machine {
    /// A CE's engine.
    pub fn ce(&self) -> Option<&Ce> {
        if let Machine::Ce(ce) = self { Some(ce) } else { None }
    }

    /// As `ce`.
    pub fn ce_mut(&mut self) -> Option<&mut Ce> {
        if let Machine::Ce(ce) = self { Some(ce) } else { None }
    }

    /// Goes on with what `next` says; what was in force is then in `next`, to be dropped off the data path. One for
    /// another role changes nothing.
    pub fn replace(&mut self, next: &mut Next, now: Duration) -> Replaced {
        match (self, next) {
            (Machine::Ce(ce), Next::Ce(next)) => ce.replace(next, now),
            (Machine::Br(br), Next::Br(next)) => {
                br.replace(next);
                Replaced::default()
            }
            _ => Replaced::default(),
        }
    }

    /// What was dropped lately, the oldest first, with the names of rules.
    pub fn drops(&self) -> Vec<(Dropped, Option<String>)> {
        let own = |(dropped, rule): (&Dropped, Option<&str>)| (*dropped, rule.map(str::to_owned));
        match self {
            Machine::Br(br) => br.drops().map(own).collect(),
            Machine::Ce(ce) => ce.drops().map(own).collect(),
        }
    }

    /// What went on by each rule.
    pub fn by_rule(&self) -> Arc<RuleCounters> {
        match self {
            Machine::Br(br) => br.by_rule(),
            Machine::Ce(ce) => ce.by_rule(),
        }
    }

    /// Where fragments wait; the engines of a BR have one table.
    pub fn fragments(&self) -> Fragments {
        match self {
            Machine::Br(br) => Fragments(br.fragments()),
            Machine::Ce(ce) => Fragments(ce.fragments()),
        }
    }

    fn engine(&self) -> &dyn Engine {
        match self {
            Machine::Br(br) => &**br,
            Machine::Ce(ce) => &**ce,
        }
    }
}

/// A fragment table, to be looked at from any thread.
#[derive(Clone)]
pub struct Fragments(Arc<FragTable>);

impl Fragments {
    /// What is in it now.
    pub fn usage(&self) -> Usage {
        self.0.usage()
    }
}

impl Engine for Machine {
    #[inline]
    fn handle(&mut self, packet: &mut PacketBuf, now: Duration) -> Verdict {
        match self {
            Machine::Br(br) => br.handle(packet, now),
            Machine::Ce(ce) => ce.handle(packet, now),
        }
    }

    #[inline]
    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        match self {
            Machine::Br(br) => br.poll_transmit(),
            Machine::Ce(ce) => ce.poll_transmit(),
        }
    }

    #[inline]
    fn poll_timeout(&self) -> Option<Duration> {
        match self {
            Machine::Br(br) => br.poll_timeout(),
            Machine::Ce(ce) => ce.poll_timeout(),
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        match self {
            Machine::Br(br) => br.handle_timeout(now),
            Machine::Ce(ce) => ce.handle_timeout(now),
        }
    }

    fn counters(&self) -> Arc<Counters> {
        self.engine().counters()
    }

    fn last_rule(&self) -> Option<&str> {
        self.engine().last_rule()
    }
}

/// One engine.
pub fn build(config: &Config) -> Machine {
    match &config.role {
        Role::Br(params) => Machine::Br(Box::new(Br::new(&config.provisioning, params))),
        Role::Ce(params) => Machine::Ce(Box::new(Ce::new(&config.provisioning, params))),
    }
}

/// An engine for each of `queues`. Those of a BR share one fragment table and have random numbers of their own; a CE
/// has one queue, its NAPT being one thread's.
pub fn build_all(config: &Config, queues: usize) -> Vec<Machine> {
    let Role::Br(params) = &config.role else { return vec![build(config)] };
    let fragments = Arc::new(FragTable::new(&params.fragments, params.seed));
    let engine = |queue: u64| {
        let spread = queue.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let params = BrParams { seed: params.seed ^ spread, ..params.clone() };
        Machine::Br(Box::new(Br::with_fragments(&config.provisioning, &params, Arc::clone(&fragments))))
    };
    (0..queues as u64).map(engine).collect()
}

/// What an engine is to be from a moment on.
pub enum Next {
    /// Of a BR.
    Br(Box<NextBr>),
    /// Of a CE.
    Ce(Box<NextCe>),
}

impl Next {
    /// What went on by each rule.
    pub fn by_rule(&self) -> Arc<RuleCounters> {
        match self {
            Next::Br(br) => br.by_rule(),
            Next::Ce(ce) => ce.by_rule(),
        }
    }
}

/// Makes what `queues` engines need to go on with another configuration of the same role; on any thread.
pub fn prepare_all(config: &Config, queues: usize) -> Vec<Next> {
    let of = |_| match &config.role {
        Role::Br(params) => Next::Br(Box::new(Br::prepare(&config.provisioning, params))),
        Role::Ce(params) => Next::Ce(Box::new(Ce::prepare(&config.provisioning, params))),
    };
    (0..queues).map(of).collect()
}
