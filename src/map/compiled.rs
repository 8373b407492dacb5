//! Rules as the packet path uses them: arithmetic, and the room they take.

use super::prefix::{mask32, mask128};
use super::{Ipv6Prefix, MapAddress, PortParams, PortSet, Psid};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A rule as the packet path uses it.
///
/// `decompose` and `compose` expect addresses that the rule covers; for others they give some address, which the
/// caller's comparison of the whole address then refuses.
#[derive(Clone, Copy, Debug)]
pub struct CompiledRule {
    /// Rule IPv6 prefix.
    ipv6: u128,
    /// Rule IPv4 prefix.
    ipv4: u32,
    class: Class,
}

/// What many rules have in common: all but their prefixes' bits. Masks are made out of the lengths when they are
/// needed, as the cache misses of 100,000 rules cost more than these few instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// Index among the table's DMRs.
    pub(super) dmr: u32,
    /// 0 where the EA bits carry the PSID, or there is none.
    pub(super) explicit_psid: Psid,
    pub(super) n: u8,
    pub(super) r: u8,
    pub(super) o: u8,
    /// a = k = 0 where the address is not shared.
    pub(super) params: PortParams,
    pub(super) forwarding: bool,
    /// Whether other rules have longer IPv4 prefixes inside this rule's.
    pub(super) has_inner: bool,
}

/// One cache line at most.
const _: () = assert!(size_of::<CompiledRule>() <= 64);

