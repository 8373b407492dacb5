//! The ports of later fragments (RFC 7599 §10.2): bounded, shared by the threads of a role, given a `now`.
//!
//! A first fragment leaves its ports here for as long as the lifetime says, and later ones find them. A later one that
//! comes early is held until then. Fragments of one group (a customer, a host of the home) share one bucket; when it
//! is full, the source that fills it most gives way, so that a flood costs others nothing.

mod bucket;
mod store;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::verdict::{Direction, DropReason};
use crate::wire::PacketBuf;
use bucket::{Bucket, Name};

/// The `fragments` block of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragParams {
    /// How long ports are known and early fragments held, from the first octet seen of a packet. Default 2 s, the
    /// FRAGMENT_MIN of RFC 6146 §4.
    pub lifetime: Duration,
    /// Fragmented packets known at a time; 0 for none: then no later fragment has a port. Default 16,384.
    pub packets: u32,
    /// Octets of early fragments held at a time; 0 for none. Default 32 MiB.
    pub held_octets: u32,
}

impl FragParams {
    /// A home's defaults: 4,096 packets, 8 MiB.
    pub const CE: FragParams = FragParams { lifetime: Duration::from_secs(2), packets: 4096, held_octets: 8 << 20 };
}

impl Default for FragParams {
    fn default() -> Self {
        FragParams { lifetime: Duration::from_secs(2), packets: 16_384, held_octets: 32 << 20 }
    }
}

/// What the fragments of one packet have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The direction, and with it the family.
    pub direction: Direction,
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Identification.
    pub id: u32,
    /// Protocol or next header behind the fragment header.
    pub protocol: u8,
}

/// One fragment's place in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which packet.
    pub key: Key,
    /// Whose bucket: all fragments of a packet must agree on it.
    pub group: u128,
    /// Octets before it.
    pub offset: u32,
    /// Octets in it.
    pub len: u32,
    /// Whether more follow.
    pub more: bool,
}

/// What a first fragment tells the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Source and destination port, as they came.
    pub ports: (u16, u16),
    /// The Identification that replaces theirs, where one does (RFC 7599 §10.3).
    pub id: Option<u16>,
}

/// What becomes of a later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// It can be translated.
    Go(Known),
    /// It is held; `release` gives it back.
    Held,
    /// It is dropped.
    Drop(DropReason),
}

/// Held fragments that were given up: packets and octets, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Too old: `fragment-timeout`.
    pub timeout: [(u64, u64); 2],
    /// Made room for others: `fragment-table-full`.
    pub full: [(u64, u64); 2],
}

/// What is in the table now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fragmented packets known, old ones that nobody has asked for included.
    pub packets: u64,
    /// Fragments held.
    pub held: u64,
    /// Octets of the store in use by them.
    pub held_octets: u64,
}

/// Most packets of one bucket.
const BUCKET: u32 = 64;
/// A sweep for the sake of one fragment waits for others.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
const NEVER: u64 = u64::MAX;

/// The table.
pub struct FragTable {
    buckets: Box<[Mutex<Bucket>]>,
    seed: u64,
    lifetime: u64,
    /// When the oldest held fragment is too old, in nanoseconds.
    due: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

impl FragTable {
    /// All memory is taken here; the store's pages are touched only when they are used. Who does not know `seed` cannot
    /// aim at a bucket.
    pub fn new(params: &FragParams, seed: u64) -> FragTable {
        let count = params.packets.div_ceil(BUCKET);
        let each = |limit: u32| limit.checked_div(count).unwrap_or(0);
        let bucket = || Mutex::new(Bucket::new(each(params.packets), each(params.held_octets)));
        FragTable {
            buckets: (0..count).map(|_| bucket()).collect(),
            seed,
            lifetime: nanos(params.lifetime),
            due: AtomicU64::new(NEVER),
        }
    }

    /// A first fragment comes by: from now on its ports are awaited. The Identification for all fragments of its
    /// packet is `id`, or the one that was chosen before.
    pub fn first(
        &self,
        piece: &Piece,
        ports: (u16, u16),
        id: Option<u16>,
        now: Duration,
        lost: &mut Losses,
    ) -> Result<Option<u16>, DropReason> {
        let Some(mut bucket) = self.bucket(piece.group) else { return Ok(id) };
        bucket.first(self.name(&piece.key), piece, ports, id, self.moment(now), lost)
    }

