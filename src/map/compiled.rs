//! Rules as the packet path uses them: arithmetic, and the room they take.

use super::prefix::{mask32, mask128};
use super::{Ipv6Prefix, MapAddress, PortParams, PortSet, Psid, Rule};
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

/// What many rules have in common, all but their prefixes' bits: shifts and masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// n ones in front.
    ipv6_mask: u128,
    /// The bits of the interface id behind n + o.
    interface_mask: u64,
    /// o ones.
    ea_mask: u64,
    /// The 32 - r bits behind the Rule IPv4 prefix.
    suffix_mask: u32,
    /// The 32 - r - o bits that the EA bits lack.
    host_mask: u32,
    /// Index among the table's DMRs.
    dmr: u32,
    /// q ones: the PSID's bits in the EA bits.
    ea_psid_mask: u16,
    /// 0 where the EA bits carry the PSID, or there is none.
    explicit_psid: u16,
    /// a = k = 0 where the address is not shared.
    params: PortParams,
    /// 128 - n - o.
    ea_shift: u8,
    /// 32 - r - o, or 0.
    host_len: u8,
    /// q.
    ea_psid_len: u8,
    /// n + o.
    end_user_len: u8,
    flags: u8,
}

/// It is an FMR.
const FORWARDING: u8 = 1;
/// Other rules have longer IPv4 prefixes inside this rule's.
const HAS_INNER: u8 = 2;

const _: () = assert!(size_of::<Class>() <= 80);

/// Compiled rules in the order of their ids: 16 octets each, and what they have in common apart.
#[derive(Debug)]
pub(super) struct CompiledRules {
    slots: Vec<Slot>,
    classes: Vec<Class>,
    /// The low halves of the Rule IPv6 prefixes; empty where all are 0, as prefixes up to /64 have it.
    lows: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
struct Slot {
    /// The high half of the Rule IPv6 prefix.
    high: u64,
    ipv4: u32,
    class: u32,
}

const _: () = assert!(size_of::<Slot>() == 16);

impl CompiledRules {
    pub(super) fn new(rules: impl IntoIterator<Item = CompiledRule>) -> Self {
        let mut classes = Vec::new();
        let mut places: HashMap<Class, u32> = HashMap::new();
        let slot = |rule: CompiledRule| {
            let place = *places.entry(rule.class).or_insert_with(|| {
                classes.push(rule.class);
                classes.len() as u32 - 1
            });
            (Slot { high: (rule.ipv6 >> 64) as u64, ipv4: rule.ipv4, class: place }, rule.ipv6 as u64)
        };
        let (slots, mut lows): (Vec<Slot>, Vec<u64>) = rules.into_iter().map(slot).unzip();
        if lows.iter().all(|&low| low == 0) {
            lows = Vec::new();
        }
        CompiledRules { slots, classes, lows }
    }

    #[inline(always)]
    pub(super) fn get(&self, id: u32) -> CompiledRule {
        let slot = self.slots[id as usize];
        let low = self.lows.get(id as usize).copied().unwrap_or(0);
        let class = self.classes[slot.class as usize];
        CompiledRule { ipv6: u128::from(slot.high) << 64 | u128::from(low), ipv4: slot.ipv4, class }
    }

    /// Octets on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.classes.capacity() * size_of::<Class>()
            + self.lows.capacity() * 8
    }
}

