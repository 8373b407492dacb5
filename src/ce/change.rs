//! Other rules, another prefix or other parameters while packets flow.

use std::sync::Arc;
use std::time::Duration;

use super::{Ce, CeParams, Core};
use crate::map::{Customer, Provisioning};
use crate::napt::Replaced;
use crate::reply::Replier;
use crate::stats::RuleCounters;

/// What a CE is to be from a moment on; after `Ce::replace` what it was until then.
pub struct NextCe {
    pub(super) core: Core,
    pub(super) replier: Replier,
}

impl NextCe {
    /// What went on by each rule.
    pub fn by_rule(&self) -> Arc<RuleCounters> {
        Arc::clone(&self.core.by_rule)
    }
}

impl Ce {
    /// Makes all that a change needs, with a NAPT of its own; on any thread. Allocates.
    pub fn prepare(provisioning: &Provisioning, params: &CeParams) -> NextCe {
        let core = Core::new(provisioning, params);
        let dummy_ipv6 = core.customer.map(|c| core.table.dmr(c.rule).embed(core.pool[0]));
        NextCe { core, replier: Replier::new(&params.icmp, dummy_ipv6) }
    }

    /// From now on it is what `next` says; what it was is then in `next`, to be dropped off the data path.
    ///
    /// Flows that no longer fit the address, ports or room end, the others live on, see [`crate::napt::Napt::replace`]. Counters,
    /// the limit on answers, known and held fragments, and random numbers go on; the bounds of the fragment table
    /// (`fragments`) stay. Where a flow ended or the customer's addresses or ports changed, no later fragment passes
    /// whose first one went before: it is dropped as `fragment-without-port`. Those that still wait for their first one
    /// go, with it, by what is then in force. SYNs that nobody in the home has asked for may still earn their answers
    /// under the new filter, unless the customer's addresses or ports changed.
    pub fn replace(&mut self, next: &mut NextCe, now: Duration) -> Replaced {
        let before = identity(&self.core);
        let flows = self.napt().map_or(0, |napt| napt.live(now));
        std::mem::swap(&mut self.core, &mut next.core);
        let (core, old) = (&mut self.core, &mut next.core);
        let replaced = match (&mut core.napt, &mut old.napt) {
            (Some(new), Some(in_force)) => {
                let replaced = in_force.replace(new, now);
                std::mem::swap(in_force, new);
                replaced
            }
            (new, in_force) => {
                if let Some(past) = in_force.as_mut().and_then(|napt| napt.past(now)) {
                    self.lost += past.lost_events();
                    self.past = Some(past);
                }
                if let Some(napt) = new {
                    napt.record(self.recording);
                }
                Replaced { kept: 0, purged: flows }
            }
        };
        std::mem::swap(&mut core.translator.random, &mut old.translator.random);
        std::mem::swap(&mut core.plan, &mut old.plan);
        if let (Some(new), Some(in_force)) = (&mut core.identifications, &mut old.identifications)
            && new.ports == in_force.ports
        {
            std::mem::swap(new, in_force);
        }
        self.desk.replace(&mut next.replier);
        if replaced.purged > 0 || identity(&self.core) != before {
            self.hold.turn();
        }
        if identity(&self.core) != before {
            self.unsolicited.clear();
        }
        replaced
    }
}

/// What packets of the home leave with.
fn identity(core: &Core) -> Option<(Customer, bool)> {
    let customer = core.customer?;
    // The number of a rule says nothing: they are counted afresh.
    Some((Customer { rule: crate::map::RuleId(0), ..customer }, core.napt.is_some()))
}
