//! `pcp`: ports for hosts of the home that ask for them.
use super::PcpConfig;
use super::daemon::host_ipv4;
use super::decode::{self, Fields, Slot};
use super::error::{Path, Reporter};
use super::raw::Value;
use crate::pcp::PcpParams;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Most addresses of `pcp.listen`.
const MOST: usize = 16;
/// Longest lifetime, in seconds: a week.
const MAX_LIFETIME: u32 = 604_800;

pub(super) fn pcp(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<PcpConfig> {
    const LIFETIME: &str = "RFC 6887 §15";
    let fields = Fields::of(slot, decode::PCP, "a mapping with the key `listen`", r)?;
    let default = PcpParams::default();
    let listen = fields.require("listen", r, "a list of the CE's own LAN addresses", "RFC 6887 §8.1", listen);
    let seconds = || decode::integer(1..=MAX_LIFETIME, " seconds", LIFETIME);
    let lifetime = |value: Option<u32>, default| value.map_or(default, |s| Duration::from_secs(s.into()));
    let params = PcpParams {
        min_lifetime: lifetime(fields.get("min-lifetime", r, seconds()), default.min_lifetime),
        max_lifetime: lifetime(fields.get("max-lifetime", r, seconds()), default.max_lifetime),
        per_host: fields.get("per-host", r, decode::integer(1..=4096, "", "RFC 6887 §7.4")).unwrap_or(default.per_host),
        nat_pmp: fields.get("nat-pmp", r, decode::boolean).unwrap_or(default.nat_pmp),
    };
    if params.max_lifetime < params.min_lifetime {
        let [least, most] = [params.min_lifetime, params.max_lifetime].map(|time| time.as_secs());
        let message = format!("`{most}` is below `min-lifetime` ({least}): expected at least as much");
        fields.error("max-lifetime", r, message, LIFETIME);
    }
    Some(PcpConfig { listen: listen?, params })
}

fn listen(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Vec<Ipv4Addr>> {
    let what = format!("a list of 1 to {MOST} of the CE's own LAN addresses");
    let items = match &slot.node.value {
        Value::Seq(items) if (1..=MOST).contains(&items.len()) => items,
        Value::Seq(items) => {
            slot.error(r, format!("has {} addresses: expected {what}", items.len()), "");
            return None;
        }
        _ => {
            slot.expected(r, &what, "");
            return None;
        }
    };
    let mut addrs = Vec::new();
    for (n, node) in items.iter().enumerate() {
        let item = Slot { node, path: Path::Index(&slot.path, n) };
        let Some(addr) = decode::ipv4(item.again(), r).and_then(|addr| host_ipv4(&item, addr, r)) else { continue };
        if addrs.contains(&addr) {
            item.error(r, format!("`{addr}` stands here twice"), "");
        }
        addrs.push(addr);
    }
    Some(addrs)
}
