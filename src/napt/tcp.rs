//! As much of TCP as decides which idle time a flow has (RFC 5382 REQ-5, RFC 7857 §2), and which reset counts.
use super::{Segment, flow::Idle};

/// What has been seen in either direction. A flow may carry one connection after another; an idle time that is
/// too long for one of them costs a port for a while, one too short would cut another off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpState(u16);

const OUT_ACK: u16 = 1;
const IN_ACK: u16 = 2;
const BOTH_ACKS: u16 = OUT_ACK | IN_ACK;
const OUT_FIN: u16 = 4;
const IN_FIN: u16 = 8;
const BOTH_FINS: u16 = OUT_FIN | IN_FIN;
const RESET: u16 = 16;
/// Which marks are known: `END << side`, `ACKED << side`.
const END: u16 = 32;
const ACKED: u16 = 128;
const MARKS: u16 = 3 * (END | ACKED);

const HOME: usize = 0;
const INTERNET: usize = 1;

/// How far beyond what has been seen a sequence number may lie: what an unscaled window lets a sender have on its way
/// that this NAPT has not seen.
const AHEAD: u32 = 65_535;

/// Sequence numbers seen of both sides: home, Internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks([Mark; 2]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    /// What follows the last octet that this side has sent.
    end: u32,
    /// What the other side expects next.
    acked: u32,
}

impl TcpState {
    /// UDP that has been answered.
    pub(super) const ANSWERED: TcpState = TcpState(IN_ACK);

    /// For a file.
    pub(super) fn bits(self) -> u32 {
        self.0.into()
    }

    /// The inverse of `bits`; `None` for others than there are.
    pub(super) fn from_bits(bits: u32) -> Option<TcpState> {
        const ALL: u16 = BOTH_ACKS | BOTH_FINS | RESET | MARKS;
        u16::try_from(bits).ok().filter(|bits| bits & !ALL == 0).map(TcpState)
    }

    /// Both ends have acknowledged something, and neither an RST nor both FINs have passed since.
    #[inline]
    pub(super) fn is_established(self) -> bool {
        self.0 & BOTH_ACKS == BOTH_ACKS && !self.is_closing()
    }

    /// Both FINs, or an RST that counts.
    #[inline]
    pub(super) fn is_closing(self) -> bool {
        self.0 & RESET != 0 || self.0 & BOTH_FINS == BOTH_FINS
    }

    #[inline]
    pub(super) fn idle(self) -> Idle {
        if self.is_closing() {
            Idle::Closing
        } else if self.is_established() {
            Idle::Established
        } else {
            Idle::Short
        }
    }

    /// The state after a segment from the home.
    #[inline]
    pub(super) fn outbound(self, marks: &mut Marks, segment: &Segment) -> TcpState {
        let flags = segment.flags;
        if flags.rst {
            return if self.is_credible_reset(marks, HOME, segment) { TcpState(self.0 | RESET) } else { self };
        }
        let known = marks.note(self.0 & MARKS, HOME, segment);
        let seen = self.0 & !MARKS | known;
        if flags.syn {
            // A new connection: an old one of these endpoints no longer counts.
            let kept = if self.is_closing() { known } else { seen & !BOTH_FINS };
            return TcpState(kept | if flags.ack { OUT_ACK } else { 0 });
        }
        let mut next = seen;
        if flags.ack {
            // Whoever goes on after an RST shows that it was forged or another connection's (RFC 7857 §2.2).
            next = next & !RESET | OUT_ACK;
        }
        if flags.fin {
            next |= OUT_FIN;
        }
        TcpState(next)
    }

    /// The state after a segment from the Internet. None of them reopens a flow that is closing.
    #[inline]
    pub(super) fn inbound(self, marks: &mut Marks, segment: &Segment) -> TcpState {
        let flags = segment.flags;
        if flags.rst {
            return if self.is_credible_reset(marks, INTERNET, segment) { TcpState(self.0 | RESET) } else { self };
        }
        let mut next = self.0 & !MARKS | marks.note(self.0 & MARKS, INTERNET, segment);
        if flags.ack {
            next |= IN_ACK;
        }
        if flags.fin {
            next |= IN_FIN;
        }
        TcpState(next)
    }

    /// RFC 7857 §2.2: a reset counts where its numbers fit what has been seen. It is translated in any case.
    fn is_credible_reset(self, marks: &Marks, side: usize, segment: &Segment) -> bool {
        let mark = &marks.0[side];
        let known = |what: u16, side: usize| self.0 & what << side != 0;
        if known(ACKED, side) {
            let end = if known(END, side) { mark.end } else { mark.acked };
            return is_within(segment.seq, mark.acked, end);
        }
        if known(END, side) {
            return is_within(segment.seq, mark.end, mark.end);
        }
        // Nothing of this side yet: a refusal, known by the SYN that it acknowledges (RFC 9293 §3.5.3).
        match known(END, 1 - side) {
            true => segment.flags.ack && segment.ack == marks.0[1 - side].end,
            false => side == HOME,
        }
    }
}

