//! What a fuzz target does with its input, and what must hold: included by the targets, which search for
//! inputs, and by `tests/fuzz_replay.rs`, which runs the committed ones.
#![allow(dead_code, unused_imports)]

mod ce;
mod config;
mod control;
mod engine;
mod flow;
mod homes;
pub mod oracle;
mod pair;
mod pcp;
mod saved;
mod tracker;
mod wire;

pub use ce::ce;
pub use config::config;
pub use control::control;
pub use engine::br;
pub use pair::pair;
pub use pcp::pcp;
pub use saved::saved;
pub use wire::wire;
