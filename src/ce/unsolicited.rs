//! SYNs that nobody in the home has asked for: answered late or not at all (RFC 5382 REQ-4).
//!
//! Both ends may open a connection at once, and the home's SYN be the later one: a refusal at once would end it.

use std::collections::VecDeque;
use std::time::Duration;

use super::Ce;
use crate::napt::{Filter, Outside, Protocol, Refusal, Remote};
use crate::reply::Quote;
use crate::siit::V6View;
use crate::verdict::Direction;
use crate::wire::PacketBuf;
use crate::wire::transport::Transport;

/// How long the home has to send a SYN of its own.
const PATIENCE: Duration = Duration::from_secs(6);
/// SYNs that wait at a time, 17 kB together.
const ROOM: usize = 64;

const SYN_OF_SYN_ACK_RST: (u8, u8) = (0x02, 0x16);

/// A SYN to a port where nobody was.
struct Waiting {
    since: Duration,
    outside: Outside,
    remote: Remote,
    quote: Quote,
}

/// Those that wait, the longest first. One more than fit is dropped as if it had been refused an answer.
pub(super) struct Unsolicited {
    waiting: VecDeque<Waiting>,
}

impl Unsolicited {
    pub(super) fn new() -> Unsolicited {
        Unsolicited { waiting: VecDeque::with_capacity(ROOM) }
    }

    /// The next end of a wait.
    pub(super) fn next(&self) -> Option<Duration> {
        self.waiting.front().map(|syn| syn.since + PATIENCE)
    }

    /// Answers nobody.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Ce {
    /// A TCP packet to a port where nobody is has been refused: its sender may be told later, where anybody may send to
    /// a port that is somebody's. With a stricter filter silence is the policy (REQ-4a).
    #[cold]
    pub(super) fn wait_for_the_home(&mut self, packet: &PacketBuf, ends: (Outside, Remote), now: Duration) {
        let (outside, remote) = ends;
        let waiting = &mut self.unsolicited.waiting;
        let open =
            self.core.napt.as_ref().is_some_and(|napt| napt.filter(Protocol::Tcp) == Filter::EndpointIndependent);
        if !open || waiting.len() >= ROOM {
            return;
        }
        let Ok(V6View { transport: Transport::Tcp { flags, .. }, .. }) = V6View::parse(packet) else { return };
        let (syn, mask) = SYN_OF_SYN_ACK_RST;
        // Sent again, it still waits for the first one's time.
        let known = waiting.iter().any(|syn| (syn.outside, syn.remote) == (outside, remote));
        if flags & mask != syn || known {
            return;
        }
        if let Some(quote) = self.desk.quote(packet) {
            waiting.push_back(Waiting { since: now, outside, remote, quote });
        }
    }

    /// Answers the first one that has waited long enough and would still find nobody, and forgets those before it.
    pub(super) fn answer_unsolicited(&mut self, now: Duration) {
        while self.unsolicited.next().is_some_and(|at| at <= now)
            && let Some(Waiting { outside, remote, quote, .. }) = self.unsolicited.waiting.pop_front()
        {
            let Some(napt) = &self.core.napt else { continue };
            let open = napt.filter(Protocol::Tcp) == Filter::EndpointIndependent;
            let found = napt.propose_inbound(Protocol::Tcp, outside, remote, now);
            if open
                && found == Err(Refusal::NoMapping)
                && self.desk.tell_port_unreachable(Direction::V6ToV4, &quote, now)
            {
                return;
            }
        }
    }
}
