//! How often the same thing is mended: at once when it breaks, then later and later while it breaks again.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The wait after the first mending.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait; what has stood for as long beyond its wait is forgiven.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Mended {
    at: Instant,
    wait: Duration,
}

/// What was mended lately.
#[derive(Debug)]
pub struct Patience<K>(HashMap<K, Mended>);

impl<K> Default for Patience<K> {
    fn default() -> Self {
        Patience(HashMap::new())
    }
}

impl<K: Eq + Hash> Patience<K> {
    /// When this may be mended: `now`, or later.
    pub fn when(&self, key: &K, now: Instant) -> Instant {
        self.0.get(key).map_or(now, |mended| (mended.at + mended.wait).max(now))
    }

    /// It was mended, or that was tried; how long it then has to stay as it is.
    pub fn mended(&mut self, key: K, now: Instant) -> Duration {
        let wait = match self.0.get(&key) {
            Some(former) if now < former.at + former.wait + LONGEST => (former.wait * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0.insert(key, Mended { at: now, wait });
        wait
    }

    /// Forgets what has stood long enough.
    pub fn forgive(&mut self, now: Instant) {
        self.0.retain(|_, mended| now < mended.at + mended.wait + LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_fought_once_a_minute_and_forgiven_after_two() {
        let mut patience = Patience::default();
        let mut now = Instant::now();
        assert_eq!(patience.when(&"route", now), now);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = Duration::from_secs(wait);
            assert_eq!(patience.mended("route", now), wait);
            assert_eq!(patience.when(&"route", now), now + wait);
            assert_eq!(patience.when(&"another", now), now);
            now += wait;
            assert_eq!(patience.when(&"route", now), now);
        }
        // Its wait is over; it has to stand for a minute more.
        patience.forgive(now + Duration::from_secs(59));
        assert_eq!(patience.mended("route", now + Duration::from_secs(59)), Duration::from_secs(60));
        now += Duration::from_secs(59 + 120);
        patience.forgive(now);
        assert!(patience.0.is_empty());
        assert_eq!(patience.mended("route", now), Duration::from_secs(1));
    }
}
