//! The way of a fragment through an engine: first ones leave their ports, later ones find them or wait (RFC 7599 §10.2).

use std::sync::Arc;
use std::time::Duration;

use crate::desk::Desk;
use crate::frag::{FragTable, Key, Known, Later, Losses, Piece};
use crate::siit::{Refusal, V4View, V6View};
use crate::verdict::{Direction, DropReason, Verdict};
use crate::wire::PacketBuf;
use crate::wire::ip::{Fragment, protocol};
use crate::wire::queue::PacketQueue;
use crate::wire::transport::Transport;

/// Why a role did not translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is a fragment, and nobody has said that it may pass.
    Fragment,
    /// It may not pass.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    #[inline(always)]
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<DropReason> for Stop {
    #[inline(always)]
    fn from(reason: DropReason) -> Stop {
        Stop::Refused(reason.into())
    }
}

/// Leave for a fragment to pass, with what its first one told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Source and destination port of a later fragment, as they came.
    pub ports: Option<(u16, u16)>,
    /// The Identification that replaces its own (RFC 7599 §10.3).
    pub id: Option<u16>,
}

/// Stops a fragment that has no leave to pass; gives a later one its ports.
#[inline(always)]
pub fn admit_v4(view: &mut V4View, pass: Option<Pass>) -> Result<(), Stop> {
    let is_fragment = view.header.mf || view.header.offset != 0;
    match pass {
        None if is_fragment => return Err(Stop::Fragment),
        Some(pass) if is_fragment => {
            set_ports(&mut view.transport, pass);
            view.header.id = pass.id.unwrap_or(view.header.id);
        }
        _ => {}
    }
    Ok(())
}

/// Stops a fragment that has no leave to pass; gives a later one its ports. Atomic fragments are whole packets.
#[inline(always)]
pub fn admit_v6(view: &mut V6View, pass: Option<Pass>) -> Result<(), Stop> {
    // Almost nobody has a Fragment header: what it says is looked at elsewhere.
    if view.header.fragment.is_none() { Ok(()) } else { admit_fragment_header(view, pass) }
}

#[cold]
#[inline(never)]
fn admit_fragment_header(view: &mut V6View, pass: Option<Pass>) -> Result<(), Stop> {
    match pass {
        None if view.real_fragment().is_some() => return Err(Stop::Fragment),
        Some(pass) => set_ports(&mut view.transport, pass),
        None => {}
    }
    Ok(())
}

fn set_ports(transport: &mut Transport, pass: Pass) {
    if let Transport::Later { ports } = transport {
        *ports = pass.ports;
    }
}

/// A role as far as fragments need it.
pub trait Role {
    /// Plans and applies. The first output is then in `packet`, further ones at the end of `more`.
    /// Without `pass`, a fragment stops.
    fn translate(
        &mut self,
        packet: &mut PacketBuf,
        direction: Direction,
        pass: Option<Pass>,
        now: Duration,
        more: &mut PacketQueue,
    ) -> Result<(), Stop>;

    /// The number of the rule by which the last packet was mapped.
    fn rule(&self) -> Option<u32>;

    /// Whether the addresses of this packet lead nowhere without a port.
    fn needs_port(&self, key: &Key) -> bool;

    /// Whose fragments share a bucket with this packet's.
    fn group(&self, key: &Key) -> u128;

    /// A new Identification for a fragmented packet, where the role gives them.
    fn identification(&mut self, direction: Direction) -> Option<u16>;
}

/// An engine's part in the fragment table.
pub struct Hold {
    table: Arc<FragTable>,
    /// For what is released: made when it is first needed.
    work: Option<Work>,
}

#[derive(Default)]
struct Work {
    packet: PacketBuf,
    more: PacketQueue,
}

/// A fragment read again, for its place.
struct Part {
    piece: Piece,
    /// Of a first fragment.
    ports: Option<(u16, u16)>,
}

impl Hold {
    /// Engines of one role may share the table.
    pub fn new(table: Arc<FragTable>) -> Hold {
        Hold { table, work: None }
    }

    /// Where fragments wait.
    pub fn table(&self) -> Arc<FragTable> {
        Arc::clone(&self.table)
    }

    /// Forgets the ports of packets whose first fragment has gone: their later ones are dropped. What waits stays.
    pub fn turn(&mut self) {
        self.table.turn();
    }

    /// A fragment that has stopped: the whole of `handle` for it.
    #[cold]
    pub fn handle<R: Role>(
        &mut self,
        role: &mut R,
        desk: &mut Desk,
        packet: &mut PacketBuf,
        direction: Direction,
        now: Duration,
    ) -> Verdict {
        let octets = packet.len();
        let part = match Part::read(packet, direction, role) {
            Ok(part) => part,
            Err(reason) => return desk.close(packet, direction, octets, Err(reason.into()), None, now),
        };
        let mut lost = Losses::default();
        let verdict = match part.ports {
            Some(ports) => self.first(role, desk, packet, &part.piece, ports, now, &mut lost),
            None => self.later(role, desk, packet, &part.piece, now, &mut lost),
        };
        desk.lose(&lost);
        verdict
    }

