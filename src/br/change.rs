//! Other rules or parameters while packets flow.

use std::sync::Arc;

use super::{Br, BrParams, Core};
use crate::map::Provisioning;
use crate::reply::Replier;
use crate::stats::RuleCounters;

/// What a BR is to be from a moment on; after `Br::replace` what it was until then.
pub struct NextBr {
    pub(super) core: Core,
    pub(super) replier: Replier,
}

impl NextBr {
    /// What went on by each rule.
    pub fn by_rule(&self) -> Arc<RuleCounters> {
        Arc::clone(&self.core.by_rule)
    }
}

impl Br {
    /// Makes all that a change needs, on any thread. Allocates. Each engine of a BR needs one of its own; they share
    /// the rules.
    pub fn prepare(provisioning: &Provisioning, params: &BrParams) -> NextBr {
        let core = Core::new(provisioning, params);
        let dummy_ipv6 = core.table.dmrs().first().map(|dmr| dmr.embed(core.pool[0]));
        NextBr { core, replier: Replier::new(&params.icmp, dummy_ipv6) }
    }

    /// From now on it is what `next` says; what it was is then in `next`, to be dropped off the data path.
    ///
    /// Counters (those of rules aside, which begin anew), the limit on answers, known and held fragments, and random numbers go on; the bounds of the fragment
    /// table (`fragments`) stay. What is known of fragments are the ports in their packets, so each piece goes by the
    /// rules in force when it goes.
    pub fn replace(&mut self, next: &mut NextBr) {
        std::mem::swap(&mut self.core, &mut next.core);
        let (core, old) = (&mut self.core, &mut next.core);
        std::mem::swap(&mut core.translator.random, &mut old.translator.random);
        std::mem::swap(&mut core.plan, &mut old.plan);
        self.desk.replace(&mut next.replier);
    }
}
