//! Finding the rule: longest match by IPv4 (then PSID) and by IPv6.
use super::{CompiledRule, Dmr, MapAddress, Rule};
use std::net::{Ipv4Addr, Ipv6Addr};
/// A rule's place in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(pub u32);
/// Why an IPv4 address and port lead to no CE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// No rule covers the address.
    NoRule,
    /// The port has A = 0.
    PortExcluded,
    /// Rules cover the address, none the port's PSID.
    PsidUnassigned,
    /// The address is shared and no port was given.
    PortNeeded,
}
/// All rules of a domain set, shared between threads and swapped whole.
#[derive(Debug)]
pub struct RuleTable {
    rules: Vec<Rule>,
    compiled: Vec<CompiledRule>,
    dmrs: Vec<Dmr>,
}
/// A conflict: the index of the offending rule in the input, the leaf, the message, the section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// index
    pub rule: usize,
    /// YAML leaf
    pub leaf: &'static str,
    /// for people
    pub message: String,
    /// section
    pub rfc: &'static str,
}
impl RuleTable {
    /// Builds the lookup structures; every conflict is reported.
    pub fn new(_rules: Vec<Rule>, _dmr: Option<Dmr>) -> Result<Self, Vec<Conflict>> {
        todo!()
    }
    /// The rules in the order given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
    /// One rule, compiled.
    #[inline]
    pub fn get(&self, _id: RuleId) -> &CompiledRule {
        todo!()
    }
    /// Its name.
    pub fn name(&self, _id: RuleId) -> &str {
        todo!()
    }
    /// The DMR of a rule: its own, else the set's.
    #[inline]
    pub fn dmr(&self, _id: RuleId) -> &Dmr {
        todo!()
    }
    /// Every distinct DMR, the set's first.
    pub fn dmrs(&self) -> &[Dmr] {
        &self.dmrs
    }
    /// Rule and MAP address that own (IPv4, port): longest prefix, then the PSID.
    #[inline]
    pub fn by_ipv4(&self, _ipv4: Ipv4Addr, _port: Option<u16>) -> Result<(RuleId, MapAddress), Unmapped> {
        todo!()
    }
    /// The rule with the longest Rule IPv6 prefix that covers `addr`.
    #[inline]
    pub fn by_ipv6(&self, _addr: Ipv6Addr) -> Option<RuleId> {
        todo!()
    }
    /// The DMR (longest match among `dmrs`) that covers `addr`, with the IPv4 address inside.
    #[inline]
    pub fn by_dmr(&self, _addr: Ipv6Addr) -> Option<(&Dmr, Ipv4Addr)> {
        todo!()
    }
}
