//! The Customer Edge (RFC 7599 §8.1, §8.2): NAPT44 into the port set, then translation.

mod v4_to_v6;
mod v6_to_v4;

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::desk::Desk;
use crate::engine::{Engine, TransmitKind};
use crate::map::{Customer, Provisioning, RuleId, RuleTable};
use crate::napt::{Inside, Napt, Proposal, Protocol, TcpFlags, Timers};
use crate::reply::{DUMMY_IPV4, IcmpParams};
use crate::siit::{
    self, AddressMap, ErrorFlow, Flow, FlowKind, Plan, Randomness, Refusal, TranslationParams, Translator, V4View,
    V6View,
};
use crate::stats::Counters;
use crate::verdict::{Direction, DropReason, Verdict};
use crate::wire::PacketBuf;
use crate::wire::transport::Transport;

/// What a CE is told beside its rules and prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeParams {
    /// Translation.
    pub translation: TranslationParams,
    /// ICMP of our own.
    pub icmp: IcmpParams,
    /// Compare the whole source address of an FMR peer with what its rule would write. Default true.
    pub check_interface_id: bool,
    /// `napt.enabled`: off only where the customer has a full address or a prefix (RFC 7599 §8.2). Default on.
    pub napt: bool,
    /// Idle times of mappings.
    pub timers: Timers,
    /// Keys what is random.
    pub seed: u64,
}

/// A CE's engine. Its only state is the NAPT's.
pub struct Ce {
    table: Arc<RuleTable>,
    customer: Option<Customer>,
    napt: Option<Napt<Inside>>,
    check_interface_id: bool,
    pool: Vec<Ipv4Addr>,
    translator: Translator,
    plan: Plan,
    last_rule: Cell<Option<RuleId>>,
    desk: Desk,
}

impl Ce {
    /// A CE without End-user prefix, or whose prefix no rule covers, drops everything by name.
    pub fn new(provisioning: &Provisioning, params: &CeParams) -> Ce {
        let table = Arc::clone(&provisioning.table);
        let customer = provisioning.end_user_prefix.and_then(|prefix| table.customer(prefix).ok());
        let mut pool = params.icmp.rfc6791_pool.clone();
        if pool.is_empty() {
            pool.push(DUMMY_IPV4);
        }
        let napt = customer
            .filter(|_| params.napt)
            .map(|c| Napt::new(c.ipv4.addr(), c.ports, params.timers, params.seed ^ 0x6e61_7074));
        let dummy_ipv6 = customer.map(|c| table.dmr(c.rule).embed(pool[0]));
        Ce {
            table,
            customer,
            napt,
            check_interface_id: params.check_interface_id,
            pool,
            translator: Translator { params: params.translation, random: Randomness::new(params.seed) },
            plan: Plan::default(),
            last_rule: Cell::new(None),
            desk: Desk::new(&params.icmp, dummy_ipv6),
        }
    }

    /// Mappings of a protocol now.
    pub fn mappings(&self, protocol: Protocol) -> usize {
        self.napt.as_ref().map_or(0, |napt| napt.mappings(protocol))
    }

    fn translate(&mut self, packet: &mut PacketBuf, direction: Direction, now: Duration) -> Result<(), Refusal> {
        let Some(customer) = &self.customer else { return Err(DropReason::Unprovisioned.into()) };
        let map = CeMap {
            table: &self.table,
            customer,
            napt: self.napt.as_ref(),
            check_interface_id: self.check_interface_id,
            pool: &self.pool,
            random: &self.translator.random,
            rule: &self.last_rule,
            proposal: Cell::new(None),
            now,
        };
        let (t, plan) = (&self.translator, &mut self.plan);
        let transport = match direction {
            Direction::V4ToV6 => {
                let view = V4View::parse(packet)?;
                siit::v4_to_v6::plan(packet, &view, &map, t, plan)?;
                view.transport
            }
            Direction::V6ToV4 => {
                let view = V6View::parse(packet)?;
                siit::v6_to_v4::plan(packet, &view, &map, t, plan)?;
                view.transport
            }
        };
        if let (Some(proposal), Some(napt)) = (map.proposal.get(), &mut self.napt) {
            match direction {
                Direction::V4ToV6 => napt.commit_outbound(proposal, flags(&transport), now),
                Direction::V6ToV4 => napt.commit_inbound(proposal, flags(&transport), now),
            }
        }
        plan.apply(packet, &mut self.desk.more);
        Ok(())
    }
}

fn flags(transport: &Transport) -> TcpFlags {
    match *transport {
        Transport::Tcp { flags, .. } => {
            TcpFlags { fin: flags & 1 != 0, syn: flags & 2 != 0, rst: flags & 4 != 0, ack: flags & 16 != 0 }
        }
        _ => TcpFlags::default(),
    }
}

/// RFC 7599 §8.1 and §8.2 as a map of addresses. What the NAPT proposes waits here for its commit.
struct CeMap<'a> {
    table: &'a RuleTable,
    customer: &'a Customer,
    napt: Option<&'a Napt<Inside>>,
    check_interface_id: bool,
    pool: &'a [Ipv4Addr],
    random: &'a Randomness,
    rule: &'a Cell<Option<RuleId>>,
    proposal: Cell<Option<Proposal<Inside>>>,
    now: Duration,
}

/// The NAPT's name for a kind of flow.
#[inline]
fn protocol_of(kind: FlowKind) -> Result<Protocol, DropReason> {
    match kind {
        FlowKind::Tcp => Ok(Protocol::Tcp),
        FlowKind::Udp => Ok(Protocol::Udp),
        FlowKind::Echo => Ok(Protocol::Icmp),
        FlowKind::Later(_) => Err(DropReason::FragmentWithoutPort),
        FlowKind::Other(_) => Err(DropReason::NaptUnsupported),
    }
}

impl AddressMap for CeMap<'_> {
    #[inline]
    fn packet_v4_to_v6(&self, flow: &Flow<Ipv4Addr>) -> Result<Flow<Ipv6Addr>, DropReason> {
        v4_to_v6::packet(self, flow)
    }

    #[inline]
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

impl Engine for Ce {
    fn handle(&mut self, packet: &mut PacketBuf, now: Duration) -> Verdict {
        let (direction, octets) = (Desk::direction(packet), packet.len());
        self.last_rule.set(None);
        let outcome = self.translate(packet, direction, now);
        self.desk.close(packet, direction, octets, outcome, now)
    }

    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        self.desk.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.napt.as_ref().and_then(Napt::poll_timeout)
    }

    fn handle_timeout(&mut self, now: Duration) {
        if let Some(napt) = &mut self.napt {
            napt.handle_timeout(now);
        }
    }

    fn counters(&self) -> Arc<Counters> {
        self.desk.counters()
    }

    fn last_rule(&self) -> Option<&str> {
        self.last_rule.get().map(|id| self.table.name(id))
    }
}
