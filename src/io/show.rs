//! `mapt show`: what a running daemon is asked, and its answers for people or programs.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::client::{ClientError, Connection, Target};
use crate::ops::control::{Ask, Event, Filter, Mapping, Ports};
use crate::ops::counters::{self, Counters, RuleCount};
use crate::ops::drops::{self, Drop};
use crate::ops::fragments::Fragments;
use crate::ops::route_table::{self, RouteRow};
use crate::ops::status::{ProgramVersion, RouteSums, Status};
use crate::ops::{mappings, show as rules};

/// What a running daemon is asked.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What the daemon is and has in force: role, rules, prefix, device, routes, sysctls
    Status(From),
    /// The rule set in force, as `mapt rules show` prints a file
    Rules(From),
    /// The routes that are wanted beside those that the kernel has
    Routes(From),
    /// Packets and octets in both directions, what was dropped and why, and the device's errors
    Counters(CountersArgs),
    /// What is in the fragment table, beside its bounds
    Fragments(From),
    /// Some of the packets that were dropped lately: when, why, by which rule, the header in words
    Drops(From),
    /// The mappings of a CE: who in the home has which port towards whom, and for how long
    Mappings(MappingsArgs),
    /// Which program runs, and its process
    Version(From),
}

#[derive(Debug, Args)]
struct From {
    /// The daemon's control socket (`control.socket` of its file), or ssh://HOST[/SOCKET]
    #[arg(long, value_name = "TARGET")]
    from: Target,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CountersArgs {
    #[command(flatten)]
    from: From,
    /// Show rates every so many seconds, until Ctrl-C; with --json the counters, a line each time
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=60))]
    watch: Option<u64>,
}

#[derive(Debug, Args)]
struct MappingsArgs {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    filter: Filter,
    /// Show what is made and what ends, until Ctrl-C; with --json a line each
    #[arg(long)]
    follow: bool,
}

/// `mapt show`.
pub fn show(args: &ShowArgs) -> ExitCode {
    let out = &mut io::BufWriter::new(io::stdout().lock());
    let result = match &args.what {
        What::Status(from) => show_one(from, Ask::Status, out, Status::in_words),
        What::Version(from) => show_one(from, Ask::Version, out, ProgramVersion::in_words),
        What::Rules(from) => show_rules(from, out),
        What::Routes(from) => show_routes(from, out),
        What::Counters(args) => show_counters(args, out),
        What::Fragments(from) => show_one(from, Ask::Fragments, out, Fragments::in_words),
        What::Drops(from) => show_drops(from, out),
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

/// An answer without rows.
fn show_one<D: serde::de::DeserializeOwned + Serialize>(
    From { from, json }: &From,
    ask: Ask,
    out: &mut impl Write,
    in_words: impl FnOnce(&D) -> String,
) -> Result<(), ClientError> {
    let answer: D = Connection::open(from)?.ask(ask, &[], no_rows)?;
    match json {
        true => write_json(out, &answer),
        false => out.write_all(in_words(&answer).as_bytes()),
    }
    .map_err(ClientError::Write)
}

fn no_rows(_: serde::de::IgnoredAny) -> io::Result<()> {
    Ok(())
}

fn show_rules(From { from, json }: &From, out: &mut impl Write) -> Result<(), ClientError> {
    let mut text = String::new();
    let () = Connection::open(from)?.ask(Ask::Rules, &[], |piece: String| {
        text.push_str(&piece);
        Ok(())
    })?;
    let broken = |findings| ClientError::Broken { target: from.to_string(), reason: format!("{findings}") };
    let shown = rules::text(&text, *json).map_err(broken)?;
    out.write_all(shown.as_bytes()).map_err(ClientError::Write)
}

fn show_routes(From { from, json }: &From, out: &mut impl Write) -> Result<(), ClientError> {
    let mut connection = Connection::open(from)?;
    let mut rows = Rows::begin(out, *json, "routes", route_table::head, route_table::row)?;
    let (tun, sums): (String, RouteSums) = connection.ask(Ask::Routes, &[], |route: RouteRow| rows.one(&route))?;
    #[derive(Serialize)]
    struct Rest<'a> {
        tun: &'a str,
        #[serde(flatten)]
        sums: &'a RouteSums,
    }
    rows.end(&Rest { tun: &tun, sums: &sums }, || route_table::sums(&sums, &tun))
}

fn show_counters(args: &CountersArgs, out: &mut impl Write) -> Result<(), ClientError> {
    let CountersArgs { from: From { from, json }, watch } = args;
    let mut connection = Connection::open(from)?;
    let name = from.to_string();
    let mut before: Option<(Counters, Vec<RuleCount>)> = None;
    loop {
        let mut rules = Vec::new();
        let now: Counters = connection.ask(Ask::Counters, &[], |rule: RuleCount| {
            rules.push(rule);
            Ok(())
        })?;
        let text = match (&before, watch) {
            _ if *json => {
                #[derive(Serialize)]
                struct All<'a> {
                    #[serde(flatten)]
                    counters: &'a Counters,
                    rules: &'a [RuleCount],
                }
                serde_json::to_string(&All { counters: &now, rules: &rules }).unwrap_or_default() + "\n"
            }
            (None, Some(_)) => String::new(),
            (None, None) => now.table(&name) + &counters::rules_table(&rules, None),
            (Some((before, old)), _) => {
                let seconds = (now.uptime - before.uptime).max(0.001);
                now.rates(before, &name) + &counters::rules_table(&rules, Some((old, seconds)))
            }
        };
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ClientError::Write)?;
        let Some(seconds) = watch else { return Ok(()) };
        before = Some((now, rules));
        std::thread::sleep(Duration::from_secs(*seconds));
    }
}