impl CompiledRule {
    pub(super) fn new(rule: &Rule) -> Self {
        let spec = rule.spec();
        let (n, r, o) = (spec.rule_ipv6_prefix.prefix_len(), spec.rule_ipv4_prefix.prefix_len(), spec.ea_len);
        let q = o - rule.ipv4_suffix_len();
        let host_len = 32 - rule.ce_ipv4_prefix_len();
        let class = Class {
            ipv6_mask: mask128(n),
            interface_mask: !mask128(n + o) as u64,
            ea_mask: (1 << o) - 1,
            suffix_mask: !mask32(r),
            host_mask: !mask32(32 - host_len),
            dmr: 0,
            ea_psid_mask: ((1u32 << q) - 1) as u16,
            explicit_psid: rule.explicit_psid().unwrap_or(Psid(0)).0,
            params: rule.port_params().unwrap_or(PortParams::UNSHARED),
            // Only n = o = 0 has 128, and no EA bits to shift.
            ea_shift: (128 - n - o).min(127),
            host_len,
            ea_psid_len: q,
            end_user_len: n + o,
            flags: if spec.forwarding { FORWARDING } else { 0 },
        };
        CompiledRule { ipv6: spec.rule_ipv6_prefix.addr().into(), ipv4: spec.rule_ipv4_prefix.addr().into(), class }
    }
    /// The same rule in a table.
    pub(super) fn placed(mut self, dmr: u32, has_inner: bool) -> Self {
        self.class.dmr = dmr;
        self.class.flags |= if has_inner { HAS_INNER } else { 0 };
        self
    }
    /// Index among the table's DMRs.
    #[inline(always)]
    pub(super) fn dmr(&self) -> u32 {
        self.class.dmr
    }
    /// r.
    pub(super) fn ipv4_prefix_len(&self) -> u8 {
        self.class.suffix_mask.leading_zeros() as u8
    }
    /// Whether other rules have longer IPv4 prefixes inside this rule's.
    #[inline(always)]
    pub(super) fn has_inner(&self) -> bool {
        self.class.flags & HAS_INNER != 0
    }
    /// Whether the Rule IPv6 prefix covers the address.
    #[inline(always)]
    pub(super) fn covers_ipv6(&self, addr: Ipv6Addr) -> bool {
        (u128::from(addr) ^ self.ipv6) & self.class.ipv6_mask == 0
    }
    /// Whether the Rule IPv4 prefix covers the address.
    #[inline(always)]
    pub(super) fn covers_ipv4(&self, addr: Ipv4Addr) -> bool {
        (u32::from(addr) ^ self.ipv4) & !self.class.suffix_mask == 0
    }
    /// Whether the IPv4 address is shared, so that a port is needed to find its CE.
    #[inline(always)]
    pub fn is_shared(&self) -> bool {
        self.class.params.k() > 0
    }
    /// Whether it is a Forwarding Mapping Rule.
    #[inline(always)]
    pub fn is_forwarding(&self) -> bool {
        self.class.flags & FORWARDING != 0
    }
    /// Port parameters of a shared address.
    #[inline(always)]
    pub fn port_params(&self) -> Option<PortParams> {
        self.is_shared().then_some(self.class.params)
    }
    /// The PSID that (IPv4, port) has under this rule: 0 where the address is not shared, `None` for a port that no
    /// PSID owns. A rule with an explicit PSID answers with the port's PSID, be it the rule's or another's.
    #[inline(always)]
    pub fn psid_of(&self, port: u16) -> Option<Psid> {
        self.class.params.psid_of(port)
    }
    /// Whether CEs of this rule have this PSID: every PSID of k bits where the EA bits carry it, else the explicit one.
    #[inline(always)]
    pub(super) fn owns_psid(&self, psid: Psid) -> bool {
        psid.0 & !self.class.ea_psid_mask == self.class.explicit_psid
    }
    /// The ports of a PSID: all of them where the address is not shared, `None` where the PSID is none of the rule's.
    pub fn port_set(&self, psid: Psid) -> Option<PortSet> {
        if self.owns_psid(psid) { self.class.params.port_set(psid) } else { None }
    }
    /// IPv4 address and PSID (0 where not shared) that this IPv6 address of the rule stands for.
    #[inline(always)]
    pub fn decompose(&self, addr: Ipv6Addr) -> (Ipv4Addr, Psid) {
        let (addr, class) = (u128::from(addr), &self.class);
        let ea = (addr >> class.ea_shift) as u64 & class.ea_mask;
        let suffix = ((ea >> class.ea_psid_len) << class.host_len) as u32;
        let ipv4 = self.ipv4 | suffix | ((addr >> 16) as u32 & class.host_mask);
        (ipv4.into(), Psid(ea as u16 & class.ea_psid_mask | class.explicit_psid))
    }
    /// The MAP address of this IPv4 address of the rule and PSID. A rule whose PSID is explicit, or that has none,
    /// does not look at `psid`.
    #[inline(always)]
    pub fn compose(&self, ipv4: Ipv4Addr, psid: Psid) -> MapAddress {
        let (ipv4, class) = (u32::from(ipv4), &self.class);
        let ea_psid = psid.0 & class.ea_psid_mask;
        let suffix = u64::from(ipv4 & class.suffix_mask) >> class.host_len;
        let ea = u128::from((suffix << class.ea_psid_len) | u64::from(ea_psid)) << class.ea_shift;
        let interface = (u64::from(ipv4) << 16 | u64::from(ea_psid | class.explicit_psid)) & class.interface_mask;
        MapAddress((self.ipv6 | ea | u128::from(interface)).into())
    }
    /// The first n + o bits of the MAP address: the shortest End-user IPv6 prefix that this CE can have.
    pub fn end_user_prefix(&self, ipv4: Ipv4Addr, psid: Psid) -> Ipv6Prefix {
        Ipv6Prefix::truncating(self.compose(ipv4, psid).ipv6(), self.class.end_user_len)
    }
}
