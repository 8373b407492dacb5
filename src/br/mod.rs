//! The Border Relay (RFC 7599 §8.3, §8.4): stateless translation.

mod change;
mod v4_to_v6;
mod v6_to_v4;

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::desk::Desk;
use crate::drops::Dropped;
use crate::engine::{Engine, TransmitKind};
use crate::frag::{FragParams, FragTable, Key};
use crate::hold::{self, Hold, Pass, Role, Stop};
use crate::map::{Provisioning, RuleId, RuleTable};
use crate::mapping;
use crate::reply::{DUMMY_IPV4, IcmpParams};
use crate::siit::{self, AddressMap, ErrorFlow, Flow, Plan, Randomness, TranslationParams, Translator, V4View, V6View};
use crate::stats::{Counters, RuleCounters};
use crate::verdict::{Direction, DropReason, Verdict};
use crate::wire::PacketBuf;
use crate::wire::queue::PacketQueue;

pub use change::NextBr;

/// What a BR is told beside its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrParams {
    /// Translation.
    pub translation: TranslationParams,
    /// ICMP of our own.
    pub icmp: IcmpParams,
    /// Compare the whole source address with what its rule would write (RFC 7599 §8.3). Default true.
    pub check_interface_id: bool,
    /// Fragments of packets to and from shared addresses.
    pub fragments: FragParams,
    /// Keys what is random.
    pub seed: u64,
}

/// A BR's engine. It keeps nothing of a packet once it is handled, except a fragment's ports for a while.
pub struct Br {
    core: Core,
    hold: Hold,
    desk: Desk,
}

/// All of a BR but counting, answering and waiting.
struct Core {
    table: Arc<RuleTable>,
    check_interface_id: bool,
    pool: Vec<Ipv4Addr>,
    translator: Translator,
    plan: Plan,
    last_rule: Cell<Option<RuleId>>,
    by_rule: Arc<RuleCounters>,
}

impl Br {
    /// An engine with a fragment table of its own.
    pub fn new(provisioning: &Provisioning, params: &BrParams) -> Br {
        Br::with_fragments(provisioning, params, Arc::new(FragTable::new(&params.fragments, params.seed)))
    }

    /// An engine of its own for each thread; the rules and the fragment table are shared, since the kernel may put the
    /// fragments of a packet on different queues.
    pub fn with_fragments(provisioning: &Provisioning, params: &BrParams, fragments: Arc<FragTable>) -> Br {
        let NextBr { core, replier } = Br::prepare(provisioning, params);
        Br { core, hold: Hold::new(fragments), desk: Desk::new(replier) }
    }

    /// What was dropped lately, with the names of rules.
    pub fn drops(&self) -> impl Iterator<Item = (&Dropped, Option<&str>)> {
        self.desk.drops().iter().map(|dropped| (dropped, dropped.rule.map(|rule| self.core.table.name(RuleId(rule)))))
    }

    /// What went on by each rule.
    pub fn by_rule(&self) -> Arc<RuleCounters> {
        Arc::clone(&self.core.by_rule)
    }

    /// Where fragments wait.
    pub fn fragments(&self) -> Arc<FragTable> {
        self.hold.table()
    }
}

impl Core {
    fn new(provisioning: &Provisioning, params: &BrParams) -> Core {
        let mut pool = params.icmp.rfc6791_pool.clone();
        if pool.is_empty() {
            pool.push(DUMMY_IPV4);
        }
        Core {
            table: Arc::clone(&provisioning.table),
            check_interface_id: params.check_interface_id,
            pool,
            translator: Translator { params: params.translation, random: Randomness::new(params.seed) },
            plan: Plan::default(),
            last_rule: Cell::new(None),
            by_rule: Arc::new(RuleCounters::new(provisioning.table.rules().len())),
        }
    }
}

impl Role for Core {
    #[inline(always)]
    fn translate(
        &mut self,
        packet: &mut PacketBuf,
        direction: Direction,
        pass: Option<Pass>,
        _now: Duration,
        more: &mut PacketQueue,
    ) -> Result<(), Stop> {
        let map = BrMap {
            table: &self.table,
            check_interface_id: self.check_interface_id,
            pool: &self.pool,
            random: &self.translator.random,
            rule: &self.last_rule,
        };
        let (t, plan) = (&self.translator, &mut self.plan);
        match direction {
            Direction::V4ToV6 => {
                let mut view = V4View::parse(packet)?;
                hold::admit_v4(&mut view, pass)?;
                siit::v4_to_v6::plan(packet, &view, &map, t, plan)?;
            }
            Direction::V6ToV4 => {
                let mut view = V6View::parse(packet)?;
                hold::admit_v6(&mut view, pass)?;
                siit::v6_to_v4::plan(packet, &view, &map, t, plan)?;
            }
        }
        if let Some(RuleId(rule)) = self.last_rule.get() {
            self.by_rule.forwarded(rule, direction, packet.len());
        }
        plan.apply(packet, more);
        Ok(())
    }

    #[inline(always)]
    fn rule(&self) -> Option<u32> {
        self.last_rule.get().map(|id| id.0)
    }

    fn needs_port(&self, key: &Key) -> bool {
        mapping::needs_port(&self.table, key.direction, key.src, key.dst)
    }

    /// The customer's.
    fn group(&self, key: &Key) -> u128 {
        match key.direction {
            Direction::V4ToV6 => key.dst,
            Direction::V6ToV4 => key.src,
        }
    }

    fn identification(&mut self, _direction: Direction) -> Option<u16> {
        None
    }
}

/// RFC 7599 §8.3 and §8.4 as a map of addresses.
struct BrMap<'a> {
    table: &'a RuleTable,
    check_interface_id: bool,
    pool: &'a [Ipv4Addr],
    random: &'a Randomness,
    rule: &'a Cell<Option<RuleId>>,
}

impl AddressMap for BrMap<'_> {
    #[inline(always)]
    fn packet_v4_to_v6(&self, flow: &Flow<Ipv4Addr>) -> Result<Flow<Ipv6Addr>, DropReason> {
        v4_to_v6::packet(self, flow)
    }

    #[inline(always)]
    fn packet_v6_to_v4(&self, flow: &Flow<Ipv6Addr>) -> Result<Flow<Ipv4Addr>, DropReason> {
        v6_to_v4::packet(self, flow)
    }

    fn error_v4_to_v6(&self, error: &ErrorFlow<Ipv4Addr>) -> Result<ErrorFlow<Ipv6Addr>, DropReason> {
        v4_to_v6::error(self, error)
    }

    fn error_v6_to_v4(&self, error: &ErrorFlow<Ipv6Addr>) -> Result<ErrorFlow<Ipv4Addr>, DropReason> {
        v6_to_v4::error(self, error)
    }
}

impl Engine for Br {
    fn handle(&mut self, packet: &mut PacketBuf, now: Duration) -> Verdict {
        let (direction, octets) = (Desk::direction(packet), packet.len());
        self.core.last_rule.set(None);
        let outcome = match self.core.translate(packet, direction, None, now, &mut self.desk.more) {
            Ok(()) => Ok(()),
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(Stop::Fragment) => {
                return self.hold.handle(&mut self.core, &mut self.desk, packet, direction, now);
            }
        };
        self.desk.close(packet, direction, octets, outcome, self.core.rule(), now)
    }

    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        self.desk.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.hold.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.hold.handle_timeout(&mut self.desk, now);
    }

    fn counters(&self) -> Arc<Counters> {
        self.desk.counters()
    }

    fn last_rule(&self) -> Option<&str> {
        self.core.last_rule.get().map(|id| self.core.table.name(id))
    }
}
