//! Idle times in ticks. Within one tick a further packet of a mapping changes nothing, so that a busy mapping
//! moves in its list a few times a second, not with every packet.
use std::time::Duration;

const PER_SECOND: u64 = 4;
const NANOS: u32 = 1_000_000_000 / PER_SECOND as u32;

/// Quarters of a second since the caller's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

impl Tick {
    /// The first tick not before `now`: an idle time that starts here ends late by less than a tick, never early.
    #[inline]
    pub(super) fn starting(now: Duration) -> Tick {
        Tick(rounded_up(now))
    }

    /// The last tick not after `now`.
    #[inline]
    pub(super) fn reached(now: Duration) -> Tick {
        Tick(now.as_secs().saturating_mul(PER_SECOND).saturating_add(u64::from(now.subsec_nanos() / NANOS)))
    }

    #[inline]
    pub(super) fn after(self, idle: Ticks) -> Tick {
        Tick(self.0.saturating_add(idle.0))
    }

    /// How many ticks after `base`; at most 34 years' worth.
    #[inline]
    pub(super) fn since(self, base: Tick) -> u32 {
        u32::try_from(self.0.saturating_sub(base.0)).unwrap_or(u32::MAX)
    }

    /// The inverse of `since`.
    #[inline]
    pub(super) fn plus(self, ticks: u32) -> Tick {
        Tick(self.0.saturating_add(u64::from(ticks)))
    }

    /// Ticks from `since` to here, and those before it. What starts between two ticks starts with the next: one less.
    #[inline]
    pub(super) fn waited(self, since: Tick, before: u16) -> Ticks {
        Ticks(self.0.saturating_add(before.into()).saturating_sub(since.0))
    }

    /// So many ticks earlier.
    pub(super) fn before(self, ticks: u16) -> Tick {
        Tick(self.0.saturating_sub(ticks.into()))
    }

    pub(super) fn time(self) -> Duration {
        duration(self.0)
    }

    /// From `earlier` to here; 0 where that is later.
    pub(super) fn from(self, earlier: Tick) -> Duration {
        duration(self.0.saturating_sub(earlier.0))
    }
}

fn rounded_up(time: Duration) -> u64 {
    time.as_secs().saturating_mul(PER_SECOND).saturating_add(u64::from(time.subsec_nanos().div_ceil(NANOS)))
}

fn duration(ticks: u64) -> Duration {
    Duration::new(ticks / PER_SECOND, (ticks % PER_SECOND) as u32 * NANOS)
}

/// A time in ticks; an idle time has at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticks(u64);

impl Ticks {
    /// No idle time at all.
    pub(super) const FOREVER: Ticks = Ticks(u64::MAX);

    pub(super) const fn seconds(seconds: u64) -> Ticks {
        Ticks(seconds * PER_SECOND)
    }

    pub(super) fn of(idle: Duration) -> Ticks {
        Ticks(rounded_up(idle).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_time_never_ends_early_and_at_most_one_tick_late() {
        for (start, idle) in [(0, 300_000), (1, 300_000), (249, 999), (250, 1000), (251, 1001), (999, 1)] {
            let (start, idle) = (Duration::from_millis(start), Duration::from_millis(idle));
            let end = Tick::starting(start).after(Ticks::of(idle)).time();
            assert!(end >= start + idle, "{start:?} {idle:?} {end:?}");
            assert!(end < start + idle + Duration::from_millis(500), "{start:?} {idle:?} {end:?}");
        }
    }

    #[test]
    fn whole_seconds_are_exact() {
        let end = Tick::starting(Duration::from_secs(17)).after(Ticks::of(Duration::from_secs(300))).time();
        assert_eq!(end, Duration::from_secs(317));
    }

    #[test]
    fn what_starts_between_two_ticks_has_not_waited_at_once() {
        let now = Duration::from_millis(16_384_100);
        let since = Tick::starting(now);
        for (later, ticks) in [(0, 0), (149, 0), (150, 0), (400, 1), (10_149, 39), (10_150, 40)] {
            let reached = Tick::reached(now + Duration::from_millis(later));
            assert_eq!(reached.waited(since, 0), Ticks(ticks), "{later} ms");
            assert_eq!(reached.waited(since, 7).0, if later < 150 { 6 } else { ticks + 7 }, "{later} ms");
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let end = Tick::starting(Duration::MAX).after(Ticks::of(Duration::MAX));
        assert!(end >= Tick::reached(Duration::MAX));
        end.time();
        assert!(Ticks::of(Duration::ZERO).0 == 1);
    }
}
