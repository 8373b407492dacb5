//! MAP-T (RFC 7599) for Linux.
//!
//! ```text
//!  bin ── lab ── io ── ops ── config          the world: devices, routes, files, processes
//!                 │     │
//!                 │   ce │ br                 the two roles (RFC 7599 §8.1-8.4)
//!                 │     │
//!           hold desk mapping                what both roles share: fragments; count once, answer; drop reasons
//!                 │     │
//!      engine  napt ── pcp  siit  frag  reply  stats  drops
//!                 │     │
//!                map   wire  verdict         arithmetic on addresses and on bytes
//! ```
//!
//! Everything below `ops` is arithmetic on bytes and an explicit `now`: no clock, no file, no socket.
//! The four paths of a packet are `Ce::v4_to_v6` (§8.1), `Ce::v6_to_v4` (§8.2), `Br::v6_to_v4` (§8.3)
//! and `Br::v4_to_v6` (§8.4). Who may import whom is held by `tests/layering.rs`.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod br;
pub mod ce;
pub mod config;
pub mod desk;
pub mod drops;
pub mod engine;
pub mod frag;
pub mod hold;
pub mod io;
pub mod lab;
pub mod map;
pub mod mapping;
pub mod napt;
pub mod ops;
pub mod pcp;
pub mod reply;
pub mod siit;
pub mod stats;
pub mod verdict;
pub mod wire;
