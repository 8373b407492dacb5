//! Devices, routes, sysctls, threads, signals: the only reader of the clock.
//!
//! A daemon's life is [`daemon::main_of`]: configuration, [`plan`], [`setup`] ([`tun`], [`sysctl`], [`netlink`]),
//! [`run`]; [`watch`] then has [`mend`] put back what others remove. What a start has done is undone in the opposite order, at its failure as at the daemon's end.

pub mod client;
pub mod control;
pub mod daemon;
pub mod events;
pub mod live;
pub mod mend;
pub mod metrics;
pub mod netlink;
pub mod patience;
pub mod pcp;
pub mod plan;
pub mod push;
pub mod run;
pub mod saved;
pub mod service;
pub mod setup;
pub mod show;
pub mod standing;
pub mod state;
pub mod sysctl;
pub mod tun;
pub mod watch;
