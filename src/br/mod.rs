//! The Border Relay (RFC 7599 §8.3, §8.4): stateless translation.

mod v4_to_v6;
mod v6_to_v4;

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::desk::Desk;
use crate::engine::{Engine, TransmitKind};
use crate::map::{Provisioning, RuleId, RuleTable};
use crate::reply::{DUMMY_IPV4, IcmpParams};
use crate::siit::{
    self, AddressMap, ErrorFlow, Flow, Plan, Randomness, Refusal, TranslationParams, Translator, V4View, V6View,
};
use crate::stats::Counters;
use crate::verdict::{Direction, DropReason, Verdict};
use crate::wire::PacketBuf;

/// What a BR is told beside its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrParams {
    /// Translation.
    pub translation: TranslationParams,
    /// ICMP of our own.
    pub icmp: IcmpParams,
    /// Compare the whole source address with what its rule would write (RFC 7599 §8.3). Default true.
    pub check_interface_id: bool,
    /// Keys what is random.
    pub seed: u64,
}

/// A BR's engine. It keeps nothing of a packet once it is handled.
pub struct Br {
    table: Arc<RuleTable>,
    check_interface_id: bool,
    pool: Vec<Ipv4Addr>,
    translator: Translator,
    plan: Plan,
    last_rule: Cell<Option<RuleId>>,
    desk: Desk,
}

impl Br {
    /// An engine of its own for each thread; the rules are shared.
    pub fn new(provisioning: &Provisioning, params: &BrParams) -> Br {
        let table = Arc::clone(&provisioning.table);
        let mut pool = params.icmp.rfc6791_pool.clone();
        if pool.is_empty() {
            pool.push(DUMMY_IPV4);
        }
        let dummy_ipv6 = table.dmrs().first().map(|dmr| dmr.embed(pool[0]));
        Br {
            table,
            check_interface_id: params.check_interface_id,
            pool,
            translator: Translator { params: params.translation, random: Randomness::new(params.seed) },
            plan: Plan::default(),
            last_rule: Cell::new(None),
            desk: Desk::new(&params.icmp, dummy_ipv6),
        }
    }

    fn translate(&mut self, packet: &mut PacketBuf, direction: Direction) -> Result<(), Refusal> {
        let map = BrMap {
            table: &self.table,
            check_interface_id: self.check_interface_id,
            pool: &self.pool,
            random: &self.translator.random,
            rule: &self.last_rule,
        };
        let (t, plan) = (&self.translator, &mut self.plan);
        match direction {
            Direction::V4ToV6 => siit::v4_to_v6::plan(packet, &V4View::parse(packet)?, &map, t, plan)?,
            Direction::V6ToV4 => siit::v6_to_v4::plan(packet, &V6View::parse(packet)?, &map, t, plan)?,
        }
        plan.apply(packet, &mut self.desk.more);
        Ok(())
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
        self.last_rule.set(None);
        let outcome = self.translate(packet, direction);
        self.desk.close(packet, direction, octets, outcome, now)
    }

    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        self.desk.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn counters(&self) -> Arc<Counters> {
        self.desk.counters()
    }

    fn last_rule(&self) -> Option<&str> {
        self.last_rule.get().map(|id| self.table.name(id))
    }
}