/// Compiled rules in the order of their ids: 16 octets each, and what they have in common apart.
#[derive(Debug)]
pub(super) struct CompiledRules {
    slots: Vec<Slot>,
    classes: Vec<(u64, Class)>,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
struct Slot {
    /// The high half of the Rule IPv6 prefix; the low half, 0 for all but the longest, counts as part of the class.
    high: u64,
    ipv4: u32,
    class: u32,
}

const _: () = assert!(size_of::<Slot>() == 16);

impl CompiledRules {
    pub(super) fn new(rules: impl IntoIterator<Item = CompiledRule>) -> Self {
        let mut classes = Vec::new();
        let mut places: HashMap<(u64, Class), u32> = HashMap::new();
        let slot = |rule: CompiledRule| {
            let class = (rule.ipv6 as u64, rule.class);
            let place = *places.entry(class).or_insert_with(|| {
                classes.push(class);
                classes.len() as u32 - 1
            });
            Slot { high: (rule.ipv6 >> 64) as u64, ipv4: rule.ipv4, class: place }
        };
        let slots = rules.into_iter().map(slot).collect();
        classes.shrink_to_fit();
        CompiledRules { slots, classes }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> CompiledRule {
        let slot = self.slots[id as usize];
        let (low, class) = self.classes[slot.class as usize];
        CompiledRule { ipv6: u128::from(slot.high) << 64 | u128::from(low), ipv4: slot.ipv4, class }
    }

    /// Octets on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.classes.capacity() * size_of::<(u64, Class)>()
    }
}

impl CompiledRule {
    pub(super) fn new(ipv6: Ipv6Addr, ipv4: Ipv4Addr, class: Class) -> Self {
        CompiledRule { ipv6: ipv6.into(), ipv4: ipv4.into(), class }
    }
    /// The same rule in a table.
    pub(super) fn placed(self, dmr: u32, has_inner: bool) -> Self {
        CompiledRule { class: Class { dmr, has_inner, ..self.class }, ..self }
    }
    /// Index among the table's DMRs.
    #[inline]
    pub(super) fn dmr(&self) -> u32 {
        self.class.dmr
    }
    /// r.
    #[inline]
    pub(super) fn ipv4_prefix_len(&self) -> u8 {
        self.class.r
    }
    /// Whether other rules have longer IPv4 prefixes inside this rule's.
    #[inline]
    pub(super) fn has_inner(&self) -> bool {
        self.class.has_inner
    }
    /// 128 - n - o; only n = o = 0 has 128, and no EA bits to shift.
    #[inline]
    fn ea_shift(&self) -> u32 {
        (128 - u32::from(self.class.n) - u32::from(self.class.o)).min(127)
    }
    /// q.
    #[inline]
    fn ea_psid_len(&self) -> u32 {
        (u32::from(self.class.o) + u32::from(self.class.r)).saturating_sub(32)
    }
    /// q ones: the PSID's bits in the EA bits.
    #[inline]
    fn ea_psid_mask(&self) -> u16 {
        ((1u32 << self.ea_psid_len()) - 1) as u16
    }
    /// The bits of IPv4 behind r + o.
    #[inline]
    fn host_len(&self) -> u32 {
        32u32.saturating_sub(u32::from(self.class.o) + u32::from(self.class.r))
    }
    /// Whether the Rule IPv6 prefix covers the address.
    #[inline]
    pub(super) fn covers_ipv6(&self, addr: Ipv6Addr) -> bool {
        (u128::from(addr) ^ self.ipv6) & mask128(self.class.n) == 0
    }
    /// Whether the Rule IPv4 prefix covers the address.
    #[inline]
    pub(super) fn covers_ipv4(&self, addr: Ipv4Addr) -> bool {
        (u32::from(addr) ^ self.ipv4) & mask32(self.class.r) == 0
    }
    /// Whether the IPv4 address is shared, so that a port is needed to find its CE.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.class.params.k() > 0
    }
    /// Whether it is a Forwarding Mapping Rule.
    #[inline]
    pub fn is_forwarding(&self) -> bool {
        self.class.forwarding
    }
    /// Port parameters of a shared address.
    #[inline]
    pub fn port_params(&self) -> Option<PortParams> {
        self.is_shared().then_some(self.class.params)
    }
    /// The PSID that (IPv4, port) has under this rule: 0 where the address is not shared, `None` for a port that no
    /// PSID owns. A rule with an explicit PSID answers with the port's PSID, be it the rule's or another's.
    #[inline]
    pub fn psid_of(&self, port: u16) -> Option<Psid> {
        self.class.params.psid_of(port)
    }
    /// Whether CEs of this rule have this PSID: every PSID of k bits where the EA bits carry it, else the explicit one.
    #[inline]
    pub(super) fn owns_psid(&self, psid: Psid) -> bool {
        psid.0 & !self.ea_psid_mask() == self.class.explicit_psid.0
    }
    /// The ports of a PSID: all of them where the address is not shared, `None` where the PSID is none of the rule's.
    pub fn port_set(&self, psid: Psid) -> Option<PortSet> {
        if self.owns_psid(psid) { self.class.params.port_set(psid) } else { None }
    }
    /// IPv4 address and PSID (0 where not shared) that this IPv6 address of the rule stands for.
    #[inline]
    pub fn decompose(&self, addr: Ipv6Addr) -> (Ipv4Addr, Psid) {
        let addr = u128::from(addr);
        let ea = (addr >> self.ea_shift()) as u64 & ((1 << self.class.o) - 1);
        let suffix = ((ea >> self.ea_psid_len()) << self.host_len()) as u32;
        let host = (addr >> 16) as u32 & ((1u64 << self.host_len()) - 1) as u32;
        ((self.ipv4 | suffix | host).into(), Psid(ea as u16 & self.ea_psid_mask() | self.class.explicit_psid.0))
    }
    /// The MAP address of this IPv4 address of the rule and PSID. A rule whose PSID is explicit, or that has none,
    /// does not look at `psid`.
    #[inline]
    pub fn compose(&self, ipv4: Ipv4Addr, psid: Psid) -> MapAddress {
        let ipv4 = u32::from(ipv4);
        let ea_psid = psid.0 & self.ea_psid_mask();
        let suffix = u64::from(ipv4 & !mask32(self.class.r)) >> self.host_len();
        let ea = u128::from((suffix << self.ea_psid_len()) | u64::from(ea_psid)) << self.ea_shift();
        let interface = u64::from(ipv4) << 16 | u64::from(ea_psid | self.class.explicit_psid.0);
        // What is left of the interface id behind n + o.
        let behind = ((1u128 << self.ea_shift()) - 1) as u64;
        MapAddress((self.ipv6 | ea | u128::from(interface & behind)).into())
    }
    /// The first n + o bits of the MAP address: the shortest End-user IPv6 prefix that this CE can have.
    pub fn end_user_prefix(&self, ipv4: Ipv4Addr, psid: Psid) -> Ipv6Prefix {
        Ipv6Prefix::truncating(self.compose(ipv4, psid).ipv6(), self.class.n + self.class.o)
    }
}
