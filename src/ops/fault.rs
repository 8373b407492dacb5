//! Places where tests let a process die, to see what is left.

/// Ends the process here, as SIGKILL would, if the environment's `MAPT_FAULT` says so. Does nothing in a release build.
pub fn fault(place: &str) {
    if cfg!(debug_assertions) && std::env::var("MAPT_FAULT").is_ok_and(|wanted| wanted == place) {
        std::process::abort();
    }
}
