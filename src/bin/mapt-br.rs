//! The Border Relay (RFC 7599) as a daemon.

use std::process::ExitCode;

use mapt::io::daemon::main_of;
use mapt::io::plan::Program;

fn main() -> ExitCode {
    main_of(Program::Br)
}
