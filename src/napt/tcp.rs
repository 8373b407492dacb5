//! As much of TCP as decides which of its two idle times a mapping has (RFC 5382 REQ-5, RFC 7857 §2).
use super::TcpFlags;

/// What has been seen in either direction. One mapping may carry several connections; an idle time that is
/// too long for one of them costs a port for a while, one too short would cut another off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpState(u8);

const OUT_ACK: u8 = 1;
const IN_ACK: u8 = 2;
const BOTH_ACKS: u8 = OUT_ACK | IN_ACK;
const OUT_FIN: u8 = 4;
const IN_FIN: u8 = 8;
const BOTH_FINS: u8 = OUT_FIN | IN_FIN;
const RESET: u8 = 16;

impl TcpState {
    /// Both ends have acknowledged something, and neither an RST nor both FINs have passed since.
    #[inline]
    pub(super) fn is_established(self) -> bool {
        self.0 & BOTH_ACKS == BOTH_ACKS && !self.is_closing()
    }

    #[inline]
    fn is_closing(self) -> bool {
        self.0 & RESET != 0 || self.0 & BOTH_FINS == BOTH_FINS
    }

    /// The state after a segment from the home.
    #[inline]
    pub(super) fn outbound(self, flags: TcpFlags) -> TcpState {
        let seen = self.0;
        if flags.rst {
            return TcpState(seen | RESET);
        }
        if flags.syn {
            // A new connection: an old one on this mapping no longer counts.
            let kept = if self.is_closing() { 0 } else { seen & !BOTH_FINS };
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

    /// The state after a segment from the Internet. None of them reopens a mapping that is closing.
    #[inline]
    pub(super) fn inbound(self, flags: TcpFlags) -> TcpState {
        let mut next = self.0;
        if flags.rst {
            return TcpState(next | RESET);
        }
        if flags.ack {
            next |= IN_ACK;
        }
        if flags.fin {
            next |= IN_FIN;
        }
        TcpState(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `>` outbound, `<` inbound; S, A, F, R are flags.
    fn after(script: &str) -> bool {
        let mut state = TcpState::default();
        for segment in script.split_whitespace() {
            let has = |flag| segment.contains(flag);
            let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
            state = if has('>') { state.outbound(flags) } else { state.inbound(flags) };
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
        assert!(after(">A <A"), "a connection older than the mapping");
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
        assert!(!after(">S <SA >A >FA <FA >A <A >A"), "stragglers do not reopen");
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
        assert!(after(">S <SA >A >FA >S"), "a second connection on an open mapping");
        assert!(after(">S <SA >A >FA >S <SA >A <FA"), "its FIN and the first one's are not a close");
    }
}