impl Marks {
    /// For a file.
    pub(super) fn numbers(&self) -> [u32; 4] {
        let [home, internet] = self.0;
        [home.end, home.acked, internet.end, internet.acked]
    }

    pub(super) fn from_numbers([end, acked, other_end, other_acked]: [u32; 4]) -> Marks {
        Marks([Mark { end, acked }, Mark { end: other_end, acked: other_acked }])
    }

    /// Takes the numbers of a segment; which marks are then known.
    #[inline]
    fn note(&mut self, mut known: u16, side: usize, segment: &Segment) -> u16 {
        let flags = segment.flags;
        if flags.syn && !flags.ack && side == HOME {
            known = 0;
        }
        let of = |what: u16, side: usize| what << side;
        let end = segment.seq.wrapping_add(segment.len).wrapping_add(u32::from(flags.syn) + u32::from(flags.fin));
        let mark = &mut self.0[side];
        if flags.syn || known & of(END, side) == 0 {
            mark.end = end;
        } else {
            let from = if known & of(ACKED, side) != 0 { mark.acked } else { mark.end };
            // From outside only what fits: a forged number must not prepare the way for a forged reset.
            if (side == HOME || is_within(segment.seq, from, mark.end)) && is_after(end, mark.end) {
                mark.end = end;
            }
        }
        known |= of(END, side);
        if flags.ack {
            let other = &mut self.0[1 - side];
            let first = flags.syn || known & of(ACKED, 1 - side) == 0;
            let fits = side == HOME || is_within(segment.ack, other.acked, other.end);
            if first || fits && is_after(segment.ack, other.acked) {
                other.acked = segment.ack;
            }
            if known & of(END, 1 - side) != 0 && is_after(other.acked, other.end) {
                other.end = other.acked;
            }
            known |= of(ACKED, 1 - side);
        }
        known
    }
}

#[inline]
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

/// From what is expected next to what has been sent, and a little beyond.
#[inline]
fn is_within(seq: u32, acked: u32, end: u32) -> bool {
    let sent = if is_after(end, acked) { end.wrapping_sub(acked) } else { 0 };
    seq.wrapping_sub(acked) <= sent.saturating_add(AHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::napt::TcpFlags;

    /// `>` outbound, `<` inbound; S, A, F, R are flags. Numbers are those of ends that see everything.
    fn after(script: &str) -> bool {
        let (mut state, mut marks) = (TcpState::default(), Marks::default());
        let mut next = [u32::MAX - 1, 70_000];
        for word in script.split_whitespace() {
            let has = |flag| word.contains(flag);
            let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
            let side = usize::from(has('<'));
            let segment = Segment { flags, seq: next[side], ack: if flags.ack { next[1 - side] } else { 0 }, len: 0 };
            next[side] = next[side].wrapping_add(u32::from(flags.syn) + u32::from(flags.fin));
            state =
                if side == HOME { state.outbound(&mut marks, &segment) } else { state.inbound(&mut marks, &segment) };
        }
        state.is_established()
    }

    #[test]
    fn a_handshake_establishes() {
        assert!(!after(">S"));
        assert!(!after(">S >S >S"));
        assert!(!after(">S <SA"));
        assert!(after(">S <SA >A"));
        assert!(after("<S >SA <A"), "opened from outside");
        assert!(after(">S <S >SA <SA"), "simultaneous open");
        assert!(after(">A <A"), "a connection older than the flow");
    }

    #[test]
    fn one_side_alone_never_establishes() {
        assert!(!after(">S >A >A"));
        assert!(!after("<S <A <A"));
        assert!(!after(">S <A"), "a forged ACK before the answer");
    }

    #[test]
    fn a_close_needs_both_fins() {
        assert!(after(">S <SA >A >FA <A"));
        assert!(after(">S <SA >A <FA >A"));
        assert!(!after(">S <SA >A >FA <FA >A"));
        assert!(!after(">S <SA >A <FA >FA <A"));
        assert!(!after(">S <SA >A <FA >FA >A <A >A"), "stragglers do not reopen");
    }

    #[test]
    fn a_reset_closes_until_the_home_goes_on() {
        assert!(!after(">S <SA >A <R"));
        assert!(!after(">S <SA >A >RA"));
        assert!(!after(">S <SA >A <R <A"), "only the home can tell that a reset was forged");
        assert!(after(">S <SA >A <R >A"));
        assert!(!after(">S <RA"), "refused");
    }

    #[test]
    fn a_syn_of_the_home_reopens() {
        assert!(!after(">S <SA >A >FA <FA >A >S"));
        assert!(after(">S <SA >A >FA <FA >A >S <SA >A"));
        assert!(!after(">S <SA >A <R <S"), "a SYN from outside does not");
        assert!(after(">S <SA >A <R <S >SA <A"));
        assert!(after(">S <SA >A >FA >S"), "a second connection on an open flow");
        assert!(after(">S <SA >A >FA >S <SA >A <FA"), "its FIN and the first one's are not a close");
    }
}
