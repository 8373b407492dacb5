//! The Customer Edge (RFC 7599 §8.1, §8.2): NAPT44 into the port set, then translation.

mod change;
mod unsolicited;
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
use crate::map::{Customer, PortSet, Provisioning, RuleId, RuleTable};
use crate::mapping;
use crate::napt::{
    Event, Inside, Napt, NaptParams, Outside, Past, Proposal, Protocol, Refusal, Remote, Segment, TcpFlags,
};
use crate::reply::{DUMMY_IPV4, IcmpParams};
use crate::siit::{
    self, AddressMap, ErrorFlow, Flow, FlowKind, Plan, Randomness, TranslationParams, Translator, V4View, V6View,
};
use crate::stats::{Counters, RuleCounters};
use crate::verdict::{Direction, DropReason, Verdict};
use crate::wire::PacketBuf;
use crate::wire::checksum::Sum;
use crate::wire::ip::protocol;
use crate::wire::queue::PacketQueue;
use crate::wire::transport::Transport;

use unsolicited::Unsolicited;

pub use change::NextCe;

/// What a CE is told beside its rules and prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeParams {
    /// Translation.
    pub translation: TranslationParams,
    /// ICMP of our own.
    pub icmp: IcmpParams,
    /// Compare the whole source address of an FMR peer with what its rule would write. Default true.
    pub check_interface_id: bool,
    /// Fragments of packets whose ports are checked or translated.
    pub fragments: FragParams,
    /// Give fragmented packets of a shared address an Identification out of the port set (RFC 7599 §10.3). Default
    /// off: the set is small, and an Identification used again too soon mixes packets (RFC 4963, RFC 6864 §5.3.1).
    pub rewrite_identification: bool,
    /// `napt.enabled`: off only where the customer has a full address or a prefix (RFC 7599 §8.2). Default on.
    pub napt: bool,
    /// Idle times, shared ports, filters.
    pub napt_params: NaptParams,
    /// Keys what is random.
    pub seed: u64,
}

/// A CE's engine. Its only state is the NAPT's, and for a while a fragment's ports, and SYNs that may earn an answer.
pub struct Ce {
    core: Core,
    hold: Hold,
    desk: Desk,
    unsolicited: Unsolicited,
    recording: bool,
    /// Of the NAPT that was here until the customer's address went.
    past: Option<Past<Inside>>,
    /// Events that such found no room for.
    lost: u64,
}

/// All of a CE but counting, answering and waiting.
struct Core {
    table: Arc<RuleTable>,
    customer: Option<Customer>,
    napt: Option<Napt<Inside>>,
    check_interface_id: bool,
    identifications: Option<Identifications>,
    pool: Vec<Ipv4Addr>,
    translator: Translator,
    plan: Plan,
    last_rule: Cell<Option<RuleId>>,
    by_rule: Arc<RuleCounters>,
    /// Where a TCP packet was refused because nobody is there.
    nobody: Cell<Option<(Outside, Remote)>>,
}

/// Identifications out of the port set, each as seldom as can be (RFC 7599 §10.3).
struct Identifications {
    ports: PortSet,
    next: u32,
}

impl Identifications {
    fn next(&mut self) -> u16 {
        self.next = (self.next + 1) % self.ports.count();
        self.ports.nth(self.next).unwrap_or(0)
    }
}

impl Ce {
    /// A CE without End-user prefix, or whose prefix no rule covers, drops everything by name.
    pub fn new(provisioning: &Provisioning, params: &CeParams) -> Ce {
        let NextCe { core, replier } = Ce::prepare(provisioning, params);
        let hold = Hold::new(Arc::new(FragTable::new(&params.fragments, params.seed)));
        Ce {
            core,
            hold,
            desk: Desk::new(replier),
            unsolicited: Unsolicited::new(),
            recording: false,
            past: None,
            lost: 0,
        }
    }

    /// The NAPT; `None` where it is off, and without a prefix.
    pub fn napt(&self) -> Option<&Napt<Inside>> {
        self.core.napt.as_ref()
    }

    /// The NAPT, for what is done to it between packets.
    pub fn napt_mut(&mut self) -> Option<&mut Napt<Inside>> {
        self.core.napt.as_mut()
    }