fn show_drops(From { from, json }: &From, out: &mut impl Write) -> Result<(), ClientError> {
    let mut connection = Connection::open(from)?;
    let mut rows = Rows::begin(out, *json, "drops", drops::head, drops::row)?;
    let () = connection.ask(Ask::Drops, &[], |drop: Drop| rows.one(&drop))?;
    #[derive(Serialize)]
    struct Rest {}
    rows.end(&Rest {}, String::new)
}

fn show_mappings(args: &MappingsArgs, out: &mut impl Write) -> Result<(), ClientError> {
    let MappingsArgs { from: From { from, json }, filter, follow } = args;
    if *follow {
        let mut connection = Connection::open(from)?;
        connection.be_patient().map_err(ClientError::Write)?;
        return connection.ask(Ask::Events(filter.clone()), &[], |event: Event| {
            match json {
                true => write_json(out, &event)?,
                false => writeln!(out, "{}", event.in_words())?,
            }
            out.flush()
        });
    }
    let mut connection = Connection::open(from)?;
    let mut rows = Rows::begin(out, *json, "mappings", mappings::head, mappings::row)?;
    let ports: Vec<Ports> =
        connection.ask(Ask::Mappings(filter.clone()), &[], |mapping: Mapping| rows.one(&mapping))?;
    #[derive(Serialize)]
    struct Rest<'a> {
        ports: &'a [Ports],
    }
    rows.end(&Rest { ports: &ports }, || mappings::sums(&ports))
}

/// A list that is written as it comes: one JSON document, or a table.
struct Rows<'o, W, R> {
    out: &'o mut W,
    json: bool,
    first: bool,
    row: fn(&R) -> String,
}

impl<'o, W: Write, R: Serialize> Rows<'o, W, R> {
    fn begin(
        out: &'o mut W,
        json: bool,
        key: &str,
        head: fn() -> String,
        row: fn(&R) -> String,
    ) -> Result<Self, ClientError> {
        let begin = if json { format!("{{\"{key}\":[") } else { head() };
        out.write_all(begin.as_bytes()).map_err(ClientError::Write)?;
        Ok(Rows { out, json, first: true, row })
    }

    fn one(&mut self, row: &R) -> io::Result<()> {
        if !self.json {
            return self.out.write_all((self.row)(row).as_bytes());
        }
        if !std::mem::replace(&mut self.first, false) {
            self.out.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut *self.out, row)?)
    }

    /// `rest` has the other keys of the document.
    fn end(self, rest: &impl Serialize, sums: impl FnOnce() -> String) -> Result<(), ClientError> {
        let end = match self.json {
            true => {
                let rest = serde_json::to_string(rest).unwrap_or_default();
                let rest = rest.strip_prefix('{').unwrap_or_default();
                format!("]{}{rest}\n", if rest == "}" { "" } else { "," })
            }
            false => sums(),
        };
        self.out.write_all(end.as_bytes()).map_err(ClientError::Write)
    }
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
