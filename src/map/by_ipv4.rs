//! Longest match by IPv4, then by PSID where rules share a prefix (RFC 7599 §12.1).

use super::search::{NONE, Tree32, flatten};
use super::{Ipv4Prefix, PortParams, Rule};
use std::net::Ipv4Addr;

/// Marks a value of the tree as an index into `groups`.
const GROUP: u32 = 1 << 31;

/// Rule IPv4 prefixes, and the rules they lead to.
#[derive(Debug)]
pub(super) struct Ipv4Map {
    tree: Tree32,
    groups: Vec<Group>,
    /// Rules by PSID, `NONE` where there is none; a run of 2^k for each dense group.
    dense: Vec<u32>,
    /// PSIDs in ascending order and their rules; a run for each sparse group.
    sparse: Vec<(u16, u32)>,
}

/// The rules of one IPv4 prefix, each with a PSID of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    prefix: Ipv4Prefix,
    params: PortParams,
    dense: bool,
    start: u32,
    len: u32,
}

/// Where an IPv4 address leads.
pub(super) enum Place<'a> {
    Nowhere,
    /// To a rule, if that covers the address: the caller has to ask.
    Rule(u32),
    /// To rules between which the port decides.
    Group(&'a Group),
}

impl Ipv4Map {
    /// Of rules with the same prefix each has an explicit PSID of its own and all have the same port parameters.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let prefix = |&rule: &u32| rules[rule as usize].spec().rule_ipv4_prefix;
        let psid = |&rule: &u32| rules[rule as usize].explicit_psid().map_or(0, |psid| psid.0);
        let mut order: Vec<u32> = (0..rules.len() as u32).collect();
        // By address, then the shorter first: outer before inner.
        order.sort_unstable_by_key(|rule| (prefix(rule), psid(rule)));
        let mut map =
            Ipv4Map { tree: Tree32::new(vec![(0, NONE)]), groups: Vec::new(), dense: Vec::new(), sparse: Vec::new() };
        let mut intervals = Vec::new();
        for group in order.chunk_by(|a, b| prefix(a) == prefix(b)) {
            let prefix = prefix(&group[0]);
            let value = match rules[group[0] as usize].port_params() {
                Some(params) if group.len() > 1 => GROUP | map.add(prefix, params, group, psid),
                _ => group[0],
            };
            intervals.push((prefix.addr().into(), prefix.last_addr().into(), value));
        }
        map.tree = Tree32::new(flatten(NONE, intervals));
        map
    }

    fn add(&mut self, prefix: Ipv4Prefix, params: PortParams, group: &[u32], psid: impl Fn(&u32) -> u16) -> u32 {
        let slots = 1usize << params.k();
        let dense = slots <= 4 * group.len();
        let (start, len);
        if dense {
            start = self.dense.len();
            len = slots;
            self.dense.resize(start + slots, NONE);
            for rule in group {
                self.dense[start + usize::from(psid(rule))] = *rule;
            }
        } else {
            start = self.sparse.len();
            len = group.len();
            self.sparse.extend(group.iter().map(|rule| (psid(rule), *rule)));
        }
        self.groups.push(Group { prefix, params, dense, start: start as u32, len: len as u32 });
        self.groups.len() as u32 - 1
    }

    #[inline(always)]
    pub(super) fn get(&self, ipv4: Ipv4Addr) -> Place<'_> {
        match self.tree.get(ipv4.into()) {
            NONE => Place::Nowhere,
            value if value & GROUP == 0 => Place::Rule(value),
            value => {
                let group = &self.groups[(value & !GROUP) as usize];
                if group.prefix.contains(ipv4) { Place::Group(group) } else { Place::Nowhere }
            }
        }
    }

    /// The rule of a PSID in a group.
    #[inline(always)]
    pub(super) fn in_group(&self, group: &Group, psid: u16) -> Option<u32> {
        let (start, len) = (group.start as usize, group.len as usize);
        if group.dense {
            let slot = self.dense[start..start + len].get(usize::from(psid)).copied();
            return slot.filter(|&rule| rule != NONE);
        }
        let run = &self.sparse[start..start + len];
        run.binary_search_by_key(&psid, |&(psid, _)| psid).ok().map(|place| run[place].1)
    }

    /// Octets on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.tree.heap_size()
            + self.groups.capacity() * size_of::<Group>()
            + self.dense.capacity() * 4
            + self.sparse.capacity() * size_of::<(u16, u32)>()
    }
}

impl Group {
    /// Length of the IPv4 prefix that its rules have.
    #[inline(always)]
    pub(super) fn prefix_len(&self) -> u8 {
        self.prefix.prefix_len()
    }
    /// Port parameters that all its rules have.
    #[inline(always)]
    pub(super) fn params(&self) -> PortParams {
        self.params
    }
}
