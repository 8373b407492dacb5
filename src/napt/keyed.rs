//! What only the holder of the seed can foresee: where a key hashes to, and which port comes next.
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// A number that depends on all its arguments and tells nothing of `seed`.
fn derive(seed: u64, label: u64, counter: u64) -> u64 {
    let mut sip = DefaultHasher::new();
    sip.write_u64(seed);
    sip.write_u64(label);
    sip.write_u64(counter);
    sip.finish()
}

/// A keyed hash of inside keys: a host of the home that does not know the seed cannot aim at one bucket.
#[derive(Clone, Copy)]
pub(super) struct KeyedHash {
    keys: [u64; 4],
}

impl KeyedHash {
    pub(super) fn new(seed: u64) -> KeyedHash {
        KeyedHash { keys: std::array::from_fn(|i| derive(seed, 1, i as u64) | 1) }
    }

    #[inline]
    pub(super) fn hash<K: Hash>(&self, key: &K) -> u64 {
        let mut fold = Fold { state: self.keys[0], key: self.keys[1] };
        key.hash(&mut fold);
        folded_multiply(fold.state ^ self.keys[2], self.keys[3])
    }
}

/// Both halves of the 128-bit product: each bit of `a` reaches each bit of the result.
#[inline]
fn folded_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

struct Fold {
    state: u64,
    key: u64,
}

impl Hasher for Fold {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.state = folded_multiply(self.state ^ word, self.key);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// The sequence of random numbers that picks ports (RFC 6056 §3.3: unpredictable without the key).
pub(super) struct Draws {
    seed: u64,
    counter: u64,
}

impl Draws {
    pub(super) fn new(seed: u64) -> Draws {
        Draws { seed, counter: 0 }
    }

    /// The next number; the same until `advance`.
    pub(super) fn peek(&self) -> u64 {
        derive(self.seed, 2, self.counter)
    }

    pub(super) fn advance(&mut self) {
        self.counter = self.counter.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::napt::Inside;
    use std::net::Ipv4Addr;

    /// Hosts of one /24 with consecutive ports are what a home looks like; a weak hash lines them up.
    #[test]
    fn keys_of_a_home_spread_over_the_buckets() {
        let hash = KeyedHash::new(7);
        let mut buckets = vec![0u32; 65_536];
        for host in 0..16u8 {
            for port in 40_000..44_096u16 {
                let inside = Inside { addr: Ipv4Addr::new(192, 168, 1, host), port };
                buckets[(hash.hash(&inside) & 0xffff) as usize] += 1;
            }
        }
        // Poisson with mean 1: a bucket of 12 is expected once in 15 million.
        assert!(*buckets.iter().max().unwrap() < 12);
        let empty = buckets.iter().filter(|n| **n == 0).count() as f64 / 65_536.0;
        assert!((empty - (-1f64).exp()).abs() < 0.02, "{empty}");
    }

    #[test]
    fn another_seed_hashes_and_draws_otherwise() {
        let inside = Inside { addr: Ipv4Addr::new(10, 0, 0, 1), port: 5000 };
        assert_ne!(KeyedHash::new(1).hash(&inside), KeyedHash::new(2).hash(&inside));
        assert_ne!(Draws::new(1).peek(), Draws::new(2).peek());
    }
}
