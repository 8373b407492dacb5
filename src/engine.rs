//! The core's one face: bytes and a `now` in, a verdict out.

use std::sync::Arc;
use std::time::Duration;

use crate::stats::Counters;
use crate::verdict::Verdict;
use crate::wire::PacketBuf;

/// What a packet from `poll_transmit` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitKind {
    /// A further output of an input: a fragment, a segment, a packet released from hold.
    Packet,
    /// An ICMP error of our own.
    Reply,
}

/// A translator without I/O. Time is a `Duration` since an epoch of the caller's choice and never goes back.
pub trait Engine: Send {
    /// Translates one packet in place. On `Forward` the buffer is the first output; on `Drop` it is what it was.
    fn handle(&mut self, packet: &mut PacketBuf, now: Duration) -> Verdict;

    /// Every further packet that the last calls made; to be asked until `None`.
    fn poll_transmit(&mut self) -> Option<(TransmitKind, &mut PacketBuf)>;

    /// When `handle_timeout` is next worth calling.
    fn poll_timeout(&self) -> Option<Duration>;

    /// Ends what has expired by `now`. Bounded work.
    fn handle_timeout(&mut self, now: Duration);

    /// The counters of this engine; readable from any thread.
    fn counters(&self) -> Arc<Counters>;

    /// The name of the rule by which the last packet was mapped, for tools.
    fn last_rule(&self) -> Option<&str>;
}
