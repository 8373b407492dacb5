//! The operator's acts: no socket, no interface. Files are read here, by name.

pub mod capture;
pub mod check;
pub mod cli;
pub mod control;
pub mod counters;
pub mod derive;
pub mod diff;
pub mod drops;
pub mod engine;
pub mod explain;
pub mod fault;
pub mod files;
pub mod fragments;
pub mod history;
pub mod mappings;
pub mod metrics;
pub mod push;
pub mod route_table;
pub mod rules_text;
pub mod saved;
pub mod show;
pub mod status;
pub mod text;
pub mod translate;
pub mod whois;
pub mod whowas;
