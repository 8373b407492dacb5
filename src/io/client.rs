//! `mapt show --from TARGET`: the other end of a daemon's control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use crate::ops::control::{Answer, Ask, Filter, Mapping, Ports, Request};
use crate::ops::mappings;

/// How long a daemon may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a running daemon is asked.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The mappings of a CE: who in the home has which port towards whom, and for how long
    Mappings(MappingsArgs),
}

#[derive(Debug, Args)]
struct From {
    /// The daemon's control socket (`control.socket` of its file)
    #[arg(long, value_name = "TARGET")]
    from: PathBuf,
    /// Answer in JSON, a line each
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MappingsArgs {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    filter: Filter,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves it.
    #[error("`{target}`: {error}; is the daemon running, and is this its `control.socket`?")]
    Connect {
        /// What was to be asked.
        target: String,
        /// The system's answer.
        error: io::Error,
    },
    /// The daemon says no.
    #[error("`{target}`: {reason}")]
    Refused {
        /// What was asked.
        target: String,
        /// Its words.
        reason: String,
    },
    /// It broke off.
    #[error("`{target}` broke off its answer: {reason}")]
    Broken {
        /// What was asked.
        target: String,
        /// How.
        reason: String,
    },
    /// stdout.
    #[error("the answer cannot be written: {0}")]
    Write(io::Error),
}

/// Asks, gives each row to `row`, and returns what was said at the end. A `row` that fails ends it.
pub fn ask<R: DeserializeOwned, D: DeserializeOwned>(
    socket: &PathBuf,
    ask: Ask,
    mut row: impl FnMut(R) -> io::Result<()>,
) -> Result<D, ClientError> {
    let target = || socket.display().to_string();
    let broken = |reason: String| ClientError::Broken { target: target(), reason };
    let connect = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&Request::line(ask.clone()))?;
        Ok(BufReader::new(stream))
    };
    let mut reader = connect().map_err(|error| ClientError::Connect { target: target(), error })?;
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return Err(broken("it closed the connection".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(broken(format!("nothing within {} s", PATIENCE.as_secs())));
            }
            Err(error) => return Err(broken(error.to_string())),
            Ok(_) => {}
        }
        match serde_json::from_slice(&line).map_err(|error| broken(error.to_string()))? {
            Answer::Row(one) => row(one).map_err(ClientError::Write)?,
            Answer::Done(done) => return Ok(done),
            Answer::Error(reason) => return Err(ClientError::Refused { target: target(), reason }),
        }
    }
}

/// `mapt show`.
pub fn show(args: &ShowArgs) -> ExitCode {
    let out = &mut io::BufWriter::new(io::stdout().lock());
    let result = match &args.what {
        What::Mappings(args) => show_mappings(args, out),
    };
    match result.and_then(|()| out.flush().map_err(ClientError::Write)) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that went away, such as `head`, is no failure of ours.
        Err(ClientError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mapt: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show_mappings(args: &MappingsArgs, out: &mut impl Write) -> Result<(), ClientError> {
    let MappingsArgs { from: From { from, json }, filter } = args;
    let begin = if *json { "{\"mappings\":[".to_owned() } else { mappings::head() };
    out.write_all(begin.as_bytes()).map_err(ClientError::Write)?;
    let mut first = true;
    let ports: Vec<Ports> = ask(from, Ask::Mappings(filter.clone()), |mapping: Mapping| {
        if !json {
            return out.write_all(mappings::row(&mapping).as_bytes());
        }
        if !std::mem::replace(&mut first, false) {
            out.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut *out, &mapping)?)
    })?;
    let end = match json {
        true => format!("],\"ports\":{}}}\n", serde_json::to_string(&ports).unwrap_or_default()),
        false => mappings::sums(&ports),
    };
    out.write_all(end.as_bytes()).map_err(ClientError::Write)
}
