//! The operator's acts, without sockets.

pub mod engine;
