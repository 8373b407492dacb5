//! Engines out of configuration.

use std::sync::Arc;

use crate::br::{Br, BrParams};
use crate::ce::Ce;
use crate::config::{Config, Role};
use crate::engine::Engine;
use crate::frag::FragTable;

/// One engine.
pub fn build(config: &Config) -> Box<dyn Engine> {
    match &config.role {
        Role::Br(params) => Box::new(Br::new(&config.provisioning, params)),
        Role::Ce(params) => Box::new(Ce::new(&config.provisioning, params)),
    }
}

/// An engine for each of `queues`. Those of a BR share one fragment table and have random numbers of their own; a CE
/// has one queue, its NAPT being one thread's.
pub fn build_all(config: &Config, queues: usize) -> Vec<Box<dyn Engine>> {
    let Role::Br(params) = &config.role else { return vec![build(config)] };
    let fragments = Arc::new(FragTable::new(&params.fragments, params.seed));
    let engine = |queue: u64| -> Box<dyn Engine> {
        let spread = queue.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let params = BrParams { seed: params.seed ^ spread, ..params.clone() };
        Box::new(Br::with_fragments(&config.provisioning, &params, Arc::clone(&fragments)))
    };
    (0..queues as u64).map(engine).collect()
}