    #[allow(clippy::too_many_arguments)]
    fn first<R: Role>(
        &mut self,
        role: &mut R,
        desk: &mut Desk,
        packet: &mut PacketBuf,
        piece: &Piece,
        ports: (u16, u16),
        now: Duration,
        lost: &mut Losses,
    ) -> Verdict {
        let (direction, octets) = (piece.key.direction, packet.len());
        let tracked = has_ports(piece.key.protocol) && role.needs_port(&piece.key);
        let mut pass = Pass::default();
        if tracked {
            match self.table.first(piece, ports, role.identification(direction), now, lost) {
                Ok(id) => pass.id = id,
                Err(reason) => return desk.drop_silently(packet, direction, reason, now),
            }
        }
        let outcome = translate(role, packet, direction, pass, now, &mut desk.more);
        match outcome {
            _ if tracked => self.table.settle(piece, outcome.map(|()| ports).map_err(|refusal| refusal.reason)),
            // The others would be pieces of nothing (RFC 7915 §4.5).
            Err(Refusal { reason: DropReason::UdpChecksumZero, .. }) => {
                self.table.refuse(piece, DropReason::UdpChecksumZero, now, lost);
            }
            _ => {}
        }
        let verdict = desk.close(packet, direction, octets, outcome, role.rule(), now);
        if tracked {
            self.release(role, desk, piece, now);
        }
        verdict
    }

    fn later<R: Role>(
        &mut self,
        role: &mut R,
        desk: &mut Desk,
        packet: &mut PacketBuf,
        piece: &Piece,
        now: Duration,
        lost: &mut Losses,
    ) -> Verdict {
        let (direction, octets) = (piece.key.direction, packet.len());
        let mut pass = Pass::default();
        if has_ports(piece.key.protocol) && role.needs_port(&piece.key) {
            // What no port could save does not wait for one.
            let outcome = translate(role, packet, direction, pass, now, &mut desk.more);
            if !matches!(outcome, Err(Refusal { reason: DropReason::FragmentWithoutPort, .. })) {
                return desk.close(packet, direction, octets, outcome, role.rule(), now);
            }
            match self.table.later(piece, packet.bytes(), now, lost) {
                Later::Go(Known { ports, id }) => pass = Pass { ports: Some(ports), id },
                Later::Held => return desk.hold(direction, octets),
                // The first one was answered, if any was to be.
                Later::Drop(reason) => return desk.drop_silently(packet, direction, reason, now),
            }
        } else if piece.key.protocol == protocol::UDP
            && let Some(reason) = self.table.refused(piece, now)
        {
            return desk.drop_silently(packet, direction, reason, now);
        }
        let outcome = translate(role, packet, direction, pass, now, &mut desk.more);
        desk.close(packet, direction, octets, outcome, role.rule(), now)
    }

    /// What waited for this first fragment goes where it went, in the order in which it came (RFC 7915 §4).
    fn release<R: Role>(&mut self, role: &mut R, desk: &mut Desk, piece: &Piece, now: Duration) {
        let direction = piece.key.direction;
        let work = self.work.get_or_insert_default();
        while let Some(known) = self.table.release(piece, &mut work.packet) {
            let octets = work.packet.len();
            let outcome = known.map_err(Refusal::from).and_then(|Known { ports, id }| {
                let pass = Pass { ports: Some(ports), id };
                translate(role, &mut work.packet, direction, pass, now, &mut work.more)
            });
            desk.release(&work.packet, &mut work.more, direction, octets, outcome);
        }
    }

    /// When `handle_timeout` is next worth calling.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.table.poll_timeout()
    }

    /// Gives up what waited too long.
    pub fn handle_timeout(&mut self, desk: &mut Desk, now: Duration) {
        let mut lost = Losses::default();
        self.table.expire(now, &mut lost);
        desk.lose(&lost);
    }
}

fn translate<R: Role>(
    role: &mut R,
    packet: &mut PacketBuf,
    direction: Direction,
    pass: Pass,
    now: Duration,
    more: &mut PacketQueue,
) -> Result<(), Refusal> {
    role.translate(packet, direction, Some(pass), now, more).map_err(|stop| match stop {
        Stop::Refused(refusal) => refusal,
        Stop::Fragment => DropReason::FragmentIllegal.into(),
    })
}

/// Whether fragments of this protocol have ports to wait for.
fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
}

impl Part {
    fn read<R: Role>(packet: &PacketBuf, direction: Direction, role: &R) -> Result<Part, DropReason> {
        let part = |src: u128, dst: u128, number: u8, place: Fragment, len: usize, transport: Transport| {
            let key = Key { direction, src, dst, id: place.id, protocol: number };
            let Fragment { offset, more, .. } = place;
            let piece = Piece { group: role.group(&key), key, offset, len: len as u32, more };
            let ports = match transport {
                Transport::Later { .. } => None,
                Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => Some((src, dst)),
                _ => Some((0, 0)),
            };
            Part { piece, ports }
        };
        match direction {
            Direction::V4ToV6 => {
                let V4View { header: h, transport, .. } = V4View::parse(packet)?;
                let place = h.fragment().ok_or(DropReason::FragmentIllegal)?;
                let (src, dst) = (u128::from(h.src.to_bits()), u128::from(h.dst.to_bits()));
                Ok(part(src, dst, h.protocol, place, h.payload_len(), transport))
            }
            Direction::V6ToV4 => {
                let view = V6View::parse(packet)?;
                let place = view.real_fragment().ok_or(DropReason::FragmentIllegal)?;
                let h = view.header;
                Ok(part(h.src.to_bits(), h.dst.to_bits(), h.protocol, place, h.payload_len(), view.transport))
            }
        }
    }
}