    /// What became of the first fragment: its ports serve the later ones, or its reason does.
    pub fn settle(&self, piece: &Piece, outcome: Result<(u16, u16), DropReason>) {
        let Some(mut bucket) = self.bucket(piece.group) else { return };
        bucket.settle(self.name(&piece.key), &piece.key, outcome);
    }

    /// Takes the next held fragment of a settled packet out, into `out`.
    pub fn release(&self, piece: &Piece, out: &mut PacketBuf) -> Option<Result<Known, DropReason>> {
        self.bucket(piece.group)?.release(self.name(&piece.key), &piece.key, out)
    }

    /// A later fragment comes by, `packet` as it came.
    pub fn later(&self, piece: &Piece, packet: &[u8], now: Duration, lost: &mut Losses) -> Later {
        let Some(mut bucket) = self.bucket(piece.group) else { return Later::Drop(DropReason::FragmentWithoutPort) };
        let moment = self.moment(now);
        let later = bucket.later(self.name(&piece.key), piece, packet, moment, lost);
        if later == Later::Held {
            self.due.fetch_min(moment.due(), Ordering::Relaxed);
        }
        later
    }

    /// Remembers that a packet's first fragment was refused, where later ones need no port.
    pub fn refuse(&self, piece: &Piece, reason: DropReason, now: Duration, lost: &mut Losses) {
        let Some(mut bucket) = self.bucket(piece.group) else { return };
        let name = self.name(&piece.key);
        if bucket.first(name, piece, (0, 0), None, self.moment(now), lost).is_ok() {
            bucket.settle(name, &piece.key, Err(reason));
        }
    }

    /// Why the first fragment of this packet was refused, if that is remembered.
    pub fn refused(&self, piece: &Piece, now: Duration) -> Option<DropReason> {
        self.bucket(piece.group)?.refused(self.name(&piece.key), &piece.key, self.moment(now))
    }

    /// From now on no later fragment passes whose first one was settled before. Those that wait for theirs stay.
    pub fn turn(&self) {
        for bucket in &self.buckets {
            lock(bucket).turn();
        }
    }

    /// When `expire` is next worth calling.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = self.due.load(Ordering::Relaxed);
        (due != NEVER).then(|| Duration::from_nanos(due))
    }

    /// Gives up what was held too long. One thread's work is the others' too.
    pub fn expire(&self, now: Duration, lost: &mut Losses) {
        let moment = self.moment(now);
        let due = self.due.load(Ordering::Relaxed);
        if due > moment.now || self.due.compare_exchange(due, NEVER, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let next = self.buckets.iter().filter_map(|bucket| lock(bucket).expire(moment, lost)).min();
        if let Some(next) = next {
            self.due.fetch_min(next.max(moment.now + nanos(SWEEP_PAUSE)), Ordering::Relaxed);
        }
    }

    /// What is in it now.
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for bucket in &self.buckets {
            lock(bucket).add_usage(&mut sum);
        }
        sum
    }

    fn moment(&self, now: Duration) -> Moment {
        Moment { now: nanos(now), lifetime: self.lifetime }
    }

    fn bucket(&self, group: u128) -> Option<MutexGuard<'_, Bucket>> {
        let hash = self.hash(&group);
        let index = (u128::from(hash) * self.buckets.len() as u128) >> 64;
        self.buckets.get(index as usize).map(lock)
    }

    fn name(&self, key: &Key) -> Name {
        Name { tag: self.hash(key) as u32 | 1, source: self.hash(&key.src) as u32 }
    }

    fn hash(&self, what: &impl Hash) -> u64 {
        let mut sip = DefaultHasher::new();
        sip.write_u64(self.seed);
        what.hash(&mut sip);
        sip.finish()
    }
}

/// A thread that panicked left a bucket that is whole: each operation ends what it begins.
fn lock(bucket: &Mutex<Bucket>) -> MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now, and how long things live.
#[derive(Clone, Copy, Debug)]
struct Moment {
    now: u64,
    lifetime: u64,
}

impl Moment {
    /// Threads look at the clock at different times, so `born` may lie ahead.
    fn is_past(self, born: u64) -> bool {
        self.now.saturating_sub(born) > self.lifetime
    }

    /// The first moment at which what is born now is past.
    fn due(self) -> u64 {
        self.due_of(self.now)
    }

    fn due_of(self, born: u64) -> u64 {
        born.saturating_add(self.lifetime).saturating_add(1).min(NEVER - 1)
    }
}
