//! One flow as packets tell it.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::napt::{FlowView, Inside, NaptParams, Protocol, Remote};

/// RFC 4787 REQ-5 aside, what this NAPT promises: a half-open connection gives way after this, a closed one after that.
const UNANSWERED: Duration = Duration::from_secs(10);
const CLOSED: Duration = Duration::from_secs(1);
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// Everybody, of an echo identifier.
pub(super) const ANYBODY: Remote = Remote { addr: Ipv4Addr::UNSPECIFIED, port: 0 };

pub(super) struct Flow {
    pub protocol: Protocol,
    pub inside: Inside,
    pub remote: Remote,
    pub port: u16,
    /// When its first packet left.
    pub born: Duration,
    /// When it was refreshed for certain.
    pub last: Duration,
    pub answered: bool,
    /// Home, Internet.
    pub acks: [bool; 2],
    pub fins: [bool; 2],
    /// When the later FIN passed.
    pub closed: Option<Duration>,
    /// An RST passed, or something that has more than one reading.
    pub unsure: bool,
}

impl Flow {
    pub fn is(&self, view: &FlowView<Inside>) -> bool {
        let remote = view.remote.unwrap_or(ANYBODY);
        (self.protocol, self.inside, self.remote) == (view.protocol, view.inside, remote)
    }

    pub fn is_established(&self) -> bool {
        self.acks == [true; 2] && self.closed.is_none()
    }

    pub fn idle(&self, params: &NaptParams) -> Duration {
        let timers = params.timers;
        match self.protocol {
            Protocol::Udp => timers.udp,
            Protocol::Icmp => timers.icmp,
            Protocol::Tcp if self.closed.is_some() => timers.tcp_closing,
            Protocol::Tcp if self.is_established() => timers.tcp_established,
            Protocol::Tcp => timers.tcp_opening,
        }
    }

    /// Until when nothing but its operator ends it; `full`: flows had to end for want of room.
    pub fn safe_until(&self, params: &NaptParams, full: bool) -> Duration {
        if self.unsure {
            return Duration::ZERO;
        }
        let expiry = self.last + self.idle(params);
        let way = match self.protocol {
            Protocol::Tcp if self.closed.is_some() => self.closed.map(|at| at + CLOSED),
            Protocol::Tcp if !self.is_established() => Some(self.born + UNANSWERED),
            Protocol::Udp if full && !self.answered => Some(self.born + UNANSWERED),
            _ => None,
        };
        way.map_or(expiry, |way| way.min(expiry))
    }

    pub fn sends(&mut self, side: usize, flags: Option<u8>, now: Duration) {
        if self.protocol != Protocol::Tcp {
            self.answered |= side == 1;
            if side == 0 {
                self.last = now;
            }
            return;
        }
        let Some(flags) = flags else { return self.unsure = true };
        if flags & RST != 0 || flags & SYN != 0 && flags & FIN != 0 {
            self.unsure = true;
            return;
        }
        if flags & SYN != 0 && side == 0 {
            self.fins = [false; 2];
            if self.closed.take().is_some() {
                (self.acks, self.born) = ([false; 2], now);
            }
        }
        self.acks[side] |= flags & ACK != 0;
        self.fins[side] |= flags & FIN != 0;
        if self.fins == [true; 2] && self.closed.is_none() {
            self.closed = Some(now);
            self.last = now;
        }
        if side == 0 || self.is_established() {
            self.last = now;
        }
    }
}