    /// Has the NAPT record what is made and what ends, or stop, see [`Napt::record`]; also one that comes by `replace`.
    pub fn record(&mut self, on: bool) {
        self.recording = on;
        if !on {
            self.past = None;
        }
        if let Some(napt) = &mut self.core.napt {
            napt.record(on);
        }
    }

    /// The oldest event that waits; those of a NAPT that `replace` took away come first.
    pub fn next_event(&mut self) -> Option<Event<Inside>> {
        if let Some(past) = &mut self.past {
            match past.next_event() {
                None => self.past = None,
                event => return event,
            }
        }
        self.core.napt.as_mut()?.next_event()
    }

    /// Events that found no room since the start.
    pub fn lost_events(&self) -> u64 {
        self.lost + self.core.napt.as_ref().map_or(0, Napt::lost_events)
    }

    /// Outside ports of a protocol in use now.
    pub fn ports_in_use(&self, protocol: Protocol) -> usize {
        self.core.napt.as_ref().map_or(0, |napt| napt.ports_in_use(protocol))
    }

    /// Flows of a protocol now.
    pub fn flows(&self, protocol: Protocol) -> usize {
        self.core.napt.as_ref().map_or(0, |napt| napt.flows(protocol))
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
    fn new(provisioning: &Provisioning, params: &CeParams) -> Core {
        let table = Arc::clone(&provisioning.table);
        let customer = provisioning.end_user_prefix.and_then(|prefix| table.customer(prefix).ok());
        let mut pool = params.icmp.rfc6791_pool.clone();
        if pool.is_empty() {
            pool.push(DUMMY_IPV4);
        }
        let napt = customer
            .filter(|_| params.napt)
            .map(|c| Napt::new(c.ipv4.addr(), c.ports, &params.napt_params, params.seed ^ 0x6e61_7074));
        let random = Randomness::new(params.seed);
        // Where the address is not shared, nobody else's Identifications meet ours.
        let shared = customer.filter(|c| params.rewrite_identification && c.psid.is_some());
        let identifications =
            shared.map(|c| Identifications { ports: c.ports, next: random.next_u32() % c.ports.count() });
        Core {
            table,
            customer,
            napt,
            check_interface_id: params.check_interface_id,
            identifications,
            pool,
            translator: Translator { params: params.translation, random },
            plan: Plan::default(),
            last_rule: Cell::new(None),
            by_rule: Arc::new(RuleCounters::new(provisioning.table.rules().len())),
            nobody: Cell::new(None),
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
        now: Duration,
        more: &mut PacketQueue,
    ) -> Result<(), Stop> {
        let Some(customer) = &self.customer else { return Err(DropReason::Unprovisioned.into()) };
        let map = CeMap {
            table: &self.table,
            customer,
            napt: self.napt.as_ref(),
            check_interface_id: self.check_interface_id,
            pool: &self.pool,
            random: &self.translator.random,
            rule: &self.last_rule,
            nobody: &self.nobody,
            proposal: Cell::new(None),
            now,
        };
        let (t, plan) = (&self.translator, &mut self.plan);
        let segment = match direction {
            Direction::V4ToV6 => {
                let mut view = V4View::parse(packet)?;
                hold::admit_v4(&mut view, pass)?;
                if let (Some(ids), false, None) = (&mut self.identifications, view.header.df, pass) {
                    // In case that we fragment it.
                    view.header.id = ids.next();
                }
                siit::v4_to_v6::plan(packet, &view, &map, t, plan)?;
                if map.napt.is_some() && quotes_a_broken_header(packet.bytes(), &view) {
                    return Err(DropReason::IcmpInner.into());
                }
                segment(packet.bytes(), view.header.header_len, view.header.total_len, &view.transport)
            }
            Direction::V6ToV4 => {
                let mut view = V6View::parse(packet)?;
                hold::admit_v6(&mut view, pass)?;
                siit::v6_to_v4::plan(packet, &view, &map, t, plan)?;
                segment(packet.bytes(), view.header.header_len, view.header.total_len, &view.transport)
            }
        };
        if let (Some(proposal), Some(napt)) = (map.proposal.get(), &mut self.napt) {
            match direction {
                Direction::V4ToV6 => napt.commit_outbound(proposal, segment.as_ref(), now),
                Direction::V6ToV4 => napt.commit_inbound(proposal, segment.as_ref(), now),
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
        let Some(customer) = &self.customer else { return false };
        if self.napt.is_some() || customer.psid.is_some() {
            return true;
        }
        // A neighbour's address may be shared.
        mapping::needs_port(&self.table, key.direction, key.src, key.dst)
    }

    /// The host of the home, or whoever sends to it.
    fn group(&self, key: &Key) -> u128 {
        key.src
    }

    fn identification(&mut self, direction: Direction) -> Option<u16> {
        match direction {
            Direction::V4ToV6 => self.identifications.as_mut().map(Identifications::next),
            Direction::V6ToV4 => None,
        }
    }
}

/// Whether the IPv4 header in an ICMP error has a wrong checksum: it may be another flow's (RFC 5508 REQ-3a). A BR is no
/// NAT and leaves that to the CE.
#[inline]
fn quotes_a_broken_header(packet: &[u8], view: &V4View) -> bool {
    let Transport::IcmpError { .. } = view.transport else { return false };
    let quoted = packet.get(view.header.header_len + 8..).unwrap_or_default();
    let len = quoted.first().map_or(0, |octet| usize::from(octet & 15) * 4);
    quoted.get(..len).is_none_or(|header| !Sum::of(header).is_valid())
}

/// What the NAPT follows of a TCP header at `at`; `None` where there is none.
#[inline]
fn segment(packet: &[u8], at: usize, total: usize, transport: &Transport) -> Option<Segment> {
    let Transport::Tcp { flags, header_len, .. } = *transport else { return None };
    let numbers = packet.get(at + 4..)?.first_chunk::<8>()?;
    let number = |n: usize| u32::from_be_bytes([numbers[n], numbers[n + 1], numbers[n + 2], numbers[n + 3]]);
    let flags = TcpFlags { fin: flags & 1 != 0, syn: flags & 2 != 0, rst: flags & 4 != 0, ack: flags & 16 != 0 };
    let len = total.saturating_sub(at + header_len) as u32;
    Some(Segment { flags, seq: number(0), ack: number(4), len })
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
    nobody: &'a Cell<Option<(Outside, Remote)>>,
    proposal: Cell<Option<Proposal<Inside>>>,
    now: Duration,
}

/// What a refusal of the NAPT is called in the counters.
#[cold]
fn refused(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Exhausted => DropReason::NaptExhausted,
        Refusal::NoMapping => DropReason::NaptNoMapping,
        Refusal::Filtered => DropReason::NaptFiltered,
    }
}

/// The NAPT's name for a kind of flow.
#[inline]
fn protocol_of(kind: FlowKind) -> Result<Protocol, DropReason> {
    match kind {
        FlowKind::Tcp => Ok(Protocol::Tcp),
        FlowKind::Udp => Ok(Protocol::Udp),
        FlowKind::Echo => Ok(Protocol::Icmp),
        FlowKind::Later(protocol::TCP | protocol::UDP) => Err(DropReason::FragmentWithoutPort),
        FlowKind::Later(_) | FlowKind::Other(_) => Err(DropReason::NaptUnsupported),
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
        self.core.last_rule.set(None);
        let outcome = match self.core.translate(packet, direction, None, now, &mut self.desk.more) {
            Ok(()) => Ok(()),
            Err(Stop::Refused(refusal)) => {
                if let Some(ends) = self.core.nobody.take() {
                    self.wait_for_the_home(packet, ends, now);
                }
                Err(refusal)
            }
            Err(Stop::Fragment) => {
                let verdict = self.hold.handle(&mut self.core, &mut self.desk, packet, direction, now);
                // What came in pieces is not answered.
                self.core.nobody.set(None);
                return verdict;
            }
        };
        self.desk.close(packet, direction, octets, outcome, self.core.rule(), now)
    }

    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)> {
        self.desk.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let napt = self.core.napt.as_ref().and_then(Napt::poll_timeout);
        napt.into_iter().chain(self.hold.poll_timeout()).chain(self.unsolicited.next()).min()
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.hold.handle_timeout(&mut self.desk, now);
        if let Some(napt) = &mut self.core.napt {
            napt.handle_timeout(now);
        }
        self.answer_unsolicited(now);
    }

    fn counters(&self) -> Arc<Counters> {
        self.desk.counters()
    }

    fn last_rule(&self) -> Option<&str> {
        self.core.last_rule.get().map(|id| self.core.table.name(id))
    }
}
