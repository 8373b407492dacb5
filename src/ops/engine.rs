//! Engines out of configuration.

use crate::br::{Br, BrParams};
use crate::ce::{Ce, CeParams};
use crate::config::{Config, Role};
use crate::engine::Engine;

/// The engine of one queue. Every queue has random numbers of its own.
pub fn build(config: &Config, queue: u16) -> Box<dyn Engine> {
    let spread = u64::from(queue).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match &config.role {
        Role::Br(params) => {
            let params = BrParams { seed: params.seed ^ spread, ..params.clone() };
            Box::new(Br::new(&config.provisioning, &params))
        }
        Role::Ce(params) => {
            let params = CeParams { seed: params.seed ^ spread, ..params.clone() };
            Box::new(Ce::new(&config.provisioning, &params))
        }
    }
}
