//! The fragment table of a running daemon, for whoever asks.

use serde::{Deserialize, Serialize};

use super::text;
use crate::frag::{FragParams, Usage};

/// What is in it, and what it has room for (`fragments` of the configuration).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fragments {
    /// Fragmented packets known, those included that are too old and not yet replaced.
    pub packets: u64,
    /// Most of them.
    pub packets_limit: u32,
    /// Fragments that wait for their first one.
    pub held: u64,
    /// Octets that they take.
    pub held_octets: u64,
    /// Most of them.
    pub held_octets_limit: u32,
    /// How long a packet is known, in seconds.
    pub lifetime: f64,
}

impl Fragments {
    /// A table of these bounds.
    pub fn of(usage: Usage, params: &FragParams) -> Fragments {
        Fragments {
            packets: usage.packets,
            packets_limit: params.packets,
            held: usage.held,
            held_octets: usage.held_octets,
            held_octets_limit: params.held_octets,
            lifetime: params.lifetime.as_secs_f64(),
        }
    }

    /// For people.
    pub fn in_words(&self) -> String {
        let Fragments { packets, packets_limit, held, held_octets, held_octets_limit, lifetime } = self;
        let part = |of: u64, limit: u32| of as f64 * 100.0 / f64::from(limit.max(1));
        text::fields(&[
            ("Packets known", format!("{packets} of {packets_limit} ({:.1} %)", part(*packets, *packets_limit))),
            ("Fragments held", held.to_string()),
            (
                "Octets held",
                format!("{held_octets} of {held_octets_limit} ({:.1} %)", part(*held_octets, *held_octets_limit)),
            ),
            ("Lifetime", text::time(*lifetime)),
        ])
    }
}
