//! A server for hosts of the home that ask for ports: PCP (RFC 6887) and NAT-PMP (RFC 6886), without sockets.
//!
//! Both come to port 5351; the first octet says which. An answer goes back to whoever asked, from the address that was
//! asked; announcements go to 224.0.0.1, port 5350.

mod nat_pmp;
mod options;
mod v2;

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::napt::{Inside, Napt};

/// Where requests go to (RFC 6887 §19.1).
pub const SERVER_PORT: u16 = 5351;
/// Where announcements go to (RFC 6887 §14.1, RFC 6886 §3.2.1).
pub const CLIENT_PORT: u16 = 5350;
/// The longest PCP message, in octets (RFC 6887 §7).
pub const MAX_MESSAGE: usize = 1100;

/// How often a change is announced (RFC 6887 §14.1.3, RFC 6886 §3.2.1).
const ANNOUNCEMENTS: u32 = 10;
/// Between the first two of them; it doubles.
const INTERVAL: Duration = Duration::from_millis(250);

/// What a server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcpParams {
    /// Shortest lifetime of a PCP mapping, at least 1 s; default 120 s (RFC 6887 §15).
    pub min_lifetime: Duration,
    /// Longest lifetime of a mapping, not below the shortest; default 86,400 s (RFC 6887 §15).
    pub max_lifetime: Duration,
    /// Mappings that one host may have at a time; default 64.
    pub per_host: u32,
    /// Whether NAT-PMP is spoken as well; default true.
    pub nat_pmp: bool,
}

impl Default for PcpParams {
    fn default() -> Self {
        PcpParams {
            min_lifetime: Duration::from_secs(120),
            max_lifetime: Duration::from_secs(86_400),
            per_host: 64,
            nat_pmp: true,
        }
    }
}

/// A server. The mappings are the NAPT's; what it has of its own is when they began.
#[derive(Clone, Debug)]
pub struct Pcp {
    params: PcpParams,
    /// Epoch time 0 (RFC 6887 §8.5).
    epoch: Duration,
    /// The outside address that has been announced, and how many mappings had been lost by then; `None` where there is
    /// none yet.
    state: Option<(Ipv4Addr, u64)>,
    /// Announcements made of it, and when the next is due.
    announced: u32,
    next: Duration,
}

impl Pcp {
    /// A server that has just lost all mappings, if there were any.
    pub fn new(params: PcpParams, now: Duration) -> Pcp {
        Pcp { params, epoch: now, state: None, announced: 0, next: now }
    }

    /// The answer to a datagram of a host of the home; `None` where it gets none. `napt` is `None` while the CE has no
    /// outside address.
    pub fn answer(
        &mut self,
        napt: Option<&mut Napt<Inside>>,
        from: Ipv4Addr,
        datagram: &[u8],
        now: Duration,
    ) -> Option<Vec<u8>> {
        self.follow(napt.as_deref(), now);
        let [version, opcode, ..] = *datagram else { return None };
        if opcode & v2::RESPONSE != 0 || !is_client(from) || self.state.is_some_and(|(addr, _)| addr == from) {
            return None;
        }
        let at = At { params: &self.params, epoch: self.seconds(now), from, now };
        match version {
            nat_pmp::VERSION if self.params.nat_pmp => nat_pmp::answer(&at, napt, datagram),
            _ => Some(v2::answer(&at, napt, datagram)),
        }
    }

    /// When `announce` is next worth calling.
    pub fn poll_timeout(&self) -> Option<Duration> {
        (self.state.is_some() && self.announced < ANNOUNCEMENTS).then_some(self.next)
    }

    /// What to send to 224.0.0.1, port 5350 now: nothing, or a datagram for each protocol. Begins anew where the outside
    /// address is another one or mappings were lost, and so does the epoch (RFC 6887 §8.5, §11.5).
    pub fn announce(&mut self, napt: Option<&Napt<Inside>>, now: Duration) -> Vec<Vec<u8>> {
        self.follow(napt, now);
        let Some((addr, _)) = self.state.filter(|_| self.poll_timeout().is_some_and(|at| at <= now)) else {
            return Vec::new();
        };
        self.next = now + INTERVAL * (1 << self.announced);
        self.announced += 1;
        let mut datagrams = vec![v2::announcement(self.seconds(now))];
        if self.params.nat_pmp {
            datagrams.push(nat_pmp::announcement(self.seconds(now), addr));
        }
        datagrams
    }

    fn follow(&mut self, napt: Option<&Napt<Inside>>, now: Duration) {
        let state = napt.map(|napt| (napt.addr(), napt.losses()));
        if self.state == state {
            return;
        }
        if self.state.is_some() {
            self.epoch = now;
        }
        *self = Pcp { state, announced: 0, next: now, ..*self };
    }

    fn seconds(&self, now: Duration) -> u32 {
        u32::try_from(now.saturating_sub(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }
}

/// What a request finds.
struct At<'a> {
    params: &'a PcpParams,
    epoch: u32,
    from: Ipv4Addr,
    now: Duration,
}

/// Whether an address is a host's.
fn is_client(addr: Ipv4Addr) -> bool {
    !matches!(addr.octets()[0], 0 | 127 | 224..)
}
